//! What happens when links die, processes freeze, senders vanish and lines are slow.
//!
//! Real processes and real time: each wait is for a state and has a bound. Longer forms (60 s freezes) run
//! with `RELAY_LONG=1`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use relay_tests::{
    handler::{Body, Handler, full},
    link::{Link, State},
    process::{Agent, Load, PATIENCE, Server},
    sender::{request, send},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

/// Both sides take each other for dead after ten seconds of silence; a second is for this machine.
const NOTICED: Duration = Duration::from_millis(11_000);

/// After the repair the agent is back within this.
const HEALED: Duration = Duration::from_secs(5);

async fn relay() -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", OPEN, &[]).await.expect("a relay")
}

/// An agent that reaches the relay over a link.
async fn agent_over(link: &Link, relay: &Server, handler: &Handler) -> Agent {
    let address = format!("ws://{}", link.address);
    relay.agent("open", &handler.port(), &["--relay", &address]).await.expect("an agent")
}

/// What the relay has under way after one exchange, when all is quiet.
async fn at_rest(relay: &Server) -> Load {
    eventually("an exchange", async || ask(relay).await != StatusCode::SERVICE_UNAVAILABLE).await;
    let mut last = relay.load().await.expect("told");
    eventually("rest", async || {
        let now = relay.load().await.expect("told");
        std::mem::replace(&mut last, now) == now
    })
    .await;
    last
}

async fn ask(relay: &Server) -> StatusCode {
    send(&relay.public, request("GET", "/open", &[], "")).await.expect("answers").status()
}

/// How long a freeze lasts: beyond what either side takes for death.
fn freeze() -> Duration {
    if std::env::var_os("RELAY_LONG").is_some() { Duration::from_secs(60) } else { Duration::from_secs(13) }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} did not come true"));
}

#[tokio::test]
async fn a_frozen_link_is_noticed_by_both_sides_and_healed_after_its_repair() {
    let (mut relay, handler) = (relay().await, Handler::echo().await.expect("a handler"));
    let link = Link::start(&relay.public).await.expect("a link");
    let mut agent = agent_over(&link, &relay, &handler).await;
    relay.log_line("an agent attached").await.expect("it attaches");
    let before = at_rest(&relay).await;
    let frozen = Instant::now();
    link.set(State::Frozen);
    agent.line("\"reconnecting\"").await.expect("the agent notices");
    assert!(frozen.elapsed() < NOTICED, "the agent noticed after {:?}", frozen.elapsed());
    let left = relay.log_line("an agent left").await.expect("the relay notices");
    assert!(frozen.elapsed() < NOTICED, "the relay noticed after {:?}", frozen.elapsed());
    assert!(left.contains("HeartbeatTimeout"), "{left}");
    assert_eq!(ask(&relay).await, StatusCode::SERVICE_UNAVAILABLE);
    link.set(State::Up);
    let repaired = Instant::now();
    agent.line("\"ready\"").await.expect("it comes back");
    assert!(repaired.elapsed() < HEALED, "back after {:?}", repaired.elapsed());
    assert_eq!(ask(&relay).await, StatusCode::OK);
    relay.settles(&before).await.expect("nothing is left");
    relay.log_line("an agent attached").await.expect("once");
    relay.terminate().await.expect("a signal");
    let rest = relay.log_line("stopping").await.expect("nobody else came");
    assert!(!rest.contains("attached"));
}

#[tokio::test]
async fn a_stopped_agent_loses_its_route_and_comes_back_once() {
    let (mut relay, handler) = (relay().await, Handler::echo().await.expect("a handler"));
    let mut agent = relay.agent("open", &handler.port(), &[]).await.expect("an agent");
    let before = at_rest(&relay).await;
    let stopped = Instant::now();
    agent.signal("-STOP").await.expect("a signal");
    relay.log_line("an agent left").await.expect("the relay notices");
    assert!(stopped.elapsed() < NOTICED, "noticed after {:?}", stopped.elapsed());
    sleep(freeze().saturating_sub(stopped.elapsed())).await;
    agent.signal("-CONT").await.expect("a signal");
    let awake = Instant::now();
    agent.line("\"ready\"").await.expect("it comes back");
    assert!(awake.elapsed() < HEALED, "back after {:?}", awake.elapsed());
    assert_eq!(ask(&relay).await, StatusCode::OK);
    relay.settles(&before).await.expect("nothing is left");
}

#[tokio::test]
async fn a_stopped_relay_is_left_and_found_again() {
    let (relay, handler) = (relay().await, Handler::echo().await.expect("a handler"));
    let mut agent = relay.agent("open", &handler.port(), &[]).await.expect("an agent");
    let before = at_rest(&relay).await;
    let stopped = Instant::now();
    relay.signal("-STOP").await.expect("a signal");
    agent.line("\"reconnecting\"").await.expect("the agent notices");
    assert!(stopped.elapsed() < NOTICED, "noticed after {:?}", stopped.elapsed());
    sleep(freeze().saturating_sub(stopped.elapsed())).await;
    relay.signal("-CONT").await.expect("a signal");
    agent.line("\"ready\"").await.expect("it comes back");
    eventually("an answer", async || ask(&relay).await == StatusCode::OK).await;
    relay.settles(&before).await.expect("nothing is left");
}

#[tokio::test]
async fn a_short_pause_of_either_side_is_not_taken_for_death() {
    let (relay, handler) = (relay().await, Handler::echo().await.expect("a handler"));
    let link = Link::start(&relay.public).await.expect("a link");
    let mut agent = agent_over(&link, &relay, &handler).await;
    for _ in 0..2 {
        link.set(State::Frozen);
        sleep(Duration::from_secs(4)).await;
        link.set(State::Up);
        assert_eq!(ask(&relay).await, StatusCode::OK);
    }
    assert!(agent.stop().await.expect("it stops"), "by itself, and with code 0");
    let rest = agent.rest().await;
    assert!(!rest.contains("reconnecting"), "{rest}");
}

#[tokio::test]
async fn a_cut_link_breaks_what_is_under_way_and_heals() {
    let relay = relay().await;
    let reached = Arc::new(Notify::new());
    let reach = Arc::clone(&reached);
    let handler = Handler::start(move |request: Request<Incoming>| {
        let reach = Arc::clone(&reach);
        async move {
            if request.uri().path() == "/slow" {
                reach.notify_one();
                sleep(Duration::from_secs(60)).await;
            }
            Response::new(full("done"))
        }
    })
    .await
    .expect("a handler");
    let link = Link::start(&relay.public).await.expect("a link");
    let mut agent = agent_over(&link, &relay, &handler).await;
    let before = at_rest(&relay).await;
    let public = relay.public.clone();
    let slow = tokio::spawn(async move { send(&public, request("GET", "/open/slow", &[], "")).await });
    timeout(PATIENCE, reached.notified()).await.expect("the handler is called");
    link.set(State::Cut);
    let broken = timeout(PATIENCE, slow).await.expect("at once").expect("runs").expect("answers");
    assert_eq!(broken.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(broken.headers()["relay-error"], "agent_lost");
    link.set(State::Up);
    agent.line("\"reconnecting\"").await.expect("it says so");
    agent.line("\"ready\"").await.expect("it comes back");
    assert_eq!(ask(&relay).await, StatusCode::OK);
    relay.settles(&before).await.expect("nothing is left");
}

#[tokio::test]
async fn a_slow_line_under_a_large_body_does_not_fail_the_heartbeat() {
    let relay = relay().await;
    let handler = Handler::start(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Response::new(full(body.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string()))
    })
    .await
    .expect("a handler");
    let link = Link::start(&relay.public).await.expect("a link");
    let mut agent = agent_over(&link, &relay, &handler).await;
    link.set(State::Slow(64 * 1024));
    let body = Bytes::from(vec![7; 1024 * 1024]);
    let sent = Instant::now();
    let response = send(&relay.public, request("PUT", "/open", &[], body)).await.expect("answers");
    assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, (7 * 1024 * 1024).to_string().as_bytes()));
    assert!(sent.elapsed() > Duration::from_secs(15), "the line was not slow: {:?}", sent.elapsed());
    agent.stop().await.expect("it stops");
    let rest = agent.rest().await;
    assert!(!rest.contains("reconnecting"), "{rest}");
}

/// Never reads the body of `/stall`; answers everything else.
async fn stalling() -> Handler {
    Handler::start(|request: Request<Incoming>| async move {
        if request.uri().path() == "/stall" {
            std::future::pending::<()>().await;
        }
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Response::<Body>::new(full(body))
    })
    .await
    .expect("a handler")
}

#[tokio::test]
async fn a_stalled_stream_beside_a_hundred_busy_ones_holds_up_none_of_them() {
    let (relay, handler) = (relay().await, stalling().await);
    let _agent = relay.agent("open", &handler.port(), &["--max-connections", "200"]).await.expect("an agent");
    let before = at_rest(&relay).await;
    let mut stalled = TcpStream::connect(&relay.public).await.expect("connects");
    stalled
        .write_all(b"POST /open/stall HTTP/1.1\r\nHost: h.test\r\nContent-Length: 20000000\r\n\r\n")
        .await
        .expect("sends");
    // Fill every buffer on the way until nothing more is taken.
    let piece = vec![1; 64 * 1024];
    let mut taken = 0;
    while let Ok(sent) = timeout(Duration::from_millis(500), stalled.write_all(&piece)).await {
        sent.unwrap_or_else(|error| panic!("after {taken} bytes: {error}"));
        taken += piece.len();
    }
    let mut busy = JoinSet::new();
    for _ in 0..100 {
        let public = relay.public.clone();
        busy.spawn(async move {
            for _ in 0..5 {
                let body = Bytes::from(vec![2; 100_000]);
                let response = send(&public, request("POST", "/open", &[], body)).await.expect("answers");
                assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 100_000));
            }
        });
    }
    timeout(PATIENCE, busy.join_all()).await.expect("nobody waits for the stalled one");
    drop(stalled);
    relay.settles(&before).await.expect("nothing is left of the stalled one");
}

#[tokio::test]
async fn storms_of_cancelled_requests_disturb_nobody_and_leave_nothing() {
    let relay = relay().await;
    let (begun, more) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let (count, go_on) = (Arc::clone(&begun), Arc::clone(&more));
    let handler = Handler::start(move |request: Request<Incoming>| {
        let (count, go_on) = (Arc::clone(&count), Arc::clone(&go_on));
        async move {
            match request.uri().path() {
                "/storm" => {
                    count.fetch_add(1, Ordering::Relaxed);
                    std::future::pending::<()>().await;
                }
                "/calm" => go_on.notified().await,
                _ => {}
            }
            Response::new(full("done"))
        }
    })
    .await
    .expect("a handler");
    let agent = relay.agent("open", &handler.port(), &["--max-connections", "300"]).await.expect("an agent");
    assert_eq!(ask(&relay).await, StatusCode::OK);
    let (before, agents_files) = (at_rest(&relay).await, agent.open_files().expect("told"));
    let public = relay.public.clone();
    let calm = tokio::spawn(async move { send(&public, request("GET", "/open/calm", &[], "")).await });
    for round in 1..=5_u32 {
        let mut senders = Vec::new();
        for _ in 0..256 {
            let mut sender = TcpStream::connect(&relay.public).await.expect("connects");
            sender.write_all(b"GET /open/storm HTTP/1.1\r\nHost: h.test\r\n\r\n").await.expect("sends");
            senders.push(sender);
        }
        if round % 2 == 1 {
            let due = 256 * round.div_ceil(2);
            eventually("the handler is called", async || begun.load(Ordering::Relaxed) >= due).await;
        }
        drop(senders); // All at once; in every other round before the handler saw them.
        assert_eq!(ask(&relay).await, StatusCode::OK, "round {round}");
    }
    more.notify_one();
    let calm = timeout(PATIENCE, calm).await.expect("in time").expect("runs").expect("answers");
    assert_eq!((calm.status(), &calm.body()[..]), (StatusCode::OK, &b"done"[..]));
    relay.settles(&before).await.expect("nothing is left");
    eventually("the agent closing what it had opened", async || agent.open_files().expect("told") <= agents_files)
        .await;
}

#[tokio::test]
async fn a_relay_that_asks_for_patience_gets_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let turn_away = tokio::spawn(async move {
        let mut attempts = Vec::new();
        while attempts.len() < 2 {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            attempts.push(Instant::now());
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await.expect("reads");
            let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(busy).await.expect("answers");
        }
        attempts[1] - attempts[0]
    });
    let relay = relay().await;
    let address = format!("ws://{address}");
    let arguments = ["--relay", address.as_str()];
    let connecting = relay.agent("open", "1", &arguments);
    tokio::select! {
        pause = turn_away => {
            let pause = pause.expect("runs");
            assert!(pause >= Duration::from_secs(3) && pause < Duration::from_secs(8), "{pause:?}");
        }
        _ = connecting => panic!("it is not ready"),
    }
}
