//! One connection: the state between a request and the end of its answer.
//!
//! Both directions are polled by whoever asks, so that an answer may come while its request still goes out. Nothing
//! runs beside.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, header, uri::PathAndQuery};
use http_body::Body;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::{
    AnswerHead, Http1Error, Part, Upload, UploadError,
    body::{BodyPlace, Cut},
    put_line,
};

/// Bytes read at a time, until an answer fills them.
const MIN_READ_BYTES: usize = 4 * 1024;
const MAX_READ_BYTES: usize = 64 * 1024;

/// A connection that can be asked. It closes when this is dropped.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    input: BytesMut,
    read_bytes: usize,
    max_head_bytes: usize,
    /// The answer has no body, whatever its head says.
    to_head: bool,
    /// Where in the answer's body the reader is; `None` before its head.
    place: Option<BodyPlace>,
    keeps: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Speaks HTTP/1.1 over a stream; an answer's head has at most about so many bytes.
    pub fn new(stream: S, max_head_bytes: usize) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            read_bytes: MIN_READ_BYTES,
            max_head_bytes,
            to_head: false,
            place: Some(BodyPlace::End),
            keeps: true,
        }
    }

    /// Whether the last answer was read whole and the connection is meant for more. What stands behind an answer
    /// unasked belongs to nobody.
    pub fn may_be_reused(&self) -> bool {
        self.keeps && self.has_ended() && self.input.is_empty()
    }

    /// Whether the answer was read whole.
    pub fn has_ended(&self) -> bool {
        self.place == Some(BodyPlace::End)
    }

    /// Whether nothing has come since the last answer: neither bytes that nobody asked for nor the connection's end.
    pub fn is_quiet(&mut self) -> bool {
        self.poll_read(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Begins a request, whose head and body are written by [`Self::poll_upload`].
    pub fn begin(&mut self, method: &[u8]) {
        (self.to_head, self.place, self.read_bytes) = (method == b"HEAD", None, MIN_READ_BYTES);
    }

    /// Writes what there is of a request; ready once it is written whole.
    pub fn poll_upload<B>(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload<B>,
    ) -> Poll<Result<(), UploadError<B::Error>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        upload.poll_write(cx, &mut self.stream)
    }

    /// The answer's head. Interim answers are skipped.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, Http1Error>> {
        loop {
            if let Some(head) = AnswerHead::take(&mut self.input, self.to_head)? {
                self.place = Some(BodyPlace::beginning(head.framing));
                self.keeps = head.keeps;
                return Poll::Ready(Ok(head));
            }
            if self.input.len() >= self.max_head_bytes {
                return Poll::Ready(Err(Http1Error::TooLarge(self.max_head_bytes)));
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(Http1Error::Closed));
            }
        }
    }

    /// The next part of the answer's body; `None` at its end, and after that.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Http1Error>> {
        loop {
            let Some(place) = &mut self.place else { return Poll::Ready(Ok(None)) };
            match place.cut(&mut self.input)? {
                Cut::Part(part) => return Poll::Ready(Ok(Some(part))),
                Cut::End => return Poll::Ready(Ok(None)),
                Cut::More => {}
            }
            let until_close = *place == BodyPlace::UntilClose;
            if ready!(self.poll_read(cx))? == 0 {
                if !until_close {
                    return Poll::Ready(Err(Http1Error::CutOff));
                }
                self.place = Some(BodyPlace::End);
            }
        }
    }

    /// The stream, and what was read behind the answer.
    pub fn into_raw(self) -> (S, Bytes) {
        (self.stream, self.input.freeze())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < self.read_bytes / 4 {
            self.input.reserve(self.read_bytes);
        }
        let room = self.input.capacity() - self.input.len();
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input))?;
        if read == room {
            self.read_bytes = (2 * self.read_bytes).min(MAX_READ_BYTES);
        }
        Poll::Ready(Ok(read))
    }

    /// Asks one question whole, and reads the head of its answer.
    pub async fn ask(&mut self, question: Request<Bytes>) -> Result<AnswerHead, Http1Error> {
        let (head, body) = question.into_parts();
        let mut text = BytesMut::with_capacity(512);
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
        for (name, value) in &head.headers {
            put_line(&mut text, name.as_str().as_bytes(), value.as_bytes());
        }
        if !body.is_empty() || head.method == Method::POST {
            put_line(&mut text, header::CONTENT_LENGTH.as_str().as_bytes(), body.len().to_string().as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        self.begin(head.method.as_str().as_bytes());
        let mut upload = Upload::new(text, Some(Full::new(body)), None);
        poll_fn(|cx| match self.poll_upload(cx, &mut upload) {
            Poll::Ready(Err(UploadError::Io(error))) => Poll::Ready(Err(error.into())),
            _ => self.poll_head(cx),
        })
        .await
    }

    /// The rest of the answer, of at most so many bytes.
    pub async fn collect(&mut self, most: usize) -> Result<Bytes, Http1Error> {
        let mut all = BytesMut::new();
        while let Some(part) = poll_fn(|cx| self.poll_part(cx)).await? {
            let Part::Data(data) = part else { continue };
            if data.len() > most - all.len() {
                return Err(Http1Error::TooLarge(most));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}
