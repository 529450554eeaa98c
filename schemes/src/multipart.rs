//! Multipart forms (RFC 7578 in the syntax of RFC 2046), read strictly.
//!
//! What reads the same body behind this reads it in its own way: it may take bare line feeds for line ends, skip text
//! before the first part, or decode a name. So whatever two readers could cut or name differently is malformed here,
//! even where the RFC lets it pass: senders of webhooks write none of it.
//!
//! Invariants: work is in proportion to the body, memory to the number of parts, which is bounded; nothing is decoded, so
//! that a value is the bytes that the signature was made of.

use memchr::memmem;

use crate::{
    form::{self, MAX_PARAMETERS},
    locate::Unreadable,
};

/// Longest boundary (RFC 2046, section 5.1.1), in bytes.
const MAX_BOUNDARY: usize = 70;

/// Longest lines above a part's content, all together, in bytes.
const MAX_HEADER: usize = 8 * 1024;

const MAX_ATTRIBUTES: usize = 16;

/// The body, its type or one of its parts is not what every reader reads alike.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<Malformed> for Unreadable {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

type Attribute<'a> = (&'a [u8], &'a [u8]);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FormPart<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) content: &'a [u8],
    /// Whether it is a field whose content is its value: no file, and not encoded once more.
    pub(crate) is_plain: bool,
}

/// The boundary that a `Content-Type` names, `None` if it is not that of a multipart form.
pub(crate) fn boundary(content_type: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let (kind, attributes) = cut(content_type, b';');
    if !kind.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
        return Ok(None);
    }
    let attributes = read_attributes(attributes)?;
    if attributes.iter().any(|(name, _)| name.contains(&b'*')) {
        return Err(Malformed);
    }
    let found = attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"boundary")).ok_or(Malformed)?;
    let drawn = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    let good = (1..=MAX_BOUNDARY).contains(&found.1.len()) && found.1.iter().all(drawn) && !found.1.ends_with(b" ");
    if good { Ok(Some(found.1)) } else { Err(Malformed) }
}

pub(crate) fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Result<Vec<FormPart<'a>>, Malformed> {
    let delimiter = [b"--", boundary].concat();
    let mut parts = Vec::new();
    let mut open = None;
    // Wherever these bytes stand, some reader may take them for a delimiter.
    for at in memmem::find_iter(body, &delimiter) {
        match open {
            None if at == 0 => {}
            None => return Err(Malformed),
            Some(from) => {
                let part = body[..at].strip_suffix(b"\r\n").and_then(|before| before.get(from..)).ok_or(Malformed)?;
                if parts.len() == MAX_PARAMETERS {
                    return Err(Malformed);
                }
                parts.push(read_part(part)?);
            }
        }
        let rest = &body[at + delimiter.len()..];
        match (rest.starts_with(b"\r\n"), rest) {
            (true, _) => open = Some(at + delimiter.len() + 2),
            (false, b"--" | b"--\r\n") => return Ok(parts),
            (false, _) => return Err(Malformed),
        }
    }
    Err(Malformed)
}

pub(crate) fn single<'a>(body: &'a [u8], boundary: &[u8], name: &[u8]) -> Result<Option<&'a [u8]>, Unreadable> {
    let mut found = None;
    for part in parts(body, boundary)? {
        let same = part.name == name;
        if form::reads_as(part.name, name) && (!same || found.is_some()) {
            return Err(Unreadable::Doubled);
        }
        if same {
            if !part.is_plain {
                return Err(Unreadable::Malformed);
            }
            found = Some(part.content);
        }
    }
    Ok(found)
}

/// The body with another value of a field, which is added if it is not there.
pub(crate) fn with(body: &[u8], boundary: &[u8], name: &str, value: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let delimiter = [b"--", boundary].concat();
    let mut out = Vec::with_capacity(body.len() + value.len() + 256);
    let close = memmem::rfind(body, &[&delimiter[..], b"--"].concat()).ok_or(Unreadable::Malformed)?;
    match single(body, boundary, name.as_bytes())? {
        Some(old) => {
            let from = old.as_ptr().addr() - body.as_ptr().addr();
            out.extend_from_slice(&body[..from]);
            out.extend_from_slice(value);
            out.extend_from_slice(&body[from + old.len()..]);
        }
        None => {
            out.extend_from_slice(&body[..close]);
            out.extend_from_slice(&delimiter);
            out.extend_from_slice(format!("\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&body[close..]);
        }
    }
    Ok(out)
}

fn read_part(text: &[u8]) -> Result<FormPart<'_>, Malformed> {
    let end = memmem::find(text, b"\r\n\r\n").filter(|end| *end <= MAX_HEADER).ok_or(Malformed)?;
    let (mut name, mut is_file, mut coding, mut kinds) = (None, false, None, 0);
    let mut rest = &text[..end];
    while !rest.is_empty() {
        let at = memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        let line = &rest[..at];
        rest = rest.get(at + 2..).unwrap_or_default();
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Malformed);
        }
        let at = line.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
        let (header, value) = (&line[..at], line[at + 1..].trim_ascii());
        if !is_token(header) {
            return Err(Malformed); // A folded line begins with a blank.
        }
        if header.eq_ignore_ascii_case(b"content-disposition") {
            let (kind, attributes) = cut(value, b';');
            if name.is_some() || !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
                return Err(Malformed);
            }
            for (attribute, value) in read_attributes(attributes)? {
                match attribute.to_ascii_lowercase().as_slice() {
                    b"name" => name = Some(value),
                    b"filename" | b"filename*" => is_file = true,
                    _ => return Err(Malformed),
                }
            }
            name = Some(name.filter(|name| is_plain_name(name)).ok_or(Malformed)?);
        } else if header.eq_ignore_ascii_case(b"content-transfer-encoding") {
            if coding.replace(value).is_some() {
                return Err(Malformed);
            }
        } else if header.eq_ignore_ascii_case(b"content-type") {
            kinds += 1;
        }
    }
    let as_it_stands =
        |coding: &[u8]| [&b"7bit"[..], b"8bit", b"binary"].iter().any(|it| coding.eq_ignore_ascii_case(it));
    if kinds > 1 {
        return Err(Malformed);
    }
    Ok(FormPart {
        name: name.ok_or(Malformed)?,
        content: &text[end + 4..],
        is_plain: !is_file && coding.is_none_or(as_it_stands),
    })
}

/// Whether nobody reads another name in it: browsers and others write quotes and line ends as `%22` and `%0A`, which only
/// some decode, and some trim blanks.
fn is_plain_name(name: &[u8]) -> bool {
    let escaped = |at: &[u8]| matches!(at, [b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
    !name.is_empty() && name.trim_ascii() == name && !name.windows(3).any(escaped)
}

/// `; name=value` again and again; a value is a token or stands in quotes.
fn read_attributes(text: &[u8]) -> Result<Vec<Attribute<'_>>, Malformed> {
    let mut found: Vec<Attribute<'_>> = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let at = rest.iter().position(|byte| *byte == b'=').ok_or(Malformed)?;
        let (name, after) = (&rest[..at], &rest[at + 1..]);
        let value = match after.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted.iter().position(|byte| *byte == b'"').ok_or(Malformed)?;
                rest = &quoted[end + 1..];
                // Readers do not agree whether a backslash escapes what follows.
                Some(&quoted[..end]).filter(|value| !value.contains(&b'\\')).ok_or(Malformed)?
            }
            None => {
                let end = after.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(after.len());
                rest = &after[end..];
                Some(&after[..end]).filter(|value| is_token(value)).ok_or(Malformed)?
            }
        };
        let doubled = found.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        if !is_token(name) || doubled || found.len() == MAX_ATTRIBUTES {
            return Err(Malformed);
        }
        found.push((name, value));
        rest = rest.trim_ascii_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(b";").ok_or(Malformed)?.trim_ascii();
        }
    }
    Ok(found)
}

fn cut(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    let found = text.iter().position(|byte| *byte == at);
    found.map_or((text, &[]), |found| (&text[..found], &text[found + 1..]))
}

/// A token of RFC 2045.
fn is_token(text: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
    !text.is_empty() && text.iter().all(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\ncontent-disposition: \
        form-data; name=file; filename=\"n.txt\"\r\nContent-Type: text/plain\r\n\r\n\r\nlines\n\r\n--x--\r\n";

    fn of(text: &str) -> Result<Option<Vec<u8>>, Unreadable> {
        single(text.as_bytes(), b"x", b"a").map(|found| found.map(<[u8]>::to_vec))
    }

    #[test]
    fn fields_and_files_are_read_as_they_stand() {
        let read = parts(FORM, b"x").expect("a form");
        let field = FormPart { name: b"a", content: b"1", is_plain: true };
        let file = FormPart { name: b"file", content: b"\r\nlines\n", is_plain: false };
        assert_eq!(read, [field, file]);
        assert_eq!(single(FORM, b"x", b"a"), Ok(Some(&b"1"[..])));
        assert_eq!(single(FORM, b"x", b"b"), Ok(None));
        assert_eq!(single(FORM, b"x", b"file"), Err(Unreadable::Malformed), "a file is no field");
        assert_eq!(parts(b"--x--", b"x"), Ok(Vec::new()));
        let changed = with(FORM, b"x", "a", b"22").and_then(|body| with(&body, b"x", "b", b"3")).expect("a form");
        let value = |name: &str| single(&changed, b"x", name.as_bytes()).expect("a form").expect("a field");
        assert_eq!((value("a"), value("b")), (&b"22"[..], &b"3"[..]));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_malformed() {
        let good = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--";
        assert_eq!(of(good), Ok(Some(b"1".to_vec())));
        for (from, to) in [
            ("--x\r\nC", "before\r\n--x\r\nC"),
            ("--x\r\nC", "\r\n--x\r\nC"),
            ("--x\r\nC", "--x \r\nC"),
            ("--x\r\nC", "--x\nC"),
            ("\r\n\r\n1", "\n\n1"),
            ("1\r\n--x", "1\n--x"),
            ("1\r\n", "1\n--x\r\nContent-Disposition: form-data; name=a\n\n2\r\n"),
            ("1\r\n", "in --x line\r\n"),
            ("1\r\n", "1\r\n--xy\r\n"),
            ("--x--", "--x-"),
            ("--x--", "--x--after"),
            ("--x--", "--x--\r\n\r\n"),
            ("--x--", "--x--\r\n--x\r\nContent-Disposition: form-data; name=a\r\n\r\n2\r\n--x--"),
            ("--x--", ""),
            ("\r\n\r\n1", "\r\n1"),
            ("Content-Disposition: form-data; name=\"a\"", ""),
            ("form-data", "attachment"),
            ("; name=\"a\"", ""),
            ("name=\"a\"", "name=\"a"),
            ("name=\"a\"", "name=\"a\\\"\""),
            ("name=\"a\"", "name=\"%61\""),
            ("name=\"a\"", "name=\" a\""),
            ("name=\"a\"", "name=\"\""),
            ("name=\"a\"", "name=\"a\"; name=\"b\""),
            ("name=\"a\"", "name*=utf-8''a"),
            ("name=\"a\"", "name=\"a\"; name*=utf-8''b"),
            ("name=\"a\"", "name=\"a\" filename=b"),
            ("name=\"a\"", "name=\"a\"; other=b"),
            ("form-data", "form-data;"),
            ("\r\n\r\n1", "\r\n\tfilename=b\r\n\r\n1"),
            ("\r\n\r\n1", "\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n1"),
            ("\r\n\r\n1", "\r\nContent-Type: a/b\r\nContent-Type: a/b\r\n\r\n1"),
            ("\r\n\r\n1", "\r\nno line\r\n\r\n1"),
            ("\r\n\r\n1", "\r\nX: a\rb\r\n\r\n1"),
            ("\r\n\r\n1", "\r\nContent-Transfer-Encoding: base64\r\n\r\n1"),
            ("; name=\"a\"", "; name=\"a\"; filename=\"a\""),
        ] {
            let changed = good.replacen(from, to, 1);
            assert_eq!(of(&changed), Err(Unreadable::Malformed), "{changed:?}");
        }
        for other in ["a", "a[]", "a[b]"] {
            let second = format!("1\r\n--x\r\nContent-Disposition: form-data; name=\"{other}\"\r\n\r\n2");
            assert_eq!(of(&good.replacen('1', &second, 1)), Err(Unreadable::Doubled), "{other}");
        }
        let part = "--x\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n1\r\n";
        assert!(parts(format!("{}--x--", part.repeat(MAX_PARAMETERS)).as_bytes(), b"x").is_ok());
        assert!(parts(format!("{}--x--", part.repeat(MAX_PARAMETERS + 1)).as_bytes(), b"x").is_err());
        let long = format!("\r\nX: {}\r\n\r\n1", "y".repeat(MAX_HEADER));
        assert_eq!(of(&good.replacen("\r\n\r\n1", &long, 1)), Err(Unreadable::Malformed));
    }

    #[test]
    fn a_boundary_is_named_once_and_by_the_book() {
        let good = |text: &str| boundary(text.as_bytes()).map(|found| found.map(<[u8]>::to_vec));
        assert_eq!(good("multipart/form-data; boundary=x-Y_0"), Ok(Some(b"x-Y_0".to_vec())));
        assert_eq!(good("Multipart/Form-Data ;charset=utf-8 ; Boundary=\"a b\""), Ok(Some(b"a b".to_vec())));
        for other in ["application/json", "", "multipart/mixed; boundary=x", "application/x-www-form-urlencoded"] {
            assert_eq!(good(other), Ok(None), "{other}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(MAX_BOUNDARY + 1));
        for bad in [
            "multipart/form-data",
            "multipart/form-data; boundary",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"a \"",
            "multipart/form-data; boundary=\"a",
            "multipart/form-data; boundary=a/b",
            "multipart/form-data; boundary=\"a\\b\"",
            "multipart/form-data; boundary=\"a\"b",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=a; BOUNDARY=a",
            "multipart/form-data; boundary*=utf-8''a; boundary=b",
            "multipart/form-data; boundary=a, boundary=b",
            "multipart/form-data; boundary=\u{e9}",
            &long,
        ] {
            assert_eq!(good(bad), Err(Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(body in prop::collection::vec(any::<u8>(), 0..300), boundary_text in ".{0,80}") {
            let _ = boundary(format!("multipart/form-data; boundary={boundary_text}").as_bytes());
            let _ = parts(&body, b"x");
        }

        /// Built of what parts are made of, so that some are whole.
        #[test]
        fn pieces_in_any_order_are_a_form_or_malformed(pieces in prop::collection::vec(prop::sample::select(vec![
            "--x", "--x--", "\r\n", "\r\n\r\n", "\n", "--", "1", "Content-Disposition: form-data; name=a", "; filename=b",
        ]), 0..14)) {
            let body = pieces.concat();
            if let Ok(read) = parts(body.as_bytes(), b"x") {
                prop_assert!(body.starts_with("--x") && body.trim_end_matches("\r\n").ends_with("--x--"));
                for part in read {
                    prop_assert!(part.name == b"a" && memmem::find(part.content, b"--x").is_none());
                }
            }
        }

        #[test]
        fn what_was_written_is_read(fields in prop::collection::vec(("[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut body = b"--Boundary9".to_vec();
            for (name, value) in &fields {
                body.extend(format!("\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes());
                body.extend_from_slice(value);
                body.extend_from_slice(b"\r\n--Boundary9");
            }
            body.extend_from_slice(b"--\r\n");
            let read = parts(&body, b"Boundary9").expect("a form");
            let read: Vec<_> = read.iter().map(|part| (part.name.to_vec(), part.content.to_vec())).collect();
            let written: Vec<_> = fields.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            prop_assert_eq!(read, written);
        }
    }
}
