//! The address of the relay.
//!
//! Parses what a user types and keeps the rule that a token crosses a network only under TLS: a plain address is
//! taken only if it is this machine. It resolves and connects to nothing.

use std::{fmt, net::IpAddr, str::FromStr};

/// A relay that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayUrl {
    pub tls: bool,
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Host and, where it is not the scheme's own, port: the value of the `Host` header.
    pub authority: String,
}

impl RelayUrl {
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The address of an endpoint that the relay named. A relay that does not know its own address names the one where
    /// it listens; where that is everywhere (`0.0.0.0`), senders reach it at this address.
    pub(crate) fn endpoint_url(&self, url: &str) -> String {
        let Ok(uri) = url.parse::<http::Uri>() else { return url.to_owned() };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => format!("{self}{}", uri.path()),
            _ => url.to_owned(),
        }
    }
}

impl FromStr for RelayUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Checked before anything is quoted in an error: what stands before an @ may be a secret.
        if text.contains('@') {
            return Err("a relay address takes no user name or password; give the token with --token-file".to_owned());
        }
        if let Some(ascii) = relay_schemes::ascii_host(text) {
            return Err(format!("a host's name is written in ASCII here; write it as {ascii}"));
        }
        let form = || format!("{text:?} is not a relay address; write https://HOST");
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => return Err(form()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err("a relay address ends after the host; the endpoint is named apart".to_owned());
        }
        let parsed: http::uri::Authority = authority.parse().map_err(|_| form())?;
        let default = if tls { 443 } else { 80 };
        let port = match authority[parsed.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?,
            None => default,
        };
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(form());
        }
        if !tls && !is_loopback(&host) {
            return Err(format!(
                "plain http to {authority} would show the token to the network; write https://{authority}, plain is for \
                 this machine only"
            ));
        }
        let authority =
            if port == default { parsed.host().to_ascii_lowercase() } else { authority.to_ascii_lowercase() };
        Ok(Self { tls, host, port, authority })
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        text.parse::<RelayUrl>().unwrap().to_string()
    }

    fn refusal(text: &str) -> String {
        text.parse::<RelayUrl>().unwrap_err()
    }

    #[test]
    fn every_form_parses() {
        assert_eq!(printed("https://hooks.example.com"), "https://hooks.example.com");
        assert_eq!(printed("wss://Hooks.Example.com/"), "https://hooks.example.com");
        assert_eq!(printed("hooks.example.com"), "https://hooks.example.com");
        assert_eq!(printed("hooks.example.com:8443"), "https://hooks.example.com:8443");
        assert_eq!(printed("https://h:443"), "https://h");
        for plain in ["http://127.0.0.1:8080", "http://127.9.9.9", "http://localhost:1", "http://[::1]:8080"] {
            assert_eq!(printed(plain), plain);
            assert_eq!(printed(&plain.replace("http", "ws")), plain);
        }
    }

    #[test]
    fn the_host_is_ready_to_dial() {
        let relay: RelayUrl = "ws://[::1]:8080".parse().unwrap();
        assert_eq!((relay.host.as_str(), relay.port, relay.authority.as_str()), ("::1", 8080, "[::1]:8080"));
    }

    #[test]
    fn an_endpoint_of_a_relay_that_listens_everywhere_is_at_the_relays_address() {
        let relay: RelayUrl = "http://127.0.0.1:8080".parse().unwrap();
        for (url, shown) in [
            ("http://0.0.0.0:8080/github", "http://127.0.0.1:8080/github"),
            ("https://[::]:8080/github", "http://127.0.0.1:8080/github"),
            ("https://hooks.test/github", "https://hooks.test/github"),
            ("http://192.0.2.1:8080/github", "http://192.0.2.1:8080/github"),
            ("no address", "no address"),
        ] {
            assert_eq!(relay.endpoint_url(url), shown, "{url}");
        }
    }

    #[test]
    fn plain_is_for_this_machine_only() {
        for text in ["http://hooks.example.com", "ws://10.0.0.1", "http://localhost.example.com", "ws://[fe80::1]"] {
            assert!(refusal(text).starts_with("plain http to "), "{text}");
        }
    }

    #[test]
    fn the_rest_is_refused() {
        for text in ["https://me:pw@h", "ftp://me:pw@h", "https:/me:pw@h", "me:pw@h", "https://me:p/w@h"] {
            assert!(refusal(text).contains("takes no user name or password"), "{text}");
        }
        assert!(refusal("https://bücher.example:8443").ends_with("write it as xn--bcher-kva.example"));
        assert_eq!(printed("https://xn--bcher-kva.example"), "https://xn--bcher-kva.example");
        assert!(refusal("https://h/github").contains("ends after the host"));
        assert!(refusal("https://h?x").contains("ends after the host"));
        for text in ["", "ftp://h", "https://", "https://h:0", "https://h:x", "a b"] {
            assert_eq!(refusal(text), format!("{text:?} is not a relay address; write https://HOST"));
        }
    }
}
