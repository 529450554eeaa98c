//! What came over the tunnel as the request that its handler gets.
//!
//! The head is written once, into the buffer that leaves for the handler.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method};
use http_body::{Body, Frame};
use relay_program::http1::put_line;
use relay_proto::{Framing, HeaderBlock, RequestHead, ResetCode, may_have_controls, may_upgrade, names};
use relay_tunnel::Receiver;

use super::Failed;
use crate::{
    handler::{BoxError, Handler, HandlerRequest},
    routes::{Endpoint, Route},
    tap::{BodyTap, Recording, Tap},
    target::UncarriablePath,
};

/// Bodies up to here leave in one buffer with their heads.
const SHORT_BYTES: u64 = 8 * 1024;

/// A request as its handler gets it.
pub(super) struct Prepared<'a> {
    route: &'a Route,
    pub(super) path: String,
    /// The event that it repeats.
    pub(super) replay_of: Option<Bytes>,
    pub(super) called: Called<'a>,
}

/// What calling the handler takes.
pub(super) struct Called<'a> {
    pub(super) handler: &'a Handler,
    pub(super) request: HandlerRequest<Counted>,
    /// For an upgrade: what comes after the handler's 101, and the protocol that was asked for.
    pub(super) raw: Option<(Receiver, Bytes)>,
}

impl Prepared<'_> {
    /// Has what becomes of it recorded.
    pub(super) fn record(&mut self, tap: Arc<Tap>, came: Instant, attempt: u32) -> Recording {
        let own = self.route.config.headers.iter().map(|(name, _)| name.clone()).collect();
        let recording = Recording::new(tap, came, attempt, &self.called.request.head, own);
        self.watch(&recording.request);
        recording
    }

    /// Has the checksum of its body made on the way to the handler, and nothing kept of it.
    pub(super) fn summed(&mut self) -> BodyTap {
        let tap = BodyTap::keeping(0);
        self.watch(&tap);
        tap
    }

    fn watch(&mut self, tap: &BodyTap) {
        match &mut self.called.request.body {
            Some(body) => body.tap = Some(tap.clone()),
            None => tap.end(),
        }
    }
}

/// Why no request was made of a head.
pub(super) struct Unfit {
    pub(super) reset: ResetCode,
    pub(super) failed: Failed,
}

impl From<Failed> for Unfit {
    fn from(failed: Failed) -> Self {
        Self { reset: ResetCode::NotCarriable, failed }
    }
}

/// The request to the handler. What cannot be made into one means nothing, or two things, to the handler, and
/// would another time.
pub(super) fn prepare<'a>(
    head: &RequestHead,
    body: Receiver,
    serving: &'a Endpoint,
    bytes_in: &Arc<AtomicU64>,
) -> Result<Prepared<'a>, Unfit> {
    let unfit = |code| move || (code, None);
    let rest = std::str::from_utf8(&head.target).map_err(|_| UncarriablePath::Bytes);
    let located = rest.and_then(|rest| serving.locate(rest));
    let (route, path) = located.map_err(|error| ("uncarriable_path", Some(error.to_string())))?;
    // Behind a CONNECT no handler of ours would see a request.
    let method = Method::from_bytes(&head.method).ok().filter(|method| *method != Method::CONNECT);
    method.ok_or_else(unfit("bad_method"))?;
    let said = Said::by(&head.headers).ok_or_else(unfit("bad_headers"))?;
    let chunked = head.framing == Framing::Chunked;
    // A relay gives the length once.
    let length = if chunked { Ok(None) } else { said.length }.map_err(|()| ("bad_length", None))?;
    if route.config.preserve_host && said.hosts > 1 {
        return Err(("bad_headers", None).into());
    }
    let body_bytes = length.map_or(0, |length| length.min(SHORT_BYTES)) as usize;
    let mut request = HandlerRequest::new(&head.method, &path, head.headers.as_bytes().len() + body_bytes);
    said.write(&mut request.head, head, route, chunked);
    let mut raw = None;
    if !head.upgrade.is_empty() {
        if !may_upgrade(&head.upgrade, &serving.upgrades) {
            // Another agent may allow it.
            return Err(Unfit { reset: ResetCode::NotCalled, failed: ("upgrade_not_allowed", None) });
        }
        if chunked || length.is_some_and(|length| length > 0) {
            return Err(("bad_length", None).into()); // Its body begins behind the 101.
        }
        HeaderValue::from_bytes(&head.upgrade).map_err(|_| ("bad_headers", None))?;
        put_line(&mut request.head, b"connection", b"upgrade");
        put_line(&mut request.head, b"upgrade", &head.upgrade);
        raw = Some((body, head.upgrade.clone()));
    } else {
        if said.takes_trailers {
            put_line(&mut request.head, b"te", b"trailers");
            put_line(&mut request.head, b"connection", b"te"); // RFC 9110, section 10.1.4.
        }
        if chunked {
            put_line(&mut request.head, b"transfer-encoding", b"chunked");
            request.chunked = Some(head.headers.clone());
        }
        if chunked || length.is_some() {
            request.body = Some(Counted { inner: body, bytes: Arc::clone(bytes_in), left: length, tap: None });
        }
    }
    request.head.extend_from_slice(b"\r\n");
    let called = Called { handler: &route.handler, request, raw };
    Ok(Prepared { route, path, replay_of: said.replay_of, called })
}

/// What the header lines say, as far as it matters on the way to the handler.
struct Said {
    length: Result<Option<u64>, ()>,
    hosts: usize,
    /// A relay leaves out `Connection`, as HTTP/2 does.
    takes_trailers: bool,
    names_lines: bool,
    replay_of: Option<Bytes>,
}

impl Said {
    /// Nothing if a line is not valid in HTTP.
    fn by(lines: &HeaderBlock) -> Option<Self> {
        let mut said = Self { length: Ok(None), hosts: 0, takes_trailers: false, names_lines: false, replay_of: None };
        for (name, value) in lines.iter() {
            let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
            let controls = !lines.is_plain() && may_have_controls(value) && value.iter().any(is_control);
            if controls || name.len() > usize::from(u16::MAX) {
                return None;
            }
            match name {
                b"host" => said.hosts += 1,
                b"connection" => said.names_lines = true,
                _ if name == names::REPLAY_OF.as_bytes() => {
                    said.replay_of.get_or_insert_with(|| lines.share(value));
                }
                b"te" => said.takes_trailers |= options(value).any(|one| one.eq_ignore_ascii_case(b"trailers")),
                b"content-length" => {
                    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                    let length = text.and_then(|text| text.parse().ok());
                    said.length = if said.length == Ok(None) { length.map(Some).ok_or(()) } else { Err(()) };
                }
                _ => {}
            }
        }
        Some(said)
    }

    /// Writes the lines that the handler is to see: without those of the tunnel's hop, with the user's own.
    fn write(&self, out: &mut BytesMut, head: &RequestHead, route: &Route, chunked: bool) {
        let own = &route.config.headers;
        let is_own = |name: &[u8]| own.iter().any(|(own, _)| own.as_str().as_bytes() == name);
        let keeps_host = route.config.preserve_host && self.hosts > 0;
        if !keeps_host && !is_own(b"host") {
            put_line(out, b"host", route.handler.host.as_bytes());
        }
        for (name, value) in head.headers.iter() {
            let stays = match name {
                b"host" => keeps_host,
                b"content-length" => !chunked,
                b"expect" => false, // Between the sender and the relay, which has the body's beginning.
                b"trailer" if self.length != Ok(None) => false,
                _ => !self.is_of_one_hop(&head.headers, name),
            };
            if stays && !is_own(name) {
                put_line(out, name, value);
            }
        }
        for (at, (name, value)) in own.iter().enumerate() {
            let is_last = !own[at + 1..].iter().any(|(later, _)| later == name);
            if is_last {
                put_line(out, name.as_str().as_bytes(), value.as_bytes());
            }
        }
    }

    fn is_of_one_hop(&self, lines: &HeaderBlock, name: &[u8]) -> bool {
        let named = || lines.all("connection").flat_map(options).any(|option| option.eq_ignore_ascii_case(name));
        names::is_of_one_hop(name) || (self.names_lines && named())
    }
}

fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}
/// A request's body on its way to the handler. The headers alone say its length; one that has another breaks.
pub(super) struct Counted {
    inner: Receiver,
    bytes: Arc<AtomicU64>,
    /// What is still to come, where that was announced.
    left: Option<u64>,
    tap: Option<BodyTap>,
}

impl Counted {
    /// Takes note of what came; false if more came than was announced.
    fn count(&mut self, data: &[u8]) -> bool {
        let bytes = data.len() as u64;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(tap) = &self.tap {
            tap.add(data);
        }
        match &mut self.left {
            Some(left) => left.checked_sub(bytes).map(|rest| *left = rest).is_some(),
            None => true,
        }
    }

    /// Whether its end comes where it was announced.
    fn end(&self) -> bool {
        let whole = self.left.is_none_or(|left| left == 0);
        if let Some(tap) = self.tap.as_ref().filter(|_| whole) {
            tap.end();
        }
        whole
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let as_announced = match &polled {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) => self.count(data),
                None => self.end(), // Nothing comes behind trailers.
            },
            Poll::Ready(None) => self.end(),
            _ => true,
        };
        if !as_announced {
            return Poll::Ready(Some(Err("the body has another length than its head says".into())));
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}
