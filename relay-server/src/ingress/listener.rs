//! The public listener: accepts, ends TLS, and runs HTTP on each connection until it ends.
//!
//! One bad connection never stops the loop. HTTP/1.1 in the clear; under TLS what ALPN chose. Every wait for a peer has an
//! end: for a handshake, a head, a body, for somebody to take an answer, and for the next request.

use std::{convert::Infallible, future::poll_fn, io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::HttpService,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConnection, server::Acceptor};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    head::{Watch, Watched},
    own::OwnServices,
    proxy_protocol::{self, ProxiedEnds},
    public_socket::{Accepting, OpenListener},
    request::{Connection, Requests, ShownIdentity},
    slots::{ConnectionSlot, Runs, Slot, Slots},
    socket::{Socket, TimedWrites, Transport},
    stack::{self, AnswerBody},
    streams::Streams,
};
use crate::{
    address,
    client_certificate::ClientCertificate,
    config::{Config, Listen, ProxyProtocol, PublicListener, Timeouts},
    log::{self, LogScope},
    memory::MemoryBudget,
    routes::{Peer, SharedRoutes},
    throttle::Throttle,
    timer::SharedTimer,
    tls::{HelloAnswer, HelloPlace, TlsServer},
    webhook::{input::Input, wakes::ConnectionWaker},
};

/// How long a proxy may take to say whose a connection is.
pub(crate) const PROXY_HEADER: Duration = Duration::from_secs(5);

/// A TLS handshake may take this long.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes that a peer may send before its TLS handshake is done. Hellos have some hundred bytes to some thousand; rustls
/// itself would hold 64 KiB.
pub(crate) const HANDSHAKE_BYTES: usize = 24 * 1024;

/// Bytes of an answer that wait under TLS: two records. rustls' own bound is 64 KiB.
const TLS_UNSENT_BYTES: usize = 32 * 1024;

/// How long a connection without a request lives on after the stop was announced: an HTTP/1.1 sender that is
/// just about to use it again gets its answer, and with it `Connection: close`.
const LAME_DUCK: Duration = Duration::from_secs(1);

/// Streams that one HTTP/2 connection may have open.
pub(crate) const MAX_H2_STREAMS: u32 = 128;

/// HTTP/2 connections at a time. Each may hold some hundred KiB of windows and of heads that are not whole; beyond that,
/// new connections are offered HTTP/1.1 alone, which every sender speaks and which holds less.
pub(crate) const MAX_H2_CONNECTIONS: usize = 256;

/// What an HTTP/2 peer may send on a stream, and on all of them, before anything was read: 25 MiB in five seconds where a
/// round trip takes 100 ms.
pub(crate) const H2_WINDOW_BYTES: u32 = 512 * 1024;

/// Streams of an HTTP/2 connection that were reset before they were looked at; more end it (Rapid Reset,
/// CVE-2023-44487). This is h2's own bound.
pub(crate) const MAX_H2_EARLY_RESETS: usize = 20;

/// Streams that an HTTP/2 peer may have the relay reset, by frames that are wrong on them; more end its connection
/// (MadeYouReset, CVE-2025-8671). Streams beyond [`MAX_H2_STREAMS`] count, and a peer that does not know that yet may
/// open some. h2's own bound is 1024.
pub(crate) const MAX_H2_CAUSED_RESETS: usize = 256;

/// Bytes of an answer that one HTTP/2 stream takes before its peer has given it window. hyper's own bound is 400 KiB,
/// and a peer that gives none would hold that for each stream.
pub(crate) const MAX_H2_UNSENT_BYTES: usize = 64 * 1024;

/// A connection that never asked for anything gets this long to read its farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connections that found their address's places taken.
static CROWDED: Throttle<1> = Throttle::new();

/// Connections with a header of the PROXY protocol that are not a trusted proxy's, or whose header is none.
static UNTRUSTED: Throttle<1> = Throttle::new();

/// Connections that could not be accepted.
static NOT_ACCEPTED: Throttle<1> = Throttle::new();

/// Header lines of one request. Over HTTP/1.1 it is hyper's own bound, for which it has room without an allocation.
pub(crate) const MAX_HEADERS: usize = 100;

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
    tls: Arc<TlsServer>,
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
    shown: ShownIdentity,
}

/// A connection that was just accepted.
struct Accepted {
    transport: Transport,
    peer: IpAddr,
    place: Slot,
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
        tls: Arc<TlsServer>,
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
    pub(crate) async fn serve(self: Arc<Self>, listener: OpenListener, own: Arc<OwnServices>) {
        let OpenListener { socket, settings } = listener;
        let listener = match Accepting::new(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, at = %settings.at, "a worker cannot listen"),
        };
        if let Err(error) = listener.tune() {
            not_accepted(&error);
        }
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.open.closing.cancelled() => return,
                accepted = self.accept(&listener, &settings) => accepted,
            };
            let Some(accepted) = accepted else { continue };
            let (this, settings, own) = (Arc::clone(&self), Arc::clone(&settings), Arc::clone(&own));
            let scope = LogScope::connection((settings.proxy_protocol == ProxyProtocol::Off).then_some(accepted.peer));
            let input = Arc::<Input>::default();
            self.slots.run(Arc::clone(&input), |runs| {
                let run = scope.around(Box::pin(this.run(accepted, settings, own, (input, runs))));
                self.open.tasks.spawn(run).abort_handle()
            });
        }
    }

    /// The next connection, if its address has a place left. That of one behind a proxy is not known yet.
    async fn accept(&self, listener: &Accepting, settings: &PublicListener) -> Option<Accepted> {
        let place = Slot::uncounted(self.slots.wait().await.ok()?);
        let (transport, peer) = listener.next(not_accepted).await;
        let place = match settings.proxy_protocol {
            ProxyProtocol::Off => self.counted(place, peer)?,
            _ => place,
        };
        Some(Accepted { transport, peer, place })
    }

    /// A place that counts for its address, if that has one left. Proxies carry many senders on one address: those that are
    /// trusted, and those of this machine and network, have no share.
    fn counted(&self, place: Slot, peer: IpAddr) -> Option<Slot> {
        if address::is_local(peer) || self.routes.load().trusts(peer) {
            return Some(place);
        }
        let counted = self.slots.count(place, peer);
        if counted.is_none()
            && let Some(held_back) = CROWDED.pass("")
        {
            tracing::warn!(%peer, held_back, "an address has as many connections as one may; more were closed");
        }
        counted
    }

    /// One connection from its first byte to its last.
    async fn run(
        self: Arc<Self>,
        accepted: Accepted,
        settings: Arc<PublicListener>,
        own: Arc<OwnServices>,
        (input, _runs): (Arc<Input>, Runs),
    ) {
        let Accepted { transport, peer, place } = accepted;
        let mut stream = TimedWrites::new(transport, self.timeouts.idle);
        let (mut peer, mut place, mut local) = (peer, place, stream.local_address());
        let mut is_unnamed = false;
        if settings.proxy_protocol != ProxyProtocol::Off {
            let Some(ends) = self.ends(&mut stream, peer, &settings).await else { return };
            match ends {
                Some(ProxiedEnds { source, destination }) => {
                    (peer, local) = (source.to_canonical(), Some(destination));
                }
                None => is_unnamed = true,
            }
            log::peer_is(peer);
            let Some(counted) = self.counted(place, peer) else { return };
            place = counted;
        }
        let Some(Ready { socket, secure, h2, shown }) = self.secure(stream, local, &settings).await else { return };
        let peer = Peer { address: peer, secure };
        // hyper reads a little more than the largest head in one go.
        let counted = !address::is_local(peer.address) && !self.routes.load().trusts(peer.address);
        let heads = self.memory.of_heads(counted.then(|| address::site(peer.address)));
        let watch = Arc::new(Watch::new(2 * self.max_head, heads));
        let (place, timer) = (ConnectionSlot::new(place), SharedTimer::default());
        let connection = Connection {
            peer,
            address: peer.address.to_string().into(),
            is_unnamed,
            place: place.clone(),
            watch: Arc::clone(&watch),
            input: Arc::clone(&input),
            own,
            timer: timer.clone(),
            shown,
        };
        let service = stack::service(Arc::clone(&self.requests), Arc::new(connection));
        let mut socket = Watched::new(socket, watch, Arc::clone(&input), place);
        let outcome = match h2 {
            Some(_place) => {
                socket.counts_frames();
                Box::pin(self.serve_http2(TokioIo::new(socket), service, &input)).await
            }
            None => self.serve_http1(TokioIo::new(socket), service, timer).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection broke");
        }
    }

    /// What a proxy says of a connection's ends; `None` if it is to be closed.
    async fn ends(
        &self,
        stream: &mut TimedWrites,
        peer: IpAddr,
        settings: &PublicListener,
    ) -> Option<Option<ProxiedEnds>> {
        let refused = |why: &str| {
            if let Some(held_back) = UNTRUSTED.pass("") {
                let at = &settings.at;
                tracing::warn!(%peer, %at, held_back, why, "a connection without a trusted proxy's header was closed");
            }
        };
        if !matches!(settings.at, Listen::Unix(_)) && !self.routes.load().trusts(peer) {
            refused("it comes from none of trusted_proxies");
            return None;
        }
        match Box::pin(timeout(PROXY_HEADER, proxy_protocol::read(stream, settings.proxy_protocol))).await {
            Ok(Ok(ends)) => Some(ends),
            // A probe that only connects.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Ok(Err(error)) => {
                refused(&error.to_string());
                None
            }
            Err(_) => {
                refused("it took too long");
                None
            }
        }
    }

    /// Ends TLS, where this listener does that; `None` if its handshake failed, or was all that the peer came for.
    async fn secure(&self, mut stream: TimedWrites, local: Option<IpAddr>, settings: &PublicListener) -> Option<Ready> {
        if !settings.tls {
            let shown = ShownIdentity::default();
            return Some(Ready { socket: Socket::Left(stream), secure: false, h2: None, shown });
        }
        let h2 = Arc::clone(&self.h2).try_acquire_owned().ok();
        stream.limit_reads(Some(HANDSHAKE_BYTES));
        let place = HelloPlace { local, clients: settings.clients.as_deref(), may_h2: h2.is_some() };
        match Box::pin(timeout(HANDSHAKE, handshake(&self.tls, stream, place))).await {
            Ok(Ok(Some((mut stream, clients)))) => {
                let (socket, tls) = stream.get_mut();
                socket.limit_reads(None);
                tls.set_buffer_limit(Some(TLS_UNSENT_BYTES));
                let h2 = h2.filter(|_| tls.alpn_protocol() == Some(b"h2"));
                let shown = match clients {
                    Some(clients) => shown_by(tls, clients, settings.clients.is_some())?,
                    None => ShownIdentity::default(),
                };
                Some(Ready { socket: Socket::Right(stream), secure: true, h2, shown })
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
            .max_pending_accept_reset_streams(MAX_H2_EARLY_RESETS)
            .max_local_error_reset_streams(MAX_H2_CAUSED_RESETS)
            .max_send_buf_size(MAX_H2_UNSENT_BYTES)
            .initial_stream_window_size(H2_WINDOW_BYTES)
            .initial_connection_window_size(H2_WINDOW_BYTES)
            // h2 refuses a list that is as large as this.
            .max_header_list_size(u32::try_from(self.max_head + 1).unwrap_or(u32::MAX))
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

    async fn serve_http1<S>(
        &self,
        socket: TokioIo<Watched<Socket>>,
        service: S,
        timer: SharedTimer,
    ) -> hyper::Result<()>
    where
        S: HttpService<Incoming, ResBody = AnswerBody, Error = Infallible, Future: Send + 'static>,
    {
        let mut builder = http1::Builder::new();
        builder.timer(timer).header_read_timeout(self.timeouts.header);
        builder.max_buf_size(self.max_head).max_header_size(self.max_head);
        let mut connection = pin!(builder.serve_connection(socket, service).with_upgrades());
        let leaving = async {
            self.open.closing.cancelled().await;
            sleep(LAME_DUCK).await;
        };
        // It is polled when it has something to say, and not whenever its connection has.
        let mut leaving = FuturesUnordered::from_iter([leaving]);
        let mut waker = ConnectionWaker::default();
        tokio::select! {
            outcome = poll_fn(|cx| waker.poll(connection.as_mut(), cx)) => outcome,
            _ = leaving.next() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }
}

type Secured = (Box<TlsStream<TimedWrites>>, Option<Arc<str>>);

/// Reads a hello, and goes on as it asks: the connection, and among which clients its peer has shown a certificate.
/// Nothing comes of one that only asks for an authority's proof.
async fn handshake(tls: &TlsServer, stream: TimedWrites, place: HelloPlace<'_>) -> io::Result<Option<Secured>> {
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let answer = tls.answer(&begun.client_hello(), place);
    match answer {
        HelloAnswer::Serve(config, clients) => Ok(Some((Box::new(begun.into_stream(config).await?), clients))),
        HelloAnswer::Prove(config) => {
            begun.into_stream(config).await?.shutdown().await?;
            Ok(None)
        }
        HelloAnswer::Nothing => {
            tracing::debug!("a hello asks for what is not here");
            Ok(None)
        }
    }
}

/// Whose certificate was shown. One that cannot be read lets nobody in.
fn shown_by(tls: &ServerConnection, clients: Arc<str>, by_listener: bool) -> Option<ShownIdentity> {
    let certificate = ClientCertificate::read(clients, tls.peer_certificates()?.first()?)?;
    let host = if by_listener { None } else { Some(tls.server_name()?.trim_end_matches('.').into()) };
    Some(ShownIdentity { certificate: Some(Arc::new(certificate)), host })
}
