//! What an operator has to know of at once: judged every few seconds, said in the log, and posted where the config says
//! so.
//!
//! ```text
//! facts ──▶ judge ──▶ changes ──▶ log
//!                        └──────▶ queue ──▶ post, a few times ──▶ the operator's address
//! ```
//!
//! Invariants: a cause is said once when it begins and once when it ends, in that order; the queue is bounded, and what is
//! lost is counted; a post goes to the address of the config alone and never through this relay's own endpoints, which
//! the config's check sees to.

mod judge;
mod post;

/// What is held to, for the table of all limits.
pub(crate) mod limits {
    pub(crate) use super::MAX_WAITING;
}

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use relay_program::api::AlertRow;
use serde::Serialize;
use tokio::sync::mpsc;

use self::judge::Judge;
pub(crate) use self::{
    judge::{AlertCause, AlertKind, CertificateEnd, RelayFacts, StoppedCanary, notice},
    post::{AlertQueue, post_alerts, signer},
};
use crate::{
    metrics::Metrics,
    outbound::{OutboundError, PostUrl, Posted, Poster},
    verify::Rule,
};

/// Messages that wait to be posted.
pub(crate) const MAX_WAITING: usize = 256;

/// Where alerts go, and when.
#[derive(Clone, Debug)]
pub(crate) struct AlertSettings {
    /// Without it they are said in the log alone.
    pub target: Option<AlertTarget>,
    pub thresholds: Thresholds,
}

#[derive(Clone, Debug)]
pub(crate) struct AlertTarget {
    pub url: PostUrl,
    /// A rule of Standard Webhooks, with the secret that signs.
    pub signer: Arc<Rule>,
}

/// What is too much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    /// Events that wait at an endpoint.
    pub backlog: u64,
    /// How long before its end a certificate is spoken of.
    pub certificate: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { backlog: 100, certificate: Duration::from_secs(14 * 24 * 60 * 60) }
    }
}

/// Something to post.
#[derive(Clone, Debug)]
pub(crate) struct AlertMessage {
    /// The same for every try of it.
    pub id: String,
    pub body: String,
}

#[derive(Serialize)]
struct Posting<'a> {
    r#type: &'static str,
    timestamp: String,
    data: PostedAlert<'a>,
}

#[derive(Serialize)]
struct PostedAlert<'a> {
    cause: &'a str,
    subject: &'a str,
    message: &'a str,
    since: &'a str,
    /// Which relay says so.
    relay: &'a str,
}

/// What becomes of messages.
#[derive(Debug, Default)]
pub(crate) struct AlertCounts {
    pub posted: AtomicU64,
    pub dropped: AtomicU64,
}

impl AlertCounts {
    /// Those that were taken, and those that were not.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.posted.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

pub(crate) struct Alerts {
    target: Option<AlertTarget>,
    queue: mpsc::Sender<AlertMessage>,
    state: Mutex<AlertState>,
    pub(crate) counts: Arc<AlertCounts>,
    metrics: Arc<Metrics>,
    poster: Poster,
}

struct AlertState {
    judge: Judge,
    active: BTreeMap<AlertCause, AlertRow>,
}

impl Alerts {
    /// And what is to be posted, for [`post_alerts`].
    pub(crate) fn build(settings: AlertSettings, metrics: &Arc<Metrics>) -> (Arc<Self>, AlertQueue) {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let AlertSettings { target, thresholds } = settings;
        let counts = Arc::<AlertCounts>::default();
        let waiting = AlertQueue { waiting, target: target.clone(), counts: Arc::clone(&counts) };
        let state = Mutex::new(AlertState { judge: Judge::new(thresholds), active: BTreeMap::new() });
        let alerts = Self { target, queue, state, counts, metrics: Arc::clone(metrics), poster: Poster::default() };
        (Arc::new(alerts), waiting)
    }

    /// Looks at how things stand, and says what has changed.
    pub(crate) fn look(&self, facts: &RelayFacts, relay: &str, now: Timestamp) {
        let mut state = self.state.lock();
        let holds = state.judge.judge(facts, now);
        let ended: Vec<_> = state.active.keys().filter(|cause| !holds.contains_key(*cause)).cloned().collect();
        for cause in ended {
            if let Some(alert) = state.active.remove(&cause) {
                let (subject, since) = (&alert.subject, &alert.since);
                tracing::info!(cause = alert.cause, subject, since, "an alert is over: {}", alert.message);
                self.put(false, &alert, relay, now);
            }
        }
        for (cause, message) in holds {
            if state.active.contains_key(&cause) {
                continue;
            }
            let is_endpoint = matches!(cause.kind, AlertKind::DeadLetters | AlertKind::Backlog);
            let shown = |name: &String| if is_endpoint { self.metrics.shown(name) } else { name.clone() };
            let alert = AlertRow {
                cause: cause.kind.word().to_owned(),
                subject: Some(&cause.subject).filter(|name| !name.is_empty()).map(shown).unwrap_or_default(),
                message,
                since: format!("{now:.0}"),
            };
            tracing::warn!(cause = alert.cause, subject = alert.subject, "alert: {}", alert.message);
            self.put(true, &alert, relay, now);
            state.active.insert(cause, alert);
        }
    }

    pub(crate) fn active(&self) -> Vec<AlertRow> {
        self.state.lock().active.values().cloned().collect()
    }

    /// How many hold of each kind.
    pub(crate) fn counted(&self) -> [(&'static str, usize); AlertKind::ALL.len()] {
        let state = self.state.lock();
        AlertKind::ALL.map(|kind| (kind.word(), state.active.keys().filter(|cause| cause.kind == kind).count()))
    }

    fn put(&self, raised: bool, alert: &AlertRow, relay: &str, now: Timestamp) {
        if self.target.is_none() {
            return;
        }
        let kind = if raised { "relay.alert.raised" } else { "relay.alert.ended" };
        if self.queue.try_send(message(kind, alert, relay, now)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Posts a message that says nothing, once; where it went, and what came back. `None` where nothing is to be posted.
    pub(crate) async fn test(&self, relay: &str, now: Timestamp) -> Option<(String, Result<Posted, OutboundError>)> {
        let target = self.target.as_ref()?;
        let (subject, message_text) = (String::new(), "this is a test: alerts of this relay arrive here".to_owned());
        let alert = AlertRow { cause: "test".to_owned(), subject, message: message_text, since: format!("{now:.0}") };
        let posted = post::post(&self.poster, target, &message("relay.alert.test", &alert, relay, now)).await;
        Some((target.url.to_string(), posted))
    }
}

fn message(kind: &'static str, alert: &AlertRow, relay: &str, now: Timestamp) -> AlertMessage {
    let AlertRow { cause, subject, message, since } = alert;
    let data = PostedAlert { cause, subject, message, since, relay };
    let posting = Posting { r#type: kind, timestamp: now.to_string(), data };
    let body = serde_json::to_string(&posting).expect("it is made of texts");
    AlertMessage { id: format!("alert_{}", uuid::Uuid::now_v7().simple()), body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::EndpointBacklog;

    fn target() -> AlertTarget {
        let (rule, url) = (signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), PostUrl::parse("http://127.0.0.1:1/"));
        AlertTarget { url: url.expect("a URL"), signer: Arc::new(rule.expect("a rule")) }
    }

    #[test]
    fn a_cause_is_posted_once_when_it_begins_and_once_when_it_ends() {
        let metrics = Arc::<Metrics>::default();
        metrics.conceal("github", false);
        let thresholds = Thresholds { backlog: 10, ..Thresholds::default() };
        let (alerts, mut queue) = Alerts::build(AlertSettings { target: Some(target()), thresholds }, &metrics);
        let backlog = |open| EndpointBacklog { endpoint: "github".to_owned(), open, oldest_s: 90, overdue: false };
        for (minute, open) in [(0, 5), (1, 20), (2, 30), (3, 40), (4, 50), (5, 60), (6, 70), (7, 80), (8, 4), (9, 0)] {
            let facts = RelayFacts { waiting: vec![backlog(open)], ..RelayFacts::default() };
            alerts.look(&facts, "https://hooks.test", Timestamp::from_second(minute * 60).expect("a time"));
        }
        let bodies: Vec<_> = std::iter::from_fn(|| queue.waiting.try_recv().ok()).collect();
        let kinds: Vec<_> = bodies.iter().map(|one| one.body.split('"').nth(3).unwrap_or_default()).collect();
        assert_eq!(kinds, ["relay.alert.raised", "relay.alert.ended"]);
        assert!(bodies[0].body.contains("\"cause\":\"backlog\",\"subject\":\"github\""), "{}", bodies[0].body);
        assert_ne!(bodies[0].id, bodies[1].id);
        assert!(alerts.active().is_empty());
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let metrics = Arc::<Metrics>::default();
        let (alerts, _queue) =
            Alerts::build(AlertSettings { target: Some(target()), thresholds: Thresholds::default() }, &metrics);
        let canary = |n| StoppedCanary { agent: format!("agent-{n}"), token: "t".to_owned(), failures: 3 };
        let canaries = (0..MAX_WAITING + 2).map(canary).collect();
        alerts.look(&RelayFacts { canaries, ..RelayFacts::default() }, "", Timestamp::UNIX_EPOCH);
        assert_eq!(alerts.counts.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(alerts.active().len(), MAX_WAITING + 2);
    }
}
