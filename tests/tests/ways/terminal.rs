//! What a person sees at a terminal: nothing there steers it, whoever wrote it, and a reader that has seen enough ends
//! a command without a word.

use std::{path::Path, process::Stdio};

use relay_proto::printable::is_steering;
use relay_tests::{
    handler::Handler,
    process::{Agent, Server, run_to_end},
    sender::{request, send},
};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, process::Command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");

const ENDPOINTS: &str = "[[endpoint]]\nname = \"kept\"\nverify = \"none\"\nwait_for_agent = \"0s\"\n\
    [[endpoint]]\nname = \"signed\"\nverify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n";

/// CSI in one character, a colour, a direction override, a mark of byte order.
const EVIL: &str = "\u{9b}2J\u{9b}31mPAID\u{202e}\u{feff}";

async fn relay() -> Server {
    Server::start(Path::new(PROGRAM), "127.0.0.1:0", ENDPOINTS, &[("HOOK", "a secret")]).await.expect("a relay")
}

/// Sends a request whose target, header and JSON hold what steers a terminal.
async fn send_evil(relay: &Server, endpoint: &str) {
    use tokio::io::AsyncWriteExt as _;
    let mut stream = tokio::net::TcpStream::connect(&relay.public).await.expect("connects");
    let head = format!(
        "POST /{endpoint}/{EVIL} HTTP/1.1\r\nHost: relay.test\r\nX-Evil: {EVIL}\r\nUser-Agent: {EVIL}\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 "));
}

fn assert_calm(what: &str, text: &str) {
    let steering: Vec<_> = text.chars().filter(|char| *char != '\n' && is_steering(*char)).collect();
    assert!(steering.is_empty(), "{what} prints {steering:?} in {text}");
}

#[tokio::test]
async fn nothing_that_senders_wrote_steers_the_terminal_of_whoever_looks() {
    let mut relay = relay().await;
    let handler = Handler::echo().await.expect("listens");
    let mut agent = relay.agent("kept", &handler.port(), &[]).await.expect("attaches");
    send_evil(&relay, "kept").await;
    send_evil(&relay, "signed").await;
    let seen = agent.line("PAID").await.expect("a line for the exchange");
    assert_calm("listen --output json", &seen);
    let line: Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!(line["path"], format!("/{EVIL}"), "nothing is lost");
    assert!(agent.stop().await.expect("stops"));

    let listed = relay.ask(&["event", "list", "--json"]).await.expect("runs").1;
    let event: Value = serde_json::from_str(listed.lines().next().expect("an event")).expect("JSON");
    assert!(event["target"].as_str().expect("a target").ends_with(EVIL), "nothing is lost");
    let id = event["id"].as_str().expect("an id").to_owned();
    for words in [
        &["event", "list"][..],
        &["event", "list", "--json"],
        &["event", "list", "--state", "refused"],
        &["event", "list", "--state", "refused", "--json"],
        &["event", "show", &id],
        &["event", "show", &id, "--json"],
        &["endpoint", "list"],
        &["endpoint", "show", "kept"],
    ] {
        let (code, text) = relay.run_with_input(words, "").await.expect("runs");
        assert!(code == 0 && (text.contains("PAID") || words[0] == "endpoint"), "{words:?}: {text}");
        assert_calm(&words.join(" "), &text);
    }
    for words in [&["event", "list"][..], &["event", "list", "--json"], &["event", "show", &id]] {
        let mut command = Command::new(PROGRAM);
        command.arg("client").args(words).args(["--relay", &format!("http://{}", relay.public)]);
        let (code, text) = run_to_end(command.env("RELAY_TOKEN", &relay.token), "").await.expect("runs");
        assert!(code == 0 && text.contains("PAID"), "{words:?}: {text}");
        assert_calm(&words.join(" "), &text);
    }
    // What has to be found is searched for as typed, and told in the error as harmless text.
    let (code, text) = relay.run_with_input(&["event", "show", EVIL], "").await.expect("runs");
    assert_eq!(code, 4, "{text}");
    assert_calm("an error", &text);
    assert_calm("the log", &relay.log_so_far());
}

/// A pipe whose reader has gone away.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_a_command_without_a_word() {
    let relay = relay().await;
    send(&relay.public, request("POST", "/kept", &[], "x")).await.expect("kept");
    let folder = tempfile::tempdir().expect("a folder");
    let agents = folder.path().join("relay-client.toml");
    std::fs::write(&agents, "version = 1\n[[endpoint]]\nname = \"a\"\ntarget = \"1\"\n").expect("writes");
    let (agents, config) = (agents.display().to_string(), relay.folder().join("relay.toml").display().to_string());
    let (admin, public) = (format!("http://{}", relay.admin), format!("http://{}", relay.public));
    let remote = ["--admin-url", &admin, "--config", &config];
    let remote = |words: &[&'static str]| [&["server"], words, &remote[..]].concat();
    let client = ["--relay", &public];
    let client = |words: &[&'static str]| [&["client"], words, &client[..]].concat();
    for words in [
        vec![],
        vec!["server", "--help"],
        vec!["server", "man"],
        vec!["server", "completions", "bash"],
        vec!["server", "version"],
        vec!["server", "version", "--json"],
        vec!["server", "provider", "list"],
        vec!["server", "provider", "show", "stripe"],
        vec!["server", "config", "show", "--config", &config],
        vec!["server", "config", "show", "--json", "--config", &config],
        vec!["server", "config", "check", "--config", &config],
        vec!["server", "token", "list", "--config", &config],
        remote(&["event", "list"]),
        remote(&["event", "list", "--json"]),
        remote(&["event", "list", "--state", "refused"]),
        remote(&["endpoint", "list"]),
        remote(&["endpoint", "show", "kept"]),
        remote(&["dead", "list"]),
        vec!["client", "--help"],
        vec!["client", "man"],
        vec!["client", "completions", "zsh"],
        vec!["client", "version"],
        vec!["client", "config", "show", "--config", &agents],
        client(&["event", "list"]),
        client(&["event", "list", "--json"]),
        client(&["doctor"]),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(&words).env("RELAY_TOKEN", &relay.token).env("XDG_CONFIG_HOME", folder.path());
        command.env("HOOK", "a secret").stdin(Stdio::null()).stdout(unread()).stderr(Stdio::piped());
        let output = command.output().await.expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(0) && !said.contains("panicked"), "{words:?}: {} {said}", output.status);
    }
    // Nor does it matter that nobody is left who could be told of a failure.
    for words in [
        &["server", "config", "check", "--config", "/nowhere/relay.toml"][..],
        &["server", "no-such-command"],
        &["client", "config", "check", "--config", "/nowhere/relay-client.toml"],
        &["client", "no-such-command"],
    ] {
        let mut command = Command::new(PROGRAM);
        let status = command.args(words).stdin(Stdio::null()).stdout(unread()).stderr(unread()).status().await;
        assert_eq!(status.expect("runs").code(), Some(2), "{words:?}");
    }
}

#[tokio::test]
async fn an_agent_whose_lines_nobody_reads_drains_and_one_without_a_reader_of_notes_goes_on() {
    let relay = relay().await;
    let handler = Handler::echo().await.expect("listens");
    let listen = |more: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["client", "listen", &handler.port(), "kept", "--relay", &format!("ws://{}", relay.public)]);
        command.args(more).env("RELAY_TOKEN", &relay.token).env("XDG_CONFIG_HOME", "/nonexistent");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let mut command = listen(&["--output", "json"]);
    let status = command.stdout(unread()).stderr(Stdio::null()).status().await.expect("ends");
    assert_eq!(status.code(), Some(141));
    // As with `2>&1`: the first note finds nobody.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let same = writer.try_clone().expect("a copy");
    let status = listen(&[]).stdout(writer).stderr(same).status().await.expect("ends");
    assert_eq!(status.code(), Some(141));

    let mut running = listen(&["-vv"]).stdout(Stdio::piped()).stderr(unread()).spawn().expect("starts");
    let mut out = running.stdout.take().expect("its output");
    send(&relay.public, request("POST", "/kept/seen", &[], "x")).await.expect("kept");
    let mut line = [0; 64];
    let read = out.read(&mut line).await.expect("a line");
    assert!(String::from_utf8_lossy(&line[..read]).contains("POST"), "it works on");
    drop(out);
    send(&relay.public, request("POST", "/kept/unseen", &[], "x")).await.expect("kept");
    assert_eq!(running.wait().await.expect("ends").code(), Some(141));
    let _agent: Agent = relay.agent("kept", &handler.port(), &[]).await.expect("its place is free");
}
