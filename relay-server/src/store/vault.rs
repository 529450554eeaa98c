//! Secrets in a store: sealed on their way in, opened on their way out.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use super::{Store, StoreError, Was, seal::SealKey};
use crate::clock::Clock;

/// A store and the key to its secrets.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn Store>,
    key: Arc<SealKey>,
    clock: Clock,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    pub(crate) fn new(store: Arc<dyn Store>, key: SealKey, clock: Clock) -> Self {
        Self { store, key: Arc::new(key), clock }
    }

    /// Keeps a secret; it is durable as an event is.
    pub async fn put(&self, scope: &str, name: &str, secret: &[u8]) -> Result<(), StoreError> {
        self.store(scope, name, Some(secret), Was::Anything).await.map(drop)
    }

    /// Keeps a secret where there is none; says whether it did.
    pub(crate) async fn put_first(&self, scope: &str, name: &str, secret: &[u8]) -> Result<bool, StoreError> {
        self.store(scope, name, Some(secret), Was::Nothing).await
    }

    pub async fn remove(&self, scope: &str, name: &str) -> Result<(), StoreError> {
        self.store(scope, name, None, Was::Anything).await.map(drop)
    }

    async fn store(&self, scope: &str, name: &str, secret: Option<&[u8]>, was: Was) -> Result<bool, StoreError> {
        let sealed = secret.map(|secret| self.key.seal(scope, name, secret)).transpose()?;
        self.store.put_secret(scope.to_owned(), name.to_owned(), sealed, was, self.clock.now()).await
    }

    /// A secret; an error, too, if it was sealed with another key.
    pub async fn get(&self, scope: &str, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let sealed = self.store.secret(scope.to_owned(), name.to_owned()).await?;
        sealed.map(|sealed| self.key.unseal(scope, name, &sealed)).transpose()
    }
}
