//! What a proxy says in front of a connection's own bytes: whose it is (PROXY protocol, versions 1 and 2).
//!
//! Reads the header and not a byte more, since TLS or HTTP follows at once. Who may say it is for the caller to judge, and
//! how long it may take. Additions of version 2 (TLVs) are measured and skipped. A proxy that speaks for itself (LOCAL),
//! or does not know for whom (UNKNOWN), says nothing: then the connection counts as its own, and whatever its requests say
//! of their way is somebody's word.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::config::ProxyProtocol;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 1, with its end (the specification's section 2.1).
pub(crate) const V1_BYTES: usize = 107;

/// Most that may follow version 2's fixed part: addresses, and additions such as a certificate.
pub(crate) const V2_BYTES: usize = 4096;

/// The two ends of a connection as its sender knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProxiedEnds {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// Reads the header; no ends where the proxy names none.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    allowed: ProxyProtocol,
) -> io::Result<Option<ProxiedEnds>> {
    let (v1, v2) = match allowed {
        ProxyProtocol::Off => (false, false),
        ProxyProtocol::V1 => (true, false),
        ProxyProtocol::V2 => (false, true),
        ProxyProtocol::Any => (true, true),
    };
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if v2 && start == SIGNATURE {
        return read_v2(stream).await;
    }
    if v1 && start.starts_with(b"PROXY ") {
        return read_v1(stream, start).await;
    }
    Err(malformed("no header of the version that is set"))
}

async fn read_v1<S: AsyncRead + Unpin>(stream: &mut S, start: [u8; 12]) -> io::Result<Option<ProxiedEnds>> {
    let mut line = Vec::with_capacity(V1_BYTES);
    line.extend(start);
    while !line.ends_with(b"\r\n") {
        if line.len() == V1_BYTES {
            return Err(malformed("its line is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = &line[b"PROXY ".len()..line.len() - 2];
    parse_v1(std::str::from_utf8(line).map_err(|_| malformed("its line is no text"))?)
}

fn parse_v1(line: &str) -> io::Result<Option<ProxiedEnds>> {
    let wrong = || malformed("its line does not name two addresses and two ports");
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family? {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, destination) = (address().ok_or_else(wrong)?, address().ok_or_else(wrong)?);
    let is_port = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_digit())
            && (word == "0" || !word.starts_with('0'))
            && word.parse::<u16>().is_ok()
    };
    match (words.next(), words.next(), words.next()) {
        (Some(one), Some(other), None) if is_port(one) && is_port(other) => {
            Ok(Some(ProxiedEnds { source, destination }))
        }
        _ => Err(wrong()),
    }
}

async fn read_v2<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<ProxiedEnds>> {
    let [command, family, len @ ..] = {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        fixed
    };
    let len = usize::from(u16::from_be_bytes(len));
    if len > V2_BYTES {
        return Err(malformed("it is too long"));
    }
    let mut rest = vec![0; len];
    stream.read_exact(&mut rest).await?;
    parse_v2(command, family, &rest)
}

fn parse_v2(command: u8, family: u8, rest: &[u8]) -> io::Result<Option<ProxiedEnds>> {
    match command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(malformed("its version or its command is not known")),
    }
    let (ends, additions) = match family {
        0x11 => {
            let (ends, more) = rest.split_at_checked(12).ok_or_else(|| malformed("its addresses are cut off"))?;
            let address = |at: usize| IpAddr::from([ends[at], ends[at + 1], ends[at + 2], ends[at + 3]]);
            (Some(ProxiedEnds { source: address(0), destination: address(4) }), more)
        }
        0x21 => {
            let (ends, more) = rest.split_at_checked(36).ok_or_else(|| malformed("its addresses are cut off"))?;
            let address = |at: usize| <[u8; 16]>::try_from(&ends[at..at + 16]).map(IpAddr::from);
            let both = address(0).and_then(|source| Ok(ProxiedEnds { source, destination: address(16)? }));
            (Some(both.map_err(|_| malformed("its addresses are cut off"))?), more)
        }
        // Not said, or a socket of the proxy's machine.
        0x00 => return Ok(None),
        0x31 => (None, rest.get(216..).ok_or_else(|| malformed("its addresses are cut off"))?),
        _ => return Err(malformed("it is not for a connection over TCP")),
    };
    let mut left = additions;
    while let [_, high, low, more @ ..] = left {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        left = more.get(len..).ok_or_else(|| malformed("an addition is cut off"))?;
    }
    if left.is_empty() { Ok(ends) } else { Err(malformed("an addition is cut off")) }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Whatever these bytes are, both versions end with ends, none, or an error.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(mut bytes: &[u8]) {
    use futures_util::FutureExt as _;
    let read = read(&mut bytes, ProxyProtocol::Any).now_or_never();
    assert!(read.is_some(), "bytes that are there keep nobody waiting");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of some bytes, and how many of them were left.
    fn judge(bytes: &[u8], allowed: ProxyProtocol) -> (Result<Option<String>, String>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut left = bytes;
        let read = runtime.block_on(read(&mut left, allowed));
        let shown = read.map(|ends| ends.map(|ends| format!("{} to {}", ends.source, ends.destination)));
        (shown.map_err(|error| error.to_string()), left.len())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    #[test]
    fn both_versions_are_read_to_their_end_and_not_beyond() {
        let v4 = [192, 0, 2, 7, 203, 0, 113, 9, 0x10, 0x92, 0x01, 0xbb];
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[31]) = (0x20, 0x01, 1, 2);
        let addition = [0x04, 0, 3, b'x', b'y', b'z', 0x20, 0, 0];
        let ends = |text: &str| Ok(Some(text.to_owned()));
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.7 203.0.113.9 4242 443\r\n".to_vec(), ends("192.0.2.7 to 203.0.113.9")),
            (b"PROXY TCP6 2001:db8::1 ::2 1 65535\r\n".to_vec(), ends("2001:db8::1 to ::2")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(None)),
            (b"PROXY UNKNOWN ff:: ff:: 0 whatever else\r\n".to_vec(), Ok(None)),
            (v2(0x21, 0x11, &v4), ends("192.0.2.7 to 203.0.113.9")),
            (v2(0x21, 0x11, &[&v4[..], &addition].concat()), ends("192.0.2.7 to 203.0.113.9")),
            (v2(0x21, 0x21, &v6), ends("2001::1 to ::2")),
            (v2(0x20, 0x00, &[]), Ok(None)),
            (v2(0x20, 0x11, &v4), Ok(None)),
            (v2(0x21, 0x00, &[1, 2, 3]), Ok(None)),
            (v2(0x21, 0x31, &[0; 216]), Ok(None)),
        ] {
            let with_more = [&header[..], b"GET / HTTP/1.1"].concat();
            assert_eq!(judge(&with_more, ProxyProtocol::Any), (expected, 14), "{}", header.escape_ascii());
            // Cut off anywhere, it is none.
            for end in 0..header.len() {
                assert!(judge(&header[..end], ProxyProtocol::Any).0.is_err(), "{end} of {}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
        for bytes in [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03zz".to_vec(),
            line("TCP4 192.0.2.7 203.0.113.9 4242"),
            line("TCP4 192.0.2.7 203.0.113.9 4242 443 1"),
            line("TCP4 192.0.2.7 203.0.113.9 4242 65536"),
            line("TCP4 192.0.2.7 203.0.113.9 +42 443"),
            line("TCP4 192.0.2.7 203.0.113.9 042 443"),
            line("TCP4 2001:db8::1 ::2 1 1"),
            line("TCP6 192.0.2.7 203.0.113.9 1 1"),
            line("TCP4  192.0.2.7 203.0.113.9 1 1"),
            line("TCP5 192.0.2.7 203.0.113.9 1 1"),
            line("tcp4 192.0.2.7 203.0.113.9 1 1"),
            line("TCP4 192.0.2.7.1 203.0.113.9 1 1"),
            line(&format!("UNKNOWN {}", "x".repeat(100))),
            b"PROXY TCP4 192.0.2.7 203.0.113.9 1 1\n\n\n\n\n".to_vec(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[&[0; 12][..], &[1, 0, 5, 0]].concat()),
            v2(0x21, 0x11, &[&[0; 12][..], &[1, 0]].concat()),
            v2(0x20, 0x00, &[0; V2_BYTES + 1]),
        ] {
            assert!(judge(&bytes, ProxyProtocol::Any).0.is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_header_at_its_limit_is_read_and_a_longer_one_is_not() {
        let line = |bytes: usize| {
            let around = "PROXY UNKNOWN \r\n".len();
            format!("PROXY UNKNOWN {}\r\n", "x".repeat(bytes - around)).into_bytes()
        };
        for (header, is_read) in [
            (line(V1_BYTES), true),
            (line(V1_BYTES + 1), false),
            (v2(0x20, 0x00, &[0; V2_BYTES]), true),
            (v2(0x20, 0x00, &[0; V2_BYTES + 1]), false),
        ] {
            assert_eq!(judge(&header, ProxyProtocol::Any).0.is_ok(), is_read, "{} bytes", header.len());
        }
    }

    #[test]
    fn only_the_version_that_is_set_is_taken() {
        let (one, two) = (b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, &[]));
        for (allowed, first, second) in
            [(ProxyProtocol::V1, true, false), (ProxyProtocol::V2, false, true), (ProxyProtocol::Any, true, true)]
        {
            assert_eq!(judge(&one, allowed).0.is_ok(), first, "{allowed:?}");
            assert_eq!(judge(&two, allowed).0.is_ok(), second, "{allowed:?}");
        }
    }
}
