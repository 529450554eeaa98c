//! The log of refused requests.
//!
//! The log in memory has three bounds: entries of one endpoint, their age, and the bytes of all of them. The oldest
//! entry goes first. When the memory is full, the endpoint that holds the most gives way, so that a flood at one
//! address does not wash away what happened at another. Where the store lasts, `behind` writes the log into it, and
//! reads come from there for what the memory no longer has.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, HashSet, VecDeque},
    net::IpAddr,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::behind;
use crate::{
    endpoint::EndpointName,
    mask::Hidden,
    store::{Store, StoreError},
    webhook::EventId,
};

pub(crate) const MAX_ENTRIES: usize = 1000;

const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The beginning of a body that is kept, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct Entry {
    /// The id that its answer carried.
    pub event_id: EventId,
    pub at: Timestamp,
    pub endpoint: EndpointName,
    /// Of its answer, as is the code.
    pub status: u16,
    pub code: Cow<'static, str>,
    pub head: RefusedHead,
    /// The beginning of its body; empty where the body was not read.
    pub body: Bytes,
    /// What of it is not shown, nor written.
    pub hidden: Hidden,
}

/// What a refused request said of itself, and by whom.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RefusedHead {
    /// The endpoint's, or `none`.
    pub provider: String,
    /// The sender's address, behind trusted proxies.
    pub client: IpAddr,
    pub method: String,
    /// Scheme, host and target as the relay saw them.
    pub url: String,
    #[serde(with = "behind::latin1")]
    pub headers: Vec<(String, Bytes)>,
    /// The length of the whole body; `None` where it was not read, since the answer did not depend on it.
    pub body_len: Option<u64>,
    /// Whether what let its bearer in was left out, since this was read from the store.
    pub masked: bool,
}

impl Entry {
    pub(crate) fn bytes(&self) -> usize {
        let RefusedHead { method, url, headers, .. } = &self.head;
        let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        let own = self.endpoint.as_str().len() + method.len() + url.len() + self.hidden.bytes();
        ENTRY_BYTES + own + headers + self.body.len()
    }

    /// Its body as it is shown and written.
    pub(crate) fn shown_body(&self) -> Bytes {
        self.hidden.body(&self.body)
    }

    fn is_old(&self, now: Timestamp) -> bool {
        SignedDuration::try_from(MAX_AGE).is_ok_and(|age| now.duration_since(self.at) > age)
    }
}

pub(crate) struct RefusedLog {
    kept: Mutex<Kept>,
    budget: usize,
    pub(super) store: Arc<dyn Store>,
    /// Whether what is written there outlives the process; else nothing is.
    pub(super) lasts: bool,
    /// Entries that were gone before they were written.
    lost: AtomicU64,
}

/// A bounded part of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) entries: usize,
    pub(super) of_one: usize,
    pub(super) bytes: usize,
}

#[derive(Default)]
struct Kept {
    rings: BTreeMap<String, Ring>,
    bytes: usize,
    /// The endpoint whose entries were written last.
    turn: String,
}

#[derive(Default)]
struct Ring {
    /// The oldest first.
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// How many of the newest are not written.
    unwritten: usize,
}

impl RefusedLog {
    pub(super) fn new(budget: u64, lasts: bool, store: Arc<dyn Store>) -> Self {
        let budget = usize::try_from(budget).unwrap_or(usize::MAX);
        Self { kept: Mutex::default(), budget, store, lasts, lost: AtomicU64::new(0) }
    }

    /// Entries that were gone before they were written into the store.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn count_lost(&self, entries: usize) {
        self.lost.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// Entries that are not written, the oldest of each endpoint first, endpoints in turn. They count as written then.
    pub(super) fn take(&self, most: Part) -> Vec<Arc<Entry>> {
        let mut kept = self.kept.lock();
        let Kept { rings, turn, .. } = &mut *kept;
        let behind = (Bound::Excluded(turn.clone()), Bound::Unbounded);
        let names: Vec<String> = rings
            .range::<String, _>(behind)
            .chain(rings.range::<String, _>(..=turn.clone()))
            .filter(|(_, ring)| ring.unwritten > 0)
            .map(|(name, _)| name.clone())
            .take(most.entries)
            .collect();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for name in names {
            let Some(ring) = rings.get_mut(&name) else { continue };
            for _ in 0..most.of_one.min(most.entries - taken.len()).min(ring.unwritten) {
                let Some(entry) = ring.entries.get(ring.entries.len() - ring.unwritten) else { break };
                if bytes > 0 && bytes + entry.bytes() > most.bytes {
                    return taken;
                }
                bytes += entry.bytes();
                taken.push(Arc::clone(entry));
                ring.unwritten -= 1;
                turn.clone_from(&name);
            }
        }
        taken
    }

    /// Keeps an entry, with no more than the beginning of its body.
    pub(super) fn record(&self, mut entry: Entry) -> Arc<Entry> {
        // A copy, even of a short one: a slice would keep all in memory that was read with it.
        entry.body = Bytes::copy_from_slice(&entry.body[..entry.body.len().min(MAX_BODY_BYTES)]);
        let (now, bytes) = (entry.at, entry.bytes());
        let mut kept = self.kept.lock();
        let ring = kept.rings.entry(entry.endpoint.as_str().to_owned()).or_default();
        let entry = Arc::new(entry);
        ring.entries.push_back(Arc::clone(&entry));
        ring.bytes += bytes;
        ring.unwritten += usize::from(self.lasts);
        let mut freed = 0;
        while ring.entries.len() > MAX_ENTRIES || ring.entries.front().is_some_and(|oldest| oldest.is_old(now)) {
            freed += ring.drop_oldest(&self.lost);
        }
        kept.bytes = kept.bytes + bytes - freed;
        while kept.bytes > self.budget {
            let Some(largest) = kept.rings.values_mut().max_by_key(|ring| ring.bytes) else { break };
            let freed = largest.drop_oldest(&self.lost);
            if freed == 0 {
                break;
            }
            kept.bytes -= freed;
        }
        drop(kept);
        entry
    }

    /// The newest entries of one endpoint or of all, the newest first, with those that only the store knows.
    pub(crate) async fn list(
        &self,
        endpoint: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Arc<Entry>>, StoreError> {
        let mut found = self.list_kept(endpoint, limit, now);
        // A text that is no name has no entries.
        let Ok(name) = endpoint.map(EndpointName::parse).transpose() else { return Ok(found) };
        let known: HashSet<EventId> = found.iter().map(|entry| entry.event_id).collect();
        let stored = self.store.refused(name, limit).await?.into_iter();
        let stored = stored.filter(|row| !known.contains(&row.id)).filter_map(behind::entry);
        found.extend(stored.filter(|entry| !entry.is_old(now)).map(Arc::new));
        found.sort_by_key(|entry| Reverse(entry.event_id));
        found.truncate(limit);
        Ok(found)
    }

    /// The entry of this id, from the store if the memory does not know it.
    pub(crate) async fn find(&self, event_id: EventId, now: Timestamp) -> Result<Option<Arc<Entry>>, StoreError> {
        if let Some(found) = self.find_kept(event_id, now) {
            return Ok(Some(found));
        }
        let found = self.store.refused_request(event_id).await?.and_then(behind::entry);
        Ok(found.filter(|entry| !entry.is_old(now)).map(Arc::new))
    }

    fn list_kept(&self, endpoint: Option<&str>, limit: usize, now: Timestamp) -> Vec<Arc<Entry>> {
        let kept = self.kept.lock();
        let rings = kept.rings.iter().filter(|(name, _)| endpoint.is_none_or(|wanted| wanted == *name));
        let newest = rings.flat_map(|(_, ring)| ring.entries.iter().rev().take(limit));
        newest.filter(|entry| !entry.is_old(now)).cloned().collect()
    }

    fn find_kept(&self, event_id: EventId, now: Timestamp) -> Option<Arc<Entry>> {
        let kept = self.kept.lock();
        let found = kept.rings.values().flat_map(|ring| &ring.entries).find(|entry| entry.event_id == event_id);
        found.filter(|entry| !entry.is_old(now)).cloned()
    }
}

impl Ring {
    /// Bytes that this freed.
    fn drop_oldest(&mut self, lost: &AtomicU64) -> usize {
        let freed = self.entries.pop_front().map_or(0, |oldest| oldest.bytes());
        self.bytes -= freed;
        if self.unwritten > self.entries.len() {
            self.unwritten = self.entries.len();
            lost.fetch_add(1, Ordering::Relaxed);
        }
        freed
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn log(budget: u64, lasts: bool) -> RefusedLog {
        RefusedLog::new(budget, lasts, Arc::new(MemoryStore::new(1 << 30)))
    }

    pub(in super::super) fn entry(endpoint: &str, at: i64, body: usize) -> Entry {
        Entry {
            event_id: EventId::new(),
            at: Timestamp::from_second(at).unwrap(),
            endpoint: EndpointName::parse(endpoint).unwrap(),
            status: 401,
            code: "signature_mismatch".into(),
            head: RefusedHead {
                provider: "github".to_owned(),
                client: IpAddr::from([192, 0, 2, 1]),
                method: "POST".to_owned(),
                url: "https://hooks.example.com/x".to_owned(),
                headers: vec![("x-a".to_owned(), Bytes::from_static(b"1"))],
                body_len: Some(body as u64),
                masked: false,
            },
            body: Bytes::from(vec![b'x'; body]),
            hidden: Hidden::nothing_but(format!("https://hooks.example.com/{endpoint}")),
        }
    }

    #[test]
    fn an_entry_holds_no_more_than_it_counts() {
        let read = Bytes::from(vec![b'x'; 64 * 1024]);
        let log = log(1 << 20, true);
        let kept = log.record(Entry { body: read.slice(..1), ..entry("pay", 1, 0) });
        assert_eq!((&kept.body[..], read.is_unique()), (&b"x"[..], true));
    }

    fn now(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn the_newest_come_first_and_each_endpoint_keeps_its_thousand() {
        let log = log(1 << 30, false);
        for _ in 0..MAX_ENTRIES + 5 {
            log.record(entry("a", 1, 10));
        }
        let last = entry("b", 2, 10);
        let id = last.event_id;
        log.record(last);
        assert_eq!(log.list(None, 1, now(2)).await.unwrap()[0].event_id, id);
        assert_eq!(log.list_kept(Some("a"), 5000, now(2)).len(), MAX_ENTRIES);
        assert_eq!(log.list_kept(Some("b"), 5000, now(2)).len(), 1);
        assert_eq!(log.list_kept(Some("c"), 5000, now(2)).len(), 0);
        assert_eq!(log.find_kept(id, now(2)).unwrap().endpoint.as_str(), "b");
        assert!(log.find_kept(EventId::new(), now(2)).is_none());
    }

    #[test]
    fn an_entry_is_gone_after_a_day() {
        let log = log(1 << 30, false);
        let old = entry("a", 0, 10);
        let id = old.event_id;
        log.record(old);
        let day = 24 * 60 * 60;
        assert!(log.find_kept(id, now(day)).is_some());
        assert!(log.find_kept(id, now(day + 1)).is_none());
        assert!(log.list_kept(None, 10, now(day + 1)).is_empty());
        log.record(entry("a", day + 1, 10));
        assert_eq!(log.kept.lock().rings["a"].entries.len(), 1, "the memory is free again");
    }

    #[test]
    fn memory_is_bounded_and_a_flood_at_one_endpoint_leaves_the_others_alone() {
        let log = log(1 << 20, true);
        let quiet = entry("quiet", 0, 1000);
        let id = quiet.event_id;
        log.record(quiet);
        for _ in 0..100 {
            log.record(entry("flooded", 1, 200_000));
        }
        assert!(log.find_kept(id, now(1)).is_some());
        let flooded = log.list_kept(Some("flooded"), 1000, now(1));
        assert!((10..20).contains(&flooded.len()), "{}", flooded.len());
        assert!(flooded.iter().all(|entry| entry.body.len() == MAX_BODY_BYTES && entry.head.body_len == Some(200_000)));
        let kept = log.kept.lock();
        assert!(kept.bytes <= 1 << 20);
        assert_eq!(kept.bytes, kept.rings.values().map(|ring| ring.bytes).sum::<usize>());
        let (unwritten, entries) = (kept.rings["flooded"].unwritten, kept.rings["flooded"].entries.len());
        drop(kept);
        assert_eq!(unwritten, entries);
        assert_eq!(log.lost(), 100 - entries as u64, "none of them was written");
    }
}
