//! What can be reported: plain values, no rendering.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

/// How the agent stands with the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AgentState {
    /// On the way to the relay; nothing arrives yet.
    Connecting {
        /// The relay's address.
        relay: String,
    },
    /// Welcome: webhooks arrive for these endpoints.
    Ready {
        /// Those that were accepted.
        endpoints: Vec<ReadyEndpoint>,
    },
    /// The connection failed or broke.
    Reconnecting {
        /// The wait before the next try.
        after: Duration,
        /// What happened.
        why: String,
    },
    /// The relay does not want this agent, or not this endpoint.
    Refused {
        /// The relay's words.
        why: String,
        /// The relay's word for branching on.
        code: Option<String>,
    },
    /// Health checks are answered.
    Health {
        /// Where.
        address: String,
    },
    /// Changed settings were taken over.
    Reloaded,
    /// Stopping: nothing new is taken, what runs is finished.
    Draining,
    /// Another agent is active; this one takes over when it goes.
    Standby { endpoint: String },
    /// This agent was standing by, or got copies, and is active now.
    Active { endpoint: String },
    /// This agent gets copies of what another one serves.
    Copy { endpoint: String },
    /// Webhooks wait for an endpoint that was just attached.
    Backlog {
        endpoint: String,
        /// How many.
        waiting: u64,
        /// When the oldest came.
        oldest: Option<Timestamp>,
        /// The relay's words.
        line: String,
    },
    /// What the relay kept is asked for once more.
    Replaying {
        endpoint: String,
        /// How many.
        count: usize,
        /// What came then or later.
        since: Timestamp,
        /// Whether there are more, that come after these.
        more: bool,
    },
    Replayed {
        endpoint: String,
        /// How many.
        count: usize,
        /// How many of them the handler did not take.
        failed: usize,
        /// What came then or later.
        since: Timestamp,
    },
}

/// One endpoint that works.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ReadyEndpoint {
    pub name: String,
    /// Where senders post.
    pub public_url: String,
    /// Where the handlers live.
    pub target: String,
    /// What this agent is to it.
    #[serde(rename = "standing")]
    pub role: AgentRole,
}

/// What this agent is to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AgentRole {
    /// Webhooks come.
    Active,
    /// None come while another agent is active.
    Standby,
    /// Copies of what another agent gets come; senders never see the answers.
    Copy,
}

/// An event's id as people read it.
pub(crate) fn event_name(id: [u8; 16]) -> String {
    format!("hook_{}", Uuid::from_bytes(id).as_simple())
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

/// One exchange, when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it began.
    pub time: Timestamp,
    /// The request's method.
    pub method: String,
    /// The path and query the handler saw.
    pub path: String,
    /// How it ended.
    pub outcome: Outcome,
    /// From the request's arrival to the answer's end.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    pub endpoint: String,
    /// The event, where there is one.
    pub event_id: Option<String>,
    /// The event that it repeats.
    pub replay_of: Option<String>,
    /// What else is worth saying, such as the reason of a failure.
    pub note: Option<String>,
}

/// A webhook that the relay turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// When.
    pub time: Timestamp,
    /// What the sender was answered.
    pub status: u16,
    /// The endpoint's provider, such as `github`.
    pub provider: String,
    /// Why, such as `signature_mismatch`.
    pub code: String,
    /// The event, where there is one.
    pub event_id: Option<String>,
    pub endpoint: String,
}

/// Anything that waits to be written.
#[derive(Debug)]
pub(super) enum Event {
    State(Timestamp, AgentState),
    Exchange(Line),
    Refused(Notice),
    /// So many more were refused than were reported one by one.
    MoreRefused(u64),
    /// Of so many more no request was made than were reported one by one.
    MoreUnmade(u64),
    Warning(Timestamp, String),
    /// So many lines before this one were not kept.
    Dropped(u64),
}
