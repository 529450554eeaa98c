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

pub mod throttle;
pub mod webhook;

pub mod pattern;

pub mod state;

pub mod address;
pub mod outbound;
pub mod replay;

pub mod pace;
pub mod retry;

pub mod verify;

pub mod endpoint;
pub mod events;
pub mod limits;
pub mod memory;

pub mod handshakes;
pub mod store;

pub mod learnt;
pub mod provider_keys;
pub mod refused;

pub mod agents;

pub mod dispatch;

pub mod delivery;

pub mod tls;

pub mod descriptors;
pub mod ingress;
pub mod listen;
pub mod metrics;

pub mod config;

pub mod live;

pub mod admin;

pub mod app;

pub mod cli;
