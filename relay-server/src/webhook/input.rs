//! The end of a connection's input, and which requests it ends.
//!
//! A sender that has said everything may close its direction and wait for the answer (RFC 9112, section 9.6). hyper
//! takes the end of input for the sender's leaving and drops what is under way. So the reader below hyper asks here
//! first, and holds the end back while a request is open that does not end with it. A body that is not whole by then
//! breaks off at once: a [`RequestBody`] asks here, too.
//!
//! Invariants: one reader waits here, and at most one waker for each open body; a request that is dropped, for whatever
//! reason, holds nothing any more.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{Instant, sleep_until};

use super::wakes::held_back;

/// Trailers of a request, as lines of HTTP/1.1. hyper takes as much of them as of a head.
pub(crate) const MAX_TRAILER_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Input {
    state: Mutex<State>,
    /// Pieces of answers that were handed on.
    sent: AtomicU64,
}

#[derive(Debug)]
struct State {
    ended: bool,
    /// Requests whose answer has not ended.
    open: usize,
    /// Those of them that outlast the end of input.
    holding: usize,
    /// When a request ended last; at first when the connection began.
    last: Instant,
    requests: u64,
    /// Who reads the connection, while the end is held back.
    reader: Option<Waker>,
    bodies: Vec<(u64, Waker)>,
}

impl Default for Input {
    fn default() -> Self {
        let state = State {
            ended: false,
            open: 0,
            holding: 0,
            last: Instant::now(),
            requests: 0,
            reader: None,
            bodies: Vec::new(),
        };
        Self { state: Mutex::new(state), sent: AtomicU64::new(0) }
    }
}

impl Input {
    /// A request that has begun. Until it says otherwise, it outlasts the end of input.
    pub(crate) fn open(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.state.lock();
        state.open += 1;
        state.holding += 1;
        state.requests += 1;
        OpenRequest { input: Arc::clone(self), id: state.requests, holds: true }
    }

    /// The input has ended. Whether the end is to be held back; the task is woken when that is over.
    pub(crate) fn holds_back(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if !state.ended {
            state.ended = true;
            state.bodies.drain(..).for_each(|(_, body)| body.wake());
        }
        let holds = state.holding > 0;
        state.reader = holds.then(|| cx.waker().clone());
        holds
    }

    /// Ends once no request has been open for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let due = {
                let state = self.state.lock();
                let busy = state.open > 0;
                let since = if busy { now } else { state.last };
                since + limit
            };
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Since when no request is open.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.open == 0).then_some(state.last)
    }

    /// Pieces of answers that were handed on so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn was_used(&self) -> bool {
        self.state.lock().requests > 0
    }
}

impl State {
    fn release(&mut self) {
        self.holding -= 1;
        if self.holding == 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

/// A request from its head to the end of its answer.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    input: Arc<Input>,
    id: u64,
    holds: bool,
}

impl OpenRequest {
    /// The request is given up when the connection's input ends.
    pub(crate) fn end_with_input(&mut self) {
        if std::mem::replace(&mut self.holds, false) {
            self.input.state.lock().release();
        }
    }

    /// A piece of its answer is handed on.
    pub(crate) fn sends(&self) {
        self.input.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn body(&self, inner: Incoming) -> RequestBody {
        RequestBody { inner, input: Arc::clone(&self.input), id: self.id, waits: false }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.input.state.lock();
        state.open -= 1;
        state.last = Instant::now();
        if self.holds {
            state.release();
        }
    }
}

#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Incoming,
    input: Arc<Input>,
    id: u64,
    /// Whether its waker stands in the list of the connection.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the body broke off")]
pub(crate) struct BrokenOff;

fn trailers_fit(trailers: &HeaderMap) -> bool {
    const AROUND: usize = ": \r\n".len();
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + AROUND;
    trailers.iter().map(line).sum::<usize>() <= MAX_TRAILER_BYTES
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        let (polled, woken) = held_back(|| Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(woken) = woken.filter(|_| !this.inner.is_end_stream()) {
            woken.wake(); // There is more to read.
        }
        if let Poll::Ready(frame) = polled {
            let fits = |frame: &Frame<Bytes>| frame.trailers_ref().is_none_or(trailers_fit);
            return Poll::Ready(frame.map(|frame| frame.ok().filter(fits).ok_or(BrokenOff)));
        }
        // hyper has handed on all that came, so that nothing more will.
        let mut state = this.input.state.lock();
        if state.ended {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        match state.bodies.iter_mut().find(|(id, _)| *id == this.id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.bodies.push((this.id, cx.waker().clone())),
        }
        this.waits = true;
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.waits {
            self.input.state.lock().bodies.retain(|(id, _)| *id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use tokio::time::timeout;

    use super::*;

    #[derive(Default)]
    struct Woken(Mutex<usize>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            *self.0.lock() += 1;
        }
    }

    #[test]
    fn the_end_is_held_back_until_no_request_needs_it_held() {
        let (input, woken) = (Arc::new(Input::default()), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        assert!(!input.holds_back(&cx), "nothing is open");
        let (mut live, kept) = (input.open(), input.open());
        assert!(input.holds_back(&cx));
        live.end_with_input();
        live.end_with_input();
        assert!(input.holds_back(&cx), "the other one still does");
        drop(live);
        assert_eq!(*woken.0.lock(), 0);
        drop(kept);
        assert_eq!(*woken.0.lock(), 1, "the reader may go on");
        assert!(!input.holds_back(&cx));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nothing_was_open_for_so_long() {
        let (input, limit) = (Arc::new(Input::default()), Duration::from_secs(60));
        let began = Instant::now();
        input.idle(limit).await;
        assert_eq!(began.elapsed(), limit);
        assert!(!input.was_used());
        let open = input.open();
        assert!(timeout(10 * limit, input.idle(limit)).await.is_err(), "an answer takes as long as it takes");
        drop(open);
        let ended = Instant::now();
        input.idle(limit).await;
        assert_eq!(ended.elapsed(), limit);
        assert!(input.was_used());
    }
}
