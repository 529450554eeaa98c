//! Paths of kept events: read them, and act on them.

use std::sync::Arc;

use axum::{
    extract::{Path, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use relay_program::{
    api::EventList,
    event::{EventDetail, EventDone, EventReplayed},
};
use relay_schemes::Provider;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    Api,
    ask::{self, AskedQuery},
    shapes::{BackupDone, BulkList, BulkNoted, BulkSummary},
    table::{Needs, Operation},
    who::{Who, WhoKind, lacks},
};
use crate::{
    agents::{registry::AgentSelector, token::Right},
    delivery::Asker,
    endpoint::EndpointName,
    events::{self, EventQuery, word},
    failure::{ApiError, ApiErrorKind},
    store::{Act, Acted, Action, Bulk, BulkAction, Filter, MAX_RANGE_BYTES, Record, Sight, Signature, State, Summary},
    webhook::EventId,
};

pub(super) fn operations() -> Vec<Operation> {
    let read = Needs::Right(Right::Read);
    let act = Needs::Right(Right::Act);
    let admin = Needs::Right(Right::Admin);
    vec![
        Operation::get("/events", read, list)
            .says("Events, the newest first")
            .query::<EventQuery>()
            .answers::<EventList>(200),
        Operation::get("/events/{id}", read, show)
            .says("An event with its attempts, by its id or its sender's own")
            .answers::<EventDetail>(200),
        Operation::get("/events/{id}/body", read, body)
            .says("An event's body, or a part of it")
            .query::<From>()
            .answers_as(200, "application/octet-stream")
            .answers_as(206, "application/octet-stream"),
        Operation::post("/events/{id}/replay", read, replay)
            .says("Delivers an event once more: to one agent, or as a new event to whoever serves its endpoint")
            .query::<ReplayQuery>()
            .answers::<EventReplayed>(200),
        Operation::post("/events/{id}/revive", act, revive)
            .says("Has a dead letter tried again")
            .answers::<EventDone>(200),
        Operation::post("/events/{id}/drop", act, give_up).says("Gives a dead letter up").answers::<EventDone>(200),
        Operation::post("/events/{id}/cancel", act, cancel).says("Ends an event that waits").answers::<EventDone>(200),
        Operation::post("/dead/revive", act, revive_all)
            .says("Has all dead letters of a query tried again")
            .query::<EventQuery>()
            .answers::<BulkNoted>(202),
        Operation::post("/dead/drop", act, drop_all)
            .says("Gives all dead letters of a query up")
            .query::<EventQuery>()
            .answers::<BulkNoted>(202),
        Operation::get("/bulks", act, bulks)
            .says("Actions on many events, and how far they are")
            .answers::<BulkList>(200),
        Operation::post("/backup", admin, backup)
            .says("Copies the store into a new file on the relay's machine")
            .query::<BackupQuery>()
            .answers::<BackupDone>(200),
    ]
}

async fn list(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    let sight = searched(&api, &who, &asked)?;
    let list = events::list(&api.services.delivery, &asked, &sight, who.list_bounds());
    Ok(ask::ok(&api.reading(&who, list).await?))
}

/// The endpoints in which a list may look. A text is looked for in heads and bodies as they came, so that whoever
/// searches could spell out a credential: where there is one, that takes the right `attach`.
fn searched(api: &Api, who: &Who, asked: &EventQuery) -> Result<Sight, ApiError> {
    let routes = api.services.routes.load();
    let Sight::Only(seen) = who.sight(&routes, Right::Read) else { return Ok(Sight::All) };
    if !asked.searches() {
        return Ok(Sight::Only(seen));
    }
    let guarded = |name: &EndpointName| {
        let provider = routes.endpoint(name.as_str()).and_then(|endpoint| endpoint.verify.provider());
        !who.may(Right::Attach, name.as_str()) && provider.is_some_and(Provider::bears_credential)
    };
    if asked.endpoint().is_some_and(|name| seen.iter().any(|seen| seen.as_str() == name && guarded(seen))) {
        let why = "its sender's credential stands in what is searched; a token needs the right `attach` for that";
        return Err(ApiError::new(ApiErrorKind::NeedsAttach, why));
    }
    Ok(Sight::Only(seen.into_iter().filter(|name| !guarded(name)).collect()))
}

/// An event that whoever asks may read.
async fn find(api: &Api, who: &Who, id: &str) -> Result<Record, ApiError> {
    let delivery = &api.services.delivery;
    let sight = who.sight(&api.services.routes.load(), Right::Read);
    api.reading(who, events::find(&delivery.store, id, &sight, delivery.clock.now())).await
}

async fn show(Shared(api): Shared<Arc<Api>>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    let record = find(&api, &who, &id).await?;
    let endpoint = api.services.delivery.endpoint(&record.summary.endpoint);
    Ok(ask::ok(&events::detail(&record, endpoint.as_deref())))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct From {
    /// From this byte on.
    offset: Option<u64>,
}

async fn body(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Path(id): Path<String>,
    AskedQuery(From { offset }): AskedQuery<From>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let event = find(&api, &who, &id).await?.summary;
    let range = ask::range(&headers).filter(|_| offset.is_none());
    let (from, to) = match range {
        Some((from, to)) => (from, to),
        None => (offset.unwrap_or(0), None),
    };
    let most = to.map_or(u64::MAX, |to| (to - from).saturating_add(1)).min(who.part_bytes().unwrap_or(u64::MAX));
    let part = api.reading(&who, part(&api, &event, from, most)).await?;
    let len = part.len() as u64;
    let mut response = ask::bytes(part, event.size, &event.id.to_string());
    if range.is_some() && len > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let shown = format!("bytes {from}-{}/{}", from + len - 1, event.size);
        if let Ok(shown) = HeaderValue::try_from(shown) {
            response.headers_mut().insert(header::CONTENT_RANGE, shown);
        }
    }
    Ok(response)
}

async fn part(api: &Api, event: &Summary, from: u64, most: u64) -> Result<Bytes, ApiError> {
    let delivery = &api.services.delivery;
    if most <= MAX_RANGE_BYTES {
        return events::part(delivery, event, from, most).await;
    }
    let mut bytes = Vec::new();
    loop {
        let (at, left) = (from.saturating_add(bytes.len() as u64), most - bytes.len() as u64);
        let part = events::part(delivery, event, at, left.min(MAX_RANGE_BYTES)).await?;
        if part.is_empty() {
            return Ok(bytes.into());
        }
        bytes.extend_from_slice(&part);
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ReplayQuery {
    /// `agent` or `endpoint`. A token's replays go to its own agent unless it says otherwise.
    #[param(value_type = Option<String>)]
    to: Option<To>,
    /// The agent.
    name: Option<String>,
    /// One process of it.
    instance: Option<String>,
    /// `auto`, `keep` or `fresh`.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    signature: Signature,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Agent,
    Endpoint,
}

async fn replay(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Path(id): Path<String>,
    AskedQuery(asked): AskedQuery<ReplayQuery>,
) -> Result<Response, ApiError> {
    let record = find(&api, &who, &id).await?;
    let (name, delivery) = (record.summary.endpoint.clone(), &api.services.delivery);
    let endpoint = api.services.routes.load().endpoint(name.as_str()).cloned();
    let may = |right| who.may(right, name.as_str());
    let usual = if who.kind == WhoKind::Token || asked.name.is_some() { To::Agent } else { To::Endpoint };
    match asked.to.unwrap_or(usual) {
        To::Endpoint if may(Right::Replay) => {
            let of = record.summary.id;
            let new_id = delivery.replay(endpoint.as_ref(), record, asked.signature).await?;
            Ok(ask::ok(&EventDone { id: of.to_string(), new_id: Some(new_id.to_string()) }))
        }
        To::Endpoint => {
            let why = "this token lacks the right `replay`; add it to the token's `rights` on the relay, or replay \
                       to your own agent, without --to endpoint";
            Err(ApiError::new(ApiErrorKind::MayNotReplay, why))
        }
        To::Agent => {
            let agent = asked.name.as_deref().ok_or_else(|| ApiError::bad_request("name the agent: `name`"))?;
            let instance = asked.instance.as_deref().map(Uuid::try_parse).transpose();
            let instance = instance.map_err(|_| ApiError::bad_request("`instance` is a UUID"))?.map(Uuid::into_bytes);
            let token = who.own_token().map(|token| &*token.name);
            let selector = AgentSelector { token, name: agent, instance };
            let asker = Asker { attach: may(Right::Attach), replay: may(Right::Replay) };
            let replayed = delivery.replay_to(&selector, endpoint.as_ref(), record, asked.signature, asker).await?;
            Ok(ask::ok(&events::replayed(&replayed)))
        }
    }
}

async fn revive(api: Shared<Arc<Api>>, who: Who, id: Path<String>) -> Result<Response, ApiError> {
    act(&api, &who, &id, Action::Revive).await
}

async fn give_up(api: Shared<Arc<Api>>, who: Who, id: Path<String>) -> Result<Response, ApiError> {
    act(&api, &who, &id, Action::Drop).await
}

async fn cancel(api: Shared<Arc<Api>>, who: Who, id: Path<String>) -> Result<Response, ApiError> {
    act(&api, &who, &id, Action::Cancel).await
}

async fn act(api: &Api, who: &Who, id: &str, action: Action) -> Result<Response, ApiError> {
    let delivery = &api.services.delivery;
    let Summary { endpoint, id, .. } = find(api, who, id).await?.summary;
    who.must(Right::Act, endpoint.as_str())?;
    let acts = vec![Act { endpoint, id, action }];
    let acted = delivery.store.act(acts, delivery.clock.now()).await?.into_iter().next();
    delivery.wake();
    match acted {
        Some(Acted::Done) => {
            delivery.tell(id).await;
            Ok(ask::ok(&EventDone { id: id.to_string(), new_id: None }))
        }
        Some(Acted::Not(state)) => {
            let message = format!("the event is {}, and this cannot be done to it then", word(state));
            Err(ApiError::new(ApiErrorKind::WrongState, message))
        }
        Some(Acted::Unknown) | None => Err(ApiError::not_found("the event is gone")),
    }
}

async fn revive_all(
    api: Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    bulk(&api, &who, &asked, BulkAction::Revive).await
}

async fn drop_all(
    api: Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    bulk(&api, &who, &asked, BulkAction::Drop).await
}

async fn bulk(api: &Api, who: &Who, asked: &EventQuery, action: BulkAction) -> Result<Response, ApiError> {
    let mut filter = Filter { states: vec![State::Dead], ..asked.filter()? };
    if let (Sight::Only(seen), Sight::Only(open)) =
        (searched(api, who, asked)?, who.sight(&api.services.routes.load(), Right::Act))
    {
        let open: Vec<_> = seen.into_iter().filter(|name| open.contains(name)).collect();
        match filter.endpoints.first() {
            Some(wanted) if open.contains(wanted) => {}
            // Without any, a filter would let every endpoint pass.
            None if !open.is_empty() => filter.endpoints = open,
            _ => return Err(lacks(Right::Act)),
        }
    }
    let id = EventId::new();
    let delivery = &api.services.delivery;
    delivery.store.bulk(id, action, filter, delivery.clock.now()).await?;
    delivery.wake_bulks();
    Ok(ask::answer(StatusCode::ACCEPTED, &BulkNoted { bulk: id.to_string() }))
}

async fn bulks(Shared(api): Shared<Arc<Api>>) -> Result<Response, ApiError> {
    let shown = |bulk: &Bulk| BulkSummary {
        id: bulk.id.to_string(),
        done: bulk.done,
        skipped: bulk.skipped,
        finished: bulk.finished,
    };
    Ok(ask::ok(&BulkList { bulks: api.services.delivery.store.bulks().await?.iter().map(shown).collect() }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct BackupQuery {
    /// The new file's path.
    #[param(value_type = String)]
    to: std::path::PathBuf,
}

async fn backup(
    Shared(api): Shared<Arc<Api>>,
    AskedQuery(BackupQuery { to }): AskedQuery<BackupQuery>,
) -> Result<Response, ApiError> {
    if !to.is_absolute() {
        return Err(ApiError::bad_request("the path of the copy must be absolute"));
    }
    api.services.delivery.store.backup(to.clone()).await?;
    Ok(ask::ok(&BackupDone { to: to.to_string_lossy().into_owned() }))
}
