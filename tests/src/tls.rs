//! TLS for the harness: certificates that are made on the spot, and a client that trusts one of them.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Writes a new certificate for `localhost` to `cert.pem` and `key.pem` in a folder, and returns it.
///
/// # Errors
/// If it cannot be made or written.
pub fn certificate(folder: &Path) -> anyhow::Result<CertificateDer<'static>> {
    certificate_for(folder, &["localhost".to_owned()])
}

/// The same for other names or addresses.
///
/// # Errors
/// If it cannot be made or written.
pub fn certificate_for(folder: &Path, names: &[String]) -> anyhow::Result<CertificateDer<'static>> {
    let made = rcgen::generate_simple_self_signed(names)?;
    fs::write(folder.join("cert.pem"), made.cert.pem())?;
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(made.cert.der().clone())
}

/// The `[tls]` table for the certificate in a folder.
#[must_use]
pub fn settings(folder: &Path) -> String {
    let place = folder.display();
    format!("[tls]\ncert = \"{place}/cert.pem\"\nkey = \"{place}/key.pem\"\n")
}

/// A client that trusts one certificate, with one protocol offered by ALPN.
///
/// # Errors
/// If the certificate is none.
pub fn client(trusted: &CertificateDer<'static>, alpn: &[u8]) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

/// Connects to `localhost` at an address, with one protocol offered by ALPN.
///
/// # Errors
/// If the connection or the handshake fails.
pub async fn connect(
    address: &str,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let config = client(trusted, alpn)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}
