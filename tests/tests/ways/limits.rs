//! Limits from end to end: how much reaches the handlers of an endpoint and of an agent, what waits or is refused
//! instead, one agent whose target fails beside another, and who comes back to a long backlog.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use relay_tests::{
    fidelity::wire::Wire,
    handler::{Handler, full},
    process::{PATIENCE, Server},
    sender::{request, send},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// A handler that holds `late` ones until its gate is open, and tells what it was called for and when.
struct Gated {
    handler: Handler,
    calls: mpsc::UnboundedReceiver<(String, Instant)>,
    gate: watch::Sender<bool>,
    /// Most calls at a time.
    most: Arc<AtomicUsize>,
}

impl Gated {
    async fn start() -> Self {
        let (tell, calls) = mpsc::unbounded_channel();
        let (gate, open) = watch::channel(false);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let most_of_all = Arc::clone(&most);
        let handler = Handler::start(move |request| {
            let (tell, mut open) = (tell.clone(), open.clone());
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let body = request.into_body().collect().await.expect("whole").to_bytes();
                let body = String::from_utf8_lossy(&body).into_owned();
                tell.send((body.clone(), Instant::now())).expect("a listener");
                if body == "late" {
                    open.wait_for(|open| *open).await.expect("a gate");
                }
                now.fetch_sub(1, Ordering::SeqCst);
                Response::builder().status(201).body(full(format!("answer to {body}"))).expect("lawful")
            }
        });
        Self { handler: handler.await.expect("a handler"), calls, gate, most: most_of_all }
    }

    async fn call(&mut self) -> (String, Instant) {
        timeout(PATIENCE, self.calls.recv()).await.expect("a call").expect("a handler")
    }
}

async fn relay(mode: &str, keys: &str) -> Server {
    let config = format!(
        "[[endpoint]]\nname = \"open\"\nmode = \"{mode}\"\nverify = \"none\"\nwait_for_agent = \"0s\"\n{keys}\n"
    );
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("a relay")
}

async fn post(relay: &Server, body: &str) -> Response<Bytes> {
    send(&relay.public, request("POST", "/open", &[], body.to_owned())).await.expect("answers")
}

fn id(response: &Response<Bytes>) -> &str {
    response.headers()["relay-event-id"].to_str().expect("text")
}

fn is_ack(response: &Response<Bytes>) -> bool {
    response.status() == StatusCode::OK && response.body().is_empty()
}

/// How many events are in a state.
async fn count(relay: &Server, state: &str) -> usize {
    let (_, listed) = relay.ask(&["event", "list", "--state", state, "--limit", "1000", "--json"]).await.expect("runs");
    listed.lines().count()
}

async fn until_count(relay: &Server, state: &str, wanted: usize) {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = count(relay, state).await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < end, "{now} events are {state}, not {wanted}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn show(relay: &Server, id: &str) -> serde_json::Value {
    let (_, text) = relay.ask(&["event", "show", id, "--json"]).await.expect("runs");
    serde_json::from_str(&text).expect("JSON")
}

fn is_limited(response: &Response<Bytes>) -> u64 {
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["relay-error"], "rate_limited");
    response.headers()["retry-after"].to_str().expect("text").parse().expect("seconds")
}

#[tokio::test]
async fn a_live_endpoint_refuses_what_is_beyond_its_concurrency_and_copies_do_not_count() {
    let relay = relay("live", "concurrency = 1").await;
    let (mut handler, mut watcher) = (Gated::start().await, Gated::start().await);
    let mut agent = relay.agent("open", &handler.handler.port(), &["--name", "serves"]).await.expect("attaches");
    let watches = ["--name", "watches", "--attach", "copy"];
    let _watcher = relay.agent("open", &watcher.handler.port(), &watches).await.expect("attaches");
    let (first, ()) = tokio::join!(post(&relay, "late"), async {
        handler.call().await;
        assert_eq!(is_limited(&post(&relay, "beyond").await), 1);
        agent.line("rate_limited").await.expect("its user hears of it");
        handler.gate.send_replace(true);
    });
    assert_eq!(first.status(), StatusCode::CREATED);
    watcher.call().await; // It has not answered; nobody waits for that.
    assert_eq!(post(&relay, "next").await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_live_endpoint_refuses_what_is_beyond_its_rate_and_says_when_to_come_again() {
    let relay = relay("live", "rate = \"1/h, burst 2\"").await;
    let handler = Gated::start().await;
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    for _ in 0..2 {
        assert_eq!(post(&relay, "hello").await.status(), StatusCode::CREATED);
    }
    let wait_s = is_limited(&post(&relay, "beyond").await);
    assert!((3500..=3600).contains(&wait_s), "{wait_s}");
    // A reload that changes nothing forgets nothing; another rate begins anew.
    let config = relay.config().expect("a config");
    for (rate, status) in [("1/h, burst 2", 429), ("2/h, burst 2", 201)] {
        let mut relay_config = config.replace("1/h, burst 2", rate);
        relay_config.push('\n');
        relay.set_config(&relay_config).expect("written");
        relay.reload().await.expect("reloads");
        let end = Instant::now() + PATIENCE;
        while post(&relay, "again").await.status().as_u16() != status {
            assert!(Instant::now() < end, "{rate}");
        }
    }
}

#[tokio::test]
async fn what_is_beyond_the_rate_of_an_assured_endpoint_waits_without_its_sender() {
    let relay = relay("assured", "rate = \"10/s, burst 2\"").await;
    let mut handler = Gated::start().await;
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let (mut answered, mut ids) = (0, Vec::new());
    for number in 0..12 {
        let response = post(&relay, &number.to_string()).await;
        answered += usize::from(response.status() == StatusCode::CREATED);
        assert!(response.status() == StatusCode::CREATED || is_ack(&response), "{response:?}");
        ids.push(id(&response).to_owned());
    }
    assert!(answered >= 2, "the burst is answered by the handler itself");
    let mut times = Vec::new();
    for _ in 0..12 {
        times.push(handler.call().await.1);
    }
    // Of any four calls in a row two are not the burst's, and those take 100 ms each. (Half of that, since calls may be
    // late on their way.)
    let took = times[11] - times[0];
    assert!(took >= Duration::from_millis(500), "12 calls took {took:?}");
    until_count(&relay, "delivered", 12).await;
    for id in &ids {
        let kept = show(&relay, id).await;
        assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(1), "waiting uses up no attempt: {kept}");
    }
}

#[tokio::test]
async fn what_is_beyond_the_concurrency_waits_in_the_store() {
    let relay = relay("assured", "concurrency = 2").await;
    let mut handler = Gated::start().await;
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let (one, two, ()) = tokio::join!(post(&relay, "late"), post(&relay, "late"), async {
        for _ in 0..2 {
            handler.call().await;
        }
        for number in 0..10 {
            assert!(is_ack(&post(&relay, &number.to_string()).await), "the ack, at once");
        }
        assert_eq!(count(&relay, "pending").await, 10);
        handler.gate.send_replace(true);
    });
    assert_eq!((one.status(), two.status()), (StatusCode::CREATED, StatusCode::CREATED));
    until_count(&relay, "delivered", 12).await;
    assert!(handler.most.load(Ordering::SeqCst) <= 2, "never more at a time");
}

#[tokio::test]
async fn an_agent_gets_no_more_than_its_rate_and_another_one_the_rest() {
    let relay = relay("assured", "").await;
    let (mut slow, mut other) = (Gated::start().await, Gated::start().await);
    let table = format!(
        "name = \"slow\"\n[[endpoint]]\nname = \"open\"\nrate = \"1/h, burst 2\"\ntarget = \"{}\"\n",
        slow.handler.port()
    );
    let _slow = relay.agent_from_file(&table).await.expect("attaches");
    for number in 0..2 {
        assert_eq!(post(&relay, &number.to_string()).await.status(), StatusCode::CREATED);
        slow.call().await;
    }
    let waits = post(&relay, "waits").await;
    assert!(is_ack(&waits));
    let kept = show(&relay, id(&waits)).await;
    assert_eq!((&kept["state"], kept["attempts"].as_array().map(Vec::len)), (&"pending".into(), Some(0)), "{kept}");
    let _other =
        relay.agent("open", &other.handler.port(), &["--name", "other", "--attach", "shared"]).await.expect("attaches");
    assert_eq!(other.call().await.0, "waits");
    assert_eq!(post(&relay, "next").await.body(), "answer to next");
    assert_eq!(other.call().await.0, "next");
    assert!(slow.calls.try_recv().is_err(), "its rate is used up");
}

#[tokio::test]
async fn one_agent_whose_target_fails_is_left_alone_and_the_other_one_serves() {
    let relay = relay("assured", "retry = { schedule = [\"50ms\", \"50ms\", \"50ms\", \"50ms\"] }").await;
    let good = Gated::start().await;
    let gone = Gated::start().await.handler.port(); // Nobody listens there any more.
    let mut serves =
        relay.agent("open", &good.handler.port(), &["--name", "good", "--attach", "shared"]).await.expect("attaches");
    let _fails = relay.agent("open", &gone, &["--name", "bad", "--attach", "shared"]).await.expect("attaches");
    let mut not_answered = 0;
    let mut in_a_row = 0;
    for _ in 0..60 {
        let answered = post(&relay, "hello").await.status() == StatusCode::CREATED;
        not_answered += usize::from(!answered);
        in_a_row = if answered { in_a_row + 1 } else { 0 };
    }
    // Ten failures in a row open a circuit; a probe may be among the rest.
    assert!((1..=12).contains(&not_answered) && in_a_row >= 10, "{not_answered} not answered, {in_a_row} in a row");
    until_count(&relay, "delivered", 60).await;
    // With the good one gone nobody can take it, and its sender does not wait to learn that.
    assert!(serves.stop().await.expect("stops"));
    let waits = post(&relay, "waits").await;
    assert!(is_ack(&waits));
    let _back =
        relay.agent("open", &good.handler.port(), &["--name", "good", "--attach", "shared"]).await.expect("attaches");
    until_count(&relay, "delivered", 61).await;
}

#[tokio::test]
async fn a_long_backlog_begins_gently_after_an_absence_and_after_a_pause() {
    let relay = relay("durable", "").await;
    let mut handler = Gated::start().await;
    for _ in 0..40 {
        assert!(is_ack(&post(&relay, "late").await));
    }
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    for _ in 0..4 {
        handler.call().await;
    }
    assert_eq!((count(&relay, "running").await, count(&relay, "pending").await), (4, 36), "a few to begin with");
    handler.gate.send_replace(true);
    until_count(&relay, "delivered", 40).await;
    assert!(handler.most.load(Ordering::SeqCst) >= 4, "and then more");

    handler.gate.send_replace(false);
    for _ in 0..36 {
        handler.call().await;
    }
    relay.ask(&["endpoint", "pause", "open"]).await.expect("runs");
    for _ in 0..20 {
        post(&relay, "late").await;
    }
    relay.ask(&["endpoint", "resume", "open"]).await.expect("runs");
    for _ in 0..4 {
        handler.call().await;
    }
    assert_eq!((count(&relay, "running").await, count(&relay, "pending").await), (4, 16));
    handler.gate.send_replace(true);
    until_count(&relay, "delivered", 60).await;
}

#[tokio::test]
async fn one_that_waits_is_told_as_one() {
    let relay = relay("assured", "").await;
    let handler = Gated::start().await;
    assert!(is_ack(&post(&relay, "hello").await));
    let mut agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    agent.line("1 webhook waits for open, the oldest since").await.expect("it says what waits");
}

#[tokio::test]
async fn the_memory_of_a_body_is_counted_until_its_attempt_ends() {
    let relay = relay("assured", "deadline = \"200ms\"").await;
    let mut handler = Gated::start().await;
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let before = relay.load().await.expect("a load");
    let response = post(&relay, "late").await;
    assert!(is_ack(&response), "the sender has gone, and the attempt goes on");
    handler.call().await;
    assert!(relay.load().await.expect("a load").body_bytes > before.body_bytes);
    handler.gate.send_replace(true);
    until_count(&relay, "delivered", 1).await;
    relay.settles(&before).await.expect("it is given back");
}

/// Two endpoints whose bodies are collected, and little memory for them.
const NARROW: &str = "[limits]\nbody_budget = \"4MiB\"\nmax_body = \"1MiB\"\n";

fn collecting(name: &str) -> String {
    format!("[[endpoint]]\nname = \"{name}\"\nmode = \"durable\"\nverify = \"none\"\n")
}

/// Begins a request with a body of so many bytes, and waits until the relay asks for it.
async fn announce(relay: &Server, endpoint: &str, from: &str, bytes: usize) -> Wire {
    let mut sender = Wire::connect(&relay.public).await.expect("connects");
    let head = format!(
        "POST /{endpoint} HTTP/1.1\r\nHost: hook.test\r\nX-Forwarded-For: {from}\r\nContent-Length: {bytes}\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    sender.write(head).await.expect("writes");
    let asked = sender.head().await.expect("a head").expect("an answer");
    assert_eq!(asked.status().expect("a status"), 100);
    sender
}

/// Waits until so many bytes are taken.
async fn until_taken(relay: &Server, bytes: usize) {
    let end = Instant::now() + PATIENCE;
    while relay.load().await.expect("a load").body_bytes < bytes {
        assert!(Instant::now() < end, "less than {bytes} bytes are taken");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until no more than so many bytes are taken: what is acknowledged is given back a moment later.
async fn until_left(relay: &Server, bytes: usize) {
    let end = Instant::now() + PATIENCE;
    while relay.load().await.expect("a load").body_bytes > bytes {
        assert!(Instant::now() < end, "more than {bytes} bytes are taken");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The status and the code of a whole webhook of this size. One that is refused midway may not be sent to its end.
async fn whole(relay: &Server, endpoint: &str, from: &str, bytes: usize) -> (u16, String) {
    let mut sender = announce(relay, endpoint, from, bytes).await;
    let _ = sender.write(vec![b'x'; bytes]).await;
    let head = sender.answer("POST").await.expect("an answer").head;
    (head.status().expect("a status"), head.one("relay-error"))
}

#[tokio::test]
async fn memory_is_taken_as_bytes_come_with_a_share_for_each_endpoint_and_each_address() {
    const MIB: usize = 1024 * 1024;
    let config = format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n{NARROW}{}{}{}",
        collecting("one"),
        collecting("two"),
        collecting("three")
    );
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("a relay");
    let before = relay.load().await.expect("a load");
    let (kept, full) = ((200, String::new()), (503, "overloaded".to_owned()));

    // What is only announced takes next to nothing.
    let mut announced = Vec::new();
    for _ in 0..5 {
        announced.push(announce(&relay, "one", "192.0.2.1", MIB).await);
    }
    assert!(relay.load().await.expect("a load").body_bytes < MIB / 8);
    assert_eq!(whole(&relay, "one", "192.0.2.1", MIB).await, kept);
    drop(announced);
    relay.settles(&before).await.expect("all is given back");

    // An address that takes its quarter leaves the rest of the endpoint to others.
    let mut first = announce(&relay, "one", "192.0.2.1", MIB).await;
    first.write(vec![b'x'; MIB - 1]).await.expect("writes");
    until_taken(&relay, MIB).await;
    assert_eq!(whole(&relay, "two", "192.0.2.1", MIB / 2).await, full);
    assert_eq!(whole(&relay, "two", "192.0.2.2", MIB).await, kept);
    until_left(&relay, MIB + MIB / 4).await;

    // An endpoint that is full, of whatever addresses, leaves the rest to others.
    let mut second = announce(&relay, "one", "10.0.0.1", MIB).await;
    second.write(vec![b'x'; MIB / 4]).await.expect("writes");
    until_taken(&relay, MIB + MIB / 4).await;
    assert_eq!(whole(&relay, "one", "10.0.0.2", MIB).await, full);
    assert_eq!(whole(&relay, "two", "10.0.0.2", MIB).await, kept);
    until_left(&relay, 2 * MIB).await;
    assert_eq!(whole(&relay, "three", "192.0.2.3", MIB).await, kept);
    drop((first, second));
    relay.settles(&before).await.expect("all is given back");
    assert_eq!(whole(&relay, "one", "192.0.2.1", MIB).await, kept);
}

#[tokio::test]
async fn heads_that_wait_are_counted() {
    let relay = relay("live", "").await;
    let mut handler = Gated::start().await;
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let before = relay.load().await.expect("a load");
    let large = "a".repeat(40_000);
    let lines = [("x-large", large.as_str())];
    let sent = send(&relay.public, request("POST", "/open", &lines, "late"));
    let (answer, ()) = tokio::join!(sent, async {
        handler.call().await;
        assert!(relay.load().await.expect("a load").body_bytes > before.body_bytes + 40_000);
        handler.gate.send_replace(true);
    });
    assert_eq!(answer.expect("answers").status(), StatusCode::CREATED);
    relay.settles(&before).await.expect("it is given back");
}

#[tokio::test]
async fn a_body_that_outlasts_the_deadline_is_read_on() {
    const SECRET: &str = "It's a Secret to Everybody";
    let config = "[[endpoint]]\nname = \"kept\"\nmode = \"assured\"\nverify = \"none\"\ndeadline = \"300ms\"\n\
         [[endpoint]]\nname = \"live\"\nmode = \"live\"\ndeadline = \"300ms\"\n\
         verify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n\
         [[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\ndeadline = \"300ms\"\n";
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", config, &[("HOOK", SECRET)]).await.expect("a relay");
    let mut handler = Gated::start().await;
    let mut agents = Vec::new();
    for name in ["kept", "live", "open"] {
        agents.push(relay.agent(name, &handler.handler.port(), &["--name", name]).await.expect("attaches"));
    }
    let mut kept = announce(&relay, "kept", "192.0.2.1", 4).await;
    kept.write("la").await.expect("writes");
    let mut live = Wire::connect(&relay.public).await.expect("connects");
    let signed = relay_tests::sender::signed("github", SECRET, b"live").expect("signs");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    live.write(format!("POST /live HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 4\r\n{lines}\r\nli"))
        .await
        .expect("writes");
    // Their deadlines have passed when that of one which began later has.
    assert_eq!(post(&relay, "late").await.status(), StatusCode::GATEWAY_TIMEOUT);
    handler.call().await;

    live.write("ve").await.expect("writes");
    let answer = live.answer("POST").await.expect("an answer");
    assert_eq!((answer.head.status().expect("a status"), &answer.body[..]), (201, &b"answer to live"[..]));
    assert_eq!(handler.call().await.0, "live");

    kept.write("te").await.expect("writes");
    let answer = kept.answer("POST").await.expect("an ack while the handler is at work");
    assert_eq!((answer.head.status().expect("a status"), &answer.body[..]), (200, &b""[..]));
    assert_eq!(handler.call().await.0, "late");
    handler.gate.send_replace(true);
    until_count(&relay, "delivered", 1).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_read_for_so_long_in_all() {
    let config = format!("[limits]\nbody_timeout = \"1s\"\n{}", collecting("one"));
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("a relay");
    let mut sender = announce(&relay, "one", "192.0.2.1", 4).await;
    sender.write("la").await.expect("writes");
    let answer = sender.answer("POST").await.expect("an answer");
    assert_eq!((answer.head.status().expect("a status"), answer.head.one("relay-error")), (408, "body_timeout".into()));
}
