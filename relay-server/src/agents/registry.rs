//! Who is attached to which endpoint, and who gets the next exchange.
//!
//! A session stands here from its welcome to its end. The same token, name and instance have one
//! session at a time: a newer one replaces the older at once, by its epoch. Exchanges of an endpoint
//! go to the session with the fewest in flight.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use relay_proto::{CloseCode, Notice, OpenError, RequestHead};
use relay_tunnel::{Exchange, Handle};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout_at},
};

use crate::webhook::Failure;

/// An endpoint whose agent left less than this ago is worth waiting for.
const RECENTLY: Duration = Duration::from_secs(60);

/// Requests that wait for an agent at a time; more are answered at once.
const MAX_WAITERS: usize = 1024;

/// Endpoints whose last agent is remembered; names come from the config, so this is not reached.
const MAX_REMEMBERED: usize = 100_000;

/// Who an agent is: only the same three fence each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The token's name.
    pub token: Arc<str>,
    /// The agent's name.
    pub name: String,
    /// The agent's process.
    pub instance: [u8; 16],
}

struct Session {
    identity: Identity,
    epoch: u64,
    endpoints: Vec<String>,
    handle: Handle,
}

/// The attached agents of one relay.
pub struct Registry {
    state: Mutex<State>,
    changed: Notify,
    waiters: Semaphore,
}

#[derive(Default)]
struct State {
    sessions: Vec<Arc<Session>>,
    last_left: HashMap<String, Instant>,
    /// Breaks ties between equally free agents.
    turn: usize,
}

/// A session's place in the registry; it leaves when this is dropped.
pub struct Attached {
    registry: Arc<Registry>,
    session: Arc<Session>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), waiters: Semaphore::new(MAX_WAITERS) }
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch of a new session: higher than that of any session of the same agent.
    #[must_use]
    pub fn next_epoch(&self, identity: &Identity, now_ms: u64) -> u64 {
        let state = self.lock();
        let same = state.sessions.iter().filter(|session| session.identity == *identity);
        same.map(|session| session.epoch + 1).fold(now_ms, u64::max)
    }

    /// Attaches a session. An older one of the same agent is closed.
    pub fn attach(
        self: &Arc<Self>,
        identity: Identity,
        epoch: u64,
        endpoints: Vec<String>,
        handle: Handle,
    ) -> Attached {
        let session = Arc::new(Session { identity, epoch, endpoints, handle });
        let mut state = self.lock();
        let (old, kept) = std::mem::take(&mut state.sessions)
            .into_iter()
            .partition(|other| other.identity == session.identity && other.epoch < session.epoch);
        state.sessions = kept;
        state.sessions.push(Arc::clone(&session));
        drop(state);
        let old: Vec<Arc<Session>> = old;
        for replaced in old {
            replaced.handle.close(CloseCode::Replaced, "a newer session of this agent took over");
        }
        self.changed.notify_waiters();
        Attached { registry: Arc::clone(self), session }
    }

    /// Opens an exchange with the freest agent of an endpoint.
    ///
    /// # Errors
    /// [`Failure::NoAgent`], [`Failure::Busy`] or [`Failure::HeadTooLarge`].
    pub fn open(&self, endpoint: &str, head: &RequestHead) -> Result<Exchange, Failure> {
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
        let turn = state.turn;
        let serves = |session: &&Arc<Session>| {
            session.handle.takes_exchanges() && session.endpoints.iter().any(|name| name == endpoint)
        };
        let mut candidates: Vec<_> = state.sessions.iter().filter(serves).map(Arc::clone).collect();
        drop(state);
        if !candidates.is_empty() {
            let first = turn % candidates.len();
            candidates.rotate_left(first);
        }
        candidates.sort_by_key(|session| session.handle.in_flight());
        let mut failure = Failure::NoAgent;
        for session in candidates {
            match session.handle.open(head.clone()) {
                Ok(exchange) => return Ok(exchange),
                Err(OpenError::Busy) => failure = Failure::Busy,
                Err(OpenError::HeadTooLarge) => return Err(Failure::HeadTooLarge),
                Err(OpenError::Closed | OpenError::Draining) => {}
            }
        }
        Err(failure)
    }

    /// Like [`Registry::open`], but waits until `until` for an agent that left a moment ago.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub async fn open_or_wait(&self, endpoint: &str, head: &RequestHead, until: Instant) -> Result<Exchange, Failure> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.open(endpoint, head) {
                Err(Failure::NoAgent) if self.left_recently(endpoint) => {}
                outcome => return outcome,
            }
            let Ok(_place) = self.waiters.try_acquire() else { return Err(Failure::NoAgent) };
            if timeout_at(until, changed).await.is_err() {
                return Err(Failure::NoAgent);
            }
        }
    }

    fn left_recently(&self, endpoint: &str) -> bool {
        self.lock().last_left.get(endpoint).is_some_and(|left| left.elapsed() < RECENTLY)
    }

    /// Tells every agent of an endpoint something.
    pub fn notify(&self, endpoint: &str, notice: &Notice) {
        for session in &self.lock().sessions {
            if session.endpoints.iter().any(|name| name == endpoint) {
                session.handle.notify(notice.clone());
            }
        }
    }

    /// Announces the relay's stop to every agent.
    pub fn drain(&self) {
        self.lock().sessions.iter().for_each(|session| session.handle.drain());
    }

    /// Closes every session once nothing is in flight on it.
    pub fn close_when_idle(&self) {
        let close = |session: &Arc<Session>| {
            session.handle.close_when_idle(CloseCode::GoingAway, "the relay is stopping");
        };
        self.lock().sessions.iter().for_each(close);
    }

    /// Closes the sessions of agents for which `keep` is false: their token was revoked.
    pub fn close_unless(&self, keep: impl Fn(&str, &[String]) -> bool) {
        for session in &self.lock().sessions {
            if !keep(&session.identity.token, &session.endpoints) {
                session.handle.close(CloseCode::Unauthorized, "the token is not valid any more");
            }
        }
    }

    /// How many sessions are attached.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether no session is attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.sessions.retain(|session| !Arc::ptr_eq(session, &self.session));
        if state.last_left.len() >= MAX_REMEMBERED {
            state.last_left.clear();
        }
        for endpoint in &self.session.endpoints {
            state.last_left.insert(endpoint.clone(), Instant::now());
        }
    }
}
