//! Limits of the listeners at their edges: what just fits passes, what is beyond it gets the answer that
//! `docs/limits.md` says, and the same relay goes on with good webhooks.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame as BodyFrame, Incoming};
use relay_tests::{
    fidelity::wire::Wire,
    h2::{self, END_HEADERS, END_STREAM, Peer, frame, post},
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server, allow_open_files},
    sender::{request, send},
    tls::{certificate, client, connect_as, settings},
};
use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::timeout,
};

const MAX_HEAD: usize = 8 * 1024;
const MAX_BODY: usize = 64 * 1024;

const LIMITS: &str = "[limits]\nmax_head = \"8KiB\"\nmax_body = \"64KiB\"\nheader_timeout = \"1s\"\n\
     body_idle_timeout = \"1s\"\n";
const ENDPOINTS: &str = "[[endpoint]]\nname = \"live\"\nmode = \"live\"\nverify = \"none\"\nidle_timeout = \"1s\"\n\
     [[endpoint]]\nname = \"kept\"\nmode = \"durable\"\nverify = \"none\"\n";

async fn start(config: &str) -> anyhow::Result<Server> {
    Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", config, &[]).await
}

/// A relay with short limits, and an agent whose handler waits at a gate, stops midway or answers, as its path says.
struct Bounded {
    relay: Server,
    gate: Arc<Semaphore>,
    calls: mpsc::UnboundedReceiver<String>,
    _held: (Handler, Agent),
}

impl Bounded {
    async fn start() -> anyhow::Result<Self> {
        Self::with(LIMITS).await
    }

    async fn with(config: &str) -> anyhow::Result<Self> {
        let relay = start(&format!("{config}{ENDPOINTS}")).await?;
        let (gate, (tell, calls)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
        let open = Arc::clone(&gate);
        let handler = Handler::start(move |request: Request<Incoming>| {
            let (open, tell) = (Arc::clone(&open), tell.clone());
            async move {
                let path = request.uri().path().to_owned();
                let whole = request.into_body().collect().await.is_ok();
                let _ = tell.send(if whole { path.clone() } else { format!("{path} broke off") });
                if path.ends_with("gated") {
                    open.acquire().await.expect("never closed").forget();
                }
                if path.ends_with("stops") {
                    let first = stream::iter([Ok(BodyFrame::data(Bytes::from_static(b"a beginning")))]);
                    return Response::new(StreamBody::new(first.chain(stream::pending())).boxed_unsync());
                }
                Response::new(full("through"))
            }
        })
        .await?;
        let agent = relay.agent("live", &handler.port(), &[]).await?;
        Ok(Self { relay, gate, calls, _held: (handler, agent) })
    }

    /// A new connection.
    async fn connect(&self) -> anyhow::Result<Wire> {
        Wire::connect(&self.relay.public).await
    }

    /// The status and the relay's code of what is answered to these bytes, on a connection of their own.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> anyhow::Result<(u16, String)> {
        let mut wire = self.connect().await?;
        // An answer may come before all is sent, and the connection end.
        let _ = wire.write(bytes).await;
        answer(&mut wire).await
    }

    /// A good webhook still passes.
    async fn carries(&mut self) -> anyhow::Result<()> {
        let answer = send(&self.relay.public, request("POST", "/live/good", &[], "hello")).await?;
        ensure!(answer.status() == StatusCode::OK && answer.body() == "through", "{answer:?}");
        while self.calls.recv().await.context("a call")? != "/good" {}
        Ok(())
    }
}

async fn answer(wire: &mut Wire) -> anyhow::Result<(u16, String)> {
    let head = wire.answer("POST").await?.head;
    Ok((head.status()?, head.one("relay-error")))
}

fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: hook.test\r\n{more}\r\n")
}

/// A head of so many bytes.
fn head_of(bytes: usize) -> String {
    let around = head("/live/x", "Content-Length: 0\r\nX-Long: \r\n").len();
    head("/live/x", &format!("Content-Length: 0\r\nX-Long: {}\r\n", "a".repeat(bytes - around)))
}

#[tokio::test]
async fn a_head_at_its_limit_passes_and_a_longer_one_is_refused() -> anyhow::Result<()> {
    let mut bounded = Bounded::start().await?;
    ensure!(bounded.ask(head_of(MAX_HEAD)).await?.0 == 200);
    let (status, _) = bounded.ask(head_of(MAX_HEAD + 1)).await?;
    ensure!(status == 431, "{status}");
    let target = |bytes: usize| head(&format!("/live/{}", "t".repeat(bytes)), "Content-Length: 0\r\n");
    let around = target(0).len();
    ensure!(bounded.ask(target(MAX_HEAD - around)).await?.0 == 200, "all of it may be the target");
    ensure!(bounded.ask(target(MAX_HEAD + 1 - around)).await?.0 == 431);
    bounded.carries().await
}

#[tokio::test]
async fn a_hundred_header_lines_pass_and_no_more() -> anyhow::Result<()> {
    let mut bounded = Bounded::start().await?;
    // Beside `Host` and `Content-Length`.
    let lines = |count: usize| head("/kept/x", &format!("Content-Length: 0\r\n{}", "X-A: b\r\n".repeat(count - 2)));
    ensure!(bounded.ask(lines(100)).await?.0 == 200);
    ensure!(bounded.ask(lines(101)).await?.0 == 431);
    bounded.carries().await
}

#[tokio::test]
async fn a_body_at_its_limit_passes_and_a_longer_one_is_refused() -> anyhow::Result<()> {
    let mut bounded = Bounded::start().await?;
    for path in ["/live/x", "/kept/x"] {
        let long = |bytes: usize| head(path, &format!("Content-Length: {bytes}\r\n")) + &"x".repeat(bytes);
        let chunked = |bytes: usize| {
            let body = format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes));
            head(path, "Transfer-Encoding: chunked\r\n") + &body
        };
        let refused = (413, "body_too_large".to_owned());
        ensure!(bounded.ask(long(MAX_BODY)).await?.0 == 200, "{path}");
        ensure!(bounded.ask(chunked(MAX_BODY)).await?.0 == 200, "{path}");
        ensure!(bounded.ask(long(MAX_BODY + 1)).await? == refused, "{path}");
        ensure!(bounded.ask(chunked(MAX_BODY + 1)).await? == refused, "{path}");
        let mut waits = bounded.connect().await?;
        waits.write(head(path, &format!("Content-Length: {}\r\n", MAX_BODY + 1))).await?;
        ensure!(answer(&mut waits).await? == refused, "{path}: before any byte of it came");
    }
    bounded.carries().await
}

#[tokio::test]
async fn trailers_at_their_limit_pass_and_longer_ones_are_refused() -> anyhow::Result<()> {
    let mut bounded = Bounded::with("").await?;
    for path in ["/live/x", "/kept/x"] {
        let trailers = |bytes: usize| {
            let value = "v".repeat(bytes - "T: \r\n".len());
            head(path, "Transfer-Encoding: chunked\r\n") + &format!("1\r\nx\r\n0\r\nT: {value}\r\n\r\n")
        };
        ensure!(bounded.ask(trailers(16 * 1024)).await?.0 == 200, "{path}");
        ensure!(bounded.ask(trailers(16 * 1024 + 1)).await? == (400, "body_broken".to_owned()), "{path}");
    }
    bounded.carries().await
}

#[tokio::test]
async fn connections_that_ask_for_nothing_give_way_and_those_at_work_are_waited_for() -> anyhow::Result<()> {
    let bounded = Bounded::with("max_connections = 3\nworkers = 1\n").await?;
    // The agent's session has given its place back.
    let mut silent = bounded.connect().await?;
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut wire = bounded.connect().await?;
        wire.write(head("/live/gated", "Content-Length: 0\r\n")).await?;
        busy.push(wire);
    }
    // Long before `header_timeout`.
    let gone = timeout(Duration::from_secs(6), silent.to_end()).await.context("it keeps its place")?;
    ensure!(gone.is_ok_and(|said| said.is_empty()), "it was answered");
    let mut next = bounded.connect().await?;
    next.write(head("/nobody", "Content-Length: 0\r\n")).await?;
    ensure!(timeout(Duration::from_millis(1500), next.head()).await.is_err(), "somebody at work had to go");
    bounded.gate.add_permits(3);
    for wire in &mut busy {
        ensure!(answer(wire).await?.0 == 200);
    }
    // Nobody closes anything: the first that has waited for a second gives way.
    ensure!(answer(&mut next).await?.0 == 404);
    Ok(())
}

/// Sends a byte every tenth of a second until the relay ends the connection; how long that took.
async fn dribble(address: &str, bytes: &[u8]) -> anyhow::Result<Duration> {
    let (mut stream, began) = (TcpStream::connect(address).await?, Instant::now());
    let mut bytes = bytes.iter().copied().chain(std::iter::repeat(b'a'));
    let mut said = [0; 1024];
    while began.elapsed() < PATIENCE {
        let byte = bytes.next().context("there are more")?;
        if stream.write_all(&[byte]).await.is_err() {
            return Ok(began.elapsed());
        }
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_millis(100), stream.read(&mut said)).await {
            return Ok(began.elapsed());
        }
    }
    anyhow::bail!("it is held for ever")
}

#[tokio::test]
async fn a_head_that_goes_on_slowly_ends_at_its_deadline() -> anyhow::Result<()> {
    let mut bounded = Bounded::start().await?;
    let begun = head("/live/x", "X-Long: ");
    let took = dribble(&bounded.relay.public, begun.trim_end().as_bytes()).await?;
    ensure!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "after {took:?}");
    bounded.carries().await
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed() -> anyhow::Result<()> {
    let mut bounded = Bounded::start().await?;
    for asks in [false, true] {
        let mut wire = bounded.connect().await?;
        if asks {
            wire.write(head("/live/x", "Content-Length: 0\r\n")).await?;
            ensure!(answer(&mut wire).await?.0 == 200);
        }
        let began = Instant::now();
        ensure!(
            timeout(PATIENCE, wire.to_end()).await.context("it is held for ever")?.is_ok_and(|said| said.is_empty())
        );
        let took = began.elapsed();
        ensure!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "after {took:?}");
    }
    bounded.carries().await
}

#[tokio::test]
async fn a_body_may_come_slowly_and_may_not_stop() -> anyhow::Result<()> {
    let mut bounded = Bounded::start().await?;
    for path in ["/live/slow", "/kept/slow"] {
        let mut wire = bounded.connect().await?;
        wire.write(head(path, "Content-Length: 9\r\n") + "x").await?;
        let began = Instant::now();
        for _ in 0..8 {
            // Nothing is answered before its end.
            ensure!(timeout(Duration::from_millis(250), wire.head()).await.is_err(), "{path}");
            wire.write("x").await?;
        }
        ensure!(answer(&mut wire).await?.0 == 200 && began.elapsed() > Duration::from_millis(1900), "{path}");
        let mut wire = bounded.connect().await?;
        wire.write(head(path, "Content-Length: 8\r\n") + "x").await?;
        ensure!(answer(&mut wire).await? == (408, "body_timeout".to_owned()), "{path}");
    }
    let mut calls = vec![bounded.calls.recv().await, bounded.calls.recv().await];
    calls.sort();
    ensure!(calls == [Some("/slow".to_owned()), Some("/slow broke off".to_owned())], "{calls:?}");
    bounded.carries().await
}

#[tokio::test]
async fn an_answer_that_stops_breaks_off() -> anyhow::Result<()> {
    let mut bounded = Bounded::start().await?;
    let began = Instant::now();
    let broken = send(&bounded.relay.public, request("POST", "/live/stops", &[], "")).await;
    ensure!(broken.is_err() && began.elapsed() >= Duration::from_millis(900), "{broken:?}");
    ensure!(began.elapsed() < Duration::from_secs(10));
    bounded.carries().await
}

/// A relay that ends TLS, and whom its senders trust.
async fn secure() -> anyhow::Result<(Server, CertificateDer<'static>)> {
    let folder = tempfile::tempdir()?;
    let trusted = certificate(folder.path())?;
    let relay = start(&format!("{}{LIMITS}{ENDPOINTS}", settings(folder.path()))).await?;
    Ok((relay, trusted))
}

/// A good webhook on a connection of its own.
async fn keeps(relay: &Server, trusted: &CertificateDer<'static>) -> anyhow::Result<()> {
    let mut peer = Peer::connect(&relay.public, trusted).await?;
    peer.write(post(1, "/kept/good", b"", END_HEADERS | END_STREAM)).await?;
    let answer = peer.until(|frame| frame.stream == 1).await?;
    ensure!(answer.kind == h2::HEADERS && answer.payload.first() == Some(&0x88), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_handshake_has_an_end_in_time_and_bytes() -> anyhow::Result<()> {
    /// With these it is over, or too long.
    const MAX_HANDSHAKE: usize = 24 * 1024;
    let (relay, trusted) = secure().await?;
    let mut said = Vec::new();
    // A hello of 60 KiB, in records of 10 KiB.
    let mut long = TcpStream::connect(&relay.public).await?;
    let record = |first: &[u8]| [&[0x16, 3, 1, 40, 0], first, &vec![0; 40 * 256 - first.len()]].concat();
    let hello = [record(&[1, 0, 0xf0, 0]), record(&[]), record(&[])].concat();
    long.write_all(&hello[..MAX_HANDSHAKE - 1]).await?;
    ensure!(timeout(Duration::from_millis(500), long.read_to_end(&mut said)).await.is_err(), "so much may come");
    long.write_all(&hello[MAX_HANDSHAKE - 1..MAX_HANDSHAKE]).await?;
    let ended = timeout(Duration::from_secs(5), long.read_to_end(&mut said)).await;
    ensure!(ended.is_ok(), "it is held though it is too long");

    let (mut slow, began) = (TcpStream::connect(&relay.public).await?, Instant::now());
    slow.write_all(&record(&[1, 0, 0xf0, 0])).await?;
    let _ = timeout(PATIENCE, slow.read_to_end(&mut said)).await.context("it is held for ever")?;
    let took = began.elapsed();
    ensure!(took >= Duration::from_secs(9) && took < Duration::from_secs(15), "after {took:?}");
    keeps(&relay, &trusted).await
}

#[tokio::test]
async fn a_proxys_header_may_come_in_pieces_and_ends_at_its_deadline() -> anyhow::Result<()> {
    let config = format!(
        "trusted_proxies = [\"127.0.0.1/32\"]\n[[server.listen]]\naddr = \"127.0.0.1:0\"\n\
         [[server.listen]]\naddr = \"127.0.0.1:0\"\nproxy_protocol = \"v1\"\n{ENDPOINTS}"
    );
    let relay = Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "", &config, &[]).await?;
    let proxied = &relay.listeners[1];
    let mut slow = Wire::connect(proxied).await?;
    for piece in ["PRO", "XY TCP4 203.0.113.9 192.0.2.1", " 4242 443\r", "\n"] {
        ensure!(timeout(Duration::from_millis(300), slow.head()).await.is_err(), "nothing is answered before its end");
        slow.write(piece).await?;
    }
    slow.write(head("/kept/x", "Content-Length: 0\r\n")).await?;
    ensure!(answer(&mut slow).await?.0 == 200);
    // Its line would be too long after twice that time.
    let took = dribble(proxied, b"PROXY TCP4 203.0.113.9").await?;
    ensure!(took >= Duration::from_millis(4900) && took < Duration::from_secs(9), "after {took:?}");
    Ok(())
}

#[tokio::test]
async fn connections_beyond_those_of_http_2_are_offered_http_1_1() -> anyhow::Result<()> {
    const MOST: usize = 256;
    if !allow_open_files(2048).await {
        println!("skipped: this machine allows too few open files");
        return Ok(());
    }
    let (relay, trusted) = secure().await?;
    let mut both = ClientConfig::clone(&*client(&trusted, b"h2")?);
    both.alpn_protocols.push(b"http/1.1".to_vec());
    let both = Arc::new(both);
    let agreed = async || {
        let stream = connect_as(&relay.public, "localhost", &both).await?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        anyhow::Ok((stream, is_h2))
    };
    let mut open = Vec::new();
    for number in 0..MOST {
        let (stream, is_h2) = agreed().await?;
        ensure!(is_h2, "only {number} speak it");
        open.push(stream);
    }
    let (mut beyond, is_h2) = agreed().await?;
    ensure!(!is_h2, "one more than there may be");
    beyond.write_all(head("/kept/x", "Content-Length: 0\r\n").as_bytes()).await?;
    let mut said = [0; 12];
    beyond.read_exact(&mut said).await?;
    ensure!(said == *b"HTTP/1.1 200", "it is served all the same");
    open.pop();
    let again = async {
        while !agreed().await?.1 {}
        anyhow::Ok(())
    };
    timeout(PATIENCE, again).await.context("the place is not given again")?
}

#[tokio::test]
async fn http_2_frames_that_carry_nothing_end_the_connection_beyond_their_limit() -> anyhow::Result<()> {
    const MOST: u32 = 10_000;
    /// Of its settings, and of the word that it has those of the relay.
    const BEGUN: u32 = 2;
    let (relay, trusted) = secure().await?;
    // Each number is answered before the next thousand go out.
    let ping = async |peer: &mut Peer, count: u32| {
        for begin in (0..count).step_by(1000) {
            let numbers = begin..count.min(begin + 1000);
            let last = u64::from(numbers.end).to_be_bytes();
            let some = numbers.map(|number| frame(h2::PING, 0, 0, &u64::from(number + 1).to_be_bytes()));
            peer.write(some.collect::<Vec<_>>().concat()).await?;
            peer.until(|frame| frame.kind == h2::PING && frame.flags == h2::ACK && frame.payload == last).await?;
        }
        anyhow::Ok(())
    };
    let mut peer = Peer::connect(&relay.public, &trusted).await?;
    ping(&mut peer, MOST - BEGUN).await.context("so many may come")?;
    ping(&mut peer, 1).await.err().context("one more ends it")?;
    // Whoever does something between them has as many again.
    let mut peer = Peer::connect(&relay.public, &trusted).await?;
    for stream in [1, 3, 5] {
        ping(&mut peer, 6000).await?;
        peer.write(post(stream, "/kept/x", b"", END_HEADERS | END_STREAM)).await?;
        ensure!(peer.until(|frame| frame.stream == stream).await?.kind == h2::HEADERS);
    }
    keeps(&relay, &trusted).await
}

#[tokio::test]
async fn http_2_streams_beyond_their_limit_are_refused_and_the_others_go_on() -> anyhow::Result<()> {
    const STREAMS: u32 = 128;
    let (relay, trusted) = secure().await?;
    let mut peer = Peer::connect(&relay.public, &trusted).await?;
    let begun: Vec<u8> = (0..STREAMS).flat_map(|number| post(2 * number + 1, "/kept/x", b"", END_HEADERS)).collect();
    peer.write(begun).await?;
    let beyond = 2 * STREAMS + 1;
    peer.write(post(beyond, "/kept/x", b"", END_HEADERS | END_STREAM)).await?;
    let refused = peer.until(|frame| frame.stream != 0).await?;
    ensure!(refused.stream == beyond && refused.error_code() == Some(7), "REFUSED_STREAM: {refused:?}");
    for stream in [1, 2 * STREAMS - 1] {
        peer.write(frame(h2::DATA, END_STREAM, stream, b"x")).await?;
        let answer = peer.until(|frame| frame.stream == stream).await?;
        ensure!(answer.kind == h2::HEADERS && answer.payload.first() == Some(&0x88), "{answer:?}");
    }
    peer.write(post(beyond + 2, "/kept/x", b"", END_HEADERS | END_STREAM)).await?;
    ensure!(peer.until(|frame| frame.stream == beyond + 2).await?.kind == h2::HEADERS, "there is room again");
    keeps(&relay, &trusted).await
}

#[tokio::test]
async fn http_2_resets_beyond_their_limit_end_the_connection() -> anyhow::Result<()> {
    const ENHANCE_YOUR_CALM: Option<u32> = Some(0xb);
    let (relay, trusted) = secure().await?;
    let ping = |frame: &h2::Frame| frame.kind == h2::PING && frame.flags == h2::ACK;
    // Rapid Reset: streams that are given up as soon as they begin, in one piece.
    let given_up = |streams: u32| -> Vec<u8> {
        let cancelled = |stream| frame(h2::RESET, 0, stream, &8_u32.to_be_bytes());
        let one = |number| [post(2 * number + 1, "/kept/x", b"", END_HEADERS), cancelled(2 * number + 1)].concat();
        (0..streams).flat_map(one).collect()
    };
    // MadeYouReset: the relay has to reset each, since its peer gives it a window that no number holds.
    let provoked = |streams: u32| -> Vec<u8> {
        let wrong = |stream| frame(h2::WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        let one = |number| [post(2 * number + 1, "/kept/x", b"", END_HEADERS), wrong(2 * number + 1)].concat();
        (0..streams).flat_map(one).collect()
    };
    for (within, beyond) in [(given_up(20), given_up(21)), (provoked(256), provoked(257))] {
        let mut peer = Peer::connect(&relay.public, &trusted).await?;
        peer.write([within, frame(h2::PING, 0, 0, b"8 octets")].concat()).await?;
        let last = peer.until(|frame| ping(frame) || frame.kind == h2::GOAWAY).await?;
        ensure!(ping(&last), "it ended: {last:?}");
        let mut peer = Peer::connect(&relay.public, &trusted).await?;
        let _ = peer.write(beyond).await;
        let goaway = peer.until(|frame| frame.kind == h2::GOAWAY).await?;
        ensure!(goaway.error_code() == ENHANCE_YOUR_CALM, "{goaway:?}");
    }
    keeps(&relay, &trusted).await
}

#[tokio::test]
async fn an_http_2_header_list_over_its_limit_is_refused_and_the_connection_goes_on() -> anyhow::Result<()> {
    let (relay, trusted) = secure().await?;
    let mut peer = Peer::connect(&relay.public, &trusted).await?;
    // Each counts as 32 bytes and its text (RFC 9113, section 6.5.2), the four in front of a path as well.
    let around = 4 * 32 + ":method:scheme:authority:path".len() + "POSThttpslocalhost/kept/x".len();
    let lines = |bytes: usize| {
        let (count, rest) = ((bytes - around) / 133 - 1, (bytes - around) % 133 + 100);
        let whole = [&b"\x00\x01x\x64"[..], &[b'v'; 100]].concat().repeat(count);
        // A length of 127 and more goes on in bytes of its own (RFC 7541, section 5.1).
        [whole, vec![0, 1, b'x', 127, u8::try_from(rest - 127).expect("one byte")], vec![b'v'; rest]].concat()
    };
    for (stream, lines, status) in
        [(1, lines(MAX_HEAD), 0x88), (3, lines(MAX_HEAD + 1), 0x48), (5, lines(MAX_HEAD), 0x88)]
    {
        peer.write(post(stream, "/kept/x", &lines, END_HEADERS | END_STREAM)).await?;
        let answer = peer.until(|frame| frame.stream == stream).await?;
        ensure!(answer.kind == h2::HEADERS, "{answer:?}");
        // A literal status begins with the index of its name: 431 is in no table.
        ensure!(answer.payload.first() == Some(&status), "{stream}: {answer:?}");
    }
    keeps(&relay, &trusted).await
}

#[tokio::test]
async fn http_2_bytes_beyond_the_window_end_the_connection() -> anyhow::Result<()> {
    const FLOW_CONTROL_ERROR: Option<u32> = Some(3);
    let folder = tempfile::tempdir()?;
    let trusted = certificate(folder.path())?;
    let relay = start(&format!("{}{ENDPOINTS}", settings(folder.path()))).await?;
    // A handler that reads nothing.
    let handler = Handler::start(|_| std::future::pending()).await?;
    let port = relay.public.rsplit(':').next().context("a port")?;
    let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem").display().to_string());
    let _agent = relay.agent("live", &handler.port(), &["--relay", &there, "--relay-ca", &root]).await?;
    let mut peer = Peer::connect(&relay.public, &trusted).await?;
    // The connection's window is as large as a stream's once the relay has said so.
    peer.until(|frame| frame.kind == h2::WINDOW_UPDATE && frame.stream == 0).await?;
    peer.write(post(1, "/live/x", b"", END_HEADERS)).await?;
    let piece = frame(h2::DATA, 0, 1, &[b'x'; 16 * 1024]);
    let mut sent = 0;
    while sent < 512 * 1024 {
        peer.write(&piece).await?;
        sent += 16 * 1024;
    }
    peer.write(frame(h2::PING, 0, 0, b"8 octets")).await?;
    let last = peer.until(|frame| matches!(frame.kind, h2::PING | h2::GOAWAY | h2::RESET)).await?;
    ensure!(last.kind == h2::PING, "all of the window may be used: {last:?}");
    // What went on to the agent was given back; it is a few hundred KiB.
    while sent < 8 << 20 && peer.write(&piece).await.is_ok() {
        sent += 16 * 1024;
    }
    let end = peer.until(|frame| matches!(frame.kind, h2::GOAWAY | h2::RESET)).await?;
    ensure!(end.error_code() == FLOW_CONTROL_ERROR, "{end:?}");
    keeps(&relay, &trusted).await
}

#[tokio::test]
async fn the_admin_listener_bounds_heads_and_bodies() -> anyhow::Result<()> {
    const MAX_HEAD: usize = 16 * 1024;
    const MAX_BODY: usize = 1 << 20;
    let relay = start(ENDPOINTS).await?;
    let ask = async |bytes: String| {
        let mut wire = Wire::connect(&relay.admin).await?;
        let _ = wire.write(bytes).await;
        let head = timeout(PATIENCE, wire.head()).await.context("no answer")??.context("an answer")?;
        head.status()
    };
    let probe = |bytes: usize| {
        let head = |long: &str| format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n");
        head(&"a".repeat(bytes - head("").len()))
    };
    ensure!(ask(probe(MAX_HEAD)).await? == 200);
    ensure!(ask(probe(MAX_HEAD + 1)).await? == 431);
    let token = relay.admin_token()?;
    let question = |length: usize, body: &str| {
        format!(
            "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    ensure!(ask(question(MAX_BODY, &"x".repeat(MAX_BODY))).await? == 400, "it is read, and no JSON");
    ensure!(ask(question(MAX_BODY + 1, &"x".repeat(MAX_BODY + 1))).await? == 413);
    let began = Instant::now();
    let mut slow = Wire::connect(&relay.admin).await?;
    slow.write(question(10, "x")).await?;
    let status = slow.head().await?.context("an answer")?.status()?;
    ensure!(status == 504 && began.elapsed() >= Duration::from_secs(19), "{status} after {:?}", began.elapsed());
    ensure!(ask(probe(1000)).await? == 200);
    Ok(())
}

#[tokio::test]
async fn the_admin_listener_ends_a_slow_head_at_its_deadline() -> anyhow::Result<()> {
    let relay = start(ENDPOINTS).await?;
    let took = dribble(&relay.admin, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Long: ").await?;
    ensure!(took >= Duration::from_secs(9) && took < Duration::from_secs(15), "after {took:?}");
    let answer = send(&relay.admin, request("GET", "/livez", &[], "")).await?;
    ensure!(answer.status() == StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn who_never_reads_from_the_admin_listener_is_let_go() -> anyhow::Result<()> {
    /// How long something of an answer may wait to be taken.
    const WAITS: Duration = Duration::from_secs(30);
    let relay = start(ENDPOINTS).await?;
    let before = relay.load().await?;
    let (mut stream, began) = (TcpStream::connect(&relay.admin).await?, Instant::now());
    let asks = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    // The system may take a little more after that time, which begins it anew.
    let asked: std::io::Result<()> = timeout(4 * WAITS, async {
        loop {
            stream.write_all(&asks).await?;
        }
    })
    .await
    .context("it is held for ever")?;
    let took = began.elapsed();
    ensure!(asked.is_err() && took >= WAITS - Duration::from_secs(1), "after {took:?}: {asked:?}");
    relay.settles(&before).await
}
