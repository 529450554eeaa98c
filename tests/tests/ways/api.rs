//! The API: what each path gives to whom, and how a browser comes in.

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use relay_tests::{
    process::{Agent, Server},
    sender::{request, send, send_streaming, signed},
};
use serde_json::{Value, json};

/// All rights but `admin`, at the endpoints of one team.
const TEAM: &str = "[[token]]\nname = \"team\"\nsecrets = [\"env:TEAM\"]\nendpoints = [\"a-*\"]\n\
    rights = [\"attach\", \"read\", \"replay\", \"sign\", \"skip\", \"act\", \"create\"]\n";
const TEAM_TOKEN: &str = "rt_0123456789abcdef0123456789abcdef";
const TEXT: &str = "the other team's words";

async fn relay() -> Server {
    let endpoint = |name: &str| format!("[[endpoint]]\nname = \"{name}\"\nmode = \"assured\"\nverify = \"none\"\n");
    let config = [endpoint("a-own"), endpoint("b-other"), TEAM.to_owned()].concat();
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", &config, &[("TEAM", TEAM_TOKEN)]).await.expect("a relay")
}

async fn ask(at: &str, token: &str, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Response<Bytes> {
    send(at, question(at, token, method, path, more, body)).await.expect("answers")
}

/// The head of an answer and the first piece of its body: a stream goes on.
async fn ask_stream(at: &str, token: &str, path: &str) -> Response<Bytes> {
    let (head, mut body) =
        send_streaming(at, question(at, token, "GET", path, &[], "")).await.expect("answers").into_parts();
    let frame = body.frame().await.expect("it begins").expect("whole");
    Response::from_parts(head, frame.into_data().expect("data"))
}

fn question(
    at: &str,
    token: &str,
    method: &str,
    path: &str,
    more: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", at);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.to_owned().into())).expect("lawful")
}

fn read(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_default()
}

fn header<'r>(answer: &'r Response<Bytes>, name: &str) -> &'r str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

/// Each operation of the document: method, path, whether it needs somebody.
async fn operations(relay: &Server) -> Vec<(String, String, bool)> {
    let document = read(&ask(&relay.admin, "", "GET", "/api/v1/openapi.json", &[], "").await);
    assert_eq!(document["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let open = operation["description"] == "Needs no token.";
            all.push((method.to_uppercase(), path.clone(), !open));
        }
    }
    assert!(all.len() > 30, "{all:?}");
    all
}

#[tokio::test]
async fn no_path_shows_a_token_what_is_anothers() {
    let relay = relay().await;
    let kept = ask(&relay.public, "", "POST", "/b-other", &[], TEXT).await;
    let other = header(&kept, "relay-event-id").to_owned();
    assert!(other.starts_with("hook_"));
    for (method, path, needs) in operations(&relay).await {
        let filled = path
            .replace("{id}", &other)
            .replace("{session}", "1")
            .replace("{n}", "1")
            .replace("{name}", "b-other")
            .replace("{code}", "busy");
        let filled = format!("/_relay/v1{filled}");
        let answer = match path.as_str() {
            "/stream" => ask_stream(&relay.public, TEAM_TOKEN, &filled).await,
            _ => ask(&relay.public, TEAM_TOKEN, &method, &filled, &[], "").await,
        };
        let (status, mut body) = (answer.status(), read(&answer));
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert!(!status.is_server_error(), "{method} {path}: {status} {body}");
        if path.starts_with("/events/{id}") || path.starts_with("/endpoints/{name}") {
            let expected = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST];
            assert!(expected.contains(&status), "{method} {path}: {status} {body}");
        }
        body["instance"] = Value::Null; // What was asked.
        let shown =
            if body.is_object() { body.to_string() } else { String::from_utf8_lossy(answer.body()).into_owned() };
        for secret in [other.as_str(), "b-other", TEXT] {
            assert!(path == "/openapi.json" || !shown.contains(secret), "{method} {path}: {shown}");
        }
        let stranger = ask(&relay.admin, "", &method, &filled.replace("/_relay/v1", "/api/v1"), &[], "").await;
        assert_eq!(stranger.status() == StatusCode::UNAUTHORIZED, needs, "{method} {path}: {}", stranger.status());
    }
    // What is not in the document is not there.
    for path in ["/nothing", "/events/x/y/z", "/tokens/x/y"] {
        let answer = ask(&relay.public, TEAM_TOKEN, "GET", &format!("/_relay/v1{path}"), &[], "").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn an_error_is_a_problem_that_says_what_it_is() {
    let relay = relay().await;
    let token = relay.admin_token().expect("a token");
    let answer =
        ask(&relay.admin, &token, "GET", "/api/v1/events/hook_00000000000000000000000000000000", &[], "").await;
    assert_eq!(header(&answer, "content-type"), "application/problem+json");
    let problem = read(&answer);
    assert_eq!(
        (&problem["status"], &problem["code"], &problem["error"]),
        (&404.into(), &"not_found".into(), &"not_found".into())
    );
    assert_eq!(problem["instance"], "/api/v1/events/hook_00000000000000000000000000000000");
    assert_eq!(problem["detail"], problem["message"]);
    let meaning = ask(&relay.admin, "", "GET", problem["type"].as_str().expect("a path"), &[], "").await;
    assert!(String::from_utf8_lossy(meaning.body()).starts_with("not_found (404)"));
    let wrong = ask(&relay.admin, &token, "PATCH", "/api/v1/events", &[], "").await;
    assert_eq!((wrong.status(), header(&wrong, "allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD"));
    assert_eq!(read(&wrong)["code"], "method_not_allowed");
}

#[tokio::test]
async fn who_asks_is_told_what_it_may() {
    let relay = relay().await;
    let token = relay.admin_token().expect("a token");
    let about = read(&ask(&relay.admin, &token, "GET", "/api/v1", &[], "").await);
    assert_eq!((&about["you"]["kind"], &about["api"]["version"]), (&"admin".into(), &1.into()));
    assert_eq!(read(&ask(&relay.admin, &token, "GET", "/api/v1/", &[], "").await)["you"], about["you"]);
    let about = read(&ask(&relay.public, TEAM_TOKEN, "GET", "/_relay/v1/", &[], "").await);
    assert_eq!((&about["you"]["kind"], &about["you"]["name"]), (&"token".into(), &"team".into()));
    assert_eq!(about["you"]["rights"]["a-*"].as_array().map(Vec::len), Some(7));
    // What it may not.
    let refused = ask(&relay.public, TEAM_TOKEN, "PUT", "/_relay/v1/config", &[], "{}").await;
    assert_eq!((refused.status(), &read(&refused)["code"]), (StatusCode::FORBIDDEN, &"may_not_admin".into()));
    let reader = ask(&relay.public, &relay.token, "POST", "/_relay/v1/endpoints/b-other/pause", &[], "").await;
    assert_eq!((reader.status(), &read(&reader)["code"]), (StatusCode::FORBIDDEN, &"may_not_act".into()));
    // What it may.
    let paused = ask(&relay.public, TEAM_TOKEN, "POST", "/_relay/v1/endpoints/a-own/pause", &[], "").await;
    assert_eq!(read(&paused)["paused"], true);
    let list = read(&ask(&relay.public, TEAM_TOKEN, "GET", "/_relay/v1/endpoints", &[], "").await);
    let names: Vec<_> = list["endpoints"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["a-own"]);
    let row = |name: &str| json!({ "endpoint": { "name": name, "verify": "none" } }).to_string();
    let made = ask(&relay.public, TEAM_TOKEN, "POST", "/_relay/v1/endpoints", &[], &row("a-new")).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let foreign = ask(&relay.public, TEAM_TOKEN, "POST", "/_relay/v1/endpoints", &[], &row("b-new")).await;
    assert_eq!((foreign.status(), &read(&foreign)["code"]), (StatusCode::FORBIDDEN, &"may_not_create".into()));
}

#[tokio::test]
async fn a_code_opens_one_session_and_only_the_relays_own_page_uses_it() {
    let relay = relay().await;
    let (code, url) = relay.ask(&["inspect"]).await.expect("runs");
    assert_eq!(code, 0, "{url}");
    let (page, code) = url.trim().split_once("/#code=").expect("a code in the fragment");
    assert_eq!(page, format!("http://{}", relay.admin));
    let login = json!({ "code": code }).to_string();
    let kind = ("content-type", "application/json");
    let own = [kind, ("sec-fetch-site", "same-origin"), ("origin", page)];
    let opened = ask(&relay.admin, "", "POST", "/api/v1/sessions", &own, &login).await;
    assert_eq!(opened.status(), StatusCode::OK, "{}", read(&opened));
    assert_eq!(header(&opened, "set-cookie"), "", "a cookie would go to every port of this machine");
    let key = read(&opened)["key"].as_str().expect("a key").to_owned();
    let again = ask(&relay.admin, "", "POST", "/api/v1/sessions", &own, &login).await;
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED, "a code is good once");

    let status = async |method: &str, path: &str, more: &[(&str, &str)]| {
        ask(&relay.admin, &key, method, path, more, "").await.status().as_u16()
    };
    assert_eq!(status("GET", "/api/v1/events", &[("sec-fetch-site", "same-origin")]).await, 200);
    for site in ["same-site", "cross-site"] {
        assert_eq!(status("GET", "/api/v1/events", &[("sec-fetch-site", site)]).await, 403, "{site}");
    }
    assert_eq!(status("POST", "/api/v1/dead/revive", &[("origin", "http://127.0.0.1:3000")]).await, 403);
    let text = ask(&relay.admin, &key, "POST", "/api/v1/endpoints", &[("content-type", "text/plain")], "{}").await;
    assert_eq!(text.status(), StatusCode::BAD_REQUEST, "what a form could send");
    assert_eq!(status("POST", "/api/v1/sessions/codes", &[]).await, 403, "codes are the admin token's to make");

    let sessions = read(&ask(&relay.admin, &key, "GET", "/api/v1/sessions", &[], "").await);
    assert_eq!(sessions["sessions"][0]["current"], true, "{sessions}");
    assert!(!sessions.to_string().contains(&key));
    assert_eq!(status("DELETE", "/api/v1/sessions/current", &[]).await, 200);
    assert_eq!(status("GET", "/api/v1/events", &[]).await, 401);
}

#[tokio::test]
async fn a_tokens_session_has_its_rights_and_ends_with_it() {
    let relay = relay().await;
    let login = json!({ "token": TEAM_TOKEN }).to_string();
    let opened = read(&ask(&relay.admin, "", "POST", "/api/v1/sessions", &[], &login).await);
    let key = opened["key"].as_str().expect("a key").to_owned();
    let list = read(&ask(&relay.admin, &key, "GET", "/api/v1/endpoints", &[], "").await);
    assert_eq!(list["endpoints"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(ask(&relay.admin, &key, "GET", "/api/v1/refused", &[], "").await.status(), StatusCode::FORBIDDEN);
    let wrong = json!({ "token": "rt_wrong" }).to_string();
    for _ in 0..9 {
        let refused = ask(&relay.admin, "", "POST", "/api/v1/sessions", &[], &wrong).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    let slowed = ask(&relay.admin, "", "POST", "/api/v1/sessions", &[], &wrong).await;
    assert_eq!((slowed.status(), &read(&slowed)["code"]), (StatusCode::TOO_MANY_REQUESTS, &"too_many_logins".into()));
    let config = relay.config().expect("a config").replace(TEAM, "");
    relay.set_config(&config).expect("written");
    relay.reload().await.expect("a signal");
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while ask(&relay.admin, &key, "GET", "/api/v1/endpoints", &[], "").await.status() != StatusCode::UNAUTHORIZED {
        assert!(tokio::time::Instant::now() < end, "the session of a token that is gone lives on");
    }
}

#[tokio::test]
async fn the_page_is_served_with_its_policy() {
    let relay = relay().await;
    let frame = ask(&relay.admin, "", "GET", "/", &[], "").await;
    assert_eq!((frame.status(), header(&frame, "content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    for path in ["/", "/e/hook_1", "/app.js", "/style.css"] {
        let file = ask(&relay.admin, "", "GET", path, &[], "").await;
        let policy = header(&file, "content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("trusted-types 'none'"), "{path}: {policy}");
        assert_eq!((header(&file, "x-content-type-options"), header(&file, "cache-control")), ("nosniff", "no-cache"));
        let again = ask(&relay.admin, "", "GET", path, &[("if-none-match", header(&file, "etag"))], "").await;
        assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
    }
    let head = ask(&relay.admin, "", "HEAD", "/app.js", &[], "").await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(ask(&relay.admin, "", "GET", "/e/hook_1", &link, "").await.status(), StatusCode::OK);
    assert_eq!(ask(&relay.admin, "", "GET", "/app.js", &link[..1], "").await.status(), StatusCode::FORBIDDEN);
    let public = ask(&relay.public, "", "GET", "/app.js", &[], "").await;
    assert_eq!(public.status(), StatusCode::NOT_FOUND, "the public listener has no page");
}

#[tokio::test]
async fn a_body_comes_as_bytes_that_no_browser_runs() {
    let relay = relay().await;
    let html = "<script>alert(1)</script>";
    let kept = send(&relay.public, request("POST", "/a-own", &[("content-type", "text/html")], html)).await;
    let id = header(&kept.expect("answers"), "relay-event-id").to_owned();
    let token = relay.admin_token().expect("a token");
    let path = format!("/api/v1/events/{id}/body");
    for accept in ["*/*", "text/html", "application/json"] {
        let body = ask(&relay.admin, &token, "GET", &path, &[("accept", accept)], "").await;
        assert_eq!((body.status(), &body.body()[..]), (StatusCode::OK, html.as_bytes()));
        assert_eq!(header(&body, "content-type"), "application/octet-stream");
        assert_eq!(header(&body, "x-content-type-options"), "nosniff");
        assert!(header(&body, "content-disposition").starts_with("attachment"));
        assert!(header(&body, "content-security-policy").contains("sandbox"));
    }
    let part = ask(&relay.admin, &token, "GET", &path, &[("range", "bytes=7-12")], "").await;
    assert_eq!((part.status(), &part.body()[..]), (StatusCode::PARTIAL_CONTENT, &b">alert"[..]));
    assert_eq!(header(&part, "content-range"), format!("bytes 7-12/{}", html.len()));
    let behind = ask(&relay.admin, &token, "GET", &path, &[("range", "bytes=25-")], "").await;
    assert_eq!((behind.status(), header(&behind, "content-range")), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */25"));
    assert_eq!((&read(&behind)["code"], &read(&behind)["status"]), (&"bad_range".into(), &416.into()));
    let head = ask(&relay.admin, &token, "HEAD", &path, &[], "").await;
    assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, "25"));
}

/// A command that succeeds; what it prints, without its last line's end.
async fn run(relay: &Server, words: &[&str]) -> String {
    let (code, text) = relay.ask(words).await.expect("runs");
    assert_eq!(code, 0, "{words:?}: {text}");
    text.trim_end().to_owned()
}

#[tokio::test]
async fn a_token_of_the_store_is_rotated_with_grace_and_revoked_with_its_sessions() {
    let relay = relay().await;
    let create = ["token", "create", "guest", "--endpoints", "a-*", "--rights", "attach,read", "--running"];
    let first = run(&relay, &create).await;
    assert!(first.starts_with("rt_"), "{first}");
    let status =
        async |token: &str| ask(&relay.public, token, "GET", "/_relay/v1/events", &[], "").await.status().as_u16();
    assert_eq!(status(&first).await, 200, "it is good at once");
    let (code, said) = relay.run_with_input(&create, "").await.expect("runs");
    assert!(code == 1 && said.contains("exists"), "{code} {said}");
    let listed = run(&relay, &["token", "list", "--running", "--json"]).await;
    let row = |text: &str| -> Value {
        let rows = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        rows.into_iter().find(|row: &Value| row["name"] == "guest").expect("its row")
    };
    assert_eq!((&row(&listed)["source"], &row(&listed)["rights"]), (&"api".into(), &json!(["attach", "read"])));
    assert!(row(&listed)["last_used"].is_string() && !listed.contains(&first), "{listed}");

    let second = run(&relay, &["token", "rotate", "guest", "--grace", "1h"]).await;
    assert_eq!((status(&first).await, status(&second).await), (200, 200), "both are good for an hour");
    assert_eq!(row(&run(&relay, &["token", "list", "--running", "--json"]).await)["secrets"], 2);
    let third = run(&relay, &["token", "rotate", "guest"]).await;
    assert_eq!((status(&first).await, status(&second).await, status(&third).await), (401, 401, 200), "no grace");
    let fourth = run(&relay, &["token", "rotate", "guest", "--grace", "1s"]).await;
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while status(&third).await == 200 {
        assert!(tokio::time::Instant::now() < end, "a second of grace goes on");
    }

    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let agent = Agent::start(program, &relay.public, &fourth, "a-own", "9", &["--name", "guest"]).await;
    let _agent = agent.expect("attaches");
    let agents = async || read(&ask(&relay.public, TEAM_TOKEN, "GET", "/_relay/v1/agents", &[], "").await);
    let list = agents().await;
    let one = &list["agents"][0];
    assert_eq!(
        (&one["name"], &one["token"], &one["endpoints"][0]["standing"]),
        (&"guest".into(), &"guest".into(), &"active".into())
    );
    assert!(one["since"].is_string() && one["address"] == "127.0.0.1" && one["version"] != "", "{one}");
    run(&relay, &["token", "revoke", "guest", "--running"]).await;
    assert_eq!(status(&fourth).await, 401);
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    let list = loop {
        let list = agents().await;
        if list["agents"].as_array().is_some_and(Vec::is_empty) {
            break list;
        }
        assert!(tokio::time::Instant::now() < end, "its agent stays: {list}");
    };
    assert_eq!(
        (&list["gone"][0]["name"], &list["gone"][0]["gone_why"]),
        (&"guest".into(), &"the token is not valid any more".into())
    );
    for words in [["token", "revoke", "guest", "--running"], ["token", "revoke", "team", "--running"]] {
        let (code, said) = relay.run_with_input(&words, "").await.expect("runs");
        assert!(code != 0 && (said.contains("not_found") || said.contains("from_file")), "{code} {said}");
    }
}

#[tokio::test]
async fn an_endpoint_is_set_up_by_what_the_relay_says() {
    let relay = relay().await;
    let providers = read(&ask(&relay.public, TEAM_TOKEN, "GET", "/_relay/v1/providers", &[], "").await);
    let provider = |name: &str| {
        let all = providers["providers"].as_array().expect("a list");
        all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is missing")).clone()
    };
    assert_eq!((&provider("github")["own_secret"], &provider("stripe")["own_secret"]), (&true.into(), &false.into()));
    let make = async |name: &str, provider: &str| {
        let row = json!({ "endpoint": { "name": name, "verify": { "provider": provider } }, "generate_secret": true });
        read(&ask(&relay.public, TEAM_TOKEN, "POST", "/_relay/v1/endpoints", &[], &row.to_string()).await)
    };
    assert_eq!(make("a-stripe", "stripe").await["code"], "bad_config", "Stripe makes its own");
    for (name, provider) in [("a-hub", "github"), ("a-std", "standard-webhooks")] {
        let made = make(name, provider).await;
        let secret = made["secret"].as_str().expect("told once").to_owned();
        let path = format!("/_relay/v1/endpoints/{name}/setup");
        let setup = read(&ask(&relay.public, TEAM_TOKEN, "GET", &path, &[], "").await);
        assert_eq!(setup["paste"][0]["value"], made["url"], "{setup}");
        assert!(setup["agent_command"].as_str().is_some_and(|line| line.contains(name)), "{setup}");
        assert!(!setup.to_string().contains(&secret), "no secret leaves");
        assert_eq!(setup["expires_at"].is_string(), provider == "standard-webhooks", "{setup}");
        // It runs as it is, and the door takes it.
        let curl = setup["curl"].as_str().expect("a command");
        let ran = tokio::process::Command::new("sh").args(["-c", curl]).output().await.expect("runs");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(said.starts_with("HTTP/1.1 200"), "{curl}: {said} {}", String::from_utf8_lossy(&ran.stderr));
    }
    // Where the proof is a token, a command would tell it.
    assert!(make("a-lab", "gitlab-token").await["secret"].is_string());
    let setup = read(&ask(&relay.public, TEAM_TOKEN, "GET", "/_relay/v1/endpoints/a-lab/setup", &[], "").await);
    assert_eq!((&setup["curl"], setup["url"].is_string()), (&Value::Null, true), "{setup}");
}

#[tokio::test]
async fn whoever_made_an_endpoint_may_sign_with_the_secret_that_it_gave() {
    let relay = relay().await;
    let admin = relay.admin_token().expect("a token");
    let create = ["token", "create", "maker", "--endpoints", "m-*", "--rights", "read,replay,create", "--running"];
    let token = run(&relay, &create).await;
    let secret = "It's a Secret to Everybody";
    let make = async |at: &str, base: &str, token: &str, name: &str, own: bool| {
        let mut row = json!({ "endpoint": { "name": name, "mode": "assured", "verify": { "provider": "github" } } });
        match own {
            true => row["secrets"] = json!([secret]),
            false => row["endpoint"]["verify"]["secrets"] = json!(["env:TEAM"]),
        }
        let made = ask(at, token, "POST", &format!("{base}/endpoints"), &[], &row.to_string()).await;
        assert_eq!(made.status(), StatusCode::CREATED, "{name}: {}", read(&made));
    };
    make(&relay.public, "/_relay/v1", &token, "m-own", true).await;
    make(&relay.admin, "/api/v1", &admin, "m-relays", false).await;
    make(&relay.admin, "/api/v1", &admin, "m-admins", true).await;
    let rights =
        async || read(&ask(&relay.public, &token, "GET", "/_relay/v1/", &[], "").await)["you"]["rights"].clone();
    assert_eq!(rights().await, json!({ "m-*": ["read", "replay", "create"], "m-own": ["sign"] }));
    // It is remembered beside the row.
    let config = relay.config().expect("a config").replace("a-own", "a-other");
    relay.set_config(&config).expect("written");
    relay.reload().await.expect("a signal");
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while ask(&relay.admin, &admin, "GET", "/api/v1/endpoints/a-other", &[], "").await.status() != StatusCode::OK {
        assert!(tokio::time::Instant::now() < end, "the config is not read again");
    }
    for (name, secret, expected) in [
        ("m-own", secret, StatusCode::OK),
        ("m-relays", TEAM_TOKEN, StatusCode::FORBIDDEN),
        ("m-admins", secret, StatusCode::FORBIDDEN),
    ] {
        let lines = signed("github", secret, b"{}").expect("signs");
        let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let kept = send(&relay.public, request("POST", &format!("/{name}"), &lines, "{}")).await.expect("answers");
        let path = format!("/_relay/v1/events/{}/replay?to=endpoint&signature=fresh", header(&kept, "relay-event-id"));
        let edit = json!({ "body_text": "{\"changed\":1}" }).to_string();
        let json = [("content-type", "application/json")];
        let replayed = ask(&relay.public, &token, "POST", &path, &json, &edit).await;
        assert_eq!(replayed.status(), expected, "{name}: {}", read(&replayed));
        assert!(expected == StatusCode::OK || read(&replayed)["code"] == "may_not_sign", "{}", read(&replayed));
    }
}

#[tokio::test]
async fn a_token_makes_no_endpoint_with_a_secret_of_the_relays_machine() {
    let relay = relay().await;
    for reference in ["env:TEAM", "file:/etc/hostname", "cred:any"] {
        let verify = json!({ "provider": "github", "secrets": [reference] });
        let row = json!({ "endpoint": { "name": "a-new", "verify": verify } }).to_string();
        let made = ask(&relay.public, TEAM_TOKEN, "POST", "/_relay/v1/endpoints", &[], &row).await;
        assert_eq!((made.status(), &read(&made)["code"]), (StatusCode::FORBIDDEN, &"may_not_create".into()));
    }
    let row = json!({ "endpoint": { "name": "a-new", "verify": { "provider": "github" } }, "secrets": ["It's a Secret to Everybody"] });
    let made = ask(&relay.public, TEAM_TOKEN, "POST", "/_relay/v1/endpoints", &[], &row.to_string()).await;
    assert_eq!(made.status(), StatusCode::CREATED, "{}", read(&made));
}
