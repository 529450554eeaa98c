//! The public side of the relay: takes webhooks, proves them, and hands them to agents.
//!
//! A library with a thin binary. Modules stand in an order (see ARCHITECTURE.md), and each uses only
//! what stands before it:
//!
//! ```text
//! sender ─▶ ingress ─▶ endpoint ─▶ verify ─▶ deliver ─▶ agents (tunnel) ─▶ agent ─▶ handler
//! ```
//!
//! What it must never contain: anything about local handlers.

mod client_certificate;
mod clock;
mod failure;
#[allow(missing_docs, reason = "public for the benchmarks alone")]
pub mod hops;
mod log;
mod memory;
mod spool;
mod tally;
mod throttle;
mod trace;
pub mod webhook;

mod state;

mod address;
mod outbound;
mod replay_guard;

mod rate_limiter;
mod retry;

mod verify;

mod mask;

mod admission;
pub mod endpoint;
mod events;
#[allow(missing_docs, reason = "public for the benchmarks alone")]
pub mod message;

#[allow(missing_docs, reason = "public for the benchmarks alone")]
pub mod store;

mod audit;
mod quota;

pub mod agents;
mod providers;

mod refused;

mod journal;
mod routes;

mod deliver;

mod delivery;

mod canary;

mod stream;

mod timer;
mod tls;

mod descriptors;
mod listen;
pub mod metrics;
mod spans;

mod access_log;
mod alert;

mod config;
mod sandbox;

mod acme;
mod ingress;

mod services;

mod runtime_config;

mod admin;

mod api;

mod limits;

mod app;

pub mod cli;

#[cfg(feature = "fuzz")]
pub mod fuzz;
