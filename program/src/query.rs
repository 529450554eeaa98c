//! The one search grammar: of lists, live streams, actions on many, command lines and the terminal.
//!
//! ```text
//! query  = { term }                      all must hold
//! term   = ["-"] ( word | quoted | key ":" value { "," value } )      commas: any of
//! ```
//!
//! It is parsed once and then asked of each event, of whatever kind: first what its row alone can say
//! ([`Query::judge`]), then, only where that does not decide, what it carries ([`Query::matches`]). Pure: it reads no clock
//! and nothing that it is not given. There are no regular expressions and no nesting, and a query has at most
//! [`MAX_BYTES`] and [`MAX_TERMS`], so that what one event costs is bounded by the event's size.
//!
//! Invariant: what a query prints is read back as the same query.

mod parse;
#[cfg(test)]
mod tests;
mod text;
mod write;

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::text::{Pattern, Piece};
use crate::event::EventSummary;

pub const MAX_BYTES: usize = 512;
pub const MAX_TERMS: usize = 16;

/// What is looked for. The default lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Query {
    terms: Vec<Term>,
    /// Received then or later.
    since: Option<Timestamp>,
    /// Received before then.
    until: Option<Timestamp>,
}

/// What could not be read, and where it begins, in bytes. Everything else of the text is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    pub at: usize,
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    not: bool,
    test: Test,
}

/// Of several values one is enough.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Word(Piece),
    Field(Field, Vec<Pattern>),
    Is(Vec<Is>),
    Status(Vec<StatusTest>),
    Measure(Measure, Vec<Bounds>),
    Id(Vec<Pattern>),
    /// The sender's own id.
    Sender(Vec<Pattern>),
    Header(Vec<HeaderTest>),
    Answer(Vec<Piece>),
    Body(Vec<Piece>),
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant,)* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            fn of(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// The values of `is:`.
    Is {
        Waiting = "waiting",
        Running = "running",
        Delivered = "delivered",
        Answered = "answered",
        Rejected = "rejected",
        Dead = "dead",
        Failed = "failed",
        Refused = "refused",
        Dropped = "dropped",
        Damaged = "damaged",
        Handshake = "handshake",
        Replay = "replay",
        Redelivered = "redelivered",
        Conflict = "conflict",
        Unproven = "unproven",
        Retried = "retried",
        Resigned = "resigned",
        Live = "live",
        Masked = "masked",
    }
}

words! {
    /// Keys whose values are texts with stars.
    Field {
        Endpoint = "endpoint",
        Agent = "agent",
        Method = "method",
        Type = "type",
        Path = "path",
        Why = "why",
    }
}

words! {
    /// Keys whose values are compared.
    Measure {
        Took = "took",
        Size = "size",
        Attempts = "attempts",
        Patience = "patience",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusTest {
    None,
    Range(u16, u16),
}

/// Both ends belong to it. Microseconds, bytes, a count, or hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    low: u64,
    high: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct HeaderTest {
    /// In lower case.
    name: String,
    value: Option<Pattern>,
}

/// One event of a list, of whatever kind.
pub trait Row {
    fn id(&self) -> Cow<'_, str>;
    /// `event`, `live`, `refused` or `handshake`.
    fn kind(&self) -> &str;
    fn endpoint(&self) -> &str;
    fn state(&self) -> Cow<'_, str>;
    fn why(&self) -> Cow<'_, str>;
    fn received_at(&self) -> Option<Timestamp>;
    fn method(&self) -> &str;
    fn target(&self) -> &str;
    fn event_type(&self) -> Option<&str>;
    fn sender_id(&self) -> Option<&str>;
    fn size(&self) -> u64;
    fn attempts(&self) -> u32;
    fn status(&self) -> Option<u16>;
    fn took_us(&self) -> Option<u64>;
    fn agent(&self) -> Option<&str>;
    fn patience(&self) -> Option<f64>;
    fn is_conflict(&self) -> bool;
    fn is_replay(&self) -> bool;
    fn is_redelivered(&self) -> bool;
    fn is_unproven(&self) -> bool;
    fn is_resigned(&self) -> bool;
}

/// Header lines, by name and value.
pub type Lines<'a> = Vec<(Cow<'a, str>, Cow<'a, [u8]>)>;

/// What an event carries, read only when it is asked for. Where a part cannot be read, it is empty.
pub trait Content {
    /// The whole target, where the row may have cut it.
    fn target(&mut self) -> Option<Cow<'_, str>> {
        None
    }
    fn headers(&mut self) -> Lines<'_>;
    /// As much of the body as is looked through.
    fn body(&mut self) -> Cow<'_, [u8]>;
    /// The headers and the body of the last answer.
    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)>;
    /// Whether a part of it is not shown.
    fn is_masked(&mut self) -> bool;
}

/// What of an event beside its row a query asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Also targets with their queries, in which a credential may stand.
    pub headers: bool,
    pub body: bool,
    pub answer: bool,
}

impl Needs {
    pub const fn anything(self) -> bool {
        self.headers || self.body || self.answer
    }
}

impl Query {
    /// Reads what a person typed. Ages such as `42m` are counted back from `now`. What cannot be read is left out and
    /// told, in order of its place.
    pub fn parse(text: &str, now: Timestamp) -> (Self, Vec<Mistake>) {
        parse::query(text, Some(now), (MAX_BYTES, MAX_TERMS))
    }

    /// Looks for a text anywhere, as a word does.
    pub fn text(text: &str) -> Self {
        let test = (!text.is_empty()).then(|| Test::Word(Piece::new(text)));
        Self { terms: test.map(|test| Term { not: false, test }).into_iter().collect(), ..Self::default() }
    }

    /// One key with one value, or with several where commas stand between them, as from a form or a parameter.
    pub fn key(key: &str, value: &str, now: Timestamp) -> Result<Self, Mistake> {
        parse::key(key, value, now)
    }

    /// One key with one value, commas and all. What cannot be read is left out.
    pub fn of(key: &str, value: &str) -> Self {
        parse::one(key, value)
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Also holds for what `other` lets pass alone.
    pub fn and(mut self, other: Self) -> Self {
        self.since = self.since.max(other.since);
        self.until = [self.until, other.until].into_iter().flatten().min();
        self.terms.extend(other.terms);
        self
    }

    pub fn and_is(mut self, is: &[Is]) -> Self {
        self.terms.push(Term { not: false, test: Test::Is(is.to_vec()) });
        self
    }

    /// What a row alone says; `None` where only what the event carries can decide.
    pub fn judge(&self, row: &dyn Row) -> Option<bool> {
        if !self.is_in_time(row) {
            return Some(false);
        }
        let mut decided = true;
        for term in &self.terms {
            match term.judge(row) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => decided = false,
            }
        }
        decided.then_some(true)
    }

    pub fn matches(&self, row: &dyn Row, content: &mut dyn Content) -> bool {
        self.judge(row).unwrap_or_else(|| {
            self.terms.iter().all(|term| term.judge(row).unwrap_or_else(|| term.test.is_in(content) != term.not))
        })
    }

    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for term in &self.terms {
            match &term.test {
                Test::Word(_) => (needs.headers, needs.body) = (true, true),
                Test::Header(_) => needs.headers = true,
                Test::Is(values) if values.contains(&Is::Masked) => (needs.headers, needs.body) = (true, true),
                Test::Body(_) => needs.body = true,
                Test::Answer(_) => needs.answer = true,
                Test::Field(..) | Test::Is(_) | Test::Status(_) | Test::Measure(..) => {}
                Test::Id(_) | Test::Sender(_) => {}
            }
        }
        needs
    }

    pub fn asks_for_patience(&self) -> bool {
        self.terms.iter().any(|term| matches!(term.test, Test::Measure(Measure::Patience, _)))
    }

    pub const fn since(&self) -> Option<Timestamp> {
        self.since
    }

    pub const fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Whether there can be anything of this endpoint in what it finds.
    pub fn may_be_of(&self, endpoint: &str) -> bool {
        self.terms.iter().all(|term| match &term.test {
            Test::Field(Field::Endpoint, values) => values.iter().any(|value| value.fits(endpoint)) != term.not,
            _ => true,
        })
    }

    /// The endpoints that it names outright, where it does.
    pub fn names(&self) -> Vec<&str> {
        let named = |term: &'_ Term| !term.not && matches!(term.test, Test::Field(Field::Endpoint, _));
        let Some(Term { test: Test::Field(_, values), .. }) = self.terms.iter().find(|term| named(term)) else {
            return Vec::new();
        };
        values.iter().filter_map(Pattern::exact).collect()
    }

    /// Whether everything that it finds is one of these.
    pub fn is_only(&self, of: &[Is]) -> bool {
        let only = |term: &Term| match &term.test {
            Test::Is(values) => !term.not && values.iter().all(|is| of.contains(is)),
            _ => false,
        };
        self.terms.iter().any(only)
    }

    /// The sender's own id, where it looks for one.
    pub fn sender_id(&self) -> Option<&str> {
        self.terms.iter().find_map(|term| match &term.test {
            Test::Id(values) if !term.not && values.len() == 1 => {
                values[0].exact().filter(|value| our_digits(value).is_none())
            }
            Test::Sender(values) if !term.not && values.len() == 1 => values[0].exact(),
            _ => None,
        })
    }

    fn is_in_time(&self, row: &dyn Row) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Some(at) = row.received_at() else { return false };
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

impl Term {
    fn judge(&self, row: &dyn Row) -> Option<bool> {
        self.test.judge(row).map(|holds| holds != self.not)
    }
}

impl Test {
    fn judge(&self, row: &dyn Row) -> Option<bool> {
        Some(match self {
            Self::Word(piece) => {
                let texts = [Some(row.target()), row.event_type(), row.sender_id()];
                return texts.into_iter().flatten().any(|text| piece.is_in(text.as_bytes())).then_some(true);
            }
            Self::Header(_) | Self::Body(_) | Self::Answer(_) => return None,
            Self::Is(values) => {
                let holds = values.iter().any(|is| *is != Is::Masked && is.holds(row));
                return if holds || !values.contains(&Is::Masked) { Some(holds) } else { None };
            }
            Self::Field(field, values) => {
                let text = field.of_row(row);
                text.is_some_and(|text| values.iter().any(|value| value.fits(&text)))
            }
            Self::Status(values) => values.iter().any(|value| match (*value, row.status()) {
                (StatusTest::None, status) => status.is_none(),
                (StatusTest::Range(low, high), Some(status)) => (low..=high).contains(&status),
                (StatusTest::Range(..), None) => false,
            }),
            Self::Measure(measure, values) => {
                let value = measure.of_row(row);
                value.is_some_and(|value| values.iter().any(|of| (of.low..=of.high).contains(&value)))
            }
            Self::Sender(values) => row.sender_id().is_some_and(|id| values.iter().any(|value| value.fits_exactly(id))),
            Self::Id(values) => {
                let id = row.id();
                let ours = |value: &Pattern| our_digits(value.as_str()).is_some_and(|digits| id.contains(&digits));
                let theirs = |value: &Pattern| row.sender_id().is_some_and(|id| value.fits_exactly(id));
                values.iter().any(|value| ours(value) || theirs(value))
            }
        })
    }

    /// For tests that a row alone does not decide.
    fn is_in(&self, content: &mut dyn Content) -> bool {
        match self {
            Self::Word(piece) => {
                content.target().is_some_and(|target| piece.is_in(target.as_bytes()))
                    || is_in_lines(piece, &content.headers())
                    || piece.is_in(&content.body())
            }
            Self::Body(values) => {
                let body = content.body();
                values.iter().any(|piece| piece.is_in(&body))
            }
            Self::Answer(values) => content.answer().is_some_and(|(lines, body)| {
                values.iter().any(|piece| is_in_lines(piece, &lines) || piece.is_in(&body))
            }),
            Self::Header(values) => {
                let lines = content.headers();
                values.iter().any(|test| {
                    let mut of_name = lines.iter().filter(|(name, _)| name.eq_ignore_ascii_case(&test.name));
                    of_name.any(|(_, value)| test.value.as_ref().is_none_or(|pattern| pattern.fits_bytes(value)))
                })
            }
            Self::Is(values) => values.contains(&Is::Masked) && content.is_masked(),
            Self::Field(..) | Self::Status(_) | Self::Measure(..) | Self::Id(_) | Self::Sender(_) => false,
        }
    }
}

/// In a name, a value, or across both as they are written: `name: value`.
fn is_in_lines(piece: &Piece, lines: &Lines<'_>) -> bool {
    lines.iter().any(|(name, value)| piece.is_in(&[name.as_bytes(), b": ", value].concat()))
}

/// The digits of an id of ours, at least eight, if that is what it may be.
fn our_digits(text: &str) -> Option<String> {
    let digits = text.strip_prefix("hook_").unwrap_or(text);
    let is_ours = (8..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| digits.to_ascii_lowercase())
}

impl Is {
    fn holds(self, row: &dyn Row) -> bool {
        let state = |word: &str| row.state() == word;
        match self {
            Self::Waiting => state("pending"),
            Self::Running => state("running"),
            Self::Delivered => state("delivered"),
            Self::Answered => state("answered"),
            Self::Rejected => state("rejected") || row.why() == "handler_rejected",
            Self::Dead => state("dead"),
            Self::Failed => state("failed"),
            Self::Dropped => state("dropped"),
            Self::Damaged => state("damaged"),
            Self::Refused => row.kind() == "refused",
            Self::Handshake => row.kind() == "handshake",
            Self::Live => row.kind() == "live",
            Self::Replay => row.is_replay(),
            Self::Redelivered => row.is_redelivered(),
            Self::Conflict => row.is_conflict(),
            Self::Unproven => row.is_unproven(),
            Self::Resigned => row.is_resigned(),
            Self::Retried => row.attempts() > 1,
            // Only what the event carries says so.
            Self::Masked => false,
        }
    }
}

impl Field {
    fn of_row(self, row: &dyn Row) -> Option<Cow<'_, str>> {
        match self {
            Self::Endpoint => Some(row.endpoint().into()),
            Self::Agent => row.agent().map(Cow::from),
            Self::Method => Some(row.method().into()),
            Self::Type => row.event_type().map(Cow::from),
            // A credential may stand behind the question mark.
            Self::Path => row.target().split('?').next().map(Cow::from),
            Self::Why => Some(row.why()),
        }
    }
}

impl Measure {
    fn of_row(self, row: &dyn Row) -> Option<u64> {
        match self {
            Self::Took => row.took_us(),
            Self::Size => Some(row.size()),
            Self::Attempts => Some(row.attempts().into()),
            // A cast of floats stays within the bounds of the integer.
            Self::Patience => row.patience().map(|part| (part * 10_000.0) as u64),
        }
    }
}

impl Row for EventSummary {
    fn id(&self) -> Cow<'_, str> {
        self.id.as_str().into()
    }
    fn kind(&self) -> &str {
        &self.kind
    }
    fn endpoint(&self) -> &str {
        &self.endpoint
    }
    fn state(&self) -> Cow<'_, str> {
        self.state.as_str().into()
    }
    fn why(&self) -> Cow<'_, str> {
        self.why.as_str().into()
    }
    fn received_at(&self) -> Option<Timestamp> {
        self.received_at.parse().ok()
    }
    fn method(&self) -> &str {
        &self.method
    }
    fn target(&self) -> &str {
        &self.target
    }
    fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }
    fn sender_id(&self) -> Option<&str> {
        self.sender_id.as_deref()
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn attempts(&self) -> u32 {
        self.attempt_count
    }
    fn status(&self) -> Option<u16> {
        self.status
    }
    fn took_us(&self) -> Option<u64> {
        self.took_us
    }
    fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }
    fn patience(&self) -> Option<f64> {
        self.patience
    }
    fn is_conflict(&self) -> bool {
        self.conflict_with.is_some()
    }
    fn is_replay(&self) -> bool {
        self.replay_of.is_some()
    }
    fn is_redelivered(&self) -> bool {
        self.redelivered
    }
    fn is_unproven(&self) -> bool {
        self.unproven
    }
    fn is_resigned(&self) -> bool {
        self.resigned
    }
}
