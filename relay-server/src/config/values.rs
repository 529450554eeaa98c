//! The texts that only the relay's config has: addresses, host names, the public URL.
//!
//! Pure functions. Which key a mistake belongs to is for the caller to say.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use http::Uri;
use relay_program::config::Wrong;
use relay_proto::printable::without_password;
use relay_schemes::ascii_host;

use super::settings::Listen;
use crate::webhook::Front;

/// `0.0.0.0:8080`, `[::]:443` or `localhost:8080`. Other names are refused: a listener needs one address.
pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    if let Some(port) = local {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        Wrong::new(
            format!("\"{}\" is not an address and a port", without_password(text)),
            "write it like \"0.0.0.0:8080\" or \"[::]:8080\"",
        )
    })
}

/// An address as above, `fd:NAME` for a socket that the process inherits, or `unix:PATH`.
pub(super) fn listen(text: &str, base: &Path) -> Result<Listen, Wrong> {
    match text.split_once(':') {
        Some(("fd", "")) => Err(Wrong::new(format!("\"{text}\" names no socket"), "write it like \"fd:public\"")),
        Some(("fd", name)) => Ok(Listen::Inherited(name.to_owned())),
        Some(("unix", "")) => {
            Err(Wrong::new(format!("\"{text}\" names no file"), "write it like \"unix:/run/relay/public.sock\""))
        }
        Some(("unix", path)) => Ok(Listen::Unix(base.join(path))),
        _ => address(text).map(Listen::Address),
    }
}

/// A host name without port, made lower case.
pub(super) fn host(text: &str) -> Result<Arc<str>, Wrong> {
    let help = "write it like \"hooks.example.com\", without scheme, port or path";
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if let Some(ascii) = ascii_host(text) {
        let help = format!("write it as DNS knows it: \"{ascii}\"");
        return Err(Wrong::new(format!("\"{}\" has letters outside ASCII", without_password(text)), help));
    }
    if text.len() > 253 || !text.split('.').all(label) {
        return Err(Wrong::new(format!("\"{}\" is not a host name", without_password(text)), help));
    }
    Ok(Arc::from(text.to_ascii_lowercase()))
}

/// The address under which senders and agents reach the relay: scheme, host and port, no path, no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicUrl(Arc<str>);

impl PublicUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str| {
            Wrong::new(format!("\"{}\" {why}", without_password(text)), "write it like \"https://hooks.example.com\"")
        };
        if let Some(ascii) = ascii_host(text) {
            let help = format!("write its host as DNS knows it: \"{ascii}\"");
            return Err(Wrong { help, ..wrong("has letters outside ASCII") });
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

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn uri(&self) -> Uri {
        self.0.parse().expect("it was parsed from one")
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
    fn addresses_need_a_port() {
        assert_eq!(address("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(address("[::]:8080").unwrap().to_string(), "[::]:8080");
        for bad in ["", "8080", ":8080", "0.0.0.0", "example.com:80", "1.2.3.4:99999"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_listener_is_an_address_an_inherited_socket_or_one_in_the_file_system() {
        let listen = |text| listen(text, Path::new("/etc/relay")).map(|at| at.to_string()).ok();
        for (text, expected) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::]:443", Some("[::]:443")),
            ("fd:public", Some("fd:public")),
            ("unix:/run/relay.sock", Some("unix:/run/relay.sock")),
            ("unix:relay.sock", Some("unix:/etc/relay/relay.sock")),
            ("fd:", None),
            ("unix:", None),
            ("public", None),
        ] {
            assert_eq!(listen(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn hosts_are_names_in_lower_case() {
        assert_eq!(&*host("Hook.Test").unwrap(), "hook.test");
        assert_eq!(&*host("xn--bcher-kva.example").unwrap(), "xn--bcher-kva.example");
        assert!(host("Bücher.example").unwrap_err().help.contains("xn--bcher-kva.example"));
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
        assert!(PublicUrl::parse("https://bücher.example").unwrap_err().help.contains("xn--bcher-kva.example"));
        for bad in ["https://u:s3cret@a", "ftp://u:s3cret@a", "u:s3cret@a"] {
            let said = [
                PublicUrl::parse(bad).unwrap_err().message,
                address(bad).unwrap_err().message,
                host(bad).unwrap_err().message,
            ];
            assert!(!said.concat().contains("s3cret"), "{said:?}");
        }
    }
}
