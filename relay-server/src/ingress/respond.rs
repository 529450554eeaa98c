//! Answers to senders: the handler's own, or one short JSON body for each thing that can go wrong.
//!
//! The only place where a failure becomes a status: [`table`] says which.

mod table;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use relay_proto::names;
use relay_schemes::Reply;
use relay_tunnel::Receiver;
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep},
};

pub(crate) use self::table::{of_api_error, of_failure};
use crate::{
    admission::Admitted,
    agents::Turned,
    deliver::{HandlerAnswer, Upload, settle_trailers},
    delivery::{Piece, SenderReply, TakenIn},
    endpoint::Ack,
    failure::{ApiError, ApiErrorKind, Failure},
    journal::AnswerTap,
    memory::Memory,
    message::known,
    replay_guard::FirstRequest,
    webhook::EventId,
};

pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body.
pub(crate) enum ResponseBody {
    /// What is left of one that is there.
    Whole(Bytes),
    Handlers(Box<Streamed>),
    Other(UnsyncBoxBody<Bytes, BodyError>),
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Handlers(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Handlers(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Handlers(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// After how long an agent asks again for which there was no session: one whose link broke is noticed by then.
const SESSIONS_RETRY_S: u64 = 10;

pub(crate) fn empty() -> ResponseBody {
    ResponseBody::Whole(Bytes::new())
}

/// The handler's answer, streamed. `first` learns how it ended.
pub(crate) fn answer(
    answer: Box<HandlerAnswer>,
    first: Option<FirstRequest>,
    event_id: EventId,
    idle: Duration,
) -> Response<ResponseBody> {
    let HandlerAnswer { head, body, upload, memory, admitted, tap, .. } = *answer;
    let first = first.map(|running| (running, head.status));
    let body = body.map_or_else(empty, |inner| {
        let missing = inner.size_hint().exact().or_else(|| content_length(&head.headers));
        let (silence, _upload, _memory, _admitted) = (None, upload, memory, admitted);
        ResponseBody::Handlers(Box::new(Streamed {
            inner,
            idle,
            silence,
            missing,
            first,
            tap,
            _upload,
            _memory,
            _admitted,
        }))
    });
    let mut response = Response::from_parts(head, body);
    mark(&mut response, event_id);
    response
}

/// The answer to a sender whose event is kept: the handler's own, or the endpoint's ack.
pub(crate) fn kept(taken: TakenIn, ack: &Ack) -> Response<ResponseBody> {
    let mut response = match taken.reply {
        SenderReply::Failure(failed) => return failure(failed, taken.event_id),
        SenderReply::Ack => {
            let mut response = Response::new(ResponseBody::Whole(ack.body.clone()));
            *response.status_mut() = ack.status;
            if let Some(content_type) = &ack.content_type {
                response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            }
            response
        }
        SenderReply::Answer(answer) => {
            let sized = answer.body.is_empty() || answer.headers.contains_key(header::CONTENT_LENGTH);
            let body = match answer.more {
                None if sized && answer.trailers.is_empty() => ResponseBody::Whole(answer.body),
                None => lengthless(answer.body, answer.trailers),
                Some(more) => ResponseBody::Other(StreamBody::new(pieces(answer.body, more)).boxed_unsync()),
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

/// A body whose handler told no length: neither does the relay.
fn lengthless(bytes: Bytes, trailers: http::HeaderMap) -> ResponseBody {
    let data = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
    let trailers = (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)));
    ResponseBody::Other(StreamBody::new(futures_util::stream::iter(data.into_iter().chain(trailers))).boxed_unsync())
}

/// A long answer, piece by piece. One that ends without saying so broke off.
fn pieces(first: Bytes, more: mpsc::Receiver<Piece>) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> {
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

pub(crate) fn challenge(reply: Reply, event_id: EventId) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Whole(reply.body.into()));
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
pub(crate) fn repeated(status: StatusCode, first: EventId) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    mark(&mut response, first);
    response
}

/// A failure as its sender or agent reads it.
#[derive(Serialize)]
pub(crate) struct ErrorText<'a> {
    pub error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    pub message: &'a str,
}

pub(crate) fn failure(failure: Failure, event_id: EventId) -> Response<ResponseBody> {
    let (code, answer) = (failure.code(), of_failure(failure));
    let text = ErrorText { error: code, event_id: Some(event_id.to_string()), message: &answer.message };
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

pub(crate) fn turned(turned: Turned) -> Response<ResponseBody> {
    api_error(&turned.into())
}

fn api_error(ApiError { kind, message, .. }: &ApiError) -> Response<ResponseBody> {
    let (status, code) = of_api_error(*kind);
    let mut response = json(status, &ErrorText { error: code, event_id: None, message });
    if let Some(wait_s) = retry_after_s(*kind) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
    }
    response
}

/// When an asker may come again, in seconds.
pub(crate) fn retry_after_s(kind: ApiErrorKind) -> Option<u64> {
    match kind {
        ApiErrorKind::TooManyGuesses { wait_s } | ApiErrorKind::TooManyLogins { wait_s } => Some(wait_s),
        ApiErrorKind::TooManySessions | ApiErrorKind::TooManyBulks => Some(SESSIONS_RETRY_S),
        _ => (of_api_error(kind).0 == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
    }
}

/// The relay's own answer to somebody who is no sender.
pub(crate) fn own<B>(response: Response<B>) -> Response<ResponseBody>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    response.map(|body| ResponseBody::Other(body.map_err(Into::into).boxed_unsync()))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<ResponseBody> {
    let mut text = serde_json::to_string(value).expect("answers are made of texts, numbers and lists");
    text.push('\n');
    let mut response = Response::new(ResponseBody::Whole(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn mark(response: &mut Response<ResponseBody>, event_id: EventId) {
    if let Ok(id) = HeaderValue::from_bytes(&event_id.text()) {
        response.headers_mut().insert(known::EVENT_ID.clone(), id);
    }
}

/// A handler's body with a limit on its silence.
pub(crate) struct Streamed {
    inner: Receiver,
    idle: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// Bytes that are still to come, where the handler said how many there are.
    missing: Option<u64>,
    /// A first request, whose end those that repeat it wait for, and its status.
    first: Option<(FirstRequest, StatusCode)>,
    /// The journal's look at it.
    tap: Option<AnswerTap>,
    /// The rest of the request, which ends with the answer unless others watch.
    _upload: Option<Upload>,
    _memory: Option<Memory>,
    /// It counts among the endpoint's exchanges until the sender has it all: the next one must not find it there.
    _admitted: Option<Admitted>,
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
        if let Some((running, status)) = self.first.take() {
            running.ended(status);
        }
        if let Some(mut tap) = self.tap.take() {
            tap.ended();
        }
    }
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Its length is what the handler's head says, and never what happens to be here already: an answer that ends before its
/// length must break, and one in chunks may have trailers.
impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(mut frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.silence = None;
            match &mut frame {
                None => self.ended(),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        let len = data.len() as u64;
                        self.missing = self.missing.map(|missing| missing.saturating_sub(len));
                        if let Some(tap) = &mut self.tap {
                            tap.data(data);
                        }
                    }
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
        silence.as_mut().poll(cx).map(|()| Some(Err("the answer stopped coming".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}
