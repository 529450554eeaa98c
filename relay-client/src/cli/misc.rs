//! Commands that only print: completions, manual pages, the version.

use std::{io, path::Path};

use clap::CommandFactory as _;
use relay_program::{Failure, terminal};
use serde_json::json;

use super::args::Cli;

pub(super) fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "relay-client", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints the manual page, or writes the pages of all commands into a directory.
pub(super) fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("manual pages: {}", relay_program::reason::of_io(&error)));
    if let Some(directory) = directory {
        return clap_mangen::generate_to(Cli::command(), directory).map_err(failed);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed)?;
    terminal::print(&String::from_utf8_lossy(&page))
}

pub(super) fn version(as_json: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if !as_json {
        return format!("relay-client {version}\n");
    }
    let details = json!({
        "name": "relay-client",
        "version": version,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "tls": "rustls, aws-lc-rs",
        "protocol": relay_proto::SUBPROTOCOL,
    });
    format!("{details}\n")
}
