//! Marks of what was signed, and whether it was taken before: the rule that every store keeps, as functions of values.
//!
//! An event's row goes when its time is over or room is needed. The mark of what was signed stays until nobody would
//! take it any more. So a request is taken once, however late it comes and whatever became of its event.
//!
//! Invariant: a late request is taken only where nothing that was taken since it was signed can be unknown.

use std::time::Duration;

use jiff::Timestamp;

use super::model::Mark;
use crate::webhook::EventId;

/// How far in the future a signature may have been when an endpoint that did not remember took it.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// Bytes of a digest that are kept: nobody finds another text for them.
pub(super) const DIGEST_BYTES: usize = 16;

pub(super) type Short = [u8; DIGEST_BYTES];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) body: Short,
    pub(super) event: EventId,
    pub(super) good_until: Timestamp,
}

/// For how long an endpoint remembers, and since when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MarkMemory {
    pub(super) reach: Duration,
    pub(super) since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    New,
    Repeats(EventId),
    OtherBody(EventId),
    TooLate,
}

impl MarkMemory {
    /// The memory from now on. It begins anew whenever it is to reach further than it did.
    pub(super) fn revised(earlier: Option<Self>, reach: Duration, begins: Timestamp, now: Timestamp) -> Self {
        let since = match earlier {
            None => begins,
            Some(earlier) if reach > earlier.reach => now.saturating_add(SKEW).unwrap_or(Timestamp::MAX),
            Some(earlier) => earlier.since,
        };
        Self { reach, since }
    }

    fn covers(&self, mark: &Mark) -> bool {
        let reaches = mark.signed_at.saturating_add(self.reach).is_ok_and(|end| end >= mark.good_until);
        reaches && self.since <= mark.signed_at
    }
}

pub(super) fn judge(mark: &Mark, body_sha256: &[u8; 32], taken: Option<Taken>, memory: Option<MarkMemory>) -> Marked {
    match taken {
        Some(taken) if taken.body == short(body_sha256) => Marked::Repeats(taken.event),
        Some(taken) => Marked::OtherBody(taken.event),
        None if mark.is_late && !memory.is_some_and(|memory| memory.covers(mark)) => Marked::TooLate,
        None => Marked::New,
    }
}

pub(super) fn short(digest: &[u8; 32]) -> Short {
    *digest.first_chunk().expect("a digest is longer")
}
