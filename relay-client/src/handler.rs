//! Calls to one handler: one target, a small pool of connections, firm limits.
//!
//! A call goes out over a connection kept from an earlier call or over a new one, and its answer comes back as it
//! is. It deliberately does not follow redirects, decompress, keep cookies, use proxies, or add headers: the caller
//! sends what the sender sent, `Host` included. After a 101 the call becomes the raw connection.
//!
//! Invariants:
//! - at most `max_connections` calls are under way at once; the others wait, within their total timeout;
//! - a connection is used again only after an answer was read to its clean end;
//! - whoever drops a call or an answer midway closes its connection: that is how a handler learns of a cancel;
//! - a request is sent once: a connection that has closed is found out before anything is written to it.

mod call;
mod connect;
mod pool;

#[cfg(test)]
mod tests;

use std::{error::Error as StdError, num::NonZeroUsize, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

pub(crate) use self::call::{Call, HandlerRequest};
use self::pool::{Connection, Pool};
use crate::{
    target::Target,
    tls::{self, Trust},
};

/// Calls at once to one target, unless the user says otherwise.
pub(crate) const DEFAULT_MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(50).expect("fifty is not zero");

/// What a request body may fail with.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// How one target is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetConfig {
    pub target: Target,
    /// Calls at once; more wait.
    pub max_connections: NonZeroUsize,
    pub timeouts: Timeouts,
    /// Whose certificates are believed, for `https` targets.
    pub trust: Trust,
}

impl TargetConfig {
    /// A target with every default.
    pub(crate) fn new(target: Target) -> Self {
        Self { target, max_connections: DEFAULT_MAX_CONNECTIONS, timeouts: Timeouts::default(), trust: Trust::Platform }
    }
}

/// How long a call may wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the head of the answer, from the end of the request.
    pub head: Duration,
    /// Between two pieces of a body, in either direction, while the other side is ready for them.
    pub idle: Duration,
    /// For everything, the wait for a free connection included.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(4 * 60 * 60),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Timeout {
    /// [`Timeouts::total`], spent waiting for other calls to end: the handler saw nothing of the request.
    #[error("other calls took all its connections")]
    Queue,
    /// [`Timeouts::connect`]: the handler saw nothing of the request.
    #[error("no connection in time")]
    Connect,
    #[error("no answer in time")]
    Head,
    #[error("fell silent in the middle of a body")]
    Idle,
    #[error("not done in time")]
    Total,
}

/// Why a call gave no answer, or an answer no end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No connection could be made: the handler saw nothing of the request.
    #[error("handler unreachable: {0}")]
    Unreachable(String),
    /// The connection failed after something was sent: the handler may have acted.
    #[error("handler broke off: {0}")]
    Broken(String),
    /// The request's own body failed, which is not the handler's doing.
    #[error("request body failed: {0}")]
    RequestBody(String),
    #[error("handler too slow: {0}")]
    Timeout(Timeout),
}

impl CallError {
    /// Whether the handler may have seen something of the request. If not, it was not called.
    pub(crate) fn may_have_been_seen(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Timeout(Timeout::Queue | Timeout::Connect))
    }
}

/// Calls one target.
pub(crate) struct Handler {
    pub(crate) target: Target,
    /// The target's own `Host` header, for callers that do not pass on the sender's.
    pub(crate) host: HeaderValue,
    timeouts: Timeouts,
    tls: Option<TlsConnector>,
    permits: Arc<Semaphore>,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handler").field(&self.target.to_string()).finish()
    }
}

impl Handler {
    /// Prepares to call a target; connects to nothing. Reads the CA file, if there is one. The error says why the target
    /// can never be called.
    pub(crate) fn new(config: &TargetConfig) -> Result<Self, String> {
        let target = config.target.clone();
        let authority = target.authority();
        let host = HeaderValue::from_str(&authority).map_err(|_| format!("{authority:?} is not a usable host name"))?;
        let mut tls = None;
        if target.is_tls() {
            let config = tls::client_config(&config.trust).map_err(|error| error.to_string())?;
            tls = Some(TlsConnector::from(Arc::new(config)));
        }
        let connections = config.max_connections.get().min(Semaphore::MAX_PERMITS);
        Ok(Self {
            target,
            host,
            timeouts: config.timeouts,
            tls,
            permits: Arc::new(Semaphore::new(connections)),
            pool: Arc::new(Pool::new(connections)),
        })
    }

    /// Opens a connection, TLS included, and closes it: whether anybody is there. Nothing is sent.
    pub(crate) async fn try_connect(&self) -> Result<(), CallError> {
        let deadline = Instant::now() + self.timeouts.total;
        self.connect(deadline).await.map(drop)
    }

    async fn connect(&self, deadline: Instant) -> Result<Box<Connection>, CallError> {
        let connect_by = deadline.min(Instant::now() + self.timeouts.connect);
        timeout_at(connect_by, connect::connect(&self.target, self.tls.as_ref()))
            .await
            .map_err(|_| CallError::Timeout(Timeout::Connect))?
    }
}
