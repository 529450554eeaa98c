//! The public URL as text: its parts, and the few ways in which providers write the same URL.
//!
//! Nothing is normalised: a signed URL is a text, and only the variants that a row names are tried.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

/// How a provider may have written the URL that it signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UrlVariant {
    /// With whatever port there is left out.
    WithoutPort,
    /// With the scheme's default port written out.
    WithPort,
    /// With the percent escapes decoded that HubSpot's documentation lists.
    Unescaped,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) path: &'a str,
    /// Without its `?`.
    pub(crate) query: &'a str,
    pub(crate) has_query: bool,
}

pub(crate) fn split(url: &str) -> Parts<'_> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (before, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
    let at = before.find('/').unwrap_or(before.len());
    let (authority, path) = before.split_at(at);
    Parts { scheme, authority, path, query: query.unwrap_or_default(), has_query: query.is_some() }
}

impl Parts<'_> {
    pub(crate) fn host(&self) -> &str {
        let host = self.authority.rsplit_once('@').map_or(self.authority, |(_, host)| host);
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        }
    }

    pub(crate) fn join(&self, authority: &str) -> String {
        let mark = if self.has_query { "?" } else { "" };
        format!("{}://{authority}{}{mark}{}", self.scheme, self.path, self.query)
    }
}

/// The URL in the way that a variant asks for, if that differs.
pub(crate) fn variant(url: &str, variant: UrlVariant) -> Option<String> {
    let parts = split(url);
    let other = match variant {
        UrlVariant::WithoutPort => parts.join(parts.host()),
        UrlVariant::WithPort if parts.host() == parts.authority => {
            let port = if parts.scheme == "http" { 80 } else { 443 };
            parts.join(&format!("{}:{port}", parts.authority))
        }
        UrlVariant::WithPort => return None,
        UrlVariant::Unescaped => unescape(url),
    };
    (other != url).then_some(other)
}

/// HubSpot's list: `:/?@!$'()*,;`.
fn unescape(url: &str) -> String {
    const DECODED: [&str; 12] = ["3A", "2F", "3F", "40", "21", "24", "27", "28", "29", "2A", "2C", "3B"];
    let mut out = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after.get(..2).filter(|code| DECODED.iter().any(|known| known.eq_ignore_ascii_case(code)));
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out + rest
}

/// What JavaScript's `encodeURI` escapes.
const URI: &AsciiSet = &all_but(b";,/?:@&=+$-_.!~*'()#");

/// What JavaScript's `encodeURIComponent` escapes.
const COMPONENT: &AsciiSet = &all_but(b"-_.!~*'()");

/// Everything but letters, digits and these.
const fn all_but(kept: &[u8]) -> AsciiSet {
    let mut set = NON_ALPHANUMERIC.remove(kept[0]);
    let mut at = 1;
    while at < kept.len() {
        set = set.remove(kept[at]);
        at += 1;
    }
    set
}

/// The path, and the whole query escaped once as a component and once more with the path.
pub(crate) fn canonical_path(url: &str) -> String {
    let parts = split(url);
    let mut path = parts.path.to_owned();
    if !parts.query.is_empty() {
        path.push('?');
        path.extend(utf8_percent_encode(parts.query, COMPONENT));
    }
    utf8_percent_encode(&path, URI).to_string()
}

/// The query with its parameters sorted and escaped anew, without those named `except`.
pub(crate) fn canonical_query(url: &str, except: &str) -> String {
    /// RFC 3986's unreserved characters.
    const STRICT: &AsciiSet = &all_but(b"-_.~");
    let query = split(url).query.replace('+', "%20");
    let mut all: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let again = |text: &str| {
                let text = percent_decode_str(text).decode_utf8_lossy().into_owned();
                utf8_percent_encode(&text, STRICT).to_string()
            };
            (again(name), again(value))
        })
        .filter(|(name, _)| name != except)
        .collect();
    all.sort();
    let mut joined: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in all {
        match joined.last_mut().filter(|(last, _)| *last == name) {
            Some((_, values)) => values.push(value),
            None => joined.push((name, vec![value])),
        }
    }
    let joined: Vec<_> = joined.into_iter().map(|(name, values)| format!("{name}={}", values.join(","))).collect();
    joined.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_written_in_the_ways_of_its_providers() {
        let url = "https://a.example:8443/x%2Fy?q=1";
        assert_eq!(variant(url, UrlVariant::WithoutPort).as_deref(), Some("https://a.example/x%2Fy?q=1"));
        assert_eq!(variant(url, UrlVariant::WithPort), None);
        assert_eq!(variant("https://a.example/", UrlVariant::WithPort).as_deref(), Some("https://a.example:443/"));
        assert_eq!(variant(url, UrlVariant::Unescaped).as_deref(), Some("https://a.example:8443/x/y?q=1"));
        assert_eq!(canonical_path("https://a.example/in?x=1"), "/in?x%253D1");
        assert_eq!(canonical_query("https://a.example/in?b=2&a=x+y&a=1&jwt=z", "jwt"), "a=1,x%20y&b=2");
    }
}
