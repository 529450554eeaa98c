//! Which proxy stands between the agent and its relay.
//!
//! Parses what a user types. Its password is part of the value and of nothing that is printed. It connects to
//! nothing; [`crate::link`] does.

use std::{fmt, str::FromStr};

use http::Uri;
use zeroize::Zeroizing;

/// How the relay is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// As `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say; a relay on this machine without any.
    #[default]
    Environment,
    Direct,
    Named(ProxyUrl),
}

/// `http://`, `https://`, `socks5://` or `socks5h://`, with a user name and password or without.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ProxyUrl {
    full: Zeroizing<String>,
    shown: String,
}

/// A text that is no proxy may hold a password and is not quoted.
const FORM: &str = "not a proxy's address; write http://HOST:PORT, https://…, socks5://…, socks5h://… or direct";

impl ProxyUrl {
    /// The URL with its password, for the connection alone.
    pub(crate) fn reveal(&self) -> &str {
        &self.full
    }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "direct" {
            return Ok(Self::Direct);
        }
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        if let Some(ascii) = relay_schemes::ascii_host(&text) {
            return Err(format!("a host's name is written in ASCII here; write it as {ascii}"));
        }
        let uri: Uri = text.parse().map_err(|_| FORM)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https" | "socks5" | "socks5h"));
        let authority = uri.authority().filter(|authority| known && !authority.host().is_empty());
        let authority = authority.ok_or(FORM)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("a proxy's address ends after its port".to_owned());
        }
        let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
        let shown = format!("{}://{host}", uri.scheme_str().unwrap_or_default());
        Ok(Self::Named(ProxyUrl { full: Zeroizing::new(text), shown }))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::Direct => f.write_str("direct"),
            Self::Named(url) => f.write_str(&url.shown),
        }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_no_password_shown() {
        for (typed, shown) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("proxy:3128", "http://proxy:3128"),
            ("https://me:s3cret@proxy/", "https://proxy"),
            ("socks5h://me:s3cret@[::1]:1080", "socks5h://[::1]:1080"),
            ("direct", "direct"),
        ] {
            let proxy: Proxy = typed.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert!(!format!("{proxy:?}").contains("s3cret"));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_being_quoted() {
        for typed in ["", "ftp://me:s3cret@proxy", "socks4://proxy", "http://", "http://a b", "http://:80"] {
            let error = typed.parse::<Proxy>().unwrap_err();
            assert_eq!(error, FORM, "{typed}");
            assert!(!error.contains("s3cret"));
        }
        let not_ascii = "http://me:s3cret@bücher.example:1".parse::<Proxy>().unwrap_err();
        assert_eq!(not_ascii, "a host's name is written in ASCII here; write it as xn--bcher-kva.example");
        assert!("http://proxy/x".parse::<Proxy>().unwrap_err().contains("ends after its port"));
    }
}
