//! What is known of a head, as it stands in the log. Its header lines stand beside it, as they are.

use std::net::IpAddr;

use bytes::Bytes;
use jiff::Timestamp;
use relay_proto::{Framing, HeaderBlock};
use serde::{Deserialize, Serialize};

use super::encoding;
use crate::{
    message::{Arrival, Forwarded, Sent},
    store::{Head, Signature, StoreError},
    webhook::EventId,
};

/// A head as it is written: what is known of it, and its header lines.
#[derive(Clone, Debug)]
pub(super) struct WrittenHead {
    pub(super) facts: Vec<u8>,
    pub(super) headers: Bytes,
}

impl WrittenHead {
    pub(super) fn len(&self) -> usize {
        self.facts.len() + self.headers.len()
    }
}

#[derive(Serialize, Deserialize)]
struct Facts<'a> {
    method: &'a str,
    target: &'a str,
    chunked: bool,
    id: [u8; 16],
    /// In nanoseconds since 1970.
    received_at: i128,
    peer: IpAddr,
    url: &'a str,
    verified: &'a str,
    signer: Option<&'a str>,
    /// Addresses, scheme and host.
    #[serde(borrow)]
    forwarded: [&'a [u8]; 3],
    traceparent: &'a str,
    signature: Signature,
}

pub(super) fn write(head: &Head) -> WrittenHead {
    let Head { sent, arrival, signature } = head;
    let Forwarded { addresses, proto, host } = &arrival.forwarded;
    let facts = Facts {
        method: &sent.method,
        target: &sent.target,
        chunked: sent.framing == Framing::Chunked,
        id: *arrival.id.as_bytes(),
        received_at: arrival.received_at.as_nanosecond(),
        peer: arrival.peer,
        url: &arrival.url,
        verified: &arrival.verified,
        signer: arrival.signer.as_deref(),
        forwarded: [addresses, proto, host],
        traceparent: &arrival.traceparent,
        signature: *signature,
    };
    let room = Vec::with_capacity(160 + sent.target.len() + arrival.url.len());
    let mut facts = encoding::append(&facts, room);
    if let Some(certificate) = &arrival.certificate {
        facts = encoding::append(&&certificate[..], facts);
    }
    WrittenHead { facts, headers: sent.headers.as_bytes().clone() }
}

pub(super) fn read(facts: &[u8], headers: Bytes) -> Result<Head, StoreError> {
    let (facts, rest): (Facts<'_>, _) = postcard::take_from_bytes(facts).map_err(unreadable)?;
    // It stands behind the others, where there is one.
    let certificate = match rest {
        [] => None,
        rest => Some(Bytes::copy_from_slice(postcard::from_bytes(rest).map_err(unreadable)?)),
    };
    let [addresses, proto, host] = facts.forwarded.map(Bytes::copy_from_slice);
    let sent = Sent {
        method: facts.method.to_owned(),
        target: facts.target.to_owned(),
        headers: read_headers(headers)?,
        framing: if facts.chunked { Framing::Chunked } else { Framing::Length },
        upgrade: Bytes::new(),
    };
    let arrival = Arrival {
        id: EventId::from_bytes(facts.id),
        received_at: Timestamp::from_nanosecond(facts.received_at).map_err(unreadable)?,
        peer: facts.peer,
        url: facts.url.to_owned(),
        verified: facts.verified.to_owned(),
        signer: facts.signer.map(str::to_owned),
        forwarded: Forwarded { addresses, proto, host },
        traceparent: facts.traceparent.to_owned(),
        certificate,
    };
    Ok(Head { sent, arrival, signature: facts.signature })
}

/// Method and target.
pub(super) fn request_line(facts: &[u8]) -> Option<(&str, &str)> {
    let facts: Facts<'_> = postcard::from_bytes(facts).ok()?;
    Some((facts.method, facts.target))
}

pub(super) fn read_headers(block: Bytes) -> Result<HeaderBlock, StoreError> {
    HeaderBlock::decode(block).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Internal(format!("a stored head cannot be read: {error}"))
}
