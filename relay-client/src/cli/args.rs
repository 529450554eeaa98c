//! What can be typed, and the help that explains it.
//!
//! Shapes only: values stay as they were typed where a wrong one must not be quoted, and are checked by the commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    health::HealthAddr,
    inspect::InspectAddr,
    report::{Color, Output},
};

const EXAMPLES: &str = "\
Examples:
  relay-client login https://hooks.example.com
  relay-client listen 3000 github
  relay-client listen 3000 github --relay https://hooks.example.com --token-file token
  relay-client listen http://localhost:8080/webhooks stripe
  relay-client listen unix:/run/app.sock ci --output json
  relay-client listen 3000 github --since 42m
  relay-client listen 3000 alice-stripe --create --provider stripe --secret-file stripe.secret
  relay-client event list github --status 5xx
  relay-client play webhooks.cassette --to 3000 --wait 30s --expect status=2xx --junit results.xml
  relay-client start --config relay-client.toml --health-addr 8081
  relay-client service install
  relay-client doctor 3000

Exit codes: 0 done, 1 failed, 2 usage or config, 3 refused by the relay, 4 not found, 5 unreachable.";

/// Receives webhooks from a relay and calls local handlers
#[derive(Debug, Parser)]
#[command(name = "relay-client", version, propagate_version = true, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Colours in what is printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Says more on standard error; twice for more still. RELAY_LOG takes a filter
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Receives webhooks of one endpoint and calls one handler
    Listen(ListenArgs),
    /// Serves the endpoints of a config file
    Start(StartArgs),
    /// Stores a relay's address and a token for it, after trying them
    Login(LoginArgs),
    /// Tries every step of the way from here to the relay and to the handlers
    Doctor(DoctorArgs),
    /// Shows the webhooks that the relay keeps, and has them once more
    #[command(subcommand)]
    Event(super::event::EventCommand),
    /// Sends signed requests as a provider does, to try an endpoint
    Send(super::send::SendArgs),
    /// Sends a recording to a handler, without a relay, and says which answers are not as expected
    Play(super::play::PlayArgs),
    /// Sends webhooks that were answered to a second handler, and shows what that answers otherwise
    Diff(super::diff::DiffArgs),
    /// Serves an assistant over the Model Context Protocol, on standard input and output
    Mcp(super::mcp::McpArgs),
    /// Checks and shows the config file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Has this system's service manager run the agent
    #[command(subcommand)]
    Service(super::service::ServiceCommand),
    /// Prints a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, or writes all of them into a directory
    Man {
        /// Where to write one page per command
        directory: Option<PathBuf>,
    },
    /// Prints the version
    Version {
        /// As a JSON object, with details of the build
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// How the relay is reached, for those that go there by the config file.
    pub(super) fn reach(&self) -> Option<&ReachArgs> {
        match self {
            Self::Listen(args) => Some(&args.connection.reach),
            Self::Start(args) => Some(&args.connection.reach),
            Self::Doctor(args) => Some(&args.reach),
            Self::Event(command) => Some(command.reach()),
            Self::Diff(args) => args.reach(),
            Self::Mcp(args) => Some(&args.reach),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReachArgs {
    /// The relay's address: https://HOST, or http:// on this machine [default: where `login` was]
    #[arg(long, env = "RELAY_URL", hide_env_values = true, value_name = "URL")]
    pub relay: Option<String>,
    /// A file that holds the token, or - for standard input; read again when it changes. RELAY_TOKEN holds the
    /// token itself
    #[arg(long, env = "RELAY_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with roots to believe for the relay, besides the system's
    #[arg(long, env = "RELAY_CA", value_name = "FILE")]
    pub relay_ca: Option<PathBuf>,
    /// A PEM file with the certificate that the relay is shown, where it asks for one
    #[arg(long, env = "RELAY_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate
    #[arg(long, env = "RELAY_CLIENT_KEY", value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// The proxy before the relay: http://, https://, socks5:// or socks5h://USER:PASSWORD@HOST:PORT, or
    /// "direct" [default: HTTPS_PROXY, ALL_PROXY and NO_PROXY, but not for a relay on this machine]
    #[arg(long, env = "RELAY_PROXY", hide_env_values = true, value_name = "URL")]
    pub proxy: Option<String>,
    /// The config file [default: ./relay-client.toml, or relay/relay-client.toml in the user's config directory]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Who the agent is, how the relay is reached, and what is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectionArgs {
    #[command(flatten)]
    pub reach: ReachArgs,
    /// This agent's name [default: the host's]
    #[arg(long, env = "RELAY_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Answers /livez, and /readyz once every endpoint is attached; a port is one of this machine's loopback
    #[arg(long, env = "RELAY_HEALTH_ADDR", value_name = "ADDR")]
    pub health_addr: Option<HealthAddr>,
    /// Where this agent's own page is, on this machine: a port, ADDRESS:PORT or off; one of the next ten where it is
    /// taken [default: 4040 for `listen` in a terminal, else off]
    #[arg(long, env = "RELAY_INSPECT_ADDR", value_name = "ADDR|off")]
    pub inspect_addr: Option<InspectAddr>,
    /// What is printed [default: `listen` shows a screen where both ends are a terminal, else interactive]
    #[arg(long, value_enum, value_name = "FORM")]
    pub output: Option<Output>,
    /// Draws the screen with ASCII alone [default: as the locale says]
    #[cfg(feature = "screen")]
    #[arg(long)]
    pub ascii: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AttachArg {
    /// Takes turns with other agents
    Shared,
    /// One agent is active, others stand by
    Exclusive,
    /// Gets copies of what others get; senders never see the answers
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum BacklogArg {
    /// It is delivered
    #[default]
    Deliver,
    /// It is ended, for every agent; the token needs the right `skip`
    Skip,
}

#[derive(Debug, Clone, Args)]
#[command(override_usage = "relay-client listen [OPTIONS] [PORT|URL|unix:PATH] [ENDPOINT]")]
pub(crate) struct ListenArgs {
    /// The handler: a port on this machine, http://…, https://… or unix:PATH; then the endpoint, which may be left
    /// out if the token has only one
    #[arg(value_name = "TARGET] [ENDPOINT", num_args = 0..=2)]
    pub positional: Vec<String>,
    /// The handler, as an option
    #[arg(short, long, value_name = "URL")]
    pub forward_to: Option<String>,
    /// Has the relay make the endpoint if it is not there; the token needs the right `create`
    #[arg(long, requires = "provider")]
    pub create: bool,
    /// With --create: whose webhooks it takes; `none` lets anyone in
    #[arg(long, value_name = "PROVIDER", requires = "create")]
    pub provider: Option<String>,
    /// With --create: a file with the provider's secret, or - for standard input; without it the relay makes one, where
    /// the provider lets one choose it
    #[arg(long, value_name = "FILE", requires = "create")]
    pub secret_file: Option<PathBuf>,
    /// How to attach [default: copies while an agent of another name serves the endpoint, else shared]
    #[arg(long, value_enum, value_name = "HOW")]
    pub attach: Option<AttachArg>,
    /// Becomes the active agent at once; implies --attach exclusive
    #[arg(long)]
    pub takeover: bool,
    /// Types of events to take, as the provider names them; `*` stands for any text, as in 'pull_request.*'
    #[arg(short, long, value_name = "TYPE,…", value_delimiter = ',')]
    pub events: Vec<String>,
    /// Has what the endpoint kept since then once more, marked Relay-Replay-Of: how long ago, such as 42m, or a time
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// What becomes of webhooks that waited for an agent
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub backlog: BacklogArg,
    /// A path in place of the target's own
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// A header to set on every request to the handler; may be repeated
    #[arg(short = 'H', long = "header", value_name = "K: V")]
    pub headers: Vec<String>,
    /// Passes on the sender's Host header rather than the target's
    #[arg(long)]
    pub preserve_host: bool,
    /// A protocol that senders may upgrade to beside WebSocket, as `Upgrade` names it; may be repeated
    #[arg(long = "upgrade", value_name = "PROTOCOL")]
    pub upgrades: Vec<relay_proto::UpgradeProtocol>,
    /// Calls to the handler at once [default: 50]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// How long the handler may take to begin its answer [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::check::duration)]
    pub timeout: Option<std::time::Duration>,
    /// A PEM file with roots to believe for the handler, besides the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca_file: Option<PathBuf>,
    /// Believes any certificate of the handler; never of the relay
    #[arg(long, visible_alias = "skip-verify")]
    pub insecure: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StartArgs {
    /// The endpoints to serve [default: all]
    #[arg(value_name = "NAME", conflicts_with = "all")]
    pub names: Vec<String>,
    /// Serves every endpoint of the file
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The relay's address: https://HOST, or http:// on this machine
    #[arg(value_name = "URL")]
    pub relay: String,
    /// A file that holds the token [default: asks for it, or reads standard input if that is no terminal]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with roots to believe for the relay, besides the system's; stored, too
    #[arg(long, env = "RELAY_CA", value_name = "FILE")]
    pub relay_ca: Option<PathBuf>,
    /// The proxy before the relay, as for `listen`; not stored
    #[arg(long, env = "RELAY_PROXY", hide_env_values = true, value_name = "URL")]
    pub proxy: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Handlers to try, besides those of the config file
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub reach: ReachArgs,
    /// As a JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Checks the file, its token and its certificates, without connecting
    Check(ConfigArgs),
    /// Prints the file with every default
    Show(ConfigArgs),
    /// Prints which file is read
    Path(ConfigArgs),
    /// Agrees that a file of the current folder says where the token goes: its relay, token, relay_ca,
    /// client_cert, client_key and proxy
    Allow {
        /// The file [default: ./relay-client.toml]
        file: Option<PathBuf>,
    },
    /// Takes that back
    Deny {
        /// The file [default: ./relay-client.toml]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}
