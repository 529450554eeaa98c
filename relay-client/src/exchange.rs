//! One exchange: calls the handler with what came over the tunnel and sends back what it answers.
//!
//! Bodies stream both ways. Whoever gives up is heard by the other: a sender that went away closes
//! the connection to the handler, a handler that broke off resets the stream, never a clean short end.

mod answer;
mod outcomes;
#[cfg(test)]
mod tests;

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body::{Body, Frame};
use http_body_util::{Either, Empty};
use jiff::Timestamp;
use relay_proto::{Framing, RequestHead, ResetCode, may_upgrade};
use relay_tunnel::{
    Broken, Receiver, Responder,
    http::{header_map, strip_hop_by_hop, takes_trailers},
    upgrade::Carried,
};

pub(crate) use self::outcomes::Outcomes;
use self::{answer::Copy, outcomes::Attempt};
use crate::{
    handler::{BoxError, CallError, Handler},
    report::{Line, Outcome, Reporter, event_name},
    routes::{Endpoint, Route},
    target::UncarriablePath,
};

/// What a handler's answer is whose head means nothing, or two things.
const UNLAWFUL: &str = "the status or the framing of its answer is not lawful in HTTP";

/// The relay's word for what a request repeats.
const REPLAY_OF: &[u8] = b"relay-replay-of";

/// Longest id of an event that is shown, in bytes.
const MAX_ID_BYTES: usize = 64;

/// Characters of a path that are told. A relay may send whole heads of them.
const MAX_PATH_CHARS: usize = 2000;

/// What there is to say of an exchange that did not work: a code, and the error behind it.
type Failed = (&'static str, Option<String>);

/// Answers one request and reports how it went. `serving` is `None` for an endpoint that was not offered.
pub(crate) async fn serve(
    request: relay_tunnel::Request,
    serving: Option<Arc<Endpoint>>,
    reporter: Reporter,
    outcomes: Arc<Outcomes>,
) {
    let (time, started) = (Timestamp::now(), Instant::now());
    let relay_tunnel::Request { head, body, responder } = request;
    let method = String::from_utf8_lossy(&head.method).into_owned();
    let endpoint = String::from_utf8_lossy(&head.endpoint).into_owned();
    let event_id = Some(event_name(head.event_id));
    let mut path = String::from_utf8_lossy(&head.target).into_owned();
    let first = head.headers.iter().find(|(name, _)| &name[..] == REPLAY_OF);
    let first = first.filter(|(_, value)| value.len() <= MAX_ID_BYTES);
    let replay_of = first.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
    let attempt = Attempt::of(&head);
    let (bytes_in, mut bytes_out) = (Arc::new(AtomicU64::new(0)), 0);
    let unmade = |(code, note): Failed| (Outcome::Unmade(code.to_owned()), note);
    let (outcome, note) = match serving {
        None => {
            responder.reset(ResetCode::NotCalled);
            unmade(("endpoint_not_offered", None))
        }
        Some(serving) => match prepare(head, body, &serving, &bytes_in) {
            Ok((route, prepared)) => {
                path = prepared.request.uri().to_string();
                let copy = attempt.map(|attempt| Copy::new(attempt, &outcomes));
                match call(&route.handler, prepared, responder, copy, (&bytes_in, &mut bytes_out)).await {
                    Ok(status) => (Outcome::Status(status), None),
                    Err((code, note)) => (Outcome::Failed(code.to_owned()), note),
                }
            }
            Err(Unfit { reset, failed }) => {
                responder.reset(reset);
                unmade(failed)
            }
        },
    };
    if let Some((end, _)) = path.char_indices().nth(MAX_PATH_CHARS) {
        path.truncate(end);
        path.push('…');
    }
    let bytes_in = bytes_in.load(Ordering::Relaxed);
    let duration = started.elapsed();
    reporter.exchange(Line {
        time,
        method,
        path,
        outcome,
        duration,
        bytes_in,
        bytes_out,
        endpoint,
        event_id,
        replay_of,
        note,
    });
}

type RequestBody = Either<Counted, Empty<Bytes>>;

/// A request as the handler gets it.
struct Prepared {
    request: Request<RequestBody>,
    /// For an upgrade: what comes after the handler's 101, and the protocol that was asked for.
    raw: Option<(Receiver, HeaderValue)>,
}

/// Why no request was made of a head.
struct Unfit {
    reset: ResetCode,
    failed: Failed,
}

impl From<Failed> for Unfit {
    fn from(failed: Failed) -> Self {
        Self { reset: ResetCode::NotCarriable, failed }
    }
}

/// The handler and the request to it. What cannot be made into one means nothing, or two things, to the handler, and
/// would another time.
fn prepare<'a>(
    head: RequestHead,
    body: Receiver,
    serving: &'a Endpoint,
    bytes_in: &Arc<AtomicU64>,
) -> Result<(&'a Route, Prepared), Unfit> {
    let unfit = |code| move || (code, None);
    let rest = std::str::from_utf8(&head.target).map_err(|_| UncarriablePath::Bytes);
    let located = rest.and_then(|rest| serving.locate(rest));
    let (route, uri) = located.map_err(|error| ("uncarriable_path", Some(error.to_string())))?;
    // Behind a CONNECT no handler of ours would see a request.
    let method = Method::from_bytes(&head.method).ok().filter(|method| *method != Method::CONNECT);
    let method = method.ok_or_else(unfit("bad_method"))?;
    let mut headers = header_map(head.headers).ok().ok_or_else(unfit("bad_headers"))?;
    let takes_trailers = takes_trailers(Version::HTTP_2, &headers); // A relay leaves out `Connection`, as HTTP/2 does.
    strip_hop_by_hop(&mut headers);
    headers.remove(header::EXPECT); // Between the sender and the relay, which has the body's beginning.
    let chunked = head.framing == Framing::Chunked;
    if chunked {
        headers.remove(header::CONTENT_LENGTH);
    }
    let length = announced_length(&headers).ok_or_else(unfit("bad_length"))?;
    if !route.config.preserve_host || !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, route.handler.host_header());
    } else if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(("bad_headers", None).into());
    }
    for (name, value) in route.headers() {
        headers.insert(name, value.clone());
    }
    if !head.upgrade.is_empty() {
        if !may_upgrade(&head.upgrade, &serving.upgrades) {
            // Another agent may allow it.
            return Err(Unfit { reset: ResetCode::NotCalled, failed: ("upgrade_not_allowed", None) });
        }
        if chunked || length.is_some_and(|length| length > 0) {
            return Err(("bad_length", None).into()); // Its body begins behind the 101.
        }
        let upgrade = HeaderValue::from_maybe_shared(head.upgrade).ok().ok_or_else(unfit("bad_headers"))?;
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade.clone());
        let request = request(method, uri, headers, Either::Right(Empty::new()));
        return Ok((route, Prepared { request, raw: Some((body, upgrade)) }));
    }
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te")); // RFC 9110, section 10.1.4.
    }
    if chunked {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let body = if chunked || length.is_some() {
        Either::Left(Counted { inner: body, bytes: Arc::clone(bytes_in), left: length })
    } else {
        Either::Right(Empty::new())
    };
    Ok((route, Prepared { request: request(method, uri, headers, body), raw: None }))
}

/// How long the body is as the lines say; `None` inside where they say nothing, outside where they say no one thing.
fn announced_length(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Some(None) };
    let digits = std::str::from_utf8(first.as_bytes()).ok()?;
    let lawful = lines.next().is_none() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| lawful).map(Some)
}

fn request(method: Method, uri: Uri, headers: HeaderMap, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// Calls the handler and passes its answer on.
async fn call(
    handler: &Handler,
    Prepared { request, raw }: Prepared,
    mut responder: Responder,
    copy: Option<Copy<'_>>,
    (bytes_in, bytes_out): (&AtomicU64, &mut u64),
) -> Result<u16, Failed> {
    let mut called = pin!(handler.call(request));
    let lost = tokio::select! {
        biased;
        gone = responder.cancelled() => gone,
        called = &mut called => return match (called, raw) {
            (Ok(response), _) if !answer::is_lawful(&response) => {
                responder.reset(ResetCode::Broken);
                if let Some(copy) = copy {
                    copy.failed(ResetCode::Broken);
                }
                Err(("broken", Some(UNLAWFUL.to_owned())))
            }
            (Ok(response), Some((_, asked)))
                if response.status() == StatusCode::SWITCHING_PROTOCOLS && !answer::switches_to(&response, &asked) =>
            {
                responder.reset(ResetCode::Broken);
                Err(("upgrade_unasked", None))
            }
            (Ok(response), Some((raw, _))) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let mut carried = Carried::default();
                let outcome = answer::upgrade(response, responder, raw, &mut carried).await;
                bytes_in.fetch_add(carried.out_of_tunnel, Ordering::Relaxed);
                *bytes_out += carried.into_tunnel;
                outcome
            }
            (Ok(response), None) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                responder.reset(ResetCode::Broken);
                Err(("upgrade_unasked", None))
            }
            (Ok(response), _) => answer::stream(response, Some(responder), copy, bytes_out).await,
            (Err(error), _) => {
                let (reset, code) = meaning(&error);
                responder.reset(reset);
                if let Some(copy) = copy {
                    copy.failed(reset);
                }
                Err((code, Some(error.to_string())))
            }
        },
    };
    let Some(copy) = copy.filter(|_| lost == Broken::SessionLost) else { return Err(given_up(lost)) };
    copy.outlived();
    match called.await {
        Ok(response) if !answer::is_lawful(&response) => {
            copy.failed(ResetCode::Broken);
            Err(("broken", Some(UNLAWFUL.to_owned())))
        }
        Ok(response) => answer::stream(response, None, Some(copy), bytes_out).await,
        Err(error) => {
            let (reset, code) = meaning(&error);
            copy.failed(reset);
            Err((code, Some(error.to_string())))
        }
    }
}

fn given_up(gone: Broken) -> Failed {
    match gone {
        Broken::SessionLost => ("session_lost", None),
        Broken::Reset(_) => ("cancelled", None),
    }
}

fn meaning(error: &CallError) -> (ResetCode, &'static str) {
    match error {
        CallError::Timeout(_) if !error.may_have_been_seen() => (ResetCode::Unreachable, "unreachable"),
        CallError::Timeout(_) => (ResetCode::Timeout, "timeout"),
        CallError::Unreachable(_) => (ResetCode::Unreachable, "unreachable"),
        CallError::Broken(_) => (ResetCode::Broken, "broken"),
        CallError::RequestBody(_) => (ResetCode::Broken, "request_broken"),
    }
}

/// A request's body on its way to the handler. Its length is told by the headers alone; one that has another breaks.
pub(crate) struct Counted {
    inner: Receiver,
    bytes: Arc<AtomicU64>,
    /// What is still to come, where that was announced.
    left: Option<u64>,
}

impl Counted {
    /// Takes note of what came; false if more came than was announced.
    fn count(&mut self, bytes: u64) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        match &mut self.left {
            Some(left) => left.checked_sub(bytes).map(|rest| *left = rest).is_some(),
            None => true,
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let as_announced = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().is_none_or(|data| self.count(data.len() as u64)),
            Poll::Ready(None) => self.left.is_none_or(|left| left == 0),
            _ => true,
        };
        if !as_announced {
            return Poll::Ready(Some(Err("the body has another length than its head says".into())));
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}
