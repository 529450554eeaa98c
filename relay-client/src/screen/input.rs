//! Keys, read by a thread of their own so that waiting for one holds up nothing.
//!
//! crossterm reads and understands them. Where a resize and a key come at once it loses sight of the key until the next
//! one, so what it leaves behind is read here.
//!
//! Invariants: nothing is read while the [`InputGate`] is closed, which is how an editor or a shell gets the terminal; a
//! terminal that is gone ends the thread.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ratatui::crossterm::event::{self, Event};
#[cfg(unix)]
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::sync::mpsc;

/// How long one wait for a key is: so long the gate may take to close.
const WAIT: Duration = Duration::from_millis(200);
/// Keys that may wait.
const MAX_KEYS: usize = 64;

/// Stands between the terminal and whoever reads it: whether it is closed.
#[derive(Clone, Default)]
pub(super) struct InputGate(Arc<Mutex<bool>>);

impl InputGate {
    /// Closes it. Nothing is read any more when this returns.
    pub(super) fn close(&self) {
        *self.0.lock() = true;
    }

    pub(super) fn open(&self) {
        *self.0.lock() = false;
    }
}

/// What a person does at the terminal. It ends when the terminal is gone.
pub(super) fn events(gate: InputGate) -> io::Result<mpsc::Receiver<Event>> {
    let (keys, taken) = mpsc::channel(MAX_KEYS);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while !keys.is_closed() {
            let closed = gate.0.lock();
            if *closed {
                drop(closed);
                std::thread::sleep(WAIT);
                continue;
            }
            let Ok(events) = next() else { return };
            drop(closed);
            for event in events {
                if keys.blocking_send(event).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(taken)
}

/// Whether the terminal is gone. Where it goes at the very moment at which crossterm reads, the thread of the keys does not
/// come back to say so.
#[cfg(unix)]
pub(super) fn is_gone() -> bool {
    is_ready(Duration::ZERO).is_err()
}

#[cfg(not(unix))]
pub(super) fn is_gone() -> bool {
    false
}

/// The events that come soon. An error: the terminal is gone.
///
/// crossterm itself reads a terminal that is gone for ever, so it is only asked where the terminal is there.
#[cfg(unix)]
fn next() -> io::Result<Vec<Event>> {
    is_ready(Duration::ZERO)?;
    // What was read together comes one by one.
    if !event::poll(Duration::ZERO)? && !is_ready(WAIT)? {
        return Ok(Vec::new());
    }
    if event::poll(Duration::ZERO)? {
        return Ok(vec![event::read()?]);
    }
    if is_ready(Duration::ZERO)? { left_behind() } else { Ok(Vec::new()) }
}

/// What crossterm did not see although it is there.
#[cfg(unix)]
fn left_behind() -> io::Result<Vec<Event>> {
    let mut bytes = [0; 256];
    let count = rustix::io::read(io::stdin(), &mut bytes[..])?;
    if count == 0 {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(understood(&String::from_utf8_lossy(&bytes[..count])))
}

/// Keys by what terminals send for them; what is none of these is left out.
#[cfg(unix)]
fn understood(mut text: &str) -> Vec<Event> {
    const SEQUENCES: [(&str, KeyCode); 10] = [
        ("\x1b[A", KeyCode::Up),
        ("\x1bOA", KeyCode::Up),
        ("\x1b[B", KeyCode::Down),
        ("\x1bOB", KeyCode::Down),
        ("\x1b[5~", KeyCode::PageUp),
        ("\x1b[6~", KeyCode::PageDown),
        ("\r", KeyCode::Enter),
        ("\t", KeyCode::Tab),
        ("\x7f", KeyCode::Backspace),
        ("\x1b", KeyCode::Esc),
    ];
    let mut events = Vec::new();
    while let Some(char) = text.chars().next() {
        let known = SEQUENCES.iter().find_map(|(sequence, key)| Some((*key, text.strip_prefix(sequence)?)));
        let (key, rest) = match known {
            Some((key, rest)) => (KeyEvent::new(key, KeyModifiers::NONE), rest),
            None => (plain(char), &text[char.len_utf8()..]),
        };
        events.push(Event::Key(key));
        text = rest;
    }
    events
}

#[cfg(unix)]
fn plain(char: char) -> KeyEvent {
    match u8::try_from(char) {
        // Ctrl and a letter.
        Ok(byte @ 1..=26) => KeyEvent::new(KeyCode::Char(char::from(b'a' + byte - 1)), KeyModifiers::CONTROL),
        _ => KeyEvent::new(KeyCode::Char(char), KeyModifiers::NONE),
    }
}

/// Whether there is something to read, now or within a time.
#[cfg(unix)]
fn is_ready(wait: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    match poll(&mut terminal, Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    if terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(true)
}

#[cfg(not(unix))]
fn next() -> io::Result<Vec<Event>> {
    if event::poll(WAIT)? { Ok(vec![event::read()?]) } else { Ok(Vec::new()) }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_behind_is_understood() {
        let keys = |text: &str| -> Vec<(KeyCode, bool)> {
            let key = |event: Event| event.as_key_event().map(|key| (key.code, !key.modifiers.is_empty()));
            understood(text).into_iter().filter_map(key).collect()
        };
        let plain = |char| (KeyCode::Char(char), false);
        assert_eq!(keys("q"), [plain('q')]);
        assert_eq!(keys("\u{3}/ä\r"), [(KeyCode::Char('c'), true), plain('/'), plain('ä'), (KeyCode::Enter, false)]);
        assert_eq!(keys("\u{1b}[B\u{1b}j"), [(KeyCode::Down, false), (KeyCode::Esc, false), plain('j')]);
        assert_eq!(keys(""), []);
    }
}
