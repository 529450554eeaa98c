//! What the admin API tells of endpoints and of what never became an event, as it is sent and as the command line reads
//! it. Keys are only ever added.

use jiff::Timestamp;
use relay_program::api::BulkProgress;
use relay_schemes::explain::Finding;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{config::rows::Rows, runtime_config::Applied};

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointSummary {
    pub name: String,
    pub mode: String,
    pub provider: String,
    /// `api` or `file`.
    pub source: String,
    /// The token for whose use it counts.
    pub owner: Option<String>,
    pub url: String,
    pub metrics_name: String,
    pub agents: usize,
    pub paused: bool,
    pub waiting: u64,
    /// Of what waits, when the oldest came.
    #[schema(value_type = Option<String>)]
    pub oldest: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    pub next_due: Option<Timestamp>,
    /// Requests that were refused in the last hour.
    pub refusals: u64,
    /// Of the last hour's answers to senders, the median and the 99th percentile.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// When something last came that was not refused; where nothing is kept, to ten seconds, and of the last day.
    #[schema(value_type = Option<String>)]
    pub last_event: Option<Timestamp>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointDetail {
    #[serde(flatten)]
    pub summary: EndpointSummary,
    pub pending: u64,
    pub running: u64,
    pub dead: u64,
    #[schema(value_type = Option<String>)]
    pub paused_since: Option<Timestamp>,
    pub circuit: String,
    #[schema(value_type = Option<String>)]
    pub circuit_until: Option<Timestamp>,
    pub secret_available: bool,
    pub attached: Vec<AttachedSummary>,
    /// Its secrets without what they are, in their order.
    #[serde(default)]
    pub secrets: Vec<EndpointSecret>,
    /// As they would stand in a file.
    pub settings: Value,
}

/// One of an endpoint's secrets.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointSecret {
    /// From 1.
    pub number: usize,
    /// When it last verified a request, since its keys are those that they are now.
    #[schema(value_type = Option<String>)]
    pub last_verified: Option<Timestamp>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct AttachedSummary {
    pub name: String,
    pub token: String,
    /// `active`, `standby` or `copy`.
    pub standing: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointList {
    pub endpoints: Vec<EndpointSummary>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct EndpointDeleted {
    pub name: String,
    /// How many events that waited.
    pub cancelled: u64,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct HandshakeSummary {
    pub id: String,
    pub endpoint: String,
    pub state: String,
    #[schema(value_type = String)]
    pub received_at: Timestamp,
    pub provider: String,
    pub handshake: String,
    pub client: String,
    pub learnt_secret: bool,
    /// A code for the person who sets the webhook up.
    pub shown: Option<String>,
    pub confirm_url: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct RefusedSummary {
    pub id: String,
    pub endpoint: String,
    pub state: String,
    #[schema(value_type = String)]
    pub received_at: Timestamp,
    pub method: String,
    pub url: String,
    pub client: String,
    pub provider: String,
    pub status: u16,
    pub code: String,
    pub body_read: bool,
    pub body_len: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusedDetail {
    #[serde(flatten)]
    pub summary: RefusedSummary,
    pub headers: Vec<(String, String)>,
    pub body_base64: String,
    pub body_kept: usize,
}

/// What may be wrong with a refused request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Explained {
    /// The request's id, where it is one of a running relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    pub findings: Vec<ExplainedFinding>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ExplainedFinding {
    pub code: String,
    pub message: String,
}

impl ExplainedFinding {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

impl From<&Finding> for ExplainedFinding {
    fn from(finding: &Finding) -> Self {
        Self::new(finding.code(), finding.to_string())
    }
}

/// A bulk action that was noted down; it goes on by itself.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BulkNoted {
    pub bulk: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkList {
    pub bulks: Vec<BulkProgress>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupDone {
    /// The new file.
    pub to: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusedList {
    pub refused: Vec<RefusedSummary>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HandshakeList {
    pub handshakes: Vec<HandshakeSummary>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointHeld {
    pub name: String,
    pub paused: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointSkipped {
    pub name: String,
    /// How many events that waited; `None`: that goes on, and is not counted yet.
    pub skipped: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointForgot {
    pub name: String,
    pub forgotten: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointMade {
    #[serde(flatten)]
    pub detail: EndpointDetail,
    /// What works and is worth knowing.
    pub warnings: Vec<String>,
    /// The secret that was made for it; it is told this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// An endpoint that is to be made: its row as in a file, and secrets that are then sealed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEndpoint {
    #[schema(value_type = Value)]
    pub endpoint: toml::Table,
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Make one as well, where the provider lets one choose it.
    #[serde(default)]
    pub generate_secret: bool,
    /// If the asker has one of this name already, be told of that, and leave it as it is.
    #[serde(default)]
    pub use_own: bool,
}

/// A file's rows, and what else it says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRows {
    #[schema(value_type = Value)]
    pub rows: Rows,
    #[serde(default)]
    #[schema(value_type = Value)]
    pub sections: toml::Table,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowsApplied {
    #[serde(flatten)]
    #[schema(value_type = Value)]
    pub applied: Applied,
    pub dry_run: bool,
    pub at: String,
}
