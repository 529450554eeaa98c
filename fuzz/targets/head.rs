//! Heads of HTTP/1.1, as senders and handlers write them, and what a proxy says in front of them.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Request;
use relay_program::http1::Connection;
use relay_proto::HeaderBlock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most of an answer's head and body that are read, in bytes: more than any input has.
const MOST_BYTES: usize = 1 << 22;

/// Bytes mean the same whole and in pieces. The first byte says in pieces of which size.
pub(crate) fn head(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let piece = 1 + usize::from(how >> 1);
    relay_server::fuzz::heads(bytes, piece);
    relay_server::fuzz::proxied(bytes);
    let method = if how & 1 == 0 { "POST" } else { "HEAD" };
    let whole = answer(method, bytes, usize::MAX);
    assert_eq!(whole, answer(method, bytes, piece), "in pieces of {piece}");
}

/// What is read of an answer; nothing where it is none.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    headers: HeaderBlock,
    upgrade: Option<Bytes>,
    /// Nothing where it broke off.
    body: Option<Bytes>,
}

fn answer(method: &str, bytes: &[u8], piece: usize) -> Option<Answer> {
    let mut handler = Connection::new(Handler { bytes, piece }, MOST_BYTES);
    let question = Request::builder().method(method).uri("/x").body(Bytes::new()).expect("a request");
    let head = now(handler.ask(question)).ok()?;
    assert!(matches!(head.status.as_u16(), 101 | 200..=599));
    let body = now(handler.collect(MOST_BYTES)).ok();
    assert!(body.is_none() || handler.has_ended());
    assert!(body.is_some() || !handler.may_be_reused(), "a broken answer takes its connection along");
    Some(Answer {
        status: head.status.as_u16(),
        headers: HeaderBlock::decode(head.headers.as_bytes().clone()).expect("what the tunnel takes"),
        upgrade: head.upgrade,
        body,
    })
}

/// Takes every request, and answers with these bytes.
struct Handler<'b> {
    bytes: &'b [u8],
    piece: usize,
}

impl AsyncRead for Handler<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.bytes.split_at(self.bytes.len().min(self.piece).min(buf.remaining()));
        buf.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handler<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The end of what never waits.
fn now<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ended) => ended,
        Poll::Pending => panic!("nothing here waits"),
    }
}
