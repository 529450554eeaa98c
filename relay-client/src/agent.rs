//! The agent: keeps a session with the relay for ever, and hands over from one to the next without a gap.
//!
//! ```text
//! settings ──▶ ┌────────────┐ ── opening ──▶ Session (current) ── relieved ──▶ finishing
//! stop     ──▶ │ supervisor │                  │ serves by itself                │ serves what it carries
//!              └────────────┘ ◀── draining ────┘                                └─▶ the relay closes it
//! ```
//!
//! One session is current. A new one is opened when it is lost; and beside it, before it goes, when the relay
//! drains or when the settings ask for another offer, token or way ([`Plan`]). What changes only handlers is taken
//! up by the session that is there.
//!
//! Invariants: what is reported is true at every moment, "ready" comes after the relay's welcome; a session that
//! is relieved takes nothing new and finishes what it carries, within [`FINISH`]; at most [`MAX_FINISHING`] do;
//! settings that cannot be used change nothing; a stop drains.

mod catch_up;
mod offers;
mod session;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use relay_proto::{Close, CloseCode};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::status::{LinkState, Status, StatusSender};
use self::{
    offers::Plan,
    session::{Control, Failed, Session, Shared},
};
use crate::{
    backoff::Backoff,
    config::{Config, OnRefused, RelayUrl},
    link::how_to_tell,
    report::{AgentState, Reporter},
    routes::Table,
    tap::Tap,
};

/// How long a stop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(25);
/// How long a relieved session may take to finish; the relay, which knows what it waits for, mostly ends it before.
const FINISH: Duration = Duration::from_secs(600);
/// Relieved sessions that finish at a time; the oldest goes first.
const MAX_FINISHING: usize = 4;
/// Agents whose relay announces its stop come back spread over this.
const SPREAD: Duration = Duration::from_secs(1);
/// The most that an agent waits between its tries to leave a relay that drains.
const LEAVING: Duration = Duration::from_secs(2);
/// How long an agent whose new session was refused keeps to the one it has before it asks again.
const REFUSED_BESIDE: Duration = Duration::from_secs(60);

/// Why the agent ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The relay turned the agent away, which has been reported already.
    #[error("refused by the relay: {0}")]
    Refused(String),
    /// The configuration cannot be used here.
    #[error("{0}")]
    Unusable(String),
}

/// Serves until `stop` is cancelled, then drains. Newer `settings` are taken up as they come.
pub(crate) async fn run(
    mut settings: watch::Receiver<Arc<Config>>,
    reporter: Reporter,
    status: StatusSender,
    tap: Option<Arc<Tap>>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let config = Arc::clone(&settings.borrow_and_update());
    let table = Table::new(&config, &Table::default()).map_err(RunError::Unusable)?;
    status.wanted(&table);
    let mut supervisor = Supervisor::new(config, Shared::new(table, reporter, status, tap));
    supervisor.open_after(Duration::ZERO);
    supervisor.run(&mut settings, &stop).await
}

/// A session on its way, and when its way begins.
struct Opening {
    at: Instant,
    session: Pin<Box<dyn Future<Output = Result<Session, Failed>> + Send>>,
}

struct Supervisor {
    config: Arc<Config>,
    shared: Arc<Shared>,
    backoff: Backoff,
    current: Option<Session>,
    opening: Option<Opening>,
    /// The relay that a session was open with: at its address, whoever gives no word of a relay stands in for it.
    known: Option<RelayUrl>,
    /// Whether the user was warned that the current session is one too old.
    warned_beside: bool,
    finishing: JoinSet<()>,
    /// Oldest first.
    finishing_order: VecDeque<AbortHandle>,
}

/// What the supervisor waits for.
enum Happened {
    Opened(Result<Box<Session>, Failed>),
    Ended(Close),
    RelayDrains,
    Settings,
    Stop,
}

impl Supervisor {
    fn new(config: Arc<Config>, shared: Shared) -> Self {
        Self {
            config,
            shared: Arc::new(shared),
            backoff: Backoff::default(),
            current: None,
            opening: None,
            known: None,
            warned_beside: false,
            finishing: JoinSet::new(),
            finishing_order: VecDeque::new(),
        }
    }

    async fn run(
        &mut self,
        settings: &mut watch::Receiver<Arc<Config>>,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        loop {
            match self.next(settings, stop).await {
                Happened::Opened(Ok(session)) => self.relieve(*session),
                Happened::Opened(Err(failed)) => self.failed(failed)?,
                Happened::Ended(close) => self.ended(close)?,
                Happened::RelayDrains => self.open_after(SPREAD.mul_f64(fastrand::f64())),
                Happened::Settings => {
                    let config = Arc::clone(&settings.borrow_and_update());
                    self.take_over(config);
                }
                Happened::Stop => {
                    self.drain().await;
                    return Ok(());
                }
            }
        }
    }

    async fn next(&mut self, settings: &mut watch::Receiver<Arc<Config>>, stop: &CancellationToken) -> Happened {
        let Self { current, opening, finishing, .. } = self;
        let idle = opening.is_none();
        let opened = async {
            match opening {
                Some(opening) => opening.session.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let of_current = async {
            match current {
                Some(session) => tokio::select! {
                    close = &mut session.ended => Happened::Ended(close.unwrap_or_else(session::failed)),
                    () = session.control.relay_drains(), if idle => Happened::RelayDrains,
                },
                None => std::future::pending().await,
            }
        };
        let finished = async {
            while finishing.join_next().await.is_some() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Happened::Stop,
            happened = of_current => happened,
            opened = opened => Happened::Opened(opened.map(Box::new)),
            // Without a sender the settings are what they are.
            Ok(()) = settings.changed() => Happened::Settings,
            () = finished => unreachable!("it waits for ever"),
        }
    }

    /// Opens a session after a while, in place of any other attempt. The current one serves until it is there.
    fn open_after(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        let relieved: Option<Control> = self.current.as_ref().map(|session| session.control.clone());
        let beside = relieved.is_some();
        let (config, shared) = (Arc::clone(&self.config), Arc::clone(&self.shared));
        let session = Box::pin(async move {
            sleep(wait).await;
            if !beside {
                shared.reporter.state(AgentState::Connecting { relay: config.way.relay.to_string() });
            }
            session::open(&config, &shared, relieved).await
        });
        self.opening = Some(Opening { at, session });
    }

    /// A session is open: it is the current one now, and the one before it finishes.
    fn relieve(&mut self, session: Session) {
        (self.opening, self.warned_beside) = (None, false);
        self.known = Some(session.plan.way.relay.clone());
        if let Some(relieved) = self.current.replace(session) {
            self.finish(relieved);
        }
    }

    /// A relieved session finishes what it carries.
    fn finish(&mut self, relieved: Session) {
        if self.finishing_order.len() >= MAX_FINISHING
            && let Some(oldest) = self.finishing_order.pop_front()
        {
            oldest.abort();
        }
        let finish = Instant::now() + FINISH;
        let handle = self.finishing.spawn(async move {
            let _ = timeout_at(finish, relieved.ended).await;
        });
        self.finishing_order.retain(|other| !other.is_finished());
        self.finishing_order.push_back(handle);
    }

    /// No session came of an attempt.
    fn failed(&mut self, failed: Failed) -> Result<(), RunError> {
        self.opening = None;
        if let Some(left) = self.current.take_if(|session| session.control.has_left()) {
            self.finish(left);
        }
        let random = fastrand::f64();
        let Some(current) = &self.current else {
            let (why, retry_after) = match failed {
                Failed::Refused { why, code } => return self.refused(why, code),
                Failed::Stranger { why } if self.known.as_ref() == Some(&self.config.way.relay) => (why, None),
                Failed::Stranger { why } => {
                    return self.refused(format!("{why}; {}", how_to_tell(&self.config.way.relay)), None);
                }
                Failed::Lost { why, retry_after } => (why, retry_after),
            };
            let after = self.backoff.next(random, retry_after);
            self.reconnect(after, why);
            return Ok(());
        };
        let (why, wait) = match failed {
            Failed::Refused { why, .. } => (why, REFUSED_BESIDE),
            Failed::Stranger { why } if current.control.draining() => (why, LEAVING.mul_f64(random)),
            Failed::Stranger { why } => (why, self.backoff.next(random, None)),
            // These failures say nothing of the relay that comes next.
            Failed::Lost { why, retry_after } if current.control.draining() => {
                (why, retry_after.unwrap_or_default() + LEAVING.mul_f64(random))
            }
            Failed::Lost { why, retry_after } => (why, self.backoff.next(random, retry_after)),
        };
        if !std::mem::replace(&mut self.warned_beside, true) {
            self.shared.reporter.warn(format!("no new session yet, the old one serves on: {why}"));
        }
        self.open_after(wait);
        Ok(())
    }

    /// The current session is over.
    fn ended(&mut self, close: Close) -> Result<(), RunError> {
        let Some(session) = self.current.take() else { return Ok(()) };
        self.backoff.session_ended(session.since.elapsed());
        match &self.opening {
            // It took its leave, had nothing in flight, and the new session's welcome is on its way.
            Some(_) if session.control.has_left() => return Ok(()),
            Some(opening) if close.code == CloseCode::GoingAway => {
                let after = opening.at.saturating_duration_since(Instant::now());
                self.shared.status.lost(&close.reason, after);
                self.shared.reporter.state(AgentState::Reconnecting { after, why: close.reason });
                return Ok(());
            }
            None if close.code == CloseCode::Unauthorized => {
                return self.refused(close.reason, Some("unauthorized".to_owned()));
            }
            None if close.code == CloseCode::Refused => return self.refused(close.reason, None),
            _ => {}
        }
        let after = self.backoff.next(fastrand::f64(), None);
        self.reconnect(after, close.reason);
        Ok(())
    }

    fn reconnect(&mut self, after: Duration, why: String) {
        self.shared.status.lost(&why, after);
        self.shared.reporter.state(AgentState::Reconnecting { after, why });
        self.open_after(after);
    }

    /// The relay does not want this agent, and there is no session that it could keep to.
    fn refused(&mut self, why: String, code: Option<String>) -> Result<(), RunError> {
        self.shared.status.refused(&why);
        self.shared.reporter.state(AgentState::Refused { why: why.clone(), code });
        match self.config.on_refused {
            OnRefused::Exit => Err(RunError::Refused(why)),
            OnRefused::RetryAfter(wait) => {
                self.open_after(wait);
                Ok(())
            }
        }
    }

    /// Takes up new settings: handlers at once, everything else with a new session beside the old one.
    fn take_over(&mut self, config: Arc<Config>) {
        let shared = &self.shared;
        let not_taken = |why: String| shared.reporter.warn(format!("the settings were not taken over: {why}"));
        let table = match Table::new(&config, &shared.table.load()) {
            Ok(table) => table,
            Err(why) => return not_taken(why),
        };
        let plan = match Plan::of(&config, &table) {
            Ok(plan) => plan,
            Err(error) => return not_taken(error.to_string()),
        };
        shared.status.wanted(&table);
        shared.table.store(Arc::new(table));
        if *self.config != *config {
            shared.reporter.state(AgentState::Reloaded);
        }
        (self.config, self.warned_beside) = (config, false);
        if self.current.as_ref().is_none_or(|session| session.plan != plan) {
            self.open_after(Duration::ZERO);
        } else if self
            .current
            .as_ref()
            .is_some_and(|Session { control, .. }| !control.has_left() && !control.draining())
        {
            self.opening = None; // What it was to bring is there already.
        }
    }

    /// Takes nothing new and waits for what is in flight.
    async fn drain(&mut self) {
        self.opening = None;
        self.shared.stop_catching_up();
        self.shared.status.stopping();
        self.shared.reporter.state(AgentState::Draining);
        let until = Instant::now() + DRAIN;
        if let Some(session) = self.current.take() {
            session.control.tunnel.drain();
            let _ = timeout_at(until, session.ended).await;
        }
        let _ = timeout_at(until, async { while self.finishing.join_next().await.is_some() {} }).await;
    }
}
