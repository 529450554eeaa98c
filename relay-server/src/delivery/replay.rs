//! Events once more, because somebody asked for it: as new events of their endpoints, or to one agent alone.
//!
//! What goes to one agent alone is its own affair: no event, attempt or repeat is noted down, no circuit hears of it,
//! and an agent that is lost is not waited for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use relay_schemes::{EventMeta, Provider, Request};
use thiserror::Error;
use tokio::time::Instant;

use super::{
    Delivery,
    attempt::{Event, EventBody},
    audience::Recorder,
    sign,
};
use crate::{
    agents::{
        attach_policy::hide_lines,
        registry::{AgentSelector, ChooseError},
    },
    deliver::{Call, deliver},
    endpoint::{Endpoint, Order},
    message::{EDITED, Sent},
    store::{
        Act, Acted, Action, Answer, Body, Head, Lease, NewEvent, Outcome, Record, Signature, State, StoreError, Summary,
    },
    verify::CannotSign,
    webhook::EventId,
};

#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    pub id: EventId,
    pub of: EventId,
    pub agent: String,
    pub resigned: bool,
    pub outcome: Outcome,
    pub answer: Option<Answer>,
    pub duration: Duration,
}

/// What whoever asks for a replay may do at its endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// Serve it: see what lets its sender in.
    pub attach: bool,
    /// Have what it keeps delivered once more to whoever serves it.
    pub replay: bool,
    /// Have content of its own making signed.
    pub sign: bool,
}

/// What is delivered in the place of an event's own content.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub sent: Sent,
    /// Under which a sender would know it.
    pub url: String,
    pub body: Bytes,
}

#[derive(Debug, Error)]
pub(crate) enum NotReplayed {
    #[error("its endpoint is not there any more")]
    NoEndpoint,
    #[error("its endpoint is live now and keeps nothing, so nothing of it can be replayed")]
    Live,
    #[error("it is {}, and cannot be replayed then", .0.map_or("gone", |_| "damaged"))]
    Not(Option<State>),
    #[error("no such agent is attached to this endpoint")]
    NoAgent,
    #[error(
        "its sender's credential stands in its query or body, so it is replayed only to agents that may serve the \
         endpoint: their token needs the right `attach`"
    )]
    ShowsCredential,
    #[error("content that was changed is signed afresh only for tokens with the right `sign`")]
    MayNotSign,
    #[error("too many exchanges are in flight with this agent; try again")]
    Busy,
    #[error("it cannot be signed afresh: {0}")]
    CannotSign(#[from] CannotSign),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Changed {
    /// Has it delivered in the place of what came; its body. Nothing of it is signed but for whoever may have that done.
    fn put_over(self, head: &mut Head, asker: Asker) -> Result<Bytes, NotReplayed> {
        let Self { sent, url, body } = self;
        match head.signature {
            Signature::Fresh if !asker.sign => return Err(NotReplayed::MayNotSign),
            Signature::Fresh => {}
            Signature::Auto | Signature::Keep => {
                head.signature = Signature::Keep;
                EDITED.clone_into(&mut head.arrival.verified);
            }
        }
        (head.sent, head.arrival.url) = (sent, url);
        Ok(body)
    }
}

/// Has an event say of itself what its changed content does: by that it is listed, signed and put in order.
fn describe_anew(event: &mut Summary, endpoint: &Endpoint, head: &Head, body: &[u8]) {
    let lines = sign::SchemeLines(&head.sent.headers);
    let request = Request { method: &head.sent.method, url: &head.arrival.url, headers: &lines, body };
    let EventMeta { id, kind } = endpoint.verify.event_of(&request);
    // Without one of its own it is signed under the first one's: a scheme may need it.
    event.sender_id = id.or(event.sender_id.take());
    event.event_type = kind;
    if let Some(Order::ByKey(locator)) = endpoint.policy.as_ref().map(|policy| &policy.order) {
        event.order_key = locator.find(&request);
    }
}

impl Delivery {
    /// Delivers an event to one agent alone, and changes nothing that is kept. The body of a live one comes along, since it
    /// is in no store.
    pub(crate) async fn replay_to(
        &self,
        selector: &AgentSelector<'_>,
        endpoint: Option<&Arc<Endpoint>>,
        (record, live): (Record, Option<Bytes>),
        changed: Option<Changed>,
        signature: Signature,
        asker: Asker,
    ) -> Result<Replayed, NotReplayed> {
        let endpoint = endpoint.ok_or(NotReplayed::NoEndpoint)?;
        let Record { mut summary, mut head, .. } = record;
        let provider = endpoint.verify.provider();
        let shows_credential = provider.is_some_and(Provider::shows_credential);
        if shows_credential && !asker.attach {
            return Err(NotReplayed::ShowsCredential);
        }
        if summary.state == State::Damaged {
            return Err(NotReplayed::Not(Some(summary.state)));
        }
        head.signature = signature;
        let (is_changed, body) =
            (changed.is_some(), changed.map(|changed| changed.put_over(&mut head, asker)).transpose()?);
        if let Some(body) = &body {
            describe_anew(&mut summary, endpoint, &head, body);
        }
        let of = summary.replay_of.unwrap_or(summary.id);
        let lease = Lease { fence: 0, attempt: 1, tries: 1 };
        let event = match live {
            Some(live) => Event::with(endpoint, summary, head, EventBody::Whole(body.unwrap_or(live)), lease),
            None => Event::of(endpoint, summary, head, body, lease).ok_or(NotReplayed::Live)?,
        };
        let mut event = Event { id: EventId::new(), replay_of: Some(of), ..event };
        if !asker.replay && !is_changed && signature == Signature::Fresh {
            sign::may(endpoint, &event.head)?;
            if !endpoint.verify.dates_signatures() {
                return Err(CannotSign::Undated.into());
            }
        }
        let afresh = sign::afresh(self, &mut event).await?;
        let resigned = afresh.is_some();
        let place = self.registry.reserve_for(endpoint.name.as_str(), selector).map_err(|why| match why {
            ChooseError::Busy => NotReplayed::Busy,
            ChooseError::NoAgent | ChooseError::Unwanted | ChooseError::Limited { .. } => NotReplayed::NoAgent,
        })?;
        // Names are the agents' own: whoever asks may serve the endpoint, and mean another agent than the one that has it.
        let serves = asker.attach && self.registry.may_serve(endpoint.name.as_str(), &place);
        if shows_credential && !serves {
            return Err(NotReplayed::ShowsCredential);
        }
        let (id, agent, begun) = (event.id, place.agent().name.to_string(), Instant::now());
        let mut head = event.request(afresh.as_ref(), None, None); // Nobody has to be told of it later.
        if !serves {
            hide_lines(&mut head, &provider.map(Provider::credential_headers).unwrap_or_default());
        }
        let call = Call::open(place, head, event.source(self.bodies()));
        let until = begun + endpoint.policy.as_ref().map_or(endpoint.deadline, |policy| policy.attempt_timeout);
        let end = deliver(call, until, &mut Recorder::new(&event, None)).await;
        let outcome = end.as_ref().map_or_else(|why| (*why).into(), |_| Outcome::Answered);
        Ok(Replayed { id, of, agent, resigned, outcome, answer: end.ok(), duration: begun.elapsed() })
    }

    /// Makes a new event with content that somebody changed, that takes the same way as any other; its id.
    pub(crate) async fn replay_changed(
        &self,
        endpoint: Option<&Arc<Endpoint>>,
        record: Record,
        changed: Changed,
        signature: Signature,
        asker: Asker,
    ) -> Result<EventId, NotReplayed> {
        let endpoint = endpoint.ok_or(NotReplayed::NoEndpoint)?;
        let Record { mut summary, mut head, .. } = record;
        let (id, now) = (EventId::new(), self.clock.now());
        head.signature = signature;
        let body = changed.put_over(&mut head, asker)?;
        describe_anew(&mut summary, endpoint, &head, &body);
        let of = summary.replay_of.unwrap_or(summary.id);
        let (order_key, event_type, sender_id) =
            (summary.order_key.clone(), summary.event_type.clone(), summary.sender_id.clone());
        let lease = Lease { fence: 0, attempt: 1, tries: 1 };
        let name = summary.endpoint.clone();
        let event = Event::of(endpoint, summary, head.clone(), Some(body.clone()), lease).ok_or(NotReplayed::Live)?;
        if head.signature == Signature::Fresh {
            // It is signed at each attempt; whether it can be is known only once it has been.
            sign::try_out(self, &mut Event { id, ..event }).await?;
        }
        let new = NewEvent {
            endpoint: name,
            id,
            received_at: now,
            head,
            body: Body::Bytes(body),
            event_type,
            sender_id,
            dedup: None,
            mark: None,
            order_key,
            replay_of: Some(of),
            lease: None,
        };
        self.store.append(vec![new], now).await?;
        self.wake();
        Ok(id)
    }

    /// Makes a new event with an event's content, that takes the same way as any other; its id.
    pub(crate) async fn replay(
        &self,
        endpoint: Option<&Arc<Endpoint>>,
        record: Record,
        signature: Signature,
    ) -> Result<EventId, NotReplayed> {
        let Record { summary, head, .. } = record;
        let (name, of, id) = (summary.endpoint.clone(), summary.id, EventId::new());
        if signature == Signature::Fresh {
            let endpoint = endpoint.ok_or(NotReplayed::NoEndpoint)?;
            let lease = Lease { fence: 0, attempt: 1, tries: 1 };
            let mut event = Event::of(endpoint, summary, head, None, lease).ok_or(NotReplayed::Live)?;
            // It is signed at each attempt; whether it can be is known only once it has been.
            sign::try_out(self, &mut event).await?;
        }
        let act = Act { endpoint: name, id: of, action: Action::Replay(id, signature) };
        let acted = self.store.act(vec![act], self.clock.now()).await?;
        self.wake();
        match acted.first() {
            Some(Acted::Done) => {
                self.tell(id).await;
                Ok(id)
            }
            Some(Acted::Not(state)) => Err(NotReplayed::Not(Some(*state))),
            Some(Acted::Unknown) | None => Err(NotReplayed::Not(None)),
        }
    }
}
