//! Agents that are attached, or were.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
pub struct AgentDisconnected {
    pub session: String,
}
