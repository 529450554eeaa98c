//! Why a request gets no answer from a handler, by who caused it.
//!
//! What a room can fail with is an enum of its own, beside its code; it becomes a [`Failure`] once, where the room's
//! answer meets its sender. Nothing here knows statuses: `ingress::respond` has the one table.

mod api;

use std::time::Duration;

use relay_schemes::Refusal;

pub(crate) use self::api::{ApiError, ApiErrorKind};

/// Why a request gets no answer from a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Sender(SenderFault),
    Relay(RelayFault),
    Agent(AgentFault),
    Handler(HandlerFault),
}

/// The request is not one that an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderFault {
    /// The host is missing, doubled or not a host.
    BadHost,
    /// The target or the framing cannot be carried as it is.
    BadRequest,
    UnknownEndpoint,
    Method,
    BodyTooLarge {
        limit_bytes: u64,
    },
    BodyTimeout,
    BodyBroken,
    HeadTooLarge,
    Address,
    /// The connection was made for another host, or without the certificate that this one asks for.
    Misdirected,
    /// It showed no certificate, or not one that the endpoint takes.
    Certificate,
    Unproven(Refusal),
    /// A provider's challenge that proves nothing, or that cannot be answered; its row says the status and the code.
    Challenge {
        status: u16,
        code: &'static str,
    },
    Replayed,
    /// Its signature was made by this relay, for a handler.
    OwnSignature,
}

/// The relay cannot do its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayFault {
    /// A secret of the endpoint could not be read, so nothing can be proven.
    SecretUnavailable,
    /// The provider's key that would prove it cannot be asked for before this time is over.
    KeyUnavailable {
        wait: Duration,
    },
    Overloaded,
    StoreFull,
    StoreFailed,
    /// The endpoint, or every agent that would take it, takes no more for a while; `None` where nobody knows how long.
    Limited {
        wait: Option<Duration>,
    },
    /// The endpoints of its token had as many webhooks today as they may.
    QuotaEvents {
        wait: Duration,
    },
    /// What waits at the endpoints of its token fills their part of the store.
    QuotaStored,
    Internal,
}

/// No agent takes the request, or the one that took it lost it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentFault {
    Absent,
    Unwanted,
    Busy,
    /// It was lost while the handler was at work.
    Lost,
    NotCalled,
}

/// The handler gave no answer, or none that can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandlerFault {
    /// It did not answer before the endpoint's deadline.
    Deadline,
    Unreachable,
    /// Its answer broke off or was not HTTP.
    Broken,
    /// It did not answer before the agent's own limit.
    Timeout,
    /// No request to a handler can be made of what the sender asked for.
    NotCarriable,
}

impl Failure {
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Sender(_) => "sender",
            Self::Relay(_) => "relay",
            Self::Agent(_) => "agent",
            Self::Handler(_) => "handler",
        }
    }

    /// The stable code that senders, scripts and agents see.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Sender(fault) => match fault {
                SenderFault::BadHost => "bad_host",
                SenderFault::BadRequest => "bad_request",
                SenderFault::UnknownEndpoint => "endpoint_not_found",
                SenderFault::Method => "method_not_allowed",
                SenderFault::BodyTooLarge { .. } => "body_too_large",
                SenderFault::BodyTimeout => "body_timeout",
                SenderFault::BodyBroken => "body_broken",
                SenderFault::HeadTooLarge => "head_too_large",
                SenderFault::Address => "address_not_allowed",
                SenderFault::Misdirected => "misdirected",
                SenderFault::Certificate => "certificate_not_allowed",
                SenderFault::Unproven(refusal) => refusal.code(),
                SenderFault::Challenge { code, .. } => code,
                SenderFault::Replayed => "replayed",
                SenderFault::OwnSignature => "signature_of_the_relay",
            },
            Self::Relay(fault) => match fault {
                RelayFault::SecretUnavailable => "secret_unavailable",
                RelayFault::KeyUnavailable { .. } => "key_unavailable",
                RelayFault::Overloaded => "overloaded",
                RelayFault::StoreFull => "store_full",
                RelayFault::StoreFailed => "store_failed",
                RelayFault::Limited { .. } => "rate_limited",
                RelayFault::QuotaEvents { .. } => "quota_events",
                RelayFault::QuotaStored => "quota_stored",
                RelayFault::Internal => "internal",
            },
            Self::Agent(fault) => match fault {
                AgentFault::Absent => "agent_unavailable",
                AgentFault::Unwanted => "event_type_unwanted",
                AgentFault::Busy => "too_many_in_flight",
                AgentFault::Lost => "agent_lost",
                AgentFault::NotCalled => "not_called",
            },
            Self::Handler(fault) => match fault {
                HandlerFault::Deadline => "deadline_exceeded",
                HandlerFault::Unreachable => "handler_unreachable",
                HandlerFault::Broken => "handler_broken",
                HandlerFault::Timeout => "handler_timeout",
                HandlerFault::NotCarriable => "not_carriable",
            },
        }
    }

    pub(crate) const fn can_retry(self) -> bool {
        match self {
            Self::Sender(fault) => matches!(fault, SenderFault::BodyTimeout | SenderFault::BodyBroken),
            Self::Relay(_) | Self::Agent(_) => true,
            Self::Handler(fault) => !matches!(fault, HandlerFault::NotCarriable),
        }
    }

    /// Whether it was known before the whole body was read, so that what follows on the connection is no request.
    pub(crate) const fn leaves_body_unread(self) -> bool {
        matches!(
            self,
            Self::Relay(RelayFault::SecretUnavailable)
                | Self::Sender(
                    SenderFault::BodyTooLarge { .. }
                        | SenderFault::BodyTimeout
                        | SenderFault::BadRequest
                        | SenderFault::BadHost
                        | SenderFault::Method
                        | SenderFault::HeadTooLarge
                        | SenderFault::Address
                )
        )
    }
}

impl SenderFault {
    pub(crate) const fn is_refusal(self) -> bool {
        matches!(self, Self::Unproven(_) | Self::Challenge { .. } | Self::Address | Self::Replayed | Self::OwnSignature)
    }
}

macro_rules! failures {
    ($($cause:ident($fault:ident),)*) => {
        $(impl From<$fault> for Failure {
            fn from(fault: $fault) -> Self {
                Self::$cause(fault)
            }
        })*
    };
}

failures! {
    Sender(SenderFault),
    Relay(RelayFault),
    Agent(AgentFault),
    Handler(HandlerFault),
}
