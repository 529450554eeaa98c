//! The composition root: builds everything from a config, runs it, and stops it in order.
//!
//! Stopping: `/readyz` says no; the public listener closes and connections are told to close; requests
//! in flight finish, for `drain_timeout` at most; agents are told, and their sessions close; the admin
//! listener ends. A second signal does not wait.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use relay_proto::{Limits, Purse};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::{self, Admin, Readiness},
    agents::{accept::Terms, guesses::Guesses, outcomes::Outcomes, registry::Registry, seats::Seats, skips::Skips},
    clock::Clock,
    config::{Config, Listen, Source, StoreSpec},
    delivery::{self, Delivery},
    descriptors,
    ingress::{
        Door,
        api::Asking,
        client::Untrusted,
        explain::Explainer,
        listener::{self, Serving},
        slots::Slots,
    },
    listen,
    live::{self, Live},
    memory::Budget,
    metrics::Metrics,
    providers::Providers,
    refused::{self, RefusedLog},
    replay::Replays,
    state::StateDir,
    store::{Health, Purge, Store, StoreError, Vault, resolve as resolve_store, seal::SealKey},
    tls,
};

/// How long between two rounds of housekeeping, and between two steps of one.
const PURGE_ROUND: Duration = Duration::from_secs(60);
const PURGE_STEP: Duration = Duration::from_millis(50);

/// What the windows of all sessions' exchanges may grow by, together; one session has 4 MiB of it at most.
const WINDOWS_BYTES: u32 = 64 * 1024 * 1024;

/// How long sessions may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a predecessor may take beside its two drains: farewells, and the store's own end.
const STOPPING: Duration = Duration::from_secs(10);

/// How often a store that another process holds is tried.
const LOOK: Duration = Duration::from_millis(20);

/// The file in the state directory with the key to the store's secrets.
const KEY_FILE: &str = "sealing.key";

/// What `serve` tells its caller once the ports are open.
pub(crate) struct Started {
    /// The public listener's address.
    pub public: SocketAddr,
    /// The admin listener's address.
    pub admin: SocketAddr,
    /// The file that holds the admin token.
    pub token_file: PathBuf,
    /// What is doubtful about the config that runs, rows of the store included.
    pub warnings: Vec<relay_program::config::Problem>,
}

/// Runs a relay until it is told to stop.
///
/// # Errors
/// What could not be started; nothing listens then.
pub(crate) fn run(source: &Source, config: &Config, started: impl FnOnce(&Started)) -> anyhow::Result<()> {
    let max_connections = descriptors::make_room(config.server.max_connections, config.limits.max_sessions);
    let runtime = runtime()?;
    let public = listen::open(&config.server.listen)?;
    let admin = listen::open(&Listen::Address(config.server.admin))?;
    let state = match &config.server.state_dir {
        Some(path) => StateDir::open(path).with_context(|| {
            format!("cannot make {}; set [server] state_dir to a place of the relay's own", path.display())
        })?,
        None => StateDir::throw_away().context("cannot make a directory for the time of this run")?,
    };
    let store = runtime.block_on(open_store(config))?;
    // Only whoever holds the store writes beside it: until now a predecessor may have been at work there.
    let (token, token_file) = admin::issue_token(&state).context("cannot write the admin token")?;
    let (warnings, public_address) = (Vec::new(), public.local_addr()?);
    let mut addresses = Started { public: public_address, admin: admin.local_addr()?, token_file, warnings };
    if config.tls.is_none()
        && matches!(config.server.listen, Listen::Inherited(_))
        && !addresses.public.ip().is_loopback()
    {
        tracing::warn!(public = %addresses.public, "the inherited socket is reachable from outside without TLS");
    }
    let clock = Clock::default();
    let vault = Vault::new(Arc::clone(&store), SealKey::open(&key_file(config, &state)?)?, clock.clone());
    let providers = Providers::build(vault.clone());
    let first = runtime.block_on(async {
        let first = live::first(source, &store, &vault, &clock).await?;
        providers.load(&first.config.endpoints).await;
        anyhow::Ok(first)
    })?;
    addresses.warnings.clone_from(&first.config.warnings);
    let config = &first.config;
    let (outcomes, strays) = Outcomes::new();
    let door = Arc::new(door(config, addresses.public, state, providers, (store, outcomes), clock));
    runtime.block_on(door.delivery.recall()).context("which signatures the relay has made cannot be read")?;
    let serving = Arc::new(Serving {
        tls: match &config.tls {
            None => None,
            Some(files) => Some(ArcSwap::new(tls::load(&files.cert, &files.key)?)),
        },
        slots: Slots::new(max_connections, config.server.max_connections_per_address),
        h2: Arc::new(Semaphore::new(listener::MAX_H2_CONNECTIONS)),
        idle: config.limits.timeouts.idle,
        header_timeout: config.limits.timeouts.header,
        max_head: config.limits.max_head,
    });
    door.metrics.watch(runtime.handle().clone());
    let (server, spec) = (config.server.clone(), config.store.clone());
    let live = Live::new(source.clone(), first, Arc::clone(&door), Arc::clone(&serving), (addresses.public, vault));
    let live = Arc::new(live);
    let stop = CancellationToken::new();
    let mut workers = Vec::new();
    for number in 1..server.workers.get() {
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
        tokio::spawn(housekeeping(Arc::clone(&door), spec.clone(), stop.clone()));
        let behind = tokio::spawn(write_refused(Arc::clone(&door), spec.clone(), stop.clone()));
        let mut signals = Signals::new()?;
        let shown = Admin {
            readiness: readiness.clone(),
            door: Arc::clone(&door),
            live: Arc::clone(&live),
            store: spec.kind.clone(),
            hosts: server.admin_hosts.as_slice().into(),
            token,
        };
        let admin = tokio::spawn(admin::serve(TcpListener::from_std(admin)?, shown, stop.clone()));
        let public =
            tokio::spawn(listener::serve(TcpListener::from_std(public)?, Arc::clone(&door), Arc::clone(&serving)));
        readiness.set(true);
        started(&addresses);
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => {
                    let live = Arc::clone(&live);
                    tokio::spawn(async move { live.reload().await });
                }
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
        tracing::info!(drain_timeout = ?server.drain_timeout, "stopping");
        tokio::select! {
            () = drain(&door, server.drain_timeout) => {}
            _ = signals.terminate.recv() => tracing::warn!("stopping at once"),
            _ = signals.interrupt.recv() => tracing::warn!("stopping at once"),
        }
        stop.cancel();
        public.abort();
        let _ = timeout(FAREWELL, admin).await;
        let _ = timeout(FAREWELL, behind).await;
        anyhow::Ok(())
    });
    stop.cancel();
    runtime.shutdown_background();
    for worker in workers {
        let _ = worker.join();
    }
    outcome
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

/// Writes the log of refused requests into a store that lasts.
async fn write_refused(door: Arc<Door>, spec: StoreSpec, stop: CancellationToken) {
    if spec.kind.is_durable() {
        refused::write_behind(&door.refused, &door.delivery.store, stop).await;
    }
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
        match door.delivery.store.purge(policy, door.delivery.clock.now()).await {
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
    providers: Arc<Providers>,
    (store, outcomes): (Arc<dyn Store>, Arc<Outcomes>),
    clock: Clock,
) -> Door {
    let metrics = Metrics::default();
    let routes = live::routes(config, &metrics, public);
    let registry = Arc::new(Registry::new(clock.clone()));
    registry.revise(routes.admissions());
    let skips = Arc::<Skips>::default();
    let delivery = Arc::new(Delivery::new(
        Arc::clone(&store),
        clock,
        Arc::clone(&registry),
        Arc::clone(&outcomes),
        Arc::clone(&skips),
        metrics.events(),
    ));
    delivery.set_endpoints(&config.endpoints);
    providers.set_endpoints(&config.endpoints);
    let purse = Some(Purse::new(WINDOWS_BYTES));
    let limits = Limits { max_streams: config.limits.max_in_flight_per_agent, purse, ..Limits::relay() };
    Door {
        routes: ArcSwap::from_pointee(routes),
        metrics,
        terms: Terms {
            seats: Seats::new(config.limits.max_sessions),
            registry: Arc::clone(&registry),
            outcomes,
            store,
            skips,
            limits,
            drain_timeout: config.server.drain_timeout,
        },
        registry,
        delivery,
        replays: Replays::default(),
        untrusted: Untrusted::default(),
        guesses: Guesses::default(),
        asking: Asking::default(),
        explainer: Explainer::default(),
        providers,
        _state: state,
        telling: Arc::default(),
        refused: RefusedLog::new(config.limits.refused_budget, config.store.kind.is_durable()),
        memory: Arc::new(Budget::new(usize::try_from(config.limits.body_budget).unwrap_or(usize::MAX))),
        max_head: config.limits.max_head,
        body_idle: config.limits.timeouts.body_idle,
        upgrade_idle: config.limits.timeouts.upgrade_idle,
        body_total: config.limits.timeouts.body,
        closing: CancellationToken::new(),
        connections: TaskTracker::new(),
        sessions: TaskTracker::new(),
    }
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
