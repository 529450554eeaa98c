//! The rule for an endpoint's name, the same at the relay and at the agent.
//!
//! Invariant: an [`EndpointName`] can stand in a URL path, a log field and a metric label without quoting, and it
//! begins with `_` only where it is the relay's own: everything under `/_relay` is, and no config can name it.

use std::{borrow::Borrow, fmt, sync::Arc};

use relay_proto::CANARY_ENDPOINT;

/// Longest endpoint name, in bytes.
pub const MAX_NAME_BYTES: usize = 63;

/// An endpoint's name: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName(Arc<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointNameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name is longer than {MAX_NAME_BYTES} characters")]
    TooLong,
    #[error("names that begin with `_` belong to the relay itself")]
    Reserved,
    #[error("a name begins with a letter or a digit")]
    BadStart,
    #[error("`{0}` cannot stand in a name; use a-z, 0-9, `.`, `_` and `-`")]
    BadCharacter(char),
}

impl EndpointName {
    pub fn parse(text: &str) -> Result<Self, EndpointNameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
            return Err(EndpointNameError::BadCharacter(bad));
        }
        match text.as_bytes().first() {
            None => Err(EndpointNameError::Empty),
            Some(b'_') => Err(EndpointNameError::Reserved),
            Some(b'.' | b'-') => Err(EndpointNameError::BadStart),
            Some(_) if text.len() > MAX_NAME_BYTES => Err(EndpointNameError::TooLong),
            Some(_) => Ok(Self(Arc::from(text))),
        }
    }

    /// The relay's own endpoint, to which its canaries go.
    pub fn canary() -> Self {
        Self(Arc::from(CANARY_ENDPOINT))
    }

    /// Whether it is one that no config can name.
    pub fn is_relays_own(&self) -> bool {
        self.0.starts_with('_')
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for EndpointName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for good in ["github", "0", "alice-stripe", "a.b_c-d", &longest] {
            assert_eq!(EndpointName::parse(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let too_long = "a".repeat(MAX_NAME_BYTES + 1);
        for (bad, why) in [
            ("", EndpointNameError::Empty),
            ("_relay", EndpointNameError::Reserved),
            ("-a", EndpointNameError::BadStart),
            (".a", EndpointNameError::BadStart),
            ("GitHub", EndpointNameError::BadCharacter('G')),
            ("a/b", EndpointNameError::BadCharacter('/')),
            ("a b", EndpointNameError::BadCharacter(' ')),
            ("ä", EndpointNameError::BadCharacter('ä')),
            (&too_long, EndpointNameError::TooLong),
        ] {
            assert_eq!(EndpointName::parse(bad), Err(why), "{bad:?}");
        }
    }
}
