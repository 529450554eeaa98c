//! The body of an answer, cut out of what was read.

use bytes::{Buf as _, Bytes, BytesMut};
use httparse::{EMPTY_HEADER, Status, parse_chunk_size, parse_headers};
use relay_proto::HeaderBlock;

use super::{Http1Error, MAX_LINES, answer::Framing};

/// Longest line with the size of a chunk, and longest block of trailers, in bytes.
const MAX_CHUNK_HEAD_BYTES: usize = 16 * 1024;

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Data(Bytes),
    /// The last part.
    Trailers(HeaderBlock),
}

/// Where in a body the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyPlace {
    /// So many bytes of the body are to come.
    Length(u64),
    UntilClose,
    ChunkSize,
    /// So many bytes of a chunk are to come.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    End,
}

/// What could be cut out.
pub(super) enum Cut {
    Part(Part),
    /// More bytes have to come first.
    More,
    End,
}

impl BodyPlace {
    pub(super) const fn beginning(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::End,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::ChunkSize,
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Cuts the next part out.
    pub(super) fn cut(&mut self, input: &mut BytesMut) -> Result<Cut, Http1Error> {
        loop {
            match self {
                Self::End => return Ok(Cut::End),
                _ if input.is_empty() => return Ok(Cut::More),
                Self::UntilClose => return Ok(Cut::Part(Part::Data(take(input, usize::MAX)))),
                Self::Length(left) | Self::Chunk(left) => {
                    let data = take(input, usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= data.len() as u64;
                    match self {
                        Self::Length(0) => *self = Self::End,
                        Self::Chunk(0) => *self = Self::ChunkEnd,
                        _ => {}
                    }
                    return Ok(Cut::Part(Part::Data(data)));
                }
                Self::ChunkSize => match chunk_size(input)? {
                    None => return Ok(Cut::More),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Chunk(size),
                },
                Self::ChunkEnd => match &input[..] {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        *self = Self::ChunkSize;
                    }
                    [b'\r'] => return Ok(Cut::More),
                    _ => return Err(Http1Error::MalformedChunk),
                },
                Self::Trailers => match trailers(input)? {
                    None => return Ok(Cut::More),
                    Some(trailers) => {
                        *self = Self::End;
                        if !trailers.is_empty() {
                            return Ok(Cut::Part(Part::Trailers(trailers)));
                        }
                    }
                },
            }
        }
    }
}

/// The first bytes, at most `most` of them: copied where they would hold a buffer that is much larger.
fn take(input: &mut BytesMut, most: usize) -> Bytes {
    let len = input.len().min(most);
    if 2 * len < input.capacity() {
        let data = Bytes::copy_from_slice(&input[..len]);
        input.advance(len);
        return data;
    }
    input.split_to(len).freeze()
}

/// Takes the line with a chunk's size. httparse reads a line without a digit as 0, and line feeds in an extension.
fn chunk_size(input: &mut BytesMut) -> Result<Option<u64>, Http1Error> {
    if !input[0].is_ascii_hexdigit() {
        return Err(Http1Error::MalformedChunk);
    }
    match parse_chunk_size(input) {
        Ok(Status::Complete((len, size))) if len <= MAX_CHUNK_HEAD_BYTES && !input[..len - 2].contains(&b'\n') => {
            input.advance(len);
            Ok(Some(size))
        }
        Ok(Status::Partial) if input.len() < MAX_CHUNK_HEAD_BYTES => Ok(None),
        _ => Err(Http1Error::MalformedChunk),
    }
}

/// Takes the trailers, and the empty line that ends them.
fn trailers(input: &mut BytesMut) -> Result<Option<HeaderBlock>, Http1Error> {
    let mut lines = [EMPTY_HEADER; MAX_LINES];
    match parse_headers(input, &mut lines)? {
        Status::Complete((len, lines)) if ends_as_told(&input[..len]) && len <= MAX_CHUNK_HEAD_BYTES => {
            let mut block = HeaderBlock::builder(len);
            lines.iter().for_each(|line| block.push_lower(line.name, line.value));
            let block = block.build();
            input.advance(len);
            Ok(Some(block))
        }
        Status::Partial if input.len() < MAX_CHUNK_HEAD_BYTES => Ok(None),
        _ => Err(Http1Error::MalformedChunk),
    }
}

/// Whether no bare line feed ends a body, which httparse takes.
fn ends_as_told(trailers: &[u8]) -> bool {
    trailers == b"\r\n" || trailers.ends_with(b"\r\n\r\n")
}
