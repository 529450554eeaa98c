//! Drives one WebSocket with one relay session.
//!
//! One task, the [`Driver`], owns the socket and the [`relay_proto::Session`]; nobody else touches
//! either. Everybody else holds handles: a [`Handle`] to the whole tunnel, an [`Exchange`] (relay) or
//! a [`Request`] (agent) to one stream. A handle notes what it wants in its stream's state and wakes
//! the driver; the driver notes there what came and wakes the handle.
//!
//! ```text
//!  handle ──▶ stream ──▶ ┌────────┐ ──▶ one message, one flush ──▶ socket
//!  handle ◀── stream ◀── │ Driver │ ◀─────────── messages ◀──────── socket
//!                         └────────┘
//! ```
//!
//! Invariants: reading is never gated on writing; each stream is bounded, and each stands at most
//! once in the driver's list; dropping a handle before its part is done resets the stream.
//!
//! What this crate does not do: it does not connect, authenticate, retry or decide who may attach.

mod driver;
mod exchange;
pub mod http;
mod message;
mod shared;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
pub mod upgrade;

pub use driver::{
    Driver, Greeting, agent, relay,
    wire::{CONTROL_BUDGET, FRAGMENT_BUDGET_BYTES},
};
pub use exchange::{Exchange, Receiver, Request, Responder, ResponseFuture, Sender};
pub use shared::{Arrival, Arrivals, Handle, Slot};
pub use socket::{Counted, close_code, websocket, websocket_config};
pub use stream::{Broken, Ticket};
