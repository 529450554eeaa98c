//! Paths of agents' tokens: list them, make, rotate and revoke those of the store.
//!
//! A secret is told once, when it is made. The store keeps its digest alone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use relay_program::{
    api::{TokenLimits, TokenList, TokenMade, TokenNew, TokenRevoked, TokenRow},
    config::duration,
};
use serde::Deserialize;
use toml::Value;
use utoipa::IntoParams;

use super::{
    Api,
    ask::{self, AskedQuery, GivenBody},
    table::{AuditNote, Audited, Needs, Operation},
};
use crate::{
    agents::token::{Right, Token},
    failure::ApiError,
    quota::TokenFigures,
    runtime_config::{TokenSpec, undisturbed},
    services::Services,
    store::Sight,
};

/// How long the older secrets of a rotated token may stay good.
const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Endpoints that a token may name.
const MAX_PATTERNS: usize = 256;

pub(super) fn operations() -> Vec<Operation> {
    let admin = Needs::Right(Right::Admin);
    vec![
        Operation::get("/tokens", admin, list).says("Agents' tokens, without their secrets").answers::<TokenList>(200),
        Operation::post("/tokens", admin, create)
            .says("Makes a token; its secret is told this once")
            .audits(Audited::As("token.create"))
            .takes::<TokenNew>()
            .answers::<TokenMade>(201),
        Operation::post("/tokens/{name}/rotate", admin, rotate)
            .says("Gives a token that was made here a new secret")
            .audits(Audited::As("token.rotate"))
            .query::<Grace>()
            .answers::<TokenMade>(200),
        Operation::delete("/tokens/{name}", admin, revoke)
            .says("Takes a token that was made here away, with every session that it opened")
            .audits(Audited::As("token.revoke"))
            .answers::<TokenRevoked>(200),
    ]
}

/// A token's limits as keys of its row. What they may be is the config's to say.
fn limits_of(limits: &TokenLimits) -> Result<Vec<(&'static str, Value)>, ApiError> {
    let TokenLimits { max_sessions, max_endpoints, max_stored, max_events_per_day } = limits;
    let number = |key, number: Option<u64>| {
        let large = || ApiError::bad_request(format!("{key}: this number is too large"));
        number
            .map(|number| Ok::<_, ApiError>((key, Value::Integer(i64::try_from(number).map_err(|_| large())?))))
            .transpose()
    };
    let numbers = [
        number("max_sessions", *max_sessions)?,
        number("max_endpoints", *max_endpoints)?,
        number("max_events_per_day", *max_events_per_day)?,
    ];
    let size = max_stored.clone().map(|size| ("max_stored", Value::String(size)));
    Ok(numbers.into_iter().flatten().chain(size).collect())
}

/// What tokens' own endpoints have.
pub(crate) async fn figures(services: &Services) -> Result<HashMap<Arc<str>, TokenFigures>, ApiError> {
    let routes = services.routes.load_full();
    let clock = &services.delivery.clock;
    let begin = |token: &Arc<Token>| {
        let mut figures = TokenFigures::of(&token.name, services.meters.find(&token.id).as_deref(), clock);
        figures.sessions = services.agents.sessions_of(&token.name);
        (Arc::clone(&token.name), figures)
    };
    let mut all: HashMap<_, _> = routes.tokens.iter().map(begin).collect();
    let sizes = services.delivery.store.sizes(Sight::All).await?;
    let sizes: HashMap<_, _> = sizes.into_iter().map(|size| (size.endpoint, size.waiting + size.ended)).collect();
    for endpoint in routes.endpoints() {
        if let Some(figures) = endpoint.owner.as_ref().and_then(|owner| all.get_mut(owner)) {
            figures.endpoints += 1;
            figures.stored_bytes += sizes.get(&endpoint.name).copied().unwrap_or_default();
        }
    }
    Ok(all)
}

async fn rows(api: &Api) -> Result<Vec<TokenRow>, ApiError> {
    let mut figures = figures(&api.services).await?;
    let (routes, view) = (api.services.routes.load(), api.runtime_config.view());
    let mut used: HashMap<_, _> =
        api.runtime_config.token_rows().await?.into_iter().map(|row| (row.name, row.used_at)).collect();
    let recent = api.services.agents.used_tokens();
    let mut row = |token: &Arc<Token>| {
        let figures = figures.remove(&token.name).unwrap_or_default();
        let quotas = &token.quotas;
        let made = view.made_token(&token.name);
        let stored = used.remove(&*token.name).flatten();
        TokenRow {
            name: token.name.to_string(),
            id: token.id.to_string(),
            source: if made.is_some() { "api" } else { "file" }.to_owned(),
            endpoints: token.endpoints.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            rights: token.rights.iter().map(|right| right.name().to_owned()).collect(),
            last_used: recent.get(&token.name).copied().or(stored).map(|at| at.to_string()),
            secrets: u32::try_from(token.hashes.len()).unwrap_or(u32::MAX),
            grace_until: made.flatten().map(|until| until.to_string()),
            max_sessions: token.max_sessions as u64,
            sessions: figures.sessions as u64,
            max_endpoints: quotas.max_endpoints as u64,
            own_endpoints: figures.endpoints as u64,
            max_stored: quotas.max_stored,
            stored: figures.stored_bytes,
            max_events_per_day: quotas.max_events_per_day,
            events_today: figures.events_today,
        }
    };
    Ok(routes.tokens.iter().map(&mut row).collect())
}

async fn list(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    Ok(ask::ok(&TokenList { tokens: rows(&api).await? }))
}

async fn made(api: &Api, name: &str, secret: &str) -> Result<TokenMade, ApiError> {
    let row = rows(api).await?.into_iter().find(|row| row.name == name).unwrap_or_default();
    Ok(TokenMade { row, secret: secret.to_owned() })
}

async fn create(
    State(api): State<Arc<Api>>,
    Extension(note): Extension<AuditNote>,
    GivenBody(TokenNew { name, endpoints, rights, limits }): GivenBody<TokenNew>,
) -> Result<Response, ApiError> {
    note.object(&name);
    if endpoints.len() > MAX_PATTERNS {
        return Err(ApiError::bad_request(format!("a token names {MAX_PATTERNS} endpoints at most; use patterns")));
    }
    let unknown = |right: &String| ApiError::bad_request(format!("\"{right}\" is not a right"));
    let read = |rights: Vec<String>| {
        rights.iter().map(|right| Right::parse(right).ok_or_else(|| unknown(right))).collect::<Result<Vec<_>, _>>()
    };
    let mut rights = rights.map_or_else(|| Ok(Right::DEFAULT.to_vec()), read)?;
    rights.dedup();
    rights.truncate(Right::ALL.len());
    note.detail(format!(
        "for {}, may {}",
        endpoints.join(","),
        rights.iter().map(|right| right.name()).collect::<Vec<_>>().join(",")
    ));
    let limits = limits_of(&limits)?;
    let (spec, config) = (TokenSpec { name: name.clone(), endpoints, rights, limits }, Arc::clone(&api.runtime_config));
    let secret = undisturbed(async move { config.create_token(spec).await }).await?;
    Ok(ask::answer(StatusCode::CREATED, &made(&api, &name, secret.expose()).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Grace {
    /// How long the secrets of before stay good, such as `24h`. Not at all unless it is said.
    grace: Option<String>,
}

async fn rotate(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    AskedQuery(Grace { grace }): AskedQuery<Grace>,
) -> Result<Response, ApiError> {
    let grace = grace.as_deref().map_or(Ok(Duration::ZERO), duration);
    let grace = grace.map_err(|why| ApiError::bad_request(format!("grace: {}; {}", why.message, why.help)))?;
    if grace > MAX_GRACE {
        return Err(ApiError::bad_request("grace: 30 days at most"));
    }
    let (config, named) = (Arc::clone(&api.runtime_config), name.clone());
    let secret = undisturbed(async move { config.rotate_token(named, grace).await }).await?;
    Ok(ask::ok(&made(&api, &name, secret.expose()).await?))
}

async fn revoke(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let (config, named) = (Arc::clone(&api.runtime_config), name.clone());
    undisturbed(async move { config.revoke_token(named).await }).await?;
    Ok(ask::ok(&TokenRevoked { name }))
}
