//! The handles to one exchange: a writer and a reader on each side.
//!
//! The response carries the exchange. Whoever drops the relay's reader of it, or the agent's writer
//! of it, before its end resets the stream; so does a dropped writer of the request. An agent that
//! drops the reader of the request only reads no further: it may still answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use relay_proto::{HeaderBlock, RequestHead, ResetCode, ResponseHead, limits::MAX_CHUNK_BYTES};

use crate::{
    http::header_map,
    stream::{Broken, OUT_BYTES, Stream, StreamState, wake_later},
};

/// An exchange as the relay holds it: it writes the request and reads the response, which may come before the request's
/// end.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Exchange {
    pub request: Sender,
    pub response: ResponseFuture,
}

/// An exchange as the agent holds it: it reads the request and writes the response.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Request {
    pub head: RequestHead,
    pub body: Receiver,
    pub responder: Responder,
}

impl Exchange {
    pub(crate) fn new(stream: &Arc<Stream>) -> Self {
        let request = Sender(Duty::new(stream, ResetCode::Cancelled));
        Self { request, response: ResponseFuture::new(stream) }
    }
}

impl Request {
    pub(crate) fn new(head: RequestHead, stream: Arc<Stream>) -> Self {
        let responder = Responder(Duty::new(&stream, ResetCode::Broken));
        Self { head, body: Receiver { stream, carries: false, ended: false }, responder }
    }
}

/// The duty to bring a part of an exchange to its end. Dropped before, it resets the stream.
#[derive(Debug)]
struct Duty {
    stream: Arc<Stream>,
    undone: Option<ResetCode>,
}

impl Duty {
    fn new(stream: &Arc<Stream>, undone: ResetCode) -> Self {
        Self { stream: Arc::clone(stream), undone: Some(undone) }
    }

    fn done(mut self) -> Arc<Stream> {
        self.undone = None;
        Arc::clone(&self.stream)
    }

    fn reset(mut self, code: ResetCode) {
        self.undone = Some(code);
    }

    /// Waits until the other side takes no more, whatever the reason.
    async fn broken(&mut self) -> Broken {
        self.stream.wait(StreamState::writer, |state| state.broken).await
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if let Some(code) = self.undone {
            self.stream.reset(code);
        }
    }
}

/// Writes one direction of an exchange. Dropped before [`Sender::finish`], it resets the stream.
#[derive(Debug)]
pub struct Sender(Duty);

impl Sender {
    /// Sends body bytes, each chunk of them once there is room for it.
    ///
    /// # Errors
    /// [`Broken`] when the other side takes no more; [`ResetCode::NoError`] in it means that it has
    /// all that it wants.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Broken> {
        let has_room = |state: &mut StreamState| match state.broken {
            Some(broken) => Some(Err(broken)),
            None => (state.out.len() < OUT_BYTES).then_some(Ok(())),
        };
        while !bytes.is_empty() {
            self.0.stream.wait(StreamState::writer, has_room).await?;
            let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK_BYTES));
            self.0.stream.update(|state| state.out.push(chunk));
        }
        Ok(())
    }

    /// Ends this direction, with trailers if there are any.
    pub fn finish(self, trailers: HeaderBlock) {
        self.0.done().update(|state| state.finish = Some(trailers));
    }

    /// Breaks the exchange off.
    pub fn reset(self, code: ResetCode) {
        self.0.reset(code);
    }

    /// Waits until the other side takes no more, whatever the reason.
    pub async fn closed(&mut self) -> Broken {
        self.0.broken().await
    }
}

/// Waits for the response's head. Dropped before it came, it resets the stream.
#[derive(Debug)]
pub struct ResponseFuture(Duty);

impl ResponseFuture {
    pub(crate) fn new(stream: &Arc<Stream>) -> Self {
        Self(Duty::new(stream, ResetCode::Cancelled))
    }

    /// The response's head and the reader of its body.
    ///
    /// # Errors
    /// [`Broken`] when the exchange ended without a response.
    pub async fn head(self) -> Result<(ResponseHead, Receiver), Broken> {
        let came = |state: &mut StreamState| state.response.take().map(Ok).or(state.broken.map(Err));
        let head = self.0.stream.wait(StreamState::reader, came).await?;
        Ok((head, Receiver { stream: self.0.done(), carries: true, ended: false }))
    }
}

/// Answers a request. Dropped without an answer, it resets the stream.
#[derive(Debug)]
pub struct Responder(Duty);

impl Responder {
    /// Begins the response.
    #[must_use = "the response ends only with Sender::finish"]
    pub fn respond(self, head: ResponseHead) -> Sender {
        let stream = self.0.done();
        stream.update(|state| state.respond = Some(head));
        Sender(Duty::new(&stream, ResetCode::Broken))
    }

    /// Responds whole, with a short body.
    pub fn respond_whole(self, head: ResponseHead, body: Bytes) {
        self.0.done().update(|state| {
            state.respond = Some(head);
            state.out.push(body);
            state.finish = Some(HeaderBlock::new());
        });
    }

    /// Says why there is no response.
    pub fn reset(self, code: ResetCode) {
        self.0.reset(code);
    }

    /// Waits until nobody wants the response any more.
    pub async fn cancelled(&mut self) -> Broken {
        self.0.broken().await
    }
}

/// Reads one direction of an exchange as an HTTP body.
#[derive(Debug)]
pub struct Receiver {
    stream: Arc<Stream>,
    /// The response: dropping it before its end resets the stream.
    carries: bool,
    ended: bool,
}

impl Receiver {
    /// The body, where it is short, came in one piece and waits to be read, and no trailers follow it.
    #[must_use]
    pub fn whole(&self) -> Option<Bytes> {
        let state = self.stream.lock();
        let is_whole = state.is_read && state.end.as_ref().is_some_and(HeaderBlock::is_empty);
        if is_whole { state.body.only() } else { None }
    }

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
            let is_read = state.is_read;
            drop(state);
            if !is_read {
                stream.update(|state| state.read_bytes += bytes.len());
            }
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
        wake_later(&mut state.reader, cx);
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = self.stream.lock();
        self.ended || (state.body.is_empty() && state.end.as_ref().is_some_and(HeaderBlock::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.stream.lock();
        let here = state.body.len() as u64;
        if state.end.is_some() {
            return SizeHint::with_exact(here);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(here);
        hint
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let state = self.stream.lock();
        if self.ended || state.over() || state.is_read {
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
