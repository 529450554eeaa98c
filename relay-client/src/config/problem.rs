//! What is wrong with a config file, where, and what to do about it.
//!
//! Problems are collected rather than thrown one by one, so that one look shows them all.

use std::{fmt, ops::Range, path::PathBuf};

use relay_program::suggest::nearest;

/// Problems shown at most; a file with more gets the rest after these are mended.
const MAX_SHOWN: usize = 20;

/// One thing wrong with a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// One-based; absent where no line is to blame.
    pub line: Option<usize>,
    /// Dotted, such as `endpoint.github.target`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A config file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub file: PathBuf,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(MAX_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.message)?;
        }
        match self.problems.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// The one-based line on which a byte range begins.
pub(crate) fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// What the TOML reader says, with a suggestion where a key is unknown.
pub(crate) fn of_toml(text: &str, error: &toml::de::Error) -> Problem {
    let line = error.span().map(|span| line_of(text, &span));
    let message = error.message();
    let message = match message.strip_prefix("unknown field ") {
        Some(rest) => unknown_key(rest),
        None => message.replace('\n', "; "),
    };
    Problem { line, key: String::new(), message }
}

/// `rest` is serde's list: the unknown key and then the known ones, each in backticks.
fn unknown_key(rest: &str) -> String {
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("unknown key {unknown:?}; did you mean {near:?}?"),
        None => format!("unknown key {unknown:?}; known here: {}", known.join(", ")),
    }
}
