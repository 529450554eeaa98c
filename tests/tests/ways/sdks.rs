//! Providers' own SDKs on both ends: one signs a request, the relay verifies and carries it, and the same
//! SDK's verifier behind the agent accepts what arrives, byte for byte.
//!
//! Needs node and `npm ci` in `tests/sdk`, which `.ci/run` does; without them each test says so and is skipped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use relay_tests::process::Server;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

const PUBLIC_URL: &str = "https://hooks.example.com";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk")
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(folder().join(script)).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// The verifying handler and its port.
async fn verifier(provider: &str, secret: &str, url: &str) -> (Child, String) {
    let mut child = node("verify.mjs").args([provider, secret, url]).spawn().expect("node runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let port = lines.next_line().await.expect("reads").expect("a port");
    (child, port)
}

/// What the sender got: a status and a body.
async fn send(provider: &str, to: &str, secret: &str, url: &str, body: &[u8]) -> String {
    let mut child = node("send.mjs").args([provider, to, secret, url]).spawn().expect("node runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(body).await.expect("writes");
    drop(stdin);
    let output = child.wait_with_output().await.expect("ends");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn through_relay_and_agent(provider: &str, secret: &str, other_secret: &str, bodies: &[&[u8]]) {
    if !folder().join("node_modules").is_dir() {
        return println!("skipped: run `npm ci` in tests/sdk first");
    }
    let config = format!(
        "public_url = \"{PUBLIC_URL}\"\n[[endpoint]]\nname = \"hook\"\nmode = \"live\"\n\
         verify = {{ provider = \"{provider}\", secrets = [\"env:HOOK\"] }}\n"
    );
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[("HOOK", secret)]).await.expect("a relay");
    let signed_url = format!("{PUBLIC_URL}/hook");
    let (_verifier, port) = verifier(provider, secret, &signed_url).await;
    let _agent = relay.agent("hook", &port, &[]).await.expect("an agent");
    let to = format!("http://{}/hook", relay.public);
    for body in bodies {
        let answer = send(provider, &to, secret, &signed_url, body).await;
        assert_eq!(answer, format!("200 {}", sha256(body)), "{provider}, {} bytes", body.len());
    }
    let answer = send(provider, &to, other_secret, &signed_url, bodies[0]).await;
    assert!(answer.starts_with("401 ") && answer.contains("signature_mismatch"), "{provider}: {answer}");
}

const JSON: &[u8] = b"{\"id\":\"evt_1\",\"object\":\"event\",\"type\":\"invoice.paid\",\"note\":\"na\xc3\xafve \xe2\x82\xac\", \"n\": 1.0}";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_WHSEC: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[tokio::test]
async fn github() {
    through_relay_and_agent("github", "It's a Secret to Everybody", "another", &[JSON, b"{}"]).await;
}

#[tokio::test]
async fn stripe() {
    through_relay_and_agent("stripe", WHSEC, OTHER_WHSEC, &[JSON]).await;
}

#[tokio::test]
async fn standard_webhooks() {
    through_relay_and_agent("standard-webhooks", WHSEC, OTHER_WHSEC, &[JSON]).await;
}

#[tokio::test]
async fn svix() {
    through_relay_and_agent("svix", WHSEC, OTHER_WHSEC, &[JSON]).await;
}

/// Twilio signs the URL that it was given and the form's fields; the body is a form, and stays as it was written.
#[tokio::test]
async fn twilio() {
    const FORM: &[u8] = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&Body=na%C3%AFve+%E2%82%AC&To=";
    through_relay_and_agent("twilio", "12345678901234567890123456789012", "another", &[FORM, b"B=2&A=1"]).await;
}
