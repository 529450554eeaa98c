//! A live exchange that has ended, in one piece.
//!
//! While an exchange runs, its entry shares the memory through which it passes: buffers of its connection and of the
//! tunnel. Once it has ended, what is to be kept is copied together and everything else is let go of, so that those
//! buffers serve the next one. Whoever reads gets an entry again, and pays for it.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use jiff::Timestamp;
use relay_proto::HeaderBlock;
use relay_schemes::EventMeta;
use tokio::time::Instant;

use super::{
    entry::{LiveAnswer, LiveEntry, SentBody, Tail},
    pages::{Pages, Place},
};
use crate::{
    endpoint::Endpoint,
    hops::{Hops, Way},
    webhook::EventId,
};

/// What every record has: the client, two moments, the hops, a status, the request's size, the answer's size and end, and
/// what came to its end.
const FIXED_BYTES: usize = 16 + 8 + 8 + Hops::BYTES + 2 + 8 + 8 + 8 + 1;

/// In the place of a length: there is no such text.
const NONE: u32 = u32::MAX;

/// The answer came to its end.
const ANSWER_WHOLE: u8 = 1;

/// All of the request's body is there.
const REQUEST_WHOLE: u8 = 2;

/// Texts of a record: the sender's id, the type, method, target, headers, body, the answer's headers and body, and the
/// checksum of what went to the handler.
const TEXTS: usize = 9;

pub(super) struct Packed {
    pub(super) endpoint: Arc<Endpoint>,
    agent: Option<Arc<str>>,
    /// The code of a failure.
    failed: Option<&'static str>,
    place: Place,
}

impl Packed {
    /// `began` is what moments are counted from.
    pub(super) fn write(pages: &mut Pages, entry: &LiveEntry, began: Instant) -> Self {
        let (request, no_lines) = (entry.body(), HeaderBlock::new());
        let (failed, headers, sha256_in) = match &entry.answer {
            LiveAnswer::Handler { headers, sha256_in, .. } => (None, headers, sha256_in.as_ref()),
            LiveAnswer::Failed { code, .. } => (Some(*code), &no_lines, None),
        };
        let tail = entry.tail.get();
        let texts: [Option<&[u8]>; TEXTS] = [
            entry.event.id.as_deref().map(str::as_bytes),
            entry.event.kind.as_deref().map(str::as_bytes),
            Some(&entry.method[..]),
            Some(&entry.target[..]),
            Some(&entry.headers.as_bytes()[..]),
            Some(&request[..]),
            Some(&headers.as_bytes()[..]),
            tail.map(|tail| &tail.body[..]),
            sha256_in.map(|sum| &sum[..]),
        ];
        let len = FIXED_BYTES + texts.iter().map(|text| 4 + text.map_or(0, <[u8]>::len)).sum::<usize>();
        let since = |at: Instant| at.saturating_duration_since(began).as_micros() as u64;
        let client = match entry.client {
            IpAddr::V4(client) => client.to_ipv6_mapped(),
            IpAddr::V6(client) => client,
        };
        let answer_ended = tail.filter(|tail| tail.is_whole).map_or(0, |_| ANSWER_WHOLE);
        let ended = answer_ended | if entry.has_whole_body() { REQUEST_WHOLE } else { 0 };
        let place = pages.put(len, |page| {
            page.extend_from_slice(&client.octets());
            page.extend_from_slice(&entry.at.as_microsecond().to_le_bytes());
            page.extend_from_slice(&since(entry.way.from).to_le_bytes());
            page.extend_from_slice(&entry.way.hops.to_array());
            page.extend_from_slice(&entry.status().to_le_bytes());
            page.extend_from_slice(&entry.request.size().to_le_bytes());
            page.extend_from_slice(&tail.map_or(0, |tail| tail.size).to_le_bytes());
            page.extend_from_slice(&tail.map_or(0, |tail| since(tail.at)).to_le_bytes());
            page.push(ended);
            for text in texts {
                let len = text.map_or(NONE, |text| u32::try_from(text.len()).unwrap_or(NONE - 1));
                page.extend_from_slice(&len.to_le_bytes());
                page.extend_from_slice(text.unwrap_or_default());
            }
        });
        Self { endpoint: Arc::clone(&entry.endpoint), agent: entry.agent.clone(), failed, place }
    }

    pub(super) fn free(&self, pages: &mut Pages) {
        pages.free(self.place);
    }

    /// The sender's own id of it.
    pub(super) fn sender_id<'a>(&self, pages: &'a Pages) -> Option<&'a [u8]> {
        let (len, rest) = pages.get(self.place).get(FIXED_BYTES..)?.split_first_chunk()?;
        rest.get(..u32::from_le_bytes(*len) as usize)
    }

    /// The entry as it was.
    pub(super) fn read(&self, pages: &Pages, id: EventId, began: Instant) -> Option<LiveEntry> {
        let mut rest = Bytes::copy_from_slice(pages.get(self.place));
        let mut client = [0; 16];
        rest.try_copy_to_slice(&mut client).ok()?;
        let at = Timestamp::from_microsecond(rest.try_get_i64_le().ok()?).ok()?;
        let from = began + Duration::from_micros(rest.try_get_u64_le().ok()?);
        let mut hops = [0; Hops::BYTES];
        rest.try_copy_to_slice(&mut hops).ok()?;
        let (status, request_size) = (rest.try_get_u16_le().ok()?, rest.try_get_u64_le().ok()?);
        let size = rest.try_get_u64_le().ok()?;
        let ended_at = began + Duration::from_micros(rest.try_get_u64_le().ok()?);
        let ended = rest.try_get_u8().ok()?;
        let mut texts: [Option<Bytes>; TEXTS] = Default::default();
        for text in &mut texts {
            let len = rest.try_get_u32_le().ok()?;
            if len != NONE {
                let len = usize::try_from(len).ok().filter(|len| *len <= rest.len())?;
                *text = Some(rest.split_to(len));
            }
        }
        let [sender_id, kind, method, target, headers, body, answer_headers, answer_body, sha256_in] = texts;
        let word = |text: Bytes| String::from_utf8_lossy(&text).into_owned();
        let headers = HeaderBlock::decode(headers?).ok()?;
        let answer = match self.failed {
            Some(code) => LiveAnswer::Failed { code, status },
            None => LiveAnswer::Handler {
                status,
                headers: HeaderBlock::decode(answer_headers?).ok()?,
                sha256_in: sha256_in.and_then(|sum| sum.as_ref().try_into().ok()),
            },
        };
        let tail = OnceLock::new();
        if let Some(body) = answer_body {
            _ = tail.set(Tail { at: ended_at, body, size, is_whole: ended & ANSWER_WHOLE != 0 });
        }
        Some(LiveEntry {
            id,
            at,
            client: Ipv6Addr::from(client).to_canonical(),
            endpoint: Arc::clone(&self.endpoint),
            event: EventMeta { id: sender_id.map(word), kind: kind.map(word) },
            agent: self.agent.clone(),
            method: method?,
            target: target?,
            headers,
            request: SentBody::There { kept: body?, size: request_size, has_ended: ended & REQUEST_WHOLE != 0 },
            way: Way { from, hops: Hops::from_array(hops) },
            answer,
            tail,
        })
    }
}
