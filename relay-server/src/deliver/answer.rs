//! A handler's answer as its sender may see it: without lines of one hop and those that are the relay's, of one length.

use http::{HeaderMap, HeaderName, HeaderValue, Response, header, response::Parts};
use relay_proto::ResponseHead;
use relay_tunnel::http::{is_line_of_one_hop, one_length, strip_hop_by_hop};

use crate::{failure::HandlerFault, message::names};

/// Lines that an answer gets on its way to its sender: the event's id, and the date.
const ADDED: usize = 2;

/// Whether a 101 names the protocol that was asked for, and no other.
pub(super) fn switches_to(headers: &HeaderMap, asked: &[u8]) -> bool {
    headers.get(header::UPGRADE).is_some_and(|named| named.as_bytes().eq_ignore_ascii_case(asked))
}

pub(crate) fn answer_head(head: &ResponseHead) -> Result<Parts, HandlerFault> {
    let one_hop = is_line_of_one_hop(&head.headers);
    let (mut headers, mut upgrade) = (HeaderMap::with_capacity(head.headers.len() + ADDED), None);
    for (name, value) in head.headers.iter() {
        let name = name_of(name).ok_or(HandlerFault::Broken)?;
        let shared = head.headers.share(value);
        let value = HeaderValue::from_maybe_shared(shared).map_err(|_| HandlerFault::Broken)?;
        if name == header::UPGRADE && head.status == 101 {
            upgrade.get_or_insert(value);
        } else if !(one_hop(&name) || names::is_only_the_relays(name.as_str())) {
            headers.try_append(name, value).map_err(|_| HandlerFault::Broken)?;
        }
    }
    settle_length(head.status, &mut headers)?;
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    if !matches!(head.status, 101 | 200..=599) {
        return Err(HandlerFault::Broken);
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = http::StatusCode::from_u16(head.status).map_err(|_| HandlerFault::Broken)?;
    parts.headers = headers;
    Ok(parts)
}

/// The name of a line. Those of nearly every answer need no look at each letter.
fn name_of(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"connection" => header::CONNECTION,
        b"content-length" => header::CONTENT_LENGTH,
        b"content-type" => header::CONTENT_TYPE,
        b"date" => header::DATE,
        b"server" => header::SERVER,
        _ => return HeaderName::from_bytes(name).ok(),
    })
}

/// Takes out of the lines behind a handler's answer what its sender may not see. HTTP/2 would break the answer off for a
/// line of one hop.
pub(crate) fn settle_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    names::strip_answer(trailers);
    trailers.remove(header::CONTENT_LENGTH); // It comes too late to say one.
}

/// Leaves an answer one length at most, and none where its status has no body (RFC 9110, section 8.6).
fn settle_length(status: u16, headers: &mut HeaderMap) -> Result<(), HandlerFault> {
    if matches!(status, 101 | 204 | 304) {
        headers.remove(header::CONTENT_LENGTH);
        return Ok(());
    }
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => return Ok(()),
        (Some(only), None) if is_plain_length(only.as_bytes()) => return Ok(()),
        _ => {}
    }
    let length = one_length(headers).ok().flatten().ok_or(HandlerFault::Broken)?;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(())
}

/// Whether this is a length as everybody writes it.
fn is_plain_length(digits: &[u8]) -> bool {
    const SAFE_DIGITS: usize = 19; // As many are always within 64 bits.
    let is_short = (1..=SAFE_DIGITS).contains(&digits.len()) && (digits[0] != b'0' || digits.len() == 1);
    is_short && digits.iter().all(u8::is_ascii_digit)
}
