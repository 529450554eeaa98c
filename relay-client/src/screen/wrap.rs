//! Text in lines of a width, broken at spaces. Pure.

use super::look::columns;

pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        let gap = usize::from(!line.is_empty());
        if !line.is_empty() && columns(&line) + gap + columns(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// A text that ends with `…` where it is longer than so many columns.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for char in text.chars() {
        if columns(&short) + columns(char.encode_utf8(&mut [0; 4])) + 1 > width {
            break;
        }
        short.push(char);
    }
    short.push('…');
    short
}
