//! Providers' challenges: answered by the relay itself while nobody is attached, recorded, and refused where nothing
//! allows an answer. What is learnt in one is sealed and outlives the relay.

use std::{collections::BTreeSet, path::Path};

use aws_lc_rs::{
    digest, hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use http::Response;
use relay_schemes::{Material, Secret, provider, providers, vectors::requests};
use relay_tests::{
    endpoints::{Endpoints, Sent, now},
    handler::Handler,
    process::Server,
};
use serde_json::{Value, json};

/// Fits every form: hex, base64 and text.
const SECRET: &str = "3f9a0c51d2e84b7796a1b0c3d4e5f60718293a4b5c6d7e8f";
const SWITCH: &str = ", allow_unsigned_challenge = true";

/// A challenge, and what the provider must get for it.
struct Case {
    provider: String,
    material: Material,
    token: Option<&'static str>,
    sent: Sent,
    statuses: Vec<u64>,
    headers: Vec<(String, String)>,
    forbidden: Vec<String>,
    body: Body,
    learns: Option<String>,
}

enum Body {
    Any,
    Exact(Vec<u8>),
    Json(Value),
}

impl Case {
    fn new(provider: &str, method: &str, target: &str, body: &str, status: u64, answer: Body) -> Self {
        let sent = Sent {
            method: method.to_owned(),
            url: format!("https://hooks.example.com/in/{provider}{target}"),
            headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
            body: body.as_bytes().to_vec(),
        };
        let material = secrets_for(provider);
        let (statuses, headers, forbidden) = (vec![status], Vec::new(), Vec::new());
        Self {
            provider: provider.to_owned(),
            material,
            token: None,
            sent,
            statuses,
            headers,
            forbidden,
            body: answer,
            learns: None,
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.sent.set(name, value);
        self
    }

    fn setting(mut self, name: &str, value: &str) -> Self {
        self.material.settings.insert(name.to_owned(), vec![value.to_owned()]);
        self
    }

    fn token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    /// Signs it afresh, with a key of its own where only the provider has one.
    fn sign(&mut self) {
        let row = provider(&self.provider).expect("a row");
        let scheme = row.scheme.as_ref().expect("a row that signs");
        if scheme.is_symmetric() {
            let keys = scheme.keys_from(&self.material).expect("keys");
            return self.sent.sign(row, &keys, now()).expect("signs");
        }
        assert_eq!(row.name, "discord", "say here how it signs");
        let (pair, at) = (Ed25519KeyPair::generate().expect("a key"), now().to_string());
        self.material = Material::secrets(&[Secret::new(HEXLOWER.encode(pair.public_key().as_ref()))]);
        let signature = pair.sign(&[at.as_bytes(), &self.sent.body].concat());
        self.sent.set("x-signature-ed25519", HEXLOWER.encode(signature.as_ref()));
        self.sent.set("x-signature-timestamp", at);
    }

    fn is_answered(&self) -> bool {
        self.statuses.iter().all(|status| *status < 300)
    }

    fn check(&self, response: &Response<Bytes>) {
        let (what, status) = (format!("{} {}", self.provider, self.sent.url), u64::from(response.status().as_u16()));
        assert!(self.statuses.contains(&status), "{what}: {status} {:?}", response.body());
        let plain = |text: &str| text.split(';').next().unwrap_or_default().to_owned();
        for (name, value) in &self.headers {
            let seen = response.headers().get(name).map(|seen| plain(seen.to_str().expect("text")));
            assert_eq!(seen, Some(plain(value)), "{what}: {name}");
        }
        for name in &self.forbidden {
            assert!(!response.headers().contains_key(name), "{what}: {name}");
        }
        match &self.body {
            Body::Any => {}
            Body::Exact(bytes) => assert_eq!(response.body()[..], bytes[..], "{what}"),
            Body::Json(value) => {
                let seen: Value = serde_json::from_slice(response.body()).expect("JSON");
                assert_eq!(seen, *value, "{what}");
            }
        }
    }
}

/// A secret, unless the provider tells its own or does not sign.
fn secrets_for(name: &str) -> Material {
    let row = provider(name).expect("a row");
    let wants = row.scheme.is_some() && !row.learns_secret() && row.name != "ebay";
    if wants { Material::secrets(&[Secret::new(SECRET)]) } else { Material::default() }
}

fn shared(file: &str) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    if !folder.is_dir() {
        println!("skipped: the published vectors are not beside this project");
        return None;
    }
    Some(std::fs::read_to_string(folder.join(file)).expect("a readable file"))
}

/// The published challenges. Those that are signed and must be answered are signed afresh.
fn published(text: &str) -> Vec<Case> {
    let file: Value = serde_json::from_str(text).expect("JSON");
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = |value: &Value| -> Vec<(String, String)> {
        value.as_array().into_iter().flatten().map(|line| (words(&line[0]), words(&line[1]))).collect()
    };
    let case = |vector: &Value| {
        let (name, request, wanted) = (words(&vector["provider"]), &vector["request"], &vector["response"]);
        let bytes = |text: &Value| BASE64.decode(words(text).as_bytes()).expect("base64");
        let mut material = secrets_for(&name);
        if let Some(secrets) = vector["config"]["secrets"].as_array() {
            material = Material::secrets(&secrets.iter().map(|secret| Secret::new(words(secret))).collect::<Vec<_>>());
        }
        let answer = bytes(&wanted["body_base64"]);
        let numbers = wanted["status_any"].as_array().cloned().unwrap_or_default();
        let headers = pairs(&request["headers"]).into_iter().map(|(name, value)| (name, value.into_bytes()));
        let mut case = Case {
            token: vector["config"]["verify_token"].as_str().map(|token| &*token.to_owned().leak()),
            sent: Sent {
                method: words(&request["method"]),
                url: words(&request["url"]),
                headers: headers.collect(),
                body: bytes(&request["body_base64"]),
            },
            statuses: numbers.iter().chain([&wanted["status"]]).filter_map(Value::as_u64).collect(),
            headers: pairs(&wanted["headers"]),
            forbidden: wanted["forbidden_response_headers"].as_array().into_iter().flatten().map(words).collect(),
            body: match wanted["match"].as_str() {
                Some("exact") => Body::Exact(answer),
                Some("json") => Body::Json(serde_json::from_slice(&answer).expect("JSON")),
                _ => Body::Any,
            },
            learns: vector["stores_secret"].as_str().map(str::to_owned),
            material,
            provider: name,
        };
        if case.is_answered() && vector["config"]["secrets"].is_array() {
            case.sign();
        }
        case
    };
    file["vectors"].as_array().expect("vectors").iter().map(case).collect()
}

fn hmac(algorithm: hmac::Algorithm, key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key), text.as_bytes()).as_ref().to_vec()
}

/// Challenges of the other rows, from the providers' own pages.
fn others() -> Vec<Case> {
    const HUB: &str = "?hub.mode=subscribe&hub.topic=t&hub.challenge=c%2B1&hub.verify_token=right";
    const FORM: &str = "application/x-www-form-urlencoded";
    const VERIFICATION: &str = r#"{"callbackId":"1","verificationKey":"key-7f3a"}"#;
    let empty = || Body::Exact(Vec::new());
    let text = |text: &str| Body::Exact(text.as_bytes().to_vec());
    let crc = BASE64.encode(&hmac(hmac::HMAC_SHA256, SECRET.as_bytes(), "crc-1"));
    let hashed = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let tree = HEXLOWER.encode(&hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hashed.as_ref(), "20f9f8ed05f77439fe95"));
    let ebay = digest::digest(&digest::SHA256, b"codea-tokenhttps://hooks.example.com/in/ebay");
    let ebay = json!({ "challengeResponse": HEXLOWER.encode(ebay.as_ref()) });
    let ebay_by_token = ebay.clone();
    let learnt = r#"{"verification_token":"secret_0123456789abcdef"}"#;
    let origin = "eventemitter.example.com";

    let zero = r#"{"events":[],"firstEventSequence":0,"lastEventSequence":0}"#;
    let mut xero = Case::new("xero", "POST", "", zero, 200, empty());
    xero.sign();
    let forged = BASE64.encode(&[7; 32]);
    let forged = Case::new("xero", "POST", "", zero, 401, Body::Any).header("x-xero-signature", &forged);
    let mut ping = Case::new("discord", "POST", "", r#"{"version":1,"application_id":"1","type":0}"#, 204, empty());
    ping.sign();
    let mut notion = Case::new("notion", "POST", "", learnt, 200, empty());
    notion.learns = Some("secret_0123456789abcdef".to_owned());
    let mut options =
        Case::new("cloudevents", "OPTIONS", "", "", 200, Body::Any).header("webhook-request-origin", origin);
    options.headers.push(("webhook-allowed-origin".to_owned(), origin.to_owned()));
    vec![
        xero,
        forged,
        ping,
        notion,
        options,
        Case::new("strava", "GET", HUB, "", 200, Body::Json(json!({ "hub.challenge": "c+1" }))).token("right"),
        Case::new("websub", "GET", HUB, "", 200, text("c+1")).token("right"),
        Case::new("websub", "GET", HUB, "", 403, Body::Any).token("another"),
        Case::new("websub", "GET", &HUB.replace("subscribe", "unsubscribe"), "", 200, text("c+1")).token("right"),
        Case::new("websub", "GET", &HUB.replace("subscribe", "unsubscribe"), "", 403, Body::Any).token("another"),
        Case::new("woocommerce", "POST", "", "webhook_id=7", 200, empty()).header("content-type", FORM),
        Case::new("slack", "POST", "", "token=t&ssl_check=1", 200, empty()).header("content-type", FORM),
        Case::new("slack", "GET", "?token=t&ssl_check=1", "", 200, empty()),
        Case::new("bitbucket", "POST", "", "{\"test\":true}", 200, empty()).header("x-event-key", "diagnostics:ping"),
        Case::new("salesforce-ens", "POST", "", VERIFICATION, 200, empty()),
        Case::new("fitbit", "GET", "?verify=right", "", 204, empty()).token("right"),
        Case::new("fitbit", "GET", "?verify=wrong", "", 404, Body::Any).token("right"),
        Case::new(
            "x",
            "GET",
            "?crc_token=crc-1",
            "",
            200,
            Body::Json(json!({ "response_token": format!("sha256={crc}") })),
        ),
        Case::new("onfleet", "GET", "?check=a%20b", "", 200, text("a b")),
        Case::new("braintree", "GET", "?bt_challenge=20f9f8ed05f77439fe95", "", 200, text(&format!("public|{tree}")))
            .setting("public_key", "public"),
        Case::new("ebay", "GET", "?challenge_code=code", "", 200, Body::Json(ebay))
            .setting("verification_token", "a-token"),
        Case::new("ebay", "GET", "?challenge_code=code", "", 200, Body::Json(ebay_by_token)).token("a-token"),
        Case::new("intercom", "HEAD", "", "", 200, empty()),
        Case::new("surveymonkey", "HEAD", "", "", 200, empty()),
        Case::new("mandrill", "HEAD", "", "", 200, empty()),
    ]
}

async fn relay(endpoints: &Endpoints) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", &endpoints.tables, &endpoints.vars()).await.expect("starts")
}

/// What the command line lists of one kind, an object each.
async fn listed(relay: &Server, state: &str) -> Vec<Value> {
    let (code, text) = relay.ask(&["event", "list", "--state", state, "--json"]).await.expect("runs");
    assert_eq!(code, 0, "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn id(response: &Response<Bytes>) -> String {
    response.headers().get("relay-event-id").expect("an id").to_str().expect("text").to_owned()
}

fn confirmation(text: &str) -> Case {
    let all = requests(text).expect("vectors");
    let sample = all.into_iter().find(|one| one.name.ends_with("subscription-confirmation")).expect("a confirmation");
    let mut material = sample.material;
    material.settings.retain(|name, _| name == "topic_arns");
    let sent = Sent { method: sample.method, url: sample.url, headers: sample.headers, body: sample.body };
    Case { material, sent, ..Case::new("aws-sns", "POST", "", "", 200, Body::Exact(Vec::new())) }
}

#[tokio::test]
async fn every_challenge_is_answered_and_recorded_while_no_agent_is_there() {
    let (mut cases, mut all_rows) = (others(), false);
    if let (Some(handshakes), Some(sns)) = (shared("_handshakes.json"), shared("aws-sns.json")) {
        cases.extend(published(&handshakes));
        cases.push(confirmation(&sns));
        all_rows = true;
    }
    let mut endpoints = Endpoints::default();
    for (number, case) in cases.iter().enumerate() {
        let more = match case.token {
            Some(token) => format!(", verify_token = {}", endpoints.keep(token.as_bytes())),
            None => SWITCH.to_owned(),
        };
        endpoints.add(&format!("e{number}"), &case.provider, &case.material, &more);
    }
    let relay = relay(&endpoints).await;
    let mut ids = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let response = case.sent.send(&relay.public, &format!("e{number}")).await.expect("answers");
        case.check(&response);
        ids.push(id(&response));
    }

    let (answered, refused) = (listed(&relay, "handshake").await, listed(&relay, "refused").await);
    assert_eq!(answered.len() + refused.len(), cases.len());
    let mut seen = BTreeSet::new();
    for ((number, case), id) in cases.iter().enumerate().zip(&ids) {
        let list = if case.is_answered() { &answered } else { &refused };
        let event = list.iter().find(|event| event["id"] == **id).unwrap_or_else(|| panic!("{}", case.sent.url));
        assert_eq!(event["endpoint"], format!("e{number}"));
        if case.is_answered() {
            let row = provider(&case.provider).expect("a row");
            assert_eq!(
                (&event["provider"], &event["learnt_secret"]),
                (&json!(row.name), &json!(case.learns.is_some()))
            );
            seen.insert((row.name.clone(), event["handshake"].as_str().expect("a name").to_owned()));
        }
    }
    if all_rows {
        let rows =
            providers().iter().flat_map(|row| row.handshakes.iter().map(|one| (row.name.clone(), one.name.clone())));
        assert_eq!(seen, rows.collect(), "each challenge that a row knows has a case");
    }
    let codes: Vec<_> = answered.iter().filter_map(|event| event["shown"].as_str()).collect();
    assert_eq!(codes, ["key-7f3a"], "what has to go back to the provider");
    let shown = format!("{answered:?}{refused:?}");
    for learnt in cases.iter().filter_map(|case| case.learns.as_deref()) {
        assert!(!shown.contains(learnt), "a learnt secret is shown");
    }
}

#[tokio::test]
async fn a_challenge_that_proves_nothing_is_refused_where_neither_token_nor_switch_is_set() {
    let mut cases = others();
    cases.extend(shared("_handshakes.json").iter().flat_map(|text| published(text)));
    // Those that are signed need no permission, and a HEAD asks for nothing.
    cases.retain(|case| case.sent.headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("x-slack-signature")));
    cases.retain(|case| {
        let asks = |one: &relay_schemes::Handshake| one.needs_permission();
        case.sent.method != "HEAD" && provider(&case.provider).expect("a row").handshakes.iter().any(asks)
    });
    assert!(cases.len() >= 10);
    let mut endpoints = Endpoints::default();
    for (number, case) in cases.iter().enumerate() {
        endpoints.add(&format!("e{number}"), &case.provider, &case.material, "");
    }
    let relay = relay(&endpoints).await;
    for (number, case) in cases.iter().enumerate() {
        let response = case.sent.send(&relay.public, &format!("e{number}")).await.expect("answers");
        let status = if case.provider == "fitbit" { 404 } else { 403 };
        assert_eq!(response.status(), status, "{}", case.sent.url);
        assert_eq!(response.headers()["relay-error"], "challenge_not_allowed", "{}", case.sent.url);
    }
    let refused = listed(&relay, "refused").await;
    assert_eq!(refused.len(), cases.len());
    assert!(refused.iter().all(|event| event["code"] == "challenge_not_allowed"), "{refused:?}");
    assert_eq!(listed(&relay, "handshake").await, Vec::<Value>::new());
}

/// What the row does not know as a challenge, or what is signed, is no challenge.
#[tokio::test]
async fn what_only_resembles_a_challenge_is_none() {
    let mut endpoints = Endpoints::default();
    let names = ["cloudevents", "azure-event-grid", "slack", "woocommerce", "bitbucket", "salesforce-ens"];
    names.iter().for_each(|name| endpoints.add(name, name, &secrets_for(name), SWITCH));
    let relay = relay(&endpoints).await;
    let case =
        |name: &str, method: &str, target: &str, body: &str| Case::new(name, method, target, body, 401, Body::Any);
    let mut signed = case("slack", "POST", "", "ssl_check=1");
    signed.sent.set("content-type", "application/x-www-form-urlencoded");
    signed.sign();
    for case in [
        // Without an origin nothing is asked for (CloudEvents HTTP webhooks, section 4.1.1).
        case("cloudevents", "OPTIONS", "", ""),
        case("cloudevents", "OPTIONS", "", "").header("webhook-request-origin", ""),
        case("azure-event-grid", "OPTIONS", "", ""),
        case("slack", "POST", "", "ssl_check=1"), // It says that it is JSON.
        case("woocommerce", "POST", "", "webhook_id=7").header("x-wc-webhook-topic", "order.created"),
        case("bitbucket", "POST", "", "{}").header("x-event-key", "repo:push"),
        case("salesforce-ens", "POST", "", "{\"verificationKey\":\"k\"}").header("x-sfmc-ens-signature", "AAAA"),
    ] {
        case.check(&case.sent.send(&relay.public, &case.provider).await.expect("answers"));
    }
    assert_eq!(listed(&relay, "handshake").await, Vec::<Value>::new());
    // One that is signed is an event, and nobody is there to take it.
    assert_eq!(signed.sent.send(&relay.public, "slack").await.expect("answers").status(), 503);
}

#[tokio::test]
async fn a_signature_that_a_stranger_was_given_for_a_challenge_opens_nothing() {
    const EVENT: &str = "{\"tweet_create_events\":[{\"text\":\"forged\"}]}";
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let mut endpoints = Endpoints::default();
    endpoints.add("x", "x", &secrets_for("x"), SWITCH);
    let mut tree = secrets_for("braintree");
    tree.settings.insert("public_key".to_owned(), vec!["public".to_owned()]);
    endpoints.add("braintree", "braintree", &tree, SWITCH);
    let relay = relay(&endpoints).await;
    let ask = async |name: &str, parameter: &str, text: &str| {
        let target = format!("?{parameter}={}", escaped(text));
        let response = Case::new(name, "GET", &target, "", 200, Body::Any).sent.send(&relay.public, name).await;
        let response = response.expect("answers");
        (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
    };
    let deliver = async |name: &str, headers: &[(&str, &str)], body: String| {
        let mut sent = Case::new(name, "POST", "", &body, 200, Body::Any).sent;
        headers.iter().for_each(|(name, value)| sent.set(name, *value));
        let response = sent.send(&relay.public, name).await.expect("answers");
        (response.status().as_u16(), response.headers()["relay-error"].to_str().expect("text").to_owned())
    };

    let payload = BASE64.encode(b"<notification><kind>check</kind></notification>");
    for (name, parameter, event) in [("x", "crc_token", EVENT), ("braintree", "bt_challenge", &payload)] {
        let (status, body) = ask(name, parameter, event).await;
        assert!(status == 403 && body.contains("challenge_malformed"), "{name}: {status} {body}");
    }
    // What has a challenge's shape is signed, and is no event.
    for text in ["crc-1", "true", "a=b"] {
        let (status, body) = ask("x", "crc_token", text).await;
        let value: Value = serde_json::from_str(&body).expect("JSON");
        let signature = value["response_token"].as_str().expect("a signature");
        let headers = [("x-twitter-webhooks-signature", signature)];
        let outcome = deliver("x", &headers, text.to_owned()).await;
        assert_eq!((status, outcome), (200, (401, "challenge_text".to_owned())), "{text}");
        let outcome = deliver("x", &headers, EVENT.to_owned()).await;
        assert_eq!(outcome, (401, "signature_mismatch".to_owned()), "{text}");
    }
    let text = "20f9f8ed05f77439fe95";
    let (status, signature) = ask("braintree", "bt_challenge", text).await;
    let body = format!("bt_signature={}&bt_payload={text}", escaped(&signature));
    assert_eq!((status, deliver("braintree", &form, body).await), (200, (401, "challenge_text".to_owned())));
}

#[tokio::test]
async fn a_subscription_that_may_not_be_confirmed_is_left_for_a_person_to_open() {
    let Some(text) = shared("aws-sns.json") else { return };
    let case = confirmation(&text);
    let mut endpoints = Endpoints::default();
    endpoints.add("sns", "aws-sns", &case.material, "");
    let mut relay = relay(&endpoints).await;
    let response = case.sent.send(&relay.public, "sns").await.expect("answers");
    case.check(&response);
    let line = relay.log_line("a subscription waits to be confirmed").await.expect("it says so");
    assert!(line.contains("\"endpoint\":\"sns\""), "{line}");
    let body: Value = serde_json::from_slice(&case.sent.body).expect("JSON");
    let list = listed(&relay, "handshake").await;
    assert_eq!((list.len(), &list[0]["confirm_url"]), (1, &body["SubscribeURL"]), "{list:?}");
    assert_eq!(list[0]["id"], id(&response));
    let (_, said) = relay.ask(&["event", "list", "--state", "handshake"]).await.expect("runs");
    assert!(
        said.contains("HANDSHAKE sns aws-sns subscription-confirmation") && said.contains("open https://"),
        "{said}"
    );

    let mut forged = case.sent.clone();
    forged.body = String::from_utf8(forged.body).expect("text").replace("\"Token\": \"", "\"Token\": \"x").into();
    assert_ne!(forged.body, case.sent.body);
    assert_eq!(forged.send(&relay.public, "sns").await.expect("answers").status(), 401);
    assert_eq!(listed(&relay, "handshake").await.len(), 1);
}

#[tokio::test]
async fn a_secret_from_a_handshake_is_sealed_and_known_after_a_restart() {
    let mut endpoints = Endpoints::default();
    endpoints.add("asana", "asana", &Material::default(), SWITCH);
    let mut relay = relay(&endpoints).await;
    let mut event = Case::new("asana", "POST", "", r#"{"events":[{"action":"changed"}]}"#, 200, Body::Any).sent;
    let row = provider("asana").expect("a row");
    let keys = |secret: &str| row.keys(&Material::secrets(&[Secret::new(secret)])).expect("a secret").expect("keys");
    event.sign(row, &keys(SECRET), now()).expect("signs");
    let early = event.send(&relay.public, "asana").await.expect("answers");
    assert_eq!(
        (early.status().as_u16(), &early.headers()["relay-error"]),
        (401, &"secret_missing".parse().expect("text"))
    );

    let hello = Case::new("asana", "POST", "", "", 200, Body::Exact(Vec::new())).header("x-hook-secret", SECRET);
    let answer = hello.sent.send(&relay.public, "asana").await.expect("answers");
    hello.check(&answer);
    assert_eq!(answer.headers()["x-hook-secret"], SECRET);

    let coded = BASE64.encode(SECRET.as_bytes());
    let state = relay.state_file("");
    let inside = |folder: &Path| -> Vec<_> {
        std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()).collect()
    };
    let mut files = inside(&state);
    assert!(
        files.contains(&relay.state_file("relay.db")) && files.contains(&relay.state_file("sealing.key")),
        "{files:?}"
    );
    while let Some(file) = files.pop() {
        if file.is_dir() {
            files.extend(inside(&file));
            continue;
        }
        let bytes = std::fs::read(&file).expect("readable");
        for clear in [SECRET.as_bytes(), &coded.as_bytes()[..16]] {
            assert!(!bytes.windows(clear.len()).any(|part| part == clear), "{} holds it", file.display());
        }
    }

    relay.terminate().await.expect("a signal");
    assert!(relay.ended().await.expect("ends"));
    relay.start_again("127.0.0.1:0").await.expect("starts");
    let handler = Handler::echo().await.expect("listens");
    let _agent = relay.agent("asana", &handler.port(), &[]).await.expect("attaches");
    let response = event.send(&relay.public, "asana").await.expect("answers");
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &event.body[..]));
    assert_eq!(response.headers()["x-seen-relay-verified"], "asana");
    event.sign(row, &keys("another secret"), now()).expect("signs");
    assert_eq!(event.send(&relay.public, "asana").await.expect("answers").status(), 401);

    // The provider may repeat itself; nobody else teaches another one, until the owner says so.
    hello.check(&hello.sent.send(&relay.public, "asana").await.expect("answers"));
    let stranger = Case::new("asana", "POST", "", "", 403, Body::Any).header("x-hook-secret", "another-secret");
    let answer = stranger.sent.send(&relay.public, "asana").await.expect("answers");
    stranger.check(&answer);
    assert_eq!(answer.headers()["relay-error"], "secret_known");
    assert!(!answer.headers().contains_key("x-hook-secret"));
    event.sign(row, &keys("another-secret"), now()).expect("signs");
    assert_eq!(event.send(&relay.public, "asana").await.expect("answers").status(), 401);
    event.sign(row, &keys(SECRET), now()).expect("signs");
    assert_eq!(event.send(&relay.public, "asana").await.expect("answers").status(), 200);
    assert_eq!(relay.ask(&["endpoint", "forget", "asana"]).await.expect("runs").0, 0);
    assert_eq!(event.send(&relay.public, "asana").await.expect("answers").status(), 401);
    assert_eq!(stranger.sent.send(&relay.public, "asana").await.expect("answers").status(), 200);
    event.sign(row, &keys("another-secret"), now()).expect("signs");
    assert_eq!(event.send(&relay.public, "asana").await.expect("answers").status(), 200);
}

#[tokio::test]
async fn an_endpoint_with_a_configured_secret_is_taught_no_other() {
    let mut endpoints = Endpoints::default();
    endpoints.add("asana", "asana", &Material::secrets(&[Secret::new(SECRET)]), SWITCH);
    let relay = relay(&endpoints).await;
    assert!(relay.first_words.contains("teaches this endpoint its secret"), "a start warns: {}", relay.first_words);
    let ask = |secret: &str| Case::new("asana", "POST", "", "", 200, Body::Any).header("x-hook-secret", secret).sent;
    let other = ask("another-secret").send(&relay.public, "asana").await.expect("answers");
    assert_eq!(
        (other.status().as_u16(), &other.headers()["relay-error"]),
        (403, &"secret_known".parse().expect("text"))
    );
    assert_eq!(ask(SECRET).send(&relay.public, "asana").await.expect("answers").status(), 200);
}
