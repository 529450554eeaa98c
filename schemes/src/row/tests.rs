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
