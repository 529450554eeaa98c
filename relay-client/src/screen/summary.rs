//! What stays on the ordinary screen when the view ends: the last lines, warnings, and one line that sums up. Pure.

use std::{collections::VecDeque, time::Duration};

use super::units::count;
use crate::report::{Line, Outcome, units};

/// Lines that the ordinary screen gets.
const MAX_LAST: usize = 10;
const MAX_WARNINGS: usize = 20;
/// Lines of the log that are held.
const MAX_LOG: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Tally {
    events: u64,
    failed: u64,
    last: VecDeque<String>,
    warnings: VecDeque<String>,
    /// The log, the newest line last.
    pub log: VecDeque<String>,
}

impl Tally {
    pub(super) fn count(&mut self, line: &Line) {
        self.events += 1;
        self.failed += u64::from(!matches!(line.outcome, Outcome::Status(..400)));
    }

    /// A line as the outputs without a view print it.
    pub(super) fn line(&mut self, text: String) {
        push(&mut self.last, text, MAX_LAST);
    }

    pub(super) fn warning(&mut self, text: String) {
        push(&mut self.warnings, text, MAX_WARNINGS);
    }

    pub(super) fn logged(&mut self, text: String) {
        push(&mut self.log, text, MAX_LOG);
    }

    /// What the ordinary screen gets after so long.
    pub(super) fn farewell(&self, after: Duration) -> String {
        let mut text: String = self.last.iter().map(String::as_str).collect();
        text.extend(self.warnings.iter().map(String::as_str));
        let plural = if self.events == 1 { "" } else { "s" };
        let (events, failed) = (count(self.events), count(self.failed));
        text.push_str(&format!("{events} event{plural}, {failed} failed, {}\n", units::duration(after)));
        text
    }
}

fn push(lines: &mut VecDeque<String>, text: String, most: usize) {
    lines.push_back(text);
    if lines.len() > most {
        lines.pop_front();
    }
}
