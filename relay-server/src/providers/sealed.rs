//! What the store keeps sealed for endpoints, one value for each under one scope, read once and then held.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::store::{StoreError, Vault};

/// The values of the endpoints that were loaded.
#[derive(Debug)]
pub(super) struct SealedValues<T> {
    vault: Vault,
    scope: &'static str,
    read: fn(&[u8]) -> Option<T>,
    values: Mutex<BTreeMap<String, Option<T>>>,
}

impl<T: Clone> SealedValues<T> {
    pub(super) fn new(vault: Vault, scope: &'static str, read: fn(&[u8]) -> Option<T>) -> Self {
        Self { vault, scope, read, values: Mutex::default() }
    }

    /// Loads the values of these endpoints, where that was not done. One that cannot be opened is left where it is: the
    /// right key file makes it good again.
    pub(super) async fn load(&self, endpoints: &[String]) -> Result<(), StoreError> {
        for endpoint in endpoints.iter().filter(|endpoint| self.of(endpoint).is_none()) {
            match self.stored(endpoint).await {
                Ok(value) => drop(self.values.lock().entry(endpoint.clone()).or_insert(value)),
                Err(StoreError::Invalid(why)) => {
                    tracing::error!(endpoint, why, "what a provider gave to the relay cannot be opened");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn stored(&self, endpoint: &str) -> Result<Option<T>, StoreError> {
        Ok(self.vault.get(self.scope, endpoint).await?.and_then(|bytes| (self.read)(&bytes)))
    }

    /// An endpoint's value; `None` where it was not loaded.
    pub(super) fn of(&self, endpoint: &str) -> Option<Option<T>> {
        self.values.lock().get(endpoint).cloned()
    }

    /// Keeps a value. If the store cannot, it is good until the relay stops.
    pub(super) async fn keep(&self, endpoint: &str, value: T, bytes: &[u8]) -> Result<(), StoreError> {
        self.values.lock().insert(endpoint.to_owned(), Some(value));
        self.vault.put(self.scope, endpoint, bytes).await
    }

    /// Keeps a value where there is none. Of two that come at once the store takes one; gives the value that is there.
    pub(super) async fn keep_first(&self, endpoint: &str, bytes: &[u8]) -> Result<Option<T>, StoreError> {
        let is_first = self.vault.put_first(self.scope, endpoint, bytes).await?;
        let value = if is_first { (self.read)(bytes) } else { self.stored(endpoint).await? };
        self.values.lock().insert(endpoint.to_owned(), value.clone());
        Ok(value)
    }

    pub(super) async fn forget(&self, endpoint: &str) -> Result<(), StoreError> {
        self.vault.remove(self.scope, endpoint).await?;
        self.values.lock().remove(endpoint);
        Ok(())
    }
}
