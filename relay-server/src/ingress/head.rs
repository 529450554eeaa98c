//! What hyper does not tell of a request's head: when its first byte came, and what stood there before it was read.
//!
//! A [`Watch`] sees the bytes of one HTTP/1.1 connection as hyper reads them and keeps those of the next head. It
//! changes nothing and refuses nothing by itself: the framing that counts is hyper's, and a head is parsed here by
//! the same parser. What it finds makes the relay stricter (400 where hyper would guess), never laxer.
//!
//! Invariants: at most `max_bytes` are kept, and none after an upgrade. Where the next head begins is known after a
//! request without a chunked body; after a chunked one the watch is blind until the answer has ended, so that a
//! request which is pipelined behind one is judged by hyper alone.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{listener::MAX_HEADERS, respond::Body, slots::Place};
use crate::webhook::input::Input;

/// What was seen of a request's head.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When its first byte came, or when it was complete where that is not known.
    pub started: Instant,
    /// Whether two readers could understand it in two ways, or its target would not arrive as it is.
    pub doubtful: bool,
}

/// Watches one connection.
#[derive(Debug)]
pub struct Watch {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// When the first of `bytes` came.
    since: Option<Instant>,
    /// The next head, and what came behind it.
    bytes: Vec<u8>,
    /// Bytes of a body that come before the next head.
    body: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Where the next head begins is known.
    #[default]
    Following,
    /// Not known until the answer has ended.
    Blind,
    /// No more heads will come.
    Off,
}

impl Watch {
    /// A watch over a new connection.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default() }
    }

    /// Sees no more: the connection speaks something else.
    pub fn off(&self) {
        *self.lock() = State { phase: Phase::Off, ..State::default() };
    }

    /// Bytes that hyper was given.
    fn saw(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.phase != Phase::Following {
            return;
        }
        let bytes = state.past_body(bytes);
        if bytes.is_empty() {
            return;
        }
        if state.bytes.len() + bytes.len() > self.max_bytes {
            let since = state.since;
            *state = State { phase: Phase::Blind, since, ..State::default() };
            return;
        }
        state.since.get_or_insert_with(Instant::now);
        state.bytes.extend_from_slice(bytes);
    }

    /// What was seen of this request, which hyper has just read.
    pub fn take<B>(&self, request: &Request<B>) -> Seen {
        let mut state = self.lock();
        let started = state.since.take().unwrap_or_else(Instant::now);
        let whole = std::mem::take(&mut state.bytes);
        let doubtful = if state.phase == Phase::Following { state.leave(&whole, request) } else { false };
        Seen { started, doubtful }
    }

    /// Follows the connection again once this answer has ended.
    pub fn follow(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.off();
        }
        if self.lock().phase != Phase::Blind {
            return response;
        }
        let turn = Turn(Arc::clone(self));
        response.map(|body| {
            let held = move |error| {
                let _held = &turn;
                error
            };
            body.map_err(held).boxed_unsync()
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for an answer under way.
struct Turn(Arc<Watch>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.phase == Phase::Blind {
            *state = State::default();
        }
    }
}

impl State {
    /// What of `bytes` stands behind the body that is still to come.
    fn past_body<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let skipped = usize::try_from(self.body).unwrap_or(usize::MAX).min(bytes.len());
        self.body -= skipped as u64;
        &bytes[skipped..]
    }

    /// Goes past this request's head in `whole`; whether it is doubtful.
    fn leave<B>(&mut self, whole: &[u8], request: &Request<B>) -> bool {
        let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut lines);
        let (Ok(httparse::Status::Complete(end)), Some(target)) = (parsed.parse(whole), parsed.path) else {
            self.phase = Phase::Blind;
            return false;
        };
        let has = |name: &str| parsed.headers.iter().any(|line| line.name.eq_ignore_ascii_case(name));
        let chunked = has("transfer-encoding");
        let doubtful =
            (chunked && has("content-length")) || has_bare_line_feed(&whole[..end]) || altered(target, request);
        if chunked {
            self.phase = Phase::Blind;
            return doubtful;
        }
        let length = request.headers().get(http::header::CONTENT_LENGTH);
        self.body = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
        let next = self.past_body(&whole[end..]);
        if !next.is_empty() {
            self.bytes = next.to_vec();
            self.since = Some(Instant::now());
        }
        doubtful
    }
}

/// A line that ends without a carriage return, which RFC 9112, section 2.2, leaves to each reader.
fn has_bare_line_feed(head: &[u8]) -> bool {
    head.first() == Some(&b'\n') || head.windows(2).any(|bytes| bytes[1] == b'\n' && bytes[0] != b'\r')
}

/// Whether the target, as hyper holds it, is not what was sent: it drops fragments.
fn altered<B>(target: &str, request: &Request<B>) -> bool {
    let held = request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    target.contains('#') || (target.starts_with('/') && target != held)
}

/// A connection whose bytes are watched on their way to hyper, and whose end is held back while a request needs it.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
    input: Arc<Input>,
    /// Bytes wait to be written; an end that came now would have hyper drop them.
    blocked: Option<Waker>,
    /// The end was seen, and hyper has had a turn since then.
    settled: bool,
    /// As long as the socket is there, whatever is spoken on it.
    _place: Place,
}

impl<S> Watched<S> {
    /// A connection under a watch.
    pub const fn new(stream: S, watch: Arc<Watch>, input: Arc<Input>, place: Place) -> Self {
        Self { stream, watch, input, blocked: None, settled: false, _place: place }
    }

    /// Whether the end of input is not for hyper yet. It gets one more turn after it has read all there is and after the
    /// last answer has ended: h2 reads on before it hands out a request, and before it writes what it was given.
    fn holds_back(&mut self, cx: &Context<'_>) -> bool {
        if self.input.holds_back(cx) {
            self.settled = false;
            return true;
        }
        if let Some(waiting) = &mut self.blocked {
            waiting.clone_from(cx.waker());
            return true;
        }
        if std::mem::replace(&mut self.settled, true) {
            return false;
        }
        cx.waker().wake_by_ref();
        true
    }

    fn wrote<T>(&mut self, outcome: Poll<T>, cx: &Context<'_>) -> Poll<T> {
        match (&outcome, &self.blocked) {
            (Poll::Pending, None) => self.blocked = Some(cx.waker().clone()),
            (Poll::Ready(_), Some(_)) => {
                if let Some(waiting) = self.blocked.take() {
                    waiting.wake();
                }
            }
            _ => {}
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let ended = match &read {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => buf.filled().len() == before && buf.remaining() > 0,
            // Under TLS: the connection ended, and without saying so.
            Poll::Ready(Err(error)) => error.kind() == io::ErrorKind::UnexpectedEof,
        };
        if ended {
            return if this.holds_back(cx) { Poll::Pending } else { read };
        }
        this.settled = false;
        if let Poll::Ready(Ok(())) = read {
            this.watch.saw(&buf.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(wrote, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(wrote, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.wrote(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn request(target: &str, length: Option<&str>) -> Request<()> {
        let mut request = Request::post(target);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        request.body(()).expect("a request")
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_starts_with_the_first_byte_of_its_head() {
        let watch = Watch::new(1000);
        let begin = Instant::now();
        watch.saw(b"PO");
        advance(Duration::from_secs(3)).await;
        watch.saw(b"ST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nab");
        assert_eq!(watch.take(&request("/x", Some("4"))).started, begin);
        advance(Duration::from_secs(3)).await;
        watch.saw(b"cd");
        advance(Duration::from_secs(3)).await;
        let begin = Instant::now();
        watch.saw(b"POST /y HTTP/1.1\r\n");
        advance(Duration::from_secs(3)).await;
        watch.saw(b"\r\n");
        assert_eq!(watch.take(&request("/y", None)).started, begin, "not with the body before it");
    }

    #[test]
    fn doubtful_heads_are_found_behind_others_in_one_piece_too() {
        let both = "POST /x HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
        for before in ["", "\r\n", "POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "POST /b HTTP/1.1\r\n\r\n"] {
            let watch = Watch::new(1000);
            watch.saw(format!("{before}{both}").as_bytes());
            if before.len() > 2 {
                assert!(!watch.take(&request("/b", before.contains("Length").then_some("3"))).doubtful);
            }
            assert!(watch.take(&request("/x", None)).doubtful, "{before:?}");
        }
        for (raw, held) in [
            ("GET /x#y HTTP/1.1\r\n\r\n", "/x"),
            ("GET http://a/x#y HTTP/1.1\r\n\r\n", "http://a/x"),
            ("GET /x HTTP/1.1\nA: b\r\n\r\n", "/x"),
            ("GET /x HTTP/1.1\r\nA: b\n\r\n", "/x"),
            ("\nGET /x HTTP/1.1\r\n\r\n", "/x"),
        ] {
            let watch = Watch::new(1000);
            watch.saw(raw.as_bytes());
            assert!(watch.take(&request(held, None)).doubtful, "{raw:?}");
        }
    }

    #[test]
    fn nothing_is_kept_beyond_the_limit_or_after_an_upgrade() {
        let watch = Watch::new(10);
        watch.saw(b"GET /");
        watch.saw(b"a longer one");
        assert!(watch.lock().bytes.is_empty());
        watch.off();
        watch.saw(b"raw");
        assert!(watch.lock().bytes.is_empty() && watch.lock().since.is_none());
    }

    #[test]
    fn a_chunked_body_is_not_taken_for_a_head() {
        let watch = Arc::new(Watch::new(1000));
        watch.saw(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n");
        assert!(!watch.take(&request("/x", None)).doubtful);
        watch.saw(b"GET /#\r\n0\r\n\r\n");
        drop(watch.follow(Response::new(super::super::respond::empty())));
        watch.saw(b"POST /y#z HTTP/1.1\r\n\r\n");
        assert!(watch.take(&request("/y", None)).doubtful, "it follows again");
    }
}
