//! The services of one relay, and the order in which they are made.
//!
//! Each gets what it needs when it is built, and knows no other. All of them together are for the root, which starts and
//! stops them, for the configuration that they follow, and for the admin API, which shows them.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::{
    access_log::AccessLog,
    acme::{Acme, AcmeTask},
    agents::{AgentSettings, Agents, outcomes::LateOutcome},
    alert::{AlertQueue, Alerts},
    audit::Audit,
    canary::Canaries,
    clock::{Clock, wall},
    config::Config,
    delivery::Delivery,
    ingress::{Ingress, Observers},
    journal::{Figures, Journal},
    metrics::Metrics,
    providers::Providers,
    quota::TokenMeters,
    refused::Refused,
    routes::SharedRoutes,
    spans::{SpanQueue, Tracer},
    store::{Store, Vault},
    stream::NewsStreams,
    tls::{TlsError, TlsServer},
};

#[derive(Clone)]
pub(crate) struct Services {
    pub routes: SharedRoutes,
    pub metrics: Arc<Metrics>,
    pub meters: Arc<TokenMeters>,
    pub audit: Arc<Audit>,
    pub agents: Arc<Agents>,
    pub delivery: Arc<Delivery>,
    pub providers: Arc<Providers>,
    pub refused: Arc<Refused>,
    pub journal: Arc<Journal>,
    pub figures: Arc<Figures>,
    pub streams: Arc<NewsStreams>,
    pub ingress: Arc<Ingress>,
    pub tls: Arc<TlsServer>,
    pub acme: Arc<Acme>,
    pub observers: Observers,
    pub alerts: Arc<Alerts>,
    /// Where they are sent.
    pub canaries: Option<Arc<Canaries>>,
}

/// What the services give away, for tasks that the root starts.
pub(crate) struct Outlets {
    /// What agents say of attempts that nobody waits for.
    pub late_outcomes: mpsc::Receiver<LateOutcome>,
    /// Spans for the collector, where traces are recorded.
    pub spans: Option<SpanQueue>,
    pub alerts: AlertQueue,
    /// Gets certificates.
    pub certificates: AcmeTask,
}

impl Services {
    pub(crate) async fn build(
        config: &Config,
        store: &Arc<dyn Store>,
        vault: &Vault,
        clock: Clock,
        max_connections: usize,
    ) -> anyhow::Result<(Self, Outlets)> {
        let (metrics, routes) = (Arc::new(Metrics::default()), SharedRoutes::default());
        let (meters, audit) = (Arc::<TokenMeters>::default(), Audit::build(store, &clock, config.audit).await?);
        meters.recall(store).await?;
        let providers = Providers::build(vault.clone());
        providers.load(&config.endpoints).await;
        let settings = AgentSettings {
            max_sessions: config.limits.max_sessions,
            max_in_flight: config.limits.max_in_flight_per_agent,
            drain_timeout: config.server.drain_timeout,
            canaries: config.observation.canary.is_some(),
        };
        let journal = Journal::build(config.limits.journal_budget);
        let (agents, late_outcomes) = Agents::build(settings, store, &audit, &clock);
        let telemetry = config.observation.telemetry.as_ref();
        let traced = telemetry.map(|telemetry| Tracer::new(telemetry.sampling, Arc::clone(&metrics)));
        let (tracer, spans) = traced.unzip();
        let access = AccessLog::open(&config.observation.access).context("the access log cannot be opened")?;
        let observers = Observers { tracer, access };
        let (alerts, alert_queue) = Alerts::build(config.observation.alert.clone(), &metrics);
        let canaries = config.observation.canary.map(|every| Canaries::build(every, agents.registry(), store, &clock));
        let canaries = canaries.transpose()?;
        let delivery = Delivery::build(
            Arc::clone(store),
            clock,
            &agents,
            metrics.events(),
            Arc::clone(&journal),
            observers.tracer.clone(),
        );
        let (budget, lasts) = (config.limits.refused_budget, config.store.kind.is_durable());
        let refused = Refused::build(budget, lasts, Arc::clone(store), Arc::clone(agents.registry()));
        let tls = Arc::new(tls(config)?);
        let settings = config.tls.as_ref().and_then(|tls| tls.acme.clone());
        let (acme, certificates) = Acme::build(settings, vault.clone(), &tls).await;
        let ingress = Ingress::build(
            config,
            max_connections,
            &routes,
            &agents,
            &delivery,
            &providers,
            &refused,
            &journal,
            &tls,
            &observers,
        );
        let (figures, streams) = (Arc::default(), NewsStreams::build(&journal, &delivery));
        let services = Self {
            routes,
            metrics,
            meters,
            audit,
            agents,
            delivery,
            providers,
            refused,
            journal,
            figures,
            streams,
            ingress,
            tls,
            acme,
            observers,
            alerts,
            canaries,
        };
        Ok((services, Outlets { late_outcomes, spans, alerts: alert_queue, certificates }))
    }
}

/// With the certificates that the config names.
fn tls(config: &Config) -> Result<TlsServer, TlsError> {
    let tls = TlsServer::new()?;
    if let Some(settings) = &config.tls {
        tls.take_over(tls.read(&settings.files, wall())?);
    }
    Ok(tls)
}
