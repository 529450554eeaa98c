//! Where a request came from, behind the proxies that are trusted to say so.
//!
//! `X-Forwarded-For` grows from left to right, one hop each. Read from the right, hops are believed as long as a trusted
//! proxy reported them; the first one that is not trusted itself is the client. What stands further left is that
//! client's own word.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use parking_lot::Mutex;

use crate::{
    address,
    message::known,
    webhook::lines::{Line, LineNotes},
};

/// Proxies that the log names; one that is misnamed has few neighbours.
const MAX_NAMED: usize = 16;

/// Hops that are looked at.
const MAX_HOPS: usize = 32;

/// Proxies of this machine or network that speak for senders and are not trusted, as far as the log has named them.
#[derive(Debug, Default)]
pub(crate) struct Untrusted(Mutex<Vec<IpAddr>>);

impl Untrusted {
    /// Names such a peer in the log, once: all that comes through it counts as one sender's.
    pub(super) fn note(&self, peer: IpAddr, lines: LineNotes, trusts: impl Fn(IpAddr) -> bool) {
        if !lines.has(Line::ForwardedFor) || !address::is_local(peer) || trusts(peer) {
            return;
        }
        let mut named = self.0.lock();
        if named.len() < MAX_NAMED && !named.contains(&peer) {
            named.push(peer);
            tracing::warn!(
                %peer,
                "it sends X-Forwarded-For and is not trusted, so that everybody behind it counts as one; if it is your \
                 proxy, name it in [server] trusted_proxies"
            );
        }
    }
}

/// The client's address. What cannot be read as an address ends the search at the last proxy that can.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !trusts(peer) {
        return peer;
    }
    let mut client = peer;
    let lines = headers.get_all(&known::FORWARDED_FOR).iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).take(MAX_HOPS);
    for hop in hops {
        if !trusts(client) {
            break;
        }
        let Some(address) = parse(hop) else { break };
        client = address;
    }
    client
}

/// An address, with the port that some proxies add.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = || text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse().ok();
    let address: Option<IpAddr> = text.parse::<SocketAddr>().map(|address| address.ip()).ok().or_else(bare);
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let headers: HeaderMap = lines
            .iter()
            .map(|line| (http::HeaderName::from_static("x-forwarded-for"), HeaderValue::from_str(line).unwrap()))
            .collect();
        let trusts = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        address(peer.parse().unwrap(), &headers, trusts).to_string()
    }

    #[test]
    fn the_first_hop_from_the_right_that_is_not_trusted_is_the_client() {
        for (peer, lines, found) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("192.0.2.1", &["203.0.113.9"], "192.0.2.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(client(peer, lines), found, "{peer} {lines:?}");
        }
    }
}
