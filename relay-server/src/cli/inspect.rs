//! `inspect`: the address of a running relay's page, with a code that logs in once, within a minute.

use std::process::Stdio;

use relay_program::{Failure, api::SessionCode, process::users_program, terminal};
use serde::Deserialize as _;

use super::remote::Remote;

#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    /// Also open it in this machine's browser
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(arguments: &Inspect) -> Result<(), Failure> {
    let made = arguments.remote.post("/api/v1/sessions/codes")?;
    let SessionCode { url, .. } = SessionCode::deserialize(&made)?;
    terminal::line(&url)?;
    if arguments.open {
        let browser = users_program("xdg-open").arg(&url).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        browser.map_err(|error| {
            Failure::Failed(format!("xdg-open cannot be run: {error}; open the address above by hand"))
        })?;
    }
    Ok(())
}
