//! The server's command line. Results go to standard output, the rest to standard error.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage or config, 3 refused, 4 not found, 5 unreachable. Errors are printed here, once.
//! A command whose output nobody reads on ends with 0.

mod alert;
mod apply;
mod audit;
mod dead;
mod endpoint;
mod event;
mod explain;
mod healthcheck;
mod init;
mod inspect;
mod provider;
mod remote;
mod serve;
mod token;
mod vectors;

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use relay_program::{
    Failure,
    config::{Problem, Problems},
    http1::encoded,
    log_filter, process, terminal,
};
use relay_proto::printable::LogLines;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    agents::token::AgentToken,
    app,
    config::{Config, ConfigSource, Dev, EditError, Flags, dev_banner, shown_json},
    limits::{self, SetLimits},
    log::{JsonLines, TextLines},
    sandbox::{self, Sandbox},
    store::StoreError,
};

#[derive(Debug, Parser)]
#[command(name = "relay-server", version, about = "The public side of a webhook relay")]
#[command(
    after_help = "Examples:\n  relay-server serve --dev\n  relay-server serve --config relay.toml\n  relay-server token create laptop --endpoints github"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay
    Serve(Serve),
    /// Write a config and its secret files, and say what to paste where
    Init(init::Init),
    /// Look at the config
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Manage the agents' tokens, in the config file or in a running relay
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Look at what a running relay keeps and has refused, and act on it
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Dead letters of a running relay
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// What an operator has to know of a running relay
    #[command(subcommand)]
    Alert(alert::AlertCommand),
    /// Look at a running relay's endpoints, and hold back what waits
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Look at who did what at a running relay
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Put a file's endpoints and tokens in the place of those that a running relay has from one
    Apply(apply::Apply),
    /// Copy a running relay's store into a new file
    Backup {
        /// The new file
        file: PathBuf,
        #[command(flatten)]
        remote: remote::Remote,
    },
    /// Say which usual mistake a refused request is
    Explain(explain::Explain),
    /// Look at the providers whose signatures the relay can check
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Print an address that opens a running relay's page and logs in, once
    Inspect(inspect::Inspect),
    /// Ask a running relay whether it is well, for a container's health check
    Healthcheck(healthcheck::Healthcheck),
    /// Run test vectors through the relay's own verification
    Vectors(vectors::Vectors),
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them into a directory
    Man {
        /// Where to write one page per command
        directory: Option<PathBuf>,
    },
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// The config file; else ./relay.toml, $XDG_CONFIG_HOME/relay/relay.toml or /etc/relay/relay.toml
    #[arg(long, env = "RELAY_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Try it out: this machine only, a throw-away token, an open endpoint `dev`
    #[arg(long)]
    dev: bool,
    /// How the log is written
    #[arg(long, env = "RELAY_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every value that the relay would run with; secrets stay references
    Show {
        /// The config file
        #[arg(long, env = "RELAY_CONFIG")]
        config: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the config and name everything that is wrong with it
    Check {
        /// The config file
        #[arg(long, env = "RELAY_CONFIG")]
        config: Option<PathBuf>,
    },
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// Runs the command given as arguments, the program's name first.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    process::hide_memory();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let Err(failure) = dispatch(cli.command) else { return ExitCode::SUCCESS };
    match &failure {
        Failure::Reported(_) => {}
        // Each of its lines says where it is from.
        Failure::Config(errors) => terminal::note(errors),
        other => terminal::note(&format!("error: {other}")),
    }
    ExitCode::from(failure.exit_code())
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(arguments) => serve(arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Config(ConfigCommand::Check { config }) => {
            let config = ConfigSource::at(config).load()?;
            config.warnings.iter().for_each(warn);
            sandbox_lacks(&config).iter().for_each(|what| terminal::note(&format!("warning: {what}")));
            let count = |count, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            let (endpoints, tokens) = (config.endpoints.len(), config.tokens.len());
            terminal::line(&format!("ok: {}, {}", count(endpoints, "endpoint"), count(tokens, "token")))
        }
        Command::Config(ConfigCommand::Show { config, json }) => {
            let config = ConfigSource::at(config).without_secrets()?;
            let set = SetLimits::from(&config);
            if json {
                let mut shown = shown_json(&config.shown);
                shown["every_limit"] = limits::as_json(&set);
                terminal::line(&format!("{shown:#}"))
            } else {
                let lacks: String = sandbox_lacks(&config).iter().map(|what| format!("# {what}\n")).collect();
                terminal::print(&(config.shown.to_toml().to_owned() + &limits::fixed_as_comments(&set) + &lacks))
            }
        }
        Command::Token(command) => token::run(command),
        Command::Event(command) => event::run(&command),
        Command::Dead(command) => dead::run(&command),
        Command::Endpoint(command) => endpoint::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Alert(command) => alert::run(&command),
        Command::Apply(arguments) => apply::run(&arguments),
        Command::Backup { file, remote } => {
            let file = std::path::absolute(&file).map_err(anyhow::Error::from)?;
            let to = encoded(&file.to_string_lossy());
            remote.post(&format!("/api/v1/backup?to={to}")).map(drop)
        }
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Provider(command) => provider::run(&command),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Vectors(arguments) => vectors::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "relay-server", &mut script);
            terminal::print(&String::from_utf8_lossy(&script))
        }
        Command::Man { directory: Some(directory) } => {
            let written = clap_mangen::generate_to(Cli::command(), &directory);
            Ok(written.with_context(|| format!("manual pages in {}", directory.display()))?)
        }
        Command::Man { directory: None } => {
            let mut page = Vec::new();
            let man = clap_mangen::Man::new(Cli::command());
            man.render(&mut page)?;
            terminal::print(&String::from_utf8_lossy(&page))
        }
        Command::Version { json: false } => terminal::line(concat!("relay-server ", env!("CARGO_PKG_VERSION"))),
        Command::Version { json: true } => {
            let version = serde_json::json!({ "name": "relay-server", "version": env!("CARGO_PKG_VERSION") });
            terminal::line(&version.to_string())
        }
    }
}

fn serve(arguments: Serve) -> Result<(), Failure> {
    let dev = arguments.dev.then(new_token).transpose()?.map(|token| Dev { token });
    let flags = Flags { dev: dev.clone(), ..arguments.flags };
    let mut source = ConfigSource { path: arguments.config, flags, confined: None };
    let config = source.load()?;
    // The log has a thread of its own, and only what begins afterwards is confined.
    let sandbox = config.server.sandbox.then(|| serve::confine(&mut source, &config)).transpose()?;
    let _log = start_log(arguments.log_format)?;
    sandbox.iter().for_each(Sandbox::log);
    let ran = serve::run(&source, &config, |started| {
        started.warnings.iter().for_each(warn);
        let http = started.http.map(tracing::field::display);
        let listeners = started.listeners.join(", ");
        let public = started.public.map(|public| public.to_string());
        let public = public.as_ref().or(started.listeners.first()).map_or("", String::as_str);
        tracing::info!(%public, admin = %started.admin, http, listeners, "listening");
        if let Some(dev) = &dev {
            if let Some(public) = started.public {
                terminal::note(&dev_banner(public, config.tls.is_some(), dev, &config.endpoints));
            }
            terminal::note(&admin_banner(started));
            if let Some(page) = &started.page {
                terminal::note(&format!("Look at what comes, in a browser (this address logs in once):\n  {page}\n"));
            }
        }
    });
    // What only shows once the rows of the store stand beside the file's.
    ran.map_err(|error| error.downcast::<Problems>().map_or_else(failure, Failure::from))
}

/// What this machine's kernel leaves open though the config asks for a sandbox.
fn sandbox_lacks(config: &Config) -> Vec<String> {
    let lacking = if config.server.sandbox { sandbox::lacking() } else { Vec::new() };
    lacking.iter().map(|what| format!("server.sandbox: this kernel does not confine {what}")).collect()
}

/// A store of another version is named by the config, and another start is of no help.
fn failure(error: anyhow::Error) -> Failure {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Incompatible(_)) => Failure::Usage(format!("{error:#}")),
        _ => error.into(),
    }
}

fn new_token() -> Result<AgentToken, Failure> {
    AgentToken::generate().map_err(no_randomness)
}

fn no_randomness(error: getrandom::Error) -> Failure {
    Failure::Failed(format!("no randomness: {error}"))
}

/// How the command line reaches a relay without a config file.
fn admin_banner(started: &app::Started) -> String {
    format!(
        "Ask it what it keeps (--state refused: what it refused):\n  relay-server event list --admin-url http://{} --admin-token-file {}\n",
        started.admin,
        started.token_file.display()
    )
}

fn warn(warning: &Problem) {
    terminal::note(&format!("warning: {warning}"));
}

/// Lines of the log that wait for their reader; beyond this they are dropped. Whoever reads the log never holds up
/// a webhook.
const LOG_LINES: usize = 8192;

/// Sends the log to standard error, from a thread of its own, until the guard is dropped.
fn start_log(format: LogFormat) -> Result<WorkerGuard, Failure> {
    let filter = log_filter::from_env(LevelFilter::INFO)?;
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LOG_LINES).finish(io::stderr());
    let colours = matches!(format, LogFormat::Text) && io::IsTerminal::is_terminal(&io::stderr());
    let log = tracing_subscriber::fmt().with_writer(move || LogLines::new(writer.clone(), colours));
    // Where there are no colours, `LogLines` leaves no sequence of a terminal in a field.
    let log = log.with_ansi(colours).with_ansi_sanitization(colours).with_max_level(LevelFilter::TRACE);
    let _ = match format {
        LogFormat::Text => log.event_format(TextLines).finish().with(filter).try_init(),
        LogFormat::Json => log.json().event_format(JsonLines).finish().with(filter).try_init(),
    };
    Ok(guard)
}
