//! The admin API's part about kept events: read them and act on them.

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin,
    api::{answer, error},
};
use crate::{
    endpoint::EndpointName,
    refused::{MASKED, authenticates},
    store::{
        Act, Acted, Action, Attempt, BulkAction, Cursor, Filter, MAX_PAGE, MAX_RANGE_BYTES, PageRequest, Record,
        State as Stands, StatusRange, StoreError, Summary,
    },
    webhook::EventId,
};

/// Events of a list, where the question does not say how many.
const DEFAULT_LIMIT: usize = 100;

/// Pages that one question looks through at most before it says where to go on.
const MAX_PAGES: usize = 100;

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/api/v1/events", get(list))
        .route("/api/v1/events/{id}", get(show))
        .route("/api/v1/events/{id}/body", get(body))
        .route("/api/v1/events/{id}/{action}", post(act))
        .route("/api/v1/dead/{action}", post(bulk))
        .route("/api/v1/bulks", get(bulks))
        .route("/api/v1/backup", post(backup))
}

/// What is asked of a list, and of an action on many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    endpoint: Option<String>,
    state: Option<String>,
    event_type: Option<String>,
    sender_id: Option<String>,
    status: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    text: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    #[serde(default)]
    oldest_first: bool,
}

pub(super) type Refusal = Box<Response>;

fn wrong(message: &str) -> Refusal {
    Box::new(error(StatusCode::BAD_REQUEST, "bad_request", message))
}

impl Asked {
    fn filter(&self) -> Result<Filter, Refusal> {
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
            text: self.text.clone(),
            conflicts: false,
        })
    }
}

fn name(text: &str) -> Result<EndpointName, Refusal> {
    EndpointName::parse(text).map_err(|why| wrong(&format!("this is no endpoint's name: {why}")))
}

fn state(text: &str) -> Result<Stands, Refusal> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| wrong("a state is pending, running, delivered, dead, dropped or damaged"))
}

/// `404`, `5xx` or `400-499`.
fn statuses(text: &str) -> Result<StatusRange, Refusal> {
    let wrong = || wrong("write a status like 404, 5xx or 400-499");
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

async fn list(State(admin): State<Admin>, Query(asked): Query<Asked>) -> Response {
    listed(&admin, &asked).await.unwrap_or_else(|refusal| *refusal)
}

async fn listed(admin: &Admin, asked: &Asked) -> Result<Response, Refusal> {
    let filter = asked.filter()?;
    let limit = asked.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_PAGE);
    let after = asked.after.as_deref().map(|text| text.parse().map(Cursor)).transpose();
    let mut after = after.map_err(|_| wrong("`after` is the `next` of the page before"))?;
    let mut events = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = PageRequest { limit: limit - events.len(), after: after.clone(), oldest_first: asked.oldest_first };
        let page = admin.door.delivery.store.list(filter.clone(), page).await.map_err(failed)?;
        events.extend(page.events.iter().map(summary));
        after = page.next;
        if after.is_none() || events.len() >= limit {
            break;
        }
    }
    let next = after.map(|Cursor(id)| id.to_string());
    Ok(answer(StatusCode::OK, &json!({ "events": events, "next": next })))
}

/// An event by its id, or by its sender's own.
async fn find(admin: &Admin, id: &str) -> Result<Record, Refusal> {
    let store = &admin.door.delivery.store;
    let missing = || {
        let why = "no kept event has this id; see `event list`, and `event list --state refused` for what was refused";
        Box::new(error(StatusCode::NOT_FOUND, "not_found", why))
    };
    if let Ok(id) = id.parse::<EventId>() {
        return store.event(None, id).await.map_err(failed)?.ok_or_else(missing);
    }
    let filter = Filter { sender_id: Some(id.to_owned()), ..Filter::default() };
    let page = PageRequest { limit: 1, after: None, oldest_first: false };
    let found = store.list(filter, page).await.map_err(failed)?;
    let summary = found.events.first().ok_or_else(missing)?;
    store.event(Some(summary.endpoint.clone()), summary.id).await.map_err(failed)?.ok_or_else(missing)
}

async fn show(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    match find(&admin, &id).await {
        Ok(record) => answer(StatusCode::OK, &detail(&record)),
        Err(refusal) => *refusal,
    }
}

async fn body(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    match whole(&admin, &id).await {
        Ok(bytes) => {
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
            (StatusCode::OK, kind, bytes).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn whole(admin: &Admin, id: &str) -> Result<Bytes, Refusal> {
    let Summary { endpoint, id, size, .. } = find(admin, id).await?.summary;
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < size {
        let range = at..size.min(at + MAX_RANGE_BYTES);
        let part = admin.door.delivery.store.body(endpoint.clone(), id, range).await.map_err(failed)?;
        let Some(part) = part.filter(|part| !part.is_empty()) else { break };
        at += part.len() as u64;
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.into())
}

async fn act(State(admin): State<Admin>, Path((id, action)): Path<(String, String)>) -> Response {
    acted(&admin, &id, &action).await.unwrap_or_else(|refusal| *refusal)
}

async fn acted(admin: &Admin, id: &str, action: &str) -> Result<Response, Refusal> {
    let fresh = EventId::new();
    let action = match action {
        "revive" => Action::Revive,
        "drop" => Action::Drop,
        "cancel" => Action::Cancel,
        "replay" => Action::Replay(fresh),
        _ => return Err(Box::new(super::api::unknown().await)),
    };
    let Summary { endpoint, id, .. } = find(admin, id).await?.summary;
    let delivery = &admin.door.delivery;
    let acts = vec![Act { endpoint, id, action }];
    let acted = delivery.store.act(acts, Timestamp::now()).await.map_err(failed)?.into_iter().next();
    delivery.wake();
    let new = matches!(action, Action::Replay(_)).then(|| fresh.to_string());
    match acted {
        Some(Acted::Done) => Ok(answer(StatusCode::OK, &json!({ "id": id.to_string(), "new_id": new }))),
        Some(Acted::Not(state)) => {
            let message = format!("the event is {}, and this cannot be done to it then", word(state));
            Ok(error(StatusCode::CONFLICT, "wrong_state", &message))
        }
        Some(Acted::Unknown) | None => Ok(error(StatusCode::NOT_FOUND, "not_found", "the event is gone")),
    }
}

async fn bulk(State(admin): State<Admin>, Path(action): Path<String>, Query(asked): Query<Asked>) -> Response {
    bulked(&admin, &action, &asked).await.unwrap_or_else(|refusal| *refusal)
}

async fn bulked(admin: &Admin, action: &str, asked: &Asked) -> Result<Response, Refusal> {
    let action = match action {
        "revive" => BulkAction::Revive,
        "drop" => BulkAction::Drop,
        _ => return Err(Box::new(super::api::unknown().await)),
    };
    let filter = Filter { states: vec![Stands::Dead], ..asked.filter()? };
    let id = EventId::new();
    admin.door.delivery.store.bulk(id, action, filter, Timestamp::now()).await.map_err(failed)?;
    admin.door.delivery.wake_bulks();
    Ok(answer(StatusCode::ACCEPTED, &json!({ "bulk": id.to_string() })))
}

async fn bulks(State(admin): State<Admin>) -> Response {
    match admin.door.delivery.store.bulks().await {
        Ok(bulks) => {
            let shown = |bulk: &crate::store::Bulk| json!({ "id": bulk.id.to_string(), "done": bulk.done, "skipped": bulk.skipped, "finished": bulk.finished });
            answer(StatusCode::OK, &json!({ "bulks": bulks.iter().map(shown).collect::<Vec<_>>() }))
        }
        Err(error) => *failed(error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: std::path::PathBuf,
}

async fn backup(State(admin): State<Admin>, Query(To { to }): Query<To>) -> Response {
    if !to.is_absolute() {
        return error(StatusCode::BAD_REQUEST, "bad_request", "the path of the copy must be absolute");
    }
    match admin.door.delivery.store.backup(to.clone()).await {
        Ok(()) => answer(StatusCode::OK, &json!({ "to": to })),
        Err(error) => *failed(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(super) fn failed(why: StoreError) -> Refusal {
    let (status, code) = match &why {
        StoreError::Busy | StoreError::AtCapacity | StoreError::NoSpace => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        StoreError::Damaged(_) => (StatusCode::UNPROCESSABLE_ENTITY, "damaged"),
        StoreError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
        StoreError::Invalid(_) | StoreError::Clash(_) => (StatusCode::CONFLICT, "conflict"),
        StoreError::Failed(_) | StoreError::Unusable(_) | StoreError::InUse(_) | StoreError::Internal(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "store_failed")
        }
    };
    Box::new(error(status, code, &why.to_string()))
}

fn word(state: Stands) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn summary(event: &Summary) -> Value {
    json!({
        "id": event.id.to_string(),
        "endpoint": event.endpoint.as_str(),
        "state": word(event.state),
        "why": why(event),
        "received_at": event.received_at.to_string(),
        "method": event.method,
        "target": event.target,
        "event_type": event.event_type,
        "sender_id": event.sender_id,
        "size": event.size,
        "attempt_count": event.attempts,
        "status": event.status,
        "next_try": event.due_at.filter(|_| event.state == Stands::Pending).map(|at| at.to_string()),
        "settled_at": event.settled_at.map(|at| at.to_string()),
        "conflict_with": event.conflict_with.map(|id| id.to_string()),
        "replay_of": event.replay_of.map(|id| id.to_string()),
        "redelivered": event.redelivered,
    })
}

/// Why an event stands where it does, as a stable code.
fn why(event: &Summary) -> &'static str {
    match event.state {
        Stands::Delivered => "delivered",
        Stands::Running => "attempt_running",
        Stands::Pending if event.parked => "behind_another",
        Stands::Pending if event.attempts == 0 => "waits_for_agent",
        Stands::Pending => "waits_for_retry",
        Stands::Dead | Stands::Dropped | Stands::Damaged => event.reason.map_or("unknown", crate::store::Reason::code),
    }
}

/// What a person can do about it.
fn advice(event: &Summary) -> Option<&'static str> {
    match event.state {
        Stands::Pending if event.attempts == 0 && !event.parked => {
            Some("attach an agent to its endpoint, or resume the endpoint if it is paused")
        }
        Stands::Dead => Some("mend its handler, then `relay-server dead revive ID`"),
        Stands::Damaged => Some("look at the disk of the store; the sender has to send it again"),
        _ => None,
    }
}

fn detail(record: &Record) -> Value {
    let line = |(name, value): &(String, Vec<u8>)| {
        let value = if authenticates(name) { MASKED.into() } else { String::from_utf8_lossy(value) };
        json!([name, value])
    };
    let mut detail = summary(&record.summary);
    detail["headers"] = record.head.headers.iter().map(line).collect();
    detail["verified"] = record.head.verified.clone().into();
    detail["client"] = record.head.peer.to_string().into();
    detail["attempts"] = record.attempts.iter().map(attempt).collect();
    detail["advice"] = advice(&record.summary).into();
    detail
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number,
        "started_at": attempt.started_at.to_string(),
        "duration_ms": u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        "outcome": attempt.outcome.code(),
        "agent": attempt.agent,
        "status": attempt.answer.as_ref().map(|answer| answer.status),
    })
}
