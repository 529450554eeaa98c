//! The running configuration: what the file says, what was made through the API, and how either changes under way.
//!
//! One at a time: the file is read again, an endpoint is made or removed, a file's rows are applied. Each change is
//! checked as a whole by the code that checks a file, then kept in the store, then taken over by every runtime at once;
//! what fails changes nothing. Rows of the store belong to their source: a file never changes what the API made.
//!
//! Invariants: what runs is what the file, or what was applied since, says, and what the store holds from the API; a
//! secret that was given here is sealed before it is kept, and never comes out again.

mod made;
mod plan;
mod sealing;
mod tokens;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard};
use toml::Table;
use zeroize::Zeroizing;

use self::plan::described;
use self::{
    made::{MADE_BY, Made, Maker, OWNER, SCOPE, token_ids},
    sealing::{foreign_seals, seal_into},
};
pub(crate) use self::{
    plan::Applied,
    tokens::{TokenSpec, end_graces},
};
use relay_program::config::{Problem, Problems, Shown};

use crate::{
    agents::token::Token,
    audit::{self, Actor, Deed},
    canary::CANARY_PATH,
    clock::{Clock, wall},
    config::{
        Config, ConfigSource, ConfigTexts, Layers, Listen, PublicUrl, rows,
        rows::{MAX_ROWS, Rows},
    },
    endpoint::{Endpoint, EndpointName},
    metrics::Metrics,
    quota::TokenMeters,
    routes::{CanaryRoute, Routes},
    services::Services,
    store::{self, BulkAction, BulkPlan, ConfigChange, ConfigKind, Filter, NamedRows, State, Store, StoreError, Vault},
    webhook::EventId,
};

/// Why a change was not made. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error("{0}")]
    Malformed(String),
    #[error("there is already an endpoint called \"{0}\"; delete it first, or give this one another name")]
    Exists(String),
    #[error("there is already a token called \"{0}\"; revoke it first, rotate it, or give this one another name")]
    TokenExists(String),
    #[error(
        "this token may have {0} endpoints of its own (max_endpoints), and has them; delete one, or have the number raised"
    )]
    TooManyEndpoints(usize),
    #[error("no endpoint has this name")]
    Missing,
    #[error("no token has this name; `token list --running` names them")]
    TokenMissing,
    /// It is not the API's to remove.
    #[error("\"{0}\" comes from the config file or a flag; take it out there and reload")]
    FromFile(String),
    /// Its events would never be delivered.
    #[error("events of it wait ({0}); deliver them first, or force it, which cancels them")]
    Waiting(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the change ended in the middle")]
    Internal,
}

/// Makes a change in a task of its own: whoever asked may go away, and it is not left half done.
pub(crate) async fn undisturbed<T: Send + 'static>(
    change: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, ChangeError> {
    tokio::spawn(change).await.unwrap_or(Err(ChangeError::Internal))
}

/// What runs, for people.
#[derive(Debug)]
pub(crate) struct View {
    /// Every endpoint with all its settings.
    pub shown: Shown,
    made: std::collections::HashSet<String>,
    /// Tokens of the API, and until when older secrets of each are good.
    tokens: std::collections::HashMap<String, Option<Timestamp>>,
    makers: std::collections::HashMap<String, Maker>,
}

impl View {
    fn new(shown: Shown, made: &Made) -> Self {
        Self { shown, made: made.names(), tokens: made.tokens.clone(), makers: made.makers.clone() }
    }

    /// Where an endpoint comes from.
    pub(crate) fn source(&self, endpoint: &str) -> &'static str {
        if self.made.contains(endpoint) { "api" } else { "file" }
    }

    /// Whether a token made this endpoint, with every secret that it has.
    pub(crate) fn knows_secrets(&self, token: &Token, endpoint: &str) -> bool {
        self.makers.get(endpoint).is_some_and(|maker| maker.id == token.id && maker.gave_secrets)
    }

    /// A token of the API: until when older secrets of it are good.
    pub(crate) fn made_token(&self, name: &str) -> Option<Option<Timestamp>> {
        self.tokens.get(name).copied()
    }

    fn graces(&self) -> impl Iterator<Item = Timestamp> {
        self.tokens.values().filter_map(|until| *until)
    }
}

/// What the file says, and what was applied in place of its rows.
struct RunningConfig {
    input: ConfigTexts,
    applied: Option<Rows>,
}

pub(crate) struct First {
    pub config: Config,
    running: RunningConfig,
    made: Made,
}

/// Reads the file and the store when the relay starts, and applies the one to the other.
pub(crate) async fn first(
    source: &ConfigSource,
    store: &Arc<dyn Store>,
    vault: &Vault,
    clock: &Clock,
) -> anyhow::Result<First> {
    let now = clock.now();
    let mut made = Made::read(store, vault, now).await?;
    let running = RunningConfig { input: source.read()?, applied: None };
    let config = assemble(source, &running, true, &made, Rows::default()).await?;
    let sets = sets(&running.input.rows())?;
    store.configure(store::Source::File, sets, true, now).await?;
    made.ids = token_ids(store).await?;
    // What lives in memory knows nothing of what the process before it took.
    let begins = if config.store.kind.is_durable() { Timestamp::MIN } else { now };
    remember(store, &config, begins, now).await?;
    Ok(First { config, running, made })
}

pub(crate) struct RuntimeConfig {
    source: ConfigSource,
    /// Where senders come, unless `public_url` says so; without an address it does.
    public: Option<SocketAddr>,
    vault: Vault,
    store: Arc<dyn Store>,
    services: Services,
    running: Mutex<RunningConfig>,
    view: ArcSwap<View>,
}

impl RuntimeConfig {
    /// The services take over what is `first`.
    pub(crate) fn build(
        source: ConfigSource,
        First { config, running, made }: First,
        public: Option<SocketAddr>,
        vault: Vault,
        store: Arc<dyn Store>,
        services: Services,
    ) -> Arc<Self> {
        let config = identified(config, &made);
        follow(&services, &config, public);
        let view = ArcSwap::from_pointee(View::new(config.shown, &made));
        Arc::new(Self { source, public, vault, store, services, running: Mutex::new(running), view })
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    fn now(&self) -> Timestamp {
        self.services.delivery.clock.now()
    }

    /// Reads the file again. Takes over endpoints, tokens and the certificate; keeps the old ones if anything is wrong but
    /// an endpoint's secret.
    pub(crate) async fn reload(&self) {
        let mut deed = Deed::new(Actor::relay(), "config.reload", None);
        match self.try_reload().await {
            Ok(changes) => {
                deed.detail = Some(described(&changes));
                self.services.audit.did(deed, audit::OK);
                tracing::info!("the config was taken over");
            }
            Err(error) => {
                self.services.audit.did(deed, "bad_config");
                tracing::error!("the config was not taken over: {error}");
            }
        }
    }

    /// Fails where a token has as many endpoints as it may, or is none any more.
    fn admit_one_more(&self, token: &Token) -> Result<(), ChangeError> {
        let routes = self.services.routes.load();
        if !routes.tokens.iter().any(|one| one.id == token.id) {
            return Err(ChangeError::TokenMissing);
        }
        let own = routes.endpoints().filter(|endpoint| endpoint.owner.as_ref() == Some(&token.name)).count();
        let most = token.quotas.max_endpoints;
        if own >= most { Err(ChangeError::TooManyEndpoints(most)) } else { Ok(()) }
    }

    async fn try_reload(&self) -> anyhow::Result<Vec<ConfigChange>> {
        let mut running = self.running.lock().await;
        let made = Made::read(&self.store, &self.vault, self.now()).await?;
        let next = RunningConfig { input: self.source.read()?, applied: None };
        let config = assemble(&self.source, &next, false, &made, Rows::default()).await?;
        let tls = &self.services.tls;
        let files = config.tls.as_ref().map(|settings| tls.read(&settings.files, wall())).transpose()?;
        let sets = sets(&next.input.rows())?;
        let changes = self.store.configure(store::Source::File, sets, true, self.now()).await?;
        if let Some(files) = files {
            tls.take_over(files);
        }
        self.services.acme.set(config.tls.as_ref().and_then(|settings| settings.acme.clone()));
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        *running = next;
        self.take_over(&running, config, made).await;
        drop(running);
        Ok(changes)
    }

    /// Makes an endpoint, with secrets of its own that are sealed. What there is to know of it comes back. The token that
    /// makes it is remembered, and whether it gave every secret: what it refers to is not its own.
    pub(crate) async fn create(
        &self,
        mut row: Table,
        secrets: Vec<Zeroizing<String>>,
        maker: Option<Arc<Token>>,
    ) -> Result<Vec<String>, ChangeError> {
        let running = self.running.lock().await;
        let name = rows::name_of(&row).ok_or_else(|| ChangeError::Malformed("name = \"…\" is missing".to_owned()))?;
        let name = name.to_owned();
        if self.services.routes.load().endpoint(&name).is_some() {
            return Err(ChangeError::Exists(name));
        }
        let mut made = Made::read(&self.store, &self.vault, self.now()).await?;
        if made.rows.endpoint.len() >= MAX_ROWS {
            return Err(ChangeError::Malformed(format!("the API has made {MAX_ROWS} endpoints, and makes no more")));
        }
        foreign_seals(&row)?;
        rows::settle_paths(&mut row, running.input.base());
        let mut typed = row.clone();
        if let Some(token) = &maker {
            self.admit_one_more(token)?;
            row.entry(OWNER).or_insert_with(|| token.name.to_string().into());
        }
        let gave_secrets = !rows::has_references(&row);
        let sealed = seal_into(&mut row, &name, secrets)?;
        made.sealed.extend(sealed.iter().cloned());
        let new = Rows { endpoint: vec![row.clone()], token: Vec::new() };
        let config = assemble(&self.source, &running, false, &made, new).await?;
        let now = self.now();
        for (sealed, secret) in &sealed {
            self.vault.put(SCOPE, sealed, secret).await?;
        }
        // Whose it is stands there as which token made it: names are given again.
        if let Some(verify) = row.get("verify") {
            typed.insert("verify".to_owned(), verify.clone());
        }
        if let Some(token) = maker {
            typed.insert(MADE_BY.to_owned(), token.id.to_string().into());
            made.makers.insert(name.clone(), Maker { id: Arc::clone(&token.id), gave_secrets });
        }
        let set = vec![(ConfigKind::Endpoint, vec![named(&typed)?])];
        self.store.configure(store::Source::Api, set, false, now).await?;
        let about = format!("endpoint.{name}");
        let warnings = config.warnings.iter().filter(|one| one.key.starts_with(&about));
        let warnings = warnings.map(|one| one.message.clone()).collect();
        made.rows.endpoint.push(row);
        self.take_over(&running, config, made).await;
        tracing::info!(endpoint = name, "an endpoint was created");
        drop(running);
        Ok(warnings)
    }

    /// Removes an endpoint that the API made. With `force`, what waits for it is cancelled; how much that was.
    pub(crate) async fn delete(&self, name: EndpointName, force: bool) -> Result<u64, ChangeError> {
        let running = self.running.lock().await;
        let mut made = Made::read(&self.store, &self.vault, self.now()).await?;
        let Some(row) = made.take(name.as_str()) else {
            let there = self.services.routes.load().endpoint(name.as_str()).is_some();
            return Err(if there { ChangeError::FromFile(name.as_str().to_owned()) } else { ChangeError::Missing });
        };
        let counts = self.store.counts(name.clone()).await?;
        let waiting = counts.pending + counts.running;
        if waiting > 0 && !force {
            return Err(ChangeError::Waiting(waiting));
        }
        let config = assemble(&self.source, &running, false, &made, Rows::default()).await?;
        self.store.unconfigure(ConfigKind::Endpoint, name.as_str().to_owned()).await?;
        self.take_over(&running, config, made).await;
        // From here on nothing new comes in. What fails now leaves things behind that nobody can use.
        if waiting > 0 {
            let filter = Filter {
                endpoints: vec![name.clone()],
                states: vec![State::Pending, State::Running],
                ..Filter::default()
            };
            if let Err(error) =
                self.store.bulk(BulkPlan::new(EventId::new(), BulkAction::Cancel, filter), self.now()).await
            {
                tracing::error!(endpoint = %name, %error, "what waited was not cancelled; it becomes dead letters in time");
            }
            self.services.delivery.wake_bulks();
        }
        let mut forgotten = self.services.providers.forget(name.as_str()).await;
        for sealed in rows::sealed_in(&row) {
            forgotten = forgotten.and(self.vault.remove(SCOPE, &sealed).await);
        }
        if let Err(error) = forgotten {
            tracing::warn!(endpoint = %name, %error, "sealed secrets of a deleted endpoint are still in the store");
        }
        tracing::info!(endpoint = %name, cancelled = waiting, "an endpoint was deleted");
        drop(running);
        Ok(waiting)
    }

    /// Puts these rows in the place of the file's, all or none; `sections` is what a file says beside them, for saying what
    /// of it was not taken over. With `dry_run` only says what would change.
    pub(crate) async fn apply(&self, mut rows: Rows, sections: &Table, dry_run: bool) -> Result<Applied, ChangeError> {
        let mut running = self.running.lock().await;
        for row in rows.endpoint.iter_mut().chain(&mut rows.token) {
            foreign_seals(row)?;
            rows::settle_paths(row, running.input.base());
        }
        let made = Made::read(&self.store, &self.vault, self.now()).await?;
        let next = RunningConfig { input: running.input.clone(), applied: Some(rows) };
        let rows = next.applied.clone().unwrap_or_default();
        let sets = sets(&rows)?;
        let config = assemble(&self.source, &next, true, &made, Rows::default()).await?;
        let plan = plan::plan(&self.store, &sets).await?;
        let restart = rows::changed_keys(&running.input.sections(), sections);
        let warnings = config.warnings.iter().filter(|one| one.file.is_none());
        let mut warnings: Vec<String> = warnings.map(ToString::to_string).collect();
        for name in &plan.0.removed {
            let Ok(parsed) = EndpointName::parse(name) else { continue };
            let counts = self.store.counts(parsed).await?;
            let waiting = counts.pending + counts.running;
            if waiting > 0 {
                warnings
                    .push(format!("events wait at \"{name}\" ({waiting}), and nobody delivers them until it is back"));
            }
        }
        let applied = Applied { endpoint: plan.0, token: plan.1, restart, warnings };
        if dry_run {
            return Ok(applied);
        }
        self.store.configure(store::Source::File, sets, true, self.now()).await?;
        *running = next;
        self.take_over(&running, config, made).await;
        tracing::info!(
            added = applied.endpoint.added.len() + applied.token.added.len(),
            changed = applied.endpoint.changed.len() + applied.token.changed.len(),
            removed = applied.endpoint.removed.len() + applied.token.removed.len(),
            "rows of a file were applied"
        );
        drop(running);
        Ok(applied)
    }

    /// Every runtime works by this from now on. Only who holds the lock may say so: an older configuration must not come
    /// in behind a newer one.
    async fn take_over(&self, _held: &MutexGuard<'_, RunningConfig>, config: Config, mut made: Made) {
        // Tokens that came in with this are known by now.
        match token_ids(&self.store).await {
            Ok(ids) => made.ids = ids,
            Err(error) => tracing::warn!(%error, "which tokens are new could not be read; they count as before"),
        }
        let config = identified(config, &made);
        for endpoint in config.endpoints.iter().filter(|endpoint| endpoint.verify.is_closed()) {
            tracing::warn!(endpoint = %endpoint.name, "without its secret it answers 503 until the next reload");
        }
        self.services.providers.load(&config.endpoints).await;
        let now = self.now();
        let begins = if config.store.kind.is_durable() { Timestamp::MIN } else { now };
        if let Err(error) = remember(&self.store, &config, begins, now).await {
            tracing::error!(%error, "the store was not told which endpoints remember what was signed");
        }
        follow(&self.services, &config, self.public);
        self.view.store(Arc::new(View::new(config.shown, &made)));
    }
}

/// With tokens that know which ones they are.
fn identified(config: Config, made: &Made) -> Config {
    Config { tokens: config.tokens.identified(|name| made.ids.get(name).cloned()), ..config }
}

/// Every runtime works by this from now on.
fn follow(services: &Services, config: &Config, public: Option<SocketAddr>) {
    services.meters.keep_only(|id| config.tokens.iter().any(|token| *token.id == *id));
    let canary = services.canaries.as_ref().map(|canaries| CanaryRoute {
        path: CANARY_PATH,
        endpoint: Arc::clone(&canaries.endpoint),
        meter: Arc::clone(&canaries.meter),
    });
    let routes = routes(config, &services.metrics, &services.meters, public).with_canary(canary);
    let policy = routes.attach_policy();
    services.routes.store(Arc::new(routes));
    services.providers.set_endpoints(&config.endpoints);
    services.delivery.set_endpoints(&config.endpoints, &config.tokens);
    services.agents.revise(policy);
}

/// Tells the store for how long each endpoint remembers what was signed, before requests are taken by that.
async fn remember(
    store: &Arc<dyn Store>,
    config: &Config,
    begins: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let late = |endpoint: &Arc<Endpoint>| endpoint.policy.as_ref().and_then(|policy| policy.late);
    // A second for the one that marks are kept longer than they are good.
    let reach = |late: Duration| late + Duration::from_secs(1);
    let reaches = config.endpoints.iter().map(|one| (one.name.clone(), late(one).map_or(Duration::ZERO, reach)));
    store.reach_back(reaches.collect(), begins, now).await
}

fn routes(config: &Config, metrics: &Metrics, meters: &TokenMeters, public: Option<SocketAddr>) -> Routes {
    let first = config.server.listen.iter().find(|one| !matches!(one.at, Listen::Unix(_)));
    let scheme = if first.is_some_and(|first| first.tls) { "https" } else { "http" };
    let named = config.server.public_url.as_ref();
    let own = || public.map(|public| format!("{scheme}://{public}")).unwrap_or_default();
    let url = named.map_or_else(own, |url| url.as_str().to_owned());
    let trusted = config.server.trusted_proxies.clone();
    let front = named.filter(|_| trusted.is_empty()).map(PublicUrl::front);
    let trusted = Box::new(move |address| trusted.iter().any(|network| network.contains(address)));
    Routes::new(&config.endpoints, metrics, config.tokens.clone(), trusted, url, named.is_some(), front)
        .with_inspector(config.server.inspector_host.clone())
        .with_owners(meters)
}

/// Reading secrets can block, on a slow disk or a name that is no plain file.
async fn assemble(
    source: &ConfigSource,
    running: &RunningConfig,
    strict: bool,
    made: &Made,
    new: Rows,
) -> Result<Config, Problems> {
    let (source, input, applied) = (source.clone(), running.input.clone(), running.applied.clone());
    let (api, sealed) = (made.rows.clone(), made.sealed.clone());
    let work = move || {
        let sealed = |name: &str| sealed.get(name).cloned();
        let layers = Layers { applied: applied.as_ref(), strict, api: &api, new: &new, sealed: &sealed };
        source.assemble(&input, &layers)
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Problem::new("the config could not be checked").into()))
}

fn named(row: &Table) -> Result<(String, String), ChangeError> {
    let name = rows::name_of(row).ok_or_else(|| ChangeError::Malformed("a row has no name = \"…\"".to_owned()))?;
    let value = rows::value_of(row).ok_or_else(|| ChangeError::Malformed(format!("\"{name}\" cannot be written")))?;
    Ok((name.to_owned(), value))
}

fn sets(rows: &Rows) -> Result<Vec<(ConfigKind, NamedRows)>, ChangeError> {
    let set = |kind, rows: &[Table]| {
        if rows.len() > MAX_ROWS {
            return Err(ChangeError::Malformed(format!("{} rows of one kind are too many", rows.len())));
        }
        Ok((kind, rows.iter().map(named).collect::<Result<_, _>>()?))
    };
    Ok(vec![set(ConfigKind::Endpoint, &rows.endpoint)?, set(ConfigKind::Token, &rows.token)?])
}
