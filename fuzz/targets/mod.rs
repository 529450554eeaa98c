//! What is fuzzed, for the fuzzer and for the test that replays its corpora (`tests/tests/corpora.rs`): bytes in, and what
//! must hold whatever they are.
//!
//! A target reads no clock, draws no random number and touches no disk, so that an input that was interesting once is so
//! for good.

mod config;
mod frames;
mod head;
mod schemes;
mod search;
mod session;

pub(crate) use self::{
    config::config,
    frames::frames,
    head::head,
    schemes::{headers, rows},
    search::search,
    session::session,
};
