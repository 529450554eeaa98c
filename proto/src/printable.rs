//! Text that somebody else wrote, made fit for terminals and logs.
//!
//! Senders, handlers, agents and relays put text of their own into targets, headers, names and messages; it must not
//! move the cursor, change colours, reverse a line or begin a new one where a person reads it. Both programs print
//! through the functions here and through no others. They know nothing of what a text is about.
//!
//! Invariants: what is escaped becomes `\uXXXX`, above U+FFFF a pair of these, as JSON writes it: a line of JSON stays
//! the same value, and every character can still be recognised. What is harmless stays as it is.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

/// One value of a line: no control character, no line end, nothing that is invisible or turns text round.
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, is_steering)
}

/// A whole output, in which line feeds and tabs are the program's own. Values that somebody else wrote are
/// [`escaped`] before they become part of it, or are strings of JSON.
pub fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |char| !matches!(char, '\n' | '\t') && is_steering(char))
}

/// An address as somebody typed it, to be quoted: what stands before an `@` may be a password and is left out.
pub fn without_password(url: &str) -> Cow<'_, str> {
    let Some((secret, rest)) = url.rsplit_once('@') else { return Cow::Borrowed(url) };
    let scheme = secret.find("://").map_or("", |end| &secret[..end + 3]);
    Cow::Owned(format!("{scheme}…@{rest}"))
}

/// Words about what somebody typed, which quote addresses as they came: see [`without_password`].
pub fn without_passwords(text: &str) -> Cow<'_, str> {
    let is_end = |char: char| char.is_whitespace() || matches!(char, '"' | '\'' | '`' | '<' | '>');
    let mut safe = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|at| at + "://".len()) {
        let (before, after) = rest.split_at(start);
        let (address, behind) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        safe.push_str(before);
        match address.rsplit_once('@') {
            Some((_, host)) => safe.extend(["…@", host]),
            None => safe.push_str(address),
        }
        rest = behind;
    }
    if safe.is_empty() {
        return Cow::Borrowed(text);
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// Whether a character steers a terminal or a reader rather than being read: control characters (C0, DEL, C1), the
/// separators of lines and paragraphs, and format characters, which are invisible and may turn text round.
///
/// General categories Cc, Zl, Zp and Cf of Unicode 17 (`DerivedGeneralCategory.txt`), and of plane 14 the whole block
/// of tags and selectors.
pub fn is_steering(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

fn replaced(text: &str, is_dangerous: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Most texts have nothing to look at twice.
    if text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let Some(first) = text.find(&is_dangerous) else { return Cow::Borrowed(text) };
    let mut safe = String::with_capacity(text.len() + 16);
    safe.push_str(&text[..first]);
    for char in text[first..].chars() {
        match char {
            _ if !is_dangerous(char) => safe.push(char),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let _ = write!(safe, "\\u{unit:04x}"); // Writing to a string does not fail.
                }
            }
        }
    }
    Cow::Owned(safe)
}

/// Writes a log's lines, each of which comes in one call: one line stays one line, whatever is in its fields.
///
/// A reader that has gone away is no reason for a program to stop, so nothing here fails.
#[derive(Debug)]
pub struct LogLines<W> {
    inner: W,
    /// Whether colours of the log's own are in the lines.
    colours: bool,
}

impl<W> LogLines<W> {
    /// Writes to `inner`. With `colours`, sequences that only set colours pass; the log escapes them in its fields.
    pub fn new(inner: W, colours: bool) -> Self {
        Self { inner, colours }
    }
}

impl<W: Write> Write for LogLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let mut safe = String::with_capacity(text.len());
        let mut rest = line;
        while let Some(colour) = rest.find("\u{1b}[").filter(|_| self.colours) {
            let (before, sequence) = rest.split_at(colour);
            safe.push_str(&escaped(before));
            let parameters = sequence[2..].bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
            let is_colour = sequence.as_bytes().get(2 + parameters) == Some(&b'm');
            let taken = if is_colour { 2 + parameters + 1 } else { 1 };
            let (taken, after) = sequence.split_at(taken);
            safe.push_str(&if is_colour { Cow::Borrowed(taken) } else { escaped(taken) });
            rest = after;
        }
        safe.push_str(&escaped(rest));
        safe.push_str(end);
        let _ = self.inner.write_all(safe.as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.inner.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_escaped_and_what_is_read_stays() {
        assert!(matches!(escaped("/päth/ключ/鍵?x=1 🎉"), Cow::Borrowed(_)));
        for (char, shown) in [
            ('\0', "\\u0000"),
            ('\u{7}', "\\u0007"),
            ('\n', "\\n"),
            ('\r', "\\r"),
            ('\t', "\\t"),
            ('\u{1b}', "\\u001b"),
            ('\u{7f}', "\\u007f"),
            ('\u{85}', "\\u0085"),
            ('\u{9b}', "\\u009b"),
            ('\u{ad}', "\\u00ad"),
            ('\u{61c}', "\\u061c"),
            ('\u{200b}', "\\u200b"),
            ('\u{200f}', "\\u200f"),
            ('\u{2028}', "\\u2028"),
            ('\u{2029}', "\\u2029"),
            ('\u{202a}', "\\u202a"),
            ('\u{202e}', "\\u202e"),
            ('\u{2066}', "\\u2066"),
            ('\u{2069}', "\\u2069"),
            ('\u{feff}', "\\ufeff"),
            ('\u{e0041}', "\\udb40\\udc41"),
        ] {
            assert_eq!(escaped(&format!("ä{char}z")), format!("ä{shown}z"), "{char:?}");
        }
        assert_eq!(lines("a\tb\nc\r\n\u{9b}2J"), "a\tb\nc\\r\n\\u009b2J");
    }

    #[test]
    fn json_stays_the_same_value() {
        let all: String = ('\0'..='\u{2fff}').chain('\u{fe00}'..='\u{ffff}').chain('\u{e0000}'..='\u{e01ff}').collect();
        let value = serde_json::json!({ "target": all });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
            let safe = lines(&text);
            assert!(!safe.chars().any(|char| char != '\n' && is_steering(char)));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("JSON"), value);
        }
    }

    #[test]
    fn nothing_before_an_at_sign_is_quoted() {
        for (typed, shown) in [
            ("https://hooks.test/a", "https://hooks.test/a"),
            ("https://me:s3cret@hooks.test", "https://…@hooks.test"),
            ("ftp://me:s3@cret@hooks.test/x", "ftp://…@hooks.test/x"),
            ("me:s3cret@hooks.test:80", "…@hooks.test:80"),
            ("https:/me:s3cret@hooks.test", "…@hooks.test"),
        ] {
            assert_eq!(without_password(typed), shown);
        }
    }

    #[test]
    fn words_quote_no_password() {
        for (said, shown) in [
            ("nothing here", "nothing here"),
            ("me@example is no address", "me@example is no address"),
            (
                "store.url: \"postgres://me:s3c@ret@h/db\" is not a store",
                "store.url: \"postgres://…@h/db\" is not a store",
            ),
            ("https://h and ftp://a:b@c, x://", "https://h and ftp://…@c, x://"),
            ("a://b:c@d://e:f@g h@i", "a://…@g h@i"),
        ] {
            assert_eq!(without_passwords(said), shown);
        }
    }

    fn logged(line: &str, colours: bool) -> String {
        let mut out = Vec::new();
        let mut log = LogLines::new(&mut out, colours);
        log.write_all(line.as_bytes()).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_line_of_a_log_stays_one_line_and_keeps_its_own_colours() {
        let line = "\u{1b}[32m INFO\u{1b}[0m target=/a\nERROR forged\u{9b}2J\u{202e}\n";
        assert_eq!(logged(line, false), "\\u001b[32m INFO\\u001b[0m target=/a\\nERROR forged\\u009b2J\\u202e\n");
        assert_eq!(logged(line, true), "\u{1b}[32m INFO\u{1b}[0m target=/a\\nERROR forged\\u009b2J\\u202e\n");
        for other in ["\u{1b}[2J", "\u{1b}[1;1H", "\u{1b}]0;x", "\u{1b}", "\u{1b}["] {
            assert!(!logged(other, true).contains('\u{1b}'), "{other:?}");
        }
    }

    #[test]
    fn a_log_without_a_reader_is_no_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut log = LogLines::new(Closed, false);
        assert!(log.write_all(b"x\n").is_ok() && log.flush().is_ok());
    }
}
