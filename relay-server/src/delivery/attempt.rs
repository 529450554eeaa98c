//! One attempt: an agent, an exchange, and its end.
//!
//! The attempt belongs to nobody's request: a sender that waits may leave. A link that breaks under it is no end yet: the
//! agent tells in its next session what became of the call.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use relay_proto::{OutcomeState, RequestHead};
use relay_tunnel::Broken;
use tokio::time::{Instant, timeout_at};

use super::{
    Delivery, SenderReply,
    audience::{Recorder, WaitingSender, is_whole},
    place::CallPlace,
    settle::{AttemptEnd, Note, Ruling, Told, rest_until},
    sign::{self, Signed},
    window::Window,
};
use crate::{
    admission::Admitted,
    agents::{
        outcomes::Expected,
        registry::{ChooseError, Circuits, Reservation},
        targets::Target,
    },
    deliver::{Bodies, BodySource, Call, Undelivered, answer_head, deliver},
    endpoint::{DeliveryPolicy, Endpoint},
    hops::{Hop, Way, Whose},
    log::LogScope,
    memory::Memory,
    message::{Known, request_head},
    retry::Judgement,
    store::{self, Head, Lease, Outcome, Summary, Then},
    throttle::Throttle,
    trace::Sampling,
    webhook::EventId,
};

static NOT_SIGNED: Throttle = Throttle::new();

/// How long an event rests whose handler was not called.
pub(super) const REST: Duration = Duration::from_secs(1);

/// How long an event rests that no attached agent takes.
const UNWANTED_REST: Duration = Duration::from_secs(30);

pub(super) struct Event {
    /// It keeps events: that is known when this is made, unless a person has it delivered to one agent.
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) id: EventId,
    pub(super) head: Head,
    pub(super) kind: Option<String>,
    pub(super) sender_id: Option<String>,
    pub(super) body: EventBody,
    /// What its request took of the memory for all; held as long as the event.
    pub(super) _memory: Option<Memory>,
    pub(super) lease: Lease,
    pub(super) replay_of: Option<EventId>,
    /// A person asked its sender for it.
    pub(super) redelivered: bool,
    /// As it stands before the attempt, where somebody watches.
    pub(super) news: Option<Box<Summary>>,
    /// The way of the request that brought it, where that was just now.
    pub(super) way: Option<Way>,
}

pub(super) enum EventBody {
    Whole(Bytes),
    /// In the store, as this event's, so many bytes.
    Kept(EventId, u64),
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
        endpoint.policy.as_ref()?;
        let body = body.map_or(EventBody::Kept(summary.id, summary.size), EventBody::Whole);
        Some(Self::with(endpoint, summary, head, body, lease))
    }

    /// An event whose endpoint may keep none.
    pub(super) fn with(endpoint: &Arc<Endpoint>, summary: Summary, head: Head, body: EventBody, lease: Lease) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            id: summary.id,
            head,
            kind: summary.event_type,
            sender_id: summary.sender_id,
            body,
            _memory: None,
            lease,
            replay_of: summary.replay_of,
            redelivered: summary.redelivered,
            news: None,
            way: None,
        }
    }

    pub(super) fn policy(&self) -> &DeliveryPolicy {
        self.endpoint.policy.as_ref().expect("an event is of an endpoint that keeps")
    }

    /// What the log says of an attempt at it.
    fn scope(&self, agent: Option<&Arc<str>>) -> LogScope {
        LogScope::attempt(self.id, self.endpoint.name.clone(), self.lease.attempt, agent.cloned())
    }

    pub(super) fn request(
        &self,
        afresh: Option<&Signed>,
        fence: Option<u64>,
        sampling: Option<Sampling>,
    ) -> RequestHead {
        let known = Known {
            arrival: &self.head.arrival,
            event_id: self.id,
            attempt: self.lease.attempt,
            fence,
            replay_of: self.replay_of,
            redelivered: self.redelivered,
            resigned: afresh.is_some(),
            sampling,
        };
        let sent = &self.head.sent;
        let name = &self.endpoint.name;
        afresh.map_or_else(|| request_head(name, sent, &known), |set| request_head(name, &sent.with(set), &known))
    }

    /// Its sender has the ack.
    pub(super) fn acknowledged(&mut self) {
        let ack = self.policy().ack.status.as_u16();
        if let Some(way) = &mut self.way {
            way.answered(Whose::Ack, Some(ack), Instant::now());
        }
    }

    pub(super) fn source(&self, bodies: Bodies) -> BodySource {
        match &self.body {
            EventBody::Whole(body) => BodySource::whole(body.clone()),
            EventBody::Kept(id, size) => BodySource::kept(bodies, self.endpoint.name.clone(), *id, *size),
        }
    }
}

/// Attempts an event and settles it. Waits for an agent until `patience`. The event is in a box here and below: a future
/// has what it was given and what it works on, each with room of its own.
pub(super) async fn run(delivery: &Delivery, event: Box<Event>, patience: Instant, waiting: WaitingSender) {
    let note = Note::begin(delivery, event.way);
    let (name, kind) = (event.endpoint.name.as_str(), event.kind.as_deref());
    let place = delivery.registry.reserve_or_wait(name, kind, Circuits::Respected, patience).await;
    let reserved = reserved(delivery, &event, place, None);
    run_at(delivery, event, reserved, note, Some(waiting)).await;
}

/// Takes an agent at once for an event whose sender does not wait: whoever counts next counts it. The rest attempts and
/// settles the event.
pub(super) fn begin(
    delivery: &Arc<Delivery>,
    event: Box<Event>,
    mut place: CallPlace,
) -> impl Future<Output = ()> + use<> {
    let note = Note::begin(delivery, event.way);
    let agent = delivery.registry.reserve(event.endpoint.name.as_str(), event.kind.as_deref(), Circuits::Respected);
    place.came();
    let reserved = reserved(delivery, &event, agent, Some(place));
    let own = Arc::clone(delivery);
    async move { run_at(&own, event, reserved, note, None).await }
}

async fn run_at(
    delivery: &Delivery,
    event: Box<Event>,
    reserved: Result<Reserved, Duration>,
    note: Note,
    waiting: Option<WaitingSender>,
) {
    match reserved {
        Ok(reserved) => {
            let scope = event.scope(Some(&reserved.agent.agent().name));
            scope.around(attempt(delivery, event, reserved, note, waiting)).await;
        }
        Err(rest) => {
            let mut note = note;
            if let Some(waiting) = waiting {
                let told = if waiting.give(SenderReply::Ack) { Told::Now(Whose::Ack) } else { Told::Before };
                note.tell(&event, told, None);
            }
            delivery.arrivals.put(event.id, note.way); // Its next attempt is the first on record.
            let ruling = Ruling::of(Then::Release(rest_until(note.started_at, rest)));
            let settled = delivery.settle_attempt(&event, note, Err(Outcome::NotCalled), ruling);
            event.scope(None).around(settled).await;
        }
    }
}

async fn attempt(
    delivery: &Delivery,
    mut event: Box<Event>,
    Reserved { agent: place, admitted, call: call_place }: Reserved,
    mut note: Note,
    waiting: Option<WaitingSender>,
) {
    let afresh = sign::afresh(delivery, &mut event).await.unwrap_or_else(|error| {
        if let Some(held_back) = NOT_SIGNED.pass(event.endpoint.name.as_str()) {
            tracing::warn!(%error, held_back, "an event goes out as it came, not signed afresh");
        }
        None
    });
    let until = Instant::now() + event.policy().attempt_timeout;
    let agent = place.agent().clone();
    note.agent = Some(agent.name.to_string());
    note.way.pass(Hop::Opened, Instant::now());
    note.resigned = afresh.is_some();
    let mut expected = delivery.outcomes.expect(*event.id.as_bytes(), event.lease.fence, agent);
    let aim = Aim { target: place.target().clone(), is_probe: place.is_probe };
    let head = event.request(afresh.as_ref(), Some(event.lease.fence), delivery.sampling());
    let source = event.source(delivery.bodies());
    let call = Call::open_copied(&delivery.registry, event.kind.as_deref(), place, head, (source, None));
    let mut recorder = Recorder::new(&event, waiting);
    let end = match deliver(call, until, &mut recorder).await {
        Ok(answer) => Ok(answer),
        Err(Undelivered::Broken(Broken::SessionLost)) => match reported(&mut expected, &event, until).await {
            Some(state) => {
                recorder.sha256_in = sha256_in(&state);
                end_of(state, &event)
            }
            None => Err(Outcome::Lost),
        },
        Err(why) => Err(why.into()),
    };
    if let Some(head_at) = recorder.head_at {
        note.way.hops.note(Hop::AnswerHead, head_at - note.way.from);
    }
    (note.handler_us, note.sha256_in) = (recorder.handler_us, recorder.sha256_in);
    note.way.pass(Hop::Ended, Instant::now());
    drop(admitted); // The handler is done: a sender that hears of it may send the next one.
    let (judgement, ruling) = Ruling::on(&end, recorder, delivery.clock.now());
    aim.record(delivery, &event, &end, judgement);
    if let Some(place) = call_place {
        place.ended(judgement == Judgement::Success);
    }
    let is_lost = matches!(end, Err(Outcome::Lost));
    delivery.settle_attempt(&event, note, end, ruling).await;
    tracing::trace!("an attempt has ended");
    // Until it is settled, what is told again of it is not news.
    if is_lost {
        expected.lost();
    } else {
        drop(expected);
    }
}

/// An agent for an event, the right of its endpoint to one more exchange, and the place of a call whose sender does not
/// wait.
struct Reserved {
    agent: Reservation,
    admitted: Option<Admitted>,
    call: Option<CallPlace>,
}

/// What an attempt needs, given the agent's answer; else how long the event rests.
fn reserved(
    delivery: &Delivery,
    event: &Event,
    agent: Result<Reservation, ChooseError>,
    call: Option<CallPlace>,
) -> Result<Reserved, Duration> {
    let agent = agent.map_err(|why| match why {
        ChooseError::NoAgent => Duration::ZERO, // The next one that comes gets it.
        ChooseError::Unwanted => UNWANTED_REST,
        ChooseError::Busy => REST,
        ChooseError::Limited { wait } => wait.min(UNWANTED_REST),
    })?;
    match delivery.admission.take(&event.endpoint) {
        Ok(admitted) => Ok(Reserved { agent, admitted, call }),
        Err(_) => {
            if agent.is_probe {
                agent.target().probe_not_made();
            }
            Err(Duration::ZERO) // The pump looks for room before it comes back to this one.
        }
    }
}

/// The link is lost: its agent may tell in its next session what became of the call.
async fn reported(expected: &mut Expected, event: &Event, limit: Instant) -> Option<OutcomeState> {
    let grace = event.policy().agent_grace;
    let mut until = Instant::now() + grace;
    loop {
        match timeout_at(until, expected.next()).await {
            // However often it says so, the handler has no more time than it had.
            Ok(Some(OutcomeState::Running)) => until = limit + grace,
            Ok(Some(state)) => return Some(state),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// What went to the handler of the request's body, as the agent tells.
pub(super) const fn sha256_in(state: &OutcomeState) -> Option<[u8; 32]> {
    match state {
        OutcomeState::Finished { head, .. } => head.sha256_in,
        OutcomeState::Running | OutcomeState::Failed(_) => None,
    }
}

/// What an agent told of a call whose link broke.
pub(super) fn end_of(state: OutcomeState, event: &Event) -> AttemptEnd {
    match state {
        OutcomeState::Finished { head, body, truncated } => match answer_head(&head) {
            Ok(parts) if !truncated && !is_whole(event, &parts.headers, body.len() as u64) => Err(Outcome::Broken),
            Ok(parts) => Ok(store::Answer {
                status: parts.status.as_u16(),
                headers: head.headers,
                body: if truncated { Bytes::new() } else { body },
                truncated,
            }),
            Err(_) => Err(Outcome::Broken),
        },
        OutcomeState::Failed(code) => Err(code.into()),
        OutcomeState::Running => Err(Outcome::Lost),
    }
}

struct Aim {
    target: Target,
    is_probe: bool,
}

impl Aim {
    fn record(&self, delivery: &Delivery, event: &Event, end: &AttemptEnd, judgement: Judgement) {
        match (end, judgement) {
            (Ok(_), Judgement::Success | Judgement::Final) => {
                self.target.succeeded();
                if self.is_probe {
                    delivery.window(&event.endpoint.name, Window::rest); // It has just come back.
                }
            }
            (Err(Outcome::Lost | Outcome::NotCalled | Outcome::NotCarriable), _) => {
                if self.is_probe {
                    self.target.probe_not_made();
                }
            }
            _ => self.target.failed(self.is_probe, &event.policy().circuit, delivery.clock.now()),
        }
    }
}
