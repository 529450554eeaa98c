//! Proofs for certification authorities that ask whether a name leads here (RFC 8555, section 8.3; RFC 8737).
//!
//! Whoever orders a certificate offers a proof, and it is there until the offer is dropped. Few are there at a time: one
//! for each name that is being ordered. Looked up only where an authority asks, so a lock does.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use relay_program::tls::provider;
use rustls::{
    ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{certificate::TlsError, certificates::plain};

/// The protocol by which an authority asks for a certificate's proof, and nothing else is spoken.
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

#[derive(Debug, Default)]
pub(crate) struct Challenges {
    /// What a handshake gets that asks for a name's proof.
    alpn: Mutex<HashMap<String, Arc<ServerConfig>>>,
    /// Key authorizations by their tokens.
    http: Mutex<HashMap<String, Arc<str>>>,
}

#[derive(Debug)]
enum ProofKey {
    Alpn(String),
    Http(String),
}

/// A proof that is there until this is dropped.
#[derive(Debug)]
#[must_use = "the proof is there only as long as this"]
pub(crate) struct OfferedProof {
    challenges: Arc<Challenges>,
    key: ProofKey,
}

impl Challenges {
    /// Answers tls-alpn-01 for a name with this certificate, which holds the proof.
    pub(crate) fn offer_alpn(self: &Arc<Self>, name: &str, key: Arc<CertifiedKey>) -> Result<OfferedProof, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.send_tls13_tickets = 0;
        let name = plain(name);
        self.alpn.lock().insert(name.clone(), Arc::new(config));
        Ok(OfferedProof { challenges: Arc::clone(self), key: ProofKey::Alpn(name) })
    }

    /// Answers http-01 for a token with its key authorization.
    pub(crate) fn offer_http(self: &Arc<Self>, token: &str, authorization: &str) -> OfferedProof {
        self.http.lock().insert(token.to_owned(), authorization.into());
        OfferedProof { challenges: Arc::clone(self), key: ProofKey::Http(token.to_owned()) }
    }

    pub(super) fn alpn(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.alpn.lock().get(&plain(name)).cloned()
    }

    /// The key authorization of a token.
    pub(crate) fn http(&self, token: &str) -> Option<Arc<str>> {
        self.http.lock().get(token).cloned()
    }
}

impl Drop for OfferedProof {
    fn drop(&mut self) {
        match &self.key {
            ProofKey::Alpn(name) => drop(self.challenges.alpn.lock().remove(name)),
            ProofKey::Http(token) => drop(self.challenges.http.lock().remove(token)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_there_until_its_offer_is_dropped() {
        let challenges = Arc::new(Challenges::default());
        let one = challenges.offer_http("one", "one.thumbprint");
        let two = challenges.offer_http("two", "two.thumbprint");
        assert_eq!(challenges.http("one").as_deref(), Some("one.thumbprint"));
        drop(one);
        assert_eq!(challenges.http("one"), None);
        assert_eq!(challenges.http("two").as_deref(), Some("two.thumbprint"));
        drop(two);
        assert!(challenges.alpn("a.test").is_none());
    }
}
