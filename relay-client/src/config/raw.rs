//! The config file as it is typed: shapes and keys, nothing checked.
//!
//! Every value keeps its place in the file, so that [`super::check`] can name the line. Unknown keys are errors of
//! the parser.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// `relay-client.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFile {
    pub version: Spanned<i64>,
    pub relay: Option<Spanned<String>>,
    pub relay_ca: Option<Spanned<String>>,
    pub token: Option<Spanned<String>>,
    pub name: Option<Spanned<String>>,
    pub proxy: Option<Spanned<String>>,
    #[serde(default)]
    pub endpoint: Vec<Spanned<RawEndpoint>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawEndpoint {
    pub name: Spanned<String>,
    pub attach: Option<Spanned<String>>,
    #[serde(default)]
    pub events: Vec<Spanned<String>>,
    pub rate: Option<Spanned<String>>,
    #[serde(default)]
    pub upgrades: Vec<Spanned<String>>,
    pub target: Spanned<String>,
    pub path: Option<Spanned<String>>,
    #[serde(default)]
    pub headers: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub preserve_host: bool,
    pub max_connections: Option<Spanned<i64>>,
    #[serde(default)]
    pub timeouts: RawTimeouts,
    pub ca_file: Option<Spanned<String>>,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub route: Vec<Spanned<RawRoute>>,
}

/// One `[[endpoint.route]]`: as an endpoint, but for a path. (`flatten` would lose the places in the file.)
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRoute {
    pub path: Spanned<String>,
    pub target: Spanned<String>,
    #[serde(default)]
    pub strip_prefix: bool,
    #[serde(default)]
    pub headers: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub preserve_host: bool,
    pub max_connections: Option<Spanned<i64>>,
    #[serde(default)]
    pub timeouts: RawTimeouts,
    pub ca_file: Option<Spanned<String>>,
    #[serde(default)]
    pub insecure: bool,
}

/// `timeouts = { … }`, each such as `"30s"`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTimeouts {
    pub connect: Option<Spanned<String>>,
    pub head: Option<Spanned<String>>,
    pub idle: Option<Spanned<String>>,
    pub total: Option<Spanned<String>>,
}
