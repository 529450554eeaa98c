//! `endpoint`: what a running relay serves, who is attached, and what waits.

use clap::Subcommand;
use serde_json::Value;

use super::{
    Failure, event,
    remote::{Remote, encoded},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List endpoints with their agents and what waits
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Go on accepting and keeping events, and deliver none
    Pause {
        /// The endpoint
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Deliver again
    Resume {
        /// The endpoint
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List { json, remote } => {
            let found = remote.get("/api/v1/endpoints")?;
            event::print(found["endpoints"].as_array().into_iter().flatten(), *json, line)
        }
        Command::Pause { name, remote } => hold(name, "pause", remote),
        Command::Resume { name, remote } => hold(name, "resume", remote),
    }
}

fn hold(name: &str, action: &str, remote: &Remote) -> Result<(), Failure> {
    remote.post(&format!("/api/v1/endpoints/{}/{action}", encoded(name))).map(drop)
}

fn line(endpoint: &Value) -> String {
    let text = |key: &str| endpoint[key].as_str().unwrap_or("-");
    let paused = if endpoint["paused"] == true { "  PAUSED" } else { "" };
    let since = endpoint["oldest"].as_str().map(|at| format!(" since {at}")).unwrap_or_default();
    format!(
        "{}  {}  {}  agents {}  waiting {}{since}{paused}",
        text("name"),
        text("mode"),
        text("provider"),
        endpoint["agents"],
        endpoint["waiting"],
    )
}
