//! What the relay counts, as OpenMetrics text or in the text format that came before it.
//!
//! Labels are an endpoint's name and a class of outcome: names come from the config, so their number is bounded
//! whatever senders ask for. Counting costs some atomic additions for each webhook; gauges are read when somebody
//! asks. Nothing here decides anything. A name that is its endpoint's secret, or was, is shown as a digest.

mod form;
mod latencies;

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    hash::{Hash, Hasher},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};
use relay_proto::CANARY_ENDPOINT;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use self::latencies::Latencies;
pub(crate) use self::{
    form::Form,
    latencies::{LATENCIES, MeterSample, latency_bounds_us},
};
use crate::{quota::TokenFigures, store::Usage};

/// How a request ended, as far as counting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerClass {
    /// The handler answered, and how: 1 to 5 for 1xx to 5xx.
    Answered(u16),
    /// It was an unchanged repeat of one that had been answered.
    Repeated,
    /// It is kept, and its sender got the ack.
    Acknowledged,
    /// It was a provider's challenge, answered by the relay itself.
    Challenge,
    /// Nothing proved it, or it came from an address that may not send.
    Refused,
    /// The request was not one that can be carried.
    Rejected,
    /// No agent was there, or none was free.
    Unavailable,
    /// The handler was called and gave no answer in time, or none that can be passed on.
    Failed,
    Internal,
}

impl AnswerClass {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Answered(1), "1xx"),
        (Self::Answered(2), "2xx"),
        (Self::Answered(3), "3xx"),
        (Self::Answered(4), "4xx"),
        (Self::Answered(5), "5xx"),
        (Self::Repeated, "repeated"),
        (Self::Acknowledged, "acknowledged"),
        (Self::Challenge, "challenge"),
        (Self::Refused, "refused"),
        (Self::Rejected, "rejected"),
        (Self::Unavailable, "unavailable"),
        (Self::Failed, "failed"),
        (Self::Internal, "internal"),
    ];

    /// As it is counted.
    pub(crate) fn word(self) -> &'static str {
        Self::ALL[self.index()].1
    }

    /// A handler's status from 600 on counts as its failure.
    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|(class, _)| *class == self).unwrap_or(4)
    }
}

/// Names that are shown as they are. Any other may be a secret: of an endpoint that is no more, its events may still wait.
#[derive(Clone, Debug, Default)]
struct Plain(Arc<Mutex<HashSet<String>>>);

impl Plain {
    fn set(&self, name: &str, concealed: bool) {
        let mut names = self.0.lock();
        if concealed {
            names.remove(name);
        } else {
            names.insert(name.to_owned());
        }
    }

    fn label(&self, name: &str) -> Label {
        Label { name: name.to_owned(), plain: self.clone() }
    }

    fn shown(&self, name: &str) -> String {
        let names = self.0.lock();
        if names.contains(name) {
            return name.to_owned();
        }
        // Long enough that two do not meet, and nothing that leads back to a name that cannot be guessed anyway.
        let digest = Sha256::digest(name.as_bytes());
        format!("unproven-{}", HEXLOWER.encode(&digest[..6]))
    }
}

/// An endpoint's name as a label. What is shown of it is decided when somebody asks.
#[derive(Clone, Debug)]
struct Label {
    name: String,
    plain: Plain,
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(&self.plain.shown(&self.name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEndpoint {
    endpoint: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    endpoint: Label,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfToken {
    token: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQuota {
    token: String,
    quota: &'static str,
}

/// An endpoint's counters. By default they stand in no list.
#[derive(Debug)]
pub(crate) struct Meter {
    label: Label,
    received: Counter,
    outcomes: [Counter; 13],
    seconds: Histogram,
    patience: Histogram,
    latencies: Latencies,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            label: Plain::default().label(""),
            received: Counter::default(),
            outcomes: std::array::from_fn(|_| Counter::default()),
            seconds: seconds(),
            patience: parts(),
            latencies: Latencies::default(),
        }
    }
}

impl Meter {
    /// Its endpoint's name as it is shown.
    pub(crate) fn shown(&self) -> String {
        self.label.plain.shown(&self.label.name)
    }

    pub(crate) fn received(&self) {
        self.received.inc();
    }

    /// One more answer, of whose sender's deadline this was the whole.
    pub(crate) fn answered(&self, outcome: AnswerClass, after: Duration, deadline: Duration) {
        self.outcomes[outcome.index()].inc();
        let seconds = after.as_secs_f64();
        self.seconds.observe(seconds);
        let patience = seconds / deadline.as_secs_f64().max(f64::MIN_POSITIVE);
        self.patience.observe(patience);
        self.latencies.count(after, patience);
    }
}

/// The outcome of an event that became a dead letter.
const DEAD: &str = "dead";

#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    counted: Family<OfOutcome, Counter>,
    plain: Plain,
    /// Dead letters by endpoint; those that nobody took in time under an empty name.
    dead: Arc<Mutex<HashMap<String, u64>>>,
}

impl Events {
    /// One more event was stored, or stands otherwise than before.
    pub(crate) fn count(&self, endpoint: &str, outcome: &'static str) {
        if endpoint == CANARY_ENDPOINT {
            return; // It is nobody's.
        }
        self.counted.get_or_create(&OfOutcome { endpoint: self.plain.label(endpoint), outcome }).inc();
        if outcome == DEAD {
            self.died(endpoint, 1);
        }
    }

    /// So many more events are dead letters.
    pub(crate) fn died(&self, endpoint: &str, count: u64) {
        *self.dead.lock().entry(endpoint.to_owned()).or_default() += count;
    }

    /// Dead letters since the start, by endpoint; those that nobody took in time under an empty name.
    pub(crate) fn dead(&self) -> Vec<(String, u64)> {
        self.dead.lock().iter().map(|(endpoint, count)| (endpoint.clone(), *count)).collect()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct EndpointBacklog {
    pub endpoint: String,
    pub open: u64,
    pub oldest_s: i64,
    /// Whether one is long due although an agent is free.
    pub overdue: bool,
}

/// What is read when somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    pub sessions: usize,
    /// Exchanges under way, copies apart.
    pub exchanges: usize,
    /// Public connections, agents' apart.
    pub connections: usize,
    /// Bytes of heads and collected bodies in memory.
    pub body_bytes: usize,
    /// What long bodies take in files while they come.
    pub coming_bytes: u64,
    /// Copies that slow agents did not get.
    pub dropped_copies: u64,
    /// Refused requests that were gone before they were written into the store.
    pub unwritten_refusals: u64,
    /// Live requests that the journal gave up for others before their hour was over.
    pub journal_dropped: u64,
    /// Rows that were left out of streams.
    pub left_out: u64,
    pub waiting: Vec<EndpointBacklog>,
    pub store: Usage,
    pub certificates: Vec<CertificateExpiry>,
    /// Rows of the audit log that found no place.
    pub audit_lost: u64,
    pub tokens: Vec<TokenFigures>,
    /// How far the relay's clock is ahead of the machine's.
    pub clock_ahead: Duration,
    /// Spans that went to the collector, and that did not.
    pub spans: (u64, u64),
    /// Lines that the access log lost.
    pub access_dropped: u64,
    /// Alerts that hold, by cause.
    pub alerts: Vec<(&'static str, usize)>,
    /// Alerts that were posted, and that were not.
    pub alerts_posted: (u64, u64),
    pub canaries: CanaryFigures,
}

/// What canaries found out.
#[derive(Clone, Debug, Default)]
pub(crate) struct CanaryFigures {
    pub answered: u64,
    pub failed: u64,
    /// The last round for each agent that answers them.
    pub agents: Vec<CanaryFigure>,
}

#[derive(Clone, Debug)]
pub(crate) struct CanaryFigure {
    pub token: String,
    pub agent: String,
    /// How long the last one took that came back, and how long ago that was.
    pub latency: Option<Duration>,
    pub silence: Option<Duration>,
}

/// A certificate that the public side serves.
#[derive(Clone, Debug)]
pub(crate) struct CertificateExpiry {
    /// The first of its names.
    pub name: String,
    /// Where it comes from.
    pub source: &'static str,
    /// In seconds since 1970.
    pub not_after_s: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCertificate {
    name: String,
    source: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    received: Family<OfEndpoint, Counter>,
    outcomes: Family<OfOutcome, Counter>,
    seconds: Family<OfEndpoint, Histogram, fn() -> Histogram>,
    patience: Family<OfEndpoint, Histogram, fn() -> Histogram>,
    meters: Mutex<HashMap<String, Arc<Meter>>>,
    events: Events,
    /// Requests to no endpoint.
    pub(crate) unrouted: Counter,
    /// Requests that were signed rightly and dated in the future.
    pub(crate) future_dated: Counter,
    runtimes: Mutex<Vec<Handle>>,
}

/// Upper bounds in seconds: from a local handler's millisecond to the longest deadlines.
fn seconds() -> Histogram {
    Histogram::new([0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

/// Upper bounds as parts of a sender's deadline; beyond all of it the sender may have gone.
fn parts() -> Histogram {
    Histogram::new([0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            received: Family::default(),
            outcomes: Family::default(),
            seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            patience: Family::new_with_constructor(parts as fn() -> Histogram),
            meters: Mutex::default(),
            events: Events::default(),
            unrouted: Counter::default(),
            future_dated: Counter::default(),
            runtimes: Mutex::default(),
        }
    }
}

impl Metrics {
    /// The counters of an endpoint; the same ones for the same name.
    pub(crate) fn meter(&self, endpoint: &str) -> Arc<Meter> {
        let mut meters = self.meters.lock();
        let new = || {
            let label = || self.events.plain.label(endpoint);
            let name = OfEndpoint { endpoint: label() };
            let of = |outcome| OfOutcome { endpoint: label(), outcome };
            Arc::new(Meter {
                label: label(),
                received: self.received.get_or_create_owned(&name),
                outcomes: AnswerClass::ALL.map(|(_, outcome)| self.outcomes.get_or_create_owned(&of(outcome))),
                seconds: self.seconds.get_or_create_owned(&name),
                patience: self.patience.get_or_create_owned(&name),
                latencies: Latencies::default(),
            })
        };
        Arc::clone(meters.entry(endpoint.to_owned()).or_insert_with(new))
    }

    /// What was counted until now, by endpoint.
    pub(crate) fn samples(&self) -> Vec<(String, MeterSample)> {
        let meters = self.meters.lock();
        let sample = |meter: &Meter| MeterSample {
            received: meter.received.get(),
            outcomes: std::array::from_fn(|at| meter.outcomes[at].get()),
            latencies: meter.latencies.counts(),
            patience: meter.latencies.take_patience(),
        };
        meters.iter().map(|(name, meter)| (name.clone(), sample(meter))).collect()
    }

    /// Says whether an endpoint's name is its secret, which nobody is told who asks for numbers.
    pub fn conceal(&self, endpoint: &str, concealed: bool) {
        self.events.plain.set(endpoint, concealed);
    }

    /// What stands for an endpoint's name here.
    pub fn shown(&self, endpoint: &str) -> String {
        self.events.plain.shown(endpoint)
    }

    pub(crate) fn events(&self) -> Events {
        self.events.clone()
    }

    pub(crate) fn watch(&self, runtime: Handle) {
        self.runtimes.lock().push(runtime);
    }

    pub(crate) fn text(&self, now: &Gauges, form: Form) -> String {
        let mut registry = Registry::with_prefix("relay");
        registry.register("build", "This relay", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("webhooks_received", "Requests to an endpoint", self.received.clone());
        registry.register("webhooks_answered", "Answers to senders, by what became of it", self.outcomes.clone());
        let help = "From a request's head to the head of its answer";
        registry.register_with_unit("webhook_duration", help, Unit::Seconds, self.seconds.clone());
        let help = "Part of the endpoint's deadline that was over when its sender got an answer";
        registry.register("webhook_patience_ratio", help, self.patience.clone());
        registry.register("events", "Kept events, by what became of them", self.events.counted.clone());
        registry.register("requests_unrouted", "Requests to no endpoint", self.unrouted.clone());
        registry.register("agent_sessions", "Attached sessions", ConstGauge::new(now.sessions));
        registry.register("exchanges_in_flight", "Exchanges under way", ConstGauge::new(now.exchanges));
        registry.register("public_connections", "Connections of senders", ConstGauge::new(now.connections));
        let help = "Heads and collected bodies in memory";
        registry.register("bodies_collected_bytes", help, ConstGauge::new(now.body_bytes));
        let help = "Room that long bodies take in files while they come";
        registry.register("bodies_coming_bytes", help, ConstGauge::new(now.coming_bytes));
        let help = "Copies that slow agents did not get";
        registry.register("copies_dropped", help, ConstCounter::new(now.dropped_copies));
        let help = "Refused requests that were gone before they were written into the store";
        registry.register("refused_unwritten", help, ConstCounter::new(now.unwritten_refusals));
        let help = "Records of the journal that gave way to others before their hour was over";
        registry.register("journal_dropped", help, ConstCounter::new(now.journal_dropped));
        let help = "Rows that were left out of streams, since there were too many at a time";
        registry.register("watchers_left_out", help, ConstCounter::new(now.left_out));
        let help = "Requests that were signed rightly and dated in the future";
        registry.register("requests_future_dated", help, self.future_dated.clone());
        let runtimes = self.runtimes.lock();
        let tasks: usize = runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        registry.register("tasks", "Tasks of every runtime", ConstGauge::new(tasks));
        self.register_backlog(&mut registry, &now.waiting);
        let help = "Rows that the audit log lost, since too many came at a time; anything but 0 is an alarm";
        registry.register("audit_lost", help, ConstCounter::new(now.audit_lost));
        register_store(&mut registry, &now.store);
        register_certificates(&mut registry, &now.certificates);
        register_tokens(&mut registry, &now.tokens);
        register_observers(&mut registry, now);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        form.of(text)
    }

    fn register_backlog(&self, registry: &mut Registry, waiting: &[EndpointBacklog]) {
        let (open, oldest) = (Family::<_, Gauge>::default(), Family::<_, Gauge>::default());
        for backlog in waiting {
            let endpoint = OfEndpoint { endpoint: self.events.plain.label(&backlog.endpoint) };
            open.get_or_create(&endpoint).set(i64::try_from(backlog.open).unwrap_or(i64::MAX));
            oldest.get_or_create(&endpoint).set(backlog.oldest_s);
        }
        registry.register("events_waiting", "Kept events that wait or are under way", open);
        let help = "How long the oldest of them has waited";
        registry.register_with_unit("events_oldest", help, Unit::Seconds, oldest);
        let help = "Endpoints with an event that is long due although an agent is free; anything but 0 is an alarm";
        let overdue = waiting.iter().filter(|backlog| backlog.overdue).count();
        registry.register("events_overdue", help, ConstGauge::new(overdue));
    }
}

/// Of two with the same name, the one that ends first is shown.
fn register_certificates(registry: &mut Registry, certificates: &[CertificateExpiry]) {
    let expiry = Family::<_, Gauge>::default();
    for CertificateExpiry { name, source, not_after_s } in certificates {
        let gauge = expiry.get_or_create_owned(&OfCertificate { name: name.clone(), source });
        let before = gauge.get();
        gauge.set(if before == 0 { *not_after_s } else { before.min(*not_after_s) });
    }
    let help = "When a certificate of the public side expires, in seconds since 1970";
    registry.register_with_unit("certificate_expiry_timestamp", help, Unit::Seconds, expiry);
}

/// Tokens are few, and named by whoever runs the relay.
fn register_tokens(registry: &mut Registry, tokens: &[TokenFigures]) {
    let (endpoints, sessions) = (Family::<_, Gauge>::default(), Family::<_, Gauge>::default());
    let (stored, today) = (Family::<_, Gauge>::default(), Family::<_, Gauge>::default());
    let over = Family::<_, Counter>::default();
    for figures in tokens {
        let token = || OfToken { token: figures.name.to_string() };
        let gauge = |family: &Family<OfToken, Gauge>, number: u64| {
            family.get_or_create(&token()).set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        gauge(&endpoints, figures.endpoints as u64);
        gauge(&sessions, figures.sessions as u64);
        gauge(&stored, figures.stored_bytes);
        gauge(&today, figures.events_today);
        for (quota, count) in [("events", figures.over_events), ("stored", figures.over_stored)] {
            over.get_or_create(&OfQuota { token: figures.name.to_string(), quota }).inc_by(count);
        }
    }
    registry.register("token_endpoints", "Endpoints that are a token's own", endpoints);
    registry.register("token_sessions", "Sessions of a token's agents", sessions);
    let help = "What the events of a token's own endpoints take in the store";
    registry.register_with_unit("token_stored", help, Unit::Bytes, stored);
    registry.register("token_webhooks_today", "Webhooks of a token's own endpoints today, in UTC", today);
    registry.register("token_over_quota", "Webhooks that found a token's quota used up", over);
}

fn register_store(registry: &mut Registry, store: &Usage) {
    registry.register_with_unit("store_size", "The store's size", Unit::Bytes, ConstGauge::new(store.bytes));
    let help = "The size at which what has ended gives way";
    registry.register_with_unit("store_max_size", help, Unit::Bytes, ConstGauge::new(store.max_bytes));
    let help = "What events take of it that wait";
    registry.register_with_unit("store_waiting", help, Unit::Bytes, ConstGauge::new(store.waiting_bytes));
    let help = "Events that are not what was taken in; anything but 0 is an alarm";
    registry.register("store_damaged", help, ConstGauge::new(store.damaged));
    registry.register("store_commits", "The store's transactions", ConstCounter::new(store.commits));
    registry.register("store_calls", "Calls in the store's transactions", ConstCounter::new(store.calls));
    let seconds = Duration::from_micros(store.commit_micros).as_secs_f64();
    let help = "Time that the store's transactions took";
    registry.register_with_unit("store_commit", help, Unit::Seconds, ConstCounter::new(seconds));
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCanary {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAgent {
    token: String,
    agent: String,
}

/// Those who look at the relay from outside.
fn register_observers(registry: &mut Registry, now: &Gauges) {
    let help = "How far the relay's clock is ahead of the machine's, which was set back";
    let ahead = ConstGauge::new(now.clock_ahead.as_secs_f64());
    registry.register_with_unit("clock_ahead", help, Unit::Seconds, ahead);
    registry.register("spans_exported", "Spans that the collector took", ConstCounter::new(now.spans.0));
    registry.register("spans_dropped", "Spans that it did not take", ConstCounter::new(now.spans.1));
    let help = "Lines that the access log lost";
    registry.register("access_log_dropped", help, ConstCounter::new(now.access_dropped));
    let active = Family::<_, Gauge>::default();
    for (cause, count) in &now.alerts {
        active.get_or_create(&OfCause { cause }).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    registry.register("alerts_active", "Causes of alerts that hold", active);
    registry.register("alerts_posted", "Alerts that were posted", ConstCounter::new(now.alerts_posted.0));
    registry.register("alerts_dropped", "Alerts that nobody took", ConstCounter::new(now.alerts_posted.1));
    let CanaryFigures { answered, failed, agents } = &now.canaries;
    let counted = Family::<_, Counter>::default();
    counted.get_or_create(&OfCanary { outcome: "answered" }).inc_by(*answered);
    counted.get_or_create(&OfCanary { outcome: "failed" }).inc_by(*failed);
    registry.register("canaries", "Canaries that were sent, by what became of them", counted);
    let (latency, silence) =
        (Family::<_, Gauge<f64, AtomicU64>>::default(), Family::<_, Gauge<f64, AtomicU64>>::default());
    for one in agents {
        let agent = OfAgent { token: one.token.clone(), agent: one.agent.clone() };
        if let Some(took) = one.latency {
            latency.get_or_create(&agent).set(took.as_secs_f64());
        }
        if let Some(since) = one.silence {
            silence.get_or_create(&agent).set(since.as_secs_f64());
        }
    }
    let help = "How long an agent's last canary took";
    registry.register_with_unit("canary_latency", help, Unit::Seconds, latency);
    let help = "How long ago an agent's last canary came back";
    registry.register_with_unit("canary_silence", help, Unit::Seconds, silence);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_can_be_read() {
        let metrics = Metrics::default();
        metrics.conceal("github", false);
        let meter = metrics.meter("github");
        meter.received();
        meter.answered(AnswerClass::Answered(2), Duration::from_millis(3), Duration::from_millis(5));
        metrics.meter("github").answered(AnswerClass::Refused, Duration::from_millis(1), Duration::from_secs(1));
        let expiry = |not_after_s| CertificateExpiry { name: "hooks.test".to_owned(), source: "file", not_after_s };
        let certificates = vec![expiry(1_800_000_000), expiry(1_700_000_000)];
        let gauges = Gauges { sessions: 2, dropped_copies: 7, certificates, ..Gauges::default() };
        let text = metrics.text(&gauges, Form::OpenMetrics);
        for line in [
            "relay_webhooks_received_total{endpoint=\"github\"} 1",
            "relay_webhooks_answered_total{endpoint=\"github\",outcome=\"2xx\"} 1",
            "relay_webhooks_answered_total{endpoint=\"github\",outcome=\"refused\"} 1",
            "relay_webhook_duration_seconds_count{endpoint=\"github\"} 2",
            "relay_webhook_patience_ratio_bucket{le=\"0.75\",endpoint=\"github\"} 2",
            "relay_webhook_patience_ratio_bucket{le=\"0.5\",endpoint=\"github\"} 1",
            "relay_agent_sessions 2",
            "relay_copies_dropped_total 7",
            "relay_certificate_expiry_timestamp_seconds{name=\"hooks.test\",source=\"file\"} 1700000000",
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_name_that_is_a_secret_is_shown_as_a_digest() {
        let metrics = Metrics::default();
        metrics.meter("open-3f9c").received();
        metrics.events().count("open-3f9c", "stored");
        let waiting = EndpointBacklog { endpoint: "open-3f9c".to_owned(), open: 1, oldest_s: 2, overdue: false };
        let gauges = Gauges { waiting: vec![waiting], ..Gauges::default() };
        // Nobody has said yet what it is, as of an endpoint that was taken out of the config.
        assert!(!metrics.text(&gauges, Form::Text).contains("open-3f9c"));
        for form in [Form::OpenMetrics, Form::Text] {
            metrics.conceal("open-3f9c", true);
            let text = metrics.text(&gauges, form);
            let shown = metrics.shown("open-3f9c");
            assert!(!text.contains("open-3f9c") && text.contains(&shown), "{text}");
            // Its row may ask for a proof after the next reload.
            metrics.conceal("open-3f9c", false);
            let text = metrics.text(&gauges, form);
            assert!(text.contains("open-3f9c") && !text.contains(&shown), "{text}");
        }
    }
}
