//! Kept events on their way: taken in, attempted, settled, tried again.
//!
//! ```text
//! ingress ─▶ intake ── append ──▶ store ◀── claim ── pump
//!              └── first attempt ─▶ attempt ◀── due again ┘
//!                                     └── settle ─▶ store
//! ```
//!
//! An event begins with its append where its sender waits for the handler, or where no other event waits; else the pump
//! claims it.
//!
//! Decides with [`crate::retry`], remembers in the [`Store`]. Invariants: no sender gets an ack before its event is
//! kept; an attempt counts before its call; whoever holds the newest fence settles, and nobody calls a handler again
//! while an attempt may still run.

mod attempt;
mod audience;
mod bulk;
mod intake;
mod late_outcomes;
mod news;
mod place;
mod pump;
mod repeats;
mod replay;
mod settle;
mod sign;
mod window;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use relay_proto::ResponseHead;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use self::{audience::RepeatReply, news::Arrivals, repeats::Repeats, window::Window};
pub(crate) use self::{
    bulk::work_off_bulks,
    intake::TakenIn,
    late_outcomes::settle_late_outcomes,
    pump::pump,
    replay::{Asker, Changed, NotReplayed, Replayed},
};
use crate::{
    admission::Admission,
    agents::{Agents, outcomes::Outcomes, registry::Registry, skips::Skips, token::Tokens},
    clock::{Clock, wall},
    deliver::{Bodies, answer_head},
    endpoint::{DeliveryPolicy, Endpoint, EndpointName, Order},
    failure::Failure,
    journal::Journal,
    metrics::{EndpointBacklog, Events},
    replay_guard::{Cause, OwnMark, OwnSignatures},
    spans::Tracer,
    store::{self, Backlog, Holder, OwnSignature, Share, SharePool, Sight, Store, StoreError},
    trace::Sampling,
    webhook::EventId,
};

/// How long an event may be due before that is an alarm.
const OVERDUE: SignedDuration = SignedDuration::from_secs(5);

/// What a waiting sender gets of an attempt.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once, never stored")]
pub(crate) enum SenderReply {
    /// The relay's own answer: the event is kept, and goes on without its sender.
    Ack,
    Answer(SenderAnswer),
    /// What went wrong, where the endpoint wants its sender to see that.
    Failure(Failure),
}

impl SenderReply {
    fn recorded(answer: &store::Answer) -> Self {
        Self::Answer(SenderAnswer::recorded(answer))
    }

    /// The same for a repeat. Of a long answer it gets the head.
    fn again(&self) -> Self {
        match self {
            Self::Ack => Self::Ack,
            Self::Failure(failure) => Self::Failure(*failure),
            Self::Answer(SenderAnswer { status, headers, body, more, .. }) => {
                let (mut headers, mut body) = (headers.clone(), body.clone());
                if more.is_some() {
                    headers.remove(header::CONTENT_LENGTH);
                    body = Bytes::new();
                }
                Self::Answer(SenderAnswer { status: *status, headers, body, trailers: HeaderMap::new(), more: None })
            }
        }
    }
}

/// A handler's answer on its way to a sender.
#[derive(Debug)]
pub(crate) struct SenderAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Its body, or the beginning of it.
    pub body: Bytes,
    /// Its trailers, where the body is whole.
    pub trailers: HeaderMap,
    /// What comes after that, of a long one.
    pub more: Option<mpsc::Receiver<Piece>>,
}

impl SenderAnswer {
    /// A recorded one. One that was too long to be recorded whole has no body, and says no length.
    fn recorded(answer: &store::Answer) -> Self {
        let head = ResponseHead::new(answer.status, answer.headers.clone());
        let (status, mut headers) = match answer_head(&head) {
            Ok(parts) => (parts.status, parts.headers),
            Err(_) => (StatusCode::OK, HeaderMap::new()), // It was one when it came.
        };
        if answer.truncated {
            headers.remove(header::CONTENT_LENGTH);
        }
        Self { status, headers, body: answer.body.clone(), trailers: HeaderMap::new(), more: None }
    }
}

#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// Its end, with its trailers. Without it the answer broke off.
    End(HeaderMap),
}

/// All kept events of this process on their way.
pub(crate) struct Delivery {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    /// Who holds the leases of this process.
    holder: Holder,
    registry: Arc<Registry>,
    events: Events,
    outcomes: Arc<Outcomes>,
    skips: Arc<Skips>,
    endpoints: ArcSwap<HashMap<EndpointName, Arc<Endpoint>>>,
    /// First attempts under way, and what repeats of their events get.
    running: Mutex<HashMap<EventId, watch::Receiver<RepeatReply>>>,
    arrivals: Arrivals,
    repeats: Repeats,
    journal: Arc<Journal>,
    pub admission: Arc<Admission>,
    windows: Mutex<HashMap<EndpointName, Window>>,
    /// Room for attempts that wait to be settled, see [`settle::MAX_UNSETTLED_KIB`].
    unsettled: Semaphore,
    /// The pump found no room at some endpoint: the end of an exchange may be what it waits for.
    cramped: AtomicBool,
    wake: Notify,
    bulks: Notify,
    tasks: TaskTracker,
    pub own: OwnSignatures,
    tracer: Option<Arc<Tracer>>,
}

impl Delivery {
    pub(crate) fn build(
        store: Arc<dyn Store>,
        clock: Clock,
        agents: &Agents,
        events: Events,
        journal: Arc<Journal>,
        tracer: Option<Arc<Tracer>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            holder: Holder::draw(),
            registry: Arc::clone(agents.registry()),
            events,
            outcomes: Arc::clone(agents.outcomes()),
            skips: Arc::clone(agents.skips()),
            endpoints: ArcSwap::default(),
            running: Mutex::default(),
            arrivals: Arrivals::default(),
            repeats: Repeats::default(),
            journal,
            admission: Arc::default(),
            windows: Mutex::default(),
            unsettled: Semaphore::new(settle::MAX_UNSETTLED_KIB),
            cramped: AtomicBool::new(false),
            wake: Notify::new(),
            bulks: Notify::new(),
            tasks: TaskTracker::new(),
            own: OwnSignatures::default(),
            tracer,
        })
    }

    fn sampling(&self) -> Option<Sampling> {
        self.tracer.as_ref().map(|tracer| tracer.sampling)
    }

    /// Waits for the end of attempts, for so long at most; no more begin.
    pub(crate) async fn drain(&self, patience: Duration) {
        self.tasks.close();
        if timeout(patience, self.tasks.wait()).await.is_err() {
            let attempts = self.tasks.len();
            tracing::warn!(attempts, "attempts did not end in time; they are settled after a restart");
        }
    }

    pub(crate) fn set_endpoints(&self, endpoints: &[Arc<Endpoint>], tokens: &Tokens) {
        let named = endpoints.iter().map(|endpoint| (endpoint.name.clone(), Arc::clone(endpoint)));
        // The endpoints of a token share what it may take.
        let pools = (0..).zip(tokens.iter()).filter_map(|(number, token)| {
            let max_bytes = token.quotas.max_stored?;
            Some((Arc::clone(&token.name), SharePool { number, max_bytes }))
        });
        let pools: HashMap<Arc<str>, SharePool> = pools.collect();
        let share = |endpoint: &Arc<Endpoint>| {
            let max_bytes = endpoint.policy.as_ref()?.max_bytes;
            let pool = endpoint.owner.as_ref().and_then(|owner| pools.get(owner)).copied();
            Some((endpoint.name.clone(), Share { max_bytes, is_proven: endpoint.is_proven(), pool }))
        };
        self.store.set_shares(endpoints.iter().filter_map(share).collect());
        self.endpoints.store(Arc::new(named.collect()));
        self.wake.notify_one();
    }

    pub(crate) fn endpoint(&self, name: &EndpointName) -> Option<Arc<Endpoint>> {
        self.endpoints.load().get(name).cloned()
    }

    /// How many repeats of an event were answered without a call, as far as is known.
    pub(crate) fn repeats(&self, of: EventId) -> Option<u32> {
        self.repeats.of(of)
    }

    /// Learns which signatures were made here before a restart.
    pub(crate) async fn recall(&self) -> Result<(), StoreError> {
        let now = wall();
        for OwnSignature { digest, expires_at } in self.store.own_signatures(now).await? {
            let mark = OwnMark { digest, expires_unix_s: expires_at.as_second() };
            let _ = self.own.put(mark, Cause::Late, now.as_second());
        }
        Ok(())
    }

    /// Remembers a signature that was made here. Only then may it leave: the door refuses it, after a restart, too.
    async fn remember(&self, mark: OwnMark, cause: Cause) -> bool {
        let now = wall();
        let Ok(expires_at) = Timestamp::from_second(mark.expires_unix_s) else { return false };
        if !self.own.put(mark, cause, now.as_second()) {
            return false;
        }
        let kept = self.store.remember(OwnSignature { digest: mark.digest, expires_at }, now).await;
        kept.inspect_err(|error| tracing::warn!(%error, "a fresh signature could not be remembered")).is_ok()
    }

    fn bodies(&self) -> Bodies {
        Bodies { store: Arc::clone(&self.store), clock: self.clock.clone() }
    }

    /// Looks for what is due: something was changed from outside.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Holds back what waits at an endpoint, or lets it go again. Senders notice nothing.
    pub(crate) async fn pause(&self, endpoint: &EndpointName, paused: bool) -> Result<(), StoreError> {
        self.store.pause(endpoint.clone(), paused, self.clock.now()).await?;
        if !paused {
            self.window(endpoint, Window::rest);
        }
        self.wake.notify_one();
        Ok(())
    }

    pub(crate) fn wake_bulks(&self) {
        self.bulks.notify_one();
    }

    /// How long a lease has to hold for one attempt, a lost agent's word included.
    fn lease(policy: &DeliveryPolicy, before: Duration) -> Duration {
        before + policy.attempt_timeout + 2 * policy.agent_grace + Duration::from_secs(10)
    }

    fn lease_until(policy: &DeliveryPolicy, before: Duration, now: Timestamp) -> Timestamp {
        now.saturating_add(Self::lease(policy, before)).unwrap_or(Timestamp::MAX)
    }

    fn is_ordered(&self, endpoint: &EndpointName) -> bool {
        let endpoints = self.endpoints.load();
        let policy = endpoints.get(endpoint).and_then(|endpoint| endpoint.policy.as_ref());
        policy.is_some_and(|policy| !matches!(policy.order, Order::None))
    }

    pub(crate) async fn waiting(&self) -> Vec<EndpointBacklog> {
        let Ok(backlog) = self.store.backlog(Sight::All).await else { return Vec::new() };
        let now = self.clock.now();
        let waiting = |one: Backlog| {
            let long_due = one.next_due.is_some_and(|due| now.duration_since(due) > OVERDUE) && !one.paused;
            let endpoint = self.endpoints.load().get(&one.endpoint).cloned();
            EndpointBacklog {
                oldest_s: one.oldest.map_or(0, |oldest| now.duration_since(oldest).as_secs()),
                open: one.open,
                overdue: long_due && endpoint.is_some_and(|endpoint| self.room(&endpoint).is_ok()),
                endpoint: one.endpoint.as_str().to_owned(),
            }
        };
        backlog.into_iter().map(waiting).collect()
    }

    /// How many kept events of an endpoint may begin now, at least one. Else when to look again, where that is known.
    fn room(&self, endpoint: &Endpoint) -> Result<usize, Option<Duration>> {
        let room = self.window(&endpoint.name, |window| window.room());
        if room == 0 {
            return Err(None);
        }
        let free = self.registry.free(endpoint.name.as_str(), room)?;
        self.admission.room(endpoint, free).map_err(|full| full.wait)
    }

    fn window<T>(&self, endpoint: &EndpointName, look: impl FnOnce(&mut Window) -> T) -> T {
        let mut windows = self.windows.lock();
        match windows.get_mut(endpoint) {
            Some(window) => look(window),
            None => look(windows.entry(endpoint.clone()).or_default()),
        }
    }
}

#[cfg(test)]
mod tests;
