//! What is searched for: one of five views, and what was typed. Pure.
//!
//! The grammar is the relay's own. What a row alone cannot decide (words within bodies) is looked for in what is at
//! hand, and whatever the relay found for the same question counts as found.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use relay_program::{
    event::{EventDetail, EventSummary},
    query::{Content, Lines, MAX_BYTES, Query},
};

use super::{
    known::{Known, Part},
    look::{Canvas, Tone},
    rows::MAX_ROWS,
};

/// The fixed views: what they are called and what they search for.
pub(super) const PRESETS: [(&str, &str); 5] = [
    ("all", ""),
    ("failing", "is:dead,failed,rejected"),
    ("waiting", "is:waiting"),
    ("refused", "is:refused"),
    ("replays", "is:replay"),
];

#[derive(Debug, Default)]
pub(super) struct Find {
    preset: usize,
    /// What was typed and is in force.
    typed: String,
    /// What is being typed.
    typing: Option<String>,
    preset_query: Query,
    query: Query,
    /// The first thing that cannot be read of it.
    mistake: Option<String>,
    /// Events that the relay found for this question.
    found: BTreeSet<Arc<str>>,
}

impl Find {
    pub(super) fn is_typing(&self) -> bool {
        self.typing.is_some()
    }

    pub(super) fn begin(&mut self) {
        self.typing = Some(self.typed.clone());
    }

    /// The first thing that cannot be read of what is searched for.
    pub(super) fn mistake(&self) -> Option<&str> {
        self.mistake.as_deref()
    }

    /// Takes a key of what is typed; whether the relay is to be asked anew.
    pub(super) fn type_key(&mut self, key: &KeyEvent) -> bool {
        let Some(text) = &mut self.typing else { return false };
        match key.code {
            KeyCode::Enter => {
                self.typed = self.typing.take().unwrap_or_default();
                self.found.clear();
                return true;
            }
            KeyCode::Esc => {
                self.typing = None;
                self.read(&self.typed.clone());
                return false;
            }
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.typing = None;
                self.read(&self.typed.clone());
                return false;
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char(char) if text.len() + char.len_utf8() <= MAX_BYTES => text.push(char),
            _ => {}
        }
        let text = text.clone();
        self.read(&text);
        false
    }

    fn read(&mut self, text: &str) {
        let (query, mistakes) = Query::parse(text, Timestamp::now());
        let told = |mistake: &relay_program::query::Mistake| match mistake.hint.as_str() {
            "" => mistake.message.clone(),
            hint => format!("{}; {hint}", mistake.message),
        };
        (self.query, self.mistake) = (query, mistakes.first().map(told));
    }

    pub(super) fn preset(&mut self, number: usize) {
        let Some((_, text)) = PRESETS.get(number) else { return };
        (self.preset, self.preset_query) = (number, Query::parse(text, Timestamp::now()).0);
        self.found.clear();
    }

    /// Looks for everything again; whether that is a change.
    pub(super) fn clear(&mut self) -> bool {
        let changed = self.preset != 0 || !self.typed.is_empty();
        *self = Self::default();
        changed
    }

    /// What the relay is asked.
    pub(super) fn question(&self) -> String {
        let preset = PRESETS.get(self.preset).map_or("", |(_, text)| text);
        [preset, &self.typed].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The relay found this event for the question that stands.
    pub(super) fn relay_found(&mut self, id: &str) {
        if self.found.len() < MAX_ROWS {
            self.found.insert(id.into());
        }
    }

    /// Whether an event belongs to the list.
    pub(super) fn takes(&self, event: &EventSummary, known: &Known, id: &str) -> bool {
        let mut at_hand = AtHand { detail: known.detail(id), body: known.body(id, Part::Request), known, id };
        [&self.preset_query, &self.query].into_iter().all(|query| match query.judge(event) {
            Some(takes) => takes,
            None => self.found.contains(id) || query.matches(event, &mut at_hand),
        })
    }

    /// Draws the views, and what is searched for.
    pub(super) fn draw(&self, canvas: &mut Canvas<'_>) {
        let mut x = 1;
        for (number, (name, _)) in PRESETS.iter().enumerate() {
            let tone = if number == self.preset { Tone::Strong } else { Tone::Dim };
            x = canvas.text(x, 0, name, tone) + 2;
        }
        let (text, tone) = match (&self.typing, self.typed.as_str()) {
            (Some(text), _) => (format!("/{text}_"), Tone::Strong),
            (None, "") => return,
            (None, text) => (format!("/{text}"), Tone::Plain),
        };
        let width = canvas.width();
        canvas.part(x, 0, width.saturating_sub(x), 1).text(0, 0, &" ".repeat(width.into()), Tone::Plain);
        canvas.text(x, 0, &text, tone);
    }
}

/// What is at hand of an event.
struct AtHand<'a> {
    detail: Option<&'a EventDetail>,
    body: Option<&'a bytes::Bytes>,
    known: &'a Known,
    id: &'a str,
}

impl Content for AtHand<'_> {
    fn headers(&mut self) -> Lines<'_> {
        self.detail.map(|detail| lines(&detail.headers)).unwrap_or_default()
    }

    fn body(&mut self) -> Cow<'_, [u8]> {
        self.body.map_or(Cow::Borrowed(&[]), |body| Cow::Borrowed(body))
    }

    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        let attempt = self.detail?.attempts.last()?;
        let headers = lines(&attempt.answer.as_ref()?.headers);
        let body = self.known.body(self.id, Part::Answer(attempt.number));
        Some((headers, body.map_or(Cow::Borrowed(&[]), |body| Cow::Borrowed(body))))
    }

    fn is_masked(&mut self) -> bool {
        self.detail.is_some_and(|detail| !detail.masked.is_empty())
    }
}

fn lines(headers: &[(String, String)]) -> Lines<'_> {
    headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect()
}
