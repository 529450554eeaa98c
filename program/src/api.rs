//! What the API tells beside events ([`crate::event`]), as the relay sends it and as command lines, the terminal and the
//! agent's page read it. Keys are only ever added: a reader of an older relay finds defaults where one is missing.
//!
//! Times are RFC 3339, durations in microseconds, sizes in bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::EventSummary;

/// What stands at the head of the API.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct About {
    pub relay: AboutRelay,
    pub api: AboutApi,
    pub you: AboutYou,
    pub limits: AboutLimits,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AboutRelay {
    pub version: String,
    pub started_at: String,
    /// The relay's clock.
    pub time: String,
    pub public_url: Option<String>,
    /// Where canaries are sent.
    pub canaries: Option<AboutCanaries>,
}

/// What canaries found.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AboutCanaries {
    /// Seconds between two rounds.
    pub every_s: u64,
    /// Agents of the last round.
    pub agents: u64,
    /// Those of them that did not answer the last one.
    pub failing: u64,
}

/// The causes of alerts that hold.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AlertList {
    pub alerts: Vec<AlertRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AlertRow {
    /// `dead_letters`, `backlog`, `clock`, `certificate`, `store` or `canary`.
    pub cause: String,
    /// What it is about, such as an endpoint or an agent; empty where it is about the relay.
    pub subject: String,
    pub message: String,
    pub since: String,
}

/// What came of a test alert.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AlertTested {
    /// Where it was posted, without its query.
    pub url: String,
    /// What was answered.
    pub status: Option<u16>,
    /// Why nothing was.
    pub error: Option<String>,
    pub taken: bool,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AboutApi {
    pub version: u32,
    /// What it can do, such as `stream` or `edit`.
    pub features: Vec<String>,
}

/// Who asks, and what they may.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AboutYou {
    /// `admin`, `session` or `token`.
    pub kind: String,
    pub name: String,
    /// Rights by endpoint name, or by `*` for all: `read`, `replay`, `sign`, `skip`, `act`, `create`, `admin`, `attach`.
    pub rights: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AboutLimits {
    /// Rows of a page.
    pub page: usize,
    pub query_bytes: usize,
    pub edit_bytes: usize,
}

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

/// An agent that is attached, or was within the last day.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AgentRow {
    /// Its session's number; gone ones keep theirs.
    pub session: u64,
    pub name: String,
    pub instance: String,
    pub token: String,
    pub version: String,
    pub address: String,
    pub since: String,
    /// The last heartbeat's way and back.
    pub link_us: Option<u64>,
    pub endpoints: Vec<AgentEndpoint>,
    pub in_flight: u64,
    pub dropped_copies: u64,
    /// When and why it went.
    pub gone_at: Option<String>,
    pub gone_why: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AgentEndpoint {
    pub name: String,
    /// `active`, `standby`, `copy` or why it was refused.
    pub standing: String,
    pub in_flight: u64,
    pub capacity: Option<u64>,
    /// Until when its failing handler is left alone.
    pub circuit_until: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AgentList {
    pub agents: Vec<AgentRow>,
    pub gone: Vec<AgentRow>,
}

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

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenRevoked {
    pub name: String,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AgentDisconnected {
    pub session: String,
}

/// A token that was made or rotated; its secret is told this once.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenMade {
    #[serde(flatten)]
    pub row: TokenRow,
    pub secret: String,
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

/// What opens a session of the page: one of the two.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionLogin {
    pub code: Option<String>,
    /// The admin token, or an agent's.
    pub token: Option<String>,
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

/// What an agent's own page shows of it (`/api/v1/agent`, on the agent alone).
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThisAgent {
    pub name: String,
    pub instance: String,
    pub version: String,
    pub relay: String,
    /// `connecting`, `ready`, `reconnecting`, `refused` or `stopping`.
    pub state: String,
    /// Since when it is in that state.
    pub since: String,
    /// Why there is no link, where there is none.
    pub why: Option<String>,
    /// When it tries again.
    pub again_at: Option<String>,
    pub link_us: Option<u64>,
    pub targets: Vec<ThisAgentTarget>,
    pub tap: TapFigures,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThisAgentTarget {
    pub endpoint: String,
    /// `active`, `standby`, `copy`, `away`, or why the relay refused it.
    pub standing: String,
    pub target: String,
    pub public_url: Option<String>,
}

/// What an agent's tap holds.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TapFigures {
    pub exchanges: u64,
    pub bytes: u64,
    /// Older exchanges that made room.
    pub dropped: u64,
}

/// Exchanges that an agent's tap holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentExchanges {
    pub exchanges: Vec<AgentExchange>,
    /// Give it as `before` for older ones.
    pub next: Option<u64>,
}

/// One call of a handler, as its agent saw it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentExchange {
    /// Its place among the exchanges of this agent.
    pub number: u64,
    pub event_id: Option<String>,
    pub replay_of: Option<String>,
    pub endpoint: String,
    pub attempt: u32,
    pub came_at: String,
    pub method: String,
    /// As the handler saw it.
    pub target: String,
    pub status: Option<u16>,
    /// Why there was no answer, or no end of one.
    pub error: Option<String>,
    pub note: Option<String>,
    pub duration_us: u64,
    /// From its arrival here to the handler's call, to the last byte of the request there, to the answer's head and to
    /// its last byte.
    pub called_us: u64,
    pub sent_us: Option<u64>,
    pub head_us: Option<u64>,
    pub ended_us: Option<u64>,
    pub headers: Vec<(String, String)>,
    pub request: AgentBody,
    pub answer_headers: Vec<(String, String)>,
    pub answer: AgentBody,
    /// Names of headers whose value is not shown.
    pub masked: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentBody {
    pub size: u64,
    /// So many of its bytes can be had, from the first.
    pub kept: u64,
    /// Of the whole body, in hexadecimal digits; `None` where it did not come to its end.
    pub sha256: Option<String>,
}

/// What a second handler made of an event, beside what the first one answered (`relay-client diff`).
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShadowDiff {
    /// Its place among those that the agent's page holds.
    pub number: u64,
    pub event_id: String,
    pub endpoint: String,
    pub event_type: Option<String>,
    pub method: String,
    pub target: String,
    /// Where the second handler is.
    pub against: String,
    pub at: String,
    /// `same`, `status`, `body`, `slower`, `unanswered` or `not_recorded`.
    pub verdict: String,
    pub recorded_status: Option<u16>,
    pub recorded_size: Option<u64>,
    pub recorded_us: Option<u64>,
    pub status: Option<u16>,
    pub size: u64,
    pub took_us: u64,
    pub error: Option<String>,
    /// What differs in the bodies: places in JSON with both values, or the first byte.
    pub differences: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ShadowDiffs {
    /// The newest first.
    pub diffs: Vec<ShadowDiff>,
}
