//! What is kept comes again as it was, and what a sender gets instead of an answer. Lawful where events are kept.

use anyhow::{Context, bail, ensure};

use super::{
    Bench,
    answer::bad_heads,
    bench::{closing, is_ack, ok},
    headers::{Generator, same_but_for},
    wire::{Message, Wire, chunks, message, shown},
};

const ASK: &[u8] = b"POST /open/x?y HTTP/1.1\r\nHost: hook.test\r\nX-A: \xe4\r\nContent-Length: 3\r\n\r\nabc";

/// Whether `again` is the same request as `first`, one attempt later.
fn same_again(first: &Message, again: &Message) -> anyhow::Result<()> {
    ensure!(again.head.start == first.head.start, "{:?} became {:?}", first.head, again.head);
    let attempt = |message: &Message| message.head.one("relay-attempt");
    ensure!((&*attempt(first), &*attempt(again)) == ("1", "2"), "attempt {} after {}", attempt(again), attempt(first));
    let but_attempt = |message: &Message| {
        message.head.lines.iter().filter(|(name, _)| name != "relay-attempt").cloned().collect::<Vec<_>>()
    };
    same_but_for(&but_attempt(first), &but_attempt(again), &[])?;
    ensure!(again.head.framing()? == first.head.framing()?, "{:?} became {:?}", first.head, again.head);
    ensure!(again.body == first.body, "{} bytes became {}", first.body.len(), again.body.len());
    Ok(())
}

/// A request whose handler failed comes again from the store: the same head, framing and bytes.
pub async fn a_request_comes_again_as_it_was(bench: &mut Bench) -> anyhow::Result<()> {
    let mut requests: Vec<Vec<u8>> = ["", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"]
        .iter()
        .map(|framing| {
            let end = if framing.starts_with('T') { "0\r\n\r\n" } else { "" };
            format!("PUT /open//x/%2F?? HTTP/1.1\r\nHost: hook.test\r\n{framing}\r\n{end}").into_bytes()
        })
        .collect();
    for len in [1, 65_536, 65_537, 1024 * 1024 + 1, 5_000_003] {
        let body: Vec<u8> = (0..len).map(|n: usize| ((n % 256) ^ (n / 251)) as u8).collect();
        let length = len.to_string();
        let host = ("Host", &b"hook.test"[..]);
        requests.push(message("POST /open HTTP/1.1", &[host, ("Content-Length", length.as_bytes())], &body));
        let chunked = [&chunks(&body, 9973)[..], b"0\r\n\r\n"].concat();
        requests.push(message("POST /open HTTP/1.1", &[host, ("Transfer-Encoding", b"chunked")], &chunked));
    }
    let mut generator = Generator::seeded();
    for _ in 0..20 {
        let list = generator.list(90, 48_000);
        let first = [("host", &b"hook.test"[..]), ("content-length", b"0")].into_iter();
        let lines = first.chain(list.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        requests.push(message("POST /open HTTP/1.1", &lines.collect::<Vec<_>>(), b""));
    }
    let mut sender = bench.sender().await?;
    let failure = message("HTTP/1.1 503 Not Now", &[("Content-Length", b"0")], b"");
    for (number, request) in requests.iter().enumerate() {
        let (first, ack) = bench.exchange_on(&mut sender, request, &failure).await?;
        is_ack(&ack, &first.head.method())?;
        let again = bench.seen().await?;
        same_again(&first, &again.message).with_context(|| format!("request {number}"))?;
        again.answer(ok());
    }
    Ok(())
}

/// An answer that is none, or that breaks off while it is short, is a failure: nothing of it crosses, its sender gets
/// the ack, and the handler the same request again.
pub async fn a_broken_answer_gets_the_ack_and_a_retry(bench: &mut Bench) -> anyhow::Result<()> {
    let mut cases = bad_heads();
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        cases.push(format!("HTTP/1.1 200 OK\r\nX-A: b\r\n{framing}\r\n\r\n5\r\nfirst\r\n").into_bytes());
    }
    cases.push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\nzz\r\nmore\r\n0\r\n\r\n".to_vec());
    for case in cases {
        let name = shown(&case[..case.len().min(120)]);
        let mut sender = bench.sender().await?;
        sender.write(ASK).await?;
        let mut call = bench.call().await?;
        let first = call.request().await?.context("a call")?;
        let _ = call.write(case).await; // The agent may hang up in the middle.
        drop(call);
        let got = sender.answer("POST").await.with_context(|| name.clone())?;
        is_ack(&got, "POST").with_context(|| name.clone())?;
        ensure!(got.head.all("x-a").is_empty(), "{name}: {:?}", got.head);
        same_again(&first, &called_again(bench).await?).context(name)?;
    }
    Ok(())
}

/// The next call, answered well.
async fn called_again(bench: &Bench) -> anyhow::Result<Message> {
    let mut call = bench.call().await?;
    let again = call.request().await?.context("a call")?;
    call.write(closing()).await?;
    Ok(again)
}

/// A long answer streams, so its sender sees it break; the handler is called again all the same.
pub async fn a_long_answer_that_breaks_off_is_seen_by_the_sender(bench: &mut Bench) -> anyhow::Result<()> {
    for framing in ["Content-Length: 900000", "Transfer-Encoding: chunked"] {
        let mut sender = bench.sender().await?;
        sender.write(ASK).await?;
        let mut call = bench.call().await?;
        let first = call.request().await?.context("a call")?;
        call.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await?;
        call.write(chunks(&vec![b'x'; 400_000], 50_000)).await?;
        ensure!(sender.head().await?.context("an answer")?.status()? == 200);
        drop(call);
        let rest = sender.to_end().await.unwrap_or_default();
        ensure!(!rest.is_empty() && rest.len() < 500_000 && !rest.ends_with(b"0\r\n\r\n"), "{framing}: it looks whole");
        same_again(&first, &called_again(bench).await?).context(framing)?;
    }
    Ok(())
}

/// The ack comes while the handler is still at work, and nothing of its answer follows.
pub async fn the_ack_does_not_wait_for_the_handler(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sender = bench.sender().await?;
    for _ in 0..3 {
        let got = acked(&mut sender).await?;
        let seen = bench.seen().await?;
        ensure!(seen.message.head.one("relay-event-id") == got.head.one("relay-event-id"));
        ensure!(seen.message.body == b"abc" && seen.message.head.target() == b"/x?y");
        seen.answer(message("HTTP/1.1 201 Made", &[("Content-Length", b"4"), ("X-A", b"b")], b"mine"));
    }
    Ok(())
}

async fn acked(sender: &mut Wire) -> anyhow::Result<Message> {
    sender.write(ASK).await?;
    let got = sender.answer("POST").await?;
    match is_ack(&got, "POST") {
        Ok(()) => Ok(got),
        Err(error) => bail!("{error}: {}", shown(&got.body)),
    }
}
