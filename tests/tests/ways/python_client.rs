//! The protocol's second implementation, in Python, against the real relay: what `proto/PROTOCOL.md` says is
//! enough to serve.
//!
//! Skipped with a word where there is no python3.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use relay_tests::{
    handler::{Body, Handler, full},
    process::{Agent, Server},
    sender::{request, send},
};
use tokio::{process::Command, sync::Notify, task::JoinSet, time::sleep};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\ndeadline = \"20s\"\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// `None` where there is no Python.
async fn python(script: &str) -> Option<Command> {
    let version = Command::new("python3").arg("--version").output().await;
    if !version.is_ok_and(|version| version.status.success()) {
        println!("skipped: there is no python3");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(folder().join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

async fn relay() -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", OPEN, &[]).await.expect("starts")
}

/// The Python agent with these arguments, once it is ready.
async fn agent(relay: &Server, arguments: &[&str]) -> Option<Agent> {
    let mut command = python("relay_agent.py").await?;
    command.arg(format!("ws://{}", relay.public)).arg("open").args(arguments).env("RELAY_TOKEN", &relay.token);
    Some(Agent::run(&mut command).await.expect("attaches"))
}

fn bytes(len: usize) -> Bytes {
    (0..len).map(|place| (place % 251) as u8).collect()
}

#[tokio::test]
async fn the_vectors_hold_in_python() {
    let Some(mut command) = python("check_vectors.py").await else { return };
    let vectors = folder().join("../../proto/vectors");
    let output = command.arg(vectors).output().await.expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn bodies_of_every_size_reach_the_handler_and_come_back() {
    let (relay, handler) = (relay().await, Handler::echo().await.expect("listens"));
    let Some(_agent) = agent(&relay, &["--target", &handler.address.to_string()]).await else { return };
    for len in [0, 1, 255, 16_384, 65_536, 65_537, 1_000_000, 5_000_000] {
        let tags = [("x-tag", "one"), ("x-tag", "two")];
        let sent = request("POST", "/open/a%2Fb?q=%20", &tags, bytes(len));
        let response = send(&relay.public, sent).await.expect("answers");
        assert_eq!(response.status(), StatusCode::OK, "{len} bytes: {:?}", response.body().get(..200));
        assert!(*response.body() == bytes(len), "{len} bytes came back as {}", response.body().len());
        assert_eq!(response.headers()["x-seen-target"], "/a%2Fb?q=%20");
        let seen: Vec<_> = response.headers().get_all("x-seen-tag").iter().collect();
        assert_eq!(seen, ["one", "two"]);
    }
    let response = send(&relay.public, request("DELETE", "/open", &[], "")).await.expect("answers");
    assert_eq!(response.headers()["x-seen-method"], "DELETE");
    assert_eq!(response.headers()["x-seen-target"], "/");
}

#[tokio::test]
async fn many_webhooks_at_once_do_not_disturb_each_other() {
    let relay = relay().await;
    let Some(mut agent) = agent(&relay, &["--echo"]).await else { return };
    let mut senders = JoinSet::new();
    for number in 0..100_usize {
        let address = relay.public.clone();
        senders.spawn(async move {
            let body = bytes(number * 3000).slice(number..);
            let response = send(&address, request("POST", "/open", &[], body.clone())).await.expect("answers");
            assert_eq!(response.status(), StatusCode::OK, "{number}: {:?}", response.body().get(..200));
            assert!(*response.body() == body, "the body of {number} came back as another");
        });
    }
    while let Some(outcome) = senders.join_next().await {
        outcome.expect("each is answered");
    }
    assert!(agent.stop().await.expect("drains"), "code 0");
}

#[tokio::test]
async fn a_large_answer_comes_through_the_relays_window() {
    let relay = relay().await;
    let large = |_: Request<Incoming>| async move { Response::new(full(bytes(8_000_000))) };
    let handler = Handler::start(large).await.expect("listens");
    let Some(_agent) = agent(&relay, &["--target", &handler.address.to_string()]).await else { return };
    let response = send(&relay.public, request("GET", "/open", &[], "")).await.expect("answers");
    assert!(*response.body() == bytes(8_000_000), "{} bytes", response.body().len());
}

#[tokio::test]
async fn what_goes_wrong_with_the_handler_has_its_own_answer() {
    let relay = relay().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let Some(mut agent) = agent(&relay, &["--target", &nobody.to_string()]).await else { return };
    let response = send(&relay.public, request("POST", "/open", &[], "x")).await.expect("answers");
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["relay-error"], "handler_unreachable");
    assert!(agent.stop().await.expect("stops"), "code 0");
    let response = send(&relay.public, request("POST", "/open", &[], "x")).await.expect("answers");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "nobody is attached");
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    let relay = relay().await;
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&release));
    let handler = Handler::start(move |request: Request<Incoming>| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            if request.uri().path() == "/slow" {
                tell.notify_one();
                wait.notified().await;
            }
            let answer: Response<Body> = Response::new(full("late"));
            answer
        }
    });
    let handler = handler.await.expect("listens");
    let Some(mut agent) = agent(&relay, &["--target", &handler.address.to_string()]).await else { return };
    let address = relay.public.clone();
    let sent = tokio::spawn(async move { send(&address, request("POST", "/open/slow", &[], "x")).await });
    begun.notified().await;
    agent.signal("-TERM").await.expect("is told");
    // The relay takes no more for it once it has said that it drains.
    loop {
        let answer = send(&relay.public, request("GET", "/open", &[], "")).await.expect("answers");
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    release.notify_one();
    let response = sent.await.expect("no panic").expect("answers");
    assert_eq!(response.body(), "late");
    assert!(agent.rest().await.contains("\"closed\": 0"), "the relay closed once nothing was in flight");
}

#[tokio::test]
async fn a_wrong_token_is_told_at_once() {
    let relay = relay().await;
    let Some(mut command) = python("relay_agent.py").await else { return };
    command.arg(format!("ws://{}", relay.public)).args(["open", "--echo"]).env("RELAY_TOKEN", "rt_wrong-wrong-wrong");
    let output = command.output().await.expect("runs");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("401") && !said.contains("rt_wrong"), "{said}");
}

#[tokio::test]
async fn an_idle_session_lives_and_a_lost_one_comes_back() {
    let mut relay = relay().await;
    let Some(mut agent) = agent(&relay, &["--echo"]).await else { return };
    sleep(Duration::from_secs(12)).await;
    let response = send(&relay.public, request("POST", "/open", &[], "still there")).await.expect("answers");
    assert_eq!(response.body(), "still there", "after two rounds of the heartbeat");
    let listen = relay.public.clone();
    relay.signal("-KILL").await.expect("is killed");
    relay.ended().await.expect("ends");
    relay.start_again(&listen).await.expect("starts again");
    agent.line("\"ready\"").await.expect("is back");
    let response = send(&relay.public, request("POST", "/open", &[], "again")).await.expect("answers");
    assert_eq!(response.body(), "again");
}
