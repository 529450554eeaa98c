//! Every usual mistake is found, named by its code, and no secret is ever said.

mod common;

use common::{NOW, SECRET, Signed, URL, keys, material, sign, sign_with};
use data_encoding::{BASE64, HEXLOWER};
use relay_schemes::{
    Material, Provider, Scheme, Secret,
    explain::{BodyChange, Candidates, Finding, explain},
    provider,
};

fn row(name: &str) -> (&'static Provider, &'static Scheme) {
    let row = provider(name).expect("a row");
    (row, row.scheme.as_ref().expect("a signed row"))
}

fn ask(name: &str, signed: &Signed) -> Vec<Finding> {
    let (row, scheme) = row(name);
    ask_with(row, &material(scheme, SECRET), signed, NOW, &Candidates::default())
}

fn ask_with(row: &Provider, material: &Material, signed: &Signed, now: i64, also: &Candidates<'_>) -> Vec<Finding> {
    let found = explain(row, material, &signed.request(), now, also);
    assert!(!found.is_empty());
    for finding in &found {
        let said = format!("{finding} {finding:?}");
        let secrets = material.secrets.iter().chain(also.secrets.iter().map(|(_, secret)| *secret));
        for secret in secrets.filter(|secret| secret.expose().len() > 3) {
            assert!(!said.contains(&*String::from_utf8_lossy(secret.expose())), "a secret in: {said}");
        }
        for (name, value) in signed.headers.iter().filter(|(name, _)| name.contains("signature")) {
            let value = String::from_utf8_lossy(value);
            let digest = value.rsplit(['=', ',']).next().unwrap_or_default();
            assert!(digest.len() < 20 || !said.contains(digest), "{name} in: {said}");
        }
    }
    found
}

fn signed(name: &str) -> Signed {
    let (row, scheme) = row(name);
    sign(row, scheme)
}

fn header(signed: &Signed, name: &str) -> String {
    let value = signed.headers.iter().find(|(key, _)| key == name).expect("the header");
    String::from_utf8(value.1.clone()).expect("text")
}

#[test]
fn a_right_request_has_nothing_wrong() {
    assert_eq!(ask("github", &signed("github")), [Finding::Verifies]);
}

#[test]
fn another_secret_of_the_owner() {
    let (row, scheme) = row("stripe");
    let (old, unrelated) = (Secret::new(SECRET), Secret::new("neither this one"));
    let also = Candidates { secrets: &[("env:OTHER", &unrelated), ("env:OLD", &old)], urls: &[] };
    let now = material(scheme, "the new secret");
    let found = ask_with(row, &now, &signed("stripe"), NOW + 99_999, &also);
    assert_eq!(found, [Finding::OtherSecret { name: "env:OLD".into() }]);
}

#[test]
fn hex_for_base64_and_the_other_way_round() {
    let mut hex = signed("shopify");
    let digest = BASE64.decode(header(&hex, "x-shopify-hmac-sha256").as_bytes()).expect("base64");
    hex.set("x-shopify-hmac-sha256", HEXLOWER.encode(&digest).as_bytes());
    assert_eq!(ask("shopify", &hex), [Finding::Encoding { due: "base64 with padding", has: "hex" }]);

    let mut base64 = signed("github");
    let digest = header(&base64, "x-hub-signature-256").replace("sha256=", "");
    let digest = HEXLOWER.decode(digest.as_bytes()).expect("hex");
    base64.set("x-hub-signature-256", format!("sha256={}", BASE64.encode(&digest)).as_bytes());
    assert_eq!(ask("github", &base64), [Finding::Encoding { due: "hex", has: "base64" }]);
}

#[test]
fn upper_case_hex_alone_and_in_a_list() {
    let mut upper = signed("github");
    let value = header(&upper, "x-hub-signature-256").replace("sha256=", "").to_ascii_uppercase();
    upper.set("x-hub-signature-256", format!("sha256={value}").as_bytes());
    assert_eq!(ask("github", &upper), [Finding::UpperCaseHex]);

    let mut list = signed("stripe");
    let value = header(&list, "stripe-signature");
    let (time, digest) = value.split_once(",v1=").expect("a list");
    list.set("stripe-signature", format!("{time},v1={}", digest.to_ascii_uppercase()).as_bytes());
    assert_eq!(ask("stripe", &list), [Finding::UpperCaseHex]);
}

#[test]
fn a_missing_prefix() {
    let mut bare = signed("github");
    let value = header(&bare, "x-hub-signature-256").replace("sha256=", "");
    bare.set("x-hub-signature-256", value.as_bytes());
    assert_eq!(ask("github", &bare), [Finding::PrefixMissing { prefix: "sha256=".into() }]);

    let mut item = signed("standard-webhooks");
    let value = header(&item, "webhook-signature").replace("v1,", "");
    item.set("webhook-signature", value.as_bytes());
    assert_eq!(ask("standard-webhooks", &item), [Finding::PrefixMissing { prefix: "v1,".into() }]);
}

#[test]
fn a_body_that_was_changed_on_the_way() {
    let body = br#"{"a": "caf\u00e9/", "n": 1.50, "list": [1, 2]}"#;
    let pretty = "{\n  \"a\": \"café/\",\n  \"n\": 1.50,\n  \"list\": [\n    1,\n    2\n  ]\n}";
    let compact = r#"{"a":"café/","n":1.50,"list":[1,2]}"#;
    let cases: [(&[u8], Vec<u8>, BodyChange); 8] = [
        (body, [&body[..], b"\n"].concat(), BodyChange::NewlineAdded),
        (b"{}\n", b"{}".to_vec(), BodyChange::NewlineRemoved),
        (b"{}\r\n", b"{}".to_vec(), BodyChange::NewlineRemoved),
        (b"a\r\nb", b"a\nb".to_vec(), BodyChange::CrlfToLf),
        (b"a\nb", b"a\r\nb".to_vec(), BodyChange::LfToCrlf),
        (b"{}", b"\xef\xbb\xbf{}".to_vec(), BodyChange::ByteOrderMark),
        (body, pretty.into(), BodyChange::JsonRewritten),
        (pretty.as_bytes(), compact.into(), BodyChange::JsonRewritten),
    ];
    let (row, scheme) = row("github");
    for (sent, arrived, change) in cases {
        let mut signed = sign_with(row, scheme, &keys(scheme), Some(sent));
        signed.body = arrived;
        assert_eq!(ask("github", &signed), [Finding::Body(change)], "{:?}", String::from_utf8_lossy(sent));
    }
}

#[test]
fn a_form_that_was_written_again_and_a_form_field_that_was_signed() {
    let (row, scheme) = row("slack");
    let sent = b"command=%2Flamp&text=on+now";
    let mut signed = sign_with(row, scheme, &keys(scheme), Some(sent));
    signed.set("content-type", b"application/x-www-form-urlencoded");
    signed.body = b"command=/lamp&text=on%20now".to_vec();
    assert_eq!(ask("slack", &signed), [Finding::Body(BodyChange::FormRewritten)]);

    signed = sign_with(row, scheme, &keys(scheme), Some(b"{\"a\":1}"));
    signed.set("content-type", b"application/x-www-form-urlencoded");
    signed.body = b"payload=%7B%22a%22%3A1%7D".to_vec();
    assert_eq!(ask("slack", &signed), [Finding::Body(BodyChange::FormField)]);
}

#[test]
fn a_clock_that_is_wrong_and_by_how_much() {
    let (row, scheme) = row("stripe");
    let (signed, material) = (signed("stripe"), material(scheme, SECRET));
    let found = ask_with(row, &material, &signed, NOW + 4000, &Candidates::default());
    assert_eq!(found, [Finding::ClockSkew { seconds: 4000, tolerance_s: 300 }]);
    let found = ask_with(row, &material, &signed, NOW - 4000, &Candidates::default());
    assert_eq!(found, [Finding::ClockSkew { seconds: -4000, tolerance_s: 300 }]);
}

#[test]
fn a_wrong_public_url_before_the_right_one_that_was_called() {
    let (row, scheme) = row("square");
    let mut signed = signed("square");
    signed.url = "https://hooks.example.com/in/lamp".into();
    let again = scheme.sign(&keys(scheme), &signed.request(), None, NOW).expect("signs");
    again.headers.iter().for_each(|(name, value)| signed.set(name, value.as_bytes()));
    for wrong in ["https://hooks.example.com/old", "https://hooks.example.org/in/lamp"] {
        let material = Material { public_url: Some(wrong.to_owned()), ..material(scheme, SECRET) };
        let found = ask_with(row, &material, &signed, NOW, &Candidates::default());
        assert_eq!(found, [Finding::OtherUrl { url: signed.url.clone() }], "{wrong}");
    }
}

#[test]
fn another_url_than_the_one_that_a_proxy_shows() {
    let (row, scheme) = row("square");
    let material = material(scheme, SECRET);
    let cases = [
        ("http://hooks.example.com/in/lamp?tenant=7", URL),
        ("https://hooks.example.com:8443/in/lamp?tenant=7", URL),
        ("https://hooks.example.com/in/lamp", URL),
        ("https://hooks.example.com/lamp?tenant=7", URL),
        ("http://10.0.0.7:3000/in/lamp?tenant=7", URL),
        ("https://hooks.example.com/in/lamp/?tenant=7", URL),
    ];
    for (seen, registered) in cases {
        let mut signed = signed("square");
        seen.clone_into(&mut signed.url);
        let also = Candidates { secrets: &[], urls: &[registered] };
        let found = ask_with(row, &material, &signed, NOW, &also);
        assert_eq!(found, [Finding::OtherUrl { url: "https://hooks.example.com/in/lamp".into() }], "{seen}");
    }
    let mut signed = signed("square");
    signed.url = "http://10.0.0.7:3000/in/lamp?tenant=7".into();
    signed.set("x-forwarded-host", b"hooks.example.com");
    assert_eq!(ask("square", &signed)[0].code(), "wrong_url", "the host that the proxy tells");
}

#[test]
fn another_providers_scheme() {
    let found = ask("stripe", &signed("github"));
    assert_eq!(found, [Finding::OtherProvider { name: "github".into(), proven: true }]);
    let mut wrong = signed("github");
    wrong.body.push(b' ');
    let found = ask("stripe", &wrong);
    assert!(matches!(&found[0], Finding::OtherProvider { proven: false, .. }), "{found:?}");
    // The same header in both schemes: only the signature tells them apart.
    let found = ask("openai", &signed("polar"));
    assert_eq!(found[0].code(), "verifies", "the secret has no prefix, so both take it as text");
    let found = ask("standard-webhooks", &signed("polar"));
    assert_eq!(found[0].code(), "secret_form", "{found:?}");
}

#[test]
fn a_doubled_header_also_when_a_proxy_joined_it() {
    let mut doubled = signed("github");
    let value = header(&doubled, "x-hub-signature-256");
    doubled.headers.push(("x-hub-signature-256".into(), b"sha256=00".to_vec()));
    let found = ask("github", &doubled);
    assert_eq!(found, [Finding::DoubledHeader { name: "x-hub-signature-256".into(), one_is_right: true }]);
    let mut joined = signed("github");
    joined.set("x-hub-signature-256", format!("{value}, {value}").as_bytes());
    assert_eq!(ask("github", &joined)[0].code(), "doubled_header");
}

#[test]
fn a_secret_that_the_sender_reads_in_another_form() {
    let (github, scheme) = row("github");
    let base64 = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let cases: [(&str, Vec<u8>, &str); 11] = [
        (base64, BASE64.decode(base64.as_bytes()).expect("base64"), "base64 that is decoded first"),
        (SECRET, HEXLOWER.decode(SECRET.as_bytes()).expect("hex"), "hex that is decoded first"),
        ("whsec_abc", b"abc".to_vec(), "text without whsec_"),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            BASE64.decode(base64.as_bytes()).expect("base64"),
            "base64 after whsec_ that is decoded first",
        ),
        ("abc", b"abc\n".to_vec(), "text with a newline at its end"),
        ("abc", "\u{feff}abc".into(), "text with a byte order mark before it"),
        ("abc", "abc\u{a0}".into(), "text with a no-break space behind it"),
        ("abc", "\u{200b}abc".into(), "text with a zero-width space before it"),
        ("abc", wide("abc"), "text in UTF-16"),
        ("abc", wide("\u{feff}abc"), "text in UTF-16 with a byte order mark"),
        ("ab\u{200b}c", b"abc".to_vec(), "text without the invisible characters that stand in it here"),
    ];
    for (configured, used, form) in cases {
        // Signed under the key that the sender uses, whatever form that is: HMAC keys are bytes, and a
        // custom row in hex takes them all.
        let custom = relay_schemes::load(
            "[[provider]]\nname = \"custom\"\ntitle = \"Custom\"\n[provider.scheme]\nalgorithm = \"hmac-sha256\"\nsecret = \
             \"hex\"\ntemplate = \"{body}\"\nsignature = { at = \"header:x-hub-signature-256\", encoding = \"hex\", prefix = \
             \"sha256=\" }\n",
        )
        .expect("a row")
        .remove(0);
        let custom = custom.scheme.expect("a scheme");
        let keys = custom.keys(&[Secret::new(HEXLOWER.encode(&used))]).expect("a key");
        let signed = sign_with(github, &custom, &keys, None);
        let found = ask_with(github, &material(scheme, configured), &signed, NOW, &Candidates::default());
        assert_eq!(found, [Finding::SecretForm { name: "the configured secret".into(), form }], "{form}");
    }
}

#[test]
fn no_signature_at_all_and_nothing_usual() {
    let mut absent = signed("github");
    absent.headers.retain(|(name, _)| name != "x-hub-signature-256");
    let found = ask("github", &absent);
    assert_eq!(found, [Finding::SignatureAbsent { place: "the header x-hub-signature-256".into() }]);
    let mut wrong = signed("github");
    wrong.set("x-hub-signature-256", format!("sha256={}", "0".repeat(64)).as_bytes());
    assert_eq!(ask("github", &wrong), [Finding::NothingUsual { exhausted: false }]);
    wrong.body = vec![b'x'; 20 << 20];
    assert_eq!(ask("github", &wrong), [Finding::NothingUsual { exhausted: true }]);
}
