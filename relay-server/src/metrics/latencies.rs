//! How long answers took, finely enough for percentiles, at the cost of one addition each.
//!
//! Buckets grow by half an octave: a percentile that is read of them is off by a fifth at most. Nothing is ever taken off a
//! count; whoever wants a time's own looks twice.

use std::{
    array,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use super::AnswerClass;

/// Buckets: below 64 µs, 40 up to 67 s, and what is beyond.
pub(crate) const LATENCIES: usize = 42;

/// The end of the first bucket, in powers of two of microseconds.
const FIRST: u32 = 6;

/// What was counted at an endpoint until a moment.
#[derive(Clone, Debug)]
pub(crate) struct MeterSample {
    pub received: u64,
    pub(super) outcomes: [u64; 13],
    pub latencies: [u64; LATENCIES],
    /// The largest part of a deadline that was used since the sample before.
    pub patience: f64,
}

impl Default for MeterSample {
    fn default() -> Self {
        Self { received: 0, outcomes: [0; 13], latencies: [0; LATENCIES], patience: 0.0 }
    }
}

impl MeterSample {
    pub(crate) fn count(&self, class: AnswerClass) -> u64 {
        self.outcomes[class.index()]
    }
}

#[derive(Debug)]
pub(super) struct Latencies {
    counts: [AtomicU64; LATENCIES],
    /// The largest part of a deadline, in millionths.
    patience: AtomicU32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: array::from_fn(|_| AtomicU64::new(0)), patience: AtomicU32::new(0) }
    }
}

impl Latencies {
    pub(super) fn count(&self, after: Duration, patience: f64) {
        self.counts[bucket(after)].fetch_add(1, Ordering::Relaxed);
        // A cast of floats stays within the bounds of the integer.
        let patience = (patience * 1e6) as u32;
        if patience > self.patience.load(Ordering::Relaxed) {
            self.patience.fetch_max(patience, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> [u64; LATENCIES] {
        array::from_fn(|at| self.counts[at].load(Ordering::Relaxed))
    }

    pub(super) fn take_patience(&self) -> f64 {
        f64::from(self.patience.swap(0, Ordering::Relaxed)) / 1e6
    }
}

fn bucket(after: Duration) -> usize {
    let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
    let Some(octave) = us.checked_ilog2().and_then(|octave| octave.checked_sub(FIRST)) else { return 0 };
    let upper_half = us >> (octave + FIRST - 1) & 1;
    (1 + 2 * octave as usize + usize::from(upper_half == 1)).min(LATENCIES - 1)
}

/// From when to when a bucket counts, in microseconds.
pub(crate) fn latency_bounds_us(bucket: usize) -> (u64, u64) {
    let start = |bucket: usize| {
        let octave = 1_u64 << (FIRST as usize + (bucket - 1) / 2);
        if bucket.is_multiple_of(2) { octave + octave / 2 } else { octave }
    };
    match bucket {
        0 => (0, 1 << FIRST),
        _ => (start(bucket), start(bucket + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_begins_where_the_one_before_ends() {
        for at in 0..LATENCIES {
            let (low, high) = latency_bounds_us(at);
            assert_eq!((bucket(Duration::from_micros(low)), bucket(Duration::from_micros(high - 1))), (at, at));
            assert!(at == 0 || latency_bounds_us(at - 1).1 == low);
        }
        assert_eq!(bucket(Duration::MAX), LATENCIES - 1);
        assert_eq!(latency_bounds_us(LATENCIES - 1).0, 1 << 26);
    }
}
