//! The nouns of the store: events, attempts, leases, and what may be asked of them. Nothing here decides.

use std::{io, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use relay_proto::{Framing, HeaderBlock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::outcome::{Outcome, Reason};
use crate::{
    endpoint::EndpointName,
    hops::{Hop, Hops},
    message::{Arrival, Forwarded, Sent},
    spool::BodyFile,
    webhook::EventId,
};

#[derive(Clone, Debug)]
pub struct NewEvent {
    pub endpoint: EndpointName,
    /// Its id, made by the caller.
    pub id: EventId,
    /// When its first byte came.
    pub received_at: Timestamp,
    pub head: Head,
    pub body: Body,
    /// Its type, as the provider's row finds it.
    pub event_type: Option<String>,
    pub sender_id: Option<String>,
    pub dedup: Option<Dedup>,
    /// What was signed, where a request is taken only if that was not taken before.
    pub mark: Option<Mark>,
    /// Events with the same key are delivered one after the other. `fifo` is the same key for all.
    pub order_key: Option<String>,
    /// The event of which it is a changed replay.
    pub replay_of: Option<EventId>,
    /// Claims it in the same transaction: the caller delivers at once and settles until then. A paused endpoint gives no
    /// lease.
    pub lease: Option<Grant>,
}

/// Who holds leases: one start of a relay. It is drawn anew for each, so that nothing is inherited by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder(pub u64);

impl Holder {
    pub fn draw() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        // Each of the bits that are the same in all UUIDs meets a random one.
        Self(high ^ low.rotate_left(32))
    }
}

/// To whom leases are given, and until when.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub holder: Holder,
    pub until: Timestamp,
}

/// How much of the store an endpoint's events may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// At most so many bytes. What has ended gives way before that.
    pub max_bytes: u64,
    /// Whether its senders prove who they are. Others' events leave [`super::reserve_bytes`] of the store alone.
    pub is_proven: bool,
    /// What it takes together with others.
    pub pool: Option<SharePool>,
}

/// A share that several endpoints have in common: those whose shares name the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharePool {
    pub number: u32,
    /// All of them together: at most so many bytes. What has ended gives way before that.
    pub max_bytes: u64,
}

impl Default for Share {
    fn default() -> Self {
        Self { max_bytes: u64::MAX, is_proven: true, pool: None }
    }
}

/// What was signed, once, by who alone can. It is known until it is too old, whatever became of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub digest: [u8; 32],
    pub signed_at: Timestamp,
    /// Until when it may be taken.
    pub good_until: Timestamp,
    /// It is older than its scheme allows: taken only where it is known that it did not come before.
    pub is_late: bool,
}

/// What a sender sent and what the relay knows of it, but for the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub sent: Sent,
    pub arrival: Arrival,
    pub signature: Signature,
}

impl Head {
    /// A head for tests and benchmarks: a POST without lines, of nobody in particular.
    pub fn sample(target: &str) -> Self {
        let id = EventId::from_bytes([0; 16]);
        let sent = Sent {
            method: "POST".into(),
            target: target.to_owned(),
            headers: HeaderBlock::new(),
            framing: Framing::Length,
            upgrade: Bytes::new(),
        };
        let arrival = Arrival {
            id,
            received_at: Timestamp::UNIX_EPOCH,
            peer: Ipv4Addr::LOCALHOST.into(),
            url: "https://hook.test".into(),
            verified: "none".into(),
            signer: None,
            certificate: None,
            forwarded: Forwarded::default(),
            traceparent: String::new(),
        };
        Self { sent, arrival, signature: Signature::Auto }
    }
}

/// What becomes of an event's signature when it is delivered. Only whoever has it replayed says anything else than
/// [`Signature::Auto`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// What its endpoint says.
    #[default]
    Auto,
    /// It stays as it came, however old it is.
    Keep,
    /// It is made anew each time.
    Fresh,
}

#[derive(Clone, Debug)]
pub enum Body {
    Bytes(Bytes),
    /// In a file, where it is long.
    File(BodyFile),
}

impl Body {
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(body) => body.size(),
        }
    }

    /// A part of it, from `offset`, as long as the body goes and at most `bytes`.
    pub(super) fn part(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        match self {
            Self::Bytes(all) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
                Ok(all.slice(start..all.len().min(start.saturating_add(bytes))))
            }
            Self::File(body) => body.part(offset, bytes).map(Bytes::from),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedup {
    /// The provider's event id, or what the endpoint is set to use instead.
    pub key: String,
    /// How long an earlier event counts.
    pub window: Duration,
    /// Whether the sender repeats by itself. If not, a repetition is a person's wish.
    pub sender_retries: bool,
}

/// What became of a [`NewEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept as an event of its own.
    Accepted {
        /// There if it was asked for, and nothing stands before it.
        lease: Option<Lease>,
        /// An earlier event with the same key and another body: this one is flagged.
        conflict: Option<EventId>,
    },
    /// It is an earlier event, which needs no other attempt now.
    Duplicate {
        of: EventId,
        /// `Pending`, `Running`, `Delivered` or `Dropped`.
        state: State,
        /// The recorded answer of a delivered one.
        answer: Option<Answer>,
    },
    /// It is an earlier event that ended, and gets another attempt.
    Again {
        of: EventId,
        /// There if it was asked for, and nothing stands before it.
        lease: Option<Lease>,
        /// The earlier one ended well, or the sender never repeats by itself: a person asked for it.
        redelivery: bool,
    },
    /// What was signed in it was taken with another body. It is not kept.
    OtherBody { of: EventId },
    /// It is late, and may have come before. It is not kept.
    TooLate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Rises with each claim of the event; only the newest settles.
    pub fence: u64,
    /// The attempt's number, from 1, counted over the event's life.
    pub attempt: u32,
    /// Its number since the event was accepted or revived: the place in the schedule.
    pub tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for its next attempt.
    Pending,
    Running,
    /// A handler took it.
    Delivered,
    /// It will not be tried again by itself.
    Dead,
    /// A person dropped or cancelled it.
    Dropped,
    /// What is stored is not what was taken in.
    Damaged,
}

impl State {
    pub(super) const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Delivered, Self::Dead, Self::Dropped, Self::Damaged];

    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// As lists and queries name it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
            Self::Damaged => "damaged",
        }
    }

    pub(super) fn code(self) -> i64 {
        self as i64
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As they came.
    pub headers: HeaderBlock,
    /// Its body; empty if it was longer than [`super::MAX_ANSWER_BYTES`].
    pub body: Bytes,
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub number: u32,
    pub fence: u64,
    /// When it began; for a lost one, when that was found.
    pub started_at: Timestamp,
    pub duration: Duration,
    pub outcome: Outcome,
    pub agent: Option<String>,
    pub answer: Option<Answer>,
    /// Its request was signed afresh.
    pub resigned: bool,
    /// SHA-256 of the request's body as it went to the handler, as the agent says.
    pub sha256_in: Option<[u8; 32]>,
    pub hops: Hops,
}

#[derive(Clone, Debug)]
pub struct Want {
    pub endpoint: EndpointName,
    /// At most so many, the longest due first.
    pub oldest: usize,
    /// And so many of those that came last, so that a long backlog does not hold up new traffic.
    pub newest: usize,
}

#[derive(Debug, Default)]
pub struct Claimed {
    pub deliveries: Vec<ClaimedEvent>,
    /// When each wanted endpoint has more to do, if it has: a time that has come means "ask again".
    pub next_due: Vec<(EndpointName, Timestamp)>,
}

#[derive(Debug)]
pub struct ClaimedEvent {
    pub summary: Summary,
    pub lease: Lease,
    pub head: Head,
    /// Its body, if it is at most [`super::INLINE_BYTES`]; else [`super::Store::body`] reads it.
    pub body: Option<Bytes>,
}

#[derive(Clone, Debug)]
pub struct Hold {
    pub endpoint: EndpointName,
    pub id: EventId,
    pub fence: u64,
}

/// An attempt that ended, and what is to become of its event.
#[derive(Clone, Debug)]
pub struct End {
    pub endpoint: EndpointName,
    pub id: EventId,
    /// What happened; its fence decides whether the event moves.
    pub attempt: Attempt,
    pub then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Done,
    Retry(Timestamp),
    Dead(Reason),
    /// The handler was not called: it waits until then, and the attempt neither counts nor leaves a record.
    Release(Timestamp),
    /// Nothing: the attempt is only recorded.
    Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Settled(State),
    /// The fence was not the newest, or nothing was to be settled: the attempt is recorded.
    Recorded,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub endpoint: EndpointName,
    pub id: EventId,
    pub received_at: Timestamp,
    pub state: State,
    /// Why it ended undelivered.
    pub reason: Option<Reason>,
    /// Attempts made or under way, over its life.
    pub attempts: u32,
    /// Attempts since it was accepted or revived.
    pub tries: u32,
    pub fence: u64,
    /// Pending: its next attempt; running: the end of the lease. `None` also while it stands behind another.
    pub due_at: Option<Timestamp>,
    /// Whether it waits behind an older event of its order key.
    pub parked: bool,
    pub status: Option<u16>,
    pub settled_at: Option<Timestamp>,
    pub method: String,
    /// The target, cut after 256 bytes.
    pub target: String,
    pub size: u64,
    pub body_sha256: [u8; 32],
    pub event_type: Option<String>,
    pub sender_id: Option<String>,
    pub order_key: Option<String>,
    /// An earlier event with the same dedup key and another body.
    pub conflict_with: Option<EventId>,
    pub replay_of: Option<EventId>,
    /// Whether it was delivered again because a person asked its sender to.
    pub redelivered: bool,
    /// Let pass although it did not prove its sender, or changed since by somebody.
    pub unproven: bool,
    /// How long the last attempt took that counts.
    pub took_us: Option<u64>,
    /// Who made the last attempt that counts, and whether its request was signed afresh.
    pub agent: Option<String>,
    pub resigned: bool,
    /// When its sender was answered, from its first byte.
    pub answered_us: Option<u32>,
}

impl Summary {
    /// A delivered one, for tests.
    #[cfg(test)]
    pub(crate) fn sample(endpoint: &str) -> Self {
        Self {
            endpoint: EndpointName::parse(endpoint).expect("a name"),
            id: EventId::new(),
            received_at: Timestamp::UNIX_EPOCH,
            state: State::Delivered,
            reason: None,
            attempts: 1,
            tries: 1,
            fence: 1,
            due_at: None,
            parked: false,
            status: Some(200),
            settled_at: None,
            method: "POST".to_owned(),
            target: "/".to_owned(),
            size: 2,
            body_sha256: [0; 32],
            event_type: None,
            sender_id: None,
            order_key: None,
            conflict_with: None,
            replay_of: None,
            redelivered: false,
            unproven: false,
            took_us: None,
            agent: None,
            resigned: false,
            answered_us: None,
        }
    }

    /// An event that is about to be kept, as far as it says so itself.
    pub(crate) fn of(event: &NewEvent) -> Self {
        Self {
            endpoint: event.endpoint.clone(),
            id: event.id,
            received_at: event.received_at,
            state: State::Pending,
            reason: None,
            attempts: 0,
            tries: 0,
            fence: 0,
            due_at: None,
            parked: false,
            status: None,
            settled_at: None,
            method: event.head.sent.method.clone(),
            target: super::rules::shown(&event.head.sent.target),
            size: event.body.size(),
            body_sha256: [0; 32],
            event_type: event.event_type.clone(),
            sender_id: event.sender_id.clone(),
            order_key: event.order_key.clone(),
            conflict_with: None,
            replay_of: event.replay_of,
            redelivered: false,
            unproven: event.head.arrival.is_unproven(),
            took_us: None,
            agent: None,
            resigned: false,
            answered_us: None,
        }
    }

    /// An attempt that counts has ended.
    pub(crate) fn attempted(&mut self, attempt: &Attempt) {
        if let Some(answer) = &attempt.answer {
            self.status = Some(answer.status);
        }
        self.took_us = Some(u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX >> 1));
        self.agent.clone_from(&attempt.agent);
        self.resigned = attempt.resigned;
        self.answered_us = self.answered_us.or(attempt.hops.at_us(Hop::Answered));
    }
}

#[derive(Clone, Debug)]
pub struct Record {
    pub summary: Summary,
    pub head: Head,
    pub attempts: Vec<Attempt>,
}

#[derive(Clone, Debug)]
pub struct Act {
    pub endpoint: EndpointName,
    pub id: EventId,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A dead or dropped one waits again, from the schedule's beginning.
    Revive,
    /// A dead one leaves the list of dead letters.
    Drop,
    /// An open one ends. The end of an attempt that runs is only recorded.
    Cancel,
    /// A pending one ends: whoever comes for it wants only what is new.
    Skip,
    /// A new event with this id and the same content waits for delivery, its signature treated like this.
    Replay(EventId, Signature),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    Done,
    Not(State),
    Unknown,
}

#[derive(Clone, Debug)]
pub enum Sight {
    All,
    Only(Vec<EndpointName>),
}

impl Sight {
    pub fn sees(&self, endpoint: &EndpointName) -> bool {
        match self {
            // The relay's own is nobody's to see.
            Self::All => !endpoint.is_relays_own(),
            Self::Only(seen) => seen.contains(endpoint),
        }
    }
}

impl From<EndpointName> for Sight {
    fn from(endpoint: EndpointName) -> Self {
        Self::Only(vec![endpoint])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    pub pending: u64,
    pub running: u64,
    pub dead: u64,
    /// When its claims were paused, if they are.
    pub paused_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub endpoint: EndpointName,
    pub paused: bool,
    /// Events that are pending or running.
    pub open: u64,
    pub oldest: Option<Timestamp>,
    pub next_due: Option<Timestamp>,
    /// When the newest of all its events came.
    pub newest: Option<Timestamp>,
}
