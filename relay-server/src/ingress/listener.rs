//! The public listener: accepts, ends TLS, and runs HTTP on each connection until it ends.
//!
//! One bad connection never stops the loop. HTTP/1.1 in the clear; under TLS what ALPN chose.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::Service as _;

use super::{
    Door, Origin,
    head::{Watch, Watched},
    stack::stack,
};
use crate::webhook::input::Input;

/// A TLS handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A pause after the system had no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// How long a connection without a request lives on after the stop was announced: an HTTP/1.1 sender that is
/// just about to use it again gets its answer, and with it `Connection: close`.
const LAME_DUCK: Duration = Duration::from_secs(1);

/// Bytes that may wait unsent in the system for one connection, so that a ping does not wait behind a body.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// When a connection that says nothing is asked whether it is alive, how often, and how many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);

/// Streams that one HTTP/2 connection may have open.
const MAX_H2_STREAMS: u32 = 128;

/// Header lines of one request.
pub(super) const MAX_HEADERS: usize = 100;

/// How connections are served.
pub struct Serving {
    /// The certificate, replaced as a whole on reload.
    pub tls: Option<ArcSwap<ServerConfig>>,
    /// Connections open at a time.
    pub slots: Arc<Semaphore>,
    /// A request's head must be there after this long.
    pub header_timeout: Duration,
    /// A request's head is at most this large, in bytes.
    pub max_head: usize,
}

/// Accepts connections until the door closes.
pub async fn serve(listener: TcpListener, door: Arc<Door>, serving: Arc<Serving>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.closing.cancelled() => return,
            accepted = accept(&listener, &serving) => accepted,
        };
        match accepted {
            Ok((stream, peer, slot)) => {
                let (connection, serving) = (Arc::clone(&door), Arc::clone(&serving));
                door.connections.spawn(async move {
                    run(stream, peer, connection, &serving).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    serving: &Serving,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(&serving.slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    prepare(&stream)?;
    Ok((stream, peer, slot))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, probes) = KEEPALIVE;
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    Ok(())
}

async fn run(stream: TcpStream, peer: SocketAddr, door: Arc<Door>, serving: &Serving) {
    let (socket, secure, h2) = match &serving.tls {
        None => (Socket::Plain(stream), false, false),
        Some(config) => {
            let acceptor = TlsAcceptor::from(config.load_full());
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    (Socket::Tls(Box::new(stream)), true, h2)
                }
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => return tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        }
    };
    let origin = Origin { peer: peer.ip().to_canonical(), secure };
    // hyper reads a little more than the largest head in one go.
    let watch = Arc::new(Watch::new(2 * serving.max_head));
    let input = Arc::new(Input::default());
    let stack = stack(Arc::clone(&door), origin, Arc::clone(&watch), Arc::clone(&input));
    // Each layer is always ready. The stack is called at once, so that a request counts before hyper reads on.
    let service = service_fn(move |request| stack.clone().call(request));
    let socket = TokioIo::new(Watched::new(socket, Arc::clone(&watch), input));
    let closing = door.closing.clone();
    let outcome = if h2 {
        watch.off();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_H2_STREAMS)
            .max_header_list_size(u32::try_from(serving.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let mut connection = pin!(builder.serve_connection(socket, service));
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(serving.header_timeout)
            .max_buf_size(serving.max_head)
            .max_headers(MAX_HEADERS);
        let mut connection = pin!(builder.serve_connection(socket, service).with_upgrades());
        let leaving = async {
            closing.cancelled().await;
            sleep(LAME_DUCK).await;
        };
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = leaving => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

/// A public connection, in the clear or under TLS.
pub enum Socket {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
