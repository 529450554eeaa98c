//! What becomes of an event after an attempt, and of the sender that waits for it.
//!
//! A handler's success is passed on as soon as its note is with the store's writer: losing the note means one delivery
//! more, which the agent's memory of the attempt mostly prevents. Any other end of an event is passed on only once it is
//! kept, to a sender that was bound to it before ([`super::audience`]). That decides which status rule holds, once: a
//! sender that could not be bound has its ack.

use std::{future::poll_fn, task::Poll, time::Duration};

use jiff::Timestamp;
use relay_proto::OutcomeState;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Delivery, SenderReply,
    attempt::{Event, REST, end_of, sha256_in},
    audience::{BoundReply, Recorder, WaitingSender},
    news::Unknown,
};
use crate::{
    endpoint::DeliveryPolicy,
    failure::Failure,
    hops::{Hop, Way, Whose},
    retry::{Judgement, retry_after},
    spans::SeenAttempt,
    store::{self, Attempt, End, Ended, Outcome, Reason, Then},
    throttle::Throttle,
};

/// How long between two tries to settle an attempt with a store that is busy or away: the first pause, which doubles, and
/// the longest.
pub(super) const SETTLE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Memory for attempts that wait to be settled, in KiB; each takes one at least.
pub(super) const MAX_UNSETTLED_KIB: usize = 64 * 1024;

/// As many as there are attempts under way when the store fails.
static NOT_SETTLED: Throttle = Throttle::new();

/// What the handler answered, or how the call ended without an answer.
pub(super) type AttemptEnd = Result<store::Answer, Outcome>;

pub(super) struct Note {
    pub(super) started_at: Timestamp,
    pub(super) begun: Instant,
    pub(super) agent: Option<String>,
    pub(super) way: Way,
    /// Its request was signed afresh.
    pub(super) resigned: bool,
    /// How long the handler took, as its agent says.
    pub(super) handler_us: Option<u32>,
    /// What went to it of the request's body, as its agent says.
    pub(super) sha256_in: Option<[u8; 32]>,
}

impl Note {
    /// Of an attempt that begins now, on the way of the request that brought its event, if that was just now.
    pub(super) fn begin(delivery: &Delivery, way: Option<Way>) -> Self {
        let begun = Instant::now();
        let mut way = way.unwrap_or(Way::from(begun));
        way.hops.note(Hop::Attempt, begun - way.from);
        Self {
            started_at: delivery.clock.now(),
            begun,
            agent: None,
            way,
            resigned: false,
            handler_us: None,
            sha256_in: None,
        }
    }

    /// Notes what the sender got.
    pub(super) fn tell(&mut self, event: &Event, told: Told, status: Option<u16>) {
        let (hops, gone_by) = (&mut self.way.hops, self.way.from.elapsed());
        let (deadline, ack) = (event.endpoint.deadline, Some(event.policy().ack.status.as_u16()));
        match told {
            Told::Nothing => {}
            Told::AtHead => {
                let head = hops.at_us(Hop::AnswerHead).map_or(gone_by, |us| Duration::from_micros(us.into()));
                hops.note_answer(Whose::Handler, status, head);
            }
            Told::Now(Whose::Ack) => hops.note_answer(Whose::Ack, ack, gone_by),
            Told::Now(whose) => hops.note_answer(whose, status, gone_by),
            Told::Before if gone_by >= deadline => hops.note_answer(Whose::Ack, ack, deadline),
            Told::Before => hops.note_answer(Whose::Nobody, None, gone_by),
        }
    }
}

/// What an event's sender was told of an attempt, as far as it is known when that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// No sender waits.
    Nothing,
    /// It got the answer as it came.
    AtHead,
    Now(Whose),
    /// It had its ack, or has left.
    Before,
}

/// What becomes of an event, and what is for its sender.
pub(super) struct Ruling {
    then: Then,
    passed_on: Option<PassedOn>,
    told: Told,
}

pub(super) enum PassedOn {
    /// A success, once its note is with the store's writer. Whether the sender gets it or an ack, the event is delivered.
    Noted(WaitingSender, SenderReply),
    /// Any other end, once it is kept.
    Kept(BoundReply),
}

impl PassedOn {
    fn give(self) {
        match self {
            Self::Noted(waiting, reply) => drop(waiting.give(reply)),
            Self::Kept(bound) => bound.give(),
        }
    }
}

impl Ruling {
    pub(super) const fn of(then: Then) -> Self {
        Self { then, passed_on: None, told: Told::Nothing }
    }

    fn told(self, told: Told) -> Self {
        Self { told, ..self }
    }

    /// By the rule for senders that wait, if the sender can be bound, else by that for senders with an ack.
    pub(super) fn on(end: &AttemptEnd, mut recorder: Recorder<'_>, now: Timestamp) -> (Judgement, Self) {
        let event = recorder.event;
        let none = if recorder.waiting.is_some() { Told::Before } else { Told::Nothing };
        // Looked at once: its deadline may come at any moment.
        let waiting = recorder.waiting.take_if(|waiting| waiting.waits());
        let judgement = judgement(end, event.policy(), recorder.streams || waiting.is_some());
        if recorder.streams {
            let then = match (end, judgement) {
                (Ok(_), Judgement::Success) => Then::Done,
                (Ok(_), _) => Then::Dead(Reason::HandlerRejected),
                // The answer broke off under the sender's eyes, after a head that said how it would end.
                (Err(_), _) => then(end, Judgement::Again, event, now),
            };
            return (judgement, Self::of(then).told(Told::AtHead));
        }
        let Some(waiting) = waiting else {
            return (judgement, Self::of(then(end, judgement, event, now)).told(none));
        };
        if let (Ok(answer), Judgement::Success) = (end, judgement) {
            let reply = SenderReply::Answer(recorder.passed_on(answer));
            return (
                judgement,
                Self {
                    then: Then::Done,
                    passed_on: Some(PassedOn::Noted(waiting, reply)),
                    told: Told::Now(Whose::Handler),
                },
            );
        }
        let after_ack =
            || Self::of(then(end, self::judgement(end, event.policy(), false), event, now)).told(Told::Before);
        let passes_failures = event.policy().pass_failures;
        let (reply, cause) = match (end, judgement) {
            (Ok(answer), Judgement::Final) => {
                (SenderReply::Answer(recorder.passed_on(answer)), Reason::HandlerRejected)
            }
            (Ok(answer), _) if passes_failures => (SenderReply::Answer(recorder.passed_on(answer)), reason(end)),
            (Err(outcome), _) if passes_failures => (SenderReply::Failure((*outcome).into()), reason(end)),
            _ if waiting.give(SenderReply::Ack) => {
                return (judgement, Self::of(then(end, judgement, event, now)).told(Told::Now(Whose::Ack)));
            }
            _ => return (judgement, after_ack()),
        };
        let told = Told::Now(if matches!(reply, SenderReply::Answer(_)) { Whose::Handler } else { Whose::Relay });
        let ruling = waiting.bind(reply).map_or_else(after_ack, |bound| Self {
            then: Then::Dead(cause),
            passed_on: Some(PassedOn::Kept(bound)),
            told,
        });
        (judgement, ruling)
    }
}

impl Delivery {
    pub(super) async fn settle_attempt(&self, event: &Event, mut note: Note, end: AttemptEnd, ruling: Ruling) {
        note.tell(event, ruling.told, end.as_ref().ok().map(|answer| answer.status));
        let (outcome, answer) = match end {
            Ok(answer) => (Outcome::Answered, Some(answer)),
            Err(outcome) => (outcome, None),
        };
        if let Some(tracer) = self.tracer.as_ref().filter(|_| outcome != Outcome::NotCalled) {
            tracer.attempt(&SeenAttempt {
                id: event.id,
                origin: event.head.arrival.id,
                context: &event.head.arrival.traceparent,
                endpoint: event.endpoint.name.as_str(),
                number: event.lease.attempt,
                agent: note.agent.as_deref(),
                way: &note.way,
                handler_us: note.handler_us,
                status: answer.as_ref().map(|answer| answer.status),
                outcome: outcome.code(),
            });
        }
        let attempt = Attempt {
            number: event.lease.attempt,
            fence: event.lease.fence,
            started_at: note.started_at,
            duration: note.begun.elapsed(),
            outcome,
            agent: note.agent,
            answer,
            resigned: note.resigned,
            sha256_in: note.sha256_in,
            hops: note.way.hops,
        };
        let news = self.ending_news(event, &attempt, ruling.then);
        let end = End { endpoint: event.endpoint.name.clone(), id: event.id, attempt, then: ruling.then };
        self.settle(end, ruling.passed_on).await;
        match news {
            Ok(news) => self.publish(news.as_deref()),
            Err(Unknown) => self.tell(event.id).await,
        }
    }

    /// Settles what an agent told of an attempt that nobody waited for any more: after a restart of the relay.
    pub(super) async fn settle_stray(&self, event: &Event, state: OutcomeState) {
        if matches!(state, OutcomeState::Running) {
            return;
        }
        let mut note = Note::begin(self, None);
        note.sha256_in = sha256_in(&state);
        let end = end_of(state, event);
        let then = then(&end, judgement(&end, event.policy(), false), event, note.started_at);
        self.settle_attempt(event, note, end, Ruling::of(then)).await;
    }

    /// Settles an attempt. A store that is busy or away is asked again for as long as the attempt's lease lasts, for as many
    /// attempts as there is memory for.
    pub(super) async fn settle(&self, end: End, mut passed_on: Option<PassedOn>) {
        let until = self.lease_end(&end);
        let (mut room, mut pause) = (None, SETTLE_PAUSES.0);
        let why = loop {
            let error = match self.note_down(end.clone(), &mut passed_on).await {
                Ok(ended) => {
                    if !matches!(end.then, Then::Done | Then::Dead(_)) || self.is_ordered(&end.endpoint) {
                        self.wake.notify_one();
                    }
                    self.events.count(end.endpoint.as_str(), counted(ended, end.then));
                    return passed_on.into_iter().for_each(PassedOn::give);
                }
                Err(error) => error,
            };
            if !error.is_temporary() || self.clock.now() >= until {
                break error;
            }
            let kib = 1 + end.attempt.answer.as_ref().map_or(0, |answer| answer.body.len() / 1024);
            room = room.or_else(|| self.unsettled.try_acquire_many(u32::try_from(kib).ok()?).ok());
            if room.is_none() {
                break error;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SETTLE_PAUSES.1);
        };
        if let Some(held_back) = NOT_SETTLED.pass(end.endpoint.as_str()) {
            tracing::error!(error = %why, held_back, "an attempt's end was not kept; the event will come again");
        }
    }

    fn lease_end(&self, end: &End) -> Timestamp {
        let endpoint = self.endpoint(&end.endpoint);
        let policy = endpoint.as_ref().and_then(|endpoint| endpoint.policy.as_ref());
        let lease = policy.map_or(SETTLE_PAUSES.1, |policy| Self::lease(policy, Duration::ZERO));
        end.attempt.started_at.saturating_add(lease).unwrap_or(Timestamp::MAX)
    }

    /// Notes an end down. A success is passed on once the note is with the store's writer.
    async fn note_down(&self, end: End, passed_on: &mut Option<PassedOn>) -> Result<Option<Ended>, store::StoreError> {
        let mut noted = self.store.settle(vec![end], self.clock.now());
        let ended = match poll_fn(|cx| Poll::Ready(noted.as_mut().poll(cx))).await {
            Poll::Ready(ended) => ended,
            Poll::Pending => {
                let success = passed_on.take_if(|passed_on| matches!(passed_on, PassedOn::Noted(..)));
                success.into_iter().for_each(PassedOn::give);
                noted.await
            }
        };
        Ok(ended?.into_iter().next())
    }
}

fn counted(ended: Option<Ended>, then: Then) -> &'static str {
    match (ended, then) {
        (Some(Ended::Settled(_)), Then::Done) => "delivered",
        (Some(Ended::Settled(_)), Then::Retry(_)) => "retried",
        (Some(Ended::Settled(_)), Then::Dead(_)) => "dead",
        (Some(Ended::Settled(_)), Then::Release(_)) => "not_called",
        _ => "recorded",
    }
}

fn judgement(end: &AttemptEnd, policy: &DeliveryPolicy, waits: bool) -> Judgement {
    match end {
        Ok(answer) if waits => policy.statuses.while_waiting(answer.status),
        Ok(answer) => policy.statuses.after_ack(answer.status),
        Err(_) => Judgement::Again,
    }
}

/// What becomes of an event whose sender has its ack.
fn then(end: &AttemptEnd, judgement: Judgement, event: &Event, now: Timestamp) -> Then {
    let schedule = &event.policy().schedule;
    match (end, judgement) {
        (_, Judgement::Success) => Then::Done,
        (_, Judgement::Final) => Then::Dead(Reason::HandlerGaveUp),
        (Err(Outcome::NotCalled), _) => Then::Release(rest_until(now, REST)),
        (Err(outcome), _) if !Failure::from(*outcome).can_retry() => Then::Dead((*outcome).into()),
        (Err(Outcome::Lost), _) if event.lease.tries < schedule.attempts() => Then::Retry(now),
        (end, _) => {
            let named = end.as_ref().ok().and_then(|answer| answer.headers.all("retry-after").next());
            let asked = named.and_then(|value| retry_after(std::str::from_utf8(value).ok()?, now));
            let next = schedule.next(event.lease.tries, asked, random(), now);
            next.map_or(Then::Dead(reason(end)), Then::Retry)
        }
    }
}

/// Evenly drawn: the last bits of a random UUID are random.
fn random() -> u32 {
    let [.., a, b, c, d] = *Uuid::new_v4().as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn reason(end: &AttemptEnd) -> Reason {
    end.as_ref().err().copied().unwrap_or(Outcome::Answered).into()
}

pub(super) fn rest_until(now: Timestamp, rest: Duration) -> Timestamp {
    now.saturating_add(rest).unwrap_or(Timestamp::MAX)
}
