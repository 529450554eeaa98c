//! Answers to senders: the handler's own, or one short JSON body for each thing that can go wrong.
//!
//! The only place where a failure becomes a status. What it says helps the sender and tells nothing
//! of the inside.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use relay_schemes::Reply;
use relay_tunnel::Receiver;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep},
};

use crate::{
    agents::{accept::Turned, seats},
    delivery::{Piece, Reply as KeptReply, Taken},
    dispatch::{Answer, Upload, settle_trailers},
    endpoint::Ack,
    events::Refusal,
    limits::Turn,
    memory::Memory,
    replay::Running,
    webhook::{EventId, Failure},
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
pub(crate) fn answer(answer: Answer, first: Option<Running>, event_id: EventId, idle: Duration) -> Response<Body> {
    let Answer { head, body, upload, memory, turn } = answer;
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
pub(crate) fn kept(taken: Taken, ack: &Ack) -> Response<Body> {
    let mut response = match taken.reply {
        KeptReply::Failure(failed) => return failure(failed, taken.event_id),
        KeptReply::Ack => {
            let mut response = Response::new(whole(ack.body.clone()));
            *response.status_mut() = ack.status;
            if let Some(content_type) = &ack.content_type {
                response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            }
            response
        }
        KeptReply::Answer(answer) => {
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
    let (status, code) = status_and_code(failure);
    let message = message(failure);
    let text = serde_json::json!({ "error": code, "message": message, "event_id": event_id.to_string() });
    let mut response = json(status, &text);
    let headers = response.headers_mut();
    headers.insert("relay-error", HeaderValue::from_static(code));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s(failure)));
    }
    let unread = matches!(
        failure,
        Failure::BodyTooLarge { .. }
            | Failure::BodyTimeout
            | Failure::BadRequest
            | Failure::BadHost
            | Failure::Method
            | Failure::HeadTooLarge
            | Failure::Address
            | Failure::SecretUnavailable
    );
    if unread {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    mark(&mut response, event_id);
    response
}

/// The answer to an agent's request that is turned away.
pub(crate) fn turned(turned: Turned) -> Response<Body> {
    let mut wait = None;
    let (status, code, message) = match turned {
        Turned::NotUpgrade => (
            StatusCode::BAD_REQUEST,
            "not_an_upgrade",
            "agents connect here by WebSocket, version 13, with the subprotocol relay.v1",
        ),
        Turned::Browser => (StatusCode::FORBIDDEN, "browser", "pages may not connect here"),
        Turned::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "this token is not known here"),
        Turned::TooManyGuesses { left } => {
            wait = Some(left.as_secs().max(1));
            (StatusCode::TOO_MANY_REQUESTS, "too_many_guesses", "too many wrong tokens came from this address; wait")
        }
        Turned::TooManySessions(full) => {
            wait = Some(SESSIONS_RETRY_S);
            let message = match full {
                seats::Full::Relay => "as many agents are connected as [limits] max_sessions of the relay allows",
                seats::Full::Token => "as many agents are connected as max_sessions of this token's [[token]] allows",
            };
            (StatusCode::SERVICE_UNAVAILABLE, "too_many_sessions", message)
        }
    };
    let mut response = json(status, &serde_json::json!({ "error": code, "message": message }));
    if let Some(seconds) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer to an agent's question. It is for the asker alone, and nothing is kept of it on its way.
pub(crate) fn told(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    private(json(status, value))
}

/// Why an agent's question has no answer.
pub(crate) fn untold(refusal: &Refusal) -> Response<Body> {
    let mut response = told(refusal.status, &serde_json::json!({ "error": refusal.code, "message": refusal.message }));
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A part of a kept body, and how long that is as a whole.
pub(crate) fn part(bytes: Bytes, of: u64) -> Response<Body> {
    let mut response = private(Response::new(whole(bytes)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert("relay-body-size", HeaderValue::from(of));
    response
}

fn private(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The status and the stable code for each failure.
pub(crate) const fn status_and_code(failure: Failure) -> (StatusCode, &'static str) {
    match failure {
        Failure::BadHost => (StatusCode::BAD_REQUEST, "bad_host"),
        Failure::BadRequest => (StatusCode::BAD_REQUEST, "bad_request"),
        Failure::UnknownEndpoint => (StatusCode::NOT_FOUND, "endpoint_not_found"),
        Failure::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        Failure::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        Failure::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
        Failure::BodyBroken => (StatusCode::BAD_REQUEST, "body_broken"),
        Failure::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large"),
        Failure::Address => (StatusCode::FORBIDDEN, "address_not_allowed"),
        Failure::Refused(refusal) => (StatusCode::UNAUTHORIZED, refusal.code()),
        Failure::SecretUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "secret_unavailable"),
        Failure::KeyUnavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "key_unavailable"),
        Failure::Challenge { status, code } => (status_of(status), code),
        Failure::Replayed => (StatusCode::CONFLICT, "replayed"),
        Failure::OwnSignature => (StatusCode::UNAUTHORIZED, "signature_of_the_relay"),
        Failure::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Failure::NoAgent => (StatusCode::SERVICE_UNAVAILABLE, "agent_unavailable"),
        Failure::StoreFull => (StatusCode::SERVICE_UNAVAILABLE, "store_full"),
        Failure::StoreFailed => (StatusCode::SERVICE_UNAVAILABLE, "store_failed"),
        Failure::Unwanted => (StatusCode::SERVICE_UNAVAILABLE, "event_type_unwanted"),
        Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too_many_in_flight"),
        Failure::Limited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        Failure::Deadline => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
        Failure::HandlerUnreachable => (StatusCode::BAD_GATEWAY, "handler_unreachable"),
        Failure::HandlerBroken => (StatusCode::BAD_GATEWAY, "handler_broken"),
        Failure::HandlerTimeout => (StatusCode::GATEWAY_TIMEOUT, "handler_timeout"),
        Failure::AgentLost => (StatusCode::BAD_GATEWAY, "agent_lost"),
        Failure::NotCalled => (StatusCode::SERVICE_UNAVAILABLE, "not_called"),
        Failure::NotCarriable => (StatusCode::BAD_GATEWAY, "not_carriable"),
        Failure::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

/// When a sender may come again: people are slower than agents, and those slower than a busy moment.
const fn retry_after_s(failure: Failure) -> u64 {
    match failure {
        Failure::SecretUnavailable => 60,
        Failure::KeyUnavailable { wait_s } => wait_s,
        Failure::NoAgent => 5,
        Failure::Limited { wait_ms } => wait_ms.div_ceil(1000),
        _ => 1,
    }
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

fn message(failure: Failure) -> String {
    match failure {
        Failure::BadHost => "the request must name one host".to_owned(),
        Failure::BadRequest => "the request cannot be carried as it is".to_owned(),
        Failure::UnknownEndpoint => "no endpoint has this address".to_owned(),
        Failure::Method => "this method is not for webhooks".to_owned(),
        Failure::BodyTooLarge { limit } => format!("the body is larger than {limit} bytes, this endpoint's max_body"),
        Failure::BodyTimeout => "the body did not come in time".to_owned(),
        Failure::BodyBroken => "the body broke off".to_owned(),
        Failure::HeadTooLarge => "the head is too large".to_owned(),
        Failure::Address => "this address may not post here".to_owned(),
        Failure::Refused(refusal) => refusal.to_string(),
        Failure::SecretUnavailable => "this endpoint cannot verify anything at the moment; try again".to_owned(),
        Failure::KeyUnavailable { .. } => "the provider's key cannot be asked for now; try again".to_owned(),
        Failure::Challenge { .. } => "this challenge is not answered here".to_owned(),
        Failure::Replayed => "what is signed in this request came before".to_owned(),
        Failure::OwnSignature => "the relay made this signature for a handler; it proves nothing here".to_owned(),
        Failure::Overloaded => "the relay is at its limit; try again".to_owned(),
        Failure::StoreFull => "the relay has no room for events now; try again".to_owned(),
        Failure::StoreFailed => "the relay cannot keep events now; try again".to_owned(),
        Failure::Unwanted => "no agent that is attached to this endpoint takes events of this type".to_owned(),
        Failure::NoAgent => "no agent is attached to this endpoint; try again".to_owned(),
        Failure::Busy => "too many requests are in flight; try again".to_owned(),
        Failure::Limited { .. } => "this endpoint takes no more for a while; try again".to_owned(),
        Failure::Deadline | Failure::HandlerTimeout => "the handler did not answer in time".to_owned(),
        Failure::HandlerUnreachable => "the handler could not be reached".to_owned(),
        Failure::HandlerBroken => "the handler's answer broke off".to_owned(),
        Failure::AgentLost => "the agent was lost while the handler was at work".to_owned(),
        Failure::NotCalled => "the handler was not called; try again".to_owned(),
        Failure::NotCarriable => "this request cannot be made at the handler, now or later".to_owned(),
        Failure::Internal => "the relay failed".to_owned(),
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
        response.headers_mut().insert("relay-event-id", id);
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
