//! The admin API: what there is to ask, and how it is answered.
//!
//! Answers are JSON; an error is `{"error": CODE, "message": …}` as on the public listener. What authenticates
//! somebody is masked in every answer, whoever asks: this is for finding out what was wrong, not for using it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use data_encoding::BASE64;
use relay_proto::printable;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::shapes::{Explained, ExplainedFinding, HandshakeSummary, RefusedDetail, RefusedSummary};
use crate::{
    failure::{ApiError, ApiErrorKind},
    ingress::respond::{ErrorText, of_api_error},
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

pub(super) fn routes(services: Services) -> Router {
    Router::new()
        .route("/api/v1/refused", get(list_refused))
        .route("/api/v1/refused/{id}", get(show_refused))
        .route("/api/v1/refused/{id}/explain", get(explain_refused))
        .route("/api/v1/handshakes", get(list_handshakes))
        .with_state(services)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = of_api_error(self.kind);
        answer(status, &ErrorText { error: code, event_id: None, message: &self.message })
    }
}

pub(super) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    // Whoever asks with curl has it on a terminal.
    (status, content_type, format!("{}\n", printable::lines(&json!(value).to_string()))).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    endpoint: Option<String>,
    limit: Option<usize>,
}

async fn list_refused(State(services): State<Services>, Query(listing): Query<Listing>) -> Result<Response, ApiError> {
    let limit = listing.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_ENTRIES);
    let now = services.delivery.clock.now();
    let entries = services.refused.log.list(listing.endpoint.as_deref(), limit, now).await?;
    let entries: Vec<_> = entries.iter().map(|entry| summary(entry)).collect();
    Ok(answer(StatusCode::OK, &json!({ "refused": entries })))
}

async fn show_refused(State(services): State<Services>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(answer(StatusCode::OK, &detail(&*find(&services, &id).await?)))
}

async fn explain_refused(State(services): State<Services>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let entry = find(&services, &id).await?;
    let mut findings = explained(&services, &entry).await?;
    if entry.head.body_len.is_none() {
        findings.push(ExplainedFinding::new("body_not_read", BODY_NOT_READ));
    }
    if entry.head.masked {
        findings.push(ExplainedFinding::new("credentials_not_kept", CREDENTIALS_NOT_KEPT));
    }
    Ok(answer(StatusCode::OK, &Explained { id: Some(id), provider: None, findings }))
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

async fn list_handshakes(State(services): State<Services>, Query(listing): Query<Listing>) -> Response {
    let limit = listing.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_KEPT);
    let found = services.providers.handshakes.list(listing.endpoint.as_deref(), limit);
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
    answer(StatusCode::OK, &json!({ "handshakes": found.iter().map(shown).collect::<Vec<_>>() }))
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
