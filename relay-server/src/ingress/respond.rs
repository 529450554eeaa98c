//! Answers to senders: the handler's own, or one short JSON body for each thing that can go wrong.
//!
//! The only place where a failure becomes a status. What it says helps the sender and tells nothing
//! of the inside.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use relay_proto::names;
use relay_schemes::Reply;
use relay_tunnel::Receiver;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep},
};

use crate::{
    agents::{Turned, seats},
    deliver::{HandlerAnswer, Upload, settle_trailers},
    delivery::{Piece, SenderReply, TakenIn},
    endpoint::Ack,
    failure::{AgentFault, ApiError, ApiErrorKind, Failure, HandlerFault, RelayFault, SenderFault},
    limits::Turn,
    memory::Memory,
    metrics::AnswerClass,
    replay::Running,
    webhook::EventId,
};

/// An answer's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// After how long an agent asks again for which there was no session: one whose link broke is noticed by then.
const SESSIONS_RETRY_S: u64 = 10;

/// The body of an answer that has none.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Any body as an answer's body.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}

/// The handler's answer, streamed. `first` learns how it ended.
pub(crate) fn answer(
    answer: HandlerAnswer,
    first: Option<Running>,
    event_id: EventId,
    idle: Duration,
) -> Response<Body> {
    let HandlerAnswer { head, headers: _, body, upload, memory, turn } = answer;
    let first = first.map(|running| Ending { running: Some(running), status: head.status });
    let body = body.map_or_else(empty, |inner| {
        let missing = inner.size_hint().exact().or_else(|| content_length(&head.headers));
        Streamed { inner, idle, silence: None, missing, first, _upload: upload, _memory: memory, _turn: turn }
            .boxed_unsync()
    });
    let mut response = Response::from_parts(head, body);
    mark(&mut response, event_id);
    response
}

/// The answer to a sender whose event is kept: the handler's own, or the endpoint's ack.
pub(crate) fn kept(taken: TakenIn, ack: &Ack) -> Response<Body> {
    let mut response = match taken.reply {
        SenderReply::Failure(failed) => return failure(failed, taken.event_id),
        SenderReply::Ack => {
            let mut response = Response::new(whole(ack.body.clone()));
            *response.status_mut() = ack.status;
            if let Some(content_type) = &ack.content_type {
                response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            }
            response
        }
        SenderReply::Answer(answer) => {
            let sized = answer.body.is_empty() || answer.headers.contains_key(header::CONTENT_LENGTH);
            let body = match answer.more {
                None if sized && answer.trailers.is_empty() => whole(answer.body),
                None => lengthless(answer.body, answer.trailers),
                Some(more) => StreamBody::new(pieces(answer.body, more)).boxed_unsync(),
            };
            let mut response = Response::new(body);
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            response
        }
    };
    mark(&mut response, taken.event_id);
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose handler told no length: neither does the relay.
fn lengthless(bytes: Bytes, trailers: http::HeaderMap) -> Body {
    let data = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
    let trailers = (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)));
    StreamBody::new(futures_util::stream::iter(data.into_iter().chain(trailers))).boxed_unsync()
}

/// A long answer, piece by piece. One that ends without saying so broke off.
fn pieces(
    first: Bytes,
    more: mpsc::Receiver<Piece>,
) -> impl Stream<Item = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>> {
    futures_util::stream::unfold((Some(first), Some(more)), |(first, more)| async move {
        if let Some(first) = first {
            return Some((Ok(Frame::data(first)), (None, more)));
        }
        let mut more = more?;
        match more.recv().await {
            Some(Piece::Data(piece)) => Some((Ok(Frame::data(piece)), (None, Some(more)))),
            Some(Piece::End(trailers)) if trailers.is_empty() => None,
            Some(Piece::End(trailers)) => Some((Ok(Frame::trailers(trailers)), (None, None))),
            None => Some((Err("the handler's answer broke off".into()), (None, None))),
        }
    })
}

/// The answer to a provider's challenge.
pub(crate) fn challenge(reply: Reply, event_id: EventId) -> Response<Body> {
    let body = Full::new(Bytes::from(reply.body)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    for (name, value) in reply.headers {
        // Names and values were checked where the answer was made.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    mark(&mut response, event_id);
    response
}

/// The answer to an unchanged repeat: what the first one got, without its body.
pub(crate) fn repeated(status: StatusCode, first: EventId) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    mark(&mut response, first);
    response
}

/// The relay's own answer to a request that gets none from a handler.
pub(crate) fn failure(failure: Failure, event_id: EventId) -> Response<Body> {
    let (code, answer) = (failure.code(), of_failure(failure));
    let text = serde_json::json!({ "error": code, "message": answer.message, "event_id": event_id.to_string() });
    let mut response = json(answer.status, &text);
    let headers = response.headers_mut();
    headers.insert(names::ERROR, HeaderValue::from_static(code));
    if let Some(seconds) = answer.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.leaves_body_unread() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    mark(&mut response, event_id);
    response
}

/// What is said where no API has anything.
pub(crate) const NOTHING_HERE: &str = "there is nothing at this address";

impl From<Turned> for ApiError {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::NotUpgrade => Self::new(
                ApiErrorKind::NotAnUpgrade,
                "agents connect here by WebSocket, version 13, with the subprotocol relay.v1",
            ),
            Turned::Browser => Self::new(ApiErrorKind::Browser, "pages may not connect here"),
            Turned::Unauthorized => Self::new(ApiErrorKind::Unauthorized, "this token is not known here"),
            Turned::TooManyGuesses { left } => Self::new(
                ApiErrorKind::TooManyGuesses { wait_s: left.as_secs().max(1) },
                "too many wrong tokens came from this address; wait",
            ),
            Turned::TooManySessions(seats::SessionLimit::Relay) => Self::new(
                ApiErrorKind::TooManySessions,
                "as many agents are connected as [limits] max_sessions of the relay allows",
            ),
            Turned::TooManySessions(seats::SessionLimit::Token) => Self::new(
                ApiErrorKind::TooManySessions,
                "as many agents are connected as max_sessions of this token's [[token]] allows",
            ),
        }
    }
}

/// The answer to an agent's request that is turned away.
pub(crate) fn turned(turned: Turned) -> Response<Body> {
    api_error(&turned.into())
}

fn api_error(ApiError { kind, message }: &ApiError) -> Response<Body> {
    let (status, code) = of_api_error(*kind);
    let mut response = json(status, &serde_json::json!({ "error": code, "message": message }));
    let wait_s = match kind {
        ApiErrorKind::TooManyGuesses { wait_s } => *wait_s,
        ApiErrorKind::TooManySessions => SESSIONS_RETRY_S,
        _ if status == StatusCode::SERVICE_UNAVAILABLE => 1,
        _ => return response,
    };
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
    response
}

/// The answer to an agent's question. It is for the asker alone, and nothing is kept of it on its way.
pub(crate) fn told(value: &serde_json::Value) -> Response<Body> {
    private(json(StatusCode::OK, value))
}

/// Why an agent's question has no answer.
pub(crate) fn untold(error: &ApiError) -> Response<Body> {
    private(api_error(error))
}

/// A part of a kept body, and how long that is as a whole.
pub(crate) fn part(bytes: Bytes, of: u64) -> Response<Body> {
    let mut response = private(Response::new(whole(bytes)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(names::BODY_SIZE, HeaderValue::from(of));
    response
}

fn private(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What a failure is to its sender, and to the metrics.
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

    fn again(status: StatusCode, retry_after_s: u64, message: &'static str) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(status, AnswerClass::Unavailable, message) }
    }
}

/// The one table from failures to answers.
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
    let unavailable = |wait_s, message| FailureAnswer::again(StatusCode::SERVICE_UNAVAILABLE, wait_s, message);
    match fault {
        RelayFault::SecretUnavailable => {
            unavailable(60, "this endpoint cannot verify anything at the moment; try again")
        }
        RelayFault::KeyUnavailable { wait } => {
            unavailable(wait.as_secs().max(1), "the provider's key cannot be asked for now; try again")
        }
        RelayFault::Overloaded => unavailable(1, "the relay is at its limit; try again"),
        RelayFault::StoreFull => unavailable(1, "the relay has no room for events now; try again"),
        RelayFault::StoreFailed => unavailable(1, "the relay cannot keep events now; try again"),
        RelayFault::Limited { wait } => {
            let wait_s = wait.map_or(1, |wait| wait.as_micros().div_ceil(1_000_000));
            let wait_s = u64::try_from(wait_s).unwrap_or(u64::MAX);
            let message = "this endpoint takes no more for a while; try again";
            FailureAnswer::again(StatusCode::TOO_MANY_REQUESTS, wait_s, message)
        }
        RelayFault::Internal => {
            FailureAnswer::new(StatusCode::INTERNAL_SERVER_ERROR, AnswerClass::Internal, "the relay failed")
        }
    }
}

fn of_agent(fault: AgentFault) -> FailureAnswer {
    let unavailable = |wait_s, message| FailureAnswer::again(StatusCode::SERVICE_UNAVAILABLE, wait_s, message);
    match fault {
        AgentFault::Absent => unavailable(5, "no agent is attached to this endpoint; try again"),
        AgentFault::Unwanted => unavailable(1, "no agent that is attached to this endpoint takes events of this type"),
        AgentFault::Busy => unavailable(1, "too many requests are in flight; try again"),
        AgentFault::NotCalled => unavailable(1, "the handler was not called; try again"),
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
        ApiErrorKind::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        ApiErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ApiErrorKind::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        ApiErrorKind::NotAnUpgrade => (StatusCode::BAD_REQUEST, "not_an_upgrade"),
        ApiErrorKind::BadHost => (StatusCode::MISDIRECTED_REQUEST, "bad_host"),
        ApiErrorKind::Browser => (StatusCode::FORBIDDEN, "browser"),
        ApiErrorKind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
        ApiErrorKind::TooManyGuesses { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_guesses"),
        ApiErrorKind::TooManySessions => (StatusCode::SERVICE_UNAVAILABLE, "too_many_sessions"),
        ApiErrorKind::TooManyQuestions => (StatusCode::SERVICE_UNAVAILABLE, "too_many_questions"),
        ApiErrorKind::MayNotRead => (StatusCode::FORBIDDEN, "may_not_read"),
        ApiErrorKind::MayNotReplay => (StatusCode::FORBIDDEN, "may_not_replay"),
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

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{value}\n"))).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn mark(response: &mut Response<Body>, event_id: EventId) {
    if let Ok(id) = HeaderValue::try_from(event_id.to_string()) {
        response.headers_mut().insert(names::EVENT_ID, id);
    }
}

/// A handler's body with a limit on its silence.
struct Streamed {
    inner: Receiver,
    idle: Duration,
    /// Only while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
    /// Bytes that are still to come, where the handler said how many there are.
    missing: Option<u64>,
    first: Option<Ending>,
    /// The rest of the request, which ends with the answer unless others watch.
    _upload: Option<Upload>,
    _memory: Option<Memory>,
    /// It counts among the endpoint's exchanges until the sender has it all: the next one must not find it there.
    _turn: Option<Turn>,
}

/// Tells a first request's end to those that repeat it.
struct Ending {
    running: Option<Running>,
    status: StatusCode,
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // hyper drops a body of a known length once it has the last byte, without asking for its end.
        if self.inner.is_end_stream() || self.missing == Some(0) {
            self.ended();
        }
    }
}

impl Streamed {
    fn ended(&mut self) {
        if let Some(Ending { running, status }) = &mut self.first
            && let Some(running) = running.take()
        {
            running.ended(*status);
        }
    }
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[derive(Debug, Error)]
#[error("the answer stopped coming")]
struct Silent;

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(mut frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.silence = None;
            match &mut frame {
                None => self.ended(),
                Some(Ok(frame)) => {
                    let len = frame.data_ref().map_or(0, Bytes::len) as u64;
                    self.missing = self.missing.map(|missing| missing.saturating_sub(len));
                    if let Some(trailers) = frame.trailers_mut() {
                        settle_trailers(trailers);
                    }
                }
                Some(Err(_)) => {}
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let idle = self.idle;
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
        silence.as_mut().poll(cx).map(|()| Some(Err(Silent.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// The length is what the handler's head says. What happens to be here already is not: an answer that ends
    /// before its length must break, and one in chunks may have trailers.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
