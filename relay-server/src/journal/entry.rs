//! What is kept of a live exchange: made on its way from what is at hand, complete once its answer has ended.
//!
//! A [`Draft`] goes with the webhook, and becomes a [`LiveEntry`] when the head of the answer is decided; once that has
//! ended it is [`super::packed`]. Invariants: what is to be hidden is hidden before it is kept; of a body no more than [`MAX_BODY_BYTES`] are copied; nothing is written
//! out as text.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use jiff::Timestamp;
use relay_proto::{HeaderBlock, RequestHead};
use relay_schemes::EventMeta;
use tokio::time::Instant;

use super::{
    Journal,
    tap::{BodyTap, Tapped},
};
use crate::{
    endpoint::{CaptureLevel, Endpoint},
    hops::{Hop, Way},
    verify::{Payload, Webhook},
    webhook::EventId,
};

/// The beginning of a body that is kept, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// What an entry takes beside its texts, in bytes.
const ENTRY_BYTES: usize = 640;

/// A live webhook on its way.
pub(crate) struct Draft {
    pub way: Way,
    id: EventId,
    at: Timestamp,
    client: IpAddr,
    event: EventMeta,
    agent: Option<Arc<str>>,
    sent: Option<SentHead>,
    body: SentBody,
}

/// What is kept of the head that left for the agent, with the relay's own lines.
struct SentHead {
    method: Bytes,
    target: Bytes,
    headers: HeaderBlock,
}

/// A body on its way to the handler.
#[derive(Default)]
pub(crate) enum SentBody {
    #[default]
    None,
    /// Its beginning, how long it is, and whether that is all that was to come.
    There {
        kept: Bytes,
        size: u64,
        has_ended: bool,
    },
    Coming(Arc<BodyTap>),
}

/// A live exchange.
pub(crate) struct LiveEntry {
    pub id: EventId,
    pub at: Timestamp,
    pub client: IpAddr,
    pub endpoint: Arc<Endpoint>,
    pub event: EventMeta,
    pub agent: Option<Arc<str>>,
    pub method: Bytes,
    /// What follows the endpoint.
    pub target: Bytes,
    /// As they left for the agent, with the relay's own lines.
    pub headers: HeaderBlock,
    pub request: SentBody,
    pub way: Way,
    pub answer: LiveAnswer,
    pub tail: OnceLock<Tail>,
}

pub(crate) enum LiveAnswer {
    Handler {
        status: u16,
        headers: HeaderBlock,
        /// Of the request's body as it went to the handler, as its agent says.
        sha256_in: Option<[u8; 32]>,
    },
    /// None, and what its sender got instead.
    Failed { code: &'static str, status: u16 },
}

/// How an answer ended, and what is kept of its body.
pub(crate) struct Tail {
    pub at: Instant,
    pub body: Bytes,
    /// Of the whole body.
    pub size: u64,
    /// It came to its end, and did not break off.
    pub is_whole: bool,
}

impl LiveAnswer {
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::Handler { status, .. } | Self::Failed { status, .. } => *status,
        }
    }
}

impl SentBody {
    pub(crate) fn of(payload: &Payload) -> Self {
        payload.seen().filter(|body| body.len > 0).map_or(Self::None, |body| Self::There {
            kept: beginning(&body.bytes),
            size: body.len,
            has_ended: true,
        })
    }

    /// How long it is, as far as it has come.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::There { size, .. } => *size,
            Self::Coming(tap) => tap.size(),
        }
    }

    fn kept(&self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::There { kept, .. } => kept.clone(),
            Self::Coming(tap) => tap.kept(),
        }
    }
}

/// The beginning of a body. A part is copied: a slice would keep the whole in memory.
fn beginning(body: &Bytes) -> Bytes {
    if body.len() <= MAX_BODY_BYTES { body.clone() } else { Bytes::copy_from_slice(&body[..MAX_BODY_BYTES]) }
}

impl Draft {
    pub(crate) fn new(webhook: &Webhook) -> Self {
        let received = webhook.received();
        Self {
            way: received.way,
            id: received.event_id,
            at: received.at,
            client: received.client,
            event: EventMeta::default(),
            agent: None,
            sent: None,
            body: SentBody::None,
        }
    }

    /// One as a sender's would be.
    #[cfg(test)]
    pub(crate) fn sample(event: EventMeta, headers: HeaderBlock, body: SentBody) -> Self {
        let sent = SentHead { method: "POST".into(), target: "/x?code=1".into(), headers };
        Self {
            way: Way::from(Instant::now()),
            id: EventId::new(),
            at: Timestamp::from_microsecond(1_790_000_000_123_456).unwrap_or_default(),
            client: IpAddr::from([203, 0, 113, 9]),
            event,
            agent: Some("laptop".into()),
            sent: Some(sent),
            body,
        }
    }

    pub(crate) fn opened(&mut self, agent: &Arc<str>, now: Instant) {
        self.agent = Some(Arc::clone(agent));
        self.way.pass(Hop::Opened, now);
    }

    /// What is sent, and a tap where it is still coming.
    pub(crate) fn sent(
        &mut self,
        journal: &Journal,
        endpoint: &Endpoint,
        head: &RequestHead,
        payload: &Payload,
    ) -> Option<Arc<BodyTap>> {
        self.sent =
            Some(SentHead { method: head.method.clone(), target: head.target.clone(), headers: head.headers.clone() });
        match payload {
            _ if endpoint.capture.level != CaptureLevel::Bodies => {}
            Payload::Streaming(_) => {
                let tap = Arc::new(BodyTap::new(journal.taps()));
                self.body = SentBody::Coming(Arc::clone(&tap));
                return Some(tap);
            }
            payload => self.body = SentBody::of(payload),
        }
        None
    }

    /// What it says of itself.
    pub(crate) fn describe(&mut self, event: EventMeta) {
        self.event = event;
    }

    pub(super) fn finish(self, endpoint: &Arc<Endpoint>, mut answer: LiveAnswer) -> Option<LiveEntry> {
        let Self { way, id, at, client, event, agent, sent, body } = self;
        let (SentHead { method, target, headers }, blinds) = (sent?, &endpoint.capture.blinds);
        let headers = blinds.request_lines(&headers);
        let target = blinds.target(&endpoint.verify, &target);
        let request = match body {
            SentBody::There { kept, size, has_ended } => {
                let kept = blinds.body(&endpoint.verify, &kept, has_ended && kept.len() as u64 == size);
                SentBody::There { kept, size, has_ended }
            }
            other => other,
        };
        if let LiveAnswer::Handler { headers, sha256_in, .. } = &mut answer {
            *headers = blinds.lines(headers);
            // Of a body that is not shown, or not all of it, its checksum could tell what it was.
            if endpoint.capture.level != CaptureLevel::Bodies || blinds.touches_bodies() {
                *sha256_in = None;
            }
        }
        let (endpoint, tail) = (Arc::clone(endpoint), OnceLock::new());
        Some(LiveEntry { id, at, client, endpoint, event, agent, method, target, headers, request, way, answer, tail })
    }
}

impl LiveEntry {
    /// What it takes of the journal's memory, bodies apart that are still coming.
    pub(super) fn bytes(&self) -> usize {
        let answer = match &self.answer {
            LiveAnswer::Handler { headers, .. } => headers.as_bytes().len(),
            LiveAnswer::Failed { .. } => 0,
        };
        let body = if let SentBody::There { kept, .. } = &self.request { kept.len() } else { 0 };
        let names = [&self.event.id, &self.event.kind].into_iter().flatten().map(String::len).sum::<usize>();
        ENTRY_BYTES + self.headers.as_bytes().len() + self.target.len() + names + answer + body
    }

    pub(crate) const fn status(&self) -> u16 {
        self.answer.status()
    }

    /// Its answer has ended, after so many bytes, of which these are the first; false if it had ended before.
    pub(super) fn end(&self, kept: &Bytes, size: u64, is_whole: bool, now: Instant) -> bool {
        let has_all = is_whole && kept.len() as u64 == size;
        let body = match self.endpoint.capture.level {
            CaptureLevel::Bodies => self.endpoint.capture.blinds.body(&self.endpoint.verify, kept, has_all),
            _ => Bytes::new(),
        };
        if let SentBody::Coming(tap) = &self.request {
            tap.close();
        }
        self.tail.set(Tail { at: now, body, size, is_whole }).is_ok()
    }

    /// The beginning of the request's body, as it is shown.
    pub(crate) fn body(&self) -> Bytes {
        let kept = self.request.kept();
        match &self.request {
            // It was not looked through before it was kept, since it was not there.
            SentBody::Coming(tap) => {
                let is_whole = tap.is_whole() && kept.len() as u64 == tap.size();
                self.endpoint.capture.blinds.body(&self.endpoint.verify, &kept, is_whole)
            }
            _ => kept,
        }
    }

    /// The request's body as it is shown, where all of it is there.
    pub(crate) fn whole_body(&self) -> Option<Bytes> {
        self.has_whole_body().then(|| self.body())
    }

    pub(super) fn has_whole_body(&self) -> bool {
        match &self.request {
            SentBody::None => self.endpoint.capture.level == CaptureLevel::Bodies,
            SentBody::There { kept, size, has_ended } => *has_ended && kept.len() as u64 == *size,
            SentBody::Coming(tap) => tap.is_whole() && tap.kept().len() as u64 == tap.size(),
        }
    }

    /// The beginning of the answer's body, once it has ended.
    pub(crate) fn answer_body(&self) -> Bytes {
        self.tail.get().map(|tail| tail.body.clone()).unwrap_or_default()
    }
}

/// Watches an answer on its way to its sender.
pub(crate) struct AnswerTap {
    journal: Arc<Journal>,
    entry: Arc<LiveEntry>,
    number: u64,
    held: Tapped,
    size: u64,
    is_whole: bool,
}

impl AnswerTap {
    pub(super) fn new(journal: Arc<Journal>, entry: Arc<LiveEntry>, number: u64) -> Self {
        let held = Tapped::new(journal.taps());
        Self { journal, entry, number, held, size: 0, is_whole: false }
    }

    pub(crate) fn data(&mut self, data: &Bytes) {
        self.size += data.len() as u64;
        if self.entry.endpoint.capture.level == CaptureLevel::Bodies {
            self.held.take(data);
        }
    }

    /// The answer has come to its end.
    pub(crate) fn ended(&mut self) {
        self.is_whole = true;
    }
}

impl Drop for AnswerTap {
    fn drop(&mut self) {
        let (kept, now) = (self.held.give_up(), Instant::now());
        if self.entry.end(&kept, self.size, self.is_whole, now) {
            self.journal.ended(&self.entry, self.number, now);
        }
    }
}
