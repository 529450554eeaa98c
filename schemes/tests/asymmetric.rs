//! Rows whose key only the provider has: signed here with keys made for the test.

use std::collections::BTreeMap;

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use relay_schemes::{Material, NamedKey, Refusal, Request, Scheme, Secret, provider};
use sha2::{Digest, Sha256};

const NOW: i64 = 1_770_000_000;
const URL: &str = "https://hooks.example.com/in";
const BODY: &[u8] = br#"{"data":{"id":"1","event_type":"message.sent"}}"#;

type Headers = Vec<(String, String)>;

fn scheme(name: &str) -> &'static Scheme {
    provider(name).and_then(|row| row.scheme.as_ref()).expect("a signed row")
}

fn verify(scheme: &Scheme, material: &Material, headers: &Headers, body: &[u8]) -> Result<(), Refusal> {
    let keys = scheme.keys_from(material).expect("keys");
    scheme.verify(&keys, &Request { method: "POST", url: URL, headers, body }, NOW).map(|_| ())
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn ed25519() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().expect("a key")
}

#[test]
fn telnyx_with_a_raw_key_and_with_its_spki() {
    let pair = ed25519();
    let signature = BASE64.encode(pair.sign(&[b"1770000000|", BODY].concat()).as_ref());
    let headers = headers(&[("telnyx-signature-ed25519", &signature), ("telnyx-timestamp", "1770000000")]);
    let raw = Material::secrets(&[Secret::new(BASE64.encode(pair.public_key().as_ref()))]);
    assert_eq!(verify(scheme("telnyx"), &raw, &headers, BODY), Ok(()));
    assert_eq!(verify(scheme("telnyx"), &raw, &headers, b"{}"), Err(Refusal::SignatureMismatch));
    let other = Material::secrets(&[Secret::new(BASE64.encode(ed25519().public_key().as_ref()))]);
    assert_eq!(verify(scheme("telnyx"), &other, &headers, BODY), Err(Refusal::SignatureMismatch));
    let short = Material::secrets(&[Secret::new("AAAA")]);
    assert!(scheme("telnyx").keys_from(&short).is_err(), "a key of three bytes is none");
}

#[test]
fn fal_with_a_key_set_of_which_any_key_may_have_signed() {
    let pair = ed25519();
    let jwk = |pair: &Ed25519KeyPair| {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, BASE64URL_NOPAD.encode(pair.public_key().as_ref()))
    };
    let jwks = Some(format!(r#"{{"keys":[{},{{"kty":"unknown"}},{}]}}"#, jwk(&ed25519()), jwk(&pair)));
    let text = format!("req-1\nuser-1\n1770000000\n{}", HEXLOWER.encode(&Sha256::digest(BODY)));
    let signature = HEXLOWER.encode(pair.sign(text.as_bytes()).as_ref());
    let headers = headers(&[
        ("x-fal-webhook-signature", &signature),
        ("x-fal-webhook-request-id", "req-1"),
        ("x-fal-webhook-user-id", "user-1"),
        ("x-fal-webhook-timestamp", "1770000000"),
    ]);
    let material = Material { jwks, ..Material::default() };
    assert_eq!(verify(scheme("fal"), &material, &headers, BODY), Ok(()));
    assert_eq!(verify(scheme("fal"), &material, &headers, b"{}"), Err(Refusal::SignatureMismatch));
    assert!(scheme("fal").keys_from(&Material::default()).is_err(), "without a set there are no keys");
}

#[test]
fn sendgrid_with_pem_over_several_lines() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).expect("a key");
    let signed = pair.sign(&random, &[b"1770000000", BODY].concat()).expect("signs");
    let headers = headers(&[
        ("x-twilio-email-event-webhook-signature", &BASE64.encode(signed.as_ref())),
        ("x-twilio-email-event-webhook-timestamp", "1770000000"),
    ]);
    let spki = [&hex("3059301306072a8648ce3d020106082a8648ce3d030107034200")[..], pair.public_key().as_ref()].concat();
    let base64 = BASE64.encode(&spki);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &base64[..64], &base64[64..]);
    for key in [base64, pem] {
        let material = Material::secrets(&[Secret::new(key)]);
        assert_eq!(verify(scheme("sendgrid"), &material, &headers, BODY), Ok(()));
        assert_eq!(verify(scheme("sendgrid"), &material, &headers, b"{}"), Err(Refusal::SignatureMismatch));
    }
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("hex")
}

/// A certificate and the key that signs for it, good from 2020 to 2030 or as said.
fn certificate(until: i32) -> (RsaKeyPair, String) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&pair).expect("DER");
    let key = rcgen::KeyPair::try_from(pkcs8.as_ref()).expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["messageverificationcerts.paypal.com".into()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    (pair, params.self_signed(&key).expect("signs").pem())
}

fn paypal(pair: &RsaKeyPair, url: &str) -> Headers {
    let text = format!("id-1|2026-02-02T02:40:00Z|hook-1|{}", crc32fast::hash(BODY));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("signs");
    headers(&[
        ("paypal-transmission-id", "id-1"),
        ("paypal-transmission-time", "2026-02-02T02:40:00Z"),
        ("paypal-transmission-sig", &BASE64.encode(&signature)),
        ("paypal-auth-algo", "SHA256withRSA"),
        ("paypal-cert-url", url),
    ])
}

#[test]
fn paypal_with_a_certificate_from_its_own_host_that_is_valid_now() {
    const CERT: &str = "https://api.paypal.com/v1/notifications/certs/CERT-1";
    let (pair, pem) = certificate(2030);
    let material = |url: &str, pem: &str| Material {
        named_keys: BTreeMap::from([(url.to_owned(), pem.to_owned())]),
        settings: BTreeMap::from([("webhook_id".to_owned(), vec!["hook-1".to_owned()])]),
        ..Material::default()
    };
    let row = scheme("paypal");
    let headers = paypal(&pair, CERT);
    assert_eq!(verify(row, &material(CERT, &pem), &headers, BODY), Ok(()));
    assert_eq!(verify(row, &material(CERT, &pem), &headers, b"{}"), Err(Refusal::SignatureMismatch));
    let request = Request { method: "POST", url: URL, headers: &headers, body: BODY };
    assert_eq!(row.named_key(&request), Some(NamedKey::Url(CERT.into())));
    assert_eq!(
        verify(row, &material("https://api.paypal.com/v1/notifications/certs/CERT-2", &pem), &headers, BODY),
        Err(Refusal::KeyUnknown)
    );
    let (old, old_pem) = certificate(2025);
    let refused = verify(row, &material(CERT, &old_pem), &paypal(&old, CERT), BODY);
    assert_eq!(refused, Err(Refusal::CertificateRefused), "no longer valid");
    for url in [
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:444/v1/notifications/certs/CERT-1",
        "https://api.paypal.com\\@evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/CERT-1/../../x",
        "https://api.paypal.com/v1/notifications/certs/CERT-1?x",
        "https://api.paypal.com/c",
    ] {
        let headers = paypal(&pair, url);
        assert_eq!(verify(row, &material(url, &pem), &headers, BODY), Err(Refusal::CertificateRefused), "{url}");
        let request = Request { method: "POST", url: URL, headers: &headers, body: BODY };
        assert_eq!(row.named_key(&request), None, "{url} must not be fetched");
    }
    let none = Material { settings: BTreeMap::new(), ..material(CERT, &pem) };
    assert!(row.keys_from(&none).is_err(), "the webhook's id is a part of what is signed");
}
