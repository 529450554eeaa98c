//! The door: who may post, what is turned away and how one finds out why, all through real processes.

use std::path::Path;

use bytes::Bytes;
use http::{Response, StatusCode};
use relay_tests::{
    handler::{Handler, full},
    process::{Server, run_to_end},
    sender::{self, request, send},
};
use serde_json::Value;

const SECRET: &str = "It's a Secret to Everybody";
const GITHUB: &str =
    "[[endpoint]]\nname = \"github\"\nmode = \"live\"\nverify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n";
const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\ndeadline = \"2s\"\n";

async fn relay(endpoints: &str) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", endpoints, &[("HOOK", SECRET)]).await.expect("starts")
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).expect("JSON")
}

async fn post(relay: &Server, target: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    send(&relay.public, request("POST", target, headers, body.to_owned())).await.expect("answers")
}

/// Asks the admin listener, under a host and with a token.
async fn ask(relay: &Server, path: &str, host: &str, token: Option<&str>) -> Response<Bytes> {
    let mut question = request("GET", path, &[], "");
    question.headers_mut().insert("host", host.parse().expect("a host"));
    if let Some(token) = token {
        question.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a token"));
    }
    send(&relay.admin, question).await.expect("answers")
}

#[tokio::test]
async fn the_admin_api_needs_its_token_and_a_name_of_this_machine() {
    let relay = relay(OPEN).await;
    let token = relay.admin_token().expect("a file");
    assert_eq!(ask(&relay, "/livez", "relay.internal", None).await.status(), StatusCode::OK);
    for path in ["/readyz", "/metrics"] {
        for (host, status) in [
            ("relay.internal", StatusCode::MISDIRECTED_REQUEST),
            ("127.0.0.1.evil.example", StatusCode::MISDIRECTED_REQUEST),
            ("localhost", StatusCode::OK),
            ("192.0.2.9:9090", StatusCode::OK),
            ("[2001:db8::9]", StatusCode::OK),
            ("Relay.Test:80", StatusCode::OK), // server.admin_hosts
        ] {
            assert_eq!(ask(&relay, path, host, None).await.status(), status, "{path} {host}");
        }
    }
    for (accept, kind) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let answer = send(&relay.admin, request("GET", "/metrics", &[("accept", accept)], "")).await.expect("answers");
        assert_eq!(header(&answer, "content-type"), kind);
        assert_eq!(answer.body().ends_with(b"# EOF\n"), kind.contains("openmetrics"));
    }
    let list = "/api/v1/refused";
    let right = ask(&relay, list, &relay.admin, Some(&token)).await;
    assert_eq!((right.status(), json(&right)["refused"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)));
    assert_eq!(header(&right, "x-content-type-options"), "nosniff");
    assert_eq!(header(&right, "access-control-allow-origin"), "");
    for (host, token, status) in [
        (relay.admin.as_str(), None, StatusCode::UNAUTHORIZED),
        (&relay.admin, Some("rt_wrong"), StatusCode::UNAUTHORIZED),
        (&relay.admin, Some(relay.token.as_str()), StatusCode::UNAUTHORIZED),
        ("evil.example", Some(&token), StatusCode::MISDIRECTED_REQUEST),
    ] {
        assert_eq!(ask(&relay, list, host, token).await.status(), status, "{host} {token:?}");
        assert_eq!(ask(&relay, "/no/such/path", host, token).await.status(), status, "what is there is not told");
    }
    let answer = json(&ask(&relay, list, "localhost", None).await);
    let hint = &answer["message"];
    assert!(hint.as_str().is_some_and(|hint| hint.contains("the file admin.token")), "{hint}");
    assert_eq!(ask(&relay, "/no/such/path", "localhost", Some(&token)).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_config_file_that_only_lies_in_the_folder_sends_no_token_from_elsewhere() {
    let relay = relay(OPEN).await;
    let cloned = tempfile::tempdir().expect("a folder");
    let state = relay.folder().join("relay-state");
    let config = |state_dir: &str| {
        let text = relay.config().expect("a config").replace(
            "127.0.0.1:0\"\nadmin_hosts",
            &format!("{}\"\nstate_dir = \"{state_dir}\"\nadmin_hosts", relay.admin),
        );
        std::fs::write(cloned.path().join("relay.toml"), text).expect("writes");
    };
    let list = async |more: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(["server", "event", "list"]).args(more).current_dir(cloned.path());
        for name in ["RELAY_CONFIG", "RELAY_ADMIN_URL", "RELAY_ADMIN_TOKEN_FILE", "STATE_DIRECTORY"] {
            command.env_remove(name);
        }
        run_to_end(command.env("XDG_CONFIG_HOME", "/nonexistent"), "").await.expect("runs")
    };
    config(state.to_str().expect("text"));
    let (code, said) = list(&[]).await;
    assert!(code == 2 && said.contains("--config relay.toml") && said.contains(&relay.admin), "{code} {said}");
    let token = state.join("admin.token").display().to_string();
    assert_eq!(list(&["--admin-token-file", &token]).await.0, 2, "the file still says where it goes");
    assert_eq!(list(&["--config", "relay.toml"]).await.0, 0, "it is named");
    assert_eq!(list(&["--admin-url", &format!("http://{}", relay.admin)]).await.0, 0, "the relay is named");
    std::os::unix::fs::symlink(&state, cloned.path().join("state")).expect("a link");
    config("state");
    assert_eq!(list(&[]).await.0, 2, "wherever links lead");
    std::fs::remove_file(cloned.path().join("state")).expect("removed");
    std::fs::create_dir(cloned.path().join("state")).expect("a folder");
    std::fs::copy(&token, cloned.path().join("state/admin.token")).expect("copies");
    assert_eq!(list(&[]).await.0, 0, "what lies in the folder may go where the folder says");
}

#[tokio::test]
async fn a_refused_request_is_kept_and_shown_to_who_holds_the_token() {
    let relay = relay(GITHUB).await;
    let lines =
        [("x-hub-signature-256", "sha256=zz"), ("authorization", "Bearer hunter2"), ("x-twice", "1"), ("x-twice", "2")];
    let refused = post(&relay, "/github/a%2Fb?token=hunter2&x=1", &lines, "{\"zen\":1}").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let id = header(&refused, "relay-event-id");

    let (code, listed) = relay.ask(&["event", "list", "--state", "refused", "--json"]).await.expect("runs");
    assert_eq!(code, 0, "{listed}");
    let event: Value = serde_json::from_str(&listed).expect("one line of JSON");
    assert_eq!(
        (event["id"].as_str(), event["code"].as_str(), event["status"].as_u64(), event["endpoint"].as_str()),
        (Some(id), Some("signature_malformed"), Some(401), Some("github"))
    );
    assert!(event["url"].as_str().expect("a URL").ends_with("/github/a%2Fb?token=[masked]&x=1"), "{event}");
    let (_, others) = relay.ask(&["event", "list", "--state", "refused", "--endpoint", "other"]).await.expect("runs");
    assert_eq!(others, "");

    let token = relay.admin_token().expect("a file");
    let shown = json(&ask(&relay, &format!("/api/v1/refused/{id}"), "localhost", Some(&token)).await);
    assert_eq!((shown["body_base64"].as_str(), shown["body_len"].as_u64()), (Some("eyJ6ZW4iOjF9"), Some(9)));
    let lines: Vec<_> =
        shown["headers"].as_array().expect("lines").iter().map(|line| (line[0].as_str(), line[1].as_str())).collect();
    for line in
        [("authorization", "[masked]"), ("x-twice", "1"), ("x-twice", "2"), ("x-hub-signature-256", "sha256=zz")]
    {
        assert!(lines.contains(&(Some(line.0), Some(line.1))), "{line:?} in {lines:?}");
    }
    assert!(!shown.to_string().contains("hunter2"), "{shown}");

    let missing = ask(&relay, "/api/v1/refused/hook_00000000000000000000000000000000", "localhost", Some(&token)).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&relay, "/api/v1/refused/x", "localhost", Some(&token)).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_command_line_says_by_its_code_what_kept_it_from_asking() {
    let relay = relay(OPEN).await;
    let list = ["event", "list", "--state", "refused"];
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let at = |url: String, token: &str| {
        let more = ["--admin-url", &url, "--admin-token-file", token].map(str::to_owned);
        list.iter().map(|word| (*word).to_owned()).chain(more).collect::<Vec<_>>()
    };
    let place = tempfile::tempdir().expect("a directory");
    let wrong = place.path().join("wrong");
    std::fs::write(&wrong, "rt_wrong").expect("writes");
    let wrong = wrong.to_str().expect("text");
    let here = format!("http://{}", relay.admin);
    for (words, code) in [
        (at(format!("http://{nobody}"), wrong), 5),
        (at(here.clone(), wrong), 3),
        (at(here, "no/such/file"), 3),
        (at("ftp://x".to_owned(), wrong), 2),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (said, out) = relay.run(&words).await.expect("runs");
        assert_eq!((said, out.as_str()), (code, ""), "{words:?}");
    }
}

#[tokio::test]
async fn an_allow_list_goes_by_the_address_that_trusted_proxies_report() {
    let endpoints = format!("trusted_proxies = [\"127.0.0.0/8\"]\n{OPEN}allow = [\"192.0.2.0/24\"]\n");
    let (relay, handler) = (relay(&endpoints).await, Handler::echo().await.expect("listens"));
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    for (forwarded, status) in [
        (&["192.0.2.9"][..], StatusCode::OK),
        (&["203.0.113.1, 192.0.2.9, 127.0.0.3"], StatusCode::OK),
        (&["192.0.2.9, 203.0.113.1"], StatusCode::FORBIDDEN),
        (&["192.0.2.9", "203.0.113.1"], StatusCode::FORBIDDEN),
        (&["192.0.2.9, nonsense"], StatusCode::FORBIDDEN),
        (&[], StatusCode::FORBIDDEN),
    ] {
        let lines: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
        let response = post(&relay, "/open", &lines, "x").await;
        assert_eq!(response.status(), status, "{forwarded:?}");
        if status == StatusCode::FORBIDDEN {
            assert_eq!(header(&response, "relay-error"), "address_not_allowed");
        }
    }
    let (_, listed) = relay.ask(&["event", "list", "--state", "refused", "--json"]).await.expect("runs");
    let clients: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["client"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(clients, ["127.0.0.1", "127.0.0.1", "203.0.113.1", "203.0.113.1"]);
}

#[tokio::test]
async fn the_configs_address_stands_in_for_the_word_of_a_proxy_that_is_not_trusted() {
    const URL: &str = "public_url = \"https://hooks.test:8443\"\n";
    const OTHER: &str = "trusted_proxies = [\"192.0.2.0/24\"]\n";
    let own = OPEN.replacen("name", "hosts = [\"own.test\"]\nname", 1);
    for (settings, host, told) in [
        (URL.to_owned(), "127.0.0.1:8080", ["https", "hooks.test:8443"]),
        (URL.to_owned(), "own.test", ["https", "own.test"]),
        (String::new(), "127.0.0.1:8080", ["http", "127.0.0.1:8080"]),
        (URL.to_owned() + OTHER, "127.0.0.1:8080", ["http", "127.0.0.1:8080"]),
    ] {
        let relay = relay(&(settings.clone() + &own)).await;
        let (handler, mut heads) = Handler::telling().await.expect("listens");
        let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
        let forged = [("x-forwarded-proto", "ftp"), ("x-forwarded-host", "evil.test")];
        let mut question = request("POST", "/open/x", &forged, "");
        question.headers_mut().insert("host", host.parse().expect("a host"));
        assert_eq!(send(&relay.public, question).await.expect("answers").status(), StatusCode::OK);
        let head = heads.recv().await.expect("a call");
        let got = ["x-forwarded-proto", "x-forwarded-host"].map(|name| head.headers[name].to_str().expect("text"));
        assert_eq!(got, told, "{settings}{host}");
    }
}

const STRIPE: &str =
    "[[endpoint]]\nname = \"stripe\"\nmode = \"live\"\nverify = { provider = \"stripe\", secrets = [\"env:HOOK\"] }\n";

/// The headers of a request that the provider signs now.
fn signed(provider: &str, body: &str) -> Vec<(String, String)> {
    sender::signed(provider, SECRET, body.as_bytes()).expect("signs")
}

fn lines(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A handler that counts its calls and answers them with one status after the other, each once it is let go.
struct Turns {
    handler: Handler,
    calls: std::sync::Arc<std::sync::atomic::AtomicUsize>,
    go: std::sync::Arc<tokio::sync::Semaphore>,
}

impl Turns {
    async fn start(statuses: &'static [u16]) -> Self {
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let (counted, gate) = (std::sync::Arc::clone(&calls), std::sync::Arc::clone(&go));
        let handler = Handler::start(move |_| {
            let (counted, gate) = (std::sync::Arc::clone(&counted), std::sync::Arc::clone(&gate));
            async move {
                let call = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                gate.acquire().await.expect("open").forget();
                let mut response = Response::new(full(format!("call {call}")));
                *response.status_mut() = StatusCode::from_u16(statuses[call]).expect("a status");
                response
            }
        });
        Self { handler: handler.await.expect("listens"), calls, go }
    }

    fn calls(&self) -> usize {
        self.calls.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_unchanged_repeat_gets_the_first_ones_status_and_a_failed_first_lets_the_retry_through() {
    let (relay, turns) = (relay(STRIPE).await, Turns::start(&[500, 201, 200]).await);
    let mut agent = relay.agent("stripe", &turns.handler.port(), &[]).await.expect("attaches");
    turns.go.add_permits(10);
    let headers = signed("stripe", "{}");
    let failed = post(&relay, "/stripe", &lines(&headers), "{}").await;
    assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let first = post(&relay, "/stripe", &lines(&headers), "{}").await;
    assert_eq!((first.status(), &first.body()[..]), (StatusCode::CREATED, &b"call 1"[..]));
    let changed: Vec<_> = lines(&headers).into_iter().chain([("x-not-signed", "1")]).collect();
    let again = post(&relay, "/stripe?not=signed", &changed, "{}").await;
    assert_eq!((again.status(), &again.body()[..]), (StatusCode::CREATED, &b""[..]));
    assert_eq!(header(&again, "relay-event-id"), header(&first, "relay-event-id"));
    assert_eq!(turns.calls(), 2);
    agent.line("duplicate").await.expect("the agent is told");
    let other = signed("stripe", "{\"another\":1}");
    assert_eq!(post(&relay, "/stripe", &lines(&other), "{\"another\":1}").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_repeat_of_a_running_request_waits_for_its_end() {
    let (relay, turns) = (relay(STRIPE).await, Turns::start(&[200]).await);
    let _agent = relay.agent("stripe", &turns.handler.port(), &[]).await.expect("attaches");
    let headers = signed("stripe", "{}");
    let sent = lines(&headers);
    let first = post(&relay, "/stripe", &sent, "{}");
    let again = async {
        // The second goes out once the first has reached the handler.
        while turns.calls() == 0 {
            tokio::task::yield_now().await;
        }
        let repeat = post(&relay, "/stripe", &sent, "{}");
        turns.go.add_permits(1);
        repeat.await
    };
    let (first, again) = tokio::join!(first, again);
    assert_eq!((first.status(), again.status(), turns.calls()), (StatusCode::OK, StatusCode::OK, 1));
    assert_eq!((&first.body()[..], &again.body()[..]), (&b"call 0"[..], &b""[..]));
}

#[tokio::test]
async fn a_repeat_is_refused_or_delivered_where_the_endpoint_says_so() {
    let refuse = STRIPE.replace("stripe\"\nmode", "refuse\"\nreplay = \"refuse\"\nmode");
    let off = STRIPE.replace("stripe\"\nmode", "off\"\nreplay = \"off\"\nmode");
    let endpoints = format!("{refuse}{off}{GITHUB}");
    let (relay, turns) = (relay(&endpoints).await, Turns::start(&[200; 5]).await);
    turns.go.add_permits(10);
    let mut agents = Vec::new();
    for name in ["refuse", "off", "github"] {
        agents.push(relay.agent(name, &turns.handler.port(), &[]).await.expect("attaches"));
    }
    let headers = signed("stripe", "{}");
    for (target, headers, statuses, calls) in [
        ("/refuse", &headers, [StatusCode::OK, StatusCode::CONFLICT], 1),
        ("/off", &headers, [StatusCode::OK, StatusCode::OK], 3),
        // GitHub's signature has no date: its "redeliver" button is a delivery.
        ("/github", &signed("github", "{}"), [StatusCode::OK, StatusCode::OK], 5),
    ] {
        for status in statuses {
            let response = post(&relay, target, &lines(headers), "{}").await;
            assert_eq!(response.status(), status, "{target}");
            if status == StatusCode::CONFLICT {
                assert_eq!(header(&response, "relay-error"), "replayed");
            }
        }
        assert_eq!(turns.calls(), calls, "{target}");
    }
    let (_, listed) = relay.ask(&["event", "list", "--state", "refused"]).await.expect("runs");
    assert!(listed.contains("REFUSED 409 refuse replayed"), "{listed}");
}

#[tokio::test]
async fn wrong_tokens_are_slowed_by_their_address_and_a_right_one_passes_among_them() {
    let relay = relay(&format!("trusted_proxies = [\"127.0.0.0/8\"]\n{OPEN}")).await;
    let from = |address: &'static str, token: String| {
        let bearer = format!("Bearer {token}");
        let lines = [
            ("authorization", bearer.as_str()),
            ("x-forwarded-for", address),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "relay.v1"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        send(&relay.public, request("GET", "/_relay/v1/connect", &lines, ""))
    };
    for _ in 0..20 {
        let response = from("192.0.2.1", "rt_wrong".to_owned()).await.expect("answers");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let closed = from("192.0.2.1", "rt_wrong".to_owned()).await.expect("answers");
    assert_eq!(
        (closed.status(), json(&closed)["error"].as_str()),
        (StatusCode::TOO_MANY_REQUESTS, Some("too_many_guesses"))
    );
    assert_ne!(header(&closed, "retry-after"), "");
    let right = from("192.0.2.1", relay.token.clone()).await.expect("answers");
    assert_eq!(right.status(), StatusCode::SWITCHING_PROTOCOLS, "all behind one proxy are not locked out");
    let elsewhere = from("192.0.2.2", "rt_wrong".to_owned()).await.expect("answers");
    assert_eq!(elsewhere.status(), StatusCode::UNAUTHORIZED);
    let handler = Handler::echo().await.expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("a good agent attaches");
}

#[tokio::test]
async fn a_proxy_nearby_that_nobody_named_is_named_in_a_warning_once() {
    let lines = [("x-forwarded-for", "192.0.2.1")];
    let mut unnamed = relay(OPEN).await;
    post(&unnamed, "/open", &lines, "x").await;
    let line = unnamed.log_line("trusted_proxies").await.expect("a warning");
    assert!(line.contains("\"WARN\"") && line.contains("127.0.0.1"), "{line}");
    post(&unnamed, "/open", &lines, "x").await;
    unnamed.terminate().await.expect("a signal");
    let rest = unnamed.log_line("stopping").await.expect("it stops");
    assert!(!rest.contains("trusted_proxies") && !unnamed.log_so_far().contains("trusted_proxies"), "{rest}");
}

#[tokio::test]
async fn a_flood_of_refused_requests_is_a_few_lines_and_a_number_to_agents() {
    let handler = Handler::start(|_| async { Response::new(full("never")) }).await.expect("a handler");
    let relay = relay(GITHUB).await;
    let mut agent = relay.agent("github", &handler.port(), &[]).await.expect("attaches");
    for _ in 0..20 {
        let flood = (0..20).map(|_| post(&relay, "/github", &[("x-hub-signature-256", "sha256=00")], "{}"));
        for refused in futures_util::future::join_all(flood).await {
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        }
    }
    let told = agent.line("refused at github").await.expect("it is told how many there were");
    assert!(told.contains("more request"), "{told}");
    let (_, listed) = relay.ask(&["event", "list", "--state", "refused"]).await.expect("runs");
    assert!(listed.contains("signature"), "the relay itself knows each: {listed}");
}
