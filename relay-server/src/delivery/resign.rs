//! Late deliveries are signed afresh: many handlers check the age of a signature themselves.
//!
//! With the secret that verified the event, if the endpoint still has it. What was let pass unproven is never signed,
//! and the original stays in the record.

use std::{str::FromStr, sync::Arc};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use relay_schemes::Request;

use super::{
    Delivery,
    attempt::{Content, Event},
};
use crate::{
    endpoint::{EndpointName, Resign},
    store::{MAX_RANGE_BYTES, Store},
    webhook::EventId,
};

/// A signature that is not too old for a handler that looks at its age. It covers the body, so a long one is read.
pub(super) async fn sign_afresh(delivery: &Delivery, event: &mut Event) -> Option<Vec<(String, String)>> {
    let always = match event.keeping.resign {
        Resign::Never => return None,
        Resign::Late => false,
        Resign::Always => true,
    };
    let verify = &Arc::clone(&event.endpoint).verify;
    // What was let pass unproven must not be proven by us.
    if event.head.verified != verify.provider_name() {
        return None;
    }
    let now = Timestamp::now().as_second();
    if !verify.signs_afresh(received_at(event).as_second(), now, always) {
        return None;
    }
    let lines = Lines(&event.head.headers);
    let tag = event.head.signer.as_ref().and_then(|tag| HEXLOWER.decode(tag.as_bytes()).ok());
    let signer = (tag.as_deref(), first_id(event));
    let sign = |body: &[u8]| {
        let request = Request { method: &event.head.method, url: &event.head.url, headers: &lines, body };
        verify.sign_afresh(&request, event.sender_id.as_deref(), signer, now)
    };
    match &event.content {
        Content::Whole(body) => sign(body),
        Content::Kept(size) => {
            let body = whole(&delivery.store, &event.endpoint.name, event.id, *size).await?;
            let signed = sign(&body);
            event.content = Content::Whole(body);
            signed
        }
    }
}

/// A kept body, whole.
async fn whole(store: &Arc<dyn Store>, endpoint: &EndpointName, id: EventId, size: u64) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while (body.len() as u64) < size {
        let at = body.len() as u64;
        let part =
            store.body(endpoint.clone(), id, at..size.min(at + MAX_RANGE_BYTES), Timestamp::now()).await.ok()??;
        if part.is_empty() {
            return None;
        }
        body.extend_from_slice(&part);
    }
    Some(body.freeze())
}

/// When its sender sent it. A replay is an event of its own, and its signature is as old as that of the first.
fn received_at(event: &Event) -> Timestamp {
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
