//! What a text may look like: a set of ASCII characters and a length, written `[a-f0-9]{20,32}`.
//!
//! Deliberately no regular expression: whether a text fits is one look at each byte, and what a shape can never hold
//! can be read from its set. That is what rows rely on that sign a stranger's text.

use std::ops::RangeInclusive;

/// Longest text that a shape may allow, in bytes.
pub(crate) const MAX_LEN: usize = 1024;

/// Beside letters and digits, what a challenge may be made of. JSON objects, lists and texts, XML, form fields in a row
/// and lines need others.
const CHALLENGE: &[u8] = b"_+/=.~-";

/// A set of characters and how many of them there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// A bit for each ASCII character.
    set: u128,
    len: RangeInclusive<usize>,
}

impl Shape {
    /// Reads `[SET]{LEAST,MOST}`; a `-` that is not the last of the set makes a range.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no shape; expected one like [A-Za-z0-9_-]{{1,64}}, at most {MAX_LEN} long");
        let (set, len) = text.strip_prefix('[').and_then(|rest| rest.split_once("]{")).ok_or_else(wrong)?;
        let (least, most) = len.strip_suffix('}').and_then(|len| len.split_once(',')).ok_or_else(wrong)?;
        let (least, most): (usize, usize) = least
            .parse()
            .ok()
            .zip(most.parse().ok())
            .filter(|(least, most)| (*least..=MAX_LEN).contains(most))
            .ok_or_else(wrong)?;
        let mut bytes = set.bytes().peekable();
        let mut members = 0;
        while let Some(first) = bytes.next() {
            let mut last = first;
            if bytes.peek() == Some(&b'-') {
                bytes.next();
                match bytes.next() {
                    Some(end) => last = end,
                    None => members |= 1 << b'-',
                }
            }
            let drawn = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'[' | b']' | b'\\');
            if !drawn(first) || !drawn(last) || first > last {
                return Err(wrong());
            }
            members |= (first..=last).fold(0, |all, byte| all | 1 << byte);
        }
        if members == 0 { Err(wrong()) } else { Ok(Self { set: members, len: least..=most }) }
    }

    pub(crate) fn fits(&self, text: &[u8]) -> bool {
        self.fits_joined([text])
    }

    /// Whether these texts, one behind the other, fit.
    pub(crate) fn fits_joined<'a>(&self, texts: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut len = 0;
        for text in texts {
            len += text.len();
            if len > *self.len.end() || !text.iter().all(|byte| self.holds(*byte)) {
                return false;
            }
        }
        self.len.contains(&len)
    }

    pub(crate) fn holds(&self, byte: u8) -> bool {
        byte.is_ascii() && self.set >> byte & 1 == 1
    }

    /// The first character of the set that no challenge is made of.
    pub(crate) fn beyond_challenges(&self) -> Option<char> {
        let beyond = |byte: &u8| self.holds(*byte) && !byte.is_ascii_alphanumeric() && !CHALLENGE.contains(byte);
        (0..128).find(beyond).map(char::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_a_set_and_a_length() {
        let shape = Shape::parse("[A-Fa-f0-9_.-]{2,4}").expect("a shape");
        for text in ["aF", "09_-", ".-."] {
            assert!(shape.fits(text.as_bytes()), "{text}");
        }
        for text in ["", "a", "aaaaa", "ag", "a b", "a\n", "a\u{e9}", "{}"] {
            assert!(!shape.fits(text.as_bytes()), "{text}");
        }
        assert!(shape.fits_joined([&b"ab"[..], b"", b"cd"]) && !shape.fits_joined([&b"abc"[..], b"de"]));
        for text in [
            "",
            "[]{1,2}",
            "[a]",
            "[a]{1}",
            "[a]{2,1}",
            "[a]{1,1025}",
            "[z-a]{1,2}",
            "[a b]{1,2}",
            "[\\d]{1,2}",
            "[\u{e9}]{1,2}",
        ] {
            assert!(Shape::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_no_challenge_is_made_of_is_named() {
        let beyond = |text: &str| Shape::parse(text).expect("a shape").beyond_challenges();
        assert_eq!(beyond("[A-Za-z0-9_+/=.~-]{1,256}"), None);
        assert_eq!(
            (beyond("[0-9:]{1,9}"), beyond("[!-Z]{1,9}"), beyond("[a-~]{1,9}")),
            (Some(':'), Some('!'), Some('{'))
        );
    }
}
