//! The query of a list or an action, as an API's caller typed it.
//!
//! Single parameters and `q` are terms of one query, all of which must hold.

use jiff::Timestamp;
use relay_program::query::{Is, Mistake, Query};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{endpoint::EndpointName, failure::ApiError, store::Cursor, webhook::EventId};

/// What is asked of a list, and of an action on many.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventQuery {
    /// In the search grammar.
    q: Option<String>,
    /// Of this endpoint.
    endpoint: Option<String>,
    /// `pending`, `running`, `delivered`, `dead`, `dropped` or `damaged`.
    state: Option<String>,
    /// `event`, `live`, `refused` or `handshake`, several with commas. Without it and without `q`: `event`; with `q`: all.
    kind: Option<String>,
    /// Of one of these types; `*` stands for any text.
    event_type: Option<String>,
    /// With this id of its sender's.
    sender_id: Option<String>,
    /// Such as `404`, `5xx` or `400-499`.
    status: Option<String>,
    method: Option<String>,
    agent: Option<String>,
    /// Such as `>500ms`.
    took: Option<String>,
    /// Such as `<2kB`.
    size: Option<String>,
    /// A moment, or how long ago, such as `42m`.
    since: Option<String>,
    until: Option<String>,
    /// With this text in target, type, sender's id, headers or body.
    text: Option<String>,
    pub(super) limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
    /// An event that is to stand in the middle of the page.
    around: Option<String>,
    #[serde(default)]
    pub(super) oldest_first: bool,
}

/// What a list may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    pub event: bool,
    pub live: bool,
    pub refused: bool,
    pub handshake: bool,
}

impl Kinds {
    const ALL: Self = Self { event: true, live: true, refused: true, handshake: true };
    const KEPT: Self = Self { event: true, live: false, refused: false, handshake: false };
}

impl EventQuery {
    /// A text in the search grammar alone.
    pub(crate) fn of(q: String) -> Self {
        Self { q: Some(q), ..Self::default() }
    }

    /// Whether it is searched in what events carry, in which a credential may stand.
    pub(crate) fn searches(&self, now: Timestamp) -> bool {
        self.query(now).is_ok_and(|query| query.needs().anything())
    }

    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Endpoints that it names outright, in whatever way.
    pub(crate) fn names(&self, now: Timestamp) -> Vec<String> {
        self.query(now).map(|query| query.names().into_iter().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// All of it in one query.
    pub(crate) fn query(&self, now: Timestamp) -> Result<Query, ApiError> {
        let (mut query, mistakes) = Query::parse(self.q.as_deref().unwrap_or_default(), now);
        if let Some(mistake) = mistakes.into_iter().next() {
            return Err(mistaken(&mistake, &query));
        }
        if let Some(name) = &self.endpoint {
            EndpointName::parse(name)
                .map_err(|why| ApiError::bad_request(format!("this is no endpoint's name: {why}")))?;
        }
        let terms = [
            ("endpoint", "endpoint", &self.endpoint),
            ("event_type", "type", &self.event_type),
            ("sender_id", "sender", &self.sender_id),
            ("status", "status", &self.status),
            ("method", "method", &self.method),
            ("agent", "agent", &self.agent),
            ("took", "took", &self.took),
            ("size", "size", &self.size),
            ("since", "since", &self.since),
            ("until", "until", &self.until),
        ];
        for (parameter, key, value) in terms {
            let Some(value) = value else { continue };
            let term = Query::key(key, value, now);
            query = query.and(term.map_err(|mistake| wrong(parameter, &mistake))?);
        }
        if let Some(state) = &self.state {
            query = query.and_is(&[state_word(state)?]);
        }
        if let Some(text) = &self.text {
            query = query.and(Query::text(text));
        }
        Ok(query)
    }

    pub(super) fn kinds(&self) -> Result<Kinds, ApiError> {
        let Some(kind) = &self.kind else {
            return Ok(if self.q.is_some() { Kinds::ALL } else { Kinds::KEPT });
        };
        let mut kinds = Kinds { event: false, live: false, refused: false, handshake: false };
        for word in kind.split(',') {
            match word.trim() {
                "event" => kinds.event = true,
                "live" => kinds.live = true,
                "refused" => kinds.refused = true,
                "handshake" => kinds.handshake = true,
                "all" => kinds = Kinds::ALL,
                _ => return Err(ApiError::bad_request("a kind is event, live, refused, handshake or all")),
            }
        }
        Ok(kinds)
    }

    pub(super) fn after(&self) -> Result<Option<Cursor>, ApiError> {
        let after = self.after.as_deref().map(|text| text.parse().map(Cursor)).transpose();
        after.map_err(|_| ApiError::bad_request("`after` is the `next` of the page before"))
    }

    pub(super) fn around(&self) -> Result<Option<EventId>, ApiError> {
        let around = self.around.as_deref().map(str::parse).transpose();
        around.map_err(|_| ApiError::bad_request("`around` is an event's id"))
    }
}

/// What stands in `q` and cannot be read.
pub(crate) fn mistaken(mistake: &Mistake, in_force: &Query) -> ApiError {
    let mut error = ApiError::bad_request(said(mistake));
    error.at = Some(mistake.at);
    error.in_force = Some(in_force.to_string());
    error
}

fn wrong(parameter: &str, mistake: &Mistake) -> ApiError {
    ApiError::bad_request(format!("`{parameter}`: {}", said(mistake)))
}

fn said(mistake: &Mistake) -> String {
    if mistake.hint.is_empty() { mistake.message.clone() } else { format!("{}: {}", mistake.message, mistake.hint) }
}

fn state_word(text: &str) -> Result<Is, ApiError> {
    match text {
        "pending" => Ok(Is::Waiting),
        "running" => Ok(Is::Running),
        "delivered" => Ok(Is::Delivered),
        "dead" => Ok(Is::Dead),
        "dropped" => Ok(Is::Dropped),
        "damaged" => Ok(Is::Damaged),
        "answered" => Ok(Is::Answered),
        "rejected" => Ok(Is::Rejected),
        "failed" => Ok(Is::Failed),
        _ => Err(ApiError::bad_request("a state is pending, running, delivered, dead, dropped or damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<EventQuery, serde_json::Error> {
        serde_json::from_value(serde_json::json!({ "q": text }))
    }

    #[test]
    fn parameters_and_q_are_one_query() {
        let mut asked = asked("is:dead x").expect("a query");
        (asked.endpoint, asked.status, asked.state) = (Some("pay".into()), Some("5xx".into()), Some("pending".into()));
        (asked.sender_id, asked.text) = (Some("01a20e58".into()), Some("two words".into()));
        let query = asked.query(Timestamp::UNIX_EPOCH).expect("all of it can be read");
        let text = "is:dead x endpoint:pay sender:01a20e58 status:500-599 is:waiting \"two words\"";
        assert_eq!(query.to_string(), text);
        assert_eq!(asked.names(Timestamp::UNIX_EPOCH), ["pay"]);
        asked.status = Some("many".into());
        let error = asked.query(Timestamp::UNIX_EPOCH).expect_err("that is no status");
        assert!(error.message.starts_with("`status`: `many` is no status"), "{error:?}");
    }

    #[test]
    fn a_mistake_in_q_has_its_place_and_what_is_in_force() {
        let error = asked("is:dead stauts:5").expect("text").query(Timestamp::UNIX_EPOCH).expect_err("a mistake");
        assert_eq!((error.at, error.in_force.as_deref()), (Some(8), Some("is:dead")));
    }

    #[test]
    fn without_q_kept_events_alone_are_listed() {
        let kinds = |kind: Option<&str>, q: Option<&str>| {
            let asked = EventQuery { kind: kind.map(str::to_owned), q: q.map(str::to_owned), ..EventQuery::default() };
            asked.kinds().ok()
        };
        assert_eq!((kinds(None, None), kinds(None, Some(""))), (Some(Kinds::KEPT), Some(Kinds::ALL)));
        let two = Kinds { live: true, refused: true, event: false, handshake: false };
        assert_eq!((kinds(Some("live,refused"), None), kinds(Some("mail"), None)), (Some(two), None));
    }
}
