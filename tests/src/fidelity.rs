//! Fidelity, property by property: what the handler sees is what the sender sent, and the other way round.
//!
//! Each property is one function over a [`Bench`], so that every mode mounts the part that is lawful in it:
//!
//! | module | what it says | lawful in |
//! |---|---|---|
//! | [`request`] | what the handler sees of a request | every mode |
//! | [`refusal`] | which requests are refused, and that no handler saw them | every mode |
//! | [`answer`] | what the sender sees of the handler's answer | live; assured, where it comes in time |
//! | [`keeping`] | what comes again, and what a sender gets meanwhile | assured, durable |
//! | [`streaming`] | what happens while both are under way | live |
//! | [`h2`] | senders that speak HTTP/2 | live; every mode on its lawful part |
//!
//! What a mode leaves out, and why, stands where it is mounted: `tests/tests/ways/fidelity.rs`.
//!
//! Both ends speak raw bytes ([`wire`]), so that no library mends what is to be seen.

pub mod answer;
pub mod bench;
pub mod h2;
pub mod headers;
pub mod keeping;
pub mod refusal;
pub mod request;
pub mod streaming;
pub mod wire;

pub use bench::{Bench, Mode, Seen};
