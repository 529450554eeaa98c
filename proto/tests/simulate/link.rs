//! One direction of a link: ordered bytes that take their time, can be held up, lost and cut.

use std::collections::VecDeque;

use bytes::Bytes;

/// One direction of a link. Times are microseconds of the history.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// Messages on their way, with their arrival.
    messages: VecDeque<(u64, Bytes)>,
    held_bytes: usize,
    stalled_until: u64,
    /// Nothing passes after so many bytes.
    ends_at: Option<u64>,
    pub(crate) carried_bytes: u64,
    delivered_bytes: u64,
    /// Nothing is delivered any more, and nobody says so.
    pub(crate) silent: bool,
    /// The end of what passes is not told either.
    pub(crate) mute: bool,
    /// When the receiver learns that the link broke.
    pub(crate) broken: Option<u64>,
    /// The sender has closed its end.
    pub(crate) finished: bool,
}

impl Pipe {
    pub(crate) fn push(&mut self, arrives: u64, message: Bytes) {
        self.carried_bytes += message.len() as u64;
        self.held_bytes += message.len();
        self.messages.push_back((arrives, message));
    }

    /// Whether the sender may write, to a link that takes so many bytes.
    pub(crate) const fn takes(&self, capacity: usize) -> bool {
        self.held_bytes < capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) const fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    pub(crate) fn stall(&mut self, until: u64) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// Lets only so many further bytes pass.
    pub(crate) fn cut_after(&mut self, bytes: u64) {
        let end = self.delivered_bytes + bytes;
        self.ends_at = Some(self.ends_at.map_or(end, |earlier| earlier.min(end)));
    }

    /// As [`Pipe::cut_after`], but nobody is told.
    pub(crate) fn mute_after(&mut self, bytes: u64) {
        self.mute = true;
        self.cut_after(bytes);
    }

    /// Whether it is held up, lost or cut.
    pub(crate) fn is_troubled(&self, now: u64) -> bool {
        self.silent || self.is_cut() || self.stalled_until > now
    }

    /// Takes back a cut that was not reached.
    pub(crate) fn heal(&mut self) {
        if !self.is_cut() {
            self.ends_at = None;
        }
    }

    /// Whether the cut has been reached.
    pub(crate) fn is_cut(&self) -> bool {
        self.ends_at.is_some_and(|end| self.delivered_bytes >= end)
    }

    /// When the next bytes can be delivered.
    pub(crate) fn due(&self) -> Option<u64> {
        if self.silent || self.is_cut() {
            return None;
        }
        let (arrives, _) = self.messages.front()?;
        Some((*arrives).max(self.stalled_until))
    }

    /// What is left of the next message, in bytes.
    pub(crate) fn front_bytes(&self) -> u64 {
        self.messages.front().map_or(0, |(_, message)| message.len() as u64)
    }

    /// At most so many of the next bytes.
    pub(crate) fn take(&mut self, most: u64) -> Bytes {
        let left = self.ends_at.map_or(u64::MAX, |end| end - self.delivered_bytes);
        let (_, message) = self.messages.front_mut().expect("asked only when due");
        let len = most.min(left).min(message.len() as u64) as usize;
        let piece = if len == message.len() {
            self.messages.pop_front().expect("looked at above").1
        } else {
            message.split_to(len)
        };
        self.held_bytes -= len;
        self.delivered_bytes += len as u64;
        piece
    }
}
