//! An agent's way in: its token, the upgrade request, and the answer that begins the WebSocket.
//!
//! Nothing is upgraded before the token is known to be right. What the session may then do is decided at its hello, which
//! may come long after.

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use relay_proto::SUBPROTOCOL;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    seats::SessionLimit,
    token::{Shown, Tokens},
};
use crate::client_certificate::ClientCertificate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// Not a WebSocket upgrade for the subprotocol that this relay speaks.
    NotUpgrade,
    /// A browser's page asked.
    Browser,
    /// No token, or not one of ours.
    Unauthorized,
    /// A token that counts only beside a certificate.
    Certificate,
    TooManyGuesses {
        /// How long that holds.
        left: Duration,
    },
    TooManySessions(SessionLimit),
}

/// A connection that an agent's session may run over.
pub(crate) trait Link: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// An agent has it from now on.
    fn becomes_an_agents(&mut self);
}

/// The token that a request shows, beside the certificate that its connection has shown.
pub(super) fn token_of(
    headers: &HeaderMap,
    certificate: Option<&Arc<ClientCertificate>>,
    tokens: &Tokens,
) -> Result<Shown, Turned> {
    if headers.contains_key(header::ORIGIN) {
        return Err(Turned::Browser);
    }
    let shown = bearer(headers).and_then(|token| tokens.authenticate(token)).ok_or(Turned::Unauthorized)?;
    let shown = Shown { certificate: certificate.cloned(), ..shown };
    if shown.is_good_for(&shown.token) { Ok(shown) } else { Err(Turned::Certificate) }
}

pub(super) fn check<B>(request: &Request<B>) -> Result<(), Turned> {
    let headers = request.headers();
    let one = |name, value: &[u8]| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().is_some_and(|first| first.as_bytes().eq_ignore_ascii_case(value));
        first && values.next().is_none()
    };
    let upgrade = request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && one(header::UPGRADE, b"websocket")
        && lists(headers, &header::CONNECTION, "upgrade")
        && one(header::SEC_WEBSOCKET_VERSION, b"13")
        && (!headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) || names_subprotocol(headers))
        && only_key(headers).is_some_and(|key| BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16));
    if upgrade { Ok(()) } else { Err(Turned::NotUpgrade) }
}

/// The one token that a request shows (RFC 6750, section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (credentials.next(), credentials.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The key of a WebSocket's upgrade, where there is one alone.
fn only_key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    keys.next().filter(|_| keys.next().is_none())
}

/// Whether a header's comma-separated values hold an item, in any case.
pub(crate) fn lists(headers: &HeaderMap, name: &header::HeaderName, item: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(item))
}

/// Whether the agent named the subprotocol. One that names none means it, too: the path says the version.
fn names_subprotocol(headers: &HeaderMap) -> bool {
    lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
}

/// The answer that begins the WebSocket, and what its connection comes out of.
pub(super) fn upgrade<R, B>(mut request: Request<R>, body: B) -> (Response<B>, OnUpgrade) {
    let upgrade = hyper::upgrade::on(&mut request);
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if names_subprotocol(request.headers()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    if let Some(key) = key.and_then(|key| HeaderValue::try_from(key).ok()) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    (response, upgrade)
}

/// The connection once hyper gives it up, an `S`, and what was read of it already. There is none if the agent has left.
pub(super) async fn connection<S: Link>(upgrade: OnUpgrade) -> Option<(S, Vec<u8>)> {
    let upgraded =
        upgrade.await.inspect_err(|error| tracing::debug!(%error, "an agent left during its upgrade")).ok()?;
    let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
        tracing::error!("an agent's connection is of an unknown type");
        return None;
    };
    let mut stream = parts.io.into_inner();
    stream.becomes_an_agents();
    Some((stream, parts.read_buf.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_upgrade_is_one_for_a_websocket_with_one_key_of_16_bytes() {
        const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
        let asked = |version, method: Method, changes: &[(&'static str, Option<&'static str>)]| {
            let mut request = Request::builder().version(version).method(method).body(()).expect("a request");
            let headers = request.headers_mut();
            for (name, value) in [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", KEY),
                ("sec-websocket-protocol", SUBPROTOCOL),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            for (name, value) in changes {
                match value {
                    Some(value) => drop(headers.append(*name, HeaderValue::from_static(value))),
                    None => drop(headers.remove(*name)),
                }
            }
            check(&request).is_ok()
        };
        let (now, get) = (Version::HTTP_11, Method::GET);
        assert!(asked(now, get.clone(), &[]));
        assert!(asked(now, get.clone(), &[("sec-websocket-protocol", None)]), "the path says the version");
        assert!(!asked(Version::HTTP_10, get.clone(), &[]) && !asked(Version::HTTP_2, get.clone(), &[]));
        assert!(!asked(now, Method::POST, &[]));
        for key in
            ["", "abc", "c2hvcnQ=", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE=", "bm90IHNpeHRlZW4gYnl0ZXM="]
        {
            let key = [("sec-websocket-key", None), ("sec-websocket-key", Some(key))];
            assert!(!asked(now, get.clone(), &key), "{key:?}");
        }
        for (name, value) in [
            ("sec-websocket-key", Some(KEY)),
            ("sec-websocket-version", Some("13")),
            ("upgrade", Some("h2c")),
            ("connection", None),
            ("sec-websocket-version", None),
        ] {
            assert!(!asked(now, get.clone(), &[(name, value)]), "{name}: {value:?} as well");
        }
        let other = [("sec-websocket-protocol", None), ("sec-websocket-protocol", Some("relay.v9"))];
        assert!(!asked(now, get, &other));
    }
}
