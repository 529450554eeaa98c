//! What a stranger can have signed with an endpoint's key, for every row that signs a text of the asker's.

use super::*;
use crate::{Material, Refusal, providers, sign::escape};

const NOW: i64 = 1_770_000_000;

/// A challenge that asks for a signature of this text.
fn ask(row: &Provider, handshake: &Handshake, keys: &Keys, text: &str) -> Option<Challenge> {
    let mut url = "https://hooks.example.com/in?".to_owned();
    for (spot, wanted) in &handshake.when {
        let value = if let Wanted::Value(value) = wanted { value } else { text };
        match spot {
            Spot::Query(name) => url += &format!("&{name}={}", escape(value)),
            other => panic!("{}: say here how a challenge has {other:?}", row.name),
        }
    }
    let headers: [(&str, &str); 0] = [];
    let request = Request { method: &handshake.method, url: &url, headers: &headers, body: b"" };
    row.handshake(&request, &Answering { keys: Some(keys), verify_token: None, allow_unsigned: true }, NOW)
}

/// An event of which exactly this text is signed.
fn event_body(row: &Provider, scheme: &Scheme, text: &str) -> Vec<u8> {
    match &scheme.template[..] {
        [Piece::Body] => text.as_bytes().to_vec(),
        [Piece::At { spot: Spot::Form(name), .. }] => format!("{name}={}", escape(text)).into_bytes(),
        other => panic!("{}: say here how an event has {other:?}", row.name),
    }
}

/// Texts that this shape allows: the shortest, the longest, some between, and what could be taken for an event.
fn texts_within(shape: &Shape) -> Vec<String> {
    let letters: Vec<_> = (0..=127).filter(|byte| shape.holds(*byte)).map(char::from).collect();
    let whole = |len: usize| (0..len).map(|at| letters[at * 7 % letters.len()]).collect::<String>();
    let known = ["0", "1.5e9", "true", "null", "a=b", "e30=", "eyJhbGciOiJIUzI1NiJ9.e30", "12345678901234567890"];
    let texts = (1..=1024).map(whole).chain(known.map(str::to_owned));
    texts.filter(|text| shape.fits(text.as_bytes())).collect()
}

#[test]
fn what_a_stranger_has_signed_never_passes_as_an_event() {
    let mut seen = Vec::new();
    for row in providers() {
        for handshake in &row.handshakes {
            let scheme = row.scheme.as_ref();
            let Some(shape) = handshake.signed_for_strangers(scheme).expect("a row that loads") else { continue };
            seen.push(row.name.as_str());
            let scheme = scheme.expect("it has a key");
            let mut material = Material::secrets(&[Secret::new("3f9a0c51d2e84b7796a1b0c3d4e5f607")]);
            let settings = scheme.settings().into_iter().map(|name| (name.to_owned(), vec!["public".to_owned()]));
            material.settings = settings.collect();
            let keys = scheme.keys_from(&material).expect("keys");
            let sign = |body: &[u8], headers: &[(String, String)]| {
                let url = "https://hooks.example.com/in";
                let request = Request { method: "POST", url, headers: &headers.to_vec(), body };
                let signed = scheme.sign(&keys, &request, Some("id-1"), NOW).expect("signs");
                let mut all = headers.to_vec();
                all.retain(|(name, _)| signed.headers.iter().all(|(other, _)| name != other));
                all.extend(signed.headers);
                let request = Request { headers: &all, body: &signed.body, ..request };
                (
                    scheme.verify(&keys, &request, NOW).map(|_| ()),
                    format!("{all:?} {}", String::from_utf8_lossy(&signed.body)),
                )
            };
            let texts = texts_within(shape);
            assert!(texts.len() > 10, "{}", row.name);
            for text in texts {
                let Some(Challenge::Respond(reply)) = ask(row, handshake, &keys, &text) else {
                    panic!("{}: {text} is a challenge", row.name)
                };
                let (outcome, signed) = sign(&event_body(row, scheme, &text), &[]);
                let answer = String::from_utf8(reply.body).expect("text");
                let mac = answer.trim_end_matches(['"', '}']).rsplit(['|', '"']).next().expect("a signature");
                assert!(signed.contains(mac), "{}: the answer to {text} is another signature", row.name);
                assert_eq!(outcome, Err(Refusal::ChallengeText), "{}: {text}", row.name);
            }
            let sample = row.sample("evt-1", NOW);
            let (outcome, _) = sign(&sample.body, &sample.headers);
            assert_eq!(outcome, Ok(()), "{}: an event", row.name);
            for text in [
                &*String::from_utf8_lossy(&sample.body),
                "{}",
                "[]",
                "\"a\"",
                " 1",
                "1\n",
                "a=b&c=d",
                "a%3Db",
                "<a/>",
                "a:b",
                "v0:1770000000:",
                "caf\u{e9}",
                "\0",
                &"a".repeat(1025),
            ] {
                let answer = ask(row, handshake, &keys, text);
                let refused = matches!(answer, Some(Challenge::Refused { code: "challenge_malformed", .. }));
                assert!(refused, "{}: {text:?}: {answer:?}", row.name);
            }
            assert_eq!(ask(row, handshake, &keys, ""), None, "{}", row.name);
        }
    }
    assert_eq!(seen, ["x", "braintree"], "every row whose challenges are signed for anybody");
}
