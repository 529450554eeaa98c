//! What the relay would run with: every value parsed and bounded, every default filled in, secrets still references.
//!
//! Between `raw` (what was typed) and `Config` (what runs) so that a config can be checked and shown where its secrets
//! are not at hand. Nothing here reads or decides. Invariant: only `check` makes an [`Effective`] from a config.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_proto::{Rate, UpgradeProtocol};
use relay_schemes::Provider;

use super::cidr::Cidr;
use super::error::Place;
use super::secret_ref::SecretRef;
use super::values::PublicUrl;
use crate::agents::token::{Pattern, Right, TokenHash};
use crate::endpoint::{EndpointName, Keeping, Replay};
use crate::store::StoreKind;

/// `[server]`: the listeners and what belongs to the whole process.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// The public listener, for senders and agents.
    pub listen: Listen,
    /// The listener for health and metrics.
    pub admin: SocketAddr,
    /// Names under which it is asked, beside localhost and addresses.
    pub admin_hosts: Vec<Arc<str>>,
    /// Where the relay keeps small files of its own; `None` for a directory that ends with the process.
    pub state_dir: Option<PathBuf>,
    /// The address under which the public listener is reached from outside.
    pub public_url: Option<PublicUrl>,
    /// Proxies whose `X-Forwarded-…` headers are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// How long a planned stop waits for what is in flight.
    pub drain_timeout: Duration,
    /// One-thread runtimes; one per core unless set.
    pub workers: NonZeroUsize,
    /// Public connections open at a time.
    pub max_connections: usize,
    /// Those of one address, or of one IPv6 /64.
    pub max_connections_per_address: usize,
}

/// Where the public listener comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// It is bound here.
    Address(SocketAddr),
    /// It is inherited under this name: `"fd:NAME"`.
    Inherited(String),
}

impl Listen {
    /// Whether it is known to be reachable from this machine alone.
    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self, Self::Address(address) if address.ip().is_loopback())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Inherited(name) => write!(f, "fd:{name}"),
        }
    }
}

/// `[tls]`: the certificate chain and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// `[store]`: where events are kept, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct StoreSpec {
    pub kind: StoreKind,
    /// Largest size, in bytes. Events that wait are never removed for it.
    pub max_bytes: u64,
    /// How long ended events stay.
    pub retention: Duration,
    /// How long an event waits before it becomes a dead letter.
    pub pending_retention: Duration,
}

/// `[limits]`: bounds that hold for the whole relay. Sizes in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Largest request body, where the endpoint does not say otherwise.
    pub max_body: u64,
    /// Largest request head: request line and headers.
    pub max_head: usize,
    /// Exchanges open at a time with one agent.
    pub max_in_flight_per_agent: u32,
    /// Sessions of agents at a time, all together.
    pub max_sessions: usize,
    /// Memory for request heads and collected bodies, all together.
    pub body_budget: u64,
    /// Memory for the log of refused requests.
    pub refused_budget: u64,
    /// Longest wait for a whole request head.
    pub header_timeout: Duration,
    /// Longest silence while a request body comes in.
    pub body_idle_timeout: Duration,
    /// Longest time in which a request body that is collected comes in as a whole.
    pub body_timeout: Duration,
    /// Longest silence on a connection or exchange, where the endpoint does not say otherwise.
    pub idle_timeout: Duration,
    /// Longest silence of a connection that was upgraded to another protocol.
    pub upgrade_idle_timeout: Duration,
}

/// A whole config, before its secrets are read.
#[derive(Debug)]
pub(super) struct Effective {
    pub(super) server: Server,
    pub(super) tls: Option<TlsFiles>,
    pub(super) tls_place: Place,
    pub(super) limits: Limits,
    pub(super) store: StoreSpec,
    pub(super) endpoints: Vec<EndpointSpec>,
    pub(super) tokens: Vec<TokenSpec>,
}

/// One `[[endpoint]]`, before its secrets are read.
#[derive(Debug)]
pub(super) struct EndpointSpec {
    pub(super) name: EndpointName,
    pub(super) verify: VerifySpec,
    pub(super) verify_place: Place,
    pub(super) deadline: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_body: u64,
    /// The keys whose values come from the provider's row.
    pub(super) preset: Vec<&'static str>,
    pub(super) wait_for_agent: Duration,
    pub(super) hosts: Vec<Arc<str>>,
    pub(super) allow: Vec<Cidr>,
    pub(super) replay: Replay,
    pub(super) exclusive: bool,
    pub(super) upgrades: Vec<UpgradeProtocol>,
    pub(super) rate: Option<Rate>,
    pub(super) concurrency: Option<NonZeroU32>,
    pub(super) keeping: Option<Keeping>,
}

/// What `verify` asks for.
#[derive(Debug)]
pub(super) enum VerifySpec {
    Open,
    Signed { provider: Arc<Provider>, secrets: Vec<(SecretRef, Place)>, options: Box<VerifyOptions> },
}

impl VerifySpec {
    pub(super) fn provider(&self) -> Option<&Provider> {
        match self {
            Self::Signed { provider, .. } => Some(provider),
            Self::Open => None,
        }
    }

    /// How old a first arrival may be: who sets a tolerance means it, and what passes unproven needs no more time.
    pub(super) fn last_retry(&self) -> Option<Duration> {
        match self {
            Self::Signed { provider, options, .. } if options.enforce && options.tolerance.is_none() => {
                provider.last_retry
            }
            _ => None,
        }
    }
}

/// What an endpoint decides beside its provider's row.
#[derive(Debug)]
pub(super) struct VerifyOptions {
    pub(super) enforce: bool,
    pub(super) tolerance: Option<Duration>,
    pub(super) public_url: Option<String>,
    /// A value that is a reference is read from there.
    pub(super) settings: BTreeMap<String, Vec<String>>,
    pub(super) jwks: Option<KeySet>,
    pub(super) named_keys: Vec<(String, (SecretRef, Place))>,
    pub(super) verify_token: Option<(SecretRef, Place)>,
    pub(super) allow_unsigned_challenge: bool,
    pub(super) confirm: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            enforce: true,
            tolerance: None,
            public_url: None,
            settings: BTreeMap::new(),
            jwks: None,
            named_keys: Vec::new(),
            verify_token: None,
            allow_unsigned_challenge: false,
            confirm: false,
        }
    }
}

/// Where a JSON Web Key Set is.
#[derive(Debug)]
pub(super) enum KeySet {
    /// It is read with the config.
    Kept(SecretRef, Place),
    /// It is fetched.
    Url(String),
}

/// One `[[token]]`, before its secrets are read.
#[derive(Debug)]
pub(super) struct TokenSpec {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) hashes: Vec<TokenHash>,
    pub(super) secrets: Vec<(SecretRef, Place)>,
    pub(super) endpoints: Vec<Pattern>,
    pub(super) rights: Vec<Right>,
    pub(super) max_sessions: usize,
}
