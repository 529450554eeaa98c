//! Paths of what never became an event: refused requests, and challenges that the relay answered itself.
//!
//! What authenticates somebody is masked in every answer, whoever asks: this is for finding out what was wrong, not for
//! using it.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use data_encoding::BASE64;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    ask::{self, AskedQuery},
    shapes::{
        Explained, ExplainedFinding, HandshakeList, HandshakeSummary, RefusedDetail, RefusedList, RefusedSummary,
    },
    table::{Needs, Operation},
};
use crate::{
    agents::token::Right,
    failure::{ApiError, ApiErrorKind},
    mask::MASKED,
    providers::{Handshake, MAX_KEPT},
    refused::{Entry, MAX_ENTRIES},
    services::Services,
    webhook::EventId,
};

/// Entries of a list, where the question does not say how many.
const DEFAULT_LIMIT: usize = 100;

/// What is said of a request that was refused by its head alone.
const BODY_NOT_READ: &str =
    "it was refused by its head alone, so its body was not read and nothing was looked for in it";

/// What is said of a request that was read from the store, where something is masked.
const CREDENTIALS_NOT_KEPT: &str = "this was read from the store, into which no token, password or cookie is written: \
    what is said of those does not count";

pub(super) fn operations() -> Vec<Operation> {
    let admin = Needs::Right(Right::Admin);
    vec![
        Operation::get("/refused", admin, list_refused)
            .says("Refused requests, the newest first")
            .query::<Listing>()
            .answers::<RefusedList>(200),
        Operation::get("/refused/{id}", admin, show_refused)
            .says("A refused request as far as it is kept")
            .answers::<RefusedDetail>(200),
        Operation::get("/refused/{id}/explain", admin, explain_refused)
            .says("Which usual mistake a refused request is")
            .answers::<Explained>(200),
        Operation::get("/handshakes", admin, list_handshakes)
            .says("Challenges of providers that the relay answered")
            .query::<Listing>()
            .answers::<HandshakeList>(200),
    ]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Listing {
    /// Only those of this endpoint.
    endpoint: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

async fn list_refused(
    State(api): State<Arc<Api>>,
    AskedQuery(listing): AskedQuery<Listing>,
) -> Result<Response, ApiError> {
    let services = &api.services;
    let limit = listing.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_ENTRIES);
    let now = services.delivery.clock.now();
    let entries = services.refused.log.list(listing.endpoint.as_deref(), limit, now).await?;
    Ok(ask::ok(&RefusedList { refused: entries.iter().map(|entry| summary(entry)).collect() }))
}

async fn show_refused(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(ask::ok(&detail(&*find(&api.services, &id).await?)))
}

async fn explain_refused(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let entry = find(&api.services, &id).await?;
    let findings = findings(&api.services, &entry).await?;
    Ok(ask::ok(&Explained { id: Some(id), provider: None, findings }))
}

/// What may be wrong with a refused request, for whoever sees all endpoints.
pub(super) async fn findings(services: &Services, entry: &Arc<Entry>) -> Result<Vec<ExplainedFinding>, ApiError> {
    let mut findings = explained(services, entry).await?;
    if entry.head.body_len.is_none() {
        findings.push(ExplainedFinding::new("body_not_read", BODY_NOT_READ));
    }
    if entry.head.masked {
        findings.push(ExplainedFinding::new("credentials_not_kept", CREDENTIALS_NOT_KEPT));
    }
    Ok(findings)
}

async fn explained(services: &Services, entry: &Arc<Entry>) -> Result<Vec<ExplainedFinding>, ApiError> {
    if entry.code == "address_not_allowed" || entry.code == "replayed" || entry.code == "body_too_large" {
        return Ok(vec![ExplainedFinding::new(&entry.code, "this was not refused for its signature")]);
    }
    if entry.head.body_len.is_some_and(|len| len > entry.body.len() as u64) {
        let text = "only the beginning of its body was kept, and its signature covers the whole; the log's line of the \
                    time says more, or save a request in a file and explain that";
        return Ok(vec![ExplainedFinding::new("body_not_kept", text)]);
    }
    let endpoint = services.routes.load().endpoint(entry.endpoint.as_str()).cloned();
    let endpoint = endpoint.ok_or_else(|| ApiError::not_found("its endpoint is not there any more"))?;
    let busy = || ApiError::new(ApiErrorKind::Busy, "another explanation is under way; ask again");
    let found = services.refused.explainer.explain(services.routes.load_full(), endpoint, Arc::clone(entry)).await;
    let found = found.ok_or_else(busy)?;
    Ok(found.iter().map(ExplainedFinding::from).collect())
}

async fn find(services: &Services, id: &str) -> Result<Arc<Entry>, ApiError> {
    let wrong = |_| ApiError::new(ApiErrorKind::BadId, "an event's id is hook_ and 32 hexadecimal digits");
    let id = id.parse::<EventId>().map_err(wrong)?;
    let found = services.refused.log.find(id, services.delivery.clock.now()).await?;
    let why = "no refused request has this id; they are kept for a day, a thousand for each endpoint";
    found.ok_or_else(|| ApiError::not_found(why))
}

async fn list_handshakes(State(api): State<Arc<Api>>, AskedQuery(listing): AskedQuery<Listing>) -> Response {
    let limit = listing.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_KEPT);
    let found = api.services.providers.handshakes.list(listing.endpoint.as_deref(), limit);
    let shown = |one: &Arc<Handshake>| HandshakeSummary {
        id: one.event_id.to_string(),
        endpoint: one.endpoint.to_string(),
        state: "handshake".to_owned(),
        received_at: one.at,
        provider: one.provider.to_string(),
        handshake: one.name.to_string(),
        client: one.client.to_string(),
        learnt_secret: one.learnt,
        shown: one.shown.clone(),
        confirm_url: one.confirm_url.clone(),
    };
    ask::ok(&HandshakeList { handshakes: found.iter().map(shown).collect() })
}

fn summary(entry: &Entry) -> RefusedSummary {
    RefusedSummary {
        id: entry.event_id.to_string(),
        endpoint: entry.endpoint.to_string(),
        state: "refused".to_owned(),
        received_at: entry.at,
        method: entry.head.method.clone(),
        url: entry.hidden.url.clone(),
        client: entry.head.client.to_string(),
        provider: entry.head.provider.to_string(),
        status: entry.status,
        code: entry.code.to_string(),
        body_read: entry.head.body_len.is_some(),
        body_len: entry.head.body_len,
    }
}

fn detail(entry: &Entry) -> RefusedDetail {
    let line = |(name, value): &(String, bytes::Bytes)| {
        let value = if entry.hidden.hides(name) { MASKED.into() } else { String::from_utf8_lossy(value) };
        (name.clone(), value.into_owned())
    };
    RefusedDetail {
        summary: summary(entry),
        headers: entry.head.headers.iter().map(line).collect(),
        body_base64: BASE64.encode(&entry.shown_body()),
        body_kept: entry.body.len(),
    }
}
