//! HTTP/1.1 as a client speaks it: one request after the other on a connection, each answer read to its end.
//!
//! How the connection is made, how long an answer may take and what it means is for whoever asks. A request goes out
//! as its caller wrote it, with nothing added. Heads, sizes of chunks and trailers are read by httparse. No redirect
//! is followed, nothing is decompressed, and interim answers other than 101 are skipped.
//!
//! Invariants: an answer whose head means nothing, or two things, is an error; a body that breaks off never looks
//! whole; [`Connection::may_be_reused`] is true only behind a whole answer with nothing behind it.

mod answer;
mod body;
mod connection;
#[cfg(test)]
mod tests;
mod upload;

use std::io;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

pub use self::{
    answer::AnswerHead,
    body::Part,
    connection::Connection,
    upload::{Upload, UploadError, put_line},
};
use crate::reason;

/// Header lines, or trailers, that an answer may have.
const MAX_LINES: usize = 128;

/// What stands for itself in every part of an address (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why there is no answer, or no end of one.
#[derive(Debug, Error)]
pub enum Http1Error {
    #[error("the connection closed before the answer came")]
    Closed,
    #[error("the connection closed in the middle of the answer")]
    CutOff,
    #[error("{}", reason::of_io(.0))]
    Io(#[from] io::Error),
    #[error("its answer is not HTTP: {0}")]
    Malformed(#[from] httparse::Error),
    #[error("a chunk of its answer is not HTTP")]
    MalformedChunk,
    #[error("the status or the framing of its answer is not lawful in HTTP")]
    Unlawful,
    #[error("its answer has more than {0} bytes")]
    TooLarge(usize),
}

/// `Authorization: Bearer …`, which nothing prints; nothing where the token cannot stand in a header.
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// One part of a path or a query, so that nothing in it is taken for more.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}
