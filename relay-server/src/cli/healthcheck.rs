//! `healthcheck`: asks a running relay whether it runs, for a supervisor that can only start programs.
//!
//! Needs no token, and says what it was told. A relay that runs and is not ready is well unless `--ready` asks for more:
//! a restart gives it no certificate and no store.

use relay_program::{Failure, terminal};

use super::remote::Remote;

#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {
    /// Asks whether it takes webhooks (/readyz) rather than whether it runs (/livez)
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(arguments: &Healthcheck) -> Result<(), Failure> {
    let path = if arguments.ready { "/readyz" } else { "/livez" };
    let (status, said) = arguments.remote.probe(path)?;
    let said = String::from_utf8_lossy(&said);
    match status.is_success() {
        true => terminal::line(said.trim_end()),
        false => Err(Failure::Failed(format!("{path}: {status}: {}", said.trim_end()))),
    }
}
