//! `[[token]]`: names, hashes, references and patterns.
//!
//! Whether a referenced token is long enough is for `resolve` to say, which reads it. Invariant: a config without any
//! token is an error, so that the public port never opens without someone who may answer on it.

use std::collections::HashMap;

use relay_program::suggest::suggest;
use toml::Spanned;

use super::verify::secrets_of;
use super::{number, read, texts};
use crate::agents::token::{MAX_SESSIONS_OF_TOKEN, Pattern, Right, Token, TokenHash};
use crate::config::effective::{EndpointSpec, TokenSpec};
use crate::config::error::{Place, Report};
use crate::config::flags::Flags;
use crate::config::raw::RawToken;
use crate::config::values::Problem;

/// Longest token name, in bytes.
const MAX_NAME_BYTES: usize = 63;

pub(super) fn tokens(
    raw: &[Spanned<RawToken>],
    flags: &Flags,
    endpoints: &[EndpointSpec],
    report: &mut Report<'_>,
) -> Vec<TokenSpec> {
    let mut tokens = Vec::new();
    let mut names = HashMap::new();
    for entry in raw {
        let Some(token) = token(entry, endpoints, report) else { continue };
        if let Some(first) = names.insert(token.name.clone(), token.place.clone()) {
            report.error(
                &token.place,
                format!(
                    "there is already a token called \"{}\"{}",
                    token.name,
                    report.where_to_look(&first, &token.place)
                ),
                "give this one another name",
            );
        }
        tokens.push(token);
    }
    if let Some(dev) = &flags.dev {
        tokens.push(TokenSpec {
            name: "dev".to_owned(),
            place: Place::flag("--dev"),
            hashes: vec![dev.token.hash()],
            secrets: Vec::new(),
            endpoints: vec![Pattern::new("*")],
            rights: Right::DEFAULT.to_vec(),
            max_sessions: MAX_SESSIONS_OF_TOKEN,
        });
    } else if raw.is_empty() {
        let place = report.place("token", None);
        report.error(
            &place,
            "no token is configured, so no agent could ever attach",
            "run `relay-server token create NAME`",
        );
    }
    tokens
}

fn token(entry: &Spanned<RawToken>, endpoints: &[EndpointSpec], report: &mut Report<'_>) -> Option<TokenSpec> {
    let raw = entry.get_ref();
    let Some(name) = &raw.name else {
        let place = report.place("token", Some(entry.span()));
        report.error(&place, "this token has no name", "add name = \"…\", for logs and for `token revoke`");
        return None;
    };
    let name_place = report.place("token.name", Some(name.span()));
    let name = read(Some((name.get_ref(), name_place)), token_name, report)?;
    let key = format!("token.{name}");
    let place = report.place(&*key, Some(entry.span()));
    let hashes = texts(&raw.sha256, &format!("{key}.sha256"), hash, report);
    let secrets = secrets_of(&raw.secrets, &format!("{key}.secrets"), report);
    if raw.sha256.iter().flatten().count() + raw.secrets.iter().flatten().count() == 0 {
        let help = format!("run `relay-server token create {name}`, or set secrets = [\"env:…\"]");
        report.error(&place, "this token has neither sha256 nor secrets", help);
    }
    let patterns = patterns(raw, &key, &place, endpoints, report);
    let rights = match &raw.rights {
        None => Right::DEFAULT.to_vec(),
        Some(_) => texts(&raw.rights, &format!("{key}.rights"), right, report),
    };
    let sessions = format!("{key}.max_sessions");
    let max_sessions = number(&raw.max_sessions, &sessions, MAX_SESSIONS_OF_TOKEN, 1..=1_000_000, report);
    Some(TokenSpec { name, place, hashes, secrets, endpoints: patterns, rights, max_sessions })
}

/// Checks a token's name. Also used before one is written into the file.
pub(in crate::config) fn token_name(text: &str) -> Result<String, Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err((
        format!("\"{text}\" is not a token name"),
        format!("use 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, `.`, `_`, `-` and `@`"),
    ))
}

fn right(text: &str) -> Result<Right, Problem> {
    Right::parse(text).ok_or_else(|| {
        (format!("\"{text}\" is not a right"), format!("there are {}", Right::ALL.map(Right::name).join(", ")))
    })
}

fn hash(text: &str) -> Result<TokenHash, Problem> {
    // Not repeated: a token typed here by mistake would otherwise land in a log.
    TokenHash::from_hex(text).ok_or_else(|| {
        ("this is not a SHA-256 in 64 hexadecimal digits".to_owned(), "run `relay-server token create NAME`".to_owned())
    })
}

fn patterns(
    raw: &RawToken,
    key: &str,
    place: &Place,
    endpoints: &[EndpointSpec],
    report: &mut Report<'_>,
) -> Vec<Pattern> {
    let listed = raw.endpoints.as_deref().unwrap_or_default();
    if listed.is_empty() {
        report.error(
            &place.member("endpoints"),
            "this token may attach to nothing",
            "set endpoints = [\"NAME\"], or [\"*\"] for all",
        );
    }
    let mut patterns = Vec::new();
    for text in listed {
        let pattern = Pattern::new(text.get_ref());
        if !endpoints.iter().any(|endpoint| pattern.matches(endpoint.name.as_str())) {
            let place = report.place(format!("{key}.endpoints"), Some(text.span()));
            let names = endpoints.iter().map(|endpoint| endpoint.name.as_str());
            let help = suggest(text.get_ref(), names).unwrap_or_default();
            report.warn(&place, format!("\"{}\" matches no endpoint", text.get_ref()), help);
        }
        patterns.push(pattern);
    }
    patterns
}

/// The same token under two names would make it a matter of order who came in.
pub(in crate::config) fn unique_hashes<'a>(
    tokens: impl Iterator<Item = (&'a Place, &'a Token)>,
    report: &mut Report<'_>,
) {
    let mut seen: HashMap<[u8; 32], &str> = HashMap::new();
    for (place, token) in tokens {
        for hash in &token.hashes {
            if let Some(first) = seen.insert(hash.0, &token.name).filter(|first| **first != *token.name) {
                report.error(
                    place,
                    format!("this is the same token as \"{first}\""),
                    "give each name a token of its own",
                );
            }
        }
    }
}
