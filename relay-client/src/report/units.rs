//! Numbers and foreign text as people read them.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use bytesize::ByteSize;

/// A duration in the unit that suits it: `850 µs`, `12 ms`, `1.2 s`, `3 min 5 s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let (micros, millis, seconds) = (duration.as_micros(), duration.as_millis(), duration.as_secs());
    if micros < 1_000 {
        format!("{micros} µs")
    } else if millis < 1_000 {
        format!("{millis} ms")
    } else if seconds < 60 {
        format!("{seconds}.{} s", duration.subsec_millis() / 100)
    } else if seconds < 3600 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {} min", seconds / 3600, seconds % 3600 / 60)
    }
}

/// A number of bytes with a decimal unit: `15 B`, `2.1 kB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    ByteSize::b(count).display().si().to_string()
}

/// Foreign text without anything that could move the cursor, change colours, or reverse the line.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_dangerous(char) {
            let _ = write!(safe, "{}", char.escape_default());
        } else {
            safe.push(char);
        }
    }
    Cow::Owned(safe)
}

/// Control characters, line separators, and marks that change the direction of text.
fn is_dangerous(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
