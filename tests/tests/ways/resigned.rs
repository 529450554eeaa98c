//! Whose secret a late delivery is signed with: the one that verified it, for as long as the endpoint has it.

use std::path::Path;

use bytes::Bytes;
use http::{Response, request::Parts};
use relay_schemes::Secret;
use relay_tests::{
    handler::Handler,
    process::{PATIENCE, Server},
    sender::{request, send, signed},
};
use tokio::time::timeout;

const FIRST: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const SECOND: &str = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";

const CONFIG: &str = "[[endpoint]]\nname = \"open\"\nmode = \"durable\"\nresign = \"always\"\n\
    verify = { provider = \"standard-webhooks\", secrets = [\"env:FIRST\", \"env:SECOND\"], tolerance = \"1h\" }\n";

/// Whether a request is signed with this secret.
fn is_signed_with(secret: &str, head: &Parts, body: &[u8]) -> bool {
    let row = relay_schemes::provider("standard-webhooks").expect("a row");
    let scheme = row.scheme.as_ref().expect("it signs");
    let keys = scheme.keys(&[Secret::new(secret)]).expect("a secret");
    let lines: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let request = relay_schemes::Request { method: "POST", url: "", headers: &lines, body };
    scheme.verify(&keys, &request, jiff::Timestamp::now().as_second()).is_ok()
}

#[tokio::test]
async fn a_late_delivery_has_the_secret_that_verified_it_and_the_first_once_that_is_gone() {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let vars = [("FIRST", FIRST), ("SECOND", SECOND)];
    let mut relay = Server::start(program, "127.0.0.1:0", CONFIG, &vars).await.expect("a relay");
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let mut next = async || timeout(PATIENCE, heads.recv()).await.expect("a call").expect("a handler");
    let mut ids = Vec::new();
    let long = "long ".repeat(500_000);
    for (secret, other, body) in [(FIRST, SECOND, "one"), (SECOND, FIRST, "two"), (SECOND, FIRST, &*long)] {
        let lines = signed("standard-webhooks", secret, body.as_bytes()).expect("signs");
        let mut lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // A sender cannot say which event this is, and so not which secret it was.
        lines.push(("relay-event-id", "hook_00000000000000000000000000000000"));
        let response: Response<Bytes> =
            send(&relay.public, request("POST", "/open", &lines, body.to_owned())).await.expect("answers");
        assert_eq!(response.status().as_u16(), 200);
        let head = next().await;
        assert_eq!(head.headers["relay-resigned"], "true");
        let shown = &body[..3];
        assert!(is_signed_with(secret, &head, body.as_bytes()), "{shown}: with the secret that verified it");
        assert!(!is_signed_with(other, &head, body.as_bytes()), "{shown}: and with no other");
        ids.push(response.headers()["relay-event-id"].to_str().expect("text").to_owned());
    }
    // A replay is another event, of the same sender's making.
    relay.ask(&["event", "replay", &ids[1]]).await.expect("runs");
    assert!(is_signed_with(SECOND, &next().await, b"two"));
    let config = relay.config().expect("a config").replace(", \"env:SECOND\"", "");
    relay.set_config(&config).expect("written");
    relay.reload().await.expect("reloads");
    relay.log_line("the config was taken over").await.expect("it says so");
    relay.ask(&["event", "replay", &ids[1]]).await.expect("runs");
    assert!(is_signed_with(FIRST, &next().await, b"two"), "the one that is left");
    // What is kept says which one it was, and neither secret.
    let (_, shown) = relay.ask(&["event", "show", &ids[1], "--json"]).await.expect("runs");
    assert!(!shown.contains(FIRST) && !shown.contains(SECOND), "{shown}");
}

#[tokio::test]
async fn what_the_relay_signs_for_a_handler_proves_nothing_at_its_own_door() {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let vars = [("FIRST", FIRST), ("SECOND", SECOND)];
    let mut relay = Server::start(program, "127.0.0.1:0", CONFIG, &vars).await.expect("a relay");
    let (handler, mut heads) = Handler::telling().await.expect("a handler");
    let agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let lines = signed("standard-webhooks", FIRST, b"body").expect("signs");
    let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let ask = async |relay: &Server, lines: &[(&str, &str)]| -> Response<Bytes> {
        send(&relay.public, request("POST", "/open", lines, "body")).await.expect("answers")
    };
    let first = ask(&relay, &lines).await;
    assert_eq!(first.status().as_u16(), 200);
    let id = first.headers()["relay-event-id"].to_str().expect("text").to_owned();
    let mut head = timeout(PATIENCE, heads.recv()).await.expect("a call").expect("a handler");
    let stamp = |head: &Parts| head.headers["webhook-timestamp"].to_str().expect("text").to_owned();
    // Within the sender's own second the signature is the sender's own.
    while lines.iter().any(|(name, value)| name.eq_ignore_ascii_case("webhook-timestamp") && *value == stamp(&head)) {
        relay.ask(&["event", "replay", &id, "--sign"]).await.expect("runs");
        head = timeout(PATIENCE, heads.recv()).await.expect("a call").expect("a handler");
    }
    assert!(is_signed_with(FIRST, &head, b"body"));
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let taken: Vec<(&str, &str)> = names.map(|name| (name, head.headers[name].to_str().expect("text"))).to_vec();
    let refused = async |relay: &Server| {
        let refused = ask(relay, &taken).await;
        assert_eq!(refused.status().as_u16(), 401);
        assert_eq!(refused.headers()["relay-error"], "signature_of_the_relay");
    };
    refused(&relay).await;
    drop(agent);
    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    let address = relay.public.clone();
    relay.start_again(&address).await.expect("starts again");
    refused(&relay).await;
    assert_eq!(ask(&relay, &lines).await.status().as_u16(), 200, "the sender's own may come again");
}
