//! Which events a list shows, and where the next page begins.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::model::{State, Summary};
use relay_program::pattern::fits;

use crate::{endpoint::EndpointName, webhook::EventId};

/// Every part that is set must hold. Empty lists and `None` let everything pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// At one of these endpoints.
    #[serde(with = "names")]
    pub endpoints: Vec<EndpointName>,
    /// Received then or later.
    pub from: Option<Timestamp>,
    /// Received before then.
    pub until: Option<Timestamp>,
    /// In one of these states.
    pub states: Vec<State>,
    /// Last answered with one of these statuses.
    pub statuses: Vec<StatusRange>,
    /// Of one of these types; `*` stands for any text.
    pub event_types: Vec<String>,
    /// With this id of the sender's.
    pub sender_id: Option<String>,
    /// With this text in target, type, sender's id, head or body (the first 64 KiB).
    pub text: Option<String>,
    /// Flagged: an earlier event had the same dedup key and another body.
    pub conflicts: bool,
}

/// Statuses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRange(pub u16, pub u16);

/// What page of a list.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// At most so many, and never more than [`super::MAX_PAGE`].
    pub limit: usize,
    /// Where the last page ended.
    pub after: Option<Cursor>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
}

/// A place in a list: just after this event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(#[serde(with = "event_id")] pub EventId);

/// Events, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub events: Vec<Summary>,
    /// There may be more from here.
    pub next: Option<Cursor>,
}

impl Filter {
    /// Whether an event passes all parts but `text`.
    pub(crate) fn lets_pass(&self, event: &Summary) -> bool {
        self.passes(&event.endpoint, event.received_at, event.state, event.status)
            && self.passes_type(event.event_type.as_deref())
            && self.sender_id.as_ref().is_none_or(|id| event.sender_id.as_ref() == Some(id))
            && (!self.conflicts || event.conflict_with.is_some())
    }

    fn passes(&self, endpoint: &EndpointName, at: Timestamp, state: State, status: Option<u16>) -> bool {
        (self.endpoints.is_empty() || self.endpoints.contains(endpoint))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
            && (self.states.is_empty() || self.states.contains(&state))
            && (self.statuses.is_empty()
                || status.is_some_and(|status| self.statuses.iter().any(|range| (range.0..=range.1).contains(&status))))
    }

    fn passes_type(&self, event_type: Option<&str>) -> bool {
        self.event_types.is_empty()
            || event_type.is_some_and(|text| self.event_types.iter().any(|pattern| fits(pattern, text)))
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

mod event_id {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &EventId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EventId, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
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
            ..Filter::default()
        };
        let text = serde_json::to_string(&filter).expect("text");
        assert_eq!(serde_json::from_str::<Filter>(&text).expect("a filter"), filter);
    }
}
