//! The first half of a webhook's way: admitted, collected where its proof needs it, proven, or turned away.
//!
//! A provider's challenge ends here, too: it is answered by the relay itself, whether or not an agent is there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Method, Uri, Version, header};
use hyper::body::Body as _;
use relay_schemes::{Challenge, Reply, is_proof_header};
use relay_tunnel::http::{connection_options, one_length};
use tokio::time::Instant;

use super::{
    collect::{Collected, Overflow, Patience, collect},
    listener::MAX_HEADERS,
};
use crate::{
    config::Timeouts,
    endpoint::Endpoint,
    failure::{Failure, RelayFault, SenderFault},
    hops::Hop,
    memory::{LIVE_BYTES, Memory, MemoryBudget, NoRoom, head_bytes},
    message::names::feigns_framing,
    providers::Providers,
    refused::TurnedAway,
    spool::{LONG_BYTES, Spool, proving},
    store::Store,
    verify::{Payload, Unproven, Webhook},
    webhook::{EventId, Received, input::RequestBody, lines::Line},
};

/// Longest method, in bytes; the longest registered one has 17 (RFC 9110, section 16.1).
const MAX_METHOD_BYTES: usize = 64;

/// How long a request waits for a provider's key whose deadline its body used up.
const KEY_PATIENCE: Duration = Duration::from_secs(5);

/// How the first half ended.
pub(super) enum Proven {
    /// With a webhook, and the memory that its head and its body take.
    Webhook(Box<Webhook>, Memory),
    /// It was a challenge, and this is its answer.
    Answered(Reply, EventId),
}

pub(super) struct Prover {
    /// Largest request head, in bytes. hyper holds to it over HTTP/1.1, and to another count over HTTP/2.
    pub(super) max_head: usize,
    pub(super) timeouts: Timeouts,
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) store: Arc<dyn Store>,
    /// Where bodies go that are too long for memory.
    pub(super) spool: Option<Spool>,
    pub(super) providers: Arc<Providers>,
}

impl Prover {
    /// Proves a request, or turns it away. Its memory is counted for its endpoint, and for the address `holder` if there
    /// is one.
    pub(super) async fn prove(
        &self,
        endpoint: &Arc<Endpoint>,
        mut received: Box<Received>,
        holder: Option<IpAddr>,
        payload: Payload,
    ) -> Result<Proven, Box<TurnedAway>> {
        let turned_away = |received, payload, failure| Err(Box::new(TurnedAway::new(received, payload, failure)));
        if let Err(failure) = self.admit(endpoint, &received, &payload) {
            return turned_away(received, &payload, failure);
        }
        let kept = endpoint.keeps(&received.head.method).is_some();
        let bytes = head_bytes(&received.head, received.lines.text_bytes) + if kept { 0 } else { LIVE_BYTES };
        let Ok(mut memory) = self.memory.take(&endpoint.name, self.most_in_memory(endpoint), holder, bytes) else {
            return turned_away(received, &payload, RelayFault::Overloaded.into());
        };
        let payload = match payload {
            payload if !(endpoint.verify.covers_body() || kept) => payload,
            Payload::Streaming(body) => match self.collect(endpoint, &received, holder, body, &mut memory).await {
                Ok(body) => {
                    let now = Instant::now();
                    received.way.pass(Hop::Body, now);
                    if !kept {
                        received.started = now; // Before its last byte there is nothing to answer.
                    }
                    body
                }
                Err(failure) => return Err(Box::new(TurnedAway { received, body: None, failure })),
            },
            Payload::Whole(_) | Payload::Long(..) | Payload::Upgrade(_) => Payload::Whole(Bytes::new()),
        };
        // A body that outlasted its deadline is not refused for want of the time to ask for a key.
        let key_by =
            |started: Instant| (started + endpoint.deadline).max(Instant::now() + KEY_PATIENCE.min(endpoint.deadline));
        // What asks a provider for something is rare and large: in boxes.
        if endpoint.verify.may_ask() {
            match Box::pin(self.challenge(endpoint, &received, &payload, key_by(received.started))).await {
                Ok(None) => {}
                Ok(Some(reply)) => return Ok(Proven::Answered(reply, received.event_id)),
                Err(failure) => return turned_away(received, &payload, failure),
            }
        }
        let proven = match payload {
            Payload::Long(..) => Box::pin(apply(endpoint, received, payload)).await?,
            payload => {
                let late = lateness(endpoint, &received);
                endpoint.verify.verify(received, payload, late)
            }
        };
        let mut webhook = match proven {
            Ok(webhook) => webhook,
            Err(unproven) => {
                let key_by = key_by(unproven.received.started);
                Box::pin(self.verify_again(endpoint, *unproven, key_by)).await?
            }
        };
        webhook.pass(Hop::Verified, Instant::now());
        Ok(Proven::Webhook(webhook, memory))
    }

    /// What can be said before a byte of the body was read.
    fn admit(&self, endpoint: &Endpoint, received: &Received, payload: &Payload) -> Result<(), Failure> {
        check_message(endpoint, received, self.max_head)?;
        if !endpoint.takes(&received.head.method) {
            return Err(SenderFault::Method.into());
        }
        if !endpoint.allow.allows(received.client) {
            return Err(SenderFault::Address.into());
        }
        if endpoint.client.as_ref().is_some_and(|rule| !rule.allows(received.certificate.as_deref())) {
            return Err(SenderFault::Certificate.into());
        }
        if endpoint.verify.is_closed() {
            return Err(RelayFault::SecretUnavailable.into());
        }
        match payload {
            Payload::Streaming(body) if body.size_hint().exact().is_some_and(|len| len > endpoint.max_body) => {
                Err(SenderFault::BodyTooLarge { limit_bytes: endpoint.max_body }.into())
            }
            _ => Ok(()),
        }
    }

    /// What a request's body takes of the memory at most.
    fn most_in_memory(&self, endpoint: &Endpoint) -> u64 {
        let is_read_whole = self.spool.is_none() || endpoint.needs_whole_body(None);
        if is_read_whole { endpoint.max_body } else { endpoint.max_body.min(LONG_BYTES as u64) }
    }

    /// The deadline is the answer's: a sender on a slow line that keeps sending is read on.
    async fn collect(
        &self,
        endpoint: &Endpoint,
        received: &Received,
        holder: Option<IpAddr>,
        body: RequestBody,
        memory: &mut Memory,
    ) -> Result<Payload, Failure> {
        let patience = Patience { idle: self.timeouts.body_idle, whole: self.timeouts.body };
        let overflow = self.spool.clone();
        let overflow = overflow.map(|spool| Overflow { store: &*self.store, spool, endpoint, address: holder });
        let body = match collect(body, endpoint.max_body, patience, memory, overflow).await? {
            Collected::Piece(body) if endpoint.keeps(&received.head.method).is_none() => {
                return Ok(Payload::Whole(body));
            }
            // What is kept outlives its request, and would hold what was read with it.
            Collected::Piece(body) => return Ok(Payload::Whole(Bytes::copy_from_slice(&body))),
            Collected::Whole(body) => return Ok(Payload::Whole(body)),
            Collected::Long(body) => body,
        };
        if !endpoint.needs_whole_body(Some(received)) {
            return Ok(Payload::Long(body, None));
        }
        let bytes = usize::try_from(body.size()).unwrap_or(usize::MAX);
        let taken = self.memory.take(&endpoint.name, endpoint.max_body, holder, bytes);
        let memory = taken.map_err(|NoRoom| RelayFault::Overloaded)?;
        let whole = Bytes::from_owner(WholeBody { bytes: body.whole().await?, _memory: memory });
        Ok(Payload::Long(body, Some(whole)))
    }

    /// The answer to a provider's challenge, if the request is one.
    async fn challenge(
        &self,
        endpoint: &Arc<Endpoint>,
        received: &Received,
        payload: &Payload,
        key_by: Instant,
    ) -> Result<Option<Reply>, Failure> {
        let body = payload.bytes();
        self.providers.fetch_key(endpoint, received, body, None, key_by).await?;
        if matches!(payload, Payload::Long(..)) {
            return Ok(None); // Challenges are short.
        }
        let mut challenge = endpoint.verify.challenge(received, body);
        if let Some(Challenge::Refused { refusal: Some(refusal), .. }) = challenge
            && self.providers.fetch_key(endpoint, received, body, Some(refusal), key_by).await?
        {
            challenge = endpoint.verify.challenge(received, body);
        }
        match challenge {
            None => Ok(None),
            Some(Challenge::Refused { status, code, .. }) => Err(SenderFault::Challenge { status, code }.into()),
            Some(Challenge::Respond(reply)) => {
                self.providers.answer_challenge(endpoint, received, &reply).await?;
                Ok(Some(reply))
            }
        }
    }

    /// Once more, if a key was missing that came now.
    async fn verify_again(
        &self,
        endpoint: &Arc<Endpoint>,
        Unproven { received, payload, refusal }: Unproven,
        key_by: Instant,
    ) -> Result<Box<Webhook>, Box<TurnedAway>> {
        let fetched = self.providers.fetch_key(endpoint, &received, payload.bytes(), Some(refusal), key_by).await;
        let failure = match fetched {
            Ok(true) => {
                return apply(endpoint, received, payload).await?.map_err(|unproven| {
                    let Unproven { received, payload, refusal } = *unproven;
                    Box::new(TurnedAway::new(received, &payload, SenderFault::Unproven(refusal).into()))
                });
            }
            Ok(false) => SenderFault::Unproven(refusal).into(),
            Err(fault) => fault.into(),
        };
        Err(Box::new(TurnedAway::new(received, &payload, failure)))
    }
}

/// A body that is in memory for its proof, with what it takes there.
struct WholeBody {
    bytes: Vec<u8>,
    _memory: Memory,
}

impl AsRef<[u8]> for WholeBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How old a request may be whose taker knows that it did not come before.
fn lateness(endpoint: &Endpoint, received: &Received) -> Option<Duration> {
    endpoint.keeps(&received.head.method).and_then(|policy| policy.late)
}

/// Applies the endpoint's rule: to a long body on a thread that may block, since it is read once more.
async fn apply(
    endpoint: &Arc<Endpoint>,
    received: Box<Received>,
    payload: Payload,
) -> Result<Result<Box<Webhook>, Box<Unproven>>, Box<TurnedAway>> {
    let late = lateness(endpoint, &received);
    let Payload::Long(body, _) = &payload else { return Ok(endpoint.verify.verify(received, payload, late)) };
    let (body, seen, spare) = (body.clone(), payload.seen(), received.clone());
    let endpoint = Arc::clone(endpoint);
    let proven = proving(move || endpoint.verify.verify(received, payload, late)).await;
    let failed = |failure| Box::new(TurnedAway { received: spare, body: seen, failure });
    match proven {
        Ok(_) if body.is_unreadable() => Err(failed(RelayFault::StoreFailed.into())),
        Ok(proven) => Ok(proven),
        Err(error) => Err(failed(error.into())),
    }
}

/// How long a URI is as text.
fn uri_len(uri: &Uri) -> usize {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |target| target.as_str().len())
}

/// What hyper lets pass and a relay must not: other codings below chunked, methods for proxies, `Connection` that
/// names what is for everybody, lengths that differ, and lines that look like framing to some.
fn check_message(endpoint: &Endpoint, received: &Received, max_head: usize) -> Result<(), SenderFault> {
    let (head, there) = (&received.head, received.lines);
    if head.method.as_str().len() > MAX_METHOD_BYTES {
        return Err(SenderFault::Method);
    }
    let lines = there.text_bytes + ": \r\n".len() * head.headers.len();
    // hyper counts them over HTTP/1.1 alone, and the tunnel carries only so many.
    if head.headers.len() > MAX_HEADERS {
        return Err(SenderFault::HeadTooLarge);
    }
    if lines + uri_len(&head.uri) > max_head {
        return Err(SenderFault::HeadTooLarge);
    }
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(SenderFault::Method);
    }
    let is_chunked = || {
        let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
        let only = codings.next().filter(|_| codings.next().is_none());
        head.version == Version::HTTP_11 && only.is_some_and(|only| only.as_bytes().eq_ignore_ascii_case(b"chunked"))
    };
    // Nobody may have that taken out on the way (RFC 9110, section 7.6.1).
    let takes_out = || connection_options(&head.headers).any(|name| is_for_everybody(name, endpoint));
    let feigns = || head.headers.keys().any(|name| feigns_framing(name.as_str()));
    let is_wrong = (there.has(Line::TransferEncoding) && !is_chunked())
        || (there.has(Line::Connection) && takes_out())
        || (there.has(Line::LikeFraming) && feigns())
        || (there.has(Line::ContentLength) && one_length(&head.headers).is_err());
    if is_wrong { Err(SenderFault::BadRequest) } else { Ok(()) }
}

/// Whether a name that stands in `Connection` is no line of one hop: framing, host, what the body is, or a proof. A
/// proof counts wherever it is one: the handler may look for it though this endpoint does not.
fn is_for_everybody(name: &[u8], endpoint: &Endpoint) -> bool {
    if name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive") {
        return false;
    }
    let Ok(name) = HeaderName::from_bytes(name) else { return false };
    matches!(name, header::CONTENT_LENGTH | header::HOST | header::CONTENT_TYPE | header::CONTENT_ENCODING)
        || is_proof_header(name.as_str())
        || endpoint.verify.provider().is_some_and(|provider| provider.is_proven_by(name.as_str()))
}
