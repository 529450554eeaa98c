//! Challenges: the exact answer where it may be given, and a refusal where nothing allows it.

mod common;

use std::collections::BTreeMap;

use common::{NOW, SECRET, keys, sign_with};
use relay_schemes::{Answering, Challenge, Keys, Material, Provider, Reply, Request, Secret, provider};

type Headers = [(&'static str, &'static str)];

fn ask(
    name: &str,
    answering: &Answering<'_>,
    method: &str,
    url: &str,
    headers: &Headers,
    body: &str,
) -> Option<Challenge> {
    let row = provider(name).expect("a row");
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, *value)).collect();
    row.handshake(&Request { method, url, headers: &headers, body: body.as_bytes() }, answering, NOW)
}

fn answered(challenge: Option<Challenge>) -> Reply {
    match challenge {
        Some(Challenge::Respond(reply)) => reply,
        other => panic!("expected an answer, saw {other:?}"),
    }
}

fn refused(challenge: Option<Challenge>) -> (u16, &'static str) {
    match challenge {
        Some(Challenge::Refused { status, code, .. }) => (status, code),
        other => panic!("expected a refusal, saw {other:?}"),
    }
}

fn open<'a>(keys: Option<&'a Keys>) -> Answering<'a> {
    Answering { keys, verify_token: None, allow_unsigned: true }
}

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(&reply.body).expect("text")
}

fn keys_of(name: &str, settings: &[(&str, &str)], url: Option<&str>) -> Keys {
    let row = provider(name).expect("a row");
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
    let material = Material {
        settings: settings.collect::<BTreeMap<_, _>>(),
        public_url: url.map(str::to_owned),
        ..Material::secrets(&[Secret::new(SECRET)])
    };
    row.keys(&material).expect("keys").expect("signed")
}

#[test]
fn what_proves_nothing_needs_a_switch_or_the_token() {
    const URL: &str = "https://h/in?challenge=abc&hub.mode=subscribe&hub.challenge=abc&hub.verify_token=right";
    let nothing = Answering::default();
    assert_eq!(refused(ask("dropbox", &nothing, "GET", URL, &[], "")), (403, "challenge_not_allowed"));
    assert_eq!(refused(ask("meta", &nothing, "GET", URL, &[], "")), (403, "challenge_not_allowed"));
    let (right, wrong) = (Secret::new("right"), Secret::new("other"));
    let with = |token| Answering { verify_token: Some(token), ..Answering::default() };
    assert_eq!(text(&answered(ask("meta", &with(&right), "GET", URL, &[], ""))), "abc");
    assert_eq!(refused(ask("meta", &with(&wrong), "GET", URL, &[], "")), (403, "challenge_token_wrong"));
    // The switch does not go round a token that is configured.
    let both = Answering { allow_unsigned: true, ..with(&wrong) };
    assert_eq!(refused(ask("meta", &both, "GET", URL, &[], "")), (403, "challenge_token_wrong"));
    let strava = answered(ask("strava", &with(&right), "GET", URL, &[], ""));
    assert_eq!(text(&strava), r#"{"hub.challenge":"abc"}"#);
    let verify = "https://h/in?verify=right";
    assert_eq!(answered(ask("fitbit", &with(&right), "GET", verify, &[], "")).status, 204);
    assert_eq!(refused(ask("fitbit", &with(&wrong), "GET", verify, &[], "")).0, 404);
}

#[test]
fn a_signed_challenge_needs_its_signature_and_no_more() {
    let slack = provider("slack").expect("a row");
    let scheme = slack.scheme.as_ref().expect("signed");
    let keys = keys(scheme);
    let body = br#"{"type":"url_verification","challenge":"c\"1"}"#;
    let signed = sign_with(slack, scheme, &keys, Some(body));
    let answering = Answering { keys: Some(&keys), ..Answering::default() };
    let reply = answered(slack.handshake(&signed.request(), &answering, NOW));
    assert_eq!(text(&reply), r#"{"challenge":"c\"1"}"#);
    let late = slack.handshake(&signed.request(), &answering, NOW + 301);
    assert_eq!(refused(late), (401, "timestamp_too_old"));
    let no_key = slack.handshake(&signed.request(), &open(None), NOW);
    assert_eq!(refused(no_key), (401, "secret_missing"), "the switch is no signature");
    let event = sign_with(slack, scheme, &keys, None);
    assert_eq!(slack.handshake(&event.request(), &answering, NOW), None, "an event is no challenge");
}

#[test]
fn answers_that_are_computed() {
    // X's documented form: sha256= and base64 of HMAC-SHA256 under the consumer secret.
    let keys = keys_of("x", &[], None);
    let reply = answered(ask("x", &open(Some(&keys)), "GET", "https://h/in?crc_token=token", &[], ""));
    let value: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert!(value["response_token"].as_str().is_some_and(|text| text.starts_with("sha256=") && text.len() == 51));

    let registered = Some("https://hooks.example.com/in/ebay");
    let keys = keys_of("ebay", &[("verification_token", "a-token")], registered);
    let reply = answered(ask("ebay", &open(Some(&keys)), "GET", "https://h/in?challenge_code=code", &[], ""));
    // sha256("code" + "a-token" + "https://hooks.example.com/in/ebay")
    assert_eq!(text(&reply), format!(r#"{{"challengeResponse":"{EBAY}"}}"#));

    let keys = keys_of("braintree", &[("public_key", "public")], None);
    let reply = answered(ask(
        "braintree",
        &open(Some(&keys)),
        "GET",
        "https://h/in?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53",
        &[],
        "",
    ));
    let (key, digest) = text(&reply).split_once('|').expect("two parts");
    assert_eq!((key, digest.len()), ("public", 40));
}

const EBAY: &str = "518cedb954db267e10649ac8eed3efe37fcddbc108fec1b5c082f3d74ebfd756";

#[test]
fn a_secret_is_learnt_only_if_it_can_be_one() {
    let reply =
        answered(ask("asana", &open(None), "POST", "https://h/in", &[("X-Hook-Secret", "0123456789abcdef")], ""));
    assert_eq!(reply.headers, [("x-hook-secret".to_owned(), "0123456789abcdef".to_owned())]);
    assert_eq!(reply.learns_secret, Some(Secret::new("0123456789abcdef")));
    for secret in ["short", "with a blank in it", "caf\u{e9}-caf\u{e9}-caf\u{e9}"] {
        let headers = [("X-Hook-Secret", secret)];
        assert_eq!(refused(ask("asana", &open(None), "POST", "https://h/in", &headers, "")).1, "challenge_malformed");
    }
    let body = r#"{"verification_token":"secret_0123456789"}"#;
    let reply = answered(ask("notion", &open(None), "POST", "https://h/in", &[], body));
    assert_eq!(reply.learns_secret, Some(Secret::new("secret_0123456789")));
    assert!(provider("asana").is_some_and(Provider::learns_secret));
    assert_eq!(provider("asana").expect("a row").keys(&Material::default()).expect("none yet").map(|_| ()), None);
}

#[test]
fn a_doubled_or_endless_challenge_is_none() {
    let doubled = "https://h/in?challenge=a&challenge=b";
    assert_eq!(ask("dropbox", &open(None), "GET", doubled, &[], ""), None);
    let endless = format!("https://h/in?challenge={}", "a".repeat(9000));
    assert_eq!(refused(ask("dropbox", &open(None), "GET", &endless, &[], "")).1, "challenge_malformed");
    let large = format!(r#"{{"challenge":"{}"}}"#, "a".repeat(70_000));
    assert_eq!(ask("monday", &open(None), "POST", "https://h/in", &[], &large), None);
}

#[test]
fn nothing_comes_back_as_html() {
    let cases = [
        ("dropbox", "GET", "https://h/in?challenge=%3Cb%3E"),
        ("microsoft-graph", "POST", "https://h/in?validationToken=%3Cb%3E"),
    ];
    for (name, method, url) in cases {
        let reply = answered(ask(name, &open(None), method, url, &[], ""));
        assert_eq!(text(&reply), "<b>");
        assert!(reply.headers.contains(&("content-type".into(), "text/plain".into())), "{name}");
        assert!(reply.headers.contains(&("x-content-type-options".into(), "nosniff".into())), "{name}");
    }
}

#[test]
fn a_challenge_answered_with_the_configured_token_needs_no_switch() {
    const URL: &str = "https://hooks.example.com/in/ebay";
    let keys = keys_of("ebay", &[], Some(URL));
    let ask = |keys, verify_token, allow_unsigned| {
        let answering = Answering { keys, verify_token, allow_unsigned };
        ask("ebay", &answering, "GET", "https://h/in?challenge_code=code", &[], "")
    };
    let token = Secret::new("a-token");
    assert_eq!(text(&answered(ask(Some(&keys), Some(&token), false))), format!(r#"{{"challengeResponse":"{EBAY}"}}"#));
    assert_eq!(refused(ask(Some(&keys), None, false)), (403, "challenge_not_allowed"));
    assert_eq!(refused(ask(Some(&keys), None, true)), (403, "challenge_malformed"), "of nothing no answer is made");
}
