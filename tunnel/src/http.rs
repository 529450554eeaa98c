//! Between HTTP's header maps and the session's header lines, by RFC 9110.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use relay_proto::Headers;
use thiserror::Error;

/// A header line from the tunnel that is not valid in HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a header line is not valid in HTTP")]
pub struct InvalidHeader;

/// Headers that concern one hop only (RFC 9110, section 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Takes out every header that concerns one hop only: the usual ones, `TE` but for `trailers`, and
/// those that `Connection` names. `Host` and `Content-Length` stay whatever `Connection` says.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH && *name != header::TE)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    let trailers = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    };
    let wants_trailers = headers.get_all(header::TE).iter().any(trailers);
    headers.remove(header::TE);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// The lines of a header map: each name's values in their order.
#[must_use]
pub fn header_lines(headers: &HeaderMap) -> Headers {
    let mut lines = Headers::with_capacity(headers.len());
    for (name, value) in headers {
        lines.push(bytes::Bytes::copy_from_slice(name.as_str().as_bytes()), bytes_of(value));
    }
    lines
}

fn bytes_of(value: &HeaderValue) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(value.as_bytes())
}

/// The header map of some lines; values are shared, not copied.
///
/// # Errors
/// [`InvalidHeader`] if a name or value is not valid in HTTP.
pub fn header_map(lines: Headers) -> Result<HeaderMap, InvalidHeader> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        let name = HeaderName::from_bytes(&name).map_err(|_| InvalidHeader)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| InvalidHeader)?;
        headers.try_append(name, value).map_err(|_| InvalidHeader)?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hops_headers_are_taken_out_and_the_others_keep_their_order() {
        let lines = [
            ("connection", "close, X-Mine , host, content-length"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, Trailers"),
            ("upgrade", "h2c"),
            ("x-tag", "one"),
            ("host", "hook.test"),
            ("content-length", "5"),
            ("x-tag", "two"),
        ];
        let mut headers = header_map(lines.into_iter().collect()).expect("valid");
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [("content-length", "5"), ("host", "hook.test"), ("te", "trailers"), ("x-tag", "one"), ("x-tag", "two")]
        );
        let tags: Vec<_> = headers.get_all("x-tag").iter().collect();
        assert_eq!(tags, ["one", "two"]);
    }

    #[test]
    fn raw_bytes_of_a_value_survive_both_ways() {
        let lines: Headers = [("x-raw", &b"\xff\xfe caf\xc3\xa9"[..]), ("x-empty", b"")].into_iter().collect();
        assert_eq!(header_lines(&header_map(lines.clone()).expect("valid")), lines);
    }
}
