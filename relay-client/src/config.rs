//! What the agent runs with: checked, complete, and independent of where it came from.
//!
//! Types here hold only values that can run. What was typed in files becomes these types in [`check`];
//! flags are laid over them in [`crate::cli`]. Nothing here connects anywhere.
//!
//! Invariants: a [`Config`] names at least one endpoint; a plain connection to the relay is only possible to this
//! machine; no secret is part of it, except a token that was read from standard input.

pub(crate) mod agreement;
pub(crate) mod check;
pub(crate) mod find;
pub(crate) mod login;
pub(crate) mod proxy;
pub(crate) mod relay_url;
pub(crate) mod token;

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use relay_program::tls::Identity;
use relay_proto::{Attach, Rate, UpgradeProtocol};
use uuid::Uuid;

pub(crate) use self::{
    proxy::Proxy,
    relay_url::RelayUrl,
    token::{Token, TokenError, TokenSource},
};
use crate::handler::TargetConfig;

/// A relay, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub relay: RelayUrl,
    /// A PEM file with roots believed besides the system's, for the relay and for a proxy under TLS.
    pub relay_ca: Option<PathBuf>,
    /// The certificate that the relay is shown.
    pub identity: Option<Identity>,
    pub proxy: Proxy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub way: Way,
    /// Where the token is read, at each connect.
    pub token: TokenSource,
    /// The agent's name; the host's unless the user chose one.
    pub name: String,
    /// This process, among those of the same token and name.
    pub instance: Uuid,
    /// What is offered to the relay; never empty.
    pub endpoints: Vec<EndpointConfig>,
    /// What its endpoints kept from then on is asked for once more, when the agent comes.
    pub since: Option<Timestamp>,
    pub on_refused: OnRefused,
    /// The files that this was read from, and the token's: a change of one is a reason to read them again.
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointConfig {
    /// The endpoint's name; `None` asks the relay for the token's only one.
    pub name: Option<String>,
    pub attach: Attach,
    /// With [`Attach::Exclusive`]: become active at once.
    pub takeover: bool,
    /// Types of events that it takes, `*` standing for any text; none means all.
    pub events: Vec<String>,
    /// Whether nothing of what waits there when the agent comes is wanted.
    pub skip_backlog: bool,
    pub rate: Option<Rate>,
    /// What senders may upgrade to, beside WebSocket.
    pub upgrades: Vec<UpgradeProtocol>,
    /// The handler of whatever no route takes.
    pub handler: HandlerConfig,
    /// Handlers by path; paths are unique.
    pub routes: Vec<RouteConfig>,
}

impl EndpointConfig {
    pub(crate) fn new(name: Option<String>, handler: HandlerConfig) -> Self {
        Self {
            name,
            attach: Attach::Shared,
            takeover: false,
            events: Vec::new(),
            skip_backlog: false,
            rate: None,
            upgrades: Vec::new(),
            handler,
            routes: Vec::new(),
        }
    }

    /// Those of its routes, too.
    pub(crate) fn handlers(&self) -> impl Iterator<Item = &HandlerConfig> {
        std::iter::once(&self.handler).chain(self.routes.iter().map(|route| &route.handler))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandlerConfig {
    /// Where it lives and how it is called.
    pub target: TargetConfig,
    /// Headers set on every request, in place of the sender's of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the handler sees the sender's `Host` rather than the target's.
    pub preserve_host: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteConfig {
    /// Begins with `/` and does not end with one.
    pub path: String,
    /// Whether the handler sees only what follows the path.
    pub strip_prefix: bool,
    pub handler: HandlerConfig,
}

/// What the agent does when the relay refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnRefused {
    /// Says so and ends, with exit code 3: `listen`.
    Exit,
    /// Tries again after this long: `start`.
    RetryAfter(Duration),
}

/// The name of this host, for an agent that was given none.
pub(crate) fn host_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    if name.is_empty() { "agent".to_owned() } else { name }
}
