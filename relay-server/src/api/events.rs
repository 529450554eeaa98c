//! The admin API's part about kept events: read them and act on them.

use axum::{
    Router,
    extract::{Path, Query, State as Shared},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use relay_program::event::EventDone;
use serde::Deserialize;
use serde_json::json;

use super::{
    refused::answer,
    shapes::{BulkNoted, BulkSummary},
};
use crate::{
    events::{self, EventQuery, ListBounds, Signing, word},
    failure::{ApiError, ApiErrorKind},
    services::Services,
    store::{Act, Acted, Action, Bulk, BulkAction, Filter, MAX_PAGE, MAX_RANGE_BYTES, Sight, State, Summary},
    webhook::EventId,
};

/// Whoever holds the admin token may ask for much at once.
const BOUNDS: ListBounds = ListBounds { default_limit: 100, max_limit: MAX_PAGE, max_pages: 100 };

pub(super) fn routes(services: Services) -> Router {
    Router::new()
        .route("/api/v1/events", get(list))
        .route("/api/v1/events/{id}", get(show))
        .route("/api/v1/events/{id}/body", get(body))
        .route("/api/v1/events/{id}/{action}", post(act))
        .route("/api/v1/dead/{action}", post(bulk))
        .route("/api/v1/bulks", get(bulks))
        .route("/api/v1/backup", post(backup))
        .with_state(services)
}

async fn list(Shared(services): Shared<Services>, Query(asked): Query<EventQuery>) -> Result<Response, ApiError> {
    Ok(answer(StatusCode::OK, &events::list(&services.delivery, &asked, &Sight::All, BOUNDS).await?))
}

async fn show(Shared(services): Shared<Services>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let record = events::find(&services.delivery.store, &id, &Sight::All, services.delivery.clock.now()).await?;
    let endpoint = services.delivery.endpoint(&record.summary.endpoint);
    Ok(answer(StatusCode::OK, &events::detail(&record, endpoint.as_deref())))
}

async fn body(Shared(services): Shared<Services>, Path(id): Path<String>) -> Result<impl IntoResponse, ApiError> {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    Ok((kind, whole(&services, &id).await?))
}

async fn whole(services: &Services, id: &str) -> Result<Bytes, ApiError> {
    let store = &services.delivery.store;
    let summary = events::find(store, id, &Sight::All, services.delivery.clock.now()).await?.summary;
    let mut bytes = Vec::new();
    loop {
        let part = events::part(&services.delivery, &summary, bytes.len() as u64, MAX_RANGE_BYTES).await?;
        if part.is_empty() {
            return Ok(bytes.into());
        }
        bytes.extend_from_slice(&part);
    }
}

async fn act(
    Shared(services): Shared<Services>,
    Path((id, action)): Path<(String, String)>,
    Query(Signing { signature }): Query<Signing>,
) -> Result<Response, ApiError> {
    let done = match action.as_str() {
        "revive" => acted(&services, &id, Action::Revive).await?,
        "drop" => acted(&services, &id, Action::Drop).await?,
        "cancel" => acted(&services, &id, Action::Cancel).await?,
        "replay" => replayed(&services, &id, signature).await?,
        _ => return Err(ApiError::nothing_here()),
    };
    Ok(answer(StatusCode::OK, &done))
}

async fn replayed(services: &Services, id: &str, signature: crate::store::Signature) -> Result<EventDone, ApiError> {
    let delivery = &services.delivery;
    let record = events::find(&delivery.store, id, &Sight::All, delivery.clock.now()).await?;
    let endpoint = services.routes.load().endpoint(record.summary.endpoint.as_str()).cloned();
    let of = record.summary.id;
    let new_id = delivery.replay(endpoint.as_ref(), record, signature).await?;
    Ok(EventDone { id: of.to_string(), new_id: Some(new_id.to_string()) })
}

async fn acted(services: &Services, id: &str, action: Action) -> Result<EventDone, ApiError> {
    let delivery = &services.delivery;
    let Summary { endpoint, id, .. } =
        events::find(&delivery.store, id, &Sight::All, delivery.clock.now()).await?.summary;
    let acts = vec![Act { endpoint, id, action }];
    let acted = delivery.store.act(acts, delivery.clock.now()).await?.into_iter().next();
    delivery.wake();
    match acted {
        Some(Acted::Done) => {
            delivery.tell(id).await;
            Ok(EventDone { id: id.to_string(), new_id: None })
        }
        Some(Acted::Not(state)) => {
            let message = format!("the event is {}, and this cannot be done to it then", word(state));
            Err(ApiError::new(ApiErrorKind::WrongState, message))
        }
        Some(Acted::Unknown) | None => Err(ApiError::not_found("the event is gone")),
    }
}

async fn bulk(
    Shared(services): Shared<Services>,
    Path(action): Path<String>,
    Query(asked): Query<EventQuery>,
) -> Result<Response, ApiError> {
    let action = match action.as_str() {
        "revive" => BulkAction::Revive,
        "drop" => BulkAction::Drop,
        _ => return Err(ApiError::nothing_here()),
    };
    let filter = Filter { states: vec![State::Dead], ..asked.filter()? };
    let id = EventId::new();
    let delivery = &services.delivery;
    delivery.store.bulk(id, action, filter, delivery.clock.now()).await?;
    delivery.wake_bulks();
    Ok(answer(StatusCode::ACCEPTED, &BulkNoted { bulk: id.to_string() }))
}

async fn bulks(Shared(services): Shared<Services>) -> Result<Response, ApiError> {
    let shown = |bulk: &Bulk| BulkSummary {
        id: bulk.id.to_string(),
        done: bulk.done,
        skipped: bulk.skipped,
        finished: bulk.finished,
    };
    let bulks: Vec<_> = services.delivery.store.bulks().await?.iter().map(shown).collect();
    Ok(answer(StatusCode::OK, &json!({ "bulks": bulks })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: std::path::PathBuf,
}

async fn backup(Shared(services): Shared<Services>, Query(To { to }): Query<To>) -> Result<Response, ApiError> {
    if !to.is_absolute() {
        return Err(ApiError::bad_request("the path of the copy must be absolute"));
    }
    services.delivery.store.backup(to.clone()).await?;
    Ok(answer(StatusCode::OK, &json!({ "to": to })))
}
