//! The way to the relay through a proxy: which one, and the tunnel it makes.
//!
//! HTTP proxies are asked with CONNECT, in the clear or under TLS; SOCKS5 proxies as RFC 1928 says. CONNECT and
//! `socks5h` leave the relay's name to the proxy; `socks5` resolves it here. What is sent through the tunnel is
//! not this module's business.
//!
//! Invariants: a proxy's password stands in the handshake with that proxy and nowhere else; a relay on this
//! machine goes through a proxy only if the user named one.

use std::io;

use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::proxy::{SocksV5, Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio_util::either::Either;
use tower::{ServiceExt as _, service_fn};

use super::{LinkError, Reached, dial, resolve, secure_to, trust};
use crate::config::{Proxy, Way};

pub(crate) struct Via {
    intercept: Intercept,
}

impl Via {
    /// What the user or the environment says about this relay.
    pub(crate) fn of(way: &Way) -> Option<Self> {
        let matcher = match &way.proxy {
            Proxy::Direct => return None,
            Proxy::Environment if way.relay.is_loopback() => return None,
            Proxy::Environment => Matcher::from_env(),
            Proxy::Named(url) => Matcher::builder().all(url.reveal().to_owned()).build(),
        };
        let relay: Uri = way.relay.to_string().parse().ok()?;
        matcher.intercept(&relay).map(|intercept| Self { intercept })
    }

    fn scheme(&self) -> &str {
        self.intercept.uri().scheme_str().unwrap_or_default()
    }

    fn host(&self) -> &str {
        self.intercept.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    fn port(&self) -> u16 {
        self.intercept.uri().port_u16().unwrap_or_else(|| match self.scheme() {
            "http" => 80,
            "https" => 443,
            _ => 1080,
        })
    }

    /// Whether the relay's name is left to the proxy.
    pub(crate) fn resolves_names(&self) -> bool {
        self.scheme() != "socks5"
    }

    /// A tunnel to the relay.
    pub(super) async fn tunnel(&self, way: &Way) -> Result<Reached, LinkError> {
        let wrong = |reason: String| LinkError::Unreachable(format!("the proxy {self}: {reason}"));
        let stream = dial(self.host(), self.port()).await.map_err(|error| wrong(error.to_string()))?;
        let mut host = way.relay.host.clone();
        if !self.resolves_names() {
            let addresses = resolve(&host, way.relay.port).await?;
            host = addresses.first().map_or(host, |address| address.ip().to_string());
        }
        if host.contains(':') {
            host = format!("[{host}]");
        }
        let relay: Uri = format!("https://{host}:{}", way.relay.port)
            .parse()
            .map_err(|_| wrong(format!("{host:?} cannot be asked for")))?;
        match self.scheme() {
            "http" | "https" => {
                let stream = if self.scheme() == "https" {
                    Either::Right(secure_to(self.host(), &trust(way), None, stream).await.map_err(wrong)?)
                } else {
                    Either::Left(stream)
                };
                let mut tunnel = Tunnel::new(self.intercept.uri().clone(), given(stream));
                if let Some(auth) = self.intercept.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                tunnel.oneshot(relay).await.map_err(|error| wrong(refusal(&error.to_string(), way)))
            }
            "socks5" | "socks5h" => {
                let mut tunnel = SocksV5::new(self.intercept.uri().clone(), given(Either::Left(stream)));
                if let Some((user, password)) = self.intercept.raw_auth() {
                    tunnel = tunnel.with_auth(user.to_owned(), password.to_owned());
                }
                tunnel.oneshot(relay).await.map_err(|error| wrong(refusal(&error.to_string(), way)))
            }
            other => return Err(wrong(format!("{other} is not spoken here; use http, https, socks5 or socks5h"))),
        }
        .map(TokioIo::into_inner)
    }
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uri = self.intercept.uri();
        write!(f, "{}://{}", self.scheme(), uri.authority().map(http::uri::Authority::as_str).unwrap_or_default())
    }
}

/// A connector that gives the connection to the proxy which is there already, once.
fn given(
    stream: Reached,
) -> impl tower::Service<Uri, Response = TokioIo<Reached>, Error = io::Error, Future: Send + 'static> {
    let mut stream = Some(TokioIo::new(stream));
    service_fn(move |_: Uri| std::future::ready(stream.take().ok_or_else(|| io::ErrorKind::NotConnected.into())))
}

/// What a proxy's refusal means. The library's errors have no types that could be named, only words.
fn refusal(words: &str, way: &Way) -> String {
    if words.contains("proxy authorization required") || words.contains("credentials not accepted") {
        return "it does not accept the user name and password; write them as --proxy http://USER:PASSWORD@HOST"
            .to_owned();
    }
    if words.contains("implements authentication incorrectly") || words.contains("does not support user/pass") {
        return "it wants another kind of login; write USER:PASSWORD@ before its host, or remove it".to_owned();
    }
    let authority = &way.relay.authority;
    match words.rsplit(": ").next().unwrap_or(words) {
        "unsuccessful" => format!("it refused to connect to {authority}"),
        "unexpected end of file" | "io error establishing tunnel" | "io error during SOCKS handshake" => {
            format!("it closed the connection when asked for {authority}")
        }
        reason => format!("it could not connect to {authority}: {reason}"),
    }
}
