//! Events as JSON, one object per line, for programs.
//!
//! Pure. Every object has a `type`; durations are milliseconds, sizes bytes, times RFC 3339 in UTC. Keys are only
//! ever added.

use std::time::Duration;

use jiff::Timestamp;
use relay_proto::printable;
use serde::Serialize;

use super::{AgentState, Line, Notice, Outcome, ReadyEndpoint, event::Event};

/// The object and a line end.
pub(super) fn render(event: &Event) -> String {
    let object = match event {
        Event::State(time, state) => Object::State { time: *time, state: StateObject::of(state) },
        Event::Exchange(line) => Object::exchange(line),
        Event::Refused(notice) => Object::refused(notice),
        Event::MoreRefused(count) => Object::MoreRefused { count: *count },
        Event::Warning(time, message) => Object::Warning { time: *time, message },
        Event::Dropped(count) | Event::MoreUnmade(count) => Object::Dropped { count: *count },
    };
    let text = serde_json::to_string(&object).expect("strings and numbers are JSON");
    format!("{}\n", printable::lines(&text))
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Object<'a> {
    State {
        time: Timestamp,
        #[serde(flatten)]
        state: StateObject<'a>,
    },
    Exchange {
        time: Timestamp,
        endpoint: &'a str,
        event_id: Option<&'a str>,
        method: &'a str,
        path: &'a str,
        status: Option<u16>,
        error: Option<&'a str>,
        duration_ms: f64,
        bytes_in: u64,
        bytes_out: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        replay_of: Option<&'a str>,
        note: Option<&'a str>,
    },
    Refused {
        time: Timestamp,
        endpoint: &'a str,
        event_id: Option<&'a str>,
        status: u16,
        provider: &'a str,
        code: &'a str,
    },
    Warning {
        time: Timestamp,
        message: &'a str,
    },
    Dropped {
        count: u64,
    },
    MoreRefused {
        count: u64,
    },
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum StateObject<'a> {
    Connecting { relay: &'a str },
    Ready { endpoints: &'a [ReadyEndpoint] },
    Reconnecting { after_ms: f64, why: &'a str },
    Refused { why: &'a str, code: Option<&'a str> },
    Health { address: &'a str },
    Reloaded,
    Draining,
    Standby { endpoint: &'a str },
    Active { endpoint: &'a str },
    Copy { endpoint: &'a str },
    Backlog { endpoint: &'a str, waiting: u64, oldest: Option<Timestamp>, message: &'a str },
    Replaying { endpoint: &'a str, count: usize, since: Timestamp, more: bool },
    Replayed { endpoint: &'a str, count: usize, failed: usize, since: Timestamp },
}

impl<'a> StateObject<'a> {
    fn of(state: &'a AgentState) -> Self {
        match state {
            AgentState::Connecting { relay } => Self::Connecting { relay },
            AgentState::Ready { endpoints } => Self::Ready { endpoints },
            AgentState::Reconnecting { after, why } => Self::Reconnecting { after_ms: millis(*after), why },
            AgentState::Refused { why, code } => Self::Refused { why, code: code.as_deref() },
            AgentState::Health { address } => Self::Health { address },
            AgentState::Reloaded => Self::Reloaded,
            AgentState::Draining => Self::Draining,
            AgentState::Standby { endpoint } => Self::Standby { endpoint },
            AgentState::Active { endpoint } => Self::Active { endpoint },
            AgentState::Copy { endpoint } => Self::Copy { endpoint },
            AgentState::Backlog { endpoint, waiting, oldest, line } => {
                Self::Backlog { endpoint, waiting: *waiting, oldest: *oldest, message: line }
            }
            AgentState::Replaying { endpoint, count, since, more } => {
                Self::Replaying { endpoint, count: *count, since: *since, more: *more }
            }
            AgentState::Replayed { endpoint, count, failed, since } => {
                Self::Replayed { endpoint, count: *count, failed: *failed, since: *since }
            }
        }
    }
}

impl<'a> Object<'a> {
    fn exchange(line: &'a Line) -> Self {
        let (status, error) = match &line.outcome {
            Outcome::Status(status) => (Some(*status), None),
            Outcome::Failed(code) | Outcome::Unmade(code) => (None, Some(code.as_str())),
        };
        Self::Exchange {
            time: line.time,
            endpoint: &line.endpoint,
            event_id: line.event_id.as_deref(),
            method: &line.method,
            path: &line.path,
            status,
            error,
            duration_ms: millis(line.duration),
            bytes_in: line.bytes_in,
            bytes_out: line.bytes_out,
            replay_of: line.replay_of.as_deref(),
            note: line.note.as_deref(),
        }
    }

    fn refused(notice: &'a Notice) -> Self {
        Self::Refused {
            time: notice.time,
            endpoint: &notice.endpoint,
            event_id: notice.event_id.as_deref(),
            status: notice.status,
            provider: &notice.provider,
            code: &notice.code,
        }
    }
}

/// Milliseconds to the microsecond.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
