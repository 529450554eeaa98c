//! The composition root: builds everything from a config, runs it, and stops it in order.
//!
//! Stopping: `/readyz` says no; the public listener closes and connections are told to close; requests
//! in flight finish, for `drain_timeout` at most; agents are told, and their sessions close; the admin
//! listener ends. A second signal does not wait.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use relay_proto::Limits;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Admin, Readiness},
    agents::{
        accept::{self, Terms},
        guesses::Guesses,
        outcomes::Outcomes,
        registry::Registry,
        skips::Skips,
    },
    config::{Config, Listen, Source, StoreSpec, Warning},
    delivery::{self, Delivery},
    handshakes::Handshakes,
    ingress::{
        Door,
        api::Asking,
        collect,
        explain::Explainer,
        listener::{self, Serving},
        route::Routes,
    },
    learnt::Learnt,
    listen,
    metrics::Metrics,
    outbound::Outbound,
    refused::RefusedLog,
    replay::Replays,
    state::StateDir,
    store::{Health, MemoryStore, Purge, SqliteOptions, SqliteStore, Store},
    tls,
};

/// How long between two rounds of housekeeping, and between two steps of one.
const PURGE_ROUND: Duration = Duration::from_secs(60);
const PURGE_STEP: Duration = Duration::from_millis(50);

/// How long sessions may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(3);

/// What `serve` tells its caller once the ports are open.
pub struct Started {
    /// The public listener's address.
    pub public: SocketAddr,
    /// The admin listener's address.
    pub admin: SocketAddr,
    /// The file that holds the admin token.
    pub token_file: PathBuf,
}

/// Runs a relay until it is told to stop.
///
/// # Errors
/// What could not be started; nothing listens then.
pub fn run(source: &Source, config: &Config, started: impl FnOnce(&Started)) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let public = listen::open(&config.server.listen)?;
    let admin = listen::open(&Listen::Address(config.server.admin))?;
    let state = match &config.server.state_dir {
        Some(path) => StateDir::open(path).with_context(|| {
            format!("cannot make {}; set [server] state_dir to a place of the relay's own", path.display())
        })?,
        None => StateDir::throw_away().context("cannot make a directory for the time of this run")?,
    };
    let (token, token_file) = admin::issue_token(&state).context("cannot write the admin token")?;
    let addresses = Started { public: public.local_addr()?, admin: admin.local_addr()?, token_file };
    if config.tls.is_none()
        && matches!(config.server.listen, Listen::Inherited(_))
        && !addresses.public.ip().is_loopback()
    {
        tracing::warn!(public = %addresses.public, "the inherited socket is reachable from outside without TLS");
    }
    let learnt = Learnt::open(&state).with_context(|| {
        format!("the secrets that were learnt in handshakes cannot be read from {}", state.path().display())
    })?;
    let store = open_store(config)?;
    let (outcomes, strays) = Outcomes::new();
    let door = Arc::new(door(config, addresses.public, state, learnt, (store, outcomes)));
    door.teach();
    let serving = Arc::new(Serving {
        tls: match &config.tls {
            None => None,
            Some(files) => Some(ArcSwap::new(tls::load(&files.cert, &files.key)?)),
        },
        slots: Arc::new(Semaphore::new(config.server.max_connections)),
        header_timeout: config.limits.header_timeout,
        max_head: config.limits.max_head,
    });
    door.metrics.watch(runtime.handle().clone());
    let stop = CancellationToken::new();
    let mut workers = Vec::new();
    for number in 1..config.server.workers.get() {
        let (public, door, serving, stop) =
            (public.try_clone()?, Arc::clone(&door), Arc::clone(&serving), stop.clone());
        // Made here, so that all that the relay holds open is open once it says that it listens.
        let runtime = self::runtime()?;
        let work = move || {
            worker(&runtime, public, door, serving, &stop);
            runtime.shutdown_background();
        };
        workers.push(std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
    }
    let outcome = runtime.block_on(async {
        let readiness = Readiness::default();
        let mut health = door.delivery.store.health();
        door.delivery.go_on_skipping().await.context("what was being skipped cannot be read from the store")?;
        tokio::spawn(delivery::pump(Arc::clone(&door.delivery), stop.clone()));
        tokio::spawn(delivery::work_off_bulks(Arc::clone(&door.delivery), stop.clone()));
        tokio::spawn(delivery::settle_strays(Arc::clone(&door.delivery), strays));
        tokio::spawn(housekeeping(Arc::clone(&door), config.store.clone(), stop.clone()));
        let mut signals = Signals::new()?;
        let shown = Admin { readiness: readiness.clone(), door: Arc::clone(&door), token };
        let admin = tokio::spawn(admin::serve(TcpListener::from_std(admin)?, shown, stop.clone()));
        let public =
            tokio::spawn(listener::serve(TcpListener::from_std(public)?, Arc::clone(&door), Arc::clone(&serving)));
        readiness.set(true);
        started(&addresses);
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => reload(source, &door, &serving, addresses.public),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                why = failed(&mut health) => {
                    // What was acknowledged is safe, and a new process reads it. This one must not go on.
                    readiness.set(false);
                    stop.cancel();
                    anyhow::bail!("the store has failed: {why}; start the relay again once its disk is well");
                }
            }
        }
        readiness.set(false);
        tracing::info!(drain_timeout = ?config.server.drain_timeout, "stopping");
        tokio::select! {
            () = drain(&door, config.server.drain_timeout) => {}
            _ = signals.terminate.recv() => tracing::warn!("stopping at once"),
            _ = signals.interrupt.recv() => tracing::warn!("stopping at once"),
        }
        stop.cancel();
        public.abort();
        let _ = timeout(FAREWELL, admin).await;
        anyhow::Ok(())
    });
    stop.cancel();
    runtime.shutdown_background();
    for worker in workers {
        let _ = worker.join();
    }
    outcome
}

/// The store. Where no endpoint keeps anything no file is opened: two relays may then follow each other with the
/// same state directory and both be there for a moment.
fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let max_bytes = config.store.max_bytes;
    match config.store.path.clone().filter(|_| keeps(config)) {
        None => Ok(Arc::new(MemoryStore::new(max_bytes))),
        Some(path) => {
            let store = SqliteStore::open(SqliteOptions { path: path.clone(), max_bytes });
            Ok(Arc::new(store.with_context(|| format!("the store at {}", path.display()))?))
        }
    }
}

/// Whether any endpoint keeps events.
fn keeps(config: &Config) -> bool {
    config.endpoints.iter().any(|endpoint| endpoint.keeping.is_some())
}

/// Ends when the store has failed, with the reason.
async fn failed(health: &mut watch::Receiver<Health>) -> String {
    match health.wait_for(|health| matches!(health, Health::Failed(_))).await.as_deref() {
        Ok(Health::Failed(why)) => why.clone(),
        Ok(_) => String::new(),
        Err(_) => std::future::pending().await, // The store itself ended; nothing can fail any more.
    }
}

/// Removes what is old, in small steps beside everything else.
async fn housekeeping(door: Arc<Door>, spec: StoreSpec, stop: CancellationToken) {
    let mut cursor = None;
    loop {
        let policy = Purge {
            retention: spec.retention,
            pending_retention: spec.pending_retention,
            max_bytes: spec.max_bytes / 10 * 9,
            cursor,
        };
        match door.delivery.store.purge(policy, Timestamp::now()).await {
            Ok(purged) => cursor = purged.next,
            Err(error) => {
                tracing::warn!(%error, "what is old could not be removed");
                cursor = None;
            }
        }
        let pause = if cursor.is_some() { PURGE_STEP } else { PURGE_ROUND };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot start")
}

/// One more one-thread runtime that accepts from the same listener.
fn worker(
    runtime: &tokio::runtime::Runtime,
    public: StdListener,
    door: Arc<Door>,
    serving: Arc<Serving>,
    stop: &CancellationToken,
) {
    door.metrics.watch(runtime.handle().clone());
    runtime.block_on(async {
        match TcpListener::from_std(public) {
            Ok(public) => {
                tokio::spawn(listener::serve(public, door, serving));
                stop.cancelled().await;
            }
            Err(error) => tracing::error!(%error, "a worker cannot listen"),
        }
    });
}

fn door(
    config: &Config,
    public: SocketAddr,
    state: StateDir,
    learnt: Learnt,
    (store, outcomes): (Arc<dyn Store>, Arc<Outcomes>),
) -> Door {
    let units = usize::try_from(config.limits.body_budget).unwrap_or(usize::MAX) / collect::UNIT_BYTES;
    let body_units = units.min(Semaphore::MAX_PERMITS);
    let metrics = Metrics::default();
    let registry = Arc::new(Registry::default());
    let skips = Arc::<Skips>::default();
    let delivery = Arc::new(Delivery::new(
        Arc::clone(&store),
        Arc::clone(&registry),
        Arc::clone(&outcomes),
        Arc::clone(&skips),
        metrics.events(),
    ));
    delivery.set_endpoints(&config.endpoints);
    let limits = Limits { max_streams: config.limits.max_in_flight_per_agent, ..Limits::relay() };
    Door {
        routes: ArcSwap::from_pointee(routes(config, &metrics, public)),
        metrics,
        terms: Terms {
            registry: Arc::clone(&registry),
            outcomes,
            store,
            skips,
            limits,
            drain_timeout: config.server.drain_timeout,
        },
        registry,
        keeps: config.store.path.is_none() || keeps(config),
        delivery,
        replays: Replays::default(),
        guesses: Guesses::default(),
        handshakes: Handshakes::default(),
        asking: Asking::default(),
        outbound: Outbound::default(),
        explainer: Explainer::default(),
        learnt,
        state,
        refused: RefusedLog::new(config.limits.refused_budget),
        body_budget: Arc::new(Semaphore::new(body_units)),
        body_units,
        max_head: config.limits.max_head,
        body_idle: config.limits.body_idle_timeout,
        closing: CancellationToken::new(),
        connections: TaskTracker::new(),
        sessions: TaskTracker::new(),
    }
}

fn routes(config: &Config, metrics: &Metrics, public: SocketAddr) -> Routes {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let url = match &config.server.public_url {
        Some(url) => (url.as_str().trim_end_matches('/').to_owned(), true),
        None => (format!("{scheme}://{public}"), false),
    };
    let trusted = config.server.trusted_proxies.clone();
    let trusted = Box::new(move |address| trusted.iter().any(|network| network.contains(address)));
    Routes::new(&config.endpoints, metrics, config.tokens.clone(), trusted, url)
}

/// Takes over endpoints, tokens and the certificate; keeps the old ones if anything is wrong but an endpoint's secret.
fn reload(source: &Source, door: &Door, serving: &Serving, public: SocketAddr) {
    let config = match source.reload() {
        Ok(config) => config,
        Err(errors) => return tracing::error!("the config was not taken over: {errors}"),
    };
    if keeps(&config) && !door.keeps {
        return tracing::error!("the config was not taken over: its first endpoint that keeps events needs a restart");
    }
    if let (Some(slot), Some(files)) = (&serving.tls, &config.tls) {
        match tls::load(&files.cert, &files.key) {
            Ok(tls) => slot.store(tls),
            Err(error) => return tracing::error!("the config was not taken over: {error}"),
        }
    }
    for Warning(warning) in &config.warnings {
        tracing::warn!("{warning}");
    }
    for endpoint in config.endpoints.iter().filter(|endpoint| endpoint.verify.is_closed()) {
        tracing::warn!(endpoint = %endpoint.name, "without its secret it answers 503 until the next reload");
    }
    let routes = routes(&config, &door.metrics, public);
    let attachable = routes.attachable();
    door.routes.store(Arc::new(routes));
    door.teach();
    door.delivery.set_endpoints(&config.endpoints);
    door.registry.revise(&|name, offer| {
        let token = config.tokens.iter().find(|token| &*token.name == name).ok_or("unauthorized")?;
        accept::admit(token, offer, &attachable)
    });
    tracing::info!("the config was taken over");
}

/// Agents hear of the stop first, so that they connect to whoever comes next while this relay still serves
/// what it has taken.
async fn drain(door: &Door, patience: Duration) {
    door.closing.cancel();
    door.connections.close();
    door.registry.drain();
    if timeout(patience, door.connections.wait()).await.is_err() {
        tracing::warn!(connections = door.connections.len(), "requests did not finish in time");
    }
    door.delivery.tasks.close();
    if timeout(patience, door.delivery.tasks.wait()).await.is_err() {
        tracing::warn!(
            attempts = door.delivery.tasks.len(),
            "attempts did not end in time; they are settled after a restart"
        );
    }
    door.registry.close_when_idle();
    door.sessions.close();
    let _ = timeout(FAREWELL, door.sessions.wait()).await;
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}
