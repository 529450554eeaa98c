//! What an endpoint decides about proofs: which secrets, how old, whether a failed one passes, rows of its own; keys
//! that only providers have; and why a request was refused, told to its owner without a secret.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use http::{Response, StatusCode};
use relay_schemes::{Keys, Material, Provider, Secret, provider};
use relay_tests::{
    endpoints::{Endpoints, Sent, now},
    handler::Handler,
    process::{Agent, Server},
    sender::{request, send},
};
use serde_json::{Value, json};

const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBk=";
const BODY: &str = "{\"id\":\"evt_1\",\"type\":\"invoice.paid\"}";

/// A relay with these endpoints, and an agent that serves them all with an echo.
struct Bench {
    relay: Server,
    _agent: Agent,
    _handler: Handler,
}

impl Bench {
    async fn start(endpoints: &Endpoints, names: &[&str]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_demo"));
        let relay = Server::start(program, "127.0.0.1:0", &endpoints.tables, &endpoints.vars()).await.expect("starts");
        let handler = Handler::echo().await.expect("listens");
        let table = |name: &&str| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{}\"\n", handler.port());
        let agent = relay.agent_from_file(&names.iter().map(table).collect::<String>()).await.expect("attaches");
        Self { relay, _agent: agent, _handler: handler }
    }

    async fn send(&self, endpoint: &str, sent: &Sent) -> Response<Bytes> {
        sent.send(&self.relay.public, endpoint).await.expect("answers")
    }

    /// The handler's answer, which says what it was told of the proof, or the refusal's code.
    async fn outcome(&self, endpoint: &str, sent: &Sent) -> Result<String, String> {
        let response = self.send(endpoint, sent).await;
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        match (response.status(), header("x-seen-relay-verified"), header("relay-error")) {
            (StatusCode::OK, Some(verified), None) => {
                assert_eq!(response.body()[..], sent.body[..]);
                Ok(verified)
            }
            (StatusCode::UNAUTHORIZED, None, Some(code)) => Err(code),
            other => panic!("{endpoint}: {other:?}"),
        }
    }
}

fn unsigned() -> Sent {
    Sent {
        method: "POST".to_owned(),
        url: "https://hooks.example.com/in".to_owned(),
        headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
        body: BODY.as_bytes().to_vec(),
    }
}

fn material(secrets: &[&str]) -> Material {
    Material::secrets(&secrets.iter().map(|secret| Secret::new(*secret)).collect::<Vec<_>>())
}

fn keys(row: &Provider, secret: &str) -> Keys {
    row.keys(&material(&[secret])).expect("a secret").expect("a row that signs")
}

/// A request that a provider signed so many seconds ago.
fn signed(name: &str, secret: &str, age_s: i64) -> Sent {
    let row = provider(name).expect("a row");
    let mut sent = unsigned();
    sent.sign(row, &keys(row, secret), now() - age_s).expect("signs");
    sent
}

fn ok(name: &str) -> Result<String, String> {
    Ok(name.to_owned())
}

fn refused(code: &str) -> Result<String, String> {
    Err(code.to_owned())
}

#[tokio::test]
async fn while_a_secret_is_rotated_both_are_good_and_no_third_one() {
    let mut endpoints = Endpoints::default();
    for name in ["github", "stripe", "standard-webhooks"] {
        endpoints.add(name, name, &material(&[NEW, OLD]), "");
    }
    let bench = Bench::start(&endpoints, &["github", "stripe", "standard-webhooks"]).await;
    for name in ["github", "stripe", "standard-webhooks"] {
        for (secret, outcome) in [(NEW, ok(name)), (OLD, ok(name)), (OTHER, refused("signature_mismatch"))] {
            assert_eq!(bench.outcome(name, &signed(name, secret, 0)).await, outcome, "{name}");
        }
    }
    // Where the provider signs under both, either is enough.
    let (mut both, other) = (signed("standard-webhooks", OTHER, 0), signed("standard-webhooks", OLD, 0));
    let value = |sent: &Sent| {
        let (_, value) = sent.headers.iter().find(|(name, _)| name == "webhook-signature").expect("signed");
        String::from_utf8(value.clone()).expect("text")
    };
    both.set("webhook-signature", format!("{} {}", value(&both), value(&other)));
    assert_eq!(bench.outcome("standard-webhooks", &both).await, ok("standard-webhooks"));
}

#[tokio::test]
async fn without_enforcement_what_is_not_proven_arrives_and_says_so() {
    let mut endpoints = Endpoints::default();
    endpoints.add("lenient", "stripe", &material(&[NEW]), ", enforce = false");
    let bench = Bench::start(&endpoints, &["lenient"]).await;
    let mut forged = signed("stripe", NEW, 0);
    // A sender cannot claim to be verified.
    forged.set("relay-verified", "stripe");
    forged.body.push(b' ');
    for (sent, verified) in [
        (signed("stripe", NEW, 0), "stripe"),
        (signed("stripe", OTHER, 0), "failed:signature_mismatch"),
        (forged, "failed:signature_mismatch"),
        (signed("stripe", NEW, 3600), "failed:timestamp_too_old"),
        (unsigned(), "failed:signature_missing"),
    ] {
        assert_eq!(bench.outcome("lenient", &sent).await, ok(verified));
    }
}

#[tokio::test]
async fn a_tolerance_goes_before_the_providers_own_both_ways() {
    let mut endpoints = Endpoints::default();
    endpoints.add("usual", "stripe", &material(&[NEW]), "");
    endpoints.add("wide", "stripe", &material(&[NEW]), ", tolerance = \"2h\"");
    endpoints.add("narrow", "stripe", &material(&[NEW]), ", tolerance = \"60s\"");
    let bench = Bench::start(&endpoints, &["usual", "wide", "narrow"]).await;
    let (old, new) = (refused("timestamp_too_old"), refused("timestamp_too_new"));
    for (age_s, usual, wide, narrow) in [
        (0, ok("stripe"), ok("stripe"), ok("stripe")),
        (200, ok("stripe"), ok("stripe"), old.clone()),
        (3600, old.clone(), ok("stripe"), old.clone()),
        (3 * 3600, old.clone(), old.clone(), old.clone()),
        (-200, ok("stripe"), ok("stripe"), new.clone()),
        (-3600, new.clone(), ok("stripe"), new.clone()),
        (-3 * 3600, new.clone(), new.clone(), new.clone()),
    ] {
        for (name, outcome) in [("usual", usual), ("wide", wide), ("narrow", narrow)] {
            assert_eq!(bench.outcome(name, &signed("stripe", NEW, age_s)).await, outcome, "{name}, {age_s} s old");
        }
    }
    // Age is said only of what is signed: a forger learns nothing of the clock.
    assert_eq!(bench.outcome("usual", &signed("stripe", OTHER, 3600)).await, refused("signature_mismatch"));
}

#[tokio::test]
async fn a_row_of_ones_own_works_as_the_embedded_ones_do() {
    const ROW: &str = "[[provider]]\nname = \"lamp\"\ntitle = \"Lamp\"\nevent_id = \"header:x-lamp-id\"\n\
        [provider.scheme]\nalgorithm = \"hmac-sha512\"\nsecret = \"text\"\ntemplate = \"{timestamp}.{header:x-lamp-id}.{body}\"\n\
        signature = { at = \"header:x-lamp-signature\", encoding = \"base64\", prefix = \"lamp:\" }\n\
        timestamp = { at = \"header:x-lamp-time\", past_s = 60, future_s = 60 }\n";
    let mut endpoints = Endpoints::default();
    endpoints.add("lamp", "lamp", &material(&[NEW]), "");
    endpoints.tables += ROW;
    let bench = Bench::start(&endpoints, &["lamp"]).await;
    let row = relay_schemes::load(ROW).expect("a row").remove(0);
    let sign = |secret: &str, age_s: i64| {
        let mut sent = unsigned();
        sent.set("x-lamp-id", "1");
        sent.sign(&row, &keys(&row, secret), now() - age_s).expect("signs");
        sent
    };
    assert_eq!(bench.outcome("lamp", &sign(NEW, 0)).await, ok("lamp"));
    assert_eq!(bench.outcome("lamp", &sign(OTHER, 0)).await, refused("signature_mismatch"));
    assert_eq!(bench.outcome("lamp", &sign(NEW, 120)).await, refused("timestamp_too_old"));
    let mut changed = sign(NEW, 0);
    changed.set("x-lamp-id", "2");
    assert_eq!(bench.outcome("lamp", &changed).await, refused("signature_mismatch"));
    assert_eq!(bench.outcome("lamp", &unsigned()).await, refused("signature_missing"));
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).expect("a key");
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).expect("a key")
}

/// A token in compact form, signed by `sign`.
fn jwt(algorithm: &str, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let text = format!("{}.{}", part(&json!({ "alg": algorithm, "kid": "key-1", "typ": "JWT" })), part(claims));
    format!("{text}.{}", BASE64URL_NOPAD.encode(&sign(text.as_bytes())))
}

/// From a body and a time, in Unix seconds, to the headers that are added.
type Sign = dyn Fn(&[u8], i64) -> Vec<(&'static str, String)>;

/// How a provider whose key nobody else has signs a body at a time, and what an endpoint knows of that key.
struct Asymmetric {
    provider: &'static str,
    material: Material,
    sign: Box<Sign>,
}

fn discord() -> Asymmetric {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let material = material(&[&HEXLOWER.encode(pair.public_key().as_ref())]);
    let sign = move |body: &[u8], at: i64| {
        let signature = pair.sign(&[at.to_string().as_bytes(), body].concat());
        vec![("x-signature-ed25519", HEXLOWER.encode(signature.as_ref())), ("x-signature-timestamp", at.to_string())]
    };
    Asymmetric { provider: "discord", material, sign: Box::new(sign) }
}

fn standard_webhooks() -> Asymmetric {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let material = material(&[&format!("whpk_{}", BASE64.encode(pair.public_key().as_ref()))]);
    let sign = move |body: &[u8], at: i64| {
        let signature = pair.sign(&[format!("msg_1.{at}.").as_bytes(), body].concat());
        vec![
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", format!("v1a,{}", BASE64.encode(signature.as_ref()))),
        ]
    };
    Asymmetric { provider: "standard-webhooks-v1a", material, sign: Box::new(sign) }
}

fn sendgrid() -> Asymmetric {
    // The DER in front of a P-256 point in its SPKI form (RFC 5480).
    const SPKI: &[u8] = b"3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let pair = ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let spki = [&HEXLOWER.decode(SPKI).expect("hex")[..], pair.public_key().as_ref()].concat();
    let sign = move |body: &[u8], at: i64| {
        let signed = pair.sign(&SystemRandom::new(), &[at.to_string().as_bytes(), body].concat()).expect("signs");
        vec![
            ("x-twilio-email-event-webhook-signature", BASE64.encode(signed.as_ref())),
            ("x-twilio-email-event-webhook-timestamp", at.to_string()),
        ]
    };
    Asymmetric { provider: "sendgrid", material: material(&[&BASE64.encode(&spki)]), sign: Box::new(sign) }
}

fn plaid() -> Asymmetric {
    let pair = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let point = pair.public_key().as_ref();
    let (x, y) = (BASE64URL_NOPAD.encode(&point[1..33]), BASE64URL_NOPAD.encode(&point[33..]));
    let jwks = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "key-1", "x": x, "y": y }] }).to_string();
    let sign = move |body: &[u8], at: i64| {
        let claims = json!({ "iat": at, "request_body_sha256": sha256(body) });
        let sign = |text: &[u8]| pair.sign(&SystemRandom::new(), text).expect("signs").as_ref().to_vec();
        vec![("plaid-verification", jwt("ES256", &claims, sign))]
    };
    Asymmetric {
        provider: "plaid",
        material: Material { jwks: Some(jwks), ..Material::default() },
        sign: Box::new(sign),
    }
}

fn pubsub() -> Asymmetric {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    // PKCS#1 (RFC 8017): nine bytes, the 256 of the modulus, and the exponent 65537.
    let key = pair.public_key().as_ref();
    let (n, e) = (BASE64URL_NOPAD.encode(&key[9..265]), "AQAB");
    assert!(key.len() == 270 && key.ends_with(&[1, 0, 1]));
    let jwks = json!({ "keys": [{ "kty": "RSA", "kid": "key-1", "n": n, "e": e }] }).to_string();
    let settings = [("audience", "https://hooks.example.com/in"), ("email", "push@p.iam.gserviceaccount.com")];
    let settings = settings.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).into();
    let sign = move |_: &[u8], at: i64| {
        let claims = json!({
            "iss": "https://accounts.google.com", "aud": "https://hooks.example.com/in", "iat": at, "exp": at + 3600,
            "email": "push@p.iam.gserviceaccount.com", "email_verified": true,
        });
        let sign = |text: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).expect("signs");
            signature
        };
        vec![("authorization", format!("Bearer {}", jwt("RS256", &claims, sign)))]
    };
    let material = Material { jwks: Some(jwks), settings, ..Material::default() };
    Asymmetric { provider: "google-pubsub", material, sign: Box::new(sign) }
}

#[tokio::test]
async fn what_only_the_provider_can_sign_arrives_while_it_is_fresh() {
    let rows = [discord(), standard_webhooks(), sendgrid(), plaid(), pubsub()];
    let mut endpoints = Endpoints::default();
    rows.iter().for_each(|row| endpoints.add(row.provider, row.provider, &row.material, ""));
    let bench = Bench::start(&endpoints, &rows.each_ref().map(|row| row.provider)).await;
    for row in rows {
        let sent = |age_s: i64, with: &Asymmetric| {
            let mut sent = unsigned();
            let headers = (with.sign)(&sent.body, now() - age_s);
            headers.into_iter().for_each(|(name, value)| sent.set(name, value));
            sent
        };
        let name = row.provider;
        assert_eq!(bench.outcome(name, &sent(0, &row)).await, ok(name));
        assert_eq!(bench.outcome(name, &sent(2 * 3600, &row)).await, refused("timestamp_too_old"), "{name}");
        let mut changed = sent(0, &row);
        changed.body.push(b'\n');
        let outcome = match name {
            "google-pubsub" => ok(name), // Its token does not cover the body.
            "plaid" => refused("body_mismatch"),
            _ => refused("signature_mismatch"),
        };
        assert_eq!(bench.outcome(name, &changed).await, outcome, "{name}");
        let another = match name {
            "discord" => discord(),
            "standard-webhooks-v1a" => standard_webhooks(),
            "sendgrid" => sendgrid(),
            "plaid" => plaid(),
            _ => pubsub(),
        };
        assert_eq!(bench.outcome(name, &sent(0, &another)).await, refused("signature_mismatch"), "{name}");
    }
}

/// Messages of one sender travel under one token for an hour. None of them is a repeat, in any mode.
#[tokio::test]
async fn another_message_under_the_same_token_is_another_message() {
    let asymmetric = pubsub();
    let url = "https://hooks.example.com/in";
    let settings = [("issuer".to_owned(), vec!["client".to_owned()])].into();
    let known = Material { settings, public_url: Some(url.to_owned()), ..material(&["secret"]) };
    let mut endpoints = Endpoints::default();
    let mut names = Vec::new();
    for (row, known) in [("google-pubsub", &asymmetric.material), ("monday", &known), ("jira-connect", &known)] {
        for mode in ["live", "kept"] {
            names.push((format!("{row}-{mode}"), row));
            endpoints.add(&format!("{row}-{mode}"), row, known, "");
        }
    }
    endpoints.tables = as_in_the_world(&endpoints.tables);
    let bench = Bench::start(&endpoints, &names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()).await;
    for (name, row) in &names {
        let mut sent = unsigned();
        if *row == "google-pubsub" {
            (asymmetric.sign)(&sent.body, now()).into_iter().for_each(|(name, value)| sent.set(name, value));
        } else {
            let row = provider(row).expect("a row");
            sent.sign(row, &row.keys(&known).expect("keys").expect("signed"), now()).expect("signs");
        }
        for number in 0..3 {
            sent.body = format!("{{\"message\":{{\"messageId\":\"{number}\"}}}}").into_bytes();
            let response = bench.send(name, &sent).await;
            assert_eq!((response.status().as_u16(), &response.body()[..]), (200, &sent.body[..]), "{name}");
            assert!(response.headers().contains_key("x-seen-relay-verified"), "{name}: a handler has seen it");
        }
    }
}

/// Mailgun signs a time and a token that it uses once, and no body.
#[tokio::test]
async fn what_was_signed_once_is_refused_with_another_body() {
    let mut endpoints = Endpoints::default();
    endpoints.add("mailgun", "mailgun", &material(&["secret"]), "");
    endpoints.tables = as_in_the_world(&endpoints.tables);
    let bench = Bench::start(&endpoints, &["mailgun"]).await;
    let row = provider("mailgun").expect("a row");
    let mut sent = unsigned();
    sent.body = row.sample("evt_1", now()).body;
    sent.sign(row, &keys(row, "secret"), now()).expect("signs");
    assert_eq!(bench.outcome("mailgun", &sent).await, ok("mailgun"));
    let again = bench.send("mailgun", &sent).await;
    assert_eq!((again.status().as_u16(), again.headers().contains_key("x-seen-relay-verified")), (200, false));
    let text = String::from_utf8(sent.body.clone()).expect("text");
    sent.body = text.replace("keeper@", "forger@").into_bytes();
    let forged = bench.send("mailgun", &sent).await;
    assert_eq!(forged.status(), StatusCode::CONFLICT);
    assert_eq!(forged.headers()["relay-error"], "replayed");
}

/// Mailgun and Linear repeat the same bytes for hours: what came while the relay was away is not lost, and nobody gets it
/// in twice.
#[tokio::test]
async fn a_first_arrival_is_taken_for_as_long_as_its_sender_repeats_it() {
    const HOUR_S: i64 = 3600;
    let mut endpoints = Endpoints::default();
    for name in ["mailgun-kept", "linear-kept", "mailgun-form-kept", "mailgun-live"] {
        let row = name.strip_suffix("-kept").or(name.strip_suffix("-live")).expect("a mode");
        endpoints.add(name, row, &material(&["secret"]), "");
    }
    let secret = endpoints.keep(b"secret");
    for (name, keys) in [("off", "dedup = \"off\""), ("short", "dedup_window = \"1h\"")] {
        endpoints.tables += &format!(
            "[[endpoint]]\nname = \"{name}\"\nhosts = [\"{name}.relay.test\"]\n{keys}\n\
             verify = {{ provider = \"mailgun\", secrets = [{secret}] }}\n"
        );
    }
    endpoints.tables = as_in_the_world(&endpoints.tables);
    let names = ["mailgun-kept", "linear-kept", "mailgun-form-kept", "mailgun-live", "off", "short"];
    let mut bench = Bench::start(&endpoints, &names).await;
    let sent = |row: &str, age_s: i64, id: &str| {
        let row = provider(row).expect("a row");
        let sample = row.sample(id, now() - age_s);
        let headers = sample.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        let url = "https://hooks.example.com/in".to_owned();
        let mut sent = Sent { method: "POST".to_owned(), url, headers, body: sample.body };
        sent.sign(row, &keys(row, "secret"), now() - age_s).expect("signs");
        sent
    };
    let first = sent("mailgun", 6 * HOUR_S, "evt_1");
    assert_eq!(bench.outcome("mailgun-kept", &first).await, ok("mailgun"));
    for row in ["linear", "mailgun-form"] {
        assert_eq!(bench.outcome(&format!("{row}-kept"), &sent(row, 6 * HOUR_S, "evt_1")).await, ok(row));
    }
    let mut forged = first.clone();
    forged.body = String::from_utf8(forged.body).expect("text").replace("keeper@", "forger@").into();
    assert_ne!(forged.body, first.body);
    for round in 0..2 {
        let again = bench.send("mailgun-kept", &first).await;
        assert_eq!(again.status(), StatusCode::OK, "{round}");
        let forged = bench.send("mailgun-kept", &forged).await;
        let code = forged.headers().get("relay-error").map(|code| code.to_str().expect("text").to_owned());
        assert_eq!((forged.status(), code.as_deref()), (StatusCode::CONFLICT, Some("replayed")), "{round}");
        let (code, listed) =
            bench.relay.ask(&["event", "list", "--endpoint", "mailgun-kept", "--json"]).await.expect("runs");
        assert_eq!((code, listed.lines().count()), (0, 1), "taken once: {listed}");
        if round == 0 {
            bench.relay.terminate().await.expect("a signal");
            assert!(bench.relay.ended().await.expect("ends"));
            bench.relay.start_again("127.0.0.1:0").await.expect("starts");
        }
    }
    for (name, sent) in [
        ("mailgun-kept", sent("mailgun", 9 * HOUR_S, "evt_3")),
        ("linear-kept", sent("linear", 8 * HOUR_S, "evt_3")),
        ("mailgun-live", sent("mailgun", HOUR_S, "evt_3")),
        ("off", sent("mailgun", HOUR_S, "evt_3")),
        ("short", sent("mailgun", HOUR_S, "evt_3")),
    ] {
        let response = bench.send(name, &sent).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(response.headers()["relay-error"], "timestamp_too_old", "{name}");
    }
}

/// While an endpoint has a tolerance of its own, or lets pass what is not proven, it does not remember what was signed for
/// as long as its sender repeats it. So what it may have forgotten is not taken when it is strict again.
#[tokio::test]
async fn what_may_have_come_under_another_rule_is_not_taken_late() {
    let mut endpoints = Endpoints::default();
    let secret = endpoints.keep(b"secret");
    let rules = [("patient", ", tolerance = \"2h\""), ("lenient", ", enforce = false"), ("strict", "")];
    for (name, rule) in rules {
        endpoints.tables += &format!(
            "[[endpoint]]\nname = \"{name}\"\nhosts = [\"{name}.relay.test\"]\n\
             verify = {{ provider = \"mailgun\", secrets = [{secret}]{rule} }}\n"
        );
    }
    let mut bench = Bench::start(&endpoints, &["patient", "lenient", "strict"]).await;
    let row = provider("mailgun").expect("a row");
    let sent = |id: &str| {
        let mut sent = unsigned();
        sent.body = row.sample(id, now() - 3600).body;
        sent.sign(row, &keys(row, "secret"), now() - 3600).expect("signs");
        sent
    };
    for (name, verified) in [("patient", "mailgun"), ("lenient", "failed:timestamp_too_old"), ("strict", "mailgun")] {
        assert_eq!(bench.outcome(name, &sent("evt_1")).await, ok(verified), "{name}");
    }
    let config = bench.relay.config().expect("a config");
    let config =
        rules.iter().filter(|(_, rule)| !rule.is_empty()).fold(config, |text, (_, rule)| text.replace(rule, ""));
    bench.relay.set_config(&config).expect("writes");
    bench.relay.terminate().await.expect("a signal");
    assert!(bench.relay.ended().await.expect("ends"));
    bench.relay.start_again("127.0.0.1:0").await.expect("starts");
    for name in ["patient", "lenient"] {
        assert_eq!(bench.outcome(name, &sent("evt_2")).await, refused("timestamp_too_old"), "{name}");
    }
    let response = bench.send("strict", &sent("evt_2")).await;
    assert_eq!(response.status(), StatusCode::OK, "one that has always remembered");
}

/// Tables of endpoints that know repeats, those whose names end in `kept` as endpoints are by default.
fn as_in_the_world(tables: &str) -> String {
    let kept = |table: &str| match table.lines().nth(1).is_some_and(|name| name.ends_with("kept\"")) {
        true => table.replace("mode = \"live\"\n", ""),
        false => table.to_owned(),
    };
    let tables = tables.replace("replay = \"off\"\n", "");
    tables.split("[[endpoint]]").map(kept).collect::<Vec<_>>().join("[[endpoint]]")
}

#[tokio::test]
async fn a_sender_whose_key_cannot_be_asked_for_may_come_again() {
    let row = pubsub();
    let mut endpoints = Endpoints::default();
    // A private address, which the relay asks for nothing: as if the provider's own server was away.
    let material = Material { settings: row.material.settings.clone(), ..Material::default() };
    endpoints.add("away", "google-pubsub", &material, ", jwks = \"https://localhost/certs\"");
    endpoints.add("kept", "google-pubsub", &row.material, "");
    let mut bench = Bench::start(&endpoints, &["away", "kept"]).await;
    let mut sent = unsigned();
    (row.sign)(&sent.body, now()).into_iter().for_each(|(name, value)| sent.set(name, value));
    for _ in 0..3 {
        let response = bench.send("away", &sent).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["relay-error"], "key_unavailable");
        let wait: u64 = response.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    bench.relay.log_line("could not be fetched").await.expect("its owner is told");
    let (_, list) = bench.relay.ask(&["event", "list", "--state", "refused", "--json"]).await.expect("runs");
    assert_eq!(list.lines().filter(|line| line.contains("key_unavailable")).count(), 3, "{list}");
    assert_eq!(bench.outcome("kept", &sent).await, ok("google-pubsub"));
    // Where all keys are there, one that is named and not among them is none.
    let claims = json!({ "iss": "https://accounts.google.com" });
    let token = jwt("RS256", &claims, |_| vec![7; 256]).replacen("ImtleS0xI", "ImtleS0yI", 1);
    sent.set("authorization", format!("Bearer {token}"));
    assert_eq!(bench.outcome("kept", &sent).await, refused("key_unknown"));
}

#[tokio::test]
async fn an_sns_certificate_comes_from_the_region_of_the_configured_topic() {
    const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:alarms";
    let topics = |topic: &str| Material {
        settings: [("topic_arns".to_owned(), vec![topic.to_owned()])].into(),
        ..Material::default()
    };
    let mut endpoints = Endpoints::default();
    endpoints.add("alarms", "aws-sns", &topics(TOPIC), "");
    let bench = Bench::start(&endpoints, &["alarms"]).await;
    for (topic, url, code) in [
        (TOPIC, "https://sns.evil.amazonaws.com/SimpleNotificationService-0af3.pem", "certificate_refused"),
        (TOPIC, "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0af3.pem", "certificate_refused"),
        (
            TOPIC,
            "https://sns.eu-central-1.amazonaws.com/other/SimpleNotificationService-0af3.pem",
            "certificate_refused",
        ),
        (TOPIC, "https://sns.eu-central-1.amazonaws.com/", "certificate_refused"),
        (
            "arn:aws:sns:us-east-1:210987654321:other",
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0af3.pem",
            "value_wrong",
        ),
    ] {
        for kind in ["Notification", "SubscriptionConfirmation"] {
            let mut sent = unsigned();
            sent.set("x-amz-sns-message-type", kind);
            sent.body = json!({
                "Type": kind, "MessageId": "1", "TopicArn": topic, "Message": "m", "Timestamp": "t", "Token": "t",
                "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=1",
                "SignatureVersion": "2", "Signature": "eA==", "SigningCertURL": url,
            })
            .to_string()
            .into_bytes();
            assert_eq!(bench.outcome("alarms", &sent).await, refused(code), "{kind}: {url}");
        }
    }
    let mut wrong = Endpoints::default();
    wrong.add("alarms", "aws-sns", &topics("alarms"), "");
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let error = Server::start(program, "127.0.0.1:0", &wrong.tables, &[]).await.err().expect("it does not start");
    assert!(format!("{error:#}").contains("\"alarms\" is no ARN such as arn:aws:sns:"), "{error:#}");
}

fn write_secret(path: &Path, secret: &str) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).expect("opens");
    file.write_all(secret.as_bytes()).expect("writes");
}

/// What `/readyz` says.
async fn readiness(relay: &Server) -> (StatusCode, String) {
    let answer = send(&relay.admin, request("GET", "/readyz", &[], "")).await.expect("answers");
    (answer.status(), String::from_utf8_lossy(answer.body()).into_owned())
}

#[tokio::test]
async fn a_secret_that_a_reload_misses_closes_its_endpoint_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pay.secret");
    write_secret(&file, NEW);
    let mut endpoints = Endpoints::default();
    endpoints.add("pay", "stripe", &Material::default(), &format!(", secrets = [\"file:{}\"]", file.display()));
    endpoints.add("code", "github", &material(&[NEW]), "");
    let mut bench = Bench::start(&endpoints, &["pay", "code"]).await;
    assert_eq!(bench.outcome("pay", &signed("stripe", NEW, 0)).await, ok("stripe"));

    std::fs::remove_file(&file).expect("goes");
    let config = bench.relay.state_file("../relay.toml");
    let check = ["config", "check", "--config", config.to_str().expect("text")];
    assert_ne!(bench.relay.run(&check).await.expect("runs").0, 0, "a relay does not start without it");
    let text = bench.relay.config().expect("a file");
    let changed = text.replace("provider = \"github\"", "enforce = false, provider = \"github\"");
    assert_ne!(changed, text);
    bench.relay.set_config(&changed).expect("writes");
    bench.relay.reload().await.expect("is told");
    for words in ["pay.secret does not exist", "without its secret it answers 503", "the config was taken over"] {
        bench.relay.log_line(words).await.expect(words);
    }
    for sent in [signed("stripe", NEW, 0), unsigned()] {
        let response = bench.send("pay", &sent).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["relay-error"], "secret_unavailable");
        assert_eq!(response.headers()["retry-after"], "60");
    }
    assert_eq!(bench.outcome("code", &unsigned()).await, ok("failed:signature_missing"), "the rest is taken over");
    assert_eq!(readiness(&bench.relay).await, (StatusCode::OK, "ready\nsecret_unavailable pay\n".to_owned()));

    write_secret(&file, OLD);
    bench.relay.reload().await.expect("is told");
    bench.relay.log_line("the config was taken over").await.expect("it is");
    assert_eq!(bench.outcome("pay", &signed("stripe", OLD, 0)).await, ok("stripe"));
    assert_eq!(readiness(&bench.relay).await, (StatusCode::OK, "ready\n".to_owned()));
}

/// The values of a request's headers that hold a signature.
fn signatures(sent: &Sent) -> Vec<String> {
    let values = sent.headers.iter().filter(|(name, _)| name.contains("signature"));
    values.map(|(_, value)| String::from_utf8(value.clone()).expect("text")).collect()
}

#[tokio::test]
async fn the_owner_is_told_which_mistake_it_was_and_no_secret_and_no_signature() {
    let mut endpoints = Endpoints::default();
    endpoints.add("github", "github", &material(&[NEW]), "");
    endpoints.add("stripe", "stripe", &material(&[OTHER]), "");
    endpoints.add("square", "square", &material(&[NEW]), ", public_url = \"https://hooks.example.com/old\"");
    let bench = Bench::start(&endpoints, &["github", "stripe", "square"]).await;

    let mut newline = signed("github", NEW, 0);
    newline.body.push(b'\n');
    let mut reordered = unsigned();
    reordered.body = b"{\"id\": \"evt_1\", \"type\": \"invoice.paid\"}".to_vec();
    let compact = signed("github", NEW, 0);
    reordered.headers = compact.headers.clone();
    let mut loud = signed("github", NEW, 0);
    let upper = signatures(&loud)[0].replace("sha256=", "").to_uppercase();
    loud.set("x-hub-signature-256", format!("sha256={upper}"));
    let mut twice = signed("github", NEW, 0);
    twice.headers.extend(compact.headers.iter().filter(|(name, _)| name.contains("signature")).cloned());
    let mut pasted = unsigned();
    let saved_with_newline = hmac::Key::new(hmac::HMAC_SHA256, format!("{NEW}\n").as_bytes());
    let signature = hmac::sign(&saved_with_newline, BODY.as_bytes());
    pasted.set("x-hub-signature-256", format!("sha256={}", HEXLOWER.encode(signature.as_ref())));
    for (endpoint, sent, code, words) in [
        ("github", signed("github", OTHER, 0), "other_secret", "the secret of endpoint stripe"),
        ("github", pasted, "secret_form", "text with a newline at its end"),
        ("github", newline, "trailing_newline", "a newline was added at its end"),
        ("github", reordered, "json_rewritten", "parsed and written again"),
        ("github", loud, "upper_case_hex", "lower case is due"),
        ("github", twice, "doubled_header", "x-hub-signature-256 is there more than once"),
        ("github", unsigned(), "signature_absent", "the header x-hub-signature-256"),
        ("github", signed("stripe", NEW, 0), "other_provider", "the provider stripe"),
        ("stripe", signed("stripe", OTHER, 4000), "clock_skew", "300 s are allowed"),
        ("stripe", signed("stripe", OLD, 0), "nothing_usual", "none of the usual mistakes"),
        ("square", signed("square", NEW, 0), "wrong_url", "https://hooks.example.com/in"),
    ] {
        let response = bench.send(endpoint, &sent).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{code}");
        let sender_sees = String::from_utf8_lossy(response.body()).into_owned();
        assert!(!sender_sees.contains(code), "the sender is told no more: {sender_sees}");
        let id = response.headers()["relay-event-id"].to_str().expect("text");
        let mut shown = String::new();
        for more in [&[][..], &["--json"]] {
            shown += &explained(&bench.relay, &[&["explain", id], more].concat()).await;
        }
        assert!(shown.starts_with(&format!("{code}: ")) && shown.contains(words), "{code}: {shown}");
        for secret in [NEW, OLD, OTHER] {
            let bare = secret.trim_start_matches("whsec_");
            assert!(!shown.contains(bare), "{code}: a secret is shown: {shown}");
        }
        for signature in signatures(&sent) {
            let bare = signature.rsplit(['=', ',']).find(|part| part.len() > 20).unwrap_or(&signature);
            assert!(!shown.contains(bare), "{code}: a signature is shown: {shown}");
        }
        let right = signed("github", NEW, 0);
        let right = signatures(&right)[0].trim_start_matches("sha256=").to_owned();
        assert!(!shown.to_lowercase().contains(&right), "{code}: the right signature is shown: {shown}");
    }
}

#[tokio::test]
async fn a_refused_request_says_whether_its_body_was_read() {
    let mut endpoints = Endpoints::default();
    for name in ["gitlab-token", "github"] {
        endpoints.add(name, name, &material(&[NEW]), "");
    }
    let bench = Bench::start(&endpoints, &["gitlab-token", "github"]).await;
    let mut forged = signed("github", OTHER, 0);
    forged.set("x-gitlab-token", OTHER);
    for (name, body_len) in [("gitlab-token", None), ("github", Some(BODY.len()))] {
        let response = bench.send(name, &forged).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let id = response.headers()["relay-event-id"].to_str().expect("text");
        let list = ["event", "list", "--state", "refused", "--endpoint", name];
        let (_, line) = bench.relay.ask(&list).await.expect("runs");
        assert!(line.contains(id) && line.contains("body not read") == body_len.is_none(), "{line}");
        let (_, line) = bench.relay.ask(&[&list[..], &["--json"]].concat()).await.expect("runs");
        let event: Value = serde_json::from_str(&line).expect("an object");
        assert_eq!((&event["body_read"], &event["body_len"]), (&json!(body_len.is_some()), &json!(body_len)));
        let shown = explained(&bench.relay, &["explain", id]).await;
        assert_eq!(shown.contains("body_not_read: "), body_len.is_none(), "{shown}");
    }
}

/// Asks until no other explanation is under way, as the log's may be.
async fn explained(relay: &Server, words: &[&str]) -> String {
    let deadline = tokio::time::Instant::now() + relay_tests::process::PATIENCE;
    loop {
        match relay.ask(words).await.expect("runs") {
            (0, text) => return text,
            (code, text) => assert!(tokio::time::Instant::now() < deadline, "{code}: {text}"),
        }
    }
}
