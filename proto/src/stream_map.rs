//! What belongs to streams, by their ids.
//!
//! A hash map whose order means nothing: nobody walks through it in a way that shows. Ids rise one by one, so a fixed
//! hash spreads them; ids that a peer chose to collide cost it a few looks more, since streams are bounded.

#![expect(clippy::disallowed_types, reason = "the hash is fixed, and nobody relies on its order")]

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::stream::StreamId;

/// Room that an empty map keeps.
const KEPT: usize = 64;

/// A fixed hash of ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15); // 2⁶⁴ divided by the golden ratio.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub type StreamMap<T> = HashMap<StreamId, T, BuildHasherDefault<Spread>>;

/// Takes a stream out. An empty map lets go of what it took for many.
pub fn take_out<T>(streams: &mut StreamMap<T>, id: StreamId) -> Option<T> {
    let taken = streams.remove(&id);
    if streams.is_empty() && streams.capacity() > KEPT {
        *streams = StreamMap::default();
    }
    taken
}
