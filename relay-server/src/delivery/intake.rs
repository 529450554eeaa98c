//! A webhook becomes an event: kept, attempted at once where its sender waits for the handler, and acknowledged.

use std::sync::{Arc, atomic::Ordering};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use relay_schemes::{EventMeta, Refusal};
use tokio::time::Instant;

use super::{
    Delivery, SenderReply,
    attempt::{self, Event, EventBody, run},
    audience::{AwaitedReply, RepeatReply, WaitingSender},
    place::CallPlace,
};
use crate::{
    deliver::Trusted,
    endpoint::{DeliveryPolicy, Endpoint, Identity, Order},
    failure::{Failure, RelayFault, SenderFault},
    hops::Hop,
    memory::Memory,
    message::take_apart,
    replay_guard::RequestMark,
    store::{self, Attempt, Body, Dedup, Grant, Head, Lease, NewEvent, Signature, State, Verdict},
    throttle::Throttle,
    verify::{Payload, Webhook},
    webhook::EventId,
};

/// The order key that all events of an endpoint share.
const FIFO: &str = "fifo";

/// As long as there is no room for one, there is none for those after it.
static NOT_KEPT: Throttle = Throttle::new();

/// How an event begins as soon as it is kept.
enum AtOnce {
    /// While its sender waits for the handler.
    Awaited,
    /// Behind its sender's ack.
    Unawaited(CallPlace),
}

enum Kept {
    Waits(EventId),
    Attempted(EventId, AwaitedReply),
    Repeats { of: EventId, state: State, answer: Option<store::Answer> },
}

#[derive(Debug)]
pub(crate) struct TakenIn {
    /// The event: for a repeat, the first one.
    pub event_id: EventId,
    pub reply: SenderReply,
}

impl Delivery {
    /// Keeps a webhook and says what its sender gets, by the endpoint's deadline at the latest. `memory` stands for its
    /// head and body, and is held until the first attempt has ended, whether or not the sender still waits.
    pub(crate) async fn take(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        policy: &DeliveryPolicy,
        webhook: Box<Webhook>,
        memory: Memory,
        trusted: Trusted<'_>,
    ) -> Result<TakenIn, Failure> {
        let deadline = webhook.started() + endpoint.deadline;
        let way = webhook.received().way;
        let mut new = self.new_event(endpoint, policy, webhook, trusted)?;
        let at_once = self.begins_at_once(endpoint, policy, new.body.size());
        let until = Self::lease_until(policy, endpoint.wait_for_agent, self.clock.now());
        new.lease = at_once.is_some().then_some(Grant { holder: self.holder, until });
        let event = Box::new(Event {
            endpoint: Arc::clone(endpoint),
            id: new.id,
            head: new.head.clone(),
            kind: new.event_type.clone(),
            sender_id: new.sender_id.clone(),
            body: match &new.body {
                Body::Bytes(body) => EventBody::Whole(body.clone()),
                Body::File(body) => EventBody::Kept(new.id, body.size()),
            },
            _memory: Some(memory),
            lease: Lease { fence: 0, attempt: 0, tries: 0 }, // The store gives it.
            replay_of: None,
            redelivered: false,
            news: None,
            way: Some(way),
        });
        // On its own: a sender that leaves at this moment must not leave behind an event that is leased to nobody.
        let delivery = Arc::clone(self);
        let patience = (Instant::now() + endpoint.wait_for_agent).min(deadline);
        let kept = self.tasks.spawn(Box::pin(async move { delivery.keep(new, event, at_once, patience).await }));
        let (event_id, reply) = match kept.await.map_err(|_| RelayFault::Internal)?? {
            Kept::Waits(event_id) => (event_id, SenderReply::Ack),
            Kept::Attempted(event_id, awaited) => (event_id, awaited.until(deadline).await),
            Kept::Repeats { of, .. } if !policy.assured => (of, SenderReply::Ack),
            Kept::Repeats { of, state, answer } => (of, self.repeated(of, state, answer, endpoint, deadline).await),
        };
        Ok(TakenIn { event_id, reply })
    }

    fn new_event(
        &self,
        endpoint: &Endpoint,
        policy: &DeliveryPolicy,
        webhook: Box<Webhook>,
        trusted: Trusted<'_>,
    ) -> Result<NewEvent, Failure> {
        let EventMeta { id: sender_id, kind: event_type } = webhook.event().clone();
        let window = policy.dedup_window;
        let dedup = window.zip(identity(policy, &webhook)).map(|(window, key)| Dedup {
            key,
            window,
            sender_retries: policy.sender_retries,
        });
        let marks = |mark: &RequestMark| window.is_some() && (mark.body.is_some() || policy.late.is_some());
        let mark = webhook.mark().filter(marks).map(|mark| {
            let at = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
            let (signed_at, good_until) = (at(mark.signed_unix_s), at(mark.expires_unix_s));
            store::Mark { digest: mark.digest, signed_at, good_until, is_late: mark.is_late }
        });
        let order_key = match &policy.order {
            Order::None => None,
            Order::Fifo => Some(FIFO.to_owned()),
            Order::ByKey(row) => webhook.locate(row),
        };
        let (sent, arrival, payload) = take_apart(webhook, trusted);
        let body = match payload {
            Payload::Whole(body) => Body::Bytes(body),
            Payload::Long(body, _) => Body::File(body),
            Payload::Streaming(_) | Payload::Upgrade(_) => return Err(RelayFault::Internal.into()), // The door collects it.
        };
        Ok(NewEvent {
            endpoint: endpoint.name.clone(),
            id: arrival.id,
            received_at: arrival.received_at,
            head: Head { sent, arrival, signature: Signature::Auto },
            body,
            event_type,
            sender_id,
            dedup,
            mark,
            order_key,
            replay_of: None,
            lease: None,
        })
    }

    /// Whether an event is attempted as soon as it is kept: an assured one is, unless its endpoint is held back, and any
    /// other unless others wait.
    fn begins_at_once(self: &Arc<Self>, endpoint: &Endpoint, policy: &DeliveryPolicy, size: u64) -> Option<AtOnce> {
        if !policy.assured {
            return CallPlace::at_once(self, endpoint, size).map(AtOnce::Unawaited);
        }
        let is_free = self.admission.room(endpoint, 1).is_ok() && !self.registry.held_back(endpoint.name.as_str());
        is_free.then_some(AtOnce::Awaited)
    }

    async fn keep(
        self: &Arc<Self>,
        new: NewEvent,
        mut event: Box<Event>,
        at_once: Option<AtOnce>,
        patience: Instant,
    ) -> Result<Kept, Failure> {
        let (endpoint, event_id) = (event.endpoint.name.clone(), event.id);
        // Before it is kept: a repeat may be found to be one in the same commit.
        let waits = matches!(at_once, Some(AtOnce::Awaited)).then(|| self.wait(event_id));
        event.news = self.arrival_news(&new);
        let verdict = match self.store.append(vec![new], self.clock.now()).await {
            Ok(verdicts) => verdicts.into_iter().next().ok_or(RelayFault::Internal.into()),
            Err(error) => {
                if let Some(held_back) = NOT_KEPT.pass(endpoint.as_str()) {
                    tracing::warn!(%error, held_back, "an event could not be kept");
                }
                Err(Failure::from(&error))
            }
        };
        let counted = match &verdict {
            Ok(Verdict::Accepted { .. }) => "stored",
            Ok(Verdict::Duplicate { .. }) => "duplicate",
            Ok(Verdict::Again { .. }) => "again",
            Ok(Verdict::OtherBody { .. } | Verdict::TooLate) => "refused",
            Err(_) => "not_stored",
        };
        self.events.count(endpoint.as_str(), counted);
        if waits.is_some() && !matches!(verdict, Ok(Verdict::Accepted { lease: Some(_), .. })) {
            self.running.lock().remove(&event_id);
        }
        if let Some(way) = &mut event.way {
            way.pass(Hop::Stored, Instant::now());
        }
        if let Ok(Verdict::Duplicate { of, .. }) = &verdict {
            self.repeats.count(*of);
        }
        let (id, lease, redelivered) = match verdict {
            Ok(Verdict::Accepted { lease, conflict }) => {
                event.accepted(lease, conflict);
                self.publish(event.news.as_deref());
                (event_id, lease, false)
            }
            Ok(Verdict::Again { of, lease, redelivery }) => {
                event.news = None; // It is of an event that is not kept.
                (of, lease, redelivery)
            }
            Ok(Verdict::Duplicate { of, state, answer }) => return Ok(Kept::Repeats { of, state, answer }),
            Ok(Verdict::OtherBody { .. }) => return Err(SenderFault::Replayed.into()),
            Ok(Verdict::TooLate) => return Err(SenderFault::Unproven(Refusal::TimestampTooOld).into()),
            Err(failure) => return Err(failure),
        };
        let Some(lease) = lease else {
            event.acknowledged();
            if let Some(way) = event.way.filter(|_| id == event_id) {
                self.arrivals.put(id, way);
            }
            self.wake.notify_one();
            return Ok(Kept::Waits(id));
        };
        (event.id, event.lease, event.redelivered) = (id, lease, redelivered);
        if let Some(AtOnce::Unawaited(place)) = at_once {
            event.acknowledged();
            self.tasks.spawn(Box::pin(attempt::begin(self, event, place)));
            return Ok(Kept::Waits(id));
        }
        let (waiting, awaited) = waits.filter(|_| id == event_id).unwrap_or_else(|| self.wait(id));
        self.attempt(event, patience, waiting);
        Ok(Kept::Attempted(id, awaited))
    }

    /// Both ends of the wait for a first attempt. Repeats of its event wait with it.
    pub(super) fn wait(&self, id: EventId) -> (WaitingSender, AwaitedReply) {
        let (waiting, awaited, replies) = WaitingSender::new();
        self.running.lock().insert(id, replies);
        (waiting, awaited)
    }

    fn attempt(self: &Arc<Self>, event: Box<Event>, patience: Instant, waiting: WaitingSender) {
        let delivery = Arc::clone(self);
        // In a box: a runtime moves what it runs before it begins and when it has ended.
        self.tasks.spawn(Box::pin(async move {
            let id = event.id;
            run(&delivery, event, patience, waiting).await;
            delivery.running.lock().remove(&id);
            if delivery.cramped.load(Ordering::Relaxed) {
                delivery.wake.notify_one(); // Its agent has room for one that waits.
            }
        }));
    }

    /// What a repeat gets at an assured endpoint.
    pub(super) async fn repeated(
        &self,
        of: EventId,
        state: State,
        recorded: Option<store::Answer>,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> SenderReply {
        match state {
            State::Delivered => recorded.map_or(SenderReply::Ack, |answer| SenderReply::recorded(&answer)),
            State::Running => {
                let running = self.running.lock().get(&of).cloned();
                match running {
                    Some(replies) => RepeatReply::until(replies, deadline).await,
                    None => self.ended_meanwhile(of, endpoint).await,
                }
            }
            _ => SenderReply::Ack,
        }
    }

    /// What a repeat gets whose event ran when the store judged it, while no sender waits for that event now: the pump
    /// makes the attempt, or it has ended since.
    async fn ended_meanwhile(&self, of: EventId, endpoint: &Endpoint) -> SenderReply {
        let mut record = match self.store.event(endpoint.name.clone().into(), of, self.clock.now()).await {
            Ok(Some(record)) => record,
            Ok(None) => return SenderReply::Ack,
            Err(error) => return SenderReply::Failure(Failure::from(&error)),
        };
        match (record.summary.state, record.attempts.pop()) {
            (State::Delivered | State::Dead, Some(Attempt { answer: Some(answer), .. })) => {
                SenderReply::recorded(&answer)
            }
            (State::Dead, Some(Attempt { outcome, .. })) => SenderReply::Failure(outcome.into()),
            _ => SenderReply::Ack,
        }
    }
}

/// By what an event is known as the same: its provider's id, what the endpoint says instead, or its dated signature.
fn identity(policy: &DeliveryPolicy, webhook: &Webhook) -> Option<String> {
    let named = match &policy.identity {
        Identity::Provider => webhook.event().id.clone(),
        Identity::Located(row) => webhook.locate(row),
        Identity::Body => webhook.body_digest().map(|digest| HEXLOWER.encode(&digest)),
    };
    named.or_else(|| webhook.mark().map(|mark| format!("signature:{}", HEXLOWER.encode(&mark.digest))))
}
