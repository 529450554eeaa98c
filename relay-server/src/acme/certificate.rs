//! Certificates that this relay makes or gets: from PEM to what the listener serves, and what is made beside an order.
//!
//! Nothing here reads a clock, a store or a socket. Invariant: what comes out of [`Issued::open`] is for its domain, and
//! its key belongs to it.

use std::sync::Arc;

use instant_acme::CertificateIdentifier;
use jiff::Timestamp;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use relay_program::tls::provider;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::plan::Validity;
use crate::tls::{Certificate, CertificateSource};

/// Certificates of a chain that are read; the rest would only slow handshakes down.
const MAX_CHAIN: usize = 10;

/// A key and the chain that a CA gave for it, as they are kept.
pub(super) struct Issued {
    /// The CA's directory.
    pub directory: String,
    pub key: Zeroizing<String>,
    pub chain: String,
}

/// A certificate that can be served.
pub(super) struct Served {
    pub certificate: Certificate,
    pub validity: Validity,
    /// How its CA knows it, where it can be said.
    pub id: Option<CertificateIdentifier<'static>>,
    pub directory: String,
}

impl Issued {
    /// One line for the directory, then PEM.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let parts = [&self.directory, "\n", &self.key, "\n", &self.chain];
        let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in parts {
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (directory, rest) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        let (key, chain) = rest.split_at(rest.find("-----BEGIN CERTIFICATE-----")?);
        Some(Self { directory: directory.to_owned(), key: Zeroizing::new(key.to_owned()), chain: chain.to_owned() })
    }

    /// Checks that it is what was ordered; what is wrong, in words.
    pub(super) fn open(&self, domain: &str) -> Result<Served, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.chain.as_bytes()).take(MAX_CHAIN).collect();
        let chain = chain.map_err(|error| format!("the chain is no PEM: {error}"))?;
        let leaf = chain.first().cloned().ok_or("there is no certificate in the chain")?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| format!("its key: {error}"))?;
        let certificate = Certificate::new(CertificateSource::Acme, chain, key).map_err(|error| error.to_string())?;
        if !certificate.names.iter().any(|name| name == domain) {
            return Err(format!("the certificate is for {}", certificate.names.join(", ")));
        }
        let (_, read) = X509Certificate::from_der(&leaf).map_err(|error| error.to_string())?;
        let at = |second| Timestamp::from_second(second).map_err(|error| error.to_string());
        let from = at(read.validity().not_before.timestamp())?;
        let until = at(read.validity().not_after.timestamp())?;
        let id = CertificateIdentifier::try_from(&leaf).ok().map(CertificateIdentifier::into_owned);
        Ok(Served { certificate, validity: Validity { from, until }, id, directory: self.directory.clone() })
    }
}

/// A new key, and the request to certify it for a domain.
pub(super) fn request(domain: &str) -> Result<(Zeroizing<String>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((Zeroizing::new(key.serialize_pem()), request.der().to_vec()))
}

/// What answers a handshake by which a CA looks who has a name (RFC 8737, section 3).
pub(super) fn proof(domain: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let digest: &[u8; 32] = digest.try_into().map_err(|_| "the digest is none of SHA-256")?;
    let made = || {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([domain.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        Ok::<_, rcgen::Error>((params.self_signed(&key)?.der().clone(), key))
    };
    let (certificate, key) = made().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    // Not looked at further: its critical extension is for the CA alone.
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}

/// A certificate of the relay's own, which nobody believes, for as long as there is no other.
pub(super) fn stand_in(domain: &str) -> Result<Certificate, String> {
    let made = || {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([domain.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "relay-server: no certificate yet");
        Ok::<_, rcgen::Error>((params.self_signed(&key)?.der().clone(), key))
    };
    let (certificate, key) = made().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    Certificate::new(CertificateSource::StandIn, vec![certificate], key).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(domain: &str) -> Issued {
        let made = rcgen::generate_simple_self_signed([domain.to_owned()]).expect("a certificate");
        Issued {
            directory: "https://ca.test/dir".to_owned(),
            key: Zeroizing::new(made.signing_key.serialize_pem()),
            chain: made.cert.pem(),
        }
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let kept = issued("hooks.test");
        let back = Issued::decode(&kept.encode()).expect("whole");
        assert_eq!(back.directory, kept.directory);
        assert_eq!(back.chain, kept.chain);
        let served = back.open("hooks.test").unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(served.certificate.names, ["hooks.test"]);
        assert!(served.validity.from < served.validity.until);
        for damaged in [&b""[..], b"x", b"https://ca.test\n", b"\xff\n-----BEGIN CERTIFICATE-----"] {
            assert!(Issued::decode(damaged).is_none(), "{damaged:?}");
        }
    }

    #[test]
    fn a_chain_for_another_name_or_of_another_key_is_refused() {
        let (one, two) = (issued("one.test"), issued("two.test"));
        let wrong = |issued: &Issued, domain| issued.open(domain).err().unwrap_or_default();
        assert!(wrong(&one, "two.test").contains("one.test"));
        let mixed = Issued { key: two.key.clone(), ..issued("one.test") };
        assert!(!wrong(&mixed, "one.test").is_empty());
        let none = Issued { chain: String::new(), ..issued("one.test") };
        assert!(wrong(&none, "one.test").contains("no certificate"));
    }

    #[test]
    fn a_request_and_a_stand_in_are_for_the_domain_and_a_wildcard_is_one() {
        for domain in ["hooks.test", "*.hooks.test"] {
            let (key, request) = request(domain).expect("made");
            assert!(key.contains("PRIVATE KEY") && !request.is_empty());
            assert_eq!(stand_in(domain).expect("made").names, [domain]);
        }
        proof("hooks.test", &[7; 32]).expect("made");
    }
}
