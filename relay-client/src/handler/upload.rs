//! The request body on its way to a handler, watched for progress.
//!
//! It passes frames through untouched and notes when it handed the last one over, so that the wait for the answer can
//! tell an upload that moves from one that stalls. It buffers nothing: the connection asks for frames at its own pace.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{BoxError, RequestBody, Timeout, Timeouts};

pub(super) struct Upload {
    inner: RequestBody,
    progress: Progress,
}

/// How far an upload is; shared between the body and the call that waits for the answer.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

struct State {
    moved: Instant,
    finished: bool,
}

impl Upload {
    pub(super) fn new(inner: RequestBody) -> (Self, Progress) {
        let state = State { moved: Instant::now(), finished: inner.is_end_stream() };
        let progress = Progress(Arc::new(Mutex::new(state)));
        (Self { inner, progress: progress.clone() }, progress)
    }
}

impl Progress {
    /// Until when the answer may be waited for, and the limit that ends then.
    pub(super) fn next_limit(&self, timeouts: &Timeouts, deadline: Instant) -> (Instant, Timeout) {
        let state = self.lock();
        let (until, limit) = if state.finished {
            (state.moved + timeouts.head, Timeout::Head)
        } else {
            (state.moved + timeouts.idle, Timeout::Idle)
        };
        if until <= deadline { (until, limit) } else { (deadline, Timeout::Total) }
    }

    fn note(&self, finished: bool) {
        let mut state = self.lock();
        if !state.finished {
            *state = State { moved: Instant::now(), finished };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            this.progress.note(frame.is_none() || this.inner.is_end_stream());
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

impl Drop for Upload {
    /// The connection drops a body that it has sent or given up; either way only the answer is left to wait for.
    fn drop(&mut self) {
        self.progress.note(true);
    }
}
