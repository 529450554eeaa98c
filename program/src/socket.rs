//! The options of a TCP connection between senders, relay and agents: a dead peer is noticed, and a ping is not stuck
//! behind a body.
//!
//! Options that a system does not have are left out there; the protocol's own heartbeat covers for them.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Silence before the first probe, between probes, and unanswered probes before the end.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);
/// Bytes that may wait unsent in the kernel.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// Whether the connections of a listener that was [tuned](tune) have its options, without a call for each of them.
pub const INHERITED: bool = cfg!(target_os = "linux");

/// Sets the options of a connection, or of a listener.
pub fn tune<'s, S>(socket: &'s S) -> io::Result<()>
where
    SockRef<'s>: From<&'s S>,
{
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let (idle, interval, probes) = KEEPALIVE;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    Ok(())
}

/// Ends a connection whose peer does not acknowledge what was sent for so long, where the system can.
pub fn end_unacknowledged(stream: &TcpStream, after: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(after))?;
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, after);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_have_what_their_listener_was_tuned_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        tune(&listener).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        if !INHERITED {
            tune(&stream).unwrap();
        }
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE.0);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT_BYTES);
    }
}
