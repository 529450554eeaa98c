//! Rows that are right, and rows that say what is wrong with them.

use super::*;

#[test]
fn the_embedded_table_loads() {
    let providers = load(TABLE).expect("the table is right");
    assert!(providers.len() > 60, "only {}", providers.len());
    assert!(provider("none").expect("a row").scheme.is_none());
    assert!(provider("github").expect("a row").scheme.as_ref().expect("signed").covers_body());
    assert!(!provider("gitlab-token").expect("a row").scheme.as_ref().expect("signed").covers_body());
    for provider in providers {
        assert!(!provider.title.is_empty() && !provider.setup.is_empty(), "{} has no text", provider.name);
        assert!(provider.docs.starts_with("https://"), "{} has no page", provider.name);
    }
}

fn problem(change: (&str, &str)) -> String {
    let row = r#"
        [[provider]]
        name = "mine"
        title = "Mine"
        retries = true
        event_id = "header:x-id"
        scheme.algorithm = "hmac-sha256"
        scheme.secret = "text"
        scheme.template = "{body}"
        scheme.signature = { at = "header:X-Sig", encoding = "hex" }
    "#;
    assert_eq!(load(row).expect("the row is right").len(), 1);
    load(&row.replace(change.0, change.1)).expect_err("the row is wrong").to_string()
}

#[test]
fn a_wrong_row_names_the_provider_the_key_and_the_way_out() {
    let unknown = problem(("{body}", "{boddy}"));
    assert!(unknown.starts_with("provider mine: template: {boddy} is not known; there are {body}, "), "{unknown}");
    let cases = [
        (("{body}", "{timestamp}{body}"), "template: {timestamp} and the key timestamp go together"),
        (("{body}", "{secret}{body}"), "template: {secret} and a plain hash go together"),
        (("{body}", ""), "template: a template that signs nothing"),
        (("{body}", "{body"), "template: a { without its }"),
        (("header:x-id", "x-id"), "event_id: expected header:NAME or json:/POINTER"),
        (("retries", "retry"), "unknown field `retry`"),
        (("header:X-Sig", "header:x sig"), "signature: \"header:x sig\" is no place"),
        (("encoding", "item_separator = \"\", encoding"), "signature: give either a prefix, or item_separator"),
        (("\"text\"", "\"spki\""), "secret: public keys and algorithms with public keys go together"),
        (("retries", "like = \"nobody\"\nretries"), "like: there is no provider nobody"),
        (("retries", "like = \"mine\"\nretries"), "like: there is no provider mine"),
        (("\"mine\"", "\"Mine\""), "name: a name has lower-case letters"),
    ];
    for (change, expected) in cases {
        let seen = problem(change);
        assert!(seen.contains(expected), "{change:?}: {seen}");
    }
}

#[test]
fn a_row_that_signs_what_a_stranger_chooses_says_what_a_challenge_looks_like() {
    let row = |algorithm: &str, template: &str, proof: &str, mac: &str| {
        let template = if template.is_empty() { String::new() } else { format!("scheme.template = \"{template}\"\n") };
        let token = if proof == "token" { "token = \"query:t\"\n" } else { "" };
        let text = format!(
            "[[provider]]\nname = \"mine\"\ntitle = \"Mine\"\nscheme.algorithm = \"{algorithm}\"\n{template}\
             scheme.signature = {{ at = \"header:x-sig\", encoding = \"hex\" }}\n\
             [[provider.handshake]]\nname = \"hello\"\nproof = \"{proof}\"\n{token}text = \"{{mac}}\"\n\
             mac = {{ encoding = \"hex\", {mac} }}\n"
        );
        load(&text).map(|_| ()).map_err(|error| error.to_string())
    };
    const SHAPE: &str = "template = \"{query:c}\", shape = \"[a-z0-9]{8,64}\"";
    const SIGNED: &str = "template = \"{json:/plain}\"";
    for (algorithm, template, proof, mac) in [
        ("hmac-sha256", "{body}", "switch", SHAPE),
        ("hmac-sha256", "{body}", "signature", SIGNED),
        ("hmac-sha1", "{body}", "none", "plain = true, template = \"{query:c}\""),
        ("jwt-hs256", "", "token", SHAPE),
    ] {
        assert_eq!(row(algorithm, template, proof, mac), Ok(()), "{algorithm} {template} {proof} {mac}");
    }
    for proof in ["switch", "token", "none"] {
        let error = row("hmac-sha256", "{body}", proof, "template = \"{query:c}\"").expect_err("no shape");
        assert!(error.contains("handshake: whoever asks chooses the text"), "{proof}: {error}");
    }
    for (algorithm, template, proof, mac, expected) in [
        // Signed, but not what the answer signs.
        ("hmac-sha256", "{body}", "signature", "template = \"{query:c}\"", "whoever asks chooses"),
        ("hmac-sha256", "{header:x-time}", "signature", SIGNED, "whoever asks chooses"),
        ("hmac-sha256", "{url}{form_sorted}", "signature", SIGNED, "whoever asks chooses"),
        ("hmac-sha256", "{body}", "switch", "template = \"{query:c}\", shape = \"[ -~]{1,9}\"", "is no shape"),
        ("hmac-sha256", "{body}", "switch", "template = \"{query:c}\", shape = \"[a-z{]{1,9}\"", "the shape holds '{'"),
        ("hmac-sha256", "{body}", "switch", "template = \"{query:c}\", shape = \"[a-z&]{1,9}\"", "the shape holds '&'"),
        ("hmac-sha256", "{body}", "switch", "template = \"{query:c}\", shape = \"[a-z]{0,9}\"", "an empty text"),
        ("jwt-hs256", "", "switch", "template = \"{query:c}\", shape = \"[a-z.]{1,9}\"", "every token"),
        ("sha256", "{secret}{body}", "switch", SHAPE, "needs a scheme that signs by HMAC"),
        ("token", "", "switch", SHAPE, "needs a scheme that signs by HMAC"),
        ("hmac-sha256", "{body}", "switch", "template = \"{secret}{query:c}\"", "{secret} and {mac} are no parts"),
    ] {
        let error = row(algorithm, template, proof, mac).expect_err("refused");
        assert!(error.contains(expected), "{algorithm} {proof} {mac}: {error}");
    }
}
