//! The listeners: bound here, or inherited from the process that started this one.
//!
//! `listen = "fd:NAME"` takes a socket that systemd (or anything that speaks its protocol: `LISTEN_PID`, `LISTEN_FDS`,
//! `LISTEN_FDNAMES`, sd_listen_fds(3)) holds open across restarts, so that a restart refuses no connection: new ones
//! wait in the socket's queue. `unix:PATH` is a socket in the file system; the one that a process before left there is
//! removed, and never anything else: not what another user made, and not what a process of this machine has bound, though
//! it does not listen yet.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    config::{Listen, PublicListener},
    ingress::{OpenListener, PublicSocket},
};

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// The public listeners, ready to be given to a runtime. All that is inherited is taken at once.
pub(crate) fn open_all(listeners: &[PublicListener], inherited: &mut Inherited) -> anyhow::Result<Vec<OpenListener>> {
    let open = |settings: &PublicListener| {
        let socket = match &settings.at {
            Listen::Unix(path) => {
                let listener = bind_unix(path, settings.mode)?;
                listener.set_nonblocking(true)?;
                PublicSocket::Unix(listener)
            }
            at => PublicSocket::Tcp(open(at, settings.v6only, inherited)?),
        };
        Ok(OpenListener { socket, settings: Arc::new(settings.clone()) })
    };
    listeners.iter().map(open).collect()
}

/// A listener at an address.
pub(crate) fn open(at: &Listen, v6only: bool, inherited: &mut Inherited) -> anyhow::Result<TcpListener> {
    let listener = match at {
        Listen::Address(address) => bind(*address, v6only)?,
        Listen::Inherited(name) => inherited.take(name)?,
        Listen::Unix(path) => bail!("unix:{} is no address", path.display()),
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind(address: SocketAddr, v6only: bool) -> anyhow::Result<TcpListener> {
    let bound = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // Said, since systems differ in what holds otherwise.
            socket.set_only_v6(v6only)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().with_context(|| {
        let also = if address.is_ipv6() && address.ip().is_unspecified() && !v6only {
            " It listens for IPv4, too, unless v6only = true is set."
        } else {
            ""
        };
        format!("cannot listen on {address}; is another process there, or is the port below 1024?{also}")
    })
}

fn bind_unix(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    make_way(path)?;
    let bound = || -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // For nobody else until its mode is set.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        // Before its mode, so that it looks left behind to nobody.
        socket.listen(BACKLOG)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(socket.into())
    };
    bound()
        .with_context(|| format!("cannot listen on unix:{shown}; is its folder there, and may the relay write to it?"))
}

/// Removes the socket that a process before left there.
fn make_way(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
    };
    if !there.file_type().is_socket() {
        bail!("{shown} is there and is no socket; name another path, or remove it yourself");
    }
    let (owner, own) = (there.uid(), rustix::process::geteuid().as_raw());
    if owner != own {
        bail!(
            "{shown} is a socket of the user {owner}, and the relay runs as {own}; if nobody needs it, remove it yourself"
        );
    }
    match knock(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_bound(path) => {
            bail!("cannot listen on unix:{shown}; another process has it, and does not listen yet")
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // Without a place among those that wait, somebody is there all the same.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("cannot listen on unix:{shown}; another process does")
        }
        Ok(()) => bail!("cannot listen on unix:{shown}; another process does"),
        Err(error) => return Err(error).with_context(|| format!("unix:{shown} is somebody else's socket")),
    }
    fs::remove_file(path).with_context(|| format!("the socket of a process before, {shown}, cannot be removed"))
}

/// Whether a process has bound this very path, as far as the system tells: it knows of none in another network namespace,
/// nor of one that named the path in another way. A connection to somebody who has ended is none.
fn is_bound(path: &Path) -> bool {
    let real = path.parent().and_then(|folder| fs::canonicalize(folder).ok()).zip(path.file_name());
    let real = real.map(|(folder, name)| folder.join(name));
    let is_it =
        |bound: &[u8]| [Some(path), real.as_deref()].into_iter().flatten().any(|it| it.as_os_str().as_bytes() == bound);
    fs::read("/proc/net/unix").is_ok_and(|table| table.split(|byte| *byte == b'\n').filter_map(bound_path).any(is_it))
}

/// The path of a line of /proc/net/unix whose socket is connected to nobody (proc_net_unix(5): number, references,
/// protocol, flags, type, state, inode, path).
fn bound_path(line: &[u8]) -> Option<&[u8]> {
    const UNCONNECTED: &[u8] = b"01";
    let mut rest = line;
    let mut column = || {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (column, more) = rest.split_at(end);
        rest = more.trim_ascii_start();
        Some(column)
    };
    let state = (0..6).map(|_| column()).last()??;
    let _inode = column()?;
    (state == UNCONNECTED).then_some(rest)
}

/// Connects to a socket, and waits for nothing.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&socket2::SockAddr::unix(path)?)
}

/// What this process was handed over. Each socket is taken once.
pub(crate) struct Inherited {
    sockets: ListenFd,
    names: String,
}

impl Inherited {
    pub(crate) fn from_env() -> Self {
        Self { sockets: ListenFd::from_env(), names: std::env::var("LISTEN_FDNAMES").unwrap_or_default() }
    }

    fn take(&mut self, name: &str) -> anyhow::Result<TcpListener> {
        let index = position(name, &self.names, self.sockets.len())?;
        match self.sockets.take_tcp_listener(index) {
            Ok(Some(listener)) => Ok(listener),
            Ok(None) => bail!("listen = \"fd:{name}\": the socket has been taken already"),
            Err(error) => {
                bail!("listen = \"fd:{name}\" is not a TCP listener ({error}); set ListenStream= in the socket unit")
            }
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
    use std::os::unix::net::UnixStream;

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

    #[test]
    fn a_bound_path_is_read_as_the_system_writes_it() {
        for (line, path) in [
            ("ffff9b8c: 00000002 00000000 00010000 0001 01   123 /run/a.sock", Some("/run/a.sock")),
            ("ffff9b8c: 00000002 00000000 00000000 0001 01 12345 /run/a b.sock", Some("/run/a b.sock")),
            ("ffff9b8c: 00000003 00000000 00000000 0001 03 12345 /run/a.sock", None),
            ("ffff9b8c: 00000003 00000000 00000000 0001 01 12345", None),
            ("Num       RefCount Protocol Flags    Type St Inode Path", None),
            ("", None),
        ] {
            assert_eq!(bound_path(line.as_bytes()), path.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_makes_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        let first = bind_unix(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let error = format!("{:#}", bind_unix(&path, 0o600).unwrap_err());
        assert!(error.contains("another process does"), "{error}");
        let full = folder.path().join("full.sock");
        let _listens = {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.bind(&socket2::SockAddr::unix(&full).unwrap()).unwrap();
            socket.listen(0).unwrap();
            socket
        };
        let _waits = UnixStream::connect(&full).unwrap();
        let error = format!("{:#}", bind_unix(&full, 0o600).unwrap_err());
        assert!(error.contains("another process does"), "{error}");
        let bound = folder.path().join("bound.sock");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(&bound).unwrap()).unwrap();
        let error = format!("{:#}", bind_unix(&bound, 0o600).unwrap_err());
        assert!(error.contains("does not listen yet"), "{error}");
        drop(socket);
        drop(bind_unix(&bound, 0o600).unwrap());
        // A connection that outlives its listener holds nobody up.
        let waits = UnixStream::connect(&path).unwrap();
        let _served = first.accept().unwrap();
        drop(first);
        let again = bind_unix(&path, 0o600).unwrap();
        assert!(UnixStream::connect(&path).is_ok(), "the stale one made way");
        drop(again);

        if rustix::process::geteuid().is_root() {
            let others = folder.path().join("others.sock");
            drop(bind_unix(&others, 0o600).unwrap());
            std::os::unix::fs::chown(&others, Some(65534), None).unwrap();
            let error = format!("{:#}", bind_unix(&others, 0o600).unwrap_err());
            assert!(error.contains("of the user 65534") && others.exists(), "{error}");
        } else {
            println!("skipped: only root can make a socket of another user");
        }
        drop(waits);

        let file = folder.path().join("precious");
        fs::write(&file, "mine").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for other in [file.as_path(), folder.path(), link.as_path()] {
            let error = format!("{:#}", bind_unix(other, 0o600).unwrap_err());
            assert!(error.contains("is no socket"), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let error = format!("{:#}", bind_unix(&folder.path().join("none/relay.sock"), 0o600).unwrap_err());
        assert!(error.contains("is its folder there"), "{error}");
    }
}
