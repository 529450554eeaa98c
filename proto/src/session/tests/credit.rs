//! What only tests ask a session: what it holds, and how its streams stand with their credit.

use super::{Session, Stream, StreamId};
use crate::outcome::{Outcome, OutcomeState};

/// How one stream stands with its credit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// What this side may still send.
    pub send_bytes: u32,
    /// What the peer may still send.
    pub granted_bytes: u32,
    /// What came from the peer and was not consumed.
    pub unread_bytes: u32,
    /// What the stream's window has borrowed from the pool.
    pub borrowed_bytes: u32,
}

impl Session {
    /// Bytes that this side holds for the peer or from it, over all streams. At most what
    /// [`Limits`] adds up to.
    pub fn buffered_bytes(&self) -> usize {
        let held = |stream: &Stream| stream.outgoing.body.len() + stream.incoming.window.unread as usize;
        let outcomes: usize = self.owed.outcomes.iter().map(body_bytes).sum();
        self.decoder.bytes().len() + outcomes + self.streams.values().map(held).sum::<usize>()
    }

    /// Bytes of the credit pool that no stream has borrowed.
    pub const fn free_pool_bytes(&self) -> u32 {
        self.pool.free_bytes
    }

    /// Every stream that this side still holds, with its credit.
    pub fn credit(&self) -> impl Iterator<Item = (StreamId, Credit)> {
        self.streams.iter().map(|(id, stream)| {
            let window = &stream.incoming.window;
            let credit = Credit {
                send_bytes: stream.outgoing.window.0,
                granted_bytes: window.granted,
                unread_bytes: window.unread,
                borrowed_bytes: window.borrowed,
            };
            (*id, credit)
        })
    }
}

fn body_bytes(outcome: &Outcome) -> usize {
    if let OutcomeState::Finished { body, .. } = &outcome.state { body.len() } else { 0 }
}
