//! What a command prints, and the one place where it is.
//!
//! Results go to standard output, the rest to standard error. Invariants: nothing reaches a terminal from here with
//! characters in it that steer one; a reader that has gone away ends a command without a word, and never in a panic.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
};

use relay_proto::printable;
use serde_json::Value;

use crate::Failure;

/// Prints a result that has its line ends.
pub fn print(text: &str) -> Result<(), Failure> {
    write(printable::lines(text).as_bytes())
}

/// Prints a result and a line end.
pub fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Prints a body byte for byte; on a terminal as text in which nothing steers it.
pub fn body(bytes: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(&String::from_utf8_lossy(bytes)) } else { write(bytes) }
}

/// Prints answers of a relay, each on a line as it is or in words.
pub fn values<'a>(
    values: impl IntoIterator<Item = &'a Value>,
    json: bool,
    words: impl Fn(&Value) -> String,
) -> Result<(), Failure> {
    values.into_iter().try_for_each(|value| line(&if json { value.to_string() } else { words(value) }))
}

/// A line on standard error, as far as there is one. It may quote what somebody typed, but no password in an address.
pub fn note(text: &str) {
    ask(&format!("{text}\n"));
}

/// The same without a line end, in front of an answer.
pub fn ask(text: &str) {
    let text = printable::without_passwords(text);
    let _ = io::stderr().write_all(printable::lines(&text).as_bytes());
}

/// A member of an answer, fit for a line: senders, handlers and agents wrote most of them.
pub fn member<'a>(value: &'a Value, key: &str) -> Cow<'a, str> {
    printable::escaped(value[key].as_str().unwrap_or("-"))
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(bytes).and_then(|()| out.flush())?)
}
