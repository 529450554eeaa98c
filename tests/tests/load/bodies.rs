//! Bodies that are too long for memory: what the relay grows by, that they come out as they went in, and that nothing
//! is left of those that do not come to their end. `RELAY_LONG` in the environment sends 1 GiB in place of 64 MiB.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use relay_schemes::{LongBody, Secret};
use relay_tests::{
    fidelity::wire::Wire,
    handler::{Handler, full},
    process::{PATIENCE, Server},
    sender::{request, send, signed},
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

const MIB: u64 = 1024 * 1024;
const PIECE_BYTES: u64 = 64 * 1024;
const SECRET: &str = "It's a Secret to Everybody";

/// What the relay may grow by for one of them.
const GROWTH_BYTES: u64 = 8 * MIB;

/// How long one may take: the store writes it, and this machine is small.
const LONG: Duration = Duration::from_secs(600);

const ENDPOINTS: &str = "\
    [[endpoint]]\nname = \"live\"\nmode = \"live\"\nmax_body = \"1GiB\"\ndeadline = \"10m\"\n\
    verify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n\
    [[endpoint]]\nname = \"kept\"\nmode = \"durable\"\nmax_body = \"1GiB\"\nattempt_timeout = \"10m\"\n\
    verify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n\
    [[endpoint]]\nname = \"open\"\nmode = \"durable\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"stripe\"\nmode = \"durable\"\nverify = { provider = \"stripe\", secrets = [\"env:HOOK\"] }\n";

/// A body in which every piece differs from the others.
#[derive(Clone, Copy)]
struct Body {
    bytes: u64,
}

impl Body {
    fn piece(self, nth: u64) -> Option<Bytes> {
        let left = self.bytes.checked_sub(nth * PIECE_BYTES).filter(|left| *left > 0)?;
        let words = (0..PIECE_BYTES / 8).map(|word| (nth << 32 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let piece: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        Some(Bytes::from(piece).slice(..usize::try_from(left.min(PIECE_BYTES)).expect("small")))
    }

    fn sha256(self) -> String {
        let mut hash = Context::new(&SHA256);
        self.for_each(&mut |piece| hash.update(piece));
        HEXLOWER.encode(hash.finish().as_ref())
    }

    /// The headers that GitHub would send with it.
    fn signed(self, secret: &str) -> Vec<(String, String)> {
        let scheme = relay_schemes::provider("github").and_then(|row| row.scheme.as_ref()).expect("a row");
        let keys = scheme.keys(&[Secret::new(secret)]).expect("keys");
        let none: [(&str, &str); 0] = [];
        let request = relay_schemes::Request { method: "POST", url: "https://h/", headers: &none, body: b"" };
        scheme.sign_with(&keys, &request, Some(&self), None, 0).expect("signs").headers
    }

    /// Sends it, and returns the answer's status and body.
    async fn post(self, relay: &Server, path: &str, secret: &str) -> Response<Bytes> {
        // A connection that says nothing for so long is closed.
        let signature = self.signed(secret);
        let stream = TcpStream::connect(&relay.public).await.expect("a connection");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let pieces = stream::unfold(0, move |nth| async move {
            Some((Ok::<_, std::io::Error>(Frame::data(self.piece(nth)?)), nth + 1))
        });
        let mut request = Request::post(path).header("host", "relay.test");
        for (name, value) in signature {
            request = request.header(name, value);
        }
        let request = request.header("content-length", self.bytes).body(StreamBody::new(Box::pin(pieces)));
        let answer = timeout(LONG, sender.send_request(request.expect("lawful"))).await.expect("in time");
        let (head, body) = answer.expect("an answer").into_parts();
        Response::from_parts(head, body.collect().await.expect("whole").to_bytes())
    }
}

impl LongBody for Body {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn for_each(&self, each: &mut dyn FnMut(&[u8])) {
        (0..).map_while(|nth| self.piece(nth)).for_each(|piece| each(&piece));
    }
}

/// A relay whose store is in this folder.
async fn relay(folder: &Path, more: &str) -> Server {
    let config = format!("[store]\nurl = \"sqlite:{}/relay.db\"\n{more}\n{ENDPOINTS}", folder.display());
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", &config, &[("HOOK", SECRET)]).await.expect("a relay")
}

/// A handler that answers with the SHA-256 of what it got, and tells it.
async fn hashing() -> (Handler, mpsc::UnboundedReceiver<String>) {
    let (tell, hashes) = mpsc::unbounded_channel();
    let handler = Handler::start(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let (mut hash, mut body) = (Context::new(&SHA256), request.into_body());
            while let Some(frame) = body.frame().await {
                hash.update(&frame.expect("whole").into_data().unwrap_or_default());
            }
            let hash = HEXLOWER.encode(hash.finish().as_ref());
            tell.send(hash.clone()).expect("a listener");
            Response::new(full(hash))
        }
    });
    (handler.await.expect("a handler"), hashes)
}

/// Files that the relay has open in the folder of its bodies, and those that have a name there.
fn files(relay: &Server, folder: &Path) -> (usize, usize) {
    let bodies = folder.join("relay.db-log/bodies");
    let id = relay.id().expect("it runs");
    let open = fs::read_dir(format!("/proc/{id}/fd")).expect("its files");
    let links = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    (
        links.filter(|link: &PathBuf| link.starts_with(&bodies)).count(),
        fs::read_dir(&bodies).expect("its folder").count(),
    )
}

async fn until_files(relay: &Server, folder: &Path, open: usize) {
    let end = Instant::now() + PATIENCE;
    while files(relay, folder).0 != open {
        assert!(Instant::now() < end, "{:?} files, not {open}", files(relay, folder));
        sleep(Duration::from_millis(20)).await;
    }
}

/// What the relay says that long bodies take.
async fn coming(relay: &Server) -> u64 {
    let answer = send(&relay.admin, request("GET", "/metrics", &[], "")).await.expect("answers");
    let text = String::from_utf8(answer.body().to_vec()).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("relay_bodies_coming_bytes "));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number in {text}"))
}

/// The file is there with its first bytes; the others come after it.
async fn until_coming(relay: &Server, fits: impl Fn(u64) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let bytes = coming(relay).await;
        if fits(bytes) {
            return;
        }
        assert!(Instant::now() < end, "{bytes} bytes are coming");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn events(relay: &Server) -> usize {
    let (_, listed) = relay.ask(&["event", "list", "--limit", "1000", "--json"]).await.expect("runs");
    listed.lines().count()
}

/// The beginning of a request with a body of 20 MiB, of which 5 come.
async fn begin(relay: &Server, path: &str) -> Wire {
    let mut wire = Wire::connect(&relay.public).await.expect("connects");
    let head = format!("POST {path} HTTP/1.1\r\nHost: relay.test\r\nContent-Length: {}\r\n\r\n", 20 * MIB);
    wire.write(head).await.expect("sends");
    // A relay that refuses it takes no more.
    let _ = wire.write(vec![b'x'; 5 << 20]).await;
    wire
}

#[tokio::test]
async fn a_long_body_passes_as_it_came_and_takes_little_memory() {
    let body = Body { bytes: if std::env::var_os("RELAY_LONG").is_some() { 1024 * MIB } else { 64 * MIB } };
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(folder.path(), "").await;
    let (handler, mut hashes) = hashing().await;
    let mut agents = Vec::new();
    for endpoint in ["live", "kept"] {
        agents.push(relay.agent(endpoint, &handler.port(), &["--timeout", "10m"]).await.expect("attaches"));
        // Whatever is there once for all has been there.
        assert_eq!(Body { bytes: 1000 }.post(&relay, &format!("/{endpoint}"), SECRET).await.status(), StatusCode::OK);
        timeout(PATIENCE, hashes.recv()).await.expect("a call").expect("a handler");
    }
    let sha256 = body.sha256();
    for (endpoint, agent) in ["live", "kept"].into_iter().zip(&agents) {
        let before = (relay.memory().expect("told"), agent.memory().expect("told"));
        let began = Instant::now();
        let answer = body.post(&relay, &format!("/{endpoint}"), SECRET).await;
        let answered = began.elapsed();
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        assert_eq!(timeout(LONG, hashes.recv()).await.expect("in time").expect("a handler"), sha256);
        if endpoint == "live" {
            assert_eq!(answer.body(), &sha256);
        }
        let grown = (relay.peak_memory().expect("told") - before.0, agent.peak_memory().expect("told") - before.1);
        println!(
            "{endpoint}: {} MiB, answered after {answered:.1?}, delivered after {:.1?}; the relay grew by {} KiB, the agent by {}",
            body.bytes / MIB,
            began.elapsed(),
            grown.0 / 1024,
            grown.1 / 1024
        );
        assert!(grown.0 <= GROWTH_BYTES, "the relay grew by {} KiB", grown.0 / 1024);
        assert!(grown.1 <= GROWTH_BYTES, "the agent grew by {} KiB", grown.1 / 1024);
    }
    until_files(&relay, folder.path(), 0).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_long_body_that_breaks_off_or_proves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut relay = relay(folder.path(), "").await;
    for path in ["/kept", "/live", "/open"] {
        let wire = begin(&relay, path).await;
        until_files(&relay, folder.path(), 1).await;
        assert_eq!(files(&relay, folder.path()).1, 0, "it has no name");
        until_coming(&relay, |bytes| bytes >= 5 * MIB).await;
        drop(wire);
        until_files(&relay, folder.path(), 0).await;
        until_coming(&relay, |bytes| bytes == 0).await;
    }
    for path in ["/kept", "/live"] {
        let answer = Body { bytes: 8 * MIB }.post(&relay, path, "another secret").await;
        assert_eq!(
            (answer.status(), &answer.headers()["relay-error"]),
            (StatusCode::UNAUTHORIZED, &"signature_mismatch".parse().expect("text"))
        );
        until_files(&relay, folder.path(), 0).await;
    }
    let (_, refused) = relay.ask(&["event", "list", "--state", "refused", "--json"]).await.expect("runs");
    assert!(refused.contains(&(8 * MIB).to_string()), "the record says how long it was: {refused}");
    assert_eq!(events(&relay).await, 0);

    let _wire = begin(&relay, "/kept").await;
    until_files(&relay, folder.path(), 1).await;
    relay.signal("-KILL").await.expect("is sent");
    relay.ended().await.expect("ends");
    relay.start_again("127.0.0.1:0").await.expect("starts");
    assert_eq!(files(&relay, folder.path()), (0, 0));
    assert_eq!(events(&relay).await, 0);
}

#[tokio::test]
async fn a_long_body_is_looked_into_where_its_provider_says_something_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(folder.path(), "").await;
    let (handler, mut hashes) = hashing().await;
    let body = format!("{{\"filler\":\"{}\",\"id\":\"evt_1\",\"type\":\"charge.failed\"}}", "x".repeat(3 << 20));
    let headers = signed("stripe", SECRET, body.as_bytes()).expect("signs");
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for _ in 0..2 {
        let answer = send(&relay.public, request("POST", "/stripe", &headers, body.clone())).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    }
    let (_, listed) = relay.ask(&["event", "list", "--json"]).await.expect("runs");
    assert!(listed.lines().count() == 1 && listed.contains("evt_1") && listed.contains("charge.failed"), "{listed}");
    let _agent = relay.agent("stripe", &handler.port(), &[]).await.expect("attaches");
    let mut hash = Context::new(&SHA256);
    hash.update(body.as_bytes());
    let sha256 = HEXLOWER.encode(hash.finish().as_ref());
    assert_eq!(timeout(PATIENCE, hashes.recv()).await.expect("a call").expect("a handler"), sha256);
    until_files(&relay, folder.path(), 0).await;
}

#[tokio::test]
async fn bodies_that_come_take_a_part_of_the_store_and_leave_the_rest_to_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(folder.path(), "max_size = \"32MiB\"").await;
    let mut coming = Vec::new();
    for _ in 0..8 {
        coming.push(begin(&relay, "/open").await);
    }
    // 16 MiB for all that come, of which each holds 5 and takes room for 8.
    let mut refused = 0;
    for mut wire in coming.drain(..) {
        match timeout(Duration::from_millis(500), wire.answer("POST")).await {
            Ok(answer) => {
                let head = answer.expect("an answer").head;
                assert_eq!((head.status().expect("a status"), head.one("relay-error")), (503, "store_full".into()));
                assert_eq!(head.one("retry-after"), "1");
                refused += 1;
            }
            Err(_waits) => {
                assert_eq!(Body { bytes: 900_000 }.post(&relay, "/kept", SECRET).await.status(), StatusCode::OK);
            }
        }
    }
    assert!((5..8).contains(&refused), "{refused} were refused");
    until_files(&relay, folder.path(), 0).await;
    assert_eq!(
        Body { bytes: 2 * MIB }.post(&relay, "/kept", SECRET).await.status(),
        StatusCode::OK,
        "there is room again"
    );
}
