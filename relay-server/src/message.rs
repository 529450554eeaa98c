//! What a sender sent, and what the relay knows of it: two things that are never mixed.
//!
//! [`Sent`] is kept and passed on as it came. [`Known`] is what the relay found out and did; the lines that tell a
//! handler of it are made here alone, by [`request_head`], when a request leaves for the tunnel. No such line is ever
//! read back. Nothing here decides where a request goes, or verifies it.

pub(crate) mod known;
pub(crate) mod names;

pub(crate) use names::{drop_tales, is_dropped, is_everyones};

use std::net::IpAddr;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use hyper::body::Body as _;
use jiff::Timestamp;
use relay_proto::{
    Framing, HeaderBlock, HeaderBlockBuilder, RequestHead,
    names::{
        ATTEMPT, CLIENT_CERTIFICATE, ENDPOINT, EVENT_ID, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, RECEIVED_AT,
        REDELIVERED, REPLAY_OF, RESIGNED, TRACEPARENT, TRACESTATE, VERIFIED,
    },
};
use relay_tunnel::http::{is_of_one_hop, named_by_connection, one_hop, takes_trailers};

use crate::{
    clock::text_of,
    endpoint::EndpointName,
    trace::{Sampling, TraceContext},
    verify::{Payload, Webhook},
    webhook::{
        EventId, Front, Received,
        lines::{Line, LineNotes},
    },
};

/// Room for the lines that the relay adds, in bytes.
const ADDED_BYTES: usize = 512;

/// What the lengths before a line's name and value take, mostly.
const LENGTHS_BYTES: usize = 3;

/// What stands for the proof of content that somebody changed, and that is not signed afresh.
pub(crate) const EDITED: &str = "edited";

/// What a sender sent, but for its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub method: String,
    /// What of the target is for the handler.
    pub target: String,
    /// Its lines without those of one hop and those that are the relay's to write.
    pub headers: HeaderBlock,
    pub framing: Framing,
    /// What it asked to upgrade to; empty if it did not ask.
    pub upgrade: Bytes,
}

/// What the relay knows of a request from the moment that it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The id that it got. A replay has one of its own.
    pub id: EventId,
    pub received_at: Timestamp,
    pub peer: IpAddr,
    /// Under which the sender knows the endpoint: a signature may cover it.
    pub url: String,
    pub verified: String,
    /// Which of the endpoint's secrets verified it, in hexadecimal: a tag, which tells nothing of the secret.
    pub signer: Option<String>,
    pub forwarded: Forwarded,
    /// The trace that it brought, or one that began here.
    pub traceparent: String,
    /// What the certificate says that its sender showed.
    pub certificate: Option<Bytes>,
}

impl Arrival {
    /// It was let pass although it did not prove its sender, or somebody changed it since.
    pub(crate) fn is_unproven(&self) -> bool {
        self.verified.starts_with("failed:") || self.verified == EDITED
    }
}

/// How a request came, as far as the relay and the proxies that it trusts know. Raw bytes, as in the lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    pub addresses: Bytes,
    pub proto: Bytes,
    pub host: Bytes,
}

/// What the relay knows of one attempt to pass a request on.
#[derive(Clone, Debug)]
pub(crate) struct Known<'a> {
    pub arrival: &'a Arrival,
    /// The event: for a replay, not the one that came.
    pub event_id: EventId,
    pub attempt: u32,
    /// Set where the event is kept.
    pub fence: Option<u64>,
    pub replay_of: Option<EventId>,
    /// A person asked its sender for it once more.
    pub redelivered: bool,
    pub resigned: bool,
    /// Which traces are recorded, where any are.
    pub sampling: Option<Sampling>,
}

impl<'a> Known<'a> {
    /// The only attempt of a request that is not kept.
    pub(crate) const fn live(arrival: &'a Arrival, sampling: Option<Sampling>) -> Self {
        Self {
            arrival,
            event_id: arrival.id,
            attempt: 1,
            fence: None,
            replay_of: None,
            redelivered: false,
            resigned: false,
            sampling,
        }
    }
}

/// A webhook that was taken apart, but for its header lines.
struct Apart {
    method: Method,
    target: String,
    framing: Framing,
    upgrade: Bytes,
    arrival: Arrival,
    payload: Payload,
}

/// Takes a webhook apart. `trusts` says whose word about the way here counts.
pub(crate) fn take_apart(webhook: Box<Webhook>, trusts: impl Fn(IpAddr) -> bool) -> (Sent, Arrival, Payload) {
    let (headers, Apart { method, target, framing, upgrade, arrival, payload }) = apart(webhook, trusts, 0);
    let sent = Sent { method: method.as_str().to_owned(), target, headers: headers.build(), framing, upgrade };
    (sent, arrival, payload)
}

/// The head of a webhook's only attempt, and its body: what [`take_apart`] and [`request_head`] make for a live one.
pub(crate) fn live_head(
    endpoint: &EndpointName,
    webhook: Box<Webhook>,
    trusts: impl Fn(IpAddr) -> bool,
    sampling: Option<Sampling>,
) -> (RequestHead, Payload) {
    let (headers, Apart { method, target, framing, upgrade, arrival, payload }) = apart(webhook, trusts, ADDED_BYTES);
    let known = Known::live(&arrival, sampling);
    let method = match method {
        Method::POST => Bytes::from_static(b"POST"),
        other => Bytes::copy_from_slice(other.as_str().as_bytes()),
    };
    (head_of(endpoint, (method, target.into()), headers, (framing, upgrade), &known), payload)
}

/// The parts, and the lines with room for so many bytes more.
fn apart(webhook: Box<Webhook>, trusts: impl Fn(IpAddr) -> bool, more: usize) -> (HeaderBlockBuilder, Apart) {
    let signer = webhook.signer().map(|tag| HEXLOWER.encode(tag.bytes()));
    let (received, payload, verified) = webhook.into_parts();
    let trusted = trusts(received.peer);
    let Received {
        event_id: id,
        at: received_at,
        peer,
        address,
        secure,
        certificate,
        front,
        head,
        lines: there,
        host,
        url,
        rest,
        ..
    } = *received;
    let headers = &head.headers;
    let front = front.unwrap_or(Front { scheme: if secure { "https" } else { "http" }, host: None });
    // HTTP/2 has an :authority instead of the line.
    let named = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let named = named.or_else(|| head.uri.authority().map(|authority| authority.as_str().as_bytes()));
    let named = named.unwrap_or(host.as_bytes());
    // What concerned the sender's hop alone says nothing.
    let named_hop = if there.has(Line::Connection) { named_by_connection(headers) } else { Vec::new() };
    let one_hop = one_hop(named_hop, there.has(Line::ContentLength));
    let brought = if there.has(Line::Traceparent) { brought_trace(headers) } else { None };
    let is_brought = brought.is_some();
    let traceparent = brought.unwrap_or_else(|| TraceContext::begin(id)).to_text();
    let upgrade = match &payload {
        Payload::Upgrade(_) => headers.get(header::UPGRADE),
        _ => None,
    };
    let upgrade = upgrade.map_or_else(Bytes::new, |wanted| Bytes::copy_from_slice(wanted.as_bytes()));
    let said = |name: &HeaderName| if trusted && !one_hop(name) { joined(headers, name, b", ") } else { Vec::new() };
    let forwarded = forwarded(said, address, &front, named);
    let verified = verified.into_owned();
    let bytes = there.text_bytes + LENGTHS_BYTES * head.headers.len() + more;
    let lines = lines(&head, there, &one_hop, named, (trusted, is_brought), bytes);
    let framing = framing(there, &payload);
    let certificate = certificate.map(|shown| shown.line().clone());
    let arrival = Arrival { id, received_at, peer, url, verified, signer, forwarded, traceparent, certificate };
    (lines, Apart { method: head.method, target: rest, framing, upgrade, arrival, payload })
}

/// How the sender framed the body. Over HTTP/2 one may come without a length.
fn framing(there: LineNotes, payload: &Payload) -> Framing {
    let (has_length, has_coding) = (there.has(Line::ContentLength), there.has(Line::TransferEncoding));
    let chunked = match payload {
        Payload::Whole(body) => !body.is_empty() && !has_length || has_coding,
        Payload::Long(..) => !has_length || has_coding,
        Payload::Upgrade(_) => false,
        Payload::Streaming(body) => !body.is_end_stream() && !has_length,
    };
    if chunked { Framing::Chunked } else { Framing::Length }
}

fn lines(
    head: &Parts,
    there: LineNotes,
    one_hop: impl Fn(&HeaderName) -> bool,
    host: &[u8],
    (trusted, keeps_trace): (bool, bool),
    bytes: usize,
) -> HeaderBlockBuilder {
    let headers = &head.headers;
    let mut block = HeaderBlock::builder(bytes + host.len() + 16);
    let mut last = None;
    for (name, value) in headers {
        let is_first = last.replace(name) != Some(name);
        if one_hop(name) {
            continue;
        }
        if *name == header::COOKIE {
            // HTTP/2 may break a cookie into crumbs, each a line of its own. HTTP/1.1 knows one line (RFC 9113, section
            // 8.2.3), and so does every handler.
            if is_first {
                block.push(name, joined(headers, name, b"; "));
            }
            continue;
        }
        // HTTP/2 may bring equal ones; the door has seen that they are.
        let is_again = *name == header::CONTENT_LENGTH && !is_first;
        let is_a_fact = matches!(name.as_str(), FORWARDED_FOR | FORWARDED_PROTO | FORWARDED_HOST | TRACEPARENT)
            || (name.as_str() == TRACESTATE && !keeps_trace);
        let is_dropped = *name == header::EXPECT || (!is_everyones(name) && is_dropped(name.as_str(), trusted));
        if !(is_again || is_a_fact || is_dropped) {
            block.push(name, value);
        }
    }
    if !there.has(Line::Host) {
        block.push(header::HOST, host);
    }
    if there.has(Line::Te) && takes_trailers(head.version, headers) {
        block.push(header::TE, "trailers");
    }
    block
}

fn joined(headers: &HeaderMap, name: impl header::AsHeaderName, between: &[u8]) -> Vec<u8> {
    let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    lines.join(between)
}

/// Whom the request comes from. What a trusted proxy said of that is continued; what anyone else said is gone.
/// `said` gives the lines of a name that a trusted proxy wrote, as one.
fn forwarded(said: impl Fn(&HeaderName) -> Vec<u8>, address: Bytes, front: &Front, host: &[u8]) -> Forwarded {
    let before = said(&known::FORWARDED_FOR);
    let addresses = if before.is_empty() { address } else { [&before, &b", "[..], &address].concat().into() };
    let host = front.host.as_ref().map_or(host, |host| host.as_bytes());
    let told = |name| Some(said(name)).filter(|said| !said.is_empty()).map(Bytes::from);
    Forwarded {
        addresses,
        proto: told(&known::FORWARDED_PROTO).unwrap_or(Bytes::from_static(front.scheme.as_bytes())),
        host: told(&known::FORWARDED_HOST).unwrap_or_else(|| Bytes::copy_from_slice(host)),
    }
}

/// A valid trace that the sender brought, and that is not for the first hop alone.
pub(crate) fn brought_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(&known::TRACEPARENT).iter();
    let (Some(only), None) = (values.next(), values.next()) else { return None };
    TraceContext::parse(only.as_bytes()).filter(|_| !is_of_one_hop(headers)(&known::TRACEPARENT))
}

pub(crate) fn request_head(endpoint: &EndpointName, sent: &Sent, known: &Known<'_>) -> RequestHead {
    let mut headers = HeaderBlock::builder(sent.headers.as_bytes().len() + ADDED_BYTES);
    headers.append(&sent.headers);
    let copied = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let line = (copied(&sent.method), copied(&sent.target));
    head_of(endpoint, line, headers, (sent.framing, sent.upgrade.clone()), known)
}

/// The head of one attempt: what was sent, and behind its lines those that the relay adds.
fn head_of(
    endpoint: &EndpointName,
    (method, target): (Bytes, Bytes),
    mut headers: HeaderBlockBuilder,
    (framing, upgrade): (Framing, Bytes),
    known: &Known<'_>,
) -> RequestHead {
    let Known { arrival, event_id, attempt, sampling, .. } = *known;
    let own = sampling.and_then(|sampling| sampling.passed_on(&arrival.traceparent, event_id, attempt));
    tell_arrival(&mut headers, endpoint, event_id, arrival, own.as_ref().unwrap_or(&arrival.traceparent));
    match attempt {
        1 => headers.push(ATTEMPT, "1"),
        attempt => headers.push(ATTEMPT, attempt.to_string()),
    }
    if let Some(first) = known.replay_of {
        headers.push(REPLAY_OF, first.to_string());
    }
    for (name, holds) in [(REDELIVERED, known.redelivered), (RESIGNED, known.resigned)] {
        if holds {
            headers.push(name, "true");
        }
    }
    RequestHead {
        endpoint: Bytes::copy_from_slice(endpoint.as_str().as_bytes()),
        event_id: *known.event_id.as_bytes(),
        attempt: known.attempt,
        method,
        target,
        framing,
        headers: headers.build(),
        fence: known.fence,
        upgrade,
        asks_sha256: known.fence.is_some(),
    }
}

/// The lines of a request as every attempt has them, for people to look at.
pub(crate) fn shown_headers(endpoint: &EndpointName, sent: &Sent, arrival: &Arrival) -> HeaderBlock {
    let mut headers = HeaderBlock::builder(sent.headers.as_bytes().len() + ADDED_BYTES);
    headers.append(&sent.headers);
    tell_arrival(&mut headers, endpoint, arrival.id, arrival, &arrival.traceparent);
    headers.build()
}

fn tell_arrival(
    headers: &mut HeaderBlockBuilder,
    endpoint: &EndpointName,
    id: EventId,
    arrival: &Arrival,
    traceparent: &str,
) {
    // The first of the relay's own, wherever a request is looked at: a sender's never passes.
    headers.push(FORWARDED_FOR, &arrival.forwarded.addresses);
    headers.push(FORWARDED_PROTO, &arrival.forwarded.proto);
    headers.push(FORWARDED_HOST, &arrival.forwarded.host);
    headers.push(TRACEPARENT, traceparent);
    headers.push(EVENT_ID, id.text());
    headers.push(ENDPOINT, endpoint.as_str());
    headers.push(RECEIVED_AT, text_of(arrival.received_at));
    headers.push(VERIFIED, &arrival.verified);
    if let Some(certificate) = &arrival.certificate {
        headers.push(CLIENT_CERTIFICATE, certificate);
    }
}

impl Sent {
    pub(crate) fn with(&self, set: &[(String, String)]) -> Self {
        let is_set = |name: &[u8]| set.iter().any(|(set, _)| set.as_bytes() == name);
        let mut headers = HeaderBlock::builder(self.headers.as_bytes().len() + ADDED_BYTES);
        self.headers.iter().filter(|(name, _)| !is_set(name)).for_each(|(name, value)| headers.push(name, value));
        set.iter().for_each(|(name, value)| headers.push(name, value));
        Self { headers: headers.build(), ..self.clone() }
    }
}
