//! Live mode from end to end: a sender, a relay, an agent and a handler, each a process or a socket.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use relay_tests::{
    handler::{Handler, full},
    process::Server,
    sender::{request, send, signed},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\ndeadline = \"2s\"\n";
const GITHUB: &str =
    "[[endpoint]]\nname = \"github\"\nmode = \"live\"\nverify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n";
const SECRET: &str = "It's a Secret to Everybody";

async fn relay(endpoints: &str) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", endpoints, &[("HOOK", SECRET)]).await.expect("starts")
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

fn error_of(response: &Response<Bytes>) -> String {
    let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(body["event_id"], header(response, "relay-event-id"));
    assert_eq!(body["error"], header(response, "relay-error"));
    body["error"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn a_signed_webhook_passes_and_a_changed_one_never_reaches_the_handler() {
    let (relay, handler) = (relay(GITHUB).await, Handler::echo().await.expect("listens"));
    let mut agent = relay.agent("github", &handler.port(), &[]).await.expect("attaches");
    let signature = signed("github", SECRET, b"{\"zen\":1}").expect("signs").remove(0);
    let lines = [(signature.0.as_str(), signature.1.as_str())];

    let response = send(&relay.public, request("POST", "/github", &lines, "{\"zen\":1}")).await.expect("answers");
    assert_eq!((response.status(), header(&response, "x-seen-relay-verified")), (StatusCode::OK, "github"));

    let response = send(&relay.public, request("POST", "/github", &lines, "{\"zen\":2}")).await.expect("answers");
    assert_eq!((response.status(), error_of(&response)), (StatusCode::UNAUTHORIZED, "signature_mismatch".into()));
    assert_eq!(header(&response, "x-seen-method"), "", "the handler saw nothing");
    let told = agent.line("signature_mismatch").await.expect("the agent is told");
    assert!(told.contains(header(&response, "relay-event-id")), "{told}");
}

#[tokio::test]
async fn each_thing_that_goes_wrong_has_its_own_answer() {
    let small = format!("{OPEN}max_body = \"1000B\"\n");
    let relay = relay(&small).await;
    let post = |target: &'static str, body: Vec<u8>| send(&relay.public, request("POST", target, &[], body));

    let response = post("/nobody", vec![]).await.expect("answers");
    assert_eq!((response.status(), error_of(&response)), (StatusCode::NOT_FOUND, "endpoint_not_found".into()));
    let response = post("/open", vec![]).await.expect("answers");
    assert_eq!((response.status(), error_of(&response)), (StatusCode::SERVICE_UNAVAILABLE, "agent_unavailable".into()));
    assert_ne!(header(&response, "retry-after"), "");
    let response = post("/open", vec![0; 1001]).await.expect("answers");
    assert_eq!((response.status(), error_of(&response)), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large".into()));

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let _agent = relay.agent("open", &nobody.to_string(), &[]).await.expect("attaches");
    let response = post("/open", vec![]).await.expect("answers");
    assert_eq!((response.status(), error_of(&response)), (StatusCode::BAD_GATEWAY, "handler_unreachable".into()));
}

#[tokio::test]
async fn a_credential_is_masked_wherever_it_stands_among_the_lines_of_a_trusted_proxy() {
    let relay = relay(&format!("trusted_proxies = [\"127.0.0.0/8\"]\n{OPEN}")).await;
    let handler = Handler::echo().await.expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let forwarded = ["x-forwarded-for", "x_forwarded_for", "X-Forwarded-For", "x-forwarded-proto"];
    for before in forwarded {
        let lines =
            [(before, "192.0.2.1"), ("authorization", "Basic hunter2"), ("x-api-key", "hunter2"), ("x-end", "seen")];
        let response = send(&relay.public, request("POST", "/open", &lines, "hello")).await.expect("answers");
        assert_eq!(response.status(), StatusCode::OK);
        let id = header(&response, "relay-event-id");
        let (code, shown) = relay.ask(&["event", "show", id, "--json"]).await.expect("runs");
        assert!(code == 0 && shown.contains("seen") && shown.contains("[masked]"), "{before}: {code} {shown}");
        assert!(!shown.contains("hunter2"), "{before}: {shown}");
    }
}

#[tokio::test]
async fn a_handler_that_is_late_gives_504_at_the_deadline() {
    let relay = relay(OPEN).await;
    let handler = Handler::start(|_| std::future::pending()).await.expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let response = send(&relay.public, request("POST", "/open", &[], "x")).await.expect("answers");
    assert_eq!((response.status(), error_of(&response)), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded".into()));
}

#[tokio::test]
async fn two_agents_share_an_endpoint_and_one_that_stops_is_not_missed() {
    let relay = relay(OPEN).await;
    let named = |name: &'static str| Handler::start(move |_| async move { Response::new(full(name)) });
    let (one, two) = (named("one").await.expect("listens"), named("two").await.expect("listens"));
    let mut first = relay.agent("open", &one.port(), &["--name", "one", "--attach", "shared"]).await.expect("attaches");
    let _second = relay.agent("open", &two.port(), &["--name", "two", "--attach", "shared"]).await.expect("attaches");
    let ask = || send(&relay.public, request("GET", "/open", &[], ""));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10 {
        seen.insert(ask().await.expect("answers").into_body());
    }
    assert_eq!(seen.len(), 2, "both got some");
    assert!(first.stop().await.expect("stops"), "code 0");
    for _ in 0..5 {
        assert_eq!(ask().await.expect("answers").into_body(), "two");
    }
}

/// A proxy before a relay, which answers by itself while the relay is away: `None` passes everything on.
async fn proxy(relay: String, says: watch::Receiver<Option<&'static str>>) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut front, _)) = listener.accept().await {
            let (relay, mut says) = (relay.clone(), says.clone());
            tokio::spawn(async move {
                let answer = *says.borrow_and_update();
                if let Some(status) = answer {
                    let answer = format!("HTTP/1.1 {status}\r\nServer: edge\r\nContent-Length: 3\r\n\r\nno\n");
                    let _ = front.read(&mut [0; 4096]).await;
                    return drop(front.write_all(answer.as_bytes()).await);
                }
                let Ok(mut back) = TcpStream::connect(&relay).await else { return };
                // Whatever it says next, what was passed on until then is cut.
                tokio::select! {
                    _ = copy_bidirectional(&mut front, &mut back) => {}
                    _ = says.changed() => {}
                }
            });
        }
    });
    Ok(address)
}

#[tokio::test]
async fn a_proxy_whose_relay_is_away_for_a_moment_does_not_end_an_agent_and_one_from_the_start_is_told_apart() {
    let (relay, handler) = (relay(OPEN).await, Handler::echo().await.expect("listens"));
    let (say, says) = watch::channel(None);
    let front = proxy(relay.public.clone(), says).await.expect("listens");
    let mut agent = relay.agent("open", &handler.port(), &["--relay", &format!("ws://{front}")]).await.expect("ready");
    for status in ["404 Not Found", "403 Forbidden", "401 Unauthorized"] {
        say.send_replace(Some(status));
        let line = agent.line("from edge").await.expect("it says what it saw");
        assert!(line.contains("reconnecting") && line.contains(&status[..3]), "{line}");
        say.send_replace(None);
        agent.line("\"ready\"").await.expect("is back by itself");
        let response = send(&relay.public, request("POST", "/open", &[], "x")).await.expect("answers");
        assert_eq!(response.status(), StatusCode::OK);
    }
    say.send_replace(Some("404 Not Found"));
    let first = relay.agent("open", &handler.port(), &["--relay", &format!("ws://{front}")]).await;
    let told = first.err().expect("there never was a relay").to_string();
    assert!(told.contains("HTTP 404 from edge") && told.contains("curl -i http://"), "{told}");
}

#[tokio::test]
async fn a_relay_or_agent_that_is_killed_is_gone_and_has_violated_nothing() {
    let (mut relay, handler) = (relay(OPEN).await, Handler::echo().await.expect("listens"));
    let agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    agent.signal("-KILL").await.expect("a signal");
    let left = relay.log_line("an agent left").await.expect("it is noticed");
    assert!(left.contains("GoingAway") && !left.contains("violation"), "{left}");
    let mut agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    relay.signal("-KILL").await.expect("a signal");
    let line = agent.line("reconnecting").await.expect("it is noticed");
    assert!(!line.contains("violation"), "{line}");
}

#[tokio::test]
async fn an_agent_finds_a_relay_that_comes_back() {
    let handler = Handler::echo().await.expect("listens");
    let mut first = relay(OPEN).await;
    let address = first.public.clone();
    let mut agent = first.agent("open", &handler.port(), &[]).await.expect("attaches");
    first.terminate().await.expect("told");
    assert!(first.ended().await.expect("ends"), "code 0");
    agent.line("reconnecting").await.expect("says so");
    first.start_again(&address).await.expect("starts again");
    agent.line("\"ready\"").await.expect("is back by itself");
    let response = send(&first.public, request("POST", "/open", &[], "x")).await.expect("answers");
    assert_eq!((response.status(), response.into_body()), (StatusCode::OK, "x".into()));
}

#[tokio::test]
async fn a_stop_lets_what_is_in_flight_finish() {
    let mut relay = relay(OPEN).await;
    let (started, mut starts) = tokio::sync::mpsc::channel(1);
    let (release, released) = watch::channel(false);
    let handler = Handler::start(move |_| {
        let (started, mut released) = (started.clone(), released.clone());
        async move {
            let _ = started.send(()).await;
            let _ = released.wait_for(|released| *released).await;
            Response::new(full("done"))
        }
    })
    .await
    .expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let address = relay.public.clone();
    let asked = tokio::spawn(async move { send(&address, request("GET", "/open", &[], "")).await });
    starts.recv().await.expect("the handler is at work");
    relay.terminate().await.expect("told");
    relay.log_line("stopping").await.expect("says so");
    release.send(true).expect("released");
    let response = asked.await.expect("runs").expect("answers");
    assert_eq!((response.status(), response.body().clone()), (StatusCode::OK, "done".into()));
    assert!(relay.ended().await.expect("ends"), "code 0");
}

#[tokio::test]
async fn the_log_names_the_endpoint_that_a_request_just_misses_and_its_sender_is_not_told() {
    let mut relay = relay(OPEN).await;
    for target in ["//open/x", "/%2Fopen", "/open%2Fx", "/Open", "/OPEN/x?y=1", "/hooks/open", "/opne"] {
        let answer = raw(
            &relay.public,
            format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("\"open\""), "{target}: {answer}");
        let line = relay.log_line("just misses").await.unwrap_or_else(|error| panic!("{target}: {error}"));
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["fields"]["endpoint"], "open", "{target}");
    }
    let _ = raw(&relay.public, b"POST /nothing-like-it HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(!relay.log_so_far().contains("nothing-like-it"));
}

#[tokio::test]
async fn the_admin_listener_says_whether_the_relay_is_ready() {
    let relay = relay(OPEN).await;
    for path in ["/livez", "/readyz"] {
        let response = send(&relay.admin, request("GET", path, &[], "")).await.expect("answers");
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// What comes back for these bytes, as far as the relay sends it before it closes or goes silent.
pub(super) async fn raw(address: &str, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(bytes).await.expect("writes");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.ends_with(b"}\n") {
        match tokio::time::timeout(Duration::from_secs(10), stream.read(&mut piece)).await.expect("answers in time") {
            Ok(0) | Err(_) => break,
            Ok(len) => answer.extend_from_slice(&piece[..len]),
        }
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_gives_413() {
    let relay = relay(&format!("{OPEN}max_body = \"1000B\"\n")).await;
    let handler = Handler::echo().await.expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let chunked = "POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let large = format!("{chunked}3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let answer = raw(&relay.public, large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
    let announced = "POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n";
    let answer = raw(&relay.public, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "before a byte of the body: {answer}");
}

#[tokio::test]
async fn a_host_of_its_own_gets_the_whole_path() {
    let relay = relay(&format!("{OPEN}hosts = [\"hook.test\"]\n")).await;
    let handler = Handler::echo().await.expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let mut sent = request("GET", "/_relay/x?y", &[], "");
    sent.headers_mut().insert("host", http::HeaderValue::from_static("hook.test:8080"));
    let response = send(&relay.public, sent).await.expect("answers");
    assert_eq!(header(&response, "x-seen-target"), "/_relay/x?y");
}

#[tokio::test]
async fn more_exchanges_than_an_agent_takes_are_answered_at_once() {
    let relay = relay(&format!("[limits]\nmax_in_flight_per_agent = 1\n{OPEN}")).await;
    let (started, mut starts) = tokio::sync::mpsc::channel(1);
    let handler = Handler::start(move |_| {
        let started = started.clone();
        async move {
            let _ = started.send(()).await;
            std::future::pending().await
        }
    })
    .await
    .expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let address = relay.public.clone();
    let first = tokio::spawn(async move { send(&address, request("GET", "/open", &[], "")).await });
    starts.recv().await.expect("the first is with the handler");
    let response = send(&relay.public, request("GET", "/open", &[], "")).await.expect("answers");
    assert_eq!(
        (response.status(), error_of(&response)),
        (StatusCode::SERVICE_UNAVAILABLE, "too_many_in_flight".into())
    );
    first.abort();
}

#[tokio::test]
async fn every_published_payload_arrives_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/payloads");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: the published payloads are not beside this project");
        return;
    };
    let (relay, handler) = (relay(OPEN).await, Handler::echo().await.expect("listens"));
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let mut count = 0;
    for entry in entries {
        let body = Bytes::from(std::fs::read(entry.expect("an entry").path()).expect("a payload"));
        let response = send(&relay.public, request("POST", "/open", &[], body.clone())).await.expect("answers");
        assert!(*response.body() == body);
        count += 1;
    }
    assert!(count >= 40, "only {count} payloads");
}

#[tokio::test]
async fn init_writes_a_config_that_passes_its_own_check_and_overwrites_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo"));
        command.arg("server").args(arguments).current_dir(directory.path()).env_remove("RELAY_CONFIG");
        let output = command.output().await.expect("runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let init = ["init", "--public-url", "https://hooks.example.com", "--endpoint", "gh=github", "--endpoint", "x=none"];
    let (code, said) = run(&init).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("https://hooks.example.com/gh") && said.contains("relay-client listen"), "{said}");
    let (code, said) = run(&["config", "check"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok: 2 endpoints, 1 token\n"), "{said}");
    assert_eq!(run(&init).await.0, Some(1), "nothing is overwritten");

    let acme = ["init", "--public-url", "https://hooks.example.com", "--acme", "ops@example.com", "--dir", "public"];
    let (code, said) = run(&acme).await;
    assert!(code == Some(0) && said.contains("its ports 443 and 80"), "{said}");
    let (code, said) = run(&["config", "check", "--config", "public/relay.toml"]).await;
    assert!(code == Some(0) && said.contains("ok: 0 endpoints, 1 token\n"), "{said}");
    let (_, shown) = run(&["config", "show", "--config", "public/relay.toml"]).await;
    for line in ["domains = [\"hooks.example.com\"]", "challenge = \"tls-alpn-01\"", "email = \"ops@example.com\""] {
        assert!(shown.contains(line), "{line}: {shown}");
    }

    let wrong = ["init", "--public-url", "https://hooks.example.com", "--endpoint", "gh=githb", "--dir", "other"];
    let (code, said) = run(&wrong).await;
    assert!(code == Some(2) && said.contains("there are none, github"), "{said}");

    let (code, token) = run(&["token", "create", "laptop", "--endpoints", "gh"]).await;
    assert!(code == Some(0) && token.starts_with("rt_"), "{token}");
    assert!(run(&["token", "list"]).await.1.contains("laptop\tgh"));
    assert_eq!(run(&["token", "revoke", "laptop"]).await.0, Some(0));
    assert_eq!(run(&["token", "revoke", "laptop"]).await.0, Some(4), "not found");

    let config = std::fs::read_to_string(directory.path().join("relay.toml")).expect("a config");
    std::fs::write(directory.path().join("relay.toml"), config.replace("public_url", "pubic_url")).expect("writes");
    let (code, said) = run(&["config", "check"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("relay.toml:6") && said.contains("did you mean"), "{said}");
}

#[tokio::test]
async fn an_agent_that_comes_back_at_once_is_not_missed() {
    let relay = relay(OPEN).await;
    let handler = Handler::echo().await.expect("listens");
    let mut first = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    assert!(first.stop().await.expect("stops"), "code 0");
    let address = relay.public.clone();
    let asked = tokio::spawn(async move { send(&address, request("POST", "/open", &[], "waits")).await });
    let _second = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let response = asked.await.expect("runs").expect("answers");
    assert_eq!((response.status(), response.into_body()), (StatusCode::OK, "waits".into()));
}

#[tokio::test]
async fn one_agent_serves_many_endpoints_and_targets_from_a_file() {
    let relay = relay(&format!("{OPEN}[[endpoint]]\nname = \"other\"\nmode = \"live\"\nverify = \"none\"\n")).await;
    let named = |name: &'static str| Handler::start(move |_| async move { Response::new(full(name)) });
    let (one, two) = (named("one").await.expect("listens"), named("two").await.expect("listens"));
    let file = format!(
        "[[endpoint]]\nname = \"open\"\ntarget = \"http://{}/hooks\"\n[[endpoint]]\nname = \"other\"\ntarget = \"{}\"\n",
        one.address,
        two.port()
    );
    let _agent = relay.agent_from_file(&file).await.expect("attaches");
    for (endpoint, expected) in [("/open", "one"), ("/other", "two")] {
        let response = send(&relay.public, request("POST", endpoint, &[], "")).await.expect("answers");
        assert_eq!(response.into_body(), expected);
    }
}

#[tokio::test]
async fn the_senders_host_reaches_a_handler_that_wants_it() {
    let relay = relay(OPEN).await;
    let handler = Handler::start(|request: http::Request<hyper::body::Incoming>| async move {
        Response::new(full(Bytes::copy_from_slice(request.headers()["host"].as_bytes())))
    });
    let handler = handler.await.expect("listens");
    let file = format!("[[endpoint]]\nname = \"open\"\ntarget = \"{}\"\npreserve_host = true\n", handler.port());
    let _agent = relay.agent_from_file(&file).await.expect("attaches");
    let mut sent = request("GET", "/open", &[], "");
    sent.headers_mut().insert("host", http::HeaderValue::from_static("Hook.test:8443"));
    assert_eq!(send(&relay.public, sent).await.expect("answers").into_body(), "Hook.test:8443");
}

#[tokio::test]
async fn a_head_over_its_bounds_is_refused_and_the_agent_never_hears_of_it() {
    let relay = relay(OPEN).await;
    let handler = Handler::echo().await.expect("listens");
    let mut agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let long_method = format!("{} /open HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(2000));
    let answer = raw(&relay.public, long_method.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let large = format!("GET /open HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(71_000));
    let answer = raw(&relay.public, large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let spoofed = [("x-relay-verified", "true"), ("proxy", "http://evil.test")];
    let response = send(&relay.public, request("GET", "/open", &spoofed, "")).await.expect("the session still lives");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(agent.stop().await.expect("stops"), "code 0");
}
