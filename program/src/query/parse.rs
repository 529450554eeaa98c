//! Reads a query. Whatever cannot be read becomes a [`Mistake`] with its place; nothing fails as a whole.

use std::iter::Peekable;
use std::str::CharIndices;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{
    Bounds, Field, HeaderTest, Is, Measure, Mistake, Query, StatusTest, Term, Test,
    text::{Pattern, Piece},
};
use crate::{config, suggest::suggest};

/// Keys beside those of [`Field`] and [`Measure`].
const OTHER_KEYS: [&str; 9] = ["is", "status", "since", "until", "header", "answer", "body", "id", "sender"];

/// No exchange takes longer and no body is larger; beyond it a number is as good as this one.
const MAX_NUMBER: u64 = 1 << 50;

/// What a parameter may hold.
const MAX_VALUE_BYTES: usize = 4096;

/// A text of a query, and where it begins.
struct Value {
    at: usize,
    text: String,
}

/// `now` is what ages are counted back from; without it there are none. At most so many bytes and terms are read.
pub(super) fn query(
    text: &str,
    now: Option<Timestamp>,
    (max_bytes, max_terms): (usize, usize),
) -> (Query, Vec<Mistake>) {
    let read = &text[..text.floor_char_boundary(max_bytes)];
    let mut reader = Reader { chars: read.char_indices().peekable(), whole: read, mistakes: Vec::new(), now };
    let mut query = Query::default();
    let mut terms = 0;
    while let Some(at) = reader.next_term() {
        if terms == max_terms {
            reader.wrong(at, format!("a query has at most {max_terms} terms"), "leave some out");
            break;
        }
        terms += 1;
        reader.term(at, &mut query);
    }
    let mut mistakes = reader.mistakes;
    if read.len() < text.len() {
        let (message, hint) = (format!("a query has at most {max_bytes} bytes"), "leave some out".to_owned());
        mistakes.push(Mistake { at: read.len(), message, hint });
    }
    mistakes.sort_by_key(|mistake| mistake.at);
    (query, mistakes)
}

/// A key and its one value, as if typed.
pub(super) fn one(key: &str, value: &str) -> Query {
    query(&format!("{key}:\"{}\"", escaped(value)), None, (MAX_VALUE_BYTES, 1)).0
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A key and its values, as if typed. What cannot be read fails as a whole.
pub(super) fn key(key: &str, value: &str, now: Timestamp) -> Result<Query, Mistake> {
    let values = escaped(value);
    let values = values.split(',').map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(",");
    let text = format!("{key}:{values}");
    let (query, mistakes) = query(&text, Some(now), (MAX_VALUE_BYTES, 1));
    match mistakes.into_iter().next() {
        None => Ok(query),
        Some(mistake) => Err(Mistake { at: 0, ..mistake }),
    }
}

struct Reader<'a> {
    chars: Peekable<CharIndices<'a>>,
    whole: &'a str,
    mistakes: Vec<Mistake>,
    now: Option<Timestamp>,
}

impl Reader<'_> {
    fn wrong(&mut self, at: usize, message: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake { at, message: message.into(), hint: hint.into() });
    }

    fn place(&mut self) -> usize {
        self.chars.peek().map_or(self.whole.len(), |(at, _)| *at)
    }

    fn next_term(&mut self) -> Option<usize> {
        while self.chars.next_if(|(_, char)| char.is_whitespace()).is_some() {}
        self.chars.peek().map(|(at, _)| *at)
    }

    fn term(&mut self, at: usize, query: &mut Query) {
        let rest = &self.whole[at..];
        let not = rest.starts_with('-') && rest[1..].starts_with(|char: char| !char.is_whitespace());
        if not {
            self.chars.next();
        }
        let rest = &rest[usize::from(not)..];
        let key = rest
            .split_once(':')
            .filter(|(key, _)| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_'));
        let Some((key, behind)) = key.filter(|(key, behind)| is_key(key) || !behind.starts_with("//")) else {
            let word = self.value(false);
            match word.text.is_empty() {
                true => self.wrong(at, "there is nothing between the quotes", ""),
                false => query.terms.push(Term { not, test: Test::Word(Piece::new(word.text)) }),
            }
            return;
        };
        for _ in 0..=key.len() {
            self.chars.next();
        }
        let values = self.values();
        if behind.is_empty() || values.iter().all(|value| value.text.is_empty()) {
            return self.wrong(at, format!("nothing stands behind `{key}:`"), format!("write `{}`", example(key)));
        }
        let key = key.to_ascii_lowercase();
        if let "since" | "until" = key.as_str() {
            return self.moment(at, &key, not, &values, query);
        }
        if let Some(test) = self.test(at, &key, values) {
            query.terms.push(Term { not, test });
        }
    }

    fn values(&mut self) -> Vec<Value> {
        let mut values = vec![self.value(true)];
        while self.chars.next_if(|(_, char)| *char == ',').is_some() {
            values.push(self.value(true));
        }
        values
    }

    /// Up to the next space, or comma in a list; quotes hold both together.
    fn value(&mut self, in_list: bool) -> Value {
        let at = self.place();
        let mut text = String::new();
        while let Some((at, char)) = self.chars.next_if(|(_, char)| !(char.is_whitespace() || in_list && *char == ','))
        {
            if char == '"' { self.quoted(at, &mut text) } else { text.push(char) }
        }
        Value { at, text }
    }

    fn quoted(&mut self, at: usize, text: &mut String) {
        while let Some((_, char)) = self.chars.next() {
            match char {
                '"' => return,
                '\\' => {
                    let escaped = self.chars.next_if(|(_, next)| matches!(next, '"' | '\\'));
                    text.push(escaped.map_or('\\', |(_, char)| char));
                }
                char => text.push(char),
            }
        }
        self.wrong(at, "this quote is not closed", "write another \" behind the text");
    }

    /// A test of all values that can be read, if there are any.
    fn test(&mut self, at: usize, key: &str, values: Vec<Value>) -> Option<Test> {
        let values: Vec<Value> = values.into_iter().filter(|value| !value.text.is_empty()).collect();
        let patterns = |values: Vec<Value>| values.into_iter().map(|value| Pattern::new(value.text)).collect();
        let pieces = |values: Vec<Value>| values.into_iter().map(|value| Piece::new(value.text)).collect();
        if let Some(field) = Field::of(key) {
            return Some(Test::Field(field, patterns(values)));
        }
        if let Some(measure) = Measure::of(key) {
            let read = |text: &str| bounds(measure, text).ok_or_else(|| format!("write `{}`", example(key)));
            return some(self.read(values, "cannot be compared with", read))
                .map(|values| Test::Measure(measure, values));
        }
        match key {
            "id" => Some(Test::Id(patterns(values))),
            "sender" => Some(Test::Sender(patterns(values))),
            "answer" => Some(Test::Answer(pieces(values))),
            "body" => Some(Test::Body(pieces(values))),
            "is" => some(self.read(values, "is nothing that an event is", is)).map(Test::Is),
            "status" => {
                let read = |text: &str| status(text).ok_or_else(|| "write 404, 5xx, 400-499 or none".to_owned());
                some(self.read(values, "is no status", read)).map(Test::Status)
            }
            "header" => {
                let read = |text: &str| header(text).ok_or_else(|| format!("write `{}`", example(key)));
                some(self.read(values, "is no header", read)).map(Test::Header)
            }
            _ => {
                let hint =
                    suggest(key, all_keys()).unwrap_or_else(|| "put it in quotes to look for the text".to_owned());
                self.wrong(at, format!("there is no key `{key}`"), hint);
                None
            }
        }
    }

    fn read<T>(&mut self, values: Vec<Value>, wrong: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut all = Vec::new();
        for Value { at, text } in values {
            match read(&text) {
                Ok(value) => all.push(value),
                Err(hint) => self.wrong(at, format!("`{text}` {wrong}"), hint),
            }
        }
        all
    }

    /// What is not since then is before it.
    fn moment(&mut self, at: usize, key: &str, not: bool, values: &[Value], query: &mut Query) {
        let [Value { text, .. }] = values else {
            return self.wrong(at, format!("`{key}:` takes one moment"), "");
        };
        let Some(moment) = moment(text, self.now) else {
            let hint = format!("write `{key}:42m`, `{key}:2026-01-31` or `{key}:2026-01-31T08:00Z`");
            return self.wrong(at, format!("`{text}` is no moment"), hint);
        };
        if (key == "since") != not {
            query.since = query.since.max(Some(moment));
        } else {
            query.until = Some(query.until.map_or(moment, |until| until.min(moment)));
        }
    }
}

fn all_keys() -> impl Iterator<Item = &'static str> {
    let fields = Field::ALL.iter().map(|field| field.word());
    fields.chain(Measure::ALL.iter().map(|measure| measure.word())).chain(OTHER_KEYS)
}

fn is_key(key: &str) -> bool {
    all_keys().any(|known| known.eq_ignore_ascii_case(key))
}

fn some<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

fn example(key: &str) -> &'static str {
    match key.to_ascii_lowercase().as_str() {
        "endpoint" => "endpoint:pay,shop",
        "agent" => "agent:laptop",
        "method" => "method:POST",
        "type" => "type:invoice.*",
        "path" => "path:/hooks/*",
        "why" => "why:handler_timeout",
        "is" => "is:dead,failed",
        "status" => "status:5xx",
        "took" => "took:>500ms",
        "size" => "size:<2kB",
        "attempts" => "attempts:>1",
        "patience" => "patience:>80%",
        "since" | "until" => "since:42m",
        "header" => "header:x-github-event=push",
        "answer" => "answer:\"no such column\"",
        "body" => "body:cus_123",
        "id" => "id:01a20e58",
        "sender" => "sender:evt_1SVq4rNw",
        _ => "\"a text\"",
    }
}

fn is(text: &str) -> Result<Is, String> {
    let text = text.to_ascii_lowercase();
    Is::of(&text).ok_or_else(|| {
        let words = Is::ALL.iter().map(|is| is.word());
        suggest(&text, words.clone())
            .unwrap_or_else(|| format!("write one of {}", words.collect::<Vec<_>>().join(", ")))
    })
}

fn status(text: &str) -> Option<StatusTest> {
    if text.eq_ignore_ascii_case("none") {
        return Some(StatusTest::None);
    }
    let one = |text: &str| {
        let is_status = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_status.then(|| text.parse::<u16>().ok()).flatten().filter(|status| *status >= 100)
    };
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let first = one(&format!("{class}00"))?;
        return Some(StatusTest::Range(first, first + 99));
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some(StatusTest::Range(one(low)?, one(high)?))
}

fn header(text: &str) -> Option<HeaderTest> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(Pattern::new(value))),
        None => (text, None),
    };
    let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some(HeaderTest { name: name.as_str().to_owned(), value })
}

/// `>500ms`, `<=2kB`, `1-3`, and for what is counted `3`.
fn bounds(measure: Measure, text: &str) -> Option<Bounds> {
    let number = |text: &str| number(measure, text.trim()).map(|number| number.min(MAX_NUMBER));
    let nothing = Bounds { low: 1, high: 0 };
    Some(if let Some(least) = text.strip_prefix(">=") {
        Bounds { low: number(least)?, high: u64::MAX }
    } else if let Some(most) = text.strip_prefix("<=") {
        Bounds { low: 0, high: number(most)? }
    } else if let Some(above) = text.strip_prefix('>') {
        Bounds { low: (number(above)? + 1).min(MAX_NUMBER), high: u64::MAX }
    } else if let Some(below) = text.strip_prefix('<') {
        number(below)?.checked_sub(1).map_or(nothing, |high| Bounds { low: 0, high })
    } else if let Some((low, high)) = text.split_once('-') {
        let bounds = Bounds { low: number(low)?, high: number(high)? };
        if bounds.low > bounds.high { nothing } else { bounds }
    } else if matches!(measure, Measure::Attempts | Measure::Size) {
        let number = number(text)?;
        Bounds { low: number, high: number }
    } else {
        return None;
    })
}

fn number(measure: Measure, text: &str) -> Option<u64> {
    match measure {
        Measure::Took => config::duration(text).ok().map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX)),
        Measure::Size => config::size(text).ok(),
        Measure::Attempts => text.parse().ok(),
        Measure::Patience => {
            let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
            // A cast of floats stays within the bounds of the integer.
            (0.0..=1e9).contains(&percent).then(|| (percent * 100.0).round() as u64)
        }
    }
}

/// A moment, the beginning of a day (UTC), or how long ago it was.
fn moment(text: &str, now: Option<Timestamp>) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    if let Ok(day) = text.parse::<Date>() {
        return day.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    }
    let age = SignedDuration::try_from(config::duration(text).ok()?).ok()?;
    now?.checked_sub(age).ok()
}
