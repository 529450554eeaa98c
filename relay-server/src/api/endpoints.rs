//! Paths of endpoints: see them, hold back what waits, make and remove them, apply a file's rows.
//!
//! What is given here is checked by the code that checks a file. A secret goes in and never comes out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;
use zeroize::Zeroizing;

use super::{
    Api,
    ask::{self, AskedQuery, GivenBody},
    own_secret,
    shapes::{
        AttachedSummary, EndpointDeleted, EndpointDetail, EndpointForgot, EndpointHeld, EndpointList, EndpointMade,
        EndpointSecret, EndpointSkipped, EndpointSummary, NewEndpoint, NewRows, RowsApplied,
    },
    table::{AuditNote, Audited, Needs, Operation},
    who::Who,
};
use crate::{
    agents::{membership::Role, registry::AttachedAgent, token::Right},
    config::{
        rows::{has_references, name_of},
        shown_endpoint,
    },
    endpoint::{Endpoint, EndpointName},
    failure::{ApiError, ApiErrorKind},
    runtime_config::{ChangeError, View, undisturbed},
    store::{Backlog, StoreError},
};

pub(super) fn operations() -> Vec<Operation> {
    let (read, act) = (Needs::Right(Right::Read), Needs::Right(Right::Act));
    let (create, admin) = (Needs::Right(Right::Create), Needs::Right(Right::Admin));
    vec![
        Operation::get("/endpoints", read, list)
            .says("Endpoints with their agents and what waits")
            .answers::<EndpointList>(200),
        Operation::post("/endpoints", create, make)
            .says("Makes an endpoint that lives in the store")
            .audits(Audited::As("endpoint.create"))
            .takes::<NewEndpoint>()
            .answers::<EndpointMade>(200)
            .answers::<EndpointMade>(201),
        Operation::get("/endpoints/{name}", read, show)
            .says("An endpoint: every setting, who is attached, what waits")
            .answers::<EndpointDetail>(200),
        Operation::delete("/endpoints/{name}", create, delete)
            .says("Removes an endpoint that was made here")
            .audits(Audited::As("endpoint.delete"))
            .query::<Force>()
            .answers::<EndpointDeleted>(200),
        Operation::post("/endpoints/{name}/pause", act, pause)
            .says("Goes on keeping events, and delivers none")
            .audits(Audited::As("endpoint.pause"))
            .answers::<EndpointHeld>(200),
        Operation::post("/endpoints/{name}/resume", act, resume)
            .says("Delivers again")
            .audits(Audited::As("endpoint.resume"))
            .answers::<EndpointHeld>(200),
        Operation::post("/endpoints/{name}/skip", Needs::Right(Right::Skip), skip)
            .says("Ends what waits at an endpoint, so that what comes next is what is delivered")
            .audits(Audited::As("endpoint.skip"))
            .answers::<EndpointSkipped>(200)
            .answers::<EndpointSkipped>(202),
        Operation::post("/endpoints/{name}/forget", create, forget)
            .says("Forgets the secret that a provider's challenge told")
            .audits(Audited::As("endpoint.forget"))
            .answers::<EndpointForgot>(200),
        Operation::put("/config", admin, apply)
            .says("Puts a file's rows in the place of those that there are from a file")
            .audits(Audited::As("config.apply"))
            .query::<DryRun>()
            .takes::<NewRows>()
            .answers::<RowsApplied>(200),
    ]
}

async fn list(State(api): State<Arc<Api>>, who: Who) -> Result<Response, ApiError> {
    Ok(ask::ok(&listed(&api, &who).await?))
}

/// The endpoints that whoever asks sees.
pub(super) async fn listed(api: &Arc<Api>, who: &Who) -> Result<EndpointList, ApiError> {
    let routes = api.services.routes.load();
    let backlog = api.services.delivery.store.backlog(who.sight(&routes, Right::Read));
    let backlog = api.reading(who, async { Ok(backlog.await?) }).await?;
    let backlog: BTreeMap<_, _> = backlog.iter().map(|one| (one.endpoint.as_str().to_owned(), one)).collect();
    let view = api.runtime_config.view();
    let mut endpoints: Vec<_> = routes.endpoints().filter(|endpoint| who.sees(endpoint.name.as_str())).collect();
    endpoints.sort_by(|one, other| one.name.cmp(&other.name));
    let shown = |endpoint: &Arc<Endpoint>| {
        let waits = backlog.get(endpoint.name.as_str()).copied();
        brief(api, &view, endpoint, waits)
    };
    Ok(EndpointList { endpoints: endpoints.into_iter().map(shown).collect() })
}

fn brief(api: &Api, view: &View, endpoint: &Endpoint, waits: Option<&Backlog>) -> EndpointSummary {
    let (name, figures) = (endpoint.name.as_str(), &api.services.figures);
    let (p50_us, p99_us) = figures.latencies_us(name);
    EndpointSummary {
        name: name.to_owned(),
        mode: endpoint.mode().to_owned(),
        provider: endpoint.verify.provider_name().to_owned(),
        source: view.source(name).to_owned(),
        owner: endpoint.owner.as_deref().map(str::to_owned),
        url: api.services.routes.load().url(endpoint),
        metrics_name: api.services.metrics.shown(name),
        agents: api.services.agents.registry().serving(name),
        paused: waits.is_some_and(|waits| waits.paused),
        waiting: waits.map_or(0, |waits| waits.open),
        oldest: waits.and_then(|waits| waits.oldest),
        next_due: waits.and_then(|waits| waits.next_due),
        refusals: figures.refused(name),
        p50_us,
        p99_us,
        last_event: waits.and_then(|waits| waits.newest).max(figures.last(name)),
    }
}

async fn show(State(api): State<Arc<Api>>, who: Who, Path(named): Path<String>) -> Result<Response, ApiError> {
    Ok(ask::ok(&whole(&api, &who, &named).await?))
}

/// An endpoint at which whoever asks has this right.
pub(super) fn endpoint(api: &Api, who: &Who, named: &str, right: Right) -> Result<Arc<Endpoint>, ApiError> {
    let endpoint = api.services.routes.load().endpoint(named).filter(|_| who.sees(named)).cloned();
    let endpoint = endpoint.ok_or_else(missing)?;
    who.must(right, named)?;
    Ok(endpoint)
}

/// Everything that is known of an endpoint.
async fn whole(api: &Api, who: &Who, named: &str) -> Result<EndpointDetail, ApiError> {
    let endpoint = endpoint(api, who, named, Right::Read)?;
    detail(api, &endpoint).await
}

async fn detail(api: &Api, endpoint: &Endpoint) -> Result<EndpointDetail, ApiError> {
    let named = endpoint.name.as_str();
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
    let secret = |(number, last_verified): (usize, Option<i64>)| {
        let last_verified = last_verified.and_then(|second| Timestamp::from_second(second).ok());
        EndpointSecret { number, last_verified }
    };
    Ok(EndpointDetail {
        summary: brief(api, &view, endpoint, backlog.first()),
        pending: counts.pending,
        running: counts.running,
        dead: counts.dead,
        paused_since: counts.paused_at,
        circuit: if left_alone.is_some() { "open" } else { "closed" }.to_owned(),
        circuit_until: left_alone,
        secret_available: !endpoint.verify.is_closed(),
        attached: api.services.agents.registry().attached(named).into_iter().map(agent).collect(),
        secrets: endpoint.verify.secrets_used().map(secret).collect(),
        // A reload between the two leaves the settings out for once.
        settings: shown_endpoint(&view.shown, named).unwrap_or_default(),
    })
}

async fn pause(api: State<Arc<Api>>, who: Who, name: Path<String>) -> Result<Response, ApiError> {
    hold(&api, &who, name.0, true).await
}

async fn resume(api: State<Arc<Api>>, who: Who, name: Path<String>) -> Result<Response, ApiError> {
    hold(&api, &who, name.0, false).await
}

/// How long a skip may take until its answer says that it goes on.
const SKIP_PATIENCE: Duration = Duration::from_secs(20);

async fn skip(State(api): State<Arc<Api>>, who: Who, Path(name): Path<String>) -> Result<Response, ApiError> {
    let endpoint = kept(&api, &who, &name, Right::Skip)?;
    let (services, delivery) = (&api.services, &api.services.delivery);
    let ended = services.agents.skips().begin(&delivery.store, endpoint.name.clone(), delivery.clock.now()).await?;
    let skipped = timeout(SKIP_PATIENCE, ended).await.ok().and_then(Result::ok);
    let status = if skipped.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(ask::answer(status, &EndpointSkipped { name, skipped }))
}

/// An endpoint that keeps events, at which whoever asks has this right.
fn kept(api: &Api, who: &Who, name: &str, right: Right) -> Result<Arc<Endpoint>, ApiError> {
    let endpoint = endpoint(api, who, name, right)?;
    if endpoint.policy.is_none() {
        let why = "a live endpoint keeps nothing, so nothing waits there";
        return Err(ApiError::new(ApiErrorKind::Live, why));
    }
    Ok(endpoint)
}

async fn hold(api: &Api, who: &Who, name: String, paused: bool) -> Result<Response, ApiError> {
    let endpoint = kept(api, who, &name, Right::Act)?;
    api.services.delivery.pause(&endpoint.name, paused).await?;
    Ok(ask::ok(&EndpointHeld { name, paused }))
}

/// What was learnt in challenges is no longer good from here on, and the next challenge teaches anew.
async fn forget(State(api): State<Arc<Api>>, who: Who, Path(name): Path<String>) -> Result<Response, ApiError> {
    let endpoint = endpoint(&api, &who, &name, Right::Create)?;
    must_own(&who, &endpoint)?;
    let providers = Arc::clone(&api.services.providers);
    // A task of its own, so that a caller who goes away does not leave it half done.
    let task = tokio::spawn(async move { providers.forget_learnt(endpoint.name.as_str()).await });
    task.await.unwrap_or_else(|_| Err(StoreError::Internal("the task ended early".to_owned())))?;
    Ok(ask::ok(&EndpointForgot { name, forgotten: true }))
}

/// The relay signs and answers challenges with an endpoint's secret for whoever made it: what others keep on its machine
/// is none of a token's business.
const FOREIGN_SECRET: &str = "a token gives an endpoint's secret itself (`secrets` beside `endpoint`, or `generate_secret`); \
    only the admin names variables and files of the relay's machine";

/// Hosts are addresses of the whole relay, and whose use something counts for is no tenant's to say.
const OF_THE_ADMIN: [&str; 2] = ["hosts", "owner"];

/// Whether whoever asks may have an endpoint removed: with `create` its own, with `admin` any.
fn must_own(who: &Who, endpoint: &Endpoint) -> Result<(), ApiError> {
    if who.holds(Right::Admin) || is_own(who, endpoint) {
        return Ok(());
    }
    let why = "another one made this endpoint; a token removes its own, and the admin any";
    Err(ApiError::new(ApiErrorKind::MayNotCreate, why))
}

fn is_own(who: &Who, endpoint: &Endpoint) -> bool {
    who.own_token().is_some_and(|token| endpoint.owner.as_ref() == Some(&token.name))
}

async fn make(
    State(api): State<Arc<Api>>,
    who: Who,
    Extension(note): Extension<AuditNote>,
    GivenBody(NewEndpoint { endpoint, secrets, generate_secret, use_own }): GivenBody<NewEndpoint>,
) -> Result<Response, ApiError> {
    let mut secrets: Vec<_> = secrets.into_iter().map(Zeroizing::new).collect();
    let name = name_of(&endpoint).unwrap_or_default().to_owned();
    note.object(&name);
    who.must(Right::Create, &name)?;
    if !who.holds(Right::Admin) {
        if has_references(&endpoint) {
            return Err(ApiError::new(ApiErrorKind::MayNotCreate, FOREIGN_SECRET));
        }
        if let Some(key) = OF_THE_ADMIN.into_iter().find(|key| endpoint.contains_key(*key)) {
            let why = format!("only the admin gives an endpoint `{key}`; leave it out");
            return Err(ApiError::new(ApiErrorKind::MayNotCreate, why));
        }
    }
    let there = api.services.routes.load().endpoint(&name).filter(|there| use_own && is_own(&who, there)).cloned();
    if let Some(there) = there {
        note.detail("it was there");
        let detail = detail(&api, &there).await?;
        return Ok(ask::ok(&EndpointMade { detail, warnings: Vec::new(), secret: None }));
    }
    let generated = if generate_secret { generated(&endpoint)? } else { None };
    secrets.extend(generated.clone());
    let config = Arc::clone(&api.runtime_config);
    let maker = who.own_token().cloned();
    let warnings = undisturbed(async move { config.create(endpoint, secrets, maker).await }).await?;
    // Whoever made it is told of it, whether or not it may read there.
    let made = api.services.routes.load().endpoint(&name).cloned().ok_or_else(missing)?;
    let detail = detail(&api, &made).await?;
    Ok(ask::answer(
        StatusCode::CREATED,
        &EndpointMade { detail, warnings, secret: generated.map(|secret| secret.to_string()) },
    ))
}

/// A secret for an endpoint whose provider lets one choose it; none for a provider that there is not, which is said later.
fn generated(endpoint: &toml::Table) -> Result<Option<Zeroizing<String>>, ApiError> {
    let provider = endpoint.get("verify").and_then(|verify| verify.get("provider")?.as_str()).unwrap_or_default();
    let made = own_secret::new(provider).map_err(|_| ApiError::new(ApiErrorKind::Internal, "no randomness"))?;
    if made.is_none() && relay_schemes::provider(provider).is_none() {
        return Ok(None);
    }
    made.map(Some).ok_or_else(|| {
        let why = "generate_secret: the secret of this provider is not known to be yours to choose; give the one that it shows";
        ApiError::new(ApiErrorKind::BadConfig, why)
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Force {
    /// Also if events of it wait; they are cancelled.
    #[serde(default)]
    force: bool,
}

async fn delete(
    State(api): State<Arc<Api>>,
    who: Who,
    Path(named): Path<String>,
    AskedQuery(asked): AskedQuery<Force>,
) -> Result<Response, ApiError> {
    must_own(&who, &*endpoint(&api, &who, &named, Right::Create)?)?;
    let name = EndpointName::parse(&named).map_err(|_| missing())?;
    let config = Arc::clone(&api.runtime_config);
    let cancelled = undisturbed(async move { config.delete(name, asked.force).await }).await?;
    Ok(ask::ok(&EndpointDeleted { name: named, cancelled }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DryRun {
    /// Only says what would change.
    #[serde(default)]
    dry_run: bool,
}

async fn apply(
    State(api): State<Arc<Api>>,
    Extension(note): Extension<AuditNote>,
    AskedQuery(asked): AskedQuery<DryRun>,
    GivenBody(NewRows { rows, sections }): GivenBody<NewRows>,
) -> Result<Response, ApiError> {
    let config = Arc::clone(&api.runtime_config);
    let applied = undisturbed(async move { config.apply(rows, &sections, asked.dry_run).await }).await?;
    note.detail(format!("{}{}", if asked.dry_run { "only compared: " } else { "" }, applied.described()));
    let at = api.services.delivery.clock.now().to_string();
    Ok(ask::ok(&RowsApplied { applied, dry_run: asked.dry_run, at }))
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
            ChangeError::Exists(_) | ChangeError::TokenExists(_) => ApiErrorKind::Exists,
            ChangeError::TokenMissing => ApiErrorKind::NotFound,
            ChangeError::TooManyEndpoints(_) => ApiErrorKind::TooManyEndpoints,
            ChangeError::FromFile(_) => ApiErrorKind::FromFile,
            ChangeError::Waiting(_) => ApiErrorKind::EventsWait,
            ChangeError::Internal => ApiErrorKind::Internal,
        };
        Self::new(kind, why.to_string())
    }
}
