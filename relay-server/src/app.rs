//! The composition root: builds every service from a config, serves, and stops them in order.
//!
//! Stopping: `/readyz` says no; the public listener closes and connections are told to close; requests in flight finish,
//! for `drain_timeout` at most; agents are told, and their sessions close; the admin listener ends.
//!
//! Knows no signals and no exit codes, binds nothing, and keeps nothing for the whole process: there may be two.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::Router;
use jiff::Timestamp;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, AdminGate, Readiness},
    agents::{Agents, token::TokenHash},
    alert::{CertificateEnd, RelayFacts, post_alerts},
    api::Api,
    audit::{self, Actor, Deed},
    canary::Door,
    clock::{Clock, wall},
    config::{Config, ConfigSource, Listen, ProxyProtocol, StoreSpec},
    delivery::{self, Delivery},
    ingress::{OpenListener, OwnServices, http_listen},
    journal::ROUND,
    metrics::EndpointBacklog,
    quota,
    runtime_config::{self, RuntimeConfig},
    services::{Outlets, Services},
    spans::{ExportSettings, export},
    state::StateDir,
    store::{ConfigKind, Health, Purge, Store, StoreError, Vault, resolve as resolve_store, seal::SealKey},
    tls,
};

/// How long between two rounds of housekeeping, and between two steps of one.
const PURGE_ROUND: Duration = Duration::from_secs(60);
const PURGE_STEP: Duration = Duration::from_millis(50);

/// How long sessions may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a predecessor may take beside its two drains: farewells, and the store's own end.
const STOPPING: Duration = Duration::from_secs(10);

/// How often a store that another process holds is tried.
const LOOK: Duration = Duration::from_millis(20);

/// The file in the state directory with the key to the store's secrets.
const KEY_FILE: &str = "sealing.key";

/// What a relay is given to listen on.
pub(crate) struct Sockets {
    /// One at least.
    pub public: Vec<OpenListener>,
    /// In the clear, for proofs and redirects.
    pub http: Option<StdListener>,
    pub admin: StdListener,
    /// Public connections that this process has descriptors for.
    pub max_connections: usize,
}

/// What there is to say of a relay that serves.
pub(crate) struct Started {
    /// The first address where senders and agents come; `None` if they come by sockets in the file system alone.
    pub public: Option<SocketAddr>,
    /// Every public listener.
    pub listeners: Vec<String>,
    pub http: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub token_file: PathBuf,
    /// An address that opens the page and logs in, once; with `--dev` alone.
    pub page: Option<String>,
    /// What is doubtful about the config that runs, rows of the store included.
    pub warnings: Vec<relay_program::config::Problem>,
}

pub(crate) struct App {
    sockets: Sockets,
    workers: usize,
    store: StoreSpec,
    admin: Router,
    own: Arc<OwnServices>,
    outlets: Outlets,
    export: Option<ExportSettings>,
    relay: Relay,
}

pub(crate) struct Relay {
    started: Started,
    drain_timeout: Duration,
    services: Services,
    runtime_config: Arc<RuntimeConfig>,
    readiness: Readiness,
    stop: CancellationToken,
    workers: Vec<thread::JoinHandle<()>>,
    /// The admin listener, the logs of refused requests and of what was done, and the counts of tokens: each has
    /// something to say at the end.
    last: Vec<JoinHandle<()>>,
    /// Removed with the relay if it is to be thrown away.
    _state: StateDir,
}

impl App {
    /// Opens the store and builds every service.
    pub(crate) async fn build(source: &ConfigSource, config: &Config, sockets: Sockets) -> anyhow::Result<Self> {
        let clock = Clock::default();
        let opened = open(config, &clock).await?;
        let public = sockets.public.iter().find_map(OpenListener::address);
        warn_of_open_sockets(&sockets.public);
        let first = runtime_config::first(source, &opened.store, &opened.vault, &clock).await?;
        let config = &first.config;
        let started = Started {
            public,
            listeners: sockets.public.iter().map(shown).collect(),
            http: sockets.http.as_ref().map(StdListener::local_addr).transpose()?,
            admin: sockets.admin.local_addr()?,
            token_file: opened.token_file,
            page: None,
            warnings: config.warnings.clone(),
        };
        let (services, outlets) =
            Services::build(config, &opened.store, &opened.vault, clock, sockets.max_connections).await?;
        let (server, store) = (config.server.clone(), config.store.clone());
        let export = config.observation.telemetry.as_ref().map(|telemetry| telemetry.export.clone());
        let (is_dev, source, public) = (source.flags.dev.is_some(), source.clone(), started.public);
        let runtime_config = RuntimeConfig::build(source, first, public, opened.vault, opened.store, services.clone());
        services.delivery.recall().await.context("which signatures the relay has made cannot be read")?;
        let readiness = Readiness::default();
        let gate = AdminGate { hosts: server.admin_hosts.as_slice().into(), token: opened.token };
        let api = Api::build(&services, &runtime_config, opened.token, page_url(started.admin));
        // With --dev a person stands before it, and the address is good until it was used.
        let code = is_dev.then(|| api.sessions.code(None)).transpose();
        let code = code.map_err(|error| anyhow::anyhow!(error.message))?;
        let page = code.map(|code| api.page_url(&code));
        let started = Started { page, ..started };
        let admin = admin::build(gate, &readiness, &services, &api);
        let own = Arc::new(OwnServices { api: api.public(), inspector: admin::inspector(&api) });
        let relay = Relay {
            started,
            drain_timeout: server.drain_timeout,
            services,
            runtime_config,
            readiness,
            stop: CancellationToken::new(),
            workers: Vec::new(),
            last: Vec::new(),
            _state: opened.state,
        };
        Ok(Self { sockets, workers: server.workers.get(), store, admin, own, outlets, export, relay })
    }

    /// Serves on this runtime and on threads with one each.
    pub(crate) fn serve(self) -> anyhow::Result<Relay> {
        let Self { sockets, workers, store, admin, own, outlets, export: settings, mut relay } = self;
        let Outlets { late_outcomes, spans, alerts, certificates } = outlets;
        for number in 1..workers {
            let public = sockets.public.iter().map(OpenListener::try_clone).collect::<Result<_, _>>()?;
            relay.start_worker(number, public, Arc::clone(&own))?;
        }
        relay.services.metrics.watch(tokio::runtime::Handle::current());
        let (delivery, stop) = (&relay.services.delivery, &relay.stop);
        tokio::spawn(delivery::pump(Arc::clone(delivery), stop.clone()));
        tokio::spawn(delivery::work_off_bulks(Arc::clone(delivery), stop.clone()));
        tokio::spawn(delivery::settle_late_outcomes(Arc::clone(delivery), late_outcomes));
        tokio::spawn(count_by_time(relay.services.clone(), stop.clone()));
        let begun = Deed::new(Actor::relay(), "relay.start", None);
        let begun = Deed { detail: Some(concat!("relay-server ", env!("CARGO_PKG_VERSION")).to_owned()), ..begun };
        relay.services.audit.did(begun, audit::OK);
        tokio::spawn(certificates.run(stop.clone()));
        tokio::spawn(post_alerts(alerts, stop.clone()));
        tokio::spawn(housekeeping(relay.services.clone(), store, stop.clone()));
        tokio::spawn(runtime_config::end_graces(Arc::clone(&relay.runtime_config), stop.clone()));
        let (refused, stopped) = (Arc::clone(&relay.services.refused), stop.clone());
        let behind = tokio::spawn(async move { refused.log.write_behind(stopped).await });
        let audited = tokio::spawn(Arc::clone(&relay.services.audit).write_behind(stop.clone()));
        let (meters, counted) = (Arc::clone(&relay.services.meters), Arc::clone(&delivery.store));
        let counts = tokio::spawn(quota::keep_counts(meters, counted, stop.clone()));
        let admin = tokio::spawn(admin::serve(TcpListener::from_std(sockets.admin)?, admin, stop.clone()));
        relay.last.extend([admin, behind, audited, counts]);
        if let Some(http) = sockets.http {
            let (routes, tls) = (Arc::clone(&relay.services.routes), &relay.services.tls);
            let (http, challenges) = (TcpListener::from_std(http)?, Arc::clone(&tls.challenges));
            tokio::spawn(http_listen::serve(http, routes, challenges, stop.clone()));
        }
        tokio::spawn(tls::watch(Arc::clone(&relay.services.tls), stop.clone()));
        let exports = spans.zip(settings).map(|(spans, settings)| tokio::spawn(export(spans, settings, stop.clone())));
        relay.last.extend(exports);
        if let Some(canaries) = &relay.services.canaries {
            match door(&sockets.public) {
                Some(door) => drop(tokio::spawn(Arc::clone(canaries).run(door, stop.clone()))),
                None => tracing::warn!("canaries are not sent: each public listener asks for more than a connection"),
            }
        }
        for public in sockets.public {
            tokio::spawn(Arc::clone(&relay.services.ingress).serve(public, Arc::clone(&own)));
        }
        relay.readiness.set(true);
        Ok(relay)
    }
}

impl Relay {
    pub(crate) const fn started(&self) -> &Started {
        &self.started
    }

    /// One more one-thread runtime that accepts from the same listeners.
    fn start_worker(&mut self, number: usize, public: Vec<OpenListener>, own: Arc<OwnServices>) -> anyhow::Result<()> {
        // Made here, so that all that the relay holds open is open once it says that it listens.
        let runtime = runtime()?;
        self.services.metrics.watch(runtime.handle().clone());
        let (ingress, stop) = (Arc::clone(&self.services.ingress), self.stop.clone());
        let work = move || {
            runtime.block_on(async {
                for public in public {
                    tokio::spawn(Arc::clone(&ingress).serve(public, Arc::clone(&own)));
                }
                stop.cancelled().await;
            });
            runtime.shutdown_background();
        };
        self.workers.push(thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
        Ok(())
    }

    /// Reads the config again, beside everything else.
    pub(crate) fn reload(&self) {
        if let Some(access) = &self.services.observers.access {
            access.reopen();
        }
        let runtime_config = Arc::clone(&self.runtime_config);
        tokio::spawn(async move { runtime_config.reload().await });
    }

    /// Ends when the store has failed, with the reason. What was acknowledged is safe, and a new process reads it; this
    /// relay must not go on.
    pub(crate) async fn failed(&self) -> String {
        let mut health = self.services.delivery.store.health();
        let why = match health.wait_for(|health| matches!(health, Health::Failed(_))).await.as_deref() {
            Ok(Health::Failed(why)) => why.clone(),
            Ok(_) => String::new(),
            Err(_) => std::future::pending().await, // The store itself ended; nothing can fail any more.
        };
        self.readiness.set(false);
        why
    }

    /// Lets what is in flight come to its end. Agents hear of the stop first, so that they connect to whoever comes next
    /// while this relay still serves what it has taken.
    pub(crate) async fn drain(&self) {
        self.readiness.set(false);
        tracing::info!(drain_timeout = ?self.drain_timeout, "stopping");
        self.services.streams.close();
        self.services.ingress.close();
        self.services.agents.drain();
        self.services.ingress.closed(self.drain_timeout).await;
        self.services.delivery.drain(self.drain_timeout).await;
        let _ = timeout(FAREWELL, self.services.agents.close()).await;
    }

    /// Stops at once, but for what the log of refused requests still has to write.
    pub(crate) async fn stop(mut self) {
        self.services.streams.close();
        self.services.audit.did(Deed::new(Actor::relay(), "relay.stop", None), audit::OK);
        self.stop.cancel();
        for task in std::mem::take(&mut self.last) {
            let _ = timeout(FAREWELL, task).await;
        }
        if let Some(access) = &self.services.observers.access {
            access.close(FAREWELL).await;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.services.ingress.close();
        self.stop.cancel();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// What a relay has on the disk.
struct Opened {
    state: StateDir,
    store: Arc<dyn Store>,
    vault: Vault,
    token: TokenHash,
    token_file: PathBuf,
}

async fn open(config: &Config, clock: &Clock) -> anyhow::Result<Opened> {
    let state = open_state(config)?;
    let store = open_store(config).await?;
    // Only whoever holds the store writes beside it: until now a predecessor may have been at work there.
    let (token, token_file) = admin::issue_token(&state).context("cannot write the admin token")?;
    let vault = Vault::new(Arc::clone(&store), SealKey::open(&key_file(config, &state)?)?, clock.clone());
    Ok(Opened { state, store, vault, token, token_file })
}

/// Where canaries come in: a listener that takes any connection.
fn door(listeners: &[OpenListener]) -> Option<Door> {
    let is_open = |one: &&OpenListener| {
        one.settings.proxy_protocol == ProxyProtocol::Off && one.settings.clients.is_none() && one.address().is_some()
    };
    let listener = listeners.iter().find(is_open)?;
    Some(Door { address: listener.address()?, tls: listener.settings.tls })
}

/// A listener as it is, not as it was asked for.
fn shown(listener: &OpenListener) -> String {
    listener.address().map_or_else(|| listener.settings.at.to_string(), |address| address.to_string())
}

fn warn_of_open_sockets(listeners: &[OpenListener]) {
    for listener in listeners.iter().filter(|one| matches!(one.settings.at, Listen::Inherited(_)) && !one.settings.tls)
    {
        if let Some(public) = listener.address().filter(|address| !address.ip().is_loopback()) {
            tracing::warn!(%public, "the inherited socket is reachable from outside without TLS");
        }
    }
}

/// Makes the folders that the relay writes to, for whoever confines it to them before it opens anything.
pub(crate) fn make_folders(config: &Config) -> anyhow::Result<()> {
    open_state(config)?;
    if let Some(path) = config.store.kind.path() {
        resolve_store(path).with_context(|| format!("the store at {}", path.display()))?;
    }
    Ok(())
}

fn open_state(config: &Config) -> anyhow::Result<StateDir> {
    match &config.server.state_dir {
        Some(path) => StateDir::open(path).with_context(|| {
            format!("cannot make {}; set [server] state_dir to a place of the relay's own", path.display())
        }),
        None => StateDir::throw_away().context("cannot make a directory for the time of this run"),
    }
}

/// The store. A predecessor that stops may still hold it: what is sent meanwhile waits in the listener's queue.
async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let patience = 2 * config.server.drain_timeout + STOPPING;
    let (began, mut waits) = (Instant::now(), false);
    loop {
        match config.store.kind.open(config.store.max_bytes).await {
            Err(StoreError::InUse(why)) if began.elapsed() < patience => {
                if !waits {
                    tracing::warn!(?patience, "{why}; waiting for it to end");
                }
                waits = true;
                tokio::time::sleep(LOOK).await;
            }
            opened => {
                let path = config.store.kind.path().unwrap_or(Path::new(""));
                return opened.with_context(|| format!("the store at {}", path.display()));
            }
        }
    }
}

/// Where the key to the store's secrets is: never in the store itself.
fn key_file(config: &Config, state: &StateDir) -> Result<PathBuf, StoreError> {
    match (&config.server.state_dir, config.store.kind.path()) {
        // A directory that ends with the process is no place for the key to what stays. It is the same key by whatever
        // name the store was found.
        (None, Some(path)) => Ok(resolve_store(path)?.with_added_extension("key")),
        _ => Ok(state.file(KEY_FILE)),
    }
}

/// Removes what is old, in small steps beside everything else.
async fn housekeeping(services: Services, spec: StoreSpec, stop: CancellationToken) {
    let Services { delivery, agents, metrics, .. } = services;
    let mut cursor = None;
    loop {
        let policy = Purge {
            retention: spec.retention,
            pending_retention: spec.pending_retention,
            max_bytes: spec.max_bytes / 10 * 9,
            cursor,
        };
        match delivery.store.purge(policy, delivery.clock.now()).await {
            Ok(purged) => {
                if purged.expired > 0 {
                    metrics.events().died("", purged.expired);
                }
                cursor = purged.next;
            }
            Err(error) => {
                tracing::warn!(%error, "what is old could not be removed");
                cursor = None;
            }
        }
        if cursor.is_none() {
            note_used_tokens(&delivery, &agents).await;
        }
        let pause = if cursor.is_some() { PURGE_STEP } else { PURGE_ROUND };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Where a browser of this machine finds the page.
fn page_url(admin: SocketAddr) -> String {
    let address = if admin.ip().is_unspecified() {
        SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, admin.port()))
    } else {
        admin
    };
    format!("http://{address}")
}

/// Reads what was counted, at the end of each step.
async fn count_by_time(services: Services, stop: CancellationToken) {
    loop {
        let now = services.delivery.clock.now();
        let into_step = Duration::from_millis(now.as_millisecond().unsigned_abs() % ROUND.as_millis() as u64);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ROUND - into_step) => {}
        }
        let waiting = services.delivery.waiting().await;
        services.figures.take(services.delivery.clock.now(), services.metrics.samples(), &waiting);
        look_for_alerts(&services, waiting);
    }
}

/// Until when the certificates are good that the relay serves with.
fn certificate_ends(services: &Services) -> Vec<CertificateEnd> {
    let status = services.tls.certificates.status().into_iter();
    status.map(|one| CertificateEnd { lifetime: one.lifetime(), name: one.name, ends_at: one.not_after }).collect()
}

/// What an operator has to know of is found here, from what there is to know.
fn look_for_alerts(services: &Services, waiting: Vec<EndpointBacklog>) {
    let now = services.delivery.clock.now();
    let facts = RelayFacts {
        waiting,
        dead: services.metrics.events().dead(),
        usage: services.delivery.store.usage(),
        clock_ahead: now.duration_since(wall()),
        future_dated: services.metrics.future_dated.get(),
        certificates: certificate_ends(services),
        canaries: services.canaries.as_ref().map(|canaries| canaries.stopped()).unwrap_or_default(),
    };
    services.alerts.look(&facts, services.routes.load().public_url(), now);
}

/// Keeps when tokens were used, for whoever asks after a restart.
async fn note_used_tokens(delivery: &Delivery, agents: &Agents) {
    let mut by_time = BTreeMap::<Timestamp, Vec<String>>::new();
    for (name, at) in agents.used_tokens() {
        by_time.entry(at).or_default().push(name.to_string());
    }
    for (at, names) in by_time {
        if let Err(error) = delivery.store.used(ConfigKind::Token, names, at).await {
            tracing::warn!(%error, "when tokens were used could not be noted");
            return;
        }
    }
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot start")
}
