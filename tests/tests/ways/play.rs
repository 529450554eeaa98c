//! `relay-client play`: recordings to a handler without a relay, with faults to order and results for CI.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use relay_schemes::{Request as Unverified, Secret};
use relay_tests::handler::{Handler, full};
use serde_json::{Value, json};
use tokio::process::Command;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

async fn play(place: &Path, file: &str, to: &str, more: &[&str]) -> (i32, String, Output) {
    let mut command = Command::new(program());
    command.args(["client", "play", file, "--to", to]).args(more).current_dir(place);
    let output = command.env_remove("RELAY_SEND_SECRET_FILE").output().await.expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("a code"), said, output)
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A recording of so many events of a provider, each with its number as body, of which 201 was the answer.
fn recording(place: &Path, provider: &str, count: usize) -> PathBuf {
    let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    let mut text = json!({ "relay_cassette": 1, "made_by": "a test", "redacted": true }).to_string() + "\n";
    for number in 0..count {
        let event = json!({
            "offset_us": number * 30_000, "id": format!("hook_{number}"), "endpoint": "pay", "provider": provider,
            "event_type": "thing.made", "received_at": "2020-01-31T08:00:00Z", "method": "POST",
            "target": format!("/in?n={number}"),
            "headers": [["content-type", "application/json"], ["host", "hooks.example.com"], ["x-raw", { "base64": "/w==" }],
                        ["webhook-signature", "v1,b2xk"], ["authorization", "[masked]"]],
            "body": base64(&format!("{{\"n\":{number}}}")),
            "expect": { "status": 201, "headers": [], "body": base64("done") },
        });
        text += &(event.to_string() + "\n");
    }
    let path = place.join("webhooks.cassette");
    fs::write(&path, text).expect("writes");
    path
}

/// A handler that notes the events' numbers and answers by what it is told.
async fn noting(
    answer: impl Fn(&http::request::Parts, &[u8]) -> u16 + Clone + Send + 'static,
) -> (Handler, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = Arc::clone(&seen);
    let handler = Handler::start(move |request: Request<Incoming>| {
        let (answer, notes) = (answer.clone(), Arc::clone(&notes));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            notes.lock().expect("notes").push(head.uri.to_string());
            let mut response = Response::new(full("done"));
            *response.status_mut() = StatusCode::from_u16(answer(&head, &body)).expect("a status");
            response
        }
    });
    (handler.await.expect("a handler"), seen)
}

#[tokio::test]
async fn a_recording_is_played_as_it_was_and_an_answer_that_is_not_expected_is_found() {
    let place = tempfile::tempdir().expect("a folder");
    recording(place.path(), "github", 5);
    let (good, seen) = noting(|head, body| {
        let raw = head.headers.get("x-raw").is_some_and(|raw| raw.as_bytes() == b"\xff");
        let id = head.headers.get("relay-event-id").is_some_and(|id| id.to_str().expect("text").starts_with("hook_"));
        let masked = head.headers.get("authorization").is_some();
        if raw && id && !masked && body.starts_with(b"{\"n\":") { 201 } else { 500 }
    })
    .await;
    let to = format!("http://{}/app", good.address);
    let expect = ["--expect", "status=recorded", "--expect", "body=recorded", "--expect", "took<30s"];
    let (code, said, _) = play(place.path(), "webhooks.cassette", &to, &expect).await;
    assert!(code == 0 && said.contains("5 sent, 0 not as expected"), "{code} {said}");
    let inorder: Vec<_> = (0..5).map(|number| format!("/app/in?n={number}")).collect();
    assert_eq!(*seen.lock().expect("notes"), inorder);

    let (bad, _) = noting(|head, _| if head.uri.query() == Some("n=3") { 500 } else { 200 }).await;
    let (code, said, output) =
        play(place.path(), "webhooks.cassette", &bad.port(), &["--junit", "out.xml", "--json", "--at-once", "4"]).await;
    assert_eq!(code, 1, "{said}");
    let objects = objects(&output);
    let failed: Vec<_> = objects.iter().filter(|one| one["failure"].is_string()).collect();
    assert!(
        failed.len() == 1 && failed[0]["id"] == "hook_3" && failed[0]["failure"] == "status 500, expected 2xx",
        "{said}"
    );
    assert_eq!((&objects[5]["sent"], &objects[5]["failed"]), (&5.into(), &1.into()), "{said}");
    let xml = fs::read_to_string(place.path().join("out.xml")).expect("it is written");
    assert!(xml.contains("tests=\"5\" failures=\"1\"") && xml.contains("status 500, expected 2xx"), "{xml}");
    assert!(xml.contains("classname=\"webhooks.cassette\" name=\"hook_3 POST /in?n=3 thing.made\""), "{xml}");

    // As fast as it was recorded, and from standard input.
    let began = Instant::now();
    let (code, said, _) = play(place.path(), "webhooks.cassette", &good.port(), &["--speed", "1"]).await;
    assert!(code == 0 && began.elapsed().as_millis() >= 120, "{said}");
}

#[tokio::test]
async fn events_are_signed_afresh_and_forged_ones_are_expected_to_be_refused() {
    let place = tempfile::tempdir().expect("a folder");
    recording(place.path(), "standard-webhooks", 20);
    fs::write(place.path().join("secret"), format!("{SECRET}\n")).expect("writes");
    let scheme = relay_schemes::provider("standard-webhooks").and_then(|row| row.scheme.as_ref()).expect("a row");
    let (handler, _) = noting(move |head, body| {
        let keys = scheme.keys(&[Secret::new(SECRET)]).expect("keys");
        let headers: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
        let request = Unverified { method: "POST", url: "", headers: &headers, body };
        if scheme.verify(&keys, &request, now.cast_signed()).is_ok() { 200 } else { 401 }
    })
    .await;
    let (to, file) = (handler.port(), "webhooks.cassette");
    let (code, said, _) = play(place.path(), file, &to, &[]).await;
    assert!(code == 1 && said.contains("20 not as expected"), "its recorded signatures are old: {said}");
    let sign = ["--resign", "--secret-file", "secret"];
    let (code, said, _) = play(place.path(), file, &to, &sign).await;
    assert_eq!(code, 0, "{said}");
    let (code, said, output) =
        play(place.path(), file, &to, &[&sign[..], &["--bad-signature", "50%", "--seed", "3", "--json"]].concat())
            .await;
    assert_eq!(code, 0, "{said}");
    let statuses: Vec<_> = objects(&output).iter().filter_map(|one| one["status"].as_u64()).collect();
    assert!(statuses.contains(&401) && statuses.contains(&200) && statuses.len() == 20, "{statuses:?}");

    // A handler that checks nothing is found out.
    let (careless, _) = noting(|_, _| 200).await;
    let (code, said, _) =
        play(place.path(), file, &careless.port(), &[&sign[..], &["--bad-signature", "all"]].concat()).await;
    assert!(code == 1 && said.contains("though its signature does not match"), "{said}");
    let (code, said, _) = play(place.path(), file, &to, &["--bad-signature", "all"]).await;
    assert!(code == 2 && said.contains("--resign"), "{said}");
    let (code, said, _) = play(place.path(), file, &to, &[&sign[..], &["--provider", "discord"]].concat()).await;
    assert!(code == 2 && said.contains("only Discord has the key"), "{said}");
}

#[tokio::test]
async fn the_same_seed_plays_the_same_faults() {
    let place = tempfile::tempdir().expect("a folder");
    recording(place.path(), "github", 60);
    let (handler, seen) = noting(|_, _| 200).await;
    let wild = ["--duplicate", "30%", "--drop", "20%", "--reorder", "3", "--delay", "2ms", "--seed", "42", "--json"];
    let mut orders = Vec::new();
    for _ in 0..2 {
        let (code, said, output) = play(place.path(), "webhooks.cassette", &handler.port(), &wild).await;
        assert_eq!(code, 0, "{said}");
        let last = objects(&output).pop().expect("a summary");
        assert!(last["dropped"].as_u64().is_some_and(|dropped| dropped > 3) && last["seed"] == 42, "{last}");
        orders.push(std::mem::take(&mut *seen.lock().expect("notes")));
    }
    assert_eq!(orders[0], orders[1]);
    let mut sorted = orders[0].clone();
    sorted.sort_unstable();
    let distinct = {
        sorted.dedup();
        sorted.len()
    };
    assert!(distinct < 60 && distinct < orders[0].len(), "some are left out, some come twice");
}

#[tokio::test]
async fn what_cannot_be_played_is_said() {
    let place = tempfile::tempdir().expect("a folder");
    let file = recording(place.path(), "github", 2);
    let (code, said, _) = play(place.path(), "nothing.cassette", "9", &[]).await;
    assert!(code == 2 && said.contains("nothing.cassette"), "{said}");
    fs::write(place.path().join("har"), "{\"log\":{}}").expect("writes");
    let (code, said, _) = play(place.path(), "har", "9", &[]).await;
    assert!(code == 2 && said.contains("no recording"), "{said}");
    let broken = fs::read_to_string(&file).expect("reads") + "{broken\n";
    fs::write(&file, broken).expect("writes");
    let (handler, seen) = noting(|_, _| 200).await;
    let (code, said, _) = play(place.path(), "webhooks.cassette", &handler.port(), &["--junit", "out.xml"]).await;
    assert!(code == 2 && said.contains("line 4"), "{said}");
    assert_eq!(seen.lock().expect("notes").len(), 2, "what came before it was played");
    assert!(place.path().join("out.xml").is_file());

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = nobody.local_addr().expect("its address").port().to_string();
    drop(nobody);
    let (code, said, _) = play(place.path(), "webhooks.cassette", &port, &["--wait", "300ms"]).await;
    assert!(code == 5 && said.contains("unreachable"), "{code} {said}");
}
