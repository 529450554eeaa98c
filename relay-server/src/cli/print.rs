//! What is printed, and the one place where it is.
//!
//! Results go to standard output, the rest to standard error. Invariants: nothing reaches a terminal from here with
//! characters in it that steer one; a reader that has gone away ends a command without a word, and never in a panic.

use std::{
    borrow::Cow,
    io::{self, ErrorKind, IsTerminal as _, Write as _},
};

use relay_proto::printable;
use serde_json::Value;

use super::Failure;

/// Prints a result and a line end.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{}\n", printable::lines(text)).as_bytes())
}

/// Prints a result that has its line ends.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    write(printable::lines(text).as_bytes())
}

/// Prints a body byte for byte; on a terminal as text in which nothing steers it.
pub(super) fn body(bytes: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() { text(&String::from_utf8_lossy(bytes)) } else { write(bytes) }
}

/// Prints answers, each as it is or in words.
pub(super) fn values<'a>(
    values: impl IntoIterator<Item = &'a Value>,
    json: bool,
    words: fn(&Value) -> String,
) -> Result<(), Failure> {
    for value in values {
        line(&if json { value.to_string() } else { words(value) })?;
    }
    Ok(())
}

/// A line on standard error, as far as there is one. It may quote what somebody typed, but no password in an address.
pub(super) fn tell(text: &str) {
    let text = printable::without_passwords(text);
    let _ = io::stderr().write_all(format!("{}\n", printable::lines(&text)).as_bytes());
}

/// A member of an answer, fit for a line: senders, handlers and agents wrote most of them.
pub(super) fn member<'a>(value: &'a Value, key: &str) -> Cow<'a, str> {
    printable::escaped(value[key].as_str().unwrap_or("-"))
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
        Err(error) => Err(Failure::Other(error.into())),
    }
}
