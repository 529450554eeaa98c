//! Restarts, reloads and stops of the server while it works.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use relay_tests::{
    handler::Handler,
    process::{Agent, PATIENCE, Server},
    sender::{request, send},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// A relay on a socket that outlives it, and who starts it again.
struct Activated {
    supervisor: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Activated {
    async fn start(config: &Path) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/activate.py");
        let mut supervisor = Command::new("python3")
            .arg(script)
            .arg(program())
            .args(["server", "serve", "--listen", "fd:public", "--config"])
            .arg(config)
            .env("RELAY_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 runs");
        let mut lines = BufReader::new(supervisor.stdout.take().expect("piped")).lines();
        let port = lines.next_line().await.expect("reads").expect("a port");
        Self { supervisor, lines, address: format!("127.0.0.1:{port}") }
    }

    /// The process id of the next start.
    async fn started(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("in time").expect("reads").expect("a line");
        line.strip_prefix("started ").expect("a start").to_owned()
    }

    async fn stop(mut self) {
        drop(self.supervisor.stdin.take());
        timeout(PATIENCE, self.supervisor.wait()).await.expect("in time").expect("ends");
    }
}

async fn kill(signal: &str, process: &str) {
    assert!(Command::new("kill").args([signal, process]).status().await.expect("runs").success());
}

/// Sends at `per_second` until told to stop: how many were answered with 200, and every other end.
async fn load(address: String, per_second: u32, stop: Arc<AtomicBool>) -> (u32, Vec<String>) {
    let mut pace = interval(Duration::from_secs(1) / per_second);
    let (mut senders, mut answered, mut others) = (JoinSet::new(), 0, Vec::new());
    let mut count = |ended: Result<anyhow::Result<StatusCode>, tokio::task::JoinError>| match ended.expect("runs") {
        Ok(StatusCode::OK) => answered += 1,
        Ok(status) => others.push(status.to_string()),
        Err(error) => others.push(format!("{error:#}")),
    };
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let address = address.clone();
        senders.spawn(async move { Ok(send(&address, request("POST", "/open", &[], "body")).await?.status()) });
        while let Some(ended) = senders.try_join_next() {
            count(ended);
        }
    }
    while let Some(ended) = senders.join_next().await {
        count(ended);
    }
    (answered, others)
}

#[tokio::test]
async fn a_restart_under_load_refuses_no_connection_and_fails_no_sender() {
    if Command::new("python3").arg("--version").output().await.is_err() {
        return println!("skipped: python3 is not there to hold the socket");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let token = relay_server::agents::token::AgentToken::generate().expect("randomness");
    let config = directory.path().join("relay.toml");
    let text = format!(
        "version = 1\n[server]\nadmin = \"127.0.0.1:0\"\n{OPEN}wait_for_agent = \"20s\"\n[[token]]\nname = \"t\"\nsha256 = [\"{}\"]\n\
         endpoints = [\"*\"]\n",
        token.hash().to_hex()
    );
    std::fs::write(&config, text).expect("writes");
    let mut relay = Activated::start(&config).await;
    let mut process = relay.started().await;
    let handler = Handler::echo().await.expect("a handler");
    let mut agent =
        Agent::start(program(), &relay.address, token.expose(), "open", &handler.port(), &[]).await.expect("an agent");

    let stop = Arc::new(AtomicBool::new(false));
    // Half of the 1,024 places of those who wait for agents are one endpoint's: enough for eight seconds without one.
    let sending = tokio::spawn(load(relay.address.clone(), 60, Arc::clone(&stop)));
    for _ in 0..3 {
        kill("-TERM", &process).await;
        process = relay.started().await;
        agent.line("\"ready\"").await.expect("it is back");
    }
    stop.store(true, Ordering::Relaxed);
    let (answered, others) = sending.await.expect("runs");
    assert!(others.is_empty(), "{answered} were answered, but: {:?}", &others[..others.len().min(10)]);
    assert!(answered >= 50, "only {answered} were sent: the restarts were too quick to show anything");
    relay.stop().await;
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_what_is_in_flight() {
    let mut server = Server::start(program(), "127.0.0.1:0", OPEN, &[]).await.expect("a relay");
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    let handler = Handler::start(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        std::future::pending()
    })
    .await
    .expect("a handler");
    let _agent = server.agent("open", &handler.port(), &[]).await.expect("an agent");
    let public = server.public.clone();
    let waiting = tokio::spawn(async move { send(&public, request("GET", "/open", &[], "")).await });
    timeout(PATIENCE, async {
        while calls.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the handler is called");
    server.terminate().await.expect("a signal");
    server.log_line("stopping").await.expect("it says so");
    assert!(TcpStream::connect(&server.public).await.is_err() || !waiting.is_finished(), "it still waits");
    server.terminate().await.expect("a signal");
    server.log_line("stopping at once").await.expect("it says so");
    assert!(server.ended().await.expect("it ends"));
    let ended = waiting.await.expect("runs").map(|response| response.status());
    assert!(!ended.as_ref().is_ok_and(StatusCode::is_success), "nobody answered, but the sender got {ended:?}");
}

#[tokio::test]
async fn a_broken_config_keeps_the_old_one() {
    let mut server = Server::start(program(), "127.0.0.1:0", OPEN, &[]).await.expect("a relay");
    server.expect_errors("the config was not taken over");
    let handler = Handler::echo().await.expect("a handler");
    let _agent = server.agent("open", &handler.port(), &[]).await.expect("an agent");
    let good = server.config().expect("reads");
    server.set_config(&good.replace("verify = \"none\"", "verify = \"nobody\"")).expect("writes");
    server.reload().await.expect("a signal");
    let line = server.log_line("was not taken over").await.expect("it says so");
    assert!(line.contains("endpoint.open.verify"), "{line}");
    let response = send(&server.public, request("GET", "/open", &[], "")).await.expect("answers");
    assert_eq!(response.status(), StatusCode::OK);
    server.set_config(&good.replace("name = \"open\"", "name = \"other\"")).expect("writes");
    server.reload().await.expect("a signal");
    server.log_line("was taken over").await.expect("it says so");
    let response = send(&server.public, request("GET", "/open", &[], "")).await.expect("answers");
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}
