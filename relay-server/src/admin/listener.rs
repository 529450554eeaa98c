//! The admin listener's connections: few, HTTP/1.1, each with a limit on its head and its patience.
//!
//! Whoever only connects keeps nobody out: when all places are taken, the connection that has waited longest for a request,
//! or for the rest of one, gives its own to the next one. A stream of news gives its place back and ends with its connection: streams have a
//! bound of their own.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, header},
    response::IntoResponse as _,
};
use bytes::Bytes;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use relay_program::{accept, news::EVENT_STREAM};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::gate::Local;
use crate::{
    api::ask::AnswerBy,
    ingress::{
        Client,
        socket::{TimedWrites, Transport},
    },
    throttle::Throttle,
};

static NOT_ACCEPTED: Throttle = Throttle::new();

/// Connections open at a time.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// A request's head must be there after this long; an idle connection ends after it too.
pub(crate) const HEAD: Duration = Duration::from_secs(10);

/// A request must be answered after this long, and something of the answer taken whenever it has waited so long.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

/// Connections whose answer may take longer than that at a time, such as a replay to a slow handler.
const MAX_LONGER: usize = 16;

/// Largest head, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (waiting, longer) = (Arc::new(Waiting::default()), Arc::new(Semaphore::new(MAX_LONGER)));
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
        let place = Place { slot: Mutex::new(Some(slot)), longer: Arc::clone(&longer) };
        connections.spawn(async move {
            if let Err(error) = run(stream, peer, router, stop, &waiting, place).await {
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

/// What a connection holds of what there is for all.
struct Place {
    slot: Mutex<Option<OwnedSemaphorePermit>>,
    longer: Arc<Semaphore>,
}

async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
    waiting: &Arc<Waiting>,
    place: Place,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = Local(stream.local_addr()?);
    let (twin, lasts) = (stream.as_fd().try_clone_to_owned()?, CancellationToken::new());
    let stream = TimedWrites::new(Transport::Tcp(stream), ANSWER);
    let wait = Arc::new(Wait::new(waiting));
    let (end, place, lasting) = (wait.end.clone(), Arc::new(place), lasts.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(local);
        request.extensions_mut().insert(Client(peer.ip().to_canonical()));
        let by = AnswerBy::new(ANSWER, Arc::clone(&place.longer), lasting.clone());
        request.extensions_mut().insert(by.clone());
        let (router, wait, place, lasts) = (router.clone(), Arc::clone(&wait), Arc::clone(&place), lasting.clone());
        if request.body().is_end_stream() {
            wait.pause();
        }
        let request = request.map(|inner| Body::new(Coming { inner, wait: Arc::clone(&wait) }));
        async move {
            let answer = by.wait(router.oneshot(request)).await;
            let Ok(mut answer) = answer.unwrap_or_else(|late| Ok(late.into_response()));
            if answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == EVENT_STREAM) {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                drop(place.slot.lock().take());
                lasts.cancel();
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
        .max_header_size(MAX_HEAD_BYTES)
        // Who has said everything may still wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = end.cancelled() => return Ok(()),
        () = left(twin, &lasts) => return Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    outcome.map_err(io::Error::other)
}

/// Ends when the peer of a connection that `lasts` has said all that it will: of a stream, or an answer that takes long,
/// that is its farewell. The connection itself reads nothing more before its answer has ended, since whoever says
/// everything at once may still wait for that.
async fn left(twin: OwnedFd, lasts: &CancellationToken) {
    lasts.cancelled().await;
    let Ok(twin) = TcpStream::from_std(twin.into()) else { return pending().await };
    if let Ok(1..) = twin.peek(&mut [0]).await {
        pending::<()>().await; // It asks for more before it has this.
    }
}

/// A request's body. Until it is whole, or nobody wants more of it, its connection waits.
struct Coming {
    inner: Incoming,
    wait: Arc<Wait>,
}

impl HttpBody for Coming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if self.inner.is_end_stream() || matches!(polled, Poll::Ready(None)) {
            self.wait.pause();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.wait.pause();
    }
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

    /// It has a whole request, and its place for as long as that is answered.
    fn pause(&self) {
        self.among.queue.lock().retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.pause();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_has_said_all_has_left_an_answer_that_lasts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (near, (far, _)) = (near.expect("connects"), far.expect("accepts"));
        let (twin, lasts) = (far.as_fd().try_clone_to_owned().expect("a twin"), CancellationToken::new());
        let mut left = std::pin::pin!(left(twin, &lasts));
        assert!(poll!(left.as_mut()).is_pending());
        lasts.cancel();
        assert!(poll!(left.as_mut()).is_pending(), "it is there");
        drop(near);
        left.await;
    }
}
