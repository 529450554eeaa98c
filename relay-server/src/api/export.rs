//! Paths that give events as files: one, or several by their ids or by a query.

use std::sync::Arc;

use axum::{
    extract::{Path, State as Shared},
    http::{HeaderValue, header},
    response::Response,
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    ask::{self, AskedQuery, GivenBody},
    events::{find, part, searched, sources},
    table::{Needs, Operation},
    who::Who,
};
use crate::{
    agents::token::Right,
    events::{self, EventQuery, ExportForm, Exported},
    failure::{ApiError, ApiErrorKind},
    store::{PageRequest, Record},
};

/// Most events of one file, and most bytes of their bodies.
const MAX_EVENTS: usize = 1000;
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Pages of a query that are looked through for them.
const MAX_PAGES: usize = 100;

pub(super) fn operations() -> Vec<Operation> {
    let (read, octets) = (Needs::Right(Right::Read), "application/octet-stream");
    vec![
        Operation::get("/events/{id}/export", read, one)
            .says("An event as a file")
            .query::<ExportQuery>()
            .answers_as(200, octets),
        Operation::post("/events/export", read, many)
            .says("Several events as one file, by their ids or by a query, in order of time")
            .query::<ExportQuery>()
            .takes::<ExportAsked>()
            .answers_as(200, octets),
    ]
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

async fn one(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    Path(id): Path<String>,
    AskedQuery(asked): AskedQuery<ExportQuery>,
) -> Result<Response, ApiError> {
    let record = find(&api, &who, &id).await?;
    let name = record.summary.id.to_string();
    let mut bytes = MAX_BYTES;
    let event = exported(&api, &who, record, asked.redact, &mut bytes).await?;
    Ok(file(&api, &asked, &[event], &name))
}

async fn many(
    Shared(api): Shared<Arc<Api>>,
    who: Who,
    AskedQuery(asked): AskedQuery<ExportQuery>,
    GivenBody(which): GivenBody<ExportAsked>,
) -> Result<Response, ApiError> {
    let records = match which {
        ExportAsked { ids: Some(ids), q: None } => by_ids(&api, &who, &ids).await?,
        ExportAsked { ids: None, q: Some(q) } => by_query(&api, &who, &EventQuery::of(q)).await?,
        ExportAsked { .. } => return Err(ApiError::bad_request("give `ids` or `q`")),
    };
    let (mut events, mut bytes) = (Vec::new(), MAX_BYTES);
    for record in records {
        events.push(exported(&api, &who, record, asked.redact, &mut bytes).await?);
    }
    Ok(file(&api, &asked, &events, "events"))
}

fn too_many() -> ApiError {
    ApiError::bad_request(format!("a file has at most {MAX_EVENTS} events; ask for fewer, such as a shorter time"))
}

async fn by_ids(api: &Api, who: &Who, ids: &[String]) -> Result<Vec<Record>, ApiError> {
    if ids.len() > MAX_EVENTS {
        return Err(too_many());
    }
    let mut records = Vec::new();
    for id in ids {
        records.push(find(api, who, id).await?);
    }
    records.sort_by_key(|record| record.summary.id);
    Ok(records)
}

async fn by_query(api: &Api, who: &Who, asked: &EventQuery) -> Result<Vec<Record>, ApiError> {
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
            records.extend(api.reading(who, read).await?);
        }
        after = page.next;
        if after.is_none() {
            return Ok(records);
        }
    }
    Err(ApiError::bad_request("too many events would have to be looked through; ask for a shorter time"))
}

/// `bytes` is what may still be read.
async fn exported(api: &Api, who: &Who, record: Record, redact: bool, bytes: &mut u64) -> Result<Exported, ApiError> {
    let event = &record.summary;
    let large =
        || ApiError::new(ApiErrorKind::BodyTooLarge, "their bodies are larger than 32 MiB together; ask for fewer");
    *bytes = bytes.checked_sub(event.size).ok_or_else(large)?;
    let body = api.reading(who, part(api, event, 0, u64::MAX)).await?;
    let endpoint = api.services.delivery.endpoint(&event.endpoint);
    Ok(Exported::new(record, endpoint.as_deref(), body, redact))
}

fn file(api: &Api, asked: &ExportQuery, events: &[Exported], name: &str) -> Response {
    let (ending, kind) = asked.form.file();
    let bytes = events::export(asked.form, events, asked.redact, api.services.delivery.clock.now());
    let len = bytes.len() as u64;
    let mut response = ask::bytes(bytes.into(), len, name);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(named) = HeaderValue::try_from(format!("attachment; filename=\"{name}.{ending}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, named);
    }
    response
}
