//! Certificates that the relay gets by itself from a certification authority (ACME, RFC 8555).
//!
//! One certificate for each domain, so that a domain that leads elsewhere leaves the others theirs; one order at a time.
//! What is kept in the store is served from the start on, and nothing is ordered while it is good. A domain without a
//! certificate has a stand-in that nobody believes, and [`Acme::missing`] names it. `plan` decides when something is to
//! be done, `order` does it.
//!
//! Invariants: a key, an account and a key authorization are never logged; a certificate is kept before it is served; one
//! that is served gives way only to another that was issued.

mod certificate;
mod client;
mod fault;
mod hook;
mod keeping;
mod order;
mod plan;
mod task;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use self::task::AcmeTask;
use crate::{clock::wall, config::AcmeSettings, store::Vault, tls::TlsServer};

/// A domain whose senders are refused by their own TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingCertificate {
    pub domain: String,
    /// Why the last order failed, if one has.
    pub why: Option<String>,
    pub retry_at: Option<Timestamp>,
}

/// What the machine's clock says: others judge certificates by theirs.
type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// What others see and say of it.
pub(crate) struct Acme {
    settings: watch::Sender<Option<Arc<AcmeSettings>>>,
    missing: Mutex<BTreeMap<String, MissingCertificate>>,
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acme")
    }
}

impl Acme {
    /// Puts what is kept in the store into use. The rest is done by the task.
    pub(crate) async fn build(
        settings: Option<Arc<AcmeSettings>>,
        vault: Vault,
        tls: &TlsServer,
    ) -> (Arc<Self>, AcmeTask) {
        Self::build_by(Box::new(wall), settings, vault, tls).await
    }

    /// By another clock.
    async fn build_by(
        now: Now,
        settings: Option<Arc<AcmeSettings>>,
        vault: Vault,
        tls: &TlsServer,
    ) -> (Arc<Self>, AcmeTask) {
        let (settings, changes) = watch::channel(settings);
        let acme = Arc::new(Self { settings, missing: Mutex::default() });
        let task = AcmeTask::begin(Arc::clone(&acme), changes, vault, tls, now).await;
        (acme, task)
    }

    /// From now on these domains are looked after. Somebody did something, so what failed is tried again soon.
    pub(crate) fn set(&self, settings: Option<Arc<AcmeSettings>>) {
        self.settings.send_replace(settings);
    }

    /// The domains that have no certificate which their senders believe.
    pub(crate) fn missing(&self) -> Vec<MissingCertificate> {
        self.missing.lock().values().cloned().collect()
    }
}
