//! What can be reported: plain values, and how they look as JSON.
//!
//! Every JSON object has a `type`; durations are milliseconds, sizes bytes, times RFC 3339 in UTC. Keys are only ever
//! added.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use uuid::Uuid;

use crate::inspect::PageKey;

/// How the agent stands with the relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum AgentState {
    Connecting {
        relay: String,
    },
    /// The relay's welcome is there: webhooks arrive for these endpoints.
    Ready {
        endpoints: Vec<ReadyEndpoint>,
    },
    Reconnecting {
        #[serde(rename = "after_ms", serialize_with = "milliseconds")]
        after: Duration,
        why: String,
    },
    /// The relay does not want this agent, or not this endpoint; `code` is its word for branching on.
    Refused {
        why: String,
        code: Option<String>,
    },
    /// Health checks are answered there.
    Health {
        address: String,
    },
    /// The agent's own page is there.
    Inspect {
        address: String,
        /// A file that holds its key while the agent runs.
        key_file: Option<PathBuf>,
        /// Told to a terminal alone.
        #[serde(skip)]
        key: Option<PageKey>,
    },
    /// Changed settings were taken over.
    Reloaded,
    /// Stopping: nothing new is taken, what runs is finished.
    Draining,
    /// Another agent is active; this one takes over when it goes.
    Standby {
        endpoint: String,
    },
    /// This agent was standing by, or got copies, and is active now.
    Active {
        endpoint: String,
    },
    /// This agent gets copies of what another one serves.
    Copy {
        endpoint: String,
    },
    /// Webhooks wait for an endpoint that was just attached; the sentence is the relay's.
    Backlog {
        endpoint: String,
        waiting: u64,
        oldest: Option<Timestamp>,
        #[serde(rename = "message")]
        line: String,
    },
    /// What the relay kept since then is asked for once more; with `more`, others come after these.
    Replaying {
        endpoint: String,
        count: usize,
        since: Timestamp,
        more: bool,
    },
    Replayed {
        endpoint: String,
        count: usize,
        failed: usize,
        since: Timestamp,
    },
}

/// An endpoint that is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ReadyEndpoint {
    pub name: String,
    pub public_url: String,
    pub target: String,
    #[serde(rename = "standing")]
    pub role: AgentRole,
}

/// What this agent is to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AgentRole {
    Active,
    Standby,
    /// Copies of what another agent gets come; senders never see the answers.
    Copy,
}

/// An event's id as people read it.
pub(crate) fn event_name(id: [u8; 16]) -> String {
    let mut digits = Uuid::encode_buffer();
    ["hook_", Uuid::from_bytes(id).as_simple().encode_lower(&mut digits)].concat()
}

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The handler answered, to the end.
    Status(u16),
    /// There was no answer, or no end of one; a code such as `unreachable`.
    Failed(String),
    /// No request to a handler was made of what came; a code such as `uncarriable_path`.
    Unmade(String),
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, error) = match self {
            Self::Status(status) => (Some(status), None),
            Self::Failed(code) | Self::Unmade(code) => (None, Some(code)),
        };
        let mut fields = serializer.serialize_struct("Outcome", 2)?;
        fields.serialize_field("status", &status)?;
        fields.serialize_field("error", &error)?;
        fields.end()
    }
}

/// One exchange, when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub time: Timestamp,
    pub endpoint: String,
    pub event_id: Option<String>,
    pub method: String,
    /// The path and query that the handler saw.
    pub path: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// From the request's arrival to the answer's end.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The event that it repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
    /// What else is worth saying, such as the reason of a failure.
    pub note: Option<String>,
}

/// A webhook that the relay turned away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Notice {
    pub time: Timestamp,
    pub endpoint: String,
    pub event_id: Option<String>,
    /// What the sender was answered.
    pub status: u16,
    pub provider: String,
    /// Why, such as `signature_mismatch`.
    pub code: String,
}

/// Anything that waits to be written.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    State {
        time: Timestamp,
        #[serde(flatten)]
        state: AgentState,
    },
    Exchange(Line),
    Refused(Notice),
    /// So many more were refused than were reported one by one.
    MoreRefused {
        count: u64,
    },
    /// Of so many more no request was made than were reported one by one.
    #[serde(rename = "dropped")]
    MoreUnmade {
        count: u64,
    },
    Warning {
        time: Timestamp,
        message: String,
    },
    /// So many lines before this one were not kept.
    Dropped {
        count: u64,
    },
}

/// With three decimals at most.
fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}
