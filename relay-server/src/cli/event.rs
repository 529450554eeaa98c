//! `event list`: what a running relay has seen. Without a store there is only what never became an event: refused
//! requests, and challenges that it answered itself.

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
    /// A provider's challenge, answered by the relay
    Handshake,
}

#[expect(clippy::print_stdout, reason = "results go to standard output")]
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::List { state, endpoint, limit, json, remote } = command;
    let list = match state {
        State::Refused => "refused",
        State::Handshake => "handshakes",
    };
    let mut path = format!("/api/v1/{list}?limit={limit}");
    if let Some(endpoint) = endpoint {
        path.push_str(&format!("&endpoint={}", encoded(endpoint)));
    }
    for event in remote.get(&path)?[list].as_array().into_iter().flatten() {
        if *json {
            println!("{event}");
        } else {
            println!("{}", if list == "refused" { refused(event) } else { handshake(event) });
        }
    }
    Ok(())
}

fn handshake(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-");
    let confirm = event["confirm_url"].as_str().map(|url| format!("  open {url}")).unwrap_or_default();
    let learnt = if event["learnt_secret"] == true { "  learnt a secret" } else { "" };
    let (at, id, name) = (text("received_at"), text("id"), text("handshake"));
    format!(
        "{at}  {id}  HANDSHAKE {} {} {name}  {}{learnt}{confirm}",
        text("endpoint"),
        text("provider"),
        text("client")
    )
}

fn refused(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-");
    let unread = if event["body_read"] == false { "  body not read" } else { "" };
    format!(
        "{}  {}  REFUSED {} {} {}  {} {}  {}{unread}",
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
