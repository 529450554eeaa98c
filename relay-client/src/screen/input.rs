//! Keys, read by a thread of their own so that waiting for one holds up nothing.
//!
//! Invariants: nothing is read while the [`InputGate`] is closed, which is how an editor or a shell gets the terminal; a
//! terminal that is gone ends the thread.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ratatui::crossterm::event::{self, Event};
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
            let Ok(event) = next() else { return };
            drop(closed);
            if let Some(event) = event
                && keys.blocking_send(event).is_err()
            {
                return;
            }
        }
    })?;
    Ok(taken)
}

/// The next event, if one comes soon. An error: the terminal is gone.
///
/// crossterm itself reads a terminal that is gone for ever, so it is only asked where the terminal is there.
#[cfg(unix)]
fn next() -> io::Result<Option<Event>> {
    is_ready(Duration::ZERO)?;
    // What was read together comes one by one.
    if !event::poll(Duration::ZERO)? && !is_ready(WAIT)? {
        return Ok(None);
    }
    if event::poll(Duration::ZERO)? { event::read().map(Some) } else { Ok(None) }
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
fn next() -> io::Result<Option<Event>> {
    if event::poll(WAIT)? { event::read().map(Some) } else { Ok(None) }
}
