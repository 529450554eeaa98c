//! The public door's connections: senders that say no more, that take nothing, that only stay, and that come in crowds.

use std::{path::Path, sync::Arc};

use anyhow::{Context, ensure};
use http::Response;
use http_body_util::BodyExt as _;
use relay_tests::{
    handler::{Handler, full},
    process::{PATIENCE, Server},
    program::Program,
    sender::{request, send},
    tls::{certificate, connect, settings},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::timeout,
};

const ENDPOINTS: &str = "[[endpoint]]\nname = \"live\"\nmode = \"live\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"kept\"\nverify = \"none\"\n";

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// A relay, in the clear or under TLS, and an agent for each endpoint whose handler answers when it is let.
struct Door {
    relay: Server,
    trusted: Option<CertificateDer<'static>>,
    calls: mpsc::UnboundedReceiver<String>,
    gate: Arc<Semaphore>,
    _held: (Handler, Vec<relay_tests::process::Agent>, tempfile::TempDir),
}

impl Door {
    async fn open(tls: bool, config: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let trusted = if tls { Some(certificate(folder.path())?) } else { None };
        let config = if tls { settings(folder.path()) + config } else { config.to_owned() };
        let relay = Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", &config, &[]).await?;
        let (tell, calls) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let open = Arc::clone(&gate);
        let handler = Handler::start(move |request| {
            let (tell, open) = (tell.clone(), Arc::clone(&open));
            async move {
                let target = request.uri().to_string();
                if target.ends_with("given-up") {
                    return std::future::pending().await;
                }
                let whole = request.into_body().collect().await.is_ok();
                // The test may have ended.
                let _ = tell.send(if whole { target } else { format!("{target} broke off") });
                open.acquire().await.expect("never closed").forget();
                Response::new(full("the answer"))
            }
        })
        .await?;
        let root = folder.path().join("cert.pem").display().to_string();
        let port = relay.public.rsplit(':').next().context("a port")?;
        let there = format!("wss://localhost:{port}");
        let more: &[&str] = if tls { &["--relay", &there, "--relay-ca", &root] } else { &[] };
        let mut agents = Vec::new();
        for name in ["live", "kept"] {
            agents.push(relay.agent(name, &handler.port(), &[more, &["--name", name]].concat()).await?);
        }
        Ok(Self { relay, trusted, calls, gate, _held: (handler, agents, folder) })
    }

    async fn wire(&self, alpn: &[u8]) -> anyhow::Result<Box<dyn Wire>> {
        Ok(match &self.trusted {
            Some(trusted) => Box::new(connect(&self.relay.public, trusted, alpn).await?),
            None => Box::new(TcpStream::connect(&self.relay.public).await?),
        })
    }

    /// Sends this, says that nothing more will come, and reads what the relay says, which the handler answers only now.
    async fn half_closed(&mut self, alpn: &[u8], sent: &[u8], calls: usize) -> anyhow::Result<Vec<u8>> {
        let mut wire = self.wire(alpn).await?;
        wire.write_all(sent).await?;
        wire.shutdown().await?;
        for _ in 0..calls {
            timeout(PATIENCE, self.calls.recv()).await.context("no call")?.context("a handler")?;
        }
        self.gate.add_permits(calls);
        let mut said = Vec::new();
        // A connection that is closed with bytes unread may be reset; what came before counts.
        let _ = timeout(PATIENCE, wire.read_to_end(&mut said)).await.context("the relay does not end")?;
        Ok(said)
    }
}

/// Requests for an endpoint that end with their last byte.
fn whole(endpoint: &str, tag: &str) -> Vec<(String, Vec<u8>)> {
    let head = |method: &str, version: &str, lines: &str| {
        format!("{method} /{endpoint}/{tag} HTTP/{version}\r\nHost: relay.test\r\n{lines}\r\n")
    };
    let mut all = Vec::new();
    for (version, lines) in [("1.1", "Connection: close\r\n"), ("1.0", ""), ("1.1", "")] {
        let name = format!("{endpoint} {version} {}", lines.trim());
        all.push((name.clone(), head("POST", version, &format!("{lines}Content-Length: 4\r\n")) + "body"));
        if version == "1.1" {
            all.push((
                format!("{name} chunked"),
                head("POST", version, &format!("{lines}Transfer-Encoding: chunked\r\n")) + "4\r\nbody\r\n0\r\n\r\n",
            ));
        }
        all.push((format!("{name} without a body"), head("POST", version, lines)));
    }
    all.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}

#[tokio::test]
async fn a_sender_that_says_no_more_after_its_request_gets_its_answer() -> anyhow::Result<()> {
    for tls in [false, true] {
        let mut door = Door::open(tls, ENDPOINTS).await?;
        let mut all = [whole("live", "a"), whole("kept", "b")].concat();
        for (name, request) in whole("live", "given-up") {
            if name.starts_with("live 1.1 ") && !name.contains("close") {
                all.retain(|(other, _)| *other != name);
                all.push((name, request));
            }
        }
        for (name, request) in all {
            let given_up = request.windows(8).any(|bytes| bytes == b"given-up");
            let said = door.half_closed(b"http/1.1", &request, usize::from(!given_up)).await?;
            let said = String::from_utf8_lossy(&said);
            if given_up {
                ensure!(said.is_empty(), "{name}, TLS {tls}: a live sender that may be gone got {said:?}");
            } else {
                ensure!(said.contains(" 200 ") && said.ends_with("the answer"), "{name}, TLS {tls}: {said:?}");
            }
        }
        let two = [whole("kept", "one").remove(2).1, whole("kept", "two").remove(2).1];
        let two = String::from_utf8(two.concat())?.replace("Connection: close\r\n", "");
        door.gate.add_permits(1);
        let said = String::from_utf8(door.half_closed(b"http/1.1", two.as_bytes(), 1).await?)?;
        ensure!(said.matches("HTTP/1.1 200 ").count() == 2, "two in a row, TLS {tls}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn under_tls_a_connection_that_ends_without_saying_so_says_no_more_either() -> anyhow::Result<()> {
    let mut door = Door::open(true, ENDPOINTS).await?;
    let trusted = door.trusted.clone().context("a certificate")?;
    let mut wire = connect(&door.relay.public, &trusted, b"http/1.1").await?;
    wire.write_all(b"POST /kept/bare HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 4\r\n\r\nbody").await?;
    wire.flush().await?;
    wire.get_mut().0.shutdown().await?;
    timeout(PATIENCE, door.calls.recv()).await.context("no call")?.context("a handler")?;
    door.gate.add_permits(1);
    let mut said = [0; 12];
    timeout(PATIENCE, wire.read_exact(&mut said)).await.context("no answer")??;
    ensure!(said == *b"HTTP/1.1 200");
    Ok(())
}

#[tokio::test]
async fn a_body_that_the_end_of_input_cuts_off_stays_broken() -> anyhow::Result<()> {
    let mut door = Door::open(false, ENDPOINTS).await?;
    for endpoint in ["live", "kept"] {
        for lines in [
            "Content-Length: 9\r\n\r\nbody",
            "Transfer-Encoding: chunked\r\n\r\n9\r\nbody",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        ] {
            for keeps in ["Connection: close\r\n", ""] {
                let request = format!("POST /{endpoint}/cut HTTP/1.1\r\nHost: relay.test\r\n{keeps}{lines}");
                let said = door.half_closed(b"http/1.1", request.as_bytes(), 0).await?;
                let said = String::from_utf8(said)?;
                // Not 408: nobody waits for a body that cannot come.
                ensure!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{request:?}: {said:?}");
            }
        }
    }
    while let Ok(call) = door.calls.try_recv() {
        ensure!(call.ends_with("broke off"), "a handler took a part for the whole: {call}");
    }
    Ok(())
}

/// An HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A POST's HEADERS (RFC 7541, section 6.2.2: literals without indexing).
fn post(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    headers(stream, path, "", flags)
}

/// A POST's HEADERS with more lines, as they are encoded.
fn headers(stream: u32, path: &str, lines: &str, flags: u8) -> Vec<u8> {
    let literal = |index: u8, text: &str| {
        let length = u8::try_from(text.len()).expect("short");
        [&[index, length], text.as_bytes()].concat()
    };
    let block = [vec![0x83, 0x87], literal(0x04, path), literal(0x01, "localhost"), lines.into()].concat();
    frame(1, flags, stream, &block)
}

/// The first byte of the answer's header block on a stream, where the status stands: 0x88 is 200.
fn status(mut said: &[u8], stream: u32) -> Option<u8> {
    while let Some((head, rest)) = said.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        if head[3] == 1 && head[5..9] == stream.to_be_bytes() {
            return payload.first().copied();
        }
        said = rest;
    }
    None
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

#[tokio::test]
async fn over_http_2_a_kept_request_outlasts_the_end_of_input_and_a_cut_one_beside_it_does_not() -> anyhow::Result<()> {
    let mut door = Door::open(true, ENDPOINTS).await?;
    let begin = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let kept = [post(1, "/kept/h2", END_HEADERS), frame(0, END_STREAM, 1, b"body")].concat();
    let cut = [post(3, "/kept/cut", END_HEADERS), frame(0, 0, 3, b"bo")].concat();
    let bare = post(5, "/kept/bare", END_HEADERS | END_STREAM);
    let said = door.half_closed(b"h2", &[begin.clone(), kept, cut, bare].concat(), 2).await?;
    ensure!(status(&said, 1) == Some(0x88), "{said:?}");
    ensure!(status(&said, 5) == Some(0x88), "{said:?}");
    ensure!(status(&said, 3) != Some(0x88), "{said:?}");
    let live = post(1, "/live/given-up", END_HEADERS | END_STREAM);
    let said = door.half_closed(b"h2", &[begin, live].concat(), 0).await?;
    ensure!(status(&said, 1).is_none(), "a live sender that may be gone: {said:?}");
    Ok(())
}

#[tokio::test]
async fn the_admin_listener_answers_who_says_no_more() -> anyhow::Result<()> {
    let door = Door::open(false, ENDPOINTS).await?;
    let mut wire = TcpStream::connect(&door.relay.admin).await?;
    wire.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", door.relay.admin).as_bytes()).await?;
    wire.shutdown().await?;
    let mut said = String::new();
    timeout(PATIENCE, wire.read_to_string(&mut said)).await??;
    ensure!(said.starts_with("HTTP/1.1 200 "), "{said:?}");
    Ok(())
}

/// A relay without agents.
async fn relay(config: &str) -> anyhow::Result<Server> {
    Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", config, &[]).await
}

const IMPATIENT: &str = "[limits]\nidle_timeout = \"1s\"\nupgrade_idle_timeout = \"2s\"\n";

#[tokio::test]
async fn who_never_reads_what_it_asked_for_is_let_go() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let trusted = certificate(folder.path())?;
    // One place: who holds it keeps everybody out.
    let plain = relay(&format!("max_connections = 1\n{IMPATIENT}{ENDPOINTS}")).await?;
    let tls = relay(&format!("max_connections = 1\n{IMPATIENT}{}{ENDPOINTS}", settings(folder.path()))).await?;
    let asks = b"GET /nobody HTTP/1.1\r\nHost: relay.test\r\n\r\n".repeat(1000);
    let pings = frame(6, 0, 0, b"8 octets").repeat(1000);
    let over_tls = async |alpn: &[u8]| Ok::<_, anyhow::Error>(connect(&tls.public, &trusted, alpn).await?);
    let begin = [PREFACE, &frame(4, 0, 0, &[])].concat();
    // Later ones come in only once the one before has gone.
    for case in ["plain", "http/1.1", "h2"] {
        let (begin, again): (&[u8], &[u8]) = if case == "h2" { (&begin, &pings) } else { (&[], &asks) };
        let mut wire: Box<dyn Wire> = match case {
            "plain" => Box::new(TcpStream::connect(&plain.public).await?),
            alpn => Box::new(timeout(PATIENCE, over_tls(alpn.as_bytes())).await.context("no place")??),
        };
        let sent = async {
            wire.write_all(begin).await?;
            loop {
                wire.write_all(again).await?;
            }
        };
        let ended: std::io::Result<()> =
            timeout(PATIENCE, sent).await.with_context(|| format!("{case} is held for ever"))?;
        ensure!(ended.is_err(), "{case}");
    }
    Ok(())
}

/// Reads frames until one is wanted, and answers pings meanwhile.
async fn until_frame(wire: &mut (impl Wire + ?Sized), wanted: impl Fn(u8, &[u8]) -> bool) -> anyhow::Result<()> {
    loop {
        let mut head = [0; 9];
        wire.read_exact(&mut head).await.context("the connection ended before")?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        wire.read_exact(&mut payload).await?;
        if wanted(head[3], &head[5..]) {
            return Ok(());
        }
        if head[3] == 6 && head[4] == 0 {
            wire.write_all(&frame(6, 1, 0, &payload)).await?;
        }
    }
}

#[tokio::test]
async fn an_http_2_connection_that_only_answers_pings_is_told_to_go() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let trusted = certificate(folder.path())?;
    let relay = relay(&format!("{IMPATIENT}{}{ENDPOINTS}", settings(folder.path()))).await?;
    for asks_first in [false, true] {
        let mut wire = connect(&relay.public, &trusted, b"h2").await?;
        wire.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await?;
        if asks_first {
            wire.write_all(&post(1, "/nobody", END_HEADERS | END_STREAM)).await?;
        }
        timeout(PATIENCE, until_frame(&mut wire, |kind, _| kind == 7)).await.context("no GOAWAY")??;
        // Whatever it does now, it has no place any more.
        timeout(PATIENCE, until_frame(&mut wire, |_, _| false)).await.context("it stays")?.expect_err("the end");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_peer_gives_no_window_is_reset_and_frees_its_handler() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let trusted = certificate(folder.path())?;
    let config = format!("{IMPATIENT}{}{ENDPOINTS}", settings(folder.path()));
    let relay = relay(&config).await?;
    let handler = Handler::start(|_| async { Response::new(full(vec![0; 8 << 20])) }).await?;
    let port = relay.public.rsplit(':').next().context("a port")?;
    let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem").display().to_string());
    let _agent = relay.agent("live", &handler.port(), &["--relay", &there, "--relay-ca", &root]).await?;
    let before = relay.load().await?;
    let mut wire = connect(&relay.public, &trusted, b"h2").await?;
    wire.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &post(1, "/live/x", END_HEADERS | END_STREAM)].concat()).await?;
    let reset = |kind: u8, stream: &[u8]| kind == 3 && stream == 1_u32.to_be_bytes();
    timeout(PATIENCE, until_frame(&mut wire, reset)).await.context("it is held for ever")??;
    // Over HTTP/1.1 there is no window but the system's.
    let mut plain = connect(&relay.public, &trusted, b"http/1.1").await?;
    plain.write_all(b"GET /live/x HTTP/1.1\r\nHost: relay.test\r\n\r\n").await?;
    let _first = plain.read_u8().await?;
    drop(wire);
    relay.settles(&before).await
}

#[tokio::test]
async fn heads_that_wait_are_counted_over_http_2_and_beyond_the_share_refused() -> anyhow::Result<()> {
    const STREAMS: u32 = 90;
    const SHARE: usize = 512 * 1024; // Half of all, for one endpoint.
    let config = format!("[limits]\nbody_budget = \"1MiB\"\nmax_body = \"16KiB\"\n{ENDPOINTS}");
    let door = Door::open(true, &config).await?;
    let before = door.relay.load().await?;
    let mut wire = door.wire(b"h2").await?;
    wire.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await?;
    // Each costs about 16 KiB: so many lines do, however short they are.
    let (path, lines) = ("/live/given-up", "\0\u{1}x\u{64}".to_owned() + &"v".repeat(100));
    for number in 0..STREAMS {
        wire.write_all(&headers(2 * number + 1, path, &lines.repeat(60), END_HEADERS | END_STREAM)).await?;
    }
    timeout(PATIENCE, until_frame(&mut *wire, |kind, _| kind == 1)).await.context("all of them wait")??;
    let held = door.relay.load().await?.body_bytes;
    ensure!(held <= SHARE && held + 32 * 1024 > SHARE, "{held} bytes are held");
    drop(wire);
    door.relay.settles(&before).await
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place_and_ends_when_it_is_silent() -> anyhow::Result<()> {
    let relay = relay(&format!("max_connections = 1\n{IMPATIENT}{ENDPOINTS}")).await?;
    let handler = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let target = handler.local_addr()?.port().to_string();
    let _agent = relay.agent("live", &target, &[]).await?;
    let mut wire = TcpStream::connect(&relay.public).await?;
    let asks = "GET /live/ws HTTP/1.1\r\nHost: relay.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    wire.write_all(asks.as_bytes()).await?;
    let (mut call, _) = timeout(PATIENCE, handler.accept()).await??;
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(timeout(PATIENCE, call.read_u8()).await??);
    }
    let agrees = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
    call.write_all(agrees).await?;
    let silent = async {
        let mut said = Vec::new();
        // It is broken off, or ended; what counts is that it is over.
        let _ = wire.read_to_end(&mut said).await;
        ensure!(said.ends_with(b"hello"), "{}", String::from_utf8_lossy(&said));
        Ok(())
    };
    let other = send(&relay.public, request("GET", "/nobody", &[], ""));
    tokio::pin!(other);
    tokio::select! {
        biased;
        answer = &mut other => anyhow::bail!("somebody came in beside it: {answer:?}"),
        ended = timeout(PATIENCE, silent) => ended.context("it is held for ever")??,
    }
    ensure!(timeout(PATIENCE, other).await??.status() == 404);
    Ok(())
}

#[tokio::test]
async fn the_limit_on_open_files_is_raised_and_a_low_one_takes_fewer_connections() -> anyhow::Result<()> {
    let limited = |limit: &str| {
        let program = Path::new(env!("CARGO_BIN_EXE_demo"));
        let program = Program::behind(program, ["prlimit", &format!("--nofile={limit}")]);
        async move { Server::start(program, "127.0.0.1:0", &format!("max_connections = 1000\n{ENDPOINTS}"), &[]).await }
    };
    let enough = limited("256:4096").await?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", enough.id().context("it runs")?))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("a line")?;
    ensure!(line.split_whitespace().nth(3) == Some("4096"), "{line}");
    ensure!(!enough.first_words.contains("max_connections"), "{}", enough.first_words);
    let low = limited("256:1024").await?;
    ensure!(low.first_words.contains("max_connections") && low.first_words.contains("384"), "{}", low.first_words);
    Ok(())
}

#[tokio::test]
async fn whoever_only_connects_to_the_admin_listener_keeps_nobody_out() -> anyhow::Result<()> {
    let relay = relay(ENDPOINTS).await?;
    let mut idle = Vec::new();
    for number in 0..64 {
        let mut wire = TcpStream::connect(&relay.admin).await?;
        if number % 2 == 0 {
            wire.write_all(b"GET /livez HT").await?;
        }
        idle.push(wire);
    }
    let asks = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", relay.admin);
    let ask = async |wire: &mut TcpStream| {
        wire.write_all(asks.as_bytes()).await?;
        let mut said = [0; 12];
        timeout(PATIENCE, wire.read_exact(&mut said)).await??;
        ensure!(said == *b"HTTP/1.1 200");
        Ok(())
    };
    ask(&mut TcpStream::connect(&relay.admin).await?).await?;
    // The places were not given back by waiting until all of them had waited too long.
    ask(idle.last_mut().context("one")?).await.context("a later one had to go, too")?;
    ask(&mut idle[0]).await.expect_err("the one that had waited longest");
    Ok(())
}
