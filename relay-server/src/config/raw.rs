//! `relay.toml` as it was typed: which keys there are, and of which shape. First of the two parses.
//!
//! No value is judged here and no default is filled in; `check` does both. Every scalar keeps its span, so that a
//! later check can name the line. Invariant: an unknown key, a wrong shape or bad TOML is an error that names file,
//! line and key, and that never repeats a quoted value, which could be a secret in the wrong place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use relay_program::suggest::suggest;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, line_of};

/// A text that may be missing.
pub(super) type Text = Option<Spanned<String>>;
/// A whole number that may be missing.
pub(super) type Number = Option<Spanned<i64>>;
/// A yes or no that may be missing.
pub(super) type Flag = Option<Spanned<bool>>;
/// A list of texts that may be missing.
pub(super) type Texts = Option<Vec<Spanned<String>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) version: Number,
    /// Further files, with rows only.
    pub(super) include: Texts,
    #[serde(default)]
    pub(super) server: RawServer,
    pub(super) tls: Option<Spanned<RawTls>>,
    #[serde(default)]
    pub(super) store: RawStore,
    #[serde(default)]
    pub(super) limits: RawLimits,
    /// Rows as in the embedded table; read by the crate of schemes.
    #[serde(default)]
    pub(super) provider: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    pub(super) endpoint: Vec<Spanned<RawEndpoint>>,
    #[serde(default)]
    pub(super) token: Vec<Spanned<RawToken>>,
}

impl Raw {
    pub(super) fn take_rows(&mut self) -> RawRows {
        RawRows {
            provider: std::mem::take(&mut self.provider),
            endpoint: std::mem::take(&mut self.endpoint),
            token: std::mem::take(&mut self.token),
        }
    }
}

/// What an included file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRows {
    #[serde(default)]
    pub(super) provider: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    pub(super) endpoint: Vec<Spanned<RawEndpoint>>,
    #[serde(default)]
    pub(super) token: Vec<Spanned<RawToken>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) listen: Text,
    pub(super) admin: Text,
    pub(super) admin_hosts: Texts,
    pub(super) public_url: Text,
    pub(super) state_dir: Text,
    pub(super) trusted_proxies: Texts,
    pub(super) drain_timeout: Text,
    pub(super) workers: Number,
    pub(super) max_connections: Number,
    pub(super) max_connections_per_address: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) cert: Text,
    pub(super) key: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    pub(super) url: Text,
    pub(super) max_size: Text,
    pub(super) retention: Text,
    pub(super) pending_retention: Text,
}

/// `503`, or `"5xx"` for a class of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawStatus {
    One(i64),
    Class(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    pub(super) schedule: Texts,
    pub(super) first: Text,
    pub(super) factor: Number,
    pub(super) longest: Text,
    pub(super) attempts: Number,
    pub(super) retry_on: Option<Vec<Spanned<RawStatus>>>,
    pub(super) give_up_on: Option<Vec<Spanned<RawStatus>>>,
}

/// `order = "fifo"` or `order = { key = "…" }`
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawOrder {
    Word(String),
    Key { key: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAck {
    pub(super) status: Number,
    pub(super) body: Text,
    pub(super) content_type: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) max_body: Text,
    pub(super) max_head: Text,
    pub(super) max_in_flight_per_agent: Number,
    pub(super) max_sessions: Number,
    pub(super) body_budget: Text,
    pub(super) refused_budget: Text,
    pub(super) header_timeout: Text,
    pub(super) body_idle_timeout: Text,
    pub(super) body_timeout: Text,
    pub(super) idle_timeout: Text,
    pub(super) upgrade_idle_timeout: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndpoint {
    pub(super) name: Text,
    pub(super) mode: Text,
    pub(super) verify: Option<Spanned<RawVerify>>,
    pub(super) deadline: Text,
    pub(super) idle_timeout: Text,
    pub(super) max_body: Text,
    pub(super) max_size: Text,
    pub(super) hosts: Texts,
    pub(super) allow: Texts,
    pub(super) replay: Text,
    pub(super) wait_for_agent: Text,
    pub(super) attach: Text,
    pub(super) upgrades: Texts,
    pub(super) rate: Text,
    pub(super) concurrency: Number,
    pub(super) attempt_timeout: Text,
    pub(super) agent_grace: Text,
    pub(super) on_failure: Text,
    pub(super) methods: Texts,
    pub(super) dedup: Text,
    pub(super) dedup_window: Text,
    pub(super) dedup_key: Text,
    pub(super) order: Option<Spanned<RawOrder>>,
    pub(super) resign: Text,
    #[serde(default)]
    pub(super) ack: RawAck,
    #[serde(default)]
    pub(super) retry: RawRetry,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    pub(super) name: Text,
    pub(super) sha256: Texts,
    pub(super) secrets: Texts,
    pub(super) endpoints: Texts,
    pub(super) rights: Texts,
    pub(super) max_sessions: Number,
}

/// `verify = "none"` or `verify = { provider = "…", secrets = […] }`.
#[derive(Debug)]
pub(super) enum RawVerify {
    Word(String),
    Signed(Box<RawSigned>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSigned {
    pub(super) provider: Text,
    pub(super) secrets: Texts,
    pub(super) enforce: Flag,
    pub(super) tolerance: Text,
    pub(super) public_url: Text,
    pub(super) settings: Option<BTreeMap<String, OneOrMore>>,
    pub(super) jwks: Text,
    pub(super) named_keys: Option<BTreeMap<String, Spanned<String>>>,
    pub(super) verify_token: Text,
    pub(super) allow_unsigned_challenge: Flag,
    pub(super) confirm: Flag,
}

/// A text, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::More(texts) => texts.clone(),
        }
    }
}

// By hand, since an untagged enum would answer every mistake with "data did not match any variant".
impl<'de> Deserialize<'de> for RawVerify {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawVerify;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""none" or { provider = "…", secrets = ["…"] }"#)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<RawVerify, E> {
                Ok(RawVerify::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawVerify, A::Error> {
                RawSigned::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(RawVerify::Signed)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads the text of a config file. The first mistake ends it: what follows could not be trusted to be a new one.
pub(super) fn parse(file: &Path, text: &str) -> Result<Raw, ConfigError> {
    parse_as(Some(file), text)
}

/// Reads a text, of a file or of rows from elsewhere, which have no lines that anybody could look up.
pub(super) fn parse_as<T: DeserializeOwned>(file: Option<&Path>, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map(|span| span.start);
        let (message, help) = explain(error.message());
        ConfigError {
            file: file.map(Path::to_owned),
            line: at.map(|at| line_of(text, at)).filter(|_| file.is_some()),
            key: at.map(|at| key_at(text, at)).unwrap_or_default(),
            message,
            help,
        }
    })
}

/// Puts the parser's words into ours: a suggestion for an unknown key, a hint for a bare number, no quoted values.
fn explain(message: &str) -> (String, Option<String>) {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut names = rest.split('`').step_by(2);
        let typed = names.next().unwrap_or_default();
        let known: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        let help = suggest(typed, known.iter().copied()).unwrap_or_else(|| format!("known here: {}", known.join(", ")));
        return (format!("unknown key \"{typed}\""), Some(help));
    }
    let message = message.trim_end().lines().collect::<Vec<_>>().join(", ");
    if message.starts_with("invalid type: string") {
        let expected = message.rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
        let help = expected.contains("sequence").then(|| "write a list, [\"…\"]".to_owned());
        let expected = if help.is_some() { "a list" } else { expected };
        return (format!("a text stands where {expected} is expected"), help);
    }
    let bare = message.starts_with("invalid type: integer") || message.starts_with("invalid type: floating");
    let help =
        bare.then(|| "write it in quotes, with a unit where it is a time or a size (\"30s\", \"25MiB\")".to_owned());
    (message, help)
}

/// The path of the innermost key whose text, or whose value's text, covers the byte at `offset`.
fn key_at(text: &str, offset: usize) -> String {
    let Ok(root) = DeTable::parse(text) else { return String::new() };
    let mut path = Vec::new();
    descend(root.get_ref(), offset, &mut path);
    path.join(".")
}

fn descend(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) {
    for (key, value) in table {
        let name = key.get_ref();
        match value.get_ref() {
            DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_table()) && !items.is_empty() => {
                let Some(item) =
                    items.iter().filter_map(|item| item.get_ref().as_table()).find(|item| covers(item, offset))
                else {
                    continue;
                };
                path.push(name.to_string());
                path.extend(item.get("name").and_then(|value| value.get_ref().as_str()).map(str::to_owned));
                return descend(item, offset, path);
            }
            DeValue::Table(inner) if covers(inner, offset) => {
                path.push(name.to_string());
                return descend(inner, offset, path);
            }
            _ if key.span().contains(&offset) || value.span().contains(&offset) => return path.push(name.to_string()),
            _ => {}
        }
    }
}

/// Whether something in this table stands at `offset`. The table's own span is only its header.
fn covers(table: &DeTable<'_>, offset: usize) -> bool {
    table.iter().any(|(key, value)| {
        key.span().contains(&offset)
            || value.span().contains(&offset)
            || match value.get_ref() {
                DeValue::Table(inner) => covers(inner, offset),
                DeValue::Array(items) => {
                    items.iter().filter_map(|item| item.get_ref().as_table()).any(|item| covers(item, offset))
                }
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        parse(Path::new("relay.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_named_with_their_line_and_a_suggestion() {
        assert_eq!(
            wrong("version = 1\n[server]\nlisen = \"x\"\n"),
            "relay.toml:3: server.lisen: unknown key \"lisen\"; did you mean \"listen\"?"
        );
        assert_eq!(
            wrong("version = 1\n\n[[endpoint]]\nname = \"github\"\nverfy = \"none\"\n"),
            "relay.toml:5: endpoint.github.verfy: unknown key \"verfy\"; did you mean \"verify\"?"
        );
        assert_eq!(
            wrong("[[endpoint]]\nname = \"a\"\nverify = { provider = \"x\", secret = [] }\n"),
            "relay.toml:3: endpoint.a.verify.secret: unknown key \"secret\"; did you mean \"secrets\"?"
        );
        assert_eq!(
            wrong("[tls]\nacme = \"x\"\n"),
            "relay.toml:2: tls.acme: unknown key \"acme\"; known here: cert, key"
        );
        assert_eq!(wrong("[serer]\n"), "relay.toml:1: serer: unknown key \"serer\"; did you mean \"server\"?");
    }

    #[test]
    fn wrong_shapes_are_explained_and_values_are_not_repeated() {
        assert_eq!(
            wrong("[[endpoint]]\nname = \"a\"\ndeadline = 30\n"),
            "relay.toml:3: endpoint.a.deadline: invalid type: integer `30`, expected a string; \
             write it in quotes, with a unit where it is a time or a size (\"30s\", \"25MiB\")"
        );
        let leak = wrong("[[endpoint]]\nname = \"a\"\nverify = { provider = \"x\", secrets = \"hunter2\" }\n");
        assert_eq!(
            leak,
            "relay.toml:3: endpoint.a.verify.secrets: a text stands where a list is expected; write a list, [\"…\"]"
        );
        assert!(!wrong("[[token]]\nname = \"a\"\nsecrets = \"hunter2\"\n").contains("hunter2"));
        assert!(!wrong("[[token]]\nname = \"a\"\nsecrets = \"hunter2\n").contains("hunter2"));
        assert!(!wrong("[server]\nworkers = \"hunter2\"\n").contains("hunter2"));
    }

    #[test]
    fn syntax_errors_and_repeated_keys_name_the_line() {
        assert!(wrong("version = 1\nlisten = \n").starts_with("relay.toml:2: "));
        let twice = wrong("version = 1\nversion = 1\n");
        assert!(twice.starts_with("relay.toml:2: ") && twice.contains("duplicate key"), "{twice}");
    }

    #[test]
    fn a_whole_file_keeps_its_spans() {
        let text = "version = 1\n[[endpoint]]\nname = \"a\"\nverify = \"none\"\n[[token]]\nname = \"t\"\n";
        let raw = parse(Path::new("relay.toml"), text).unwrap();
        let endpoint = raw.endpoint[0].get_ref();
        assert_eq!(line_of(text, raw.endpoint[0].span().start), 2);
        assert_eq!(line_of(text, endpoint.name.as_ref().unwrap().span().start), 3);
        assert!(matches!(endpoint.verify.as_ref().unwrap().get_ref(), RawVerify::Word(word) if word == "none"));
        assert_eq!(line_of(text, raw.token[0].span().start), 5);
    }
}
