//! What a webhook's way looked like, as spans for an OpenTelemetry collector.
//!
//! A span is made of moments that were noted anyway ([`crate::hops`]), once its part of the way is over: nothing is
//! opened, entered or closed while a webhook is on its way, and a relay without a collector does nothing here. Ids follow
//! from the event ([`crate::trace`]), so that an attempt of tomorrow finds the trace of today.
//!
//! ```text
//! webhook (server) ─┬─ verify
//!                   ├─ store
//!                   └─ attempt ── tunnel ── handler (client) ── the handler's own spans
//! ```
//!
//! Invariants: whoever makes spans never waits; spans that the queue has no room for are counted and gone; nothing in a
//! span is a secret or of a body, nor a path or an address.

mod export;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

pub(crate) use self::export::{ExportSettings, export};
use self::wire::{KeyValue, SpanMessage, SpanStatus};
use crate::{
    clock::wall,
    hops::{Hop, Hops, Way},
    metrics::Metrics,
    trace::{Sampling, SpanId, SpanPart, TraceContext},
    webhook::EventId,
};

/// Spans that wait for the collector. One takes about half a KiB.
pub(crate) const MAX_WAITING: usize = 4096;

const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// The code of a status that is an error.
const ERROR: i32 = 2;

/// What became of the spans.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    pub exported: AtomicU64,
    /// There was no room for them, or the collector did not take them.
    pub dropped: AtomicU64,
}

impl SpanCounts {
    /// Those that the collector took, and those that it did not.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

/// Makes spans, and hands them to the exporter.
pub(crate) struct Tracer {
    pub(crate) sampling: Sampling,
    pub(crate) counts: Arc<SpanCounts>,
    queue: mpsc::Sender<SpanMessage>,
    /// Says how endpoints are shown whose names are secrets.
    metrics: Arc<Metrics>,
}

/// A request whose answer is decided.
pub(crate) struct SeenRequest<'a> {
    pub id: EventId,
    pub context: TraceContext,
    pub endpoint: &'a str,
    pub method: &'a str,
    pub status: u16,
    /// What became of it, as it is counted.
    pub outcome: &'static str,
    /// How long that took.
    pub after: Duration,
}

/// An attempt that has ended.
pub(crate) struct SeenAttempt<'a> {
    pub id: EventId,
    /// The request that brought the event: for a replay, the first one.
    pub origin: EventId,
    /// What it brought, or began.
    pub context: &'a str,
    pub endpoint: &'a str,
    pub number: u32,
    pub agent: Option<&'a str>,
    pub way: &'a Way,
    /// What the agent measured.
    pub handler_us: Option<u32>,
    pub status: Option<u16>,
    /// The code of its outcome.
    pub outcome: &'a str,
}

/// From when to when, in microseconds of a way.
type Span = (u32, u32);

impl Tracer {
    /// And the spans that it makes, for [`export`].
    pub(crate) fn new(sampling: Sampling, metrics: Arc<Metrics>) -> (Arc<Self>, SpanQueue) {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let counts = Arc::<SpanCounts>::default();
        let tracer = Self { sampling, counts: Arc::clone(&counts), queue, metrics };
        (Arc::new(tracer), SpanQueue { waiting, counts })
    }

    /// The span of a request from its first byte to the head of its answer.
    pub(crate) fn request(&self, seen: &SeenRequest<'_>) {
        let SeenRequest { id, context, endpoint, method, status, outcome, after } = *seen;
        if !self.sampling.takes(&context.trace_id) {
            return;
        }
        let own = SpanPart::Webhook.of(id);
        let end_ns = now_ns();
        let mut attributes = self.attributes(endpoint, id);
        attributes.extend([
            KeyValue::text("http.request.method", method),
            KeyValue::number("http.response.status_code", status),
            KeyValue::text("relay.outcome", outcome),
        ]);
        let failed = (status >= 500).then(|| outcome.to_owned());
        self.put(SpanMessage {
            trace_id: context.trace_id.to_vec(),
            span_id: own.to_vec(),
            // A trace that began here begins with this very span.
            parent_span_id: if context.span_id == own { Vec::new() } else { context.span_id.to_vec() },
            name: "webhook".to_owned(),
            kind: SERVER,
            start_time_unix_nano: end_ns.saturating_sub(nanos(after)),
            end_time_unix_nano: end_ns,
            attributes,
            status: failed.map(|message| SpanStatus { message, code: ERROR }),
        });
    }

    /// The spans of an attempt; and those between a request's head and its first attempt, where this is that.
    pub(crate) fn attempt(&self, seen: &SeenAttempt<'_>) {
        let Some(context) = TraceContext::parse(seen.context.as_bytes()) else { return };
        if !self.sampling.takes(&context.trace_id) {
            return;
        }
        let SeenAttempt { id, origin, number, way, .. } = *seen;
        let hops = &way.hops;
        let begun_ns = now_ns().saturating_sub(nanos(way.from.elapsed()));
        let span = |name: &str, part: SpanPart, of: EventId, parent: SpanId, (from, to): Span| SpanMessage {
            trace_id: context.trace_id.to_vec(),
            span_id: part.of(of).to_vec(),
            parent_span_id: parent.to_vec(),
            name: name.to_owned(),
            kind: INTERNAL,
            start_time_unix_nano: begun_ns + u64::from(from) * 1000,
            end_time_unix_nano: begun_ns + u64::from(to.max(from)) * 1000,
            attributes: self.attributes(seen.endpoint, of),
            status: None,
        };
        let webhook = SpanPart::Webhook.of(origin);
        for (name, part, between) in
            [("verify", SpanPart::Verify, verified(hops)), ("store", SpanPart::Store, stored(hops))]
        {
            if let Some(between) = between {
                self.put(span(name, part, origin, webhook, between));
            }
        }
        let Some(attempt) = attempted(hops, way) else { return };
        let failed = || {
            let is_well = seen.status.is_some_and(|status| status < 500);
            (!is_well).then(|| SpanStatus { message: seen.outcome.to_owned(), code: ERROR })
        };
        let mut about = vec![KeyValue::number("relay.attempt", number), KeyValue::text("relay.outcome", seen.outcome)];
        about.extend(seen.agent.map(|agent| KeyValue::text("relay.agent", agent)));
        about.extend(seen.status.map(|status| KeyValue::number("http.response.status_code", status)));
        let with = |mut span: SpanMessage| {
            span.attributes.extend(about.iter().cloned());
            span.status = failed();
            span
        };
        self.put(with(span("attempt", SpanPart::Attempt(number), id, webhook, attempt)));
        let Some(opened) = hops.at_us(Hop::Opened) else { return };
        let (tunnel, ended) = (SpanPart::Tunnel(number), attempt.1);
        self.put(with(span("tunnel", tunnel, id, SpanPart::Attempt(number).of(id), (opened, ended))));
        let head_at = hops.at_us(Hop::AnswerHead).unwrap_or(ended);
        let called = called((opened, head_at), seen.handler_us);
        self.put(SpanMessage {
            kind: CLIENT,
            ..with(span("handler", SpanPart::Handler(number), id, tunnel.of(id), called))
        });
    }

    fn attributes(&self, endpoint: &str, event: EventId) -> Vec<KeyValue> {
        vec![
            KeyValue::text("relay.endpoint", self.metrics.shown(endpoint)),
            KeyValue::text("relay.event_id", event.to_string()),
        ]
    }

    fn put(&self, span: SpanMessage) {
        if self.queue.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Spans on their way to the exporter.
pub(crate) struct SpanQueue {
    waiting: mpsc::Receiver<SpanMessage>,
    counts: Arc<SpanCounts>,
}

/// From the last byte that its proof needs to the proof.
fn verified(hops: &Hops) -> Option<Span> {
    let received = hops.at_us(Hop::Received)?;
    Some((hops.at_us(Hop::Body).unwrap_or(received), hops.at_us(Hop::Verified)?))
}

fn stored(hops: &Hops) -> Option<Span> {
    Some((hops.at_us(Hop::Verified)?, hops.at_us(Hop::Stored)?))
}

fn attempted(hops: &Hops, way: &Way) -> Option<Span> {
    let ended = hops.at_us(Hop::Ended).or(hops.at_us(Hop::AnswerHead));
    let now = || u32::try_from(way.from.elapsed().as_micros()).unwrap_or(u32::MAX);
    Some((hops.at_us(Hop::Attempt)?, ended.unwrap_or_else(now)))
}

/// When the handler was called: the agent says for how long, and the way there takes as long as the way back.
fn called((opened, head_at): Span, handler_us: Option<u32>) -> Span {
    let between = head_at.saturating_sub(opened);
    let on_the_way = handler_us.map_or(0, |handler_us| between.saturating_sub(handler_us) / 2);
    (opened.saturating_add(on_the_way), head_at.saturating_sub(on_the_way))
}

fn now_ns() -> u64 {
    u64::try_from(wall().as_nanosecond()).unwrap_or(0)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tokio::time::Instant;

    use super::*;

    const BROUGHT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tracer(part: f64) -> (Arc<Tracer>, SpanQueue) {
        let metrics = Arc::<Metrics>::default();
        metrics.conceal("github", false);
        Tracer::new(Sampling::new(part), metrics)
    }

    fn way(hops: &[(Hop, u64)]) -> Way {
        let mut way = Way::from(Instant::now());
        hops.iter().for_each(|(hop, us)| way.hops.note(*hop, Duration::from_micros(*us)));
        way
    }

    fn seen<'a>(id: EventId, way: &'a Way) -> SeenAttempt<'a> {
        SeenAttempt {
            id,
            origin: id,
            context: BROUGHT,
            endpoint: "github",
            number: 1,
            agent: Some("laptop"),
            way,
            handler_us: Some(400),
            status: Some(200),
            outcome: "answered",
        }
    }

    fn taken(queue: &mut SpanQueue) -> Vec<SpanMessage> {
        std::iter::from_fn(|| queue.waiting.try_recv().ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_a_chain_of_spans_down_to_its_handler() {
        let (tracer, mut queue) = tracer(1.0);
        let id = EventId::new();
        let hops = [
            (Hop::Received, 10),
            (Hop::Body, 20),
            (Hop::Verified, 50),
            (Hop::Stored, 900),
            (Hop::Attempt, 950),
            (Hop::Opened, 1000),
            (Hop::AnswerHead, 1600),
            (Hop::Ended, 1700),
        ];
        tracer.attempt(&seen(id, &way(&hops)));
        let spans = taken(&mut queue);
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["verify", "store", "attempt", "tunnel", "handler"]);
        let length = |at: usize| (spans[at].end_time_unix_nano - spans[at].start_time_unix_nano) / 1000;
        assert_eq!((length(0), length(1), length(2), length(3), length(4)), (30, 850, 750, 700, 400));
        assert_eq!(spans[4].start_time_unix_nano - spans[3].start_time_unix_nano, 100_000, "half of the way");
        let webhook = SpanPart::Webhook.of(id).to_vec();
        assert!(spans[..3].iter().all(|span| span.parent_span_id == webhook));
        assert_eq!(spans[3].parent_span_id, spans[2].span_id);
        assert_eq!(spans[4].parent_span_id, spans[3].span_id);
        let told = tracer.sampling.passed_on(BROUGHT, id, 1).expect("recorded");
        assert_eq!(
            TraceContext::parse(told.as_bytes()).map(|told| told.span_id.to_vec()),
            Some(spans[4].span_id.clone())
        );
        assert!(spans.iter().all(|span| span.trace_id[..2] == [0x4b, 0xf9] && span.status.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_goes_on_with_what_it_brought_or_begins_a_trace() {
        let (tracer, mut queue) = tracer(1.0);
        let id = EventId::new();
        let brought = TraceContext::parse(BROUGHT.as_bytes()).expect("valid");
        for context in [brought, TraceContext::begin(id)] {
            let (endpoint, method, after) = ("github", "POST", Duration::from_millis(3));
            tracer.request(&SeenRequest { id, context, endpoint, method, status: 503, outcome: "unavailable", after });
        }
        let spans = taken(&mut queue);
        assert_eq!(spans[0].parent_span_id, brought.span_id);
        assert!(spans[1].parent_span_id.is_empty() && spans[1].trace_id == id.as_bytes());
        assert!(
            spans.iter().all(|span| span.kind == SERVER && span.status.as_ref().is_some_and(|it| it.code == ERROR))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_sampled_makes_no_span_and_what_has_no_room_is_counted() {
        let (none, mut queue) = tracer(0.0);
        let (id, way) = (EventId::new(), way(&[(Hop::Attempt, 0), (Hop::Ended, 5)]));
        none.attempt(&seen(id, &way));
        assert!(taken(&mut queue).is_empty());
        let (all, mut queue) = tracer(1.0);
        for _ in 0..MAX_WAITING + 3 {
            all.attempt(&seen(id, &way));
        }
        assert_eq!((taken(&mut queue).len(), all.counts.dropped.load(Ordering::Relaxed)), (MAX_WAITING, 3));
    }

    #[test]
    fn a_span_reads_as_the_protocol_has_it() {
        // What opentelemetry-proto 1.45.2 for Python writes of the same span.
        let official = include_str!("spans/official.hex").trim();
        let span = SpanMessage {
            trace_id: (0..16).collect(),
            span_id: (16..24).collect(),
            parent_span_id: (24..32).collect(),
            name: "webhook".to_owned(),
            kind: SERVER,
            start_time_unix_nano: 1_700_000_000_000_000_001,
            end_time_unix_nano: 1_700_000_000_000_000_777,
            attributes: vec![KeyValue::text("relay.endpoint", "github"), KeyValue::number("relay.attempt", 300)],
            status: Some(SpanStatus { message: "failed".to_owned(), code: ERROR }),
        };
        let request = export::request(&[("service.name".to_owned(), "relay".to_owned())], "1.2.3", vec![span]);
        assert_eq!(data_encoding::HEXLOWER.encode(&request.encode_to_vec()), official.replace('\n', ""));
    }
}
