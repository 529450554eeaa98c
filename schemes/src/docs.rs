//! The page of all providers, written from the rows.

use std::fmt::Write as _;

use crate::{Provider, Scheme, key::Algorithm, providers};

/// The text of `docs/providers.md`.
#[must_use]
pub fn page() -> String {
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

impl Scheme {
    /// What proves a request, in a few words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let what = match self.algorithm {
            Algorithm::HmacSha1 => "HMAC-SHA1",
            Algorithm::HmacSha256 => "HMAC-SHA256",
            Algorithm::HmacSha384 => "HMAC-SHA384",
            Algorithm::HmacSha512 => "HMAC-SHA512",
            Algorithm::Sha1 => "SHA-1 with the secret",
            Algorithm::Sha256 => "SHA-256 with the secret",
            Algorithm::Sha512 => "SHA-512 with the secret",
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP256Sha256Raw => "ECDSA P-256",
            Algorithm::EcdsaP256Sha1 => "ECDSA P-256 (SHA-1)",
            Algorithm::RsaSha1 => "RSA (SHA-1)",
            Algorithm::RsaSha256 => "RSA",
            Algorithm::Token => "a token",
            Algorithm::Basic => "user and password",
            Algorithm::JwtHs256 => "JWT (HS256)",
            Algorithm::JwtRs256 => "JWT (RS256)",
            Algorithm::JwtEs256 => "JWT (ES256)",
        };
        let place = crate::explain::place_of(self);
        let place = place.strip_prefix("the ").unwrap_or(&place);
        let age = self.tolerance_s().map_or(String::new(), |(past, _)| format!(", at most {past} s old"));
        let url = if self.covers_url() { ", the URL too" } else { "" };
        format!("{what} in {}{age}{url}", place.replacen(' ', " `", 1) + "`")
    }
}
