//! Why a question to the relay has no answer, whoever asks: the admin API's callers, agents, and users of agents.

use std::borrow::Cow;

/// A failure as the asker reads it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub kind: ApiErrorKind,
    pub message: Cow<'static, str>,
    /// Where in the query the mistake is, in bytes.
    pub at: Option<usize>,
    /// What of the query could be read.
    pub in_force: Option<String>,
}

/// What kind of failure it is; `ingress::respond` has the status and the code of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiErrorKind {
    BadRequest,
    BadId,
    BadConfig,
    /// No request can be made of what somebody changed.
    BadEdit,
    /// The part that is asked for begins behind the end.
    BadRange,
    BodyTooLarge,
    NotFound,
    Method,
    /// A request for a session that asks for no WebSocket.
    NotAnUpgrade,
    /// The host is not one that only this machine has.
    BadHost,
    Browser,
    Unauthorized,
    TooManyGuesses {
        wait_s: u64,
    },
    TooManySessions,
    TooManyQuestions,
    TooManyStreams,
    TooManyBulks,
    /// The token has as many endpoints as it may.
    TooManyEndpoints,
    TooManyLogins {
        wait_s: u64,
    },
    MayNotRead,
    MayNotReplay,
    MayNotSign,
    MayNotSkip,
    MayNotAct,
    MayNotCreate,
    MayNotAdmin,
    NeedsAttach,
    Conflict,
    WrongState,
    Exists,
    /// The config file's rows are not the API's to change.
    FromFile,
    EventsWait,
    EndpointGone,
    /// A live endpoint keeps nothing.
    Live,
    AgentNotAttached,
    CannotSign,
    Damaged,
    Busy,
    Timeout,
    StoreFailed,
    Internal,
}

impl ApiErrorKind {
    pub(crate) const ALL: [Self; 41] = [
        Self::BadRequest,
        Self::BadId,
        Self::BadConfig,
        Self::BadEdit,
        Self::BadRange,
        Self::BodyTooLarge,
        Self::NotFound,
        Self::Method,
        Self::NotAnUpgrade,
        Self::BadHost,
        Self::Browser,
        Self::Unauthorized,
        Self::TooManyGuesses { wait_s: 1 },
        Self::TooManySessions,
        Self::TooManyQuestions,
        Self::TooManyStreams,
        Self::TooManyBulks,
        Self::TooManyEndpoints,
        Self::TooManyLogins { wait_s: 1 },
        Self::MayNotRead,
        Self::MayNotReplay,
        Self::MayNotSign,
        Self::MayNotSkip,
        Self::MayNotAct,
        Self::MayNotCreate,
        Self::MayNotAdmin,
        Self::NeedsAttach,
        Self::Conflict,
        Self::WrongState,
        Self::Exists,
        Self::FromFile,
        Self::EventsWait,
        Self::EndpointGone,
        Self::Live,
        Self::AgentNotAttached,
        Self::CannotSign,
        Self::Damaged,
        Self::Busy,
        Self::Timeout,
        Self::StoreFailed,
        Self::Internal,
    ];
}

impl ApiError {
    pub(crate) fn new(kind: ApiErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), at: None, in_force: None }
    }

    /// No API has anything at this address.
    pub(crate) fn nothing_here() -> Self {
        Self::not_found("there is nothing at this address")
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ApiErrorKind::BadRequest, message)
    }

    pub(crate) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ApiErrorKind::NotFound, message)
    }
}
