//! The listeners: bound here, or inherited from the process that started this one.
//!
//! `listen = "fd:NAME"` takes a socket that systemd (or anything that speaks its protocol: `LISTEN_PID`, `LISTEN_FDS`,
//! `LISTEN_FDNAMES`, sd_listen_fds(3)) holds open across restarts, so that a restart refuses no connection: new ones
//! wait in the socket's queue.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// The public listener, ready to be given to a runtime.
pub(crate) fn open(listen: &Listen) -> anyhow::Result<TcpListener> {
    let listener = match listen {
        Listen::Address(address) => bind(*address)?,
        Listen::Inherited(name) => inherit(name)?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().with_context(|| format!("cannot listen on {address}; is another process there, or is the port below 1024?"))
}

fn inherit(name: &str) -> anyhow::Result<TcpListener> {
    let mut sockets = ListenFd::from_env();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let index = position(name, &names, sockets.len())?;
    match sockets.take_tcp_listener(index) {
        Ok(Some(listener)) => Ok(listener),
        Ok(None) => bail!("listen = \"fd:{name}\": the socket has been taken already"),
        Err(error) => {
            bail!("listen = \"fd:{name}\" is not a TCP listener ({error}); set ListenStream= in the socket unit")
        }
    }
}

/// Where among `count` inherited sockets the one of this name is. A single socket needs no name.
fn position(name: &str, names: &str, count: usize) -> anyhow::Result<usize> {
    if count == 0 {
        bail!(
            "listen = \"fd:{name}\", but no socket was handed over; start it by a systemd socket unit with \
             FileDescriptorName={name}, or write an address"
        );
    }
    let position = names.split(':').take(count).position(|other| other == name);
    match position {
        Some(position) => Ok(position),
        None if count == 1 && (names.is_empty() || names == "unknown") => Ok(0),
        None => bail!("no inherited socket is called {name:?} (there are: {names}); set FileDescriptorName={name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_socket_is_found_by_its_name() {
        assert_eq!(position("public", "admin:public", 2).unwrap(), 1);
        assert_eq!(position("public", "", 1).unwrap(), 0, "one without a name is meant");
        for (names, count) in [("", 0), ("public", 0), ("", 2), ("admin", 1), ("a:b", 2), ("a:b:public", 2)] {
            let error = position("public", names, count).unwrap_err().to_string();
            assert!(error.contains("FileDescriptorName=public"), "{error}");
        }
    }
}
