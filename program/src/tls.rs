//! TLS towards others: which certificates the programs believe.
//!
//! Builds client configurations and loads root certificates. It opens no connection and keeps no session; the
//! caller decides when a configuration is rebuilt.
//!
//! A certificate that a file names is believed where a server shows exactly it, as curl does: `openssl req -x509` makes
//! one that is a CA's, which may otherwise sign others but not serve.
//!
//! Invariants: the crypto provider is passed explicitly, never looked up in the process; ALPN offers HTTP/1.1
//! alone; verification is skipped only through [`Trust::DangerousAnything`]. Whatever certificate is believed, its
//! names, its dates and the handshake's signature are checked.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, NamedGroup, OtherError, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    #[default]
    Platform,
    /// Those of the system, and those signed by the certificates in a PEM file.
    PlatformAnd(PathBuf),
    /// Any at all. Whoever sits on the way can read and answer.
    DangerousAnything,
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("the system's root certificates cannot be used: {0}; install them (ca-certificates) or name a CA file")]
    Platform(Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(Error),
}

/// The files of a certificate that a program shows of itself, and of its key. PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The one crypto provider of this program. The key exchange that a quantum computer cannot undo goes first.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    Arc::new(provider)
}

/// A client configuration for TLS 1.2 and 1.3 that offers HTTP/1.1. Reads the system's roots anew each time.
pub fn client_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    client_config_as(None, trust)
}

/// The same, with a certificate of one's own to show.
pub fn client_config_as(identity: Option<&Identity>, trust: &Trust) -> Result<ClientConfig, TrustError> {
    let provider = provider();
    let verifier = match trust {
        Trust::Platform => Verifier::trusting(Vec::new(), Arc::clone(&provider))?,
        Trust::PlatformAnd(file) => Verifier::trusting(certificates(file)?, Arc::clone(&provider))?,
        Trust::DangerousAnything => Verifier { provider: Arc::clone(&provider), trusted: None },
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let wrong = |path: &Path, reason: String| TrustError::File { path: path.to_owned(), reason };
            let chain = certificates(cert)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
            let fits = config.with_client_auth_cert(chain, private);
            fits.map_err(|error| wrong(key, format!("it does not go with {}: {error}", cert.display())))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What the other side has against the certificate that was shown, or not shown. Under TLS 1.3 that is known only once the
/// handshake is over.
pub fn identity_reason(error: &io::Error) -> Option<&'static str> {
    use rustls::AlertDescription as Alert;
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(Alert::CertificateRequired) => {
            Some("it asks for a client certificate; give --client-cert and --client-key")
        }
        Error::AlertReceived(
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::DecryptError,
        ) => Some("it does not believe the client certificate"),
        Error::AlertReceived(Alert::CertificateExpired) => Some("the client certificate has expired"),
        Error::AlertReceived(Alert::CertificateRevoked) => Some("the client certificate was revoked"),
        _ => None,
    }
}

/// What went wrong in a handshake, in words; `remedy` says how to trust an unknown issuer.
pub fn handshake_reason(error: &io::Error, remedy: &str) -> String {
    use rustls::CertificateError as Bad;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return format!("TLS handshake failed: {}", crate::reason::of_io(error));
    };
    let bad = match error {
        Error::InvalidCertificate(bad) => bad,
        Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            return "it asks for a client certificate; give --client-cert and --client-key".to_owned();
        }
        Error::InvalidMessage(_) => return "it does not speak TLS on this port".to_owned(),
        other => return format!("TLS handshake failed: {other}"),
    };
    match bad {
        Bad::UnknownIssuer | Bad::BadSignature => format!("its certificate is signed by an unknown issuer; {remedy}"),
        Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "its certificate is not valid yet; look at this machine's clock".to_owned()
        }
        Bad::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!("its certificate names no host (it has no subjectAltName); {RIGHT_ONE}")
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "its certificate is for another name".to_owned(),
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            format!("its certificate is not one for servers; {RIGHT_ONE}")
        }
        Bad::Other(other) if other.0.is::<Unfit>() => match other.0.downcast_ref() {
            Some(Unfit::OldVersion) => format!("its certificate is of an old version, without names; {RIGHT_ONE}"),
            _ => format!(
                "its certificate is a CA's (CA:TRUE), which may sign others but serves only where exactly it is \
                 named; {remedy}, or {RIGHT_ONE}"
            ),
        },
        _ => format!("TLS handshake failed: {error}"),
    }
}

/// How a certificate is made that every program takes.
const RIGHT_ONE: &str = "make one with: openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout key.pem -out cert.pem \
     -subj /CN=HOST -addext subjectAltName=DNS:HOST -addext basicConstraints=critical,CA:FALSE (for an address, \
     IP:ADDRESS in place of DNS:HOST)";

/// What the library's errors do not tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    /// And not one that is believed by itself.
    #[error("a CA's certificate is shown by a server")]
    IsCa,
    /// X.509 before version 3 has no names of hosts.
    #[error("a certificate before X.509 v3")]
    OldVersion,
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Without it every certificate is believed: the user asked for that by name, for a target of theirs.
    trusted: Option<Trusted>,
}

/// What the system believes, what the named certificates have signed, and these themselves.
#[derive(Debug)]
struct Trusted {
    platform: rustls_platform_verifier::Verifier,
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn trusting(named: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let platform = rustls_platform_verifier::Verifier::new_with_extra_roots(named.clone(), Arc::clone(&provider));
        let trusted = Some(Trusted { platform: platform.map_err(TrustError::Platform)?, named });
        Ok(Self { provider, trusted })
    }
}

/// Whether a certificate that is believed by itself is for this server, now. It needs no issuer.
fn fits(certificate: &CertificateDer<'_>, server: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |why| Err(Error::InvalidCertificate(why));
    let (_, read) =
        X509Certificate::from_der(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < read.validity().not_before.timestamp() {
        return bad(CertificateError::NotValidYet);
    }
    if now > read.validity().not_after.timestamp() {
        return bad(CertificateError::Expired);
    }
    let purposes = read.extended_key_usage().map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    if purposes.is_some_and(|purposes| !(purposes.value.server_auth || purposes.value.any)) {
        return bad(CertificateError::InvalidPurpose);
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server)
}

/// The error with what is known of the certificate that it is about.
fn told_apart(error: Error, certificate: &CertificateDer<'_>) -> Error {
    use CertificateError::{BadEncoding, Other};
    if !matches!(error, Error::InvalidCertificate(Other(_) | BadEncoding)) {
        return error;
    }
    let unfit = match X509Certificate::from_der(certificate) {
        Ok((_, read)) if read.version() != X509Version::V3 => Unfit::OldVersion,
        Ok((_, read)) if read.is_ca() => Unfit::IsCa,
        _ => return error,
    };
    Error::InvalidCertificate(Other(OtherError(Arc::new(unfit))))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(Trusted { platform, named }) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified = if named.iter().any(|named| named == end_entity) {
            fits(end_entity, server_name, now).map(|()| ServerCertVerified::assertion())
        } else {
            platform.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        verified.map_err(|error| told_apart(error, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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

    /// A certificate, and what believing exactly it, or only the system's, says of it at `localhost`.
    fn judged(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (Result<(), String>, Result<(), String>) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let verify = |named: Vec<CertificateDer<'static>>| {
            let verifier = Verifier::trusting(named, provider()).unwrap();
            let server = ServerName::try_from("localhost").unwrap();
            let verified = verifier.verify_server_cert(&certificate, &[], &server, &[], UnixTime::now());
            let words = |error| handshake_reason(&io::Error::other(error), "trust it with --relay-ca");
            verified.map(drop).map_err(words)
        };
        (verify(vec![certificate.clone()]), verify(vec![]))
    }

    #[test]
    fn exactly_the_certificate_that_is_named_may_serve_though_it_is_a_cas() {
        let ca = |params: &mut rcgen::CertificateParams| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        };
        let (named, unnamed) = judged(ca);
        assert_eq!(named, Ok(()));
        let words = unnamed.unwrap_err();
        assert!(words.contains("CA:TRUE") && words.contains("trust it with --relay-ca"), "{words}");
        assert!(words.contains("basicConstraints=critical,CA:FALSE"), "{words}");
        let (named, unnamed) = judged(|_| {});
        assert_eq!(named, Ok(()));
        assert!(unnamed.unwrap_err().contains("unknown issuer"));

        // What is named is still for its own names, dates and purpose alone.
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        for (words, change) in [
            (
                "another name",
                Box::new(|params: &mut rcgen::CertificateParams| {
                    params.subject_alt_names = vec![rcgen::SanType::DnsName("other.test".try_into().unwrap())];
                }) as Box<dyn FnOnce(&mut rcgen::CertificateParams)>,
            ),
            ("no subjectAltName", Box::new(|params| params.subject_alt_names.clear())),
            ("has expired", Box::new(move |params| params.not_after = year(2001))),
            ("not valid yet", Box::new(move |params| params.not_before = year(4000))),
            (
                "not one for servers",
                Box::new(|params| {
                    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
                }),
            ),
        ] {
            let (named, _) = judged(|params| {
                ca(params);
                change(params);
            });
            let said = named.unwrap_err();
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn a_named_ca_serves_only_itself_and_what_it_signed() {
        let ca = |name: &str| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let (mine, others) = (ca("mine"), ca("mine"));
        let verifier = Verifier::trusting(vec![mine], provider()).unwrap();
        let server = ServerName::try_from("localhost").unwrap();
        assert!(verifier.verify_server_cert(&others, &[], &server, &[], UnixTime::now()).is_err());
    }

    #[test]
    fn the_key_exchange_that_outlasts_quantum_computers_goes_first() {
        let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768));
        assert!(groups.contains(&NamedGroup::X25519) && groups.contains(&NamedGroup::secp256r1), "{groups:?}");
    }

    #[test]
    fn a_certificate_of_ones_own_goes_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let (one, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let params = rcgen::CertificateParams::new(vec!["agent".to_owned()]).unwrap();
        let cert = file("cert.pem", params.self_signed(&one).unwrap().pem());
        let identity = Identity { cert, key: file("key.pem", one.serialize_pem()) };
        assert!(client_config_as(Some(&identity), &Trust::DangerousAnything).is_ok());
        let wrong = Identity { key: file("other.pem", other.serialize_pem()), ..identity.clone() };
        let error = client_config_as(Some(&wrong), &Trust::DangerousAnything).unwrap_err().to_string();
        assert!(error.contains("other.pem: it does not go with") && error.contains("cert.pem"), "{error}");
        let missing = Identity { key: folder.path().join("none.pem"), ..identity };
        assert!(client_config_as(Some(&missing), &Trust::DangerousAnything).is_err());
    }

    #[test]
    fn only_http_1_1_is_offered() {
        let config = client_config(&Trust::DangerousAnything).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
    }
}
