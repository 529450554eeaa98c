//! One session: how it is opened, and the task that serves it until its end.
//!
//! It decides nothing about the next one; the supervisor does. It hands what comes to exchanges, which outlive it where
//! they may.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use relay_proto::{
    Attach, Attached, CANARY_ENDPOINT, Close, CloseCode, HeaderBlock, Hello, Limits, Notice as RelayNotice, Offer,
    OfferState, ResponseHead, Welcome,
};
use relay_tunnel::{Arrival, Arrivals, Handle};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    StatusSender,
    catch_up::CatchUp,
    offers::{self, Plan},
    status::PublicName,
};
use crate::{
    config::Config,
    exchange::{self, Outcomes, Watchers},
    link::{self, TurnedAway},
    report::{AgentState, Notice, Reporter, event_name},
    routes::Table,
    tap::Tap,
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
    tap: Option<Arc<Tap>>,
    history: Mutex<History>,
}

/// What is done once, not at each reconnect.
#[derive(Default)]
struct History {
    /// Endpoints that this agent was the active one of: `takeover` is done with.
    taken_over: BTreeSet<String>,
    /// Endpoints that were attached: what waits is skipped before that.
    attached: BTreeSet<String>,
    /// Replays what was kept, since the first welcome.
    catching_up: Option<AbortOnDropHandle<()>>,
}

impl Shared {
    pub(super) fn new(table: Table, reporter: Reporter, status: StatusSender, tap: Option<Arc<Tap>>) -> Self {
        let table = ArcSwap::from_pointee(table);
        Self { table, reporter, status, outcomes: Arc::default(), tap, history: Mutex::default() }
    }

    pub(super) fn stop_catching_up(&self) {
        if let Some(catching_up) = &self.history.lock().catching_up {
            catching_up.abort();
        }
    }

    /// The hello of a plan. An exclusive endpoint is to be active at once where the user asked for it, and where the
    /// session that is relieved is active.
    fn hello(&self, plan: &Plan, instance: Uuid, relieving: bool) -> Hello {
        let history = self.history.lock();
        let offers = plan.offers.iter().map(|offer| {
            let name = &offer.endpoint;
            let asked = offer.takeover && !history.taken_over.contains(name);
            let takes_over = asked || (relieving && self.status.is_active(name));
            Offer {
                takeover: offer.attach == Attach::Exclusive && takes_over,
                skip_backlog: offer.skip_backlog && !history.attached.contains(name),
                ..offer.clone()
            }
        });
        Hello {
            name: plan.name.clone(),
            instance: *instance.as_bytes(),
            software: concat!("relay-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            offers: offers.collect(),
            canaries: true,
        }
    }

    /// Takes note of what the relay made of the offers; the number of the session.
    fn welcomed(&self, config: &Arc<Config>, welcome: &Welcome, plan: &Plan) -> u64 {
        let answers = welcome.endpoints.iter().zip(&plan.offers);
        let states: BTreeMap<_, _> =
            answers.map(|(answer, offer)| (offer.endpoint.clone(), answer.state.clone())).collect();
        let mut history = self.history.lock();
        for (name, state) in &states {
            if *state == OfferState::Accepted {
                history.taken_over.insert(name.clone());
            }
            if offers::role(state).is_ok() {
                history.attached.insert(name.clone());
            }
        }
        let public = |(answer, offer): (&Attached, &Offer)| {
            let public = PublicName { name: answer.endpoint.clone(), url: plan.way.relay.endpoint_url(&answer.url) };
            (offer.endpoint.clone(), public)
        };
        let names = welcome.endpoints.iter().zip(&plan.offers).map(public).collect();
        let serial = self.status.opened(states, names);
        if history.catching_up.is_none() {
            let status = self.status.subscribe();
            history.catching_up = CatchUp::of(config, welcome, &plan.offers, self.reporter.clone(), status)
                .map(|catch_up| AbortOnDropHandle::new(tokio::spawn(catch_up.run())));
        }
        serial
    }
}

/// Why no session came about.
#[derive(Debug)]
pub(super) enum Failed {
    Refused {
        why: String,
        code: Option<String>,
    },
    /// Something answered that gave no word of a relay.
    Stranger {
        why: String,
    },
    /// Nobody answered, or not as a relay does.
    Lost {
        why: String,
        retry_after: Option<Duration>,
    },
}

/// An open session, served by a task of its own. Dropped, it breaks off.
pub(super) struct Session {
    pub(super) plan: Plan,
    pub(super) control: Control,
    pub(super) ended: AbortOnDropHandle<Close>,
    pub(super) since: Instant,
}

/// What the relay has said of a session.
#[derive(Default)]
struct Signs {
    relay_drains: bool,
    answers: u64,
}

/// What the supervisor, and the session that is opened next, have to do with a session.
#[derive(Clone)]
pub(super) struct Control {
    pub(super) tunnel: Handle,
    signs: watch::Receiver<Signs>,
    left: Arc<AtomicBool>,
}

impl Control {
    /// Comes when the relay has announced its stop.
    pub(super) async fn relay_drains(&mut self) {
        if self.signs.wait_for(|signs| signs.relay_drains).await.is_err() {
            // The session is over, which its end says.
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn draining(&self) -> bool {
        self.signs.borrow().relay_drains
    }

    /// Whether the session takes nothing more, since a new one was about to say hello.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Makes sure that the relay gives it nothing more before the new session says hello: the relay breaks off
    /// an older session that has not drained. One that the relay drains by itself serves on until its end.
    async fn take_leave(mut self) {
        if self.draining() {
            return;
        }
        self.left.store(true, Ordering::Relaxed);
        let before = self.signs.borrow().answers;
        self.tunnel.drain();
        self.tunnel.probe();
        // A session that is lost meanwhile needs no confirmation.
        let _ = timeout(CONFIRMED, self.signs.wait_for(|signs| signs.answers > before)).await;
    }
}

/// Connects, takes leave of the session that is relieved, and says hello.
pub(super) async fn open(
    config: &Arc<Config>,
    shared: &Arc<Shared>,
    relieved: Option<Control>,
) -> Result<Session, Failed> {
    let lost = |why: String, retry_after| Failed::Lost { why, retry_after };
    let table = shared.table.load_full();
    let plan = Plan::of(config, &table).map_err(|error| lost(error.to_string(), None))?;
    let link = link::connect(&plan.way, &plan.token).await.map_err(|error| match error.turned_away() {
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
    let hello = shared.hello(&plan, config.instance, relieving);
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
    let serial = shared.welcomed(config, &welcome, &plan);
    let names = offers::announce(&welcome, &plan, &table, &shared.reporter);
    shared.outcomes.attach(handle.clone());
    let (said, signs) = watch::channel(Signs::default());
    let served = Served { serial, names, table, shared: Arc::clone(shared), signs: said };
    let ended = AbortOnDropHandle::new(tokio::spawn(served.run(arrivals, driver).in_current_span()));
    let control = Control { tunnel: handle, signs, left: Arc::default() };
    Ok(Session { plan, control, ended, since: Instant::now() })
}

/// The relay's own: it looks whether the way is open, and is no webhook. No handler is called, and nobody is told.
fn answer_canary(request: relay_tunnel::Request) {
    request.responder.respond_whole(ResponseHead::new(204, HeaderBlock::new()), Bytes::new());
}

/// How a session ended whose task panicked.
pub(super) fn failed(_: JoinError) -> Close {
    Close { code: CloseCode::Internal, reason: "the session failed".to_owned() }
}

/// The task of a session.
struct Served {
    serial: u64,
    /// The relay's names of endpoints and the settings'.
    names: BTreeMap<String, String>,
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
        driver.await.unwrap_or_else(failed)
    }

    fn serve(&self, request: relay_tunnel::Request) {
        let asked = std::str::from_utf8(&request.head.endpoint).ok();
        if asked == Some(CANARY_ENDPOINT) {
            return answer_canary(request);
        }
        let name = asked.and_then(|endpoint| self.names.get(endpoint));
        let now = self.shared.table.load();
        let endpoint = name.and_then(|name| now.named(name).or_else(|| self.table.named(name))).map(Arc::clone);
        let watchers = Watchers {
            reporter: self.shared.reporter.clone(),
            outcomes: Arc::clone(&self.shared.outcomes),
            tap: self.shared.tap.clone(),
        };
        let span = tracing::debug_span!(
            "attempt",
            event_id = %event_name(request.head.event_id),
            endpoint = asked,
        );
        // On the heap at once: on its way into a task it would be copied five times.
        let serving = Box::pin(exchange::serve(request, endpoint, watchers));
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
