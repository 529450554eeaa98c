//! The public side of the relay: takes webhooks, proves them, and hands them to agents.
//!
//! A library with a thin binary. Modules stand in an order (see ARCHITECTURE.md), and each uses only
//! what stands before it:
//!
//! ```text
//! sender ─▶ ingress ─▶ endpoint ─▶ verify ─▶ dispatch ─▶ agents (tunnel) ─▶ agent ─▶ handler
//! ```
//!
//! What it must never contain: anything about local handlers.

pub(crate) mod throttle;
pub(crate) mod webhook;

pub(crate) mod pattern;

pub(crate) mod state;

pub(crate) mod address;
pub(crate) mod outbound;
pub(crate) mod replay;

pub(crate) mod pace;
pub(crate) mod retry;

pub(crate) mod verify;

pub(crate) mod endpoint;
pub(crate) mod events;
pub(crate) mod limits;
pub(crate) mod memory;

pub(crate) mod handshakes;
pub(crate) mod store;

pub(crate) mod learnt;
pub(crate) mod provider_keys;
pub(crate) mod refused;

pub(crate) mod agents;

pub(crate) mod dispatch;

pub(crate) mod delivery;

pub(crate) mod tls;

pub(crate) mod descriptors;
pub(crate) mod ingress;
pub(crate) mod listen;
pub(crate) mod metrics;

pub(crate) mod config;

pub(crate) mod live;

pub(crate) mod admin;

pub(crate) mod app;

pub(crate) mod cli;
