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
    /// The secrets of this store.
    pub(crate) fn new(store: Arc<dyn Store>, key: SealKey, clock: Clock) -> Self {
        Self { store, key: Arc::new(key), clock }
    }

    /// Keeps a secret; it is durable as an event is.
    ///
    /// # Errors
    /// As [`Store::put_secret`].
    pub async fn put(&self, scope: &str, name: &str, secret: &[u8]) -> Result<(), StoreError> {
        let sealed = self.key.seal(scope, name, secret)?;
        self.store.put_secret(scope.to_owned(), name.to_owned(), Some(sealed), Was::Anything, self.clock.now()).await?;
        Ok(())
    }

    /// Keeps a secret where there is none; says whether it did.
    ///
    /// # Errors
    /// As [`Store::put_secret`].
    pub(crate) async fn put_first(&self, scope: &str, name: &str, secret: &[u8]) -> Result<bool, StoreError> {
        let sealed = self.key.seal(scope, name, secret)?;
        self.store.put_secret(scope.to_owned(), name.to_owned(), Some(sealed), Was::Nothing, self.clock.now()).await
    }

    /// A secret, if there is one.
    ///
    /// # Errors
    /// As [`Store::secret`]; [`StoreError::Invalid`] if it was sealed with another key.
    pub async fn get(&self, scope: &str, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let sealed = self.store.secret(scope.to_owned(), name.to_owned()).await?;
        sealed.map(|sealed| self.key.unseal(scope, name, &sealed)).transpose()
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// As [`Store::put_secret`].
    pub async fn remove(&self, scope: &str, name: &str) -> Result<(), StoreError> {
        self.store.put_secret(scope.to_owned(), name.to_owned(), None, Was::Anything, self.clock.now()).await?;
        Ok(())
    }
}
