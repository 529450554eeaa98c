//! What the agent runs with: checked, complete, and independent of where it came from.
//!
//! Types here hold only values that can run. Files are parsed in [`raw`] and become these types in [`check`];
//! flags are laid over them in [`crate::cli`]. Nothing here connects anywhere.
//!
//! Invariants: a [`Config`] names at least one endpoint; a plain connection to the relay is only possible to this
//! machine; no secret is part of it, except a token that was read from standard input.

pub mod check;
pub mod find;
pub mod problem;
pub mod raw;
pub mod relay_url;
pub mod show;
pub mod token;

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};
use uuid::Uuid;

pub use self::{
    problem::{Invalid, Problem},
    relay_url::RelayUrl,
    token::{Token, TokenError, TokenSource},
};
use crate::handler::TargetConfig;

/// Everything a running agent needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The relay to connect to.
    pub relay: RelayUrl,
    /// PEM file with roots that are believed for the relay, besides the system's.
    pub relay_ca: Option<PathBuf>,
    /// Where the token is read, at each connect.
    pub token: TokenSource,
    /// The agent's name; the host's unless the user chose one.
    pub name: String,
    /// This process, among those of the same token and name.
    pub instance: Uuid,
    /// What is offered to the relay; never empty.
    pub endpoints: Vec<EndpointConfig>,
    /// What a refusal means.
    pub on_refused: OnRefused,
}

/// One endpoint and the handler behind it.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The endpoint's name; `None` asks the relay for the token's only one.
    pub name: Option<String>,
    /// The handler.
    pub target: TargetConfig,
    /// Headers set on every request, in place of the sender's of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the handler sees the sender's `Host` rather than the target's.
    pub preserve_host: bool,
}

/// What the agent does when the relay refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRefused {
    /// Says so and ends, with exit code 3: `listen`.
    Exit,
    /// Tries again after this long: `start`.
    RetryAfter(Duration),
}

/// The name of this host, for an agent that was given none.
#[must_use]
pub fn host_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    if name.is_empty() { "agent".to_owned() } else { name }
}
