//! What those outside see of a relay: traces, alerts, the access log, canaries and numbers, all through real processes
//! and stand-ins for who listens.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use relay_schemes::{Material, Secret};
use relay_tests::{
    handler::{Handler, full},
    process::{PATIENCE, Server},
    sender::{request, send},
};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::live::raw;

const ASSURED: &str = "[[endpoint]]\nname = \"shop\"\nverify = \"none\"\n";
const LIVE: &str = "[[endpoint]]\nname = \"live\"\nmode = \"live\"\njournal = \"off\"\nverify = \"none\"\n";
const BROUGHT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn relay(config: &str) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", config, &[("ALERT", SECRET)]).await.expect("starts")
}

/// A stand-in that answers as it is told and reports what was posted to it.
async fn listener(
    answer: impl Fn() -> StatusCode + Clone + Send + 'static,
) -> (Handler, mpsc::UnboundedReceiver<(Parts, Bytes)>) {
    let (tell, posts) = mpsc::unbounded_channel();
    let handler = Handler::start(move |request: Request<Incoming>| {
        let (tell, status) = (tell.clone(), answer());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let _nobody_listens = tell.send((head, body));
            let mut response = Response::new(full(""));
            *response.status_mut() = status;
            response
        }
    });
    (handler.await.expect("a port"), posts)
}

async fn next<T>(from: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(PATIENCE, from.recv()).await.expect("in time").expect("one more")
}

async fn metrics(relay: &Server) -> String {
    let answer = send(&relay.admin, request("GET", "/metrics", &[], "")).await.expect("answers");
    String::from_utf8_lossy(answer.body()).into_owned()
}

/// The value of a sample, once it is one that is waited for.
async fn sample(relay: &Server, name: &str, is_there: impl Fn(f64) -> bool) -> f64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = metrics(relay).await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        match line.and_then(|value| value.parse().ok()) {
            Some(value) if is_there(value) => return value,
            _ => assert!(Instant::now() < deadline, "{name} in\n{text}"),
        }
    }
}

/// A span as the protocol has it: what its fields say, read without the relay's own code.
#[derive(Debug, Default)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    start_ns: u64,
    end_ns: u64,
    attributes: BTreeMap<String, String>,
}

enum WireValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> WireValue<'a> {
    fn bytes(&self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { panic!("a number") }
    }

    fn number(&self) -> u64 {
        if let Self::Number(number) = self { *number } else { panic!("bytes") }
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// The fields of a message of Protocol Buffers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, WireValue<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => WireValue::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_at(8);
                bytes = rest;
                WireValue::Number(u64::from_le_bytes(number.try_into().expect("eight")))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).expect("a length");
                let (part, rest) = bytes.split_at(length);
                bytes = rest;
                WireValue::Bytes(part)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn part<'a>(message: &'a [u8], number: u64) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    fields(message).into_iter().filter(move |(tag, _)| *tag == number).map(|(_, value)| value.bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn attribute(pair: &[u8]) -> (String, String) {
    let (mut key, mut value) = (String::new(), String::new());
    for (tag, field) in fields(pair) {
        match tag {
            1 => key = text(field.bytes()),
            _ => {
                for (kind, field) in fields(field.bytes()) {
                    value = if kind == 1 { text(field.bytes()) } else { field.number().to_string() };
                }
            }
        }
    }
    (key, value)
}

/// The spans of an export, and the attributes of what they are of.
fn spans(export: &[u8]) -> (Vec<Span>, BTreeMap<String, String>) {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let (mut spans, mut resource) = (Vec::new(), BTreeMap::new());
    for of_resource in part(export, 1) {
        resource.extend(part(of_resource, 1).flat_map(|one| part(one, 1)).map(attribute));
        for message in part(of_resource, 2).flat_map(|of_scope| part(of_scope, 2)) {
            let mut span = Span::default();
            for (tag, value) in fields(message) {
                match tag {
                    1 => span.trace = hex(value.bytes()),
                    2 => span.id = hex(value.bytes()),
                    4 => span.parent = hex(value.bytes()),
                    5 => span.name = text(value.bytes()),
                    7 => span.start_ns = value.number(),
                    8 => span.end_ns = value.number(),
                    9 => span.attributes.extend([attribute(value.bytes())]),
                    _ => {}
                }
            }
            spans.push(span);
        }
    }
    (spans, resource)
}

#[tokio::test]
async fn a_trace_goes_from_the_sender_through_the_relay_to_the_handler() {
    let (collector, mut posts) = listener(|| StatusCode::OK).await;
    let telemetry = format!(
        "[telemetry]\notlp = \"http://{}\"\nheaders = {{ authorization = \"env:ALERT\" }}\n\
         attributes = {{ \"deployment.environment\" = \"test\" }}\n",
        collector.address
    );
    let relay = relay(&format!("{telemetry}{ASSURED}{LIVE}")).await;
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let _agent = relay.agent("shop", &handler.port(), &[]).await.expect("attaches");
    let _other = relay.agent("live", &handler.port(), &[]).await.expect("attaches");
    for (endpoint, expected) in [
        ("shop", &["attempt", "handler", "store", "tunnel", "verify", "webhook"][..]),
        ("live", &["attempt", "handler", "tunnel", "verify", "webhook"]),
    ] {
        let post = request("POST", &format!("/{endpoint}"), &[("traceparent", BROUGHT)], "{}");
        let answer = send(&relay.public, post).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::OK);
        let event_id = answer.headers()["relay-event-id"].to_str().expect("text").to_owned();
        let told = next(&mut heads).await.headers["traceparent"].to_str().expect("text").to_owned();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let (head, body) = next(&mut posts).await;
            assert_eq!((head.uri.path(), head.method.as_str()), ("/v1/traces", "POST"));
            assert_eq!(head.headers["content-type"], "application/x-protobuf");
            assert_eq!(head.headers["authorization"], SECRET);
            let (more, resource) = spans(&body);
            assert_eq!(resource["service.name"], "relay-server");
            assert_eq!(resource["deployment.environment"], "test");
            seen.extend(more);
        }
        let named: BTreeMap<_, _> = seen.iter().map(|span| (&*span.name, span)).collect();
        assert_eq!(named.keys().copied().collect::<Vec<_>>(), expected);
        let (trace, brought) = (&BROUGHT[3..35], &BROUGHT[36..52]);
        for span in &seen {
            assert!(span.trace == trace && span.start_ns <= span.end_ns, "{span:?}");
            assert_eq!(span.attributes["relay.event_id"], event_id);
        }
        let parents = [("webhook", brought), ("verify", &*named["webhook"].id), ("attempt", &*named["webhook"].id)];
        let parents = parents.into_iter().chain([("tunnel", &*named["attempt"].id), ("handler", &*named["tunnel"].id)]);
        parents.for_each(|(name, parent)| assert_eq!(named[name].parent, parent, "{name}"));
        assert_eq!(
            told,
            format!("00-{trace}-{}-01", named["handler"].id),
            "the handler's own spans stand below the call"
        );
        assert_eq!(named["webhook"].attributes["http.response.status_code"], "200");
        let (tunnel, handler) = (named["tunnel"], named["handler"]);
        assert!(tunnel.start_ns <= handler.start_ns && handler.end_ns <= tunnel.end_ns, "{tunnel:?} {handler:?}");
    }
}

#[tokio::test]
async fn a_trace_that_begins_here_has_the_digits_of_its_event_and_no_collector_is_needed() {
    let relay = relay(ASSURED).await;
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let _agent = relay.agent("shop", &handler.port(), &[]).await.expect("attaches");
    let answer = send(&relay.public, request("POST", "/shop", &[], "{}")).await.expect("answers");
    let event_id = answer.headers()["relay-event-id"].to_str().expect("text").to_owned();
    let told = next(&mut heads).await.headers["traceparent"].to_str().expect("text").to_owned();
    assert_eq!(told[3..35], event_id["hook_".len()..]);
    let post = request("POST", "/shop", &[("traceparent", BROUGHT)], "{\"n\":2}");
    send(&relay.public, post).await.expect("answers");
    assert_eq!(next(&mut heads).await.headers["traceparent"], BROUGHT, "nothing stands between");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    // A port that nobody listens on.
    let away = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let mut relay = relay(&format!("[telemetry]\notlp = \"http://{away}\"\n{ASSURED}")).await;
    let handler = Handler::echo().await.expect("a handler");
    let _agent = relay.agent("shop", &handler.port(), &[]).await.expect("attaches");
    for n in 0..20 {
        let answer =
            send(&relay.public, request("POST", "/shop", &[], format!("{{\"n\":{n}}}"))).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::OK);
    }
    sample(&relay, "relay_spans_dropped_total", |dropped| dropped >= 20.0).await;
    assert_eq!(sample(&relay, "relay_spans_exported_total", |_| true).await, 0.0);
    let log = relay.log_so_far();
    assert_eq!(log.matches("spans were not exported").count(), 1, "{log}");
}

#[tokio::test]
async fn an_alert_is_signed_tried_again_and_posted_once_for_each_cause() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let first_fails = move || match count.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NO_CONTENT,
    };
    let (receiver, mut posts) = listener(first_fails).await;
    let alert = format!("[alert]\nurl = \"http://{}/in?key=hunter2\"\nsecret = \"env:ALERT\"\n", receiver.address);
    let relay = relay(&format!("{alert}{ASSURED}on_failure = \"pass\"\n")).await;
    let handler = Handler::start(|_| async {
        let mut response = Response::new(full("no"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    let handler = handler.await.expect("a handler");
    let _agent = relay.agent("shop", &handler.port(), &[]).await.expect("attaches");
    for n in 0..3 {
        let answer =
            send(&relay.public, request("POST", "/shop", &[], format!("{{\"n\":{n}}}"))).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let row = relay_schemes::provider("standard-webhooks").expect("a row");
    let scheme = row.scheme.as_ref().expect("a scheme");
    let keys = scheme.keys_from(&Material::secrets(&[Secret::new(SECRET)])).expect("keys");
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let (head, body) = next(&mut posts).await;
        let lines: Vec<(&str, &[u8])> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let signed = relay_schemes::Request { method: "POST", url: "", headers: &lines, body: &body };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
        scheme.verify(&keys, &signed, i64::try_from(now).expect("in range")).expect("its signature");
        let said: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&said["type"], &said["data"]["cause"]), (&"relay.alert.raised".into(), &"dead_letters".into()));
        ids.insert(head.headers["webhook-id"].to_str().expect("text").to_owned());
    }
    assert_eq!(ids.len(), 1, "the second try is of the same message");
    sample(&relay, "relay_alerts_posted_total", |posted| posted == 1.0).await;
    assert_eq!(sample(&relay, "relay_alerts_active{cause=\"dead_letters\"}", |_| true).await, 1.0);
    let (code, said) = relay.ask(&["alert", "list"]).await.expect("ends");
    assert!(code == 0 && said.contains("dead_letters") && said.contains("3 events became dead letters"), "{said}");
    let (code, said) = relay.ask(&["alert", "test"]).await.expect("ends");
    assert!(code == 0 && said.contains("it answered 204") && !said.contains("hunter2"), "{said}");
    let (_, body) = next(&mut posts).await;
    assert!(body.starts_with(b"{\"type\":\"relay.alert.test\""), "and nothing else came before it");
}

#[tokio::test]
async fn alerts_are_tested_only_where_they_are_posted_and_never_to_the_relay_itself() {
    let relay = relay(ASSURED).await;
    let (code, _) = relay.ask(&["alert", "test"]).await.expect("ends");
    assert_eq!(code, 1);
    let config = |alert: &str| {
        format!(
            "version = 1\n[server]\npublic_url = \"https://hooks.test\"\nlisten = \"127.0.0.1:8080\"\n{alert}\n[[token]]\nname = \"a\"\nsha256 = [\"{}\"]\nendpoints = [\"*\"]\n",
            "0".repeat(64)
        )
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("s"), SECRET).expect("writes");
    std::fs::set_permissions(folder.path().join("s"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    for (alert, word) in [
        ("[alert]\nurl = \"https://Hooks.test/shop\"\nsecret = \"file:s\"", "is this relay itself"),
        ("[alert]\nurl = \"http://localhost:8080/shop\"\nsecret = \"file:s\"", "is this relay itself"),
        ("[alert]\nurl = \"https://alerts.test\"", "no secret to sign with"),
        ("[alert]\nurl = \"https://me:hunter2@alerts.test\"\nsecret = \"file:s\"", "holds a user name"),
        ("[telemetry]\notlp = \"grpc://collector:4317\"", "is not an http or https URL"),
        ("[telemetry]\notlp = \"http://127.0.0.1:4318\"\nsample = \"2\"", "is not a part"),
        ("[log]\naccess = \"stderr\"", "is no place for the access log"),
        ("[canary]\nevery = \"10ms\"", "is out of bounds"),
    ] {
        let path = folder.path().join("relay.toml");
        std::fs::write(&path, config(alert)).expect("writes");
        let mut command = relay_tests::program::Program::from(Path::new(env!("CARGO_BIN_EXE_demo"))).role("server");
        command.args(["config", "check", "--config"]).arg(&path);
        let (code, said) = relay_tests::process::run_to_end(&mut command, "").await.expect("ends");
        assert!(code == 2 && said.contains(word) && !said.contains("hunter2"), "{alert}: {code} {said}");
    }
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request_and_no_secret() {
    let away = "[[endpoint]]\nname = \"away\"\nmode = \"live\"\nverify = \"none\"\nwait_for_agent = \"20s\"\n";
    let relay = relay(&format!("[log]\naccess = \"file:access.log\"\n{ASSURED}{LIVE}{away}")).await;
    let handler = Handler::echo().await.expect("a handler");
    let _agent = relay.agent("live", &handler.port(), &[]).await.expect("attaches");
    let agent = [("user-agent", "sender/1"), ("authorization", "Bearer hunter2"), ("cookie", "hunter2")];
    let post = request("POST", "/live/orders?token=hunter2&page=7", &agent[..1], "hello");
    send(&relay.public, post).await.expect("answers");
    send(&relay.public, request("POST", "/live/x", &agent[1..], "hunter2")).await.expect("answers");
    send(&relay.public, request("GET", "/nothing/here?api_key=hunter2", &[], "")).await.expect("answers");
    send(&relay.public, request("GET", "/_relay/v1/events?token=hunter2", &[], "")).await.expect("answers");
    // One whose head nobody can be sure of, one that asks for no host's business, and a sender that leaves.
    for head in ["POST /live/frag#f HTTP/1.1\r\nHost: h", "POST /live/host HTTP/1.1\r\nHost: a b"] {
        let answer = raw(&relay.public, format!("{head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let held = request("POST", "/away/left", &[], "");
    let left = timeout(Duration::from_millis(200), send(&relay.public, held)).await;
    assert!(left.is_err(), "nobody answers it");
    let path = relay.folder().join("access.log");
    let deadline = Instant::now() + PATIENCE;
    let lines = loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // The agent's own connection is one as well.
        if lines.len() >= 8 {
            assert!(!text.contains("hunter2") && !text.contains('\u{1b}'), "{text}");
            break lines;
        }
        assert!(Instant::now() < deadline, "{text}");
        tokio::task::yield_now().await;
    };
    let of = |path: &str| lines.iter().find(|line| line["path"].as_str().is_some_and(|one| one.contains(path)));
    let posted = of("/orders").expect("a line");
    assert!(posted["path"].as_str().is_some_and(|path| path.ends_with("/orders?token=[masked]&page=7")), "{posted}");
    assert!(
        !posted["path"].as_str().is_some_and(|path| path.contains("live")),
        "an open endpoint's name is its secret"
    );
    for (field, value) in [("method", "POST"), ("protocol", "HTTP/1.1"), ("outcome", "2xx"), ("client", "127.0.0.1")] {
        assert_eq!(posted[field], value);
    }
    assert_eq!(
        (&posted["status"], &posted["request_bytes"], &posted["answer_bytes"]),
        (&200.into(), &5.into(), &5.into())
    );
    assert_eq!((&posted["complete"], &posted["tls"]), (&true.into(), &false.into()));
    assert!(posted["ended_us"].as_u64() >= posted["answered_us"].as_u64() && posted["event_id"].is_string());
    let left = of("/left").expect("a line");
    assert_eq!((&left["status"], &left["complete"]), (&0.into(), &false.into()));
    assert!(!left["path"].to_string().contains("away") && left["endpoint"].is_string(), "{left}");
    let doubtful: Vec<_> = lines.iter().filter(|line| line["status"] == 400).collect();
    assert!(doubtful.len() == 2 && doubtful.iter().all(|line| line["path"].is_null()), "{doubtful:?}");
    let unknown = of("/nothing/here").expect("a line");
    assert_eq!((&unknown["status"], &unknown["error"]), (&404.into(), &"endpoint_not_found".into()));
    let attached = of("/_relay/v1/connect").expect("a line");
    assert_eq!(attached["status"], 101);
    assert_eq!(of("/_relay/v1/events").expect("a line")["status"], 401);
}

#[tokio::test]
async fn a_canary_goes_the_whole_way_and_stands_in_no_list() {
    let relay = relay(&format!("[canary]\nevery = \"1s\"\n{ASSURED}")).await;
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let mut agent = relay.agent("shop", &handler.port(), &["--name", "laptop"]).await.expect("attaches");
    sample(&relay, "relay_canaries_total{outcome=\"answered\"}", |answered| answered >= 2.0).await;
    assert_eq!(sample(&relay, "relay_canaries_total{outcome=\"failed\"}", |_| true).await, 0.0);
    let latency = "relay_canary_latency_seconds{token=\"test\",agent=\"laptop\"}";
    assert!(sample(&relay, latency, |took| took > 0.0).await < 5.0);
    assert!(heads.try_recv().is_err(), "no handler is called");
    let token = relay.admin_token().expect("a token");
    for path in ["/events", "/events?state=dead", "/endpoints", "/agents", "/refused", "/dead/groups", "/figures"] {
        let bearer = format!("Bearer {token}");
        let path = format!("/api/v1{path}");
        let answer =
            send(&relay.admin, request("GET", &path, &[("authorization", &bearer)], "")).await.expect("answers");
        let said = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(answer.status().is_success() && !said.contains("canary"), "{path}: {said}");
    }
    let text = metrics(&relay).await;
    for family in
        ["relay_webhooks_received_total", "relay_webhooks_answered_total", "relay_events_total", "relay_events_waiting"]
    {
        let samples: Vec<_> = text.lines().filter(|line| line.starts_with(family) && !line.ends_with(" 0")).collect();
        assert!(samples.is_empty(), "{samples:?}");
    }
    let bearer = format!("Bearer {token}");
    let about =
        send(&relay.admin, request("GET", "/api/v1/", &[("authorization", &bearer)], "")).await.expect("answers");
    let about: Value = serde_json::from_slice(about.body()).expect("JSON");
    assert_eq!(about["relay"]["canaries"], serde_json::json!({ "every_s": 1, "agents": 1, "failing": 0 }));
    // A stranger finds no more there than elsewhere, and leaves nothing.
    let forged = [("webhook-id", "x"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA")];
    let answer = send(&relay.public, request("POST", "/_relay/v1/canary", &forged, "{}")).await.expect("answers");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(agent.stop().await.expect("ends"));
    let printed = agent.rest().await;
    assert!(!printed.contains("canary"), "{printed}");
}

#[tokio::test]
async fn what_a_stranger_posts_as_a_canary_is_small_and_refused() {
    let relay = relay(&format!("[canary]\nevery = \"1h\"\n{ASSURED}")).await;
    let forged = [("webhook-id", "x"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA")];
    for (bytes, status) in [(1024, StatusCode::UNAUTHORIZED), (1025, StatusCode::PAYLOAD_TOO_LARGE)] {
        let post = request("POST", "/_relay/v1/canary", &forged, vec![b'x'; bytes]);
        assert_eq!(send(&relay.public, post).await.expect("answers").status(), status, "{bytes}");
    }
    let (code, listed) = relay.ask(&["event", "list", "--state", "refused"]).await.expect("runs");
    assert_eq!((code, &*listed), (0, ""), "it is on nobody's record");
}

#[tokio::test]
async fn a_canary_that_stops_is_told_of_and_so_is_its_return() {
    // A session that stands still is over after ten seconds, and alerts are looked for every ten.
    const LONG: Duration = Duration::from_secs(90);
    let (receiver, mut posts) = listener(|| StatusCode::NO_CONTENT).await;
    let alert = format!("[alert]\nurl = \"http://{}/\"\nsecret = \"env:ALERT\"\n", receiver.address);
    let relay = relay(&format!("{alert}[canary]\nevery = \"1s\"\n{ASSURED}")).await;
    let handler = Handler::echo().await.expect("a handler");
    let mut agent = relay.agent("shop", &handler.port(), &["--name", "laptop"]).await.expect("attaches");
    let mut leaves = relay.agent("shop", &handler.port(), &["--name", "leaves"]).await.expect("attaches");
    let answered = "relay_canaries_total{outcome=\"answered\"}";
    sample(&relay, answered, |answered| answered >= 4.0).await;
    assert!(leaves.stop().await.expect("ends"), "this one is missed by nobody");
    agent.signal("-STOP").await.expect("stands still");
    let mut told = async |kind: &str| {
        let (_, body) = timeout(LONG, posts.recv()).await.expect("in time").expect("one more");
        let said: Value = serde_json::from_slice(&body).expect("JSON");
        let (cause, subject) = (&said["data"]["cause"], &said["data"]["subject"]);
        assert_eq!((&said["type"], cause, subject), (&kind.into(), &"canary".into(), &"test/laptop".into()), "{said}");
    };
    told("relay.alert.raised").await;
    assert_eq!(sample(&relay, "relay_alerts_active{cause=\"canary\"}", |_| true).await, 1.0);
    assert!(sample(&relay, "relay_canaries_total{outcome=\"failed\"}", |_| true).await >= 3.0);
    let silence = "relay_canary_silence_seconds{token=\"test\",agent=\"laptop\"}";
    assert!(sample(&relay, silence, |_| true).await >= 3.0);
    let (code, said) = relay.ask(&["alert", "list"]).await.expect("ends");
    assert!(code == 0 && said.contains("test/laptop") && !said.contains("leaves"), "{said}");

    agent.signal("-CONT").await.expect("goes on");
    let before = sample(&relay, answered, |_| true).await;
    told("relay.alert.ended").await;
    assert_eq!(sample(&relay, "relay_alerts_active{cause=\"canary\"}", |_| true).await, 0.0);
    assert!(sample(&relay, answered, |answered| answered > before).await > before);
    assert!(posts.try_recv().is_err(), "each is said once");
    assert!(agent.stop().await.expect("ends"), "it came back by itself");
}

#[tokio::test]
async fn every_metric_is_in_the_guide_with_its_unit_and_the_deployed_files_name_no_other() {
    let relay = relay(&format!("[canary]\nevery = \"1s\"\n{ASSURED}")).await;
    let handler = Handler::echo().await.expect("a handler");
    let _agent = relay.agent("shop", &handler.port(), &[]).await.expect("attaches");
    send(&relay.public, request("POST", "/shop", &[], "{}")).await.expect("answers");
    sample(&relay, "relay_canaries_total{outcome=\"answered\"}", |answered| answered >= 1.0).await;
    let text = metrics(&relay).await;
    let given: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let guide = std::fs::read_to_string(root.join("docs/monitoring.md")).expect("a guide");
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `relay_"));
    let mut written = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        let name = format!("relay_{}", cells[0].trim_end_matches('`'));
        for unit in ["seconds", "bytes"] {
            assert_eq!(name.contains(&format!("_{unit}")), cells[1] == unit, "{name} is in {}", cells[1]);
        }
        written.insert(name, cells[1].to_owned());
    }
    let mut written_names: BTreeSet<_> = written.keys().map(String::as_str).collect();
    // This relay has no certificate.
    assert!(written_names.remove("relay_certificate_expiry_timestamp_seconds"));
    assert_eq!(written_names, given);
    for file in ["deploy/grafana/relay.json", "deploy/prometheus/alerts.yml"] {
        let text = std::fs::read_to_string(root.join(file)).expect("a file");
        let is_of_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        let names = text.match_indices("relay_").map(|(at, _)| &text[at..]);
        let names = names.map(|rest| rest.split(|letter| !is_of_name(letter)).next().unwrap_or_default());
        let mut count = 0;
        for name in names {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(written.contains_key(base), "{file}: there is no {name}");
            count += 1;
        }
        assert!(count > 10, "{file} names only {count} metrics");
    }
    let dashboard = std::fs::read_to_string(root.join("deploy/grafana/relay.json")).expect("a file");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 15));
}

#[tokio::test]
async fn the_alert_rules_are_ones_that_prometheus_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut check = tokio::process::Command::new("promtool");
    check.args(["check", "rules"]).arg(root.join("deploy/prometheus/alerts.yml"));
    match timeout(PATIENCE.max(Duration::from_secs(60)), check.output()).await.expect("it ends") {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => eprintln!("skipped: there is no promtool here (Debian's prometheus)"),
    }
}
