//! What editors, shells and web pages put into a secret without anybody seeing it.
//!
//! Recognises it and names it; whether such a secret is refused is for its reader to say. Pure. A secret that is no text
//! has nothing of the kind: its bytes may be anything.

use zeroize::Zeroizing;

/// Something in a secret's file that is hardly part of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invisible {
    /// Windows' editors begin a file with it.
    #[error("it begins with a byte order mark, which an editor put there; save it as UTF-8 without one")]
    ByteOrderMark,
    /// As PowerShell's `>` writes.
    #[error("it is in UTF-16; save it as UTF-8")]
    Utf16,
    /// As it comes along when text is copied from a page or a chat.
    #[error("it has a no-break or zero-width space in it, which a page or a chat put there; copy or type it again")]
    Space,
}

impl Invisible {
    /// What is in these bytes, if anything is.
    pub fn of(secret: &[u8]) -> Option<Self> {
        if is_utf16(secret) {
            return Some(Self::Utf16);
        }
        let text = std::str::from_utf8(secret).ok()?;
        match text.find(is_invisible) {
            None => None,
            Some(0) if text.starts_with(BYTE_ORDER_MARK) => Some(Self::ByteOrderMark),
            Some(_) => Some(Self::Space),
        }
    }
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Spaces that are not the keyboard's, of whatever width and none, soft hyphens, joiners and marks of direction.
const fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{a0}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{2069}'
            | '\u{3000}'
    ) || char == BYTE_ORDER_MARK
}

/// Whether this is ASCII in UTF-16, of either order, with its mark or without: a secret's text is hardly anything else.
fn is_utf16(bytes: &[u8]) -> bool {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let little = |pair: &[u8; 2]| pair[1] == 0 && pair[0].is_ascii() && pair[0] != 0;
    let big = |pair: &[u8; 2]| pair[0] == 0 && pair[1].is_ascii() && pair[1] != 0;
    let all = |unit: &dyn Fn(&[u8; 2]) -> bool, pairs: &[[u8; 2]]| !pairs.is_empty() && pairs.iter().all(unit);
    // A line break that was cut off leaves half of itself behind.
    rest.iter().all(|last| matches!(last, 0 | b'\n'))
        && match pairs {
            [[0xff, 0xfe], text @ ..] => all(&little, text),
            [[0xfe, 0xff], text @ ..] => all(&big, text),
            text => text.len() > 1 && (all(&little, text) || all(&big, text)),
        }
}

/// Secrets as they may stand at the sender, where something of the kind came into this one, and what it is.
pub(crate) fn dressed(secret: &[u8]) -> Vec<(Zeroizing<Vec<u8>>, &'static str)> {
    let Ok(text) = std::str::from_utf8(secret) else { return Vec::new() };
    let units = |encode: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(encode).collect::<Vec<u8>>();
    let around = |before: &str, after: &str| [before, text, after].concat().into_bytes();
    let bare: String = text.chars().filter(|char| !is_invisible(*char)).collect();
    let mut all = vec![
        (around("\u{feff}", ""), "text with a byte order mark before it"),
        (around("", "\u{a0}"), "text with a no-break space behind it"),
        (around("\u{a0}", ""), "text with a no-break space before it"),
        (around("", "\u{200b}"), "text with a zero-width space behind it"),
        (around("\u{200b}", ""), "text with a zero-width space before it"),
        (units(u16::to_le_bytes), "text in UTF-16"),
        ([vec![0xff, 0xfe], units(u16::to_le_bytes)].concat(), "text in UTF-16 with a byte order mark"),
        (units(u16::to_be_bytes), "text in UTF-16, big-endian"),
    ];
    if bare != text {
        all.push((bare.into_bytes(), "text without the invisible characters that stand in it here"));
    }
    all.into_iter().map(|(secret, how)| (Zeroizing::new(secret), how)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_named_and_what_is_no_text_is_left_alone() {
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        for (secret, found) in [
            (b"whsec_abc".to_vec(), None),
            ("schlüssel mit ß".into(), None),
            ("\u{feff}abc".into(), Some(Invisible::ByteOrderMark)),
            ("abc\u{a0}".into(), Some(Invisible::Space)),
            ("\u{a0}abc".into(), Some(Invisible::Space)),
            ("a\u{200b}bc".into(), Some(Invisible::Space)),
            ("abc\u{202f}".into(), Some(Invisible::Space)),
            ("abc\u{2060}".into(), Some(Invisible::Space)),
            ("abc\u{feff}".into(), Some(Invisible::Space)),
            ("a\u{ad}bc".into(), Some(Invisible::Space)),
            ("abc\u{2003}".into(), Some(Invisible::Space)),
            ("\u{3000}abc".into(), Some(Invisible::Space)),
            ("a b-c…ä".into(), None),
            (utf16("abc"), Some(Invisible::Utf16)),
            (utf16("\u{feff}abc\r\n"), Some(Invisible::Utf16)),
            (big("abc"), Some(Invisible::Utf16)),
            (big("\u{feff}abc"), Some(Invisible::Utf16)),
            // What is left when a line break of one byte was cut off.
            (utf16("abc\n")[..7].to_vec(), Some(Invisible::Utf16)),
            (vec![0xff, 0xfe, 0x80, 0x01], None),
            ((0..=255).collect(), None),
            (vec![0; 32], None),
            (Vec::new(), None),
        ] {
            assert_eq!(Invisible::of(&secret), found, "{secret:?}");
        }
    }
}
