//! What happened in a history: always as a hash, as text when somebody wants to read it.

use std::fmt::Arguments;

use crate::{plan::Side, rng::mix};

/// The steps of one history.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    pub(crate) steps: u64,
    print: bool,
}

impl Trace {
    pub(crate) const fn new(print: bool) -> Self {
        Self { hash: 0, steps: 0, print }
    }

    /// One step at a virtual time. The text is made only when it is printed.
    pub(crate) fn step(&mut self, now: u64, tunnel: usize, side: Side, number: u64, text: Arguments<'_>) {
        self.steps += 1;
        self.hash = mix(self.hash ^ now ^ (number << 20) ^ ((tunnel as u64) << 1) ^ side as u64);
        if self.print {
            println!("{:>12.6} s  tunnel {tunnel}  {side:?}: {text}", now as f64 / 1e6);
        }
    }

    /// Bytes that were part of a step.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        for byte in chunks.remainder() {
            self.hash = mix(self.hash ^ u64::from(*byte));
        }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }
}
