//! The command line: from arguments to an exit code.
//!
//! Parses, picks the command, prints its error once. Arguments are read twice: [`args`] takes them as they were
//! typed, the commands make checked values of them. Texts that may hold a secret, such as URLs and headers, are
//! parsed in the second step, since the first quotes what it cannot read.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or config, 3 refused by the relay, 4 not found, 5 unreachable, 130
//! interrupted a second time before the drain was over, 141 drained since nobody reads the output any more. Any other
//! command whose output nobody reads on ends with 0.

pub(crate) mod args;
mod config;
mod consent;
mod create;
mod diff;
mod doctor;
mod event;
mod listen;
mod login;
mod mcp;
mod misc;
mod page;
mod play;
mod run;
mod send;
mod service;
mod settings;
mod start;
#[cfg(test)]
mod tests;
mod view;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use relay_program::{Failure, process, terminal};

use self::{
    args::{Cli, Command},
    page::Page,
    view::Unasked,
};
use crate::{agent::RunError, config::find::Places};

/// The user did not wait for the drain.
const INTERRUPTED: Failure = Failure::Reported(130);
/// Whoever read the output has seen enough, and a supervisor should start the agent again: as a shell says it of a
/// program that SIGPIPE ended.
const UNREAD_STREAM: Failure = Failure::Reported(141);

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Refused(_) => Self::Reported(3),
            RunError::Unusable(_) => Self::Usage(error.to_string()),
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// Runs the command given as arguments, the program's name first.
pub fn main_from<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    process::hide_memory();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions come this way too, with code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Reported(_)) {
                terminal::note(&format!("error: {failure}"));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    run::start_logging(cli.verbose)?;
    let places = Places::of_process();
    if let Some(reach) = cli.command.reach() {
        consent::ask(reach, &places)?;
    }
    match cli.command {
        Command::Listen(args) => {
            let connection = args.connection.clone();
            let page = Page::of_listen(&connection, &places);
            let create = create::wanted(&args, std::io::stdin())?;
            let read = move |stdin: &mut dyn std::io::Read| listen::config(&args, &places, stdin);
            run::run(&connection, cli.color, page, Unasked::View, create, read)
        }
        Command::Start(args) => {
            let connection = args.connection.clone();
            let page = Page::of_start(&connection, &places);
            let read = move |stdin: &mut dyn std::io::Read| start::config(&args, &places, stdin);
            run::run(&connection, cli.color, page, Unasked::Lines, None, read)
        }
        Command::Login(args) => terminal::print(&login::run(&args, &places, std::io::stdin())?),
        Command::Doctor(args) => doctor::run(&args, &places, std::io::stdin()),
        Command::Event(command) => event::run(&command, &places, std::io::stdin()),
        Command::Send(args) => send::run(&args, std::io::stdin()),
        Command::Diff(args) => diff::run(&args, &places, std::io::stdin()),
        Command::Mcp(args) => mcp::run(&args, &places),
        Command::Play(args) => play::run(&args, std::io::stdin()),
        Command::Service(command) => service::run(&command, &places),
        Command::Config(command) => terminal::print(&config::run(&command, &places)?),
        Command::Completions { shell } => terminal::print(&misc::completions(shell)),
        Command::Man { directory } => misc::man(directory.as_deref()),
        Command::Version { json } => terminal::print(&misc::version(json)),
    }
}
