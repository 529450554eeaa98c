//! The agents: who may attach, who is attached, and who gets the next exchange.

pub mod accept;
pub mod registry;
pub mod token;
