//! TLS towards the relay and `https` handlers, as both programs speak it.

#[cfg(test)]
use relay_program::tls::provider;
pub(crate) use relay_program::tls::{Identity, Trust, client_config, client_config_as, handshake_reason};

#[cfg(test)]
pub(crate) mod testing {
    //! A certificate for `localhost`, and the root that signed it.

    use std::sync::Arc;

    use super::provider;

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
