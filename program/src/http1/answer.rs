//! The head of an answer: its status, how its body ends, and the lines that are meant for more than one hop.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use httparse::{Header, ParserConfig, Response, Status};
use relay_proto::{HeaderBlock, names};

use super::{Http1Error, MAX_LINES};

/// How long the name of a line of one hop may be.
const LONGEST_HOP_BYTES: usize = "proxy-authentication-info".len();

/// What an answer's head says.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    /// 101, or from 200 to 599.
    pub status: StatusCode,
    /// Without the lines that concern one hop only (RFC 9110, section 7.6.1).
    pub headers: HeaderBlock,
    /// What a 101 switches to, if one line says it.
    pub upgrade: Option<Bytes>,
    pub(super) framing: Framing,
    /// Whether the connection is meant for further requests.
    pub(super) keeps: bool,
}

/// How a body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl AnswerHead {
    /// Takes a head from the front of what was read; `None` if more of it has to come.
    pub(super) fn take(input: &mut BytesMut, to_head: bool) -> Result<Option<Self>, Http1Error> {
        while !input.is_empty() {
            let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
            let mut response = Response::new(&mut []);
            let parsed =
                ParserConfig::default().parse_response_with_uninit_headers(&mut response, input, &mut lines)?;
            let Status::Complete(len) = parsed else { return Ok(None) };
            let interim = matches!(response.code, Some(100 | 102..=199));
            let head = if interim { None } else { Some(Self::judge(&response, len, to_head)?) };
            input.advance(len);
            if head.is_some() {
                return Ok(head);
            }
        }
        Ok(None)
    }

    /// A head means one thing, or it is an error: a final status that HTTP knows, and one framing at most.
    fn judge(response: &Response<'_, '_>, len: usize, to_head: bool) -> Result<Self, Http1Error> {
        let code = response.code.unwrap_or_default();
        let status = StatusCode::from_u16(code).map_err(|_| Http1Error::Unlawful)?;
        if !matches!(code, 101 | 200..=599) {
            return Err(Http1Error::Unlawful);
        }
        let is_new = response.version == Some(1);
        let hop = Hop::of(response.headers, is_new)?;
        // Where a status has no body, its length bounds nothing.
        let is_empty = to_head || matches!(code, 101 | 204 | 304);
        let framing = match (hop.codings, hop.length) {
            (0, Err(())) if !matches!(code, 204 | 304) => return Err(Http1Error::Unlawful),
            (0, _) if is_empty => Framing::Length(0),
            (0, Ok(Some(length))) => Framing::Length(length),
            (0, _) => Framing::UntilClose,
            (1, Ok(None)) if hop.chunked && is_empty => Framing::Length(0),
            (1, Ok(None)) if hop.chunked && is_new => Framing::Chunked,
            _ => return Err(Http1Error::Unlawful),
        };
        let upgrade = hop.upgrade.filter(|_| hop.upgrades == 1).map(Bytes::copy_from_slice);
        let keeps = hop.keeps && code != 101 && framing != Framing::UntilClose;
        Ok(Self { status, headers: hop.lines_beyond(response.headers, len), upgrade, framing, keeps })
    }
}

/// What a head says of its hop.
struct Hop<'a> {
    /// What `Content-Length` says: in one line, or in several that agree.
    length: Result<Option<u64>, ()>,
    /// Lines of `Transfer-Encoding`.
    codings: usize,
    chunked: bool,
    upgrades: usize,
    upgrade: Option<&'a [u8]>,
    keeps: bool,
    /// Whether `Connection` names a line.
    names_lines: bool,
}

impl<'a> Hop<'a> {
    fn of(lines: &[Header<'a>], is_new: bool) -> Result<Self, Http1Error> {
        let (length, upgrade) = (Ok(None), None);
        let mut hop =
            Self { length, codings: 0, chunked: false, upgrades: 0, upgrade, keeps: is_new, names_lines: false };
        let (mut closes, mut stays) = (false, false);
        for line in lines {
            let is = |name: &str| line.name.eq_ignore_ascii_case(name);
            match line.name.len() {
                7 if is("upgrade") => (hop.upgrades, hop.upgrade) = (hop.upgrades + 1, Some(line.value)),
                10 if is("connection") => {
                    for option in options(line.value) {
                        let (close, keep) =
                            (option.eq_ignore_ascii_case(b"close"), option.eq_ignore_ascii_case(b"keep-alive"));
                        (closes, stays) = (closes || close, stays || keep);
                        hop.names_lines |= !close && !keep && !option.is_empty();
                    }
                }
                14 if is("content-length") => hop.length = add_length(hop.length, line.value),
                17 if is("transfer-encoding") => {
                    hop.codings += 1;
                    hop.chunked = line.value.eq_ignore_ascii_case(b"chunked");
                }
                // A name that no header map takes (`http`), and nobody has.
                65_536.. => return Err(Http1Error::Unlawful),
                _ => {}
            }
        }
        hop.keeps = !closes && (is_new || stays);
        Ok(hop)
    }

    /// The lines that are meant for more than this hop. `Host` and `Content-Length` are, whatever `Connection` says;
    /// `Trailer` is not where a length leaves no room for any.
    fn lines_beyond(&self, lines: &[Header<'_>], len: usize) -> HeaderBlock {
        let mut block = HeaderBlock::builder(len);
        for line in lines {
            if self.names_lines && is_named(lines, line.name) {
                continue;
            }
            let mut name = [0; LONGEST_HOP_BYTES];
            let Some(name) = name.get_mut(..line.name.len()) else {
                block.push_lower(line.name, line.value);
                continue;
            };
            name.copy_from_slice(line.name.as_bytes());
            name.make_ascii_lowercase();
            if !names::is_of_one_hop(name) && (name != b"trailer" || self.length == Ok(None)) {
                block.push(name, line.value);
            }
        }
        block.build()
    }
}

/// Whether `Connection` names a line.
fn is_named(lines: &[Header<'_>], name: &str) -> bool {
    let named = || {
        let connection = lines.iter().filter(|line| line.name.eq_ignore_ascii_case("connection"));
        connection.flat_map(|line| options(line.value)).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    };
    !name.eq_ignore_ascii_case("host") && !name.eq_ignore_ascii_case("content-length") && named()
}

fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// One more line of `Content-Length`. A list in one line is nothing that every reader takes for a length.
fn add_length(said: Result<Option<u64>, ()>, value: &[u8]) -> Result<Option<u64>, ()> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse().ok()).ok_or(())?;
    match said? {
        Some(before) if before != length => Err(()),
        _ => Ok(Some(length)),
    }
}
