//! What the command line and the environment say, before any of it is judged. Stands above the file.
//!
//! No checks here: `check` does them, with the same words as for the file.

use std::path::PathBuf;

use crate::agents::token::AgentToken;

/// Values that stand above those of the file. The comments are what `serve --help` says.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// The public address to listen on
    #[arg(long, env = "RELAY_LISTEN")]
    pub listen: Option<String>,
    /// The address for the API, /livez and /readyz
    #[arg(long, env = "RELAY_ADMIN")]
    pub admin: Option<String>,
    /// A directory for the relay's own small files; else $STATE_DIRECTORY, or relay-state beside the config file, or
    /// /var/lib/relay where that lies in /etc
    #[arg(long, env = "RELAY_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where events are kept, sqlite:FILE or memory: [default: relay.db in the state directory]
    #[arg(long, env = "RELAY_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// The address under which the relay is reached from outside
    #[arg(long, env = "RELAY_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// The certificate chain, PEM
    #[arg(long, env = "RELAY_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, env = "RELAY_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Where traces go, over OTLP/HTTP
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp: Option<String>,
    /// An endpoint beside those of the file
    #[arg(long = "endpoint", value_name = "NAME=PROVIDER")]
    pub endpoints: Vec<String>,
    /// Where an endpoint's secret is
    #[arg(long = "secret", value_name = "NAME=env:VAR|file:PATH")]
    pub secrets: Vec<String>,
    #[arg(skip)]
    pub dev: Option<Dev>,
}

/// A relay for trying things out: no file, loopback only, one token that lives as long as the process.
#[derive(Clone, Debug)]
pub(crate) struct Dev {
    /// The throw-away token. Made once, so that a reload keeps it.
    pub token: AgentToken,
}
