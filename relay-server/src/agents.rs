//! The agents: who may attach, who is attached, and who gets the next exchange.

mod accept;
pub(crate) mod attach_policy;
pub(crate) mod auth_throttle;
pub(crate) mod event_filter;
pub(crate) mod membership;
pub(crate) mod mirror;
pub(crate) mod outcomes;
pub(crate) mod registry;
pub(crate) mod seats;
mod session;
pub(crate) mod skips;
pub(crate) mod targets;
pub mod token;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response};
use jiff::Timestamp;
use parking_lot::Mutex;
use relay_proto::{Limits, Purse};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::TaskTracker;

pub(crate) use self::accept::{Link, Turned, bearer, lists};
use self::{
    attach_policy::AttachPolicy,
    auth_throttle::{AuthThrottle, MAX_WRONG, WINDOW},
    outcomes::{LateOutcome, Outcomes},
    registry::Registry,
    seats::Seats,
    session::{SessionHost, WINDOWS_BYTES},
    skips::Skips,
    token::{Shown, Tokens},
};
use crate::{
    audit::{Actor, Audit, Deed},
    client_certificate::ClientCertificate,
    clock::Clock,
    store::{AuditClass, Store},
};

/// Bounds of agents' sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgentSettings {
    pub max_sessions: usize,
    /// Exchanges at a time in one of them.
    pub max_in_flight: u32,
    /// How long a replaced session that had drained may finish.
    pub drain_timeout: Duration,
    /// Whether canaries are sent to those that answer them.
    pub canaries: bool,
}

pub(crate) struct Agents {
    registry: Arc<Registry>,
    outcomes: Arc<Outcomes>,
    skips: Arc<Skips>,
    seats: Seats,
    throttle: AuthThrottle,
    host: Arc<SessionHost>,
    sessions: TaskTracker,
    audit: Arc<Audit>,
    /// When each token was shown last; names that are gone are forgotten.
    used: Mutex<HashMap<Arc<str>, Timestamp>>,
}

impl Agents {
    /// Nobody may attach before [`Agents::revise`]. What agents say of attempts that nobody waits for comes out of the
    /// receiver.
    pub(crate) fn build(
        settings: AgentSettings,
        store: &Arc<dyn Store>,
        audit: &Arc<Audit>,
        clock: &Clock,
    ) -> (Arc<Self>, mpsc::Receiver<LateOutcome>) {
        let (outcomes, late_outcomes) = Outcomes::new();
        let (registry, skips) =
            (Arc::new(Registry::new(clock.clone(), settings.max_in_flight)), Arc::<Skips>::default());
        let limits =
            Limits { max_streams: settings.max_in_flight, purse: Some(Purse::new(WINDOWS_BYTES)), ..Limits::relay() };
        let host = SessionHost {
            registry: Arc::clone(&registry),
            outcomes: Arc::clone(&outcomes),
            skips: Arc::clone(&skips),
            store: Arc::clone(store),
            audit: Arc::clone(audit),
            limits,
            drain_timeout: settings.drain_timeout,
            canaries: settings.canaries,
        };
        let agents = Self {
            registry,
            outcomes,
            skips,
            seats: Seats::new(settings.max_sessions),
            throttle: AuthThrottle::new(MAX_WRONG, WINDOW),
            host: Arc::new(host),
            sessions: TaskTracker::new(),
            audit: Arc::clone(audit),
            used: Mutex::default(),
        };
        (Arc::new(agents), late_outcomes)
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn outcomes(&self) -> &Arc<Outcomes> {
        &self.outcomes
    }

    pub(crate) fn skips(&self) -> &Arc<Skips> {
        &self.skips
    }

    /// When tokens were shown last, since the start.
    pub(crate) fn used_tokens(&self) -> HashMap<Arc<str>, Timestamp> {
        self.used.lock().clone()
    }

    /// What agents may do from now on.
    pub(crate) fn revise(&self, policy: AttachPolicy) {
        self.registry.revise(policy);
    }

    /// Whose token a request shows. Wrong ones are counted for its address, and slowed beyond a number; a right one
    /// passes whoever else comes from there, since a whole company may be one address.
    pub(crate) fn authenticate(
        &self,
        client: IpAddr,
        headers: &HeaderMap,
        certificate: Option<&Arc<ClientCertificate>>,
        tokens: &Tokens,
    ) -> Result<Shown, Turned> {
        let (known, now) = (accept::token_of(headers, certificate, tokens), Instant::now());
        if matches!(known, Err(Turned::Certificate)) {
            // The token is right, and may be stolen.
            let deed = Deed::new(Actor::nobody(client), "auth", None);
            self.audit.note(AuditClass::Refused, deed, "client_certificate");
        }
        if matches!(known, Err(Turned::Unauthorized)) {
            if headers.contains_key(http::header::AUTHORIZATION) {
                self.audit.note(AuditClass::Refused, Deed::new(Actor::nobody(client), "auth", None), "unauthorized");
            }
            if let Some(left) = self.throttle.wait(client, now) {
                return Err(Turned::TooManyGuesses { left });
            }
            self.throttle.count(client, now);
        }
        if let Ok(shown) = &known {
            let mut used = self.used.lock();
            used.insert(Arc::clone(&shown.token.name), self.registry.now());
            if used.len() > tokens.len() {
                used.retain(|name, _| tokens.iter().any(|token| token.name == *name));
            }
        }
        known
    }

    /// Begins a session over the upgraded connection, which is an `S`; the answer with `body` begins the WebSocket.
    pub(crate) fn accept<S: Link, R, B>(
        &self,
        request: Request<R>,
        shown: Shown,
        client: IpAddr,
        body: B,
    ) -> Result<Response<B>, Turned> {
        accept::check(&request)?;
        let seat = self.seats.take(&shown.token).map_err(|limit| {
            let actor = Actor::agent(&shown.token.name, &shown.token.id, client);
            self.audit.note(AuditClass::Agents, Deed::new(actor, "agent.attach", None), "too_many_sessions");
            Turned::TooManySessions(limit)
        })?;
        let (response, upgrade) = accept::upgrade(request, body);
        let host = Arc::clone(&self.host);
        self.sessions.spawn(async move {
            let _seat = seat;
            if let Some((stream, leftover)) = accept::connection::<S>(upgrade).await {
                host.serve(stream, leftover, shown, client).await;
            }
        });
        Ok(response)
    }

    /// How many sessions a token's agents have.
    pub(crate) fn sessions_of(&self, token: &str) -> usize {
        self.seats.of(token)
    }

    /// Tells agents to attach elsewhere; their exchanges go on.
    pub(crate) fn drain(&self) {
        self.registry.drain();
    }

    /// Closes the sessions that have nothing left to do, and waits for their end.
    pub(crate) async fn close(&self) {
        self.registry.close_when_idle();
        self.sessions.close();
        self.sessions.wait().await;
    }
}
