//! Accepted means kept: assured and durable endpoints from end to end, with agents that are away, handlers that are
//! late or fail, links that break, and a relay that dies.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use relay_tests::{
    handler::{Handler, full},
    link::{Link, State},
    process::{PATIENCE, Server, label_of_open},
    sender::{request, send, signed},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

const ASSURED: &str = "[[endpoint]]\nname = \"open\"\nmode = \"assured\"\nverify = \"none\"\ndeadline = \"1s\"\n\
    wait_for_agent = \"0s\"\nretry = { schedule = [\"100ms\", \"100ms\", \"100ms\"] }\n";

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

/// What the handler saw.
#[derive(Debug)]
struct Call {
    body: String,
    attempt: String,
    event_id: String,
}

/// A handler that does what the body says, and tells of each call. It knows a replay for what it repeats.
struct Scripted {
    handler: Handler,
    calls: mpsc::UnboundedReceiver<Call>,
    /// Lets late answers go.
    gate: watch::Sender<bool>,
}

impl Scripted {
    async fn start() -> Self {
        let (tell, calls) = mpsc::unbounded_channel();
        let (gate, open) = watch::channel(false);
        let seen: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        let handler = Handler::start(move |request| {
            let (tell, mut open, seen) = (tell.clone(), open.clone(), Arc::clone(&seen));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                let text = |name: &str| head.headers[name].to_str().expect("text").to_owned();
                let event_id = text("relay-event-id");
                let nth = {
                    let mut seen = seen.lock().expect("not poisoned");
                    let first =
                        head.headers.get("relay-replay-of").map(|first| first.to_str().expect("text").to_owned());
                    let nth = seen.entry(first.unwrap_or_else(|| event_id.clone())).or_default();
                    *nth += 1;
                    *nth
                };
                tell.send(Call { body: body.clone(), attempt: text("relay-attempt"), event_id }).expect("a listener");
                let status = match body.as_str() {
                    "late" | "rejects late" => {
                        open.wait_for(|open| *open).await.expect("a gate");
                        if body == "late" { 200 } else { 404 }
                    }
                    "fails twice" if nth <= 2 => 503,
                    "fails" => 500,
                    "rejects" => 404,
                    _ => 201,
                };
                let body = if body == "long" { vec![b'x'; 300_000] } else { format!("answer to {body}").into() };
                Response::builder().status(status).header("x-own", "1").body(full(body)).expect("lawful")
            }
        });
        Self { handler: handler.await.expect("a handler"), calls, gate }
    }

    async fn call(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv()).await.expect("a call").expect("a handler")
    }
}

async fn relay(config: &str) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", config, &[("HOOK", SECRET)]).await.expect("a relay")
}

async fn post(relay: &Server, body: &str) -> Response<Bytes> {
    send(&relay.public, request("POST", "/open", &[], body.to_owned())).await.expect("answers")
}

fn id(response: &Response<Bytes>) -> &str {
    response.headers()["relay-event-id"].to_str().expect("text")
}

/// What the store knows of an event, once `holds` does.
async fn event(relay: &Server, id: &str, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, text) = relay.ask(&["event", "show", id, "--json"]).await.expect("runs");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if code == 0 && holds(&event) {
            return event;
        }
        assert!(Instant::now() < end, "event {id} stayed like this: {code} {text}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn is(state: &'static str) -> impl Fn(&serde_json::Value) -> bool {
    move |event| event["state"] == state
}

#[tokio::test]
async fn the_handlers_own_answer_is_returned_and_the_event_is_kept() {
    let (relay, mut handler) = (relay(ASSURED).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let response = post(&relay, "hello").await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (201, &b"answer to hello"[..]));
    assert_eq!(response.headers()["x-own"], "1");
    let call = handler.call().await;
    assert_eq!((call.attempt.as_str(), call.event_id.as_str()), ("1", id(&response)));
    let kept = event(&relay, id(&response), is("delivered")).await;
    assert_eq!(kept["attempts"][0]["status"], 201, "{kept}");
    // A long answer streams, whole.
    let long = post(&relay, "long").await;
    assert_eq!((long.status().as_u16(), long.body().len()), (201, 300_000));
    event(&relay, id(&long), is("delivered")).await;
}

#[tokio::test]
async fn without_an_agent_it_is_kept_and_delivered_in_order_when_one_comes() {
    let (relay, mut handler) = (relay(ASSURED).await, Scripted::start().await);
    let mut ids = Vec::new();
    for number in 0..20 {
        let response = post(&relay, &number.to_string()).await;
        assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0), "the ack");
        ids.push(id(&response).to_owned());
    }
    event(&relay, &ids[0], is("pending")).await;
    let mut agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    agent.line("webhooks wait for open, the oldest since").await.expect("it says what waits");
    let mut seen = Vec::new();
    for _ in 0..20 {
        let call = handler.call().await;
        assert_eq!(call.attempt, "1", "an absent agent uses up no attempt");
        seen.push(call.event_id);
    }
    seen.sort();
    assert_eq!(seen, ids);
    for id in &ids {
        event(&relay, id, is("delivered")).await;
    }
}

#[tokio::test]
async fn a_late_answer_is_recorded_and_the_handler_is_not_called_twice() {
    let (relay, mut handler) = (relay(ASSURED).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let response = post(&relay, "late").await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0), "the ack at the deadline");
    handler.call().await;
    event(&relay, id(&response), is("running")).await;
    handler.gate.send_replace(true);
    let kept = event(&relay, id(&response), is("delivered")).await;
    assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(1), "{kept}");
    assert_eq!(kept["attempts"][0]["status"], 200);
    assert!(handler.calls.try_recv().is_err(), "one call");
}

#[tokio::test]
async fn a_failure_is_tried_again_a_rejection_is_passed_on_and_the_last_failure_is_a_dead_letter() {
    let (relay, mut handler) = (relay(ASSURED).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let response = post(&relay, "fails twice").await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0), "the ack instead of the 503");
    for attempt in ["1", "2", "3"] {
        assert_eq!(handler.call().await.attempt, attempt);
    }
    event(&relay, id(&response), is("delivered")).await;

    let response = post(&relay, "rejects").await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (404, &b"answer to rejects"[..]));
    let kept = event(&relay, id(&response), is("dead")).await;
    assert_eq!(kept["why"], "handler_rejected", "{kept}");

    let response = post(&relay, "fails").await;
    assert_eq!(response.status(), StatusCode::OK);
    let kept = event(&relay, id(&response), is("dead")).await;
    assert_eq!(kept["why"], "handler_failed", "{kept}");
    assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(4), "the schedule's three waits");
}

#[tokio::test]
async fn what_no_agent_can_make_into_a_request_ends_at_once_and_holds_up_nobody() {
    let fifo = ASSURED.replace("retry =", "order = \"fifo\"\nretry =");
    let live = "[[endpoint]]\nname = \"live\"\nmode = \"live\"\nverify = \"none\"\n";
    let (relay, mut handler) = (relay(&format!("{fifo}{live}")).await, Scripted::start().await);
    let outside = |endpoint: &str| request("POST", &format!("/{endpoint}/..%2Fadmin"), &[], "outside");
    let first = send(&relay.public, outside("open")).await.expect("answers");
    assert_eq!(first.status(), StatusCode::OK, "kept: no agent is there yet");
    let second = post(&relay, "next").await;
    let target = format!("http://127.0.0.1:{}/hook", handler.handler.port());
    let _agent = relay.agent("open", &target, &[]).await.expect("attaches");
    assert_eq!(handler.call().await.event_id, id(&second), "the one before it is out of the way");
    let kept = event(&relay, id(&first), is("dead")).await;
    assert_eq!(kept["why"], "not_carriable", "{kept}");
    assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(1), "{kept}");
    assert_eq!(kept["attempts"][0]["outcome"], "not_carriable", "{kept}");

    let _agent = relay.agent("live", &target, &[]).await.expect("attaches");
    let response = send(&relay.public, outside("live")).await.expect("answers");
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(response.headers()["relay-error"], "not_carriable");
}

#[tokio::test]
async fn a_durable_endpoint_answers_with_its_ack_and_delivers_afterwards() {
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"durable\"\nverify = \"none\"\n\
        ack = { status = 202, body = \"{}\", content_type = \"application/json\" }\n";
    let (relay, mut handler) = (relay(config).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let response = post(&relay, "hello").await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (202, &b"{}"[..]));
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(handler.call().await.body, "hello");
    event(&relay, id(&response), is("delivered")).await;
    // What only asks passes live; what `methods` leaves out is refused.
    let get = send(&relay.public, request("GET", "/open", &[], "")).await.expect("answers");
    assert_eq!(get.status().as_u16(), 201);
    let odd = send(&relay.public, request("REPORT", "/open", &[], "")).await.expect("answers");
    assert_eq!(odd.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_repeat_gets_the_recorded_answer_and_the_handler_no_second_call() {
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"assured\"\n\
        verify = { provider = \"standard-webhooks\", secrets = [\"env:HOOK\"] }\n";
    let (relay, mut handler) = (relay(config).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let lines = signed("standard-webhooks", SECRET, b"hello").expect("signs");
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let first = send(&relay.public, request("POST", "/open", &lines, "hello")).await.expect("answers");
    assert_eq!(first.status().as_u16(), 201);
    event(&relay, id(&first), is("delivered")).await;
    let again = send(&relay.public, request("POST", "/open", &lines, "hello")).await.expect("answers");
    assert_eq!((again.status(), again.body(), id(&again)), (first.status(), first.body(), id(&first)));
    handler.call().await;
    assert!(handler.calls.try_recv().is_err(), "one call");
}

#[tokio::test]
async fn a_link_that_breaks_mid_delivery_is_settled_by_what_the_agent_tells() {
    let config = ASSURED.replace("deadline = \"1s\"", "deadline = \"10s\"");
    let (relay, mut handler) = (relay(&config).await, Scripted::start().await);
    let link = Link::start(&relay.public).await.expect("a link");
    let address = format!("ws://{}", link.address);
    let mut agent = relay.agent("open", &handler.handler.port(), &["--relay", &address]).await.expect("attaches");
    let before = post(&relay, "before").await;
    handler.call().await;
    let record = event(&relay, id(&before), is("delivered")).await;
    let (response, ()) = tokio::join!(post(&relay, "late"), async {
        handler.call().await;
        link.set(State::Cut);
        agent.line("reconnecting").await.expect("it says so");
        link.set(State::Up);
        agent.line("ready").await.expect("it comes back");
        handler.gate.send_replace(true);
    });
    let again = event(&relay, id(&before), is("delivered")).await;
    assert!(record["attempts"][0]["agent"].is_string());
    assert_eq!(again, record, "what had arrived was told again, and changes nothing");
    // The sender waited, and got the handler's own answer, told in the agent's next session.
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &b"answer to late"[..]));
    let kept = event(&relay, id(&response), is("delivered")).await;
    assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(1), "{kept}");
    assert!(handler.calls.try_recv().is_err(), "one call");
}

/// Until it is dropped, the relay's store commits nothing more, as on a disk that is slow.
fn hold_commits(relay: &Server) -> rusqlite::Connection {
    let store = rusqlite::Connection::open(relay.state_file("relay.db")).expect("a store");
    store.busy_timeout(Duration::from_secs(2)).expect("set");
    store.execute_batch("BEGIN IMMEDIATE").expect("held");
    store
}

#[tokio::test]
async fn a_success_is_passed_on_before_its_note_is_synced_and_any_other_end_after() {
    let config = ASSURED.replace("deadline = \"1s\"", "deadline = \"10s\"");
    for (body, status, passes, ends) in [("late", 200, true, "delivered"), ("rejects late", 404, false, "dead")] {
        let (relay, mut handler) = (relay(&config).await, Scripted::start().await);
        let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
        let sender = post(&relay, body);
        tokio::pin!(sender);
        tokio::select! {
            early = &mut sender => panic!("{early:?}"),
            _called = handler.call() => {}
        }
        let commits = hold_commits(&relay);
        handler.gate.send_replace(true);
        let early = timeout(Duration::from_secs(1), &mut sender).await;
        assert_eq!(early.is_ok(), passes, "{early:?}");
        drop(commits);
        let response = match early {
            Ok(response) => response,
            Err(_) => sender.await,
        };
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (status, format!("answer to {body}").as_bytes())
        );
        let kept = event(&relay, id(&response), is(ends)).await;
        assert_eq!(kept["attempts"][0]["status"], status, "{kept}");
    }
}

#[tokio::test]
async fn a_success_whose_note_is_lost_with_the_relay_is_settled_by_what_its_agent_tells() {
    let config = ASSURED.replace("deadline = \"1s\"", "deadline = \"10s\"");
    let (mut relay, mut handler) = (relay(&config).await, Scripted::start().await);
    let mut agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let public = relay.public.clone();
    let (response, commits) = tokio::join!(post(&relay, "late"), async {
        handler.call().await;
        let commits = hold_commits(&relay);
        handler.gate.send_replace(true);
        commits
    });
    assert_eq!(response.status().as_u16(), 200);
    relay.signal("-KILL").await.expect("it dies");
    relay.ended().await.expect("it ends");
    drop(commits);
    relay.start_again(&public).await.expect("the store opens without help");
    agent.line("ready").await.expect("it comes back");
    let kept = event(&relay, id(&response), is("delivered")).await;
    assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(1), "{kept}");
    assert!(handler.calls.try_recv().is_err(), "one call");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (mut relay, mut handler) = (relay(ASSURED).await, Scripted::start().await);
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(id(&post(&relay, &number.to_string()).await).to_owned());
    }
    let public = relay.public.clone();
    relay.signal("-KILL").await.expect("it dies");
    relay.ended().await.expect("it ends");
    relay.start_again(&public).await.expect("the store opens without help");
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..5 {
        seen.push(handler.call().await.event_id);
    }
    seen.sort();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_paused_endpoint_goes_on_accepting_and_delivers_when_it_is_resumed() {
    let (relay, mut handler) = (relay(ASSURED).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let (code, _) = relay.ask(&["endpoint", "pause", "open"]).await.expect("runs");
    assert_eq!(code, 0);
    let response = post(&relay, "hello").await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0), "the ack");
    event(&relay, id(&response), is("pending")).await;
    let (_, endpoints) = relay.ask(&["endpoint", "list", "--json"]).await.expect("runs");
    let endpoint: serde_json::Value = serde_json::from_str(&endpoints).expect("JSON");
    assert_eq!((&endpoint["paused"], &endpoint["waiting"], &endpoint["agents"]), (&true.into(), &1.into(), &1.into()));
    assert!(handler.calls.try_recv().is_err(), "nothing is delivered");
    relay.ask(&["endpoint", "resume", "open"]).await.expect("runs");
    assert_eq!(handler.call().await.event_id, id(&response));
    event(&relay, id(&response), is("delivered")).await;
}

#[tokio::test]
async fn a_failing_event_parks_those_with_its_own_key_and_no_others() {
    let config = ASSURED.replace("assured", "durable").replace("schedule = [\"100ms\"", "schedule = [\"30s\"")
        + "order = { key = \"header:x-key\" }\n";
    let (relay, mut handler) = (relay(&config).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let post = async |key: &str, body: &str| {
        let request = request("POST", "/open", &[("x-key", key)], body.to_owned());
        send(&relay.public, request).await.expect("answers")
    };
    post("a", "fails").await;
    assert_eq!(handler.call().await.body, "fails");
    let behind = post("a", "behind").await;
    let other = post("b", "other").await;
    assert_eq!(handler.call().await.event_id, id(&other), "another key goes on");
    let kept = event(&relay, id(&behind), is("pending")).await;
    assert_eq!(kept["why"], "behind_another");
}

#[tokio::test]
async fn dead_letters_are_listed_and_revived_and_everything_is_counted() {
    let config = ASSURED.replace("schedule = [\"100ms\", \"100ms\", \"100ms\"]", "schedule = [\"10ms\"]");
    let (relay, mut handler) = (relay(&config).await, Scripted::start().await);
    let _agent = relay.agent("open", &handler.handler.port(), &[]).await.expect("attaches");
    let response = post(&relay, "fails twice").await;
    handler.call().await;
    handler.call().await;
    event(&relay, id(&response), is("dead")).await;
    let (_, listed) = relay.ask(&["dead", "list", "--status", "5xx", "--json"]).await.expect("runs");
    assert!(listed.contains(id(&response)) && listed.contains("handler_failed"), "{listed}");
    let (code, _) = relay.ask(&["dead", "revive", "--all", "--endpoint", "open"]).await.expect("runs");
    assert_eq!(code, 0);
    assert_eq!(handler.call().await.event_id, id(&response));
    let kept = event(&relay, id(&response), is("delivered")).await;
    assert_eq!(kept["attempts"].as_array().map(Vec::len), Some(3), "{kept}");

    let (_, new) = relay.ask(&["event", "replay", id(&response)]).await.expect("runs");
    let replayed = event(&relay, new.trim(), is("delivered")).await;
    assert_eq!(replayed["replay_of"], id(&response));
    assert_eq!(handler.call().await.body, "fails twice");
    let (_, body) = relay.ask(&["event", "body", new.trim()]).await.expect("runs");
    assert_eq!(body, "fails twice");

    let metrics = send(&relay.admin, request("GET", "/metrics", &[], "")).await.expect("answers");
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    assert!(!metrics.contains("\"open\""), "whoever knows this name may post\n{metrics}");
    for line in [
        "relay_events_total{endpoint=\"open\",outcome=\"stored\"} 1",
        "relay_events_total{endpoint=\"open\",outcome=\"retried\"} 1",
        "relay_events_total{endpoint=\"open\",outcome=\"dead\"} 1",
        "relay_events_total{endpoint=\"open\",outcome=\"delivered\"} 2",
        "relay_events_waiting{endpoint=\"open\"} 0",
        "relay_events_overdue 0",
    ] {
        let line = line.replace("\"open\"", &format!("\"{}\"", label_of_open("open")));
        assert!(metrics.lines().any(|have| have == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_delivery_can_be_signed_afresh_and_the_original_stays_in_the_record() {
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"durable\"\nresign = \"always\"\n\
        verify = { provider = \"standard-webhooks\", secrets = [\"env:HOOK\"], tolerance = \"1h\" }\n";
    let relay = relay(config).await;
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let provider = relay_schemes::provider("standard-webhooks").expect("a row");
    let scheme = provider.scheme.as_ref().expect("a scheme");
    let secrets = vec![relay_schemes::Secret::new(SECRET.as_bytes().to_vec())];
    let material = relay_schemes::Material { secrets, ..relay_schemes::Material::default() };
    let keys = provider.keys(&material).expect("a key").expect("a key");
    let now = jiff::Timestamp::now().as_second();
    let none: [(&str, &str); 0] = [];
    let unsigned = relay_schemes::Request { method: "POST", url: "", headers: &none, body: b"hello" };
    let lines = scheme.sign(&keys, &unsigned, Some("msg_1"), now - 10).expect("signs").headers;
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let response = send(&relay.public, request("POST", "/open", &lines, "hello")).await.expect("answers");
    let head = timeout(PATIENCE, heads.recv()).await.expect("a call").expect("a handler");
    let seen = |name: &str| head.headers[name].to_str().expect("text").to_owned();
    let sent = |name: &str| lines.iter().find(|(line, _)| *line == name).expect("sent").1.to_owned();
    assert_eq!((seen("relay-resigned"), seen("webhook-id")), ("true".to_owned(), sent("webhook-id")));
    assert_ne!(seen("webhook-signature"), sent("webhook-signature"));
    assert_eq!(head.headers.get_all("webhook-signature").iter().count(), 1);
    let lines_of: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let request = relay_schemes::Request { method: "POST", url: "", headers: &lines_of, body: b"hello" };
    scheme.verify(&keys, &request, jiff::Timestamp::now().as_second()).expect("the handler may check it");
    let kept = event(&relay, id(&response), is("delivered")).await;
    let original = serde_json::json!(["webhook-signature", sent("webhook-signature")]);
    assert!(kept["headers"].as_array().expect("a list").contains(&original), "{kept}");
}

#[tokio::test]
async fn what_was_let_pass_unproven_is_never_signed_by_the_relay() {
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"durable\"\nresign = \"always\"\n\
        verify = { provider = \"standard-webhooks\", secrets = [\"env:HOOK\"], enforce = false }\n";
    let relay = relay(config).await;
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let forged = [("webhook-id", "msg_1"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,Zm9yZ2Vk")];
    send(&relay.public, request("POST", "/open", &forged, "hello")).await.expect("answers");
    let head = timeout(PATIENCE, heads.recv()).await.expect("a call").expect("a handler");
    assert!(head.headers["relay-verified"].to_str().expect("text").starts_with("failed:"));
    assert_eq!(head.headers["webhook-signature"], "v1,Zm9yZ2Vk");
    assert!(!head.headers.contains_key("relay-resigned"));
}

#[tokio::test]
async fn a_replay_is_as_old_as_what_it_repeats() {
    let config = "[[endpoint]]\nname = \"open\"\nmode = \"durable\"\n\
        verify = { provider = \"standard-webhooks\", secrets = [\"env:HOOK\"], tolerance = \"1s\" }\n";
    let relay = relay(config).await;
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let lines = signed("standard-webhooks", SECRET, b"hello").expect("signs");
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let first = send(&relay.public, request("POST", "/open", &lines, "hello")).await.expect("answers");
    // Sooner or later the original is too old, however new the replay is.
    let end = Instant::now() + PATIENCE;
    loop {
        let head = timeout(PATIENCE, heads.recv()).await.expect("a call").expect("a handler");
        if head.headers.contains_key("relay-resigned") {
            assert_eq!(head.headers["relay-replay-of"], id(&first));
            return;
        }
        assert!(Instant::now() < end, "no replay was signed afresh");
        relay.ask(&["event", "replay", id(&first)]).await.expect("runs");
    }
}
