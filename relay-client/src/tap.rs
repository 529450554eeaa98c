//! What passed through this agent a moment ago: the times at the handler's socket, both bodies with their checksums.
//!
//! The local page and the terminal read it, also while the relay is away. It is a side tap: an exchange notes what it
//! has at hand anyway and pushes once, at its end. Nobody is woken by that; whoever wants news looks for it.
//!
//! Invariants: at most [`MAX_BYTES`] and [`MAX_EXCHANGES`] are kept, the oldest go first and are counted; of a body at
//! most [`MAX_KEPT_BYTES`]; nothing is kept of what an upgraded connection carries. Without a tap an exchange notes
//! nothing.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::HeaderName;
use parking_lot::Mutex;
use relay_proto::HeaderBlock;
use sha2::{Digest as _, Sha256};

use crate::report::Line;

/// Bytes of all that is kept, what an entry takes beside its texts included.
pub(crate) const MAX_BYTES: usize = 32 << 20;
/// Exchanges that are kept.
pub(crate) const MAX_EXCHANGES: usize = 10_000;
/// What is kept of each body, and of each head.
pub(crate) const MAX_KEPT_BYTES: usize = 64 * 1024;
/// What an entry takes beside its bodies, heads and texts.
const ENTRY_BYTES: usize = 512;

/// The ring of exchanges.
#[derive(Debug, Default)]
pub(crate) struct Tap(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    /// Oldest first.
    exchanges: VecDeque<Arc<TapExchange>>,
    bytes: usize,
    /// So many were pushed.
    pushed: u64,
    dropped: u64,
}

/// One call of a handler.
#[derive(Debug)]
pub(crate) struct TapExchange {
    /// The place in the order of their ends, from 0.
    pub(crate) seq: u64,
    /// The relay's number of the attempt.
    pub(crate) attempt: u32,
    /// What was reported of it.
    pub(crate) line: Line,
    /// From the request's arrival to the call of the handler, to the last byte of its body there, to the answer's head
    /// and to its last byte.
    pub(crate) called_us: u64,
    pub(crate) sent_us: Option<u64>,
    pub(crate) head_us: Option<u64>,
    pub(crate) ended_us: Option<u64>,
    /// The request's head as the handler got it.
    pub(crate) head: Bytes,
    /// Headers that this agent's own settings put there: their values are the user's.
    pub(crate) own: Vec<HeaderName>,
    pub(crate) request: TapBody,
    pub(crate) answer_headers: HeaderBlock,
    pub(crate) answer: TapBody,
}

/// A body, as far as it is kept.
#[derive(Debug, Default)]
pub(crate) struct TapBody {
    pub(crate) kept: Bytes,
    pub(crate) size: u64,
    /// Of all of it, where it came to its end.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// What the tap holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TapCounts {
    pub(crate) exchanges: usize,
    pub(crate) bytes: usize,
    pub(crate) dropped: u64,
}

impl Tap {
    fn push(&self, mut exchange: TapExchange) {
        let mut ring = self.0.lock();
        exchange.seq = ring.pushed;
        ring.pushed += 1;
        ring.bytes += exchange.cost();
        ring.exchanges.push_back(Arc::new(exchange));
        while ring.bytes > MAX_BYTES || ring.exchanges.len() > MAX_EXCHANGES {
            let Some(oldest) = ring.exchanges.pop_front() else { break };
            ring.bytes -= oldest.cost();
            ring.dropped += 1;
        }
    }

    /// The calls for an event, in their order.
    pub(crate) fn of(&self, event_id: &str) -> Vec<Arc<TapExchange>> {
        let ring = self.0.lock();
        let its = |one: &&Arc<TapExchange>| one.line.event_id.as_deref() == Some(event_id);
        ring.exchanges.iter().filter(its).map(Arc::clone).collect()
    }

    /// What was pushed from that place on, at most so many, the oldest first; and the place behind them.
    pub(crate) fn since(&self, seq: u64, most: usize) -> (Vec<Arc<TapExchange>>, u64) {
        let ring = self.0.lock();
        let first = ring.pushed - ring.exchanges.len() as u64;
        let skip = usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
        let news: Vec<_> = ring.exchanges.iter().skip(skip).take(most).map(Arc::clone).collect();
        let next = news.last().map_or(seq.max(first), |last| last.seq + 1);
        (news, next)
    }

    /// The place behind the newest.
    pub(crate) fn next_seq(&self) -> u64 {
        self.0.lock().pushed
    }

    pub(crate) fn counts(&self) -> TapCounts {
        let ring = self.0.lock();
        TapCounts { exchanges: ring.exchanges.len(), bytes: ring.bytes, dropped: ring.dropped }
    }
}

impl TapExchange {
    fn cost(&self) -> usize {
        let Line { endpoint, event_id, method, path, note, .. } = &self.line;
        let texts = [Some(endpoint), event_id.as_ref(), Some(method), Some(path), note.as_ref()];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let bodies = self.request.kept.len() + self.answer.kept.len();
        ENTRY_BYTES + texts + bodies + self.head.len() + self.answer_headers.as_bytes().len()
    }
}

/// A body while it passes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct BodyTap(Arc<Mutex<Passing>>);

#[derive(Debug)]
struct Passing {
    hash: Sha256,
    kept: BytesMut,
    /// So many bytes are kept at most.
    most: usize,
    size: u64,
    ended: Option<Instant>,
}

impl BodyTap {
    /// Keeps the body's beginning, at most so many bytes.
    pub(crate) fn keeping(most: usize) -> Self {
        let (hash, kept) = (Sha256::new(), BytesMut::new());
        Self(Arc::new(Mutex::new(Passing { hash, kept, most, size: 0, ended: None })))
    }

    pub(crate) fn add(&self, data: &[u8]) {
        let mut passing = self.0.lock();
        passing.size += data.len() as u64;
        passing.hash.update(data);
        let room = passing.most - passing.kept.len();
        passing.kept.extend_from_slice(&data[..data.len().min(room)]);
    }

    /// It came to its end, and whole.
    pub(crate) fn end(&self) {
        self.0.lock().ended.get_or_insert_with(Instant::now);
    }

    /// Of all of it, if it came to its end.
    pub(crate) fn sha256(&self) -> Option<[u8; 32]> {
        let passing = self.0.lock();
        passing.ended.map(|_| passing.hash.clone().finalize().into())
    }

    fn take(&self) -> (TapBody, Option<Instant>) {
        let sha256 = self.sha256();
        let mut passing = self.0.lock();
        let kept = std::mem::take(&mut passing.kept).freeze();
        (TapBody { kept, size: passing.size, sha256 }, passing.ended)
    }
}

/// An exchange while it runs.
#[derive(Debug)]
pub(crate) struct Recording {
    tap: Arc<Tap>,
    came: Instant,
    called: Instant,
    answered: Option<Instant>,
    attempt: u32,
    head: Bytes,
    own: Vec<HeaderName>,
    answer_headers: HeaderBlock,
    pub(crate) request: BodyTap,
    pub(crate) answer: BodyTap,
}

impl Recording {
    /// Begins when the handler is about to be called.
    pub(crate) fn new(tap: Arc<Tap>, came: Instant, attempt: u32, head: &[u8], own: Vec<HeaderName>) -> Self {
        let body = || BodyTap::keeping(MAX_KEPT_BYTES);
        Self {
            tap,
            came,
            called: Instant::now(),
            answered: None,
            attempt,
            head: Bytes::copy_from_slice(&head[..head.len().min(MAX_KEPT_BYTES)]),
            own,
            answer_headers: HeaderBlock::new(),
            request: body(),
            answer: body(),
        }
    }

    /// The head of the answer is there.
    pub(crate) fn answered(&mut self, headers: &HeaderBlock) {
        self.answered = Some(Instant::now());
        if headers.as_bytes().len() <= MAX_KEPT_BYTES {
            self.answer_headers = headers.clone();
        }
    }

    /// The exchange is over, and this was reported of it.
    pub(crate) fn finish(self, line: Line) {
        let (request, sent) = self.request.take();
        let (answer, ended) = self.answer.take();
        let since = |at: Instant| micros(at.saturating_duration_since(self.came));
        self.tap.push(TapExchange {
            seq: 0,
            attempt: self.attempt,
            line,
            called_us: since(self.called),
            sent_us: sent.map(since),
            head_us: self.answered.map(since),
            ended_us: ended.map(since),
            head: self.head,
            own: self.own,
            request,
            answer_headers: self.answer_headers,
            answer,
        });
    }
}

/// A duration as the APIs have it.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::report::Outcome;

    fn line(id: &str) -> Line {
        Line {
            time: Timestamp::UNIX_EPOCH,
            endpoint: "e".to_owned(),
            event_id: Some(id.to_owned()),
            method: "POST".to_owned(),
            path: "/".to_owned(),
            outcome: Outcome::Status(200),
            duration: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            replay_of: None,
            note: None,
        }
    }

    fn record(tap: &Arc<Tap>, id: &str, body: &[u8]) {
        let recording = Recording::new(Arc::clone(tap), Instant::now(), 1, b"POST / HTTP/1.1\r\n\r\n", Vec::new());
        for part in body.chunks(1000) {
            recording.request.add(part);
        }
        recording.request.end();
        recording.answer.add(b"cut off");
        recording.finish(line(id));
    }

    #[test]
    fn a_body_is_kept_to_its_bound_and_summed_to_its_end() {
        let tap = Arc::new(Tap::default());
        let body = vec![7; MAX_KEPT_BYTES + 1500];
        record(&tap, "a", &body);
        record(&tap, "b", b"x");
        record(&tap, "a", b"x");
        let its = tap.of("a");
        assert_eq!(its.iter().map(|one| one.seq).collect::<Vec<_>>(), [0, 2]);
        let TapExchange { request, answer, .. } = &*its[0];
        assert_eq!((request.size, request.kept.len()), (body.len() as u64, MAX_KEPT_BYTES));
        assert_eq!(request.sha256, Some(Sha256::digest(&body).into()));
        assert_eq!((answer.size, answer.sha256), (7, None), "nobody knows the sum of what did not end");
    }

    #[test]
    fn the_oldest_goes_and_whoever_reads_on_finds_the_rest() {
        let tap = Arc::new(Tap::default());
        let body = vec![1; MAX_KEPT_BYTES];
        let count = MAX_BYTES / MAX_KEPT_BYTES + 10;
        for number in 0..count {
            record(&tap, &number.to_string(), &body);
        }
        let counts = tap.counts();
        assert!(counts.bytes <= MAX_BYTES && counts.dropped > 0, "{counts:?}");
        assert_eq!(counts.exchanges as u64 + counts.dropped, count as u64);
        assert!(tap.of("0").is_empty());
        let (news, next) = tap.since(0, 2);
        assert_eq!(news.iter().map(|one| one.seq).collect::<Vec<_>>(), [counts.dropped, counts.dropped + 1]);
        assert_eq!(next, counts.dropped + 2);
        assert_eq!(tap.since(tap.next_seq(), 9).0.len(), 0);
        assert_eq!(tap.since(tap.next_seq() - 1, 9).1, tap.next_seq());
        for number in 0..MAX_EXCHANGES + 5 {
            record(&tap, &number.to_string(), b"");
        }
        assert_eq!(tap.counts().exchanges, MAX_EXCHANGES);
    }
}
