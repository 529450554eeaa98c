//! One recorded request, sent to a handler as a relay's agent would, and what came of it.
//!
//! Lines of the sender's hop are left out, as are credentials that the recording masks; the relay's own lines are made
//! anew from what the recording knows. Bodies of answers are kept to a bound and summed to their end.

use std::{future::poll_fn, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use relay_program::{
    cassette::CassetteEvent,
    http1::{Part, put_line},
};
use relay_proto::{HeaderBlock, names};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::{
    handler::{Handler, HandlerRequest},
    send::{Manner, Pieces},
};

/// What is kept of an answer's body.
pub(crate) const MAX_KEPT_BYTES: usize = 256 * 1024;
/// Longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// What stands in a recording for a credential.
const MASKED: &[u8] = b"[masked]";

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) struct Bullet {
    pub method: String,
    /// What follows the handler's own path.
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shot {
    /// `None`: there was no answer, or no end of one, for which `error` says why.
    pub status: Option<u16>,
    pub error: Option<String>,
    pub headers: HeaderBlock,
    pub body: Bytes,
    /// Of the whole body.
    pub size: u64,
    pub sha256: [u8; 32],
    /// More came than is kept.
    pub truncated: bool,
    pub took: Duration,
}

impl Bullet {
    /// The request of an event, sent for that time, as far as it can be sent again.
    pub(crate) fn of(event: &CassetteEvent, time: u32) -> Self {
        let attempt = time.to_string();
        let own = [
            (names::EVENT_ID, event.id.as_str()),
            (names::ENDPOINT, &event.endpoint),
            (names::ATTEMPT, &attempt),
            (names::RECEIVED_AT, &event.received_at),
        ];
        let stays = |name: &str, value: &[u8]| {
            let of_connection = matches!(name, "host" | "content-length" | "expect" | "trailer");
            let of_relay = own.iter().any(|(own, _)| *own == name);
            !of_connection && !of_relay && !names::is_of_one_hop(name.as_bytes()) && value != MASKED
        };
        let mut headers: Vec<_> = event
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.0.clone()))
            .filter(|(name, value)| stays(name, value))
            .collect();
        let own = own.iter().filter(|(_, value)| !value.is_empty());
        headers.extend(own.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())));
        Self {
            method: event.method.clone(),
            target: event.target.clone(),
            headers,
            body: Bytes::copy_from_slice(&event.body.0),
        }
    }

    /// Sends it, and reads the answer to its end.
    pub(crate) async fn shoot(&self, handler: &Handler, manner: Manner) -> Shot {
        let began = Instant::now();
        let mut shot = Shot::default();
        if let Err(why) = self.exchange(handler, manner, &mut shot).await {
            (shot.status, shot.error) = (None, Some(why));
        }
        shot.took = began.elapsed();
        shot
    }

    /// The error is for people.
    async fn exchange(&self, handler: &Handler, manner: Manner, shot: &mut Shot) -> Result<(), String> {
        let path = handler.target.uri_for(&self.target).map_err(|error| error.to_string())?;
        let method = http::Method::from_bytes(self.method.as_bytes()).map_err(|_| "its method is none".to_owned())?;
        let mut request = HandlerRequest::new(&Bytes::copy_from_slice(method.as_str().as_bytes()), &path, 1024);
        put_line(&mut request.head, b"host", handler.host.as_bytes());
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("{name:?} is no header"))?;
            let value = HeaderValue::from_bytes(value).map_err(|_| format!("{name}: it is no header's value"))?;
            put_line(&mut request.head, name.as_str().as_bytes(), value.as_bytes());
        }
        if !self.body.is_empty() || matches!(method, http::Method::POST | http::Method::PUT | http::Method::PATCH) {
            put_line(&mut request.head, b"content-length", self.body.len().to_string().as_bytes());
        }
        request.head.extend_from_slice(b"\r\n");
        request.body = (!self.body.is_empty()).then(|| Pieces::new(&self.body, manner));
        let (head, mut call) = handler.call(request).await.map_err(|error| error.to_string())?;
        (shot.status, shot.headers) = (Some(head.status.as_u16()), head.headers);
        let (mut kept, mut sum) = (BytesMut::new(), Sha256::new());
        while let Some(part) = poll_fn(|cx| call.poll_part(cx)).await {
            let Part::Data(data) = part.map_err(|error| error.to_string())? else { continue };
            sum.update(&data);
            shot.size += data.len() as u64;
            if shot.size > MAX_ANSWER_BYTES {
                return Err(format!("its answer has more than {MAX_ANSWER_BYTES} bytes"));
            }
            let room = MAX_KEPT_BYTES - kept.len();
            shot.truncated |= data.len() > room;
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
        (shot.body, shot.sha256) = (kept.freeze(), sum.finalize().into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use relay_program::cassette::CassetteBytes;

    use super::*;

    #[test]
    fn what_was_of_the_senders_hop_or_masked_is_not_sent_again() {
        let line = |name: &str, value: &str| (name.to_owned(), CassetteBytes(value.as_bytes().to_vec()));
        let event = CassetteEvent {
            id: "hook_1".to_owned(),
            endpoint: "pay".to_owned(),
            method: "POST".to_owned(),
            headers: vec![
                line("Host", "hooks.example.com"),
                line("content-length", "9"),
                line("connection", "close"),
                line("authorization", "[masked]"),
                line("relay-event-id", "forged"),
                line("X-Own", "1"),
                line("x-own", "2"),
            ],
            ..CassetteEvent::default()
        };
        let bullet = Bullet::of(&event, 2);
        let lines: Vec<_> =
            bullet.headers.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect();
        let expected = [
            ("x-own", "1"),
            ("x-own", "2"),
            ("relay-event-id", "hook_1"),
            ("relay-endpoint", "pay"),
            ("relay-attempt", "2"),
        ];
        assert_eq!(lines, expected);
    }
}
