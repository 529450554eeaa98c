//! Where a chunked body ends (RFC 9112, section 7.1), so that the next head is found behind it.
//!
//! hyper decodes the body; this keeps nothing of it. It is stricter than hyper in two things: behind a chunk's size hyper
//! passes over white space where nothing follows, which the grammar has only before an extension, and which another
//! reader may take for a part of the number; and among trailers it takes a bare line feed for something that another
//! reader may take for the end of a line, and of the body. What hyper refuses by itself is not told apart here: it is lost.
//!
//! Invariant: a body that is followed to its end is one that hyper decodes, and it ends where hyper has it end.

/// White space stands behind a chunk's size, and nothing behind that; or a line feed among trailers, with nothing before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DoubtfulChunk;

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyAhead {
    /// So many bytes.
    Counted(u64),
    Chunked(Chunks),
    /// Nobody knows: hyper will end the connection.
    Lost,
}

impl Default for BodyAhead {
    fn default() -> Self {
        Self::Counted(0)
    }
}

impl BodyAhead {
    /// Whether there is nothing more of it.
    pub(super) fn is_over(&self) -> bool {
        *self == Self::Counted(0)
    }

    /// Goes past what belongs to it: what stands behind it.
    pub(super) fn pass<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], DoubtfulChunk> {
        match self {
            Self::Lost => Ok(&[]),
            Self::Counted(left) => {
                let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= skipped as u64;
                Ok(&bytes[skipped..])
            }
            Self::Chunked(chunks) => {
                let (at, followed) = chunks.follow(bytes);
                match followed {
                    Followed::SoFar => {}
                    Followed::End => *self = Self::Counted(0),
                    Followed::Doubtful => {
                        *self = Self::Lost;
                        return Err(DoubtfulChunk);
                    }
                    Followed::Broken => *self = Self::Lost,
                }
                Ok(if self.is_over() { &bytes[at..] } else { &[] })
            }
        }
    }
}

/// How far a chunked body was followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    place: Place,
    /// The size of the chunk, and then what of its data has yet to come.
    left: u64,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    FirstDigit,
    Size,
    Space,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// The first byte of a trailer, or of the last line.
    Line,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    SoFar,
    End,
    Doubtful,
    Broken,
}

impl Chunks {
    /// Follows it through these bytes: how many of them are its own, and what was found.
    fn follow(&mut self, bytes: &[u8]) -> (usize, Followed) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.place == Place::Data {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.left -= data as u64;
                at += data;
                if self.left == 0 {
                    self.place = Place::DataReturn;
                }
                continue;
            }
            at += 1;
            self.place = match (self.place, byte) {
                (Place::FirstDigit | Place::Size, digit) if digit.is_ascii_hexdigit() => {
                    let Some(left) = self.left.checked_mul(16) else { return (at, Followed::Broken) };
                    self.left = left + u64::from(char::from(digit).to_digit(16).unwrap_or_default());
                    Place::Size
                }
                (Place::Size | Place::Space, b' ' | b'\t') => Place::Space,
                (Place::Space, b'\r') => return (at, Followed::Doubtful),
                (Place::Size | Place::Space, b';') => Place::Extension,
                (Place::Size | Place::Extension, b'\r') => Place::SizeLineFeed,
                (Place::Extension, b'\n') => return (at, Followed::Broken),
                (Place::Extension, _) => Place::Extension,
                (Place::SizeLineFeed, b'\n') if self.left == 0 => Place::Line,
                (Place::SizeLineFeed, b'\n') => Place::Data,
                (Place::DataReturn, b'\r') => Place::DataLineFeed,
                (Place::DataLineFeed, b'\n') => Place::FirstDigit,
                (Place::Line, b'\r') => Place::LastLineFeed,
                (Place::Trailer, b'\r') => Place::TrailerLineFeed,
                (Place::Line | Place::Trailer, b'\n') => return (at, Followed::Doubtful),
                (Place::Line | Place::Trailer, _) => Place::Trailer,
                (Place::TrailerLineFeed, b'\n') => Place::Line,
                (Place::LastLineFeed, b'\n') => return (at, Followed::End),
                _ => return (at, Followed::Broken),
            };
        }
        (at, Followed::SoFar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a body in one piece, and byte by byte: it is the same.
    fn follow(body: &[u8]) -> (BodyAhead, Result<Vec<u8>, DoubtfulChunk>) {
        let mut whole = BodyAhead::Chunked(Chunks::default());
        let rest = whole.pass(body).map(<[u8]>::to_vec);
        let (mut slow, mut behind) = (BodyAhead::Chunked(Chunks::default()), Ok(Vec::new()));
        for byte in body.chunks(1) {
            match (slow.pass(byte), &mut behind) {
                (Ok(more), Ok(behind)) => behind.extend(more),
                (Err(doubtful), behind) => *behind = Err(doubtful),
                (Ok(_), Err(_)) => {}
            }
        }
        assert_eq!((whole, &rest), (slow, &behind), "{:?}", body.escape_ascii().to_string());
        (whole, rest)
    }

    #[test]
    fn a_body_ends_where_its_last_line_does() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\n",
            b"5;a=b\r\nhello\r\n000;c\r\n\r\n",
            // This one has not ended.
            b"5 \t;a = \"0\"\r\nhel",
            b"A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX: 0\r\n\r\n",
            b"000000000000000000000005\r\n\r\n0\r\n\r\n0\r\n\r\n",
        ] {
            let is_whole = body.ends_with(b"\r\n\r\n");
            let (ahead, rest) = follow(&[body, b"GET"].concat());
            assert_eq!(ahead.is_over(), is_whole, "{:?}", body.escape_ascii().to_string());
            assert_eq!(rest, Ok(if is_whole { b"GET".to_vec() } else { Vec::new() }));
        }
    }

    #[test]
    fn white_space_behind_a_size_is_in_doubt_unless_an_extension_follows() {
        for body in [&b"5 \r\nhello\r\n0\r\n\r\n"[..], b"5\t \r\nhello", b"1\r\na\r\n0 \r\n\r\n"] {
            assert_eq!(follow(body), (BodyAhead::Lost, Err(DoubtfulChunk)));
        }
        assert_eq!(follow(b"5 ;a\r\nhello\r\n0\r\n\r\nrest").1, Ok(b"rest".to_vec()));
    }

    #[test]
    fn a_bare_line_feed_among_trailers_is_in_doubt() {
        for body in [&b"5\r\nhello\r\n0\r\n\nGET / HTTP/1.1\r\n"[..], b"0\r\nA: b\n\nGET", b"0\r\nA: b\r\nC: d\n\r\n"] {
            assert_eq!(follow(body), (BodyAhead::Lost, Err(DoubtfulChunk)));
        }
    }

    #[test]
    fn what_hyper_refuses_is_lost() {
        for body in [
            &b"\r\nhello"[..],
            b" 5\r\n",
            b"0x5\r\n",
            b"5\nhello",
            b"5 6\r\n",
            b"5;a\nhello",
            b"5\rhello",
            b"5\r\nhelloXX0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"10000000000000005\r\n",
            b"0\r\nX: 1\r \r\n",
            b"0\r\n\rX",
        ] {
            let (ahead, rest) = follow(body);
            assert_eq!((ahead, rest), (BodyAhead::Lost, Ok(Vec::new())), "{:?}", body.escape_ascii().to_string());
        }
    }
}
