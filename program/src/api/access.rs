//! Who may ask: tokens, sessions of the page, and the log of who did what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenRow {
    pub name: String,
    /// Which token it is: one that is made anew under an old name is another.
    pub id: String,
    /// `api` or `file`.
    pub source: String,
    pub endpoints: Vec<String>,
    pub rights: Vec<String>,
    pub last_used: Option<String>,
    /// How many secrets are good now, and until when older ones are.
    pub secrets: u32,
    pub grace_until: Option<String>,
    pub max_sessions: u64,
    pub sessions: u64,
    /// Endpoints that are its own: how many there may be, and are.
    pub max_endpoints: u64,
    pub own_endpoints: u64,
    /// What they may take of the store, and take, in bytes.
    pub max_stored: Option<u64>,
    pub stored: u64,
    /// Webhooks that they may have a day, and had today.
    pub max_events_per_day: Option<u64>,
    pub events_today: u64,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenList {
    pub tokens: Vec<TokenRow>,
}

/// A token that is to be made.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenNew {
    pub name: String,
    /// Names, or patterns with `*`.
    pub endpoints: Vec<String>,
    /// `attach` and `read` unless it says otherwise.
    pub rights: Option<Vec<String>>,
    #[serde(default)]
    pub limits: TokenLimits,
}

/// What a token's agents and its own endpoints may take. What is left out has its default.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenLimits {
    pub max_sessions: Option<u64>,
    pub max_endpoints: Option<u64>,
    /// A size such as `1GiB`.
    pub max_stored: Option<String>,
    pub max_events_per_day: Option<u64>,
}

/// A token that was made or rotated; its secret is told this once.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenMade {
    #[serde(flatten)]
    pub row: TokenRow,
    pub secret: String,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenRevoked {
    pub name: String,
}

/// A row of the audit log.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AuditEntry {
    pub id: String,
    pub at: String,
    /// `admin`, `session`, `token`, `agent`, `nobody` or `relay`.
    pub kind: String,
    /// The token's name, or what stands for it.
    pub name: String,
    /// Which token it was.
    pub token: Option<String>,
    pub address: Option<String>,
    /// Such as `endpoint.create`.
    pub action: String,
    pub object: Option<String>,
    /// `ok`, or why not. `None`: it is under way, or nobody knows how it ended.
    pub result: Option<String>,
    pub detail: Option<String>,
    /// For how many alike it stands.
    pub count: u64,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AuditList {
    pub entries: Vec<AuditEntry>,
    /// Give it as `after`. `None`: there is no more.
    pub next: Option<String>,
}

/// What opens a session of the page: one of the two.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionLogin {
    pub code: Option<String>,
    /// The admin token, or an agent's.
    pub token: Option<String>,
}

/// A session of the page that was opened.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SessionMade {
    pub id: String,
    /// Sent with each question; empty where the session is a cookie.
    pub key: String,
    pub expires_at: String,
    pub rights: BTreeMap<String, Vec<String>>,
}

/// A code that opens one session, once.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SessionCode {
    pub code: String,
    pub url: String,
}
