//! The relay's agent and command line: takes webhooks from a relay over one WebSocket and calls local handlers.
//!
//! A library with a thin binary. It stores nothing, checks no signatures on the delivery path, and calls only the
//! targets named in the user's own flags or file, never an address sent by the relay.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod backoff;
pub mod cli;
mod config;
mod diff;
mod doctor;
mod exchange;
mod handler;
mod health;
mod inspect;
mod link;
mod mcp;
mod play;
mod reload;
mod report;
mod routes;
#[cfg(feature = "screen")]
mod screen;
mod send;
mod service;
mod tap;
mod target;
mod tls;
