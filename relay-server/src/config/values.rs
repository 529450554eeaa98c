//! The texts that stand in a config and on the command line, read and printed: times, sizes, addresses, host names.
//!
//! Pure functions. An error is the pair of what is wrong and what to write instead; which key it belongs to is for the
//! caller to say. Invariant: what a `show_…` function prints, its reader reads back as the same value.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use http::Uri;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use relay_proto::printable::without_password;
use relay_schemes::ascii_host;

use super::effective::Listen;
use crate::webhook::Front;

/// What is wrong, and what to do about it.
pub(super) type Problem = (String, String);

fn problem(message: String, help: &str) -> Problem {
    (message, help.to_owned())
}

/// `30s`, `1h 30m`, `250ms`. No days or longer, no fractions of a unit that jiff does not know.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    let help = "write it like \"30s\" or \"1h 30m\"";
    let parsed = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let parsed = parsed.map_err(|_| problem(format!("\"{text}\" is not a time"), help))?;
    Duration::try_from(parsed).map_err(|_| problem(format!("\"{text}\" is before zero"), help))
}

/// A time in the form in which a config writes it.
pub(super) fn show_duration(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{}s", duration.as_secs()), |signed| format!("{signed:#}"))
}

/// `25MiB`, `64KiB`, `1000000`. In bytes.
pub(super) fn size(text: &str) -> Result<u64, Problem> {
    let parsed: Result<ByteSize, String> = text.parse();
    parsed
        .map(|size| size.as_u64())
        .map_err(|_| problem(format!("\"{text}\" is not a size"), "write it like \"25MiB\" or \"64KiB\""))
}

/// A size in the largest unit that divides it.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// `0.0.0.0:8080`, `[::]:443` or `localhost:8080`. Other names are refused: a listener needs one address.
pub(super) fn address(text: &str) -> Result<SocketAddr, Problem> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    if let Some(port) = local {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        problem(
            format!("\"{}\" is not an address and a port", without_password(text)),
            "write it like \"0.0.0.0:8080\" or \"[::]:8080\"",
        )
    })
}

/// An address as above, or `fd:NAME` for a socket that the process inherits.
pub(super) fn listen(text: &str) -> Result<Listen, Problem> {
    match text.strip_prefix("fd:") {
        Some("") => Err(problem(format!("\"{text}\" names no socket"), "write it like \"fd:public\"")),
        Some(name) => Ok(Listen::Inherited(name.to_owned())),
        None => address(text).map(Listen::Address),
    }
}

/// A host name without port, made lower case.
pub(super) fn host(text: &str) -> Result<Arc<str>, Problem> {
    let help = "write it like \"hooks.example.com\", without scheme, port or path";
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if let Some(ascii) = ascii_host(text) {
        let help = format!("write it as DNS knows it: \"{ascii}\"");
        return Err((format!("\"{}\" has letters outside ASCII", without_password(text)), help));
    }
    if text.len() > 253 || !text.split('.').all(label) {
        return Err(problem(format!("\"{}\" is not a host name", without_password(text)), help));
    }
    Ok(Arc::from(text.to_ascii_lowercase()))
}

/// The address under which senders and agents reach the relay: scheme, host and port, no path, no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicUrl(Arc<str>);

impl PublicUrl {
    /// Reads it. The error is what is wrong with it, and what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, String)> {
        let wrong = |why: &str| {
            problem(format!("\"{}\" {why}", without_password(text)), "write it like \"https://hooks.example.com\"")
        };
        if let Some(ascii) = ascii_host(text) {
            let help = format!("write its host as DNS knows it: \"{ascii}\"");
            return Err((wrong("has letters outside ASCII").0, help));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("is not an http or https URL"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong("holds a user name"));
        }
        if authority.host().is_empty() {
            return Err(wrong("has no host"));
        }
        if !uri.path().trim_matches('/').is_empty() || uri.query().is_some() {
            return Err(wrong("has a path, and the relay serves only whole hosts"));
        }
        Ok(Self(Arc::from(format!("{scheme}://{}", authority.as_str().to_ascii_lowercase()))))
    }

    /// Scheme, host and port, without a trailing slash.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts, as handlers are told of them.
    pub(crate) fn front(&self) -> Front {
        let (scheme, host) = self.0.split_once("://").unwrap_or(("http", &self.0));
        Front { scheme: if scheme == "https" { "https" } else { "http" }, host: Some(Arc::from(host)) }
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed_in_one_style() {
        for (text, millis) in [("10s", 10_000), ("1h 30m", 5_400_000), ("250ms", 250), ("0s", 0), ("1m 5s", 65_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        for bad in ["", "10", "ten seconds", "10 parsecs", "-5s", "1 month"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed_in_one_style() {
        for (text, bytes) in [("25MiB", 25 << 20), ("64KiB", 64 << 10), ("1GiB", 1 << 30), ("1000B", 1000), ("0B", 0)] {
            assert_eq!(size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size("1.5 KiB"), Ok(1536));
        for bad in ["", "big", "-1", "5 parsecs"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_need_a_port() {
        assert_eq!(address("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(address("[::]:8080").unwrap().to_string(), "[::]:8080");
        for bad in ["", "8080", ":8080", "0.0.0.0", "example.com:80", "1.2.3.4:99999"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_listener_is_an_address_or_an_inherited_socket() {
        for text in ["127.0.0.1:80", "fd:public"] {
            assert_eq!(listen(text).unwrap().to_string(), text);
        }
        assert!(listen("127.0.0.1:80").unwrap().is_loopback() && !listen("fd:public").unwrap().is_loopback());
        assert!(listen("fd:").is_err() && listen("public").is_err());
    }

    #[test]
    fn hosts_are_names_in_lower_case() {
        assert_eq!(host("Hook.Test").as_deref(), Ok("hook.test"));
        assert_eq!(host("xn--bcher-kva.example").as_deref(), Ok("xn--bcher-kva.example"));
        assert!(host("Bücher.example").unwrap_err().1.contains("xn--bcher-kva.example"));
        for bad in ["", "a..b", "a.b.", "-a.b", "a_b", "a:80", "https://a", "a/b", "ä.de", &"a".repeat(64)] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_public_url_is_a_scheme_and_a_host() {
        let url = PublicUrl::parse("https://Hooks.Example.com/").unwrap();
        assert_eq!(url.as_str(), "https://hooks.example.com");
        assert_eq!(PublicUrl::parse("http://127.0.0.1:8080").unwrap().as_str(), "http://127.0.0.1:8080");
        for bad in ["", "hooks.example.com", "ftp://a", "https://a/b", "https://a?b", "https://"] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad:?}");
        }
        assert!(PublicUrl::parse("https://bücher.example").unwrap_err().1.contains("xn--bcher-kva.example"));
        for bad in ["https://u:s3cret@a", "ftp://u:s3cret@a", "u:s3cret@a"] {
            let said = [PublicUrl::parse(bad).unwrap_err().0, address(bad).unwrap_err().0, host(bad).unwrap_err().0];
            assert!(!said.concat().contains("s3cret"), "{said:?}");
        }
    }
}
