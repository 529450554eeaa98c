//! Numbers as people read them.

use std::{fmt::Write as _, time::Duration};

use bytesize::ByteSize;

/// Room for a short number with its unit.
const UNIT_BYTES: usize = 24;

/// A duration in the unit that suits it: `850 µs`, `12 ms`, `1.2 s`, `3 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let mut text = String::with_capacity(UNIT_BYTES);
    push_duration(&mut text, duration);
    text
}

/// A number of bytes with a decimal unit: `15 B`, `2.1 kB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut text = String::with_capacity(UNIT_BYTES);
    push_bytes(&mut text, count);
    text
}

/// As [`duration`], at the end of a text.
pub(super) fn push_duration(text: &mut String, duration: Duration) {
    let (micros, millis, seconds) = (duration.as_micros(), duration.as_millis(), duration.as_secs());
    // Writing to a string does not fail.
    let _ = if micros < 1_000 {
        push_number(text, micros as u64);
        text.write_str(" µs")
    } else if millis < 1_000 {
        push_number(text, millis as u64);
        text.write_str(" ms")
    } else if seconds < 60 {
        write!(text, "{seconds}.{} s", duration.subsec_millis() / 100)
    } else if seconds < 3600 {
        write!(text, "{} min {} s", seconds / 60, seconds % 60)
    } else {
        write!(text, "{} h {} min", seconds / 3600, seconds % 3600 / 60)
    };
}

/// As [`bytes`], at the end of a text.
pub(super) fn push_bytes(text: &mut String, count: u64) {
    // Most bodies are short.
    match count {
        0..1000 => {
            push_number(text, count);
            text.push_str(" B");
        }
        1000..999_950 => {
            let tenths = (count + 50) / 100;
            push_number(text, tenths / 10);
            text.push('.');
            push_number(text, tenths % 10);
            text.push_str(" kB");
        }
        _ => _ = write!(text, "{}", ByteSize::b(count).display().si()), // Writing to a string does not fail.
    }
}

/// Digit by digit: each line of an exchange has four of these, and a format takes ten times as long.
pub(super) fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}
