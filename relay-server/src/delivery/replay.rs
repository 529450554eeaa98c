//! Events once more, because somebody asked for it: as new events of their endpoints, or to one agent alone.
//!
//! What goes to one agent alone is its own affair: no event, attempt or repeat is noted down, no circuit hears of it,
//! and an agent that is lost is not waited for.

use std::{sync::Arc, time::Duration};

use relay_schemes::Provider;
use thiserror::Error;
use tokio::time::Instant;

use super::{Delivery, attempt::Event, audience::Recorder, sign};
use crate::{
    agents::{
        attach_policy::hide_lines,
        registry::{AgentSelector, ChooseError},
    },
    deliver::{Call, deliver},
    endpoint::Endpoint,
    store::{Act, Acted, Action, Answer, Head, Lease, Outcome, Record, Signature, State, StoreError},
    verify::CannotSign,
    webhook::EventId,
};

/// What came of a replay to one agent.
#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    /// Its own id.
    pub id: EventId,
    /// The event that it repeats.
    pub of: EventId,
    /// The agent that had it.
    pub agent: String,
    /// Whether it was signed afresh.
    pub resigned: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// What the handler answered.
    pub answer: Option<Answer>,
    /// How long that took.
    pub duration: Duration,
}

/// A replay that waits for its delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredReplay {
    /// Its own id.
    pub id: EventId,
    /// The event that was repeated.
    pub of: EventId,
}

/// What whoever asks for a replay may do at its endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// Serve it: see what lets its sender in.
    pub attach: bool,
    /// Have what it keeps delivered once more to whoever serves it.
    pub replay: bool,
}

/// Why nothing was replayed.
#[derive(Debug, Error)]
pub(crate) enum NotReplayed {
    /// The endpoint is not there any more.
    #[error("its endpoint is not there any more")]
    NoEndpoint,
    /// The endpoint is live now.
    #[error("its endpoint is live now and keeps nothing, so nothing of it can be replayed")]
    Live,
    /// The event is damaged, or gone.
    #[error("it is {}, and cannot be replayed then", .0.map_or("gone", |_| "damaged"))]
    Not(Option<State>),
    /// The agent is not attached there.
    #[error("no such agent is attached to this endpoint")]
    NoAgent,
    /// The sender's credential would come with it.
    #[error(
        "its sender's credential stands in its query or body, so it is replayed only to agents that may serve the \
         endpoint: their token needs the right `attach`"
    )]
    ShowsCredential,
    /// It has too much to do.
    #[error("too many exchanges are in flight with this agent; try again")]
    Busy,
    /// It was to be signed afresh and cannot be.
    #[error("it cannot be signed afresh: {0}")]
    CannotSign(#[from] CannotSign),
    /// The store says no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Delivery {
    /// Delivers an event to one agent alone, and changes nothing that is kept.
    ///
    /// # Errors
    /// [`NotReplayed`] if the agent was not asked to call its handler.
    pub(crate) async fn replay_to(
        &self,
        selector: &AgentSelector<'_>,
        endpoint: Option<&Arc<Endpoint>>,
        record: Record,
        signature: Signature,
        asker: Asker,
    ) -> Result<Replayed, NotReplayed> {
        let endpoint = endpoint.ok_or(NotReplayed::NoEndpoint)?;
        let Record { summary, mut head, .. } = record;
        let provider = endpoint.verify.provider();
        if !asker.attach && provider.is_some_and(Provider::shows_credential) {
            return Err(NotReplayed::ShowsCredential);
        }
        if summary.state == State::Damaged {
            return Err(NotReplayed::Not(Some(summary.state)));
        }
        head.signature = signature;
        let of = summary.replay_of.unwrap_or(summary.id);
        let lease = Lease { fence: 0, attempt: 1, tries: 1 };
        let event = Event::of(endpoint, summary, head, None, lease).ok_or(NotReplayed::Live)?;
        let mut event = Event { id: EventId::new(), replay_of: Some(of), ..event };
        if !asker.replay && signature == Signature::Fresh {
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
        let (id, agent, begun) = (event.id, place.agent().name.to_string(), Instant::now());
        let mut head = event.request(afresh.as_ref(), None); // Nobody has to be told of it later.
        if !asker.attach {
            hide_lines(&mut head, &provider.map(Provider::credential_headers).unwrap_or_default());
        }
        let call = Call::open(place, head, event.source(self.bodies()));
        let until = begun + event.keeping().attempt_timeout;
        let (outcome, answer) = match deliver(call, until, &mut Recorder::new(&event, None)).await {
            Ok(answer) => (Outcome::Answered, Some(answer)),
            Err(why) => (why.into(), None),
        };
        Ok(Replayed { id, of, agent, resigned, outcome, answer, duration: begun.elapsed() })
    }

    /// Makes a new event with an event's content, that takes the same way as any other.
    ///
    /// # Errors
    /// [`NotReplayed`].
    pub(crate) async fn replay(
        &self,
        endpoint: Option<&Arc<Endpoint>>,
        record: Record,
        signature: Signature,
    ) -> Result<StoredReplay, NotReplayed> {
        let Record { summary, head, .. } = record;
        let (name, of, id) = (summary.endpoint.clone(), summary.id, EventId::new());
        if signature == Signature::Fresh {
            let endpoint = endpoint.ok_or(NotReplayed::NoEndpoint)?;
            let lease = Lease { fence: 0, attempt: 1, tries: 1 };
            let event = Event::of(endpoint, summary, head, None, lease).ok_or(NotReplayed::Live)?;
            // It is signed at each attempt; whether it can be is known only once it has been.
            let head = Head { signature, ..event.head };
            let mut event = Event { head, ..event };
            sign::try_out(self, &mut event).await?;
        }
        let act = Act { endpoint: name, id: of, action: Action::Replay(id, signature) };
        let acted = self.store.act(vec![act], self.clock.now()).await?;
        self.wake();
        match acted.first() {
            Some(Acted::Done) => Ok(StoredReplay { id, of }),
            Some(Acted::Not(state)) => Err(NotReplayed::Not(Some(*state))),
            Some(Acted::Unknown) | None => Err(NotReplayed::Not(None)),
        }
    }
}
