//! The handler's answer on its way back: streamed into the tunnel, or joined to it after a 101.
//!
//! Of an attempt that may outlive its session a bounded copy is kept; when the tunnel is lost midway the
//! rest of the answer is still read, for the copy alone.

use std::pin::{Pin, pin};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use relay_proto::{Headers, MAX_OUTCOME_BODY_BYTES, OutcomeState, ResponseHead};
use relay_tunnel::{
    Broken, Receiver, Responder, Sender,
    http::{header_lines, one_length, strip_hop_by_hop},
    upgrade::{Carried, join},
};

use super::{Failed, given_up, meaning, outcomes::Attempt, outcomes::Outcomes};
use crate::handler::ResponseBody;

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

    /// The session broke; the handler goes on.
    pub(super) fn outlived(&self) {
        self.outcomes.outlived(self.attempt);
    }

    pub(super) fn failed(self, code: relay_proto::ResetCode) {
        self.outcomes.ended(self.attempt, OutcomeState::Failed(code));
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
    responder: Option<Responder>,
    mut copy: Option<Copy<'_>>,
    bytes_out: &mut u64,
) -> Result<u16, Failed> {
    let (parts, body) = response.into_parts();
    let mut headers: HeaderMap = parts.headers;
    strip_hop_by_hop(&mut headers);
    let head = ResponseHead { status: parts.status.as_u16(), headers: header_lines(&headers) };
    let mut sender = responder.map(|responder| responder.respond(head.clone()));
    let mut body = pin!(body);
    let mut trailers = Headers::new();
    loop {
        let frame = match next(body.as_mut(), &mut sender).await {
            Ok(frame) => frame,
            Err(gone) => match &copy {
                Some(copy) if gone == Broken::SessionLost => {
                    copy.outlived();
                    sender = None;
                    continue;
                }
                _ => return Err(given_up(gone)),
            },
        };
        match frame {
            None => break,
            Some(Err(error)) => {
                let (reset, code) = meaning(&error);
                if let Some(sender) = sender {
                    sender.reset(reset);
                }
                if let Some(copy) = copy {
                    copy.failed(reset);
                }
                return Err((code, Some(error.to_string())));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let len = data.len() as u64;
                    if let Some(copy) = &mut copy {
                        copy.add(&data);
                    }
                    if let Some(gone) = send(&mut sender, data).await {
                        match &copy {
                            Some(copy) if gone == Broken::SessionLost => {
                                copy.outlived();
                                sender = None;
                            }
                            _ => return Err(given_up(gone)),
                        }
                    }
                    *bytes_out += len;
                }
                Err(frame) => {
                    if let Ok(lines) = frame.into_trailers() {
                        trailers = header_lines(&lines);
                    }
                }
            },
        }
    }
    if let Some(sender) = sender {
        sender.finish(trailers);
    }
    let status = head.status;
    if let Some(copy) = copy {
        copy.finished(head);
    }
    Ok(status)
}

type Framed = Option<Result<http_body::Frame<Bytes>, crate::handler::CallError>>;

/// The next part of the answer, unless the tunnel wants no more of it.
async fn next(mut body: Pin<&mut ResponseBody>, sender: &mut Option<Sender>) -> Result<Framed, Broken> {
    let Some(sender) = sender else { return Ok(body.frame().await) };
    tokio::select! {
        biased;
        frame = body.frame() => Ok(frame),
        gone = sender.closed() => Err(gone),
    }
}

async fn send(sender: &mut Option<Sender>, data: Bytes) -> Option<Broken> {
    match sender {
        Some(sender) => sender.send(data).await.err(),
        None => None,
    }
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
    let broken = |error: &dyn std::error::Error| ("broken", Some(error.to_string()));
    let connection = match connection.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return Err(broken(&error)),
    };
    join(connection, sender, body, carried).await.map_err(|error| broken(&error))?;
    drop(response); // Its body held the right to a connection until now.
    Ok(status)
}
