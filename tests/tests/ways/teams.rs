//! Teams on one relay: whose an endpoint is, what a token may take, who did what, and that none sees another's.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use relay_tests::{
    handler::Handler,
    process::{Agent, PATIENCE, Server, run_to_end},
    program::Program,
    sender::{request, send, send_streaming, signed},
};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const SECRET: &str = "It's a Secret to Everybody";
const GITHUB: &str = "verify = { provider = \"github\", secrets = [\"env:SECRET\"] }\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

async fn relay(config: &str) -> Server {
    Server::start(program(), "127.0.0.1:0", config, &[("SECRET", SECRET)]).await.expect("a relay")
}

fn question(at: &str, token: &str, method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", at);
    let request = request.header("authorization", format!("Bearer {token}"));
    request.body(Full::new(body.to_owned().into())).expect("lawful")
}

async fn ask(at: &str, token: &str, method: &str, path: &str, body: &str) -> Response<Bytes> {
    send(at, question(at, token, method, path, body)).await.expect("answers")
}

async fn asked(at: &str, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = ask(at, token, method, path, &body).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

fn header<'r>(answer: &'r Response<Bytes>, name: &str) -> &'r str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

/// A command that succeeds; what it prints, without its last line's end.
async fn run(relay: &Server, words: &[&str]) -> String {
    let (code, text) = relay.ask(words).await.expect("runs");
    assert_eq!(code, 0, "{words:?}: {text}");
    text.trim_end().to_owned()
}

/// Makes a token of the running relay.
async fn token(relay: &Server, name: &str, endpoints: &str, rights: &str, limits: &[&str]) -> String {
    let words = ["token", "create", name, "--endpoints", endpoints, "--rights", rights, "--running"];
    run(relay, &[&words, limits].concat()).await
}

async fn post(relay: &Server, path: &str, body: &str) -> Response<Bytes> {
    let lines = signed("github", SECRET, body.as_bytes()).expect("signs");
    let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    send(&relay.public, request("POST", path, &lines, body.to_owned())).await.expect("answers")
}

fn new_endpoint(name: &str) -> Value {
    json!({
        "endpoint": { "name": name, "mode": "durable", "verify": { "provider": "github" } },
        "secrets": [SECRET],
    })
}

/// Waits until the audit log has what is looked for, the newest first.
async fn audited(relay: &Server, query: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let (admin, end) = (relay.admin_token().expect("a token"), Instant::now() + PATIENCE);
    loop {
        let (_, page) = asked(&relay.admin, &admin, "GET", &format!("/api/v1/audit?{query}"), &Value::Null).await;
        let found = page["entries"].as_array().and_then(|all| all.iter().find(|entry| is_it(entry)).cloned());
        match found {
            Some(found) => return found,
            None => assert!(Instant::now() < end, "not in {page}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_token_makes_endpoints_of_its_own_and_no_more_than_it_may() {
    let relay = relay("").await;
    let alice = token(&relay, "alice", "alice-*", "attach,read,create", &["--max-endpoints", "2"]).await;
    let twin = token(&relay, "twin", "alice-*", "read,create", &[]).await;
    let make = async |token: &str, row: Value| asked(&relay.public, token, "POST", "/_relay/v1/endpoints", &row).await;
    let (status, made) = make(&alice, new_endpoint("alice-one")).await;
    assert_eq!((status, &made["owner"]), (201, &"alice".into()), "{made}");
    let (status, said) = make(&alice, new_endpoint("bob-one")).await;
    assert_eq!((status, &said["code"]), (403, &"may_not_create".into()));
    // What is the admin's to say.
    for (key, value) in [("hosts", json!(["hooks.test"])), ("owner", json!("bob"))] {
        let mut row = new_endpoint("alice-two");
        row["endpoint"][key] = value;
        let (status, said) = make(&alice, row).await;
        assert_eq!((status, &said["code"]), (403, &"may_not_create".into()), "{key}: {said}");
    }
    assert_eq!(make(&alice, new_endpoint("alice-two")).await.0, 201);
    let (status, said) = make(&alice, new_endpoint("alice-three")).await;
    assert_eq!((status, &said["code"]), (409, &"too_many_endpoints".into()), "{said}");
    // Another token of the same pattern sees them and removes none.
    let mut again = new_endpoint("alice-one");
    again["use_own"] = true.into();
    assert_eq!(make(&alice, again.clone()).await.0, 200, "its own is there");
    let (status, said) = make(&twin, again).await;
    assert_eq!((status, &said["code"]), (409, &"exists".into()), "{said}");
    for (method, path) in
        [("DELETE", "/_relay/v1/endpoints/alice-one"), ("POST", "/_relay/v1/endpoints/alice-one/forget")]
    {
        let (status, said) = asked(&relay.public, &twin, method, path, &Value::Null).await;
        assert_eq!((status, &said["code"]), (403, &"may_not_create".into()), "{method} {path}: {said}");
    }
    // A token that is made anew under the old name has nothing of the old one's.
    run(&relay, &["token", "revoke", "alice", "--running"]).await;
    let rights = "attach,read,create,replay";
    let remade = token(&relay, "alice", "alice-*", rights, &["--max-endpoints", "1"]).await;
    let (_, detail) = asked(&relay.public, &remade, "GET", "/_relay/v1/endpoints/alice-one", &Value::Null).await;
    assert_eq!(detail["owner"], Value::Null, "{detail}");
    let (_, about) = asked(&relay.public, &remade, "GET", "/_relay/v1/", &Value::Null).await;
    assert_eq!(about["you"]["rights"]["alice-one"], Value::Null, "it may not sign there: {about}");
    let (status, _) = asked(&relay.public, &remade, "DELETE", "/_relay/v1/endpoints/alice-one", &Value::Null).await;
    assert_eq!(status, 403);
    assert_eq!(make(&remade, new_endpoint("alice-three")).await.0, 201, "none of them counts for it");
    let (_, about) = asked(&relay.public, &remade, "GET", "/_relay/v1/", &Value::Null).await;
    assert_eq!(about["you"]["rights"]["alice-three"], json!(["sign"]));
    let listed = run(&relay, &["token", "list", "--running", "--json"]).await;
    let row = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .find(|row| row["name"] == "alice");
    let row = row.expect("its row");
    assert_eq!((&row["own_endpoints"], &row["max_endpoints"]), (&1.into(), &1.into()), "{row}");
}

/// The day in UTC.
fn today() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() / 86_400
}

#[tokio::test]
async fn webhooks_of_a_day_are_counted_over_a_restart_and_refused_beyond_the_quota() {
    let own = |name: &str, mode: &str| {
        format!("[[endpoint]]\nname = \"{name}\"\nmode = \"{mode}\"\nowner = \"bob\"\n{GITHUB}")
    };
    let bob = "[[token]]\nname = \"bob\"\nsecrets = [\"env:BOB\"]\nendpoints = [\"b-*\"]\nmax_events_per_day = 5\n";
    let free = format!("[[endpoint]]\nname = \"free\"\nmode = \"durable\"\n{GITHUB}");
    let config = [own("b-kept", "durable"), own("b-live", "live"), free, bob.to_owned()].concat();
    let vars = [("SECRET", SECRET), ("BOB", "rt_0123456789abcdef0123456789abcdef")];
    let mut relay = Server::start(program(), "127.0.0.1:0", &config, &vars).await.expect("a relay");
    let day = today();
    for n in 0..3 {
        assert_eq!(post(&relay, "/b-kept", &format!("{{\"n\":{n}}}")).await.status(), StatusCode::OK);
    }
    // What is not proven does not count, and a live one does, delivered or not.
    let unproven = send(&relay.public, request("POST", "/b-kept", &[], "{}")).await.expect("answers");
    assert_eq!(unproven.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(header(&post(&relay, "/b-live", "{}").await, "relay-error"), "agent_unavailable");
    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    relay.start_again("127.0.0.1:0").await.expect("starts");
    let handler = Handler::echo().await.expect("a handler");
    let mut agent = relay.agent("b-live", &handler.port(), &[]).await.expect("attaches");
    let last = post(&relay, "/b-kept", "{\"n\":4}").await;
    if today() != day {
        return println!("skipped: a day ended meanwhile");
    }
    assert_eq!(last.status(), StatusCode::OK);
    for (path, body) in [("/b-kept", "{\"n\":5}"), ("/b-live", "{\"n\":6}"), ("/b-kept", "{\"n\":4}")] {
        let over = post(&relay, path, body).await;
        assert_eq!((over.status(), header(&over, "relay-error")), (StatusCode::TOO_MANY_REQUESTS, "quota_events"));
        let wait: u64 = header(&over, "retry-after").parse().expect("seconds");
        assert!((1..=86_400).contains(&wait), "{wait}");
    }
    assert!(agent.line("quota_events").await.expect("told").contains("b-live"));
    assert_eq!(post(&relay, "/free", "{}").await.status(), StatusCode::OK, "what is nobody's goes on");
    let admin = relay.admin_token().expect("a token");
    let (_, list) = asked(&relay.admin, &admin, "GET", "/api/v1/tokens", &Value::Null).await;
    let row = list["tokens"].as_array().expect("a list").iter().find(|row| row["name"] == "bob").expect("its row");
    assert_eq!((&row["events_today"], &row["max_events_per_day"]), (&5.into(), &5.into()), "{row}");
    let metrics = ask(&relay.admin, "", "GET", "/metrics", "").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    for line in [
        "relay_token_webhooks_today{token=\"bob\"} 5",
        "relay_token_over_quota_total{token=\"bob\",quota=\"events\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn what_waits_at_a_tokens_endpoints_fills_their_part_of_the_store_and_no_other() {
    let relay = relay(&format!("[[endpoint]]\nname = \"free\"\nmode = \"durable\"\n{GITHUB}")).await;
    let carol = token(&relay, "carol", "c-*", "read,create,act", &["--max-stored", "1MiB"]).await;
    for name in ["c-one", "c-two"] {
        let (status, said) = asked(&relay.public, &carol, "POST", "/_relay/v1/endpoints", &new_endpoint(name)).await;
        assert_eq!(status, 201, "{said}");
    }
    let large = |n: usize| format!("{{\"n\":{n},\"filling\":\"{}\"}}", "x".repeat(100_000));
    let mut kept = 0;
    let full = loop {
        let answer = post(&relay, if kept % 2 == 0 { "/c-one" } else { "/c-two" }, &large(kept)).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        kept += 1;
        assert!(kept < 20, "nothing bounds it");
    };
    assert!((8..=10).contains(&kept), "{kept} of 100 KB in 1 MiB");
    assert_eq!((full.status(), header(&full, "relay-error")), (StatusCode::SERVICE_UNAVAILABLE, "quota_stored"));
    assert_eq!(header(&full, "retry-after"), "60");
    assert_eq!(post(&relay, "/free", &large(0)).await.status(), StatusCode::OK);
    let listed = run(&relay, &["token", "list", "--running"]).await;
    let line = listed.lines().find(|line| line.starts_with("carol")).expect("a line").to_owned();
    assert!(line.contains("endpoints 2 of 100") && line.contains(" of 1MiB"), "{line}");
    // What is cancelled gives way.
    let cancel = json!({ "action": "cancel", "q": "is:waiting" });
    let (status, said) = asked(&relay.public, &carol, "POST", "/_relay/v1/bulk", &cancel).await;
    assert_eq!(status, 202, "{said}");
    let end = Instant::now() + PATIENCE;
    while post(&relay, "/c-one", &large(99)).await.status() != StatusCode::OK {
        assert!(Instant::now() < end, "there is still no room");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn listen_makes_the_endpoint_and_says_what_to_paste_where() {
    let relay = relay("").await;
    let alice = token(&relay, "alice", "alice-*", "attach,read,create", &[]).await;
    let twin = token(&relay, "twin", "alice-*", "attach,read,create", &[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("github.secret");
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    let handler = Handler::echo().await.expect("a handler");
    let command = |token: &str, endpoint: &str, more: &[&str]| {
        let mut command = Program::from(program()).role("client");
        command.args(["listen", &handler.port(), endpoint, "--output", "json", "--relay"]);
        command.arg(format!("ws://{}", relay.public)).args(["--create"]).args(more).env("RELAY_TOKEN", token);
        command
    };
    let file = secret.to_str().expect("text");
    let github = ["--provider", "github", "--secret-file", file];
    let mut agent = Agent::run(&mut command(&alice, "alice-hub", &github)).await.expect("it is made, and attached");
    let answer = post(&relay, "/alice-hub", "{\"n\":1}").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(agent.line("alice-hub").await.is_ok());
    assert!(agent.stop().await.expect("ends"));
    // It is there, and its own: the agent attaches.
    let mut again = Agent::run(&mut command(&alice, "alice-hub", &github)).await.expect("attached");
    assert!(again.stop().await.expect("ends"));
    let refusals = [
        (&twin, "alice-hub", &github[..], 3, "not this token's own"),
        (&alice, "bob-hub", &github[..], 3, "may_not_create"),
        (&alice, "alice-new", &["--provider", "stripe"][..], 2, "generate_secret"),
        (&alice, "alice-new", &["--provider", "nobody"][..], 2, "nobody"),
    ];
    for (token, endpoint, more, code, words) in refusals {
        let (ended, said) = run_to_end(&mut command(token, endpoint, more), "").await.expect("ends");
        assert!(ended == code && said.contains(words), "{endpoint} {more:?}: {ended} {said}");
        assert!(!said.contains(SECRET), "{said}");
    }
    // What the relay makes up is told once, with what to paste where.
    let mut made = command(&alice, "alice-std", &["--provider", "standard-webhooks", "--max-connections", "0"]);
    let (ended, said) = run_to_end(&mut made, "").await.expect("ends");
    assert_eq!(ended, 2, "what is wrong besides shows before anything is made: {said}");
    assert!(!said.contains("whsec_"), "{said}");
    let folder = relay.folder().join("out");
    let out = std::fs::File::create(&folder).expect("a file");
    let mut made = command(&alice, "alice-std", &["--provider", "standard-webhooks"]);
    let child = made.env("XDG_CONFIG_HOME", "/nonexistent").stderr(out).stdout(std::process::Stdio::null());
    let mut child = child.kill_on_drop(true).spawn().expect("runs");
    let end = Instant::now() + PATIENCE;
    let said = loop {
        let said = std::fs::read_to_string(&folder).expect("read");
        if said.contains("shown this once") {
            break said;
        }
        assert!(Instant::now() < end, "it says: {said}");
        sleep(Duration::from_millis(20)).await;
    };
    assert!(said.contains("created alice-std") && said.contains("/alice-std") && said.contains("whsec_"), "{said}");
    child.kill().await.expect("ended");
}

#[tokio::test]
async fn who_did_what_is_in_the_audit_log_and_no_secret_is() {
    let relay = relay(&format!("[[endpoint]]\nname = \"hub\"\nmode = \"durable\"\n{GITHUB}")).await;
    let admin = relay.admin_token().expect("a token");
    let alice = token(&relay, "alice", "alice-*", "attach,read,create,act", &[]).await;
    let made =
        audited(&relay, "action=token.create", |entry| entry["object"] == "alice" && entry["result"] == "ok").await;
    assert_eq!(
        (&made["kind"], &made["name"], &made["address"]),
        (&"admin".into(), &"admin".into(), &"127.0.0.1".into())
    );
    assert!(made["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{made}");
    let (status, _) = asked(&relay.public, &alice, "POST", "/_relay/v1/endpoints", &new_endpoint("alice-one")).await;
    assert_eq!(status, 201);
    let by_alice = audited(&relay, "action=endpoint.create&name=alice", |entry| entry["result"] == "ok").await;
    assert_eq!((&by_alice["kind"], &by_alice["object"]), (&"token".into(), &"alice-one".into()));
    assert!(by_alice["token"].as_str().is_some_and(|id| id.starts_with("tok_")), "{by_alice}");
    // What was refused, and why.
    let (status, _) = asked(&relay.public, &alice, "POST", "/_relay/v1/endpoints", &new_endpoint("bob-one")).await;
    assert_eq!(status, 403);
    audited(&relay, "action=endpoint.create", |entry| {
        entry["result"] == "may_not_create" && entry["object"] == "bob-one"
    })
    .await;
    let (status, _) =
        asked(&relay.public, &alice, "POST", "/_relay/v1/tokens", &json!({ "name": "x", "endpoints": ["*"] })).await;
    assert_eq!(status, 403);
    audited(&relay, "action=token.create&name=alice", |entry| entry["result"] == "may_not_admin").await;
    let (status, _) = asked(&relay.admin, &admin, "POST", "/api/v1/endpoints/hub/pause", &Value::Null).await;
    assert_eq!(status, 200);
    audited(&relay, "action=endpoint.pause&object=hub", |entry| entry["result"] == "ok").await;
    let kept = post(&relay, "/hub", "{\"canary\":\"what a sender wrote\"}").await;
    let id = header(&kept, "relay-event-id").to_owned();
    let (status, _) =
        asked(&relay.admin, &admin, "POST", &format!("/api/v1/events/{id}/replay?to=endpoint"), &Value::Null).await;
    assert_eq!(status, 200);
    audited(&relay, &format!("action=event.replay&object={id}"), |entry| entry["result"] == "ok").await;
    // Agents, strangers, sessions of the page, and the relay itself.
    let handler = Handler::echo().await.expect("a handler");
    let agent = Agent::start(program(), &relay.public, &alice, "alice-one", &handler.port(), &["--name", "desk"]).await;
    let agent = agent.expect("attaches");
    audited(&relay, "action=agent.attach", |entry| {
        entry["object"] == "alice-one" && entry["result"] == "ok" && entry["detail"] == "agent desk"
    })
    .await;
    drop(agent);
    let mut foreign = Program::from(program()).role("client");
    foreign
        .args(["listen", &handler.port(), "hub", "--relay", &format!("ws://{}", relay.public)])
        .env("RELAY_TOKEN", &alice);
    assert_eq!(run_to_end(&mut foreign, "").await.expect("ends").0, 3);
    audited(&relay, "action=agent.attach&object=hub", |entry| entry["result"] == "not_allowed").await;
    for _ in 0..5 {
        assert_eq!(
            ask(&relay.public, "rt_guess", "GET", "/_relay/v1/events", "").await.status(),
            StatusCode::UNAUTHORIZED
        );
    }
    let guess = audited(&relay, "action=auth", |entry| entry["result"] == "unauthorized").await;
    assert_eq!((&guess["kind"], &guess["address"]), (&"nobody".into(), &"127.0.0.1".into()));
    assert_eq!(ask(&relay.admin, "rt_guess", "GET", "/api/v1/events", "").await.status(), StatusCode::UNAUTHORIZED);
    audited(&relay, "action=auth&object=admin", |entry| entry["kind"] == "nobody").await;
    let login = json!({ "token": alice }).to_string();
    let opened = ask(&relay.admin, "", "POST", "/api/v1/sessions", &login).await;
    let opened: Value = serde_json::from_slice(opened.body()).expect("JSON");
    let key = opened["key"].as_str().expect("a key").to_owned();
    audited(&relay, "action=session.open&name=alice", |entry| entry["result"] == "ok").await;
    assert_eq!(asked(&relay.admin, &key, "DELETE", "/api/v1/sessions/current", &Value::Null).await.0, 200);
    audited(&relay, "action=session.leave", |entry| entry["kind"] == "session" && entry["name"] == "alice").await;
    relay.reload().await.expect("a signal");
    audited(&relay, "action=config.reload", |entry| entry["kind"] == "relay" && entry["result"] == "ok").await;
    audited(&relay, "action=relay.start", |_| true).await;

    // Only whoever has the right reads it, and nobody removes a row.
    for path in ["/_relay/v1/audit", "/_relay/v1/audit/export"] {
        assert_eq!(asked(&relay.public, &alice, "GET", path, &Value::Null).await.0, 403, "{path}");
        assert_eq!(asked(&relay.public, &alice, "DELETE", path, &Value::Null).await.0, 405, "{path}");
    }
    assert_eq!(asked(&relay.admin, &admin, "DELETE", "/api/v1/audit", &Value::Null).await.0, 405);
    // Page by page it is the whole, and so it is as lines, from both commands.
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/audit?limit=3&order=oldest{after}");
        let (_, page) = asked(&relay.admin, &admin, "GET", &path, &Value::Null).await;
        seen.extend(page["entries"].as_array().expect("rows").iter().map(|entry| entry["id"].clone()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let exported = run(&relay, &["audit", "export"]).await;
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<_> = lines.iter().map(|line| line["id"].clone()).collect();
    assert!(ids.len() >= 14 && ids[..seen.len()] == seen[..], "{exported}");
    assert_eq!(ids.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), ids.len());
    let streamed = ask(&relay.admin, &admin, "GET", "/api/v1/audit/export", "").await;
    let streamed = String::from_utf8_lossy(streamed.body()).into_owned();
    assert!(streamed.lines().count() >= lines.len());
    let listed = run(&relay, &["audit", "list", "--action", "token.create", "--json"]).await;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let listed = run(&relay, &["audit", "list", "--since", "1h", "--name", "alice", "--limit", "2"]).await;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for secret in [alice.as_str(), &admin, &key, SECRET, "rt_guess", "what a sender wrote"] {
        assert!(!streamed.contains(secret), "{streamed}");
    }
}

/// A team, and what nobody else may ever see.
struct Team {
    name: &'static str,
    other: &'static str,
    token: String,
}

impl Team {
    fn endpoint(&self, mode: &str) -> String {
        format!("{}-{mode}", self.name)
    }

    /// Fails where a text has something of the other team.
    fn check(&self, what: &str, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        for foreign in
            [format!("canary-{}", self.other), format!("{}-live", self.other), format!("{}-durable", self.other)]
        {
            assert!(!text.contains(&foreign), "{} sees {foreign} in {what}: {text}", self.name);
        }
    }
}

const MODES: [&str; 3] = ["live", "durable", "assured"];
const TEAMS: [(&str, &str); 2] = [("alice", "bob"), ("bob", "alice")];
const REQUESTS: usize = 10_000;
const SENDERS: usize = 8;

/// Asks for everything that a team may ask for, and for what is the other's, until the senders are done.
async fn watch(relay: &str, team: &Team, foreign: &[String], done: &std::sync::atomic::AtomicBool) -> usize {
    let mut rounds = 0;
    while !done.load(std::sync::atomic::Ordering::Relaxed) || rounds == 0 {
        rounds += 1;
        for path in [
            "",
            "/events?limit=50",
            "/events?q=since:1h&limit=50",
            "/events/count?q=since:1h",
            "/endpoints",
            "/agents",
            "/figures",
            "/dead/groups",
            "/bulks",
        ] {
            let answer = ask(relay, &team.token, "GET", &format!("/_relay/v1{path}"), "").await;
            team.check(path, answer.body());
        }
        let newest = ask(relay, &team.token, "GET", "/_relay/v1/events?q=since:1h&limit=3", "").await;
        let newest: Value = serde_json::from_slice(newest.body()).unwrap_or_default();
        for event in newest["events"].as_array().into_iter().flatten() {
            let id = event["id"].as_str().unwrap_or_default();
            for part in ["", "/body", "/export?as=cassette"] {
                let answer = ask(relay, &team.token, "GET", &format!("/_relay/v1/events/{id}{part}"), "").await;
                team.check(part, answer.body());
            }
        }
        for form in ["har", "cassette", "http"] {
            let asked = json!({ "q": "since:1h" }).to_string();
            let answer = ask(relay, &team.token, "POST", &format!("/_relay/v1/events/export?as={form}"), &asked).await;
            team.check(form, answer.body());
        }
        let own = format!("{}-churn-{rounds}", team.name);
        let row = json!({ "endpoint": { "name": own, "verify": "none" } }).to_string();
        let made = ask(relay, &team.token, "POST", "/_relay/v1/endpoints", &row).await;
        assert_eq!(made.status(), StatusCode::CREATED);
        team.check("a new endpoint", made.body());
        ask(relay, &team.token, "DELETE", &format!("/_relay/v1/endpoints/{own}?force=true"), "").await;
        // What is the other's is as what does not exist.
        for id in foreign {
            for (method, part) in [("GET", ""), ("GET", "/body"), ("POST", "/replay?to=endpoint"), ("POST", "/cancel")]
            {
                let answer = ask(relay, &team.token, method, &format!("/_relay/v1/events/{id}{part}"), "").await;
                assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method} {part}");
            }
        }
        for (method, path, status) in [
            ("GET", format!("/_relay/v1/endpoints/{}-live", team.other), 404),
            ("DELETE", format!("/_relay/v1/endpoints/{}-live", team.other), 404),
            ("GET", "/_relay/v1/audit".to_owned(), 403),
            ("GET", "/_relay/v1/tokens".to_owned(), 403),
            ("GET", "/_relay/v1/refused".to_owned(), 403),
            ("GET", "/metrics".to_owned(), 404),
        ] {
            assert_eq!(ask(relay, &team.token, method, &path, "").await.status().as_u16(), status, "{method} {path}");
        }
    }
    rounds
}

/// Reads a team's stream of news until the senders are done.
async fn follow(relay: &str, team: &Team, done: &std::sync::atomic::AtomicBool) -> usize {
    let mut pieces = 0;
    while !done.load(std::sync::atomic::Ordering::Relaxed) {
        let path = "/_relay/v1/stream?types=rows,agents,endpoints,figures";
        let answer = send_streaming(relay, question(relay, &team.token, "GET", path, "")).await.expect("answers");
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = answer.into_body();
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(Duration::from_secs(1), body.frame()).await {
            if let Some(data) = frame.data_ref() {
                team.check("the stream", data);
                pieces += 1;
            }
            if done.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
        }
    }
    pieces
}

#[tokio::test]
async fn two_teams_under_churn_never_see_anything_of_each_other() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let endpoint = |team: &str, mode: &str| {
        format!(
            "[[endpoint]]\nname = \"{team}-{mode}\"\nmode = \"{mode}\"\nverify = \"none\"\nwait_for_agent = \"200ms\"\nowner = \"{team}\"\n"
        )
    };
    let config: String = TEAMS.iter().flat_map(|(team, _)| MODES.iter().map(|mode| endpoint(team, mode))).collect();
    let relay = relay(&config).await;
    let rights = "attach,read,replay,act,create,skip";
    let mut teams = Vec::new();
    for (name, other) in TEAMS {
        let token = token(&relay, name, &format!("{name}-*"), rights, &[]).await;
        teams.push(Arc::new(Team { name, other, token }));
    }
    // What a handler gets is its team's, and so is what it answers.
    let (mut handlers, mut foreign) = (BTreeMap::new(), BTreeMap::<&str, Vec<String>>::new());
    let (crossed, handled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for team in &teams {
        let (crossed, handled, name) = (Arc::clone(&crossed), Arc::clone(&handled), team.name);
        let other = format!("canary-{}", team.other);
        let handler = Handler::start(move |request: Request<hyper::body::Incoming>| {
            let (crossed, handled, other) = (Arc::clone(&crossed), Arc::clone(&handled), other.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let seen = format!("{} {:?} {}", head.uri, head.headers, String::from_utf8_lossy(&body));
                handled.fetch_add(1, Ordering::Relaxed);
                crossed.fetch_add(usize::from(seen.contains(&other)), Ordering::Relaxed);
                let mut answer = Response::new(relay_tests::handler::full(format!("answer canary-{name}")));
                answer.headers_mut().insert("x-answer", format!("canary-{name}").parse().expect("a value"));
                answer
            }
        });
        handlers.insert(name, handler.await.expect("a handler"));
        let kept =
            send(&relay.public, request("POST", &format!("/{name}-durable"), &[], format!("canary-{name}"))).await;
        let id = header(&kept.expect("answers"), "relay-event-id").to_owned();
        foreign.entry(team.other).or_default().push(id);
    }
    let done = Arc::new(AtomicBool::new(false));
    let mut watchers = JoinSet::new();
    for team in &teams {
        let foreign = foreign[team.name].clone();
        let (public, team, done) = (relay.public.clone(), Arc::clone(team), Arc::clone(&done));
        let (again, too, over) = (public.clone(), Arc::clone(&team), Arc::clone(&done));
        watchers.spawn(async move { watch(&public, &team, &foreign, &done).await });
        watchers.spawn(async move { follow(&again, &too, &over).await });
    }
    // Agents of both teams come and go all the while.
    let mut churn = JoinSet::new();
    for team in &teams {
        for mode in MODES {
            let (public, team, done) = (relay.public.clone(), Arc::clone(team), Arc::clone(&done));
            let port = handlers[team.name].port();
            churn.spawn(async move {
                let mut turns = 0;
                while !done.load(Ordering::Relaxed) {
                    let name = format!("{}-{mode}-{}", team.name, turns % 2);
                    let agent =
                        Agent::start(program(), &public, &team.token, &team.endpoint(mode), &port, &["--name", &name])
                            .await;
                    let mut agent = agent.expect("attaches");
                    turns += 1;
                    let end = Instant::now() + Duration::from_millis(700 + 200 * u64::from(mode == "live"));
                    while Instant::now() < end && !done.load(Ordering::Relaxed) {
                        sleep(Duration::from_millis(20)).await;
                    }
                    if turns % 3 == 0 {
                        drop(agent); // Killed.
                    } else {
                        agent.stop().await.expect("ends");
                    }
                }
                turns
            });
        }
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (public, teams, next) = (relay.public.clone(), teams.clone(), Arc::clone(&next));
        senders.spawn(async move {
            let mut answered = 0;
            let mut kept = None;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= REQUESTS {
                    return answered;
                }
                let team = &teams[n % 2];
                let size = if n % 97 == 0 {
                    200_000
                } else if n % 7 == 0 {
                    9_000
                } else {
                    20
                };
                let canary = format!("canary-{}-{n}", team.name);
                let body = format!("{canary} {}", "x".repeat(size));
                let path = format!("/{}/{canary}?q={canary}", team.endpoint(MODES[n / 2 % 3]));
                let asked = request("POST", &path, &[("x-canary", &canary), ("cookie", &canary)], body);
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => relay_tests::sender::Keeper::connect(&public).await.expect("connects"),
                };
                let Ok(answer) = connection.send(asked).await else { continue };
                kept = (header(&answer, "connection") != "close").then_some(connection);
                let said = format!("{:?} {}", answer.headers(), String::from_utf8_lossy(answer.body()));
                team.check("an answer", said.as_bytes());
                answered += usize::from(said.contains(&format!("answer canary-{}", team.name)));
            }
        });
    }
    let mut answered = 0;
    while let Some(sent) = senders.join_next().await {
        answered += sent.expect("no sender saw anything of the other");
    }
    done.store(true, Ordering::Relaxed);
    let mut turns = 0;
    while let Some(turn) = churn.join_next().await {
        turns += turn.expect("agents come and go");
    }
    while let Some(watched) = watchers.join_next().await {
        assert!(watched.expect("no watcher saw anything of the other") > 0, "it saw nothing at all");
    }
    assert_eq!(crossed.load(Ordering::Relaxed), 0, "requests that reached the other team's handler");
    let handled = handled.load(Ordering::Relaxed);
    println!(
        "{REQUESTS} requests, {handled} calls of handlers, {answered} of their answers, {turns} agents came and went"
    );
    assert!(handled > REQUESTS / 4 && answered > REQUESTS / 10 && turns > 6);
    // The one who sees both is the admin.
    let admin = relay.admin_token().expect("a token");
    let all = ask(&relay.admin, &admin, "GET", "/api/v1/endpoints", "").await;
    let all = String::from_utf8_lossy(all.body()).into_owned();
    assert!(all.contains("alice-live") && all.contains("bob-live"));
}
