//! One session: how it is opened, and the task that serves it until its end.
//!
//! It decides nothing about the next one; the supervisor does. It hands what comes to exchanges, which outlive it where
//! they may.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use relay_proto::{Close, CloseCode, Limits, Notice as RelayNotice, Welcome};
use relay_tunnel::{Arrival, Arrivals, Handle};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::{
    StatusSender,
    catch_up::CatchUp,
    offers::{self, EndpointState, Readable as _},
    plan::Plan,
};
use crate::{
    config::Config,
    exchange::{self, Outcomes},
    link::{self, TurnedAway, Way},
    report::{AgentRole, AgentState, Notice, Reporter, event_name},
    routes::Table,
};

/// How long a session that is to be relieved may take to confirm that it takes nothing more.
const CONFIRMED: Duration = Duration::from_secs(3);

/// What all sessions of the agent share.
pub(super) struct Shared {
    /// The endpoints of the present settings.
    pub(super) table: ArcSwap<Table>,
    pub(super) reporter: Reporter,
    pub(super) status: StatusSender,
    outcomes: Arc<Outcomes>,
    sessions: AtomicU64,
    /// Endpoints that `takeover` has been done for: it is done once, not at each reconnect.
    taken_over: Mutex<BTreeSet<String>>,
    /// Endpoints that were attached: what waits is skipped before that, not at each reconnect.
    attached: Mutex<BTreeSet<String>>,
    /// Has once more what was kept; begun once.
    catching_up: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Shared {
    pub(super) fn new(table: Table, reporter: Reporter, status: StatusSender) -> Self {
        Self {
            table: ArcSwap::from_pointee(table),
            reporter,
            status,
            outcomes: Arc::default(),
            sessions: AtomicU64::new(0),
            taken_over: Mutex::default(),
            attached: Mutex::default(),
            catching_up: Mutex::default(),
        }
    }

    /// Nothing is caught up with any more.
    pub(super) fn stop_catching_up(&self) {
        if let Some(catching_up) = &*self.catching_up.lock().unwrap_or_else(PoisonError::into_inner) {
            catching_up.abort();
        }
    }

    /// Whether an exclusive endpoint is to be active at once: where the user asked for it, and where a session of
    /// this process that is relieved by the new one is.
    fn takes_over(&self, name: &str, relieving: bool) -> bool {
        let table = self.table.load();
        let asked = table.named(name).is_some_and(|endpoint| endpoint.takeover)
            && !self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        asked || (relieving && self.status.state(name) == Some(EndpointState::Attached(AgentRole::Active)))
    }
}

/// Why no session came about.
#[derive(Debug)]
pub(super) enum Failed {
    /// The relay does not want this agent.
    Refused { why: String, code: Option<String> },
    /// Something answered that gave no word of a relay.
    Stranger { why: String },
    /// Nobody answered, or not as a relay does.
    Lost { why: String, retry_after: Option<Duration> },
}

/// An open session, served by a task of its own. Dropped, it breaks off.
pub(super) struct Session {
    pub(super) handle: Handle,
    pub(super) plan: Plan,
    pub(super) seen: Seen,
    pub(super) ended: Ended,
    pub(super) since: Instant,
    left: Arc<AtomicBool>,
}

impl Session {
    /// What is needed to relieve it.
    pub(super) fn relief(&self) -> Relief {
        Relief { handle: self.handle.clone(), seen: self.seen.clone(), left: Arc::clone(&self.left) }
    }

    /// Whether it takes nothing more, since a new one was about to say hello.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

/// What the relay has said of a session.
#[derive(Clone)]
pub(super) struct Seen(watch::Receiver<Signs>);

#[derive(Default)]
struct Signs {
    relay_drains: bool,
    answers: u64,
}

impl Seen {
    /// Comes when the relay has announced its stop.
    pub(super) async fn relay_drains(&mut self) {
        if self.0.wait_for(|signs| signs.relay_drains).await.is_err() {
            // The session is over, which its end says.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the relay has announced its stop.
    pub(super) fn draining(&self) -> bool {
        self.0.borrow().relay_drains
    }
}

/// A session that is to be relieved.
pub(super) struct Relief {
    handle: Handle,
    seen: Seen,
    left: Arc<AtomicBool>,
}

impl Relief {
    /// Makes sure that the relay gives it nothing more before the new session says hello: the relay breaks off
    /// an older session that has not drained. One that the relay drains by itself serves on until its end.
    async fn take_leave(mut self) {
        if self.seen.draining() {
            return;
        }
        self.left.store(true, Ordering::Relaxed);
        let before = self.seen.0.borrow().answers;
        self.handle.drain();
        self.handle.probe();
        // A session that is lost meanwhile needs no confirmation.
        let _ = timeout(CONFIRMED, self.seen.0.wait_for(|signs| signs.answers > before)).await;
    }
}

/// The end of a session's task.
pub(super) struct Ended(AbortOnDropHandle<Close>);

impl Future for Ended {
    type Output = Close;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Close> {
        let failed = || Close { code: CloseCode::Internal, reason: "the session failed".to_owned() };
        Pin::new(&mut self.0).poll(cx).map(|joined| joined.unwrap_or_else(|_| failed()))
    }
}

/// Connects, takes leave of the session that is relieved, and says hello.
pub(super) async fn open(
    config: &Arc<Config>,
    shared: &Arc<Shared>,
    relieved: Option<Relief>,
) -> Result<Session, Failed> {
    let lost = |why: String, retry_after| Failed::Lost { why, retry_after };
    let table = shared.table.load_full();
    let plan = Plan::of(config, &table).map_err(|error| lost(error.to_string(), None))?;
    let way = Way { relay: &plan.relay, relay_ca: plan.relay_ca.as_deref(), proxy: &plan.proxy };
    let link = link::connect(&way, &plan.token).await.map_err(|error| match error.turned_away() {
        Some(TurnedAway::ByRelay) => {
            let code = error.refusal().and_then(|(_, code)| code.map(str::to_owned));
            Failed::Refused { why: error.to_string(), code }
        }
        Some(TurnedAway::ByStranger) => Failed::Stranger { why: error.to_string() },
        None => lost(error.to_string(), error.retry_after()),
    })?;
    let relieving = relieved.is_some();
    if let Some(relieved) = relieved {
        relieved.take_leave().await;
    }
    let is_first = |name: &str| !shared.attached.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
    let hello = offers::hello(&plan, config.instance, |name| shared.takes_over(name, relieving), is_first);
    let greeting = relay_tunnel::agent(link.stream, link.leftover, hello, Limits::agent());
    let (welcome, handle, arrivals, driver) = greeting.await.map_err(|close| match close.code {
        CloseCode::Unauthorized => Failed::Refused { why: close.reason, code: Some("unauthorized".to_owned()) },
        CloseCode::Refused => Failed::Refused { why: close.reason, code: None },
        _ => lost(close.reason, None),
    })?;
    if let Some(refused) = offers::refusal(&welcome) {
        handle.close(CloseCode::Normal, "nothing was accepted"); // The relay means to close as well, or ought to.
        driver.await;
        return Err(refused);
    }
    let span = tracing::info_span!("session", agent = %plan.name, epoch = welcome.epoch);
    let driver = AbortOnDropHandle::new(tokio::spawn(driver.instrument(span.clone())));
    let _entered = span.entered();
    Ok(begin(&welcome, (config, plan), table, shared, handle, arrivals, driver))
}

/// The welcome is there: says so, and serves.
fn begin(
    welcome: &Welcome,
    (config, plan): (&Arc<Config>, Plan),
    table: Arc<Table>,
    shared: &Arc<Shared>,
    handle: Handle,
    arrivals: Arrivals,
    driver: AbortOnDropHandle<Close>,
) -> Session {
    let serial = shared.sessions.fetch_add(1, Ordering::Relaxed) + 1;
    let states = welcome.endpoints.iter().zip(&plan.offers);
    let states: Vec<_> = states.map(|(answer, offer)| (offer.endpoint.clone(), answer.state.read())).collect();
    let active = states.iter().filter(|(_, state)| *state == EndpointState::Attached(AgentRole::Active));
    let active = active.map(|(name, _)| name.clone());
    shared.taken_over.lock().unwrap_or_else(PoisonError::into_inner).extend(active);
    let attached = states.iter().filter(|(_, state)| matches!(state, EndpointState::Attached(_)));
    let attached = attached.map(|(name, _)| name.clone());
    shared.attached.lock().unwrap_or_else(PoisonError::into_inner).extend(attached);
    shared.status.opened(serial, states.into_iter());
    let names = offers::announce(welcome, &plan, &table, &shared.reporter);
    shared.outcomes.attach(handle.clone());
    let mut catching_up = shared.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
    if catching_up.is_none() {
        let status = shared.status.subscribe();
        *catching_up = CatchUp::of(config, welcome, &plan.offers, shared.reporter.clone(), status)
            .map(|catch_up| AbortOnDropHandle::new(tokio::spawn(catch_up.run())));
    }
    drop(catching_up);
    let (signs, seen) = watch::channel(Signs::default());
    let served = Served { serial, names, table, shared: Arc::clone(shared), signs };
    let ended = Ended(AbortOnDropHandle::new(tokio::spawn(served.run(arrivals, driver).in_current_span())));
    Session { handle, plan, seen: Seen(seen), ended, since: Instant::now(), left: Arc::default() }
}

/// The task of a session.
struct Served {
    serial: u64,
    /// The relay's names of endpoints and the settings'.
    names: HashMap<String, String>,
    /// The settings when it began, for requests that were on their way when an endpoint was taken out.
    table: Arc<Table>,
    shared: Arc<Shared>,
    signs: watch::Sender<Signs>,
}

impl Served {
    async fn run(self, mut arrivals: Arrivals, driver: AbortOnDropHandle<Close>) -> Close {
        while let Some(arrival) = arrivals.next().await {
            match arrival {
                Arrival::Request(request) => self.serve(request),
                Arrival::Notice(notice) => self.show(notice),
                Arrival::Draining => self.signs.send_modify(|signs| signs.relay_drains = true),
                Arrival::Answered => self.signs.send_modify(|signs| signs.answers += 1),
                Arrival::Outcome(_) => {}
            }
        }
        let failed = || Close { code: CloseCode::Internal, reason: "the session failed".to_owned() };
        driver.await.unwrap_or_else(|_| failed())
    }

    fn serve(&self, request: relay_tunnel::Request) {
        let asked = std::str::from_utf8(&request.head.endpoint).ok();
        let name = asked.and_then(|endpoint| self.names.get(endpoint));
        let now = self.shared.table.load();
        let endpoint = name.and_then(|name| now.named(name).or_else(|| self.table.named(name))).map(Arc::clone);
        let (reporter, outcomes) = (self.shared.reporter.clone(), Arc::clone(&self.shared.outcomes));
        let span = tracing::debug_span!(
            "attempt",
            event_id = %event_name(request.head.event_id),
            endpoint = asked,
        );
        // On the heap at once: on its way into a task it would be copied five times.
        let serving = Box::pin(exchange::serve(request, endpoint, reporter, outcomes));
        drop::<JoinHandle<()>>(tokio::spawn(serving.instrument(span)));
    }

    fn show(&self, notice: RelayNotice) {
        let reporter = &self.shared.reporter;
        match notice {
            RelayNotice::Text(line) => reporter.warn(line),
            RelayNotice::Backlog { endpoint, waiting, oldest_ms, line } => {
                let oldest = oldest_ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
                reporter.state(AgentState::Backlog { endpoint, waiting, oldest, line });
            }
            RelayNotice::Changed { endpoint, state } => {
                let Some(name) = self.names.get(&endpoint) else { return };
                let state = state.read();
                if self.shared.status.changed(self.serial, name, state.clone()) {
                    offers::announce_change(endpoint, &state, reporter);
                }
            }
            RelayNotice::Refused { endpoint, event_id, status, code, provider } => reporter.refused(Notice {
                time: Timestamp::now(),
                status,
                provider,
                code,
                event_id: Some(event_name(event_id)),
                endpoint,
            }),
        }
    }
}
