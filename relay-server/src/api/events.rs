//! Paths that read events of all kinds: lists, one, its body, its attempts, and why it was refused.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use relay_program::{
    api::{EventCount, EventList},
    event::{EventAttempt, EventDetail},
};
use relay_schemes::Provider;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    ask::{self, AskedQuery},
    refused,
    shapes::{BackupDone, Explained, ExplainedFinding},
    table::{AuditNote, Audited, Needs, Operation},
    who::Who,
};
use crate::{
    agents::token::Right,
    endpoint::EndpointName,
    events::{self, EventQuery, EventSources, FoundEvent, sentences},
    failure::{ApiError, ApiErrorKind},
    routes::Routes,
    store::{MAX_RANGE_BYTES, Record, Sight, Summary},
};

pub(super) fn operations() -> Vec<Operation> {
    let read = Needs::Right(Right::Read);
    let admin = Needs::Right(Right::Admin);
    let octets = "application/octet-stream";
    vec![
        Operation::get("/events", read, list)
            .says("Events, the newest first")
            .query::<EventQuery>()
            .answers::<EventList>(200),
        Operation::get("/events/count", read, count)
            .says("How many events a list has, as far as a bounded look tells")
            .query::<EventQuery>()
            .answers::<EventCount>(200),
        Operation::get("/events/{id}", read, show)
            .says("An event with its attempts, by its id or its sender's own")
            .answers::<EventDetail>(200),
        Operation::get("/events/{id}/body", read, body)
            .says("An event's body, or a part of it")
            .query::<From>()
            .answers_as(200, octets)
            .answers_as(206, octets),
        Operation::get("/events/{id}/explain", read, explain)
            .says("Which usual mistake a refused request is")
            .answers::<Explained>(200),
        Operation::get("/events/{id}/attempts/{number}", read, attempt)
            .says("One attempt at an event")
            .answers::<EventAttempt>(200),
        Operation::get("/events/{id}/attempts/{number}/body", read, answer_body)
            .says("What the handler answered in an attempt, as far as it is kept")
            .query::<From>()
            .answers_as(200, octets)
            .answers_as(206, octets),
        Operation::post("/backup", admin, backup)
            .says("Copies the store into a new file on the relay's machine")
            .audits(Audited::As("store.backup"))
            .query::<BackupQuery>()
            .answers::<BackupDone>(200),
    ]
}

/// Where events are found.
pub(super) fn sources<'a>(api: &'a Api, routes: &'a Arc<Routes>) -> EventSources<'a> {
    let services = &api.services;
    EventSources {
        delivery: &services.delivery,
        journal: &services.journal,
        refused: &services.refused,
        providers: &services.providers,
        routes,
    }
}

async fn list(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    let (sight, routes) = (searched(&api, &who, &asked)?, api.services.routes.load_full());
    let from = sources(&api, &routes);
    Ok(ask::ok(&api.reading(&who, events::list(&from, &asked, &sight, who.list_bounds())).await?))
}

async fn count(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<EventQuery>,
) -> Result<Response, ApiError> {
    let (sight, routes) = (searched(&api, &who, &asked)?, api.services.routes.load_full());
    let from = sources(&api, &routes);
    Ok(ask::ok(&api.reading(&who, events::count(&from, &asked, &sight)).await?))
}

/// The endpoints in which a list may look. A text is looked for in heads and bodies as they came, so that whoever
/// searches could spell out a credential: where there is one, that takes the right `attach`.
pub(super) fn searched(api: &Api, who: &Who, asked: &EventQuery) -> Result<Sight, ApiError> {
    let routes = api.services.routes.load();
    let Sight::Only(seen) = who.sight(&routes, Right::Read) else { return Ok(Sight::All) };
    let now = api.services.delivery.clock.now();
    if !asked.searches(now) {
        return Ok(Sight::Only(seen));
    }
    let guarded = |name: &EndpointName| {
        let provider = routes.endpoint(name.as_str()).and_then(|endpoint| endpoint.verify.provider());
        !who.may(Right::Attach, name.as_str()) && provider.is_some_and(Provider::bears_credential)
    };
    let names = asked.names(now);
    if seen.iter().any(|seen| names.iter().any(|name| name == seen.as_str()) && guarded(seen)) {
        let why = "its sender's credential stands in what is searched; a token needs the right `attach` for that";
        return Err(ApiError::new(ApiErrorKind::NeedsAttach, why));
    }
    Ok(Sight::Only(seen.into_iter().filter(|name| !guarded(name)).collect()))
}

/// A kept event that whoever asks may read.
pub(super) async fn find(api: &Api, who: &Who, id: &str) -> Result<Record, ApiError> {
    let delivery = &api.services.delivery;
    let sight = who.sight(&api.services.routes.load(), Right::Read);
    api.reading(who, events::find(&delivery.store, id, &sight, delivery.clock.now())).await
}

/// An event of any kind that whoever asks may read.
pub(super) async fn look_up(api: &Api, who: &Who, id: &str) -> Result<FoundEvent, ApiError> {
    let routes = api.services.routes.load_full();
    let sight = who.sight(&routes, Right::Read);
    api.reading(who, events::look_up(&sources(api, &routes), id, &sight)).await
}

async fn show(Shared(api): Shared<Arc<Api>>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(ask::ok(&detail(&api, &who, &id).await?))
}

async fn detail(api: &Api, who: &Who, id: &str) -> Result<EventDetail, ApiError> {
    let found = look_up(api, who, id).await?;
    let routes = api.services.routes.load_full();
    let sight = who.sight(&routes, Right::Read);
    let serves = who.may(Right::Attach, found.endpoint());
    Ok(found.detail(&sources(api, &routes), &sight, serves).await)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct From {
    /// From this byte on.
    offset: Option<u64>,
}

/// Which bytes of a body are asked for.
struct Part {
    from: u64,
    to: Option<u64>,
    is_range: bool,
}

impl Part {
    fn of(offset: Option<u64>, headers: &HeaderMap) -> Result<Self, ApiError> {
        if offset.is_some_and(|offset| i64::try_from(offset).is_err()) {
            return Err(ApiError::bad_request("`offset` is larger than 2^63 - 1"));
        }
        Ok(match ask::range(headers).filter(|_| offset.is_none()) {
            Some((from, to)) => Self { from, to, is_range: true },
            None => Self { from: offset.unwrap_or(0), to: None, is_range: false },
        })
    }

    /// At most so many bytes.
    fn most(&self, who: &Who) -> u64 {
        let asked = self.to.map_or(u64::MAX, |to| (to - self.from).saturating_add(1));
        asked.min(who.part_bytes().unwrap_or(u64::MAX))
    }

    /// Of bytes that are there.
    fn cut(&self, who: &Who, whole: &Bytes) -> Bytes {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
        whole.slice(place(self.from)..place(self.from.saturating_add(self.most(who))))
    }

    fn answer(&self, part: Bytes, of: u64, name: &str) -> Response {
        let len = part.len() as u64;
        if self.is_range && self.from >= of && of > 0 {
            let why = format!("the body has {of} bytes, so no part of it begins at {}", self.from);
            let mut response = ApiError::new(ApiErrorKind::BadRange, why).into_response();
            if let Ok(shown) = HeaderValue::try_from(format!("bytes */{of}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, shown);
            }
            return response;
        }
        let mut response = ask::bytes(part, of, name);
        if self.is_range && len > 0 {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let shown = format!("bytes {}-{}/{of}", self.from, self.from + len - 1);
            if let Ok(shown) = HeaderValue::try_from(shown) {
                response.headers_mut().insert(header::CONTENT_RANGE, shown);
            }
        }
        response
    }
}

async fn body(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Path(id): Path<String>,
    AskedQuery(From { offset }): AskedQuery<From>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (wanted, found) = (Part::of(offset, &headers)?, look_up(&api, &who, &id).await?);
    if let FoundEvent::Kept(record) = &found {
        let event = &record.summary;
        let read = part(&api, event, wanted.from, wanted.most(&who));
        let part = api.reading(&who, read).await?;
        return Ok(wanted.answer(part, event.size, &event.id.to_string()));
    }
    let kept = found.kept_body();
    Ok(wanted.answer(wanted.cut(&who, &kept), kept.len() as u64, &found.id().to_string()))
}

/// A part of a kept body.
pub(super) async fn part(api: &Api, event: &Summary, from: u64, most: u64) -> Result<Bytes, ApiError> {
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

fn no_attempt() -> ApiError {
    ApiError::not_found("the event has no attempt of this number on record")
}

async fn attempt(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Path((id, number)): Path<(String, u32)>,
) -> Result<Response, ApiError> {
    let attempts = detail(&api, &who, &id).await?.attempts;
    let attempt = attempts.into_iter().rfind(|attempt| attempt.number == number).ok_or_else(no_attempt)?;
    Ok(ask::ok(&attempt))
}

async fn answer_body(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Path((id, number)): Path<(String, u32)>,
    AskedQuery(From { offset }): AskedQuery<From>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = look_up(&api, &who, &id).await?;
    let kept = found.answer_body(number).ok_or_else(no_attempt)?;
    let wanted = Part::of(offset, &headers)?;
    let name = format!("{}-answer-{number}", found.id());
    Ok(wanted.answer(wanted.cut(&who, &kept), kept.len() as u64, &name))
}

/// Whoever does not see all endpoints is told what the code means, and nothing that is found by trying other endpoints'
/// secrets.
async fn explain(Shared(api): Shared<Arc<Api>>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    let FoundEvent::Refused(entry) = look_up(&api, &who, &id).await? else {
        return Err(ApiError::new(ApiErrorKind::WrongState, "it was not refused, so there is nothing to explain"));
    };
    let routes = api.services.routes.load();
    let findings = match who.sight(&routes, Right::Read) {
        Sight::All => refused::findings(&api.services, &entry).await?,
        Sight::Only(_) => {
            let words = sentences::of_failure(&entry.code);
            words.map(|words| ExplainedFinding::new(&entry.code, words.sentence)).into_iter().collect()
        }
    };
    Ok(ask::ok(&Explained { id: Some(entry.event_id.to_string()), provider: None, findings }))
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
    Extension(note): Extension<AuditNote>,
    AskedQuery(BackupQuery { to }): AskedQuery<BackupQuery>,
) -> Result<Response, ApiError> {
    note.object(&to.to_string_lossy());
    if !to.is_absolute() {
        return Err(ApiError::bad_request("the path of the copy must be absolute"));
    }
    api.services.delivery.store.backup(to.clone()).await?;
    Ok(ask::ok(&BackupDone { to: to.to_string_lossy().into_owned() }))
}
