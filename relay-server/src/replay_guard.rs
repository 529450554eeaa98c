//! The replay guard of live mode: a signed, timestamped request that comes again unchanged is not delivered again.
//!
//! The guard remembers the proof itself (a digest of what was signed) and the status of the answer, never a request. It
//! remembers only an exchange that ended whole and with success. While that runs, a repeat waits for it; after a
//! failure a repeat is the sender's honest retry and becomes the first. Schemes without a timestamp never come here,
//! since with them nobody can tell a replay from a redelivery; nor do those whose signatures cover no body, since many
//! messages may travel under one of them.
//!
//! Invariants: an entry is forgotten once its timestamp is out of the endpoint's tolerance, since the request would be
//! refused for its age from then on. Each endpoint has at most [`MAX_ENTRIES`]; beyond that the oldest goes.

mod own;

pub(crate) use self::own::{Cause, OwnMark, OwnSignatures};

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::webhook::EventId;

/// Longest time for which a repeat is recognised, in seconds: some providers' signatures never grow old.
const MAX_REMEMBERED_S: i64 = 24 * 60 * 60;

/// Entries of one endpoint, about 6 MiB of memory.
pub(crate) const MAX_ENTRIES: usize = 65_536;

/// A proof that can be recognised, and until when it would be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestMark {
    /// A digest of what was signed, that only the holder of the key can choose.
    pub digest: [u8; 32],
    /// The body's SHA-256 where that is not signed: with another body, it is no repeat but a forgery.
    pub body: Option<[u8; 32]>,
    pub signed_unix_s: i64,
    /// From this second on the timestamp is too old.
    pub expires_unix_s: i64,
    /// It is older than its scheme allows: whoever takes it has to know that it did not come before.
    pub is_late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayState {
    Running,
    Answered(StatusCode),
    Failed,
}

pub(crate) enum Seen {
    /// The first, or the first after failures; to be settled by its end.
    First(FirstRequest),
    Again {
        event_id: EventId,
        state: watch::Receiver<ReplayState>,
    },
    /// What was signed once, with another body than it came with.
    OtherBody,
}

#[derive(Default)]
pub(crate) struct ReplayGuard(Arc<Mutex<HashMap<String, Memory>>>);

#[derive(Default)]
struct Memory {
    entries: HashMap<[u8; 32], Entry>,
    /// In the order in which they came, with a number that tells an entry from a later one of the same digest.
    order: VecDeque<([u8; 32], u64)>,
    next: u64,
}

struct Entry {
    number: u64,
    body: Option<[u8; 32]>,
    expires_unix_s: i64,
    event_id: EventId,
    state: watch::Receiver<ReplayState>,
}

/// A first request under way; dropped without success, it is forgotten.
pub(crate) struct FirstRequest {
    guard: Arc<Mutex<HashMap<String, Memory>>>,
    endpoint: String,
    digest: [u8; 32],
    number: u64,
    state: watch::Sender<ReplayState>,
}

impl ReplayGuard {
    /// Looks a request up and remembers it if it is the first.
    pub(crate) fn begin(&self, endpoint: &str, mark: RequestMark, event_id: EventId, now_unix_s: i64) -> Seen {
        let mut all = self.0.lock();
        if !all.contains_key(endpoint) {
            all.insert(endpoint.to_owned(), Memory::default());
        }
        let memory = all.get_mut(endpoint).expect("it was put there");
        memory.forget_old(now_unix_s);
        if let Some(entry) = memory.entries.get(&mark.digest) {
            if entry.body != mark.body {
                return Seen::OtherBody;
            }
            return Seen::Again { event_id: entry.event_id, state: entry.state.clone() };
        }
        let (sender, state) = watch::channel(ReplayState::Running);
        let number = memory.next;
        memory.next += 1;
        memory.order.push_back((mark.digest, number));
        let RequestMark { digest, body, expires_unix_s, .. } = mark;
        let expires_unix_s = expires_unix_s.min(now_unix_s.saturating_add(MAX_REMEMBERED_S));
        memory.entries.insert(digest, Entry { number, body, expires_unix_s, event_id, state });
        drop(all);
        Seen::First(FirstRequest {
            guard: Arc::clone(&self.0),
            endpoint: endpoint.to_owned(),
            digest: mark.digest,
            number,
            state: sender,
        })
    }
}

impl Memory {
    fn forget_old(&mut self, now_unix_s: i64) {
        while let Some((digest, number)) = self.order.front() {
            let entry = self.entries.get(digest).filter(|entry| entry.number == *number);
            if self.order.len() < MAX_ENTRIES && entry.is_some_and(|entry| entry.expires_unix_s > now_unix_s) {
                return;
            }
            if entry.is_some() {
                self.entries.remove(digest);
            }
            self.order.pop_front();
        }
    }
}

impl FirstRequest {
    /// The exchange has ended whole, with this status. Only success is remembered.
    pub(crate) fn ended(self, status: StatusCode) {
        if status.is_success() {
            self.state.send_replace(ReplayState::Answered(status));
        }
    }
}

impl Drop for FirstRequest {
    fn drop(&mut self) {
        if *self.state.borrow() != ReplayState::Running {
            return;
        }
        // Forgotten first, so that whoever waits for it finds its place free.
        let mut all = self.guard.lock();
        if let Some(memory) = all.get_mut(&self.endpoint)
            && memory.entries.get(&self.digest).is_some_and(|entry| entry.number == self.number)
        {
            memory.entries.remove(&self.digest);
        }
        drop(all);
        self.state.send_replace(ReplayState::Failed);
    }
}

pub(crate) async fn settled(state: &mut watch::Receiver<ReplayState>) -> ReplayState {
    match state.wait_for(|state| *state != ReplayState::Running).await {
        Ok(state) => *state,
        Err(_) => ReplayState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u32, expires_unix_s: i64) -> RequestMark {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        RequestMark { digest, body: None, signed_unix_s: 0, expires_unix_s, is_late: false }
    }

    fn first(guard: &ReplayGuard, mark: RequestMark, now: i64) -> Option<FirstRequest> {
        match guard.begin("a", mark, EventId::new(), now) {
            Seen::First(running) => Some(running),
            Seen::Again { .. } | Seen::OtherBody => None,
        }
    }

    #[tokio::test]
    async fn a_success_is_remembered_and_a_failure_is_not() {
        let guard = ReplayGuard::default();
        first(&guard, mark(1, 100), 0).expect("new").ended(StatusCode::CREATED);
        let Seen::Again { mut state, .. } = guard.begin("a", mark(1, 100), EventId::new(), 0) else { panic!("seen") };
        assert_eq!(settled(&mut state).await, ReplayState::Answered(StatusCode::CREATED));
        assert!(matches!(guard.begin("b", mark(1, 100), EventId::new(), 0), Seen::First(_)), "another endpoint");
        for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_REQUEST] {
            first(&guard, mark(2, 100), 0).expect("not remembered").ended(status);
        }
        drop(first(&guard, mark(2, 100), 0).expect("not remembered"));
        assert!(first(&guard, mark(2, 100), 0).is_some(), "one that broke off");
    }

    #[tokio::test]
    async fn a_repeat_waits_for_the_first_and_takes_its_place_when_it_fails() {
        let guard = ReplayGuard::default();
        let running = first(&guard, mark(1, 100), 0).expect("new");
        let Seen::Again { mut state, .. } = guard.begin("a", mark(1, 100), EventId::new(), 0) else { panic!("seen") };
        assert_eq!(*state.borrow(), ReplayState::Running);
        drop(running);
        assert_eq!(settled(&mut state).await, ReplayState::Failed);
        assert!(first(&guard, mark(1, 100), 0).is_some());
    }

    #[test]
    fn what_was_signed_without_its_body_is_no_repeat_with_another_one() {
        let guard = ReplayGuard::default();
        let with = |body: u8| RequestMark { body: Some([body; 32]), ..mark(1, 100) };
        let running = first(&guard, with(1), 0).expect("new");
        assert!(matches!(guard.begin("a", with(2), EventId::new(), 0), Seen::OtherBody), "while it runs");
        running.ended(StatusCode::OK);
        assert!(matches!(guard.begin("a", with(2), EventId::new(), 0), Seen::OtherBody));
        assert!(matches!(guard.begin("a", with(1), EventId::new(), 0), Seen::Again { .. }));
    }

    #[test]
    fn as_many_marks_are_remembered_as_there_is_room_for_and_the_next_one_takes_the_oldests_place() {
        let guard = ReplayGuard::default();
        let most = u32::try_from(MAX_ENTRIES).unwrap();
        let begin = |number| first(&guard, mark(number, 1000), 0).map(|new| new.ended(StatusCode::OK)).is_some();
        assert!((0..most).all(begin), "all are new");
        assert_eq!(guard.0.lock()["a"].entries.len(), MAX_ENTRIES);
        assert!(begin(most), "one past it is new, too");
        assert_eq!(guard.0.lock()["a"].entries.len(), MAX_ENTRIES);
        assert!(!begin(most) && !begin(2), "the newest and the next to oldest are known");
        assert!(begin(0), "the oldest is not");
    }

    #[test]
    fn memory_ends_with_the_tolerance_and_is_bounded() {
        let guard = ReplayGuard::default();
        first(&guard, mark(1, 100), 0).expect("new").ended(StatusCode::OK);
        assert!(first(&guard, mark(1, 100), 99).is_none());
        first(&guard, mark(1, 200), 100).expect("forgotten").ended(StatusCode::OK);
        assert!(first(&guard, mark(1, 200), 100).is_none(), "the new one is not forgotten with the old one");
        let late = first(&guard, mark(2, 150), 120).expect("new");
        for number in 10..10 + 2 * u32::try_from(MAX_ENTRIES).unwrap() {
            first(&guard, mark(number, 1000), 120).expect("new").ended(StatusCode::OK);
        }
        let all = guard.0.lock();
        assert!(all["a"].entries.len() <= MAX_ENTRIES && all["a"].order.len() <= MAX_ENTRIES);
        drop(all);
        drop(late); // Its place was given away; nothing else is lost by that.
        assert!(first(&guard, mark(9 + 2 * u32::try_from(MAX_ENTRIES).unwrap(), 1000), 120).is_none());
    }
}
