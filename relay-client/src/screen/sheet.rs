//! What lies over the list for a while: keys, the log, a text that was asked for, a question with yes or no. Pure.

use super::{
    look::{Canvas, Tone},
    wish::Wish,
};

#[derive(Debug)]
pub(super) struct Sheet {
    pub title: String,
    pub lines: Vec<String>,
    pub scroll: usize,
    /// What `Y` does, where the sheet asks.
    pub yes: Option<Wish>,
}

impl Sheet {
    pub(super) fn new(title: impl Into<String>, lines: Vec<String>) -> Self {
        Self { title: title.into(), lines, scroll: 0, yes: None }
    }

    pub(super) fn asks(title: impl Into<String>, lines: Vec<String>, yes: Wish) -> Self {
        Self { yes: Some(yes), ..Self::new(title, lines) }
    }

    pub(super) fn step(&mut self, by: isize) {
        self.scroll = self.scroll.saturating_add_signed(by).min(self.lines.len().saturating_sub(1));
    }

    pub(super) fn draw(&self, canvas: &mut Canvas<'_>) {
        canvas.rule(0, "─");
        canvas.text(2, 0, &format!(" {} ", self.title), Tone::Strong);
        let foot = canvas.height().saturating_sub(1);
        for (y, line) in (1..foot).zip(self.lines.iter().skip(self.scroll)) {
            canvas.text(1, y, line, Tone::Plain);
        }
        let keys = if self.yes.is_some() { "Y yes  Esc no" } else { "j k scroll  Esc back" };
        canvas.text(1, foot, keys, Tone::Dim);
    }
}
