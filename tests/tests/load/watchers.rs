//! Those who watch come and go, some of whom never read: the relay's memory stays as it is, and nothing of them is left.
//!
//! A short form by itself; `RELAY_SOAK=3600` is for how many seconds they go on.

use std::{path::Path, time::Duration};

use relay_tests::{
    process::Server,
    sender::{request, send},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

/// The journal is full before it counts.
const CONFIG: &str =
    "[limits]\njournal_budget = \"1MiB\"\n[[endpoint]]\nname = \"live\"\nmode = \"live\"\nverify = \"none\"\n";

/// As many as the admin listener has streams.
const WATCHERS: usize = 16;
const WEBHOOKS: usize = 20;

/// Rounds of the short form, and those after which every buffer was in use.
const ROUNDS: usize = 16;
const WARM: usize = 4;

/// What an allocator may keep more at the one moment than at the other.
const SPARE_BYTES: u64 = 6 << 20;

const PATIENCE: Duration = Duration::from_secs(30);

/// A stream of the admin listener's, and its beginning read.
async fn watch(relay: &Server, token: &str) -> TcpStream {
    let question = format!(
        "GET /api/v1/stream?types=rows,agents,endpoints,figures HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\r\n",
        relay.admin
    );
    let end = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(&relay.admin).await.expect("connects");
        stream.write_all(question.as_bytes()).await.expect("asks");
        let mut begin = vec![0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut begin)).await.expect("in time").expect("reads");
        if begin[..read].starts_with(b"HTTP/1.1 200 ") {
            return stream;
        }
        // Those of the round before give their places back once it is known that they have left.
        assert!(begin.starts_with(b"HTTP/1.1 429 ") && Instant::now() < end, "{}", String::from_utf8_lossy(&begin));
        tokio::task::yield_now().await;
    }
}

async fn round(relay: &Server, token: &str) {
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        watchers.push(watch(relay, token).await);
    }
    let body = "x".repeat(4096);
    for _ in 0..WEBHOOKS {
        let sent = send(&relay.public, request("POST", "/live", &[], body.clone())).await.expect("answers");
        assert_eq!(sent.status(), 503, "nobody serves it, which is told as well");
    }
    // Every other one never reads.
    for stream in watchers.iter_mut().step_by(2) {
        let mut news = vec![0; 64 * 1024];
        let read = timeout(PATIENCE, stream.read(&mut news)).await.expect("there is news").expect("reads");
        assert!(read > 0, "the stream goes on");
    }
}

#[tokio::test]
async fn watchers_that_come_and_go_leave_nothing_behind() {
    let soak = std::env::var("RELAY_SOAK").ok().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    if soak.is_none() {
        println!("the short form; RELAY_SOAK=3600 has it go on for so many seconds");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", CONFIG, &[]).await.expect("a relay");
    let token = relay.admin_token().expect("a token");
    round(&relay, token.trim()).await;
    let before = relay.load().await.expect("says so");
    for _ in 0..WARM {
        round(&relay, token.trim()).await;
    }
    let (warm, begun, mut rounds) = (relay.memory().expect("is there"), Instant::now(), 0);
    while soak.map_or(rounds < ROUNDS, |soak| begun.elapsed() < soak) {
        round(&relay, token.trim()).await;
        rounds += 1;
    }
    let after = relay.memory().expect("is there");
    println!("{rounds} rounds of {WATCHERS} watchers: {} KiB, and {} KiB before", after / 1024, warm / 1024);
    relay.settles(&before).await.expect("nothing of them is left");
    assert!(after <= warm + SPARE_BYTES, "{after} bytes after {rounds} rounds, and {warm} before");
}
