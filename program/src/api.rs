//! What the API tells beside events ([`crate::event`]), as the relay sends it and as command lines, the terminal and the
//! agent's page read it. Keys are only ever added: a reader of an older relay finds defaults where one is missing.
//!
//! Times are RFC 3339, durations in microseconds, sizes in bytes.

mod about;
mod access;
mod agent_page;
mod agents;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::EventSummary;

pub use self::{
    about::{About, AboutApi, AboutCanaries, AboutLimits, AboutRelay, AboutYou, AlertList, AlertRow, AlertTested},
    access::{
        AuditEntry, AuditList, SessionCode, SessionLogin, SessionMade, TokenLimits, TokenList, TokenMade, TokenNew,
        TokenRevoked, TokenRow,
    },
    agent_page::{
        AgentBody, AgentExchange, AgentExchanges, ShadowDiff, ShadowDiffs, TapFigures, ThisAgent, ThisAgentTarget,
    },
    agents::{AgentDisconnected, AgentEndpoint, AgentList, AgentRow},
};

/// A page of events, the newest first unless asked otherwise.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventList {
    pub events: Vec<EventSummary>,
    /// Give it as `after`. `None`: there is no more.
    pub next: Option<String>,
    pub looked: Looked,
}

/// How far a search came.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Looked {
    pub rows: u64,
    pub back_to: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct EventCount {
    pub at_least: u64,
    pub exact: bool,
    pub back_to: Option<String>,
}

/// An error of the API (RFC 9457, `application/problem+json`).
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ProblemDetails {
    /// A path that says what it means.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub instance: String,
    /// A stable code.
    pub code: String,
    /// The code once more.
    pub error: String,
    /// The detail once more.
    pub message: String,
    /// Where in the query the mistake is, in bytes.
    pub at: Option<usize>,
    /// What of the query could be read: it may be asked for instead.
    pub in_force: Option<String>,
    pub retry_after_s: Option<u64>,
}

/// What is changed in an event before it is replayed. A masked header that comes back as it was shown keeps its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Edit {
    pub method: Option<String>,
    pub target: Option<String>,
    pub headers: Option<Vec<(String, String)>>,
    pub body_base64: Option<String>,
    pub body_text: Option<String>,
}

impl Edit {
    /// Whether another body stands in the place of the event's own.
    pub const fn brings_body(&self) -> bool {
        self.body_base64.is_some() || self.body_text.is_some()
    }
}

/// Dead letters that ended alike.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DeadGroup {
    pub endpoint: String,
    pub why: String,
    pub status: Option<u16>,
    /// The beginning of the handler's answer.
    pub answer: Option<String>,
    pub count: u64,
    pub first: String,
    pub last: String,
    /// Its newest event.
    pub newest: String,
    /// A query that finds the group's events.
    pub q: String,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DeadGroups {
    pub groups: Vec<DeadGroup>,
    pub looked: Looked,
}

/// Counts and latencies by time: each list has one entry for each step, the oldest first. Latencies are those of answers
/// to senders.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Figures {
    pub step_s: u64,
    pub from: String,
    pub received: Vec<u64>,
    #[serde(rename = "2xx")]
    pub success: Vec<u64>,
    #[serde(rename = "4xx")]
    pub client_error: Vec<u64>,
    #[serde(rename = "5xx")]
    pub server_error: Vec<u64>,
    pub refused: Vec<u64>,
    pub failed: Vec<u64>,
    pub p50_us: Vec<Option<u64>>,
    pub p90_us: Vec<Option<u64>>,
    pub p99_us: Vec<Option<u64>>,
    pub waiting: Vec<Option<u64>>,
    pub oldest_s: Vec<Option<u64>>,
    /// By endpoint, the largest part of the sender's deadline that was used.
    pub patience: BTreeMap<String, f64>,
    pub store_bytes: Option<u64>,
    pub store_limit: Option<u64>,
}

/// A message of the stream with rows: the newest state of each id once.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StreamRows {
    pub rows: Vec<EventSummary>,
    /// Rows that were not sent, since there were too many.
    pub left_out: u64,
}

/// The stream cannot go on from where its reader was: load the list anew.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StreamResync {
    /// `too_old`, `restarted`, `too_slow`, or `many_changed`: what was done with many events at once is in the list.
    pub why: String,
    pub after: Option<String>,
}

/// The stream ends.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StreamBye {
    pub why: String,
    pub again_ms: u64,
}

/// What a person does at the provider to have webhooks sent here.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Setup {
    pub url: String,
    /// Fields of the provider's own page, and what belongs there.
    pub paste: Vec<SetupField>,
    /// Where that is at the provider, in its own words.
    pub how: Option<String>,
    pub agent_command: String,
    /// A signed request that runs in a shell as it is.
    pub curl: Option<String>,
    /// Until when its signature is good.
    pub expires_at: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SetupField {
    pub field: String,
    pub value: String,
}

/// A provider whose signatures can be checked.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ProviderRow {
    pub name: String,
    pub title: String,
    /// The mode of its endpoints unless they say otherwise.
    pub mode: String,
    /// Whether its secret is one's own to choose, so that the relay can make one.
    pub own_secret: bool,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ProviderList {
    pub providers: Vec<ProviderRow>,
}

/// An action on all events that a query finds.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct BulkProgress {
    pub id: String,
    /// `revive`, `drop`, `replay` or `cancel`.
    pub action: String,
    /// How many it found when it began; `None` where nobody counted.
    pub of: Option<u64>,
    pub done: u64,
    pub skipped: u64,
    pub finished: bool,
}
