//! The settings of the whole process, as they run: every value parsed and bounded, every default filled in.
//!
//! Nothing here reads or decides; only `check` makes these from a config.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::cidr::Cidr;
use super::values::PublicUrl;
use crate::access_log::AccessSink;
use crate::alert::AlertSettings;
use crate::spans::ExportSettings;
use crate::store::StoreKind;
use crate::tls::TlsFiles;
use crate::trace::Sampling;

/// `[server]`: the listeners and what belongs to the whole process.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub listen: Vec<PublicListener>,
    /// Where authorities and senders come in the clear: for proofs and redirects alone.
    pub http_listen: Option<Listen>,
    /// The listener for health and metrics.
    pub admin: SocketAddr,
    /// Names under which it is asked, beside localhost and addresses.
    pub admin_hosts: Vec<Arc<str>>,
    /// The name under which browsers find the page and its API on the public listener.
    pub inspector_host: Option<Arc<str>>,
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
    pub max_connections: usize,
    /// Those of one address, or of one IPv6 /64.
    pub max_connections_per_address: usize,
    /// Whether the process confines itself to what the config names.
    pub sandbox: bool,
}

/// A public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicListener {
    pub at: Listen,
    pub tls: bool,
    pub proxy_protocol: ProxyProtocol,
    /// Whose certificate everybody has to show here.
    pub clients: Option<Arc<str>>,
    /// Whether an IPv6 address is for IPv6 alone.
    pub v6only: bool,
    /// Who may use a unix socket.
    pub mode: u32,
}

impl PublicListener {
    /// One without TLS or anything else.
    pub(crate) const fn at(at: Listen) -> Self {
        Self { at, tls: false, proxy_protocol: ProxyProtocol::Off, clients: None, v6only: false, mode: 0o600 }
    }
}

/// Whether a proxy says in front of each connection whose it is, and in which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    Off,
    V1,
    V2,
    Any,
}

impl ProxyProtocol {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Any => "any",
        }
    }
}

/// Where a listener comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// It is bound here.
    Address(SocketAddr),
    /// It is inherited under this name: `"fd:NAME"`.
    Inherited(String),
    /// A socket in the file system: `"unix:PATH"`.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Inherited(name) => write!(f, "fd:{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[tls]`: what the public listeners end TLS with.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSettings {
    pub files: TlsFiles,
    pub acme: Option<Arc<AcmeSettings>>,
}

/// `tls.acme`: certificates that the relay gets by itself.
#[derive(Clone, Debug)]
pub(crate) struct AcmeSettings {
    /// Lower case, each once; one may begin with `*.`.
    pub domains: Vec<String>,
    pub email: Option<String>,
    /// The CA, by the URL of its directory.
    pub directory: String,
    /// The root by which the CA's own server is believed, beside the system's.
    pub ca: Option<PathBuf>,
    pub challenge: AcmeChallenge,
    /// A program and its arguments, for dns-01.
    pub dns_hook: Vec<String>,
    pub eab: Option<AcmeEab>,
}

/// How the CA is shown that a domain leads here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AcmeChallenge {
    /// By a handshake on port 443.
    #[default]
    TlsAlpn01,
    /// By a file on port 80.
    Http01,
    /// By a TXT record.
    Dns01,
}

impl AcmeChallenge {
    pub(crate) const ALL: [Self; 3] = [Self::TlsAlpn01, Self::Http01, Self::Dns01];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// What binds an account to one that its owner has at the CA already.
#[derive(Clone)]
pub(crate) struct AcmeEab {
    pub kid: String,
    /// Not there where no secrets are read.
    pub key: Option<Arc<Zeroizing<Vec<u8>>>>,
}

impl fmt::Debug for AcmeEab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeEab").field("kid", &self.kid).finish_non_exhaustive()
    }
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

/// Connections of senders at a time, and of one address, unless the config says otherwise.
pub(crate) const MAX_CONNECTIONS: usize = 10_000;
pub(crate) const MAX_CONNECTIONS_PER_ADDRESS: usize = 500;

/// The store's largest size unless the config says otherwise.
pub(crate) const MAX_STORE_BYTES: u64 = 10 << 30;

/// What is told to those outside.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    /// `[telemetry]`; `None` where no trace is recorded.
    pub telemetry: Option<Telemetry>,
    /// `[log]`: where the access log goes.
    pub access: AccessSink,
    /// `[alert]`.
    pub alert: AlertSettings,
    /// `[canary]`: how often one is sent to each agent.
    pub canary: Option<Duration>,
}

/// `[telemetry]`: traces for an OpenTelemetry collector.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    pub export: ExportSettings,
    pub sampling: Sampling,
}

/// `[limits]`: bounds that hold for the whole relay. Sizes in bytes.
#[derive(Clone, Debug)]
pub(crate) struct ProcessLimits {
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
    /// Memory for the journal.
    pub journal_budget: u64,
    pub timeouts: Timeouts,
}

/// Of `[limits]`: the waits for senders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Longest wait for a whole request head.
    pub header: Duration,
    /// Longest silence while a request body comes in.
    pub body_idle: Duration,
    /// Longest time in which a request body that is collected comes in as a whole.
    pub body: Duration,
    /// Longest silence on a connection or exchange, where the endpoint does not say otherwise.
    pub idle: Duration,
    /// Longest silence of a connection that was upgraded to another protocol.
    pub upgrade_idle: Duration,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self {
            max_body: 25 << 20,
            max_head: 64 << 10,
            max_in_flight_per_agent: 1024,
            max_sessions: 2048,
            body_budget: 256 << 20,
            refused_budget: 32 << 20,
            journal_budget: 16 << 20,
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            body_idle: Duration::from_secs(15),
            body: Duration::from_secs(10 * 60),
            idle: Duration::from_secs(60),
            upgrade_idle: Duration::from_secs(10 * 60),
        }
    }
}
