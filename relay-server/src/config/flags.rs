//! What the command line and the environment say, before any of it is judged. Stands above the file.
//!
//! No parsing of arguments here (`cli` does it) and no checks (`check` does them, with the same words as for the file).

use std::path::PathBuf;

use crate::agents::token::AgentToken;

/// Values that stand above those of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub listen: Option<String>,
    pub admin: Option<String>,
    pub state_dir: Option<PathBuf>,
    pub store: Option<String>,
    pub public_url: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// `--endpoint NAME=PROVIDER`, beside those of the file.
    pub endpoints: Vec<String>,
    /// `--secret NAME=REF`, instead of what the file says for that endpoint.
    pub secrets: Vec<String>,
    pub dev: Option<Dev>,
}

/// A relay for trying things out: no file, loopback only, one token that lives as long as the process.
#[derive(Clone, Debug)]
pub(crate) struct Dev {
    /// The throw-away token. Made once, so that a reload keeps it.
    pub token: AgentToken,
}
