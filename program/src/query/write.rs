//! A query as text that is read back as the same query, without ages.

use std::fmt;

use super::{Bounds, Measure, Query, StatusTest, Term, Test, parse};

/// Bytes and terms that a query may print, which is read back: quotes and moments take more room than what was typed, and
/// parameters may be added.
const MAX_WRITTEN: (usize, usize) = (32 * 1024, 64);

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        if let Some(since) = self.since {
            write!(f, "since:{since}")?;
            before = " ";
        }
        if let Some(until) = self.until {
            write!(f, "{before}until:{until}")?;
            before = " ";
        }
        for term in &self.terms {
            write!(f, "{before}{term}")?;
            before = " ";
        }
        Ok(())
    }
}

impl From<Query> for String {
    fn from(query: Query) -> Self {
        query.to_string()
    }
}

impl TryFrom<String> for Query {
    type Error = String;

    /// Reads what a query printed.
    fn try_from(text: String) -> Result<Self, String> {
        let (query, mistakes) = parse::query(&text, None, MAX_WRITTEN);
        match mistakes.into_iter().next() {
            None => Ok(query),
            Some(mistake) => Err(mistake.message),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.not {
            f.write_str("-")?;
        }
        match &self.test {
            Test::Word(piece) => {
                let text = piece.as_str();
                let is_plain = !text.starts_with('-') && !text.contains(':') && !needs_quotes(text);
                if is_plain { f.write_str(text) } else { quoted(f, text) }
            }
            Test::Field(field, values) => list(f, field.word(), values, |f, value| text(f, value.as_str())),
            Test::Is(values) => list(f, "is", values, |f, is| f.write_str(is.word())),
            Test::Id(values) => list(f, "id", values, |f, value| text(f, value.as_str())),
            Test::Sender(values) => list(f, "sender", values, |f, value| text(f, value.as_str())),
            Test::Answer(values) => list(f, "answer", values, |f, value| text(f, value.as_str())),
            Test::Body(values) => list(f, "body", values, |f, value| text(f, value.as_str())),
            Test::Status(values) => list(f, "status", values, |f, value| match value {
                StatusTest::None => f.write_str("none"),
                StatusTest::Range(low, high) => write!(f, "{low}-{high}"),
            }),
            Test::Measure(measure, values) => list(f, measure.word(), values, |f, of| bounds(f, *measure, *of)),
            Test::Header(values) => list(f, "header", values, |f, test| {
                let value = test.value.as_ref().map(|value| format!("={}", value.as_str())).unwrap_or_default();
                text(f, &format!("{}{value}", test.name))
            }),
        }
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    values: &[T],
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    let mut before = ':';
    f.write_str(key)?;
    values.iter().try_for_each(|value| {
        write!(f, "{before}")?;
        before = ',';
        write(f, value)
    })
}

fn bounds(f: &mut fmt::Formatter<'_>, measure: Measure, Bounds { low, high }: Bounds) -> fmt::Result {
    let value = |value: u64| match measure {
        Measure::Took => format!("{value}us"),
        Measure::Size => format!("{value}B"),
        Measure::Attempts => value.to_string(),
        Measure::Patience => format!("{}.{:02}%", value / 100, value % 100),
    };
    match (low, high) {
        _ if low > high => write!(f, "<{}", value(0)),
        (_, u64::MAX) => write!(f, ">={}", value(low)),
        (0, _) => write!(f, "<={}", value(high)),
        _ => write!(f, "{}-{}", value(low), value(high)),
    }
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.contains(|char: char| char.is_whitespace() || char == '"' || char == ',')
}

fn text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if needs_quotes(text) { quoted(f, text) } else { f.write_str(text) }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
