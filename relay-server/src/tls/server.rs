//! The settings of handshakes, and which of them a hello gets.

use std::{net::IpAddr, sync::Arc};

use relay_program::tls::provider;
use rustls::{
    ServerConfig, SupportedCipherSuite,
    crypto::{CryptoProvider, aws_lc_rs::Ticketer},
    server::{ClientHello, ResolvesServerCert},
    sign::SingleCertAndKey,
};

use super::{
    certificate::{Certificate, CertificateFiles, CertificateSource, TlsError},
    certificates::Certificates,
    challenges::{ACME_TLS, Challenges},
};

/// What a hello is answered with.
#[derive(Debug)]
pub(crate) enum HelloAnswer {
    /// HTTP follows.
    Serve(Arc<ServerConfig>),
    /// The proof that an authority asks for, and then the end.
    Prove(Arc<ServerConfig>),
    /// Somebody asks for a proof that nobody offers.
    Nothing,
}

pub(crate) struct TlsServer {
    pub certificates: Arc<Certificates>,
    pub challenges: Arc<Challenges>,
    /// With HTTP/2 offered, and without.
    h2: Arc<ServerConfig>,
    h1: Arc<ServerConfig>,
}

impl TlsServer {
    /// Has no certificate yet.
    pub(crate) fn new() -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates::default());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&certificates) as _;
        let mut config = ServerConfig::builder_with_provider(Arc::new(quick_first()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ignore_client_order = true;
        // Whoever comes again shows what it got, and the relay remembers nobody. The key to it changes every six hours.
        config.ticketer = Ticketer::new()?;
        // Who comes again has one from the time before; each costs as much as a part of the handshake.
        config.send_tls13_tickets = 1;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut h2 = config.clone();
        h2.alpn_protocols.insert(0, b"h2".to_vec());
        let challenges = Arc::default();
        Ok(Self { certificates, challenges, h2: Arc::new(h2), h1: Arc::new(config) })
    }

    /// Reads certificates, to be taken over as a whole. One that has expired is not taken in the place of another; where
    /// there is none yet, it is better than nothing.
    pub(crate) fn read(&self, files: &[CertificateFiles], now: jiff::Timestamp) -> Result<Vec<Certificate>, TlsError> {
        let served = self.certificates.of(CertificateSource::File);
        let read = |files: &CertificateFiles| {
            let certificate = Certificate::read(files)?;
            let is_new = !served.is_empty() && !served.iter().any(|one| one.is_same(&certificate));
            if is_new && certificate.not_after <= now {
                let (cert, expired) = (files.cert.display().to_string(), certificate.not_after);
                return Err(TlsError::Expired { cert, expired });
            }
            Ok(certificate)
        };
        files.iter().map(read).collect()
    }

    /// What this hello gets that came to this address, over HTTP/2 if that `may` be.
    pub(crate) fn answer(&self, hello: &ClientHello<'_>, local: Option<IpAddr>, may_h2: bool) -> HelloAnswer {
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME_TLS)) {
            let proof = hello.server_name().and_then(|name| self.challenges.alpn(name));
            return proof.map_or(HelloAnswer::Nothing, HelloAnswer::Prove);
        }
        let config = if may_h2 { &self.h2 } else { &self.h1 };
        let unnamed = local.filter(|_| hello.server_name().is_none());
        match unnamed.and_then(|local| self.certificates.for_address(local, hello.signature_schemes())) {
            Some(key) => {
                let mut config = ServerConfig::clone(config);
                config.cert_resolver = Arc::new(SingleCertAndKey::from(key));
                HelloAnswer::Serve(Arc::new(config))
            }
            None => HelloAnswer::Serve(Arc::clone(config)),
        }
    }
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
