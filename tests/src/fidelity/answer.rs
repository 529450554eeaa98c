//! What the sender sees of the handler's answer. Lawful in every mode that returns it.

use anyhow::{Context, bail, ensure};

use super::{
    Bench,
    bench::{is_ack, is_error, is_failure, ok},
    headers::same_but_for,
    wire::{Framing, Lines, chunks, message, shown},
};

const ASK: &[u8] = b"POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 0\r\n\r\n";

/// Every final status from 200 to 599, with its headers.
pub async fn every_status_arrives(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    for status in (200..600_u16).filter(|status| !matches!(status, 204 | 205 | 304)) {
        let lines: [(&str, &[u8]); 2] = [("Content-Length", b"2"), ("Location", b"http://169.254.169.254/")];
        let answer = message(&format!("HTTP/1.1 {status} Whatever It Says"), &lines, b"ok");
        let (seen, got) = bench.exchange_on(&mut sender, ASK, &answer).await.with_context(|| status.to_string())?;
        if !bench.mode.passes_on(status) {
            is_ack(&got, "POST").with_context(|| status.to_string())?;
            let again = bench.seen().await.with_context(|| status.to_string())?;
            let id = seen.head.one("relay-event-id");
            ensure!(again.message.head.one("relay-event-id") == id, "{status}: another event");
            ensure!(again.message.head.one("relay-attempt") == "2", "{status}");
            again.answer(ok());
            continue;
        }
        ensure!(got.head.status()? == status && got.body == b"ok", "{status} became {:?}", got.head);
        ensure!(got.head.one("location") == "http://169.254.169.254/", "a redirect is the sender's to follow");
        if bench.mode.keeps() && is_failure(status) {
            bench.exchange_on(&mut sender, ASK, &ok()).await?; // Ten failures in a row, and events wait for a while.
        }
    }
    Ok(())
}

/// Bodies of every size and framing.
pub async fn answers_arrive_byte_for_byte(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    for len in [0, 1, 255, 16_384, 16_385, 65_537, 1_000_003, 25 * 1024 * 1024] {
        let body: Vec<u8> = (0..len).map(|n: usize| ((n % 256) ^ (n / 251)) as u8).collect();
        let length = len.to_string();
        let whole = message("HTTP/1.1 200 OK", &[("Content-Length", length.as_bytes())], &body);
        let (_, got) = bench.exchange_on(&mut sender, ASK, &whole).await.with_context(|| format!("{len} bytes"))?;
        ensure!(got.body == body, "{len} bytes arrived as {}", got.body.len());
        ensure!(got.head.framing()? == Framing::Length(len as u64), "{len} bytes: {:?}", got.head.framing());

        let payload = [&chunks(&body, 9973)[..], b"0\r\n\r\n"].concat();
        let chunked = message("HTTP/1.1 200 OK", &[("Transfer-Encoding", b"chunked")], &payload);
        let (_, got) = bench.exchange_on(&mut sender, ASK, &chunked).await.with_context(|| format!("{len} bytes"))?;
        ensure!(got.body == body, "{len} bytes in chunks arrived as {}", got.body.len());
        ensure!(len == 0 || got.head.framing()? == Framing::Chunked, "{len} bytes: {:?}", got.head.framing());
    }
    Ok(())
}

/// An answer without framing ends with the handler's connection, and the sender can tell that it is whole.
pub async fn an_answer_that_ends_with_its_connection_is_whole(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    sender.write(ASK).await?;
    let mut call = bench.call().await?;
    call.request().await?.context("a call")?;
    call.write(b"HTTP/1.0 200 OK\r\nX-Old: yes\r\n\r\nall that there is").await?;
    drop(call);
    let got = sender.answer("POST").await?;
    ensure!(got.head.framing()? != Framing::None, "its end must be seen: {:?}", got.head);
    ensure!(got.body == b"all that there is" && got.head.one("x-old") == "yes");
    Ok(())
}

/// `HEAD` has the head that `GET` would have, and no body.
pub async fn head_keeps_the_length_and_has_no_body(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    let ask = b"HEAD /open HTTP/1.1\r\nHost: hook.test\r\n\r\n";
    for length in ["0", "2", "12345"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: \"x\"\r\n\r\n");
        let (seen, got) = bench.exchange_on(&mut sender, ask, answer.as_bytes()).await?;
        ensure!(seen.head.method() == "HEAD", "{}", seen.head.method());
        ensure!(got.head.one("content-length") == length, "{length} became {:?}", got.head.all("content-length"));
        ensure!(got.head.one("etag") == "\"x\"");
    }
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (_, got) = bench.exchange_on(&mut sender, ask, chunked).await?;
    ensure!(got.head.status()? == 200 && got.head.all("content-length").is_empty(), "{:?}", got.head);
    let (_, got) = bench.exchange_on(&mut sender, ASK, &ok()).await?;
    ensure!(got.body == b"ok", "the connection is in step");
    Ok(())
}

/// 204 and 304 have no body. A length that they tell is lost, whatever it is, and the status is not.
pub async fn no_content_and_not_modified_have_no_body(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    for method in ["GET", "POST", "HEAD"] {
        let ask = format!("{method} /open HTTP/1.1\r\nHost: hook.test\r\n\r\n");
        let (_, got) =
            bench.exchange_on(&mut sender, ask.as_bytes(), b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n").await?;
        ensure!(got.head.status()? == 204 && got.head.one("x-a") == "b");
        ensure!(got.head.framing()? == Framing::None, "RFC 9110, section 8.6: {:?}", got.head);
        for (status, length) in [(204, "0"), (204, "5"), (304, "0"), (304, "5"), (204, "five"), (304, "5, 6")] {
            let answer = format!("HTTP/1.1 {status} X\r\nETag: \"x\"\r\nContent-Length: {length}\r\n\r\n");
            let (_, got) = bench.exchange_on(&mut sender, ask.as_bytes(), answer.as_bytes()).await?;
            ensure!(got.head.status()? == status && got.head.one("etag") == "\"x\"", "{answer}: {:?}", got.head);
            ensure!(got.head.all("content-length").is_empty(), "{answer}: {:?}", got.head);
        }
    }
    let (_, got) = bench.exchange_on(&mut sender, ASK, &ok()).await?;
    ensure!(got.body == b"ok", "the connection is in step");
    Ok(())
}

/// Lengths that agree become one line, with a body and without.
pub async fn equal_lengths_of_an_answer_become_one(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    for method in ["POST", "HEAD"] {
        let ask = format!("{method} /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 0\r\n\r\n");
        let mut answer = message("HTTP/1.1 200 OK", &[("Content-Length", b"2"), ("Content-Length", b"2")], b"ok");
        if method == "HEAD" {
            answer.truncate(answer.len() - 2);
        }
        let (_, got) = bench.exchange_on(&mut sender, ask.as_bytes(), &answer).await?;
        ensure!(got.head.status()? == 200 && got.head.framing()? == Framing::Length(2), "{method}: {:?}", got.head);
    }
    Ok(())
}

/// A length that is none, or several that differ, is 502, also where no body bounds it.
pub async fn a_length_that_is_none_gives_502(bench: &mut Bench) -> anyhow::Result<()> {
    for lengths in ["five", "-5", "+5", "5, 5", "5, 6", "5\r\nContent-Length: 6", "", "18446744073709551617"] {
        for (method, body) in [("POST", "hello"), ("HEAD", "")] {
            let mut sender = bench.sender().await?;
            sender.write(format!("{method} /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 0\r\n\r\n")).await?;
            let mut call = bench.call().await?;
            call.request().await?.context("a call")?;
            let _ = call.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\n{body}")).await;
            drop(call);
            let name = format!("{method}, {lengths:?}");
            let got = sender.answer(method).await.with_context(|| name.clone())?;
            is_error(&got.head, 502, "handler_broken").with_context(|| name.clone())?;
            bench.succeed().await.context(name)?;
        }
    }
    Ok(())
}

/// Interim answers other than 101 stay on their hop.
pub async fn interim_answers_of_a_handler_stay_behind(bench: &mut Bench) -> anyhow::Result<()> {
    let mut answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec();
    answer.extend_from_slice(&ok());
    let mut sender = bench.sender().await?;
    sender.write(ASK).await?;
    bench.seen().await?.answer(answer);
    let head = sender.head().await?.context("an answer")?;
    ensure!(head.status()? == 200 && head.all("link").is_empty(), "{head:?}");
    Ok(())
}

/// Headers of the handler's hop stay behind, those of the relay are the relay's own, all others arrive.
pub async fn hop_by_hop_headers_of_an_answer_stay_behind(bench: &mut Bench) -> anyhow::Result<()> {
    let lines: [(&str, &[u8]); 20] = [
        ("Relay_Event_Id", b"hook_forged"),
        ("Relay.Error", b"forged"),
        ("Connection", b"X-Hop, keep-alive"),
        ("connection", b"x-too"),
        ("X-Hop", b"1"),
        ("X-Too", b"2"),
        ("Keep-Alive", b"timeout=5, max=100"),
        ("Proxy-Authenticate", b"Basic"),
        ("Proxy-Connection", b"keep-alive"),
        ("TE", b"trailers"),
        ("Upgrade", b"h2c"),
        ("Trailer", b"X"),
        ("Relay-Event-Id", b"hook_forged"),
        ("Relay-Error", b"forged"),
        ("Content-Length", b"2"),
        ("Date", b"Tue, 15 Nov 1994 08:12:31 GMT"),
        ("Server", b"mine"),
        ("Set-Cookie", b"a=1; Path=/"),
        ("Set-Cookie", b"b=2, c"),
        ("X-Empty", b""),
    ];
    let (seen, got) = bench.exchange(ASK, &message("HTTP/1.1 200 OK", &lines, b"ok")).await?;
    let left: Lines = lines[14..].iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    same_but_for(&left, &got.head.lines, &["relay-event-id"])?;
    ensure!(got.head.one("relay-event-id") == seen.head.one("relay-event-id"));
    Ok(())
}

/// An answer whose head makes no sense, or whose end would be in doubt, is 502 and nothing of it crosses.
pub async fn a_bad_head_gives_502(bench: &mut Bench) -> anyhow::Result<()> {
    for case in bad_heads() {
        let case = &case[..];
        let name = shown(&case[..case.len().min(120)]);
        let mut sender = bench.sender().await?;
        sender.write(ASK).await?;
        let mut call = bench.call().await?;
        call.request().await?.context("a call")?;
        let _ = call.write(case).await; // The agent may hang up in the middle.
        drop(call);
        let got = sender.answer("POST").await.with_context(|| name.clone())?;
        is_error(&got.head, 502, "handler_broken").with_context(|| name.clone())?;
        ensure!(got.head.all("x-a").is_empty() && got.head.one("relay-event-id").starts_with("hook_"), "{name}");
        bench.succeed().await.context(name)?;
    }
    Ok(())
}

/// Trailers that the handler announces arrive where the sender said that it takes them, behind short bodies and long; but
/// none that only the relay writes.
pub async fn trailers_of_an_answer_arrive(bench: &mut Bench) -> anyhow::Result<()> {
    for (wanted, len) in [(true, 0), (true, 5), (true, 300_000), (false, 5), (false, 300_000)] {
        let te = if wanted { "Connection: TE\r\nTE: trailers\r\n" } else { "" };
        let ask = format!("POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 0\r\n{te}\r\n");
        let body = vec![b'x'; len];
        let chunked =
            [&chunks(&body, 9973)[..], b"0\r\nX-Sum: 1\r\nRelay-Error: forged\r\nX-Sum: \xe4\r\n\r\n"].concat();
        let lines: [(&str, &[u8]); 2] = [("Transfer-Encoding", b"chunked"), ("Trailer", b"X-Sum, Relay-Error")];
        let answer = message("HTTP/1.1 200 OK", &lines, &chunked);
        let (seen, got) = bench.exchange(ask.as_bytes(), &answer).await?;
        ensure!((seen.head.one("te") == "trailers") == wanted, "{:?}", seen.head);
        ensure!(got.body == body, "{len} bytes arrived as {}", got.body.len());
        let sums: Vec<_> =
            got.trailers.iter().filter(|(name, _)| name == "x-sum").map(|(_, value)| &value[..]).collect();
        let expected: &[&[u8]] = if wanted { &[b"1", b"\xe4"] } else { &[] };
        ensure!(sums == expected, "{len} bytes, {te:?}: {:?}", got.trailers);
        ensure!(got.trailers.iter().all(|(name, _)| name != "relay-error"), "{:?}", got.trailers);
    }
    Ok(())
}

/// Answers that are none.
pub(super) fn bad_heads() -> Vec<Vec<u8>> {
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X-A: b\r\n".repeat(200));
    let large = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(200_000));
    let cases: [&[u8]; 30] = [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HELLO\r\n\r\n",
        b"<html></html>",
        b"\x16\x03\x01\x00\xff\x01\r\n\r\n",
        b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\nh",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\rX-B: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\0c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\n folded: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nno colon\r\n\r\n",
        many.as_bytes(),
        large.as_bytes(),
    ];
    cases.map(<[u8]>::to_vec).to_vec()
}

/// A handler that answers and then something else: what it says unasked is nobody's answer.
pub async fn a_second_answer_is_never_given_to_the_next_sender(bench: &mut Bench) -> anyhow::Result<()> {
    let twice = [ok(), b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged".to_vec()].concat();
    for round in 0..5 {
        let mut sender = bench.sender().await?;
        sender.write(ASK).await?;
        let mut call = bench.call().await?;
        call.request().await?.context("a call")?;
        call.write(&twice).await?;
        let got = sender.answer("POST").await?;
        ensure!(got.body == b"ok", "round {round}: {}", shown(&got.body));
        match call.request().await {
            Ok(None) | Err(_) => {}
            Ok(Some(_)) => bail!("round {round}: a connection out of step was used again"),
        }
    }
    Ok(())
}
