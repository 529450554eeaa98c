//! Rows of data: the embedded table of providers, and the same rows in a user's own file.
//!
//! `raw` is what may be written, `check` turns it into what can be used and says what is wrong.

mod check;
pub(crate) mod raw;

use std::{sync::LazyLock, time::Duration};

use thiserror::Error;

use crate::{
    handshake::Handshake,
    key::{Keys, Material, SecretError},
    locate::{Locator, Scene},
    request::Request,
    scheme::Scheme,
};

#[derive(Clone, Debug)]
pub struct Provider {
    pub name: String,
    pub aliases: Vec<String>,
    pub title: String,
    pub docs: String,
    /// What to paste where: where its settings stand and what the secret is.
    pub setup: String,
    /// How it signs; `None` where it does not.
    pub scheme: Option<Scheme>,
    pub event_id: Option<Locator>,
    pub event_type: Option<Locator>,
    /// How long it waits for an answer, where it says so.
    pub timeout: Option<Duration>,
    pub retries: bool,
    /// How old the same signed bytes may be when it sends them for the last time, where that is older than its scheme
    /// allows: for who knows whether they came before.
    pub last_retry: Option<Duration>,
    /// Whether the answer is the product, as with chat commands.
    pub interactive: bool,
    /// The largest body that it sends, in bytes, where it says so.
    pub max_body: Option<u64>,
    /// The answer that it insists on, where 200 with an empty body is not enough.
    pub ack: Option<Ack>,
    pub handshakes: Vec<Handshake>,
    /// The name of its scheme, if that is one of a kind: files of vectors have the name and no description.
    pub special: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub status: u16,
    pub content_type: Option<String>,
    pub body: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventMeta {
    /// The provider's id for it, at most 256 bytes; the same when it is sent again.
    pub id: Option<String>,
    pub kind: Option<String>,
}

/// A row that cannot be used, with the provider, the key and the way out.
#[derive(Debug, Error)]
pub enum RowError {
    #[error("the provider table cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that makes no sense where it stands.
    #[error("provider {provider}: {key}: {problem}")]
    Value { provider: String, key: &'static str, problem: String },
}

pub const TABLE: &str = include_str!("../providers.toml");

pub fn providers() -> &'static [Provider] {
    static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(|| load(TABLE).expect("a test loads the embedded table"));
    &PROVIDERS
}

/// A provider of the embedded table, by its name or another that it goes by.
pub fn provider(name: &str) -> Option<&'static Provider> {
    let all = providers();
    let named = all.iter().find(|provider| provider.name == name);
    named.or_else(|| all.iter().find(|provider| provider.aliases.iter().any(|alias| alias == name)))
}

/// Reads a table of providers in TOML: one `[[provider]]` a row. A row may be `like` another of the
/// same table or of the embedded one.
pub fn load(text: &str) -> Result<Vec<Provider>, RowError> {
    check::table(toml::from_str(text)?)
}

/// Reads a table of one row, in JSON.
#[cfg(feature = "vectors")]
pub(crate) fn one(table: serde_json::Value) -> Result<Provider, String> {
    let raw = serde_json::from_value(table).map_err(|error| error.to_string())?;
    check::table(raw).map_err(|error| error.to_string())?.pop().ok_or_else(|| "there is no row".to_owned())
}

impl Provider {
    /// What a request says about its event. Never fails: what cannot be read is not there.
    pub fn event(&self, request: &Request<'_>) -> EventMeta {
        let scene = Scene::new(request, None).json_in(self.json_part());
        let read = |locator: &Option<Locator>, first| locator.as_ref().and_then(|it| it.read(&scene, first));
        EventMeta { id: read(&self.event_id, false), kind: read(&self.event_type, true) }
    }

    /// The part of a multipart form in which JSON stands.
    pub(crate) fn json_part(&self) -> Option<&str> {
        self.scheme.as_ref()?.json_part.as_deref()
    }

    /// Whether id, type or a handshake can only be found with the body there.
    pub fn reads_body(&self) -> bool {
        [&self.event_id, &self.event_type].into_iter().flatten().any(Locator::in_body)
            || self.handshakes.iter().any(Handshake::reads_body)
    }

    /// Whether the endpoint's secret may come in a handshake, so that it can start without one.
    pub fn learns_secret(&self) -> bool {
        self.handshakes.iter().any(Handshake::learns_secret)
    }

    /// Whether its proof, its ids or its types need the whole body of a request at once; without a request: of any.
    pub fn needs_whole_body(&self, request: Option<&Request<'_>>) -> bool {
        [&self.event_id, &self.event_type].into_iter().flatten().any(Locator::in_body)
            || self.scheme.as_ref().is_some_and(|scheme| scheme.needs_whole_body(request))
    }

    /// The endpoint's keys, `None` if the provider does not sign, or if it gives its secret only in
    /// a handshake and has not yet.
    pub fn keys(&self, material: &Material) -> Result<Option<Keys>, SecretError> {
        match &self.scheme {
            None => Ok(None),
            Some(_) if material.secrets.is_empty() && self.learns_secret() => Ok(None),
            Some(scheme) => scheme.keys_from(material).map(Some),
        }
    }
}

#[cfg(test)]
mod tests;
