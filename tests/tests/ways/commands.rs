//! The command lines around verification: rows shown, vectors run, requests sent with faults, mistakes explained.

use std::{fs, path::Path, process::Output};

use relay_tests::{
    handler::Handler,
    process::{Server, run_to_end},
    sender::signed,
};
use tokio::process::Command;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(arguments).env("HOOK", SECRET).env("OTHER", "another secret, of 32 bytes or so");
    command.output().await.expect("runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn providers_are_listed_and_shown() {
    let all = said(&run(&["server", "provider", "list"]).await);
    assert!(all.lines().count() >= 60, "{} providers", all.lines().count());
    let stripe = said(&run(&["server", "provider", "show", "stripe"]).await);
    assert!(stripe.contains("algorithm = \"hmac-sha256\"") && stripe.contains("signed afresh when late"), "{stripe}");
    let unknown = run(&["server", "provider", "show", "strype"]).await;
    assert_eq!(unknown.status.code(), Some(4));
    assert!(said(&unknown).contains("did you mean stripe"), "{}", said(&unknown));
}

#[tokio::test]
async fn published_vectors_pass_and_a_wrong_one_is_named_with_what_was_seen() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    if !folder.is_dir() {
        return println!("skipped: there is no ../shared/vectors");
    }
    let output = run(&["server", "vectors", &folder.display().to_string()]).await;
    let text = said(&output);
    assert!(output.status.success() && text.trim_end().ends_with(" passed, 0 failed"), "{text}");

    // Under another secret no vector of it is accepted, and a provider that has no row goes by the file's own.
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("mine.json");
    let text = fs::read_to_string(folder.join("github.json")).expect("reads");
    let mut vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    vectors["provider"] = "no-such-provider".into();
    vectors["row"] = serde_json::json!({ "event_id": "header:x-github-delivery", "scheme": {
        "algorithm": "hmac-sha256",
        "template": "{body}",
        "signature": { "at": "header:x-hub-signature-256", "prefix": "sha256=", "encoding": "hex" },
    } });
    fs::write(&file, vectors.to_string()).expect("writes");
    let mine = run(&["server", "vectors", &file.display().to_string()]).await;
    assert!(mine.status.success(), "{}", said(&mine));
    for vector in vectors["vectors"].as_array_mut().expect("a list") {
        vector["config"]["secrets"] = serde_json::json!(["not the one"]);
    }
    fs::write(&file, vectors.to_string()).expect("writes");
    let wrong = run(&["server", "vectors", &file.display().to_string()]).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("saw signature_mismatch"), "{}", said(&wrong));
}

#[tokio::test]
async fn requests_are_sent_as_providers_send_them_and_faults_are_refused() {
    let endpoints = ["stripe", "github", "standard-webhooks"].map(|name| {
        format!("[[endpoint]]\nname = \"{name}\"\nmode = \"live\"\nverify = {{ provider = \"{name}\", secrets = [\"env:HOOK\"] }}\n")
    });
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &endpoints.concat(), &[("HOOK", SECRET)]).await.expect("a relay");
    let handler = Handler::echo().await.expect("a handler");
    let place = tempfile::tempdir().expect("a folder");
    let secret = place.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).expect("writes");
    let secret = secret.display().to_string();
    for name in ["stripe", "github", "standard-webhooks"] {
        let _agent = relay.agent(name, &handler.port(), &[]).await.expect("an agent");
        let to = format!("http://{}/{name}", relay.public);
        let send = async |more: &[&str]| {
            let plain = ["client", "send", name, "--to", &to, "--secret-file", &secret];
            run(&[&plain[..], more].concat()).await
        };
        let three = send(&["--count", "3", "--rate", "100", "--json"]).await;
        assert!(three.status.success() && said(&three).matches("\"status\":200").count() == 3, "{}", said(&three));
        let chunked = send(&["--chunked"]).await;
        assert!(chunked.status.success(), "{name}: {}", said(&chunked));
        let bad = send(&["--bad-signature"]).await;
        assert_eq!(bad.status.code(), Some(3));
        assert!(said(&bad).contains("signature_mismatch"), "{}", said(&bad));
        let stale = send(&["--stale"]).await;
        match name {
            "github" => assert!(stale.status.code() == Some(2) && said(&stale).contains("signs no time")),
            _ => assert!(stale.status.code() == Some(3) && said(&stale).contains("timestamp_too_old")),
        }
    }
    let discord = run(&["client", "send", "discord", "--to", "http://127.0.0.1:9/", "--secret-file", &secret]).await;
    assert!(
        discord.status.code() == Some(2) && said(&discord).contains("only Discord has the key"),
        "{}",
        said(&discord)
    );
}

#[tokio::test]
async fn a_saved_request_is_explained_without_a_word_of_its_secret() {
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("request.json");
    let explain = async |body: &str, headers: &[(String, String)], more: &[&str]| {
        let saved = serde_json::json!({
            "provider": "stripe",
            "request": { "method": "POST", "url": "https://hooks.example.com/s", "headers": headers, "body": body },
        });
        fs::write(&file, saved.to_string()).expect("writes");
        let plain = ["server", "explain", &file.display().to_string(), "--secret", "env:HOOK"].map(str::to_owned);
        let plain: Vec<_> = plain.iter().map(String::as_str).collect();
        let output = run(&[&plain[..], more].concat()).await;
        let text = said(&output);
        assert!(output.status.success() && !text.contains(SECRET), "{text}");
        text
    };
    let body = "{\"id\":\"evt_1\",\"type\":\"a\"}";
    let right = signed("stripe", SECRET, body.as_bytes()).expect("signs");
    assert!(explain(body, &right, &[]).await.starts_with("verifies"));
    let newline = explain(&format!("{body}\n"), &right, &[]).await;
    assert!(newline.contains("newline"), "{newline}");
    let late = explain(body, &right, &["--at", "4000000000"]).await;
    assert!(late.starts_with("clock_skew"), "{late}");
    let other = signed("stripe", "another secret, of 32 bytes or so", body.as_bytes()).expect("signs");
    let other = explain(body, &other, &["--other-secret", "env:OTHER"]).await;
    assert!(other.starts_with("other_secret") && other.contains("env:OTHER"), "{other}");
    let line =
        ["server", "explain", &file.display().to_string(), "--secret", "env:HOOK", "--public-url"].map(str::to_owned);
    let line: Vec<_> = line.iter().map(String::as_str).chain(["https://me:s3cret@bücher.example/s"]).collect();
    let output = run(&line).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("xn--bcher-kva.example"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_password_in_an_address_is_not_quoted() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("relay.toml");
    let path = path.to_str().expect("text");
    for row in [
        "[store]\nurl = \"postgres://me:s3cret@db.test/relay\"",
        "[[endpoint]]\nname = \"https://me:s3cret@hooks.test/a\"\nverify = \"none\"",
        "[server]\ndrain_timeout = \"https://me:s3cret@hooks.test/a\"",
    ] {
        fs::write(path, format!("version = 1\n{row}\n")).expect("writes");
        let output = run(&["server", "config", "check", "--config", path]).await;
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code() == Some(2) && told.contains("://…@"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
    fs::write(path, "version = 1\nname = \"https://me:s3cret@hooks.test/ a\"\n").expect("writes");
    let output = run(&["client", "config", "check", "--config", path]).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("://…@hooks.test") && !told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_filter_of_the_log_that_is_none_is_refused() {
    for arguments in [["server", "serve", "--dev"], ["client", "listen", "3000"]] {
        for filter in ["inof", "[request]=debug"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
            command.args(arguments).env("RELAY_LOG", filter);
            let (code, said) = run_to_end(&mut command, "").await.expect("ends");
            assert_eq!(code, 2, "{arguments:?}: {said}");
            assert!(said.contains(&format!("RELAY_LOG: `{filter}` is neither")), "{arguments:?}: {said}");
        }
    }
}
