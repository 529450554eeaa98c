//! The page of all providers says what the rows say. `RELAY_WRITE_DOCS=1` writes it anew.

use std::{fmt::Write as _, path::Path};

use relay_schemes::{Provider, providers};

#[test]
fn the_page_of_providers_is_written_from_the_rows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers.md");
    let page = page();
    if std::env::var_os("RELAY_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, &page).expect("written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/providers.md");
    assert!(written == page, "docs/providers.md is not what the rows say; run this test with RELAY_WRITE_DOCS=1");
}

/// The text of `docs/providers.md`.
fn page() -> String {
    let mut out = String::from(HEAD);
    for row in providers() {
        let scheme = row.scheme.as_ref();
        let timeout = row.timeout.map_or_else(|| "-".to_owned(), |it| format!("{} s", it.as_secs()));
        let retries = match (row.retries, row.last_retry) {
            (true, Some(last)) => format!("the same bytes for {} h", last.as_secs() / 3600),
            (true, None) => "yes".to_owned(),
            (false, _) => "no".to_owned(),
        };
        let mode = if row.interactive { " (answer is the product)" } else { "" };
        let _ = writeln!(
            out,
            "| [{}]({}) | `{}` | {} | {} | {} | {timeout}{mode} | {retries} |",
            row.title,
            row.docs,
            row.name,
            cell(&row.setup),
            scheme.map_or("nothing".to_owned(), |scheme| scheme.in_words()),
            covers(row),
        );
    }
    out.push_str(TAIL);
    for row in providers().iter().filter(|row| !row.handshakes.is_empty()) {
        for handshake in &row.handshakes {
            let needs = match (handshake.is_signed(), handshake.needs_permission()) {
                (true, _) => "nothing: it is signed",
                (_, true) => "`verify_token`, or `allow_unsigned_challenge = true`",
                _ => "nothing: the answer says nothing",
            };
            let needs =
                if handshake.confirms() { "nothing: it is signed; `confirm = true` to call the URL" } else { needs };
            let _ = writeln!(out, "| `{}` | {} | {needs} |", row.name, handshake.name);
        }
    }
    out
}

const HEAD: &str = "\
# Providers

<!-- Written from schemes/src/providers.toml by `cargo test -p relay-schemes --test docs`; edit the rows. -->

What to paste where, for every provider that has a row. `relay-server provider show NAME` prints a row; a
scheme of your own is the same row in the config.

*Checked by* says what proves a request. *Body* says whether a changed body is noticed; where it is not, use a
path that nobody can guess as well. *Waits* is how long the sender waits for an answer, *retries* whether it
sends again by itself, as far as it says so.

| provider | name | what to paste where | checked by | body | waits | retries |
|---|---|---|---|---|---|---|
";

const TAIL: &str = "
## Challenges

The relay answers these itself, with or without an agent. What a challenge needs that proves nothing:

| provider | challenge | needs |
|---|---|---|
";

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn covers(row: &Provider) -> &'static str {
    match &row.scheme {
        Some(scheme) if scheme.protects_body() => "covered",
        Some(_) if row.special.is_some() => "in part",
        _ => "not covered",
    }
}
