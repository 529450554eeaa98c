//! `dead`: letters that will not be tried again by themselves.

use clap::Subcommand;
use relay_program::{
    Failure,
    api::DeadGroup,
    event::EventSummary,
    http1::encoded,
    list::{self, List},
    terminal,
};
use relay_proto::printable::escaped;

use super::{
    event::{self, Which},
    remote::Remote,
};

#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List dead letters, the newest first
    List {
        #[command(flatten)]
        which: Which,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show dead letters by cause: how many ended for the same reason with the same answer
    Groups {
        /// Only those of this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Try dead letters again, from the schedule's beginning: one by its id, or all that the filters let pass
    Revive(Many),
    /// Take dead letters off the list: one by its id, or all that the filters let pass
    Drop(Many),
}

#[derive(Debug, clap::Args)]
pub(super) struct Many {
    /// The event's id, or its sender's own
    id: Option<String>,
    /// All that the filters let pass
    #[arg(long, conflicts_with = "id", required_unless_present = "id")]
    all: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(command: &DeadCommand) -> Result<(), Failure> {
    match command {
        DeadCommand::List { which, json, remote } => {
            let found = remote.get(&format!("/api/v1/events?state=dead&{}", which.query()))?;
            List::fitting().print(found["events"].as_array().into_iter().flatten(), *json, EventSummary::cells)
        }
        DeadCommand::Groups { endpoint, json, remote } => {
            let endpoint = endpoint.as_ref().map(|name| format!("?endpoint={}", encoded(name))).unwrap_or_default();
            let found = remote.get(&format!("/api/v1/dead/groups{endpoint}"))?;
            List::fitting().print(found["groups"].as_array().into_iter().flatten(), *json, group)
        }
        DeadCommand::Revive(many) => act(many, "revive"),
        DeadCommand::Drop(many) => act(many, "drop"),
    }
}

fn group(group: &DeadGroup) -> Vec<String> {
    let text = |text: &str| escaped(text).into_owned();
    vec![
        group.count.to_string(),
        text(&group.endpoint),
        text(&group.why),
        group.status.map_or("-".to_owned(), |status| status.to_string()),
        list::time(&group.last).into_owned(),
        text(&group.newest),
        text(group.answer.as_deref().unwrap_or("-")),
    ]
}

fn act(many: &Many, action: &str) -> Result<(), Failure> {
    match &many.id {
        Some(id) => event::act(id, action, &many.remote),
        None => {
            let noted = many.remote.post(&format!("/api/v1/dead/{action}?{}", many.which.query()))?;
            terminal::line(noted["bulk"].as_str().unwrap_or_default())
        }
    }
}
