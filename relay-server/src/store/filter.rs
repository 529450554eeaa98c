//! Which events a list shows, and where the next page begins.

use std::cell::OnceCell;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    model::{State, Summary},
    summary_row::SummaryRow,
};
use relay_program::{
    pattern::fits,
    query::{Content, Is, Query},
};

use crate::{endpoint::EndpointName, webhook::EventId};

/// Every part that is set must hold. Empty lists and `None` let everything pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    #[serde(with = "names")]
    pub endpoints: Vec<EndpointName>,
    /// Received then or later.
    pub from: Option<Timestamp>,
    /// Received before then.
    pub until: Option<Timestamp>,
    pub states: Vec<State>,
    pub statuses: Vec<StatusRange>,
    /// Of one of these types; `*` stands for any text.
    pub event_types: Vec<String>,
    pub sender_id: Option<String>,
    /// Of bodies, the first 64 KiB are looked through.
    pub query: Query,
    /// How long senders wait at each endpoint, in microseconds, where the query asks for their patience.
    #[serde(with = "waits")]
    pub patience_us: Vec<(EndpointName, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRange(pub u16, pub u16);

#[derive(Clone, Debug)]
pub struct PageRequest {
    /// At most so many, and never more than [`super::MAX_PAGE`].
    pub limit: usize,
    pub after: Option<Cursor>,
    pub oldest_first: bool,
}

/// A place in a list: just after this event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub EventId);

#[derive(Clone, Debug, Default)]
pub struct Page {
    pub events: Vec<Summary>,
    /// There may be more from here.
    pub next: Option<Cursor>,
    pub looked: Look,
}

/// How far a search looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub rows: u64,
    /// When the last event came that was looked at.
    pub back_to: Option<Timestamp>,
}

impl Look {
    pub(super) fn at(&mut self, event: &Summary) {
        self.rows += 1;
        self.back_to = Some(event.received_at);
    }
}

impl Filter {
    /// Lets what has this text in its target, type, sender's id, headers or body pass.
    pub fn text(text: &str) -> Self {
        Self { query: Query::text(text), ..Self::default() }
    }

    /// Whether an event passes. Its content is asked for only where its row does not decide.
    pub(super) fn passes(&self, event: &Summary, content: &mut dyn Content) -> bool {
        let patience_us = self.patience_us.iter().find(|(name, _)| *name == event.endpoint).map(|(_, us)| *us);
        self.lets_pass(event)
            && self.query.matches(&SummaryRow { event, patience_us, target: OnceCell::new() }, content)
    }

    /// Whether an event of this endpoint can pass.
    pub(super) fn may_be_of(&self, endpoint: &EndpointName) -> bool {
        self.is_of(endpoint) && self.query.may_be_of(endpoint.as_str())
    }

    /// Of those that are named; of all but the relay's own where none is.
    fn is_of(&self, endpoint: &EndpointName) -> bool {
        if self.endpoints.is_empty() { !endpoint.is_relays_own() } else { self.endpoints.contains(endpoint) }
    }

    /// Received then or later, and before.
    pub(super) fn times(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let until = [self.until, self.query.until()].into_iter().flatten().min();
        (self.from.max(self.query.since()), until)
    }

    /// The sender's own id, where it looks for one.
    pub(super) fn sender(&self) -> Option<&str> {
        self.sender_id.as_deref().or_else(|| self.query.sender_id())
    }

    /// Whether whatever passes is a dead letter.
    pub(super) fn is_of_dead(&self) -> bool {
        let states = !self.states.is_empty() && self.states.iter().all(|state| *state == State::Dead);
        // A kept event that its handler rejected is dead.
        states || self.query.is_only(&[Is::Dead, Is::Rejected])
    }

    pub(super) fn is_of_open(&self) -> bool {
        let states = !self.states.is_empty() && self.states.iter().all(|state| state.is_open());
        states || self.query.is_only(&[Is::Waiting, Is::Running])
    }

    /// Whether an event passes all parts but the query.
    fn lets_pass(&self, event: &Summary) -> bool {
        let is_in = |range: &StatusRange| event.status.is_some_and(|status| (range.0..=range.1).contains(&status));
        let is_of = |pattern: &String| event.event_type.as_ref().is_some_and(|text| fits(pattern, text));
        self.is_of(&event.endpoint)
            && self.from.is_none_or(|from| event.received_at >= from)
            && self.until.is_none_or(|until| event.received_at < until)
            && (self.states.is_empty() || self.states.contains(&event.state))
            && (self.statuses.is_empty() || self.statuses.iter().any(is_in))
            && (self.event_types.is_empty() || self.event_types.iter().any(is_of))
            && self.sender_id.as_ref().is_none_or(|id| event.sender_id.as_ref() == Some(id))
    }
}

mod waits {
    use super::*;

    pub(super) fn serialize<S: Serializer>(waits: &[(EndpointName, u64)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(waits.iter().map(|(name, us)| (name.as_str(), us)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(EndpointName, u64)>, D::Error> {
        let parsed =
            |(text, us): (String, u64)| Ok((EndpointName::parse(&text).map_err(serde::de::Error::custom)?, us));
        Vec::<(String, u64)>::deserialize(from)?.into_iter().map(parsed).collect()
    }
}

mod names {
    use super::*;

    pub(super) fn serialize<S: Serializer>(names: &[EndpointName], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(names.iter().map(EndpointName::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EndpointName>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| EndpointName::parse(text).map_err(serde::de::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_being_written_down() {
        let filter = Filter {
            endpoints: vec![EndpointName::parse("github").expect("a name")],
            from: Some(Timestamp::UNIX_EPOCH),
            states: vec![State::Dead],
            statuses: vec![StatusRange(500, 599)],
            query: Query::parse("is:dead took:>1s", Timestamp::UNIX_EPOCH).0,
            patience_us: vec![(EndpointName::parse("github").expect("a name"), 5_000_000)],
            ..Filter::default()
        };
        let text = serde_json::to_string(&filter).expect("text");
        assert_eq!(serde_json::from_str::<Filter>(&text).expect("a filter"), filter);
    }
}
