//! The few requests that the relay itself makes to a provider: a confirmation, a certificate, a set of keys.
//!
//! An address that a request names could be anybody's, so: https alone, no user name, port 443, on a host that the
//! caller has matched against its provider's row; a resolved address that is not public is not connected to (the
//! private network behind the relay is not the sender's to reach); no redirect is followed, no proxy asked, nothing
//! sent but a GET. Bounded in time, size and number at a time. What the operator has posted is another matter
//! ([`post`]).

mod post;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use relay_program::{
    http1::Connection,
    tls::{Trust, client_config},
};
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsConnector;

pub(crate) use self::post::{PostUrl, Posted, Poster};

/// How long a request may take, from the name's resolution to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer, in bytes. Key sets and certificates are a few KiB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Requests under way at a time; more are turned away, not queued.
const MAX_AT_ONCE: usize = 16;

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 2048;

#[derive(Debug, Error)]
pub(crate) enum OutboundError {
    #[error("not a plain https URL")]
    Url,
    #[error("its host is not on the public network")]
    Private,
    #[error("too many such requests are under way")]
    Busy,
    #[error("it did not answer in {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Failed(String),
}

pub(crate) struct Outbound {
    /// Made at the first use: a relay that asks nobody needs no root certificates.
    tls: OnceLock<Arc<ClientConfig>>,
    slots: Semaphore,
    may_reach: fn(IpAddr) -> bool,
    port: u16,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { tls: OnceLock::new(), slots: Semaphore::new(MAX_AT_ONCE), may_reach: is_public, port: 443 }
    }
}

impl Outbound {
    pub(crate) async fn get(&self, url: &str) -> Result<Bytes, OutboundError> {
        let uri: Uri = Some(url)
            .filter(|url| url.len() <= MAX_URL_BYTES)
            .ok_or(OutboundError::Url)?
            .parse()
            .map_err(|_| OutboundError::Url)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or(OutboundError::Url)?;
        // The whole authority is the host: no user name, no port, no address in place of a name.
        let host = authority.host();
        if authority.as_str() != host || host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
            return Err(OutboundError::Url);
        }
        let _slot = self.slots.try_acquire().map_err(|_| OutboundError::Busy)?;
        timeout(PATIENCE, self.ask(&uri, host)).await.map_err(|_| OutboundError::Timeout)?
    }

    async fn ask(&self, uri: &Uri, host: &str) -> Result<Bytes, OutboundError> {
        let addresses: Vec<SocketAddr> = lookup_host((host, self.port)).await.map_err(failed)?.collect();
        // One private address among them is reason enough: whoever answers for the name chooses which one we take.
        if !addresses.iter().all(|address| (self.may_reach)(address.ip())) {
            return Err(OutboundError::Private);
        }
        let stream = TcpStream::connect(&addresses[..]).await.map_err(failed)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| OutboundError::Url)?;
        let stream = TlsConnector::from(self.tls()?).connect(name, stream).await.map_err(failed)?;
        let mut provider = Connection::new(stream, MAX_HEAD_BYTES);
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = Request::get(target)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("relay-server/", env!("CARGO_PKG_VERSION")))
            .body(Bytes::new())
            .map_err(failed)?;
        let answer = provider.ask(request).await.map_err(failed)?;
        if !answer.status.is_success() {
            return Err(OutboundError::Status(answer.status));
        }
        provider.collect(MAX_ANSWER_BYTES).await.map_err(failed)
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, OutboundError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = client_config(&Trust::Platform).map_err(failed)?;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OutboundError {
    let error = error.into();
    let reason = error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), ToString::to_string);
    OutboundError::Failed(reason)
}

/// Whether an address is on the public network (the IANA special-purpose registries, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(matches!((a, b, c), (0 | 10 | 127 | 240..=255, _, _) | (192, 168, _) | (169, 254, _) | (192, 0, 0 | 2))
        || matches!((a, b, c), (172, 16..=31, _) | (100, 64..=127, _) | (198, 18 | 19, _))
        || matches!((a, b, c), (198, 51, 100) | (203, 0, 113) | (192, 88, 99))
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    match parts {
        // Addresses that carry another inside: NAT64, 6to4. Teredo and the documentation's are nobody's.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(joined(high, low)),
        [0x2002, high, low, ..] => is_public_v4(joined(high, low)),
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::Full;
    use hyper::{body::Incoming, server::conn::http1 as server, service::service_fn};
    use hyper_util::rt::TokioIo;
    use relay_program::tls::provider;
    use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// An https server on loopback under the name `localhost`, and a client that believes and may reach it.
    async fn pair(answer: fn(Request<Incoming>) -> Response<Full<Bytes>>) -> Outbound {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = provider();
        let served = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let asks = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(served));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request)) });
                let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        });
        Outbound {
            tls: Arc::new(asks).into(),
            slots: Semaphore::new(1),
            may_reach: |address| address.is_loopback(),
            port,
        }
    }

    #[tokio::test]
    async fn it_asks_with_a_plain_get_and_follows_nothing() {
        let outbound = pair(|request| {
            let target = request.uri().to_string();
            let mut response = Response::new(Full::from(target.clone()));
            match target.as_str() {
                "/moved" => {
                    *response.status_mut() = StatusCode::FOUND;
                    response.headers_mut().insert("location", "/x".parse().expect("a value"));
                }
                "/large" => *response.body_mut() = Full::from(vec![b'x'; MAX_ANSWER_BYTES + 1]),
                _ => {}
            }
            response
        })
        .await;
        assert_eq!(outbound.get("https://localhost/x?y=%20z").await.expect("answers"), "/x?y=%20z");
        assert!(matches!(outbound.get("https://localhost/moved").await, Err(OutboundError::Status(StatusCode::FOUND))));
        assert!(matches!(outbound.get("https://localhost/large").await, Err(OutboundError::Failed(_))));
        let stranger = Outbound { tls: OnceLock::new(), ..outbound };
        assert!(
            matches!(stranger.get("https://localhost/x").await, Err(OutboundError::Failed(_))),
            "an unknown issuer"
        );
    }

    #[tokio::test]
    async fn nothing_but_plain_https_to_the_public_network() {
        let outbound = Outbound::default();
        assert!(matches!(outbound.get("https://localhost/").await, Err(OutboundError::Private)));
        let long = format!("https://example.com/{}", "x".repeat(MAX_URL_BYTES));
        for url in [
            "http://example.com/",
            "https://user@example.com/",
            "https://example.com:8443/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "ftp://example.com/",
            "/x",
            "",
            &long,
        ] {
            assert!(matches!(outbound.get(url).await, Err(OutboundError::Url)), "{url}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "64:ff9b:1::1",
            "3fff::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}
