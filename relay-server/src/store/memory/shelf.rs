//! The events of one endpoint, in memory, with the few indexes that claims and duplicates need.
//!
//! Invariant: `due`, `open` and `queues` say the same as the rows; only [`Shelf::put`] and [`Shelf::remove`] touch them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::store::{
    Act, Acted, Action, Attempt, Delivery, End, Ended, Head, INLINE_BYTES, Lease, MAX_ATTEMPTS, MAX_CLAIM, NewEvent,
    State, Verdict, Want,
    rules::{Likeness, Row, compare, leaves_record},
};
use crate::webhook::EventId;

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) row: Row,
    pub(super) head: Head,
    pub(super) body: Bytes,
    pub(super) attempts: BTreeMap<u64, Attempt>,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) events: BTreeMap<EventId, Kept>,
    pub(super) paused_at: Option<Timestamp>,
    pub(super) due: BTreeSet<(Timestamp, EventId)>,
    pub(super) open: BTreeSet<EventId>,
    queues: BTreeMap<String, BTreeSet<EventId>>,
    by_key: HashMap<String, Vec<EventId>>,
}

impl Shelf {
    pub(super) fn append(&mut self, event: NewEvent, body: Bytes, sha: [u8; 32], now: Timestamp) -> Verdict {
        let (likeness, other) = self.likeness(&event, &sha, now);
        if let (Likeness::Duplicate | Likeness::Again { .. }, Some(of)) = (likeness, other) {
            return self.repeat(of, likeness, event.lease, now);
        }
        let conflict = other.filter(|_| likeness == Likeness::Conflict);
        let id = event.id;
        let row = Row::new(&event, sha, conflict);
        if let Some(dedup) = &event.dedup {
            self.by_key.entry(dedup.key.clone()).or_default().push(id);
        }
        self.events.insert(id, Kept { row: row.clone(), head: event.head, body, attempts: BTreeMap::new() });
        Verdict::Accepted { lease: self.open(row, event.lease, now), conflict }
    }

    fn likeness(&self, event: &NewEvent, sha: &[u8; 32], now: Timestamp) -> (Likeness, Option<EventId>) {
        let Some(dedup) = &event.dedup else { return (Likeness::Unrelated, None) };
        let mut found = (Likeness::Unrelated, None);
        for id in self.by_key.get(&dedup.key).into_iter().flatten().rev() {
            let Some(kept) = self.events.get(id) else { continue };
            match compare(&kept.row.summary, sha, dedup, now) {
                Likeness::Unrelated => {}
                Likeness::Conflict if found.1.is_none() => found = (Likeness::Conflict, Some(*id)),
                Likeness::Conflict => {}
                same => return (same, Some(*id)),
            }
        }
        found
    }

    fn repeat(&mut self, of: EventId, likeness: Likeness, lease: Option<Timestamp>, now: Timestamp) -> Verdict {
        let kept = &self.events[&of];
        let mut row = kept.row.clone();
        if let Likeness::Again { redelivery } = likeness {
            row.again(redelivery, now);
            return Verdict::Again { of, lease: self.open(row, lease, now), redelivery };
        }
        let delivered = row.summary.state == State::Delivered;
        let last = kept.attempts.values().rev().find_map(|attempt| attempt.answer.clone());
        Verdict::Duplicate { of, state: row.summary.state, answer: last.filter(|_| delivered) }
    }

    /// Puts a waiting row in, behind others of its order key if there are any; else leases it if that is asked.
    fn open(&mut self, mut row: Row, lease: Option<Timestamp>, now: Timestamp) -> Option<Lease> {
        let waits = self.queue(&row).is_some_and(|queue| queue.iter().any(|id| *id != row.summary.id));
        if waits {
            row.park();
        }
        let lease = lease.filter(|_| !waits).map(|until| row.lease(until, now).0);
        self.put(row);
        lease
    }

    fn queue(&self, row: &Row) -> Option<&BTreeSet<EventId>> {
        self.queues.get(row.summary.order_key.as_deref()?)
    }

    /// Writes a row over the one that is there.
    fn put(&mut self, row: Row) {
        let id = row.summary.id;
        let Some(kept) = self.events.get_mut(&id) else { return };
        if let Some(due) = kept.row.summary.due_at {
            self.due.remove(&(due, id));
        }
        if let Some(due) = row.summary.due_at {
            self.due.insert((due, id));
        }
        let open = row.summary.state.is_open();
        if open {
            self.open.insert(id)
        } else {
            self.open.remove(&id)
        };
        if let Some(key) = &row.summary.order_key {
            let queue = self.queues.entry(key.clone()).or_default();
            if open {
                queue.insert(id)
            } else {
                queue.remove(&id)
            };
            if queue.is_empty() {
                self.queues.remove(key);
            }
        }
        kept.row = row;
    }

    /// Writes a row that ended, and lets the next of its order key go.
    fn put_ended(&mut self, row: Row, now: Timestamp) {
        let next = self.queue(&row).and_then(|queue| queue.iter().find(|id| **id != row.summary.id)).copied();
        let was_head = !self.events[&row.summary.id].row.summary.parked;
        self.put(row);
        if let Some(next) = next.filter(|_| was_head) {
            let mut row = self.events[&next].row.clone();
            row.unpark(now);
            self.put(row);
        }
    }

    pub(super) fn remove(&mut self, id: EventId) -> Option<Kept> {
        let kept = self.events.remove(&id)?;
        if let Some(key) = &kept.row.dedup_key {
            let empty = self.by_key.get_mut(key).is_some_and(|ids| {
                ids.retain(|one| *one != id);
                ids.is_empty()
            });
            if empty {
                self.by_key.remove(key);
            }
        }
        Some(kept)
    }

    pub(super) fn claim(&mut self, want: &Want, until: Timestamp, now: Timestamp) -> Vec<Delivery> {
        if self.paused_at.is_some() {
            return Vec::new();
        }
        let ready = |entry: &&(Timestamp, EventId)| entry.0 <= now;
        let mut ids: Vec<_> =
            self.due.iter().take_while(ready).take(want.oldest.min(MAX_CLAIM)).map(|entry| entry.1).collect();
        let newest = self.due.range(..=(now, EventId::from_bytes([0xff; 16]))).rev().map(|entry| entry.1);
        let newest: Vec<_> = newest.take(want.newest.min(MAX_CLAIM)).filter(|id| !ids.contains(id)).collect();
        ids.extend(newest);
        ids.into_iter().map(|id| self.lease(id, until, now)).collect()
    }

    fn lease(&mut self, id: EventId, until: Timestamp, now: Timestamp) -> Delivery {
        let mut row = self.events[&id].row.clone();
        let (lease, lost) = row.lease(until, now);
        self.put(row);
        let kept = self.events.get_mut(&id).expect("it was just put there");
        if let Some(lost) = lost {
            kept.attempts.entry(lost.fence).or_insert(lost);
            thin_out(&mut kept.attempts);
        }
        let summary = kept.row.summary.clone();
        let body = (summary.size <= INLINE_BYTES).then(|| kept.body.clone());
        Delivery { summary, lease, head: kept.head.clone(), body }
    }

    pub(super) fn extend(&mut self, id: EventId, fence: u64, until: Timestamp) -> bool {
        let Some(kept) = self.events.get(&id).filter(|kept| kept.row.held_by(fence)) else { return false };
        let mut row = kept.row.clone();
        row.summary.due_at = Some(until);
        self.put(row);
        true
    }

    pub(super) fn settle(&mut self, end: End, now: Timestamp) -> Ended {
        let Some(kept) = self.events.get_mut(&end.id) else { return Ended::Unknown };
        let mut row = kept.row.clone();
        let ended = row.settle(&end, now);
        if leaves_record(&end, ended) {
            kept.attempts.insert(end.attempt.fence, end.attempt);
            thin_out(&mut kept.attempts);
        }
        match ended {
            Ended::Settled(state) if !state.is_open() => self.put_ended(row, now),
            Ended::Settled(_) => self.put(row),
            _ => {}
        }
        ended
    }

    pub(super) fn act(&mut self, act: &Act, now: Timestamp) -> Acted {
        let Some(kept) = self.events.get(&act.id) else { return Acted::Unknown };
        let mut row = kept.row.clone();
        let acted = row.act(act.action, now);
        match act.action {
            _ if acted != Acted::Done => {}
            Action::Replay(id, signature) => {
                let (head, body) = (Head { signature, ..kept.head.clone() }, kept.body.clone());
                let replay = row.replay(id, now);
                self.events.insert(id, Kept { row: replay.clone(), head, body, attempts: BTreeMap::new() });
                self.open(replay, None, now);
            }
            Action::Revive => {
                self.open(row, None, now);
            }
            Action::Drop | Action::Cancel | Action::Skip => self.put_ended(row, now),
        }
        acted
    }

    pub(super) fn expire(&mut self, id: EventId, keep: Duration, now: Timestamp) -> bool {
        let mut row = self.events[&id].row.clone();
        let expires = row.expire(keep, now);
        if expires {
            self.put_ended(row, now);
        }
        expires
    }
}

/// Leaves the first and the last ones.
fn thin_out(attempts: &mut BTreeMap<u64, Attempt>) {
    while attempts.len() > MAX_ATTEMPTS
        && let Some(second) = attempts.keys().nth(1).copied()
    {
        attempts.remove(&second);
    }
}
