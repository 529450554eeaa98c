//! How the view draws: one place for every character that reaches the terminal, the colours and the shapes.
//!
//! Everything is escaped here, whoever wrote it. Colours are the 16 that a terminal names, so that the user's theme
//! holds, and no background is set; without colours the shapes and bold text say the same. With `ascii` each shape
//! has a twin that any terminal can show.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use relay_program::event::EventSummary;
use relay_proto::printable::escaped;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    pub ascii: bool,
    pub colours: bool,
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Odd,
    Bad,
}

impl Look {
    fn style(self, tone: Tone) -> Style {
        let colour = |colour| if self.colours { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => colour(Color::Green),
            Tone::Odd => colour(Color::Yellow),
            Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

/// A part of the screen that is drawn on.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    pub area: Rect,
    look: Look,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, area: Rect, look: Look) -> Self {
        let area = area.intersection(buffer.area);
        Self { buffer, area, look }
    }

    /// A part of this part.
    pub(super) fn part(&mut self, x: u16, y: u16, width: u16, height: u16) -> Canvas<'_> {
        let (left, top) = (self.area.x.saturating_add(x), self.area.y.saturating_add(y));
        let area = Rect::new(left, top, width, height).intersection(self.area);
        Canvas { buffer: &mut *self.buffer, area, look: self.look }
    }

    pub(super) fn width(&self) -> u16 {
        self.area.width
    }

    pub(super) fn height(&self) -> u16 {
        self.area.height
    }

    /// Writes a text at a column of a line, no further than the edge; the column behind it.
    pub(super) fn text(&mut self, x: u16, y: u16, text: &str, tone: Tone) -> u16 {
        self.within(x, y, self.area.width.saturating_sub(x), text, tone)
    }

    /// The same within so many columns.
    pub(super) fn within(&mut self, x: u16, y: u16, width: u16, text: &str, tone: Tone) -> u16 {
        if y >= self.area.height || x >= self.area.width {
            return x;
        }
        let width = width.min(self.area.width - x);
        let shown = self.shown(text);
        let style = self.look.style(tone);
        let (left, top) = (self.area.x + x, self.area.y + y);
        let (end, _) = self.buffer.set_stringn(left, top, shown, width.into(), style);
        end - self.area.x
    }

    /// Writes a text so that it ends before a column.
    pub(super) fn right(&mut self, end: u16, y: u16, text: &str, tone: Tone) {
        let width = u16::try_from(columns(&escaped(text))).unwrap_or(u16::MAX);
        self.within(end.saturating_sub(width), y, width.min(end), text, tone);
    }

    /// Draws one character along a line.
    pub(super) fn rule(&mut self, y: u16, char: &str) {
        let line = char.repeat(self.area.width.into());
        self.text(0, y, &line, Tone::Dim);
    }

    fn shown(&self, text: &str) -> String {
        let text = escaped(text);
        if !self.look.ascii {
            return text.into_owned();
        }
        text.chars().map(|char| if char.is_ascii() { char } else { twin(char) }).collect()
    }
}

/// How many columns a text takes, ambiguous characters counted narrow.
pub(super) fn columns(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

/// A character of ASCII in place of another one.
fn twin(char: char) -> char {
    match char {
        '●' | '…' => '*',
        '▲' => '^',
        '○' => 'o',
        '◐' => '%',
        '■' => '#',
        '⊘' | '×' => 'x',
        '–' | '─' => '-',
        '↺' => 'r',
        '≠' => '!',
        '✎' => '~',
        '▌' => '>',
        '▇' => '=',
        '▏' | '│' => '|',
        '·' => '.',
        '┬' | '┴' => '+',
        'µ' => 'u',
        _ => '?',
    }
}

/// The shape of an event's state, and how loud it is. Success is quiet.
pub(super) fn shape(event: &EventSummary) -> (&'static str, Tone) {
    match (event.kind.as_str(), event.state.as_str()) {
        ("refused", _) | (_, "refused") => ("⊘", Tone::Bad),
        ("handshake", _) => ("○", Tone::Dim),
        (_, "delivered" | "answered") => ("●", Tone::Plain),
        (_, "rejected") => ("▲", Tone::Odd),
        (_, "failed") => ("▲", Tone::Bad),
        (_, "pending" | "waiting") => ("○", Tone::Odd),
        (_, "running") => ("◐", Tone::Plain),
        (_, "dead" | "damaged") => ("■", Tone::Bad),
        _ => ("–", Tone::Dim),
    }
}

/// What stands behind the shape: the last status, or what the event waits for.
pub(super) fn status(event: &EventSummary) -> String {
    match (event.state.as_str(), event.status) {
        ("pending" | "waiting", _) => "waits".to_owned(),
        (_, Some(status)) => status.to_string(),
        ("running", None) => "runs".to_owned(),
        ("dropped", None) => "drop".to_owned(),
        _ => "none".to_owned(),
    }
}

/// What there is to say beside that, in as few columns as may be.
pub(super) fn notes(event: &EventSummary) -> String {
    let mut notes = String::new();
    if event.attempt_count > 1 {
        notes.push_str(&format!("×{}", event.attempt_count));
    }
    for (is_so, mark) in [
        (event.kind == "live", "live"),
        (event.replay_of.is_some(), "↺"),
        (event.conflict_with.is_some(), "≠"),
        (event.unproven, "!"),
        (event.resigned, "✎"),
    ] {
        if is_so {
            notes.push_str(mark);
        }
    }
    notes
}

/// What an event is called: its type as its provider names it, else its method and path.
pub(super) fn title(event: &EventSummary) -> String {
    match &event.event_type {
        Some(name) if !name.is_empty() => name.clone(),
        _ => format!("{} {}", event.method, event.target),
    }
}
