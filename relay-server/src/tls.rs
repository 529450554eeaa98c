//! The public listener's TLS: a certificate chain and key from files, replaced as a whole on reload.

use std::{path::Path, sync::Arc};

use relay_program::tls::provider;
use rustls::{
    ServerConfig, SupportedCipherSuite,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("{path}: {problem}; give a PEM file")]
    File { path: String, problem: String },
    #[error("the certificate and its key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
}

/// Reads a chain (leaf first) and its key, and checks that they fit.
pub(crate) fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |path: &Path, problem: String| TlsError::File { path: path.display().to_string(), problem };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(cert, "there is no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(quick_first()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.ignore_client_order = true;
    // Who comes again has one from the time before; each costs as much as a part of the handshake.
    config.send_tls13_tickets = 1;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Suites of AES-128 and SHA-256 go before those of AES-256 and SHA-384: they are as strong as the key exchange, and
/// processors have instructions for SHA-256 alone. Most of a handshake with the others is hashing.
fn quick_first() -> CryptoProvider {
    let mut provider = CryptoProvider::clone(&provider());
    let is_quick =
        |suite: &SupportedCipherSuite| suite.suite().as_str().is_some_and(|name| name.contains("AES_128_GCM_SHA256"));
    provider.cipher_suites.sort_by_key(|suite| !is_quick(suite));
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_that_costs_least_is_chosen_first() {
        let suites = quick_first().cipher_suites;
        assert_eq!(suites.first().map(|suite| suite.suite()), Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert_eq!(suites.len(), provider().cipher_suites.len());
    }
}
