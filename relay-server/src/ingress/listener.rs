//! The public listener: accepts, ends TLS, and runs HTTP on each connection until it ends.
//!
//! One bad connection never stops the loop. HTTP/1.1 in the clear; under TLS what ALPN chose. Every wait for a peer has an
//! end: for a handshake, a head, a body, for somebody to take an answer, and for the next request.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::HttpService,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_program::{
    accept,
    socket::{INHERITED, tune},
};
use rustls::server::Acceptor;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{
    head::{Watch, Watched},
    own::OwnServices,
    request::{Connection, Requests},
    slots::{ConnectionSlot, Slot, Slots},
    socket::{Socket, TimedWrites},
    stack::{self, AnswerBody},
    streams::Streams,
};
use crate::{
    address,
    config::{Config, Timeouts},
    memory::MemoryBudget,
    routes::{Peer, SharedRoutes},
    throttle::Throttle,
    tls::{HelloAnswer, TlsServer},
    webhook::input::Input,
};

/// A TLS handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes that a peer may send before its TLS handshake is done. Hellos have some hundred bytes to some thousand; rustls
/// itself would hold 64 KiB.
const HANDSHAKE_BYTES: usize = 24 * 1024;

/// Bytes of an answer that wait under TLS: two records. rustls' own bound is 64 KiB.
const TLS_UNSENT_BYTES: usize = 32 * 1024;

/// How long a connection without a request lives on after the stop was announced: an HTTP/1.1 sender that is
/// just about to use it again gets its answer, and with it `Connection: close`.
const LAME_DUCK: Duration = Duration::from_secs(1);

/// Streams that one HTTP/2 connection may have open.
const MAX_H2_STREAMS: u32 = 128;

/// HTTP/2 connections at a time. Each may hold some hundred KiB of windows and of heads that are not whole; beyond that,
/// new connections are offered HTTP/1.1 alone, which every sender speaks and which holds less.
const MAX_H2_CONNECTIONS: usize = 256;

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

/// Header lines of one request. Over HTTP/1.1 it is hyper's own bound, for which it has room without an allocation.
pub(super) const MAX_HEADERS: usize = 100;

/// The connections that are open, and whether there may be more. What goes on with one after its upgrade counts, too.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenConnections {
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// The public side of a relay.
pub(crate) struct Ingress {
    timeouts: Timeouts,
    max_head: usize,
    tls: Option<Arc<TlsServer>>,
    slots: Slots,
    /// Places for HTTP/2 among them.
    h2: Arc<Semaphore>,
    routes: SharedRoutes,
    pub(super) memory: Arc<MemoryBudget>,
    requests: Arc<Requests>,
    pub(super) open: OpenConnections,
}

/// A connection that is ready for HTTP.
struct Ready {
    socket: Socket,
    secure: bool,
    /// There if HTTP/2 was agreed on.
    h2: Option<OwnedSemaphorePermit>,
}

fn not_accepted(error: &io::Error) {
    if let Some(held_back) = NOT_ACCEPTED.pass("") {
        tracing::warn!(%error, held_back, "a connection could not be accepted");
    }
}

impl Ingress {
    pub(super) fn over(
        config: &Config,
        max_connections: usize,
        routes: SharedRoutes,
        memory: Arc<MemoryBudget>,
        requests: Arc<Requests>,
        open: OpenConnections,
        tls: Option<Arc<TlsServer>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            timeouts: config.limits.timeouts,
            max_head: config.limits.max_head,
            tls,
            slots: Slots::new(max_connections, config.server.max_connections_per_address),
            h2: Arc::new(Semaphore::new(MAX_H2_CONNECTIONS)),
            routes,
            memory,
            requests,
            open,
        })
    }

    /// Accepts on this listener and this runtime until the drain.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, own: Arc<OwnServices>) {
        if let Err(error) = tune(&listener) {
            not_accepted(&error);
        }
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.open.closing.cancelled() => return,
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Some((_, peer, None)) => {
                    if let Some(held_back) = CROWDED.pass("") {
                        let peer = peer.ip();
                        tracing::warn!(%peer, held_back, "an address has as many connections as one may; more were closed");
                    }
                }
                Some((stream, peer, Some(slot))) => {
                    let (this, own) = (Arc::clone(&self), Arc::clone(&own));
                    let span = tracing::info_span!("connection", peer = %peer.ip());
                    self.open.tasks.spawn(Box::pin(this.run(stream, peer, slot, own)).instrument(span));
                }
                None => {}
            }
        }
    }

    /// The next connection, and its place if its address has one left. Proxies carry many senders on one address: those
    /// that are trusted, and those of this machine and network, have no share.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr, Option<Slot>)> {
        let permit = self.slots.wait().await.ok()?;
        let (stream, peer) = accept::next(listener, not_accepted).await;
        let address = peer.ip().to_canonical();
        let slot = if address::is_local(address) || self.routes.load().trusts(address) {
            Some(Slot::uncounted(permit))
        } else {
            self.slots.take(permit, address)
        };
        if slot.is_some() && !INHERITED {
            tune(&stream).inspect_err(not_accepted).ok()?;
        }
        Some((stream, peer, slot))
    }

    /// One connection from its first byte to its last.
    async fn run(self: Arc<Self>, stream: TcpStream, address: SocketAddr, slot: Slot, own: Arc<OwnServices>) {
        let stream = TimedWrites::new(stream, self.timeouts.idle);
        let Some(Ready { socket, secure, h2 }) = self.secure(stream).await else { return };
        let peer = Peer { address: address.ip().to_canonical(), secure };
        // hyper reads a little more than the largest head in one go.
        let counted = !address::is_local(peer.address) && !self.routes.load().trusts(peer.address);
        let heads = self.memory.of_heads(counted.then(|| address::site(peer.address)));
        let watch = Arc::new(Watch::new(2 * self.max_head, heads));
        let input = Arc::new(Input::default());
        let place = ConnectionSlot::new(slot);
        let connection = Connection {
            peer,
            address: peer.address.to_string().into(),
            place: place.clone(),
            watch: Arc::clone(&watch),
            input: Arc::clone(&input),
            own,
        };
        let service = stack::service(Arc::clone(&self.requests), Arc::new(connection));
        let socket = TokioIo::new(Watched::new(socket, Arc::clone(&watch), Arc::clone(&input), place));
        let outcome = match h2 {
            Some(_place) => {
                watch.off();
                Box::pin(self.serve_http2(socket, service, &input)).await
            }
            None => self.serve_http1(socket, service).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection broke");
        }
    }

    /// Ends TLS, where the relay does that; `None` if its handshake failed, or was all that the peer came for.
    async fn secure(&self, mut stream: TimedWrites) -> Option<Ready> {
        let Some(tls) = &self.tls else {
            return Some(Ready { socket: Socket::Left(stream), secure: false, h2: None });
        };
        let h2 = Arc::clone(&self.h2).try_acquire_owned().ok();
        stream.limit_reads(Some(HANDSHAKE_BYTES));
        match Box::pin(timeout(HANDSHAKE, handshake(tls, stream, h2.is_some()))).await {
            Ok(Ok(Some(mut stream))) => {
                let (socket, tls) = stream.get_mut();
                socket.limit_reads(None);
                tls.set_buffer_limit(Some(TLS_UNSENT_BYTES));
                let h2 = h2.filter(|_| tls.alpn_protocol() == Some(b"h2"));
                Some(Ready { socket: Socket::Right(stream), secure: true, h2 })
            }
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }

    async fn serve_http2<S>(&self, socket: TokioIo<Watched<Socket>>, service: S, input: &Input) -> hyper::Result<()>
    where
        S: HttpService<Incoming, ResBody = AnswerBody, Error = Infallible, Future: Send + 'static>,
    {
        let idle = self.timeouts.idle;
        let mut builder = http2::Builder::new(Streams { patience: idle });
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_H2_STREAMS)
            .max_send_buf_size(MAX_H2_UNSENT_BYTES)
            .initial_stream_window_size(H2_WINDOW_BYTES)
            .initial_connection_window_size(H2_WINDOW_BYTES)
            .max_header_list_size(u32::try_from(self.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let mut connection = pin!(builder.serve_connection(socket, service));
        tokio::select! {
            outcome = connection.as_mut() => return outcome,
            () = self.open.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                return connection.await;
            }
            // Pings keep a connection alive, not in use.
            () = input.idle(idle) => connection.as_mut().graceful_shutdown(),
        }
        let patience = if input.was_used() { idle } else { FAREWELL };
        let unused = async {
            sleep(patience).await;
            input.idle(patience).await;
        };
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = unused => {
                tracing::debug!("an idle connection was closed");
                Ok(())
            }
        }
    }

    async fn serve_http1<S>(&self, socket: TokioIo<Watched<Socket>>, service: S) -> hyper::Result<()>
    where
        S: HttpService<Incoming, ResBody = AnswerBody, Error = Infallible, Future: Send + 'static>,
    {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.timeouts.header).max_buf_size(self.max_head);
        let mut connection = pin!(builder.serve_connection(socket, service).with_upgrades());
        let leaving = async {
            self.open.closing.cancelled().await;
            sleep(LAME_DUCK).await;
        };
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = leaving => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }
}

/// Reads a hello, and goes on as it asks. Nothing comes of one that only asks for an authority's proof.
async fn handshake(
    tls: &TlsServer,
    stream: TimedWrites,
    may_h2: bool,
) -> io::Result<Option<Box<TlsStream<TimedWrites>>>> {
    let local = stream.local_address();
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    match tls.answer(&begun.client_hello(), local, may_h2) {
        HelloAnswer::Serve(config) => begun.into_stream(config).await.map(Box::new).map(Some),
        HelloAnswer::Prove(config) => {
            begun.into_stream(config).await?.shutdown().await?;
            Ok(None)
        }
        HelloAnswer::Nothing => {
            tracing::debug!("somebody asked for a certificate's proof that is not there");
            Ok(None)
        }
    }
}
