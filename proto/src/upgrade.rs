//! Which protocols a sender may upgrade its connection to: `websocket`, and those that an endpoint names.
//!
//! Behind a 101 nobody reads the bytes any more. A protocol that carries requests would take a sender's own ones past
//! everything that relay and agent check, so that HTTP and TLS are never among them.

use core::{fmt, str::FromStr};

/// What passes without being named.
const ALWAYS: &str = "websocket";

/// Protocols that carry requests.
const CARRIERS: &str = "h2c h2 h3 http https shttp spdy tls ssl connect-udp connect-ip connect-tcp";

/// Longest name of a protocol, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// A protocol as `Upgrade` names it (RFC 9110, section 7.8): a token, perhaps `/` and a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProtocol(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnUpgrade {
    /// It is no token, nor two with a slash between them.
    #[error("not the name of a protocol as it stands in Upgrade; write it like \"mqtt\" or \"example/2\"")]
    Form,
    #[error("never passed: behind it a sender would speak HTTP to the handler past the relay")]
    CarriesRequests,
}

impl FromStr for UpgradeProtocol {
    type Err = NotAnUpgrade;

    fn from_str(text: &str) -> Result<Self, NotAnUpgrade> {
        let token = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let (name, version) = text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
        if text.len() > MAX_NAME_BYTES || !token(name) || !version.is_none_or(token) {
            return Err(NotAnUpgrade::Form);
        }
        if CARRIERS.split(' ').any(|carrier| name.eq_ignore_ascii_case(carrier)) {
            return Err(NotAnUpgrade::CarriesRequests);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for UpgradeProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the value of an `Upgrade` line is one protocol, and one that may pass. `named` are those that an endpoint
/// names beside `websocket`.
pub fn may_upgrade(asked: &[u8], named: &[UpgradeProtocol]) -> bool {
    let mut passes = core::iter::once(ALWAYS).chain(named.iter().map(|protocol| &*protocol.0));
    passes.any(|name| asked.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websocket_alone_passes_unless_others_are_named() {
        let named: Vec<UpgradeProtocol> = vec!["Example/2".parse().expect("a protocol")];
        for (asked, named, passes) in [
            ("websocket", &[][..], true),
            ("WebSocket", &[], true),
            ("example/2", &[], false),
            ("example/2", &named, true),
            ("websocket", &named, true),
            ("example", &named, false),
            ("example/1", &named, false),
            ("h2c", &named, false),
            ("websocket, h2c", &named, false),
            ("h2c, websocket", &named, false),
            ("websocket/13", &named, false),
            ("websocket,", &named, false),
            ("", &named, false),
        ] {
            assert_eq!(may_upgrade(asked.as_bytes(), named), passes, "{asked:?} {named:?}");
        }
    }

    #[test]
    fn what_carries_requests_cannot_be_named() {
        for text in ["h2c", "H2C", "HTTP/2.0", "http", "TLS/1.3", "h2", "h3", "connect-udp"] {
            assert_eq!(text.parse::<UpgradeProtocol>(), Err(NotAnUpgrade::CarriesRequests), "{text}");
        }
        for text in ["", "a b", "a/", "/1", "a/b/c", "a, b", "ä", &"a".repeat(65)] {
            assert_eq!(text.parse::<UpgradeProtocol>(), Err(NotAnUpgrade::Form), "{text}");
        }
        assert_eq!("mqtt".parse::<UpgradeProtocol>().expect("a protocol").to_string(), "mqtt");
    }
}
