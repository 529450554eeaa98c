//! The public door: connections, the stack around their requests, and the way of one request to its answer.
//!
//! A webhook is routed, its body collected where its proof needs it, verified, and handed to an agent or to the store.
//! What agents ask about kept events has its own room, [`api`]. Errors become statuses in [`respond`] alone.

mod api;
mod client;
pub(crate) mod collect;
pub(crate) mod head;
mod listener;
mod prove;
mod request;
pub(crate) mod respond;
mod slots;
pub(crate) mod socket;
mod stack;
mod streams;

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{net::TcpListener, time::timeout};

pub(crate) use self::{listener::ConnectionSettings, prove::BodySettings};
use self::{
    listener::{Connections, OpenConnections},
    prove::Prover,
    request::Requests,
};
use crate::{
    agents::Agents, delivery::Delivery, memory::MemoryBudget, metrics::Metrics, providers::Providers, refused::Refused,
    routes::SharedRoutes,
};

/// How the public side takes what comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IngressSettings {
    pub connections: ConnectionSettings,
    pub bodies: BodySettings,
    /// Longest silence of a connection that was upgraded to another protocol.
    pub upgrade_idle: Duration,
    /// Memory for heads and collected bodies, in bytes.
    pub memory_bytes: usize,
}

/// What the public side hands requests to.
pub(crate) struct Beyond {
    pub routes: SharedRoutes,
    pub metrics: Arc<Metrics>,
    pub agents: Arc<Agents>,
    pub delivery: Arc<Delivery>,
    pub providers: Arc<Providers>,
    pub refused: Arc<Refused>,
}

/// The public side of a relay.
pub(crate) struct Ingress {
    connections: Arc<Connections>,
    open: OpenConnections,
    memory: Arc<MemoryBudget>,
}

impl Ingress {
    /// Takes nothing before [`Ingress::serve`]. With `tls` its listeners end TLS.
    pub(crate) fn build(settings: IngressSettings, tls: Option<Arc<ServerConfig>>, beyond: Beyond) -> Arc<Self> {
        let memory = Arc::new(MemoryBudget::new(settings.memory_bytes));
        let open = OpenConnections::default();
        let prover = Prover::build(settings.bodies, Arc::clone(&memory), Arc::clone(&beyond.providers));
        let routes = Arc::clone(&beyond.routes);
        let requests = Requests::build(beyond, prover, settings.upgrade_idle, open.clone());
        let connections =
            Connections::build(settings.connections, tls, routes, Arc::clone(&memory), requests, open.clone());
        Arc::new(Self { connections, open, memory })
    }

    /// Accepts on this listener and this runtime until the drain.
    pub(crate) async fn serve(&self, listener: TcpListener) {
        Arc::clone(&self.connections).serve(listener).await;
    }

    /// New connections meet this certificate, where the listeners end TLS.
    pub(crate) fn set_certificate(&self, tls: Arc<ServerConfig>) {
        self.connections.set_certificate(tls);
    }

    /// Takes no more connections, and asks those that are open to end once their requests are answered.
    pub(crate) fn close(&self) {
        self.open.close();
    }

    /// Waits for the end of open connections, for so long at most.
    pub(crate) async fn closed(&self, patience: Duration) {
        if timeout(patience, self.open.ended()).await.is_err() {
            tracing::warn!(connections = self.open.len(), "requests did not finish in time");
        }
    }

    /// Public connections, agents' apart.
    pub(crate) fn connections(&self) -> usize {
        self.open.len()
    }

    /// Bytes of heads and collected bodies in memory.
    pub(crate) fn memory_held(&self) -> usize {
        self.memory.held()
    }
}
