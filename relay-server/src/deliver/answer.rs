//! A handler's answer as its sender may see it: without lines of one hop and those that are the relay's, of one length.

use http::{HeaderMap, HeaderValue, Response, header, response::Parts};
use relay_proto::ResponseHead;
use relay_tunnel::http::{header_map, one_length, strip_hop_by_hop};

use crate::{failure::HandlerFault, message::names};

/// Whether a 101 names the protocol that was asked for, and no other.
pub(super) fn switches_to(headers: &HeaderMap, asked: &[u8]) -> bool {
    headers.get(header::UPGRADE).is_some_and(|named| named.as_bytes().eq_ignore_ascii_case(asked))
}

pub(crate) fn answer_head(head: &ResponseHead) -> Result<Parts, HandlerFault> {
    let mut headers = header_map(&head.headers).map_err(|_| HandlerFault::Broken)?;
    let upgrade = headers.remove(header::UPGRADE).filter(|_| head.status == 101);
    strip_hop_by_hop(&mut headers);
    names::strip_answer(&mut headers);
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

/// Takes out of the lines behind a handler's answer what its sender may not see. HTTP/2 would break the answer off for a
/// line of one hop.
pub(crate) fn settle_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    names::strip_answer(trailers);
    trailers.remove(header::CONTENT_LENGTH); // It comes too late to say one.
}

/// Leaves an answer one length at most, and none where its status has no body (RFC 9110, section 8.6).
fn settle_length(status: u16, headers: &mut HeaderMap) -> Result<(), HandlerFault> {
    match one_length(headers) {
        _ if matches!(status, 101 | 204 | 304) => drop(headers.remove(header::CONTENT_LENGTH)),
        Ok(None) => {}
        Ok(Some(length)) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        Err(_) => return Err(HandlerFault::Broken),
    }
    Ok(())
}
