//! Events once more, as somebody changed them, and many at a time: over the API and by both command lines.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use relay_tests::{
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server, run_to_end},
    sender::{request, send, signed},
};
use serde_json::{Value, json};
use tokio::{process::Command, sync::mpsc, time::timeout};

const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");
const SECRET: &str = "It's a Secret to Everybody";
const TEAM: &str = "rt_0123456789abcdef0123456789abcdef";
const READER: &str = "rt_fedcba9876543210fedcba9876543210";

const CONFIG: &str = "[[endpoint]]\nname = \"open\"\nmode = \"assured\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"live\"\nmode = \"live\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"hub\"\nmode = \"assured\"\n\
    verify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n\
    [[endpoint]]\nname = \"pay\"\nmode = \"assured\"\n\
    verify = { provider = \"stripe\", secrets = [\"env:HOOK\"] }\n\
    [[token]]\nname = \"team\"\nsecrets = [\"env:TEAM\"]\nendpoints = [\"*\"]\n\
    rights = [\"attach\", \"read\", \"replay\"]\n\
    [[endpoint]]\nname = \"lab\"\nmode = \"assured\"\n\
    verify = { provider = \"gitlab-token\", secrets = [\"env:HOOK\"] }\n\
    [[token]]\nname = \"reader\"\nsecrets = [\"env:READER\"]\nendpoints = [\"*\"]\nrights = [\"read\"]\n";

async fn relay() -> Server {
    let vars = [("HOOK", SECRET), ("TEAM", TEAM), ("READER", READER)];
    Server::start(Path::new(PROGRAM), "127.0.0.1:0", CONFIG, &vars).await.expect("a relay")
}

async fn post(relay: &Server, path: &str, lines: &[(&str, &str)], body: &str) -> String {
    let answer = send(&relay.public, request("POST", path, lines, body.to_owned())).await.expect("answers");
    assert_eq!(answer.status(), 200);
    answer.headers()["relay-event-id"].to_str().expect("text").to_owned()
}

/// A question to the admin API, with a body if there is one.
async fn ask(relay: &Server, method: &str, path: &str, body: &Value) -> Response<Bytes> {
    let bearer = format!("Bearer {}", relay.admin_token().expect("a token"));
    let lines = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut question = request(method, &format!("/api/v1/{path}"), &lines, body);
    question.headers_mut().insert("host", "localhost".parse().expect("a value"));
    send(&relay.admin, question).await.expect("answers")
}

fn read(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_default()
}

async fn client(relay: &Server, words: &[&str], input: &str) -> (i32, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("client").args(words).args(["--relay", &format!("ws://{}", relay.public)]).env("RELAY_TOKEN", TEAM);
    run_to_end(&mut command, input).await.expect("it ends")
}

/// What a handler was called with.
struct Call {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An agent of the team's for all endpoints, and what its handler is called with.
async fn agent(relay: &Server) -> (Vec<Agent>, Handler, mpsc::UnboundedReceiver<Call>) {
    let (tell, calls) = mpsc::unbounded_channel();
    let handler = Handler::start(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let target = head.uri.to_string();
            let _ended = tell.send(Call { method: head.method, target, headers: head.headers, body });
            Response::new(full("ok"))
        }
    });
    let handler = handler.await.expect("a handler");
    let mut agents = Vec::new();
    for endpoint in ["open", "live", "hub", "pay"] {
        let more = ["--name", "here"];
        let started = Agent::start(Path::new(PROGRAM), &relay.public, TEAM, endpoint, &handler.port(), &more).await;
        agents.push(started.expect("attaches"));
    }
    (agents, handler, calls)
}

async fn next(calls: &mut mpsc::UnboundedReceiver<Call>) -> Call {
    timeout(PATIENCE, calls.recv()).await.expect("in time").expect("a call")
}

#[tokio::test]
async fn a_changed_event_says_what_it_is_now_and_that_nobody_proved_it() {
    let relay = relay().await;
    let (_agents, _handler, mut calls) = agent(&relay).await;
    let mut lines = signed("github", SECRET, b"{}").expect("signs");
    lines.push(("x-github-event".to_owned(), "push".to_owned()));
    let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let id = post(&relay, "/hub", &lines, "{}").await;
    assert_eq!(next(&mut calls).await.headers["relay-verified"], "github");
    let before = read(&ask(&relay, "GET", &format!("events/{id}"), &Value::Null).await);
    assert_eq!((&before["event_type"], &before["unproven"]), (&"push".into(), &false.into()), "{before}");

    let edit = json!({ "headers": [["x-github-event", "release"]], "body_text": "{\"a\":1}" });
    let path = format!("events/{id}/replay?to=endpoint");
    let done = read(&ask(&relay, "POST", &path, &edit).await);
    let call = next(&mut calls).await;
    assert_eq!(
        (&call.headers["relay-verified"], &call.body[..]),
        (&"edited".parse().expect("text"), &b"{\"a\":1}"[..])
    );
    let new = done["new_id"].as_str().expect("an id");
    let after = read(&ask(&relay, "GET", &format!("events/{new}"), &Value::Null).await);
    assert_eq!((&after["event_type"], &after["unproven"]), (&"release".into(), &true.into()), "{after}");
    let found = read(&ask(&relay, "GET", "events?q=is:unproven", &Value::Null).await);
    assert_eq!((found["events"].as_array().map(Vec::len), &found["events"][0]["id"]), (Some(1), &new.into()));

    // What no agent could carry is said now, and not at each attempt.
    for edit in [
        json!({ "method": "CONNECT" }),
        json!({ "method": "TRACE" }),
        json!({ "target": "/x?y\"z" }),
        json!({ "headers": [["x-long", "x".repeat(70_000)]] }),
        json!({ "headers": [["host", "a"], ["host", "b"]] }),
    ] {
        let refused = ask(&relay, "POST", &path, &edit).await;
        let text: String = edit.to_string().chars().take(60).collect();
        assert_eq!((refused.status().as_u16(), &read(&refused)["code"]), (422, &"bad_edit".into()), "{text}");
    }
    let all = read(&ask(&relay, "GET", "events?kind=event", &Value::Null).await);
    assert_eq!(all["events"].as_array().map(Vec::len), Some(2), "{all}");
}

#[tokio::test]
async fn both_command_lines_change_one_event_and_replay_many() {
    let relay = relay().await;
    let (_agents, _handler, mut calls) = agent(&relay).await;
    let mut ids = Vec::new();
    for body in ["one", "two", "three"] {
        ids.push(post(&relay, "/open/in", &[("x-keep", "1"), ("x-drop", "1")], body).await);
        next(&mut calls).await;
    }
    let file = relay.folder().join("body");
    std::fs::write(&file, "from a file").expect("written");
    let words = ["event", "replay", &ids[0], "-H", "X-Drop:", "-H", "x-new: a", "--target", "/out?y"];
    let own = [&words[..], &["--body-file", "-", "--name", "here"]].concat();
    let (code, said) = client(&relay, &own, "from a pipe").await;
    assert_eq!(code, 0, "{said}");
    let call = next(&mut calls).await;
    assert_eq!((&call.body[..], call.target.as_str()), (&b"from a pipe"[..], "/out?y"));
    let line = |name| call.headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((line("x-keep"), line("x-drop"), line("x-new")), (Some("1"), None, Some("a")));
    let relays = [&words[..], &["--method", "PUT", "--body-file", file.to_str().expect("text")]].concat();
    let (code, said) = relay.ask(&relays).await.expect("runs");
    assert_eq!(code, 0, "{said}");
    let call = next(&mut calls).await;
    assert_eq!((&call.body[..], call.method.as_str()), (&b"from a file"[..], "PUT"));
    for bad in [&["--method", "CONNECT"][..], &["-H", "no colon"]] {
        let (code, said) = client(&relay, &[&["event", "replay", &ids[0], "--name", "here"], bad].concat(), "").await;
        assert_eq!(code, 2, "{bad:?}: {said}");
    }

    // Many: to one's own agent in their order, and by the relay to whoever serves them.
    let many = ["event", "replay", "-q", "endpoint:open method:POST", "--name", "here"];
    let (code, said) = client(&relay, &[&many[..], &["--dry-run"]].concat(), "").await;
    assert!(code == 0 && said.trim() == "3 events", "{code} {said}");
    let (code, said) = client(&relay, &many, "").await;
    assert!(code == 2 && said.contains("--yes") && said.contains("your agent \"here\""), "{code} {said}");
    let (code, said) = client(&relay, &[&many[..], &["--yes"]].concat(), "").await;
    assert_eq!(code, 0, "{said}");
    for body in ["one", "two", "three"] {
        assert_eq!(next(&mut calls).await.body, body);
    }
    let (code, said) = client(&relay, &["event", "replay", "-q", "method:DELETE", "--yes", "--name", "here"], "").await;
    assert_eq!(code, 4, "{said}");
    let (code, said) =
        client(&relay, &["event", "replay", "-q", "method:POST", "--to", "endpoint", "--at-most", "2", "--yes"], "")
            .await;
    assert!(code == 0 && said.contains("replay: 2 of 2"), "{code} {said}");
    let (code, said) = relay.ask(&["event", "replay", "-q", "method:PUT", "--yes"]).await.expect("runs");
    assert!(code == 0 && said.contains("replay: 1 of 1"), "{code} {said}");
    let mut methods = Vec::new();
    for _ in 0..3 {
        methods.push(next(&mut calls).await.method.to_string());
    }
    methods.sort();
    assert_eq!(methods, ["POST", "POST", "PUT"]);
    let (code, said) = relay.ask(&["event", "cancel", "-q", "is:waiting", "--yes"]).await.expect("runs");
    assert_eq!(code, 4, "nothing waits: {said}");
}

#[tokio::test]
async fn a_live_exchange_is_exported_where_all_of_it_is_there() {
    let relay = relay().await;
    let (_agents, _handler, mut calls) = agent(&relay).await;
    let lines = [("authorization", "Bearer hunter2"), ("content-type", "text/plain")];
    let id = post(&relay, "/live/x?y", &lines, "the body").await;
    next(&mut calls).await;
    let file = ask(&relay, "GET", &format!("events/{id}/export?as=http"), &Value::Null).await;
    let text = String::from_utf8_lossy(file.body()).into_owned();
    assert!(text.starts_with("POST /live/x?y HTTP/1.1\r\n") && text.ends_with("\r\n\r\nthe body"), "{text}");
    assert!(text.contains("authorization: [masked]") && !text.contains("relay-event-id"), "{text}");
    let (code, cassette) = relay.ask(&["event", "export", &id]).await.expect("runs");
    assert!(code == 0 && cassette.lines().count() == 2 && cassette.contains("\"status\":200"), "{code} {cassette}");
    let long = post(&relay, "/live", &[], &"x".repeat(100_000)).await;
    next(&mut calls).await;
    let refused = ask(&relay, "GET", &format!("events/{long}/export?as=curl"), &Value::Null).await;
    assert_eq!((refused.status().as_u16(), &read(&refused)["code"]), (409, &"wrong_state".into()));
}

#[tokio::test]
async fn a_live_exchange_goes_to_one_agent_once_more_where_all_of_it_is_there() {
    let relay = relay().await;
    let (_agents, _handler, mut calls) = agent(&relay).await;
    let lines = [("authorization", "Bearer hunter2"), ("content-type", "text/plain"), ("x-note", "one")];
    let id = post(&relay, "/live/x?y", &lines, "the body").await;
    let first = next(&mut calls).await;
    let path = format!("events/{id}/replay?to=agent&name=here");
    let done = read(&ask(&relay, "POST", &path, &Value::Null).await);
    assert_eq!((&done["outcome"], &done["status"]), (&"answered".into(), &200.into()), "{done}");
    let again = next(&mut calls).await;
    assert_eq!((&again.method, &again.target, &again.body), (&first.method, &first.target, &first.body));
    assert_eq!(
        (&again.headers["x-note"], &again.headers["relay-replay-of"]),
        (&"one".parse().expect("a value"), &id.parse().expect("a value"))
    );
    assert_eq!(
        (&first.headers["relay-verified"], &again.headers["relay-verified"]),
        (&"none".parse().expect("a value"), &"edited".parse().expect("a value")),
        "what lacks a line is not what came"
    );
    assert_ne!(again.headers["relay-event-id"], first.headers["relay-event-id"]);
    assert_eq!(again.headers.get_all("relay-event-id").iter().count(), 1, "{:?}", again.headers);
    assert!(!again.headers.contains_key("authorization"), "what is masked is left out: {:?}", again.headers);

    let edit = json!({ "target": "/z", "body_text": "another body" });
    assert_eq!(read(&ask(&relay, "POST", &path, &edit).await)["outcome"], "answered");
    let edited = next(&mut calls).await;
    assert_eq!((edited.target.as_str(), &edited.body[..]), ("/z", &b"another body"[..]));
    assert_eq!(
        (&edited.headers["relay-verified"], &edited.headers["content-length"]),
        (&"edited".parse().expect("a value"), &"12".parse().expect("a value"))
    );

    // What was masked is gone: what comes back as it was shown is left out, and nothing comes twice.
    let masked = post(&relay, "/live/t?token=hunter2&z=1", &lines, "the body").await;
    next(&mut calls).await;
    let (code, said) =
        relay.ask(&["event", "replay", &masked, "--agent", "here", "-H", "x-new: 1"]).await.expect("runs");
    assert!(code == 0 && said.contains("answered 200") && said.contains("by here"), "{code} {said}");
    let edited = next(&mut calls).await;
    assert_eq!((edited.target.as_str(), &edited.headers["x-new"]), ("/t?z=1", &"1".parse().expect("a value")));
    assert!(!edited.headers.contains_key("authorization"), "{:?}", edited.headers);
    assert_eq!(edited.headers.get_all("traceparent").iter().count(), 1, "{:?}", edited.headers);
    let edit = json!({ "target": "/t?token=[masked]&z=2" });
    read(&ask(&relay, "POST", &format!("events/{masked}/replay?to=agent&name=here"), &edit).await);
    assert_eq!(next(&mut calls).await.target, "/t?z=2");

    let refused = ask(&relay, "POST", &format!("events/{id}/replay?to=endpoint"), &Value::Null).await;
    assert_eq!(read(&refused)["code"], "live", "it is not kept for whoever serves its endpoint");
    let long = post(&relay, "/live", &[], &"x".repeat(100_000)).await;
    next(&mut calls).await;
    let again = format!("events/{long}/replay?to=agent&name=here");
    for keeps_it in [Value::Null, json!({ "target": "/z", "headers": [["x-note", "two"]] })] {
        let refused = ask(&relay, "POST", &again, &keeps_it).await;
        let problem = read(&refused);
        assert_eq!((refused.status().as_u16(), &problem["code"]), (409, &"wrong_state".into()), "{problem}");
        assert!(problem["message"].as_str().is_some_and(|text| text.contains("body_text")), "{problem}");
    }
    let edit = json!({ "target": "/z", "body_text": "whole again" });
    assert_eq!(read(&ask(&relay, "POST", &again, &edit).await)["outcome"], "answered");
    let replaced = next(&mut calls).await;
    assert_eq!((replaced.target.as_str(), &replaced.body[..]), ("/z", &b"whole again"[..]));
    assert_eq!(replaced.headers["content-length"], "11");
}

#[tokio::test]
async fn a_live_exchange_that_is_there_as_it_came_is_replayed_as_that() {
    let relay = relay().await;
    let (_agents, _handler, mut calls) = agent(&relay).await;
    let id = post(&relay, "/live/x", &[("x-note", "one")], "the body").await;
    let first = next(&mut calls).await;
    let path = format!("events/{id}/replay?to=agent&name=here");
    assert_eq!(read(&ask(&relay, "POST", &path, &Value::Null).await)["outcome"], "answered");
    let again = next(&mut calls).await;
    assert_eq!((&first.body, &first.headers["relay-verified"]), (&again.body, &again.headers["relay-verified"]));
}

#[tokio::test]
async fn a_replay_shows_a_credential_to_no_agent_that_may_not_serve_whatever_its_name() {
    let relay = relay().await;
    let (_agents, handler, mut calls) = agent(&relay).await;
    let start = async |token, more: &[&str]| {
        let started = Agent::start(Path::new(PROGRAM), &relay.public, token, "lab", &handler.port(), more).await;
        started.expect("attaches")
    };
    let _serves = start(TEAM, &["--name", "here"]).await;
    let id = post(&relay, "/lab", &[("x-gitlab-token", SECRET), ("x-gitlab-event", "Push Hook")], "{}").await;
    assert_eq!(next(&mut calls).await.headers["x-gitlab-token"], SECRET);
    let mut replay = async |shown: &str| {
        let (code, said) = relay.ask(&["event", "replay", &id, "--agent", "here"]).await.expect("runs");
        assert!(code == 0 && said.contains("by here"), "{code} {said}");
        assert_eq!(next(&mut calls).await.headers["x-gitlab-token"], shown);
    };
    replay(SECRET).await;
    // Somebody who may only watch takes the name.
    let _watches = start(READER, &["--name", "here", "--attach", "copy"]).await;
    replay("[masked]").await;
}

#[tokio::test]
async fn an_endpoint_says_when_it_was_last_used_and_with_which_secret() {
    let relay = relay().await;
    let (_agents, _handler, mut calls) = agent(&relay).await;
    let show = async || read(&ask(&relay, "GET", "endpoints/pay", &Value::Null).await);
    let before = show().await;
    assert_eq!(
        (&before["last_event"], &before["secrets"]),
        (&Value::Null, &json!([{ "number": 1, "last_verified": null }]))
    );
    let body = "{\"id\":\"evt_1\"}";
    let lines = signed("stripe", SECRET, body.as_bytes()).expect("signs");
    let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let id = post(&relay, "/pay", &lines, body).await;
    next(&mut calls).await;
    let after = show().await;
    assert!(after["last_event"].is_string() && after["secrets"][0]["last_verified"].is_string(), "{after}");
    assert_eq!(post(&relay, "/pay", &lines, body).await, id, "a repeat");
    let event = read(&ask(&relay, "GET", &format!("events/{id}"), &Value::Null).await);
    assert_eq!(event["repeats"], 1, "{event}");
}
