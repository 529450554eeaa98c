//! Every certificate that the relay has, and which of them a handshake gets.
//!
//! By the name that its hello asks for: a certificate for exactly this name, else one for all names of its domain, else the
//! first one that there is. A hello without a name comes from who asks for an address, and gets the certificate for the
//! address that it came to, if there is one. Of several for a name it gets the first that the peer can check.
//!
//! A lookup takes no lock. A handshake that has begun goes on with what it got.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::{Certificate, CertificateSource};

/// What there is to know of a certificate that is in use.
#[derive(Clone, Debug)]
pub(crate) struct CertificateStatus {
    /// One of its names.
    pub name: String,
    pub source: CertificateSource,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct Certificates {
    all: Mutex<Vec<Arc<Certificate>>>,
    lookup: ArcSwap<Lookup>,
}

type Keys = Vec<Arc<CertifiedKey>>;

#[derive(Debug, Default)]
struct Lookup {
    exact: HashMap<String, Keys>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Keys>,
    address: HashMap<IpAddr, Keys>,
    /// Those of the best source, in their order.
    default: Keys,
}

impl Certificates {
    /// Puts these in the place of all that came from this source.
    pub(crate) fn replace(&self, source: CertificateSource, certificates: Vec<Certificate>) {
        let mut all = self.all.lock();
        all.retain(|one| one.source != source);
        all.extend(certificates.into_iter().map(|one| Arc::new(Certificate { source, ..one })));
        all.sort_by_key(|one| one.source);
        self.lookup.store(Arc::new(Lookup::new(&all)));
    }

    /// Those of one source.
    pub(crate) fn of(&self, source: CertificateSource) -> Vec<Arc<Certificate>> {
        self.all.lock().iter().filter(|one| one.source == source).cloned().collect()
    }

    /// All that are in use, with their expiry.
    pub(crate) fn status(&self) -> Vec<CertificateStatus> {
        let status = |one: &Arc<Certificate>| CertificateStatus {
            name: one.name(),
            source: one.source,
            not_before: one.not_before,
            not_after: one.not_after,
        };
        self.all.lock().iter().map(status).collect()
    }

    /// The certificate for an address that was asked for without a name, unless any one would do.
    pub(super) fn for_address(&self, local: IpAddr, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        usable(self.lookup.load().address.get(&local.to_canonical())?, schemes)
    }

    fn for_name(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let lookup = self.lookup.load();
        usable(name.and_then(|name| lookup.named(name)).unwrap_or(&lookup.default), schemes)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.for_name(hello.server_name(), hello.signature_schemes())
    }
}

/// The first that this peer can check.
fn usable(keys: &[Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
    keys.iter().find(fits).or(keys.first()).cloned()
}

impl Lookup {
    fn new(all: &[Arc<Certificate>]) -> Self {
        let mut lookup = Self::default();
        for one in all {
            for name in &one.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(domain) => (&mut lookup.wildcard, domain),
                    None => (&mut lookup.exact, name.as_str()),
                };
                map.entry(plain(name)).or_default().push(Arc::clone(&one.key));
            }
            for address in &one.addresses {
                lookup.address.entry(address.to_canonical()).or_default().push(Arc::clone(&one.key));
            }
        }
        let best = all.first().map(|one| one.source);
        lookup.default = all.iter().filter(|one| Some(one.source) == best).map(|one| Arc::clone(&one.key)).collect();
        lookup
    }

    fn named(&self, name: &str) -> Option<&Keys> {
        let name = plain(name);
        let by_domain = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(by_domain)
    }
}

/// A name as it is looked up: lower case, without the dot that a full name may end with.
pub(super) fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[SignatureScheme] =
        &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519, SignatureScheme::RSA_PSS_SHA256];

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Certificate::new(CertificateSource::File, vec![made.der().clone()], key).unwrap()
    }

    fn ecdsa(names: &[&str]) -> Certificate {
        certificate(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    #[test]
    fn a_name_gets_its_own_certificate_then_its_domains_then_the_first() {
        let (first, exact, domain) =
            (ecdsa(&["hooks.test"]), ecdsa(&["One.Other.Test", "192.0.2.7"]), ecdsa(&["*.other.test"]));
        let (one, two, three) = (Arc::clone(&first.key), Arc::clone(&exact.key), Arc::clone(&domain.key));
        let certificates = Certificates::default();
        assert!(certificates.for_name(Some("hooks.test"), ALL).is_none(), "there is none at all");
        certificates.replace(CertificateSource::File, vec![first, exact, domain]);
        for (name, expected) in [
            ("hooks.test", &one),
            ("one.other.test", &two),
            ("ONE.other.TEST.", &two),
            ("two.other.test", &three),
            ("two.OTHER.test.", &three),
            ("other.test", &one),
            ("a.two.other.test", &one),
            ("elsewhere.test", &one),
            ("x", &one),
        ] {
            let found = certificates.for_name(Some(name), ALL).unwrap();
            assert!(Arc::ptr_eq(&found, expected), "{name}");
        }
        let by_address = |text: &str| certificates.for_address(text.parse().unwrap(), ALL);
        assert!(Arc::ptr_eq(&by_address("192.0.2.7").unwrap(), &two));
        assert!(Arc::ptr_eq(&by_address("::ffff:192.0.2.7").unwrap(), &two));
        assert!(by_address("192.0.2.8").is_none());
    }

    #[test]
    fn a_file_goes_before_an_authoritys_certificate_and_that_before_a_stand_in() {
        let certificates = Certificates::default();
        let serves = |key: &Arc<CertifiedKey>| Arc::ptr_eq(&certificates.for_name(Some("a.test"), ALL).unwrap(), key);
        let (stand_in, acme, file) = (ecdsa(&["a.test"]), ecdsa(&["a.test"]), ecdsa(&["a.test"]));
        let keys = [&stand_in, &acme, &file].map(|one| Arc::clone(&one.key));
        certificates.replace(CertificateSource::StandIn, vec![stand_in]);
        assert!(serves(&keys[0]));
        certificates.replace(CertificateSource::Acme, vec![acme]);
        assert!(serves(&keys[1]));
        certificates.replace(CertificateSource::File, vec![file]);
        assert!(serves(&keys[2]));
        assert_eq!(certificates.status().len(), 3);
        certificates.replace(CertificateSource::File, Vec::new());
        certificates.replace(CertificateSource::StandIn, Vec::new());
        assert!(serves(&keys[1]));
        assert_eq!(certificates.status()[0].name, "a.test");
    }

    #[test]
    fn of_two_for_a_name_a_peer_gets_the_one_that_it_can_check() {
        let certificates = Certificates::default();
        let (one, two) = (certificate(&["a.test"], &rcgen::PKCS_ED25519), ecdsa(&["a.test"]));
        let keys = [&one, &two].map(|one| Arc::clone(&one.key));
        certificates.replace(CertificateSource::File, vec![one, two]);
        let for_schemes = |schemes: &[SignatureScheme]| certificates.for_name(Some("a.test"), schemes).unwrap();
        assert!(Arc::ptr_eq(&for_schemes(ALL), &keys[0]));
        assert!(Arc::ptr_eq(&for_schemes(&[SignatureScheme::ECDSA_NISTP256_SHA256]), &keys[1]));
        assert!(Arc::ptr_eq(&for_schemes(&[]), &keys[0]), "the handshake says what is wrong");
    }
}
