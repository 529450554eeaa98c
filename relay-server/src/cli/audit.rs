//! `audit list|export`: who did what at a running relay. There is no command that removes a row.

use clap::Subcommand;
use relay_program::{Failure, api::AuditEntry, http1::encoded, list::List, terminal};
use relay_proto::printable::escaped;
use serde_json::Value;

use super::remote::Remote;

/// Rows of one question.
const PAGE: usize = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List who did what, the newest first
    List(AuditListArgs),
    /// Print the log as JSON lines, the oldest first
    Export {
        /// From then on: how long ago, such as 42m, or a time such as 2026-01-31T08:00Z
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// Before then
        #[arg(long, value_name = "WHEN")]
        until: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct AuditListArgs {
    /// From then on: how long ago, such as 42m, or a time such as 2026-01-31T08:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Before then
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Only what this token, or `admin`, did
    #[arg(long)]
    name: Option<String>,
    /// Only this action, such as endpoint.create
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this
    #[arg(long)]
    object: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(args) => {
            let AuditListArgs { since, until, name, action, object, limit, json, remote } = args;
            let asked = [("since", since), ("until", until), ("name", name), ("action", action), ("object", object)];
            let mut list = List::fitting();
            walk(remote, &query(&asked), *limit, |entries| list.print(entries.iter(), *json, cells))
        }
        AuditCommand::Export { since, until, remote } => {
            let asked = query(&[("since", since), ("until", until)]) + "&order=oldest";
            let line = |entries: &[Value]| entries.iter().try_for_each(|entry| terminal::line(&entry.to_string()));
            walk(remote, &asked, usize::MAX, line)
        }
    }
}

fn query(asked: &[(&str, &Option<String>)]) -> String {
    let given = asked.iter().filter_map(|(key, value)| Some(format!("&{key}={}", encoded(value.as_ref()?))));
    given.collect()
}

/// Page by page.
fn walk(
    remote: &Remote,
    asked: &str,
    limit: usize,
    mut each: impl FnMut(&[Value]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut left, mut after) = (limit, String::new());
    while left > 0 {
        let page = remote.get(&format!("/api/v1/audit?limit={}{asked}{after}", left.min(PAGE)))?;
        let entries = page["entries"].as_array().cloned().unwrap_or_default();
        each(&entries)?;
        left = left.saturating_sub(entries.len());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", encoded(next)),
            None => break,
        }
    }
    Ok(())
}

fn cells(entry: &AuditEntry) -> Vec<String> {
    let who = match entry.kind.as_str() {
        kind if kind == entry.name => kind.to_owned(),
        kind => format!("{kind} {}", entry.name),
    };
    let text = |text: &Option<String>| escaped(text.as_deref().unwrap_or_default()).into_owned();
    let result = entry.result.as_deref().unwrap_or("?");
    let times = if entry.count > 1 { format!(" ×{}", entry.count) } else { String::new() };
    vec![
        entry.at.clone(),
        escaped(&who).into_owned(),
        text(&entry.address),
        entry.action.clone(),
        text(&entry.object),
        format!("{}{times}", escaped(result)),
        text(&entry.detail),
    ]
}
