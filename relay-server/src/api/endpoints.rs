//! The admin API's part about endpoints: see them, hold back what waits, make and remove them, apply a file's rows.
//!
//! What is given here is checked by the code that checks a file. A secret goes in and never comes out.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{Path, Query, State, rejection::BytesRejection},
    http::StatusCode,
    response::Response,
    routing::{get, post, put},
};
use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use toml::Table;
use zeroize::Zeroizing;

use super::{
    refused::answer,
    shapes::{AttachedSummary, EndpointDeleted, EndpointDetail, EndpointList, EndpointSummary},
};
use crate::{
    agents::{membership::Role, registry::AttachedAgent},
    config::{rows::Rows, shown_endpoint},
    endpoint::{Endpoint, EndpointName},
    failure::{ApiError, ApiErrorKind},
    runtime_config::{ChangeError, RuntimeConfig, View, undisturbed},
    services::Services,
    store::{Backlog, Sight, StoreError},
};

#[derive(Clone)]
pub(super) struct EndpointsApi {
    pub(super) services: Services,
    pub(super) runtime_config: Arc<RuntimeConfig>,
}

pub(super) fn routes(api: EndpointsApi) -> Router {
    Router::new()
        .route("/api/v1/endpoints", get(list).post(create))
        .route("/api/v1/endpoints/{name}", get(show).delete(delete))
        .route("/api/v1/endpoints/{name}/{action}", post(hold))
        .route("/api/v1/config", put(apply))
        .with_state(api)
}

async fn list(State(api): State<EndpointsApi>) -> Result<Response, ApiError> {
    let backlog = api.services.delivery.store.backlog(Sight::All).await?;
    let backlog: BTreeMap<_, _> = backlog.iter().map(|one| (one.endpoint.as_str().to_owned(), one)).collect();
    let view = api.runtime_config.view();
    let routes = api.services.routes.load();
    let mut endpoints: Vec<_> = routes.endpoints().collect();
    endpoints.sort_by(|one, other| one.name.cmp(&other.name));
    let shown = |endpoint: &Arc<Endpoint>| {
        let waits = backlog.get(endpoint.name.as_str()).copied();
        brief(&api, &view, endpoint, waits)
    };
    Ok(answer(StatusCode::OK, &EndpointList { endpoints: endpoints.into_iter().map(shown).collect() }))
}

fn brief(api: &EndpointsApi, view: &View, endpoint: &Endpoint, waits: Option<&Backlog>) -> EndpointSummary {
    let mode = match &endpoint.policy {
        None => "live",
        Some(policy) if policy.assured => "assured",
        Some(_) => "durable",
    };
    let name = endpoint.name.as_str();
    EndpointSummary {
        name: name.to_owned(),
        mode: mode.to_owned(),
        provider: endpoint.verify.provider_name().to_owned(),
        source: view.source(name).to_owned(),
        url: api.services.routes.load().url(endpoint),
        metrics_name: api.services.metrics.shown(name),
        agents: api.services.agents.registry().serving(name),
        paused: waits.is_some_and(|waits| waits.paused),
        waiting: waits.map_or(0, |waits| waits.open),
        oldest: waits.and_then(|waits| waits.oldest),
        next_due: waits.and_then(|waits| waits.next_due),
    }
}

async fn show(State(api): State<EndpointsApi>, Path(named): Path<String>) -> Result<Response, ApiError> {
    Ok(answer(StatusCode::OK, &whole(&api, &named).await?))
}

fn endpoint(api: &EndpointsApi, named: &str) -> Result<Arc<Endpoint>, ApiError> {
    api.services.routes.load().endpoint(named).cloned().ok_or_else(missing)
}

/// Everything that is known of an endpoint.
async fn whole(api: &EndpointsApi, named: &str) -> Result<EndpointDetail, ApiError> {
    let endpoint = endpoint(api, named)?;
    let (store, view) = (&api.services.delivery.store, api.runtime_config.view());
    let backlog = store.backlog(endpoint.name.clone().into()).await?;
    let counts = store.counts(endpoint.name.clone()).await?;
    let left_alone = api.services.agents.registry().left_alone_until(named);
    let agent = |AttachedAgent { identity, role }| {
        let standing = match role {
            Role::Active => "active",
            Role::Standby => "standby",
            Role::Copy => "copy",
        };
        AttachedSummary {
            name: identity.name.to_string(),
            token: identity.token.to_string(),
            standing: standing.to_owned(),
        }
    };
    Ok(EndpointDetail {
        summary: brief(api, &view, &endpoint, backlog.first()),
        pending: counts.pending,
        running: counts.running,
        dead: counts.dead,
        paused_since: counts.paused_at,
        circuit: if left_alone.is_some() { "open" } else { "closed" }.to_owned(),
        circuit_until: left_alone,
        secret_available: !endpoint.verify.is_closed(),
        attached: api.services.agents.registry().attached(named).into_iter().map(agent).collect(),
        // A reload between the two leaves the settings out for once.
        settings: shown_endpoint(&view.shown, named).unwrap_or_default(),
    })
}

async fn hold(
    State(api): State<EndpointsApi>,
    Path((named, action)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let paused = match action.as_str() {
        "pause" => true,
        "resume" => false,
        "forget" => return forget(&api, &named).await,
        _ => return Err(ApiError::nothing_here()),
    };
    let endpoint = endpoint(&api, &named)?;
    if endpoint.policy.is_none() {
        let why = "a live endpoint keeps nothing, so there is nothing to hold back";
        return Err(ApiError::new(ApiErrorKind::Live, why));
    }
    api.services.delivery.pause(&endpoint.name, paused).await?;
    Ok(answer(StatusCode::OK, &json!({ "name": named, "paused": paused })))
}

/// What was learnt in challenges is no longer good from here on, and the next challenge teaches anew.
async fn forget(api: &EndpointsApi, named: &str) -> Result<Response, ApiError> {
    let endpoint = endpoint(api, named)?;
    let providers = Arc::clone(&api.services.providers);
    // A task of its own, so that a caller who goes away does not leave it half done.
    let task = tokio::spawn(async move { providers.forget_learnt(endpoint.name.as_str()).await });
    task.await.unwrap_or_else(|_| Err(StoreError::Internal("the task ended early".to_owned())))?;
    Ok(answer(StatusCode::OK, &json!({ "name": named, "forgotten": true })))
}

/// An endpoint that is to be made: its row as in a file, and secrets that are then sealed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    endpoint: Table,
    #[serde(default)]
    secrets: Vec<String>,
}

async fn create(State(api): State<EndpointsApi>, body: Result<Bytes, BytesRejection>) -> Result<Response, ApiError> {
    let New { endpoint, secrets } = parsed(body)?;
    let secrets = secrets.into_iter().map(Zeroizing::new).collect();
    let name = crate::config::rows::name_of(&endpoint).unwrap_or_default().to_owned();
    let config = Arc::clone(&api.runtime_config);
    let warnings = undisturbed(async move { config.create(endpoint, secrets).await }).await?;
    let mut all = json!(whole(&api, &name).await?);
    all["warnings"] = warnings.into();
    Ok(answer(StatusCode::CREATED, &all))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    #[serde(default)]
    force: bool,
}

async fn delete(
    State(api): State<EndpointsApi>,
    Path(named): Path<String>,
    Query(asked): Query<Force>,
) -> Result<Response, ApiError> {
    let name = EndpointName::parse(&named).map_err(|_| missing())?;
    let config = api.runtime_config;
    let cancelled = undisturbed(async move { config.delete(name, asked.force).await }).await?;
    Ok(answer(StatusCode::OK, &EndpointDeleted { name: named, cancelled }))
}

/// A file's rows, and what else it says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    rows: Rows,
    #[serde(default)]
    sections: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

async fn apply(
    State(api): State<EndpointsApi>,
    Query(asked): Query<DryRun>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Given { rows, sections } = parsed(body)?;
    let config = Arc::clone(&api.runtime_config);
    let applied = undisturbed(async move { config.apply(rows, &sections, asked.dry_run).await }).await?;
    let mut shown = json!(applied);
    shown["dry_run"] = asked.dry_run.into();
    shown["at"] = api.services.delivery.clock.now().to_string().into();
    Ok(answer(StatusCode::OK, &shown))
}

/// A body as JSON. What cannot be read is not repeated, since a secret may stand in it.
fn parsed<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(ApiErrorKind::BodyTooLarge, "this is more than 1 MiB"),
        _ => ApiError::bad_request("the body did not come whole"),
    })?;
    serde_json::from_slice(&body).map_err(|why| {
        let kind = match why.classify() {
            serde_json::error::Category::Data => "has other members than it should",
            _ => "is not JSON",
        };
        ApiError::bad_request(format!("the body {kind} (line {}, column {})", why.line(), why.column()))
    })
}

fn missing() -> ApiError {
    ApiError::not_found("no endpoint has this name; `endpoint list` names them")
}

impl From<ChangeError> for ApiError {
    fn from(why: ChangeError) -> Self {
        let kind = match why {
            ChangeError::Store(error) => return error.into(),
            ChangeError::Missing => return missing(),
            ChangeError::Config(_) | ChangeError::Malformed(_) => ApiErrorKind::BadConfig,
            ChangeError::Exists(_) => ApiErrorKind::Exists,
            ChangeError::FromFile(_) => ApiErrorKind::FromFile,
            ChangeError::Waiting(_) => ApiErrorKind::EventsWait,
            ChangeError::Internal => ApiErrorKind::Internal,
        };
        Self::new(kind, why.to_string())
    }
}
