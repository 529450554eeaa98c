//! The relay's stream of news, read: messages out of server-sent events, and [`tail`] for a terminal.
//!
//! Bounded: a message that does not end is an error. Nothing here connects.

mod follow;

use std::future::poll_fn;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::follow::{NotOpened, tail};
use crate::http1::{Connection, Http1Error, Part};

/// Longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The type of an answer that is such a stream.
pub const EVENT_STREAM: &str = "text/event-stream";

/// A line that names a stream's place, so that a new one goes on from there.
pub const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, thiserror::Error)]
pub enum NewsError {
    #[error(transparent)]
    Http(#[from] Http1Error),
    #[error("a message of the relay's stream is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewsMessage {
    pub id: String,
    pub event: String,
    /// One JSON value, as text.
    pub data: String,
}

/// Takes bytes as they come, and gives messages.
#[derive(Debug, Default)]
pub struct NewsParser {
    bytes: Vec<u8>,
    /// So far there is no line end.
    looked: usize,
    message: NewsMessage,
}

impl NewsParser {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is whole.
    pub fn take(&mut self) -> Result<Option<NewsMessage>, NewsError> {
        let mut start = 0;
        let found = loop {
            let from = start.max(self.looked);
            let Some(end) = self.bytes[from..].iter().position(|byte| *byte == b'\n') else { break None };
            let line = self.bytes[start..from + end].strip_suffix(b"\r").unwrap_or(&self.bytes[start..from + end]);
            (start, self.looked) = (from + end + 1, 0);
            if line.is_empty() {
                let message = std::mem::take(&mut self.message);
                if !message.data.is_empty() {
                    break Some(message);
                }
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => value.clone_into(&mut self.message.id),
                "event" => value.clone_into(&mut self.message.event),
                "data" => self.message.data.push_str(value),
                _ => {}
            }
        };
        self.bytes.drain(..start);
        if found.is_none() {
            self.looked = self.bytes.len();
        }
        let is_long = self.bytes.len() + self.message.data.len() > MAX_MESSAGE_BYTES;
        if is_long && found.is_none() { Err(NewsError::TooLong) } else { Ok(found) }
    }
}

/// The next message of an answer that is such a stream; `None` at its end.
pub async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    relay: &mut Connection<S>,
    parser: &mut NewsParser,
) -> Result<Option<NewsMessage>, NewsError> {
    loop {
        if let Some(message) = parser.take()? {
            return Ok(Some(message));
        }
        match poll_fn(|cx| relay.poll_part(cx)).await? {
            Some(Part::Data(data)) => parser.push(&data),
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parser: &mut NewsParser) -> Vec<NewsMessage> {
        std::iter::from_fn(|| parser.take().expect("short")).collect()
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let text = "id: 1fg1-7\nevent: rows\ndata: {\"rows\":[],\ndata: \"left_out\":0}\n\n: still here\n\n\
                    event: bye\r\ndata: {}\r\n\r\nevent: never";
        let (mut whole, mut cut) = (NewsParser::default(), NewsParser::default());
        whole.push(text.as_bytes());
        let messages = all(&mut whole);
        let mut pieces = Vec::new();
        for byte in text.bytes() {
            cut.push(&[byte]);
            pieces.extend(all(&mut cut));
        }
        assert_eq!(messages, pieces);
        let said: Vec<_> =
            messages.iter().map(|one| (one.id.as_str(), one.event.as_str(), one.data.as_str())).collect();
        assert_eq!(said, [("1fg1-7", "rows", "{\"rows\":[],\"left_out\":0}"), ("", "bye", "{}")]);
    }

    #[test]
    fn a_message_without_end_is_given_up() {
        for line in ["x", "data: x\n"] {
            let mut parser = NewsParser::default();
            let failed = (0..=MAX_MESSAGE_BYTES).any(|_| {
                parser.push(line.repeat(64).as_bytes());
                parser.take().is_err()
            });
            assert!(failed, "{line:?}");
        }
    }
}
