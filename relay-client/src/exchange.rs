//! One exchange: calls the handler with what came over the tunnel and sends back what it answers.
//!
//! Bodies stream both ways. When one end gives up, the other learns of it: a sender that went away closes
//! the connection to the handler, a handler that broke off resets the stream, never a clean short end.

mod answer;
mod fences;
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
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::{Body, Frame};
use http_body_util::{Either, Empty};
use jiff::Timestamp;
use relay_proto::{Framing, RequestHead, ResetCode, may_upgrade, names};
use relay_tunnel::{
    Receiver, Responder,
    http::{header_map, one_length, strip_hop_by_hop, takes_trailers},
    upgrade::Carried,
};

pub(crate) use self::outcomes::Outcomes;
use self::{
    answer::{Copy, Reply},
    outcomes::Attempt,
};
use crate::{
    handler::{BoxError, Handler},
    report::{Line, Outcome, Reporter, event_name},
    routes::Endpoint,
    target::UncarriablePath,
};

/// What a handler's answer is whose head means nothing, or two things.
const UNLAWFUL: &str = "the status or the framing of its answer is not lawful in HTTP";

/// Longest id of an event that is shown, in bytes.
const MAX_ID_BYTES: usize = 64;

/// Characters of a path that are reported. A relay may send whole heads of them.
const MAX_PATH_CHARS: usize = 2000;

/// Why an exchange did not work: a code, and the error behind it.
type Failed = (&'static str, Option<String>);

/// Bytes of the bodies of one exchange.
#[derive(Default)]
struct Traffic {
    from_sender: Arc<AtomicU64>,
    from_handler: u64,
}

/// Answers one request and reports how it went. `serving` is `None` for an endpoint that was not offered.
pub(crate) async fn serve(
    request: relay_tunnel::Request,
    serving: Option<Arc<Endpoint>>,
    reporter: Reporter,
    outcomes: Arc<Outcomes>,
) {
    let started = Instant::now();
    let mut line = first_line(&request.head);
    let attempt = Attempt::of(&request.head);
    let mut traffic = Traffic::default();
    let relay_tunnel::Request { head, body, responder } = request;
    let prepared = match &serving {
        Some(serving) => prepare(head, body, serving, &traffic.from_sender),
        None => Err(Unfit { reset: ResetCode::NotCalled, failed: ("endpoint_not_offered", None) }),
    };
    let prepared = prepared.and_then(|prepared| match attempt {
        Some(attempt) if !outcomes.may_call(attempt) => {
            Err(Unfit { reset: ResetCode::NotCalled, failed: ("older_attempt", None) })
        }
        _ => Ok(prepared),
    });
    match prepared {
        Ok(prepared) => {
            line.path = prepared.request.uri().to_string();
            let copy = attempt.map(|attempt| Copy::new(attempt, &outcomes));
            let reply = Reply { tunnel: Some(responder), copy };
            (line.outcome, line.note) = match call(prepared, reply, &mut traffic).await {
                Ok(status) => (Outcome::Status(status), None),
                Err((code, note)) => (Outcome::Failed(code.to_owned()), note),
            };
        }
        Err(Unfit { reset, failed: (code, note) }) => {
            responder.reset(reset);
            (line.outcome, line.note) = (Outcome::Unmade(code.to_owned()), note);
        }
    }
    if let Some((end, _)) = line.path.char_indices().nth(MAX_PATH_CHARS) {
        line.path.truncate(end);
        line.path.push('…');
    }
    line.duration = started.elapsed();
    line.bytes_in = traffic.from_sender.load(Ordering::Relaxed);
    line.bytes_out = traffic.from_handler;
    reporter.exchange(line);
}

/// What can be said of an exchange when it begins.
fn first_line(head: &RequestHead) -> Line {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let replay_of = head.headers.all(names::REPLAY_OF).next().filter(|first| first.len() <= MAX_ID_BYTES);
    Line {
        time: Timestamp::now(),
        method: text(&head.method),
        path: text(&head.target),
        outcome: Outcome::Unmade(String::new()),
        duration: Duration::ZERO,
        bytes_in: 0,
        bytes_out: 0,
        endpoint: text(&head.endpoint),
        event_id: Some(event_name(head.event_id)),
        replay_of: replay_of.map(text),
        note: None,
    }
}

type RequestBody = Either<Counted, Empty<Bytes>>;

/// A request as its handler gets it.
struct Prepared<'a> {
    handler: &'a Handler,
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

/// The request to the handler. What cannot be made into one means nothing, or two things, to the handler, and
/// would another time.
fn prepare<'a>(
    head: RequestHead,
    body: Receiver,
    serving: &'a Endpoint,
    bytes_in: &Arc<AtomicU64>,
) -> Result<Prepared<'a>, Unfit> {
    let unfit = |code| move || (code, None);
    let rest = std::str::from_utf8(&head.target).map_err(|_| UncarriablePath::Bytes);
    let located = rest.and_then(|rest| serving.locate(rest));
    let (route, uri) = located.map_err(|error| ("uncarriable_path", Some(error.to_string())))?;
    // Behind a CONNECT no handler of ours would see a request.
    let method = Method::from_bytes(&head.method).ok().filter(|method| *method != Method::CONNECT);
    let method = method.ok_or_else(unfit("bad_method"))?;
    let mut headers = header_map(&head.headers).ok().ok_or_else(unfit("bad_headers"))?;
    let takes_trailers = takes_trailers(Version::HTTP_2, &headers); // A relay leaves out `Connection`, as HTTP/2 does.
    strip_hop_by_hop(&mut headers);
    headers.remove(header::EXPECT); // Between the sender and the relay, which has the body's beginning.
    let chunked = head.framing == Framing::Chunked;
    if chunked {
        headers.remove(header::CONTENT_LENGTH);
    }
    // A relay gives the length once.
    let one_line = headers.get_all(header::CONTENT_LENGTH).iter().count() < 2;
    let length = one_length(&headers).ok().filter(|_| one_line).ok_or_else(unfit("bad_length"))?;
    if !route.config.preserve_host || !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, route.handler.host.clone());
    } else if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(("bad_headers", None).into());
    }
    for (name, value) in &route.config.headers {
        headers.insert(name, value.clone());
    }
    let (mut request, mut raw) = (Request::new(Either::Right(Empty::new())), None);
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
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
        raw = Some((body, upgrade));
    } else {
        if takes_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("te")); // RFC 9110, section 10.1.4.
        }
        if chunked {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if chunked || length.is_some() {
            *request.body_mut() = Either::Left(Counted { inner: body, bytes: Arc::clone(bytes_in), left: length });
        }
    }
    *request.headers_mut() = headers;
    Ok(Prepared { handler: &route.handler, request, raw })
}

/// Calls the handler and passes its answer on.
async fn call(
    Prepared { handler, request, raw }: Prepared<'_>,
    mut reply: Reply<'_, Responder>,
    traffic: &mut Traffic,
) -> Result<u16, Failed> {
    let called = pin!(handler.call(request));
    let response = match reply.wait_for(called).await? {
        Ok(response) => response,
        Err(error) => return Err(reply.fail_with(&error, Responder::reset)),
    };
    if !answer::is_lawful(&response) {
        reply.fail(ResetCode::Broken, Responder::reset);
        return Err(("broken", Some(UNLAWFUL.to_owned())));
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return answer::stream(response, reply, &mut traffic.from_handler).await;
    }
    match (raw, reply) {
        (Some((raw, asked)), Reply { tunnel: Some(responder), .. }) if answer::switches_to(&response, &asked) => {
            let mut carried = Carried::default();
            let outcome = answer::upgrade(response, responder, raw, &mut carried).await;
            traffic.from_sender.fetch_add(carried.out_of_tunnel, Ordering::Relaxed);
            traffic.from_handler += carried.into_tunnel;
            outcome
        }
        (_, reply) => {
            reply.fail(ResetCode::Broken, Responder::reset);
            Err(("upgrade_unasked", None))
        }
    }
}

/// A request's body on its way to the handler. The headers alone say its length; one that has another breaks.
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
