//! The admin listener: health for everyone who reaches it, the API for whoever holds the token.
//!
//! `/livez`, `/readyz` and `/metrics` hold no secrets, no names but those of endpoints, and need nothing. All else needs the token that
//! `serve` writes beside its state, on loopback too: other users of the machine and pages in its browsers reach
//! loopback as well. No answer allows another origin to read it.

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
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    agents::token::{AgentToken, TokenHash},
    ingress::Door,
    live::Live,
    state::StateDir,
};

/// The file in the state directory that holds the admin token.
pub const TOKEN_FILE: &str = "admin.token";

/// Whether the relay takes traffic.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether the relay takes traffic from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What the admin listener shows and who may see it.
#[derive(Clone)]
pub struct Admin {
    /// Whether the relay takes traffic.
    pub readiness: Readiness,
    /// What happens at the public listener.
    pub door: Arc<Door>,
    /// What runs, and how it is changed.
    pub live: Arc<Live>,
    /// The token's hash.
    pub token: TokenHash,
}

/// Makes a token, writes it into its file and keeps its hash.
///
/// # Errors
/// If there is no randomness, or the file cannot be written.
pub fn issue_token(state: &StateDir) -> io::Result<(TokenHash, PathBuf)> {
    let token = AgentToken::generate().map_err(io::Error::other)?;
    state.write(TOKEN_FILE, token.expose().as_bytes())?;
    Ok((token.hash(), state.file(TOKEN_FILE)))
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let open = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    let closed = api::routes()
        .merge(events::routes())
        .merge(endpoints::routes())
        .fallback(api::unknown)
        .layer(middleware::from_fn_with_state(admin.clone(), gate::check));
    let router = open.merge(closed).layer(middleware::map_response(gate::harden)).with_state(admin);
    listener::serve(listener, router, stop).await;
}

/// An endpoint without its secret is named, and no reason to take the others out of traffic.
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    if !admin.readiness.is_set() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned());
    }
    let routes = admin.door.routes.load();
    let closed = routes.endpoints().filter(|endpoint| endpoint.verify.is_closed());
    let mut lines: Vec<_> = closed.map(|endpoint| format!("secret_unavailable {}\n", endpoint.name)).collect();
    lines.sort();
    (StatusCode::OK, format!("ready\n{}", lines.concat()))
}

async fn metrics(State(admin): State<Admin>) -> ([(HeaderName, HeaderValue); 1], String) {
    let form = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, form)], admin.door.metrics.text(&admin.door.gauges().await))
}
