//! Several agents at one endpoint: who serves, who stands by, who watches, and who may.
//!
//! Real processes. Each wait is for a state and has a bound.

use std::{path::Path, time::Duration};

use http::{Response, StatusCode};
use relay_proto::{CloseCode, OfferState, ResponseHead};
use relay_server::agents::token::AgentToken;
use relay_tests::{
    agents::upgrade,
    fidelity::wire::Wire,
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server, run_to_end},
    sender::{request, send},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

async fn relay(config: &str) -> Server {
    Server::start(program(), "127.0.0.1:0", config, &[]).await.expect("a relay")
}

/// A handler that answers with its name.
async fn named(name: &'static str) -> Handler {
    Handler::start(move |_| async move { Response::new(full(name)) }).await.expect("a handler")
}

/// An agent of some name, attached somehow.
async fn agent(relay: &Server, name: &str, handler: &Handler, attach: &[&str]) -> Agent {
    let more = [&["--name", name], attach].concat();
    relay.agent("open", &handler.port(), &more).await.expect("an agent")
}

/// Who answers a sender.
async fn answered_by(relay: &Server) -> String {
    let response = send(&relay.public, request("POST", "/open", &[], "body")).await.expect("answers");
    assert_eq!(response.status(), StatusCode::OK);
    String::from_utf8(response.into_body().to_vec()).expect("text")
}

/// A `[[token]]` and the token itself.
fn token(name: &str, endpoints: &str, rights: &str) -> (String, String) {
    let token = AgentToken::generate().expect("randomness");
    let table = format!(
        "[[token]]\nname = \"{name}\"\nsha256 = [\"{}\"]\nendpoints = [\"{endpoints}\"]\nrights = [{rights}]\n",
        token.hash().to_hex()
    );
    (table, token.expose().to_owned())
}

fn client(relay: &Server, token: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["client", "listen"]).args(arguments);
    command.args(["--output", "json", "--relay", &format!("ws://{}", relay.public)]).env("RELAY_TOKEN", token);
    command
}

#[tokio::test]
async fn shared_agents_get_what_they_have_room_for() {
    let relay = relay(OPEN).await;
    let (calls, mut called) = mpsc::unbounded_channel();
    let holding = |name: &'static str| {
        let calls = calls.clone();
        Handler::start(move |_| {
            let _ = calls.send(name);
            std::future::pending()
        })
    };
    let (small, large) = (holding("small").await.expect("listens"), holding("large").await.expect("listens"));
    let _small = agent(&relay, "small", &small, &["--attach", "shared", "--max-connections", "1"]).await;
    let _large = agent(&relay, "large", &large, &["--attach", "shared", "--max-connections", "3"]).await;
    let mut senders = JoinSet::new();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let address = relay.public.clone();
        senders.spawn(async move { drop(send(&address, request("GET", "/open", &[], "")).await) });
        seen.push(timeout(PATIENCE, called.recv()).await.expect("a handler is called").expect("open"));
    }
    seen.sort_unstable();
    assert_eq!(seen, ["large", "large", "large", "small"]);
}

#[tokio::test]
async fn one_exclusive_agent_serves_and_another_takes_over_when_it_stops_answering() {
    let relay = relay(OPEN).await;
    let (one, two, three) = (named("one").await, named("two").await, named("three").await);
    let mut first = agent(&relay, "one", &one, &["--attach", "exclusive"]).await;
    let mut second = agent(&relay, "two", &two, &["--attach", "exclusive"]).await;
    second.line("\"standby\"").await.expect("it is told that it stands by");
    for _ in 0..5 {
        assert_eq!(answered_by(&relay).await, "one");
    }

    first.signal("-STOP").await.expect("stopped");
    second.line("\"active\"").await.expect("it is told that it is active");
    assert_eq!(answered_by(&relay).await, "two");

    first.signal("-CONT").await.expect("goes on");
    first.line("\"standby\"").await.expect("it comes back and stands by");
    assert_eq!(answered_by(&relay).await, "two");

    let third = agent(&relay, "three", &three, &["--takeover"]).await;
    second.line("\"standby\"").await.expect("it is told that another one took over");
    assert_eq!(answered_by(&relay).await, "three");
    drop(third);
    second.line("\"active\"").await.expect("the one that is attached for the longest time");
    assert_eq!(answered_by(&relay).await, "two");
}

#[tokio::test]
async fn a_newcomer_does_not_wait_for_the_heartbeat_of_a_frozen_one() {
    let relay = relay(OPEN).await;
    let (one, two) = (named("one").await, named("two").await);
    let first = agent(&relay, "one", &one, &["--attach", "exclusive"]).await;
    first.signal("-STOP").await.expect("stopped");
    let mut second = agent(&relay, "two", &two, &["--attach", "exclusive"]).await;
    second.line("\"active\"").await.expect("the first one does not answer");
    assert_eq!(answered_by(&relay).await, "two");
}

#[tokio::test]
async fn an_agent_that_took_over_once_does_not_do_so_at_each_reconnect() {
    let relay = relay(OPEN).await;
    let (one, two) = (named("one").await, named("two").await);
    let link = relay_tests::link::Link::start(&relay.public).await.expect("a link");
    let address = format!("ws://{}", link.address);
    let mut first = agent(&relay, "one", &one, &["--takeover", "--relay", &address]).await;
    let mut second = agent(&relay, "two", &two, &["--attach", "exclusive"]).await;
    second.line("\"standby\"").await.expect("the first is active");
    link.set(relay_tests::link::State::Cut);
    second.line("\"active\"").await.expect("the first is away");
    link.set(relay_tests::link::State::Up);
    first.line("\"standby\"").await.expect("it came back, and asks for nothing that it had not");
    assert_eq!(answered_by(&relay).await, "two");
}

#[tokio::test]
async fn a_copy_is_seen_and_never_answered() {
    let relay = relay(OPEN).await;
    let one = named("one").await;
    let (copies, mut copied) = mpsc::unbounded_channel();
    let watcher = Handler::start(move |request| {
        let copies = copies.clone();
        async move {
            let body = http_body_util::BodyExt::collect(request.into_body()).await.expect("a whole body").to_bytes();
            let _ = copies.send(body);
            Response::new(full("the watcher"))
        }
    })
    .await
    .expect("listens");
    let _serves = agent(&relay, "one", &one, &["--attach", "shared"]).await;
    let mut watches = agent(&relay, "watcher", &watcher, &["--attach", "copy"]).await;
    for _ in 0..3 {
        assert_eq!(answered_by(&relay).await, "one");
        assert_eq!(timeout(PATIENCE, copied.recv()).await.expect("in time").expect("a copy"), "body");
    }
    let line = watches.line("\"exchange\"").await.expect("it prints what it saw");
    assert!(line.contains("\"status\":200"), "{line}");
}

#[tokio::test]
async fn a_copy_is_whole_though_the_handler_wanted_no_more() {
    let relay = relay(OPEN).await;
    let one = named("one").await;
    let (copies, mut copied) = mpsc::unbounded_channel();
    let watcher = Handler::start(move |request| {
        let copies = copies.clone();
        async move {
            let body = http_body_util::BodyExt::collect(request.into_body()).await.map(|body| body.to_bytes()).ok();
            let _ = copies.send(body);
            Response::new(full("the watcher"))
        }
    })
    .await
    .expect("listens");
    let _serves = agent(&relay, "one", &one, &["--attach", "shared"]).await;
    let _watches = agent(&relay, "watcher", &watcher, &["--attach", "copy"]).await;
    let mut sender = TcpStream::connect(&relay.public).await.expect("connects");
    sender.write_all(b"POST /open HTTP/1.1\r\nHost: relay\r\nContent-Length: 11\r\n\r\nfirst").await.expect("sends");
    let mut answer = Vec::new();
    while !answer.ends_with(b"one") {
        answer.push(timeout(PATIENCE, sender.read_u8()).await.expect("in time").expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    sender.write_all(b", rest").await.expect("sends");
    let copy = timeout(PATIENCE, copied.recv()).await.expect("in time").expect("a copy");
    assert_eq!(copy.expect("a whole body"), "first, rest");
}

#[tokio::test]
async fn listen_beside_production_gets_copies_and_says_so() {
    let relay = relay(OPEN).await;
    let (production, laptop) = (named("production").await, named("laptop").await);
    let file = format!("name = \"production\"\n[[endpoint]]\nname = \"open\"\ntarget = \"{}\"\n", production.port());
    let mut serves = relay.agent_from_file(&file).await.expect("production");
    let mut beside = agent(&relay, "laptop", &laptop, &[]).await;
    let line = beside.line("\"state\":\"copy\"").await.expect("it says so");
    assert!(line.contains("\"endpoint\":\"open\""), "{line}");
    for _ in 0..5 {
        assert_eq!(answered_by(&relay).await, "production");
        beside.line("\"exchange\"").await.expect("it sees it");
    }
    // Who asks for it takes part.
    let _takes_part = agent(&relay, "second", &laptop, &["--attach", "shared"]).await;
    let mut answers = std::collections::BTreeSet::new();
    while answers.len() < 2 {
        answers.insert(answered_by(&relay).await);
    }
    assert!(serves.stop().await.expect("stops"), "code 0");
}

#[tokio::test]
async fn two_machines_of_the_same_name_and_token_never_fence_each_other() {
    let relay = relay(OPEN).await;
    let (one, two) = (named("one").await, named("two").await);
    let mut first = agent(&relay, "same", &one, &["--attach", "shared"]).await;
    let mut second = agent(&relay, "same", &two, &["--attach", "shared"]).await;
    let mut counts = [0, 0];
    for _ in 0..100 {
        let who = usize::from(answered_by(&relay).await == "two");
        counts[who] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 20), "both get their share: {counts:?}");
    for agent in [&mut first, &mut second] {
        assert!(agent.stop().await.expect("stops"), "code 0");
        let said = agent.rest().await;
        assert!(!said.contains("reconnecting"), "{said}");
    }
}

#[tokio::test]
async fn a_namesake_that_does_not_answer_gets_nothing_more() {
    let relay = relay(OPEN).await;
    let (one, two) = (named("one").await, named("two").await);
    let first = agent(&relay, "same", &one, &["--attach", "shared"]).await;
    first.signal("-STOP").await.expect("stopped");
    let _second = agent(&relay, "same", &two, &["--attach", "shared"]).await;
    for _ in 0..10 {
        assert_eq!(answered_by(&relay).await, "two", "at once, not after the first one's heartbeat");
    }
    first.signal("-CONT").await.expect("goes on");
    let both = async { while answered_by(&relay).await != "one" {} };
    timeout(PATIENCE, both).await.expect("it answers again, and gets its share");
}

#[tokio::test]
async fn tokens_open_what_their_patterns_and_rights_say() {
    let endpoint = |name: &str| format!("[[endpoint]]\nname = \"{name}\"\nmode = \"live\"\nverify = \"none\"\n");
    let (alice, alices) = token("alice", "alice-*", "\"attach\", \"read\"");
    let (reads, reader) = token("reader", "*", "\"read\"");
    let (serves, server) = token("server", "*", "\"attach\"");
    let config = [endpoint("alice-github"), endpoint("bob-github"), alice, reads, serves];
    let relay = relay(&config.concat()).await;
    let handler = named("handler").await;
    let port = handler.port();
    let refused = async |token: &str, arguments: &[&str], words: &str| {
        let (code, said) = run_to_end(&mut client(&relay, token, arguments), "").await.expect("ends");
        assert!(code == 3 && said.contains(words), "{arguments:?}: {code} {said}");
    };
    refused(&alices, &[&port, "bob-github"], "no endpoint bob-github for this token; it may attach to: alice-github")
        .await;
    refused(&alices, &[&port, "nothing"], "it may attach to: alice-github").await;
    refused(&reader, &[&port, "bob-github", "--attach", "shared"], "may only watch bob-github").await;
    refused(&reader, &[&port, "bob-github", "--takeover"], "may only watch bob-github").await;
    refused(&server, &[&port, "bob-github", "--attach", "copy"], "lacks the right `read`").await;
    refused(&server, &[&port], "name one of this token's endpoints: alice-github, bob-github").await;
    refused("rt_unknown_unknown_unknown", &[&port, "bob-github"], "unauthorized").await;

    let mut only = Agent::run(&mut client(&relay, &alices, &[&port])).await.expect("alice's only endpoint");
    let mut watcher = Agent::run(&mut client(&relay, &reader, &[&port, "alice-github"])).await.expect("may watch");
    watcher.line("\"state\":\"copy\"").await.expect("what is left to it without the right to attach");
    let response = send(&relay.public, request("POST", "/alice-github/x", &[], "")).await.expect("answers");
    assert_eq!(response.into_body(), "handler");
    for agent in [&mut only, &mut watcher] {
        let line =
            timeout(Duration::from_secs(10), agent.line("\"exchange\"")).await.expect("in time").expect("a line");
        assert!(line.contains("\"endpoint\":\"alice-github\""), "{line}");
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_between_upgrade_and_hello_lets_nobody_in() {
    let (fired, secret) = token("fired", "*", "\"attach\", \"read\"");
    let mut relay = relay(&[OPEN, &fired].concat()).await;
    let waiting = upgrade(&relay.public, &secret, None).await.expect("its token is right");
    let config = relay.config().expect("reads").replace(&fired, "");
    relay.set_config(&config).expect("writes");
    relay.reload().await.expect("a signal");
    relay.log_line("was taken over").await.expect("it says so");
    let (welcome, close) =
        timeout(PATIENCE, waiting.say_hello("open")).await.expect("in time").expect("it is told why");
    assert_eq!(welcome.endpoints[0].state, OfferState::Refused { code: "unauthorized".into() });
    assert_eq!(close.code, CloseCode::Unauthorized);
    assert_eq!(send(&relay.public, request("POST", "/open", &[], "")).await.expect("answers").status(), 503);
}

#[tokio::test]
async fn an_answer_of_another_length_than_its_head_says_is_broken_and_leaves_the_connection_in_step() {
    let (table, secret) = token("one", "open", "\"attach\"");
    let kept = "[[endpoint]]\nname = \"open\"\nverify = \"none\"\non_failure = \"pass\"\n";
    let relay = relay(&format!("{kept}{table}")).await;
    for (said, status) in [("10", 502), ("3", 502), ("0", 502), ("5", 200)] {
        let head = ResponseHead::new(200, [("content-length", said)].into_iter().collect());
        let agent = upgrade(&relay.public, &secret, None).await.expect("the token is good");
        let agent = agent.answer("open", head, "hello".into()).await.expect("a welcome");
        let mut sender = Wire::connect(&relay.public).await.expect("connects");
        for (target, status) in [("open", status), ("elsewhere", 404)] {
            let ask = format!("POST /{target} HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 2\r\n\r\nok");
            sender.write(ask).await.expect("writes");
            let got = sender.answer("POST").await.expect("an answer");
            assert_eq!(got.head.status().expect("a status"), status, "{said}: {got:?}");
        }
        drop(agent);
    }
}

#[tokio::test]
async fn beyond_the_sessions_that_may_be_an_agent_is_turned_away_before_its_upgrade() {
    let (small, secret) = token("small", "*", "\"attach\"");
    let small = small + "max_sessions = 1\n";
    let relay = relay(&["[limits]\nmax_sessions = 3\n", OPEN, &small].concat()).await;
    let refused = async |token: &str| {
        let head = upgrade(&relay.public, token, None).await.err().expect("there is no room").to_string();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nretry-after: 10\r\n"), "{head}");
    };
    let own = upgrade(&relay.public, &secret, None).await.expect("a seat");
    refused(&secret).await;
    let others = (
        upgrade(&relay.public, &relay.token, None).await.expect("another token's"),
        upgrade(&relay.public, &relay.token, None).await.expect("the last one"),
    );
    refused(&relay.token).await;
    drop((own, others));
    let again = async {
        while upgrade(&relay.public, &secret, None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("what had said nothing is counted until it is gone, and not longer");
}

#[tokio::test]
async fn events_go_to_agents_that_take_their_type_and_no_other() {
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\n\
        verify = { provider = \"gitlab-token\", secrets = [\"env:GITLAB\"] }\n";
    let relay = Server::start(program(), "127.0.0.1:0", config, &[("GITLAB", "secret")]).await.expect("a relay");
    let (pushes, pulls) = (named("pushes").await, named("pulls").await);
    let ask = async |kind: &str| {
        let request = request("POST", "/open", &[("x-gitlab-token", "secret"), ("x-gitlab-event", kind)], "body");
        send(&relay.public, request).await.expect("answers")
    };
    let shared = ["--attach", "shared"];
    let mut first = agent(&relay, "pushes", &pushes, &[&shared[..], &["-e", "Push Hook"]].concat()).await;
    let _second = agent(&relay, "pulls", &pulls, &[&shared[..], &["--events", "Merge *,Release Hook"]].concat()).await;
    for (kind, by) in
        [("Push Hook", "pushes"), ("Merge Request Hook", "pulls"), ("Release Hook", "pulls"), ("Push Hook", "pushes")]
    {
        assert_eq!(ask(kind).await.body(), by, "{kind}");
    }
    let unwanted = ask("Note Hook").await;
    assert_eq!(unwanted.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unwanted.headers()["relay-error"], "event_type_unwanted");
    assert!(unwanted.headers().contains_key("retry-after"));
    first.line("event_type_unwanted").await.expect("the agent hears of it");
    // One that takes all gets what the others leave.
    let rest = named("rest").await;
    let _third = agent(&relay, "rest", &rest, &shared).await;
    assert_eq!(ask("Note Hook").await.body(), "rest");
}
