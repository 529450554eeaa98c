//! The two layouts that payloads are made of: tagged fields and header lines.
//!
//! A field is `tag varint · length varint · value`; a reader ignores tags that it does not know, so
//! that messages can grow. A header line is `name length varint · name · value length varint ·
//! value`; lines keep the order in which the sender gave them, and values are raw bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    error::ProtocolError,
    limits::{MAX_HEADER_LINES, MAX_TEXT_BYTES},
    varint,
};

/// Header lines (or trailers) in the sender's order, duplicates included.
///
/// Names are lower-case tokens (RFC 9110, section 5.6.2); values are any bytes but NUL, CR and LF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Bytes, Bytes)>);

impl Headers {
    /// No lines.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// No lines yet, with room for `lines` of them.
    #[must_use]
    pub fn with_capacity(lines: usize) -> Self {
        Self(Vec::with_capacity(lines))
    }

    /// Adds a line at the end. The name must be a lower-case token.
    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.0.push((name.into(), value.into()));
    }

    /// The lines in order, as name and raw value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn encoded_len(&self) -> usize {
        self.0.iter().map(|(name, value)| prefixed_len(name.len()) + prefixed_len(value.len())).sum()
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        for part in self.0.iter().flat_map(|(name, value)| [name, value]) {
            varint::put(out, part.len() as u64);
            out.put_slice(part);
        }
    }

    /// Reads lines until `block` is empty; slices it without copying.
    pub(crate) fn decode(mut block: Bytes) -> Result<Self, ProtocolError> {
        let mut lines = Vec::new();
        while !block.is_empty() {
            if lines.len() == MAX_HEADER_LINES {
                return Err(ProtocolError::TooLarge { what: "number of header lines" });
            }
            let name = take_prefixed(&mut block, "header name")?;
            let value = take_prefixed(&mut block, "header value")?;
            if name.is_empty() || !name.iter().all(|byte| is_lower_token(*byte)) {
                return Err(ProtocolError::Malformed { what: "header name" });
            }
            if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
                return Err(ProtocolError::Malformed { what: "header value" });
            }
            lines.push((name, value));
        }
        Ok(Self(lines))
    }
}

impl IntoIterator for Headers {
    type Item = (Bytes, Bytes);
    type IntoIter = std::vec::IntoIter<(Bytes, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<N: Into<Bytes>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(lines: T) -> Self {
        Self(lines.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn is_lower_token(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Takes `length varint · bytes` from the front of `input`.
pub(crate) fn take_prefixed(input: &mut Bytes, what: &'static str) -> Result<Bytes, ProtocolError> {
    let len = take_varint(input, what)?;
    if len > input.len() as u64 {
        return Err(ProtocolError::Malformed { what });
    }
    Ok(input.split_to(len as usize))
}

/// Takes a varint from the front of `input`.
pub(crate) fn take_varint(input: &mut Bytes, what: &'static str) -> Result<u64, ProtocolError> {
    let (value, len) = varint::peek(input).ok_or(ProtocolError::Malformed { what })?;
    input.advance(len);
    Ok(value)
}

/// The next field of `block` as its tag and value, or `None` at its end.
pub(crate) fn next_field(block: &mut Bytes, what: &'static str) -> Result<Option<(u64, Bytes)>, ProtocolError> {
    if block.is_empty() {
        return Ok(None);
    }
    let tag = take_varint(block, what)?;
    Ok(Some((tag, take_prefixed(block, what)?)))
}

pub(crate) fn put_bytes(out: &mut BytesMut, tag: u64, value: &[u8]) {
    varint::put(out, tag);
    varint::put(out, value.len() as u64);
    out.put_slice(value);
}

pub(crate) fn put_int(out: &mut BytesMut, tag: u64, value: u64) {
    varint::put(out, tag);
    varint::put(out, varint::len(value) as u64);
    varint::put(out, value);
}

/// How long `length varint · len bytes` is.
pub(crate) const fn prefixed_len(len: usize) -> usize {
    varint::len(len as u64) + len
}

/// How long a field written by [`put_bytes`] is; tags are below 64.
pub(crate) const fn bytes_len(value: &[u8]) -> usize {
    1 + prefixed_len(value.len())
}

/// How long a field written by [`put_int`] is; tags are below 64.
pub(crate) const fn int_len(value: u64) -> usize {
    1 + prefixed_len(varint::len(value))
}

/// The value of an integer field.
pub(crate) fn int(mut value: Bytes, what: &'static str) -> Result<u64, ProtocolError> {
    let number = take_varint(&mut value, what)?;
    if value.is_empty() { Ok(number) } else { Err(ProtocolError::Malformed { what }) }
}

/// The value of a short text field: UTF-8 without control characters.
pub(crate) fn text(value: &Bytes, what: &'static str) -> Result<String, ProtocolError> {
    if value.len() > MAX_TEXT_BYTES {
        return Err(ProtocolError::TooLarge { what });
    }
    let text = std::str::from_utf8(value).map_err(|_| ProtocolError::Malformed { what })?;
    if text.chars().any(char::is_control) {
        return Err(ProtocolError::Malformed { what });
    }
    Ok(text.to_owned())
}

/// The value of a 16-byte identifier field.
pub(crate) fn id(value: &Bytes, what: &'static str) -> Result<[u8; 16], ProtocolError> {
    value[..].try_into().map_err(|_| ProtocolError::Malformed { what })
}
