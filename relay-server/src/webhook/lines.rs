//! What one walk over a request's header lines notes for all who ask afterwards.
//!
//! Most requests have few of the lines that the relay looks for, and a look into the map for each of them costs more than
//! this walk. Whoever finds one noted looks at it there.
//!
//! Invariant: after the walk, nobody adds lines to the request or takes some out.

use http::HeaderMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineNotes {
    /// How long the names and values are together.
    pub(crate) text_bytes: usize,
    /// A bit for each line that is there.
    there: u16,
}

/// A line that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Te,
    Host,
    Cookie,
    Upgrade,
    Connection,
    Traceparent,
    Authorization,
    ContentLength,
    ForwardedFor,
    TransferEncoding,
    /// Its name is as long as one of a line that frames a body, and begins like it.
    LikeFraming,
}

impl LineNotes {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut notes = Self { text_bytes: 0, there: 0 };
        for (name, value) in headers {
            let name = name.as_str();
            notes.text_bytes += name.len() + value.len();
            notes.there |= line(name).map_or(0, |line| 1 << line as u16);
        }
        notes
    }

    pub(crate) const fn has(self, line: Line) -> bool {
        self.there & (1 << line as u16) != 0
    }
}

fn line(name: &str) -> Option<Line> {
    // By length first: most names end there.
    let (line, own) = match name.len() {
        2 => (Line::Te, "te"),
        4 => (Line::Host, "host"),
        6 => (Line::Cookie, "cookie"),
        7 => (Line::Upgrade, "upgrade"),
        10 => (Line::Connection, "connection"),
        11 => (Line::Traceparent, "traceparent"),
        13 => (Line::Authorization, "authorization"),
        14 if name == "content-length" => (Line::ContentLength, name),
        15 => (Line::ForwardedFor, "x-forwarded-for"),
        17 if name == "transfer-encoding" => (Line::TransferEncoding, name),
        14 | 17 if name.starts_with(['c', 't']) => (Line::LikeFraming, name),
        _ => return None,
    };
    (name == own).then_some(line)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn each_line_is_noted_that_is_there_and_no_other() {
        let lines = [
            ("te", Line::Te),
            ("host", Line::Host),
            ("cookie", Line::Cookie),
            ("upgrade", Line::Upgrade),
            ("connection", Line::Connection),
            ("traceparent", Line::Traceparent),
            ("authorization", Line::Authorization),
            ("content-length", Line::ContentLength),
            ("x-forwarded-for", Line::ForwardedFor),
            ("transfer-encoding", Line::TransferEncoding),
            ("transfer_encoding", Line::LikeFraming),
            ("content.length", Line::LikeFraming),
        ];
        for (name, there) in lines {
            let headers = [("x-tag", "one"), (name, "two"), (name, "three")];
            let headers = headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let notes = LineNotes::of(&headers.into_iter().collect());
            lines.iter().for_each(|(_, line)| assert_eq!(notes.has(*line), *line == there, "{name}: {line:?}"));
        }
        let others: HeaderMap = ["re", "hast", "x-forwarded-fox", "authorizatiom", "expect"]
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("12345")))
            .into_iter()
            .collect();
        assert_eq!(LineNotes::of(&others), LineNotes { text_bytes: 2 + 4 + 15 + 13 + 6 + 5 * 5, there: 0 });
        assert_eq!(LineNotes::of(&HeaderMap::new()), LineNotes { text_bytes: 0, there: 0 });
    }
}
