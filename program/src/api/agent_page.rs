//! What an agent's own page shows beside what a relay tells.

use serde::{Deserialize, Serialize};

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
