//! A webhook becomes an event: kept, attempted at once where its sender waits for the handler, and acknowledged.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use data_encoding::HEXLOWER;
use http::HeaderMap;
use jiff::Timestamp;
use relay_schemes::Refusal;
use tokio::time::{Instant, timeout_at};

use super::{
    Answer, Delivery, Reply,
    attempt::{Content, Event, run},
    audience::{AwaitedReply, WaitingSender},
    lock,
};
use crate::{
    deliver::Trusted,
    endpoint::{Endpoint, Identity, Keeping, Order},
    failure::{Failure, RelayFault, SenderFault},
    memory::Memory,
    message::take_apart,
    store::{self, Dedup, Grant, Head, Lease, NewEvent, Signature, State, Verdict},
    throttle::Throttle,
    verify::{Payload, Webhook},
    webhook::EventId,
};

/// The order key that all events of an endpoint share.
const FIFO: &str = "fifo";

/// As long as there is no room for one, there is none for those after it.
static NOT_KEPT: Throttle = Throttle::new();

/// How a webhook was kept.
enum Kept {
    /// It waits for the pump.
    Waits(EventId),
    /// Its first attempt is under way.
    Attempted(EventId, AwaitedReply),
    /// It is one that came before.
    Repeats { of: EventId, state: State, answer: Option<store::Answer> },
}

/// An event that was taken in, and what its sender gets.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The event: for a repeat, the first one.
    pub event_id: EventId,
    /// What its sender gets.
    pub reply: Reply,
}

impl Delivery {
    /// Keeps a webhook and says what its sender gets, by the endpoint's deadline at the latest. `memory` stands for its
    /// head and body, and is held until the first attempt has ended, whether or not the sender still waits.
    ///
    /// # Errors
    /// [`Failure`] if it could not be kept.
    pub(crate) async fn take(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        keeping: &Keeping,
        (webhook, memory): (Webhook, Memory),
        trusted: Trusted<'_>,
    ) -> Result<Taken, Failure> {
        let meta = webhook.event().clone();
        let key = identity(keeping, &webhook);
        let order_key = match &keeping.order {
            Order::None => None,
            Order::Fifo => Some(FIFO.to_owned()),
            Order::ByKey(row) => webhook.locate(row),
        };
        let mark = webhook.mark().filter(|mark| mark.body.is_some() || keeping.late.is_some()).map(|mark| {
            let at = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
            let (signed_at, good_until) = (at(mark.signed_unix_s), at(mark.expires_unix_s));
            store::Mark { digest: mark.digest, signed_at, good_until, is_late: mark.is_late }
        });
        let deadline = webhook.started() + endpoint.deadline;
        let (sent, arrival, payload) = take_apart(webhook, trusted);
        let Payload::Whole(body) = payload else { return Err(RelayFault::Internal.into()) }; // The door collects it.
        let (event_id, at) = (arrival.id, arrival.received_at);
        let head = Head { sent, arrival, signature: Signature::Auto };
        let now = self.clock.now();
        // An assured event is attempted at once, unless that is held back: then it waits without its sender.
        let at_once = keeping.assured
            && self.limits.room(endpoint, 1, Instant::now()).is_ok()
            && !self.registry.held_back(endpoint.name.as_str());
        let until = Self::lease_until(keeping, endpoint.wait_for_agent, now);
        let lease = at_once.then_some(Grant { holder: self.holder, until });
        let new = NewEvent {
            endpoint: endpoint.name.clone(),
            id: event_id,
            received_at: at,
            head: head.clone(),
            body: body.clone().into(),
            event_type: meta.kind.clone(),
            sender_id: meta.id.clone(),
            dedup: keeping.dedup_window.zip(key).map(|(window, key)| Dedup {
                key,
                window,
                sender_retries: keeping.sender_retries,
            }),
            mark: mark.filter(|_| keeping.dedup_window.is_some()),
            order_key,
            lease,
        };
        let event = Event {
            endpoint: Arc::clone(endpoint),
            id: event_id,
            head,
            kind: meta.kind,
            sender_id: meta.id,
            content: Content::Whole(body),
            _memory: Some(memory),
            lease: Lease { fence: 0, attempt: 0, tries: 0 }, // The store gives it.
            replay_of: None,
            redelivered: false,
        };
        // On its own: a sender that leaves at this moment must not leave behind an event that is leased to nobody.
        let delivery = Arc::clone(self);
        let patience = (Instant::now() + endpoint.wait_for_agent).min(deadline);
        let kept = self.tasks.spawn(async move { delivery.keep(new, event, patience).await });
        match kept.await.map_err(|_| RelayFault::Internal)?? {
            Kept::Waits(event_id) => Ok(Taken { event_id, reply: Reply::Ack }),
            Kept::Attempted(event_id, waiting) => Ok(Taken { event_id, reply: waiting.until(deadline).await }),
            Kept::Repeats { of, state, answer } => {
                Ok(Taken { event_id: of, reply: self.repeated(of, state, answer, keeping, deadline).await })
            }
        }
    }

    /// Appends an event, and begins its first attempt if it comes with the right to that.
    async fn keep(self: &Arc<Self>, new: NewEvent, event: Event, patience: Instant) -> Result<Kept, Failure> {
        let (endpoint, event_id) = (event.endpoint.name.clone(), event.id);
        let verdict = match self.store.append(vec![new], self.clock.now()).await {
            Ok(verdicts) => verdicts.into_iter().next().ok_or(RelayFault::Internal.into()),
            Err(error) => {
                if let Some(held_back) = NOT_KEPT.pass(endpoint.as_str()) {
                    tracing::warn!(%endpoint, %event_id, %error, held_back, "an event could not be kept");
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
        let (id, lease, redelivered) = match verdict {
            Ok(Verdict::Accepted { lease, .. }) => (event_id, lease, false),
            Ok(Verdict::Again { of, lease, redelivery }) => (of, lease, redelivery),
            Ok(Verdict::Duplicate { of, state, answer }) => return Ok(Kept::Repeats { of, state, answer }),
            Ok(Verdict::OtherBody { .. }) => return Err(SenderFault::Replayed.into()),
            Ok(Verdict::TooLate) => return Err(SenderFault::Unproven(Refusal::TimestampTooOld).into()),
            Err(failure) => return Err(failure),
        };
        let Some(lease) = lease else {
            self.wake.notify_one();
            return Ok(Kept::Waits(id));
        };
        Ok(Kept::Attempted(id, self.attempt(Event { id, lease, redelivered, ..event }, patience)))
    }

    /// Makes the first attempt beside its sender.
    fn attempt(self: &Arc<Self>, event: Event, patience: Instant) -> AwaitedReply {
        let (waiting, awaited, told) = WaitingSender::new();
        lock(&self.running).insert(event.id, told);
        let delivery = Arc::clone(self);
        self.tasks.spawn(async move {
            let id = event.id;
            run(&delivery, event, patience, Some(waiting)).await;
            lock(&delivery.running).remove(&id);
            if delivery.cramped.load(Ordering::Relaxed) {
                delivery.wake.notify_one(); // Its agent has room for one that waits.
            }
        });
        awaited
    }

    /// What a repeat gets.
    async fn repeated(
        &self,
        of: EventId,
        state: State,
        recorded: Option<store::Answer>,
        keeping: &Keeping,
        deadline: Instant,
    ) -> Reply {
        if state == State::Delivered && keeping.assured {
            let answer = recorded.map(|answer| Answer::recorded(&answer));
            return answer.map_or(Reply::Ack, Reply::Answer);
        }
        let running = lock(&self.running).get(&of).cloned();
        let Some(mut running) = running.filter(|_| state == State::Running) else { return Reply::Ack };
        let told = timeout_at(deadline, running.wait_for(Option::is_some)).await;
        match told.ok().and_then(Result::ok).and_then(|told| told.clone().flatten()) {
            Some((status, headers, body)) => {
                let trailers = HeaderMap::new();
                Reply::Answer(Answer { status, headers, body, trailers, more: None })
            }
            None => Reply::Ack,
        }
    }
}

/// By what an event is known as the same: its provider's id, what the endpoint says instead, or its dated signature.
fn identity(keeping: &Keeping, webhook: &Webhook) -> Option<String> {
    let named = match &keeping.identity {
        Identity::Provider => webhook.event().id.clone(),
        Identity::Located(row) => webhook.locate(row),
        Identity::Body => webhook.body_digest().map(|digest| HEXLOWER.encode(&digest)),
    };
    named.or_else(|| webhook.mark().map(|mark| format!("signature:{}", HEXLOWER.encode(&mark.digest))))
}

/// How long an event of the pump waits for an agent: one was there when it was claimed.
pub(super) const NO_WAIT: Duration = Duration::ZERO;
