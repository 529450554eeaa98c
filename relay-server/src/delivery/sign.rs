//! What becomes of a signature when an event is delivered: it stays as it came, or is made anew.
//!
//! Late deliveries are signed afresh where their endpoint says so, replays where whoever asked for them says so: with the
//! secret that verified the event, if the endpoint still has it.
//! Invariants: nothing is signed that was not proven when it came; a dated signature leaves only once the relay's own
//! door knows it, so that whoever sees it cannot bring the event in again.

use std::{cell::Cell, sync::Arc};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use relay_proto::HeaderBlock;
use relay_schemes::{LongBody, Request};
use tokio::runtime::Handle;

use super::{
    Delivery,
    attempt::{Event, EventBody},
};
use crate::{
    clock::wall,
    deliver::Bodies,
    endpoint::{Endpoint, EndpointName, Resign},
    replay_guard::Cause,
    spool::{LONG_BYTES, proving},
    store::{Head, MAX_RANGE_BYTES, Signature},
    verify::{Afresh, CannotSign, Signer},
    webhook::EventId,
};

/// Headers to set, names and values.
pub(super) type Signed = Vec<(String, String)>;

/// Whether an event can be signed afresh, as far as its head tells.
pub(super) fn may(endpoint: &Endpoint, head: &Head) -> Result<(), CannotSign> {
    endpoint.verify.may_sign()?;
    // What was let pass unproven must not be proven by us.
    if head.arrival.verified == endpoint.verify.provider_name() { Ok(()) } else { Err(CannotSign::NotProven) }
}

/// The signature that an event is delivered with, where that is not its own. It covers the body, so a
/// long one is read, in pieces unless its scheme looks into it.
pub(super) async fn afresh(delivery: &Delivery, event: &mut Event) -> Result<Option<Signed>, CannotSign> {
    let endpoint = Arc::clone(&event.endpoint);
    let now = wall().as_second();
    let may = may(&endpoint, &event.head);
    let resign = endpoint.policy.as_ref().map_or(Resign::Never, |policy| policy.resign);
    match (event.head.signature, resign) {
        (Signature::Keep, _) | (Signature::Auto, Resign::Never) => Ok(None),
        (Signature::Fresh, _) => {
            may?;
            made(delivery, sign(delivery, event, now).await?, Cause::Asked).await.map(Some)
        }
        (Signature::Auto, resign) => {
            let always = matches!(resign, Resign::Always);
            let due = endpoint.verify.signs_afresh(event.head.arrival.received_at.as_second(), now, always);
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
    let (bodies, name) = (delivery.bodies(), event.endpoint.name.clone());
    let (body, long) = match &event.body {
        EventBody::Whole(body) => (body.clone(), None),
        EventBody::Kept(id, size) if *size > LONG_BYTES as u64 && !event.endpoint.verify.signs_whole_body() => {
            (Bytes::new(), Some(Long { bodies, endpoint: name, id: *id, size: *size, is_unreadable: Cell::new(false) }))
        }
        EventBody::Kept(id, size) => {
            let body = whole(&bodies, &name, *id, *size).await.ok_or(CannotSign::Unreadable)?;
            event.body = EventBody::Whole(body.clone());
            (body, None)
        }
    };
    let text =
        Text { endpoint: Arc::clone(&event.endpoint), head: event.head.clone(), sender_id: event.sender_id.clone() };
    match long {
        None => text.sign(&body, None, now_unix_s),
        Some(long) => {
            let signed = proving(move || text.sign(&[], Some(&long), now_unix_s));
            signed.await.map_err(|_| CannotSign::Unreadable)?
        }
    }
}

/// What is signed, but for the body.
struct Text {
    endpoint: Arc<Endpoint>,
    head: Head,
    sender_id: Option<String>,
}

impl Text {
    fn sign(&self, body: &[u8], long: Option<&Long>, now_unix_s: i64) -> Result<Afresh, CannotSign> {
        let Head { sent, arrival, .. } = &self.head;
        let lines = SchemeLines(&sent.headers);
        let request = Request { method: &sent.method, url: &arrival.url, headers: &lines, body };
        let tag = arrival.signer.as_ref().and_then(|tag| HEXLOWER.decode(tag.as_bytes()).ok());
        // A replay is an event of its own: it was verified under the id of the first, and its signature is as old.
        let signer = Signer { tag: tag.as_deref(), event_id: arrival.id };
        let (rule, id, pieces) = (&self.endpoint.verify, self.sender_id.as_deref(), long.map(|it| it as &dyn LongBody));
        let signed = rule.sign_afresh(&request, pieces, id, signer, now_unix_s);
        if long.is_some_and(|long| long.is_unreadable.get()) {
            return Err(CannotSign::Unreadable);
        }
        signed.ok_or(CannotSign::Elsewhere)
    }
}

/// A kept body that is read in ranges by a thread that may block.
struct Long {
    bodies: Bodies,
    endpoint: EndpointName,
    id: EventId,
    size: u64,
    is_unreadable: Cell<bool>,
}

impl LongBody for Long {
    fn len(&self) -> u64 {
        self.size
    }

    fn for_each(&self, each: &mut dyn FnMut(&[u8])) {
        let (runtime, mut at) = (Handle::current(), 0);
        while at < self.size {
            let part = self.bodies.part(&self.endpoint, self.id, at..self.size.min(at + MAX_RANGE_BYTES));
            match runtime.block_on(part) {
                Ok(Some(part)) if !part.is_empty() => {
                    each(&part);
                    at += part.len() as u64;
                }
                _ => return self.is_unreadable.set(true),
            }
        }
    }
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

/// Header lines as a scheme reads them.
pub(super) struct SchemeLines<'a>(pub(super) &'a HeaderBlock);

impl relay_schemes::Headers for SchemeLines<'_> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        self.0.iter().filter(|(line, _)| *line == name.as_bytes()).for_each(|(_, value)| each(value));
    }
}
