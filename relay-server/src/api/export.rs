//! Paths that give events as files: one, or several by their ids or by a query.
//!
//! Invariant: a token has a few files at a time, each from the first event that is read until its last byte is taken, or
//! nobody takes it any more: a slow reader keeps the relay holding all of it.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State as Shared},
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    ask::{self, AskedQuery, GivenBody},
    events::{look_up, part, searched, sources},
    table::{Audited, Needs, Operation},
    who::Who,
};
use crate::{
    agents::token::Right,
    events::{self, EventQuery, ExportForm, Exported, FoundEvent},
    failure::{ApiError, ApiErrorKind},
    store::PageRequest,
    tally::Tallied,
};

/// Most events of one file, and most bytes of their bodies.
const MAX_EVENTS: usize = 1000;
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// So much of a file is handed on at a time.
const PART_BYTES: usize = 64 * 1024;

/// Files of one token at a time.
const MAX_FILES_OF_TOKEN: usize = 2;

/// Pages of a query that are looked through for them.
const MAX_PAGES: usize = 100;

pub(super) fn operations() -> Vec<Operation> {
    let read = Needs::Right(Right::Read);
    let files = |operation: Operation| {
        let kinds = ["application/octet-stream", "text/plain", "application/json", "application/x-ndjson"];
        kinds.into_iter().fold(operation, |operation, kind| operation.answers_as(200, kind))
    };
    let both = [
        Operation::get("/events/{id}/export", read, one).says("An event as a file").query::<ExportQuery>(),
        Operation::post("/events/export", read, many)
            .says("Several events as one file, by their ids or by a query, in order of time")
            .audits(Audited::Behind("event.export"))
            .query::<ExportQuery>()
            .takes::<ExportAsked>(),
    ];
    both.into_iter().map(files).collect()
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    /// `curl`, `curl-ps`, `http`, `har` or `cassette`.
    #[serde(rename = "as")]
    #[param(rename = "as", value_type = String)]
    form: ExportForm,
    /// Without any value that its sender wrote.
    #[serde(default)]
    redact: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExportAsked {
    /// Ids of events.
    ids: Option<Vec<String>>,
    /// In the search grammar.
    q: Option<String>,
}

/// A file, and its token's place for it until nobody holds the bytes any more.
struct FileBytes {
    bytes: Vec<u8>,
    _place: Option<Tallied<Arc<str>>>,
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A place among the files of a token; whoever has the admin token needs none.
fn place(api: &Api, who: &Who) -> Result<Option<Tallied<Arc<str>>>, ApiError> {
    if who.own_token().is_none() {
        return Ok(None);
    }
    let busy = || {
        let why = "this token has too many exports at a time; wait until one of them is read";
        ApiError::new(ApiErrorKind::TooManyQuestions, why)
    };
    api.files_of_token.take(Arc::clone(&who.name), MAX_FILES_OF_TOKEN).map(Some).ok_or_else(busy)
}

async fn one(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Path(id): Path<String>,
    AskedQuery(asked): AskedQuery<ExportQuery>,
) -> Result<Response, ApiError> {
    let place = place(&api, &who)?;
    let found = look_up(&api, &who, &id).await?;
    let mut bytes = MAX_BYTES;
    let event = exported(&api, &who, found, asked.redact, &mut bytes).await?;
    let name = event.id().to_string();
    Ok(file(&api, &asked, &[event], &name, place))
}

async fn many(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<ExportQuery>,
    GivenBody(which): GivenBody<ExportAsked>,
) -> Result<Response, ApiError> {
    let place = place(&api, &who)?;
    let found = match which {
        ExportAsked { ids: Some(ids), q: None } => by_ids(&api, &who, &ids).await?,
        ExportAsked { ids: None, q: Some(q) } => by_query(&api, &who, &EventQuery::of(q)).await?,
        ExportAsked { .. } => return Err(ApiError::bad_request("give `ids` or `q`")),
    };
    let (mut events, mut bytes) = (Vec::new(), MAX_BYTES);
    for one in found {
        events.push(exported(&api, &who, one, asked.redact, &mut bytes).await?);
    }
    Ok(file(&api, &asked, &events, "events", place))
}

fn too_many() -> ApiError {
    ApiError::bad_request(format!("a file has at most {MAX_EVENTS} events; ask for fewer, such as a shorter time"))
}

async fn by_ids(api: &Api, who: &Who, ids: &[String]) -> Result<Vec<FoundEvent>, ApiError> {
    if ids.len() > MAX_EVENTS {
        return Err(too_many());
    }
    let mut found = Vec::new();
    for id in ids {
        found.push(look_up(api, who, id).await?);
    }
    found.sort_by_key(FoundEvent::id);
    Ok(found)
}

/// Kept ones alone.
async fn by_query(api: &Api, who: &Who, asked: &EventQuery) -> Result<Vec<FoundEvent>, ApiError> {
    let (routes, delivery) = (api.services.routes.load_full(), &api.services.delivery);
    let sight = searched(api, who, asked)?;
    let filter = events::filter(&sources(api, &routes), asked, &sight, delivery.clock.now())?;
    let (mut records, mut after) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = PageRequest { limit: MAX_EVENTS, after, oldest_first: true };
        let page = api.reading(who, async { Ok(delivery.store.list(filter.clone(), page).await?) }).await?;
        if records.len() + page.events.len() > MAX_EVENTS {
            return Err(too_many());
        }
        for event in page.events {
            // One that has gone since is not there.
            let read = async { Ok(delivery.store.event(event.endpoint.into(), event.id, delivery.clock.now()).await?) };
            records.extend(api.reading(who, read).await?.map(|record| FoundEvent::Kept(Box::new(record))));
        }
        after = page.next;
        if after.is_none() {
            return Ok(records);
        }
    }
    Err(ApiError::bad_request("too many events would have to be looked through; ask for a shorter time"))
}

/// `bytes` is what may still be read.
async fn exported(
    api: &Api,
    who: &Who,
    found: FoundEvent,
    redact: bool,
    bytes: &mut u64,
) -> Result<Exported, ApiError> {
    let large =
        || ApiError::new(ApiErrorKind::BodyTooLarge, "their bodies are larger than 32 MiB together; ask for fewer");
    let record = match found {
        FoundEvent::Kept(record) => *record,
        FoundEvent::Live(entry) => {
            let body = events::whole_live_body(&entry)?;
            *bytes = bytes.checked_sub(body.len() as u64).ok_or_else(large)?;
            return Ok(Exported::live(&entry, &api.services.routes.load().url(&entry.endpoint), body, redact));
        }
        FoundEvent::Refused(_) | FoundEvent::Handshake(_) => {
            let why = "it was refused, or answered by the relay itself; such requests are not exported";
            return Err(ApiError::new(ApiErrorKind::WrongState, why));
        }
    };
    let event = &record.summary;
    *bytes = bytes.checked_sub(event.size).ok_or_else(large)?;
    let body = api.reading(who, part(api, event, 0, u64::MAX)).await?;
    let endpoint = api.services.delivery.endpoint(&event.endpoint);
    Ok(Exported::new(record, endpoint.as_deref(), body, redact))
}

fn file(api: &Api, asked: &ExportQuery, events: &[Exported], name: &str, place: Option<Tallied<Arc<str>>>) -> Response {
    let (ending, kind) = asked.form.file();
    let bytes = events::export(asked.form, events, asked.redact, api.services.delivery.clock.now());
    let len = bytes.len() as u64;
    let whole = Bytes::from_owner(FileBytes { bytes, _place: place });
    let mut response = ask::bytes(Bytes::new(), len, name);
    // In parts: what was handed on at once would be copied, and its place given back.
    let parts = (0..whole.len()).step_by(PART_BYTES);
    let parts = parts.map(move |at| Ok::<_, Infallible>(whole.slice(at..whole.len().min(at + PART_BYTES))));
    *response.body_mut() = Body::from_stream(stream::iter(parts));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(named) = HeaderValue::try_from(format!("attachment; filename=\"{name}.{ending}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, named);
    }
    response
}
