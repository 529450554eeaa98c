//! The composition root: builds every service from a config, serves, and stops them in order.
//!
//! Stopping: `/readyz` says no; the public listener closes and connections are told to close; requests in flight finish,
//! for `drain_timeout` at most; agents are told, and their sessions close; the admin listener ends.
//!
//! Knows no signals and no exit codes, binds nothing, and keeps nothing for the whole process: there may be two.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::Router;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, AdminParts, AdminSettings, Readiness},
    agents::{AgentSettings, Agents, outcomes::LateOutcome, token::TokenHash},
    clock::Clock,
    config::{Config, ConfigSource, Listen, StoreSpec},
    delivery::{self, Delivery},
    ingress::{Beyond, BodySettings, ConnectionSettings, Ingress, IngressSettings},
    metrics::Metrics,
    providers::Providers,
    refused::Refused,
    routes::SharedRoutes,
    runtime_config::{self, Followers, RuntimeConfig},
    state::StateDir,
    store::{Health, Purge, Store, StoreError, Vault, resolve as resolve_store, seal::SealKey},
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
    pub public: StdListener,
    pub admin: StdListener,
    /// Public connections that this process has descriptors for.
    pub max_connections: usize,
}

/// What there is to say of a relay that serves.
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

/// A relay that is ready to serve.
pub(crate) struct App {
    sockets: Sockets,
    workers: usize,
    store: StoreSpec,
    admin: Router,
    late_outcomes: mpsc::Receiver<LateOutcome>,
    relay: Relay,
}

/// A relay that serves.
pub(crate) struct Relay {
    started: Started,
    drain_timeout: Duration,
    services: Services,
    runtime_config: Arc<RuntimeConfig>,
    readiness: Readiness,
    stop: CancellationToken,
    workers: Vec<thread::JoinHandle<()>>,
    /// The admin listener, and the log of refused requests: both have something to say at the end.
    last: Vec<JoinHandle<()>>,
    /// Removed with the relay if it is to be thrown away.
    _state: StateDir,
}

/// The services of one relay, for the root that joins them. Each got what it needs when it was built.
struct Services {
    routes: SharedRoutes,
    metrics: Arc<Metrics>,
    agents: Arc<Agents>,
    delivery: Arc<Delivery>,
    providers: Arc<Providers>,
    refused: Arc<Refused>,
    ingress: Arc<Ingress>,
}

impl Services {
    async fn build(
        config: &Config,
        store: &Arc<dyn Store>,
        vault: &Vault,
        clock: Clock,
        max_connections: usize,
    ) -> anyhow::Result<(Self, mpsc::Receiver<LateOutcome>)> {
        let (metrics, routes) = (Arc::new(Metrics::default()), SharedRoutes::default());
        let providers = Providers::build(vault.clone());
        providers.load(&config.endpoints).await;
        let (agents, late_outcomes) = Agents::build(agent_settings(config), store, &clock);
        let delivery = Delivery::build(Arc::clone(store), clock, &agents, metrics.events());
        let (budget, lasts) = (config.limits.refused_budget, config.store.kind.is_durable());
        let refused = Refused::build(budget, lasts, Arc::clone(store), Arc::clone(agents.registry()));
        let tls = config.tls.as_ref().map(|files| tls::load(&files.cert, &files.key)).transpose()?;
        let beyond = Beyond {
            routes: Arc::clone(&routes),
            metrics: Arc::clone(&metrics),
            agents: Arc::clone(&agents),
            delivery: Arc::clone(&delivery),
            providers: Arc::clone(&providers),
            refused: Arc::clone(&refused),
        };
        let ingress = Ingress::build(ingress_settings(config, max_connections), tls, beyond);
        Ok((Self { routes, metrics, agents, delivery, providers, refused, ingress }, late_outcomes))
    }

    fn followers(&self) -> Followers {
        Followers {
            routes: Arc::clone(&self.routes),
            metrics: Arc::clone(&self.metrics),
            agents: Arc::clone(&self.agents),
            delivery: Arc::clone(&self.delivery),
            providers: Arc::clone(&self.providers),
            ingress: Arc::clone(&self.ingress),
        }
    }

    fn admin_parts(&self, readiness: Readiness, runtime_config: Arc<RuntimeConfig>) -> AdminParts {
        AdminParts {
            readiness,
            routes: Arc::clone(&self.routes),
            metrics: Arc::clone(&self.metrics),
            agents: Arc::clone(&self.agents),
            delivery: Arc::clone(&self.delivery),
            providers: Arc::clone(&self.providers),
            refused: Arc::clone(&self.refused),
            ingress: Arc::clone(&self.ingress),
            runtime_config,
        }
    }
}

impl App {
    /// Opens the store and builds every service.
    ///
    /// # Errors
    /// What could not be started; nothing was served then.
    pub(crate) async fn build(source: &ConfigSource, config: &Config, sockets: Sockets) -> anyhow::Result<Self> {
        let clock = Clock::default();
        let opened = open(config, &clock).await?;
        warn_of_open_socket(config, sockets.public.local_addr()?);
        let first = runtime_config::first(source, &opened.store, &opened.vault, &clock).await?;
        let (config, started) = (&first.config, started(&first.config, &sockets, opened.token_file)?);
        let (server, spec) = (config.server.clone(), config.store.clone());
        let (services, late_outcomes) =
            Services::build(config, &opened.store, &opened.vault, clock, sockets.max_connections).await?;
        let runtime_config = RuntimeConfig::build(
            source.clone(),
            first,
            started.public,
            opened.vault,
            opened.store,
            services.followers(),
        );
        let delivery = &services.delivery;
        delivery.recall().await.context("which signatures the relay has made cannot be read")?;
        let readiness = Readiness::default();
        let (hosts, token, store) = (server.admin_hosts.as_slice().into(), opened.token, spec.kind.clone());
        let parts = services.admin_parts(readiness.clone(), Arc::clone(&runtime_config));
        let admin = admin::build(AdminSettings { hosts, token, store }, parts);
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
        Ok(Self { sockets, workers: server.workers.get(), store: spec, admin, late_outcomes, relay })
    }

    /// Serves on this runtime and on threads with one each.
    ///
    /// # Errors
    /// A thread, a runtime or a listener cannot be made.
    pub(crate) fn serve(self) -> anyhow::Result<Relay> {
        let Self { sockets, workers, store, admin, late_outcomes, mut relay } = self;
        for number in 1..workers {
            let public = sockets.public.try_clone()?;
            relay.start_worker(number, public)?;
        }
        relay.services.metrics.watch(tokio::runtime::Handle::current());
        let (delivery, stop) = (&relay.services.delivery, &relay.stop);
        tokio::spawn(delivery::pump(Arc::clone(delivery), stop.clone()));
        tokio::spawn(delivery::work_off_bulks(Arc::clone(delivery), stop.clone()));
        tokio::spawn(delivery::settle_late_outcomes(Arc::clone(delivery), late_outcomes));
        tokio::spawn(housekeeping(Arc::clone(delivery), store, stop.clone()));
        let (refused, stopped) = (Arc::clone(&relay.services.refused), stop.clone());
        let behind = tokio::spawn(async move { refused.log.write_behind(stopped).await });
        let admin = tokio::spawn(admin::serve(TcpListener::from_std(sockets.admin)?, admin, stop.clone()));
        relay.last.extend([admin, behind]);
        let (ingress, public) = (Arc::clone(&relay.services.ingress), TcpListener::from_std(sockets.public)?);
        tokio::spawn(async move { ingress.serve(public).await });
        relay.readiness.set(true);
        Ok(relay)
    }
}

impl Relay {
    pub(crate) const fn started(&self) -> &Started {
        &self.started
    }

    /// One more one-thread runtime that accepts from the same listener.
    fn start_worker(&mut self, number: usize, public: StdListener) -> anyhow::Result<()> {
        // Made here, so that all that the relay holds open is open once it says that it listens.
        let runtime = runtime()?;
        self.services.metrics.watch(runtime.handle().clone());
        let (ingress, stop) = (Arc::clone(&self.services.ingress), self.stop.clone());
        let work = move || {
            runtime.block_on(async {
                match TcpListener::from_std(public) {
                    Ok(public) => {
                        tokio::spawn(async move { ingress.serve(public).await });
                        stop.cancelled().await;
                    }
                    Err(error) => tracing::error!(%error, "a worker cannot listen"),
                }
            });
            runtime.shutdown_background();
        };
        self.workers.push(thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
        Ok(())
    }

    /// Reads the config again, beside everything else.
    pub(crate) fn reload(&self) {
        let runtime_config = Arc::clone(&self.runtime_config);
        tokio::spawn(async move { runtime_config.reload().await });
    }

    /// Ends when the store has failed, with the reason. What was acknowledged is safe, and a new process reads it; this
    /// relay must not go on.
    pub(crate) async fn failed(&self) -> String {
        let mut health = self.services.delivery.store.health();
        let why = failed(&mut health).await;
        self.readiness.set(false);
        why
    }

    /// Lets what is in flight come to its end. Agents hear of the stop first, so that they connect to whoever comes next
    /// while this relay still serves what it has taken.
    pub(crate) async fn drain(&self) {
        self.readiness.set(false);
        tracing::info!(drain_timeout = ?self.drain_timeout, "stopping");
        self.services.ingress.close();
        self.services.agents.drain();
        self.services.ingress.closed(self.drain_timeout).await;
        self.services.delivery.drain(self.drain_timeout).await;
        let _ = timeout(FAREWELL, self.services.agents.close()).await;
    }

    /// Stops at once, but for what the log of refused requests still has to write.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        for task in std::mem::take(&mut self.last) {
            let _ = timeout(FAREWELL, task).await;
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

fn started(config: &Config, sockets: &Sockets, token_file: PathBuf) -> io::Result<Started> {
    let (public, admin) = (sockets.public.local_addr()?, sockets.admin.local_addr()?);
    Ok(Started { public, admin, token_file, warnings: config.warnings.clone() })
}

fn warn_of_open_socket(config: &Config, public: SocketAddr) {
    let inherited = matches!(config.server.listen, Listen::Inherited(_));
    if config.tls.is_none() && inherited && !public.ip().is_loopback() {
        tracing::warn!(%public, "the inherited socket is reachable from outside without TLS");
    }
}

fn agent_settings(config: &Config) -> AgentSettings {
    AgentSettings {
        max_sessions: config.limits.max_sessions,
        max_in_flight: config.limits.max_in_flight_per_agent,
        drain_timeout: config.server.drain_timeout,
    }
}

fn ingress_settings(config: &Config, max_connections: usize) -> IngressSettings {
    let limits = &config.limits;
    IngressSettings {
        connections: ConnectionSettings {
            max: max_connections,
            max_per_address: config.server.max_connections_per_address,
            idle: limits.timeouts.idle,
            header_timeout: limits.timeouts.header,
            max_head: limits.max_head,
        },
        bodies: BodySettings {
            max_head: limits.max_head,
            idle: limits.timeouts.body_idle,
            total: limits.timeouts.body,
        },
        upgrade_idle: limits.timeouts.upgrade_idle,
        memory_bytes: usize::try_from(limits.body_budget).unwrap_or(usize::MAX),
    }
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

/// Ends when the store has failed, with the reason.
async fn failed(health: &mut watch::Receiver<Health>) -> String {
    match health.wait_for(|health| matches!(health, Health::Failed(_))).await.as_deref() {
        Ok(Health::Failed(why)) => why.clone(),
        Ok(_) => String::new(),
        Err(_) => std::future::pending().await, // The store itself ended; nothing can fail any more.
    }
}

/// Removes what is old, in small steps beside everything else.
async fn housekeeping(delivery: Arc<Delivery>, spec: StoreSpec, stop: CancellationToken) {
    let mut cursor = None;
    loop {
        let policy = Purge {
            retention: spec.retention,
            pending_retention: spec.pending_retention,
            max_bytes: spec.max_bytes / 10 * 9,
            cursor,
        };
        match delivery.store.purge(policy, delivery.clock.now()).await {
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

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot start")
}
