//! The values that both programs' settings have, read and printed: times and sizes.
//!
//! Invariant: what a `show_…` function prints, its reader reads back as the same value.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{SignedDuration, Span, SpanRelativeTo};

/// What is wrong with a value, and what to write instead. Which key it belongs to is for the reader to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub help: String,
}

impl Wrong {
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self::new(message, "")
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "; {}", self.help) }
    }
}

/// `30s`, `1h 30m`, `250ms`. No months or longer, no fractions of a unit that jiff does not know.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let parsed = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let parsed =
        parsed.map_err(|_| Wrong::new(format!("\"{text}\" is not a time"), "write it like \"30s\" or \"1h 30m\""))?;
    Duration::try_from(parsed)
        .map_err(|_| Wrong::new(format!("\"{text}\" is before zero"), "write it like \"30s\" or \"1h 30m\""))
}

pub fn show_duration(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{}s", duration.as_secs()), |signed| format!("{signed:#}"))
}

/// `25MiB`, `64KiB`, `1000B`. In bytes.
pub fn size(text: &str) -> Result<u64, Wrong> {
    let parsed: Result<ByteSize, String> = text.parse();
    parsed
        .map(|size| size.as_u64())
        .map_err(|_| Wrong::new(format!("\"{text}\" is not a size"), "write it like \"25MiB\" or \"64KiB\""))
}

/// A size in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed_in_one_style() {
        for (text, millis) in [("10s", 10_000), ("1h 30m", 5_400_000), ("250ms", 250), ("0s", 0), ("1m 5s", 65_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        for bad in ["", "10", "ten seconds", "10 parsecs", "-5s", "1 month"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed_in_one_style() {
        for (text, bytes) in [("25MiB", 25 << 20), ("64KiB", 64 << 10), ("1GiB", 1 << 30), ("1000B", 1000), ("0B", 0)] {
            assert_eq!(size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size("1.5 KiB"), Ok(1536));
        for bad in ["", "big", "-1", "5 parsecs"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }
}
