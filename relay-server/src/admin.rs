//! The admin listener: health for everyone who reaches it, the API for whoever holds the admin token.
//!
//! `/livez`, `/readyz` and `/metrics` need no token. They hold no secrets and no names but those of tokens and of
//! endpoints that prove their senders: the name of any other is all that keeps strangers out. All else needs the token that `serve` writes
//! beside its state, on loopback too: other users of the machine and pages in its browsers reach loopback as well. No
//! answer but `/livez` is for a host that a page could have made up, and none allows another origin to read it. The
//! page's files need no token: there is nothing in them.

mod gate;
mod inspector;
mod listener;
mod page;

/// What its connections are held to, for the table of all limits.
pub(crate) mod limits {
    pub(crate) use super::listener::{ANSWER, HEAD, MAX_CONNECTIONS, MAX_HEAD_BYTES};
}

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    routing::get,
};

pub(crate) use self::{gate::AdminGate, inspector::inspector, listener::serve};
use relay_proto::printable::escaped;

use crate::{
    acme::MissingCertificate,
    agents::token::{AgentToken, TokenHash},
    api::{Api, Mount, problem, tokens},
    clock::wall,
    metrics::{CertificateExpiry, Form, Gauges},
    quota::TokenFigures,
    services::Services,
    state::StateDir,
    store::Health,
    tls::CertificateStatus,
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

/// What is shown without a token.
#[derive(Clone)]
struct Probes {
    readiness: Readiness,
    services: Services,
}

/// Makes a token, writes it into its file and keeps its hash.
pub(crate) fn issue_token(state: &StateDir) -> io::Result<(TokenHash, PathBuf)> {
    let token = AgentToken::generate().map_err(io::Error::other)?;
    state.write(TOKEN_FILE, token.expose().as_bytes())?;
    Ok((token.hash(), state.file(TOKEN_FILE)))
}

/// What stands before the API's paths here.
const MOUNT: Mount = Mount { base: "/api/v1", sessions: true, cookie: false };

/// Everything that the admin listener answers.
pub(crate) fn build(gate: AdminGate, readiness: &Readiness, services: &Services, api: &Arc<Api>) -> Router {
    let open = Router::new()
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .layer(middleware::from_fn_with_state(gate.clone(), gate::check_host))
        .with_state(Probes { readiness: readiness.clone(), services: services.clone() });
    let closed = api
        .router(MOUNT)
        .fallback(page::serve)
        .layer(middleware::from_fn_with_state((gate, Arc::clone(api)), gate::check))
        .layer(middleware::from_fn_with_state(MOUNT, problem::place));
    let probe = Router::new().route("/livez", get(|| async { "alive\n" }));
    probe.merge(open).merge(closed).layer(middleware::map_response(gate::harden))
}

/// An endpoint without its secret is named, and no reason to take the others out of traffic.
async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    if !probes.readiness.is_set() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned());
    }
    let routes = probes.services.routes.load();
    let closed = routes.endpoints().filter(|endpoint| endpoint.verify.is_closed());
    let mut lines: Vec<_> = closed.map(|endpoint| format!("secret_unavailable {}\n", endpoint.name)).collect();
    lines.sort();
    // Not a reason to take the relay out of traffic either: the CA has to reach it for there to be one.
    for MissingCertificate { domain, why, retry_at } in probes.services.acme.missing() {
        let why = why.unwrap_or_else(|| "one is ordered".to_owned());
        let retry_at = retry_at.map(|at| format!("; the next try is at {at:.0}")).unwrap_or_default();
        lines.push(format!("certificate_missing {domain}: {}{retry_at}\n", escaped(&why)));
    }
    // Live traffic goes on without the store.
    if let Health::Away { since } = &*probes.services.delivery.store.health().borrow() {
        lines.push(format!("store_away since {since:.0}\n"));
    }
    (StatusCode::OK, format!("ready\n{}", lines.concat()))
}

async fn metrics_text(State(probes): State<Probes>, headers: HeaderMap) -> ([(HeaderName, HeaderValue); 2], String) {
    // Of a store that cannot be read the rest is told.
    let figures = tokens::figures(&probes.services).await.unwrap_or_default();
    let mut tokens: Vec<_> = figures.into_values().filter(TokenFigures::is_of_interest).collect();
    tokens.sort_by(|one, other| one.name.cmp(&other.name));
    let form = Form::asked_for(headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()));
    let Services {
        metrics,
        audit,
        agents,
        delivery,
        refused,
        journal,
        streams,
        ingress,
        tls,
        observers,
        alerts,
        canaries,
        ..
    } = probes.services;
    let registry = agents.registry();
    let gauges = Gauges {
        waiting: delivery.waiting().await,
        store: delivery.store.usage(),
        sessions: registry.len(),
        exchanges: registry.in_flight(),
        connections: ingress.connections(),
        body_bytes: ingress.memory_held(),
        coming_bytes: delivery.store.spool().map_or(0, |spool| spool.all_coming()),
        dropped_copies: registry.dropped_copies(),
        unwritten_refusals: refused.log.lost(),
        journal_dropped: journal.dropped(),
        left_out: streams.left_out(),
        certificates: tls.certificates.status().into_iter().map(expiry).collect(),
        audit_lost: audit.lost(),
        tokens,
        clock_ahead: Duration::try_from(delivery.clock.now().duration_since(wall())).unwrap_or_default(),
        spans: observers.tracer.as_ref().map_or((0, 0), |tracer| tracer.counts.read()),
        access_dropped: observers.access.as_ref().map_or(0, |access| access.dropped()),
        alerts: alerts.counted().to_vec(),
        alerts_posted: alerts.counts.read(),
        canaries: canaries.map(|canaries| canaries.figures()).unwrap_or_default(),
    };
    let kind = HeaderValue::from_static(form.content_type());
    ([(header::CONTENT_TYPE, kind), (header::VARY, HeaderValue::from_static("accept"))], metrics.text(&gauges, form))
}

fn expiry(certificate: CertificateStatus) -> CertificateExpiry {
    CertificateExpiry {
        name: certificate.name,
        source: certificate.source.name(),
        not_after_s: certificate.not_after.as_second(),
    }
}
