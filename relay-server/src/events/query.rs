//! The query of a list or an action, as an API's caller typed it.

use jiff::Timestamp;
use relay_program::query::Query;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::{
    endpoint::EndpointName,
    failure::ApiError,
    store::{Cursor, Filter, State, StatusRange},
};

/// What is asked of a list, and of an action on many.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventQuery {
    endpoint: Option<String>,
    state: Option<String>,
    event_type: Option<String>,
    sender_id: Option<String>,
    status: Option<String>,
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    #[param(value_type = Option<String>)]
    until: Option<Timestamp>,
    text: Option<String>,
    pub(super) limit: Option<usize>,
    after: Option<String>,
    #[serde(default)]
    pub(super) oldest_first: bool,
}

impl EventQuery {
    pub(crate) fn searches(&self) -> bool {
        self.text.is_some()
    }

    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    pub(crate) fn filter(&self) -> Result<Filter, ApiError> {
        let endpoint = self.endpoint.as_deref().map(name).transpose()?;
        let state = self.state.as_deref().map(state).transpose()?;
        let status = self.status.as_deref().map(statuses).transpose()?;
        Ok(Filter {
            endpoints: endpoint.into_iter().collect(),
            from: self.since,
            until: self.until,
            states: state.into_iter().collect(),
            statuses: status.into_iter().collect(),
            event_types: self.event_type.iter().flat_map(|types| types.split(',')).map(str::to_owned).collect(),
            sender_id: self.sender_id.clone(),
            query: self.text.as_deref().map(Query::text).unwrap_or_default(),
            ..Filter::default()
        })
    }

    pub(super) fn after(&self) -> Result<Option<Cursor>, ApiError> {
        let after = self.after.as_deref().map(|text| text.parse().map(Cursor)).transpose();
        after.map_err(|_| ApiError::bad_request("`after` is the `next` of the page before"))
    }
}

fn name(text: &str) -> Result<EndpointName, ApiError> {
    EndpointName::parse(text).map_err(|why| ApiError::bad_request(format!("this is no endpoint's name: {why}")))
}

fn state(text: &str) -> Result<State, ApiError> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| ApiError::bad_request("a state is pending, running, delivered, dead, dropped or damaged"))
}

/// `404`, `5xx` or `400-499`.
fn statuses(text: &str) -> Result<StatusRange, ApiError> {
    let wrong = || ApiError::bad_request("write a status like 404, 5xx or 400-499");
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class)).ok_or_else(wrong)?;
        return Ok(StatusRange(class * 100, class * 100 + 99));
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) => Ok(StatusRange(from, to)),
        _ => Err(wrong()),
    }
}
