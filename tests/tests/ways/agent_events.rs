//! What a developer at an agent sees of kept events: lists, replays to one agent alone, catching up, skipping.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use relay_server::agents::token::AgentToken;
use relay_tests::{
    handler::{Handler, full},
    link::{Link, State},
    process::{Agent, PATIENCE, Server, run_to_end},
    sender::{request, send, signed},
};
use serde_json::Value;
use tokio::{
    process::Command,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");

/// A token of its own, as the config has it.
struct Token {
    clear: String,
    table: String,
}

fn token(name: &str, endpoints: &str, rights: &str) -> Token {
    let token = AgentToken::generate().expect("randomness");
    let hash = token.hash().to_hex();
    let table = format!(
        "[[token]]\nname = \"{name}\"\nsha256 = [\"{hash}\"]\nendpoints = [\"{endpoints}\"]\nrights = [{rights}]\n"
    );
    Token { clear: token.expose().to_owned(), table }
}

fn endpoint(name: &str) -> String {
    format!("[[endpoint]]\nname = \"{name}\"\nmode = \"assured\"\nverify = \"none\"\nwait_for_agent = \"0s\"\n")
}

async fn relay(config: &str) -> Server {
    Server::start(Path::new(PROGRAM), "127.0.0.1:0", config, &[("HOOK", SECRET)]).await.expect("a relay")
}

/// A handler that tells of each call, with a status of its own.
struct Told {
    handler: Handler,
    calls: mpsc::UnboundedReceiver<(Parts, Bytes)>,
}

impl Told {
    async fn start(status: u16) -> Self {
        let (tell, calls) = mpsc::unbounded_channel();
        let handler = Handler::start(move |request| {
            let tell = tell.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                tell.send((head, body)).expect("a listener");
                Response::builder().status(status).header("x-own", "1").body(full("ok")).expect("lawful")
            }
        });
        Self { handler: handler.await.expect("a handler"), calls }
    }

    async fn call(&mut self) -> (Parts, String) {
        let (head, body) = timeout(PATIENCE, self.calls.recv()).await.expect("a call").expect("a handler");
        (head, String::from_utf8_lossy(&body).into_owned())
    }

    fn is_idle(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }
}

fn line<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name).map(|value| value.to_str().expect("text"))
}

/// Runs `relay-client` with these words.
async fn client(relay: &Server, token: &str, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("client").args(words).args(["--relay", &format!("ws://{}", relay.public)]).env("RELAY_TOKEN", token);
    run_to_end(&mut command, "").await.expect("it ends")
}

async fn listen(relay: &Server, token: &str, endpoint: &str, handler: &Told, more: &[&str]) -> Agent {
    let (program, port) = (Path::new(PROGRAM), handler.handler.port());
    Agent::start(program, &relay.public, token, endpoint, &port, more).await.expect("attaches")
}

async fn post(relay: &Server, endpoint: &str, body: &str) -> String {
    let response = send(&relay.public, request("POST", &format!("/{endpoint}"), &[], body.to_owned())).await;
    let response = response.expect("answers");
    assert_eq!(response.status(), StatusCode::OK);
    response.headers()["relay-event-id"].to_str().expect("text").to_owned()
}

async fn ask(relay: &Server, token: &str, method: &str, path: &str, more: &[(&str, &str)]) -> Response<Bytes> {
    let bearer = format!("Bearer {token}");
    let headers = [&[("authorization", bearer.as_str())], more].concat();
    send(&relay.public, request(method, path, &headers, "")).await.expect("answers")
}

/// What the store knows of an event, once `holds` does.
async fn event(relay: &Server, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, text) = relay.ask(&["event", "show", id, "--json"]).await.expect("runs");
        let event: Value = serde_json::from_str(&text).unwrap_or_default();
        if code == 0 && holds(&event) {
            return event;
        }
        assert!(Instant::now() < end, "event {id} stayed like this: {code} {text}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["state"] == state
}

#[tokio::test]
async fn a_token_reads_its_own_endpoints_and_all_others_are_as_if_they_were_not() {
    let (alice, mute) = (token("alice", "a-*", "\"attach\", \"read\""), token("mute", "a-*", "\"attach\""));
    let hosts = endpoint("a-own") + "hosts = [\"hook.test\"]\n";
    let relay = relay(&[endpoint("a-x"), endpoint("b-x"), hosts, alice.table, mute.table].concat()).await;
    let (own, other) = (post(&relay, "a-x", "mine").await, post(&relay, "b-x", "theirs").await);
    let unknown = format!("{}00000000", &own[..own.len() - 8]);

    let (code, listed) = client(&relay, &alice.clear, &["event", "list", "--json"]).await;
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((code, listed.len()), (0, 1), "{listed:?}");
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&own.as_str().into(), &"pending".into()));
    let (code, words) = client(&relay, &alice.clear, &["event", "list", "a-x", "--since", "1h", "--text", "min"]).await;
    assert!(code == 0 && words.contains(&own) && words.contains("PENDING a-x"), "{code} {words}");
    let (code, words) = client(&relay, &alice.clear, &["event", "list", "a-x", "--state", "dead"]).await;
    assert_eq!((code, words.as_str()), (0, ""));
    let (code, body) = client(&relay, &alice.clear, &["event", "show", &own, "--body"]).await;
    assert_eq!((code, body.as_str()), (0, "mine"));
    let (code, words) = client(&relay, &alice.clear, &["event", "show", &own]).await;
    assert!(code == 0 && words.contains("why: waits_for_agent"), "{code} {words}");

    // Another team's event, one that does not exist, and a lookup by a sender's id: not to be told apart.
    for path in ["", "/body", "/replay?name=x"] {
        let method = if path.starts_with("/replay") { "POST" } else { "GET" };
        let mut answers = Vec::new();
        for id in [other.as_str(), unknown.as_str(), "evt_1"] {
            let path = format!("/_relay/v1/events/{id}{path}");
            let answer = ask(&relay, &alice.clear, method, &path, &[]).await;
            // Where it happened is what was asked.
            answers.push((answer.status(), String::from_utf8_lossy(answer.body()).replace(id, "ID")));
        }
        assert_eq!(answers[0].0, StatusCode::NOT_FOUND, "{path}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
    let (code, words) = client(&relay, &alice.clear, &["event", "show", &other]).await;
    assert!(code == 4 && words.contains("not_found"), "{code} {words}");
    let lists = ["b-x", "none"].map(|name| format!("/_relay/v1/events?endpoint={name}"));
    let [theirs, none] = [&lists[0], &lists[1]].map(async |path| ask(&relay, &alice.clear, "GET", path, &[]).await);
    let (theirs, none) = tokio::join!(theirs, none);
    assert_eq!((theirs.status(), theirs.body()), (StatusCode::NOT_FOUND, none.body()));

    // Who asks, and how.
    let list = "/_relay/v1/events";
    let status = async |token: &str, method: &str, path: &str, more: &[(&str, &str)]| {
        ask(&relay, token, method, path, more).await.status().as_u16()
    };
    assert_eq!(status("rt_wrong", "GET", list, &[]).await, 401);
    assert_eq!(status(&mute.clear, "GET", list, &[]).await, 403, "it lacks the right `read`");
    assert_eq!(status(&alice.clear, "GET", list, &[("origin", "https://evil.test")]).await, 403, "a page");
    assert_eq!(status(&alice.clear, "DELETE", &format!("{list}/{own}"), &[]).await, 405);
    assert_eq!(status(&alice.clear, "GET", &format!("{list}/{own}/replay"), &[]).await, 405);
    assert_eq!(status(&alice.clear, "GET", &format!("{list}?limit=many"), &[]).await, 400);
    assert_eq!(status(&alice.clear, "GET", &format!("{list}?text={}", "x".repeat(5000)), &[]).await, 400);
    assert_eq!(status(&alice.clear, "GET", &format!("{list}x"), &[]).await, 404);
    let answer = ask(&relay, &alice.clear, "GET", &format!("{list}?limit=1000000"), &[]).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
    assert!(!answer.headers().keys().any(|name| name.as_str().starts_with("access-control")));
    // An endpoint's own host is the endpoint's, with every path.
    let bearer = format!("Bearer {}", alice.clear);
    let at_host = http::Request::get(list).header("host", "hook.test").header("authorization", bearer);
    let answer = send(&relay.public, at_host.body(Bytes::new().into()).expect("lawful")).await.expect("answers");
    assert_eq!(answer.headers()["relay-error"], "agent_unavailable");
    // Twenty wrong tokens slow down the next wrong one of this address, as for agents that attach; a right one passes.
    for _ in 0..25 {
        status("rt_guess", "GET", list, &[]).await;
    }
    assert_eq!(status("rt_guess", "GET", list, &[]).await, 429);
    assert_eq!(status(&alice.clear, "GET", list, &[]).await, 200);
}

#[tokio::test]
async fn a_long_body_comes_in_bounded_parts() {
    let relay = relay(&endpoint("open")).await;
    let body: String = (0..80_000).map(|n| format!("{n:010}")).collect();
    let id = post(&relay, "open", &body).await;
    let part = ask(&relay, &relay.token, "GET", &format!("/_relay/v1/events/{id}/body?offset=10"), &[]).await;
    assert_eq!((part.body().len(), &part.headers()["relay-body-size"]), (256 * 1024, &"800000".parse().unwrap()));
    assert_eq!(&part.body()[..], &body.as_bytes()[10..10 + 256 * 1024]);
    let (code, whole) = client(&relay, &relay.token, &["event", "show", &id, "--body"]).await;
    assert!(code == 0 && whole == body, "{code} {}", whole.len());
}

#[tokio::test]
async fn a_replay_goes_to_ones_own_agent_alone_and_changes_nothing() {
    let strong = token("strong", "*", "\"attach\", \"read\", \"replay\"");
    let relay = relay(&[endpoint("open"), strong.table].concat()).await;
    let (mut one, mut two) = (Told::start(200).await, Told::start(418).await);
    let id = {
        let _one = listen(&relay, &relay.token, "open", &one, &["--name", "one"]).await;
        post(&relay, "open", "hello").await
    };
    one.call().await;
    let before = event(&relay, &id, is("delivered")).await;
    let (code, words) = client(&relay, &relay.token, &["event", "replay", &id, "--name", "two"]).await;
    assert!(code == 1 && words.contains("start `relay-client listen` first"), "{code} {words}");

    let _one = listen(&relay, &relay.token, "open", &one, &["--name", "one", "--attach", "shared"]).await;
    let mut second = listen(&relay, &relay.token, "open", &two, &["--name", "two", "--attach", "copy"]).await;
    let (code, words) = client(&relay, &relay.token, &["event", "replay", &id, "--name", "two", "--json"]).await;
    let done: Value = serde_json::from_str(&words).expect("JSON");
    assert_eq!((code, &done["status"], &done["outcome"]), (1, &418.into(), &"answered".into()), "{words}");
    assert!(done["headers"].as_array().expect("lines").contains(&serde_json::json!(["x-own", "1"])), "{words}");
    let (head, body) = two.call().await;
    assert_eq!((body.as_str(), line(&head, "relay-replay-of")), ("hello", Some(id.as_str())));
    assert_eq!(line(&head, "relay-event-id"), done["new_id"].as_str());
    assert_ne!(line(&head, "relay-event-id"), Some(id.as_str()));
    assert_eq!(head.headers.get_all("relay-event-id").iter().count(), 1);
    let shown = second.line("\"replay_of\"").await.expect("the agent says what it repeats");
    assert!(shown.contains(&id), "{shown}");
    assert_eq!(event(&relay, &id, |_| true).await, before, "no state, no attempt");
    let (_, listed) = client(&relay, &relay.token, &["event", "list", "--json"]).await;
    assert_eq!(listed.lines().count(), 1, "no event either");

    // Another token's agent of the same name is not one's own.
    let (code, _) = client(&relay, &strong.clear, &["event", "replay", &id, "--name", "two"]).await;
    assert_eq!(code, 1);
    assert!(one.is_idle() && two.is_idle());

    // To the endpoint it goes as a new event, for those who may.
    let (code, words) = client(&relay, &relay.token, &["event", "replay", &id, "--to", "endpoint"]).await;
    assert!(code == 3 && words.contains("may_not_replay"), "{code} {words}");
    let mut last = id.clone();
    for _ in 0..2 {
        let words = ["event", "replay", &last, "--to", "endpoint", "--json"];
        let (code, words) = client(&relay, &strong.clear, &words).await;
        assert_eq!(code, 0, "{words}");
        let new: Value = serde_json::from_str(&words).expect("JSON");
        last = new["new_id"].as_str().expect("an id").to_owned();
        let (head, _) = one.call().await;
        assert_eq!((line(&head, "relay-event-id"), line(&head, "relay-replay-of")), (Some(&*last), Some(&*id)));
        let kept = event(&relay, &last, is("delivered")).await;
        assert_eq!(kept["replay_of"], id.as_str(), "a replay's replay names the original");
    }
}

#[tokio::test]
async fn a_replay_keeps_its_signature_or_gets_a_new_one() {
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"durable\"\nresign = \"never\"\n\
        verify = { provider = \"standard-webhooks\", secrets = [\"env:HOOK\"] }\n\
        [[endpoint]]\nname = \"lenient\"\nmode = \"durable\"\n\
        verify = { provider = \"standard-webhooks\", secrets = [\"env:HOOK\"], enforce = false }\n";
    let relay = relay(&[config.to_owned(), endpoint("none")].concat()).await;
    let mut told = Told::start(200).await;
    let _agent = listen(&relay, &relay.token, "open", &told, &["--name", "me"]).await;
    let lines = signed("standard-webhooks", SECRET, b"hello").expect("signs");
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let post_to = async |path: &str| {
        let answer = send(&relay.public, request("POST", path, &lines, "hello")).await.expect("answers");
        answer.headers()["relay-event-id"].to_str().expect("text").to_owned()
    };
    let id = post_to("/open").await;
    let (original, _) = told.call().await;
    event(&relay, &id, is("delivered")).await;
    // The second of the original is over, so that a new signature is another one.
    sleep(Duration::from_millis(1100)).await;
    for (flags, afresh) in [(&[][..], false), (&["--keep-signature"], false), (&["--sign"], true)] {
        for server in [false, true] {
            let words = [&["event", "replay", &id], flags].concat();
            let code = if server {
                relay.ask(&words).await.expect("runs").0
            } else {
                client(&relay, &relay.token, &[&words[..], &["--name", "me"]].concat()).await.0
            };
            assert_eq!(code, 0, "{flags:?}");
            let (head, _) = told.call().await;
            let same = line(&head, "webhook-signature") == line(&original, "webhook-signature");
            assert_eq!(
                (same, line(&head, "relay-resigned")),
                (!afresh, afresh.then_some("true")),
                "{flags:?} {server}"
            );
            assert_eq!(line(&head, "webhook-id"), line(&original, "webhook-id"));
        }
    }
    // What was never proven, and what nobody signs, is not signed by the relay.
    let forged = [("webhook-id", "msg_9"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,Zm9yZ2Vk")];
    let answer = send(&relay.public, request("POST", "/lenient", &forged, "x")).await.expect("answers");
    let unproven = answer.headers()["relay-event-id"].to_str().expect("text").to_owned();
    let unsigned = post(&relay, "none", "x").await;
    for (id, why) in [(&unproven, "never found right"), (&unsigned, "nothing is signed at this endpoint")] {
        let (code, words) = client(&relay, &relay.token, &["event", "replay", id, "--sign", "--name", "me"]).await;
        assert!(code == 1 && words.contains(why), "{code} {words}");
        let (code, _) = relay.ask(&["event", "replay", id, "--sign"]).await.expect("runs");
        assert_eq!(code, 1);
    }
}

#[tokio::test]
async fn since_catches_up_in_order_and_leaves_out_what_comes_anyhow() {
    let relay = relay(&endpoint("open")).await;
    let (mut first, mut late) = (Told::start(200).await, Told::start(200).await);
    let mut ids = Vec::new();
    {
        let mut agent = listen(&relay, &relay.token, "open", &first, &["--name", "first"]).await;
        for number in 0..17 {
            ids.push(post(&relay, "open", &number.to_string()).await);
            first.call().await;
        }
        // One that only watches gets what was there, in order, and the sender's events stay as they are.
        let more = ["--name", "watcher", "--attach", "copy", "--since", "1h"];
        let mut watcher = listen(&relay, &relay.token, "open", &late, &more).await;
        let line_of = watcher.line("\"replaying\"").await.expect("it says so");
        assert!(line_of.contains("\"count\":17"), "{line_of}");
        for id in &ids {
            let (head, _) = late.call().await;
            assert_eq!(line(&head, "relay-replay-of"), Some(id.as_str()), "in the order of arrival");
        }
        let line_of = watcher.line("\"replayed\"").await.expect("it says when it is done");
        assert!(line_of.contains("\"count\":17") && line_of.contains("\"failed\":0"), "{line_of}");
        assert!(watcher.stop().await.expect("ends") && agent.stop().await.expect("ends"));
    }
    for id in &ids {
        let kept = event(&relay, id, is("delivered")).await;
        assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(1), "{kept}");
    }
    assert!(first.is_idle());
    // What waits comes as the backlog, once; what had ended comes as replays.
    let mut waiting = Vec::new();
    for number in 17..20 {
        waiting.push(post(&relay, "open", &number.to_string()).await);
    }
    let mut agent = listen(&relay, &relay.token, "open", &late, &["--name", "first", "--since", "1h"]).await;
    let backlog = agent.line("webhooks wait for open").await.expect("it says what waits");
    let backlog: Value = serde_json::from_str(&backlog).expect("JSON");
    assert_eq!((&backlog["state"], &backlog["waiting"]), (&"backlog".into(), &3.into()), "{backlog}");
    assert!(backlog["oldest"].is_string(), "{backlog}");
    agent.line("\"replayed\"").await.expect("it catches up");
    let (mut replays, mut news) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (head, _) = late.call().await;
        match line(&head, "relay-replay-of") {
            Some(of) => replays.push(of.to_owned()),
            None => news.push(line(&head, "relay-event-id").expect("an id").to_owned()),
        }
    }
    news.sort();
    assert_eq!((replays, news), (ids, waiting));
    assert!(late.is_idle(), "nothing comes twice");
}

#[tokio::test]
async fn since_goes_on_after_a_cut_where_it_stopped() {
    let relay = relay(&endpoint("open")).await;
    let (mut first, mut late) = (Told::start(200).await, Told::start(200).await);
    let mut ids = Vec::new();
    {
        let _agent = listen(&relay, &relay.token, "open", &first, &["--name", "me"]).await;
        for number in 0..12 {
            ids.push(post(&relay, "open", &number.to_string()).await);
            first.call().await;
        }
        event(&relay, &ids[11], is("delivered")).await;
    }
    let link = Link::start(&relay.public).await.expect("a link");
    let (port, more) = (late.handler.port(), ["--name", "me", "--since", "1h"]);
    let agent = Agent::start(Path::new(PROGRAM), &link.address.to_string(), &relay.token, "open", &port, &more).await;
    let mut agent = agent.expect("attaches");
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(line(&late.call().await.0, "relay-replay-of").expect("a replay").to_owned());
    }
    link.set(State::Cut);
    agent.line("reconnecting").await.expect("it says so");
    link.set(State::Up);
    agent.line("\"replayed\"").await.expect("it finishes");
    while let Ok((head, _)) = late.calls.try_recv() {
        seen.push(line(&head, "relay-replay-of").expect("a replay").to_owned());
    }
    assert!(seen.len() <= ids.len() + 2, "it began anew: {seen:?}");
    seen.dedup();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_backlog_is_skipped_by_whoever_may_and_only_when_the_agent_comes() {
    let strong = token("strong", "*", "\"attach\", \"read\", \"skip\"");
    let relay = relay(&[endpoint("open"), strong.table].concat()).await;
    let mut told = Told::start(200).await;
    // More than one step of the skipping, so that what waits must be held back meanwhile.
    let mut ids = Vec::new();
    for number in 0..250 {
        ids.push(post(&relay, "open", &number.to_string()).await);
    }
    let port = told.handler.port();
    let (code, words) = client(&relay, &relay.token, &["listen", &port, "open", "--backlog", "skip"]).await;
    assert!(code == 3 && words.contains("add the right `skip`"), "{code} {words}");
    let words = ["listen", &port, "open", "--backlog", "skip", "--attach", "copy"];
    assert_eq!(client(&relay, &strong.clear, &words).await.0, 2, "copies have no backlog");
    event(&relay, &ids[0], is("pending")).await;

    let link = Link::start(&relay.public).await.expect("a link");
    let agent = Agent::start(
        Path::new(PROGRAM),
        &link.address.to_string(),
        &strong.clear,
        "open",
        &port,
        &["--backlog", "skip"],
    )
    .await;
    let mut agent = agent.expect("attaches");
    agent.line("250 webhooks that waited for open are skipped").await.expect("it says how many");
    let list = ["event", "list", "--state", "dropped", "--limit", "1000", "--json"];
    let (_, listed) = client(&relay, &strong.clear, &list).await;
    assert_eq!(listed.lines().filter(|line| line.contains("\"why\":\"skipped\"")).count(), ids.len());
    assert!(told.is_idle(), "none of them reached the handler");
    let new = post(&relay, "open", "new").await;
    assert_eq!(line(&told.call().await.0, "relay-event-id"), Some(new.as_str()));
    // What comes while its link is cut is not skipped.
    link.set(State::Cut);
    agent.line("reconnecting").await.expect("it says so");
    let meanwhile = post(&relay, "open", "meanwhile").await;
    link.set(State::Up);
    assert_eq!(line(&told.call().await.0, "relay-event-id"), Some(meanwhile.as_str()));
}

#[tokio::test]
async fn an_agent_that_stands_by_or_watches_skips_nothing() {
    let strong = token("strong", "*", "\"attach\", \"read\", \"skip\"");
    let relay = relay(&[endpoint("open"), strong.table].concat()).await;
    let told = Told::start(200).await;
    let _production = listen(&relay, &relay.token, "open", &told, &["--name", "production"]).await;
    let (code, _) = relay.ask(&["endpoint", "pause", "open"]).await.expect("runs");
    assert_eq!(code, 0);
    let waits = post(&relay, "open", "waits").await;
    let mut laptop = listen(&relay, &strong.clear, "open", &told, &["--name", "laptop", "--backlog", "skip"]).await;
    laptop.line("nothing that waits there is skipped").await.expect("it says so");
    event(&relay, &waits, is("pending")).await;
}

#[tokio::test]
async fn who_may_only_read_never_sees_what_lets_a_sender_in() {
    let provided = |name: &str, provider: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nmode = \"assured\"\nwait_for_agent = \"0s\"\n\
             verify = {{ provider = \"{provider}\", secrets = [\"env:HOOK\"] }}\n"
        )
    };
    let (reader, owner) = (token("reader", "*", "\"read\""), token("owner", "*", "\"attach\", \"read\""));
    let rows = [provided("figma", "figma"), provided("hub", "docker-hub"), provided("lab", "gitlab-token")];
    let relay = relay(&[rows.concat(), reader.table, owner.table].concat()).await;
    let body = format!("{{\"event_type\":\"PING\",\"passcode\":\"{SECRET}\",\"n\":1}}");
    let ids = [post(&relay, "figma", &body).await, post(&relay, &format!("hub?token={SECRET}&x=1"), "{}").await];
    for id in &ids {
        for token in [&reader.clear, &owner.clear] {
            for words in [&["event", "list", "--json"][..], &["event", "show", id, "--json"]] {
                let (code, words) = client(&relay, token, words).await;
                assert!(code == 0 && words.contains(id.as_str()) && !words.contains(SECRET), "{code} {words}");
            }
        }
        for words in [&["event", "list", "--json"][..], &["event", "show", id, "--json"]] {
            let (code, words) = relay.ask(words).await.expect("runs");
            assert!(code == 0 && words.contains(id.as_str()) && !words.contains(SECRET), "{code} {words}");
        }
    }
    // Nor by trying out what the checksum is of.
    let (_, shown) = client(&relay, &reader.clear, &["event", "show", &ids[0], "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["body"]["kept"], &shown["body"]["sha256"]), (&body.len().into(), &Value::Null), "{shown}");
    let masked = body.replace(SECRET, &"*".repeat(SECRET.len()));
    let (_, shown) = client(&relay, &reader.clear, &["event", "show", &ids[0], "--body"]).await;
    assert_eq!(shown, masked);
    assert_eq!(relay.ask(&["event", "body", &ids[0]]).await.expect("runs").1, masked);
    let part = ask(&relay, &reader.clear, "GET", &format!("/_relay/v1/events/{}/body?offset=40", ids[0]), &[]).await;
    assert_eq!(part.body(), &masked[40..]);
    // Nor letter by letter.
    let searched = ask(&relay, &reader.clear, "GET", "/_relay/v1/events?text=whsec", &[]).await;
    assert!(!String::from_utf8_lossy(searched.body()).contains(ids[0].as_str()));
    let searched = ask(&relay, &reader.clear, "GET", "/_relay/v1/events?text=whsec&endpoint=figma", &[]).await;
    assert_eq!(searched.status(), StatusCode::FORBIDDEN);

    // Nor by a copy, or a replay.
    for name in ["figma", "hub"] {
        let (code, words) = client(&relay, &reader.clear, &["listen", "9", name, "--output", "json"]).await;
        assert!(code == 3 && words.contains("lacks the right `attach`"), "{code} {words}");
    }
    let replay = ask(&relay, &reader.clear, "POST", &format!("/_relay/v1/events/{}/replay?name=x", ids[0]), &[]).await;
    let problem: Value = serde_json::from_slice(replay.body()).expect("JSON");
    assert_eq!((replay.status(), &problem["error"]), (StatusCode::FORBIDDEN, &"needs_attach".into()));
    let (mut owned, mut watched) = (Told::start(200).await, Told::start(200).await);
    let _owner = listen(&relay, &owner.clear, "figma", &owned, &[]).await;
    assert_eq!(owned.call().await.1, body, "on its way to a handler nothing is changed");
    let _lab = listen(&relay, &owner.clear, "lab", &owned, &["--name", "lab"]).await;
    let _watcher = listen(&relay, &reader.clear, "lab", &watched, &["--name", "watcher"]).await;
    let lines = [("x-gitlab-token", SECRET), ("x-gitlab-event", "Push Hook")];
    let response = send(&relay.public, request("POST", "/lab", &lines, "push")).await.expect("answers");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(line(&owned.call().await.0, "x-gitlab-token"), Some(SECRET));
    let (head, copy) = watched.call().await;
    assert_eq!((line(&head, "x-gitlab-token"), copy.as_str()), (Some("[masked]"), "push"));
    // A signature without a date would be good for ever.
    let id = response.headers()["relay-event-id"].to_str().expect("text");
    let path = format!("/_relay/v1/events/{id}/replay?name=watcher&signature=fresh");
    let fresh = ask(&relay, &reader.clear, "POST", &path, &[]).await;
    assert_eq!(fresh.status(), StatusCode::FORBIDDEN, "{:?}", fresh.body());
    let kept = ask(&relay, &reader.clear, "POST", &path.replace("=fresh", "=keep"), &[]).await;
    assert_eq!(kept.status(), StatusCode::OK, "{:?}", kept.body());
    assert_eq!(line(&watched.call().await.0, "x-gitlab-token"), Some("[masked]"));

    // What was refused for another one is not told either.
    let wrong = body.replace(SECRET, "hunter2hunter2");
    let refused = send(&relay.public, request("POST", "/figma", &[], wrong)).await.expect("answers");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let id = refused.headers()["relay-event-id"].to_str().expect("text");
    let (code, words) = relay.ask(&["event", "list", "--state", "refused", "--json"]).await.expect("runs");
    assert!(code == 0 && words.contains(id) && !words.contains("hunter2"), "{code} {words}");
}
