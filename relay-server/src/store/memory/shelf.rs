//! The events of one endpoint, in memory, with the few indexes that claims and duplicates need.
//!
//! Invariant: `due`, `open`, `ended`, `queues` and the sums of bytes say the same as the rows; only [`Shelf::put`] and [`Shelf::remove`] touch them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::store::{
    Act, Acted, Action, Attempt, ClaimedEvent, End, Ended, Grant, Head, Holder, INLINE_BYTES, Lease, MAX_ATTEMPTS,
    MAX_CLAIM, Mark, NewEvent, State, Verdict, Want,
    marks::{MarkMemory, Marked, Short, Taken, judge, short},
    rules::{Held, Likeness, Row, compare, leaves_record, repeat},
};
use crate::webhook::EventId;

/// What an event takes beside its head and body, or an attempt beside its answer, roughly.
const BESIDE_BYTES: u64 = 1024;

const MAX_MARKS: usize = 100_000;

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) row: Row,
    /// Its place among all that were appended.
    place: u64,
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
    pub(super) ended: BTreeSet<EventId>,
    /// What the events take: those that wait, and those that ended.
    pub(super) open_bytes: u64,
    pub(super) ended_bytes: u64,
    /// Open events by order key, in the order in which they were appended.
    queues: BTreeMap<String, BTreeSet<(u64, EventId)>>,
    places: u64,
    by_key: HashMap<String, Vec<EventId>>,
    pub(super) marks: HashMap<Short, Taken>,
    pub(super) memory: Option<MarkMemory>,
}

impl Shelf {
    pub(super) fn append(&mut self, event: NewEvent, body: Bytes, sha: [u8; 32], now: Timestamp) -> Verdict {
        if let Some(Ok(verdict)) = self.events.get(&event.id).map(|kept| kept.row.accepted_before(&sha)) {
            return verdict;
        }
        let marked = self.marked(&event, &sha);
        let (likeness, other) = match marked {
            Marked::New => self.likeness(&event, &sha, now),
            Marked::OtherBody(of) => return Verdict::OtherBody { of },
            Marked::TooLate => return Verdict::TooLate,
            Marked::Repeats(of) => match self.events.get(&of) {
                Some(kept) => (repeat(&kept.row.summary, event.dedup.as_ref()), Some(of)),
                None => return Verdict::Duplicate { of, state: State::Delivered, answer: None },
            },
        };
        if let (Marked::New, Some(mark)) = (marked, &event.mark) {
            let same = matches!(likeness, Likeness::Duplicate | Likeness::Again { .. });
            let of = other.filter(|_| same).unwrap_or(event.id);
            if self.marks.len() >= MAX_MARKS {
                // What is forgotten here may have been taken: nothing late is, from now on.
                (self.memory, self.marks) = (None, HashMap::new());
            }
            self.marks.insert(short(&mark.digest), Taken { body: short(&sha), event: of, good_until: mark.good_until });
        }
        if let (Likeness::Duplicate | Likeness::Again { .. }, Some(of)) = (likeness, other) {
            return self.repeat(of, likeness, &event, now);
        }
        let conflict = other.filter(|_| likeness == Likeness::Conflict);
        let id = event.id;
        let row = Row::new(&event, sha, conflict, now).costing(cost(&event.head, event.body.size()));
        if let Some(dedup) = &event.dedup {
            self.by_key.entry(dedup.key.clone()).or_default().push(id);
        }
        let grant = event.lease.map(|grant| (grant, id));
        self.lay_in(row.clone(), event.head, body);
        Verdict::Accepted { lease: self.open(row, grant, now), conflict }
    }

    /// Whether an event of the same key or mark is there, whatever its body.
    pub(super) fn may_repeat(&self, event: &NewEvent) -> bool {
        event.dedup.as_ref().is_some_and(|dedup| self.by_key.contains_key(&dedup.key))
            || event.mark.as_ref().is_some_and(|mark| self.marks.contains_key(&short(&mark.digest)))
    }

    /// Whether it is one that is there, and needs no room.
    pub(super) fn repeats(&self, event: &NewEvent, sha: &[u8; 32], now: Timestamp) -> bool {
        self.marked(event, sha) != Marked::New
            || matches!(self.likeness(event, sha, now).0, Likeness::Duplicate | Likeness::Again { .. })
    }

    fn marked(&self, event: &NewEvent, sha: &[u8; 32]) -> Marked {
        let taken = |mark: &Mark| self.marks.get(&short(&mark.digest)).copied();
        event.mark.as_ref().map_or(Marked::New, |mark| judge(mark, sha, taken(mark), self.memory))
    }

    /// Puts a new event in. Its row is put over this one at once.
    fn lay_in(&mut self, row: Row, head: Head, body: Bytes) {
        self.open_bytes += row.cost;
        self.places += 1;
        let kept = Kept { place: self.places, row, head, body, attempts: BTreeMap::new() };
        self.events.insert(kept.row.summary.id, kept);
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

    fn repeat(&mut self, of: EventId, likeness: Likeness, event: &NewEvent, now: Timestamp) -> Verdict {
        let kept = &self.events[&of];
        let mut row = kept.row.clone();
        if let Likeness::Again { redelivery } = likeness {
            row.again(redelivery, now);
            let grant = event.lease.map(|grant| (grant, event.id));
            return Verdict::Again { of, lease: self.open(row, grant, now), redelivery };
        }
        if let Some(again) = row.had_again(event.id) {
            return again;
        }
        let delivered = row.summary.state == State::Delivered;
        let last = kept.attempts.values().rev().find_map(|attempt| attempt.answer.clone());
        Verdict::Duplicate { of, state: row.summary.state, answer: last.filter(|_| delivered) }
    }

    /// Puts a waiting row in, behind others of its order key if there are any; else leases it to the append that asks for
    /// that, unless the endpoint is paused.
    fn open(&mut self, mut row: Row, grant: Option<(Grant, EventId)>, now: Timestamp) -> Option<Lease> {
        let waits = self.queue(&row).is_some_and(|queue| queue.iter().any(|(_, id)| *id != row.summary.id));
        if waits {
            row.park();
        }
        let grant = grant.filter(|_| !waits && self.paused_at.is_none());
        let lease = grant.map(|(grant, append)| row.lease(grant, Some(append), now).0);
        self.put(row);
        lease
    }

    fn queue(&self, row: &Row) -> Option<&BTreeSet<(u64, EventId)>> {
        self.queues.get(row.summary.order_key.as_deref()?)
    }

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
        let sum = if kept.row.summary.state.is_open() { &mut self.open_bytes } else { &mut self.ended_bytes };
        *sum -= kept.row.cost;
        let (sum, set, other) = match open {
            true => (&mut self.open_bytes, &mut self.open, &mut self.ended),
            false => (&mut self.ended_bytes, &mut self.ended, &mut self.open),
        };
        *sum += row.cost;
        set.insert(id);
        other.remove(&id);
        if let Some(key) = &row.summary.order_key {
            let queue = self.queues.entry(key.clone()).or_default();
            match open {
                true => queue.insert((kept.place, id)),
                false => queue.remove(&(kept.place, id)),
            };
            if queue.is_empty() {
                self.queues.remove(key);
            }
        }
        kept.row = row;
    }

    /// Writes a row that ended, and lets the next of its order key go.
    fn put_ended(&mut self, row: Row, now: Timestamp) {
        let next = self.queue(&row).and_then(|queue| queue.iter().find(|(_, id)| *id != row.summary.id)).copied();
        let was_head = !self.events[&row.summary.id].row.summary.parked;
        self.put(row);
        if let Some((_, next)) = next.filter(|(_, next)| was_head && self.events[next].row.summary.parked) {
            let mut row = self.events[&next].row.clone();
            row.unpark(now);
            self.put(row);
        }
    }

    pub(super) fn remove(&mut self, id: EventId) -> Option<Kept> {
        let kept = self.events.remove(&id)?;
        if self.ended.remove(&id) {
            self.ended_bytes -= kept.row.cost;
        }
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

    pub(super) fn claim(&mut self, want: &Want, grant: Grant, now: Timestamp) -> Vec<ClaimedEvent> {
        let ready = |entry: &&(Timestamp, EventId)| entry.0 <= now;
        let mut ids: Vec<_> =
            self.due.iter().take_while(ready).take(want.oldest.min(MAX_CLAIM)).map(|entry| entry.1).collect();
        let newest = self.due.range(..=(now, EventId::from_bytes([0xff; 16]))).rev().map(|entry| entry.1);
        let newest: Vec<_> = newest.take(want.newest.min(MAX_CLAIM)).filter(|id| !ids.contains(id)).collect();
        ids.extend(newest);
        ids.into_iter().map(|id| self.lease(id, grant, now)).collect()
    }

    fn lease(&mut self, id: EventId, grant: Grant, now: Timestamp) -> ClaimedEvent {
        let mut row = self.events[&id].row.clone();
        let (lease, lost) = row.lease(grant, None, now);
        if let Some(lost) = lost {
            self.record(&mut row, lost, false);
        }
        self.put(row);
        let kept = &self.events[&id];
        let summary = kept.row.summary.clone();
        let body = (summary.size <= INLINE_BYTES).then(|| kept.body.clone());
        ClaimedEvent { summary, lease, head: kept.head.clone(), body }
    }

    /// Takes at most so many leases over; they end at `latest`.
    pub(super) fn take_over(
        &mut self,
        gone: &[Holder],
        holder: Holder,
        latest: Timestamp,
        most: usize,
    ) -> impl Iterator<Item = (EventId, u64)> {
        let is_orphan = |row: &Row| row.held.is_some_and(|held| gone.contains(&held.holder));
        let rows = self.open.iter().map(|id| &self.events[id].row);
        let rows: Vec<Row> = rows.filter(|row| is_orphan(row)).take(most).cloned().collect();
        for row in &rows {
            let mut row = row.clone();
            row.held = Some(Held { holder, given_to: None });
            row.summary.due_at = row.summary.due_at.map(|due| due.min(latest));
            self.put(row);
        }
        rows.into_iter().map(|row| (row.summary.id, row.summary.fence))
    }

    pub(super) fn settle(&mut self, end: End, now: Timestamp) -> Ended {
        let Some(kept) = self.events.get(&end.id) else { return Ended::Unknown };
        let mut row = kept.row.clone();
        let moves = row.is_moved_by(&end);
        let ended = row.settle(&end, now);
        if leaves_record(&end, ended) {
            self.record(&mut row, end.attempt, true);
        }
        match ended {
            Ended::Settled(state) if moves && !state.is_open() => self.put_ended(row, now),
            _ => self.put(row),
        }
        ended
    }

    /// Keeps the record of an attempt, and has the row say what the event takes then.
    fn record(&mut self, row: &mut Row, attempt: Attempt, over: bool) {
        let Some(kept) = self.events.get_mut(&row.summary.id) else { return };
        if over || !kept.attempts.contains_key(&attempt.fence) {
            kept.attempts.insert(attempt.fence, attempt);
        }
        // The first and the last ones stay.
        while kept.attempts.len() > MAX_ATTEMPTS
            && let Some(second) = kept.attempts.keys().nth(1).copied()
        {
            kept.attempts.remove(&second);
        }
        let answers = kept.attempts.values().filter_map(|attempt| attempt.answer.as_ref());
        let answers = answers.map(|answer| answer.body.len() + answer.headers.as_bytes().len()).sum::<usize>();
        let records = kept.attempts.len() as u64 * BESIDE_BYTES + answers as u64;
        row.cost = cost(&kept.head, row.summary.size) + records;
    }

    pub(super) fn act(&mut self, act: &Act, now: Timestamp) -> Acted {
        let Some(kept) = self.events.get(&act.id) else { return Acted::Unknown };
        let mut row = kept.row.clone();
        let acted = row.act(act.action, now);
        match act.action {
            _ if acted != Acted::Done => {}
            Action::Replay(id, signature) => {
                let (head, body) = (Head { signature, ..kept.head.clone() }, kept.body.clone());
                let replay = row.replay(id, now).costing(cost(&head, row.summary.size));
                self.lay_in(replay.clone(), head, body);
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

pub(super) fn cost(head: &Head, size: u64) -> u64 {
    BESIDE_BYTES + (head.sent.target.len() + head.sent.headers.as_bytes().len()) as u64 + size
}
