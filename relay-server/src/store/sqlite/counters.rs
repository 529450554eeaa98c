//! What the store counts of itself, for metrics and for who asks how full it is. The writer counts; anybody reads.

use std::sync::atomic::{AtomicBool, AtomicU64};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) commit_micros: AtomicU64,
    pub(super) used_bytes: AtomicU64,
    pub(super) open_bytes: AtomicU64,
    pub(super) damaged: AtomicU64,
    /// Whether those who read the index may miss something.
    pub(super) is_behind: AtomicBool,
}
