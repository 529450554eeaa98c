//! Times and durations as the view shows them: three digits and a unit. Pure.

use jiff::{Timestamp, tz::TimeZone};

/// `600 µs`, `3.1 ms`, `27 ms`, `2.61 s`, `12.3 s`, `4 min`, `3 h`.
pub(super) fn took(us: u64) -> String {
    let (ms, seconds) = (us as f64 / 1e3, us as f64 / 1e6);
    match us {
        ..1_000 => format!("{us} µs"),
        1_000..9_950 => format!("{ms:.1} ms"),
        9_950..999_500 => format!("{} ms", (us + 500) / 1000),
        999_500..9_995_000 => format!("{seconds:.2} s"),
        9_995_000..59_950_000 => format!("{seconds:.1} s"),
        59_950_000..3_600_000_000 => format!("{} min", us / 60_000_000),
        _ => format!("{} h", us / 3_600_000_000),
    }
}

/// A number and its unit, in tenths of milliseconds as long as that says something.
pub(super) fn fine(us: u64) -> (String, &'static str) {
    let (ms, seconds) = (us as f64 / 1e3, us as f64 / 1e6);
    match us {
        0 => ("0".to_owned(), "ms"),
        1..99_950 => (format!("{ms:.1}"), "ms"),
        99_950..999_500 => (format!("{ms:.0}"), "ms"),
        999_500..9_995_000 => (format!("{seconds:.2}"), "s"),
        9_995_000..99_950_000 => (format!("{seconds:.1}"), "s"),
        _ => (format!("{}", us / 60_000_000), "min"),
    }
}

/// A wait in whole units: `5 s`, `2 min`.
pub(super) fn about(us: u64) -> String {
    match us {
        ..1_000_000 => took(us),
        1_000_000..60_000_000 => format!("{} s", (us + 500_000) / 1_000_000),
        _ => took(us),
    }
}

/// `1,204`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The local time of day of an RFC 3339 time.
pub(super) fn clock(time: &str, zone: &TimeZone) -> String {
    time.parse::<Timestamp>().map_or_else(|_| "-".to_owned(), |time| clock_of(time, zone))
}

pub(super) fn clock_of(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let shown: Vec<_> =
            [600, 3_100, 9_999, 27_400, 999_700, 2_610_000, 12_340_000, 250_000_000, 7_200_000_000].map(took).into();
        assert_eq!(shown, ["600 µs", "3.1 ms", "10 ms", "27 ms", "1.00 s", "2.61 s", "12.3 s", "4 min", "2 h"]);
        assert_eq!([1, 999, 1_000, 1_234_567].map(count), ["1", "999", "1,000", "1,234,567"]);
        assert_eq!(fine(30_500), ("30.5".to_owned(), "ms"));
        assert_eq!(about(5_000_100), "5 s");
    }
}
