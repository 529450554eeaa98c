//! Handshakes in memory: what a hello gets.

use std::sync::Arc;

use relay_program::tls::{Trust, client_config};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::Acceptor,
    sign::CertifiedKey,
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use super::{challenges::ACME_TLS, *};

fn made(name: &str) -> (CertificateDer<'static>, Certificate) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let leaf = made.cert.der().clone();
    (leaf.clone(), Certificate::new(CertificateSource::Acme, vec![leaf], key).unwrap())
}

/// The certificate and the protocol that a client gets which offers these protocols.
async fn shake(tls: &TlsServer, name: &str, alpn: &[&[u8]]) -> Option<(CertificateDer<'static>, Vec<u8>)> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut config = client_config(&Trust::DangerousAnything).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async move {
        let stream = TlsConnector::from(Arc::new(config)).connect(name, near).await.ok()?;
        let (_, tls) = stream.get_ref();
        Some((tls.peer_certificates()?.first()?.clone(), tls.alpn_protocol().unwrap_or_default().to_vec()))
    };
    let server = async {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), far).await.unwrap();
        let place = HelloPlace { may_h2: true, ..HelloPlace::default() };
        let answer = tls.answer(&begun.client_hello(), place);
        match answer {
            HelloAnswer::Serve(config, _) | HelloAnswer::Prove(config) => begun.into_stream(config).await.ok(),
            HelloAnswer::Nothing => None,
        }
    };
    tokio::join!(client, server).0
}

#[tokio::test]
async fn an_authority_gets_its_proof_and_nobody_else_does() {
    let tls = TlsServer::new().unwrap();
    let ((served, certificate), (proof, proving)) = (made("a.test"), made("a.test"));
    tls.certificates.replace(CertificateSource::Acme, vec![certificate]);
    let key: Arc<CertifiedKey> = Arc::clone(&proving.key);
    let offered = tls.challenges.offer_alpn("A.Test.", key).unwrap();
    let asks: &[&[u8]] = &[ACME_TLS];
    assert_eq!(shake(&tls, "a.test", asks).await, Some((proof, ACME_TLS.to_vec())));
    assert_eq!(shake(&tls, "b.test", asks).await, None, "nobody orders one for it");
    assert_eq!(shake(&tls, "a.test", &[b"h2", b"http/1.1"]).await, Some((served.clone(), b"h2".to_vec())));
    assert_eq!(shake(&tls, "a.test", &[]).await, Some((served, Vec::new())));
    drop(offered);
    assert_eq!(shake(&tls, "a.test", asks).await, None);
}

#[tokio::test]
async fn without_a_certificate_a_handshake_fails() {
    let tls = TlsServer::new().unwrap();
    assert_eq!(shake(&tls, "a.test", &[b"h2"]).await, None);
}
