//! Posts to an address that the operator wrote into the config: alerts, and traces.
//!
//! Whoever writes the config may name any host, a private one too. Nothing else decides where a post goes: no redirect is
//! followed, no proxy is asked, and of the answer no more is read than its head. Bounded in time; each post is a
//! connection of its own.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use relay_program::{
    config::Wrong,
    http1::Connection,
    tls::{Trust, client_config},
};
use relay_proto::printable::without_password;
use relay_schemes::ascii_host;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{MAX_HEAD_BYTES, OutboundError, PATIENCE, failed};

/// What the relay calls itself.
const SOFTWARE: HeaderValue = HeaderValue::from_static(concat!("relay-server/", env!("CARGO_PKG_VERSION")));

/// Where to post: an `http` or `https` URL without a user's name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PostUrl {
    is_tls: bool,
    host: String,
    port: u16,
    /// Host and port as they were written.
    authority: HeaderValue,
    target: String,
}

impl PostUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str| {
            let help = "write it like \"https://alerts.example.com/relay\"";
            Wrong::new(format!("\"{}\" {why}", shown(text)), help)
        };
        if ascii_host(text).is_some() {
            return Err(wrong("has letters outside ASCII"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("is not an http or https URL")),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("holds a user name; set a header instead"));
        }
        Ok(Self {
            is_tls,
            host: authority.host().trim_matches(['[', ']']).to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: HeaderValue::try_from(authority.as_str()).map_err(|_| wrong("has no host"))?,
            target: uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
        })
    }

    /// The same place with this behind its path.
    #[must_use]
    pub(crate) fn joined(&self, path: &str) -> Self {
        let (before, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        Self { target: format!("{}{path}{query}", before.trim_end_matches('/')), ..self.clone() }
    }

    /// Whether it names more than a host.
    pub(crate) fn has_path(&self) -> bool {
        self.target != "/"
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether what is posted goes over a network as it is.
    pub(crate) fn is_plain(&self) -> bool {
        let is_local = self.host == "localhost" || self.host.parse().is_ok_and(crate::address::is_local);
        !self.is_tls && !is_local
    }
}

/// Without what may stand in its query.
fn shown(text: &str) -> String {
    let text = without_password(text);
    text.split_once('?').map_or_else(|| text.to_string(), |(before, _)| format!("{before}?…"))
}

/// Without what stands behind its host, which may be or hold a key.
impl fmt::Display for PostUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        // What stands behind the host may be the key to it.
        let rest = if self.target == "/" { "" } else { "/…" };
        f.write_str(&shown(&format!("{scheme}://{}{rest}", self.authority.to_str().unwrap_or_default())))
    }
}

impl fmt::Debug for PostUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What came of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Posted {
    pub status: StatusCode,
    /// When to come again, as the other side says.
    pub retry_after: Option<Duration>,
}

impl Posted {
    /// Whether the same may be taken another time.
    pub(crate) fn can_retry(self) -> bool {
        matches!(self.status.as_u16(), 408 | 425 | 429 | 500..=599)
    }
}

/// Whoever posts.
#[derive(Default)]
pub(crate) struct Poster {
    /// Made at the first use: a relay that posts nothing needs no root certificates.
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Poster {
    /// Posts once.
    pub(crate) async fn post(&self, to: &PostUrl, headers: HeaderMap, body: Bytes) -> Result<Posted, OutboundError> {
        timeout(PATIENCE, self.ask(to, headers, body)).await.map_err(|_| OutboundError::Timeout)?
    }

    async fn ask(&self, to: &PostUrl, headers: HeaderMap, body: Bytes) -> Result<Posted, OutboundError> {
        let mut request = Request::post(&*to.target).body(body).map_err(failed)?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::HOST, to.authority.clone());
        request.headers_mut().insert(header::USER_AGENT, SOFTWARE);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let stream = TcpStream::connect((&*to.host, to.port)).await.map_err(failed)?;
        let answer = if to.is_tls {
            let name = ServerName::try_from(to.host.clone()).map_err(|_| OutboundError::Url)?;
            let stream = TlsConnector::from(self.tls()?).connect(name, stream).await.map_err(failed)?;
            Connection::new(stream, MAX_HEAD_BYTES).ask(request).await
        } else {
            Connection::new(stream, MAX_HEAD_BYTES).ask(request).await
        };
        let answer = answer.map_err(failed)?;
        let after = answer.headers.all(header::RETRY_AFTER.as_str()).next();
        let after = after.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
        Ok(Posted { status: answer.status, retry_after: after.map(Duration::from_secs) })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, OutboundError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = client_config(&Trust::Platform).map_err(failed)?;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_url_says_where_and_nothing_else() {
        let url = PostUrl::parse("https://Alerts.example.com/relay?key=hunter2").expect("a URL");
        assert_eq!((url.host(), url.port(), url.is_plain()), ("alerts.example.com", 443, false));
        assert_eq!(url.to_string(), "https://Alerts.example.com/…");
        assert_eq!(url.joined("/v1/traces").target, "/relay/v1/traces?key=hunter2");
        assert_eq!(PostUrl::parse("http://[::1]:4318").expect("a URL").joined("/v1/traces").target, "/v1/traces");
        assert!(PostUrl::parse("http://203.0.113.7/").expect("a URL").is_plain());
        assert!(!PostUrl::parse("http://127.0.0.1:9/").expect("a URL").is_plain());
        for bad in ["", "x", "ftp://a/", "https://", "https://me:hunter2@a/", "https://bücher.example/", "/x"] {
            let wrong = PostUrl::parse(bad).expect_err(bad);
            assert!(!wrong.message.contains("hunter2"), "{}", wrong.message);
        }
    }

    #[tokio::test]
    async fn a_post_follows_nothing_and_reads_no_body() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.expect("reads");
            let answer =
                "HTTP/1.1 503 x\r\nretry-after: 7\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 9999999\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.expect("writes");
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let url = PostUrl::parse(&format!("http://{address}/in?x=1")).expect("a URL");
        let posted = Poster::default().post(&url, HeaderMap::new(), Bytes::from_static(b"hello")).await;
        let posted = posted.expect("an answer");
        assert_eq!((posted.status.as_u16(), posted.retry_after), (503, Some(Duration::from_secs(7))));
        assert!(posted.can_retry());
        let seen = served.await.expect("served");
        assert!(seen.starts_with("POST /in?x=1 HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nhello"), "{seen}");
    }
}
