//! The agents: who may attach, who is attached, and who gets the next exchange.

pub mod accept;
pub mod admissions;
pub mod copies;
pub mod guesses;
pub mod outcomes;
pub mod places;
pub mod registry;
pub mod seats;
pub mod skips;
pub mod targets;
pub mod token;
pub mod wanted;

#[cfg(test)]
mod tests;
