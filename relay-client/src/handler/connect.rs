//! One new connection to a target: TCP, TLS or a Unix socket.
//!
//! Knows nothing of pools, permits or timeouts.

use relay_program::{http1, reason};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{CallError, pool::Connection};
use crate::{
    target::{Address, Target},
    tls,
};

/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The bytes to and from a handler.
pub(crate) type HandlerStream = Box<dyn ReadWrite>;

pub(crate) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// Connects to a target. `tls` is there exactly when the target is `https`.
pub(super) async fn connect(target: &Target, tls: Option<&TlsConnector>) -> Result<Box<Connection>, CallError> {
    match &target.address {
        Address::Loopback { port } => {
            let (v4, v6) = (std::net::Ipv4Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST);
            let stream = match tcp((v4, *port)).await {
                Ok(stream) => stream,
                Err(first) => tcp((v6, *port)).await.map_err(|_| first)?,
            };
            Ok(start(stream))
        }
        Address::Tcp { host, port, .. } => {
            let stream = tcp((host.as_str(), *port)).await?;
            match tls {
                Some(connector) => Ok(start(handshake(connector, host, stream).await?)),
                None => Ok(start(stream)),
            }
        }
        #[cfg(unix)]
        Address::Unix { path } => {
            Ok(start(tokio::net::UnixStream::connect(path).await.map_err(|error| unreachable(&error))?))
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

fn start(stream: impl ReadWrite + 'static) -> Box<Connection> {
    Box::new(Connection::new(http1::Connection::new(Box::new(stream), MAX_HEAD_BYTES)))
}

fn unreachable(error: &std::io::Error) -> CallError {
    CallError::Unreachable(reason::of_io(error))
}
