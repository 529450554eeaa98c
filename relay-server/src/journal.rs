//! A bounded, lossy memory of recent traffic, for those who watch.
//!
//! ```text
//! ingress, delivery ── push ──▶ ring ◀── read, from a number on ── streams, lists
//! ```
//!
//! Live exchanges are always kept, since nothing else tells of them; what changes of kept events, and what was refused,
//! only while somebody watches, and a minute longer. A watcher is a number into the ring: nothing waits for it, nothing is
//! queued for it, and nobody is woken. Invariants: a push is one short lock, and writes no text; the ring is bounded in
//! records, bytes and age ([`ring`]); the numbers rise across restarts.

mod entry;
mod figures;
mod packed;
mod pages;
mod ring;
mod shown;
mod tap;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hyper::body::Body as _;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use self::ring::{RecordView, Ring};
pub(crate) use self::{
    entry::{AnswerTap, Draft, LiveAnswer, LiveEntry, MAX_BODY_BYTES},
    figures::{Figures, FiguresQuery, ROUND},
    shown::{Attempted, answered, body, detail, hops, summary, verified},
    tap::{BodyTap, Taps},
};
use crate::{
    endpoint::{CaptureLevel, Endpoint},
    providers::Handshake,
    refused,
    store::{Sight, Summary},
    verify::Payload,
    webhook::EventId,
};

/// How long a record is there.
const MAX_AGE_S: u32 = 60 * 60;

/// Records that are looked at under one lock, and that are read under one.
const STRIDE: usize = 1024;
const READ_STRIDE: usize = 64;

/// How long after its last watcher a journal goes on as if there were one: whoever comes back misses nothing.
const AFTERGLOW: Duration = Duration::from_secs(60);

/// How far the end of an answer may lie behind its head without being news.
const SOON: Duration = Duration::from_millis(80);

/// What happened.
#[derive(Clone)]
pub(crate) enum NewsRecord {
    Live(Arc<LiveEntry>),
    /// A kept event stands otherwise than before.
    Kept(Arc<Summary>),
    Refused(Arc<refused::Entry>),
    Handshake(Arc<Handshake>),
}

impl NewsRecord {
    pub(crate) fn endpoint(&self) -> &str {
        match self {
            Self::Live(entry) => entry.endpoint.name.as_str(),
            Self::Kept(event) => event.endpoint.as_str(),
            Self::Refused(entry) => entry.endpoint.as_str(),
            Self::Handshake(handshake) => &handshake.endpoint,
        }
    }

    pub(crate) fn id(&self) -> EventId {
        match self {
            Self::Live(entry) => entry.id,
            Self::Kept(event) => event.id,
            Self::Refused(entry) => entry.event_id,
            Self::Handshake(handshake) => handshake.event_id,
        }
    }

    /// What it takes that nobody else counts.
    fn bytes(&self) -> usize {
        match self {
            Self::Live(entry) => entry.bytes(),
            Self::Kept(event) => {
                let texts = [&event.event_type, &event.sender_id, &event.order_key];
                let texts: usize = texts.into_iter().flatten().map(String::len).sum();
                size_of::<Summary>() + event.method.len() + event.target.len() + texts
            }
            Self::Refused(entry) => entry.bytes(),
            Self::Handshake(handshake) => size_of::<Handshake>() + handshake.endpoint.len() + handshake.provider.len(),
        }
    }
}

pub(crate) struct Journal {
    ring: Mutex<Ring>,
    taps: Taps,
    began: Instant,
    /// The number of the first record, by which one start of a relay is told from another.
    first: u64,
    watchers: AtomicUsize,
    /// When the last one went, in milliseconds since `began`; 0 if there was none.
    left_ms: AtomicU64,
    /// How often changes came to be missing: somebody began to watch when nobody had watched for long, or too much
    /// changed at once for a record of each.
    glow: AtomicU64,
    dropped: AtomicU64,
}

/// Somebody who watches, until this is dropped.
pub(crate) struct Watching(Arc<Journal>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.left_ms.store(self.0.millis().max(1), Ordering::Relaxed);
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A part of the ring.
pub(crate) struct JournalPart {
    pub records: Vec<(u64, NewsRecord)>,
    /// From where to go on.
    pub next: u64,
    /// What was asked for is there no more, or not all of it.
    pub is_cut: bool,
}

impl Journal {
    /// Takes `budget` bytes at most, beside what comes and goes.
    pub(crate) fn build(budget: u64) -> Arc<Self> {
        // Below 2^53, so that a page may reckon with it.
        let first = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
        let began = Instant::now();
        Arc::new(Self {
            ring: Mutex::new(Ring::new(first, usize::try_from(budget).unwrap_or(usize::MAX), began)),
            taps: Taps::default(),
            began,
            first,
            watchers: AtomicUsize::new(0),
            left_ms: AtomicU64::new(0),
            glow: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.duration_since(self.began).as_secs()).unwrap_or(u32::MAX)
    }

    fn now_s(&self) -> u32 {
        self.seconds(Instant::now())
    }

    fn taps(&self) -> Taps {
        self.taps.clone()
    }

    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    /// Records that gave way before their hour was over.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(self: &Arc<Self>) -> Watching {
        if !self.is_watched() {
            self.glow.fetch_add(1, Ordering::Relaxed);
        }
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(self))
    }

    /// As long as it is the same, no change was missed.
    pub(crate) fn glow(&self) -> u64 {
        self.glow.load(Ordering::Relaxed)
    }

    /// Many kept events have changed, and no record tells of each.
    pub(crate) fn miss(&self) {
        self.glow.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what changes is worth a record.
    pub(crate) fn is_watched(&self) -> bool {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let left_ms = self.left_ms.load(Ordering::Relaxed);
        left_ms != 0 && u128::from(self.millis().saturating_sub(left_ms)) < AFTERGLOW.as_millis()
    }

    /// Keeps what somebody who watches wants to know.
    pub(crate) fn note(&self, record: impl FnOnce() -> Option<NewsRecord>) {
        if self.is_watched()
            && let Some(record) = record()
        {
            self.push(record, Instant::now());
        }
    }

    /// Whether an agent is asked for the checksum of what goes to its handler: that costs it time, so only while somebody
    /// watches, and where the body will be there to compare.
    pub(crate) fn compares(&self, endpoint: &Endpoint, payload: &Payload) -> bool {
        let capture = &endpoint.capture;
        let is_kept_whole = |payload: &Payload| match payload {
            Payload::Whole(body) => body.len() <= MAX_BODY_BYTES,
            Payload::Streaming(body) => body.size_hint().upper().is_some_and(|bytes| bytes <= MAX_BODY_BYTES as u64),
            Payload::Long(..) | Payload::Upgrade(_) => false,
        };
        capture.level == CaptureLevel::Bodies
            && !capture.blinds.touches_bodies()
            && self.is_watched()
            && is_kept_whole(payload)
    }

    /// A draft of a live webhook, where its endpoint's journal is not off.
    pub(crate) fn draft(endpoint: &Endpoint, webhook: &crate::verify::Webhook) -> Option<Draft> {
        (endpoint.capture.level != CaptureLevel::Off).then(|| Draft::new(webhook))
    }

    /// Keeps a live exchange whose answer is decided now. A handler's answer is watched to its end, unless its body is
    /// there already.
    pub(crate) fn live(
        self: &Arc<Self>,
        draft: Draft,
        endpoint: &Arc<Endpoint>,
        answer: LiveAnswer,
        there: Option<&Bytes>,
        now: Instant,
    ) -> Option<AnswerTap> {
        let is_coming = matches!(answer, LiveAnswer::Handler { .. }) && there.is_none();
        let entry = draft.finish(endpoint, answer)?;
        if is_coming {
            let entry = Arc::new(entry);
            let number = self.push(NewsRecord::Live(Arc::clone(&entry)), now);
            return Some(AnswerTap::new(Arc::clone(self), entry, number));
        }
        if let Some(body) = there {
            entry.end(body, body.len() as u64, true, now);
        }
        let now_s = self.seconds(now);
        let mut ring = self.ring.lock();
        ring.push_packed(&entry, now_s);
        self.give_way(ring, now_s);
        None
    }

    fn push(&self, record: NewsRecord, now: Instant) -> u64 {
        let (id, bytes, now_s) = (record.id(), record.bytes(), self.seconds(now));
        let mut ring = self.ring.lock();
        let number = ring.push(id, record, bytes, now_s);
        self.give_way(ring, now_s);
        number
    }

    /// Nothing of an exchange is to come.
    fn pack(&self, number: u64, entry: &LiveEntry, now: Instant) {
        let mut ring = self.ring.lock();
        ring.pack(number, entry);
        self.give_way(ring, self.seconds(now));
    }

    /// An answer has ended at this moment.
    fn ended(&self, entry: &Arc<LiveEntry>, number: u64, now: Instant) {
        self.pack(number, entry, now);
        let is_news = entry.tail.get().is_some_and(|tail| {
            let head =
                Duration::from_micros(entry.way.hops.at_us(crate::hops::Hop::Answered).unwrap_or_default().into());
            !tail.is_whole || tail.at.duration_since(entry.way.from).saturating_sub(head) > SOON
        });
        if is_news && self.is_watched() {
            let number = self.push(NewsRecord::Live(Arc::clone(entry)), now);
            self.pack(number, entry, now);
        }
    }

    /// Makes room. What goes is freed without the lock.
    fn give_way(&self, mut ring: MutexGuard<'_, Ring>, now_s: u32) {
        let mut gone = Vec::new();
        while let Some(one) = ring.give_way(now_s) {
            self.dropped.fetch_add(one.is_early.into(), Ordering::Relaxed);
            gone.extend(one.record);
        }
        drop(ring);
    }

    /// The number that the next record gets.
    pub(crate) fn next(&self) -> u64 {
        self.ring.lock().next()
    }

    /// What came from a number on, so many records at most.
    pub(crate) fn read(&self, from: u64, most: usize) -> JournalPart {
        let (mut records, mut next, now_s) = (Vec::new(), from, self.now_s());
        let is_cut = {
            let ring = self.ring.lock();
            from < ring.oldest() || from > ring.next()
        };
        while records.len() < most {
            let stride = READ_STRIDE.min(most - records.len());
            let ring = self.ring.lock();
            let before = next;
            next = ring
                .look(next, stride, now_s, |seen| records.extend(seen.record().map(|record| (seen.number, record))));
            if next == ring.next() || next <= before {
                break;
            }
        }
        JournalPart { records, next, is_cut }
    }

    /// The record of a number, if it is there.
    pub(crate) fn record(&self, number: u64) -> Option<NewsRecord> {
        let mut found = None;
        let ring = self.ring.lock();
        if number >= ring.oldest() {
            ring.look(number, 1, self.now_s(), |seen| found = seen.record().filter(|_| seen.number == number));
        }
        found
    }

    /// Live exchanges in sight by id and number, the newest first or the oldest, those behind `after` alone.
    pub(crate) fn rows(&self, sight: &Sight, after: Option<EventId>, oldest_first: bool) -> Vec<(EventId, u64)> {
        let is_behind = |id: EventId| after.is_none_or(|after| if oldest_first { id > after } else { id < after });
        let mut found = HashMap::new();
        self.each(|seen| {
            if seen.live_at().is_some_and(|name| is_behind(seen.id) && sight.sees(name)) {
                found.insert(seen.id, seen.number);
            }
        });
        let mut rows: Vec<_> = found.into_iter().collect();
        rows.sort_unstable();
        if !oldest_first {
            rows.reverse();
        }
        rows
    }

    /// The live exchange of a number, if it is there.
    pub(crate) fn entry(&self, number: u64) -> Option<Arc<LiveEntry>> {
        match self.record(number)? {
            NewsRecord::Live(entry) => Some(entry),
            _ => None,
        }
    }

    /// A live exchange by its id or its sender's.
    pub(crate) fn find(&self, id: &str, sight: &Sight) -> Option<Arc<LiveEntry>> {
        let (ours, mut found) = (id.parse::<EventId>().ok(), None);
        self.each(|seen| {
            let is_it = ours.map_or_else(|| seen.is_senders(id), |id| id == seen.id);
            if is_it && seen.live_at().is_some_and(|name| sight.sees(name)) {
                found = Some(seen.number);
            }
        });
        self.entry(found?)
    }

    fn each(&self, mut look: impl FnMut(RecordView<'_>)) {
        let (mut next, now_s) = (0, self.now_s());
        loop {
            let ring = self.ring.lock();
            next = ring.look(next, STRIDE, now_s, &mut look);
            if next == ring.next() {
                return;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
