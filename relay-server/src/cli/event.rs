//! `event list`: what a running relay has seen. Without a store there is only what it refused.

use clap::{Subcommand, ValueEnum};
use serde_json::Value;

use super::{
    Failure,
    remote::{Remote, encoded},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List events, the newest first
    List {
        /// Only those in this state
        #[arg(long)]
        state: State,
        /// Only those of this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum State {
    /// Turned away before it could reach an agent
    Refused,
}

#[expect(clippy::print_stdout, reason = "results go to standard output")]
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::List { state: State::Refused, endpoint, limit, json, remote } = command;
    let mut path = format!("/api/v1/refused?limit={limit}");
    if let Some(endpoint) = endpoint {
        path.push_str(&format!("&endpoint={}", encoded(endpoint)));
    }
    for event in remote.get(&path)?["refused"].as_array().into_iter().flatten() {
        if *json {
            println!("{event}");
        } else {
            println!("{}", line(event));
        }
    }
    Ok(())
}

fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-");
    format!(
        "{}  {}  REFUSED {} {} {}  {} {}  {}",
        text("received_at"),
        text("id"),
        event["status"],
        text("endpoint"),
        text("code"),
        text("method"),
        text("url"),
        text("client"),
    )
}
