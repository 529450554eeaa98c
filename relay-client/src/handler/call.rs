//! One call: a request on its way out and its answer on its way in, with their limits.
//!
//! Both go on side by side: whoever polls the answer also moves the request. Nothing is buffered beyond what the
//! connection has read, and a break never looks like an end.
//!
//! Invariants: after an error or an end nothing follows; the connection goes back to the pool only at a clean end,
//! and is closed when the call is dropped before.

use std::{
    fmt,
    future::{Future as _, poll_fn},
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use relay_program::{
    http1::{AnswerHead, Http1Error, Part, Upload, UploadError},
    reason,
};
use relay_proto::HeaderBlock;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use super::{
    BoxError, CallError, Handler, Timeout, Timeouts,
    connect::HandlerStream,
    pool::{Connection, Lease},
};

/// How long a handler that has answered may take to read the rest of the request before its connection is closed.
const MAX_SETTLE: Duration = Duration::from_secs(1);

/// Room for what a head takes beside its lines' own bytes.
const ROOM_BYTES: usize = 256;

/// What a handler gets: a head as it goes out, and a body.
pub(crate) struct HandlerRequest<B> {
    method: Bytes,
    /// Begins with the request line; the caller writes the rest, with the empty line at its end.
    pub(crate) head: BytesMut,
    pub(crate) body: Option<B>,
    /// The request's lines, where the body goes out in chunks: they announce its trailers.
    pub(crate) chunked: Option<HeaderBlock>,
}

impl<B> HandlerRequest<B> {
    /// A request for a target in origin form ([`Target::uri_for`]), whose lines and short body take so many bytes.
    pub(crate) fn new(method: &Bytes, path: &str, bytes: usize) -> Self {
        let mut head = BytesMut::with_capacity(path.len() + bytes + ROOM_BYTES);
        for part in [method, b" ".as_slice(), path.as_bytes(), b" HTTP/1.1\r\n"] {
            head.extend_from_slice(part);
        }
        Self { method: method.clone(), head, body: None, chunked: None }
    }
}

impl Handler {
    /// Sends a request and waits for the head of the answer; the call itself then reads its body.
    pub(crate) async fn call<B>(&self, request: HandlerRequest<B>) -> Result<(AnswerHead, Call<B>), CallError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let mut call = self.begin(self.lease().await?, request);
        let head = call.head().await?;
        Ok((head, call))
    }

    /// The right to one more call, and a connection for it.
    pub(crate) async fn lease(&self) -> Result<Lease, CallError> {
        let began = Instant::now();
        let deadline = began + self.timeouts.total;
        let (permit, now) = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => (permit, began),
            Err(_) => {
                // Seldom needed, and large, as is a new connection.
                let permit = Box::pin(timeout_at(deadline, Arc::clone(&self.permits).acquire_owned())).await;
                let permit = permit.map_err(|_| CallError::Timeout(Timeout::Queue))?;
                (permit.expect("the semaphore is never closed"), Instant::now())
            }
        };
        let connection = match self.pool.take(now).await {
            Some(connection) => connection,
            None => Box::pin(self.connect(deadline)).await?,
        };
        Ok(Lease { began, connection, pool: Arc::clone(&self.pool), permit })
    }

    /// A call that nothing was sent of: [`Call::head`] comes next.
    pub(crate) fn begin<B>(&self, lease: Lease, request: HandlerRequest<B>) -> Call<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        Call::new(lease, request, self.timeouts)
    }
}

/// A call whose answer is read. Dropping it before its end closes the handler's connection.
pub(crate) struct Call<B> {
    /// Gone once the answer has ended or failed.
    lease: Option<Lease>,
    /// Gone once the request was written, or could not be.
    upload: Option<Upload<B>>,
    /// Why the request could not be written. The handler may have answered all the same.
    unwritten: Option<io::Error>,
    has_sent: bool,
    timeouts: Timeouts,
    began: Instant,
    /// Since when there was no progress in what is waited for.
    still_since: Option<Instant>,
    frames: u64,
}

impl<B> Call<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    fn new(mut lease: Lease, request: HandlerRequest<B>, timeouts: Timeouts) -> Self {
        let HandlerRequest { method, head, body, chunked } = request;
        lease.connection.http.begin(&method);
        let upload = Some(Upload::new(head, body, chunked));
        Self {
            began: lease.began,
            lease: Some(lease),
            upload,
            unwritten: None,
            has_sent: false,
            timeouts,
            still_since: None,
            frames: 0,
        }
    }

    /// Sends the request and waits for the head of the answer.
    pub(crate) async fn head(&mut self) -> Result<AnswerHead, CallError> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, CallError>> {
        let Some(mut lease) = self.lease.take() else { return Poll::Ready(Err(CallError::Broken(String::new()))) };
        self.poll_upload(&mut lease.connection, cx)?;
        match lease.connection.http.poll_head(cx) {
            Poll::Ready(head) => {
                let head = head.map_err(|error| self.broken(&error))?;
                self.still_since = None;
                let raw = head.status == StatusCode::SWITCHING_PROTOCOLS;
                if !raw && lease.connection.http.has_ended() {
                    self.finish(lease);
                } else {
                    self.lease = Some(lease);
                }
                Poll::Ready(Ok(head))
            }
            Poll::Pending => {
                let uploads = self.upload.as_ref().is_some_and(|upload| !upload.is_whole());
                let limit = if uploads { Timeout::Idle } else { Timeout::Head };
                let timer = self.poll_limit(&mut lease.connection, limit, cx);
                self.lease = Some(lease);
                timer.map(Err)
            }
        }
    }

    /// The next part of the answer's body.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, CallError>>> {
        let Some(mut lease) = self.lease.take() else { return Poll::Ready(None) };
        if let Err(error) = self.poll_upload(&mut lease.connection, cx) {
            return Poll::Ready(Some(Err(error)));
        }
        match lease.connection.http.poll_part(cx) {
            Poll::Ready(Ok(part)) => {
                self.still_since = None;
                if lease.connection.http.has_ended() {
                    self.finish(lease);
                } else {
                    self.lease = Some(lease);
                }
                Poll::Ready(part.map(Ok))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(self.broken(&error)))),
            Poll::Pending => {
                let error = self.poll_limit(&mut lease.connection, Timeout::Idle, cx);
                if error.is_pending() {
                    self.lease = Some(lease);
                }
                error.map(|error| Some(Err(error)))
            }
        }
    }

    /// The next part of the answer's body, if it has come already.
    pub(crate) async fn next_if_here(&mut self) -> Option<Result<Part, CallError>> {
        poll_fn(|cx| {
            let part = self.poll_part(cx);
            Poll::Ready(if let Poll::Ready(part) = part { part } else { None })
        })
        .await
    }

    /// How long the call has taken by now, the wait for a connection included.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether the request was written whole.
    pub(crate) const fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether the answer has ended, or failed.
    pub(crate) const fn has_ended(&self) -> bool {
        self.lease.is_none()
    }

    /// After a 101: the connection, what was read of it already, and the right to use it.
    pub(crate) fn take_raw(&mut self) -> Option<(HandlerStream, Bytes, OwnedSemaphorePermit)> {
        let Lease { connection, permit, .. } = self.lease.take()?;
        let (stream, read) = connection.http.into_raw();
        Some((stream, read, permit))
    }

    /// Moves the request on. An error is the request's own.
    fn poll_upload(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Result<(), CallError> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let polled = connection.http.poll_upload(cx, upload);
        if upload.frames() != self.frames {
            (self.frames, self.still_since) = (upload.frames(), None);
        }
        match polled {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.has_sent = true,
            Poll::Ready(Err(UploadError::Io(error))) => (self.unwritten, self.still_since) = (Some(error), None),
            Poll::Ready(Err(UploadError::Body(error))) => {
                return Err(CallError::RequestBody(reason::of_chain(error.into().as_ref())));
            }
        }
        self.upload = None;
        Ok(())
    }

    fn broken(&self, error: &Http1Error) -> CallError {
        let why = self.unwritten.as_ref().map_or_else(|| error.to_string(), reason::of_io);
        CallError::Broken(why)
    }

    /// Waits for the limit of what is waited for. A timer that is early is left alone: it mostly was an earlier call's.
    fn poll_limit(&mut self, connection: &mut Connection, limit: Timeout, cx: &mut Context<'_>) -> Poll<CallError> {
        let still_since = *self.still_since.get_or_insert_with(Instant::now);
        let most = if limit == Timeout::Head { self.timeouts.head } else { self.timeouts.idle };
        let deadline = self.began + self.timeouts.total;
        let until = deadline.min(still_since + most);
        loop {
            let timer = connection.timer(until);
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                let limit = if until == deadline { Timeout::Total } else { limit };
                return Poll::Ready(CallError::Timeout(limit));
            }
            timer.as_mut().reset(until);
        }
    }

    /// The answer was read to its clean end: keeps the connection for the next call, once the request is written.
    fn finish(&mut self, mut lease: Lease) {
        let Some(mut upload) = self.upload.take() else { return lease.finish() };
        if self.unwritten.is_some() || !lease.connection.http.may_be_reused() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let written = poll_fn(|cx| lease.connection.http.poll_upload(cx, &mut upload));
            if let Ok(Ok(())) = timeout(MAX_SETTLE, written).await {
                lease.finish();
            }
        });
    }
}

impl<B> fmt::Debug for Call<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("ended", &self.lease.is_none()).finish_non_exhaustive()
    }
}
