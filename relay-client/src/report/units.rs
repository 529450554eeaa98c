//! Numbers as people read them.

use std::{fmt::Write as _, time::Duration};

use bytesize::ByteSize;

/// Room for a short number with its unit.
const UNIT_BYTES: usize = 24;

/// A duration in the unit that suits it: `850 µs`, `12 ms`, `1.2 s`, `3 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let (micros, millis, seconds) = (duration.as_micros(), duration.as_millis(), duration.as_secs());
    if micros < 1_000 {
        with_unit(micros as u64, " µs")
    } else if millis < 1_000 {
        with_unit(millis as u64, " ms")
    } else if seconds < 60 {
        format!("{seconds}.{} s", duration.subsec_millis() / 100)
    } else if seconds < 3600 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {} min", seconds / 3600, seconds % 3600 / 60)
    }
}

/// A number of bytes with a decimal unit: `15 B`, `2.1 kB`.
pub(crate) fn bytes(count: u64) -> String {
    // Most bodies are short.
    match count {
        0..1000 => return with_unit(count, " B"),
        1000..999_950 => {
            let tenths = (count + 50) / 100;
            let mut text = with_unit(tenths / 10, ".");
            text.push(char::from(b'0' + (tenths % 10) as u8));
            text.push_str(" kB");
            return text;
        }
        _ => {}
    }
    ByteSize::b(count).display().si().to_string()
}

/// Each line of an exchange has three of these.
fn with_unit(count: u64, unit: &str) -> String {
    let mut text = String::with_capacity(UNIT_BYTES);
    let _ = write!(text, "{count}{unit}"); // Writing to a string does not fail.
    text
}
