//! Which types of events an agent takes.
//!
//! A filter never makes an event vanish: it only says which agents an event may go to. An event that no attached
//! agent takes waits, or its sender is told so.

use crate::pattern::fits;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_type_only_those_who_take_all_get_it() {
        assert!(Wanted::default().takes(None));
        assert!(Wanted::new(vec!["*".into()]).takes(None));
        assert!(!Wanted::new(vec!["push".into()]).takes(None));
        assert!(Wanted::new(vec!["ping".into(), "pu*".into()]).takes(Some("push")));
    }
}
