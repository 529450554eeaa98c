//! Slow and flooding peers at every listener, one kind after the other, beside good webhooks: none of those fails, the
//! relay's memory and log stay bounded, and nothing is left when they have gone. Their rates and the times of good
//! webhooks are printed, and held by nothing: the attackers share the processors with what they attack.
//!
//! `RELAY_ABUSE=NAME` has only kinds whose names hold that, `RELAY_ABUSE_TIMES=20` each of them so often. With
//! `RELAY_ABUSE_APART=2000` attackers have a processor of their own and do so many things a second at most, while the
//! relay, its agents, the handler and the good senders share the other one: what good webhooks then wait for is what the
//! relay does for attackers, and not the attackers' own work. Without it a flood is as fast as it can be.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use relay_proto::CONNECT_PATH;
use relay_tests::{
    h2::{self, END_HEADERS, END_STREAM, Peer, frame, post},
    handler::{Handler, full},
    process::{PATIENCE, Server, allow_open_files},
    program::Program,
    sender::{Keeper, request, send, signed},
    tls::{certificate, connect, settings},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, sink},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{sleep, sleep_until, timeout, timeout_at},
};
use tokio_rustls::client::TlsStream;

use super::ceiling::{KIB, MAX_CONNECTIONS, MIB, number};

/// How long each kind goes on, and where it has a processor of its own: as long as its times have to be good for.
const LASTS: Duration = Duration::from_millis(1200);
const LASTS_APART: Duration = Duration::from_secs(5);

/// Where attackers have a processor of their own: the relay's with all that is good, and theirs.
const GOOD_CORE: usize = 0;
const ATTACKERS_CORE: usize = 1;

/// Between two good webhooks.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two bytes of who is slow.
const SLOW: Duration = Duration::from_millis(200);

/// Lines of the log of one kind at most: each place in the code has its throttle.
const LOG_LINES: usize = 100;

const ENDPOINTS: &str = "[[endpoint]]\nname = \"good\"\nmode = \"live\"\ndeadline = \"30s\"\n\
     verify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n\
     [[endpoint]]\nname = \"large\"\nmode = \"live\"\nverify = \"none\"\n\
     [[endpoint]]\nname = \"kept\"\nmode = \"durable\"\nverify = \"none\"\n";
const SECRET: &str = "a secret";

/// What is asked for from outside.
struct Form {
    only: String,
    times: usize,
    /// Things a second that attackers do at most, on a processor of their own.
    apart: Option<f64>,
}

impl Form {
    fn from_env() -> Self {
        let said = |name: &str| std::env::var(name).ok().filter(|said| !said.is_empty());
        Self {
            only: said("RELAY_ABUSE").unwrap_or_default(),
            times: said("RELAY_ABUSE_TIMES").and_then(|said| said.parse().ok()).unwrap_or(1),
            apart: said("RELAY_ABUSE_APART").and_then(|said| said.parse().ok()).filter(|rate| *rate > 0.0),
        }
    }

    fn lasts(&self) -> Duration {
        if self.apart.is_some() { LASTS_APART } else { LASTS }
    }

    fn program(&self) -> Program {
        let program = Path::new(env!("CARGO_BIN_EXE_demo"));
        match self.apart {
            Some(_) => Program::behind(program, ["taskset", "--cpu-list", &GOOD_CORE.to_string()]),
            None => program.into(),
        }
    }

    /// Has this thread run on one processor alone, where that is asked for.
    fn pin(&self, core: usize) -> anyhow::Result<()> {
        if self.apart.is_none() {
            return Ok(());
        }
        let thread = std::fs::read_link("/proc/thread-self")?;
        let thread = thread.file_name().context("a thread")?;
        let pinned = Command::new("taskset").args(["--cpu-list", "--pid", &core.to_string()]).arg(thread).output()?;
        ensure!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
        Ok(())
    }
}

/// Whom they attack.
#[derive(Clone)]
struct Target {
    public: Arc<str>,
    clear: Arc<str>,
    admin: Arc<str>,
    trusted: CertificateDer<'static>,
    token: Arc<str>,
    /// What they got done, since when, and how many times a second at most.
    done: Arc<AtomicU64>,
    began: Instant,
    rate: Option<f64>,
}

impl Target {
    /// Counts what was done, and waits where that was too fast.
    async fn count(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        if let Some(rate) = self.rate {
            sleep_until((self.began + Duration::from_secs_f64(done as f64 / rate)).into()).await;
        }
    }

    async fn secure(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        Ok(connect(&self.public, &self.trusted, b"http/1.1").await?)
    }

    async fn plain(&self, address: &str) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(address).await?)
    }

    /// Writes this again and again, reads whatever comes, and counts so many for each time.
    async fn pour(&self, stream: impl AsyncRead + AsyncWrite, again: &[u8], each: u64) -> anyhow::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut nowhere = sink();
        let write = async {
            loop {
                writer.write_all(again).await?;
                self.count(each).await;
            }
        };
        tokio::select! {
            ended = write => ended,
            read = tokio::io::copy(&mut reader, &mut nowhere) => bail!("it ended: {read:?}"),
        }
    }

    /// The same, and reads nothing.
    async fn push(&self, mut stream: impl AsyncWrite + Unpin, again: &[u8], each: u64) -> anyhow::Result<()> {
        loop {
            stream.write_all(again).await?;
            self.count(each).await;
        }
    }

    /// Writes a byte now and then.
    async fn dribble(&self, mut stream: impl AsyncWrite + Unpin, begin: &[u8]) -> anyhow::Result<()> {
        stream.write_all(begin).await?;
        loop {
            stream.write_all(b"a").await?;
            stream.flush().await?;
            self.count(1).await;
            sleep(SLOW).await;
        }
    }

    /// Waits for the end.
    async fn stay(&self, mut stream: impl AsyncRead + Unpin) -> anyhow::Result<()> {
        self.count(1).await;
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }

    /// A connection of HTTP/2, and what is written on it for each number.
    async fn streams(&self, write: impl Fn(u32) -> Vec<u8>) -> anyhow::Result<()> {
        let Peer { stream } = Peer::connect(&self.public, &self.trusted).await?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut nowhere = sink();
        let write = async {
            for number in (0..1 << 28).step_by(8) {
                let some: Vec<u8> = (number..number + 8).flat_map(&write).collect();
                writer.write_all(&some).await?;
                self.count(8).await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = write => ended,
            read = tokio::io::copy(&mut reader, &mut nowhere) => bail!("it ended: {read:?}"),
        }
    }

    /// An agent's connection before its hello.
    async fn upgraded(&self, token: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut stream = self.secure().await?;
        let asks = format!(
            "GET {CONNECT_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(asks.as_bytes()).await?;
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") {
            said.push(stream.read_u8().await?);
        }
        self.count(1).await;
        ensure!(said.starts_with(b"HTTP/1.1 101"), "no upgrade");
        Ok(stream)
    }
}

type Attack = fn(Target) -> BoxFuture<'static, anyhow::Result<()>>;

macro_rules! attack {
    (|$target:ident| $body:expr) => {
        |$target: Target| Box::pin(async move { $body })
    };
}

fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}")
}

/// A frame of a WebSocket's client without a payload; its mask is nothing.
fn websocket(first: u8) -> Vec<u8> {
    vec![first, 0x80, 0, 0, 0, 0]
}

const H2_STREAM: fn(u32) -> u32 = |number| 2 * number + 1;

/// Each kind: its name, how many do it at a time, and one connection of it.
const ATTACKS: [(&str, usize, Attack); 37] = [
    (
        "connections that are closed at once",
        4,
        attack!(|it| {
            drop(it.plain(&it.public).await?);
            it.count(1).await;
            Ok(())
        }),
    ),
    ("connections that say nothing", 300, attack!(|it| it.stay(it.plain(&it.public).await?).await)),
    (
        "handshakes that stop midway",
        100,
        attack!(|it| {
            let mut stream = it.plain(&it.public).await?;
            stream.write_all(&[&[0x16, 3, 1, 0x40, 0, 1, 0, 0xf0, 0][..], &[0; 16_000]].concat()).await?;
            it.stay(stream).await
        }),
    ),
    (
        "handshakes of noise",
        4,
        attack!(|it| {
            let mut stream = it.plain(&it.public).await?;
            stream.write_all(&[0x55; 512]).await?;
            it.stay(stream).await
        }),
    ),
    (
        "handshakes and nothing more",
        2,
        attack!(|it| {
            drop(it.secure().await?);
            it.count(1).await;
            Ok(())
        }),
    ),
    (
        "heads that come slowly",
        200,
        attack!(|it| it.dribble(it.secure().await?, head("/good", "A: ").as_bytes()).await),
    ),
    (
        "bodies that come slowly, live",
        60,
        attack!(|it| {
            it.dribble(it.secure().await?, head("/large", "Content-Length: 100000\r\n\r\n").as_bytes()).await
        }),
    ),
    (
        "bodies that come slowly, kept",
        60,
        attack!(|it| {
            it.dribble(it.secure().await?, head("/kept", "Content-Length: 100000\r\n\r\n").as_bytes()).await
        }),
    ),
    (
        "chunks of one byte",
        2,
        attack!(|it| {
            let mut stream = it.secure().await?;
            stream.write_all(head("/kept", "Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await?;
            it.pour(stream, &b"1\r\nx\r\n".repeat(100), 100).await
        }),
    ),
    (
        "pipelines that are never read",
        20,
        attack!(|it| {
            it.push(it.secure().await?, head("/nobody", "Content-Length: 0\r\n\r\n").repeat(50).as_bytes(), 50).await
        }),
    ),
    (
        "large answers that are never read",
        30,
        attack!(|it| {
            let mut stream = it.secure().await?;
            stream.write_all(head("/large", "Content-Length: 0\r\n\r\n").as_bytes()).await?;
            it.count(1).await;
            std::future::pending::<()>().await;
            drop(stream);
            Ok(())
        }),
    ),
    (
        "wrong signatures",
        4,
        attack!(|it| {
            let asks = head("/good", "X-Hub-Signature-256: sha256=00\r\nContent-Length: 2\r\n\r\n{}");
            it.pour(it.secure().await?, asks.as_bytes(), 1).await
        }),
    ),
    (
        "paths of nobody",
        4,
        attack!(|it| {
            let asks = head(&format!("/{:x}", fastrand::u64(..)), "Content-Length: 0\r\n\r\n");
            it.pour(it.secure().await?, asks.as_bytes(), 1).await
        }),
    ),
    (
        "HTTP/2: streams that are given up at once",
        2,
        attack!(|it| {
            let write = |number| {
                let stream = H2_STREAM(number);
                [post(stream, "/kept", b"", END_HEADERS), frame(h2::RESET, 0, stream, &8_u32.to_be_bytes())].concat()
            };
            it.streams(write).await
        }),
    ),
    (
        "HTTP/2: streams that the relay has to reset",
        2,
        attack!(|it| {
            let write = |number| {
                let stream = H2_STREAM(number);
                let wrong = frame(h2::WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
                [post(stream, "/kept", b"", END_HEADERS), wrong].concat()
            };
            it.streams(write).await
        }),
    ),
    (
        "HTTP/2: live streams that are given up",
        2,
        attack!(|it| {
            let write = |number| {
                let stream = H2_STREAM(number);
                // Eight at a time are open, so that each is looked at.
                let cancel = |stream| frame(h2::RESET, 0, stream, &8_u32.to_be_bytes());
                let before = if number < 8 { Vec::new() } else { cancel(H2_STREAM(number - 8)) };
                [before, post(stream, "/large", b"", END_HEADERS)].concat()
            };
            it.streams(write).await
        }),
    ),
    (
        "HTTP/2: heads that never end",
        2,
        attack!(|it| {
            let begin = post(1, "/kept", b"", 0);
            let write =
                |number| if number == 0 { begin.clone() } else { frame(h2::CONTINUATION, 0, 1, b"\x00\x01a\x01b") };
            it.streams(write).await
        }),
    ),
    ("HTTP/2: settings", 2, attack!(|it| it.streams(|_| frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])).await)),
    ("HTTP/2: pings", 2, attack!(|it| it.streams(|_| frame(h2::PING, 0, 0, b"8 octets")).await)),
    (
        "HTTP/2: pings that are never read",
        2,
        attack!(|it| {
            let Peer { stream } = Peer::connect(&it.public, &it.trusted).await?;
            it.push(stream, &frame(h2::PING, 0, 0, b"8 octets").repeat(50), 50).await
        }),
    ),
    (
        "HTTP/2: answers to pings that nobody sent",
        2,
        attack!(|it| it.streams(|_| frame(h2::PING, h2::ACK, 0, b"8 octets")).await),
    ),
    (
        "HTTP/2: priorities",
        2,
        attack!(|it| it.streams(|number| frame(h2::PRIORITY, 0, H2_STREAM(number), &[0, 0, 0, 0, 9])).await),
    ),
    ("HTTP/2: windows", 2, attack!(|it| it.streams(|_| frame(h2::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())).await)),
    (
        "HTTP/2: data without a byte",
        2,
        attack!(|it| {
            let begin = post(1, "/kept", b"", END_HEADERS);
            it.streams(|number| if number == 0 { begin.clone() } else { frame(h2::DATA, 0, 1, b"") }).await
        }),
    ),
    (
        "HTTP/2: answers without a window",
        5,
        attack!(|it| {
            let mut peer = Peer::connect(&it.public, &it.trusted).await?;
            peer.write(frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await?;
            for number in 0..100 {
                peer.write(post(H2_STREAM(number), "/large", b"", END_HEADERS | END_STREAM)).await?;
                it.count(1).await;
            }
            // It lives, as far as its pings can tell.
            loop {
                let asked = peer.until(|frame| frame.kind == h2::PING && frame.flags == 0).await?;
                peer.write(frame(h2::PING, h2::ACK, 0, &asked.payload)).await?;
            }
        }),
    ),
    (
        "agents: wrong tokens",
        2,
        attack!(|it| {
            let _refused = it.upgraded("rt_wrong").await;
            Ok(())
        }),
    ),
    ("agents: sessions without a hello", 100, attack!(|it| it.stay(it.upgraded(&it.token).await?).await)),
    ("agents: WebSocket pings", 2, attack!(|it| it.pour(it.upgraded(&it.token).await?, &websocket(0x89), 1).await)),
    (
        "agents: WebSocket fragments",
        2,
        attack!(|it| {
            let mut stream = it.upgraded(&it.token).await?;
            stream.write_all(&websocket(0x02)).await?;
            it.pour(stream, &websocket(0).repeat(100), 100).await
        }),
    ),
    ("in the clear: connections that say nothing", 600, attack!(|it| it.stay(it.plain(&it.clear).await?).await)),
    (
        "in the clear: heads that come slowly",
        200,
        attack!(|it| it.dribble(it.plain(&it.clear).await?, head("/good", "A: ").as_bytes()).await),
    ),
    (
        "in the clear: bodies that come slowly",
        200,
        attack!(|it| it
            .dribble(it.plain(&it.clear).await?, head("/good", "Content-Length: 9000\r\n\r\n").as_bytes())
            .await),
    ),
    (
        "in the clear: connections that are closed at once",
        4,
        attack!(|it| {
            drop(it.plain(&it.clear).await?);
            it.count(1).await;
            Ok(())
        }),
    ),
    (
        "in the clear: redirects",
        4,
        attack!(|it| {
            let mut stream = it.plain(&it.clear).await?;
            stream.write_all(head("/good", "Content-Length: 0\r\n\r\n").as_bytes()).await?;
            stream.read_to_end(&mut Vec::new()).await?;
            it.count(1).await;
            Ok(())
        }),
    ),
    ("admin: connections that say nothing", 200, attack!(|it| it.stay(it.plain(&it.admin).await?).await)),
    (
        "admin: heads and bodies that come slowly",
        100,
        attack!(|it| {
            let path = if fastrand::bool() {
                "GET /metrics HTTP/1.1\r\nA: "
            } else {
                "POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
            };
            it.dribble(it.plain(&it.admin).await?, path.as_bytes()).await
        }),
    ),
    (
        "admin: metrics that are never read",
        20,
        attack!(|it| {
            it.push(it.plain(&it.admin).await?, &b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20), 20)
                .await
        }),
    ),
];

/// So many at a time, each again and again, until the time is over.
async fn attack(target: &Target, lasts: Duration, at_a_time: usize, one: Attack) -> u64 {
    let target = &Target { began: Instant::now(), ..target.clone() };
    let (end, mut attackers) = (Instant::now() + lasts, JoinSet::new());
    for _ in 0..at_a_time {
        let target = target.clone();
        attackers.spawn(async move {
            while let Ok(ended) = timeout_at(end.into(), one(target.clone())).await {
                if ended.is_err() {
                    sleep(Duration::from_millis(1)).await; // It was turned away.
                }
            }
        });
    }
    attackers.join_all().await;
    target.done.swap(0, Ordering::Relaxed)
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Good webhooks, on a thread of their own: their times are not those of the attackers.
struct Good {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Good {
    fn start(target: &Target, form: &Arc<Form>) -> Self {
        let (stop, target, form) = (Arc::new(AtomicBool::new(false)), target.clone(), Arc::clone(form));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            form.pin(GOOD_CORE)?;
            runtime()?.block_on(webhooks(&target, &stopped))
        });
        Self { stop, thread }
    }

    /// How long each took. The handler goes on meanwhile.
    async fn stop(self) -> anyhow::Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        let mut times = ended.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        times.sort_unstable();
        Ok(times)
    }
}

/// One after the other on a connection that is kept, and each fifth on a new one; meanwhile the relay says that it is
/// ready.
async fn webhooks(target: &Target, stopped: &AtomicBool) -> anyhow::Result<Vec<Duration>> {
    let proof = signed("github", SECRET, b"{}")?;
    let lines: Vec<_> = proof.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (mut sender, mut times) = (None, Vec::new());
    // One at the least, after whatever is under way has begun.
    while !stopped.load(Ordering::Relaxed) || times.len() < 10 {
        let began = Instant::now();
        let whole = async {
            if times.len() % 5 == 0 {
                let (fresh, connection) = http1::handshake(TokioIo::new(target.secure().await?)).await?;
                tokio::spawn(connection);
                sender = Some(fresh);
            }
            let sender = sender.as_mut().context("a connection")?;
            sender.ready().await?;
            let answer = sender.send_request(request("POST", "/good", &lines, "{}")).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            ensure!(status == StatusCode::OK && body == "through", "{status} {body:?}");
            Ok(())
        };
        timeout(PATIENCE, whole).await.context("no answer in time")??;
        times.push(began.elapsed());
        if times.len() % 10 == 0 {
            let ready = timeout(PATIENCE, send(&target.admin, request("GET", "/readyz", &[], ""))).await;
            let status = ready.context("no word of health in time")??.status();
            ensure!(status == StatusCode::OK, "/readyz says {status}");
        }
        sleep(PAUSE).await;
    }
    Ok(times)
}

fn at(times: &[Duration], share: f64) -> Duration {
    times[((times.len() as f64 * share) as usize).min(times.len() - 1)]
}

#[tokio::test]
async fn whoever_is_slow_or_floods_spoils_no_good_webhook_and_leaves_nothing_behind() -> anyhow::Result<()> {
    if !allow_open_files(2048).await {
        println!("skipped: this machine allows too few open files");
        return Ok(());
    }
    let form = Arc::new(Form::from_env());
    // The handler is on this thread.
    form.pin(GOOD_CORE)?;
    match form.apart {
        Some(rate) => println!(
            "apart: processor {GOOD_CORE} has the relay, its agents, the handler and good senders, {ATTACKERS_CORE} has \
             the attackers, who do {rate:.0} things a second at most"
        ),
        None => println!(
            "together: attackers, relay and good senders share all processors; RELAY_ABUSE_APART=2000 parts them"
        ),
    }
    let folder = tempfile::tempdir()?;
    let trusted = certificate(folder.path())?;
    let clear = "http_listen = \"127.0.0.1:0\"\npublic_url = \"https://localhost\"\n";
    let config = format!("{clear}{}{ENDPOINTS}", settings(folder.path()));
    let mut relay = Server::start(form.program(), "127.0.0.1:0", &config, &[("HOOK", SECRET)]).await?;
    let large = Bytes::from(vec![b'x'; 8 << 20]);
    let handler = Handler::start(move |request: Request<Incoming>| {
        let answer = if request.uri().path() == "/large" { large.clone() } else { Bytes::from_static(b"through") };
        async move { Response::new(full(answer)) }
    })
    .await?;
    let port = relay.public.rsplit(':').next().context("a port")?;
    let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem").display().to_string());
    let mut agents = Vec::new();
    for name in ["good", "large"] {
        let target = format!("http://{}/{name}", handler.address);
        agents.push(relay.agent(name, &target, &["--name", name, "--relay", &there, "--relay-ca", &root]).await?);
    }
    let target = Target {
        public: relay.public.as_str().into(),
        clear: relay.http.as_str().into(),
        admin: relay.admin.as_str().into(),
        trusted,
        token: relay.token.as_str().into(),
        done: Arc::default(),
        began: Instant::now(),
        rate: form.apart,
    };
    let good = Good::start(&target, &form);
    sleep(form.lasts()).await; // So long there is nobody else.
    let baseline = good.stop().await.context("alone")?;
    let (before, mut most) = (relay.load().await?, 0);
    println!("alone: {} good, p50 {:?}, p99 {:?}", baseline.len(), at(&baseline, 0.5), at(&baseline, 0.99));
    let (mut kinds, mut near) = (0, 0);
    for (name, at_a_time, one) in ATTACKS.into_iter().filter(|(name, ..)| name.contains(&form.only)) {
        for _ in 0..form.times {
            let beside = Beside::run(&mut relay, &target, &form, (at_a_time, one)).await;
            let Beside { done, open, times } = beside.with_context(|| format!("beside {name}"))?;
            ensure!(done > 0, "nobody got anything done: {name}");
            most = most.max(open);
            let p99 = at(&times, 0.99);
            let ratio = p99.as_secs_f64() / at(&baseline, 0.99).as_secs_f64();
            let rate = done as f64 / form.lasts().as_secs_f64();
            println!("{name}: {rate:.0}/s by {at_a_time}; {} good, p99 {p99:?}, {ratio:.1} times as long", times.len());
            (kinds, near) = (kinds + 1, near + usize::from(ratio <= 1.5));
            let lines = relay.log_so_far();
            ensure!(lines.lines().count() <= LOG_LINES, "{name} fill the log:\n{lines}");
            relay.settles(&before).await.with_context(|| format!("after {name}"))?;
        }
    }
    ensure!(kinds > 0, "no kind is called {:?}", form.only);
    println!("beside {near} of {kinds} the p99 was at most 1.5 times as long as alone");
    let peak = usize::try_from(relay.peak_memory()?)? / MIB;
    let ceiling = number(" MiB of memory at most") - (MAX_CONNECTIONS - most) * number(" KiB for each of them") / KIB;
    println!("the most: {peak} MiB; the ceiling of {most} descriptors: {ceiling} MiB");
    ensure!(peak < ceiling, "{peak} MiB");
    ensure!(relay.load().await?.sessions == agents.len(), "an agent was lost");
    Ok(())
}

/// What went on while one kind attacked.
struct Beside {
    /// What the attackers did, and how many descriptors the relay had then.
    done: u64,
    open: usize,
    /// How long each good webhook took.
    times: Vec<Duration>,
}

impl Beside {
    async fn run(
        relay: &mut Server,
        target: &Target,
        form: &Arc<Form>,
        (at_a_time, one): (usize, Attack),
    ) -> anyhow::Result<Self> {
        relay.log_so_far();
        let good = Good::start(target, form);
        // On a thread of their own, too: the handler is on this one.
        let (attackers, own) = (target.clone(), Arc::clone(form));
        let attack = move || {
            own.pin(ATTACKERS_CORE)?;
            let done = runtime()?.block_on(attack(&attackers, own.lasts(), at_a_time, one));
            anyhow::Ok(done)
        };
        let done = tokio::task::spawn_blocking(attack).await??;
        let open = relay.open_files()?;
        Ok(Self { done, open, times: good.stop().await? })
    }
}

#[tokio::test]
async fn a_relay_without_descriptors_keeps_its_agents_and_takes_webhooks_again_at_once() -> anyhow::Result<()> {
    const LIMIT: usize = 256;
    let program =
        Program::behind(Path::new(env!("CARGO_BIN_EXE_demo")), ["prlimit", &format!("--nofile={LIMIT}:{LIMIT}")]);
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
    let relay = Server::start(program, "127.0.0.1:0", config, &[]).await?;
    let handler = Handler::echo().await?;
    let _agent = relay.agent("open", &handler.port(), &[]).await?;
    let before = relay.load().await?;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(&relay.public).await?);
    }
    // Places of silent ones are given to those that come.
    let mut beside = timeout(PATIENCE, Keeper::connect(&relay.public)).await.context("no place")??;
    let answer = timeout(PATIENCE, beside.send(request("POST", "/open", &[], "x"))).await.context("no place")??;
    ensure!(answer.status() == StatusCode::OK);
    let (worked, began) = (relay.cpu()?, Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        ensure!(relay.open_files()? <= LIMIT);
        sleep(Duration::from_millis(100)).await;
    }
    let load = (relay.cpu()? - worked).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("while it is full it takes {:.1} % of a core", load * 100.0);
    ensure!(load < 0.5, "it works for nothing: {load}");
    silent.drain(..200);
    let again = Instant::now();
    let answer = timeout(PATIENCE, send(&relay.public, request("POST", "/open", &[], "x"))).await??;
    println!("after half of them have gone: {:?}", again.elapsed());
    ensure!(answer.status() == StatusCode::OK);
    drop((silent, beside));
    relay.settles(&before).await?;
    ensure!(relay.load().await?.sessions == 1, "its agent was lost");
    Ok(())
}
