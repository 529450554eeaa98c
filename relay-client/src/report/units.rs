//! Numbers as people read them.

use std::time::Duration;

use bytesize::ByteSize;

/// A duration in the unit that suits it: `850 µs`, `12 ms`, `1.2 s`, `3 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
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
pub(crate) fn bytes(count: u64) -> String {
    ByteSize::b(count).display().si().to_string()
}
