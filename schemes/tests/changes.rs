//! What is signed verifies; anything changed in it does not.
//!
//! Every symmetric row signs its own sample; every accept vector, whoever made it, is changed byte by
//! byte: in the body where the scheme covers it, in the signature, in the timestamp.

mod common;

use std::{collections::BTreeSet, path::Path};

use common::{NOW, SECRET, Signed, keys, material, sign, sign_with, symmetric};
use proptest::prelude::*;
use relay_schemes::{
    Keys, LongBody, MAX_CANDIDATES, Provider, Refusal, Request, Scheme, SecretWarning, SignatureScope, load, provider,
    vectors::{VectorRequest, requests},
};

fn verify(scheme: &Scheme, signed: &Signed) -> Result<(), Refusal> {
    scheme.verify(&keys(scheme), &signed.request(), NOW).map(|_| ())
}

fn row(name: &str) -> (&'static Provider, &'static Scheme) {
    let row = provider(name).expect("a row");
    (row, row.scheme.as_ref().expect("a signed row"))
}

/// The headers in which a row's signature may stand, told from what signing adds.
fn signature_headers(signed: &Signed) -> Vec<String> {
    let sign = ["signature", "hmac", "mac", "authorization", "token", "x-trello-webhook"];
    let names = signed.headers.iter().map(|(name, _)| name.clone());
    names.filter(|name| sign.iter().any(|part| name.contains(part)) && !name.contains("nonce")).collect()
}

#[test]
fn every_symmetric_row_verifies_what_it_signs() {
    let mut count = 0;
    for (row, scheme) in symmetric() {
        assert_eq!(verify(scheme, &sign(row, scheme)), Ok(()), "{}", row.name);
        count += 1;
    }
    assert!(count > 90, "only {count} rows");
}

#[test]
fn another_secret_verifies_nothing() {
    for (row, scheme) in symmetric() {
        let other = format!("00{}", &SECRET[2..]);
        let other = scheme.keys_from(&material(scheme, &other)).expect("another secret");
        let refused = scheme.verify(&other, &sign(row, scheme).request(), NOW);
        assert_eq!(refused.err(), Some(Refusal::SignatureMismatch), "{}", row.name);
    }
}

#[test]
fn the_second_of_two_secrets_is_as_good_as_the_first() {
    for (row, scheme) in symmetric() {
        let mut both = material(scheme, &format!("00{}", &SECRET[2..]));
        both.secrets.extend(material(scheme, SECRET).secrets);
        let keys = scheme.keys_from(&both).expect("two secrets");
        let signed = sign(row, scheme);
        let verified = scheme.verify(&keys, &signed.request(), NOW);
        match row.name.as_str() {
            // The second key has a header of its own.
            "box" => assert_eq!(verified.err(), Some(Refusal::SignatureMismatch)),
            name => assert_eq!(verified.map(|it| it.key_index), Ok(1), "{name}"),
        }
    }
}

#[test]
fn whoever_knows_a_secret_finds_it_by_its_tag_and_signs_with_it() {
    for (row, scheme) in symmetric() {
        let (own, other) = (SECRET.to_owned(), format!("00{}", &SECRET[2..]));
        let of = |secrets: &[&String]| {
            let mut all = material(scheme, secrets[0]);
            all.secrets.extend(secrets[1..].iter().flat_map(|secret| material(scheme, secret).secrets));
            scheme.keys_from(&all).expect("they fit")
        };
        let both = of(&[&other, &own]);
        let tag = both.tag(1, b"event").expect("a second one");
        assert_ne!(both.tag(0, b"event"), Some(tag), "{}", row.name);
        assert_ne!(both.tag(1, b"another event"), Some(tag), "{}", row.name);
        assert_eq!(of(&[&own]).tag(0, b"event"), Some(tag), "wherever it stands in the list");
        assert!(of(&[&other]).signing_as(tag.bytes(), b"event").is_none());
        let signing = both.signing_as(tag.bytes(), b"event").expect("it is there");
        let verified = scheme.verify(&both, &sign_with(row, scheme, &signing, None).request(), NOW);
        assert_eq!(verified.map(|it| it.key_index), Ok(1), "{}", row.name);
    }
}

#[test]
fn a_signature_is_good_for_its_tolerance_both_ways_and_not_a_second_longer() {
    let mut count = 0;
    for (row, scheme) in symmetric() {
        let Some((past_s, future_s)) = scheme.tolerance_s() else { continue };
        count += 1;
        let (signed, keys) = (sign(row, scheme), keys(scheme));
        for (now, expected) in [
            (NOW + past_s, Ok(())),
            (NOW + past_s + 1, Err(Refusal::TimestampTooOld)),
            (NOW - future_s, Ok(())),
            (NOW - future_s - 1, Err(Refusal::TimestampTooNew)),
        ] {
            let seen = scheme.verify(&keys, &signed.request(), now).map(|_| ());
            assert_eq!(seen, expected, "{} at {}", row.name, now - NOW);
        }
        let wide = relay_schemes::Material { tolerance_s: Some(100_000), ..material(scheme, SECRET) };
        let wide = scheme.keys_from(&wide).expect("keys");
        assert!(scheme.verify(&wide, &signed.request(), NOW + 100_000).is_ok(), "{}", row.name);
        assert!(scheme.verify(&wide, &signed.request(), NOW + 100_001).is_err(), "{}", row.name);
    }
    assert!(count > 25, "only {count} rows");
}

#[test]
fn doubled_malformed_truncated_and_endless_signatures_are_refused() {
    for (row, scheme) in symmetric() {
        let signed = sign(row, scheme);
        for name in signature_headers(&signed) {
            let value = signed.headers.iter().find(|(key, _)| *key == name).expect("the header").1.clone();
            let mut without = signed.clone();
            without.headers.retain(|(key, _)| *key != name);
            if verify(scheme, &without).is_ok() {
                continue;
            }
            let mut doubled = signed.clone();
            doubled.headers.push((name.clone(), value.clone()));
            assert!(verify(scheme, &doubled).is_err(), "{}: {name} doubled", row.name);
            for wrong in [
                Vec::new(),
                b"\xff\xfe".to_vec(),
                value[..value.len() / 2].to_vec(),
                value[..value.len() - 1].to_vec(),
                [&value[..], b"x"].concat(),
                [&value[..], b"\n"].concat(),
                value.repeat(10_000),
            ] {
                let mut changed = signed.clone();
                changed.set(&name, &wrong);
                assert!(verify(scheme, &changed).is_err(), "{}: {name} of {} bytes", row.name, wrong.len());
            }
        }
    }
}

#[test]
fn a_signature_that_marks_a_request_marks_no_other() {
    let mut counts = [0; 2];
    for (row, scheme) in symmetric() {
        let keys = keys(scheme);
        let sample = row.sample("evt-1", NOW).body;
        let (first, other) = (sign_with(row, scheme, &keys, Some(&sample)), other_event(row, scheme, &keys));
        let mark = |signed: &Signed| scheme.verify(&keys, &signed.request(), NOW).expect("signed").fingerprint;
        match scheme.scope() {
            SignatureScope::Request => assert_ne!(mark(&first), mark(&other), "{}", row.name),
            // Whoever compares bodies needs them.
            SignatureScope::Occasion => assert!(scheme.covers_body(), "{}", row.name),
            SignatureScope::Open => continue,
        }
        counts[usize::from(scheme.scope() == SignatureScope::Occasion)] += 1;
    }
    assert!(counts[0] > 25 && counts[1] == 2, "{counts:?}");
    let scope = |name: &str| row(name).1.scope();
    for name in ["google-pubsub", "monday", "jira-connect", "github", "gitlab-token", "adyen", "mandrill"] {
        assert_eq!(scope(name), SignatureScope::Open, "{name}");
    }
    for name in ["mailgun", "mailgun-form", "paypal"] {
        assert_eq!(scope(name), SignatureScope::Occasion, "{name}");
    }
    for name in ["plaid", "linear", "stripe", "svix", "discord", "fal"] {
        assert_eq!(scope(name), SignatureScope::Request, "{name}");
    }
}

/// Another event of the same second.
fn other_event(row: &Provider, scheme: &Scheme, keys: &Keys) -> Signed {
    let text = String::from_utf8(row.sample("evt-1", NOW).body).expect("text");
    let other = match text.rfind('}') {
        Some(end) => format!("{},\"more\":1{}", &text[..end], &text[end..]),
        None => format!("{text}&more=1"),
    };
    sign_with(row, scheme, keys, Some(other.as_bytes()))
}

#[test]
fn which_of_several_signatures_is_left_out_makes_no_other_request() {
    let (row, scheme) = row("stripe");
    let mut both = material(scheme, SECRET);
    both.secrets.extend(material(scheme, "another secret").secrets);
    let both = scheme.keys_from(&both).expect("two secrets");
    let signature = |secret: &str| {
        let keys = scheme.keys_from(&material(scheme, secret)).expect("a secret");
        let signed = sign_with(row, scheme, &keys, None);
        let value = signed.headers.iter().find(|(name, _)| name == "stripe-signature").expect("signed").1.clone();
        (signed, String::from_utf8(value).expect("text"))
    };
    let ((mut signed, first), (_, second)) = (signature(SECRET), signature("another secret"));
    let (stamp, second) = second.split_once(',').expect("a list");
    let mut marks = Vec::new();
    for value in [format!("{first},{second}"), first.clone(), format!("{stamp},{second}")] {
        signed.set("stripe-signature", value.as_bytes());
        marks.push(scheme.verify(&both, &signed.request(), NOW).expect("verifies").fingerprint);
    }
    assert!(marks[0] == marks[1] && marks[0] == marks[2], "{marks:?}");
}

/// Two events about the same thing, which no id may take for one. An id that stands in both is not the event's own.
const SAME_THING: &[(&str, &str, &str)] = &[
    (
        "acuity",
        "action=changed&id=7&calendarID=1&appointmentTypeID=2",
        "action=changed&id=7&calendarID=1&appointmentTypeID=2",
    ),
    (
        "adyen-platform",
        r#"{"type":"t","data":{"id":"7","status":"a"}}"#,
        r#"{"type":"t","data":{"id":"7","status":"b"}}"#,
    ),
    ("azure-event-grid", r#"[{"id":"7","topic":"/a"}]"#, r#"[{"id":"7","topic":"/b"}]"#),
    ("azure-event-grid", r#"[{"id":"7","topic":"/a"},{"id":"8","topic":"/a"}]"#, r#"[{"id":"7","topic":"/a"}]"#),
    (
        "clickup",
        r#"{"event":"taskUpdated","webhook_id":"1","history_items":[{"id":"7"}]}"#,
        r#"{"event":"taskStatusUpdated","webhook_id":"1","history_items":[{"id":"7"}]}"#,
    ),
    ("cloudevents", r#"{"id":"7","source":"/a"}"#, r#"{"id":"7","source":"/b"}"#),
    (
        "cloudinary",
        r#"{"request_id":"7","notification_type":"upload"}"#,
        r#"{"request_id":"7","notification_type":"eager"}"#,
    ),
    (
        "docker-hub",
        r#"{"push_data":{"pushed_at":1,"tag":"7"},"repository":{"repo_name":"a"}}"#,
        r#"{"push_data":{"pushed_at":1,"tag":"7"},"repository":{"repo_name":"a"}}"#,
    ),
    (
        "dropbox-sign",
        r#"{"event":{"event_hash":"7"},"signature_request":{"id":"1"}}"#,
        r#"{"event":{"event_hash":"7"},"signature_request":{"id":"2"}}"#,
    ),
    (
        "figma",
        r#"{"webhook_id":"7","timestamp":"1","event_type":"FILE_UPDATE","file_key":"1"}"#,
        r#"{"webhook_id":"7","timestamp":"1","event_type":"FILE_UPDATE","file_key":"2"}"#,
    ),
    ("formstack", r#"{"UniqueID":"7"}"#, r#"{"UniqueID":"7"}"#),
    ("hubspot-v3", r#"[{"eventId":7,"objectId":1}]"#, r#"[{"eventId":7,"objectId":2}]"#),
    ("mattermost", r#"{"post_id":"7"}"#, r#"{"post_id":"7"}"#),
    ("netlify", r#"{"id":"7","state":"ready"}"#, r#"{"id":"7","state":"ready"}"#),
    ("paystack", r#"{"event":"invoice.update","data":{"id":"7"}}"#, r#"{"event":"invoice.update","data":{"id":"7"}}"#),
    ("plivo", "CallUUID=7&Digits=1", "CallUUID=7&Digits=1"),
    ("postmark", r#"{"RecordType":"Open","MessageID":"7"}"#, r#"{"RecordType":"Open","MessageID":"7"}"#),
    (
        "postmark",
        r#"{"RecordType":"Delivery","MessageID":"7","Recipient":"a","DeliveredAt":"1"}"#,
        r#"{"RecordType":"Delivery","MessageID":"7","Recipient":"b","DeliveredAt":"1"}"#,
    ),
    ("quickbooks", r#"[{"id":"7","source":"a"}]"#, r#"[{"id":"7","source":"b"}]"#),
    (
        "retell",
        r#"{"event":"transcript_updated","call":{"call_id":"7"}}"#,
        r#"{"event":"transcript_updated","call":{"call_id":"7"}}"#,
    ),
    (
        "webex",
        r#"{"id":"7","resource":"messages","event":"created","data":{"id":"1"}}"#,
        r#"{"id":"7","resource":"messages","event":"created","data":{"id":"2"}}"#,
    ),
];

#[test]
fn a_secret_that_is_meant_in_two_ways_is_tried_in_both() {
    use relay_schemes::Secret;
    let (row, scheme) = row("polar");
    let standard = provider("standard-webhooks").and_then(|row| row.scheme.as_ref()).expect("a row");
    let openai = provider("openai").and_then(|row| row.scheme.as_ref()).expect("a row");
    for secret in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBk="] {
        let keys = scheme.keys(&[Secret::new(secret)]).expect("a secret");
        let decoded = standard.keys(&[Secret::new(secret)]).expect("a secret");
        // Without whsec_ in front OpenAI's secrets are text, so the text goes in as one.
        let signed = sign_with(row, standard, &decoded, None);
        assert_eq!(scheme.verify(&keys, &signed.request(), NOW).map(|it| it.key_index), Ok(0), "decoded");
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let text = load(
            "[[provider]]\nname = \"mine\"\ntitle = \"Mine\"\nlike = \"standard-webhooks\"\n[provider.scheme]\n\
             algorithm = \"hmac-sha256\"\nsecret = \"hex\"\ntemplate = \"{id}.{timestamp}.{body}\"\n\
             id = \"header:webhook-id\"\ntimestamp = { at = \"header:webhook-timestamp\", past_s = 300, future_s = 300 }\n\
             signature = { at = \"header:webhook-signature\", encoding = \"base64\", item_separator = \" \", \
             field_separator = \",\", field = \"v1\" }\n",
        );
        let text = text.expect("a row").remove(0).scheme.expect("a scheme");
        let signed = sign_with(row, &text, &text.keys(&[Secret::new(hex)]).expect("hex"), None);
        assert_eq!(scheme.verify(&keys, &signed.request(), NOW).map(|it| it.key_index), Ok(1), "as text");
        assert!(openai.verify(&keys, &signed.request(), NOW).is_ok(), "the scheme is the same");
    }
    let old = scheme.keys(&[Secret::new("polar_whs_0123456789abcdef0123")]).expect("a secret");
    let openai = openai.keys(&[Secret::new("polar_whs_0123456789abcdef0123")]).expect("text");
    let signed = sign_with(row, scheme, &openai, None);
    assert_eq!(scheme.verify(&old, &signed.request(), NOW).map(|it| it.key_index), Ok(0));
}

#[test]
fn a_hub_chooses_among_the_four_hashes_of_websub_and_no_others() {
    let (row, scheme) = row("websub");
    let signed = sign(row, scheme);
    let of = |algorithm: &str| {
        let text = format!(
            "[[provider]]\nname = \"mine\"\ntitle = \"Mine\"\nscheme.algorithm = \"hmac-{algorithm}\"\n\
             scheme.template = \"{{body}}\"\nscheme.signature = {{ at = \"header:x-hub-signature\", encoding = \"hex\", \
             prefix = \"{algorithm}=\" }}\n"
        );
        let one = load(&text).expect("a row").remove(0).scheme.expect("a scheme");
        sign_with(row, &one, &one.keys(&[relay_schemes::Secret::new(SECRET)]).expect("keys"), None)
    };
    for algorithm in ["sha1", "sha256", "sha384", "sha512"] {
        let mut signed = of(algorithm);
        assert_eq!(verify(scheme, &signed), Ok(()), "{algorithm}");
        let value = signed.headers.iter().find(|(name, _)| name == "x-hub-signature").expect("signed").1.clone();
        let (_, digest) = std::str::from_utf8(&value).expect("text").split_once('=').expect("a prefix");
        let other = if algorithm == "sha1" { "sha256" } else { "sha1" };
        for wrong in [
            format!("{other}={digest}"),
            digest.to_owned(),
            format!("md5={digest}"),
            format!("SHA1={digest}"),
            String::new(),
        ] {
            signed.set("x-hub-signature", wrong.as_bytes());
            assert!(verify(scheme, &signed).is_err(), "{wrong}");
        }
    }
    assert!(signed.headers.iter().any(|(_, value)| value.starts_with(b"sha1=")));
}

#[test]
fn a_multipart_form_is_read_wherever_a_form_is() {
    const KIND: &str = "multipart/form-data; boundary=\"lamp 1\"";
    let parts = |fields: &[(&str, &str)]| {
        let part = |(name, value): &(&str, &str)| {
            format!("--lamp 1\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        format!("{}--lamp 1--\r\n", fields.iter().map(part).collect::<String>()).into_bytes()
    };
    for (name, fields) in [
        ("mailgun-form", &[("event", "opened"), ("timestamp", ""), ("token", "t1"), ("signature", "")][..]),
        ("dropbox-sign", &[("json", r#"{"event":{"event_time":"1","event_type":"x","event_hash":""}}"#)][..]),
        ("braintree", &[("bt_payload", "cGF5")][..]),
        ("mattermost-form", &[("command", "/lamp"), ("token", "")][..]),
        ("twilio", &[("SmsStatus", "sent"), ("To", "+1 555")][..]),
        ("plivo", &[("Status", "sent"), ("To", "+1 555")][..]),
        ("gitea", &[("payload", "{\"a\":1}")][..]),
    ] {
        let (row, scheme) = row(name);
        let keys = keys(scheme);
        let headers = [("content-type", KIND), ("x-plivo-signature-v3-nonce", "n")];
        let body = parts(fields);
        let request = Request { method: "POST", url: common::URL, headers: &headers, body: &body };
        let signed = scheme.sign(&keys, &request, None, NOW).unwrap_or_else(|why| panic!("{name}: {why}"));
        let mut all: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.extend(signed.headers.clone());
        let check = |body: &[u8]| {
            let request = Request { method: "POST", url: &signed.url, headers: &all, body };
            scheme.verify(&keys, &request, NOW).map(|_| row.event(&request))
        };
        let event = check(&signed.body).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(event.kind.is_some(), !["braintree", "gitea"].contains(&name), "{name}: {event:?}");
        let text = String::from_utf8(signed.body.clone()).expect("text");
        let second = text.replacen("--lamp 1--", &text[..text.len() - "--lamp 1--\r\n".len()], 1) + "--lamp 1--\r\n";
        for broken in [second, text.replace("\r\n", "\n"), text.replacen("--lamp 1--", "", 1), format!("x{text}")] {
            assert!(check(broken.as_bytes()).is_err(), "{name}: {broken:?}");
        }
    }
}

#[test]
fn two_events_about_one_thing_are_two() {
    for (name, first, second) in SAME_THING {
        let id = |body: &str| {
            let (headers, url): ([(&str, &str); 0], _) = ([], "https://h/in");
            let row = provider(name).expect("a row");
            row.event(&Request { method: "POST", url, headers: &headers, body: body.as_bytes() }).id
        };
        let (first, second) = (id(first), id(second));
        assert!(first.is_none() || first != second, "{name}: {first:?}");
    }
}

#[test]
fn at_most_sixteen_signatures_are_looked_at() {
    let (row, scheme) = row("standard-webhooks");
    let signed = sign(row, scheme);
    let right = signed.headers.iter().find(|(name, _)| name == "webhook-signature").expect("signed").1.clone();
    let wrong = b"v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= ".repeat(MAX_CANDIDATES);
    let with = |wrong: &[u8]| {
        let mut signed = signed.clone();
        signed.set("webhook-signature", &[wrong, &right].concat());
        verify(scheme, &signed)
    };
    assert_eq!(with(&wrong[48..]), Ok(()), "the sixteenth is looked at");
    assert_eq!(with(&wrong), Err(Refusal::SignatureMalformed), "the seventeenth is not");
}

#[test]
fn a_secret_with_a_newline_is_taken_with_a_warning() {
    let (row, scheme) = row("github");
    let keys = scheme.keys_from(&material(scheme, &format!("{SECRET}\n"))).expect("taken");
    assert_eq!(keys.warnings(), [SecretWarning::NewlineStripped]);
    assert!(scheme.verify(&keys, &sign(row, scheme).request(), NOW).is_ok());
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors")
}

/// Every accept vector with a row, with the row's scheme. None where they are not there, which is said.
fn accepted() -> Vec<(String, &'static Scheme, Keys, VectorRequest)> {
    let files = std::fs::read_dir(folder()).into_iter().flatten().flatten().map(|it| it.path());
    let mut all = Vec::new();
    for path in files.filter(|path| path.extension().is_some_and(|end| end == "json")) {
        let text = std::fs::read_to_string(&path).expect("a file");
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let Some(scheme) = provider(&name).and_then(|row| row.scheme.as_ref()) else { continue };
        for sample in requests(&text).expect("vectors").into_iter().filter(|sample| sample.accept) {
            let keys = scheme.keys_from(&sample.material).expect("keys");
            all.push((name.clone(), scheme, keys, sample));
        }
    }
    if all.is_empty() {
        println!("skipped: the published vectors are not beside this project");
    }
    all
}

/// Every byte of a short text, some of a long one.
fn places(len: usize) -> Vec<usize> {
    let step = (len / 400).max(1);
    (0..len).step_by(step).chain(len.checked_sub(1)).collect()
}

/// A body in pieces of a few bytes.
struct Pieces<'a>(&'a [u8]);

impl LongBody for Pieces<'_> {
    fn len(&self) -> u64 {
        1 << 20 // Whatever there is of it, no challenge is as long.
    }

    fn for_each(&self, each: &mut dyn FnMut(&[u8])) {
        self.0.chunks(7).for_each(each);
    }
}

#[test]
fn a_body_in_pieces_proves_what_it_proves_as_a_whole() {
    let (mut in_pieces, mut as_a_whole) = (BTreeSet::new(), BTreeSet::new());
    let all = accepted();
    if all.is_empty() {
        return;
    }
    for (name, scheme, keys, sample) in &all {
        let whole = Request { method: &sample.method, url: &sample.url, headers: &sample.headers, body: &sample.body };
        let head = Request { body: b"", ..whole };
        let seen = |body: &[u8]| scheme.verify_with(keys, &head, Some(&Pieces(body)), sample.now, None);
        if scheme.needs_whole_body(Some(&head)) {
            assert_eq!(seen(&sample.body), Err(Refusal::BodyMalformed), "{}", sample.name);
            assert!(scheme.needs_whole_body(None), "{name}");
            as_a_whole.insert(name.as_str());
            continue;
        }
        let right = scheme.verify_with(keys, &whole, None, sample.now, None);
        assert!(right.is_ok(), "{}: {right:?}", sample.name);
        assert_eq!(seen(&sample.body), right, "{}", sample.name);
        in_pieces.insert(name.as_str());
        if scheme.is_symmetric() {
            let pieces = Pieces(&sample.body);
            let in_pieces = scheme.sign_with(keys, &head, Some(&pieces), Some("evt-1"), sample.now);
            let in_one = scheme.sign(keys, &whole, Some("evt-1"), sample.now);
            assert_eq!(in_pieces.map(|it| it.headers), in_one.map(|it| it.headers), "{}", sample.name);
        }
        if scheme.protects_body() {
            for other in [&[&sample.body[..], b" "].concat(), &sample.body[..sample.body.len().saturating_sub(1)]] {
                assert!(other == sample.body || seen(other).is_err(), "{}: another body passed", sample.name);
            }
        }
    }
    println!("{} in pieces; as a whole: {as_a_whole:?}", in_pieces.len());
    assert!(["github", "slack", "sendgrid"].iter().all(|name| in_pieces.contains(name)), "{in_pieces:?}");
    assert!(["discord", "twilio"].iter().all(|name| as_a_whole.contains(name)), "{as_a_whole:?}");
}

#[test]
fn an_accepted_vector_with_one_byte_changed_is_refused() {
    let all = accepted();
    for (name, scheme, keys, sample) in &all {
        let refused = |headers: &Vec<(String, Vec<u8>)>, body: &[u8], what: &str| {
            let request = Request { method: &sample.method, url: &sample.url, headers, body };
            let seen = scheme.verify(keys, &request, sample.now);
            assert!(seen.is_err(), "{}: {what} was changed and passed", sample.name);
        };
        if scheme.protects_body() {
            // Of a form the decoded parameters are signed: flip within letters and digits.
            let form = String::from_utf8_lossy(
                &sample
                    .headers
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
                    .map(|it| it.1.clone())
                    .unwrap_or_default(),
            )
            .contains("urlencoded");
            let decoded = form && ["twilio", "gitea"].contains(&name.as_str());
            for at in places(sample.body.len()) {
                let mut body = sample.body.clone();
                if decoded && !body[at].is_ascii_digit() {
                    continue;
                }
                body[at] ^= 1;
                if decoded && body[at.saturating_sub(2)..at].contains(&b'%') {
                    // Within an escape the letter that it stands for changes, or its case only.
                    continue;
                }
                refused(&sample.headers, &body, &format!("byte {at} of the body"));
            }
            if !decoded {
                refused(&sample.headers, &[&sample.body[..], b" "].concat(), "the end of the body");
            }
        }
        for (index, (header, value)) in sample.headers.iter().enumerate() {
            let header = header.to_ascii_lowercase();
            let mut without = sample.headers.clone();
            without.remove(index);
            let request = Request { method: &sample.method, url: &sample.url, headers: &without, body: &sample.body };
            // A header that can be left out is not looked at.
            if scheme.verify(keys, &request, sample.now).is_ok() || header == "content-type" {
                continue;
            }
            let with = |value: Vec<u8>| {
                let mut headers = sample.headers.clone();
                headers[index].1 = value;
                let request =
                    Request { method: &sample.method, url: &sample.url, headers: &headers, body: &sample.body };
                scheme.verify(keys, &request, sample.now).is_ok()
            };
            for at in 0..value.len() {
                let mut changed = value.clone();
                changed[at] ^= 1;
                if !with(changed) {
                    continue;
                }
                // An item of a list that can be left out was not looked at either.
                let is_end = |byte: &u8| matches!(byte, b',' | b';' | b' ');
                let from = value[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
                let until = value[at..].iter().position(is_end).map_or(value.len(), |end| at + end);
                let without = [&value[..from], &value[until..]].concat();
                // The name of an HTTP authentication scheme has no case.
                let name_of_scheme = header == "authorization" && at < "Bearer ".len();
                assert!(
                    name_of_scheme || with(without),
                    "{}: byte {at} of {header} was changed and passed",
                    sample.name
                );
            }
        }
    }
    if folder().is_dir() {
        assert!(all.len() > 500, "only {} vectors", all.len());
    }
}

#[test]
fn a_row_of_ones_own_is_the_same_row() {
    let text = r#"
        [[provider]]
        name = "mine"
        title = "Mine"
        retries = true
        [provider.scheme]
        algorithm = "hmac-sha384"
        secret = "text"
        template = "{method} {path}?{query}\n{header:x-a}\n{json:/a/b}\n{body}"
        signature = { at = "query:sig", encoding = "base64url" }
    "#;
    let row = load(text).expect("a row").remove(0);
    let scheme = row.scheme.as_ref().expect("a scheme");
    let headers = [("x-a", "1")];
    let keys = scheme.keys(&[relay_schemes::Secret::new("s")]).expect("keys");
    let request = Request { method: "PUT", url: "https://h/p", headers: &headers, body: br#"{"a":{"b":"c"}}"# };
    let refused = scheme.verify(&keys, &request, 0).expect_err("not signed");
    assert_eq!(refused, Refusal::SignatureMissing);
}

#[test]
fn a_registered_url_without_a_query_takes_the_requests_own() {
    let (row, scheme) = row("twilio");
    let sample = br#"{"MessageSid":"SM1"}"#;
    let headers = [("content-type", "application/json")];
    let seen = Request { method: "POST", url: "https://hooks.example.com/in", headers: &headers, body: sample };
    let signed = scheme.sign(&keys(scheme), &seen, None, NOW).expect("signs");
    assert!(signed.url.starts_with("https://hooks.example.com/in?bodySHA256="), "{}", signed.url);
    let query = signed.url.split_once('?').expect("a query").1;
    let mut registered = material(scheme, SECRET);
    registered.public_url = Some("https://hooks.example.com/in".into());
    let registered = scheme.keys_from(&registered).expect("keys");
    let check = |query: &str, body: &[u8]| {
        let mut headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        headers.extend(signed.headers.clone());
        let url = format!("http://10.0.0.7/in?{query}");
        let request = Request { method: "POST", url: &url, headers: &headers, body };
        scheme.verify(&registered, &request, NOW).map(|_| ())
    };
    assert_eq!(check(query, sample), Ok(()), "{}", row.name);
    assert_eq!(check(query, b"{}"), Err(Refusal::BodyMismatch));
    // A hash that is not in the URL that was signed binds nothing.
    let form = sign(row, scheme);
    assert!(form.url.contains("tenant=7"));
    assert_eq!(check("bodySHA256=00", sample), Err(Refusal::SignatureMismatch));
}

proptest! {
    #[test]
    fn any_body_that_a_row_signs_it_verifies(body in prop::collection::vec(any::<u8>(), 0..500)) {
        for name in ["github", "stripe", "standard-webhooks", "slack", "box", "trello", "hubspot-v2", "workos"] {
            let (row, scheme) = row(name);
            let signed = sign_with(row, scheme, &keys(scheme), Some(&body));
            prop_assert_eq!(verify(scheme, &signed), Ok(()), "{}", name);
        }
    }

    #[test]
    fn any_bytes_in_any_header_and_body_are_refused_without_a_panic(
        value in prop::collection::vec(any::<u8>(), 0..3000),
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        for (row, scheme) in symmetric() {
            let mut signed = sign(row, scheme);
            let names = signature_headers(&signed);
            for name in &names {
                signed.set(name, &value);
            }
            if names.is_empty() && !scheme.covers_body() {
                continue; // A token in the URL, which was not touched.
            }
            signed.body.clone_from(&body);
            let refused = verify(scheme, &signed).is_err();
            prop_assert!(refused, "{}", row.name);
        }
    }
}
