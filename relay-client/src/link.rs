//! One connection to the relay, from a name to an authenticated upgrade to WebSocket.
//!
//! Resolves, connects, speaks TLS, and asks for the upgrade; tells in words and in types why it failed. It does not
//! retry, frame messages, speak the relay's own protocol, or use proxies.
//!
//! Invariants: the token goes only to the relay named by the user, under TLS unless that is this machine, and into
//! no error or log; a redirect is not followed; a [`Link`] speaks subprotocol [`SUBPROTOCOL`]; the whole
//! takes at most [`REACH_TIMEOUT`] and [`UPGRADE_TIMEOUT`].

mod error;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use relay_proto::{CONNECT_PATH, SUBPROTOCOL};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_util::task::AbortOnDropHandle;

pub use self::{error::LinkError, stream::Stream};
use crate::{
    config::{RelayUrl, Token},
    reason,
    tls::{self, Trust},
};

/// For name resolution and TCP.
pub const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// For TLS and the upgrade.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that the head of the relay's answer may have.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A connection on which the relay has agreed to speak WebSocket, as the client, with [`SUBPROTOCOL`].
#[derive(Debug)]
pub struct Link {
    /// The bytes below the WebSocket.
    pub stream: Stream,
    /// What was read behind the relay's answer; it comes before anything from the stream.
    pub leftover: Vec<u8>,
}

/// Connects and authenticates. `relay_ca` names a PEM file with roots believed besides the system's; it and the
/// system's roots are read anew each time, so that a long-lived agent notices when they change.
pub async fn connect(relay: &RelayUrl, relay_ca: Option<&Path>, token: &Token) -> Result<Link, LinkError> {
    let tcp = timeout(REACH_TIMEOUT, reach(relay)).await.map_err(|_| {
        LinkError::Unreachable(format!("no connection to {} within {} s", relay.authority(), REACH_TIMEOUT.as_secs()))
    })??;
    timeout(UPGRADE_TIMEOUT, async {
        let stream = if relay.is_tls() { secure(relay, relay_ca, tcp).await? } else { Stream::Plain(tcp) };
        upgrade(relay, token, stream).await
    })
    .await
    .map_err(|_| {
        let seconds = UPGRADE_TIMEOUT.as_secs();
        LinkError::Unreachable(format!("{} accepted but did not answer within {seconds} s", relay.authority()))
    })?
}

async fn reach(relay: &RelayUrl) -> Result<TcpStream, LinkError> {
    let addresses = tokio::net::lookup_host((relay.host(), relay.port()))
        .await
        .map_err(|error| LinkError::Unreachable(format!("the name {} cannot be resolved: {error}", relay.host())))?;
    let mut failure = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                socket::tune(&stream)
                    .map_err(|error| LinkError::Unreachable(format!("the socket cannot be set up: {error}")))?;
                return Ok(stream);
            }
            Err(error) => failure = format!("{} ({address})", reason::of_io(&error)),
        }
    }
    Err(LinkError::Unreachable(format!("{}: {failure}", relay.authority())))
}

async fn secure(relay: &RelayUrl, relay_ca: Option<&Path>, tcp: TcpStream) -> Result<Stream, LinkError> {
    let trust = relay_ca.map_or(Trust::Platform, |file| Trust::PlatformAnd(file.to_owned()));
    let config = tls::client_config(&trust).map_err(|error| LinkError::Unreachable(error.to_string()))?;
    let name = ServerName::try_from(relay.host().to_owned())
        .map_err(|_| LinkError::Unreachable(format!("{:?} is not a host name", relay.host())))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| {
        let reason = tls::handshake_reason(&error, "trust it with --relay-ca");
        LinkError::Unreachable(format!("{}: {reason}", relay.authority()))
    })?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// Asks for the upgrade and checks what comes back.
async fn upgrade(relay: &RelayUrl, token: &Token, stream: Stream) -> Result<Link, LinkError> {
    let key = generate_key();
    let request = request(relay, token, &key)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error::of_http(&error))?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let response = sender.send_request(request).await.map_err(|error| error::of_http(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(error::of_answer(response).await);
    }
    let says = |name, value: &str| response.headers().get(name).is_some_and(|said| said == value);
    if !says(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes())) {
        return Err(LinkError::Protocol("the other side does not speak WebSocket".to_owned()));
    }
    if !says(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(LinkError::Protocol(format!("the other side does not speak {SUBPROTOCOL}")));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| error::of_http(&error))?;
    let parts = upgraded.downcast::<TokioIo<Stream>>().expect("the stream is the one given to the handshake above");
    Ok(Link { stream: parts.io.into_inner(), leftover: parts.read_buf.into() })
}

fn request(relay: &RelayUrl, token: &Token, key: &str) -> Result<Request<Empty<Bytes>>, LinkError> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
        .map_err(|_| LinkError::Protocol("the token cannot stand in a header".to_owned()))?;
    bearer.set_sensitive(true);
    Request::get(CONNECT_PATH)
        .header(header::HOST, relay.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .header(header::USER_AGENT, concat!("relay-client/", env!("CARGO_PKG_VERSION")))
        .header(header::AUTHORIZATION, bearer)
        .body(Empty::new())
        .map_err(|error| LinkError::Protocol(error.to_string()))
}
