//! Commands that only print: completions, manual pages, the version; and how everything is printed.
//!
//! Invariants: nothing reaches a terminal from here with characters in it that steer one; a reader that has gone away
//! ends a command without a word, and never in a panic.

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    path::Path,
};

use clap::CommandFactory as _;
use relay_proto::printable;
use serde_json::json;

use super::{Failure, args::Cli};

/// Prints a result.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(printable::lines(text).as_bytes())
}

/// Prints a body byte for byte; on a terminal as text in which nothing steers it.
pub(super) fn print_body(bytes: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(&String::from_utf8_lossy(bytes)) } else { write(bytes) }
}

/// Tells something on standard error, as far as there is one. It may quote what somebody typed, but no password in an
/// address.
pub(super) fn tell(text: &str) {
    let text = printable::without_passwords(text);
    let _ = io::stderr().write_all(printable::lines(&text).as_bytes());
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
        Err(error) => Err(Failure::Failed(crate::reason::of_io(&error))),
    }
}

/// A completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "relay-client", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints the manual page, or writes the pages of all commands into a directory.
pub(super) fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("manual pages: {}", crate::reason::of_io(&error)));
    if let Some(directory) = directory {
        return clap_mangen::generate_to(Cli::command(), directory).map_err(failed);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed)?;
    print(&String::from_utf8_lossy(&page))
}

/// The version, short or with details.
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
