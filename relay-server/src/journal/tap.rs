//! The beginnings of bodies that are on their way: bounded each, and all together.
//!
//! What finds no room is not kept, and whoever sends or reads the body notices nothing of it. Once an exchange has ended,
//! what was kept counts among the journal's own bytes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::entry::MAX_BODY_BYTES;

/// Memory for all of them, in bytes.
pub(super) const MAX_TAPPED_BYTES: usize = 16 * 1024 * 1024;

/// What the taps hold together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taps(Arc<AtomicUsize>);

impl Taps {
    fn take(&self, bytes: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= MAX_TAPPED_BYTES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The beginning of one body.
#[derive(Debug)]
pub(super) struct Tapped {
    taps: Taps,
    bytes: Vec<u8>,
    /// Something found no room, so what comes after it does not belong behind what is there.
    is_full: bool,
}

impl Tapped {
    pub(super) fn new(taps: Taps) -> Self {
        Self { taps, bytes: Vec::new(), is_full: false }
    }

    pub(super) fn take(&mut self, data: &[u8]) {
        let more = data.len().min(MAX_BODY_BYTES - self.bytes.len());
        if self.is_full || more == 0 {
            return;
        }
        if self.taps.take(more) {
            self.bytes.extend_from_slice(&data[..more]);
        } else {
            self.is_full = true;
        }
    }

    /// What was kept, which is somebody else's to count from now on.
    pub(super) fn give_up(&mut self) -> Bytes {
        self.is_full = true;
        self.taps.give_back(self.bytes.len());
        std::mem::take(&mut self.bytes).into()
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.taps.give_back(self.bytes.len());
    }
}

/// Watches a request's body while it is sent.
#[derive(Debug)]
pub(crate) struct BodyTap(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    held: Tapped,
    /// What was held, once nobody adds to it.
    kept: Bytes,
    size: u64,
    is_whole: bool,
}

impl BodyTap {
    pub(super) fn new(taps: Taps) -> Self {
        Self(Mutex::new(Seen { held: Tapped::new(taps), kept: Bytes::new(), size: 0, is_whole: false }))
    }

    pub(crate) fn data(&self, data: &Bytes) {
        let mut seen = self.0.lock();
        seen.size += data.len() as u64;
        seen.held.take(data);
    }

    /// The body has come to its end.
    pub(crate) fn ended(&self) {
        self.0.lock().is_whole = true;
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.lock().is_whole
    }

    pub(super) fn size(&self) -> u64 {
        self.0.lock().size
    }

    pub(super) fn kept(&self) -> Bytes {
        let seen = self.0.lock();
        if seen.held.bytes.is_empty() { seen.kept.clone() } else { Bytes::copy_from_slice(&seen.held.bytes) }
    }

    /// Keeps nothing more.
    pub(super) fn close(&self) {
        let mut seen = self.0.lock();
        if seen.kept.is_empty() {
            seen.kept = seen.held.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_kept_and_what_was_held_is_given_back() {
        let taps = Taps::default();
        let tap = BodyTap::new(taps.clone());
        for _ in 0..3 {
            tap.data(&Bytes::from(vec![b'x'; 30_000]));
        }
        assert_eq!((tap.size(), tap.kept().len(), tap.is_whole()), (90_000, MAX_BODY_BYTES, false));
        assert_eq!(taps.0.load(Ordering::Relaxed), MAX_BODY_BYTES);
        tap.ended();
        tap.close();
        tap.close();
        assert_eq!((tap.kept().len(), tap.is_whole()), (MAX_BODY_BYTES, true));
        tap.data(&Bytes::from_static(b"more"));
        assert_eq!((tap.size(), tap.kept().len()), (90_004, MAX_BODY_BYTES));
        assert_eq!(taps.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_taps_together_hold_no_more_than_so_much() {
        let taps = Taps::default();
        let held: Vec<_> = (0..=MAX_TAPPED_BYTES / MAX_BODY_BYTES)
            .map(|_| {
                let mut held = Tapped::new(taps.clone());
                held.take(&vec![0; MAX_BODY_BYTES]);
                held.take(b"and what follows");
                held
            })
            .collect();
        assert_eq!(taps.0.load(Ordering::Relaxed), MAX_TAPPED_BYTES);
        assert_eq!(held.last().map(|held| held.bytes.len()), Some(0));
        drop(held);
        assert_eq!(taps.0.load(Ordering::Relaxed), 0);
    }
}
