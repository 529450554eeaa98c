//! The handler's answer on its way back: streamed into the tunnel, or joined to it after a 101.
//!
//! The agent keeps a bounded copy of the answer of an attempt that may outlive its session. When the tunnel is lost
//! midway, it still reads the rest of the answer, for the copy alone.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
};

use bytes::{Bytes, BytesMut};
use relay_program::http1::{AnswerHead, Part};
use relay_proto::{
    HeaderBlock, MAX_OUTCOME_BODY_BYTES, OutcomeState, ResetCode, ResponseHead, limits::MAX_CHUNK_BYTES,
};
use relay_tunnel::{
    Broken, Receiver, Responder, Sender,
    upgrade::{Carried, join},
};

use super::{
    Failed, Traffic,
    outcomes::{Attempt, Outcomes},
    request::Counted,
};
use crate::{
    handler::{Call, CallError},
    tap::BodyTap,
};

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
    async fn next(&mut self, call: &mut Call<Counted>) -> Result<Option<Result<Part, CallError>>, Failed> {
        let mut part = poll_fn(|cx| call.poll_part(cx));
        if let Some(sender) = &mut self.tunnel {
            let gone = tokio::select! {
                biased;
                part = &mut part => return Ok(part),
                gone = sender.closed() => gone,
            };
            self.lose(gone)?;
        }
        Ok(part.await)
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

/// Whether a 101 names the protocol that was asked for, and no other.
pub(super) fn switches_to(head: &AnswerHead, asked: &[u8]) -> bool {
    head.upgrade.as_ref().is_some_and(|named| named.eq_ignore_ascii_case(asked))
}

/// Passes an answer on. Without a responder the tunnel is lost, and the answer is read for its copy alone.
pub(super) async fn pass_on(
    head: AnswerHead,
    call: &mut Call<Counted>,
    reply: Reply<'_, Responder>,
    traffic: &mut Traffic,
) -> Result<u16, Failed> {
    let (status, headers) = (head.status.as_u16(), head.headers);
    let sha256_in = traffic.sent.as_ref().filter(|_| call.has_sent()).and_then(BodyTap::sha256);
    let head = ResponseHead { status, headers, handler_us: traffic.handler_us, sha256_in };
    let first = call.next_if_here().await;
    let ends = call.has_ended() && reply.copy.is_none();
    let whole = match first {
        None if ends => Ok(Bytes::new()),
        Some(Ok(Part::Data(data))) if ends && data.len() <= MAX_CHUNK_BYTES => Ok(data),
        first => Err(first),
    };
    match whole {
        // Nearly every answer is short and comes in one piece: one look at its stream, and one wake-up.
        Ok(body) => {
            traffic.from_handler += body.len() as u64;
            traffic.record(&body);
            traffic.ended();
            if let Some(responder) = reply.tunnel {
                responder.respond_whole(head, body);
            }
        }
        // In a box, so that the others do without its room.
        Err(first) => Box::pin(stream(head, first, call, reply, traffic)).await?,
    }
    Ok(status)
}

/// Streams an answer, of which the first part may have come.
async fn stream(
    head: ResponseHead,
    first: Option<Result<Part, CallError>>,
    call: &mut Call<Counted>,
    reply: Reply<'_, Responder>,
    traffic: &mut Traffic,
) -> Result<(), Failed> {
    let kept_head = reply.copy.is_some().then(|| head.clone());
    let sender = reply.tunnel.map(|responder| responder.respond(head));
    let mut reply = Reply { tunnel: sender, copy: reply.copy };
    let mut trailers = HeaderBlock::new();
    let mut next = if first.is_some() { first } else { reply.next(call).await? };
    while let Some(part) = next {
        match part {
            Err(error) => return Err(reply.fail_with(&error, Sender::reset)),
            Ok(Part::Data(data)) => {
                let len = data.len() as u64;
                traffic.record(&data);
                reply.send(data).await?;
                traffic.from_handler += len;
            }
            Ok(Part::Trailers(lines)) => trailers = lines,
        }
        next = reply.next(call).await?;
    }
    traffic.ended();
    if let Some(sender) = reply.tunnel {
        sender.finish(trailers);
    }
    if let (Some(copy), Some(head)) = (reply.copy, kept_head) {
        copy.finished(head);
    }
    Ok(())
}

/// Joins the handler's connection to the tunnel after a 101. A sender's half-close is passed on, and the
/// handler's, too.
pub(super) async fn upgrade(
    head: AnswerHead,
    call: &mut Call<Counted>,
    responder: Responder,
    body: Receiver,
    carried: &mut Carried,
) -> Result<u16, Failed> {
    let status = head.status.as_u16();
    let mut headers = HeaderBlock::builder(head.headers.as_bytes().len());
    headers.append(&head.headers);
    if let Some(protocol) = head.upgrade {
        headers.push("upgrade", protocol);
    }
    let mut sender = responder.respond(ResponseHead::new(status, headers.build()));
    let Some((connection, read, _permit)) = call.take_raw() else { return Err(("broken", None)) };
    carried.into_tunnel += read.len() as u64;
    let broken = |error: &dyn std::error::Error| ("broken", Some(error.to_string()));
    sender.send(read).await.map_err(|error| broken(&error))?;
    join(connection, sender, body, carried).await.map_err(|error| broken(&error))?;
    Ok(status)
}
