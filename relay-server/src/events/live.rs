//! A live exchange as an event that can be delivered once more: what the journal has of it, put as the store would have it.
//!
//! What was masked before the journal took it is gone, so those lines and those parts of a query are left out, and a request
//! whose provider's credential stood in its query or body is not made again. Nothing here delivers.

use bytes::Bytes;
use relay_program::api::Edit;
use relay_proto::{Framing, HeaderBlock, names};
use relay_schemes::Provider;

use super::edit::framed;
use crate::{
    endpoint::Endpoint,
    failure::{ApiError, ApiErrorKind},
    journal::{self, LiveEntry},
    mask::MASKED,
    message::{Arrival, Forwarded, Sent, is_dropped},
    store::{Head, Record, Signature, State, Summary},
    trace::TraceContext,
};

const CUT: &str = "a live endpoint keeps no more than the first 64 KiB of a body, and with journal = \"heads\" nothing of it, \
                   so this one is not there whole";

const REPLACE: &str = "replay it with a whole body in its place (`body_text` or `body_base64` of an edit, `--body-file` of \
                       `event replay`), or have its sender send it again";

/// Its body, if all of it is there.
pub(crate) fn whole_body(entry: &LiveEntry) -> Result<Bytes, ApiError> {
    entry.whole_body().ok_or_else(|| ApiError::new(ApiErrorKind::WrongState, CUT))
}

/// A live exchange that can be delivered once more.
pub(crate) struct Again {
    pub record: Record,
    /// An empty one where an edit brings the whole of another.
    pub body: Bytes,
    /// Something that came is left out: it is not what its sender sent.
    pub lacks_something: bool,
}

/// `brings_body` says whether an edit brings a whole body; `url` is the address of its endpoint.
pub(crate) fn again(entry: &LiveEntry, url: &str, brings_body: bool) -> Result<Again, ApiError> {
    if shows_credential(&entry.endpoint) {
        let why = "its sender's credential stands in its query or body, and the journal of live exchanges keeps none";
        return Err(ApiError::new(ApiErrorKind::WrongState, why));
    }
    let shown = journal::summary(entry, 0);
    let body = match entry.whole_body() {
        _ if brings_body => Bytes::new(),
        Some(body) => body,
        None => return Err(ApiError::new(ApiErrorKind::WrongState, format!("{CUT}: {REPLACE}"))),
    };
    let target = unmasked(&String::from_utf8_lossy(&entry.target));
    let sent = Sent {
        method: shown.method.clone(),
        target: target.clone(),
        headers: framed(&lines(entry), body.len()),
        framing: Framing::Length,
        upgrade: Bytes::new(),
    };
    let front = url.split_once("://");
    let host = entry.headers.all("host").next().map(Bytes::copy_from_slice);
    let arrival = Arrival {
        id: entry.id,
        received_at: entry.at,
        peer: entry.client,
        url: format!("{url}{target}"),
        verified: journal::verified(entry),
        signer: None,
        forwarded: Forwarded {
            addresses: entry.client.to_string().into(),
            proto: front.map_or("https", |(scheme, _)| scheme).to_owned().into(),
            host: host.unwrap_or_default(),
        },
        traceparent: TraceContext::begin(entry.id).to_text(),
        certificate: None,
    };
    let summary = Summary {
        endpoint: entry.endpoint.name.clone(),
        id: entry.id,
        received_at: entry.at,
        state: State::Delivered,
        reason: None,
        attempts: 1,
        tries: 1,
        fence: 0,
        due_at: None,
        parked: false,
        status: shown.status,
        settled_at: None,
        method: shown.method,
        target,
        size: body.len() as u64,
        body_sha256: [0; 32],
        event_type: shown.event_type,
        sender_id: shown.sender_id,
        order_key: None,
        conflict_with: None,
        replay_of: None,
        redelivered: false,
        unproven: shown.unproven,
        took_us: shown.took_us,
        agent: shown.agent,
        resigned: false,
        answered_us: None,
    };
    let head = Head { sent, arrival, signature: Signature::Keep };
    let lacks_something = entry.headers.iter().any(|(_, value)| value == MASKED.as_bytes())
        || head.sent.target.as_bytes() != &entry.target[..]
        || (entry.endpoint.capture.blinds.touches_bodies() && !body.is_empty());
    Ok(Again { record: Record { summary, head, attempts: Vec::new() }, body, lacks_something })
}

/// An edit without what came back as it was shown where that is masked.
pub(crate) fn edit(mut edit: Edit) -> Edit {
    edit.target = edit.target.map(|target| unmasked(&target));
    if let Some(lines) = &mut edit.headers {
        lines.retain(|(_, value)| value != MASKED);
    }
    edit
}

/// A target without what is masked in its query.
fn unmasked(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let is_masked = |pair: &str| pair.split_once('=').is_some_and(|(_, value)| value == MASKED);
    let left: Vec<_> = query.split('&').filter(|pair| !is_masked(pair)).collect();
    if left.is_empty() { path.to_owned() } else { format!("{path}?{}", left.join("&")) }
}

fn shows_credential(endpoint: &Endpoint) -> bool {
    endpoint.verify.provider().is_some_and(Provider::shows_credential)
}

/// The sender's lines: without those of the relay, which writes them anew, and without what is masked.
fn lines(entry: &LiveEntry) -> HeaderBlock {
    let is_sent = |name: &[u8], value: &[u8]| {
        let name = String::from_utf8_lossy(name);
        value != MASKED.as_bytes() && *name != *names::TRACEPARENT && !is_dropped(&name, false)
    };
    entry.headers.iter().filter(|(name, value)| is_sent(name, value)).collect()
}
