//! Certificates and key sets that were fetched from providers, kept in the store: a relay that starts again needs to ask
//! nobody for what it had, and goes on while a provider's own server is away.
//!
//! Sealed as secrets are, so that a copy of the store that was changed brings no key in. Whether a kept key may be used is
//! for `verify` to say, each time. What cannot be read is fetched again. Invariant: an endpoint's keys are written whole,
//! in one place, one write after the other.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::store::{StoreError, Vault};

/// Where they stand in the store, each list under its endpoint's name.
const SCOPE: &str = "provider keys";

/// Keys with their addresses, the oldest first.
pub(crate) type FetchedKeys = Vec<(String, String)>;

/// The kept keys of the endpoints that were loaded.
#[derive(Debug)]
pub(crate) struct ProviderKeys {
    vault: Vault,
    keys: Mutex<BTreeMap<String, Arc<FetchedKeys>>>,
    turn: tokio::sync::Mutex<()>,
}

impl ProviderKeys {
    pub(crate) fn new(vault: Vault) -> Self {
        Self { vault, keys: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Loads the keys of these endpoints, where that was not done. What was sealed with another key is as if it was not
    /// there.
    pub(crate) async fn load(&self, endpoints: Vec<String>) -> Result<(), StoreError> {
        for endpoint in endpoints {
            if self.keys.lock().contains_key(&endpoint) {
                continue;
            }
            let keys = match self.vault.get(SCOPE, &endpoint).await {
                Ok(text) => text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default(),
                Err(StoreError::Invalid(_)) => FetchedKeys::new(),
                Err(error) => return Err(error),
            };
            self.keys.lock().entry(endpoint).or_insert_with(|| Arc::new(keys));
        }
        Ok(())
    }

    pub(crate) fn of(&self, endpoint: &str) -> Arc<FetchedKeys> {
        self.keys.lock().get(endpoint).cloned().unwrap_or_default()
    }

    /// Keeps what `keys` says when it is this call's turn, if that is something new. If the store cannot, it is good until
    /// the relay stops.
    pub(crate) async fn keep(&self, endpoint: &str, keys: impl FnOnce() -> FetchedKeys) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let keys = keys();
        if *self.of(endpoint) == keys {
            return Ok(());
        }
        let text = serde_json::to_vec(&keys).map_err(|error| StoreError::Internal(error.to_string()))?;
        self.keys.lock().insert(endpoint.to_owned(), Arc::new(keys));
        self.vault.put(SCOPE, endpoint, &text).await
    }

    pub(crate) async fn forget(&self, endpoint: &str) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        self.keys.lock().remove(endpoint);
        self.vault.remove(SCOPE, endpoint).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        state::StateDir,
        store::{MemoryStore, Store, seal::SealKey},
    };

    #[tokio::test]
    async fn what_was_fetched_is_there_after_a_restart_for_its_own_endpoint_alone() {
        let (state, other) = (StateDir::throw_away().expect("a place"), StateDir::throw_away().expect("a place"));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20));
        let open = |state: &StateDir| {
            let key = SealKey::open(&state.file("sealing.key")).expect("a key");
            ProviderKeys::new(Vault::new(Arc::clone(&store), key, Clock::default()))
        };
        let names = || vec!["alarms".to_owned(), "pay".to_owned()];
        let key = |name: &str| (format!("https://keys.example.com/{name}"), "a key".to_owned());
        let first = open(&state);
        first.load(names()).await.expect("loads");
        first.keep("alarms", || vec![key("1")]).await.expect("keeps");
        first.keep("alarms", || vec![key("1"), key("2")]).await.expect("keeps");
        let again = open(&state);
        again.load(names()).await.expect("loads");
        assert_eq!((&*again.of("alarms"), &*again.of("pay")), (&vec![key("1"), key("2")], &vec![]));
        let stranger = open(&other);
        stranger.load(names()).await.expect("another sealing key is no error");
        assert!(stranger.of("alarms").is_empty());
        again.forget("alarms").await.expect("forgets");
        let last = open(&state);
        last.load(names()).await.expect("loads");
        assert!(last.of("alarms").is_empty() && again.of("alarms").is_empty());
    }
}
