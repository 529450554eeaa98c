//! One exchange with an agent: a request goes out with its body, and an answer comes back.
//!
//! All go this one way: live requests, attempts of kept events, replays. They differ in where the body comes from (a
//! [`BodySource`]) and in who takes the answer (an [`Audience`]). Nothing here keeps, retries or settles anything.
//!
//! Invariants: the answer is waited for until the deadline, by an audience that takes it whole to its end; an answer may
//! come before the request's end; whatever breaks off resets the exchange; nothing switches protocols unasked.

mod answer;
mod silence;
mod source;
mod upgrade;

use std::{
    future::Future,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, response::Parts};
use relay_proto::{HeaderBlock, RequestHead, ResetCode, ResponseHead, limits::MAX_CHUNK_BYTES};
use relay_tunnel::{Broken, Exchange, Receiver, ResponseFuture};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use self::{
    answer::switches_to,
    source::{Copies, Streaming},
    upgrade::{Upgrade, carry},
};
pub(crate) use self::{
    answer::{answer_head, settle_trailers},
    source::{Bodies, BodySource},
};
use crate::{
    admission::{Admission, Admitted},
    agents::registry::{Circuits, Registry, Reservation},
    endpoint::Endpoint,
    failure::{Failure, HandlerFault},
    hops::{Hop, Way},
    journal::{AnswerTap, BodyTap, Draft, Journal},
    log::{self, LogScope},
    memory::Memory,
    message::{brought_trace, live_head},
    store::Outcome,
    timer::SharedTimer,
    trace::{Sampling, TraceContext},
    verify::{Payload, Webhook},
};

/// The answer of a handler, still streaming.
pub(crate) struct HandlerAnswer {
    /// Status and headers, as a sender may see them.
    pub head: Parts,
    /// How long it took, as the agent says.
    pub handler_us: Option<u32>,
    /// What went to it of the request's body, as the agent says.
    pub sha256_in: Option<[u8; 32]>,
    /// The headers as they came.
    pub headers: HeaderBlock,
    pub came_at: Instant,
    pub body: Option<Receiver>,
    /// The rest of the request's body, while the answer came before its end.
    pub upload: Option<Upload>,
    /// What the request takes, while the rest of its body goes on.
    pub memory: Option<Memory>,
    /// Its place among the endpoint's exchanges, until the sender has it all.
    pub admitted: Option<Admitted>,
    /// The journal's look at its body.
    pub tap: Option<AnswerTap>,
}

impl HandlerAnswer {
    /// In a box: it is handed on many times, and large.
    fn new(head: ResponseHead, body: Receiver) -> Result<Box<Self>, Undelivered> {
        let parts = answer_head(&head).map_err(|_| NO_ANSWER)?;
        let ResponseHead { headers, handler_us, sha256_in, .. } = head;
        Ok(Box::new(Self {
            head: parts,
            handler_us,
            sha256_in,
            headers,
            came_at: Instant::now(),
            body: Some(body),
            upload: None,
            memory: None,
            admitted: None,
            tap: None,
        }))
    }

    /// Its body, where both the request and the answer have come to their ends, and it is one short piece.
    pub(crate) fn whole_body(&self) -> Option<Bytes> {
        self.body.as_ref().filter(|_| self.upload.is_none())?.whole()
    }
}

/// A request's body on its way beside the answer. Dropped with the answer, it ends, unless others watch: a copy is
/// whole whether or not the handler wanted all of it.
#[derive(Debug)]
pub(crate) struct Upload {
    task: JoinHandle<()>,
    is_watched: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_watched {
            self.task.abort();
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Undelivered {
    Deadline,
    /// The request's body could not be sent whole.
    Body(Failure),
    Broken(Broken),
}

const NO_ANSWER: Undelivered = Undelivered::Broken(Broken::Reset(ResetCode::Broken));

impl From<Undelivered> for Failure {
    fn from(why: Undelivered) -> Self {
        match why {
            Undelivered::Deadline => HandlerFault::Deadline.into(),
            Undelivered::Body(failure) => failure,
            Undelivered::Broken(broken) => Outcome::from(broken).into(),
        }
    }
}

impl From<Undelivered> for Outcome {
    fn from(why: Undelivered) -> Self {
        match why {
            Undelivered::Deadline => Self::Timeout,
            Undelivered::Body(_) => Self::Broken,
            Undelivered::Broken(broken) => broken.into(),
        }
    }
}

impl From<Broken> for Undelivered {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

pub(crate) trait Audience {
    type Taken;

    fn take(self, answer: Box<HandlerAnswer>) -> impl Future<Output = Result<Self::Taken, Undelivered>> + Send;
}

pub(crate) enum Call {
    /// The whole request is on its way.
    Sent(ResponseFuture),
    /// In a box: it is large, and most requests are whole.
    Sending(Box<Sending>),
}

/// A request whose body is still to be sent.
pub(crate) struct Sending {
    exchange: Exchange,
    source: BodySource,
    copies: Copies,
}

impl Call {
    pub(crate) fn open(place: Reservation, head: RequestHead, source: BodySource) -> Self {
        match source {
            BodySource::Whole(body) if body.as_ref().is_none_or(|body| body.len() <= MAX_CHUNK_BYTES) => {
                Self::Sent(place.open_whole(head, body.unwrap_or_default()))
            }
            source => Self::sending(place, head, source, Copies::default()),
        }
    }

    /// Opens an exchange, and copies of it for those that watch. Of a connection that may switch protocols there are
    /// none.
    pub(crate) fn open_copied(
        registry: &Registry,
        kind: Option<&str>,
        place: Reservation,
        head: RequestHead,
        (source, tap): (BodySource, Option<Arc<BodyTap>>),
    ) -> Self {
        let mirror = match source {
            BodySource::Upgrade(_) => None,
            _ if !place.may_be_watched => None,
            _ => {
                let name = String::from_utf8_lossy(&head.endpoint);
                registry.mirror(&name, kind, || RequestHead { fence: None, asks_sha256: false, ..head.clone() })
            }
        };
        match (mirror, tap) {
            (None, None) => Self::open(place, head, source),
            (mirror, tap) => Self::sending(place, head, source, Copies { mirror, tap }),
        }
    }

    fn sending(place: Reservation, head: RequestHead, source: BodySource, copies: Copies) -> Self {
        Self::Sending(Box::new(Sending { exchange: place.open(head), source, copies }))
    }
}

/// Sends the request, and gives the answer to its audience, which has until `deadline`.
pub(crate) async fn deliver<A: Audience>(call: Call, deadline: Instant, audience: A) -> Result<A::Taken, Undelivered> {
    let exchange = async { audience.take(answer(call).await?).await };
    timeout_at(deadline, exchange).await.unwrap_or(Err(Undelivered::Deadline))
}

async fn answer(call: Call) -> Result<Box<HandlerAnswer>, Undelivered> {
    match call {
        Call::Sent(response) => {
            let (head, body) = response.head().await?;
            let answer = HandlerAnswer::new(head, body)?;
            if answer.head.status == StatusCode::SWITCHING_PROTOCOLS { Err(NO_ANSWER) } else { Ok(answer) }
        }
        Call::Sending(sending) => match *sending {
            Sending { exchange, source: BodySource::Upgrade(upgrade), copies: _ } => {
                Box::pin(switched(exchange, upgrade)).await
            }
            Sending { exchange, source, copies } => Box::pin(streamed(exchange, source, copies)).await,
        },
    }
}

/// The answer to who asked to switch protocols.
async fn switched(exchange: Exchange, upgrade: Box<Upgrade>) -> Result<Box<HandlerAnswer>, Undelivered> {
    let Exchange { request, response } = exchange;
    let (head, body) = response.head().await?;
    let mut answer = HandlerAnswer::new(head, body)?;
    if answer.head.status != StatusCode::SWITCHING_PROTOCOLS {
        request.finish(HeaderBlock::new());
        answer.admitted = upgrade.admitted;
    } else if !switches_to(&answer.head.headers, &upgrade.asked) {
        return Err(NO_ANSWER);
    } else if let Some(body) = answer.body.take() {
        let connections = upgrade.connections.clone();
        drop(connections.spawn(LogScope::current().around(carry(*upgrade, request, body))));
    }
    Ok(answer)
}

/// The answer to a request whose body is sent as it comes.
async fn streamed(exchange: Exchange, source: BodySource, copies: Copies) -> Result<Box<HandlerAnswer>, Undelivered> {
    let Exchange { request, response } = exchange;
    let is_watched = copies.mirror.is_some();
    let mut upload: Pin<Box<_>> = Box::pin(source.upload(request, copies));
    let response = response.head();
    tokio::pin!(response);
    let early = tokio::select! {
        biased;
        response = &mut response => Some(response?),
        sent = &mut upload => {
            sent.map_err(Undelivered::Body)?;
            None
        }
    };
    let (is_early, (head, body)) = match early {
        Some(response) => (true, response),
        None => (false, response.await?),
    };
    let mut answer = HandlerAnswer::new(head, body)?;
    if answer.head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(NO_ANSWER); // Nobody asked for it.
    }
    if is_early {
        let rest = async move {
            // A failure breaks the exchange, which the answer's audience sees.
            if let Err(failure) = upload.await {
                tracing::debug!(?failure, "a request broke off while its answer was under way");
            }
        };
        answer.upload = Some(Upload { task: tokio::spawn(LogScope::current().around(rest)), is_watched });
    }
    Ok(answer)
}

/// Whose `X-Forwarded-…` headers are kept.
pub(crate) type Trusted<'a> = &'a (dyn Fn(IpAddr) -> bool + Sync);

pub(crate) struct LiveContext<'a> {
    pub registry: &'a Registry,
    pub admission: &'a Arc<Admission>,
    pub journal: &'a Journal,
    /// Whose `X-Forwarded-…` headers are kept.
    pub trusted: Trusted<'a>,
    /// Longest silence while a request's body comes.
    pub body_idle: Duration,
    /// Longest silence of an upgraded connection.
    pub upgrade_idle: Duration,
    pub connections: &'a TaskTracker,
    /// That of the task which polls the delivery.
    pub timer: &'a SharedTimer,
    /// Which traces are recorded, where any are.
    pub sampling: Option<Sampling>,
}

/// What is noted of a live webhook on its way.
pub(crate) struct LiveNotes {
    /// For the journal.
    pub draft: Option<Draft>,
    /// For its trace.
    pub traced: Option<TracedLive>,
    /// The moment that was read last.
    pub read_at: Instant,
}

/// The way of a live webhook whose trace is recorded.
pub(crate) struct TracedLive {
    pub context: TraceContext,
    pub way: Way,
    pub agent: Option<Arc<str>>,
}

impl TracedLive {
    pub(crate) fn of(webhook: &Webhook) -> Self {
        let received = webhook.received();
        let context = brought_trace(&received.head.headers);
        let context = context.unwrap_or_else(|| TraceContext::begin(received.event_id));
        Self { context, way: received.way, agent: None }
    }
}

impl LiveNotes {
    fn pass(&mut self, hop: Hop, now: Instant) {
        self.read_at = now;
        if let Some(draft) = &mut self.draft {
            draft.way.pass(hop, now);
        }
        if let Some(traced) = &mut self.traced {
            traced.way.pass(hop, now);
        }
    }

    fn opened(&mut self, agent: &Arc<str>, now: Instant) {
        self.read_at = now;
        if let Some(draft) = &mut self.draft {
            draft.opened(agent, now);
        }
        if let Some(traced) = &mut self.traced {
            traced.agent = Some(Arc::clone(agent));
            traced.way.pass(Hop::Opened, now);
        }
    }
}

/// Delivers a webhook that is not kept, and returns the handler's answer once its head is there. What the journal keeps
/// of it is added to the notes.
pub(crate) async fn deliver_live(
    mut webhook: Box<Webhook>,
    endpoint: &Endpoint,
    context: &LiveContext<'_>,
    notes: &mut LiveNotes,
) -> Result<Box<HandlerAnswer>, Failure> {
    let deadline = webhook.started() + endpoint.deadline;
    let now = webhook.received().read_at;
    notes.pass(Hop::Attempt, now);
    let patience = (now + endpoint.wait_for_agent).min(deadline);
    let (place, mut admitted) = match reserved(&webhook, endpoint, context, patience).await {
        Ok(reserved) => reserved,
        Err(failure) => {
            notes.read_at = Instant::now();
            if let Some(draft) = &mut notes.draft {
                draft.describe(webhook.take_event());
                let (head, payload) = live_head(&endpoint.name, webhook, context.trusted, context.sampling);
                draft.sent(context.journal, endpoint, &head, &payload);
            }
            return Err(failure);
        }
    };
    notes.opened(&place.agent().name, if place.was_awaited { Instant::now() } else { now });
    let call = open_live(webhook, endpoint, context, place, (&mut admitted, &mut notes.draft));
    // Its sender reads the answer itself, as it comes.
    let answered = context.timer.timeout_at(deadline, pin!(answer(call))).await;
    let answered = answered.unwrap_or(Err(Undelivered::Deadline));
    match &answered {
        Ok(answer) => notes.pass(Hop::AnswerHead, answer.came_at),
        Err(_) => notes.pass(Hop::Ended, Instant::now()),
    }
    let mut answer = answered?;
    answer.admitted = answer.admitted.or(admitted);
    Ok(answer)
}

/// A place with an agent that takes webhooks of this type, and the right of the endpoint to one more exchange.
async fn reserved(
    webhook: &Webhook,
    endpoint: &Endpoint,
    context: &LiveContext<'_>,
    patience: Instant,
) -> Result<(Reservation, Option<Admitted>), Failure> {
    context.admission.room(endpoint, 1)?;
    let (name, kind) = (endpoint.name.as_str(), webhook.event().kind.as_deref());
    let place = context.registry.reserve_or_wait(name, kind, Circuits::Ignored, patience).await?;
    log::agent_is(&place.agent().name);
    let admitted = context.admission.take(endpoint)?;
    Ok((place, admitted))
}

fn open_live(
    mut webhook: Box<Webhook>,
    endpoint: &Endpoint,
    context: &LiveContext<'_>,
    place: Reservation,
    (admitted, draft): (&mut Option<Admitted>, &mut Option<Draft>),
) -> Call {
    let event = webhook.take_event();
    let (mut head, payload) = live_head(&endpoint.name, webhook, context.trusted, context.sampling);
    head.asks_sha256 = draft.is_some() && context.journal.compares(endpoint, &payload);
    let tap = draft.as_mut().and_then(|draft| draft.sent(context.journal, endpoint, &head, &payload));
    let source = match payload {
        Payload::Whole(body) => BodySource::whole(body),
        Payload::Long(body, _) => BodySource::File(body.clone(), 0..body.size()),
        Payload::Streaming(body) => BodySource::Streaming(Streaming {
            body,
            sent_bytes: 0,
            max_bytes: endpoint.max_body,
            idle: context.body_idle,
        }),
        Payload::Upgrade(connection) => BodySource::Upgrade(Box::new(Upgrade {
            connection,
            asked: head.upgrade.clone(),
            silence: context.upgrade_idle,
            connections: context.connections.clone(),
            admitted: admitted.take(),
        })),
    };
    let call = Call::open_copied(context.registry, event.kind.as_deref(), place, head, (source, tap));
    if let Some(draft) = draft {
        draft.describe(event);
    }
    call
}
