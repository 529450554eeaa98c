//! The way of one request to its answer: routed, proven, and handed to an agent or to the store.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::{body::Body as _, upgrade::OnUpgrade};
use relay_proto::{CONNECT_PATH, UpgradeProtocol, may_upgrade};
use relay_schemes::{Refusal, Reply as ChallengeReply};
use tokio::time::{Instant, timeout_at};

use super::{
    client::{self, Untrusted},
    head::{SeenHead, Watch, Watched},
    listener::OpenConnections,
    own::{self, Client, OwnService, OwnServices, Secure},
    prove::{Proven, Prover},
    respond::{self, ResponseBody},
    slots::ConnectionSlot,
    socket::Socket,
};
use crate::{
    access_log::AccessLog,
    address::{is_local, site},
    agents::{Agents, lists},
    client_certificate::ClientCertificate,
    clock::wall,
    config::Timeouts,
    deliver::{HandlerAnswer, LiveContext, LiveNotes, TracedLive, deliver_live},
    delivery::{Delivery, SenderReply, TakenIn},
    endpoint::{Ack, DeliveryPolicy, Endpoint, Replay},
    failure::{AgentFault, Failure, HandlerFault, RelayFault, SenderFault},
    hops::{Hop, Way, Whose},
    journal::{Journal, LiveAnswer, NewsRecord},
    log::LogScope,
    memory::{LIVE_BYTES, Memory},
    metrics::{AnswerClass, Meter},
    quota::{DayIsFull, TokenMeter},
    refused::{Refused, TurnedAway},
    replay_guard::{self, FirstRequest, ReplayGuard, ReplayState, RequestMark, Seen},
    routes::{Matched, Peer, Routed, Routes, SharedRoutes, host_of},
    spans::{SeenAttempt, Tracer},
    throttle::Throttle,
    timer::SharedTimer,
    tls::TlsServer,
    verify::{Payload, Webhook},
    webhook::{
        EventId, Received,
        input::{Input, OpenRequest, RequestBody},
        lines::{Line, LineNotes},
    },
};

/// As long as a token has no more, every webhook of its endpoints is turned away.
static OVER_QUOTA: Throttle = Throttle::new();

/// What a connection's requests have in common.
pub(super) struct Connection {
    /// Where they come from.
    pub(super) peer: Peer,
    /// Their address as text.
    pub(super) address: Bytes,
    /// Whether a proxy brought it and did not say for whom. Then its peer is the proxy, and its requests are somebody's.
    pub(super) is_unnamed: bool,
    pub(super) place: ConnectionSlot,
    pub(super) watch: Arc<Watch>,
    pub(super) input: Arc<Input>,
    pub(super) own: Arc<OwnServices>,
    /// Of its task.
    pub(super) timer: SharedTimer,
    pub(super) shown: ShownIdentity,
}

/// What a peer showed of itself in its handshake.
#[derive(Debug, Default)]
pub(super) struct ShownIdentity {
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// The host that asked for it, and that alone it may be used for; `None` where a listener did.
    pub(super) host: Option<Box<str>>,
}

pub(super) struct Requests {
    pub(super) routes: SharedRoutes,
    pub(super) agents: Arc<Agents>,
    pub(super) delivery: Arc<Delivery>,
    pub(super) refused: Arc<Refused>,
    pub(super) journal: Arc<Journal>,
    pub(super) prover: Prover,
    pub(super) guard: ReplayGuard,
    pub(super) untrusted: Untrusted,
    pub(super) timeouts: Timeouts,
    pub(super) open: OpenConnections,
    pub(super) tls: Arc<TlsServer>,
    pub(super) tracer: Option<Arc<Tracer>>,
    pub(super) access: Option<Arc<AccessLog>>,
}

/// What stands before the API's paths on the public listener.
pub(crate) const API_BASE: &str = "/_relay/v1";

enum Outcome {
    /// With a handler's answer; repeats of this webhook wait for its end.
    Answer(Box<HandlerAnswer>, Option<FirstRequest>),
    /// It is kept, and this is what its sender gets.
    Kept(Box<TakenIn>, Ack),
    /// It was a repeat of an event that had been answered with this status.
    Repeated(StatusCode, EventId),
    /// It was a provider's challenge, and this is the relay's own answer.
    Challenge(ChallengeReply, EventId),
}

/// What the replay guard says of a webhook.
enum Begun {
    First(FirstRequest),
    /// A repeat that is not answered again, or a forgery.
    Refused,
    /// It repeats an event that had been answered with this status.
    Repeats(StatusCode, EventId),
}

/// What is known of a request beside its head.
#[derive(Clone, Copy)]
pub(super) struct KnownHead {
    pub(super) seen: SeenHead,
    pub(super) lines: LineNotes,
}

/// What a request is for, as its head says.
pub(super) enum Asked {
    /// For something that is answered at once.
    Answered(Response<ResponseBody>),
    /// For the relay itself.
    Own(OwnService, Box<Request<RequestBody>>),
    Webhook(Addressed),
}

/// A request to an endpoint.
pub(super) struct Addressed {
    routes: Arc<Routes>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) meter: Arc<Meter>,
    owner: Option<Arc<TokenMeter>>,
    pub(super) received: Box<Received>,
    payload: Payload,
    timer: SharedTimer,
}

impl Requests {
    /// Reads a request's head. Nothing is waited for here.
    pub(super) fn read(
        &self,
        connection: &Connection,
        KnownHead { seen, lines }: KnownHead,
        opened: &mut OpenRequest,
        request: Request<RequestBody>,
    ) -> Asked {
        let (event_id, peer) = (EventId::new(), connection.peer);
        if seen.doubtful {
            return Asked::Answered(respond::failure(SenderFault::BadRequest.into(), event_id));
        }
        if self.is_misdirected(&connection.shown, &request) {
            return Asked::Answered(respond::failure(SenderFault::Misdirected.into(), event_id));
        }
        let routes = self.routes.load_full();
        self.untrusted.note(peer.address, lines, |address| routes.trusts(address));
        match routes.route(&request) {
            Ok(Routed::Relay { path }) if path == CONNECT_PATH => {
                Asked::Answered(self.attach(&routes, connection, request, event_id))
            }
            Ok(Routed::Relay { path }) if is_of_api(&path) => {
                Asked::Own(connection.own.api.clone(), own_request(&routes, connection, request))
            }
            Ok(Routed::Inspector) => {
                Asked::Own(connection.own.inspector.clone(), own_request(&routes, connection, request))
            }
            Ok(Routed::Relay { .. }) => {
                Asked::Answered(respond::failure(SenderFault::UnknownEndpoint.into(), event_id))
            }
            Ok(Routed::Endpoint(Matched { endpoint, meter, owner, host, rest })) => {
                meter.received();
                let (mut head, body) = request.into_parts();
                // A live sender that leaves is not worked for; one that said that it would say no more has not left.
                if endpoint.keeps(&head.method).is_none() && !says_no_more(&head, lines) {
                    opened.end_with_input();
                }
                let upgrade =
                    head.extensions.remove::<OnUpgrade>().filter(|_| wants_upgrade(&head, &body, &endpoint.upgrades));
                let payload = upgrade.map_or(Payload::Streaming(body), Payload::Upgrade);
                let client = client::address(peer.address, &head.headers, |address| routes.trusts(address));
                let ((at, now), url) = (self.delivery.clock.read(), routes.seen_url(&endpoint, peer, &head, &host));
                let front = routes.front(&endpoint, peer, &host);
                let (started, secure, peer) = (seen.started, peer.secure, peer.address);
                let mut way = Way::from(started);
                way.pass(Hop::Received, now);
                // Over HTTP/2, each request is a task.
                let own_task = head.version == Version::HTTP_2;
                let timer = if own_task { SharedTimer::default() } else { connection.timer.clone() };
                let address = connection.address.clone();
                let received = Received {
                    event_id,
                    at,
                    started,
                    read_at: now,
                    way,
                    peer,
                    address,
                    client,
                    secure,
                    certificate: connection.shown.certificate.clone(),
                    front,
                    head,
                    lines,
                    host,
                    url,
                    rest,
                };
                let received = Box::new(received);
                Asked::Webhook(Addressed { routes, endpoint, meter, owner, received, payload, timer })
            }
            Err(fault) => {
                routes.unrouted.inc();
                Asked::Answered(respond::failure(fault.into(), event_id))
            }
        }
    }

    /// Whether a request names a host that this connection was not made for, where that matters: at a host for clients
    /// with a certificate, and on a connection that one of these was shown on (RFC 9110, section 15.5.20). HTTP/2 may
    /// join connections of hosts that have one certificate.
    fn is_misdirected(&self, shown: &ShownIdentity, request: &Request<RequestBody>) -> bool {
        if shown.host.is_none() && !self.tls.has_client_hosts() {
            return false;
        }
        // One without a host is refused for that.
        let Ok(host) = host_of(request) else { return false };
        let wanted = || self.tls.clients_at(&host);
        match &shown.host {
            Some(own) => **own != *host,
            None => wanted().is_some_and(|wanted| shown.certificate.as_ref().is_none_or(|it| it.clients != wanted)),
        }
    }

    pub(super) async fn answer(&self, asked: Asked) -> Response<ResponseBody> {
        match asked {
            Asked::Answered(response) => response,
            Asked::Own(service, request) => Box::pin(own::answer(service, *request)).await,
            Asked::Webhook(Addressed { routes, endpoint, meter, owner, received, payload, timer }) => {
                let (event_id, started) = (received.event_id, received.started);
                let observed = self.observe(&endpoint, &received);
                let scope = LogScope::request(event_id, endpoint.name.clone());
                let answered = async {
                    let outcome = self.webhook(&routes, &endpoint, owner.as_deref(), received, payload, &timer).await;
                    let class = counted(&outcome);
                    let answered_at = match &outcome {
                        Ok(Outcome::Answer(answer, _)) => answer.came_at,
                        _ => Instant::now(),
                    };
                    meter.answered(class, answered_at.duration_since(started), endpoint.deadline);
                    let mut response = answer_to(outcome, &endpoint, event_id);
                    self.note(observed.as_ref(), &endpoint, class, &mut response);
                    tracing::trace!("a request is answered");
                    response
                };
                scope.around(answered).await
            }
        }
    }

    /// Tells a sender that the relay is stopping, where its connection may carry further requests.
    pub(super) fn say_farewell(&self, one_of_many: bool, response: &mut Response<ResponseBody>) {
        if one_of_many && self.open.closing.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// What becomes of a request to an endpoint.
    async fn webhook(
        &self,
        routes: &Arc<Routes>,
        endpoint: &Arc<Endpoint>,
        owner: Option<&TokenMeter>,
        received: Box<Received>,
        payload: Payload,
        timer: &SharedTimer,
    ) -> Result<Outcome, Failure> {
        // Whom its memory is counted for, beside its endpoint.
        let holder = Some(received.client).filter(|it| !is_local(*it) && !routes.trusts(*it)).map(site);
        let (webhook, mut memory) = match self.prover.prove(endpoint, received, holder, payload).await {
            Ok(Proven::Webhook(webhook, memory)) => (webhook, memory),
            Ok(Proven::Answered(reply, event_id)) => {
                self.journal.note(|| self.prover.providers.handshakes.find(event_id).map(NewsRecord::Handshake));
                return Ok(Outcome::Challenge(reply, event_id));
            }
            Err(turned_away) => return Err(self.turn_away(routes, endpoint, *turned_away)),
        };
        if webhook.signed().is_some_and(|signed| self.delivery.own.holds(signed)) {
            return Err(self.turn_back(routes, endpoint, webhook, SenderFault::OwnSignature));
        }
        if let Some(owner) = owner
            && let Err(DayIsFull { wait }) = owner.take(self.delivery.clock.now())
        {
            return Err(self.over_quota(endpoint, webhook.event_id(), RelayFault::QuotaEvents { wait }));
        }
        if let Some(policy) = endpoint.keeps(webhook.method()) {
            let event_id = webhook.event_id();
            let kept = Box::pin(self.keep(routes, endpoint, policy, webhook, memory)).await;
            if let (Err(Failure::Relay(fault @ RelayFault::QuotaStored)), Some(owner)) = (&kept, owner) {
                owner.over_stored.fetch_add(1, Ordering::Relaxed);
                return Err(self.over_quota(endpoint, event_id, *fault));
            }
            return kept;
        }
        let mut outcome = self.once(routes, endpoint, webhook, timer).await;
        if let Ok(Outcome::Answer(answer, _)) = &mut outcome {
            if answer.upload.is_none() {
                memory.shrink_to(LIVE_BYTES); // Its head and its body are on their way.
            }
            answer.memory = Some(memory);
        }
        outcome
    }

    /// Delivers a webhook unless it is an unchanged repeat of one that succeeded.
    async fn once(
        &self,
        routes: &Arc<Routes>,
        endpoint: &Arc<Endpoint>,
        mut webhook: Box<Webhook>,
        timer: &SharedTimer,
    ) -> Result<Outcome, Failure> {
        let first = match webhook.mark().filter(|_| endpoint.replay != Replay::Off) {
            None => None,
            Some(mark) => match Box::pin(self.begin(endpoint, &webhook, mark)).await? {
                Begun::First(running) => {
                    webhook.has_waited(Instant::now());
                    Some(running)
                }
                Begun::Refused => return Err(self.turn_back(routes, endpoint, webhook, SenderFault::Replayed)),
                Begun::Repeats(status, first) => return Ok(Outcome::Repeated(status, first)),
            },
        };
        Ok(Outcome::Answer(self.deliver(routes, endpoint, webhook, timer).await?, first))
    }

    /// Whether a webhook is the first of its kind, or the first one after failures.
    async fn begin(&self, endpoint: &Endpoint, webhook: &Webhook, mark: RequestMark) -> Result<Begun, Failure> {
        let (name, deadline) = (endpoint.name.as_str(), webhook.started() + endpoint.deadline);
        loop {
            match self.guard.begin(name, mark, webhook.event_id(), wall().as_second()) {
                Seen::First(running) => return Ok(Begun::First(running)),
                Seen::OtherBody => return Ok(Begun::Refused),
                Seen::Again { .. } if endpoint.replay == Replay::Refuse => return Ok(Begun::Refused),
                Seen::Again { event_id: first, mut state } => {
                    let settled = timeout_at(deadline, replay_guard::settled(&mut state));
                    match settled.await.map_err(|_| HandlerFault::Deadline)? {
                        ReplayState::Answered(status) => {
                            self.refused.notify_agents(endpoint, first, status, "duplicate");
                            return Ok(Begun::Repeats(status, first));
                        }
                        // The first one failed: this is the sender's honest retry.
                        ReplayState::Failed | ReplayState::Running => {}
                    }
                }
            }
        }
    }

    async fn keep(
        &self,
        routes: &Arc<Routes>,
        endpoint: &Arc<Endpoint>,
        policy: &DeliveryPolicy,
        webhook: Box<Webhook>,
        memory: Memory,
    ) -> Result<Outcome, Failure> {
        let trusted = |address| routes.trusts(address);
        let contested = webhook.contested();
        match (self.delivery.take(endpoint, policy, webhook, memory, &trusted).await, contested) {
            (Ok(taken), _) => Ok(Outcome::Kept(Box::new(taken), policy.ack.clone())),
            (Err(failure), Some((received, body))) => {
                Err(self.turn_away(routes, endpoint, TurnedAway { received, body: Some(body), failure }))
            }
            (Err(failure), None) => Err(failure),
        }
    }

    async fn deliver(
        &self,
        routes: &Routes,
        endpoint: &Arc<Endpoint>,
        webhook: Box<Webhook>,
        timer: &SharedTimer,
    ) -> Result<Box<HandlerAnswer>, Failure> {
        let mut notes = LiveNotes {
            draft: Journal::draft(endpoint, &webhook),
            traced: self.tracer.as_ref().map(|_| TracedLive::of(&webhook)),
            read_at: webhook.received().read_at,
        };
        let event_id = webhook.event_id();
        let trusted = |address| routes.trusts(address);
        let context = LiveContext {
            registry: self.agents.registry(),
            admission: &self.delivery.admission,
            journal: &self.journal,
            trusted: &trusted,
            body_idle: self.timeouts.body_idle,
            upgrade_idle: self.timeouts.upgrade_idle,
            connections: &self.open.tasks,
            timer,
            sampling: self.tracer.as_ref().map(|tracer| tracer.sampling),
        };
        let mut outcome = deliver_live(webhook, endpoint, &context, &mut notes).await;
        if let (Some(tracer), Some(traced)) = (&self.tracer, &notes.traced) {
            let (status, code) = match &outcome {
                Ok(answer) => (Some(answer.head.status.as_u16()), "answered"),
                Err(failure) => (None, failure.code()),
            };
            tracer.attempt(&SeenAttempt {
                id: event_id,
                origin: event_id,
                context: &traced.context.to_text(),
                endpoint: endpoint.name.as_str(),
                number: 1,
                agent: traced.agent.as_deref(),
                way: &traced.way,
                handler_us: outcome.as_ref().ok().and_then(|answer| answer.handler_us),
                status,
                outcome: code,
            });
        }
        if let Some(mut draft) = notes.draft {
            let (whose, answer) = match &outcome {
                Ok(answer) => {
                    let (status, headers) = (answer.head.status.as_u16(), answer.headers.clone());
                    (Whose::Handler, LiveAnswer::Handler { status, headers, sha256_in: answer.sha256_in })
                }
                Err(failure) => {
                    let (code, status) = (failure.code(), respond::of_failure(*failure).status.as_u16());
                    (Whose::Relay, LiveAnswer::Failed { code, status })
                }
            };
            let now = notes.read_at;
            draft.way.answered(whose, Some(answer.status()), now);
            let there = outcome.as_ref().ok().and_then(|answer| answer.whole_body());
            let tap = self.journal.live(draft, endpoint, answer, there.as_ref(), now);
            if let Ok(answer) = &mut outcome {
                answer.tap = tap;
            }
        }
        if let Err(
            failure @ (Failure::Sender(SenderFault::BodyTooLarge { .. })
            | Failure::Agent(AgentFault::Unwanted)
            | Failure::Relay(RelayFault::Limited { .. })),
        ) = outcome
        {
            // Only now it turned out.
            let status = respond::of_failure(failure).status;
            self.refused.notify_agents(endpoint, event_id, status, failure.code());
        }
        outcome
    }

    /// Tells agents and the log that the endpoints of a token take no more.
    fn over_quota(&self, endpoint: &Endpoint, event_id: EventId, fault: RelayFault) -> Failure {
        let failure = Failure::from(fault);
        self.refused.notify_agents(endpoint, event_id, respond::of_failure(failure).status, failure.code());
        if let Some(held_back) = OVER_QUOTA.pass(endpoint.name.as_str()) {
            let owner = endpoint.owner.as_deref().unwrap_or_default();
            tracing::warn!(token = owner, code = failure.code(), held_back, "a token's endpoints take no more");
        }
        failure
    }

    /// Puts on record what must not pass although it is proven.
    fn turn_back(
        &self,
        routes: &Arc<Routes>,
        endpoint: &Arc<Endpoint>,
        webhook: Box<Webhook>,
        fault: SenderFault,
    ) -> Failure {
        let (received, payload, _) = webhook.into_parts();
        self.turn_away(routes, endpoint, TurnedAway::new(received, &payload, fault.into()))
    }

    fn turn_away(&self, routes: &Arc<Routes>, endpoint: &Arc<Endpoint>, turned_away: TurnedAway) -> Failure {
        let failure = turned_away.failure;
        if endpoint.name.is_relays_own() {
            return failure; // It is on nobody's record.
        }
        if failure == Failure::Sender(SenderFault::Unproven(Refusal::TimestampTooNew)) {
            routes.future_dated.inc(); // Its signature is right: that is looked at first.
        }
        let entry = self.refused.record(routes, endpoint, turned_away, respond::of_failure(failure).status);
        self.journal.note(|| entry.map(NewsRecord::Refused));
        failure
    }

    /// Begins an agent's session on this connection.
    fn attach(
        &self,
        routes: &Routes,
        connection: &Connection,
        request: Request<RequestBody>,
        event_id: EventId,
    ) -> Response<ResponseBody> {
        if self.open.closing.is_cancelled() {
            return respond::failure(AgentFault::Absent.into(), event_id);
        }
        let peer = connection.peer.address;
        let client = client::address(peer, request.headers(), |address| routes.trusts(address));
        let accepted = self
            .agents
            .authenticate(client, request.headers(), connection.shown.certificate.as_ref(), &routes.tokens)
            .and_then(|shown| self.agents.accept::<Watched<Socket>, _, _>(request, shown, client, respond::empty()));
        match accepted {
            Ok(response) => {
                connection.place.give_back(); // From now on it is one of the sessions.
                response
            }
            Err(turned) => respond::turned(turned),
        }
    }
}

/// A request to the relay itself, with what its services want to know of where it comes from.
fn own_request(
    routes: &Routes,
    connection: &Connection,
    mut request: Request<RequestBody>,
) -> Box<Request<RequestBody>> {
    let peer = connection.peer;
    let client = client::address(peer.address, request.headers(), |address| routes.trusts(address));
    let secure = routes.is_secure(peer, request.headers());
    request.extensions_mut().insert(Client(client));
    request.extensions_mut().insert(Secure(secure));
    if let Some(certificate) = &connection.shown.certificate {
        request.extensions_mut().insert(Arc::clone(certificate));
    }
    Box::new(request)
}

/// Whether a path below `/_relay/` is one of the API.
fn is_of_api(path: &str) -> bool {
    path.strip_prefix(API_BASE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn answer_to(outcome: Result<Outcome, Failure>, endpoint: &Endpoint, event_id: EventId) -> Response<ResponseBody> {
    match outcome {
        Ok(Outcome::Answer(answer, first)) => respond::answer(answer, first, event_id, endpoint.idle_timeout),
        Ok(Outcome::Kept(taken, ack)) => respond::kept(*taken, &ack),
        Ok(Outcome::Repeated(status, first)) => respond::repeated(status, first),
        Ok(Outcome::Challenge(reply, event_id)) => respond::challenge(reply, event_id),
        Err(failure) => {
            tracing::debug!(cause = failure.cause(), ?failure, "a request got no handler's answer");
            respond::failure(failure, event_id)
        }
    }
}

/// What became of a request, as it is counted.
fn counted(outcome: &Result<Outcome, Failure>) -> AnswerClass {
    match outcome {
        Ok(Outcome::Answer(answer, _)) => AnswerClass::Answered(answer.head.status.as_u16() / 100),
        Ok(Outcome::Kept(taken, _)) => match &taken.reply {
            SenderReply::Answer(answer) => AnswerClass::Answered(answer.status.as_u16() / 100),
            SenderReply::Ack => AnswerClass::Acknowledged,
            SenderReply::Failure(_) => AnswerClass::Failed,
        },
        Ok(Outcome::Repeated(..)) => AnswerClass::Repeated,
        Ok(Outcome::Challenge(..)) => AnswerClass::Challenge,
        Err(failure) => respond::of_failure(*failure).class,
    }
}

/// Whether nothing will follow this request on its connection, so that the end of its input says nothing new.
fn says_no_more(head: &Parts, lines: LineNotes) -> bool {
    head.version == Version::HTTP_10
        || (lines.has(Line::Connection)
            && head.version == Version::HTTP_11
            && lists(&head.headers, &header::CONNECTION, "close"))
}

/// Whether a request asks for another protocol on its connection (RFC 9110, section 7.8), over HTTP/1.1 and without a
/// body, and for one that may pass. Any other wish is left out, and the request is one like any other.
fn wants_upgrade(head: &Parts, body: &RequestBody, named: &[UpgradeProtocol]) -> bool {
    let mut asked = head.headers.get_all(header::UPGRADE).iter();
    head.version == Version::HTTP_11
        && body.is_end_stream()
        && matches!((asked.next(), asked.next()), (Some(only), None) if may_upgrade(only.as_bytes(), named))
        && lists(&head.headers, &header::CONNECTION, "upgrade")
}
