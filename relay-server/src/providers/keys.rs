//! Certificates and key sets that were fetched from providers, kept in the store: a relay that starts again needs to ask
//! nobody for what it had, and goes on while a provider's own server is away.
//!
//! Sealed as secrets are, so that a copy of the store that was changed brings no key in. Whether a kept key may be used is
//! for `verify` to say, each time. What cannot be read is fetched again. Invariant: an endpoint's keys are written whole,
//! in one place, one write after the other.

use super::sealed::SealedValues;
use crate::store::{StoreError, Vault};

const SCOPE: &str = "provider keys";

/// Keys with their addresses, the oldest first.
pub(crate) type FetchedKeys = Vec<(String, String)>;

#[derive(Debug)]
pub(crate) struct ProviderKeys {
    keys: SealedValues<FetchedKeys>,
    turn: tokio::sync::Mutex<()>,
}

impl ProviderKeys {
    pub(crate) fn new(vault: Vault) -> Self {
        let keys = SealedValues::new(vault, SCOPE, |bytes| serde_json::from_slice(bytes).ok());
        Self { keys, turn: tokio::sync::Mutex::default() }
    }

    /// Loads the keys of these endpoints, where that was not done.
    pub(crate) async fn load(&self, endpoints: &[String]) -> Result<(), StoreError> {
        self.keys.load(endpoints).await
    }

    pub(crate) fn of(&self, endpoint: &str) -> FetchedKeys {
        self.keys.of(endpoint).flatten().unwrap_or_default()
    }

    /// Keeps what `keys` says when it is this call's turn, if that is something new.
    pub(crate) async fn keep(&self, endpoint: &str, keys: impl FnOnce() -> FetchedKeys) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let keys = keys();
        if self.of(endpoint) == keys {
            return Ok(());
        }
        let text = serde_json::to_vec(&keys).map_err(|error| StoreError::Internal(error.to_string()))?;
        self.keys.keep(endpoint, keys, &text).await
    }

    pub(crate) async fn forget(&self, endpoint: &str) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        self.keys.forget(endpoint).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        let names = &["alarms".to_owned(), "pay".to_owned()];
        let key = |name: &str| (format!("https://keys.example.com/{name}"), "a key".to_owned());
        let first = open(&state);
        first.load(names).await.expect("loads");
        first.keep("alarms", || vec![key("1")]).await.expect("keeps");
        first.keep("alarms", || vec![key("1"), key("2")]).await.expect("keeps");
        let again = open(&state);
        again.load(names).await.expect("loads");
        assert_eq!((again.of("alarms"), again.of("pay")), (vec![key("1"), key("2")], vec![]));
        let stranger = open(&other);
        stranger.load(names).await.expect("another sealing key is no error");
        assert!(stranger.of("alarms").is_empty());
        again.forget("alarms").await.expect("forgets");
        let last = open(&state);
        last.load(names).await.expect("loads");
        assert!(last.of("alarms").is_empty() && again.of("alarms").is_empty());
    }
}
