//! The admin listener: health for everyone who reaches it, the API for whoever holds the token.
//!
//! `/livez`, `/readyz` and `/metrics` need no token. They hold no secrets and no names but those of endpoints that prove
//! their senders: the name of any other is all that keeps strangers out. All else needs the token that `serve` writes
//! beside its state, on loopback too: other users of the machine and pages in its browsers reach loopback as well. No
//! answer but `/livez` is for a host that a page could have made up, and none allows another origin to read it.

mod api;
mod endpoints;
mod events;
mod gate;
mod listener;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    agents::{
        Agents,
        token::{AgentToken, TokenHash},
    },
    delivery::Delivery,
    failure::ApiError,
    ingress::Ingress,
    metrics::{Form, Gauges, Metrics},
    providers::Providers,
    refused::Refused,
    routes::SharedRoutes,
    runtime_config::RuntimeConfig,
    state::StateDir,
    store::{Health, StoreKind},
};

/// The file in the state directory that holds the admin token.
pub(crate) const TOKEN_FILE: &str = "admin.token";

/// Whether the relay takes traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether the relay takes traffic from now on.
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Who may see what the admin listener shows.
pub(crate) struct AdminSettings {
    /// Names under which it is asked, beside localhost and addresses.
    pub hosts: Arc<[Arc<str>]>,
    /// The token's hash.
    pub token: TokenHash,
    /// What a backup is of.
    pub store: StoreKind,
}

/// What the admin listener shows and changes.
pub(crate) struct AdminParts {
    pub readiness: Readiness,
    pub routes: SharedRoutes,
    pub metrics: Arc<Metrics>,
    pub agents: Arc<Agents>,
    pub delivery: Arc<Delivery>,
    pub providers: Arc<Providers>,
    pub refused: Arc<Refused>,
    pub ingress: Arc<Ingress>,
    /// What runs, and how it is changed.
    pub runtime_config: Arc<RuntimeConfig>,
}

/// What is shown without a token.
#[derive(Clone)]
struct Probes {
    readiness: Readiness,
    routes: SharedRoutes,
    metrics: Arc<Metrics>,
    agents: Arc<Agents>,
    delivery: Arc<Delivery>,
    refused: Arc<Refused>,
    ingress: Arc<Ingress>,
}

/// Makes a token, writes it into its file and keeps its hash.
///
/// # Errors
/// If there is no randomness, or the file cannot be written.
pub(crate) fn issue_token(state: &StateDir) -> io::Result<(TokenHash, PathBuf)> {
    let token = AgentToken::generate().map_err(io::Error::other)?;
    state.write(TOKEN_FILE, token.expose().as_bytes())?;
    Ok((token.hash(), state.file(TOKEN_FILE)))
}

/// Everything that the admin listener answers.
pub(crate) fn build(settings: AdminSettings, parts: AdminParts) -> Router {
    let AdminSettings { hosts, token, store } = settings;
    let AdminParts { readiness, routes, metrics, agents, delivery, providers, refused, ingress, runtime_config } =
        parts;
    let gate = gate::AdminGate { hosts, token };
    let refused_api = api::RefusedApi {
        refused: Arc::clone(&refused),
        providers: Arc::clone(&providers),
        routes: Arc::clone(&routes),
        clock: delivery.clock.clone(),
    };
    let events_api = events::EventsApi { delivery: Arc::clone(&delivery), routes: Arc::clone(&routes), store };
    let endpoints_api = endpoints::EndpointsApi {
        runtime_config,
        routes: Arc::clone(&routes),
        metrics: Arc::clone(&metrics),
        agents: Arc::clone(&agents),
        delivery: Arc::clone(&delivery),
        providers,
    };
    let probes = Probes { readiness, routes, metrics, agents, delivery, refused, ingress };
    let open = Router::new()
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .layer(middleware::from_fn_with_state(gate.clone(), gate::check_host))
        .with_state(probes);
    let closed = api::routes(refused_api)
        .merge(events::routes(events_api))
        .merge(endpoints::routes(endpoints_api))
        .fallback(|| async { ApiError::nothing_here() })
        .layer(middleware::from_fn_with_state(gate, gate::check));
    let probe = Router::new().route("/livez", get(|| async { "alive\n" }));
    probe.merge(open).merge(closed).layer(middleware::map_response(gate::harden))
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    listener::serve(listener, router, stop).await;
}

/// An endpoint without its secret is named, and no reason to take the others out of traffic.
async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    if !probes.readiness.is_set() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned());
    }
    let routes = probes.routes.load();
    let closed = routes.endpoints().filter(|endpoint| endpoint.verify.is_closed());
    let mut lines: Vec<_> = closed.map(|endpoint| format!("secret_unavailable {}\n", endpoint.name)).collect();
    lines.sort();
    // Live traffic goes on without the store.
    if let Health::Away { since } = &*probes.delivery.store.health().borrow() {
        lines.push(format!("store_away since {since:.0}\n"));
    }
    (StatusCode::OK, format!("ready\n{}", lines.concat()))
}

async fn metrics_text(State(probes): State<Probes>, headers: HeaderMap) -> ([(HeaderName, HeaderValue); 2], String) {
    let form = Form::asked_for(headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()));
    let text = probes.metrics.text(&gauges(&probes).await, form);
    let kind = HeaderValue::from_static(form.content_type());
    ([(header::CONTENT_TYPE, kind), (header::VARY, HeaderValue::from_static("accept"))], text)
}

/// What there is at this moment.
async fn gauges(probes: &Probes) -> Gauges {
    let registry = probes.agents.registry();
    Gauges {
        waiting: probes.delivery.waiting().await,
        store: probes.delivery.store.usage(),
        sessions: registry.len(),
        exchanges: registry.in_flight(),
        connections: probes.ingress.connections(),
        body_bytes: probes.ingress.memory_held(),
        dropped_copies: registry.dropped_copies(),
        unwritten_refusals: probes.refused.log.lost(),
    }
}
