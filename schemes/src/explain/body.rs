//! Mistakes with the body: line ends, marks, and parsing and writing again.
//!
//! JSON is rewritten as text here, not through a document: members keep their order and numbers
//! their digits, as they do in most languages' encoders.

use super::{BodyChange, Finding, Trial};
use crate::{Request, form};

/// Bodies above this are not rewritten, in bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// What form encoders leave alone.
const FORM: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');

const MARK: &[u8] = b"\xef\xbb\xbf";

/// Another body for which the signature is right.
pub(super) fn changed(it: &mut Trial<'_>) -> Option<Finding> {
    if !it.scheme.protects_body() || it.request.body.len() > MAX_BODY {
        return None;
    }
    let request = *it.request;
    let body = request.body;
    let mut try_one = |other: Option<Vec<u8>>, change: BodyChange| {
        let other = other.filter(|other| other != body)?;
        it.passes_as(&Request { body: &other, ..request }).then_some(Finding::Body(change))
    };
    let stripped = body.strip_suffix(b"\n").map(|body| body.strip_suffix(b"\r").unwrap_or(body));
    let plain: [(Option<Vec<u8>>, BodyChange); 7] = [
        (stripped.map(<[u8]>::to_vec), BodyChange::NewlineAdded),
        (Some([body, b"\n"].concat()), BodyChange::NewlineRemoved),
        (Some([body, b"\r\n"].concat()), BodyChange::NewlineRemoved),
        (Some(line_ends(body, true)), BodyChange::CrlfToLf),
        (Some(line_ends(body, false)), BodyChange::LfToCrlf),
        (Some([MARK, body].concat()), BodyChange::ByteOrderMark),
        (body.strip_prefix(MARK).map(<[u8]>::to_vec), BodyChange::ByteOrderMark),
    ];
    for (other, change) in plain {
        if let Some(found) = try_one(other, change) {
            return Some(found);
        }
    }
    if request.is_urlencoded() {
        let escaped = form_again(body, true);
        let value = form::pairs(body).next().map(|(_, value)| value.into_owned());
        let others = [
            (Some(escaped), BodyChange::FormRewritten),
            (Some(form_again(body, false)), BodyChange::FormRewritten),
            (value, BodyChange::FormField),
        ];
        for (other, change) in others {
            if let Some(found) = try_one(other, change) {
                return Some(found);
            }
        }
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
        return None;
    }
    for style in [Style::Compact, Style::Spaced, Style::Indented(2), Style::Indented(4)] {
        for strings in [Strings::AsTheyAre, Strings::Raw, Strings::Ascii, Strings::Slashes, Strings::AsciiSlashes] {
            let other = write_again(body, style, strings);
            if let Some(found) = try_one(Some(other), BodyChange::JsonRewritten) {
                return Some(found);
            }
        }
    }
    None
}

fn line_ends(body: &[u8], crlf: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 64);
    for (index, byte) in body.iter().enumerate() {
        match byte {
            b'\r' if body.get(index + 1) == Some(&b'\n') => {}
            b'\n' if crlf => out.extend_from_slice(b"\r\n"),
            byte => out.push(*byte),
        }
    }
    out
}

fn form_again(body: &[u8], plus: bool) -> Vec<u8> {
    let encode = |text: &[u8]| {
        let text = percent_encoding::percent_encode(text, FORM).to_string();
        if plus { text.replace("%20", "+") } else { text }
    };
    let pairs = form::pairs(body).map(|(name, value)| format!("{}={}", encode(&name), encode(&value)));
    pairs.collect::<Vec<_>>().join("&").into_bytes()
}

#[derive(Clone, Copy)]
enum Style {
    Compact,
    /// As Python writes it: `{"a": 1, "b": 2}`.
    Spaced,
    Indented(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Strings {
    AsTheyAre,
    /// No escapes but those that must be.
    Raw,
    /// `\uXXXX` for everything that is not ASCII.
    Ascii,
    /// As raw, with `\/`.
    Slashes,
    /// As ASCII, with `\/`.
    AsciiSlashes,
}

/// Valid JSON written again in another style.
fn write_again(body: &[u8], style: Style, strings: Strings) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(body.len() + body.len() / 4);
    let mut depth = 0_usize;
    let mut rest = body;
    let line = |out: &mut Vec<u8>, depth: usize| {
        if let Style::Indented(width) = style {
            out.push(b'\n');
            out.resize(out.len() + width * depth, b' ');
        }
    };
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                let end = string_end(rest);
                string(&rest[..end], strings, &mut out);
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            b'{' | b'[' => {
                out.push(*byte);
                let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
                if matches!(next, Some(b'}' | b']')) {
                    // Empty ones stay on their line.
                    let at = rest.iter().position(|byte| matches!(byte, b'}' | b']')).unwrap_or_default();
                    out.push(rest[at]);
                    rest = &rest[at + 1..];
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(*byte);
            }
            b',' => {
                out.push(b',');
                match style {
                    Style::Compact => {}
                    Style::Spaced => out.push(b' '),
                    Style::Indented(_) => line(&mut out, depth),
                }
            }
            b':' => {
                out.push(b':');
                if !matches!(style, Style::Compact) {
                    out.push(b' ');
                }
            }
            other => out.push(*other),
        }
    }
    out
}

/// Where a string ends whose opening quote was read.
fn string_end(text: &[u8]) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

fn string(raw: &[u8], strings: Strings, out: &mut Vec<u8>) {
    let quoted = [b"\"", raw, b"\""].concat();
    let decoded = serde_json::from_slice::<String>(&quoted).ok().filter(|_| strings != Strings::AsTheyAre);
    let Some(decoded) = decoded else {
        out.extend_from_slice(&quoted);
        return;
    };
    let plain = serde_json::Value::String(decoded).to_string();
    let ascii = matches!(strings, Strings::Ascii | Strings::AsciiSlashes);
    let slashes = matches!(strings, Strings::Slashes | Strings::AsciiSlashes);
    for letter in plain.chars() {
        match letter {
            '/' if slashes => out.extend_from_slice(b"\\/"),
            letter if ascii && !letter.is_ascii() => {
                let mut units = [0; 2];
                for unit in letter.encode_utf16(&mut units) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
            letter => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_again_in_the_usual_styles() {
        let body = br#"{ "a" : [1.0,{}, [] ] ,"b":"x\/\u00e9\n" }"#;
        let as_text = |style, strings| String::from_utf8(write_again(body, style, strings)).expect("text");
        assert_eq!(as_text(Style::Compact, Strings::AsTheyAre), r#"{"a":[1.0,{},[]],"b":"x\/\u00e9\n"}"#);
        assert_eq!(as_text(Style::Spaced, Strings::Raw), r#"{"a": [1.0, {}, []], "b": "x/é\n"}"#);
        assert_eq!(as_text(Style::Compact, Strings::AsciiSlashes), r#"{"a":[1.0,{},[]],"b":"x\/\u00e9\n"}"#);
        let indented = as_text(Style::Indented(2), Strings::Raw);
        assert_eq!(indented, "{\n  \"a\": [\n    1.0,\n    {},\n    []\n  ],\n  \"b\": \"x/é\\n\"\n}");
    }
}
