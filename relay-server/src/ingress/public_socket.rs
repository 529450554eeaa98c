//! What the public side listens on: TCP, or a socket in the file system for a proxy of this machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener},
    os::unix::net::UnixListener as StdUnixListener,
    sync::Arc,
};

use relay_program::{
    accept,
    socket::{INHERITED, tune},
};
use tokio::net::{TcpListener, UnixListener};

use super::socket::Transport;
use crate::config::PublicListener;

/// Whose a connection is that came over a unix socket: somebody's on this machine.
const THIS_MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A listener that is open, and that no runtime has yet.
#[derive(Debug)]
pub(crate) enum PublicSocket {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

/// It, with what is done to its connections.
#[derive(Debug)]
pub(crate) struct OpenListener {
    pub socket: PublicSocket,
    pub settings: Arc<PublicListener>,
}

impl OpenListener {
    /// The same listener for another runtime.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            PublicSocket::Tcp(listener) => PublicSocket::Tcp(listener.try_clone()?),
            PublicSocket::Unix(listener) => PublicSocket::Unix(listener.try_clone()?),
        };
        Ok(Self { socket, settings: Arc::clone(&self.settings) })
    }

    /// Where it listens, if that is an address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            PublicSocket::Tcp(listener) => listener.local_addr().ok(),
            PublicSocket::Unix(_) => None,
        }
    }
}

/// A listener of this runtime.
pub(super) enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    pub(super) fn new(socket: PublicSocket) -> io::Result<Self> {
        match socket {
            PublicSocket::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            PublicSocket::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    /// Gives each of its connections the options that those of senders have.
    pub(super) fn tune(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => tune(listener),
            Self::Unix(_) => Ok(()),
        }
    }

    /// The next connection, and where it comes from.
    pub(super) async fn next(&self, failed: impl Fn(&io::Error)) -> (Transport, IpAddr) {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = accept::next(listener, &failed).await;
                if !INHERITED && let Err(error) = tune(&stream) {
                    failed(&error);
                }
                (Transport::Tcp(stream), peer.ip().to_canonical())
            }
            Self::Unix(listener) => {
                let (stream, _) = accept::next_of(|| listener.accept(), &failed).await;
                (Transport::Unix(stream), THIS_MACHINE)
            }
        }
    }
}
