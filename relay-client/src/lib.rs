//! The relay's agent and command line: takes webhooks from a relay over one WebSocket and calls local handlers.
//!
//! A library with a thin binary. It stores nothing, checks no signatures on the delivery path, and calls only the
//! targets named in the user's own flags or file, never an address sent by the relay.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub(crate) mod agent;
pub(crate) mod backoff;
pub(crate) mod cli;
pub(crate) mod config;
pub(crate) mod examine;
pub(crate) mod exchange;
pub(crate) mod handler;
pub(crate) mod health;
pub(crate) mod link;
pub(crate) mod reason;
pub(crate) mod reload;
pub(crate) mod report;
pub(crate) mod routes;
pub(crate) mod send;
pub(crate) mod target;
pub(crate) mod tls;
