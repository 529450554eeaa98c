//! What happens while a request and its answer are under way. Lawful in live mode alone.
//!
//! The handler is a bare socket here: each case says what it reads and writes, and when.

use anyhow::{Context, bail, ensure};

use super::{
    Bench,
    bench::is_error,
    wire::{Wire, shown},
};

/// Reads up to and with `end`.
async fn until(wire: &mut Wire, end: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        seen.extend(wire.exactly(1).await.with_context(|| format!("before {}: {}", shown(end), shown(&seen)))?);
    }
    Ok(seen)
}

/// Each event of a stream that never ends arrives while the next one is not yet written.
pub async fn server_sent_events_arrive_as_they_are_written(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"GET /open/events HTTP/1.1\r\nHost: hook.test\r\nAccept: text/event-stream\r\n\r\n").await?;
    let mut call = bench.call().await?;
    call.request().await?.context("a call")?;
    call.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let head = sender.head().await?.context("a head before the first event")?;
    ensure!(head.one("content-type") == "text/event-stream");
    for number in 0..20 {
        let event = format!("id: {number}\ndata: {}\n\n", "x".repeat(number * 7));
        call.write(format!("{:x}\r\n{event}\r\n", event.len())).await?;
        let mut seen = Vec::new();
        while seen.len() < event.len() {
            seen.extend(sender.chunk().await?);
        }
        ensure!(seen == event.as_bytes(), "{}", shown(&seen));
    }
    Ok(())
}

/// Each piece of a request arrives while the next one is not yet sent.
pub async fn a_request_arrives_as_it_is_sent(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"POST /open HTTP/1.1\r\nHost: hook.test\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let mut call = bench.call().await?;
    call.head().await?.context("a head before the first chunk")?;
    for piece in ["one", "two", "three"] {
        sender.write(format!("{:x}\r\n{piece}\r\n", piece.len())).await?;
        ensure!(call.chunk().await? == piece.as_bytes());
    }
    sender.write(b"0\r\n\r\n").await?;
    ensure!(call.chunk().await?.is_empty() && call.trailers().await?.is_empty());
    call.write(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    ensure!(sender.answer("POST").await?.head.status()? == 204);
    Ok(())
}

/// A handler may answer before the request's end, and both go on side by side.
pub async fn an_answer_may_come_before_the_requests_end(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 9\r\n\r\none").await?;
    let mut call = bench.call().await?;
    until(&mut call, b"one").await?;
    call.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").await?;
    until(&mut sender, b"early\r\n").await?;
    sender.write(b"two").await?;
    until(&mut call, b"two").await?;
    sender.write(b"end").await?;
    until(&mut call, b"end").await?;
    call.write(b"4\r\nlate\r\n0\r\n\r\n").await?;
    until(&mut sender, b"late\r\n0\r\n\r\n").await?;
    Ok(())
}

/// A handler that has heard enough answers whole and hangs up; the sender gets that answer.
pub async fn a_whole_answer_before_the_requests_end_arrives(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 1000000\r\n\r\nsome").await?;
    let mut call = bench.call().await?;
    until(&mut call, b"some").await?;
    call.write(b"HTTP/1.1 413 Enough\r\nConnection: close\r\nContent-Length: 6\r\n\r\nenough").await?;
    drop(call);
    let got = sender.answer("POST").await?;
    ensure!(got.head.status()? == 413 && got.body == b"enough", "{:?}", got.head);
    Ok(())
}

/// A sender that leaves in the middle of its body: the handler sees a break, never a clean end.
pub async fn a_sender_that_leaves_mid_body_is_seen_by_the_handler(bench: &mut Bench) -> anyhow::Result<()> {
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        for half in [false, true] {
            let mut sender = bench.sender().await?;
            sender.write(format!("POST /open HTTP/1.1\r\nHost: hook.test\r\n{framing}\r\n\r\n")).await?;
            sender.write(b"5\r\nhello\r\n").await?;
            let mut call = bench.call().await?;
            until(&mut call, b"hello").await?;
            if half {
                sender.half_close().await?;
            } else {
                drop(sender);
            }
            let rest = call.to_end().await.unwrap_or_default();
            ensure!(!rest.ends_with(b"0\r\n\r\n"), "{framing}: a broken body looks whole: {}", shown(&rest));
            ensure!(rest.len() < 90, "{framing}: bytes that nobody sent");
        }
    }
    Ok(())
}

/// A sender that leaves while the handler is at work: the handler's connection is closed.
pub async fn a_sender_that_leaves_before_the_answer_is_seen_by_the_handler(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 2\r\n\r\nhi").await?;
    let mut call = bench.call().await?;
    call.request().await?.context("a call")?;
    drop(sender);
    ensure!(call.to_end().await.unwrap_or_default().is_empty());
    Ok(())
}

/// A sender that leaves in the middle of the answer: the handler's connection is closed.
pub async fn a_sender_that_leaves_mid_answer_is_seen_by_the_handler(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"GET /open HTTP/1.1\r\nHost: hook.test\r\n\r\n").await?;
    let mut call = bench.call().await?;
    call.request().await?.context("a call")?;
    call.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await?;
    until(&mut sender, b"first\r\n").await?;
    drop(sender);
    // What is written on shows the relay that the sender is gone, and the break comes back.
    while call.write(b"1\r\nx\r\n").await.is_ok() {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A handler that breaks off in the middle of its answer: the sender sees a break, never a clean end.
pub async fn a_handler_that_breaks_off_mid_body_is_seen_by_the_sender(bench: &mut Bench) -> anyhow::Result<()> {
    let breaks: [(&str, &[u8]); 6] = [
        ("Content-Length: 100", b""),
        ("Transfer-Encoding: chunked", b""),
        ("Transfer-Encoding: chunked", b"zz\r\nmore\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"3\r\nlonger\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"ffffffffffffffffff\r\nx"),
        ("Transfer-Encoding: chunked", b"0\r\nno colon\r\n\r\n"),
    ];
    for (framing, how) in breaks {
        let mut sender = bench.sender().await?;
        sender.write(b"GET /open HTTP/1.1\r\nHost: hook.test\r\n\r\n").await?;
        let mut call = bench.call().await?;
        call.request().await?.context("a call")?;
        call.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nfirst\r\n")).await?;
        until(&mut sender, b"first").await?;
        call.write(how).await?;
        drop(call);
        let rest = sender.to_end().await.unwrap_or_default();
        ensure!(!shown(&rest).contains("\\x0d\\x0a0\\x0d\\x0a"), "{framing}: {} looks whole", shown(&rest));
    }
    Ok(())
}

/// Trailers that the sender announces arrive behind its body; what is the relay's to say is none of them.
pub async fn trailers_of_a_request_arrive(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    let request = b"POST /open HTTP/1.1\r\nHost: hook.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Two\r\n\
        Trailer: Relay-Verified, Relay_Verified, X-Forwarded-For, X-Real-IP\r\n\r\n\
        5\r\nhello\r\n0\r\nX-Sum: \xe4bc\r\nX-Two: 1\r\nRelay-Verified: github\r\nRelay_Verified: github\r\n\
        X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nX-Two: 2\r\n\r\n";
    sender.write(request).await?;
    let mut call = bench.call().await?;
    let seen = call.request().await?.context("a call")?;
    ensure!(
        seen.body == b"hello" && seen.head.all("trailer").first() == Some(&&b"X-Sum, X-Two"[..]),
        "{:?}",
        seen.head
    );
    let expected = [("x-sum", &b"\xe4bc"[..]), ("x-two", b"1"), ("x-two", b"2")];
    let got: Vec<_> = seen.trailers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    ensure!(got == expected, "{got:?}");
    call.write(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    ensure!(sender.answer("POST").await?.head.status()? == 204);
    Ok(())
}

const UPGRADE: &[u8] =
    b"GET /open/chat?room=1 HTTP/1.1\r\nHost: hook.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// Both ends of an upgraded connection. The handler's first bytes come with its 101.
async fn upgraded(bench: &Bench) -> anyhow::Result<(Wire, Wire)> {
    let mut sender = bench.sender().await?;
    sender.write(UPGRADE).await?;
    let mut call = bench.call().await?;
    let head = call.head().await?.context("a call")?;
    ensure!(head.target() == b"/chat?room=1" && head.one("upgrade") == "websocket", "{head:?}");
    ensure!(head.one("connection").eq_ignore_ascii_case("upgrade") && head.one("sec-websocket-protocol") == "chat");
    ensure!(head.one("sec-websocket-key") == "dGhlIHNhbXBsZSBub25jZQ==" && head.one("sec-websocket-version") == "13");
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello";
    call.write(answer).await?;
    let head = sender.head().await?.context("an answer")?;
    ensure!(head.status()? == 101 && head.one("upgrade") == "websocket", "{head:?}");
    ensure!(head.one("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    ensure!(sender.exactly(7).await? == b"\x81\x05hello");
    Ok((sender, call))
}

/// An upgrade passes, and each half closes by itself, whoever begins.
pub async fn an_upgrade_passes_and_each_half_closes_by_itself(bench: &mut Bench) -> anyhow::Result<()> {
    let (mut sender, mut call) = upgraded(bench).await?;
    for round in 0..50_u8 {
        let bytes = vec![round; 1 + usize::from(round) * 997];
        sender.write(&bytes).await?;
        ensure!(call.exactly(bytes.len()).await? == bytes);
        call.write(&bytes).await?;
        ensure!(sender.exactly(bytes.len()).await? == bytes);
    }
    sender.write(b"from the sender").await?;
    sender.half_close().await?;
    ensure!(call.to_end().await? == b"from the sender");
    call.write(b"and one last word").await?;
    drop(call);
    ensure!(sender.to_end().await? == b"and one last word");

    let (mut sender, mut call) = upgraded(bench).await?;
    call.write(b"from the handler").await?;
    call.half_close().await?;
    ensure!(sender.to_end().await? == b"from the handler");
    sender.write(b"and one last word").await?;
    drop(sender);
    ensure!(call.to_end().await? == b"and one last word");
    Ok(())
}

/// A refused upgrade is an answer like any other.
pub async fn a_refused_upgrade_is_an_answer(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").await?;
    let mut call = bench.call().await?;
    call.head().await?.context("a call")?;
    call.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await?;
    let got = sender.answer("GET").await?;
    ensure!(got.head.status()? == 403 && got.body == b"no" && got.head.all("upgrade").is_empty(), "{:?}", got.head);
    Ok(())
}

/// A protocol that the endpoint names at the relay and at the agent passes like WebSocket.
pub async fn a_named_upgrade_passes(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(b"GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: Upgrade\r\nUpgrade: Chat/1\r\n\r\n").await?;
    let mut call = bench.call().await?;
    ensure!(call.head().await?.context("a call")?.one("upgrade") == "Chat/1");
    call.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\nhi").await?;
    ensure!(sender.head().await?.context("an answer")?.status()? == 101 && sender.exactly(2).await? == b"hi");
    Ok(())
}

/// A wish for another protocol than WebSocket stays behind, whatever form it has, and the request is a plain one. What
/// is not asked for is never switched to.
pub async fn other_upgrades_stay_behind(bench: &mut Bench) -> anyhow::Result<()> {
    let wishes: [(&str, &str); 9] = [
        ("Upgrade, HTTP2-Settings", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("Upgrade", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("upgrade", "Upgrade: H2C\r\n"),
        ("upgrade", "Upgrade: websocket, h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("upgrade", "Upgrade: websocket\r\nUpgrade: h2c\r\n"),
        ("upgrade", "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        ("upgrade", "Upgrade: TLS/1.3\r\n"),
        ("upgrade", "Upgrade: chat\r\n"),
        ("keep-alive", "Upgrade: websocket\r\n"),
    ];
    for (connection, lines) in wishes {
        let request = format!("GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: {connection}\r\n{lines}\r\n");
        let mut sender = bench.sender().await?;
        sender.write(request).await?;
        let mut call = bench.call().await?;
        let head = call.head().await?.context("a call")?;
        for name in ["upgrade", "http2-settings", "connection"] {
            ensure!(head.all(name).is_empty(), "{lines:?}: {name} reached the handler");
        }
        // A handler that switches all the same is broken, and its bytes reach nobody.
        call.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nraw").await?;
        let answer = sender.answer("GET").await?;
        is_error(&answer.head, 502, "handler_broken").with_context(|| lines.to_owned())?;
    }
    for switched in ["Upgrade: h2c\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n", "Upgrade: websocket, h2c\r\n", ""] {
        let mut sender = bench.sender().await?;
        sender.write(UPGRADE).await?;
        let mut call = bench.call().await?;
        call.head().await?.context("a call")?;
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{switched}\r\nraw");
        call.write(answer).await?;
        let answer = sender.answer("GET").await?;
        is_error(&answer.head, 502, "handler_broken").with_context(|| switched.to_owned())?;
    }
    Ok(())
}

/// An upgraded connection whose handler breaks is closed for the sender, too.
pub async fn an_upgraded_connection_that_breaks_is_closed(bench: &mut Bench) -> anyhow::Result<()> {
    let (mut sender, call) = upgraded(bench).await?;
    drop(call);
    match sender.to_end().await {
        Ok(rest) if rest.is_empty() => Ok(()),
        Ok(rest) => bail!("bytes that nobody sent: {}", shown(&rest)),
        Err(_) => Ok(()),
    }
}
