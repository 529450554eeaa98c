//! Body bytes that wait, held at about their own size however small they came.
//!
//! A piece of [`LARGE_BYTES`] and more stays the slice that it is. Smaller ones are copied to the end of one buffer:
//! each by itself would cost its place here, an allocation, and the whole message that it is a slice of.
//!
//! Invariants: the bytes keep their order; what is held takes at most about twice their number, and once
//! [`LARGE_BYTES`] for the first small piece.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::message_buffer::MessageBuffer;

/// Pieces below this are merged.
pub(crate) const LARGE_BYTES: usize = 4 * 1024;

/// Merged pieces are no longer than this.
const MERGED_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
pub struct Pieces {
    front: VecDeque<Bytes>,
    tail: Tail,
    len: usize,
}

/// What further small pieces are merged with.
#[derive(Debug, Default)]
enum Tail {
    #[default]
    None,
    /// The first small piece, as it came: most bodies have no second one.
    One(Bytes),
    Merged(BytesMut),
}

impl Tail {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(bytes) => bytes.len(),
            Self::Merged(bytes) => bytes.len(),
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        match std::mem::take(self) {
            Self::None => None,
            Self::One(bytes) => Some(bytes),
            Self::Merged(bytes) => Some(bytes.freeze()),
        }
    }
}

impl Pieces {
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        if bytes.len() >= LARGE_BYTES || self.tail.len() + bytes.len() > MERGED_BYTES {
            self.front.extend(self.tail.take());
        }
        if bytes.len() >= LARGE_BYTES {
            return self.front.push_back(bytes);
        }
        self.tail = match std::mem::take(&mut self.tail) {
            Tail::None => Tail::One(bytes),
            Tail::One(first) => {
                let mut merged = BytesMut::with_capacity(2 * (first.len() + bytes.len()));
                merged.extend_from_slice(&first);
                merged.extend_from_slice(&bytes);
                Tail::Merged(merged)
            }
            Tail::Merged(mut merged) => {
                merged.extend_from_slice(&bytes);
                Tail::Merged(merged)
            }
        };
    }

    /// Takes the first of them, as many as hang together.
    pub fn pop(&mut self) -> Option<Bytes> {
        let bytes = self.front.pop_front().or_else(|| self.tail.take())?;
        self.len -= bytes.len();
        Some(bytes)
    }

    /// Moves the first `len` bytes, or all that there are, to the end of `out`.
    pub(crate) fn move_to(&mut self, mut len: usize, out: &mut impl MessageBuffer) {
        while len > 0
            && let Some(mut bytes) = self.pop()
        {
            if bytes.len() > len {
                let rest = bytes.split_off(len);
                self.len += rest.len();
                self.front.push_front(rest);
            }
            len -= bytes.len();
            out.push_body(bytes);
        }
    }

    /// All of them, where they are one as it came, or none.
    pub fn only(&self) -> Option<Bytes> {
        match (self.front.front(), &self.tail) {
            (None, Tail::None) => Some(Bytes::new()),
            (None, Tail::One(bytes)) => Some(bytes.clone()),
            (Some(bytes), Tail::None) if self.front.len() == 1 => Some(bytes.clone()),
            _ => None,
        }
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets go of all of them, and of the memory.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is held: the slices' places, and the bytes that they keep alive.
    fn held(pieces: &Pieces) -> usize {
        let tail = match &pieces.tail {
            Tail::Merged(merged) => merged.capacity(),
            other => other.len(),
        };
        pieces.front.capacity() * size_of::<Bytes>() + pieces.front.iter().map(Bytes::len).sum::<usize>() + tail
    }

    #[test]
    fn small_pieces_cost_about_their_size_and_large_ones_stay_what_they_are() {
        let mut pieces = Pieces::default();
        for number in 0..100_000_u32 {
            pieces.push(Bytes::copy_from_slice(&[(number % 251) as u8]));
        }
        assert!(held(&pieces) < 2 * 100_000, "{} bytes are held", held(&pieces));
        let large = Bytes::from(vec![7; LARGE_BYTES]);
        pieces.push(large.clone());
        pieces.push(Bytes::from_static(b"end"));
        assert_eq!(pieces.len(), 100_000 + LARGE_BYTES + 3);
        let mut seen = Vec::new();
        let mut same = 0;
        while let Some(bytes) = pieces.pop() {
            same += u32::from(bytes.as_ptr() == large.as_ptr());
            seen.extend_from_slice(&bytes);
        }
        assert_eq!((same, pieces.len()), (1, 0), "the large one was not copied");
        assert!(seen[..100_000].iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        assert!(seen.ends_with(b"\x07end"));
    }

    #[test]
    fn one_piece_alone_can_be_looked_at() {
        let (short, long) = (Bytes::from_static(b"ab"), Bytes::from(vec![7; LARGE_BYTES]));
        let of = |parts: &[&Bytes]| {
            let mut pieces = Pieces::default();
            parts.iter().for_each(|part| pieces.push((*part).clone()));
            pieces.only()
        };
        assert_eq!(
            (of(&[]), of(&[&short]), of(&[&long])),
            (Some(Bytes::new()), Some(short.clone()), Some(long.clone()))
        );
        for parts in [[&short, &short], [&short, &long], [&long, &short], [&long, &long]] {
            assert_eq!(of(&parts), None);
        }
    }

    #[test]
    fn any_part_can_be_moved_out() {
        let mut pieces = Pieces::default();
        for part in ["ab", "cdef", "g"] {
            pieces.push(Bytes::from_static(part.as_bytes()));
        }
        let mut out = BytesMut::new();
        for _ in 0..3 {
            pieces.move_to(2, &mut out);
            pieces.push(Bytes::from_static(b"x"));
        }
        pieces.move_to(usize::MAX, &mut out);
        assert_eq!((&out[..], pieces.is_empty()), (&b"abcdefgxxx"[..], true));
    }
}
