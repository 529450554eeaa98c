//! A body in three forms: pretty, raw, hex. Pure.
//!
//! Pretty is JSON with line ends and indents, whatever its order and numbers, or text as it is. What is longer than
//! [`MAX_LINES`] lines says so in its last one. Nothing is escaped here: whatever draws does that.

use serde::de::IgnoredAny;

/// Lines of a body that are shown.
const MAX_LINES: usize = 20_000;
/// Bytes of a line of the hex form.
const HEX_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    #[default]
    Pretty,
    Raw,
    Hex,
}

impl Form {
    pub(super) const ALL: [(Self, &'static str); 3] =
        [(Self::Pretty, "pretty"), (Self::Raw, "raw"), (Self::Hex, "hex")];

    pub(super) fn next(self) -> Self {
        match self {
            Self::Pretty => Self::Raw,
            Self::Raw => Self::Hex,
            Self::Hex => Self::Pretty,
        }
    }
}

/// The lines of a body in a form.
pub(super) fn lines(bytes: &[u8], form: Form) -> Vec<String> {
    let mut lines = match (form, std::str::from_utf8(bytes)) {
        (Form::Hex, _) | (_, Err(_)) => bytes.chunks(HEX_BYTES).take(MAX_LINES + 1).enumerate().map(hex).collect(),
        (Form::Pretty, Ok(text)) if serde_json::from_str::<IgnoredAny>(text).is_ok() => indented(text),
        (_, Ok(text)) => text.lines().take(MAX_LINES + 1).map(str::to_owned).collect(),
    };
    if lines.len() > MAX_LINES {
        lines.truncate(MAX_LINES);
        lines.push(format!("only the first {MAX_LINES} lines are shown"));
    }
    lines
}

fn hex((at, bytes): (usize, &[u8])) -> String {
    let mut line = format!("{:08x} ", at * HEX_BYTES);
    for at in 0..HEX_BYTES {
        match bytes.get(at) {
            Some(byte) => line.push_str(&format!(" {byte:02x}")),
            None => line.push_str("   "),
        }
    }
    line.push_str("  ");
    line.extend(bytes.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }));
    line
}

/// JSON with one value a line. `text` is JSON.
fn indented(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    let (mut depth, mut within, mut escape) = (0_usize, false, false);
    let mut chars = text.chars().filter(|char| char != &'\r').peekable();
    while let Some(char) = chars.next() {
        if lines.len() > MAX_LINES {
            break;
        }
        if within {
            line.push(char);
            (within, escape) = (escape || char != '"', !escape && char == '\\');
            continue;
        }
        match char {
            ' ' | '\t' | '\n' => {}
            '{' | '[' => {
                line.push(char);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    line.push(close);
                } else {
                    depth += 1;
                    lines.push(std::mem::replace(&mut line, indent(depth)));
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                lines.push(std::mem::replace(&mut line, indent(depth)));
                line.push(char);
            }
            ',' => {
                line.push(char);
                lines.push(std::mem::replace(&mut line, indent(depth)));
            }
            ':' => line.push_str(": "),
            _ => {
                within = char == '"';
                line.push(char);
            }
        }
    }
    lines.push(line);
    lines
}

/// Deep ones stay within sight.
fn indent(depth: usize) -> String {
    "  ".repeat(depth.min(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_and_its_numbers() {
        let text = r#"{"z":1.50,"a":{"b":[],"c":[1,{"d":"},\"x"}]}, "e" : null}"#;
        let shown = lines(text.as_bytes(), Form::Pretty);
        let wanted = [
            "{",
            r#"  "z": 1.50,"#,
            r#"  "a": {"#,
            r#"    "b": [],"#,
            r#"    "c": ["#,
            "      1,",
            "      {",
            r#"        "d": "},\"x""#,
            "      }",
            "    ]",
            "  },",
            r#"  "e": null"#,
            "}",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(lines(text.as_bytes(), Form::Raw), [text]);
    }

    #[test]
    fn what_is_no_text_is_hex_and_long_ones_end() {
        let shown = lines(&[0, 0xff, b'A'], Form::Pretty);
        assert!(shown[0].starts_with("00000000  00 ff 41 ") && shown[0].ends_with("  ..A"), "{shown:?}");
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert!(lines(deep.as_bytes(), Form::Pretty).len() > 150);
        let long = lines("x\n".repeat(30_000).as_bytes(), Form::Raw);
        assert_eq!((long.len(), long.last().unwrap().starts_with("only")), (MAX_LINES + 1, true));
    }
}
