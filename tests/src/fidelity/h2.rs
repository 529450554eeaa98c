//! Senders that speak HTTP/2 over TLS, towards a handler that speaks HTTP/1.1.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Bench, Seen,
    bench::ok,
    headers::{ADDED_TO_ANSWERS, ADDED_TO_REQUESTS, Generator, same_but_for},
    wire::{Framing, Lines, message},
};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Sender = SendRequest<Body>;

async fn connect(bench: &Bench) -> anyhow::Result<Sender> {
    let stream = TokioIo::new(bench.tls_sender(b"h2").await?);
    let (sender, connection) = handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn request(method: &str, uri: &str, body: Option<&[u8]>) -> Request<Body> {
    let body = match body {
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        Some(body) => Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {}).boxed_unsync(),
    };
    Request::builder().method(method).uri(uri).body(body).expect("the case's request is valid")
}

/// Sends a request and answers its call; what the handler saw, and the answer's head and body.
async fn exchange(
    bench: &mut Bench,
    sender: &mut Sender,
    request: Request<Body>,
    answer: &[u8],
) -> anyhow::Result<(super::wire::Message, Response<Bytes>)> {
    let sent = sender.send_request(request);
    let handled = async {
        let seen = bench.seen().await?;
        let message = seen.message.clone();
        seen.answer(answer);
        anyhow::Ok(message)
    };
    let (seen, response) = tokio::try_join!(handled, async { Ok(sent.await?) })?;
    let (head, body) = response.into_parts();
    Ok((seen, Response::from_parts(head, body.collect().await?.to_bytes())))
}

/// The values of a header map by name.
fn lines(headers: &HeaderMap) -> Lines {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// Many requests at once on one connection; each sender gets the answer to its own.
pub async fn many_requests_share_a_connection(bench: &mut Bench) -> anyhow::Result<()> {
    const AT_ONCE: usize = 40;
    let sender = connect(bench).await?;
    let mut asked = JoinSet::new();
    for number in 0..AT_ONCE {
        let (mut sender, body) = (sender.clone(), number.to_string());
        asked.spawn(async move {
            let uri = format!("https://localhost/open/{number}");
            let response = sender.send_request(request("POST", &uri, Some(body.as_bytes()))).await?;
            anyhow::Ok((number, response.into_body().collect().await?.to_bytes()))
        });
    }
    let mut calls: Vec<Seen> = Vec::new();
    while calls.len() < AT_ONCE {
        calls.push(bench.seen().await?);
    }
    // Answered in the reverse order of their coming.
    for call in calls.into_iter().rev() {
        let target = String::from_utf8(call.message.head.target())?;
        ensure!(target.as_bytes()[1..] == call.message.body, "{target}");
        call.answer(message(
            "HTTP/1.1 200 OK",
            &[("Content-Length", target.len().to_string().as_bytes())],
            target.as_bytes(),
        ));
    }
    while let Some(answered) = asked.join_next().await {
        let (number, body) = answered??;
        ensure!(body == format!("/{number}"), "{number} got {body:?}");
    }
    Ok(())
}

/// Lists of headers arrive as over HTTP/1.1, both ways.
pub async fn header_lists_arrive_as_they_are(bench: &mut Bench) -> anyhow::Result<()> {
    let mut generator = Generator::seeded();
    let mut sender = connect(bench).await?;
    for number in 0..100 {
        let (asked, answered) = (generator.list(90, 12_000), generator.list(90, 12_000));
        let mut sent = request("POST", "https://localhost/open", Some(b""));
        for (name, value) in &asked {
            sent.headers_mut().append(http::HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(value)?);
        }
        let raw: Vec<(&str, &[u8])> = answered.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let answer = message("HTTP/1.1 200 OK", &[&raw[..], &[("content-length", b"0")]].concat(), b"");
        let (seen, got) =
            exchange(bench, &mut sender, sent, &answer).await.with_context(|| format!("list {number}"))?;
        let mut added = ADDED_TO_REQUESTS.to_vec();
        added.push("content-length");
        same_but_for(&asked, &seen.head.lines, &added).with_context(|| format!("request {number}"))?;
        let mut added = ADDED_TO_ANSWERS.to_vec();
        added.push("content-length");
        if bench.mode.answers() {
            same_but_for(&answered, &lines(got.headers()), &added).with_context(|| format!("answer {number}"))?;
        }
    }
    Ok(())
}

/// As many header lines as over HTTP/1.1 and the tunnel arrive; with one more the request is refused, and the connection
/// goes on.
pub async fn a_hundred_header_lines_arrive_and_no_more(bench: &mut Bench) -> anyhow::Result<()> {
    const MOST: usize = 100;
    let mut sender = connect(bench).await?;
    let with = |lines: usize| {
        let mut sent = request("GET", "https://localhost/open", None); // A POST would say a length.
        for _ in 0..lines {
            sent.headers_mut().append("x-line", HeaderValue::from_static("1"));
        }
        sent
    };
    let refused = sender.send_request(with(MOST + 1)).await?;
    ensure!(refused.status() == 431, "{refused:?}");
    ensure!(refused.headers().get("relay-error").is_some_and(|code| code == "head_too_large"), "{refused:?}");
    let (seen, got) = exchange(bench, &mut sender, with(MOST), &ok()).await?;
    ensure!(seen.head.all("x-line").len() == MOST && got.status() == 200, "{got:?}");
    Ok(())
}

/// HTTP/2 may bring a length twice. Those that agree become one; those that differ are refused.
pub async fn lengths_are_one_and_agree(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    let twice = |second: &'static str| {
        let mut sent = request("POST", "https://localhost/open", Some(b"ok"));
        sent.headers_mut().append("content-length", HeaderValue::from_static("2"));
        sent.headers_mut().append("content-length", HeaderValue::from_static(second));
        sent
    };
    let (seen, _) = exchange(bench, &mut sender, twice("2"), &ok()).await?;
    ensure!(seen.head.framing()? == Framing::Length(2) && seen.body == b"ok", "{:?}", seen.head);
    for other in ["3", "2, 2", "two", ""] {
        // Malformed (RFC 9113, section 8.1.1): a stream error, or 400.
        let answered = sender.send_request(twice(other)).await;
        ensure!(!answered.is_ok_and(|answer| answer.status() != 400) && bench.nothing_seen(), "{other} passed");
    }
    Ok(())
}

/// HTTP/2 breaks a cookie into crumbs; HTTP/1.1 knows one line (RFC 9113, section 8.2.3).
pub async fn cookie_crumbs_become_one_line(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    let mut sent = request("GET", "https://localhost/open", None);
    for crumb in ["a=1", "b=2; c=3", "d=4"] {
        sent.headers_mut().append("cookie", HeaderValue::from_static(crumb));
    }
    let (seen, _) = exchange(bench, &mut sender, sent, &ok()).await?;
    let cookies = seen.head.all("cookie");
    ensure!(cookies == [b"a=1; b=2; c=3; d=4"], "{} lines", cookies.len());
    Ok(())
}

/// `:authority` is the sender's host; the target is `:path`, byte for byte.
pub async fn the_authority_and_the_path_are_those_of_the_sender(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    for (uri, target) in [
        ("https://Hook.test:8443/open/a%2Fb//c/../d?x=%20&x", "/a%2Fb//c/../d?x=%20&x"),
        ("https://Hook.test:8443/open?", "/?"),
    ] {
        let (seen, response) = exchange(bench, &mut sender, request("DELETE", uri, None), &ok()).await?;
        ensure!(response.status() == 200 && (!bench.mode.answers() || response.body() == "ok"));
        ensure!(seen.head.target() == target.as_bytes() && seen.head.method() == "DELETE", "{:?}", seen.head);
        ensure!(seen.head.one("host") == bench.handler, "{}", seen.head.one("host"));
        ensure!(seen.head.one("x-forwarded-host") == "Hook.test:8443", "{}", seen.head.one("x-forwarded-host"));
        ensure!(seen.head.one("x-forwarded-proto") == "https");
        ensure!(seen.head.framing()? == Framing::None, "no body, and no word of one");
    }
    Ok(())
}

/// Bodies of every size both ways, at once.
pub async fn bodies_arrive_byte_for_byte(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    for len in [0, 1, 16_385, 65_537, 1_000_003, 25 * 1024 * 1024] {
        let body: Vec<u8> = (0..len).map(|n: usize| ((n % 256) ^ (n / 251)) as u8).collect();
        let answer = message("HTTP/1.1 200 OK", &[("Content-Length", len.to_string().as_bytes())], &body);
        let sent = request("POST", "https://localhost/open", Some(&body));
        let (seen, got) = exchange(bench, &mut sender, sent, &answer).await.with_context(|| format!("{len} bytes"))?;
        ensure!(seen.body == body, "{len} bytes arrived as {}", seen.body.len());
        if bench.mode.answers() {
            ensure!(got.body() == &body, "{len} bytes came back as {}", got.body().len());
            ensure!(got.headers()["content-length"] == len.to_string());
        }
    }
    Ok(())
}

/// Trailers need no announcement over HTTP/2, but HTTP/1.1 does: announced ones arrive, both ways. Those of a handler that
/// are of one hop, or the relay's to write, stay behind and break nothing.
pub async fn trailers_arrive_both_ways(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    let (feed, mut fed) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(4);
    let frames = futures_util::stream::poll_fn(move |cx| fed.poll_recv(cx));
    let mut sent = request("POST", "https://localhost/open", None).map(|_| StreamBody::new(frames).boxed_unsync());
    sent.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    sent.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    feed.send(Ok(Frame::data(Bytes::from_static(b"hello")))).await?;
    let mut trailers = HeaderMap::new();
    trailers.append("x-sum", HeaderValue::from_static("1"));
    trailers.append("x-sum", HeaderValue::from_bytes(b"\xe4")?);
    feed.send(Ok(Frame::trailers(trailers.clone()))).await?;
    drop(feed);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\n\
        x-sum: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\
        Relay-Error: forged\r\nRelay_Event_Id: forged\r\nx-sum: \xe4\r\n\r\n";
    let asked = sender.send_request(sent);
    let handled = async {
        let seen = bench.seen().await?;
        let message = seen.message.clone();
        seen.answer(&answer[..]);
        anyhow::Ok(message)
    };
    let (seen, response) = tokio::try_join!(handled, async { Ok(asked.await?) })?;
    ensure!(
        seen.body == b"hello" && seen.head.framing()? == Framing::Chunked && seen.trailers == lines(&trailers),
        "{seen:?}"
    );
    ensure!(seen.head.one("te") == "trailers");
    let whole = response.into_body().collect().await?;
    ensure!(whole.trailers() == Some(&trailers), "{:?}", whole.trailers());
    ensure!(whole.to_bytes() == "ok");
    Ok(())
}

/// `HEAD`, 204 and 304 leave the connection in step.
pub async fn answers_without_a_body_end_their_stream(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    let cases: [(&str, &[u8], u16); 3] = [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
    ];
    for (method, answer, status) in cases {
        let sent = request(method, "https://localhost/open", None);
        let (_, got) = exchange(bench, &mut sender, sent, answer).await?;
        ensure!(got.status() == status && got.body().is_empty(), "{got:?}");
        ensure!(method != "HEAD" || got.headers()["content-length"] == "5", "{got:?}");
    }
    Ok(())
}

/// A stream that the sender resets ends the handler's call; the others on the connection go on.
pub async fn a_reset_stream_ends_one_call_alone(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    let kept = sender.send_request(request("GET", "https://localhost/open/kept", None));
    let kept = tokio::spawn(kept);
    let mut kept_call = bench.call().await?;
    kept_call.request().await?.context("a call")?;
    let lost = tokio::spawn(sender.send_request(request("GET", "https://localhost/open/lost", None)));
    let mut lost_call = bench.call().await?;
    lost_call.request().await?.context("a call")?;
    lost.abort();
    ensure!(lost_call.to_end().await.unwrap_or_default().is_empty());
    kept_call.write(ok()).await?;
    let response: Response<Incoming> = kept.await??;
    ensure!(response.into_body().collect().await?.to_bytes() == "ok");
    Ok(())
}

/// A handler that breaks off resets the stream, and no answer looks whole.
pub async fn a_broken_answer_resets_its_stream(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = connect(bench).await?;
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let asked = tokio::spawn(sender.send_request(request("GET", "https://localhost/open", None)));
        let mut call = bench.call().await?;
        call.request().await?.context("a call")?;
        call.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nfirst\r\n")).await?;
        let mut response = asked.await??;
        let first = response.frame().await.context("a frame")??;
        ensure!(first.is_data());
        drop(call);
        ensure!(response.into_body().collect().await.is_err(), "{framing}: a broken answer looks whole");
    }
    Ok(())
}
