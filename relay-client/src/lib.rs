//! The relay's agent and command line: takes webhooks from a relay over one WebSocket and calls local handlers.
//!
//! A library with a thin binary. It stores nothing, checks no signatures on the delivery path, and calls only the
//! targets named in the user's own flags or file, never an address sent by the relay.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod examine;
pub mod exchange;
pub mod handler;
pub mod health;
pub mod link;
pub mod reason;
pub mod reload;
pub mod report;
pub mod routes;
pub mod send;
pub mod target;
pub mod tls;
