//! Rows of data: what a provider's table says, read once and checked.

use std::{sync::LazyLock, time::Duration};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    key::{Algorithm, Keys, SecretError, SecretForm},
    secret::Secret,
};

/// Where something stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// In a header of this lower-case name.
    Header(String),
    /// In the JSON body, at this pointer (RFC 6901).
    Json(String),
}

/// One provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name by which configs call it.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Its own page about signatures.
    pub docs: String,
    /// How it signs; `None` for the provider `none`.
    pub scheme: Option<Scheme>,
    /// Where the event's id stands.
    pub event_id: Option<Locator>,
    /// Where the event's type stands.
    pub event_type: Option<Locator>,
    /// How long it waits for an answer, where it says so.
    pub timeout: Option<Duration>,
    /// Whether it sends again by itself.
    pub retries: bool,
    /// Whether the answer is the product, as with chat commands.
    pub interactive: bool,
}

/// How a provider signs.
#[derive(Clone, Debug)]
pub struct Scheme {
    pub(crate) algorithm: Algorithm,
    pub(crate) secret: SecretForm,
    pub(crate) template: Vec<Piece>,
    pub(crate) header: String,
    pub(crate) encoding: Encoding,
    pub(crate) layout: Layout,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) id_header: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Body,
    Timestamp,
    Id,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Hex,
    Base64,
    Base64Url,
}

/// How the signature header wraps the signature.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// A prefix and one signature.
    Single { prefix: String },
    /// Items such as `t=…,v1=…`; those named `field` are signatures.
    List { items: char, pair: char, field: String },
}

#[derive(Clone, Debug)]
pub(crate) struct Timestamp {
    pub(crate) place: TimestampPlace,
    pub(crate) past_s: i64,
    pub(crate) future_s: i64,
}

#[derive(Clone, Debug)]
pub(crate) enum TimestampPlace {
    Header(String),
    /// An item of the signature header.
    Field(String),
}

/// A row that cannot be used, with the provider, the key and the way out.
#[derive(Debug, Error)]
pub enum RowError {
    /// Not TOML, or keys that are not known.
    #[error("the provider table cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that makes no sense where it stands.
    #[error("provider {provider}: {key}: {problem}")]
    Value {
        /// The provider's name.
        provider: String,
        /// The key in its row.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    provider: Vec<RawProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    name: String,
    title: String,
    docs: String,
    scheme: Option<RawScheme>,
    event_id: Option<String>,
    event_type: Option<String>,
    timeout_s: Option<u32>,
    retries: bool,
    #[serde(default)]
    interactive: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScheme {
    algorithm: Algorithm,
    secret: SecretForm,
    template: String,
    signature: RawSignature,
    timestamp: Option<RawTimestamp>,
    id: Option<RawId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignature {
    header: String,
    encoding: Encoding,
    prefix: Option<String>,
    item_separator: Option<char>,
    field_separator: Option<char>,
    field: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTimestamp {
    header: Option<String>,
    field: Option<String>,
    past_s: u32,
    future_s: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawId {
    header: String,
}

static PROVIDERS: LazyLock<Vec<Provider>> =
    LazyLock::new(|| load(include_str!("providers.toml")).expect("a test loads the embedded table"));

/// Every provider of the embedded table.
#[must_use]
pub fn providers() -> &'static [Provider] {
    &PROVIDERS
}

/// The provider of this name.
#[must_use]
pub fn provider(name: &str) -> Option<&'static Provider> {
    providers().iter().find(|provider| provider.name == name)
}

/// Reads a table of providers.
///
/// # Errors
/// [`RowError`] for the first row that cannot be used.
pub fn load(table: &str) -> Result<Vec<Provider>, RowError> {
    let table: RawTable = toml::from_str(table)?;
    table.provider.into_iter().map(check).collect()
}

fn check(raw: RawProvider) -> Result<Provider, RowError> {
    let wrong = |key, problem: &str| RowError::Value { provider: raw.name.clone(), key, problem: problem.to_owned() };
    let locator = |key, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => match text.split_once(':') {
            Some(("header", name)) => Ok(Some(Locator::Header(name.to_owned()))),
            Some(("json", pointer)) if pointer.starts_with('/') => Ok(Some(Locator::Json(pointer.to_owned()))),
            _ => Err(wrong(key, "expected header:NAME or json:/POINTER")),
        },
    };
    let (event_id, event_type) = (locator("event_id", &raw.event_id)?, locator("event_type", &raw.event_type)?);
    let scheme = match &raw.scheme {
        None => None,
        Some(scheme) => Some(check_scheme(scheme, wrong)?),
    };
    Ok(Provider {
        name: raw.name,
        title: raw.title,
        docs: raw.docs,
        scheme,
        event_id,
        event_type,
        timeout: raw.timeout_s.map(|seconds| Duration::from_secs(seconds.into())),
        retries: raw.retries,
        interactive: raw.interactive,
    })
}

fn check_scheme(raw: &RawScheme, wrong: impl Fn(&'static str, &str) -> RowError) -> Result<Scheme, RowError> {
    let signature = &raw.signature;
    let layout = match (signature.item_separator, signature.field_separator, &signature.field, &signature.prefix) {
        (Some(items), Some(pair), Some(field), None) => Layout::List { items, pair, field: field.clone() },
        (None, None, None, prefix) => Layout::Single { prefix: prefix.clone().unwrap_or_default() },
        _ => {
            return Err(wrong(
                "signature",
                "give either a prefix, or item_separator, field_separator and field together",
            ));
        }
    };
    let timestamp = match &raw.timestamp {
        None => None,
        Some(timestamp) => {
            let place = match (&timestamp.header, &timestamp.field, &layout) {
                (Some(header), None, _) => TimestampPlace::Header(header.clone()),
                (None, Some(field), Layout::List { .. }) => TimestampPlace::Field(field.clone()),
                _ => return Err(wrong("timestamp", "give a header, or a field of a signature that is a list")),
            };
            Some(Timestamp { place, past_s: timestamp.past_s.into(), future_s: timestamp.future_s.into() })
        }
    };
    let id_header = raw.id.as_ref().map(|id| id.header.clone());
    let template = parse_template(&raw.template).map_err(|problem| wrong("template", &problem))?;
    if template.contains(&Piece::Timestamp) != timestamp.is_some() {
        return Err(wrong("template", "{timestamp} and the key timestamp go together"));
    }
    if template.contains(&Piece::Id) != id_header.is_some() {
        return Err(wrong("template", "{id} and the key id go together"));
    }
    let names = [Some(&signature.header), id_header.as_ref()];
    if names.into_iter().flatten().any(|name| name.chars().any(|letter| letter.is_ascii_uppercase())) {
        return Err(wrong("signature", "header names are written in lower case"));
    }
    Ok(Scheme {
        algorithm: raw.algorithm,
        secret: raw.secret,
        template,
        header: signature.header.clone(),
        encoding: signature.encoding,
        layout,
        timestamp,
        id_header,
    })
}

fn parse_template(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        if before.len() == rest.len() {
            break;
        }
        let (name, after) = after.split_once('}').ok_or("a { without its }")?;
        pieces.push(match name {
            "body" => Piece::Body,
            "timestamp" => Piece::Timestamp,
            "id" => Piece::Id,
            _ => return Err(format!("{{{name}}} is not known; there are {{body}}, {{timestamp}} and {{id}}")),
        });
        rest = after;
    }
    if pieces.is_empty() { Err("a template that signs nothing".to_owned()) } else { Ok(pieces) }
}

impl Scheme {
    /// The keys that some secrets stand for, newest first.
    ///
    /// # Errors
    /// [`SecretError`] for the first secret that is not in the provider's form.
    pub fn keys(&self, secrets: &[Secret]) -> Result<Keys, SecretError> {
        Keys::new(self.algorithm, self.secret, secrets)
    }

    /// Whether the whole body must be there before the signature can be checked.
    #[must_use]
    pub fn covers_body(&self) -> bool {
        self.template.contains(&Piece::Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_table_loads() {
        let names: Vec<_> = providers().iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(names, ["none", "github", "stripe", "standard-webhooks"]);
        assert!(provider("none").expect("a row").scheme.is_none());
        assert!(provider("github").expect("a row").scheme.as_ref().expect("signed").covers_body());
    }

    fn problem(change: (&str, &str)) -> String {
        let row = r#"
            [[provider]]
            name = "mine"
            title = "Mine"
            docs = ""
            retries = true
            event_id = "header:x-id"
            scheme.algorithm = "hmac-sha256"
            scheme.secret = "text"
            scheme.template = "{body}"
            scheme.signature = { header = "x-sig", encoding = "hex" }
        "#;
        assert_eq!(load(row).expect("the row is right").len(), 1);
        load(&row.replace(change.0, change.1)).expect_err("the row is wrong").to_string()
    }

    #[test]
    fn a_wrong_row_names_the_provider_the_key_and_the_way_out() {
        assert_eq!(
            problem(("{body}", "{boddy}")),
            "provider mine: template: {boddy} is not known; there are {body}, {timestamp} and {id}"
        );
        assert_eq!(
            problem(("{body}", "{timestamp}{body}")),
            "provider mine: template: {timestamp} and the key timestamp go together"
        );
        assert_eq!(problem(("header:x-id", "x-id")), "provider mine: event_id: expected header:NAME or json:/POINTER");
        assert!(problem(("retries", "retry")).contains("unknown field `retry`"));
        assert!(problem(("x-sig", "X-Sig")).ends_with("header names are written in lower case"));
    }
}
