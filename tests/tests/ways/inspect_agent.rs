//! The agent's own page: who may ask it, what it passes on to the relay and what not, and what it shows when the relay is
//! away.

use std::{
    convert::Infallible,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use relay_tests::{
    handler::{Handler, full},
    link::{Link, State},
    process::{Agent, PATIENCE, Server},
    sender::{request, send, send_streaming},
};
use serde_json::Value;
use tokio::{process::Command, sync::broadcast, time::timeout};

const KEPT: &str = "[[endpoint]]\nname = \"open\"\nmode = \"assured\"\nverify = \"none\"\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// The page of an agent.
struct Page {
    address: String,
    key: String,
    agent: Agent,
    folder: tempfile::TempDir,
}

impl Page {
    /// Starts an agent that offers `open` to this relay, and finds its page.
    async fn of(relay: &str, token: &str, target: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(program());
        command.args(["client", "listen", target, "open", "--output", "json", "--name", "here"]);
        command.args(["--relay", &format!("http://{relay}"), "--inspect-addr", "0", "-H", "X-Own: mine alone"]);
        command.env("RELAY_TOKEN", token).env("XDG_CONFIG_HOME", folder.path()).current_dir(folder.path());
        let mut agent = Agent::spawn(&mut command).expect("an agent");
        let line: Value = serde_json::from_str(&agent.line("\"inspect\"").await.expect("its page")).expect("JSON");
        let file = Path::new(line["key_file"].as_str().expect("a file"));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let key = std::fs::read_to_string(file).expect("reads");
        assert!(!line.to_string().contains(&key), "no output for machines has the key");
        let address = line["address"].as_str().expect("an address");
        let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { address, key, agent, folder }
    }

    async fn ask(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let key = format!("Bearer {}", self.key);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in [("host", self.address.as_str()), ("authorization", &key)] {
            if !more.iter().any(|(other, _)| *other == name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let body = http_body_util::Full::new(Bytes::copy_from_slice(body.as_bytes()));
        send(&self.address, request.body(body).expect("a request")).await.expect("answers")
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.ask("GET", &format!("/api/v1/{path}"), &[], "").await;
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    /// Asks until it is so.
    async fn until(&self, path: &str, so: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let (_, value) = self.get(path).await;
                if so(&value) {
                    return value;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{path} never becomes so"))
    }

    /// A stream's body.
    async fn stream(&self, query: &str, last_id: Option<&str>) -> Incoming {
        let key = format!("Bearer {}", self.key);
        let mut request = Request::get(format!("/api/v1/stream{query}")).header("host", &self.address);
        request = request.header("authorization", key);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = send_streaming(&self.address, request.body(Default::default()).expect("a request")).await;
        let response = response.expect("answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        response.into_body()
    }
}

/// Reads until the text holds that.
async fn read_until(body: &mut Incoming, wanted: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(wanted) {
            let Some(frame) = body.frame().await else { return };
            text += &String::from_utf8_lossy(&frame.expect("unbroken").into_data().unwrap_or_default());
        }
    };
    let read = timeout(PATIENCE, reading).await;
    assert!(read.is_ok() && text.contains(wanted), "{wanted} never comes: {text}");
    text
}

#[tokio::test]
async fn only_the_page_itself_may_ask_and_only_what_the_list_names() {
    let relay = Server::start(program(), "127.0.0.1:0", KEPT, &[]).await.expect("a relay");
    let handler = Handler::echo().await.expect("a handler");
    let mut page = Page::of(&relay.public, &relay.token, &handler.port()).await;
    page.agent.line("\"ready\"").await.expect("it attaches");
    let sent = send(&relay.public, request("POST", "/open/x?y=1", &[("x-tag", "a")], "hello")).await.expect("answers");
    let id = sent.headers()["relay-event-id"].to_str().expect("text").to_owned();

    let (status, list) = page.get("events").await;
    assert!(status == 200 && list["events"][0]["id"] == id.as_str(), "{list}");
    let body = page.ask("GET", &format!("/api/v1/events/{id}/body"), &[], "").await;
    assert_eq!(body.body(), "hello");
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "attachment; filename=\"body\""),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        let said = body.headers().get(name).map(|value| value.to_str().expect("text"));
        assert!(said.is_some_and(|said| said.starts_with(value.trim_end_matches("body\""))), "{name}: {said:?}");
    }
    assert!(body.headers()["content-security-policy"].to_str().expect("text").contains("sandbox"));

    let events = "/api/v1/events";
    for (more, expected) in [
        (&[("host", "evil.test")][..], 421),
        (&[("host", "127.0.0.1:1")], 421),
        (&[("origin", "http://127.0.0.1:3000")], 403),
        (&[("sec-fetch-site", "same-site")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("authorization", "Bearer of another")], 401),
        (&[("authorization", "")], 401),
        (&[("sec-fetch-site", "same-origin"), ("cookie", "a=b")], 200),
    ] {
        let answer = page.ask("GET", events, more, "").await;
        assert_eq!(answer.status(), expected, "{more:?}");
        assert!(answer.headers().get("set-cookie").is_none());
        assert!(answer.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
    }
    for (method, path, expected) in [
        ("GET", "/api/v1/tokens", 404),
        ("POST", "/api/v1/sessions", 404),
        ("PUT", "/api/v1/config", 404),
        ("GET", "/api/v1/../_relay/v1/events", 404),
        ("GET", "/api/v1/events/%2e%2e", 404),
        ("DELETE", "/api/v1/events", 405),
        ("POST", "/api/v1/agent", 405),
        ("GET", "/api/v1/nothing", 404),
    ] {
        assert_eq!(page.ask(method, path, &[], "").await.status(), expected, "{method} {path}");
    }
    let json = ("content-type", "application/json");
    let bulk = "/api/v1/events/x/replay";
    assert_eq!(page.ask("POST", bulk, &[("content-type", "text/plain")], "{}").await.status(), 415);
    assert_eq!(page.ask("POST", bulk, &[json], &"x".repeat(1 << 21)).await.status(), 413);

    let frame = page.ask("GET", "/e/hook_1", &[("authorization", "")], "").await;
    assert_eq!(
        (frame.status().as_u16(), &frame.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(frame.headers()["content-security-policy"].to_str().expect("text").contains("trusted-types 'none'"));
    let etag = frame.headers()["etag"].to_str().expect("text");
    assert_eq!(page.ask("GET", "/e/hook_1", &[("if-none-match", etag)], "").await.status(), 304);
    assert_eq!(page.ask("GET", "/app.js", &[("host", "evil.test")], "").await.status(), 421);
    assert_eq!(page.ask("GET", "/app.js", &[("sec-fetch-site", "cross-site")], "").await.status(), 403);
    assert_eq!(page.ask("GET", "/../Cargo.toml", &[], "").await.status(), 404);

    // To this agent itself, as the page does it.
    let replay = format!("/api/v1/events/{id}/replay?to=agent&name=here");
    let replayed = page.ask("POST", &replay, &[], "").await;
    assert_eq!(replayed.status(), 200, "{:?}", replayed.body());
    let exchanges =
        page.until("agent/exchanges", |list| list["exchanges"].as_array().is_some_and(|all| all.len() == 2));
    let exchanges = exchanges.await;
    assert_eq!(exchanges["exchanges"][0]["replay_of"], id.as_str(), "{exchanges}");
    let key_file = page.folder.path().join("relay").read_dir().expect("a folder").count();
    assert!(page.agent.stop().await.expect("stops"));
    let left = page.folder.path().join("relay").read_dir().expect("a folder").count();
    assert_eq!((key_file, left), (1, 0), "the key's file goes with the agent");
}

#[tokio::test]
async fn what_came_to_this_agent_is_shown_while_the_relay_is_away() {
    let relay = Server::start(program(), "127.0.0.1:0", KEPT, &[]).await.expect("a relay");
    let handler = Handler::echo().await.expect("a handler");
    let link = Link::start(&relay.public).await.expect("a link");
    let mut page = Page::of(&link.address.to_string(), &relay.token, &handler.port()).await;
    page.agent.line("\"ready\"").await.expect("it attaches");
    let ready = page.until("agent", |agent| agent["state"] == "ready").await;
    assert_eq!((&ready["name"], &ready["targets"][0]["standing"]), (&"here".into(), &"active".into()), "{ready}");
    let headers = [("authorization", "Bearer of-the-sender"), ("x-tag", "<b>")];
    let body = "the same bytes".repeat(10_000);
    let sent = send(&relay.public, request("POST", "/open/x?y=1", &headers, body.clone())).await.expect("answers");
    let id = sent.headers()["relay-event-id"].to_str().expect("text").to_owned();

    let (status, about) = page.get("").await;
    let is_agents =
        |about: &Value| about["api"]["features"].as_array().is_some_and(|all| all.contains(&"agent".into()));
    assert!(status == 200 && is_agents(&about) && about["agent"]["name"] == "here", "{about}");
    assert!(about["relay"]["version"].as_str().is_some_and(|version| !version.is_empty()), "{about}");

    link.set(State::Cut);
    let lost = page.until("agent", |agent| agent["state"] == "reconnecting").await;
    assert_eq!(page.get("").await, (200, about), "the relay's last word stands");
    let alone = Page::of("127.0.0.1:1", &relay.token, &handler.port()).await;
    let (status, known) = alone.get("").await;
    assert!(status == 200 && is_agents(&known) && known["you"]["rights"]["*"][0] == "read", "{known}");
    assert!(lost["why"].is_string() && lost["again_at"].is_string(), "{lost}");
    assert_eq!(lost["targets"][0]["standing"], "away");
    let (status, problem) = page.get("events").await;
    assert!(status == 503 && problem["code"] == "relay_unreachable", "{status} {problem}");

    let seen = page.until(&format!("agent/exchanges/{id}"), |seen| seen["exchanges"].is_array()).await;
    let seen = &seen["exchanges"][0];
    let hex =
        data_encoding::HEXLOWER.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes()).as_ref());
    assert_eq!((&seen["status"], &seen["target"]), (&200.into(), &"/x?y=1".into()), "{seen}");
    assert_eq!((&seen["request"]["sha256"], &seen["answer"]["sha256"]), (&hex.as_str().into(), &hex.as_str().into()));
    assert_eq!((&seen["request"]["size"], &seen["request"]["kept"]), (&body.len().into(), &(64 * 1024).into()));
    assert!(seen["called_us"].as_u64() <= seen["head_us"].as_u64() && seen["ended_us"].is_u64(), "{seen}");
    let text = seen.to_string();
    assert!(!text.contains("of-the-sender") && !text.contains("mine alone"), "{text}");
    assert_eq!(seen["masked"], serde_json::json!(["authorization", "x-own"]));
    let number = &seen["number"];
    let path = format!("/api/v1/agent/exchanges/{id}/{number}/request?offset=65530");
    let rest = page.ask("GET", &path, &[], "").await;
    assert_eq!(
        (rest.body().as_ref(), &rest.headers()["content-type"]),
        (&body.as_bytes()[65_530..65_536], &"application/octet-stream".parse().unwrap())
    );
    assert_eq!(page.get("agent/exchanges/hook_unknown").await.0, 404);

    link.set(State::Up);
    page.until("agent", |agent| agent["state"] == "ready").await;
    assert_eq!(page.get("events").await.0, 200);
}

#[tokio::test]
async fn a_relay_that_answers_with_a_page_is_an_error_and_none_of_it_is_shown() {
    let strange = Handler::start(|request: Request<Incoming>| async move {
        let kind = if request.uri().path().ends_with("/agents") { "text/javascript" } else { "text/html" };
        let mut response = Response::new(full("<script>alert(1)</script>"));
        for (name, value) in [
            ("content-type", kind),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("location", "http://evil.test/"),
            ("refresh", "0; url=http://evil.test/"),
        ] {
            response.headers_mut().insert(name, value.parse().expect("a value"));
        }
        match request.uri().path() {
            "/_relay/v1/figures" => *response.status_mut() = http::StatusCode::FOUND,
            // Of the right kind, and with more than is passed on.
            "/_relay/v1/endpoints" => {
                response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
            }
            _ => {}
        }
        response
    })
    .await
    .expect("a server");
    let page = Page::of(&strange.address.to_string(), "rt_any_token", "9").await;
    for path in ["events", "agents", "figures", "events/x/body", "stream"] {
        let answer = page.ask("GET", &format!("/api/v1/{path}"), &[], "").await;
        assert_eq!(answer.status(), 502, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        let body = String::from_utf8_lossy(answer.body());
        assert!(body.contains("relay_strange") && !body.contains("alert"), "{body}");
    }
    let answer = page.ask("GET", "/api/v1/endpoints", &[], "").await;
    for name in ["set-cookie", "access-control-allow-origin", "location", "refresh"] {
        assert!(answer.headers().get(name).is_none(), "{name}");
    }
    assert_eq!(answer.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn tabs_share_one_stream_of_the_relay_and_go_on_where_they_were() {
    let (tell, _) = broadcast::channel::<Bytes>(64);
    let (opened, telling) = (Arc::new(AtomicUsize::new(0)), tell.clone());
    let counted = Arc::clone(&opened);
    let relay = Handler::start(move |request: Request<Incoming>| {
        let (told, opened) = (telling.subscribe(), Arc::clone(&counted));
        async move {
            if request.uri().path() != "/_relay/v1/stream" {
                return Response::new(full("not a relay's session"));
            }
            opened.fetch_add(1, Ordering::SeqCst);
            let after = request.headers().get("last-event-id").map(|id| id.to_str().unwrap_or_default().to_owned());
            let hello = format!("event: hello\ndata: {{\"after\":{}}}\n\n", serde_json::json!(after));
            let first = futures_util::stream::iter([Ok(Bytes::from(hello))]);
            let rest = futures_util::stream::unfold(told, |mut told| async move {
                let next = told.recv().await.ok().filter(|text| !text.is_empty())?;
                Some((Ok(next), told))
            });
            let all = futures_util::StreamExt::chain(first, rest);
            let frames = futures_util::StreamExt::map(all, |data: Result<Bytes, Infallible>| data.map(Frame::data));
            let body = StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync();
            let mut response = Response::new(body);
            response.headers_mut().insert("content-type", "text/event-stream".parse().expect("a value"));
            response
        }
    })
    .await
    .expect("a server");
    let page = Page::of(&relay.address.to_string(), "rt_any_token", "9").await;
    let mut first = page.stream("?q=is:dead", Some("k-1")).await;
    let text = read_until(&mut first, "event: agent").await + &read_until(&mut first, "").await;
    assert!(text.contains("\"name\":\"here\""), "{text}");
    let mut second = page.stream("?q=is:dead", Some("k-1")).await;
    let hello = read_until(&mut second, "event: hello").await;
    assert!(hello.contains("{\"after\":\"k-1\"}"), "the relay is asked from there: {hello}");
    tell.send("id: k-2\nevent: rows\ndata: {\"rows\":[1]}\n\nid: k-3\nevent: rows\ndata: {\"rows\":[2]}\n\n".into())
        .unwrap();
    for tab in [&mut first, &mut second] {
        read_until(tab, "id: k-3\nevent: rows\ndata: {\"rows\":[2]}\n\n").await;
    }
    let mut third = page.stream("?q=is:dead", Some("k-2")).await;
    let rest = read_until(&mut third, "{\"rows\":[2]}").await;
    assert!(!rest.contains("[1]"), "{rest}");
    let mut fourth = page.stream("?q=is:dead", Some("z-9")).await;
    assert!(read_until(&mut fourth, "event: resync").await.contains("too_old"));
    assert_eq!(opened.load(Ordering::SeqCst), 1, "one stream for all of them");
    let mut fifth = page.stream("?q=is:dead", None).await;
    read_until(&mut fifth, "event: hello").await;
    let mut other = page.stream("?q=is:live", None).await;
    read_until(&mut other, "event: hello").await;
    assert_eq!(opened.load(Ordering::SeqCst), 2);

    // The relay ends it, in the middle of a message: tabs learn it, and what was whole was told.
    tell.send("id: k-4\nevent: bye\ndata: {\"why\":\"draining\"}\n\nid: k-5\nevent: ro".into()).unwrap();
    tell.send(Bytes::new()).unwrap();
    let rest = timeout(PATIENCE, first.collect()).await.expect("it ends").expect("unbroken").to_bytes();
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("draining") && !rest.contains("k-5"), "{rest}");
}
