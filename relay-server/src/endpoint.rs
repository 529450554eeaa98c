//! An endpoint as the rest of the relay knows it: every value checked, every default filled in.
//!
//! Nothing here reads a file, an environment variable or a secret; `config` does that and hands the result over.
//! An [`Endpoint`] never changes after it is made: a reload makes new ones.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
pub use relay_program::{EndpointName, EndpointNameError, MAX_NAME_BYTES};
use relay_proto::{Rate, UpgradeProtocol};
use relay_schemes::Locator;

use crate::client_certificate::ClientRule;
use crate::mask::Blinds;
use crate::retry::{CircuitRule, Schedule, StatusRule};
use crate::verify::Rule;
use crate::webhook::Received;

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub name: EndpointName,
    pub verify: Rule,
    /// Longest wait for the handler's response head, counted from the first byte of the request's head; from the last
    /// byte of its body where that is collected and not kept.
    pub deadline: Duration,
    /// Longest silence, in either direction, once the exchange is under way.
    pub idle_timeout: Duration,
    pub max_body: u64,
    /// How long a webhook waits for an agent when none is attached. Part of the deadline, not on top of it.
    pub wait_for_agent: Duration,
    /// Host names that belong to this endpoint alone, lower case, without a port.
    pub hosts: Vec<Arc<str>>,
    pub allow: Allow,
    pub replay: Replay,
    /// Whether one agent at a time serves it, and the others stand by.
    pub exclusive: bool,
    /// What senders may upgrade to, beside WebSocket.
    pub upgrades: Vec<UpgradeProtocol>,
    /// How often exchanges with its handlers begin at most.
    pub rate: Option<Rate>,
    /// How many of them there are at a time at most.
    pub concurrency: Option<NonZeroU32>,
    /// How it keeps events; `None` for a live one, which keeps nothing.
    pub policy: Option<DeliveryPolicy>,
    pub capture: Capture,
    /// Whose certificate a sender has to show.
    pub client: Option<ClientRule>,
    /// The token for whose use it counts, by its name.
    pub owner: Option<Arc<str>>,
}

/// What the journal keeps of its live requests, and what is hidden there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capture {
    pub level: CaptureLevel,
    pub blinds: Blinds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CaptureLevel {
    /// Heads, and the beginning of each body.
    #[default]
    Bodies,
    Heads,
    Off,
}

impl Endpoint {
    /// One that anybody may send to and that keeps nothing.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self {
            name: EndpointName::parse("hooks").unwrap_or_else(|_| EndpointName::canary()),
            verify: Rule::Open,
            deadline: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            max_body: 1 << 20,
            wait_for_agent: Duration::ZERO,
            hosts: Vec::new(),
            allow: Allow::default(),
            replay: Replay::Off,
            exclusive: false,
            upgrades: Vec::new(),
            rate: None,
            concurrency: None,
            policy: None,
            capture: Capture::default(),
            client: None,
            owner: None,
        }
    }

    /// Whether its senders prove who they are, if only by their addresses; else anybody can post here.
    pub(crate) fn is_proven(&self) -> bool {
        self.verify.proves() || self.allow.is_limited() || self.client.is_some()
    }

    pub(crate) fn mode(&self) -> &'static str {
        match &self.policy {
            None => "live",
            Some(policy) if policy.assured => "assured",
            Some(_) => "durable",
        }
    }

    /// How events of this method are kept; `None` where they pass live.
    pub(crate) fn keeps(&self, method: &http::Method) -> Option<&DeliveryPolicy> {
        self.policy.as_ref().filter(|policy| policy.methods.contains(method))
    }

    /// Whether something has to be found inside of a request's body, or its proof takes no less than all of it at once;
    /// without a request: of any.
    pub(crate) fn needs_whole_body(&self, received: Option<&Received>) -> bool {
        self.verify.needs_whole_body(received) || self.policy.as_ref().is_some_and(DeliveryPolicy::looks_into_body)
    }

    /// Whether requests of this method are taken at all: a stored endpoint lets pass live what only asks.
    pub(crate) fn takes(&self, method: &http::Method) -> bool {
        let asks = matches!(*method, http::Method::GET | http::Method::HEAD | http::Method::OPTIONS);
        self.policy.is_none() || asks || self.keeps(method).is_some()
    }
}

impl DeliveryPolicy {
    fn looks_into_body(&self) -> bool {
        let identity = matches!(&self.identity, Identity::Located(row) if row.in_body());
        identity || matches!(&self.order, Order::ByKey(row) if row.in_body())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct DeliveryPolicy {
    /// Whether the sender gets the handler's own answer if that comes in time.
    pub assured: bool,
    pub ack: Ack,
    /// Its share of the store, in bytes.
    pub max_bytes: u64,
    /// Methods that are kept; others pass live.
    pub methods: Vec<http::Method>,
    pub attempt_timeout: Duration,
    /// How long a lost agent may take to tell what became of an attempt.
    pub agent_grace: Duration,
    /// Whether a sender that waits sees a failure that would be tried again, and its own retries do the work.
    pub pass_failures: bool,
    /// How long an event counts as the same; `None` for never.
    pub dedup_window: Option<Duration>,
    pub identity: Identity,
    pub sender_retries: bool,
    /// How old a first arrival may be, where its sender repeats the same bytes later than its scheme allows.
    pub late: Option<Duration>,
    pub schedule: Schedule,
    pub statuses: StatusRule,
    pub circuit: CircuitRule,
    pub order: Order,
    pub resign: Resign,
}

/// By what an event is known as the same.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Provider,
    Body,
    /// What is found there.
    Located(Locator),
}

/// Which events wait for each other.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    None,
    Fifo,
    /// Those with the same key, which is found there.
    ByKey(Locator),
}

/// When an attempt is signed afresh: many handlers check the age of a signature themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resign {
    /// When the original is too old by its scheme.
    #[default]
    Late,
    Never,
    Always,
}

/// The relay's own answer to a sender whose event is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub status: StatusCode,
    pub content_type: Option<http::HeaderValue>,
    pub body: bytes::Bytes,
}

impl Default for Ack {
    fn default() -> Self {
        Self { status: StatusCode::OK, content_type: None, body: bytes::Bytes::new() }
    }
}

/// What an unchanged repeat of a signed, timestamped request gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Replay {
    /// The status that the first one got.
    #[default]
    Answer,
    /// 409.
    Refuse,
    /// A delivery of its own.
    Off,
}

impl Replay {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Refuse => "refuse",
            Self::Off => "off",
        }
    }
}

/// Which addresses may post to an endpoint. Without a rule, all.
#[derive(Default)]
pub(crate) struct Allow(Option<Box<dyn Fn(IpAddr) -> bool + Send + Sync>>);

impl Allow {
    pub(crate) fn only(allowed: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(allowed)))
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.0.as_ref().is_none_or(|allowed| allowed(address))
    }
}

impl fmt::Debug for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Allow(some)" } else { "Allow(all)" })
    }
}
