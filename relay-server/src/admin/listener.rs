//! The admin listener's connections: few, HTTP/1.1, each with a limit on its head and its patience.
//!
//! Whoever only connects keeps nobody out: when all places are taken, the connection that has waited longest for a request
//! gives its own to the next one. A stream of news gives its place back and ends with its connection: streams have a
//! bound of their own.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, header},
    response::IntoResponse as _,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use relay_program::{accept, news::EVENT_STREAM};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::gate::Local;
use crate::{
    failure::{ApiError, ApiErrorKind},
    ingress::{
        Client,
        socket::{TimedWrites, Transport},
    },
    throttle::Throttle,
};

static NOT_ACCEPTED: Throttle = Throttle::new();

/// Connections open at a time.
const MAX_CONNECTIONS: usize = 64;

/// A request's head must be there after this long; an idle connection ends after it too.
const HEAD: Duration = Duration::from_secs(10);

/// A request must be answered after this long, and something of the answer taken whenever it has waited so long.
const ANSWER: Duration = Duration::from_secs(30);

/// Largest head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let waiting = Arc::new(Waiting::default());
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept::next(&listener, not_accepted) => accepted,
        };
        if slots.available_permits() == 0 {
            waiting.end_oldest();
        }
        // If all are served at the moment, one of them is over after [`ANSWER`].
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (router, stop, waiting) = (router.clone(), stop.clone(), Arc::clone(&waiting));
        connections.spawn(async move {
            if let Err(error) = run(stream, peer, router, stop, &waiting, Mutex::new(Some(slot))).await {
                tracing::debug!(%error, "an admin connection broke");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

fn not_accepted(error: &io::Error) {
    if let Some(held_back) = NOT_ACCEPTED.pass("") {
        tracing::warn!(%error, held_back, "an admin connection could not be accepted");
    }
}

async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
    waiting: &Arc<Waiting>,
    slot: Mutex<Option<OwnedSemaphorePermit>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = Local(stream.local_addr()?);
    let stream = TimedWrites::new(Transport::Tcp(stream), ANSWER);
    let wait = Arc::new(Wait::new(waiting));
    let (end, slot) = (wait.end.clone(), Arc::new(slot));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(local);
        request.extensions_mut().insert(Client(peer.ip().to_canonical()));
        let (router, wait, slot) = (router.clone(), Arc::clone(&wait), Arc::clone(&slot));
        wait.pause();
        async move {
            let Ok(mut answer) = timeout(ANSWER, router.oneshot(request.map(Body::new)))
                .await
                .unwrap_or_else(|_| Ok(ApiError::new(ApiErrorKind::Timeout, "this took too long").into_response()));
            if answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == EVENT_STREAM) {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                drop(slot.lock().take());
            } else {
                wait.begin();
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD_BYTES)
        // Who has said everything may still wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = end.cancelled() => return Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    outcome.map_err(io::Error::other)
}

/// Connections that wait for a request, the one that has waited longest first. As many as there are places at most.
#[derive(Default)]
struct Waiting {
    queue: Mutex<VecDeque<(u64, CancellationToken)>>,
    connections: AtomicU64,
}

impl Waiting {
    fn end_oldest(&self) {
        if let Some((_, oldest)) = self.queue.lock().pop_front() {
            oldest.cancel();
        }
    }
}

/// One connection among them.
struct Wait {
    among: Arc<Waiting>,
    id: u64,
    /// Cancelled when somebody else needs its place.
    end: CancellationToken,
}

impl Wait {
    fn new(among: &Arc<Waiting>) -> Self {
        let id = among.connections.fetch_add(1, Ordering::Relaxed);
        let wait = Self { among: Arc::clone(among), id, end: CancellationToken::new() };
        wait.begin();
        wait
    }

    fn begin(&self) {
        self.among.queue.lock().push_back((self.id, self.end.clone()));
    }

    /// It has a request, and its place for as long as that is answered.
    fn pause(&self) {
        self.among.queue.lock().retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.pause();
    }
}
