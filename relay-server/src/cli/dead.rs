//! `dead`: letters that will not be tried again by themselves.

use clap::Subcommand;
use relay_program::{Failure, event::EventSummary, list::List, terminal};

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
        DeadCommand::Revive(many) => act(many, "revive"),
        DeadCommand::Drop(many) => act(many, "drop"),
    }
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
