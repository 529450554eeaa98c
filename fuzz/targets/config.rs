//! A relay's config: what is typed, what is wrong with it, and what would run.

/// Text as a whole config. What is taken can be shown, and what is shown is a config again.
pub(crate) fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        relay_server::fuzz::config(text);
    }
}
