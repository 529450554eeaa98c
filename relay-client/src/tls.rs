//! TLS towards others: which certificates the agent believes, for the relay and for `https` handlers.
//!
//! Builds client configurations and loads root certificates. It opens no connection and keeps no session; the
//! caller decides when a configuration is rebuilt.
//!
//! Invariants: the crypto provider is passed explicitly, never looked up in the process; ALPN offers HTTP/1.1
//! alone; verification is skipped only through the type [`DangerousAcceptAny`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the system.
    #[default]
    Platform,
    /// Those of the system, and those signed by the certificates in a PEM file.
    PlatformAnd(PathBuf),
    /// Any at all. Whoever sits on the way can read and answer.
    DangerousAnything,
}

/// Why no TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file with extra roots cannot be read or holds no certificate.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file as it was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no usable roots.
    #[error("the system's root certificates cannot be used: {0}; install them (ca-certificates) or name a CA file")]
    Platform(Error),
    /// The library refuses its own settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(Error),
}

/// The one crypto provider of this program.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client configuration for TLS 1.2 and 1.3 that offers HTTP/1.1. Reads the system's roots anew each time.
pub fn client_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Platform => Arc::new(platform_verifier(Vec::new(), &provider)?),
        Trust::PlatformAnd(file) => Arc::new(platform_verifier(certificates(file)?, &provider)?),
        Trust::DangerousAnything => Arc::new(DangerousAcceptAny { provider: Arc::clone(&provider) }),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What went wrong in a handshake, in words; `remedy` says how to trust an unknown issuer.
#[must_use]
pub fn handshake_reason(error: &io::Error, remedy: &str) -> String {
    use rustls::CertificateError as Bad;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return format!("TLS handshake failed: {}", crate::reason::of_io(error));
    };
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            format!("its certificate is signed by an unknown issuer; {remedy}")
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another name".to_owned()
        }
        Error::InvalidMessage(_) => "it does not speak TLS on this port".to_owned(),
        other => format!("TLS handshake failed: {other}"),
    }
}

fn platform_verifier(
    extra: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<rustls_platform_verifier::Verifier, TrustError> {
    rustls_platform_verifier::Verifier::new_with_extra_roots(extra, Arc::clone(provider)).map_err(TrustError::Platform)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let wrong = |reason: String| TrustError::File { path: path.to_owned(), reason };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    match found {
        Ok(list) if list.is_empty() => Err(wrong("holds no PEM certificate".to_owned())),
        Ok(list) => Ok(list),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Believes every certificate. The user asked for it by name, for a target of theirs.
#[derive(Debug)]
struct DangerousAcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for DangerousAcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A certificate for `localhost`, and the root that signed it.

    use super::*;

    /// A server's configuration, and a PEM file with its root.
    pub(crate) fn server() -> (Arc<rustls::ServerConfig>, tempfile::NamedTempFile) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = ca.self_signed(&ca_key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), root.pem()).unwrap();

        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        (Arc::new(config), file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = client_config(&Trust::PlatformAnd(file.path().to_owned())).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: holds no PEM certificate", file.path().display()));
        assert!(client_config(&Trust::PlatformAnd("/nowhere.pem".into())).is_err());
    }

    #[test]
    fn only_http_1_1_is_offered() {
        let config = client_config(&Trust::DangerousAnything).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
    }
}
