//! `alert`: what an operator has to know of, and whether it arrives where alerts are posted.

use clap::Subcommand;
use relay_program::{
    Failure,
    api::{AlertRow, AlertTested},
    list::{self, List},
    terminal,
};
use relay_proto::printable::escaped;
use serde::Deserialize as _;

use super::remote::Remote;

#[derive(Debug, Subcommand)]
pub(super) enum AlertCommand {
    /// List the causes that hold
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Have the relay post a test alert to its `[alert] url`, and say what was answered
    Test {
        #[command(flatten)]
        remote: Remote,
    },
}

pub(super) fn run(command: &AlertCommand) -> Result<(), Failure> {
    match command {
        AlertCommand::List { json, remote } => {
            let found = remote.get("/api/v1/alerts")?;
            List::fitting().print(found["alerts"].as_array().into_iter().flatten(), *json, cells)
        }
        AlertCommand::Test { remote } => {
            let AlertTested { url, status, error, taken } =
                AlertTested::deserialize(&remote.post("/api/v1/alerts/test")?)?;
            let said = status.map(|status| format!("it answered {status}")).or(error).unwrap_or_default();
            let (url, said) = (escaped(&url), escaped(&said));
            match taken {
                true => terminal::line(&format!("{url}: {said}")),
                false => Err(Failure::Failed(format!("{url} did not take it: {said}"))),
            }
        }
    }
}

fn cells(alert: &AlertRow) -> Vec<String> {
    let text = |text: &str| escaped(text).into_owned();
    let subject = if alert.subject.is_empty() { "-" } else { &alert.subject };
    vec![list::time(&alert.since).into_owned(), text(&alert.cause), text(subject), text(&alert.message)]
}
