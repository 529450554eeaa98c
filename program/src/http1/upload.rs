//! A request on its way out: its head and a short body in one buffer, long pieces of a body beside it.

use std::{
    fmt::Write as _,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use relay_proto::HeaderBlock;
use thiserror::Error;
use tokio::io::AsyncWrite;

/// Pieces of a body that are written from where they are, and not copied behind the head.
const LONG_BYTES: usize = 8 * 1024;

/// Bytes that are gathered before they are written.
const GATHERED_BYTES: usize = 32 * 1024;

/// Fields that no trailer may be (RFC 9110, section 6.5.1): they say how a message is read, or where it goes.
const NO_TRAILERS: [&str; 12] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "host",
    "max-forwards",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
];

/// Why a request did not go out whole.
#[derive(Debug, Error)]
pub enum UploadError<E> {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The body failed by itself.
    #[error(transparent)]
    Body(E),
}

/// A request that is being written.
#[derive(Debug)]
pub struct Upload<B> {
    gathered: BytesMut,
    /// Comes behind what is gathered.
    piece: Bytes,
    /// What is still to come of the body.
    body: Option<B>,
    /// The request's lines, where its body goes out in chunks: they announce the trailers.
    chunked: Option<HeaderBlock>,
    /// A chunk ends with the piece.
    ends_chunk: bool,
    unflushed: bool,
    frames: u64,
}

/// Writes a header line.
pub fn put_line(head: &mut BytesMut, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    /// A request with its head, which says how the body is framed: by its length, or in chunks, and then `chunked` has
    /// its lines.
    pub fn new(head: BytesMut, body: Option<B>, chunked: Option<HeaderBlock>) -> Self {
        Self { gathered: head, piece: Bytes::new(), body, chunked, ends_chunk: false, unflushed: true, frames: 0 }
    }

    /// Whether the body was taken whole.
    pub const fn is_whole(&self) -> bool {
        self.body.is_none()
    }

    /// How many frames of the body were taken.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes as much as there is; ready once all is written, and after that.
    pub(super) fn poll_write<S>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), UploadError<B::Error>>>
    where
        S: AsyncWrite + Unpin,
    {
        loop {
            self.gather(cx)?;
            if self.gathered.is_empty() && self.piece.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.unflushed = true;
            let stream = Pin::new(&mut *stream);
            let written = if self.piece.is_empty() {
                ready!(stream.poll_write(cx, &self.gathered))?
            } else {
                let parts = [IoSlice::new(&self.gathered), IoSlice::new(&self.piece)];
                ready!(stream.poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            let of_gathered = written.min(self.gathered.len());
            self.gathered.advance(of_gathered);
            self.piece.advance(written - of_gathered);
        }
    }

    /// Takes what is there of the body, unless enough waits already.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError<B::Error>> {
        if self.piece.is_empty() && std::mem::take(&mut self.ends_chunk) {
            self.gathered.extend_from_slice(b"\r\n");
        }
        while self.piece.is_empty()
            && self.gathered.len() < GATHERED_BYTES
            && let Some(body) = &mut self.body
            && let Poll::Ready(frame) = Pin::new(body).poll_frame(cx)
        {
            self.frames += 1;
            match frame.transpose().map_err(UploadError::Body)?.map(Frame::into_data) {
                Some(Ok(data)) if data.is_empty() => {} // In chunks it would end the body.
                Some(Ok(data)) => self.push(data),
                Some(Err(frame)) => self.end(frame.into_trailers().ok().as_ref()),
                None => self.end(None),
            }
        }
        Ok(())
    }

    fn push(&mut self, data: Bytes) {
        if self.chunked.is_some() {
            let _ = write!(self.gathered, "{:x}\r\n", data.len()); // Writing to a buffer does not fail.
        }
        if data.len() >= LONG_BYTES {
            self.piece = data;
            self.ends_chunk = self.chunked.is_some();
            return;
        }
        self.gathered.extend_from_slice(&data);
        if self.chunked.is_some() {
            self.gathered.extend_from_slice(b"\r\n");
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.body = None;
        let Some(lines) = &self.chunked else { return };
        self.gathered.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten() {
            let is = |other: &[u8]| other.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes());
            let announced = lines.all("trailer").any(|names| names.split(|byte| *byte == b',').any(is));
            if announced && !NO_TRAILERS.contains(&name.as_str()) {
                put_line(&mut self.gathered, name.as_str().as_bytes(), value.as_bytes());
            }
        }
        self.gathered.extend_from_slice(b"\r\n");
    }
}
