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
    Failed,
    outcomes::{Attempt, Outcomes},
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

/// The places that an answer goes to: the tunnel, until it is lost, and the copy of an attempt that may outlive its
/// session.
pub(super) struct Reply<'a, T> {
    pub(super) tunnel: Option<T>,
    pub(super) copy: Option<Copy<'a>>,
}

impl<T> Reply<'_, T> {
    /// The tunnel wants no more. An error unless the answer is still wanted for the attempt's outcome.
    fn lose(&mut self, gone: Broken) -> Result<(), Failed> {
        self.tunnel = None;
        match (gone, &self.copy) {
            (Broken::SessionLost, Some(copy)) => {
                copy.outcomes.outlived(copy.attempt);
                Ok(())
            }
            (Broken::SessionLost, None) => Err(("session_lost", None)),
            (Broken::Reset(_), _) => Err(("cancelled", None)),
        }
    }

    /// There is no answer, or no end of one.
    pub(super) fn fail(self, code: ResetCode, reset: fn(T, ResetCode)) {
        if let Some(tunnel) = self.tunnel {
            reset(tunnel, code);
        }
        if let Some(copy) = self.copy {
            copy.outcomes.ended(copy.attempt, OutcomeState::Failed(code));
        }
    }

    /// As [`Self::fail`], for a call that failed.
    pub(super) fn fail_with(self, error: &CallError, reset: fn(T, ResetCode)) -> Failed {
        let (reset_code, code) = match error {
            CallError::Unreachable(_) => (ResetCode::Unreachable, "unreachable"),
            CallError::Timeout(_) if !error.may_have_been_seen() => (ResetCode::Unreachable, "unreachable"),
            CallError::Timeout(_) => (ResetCode::Timeout, "timeout"),
            CallError::Broken(_) => (ResetCode::Broken, "broken"),
            CallError::RequestBody(_) => (ResetCode::Broken, "request_broken"),
        };
        self.fail(reset_code, reset);
        (code, Some(error.to_string()))
    }
}

impl Reply<'_, Responder> {
    /// Waits for the handler, unless nobody wants its answer any more.
    pub(super) async fn wait_for<A>(&mut self, mut handler: Pin<&mut impl Future<Output = A>>) -> Result<A, Failed> {
        if let Some(responder) = &mut self.tunnel {
            let gone = tokio::select! {
                biased;
                gone = responder.cancelled() => gone,
                answered = &mut handler => return Ok(answered),
            };
            self.lose(gone)?;
        }
        Ok(handler.await)
    }
}

impl Reply<'_, Sender> {
    /// The next part of the answer, unless nobody wants more of it.
    async fn next(
        &mut self,
        mut body: Pin<&mut ResponseBody>,
    ) -> Result<Option<Result<Frame<Bytes>, CallError>>, Failed> {
        if let Some(sender) = &mut self.tunnel {
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
        if let Some(sender) = &mut self.tunnel
            && let Err(gone) = sender.send(data).await
        {
            self.lose(gone)?;
        }
        Ok(())
    }
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
    reply: Reply<'_, Responder>,
    bytes_out: &mut u64,
) -> Result<u16, Failed> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    let status = parts.status.as_u16();
    let head = ResponseHead { status, headers: header_lines(&parts.headers) };
    let sender = reply.tunnel.map(|responder| responder.respond(head.clone()));
    let mut reply = Reply { tunnel: sender, copy: reply.copy };
    let mut body = pin!(body);
    let mut trailers = HeaderBlock::new();
    while let Some(frame) = reply.next(body.as_mut()).await? {
        match frame.map(Frame::into_data) {
            Err(error) => return Err(reply.fail_with(&error, Sender::reset)),
            Ok(Ok(data)) => {
                let len = data.len() as u64;
                reply.send(data).await?;
                *bytes_out += len;
            }
            Ok(Err(frame)) => {
                if let Ok(lines) = frame.into_trailers() {
                    trailers = header_lines(&lines);
                }
            }
        }
    }
    if let Some(sender) = reply.tunnel {
        sender.finish(trailers);
    }
    if let Some(copy) = reply.copy {
        copy.finished(head);
    }
    Ok(status)
}

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
    let connection = connection.await.map_err(|error| ("broken", Some(error.to_string())))?;
    let joined = join(TokioIo::new(connection), sender, body, carried).await;
    joined.map_err(|error| ("broken", Some(error.to_string())))?;
    drop(response); // Its body held the right to a connection until now.
    Ok(status)
}
