//! `relay-client diff`: a second handler beside the first one, from a recording and from the relay, and its results on the
//! agent's page.

use std::{fs, path::Path};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use relay_tests::{
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server},
    sender::{request, send},
};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

const KEPT: &str = "[[endpoint]]\nname = \"open\"\nmode = \"assured\"\nverify = \"none\"\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// A handler that answers with JSON of its own version.
async fn version(number: u32) -> Handler {
    let answer = move |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let changed = number == 2 && head.uri.path().ends_with("/changed");
        let status = if number == 2 && head.uri.path().ends_with("/broken") { 500 } else { 200 };
        let answer =
            json!({ "at": number, "got": String::from_utf8_lossy(&body), "rule": if changed { "new" } else { "old" } });
        let mut response = Response::new(full(answer.to_string()));
        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        response
    };
    Handler::start(answer).await.expect("a handler")
}

async fn diff(place: &Path, arguments: &[&str], token: &str) -> (i32, String) {
    let mut command = Command::new(program());
    command.args(["client", "diff"]).args(arguments).current_dir(place).env("XDG_CONFIG_HOME", place);
    let output = command.env("RELAY_TOKEN", token).output().await.expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("a code"), said)
}

#[tokio::test]
async fn a_second_handler_is_compared_and_the_page_shows_it() {
    let relay = Server::start(program(), "127.0.0.1:0", KEPT, &[]).await.expect("a relay");
    let (old, new) = (version(1).await, version(2).await);
    let place = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program());
    command.args(["client", "listen", &old.port(), "open", "--output", "json", "--inspect-addr", "0"]);
    command.args(["--relay", &format!("http://{}", relay.public)]).current_dir(place.path());
    command.env("RELAY_TOKEN", &relay.token).env("XDG_CONFIG_HOME", place.path());
    let mut agent = Agent::spawn(&mut command).expect("an agent");
    let line: Value = serde_json::from_str(&agent.line("\"inspect\"").await.expect("its page")).expect("JSON");
    agent.line("\"ready\"").await.expect("it attaches");
    let mut ids = Vec::new();
    for path in ["/same", "/changed", "/broken"] {
        let sent = send(&relay.public, request("POST", &format!("/open{path}"), &[], "body")).await.expect("answers");
        ids.push(sent.headers()["relay-event-id"].to_str().expect("text").to_owned());
    }

    let url = format!("http://{}", relay.public);
    let against = new.port();
    let plain = ["open", "--relay", &url, "--since", "1h", "--against", &against, "--ignore", "/at"];
    let (code, said) = diff(place.path(), &plain, &relay.token).await;
    assert!(code == 1 && said.contains("3 compared, 2 differ"), "{code} {said}");
    assert!(said.contains("/rule: \"old\" -> \"new\"") && said.contains("200 -> 500"), "{said}");
    assert!(!said.contains(&ids[0]) && said.contains(&ids[1]) && said.contains(&ids[2]), "{said}");

    let key = fs::read_to_string(line["key_file"].as_str().expect("a file")).expect("reads");
    let address = line["address"].as_str().expect("an address").trim_start_matches("http://").trim_end_matches('/');
    let ask =
        Request::get("/api/v1/agent/diffs").header("host", address).header("authorization", format!("Bearer {key}"));
    let shown = send(address, ask.body(Default::default()).expect("a request")).await.expect("answers");
    let shown: Value = serde_json::from_slice(shown.body()).expect("JSON");
    let verdicts: Vec<_> = shown["diffs"].as_array().expect("a list").iter().map(|diff| &diff["verdict"]).collect();
    assert_eq!(verdicts, ["status", "body", "same"], "{shown}");
    assert!(said.contains(&format!("see http://{address}/agent")), "{said}");

    assert!(timeout(PATIENCE, agent.stop()).await.expect("in time").expect("stops"));
}

#[tokio::test]
async fn a_recording_is_compared_without_a_relay() {
    let (place, new) = (tempfile::tempdir().expect("a folder"), version(2).await);
    let against = new.port();
    let event = json!({
        "id": "hook_1", "method": "POST", "target": "/changed", "headers": [], "body": "Ym9keQ==",
        "expect": { "status": 200, "headers": [], "body": data_encoding::BASE64.encode(b"{\"at\":1,\"got\":\"body\",\"rule\":\"old\"}") },
    });
    fs::write(place.path().join("one"), format!("{{\"relay_cassette\":1}}\n{event}\n")).expect("writes");
    let recorded = ["--from", "one", "--against", &against, "--ignore", "/at", "--json"];
    let (code, said) = diff(place.path(), &recorded, "").await;
    let found: Value = serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
    assert!(
        code == 1 && found["verdict"] == "body" && found["differences"][0] == "/rule: \"old\" -> \"new\"",
        "{said}"
    );
    let recorded = [&recorded[..], &["--ignore", "/rule"]].concat();
    assert_eq!(diff(place.path(), &recorded, "").await.0, 0);
    drop(new);
    assert_eq!(diff(place.path(), &recorded, "").await.0, 5);
}
