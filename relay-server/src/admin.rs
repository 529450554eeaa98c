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
    ingress::Ingress,
    live::Live,
    metrics::{Form, Gauges, Metrics},
    providers::Providers,
    refused::Refused,
    routes::SharedRoutes,
    state::StateDir,
    store::StoreKind,
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

/// What the admin listener shows and who may see it.
#[derive(Clone)]
pub(crate) struct Admin {
    /// Whether the relay takes traffic.
    pub readiness: Readiness,
    /// What a backup is of.
    pub store: StoreKind,
    /// Names under which it is asked, beside localhost and addresses.
    pub hosts: Arc<[Arc<str>]>,
    /// The token's hash.
    pub token: TokenHash,
    pub routes: SharedRoutes,
    pub metrics: Arc<Metrics>,
    pub agents: Arc<Agents>,
    pub delivery: Arc<Delivery>,
    pub providers: Arc<Providers>,
    pub refused: Arc<Refused>,
    pub ingress: Arc<Ingress>,
    /// What runs, and how it is changed.
    pub live: Arc<Live>,
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

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let probe = Router::new().route("/livez", get(|| async { "alive\n" }));
    let open = Router::new()
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(admin.clone(), gate::check_host));
    let closed = api::routes()
        .merge(events::routes())
        .merge(endpoints::routes())
        .fallback(api::unknown)
        .layer(middleware::from_fn_with_state(admin.clone(), gate::check));
    let router = probe.merge(open).merge(closed).layer(middleware::map_response(gate::harden)).with_state(admin);
    listener::serve(listener, router, stop).await;
}

/// An endpoint without its secret is named, and no reason to take the others out of traffic.
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    if !admin.readiness.is_set() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned());
    }
    let routes = admin.routes.load();
    let closed = routes.endpoints().filter(|endpoint| endpoint.verify.is_closed());
    let mut lines: Vec<_> = closed.map(|endpoint| format!("secret_unavailable {}\n", endpoint.name)).collect();
    lines.sort();
    (StatusCode::OK, format!("ready\n{}", lines.concat()))
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> ([(HeaderName, HeaderValue); 2], String) {
    let form = Form::asked_for(headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()));
    let text = admin.metrics.text(&gauges(&admin).await, form);
    let kind = HeaderValue::from_static(form.content_type());
    ([(header::CONTENT_TYPE, kind), (header::VARY, HeaderValue::from_static("accept"))], text)
}

/// What there is at this moment.
async fn gauges(admin: &Admin) -> Gauges {
    let registry = admin.agents.registry();
    Gauges {
        waiting: admin.delivery.waiting().await,
        stored: admin.delivery.stored(),
        sessions: registry.len(),
        exchanges: registry.in_flight(),
        connections: admin.ingress.connections(),
        body_bytes: admin.ingress.memory_held(),
        dropped_copies: registry.dropped_copies(),
        unwritten_refusals: admin.refused.lost(),
    }
}
