//! One agent's session, from its hello to its end.
//!
//! Nothing is attached that the token does not allow when the hello comes. What waits is skipped, where the agent asks for
//! that, before it gets its first exchange.

use std::{collections::BTreeMap, future::pending, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use relay_proto::{Attached as Answer, CloseCode, Limits, Notice, OfferState, Welcome, printable};
use relay_tunnel::{Arrival, Arrivals, Driver, Greeting, Handle};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::sleep,
};

use super::{
    attach_policy::AttachPolicy,
    membership::Role,
    outcomes::{Outcomes, Teller},
    registry::{AgentIdentity, Attached, OfferAnswer, PATIENCE, REVOKED, Registry, Welcomed, offer_state},
    skips::Skips,
    token::Shown,
};
use crate::{
    audit::{self, Actor, Audit, Deed},
    endpoint::EndpointName,
    log::{self, LogScope},
    store::{AuditClass, Sight, Store, StoreError},
    throttle::Throttle,
};

/// A crowd that comes back is to be seen whole; by their token, since its agents choose their names.
static CAME: Throttle<32, 128> = Throttle::new();
static LEFT: Throttle<32, 128> = Throttle::new();
static REVOKED_SINCE: Throttle = Throttle::new();
static NOTHING_TO_SERVE: Throttle = Throttle::new();
static NOT_SKIPPED: Throttle = Throttle::new();
static NOT_COUNTED: Throttle = Throttle::new();

/// What the relay calls itself towards agents.
const SOFTWARE: &str = concat!("relay-server/", env!("CARGO_PKG_VERSION"));

/// What the windows of all sessions' exchanges may grow by, together; one session has 4 MiB of it at most.
pub(super) const WINDOWS_BYTES: u32 = 64 * 1024 * 1024;

pub(super) struct SessionHost {
    pub(super) registry: Arc<Registry>,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) skips: Arc<Skips>,
    pub(super) store: Arc<dyn Store>,
    pub(super) audit: Arc<Audit>,
    pub(super) limits: Limits,
    pub(super) drain_timeout: Duration,
    /// Whether canaries are sent.
    pub(super) canaries: bool,
}

impl SessionHost {
    /// Runs a session over a connection whose token was `shown`.
    pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        leftover: Vec<u8>,
        shown: Shown,
        client: IpAddr,
    ) {
        // In boxes, one after the other: what only the beginning needs is not held for a session's long life.
        let greeting = match Box::pin(relay_tunnel::relay(stream, leftover, self.limits.clone())).await {
            Ok(greeting) => greeting,
            Err(close) => return tracing::debug!(reason = close.reason, "an agent left before its hello"),
        };
        let scope = LogScope::session(greeting.hello.name.as_str().into(), Arc::clone(&shown.token.name));
        let greeted = Box::pin(self.greeted(greeting, shown, client));
        let served = async {
            if let Some(begun) = greeted.await {
                self.run(begun).await;
            }
        };
        scope.around(served).await;
    }

    async fn greeted<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut greeting: Greeting<S>,
        shown: Shown,
        client: IpAddr,
    ) -> Option<Begun<S>> {
        let token = Arc::clone(&shown.token.name);
        let name: Arc<str> = greeting.hello.name.as_str().into();
        let identity = AgentIdentity { token: Arc::clone(&token), name, instance: greeting.hello.instance };
        let now = self.registry.now();
        let offers = std::mem::take(&mut greeting.hello.offers);
        let (offered, skipping): (Vec<String>, Vec<bool>) =
            offers.iter().map(|offer| (offer.endpoint.clone(), offer.skip_backlog)).unzip();
        let now_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let actor = Actor::agent(&token, &shown.token.id, client);
        let canaries = self.canaries && greeting.hello.canaries;
        let Some(welcomed) = self.registry.attach(identity.clone(), shown.clone(), offers, canaries, now_ms) else {
            self.audit.note(AuditClass::Agents, Deed::new(actor, "agent.attach", None), "unauthorized");
            if let Some(held_back) = REVOKED_SINCE.pass(&token) {
                tracing::info!(held_back, "an agent said hello with a token that is not valid any more");
            }
            turn_out(greeting, offered).await;
            return None;
        };
        let Welcomed { attached, answers, contested, finishing, replaced, policy } = welcomed;
        self.note_answers(&actor, &identity.name, &offered, &answers, replaced);
        log::epoch_is(attached.epoch());
        attached.describe(&greeting.hello.software, client);
        let welcome = welcome(attached.epoch(), offered, &answers, &policy, &shown);
        if answers.iter().all(Result::is_err) {
            if let Some(held_back) = NOTHING_TO_SERVE.pass(&token) {
                tracing::info!(held_back, "an agent offered nothing that it may serve");
            }
            attached.ends(CloseCode::Refused, "none of the offered endpoints was accepted");
            drop(attached);
            greeting.refuse(welcome, "none of the offered endpoints was accepted").await;
            return None;
        }
        // Before it is ready for exchanges: nothing of what waits may reach it.
        let skipped = match self.skip(answers.iter().zip(skipping), now).await {
            Ok(skipped) => {
                for one in &skipped {
                    if let Skipped::Ends(endpoint, _) = one {
                        let deed = Deed::new(actor.clone(), "endpoint.skip", Some(endpoint.clone()));
                        self.audit.did(deed, audit::OK);
                    }
                }
                skipped
            }
            Err(error) => {
                if let Some(held_back) = NOT_SKIPPED.pass(&token) {
                    tracing::warn!(%error, held_back, "what waits cannot be skipped; the agent has to come again");
                }
                return None;
            }
        };
        let endpoints: Vec<String> = answers.iter().flatten().map(|(name, _)| name.clone()).collect();
        if let Some(held_back) = CAME.pass(&token) {
            tracing::info!(endpoints = endpoints.join(","), held_back, "an agent attached");
        }
        let (handle, arrivals, driver) = greeting.welcome(welcome);
        attached.ready(handle.clone(), &answers);
        let teller = Teller::new(identity, attached.serves());
        let session = Session { token, attached, handle, teller, contested, finishing };
        Some(Begun { session, arrivals, driver, notice: BacklogNotice { endpoints, skipped } })
    }

    /// Puts into the audit log to what an agent attached, and what was refused.
    fn note_answers(&self, actor: &Actor, name: &str, offered: &[String], answers: &[OfferAnswer], replaced: bool) {
        let mut by_result = BTreeMap::<&str, Vec<&str>>::new();
        for (offered, answer) in offered.iter().zip(answers) {
            let (result, endpoint) = match answer {
                Ok((endpoint, _)) => (audit::OK, endpoint),
                Err(code) => (*code, offered),
            };
            by_result.entry(result).or_default().push(endpoint);
        }
        let name = printable::escaped(name);
        for (result, endpoints) in by_result {
            let deed = Deed::new(actor.clone(), "agent.attach", Some(endpoints.join(",")));
            let detail = if replaced {
                format!("agent {name}; an older session of it gave way")
            } else {
                format!("agent {name}")
            };
            self.audit.note(AuditClass::Agents, Deed { detail: Some(detail), ..deed }, result);
        }
        if replaced {
            let deed = Deed::new(actor.clone(), "agent.replaced", Some(name.into_owned()));
            self.audit.note(AuditClass::Agents, deed, audit::OK);
        }
    }

    /// Serves until the driver ends.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&self, begun: Begun<S>) {
        let Begun { session, arrivals, driver, notice } = begun;
        let notices = async {
            Box::pin(self.tell_backlog(&session.handle, notice)).await;
            pending::<()>().await;
        };
        let close = tokio::select! {
            close = driver => close,
            () = notices => unreachable!("it waits for ever"),
            () = self.attend(&session, arrivals) => unreachable!("it waits for ever"),
        };
        let token = Arc::clone(&session.token);
        session.attached.ends(close.code, &close.reason);
        drop(session);
        if let Some(held_back) = LEFT.pass(&token) {
            tracing::info!(code = ?close.code, reason = close.reason, held_back, "an agent left");
        }
    }

    /// What a session needs beside its exchanges: answers to questions, and what is due some time after its begin.
    async fn attend(&self, session: &Session, mut arrivals: Arrivals) {
        let Session { attached, handle, teller, contested, finishing, .. } = session;
        let listen = async {
            loop {
                match arrivals.next().await {
                    Some(Arrival::Answered) => attached.answered(),
                    Some(Arrival::Draining) => {
                        attached.draining();
                        // This side knows what it has opened; the agent cannot know what is still on its way.
                        handle.close_when_idle(CloseCode::Normal, "the agent has drained");
                    }
                    Some(Arrival::Outcome(outcome)) => self.outcomes.take(outcome, teller),
                    Some(Arrival::Request(_) | Arrival::Notice(_)) => {}
                    None => pending().await, // The driver says how it ended.
                }
            }
        };
        let contest = async {
            if *contested {
                Box::pin(sleep(PATIENCE)).await;
                attached.contest();
            }
        };
        let finish = async {
            if let Some(replaced) = finishing {
                Box::pin(sleep(self.drain_timeout)).await;
                replaced.close(CloseCode::Replaced, "its last exchanges took too long");
            }
        };
        tokio::join!(listen, contest, finish);
    }

    /// Has ended what waits at the endpoints whose agent wants only what is new, and is the one to say so.
    async fn skip(
        &self,
        answers: impl Iterator<Item = (&OfferAnswer, bool)>,
        before: Timestamp,
    ) -> Result<Vec<Skipped>, StoreError> {
        let mut skipped = Vec::new();
        for (answer, wanted) in answers {
            let Some((name, role)) = answer.as_ref().ok().filter(|_| wanted) else { continue };
            skipped.push(match EndpointName::parse(name) {
                Ok(endpoint) if *role == Role::Active => {
                    Skipped::Ends(name.clone(), self.skips.begin(&self.store, endpoint, before).await?)
                }
                _ => Skipped::Stays(name.clone()),
            });
        }
        Ok(skipped)
    }

    /// Tells an agent's user what waits for it, and what does not any more.
    async fn tell_backlog(&self, handle: &Handle, BacklogNotice { endpoints, skipped }: BacklogNotice) {
        let ends = |name: &&str| skipped.iter().any(|one| matches!(one, Skipped::Ends(ended, _) if ended == name));
        let waiting: Vec<&str> = endpoints.iter().map(String::as_str).filter(|name| !ends(name)).collect();
        self.tell_waiting(handle, &waiting).await;
        for one in skipped {
            let line = match one {
                Skipped::Stays(name) => {
                    format!("this agent is not the active one of {name}, so nothing that waits there is skipped")
                }
                Skipped::Ends(name, ended) => match ended.await {
                    Ok(0) => format!("no webhook waited for {name}, so none is skipped"),
                    Ok(count) => format!("{count} webhooks that waited for {name} are skipped"),
                    Err(_) => continue,
                },
            };
            handle.notify(Notice::Text(line));
        }
    }

    async fn tell_waiting(&self, handle: &Handle, endpoints: &[&str]) {
        let seen = endpoints.iter().filter_map(|name| EndpointName::parse(name).ok()).collect();
        let backlog = match self.store.backlog(Sight::Only(seen)).await {
            Ok(backlog) => backlog,
            Err(error) => {
                if let Some(held_back) = NOT_COUNTED.pass("") {
                    tracing::warn!(%error, held_back, "what waits cannot be read");
                }
                return;
            }
        };
        for one in backlog.iter().filter(|one| one.open > 0) {
            let since = one.oldest.map(|at| format!(", the oldest since {at:.0}")).unwrap_or_default();
            let held = if one.paused { "; the endpoint is paused" } else { "" };
            let (open, endpoint) = (one.open, &one.endpoint);
            let wait = if open == 1 { "webhook waits" } else { "webhooks wait" };
            handle.notify(Notice::Backlog {
                endpoint: endpoint.as_str().to_owned(),
                waiting: open,
                oldest_ms: one.oldest.and_then(|at| u64::try_from(at.as_millisecond()).ok()),
                line: format!("{open} {wait} for {endpoint}{since}{held}"),
            });
        }
    }
}

/// A session that has been welcomed.
struct Begun<S> {
    session: Session,
    arrivals: Arrivals,
    driver: Box<Driver<S>>,
    notice: BacklogNotice,
}

struct Session {
    token: Arc<str>,
    attached: Attached,
    handle: Handle,
    teller: Teller,
    /// Whether it stands by somewhere; [`Attached::contest`] is due after [`PATIENCE`].
    contested: bool,
    /// An older session of the same agent that had drained.
    finishing: Option<Handle>,
}

/// What an agent's user is told of what waits.
struct BacklogNotice {
    endpoints: Vec<String>,
    skipped: Vec<Skipped>,
}

/// What becomes of an endpoint's backlog that an agent does not want.
enum Skipped {
    /// It is ended, and so many there are.
    Ends(String, oneshot::Receiver<u64>),
    /// It is not this agent's.
    Stays(String),
}

fn welcome(epoch: u64, offered: Vec<String>, answers: &[OfferAnswer], policy: &AttachPolicy, shown: &Shown) -> Welcome {
    let endpoints = offered.into_iter().zip(answers).map(|(name, answer)| answered(name, answer, policy)).collect();
    let available = if answers.iter().any(Result::is_err) {
        policy.open_to(shown).map(|endpoint| endpoint.name.clone()).collect()
    } else {
        Vec::new()
    };
    Welcome { epoch, software: SOFTWARE.to_owned(), endpoints, available }
}

/// Answers a hello whose token was revoked after its upgrade, and closes.
async fn turn_out<S: AsyncRead + AsyncWrite + Unpin>(greeting: Greeting<S>, offered: Vec<String>) {
    let none = AttachPolicy::default();
    let endpoints = offered.into_iter().map(|name| answered(name, &Err("unauthorized"), &none)).collect();
    let welcome = Welcome { epoch: 0, software: SOFTWARE.to_owned(), endpoints, available: Vec::new() };
    let (handle, _, driver) = greeting.welcome(welcome);
    handle.close_when_idle(CloseCode::Unauthorized, REVOKED);
    driver.await;
}

fn answered(offered: String, answer: &OfferAnswer, policy: &AttachPolicy) -> Answer {
    match answer {
        Ok((name, role)) => {
            let endpoint = policy.describe(name);
            Answer {
                endpoint: name.clone(),
                state: offer_state(*role),
                url: endpoint.map(|endpoint| endpoint.url.clone()).unwrap_or_default(),
                provider: endpoint.map(|endpoint| endpoint.provider.clone()).unwrap_or_default(),
            }
        }
        Err(code) => Answer {
            endpoint: offered,
            state: OfferState::Refused { code: (*code).to_owned() },
            url: String::new(),
            provider: String::new(),
        },
    }
}
