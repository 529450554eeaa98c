//! One attempt: an agent, a call, an answer; then the event is settled.
//!
//! The attempt belongs to nobody's request: a sender that waits hears of it and may leave. A link that breaks under
//! it is no end yet: the agent tells in its next session what became of the call.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, response::Parts};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use relay_proto::{HeaderBlock, OutcomeState, RequestHead, ResetCode};
use relay_tunnel::{Broken, Exchange, Receiver, Sender, http::one_length};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

use super::{Answer, Bodies, Delivery, Piece, Reply, Told, intake::told, sign, window::Window};
use crate::{
    agents::{
        copies::Tee,
        outcomes::Expected,
        registry::{ChooseError, Heed, Place},
        targets::Target,
    },
    dispatch::{Upload, answer_head, settle_trailers},
    endpoint::{Endpoint, EndpointName, Keeping},
    failure::Failure,
    limits::Turn,
    memory::Memory,
    retry::{Meaning, retry_after},
    store::{self, Attempt, End, Head, Lease, MAX_ANSWER_BYTES, Outcome, Reason, Summary, Then},
    throttle::Throttle,
    webhook::EventId,
};

static NOT_SIGNED: Throttle = Throttle::new();

/// How long an event rests whose handler was not called.
const REST: Duration = Duration::from_secs(1);

/// How long an event rests that no attached agent takes.
const UNWANTED_REST: Duration = Duration::from_secs(30);

/// Pieces of a long answer that wait for its sender.
const MAX_PIECES: usize = 8;

/// What is read of a kept body at a time. An attempt holds so much while its handler takes nothing, so it is less than
/// the store would give.
const PART_BYTES: u64 = 256 * 1024;

/// How long a sender may take for a piece of a long answer before the answer goes on without it.
const PIECE_PATIENCE: Duration = Duration::from_secs(30);

/// An event with the right to attempt it.
pub(super) struct Event {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) keeping: Keeping,
    pub(super) id: EventId,
    pub(super) head: Head,
    pub(super) kind: Option<String>,
    pub(super) sender_id: Option<String>,
    pub(super) content: Content,
    /// What its request took of the memory for all; held as long as the event.
    pub(super) _memory: Option<Memory>,
    pub(super) lease: Lease,
    /// The event that it repeats.
    pub(super) replay_of: Option<EventId>,
    /// A person asked its sender for it.
    pub(super) redelivered: bool,
}

impl Event {
    /// An event as the store gives it, unless its endpoint keeps nothing any more.
    pub(super) fn of(
        endpoint: &Arc<Endpoint>,
        summary: Summary,
        head: Head,
        body: Option<Bytes>,
        lease: Lease,
    ) -> Option<Self> {
        Some(Self {
            endpoint: Arc::clone(endpoint),
            keeping: endpoint.keeping.clone()?,
            id: summary.id,
            head,
            kind: summary.event_type,
            sender_id: summary.sender_id,
            content: body.map_or(Content::Kept(summary.id, summary.size), Content::Whole),
            _memory: None,
            lease,
            replay_of: summary.replay_of,
            redelivered: summary.redelivered,
        })
    }
}

/// An event's body.
pub(super) enum Content {
    Whole(Bytes),
    /// In the store, as this event's, so many bytes.
    Kept(EventId, u64),
}

/// A sender that waits, and its repeats.
type Waiting = Option<(oneshot::Sender<Reply>, watch::Sender<Told>)>;

/// How a call ended.
pub(super) enum Ending {
    Answered(store::Answer),
    Failed(Outcome),
}

/// Attempts an event and settles it; whether it was delivered. Waits for an agent until `patience`.
pub(super) async fn run(delivery: &Delivery, mut event: Event, patience: Instant, waiting: Waiting) -> bool {
    let (started_at, begun) = (delivery.clock.now(), Instant::now());
    let endpoint = Arc::clone(&event.endpoint);
    let name = endpoint.name.as_str();
    let mut audience = Audience { waiting, ..Audience::default() };
    let (place, turn) = match place(delivery, &event, patience).await {
        Ok(held) => held,
        Err(rest) => {
            audience.tell(Reply::Ack);
            let then = Then::Release(after(rest, started_at));
            settle(delivery, &event, (started_at, begun, None), Ending::Failed(Outcome::NotCalled), then).await;
            return false;
        }
    };
    let afresh = sign::afresh(delivery, &mut event).await.unwrap_or_else(|error| {
        if let Some(held_back) = NOT_SIGNED.pass(name) {
            let event_id = event.id;
            tracing::warn!(endpoint = name, %event_id, %error, held_back, "an event goes out as it came, not signed afresh");
        }
        None
    });
    let limit = Instant::now() + event.keeping.attempt_timeout;
    let agent = place.agent().clone();
    let mut expected = delivery.outcomes.expect(*event.id.as_bytes(), event.lease.fence, agent.clone());
    let head = told(&event, afresh, Some(event.lease.fence));
    let copies = delivery.registry.copies(name, event.kind.as_deref(), || RequestHead { fence: None, ..head.clone() });
    let (target, probe) = (place.target().clone(), place.is_probe());
    let exchange = place.open(head);
    let ending = match timeout_at(limit, call(exchange, copies, &event, delivery, &mut audience)).await {
        Err(_) => Ending::Failed(Outcome::Timeout),
        Ok(Ok(answer)) => Ending::Answered(answer),
        Ok(Err(Broken::SessionLost)) => told_later(&mut expected, &event, limit).await,
        Ok(Err(Broken::Reset(code))) => Ending::Failed(code.into()),
    };
    drop(turn); // The handler is done: a sender that hears of it may send the next one.
    let meaning = meaning(&ending, &event.keeping, audience.waits());
    let then = audience.hear(&ending, meaning, &event, delivery.clock.now());
    note(delivery, &event, (&target, probe), &ending, meaning);
    let lost = matches!(ending, Ending::Failed(Outcome::Lost));
    settle(delivery, &event, (started_at, begun, Some(agent.name.to_string())), ending, then).await;
    // Until it is settled, what is told again of it is not news.
    if lost {
        expected.lost();
    } else {
        drop(expected);
    }
    meaning == Meaning::Success
}

/// An agent for an event, and the right of its endpoint to one more exchange; or how long the event rests.
async fn place(delivery: &Delivery, event: &Event, patience: Instant) -> Result<(Place, Option<Turn>), Duration> {
    let (name, kind) = (event.endpoint.name.as_str(), event.kind.as_deref());
    let place = delivery.registry.reserve_or_wait(name, kind, Heed::Circuits, patience).await;
    let place = place.map_err(|why| match why {
        ChooseError::NoAgent => Duration::ZERO, // The next one that comes gets it.
        ChooseError::Unwanted => UNWANTED_REST,
        ChooseError::Busy => REST,
        ChooseError::Limited { wait } => wait.min(UNWANTED_REST),
    })?;
    match delivery.limits.take(&event.endpoint, Instant::now()) {
        Ok(turn) => Ok((place, turn)),
        Err(_) => {
            if place.is_probe() {
                place.target().probe_not_made();
            }
            Err(Duration::ZERO) // The pump looks for room before it comes back to this one.
        }
    }
}

/// Calls the handler. A long answer reaches a waiting sender as it comes.
pub(super) async fn call(
    exchange: Exchange,
    mut copies: Option<Tee>,
    event: &Event,
    delivery: &Delivery,
    audience: &mut Audience,
) -> Result<store::Answer, Broken> {
    let Exchange { request, response } = exchange;
    let _upload = match &event.content {
        Content::Whole(body) if body.is_empty() => {
            request.finish(HeaderBlock::new());
            finish(copies);
            None
        }
        Content::Whole(body) => {
            let body = body.clone();
            if let Some(copies) = &mut copies {
                copies.data(&body);
            }
            finish(copies);
            let upload = async move {
                let mut request = request;
                if request.send(body).await.is_ok() {
                    request.finish(HeaderBlock::new());
                }
            };
            Some(Upload::spawn(upload, false))
        }
        Content::Kept(id, size) => {
            let watched = copies.is_some();
            let upload = upload((request, copies), delivery.bodies(), event.endpoint.name.clone(), *id, *size);
            Some(Upload::spawn(upload, watched))
        }
    };
    let (head, body) = response.head().await?;
    if head.status == 101 {
        return Err(Broken::Reset(ResetCode::Broken)); // Nobody asked for it.
    }
    let parts = answer_head(&head).map_err(|_| Broken::Reset(ResetCode::Broken))?;
    read(parts, head.headers, body, event, audience).await
}

async fn read(
    parts: Parts,
    headers: HeaderBlock,
    mut body: Receiver,
    event: &Event,
    audience: &mut Audience,
) -> Result<store::Answer, Broken> {
    let mut kept = BytesMut::new();
    let mut stream = None;
    let (mut long, mut len) = (false, 0_u64);
    while let Some(frame) = body.frame().await {
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => {
                audience.trailers = frame.into_trailers().unwrap_or_default();
                settle_trailers(&mut audience.trailers);
                continue;
            }
        };
        len += data.len() as u64;
        if !long && kept.len() + data.len() > MAX_ANSWER_BYTES {
            long = true;
            let passes = event.keeping.statuses.while_waiting(parts.status.as_u16()) != Meaning::Again;
            if passes || event.keeping.pass_failures {
                stream = audience.begin(&parts, kept.clone().freeze());
            }
            kept.clear();
        }
        if !long {
            kept.extend_from_slice(&data);
        }
        if let Some(sender) = &stream
            && timeout(PIECE_PATIENCE, sender.send(Piece::Data(data))).await.is_ok_and(|sent| sent.is_ok())
        {
            continue;
        }
        stream = None; // The sender has left, or takes too long: the attempt goes on.
    }
    if !is_whole(event, &parts.headers, len) {
        return Err(Broken::Reset(ResetCode::Broken));
    }
    if let Some(stream) = stream {
        let _ = timeout(PIECE_PATIENCE, stream.send(Piece::End(std::mem::take(&mut audience.trailers)))).await;
    }
    Ok(store::Answer { status: parts.status.as_u16(), headers, body: kept.freeze(), truncated: long })
}

/// Whether an answer is as long as its head says. hyper believes the head of one that is there at once, and whoever reads
/// the connection would take the next answer for the rest of this one. To HEAD it has none, whatever it says.
fn is_whole(event: &Event, headers: &HeaderMap, len: u64) -> bool {
    (event.head.sent.method == "HEAD" && len == 0)
        || one_length(headers).is_ok_and(|said| said.is_none_or(|said| said == len))
}

/// Sends a long body, part by part. What cannot be read resets the exchange.
async fn upload(
    (mut request, mut copies): (Sender, Option<Tee>),
    bodies: Bodies,
    endpoint: EndpointName,
    id: EventId,
    size: u64,
) {
    let (mut at, mut wanted) = (0, true);
    while at < size {
        let part = bodies.part(&endpoint, id, at..size.min(at + PART_BYTES)).await;
        match part {
            Ok(Some(part)) if !part.is_empty() => {
                at += part.len() as u64;
                if let Some(copies) = &mut copies {
                    copies.data(&part);
                }
                wanted = wanted && request.send(part).await.is_ok();
                if !wanted && copies.as_ref().is_none_or(Tee::is_empty) {
                    return; // The answer, or its absence, says why.
                }
            }
            Ok(_) => return,
            Err(error) => return tracing::error!(%endpoint, event_id = %id, %error, "a kept body cannot be read"),
        }
    }
    request.finish(HeaderBlock::new());
    finish(copies);
}

fn finish(copies: Option<Tee>) {
    if let Some(copies) = copies {
        copies.finish(&HeaderBlock::new());
    }
}

/// The link is lost: its agent may tell in its next session what became of the call.
async fn told_later(expected: &mut Expected, event: &Event, limit: Instant) -> Ending {
    let grace = event.keeping.agent_grace;
    let mut until = Instant::now() + grace;
    loop {
        match timeout_at(until, expected.next()).await {
            // However often it says so, the handler has no more time than it had.
            Ok(Some(OutcomeState::Running)) => until = limit + grace,
            Ok(Some(state)) => return ending_of(state, event),
            Ok(None) | Err(_) => return Ending::Failed(Outcome::Lost),
        }
    }
}

/// What an agent told of a call whose link broke.
fn ending_of(state: OutcomeState, event: &Event) -> Ending {
    match state {
        OutcomeState::Finished { head, body, truncated } => match answer_head(&head) {
            Ok(parts) if !truncated && !is_whole(event, &parts.headers, body.len() as u64) => {
                Ending::Failed(Outcome::Broken)
            }
            Ok(parts) => Ending::Answered(store::Answer {
                status: parts.status.as_u16(),
                headers: head.headers,
                body: if truncated { Bytes::new() } else { body },
                truncated,
            }),
            Err(_) => Ending::Failed(Outcome::Broken),
        },
        OutcomeState::Failed(code) => Ending::Failed(code.into()),
        OutcomeState::Running => Ending::Failed(Outcome::Lost),
    }
}

fn meaning(ending: &Ending, keeping: &Keeping, waits: bool) -> Meaning {
    match ending {
        Ending::Answered(answer) if waits => keeping.statuses.while_waiting(answer.status),
        Ending::Answered(answer) => keeping.statuses.after_ack(answer.status),
        Ending::Failed(_) => Meaning::Again,
    }
}

/// Who waits for an attempt, if anybody still does.
#[derive(Default)]
pub(super) struct Audience {
    waiting: Waiting,
    /// The sender has the beginning of the answer already.
    streams: bool,
    /// What came behind the answer's body. It is for the sender alone, and not recorded.
    trailers: HeaderMap,
}

impl Audience {
    /// Whether the sender has had nothing but the answer.
    fn waits(&self) -> bool {
        self.streams || self.waiting.as_ref().is_some_and(|(reply, _)| !reply.is_closed())
    }

    /// Gives the sender what there is; false if it has left.
    fn tell(&mut self, reply: Reply) -> bool {
        let Some((sender, repeats)) = self.waiting.take() else { return false };
        let answer = match &reply {
            Reply::Answer(Answer { status, headers, body, more: None, .. }) => {
                Some((*status, headers.clone(), body.clone()))
            }
            _ => None,
        };
        repeats.send_replace(Some(answer));
        sender.send(reply).is_ok()
    }

    /// Begins a long answer.
    fn begin(&mut self, parts: &Parts, body: Bytes) -> Option<mpsc::Sender<Piece>> {
        let (pieces, more) = mpsc::channel(MAX_PIECES);
        let (headers, trailers) = (parts.headers.clone(), HeaderMap::new());
        let answer = Answer { status: parts.status, headers, body, trailers, more: Some(more) };
        self.streams = self.tell(Reply::Answer(answer));
        self.streams.then_some(pieces)
    }

    /// Passes on what the sender is to have of an ending, and says what becomes of the event. A sender that leaves
    /// at this moment has its ack: then what holds after an ack decides.
    fn hear(&mut self, ending: &Ending, meaning: Meaning, event: &Event, now: Timestamp) -> Then {
        if self.streams {
            return match (ending, meaning) {
                (Ending::Answered(_), Meaning::Success) => Then::Done,
                (Ending::Answered(_), _) => Then::Dead(Reason::HandlerRejected),
                // The answer broke off under the sender's eyes, after a head that said how it would end.
                (Ending::Failed(_), _) => then(ending, Meaning::Again, event, now),
            };
        }
        if !self.waits() {
            return then(ending, meaning, event, now);
        }
        let trailers = std::mem::take(&mut self.trailers);
        let reply = match (ending, meaning) {
            (Ending::Answered(answer), Meaning::Success | Meaning::Final) => {
                Reply::Answer(Answer::recorded(answer, trailers))
            }
            (Ending::Answered(answer), Meaning::Again) if event.keeping.pass_failures => {
                Reply::Answer(Answer::recorded(answer, trailers))
            }
            (Ending::Failed(outcome), _) if event.keeping.pass_failures => Reply::Failure((*outcome).into()),
            _ => Reply::Ack,
        };
        let passed = !matches!(reply, Reply::Ack);
        if self.tell(reply) {
            return match meaning {
                Meaning::Success => Then::Done,
                Meaning::Final => Then::Dead(Reason::HandlerRejected),
                Meaning::Again if passed => Then::Dead(reason(ending)),
                Meaning::Again => then(ending, Meaning::Again, event, now),
            };
        }
        let meaning = self::meaning(ending, &event.keeping, false);
        then(ending, meaning, event, now)
    }
}

/// What becomes of an event whose sender has its ack.
fn then(ending: &Ending, meaning: Meaning, event: &Event, now: Timestamp) -> Then {
    match (ending, meaning) {
        (_, Meaning::Success) => Then::Done,
        (_, Meaning::Final) => Then::Dead(Reason::HandlerGaveUp),
        (Ending::Failed(Outcome::NotCalled), _) => Then::Release(after(REST, now)),
        (Ending::Failed(outcome), _) if !Failure::from(*outcome).can_retry() => Then::Dead((*outcome).into()),
        (Ending::Failed(Outcome::Lost), _) if event.lease.tries < event.keeping.schedule.attempts() => Then::Retry(now),
        (ending, _) => {
            let asked = match ending {
                Ending::Answered(answer) => asked_wait(answer, now),
                Ending::Failed(_) => None,
            };
            let next = event.keeping.schedule.next(event.lease.tries, asked, random(), now);
            next.map_or(Then::Dead(reason(ending)), Then::Retry)
        }
    }
}

fn asked_wait(answer: &store::Answer, now: Timestamp) -> Option<Duration> {
    retry_after(std::str::from_utf8(answer.headers.all("retry-after").next()?).ok()?, now)
}

/// Evenly drawn: the last bits of a random UUID are random.
fn random() -> u32 {
    let [.., a, b, c, d] = *Uuid::new_v4().as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn reason(ending: &Ending) -> Reason {
    match ending {
        Ending::Answered(_) => Outcome::Answered.into(),
        Ending::Failed(outcome) => (*outcome).into(),
    }
}

/// Tells the target's circuit how it does.
fn note(delivery: &Delivery, event: &Event, (target, probe): (&Target, bool), ending: &Ending, meaning: Meaning) {
    match (ending, meaning) {
        (Ending::Answered(_), Meaning::Success | Meaning::Final) => {
            target.succeeded();
            if probe {
                delivery.window(&event.endpoint.name, Window::rest); // It has just come back.
            }
        }
        (Ending::Failed(Outcome::Lost | Outcome::NotCalled | Outcome::NotCarriable), _) => {
            if probe {
                target.probe_not_made();
            }
        }
        _ => target.failed(probe, &event.keeping.circuit, delivery.clock.now()),
    }
}

async fn settle(
    delivery: &Delivery,
    event: &Event,
    (started_at, begun, agent): (Timestamp, Instant, Option<String>),
    ending: Ending,
    then: Then,
) {
    let (outcome, answer) = match ending {
        Ending::Answered(answer) => (Outcome::Answered, Some(answer)),
        Ending::Failed(outcome) => (outcome, None),
    };
    let attempt = Attempt {
        number: event.lease.attempt,
        fence: event.lease.fence,
        started_at,
        duration: begun.elapsed(),
        outcome,
        agent,
        answer,
    };
    delivery.settle(End { endpoint: event.endpoint.name.clone(), id: event.id, attempt, then }).await;
}

/// An attempt that an agent told of when nobody waited for it any more: after a restart of the relay.
pub(super) fn stray(state: OutcomeState, event: &Event, now: Timestamp) -> Option<(Attempt, Then)> {
    if matches!(state, OutcomeState::Running) {
        return None;
    }
    let ending = ending_of(state, event);
    let then = then(&ending, meaning(&ending, &event.keeping, false), event, now);
    let (outcome, answer) = match ending {
        Ending::Answered(answer) => (Outcome::Answered, Some(answer)),
        Ending::Failed(outcome) => (outcome, None),
    };
    let (number, fence) = (event.lease.attempt, event.lease.fence);
    let started_at = now;
    Some((Attempt { number, fence, started_at, duration: Duration::ZERO, outcome, agent: None, answer }, then))
}

fn after(rest: Duration, now: Timestamp) -> Timestamp {
    now.saturating_add(rest).unwrap_or(Timestamp::MAX)
}
