//! The public door: connections, the stack, and the way of one request to its answer.
//!
//! What agents ask about kept events has its own room, [`api`]. A webhook is routed, its body collected where its proof needs it, verified, and handed to
//! dispatch. Errors become statuses in [`respond`] alone.

pub(crate) mod api;
pub(crate) mod client;
pub(crate) mod collect;
pub(crate) mod explain;
pub(crate) mod head;
pub(crate) mod listener;
mod prove;
pub(crate) mod respond;
pub(crate) mod route;
pub(crate) mod slots;
pub(crate) mod socket;
pub(crate) mod stack;
mod streams;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::{body::Body as _, upgrade::OnUpgrade};
use relay_proto::{CONNECT_PATH, Notice, UpgradeProtocol, may_upgrade};
use relay_schemes::Reply as ChallengeReply;
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    api::Asking,
    explain::Explainer,
    head::Watched,
    prove::{Proven, TurnedAway, prove, record},
    respond::Body,
    route::{Routed, Routes},
    slots::Place,
    socket::Socket,
};
use crate::{
    address::{is_local, site},
    agents::{
        accept::{self, Turned},
        guesses::Guesses,
        registry::Registry,
        token::Shown,
    },
    clock::wall,
    delivery::{Delivery, Reply, Taken},
    dispatch,
    endpoint::{Ack, Endpoint, Keeping, Replay},
    failure::{AgentFault, Failure, HandlerFault, RelayFault, SenderFault},
    memory::{Budget, LIVE_BYTES, Memory},
    metrics::{AnswerClass, Gauges, Metrics},
    providers::Providers,
    refused::{self, RefusedLog, Tell, Telling},
    replay::{self, Replays, Running, Seen},
    state::StateDir,
    verify::{Payload, Webhook},
    webhook::{
        EventId, Received,
        input::{OpenRequest, RequestBody},
    },
};

/// What all public connections share.
pub(crate) struct Door {
    /// Endpoints, tokens and trusted proxies; replaced as a whole on reload.
    pub routes: ArcSwap<Routes>,
    /// What is counted.
    pub metrics: Metrics,
    /// The attached agents.
    pub registry: Arc<Registry>,
    /// Kept events on their way.
    pub delivery: Arc<Delivery>,
    /// What their sessions run under.
    pub terms: accept::Terms,
    /// Challenges, learnt secrets and fetched keys.
    pub providers: Arc<Providers>,
    /// The relay's own small files.
    pub _state: StateDir,
    /// Why requests were refused.
    pub explainer: Explainer,
    /// What was turned away.
    pub refused: RefusedLog,
    /// What agents are told of it.
    pub telling: Arc<Telling>,
    /// What agents ask for at the moment.
    pub asking: Asking,
    /// What was delivered a moment ago.
    pub replays: Replays,
    /// Proxies that nobody has named.
    pub untrusted: client::Untrusted,
    /// The wrong tokens of the last seconds.
    pub guesses: Guesses,
    /// Memory for heads and collected bodies.
    pub memory: Arc<Budget>,
    /// Largest request head, in bytes; hyper's own bound is a little above it.
    pub max_head: usize,
    /// Longest silence while a request's body comes.
    pub body_idle: Duration,
    /// Longest silence of an upgraded connection.
    pub upgrade_idle: Duration,
    /// Longest time for a body that is collected.
    pub body_total: Duration,
    /// Cancelled when the relay stops taking connections.
    pub closing: CancellationToken,
    /// Public connections.
    pub connections: TaskTracker,
    /// Agents' sessions.
    pub sessions: TaskTracker,
}

impl Door {
    /// What there is at this moment.
    pub(crate) async fn gauges(&self) -> Gauges {
        Gauges {
            waiting: self.delivery.waiting().await,
            stored: self.delivery.stored(),
            sessions: self.registry.len(),
            exchanges: self.registry.in_flight(),
            connections: self.connections.len(),
            body_bytes: self.memory.held(),
            dropped_copies: self.registry.dropped_copies(),
            unwritten_refusals: self.refused.lost(),
        }
    }
}

/// What a connection's requests have in common.
pub(crate) struct Connection {
    /// Where they come from.
    pub origin: Origin,
    /// The connection's place among those of the listener.
    pub place: Place,
}

/// What a connection knows about its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The other end's address.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// Answers one public request.
pub(crate) async fn handle(
    door: Arc<Door>,
    connection: &Connection,
    seen: head::Seen,
    opened: &mut OpenRequest,
    request: Request<RequestBody>,
) -> Response<Body> {
    let one_of_many = matches!(request.version(), Version::HTTP_10 | Version::HTTP_11);
    let mut response = answer(&door, connection, seen, opened, request).await;
    if one_of_many && door.closing.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(
    door: &Arc<Door>,
    connection: &Connection,
    seen: head::Seen,
    opened: &mut OpenRequest,
    request: Request<RequestBody>,
) -> Response<Body> {
    let (event_id, origin) = (EventId::new(), connection.origin);
    if seen.doubtful {
        return respond::failure(SenderFault::BadRequest.into(), event_id);
    }
    let started = seen.started;
    let routes = door.routes.load_full();
    door.untrusted.note(origin.peer, request.headers(), |address| routes.trusts(address));
    let routed = match routes.route(&request) {
        Ok(routed) => routed,
        Err(fault) => {
            door.metrics.unrouted();
            return respond::failure(fault.into(), event_id);
        }
    };
    match routed {
        Routed::Relay { path } if path == CONNECT_PATH => attach(door, &routes, connection, request, event_id),
        Routed::Relay { path } if path.starts_with(api::PREFIX) => {
            api::answer(door, &routes, origin, &path, &request).await
        }
        Routed::Relay { .. } => respond::failure(SenderFault::UnknownEndpoint.into(), event_id),
        Routed::Endpoint { endpoint, meter, host, rest } => {
            meter.received();
            let (mut head, body) = request.into_parts();
            // A live sender that leaves is not worked for; one that said that it would say no more has not left.
            if endpoint.keeps(&head.method).is_none() && !says_no_more(&head) {
                opened.end_with_input();
            }
            let upgrade =
                head.extensions.remove::<OnUpgrade>().filter(|_| wants_upgrade(&head, &body, &endpoint.upgrades));
            let (peer, secure) = (origin.peer, origin.secure);
            let client = client::address(peer, &head.headers, |address| routes.trusts(address));
            let (at, url) = (door.delivery.clock.now(), routes.seen_url(&endpoint, origin, &head, &host));
            let front = routes.front(&endpoint, origin, &host);
            let received = Received { event_id, at, started, peer, client, secure, front, head, host, url, rest };
            let holder = Some(client).filter(|it| !is_local(*it) && !routes.trusts(*it)).map(site);
            let outcome = match prove(door, &endpoint, received, holder, (body, upgrade)).await {
                Ok(Proven::Webhook(webhook, mut memory)) => match endpoint.keeps(webhook.method()) {
                    Some(keeping) => keep(door, &routes, &endpoint, keeping, webhook, memory).await,
                    None => {
                        let mut outcome = once(door, &routes, &endpoint, webhook).await;
                        if let Ok(Outcome::Answer(answer, _)) = &mut outcome {
                            if answer.upload.is_none() {
                                memory.shrink_to(LIVE_BYTES); // Its head and its body are on their way.
                            }
                            answer.memory = Some(memory);
                        }
                        outcome
                    }
                },
                Ok(Proven::Answered(reply, event_id)) => Ok(Outcome::Challenge(reply, event_id)),
                Err(turned_away) => Err(record(door, &routes, &endpoint, *turned_away)),
            };
            meter.answered(counted(&outcome), started.elapsed());
            match outcome {
                Ok(Outcome::Answer(answer, first)) => respond::answer(answer, first, event_id, endpoint.idle_timeout),
                Ok(Outcome::Kept(taken, ack)) => respond::kept(taken, &ack),
                Ok(Outcome::Repeated(status, first)) => respond::repeated(status, first),
                Ok(Outcome::Challenge(reply, event_id)) => respond::challenge(reply, event_id),
                Err(failure) => {
                    tracing::debug!(%event_id, endpoint = %endpoint.name, cause = failure.cause(), ?failure, "a request got no handler's answer");
                    respond::failure(failure, event_id)
                }
            }
        }
    }
}

/// What became of a request, as it is counted.
fn counted(outcome: &Result<Outcome, Failure>) -> AnswerClass {
    match outcome {
        Ok(Outcome::Answer(answer, _)) => AnswerClass::Answered(answer.head.status.as_u16() / 100),
        Ok(Outcome::Kept(Taken { reply: Reply::Answer(answer), .. }, _)) => {
            AnswerClass::Answered(answer.status.as_u16() / 100)
        }
        Ok(Outcome::Kept(Taken { reply: Reply::Ack, .. }, _)) => AnswerClass::Acknowledged,
        Ok(Outcome::Kept(Taken { reply: Reply::Failure(_), .. }, _)) => AnswerClass::Failed,
        Ok(Outcome::Repeated(..)) => AnswerClass::Repeated,
        Ok(Outcome::Challenge(..)) => AnswerClass::Challenge,
        Err(failure) => respond::of_failure(*failure).class,
    }
}

/// How a webhook ended.
enum Outcome {
    /// With a handler's answer; repeats of this webhook wait for its end.
    Answer(dispatch::Answer, Option<Running>),
    /// It is kept, and this is what its sender gets.
    Kept(Taken, Ack),
    /// It was a repeat of an event that had been answered with this status.
    Repeated(StatusCode, EventId),
    /// It was a provider's challenge, and this is the relay's own answer.
    Challenge(ChallengeReply, EventId),
}

/// Delivers a webhook unless it is an unchanged repeat of one that succeeded.
async fn once(
    door: &Arc<Door>,
    routes: &Arc<Routes>,
    endpoint: &Arc<Endpoint>,
    webhook: Webhook,
) -> Result<Outcome, Failure> {
    let Some(mark) = webhook.mark().filter(|_| endpoint.replay != Replay::Off) else {
        return Ok(Outcome::Answer(deliver(door, routes, endpoint, webhook).await?, None));
    };
    let (name, deadline) = (endpoint.name.as_str(), webhook.started() + endpoint.deadline);
    loop {
        match door.replays.begin(name, mark, webhook.event_id(), wall().as_second()) {
            Seen::First(running) => {
                return Ok(Outcome::Answer(deliver(door, routes, endpoint, webhook).await?, Some(running)));
            }
            Seen::OtherBody => return Err(replayed(door, routes, endpoint, webhook)),
            Seen::Again { .. } if endpoint.replay == Replay::Refuse => {
                return Err(replayed(door, routes, endpoint, webhook));
            }
            Seen::Again { event_id: first, mut state } => {
                match timeout_at(deadline, replay::settled(&mut state)).await.map_err(|_| HandlerFault::Deadline)? {
                    replay::State::Answered(status) => {
                        tell_agents(door, endpoint, first, status, "duplicate");
                        return Ok(Outcome::Repeated(status, first));
                    }
                    // The first one failed: this is the sender's honest retry.
                    replay::State::Failed | replay::State::Running => {}
                }
            }
        }
    }
}

/// Puts on record what came again and must not pass.
fn replayed(door: &Arc<Door>, routes: &Arc<Routes>, endpoint: &Arc<Endpoint>, webhook: Webhook) -> Failure {
    let (received, payload, _) = webhook.into_parts();
    let body = if let Payload::Whole(body) = payload { Some(body) } else { None };
    record(door, routes, endpoint, TurnedAway { received, body, failure: SenderFault::Replayed.into() })
}

/// The second half of a kept webhook's way: into the store, and from there to an agent.
async fn keep(
    door: &Arc<Door>,
    routes: &Arc<Routes>,
    endpoint: &Arc<Endpoint>,
    keeping: &Keeping,
    webhook: Webhook,
    memory: Memory,
) -> Result<Outcome, Failure> {
    let trusted = |address| routes.trusts(address);
    let contested = webhook.contested();
    match (door.delivery.take(endpoint, keeping, (webhook, memory), &trusted).await, contested) {
        (Ok(taken), _) => Ok(Outcome::Kept(taken, keeping.ack.clone())),
        (Err(failure), Some((received, body))) => {
            Err(record(door, routes, endpoint, TurnedAway { received, body: Some(body), failure }))
        }
        (Err(failure), None) => Err(failure),
    }
}

/// The second half: to an agent and back.
async fn deliver(
    door: &Door,
    routes: &Routes,
    endpoint: &Endpoint,
    webhook: Webhook,
) -> Result<dispatch::Answer, Failure> {
    let event_id = webhook.event_id();
    let trusted = |address| routes.trusts(address);
    let means = dispatch::Means {
        registry: &door.registry,
        limits: &door.delivery.limits,
        trusted: &trusted,
        body_idle: door.body_idle,
        upgrade_idle: door.upgrade_idle,
        connections: &door.connections,
    };
    let outcome = dispatch::deliver(webhook, endpoint, means).await;
    if let Err(
        failure @ (Failure::Sender(SenderFault::BodyTooLarge { .. })
        | Failure::Agent(AgentFault::Unwanted)
        | Failure::Relay(RelayFault::Limited { .. })),
    ) = outcome
    {
        // Only now it turned out.
        tell_agents(door, endpoint, event_id, respond::of_failure(failure).status, failure.code());
    }
    outcome
}

/// Whether nothing will follow this request on its connection, so that the end of its input says nothing new.
fn says_no_more(head: &Parts) -> bool {
    head.version == Version::HTTP_10
        || (head.version == Version::HTTP_11 && accept::lists(&head.headers, &header::CONNECTION, "close"))
}

/// Whether a request asks for another protocol on its connection (RFC 9110, section 7.8), over HTTP/1.1 and without a
/// body, and for one that may pass. Any other wish is left out, and the request is one like any other.
fn wants_upgrade(head: &Parts, body: &RequestBody, named: &[UpgradeProtocol]) -> bool {
    let mut asked = head.headers.get_all(header::UPGRADE).iter();
    head.version == Version::HTTP_11
        && body.is_end_stream()
        && matches!((asked.next(), asked.next()), (Some(only), None) if may_upgrade(only.as_bytes(), named))
        && accept::lists(&head.headers, &header::CONNECTION, "upgrade")
}

fn attach(
    door: &Arc<Door>,
    routes: &Routes,
    connection: &Connection,
    request: Request<RequestBody>,
    event_id: EventId,
) -> Response<Body> {
    if door.closing.is_cancelled() {
        return respond::failure(AgentFault::Absent.into(), event_id);
    }
    let known = known(door, routes, connection.origin, request.headers());
    let shown = match known.and_then(|shown| accept::check(&request).map(|()| shown)) {
        Ok(shown) => shown,
        Err(turned) => return respond::turned(turned),
    };
    let accepted =
        accept::accept::<Watched<Socket>, _, _>(request, shown, door.terms.clone(), &door.sessions, respond::empty());
    match accepted {
        Ok(response) => {
            connection.place.give_back(); // From now on it is one of the sessions.
            response
        }
        Err(turned) => respond::turned(turned),
    }
}

/// Whose token a request under `/_relay/` shows. Wrong ones are counted for its address, and slowed beyond a number; a
/// right one passes whoever else comes from there, since a whole company may be one address.
fn known(door: &Door, routes: &Routes, origin: Origin, headers: &HeaderMap) -> Result<Shown, Turned> {
    let (client, now) = (client::address(origin.peer, headers, |it| routes.trusts(it)), Instant::now());
    let known = accept::token_of(headers, &routes.tokens);
    if matches!(known, Err(Turned::Unauthorized)) {
        if let Some(left) = door.guesses.too_many(client, now) {
            return Err(Turned::TooManyGuesses { left });
        }
        door.guesses.count(client, now);
    }
    known
}

/// Tells the endpoint's agents of a request that was answered before it could reach them; of many, how many there were.
fn tell_agents(door: &Door, endpoint: &Endpoint, event_id: EventId, status: StatusCode, code: &str) {
    match door.telling.count(endpoint.name.as_str(), Instant::now()) {
        Tell::Now => {}
        Tell::Counted => return,
        Tell::Later => {
            let (registry, telling, name) =
                (Arc::clone(&door.registry), Arc::clone(&door.telling), endpoint.name.clone());
            tokio::spawn(async move {
                tokio::time::sleep(refused::SECOND).await;
                let (more, name) = (telling.take(name.as_str()), name.as_str());
                let plural = if more == 1 { "request was" } else { "requests were" };
                registry.notify(name, &Notice::Text(format!("{more} more {plural} refused at {name}")));
            });
            return;
        }
    }
    let notice = Notice::Refused {
        endpoint: endpoint.name.as_str().to_owned(),
        event_id: *event_id.as_bytes(),
        status: status.as_u16(),
        code: code.to_owned(),
        provider: endpoint.verify.provider_name().to_owned(),
    };
    door.registry.notify(endpoint.name.as_str(), &notice);
}
