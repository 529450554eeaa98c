//! The handler's answer on its way back: streamed into the tunnel, or joined to it after a 101.
//!
//! The agent keeps a bounded copy of the answer of an attempt that may outlive its session. When the tunnel is lost
//! midway, it still reads the rest of the answer, for the copy alone.

use std::{
    future::Future,
    pin::{Pin, pin},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use relay_proto::{HeaderBlock, MAX_OUTCOME_BODY_BYTES, OutcomeState, ResetCode, ResponseHead};
use relay_tunnel::{
    Broken, Receiver, Responder, Sender,
    http::{header_lines, one_length, strip_hop_by_hop},
    upgrade::{Carried, join},
};

use super::{
    Failed, given_up,
    outcomes::{Attempt, Outcomes},
    reset_of,
};
use crate::handler::{CallError, ResponseBody};

/// What is kept of an answer for an attempt's outcome.
pub(super) struct Copy<'a> {
    attempt: Attempt,
    outcomes: &'a Outcomes,
    body: BytesMut,
    truncated: bool,
}

impl<'a> Copy<'a> {
    pub(super) fn new(attempt: Attempt, outcomes: &'a Outcomes) -> Self {
        Self { attempt, outcomes, body: BytesMut::new(), truncated: false }
    }

    fn add(&mut self, data: &[u8]) {
        let room = MAX_OUTCOME_BODY_BYTES - self.body.len();
        self.truncated |= data.len() > room;
        self.body.extend_from_slice(&data[..data.len().min(room)]);
    }

    fn finished(self, head: ResponseHead) {
        let state = OutcomeState::Finished { head, body: self.body.freeze(), truncated: self.truncated };
        self.outcomes.ended(self.attempt, state);
    }
}

/// The places that an answer goes to before its head is there: the tunnel, until it is lost, and the copy of an
/// attempt that may outlive its session.
pub(super) struct Reply<'a> {
    pub(super) responder: Option<Responder>,
    pub(super) copy: Option<Copy<'a>>,
}

impl Reply<'_> {
    /// Waits for the handler as long as the tunnel wants its answer.
    pub(super) async fn wanted_until<T>(&mut self, handler: impl Future<Output = T>) -> Result<T, Broken> {
        let Some(responder) = &mut self.responder else { return Ok(handler.await) };
        tokio::select! {
            biased;
            gone = responder.cancelled() => Err(gone),
            answered = handler => Ok(answered),
        }
    }

    /// The tunnel wants no more. An error unless the answer is still wanted for the attempt's outcome.
    pub(super) fn lose(&mut self, gone: Broken) -> Result<(), Failed> {
        self.responder = None;
        outlive(self.copy.as_ref(), gone)
    }

    /// There is no answer.
    pub(super) fn fail(self, code: ResetCode) {
        if let Some(responder) = self.responder {
            responder.reset(code);
        }
        if let Some(copy) = self.copy {
            copy.outcomes.ended(copy.attempt, OutcomeState::Failed(code));
        }
    }

    /// As [`Self::fail`], for a call that failed.
    pub(super) fn fail_with(self, error: &CallError) -> Failed {
        let (reset, code) = reset_of(error);
        self.fail(reset);
        (code, Some(error.to_string()))
    }
}

/// Notes that an attempt goes on without its session, if it does.
fn outlive(copy: Option<&Copy<'_>>, gone: Broken) -> Result<(), Failed> {
    let copy = copy.filter(|_| gone == Broken::SessionLost).ok_or_else(|| given_up(gone))?;
    copy.outcomes.outlived(copy.attempt);
    Ok(())
}

/// Whether an answer's head means one thing: a final status that HTTP knows, and one framing at most. hyper would
/// take a coding off without a word, or choose between two lengths.
pub(super) fn is_lawful<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let framed = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => {
            only.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(header::CONTENT_LENGTH)
        }
        _ => false,
    };
    // Where a status has no body, its length bounds nothing, and the relay leaves it out.
    let measured = matches!(response.status().as_u16(), 204 | 304) || one_length(headers).is_ok();
    framed && measured && matches!(response.status().as_u16(), 101 | 200..=599)
}

/// Whether a 101 names the protocol that was asked for, and no other.
pub(super) fn switches_to<B>(response: &Response<B>, asked: &HeaderValue) -> bool {
    let mut named = response.headers().get_all(header::UPGRADE).iter();
    matches!((named.next(), named.next()), (Some(only), None)
        if only.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
}

/// Streams an answer. Without a responder the tunnel is lost, and the answer is read for its copy alone.
pub(super) async fn stream(
    response: Response<ResponseBody>,
    reply: Reply<'_>,
    bytes_out: &mut u64,
) -> Result<u16, Failed> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    let status = parts.status.as_u16();
    let head = ResponseHead { status, headers: header_lines(&parts.headers) };
    let sender = reply.responder.map(|responder| responder.respond(head.clone()));
    let mut answer = Answer { sender, copy: reply.copy };
    let mut body = pin!(body);
    let mut trailers = HeaderBlock::new();
    while let Some(frame) = answer.next(body.as_mut()).await? {
        match frame.map(Frame::into_data) {
            Err(error) => return Err(answer.fail_with(&error)),
            Ok(Ok(data)) => {
                let len = data.len() as u64;
                answer.send(data).await?;
                *bytes_out += len;
            }
            Ok(Err(frame)) => {
                if let Ok(lines) = frame.into_trailers() {
                    trailers = header_lines(&lines);
                }
            }
        }
    }
    if let Some(sender) = answer.sender {
        sender.finish(trailers);
    }
    if let Some(copy) = answer.copy {
        copy.finished(head);
    }
    Ok(status)
}

/// The places that an answer's body goes to.
struct Answer<'a> {
    sender: Option<Sender>,
    copy: Option<Copy<'a>>,
}

impl Answer<'_> {
    /// The next part of the answer, unless nobody wants more of it.
    async fn next(&mut self, mut body: Pin<&mut ResponseBody>) -> Result<Option<Framed>, Failed> {
        if let Some(sender) = &mut self.sender {
            let gone = tokio::select! {
                biased;
                frame = body.frame() => return Ok(frame),
                gone = sender.closed() => gone,
            };
            self.lose(gone)?;
        }
        Ok(body.frame().await)
    }

    async fn send(&mut self, data: Bytes) -> Result<(), Failed> {
        if let Some(copy) = &mut self.copy {
            copy.add(&data);
        }
        if let Some(sender) = &mut self.sender
            && let Err(gone) = sender.send(data).await
        {
            self.lose(gone)?;
        }
        Ok(())
    }

    fn lose(&mut self, gone: Broken) -> Result<(), Failed> {
        self.sender = None;
        outlive(self.copy.as_ref(), gone)
    }

    /// The handler broke off.
    fn fail_with(self, error: &CallError) -> Failed {
        let failed = Reply { responder: None, copy: self.copy }.fail_with(error);
        if let Some(sender) = self.sender {
            sender.reset(reset_of(error).0);
        }
        failed
    }
}

type Framed = Result<Frame<Bytes>, CallError>;

/// Joins the handler's connection to the tunnel after a 101. A sender's half-close is passed on, and the
/// handler's, too.
pub(super) async fn upgrade(
    mut response: Response<ResponseBody>,
    responder: Responder,
    body: Receiver,
    carried: &mut Carried,
) -> Result<u16, Failed> {
    let protocol: Option<HeaderValue> = response.headers_mut().remove(header::UPGRADE);
    strip_hop_by_hop(response.headers_mut());
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    let status = response.status().as_u16();
    let connection = hyper::upgrade::on(&mut response);
    let sender = responder.respond(ResponseHead { status, headers: header_lines(response.headers()) });
    let broken = |error: &dyn std::error::Error| ("broken", Some(error.to_string()));
    let connection = match connection.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return Err(broken(&error)),
    };
    join(connection, sender, body, carried).await.map_err(|error| broken(&error))?;
    drop(response); // Its body held the right to a connection until now.
    Ok(status)
}
