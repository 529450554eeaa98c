//! A certificate with its key, checked: both belong together, and its names and dates can be read.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use relay_program::tls::provider;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("{path}: {problem}; give a PEM file")]
    File { path: String, problem: String },
    #[error("{cert} and {key} cannot be used together: {error}")]
    Pair { cert: String, key: String, error: rustls::Error },
    #[error("{cert}: it expired at {expired:.0}; the one from before stays in use until it is renewed")]
    Expired { cert: String, expired: Timestamp },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Where a certificate comes from. Where two have the same name, that of the earlier kind is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CertificateSource {
    File,
    /// An authority gave it to this relay.
    Acme,
    /// The relay made and signed it itself, for as long as there is no other.
    StandIn,
}

impl CertificateSource {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Acme => "acme",
            Self::StandIn => "stand-in",
        }
    }
}

/// The files of a certificate: its chain, leaf first, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Certificate {
    pub source: CertificateSource,
    /// The hosts that it is for, lower case; one such as `*.example.com` is for those with one label more.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub key: Arc<CertifiedKey>,
}

impl Certificate {
    /// A chain, leaf first, and the leaf's key.
    pub(crate) fn new(
        source: CertificateSource,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let key = CertifiedKey::from_der(chain, key, &provider())?;
        let CertificateFacts { names, addresses, not_before, not_after } = facts(key.end_entity_cert()?)?;
        Ok(Self { source, names, addresses, not_before, not_after, key: Arc::new(key) })
    }

    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        let shown = |path: &Path| path.display().to_string();
        let wrong = |path: &Path, problem: String| TlsError::File { path: shown(path), problem };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(&files.cert, error.to_string()))?;
        if chain.is_empty() {
            return Err(wrong(&files.cert, "there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error.to_string()))?;
        let (cert, key_file) = (shown(&files.cert), shown(&files.key));
        Self::new(CertificateSource::File, chain, key).map_err(|error| TlsError::Pair { cert, key: key_file, error })
    }

    /// What it is called where there is room for one name.
    pub(crate) fn name(&self) -> String {
        let address = || self.addresses.first().map(ToString::to_string);
        self.names.first().cloned().or_else(address).unwrap_or_else(|| "unnamed".to_owned())
    }

    /// Whether both are the same certificate.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.key.cert.first() == other.key.cert.first()
    }
}

/// What stands in a certificate.
struct CertificateFacts {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    not_before: Timestamp,
    not_after: Timestamp,
}

fn facts(leaf: &[u8]) -> Result<CertificateFacts, rustls::Error> {
    let bad = |_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(bad)?;
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let also = leaf.subject_alternative_name().ok().flatten();
    for name in also.into_iter().flat_map(|also| &also.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    let not_before = Timestamp::from_second(leaf.validity().not_before.timestamp()).unwrap_or(Timestamp::MIN);
    let not_after = Timestamp::from_second(leaf.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX);
    Ok(CertificateFacts { names, addresses, not_before, not_after })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(v6)
}
