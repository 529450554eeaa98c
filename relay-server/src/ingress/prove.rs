//! The first half of a webhook's way: admitted, collected where its proof needs it, proven, or turned away.
//!
//! A provider's challenge ends here, too: it is answered by the relay itself, whether or not an agent is there. What
//! is turned away is kept for who has to find out why, and the endpoint's agents are told.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Version, header};
use hyper::{body::Body as _, upgrade::OnUpgrade};
use relay_schemes::{Challenge, Reply};
use relay_tunnel::http::{connection_options, one_length};
use tokio::time::Instant;

use super::{Door, collect, explain, listener::MAX_HEADERS, respond, route::Routes, tell_agents};
use crate::{
    endpoint::Endpoint,
    failure::{Failure, RelayFault, SenderFault},
    memory::{LIVE_BYTES, Memory, head_bytes},
    refused::{Entry, Hidden},
    verify::{Payload, Unproven, Webhook},
    webhook::{EventId, Received, input::RequestBody},
};

/// Longest method, in bytes; the longest registered one has 17 (RFC 9110, section 16.1).
const MAX_METHOD_BYTES: usize = 64;

/// How long a request waits for a provider's key whose deadline its body used up.
const KEY_PATIENCE: Duration = Duration::from_secs(5);

/// How the first half ended. It lives for one step, so a box would cost more than its size.
#[expect(clippy::large_enum_variant, reason = "moved once, never stored")]
pub(super) enum Proven {
    /// With a webhook, and the memory that its head and its body take.
    Webhook(Webhook, Memory),
    /// It was a challenge, and this is its answer.
    Answered(Reply, EventId),
}

/// A request that came no further than the door.
pub(super) struct TurnedAway {
    pub(super) received: Received,
    pub(super) body: Option<Bytes>,
    pub(super) failure: Failure,
}

impl TurnedAway {
    fn new(received: Received, payload: Payload, failure: impl Into<Failure>) -> Box<Self> {
        let body = if let Payload::Whole(body) = payload { Some(body) } else { None };
        Box::new(Self { received, body, failure: failure.into() })
    }
}

/// Proves a request, or turns it away. Its memory is counted for its endpoint, and for the address `holder` if there is one.
pub(super) async fn prove(
    door: &Arc<Door>,
    endpoint: &Arc<Endpoint>,
    mut received: Received,
    holder: Option<IpAddr>,
    (body, upgrade): (RequestBody, Option<OnUpgrade>),
) -> Result<Proven, Box<TurnedAway>> {
    if let Err(failure) = admit(door, endpoint, &received, &body) {
        return Err(Box::new(TurnedAway { received, body: None, failure }));
    }
    let kept = endpoint.keeps(&received.head.method).is_some();
    let bytes = head_bytes(&received.head) + if kept { 0 } else { LIVE_BYTES };
    let Ok(mut memory) = door.memory.take(endpoint, holder, bytes) else {
        return Err(Box::new(TurnedAway { received, body: None, failure: RelayFault::Overloaded.into() }));
    };
    let payload = if endpoint.verify.covers_body() || kept {
        // The deadline is the answer's: a sender on a slow line that keeps sending is read on.
        let until = Instant::now() + door.body_total;
        match collect::collect(body, endpoint.max_body, door.body_idle, until, &mut memory).await {
            Ok(body) => {
                if !kept {
                    received.started = Instant::now(); // Before its last byte there is nothing to answer.
                }
                Payload::Whole(body)
            }
            Err(why) => return Err(Box::new(TurnedAway { received, body: None, failure: why.into() })),
        }
    } else {
        upgrade.map_or(Payload::Streaming(body), Payload::Upgrade)
    };
    // A body that outlasted its deadline is not refused for want of the time to ask for a key.
    let key_by = (received.started + endpoint.deadline).max(Instant::now() + KEY_PATIENCE.min(endpoint.deadline));
    if let Err(failure) = door.providers.fetch_key(endpoint, &received, bytes_of(&payload), None, key_by).await {
        return Err(TurnedAway::new(received, payload, failure));
    }
    let mut challenge = endpoint.verify.challenge(&received, bytes_of(&payload));
    if let Some(Challenge::Refused { refusal: Some(refusal), .. }) = challenge {
        match door.providers.fetch_key(endpoint, &received, bytes_of(&payload), Some(refusal), key_by).await {
            Ok(true) => challenge = endpoint.verify.challenge(&received, bytes_of(&payload)),
            Ok(false) => {}
            Err(failure) => return Err(TurnedAway::new(received, payload, failure)),
        }
    }
    match challenge {
        None => {}
        Some(Challenge::Refused { status, code, .. }) => {
            return Err(TurnedAway::new(received, payload, SenderFault::Challenge { status, code }));
        }
        Some(Challenge::Respond(reply)) => {
            let event_id = received.event_id;
            return match door.providers.answer_challenge(endpoint, &received, &reply).await {
                Ok(()) => Ok(Proven::Answered(reply, event_id)),
                Err(failure) => Err(TurnedAway::new(received, payload, failure)),
            };
        }
    }
    let late = endpoint.keeps(&received.head.method).and_then(|keeping| keeping.late);
    let mut outcome = endpoint.verify.verify(received, payload, late);
    if let Err(unproven) = outcome {
        let Unproven { received, payload, refusal } = *unproven;
        match door.providers.fetch_key(endpoint, &received, bytes_of(&payload), Some(refusal), key_by).await {
            Ok(true) => {}
            Ok(false) => return Err(TurnedAway::new(received, payload, SenderFault::Unproven(refusal))),
            Err(failure) => return Err(TurnedAway::new(received, payload, failure)),
        }
        outcome = endpoint.verify.verify(received, payload, late);
    }
    match outcome {
        Ok(webhook) if webhook.signed().is_some_and(|signed| door.delivery.own.holds(signed)) => {
            let (received, payload, _) = webhook.into_parts();
            Err(TurnedAway::new(received, payload, SenderFault::OwnSignature))
        }
        Ok(webhook) => Ok(Proven::Webhook(webhook, memory)),
        Err(unproven) => {
            let Unproven { received, payload, refusal } = *unproven;
            Err(TurnedAway::new(received, payload, SenderFault::Unproven(refusal)))
        }
    }
}

fn bytes_of(payload: &Payload) -> &[u8] {
    match payload {
        Payload::Whole(body) => body,
        Payload::Streaming(_) | Payload::Upgrade(_) => &[],
    }
}

/// What can be said before a byte of the body was read.
fn admit(door: &Door, endpoint: &Endpoint, received: &Received, body: &RequestBody) -> Result<(), Failure> {
    check_message(received, door.max_head)?;
    if !endpoint.takes(&received.head.method) {
        return Err(SenderFault::Method.into());
    }
    if !endpoint.allow.allows(received.client) {
        return Err(SenderFault::Address.into());
    }
    if endpoint.verify.is_closed() {
        return Err(RelayFault::SecretUnavailable.into());
    }
    if body.size_hint().exact().is_some_and(|len| len > endpoint.max_body) {
        return Err(SenderFault::BodyTooLarge { limit_bytes: endpoint.max_body }.into());
    }
    Ok(())
}

/// Keeps what was refused for who has to find out why, and tells the endpoint's agents of it.
pub(super) fn record(door: &Arc<Door>, routes: &Arc<Routes>, endpoint: &Arc<Endpoint>, it: TurnedAway) -> Failure {
    let TurnedAway { received, body, failure } = it;
    let kept = match failure {
        Failure::Sender(SenderFault::BodyTooLarge { .. }) | Failure::Relay(RelayFault::KeyUnavailable { .. }) => true,
        Failure::Sender(fault) => fault.is_refusal(),
        _ => false,
    };
    if !kept {
        return failure;
    }
    let (status, code) = (respond::of_failure(failure).status, failure.code());
    tell_agents(door, endpoint, received.event_id, status, code);
    let line = |(name, value): (&http::HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
    };
    let whole = body.clone();
    let hidden = Hidden::of(&endpoint.verify, &received.url, whole.as_deref().unwrap_or_default());
    let entry = door.refused.record(Entry {
        event_id: received.event_id,
        at: received.at,
        endpoint: endpoint.name.as_str().to_owned(),
        provider: endpoint.verify.provider_name().to_owned(),
        client: received.client,
        method: received.head.method.as_str().to_owned(),
        url: received.url,
        headers: received.head.headers.iter().map(line).collect(),
        body_len: body.as_ref().map(|body| body.len() as u64),
        body: body.unwrap_or_default(),
        status: status.as_u16(),
        code: code.into(),
        masked: false,
        hidden,
    });
    if let Failure::Sender(SenderFault::Unproven(refusal)) = failure {
        explain::later(door, routes, endpoint, entry, whole, refusal);
    }
    failure
}

/// What hyper lets pass and a relay must not: other codings below chunked, methods for proxies, `Connection` that
/// names what is for everybody, lengths that differ.
fn check_message(received: &Received, max_head: usize) -> Result<(), SenderFault> {
    let head = &received.head;
    if head.method.as_str().len() > MAX_METHOD_BYTES {
        return Err(SenderFault::Method);
    }
    let lines: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    // hyper counts them over HTTP/1.1 alone, and the tunnel carries only so many.
    if head.headers.len() > MAX_HEADERS {
        return Err(SenderFault::HeadTooLarge);
    }
    if lines + head.uri.to_string().len() > max_head {
        return Err(SenderFault::HeadTooLarge);
    }
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(SenderFault::Method);
    }
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let lawful = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(only), None) => head.version == Version::HTTP_11 && only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    // Nobody may have the length or the host taken out on the way (RFC 9110, section 7.6.1).
    let lawful = lawful
        && !connection_options(&head.headers)
            .any(|name| name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"host"));
    let lawful = lawful && one_length(&head.headers).is_ok();
    if lawful { Ok(()) } else { Err(SenderFault::BadRequest) }
}
