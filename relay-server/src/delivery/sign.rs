//! What becomes of a signature when an event is delivered: it stays as it came, or is made anew.
//!
//! Late deliveries are signed afresh where their endpoint says so, replays where whoever asked for them says so: with the
//! secret that verified the event, if the endpoint still has it.
//! Invariants: nothing is signed that was not proven when it came; a dated signature leaves only once the relay's own
//! door knows it, so that whoever sees it cannot bring the event in again.

use std::{str::FromStr, sync::Arc};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use relay_schemes::Request;

use super::{
    Bodies, Delivery,
    attempt::{Content, Event},
};
use crate::{
    clock::wall,
    endpoint::{Endpoint, EndpointName, Resign},
    replay::Cause,
    store::{Head, MAX_RANGE_BYTES, Signature},
    verify::{Afresh, CannotSign},
    webhook::EventId,
};

/// Headers to set, names and values.
pub(super) type Signed = Vec<(String, String)>;

/// Whether an event can be signed afresh, as far as its head tells.
pub(super) fn may(endpoint: &Endpoint, head: &Head) -> Result<(), CannotSign> {
    endpoint.verify.may_sign()?;
    // What was let pass unproven must not be proven by us.
    if head.verified == endpoint.verify.provider_name() { Ok(()) } else { Err(CannotSign::NotProven) }
}

/// The signature that an event is delivered with, where that is not its own. It covers the body, so a long one is read.
///
/// # Errors
/// [`CannotSign`] where a fresh one was asked for and cannot be made.
pub(super) async fn afresh(delivery: &Delivery, event: &mut Event) -> Result<Option<Signed>, CannotSign> {
    let endpoint = Arc::clone(&event.endpoint);
    let now = wall().as_second();
    let may = may(&endpoint, &event.head);
    match (event.head.signature, event.keeping.resign) {
        (Signature::Keep, _) | (Signature::Auto, Resign::Never) => Ok(None),
        (Signature::Fresh, _) => {
            may?;
            made(delivery, sign(delivery, event, now).await?, Cause::Asked).await.map(Some)
        }
        (Signature::Auto, resign) => {
            let always = matches!(resign, Resign::Always);
            let due = endpoint.verify.signs_afresh(sent_at(event).as_second(), now, always);
            if may.is_err() || !due {
                return Ok(None);
            }
            match sign(delivery, event, now).await {
                Ok(signed) => made(delivery, signed, Cause::Late).await.map(Some),
                Err(_) => Ok(None),
            }
        }
    }
}

/// Whether an event can be signed afresh, as a replay asks for it. What is made of it is thrown away.
pub(super) async fn try_out(delivery: &Delivery, event: &mut Event) -> Result<(), CannotSign> {
    may(&event.endpoint, &event.head)?;
    sign(delivery, event, wall().as_second()).await.map(drop)
}

/// A signature that may leave: the door knows it.
async fn made(delivery: &Delivery, Afresh { headers, mark }: Afresh, cause: Cause) -> Result<Signed, CannotSign> {
    match mark {
        Some(mark) if !delivery.remember(mark, cause).await => Err(CannotSign::TooMany),
        _ => Ok(headers),
    }
}

async fn sign(delivery: &Delivery, event: &mut Event, now_unix_s: i64) -> Result<Afresh, CannotSign> {
    let body = match &event.content {
        Content::Whole(body) => body.clone(),
        Content::Kept(id, size) => {
            let body =
                whole(&delivery.bodies(), &event.endpoint.name, *id, *size).await.ok_or(CannotSign::Unreadable)?;
            event.content = Content::Whole(body.clone());
            body
        }
    };
    let lines = Lines(&event.head.headers);
    let request = Request { method: &event.head.method, url: &event.head.url, headers: &lines, body: &body };
    let tag = event.head.signer.as_ref().and_then(|tag| HEXLOWER.decode(tag.as_bytes()).ok());
    let signer = (tag.as_deref(), first_id(event));
    let signed = event.endpoint.verify.sign_afresh(&request, event.sender_id.as_deref(), signer, now_unix_s);
    signed.ok_or(CannotSign::Elsewhere)
}

/// A kept body, whole.
async fn whole(bodies: &Bodies, endpoint: &EndpointName, id: EventId, size: u64) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while (body.len() as u64) < size {
        let at = body.len() as u64;
        let part = bodies.part(endpoint, id, at..size.min(at + MAX_RANGE_BYTES)).await.ok()??;
        if part.is_empty() {
            return None;
        }
        body.extend_from_slice(&part);
    }
    Some(body.freeze())
}

/// When its sender sent it. A replay is an event of its own, and its signature is as old as that of the first.
fn sent_at(event: &Event) -> Timestamp {
    line(event, "relay-received-at").unwrap_or(event.received_at)
}

/// The id under which it was verified: a replay has that of the first.
fn first_id(event: &Event) -> EventId {
    line(event, "relay-event-id").unwrap_or(event.id)
}

/// What one of the relay's own lines says; a sender's are never kept.
fn line<T: FromStr>(event: &Event, name: &str) -> Option<T> {
    let (_, value) = event.head.headers.iter().find(|(line, _)| line == name)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

struct Lines<'a>(&'a [(String, Vec<u8>)]);

impl relay_schemes::Headers for Lines<'_> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        self.0.iter().filter(|(line, _)| line == name).for_each(|(_, value)| each(value));
    }
}
