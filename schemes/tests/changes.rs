//! What is signed verifies; anything changed in it does not.

use proptest::prelude::*;
use relay_schemes::{Keys, MAX_CANDIDATES, Refusal, Request, Scheme, Secret, provider};

const NOW: i64 = 1_770_000_000;
const BODY: &[u8] = br#"{"a":1}"#;

fn row(name: &str) -> (&'static Scheme, Keys) {
    let scheme = provider(name).and_then(|provider| provider.scheme.as_ref()).expect("a signed row");
    let keys = scheme.keys(&[Secret::new("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]).expect("fits every form");
    (scheme, keys)
}

fn signed(name: &str, body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (scheme, keys) = row(name);
    let headers = scheme.sign(&keys, NOW, Some("msg_1"), body).expect("signs");
    headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect()
}

fn verify(name: &str, headers: &Vec<(String, Vec<u8>)>, body: &[u8], now: i64) -> Result<(), Refusal> {
    let (scheme, keys) = row(name);
    scheme.verify(&keys, &Request { headers, body }, now).map(|_| ())
}

fn rows() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["github", "stripe", "standard-webhooks"])
}

#[test]
fn a_signature_is_good_for_its_tolerance_both_ways_and_not_a_second_longer() {
    for name in ["stripe", "standard-webhooks"] {
        let headers = signed(name, b"{}");
        for (now, expected) in [
            (NOW, Ok(())),
            (NOW + 300, Ok(())),
            (NOW + 301, Err(Refusal::TimestampTooOld)),
            (NOW - 300, Ok(())),
            (NOW - 301, Err(Refusal::TimestampTooNew)),
        ] {
            assert_eq!(verify(name, &headers, b"{}", now), expected, "{name} at {now}");
        }
    }
}

#[test]
fn at_most_sixteen_signatures_are_looked_at() {
    let mut headers = signed("standard-webhooks", b"{}");
    let right = headers.pop().expect("the signature").1;
    let wrong = b"v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= ".repeat(MAX_CANDIDATES);
    let with = |wrong: &[u8]| {
        let mut headers = headers.clone();
        headers.push(("webhook-signature".into(), [wrong, &right].concat()));
        verify("standard-webhooks", &headers, b"{}", NOW)
    };
    assert_eq!(with(&wrong[47..]), Ok(()), "the sixteenth is looked at");
    assert_eq!(with(&wrong), Err(Refusal::SignatureMalformed), "the seventeenth is not");
}

proptest! {
    #[test]
    fn what_a_row_signs_it_verifies(name in rows(), body in prop::collection::vec(any::<u8>(), 0..500)) {
        prop_assert_eq!(verify(name, &signed(name, &body), &body, NOW), Ok(()));
    }

    #[test]
    fn a_changed_byte_of_the_body_is_refused(
        name in rows(),
        mut body in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let headers = signed(name, &body);
        let at = at.index(body.len());
        body[at] ^= flip;
        prop_assert_eq!(verify(name, &headers, &body, NOW), Err(Refusal::SignatureMismatch));
    }

    #[test]
    fn a_changed_byte_of_a_signed_header_is_refused(
        name in rows(),
        header in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let mut headers = signed(name, BODY);
        let header = header.index(headers.len());
        let at = at.index(headers[header].1.len());
        headers[header].1[at] ^= flip;
        let refused = verify(name, &headers, BODY, NOW).is_err();
        prop_assert!(refused);
    }

    #[test]
    fn any_bytes_in_the_signature_header_are_refused_without_a_panic(
        name in rows(),
        value in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let mut headers = signed(name, b"");
        headers.last_mut().expect("the signature").1 = value;
        let refused = verify(name, &headers, b"", NOW).is_err();
        prop_assert!(refused);
    }
}
