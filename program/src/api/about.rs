//! What the relay tells of itself: who it is, what it can do, what alerts hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
