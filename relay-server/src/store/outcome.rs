//! How an attempt ends, and why an event does without being delivered.
//!
//! The codes are stable: they stand in the store, in answers and in scripts.

use relay_proto::ResetCode;
use relay_tunnel::Broken;

use crate::failure::{AgentFault, Failure, HandlerFault};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            #[cfg(test)]
            #[allow(dead_code, reason = "not every list is gone through")]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable code: it stands in the store, in answers and in scripts.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            pub(crate) fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

pub(super) use codes;

codes! {
    /// Why an event ended without being delivered. The code begins with who caused it.
    Reason {
        /// The handler's answer, passed on to the sender, was not a success.
        HandlerRejected = "handler_rejected",
        /// The handler answered with a status that means "stop".
        HandlerGaveUp = "handler_gave_up",
        /// No attempts are left; the last one's answer was not a success.
        HandlerFailed = "handler_failed",
        /// No attempts are left; the last one was not answered in time.
        HandlerTimeout = "handler_timeout",
        /// No attempts are left; in the last one the handler could not be reached.
        HandlerUnreachable = "handler_unreachable",
        /// No attempts are left; the last one's answer broke off.
        HandlerBroken = "handler_broken",
        /// No attempts are left; in the last one the agent was lost.
        AgentLost = "agent_lost",
        /// Nobody came for it within `pending_retention`.
        AgentAbsent = "agent_absent",
        /// No agent can make a request to a handler of it.
        NotCarriable = "not_carriable",
        /// What is stored is not what was taken in.
        RelayDamaged = "relay_damaged",
        /// The relay failed.
        RelayInternal = "relay_internal",
        /// A person dropped it.
        Dropped = "dropped",
        /// A person cancelled it.
        Cancelled = "cancelled",
        /// It waited when an agent attached that wanted nothing of what waited.
        Skipped = "skipped",
    }
}

codes! {
    /// How an attempt ended.
    Outcome {
        /// The handler answered.
        Answered = "answered",
        /// The handler did not answer in time.
        Timeout = "timeout",
        /// The handler could not be reached.
        Unreachable = "unreachable",
        /// The answer broke off or was not HTTP.
        Broken = "broken",
        /// The agent was lost, or its lease ran out without a word.
        Lost = "lost",
        /// The handler was not called; the attempt does not count.
        NotCalled = "not_called",
        /// No request to the handler can be made of it.
        NotCarriable = "not_carriable",
        /// It was stopped.
        Cancelled = "cancelled",
    }
}

impl From<ResetCode> for Outcome {
    fn from(code: ResetCode) -> Self {
        match code {
            ResetCode::NotCalled => Self::NotCalled,
            ResetCode::NotCarriable => Self::NotCarriable,
            ResetCode::Unreachable => Self::Unreachable,
            ResetCode::Timeout => Self::Timeout,
            ResetCode::Broken | ResetCode::NoError | ResetCode::Cancelled => Self::Broken,
        }
    }
}

impl From<Broken> for Outcome {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::SessionLost => Self::Lost,
            Broken::Reset(code) => code.into(),
        }
    }
}

/// What a sender is told of an attempt that brought no answer to pass on.
impl From<Outcome> for Failure {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Timeout => HandlerFault::Timeout.into(),
            Outcome::Unreachable => HandlerFault::Unreachable.into(),
            Outcome::Broken | Outcome::Answered | Outcome::Cancelled => HandlerFault::Broken.into(),
            Outcome::Lost => AgentFault::Lost.into(),
            Outcome::NotCalled => AgentFault::NotCalled.into(),
            Outcome::NotCarriable => HandlerFault::NotCarriable.into(),
        }
    }
}

/// Why an event ends whose last attempt ended like this.
impl From<Outcome> for Reason {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered => Self::HandlerFailed,
            Outcome::Timeout => Self::HandlerTimeout,
            Outcome::Unreachable => Self::HandlerUnreachable,
            Outcome::Broken | Outcome::Cancelled => Self::HandlerBroken,
            Outcome::Lost | Outcome::NotCalled => Self::AgentLost,
            Outcome::NotCarriable => Self::NotCarriable,
        }
    }
}
