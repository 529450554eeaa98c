//! Why something failed, in words a person at a terminal understands.
//!
//! Turns library errors into short reasons without paths, peers or secrets. It decides nothing: who branches on
//! an error uses its type, not these strings.

use std::io::{self, ErrorKind};

/// An I/O error as a reason: lower case, no full stop, no "os error" number where a word exists.
pub fn of_io(error: &io::Error) -> String {
    let words = match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset",
        ErrorKind::ConnectionAborted => "connection aborted",
        ErrorKind::BrokenPipe => "connection closed",
        ErrorKind::UnexpectedEof => "connection closed early",
        ErrorKind::TimedOut => "timed out",
        ErrorKind::HostUnreachable => "host unreachable",
        ErrorKind::NetworkUnreachable => "network unreachable",
        ErrorKind::NotFound => "no such file",
        ErrorKind::PermissionDenied => "permission denied",
        _ => return error.to_string(),
    };
    words.to_owned()
}

/// An error with the causes behind it, each once, joined by colons; an I/O cause is the last word.
pub fn of_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = match error.downcast_ref::<io::Error>() {
            Some(io) => of_io(io),
            None => error.to_string(),
        };
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
