//! The API against its own document: schemathesis asks a running relay what `docs/openapi.json` allows, and what it does
//! not, and looks at each answer.
//!
//! Opt-in: `RELAY_SCHEMATHESIS=60` is for how many seconds each asker asks. The program is `target/schemathesis`, where
//! `.ci/run` puts it, or `schemathesis` on the path. Where it is missing the test says so and is skipped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use http::StatusCode;
use relay_tests::{
    handler::Handler,
    process::{Agent, Server},
    sender::{request, send, signed},
};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// What asks, and with which rights.
const TOKENS: &str = "[[token]]\nname = \"team\"\nsecrets = [\"env:TEAM\"]\nendpoints = [\"a-*\"]\n\
    rights = [\"attach\", \"read\", \"replay\", \"sign\", \"skip\", \"act\", \"create\"]\n\
    [[token]]\nname = \"reader\"\nsecrets = [\"env:READER\"]\nendpoints = [\"a-*\"]\nrights = [\"read\"]\n";
const TEAM: &str = "rt_0123456789abcdef0123456789abcdef";
const READER: &str = "rt_fedcba9876543210fedcba9876543210";

const ENDPOINTS: &str = "[[endpoint]]\nname = \"a-kept\"\nmode = \"assured\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"a-live\"\nmode = \"live\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"a-signed\"\nmode = \"assured\"\nverify = { provider = \"stripe\", secrets = [\"env:SECRET\"] }\n\
    [[endpoint]]\nname = \"b-other\"\nmode = \"assured\"\nverify = \"none\"\n";
const SECRET: &str = "whsec_of_this_test";

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      unsupported_method,allow_header_conformance,negative_data_rejection";

/// A copy of the store is written where the question says: nothing may choose that at random. And a config without rows
/// would leave nothing to ask for.
const LEFT_OUT: [&str; 2] = ["/backup", "/config"];

/// How long it may take beside the time that it has, to begin and to end.
const SPARE: Duration = Duration::from_secs(300);

fn seconds() -> Option<u64> {
    std::env::var("RELAY_SCHEMATHESIS").ok()?.parse().ok().filter(|seconds| *seconds > 0)
}

/// The program and the folder of its modules.
async fn program() -> Option<(PathBuf, Option<PathBuf>)> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("schemathesis");
    let own = folder.join("bin/schemathesis");
    let found = if own.is_file() { (own, Some(folder)) } else { ("schemathesis".into(), None) };
    let mut asked = command(&found);
    let version = asked.arg("--version").output().await;
    version.is_ok_and(|version| version.status.success()).then_some(found)
}

fn command((program, folder): &(PathBuf, Option<PathBuf>)) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true).env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(folder) = folder {
        command.env("PYTHONPATH", folder);
    }
    command
}

/// A relay that has seen events of every kind, and their ids.
async fn relay() -> (Server, Vec<String>, Handler, Agent) {
    let vars = [("TEAM", TEAM), ("READER", READER), ("SECRET", SECRET)];
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &[ENDPOINTS, TOKENS].concat(), &vars).await.expect("a relay");
    let handler = Handler::echo().await.expect("listens");
    let endpoints = ["a-kept", "a-live", "a-signed"]
        .map(|name| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"http://{}\"\n", handler.address));
    let agent = relay.agent_from_file(&endpoints.concat()).await.expect("an agent");
    let body = "{\"id\":\"evt_1\",\"type\":\"invoice.paid\"}";
    let lines = signed("stripe", SECRET, body.as_bytes()).expect("signs");
    let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let sent =
        [("/a-kept", &[][..]), ("/a-live/x?y", &[]), ("/a-signed", &lines), ("/a-signed", &[]), ("/b-other", &[])];
    let mut ids = vec!["evt_1".to_owned()];
    for (path, lines) in sent {
        let answer = send(&relay.public, request("POST", path, lines, body)).await.expect("answers");
        ids.extend(answer.headers().get("relay-event-id").and_then(|id| Some(id.to_str().ok()?.to_owned())));
    }
    assert_eq!(ids.len(), 6, "{ids:?}");
    (relay, ids, handler, agent)
}

/// Names and ids that are there, so that more than refusals is seen.
fn config(ids: &[String]) -> String {
    let values = |values: &[&str]| format!("values = {}\n", serde_json::json!(values));
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let names = ["a-kept", "a-live", "a-signed", "b-other", "team", "a-new"];
    let queries = ["is:delivered", "endpoint:a-kept", "body:invoice", "is:dead", "took:>1ms since:1h", "status:2xx"];
    let words: [(&str, &[&str], f32); 8] = [
        ("path.id", &ids, 0.7),
        ("path.name", &names, 0.7),
        ("path.number", &["1", "2"], 0.8),
        ("path.code", &["busy", "not_found", "live"], 0.5),
        ("query.q", &queries, 0.5),
        ("query.as", &["curl", "curl-ps", "http", "har", "cassette"], 0.8),
        ("query.types", &["rows", "rows,agents,endpoints,figures"], 0.8),
        ("body.q", &queries, 0.5),
    ];
    let mut text = String::new();
    for (key, _, probability) in words {
        text += &format!(
            "[parameters.\"{key}\"]\ndictionary = \"{}\"\nprobability = {probability}\n",
            key.replace('.', "_")
        );
    }
    for (key, entries, _) in words {
        text += &format!("[dictionaries.{}]\n{}", key.replace('.', "_"), values(entries));
    }
    text
}

#[tokio::test]
async fn every_answer_is_one_that_the_document_promises() {
    let Some(seconds) = seconds() else {
        println!("skipped: RELAY_SCHEMATHESIS=60 has schemathesis ask for so many seconds");
        return;
    };
    let Some(program) = program().await else {
        println!("skipped: schemathesis is not there; `pip install --target target/schemathesis schemathesis`");
        return;
    };
    let (relay, ids, _handler, _agent) = relay().await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("schemathesis.toml"), config(&ids)).expect("written");
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let admin = relay.admin_token().expect("a token");
    // Whoever may do most comes last: what is gone then nobody else misses.
    let askers = [
        ("reader", format!("http://{}/_relay/v1", relay.public), READER),
        ("team", format!("http://{}/_relay/v1", relay.public), TEAM),
        ("admin", format!("http://{}/api/v1", relay.admin), admin.trim()),
    ];
    for (name, base, token) in askers {
        let mut asks = command(&program);
        asks.current_dir(folder.path()).arg("run").arg(&document);
        asks.args(["--url", &base, "--header", &format!("Authorization: Bearer {token}")]);
        asks.args(["--checks", CHECKS, "--max-time", &seconds.to_string()]);
        for path in LEFT_OUT {
            asks.args(["--exclude-path", path]);
        }
        asks.args(["--generation-database", "none", "--no-color", "--max-failures", "20", "--continue-on-failure"]);
        asks.args(["--warnings", "off", "--suppress-health-check", "all"]);
        let output =
            timeout(Duration::from_secs(seconds) + SPARE, asks.output()).await.expect("in time").expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{name}\n{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "what {name} was answered is not what the document says");
    }
    // It is still there, and answers as before.
    let answer = send(&relay.admin, request("GET", "/readyz", &[], "")).await.expect("answers");
    assert_eq!(answer.status(), StatusCode::OK);
    let about = request("GET", "/_relay/v1/", &[("authorization", &format!("Bearer {READER}"))], "");
    let about = send(&relay.public, about).await.expect("answers");
    let about: Value = serde_json::from_slice(about.body()).expect("JSON");
    assert_eq!(about["you"]["name"], "reader");
}
