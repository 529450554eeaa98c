//! Which requests are refused, and that no handler saw them. Lawful in every mode.

use anyhow::{Context, ensure};

use super::{Bench, bench::ok, wire::shown};

/// Sends each request on a connection of its own; it must get the status, no call, and a closed connection.
async fn refused(bench: &mut Bench, cases: &[(&[u8], u16)]) -> anyhow::Result<()> {
    for (request, status) in cases {
        let name = shown(&request[..request.len().min(160)]);
        let mut sender = bench.sender().await?;
        let (seen, answer) = bench.ask(&mut sender, request, &ok()).await.with_context(|| name.clone())?;
        ensure!(seen.is_none(), "the handler saw {name}");
        ensure!(answer.head.status()? == *status, "{} instead of {status} for {name}", answer.head.status()?);
        let rest = sender.to_end().await.with_context(|| format!("still open after {name}"))?;
        ensure!(rest.is_empty(), "more than one answer to {name}: {}", shown(&rest));
        ensure!(bench.nothing_seen(), "the handler saw {name}");
    }
    // What was kept in secret would come before this one, or right after it.
    let last = b"GET /open/last HTTP/1.1\r\nHost: hook.test\r\n\r\n";
    let (seen, _) = bench.exchange(last, &ok()).await?;
    ensure!(seen.head.target() == b"/last" && bench.nothing_seen(), "the handler saw {:?}", seen.head);
    Ok(())
}

/// A body whose end is in doubt (RFC 9112, section 6.3) is refused and its connection closed.
pub async fn doubtful_framing(bench: &mut Bench) -> anyhow::Result<()> {
    let post =
        |lines: &str, body: &str| format!("POST /open HTTP/1.1\r\nHost: hook.test\r\n{lines}\r\n{body}").into_bytes();
    let hidden = "0\r\n\r\nGET /open/hidden HTTP/1.1\r\nHost: hook.test\r\n\r\n";
    let cases = [
        post("Content-Length: 53\r\nTransfer-Encoding: chunked\r\n", hidden),
        post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
        post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        post("Content_Length: 5\r\nContent-Length: 0\r\n", ""),
        post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
        post("Content-Length: 5, 6\r\n", "hello!"),
        post("Content-Length: +5\r\n", "hello"),
        post("Content-Length: -1\r\n", ""),
        post("Content-Length: 0x5\r\n", "hello"),
        post("Content-Length:\r\n", ""),
        post("Content-Length: 18446744073709551616\r\n", ""),
        post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: identity\r\n", ""),
        post("Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n0\r\n\r\n"),
        post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        b"POST /open HTTP/1.0\r\nHost: hook.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
    ];
    let cases: Vec<_> = cases.iter().map(|case| (&case[..], 400)).collect();
    refused(bench, &cases).await
}

/// A head that two readers could understand in two ways.
pub async fn doubtful_heads(bench: &mut Bench) -> anyhow::Result<()> {
    refused(
        bench,
        &[
            (b"GET /open HTTP/1.1\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: user@hook.test\r\n\r\n", 400),
            (b"GET http://other.test/open HTTP/1.1\r\nHost: hook.test\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nX-A: b\rc\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nX-A: b\0c\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nX-A : b\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nX A: b\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\n folded: b\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nX-A: b\r\n c\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\nX-A: b\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\nHost: hook.test\n\n", 400),
            (b"GET  /open HTTP/1.1\r\nHost: hook.test\r\n\r\n", 400),
            (b"GET /open x HTTP/1.1\r\nHost: hook.test\r\n\r\n", 400),
            (b"GET /open#x HTTP/1.1\r\nHost: hook.test\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: Content-Length\r\nContent-Length: 0\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: close, Host\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: X-Hub-Signature-256\r\n\r\n", 400),
            (b"GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: authorization, close\r\n\r\n", 400),
        ],
    )
    .await
}

/// Methods that are for proxies alone.
pub async fn methods_of_proxies(bench: &mut Bench) -> anyhow::Result<()> {
    refused(
        bench,
        &[
            (b"CONNECT hook.test:443 HTTP/1.1\r\nHost: hook.test:443\r\n\r\n", 400),
            (b"TRACE /open HTTP/1.1\r\nHost: hook.test\r\n\r\n", 405),
            (b"OPTIONS * HTTP/1.1\r\nHost: hook.test\r\n\r\n", 400),
        ],
    )
    .await
}
