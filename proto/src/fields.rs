//! The two layouts that payloads are made of: tagged fields and header lines.
//!
//! A field is `tag varint · length varint · value`; a reader ignores tags that it does not know, so
//! that messages can grow. A header line is `name length varint · name · value length varint ·
//! value`; lines keep the order in which the sender gave them, and values are raw bytes.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    error::ProtocolError,
    limits::{MAX_HEADER_LINES, MAX_TEXT_BYTES},
    varint,
};

/// Header lines (or trailers) as they cross the tunnel: one buffer, with the lines of one name in the sender's order.
///
/// Names are lower-case tokens (RFC 9110, section 5.6.2); values are any bytes but NUL, CR and LF.
#[derive(Clone, Default)]
pub struct HeaderBlock {
    block: Bytes,
    lines: u32,
    /// Whether the values were looked at, and no control character was found.
    plain: bool,
}

impl HeaderBlock {
    pub const fn new() -> Self {
        Self { block: Bytes::new(), lines: 0, plain: false }
    }

    /// A block to write, with room for so many bytes.
    pub fn builder(bytes: usize) -> HeaderBlockBuilder {
        HeaderBlockBuilder { block: Vec::with_capacity(bytes), lines: 0 }
    }

    /// Takes an encoded block over, without copying it.
    pub fn decode(block: Bytes) -> Result<Self, ProtocolError> {
        let (mut rest, mut lines, mut plain) = (&block[..], 0, true);
        while !rest.is_empty() {
            if lines as usize == MAX_HEADER_LINES {
                return Err(ProtocolError::TooLarge { what: "number of header lines" });
            }
            let name = take_part(&mut rest).ok_or(ProtocolError::Malformed { what: "header name" })?;
            let value = take_part(&mut rest).ok_or(ProtocolError::Malformed { what: "header value" })?;
            // All of a name, whatever stands at its beginning: nearly every one is a token, and a branch less each.
            if name.is_empty() || !name.iter().fold(true, |all, byte| all & LOWER_TOKEN[usize::from(*byte)]) {
                return Err(ProtocolError::Malformed { what: "header name" });
            }
            if may_have_controls(value) {
                if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
                    return Err(ProtocolError::Malformed { what: "header value" });
                }
                plain = false;
            }
            lines += 1;
        }
        Ok(Self { block, lines, plain })
    }

    pub const fn as_bytes(&self) -> &Bytes {
        &self.block
    }

    /// The lines in order, as name and raw value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.block[..];
        std::iter::from_fn(move || Some((take_part(&mut rest)?, take_part(&mut rest)?)))
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(line, _)| *line == name.as_bytes()).map(|(_, value)| value)
    }

    /// A part that [`HeaderBlock::iter`] gave, sharing the block's memory.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.block.slice_ref(part)
    }

    /// Whether it is known that no value has a control character: whoever decoded the block has looked.
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    pub const fn len(&self) -> usize {
        self.lines as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.lines == 0
    }
}

/// What is known of a block beside its lines makes no difference.
impl PartialEq for HeaderBlock {
    fn eq(&self, other: &Self) -> bool {
        self.block == other.block
    }
}

impl Eq for HeaderBlock {}

impl fmt::Debug for HeaderBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for HeaderBlock {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(lines: T) -> Self {
        let mut block = Self::builder(0);
        lines.into_iter().for_each(|(name, value)| block.push(name, value));
        block.build()
    }
}

#[derive(Debug)]
pub struct HeaderBlockBuilder {
    block: Vec<u8>,
    lines: u32,
}

impl HeaderBlockBuilder {
    /// Adds a line at the end. The name must be a lower-case token.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        for part in [name.as_ref(), value.as_ref()] {
            varint::put(&mut self.block, part.len() as u64);
            self.block.put_slice(part);
        }
        self.lines += 1;
    }

    /// Adds a line at the end, whatever the case of its name, which must be a token.
    pub fn push_lower(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref();
        let at = self.block.len() + varint::len(name.len() as u64);
        self.push(name, value);
        self.block[at..at + name.len()].make_ascii_lowercase();
    }

    /// Adds all lines of a block at the end.
    pub fn append(&mut self, other: &HeaderBlock) {
        self.block.put_slice(&other.block);
        self.lines += other.lines;
    }

    pub fn build(self) -> HeaderBlock {
        HeaderBlock { block: self.block.into(), lines: self.lines, plain: false }
    }
}

/// Whether there may be a control character in a value: a quick look, eight bytes at a time, which nearly every value
/// passes without one.
pub fn may_have_controls(value: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    // Below 32, or 127: "Determine if a word has a byte less than n" (Bit Twiddling Hacks, S. E. Anderson).
    let has = |word: u64| {
        let (low, delete) = (word.wrapping_sub(ONES * 32) & !word, word ^ (ONES * 127));
        (low | (delete.wrapping_sub(ONES) & !delete)) & (ONES * 128) != 0
    };
    let Some(last) = value.last_chunk() else {
        return value.iter().any(u8::is_ascii_control);
    };
    let mut found = has(u64::from_ne_bytes(*last));
    for word in value.as_chunks().0 {
        found |= has(u64::from_ne_bytes(*word));
    }
    found
}

/// Takes `length varint · bytes` from the front of what is left of a block.
#[inline]
fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, prefix) = varint::peek(rest)?;
    let end = prefix.checked_add(usize::try_from(len).ok()?)?;
    let (part, left) = (rest.get(prefix..end)?, rest.get(end..)?);
    *rest = left;
    Some(part)
}

/// The bytes of lower-case tokens (RFC 9110, section 5.6.2).
static LOWER_TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        table[byte] = is_lower_token(byte as u8);
        byte += 1;
    }
    table
};

const fn is_lower_token(byte: u8) -> bool {
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

pub(crate) fn take_varint(input: &mut Bytes, what: &'static str) -> Result<u64, ProtocolError> {
    let (value, len) = varint::peek(input).ok_or(ProtocolError::Malformed { what })?;
    input.advance(len);
    Ok(value)
}

/// The next field of `block` as its tag and value, or `None` at its end.
pub(crate) fn next_field(block: &mut Bytes, what: &'static str) -> Result<Option<(u64, Bytes)>, ProtocolError> {
    let mut rest = &block[..];
    let Some((tag, value)) = next_part(&mut rest, what)? else { return Ok(None) };
    let (value, taken) = (block.slice_ref(value), block.len() - rest.len());
    block.advance(taken);
    Ok(Some((tag, value)))
}

/// As [`next_field`], with a value that shares nothing: of the fields of a head most are numbers.
pub(crate) fn next_part<'a>(
    block: &mut &'a [u8],
    what: &'static str,
) -> Result<Option<(u64, &'a [u8])>, ProtocolError> {
    if block.is_empty() {
        return Ok(None);
    }
    let malformed = || ProtocolError::Malformed { what };
    let (tag, len) = varint::peek(block).ok_or_else(malformed)?;
    *block = &block[len..];
    Ok(Some((tag, take_part(block).ok_or_else(malformed)?)))
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

pub(crate) fn int(value: &[u8], what: &'static str) -> Result<u64, ProtocolError> {
    let number = varint::peek(value).filter(|(_, len)| *len == value.len());
    number.map(|(number, _)| number).ok_or(ProtocolError::Malformed { what })
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

pub(crate) fn id(value: &[u8], what: &'static str) -> Result<[u8; 16], ProtocolError> {
    value.try_into().map_err(|_| ProtocolError::Malformed { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_noticed_wherever_they_stand() {
        for len in 0..20 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut value = vec![b'x'; len];
                    value[at] = byte;
                    assert_eq!(may_have_controls(&value), byte.is_ascii_control(), "{byte:#x} at {at} of {len}");
                }
            }
        }
        assert!(!may_have_controls(b"") && !may_have_controls(&[0xff; 32]) && !may_have_controls(&[0x80; 32]));
    }

    #[test]
    fn a_decoded_block_knows_whether_any_of_its_values_has_a_control_character() {
        for (value, plain) in [("value", true), ("caf\u{e9} of some length", true), ("a\tb", false), ("\u{7f}", false)]
        {
            let built: HeaderBlock = [("a", "b"), ("name", value), ("last", "")].into_iter().collect();
            let decoded = HeaderBlock::decode(built.as_bytes().clone()).expect("it is valid");
            assert_eq!((built.is_plain(), decoded.is_plain()), (false, plain), "{value:?}");
            assert!(built == decoded && decoded.len() == 3);
        }
    }
}
