//! Which types of events an agent takes.
//!
//! A filter never makes an event vanish: it only says which agents an event may go to. An event that no attached
//! agent takes waits, or its sender is told so.

use relay_program::pattern::fits;

/// The types that one agent takes at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventFilter(Option<Box<str>>);

impl EventFilter {
    /// A filter of patterns in which `*` stands for any text, also none. No patterns: everything. They are kept as one
    /// text, since an agent may send thousands: none of them holds a line feed.
    pub(crate) fn new(patterns: &[String]) -> Self {
        Self((!patterns.is_empty()).then(|| patterns.join("\n").into_boxed_str()))
    }

    /// Whether an event of this type may come. An event without a type is taken only by who takes all.
    pub(crate) fn takes(&self, kind: Option<&str>) -> bool {
        let Some(patterns) = &self.0 else { return true };
        patterns.split('\n').any(|pattern| pattern == "*" || kind.is_some_and(|kind| fits(pattern, kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_little_more_than_its_patterns() {
        let patterns: Vec<String> = (0..64).map(|number| format!("{number:02}*")).collect();
        let filter = EventFilter::new(&patterns);
        assert_eq!(filter.0.as_ref().map(|text| text.len()), Some(64 * 4 - 1));
        assert!(filter.takes(Some("07x")) && !filter.takes(Some("7x")) && !filter.takes(None));
    }

    #[test]
    fn without_a_type_only_those_who_take_all_get_it() {
        assert!(EventFilter::default().takes(None));
        assert!(EventFilter::new(&["*".into()]).takes(None));
        assert!(!EventFilter::new(&["push".into()]).takes(None));
        assert!(EventFilter::new(&["ping".into(), "pu*".into()]).takes(Some("push")));
    }
}
