//! The one table from what goes wrong to what is answered: status, words, when to come again, and how it is counted.
//!
//! Codes are the failures' own. What it says helps whoever reads it and tells nothing of the inside.

use std::borrow::Cow;

use http::StatusCode;

use crate::{
    agents::{Turned, seats::SessionLimit},
    failure::{AgentFault, ApiError, ApiErrorKind, Failure, HandlerFault, RelayFault, SenderFault},
    metrics::AnswerClass,
};

pub(crate) struct FailureAnswer {
    pub status: StatusCode,
    pub message: Cow<'static, str>,
    /// When the sender may come again: people are slower than agents, and those slower than a busy moment.
    pub retry_after_s: Option<u64>,
    pub class: AnswerClass,
}

impl FailureAnswer {
    fn new(status: StatusCode, class: AnswerClass, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), retry_after_s: None, class }
    }

    fn unavailable(retry_after_s: u64, message: &'static str) -> Self {
        let answer = Self::new(StatusCode::SERVICE_UNAVAILABLE, AnswerClass::Unavailable, message);
        Self { retry_after_s: Some(retry_after_s), ..answer }
    }
}

pub(crate) fn of_failure(failure: Failure) -> FailureAnswer {
    match failure {
        Failure::Sender(fault) => of_sender(fault),
        Failure::Relay(fault) => of_relay(fault),
        Failure::Agent(fault) => of_agent(fault),
        Failure::Handler(fault) => of_handler(fault),
    }
}

fn of_sender(fault: SenderFault) -> FailureAnswer {
    let (status, message) = match fault {
        SenderFault::BadHost => (StatusCode::BAD_REQUEST, "the request must name one host"),
        SenderFault::BadRequest => (StatusCode::BAD_REQUEST, "the request cannot be carried as it is"),
        SenderFault::UnknownEndpoint => (StatusCode::NOT_FOUND, "no endpoint has this address"),
        SenderFault::Method => (StatusCode::METHOD_NOT_ALLOWED, "this method is not for webhooks"),
        SenderFault::BodyTooLarge { limit_bytes } => {
            let message = format!("the body is larger than {limit_bytes} bytes, this endpoint's max_body");
            return FailureAnswer::new(StatusCode::PAYLOAD_TOO_LARGE, AnswerClass::Rejected, message);
        }
        SenderFault::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        SenderFault::BodyBroken => (StatusCode::BAD_REQUEST, "the body broke off"),
        SenderFault::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large"),
        SenderFault::Address => (StatusCode::FORBIDDEN, "this address may not post here"),
        SenderFault::Misdirected => {
            (StatusCode::MISDIRECTED_REQUEST, "this connection was not made for this host; connect to it anew")
        }
        SenderFault::Certificate => (StatusCode::FORBIDDEN, "a client certificate is wanted here, and not this one"),
        SenderFault::Unproven(refusal) => {
            return FailureAnswer::new(StatusCode::UNAUTHORIZED, AnswerClass::Refused, refusal.to_string());
        }
        SenderFault::Challenge { status, .. } => (status_of(status), "this challenge is not answered here"),
        SenderFault::Replayed => (StatusCode::CONFLICT, "what is signed in this request came before"),
        SenderFault::OwnSignature => {
            (StatusCode::UNAUTHORIZED, "the relay made this signature for a handler; it proves nothing here")
        }
    };
    FailureAnswer::new(status, if fault.is_refusal() { AnswerClass::Refused } else { AnswerClass::Rejected }, message)
}

/// A row's status; one that is no error would say yes to what was refused.
const fn status_of(status: u16) -> StatusCode {
    match status {
        400 => StatusCode::BAD_REQUEST,
        401 => StatusCode::UNAUTHORIZED,
        404 => StatusCode::NOT_FOUND,
        _ => StatusCode::FORBIDDEN,
    }
}

fn of_relay(fault: RelayFault) -> FailureAnswer {
    match fault {
        RelayFault::SecretUnavailable => {
            FailureAnswer::unavailable(60, "this endpoint cannot verify anything at the moment; try again")
        }
        RelayFault::KeyUnavailable { wait } => {
            FailureAnswer::unavailable(wait.as_secs().max(1), "the provider's key cannot be asked for now; try again")
        }
        RelayFault::Overloaded => FailureAnswer::unavailable(1, "the relay is at its limit; try again"),
        RelayFault::StoreFull => FailureAnswer::unavailable(1, "the relay has no room for events now; try again"),
        RelayFault::StoreFailed => FailureAnswer::unavailable(1, "the relay cannot keep events now; try again"),
        RelayFault::Limited { wait } => {
            let wait_s = wait.map_or(1, |wait| wait.as_micros().div_ceil(1_000_000));
            let wait_s = u64::try_from(wait_s).unwrap_or(u64::MAX);
            let message = "this endpoint takes no more for a while; try again";
            FailureAnswer { status: StatusCode::TOO_MANY_REQUESTS, ..FailureAnswer::unavailable(wait_s, message) }
        }
        RelayFault::QuotaEvents { wait } => {
            let message = "this endpoint takes no more webhooks today; try again tomorrow";
            let wait_s = wait.as_secs().max(1);
            FailureAnswer { status: StatusCode::TOO_MANY_REQUESTS, ..FailureAnswer::unavailable(wait_s, message) }
        }
        RelayFault::QuotaStored => {
            FailureAnswer::unavailable(60, "what waits fills what this endpoint may take of the store; try again")
        }
        RelayFault::Internal => {
            FailureAnswer::new(StatusCode::INTERNAL_SERVER_ERROR, AnswerClass::Internal, "the relay failed")
        }
    }
}

fn of_agent(fault: AgentFault) -> FailureAnswer {
    match fault {
        AgentFault::Absent => FailureAnswer::unavailable(5, "no agent is attached to this endpoint; try again"),
        AgentFault::Unwanted => {
            FailureAnswer::unavailable(1, "no agent that is attached to this endpoint takes events of this type")
        }
        AgentFault::Busy => FailureAnswer::unavailable(1, "too many requests are in flight; try again"),
        AgentFault::NotCalled => FailureAnswer::unavailable(1, "the handler was not called; try again"),
        AgentFault::Lost => {
            let message = "the agent was lost while the handler was at work";
            FailureAnswer::new(StatusCode::BAD_GATEWAY, AnswerClass::Failed, message)
        }
    }
}

fn of_handler(fault: HandlerFault) -> FailureAnswer {
    let (status, message) = match fault {
        HandlerFault::Deadline | HandlerFault::Timeout => {
            (StatusCode::GATEWAY_TIMEOUT, "the handler did not answer in time")
        }
        HandlerFault::Unreachable => (StatusCode::BAD_GATEWAY, "the handler could not be reached"),
        HandlerFault::Broken => (StatusCode::BAD_GATEWAY, "the handler's answer broke off"),
        HandlerFault::NotCarriable => {
            (StatusCode::BAD_GATEWAY, "this request cannot be made at the handler, now or later")
        }
    };
    FailureAnswer::new(status, AnswerClass::Failed, message)
}

/// The status and the stable code of what goes wrong at an API.
pub(crate) const fn of_api_error(kind: ApiErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ApiErrorKind::BadRequest => (StatusCode::BAD_REQUEST, "bad_request"),
        ApiErrorKind::BadId => (StatusCode::BAD_REQUEST, "bad_id"),
        ApiErrorKind::BadConfig => (StatusCode::BAD_REQUEST, "bad_config"),
        ApiErrorKind::BadEdit => (StatusCode::UNPROCESSABLE_ENTITY, "bad_edit"),
        ApiErrorKind::BadRange => (StatusCode::RANGE_NOT_SATISFIABLE, "bad_range"),
        ApiErrorKind::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        ApiErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ApiErrorKind::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        ApiErrorKind::NotAnUpgrade => (StatusCode::BAD_REQUEST, "not_an_upgrade"),
        ApiErrorKind::BadHost => (StatusCode::MISDIRECTED_REQUEST, "bad_host"),
        ApiErrorKind::Browser => (StatusCode::FORBIDDEN, "browser"),
        ApiErrorKind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
        ApiErrorKind::TooManyGuesses { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_guesses"),
        ApiErrorKind::TooManyLogins { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_logins"),
        ApiErrorKind::TooManySessions => (StatusCode::SERVICE_UNAVAILABLE, "too_many_sessions"),
        ApiErrorKind::TooManyQuestions => (StatusCode::SERVICE_UNAVAILABLE, "too_many_questions"),
        ApiErrorKind::TooManyStreams => (StatusCode::TOO_MANY_REQUESTS, "too_many_streams"),
        ApiErrorKind::TooManyBulks => (StatusCode::TOO_MANY_REQUESTS, "too_many_bulks"),
        ApiErrorKind::TooManyEndpoints => (StatusCode::CONFLICT, "too_many_endpoints"),
        ApiErrorKind::MayNotRead => (StatusCode::FORBIDDEN, "may_not_read"),
        ApiErrorKind::MayNotReplay => (StatusCode::FORBIDDEN, "may_not_replay"),
        ApiErrorKind::MayNotSign => (StatusCode::FORBIDDEN, "may_not_sign"),
        ApiErrorKind::MayNotSkip => (StatusCode::FORBIDDEN, "may_not_skip"),
        ApiErrorKind::MayNotAct => (StatusCode::FORBIDDEN, "may_not_act"),
        ApiErrorKind::MayNotCreate => (StatusCode::FORBIDDEN, "may_not_create"),
        ApiErrorKind::MayNotAdmin => (StatusCode::FORBIDDEN, "may_not_admin"),
        ApiErrorKind::NeedsAttach => (StatusCode::FORBIDDEN, "needs_attach"),
        ApiErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
        ApiErrorKind::WrongState => (StatusCode::CONFLICT, "wrong_state"),
        ApiErrorKind::Exists => (StatusCode::CONFLICT, "exists"),
        ApiErrorKind::FromFile => (StatusCode::CONFLICT, "from_file"),
        ApiErrorKind::EventsWait => (StatusCode::CONFLICT, "events_wait"),
        ApiErrorKind::EndpointGone => (StatusCode::CONFLICT, "endpoint_gone"),
        ApiErrorKind::Live => (StatusCode::CONFLICT, "live"),
        ApiErrorKind::AgentNotAttached => (StatusCode::CONFLICT, "agent_not_attached"),
        ApiErrorKind::CannotSign => (StatusCode::CONFLICT, "cannot_sign"),
        ApiErrorKind::Damaged => (StatusCode::UNPROCESSABLE_ENTITY, "damaged"),
        ApiErrorKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        ApiErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ApiErrorKind::StoreFailed => (StatusCode::INTERNAL_SERVER_ERROR, "store_failed"),
        ApiErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

impl From<Turned> for ApiError {
    fn from(turned: Turned) -> Self {
        let (kind, message) = match turned {
            Turned::NotUpgrade => {
                let message = "agents connect here by WebSocket, version 13, with the subprotocol relay.v1";
                (ApiErrorKind::NotAnUpgrade, message)
            }
            Turned::Browser => (ApiErrorKind::Browser, "pages may not connect here"),
            Turned::Unauthorized => (ApiErrorKind::Unauthorized, "this token is not known here"),
            Turned::Certificate => {
                let message = "this token counts only beside a client certificate, which was not shown; give the agent \
                               --client-cert and --client-key, and the host that asks for it";
                (ApiErrorKind::Unauthorized, message)
            }
            Turned::TooManyGuesses { left } => {
                let kind = ApiErrorKind::TooManyGuesses { wait_s: left.as_secs().max(1) };
                (kind, "too many wrong tokens came from this address; wait")
            }
            Turned::TooManySessions(limit) => {
                let message = match limit {
                    SessionLimit::Relay => "as many agents are connected as [limits] max_sessions of the relay allows",
                    SessionLimit::Token => {
                        "as many agents are connected as max_sessions of this token's [[token]] allows"
                    }
                };
                (ApiErrorKind::TooManySessions, message)
            }
        };
        Self::new(kind, message)
    }
}
