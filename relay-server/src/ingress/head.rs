//! What hyper does not say of a request's head: when its first byte came, and which bytes stood there.
//!
//! A [`Watch`] sees the bytes of one HTTP/1.1 connection as hyper reads them and keeps those of the next head. It
//! changes nothing: hyper's framing counts, and here lines are told apart where hyper's parser does. What the watch finds
//! makes the relay stricter (400 where hyper would guess, the connection's end where it guesses within a body), never
//! laxer.
//!
//! While a head is not whole, this module and hyper both hold it, before anything is known of its sender. What is
//! larger than heads of webhooks are takes of the memory that all requests share; where none is left, the connection
//! ends.
//!
//! Invariants: at most `max_bytes` are kept, and none after an upgrade. The watch knows where the next head begins
//! unless hyper refuses what came before it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{Request, StatusCode};
use memchr::memchr;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    chunks::{BodyAhead, Chunks, DoubtfulChunk},
    frames::{FrameWatch, TooManyFrames},
    slots::ConnectionSlot,
    socket::Stepped,
};
use crate::{
    memory::{Memory, NoRoom},
    webhook::input::Input,
};

/// What is read of a head before memory is taken for it: what hyper reads at first.
const FREE_BYTES: usize = 8 * 1024;

/// What is read of a body in one step below TLS. Before its request is there, nothing is read ahead.
const BODY_STEP_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenHead {
    /// When its first byte came, or when it was complete where that is not known.
    pub started: Instant,
    /// Whether two readers could understand it in two ways, or its target would not arrive as it is.
    pub doubtful: bool,
}

#[derive(Debug)]
pub(crate) struct Watch {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// When the first byte of the next head came.
    since: Option<Instant>,
    /// The next head, where it came whole, in one piece, with nothing behind its body: then nothing is kept of it.
    whole: Option<Looked>,
    /// The next head, and what came behind it.
    bytes: Vec<u8>,
    /// The body that comes before the next head.
    body: BodyAhead,
    /// Kept as long as the connection: hyper's buffer does not shrink.
    memory: Option<Memory>,
}

/// What was found in the bytes of a head.
#[derive(Clone, Copy, Debug)]
struct Looked {
    doubtful: bool,
    /// How long its target is, if that is one that hyper holds as it is.
    target_len: Option<usize>,
    body: BodyAhead,
    /// Where it ends.
    end: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Where the next head begins is known.
    #[default]
    Following,
    /// Not known until the answer has ended; mostly the connection ends with it.
    Blind,
    /// No more heads will come.
    Off,
}

impl Watch {
    /// A watch over a new connection; `memory` is for its heads.
    pub(crate) fn new(max_bytes: usize, memory: Memory) -> Self {
        Self { max_bytes, state: Mutex::new(State { memory: Some(memory), ..State::default() }) }
    }

    /// Sees no more: the connection speaks something else.
    pub(crate) fn off(&self) {
        *self.state.lock() = State { phase: Phase::Off, ..State::default() };
    }

    /// How far the connection is to be read ahead.
    fn step_bytes(&self) -> usize {
        if self.state.lock().body.is_over() { 0 } else { BODY_STEP_BYTES }
    }

    /// Bytes that hyper is given, if they may be given on.
    fn saw(&self, bytes: &[u8]) -> Result<(), Cut> {
        let mut state = self.state.lock();
        if state.phase != Phase::Following {
            return Ok(());
        }
        let bytes = state.body.pass(bytes)?;
        if state.body == BodyAhead::Lost && state.whole.is_none() {
            state.phase = Phase::Blind;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if state.bytes.len() + bytes.len() > self.max_bytes {
            state.phase = Phase::Blind;
            state.bytes = Vec::new();
            return Ok(());
        }
        state.since.get_or_insert_with(Instant::now);
        if state.bytes.is_empty() && state.whole.is_none() && state.saw_whole(bytes) {
            return Ok(());
        }
        state.bytes.extend_from_slice(bytes);
        let held = state.bytes.capacity();
        match &mut state.memory {
            Some(memory) if held > FREE_BYTES => Ok(memory.grow_to(2 * held)?),
            _ => Ok(()),
        }
    }

    pub(crate) fn take<B>(&self, request: &Request<B>) -> SeenHead {
        let mut state = self.state.lock();
        let started = state.since.take().unwrap_or_else(Instant::now);
        let doubtful = if state.phase == Phase::Following { state.leave(request) } else { false };
        SeenHead { started, doubtful }
    }

    /// Follows the connection again once an answer of this status has ended: once the turn is dropped.
    pub(crate) fn follow(self: &Arc<Self>, status: StatusCode) -> Option<Turn> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.off();
        }
        (self.state.lock().phase == Phase::Blind).then(|| Turn(Arc::clone(self)))
    }
}

/// Stands for an answer under way.
pub(crate) struct Turn(Arc<Watch>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if state.phase == Phase::Blind {
            *state = State { memory: state.memory.take(), ..State::default() };
        }
    }
}

/// Why a connection is not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum Cut {
    #[error("no memory is left for a head")]
    NoRoom,
    #[error("white space behind a chunk's size")]
    DoubtfulChunk,
}

impl From<NoRoom> for Cut {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl From<DoubtfulChunk> for Cut {
    fn from(DoubtfulChunk: DoubtfulChunk) -> Self {
        Self::DoubtfulChunk
    }
}

impl State {
    /// Whether these are a whole head, and after it nothing but its body.
    fn saw_whole(&mut self, bytes: &[u8]) -> bool {
        let Some(mut looked) = look(bytes) else { return false };
        match looked.body.pass(&bytes[looked.end..]) {
            Ok([]) => {}
            Ok(_) => return false,
            Err(DoubtfulChunk) => looked.doubtful = true,
        }
        self.body = looked.body;
        self.whole = Some(looked);
        true
    }

    /// Goes past this request's head; whether it is doubtful.
    fn leave<B>(&mut self, request: &Request<B>) -> bool {
        let whole = self.whole.take();
        let kept = if whole.is_none() { std::mem::take(&mut self.bytes) } else { Vec::new() };
        let Some(looked) = whole.or_else(|| look(&kept)) else {
            self.phase = Phase::Blind;
            return false;
        };
        let held = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let mut doubtful = looked.doubtful || looked.target_len.is_some_and(|len| len != held);
        if whole.is_none() {
            self.body = looked.body;
            match self.body.pass(&kept[looked.end..]) {
                Ok(behind) => self.bytes = behind.to_vec(),
                Err(DoubtfulChunk) => doubtful = true,
            }
        }
        if self.body == BodyAhead::Lost {
            self.phase = Phase::Blind;
            self.bytes = Vec::new();
        } else if !self.bytes.is_empty() {
            self.since = Some(Instant::now());
        }
        doubtful
    }
}

/// Looks at a head, if these bytes begin with a whole one. It tells lines apart and no more: whether they are right is for
/// hyper to say, and of a head that hyper refuses nothing counts that was found.
fn look(bytes: &[u8]) -> Option<Looked> {
    let (mut rest, mut target, mut is_bare) = (bytes, None, false);
    let (mut chunked, mut length, mut again) = (false, None, false);
    loop {
        let (line, behind) = rest.split_at(memchr(b'\n', rest)?);
        rest = &behind[1..];
        // A line that ends without a carriage return, which RFC 9112, section 2.2, leaves to each reader.
        is_bare |= line.last() != Some(&b'\r');
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match target {
            // Empty lines may come before a head.
            None if line.is_empty() => {}
            None => target = Some(target_of(line)?),
            Some(_) if line.is_empty() => break,
            Some(_) => match line[0].to_ascii_lowercase() {
                b'c' => {
                    again |= value_of(line, b"content-length").is_some_and(|value| length.replace(value).is_some());
                }
                b't' => chunked |= value_of(line, b"transfer-encoding").is_some(),
                _ => {}
            },
        }
    }
    let target = target?;
    let counted = length.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    // hyper drops fragments, and makes one of lengths that agree.
    let settled_in_silence = (chunked && length.is_some()) || again || target.contains(&b'#');
    Some(Looked {
        doubtful: settled_in_silence || is_bare,
        target_len: target.starts_with(b"/").then_some(target.len()),
        body: if chunked { BodyAhead::Chunked(Chunks::default()) } else { BodyAhead::Counted(counted.unwrap_or(0)) },
        end: bytes.len() - rest.len(),
    })
}

/// The target in the first line of a head, if that is one of HTTP/1.
fn target_of(line: &[u8]) -> Option<&[u8]> {
    let (_, rest) = line.split_at(memchr(b' ', line)?);
    let rest = &rest[1..];
    let (target, version) = rest.split_at(memchr(b' ', rest)?);
    version.starts_with(b" HTTP/1.").then_some(target)
}

/// The value of a header line, if it has this name.
fn value_of<'a, const LEN: usize>(line: &'a [u8], name: &[u8; LEN]) -> Option<&'a [u8]> {
    let (own, value) = line.split_first_chunk::<LEN>()?;
    let value = value.strip_prefix(b":")?;
    own.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// A connection whose bytes are watched on their way to hyper, and whose end is held back while a request needs it.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
    input: Arc<Input>,
    /// Bytes wait to be written; an end that came now would have hyper drop them.
    blocked: Option<Waker>,
    /// The end was seen, and hyper has had a turn since then.
    settled: bool,
    /// Nothing is to be watched any more.
    is_agents: bool,
    /// Over HTTP/2: what comes for nothing.
    frames: Option<FrameWatch>,
    /// As long as the socket is there, whatever is spoken on it.
    _place: ConnectionSlot,
}

impl<S> Watched<S> {
    pub(crate) const fn new(stream: S, watch: Arc<Watch>, input: Arc<Input>, place: ConnectionSlot) -> Self {
        Self { stream, watch, input, blocked: None, settled: false, is_agents: false, frames: None, _place: place }
    }

    /// It speaks HTTP/2: frames are counted in the place of heads.
    pub(crate) fn counts_frames(&mut self) {
        self.watch.off();
        self.frames = Some(FrameWatch::new());
    }

    /// Gives it to an agent's session. What is below it.
    pub(crate) const fn unwatched(&mut self) -> &mut S {
        self.is_agents = true;
        &mut self.stream
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

impl<S: AsyncRead + Stepped + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_agents {
            this.stream.set_step(this.watch.step_bytes());
        }
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
        if let Poll::Ready(Ok(())) = read
            && !this.is_agents
        {
            let came = &buf.filled()[before..];
            if let Some(frames) = &mut this.frames
                && let Err(TooManyFrames) = frames.saw(came, this.input.sent())
            {
                return Poll::Ready(Err(io::Error::other("too many frames of HTTP/2 that carry nothing")));
            }
            let saw = this.watch.saw(came);
            return Poll::Ready(saw.map_err(io::Error::other));
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

/// Whether a line of a head ends without a carriage return.
#[cfg(any(test, feature = "fuzz"))]
fn has_bare_line_feed(head: &[u8]) -> bool {
    let before = |at: usize| at.checked_sub(1).map(|at| head[at]);
    (0..head.len()).any(|at| head[at] == b'\n' && before(at) != Some(b'\r'))
}

/// What is found of the requests on one connection does not depend on the pieces in which they come, and is doubtful where
/// the bytes themselves are.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(bytes: &[u8], piece: usize) {
    use super::listener::MAX_HEADERS;
    use crate::memory::MemoryBudget;

    let memory = || Arc::new(MemoryBudget::new(usize::MAX)).of_heads(None);
    let (whole, pieces) = (Watch::new(usize::MAX, memory()), Watch::new(usize::MAX, memory()));
    assert!(whole.saw(bytes).is_ok() && bytes.chunks(piece).all(|piece| pieces.saw(piece).is_ok()), "there is room");
    let mut rest = bytes;
    loop {
        let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut lines);
        let Ok(httparse::Status::Complete(end)) = parsed.parse(rest) else { return };
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return };
        let Ok(request) = Request::builder().method(method).uri(target).body(()) else { return };
        let named = |name: &str| parsed.headers.iter().filter(|line| line.name.eq_ignore_ascii_case(name)).collect();
        let (codings, lengths): (Vec<_>, Vec<_>) = (named("transfer-encoding"), named("content-length"));
        let held = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let is_cut = target.starts_with('/') && target.len() != held;
        let both = !codings.is_empty() && !lengths.is_empty();
        let doubtful = both || is_cut || target.contains('#') || has_bare_line_feed(&rest[..end]);
        for (watch, how) in [(&whole, "whole"), (&pieces, "in pieces")] {
            assert_eq!(watch.take(&request).doubtful, doubtful, "{how}, of {piece}: {}", rest.escape_ascii());
        }
        // hyper refuses the rest, or cuts a chunked body by itself.
        let length = std::str::from_utf8(lengths.first().map_or(b"0", |line| line.value)).ok();
        let Some(length) = length.and_then(|text| text.parse::<usize>().ok()).filter(|_| codings.is_empty()) else {
            return;
        };
        let Some(next) = rest.get(end.saturating_add(length)..).filter(|_| lengths.len() < 2) else { return };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::memory::MemoryBudget;

    fn watching(max_bytes: usize) -> Watch {
        Watch::new(max_bytes, Arc::new(MemoryBudget::new(64 * 1024)).of_heads(None))
    }

    fn request(target: &str, length: Option<&str>) -> Request<()> {
        let mut request = Request::post(target);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        request.body(()).expect("a request")
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_starts_with_the_first_byte_of_its_head() {
        let watch = watching(1000);
        let begin = Instant::now();
        watch.saw(b"PO").expect("room");
        advance(Duration::from_secs(3)).await;
        watch.saw(b"ST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").expect("room");
        assert_eq!(watch.take(&request("/x", Some("4"))).started, begin);
        advance(Duration::from_secs(3)).await;
        watch.saw(b"cd").expect("room");
        advance(Duration::from_secs(3)).await;
        let begin = Instant::now();
        watch.saw(b"POST /y HTTP/1.1\r\n").expect("room");
        advance(Duration::from_secs(3)).await;
        watch.saw(b"\r\n").expect("room");
        assert_eq!(watch.take(&request("/y", None)).started, begin, "not with the body before it");
    }

    #[test]
    fn doubtful_heads_are_found_behind_others_in_one_piece_too() {
        let both = "POST /x HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
        for before in ["", "\r\n", "POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "POST /b HTTP/1.1\r\n\r\n"] {
            let watch = watching(1000);
            watch.saw(format!("{before}{both}").as_bytes()).expect("room");
            if before.len() > 2 {
                assert!(!watch.take(&request("/b", before.contains("Length").then_some("3"))).doubtful);
            }
            assert!(watch.take(&request("/x", None)).doubtful, "{before:?}");
        }
        for (raw, held) in [
            ("GET /x HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n", "/x"),
            ("GET /x#y HTTP/1.1\r\n\r\n", "/x"),
            ("GET http://a/x#y HTTP/1.1\r\n\r\n", "http://a/x"),
            ("GET /x HTTP/1.1\nA: b\r\n\r\n", "/x"),
            ("GET /x HTTP/1.1\r\nA: b\n\r\n", "/x"),
            ("\nGET /x HTTP/1.1\r\n\r\n", "/x"),
        ] {
            let watch = watching(1000);
            watch.saw(raw.as_bytes()).expect("room");
            assert!(watch.take(&request(held, None)).doubtful, "{raw:?}");
        }
    }

    /// What the parser of hyper makes of a head: its target, the values of these lines, and where it ends.
    fn parsed(bytes: &[u8]) -> Option<(String, Vec<Vec<u8>>, usize, usize)> {
        let mut lines = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Request::new(&mut lines);
        let Ok(httparse::Status::Complete(end)) = parsed.parse(bytes) else { return None };
        let named = |name: &'static str| parsed.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        let lengths = named("content-length").map(|line| line.value.to_vec()).collect();
        Some((parsed.path?.to_owned(), lengths, named("transfer-encoding").count(), end))
    }

    #[test]
    fn what_is_found_in_a_head_is_what_hypers_parser_finds() {
        let head =
            b"POST /x HTTP/1.1\r\nHost: a\r\ncontent-Length:\t 4 \r\nTransfer-Encoding:chunked\r\nA:\r\n\r\nbody";
        let pieces: [&[u8]; 16] = [
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"#",
            b"/",
            b"?",
            b"a",
            b"5",
            b"\0",
            b"\x80",
            b"HTTP/1.0",
            b"content-length: 7\r\n",
            b"\r\nTRANSFER-ENCODING: b",
        ];
        let (mut whole, mut partial) = (0, 0);
        let mut compare = |bytes: &[u8]| {
            let Some((target, lengths, codings, end)) = parsed(bytes) else {
                partial += 1;
                return;
            };
            let looked = look(bytes).unwrap_or_else(|| panic!("a head: {}", bytes.escape_ascii()));
            let counted = lengths.last().and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
            let body = match codings {
                0 => BodyAhead::Counted(counted.unwrap_or(0)),
                _ => BodyAhead::Chunked(Chunks::default()),
            };
            let both = codings > 0 && !lengths.is_empty();
            let bare = has_bare_line_feed(&bytes[..end]);
            assert_eq!(looked.doubtful, both || bare || lengths.len() > 1 || target.contains('#'));
            assert_eq!(looked.target_len, target.starts_with('/').then_some(target.len()));
            assert_eq!((looked.body, looked.end), (body, end), "{}", bytes.escape_ascii());
            whole += 1;
        };
        for at in 0..=head.len() {
            compare(&head[..at]);
            for piece in pieces {
                for taken in 0..=3 {
                    let end = (at + taken).min(head.len());
                    let bytes = [&head[..at], piece, &head[end..]].concat();
                    compare(&bytes);
                    pieces.iter().for_each(|more| compare(&[more, &bytes[..]].concat()));
                }
            }
        }
        assert!(whole > 5000 && partial > 5000, "{whole} heads, {partial} others");
    }

    #[test]
    fn nothing_is_kept_beyond_the_limit_or_after_an_upgrade() {
        let watch = watching(10);
        watch.saw(b"GET /").expect("room");
        watch.saw(b"a longer one").expect("room");
        assert!(watch.state.lock().bytes.is_empty());
        watch.off();
        watch.saw(b"raw").expect("room");
        assert!(watch.state.lock().bytes.is_empty() && watch.state.lock().since.is_none());
    }

    #[test]
    fn a_long_head_takes_memory_until_its_connection_ends() {
        let budget = Arc::new(MemoryBudget::new(64 * 1024));
        let watch = Watch::new(128 * 1024, budget.of_heads(None));
        watch.saw(&[b'a'; FREE_BYTES]).expect("free");
        assert_eq!(budget.held(), 0);
        watch.saw(b"a").expect("room");
        let held = budget.held();
        assert!(held > 2 * FREE_BYTES, "as often as it is held");
        let _ = watch.take(&request("/x", None));
        assert_eq!(budget.held(), held, "hyper's buffer is as large as before");
        let other = Watch::new(128 * 1024, budget.of_heads(None));
        assert!(other.saw(&[b'a'; 40 * 1024]).is_err());
        drop((watch, other));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_chunked_body_is_not_taken_for_a_head_and_the_one_behind_it_is_looked_at() {
        let head = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (body, next) = ("6\r\nGET /#\r\n0\r\n\r\n", "POST /y#z HTTP/1.1\r\n\r\n");
        let both = format!("{body}{next}");
        for cut in 0..both.len() {
            let (first, second) = both.split_at(cut);
            let watch = watching(1000);
            watch.saw(format!("{head}{first}").as_bytes()).expect("room");
            assert!(!watch.take(&request("/x", None)).doubtful);
            watch.saw(second.as_bytes()).expect("room");
            assert!(watch.take(&request("/y", None)).doubtful, "cut at {cut}");
        }
    }

    #[test]
    fn white_space_behind_a_chunks_size_is_in_doubt_before_its_request_and_ends_it_later() {
        let head = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let watch = watching(1000);
        watch.saw(format!("{head}5 \r\nhello\r\n0\r\n\r\n").as_bytes()).expect("room");
        assert!(watch.take(&request("/x", None)).doubtful);
        let watch = watching(1000);
        watch.saw(format!("POST /b HTTP/1.1\r\n\r\n{head}5 \r\nhello").as_bytes()).expect("room");
        assert!(!watch.take(&request("/b", None)).doubtful);
        assert!(watch.take(&request("/x", None)).doubtful, "in one piece with the one before");
        let watch = watching(1000);
        watch.saw(head.as_bytes()).expect("room");
        assert!(!watch.take(&request("/x", None)).doubtful);
        watch.saw(b"5\r\nhello\r\n").expect("room");
        assert_eq!(watch.saw(b"0 \r\n\r\n"), Err(Cut::DoubtfulChunk));
    }

    #[test]
    fn behind_a_chunked_body_that_hyper_refuses_nothing_is_looked_at_until_the_answer_has_ended() {
        let watch = Arc::new(watching(1000));
        watch.saw(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nGET /#\r\n\r\n").expect("room");
        assert!(!watch.take(&request("/x", None)).doubtful);
        watch.saw(b"GET /#\r\n0\r\n\r\n").expect("room");
        assert!(watch.state.lock().bytes.is_empty());
        drop(watch.follow(StatusCode::OK));
        watch.saw(b"POST /y HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").expect("room");
        assert!(!watch.take(&request("/y", None)).doubtful);
        watch.saw(b"what is no chunk").expect("room");
        drop(watch.follow(StatusCode::OK));
        watch.saw(b"POST /z#z HTTP/1.1\r\n\r\n").expect("room");
        assert!(watch.take(&request("/z", None)).doubtful, "it follows again");
    }
}
