//! What the relay counts, as OpenMetrics text or in the text format that came before it.
//!
//! Labels are an endpoint's name and a class of outcome: names come from the config, so their number is bounded
//! whatever senders ask for. Counting costs some atomic additions for each webhook; gauges are read when somebody
//! asks. Nothing here decides anything. A name that is its endpoint's secret, or was, is shown as a digest.

mod form;

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use data_encoding::HEXLOWER;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

pub(crate) use self::form::Form;

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
    /// The relay failed.
    Internal,
}

impl AnswerClass {
    const NAMES: [&'static str; 13] = [
        "1xx",
        "2xx",
        "3xx",
        "4xx",
        "5xx",
        "repeated",
        "refused",
        "rejected",
        "unavailable",
        "failed",
        "internal",
        "challenge",
        "acknowledged",
    ];

    const fn index(self) -> usize {
        match self {
            Self::Answered(hundreds @ 1..=5) => hundreds as usize - 1,
            Self::Answered(_) => 4,
            Self::Repeated => 5,
            Self::Refused => 6,
            Self::Rejected => 7,
            Self::Unavailable => 8,
            Self::Failed => 9,
            Self::Internal => 10,
            Self::Challenge => 11,
            Self::Acknowledged => 12,
        }
    }
}

/// Names that are shown as they are. Any other may be a secret: of an endpoint that is no more, its events may still wait.
#[derive(Clone, Debug, Default)]
struct Plain(Arc<Mutex<HashSet<String>>>);

impl Plain {
    fn set(&self, name: &str, concealed: bool) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

/// What one endpoint counts.
#[derive(Debug)]
pub(crate) struct Meter {
    received: Counter,
    outcomes: [Counter; 13],
    seconds: Histogram,
}

impl Meter {
    /// A request came.
    pub(crate) fn received(&self) {
        self.received.inc();
    }

    /// It was answered, this long after it came.
    pub(crate) fn answered(&self, outcome: AnswerClass, after: Duration) {
        self.outcomes[outcome.index()].inc();
        self.seconds.observe(after.as_secs_f64());
    }
}

/// What became of kept events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    counted: Family<OfOutcome, Counter>,
    plain: Plain,
}

impl Events {
    /// One more event was stored, or stands otherwise than before.
    pub(crate) fn count(&self, endpoint: &str, outcome: &'static str) {
        self.counted.get_or_create(&OfOutcome { endpoint: self.plain.label(endpoint), outcome }).inc();
    }
}

/// What waits at one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointBacklog {
    pub endpoint: String,
    /// Events that wait or are under way.
    pub open: u64,
    /// How long the oldest of them has waited, in seconds.
    pub oldest_s: i64,
    /// Whether one is long due although an agent is free.
    pub overdue: bool,
}

/// What the store did since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreNumbers {
    /// Bytes in use.
    pub bytes: u64,
    /// Bytes at which what has ended gives way.
    pub max_bytes: u64,
    /// Transactions.
    pub commits: u64,
    /// Calls in them.
    pub calls: u64,
    /// Time that they took, in seconds.
    pub commit_seconds: f64,
    /// Events found damaged.
    pub damaged: u64,
}

/// What is read when somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    /// Attached sessions.
    pub sessions: usize,
    /// Exchanges under way, copies apart.
    pub exchanges: usize,
    /// Public connections, agents' apart.
    pub connections: usize,
    /// Bytes of heads and collected bodies in memory.
    pub body_bytes: usize,
    /// Copies that slow agents did not get.
    pub dropped_copies: u64,
    /// Refused requests that were gone before they were written into the store.
    pub unwritten_refusals: u64,
    /// What waits, by endpoint.
    pub waiting: Vec<EndpointBacklog>,
    /// What the store did.
    pub stored: StoreNumbers,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    received: Family<OfEndpoint, Counter>,
    outcomes: Family<OfOutcome, Counter>,
    events: Events,
    backlog: Family<OfEndpoint, Gauge>,
    oldest: Family<OfEndpoint, Gauge>,
    overdue: Gauge,
    store_bytes: Gauge,
    store_max_bytes: Gauge,
    damaged: Gauge,
    commits: Counter,
    calls: Counter,
    commit_seconds: Counter<f64, AtomicU64>,
    seconds: Family<OfEndpoint, Histogram, fn() -> Histogram>,
    meters: Mutex<HashMap<String, Arc<Meter>>>,
    unrouted: Counter,
    sessions: Gauge,
    exchanges: Gauge,
    connections: Gauge,
    body_bytes: Gauge,
    dropped_copies: Counter<u64, AtomicU64>,
    unwritten_refusals: Counter<u64, AtomicU64>,
    tasks: Gauge<i64, AtomicI64>,
    runtimes: Mutex<Vec<Handle>>,
}

/// Upper bounds in seconds: from a local handler's millisecond to the longest deadlines.
fn seconds() -> Histogram {
    Histogram::new([0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("relay"),
            received: Family::default(),
            outcomes: Family::default(),
            events: Events::default(),
            backlog: Family::default(),
            oldest: Family::default(),
            overdue: Gauge::default(),
            store_bytes: Gauge::default(),
            store_max_bytes: Gauge::default(),
            damaged: Gauge::default(),
            commits: Counter::default(),
            calls: Counter::default(),
            commit_seconds: Counter::default(),
            seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            meters: Mutex::default(),
            unrouted: Counter::default(),
            sessions: Gauge::default(),
            exchanges: Gauge::default(),
            connections: Gauge::default(),
            body_bytes: Gauge::default(),
            dropped_copies: Counter::default(),
            unwritten_refusals: Counter::default(),
            tasks: Gauge::default(),
            runtimes: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "This relay", build);
        registry.register("webhooks_received", "Requests to an endpoint", self.received.clone());
        registry.register("webhooks_answered", "Answers to senders, by what became of it", self.outcomes.clone());
        registry.register("events", "Kept events, by what became of them", self.events.counted.clone());
        registry.register("events_waiting", "Kept events that wait or are under way", self.backlog.clone());
        let help = "How long the oldest of them has waited";
        registry.register_with_unit("events_oldest", help, Unit::Seconds, self.oldest.clone());
        let help = "Endpoints with an event that is long due although an agent is free; anything but 0 is an alarm";
        registry.register("events_overdue", help, self.overdue.clone());
        registry.register_with_unit("store_size", "The store's size", Unit::Bytes, self.store_bytes.clone());
        let help = "The size at which what has ended gives way";
        registry.register_with_unit("store_max_size", help, Unit::Bytes, self.store_max_bytes.clone());
        let help = "Events that are not what was taken in; anything but 0 is an alarm";
        registry.register("store_damaged", help, self.damaged.clone());
        registry.register("store_commits", "The store's transactions", self.commits.clone());
        registry.register("store_calls", "Calls in the store's transactions", self.calls.clone());
        let help = "Time that the store's transactions took";
        registry.register_with_unit("store_commit", help, Unit::Seconds, self.commit_seconds.clone());
        let help = "From a request's head to the head of its answer";
        registry.register_with_unit("webhook_duration", help, Unit::Seconds, self.seconds.clone());
        registry.register("requests_unrouted", "Requests to no endpoint", self.unrouted.clone());
        registry.register("agent_sessions", "Attached sessions", self.sessions.clone());
        registry.register("exchanges_in_flight", "Exchanges under way", self.exchanges.clone());
        registry.register("public_connections", "Connections of senders", self.connections.clone());
        registry.register("bodies_collected_bytes", "Heads and collected bodies in memory", self.body_bytes.clone());
        registry.register("copies_dropped", "Copies that slow agents did not get", self.dropped_copies.clone());
        let help = "Refused requests that were gone before they were written into the store";
        registry.register("refused_unwritten", help, self.unwritten_refusals.clone());
        registry.register("tasks", "Tasks of every runtime", self.tasks.clone());
    }

    /// The counters of an endpoint; the same ones for the same name.
    pub(crate) fn meter(&self, endpoint: &str) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let label = || self.events.plain.label(endpoint);
            let name = OfEndpoint { endpoint: label() };
            let of = |outcome| OfOutcome { endpoint: label(), outcome };
            Arc::new(Meter {
                received: self.received.get_or_create_owned(&name),
                outcomes: AnswerClass::NAMES.map(|outcome| self.outcomes.get_or_create_owned(&of(outcome))),
                seconds: self.seconds.get_or_create_owned(&name),
            })
        };
        Arc::clone(meters.entry(endpoint.to_owned()).or_insert_with(new))
    }

    /// Says whether an endpoint's name is its secret, which nobody is told who asks for numbers.
    pub fn conceal(&self, endpoint: &str, concealed: bool) {
        self.events.plain.set(endpoint, concealed);
    }

    /// What stands for an endpoint's name here.
    pub fn shown(&self, endpoint: &str) -> String {
        self.events.plain.shown(endpoint)
    }

    /// Where kept events are counted.
    pub(crate) fn events(&self) -> Events {
        self.events.clone()
    }

    /// A request was for no endpoint.
    pub(crate) fn unrouted(&self) {
        self.unrouted.inc();
    }

    /// Counts the tasks of one more runtime.
    pub(crate) fn watch(&self, runtime: Handle) {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).push(runtime);
    }

    /// Everything as text.
    pub(crate) fn text(&self, now: &Gauges, form: Form) -> String {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.sessions.set(number(now.sessions));
        self.exchanges.set(number(now.exchanges));
        self.connections.set(number(now.connections));
        self.body_bytes.set(number(now.body_bytes));
        self.dropped_copies.inner().store(now.dropped_copies, std::sync::atomic::Ordering::Relaxed);
        self.unwritten_refusals.inner().store(now.unwritten_refusals, std::sync::atomic::Ordering::Relaxed);
        let runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        self.tasks.set(number(runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum()));
        self.backlog.clear();
        self.oldest.clear();
        for waiting in &now.waiting {
            let endpoint = OfEndpoint { endpoint: self.events.plain.label(&waiting.endpoint) };
            self.backlog.get_or_create(&endpoint).set(i64::try_from(waiting.open).unwrap_or(i64::MAX));
            self.oldest.get_or_create(&endpoint).set(waiting.oldest_s);
        }
        self.overdue.set(number(now.waiting.iter().filter(|waiting| waiting.overdue).count()));
        let StoreNumbers { bytes, max_bytes, commits, calls, commit_seconds, damaged } = now.stored;
        self.store_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.store_max_bytes.set(i64::try_from(max_bytes).unwrap_or(i64::MAX));
        self.damaged.set(i64::try_from(damaged).unwrap_or(i64::MAX));
        self.commits.inner().store(commits, std::sync::atomic::Ordering::Relaxed);
        self.calls.inner().store(calls, std::sync::atomic::Ordering::Relaxed);
        self.commit_seconds.inner().store(commit_seconds.to_bits(), std::sync::atomic::Ordering::Relaxed);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        form.of(text)
    }
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
        meter.answered(AnswerClass::Answered(2), Duration::from_millis(3));
        metrics.meter("github").answered(AnswerClass::Refused, Duration::from_millis(1));
        let text = metrics.text(&Gauges { sessions: 2, dropped_copies: 7, ..Gauges::default() }, Form::OpenMetrics);
        for line in [
            "relay_webhooks_received_total{endpoint=\"github\"} 1",
            "relay_webhooks_answered_total{endpoint=\"github\",outcome=\"2xx\"} 1",
            "relay_webhooks_answered_total{endpoint=\"github\",outcome=\"refused\"} 1",
            "relay_webhook_duration_seconds_count{endpoint=\"github\"} 2",
            "relay_agent_sessions 2",
            "relay_copies_dropped_total 7",
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
