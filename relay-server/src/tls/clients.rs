//! Those who have to show a certificate: at hosts or listeners of their own, since a handshake knows of no path.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use relay_program::tls::provider;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
    server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    certificate::TlsError,
    certificates::Certificates,
    server::{Offer, settings},
};

/// Largest number of certificates in a bundle of authorities.
const MAX_AUTHORITIES: usize = 1000;

/// Who signs for some clients, and at which hosts they have to show that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    pub name: Arc<str>,
    /// The authorities that sign for them.
    pub ca: PathBuf,
    /// Certificates that count no more.
    pub crl: Option<PathBuf>,
    pub hosts: Vec<Arc<str>>,
}

/// Clients that have to show a certificate.
pub(super) struct Clients {
    pub(super) name: Arc<str>,
    pub(super) offer: Offer,
}

/// All of them.
#[derive(Default)]
pub(super) struct ClientGroups {
    pub(super) by_name: HashMap<Arc<str>, Arc<Clients>>,
    pub(super) by_host: HashMap<Arc<str>, Arc<Clients>>,
}

impl ClientGroups {
    pub(super) fn read(all: &[ClientFiles], certificates: &Arc<Certificates>) -> Result<Self, TlsError> {
        let mut groups = Self::default();
        for files in all {
            let resolver: Arc<dyn ResolvesServerCert> = Arc::<Certificates>::clone(certificates);
            let mut config = settings(verifier(files)?, resolver)?;
            // What is resumed is not verified again: whoever was taken off since then would stay.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            let clients = Arc::new(Clients { name: Arc::clone(&files.name), offer: Offer::new(config) });
            groups.by_name.insert(Arc::clone(&files.name), Arc::clone(&clients));
            for host in &files.hosts {
                groups.by_host.insert(Arc::clone(host), Arc::clone(&clients));
            }
        }
        Ok(groups)
    }
}

fn verifier(files: &ClientFiles) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let wrong = |path: &Path, problem: String| TlsError::File { path: path.display().to_string(), problem };
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.ca)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(&files.ca, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    if found.is_empty() || found.len() > MAX_AUTHORITIES {
        return Err(wrong(&files.ca, format!("there are {} certificates in it", found.len())));
    }
    for authority in found {
        roots.add(authority).map_err(|error| wrong(&files.ca, error.to_string()))?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(crl) = &files.crl {
        let lists: Vec<CertificateRevocationListDer<'static>> = CertificateRevocationListDer::pem_file_iter(crl)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(crl, error.to_string()))?;
        if lists.is_empty() {
            return Err(wrong(crl, "there is no revocation list in it".to_owned()));
        }
        verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
    }
    verifier.build().map_err(|error| wrong(files.crl.as_ref().unwrap_or(&files.ca), error.to_string()))
}
