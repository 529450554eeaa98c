//! The body of a handler's answer.
//!
//! Passes frames through as they come, watches the clock, and decides the fate of the connection below it. It
//! buffers nothing and never turns a break into an end.
//!
//! Invariants: after an error or an end nothing follows; the connection goes back to the pool only at a clean end,
//! and is closed when the body is dropped before.

use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{CallError, Timeout, pool::Lease};

/// The body of an answer. Dropping it before its end closes the handler's connection.
pub(crate) struct ResponseBody {
    incoming: Incoming,
    /// Gone once the answer has ended or failed.
    lease: Option<Lease>,
    idle: Duration,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs for the present wait.
    armed: bool,
}

impl ResponseBody {
    /// `held` keeps the connection even though the body is empty: it was upgraded.
    pub(super) fn new(incoming: Incoming, lease: Lease, idle: Duration, deadline: Instant, held: bool) -> Self {
        let mut body = Self { incoming, lease: Some(lease), idle, deadline, timer: None, armed: false };
        if !held {
            body.finish_if_ended();
        }
        body
    }

    fn finish_if_ended(&mut self) {
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        let until = self.deadline.min(Instant::now() + self.idle);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if !std::mem::replace(&mut self.armed, true) {
            timer.as_mut().reset(until);
        }
        ready!(timer.as_mut().poll(cx));
        let limit = if Instant::now() >= self.deadline { Timeout::Total } else { Timeout::Idle };
        Poll::Ready(CallError::Timeout(limit))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let this = self.get_mut();
        if this.lease.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.armed = false;
                this.finish_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(CallError::Broken(relay_program::reason::of_chain(&error)))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => this.poll_timer(cx).map(|error| {
                this.lease = None;
                Some(Err(error))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("ended", &self.is_end_stream()).finish_non_exhaustive()
    }
}
