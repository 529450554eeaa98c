//! The handles to one exchange: a writer and a reader on each side.
//!
//! The response carries the exchange. Whoever drops the relay's reader of it, or the agent's writer
//! of it, before its end resets the stream; so does a dropped writer of the request. An agent that
//! drops the reader of the request only reads no further: it may still answer.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use relay_proto::{HeaderBlock, RequestHead, ResetCode, ResponseHead, limits::MAX_CHUNK_BYTES};

use crate::{
    http::header_map,
    stream::{Broken, OUT_BYTES, Stream},
};

/// An exchange as the relay holds it: it writes the request and reads the response.
#[derive(Debug)]
pub struct Exchange {
    /// The request's body.
    pub request: Sender,
    /// The response, which may come before the request's end.
    pub response: ResponseFuture,
}

/// An exchange as the agent holds it: it reads the request and writes the response.
#[derive(Debug)]
pub struct Request {
    /// The request's head.
    pub head: RequestHead,
    /// The request's body.
    pub body: Receiver,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Writes one direction of an exchange. Dropped before [`Sender::finish`], it resets the stream.
pub struct Sender {
    stream: Arc<Stream>,
    /// What a drop means: `Cancelled` for a request, `Broken` for a response.
    unfinished: ResetCode,
    finished: bool,
}

/// Waits for the response's head. Dropped before it came, it resets the stream.
pub struct ResponseFuture {
    stream: Option<Arc<Stream>>,
}

/// Reads one direction of an exchange as an HTTP body.
pub struct Receiver {
    stream: Arc<Stream>,
    /// The response: dropping it before its end resets the stream.
    carries: bool,
    ended: bool,
}

/// Answers a request. Dropped without an answer, it resets the stream.
pub struct Responder {
    stream: Option<Arc<Stream>>,
}

impl Exchange {
    pub(crate) fn new(stream: Arc<Stream>) -> Self {
        let request = Sender { stream: Arc::clone(&stream), unfinished: ResetCode::Cancelled, finished: false };
        Self { request, response: ResponseFuture { stream: Some(stream) } }
    }
}

impl Request {
    pub(crate) fn new(head: RequestHead, stream: Arc<Stream>) -> Self {
        let body = Receiver { stream: Arc::clone(&stream), carries: false, ended: false };
        Self { head, body, responder: Responder { stream: Some(stream) } }
    }
}

impl Sender {
    /// Sends body bytes, each chunk of them once there is room for it.
    ///
    /// # Errors
    /// [`Broken`] when the other side takes no more; [`ResetCode::NoError`] in it means that it has
    /// all that it wants.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Broken> {
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_room(cx)).await?;
            let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK_BYTES));
            self.stream.update(|state| state.out.push(chunk));
        }
        Ok(())
    }

    /// Ends this direction, with trailers if there are any.
    pub fn finish(mut self, trailers: HeaderBlock) {
        self.finished = true;
        self.stream.update(|state| state.finish = Some(trailers));
    }

    /// Breaks the exchange off.
    pub fn reset(mut self, code: ResetCode) {
        self.finished = true;
        self.stream.reset(code);
    }

    /// Waits until the other side takes no more, whatever the reason.
    pub async fn closed(&mut self) -> Broken {
        poll_fn(|cx| {
            let mut state = self.stream.lock();
            match state.broken {
                Some(broken) => Poll::Ready(broken),
                None => {
                    state.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut state = self.stream.lock();
        if let Some(broken) = state.broken {
            return Poll::Ready(Err(broken));
        }
        if state.out.len() < OUT_BYTES {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.reset(self.unfinished);
        }
    }
}

impl ResponseFuture {
    /// The response's head and the reader of its body.
    ///
    /// # Errors
    /// [`Broken`] when the exchange ended without a response.
    pub async fn head(mut self) -> Result<(ResponseHead, Receiver), Broken> {
        let stream = Arc::clone(self.stream.as_ref().expect("taken only below"));
        let head = poll_fn(|cx| {
            let mut state = stream.lock();
            if let Some(head) = state.response.take() {
                return Poll::Ready(Ok(head));
            }
            if let Some(broken) = state.broken {
                return Poll::Ready(Err(broken));
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await?;
        self.stream = None;
        Ok((head, Receiver { stream, carries: true, ended: false }))
    }
}

impl Drop for ResponseFuture {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.reset(ResetCode::Cancelled);
        }
    }
}

impl Responder {
    /// Begins the response.
    #[must_use = "the response ends only with Sender::finish"]
    pub fn respond(mut self, head: ResponseHead) -> Sender {
        let stream = self.stream.take().expect("taken only here");
        stream.update(|state| state.respond = Some(head));
        Sender { stream, unfinished: ResetCode::Broken, finished: false }
    }

    /// Says why there is no response.
    pub fn reset(mut self, code: ResetCode) {
        if let Some(stream) = self.stream.take() {
            stream.reset(code);
        }
    }

    /// Waits until nobody wants the response any more.
    pub async fn cancelled(&mut self) -> Broken {
        let stream = self.stream.as_ref().expect("taken only with self");
        poll_fn(|cx| {
            let mut state = stream.lock();
            match state.broken {
                Some(broken) => Poll::Ready(broken),
                None => {
                    state.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.reset(ResetCode::Broken);
        }
    }
}

impl Receiver {
    /// Breaks the exchange off: what comes cannot be taken.
    pub fn reset(self, code: ResetCode) {
        if !self.ended {
            self.stream.reset(code);
        }
    }
}

impl Body for Receiver {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let stream = Arc::clone(&self.stream);
        let mut state = stream.lock();
        if let Some(bytes) = state.body.pop() {
            drop(state);
            stream.update(|state| state.read_bytes += bytes.len());
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(trailers) = state.end.take() {
            self.ended = true;
            if trailers.is_empty() {
                return Poll::Ready(None);
            }
            return match header_map(&trailers) {
                Ok(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Err(_) => Poll::Ready(Some(Err(Broken::Reset(ResetCode::Broken)))),
            };
        }
        if let Some(broken) = state.broken {
            self.ended = true;
            return Poll::Ready(Some(Err(broken)));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = self.stream.lock();
        self.ended || (state.body.is_empty() && state.end.as_ref().is_some_and(HeaderBlock::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.stream.lock();
        let here = state.body.len();
        match state.end {
            Some(_) => SizeHint::with_exact(here as u64),
            None => {
                let mut hint = SizeHint::new();
                hint.set_lower(here as u64);
                hint
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let state = self.stream.lock();
        if self.ended || state.over() {
            return;
        }
        let whole = state.received;
        drop(state);
        if self.carries && !whole {
            self.stream.reset(ResetCode::Cancelled);
        } else {
            self.stream.update(|state| {
                state.discard = true;
                state.read_bytes += state.body.len();
                state.body.clear();
            });
        }
    }
}

macro_rules! opaque_debug {
    ($($handle:ident),*) => {$(
        impl std::fmt::Debug for $handle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($handle))
            }
        }
    )*};
}

opaque_debug!(Sender, ResponseFuture, Receiver, Responder);
