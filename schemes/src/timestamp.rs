//! Timestamps: where they stand, in which format, and how old or new they may be.
//!
//! Invariant: exactly one spelling per format is read, because many providers put nothing between the
//! timestamp and the body, where a byte could otherwise move across.

use jiff::fmt::rfc2822;
use serde::Deserialize;

use crate::{json::Pointer, locate::Spot, request::Refusal};

/// Longest timestamp that is read, in bytes.
const MAX_LENGTH: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    UnixS,
    UnixMs,
    Rfc3339,
    HttpDate,
}

#[derive(Clone, Debug)]
pub(crate) struct Timestamp {
    pub(crate) place: TimestampPlace,
    pub(crate) format: Format,
    pub(crate) past_s: i64,
    pub(crate) future_s: i64,
}

#[derive(Clone, Debug)]
pub(crate) enum TimestampPlace {
    At(Spot),
    /// A JSON member that has to be a number.
    Number(Pointer),
    /// An item of the signature list.
    Field(String),
}

impl TimestampPlace {
    pub(crate) fn in_body(&self) -> bool {
        match self {
            Self::At(spot) => spot.in_body(),
            Self::Number(_) => true,
            Self::Field(_) => false,
        }
    }
}

impl Format {
    /// The instant in whole Unix seconds, rounded towards the past.
    pub(crate) fn parse(self, text: &[u8]) -> Option<i64> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_LENGTH)?;
        match self {
            Self::UnixS => digits(text),
            Self::UnixMs => digits(text).map(|ms| ms.div_euclid(1000)),
            Self::Rfc3339 if is_rfc3339(text.as_bytes()) => {
                text.parse().ok().map(|at: jiff::Timestamp| at.as_nanosecond().div_euclid(1_000_000_000) as i64)
            }
            Self::Rfc3339 => None,
            Self::HttpDate if text.ends_with(" GMT") => {
                rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(|at| at.as_second())
            }
            Self::HttpDate => None,
        }
    }

    /// How the provider would write an instant.
    pub(crate) fn write(self, unix_s: i64) -> String {
        let at = jiff::Timestamp::from_second(unix_s).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        match self {
            Self::UnixS => unix_s.to_string(),
            Self::UnixMs => unix_s.saturating_mul(1000).to_string(),
            Self::Rfc3339 => at.to_string(),
            Self::HttpDate => rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default(),
        }
    }
}

/// Digits without a leading zero, at most 15 of them.
fn digits(text: &str) -> Option<i64> {
    let good = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (good && !text.starts_with('0')).then(|| text.parse().ok()).flatten()
}

/// `2026-02-02T02:40:00[.fraction](Z|±hh:mm)`, and nothing else.
fn is_rfc3339(text: &[u8]) -> bool {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let fits = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                b's' => matches!(byte, b'+' | b'-'),
                wanted => byte == wanted,
            })
    };
    let Some((date, rest)) = text.split_at_checked(SHAPE.len()) else { return false };
    let rest = match rest.strip_prefix(b".") {
        None => rest,
        Some(rest) => {
            let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&count) {
                return false;
            }
            &rest[count..]
        }
    };
    fits(date, SHAPE) && (rest == b"Z" || fits(rest, b"sdd:dd"))
}

impl Timestamp {
    /// Whether a right signature of that age may pass. `past_s` and `future_s` go before the row's own.
    pub(crate) fn judge(&self, at: i64, now: i64, past_s: Option<i64>, future_s: Option<i64>) -> Result<(), Refusal> {
        if now.saturating_sub(at) > past_s.unwrap_or(self.past_s) {
            return Err(Refusal::TimestampTooOld);
        }
        if at.saturating_sub(now) > future_s.unwrap_or(self.future_s) {
            return Err(Refusal::TimestampTooNew);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_per_format_is_read() {
        let cases = [
            (Format::UnixS, "1770000000", Some(1_770_000_000)),
            (Format::UnixMs, "1770000000999", Some(1_770_000_000)),
            (Format::Rfc3339, "2026-02-02T02:40:00.634234626Z", Some(1_770_000_000)),
            (Format::Rfc3339, "2026-02-02T02:40:00-00:00", Some(1_770_000_000)),
            (Format::Rfc3339, "2026-02-01T18:40:00-08:00", Some(1_770_000_000)),
            (Format::HttpDate, "Mon, 02 Feb 2026 02:40:00 GMT", Some(1_770_000_000)),
            (Format::UnixS, "01770000000", None),
            (Format::UnixS, "+1770000000", None),
            (Format::UnixS, "17700000001770000000", None),
            (Format::UnixS, "", None),
            (Format::Rfc3339, "2026-02-02T02:40:00", None),
            (Format::Rfc3339, "2026-02-02t02:40:00z", None),
            (Format::Rfc3339, "2026-02-02T02:40:00Z[UTC]", None),
            (Format::Rfc3339, "2026-02-32T02:40:00Z", None),
        ];
        for (format, text, at) in cases {
            assert_eq!(format.parse(text.as_bytes()), at, "{text}");
        }
        for format in [Format::UnixS, Format::UnixMs, Format::Rfc3339, Format::HttpDate] {
            assert_eq!(format.parse(format.write(1_770_000_000).as_bytes()), Some(1_770_000_000), "{format:?}");
        }
    }
}
