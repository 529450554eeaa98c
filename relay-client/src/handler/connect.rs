//! One new connection to a target: TCP, TLS or a Unix socket, and HTTP/1.1 upon it.
//!
//! Knows nothing of pools, permits or timeouts. The task that drives a connection ends when its handle is dropped.

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use relay_program::reason;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::{CallError, pool::Connection};
use crate::{
    target::{Address, Target},
    tls,
};

/// Bytes buffered per connection and direction; also the longest head of an answer.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Header lines an answer may have.
const MAX_HEADERS: usize = 128;

/// Connects to a target. `tls` is there exactly when the target is `https`.
pub(super) async fn connect(target: &Target, tls: Option<&TlsConnector>) -> Result<Connection, CallError> {
    match &target.address {
        Address::Loopback { port } => {
            let (v4, v6) = (std::net::Ipv4Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST);
            let stream = match tcp((v4, *port)).await {
                Ok(stream) => stream,
                Err(first) => tcp((v6, *port)).await.map_err(|_| first)?,
            };
            start(stream).await
        }
        Address::Tcp { host, port, .. } => {
            let stream = tcp((host.as_str(), *port)).await?;
            match tls {
                Some(connector) => start(handshake(connector, host, stream).await?).await,
                None => start(stream).await,
            }
        }
        #[cfg(unix)]
        Address::Unix { path } => {
            start(tokio::net::UnixStream::connect(path).await.map_err(|error| unreachable(&error))?).await
        }
        #[cfg(not(unix))]
        Address::Unix { .. } => Err(CallError::Unreachable("this system has no Unix sockets".to_owned())),
    }
}

async fn tcp(address: impl tokio::net::ToSocketAddrs) -> Result<TcpStream, CallError> {
    let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    Ok(stream)
}

async fn handshake(
    connector: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CallError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| CallError::Unreachable(format!("{host:?} is not a host name")))?;
    connector.connect(name, stream).await.map_err(|error| {
        CallError::Unreachable(tls::handshake_reason(&error, "trust it with --ca-file, or pass --insecure"))
    })
}

async fn start<T>(stream: T) -> Result<Connection, CallError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| CallError::Unreachable(reason::of_chain(&error)))?;
    let driver = tokio::spawn(async move {
        // Whoever waits for an answer or a body gets the same error there.
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "handler connection ended");
        }
    });
    Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
}

fn unreachable(error: &std::io::Error) -> CallError {
    CallError::Unreachable(reason::of_io(error))
}
