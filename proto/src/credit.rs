//! Credit arithmetic: how many body bytes each side may still send on a stream.
//!
//! Invariants: a peer never has more outstanding credit plus unread bytes on a stream than that
//! stream's allowance; allowances beyond the initial windows come out of one pool and go back to it. Pools of many sessions
//! may have one purse; whatever ends a session, the purse gets back what its pool took.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::limits::MAX_WINDOW_BYTES;

/// What this side may still send on one stream, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendWindow(pub(crate) u32);

impl SendWindow {
    pub(crate) const fn new(initial_bytes: u32) -> Self {
        Self(initial_bytes)
    }

    pub(crate) const fn available(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        let spent = u32::try_from(bytes).ok().and_then(|bytes| self.0.checked_sub(bytes));
        self.0 = spent.expect("a caller sends at most what is available");
    }

    /// Adds credit from the peer; false when the window would grow past what a window may be.
    pub(crate) fn grant(&mut self, bytes: u64) -> bool {
        match u64::from(self.0).checked_add(bytes) {
            Some(sum) if sum <= u64::from(MAX_WINDOW_BYTES) => {
                self.0 = sum as u32;
                true
            }
            _ => false,
        }
    }
}

/// Bytes of credit that the pools of many sessions lend out of together.
#[derive(Clone, Debug)]
pub struct Purse(Arc<AtomicU32>);

impl Purse {
    pub fn new(bytes: u32) -> Self {
        Self(Arc::new(AtomicU32::new(bytes)))
    }

    pub fn free_bytes(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes up to `wanted` bytes, but never more than a quarter of what is free, so that the first sessions to ask do
    /// not empty it.
    fn take(&self, wanted: u32) -> u32 {
        let part = |free: u32| wanted.min(free / 4);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| Some(free - part(free)));
        before.map_or(0, part)
    }

    fn give_back(&self, bytes: u32) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl PartialEq for Purse {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Purse {}

/// The credit that all streams of a session may borrow beyond their initial windows.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) free_bytes: u32,
    lent_bytes: u32,
    purse: Option<Purse>,
}

impl Pool {
    pub(crate) const fn new(bytes: u32, purse: Option<Purse>) -> Self {
        Self { free_bytes: bytes, lent_bytes: 0, purse }
    }

    /// Lends up to `wanted` bytes, but never more than a quarter of what is free, so that the first
    /// streams to ask do not empty the pool.
    pub(crate) fn lend(&mut self, wanted: u32) -> u32 {
        let lent = wanted.min(self.free_bytes / 4);
        let lent = self.purse.as_ref().map_or(lent, |purse| purse.take(lent));
        self.free_bytes -= lent;
        self.lent_bytes += lent;
        lent
    }

    fn take_back(&mut self, bytes: u32) {
        self.free_bytes += bytes;
        self.lent_bytes -= bytes;
        if let Some(purse) = &self.purse {
            purse.give_back(bytes);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.take_back(self.lent_bytes);
    }
}

/// What the peer may still send on one stream, and what it has sent that nobody has read.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    pub(crate) granted: u32,
    pub(crate) unread: u32,
    /// The initial window plus what was borrowed.
    allowance: u32,
    pub(crate) borrowed: u32,
}

impl RecvWindow {
    pub(crate) const fn new(initial_bytes: u32) -> Self {
        Self { granted: initial_bytes, unread: 0, allowance: initial_bytes, borrowed: 0 }
    }

    /// Takes note of `bytes` from the peer; false when it had no credit for them.
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        let Some(granted) = u32::try_from(bytes).ok().and_then(|bytes| self.granted.checked_sub(bytes)) else {
            return false;
        };
        self.unread += self.granted - granted;
        self.granted = granted;
        true
    }

    /// Takes note that the reader took `bytes`. A reader that keeps pace with a peer that uses its
    /// window gets a larger one, as far as the pool lends.
    pub(crate) fn consume(&mut self, bytes: usize, pool: &mut Pool, max_bytes: u32) {
        let read = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.unread);
        self.unread -= read;
        if self.unread == 0 && self.granted < self.allowance / 2 && self.allowance < max_bytes {
            let lent = pool.lend(self.allowance.min(max_bytes - self.allowance));
            self.borrowed += lent;
            self.allowance += lent;
        }
    }

    /// Whether enough can be granted to be worth a frame: half of the allowance, so that a peer
    /// without credit and a reader without data never wait for each other.
    pub(crate) const fn owes_credit(&self) -> bool {
        let grantable = self.allowance - self.granted - self.unread;
        grantable > 0 && grantable >= self.allowance / 2
    }

    pub(crate) fn grant(&mut self) -> u32 {
        let grantable = self.allowance - self.granted - self.unread;
        self.granted += grantable;
        grantable
    }

    pub(crate) fn release(&mut self, pool: &mut Pool) {
        pool.take_back(std::mem::take(&mut self.borrowed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_keeps_pace_gets_a_larger_window_and_gives_it_back() {
        let mut pool = Pool::new(1000, None);
        let mut window = RecvWindow::new(100);
        assert!(window.receive(100));
        assert!(!window.receive(1), "no credit is left");
        window.consume(100, &mut pool, 1000);
        assert!(window.owes_credit());
        assert_eq!(window.grant(), 200);
        assert_eq!(pool.free_bytes, 900);
        window.release(&mut pool);
        assert_eq!(pool.free_bytes, 1000);
    }

    #[test]
    fn a_slow_reader_keeps_its_initial_window() {
        let mut pool = Pool::new(1000, None);
        let mut window = RecvWindow::new(100);
        assert!(window.receive(100));
        window.consume(40, &mut pool, 1000);
        assert!(!window.owes_credit());
        window.consume(20, &mut pool, 1000);
        assert!(window.owes_credit());
        assert_eq!(window.grant(), 60);
        assert_eq!(pool.free_bytes, 1000);
    }

    #[test]
    fn one_stream_never_empties_the_pool() {
        let mut pool = Pool::new(1000, None);
        let mut window = RecvWindow::new(1000);
        assert!(window.receive(1000));
        window.consume(1000, &mut pool, 10_000);
        assert_eq!(pool.free_bytes, 750);
    }

    #[test]
    fn sessions_lend_out_of_one_purse_and_give_back_whatever_ends_them() {
        let purse = Purse::new(400);
        let pool = || Pool::new(1000, Some(purse.clone()));
        let (mut one, mut other) = (pool(), pool());
        let read = |pool: &mut Pool| {
            let mut window = RecvWindow::new(200);
            assert!(window.receive(200));
            window.consume(200, pool, 10_000);
            window
        };
        let mut window = read(&mut one);
        assert_eq!((window.grant(), purse.free_bytes()), (300, 300), "a quarter of what is there");
        read(&mut other);
        assert_eq!((other.free_bytes, purse.free_bytes()), (925, 225));
        window.release(&mut one);
        assert_eq!((one.free_bytes, purse.free_bytes()), (1000, 325));
        drop(other);
        assert_eq!(purse.free_bytes(), 400);
    }

    #[test]
    fn a_window_past_its_largest_size_is_refused() {
        let mut window = SendWindow::new(1);
        assert!(window.grant(u64::from(MAX_WINDOW_BYTES) - 1));
        assert!(!window.grant(1));
        assert!(!window.grant(u64::MAX));
    }
}
