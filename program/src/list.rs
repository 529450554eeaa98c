//! Lists on a terminal: one line for each row, column under column.
//!
//! What stands last in a row may be of any length. On a terminal it is cut to what its line has left, but never below
//! [`MIN_LAST`] characters; elsewhere it is whole, since a program may read it. Cells are fit for a terminal already.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _},
};

use jiff::Timestamp;
use relay_proto::printable::escaped;
use serde::Deserialize;
use serde_json::Value;

use crate::{Failure, terminal};

/// What a last cell has at least, on however narrow a terminal.
const MIN_LAST: usize = 24;

/// Where a longer cell is no measure for the others of its column.
const MAX_WIDTH: usize = 40;

/// A list that is being printed. Its columns become wider, never narrower, so that parts of it go together.
#[derive(Debug, Default)]
pub struct List {
    widths: Vec<usize>,
    /// Characters of a line, where last cells are cut to it.
    line: Option<usize>,
}

impl List {
    pub fn fitting() -> Self {
        let size = io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
        Self { line: size.map(|(width, _)| width.0.into()), ..Self::default() }
    }

    /// Prints answers of a relay, each as it is on a line of its own, or as a row of cells.
    pub fn print<'a, T: Deserialize<'a> + Default>(
        &mut self,
        values: impl IntoIterator<Item = &'a Value>,
        json: bool,
        cells: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        if json {
            return values.into_iter().try_for_each(|value| terminal::line(&value.to_string()));
        }
        let rows: Vec<_> = values.into_iter().map(|value| cells(&T::deserialize(value).unwrap_or_default())).collect();
        self.lines(&rows).iter().try_for_each(|line| terminal::line(line))
    }

    fn lines(&mut self, rows: &[Vec<String>]) -> Vec<String> {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count().min(MAX_WIDTH));
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    /// Columns that are empty in all rows take no room.
    fn line(&self, row: &[String]) -> String {
        let Some((last, before)) = row.split_last() else { return String::new() };
        let mut line = String::new();
        for (cell, &width) in before.iter().zip(&self.widths).filter(|(_, width)| **width > 0) {
            line.push_str(&format!("{cell:<width$} "));
        }
        let left = self.line.map(|line_width| line_width.saturating_sub(line.chars().count()).max(MIN_LAST));
        match left {
            Some(left) if last.chars().count() > left => line.extend(last.chars().take(left - 1).chain(['…'])),
            _ => line.push_str(last),
        }
        line.truncate(line.trim_end().len());
        line
    }
}

pub fn row(cells: Vec<String>) -> String {
    List::default().lines(&[cells]).concat()
}

/// A moment with three digits of its second; any other text as it is.
pub fn time(text: &str) -> Cow<'_, str> {
    text.parse::<Timestamp>().map_or_else(|_| escaped(text), |at| format!("{at:.3}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
    }

    #[test]
    fn columns_stand_under_one_another_and_keep_their_width() {
        let mut list = List::default();
        let first = list.lines(&rows(&[&["a", "", "DEAD", "/x"], &["long", "", "PENDING", "/yy"]]));
        assert_eq!(first, ["a    DEAD    /x", "long PENDING /yy"]);
        assert_eq!(list.lines(&rows(&[&["b", "", "DEAD", ""]])), ["b    DEAD"]);
        assert_eq!(list.lines(&rows(&[&["c", "new", "DEAD", "/"]])), ["c    new DEAD    /"]);
        let outlier = "w".repeat(MAX_WIDTH + 10);
        let lines = list.lines(&rows(&[&[&outlier, "", "", "x"], &["d", "", "", "x"]]));
        assert_eq!(lines[1].chars().position(|char| char == 'x'), Some(MAX_WIDTH + 1 + 4 + 8));
    }

    #[test]
    fn on_a_terminal_the_last_cell_fits_into_its_line_where_that_leaves_something_of_it() {
        let long = "/".repeat(100);
        let row = rows(&[&["0123456789", &long]]);
        let line = |width| List { line: Some(width), ..List::default() }.lines(&row).concat();
        assert_eq!((line(60).chars().count(), line(60).chars().last()), (60, Some('…')));
        assert_eq!(line(20).chars().count(), 11 + MIN_LAST);
        assert_eq!(line(111).chars().last(), Some('/'));
        assert_eq!(List::default().lines(&row).concat().len(), 111, "a program reads all of it");
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(time("2026-01-31T08:00:00.123456789Z"), "2026-01-31T08:00:00.123Z");
        assert_eq!(time("2026-01-31T08:00:00Z"), "2026-01-31T08:00:00.000Z");
        assert_eq!((time("-"), time("\u{1b}x")), ("-".into(), "\\u001bx".into()));
    }
}
