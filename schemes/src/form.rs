//! Form bodies and query strings, byte for byte: names and values decoded, nothing replaced.
//!
//! How a body is read is for its `Content-Type` to say, as it is for the handler behind: a body that says that it is
//! something else is no form. A field that a handler could find under another spelling of its name is there twice.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::{
    locate::Unreadable,
    multipart::{self, Malformed},
    request::{Doubled, Request},
};

/// Most parameters that are sorted; a form with more is refused.
pub(crate) const MAX_PARAMETERS: usize = 2000;

pub(crate) type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

#[derive(Clone, Copy)]
pub(crate) enum Form<'a> {
    Encoded(&'a [u8]),
    /// Multipart, with its boundary.
    Multipart(&'a [u8], &'a [u8]),
}

impl<'a> Form<'a> {
    /// The request's body, `None` if it says that it is something else, or nothing.
    pub(crate) fn of(request: &Request<'a>) -> Result<Option<Self>, Malformed> {
        let Some(kind) = request.header("content-type").map_err(|Doubled| Malformed)? else { return Ok(None) };
        if request.is_urlencoded() {
            return Ok(Some(Self::Encoded(request.body)));
        }
        Ok(multipart::boundary(kind)?.map(|boundary| Self::Multipart(request.body, boundary)))
    }

    pub(crate) fn single(self, name: &str) -> Result<Option<Cow<'a, [u8]>>, Unreadable> {
        match self {
            Self::Multipart(body, boundary) => {
                Ok(multipart::single(body, boundary, name.as_bytes())?.map(Cow::Borrowed))
            }
            Self::Encoded(body) => {
                let mut found = None;
                for (other, value) in pairs(body).filter(|(other, _)| reads_as(other, name.as_bytes())) {
                    if *other != *name.as_bytes() || found.replace(value).is_some() {
                        return Err(Unreadable::Doubled);
                    }
                }
                Ok(found)
            }
        }
    }

    /// Every field, at most [`MAX_PARAMETERS`]. A file is no field, and what has one is not read so.
    pub(crate) fn fields(self) -> Result<Vec<Pair<'a>>, Malformed> {
        match self {
            Self::Encoded(body) => bounded(pairs(body)).ok_or(Malformed),
            Self::Multipart(body, boundary) => {
                let parts = multipart::parts(body, boundary)?.into_iter();
                let field = |part: multipart::FormPart<'a>| {
                    part.is_plain.then_some((Cow::Borrowed(part.name), Cow::Borrowed(part.content)))
                };
                parts.map(field).collect::<Option<_>>().ok_or(Malformed)
            }
        }
    }
}

/// Whether some reader finds a field under this name although it is written so: PHP cuts names at brackets, writes dots
/// and blanks as `_`, and takes the last of several.
pub(crate) fn reads_as(written: &[u8], name: &[u8]) -> bool {
    fn read(text: &[u8]) -> impl Iterator<Item = u8> {
        let text = text.trim_ascii_start().iter().take_while(|byte| !matches!(byte, b'[' | b'\0'));
        text.map(|byte| if matches!(byte, b'.' | b' ') { b'_' } else { *byte })
    }
    written == name || read(written).eq(read(name))
}

pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    raw_pairs(text).map(|(name, value)| (decode(name), decode(value)))
}

/// The parameters as they are written, in order.
pub(crate) fn raw_pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=');
        at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]))
    })
}

pub(crate) fn single(text: &[u8], name: &str) -> Result<Option<Vec<u8>>, Doubled> {
    let mut found = pairs(text).filter(|(key, _)| **key == *name.as_bytes());
    let value = found.next().map(|(_, value)| value.into_owned());
    if found.next().is_some() { Err(Doubled) } else { Ok(value) }
}

/// Every distinct pair of name and value, sorted, one behind the other.
pub(crate) fn sorted(mut fields: Vec<Pair<'_>>) -> Vec<u8> {
    fields.sort();
    fields.dedup();
    fields.iter().flat_map(|(name, value)| [&name[..], value]).collect::<Vec<_>>().concat()
}

/// The parameters sorted and joined again as `name=value&…` (or without signs, for form values).
pub(crate) fn sorted_pairs(mut fields: Vec<Pair<'_>>, between: &str, joined: &str) -> Vec<u8> {
    fields.sort();
    let all: Vec<_> = fields.iter().map(|(name, value)| [name, between.as_bytes(), value].concat()).collect();
    all.join(joined.as_bytes())
}

/// Parameters, `None` if there are too many.
pub(crate) fn bounded<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Option<Vec<Pair<'a>>> {
    let all: Vec<_> = pairs.take(MAX_PARAMETERS + 1).collect();
    (all.len() <= MAX_PARAMETERS).then_some(all)
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_byte_and_values_are_decoded_and_distinct() {
        let sort = |text: &'static [u8]| bounded(pairs(text)).map(sorted);
        assert_eq!(sort(b"b=2&B=1&a=x+y%2B&a=x+y%2B&a=1&e="), Some(b"B1a1ax y+b2e".to_vec()));
        assert_eq!(single(b"a=1&a=2", "a"), Err(Doubled));
        assert_eq!(single(b"a%20=%FF&b", "a "), Ok(Some(vec![255])));
        let many = "a&".repeat(MAX_PARAMETERS + 1);
        assert!(bounded(pairs(many.as_bytes())).is_none());
    }

    #[test]
    fn a_field_under_another_spelling_of_its_name_is_there_twice() {
        let of =
            |text: &'static str| Form::Encoded(text.as_bytes()).single("a_b").map(|found| found.map(Cow::into_owned));
        assert_eq!(of("a_b=1&c=2&ab=3"), Ok(Some(b"1".to_vec())));
        for text in [
            "a_b=1&a_b=1",
            "a_b=1&a.b=2",
            "a_b=1&a%20b=2",
            "a+b=2",
            "a_b=1&a_b[]=2",
            "a_b=1&a_b%5Bc%5D=2",
            "a_b=1&+a_b=2",
            "a_b=1&a_b%00=2",
        ] {
            assert_eq!(of(text), Err(Unreadable::Doubled), "{text}");
        }
    }
}
