//! Which types of events an agent takes.
//!
//! A filter never makes an event vanish: it only says which agents an event may go to. An event that no attached
//! agent takes waits, or its sender is told so.

/// The types that one agent takes at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted(Vec<String>);

impl Wanted {
    /// A filter of patterns in which `*` stands for any text, also none. No patterns: everything.
    #[must_use]
    pub const fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether an event of this type may come. An event without a type is taken only by who takes all.
    #[must_use]
    pub fn takes(&self, kind: Option<&str>) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern == "*" || kind.is_some_and(|kind| fits(pattern, kind)))
    }
}

/// Whether a text is made as the pattern says. Linear in the text for each star.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // Between the two ends, the earliest place of each part leaves the most for those behind it.
    let Some(mut rest) = rest.strip_suffix(last) else { return false };
    parts.all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, is) in [
            ("push", "push", true),
            ("push", "pushed", false),
            ("push", "a push", false),
            ("pull_request.*", "pull_request.opened", true),
            ("pull_request.*", "pull_request", false),
            ("*.paid", "invoice.paid", true),
            ("*.paid", "invoice.paid.late", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn without_a_type_only_those_who_take_all_get_it() {
        assert!(Wanted::default().takes(None));
        assert!(Wanted::new(vec!["*".into()]).takes(None));
        assert!(!Wanted::new(vec!["push".into()]).takes(None));
        assert!(Wanted::new(vec!["ping".into(), "pu*".into()]).takes(Some("push")));
    }
}
