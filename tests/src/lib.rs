//! The harness: real server and agent processes on free loopback ports, a handler, and a sender.
//!
//! Everything that is started is ended when it is dropped. Waits are bounded and wait for a state.

pub mod agents;
pub mod browser;
pub mod endpoints;
pub mod fidelity;
pub mod h2;
pub mod handler;
pub mod hosts;
pub mod link;
pub mod overload;
pub mod pebble;
pub mod power_loss;
pub mod process;
pub mod program;
pub mod proxy;
pub mod sender;
pub mod stock;
pub mod tls;
