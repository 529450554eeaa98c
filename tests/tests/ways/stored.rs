//! What lives in the store beside events: endpoints made through the API, rows applied from a file, what was refused.

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use http::{Request, StatusCode};
use http_body_util::Full;
use relay_server::store::{SqliteOptions, SqliteStore};
use relay_tests::{
    handler::Handler,
    process::{PATIENCE, Server},
    sender::{request, send, signed},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

const SECRET: &str = "It's a Secret to Everybody";

async fn relay(config: &str) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", config, &[("HOOK", SECRET)]).await.expect("a relay")
}

async fn restart(relay: &mut Server) {
    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    relay.start_again("127.0.0.1:0").await.expect("starts");
}

/// What a command that succeeds prints.
async fn ask(relay: &Server, words: &[&str]) -> String {
    let (code, text) = relay.run_with_input(words, "").await.expect("runs");
    assert_eq!(code, 0, "{words:?}: {text}");
    text
}

async fn ask_json(relay: &Server, words: &[&str]) -> Value {
    let text = ask(relay, &[words, &["--json"]].concat()).await;
    let json = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(json).expect("JSON")
}

/// What a command that fails with this code says.
async fn fails(relay: &Server, expected: i32, words: &[&str]) -> String {
    let (code, text) = relay.run_with_input(words, "").await.expect("runs");
    assert_eq!(code, expected, "{words:?}: {text}");
    text
}

/// A request to the admin API.
async fn api(relay: &Server, method: &str, path: &str, body: impl Into<bytes::Bytes>) -> (StatusCode, Value) {
    let token = relay.admin_token().expect("a token");
    let request = Request::builder().method(method).uri(path).header("host", &relay.admin);
    let request = request.header("authorization", format!("Bearer {token}")).body(Full::new(body.into()));
    let answer = send(&relay.admin, request.expect("lawful")).await.expect("answers");
    (answer.status(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

/// A webhook as GitHub sends it, signed with this secret: status and code of its answer.
async fn github(relay: &Server, endpoint: &str, secret: &str) -> (u16, String, String) {
    let body = "{\"zen\":\"Design for failure.\"}";
    let mut headers = signed("github", secret, body.as_bytes()).expect("signs");
    headers.push(("x-github-delivery".to_owned(), format!("{:x}", fresh())));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = send(&relay.public, request("POST", &format!("/{endpoint}"), &headers, body)).await.expect("answers");
    let text =
        |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    (answer.status().as_u16(), text("relay-error"), text("relay-event-id"))
}

/// A number that is another each time.
fn fresh() -> u128 {
    u128::from_be_bytes(*relay_server::webhook::EventId::new().as_bytes())
}

/// Whether any file of the state directory holds this text.
fn on_disk(relay: &Server, text: &str) -> bool {
    fn holds(path: &Path, text: &str) -> bool {
        if path.is_dir() {
            return fs::read_dir(path).expect("a folder").any(|file| holds(&file.expect("a file").path(), text));
        }
        let bytes = fs::read(path).expect("readable");
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    }
    holds(&relay.state_file(""), text)
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "it never came: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_created_endpoint_verifies_at_once_and_after_a_restart_and_its_secret_stays_inside() {
    let mut relay = relay(OPEN).await;
    assert_eq!(github(&relay, "hub", SECRET).await.0, 404);
    let made = ask_json(&relay, &["endpoint", "create", "hub", "--provider", "github", "--generate-secret"]).await;
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    assert_eq!((&made["source"], &made["mode"]), (&json!("api"), &json!("assured")));
    assert_eq!(made["url"], format!("http://{}/hub", relay.public));

    let handler = Handler::echo().await.expect("listens");
    let agent = relay.agent("hub", &handler.port(), &[]).await.expect("attaches");
    assert_eq!(github(&relay, "hub", &secret).await.0, 200);
    assert_eq!(github(&relay, "hub", SECRET).await.1, "signature_mismatch");

    // Nothing that is asked for, logged or written holds it.
    let mut seen = String::new();
    for words in
        [&["endpoint", "show", "hub"][..], &["endpoint", "show", "hub", "--json"], &["endpoint", "list", "--json"]]
    {
        seen += &ask(&relay, words).await;
    }
    for path in ["/api/v1/endpoints", "/api/v1/endpoints/hub", "/metrics", "/readyz"] {
        seen += &api(&relay, "GET", path, "").await.1.to_string();
    }
    seen += &relay.log_so_far();
    assert!(seen.contains("sealed:hub/0") && !seen.contains(&secret), "{seen}");
    assert!(!on_disk(&relay, &secret));
    let key = fs::metadata(relay.state_file("sealing.key")).expect("a key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    drop(agent);
    restart(&mut relay).await;
    let _agent = relay.agent("hub", &handler.port(), &[]).await.expect("attaches");
    assert_eq!(github(&relay, "hub", &secret).await.0, 200);
    assert_eq!(github(&relay, "hub", SECRET).await.1, "signature_mismatch");
    // A reload of the file leaves it alone.
    relay.reload().await.expect("a signal");
    relay.log_line("was taken over").await.expect("it says so");
    assert_eq!(github(&relay, "hub", &secret).await.0, 200);
    assert!(!relay.log_so_far().contains(&secret));
}

#[tokio::test]
async fn a_start_warns_about_what_runs_and_not_about_the_file_alone() {
    const DOUBT: &str = "no endpoint is configured";
    let mut relay = relay("").await;
    assert!(relay.first_words.contains(DOUBT), "{}", relay.first_words);
    ask_json(&relay, &["endpoint", "create", "hub", "--provider", "github", "--generate-secret"]).await;
    restart(&mut relay).await;
    assert!(!relay.first_words.contains(DOUBT), "{}", relay.first_words);
}

#[tokio::test]
async fn what_cannot_be_an_endpoint_is_refused_by_the_checks_of_a_file() {
    let relay = relay(OPEN).await;
    for (code, words, says) in [
        (1, &["open", "--provider", "none"][..], "already an endpoint called \"open\""),
        (2, &["Hub", "--provider", "none"], "not an endpoint name"),
        (2, &["hub", "--provider", "githb", "--generate-secret"], "--generate-secret"),
        (2, &["hub", "--provider", "githb"], "did you mean \"github\""),
        (2, &["hub", "--provider", "github"], "no secret"),
        (2, &["hub"], "does not say how to verify"),
        (2, &["hub", "--provider", "stripe", "--generate-secret"], "--secret-file"),
        (2, &["hub", "--provider", "none", "--mode", "asured"], "asured"),
        (2, &["hub", "--provider", "none", "--set", "dedline = \"1s\""], "unknown key \"dedline\""),
        (2, &["hub", "--provider", "github", "--set", "verify.secrets = [\"env:NOT_SET\"]"], "NOT_SET"),
        (2, &["hub", "--provider", "github", "--set", "verify.secrets = [\"sealed:x/0\"]"], "sealed:x/0"),
        (2, &["hub", "--provider", "github", "--set", "verify.secrets = [\"hunter2\"]"], "not a reference"),
    ] {
        let text = fails(&relay, code, &[&["endpoint", "create"], words].concat()).await;
        assert!(text.contains(says) && !text.contains("hunter2"), "{words:?}: {text}");
    }
    assert_eq!(api(&relay, "POST", "/api/v1/endpoints", "{\"endpoint\":").await.0, 400);
    assert_eq!(api(&relay, "POST", "/api/v1/endpoints", "{\"endpoint\":{\"name\":3}}").await.0, 400);
    let (status, answer) = api(&relay, "POST", "/api/v1/endpoints", vec![b' '; (1 << 20) + 1]).await;
    assert_eq!((status.as_u16(), &answer["error"]), (413, &json!("body_too_large")));
    let anyone = send(&relay.admin, request("POST", "/api/v1/endpoints", &[], "{}")).await.expect("answers");
    assert!(anyone.status().is_client_error());
    let list = api(&relay, "GET", "/api/v1/endpoints", "").await.1;
    assert_eq!(list["endpoints"].as_array().map(Vec::len), Some(1), "{list}");
    fails(&relay, 4, &["endpoint", "show", "hub"]).await;
    // A secret on standard input, and one that the relay reads by itself.
    let words = ["endpoint", "create", "hub", "--provider", "github", "--secret-file", "-"];
    let (code, text) = relay.run_with_input(&words, &format!("{SECRET}\n")).await.expect("runs");
    assert_eq!(code, 0, "{text}");
    ask(&relay, &["endpoint", "create", "env", "--provider", "github", "--set", "verify.secrets = [\"env:HOOK\"]"])
        .await;
    for endpoint in ["hub", "env"] {
        assert_ne!(github(&relay, endpoint, SECRET).await.0, 401, "{endpoint}");
        assert_eq!(github(&relay, endpoint, "another").await.0, 401, "{endpoint}");
    }
}

#[tokio::test]
async fn the_first_endpoint_that_keeps_needs_no_restart_and_what_waits_holds_up_its_end() {
    let relay = relay(OPEN).await;
    ask(&relay, &["endpoint", "create", "kept", "--provider", "none", "--set", "wait_for_agent = \"0s\""]).await;
    let keep = async || send(&relay.public, request("POST", "/kept", &[], "body")).await.expect("answers");
    let kept = keep().await;
    assert_eq!((kept.status().as_u16(), kept.headers().get("relay-error")), (200, None));
    let shown = ask_json(&relay, &["endpoint", "show", "kept"]).await;
    assert_eq!((&shown["pending"], &shown["dead"], &shown["attached"]), (&json!(1), &json!(0), &json!([])));
    assert_eq!(shown["settings"]["retry"]["retry_on"], json!([408, 425, 429, "5xx"]));
    let refused = fails(&relay, 1, &["endpoint", "delete", "kept"]).await;
    assert!(refused.contains("events of it wait (1)"), "{refused}");
    let handler = Handler::echo().await.expect("listens");
    {
        let _agent = relay.agent("kept", &handler.port(), &[]).await.expect("attaches");
        let id = kept.headers()["relay-event-id"].to_str().expect("text");
        eventually("delivered", async || ask_json(&relay, &["event", "show", id]).await["state"] == "delivered").await;
        let shown = ask_json(&relay, &["endpoint", "show", "kept"]).await;
        assert_eq!(shown["attached"][0]["token"], "test", "{shown}");
    }
    ask(&relay, &["endpoint", "pause", "kept"]).await;
    let last = keep().await;
    let last = last.headers()["relay-event-id"].to_str().expect("text");
    let shown = ask_json(&relay, &["endpoint", "show", "kept"]).await;
    assert!(shown["paused_since"].is_string() && shown["circuit"] == "closed", "{shown}");
    let deleted = ask_json(&relay, &["endpoint", "delete", "kept", "--force"]).await;
    assert_eq!(deleted["cancelled"], 1, "{deleted}");
    eventually("cancelled", async || ask_json(&relay, &["event", "show", last]).await["state"] == "dropped").await;
    assert_eq!(keep().await.status(), 404);
    fails(&relay, 4, &["endpoint", "delete", "kept"]).await;
    let file = fails(&relay, 1, &["endpoint", "delete", "open"]).await;
    assert!(file.contains("comes from the config file"), "{file}");
}

#[tokio::test]
async fn the_first_endpoint_that_keeps_may_come_with_a_reload() {
    let mut relay = relay(OPEN).await;
    let config = relay.config().expect("reads").replace("mode = \"live\"", "mode = \"durable\"");
    relay.set_config(&config).expect("writes");
    relay.reload().await.expect("a signal");
    relay.log_line("was taken over").await.expect("it says so");
    let kept = send(&relay.public, request("POST", "/open", &[], "body")).await.expect("answers");
    assert_eq!(kept.status(), 200);
    restart(&mut relay).await;
    assert_eq!(ask_json(&relay, &["endpoint", "show", "open"]).await["pending"], 1);
}

#[tokio::test]
async fn a_file_is_applied_as_a_whole_or_not_at_all() {
    let mut relay = relay(OPEN).await;
    ask(&relay, &["endpoint", "create", "made", "--provider", "none", "--mode", "live"]).await;
    let config = relay.config().expect("reads");
    let file = relay.folder().join("next.toml");
    let next = async |text: &str, more: &[&str], expected: i32| {
        fs::write(&file, text).expect("writes");
        let path = file.display().to_string();
        let (code, said) = relay.run_with_input(&[&["apply", &path], more].concat(), "").await.expect("runs");
        assert_eq!(code, expected, "{said}");
        said.lines().filter(|line| !line.starts_with("warning: ")).map(|line| format!("{line}\n")).collect::<String>()
    };
    let there = async |names: &[&str]| {
        let list = api(&relay, "GET", "/api/v1/endpoints", "").await.1;
        let found: Vec<_> = list["endpoints"].as_array().into_iter().flatten().map(|one| one["name"].clone()).collect();
        assert_eq!(found, names.iter().map(|name| json!(name)).collect::<Vec<_>>());
    };
    assert_eq!(next(&config, &[], 0).await.trim(), "= 2 unchanged", "the same file changes nothing");

    let hub = "[[endpoint]]\nname = \"hub\"\nverify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n";
    let more = config.replace(OPEN, &format!("{OPEN}{hub}")).replace("admin = ", "workers = 1\nadmin = ");
    let dry = next(&more, &["--dry-run"], 0).await;
    assert!(dry.contains("+ hub\n= 2 unchanged") && dry.contains("! server.workers"), "{dry}");
    there(&["made", "open"]).await;
    assert_eq!(next(&more, &[], 0).await, dry);
    there(&["hub", "made", "open"]).await;
    assert_eq!(github(&relay, "hub", "another").await.1, "signature_mismatch");
    assert_ne!(github(&relay, "hub", SECRET).await.0, 401);

    let changed = more.replace("mode = \"live\"", "mode = \"live\"\ndeadline = \"7s\"");
    let said: Value =
        serde_json::from_str(next(&changed, &["--json"], 0).await.lines().last().expect("a line")).expect("JSON");
    assert_eq!(said["endpoint"]["changed"], json!({ "open": ["deadline"] }), "{said}");
    assert_eq!(ask_json(&relay, &["endpoint", "show", "open"]).await["settings"]["deadline"], "7s");

    // One mistake, and nothing of it is taken over: by its line here, or where only the relay can see it.
    for (wrong, says) in [
        (changed.replace("name = \"hub\"", "name = \"Hub\""), "next.toml:"),
        (changed.replace("env:HOOK", "env:NOT_SET").replace("name = \"open\"", "name = \"other\""), "NOT_SET"),
        (changed.replace("name = \"hub\"", "name = \"made\""), "already an endpoint called \"made\""),
        (changed.replace("env:HOOK", "sealed:made/0"), "sealed:made/0"),
    ] {
        let said = next(&wrong, &[], 2).await;
        assert!(said.contains(says), "{said}");
        there(&["hub", "made", "open"]).await;
    }
    // What is made by the API stands on what was applied.
    ask(&relay, &["endpoint", "create", "later", "--provider", "none", "--mode", "live"]).await;
    there(&["hub", "later", "made", "open"]).await;
    let gone = next(&config, &[], 0).await;
    assert!(gone.contains("~ open (deadline)") && gone.contains("- hub"), "{gone}");
    there(&["later", "made", "open"]).await;
    assert_eq!(github(&relay, "hub", SECRET).await.0, 404);

    // A reload and a start apply the relay's own file again.
    next(&more, &[], 0).await;
    restart(&mut relay).await;
    let list = api(&relay, "GET", "/api/v1/endpoints", "").await.1;
    let sources: HashMap<_, _> = list["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (one["name"].to_string(), one["source"].to_string()))
        .collect();
    let expected = [("\"later\"", "\"api\""), ("\"made\"", "\"api\""), ("\"open\"", "\"file\"")];
    assert_eq!(sources, expected.map(|(name, source)| (name.to_owned(), source.to_owned())).into());
}

#[tokio::test]
async fn a_clash_of_names_is_an_error_that_names_both() {
    let mut relay = relay(OPEN).await;
    relay.expect_errors("the config was not taken over");
    ask(&relay, &["endpoint", "create", "made", "--provider", "none", "--mode", "live"]).await;
    let good = relay.config().expect("reads");
    relay.set_config(&good.replace("name = \"open\"", "name = \"made\"")).expect("writes");
    relay.reload().await.expect("a signal");
    let line = relay.log_line("was not taken over").await.expect("it says so");
    assert!(line.contains("api: endpoint.made: there is already") && line.contains("relay.toml:6"), "{line}");
    assert_eq!(send(&relay.public, request("POST", "/open", &[], "")).await.expect("answers").status(), 503);
    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    let why = relay.start_again("127.0.0.1:0").await.expect_err("refused").to_string();
    assert!(why.contains("api: endpoint.made") && why.contains("endpoint delete made"), "{why}");
    relay.set_config(&good).expect("writes");
    relay.start_again("127.0.0.1:0").await.expect("starts");
    assert_eq!(send(&relay.public, request("POST", "/made", &[], "")).await.expect("answers").status(), 503);
}

#[tokio::test]
async fn included_files_add_their_rows_and_are_named_by_their_mistakes() {
    let mut relay = relay(OPEN).await;
    let folder = relay.folder().join("conf.d");
    fs::create_dir(&folder).expect("a folder");
    let config =
        relay.config().expect("reads").replace("version = 1\n", "version = 1\ninclude = [\"conf.d/*.toml\"]\n");
    relay.set_config(&config).expect("writes");
    fs::write(folder.join("a.toml"), "# mine\n[[endpoint]]\nname = \"a\"\nmode = \"live\"\nverify = \"none\"\n")
        .expect("writes");
    fs::write(folder.join("not.txt"), "nothing").expect("writes");
    let path = relay.folder().join("relay.toml").display().to_string();
    assert!(ask(&relay, &["apply", &path, "--dry-run"]).await.contains("+ a\n= 2 unchanged"));
    relay.reload().await.expect("a signal");
    relay.log_line("was taken over").await.expect("it says so");
    assert_eq!(send(&relay.public, request("POST", "/a", &[], "")).await.expect("answers").status(), 503);
    for (text, says) in [
        ("[[endpoint]]\nname = \"b\"\n\n\nverify = \"nobody\"\n", "b.toml:5: endpoint.b.verify"),
        ("[[endpoint]]\nname = \"open\"\nverify = \"none\"\n", "relay.toml:7"),
        ("version = 1\n", "b.toml:1: version: unknown key"),
        ("\n[[endpoint]]\nnme = \"b\"\n", "b.toml:3: endpoint.nme: unknown key"),
    ] {
        fs::write(folder.join("b.toml"), text).expect("writes");
        let said = fails(&relay, 2, &["apply", &path]).await;
        assert!(said.contains(says), "{says}: {said}");
    }
}

#[tokio::test]
async fn what_was_refused_is_known_after_a_restart_without_what_lets_its_bearer_in() {
    let endpoints = ["github", "gitlab-token"].map(|provider| {
        format!("[[endpoint]]\nname = \"{provider}\"\nmode = \"live\"\nverify = {{ provider = \"{provider}\", secrets = [\"env:HOOK\"] }}\n")
    });
    let mut relay = relay(&endpoints.concat()).await;
    let (status, code, id) = github(&relay, "github", "another secret").await;
    assert_eq!((status, code.as_str()), (401, "signature_mismatch"));
    let token = [("x-gitlab-token", "hunter2 hunter2")];
    let answer =
        send(&relay.public, request("POST", "/gitlab-token?token=hunter3", &token, "{}")).await.expect("answers");
    assert_eq!(answer.status(), 401);
    let gitlab = answer.headers()["relay-event-id"].to_str().expect("text").to_owned();
    restart(&mut relay).await;
    let list = ask(&relay, &["event", "list", "--state", "refused"]).await;
    assert!(list.contains(&id) && list.contains(&gitlab) && list.contains("signature_mismatch"), "{list}");
    let only = ask(&relay, &["event", "list", "--state", "refused", "--endpoint", "github", "--json"]).await;
    assert!(only.contains(&id) && !only.contains(&gitlab), "{only}");
    let (_, whole) = api(&relay, "GET", &format!("/api/v1/refused/{id}"), "").await;
    assert_eq!(whole["body_kept"], whole["body_len"], "{whole}");
    let explained = ask(&relay, &["explain", &id]).await;
    assert!(!explained.trim().is_empty() && !explained.contains("credentials_not_kept"), "{explained}");
    let explained = ask(&relay, &["explain", &gitlab]).await;
    assert!(explained.contains("credentials_not_kept"), "{explained}");
    assert!(!on_disk(&relay, "hunter2") && !on_disk(&relay, "hunter3"));
    assert_eq!(ask_json(&relay, &["endpoint", "list"]).await["waiting"], 0);
    fails(&relay, 4, &["explain", "hook_00000000000070008000000000000000"]).await;
}

#[tokio::test]
async fn without_the_key_only_the_endpoints_with_sealed_secrets_are_closed() {
    let mut relay = relay(&OPEN.replace("mode = \"live\"", "mode = \"durable\"")).await;
    let words = ["endpoint", "create", "hub", "--provider", "github", "--secret-file", "-"];
    assert_eq!(relay.run_with_input(&words, SECRET).await.expect("runs").0, 0);
    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    let (key, away) = (relay.state_file("sealing.key"), relay.folder().join("away"));
    fs::rename(&key, &away).expect("moves");
    relay.start_again("127.0.0.1:0").await.expect("starts");
    let (status, code, _) = github(&relay, "hub", SECRET).await;
    assert_eq!((status, code.as_str()), (503, "secret_unavailable"));
    assert_eq!(send(&relay.public, request("POST", "/open", &[], "")).await.expect("answers").status(), 200);
    let ready = send(&relay.admin, request("GET", "/readyz", &[], "")).await.expect("answers");
    assert!(String::from_utf8_lossy(ready.body()).contains("secret_unavailable hub"));
    assert_eq!(ask_json(&relay, &["endpoint", "show", "hub"]).await["secret_available"], false);
    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    fs::rename(&away, &key).expect("moves");
    relay.start_again("127.0.0.1:0").await.expect("starts");
    assert_eq!(github(&relay, "hub", SECRET).await.0, 200);
    // An apply that takes an endpoint away says what waits there.
    let file = relay.folder().join("next.toml");
    let other = relay.config().expect("reads").replace("name = \"open\"", "name = \"other\"");
    fs::write(&file, other).expect("writes");
    let said = ask(&relay, &["apply", &file.display().to_string(), "--dry-run"]).await;
    assert!(said.contains("events wait at \"open\" (1)"), "{said}");
}

#[tokio::test]
async fn a_relay_waits_for_the_store_of_the_one_before_it() {
    let mut relay = relay(OPEN).await;
    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    let options = SqliteOptions { path: relay.state_file("relay.db"), max_bytes: 1 << 30 };
    let held = SqliteStore::open(options).expect("opens");
    let before = relay.admin_token().expect("a token");
    let state = relay.state_file("admin.token");
    let waits = tokio::spawn(async move {
        relay.start_again("127.0.0.1:0").await.expect("starts");
        relay
    });
    // Until the other has gone it writes nothing beside the store, so the other's token still opens the other.
    sleep(Duration::from_millis(500)).await;
    assert!(!waits.is_finished());
    assert_eq!(fs::read_to_string(&state).expect("reads"), before);
    drop(held);
    let relay = waits.await.expect("runs");
    assert_ne!(fs::read_to_string(&state).expect("reads"), before);
    assert_eq!(send(&relay.public, request("POST", "/open", &[], "")).await.expect("answers").status(), 503);
}
