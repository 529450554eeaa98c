//! The public listener: accepts, ends TLS, and runs HTTP on each connection until it ends.
//!
//! One bad connection never stops the loop. HTTP/1.1 in the clear; under TLS what ALPN chose. Every wait for a peer has an
//! end: for a handshake, a head, a body, for somebody to take an answer, and for the next request.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_program::socket::tune;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::{
    Connection, Door, Origin,
    head::{Watch, Watched},
    slots::{Place, Slot, Slots},
    socket::{Socket, TimedWrites},
    stack::stack,
    streams::Streams,
};
use crate::{address, throttle::Throttle, webhook::input::Input};

/// A TLS handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes that a peer may send before its TLS handshake is done. Hellos have some hundred bytes to some thousand; rustls
/// itself would hold 64 KiB.
const HANDSHAKE_BYTES: usize = 24 * 1024;

/// Bytes of an answer that wait under TLS; rustls' own bound is 64 KiB.
const TLS_UNSENT_BYTES: usize = 20 * 1024;

/// A pause after the system had no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// How long a connection without a request lives on after the stop was announced: an HTTP/1.1 sender that is
/// just about to use it again gets its answer, and with it `Connection: close`.
const LAME_DUCK: Duration = Duration::from_secs(1);

/// Streams that one HTTP/2 connection may have open.
const MAX_H2_STREAMS: u32 = 128;

/// HTTP/2 connections at a time. Each may hold some hundred KiB of windows and of heads that are not whole; beyond that,
/// new connections are offered HTTP/1.1 alone, which every sender speaks and which holds less.
pub(crate) const MAX_H2_CONNECTIONS: usize = 256;

/// What an HTTP/2 peer may send on a stream, and on all of them, before anything was read: 25 MiB in five seconds where a
/// round trip takes 100 ms.
const H2_WINDOW_BYTES: u32 = 512 * 1024;

/// Bytes of an answer that one HTTP/2 stream takes before its peer has given it window. hyper's own bound is 400 KiB,
/// and a peer that gives none would hold that for each stream.
const MAX_H2_UNSENT_BYTES: usize = 64 * 1024;

/// A connection that never asked for anything gets this long to read its farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connections that found their address's places taken.
static CROWDED: Throttle<1> = Throttle::new();

/// Connections that could not be accepted.
static NOT_ACCEPTED: Throttle<1> = Throttle::new();

/// Header lines of one request.
pub(super) const MAX_HEADERS: usize = 100;

/// How connections are served.
pub(crate) struct Serving {
    /// The certificate, replaced as a whole on reload.
    pub tls: Option<ArcSwap<ServerConfig>>,
    /// Places for connections.
    pub slots: Arc<Slots>,
    /// Places for HTTP/2 among them, [`MAX_H2_CONNECTIONS`].
    pub h2: Arc<Semaphore>,
    /// Longest time in which a peer takes nothing of what waits for it, and in which an HTTP/2 one asks for nothing.
    pub idle: Duration,
    /// A request's head must be there after this long.
    pub header_timeout: Duration,
    /// A request's head is at most this large, in bytes.
    pub max_head: usize,
}

/// Accepts connections until the door closes.
pub(crate) async fn serve(listener: TcpListener, door: Arc<Door>, serving: Arc<Serving>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.closing.cancelled() => return,
            accepted = accept(&listener, &door, &serving) => accepted,
        };
        match accepted {
            Ok((_, peer, None)) => {
                if let Some(held_back) = CROWDED.pass("") {
                    let peer = peer.ip();
                    tracing::warn!(%peer, held_back, "an address has as many connections as one may; more were closed");
                }
            }
            Ok((stream, peer, Some(slot))) => {
                let (connection, serving) = (Arc::clone(&door), Arc::clone(&serving));
                door.connections.spawn(async move { run(stream, peer, slot, connection, &serving).await });
            }
            Err(error) => {
                if let Some(held_back) = NOT_ACCEPTED.pass("") {
                    tracing::warn!(%error, held_back, "a connection could not be accepted");
                }
                sleep(EXHAUSTED).await;
            }
        }
    }
}

/// The next connection, and its place if its address has one left. Proxies carry many senders on one address: those
/// that are trusted, and those of this machine and network, have no share.
async fn accept(
    listener: &TcpListener,
    door: &Door,
    serving: &Serving,
) -> io::Result<(TcpStream, SocketAddr, Option<Slot>)> {
    let permit = serving.slots.wait().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    let address = peer.ip().to_canonical();
    let slot = if address::is_local(address) || door.routes.load().trusts(address) {
        Some(Slot::uncounted(permit))
    } else {
        serving.slots.take(permit, address)
    };
    if slot.is_some() {
        tune(&stream)?;
    }
    Ok((stream, peer, slot))
}

async fn run(stream: TcpStream, peer: SocketAddr, slot: Slot, door: Arc<Door>, serving: &Serving) {
    let mut stream = TimedWrites::new(stream, serving.idle);
    let (socket, secure, h2) = match &serving.tls {
        None => (Socket::Left(stream), false, None),
        Some(config) => {
            let h2 = Arc::clone(&serving.h2).try_acquire_owned().ok();
            let config = config.load_full();
            let acceptor = TlsAcceptor::from(if h2.is_some() { config } else { without_h2(&config) });
            stream.limit_reads(Some(HANDSHAKE_BYTES));
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(mut stream)) => {
                    let (socket, tls) = stream.get_mut();
                    socket.limit_reads(None);
                    tls.set_buffer_limit(Some(TLS_UNSENT_BYTES));
                    let h2 = h2.filter(|_| tls.alpn_protocol() == Some(b"h2"));
                    (Socket::Right(Box::new(stream)), true, h2)
                }
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => return tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        }
    };
    let origin = Origin { peer: peer.ip().to_canonical(), secure };
    // hyper reads a little more than the largest head in one go.
    let counted = Some(origin.peer).filter(|peer| !address::is_local(*peer) && !door.routes.load().trusts(*peer));
    let heads = door.memory.of_heads(counted.map(address::site));
    let watch = Arc::new(Watch::new(2 * serving.max_head, heads));
    let input = Arc::new(Input::default());
    let place = Place::new(slot);
    let connection = Arc::new(Connection { origin, place: place.clone() });
    let stack = stack(Arc::clone(&door), connection, Arc::clone(&watch), Arc::clone(&input));
    // Each layer is always ready. The stack is called at once, so that a request counts before hyper reads on.
    let service = service_fn(move |request| stack.clone().call(request));
    let socket = TokioIo::new(Watched::new(socket, Arc::clone(&watch), Arc::clone(&input), place));
    let closing = door.closing.clone();
    let outcome = if let Some(_place) = h2 {
        watch.off();
        let mut builder = http2::Builder::new(Streams { patience: serving.idle });
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_H2_STREAMS)
            .max_send_buf_size(MAX_H2_UNSENT_BYTES)
            .initial_stream_window_size(H2_WINDOW_BYTES)
            .initial_connection_window_size(H2_WINDOW_BYTES)
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
            // Pings keep a connection alive, not in use.
            () = input.idle(serving.idle) => {
                connection.as_mut().graceful_shutdown();
                let patience = if input.was_used() { serving.idle } else { FAREWELL };
                let unused = async {
                    sleep(patience).await;
                    input.idle(patience).await;
                };
                tokio::select! {
                    outcome = connection.as_mut() => outcome,
                    () = unused => return tracing::debug!(%peer, "an idle connection was closed"),
                }
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

fn without_h2(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols.retain(|protocol| protocol != b"h2");
    Arc::new(config)
}
