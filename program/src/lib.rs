//! What both programs are made of beside their own work: names, settings, terminals, sockets and TLS.
//!
//! It knows nothing of webhooks' ways: what an endpoint does with an event, how an agent is served or how a relay keeps
//! what it takes is for the programs. Nothing here runs by itself, and nothing is kept between calls.

#![cfg_attr(test, allow(clippy::unwrap_used))]
// Only the two programs read it: what a name says needs no sentence.
#![allow(missing_docs)]

pub mod accept;
pub mod api;
pub mod cassette;
pub mod cli;
pub mod config;
pub mod event;
mod failure;
pub mod file;
pub mod http1;
pub mod list;
pub mod log_filter;
mod name;
pub mod news;
pub mod pattern;
pub mod process;
pub mod query;
pub mod read_ahead;
pub mod reason;
pub mod secret;
pub mod socket;
pub mod suggest;
pub mod terminal;
pub mod tls;

pub use self::{
    failure::Failure,
    name::{EndpointName, EndpointNameError, MAX_NAME_BYTES},
};
