//! What the relay has to do with providers themselves: it answers their challenges, keeps the secrets that these bring,
//! and fetches the keys that their signatures are checked with.
//!
//! Decides nothing about a request: `verify` says what is proven and which key is missing.
//!
//! Invariant: an endpoint that runs knows what was learnt and fetched for its name, however it was made: what comes while
//! a configuration changes reaches the endpoints that run after it.

mod challenge;
mod fetch;
mod handshakes;
mod keys;
mod learnt;
mod sealed;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub(crate) use self::handshakes::{Handshake, MAX_KEPT};
use self::{handshakes::Handshakes, keys::ProviderKeys, learnt::LearntSecrets};
use crate::{
    endpoint::Endpoint,
    outbound::Outbound,
    store::{StoreError, Vault},
};

pub(crate) struct Providers {
    outbound: Outbound,
    learnt: LearntSecrets,
    keys: ProviderKeys,
    pub handshakes: Handshakes,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
}

impl Providers {
    /// Keeps what it learns and fetches in `vault`.
    pub(crate) fn build(vault: Vault) -> Arc<Self> {
        Arc::new(Self {
            outbound: Outbound::default(),
            learnt: LearntSecrets::new(vault.clone()),
            keys: ProviderKeys::new(vault),
            handshakes: Handshakes::default(),
            endpoints: ArcSwap::default(),
        })
    }

    /// Reads what was kept for these endpoints. Where the store cannot say it now, they are without until it can.
    pub(crate) async fn load(&self, endpoints: &[Arc<Endpoint>]) {
        let names: Vec<_> = endpoints.iter().map(|endpoint| endpoint.name.as_str().to_owned()).collect();
        if let Err(error) = self.learnt.load(&names).await {
            tracing::error!(%error, "what was learnt in handshakes cannot be read; reload once the store is well");
        }
        if let Err(error) = self.keys.load(&names).await {
            tracing::warn!(%error, "keys that were fetched cannot be read; they are fetched again");
        }
    }

    /// These are the endpoints from now on; they get what was loaded for them.
    pub(crate) fn set_endpoints(&self, endpoints: &[Arc<Endpoint>]) {
        self.endpoints.store(Arc::new(endpoints.to_vec()));
        for endpoint in endpoints {
            self.give_secrets(endpoint);
            endpoint.verify.restore_keys(&self.keys.of(endpoint.name.as_str()));
        }
    }

    /// Forgets the secrets that an endpoint learnt; its next challenge teaches anew.
    pub(crate) async fn forget_learnt(&self, endpoint: &str) -> Result<(), StoreError> {
        self.learnt.forget(endpoint).await?;
        let loaded = self.learnt.load(&[endpoint.to_owned()]).await;
        self.secrets_changed(endpoint);
        loaded
    }

    /// Forgets everything about an endpoint that is no more.
    pub(crate) async fn forget(&self, endpoint: &str) -> Result<(), StoreError> {
        let learnt = self.learnt.forget(endpoint).await;
        let keys = self.keys.forget(endpoint).await;
        learnt.and(keys)
    }

    /// Only the endpoint that runs now counts: a request may hold an older one of the same name.
    fn secrets_changed(&self, name: &str) {
        for endpoint in self.endpoints.load().iter().filter(|endpoint| endpoint.name.as_str() == name) {
            self.give_secrets(endpoint);
        }
    }

    fn give_secrets(&self, endpoint: &Endpoint) {
        endpoint.verify.set_learnt(self.learnt.of(endpoint.name.as_str()));
    }
}
