//! A message on its way to the socket: one binary frame of the WebSocket, written from where its parts are.
//!
//! The library would copy a message behind its header, and move the rest of it to the front whenever the socket took a
//! part. It still reads, and it answers pings and closes; nothing of that may come between the parts of a frame, which
//! [`crate::socket::Counted`] sees to.
//!
//! A client's frames are masked (RFC 6455, section 5.3), and for that they are copied into one piece.
//!
//! Invariant: a message that waits for the socket holds no part of a body, only bytes of its own.

use std::{
    io::{self, IoSlice},
    iter,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use relay_proto::MessageBuffer;
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

/// The longest header of a frame: two bytes, a length of eight, a mask of four.
const HEADER_BYTES: usize = 14;

/// Parts of bodies that are not copied.
const LONG_BYTES: usize = 8 * 1024;

/// Pieces that the socket gets at a time; a message mostly has fewer.
const MAX_SLICES: usize = 18;

/// What a message begins with. A buffer that did not grow far is not worth keeping for the next message.
const FIRST_BYTES: usize = 256;
const SMALL_BYTES: usize = 1024;

#[derive(Debug)]
pub(crate) struct OutMessage {
    /// The keys of frames to come, where they are masked.
    masks: Option<Masks>,
    /// Room for the header, and behind it all that is copied.
    short: BytesMut,
    /// The most that was copied of a message since its buffer was new, and for the buffer before.
    most_copied: usize,
    most_before: usize,
    /// The parts that are not, each with its place in `short`.
    long: Vec<(usize, Bytes)>,
    long_bytes: usize,
    /// Where in `short` the frame begins.
    begin: usize,
    /// How long the frame is; 0 before it is sealed.
    frame_bytes: usize,
    written: usize,
}

impl OutMessage {
    pub(crate) fn new(is_masked: bool) -> Self {
        let (masks, short, long) = (is_masked.then(Masks::default), BytesMut::new(), Vec::new());
        Self { masks, short, most_copied: 0, most_before: 0, long, long_bytes: 0, begin: 0, frame_bytes: 0, written: 0 }
    }

    /// Makes a frame of the message that was written into it.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        let mask = self.masks.as_mut().map(Masks::next).transpose()?;
        let header = FrameHeader { opcode: OpCode::Data(Data::Binary), mask, ..FrameHeader::default() };
        let len = self.len() as u64;
        self.begin = HEADER_BYTES - header.len(len);
        let (head, payload) = self.short.split_at_mut(HEADER_BYTES);
        header.format(len, &mut &mut head[self.begin..]).map_err(io::Error::other)?;
        if let Some(mask) = mask {
            apply(mask, payload);
        }
        self.frame_bytes = self.short.len() - self.begin + self.long_bytes;
        self.most_copied = self.most_copied.max(self.short.len());
        Ok(())
    }

    /// Writes what is left of the frame; ready once there is nothing left.
    pub(crate) fn poll_write<S>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while self.written < self.frame_bytes {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(self.pieces()) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let stream = Pin::new(&mut *stream);
            let wrote = match &slices[..count] {
                [one] => stream.poll_write(cx, one),
                several => stream.poll_write_vectored(cx, several),
            };
            match wrote {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.hold_alone();
                    return Poll::Pending;
                }
            }
        }
        self.short.clear();
        self.long.clear();
        (self.long_bytes, self.frame_bytes, self.written) = (0, 0, 0);
        Poll::Ready(Ok(()))
    }

    /// What is left of the frame, piece by piece.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let places = self.long.iter().map(|(place, _)| *place);
        let begins = iter::once(self.begin).chain(places.clone());
        let ends = places.chain(iter::once(self.short.len()));
        let long = self.long.iter().map(|(_, bytes)| &bytes[..]).chain(iter::once(&[][..]));
        let pieces = begins.zip(ends).zip(long).flat_map(|((begin, end), long)| [&self.short[begin..end], long]);
        let mut written = self.written;
        pieces.filter_map(move |piece| {
            let (done, left) = piece.split_at(written.min(piece.len()));
            written -= done.len();
            (!left.is_empty()).then_some(left)
        })
    }

    /// Copies what is left of bodies: whoever gave them may have to do without the memory before the peer takes them.
    fn hold_alone(&mut self) {
        if self.long.is_empty() {
            return;
        }
        let mut left = BytesMut::with_capacity(self.frame_bytes - self.written);
        self.pieces().for_each(|piece| left.extend_from_slice(piece));
        (self.begin, self.frame_bytes, self.written) = (0, left.len(), 0);
        (self.short, self.long, self.long_bytes) = (left, Vec::new(), 0);
    }

    /// Gives memory back once everything is written: all of it where a turn of the driver had nothing to send, so that an
    /// idle tunnel holds none, and what is little at once.
    pub(crate) fn let_go(&mut self, is_idle: bool) {
        if is_idle || self.short.capacity() <= SMALL_BYTES {
            (self.short, self.long) = (BytesMut::new(), Vec::new());
            if self.most_copied > 0 {
                (self.most_before, self.most_copied) = (self.most_copied, 0);
            }
        }
    }
}

impl MessageBuffer for OutMessage {
    fn len(&self) -> usize {
        self.short.len().saturating_sub(HEADER_BYTES) + self.long_bytes
    }

    fn short(&mut self) -> &mut BytesMut {
        if self.short.is_empty() {
            // Under load one turn sends as much as the other, and a buffer that grows to that is moved some times.
            self.short.reserve(self.most_before.max(FIRST_BYTES));
            self.short.put_bytes(0, HEADER_BYTES);
        }
        &mut self.short
    }

    fn push_body(&mut self, bytes: Bytes) {
        if bytes.len() < LONG_BYTES || self.masks.is_some() {
            return self.short().extend_from_slice(&bytes);
        }
        let place = self.short().len();
        self.long_bytes += bytes.len();
        self.long.push((place, bytes));
    }
}

/// Keys that nobody can foresee (RFC 6455, section 10.3), drawn many at a time.
#[derive(Debug, Default)]
struct Masks {
    drawn: Vec<[u8; 4]>,
}

impl Masks {
    fn next(&mut self) -> io::Result<[u8; 4]> {
        if self.drawn.is_empty() {
            let mut keys = [[0; 4]; 32];
            getrandom::fill(keys.as_flattened_mut()).map_err(|error| io::Error::other(error.to_string()))?;
            self.drawn.extend(keys);
        }
        Ok(self.drawn.pop().expect("just drawn"))
    }
}

/// Masks a payload.
fn apply(mask: [u8; 4], payload: &mut [u8]) {
    let wide = u128::from_ne_bytes(std::array::from_fn(|at| mask[at % 4]));
    let (blocks, rest) = payload.as_chunks_mut::<16>();
    for block in blocks {
        *block = (u128::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, Sink as _, StreamExt as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    use super::*;
    use crate::socket::{websocket, websocket_config};

    /// Parts of a body, and what stands around them.
    fn parts() -> Vec<Bytes> {
        let bytes = |len: usize| Bytes::from((0..len).map(|at| (at % 251) as u8).collect::<Vec<_>>());
        [3, LONG_BYTES, 0, LONG_BYTES - 1, 5 * LONG_BYTES, LONG_BYTES + 1, 7].map(bytes).into()
    }

    /// A message of these parts, sealed, and its payload.
    fn message(is_masked: bool, parts: Vec<Bytes>) -> (OutMessage, Vec<u8>) {
        let (mut message, mut payload) = (OutMessage::new(is_masked), Vec::new());
        for part in parts {
            message.short().put_slice(b"head");
            payload.extend_from_slice(b"head");
            payload.extend_from_slice(&part);
            message.push_body(part);
        }
        assert_eq!(MessageBuffer::len(&message), payload.len());
        message.seal().unwrap();
        (message, payload)
    }

    async fn write(message: &mut OutMessage, stream: &mut (impl AsyncWrite + Unpin)) {
        std::future::poll_fn(|cx| message.poll_write(cx, stream)).await.unwrap();
    }

    #[tokio::test]
    async fn the_library_reads_what_is_written_in_pieces_of_any_size() {
        for (is_masked, reader) in [(true, Role::Server), (false, Role::Client)] {
            for room in [1, 100, 5000, 1_000_000] {
                for parts in [parts(), vec![Bytes::from_static(b"short")], vec![Bytes::from(vec![7; 70_000])]] {
                    let (mut ours, theirs) = duplex(room);
                    let (mut message, payload) = message(is_masked, parts);
                    let sending = tokio::spawn(async move {
                        write(&mut message, &mut ours).await;
                        write(&mut message, &mut ours).await; // Nothing is left.
                        message.short().put_slice(b"next");
                        message.seal().unwrap();
                        write(&mut message, &mut ours).await;
                        ours
                    });
                    let config = Some(websocket_config());
                    let mut reader = WebSocketStream::from_raw_socket(theirs, reader, config).await;
                    let Some(Ok(Message::Binary(first))) = reader.next().await else { panic!("a message") };
                    let Some(Ok(Message::Binary(next))) = reader.next().await else { panic!("a message") };
                    assert!(first == payload && next == "next", "masked {is_masked}, {room} bytes at a time");
                    drop(sending.await.unwrap());
                }
            }
        }
    }

    #[tokio::test]
    async fn what_waits_for_the_socket_holds_no_body() {
        let body = Bytes::from(vec![7; 4 * LONG_BYTES]);
        let (mut message, payload) = message(false, vec![body.clone()]);
        assert!(!body.is_unique(), "it is not copied before it has to wait");
        let (mut ours, mut theirs) = duplex(1000);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(message.poll_write(&mut cx, &mut ours).is_pending());
        assert!(body.is_unique());
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all
        });
        write(&mut message, &mut ours).await;
        drop(ours);
        assert!(reading.await.unwrap().ends_with(&payload));
        message.let_go(false);
        assert!(message.short.capacity() > SMALL_BYTES, "the next message needs as much");
        message.let_go(true);
        assert_eq!(message.short.capacity(), 0);
    }

    #[tokio::test]
    async fn an_answer_of_the_library_comes_between_messages_and_not_into_one() {
        let (ours, mut theirs) = duplex(1000);
        let mut socket = websocket(ours, Vec::new(), Role::Client, websocket_config()).await;
        let (mut message, payload) = message(true, parts());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(socket.get_mut().poll_message(&mut cx, &mut message).is_pending());
        theirs.write_all(b"\x89\x02hi").await.unwrap(); // A ping.
        let ping = socket.next().await.unwrap().unwrap();
        assert_eq!(ping, Message::Ping("hi".into()));
        let mut reader = WebSocketStream::from_raw_socket(theirs, Role::Server, Some(websocket_config())).await;
        let sending = tokio::spawn(async move {
            assert!(socket.next().now_or_never().is_none());
            std::future::poll_fn(|cx| socket.get_mut().poll_message(cx, &mut message)).await.unwrap();
            std::future::poll_fn(|cx| Pin::new(&mut socket).poll_flush(cx)).await.unwrap();
            socket
        });
        assert_eq!(reader.next().await.unwrap().unwrap(), Message::Binary(payload.into()));
        assert_eq!(reader.next().await.unwrap().unwrap(), Message::Pong("hi".into()));
        drop(sending.await.unwrap());
    }
}
