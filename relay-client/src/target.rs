//! Where a handler lives: the address of one local service, and how a path on the relay becomes a path there.
//!
//! This module parses what a user types and builds request targets from it. It opens no connection, reads no file, and
//! never takes an address from the relay.
//!
//! Invariants: [`Target::uri_for`] returns exactly the bytes of the target's path followed by the
//! rest of the sender's path, or an error; nothing is decoded, encoded or normalised. A slash that ends the target's
//! own path is not doubled. No request leaves a target's path: a rest with dot segments is refused, however they are
//! written.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr};

use http::Uri;
use percent_encoding::percent_decode_str;

/// The address of a handler: `http://…`, `https://…`, `unix:/path`, or a bare port on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub address: Address,
    /// Empty, or begins with `/`.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A bare port: this machine, over IPv4 or, if nothing listens there, IPv6.
    Loopback {
        port: u16,
    },
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        port: u16,
        /// Host and port as they were typed, for the `Host` header.
        authority: String,
        tls: bool,
    },
    Unix {
        path: PathBuf,
    },
}

/// A password must not reach an error message.
const USER_INFO: &str = "a target takes no user name or password; send them as a header: -H 'Authorization: Basic …'";

/// Why no request can be made with the sender's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UncarriablePath {
    /// It cannot stand in a request byte for byte.
    #[error("the request target cannot be carried unchanged")]
    Bytes,
    /// It could leave the path that the user gave it.
    #[error("the request target has dot segments, and the handler is named with a path")]
    DotSegments,
}

/// Whether a handler could read a `.` or `..` segment in what follows the endpoint in the sender's URL: plainly,
/// percent-encoded (RFC 3986, section 5.2.4, has readers decode before or after), between encoded slashes or
/// backslashes, or before the parameters of a segment, which servlet containers take off first.
pub(crate) fn has_dot_segments(rest: &str) -> bool {
    let path = rest.split('?').next().unwrap_or_default();
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}

impl Target {
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.address, Address::Tcp { tls: true, .. })
    }

    /// The value of the `Host` header when the target's own is wanted.
    pub(crate) fn authority(&self) -> String {
        match &self.address {
            Address::Loopback { port } => format!("127.0.0.1:{port}"),
            Address::Tcp { authority, .. } => authority.clone(),
            Address::Unix { .. } => "localhost".to_owned(),
        }
    }

    pub(crate) fn without_path(&self) -> Self {
        Self { address: self.address.clone(), path: String::new() }
    }

    /// The same address with another path in place of its own.
    pub(crate) fn with_path(mut self, path: &str) -> Result<Self, String> {
        self.path = checked_path(path)?;
        Ok(self)
    }

    /// The request target, in origin form, for `rest`: what follows the endpoint in the sender's URL, raw, such as
    /// `/a%2Fb?x`, `?x` or nothing.
    pub(crate) fn uri_for(&self, rest: &str) -> Result<String, UncarriablePath> {
        if !(rest.is_empty() || rest.starts_with(['/', '?'])) {
            return Err(UncarriablePath::Bytes);
        }
        if !matches!(self.path.as_str(), "" | "/") && has_dot_segments(rest) {
            return Err(UncarriablePath::DotSegments);
        }
        let prefix = match self.path.strip_suffix('/') {
            Some(shorter) if rest.starts_with('/') => shorter,
            _ => &self.path,
        };
        let root = if prefix.is_empty() && !rest.starts_with('/') { "/" } else { "" };
        let text = [prefix, root, rest].concat();
        if is_exact_uri(&text) { Ok(text) } else { Err(UncarriablePath::Bytes) }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = parse_port(text)?;
            return Ok(Self { address: Address::Loopback { port }, path: String::new() });
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
            if !path.starts_with('/') {
                return Err(format!("{path:?} is not an absolute path; write unix:/PATH"));
            }
            return Ok(Self { address: Address::Unix { path: path.into() }, path: String::new() });
        }
        parse_url(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Loopback { port } => write!(f, "http://127.0.0.1:{port}{}", self.path),
            Address::Tcp { authority, tls, .. } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "{scheme}://{authority}{}", self.path)
            }
            Address::Unix { path } if self.path.is_empty() => write!(f, "unix:{}", path.display()),
            Address::Unix { path } => write!(f, "unix:{} path {}", path.display(), self.path),
        }
    }
}

fn parse_url(text: &str) -> Result<Target, String> {
    let form = || match text.contains('@') {
        true => USER_INFO.to_owned(),
        false => format!("{text:?} is not a target; write http://HOST:PORT/PATH, https://…, unix:/PATH or a port"),
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(form()),
    };
    // The URI type drops fragments silently.
    if rest.contains('#') {
        return Err("a target takes no fragment (#…)".to_owned());
    }
    if rest.contains('?') {
        return Err("a target takes no query; the sender's own query is passed on".to_owned());
    }
    if let Some(ascii) = relay_schemes::ascii_host(text) {
        return Err(format!("a host's name is written in ASCII here; write it as {ascii}"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(USER_INFO.to_owned());
    }
    let parsed: http::uri::Authority = authority.parse().map_err(|_| form())?;
    let after_host = &authority[parsed.host().len()..];
    let port = match after_host.strip_prefix(':') {
        Some(port) => parse_port(port)?,
        None if tls => 443,
        None => 80,
    };
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(form());
    }
    let path = if path.is_empty() { String::new() } else { checked_path(path)? };
    let address = Address::Tcp { host: host.to_owned(), port, authority: authority.to_owned(), tls };
    Ok(Target { address, path })
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("{text:?} is not a port; ports are 1 to 65535"))
}

fn checked_path(path: &str) -> Result<String, String> {
    let plain = path.starts_with('/') && !path.contains(['?', '#']);
    if plain && is_exact_uri(path) {
        return Ok(path.to_owned());
    }
    Err(format!("{path:?} is not a URL path; it begins with / and has no spaces, ? or #"))
}

/// Whether a text is a request target in origin form, and prints the same bytes.
fn is_exact_uri(text: &str) -> bool {
    is_plain_uri(text)
        || Uri::try_from(text).is_ok_and(|uri| {
            let same = uri.path_and_query().is_some_and(|printed| printed.as_str() == text);
            same && uri.scheme().is_none() && uri.authority().is_none()
        })
}

/// Longer targets are read whole.
const MAX_PLAIN_BYTES: usize = 1024;

/// A quick look at what nearly every target consists of: none of these bytes means anything to the URI type but the first
/// `?`, and none is printed in another way.
fn is_plain_uri(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~%=&?+:,".contains(&byte);
    text.starts_with('/') && text.len() <= MAX_PLAIN_BYTES && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn refusal(text: &str) -> String {
        text.parse::<Target>().unwrap_err()
    }

    #[test]
    fn every_form_parses_and_prints() {
        for (typed, printed, authority) in [
            ("3000", "http://127.0.0.1:3000", "127.0.0.1:3000"),
            ("http://localhost:3000/webhooks", "http://localhost:3000/webhooks", "localhost:3000"),
            ("HTTP://Example.com", "http://Example.com", "Example.com"),
            ("https://app.test/", "https://app.test/", "app.test"),
            ("http://[::1]:8080/x", "http://[::1]:8080/x", "[::1]:8080"),
            ("unix:/run/app.sock", "unix:/run/app.sock", "localhost"),
            ("unix:///run/app.sock", "unix:/run/app.sock", "localhost"),
        ] {
            let target = target(typed);
            assert_eq!(target.to_string(), printed);
            assert_eq!(target.authority(), authority);
        }
    }

    #[test]
    fn what_a_quick_look_takes_the_uri_type_takes_and_prints_alike() {
        let all: String = (' '..='~').filter(|char| is_plain_uri(&format!("/{char}"))).collect();
        assert_eq!(all.len(), 26 + 26 + 10 + 12);
        for text in [format!("/{all}?{all}"), format!("//{all}"), format!("/{}", "a".repeat(MAX_PLAIN_BYTES - 1))] {
            let uri = Uri::try_from(text.as_str()).unwrap();
            assert_eq!((uri.path_and_query().unwrap().as_str(), is_plain_uri(&text)), (text.as_str(), true));
            assert!(uri.scheme().is_none() && uri.authority().is_none());
        }
        for text in ["", "a", "*", "?", "http://h/", &format!("/{}", "a".repeat(MAX_PLAIN_BYTES))] {
            assert!(!is_plain_uri(text), "{text}");
        }
    }

    #[test]
    fn ports_follow_the_scheme_and_brackets_are_stripped() {
        let tcp = |text| match target(text).address {
            Address::Tcp { host, port, tls, .. } => (host, port, tls),
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp("http://a"), ("a".to_owned(), 80, false));
        assert_eq!(tcp("https://a"), ("a".to_owned(), 443, true));
        assert_eq!(tcp("https://[::1]:1"), ("::1".to_owned(), 1, true));
    }

    #[test]
    fn what_is_no_target_is_refused_with_a_reason() {
        for text in ["http://me:secret@host/", "ftp://me:secret@host", "me:secret@host:80", "http:/me:secret@host"] {
            assert_eq!(refusal(text), USER_INFO, "{text}");
        }
        assert_eq!(target("http://host/a@b").to_string(), "http://host/a@b");
        assert!(refusal("https://bücher.example/x").ends_with("write it as xn--bcher-kva.example"));
        assert!(refusal("http://host/x?y=1").contains("takes no query"));
        assert!(refusal("http://host/x#y").contains("takes no fragment"));
        assert!(refusal("http://host?y").contains("takes no query"));
        assert!(refusal("unix:app.sock").starts_with("\"app.sock\" is not an absolute path"));
        assert!(refusal("0").starts_with("\"0\" is not a port"));
        assert!(refusal("70000").starts_with("\"70000\" is not a port"));
        assert!(refusal("http://host:0/").starts_with("\"0\" is not a port"));
        assert!(refusal("http://host:/").starts_with("\"\" is not a port"));
        assert!(refusal("http://host/a b").starts_with("\"/a b\" is not a URL path"));
        for text in ["", "localhost:3000", "ftp://host", "http://", "http:///x", "h2c://host"] {
            assert!(refusal(text).starts_with(&format!("{text:?} is not a target")), "{text}");
        }
    }

    #[test]
    fn the_rest_is_appended_raw() {
        for (typed, rest, expected) in [
            ("http://h/webhooks", "/a%2Fb?x", "/webhooks/a%2Fb?x"),
            ("http://h/webhooks", "", "/webhooks"),
            ("http://h/webhooks", "?x=1", "/webhooks?x=1"),
            ("http://h/webhooks", "/", "/webhooks/"),
            ("http://h/webhooks/", "/a", "/webhooks/a"),
            ("http://h/webhooks/", "", "/webhooks/"),
            ("http://h", "", "/"),
            ("http://h/", "", "/"),
            ("http://h", "/a/../b//c", "/a/../b//c"),
            ("http://h/", "//a", "//a"),
            ("http://h", "?", "/?"),
            ("http://h", "/caf\u{e9}\"?q=%zz{}|", "/caf\u{e9}\"?q=%zz{}|"),
            ("http://h", "/x?a\"b", ""),
            ("3000", "/x", "/x"),
            ("unix:/s", "/x?y#", ""),
            ("http://h", "x", ""),
            ("http://h", "/a b", ""),
            ("http://h", "/a\r\nb", ""),
        ] {
            assert_eq!(target(typed).uri_for(rest).unwrap_or_default(), expected, "{typed} {rest}");
        }
    }

    #[test]
    fn nobody_leaves_a_targets_path_by_dot_segments_however_they_are_written() {
        for rest in [
            "/..",
            "/../admin",
            "/a/./b",
            "/.?x",
            "/a/..?x=1",
            "/%2e%2e/admin",
            "/%2E./admin",
            "/.%2e",
            "/a%2f..%2Fadmin",
            "/a\\..\\admin",
            "/a%5c%2e%2e%5Cadmin",
            "/..;/admin",
            "/..;x=1/admin",
            "/%2e%2e%3bx/admin",
        ] {
            assert!(has_dot_segments(rest), "{rest}");
            for typed in ["http://h/webhooks", "http://h/webhooks/"] {
                assert_eq!(target(typed).uri_for(rest), Err(UncarriablePath::DotSegments), "{typed} {rest}");
            }
            let moved = target("unix:/s").with_path("/new").unwrap();
            assert_eq!(moved.uri_for(rest), Err(UncarriablePath::DotSegments), "{rest}");
            for typed in ["http://h", "http://h/", "3000"] {
                assert_eq!(target(typed).uri_for(rest).unwrap(), *rest, "{typed}: nothing to leave");
            }
        }
        for rest in
            ["", "?..", "/?/../", "/...", "/..a/b..", "/a.b/.well-known/c", "/%2e%2ea", "/a%2eb", "/;..", "/a;.."]
        {
            assert!(!has_dot_segments(rest), "{rest}");
            target("http://h/webhooks").uri_for(rest).unwrap();
        }
    }

    #[test]
    fn a_path_replaces_the_targets_own() {
        let moved = target("http://h/old").with_path("/new").unwrap();
        assert_eq!(moved.uri_for("/x").unwrap(), "/new/x");
        assert_eq!(target("unix:/s").with_path("/new").unwrap().uri_for("").unwrap(), "/new");
        for path in ["new", "", "/a?b", "/a#b", "/a b"] {
            assert!(target("http://h").with_path(path).is_err(), "{path}");
        }
    }
}
