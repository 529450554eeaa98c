//! Texts that a query looks for: whole ones with stars, and pieces of something longer.
//!
//! Invariant: case counts only where the text that was typed has a capital letter.

use std::borrow::Cow;

use crate::pattern::fits;

/// A whole text; `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself, where it has no star.
    pub(super) fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    pub(super) fn fits(&self, text: &str) -> bool {
        if has_capital(&self.0) { fits(&self.0, text) } else { fits(&self.0, &text.to_lowercase()) }
    }

    /// Where case always counts.
    pub(super) fn fits_exactly(&self, text: &str) -> bool {
        fits(&self.0, text)
    }

    pub(super) fn fits_bytes(&self, bytes: &[u8]) -> bool {
        self.fits(&String::from_utf8_lossy(bytes))
    }
}

/// A piece of something longer. It is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece(String);

impl Piece {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_in(&self, hay: &[u8]) -> bool {
        if has_capital(&self.0) {
            return memchr::memmem::find(hay, self.0.as_bytes()).is_some();
        }
        if self.0.is_ascii() {
            return has_ascii(hay, self.0.as_bytes());
        }
        // Letters beyond ASCII may change their length with their case.
        let folded: Cow<'_, str> = String::from_utf8_lossy(hay);
        folded.to_lowercase().contains(&self.0)
    }
}

fn has_capital(text: &str) -> bool {
    text.chars().any(char::is_uppercase)
}

/// Whether the needle, which is of ASCII without capitals, stands in the hay in whatever case.
fn has_ascii(hay: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else { return true };
    let Some(last) = hay.len().checked_sub(needle.len()) else { return false };
    let here = |at: usize| hay[at..at + needle.len()].eq_ignore_ascii_case(needle);
    memchr::memchr2_iter(first, first.to_ascii_uppercase(), &hay[..=last]).any(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_counts_only_with_a_capital() {
        for (piece, hay, is) in [
            ("paid", "PAID twice", true),
            ("Paid", "PAID twice", false),
            ("Paid", "it is Paid", true),
            ("e", "xE", true),
            ("xe", "x", false),
            ("grün", "GRÜN", true),
            ("Grün", "GRÜN", false),
            ("\u{0}", "a\u{0}", true),
        ] {
            assert_eq!(Piece::new(piece).is_in(hay.as_bytes()), is, "{piece} in {hay}");
        }
        assert!(Piece::new("b").is_in(b"\xff\xfeB"), "what is no text is looked through as well");
        assert!(Pattern::new("pull_*").fits("Pull_Request") && !Pattern::new("Pull_*").fits("pull_request"));
        assert!(Pattern::new("post").fits("POST") && Pattern::new("POST").fits("POST"));
    }
}
