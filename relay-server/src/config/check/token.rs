//! `[[token]]`: names, hashes, references and patterns.
//!
//! Invariant: a token whose secrets were read has at least one hash of a token that is long enough.

use std::collections::HashMap;
use std::sync::Arc;

use relay_program::config::{Report, Section, Typed, Wrong};
use relay_program::secret::SecretRef;
use relay_program::suggest::suggest;

use super::verify::{read_secret, secrets_of};
use super::{Context, clients};
use crate::agents::token::{MAX_SESSIONS_OF_TOKEN, MIN_TOKEN_BYTES, Pattern, Right, Token, TokenHash};
use crate::config::{keys, rows::MAX_ROWS};
use crate::endpoint::Endpoint;
use crate::quota::{MAX_EVENTS_PER_DAY, TokenQuotas};

const MAX_NAME_BYTES: usize = 63;

pub(super) fn tokens<'s, 't: 's>(
    roots: impl Iterator<Item = &'s Section<'t>>,
    context: Context<'_>,
    endpoints: &[Arc<Endpoint>],
    clients: &[Arc<str>],
    report: &'t Report<'t>,
) -> Vec<Token> {
    let rows: Vec<_> = roots.flat_map(|root| root.rows("token", "name", keys::TOKEN)).collect();
    let mut tokens: Vec<Typed<Token>> = rows.iter().filter_map(|row| token(row, context, endpoints, clients)).collect();
    let mut names = HashMap::new();
    for Typed { value: token, place } in &tokens {
        if let Some(first) = names.insert(&token.name, place) {
            let there = report.where_to_look(first, place);
            let message = format!("there is already a token called \"{}\"{there}", token.name);
            report.error(place, message, "give this one another name");
        }
    }
    unique_hashes(&tokens, report);
    if let Some(dev) = &context.flags.dev {
        let row = Section::of_flag(report, "token", "dev", "--dev");
        let token = Token {
            name: Arc::from("dev"),
            hashes: vec![dev.token.hash()],
            endpoints: vec![Pattern::new("*")],
            rights: Right::DEFAULT.to_vec(),
            max_sessions: MAX_SESSIONS_OF_TOKEN,
            client: None,
            id: Arc::from("tok_dev"),
            quotas: TokenQuotas::default(),
        };
        show(&row, &token, &[]);
        row.number("max_sessions", token.max_sessions, 1..=1_000_000);
        quotas(&row);
        tokens.push(Typed { value: token, place: row.here() });
    } else if rows.is_empty() {
        // Whoever has admin.token makes others while the relay runs.
        let help = "run `relay-server token create NAME`, with --running while the relay runs";
        report.warn(&report.missing("token"), "no token is configured, so no agent can attach", help);
    }
    tokens.into_iter().map(|token| token.value).collect()
}

fn token(
    row: &Section<'_>,
    context: Context<'_>,
    endpoints: &[Arc<Endpoint>],
    clients: &[Arc<str>],
) -> Option<Typed<Token>> {
    if !row.has("name") {
        let help = "add name = \"…\", for logs and for `token revoke`";
        row.report().error(&row.here(), "this token has no name", help);
        return None;
    }
    let name = row.read("name", token_name)?;
    let mut hashes = row.read_all("sha256", hash);
    let secrets = secrets_of(row, "secrets");
    if row.texts("sha256").is_empty() && row.texts("secrets").is_empty() {
        let help = format!("run `relay-server token create {name}`, or set secrets = [\"env:…\"]");
        row.report().error(&row.here(), "this token has neither sha256 nor secrets", help);
    }
    let rights = match row.has("rights") {
        true => row.read_all("rights", right),
        false => Right::DEFAULT.to_vec(),
    };
    let typed = Token {
        name: Arc::from(&*name),
        hashes: hashes.clone(),
        endpoints: patterns(row, endpoints),
        rights,
        max_sessions: MAX_SESSIONS_OF_TOKEN,
        client: clients::rule(row, clients),
        // The store's word on its row says which token it is.
        id: Arc::from(&*name),
        quotas: TokenQuotas::default(),
    };
    show(row, &typed, &secrets);
    let max_sessions = row.number("max_sessions", MAX_SESSIONS_OF_TOKEN, 1..=1_000_000);
    let quotas = quotas(row);
    hashes.extend(secrets.iter().filter_map(|secret| secret_hash(secret, &name, context, row.report())));
    Some(Typed { value: Token { hashes, max_sessions, quotas, ..typed }, place: row.here() })
}

fn quotas(row: &Section<'_>) -> TokenQuotas {
    TokenQuotas {
        max_endpoints: row.number("max_endpoints", TokenQuotas::default().max_endpoints, 0..=MAX_ROWS),
        max_stored: row.size_if("max_stored", 1 << 20..=1 << 50),
        max_events_per_day: row.number_if("max_events_per_day", 1..=MAX_EVENTS_PER_DAY),
    }
}

fn show(row: &Section<'_>, token: &Token, secrets: &[Typed<SecretRef>]) {
    row.show("name", &*token.name);
    row.show_all("sha256", token.hashes.iter().map(|hash| hash.shortened()));
    row.show_all("secrets", secrets.iter().map(|secret| secret.value.to_string()));
    row.show_all("endpoints", token.endpoints.iter().map(|pattern| pattern.as_str().to_owned()));
    row.show_all("rights", token.rights.iter().map(|right| right.name().to_owned()));
}

/// Checks a token's name. Also used before one is written into the file.
pub(in crate::config) fn token_name(text: &str) -> Result<String, Wrong> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("\"{text}\" is not a token name"),
        format!("use 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `.`, `_`, `-` and `@`"),
    ))
}

fn right(text: &str) -> Result<Right, Wrong> {
    Right::parse(text).ok_or_else(|| {
        let all = Right::ALL.map(Right::name).join(", ");
        Wrong::new(format!("\"{text}\" is not a right"), format!("there are {all}"))
    })
}

fn hash(text: &str) -> Result<TokenHash, Wrong> {
    // Not repeated: a token typed here by mistake would otherwise land in a log.
    TokenHash::from_hex(text).ok_or_else(|| {
        Wrong::new("this is not a SHA-256 in 64 hexadecimal digits", "run `relay-server token create NAME`")
    })
}

fn patterns(row: &Section<'_>, endpoints: &[Arc<Endpoint>]) -> Vec<Pattern> {
    let typed = row.texts("endpoints");
    if typed.is_empty() {
        let help = "set endpoints = [\"NAME\"], or [\"*\"] for all";
        row.report().error(&row.here().member("endpoints"), "this token may attach to nothing", help);
    }
    let names = || endpoints.iter().map(|endpoint| endpoint.name.as_str());
    for text in &typed {
        if !names().any(|name| Pattern::new(text.value).matches(name)) {
            let help = suggest(text.value, names()).unwrap_or_default();
            row.report().warn(&text.place, format!("\"{}\" matches no endpoint", text.value), help);
        }
    }
    typed.iter().map(|text| Pattern::new(text.value)).collect()
}

fn secret_hash(secret: &Typed<SecretRef>, name: &str, context: Context<'_>, report: &Report<'_>) -> Option<TokenHash> {
    let (reference, place) = (&secret.value, &secret.place);
    let bytes = match read_secret(secret, context, report)? {
        Ok(read) => read.bytes,
        Err(Wrong { message, help }) => {
            report.error(place, message, help);
            return None;
        }
    };
    if bytes.len() < MIN_TOKEN_BYTES {
        let message =
            format!("{reference} holds fewer than {MIN_TOKEN_BYTES} bytes, and a token that short can be guessed");
        report.error(place, message, format!("run `relay-server token create {name}`"));
        return None;
    }
    // An agent takes white space off, and a header's line ends with it.
    if !bytes.iter().all(u8::is_ascii_graphic) {
        let message =
            format!("{reference} holds a space, a line break or a byte outside ASCII, which no agent can show");
        report.error(place, message, "put the token there alone, on one line");
        return None;
    }
    Some(TokenHash::of(&bytes))
}

/// The same token under two names would make it a matter of order who came in.
fn unique_hashes(tokens: &[Typed<Token>], report: &Report<'_>) {
    let mut seen: HashMap<[u8; 32], &str> = HashMap::new();
    for Typed { value: token, place } in tokens {
        for hash in &token.hashes {
            if let Some(first) = seen.insert(hash.0, &token.name).filter(|first| **first != *token.name) {
                let message = format!("this is the same token as \"{first}\"");
                report.error(place, message, "give each name a token of its own");
            }
        }
    }
}
