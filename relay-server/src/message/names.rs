//! Which names of a sender's headers do not reach the handler: the relay's own, and those that tell of the way here.
//!
//! | names | whose | what becomes of a sender's |
//! |---|---|---|
//! | `Relay-…`, `X-Relay-…` | the relay's: what the handler may rely on | dropped |
//! | `X-Forwarded-…` of any ending, `Forwarded`, `X-Real-IP`, `True-Client-IP`, `CF-Connecting-IP` and the like | the proxies' in front: who came, by which host, scheme, URL and certificate | dropped, unless a trusted proxy says it |
//! | `Proxy` | nobody's; CGI makes `HTTP_PROXY` of it | dropped |
//! | lines of one hop, oddly spelled | HTTP's | dropped |
//! | lines of the framing, oddly spelled | HTTP's | the request is refused where it came; dropped where it was kept |
//!
//! Names are compared with every character that is no letter or digit as `-`: CGI, WSGI, Rack and FastCGI gateways make
//! one variable of `Relay-Verified`, `Relay_Verified` and, some of them, `Relay.Verified`. An odd spelling is never a
//! proxy's own, and is dropped whoever sends it.
//!
//! Left alone on purpose: what says nothing that a handler decides by (`Via`, `CF-Ray`, `X-Request-Id`, trace headers,
//! which senders set for themselves), and every header that a provider's row reads. Whoever proves a request sees what
//! was sent, all of it: this is about the handler's copy alone.

use http::{HeaderMap, HeaderName, header};
use relay_proto::names::{ERROR, EVENT_ID};

/// Longest name that can be one of those that are compared as a whole. Of longer ones the beginning counts.
const LONGEST: usize = 48;

/// Takes out what is not for the handler. What tells of the way stays if it is a trusted proxy's.
pub(crate) fn strip(headers: &mut HeaderMap, trusted: bool) {
    remove_where(headers, |name| is_dropped(name, trusted));
}

/// Takes out of a handler's answer what only the relay says: whose event it is, and that an answer is its own.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    remove_where(headers, is_only_the_relays);
}

/// Whether a line of an answer may only be the relay's own.
pub(crate) fn is_only_the_relays(name: &str) -> bool {
    const ITS_OWN: [&str; 2] = [ERROR, EVENT_ID];
    // Most names are ruled out by their first letter.
    name.starts_with('r') && ITS_OWN.contains(&dashed(name, &mut [0; LONGEST]).0)
}

fn remove_where(headers: &mut HeaderMap, dropped: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| dropped(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Takes out what a request says of the way that it came, where only a trusted proxy may say that and nobody knows whether
/// one did. This is for all who read it, since the peer is a trusted one.
pub(crate) fn drop_tales(headers: &mut HeaderMap) {
    remove_where(headers, |name| is_dropped(name, false) && !is_dropped(name, true));
}

/// Whether a name is one that nearly every request has, and that is never dropped: known by a number in a header map.
pub(crate) fn is_everyones(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::HOST
            | header::USER_AGENT
    )
}

pub(crate) fn is_dropped(name: &str, trusted: bool) -> bool {
    let mut buffer = [0; LONGEST];
    let (plain, odd) = dashed(name, &mut buffer);
    is_the_relays(plain) || (tells_of_the_way(plain) && (odd || !trusted)) || (odd && is_of_one_hop(plain))
}

/// Whether this is the name of a line that frames a body, oddly spelled: some gateway on the way may read it as one.
pub(crate) fn feigns_framing(name: &str) -> bool {
    const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];
    // Most names are ruled out by their length.
    FRAMING.iter().any(|framing| framing.len() == name.len()) && {
        let mut buffer = [0; LONGEST];
        let (plain, odd) = dashed(name, &mut buffer);
        odd && FRAMING.contains(&plain)
    }
}

/// A name, in lower case as it stands in a header map, with `-` for what is no letter or digit; and whether that
/// changed anything.
fn dashed<'a>(name: &'a str, buffer: &'a mut [u8; LONGEST]) -> (&'a str, bool) {
    let is_plain = |byte: u8| PLAIN[usize::from(byte)];
    // To the end, whatever is found: a loop without a way out costs less on names.
    if name.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        return (name, false);
    }
    let len = name.len().min(LONGEST);
    for (to, from) in buffer.iter_mut().zip(name.bytes()) {
        *to = if is_plain(from) { from } else { b'-' };
    }
    (std::str::from_utf8(&buffer[..len]).unwrap_or(name), true)
}

/// Letters, digits and `-`.
static PLAIN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'-';
        byte += 1;
    }
    table
};

fn is_the_relays(name: &str) -> bool {
    begins(name, b"relay-") || begins(name, b"x-relay-") || name == "proxy"
}

/// As `starts_with`, for a beginning of a known length: a comparison of numbers, without a call.
fn begins<const LEN: usize>(name: &str, beginning: &[u8; LEN]) -> bool {
    name.as_bytes().first_chunk() == Some(beginning)
}

/// As `ends_with`, likewise.
fn ends<const LEN: usize>(name: &str, end: &[u8; LEN]) -> bool {
    name.as_bytes().last_chunk() == Some(end)
}

fn is_of_one_hop(name: &str) -> bool {
    matches!(
        name,
        "content-length"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "transfer-encoding"
    )
}

/// Names that tell of the way by themselves.
fn tells_by_itself(name: &str) -> bool {
    matches!(
        name,
        // Who came.
        "forwarded"
        | "x-forwarded"
        | "x-forward-for"
        | "x-forwardedfor"
        | "x-original-for"
        | "x-realip"
        | "cf-connecting-ip"
        | "cf-connecting-ipv6"
        | "cf-pseudo-ipv4"
        | "cf-ipcountry"
        | "fly-forwarded-proto"
        | "fly-forwarded-port"
        | "fly-forwarded-ssl"
        | "do-connecting-ip"
        | "x-nf-client-connection-ip"
        | "x-appengine-user-ip"
        | "x-azure-socketip"
        | "x-coming-from"
        | "x-originating-ip"
        | "x-proxyuser-ip"
        | "x-vercel-proxied-for"
        | "x-real-host"
        | "x-real-port"
        | "x-remote-host"
        | "x-remote-user"
        | "remote-user"
        // By which scheme and host.
        | "front-end-https"
        | "x-https"
        | "x-proto"
        | "x-scheme"
        | "x-url-scheme"
        | "x-arr-ssl"
        | "wl-proxy-ssl"
        | "fastly-ssl"
        | "cf-visitor"
        | "x-original-proto"
        | "x-original-host"
        | "x-host"
        | "x-http-host-override"
        // For which URL and method.
        | "x-original-url"
        | "x-original-uri"
        | "x-original-path"
        | "x-original-method"
        | "x-rewrite-url"
        | "x-rewrite-uri"
        | "x-request-uri"
        | "x-script-name"
        // With which certificate (RFC 9440, and before it).
        | "client-cert"
        | "client-cert-chain"
        | "x-client-cert"
        | "x-ssl-cert"
        | "x-arr-clientcert"
    )
}

/// What proxies, load balancers and content networks say of the client and of its request as they got it.
fn tells_of_the_way(name: &str) -> bool {
    // Most names are ruled out by a letter.
    let bytes = name.as_bytes();
    (matches!(bytes.first(), Some(b's' | b'x')) && is_of_a_proxys_family(name))
        || (matches!(bytes.last(), Some(b'p' | b'r')) && ends_as_who_came(name))
        || tells_by_itself(name)
}

fn is_of_a_proxys_family(name: &str) -> bool {
    begins(name, b"x-forwarded-")
        || begins(name, b"x-envoy-")
        || begins(name, b"ssl-client-")
        || begins(name, b"x-ssl-client-")
        || begins(name, b"x-client-cert-")
        || begins(name, b"x-amzn-mtls-")
}

/// Each content network has a name of its own for who came, and they end alike.
fn ends_as_who_came(name: &str) -> bool {
    ends(name, b"client-ip")
        || ends(name, b"clientip")
        || ends(name, b"real-ip")
        || ends(name, b"remote-ip")
        || ends(name, b"source-ip")
        || ends(name, b"src-ip")
        || ends(name, b"remote-addr")
        || ends(name, b"forwarded-for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relays_names_are_dropped_however_a_gateway_would_read_them() {
        for name in [
            "relay-verified",
            "relay_verified",
            "relay.verified",
            "relay_event-id",
            "relay~attempt",
            "x-relay-verified",
            "x_relay_verified",
            "proxy",
            &format!("relay_{}", "x".repeat(100)),
            "transfer_encoding",
            "content_length",
            "content.length",
            "http2_settings",
            "proxy_authorization",
        ] {
            assert!(is_dropped(name, false) && is_dropped(name, true), "{name}");
        }
    }

    #[test]
    fn what_feigns_framing_is_known_in_any_odd_spelling_and_only_then() {
        for name in ["transfer_encoding", "transfer.encoding", "content_length", "content~length"] {
            assert!(feigns_framing(name), "{name}");
        }
        for name in ["transfer-encoding", "content-length", "content_type", "x_content_length", "contentlength"] {
            assert!(!feigns_framing(name), "{name}");
        }
    }

    #[test]
    fn what_tells_of_the_way_is_a_trusted_proxys_alone_and_then_in_its_usual_spelling() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-anything-at-all",
            "forwarded",
            "x-real-ip",
            "x-client-ip",
            "true-client-ip",
            "cf-connecting-ip",
            "x-original-url",
            "x-rewrite-url",
            "x-envoy-external-address",
            "ssl-client-verify",
            "incap-client-ip",
            "x-sucuri-clientip",
            "ali-cdn-real-ip",
            "x-http-forwarded-for",
        ] {
            assert!(is_dropped(name, false) && !is_dropped(name, true), "{name}");
            let odd = name.replacen('-', "_", 1);
            assert!(!odd.contains('_') || (is_dropped(&odd, false) && is_dropped(&odd, true)), "{odd}");
        }
    }

    #[test]
    fn what_senders_say_of_themselves_stays() {
        for name in [
            "host",
            "accept",
            "accept-encoding",
            "user-agent",
            "content-length",
            "content-type",
            "content_type",
            "authorization",
            "cf-webhook-auth",
            "cf-ray",
            "via",
            "x-request-id",
            "x_request_id",
            "x-forward",
            "relay",
            "relayed-by",
            "x-original-to",
            "user_agent",
            "traceparent",
        ] {
            assert!(!is_dropped(name, false), "{name}");
        }
        let names = ["host", "accept", "accept-encoding", "user-agent", "content-length", "content-type"];
        assert!(names.into_iter().all(|name| is_everyones(&HeaderName::from_static(name))));
        assert!(!is_everyones(&HeaderName::from_static("forwarded")) && !is_everyones(&header::EXPECT));
    }

    #[test]
    fn no_header_that_a_provider_sends_or_signs_is_dropped() {
        let rows = include_str!("../../../schemes/src/providers.toml");
        let is_name = |byte: char| byte.is_ascii_alphanumeric() || "-_.".contains(byte);
        let named =
            rows.split("header:").skip(1).map(|rest| rest.split(|byte| !is_name(byte)).next().unwrap_or_default());
        let mut names: Vec<String> = named.map(str::to_ascii_lowercase).filter(|name| !name.is_empty()).collect();
        assert!(names.len() > 100, "the rows are read: {}", names.len());
        for provider in relay_schemes::providers() {
            names.extend(provider.sample("msg_1", 0).headers.into_iter().map(|(name, _)| name));
        }
        for name in names {
            assert!(!is_dropped(&name, false), "{name}");
        }
    }
}
