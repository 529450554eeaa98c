//! What a command prints, and the one place where it is.
//!
//! Results go to standard output, the rest to standard error. Invariants: nothing reaches a terminal from here with
//! characters in it that steer one; a reader that has gone away ends a command without a word, and never in a panic.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use relay_proto::printable;
use serde::Deserialize;
use serde_json::Value;

use crate::Failure;

/// Longest answer of a person, in bytes.
const MAX_ANSWER_BYTES: u64 = 256;

pub fn print(text: &str) -> Result<(), Failure> {
    write(printable::lines(text).as_bytes())
}

pub fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Prints a body byte for byte; on a terminal as text in which nothing steers it.
pub fn body(bytes: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(&String::from_utf8_lossy(bytes)) } else { write(bytes) }
}

/// Prints an answer of a relay, on a line as it is or in words.
pub fn answer<'a, T: Deserialize<'a> + Default>(
    value: &'a Value,
    json: bool,
    words: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    line(&if json { value.to_string() } else { words(&T::deserialize(value).unwrap_or_default()) })
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

/// Whether a person agrees; `None` where nobody sits at a terminal to be asked.
pub fn confirm(text: &str) -> Option<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return None;
    }
    ask(text);
    let mut answer = String::new();
    let read = io::stdin().lock().take(MAX_ANSWER_BYTES).read_line(&mut answer);
    Some(read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(bytes).and_then(|()| out.flush())?)
}
