//! Secrets that a provider told the relay in a handshake, sealed in the store.
//!
//! A secret is kept before the handshake that brought it is answered: a provider signs with it from then on and does not
//! tell it twice. The key stands in a file of its own, so that a copy of the store alone opens nothing. What a store in
//! memory learns ends with it.
//!
//! Invariants: who comes first teaches, and nobody after that until an endpoint's secrets are forgotten, since a challenge
//! proves nothing; a secret is never printed.

use relay_schemes::Secret;
use thiserror::Error;

use super::sealed::SealedValues;
use crate::store::{StoreError, Vault};

/// Largest secret that is taken from a handshake, in bytes.
pub(crate) const MAX_SECRET_BYTES: usize = 1024;

const SCOPE: &str = "learnt";

#[derive(Debug)]
pub(crate) struct LearntSecrets(SealedValues<Secret>);

#[derive(Debug, Error)]
pub(crate) enum LearnError {
    #[error("another secret is known already")]
    Known,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LearntSecrets {
    pub(crate) fn new(vault: Vault) -> Self {
        Self(SealedValues::new(vault, SCOPE, |bytes| Some(Secret::new(bytes))))
    }

    /// Loads the secrets of these endpoints, where that was not done.
    pub(crate) async fn load(&self, endpoints: &[String]) -> Result<(), StoreError> {
        self.0.load(endpoints).await
    }

    pub(crate) fn of(&self, endpoint: &str) -> Option<Secret> {
        self.0.of(endpoint).flatten()
    }

    /// Keeps an endpoint's first secret; when this returns, it is as durable as an event. The same one may come again.
    /// What could not be loaded is not replaced.
    pub(crate) async fn keep(&self, endpoint: &str, secret: Secret) -> Result<(), LearnError> {
        let invalid = |why: &str| LearnError::Store(StoreError::Invalid(why.to_owned()));
        if secret.expose().is_empty() || secret.expose().len() > MAX_SECRET_BYTES {
            return Err(invalid("a secret of this length is not taken from a handshake"));
        }
        let known = match self.0.of(endpoint) {
            Some(Some(known)) => known,
            Some(None) => self.0.keep_first(endpoint, secret.expose()).await?.unwrap_or_else(|| secret.clone()),
            None => return Err(invalid("what this endpoint learnt before could not be read")),
        };
        if known == secret { Ok(()) } else { Err(LearnError::Known) }
    }

    /// Forgets what an endpoint has learnt. It learns anew once it was loaded again.
    pub(crate) async fn forget(&self, endpoint: &str) -> Result<(), StoreError> {
        self.0.forget(endpoint).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use data_encoding::BASE64;

    use super::*;
    use crate::{
        clock::Clock,
        state::StateDir,
        store::{MemoryStore, SqliteOptions, SqliteStore, Store, seal::SealKey},
    };

    const KEY: &str = "sealing.key";

    fn texts(learnt: &LearntSecrets, endpoint: &str) -> Vec<Vec<u8>> {
        learnt.of(endpoint).iter().map(|secret| secret.expose().to_vec()).collect()
    }

    fn learnt(store: &Arc<dyn Store>, state: &StateDir) -> LearntSecrets {
        LearntSecrets::new(Vault::new(
            Arc::clone(store),
            SealKey::open(&state.file(KEY)).expect("a key"),
            Clock::default(),
        ))
    }

    async fn loaded(store: &Arc<dyn Store>, state: &StateDir) -> LearntSecrets {
        let learnt = learnt(store, state);
        learnt.load(&["asana".to_owned()]).await.expect("loads");
        learnt
    }

    #[tokio::test]
    async fn a_secret_survives_and_stands_nowhere_in_clear() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let open = || -> Arc<dyn Store> {
            let options = SqliteOptions { path: state.file("relay.db"), max_bytes: 1 << 30 };
            Arc::new(SqliteStore::open(options).expect("opens"))
        };
        let store = open();
        let first = loaded(&store, &state).await;
        assert!(first.of("asana").is_none());
        first.keep("asana", Secret::new("hunter2 hunter2")).await.unwrap();
        drop((first, store));
        let again = loaded(&open(), &state).await;
        assert_eq!(texts(&again, "asana"), [b"hunter2 hunter2"]);
        let mut left = vec![place.path().to_owned()];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let bytes = std::fs::read(path).unwrap();
            assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
            assert!(!bytes.windows(8).any(|part| part == &BASE64.encode(b"hunter2 hunter2").as_bytes()[..8]));
        }
    }

    #[tokio::test]
    async fn who_comes_first_teaches_and_nobody_after_that() {
        let state = StateDir::throw_away().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20));
        let learnt = loaded(&store, &state).await;
        for bad in [vec![], vec![b'x'; MAX_SECRET_BYTES + 1]] {
            assert!(learnt.keep("asana", Secret::new(bad)).await.is_err());
        }
        let keep = async |learnt: &LearntSecrets, secret: &str| learnt.keep("asana", Secret::new(secret)).await;
        let (one, other) = tokio::join!(keep(&learnt, "1"), keep(&learnt, "2"));
        assert!(one.is_ok() && matches!(other, Err(LearnError::Known)));
        keep(&learnt, "1").await.expect("a provider may say it again");
        let again = loaded(&store, &state).await;
        for learnt in [&learnt, &again] {
            assert!(matches!(keep(learnt, "2").await, Err(LearnError::Known)));
            assert_eq!(texts(learnt, "asana"), [b"1"]);
        }
        learnt.forget("asana").await.unwrap();
        assert!(learnt.of("asana").is_none() && loaded(&store, &state).await.of("asana").is_none());
        assert!(matches!(keep(&learnt, "2").await, Err(LearnError::Store(_))), "it was not loaded since");
        learnt.load(&["asana".to_owned()]).await.unwrap();
        keep(&learnt, "2").await.expect("it begins anew");
        assert_eq!(texts(&learnt, "asana"), [b"2"]);
    }

    #[tokio::test]
    async fn what_another_key_sealed_is_not_lost_by_looking_at_it() {
        let (mine, other) = (StateDir::throw_away().unwrap(), StateDir::throw_away().unwrap());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20));
        loaded(&store, &mine).await.keep("asana", Secret::new("hunter2")).await.unwrap();
        let stranger = loaded(&store, &other).await;
        assert!(stranger.of("asana").is_none() && stranger.keep("asana", Secret::new("mine")).await.is_err());
        assert_eq!(texts(&loaded(&store, &mine).await, "asana"), [b"hunter2"]);
    }
}
