//! What is kept of ACME in the store, sealed, one row each: accounts, certificates, and how often orders failed.
//!
//! A row that cannot be opened, because its key was lost, is as if it were not there: the CA gives another. Nothing of
//! these rows is ever printed.

use instant_acme::AccountCredentials;
use zeroize::Zeroizing;

use super::{certificate::Issued, plan::FailedOrders};
use crate::{
    config::AcmeSettings,
    store::{StoreError, Vault},
};

const SCOPE: &str = "acme";

#[derive(Clone, Debug)]
pub(super) struct Keeping(pub Vault);

impl Keeping {
    /// The account at the CA that these settings name.
    pub(super) async fn account(&self, settings: &AcmeSettings) -> Result<Option<AccountCredentials>, StoreError> {
        let bytes = self.read(&account_row(settings)).await?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub(super) async fn keep_account(
        &self,
        settings: &AcmeSettings,
        account: &AccountCredentials,
    ) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(account).map_err(|error| StoreError::Internal(error.to_string()))?;
        self.0.put(SCOPE, &account_row(settings), &Zeroizing::new(bytes)).await
    }

    pub(super) async fn forget_account(&self, settings: &AcmeSettings) -> Result<(), StoreError> {
        self.0.remove(SCOPE, &account_row(settings)).await
    }

    pub(super) async fn certificate(&self, domain: &str) -> Result<Option<Issued>, StoreError> {
        let bytes = self.read(&certificate_row(domain)).await?;
        Ok(bytes.and_then(|bytes| Issued::decode(&bytes)))
    }

    pub(super) async fn keep_certificate(&self, domain: &str, issued: &Issued) -> Result<(), StoreError> {
        self.0.put(SCOPE, &certificate_row(domain), &issued.encode()).await
    }

    pub(super) async fn failed(&self, domain: &str) -> Result<Option<FailedOrders>, StoreError> {
        let bytes = self.read(&failed_row(domain)).await?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub(super) async fn keep_failed(&self, domain: &str, failed: Option<&FailedOrders>) -> Result<(), StoreError> {
        let Some(failed) = failed else { return self.0.remove(SCOPE, &failed_row(domain)).await };
        let bytes = serde_json::to_vec(failed).map_err(|error| StoreError::Internal(error.to_string()))?;
        self.0.put(SCOPE, &failed_row(domain), &bytes).await
    }

    async fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        match self.0.get(SCOPE, name).await {
            Err(StoreError::Invalid(why)) => {
                tracing::warn!("{why}; it is made anew");
                Ok(None)
            }
            read => read,
        }
    }
}

/// One for each CA, and for each account there that it is bound to.
fn account_row(settings: &AcmeSettings) -> String {
    let kid = settings.eab.as_ref().map_or("", |eab| &eab.kid);
    format!("account {} {kid}", settings.directory)
}

fn certificate_row(domain: &str) -> String {
    format!("certificate {domain}")
}

fn failed_row(domain: &str) -> String {
    format!("failed {domain}")
}
