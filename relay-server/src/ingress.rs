//! The public door: connections, the stack around their requests, and the way of one request to its answer.
//!
//! A webhook is routed, its body collected where its proof needs it, verified, and handed to an agent or to the store.
//! What is for the relay itself goes to services that the root gives ([`OwnServices`]). Errors become statuses in
//! [`respond`] alone.

mod access;
mod chunks;
mod client;
pub(crate) mod collect;
mod frames;
pub(crate) mod head;
pub(crate) mod http_listen;
mod listener;
mod observed;
mod own;
mod prove;
pub(crate) mod proxy_protocol;
mod public_socket;
mod request;
pub(crate) mod respond;
mod slots;
pub(crate) mod socket;
mod stack;
mod streams;

/// What connections and requests are held to, for the table of all limits.
pub(crate) mod limits {
    pub(crate) use super::frames::MAX_H2_EMPTY_FRAMES;
    pub(crate) use super::listener::{
        H2_WINDOW_BYTES, HANDSHAKE, HANDSHAKE_BYTES, MAX_H2_CAUSED_RESETS, MAX_H2_CONNECTIONS, MAX_H2_EARLY_RESETS,
        MAX_H2_STREAMS, MAX_H2_UNSENT_BYTES, MAX_HEADERS, PROXY_HEADER,
    };
    pub(crate) use super::proxy_protocol::{V1_BYTES, V2_BYTES};
}

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use self::{client::Untrusted, listener::OpenConnections, prove::Prover, request::Requests};
pub(crate) use self::{
    listener::Ingress,
    own::{Client, OwnService, OwnServices, Secure},
    public_socket::{OpenListener, PublicSocket},
    request::API_BASE,
};
use crate::{
    access_log::AccessLog, agents::Agents, config::Config, delivery::Delivery, journal::Journal, memory::MemoryBudget,
    providers::Providers, refused::Refused, replay_guard::ReplayGuard, routes::SharedRoutes, spans::Tracer,
    tls::TlsServer,
};

/// Who looks at requests beside the journal, where anybody does.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    pub tracer: Option<Arc<Tracer>>,
    pub access: Option<Arc<AccessLog>>,
}

impl Ingress {
    /// Takes nothing before [`Ingress::serve`].
    #[expect(clippy::too_many_arguments, reason = "each is a part that it needs, and all are shown")]
    pub(crate) fn build(
        config: &Config,
        max_connections: usize,
        routes: &SharedRoutes,
        agents: &Arc<Agents>,
        delivery: &Arc<Delivery>,
        providers: &Arc<Providers>,
        refused: &Arc<Refused>,
        journal: &Arc<Journal>,
        tls: &Arc<TlsServer>,
        observers: &Observers,
    ) -> Arc<Self> {
        let limits = &config.limits;
        let memory = Arc::new(MemoryBudget::new(usize::try_from(limits.body_budget).unwrap_or(usize::MAX)));
        let open = OpenConnections::default();
        let requests = Arc::new(Requests {
            routes: Arc::clone(routes),
            agents: Arc::clone(agents),
            delivery: Arc::clone(delivery),
            refused: Arc::clone(refused),
            journal: Arc::clone(journal),
            prover: Prover {
                max_head: limits.max_head,
                timeouts: limits.timeouts,
                memory: Arc::clone(&memory),
                store: Arc::clone(&delivery.store),
                spool: delivery.store.spool(),
                providers: Arc::clone(providers),
            },
            guard: ReplayGuard::default(),
            untrusted: Untrusted::default(),
            timeouts: limits.timeouts,
            open: open.clone(),
            tls: Arc::clone(tls),
            tracer: observers.tracer.clone(),
            access: observers.access.clone(),
        });
        let tls = Arc::clone(tls);
        Self::over(config, max_connections, Arc::clone(routes), memory, requests, open, tls)
    }

    /// Takes no more connections, and asks those that are open to end once their requests are answered.
    pub(crate) fn close(&self) {
        self.open.closing.cancel();
        self.open.tasks.close();
    }

    /// Waits for the end of open connections, for so long at most.
    pub(crate) async fn closed(&self, patience: Duration) {
        if timeout(patience, self.open.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.connections(), "requests did not finish in time");
        }
    }

    /// Public connections, agents' apart.
    pub(crate) fn connections(&self) -> usize {
        self.open.tasks.len()
    }

    /// Bytes of heads and collected bodies in memory.
    pub(crate) fn memory_held(&self) -> usize {
        self.memory.held()
    }
}
