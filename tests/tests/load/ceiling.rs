//! The memory ceiling of a relay with default limits: what strangers can fill is filled at once, and the most that the
//! relay ever held stays below the number in the guide "Running a relay".

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use relay_server::agents::token::AgentToken;
use relay_tests::{
    agents::Crowd,
    handler::{Handler, full},
    process::{Server, allow_open_files},
    sender::{request, signed},
    tls::{certificate, client, connect, settings},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

const GUIDE: &str = include_str!("../../../docs/running.md");
pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

/// Connections whose heads are not whole, where this machine allows so many. They have to come within `header_timeout`.
const HEADS: usize = 3000;

/// All other connections.
const OTHERS: usize = 2500;

/// Places of the listener in the clear.
const CLEAR: usize = 512;

/// Streams of news that the admin token may have, and tokens with as many as each may have of the rest.
const ADMIN_STREAMS: usize = 16;
const WATCHING_TOKENS: usize = 12;
const TOKEN_STREAMS: usize = 4;

/// Tokens that do what they may not, and kinds of that which the audit log tells apart.
const BUSY_TOKENS: usize = 40;
const DEEDS: usize = 64;

/// `max_connections`, unless it is set.
pub(super) const MAX_CONNECTIONS: usize = 10_000;

const ENDPOINTS: &str = "\
    [[endpoint]]\nname = \"held\"\nmode = \"live\"\nverify = \"none\"\ndeadline = \"2m\"\n\
    [[endpoint]]\nname = \"large\"\nmode = \"live\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"marked\"\nmode = \"live\"\nverify = { provider = \"stripe\", secrets = [\"env:HOOK\"] }\n\
    [[endpoint]]\nname = \"signed\"\nmode = \"durable\"\nverify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n\
    [[endpoint]]\nname = \"kept\"\nmode = \"durable\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"idle\"\nmode = \"live\"\nverify = \"none\"\n";

type Stream = TlsStream<TcpStream>;
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The number that stands in the guide in front of these words.
pub(super) fn number(words: &str) -> usize {
    let (before, _) = GUIDE.split_once(words).unwrap_or_else(|| panic!("the guide does not say {words:?}"));
    let digits: String = before.rsplit(' ').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number before {words:?}"))
}

/// A relay, and whom its senders trust.
#[derive(Clone)]
struct There {
    address: Arc<str>,
    trusted: CertificateDer<'static>,
}

impl There {
    async fn connect(&self, alpn: &str) -> std::io::Result<Stream> {
        connect(&self.address, &self.trusted, alpn.as_bytes()).await
    }

    /// Opens connections and sends `bytes` on each, as far as they are taken; those that are there.
    async fn open(&self, count: usize, alpn: &'static str, bytes: Vec<u8>) -> Vec<Stream> {
        let (mut opening, gate, bytes) = (JoinSet::new(), Arc::new(Semaphore::new(64)), Bytes::from(bytes));
        for _ in 0..count {
            let (there, bytes, gate) = (self.clone(), bytes.clone(), Arc::clone(&gate));
            opening.spawn(async move {
                let _turn = gate.acquire_owned().await.ok()?;
                let mut stream = there.connect(alpn).await.ok()?;
                let _ = timeout(Duration::from_secs(1), stream.write_all(&bytes)).await;
                Some(stream)
            });
        }
        opening.join_all().await.into_iter().flatten().collect()
    }

    /// Opens connections of HTTP/2 with requests whose bodies do not end and whose answers are not read.
    async fn streams(&self, connections: usize, streams: usize, path: &str, body: usize) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let Ok(stream) = self.connect("h2").await else { break };
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1024);
            let (sender, connection) = builder.handshake::<_, Body>(TokioIo::new(stream)).await.expect("HTTP/2");
            tasks.push(tokio::spawn(async move { drop(connection.await) }));
            for _ in 0..streams {
                let request = Request::post(format!("https://localhost/{path}")).body(unfinished(body));
                let (mut sender, request) = (sender.clone(), request.expect("lawful"));
                tasks.push(tokio::spawn(async move {
                    let _answer = sender.send_request(request).await;
                    std::future::pending::<()>().await;
                }));
            }
        }
        tasks
    }

    /// Sends requests over eight connections.
    async fn statuses(&self, requests: Vec<Request<Full<Bytes>>>) -> Vec<u16> {
        let mut senders = JoinSet::new();
        for part in requests.chunks(requests.len().div_ceil(8)).map(<[_]>::to_vec) {
            let there = self.clone();
            senders.spawn(async move {
                let stream = there.connect("http/1.1").await.expect("a connection");
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
                tokio::spawn(connection);
                let mut statuses = Vec::new();
                for request in part {
                    let answer = sender.send_request(request).await.expect("an answer");
                    statuses.push(answer.status().as_u16());
                    answer.into_body().collect().await.expect("whole");
                }
                statuses
            });
        }
        senders.join_all().await.concat()
    }

    /// Sends requests; how many got this status.
    async fn requests(&self, requests: Vec<Request<Full<Bytes>>>, status: u16) -> usize {
        self.statuses(requests).await.into_iter().filter(|one| *one == status).count()
    }
}

/// A stream of news over the public listener or the admin one; nothing is read but its beginning.
async fn watch<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, base: &str, token: &str) -> S {
    let asks = format!(
        "GET {base}/stream?types=rows,agents,endpoints,figures HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(asks.as_bytes()).await.expect("asks");
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.expect("an answer");
    assert_eq!(begin, *b"HTTP/1.1 200", "of a stream");
    stream
}

/// So many bytes of a body that goes on, and does not come.
fn unfinished(bytes: usize) -> Body {
    let pieces = stream::iter(0..bytes.div_ceil(16 * KIB)).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 16 * KIB]))));
    StreamBody::new(pieces.chain(stream::pending())).boxed_unsync()
}

fn head(path: &str, more: &str) -> Vec<u8> {
    format!("POST /{path} HTTP/1.1\r\nHost: relay.test\r\n{more}").into_bytes()
}

/// A head without its end.
fn part_of_head(bytes: usize) -> Vec<u8> {
    head("held", &format!("A: {}", "a".repeat(bytes)))
}

/// The beginning of a request whose body does not end.
fn part_of_body(path: &str, bytes: usize) -> Vec<u8> {
    let mut request = head(path, "Content-Length: 26214400\r\n\r\n");
    request.resize(request.len() + bytes, b'x');
    request
}

/// HTTP/2 up to a head that is not whole: three frames of many small lines.
fn part_of_h2() -> Vec<u8> {
    let frame = |kind: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, stream], payload].concat()
    };
    let lines = b"\x00\x01a\x08bbbbbbbb".repeat(1300);
    let (headers, continuation) = (frame(1, 1, &lines), frame(9, 1, &lines));
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, &[]), headers, continuation.clone(), continuation]
        .concat()
}

/// Connections with the beginning of a TLS handshake that would be 60 KiB.
async fn handshakes(address: &str, count: usize) -> Vec<TcpStream> {
    let mut begun = Vec::new();
    let mut hello = b"\x16\x03\x01\x40\x00\x01\x00\xf0\x00".to_vec();
    hello.resize(5 + 16 * KIB, 0);
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(&hello).await.expect("is taken");
        begun.push(stream);
    }
    begun
}

/// A pipe that takes what fits into it, and whose end nobody reads.
fn unread_pipe(path: &Path) -> File {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(made.success(), "no pipe can be made");
    OpenOptions::new().read(true).write(true).open(path).expect("both ends")
}

/// Tokens that may see one endpoint and do nothing: their tables, and what each shows.
fn tokens() -> (String, Vec<String>) {
    let (mut tables, mut shown) = (String::new(), Vec::new());
    for number in 0..WATCHING_TOKENS.max(BUSY_TOKENS) {
        let token = AgentToken::generate().expect("random");
        let digest = token.hash().to_hex();
        tables += &format!(
            "[[token]]\nname = \"t{number}\"\nsha256 = [\"{digest}\"]\nendpoints = [\"kept\"]\nrights = [\"read\"]\n"
        );
        shown.push(token.expose().to_owned());
    }
    (tables, shown)
}

#[tokio::test]
async fn everything_that_strangers_fill_at_once_stays_below_the_number_in_the_guide() {
    let heads = if allow_open_files((HEADS + OTHERS) as u64).await { HEADS } else { 0 };
    if heads == 0 && !allow_open_files(OTHERS as u64).await {
        return println!("skipped: this machine allows too few open files");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = certificate(folder.path()).expect("a certificate");
    let unread = unread_pipe(&folder.path().join("access.log"));
    let (tables, tokens) = tokens();
    // A log that nobody reads, and a collector that is away.
    let watched = format!(
        "[log]\naccess = \"file:{}/access.log\"\n[telemetry]\notlp = \"http://127.0.0.1:9\"\n",
        folder.path().display()
    );
    let clear = "http_listen = \"127.0.0.1:0\"\npublic_url = \"https://localhost\"\n";
    let config = [clear, &settings(folder.path()), &watched, &tables, ENDPOINTS].concat();
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[("HOOK", "a secret")]).await.expect("starts");
    let there = There { address: relay.public.as_str().into(), trusted };
    let before = relay.open_files().expect("told");
    let mib = |bytes: u64| usize::try_from(bytes).expect("fits") / MIB;
    let most = Cell::new(0);
    let told = |what: &str| {
        most.set(most.get().max(relay.open_files().expect("told") - before));
        println!("{what}: {} MiB", mib(relay.peak_memory().expect("told")));
    };
    told("at the start");

    let handler = Handler::start(|request: Request<Incoming>| async move {
        match request.uri().path() {
            "/held" => std::future::pending().await,
            "/large" => Response::new(full(vec![b'x'; 8 * MIB])),
            _ => Response::new(full("thanks")),
        }
    });
    let handler = handler.await.expect("a handler");
    let (port, root) = (relay.public.rsplit(':').next().expect("a port"), folder.path().join("cert.pem"));
    let (url, root) = (format!("wss://localhost:{port}"), root.display().to_string());
    let flags = ["--relay", &url, "--relay-ca", &root, "--max-connections", "1000"];
    let mut agents = Vec::new();
    for endpoint in ["held", "large", "marked"] {
        let target = format!("http://{}/{endpoint}", handler.address);
        agents.push(relay.agent(endpoint, &target, &flags).await.expect("attaches"));
    }
    let tls = client(&there.trusted, b"http/1.1").expect("a client");
    let crowd = Crowd::connect(&relay.public, &relay.token, "idle", 100, Some(tls)).await.expect("all attach");
    told(&format!("{} idle agents", crowd.len()));

    let mut watchers = (Vec::new(), Vec::new());
    let admin = relay.admin_token().expect("a token");
    for _ in 0..ADMIN_STREAMS {
        let stream = TcpStream::connect(&relay.admin).await.expect("connects");
        watchers.0.push(watch(stream, "/api/v1", admin.trim()).await);
    }
    for token in tokens.iter().take(WATCHING_TOKENS) {
        for _ in 0..TOKEN_STREAMS {
            let stream = there.connect("http/1.1").await.expect("connects");
            watchers.1.push(watch(stream, "/_relay/v1", token).await);
        }
    }
    told(&format!("{} watchers that never read", watchers.0.len() + watchers.1.len()));

    let long = "o".repeat(1000);
    let forbidden = |token: &String| -> Vec<_> {
        let bearer = format!("Bearer {token}");
        let one = |deed: usize| {
            request("DELETE", &format!("/_relay/v1/endpoints/{deed}{long}"), &[("authorization", &*bearer)], "")
        };
        (0..DEEDS).map(one).collect()
    };
    let deeds = there.requests(tokens.iter().take(BUSY_TOKENS).flat_map(forbidden).collect(), 403).await;
    assert_eq!(deeds, BUSY_TOKENS * DEEDS, "each is refused, and noted");
    told(&format!("{deeds} deeds that the audit log tells apart"));

    let kept = (0..800).map(|_| request("POST", "/kept", &[], vec![b'x'; 32 * KIB]));
    told(&format!("{} events wait", there.requests(kept.collect(), 200).await));
    let refused = (0..700).map(|_| request("POST", "/signed", &[], vec![b'x'; 60 * KIB]));
    told(&format!("{} refused requests of 60 KiB", there.requests(refused.collect(), 401).await));
    let signed = |number: u32| {
        let body = format!("{{\"id\":\"evt_{number}\"}}");
        let headers = signed("stripe", "a secret", body.as_bytes()).expect("signs");
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        request("POST", "/marked", &headers, body)
    };
    let marked = there.requests((1..1000).map(signed).collect(), 200).await;
    told(&format!("{marked} marks against repeats"));

    let large = (
        there.open(100, "http/1.1", head("large", "Content-Length: 0\r\n\r\n")).await,
        there.streams(10, 20, "large", 0).await,
    );
    told(&format!("{} answers of 8 MiB that nobody reads, and 200 over HTTP/2", large.0.len()));
    let visitor = format!("User-Agent: {}\r\nContent-Length: 0\r\n\r\n", "u".repeat(256));
    let pipelined = there.open(50, "http/1.1", head("none", &visitor).repeat(5000)).await;
    told(&format!("{} times 5,000 requests whose answers nobody reads", pipelined.len()));
    let held =
        (there.open(500, "http/1.1", part_of_body("held", 400 * KIB)).await, there.streams(40, 10, "held", MIB).await);
    told(&format!("{} live bodies that no handler reads, and 400 over HTTP/2", held.0.len()));
    let h2 = there.open(300, "h2", part_of_h2()).await;
    told(&format!("{} heads over HTTP/2 that are not whole", h2.len()));
    assert!((100..=256).contains(&h2.len()), "there are so many places for HTTP/2, and others have some of them");
    let signed_bodies = there.open(8, "http/1.1", part_of_body("signed", 20 * MIB)).await;
    let kept_bodies = there.open(8, "http/1.1", part_of_body("kept", 20 * MIB)).await;
    told(&format!("{} bodies of 20 MiB that are not whole", signed_bodies.len() + kept_bodies.len()));
    let begun = handshakes(&relay.public, 500).await;
    told(&format!("{} handshakes that are not whole", begun.len()));
    let mut clear = Vec::new();
    while clear.len() < CLEAR {
        let mut stream = TcpStream::connect(&relay.http).await.expect("a connection");
        stream.write_all(&part_of_head(8000)).await.expect("is taken");
        clear.push(stream);
    }
    told(&format!("{} heads in the clear that are not whole", clear.len()));
    let short = there.open(heads * 2 / 3, "http/1.1", part_of_head(8000)).await;
    told(&format!("{} heads of 8 KiB that are not whole", short.len()));
    let long = there.open(heads / 3, "http/1.1", part_of_head(60_000)).await;
    told(&format!("{} heads of 60 KiB that are not whole, or found no room", long.len()));

    let good = there.statuses(vec![signed(0)]).await;
    assert!(
        matches!(good[..], [200 | 429 | 503]),
        "a good webhook gets its answer, or is told to come again: {good:?}"
    );
    println!("{} connections at most; {:?} now", most.get(), relay.load().await.expect("told"));
    let peak = mib(relay.peak_memory().expect("told"));
    drop((
        large,
        pipelined,
        held,
        h2,
        signed_bodies,
        kept_bodies,
        begun,
        clear,
        short,
        long,
        crowd,
        agents,
        watchers,
        unread,
    ));
    // The number in the guide is for all connections that there may be.
    let missing = MAX_CONNECTIONS.saturating_sub(most.get()) * number(" KiB for each of them") / KIB;
    let ceiling = number(" MiB of memory at most") - missing;
    println!("the most: {peak} MiB; the ceiling of so many connections: {ceiling} MiB");
    assert!(peak < ceiling);
}
