//! What is known of a head as JSON, so that stock tools can read it. Its header lines stand beside it, as they are.

use std::net::IpAddr;

use bytes::Bytes;
use jiff::Timestamp;
use relay_proto::{Framing, HeaderBlock};
use serde::{Deserialize, Serialize};

use crate::{
    message::{Arrival, Forwarded, Sent},
    store::{Head, Signature, StoreError},
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WrittenHead {
    pub(super) text: String,
    pub(super) headers: Bytes,
}

impl WrittenHead {
    pub(super) fn len(&self) -> usize {
        self.text.len() + self.headers.len()
    }
}

#[derive(Serialize, Deserialize)]
struct Facts {
    method: String,
    target: String,
    chunked: bool,
    id: String,
    received_at: Timestamp,
    peer: IpAddr,
    url: String,
    verified: String,
    signer: Option<String>,
    /// Addresses, scheme and host. Each byte stands as the character with its number (Latin-1), which loses nothing.
    forwarded: [String; 3],
    traceparent: String,
    signature: Signature,
}

pub(super) fn write(head: &Head) -> WrittenHead {
    let Head { sent, arrival, signature } = head;
    let Forwarded { addresses, proto, host } = &arrival.forwarded;
    let facts = Facts {
        method: sent.method.clone(),
        target: sent.target.clone(),
        chunked: sent.framing == Framing::Chunked,
        id: arrival.id.to_string(),
        received_at: arrival.received_at,
        peer: arrival.peer,
        url: arrival.url.clone(),
        verified: arrival.verified.clone(),
        signer: arrival.signer.clone(),
        forwarded: [addresses, proto, host].map(|bytes| bytes.iter().map(|&byte| char::from(byte)).collect()),
        traceparent: arrival.traceparent.clone(),
        signature: *signature,
    };
    let text = serde_json::to_string(&facts).expect("texts and numbers always make JSON");
    WrittenHead { text, headers: sent.headers.as_bytes().clone() }
}

pub(super) fn read(head: WrittenHead) -> Result<Head, StoreError> {
    let facts: Facts = serde_json::from_str(&head.text).map_err(unreadable)?;
    let [addresses, proto, host] = facts.forwarded.map(|text| latin1(&text));
    let sent = Sent {
        method: facts.method,
        target: facts.target,
        headers: read_headers(head.headers)?,
        framing: if facts.chunked { Framing::Chunked } else { Framing::Length },
        upgrade: Bytes::new(),
    };
    let arrival = Arrival {
        id: facts.id.parse().map_err(unreadable)?,
        received_at: facts.received_at,
        peer: facts.peer,
        url: facts.url,
        verified: facts.verified,
        signer: facts.signer,
        forwarded: Forwarded { addresses: addresses?, proto: proto?, host: host? },
        traceparent: facts.traceparent,
    };
    Ok(Head { sent, arrival, signature: facts.signature })
}

pub(super) fn request_line(text: &str) -> Option<(String, String)> {
    let facts: Facts = serde_json::from_str(text).ok()?;
    Some((facts.method, facts.target))
}

pub(super) fn read_headers(block: Bytes) -> Result<HeaderBlock, StoreError> {
    HeaderBlock::decode(block).map_err(unreadable)
}

fn latin1(text: &str) -> Result<Bytes, StoreError> {
    text.chars().map(u8::try_from).collect::<Result<Vec<u8>, _>>().map(Bytes::from).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Internal(format!("a stored head cannot be read: {error}"))
}
