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
    /// With this text in target, type, sender's id, head or body (the first 64 KiB).
    pub text: Option<String>,
    /// Flagged: an earlier event had the same dedup key and another body.
    pub conflicts: bool,
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
}

impl Filter {
    /// Whether an event passes all parts but `text`.
    pub(crate) fn lets_pass(&self, event: &Summary) -> bool {
        let is_in = |range: &StatusRange| event.status.is_some_and(|status| (range.0..=range.1).contains(&status));
        let is_of = |pattern: &String| event.event_type.as_ref().is_some_and(|text| fits(pattern, text));
        (self.endpoints.is_empty() || self.endpoints.contains(&event.endpoint))
            && self.from.is_none_or(|from| event.received_at >= from)
            && self.until.is_none_or(|until| event.received_at < until)
            && (self.states.is_empty() || self.states.contains(&event.state))
            && (self.statuses.is_empty() || self.statuses.iter().any(is_in))
            && (self.event_types.is_empty() || self.event_types.iter().any(is_of))
            && self.sender_id.as_ref().is_none_or(|id| event.sender_id.as_ref() == Some(id))
            && (!self.conflicts || event.conflict_with.is_some())
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
            ..Filter::default()
        };
        let text = serde_json::to_string(&filter).expect("text");
        assert_eq!(serde_json::from_str::<Filter>(&text).expect("a filter"), filter);
    }
}
