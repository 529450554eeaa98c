//! The agents: who may attach, who is attached, and who gets the next exchange.

pub(crate) mod accept;
pub(crate) mod admissions;
pub(crate) mod copies;
pub(crate) mod guesses;
pub(crate) mod outcomes;
pub(crate) mod places;
pub(crate) mod registry;
pub(crate) mod seats;
pub(crate) mod skips;
pub(crate) mod targets;
pub mod token;
pub(crate) mod wanted;

#[cfg(test)]
mod tests;
