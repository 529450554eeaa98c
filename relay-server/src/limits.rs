//! The limits of every layer in one table: what is bounded, by how much, by which key it is set, and what happens there.
//!
//! Values stand with the code that holds to them; here they are put side by side, for `config show` and for the guide
//! (`docs/limits.md`). Each row names the tests that go up to it and one past it; a test here looks whether they are
//! there. Nothing reads a limit from this table. A file below this one has the rows of one layer.

mod admin;
mod agents;
mod clear;
mod connections;
mod exchanges;
mod http2;
mod memory;
mod records;
mod requests;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use serde_json::json;

use crate::{
    audit::AuditKeep,
    config::{Config, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_STORE_BYTES, ProcessLimits},
};

/// How much, with its unit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LimitAmount {
    Bytes(u64),
    Count(u64, &'static str),
    Time(Duration),
    /// So many in a time.
    Rate(u64, Duration),
    /// One part in so many of what stands before it.
    Share(usize),
    /// What the endpoint says, which has no number before it is configured.
    OfEndpoint(&'static str),
}

pub(crate) struct Limit {
    pub what: &'static str,
    pub amount: LimitAmount,
    /// The key that sets it; without one it is fixed.
    pub key: Option<&'static str>,
    /// What whoever reaches it is answered.
    pub answer: &'static str,
    /// Tests that go up to it and beyond.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test that looks for them"))]
    pub tests: &'static [&'static str],
}

/// The limits of one part of the relay.
pub(crate) struct LimitGroup {
    pub title: &'static str,
    pub limits: Vec<Limit>,
}

type Row = (&'static str, LimitAmount, Option<&'static str>, &'static str, &'static [&'static str]);

fn group<const N: usize>(title: &'static str, rows: [Row; N]) -> LimitGroup {
    let limits = rows.map(|(what, amount, key, answer, tests)| Limit { what, amount, key, answer, tests });
    LimitGroup { title, limits: limits.into() }
}

const fn bytes(count: usize) -> LimitAmount {
    LimitAmount::Bytes(count as u64)
}

const fn count(count: usize, unit: &'static str) -> LimitAmount {
    LimitAmount::Count(count as u64, unit)
}

/// What is set, as it runs.
#[derive(Debug)]
pub(crate) struct SetLimits {
    pub process: ProcessLimits,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub max_store_bytes: u64,
    pub audit: AuditKeep,
}

impl Default for SetLimits {
    fn default() -> Self {
        Self {
            process: ProcessLimits::default(),
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            max_store_bytes: MAX_STORE_BYTES,
            audit: AuditKeep::default(),
        }
    }
}

impl From<&Config> for SetLimits {
    fn from(config: &Config) -> Self {
        Self {
            process: config.limits.clone(),
            max_connections: config.server.max_connections,
            max_connections_per_address: config.server.max_connections_per_address,
            max_store_bytes: config.store.max_bytes,
            audit: config.audit,
        }
    }
}

/// Every limit that somebody outside can reach.
pub(crate) fn table(set: &SetLimits) -> Vec<LimitGroup> {
    let layers: [fn(&SetLimits) -> LimitGroup; 10] = [
        connections::limits,
        requests::limits,
        http2::limits,
        memory::limits,
        exchanges::limits,
        agents::limits,
        tokens::limits,
        admin::limits,
        clear::limits,
        records::limits,
    ];
    layers.map(|limits| limits(set)).into()
}

impl fmt::Display for LimitAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bytes(bytes) => {
                let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
                match units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
                    Some((name, unit)) => write!(f, "{} {name}", bytes / unit),
                    None => write!(f, "{bytes} bytes"),
                }
            }
            Self::Count(count, unit) => write!(f, "{count} {unit}"),
            Self::Time(time) => Span(time).fmt(f),
            Self::Rate(count, time) => write!(f, "{count} in {}", Span(time)),
            Self::Share(2) => f.write_str("half of it"),
            Self::Share(4) => f.write_str("a quarter of it"),
            Self::Share(part) => write!(f, "one part in {part}"),
            Self::OfEndpoint(words) => f.write_str(words),
        }
    }
}

/// A time in the largest unit that holds it whole.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match [("d", 24 * 3600), ("h", 3600), ("min", 60)]
            .into_iter()
            .find(|(_, unit)| seconds >= *unit && seconds.is_multiple_of(*unit))
        {
            Some((name, unit)) => write!(f, "{} {name}", seconds / unit),
            None => write!(f, "{seconds} s"),
        }
    }
}

/// What cannot be set, as comments behind what can.
pub(crate) fn fixed_as_comments(set: &SetLimits) -> String {
    let mut text = String::from("\n# What else is bounded, and cannot be set (docs/limits.md):\n");
    for part in table(set) {
        for Limit { what, amount, answer, .. } in part.limits.iter().filter(|limit| limit.key.is_none()) {
            let _ = writeln!(text, "# {}: {what}: {amount} (beyond: {answer})", part.title);
        }
    }
    text
}

/// All of them, with the values that run.
pub(crate) fn as_json(set: &SetLimits) -> serde_json::Value {
    let row = |part: &LimitGroup, limit: &Limit| {
        let (what, answer) = (limit.what, limit.answer);
        json!({ "part": part.title, "what": what, "limit": limit.amount.to_string(), "key": limit.key, "beyond": answer })
    };
    table(set).iter().flat_map(|part| part.limits.iter().map(move |limit| row(part, limit))).collect()
}
