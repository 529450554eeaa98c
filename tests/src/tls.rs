//! TLS for the harness: certificates that are made on the spot, and a client that trusts one of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
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

/// An authority of the test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub pem: String,
}

/// A certificate that an authority gave, as files.
pub struct Given {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    serial: SerialNumber,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Writes a new certificate for a client with these names, and its key.
    ///
    /// # Errors
    /// If it cannot be made or written.
    pub fn give(&self, folder: &Path, stem: &str, names: &[&str], common: &str) -> anyhow::Result<Given> {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = SerialNumber::from(u64::from(stem.bytes().map(u32::from).sum::<u32>()));
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate()?;
        let given =
            Given { cert: folder.join(format!("{stem}.pem")), key: folder.join(format!("{stem}-key.pem")), serial };
        fs::write(&given.cert, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&given.key, key.serialize_pem())?;
        Ok(given)
    }

    /// A list that revokes these, in PEM.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn revoke(&self, given: &[&Given]) -> anyhow::Result<String> {
        let day = |day| rcgen::date_time_ymd(2026, 1, day);
        let revoked = |given: &&Given| RevokedCertParams {
            serial_number: given.serial.clone(),
            revocation_time: day(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: day(1),
            next_update: day(2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: given.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

impl Given {
    /// A client that trusts one certificate and shows this one, with one protocol offered by ALPN.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn client(&self, trusted: &CertificateDer<'static>, alpn: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone())?;
        let chain = CertificateDer::pem_file_iter(&self.cert)?.collect::<Result<Vec<_>, _>>()?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&self.key)?)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Connects under a name, with settings of one's own.
///
/// # Errors
/// If the connection or the handshake fails.
pub async fn connect_as(address: &str, name: &str, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}
