//! What a right signature alone does not settle: the times in a token, elements of a list that nobody signed, numbers
//! that are texts, and two families of headers that differ.

mod common;

use std::collections::BTreeMap;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use common::{NOW, SECRET, keys, sign, sign_with};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use relay_schemes::{Material, Refusal, Request, Scheme, Secret, provider, providers};
use sha2::{Digest, Sha256};

const URL: &str = "https://hooks.example.com/in";
const BODY: &[u8] = b"{}";

fn scheme(name: &str) -> &'static Scheme {
    provider(name).and_then(|row| row.scheme.as_ref()).expect("a signed row")
}

fn sha256(text: &[u8]) -> String {
    format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(text)))
}

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// How a row's tokens are signed, what the endpoint knows for it, and the claims of a good one.
struct Issuer {
    header: (&'static str, &'static str),
    algorithm: &'static str,
    material: Material,
    sign: Box<Sign>,
    claims: Vec<(&'static str, String)>,
}

fn issuer(name: &str) -> Issuer {
    let shared = || {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let sign = move |text: &[u8]| hmac::sign(&key, text).as_ref().to_vec();
        (Material::secrets(&[Secret::new(SECRET)]), Box::new(sign) as Box<Sign>)
    };
    let setting = |material: &mut Material, name: &str, value: &str| {
        material.settings.insert(name.to_owned(), vec![value.to_owned()]);
    };
    let text = |text: &str| format!("\"{text}\"");
    let later = (NOW + 600).to_string();
    match name {
        "netlify" => {
            let (material, sign) = shared();
            let claims = vec![("iss", text("netlify")), ("sha256", sha256(BODY))];
            Issuer { header: ("x-webhook-signature", ""), algorithm: "HS256", material, sign, claims }
        }
        "monday" => {
            let (material, sign) = shared();
            let claims = vec![("aud", text(URL)), ("exp", later)];
            Issuer { header: ("authorization", ""), algorithm: "HS256", material, sign, claims }
        }
        "jira-connect" => {
            let (mut material, sign) = shared();
            setting(&mut material, "issuer", "client-1");
            let claims = vec![("iss", text("client-1")), ("qsh", sha256(b"POST&/in&")), ("exp", later)];
            Issuer { header: ("authorization", "JWT "), algorithm: "HS256", material, sign, claims }
        }
        "plaid" => {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).expect("a key");
            let point = pair.public_key().as_ref();
            let (x, y) = (BASE64URL_NOPAD.encode(&point[1..33]), BASE64URL_NOPAD.encode(&point[33..]));
            let jwks = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}]}}"#);
            let sign = move |text: &[u8]| pair.sign(&random, text).expect("signs").as_ref().to_vec();
            let claims = vec![("iat", NOW.to_string()), ("request_body_sha256", sha256(BODY))];
            let material = Material { jwks: Some(jwks), ..Material::default() };
            Issuer { header: ("plaid-verification", ""), algorithm: "ES256", material, sign: Box::new(sign), claims }
        }
        "google-pubsub" => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
            // PKCS#1 (RFC 8017): nine bytes, the 256 of the modulus, and the exponent 65537.
            let n = BASE64URL_NOPAD.encode(&pair.public_key().as_ref()[9..265]);
            let jwks = format!(r#"{{"keys":[{{"kty":"RSA","n":"{n}","e":"AQAB"}}]}}"#);
            let sign = move |text: &[u8]| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).expect("signs");
                signature
            };
            let mut material = Material { jwks: Some(jwks), ..Material::default() };
            setting(&mut material, "audience", "audience-1");
            setting(&mut material, "email", "push@example.com");
            let claims = vec![
                ("iss", text("https://accounts.google.com")),
                ("aud", text("audience-1")),
                ("email", text("push@example.com")),
                ("email_verified", "true".to_owned()),
                ("exp", later),
            ];
            Issuer { header: ("authorization", "Bearer "), algorithm: "RS256", material, sign: Box::new(sign), claims }
        }
        other => panic!("say here what a good token of {other} is"),
    }
}

impl Issuer {
    /// What becomes of a token with these claims, each with its value as JSON, in place of the good ones of that name.
    fn outcome(&self, scheme: &Scheme, changed: &[(&str, &str)]) -> Result<(), Refusal> {
        let kept = self.claims.iter().filter(|(name, _)| changed.iter().all(|(other, _)| name != other));
        let all = kept.map(|(name, value)| (*name, value.as_str())).chain(changed.iter().copied());
        let claims: Vec<_> = all.map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let header = format!(r#"{{"alg":"{}"}}"#, self.algorithm);
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let signed = format!("{}.{}", part(&header), part(&format!("{{{}}}", claims.join(","))));
        let token = format!("{}{signed}.{}", self.header.1, BASE64URL_NOPAD.encode(&(self.sign)(signed.as_bytes())));
        let headers = [(self.header.0, token)];
        let keys = scheme.keys_from(&self.material).expect("keys");
        scheme.verify(&keys, &Request { method: "POST", url: URL, headers: &headers, body: BODY }, NOW).map(|_| ())
    }
}

#[test]
fn the_times_of_every_token_count() {
    let tokens = providers().iter().filter_map(|row| Some((&*row.name, row.scheme.as_ref()?)));
    let tokens: BTreeMap<_, _> = tokens.filter(|(_, scheme)| scheme.in_words().starts_with("JWT")).collect();
    assert!(tokens.len() >= 5);
    for (name, scheme) in tokens {
        let issuer = issuer(name);
        assert_eq!(issuer.outcome(scheme, &[]), Ok(()), "{name}");
        let at = |seconds: i64| (NOW + seconds).to_string();
        let (old, new, wrong) = (Refusal::TimestampTooOld, Refusal::TimestampTooNew, Refusal::ClaimWrong);
        for (claim, value, outcome) in [
            ("exp", at(-59), Ok(())),
            ("exp", at(-60), Err(old)),
            ("exp", at(-3600), Err(old)),
            ("exp", format!("{}.9", NOW - 3600), Err(old)),
            ("exp", "1.7e9".to_owned(), Err(old)),
            ("exp", "0".to_owned(), Err(old)),
            ("exp", "-1".to_owned(), Err(old)),
            ("exp", "1e300".to_owned(), Ok(())),
            ("exp", "99999999999999999999".to_owned(), Ok(())),
            ("nbf", at(60), Ok(())),
            ("nbf", at(61), Err(new)),
            ("nbf", "1e300".to_owned(), Err(new)),
            ("iat", at(60), Ok(())),
            ("iat", at(61), Err(new)),
            ("iat", format!("{}.5", NOW + 3600), Err(new)),
        ] {
            assert_eq!(issuer.outcome(scheme, &[(claim, &value)]), outcome, "{name}: {claim} {value}");
        }
        for claim in ["exp", "nbf", "iat"] {
            for value in ["null", "true", "\"\"", &format!("\"{NOW}\""), "[]", &format!("[{NOW}]"), "{}"] {
                assert_eq!(issuer.outcome(scheme, &[(claim, value)]), Err(wrong), "{name}: {claim} {value}");
            }
            let twice = [(claim, &*at(0)), (claim, &*at(0))];
            assert_eq!(issuer.outcome(scheme, &twice), Err(wrong), "{name}: {claim} twice");
        }
    }
}

#[test]
fn an_element_of_the_list_that_nobody_signed_is_refused_with_all_others() {
    let row = provider("adyen").expect("a row");
    let scheme = scheme("adyen");
    let (keys, signed) = (keys(scheme), sign(row, scheme));
    let mut body: serde_json::Value = serde_json::from_slice(&signed.body).expect("JSON");
    let good = body["notificationItems"][0].clone();
    let mut outcome = |items: serde_json::Value| {
        body["notificationItems"] = items;
        let request = Request { body: &body.to_string().into_bytes(), ..signed.request() };
        scheme.verify(&keys, &request, NOW).map(|_| ())
    };
    assert_eq!(outcome(serde_json::json!([good, good])), Ok(()));
    let mut unsigned = good.clone();
    unsigned["NotificationRequestItem"]["additionalData"] = serde_json::json!({});
    let mut changed = good.clone();
    changed["NotificationRequestItem"]["success"] = "false".into();
    assert_eq!(outcome(serde_json::json!([good, unsigned])), Err(Refusal::SignatureMissing));
    assert_eq!(outcome(serde_json::json!([good, changed])), Err(Refusal::SignatureMismatch));
    for other in
        ["{}", "1", "null", "[]", "\"a\"", r#"{"notificationRequestItem":{}}"#, r#"{"Item":{"success":"true"}}"#]
    {
        let other: serde_json::Value = serde_json::from_str(other).expect("JSON");
        for items in [[&good, &other], [&other, &good]] {
            assert_eq!(outcome(serde_json::json!(items)), Err(Refusal::SignatureMissing), "{other}");
        }
    }
    // Some readers take an object for a list.
    assert_eq!(outcome(serde_json::json!({ "*": good, "0": unsigned })), Err(Refusal::SignatureMissing));
    assert_eq!(outcome(serde_json::json!([])), Err(Refusal::SignatureMissing));
}

#[test]
fn a_number_is_no_text_of_digits() {
    let (row, scheme) = (provider("linear").expect("a row"), scheme("linear"));
    let keys = keys(scheme);
    let signed = sign_with(row, scheme, &keys, None);
    assert!(scheme.verify(&keys, &signed.request(), NOW).is_ok());
    // Signed here: the row itself writes a number only.
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let outcome = |stamp: &str| {
        let body = format!("{{\"type\":\"Issue\",\"webhookTimestamp\":{stamp}}}").into_bytes();
        let headers = [("linear-signature", HEXLOWER.encode(hmac::sign(&key, &body).as_ref()))];
        let request = Request { method: "POST", url: URL, headers: &headers, body: &body };
        scheme.verify(&keys, &request, NOW).map(|_| ())
    };
    assert_eq!(outcome(&format!("{NOW}000")), Ok(()));
    for stamp in [format!("\"{NOW}000\""), format!("{NOW}000.0"), format!("-{NOW}000"), "1.77e12".into(), "null".into()]
    {
        assert_eq!(outcome(&stamp), Err(Refusal::TimestampMalformed), "{stamp}");
    }
    for stamp in [format!("[{NOW}000]"), format!("{{\"at\":{NOW}000}}"), "true".into()] {
        assert_eq!(outcome(&stamp), Err(Refusal::TimestampMalformed), "{stamp}");
    }
}

#[test]
fn two_families_of_headers_say_the_same_or_nothing_passes() {
    for name in ["svix", "clerk", "resend", "brex"] {
        let (row, scheme) = (provider(name).expect("a row"), scheme(name));
        let keys = keys(scheme);
        let own = sign_with(row, scheme, &keys, None);
        let value = |header: &str| own.headers.iter().find(|(name, _)| name == header).expect("set").1.clone();
        let verify = |signed: &common::Signed| scheme.verify(&keys, &signed.request(), NOW).map(|_| ());
        let mut both = own.clone();
        for part in ["id", "timestamp", "signature"] {
            both.set(&format!("webhook-{part}"), &value(&format!("svix-{part}")));
        }
        assert_eq!(verify(&both), Ok(()), "{name}: they say the same");
        let mut other = both.clone();
        other.headers.retain(|(name, _)| !name.starts_with("svix-"));
        assert_eq!(verify(&other), Ok(()), "{name}: the other family alone");
        for (part, refusal) in [
            ("id", Refusal::IdDuplicated),
            ("timestamp", Refusal::TimestampMalformed),
            ("signature", Refusal::SignatureDuplicated),
        ] {
            for (family, base) in [("svix", &both), ("webhook", &both), ("webhook", &own), ("svix", &other)] {
                let mut conflict = base.clone();
                conflict.set(&format!("{family}-{part}"), b"1770000001");
                assert_eq!(verify(&conflict), Err(refusal), "{name}: {family}-{part}");
            }
            let mut twice = both.clone();
            twice.headers.push((format!("webhook-{part}"), value(&format!("svix-{part}"))));
            assert_eq!(verify(&twice), Err(refusal), "{name}: webhook-{part} twice");
        }
        // Signed afresh, they still agree.
        let old = Request { headers: &both.headers, ..own.request() };
        let fresh = scheme.sign(&keys, &old, Some("evt-2"), NOW + 10).expect("signs");
        let mut again = both.clone();
        fresh.headers.iter().for_each(|(name, value)| again.set(name, value.as_bytes()));
        assert_eq!(scheme.verify(&keys, &again.request(), NOW + 10).map(|_| ()), Ok(()), "{name}");
        let old = Request { headers: &other.headers, ..own.request() };
        let fresh = scheme.sign(&keys, &old, Some("evt-2"), NOW + 10).expect("signs");
        assert!(fresh.headers.iter().all(|(name, _)| name.starts_with("webhook-")), "{name}: {:?}", fresh.headers);
    }
}
