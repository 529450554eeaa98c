//! The settings of handshakes, which of them a hello gets, and the files that they are made of.

use std::{fs, net::IpAddr, path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use relay_program::tls::provider;
use rustls::{
    ServerConfig, SupportedCipherSuite,
    crypto::{CryptoProvider, aws_lc_rs::Ticketer},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};

use super::{
    certificate::{Certificate, CertificateFiles, CertificateSource, TlsError},
    certificates::{Certificates, plain},
    challenges::{ACME_TLS, Challenges},
    clients::{ClientFiles, ClientGroups},
};

/// The files that the public side's TLS is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The one for names that none is for stands first.
    pub certificates: Vec<CertificateFiles>,
    pub clients: Vec<ClientFiles>,
}

/// What was read of them, to be taken over as a whole.
pub(crate) struct ReadFiles {
    files: TlsFiles,
    stamps: Vec<Stamp>,
    certificates: Vec<Certificate>,
    groups: ClientGroups,
}

/// When a file was written, and how long it is, if it is there.
type Stamp = Option<(SystemTime, u64)>;

/// Where a hello came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HelloPlace<'a> {
    /// The address that was asked for.
    pub local: Option<IpAddr>,
    /// The clients that a listener is for alone.
    pub clients: Option<&'a str>,
    pub may_h2: bool,
}

/// What a hello is answered with.
pub(crate) enum HelloAnswer {
    /// HTTP follows. The peer has to show a certificate of these clients.
    Serve(Arc<ServerConfig>, Option<Arc<str>>),
    /// The proof that an authority asks for, and then the end.
    Prove(Arc<ServerConfig>),
    /// Somebody asks for a proof that nobody offers, or for clients that are no more.
    Nothing,
}

/// Settings with HTTP/2 offered, and without.
pub(super) struct Offer {
    h2: Arc<ServerConfig>,
    h1: Arc<ServerConfig>,
}

pub(crate) struct TlsServer {
    pub certificates: Arc<Certificates>,
    pub challenges: Arc<Challenges>,
    /// For whoever need not show a certificate.
    open: Offer,
    groups: ArcSwap<ClientGroups>,
    read: Mutex<(TlsFiles, Vec<Stamp>)>,
}

impl TlsServer {
    /// Has no certificate yet.
    pub(crate) fn new() -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates::default());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Certificates>::clone(&certificates);
        let mut config = settings(WebPkiClientVerifier::no_client_auth(), resolver)?;
        // Whoever comes again shows what it got, and the relay remembers nobody. The key to it changes every six hours.
        config.ticketer = Ticketer::new()?;
        // Who comes again has one from the time before; each costs as much as a part of the handshake.
        config.send_tls13_tickets = 1;
        let (challenges, groups, read) = (Arc::default(), ArcSwap::default(), Mutex::default());
        Ok(Self { certificates, challenges, open: Offer::new(config), groups, read })
    }

    /// Reads files, to be taken over as a whole. A certificate that has expired is not taken in the place of another; where
    /// there is none yet, it is better than nothing.
    pub(crate) fn read(&self, files: &TlsFiles, now: Timestamp) -> Result<ReadFiles, TlsError> {
        let stamps = stamps(files);
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
        let certificates = files.certificates.iter().map(read).collect::<Result<_, _>>()?;
        let groups = ClientGroups::read(&files.clients, &self.certificates)?;
        Ok(ReadFiles { files: files.clone(), stamps, certificates, groups })
    }

    /// From now on handshakes get these.
    pub(crate) fn take_over(&self, read: ReadFiles) {
        self.put(&mut self.read.lock(), read);
    }

    fn put(&self, held: &mut (TlsFiles, Vec<Stamp>), read: ReadFiles) {
        let ReadFiles { files, stamps, certificates, groups } = read;
        *held = (files, stamps);
        self.certificates.replace(CertificateSource::File, certificates);
        self.groups.store(Arc::new(groups));
    }

    /// Reads the files again if one of them has changed since the last time; whether it did. What cannot be read is not
    /// tried again before it changes once more.
    pub(crate) fn refresh(&self, now: Timestamp) -> Result<bool, TlsError> {
        let (files, before) = self.read.lock().clone();
        let stamps = stamps(&files);
        if stamps == before {
            return Ok(false);
        }
        let again = self.read(&files, now);
        let mut held = self.read.lock();
        if held.0 != files {
            return Ok(false); // A reload came in between.
        }
        held.1 = stamps;
        self.put(&mut held, again?);
        drop(held);
        Ok(true)
    }

    /// What a hello gets.
    pub(crate) fn answer(&self, hello: &ClientHello<'_>, place: HelloPlace<'_>) -> HelloAnswer {
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME_TLS)) {
            let proof = hello.server_name().and_then(|name| self.challenges.alpn(name));
            return proof.map_or(HelloAnswer::Nothing, HelloAnswer::Prove);
        }
        let groups = self.groups.load();
        let clients = match place.clients {
            Some(name) => match groups.by_name.get(name) {
                Some(clients) => Some(clients),
                None => return HelloAnswer::Nothing,
            },
            None if groups.by_host.is_empty() => None,
            None => hello.server_name().and_then(|name| groups.by_host.get(&*plain(name))),
        };
        let config = clients.map_or(&self.open, |clients| &clients.offer).settings(place.may_h2);
        let name = clients.map(|clients| Arc::clone(&clients.name));
        let unnamed = place.local.filter(|_| hello.server_name().is_none());
        match unnamed.and_then(|local| self.certificates.for_address(local, hello.signature_schemes())) {
            Some(key) => {
                let mut config = ServerConfig::clone(config);
                config.cert_resolver = Arc::new(SingleCertAndKey::from(key));
                HelloAnswer::Serve(Arc::new(config), name)
            }
            None => HelloAnswer::Serve(Arc::clone(config), name),
        }
    }

    /// The clients that a host is for alone.
    pub(crate) fn clients_at(&self, host: &str) -> Option<Arc<str>> {
        Some(Arc::clone(&self.groups.load().by_host.get(host)?.name))
    }

    /// Whether there are hosts that are for some clients alone.
    pub(crate) fn has_client_hosts(&self) -> bool {
        !self.groups.load().by_host.is_empty()
    }
}

impl Offer {
    /// `config` offers no protocol yet.
    pub(super) fn new(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut h2 = config.clone();
        h2.alpn_protocols.insert(0, b"h2".to_vec());
        Self { h2: Arc::new(h2), h1: Arc::new(config) }
    }

    const fn settings(&self, may_h2: bool) -> &Arc<ServerConfig> {
        if may_h2 { &self.h2 } else { &self.h1 }
    }
}

/// What every handshake has in common.
pub(super) fn settings(
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(quick_first()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.ignore_client_order = true;
    Ok(config)
}

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    let stamp = |path: &Path| fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
    let certificates = files.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    let clients = files.clients.iter().flat_map(|files| [Some(&files.ca), files.crl.as_ref()]);
    certificates.chain(clients.flatten()).map(|path| stamp(path)).collect()
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

    fn write(folder: &Path, names: &[&str]) -> TlsFiles {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let files = CertificateFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        fs::write(&files.cert, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        TlsFiles { certificates: vec![files], clients: Vec::new() }
    }

    #[test]
    fn files_that_change_are_read_again_and_those_that_cannot_be_used_are_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path(), &["one.test"]);
        let tls = TlsServer::new().unwrap();
        let now = Timestamp::now();
        tls.take_over(tls.read(&files, now).unwrap());
        assert!(!tls.refresh(now).unwrap());
        let names = || tls.certificates.status().into_iter().map(|one| one.name).collect::<Vec<_>>();
        // The certificate of a pair comes first, and its key a moment later.
        let key = fs::read(folder.path().join("key.pem")).unwrap();
        write(folder.path(), &["another.test"]);
        let new = fs::read(folder.path().join("key.pem")).unwrap();
        fs::write(folder.path().join("key.pem"), [&key[..], b"\n"].concat()).unwrap();
        let error = tls.refresh(now).unwrap_err().to_string();
        assert!(error.contains("cert.pem") && error.contains("key.pem"), "{error}");
        assert_eq!(names(), ["one.test"]);
        assert!(!tls.refresh(now).unwrap(), "it is said once");
        fs::write(folder.path().join("key.pem"), [&new[..], b"\n\n"].concat()).unwrap();
        assert!(tls.refresh(now).unwrap());
        assert_eq!(names(), ["another.test"]);
    }

    #[test]
    fn one_that_has_expired_is_no_successor_but_better_than_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let tls = TlsServer::new().unwrap();
        let past = |files: &TlsFiles, name: &str| {
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            fs::write(&files.certificates[0].cert, params.self_signed(&key).unwrap().pem()).unwrap();
            fs::write(&files.certificates[0].key, key.serialize_pem()).unwrap();
        };
        let files = write(folder.path(), &["good.test"]);
        past(&files, "old.test");
        let now = Timestamp::now();
        tls.take_over(tls.read(&files, now).unwrap());
        assert_eq!(tls.certificates.status()[0].name, "old.test");
        assert!(tls.read(&files, now).is_ok(), "it is the same one, whatever else has changed");
        past(&files, "older.test");
        let error = tls.read(&files, now).err().unwrap().to_string();
        assert!(error.contains("cert.pem") && error.contains("2020-01-01"), "{error}");
    }
}
