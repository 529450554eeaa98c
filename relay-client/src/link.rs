//! One connection to the relay, from a name to an authenticated upgrade to WebSocket.
//!
//! Resolves, connects, through a proxy where there is one, speaks TLS, and asks for the upgrade; tells in words and
//! in types why it failed. It does not retry, frame messages, or speak the relay's own protocol.
//!
//! Invariants: the token goes only to the relay named by the user, under TLS unless that is this machine, and into
//! no error or log; a redirect is not followed; a [`Link`] speaks subprotocol [`SUBPROTOCOL`]; the whole
//! takes at most [`REACH_TIMEOUT`] and [`UPGRADE_TIMEOUT`].

pub(crate) mod api;
mod error;
mod proxy;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use relay_program::{http1::Connection, read_ahead::ReadAhead, reason, socket};
use relay_proto::{CONNECT_PATH, SUBPROTOCOL};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_util::either::Either;

pub(crate) use self::error::how_to_tell;
pub(crate) use self::{
    error::{LinkError, TurnedAway},
    proxy::Via,
};
use crate::{
    config::{RelayUrl, Token, Way},
    tls::{self, Identity, Trust},
};

/// For name resolution and TCP.
pub(crate) const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// For TLS and the upgrade.
pub(crate) const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// What is read in one step while bytes come fast: TLS and WebSocket ask for 4 KiB at a time.
const STEP_BYTES: usize = 64 * 1024;
/// Bytes that the head of the relay's answer may have.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The bytes to the relay's port, or to that of its proxy, which may speak TLS.
pub(crate) type Reached = Either<Dialled, Box<TlsStream<Dialled>>>;

/// A socket to a relay or a proxy.
pub(crate) type Dialled = ReadAhead<TcpStream>;

/// The bytes below the WebSocket: as they are on this machine, under TLS to anywhere. Through a proxy that speaks TLS it is
/// TLS within TLS.
pub(crate) type Stream = Either<Reached, Box<TlsStream<Reached>>>;

/// The certificate of the other side (DER), under TLS.
pub(crate) fn peer_certificate(stream: &Stream) -> Option<&[u8]> {
    match stream {
        Either::Left(_) => None,
        Either::Right(stream) => stream.get_ref().1.peer_certificates()?.first().map(|first| &**first),
    }
}

/// A connection on which the relay has agreed to speak WebSocket, as the client, with [`SUBPROTOCOL`].
#[derive(Debug)]
pub(crate) struct Link {
    pub stream: Stream,
    /// What was read behind the relay's answer; it comes before anything from the stream.
    pub leftover: Vec<u8>,
}

/// Whose certificates are believed on a way.
fn trust(way: &Way) -> Trust {
    way.relay_ca.clone().map_or(Trust::Platform, Trust::PlatformAnd)
}

/// Connects and authenticates. The roots that are believed are read anew each time, so that a long-lived agent
/// notices when they change; so is the relay's address.
pub(crate) async fn connect(way: &Way, token: &Token) -> Result<Link, LinkError> {
    let stream = reach(way).await?;
    let answered = async { upgrade(&way.relay, token, secure(way, stream).await?, &mut None).await };
    timeout(UPGRADE_TIMEOUT, answered).await.map_err(|_| silent(way))?
}

/// A relay that took the connection and then said nothing.
fn silent(way: &Way) -> LinkError {
    let seconds = UPGRADE_TIMEOUT.as_secs();
    LinkError::Unreachable(format!("{} accepted but did not answer within {seconds} s", way.relay.authority))
}

/// A connection to the relay's port, through the proxy where there is one, within [`REACH_TIMEOUT`].
pub(crate) async fn reach(way: &Way) -> Result<Reached, LinkError> {
    let relay = &way.relay;
    let reaching = async {
        match Via::of(way) {
            Some(via) => via.tunnel(way).await,
            None => dial(&relay.host, relay.port).await.map(Either::Left),
        }
    };
    timeout(REACH_TIMEOUT, reaching).await.map_err(|_| {
        let through = Via::of(way).map(|via| format!(" through {via}")).unwrap_or_default();
        let seconds = REACH_TIMEOUT.as_secs();
        LinkError::Unreachable(format!("no connection to {}{through} within {seconds} s", relay.authority))
    })?
}

/// The addresses of a name, at least one.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, LinkError> {
    let unresolved = |reason: String| LinkError::Unreachable(format!("the name {host} cannot be resolved: {reason}"));
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|error| unresolved(error.to_string()))?;
    let addresses: Vec<_> = addresses.collect();
    if addresses.is_empty() { Err(unresolved("it has no address".to_owned())) } else { Ok(addresses) }
}

/// Connects to the first address of a name that answers.
async fn dial(host: &str, port: u16) -> Result<Dialled, LinkError> {
    let mut failure = String::new();
    for address in resolve(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                socket::tune(&stream)
                    .and_then(|()| socket::end_unacknowledged(&stream, UNACKNOWLEDGED))
                    .map_err(|error| LinkError::Unreachable(format!("the socket cannot be set up: {error}")))?;
                let mut stream = ReadAhead::new(stream);
                stream.set_step(STEP_BYTES);
                return Ok(stream);
            }
            Err(error) => failure = format!("{} ({address})", reason::of_io(&error)),
        }
    }
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Err(LinkError::Unreachable(format!("{authority}: {failure}")))
}

/// TLS with the relay, unless it is spoken to in the clear.
pub(crate) async fn secure(way: &Way, stream: Reached) -> Result<Stream, LinkError> {
    if !way.relay.tls {
        return Ok(Either::Left(stream));
    }
    let secured = secure_to(&way.relay.host, &trust(way), way.identity.as_ref(), stream).await;
    secured.map(Either::Right).map_err(|reason| LinkError::Unreachable(format!("{}: {reason}", way.relay.authority)))
}

/// A connection to whoever answers in the relay's place, whatever certificate that has: only to look at it.
pub(crate) async fn look_at_certificate(way: &Way) -> Result<Stream, LinkError> {
    let stream = reach(way).await?;
    let secured = secure_to(&way.relay.host, &Trust::DangerousAnything, None, stream).await;
    secured.map(Either::Right).map_err(LinkError::Unreachable)
}

/// TLS with a host of that name, which is shown a certificate where it asks for one; the error is a reason.
async fn secure_to<S>(
    host: &str,
    trust: &Trust,
    identity: Option<&Identity>,
    stream: S,
) -> Result<Box<TlsStream<S>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = tls::client_config_as(identity, trust).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is not a host name"))?;
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(tls::handshake_reason(&error, "trust it with --relay-ca")),
    }
}

/// Asks for the upgrade and checks what comes back; `date` becomes what the relay says of the time. The caller bounds
/// the wait.
pub(crate) async fn upgrade(
    relay: &RelayUrl,
    token: &Token,
    stream: Stream,
    date: &mut Option<String>,
) -> Result<Link, LinkError> {
    let key = generate_key();
    let request = request(relay, token, &key)?;
    let mut connection = Connection::new(stream, MAX_HEAD_BYTES);
    let answer = connection.ask(request).await.map_err(|error| error::of_http(&error))?;
    let said = |name| answer.headers.all(name).next();
    *date = said("date").and_then(|date| std::str::from_utf8(date).ok()).map(str::to_owned);
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(error::of_answer(&answer, &mut connection).await);
    }
    let says = |name, value: &str| said(name).is_some_and(|said| said == value.as_bytes());
    if !says("sec-websocket-accept", &derive_accept_key(key.as_bytes())) {
        return Err(LinkError::OtherUpgrade("the other side agreed to an upgrade that nobody asked for".to_owned()));
    }
    if !says("sec-websocket-protocol", SUBPROTOCOL) {
        return Err(LinkError::OtherUpgrade(format!("the other side does not speak {SUBPROTOCOL}")));
    }
    let (stream, leftover) = connection.into_raw();
    Ok(Link { stream, leftover: leftover.into() })
}

fn request(relay: &RelayUrl, token: &Token, key: &str) -> Result<Request<Bytes>, LinkError> {
    Request::get(CONNECT_PATH)
        .header(header::HOST, &relay.authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .header(header::USER_AGENT, concat!("relay-client/", env!("CARGO_PKG_VERSION")))
        .header(header::AUTHORIZATION, error::bearer(token)?)
        .body(Bytes::new())
        .map_err(|error| LinkError::Protocol(error.to_string()))
}
