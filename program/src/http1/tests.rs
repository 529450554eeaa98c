//! Answers byte for byte, whole and in pieces, and what a request looks like on the wire.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use relay_proto::HeaderBlock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// An answer as its caller gets it.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    status: u16,
    headers: HeaderBlock,
    body: Bytes,
    trailers: HeaderBlock,
    reused: bool,
}

/// What comes of an answer that is written in pieces of so many bytes and followed by the connection's end.
async fn answer(method: &str, text: &[u8], piece_bytes: usize) -> Result<Got, Http1Error> {
    let (ours, mut theirs) = duplex(64 * 1024);
    let mut connection = Connection::new(ours, 1024);
    connection.begin(method.as_bytes());
    // An error closes the connection, also where the other side still writes.
    let write = async {
        for piece in text.chunks(piece_bytes) {
            if theirs.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(theirs);
    };
    let read = async move { read(&mut connection).await };
    let (got, ()) = tokio::join!(read, write);
    got
}

async fn read(connection: &mut Connection<DuplexStream>) -> Result<Got, Http1Error> {
    let head = poll_fn(|cx| connection.poll_head(cx)).await?;
    let (mut body, mut trailers) = (BytesMut::new(), HeaderBlock::new());
    while let Some(part) = poll_fn(|cx| connection.poll_part(cx)).await? {
        match part {
            Part::Data(data) => body.extend_from_slice(&data),
            Part::Trailers(lines) => trailers = lines,
        }
    }
    let (status, reused) = (head.status.as_u16(), connection.may_be_reused());
    Ok(Got { status, headers: head.headers, body: body.freeze(), trailers, reused })
}

fn lines(lines: &[(&'static str, &'static str)]) -> HeaderBlock {
    lines.iter().copied().collect()
}

#[tokio::test]
async fn an_answer_is_read_alike_however_it_is_cut() {
    type Case = (&'static str, &'static str, u16, &'static str, bool);
    let cases: [Case; 14] = [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", true),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", true),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", true),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nhi", 200, "hi", false),
        ("GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\n\r\nhi", 200, "hi", false),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\n\r\nHTTP/1.1 204 X\r\n\r\n", 204, "", true),
        ("GET", "HTTP/1.1 304 X\r\nContent-Length: five\r\n\r\n", 304, "", true),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", 200, "", true),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", true),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", false),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nhi", 200, "hi", true),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end", false),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", 200, "hi", false),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5 ;a=\"b\"\r\nhello\r\n0a\r\n, my world\r\n0\r\n\r\n",
            200,
            "hello, my world",
            true,
        ),
    ];
    for (method, text, status, body, reused) in cases {
        for piece_bytes in [text.len(), 1, 2, 3, 7] {
            let got =
                answer(method, text.as_bytes(), piece_bytes).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((got.status, &got.body[..]), (status, body.as_bytes()), "{text}");
            // What stands behind an answer may not be here yet; it is seen before the next one.
            assert!(got.reused == reused || text.ends_with("OK\r\n\r\n") && piece_bytes < text.len(), "{text}");
        }
    }
}

#[tokio::test]
async fn lines_of_one_hop_stay_behind_and_names_become_small() {
    let head = "HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: X-Hop, host, content-length\r\nx-hop: 2\r\nKeep-Alive: timeout=5\r\n\
        TE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\nproxy-authentication-info: x\r\nHost: h\r\nContent-Length: 0\r\n\
        Set-Cookie: a\r\nX-a: \r\nset-cookie: b, c\r\n\r\n";
    let got = answer("GET", head.as_bytes(), head.len()).await.expect("an answer");
    let left = [
        ("x-a", "1"),
        ("host", "h"),
        ("content-length", "0"),
        ("set-cookie", "a"),
        ("x-a", ""),
        ("set-cookie", "b, c"),
    ];
    assert_eq!(got.headers, lines(&left));
}

#[tokio::test]
async fn trailers_are_read_and_held_to_the_rules_of_lines() {
    let chunked = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n";
    for piece_bytes in [1, 1000] {
        let text = format!("{chunked}X-Sum: 1\r\nX-sum: \u{e4}\r\n\r\n");
        let got = answer("GET", text.as_bytes(), piece_bytes).await.expect("an answer");
        assert_eq!((&got.body[..], got.reused), (&b"hi"[..], true));
        assert_eq!(got.headers, lines(&[("trailer", "X-Sum")]));
        assert_eq!(got.trailers, lines(&[("x-sum", "1"), ("x-sum", "\u{e4}")]));
        for wrong in ["no colon\r\n\r\n", "a b: c\r\n\r\n", "a: b\n\n", "\n", "a: b\rc\r\n\r\n", "a: b\r\n", "a"] {
            let text = format!("{chunked}{wrong}");
            assert!(answer("GET", text.as_bytes(), piece_bytes).await.is_err(), "{wrong:?}");
        }
    }
    let many = format!("{chunked}{}\r\n", "a: b\r\n".repeat(MAX_LINES + 1));
    let large = format!("{chunked}a: {}\r\n\r\n", "x".repeat(20_000));
    for text in [many, large] {
        assert!(answer("GET", text.as_bytes(), 1000).await.is_err());
    }
}

#[tokio::test]
async fn what_means_nothing_or_two_things_is_an_error() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = [
        "zz\r\n",
        "\r\n\r\n",
        ";x\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "3\r\nlonger\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nx\r0\r\n\r\n",
        "11111111111111111\r\nx",
        "1 1\r\nx\r\n0\r\n\r\n",
        "2\r\nhi\r\n",
        "2\r\nh",
        "2",
        "",
    ];
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(20_000));
    let chunks = chunks.into_iter().chain([long.as_str()]).map(|body| format!("{chunked}{body}"));
    let heads = [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nh",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 0\r\n\r\n",
    ];
    let large = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a:b\r\n".repeat(MAX_LINES + 1));
    for text in heads.into_iter().map(str::to_owned).chain(chunks).chain([large, many]) {
        for piece_bytes in [1, 1_000_000] {
            let got = answer("POST", text.as_bytes(), piece_bytes).await;
            assert!(got.is_err(), "{:?} became {got:?}", &text[..text.len().min(120)]);
        }
    }
}

#[tokio::test]
async fn a_101_leaves_what_stands_behind_it() {
    let (ours, mut theirs) = duplex(1024);
    let mut connection = Connection::new(ours, 1024);
    connection.begin(b"GET");
    theirs.write_all(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nraw").await.expect("room");
    let head = poll_fn(|cx| connection.poll_head(cx)).await.expect("a head");
    assert_eq!((head.status.as_u16(), head.upgrade.as_deref()), (101, Some(&b"chat"[..])));
    assert!(!connection.may_be_reused());
    assert_eq!(connection.into_raw().1, "raw");
}

#[tokio::test]
async fn what_comes_unasked_is_noticed() {
    let (ours, mut theirs) = duplex(1024);
    let mut connection = Connection::new(ours, 1024);
    assert!(connection.is_quiet());
    theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.expect("room");
    assert!(!connection.is_quiet());
    let (ours, theirs) = duplex(1024);
    drop(theirs);
    assert!(!Connection::new(ours, 1024).is_quiet());
}

/// A body of given frames.
struct Frames(Vec<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready((!self.0.is_empty()).then(|| Ok(self.0.remove(0))))
    }
}

#[tokio::test]
async fn a_body_goes_out_as_it_is_framed_and_trailers_as_they_are_announced() {
    let long = "x".repeat(50_000);
    let data = |text: &str| Frame::data(Bytes::copy_from_slice(text.as_bytes()));
    let mut trailers = HeaderMap::new();
    for (name, value) in [("x-sum", "1"), ("x-other", "2"), ("content-length", "3"), ("x-sum", "4")] {
        trailers.append(name, value.parse().expect("a value"));
    }
    let announced = lines(&[("trailer", "X-Sum, content-length")]);
    let cases = [
        (None, vec![data("ab"), data(&long), data("c")], format!("ab{long}c")),
        (Some(HeaderBlock::new()), Vec::new(), "0\r\n\r\n".to_owned()),
        (
            Some(HeaderBlock::new()),
            vec![data("ab"), data(""), data(&long), data("c")],
            format!("2\r\nab\r\nc350\r\n{long}\r\n1\r\nc\r\n0\r\n\r\n"),
        ),
        (
            Some(announced),
            vec![data(&long), Frame::trailers(trailers)],
            format!("c350\r\n{long}\r\n0\r\nx-sum: 1\r\nx-sum: 4\r\n\r\n"),
        ),
    ];
    for (chunked, frames, expected) in cases {
        let (ours, mut theirs) = duplex(1000);
        let mut connection = Connection::new(ours, 1024);
        let mut upload = Upload::new(BytesMut::from("head\r\n\r\n"), Some(Frames(frames)), chunked);
        let write = async {
            poll_fn(|cx| connection.poll_upload(cx, &mut upload)).await.expect("written");
            drop(connection);
        };
        let mut seen = String::new();
        let (read, ()) = tokio::join!(theirs.read_to_string(&mut seen), write);
        read.expect("whole");
        assert_eq!(seen, format!("head\r\n\r\n{expected}"));
    }
}

#[tokio::test]
async fn a_question_is_asked_and_its_answer_bounded() {
    let (ours, mut theirs) = duplex(1024);
    let mut connection = Connection::new(ours, 1024);
    let question = Request::post("/a?b").header("host", "h").body(Bytes::from_static(b"hi")).expect("a question");
    let serve = async {
        let mut seen = vec![0; 1024];
        let count = theirs.read(&mut seen).await.expect("a question");
        theirs.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.expect("room");
        String::from_utf8(seen[..count].to_vec()).expect("text")
    };
    let (answer, seen) = tokio::join!(connection.ask(question), serve);
    assert_eq!(seen, "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi");
    assert_eq!(answer.expect("an answer").status, 200);
    assert!(matches!(connection.collect(4).await, Err(Http1Error::TooLarge(4))));
}

#[test]
fn parts_of_an_address_are_encoded() {
    assert_eq!(encoded("a-b_c.d~1"), "a-b_c.d~1");
    assert_eq!(encoded("a/b?c&d=ä"), "a%2Fb%3Fc%26d%3D%C3%A4");
}
