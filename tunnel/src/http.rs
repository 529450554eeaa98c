//! Between HTTP's header maps and the session's header lines, by RFC 9110.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use relay_proto::{HeaderBlock, names};
use thiserror::Error;

/// A header line from the tunnel that is not valid in HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a header line is not valid in HTTP")]
pub struct InvalidHeader;

/// What the lengths before a line's name and value take, mostly.
const LENGTHS_BYTES: usize = 3;

/// Which headers of a map concern one hop only: the usual ones and those that `Connection` names. `Host` and
/// `Content-Length` never do, whatever `Connection` says. `Trailer` does where a length leaves no room for any.
pub fn is_of_one_hop(headers: &HeaderMap) -> impl Fn(&HeaderName) -> bool + use<> {
    one_hop(named_by_connection(headers), headers.contains_key(header::CONTENT_LENGTH))
}

/// The headers that `Connection` names and that may concern one hop only.
#[must_use]
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    names_of(connection_options(headers))
}

/// As [`is_of_one_hop`], of lines.
pub fn is_line_of_one_hop(lines: &HeaderBlock) -> impl Fn(&HeaderName) -> bool + use<> {
    let (mut named, mut has_length) = (Vec::new(), false);
    for (name, value) in lines.iter() {
        match name {
            b"connection" => named.extend(names_of(options_of(value))),
            b"content-length" => has_length = true,
            _ => {}
        }
    }
    one_hop(named, has_length)
}

/// As [`is_of_one_hop`], where it is known what `Connection` names and whether there is a `Content-Length`.
pub fn one_hop(named: Vec<HeaderName>, has_length: bool) -> impl Fn(&HeaderName) -> bool {
    move |name| {
        let named = named.contains(name) || (has_length && *name == header::TRAILER);
        named || names::is_of_one_hop(name.as_str().as_bytes())
    }
}

fn names_of<'a>(options: impl Iterator<Item = &'a [u8]>) -> Vec<HeaderName> {
    options
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect()
}

/// Takes out every header that [concerns one hop only](is_of_one_hop).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let one_hop = is_of_one_hop(headers);
    let names: Vec<HeaderName> = headers.keys().filter(|name| one_hop(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// What `Content-Length` says: in one line, or in several that agree. A list in one line is nothing that every reader
/// takes for a length.
///
/// # Errors
/// [`InvalidHeader`] if the lines say different lengths, or something that is none.
pub fn one_length(headers: &HeaderMap) -> Result<Option<u64>, InvalidHeader> {
    let mut said = None;
    for line in headers.get_all(header::CONTENT_LENGTH) {
        let length = number(line.as_bytes()).ok_or(InvalidHeader)?;
        if said.is_some_and(|said| said != length) {
            return Err(InvalidHeader);
        }
        said = Some(length);
    }
    Ok(said)
}

fn number(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let more = |number: u64, byte| number.checked_mul(10)?.checked_add(digit(byte)?);
    if digits.is_empty() { None } else { digits.iter().try_fold(0, more) }
}

/// What `Connection` names, as it is written there.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::CONNECTION).into_iter().flat_map(|value| options_of(value.as_bytes()))
}

fn options_of(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether the sender of a request takes trailers with its answer. Over HTTP/1.1 `TE` counts only if `Connection`
/// names it, as it must (RFC 9110, section 10.1.4).
#[must_use]
pub fn takes_trailers(version: Version, headers: &HeaderMap) -> bool {
    let lists = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    };
    let named = || connection_options(headers).any(|name| name.eq_ignore_ascii_case(b"te"));
    headers.get_all(header::TE).iter().any(lists) && (version == Version::HTTP_2 || named())
}

/// The lines of a header map: each name's values in their order.
#[must_use]
pub fn header_lines(headers: &HeaderMap) -> HeaderBlock {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + LENGTHS_BYTES).sum();
    let mut lines = HeaderBlock::builder(bytes);
    headers.iter().for_each(|(name, value)| lines.push(name, value));
    lines.build()
}

/// The header map of some lines; values are shared, not copied.
///
/// # Errors
/// [`InvalidHeader`] if a name or value is not valid in HTTP.
pub fn header_map(lines: &HeaderBlock) -> Result<HeaderMap, InvalidHeader> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines.iter() {
        let name = HeaderName::from_bytes(name).map_err(|_| InvalidHeader)?;
        let value = HeaderValue::from_maybe_shared(lines.share(value)).map_err(|_| InvalidHeader)?;
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
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("x-tag", "one"),
            ("host", "hook.test"),
            ("content-length", "5"),
            ("x-tag", "two"),
        ];
        let mut headers = header_map(&lines.into_iter().collect()).expect("valid");
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        left.sort_unstable();
        assert_eq!(left, [("content-length", "5"), ("host", "hook.test"), ("x-tag", "one"), ("x-tag", "two")]);
        let tags: Vec<_> = headers.get_all("x-tag").iter().collect();
        assert_eq!(tags, ["one", "two"]);
    }

    #[test]
    fn trailers_are_taken_where_te_is_meant_for_this_hop() {
        let takes = |version, lines: &[(&'static str, &'static str)]| {
            takes_trailers(version, &header_map(&lines.iter().copied().collect()).expect("valid"))
        };
        assert!(takes(Version::HTTP_11, &[("connection", "close, Te"), ("te", "gzip;q=0.5, Trailers")]));
        assert!(!takes(Version::HTTP_11, &[("te", "trailers")]));
        assert!(!takes(Version::HTTP_11, &[("connection", "te"), ("te", "gzip")]));
        assert!(takes(Version::HTTP_2, &[("te", "trailers")]));
    }

    #[test]
    fn a_length_is_one_number_however_often_it_is_said() {
        let length = |lines: &[&str]| {
            let lines = lines.iter().map(|line| ("content-length", (*line).to_owned()));
            one_length(&header_map(&lines.collect()).expect("valid")).map_err(|_| ())
        };
        assert_eq!((length(&[]), length(&["5"]), length(&["5", "5"])), (Ok(None), Ok(Some(5)), Ok(Some(5))));
        for wrong in
            [&["5", "6"][..], &["5, 5"], &["+5"], &["-5"], &[""], &["5 5"], &["0x5"], &["18446744073709551616"]]
        {
            assert_eq!(length(wrong), Err(()), "{wrong:?}");
        }
    }

    #[test]
    fn raw_bytes_of_a_value_survive_both_ways() {
        let lines: HeaderBlock = [("x-raw", &b"\xff\xfe caf\xc3\xa9"[..]), ("x-empty", b"")].into_iter().collect();
        assert_eq!(header_lines(&header_map(&lines).expect("valid")), lines);
    }
}
