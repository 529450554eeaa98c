//! The terminal: taken and given back, whatever happens.
//!
//! Invariants: it is given back in one order (mouse, alternate screen, cursor, cooked mode), from the guard, at a
//! panic of any thread, and before the process stops; nothing is asked of the terminal that it could leave unanswered.

use std::{
    io::{self, Stdout, Write as _, stdout},
    sync::atomic::{AtomicBool, Ordering},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{DisableMouseCapture, EnableMouseCapture},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, SetTitle, disable_raw_mode, enable_raw_mode},
    },
    layout::Rect,
};

/// Whether the view has the terminal now.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, as long as the view has it.
pub(super) struct Taken {
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Taken {
    /// Takes the terminal, and has it given back where a thread panics. Called once in a process.
    pub(super) fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enter()?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()));
        Ok(Self { terminal: terminal.inspect_err(|_| give_back())? })
    }

    /// Takes it again, after [`give_back`]. Everything is drawn anew.
    pub(super) fn retake(&mut self) -> io::Result<()> {
        enter()?;
        self.redraw()
    }

    /// Has everything drawn anew. Nothing is asked of the terminal but its size, which the system knows.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Whether mouse events come to the view rather than to the terminal's own marking of text.
    pub(super) fn mouse(&self, wanted: bool) -> io::Result<()> {
        if wanted { execute!(stdout(), EnableMouseCapture) } else { execute!(stdout(), DisableMouseCapture) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, SetTitle("relay-client")).inspect_err(|_| give_back())
}

/// Leaves the terminal as it was. Does nothing where the view does not have it.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Whether the view has the terminal.
pub(super) fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Lets the terminal handle lines again, where it takes no output that would tell it more.
pub(super) fn cook() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
    }
}

/// Gives bytes to the terminal's clipboard (OSC 52). Whether it takes them nobody can know.
pub(super) fn copy(bytes: &[u8]) -> io::Result<()> {
    let text = osc52(bytes, std::env::var_os("TMUX").is_some());
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The sequence, through tmux to the terminal behind it where `tmux` says so.
fn osc52(bytes: &[u8], tmux: bool) -> String {
    let text = data_encoding::BASE64.encode(bytes);
    if tmux { format!("\x1bPtmux;\x1b\x1b]52;c;{text}\x07\x1b\\") } else { format!("\x1b]52;c;{text}\x07") }
}

/// Whether this process may draw: a job in the background may not.
#[cfg(unix)]
pub(super) fn is_foreground() -> bool {
    use std::os::fd::AsFd as _;
    rustix::termios::tcgetpgrp(io::stdin().as_fd()).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(not(unix))]
pub(super) fn is_foreground() -> bool {
    true
}

/// Stops this process, as Ctrl+Z does where no view takes it as a key. Comes back when the process goes on.
#[cfg(unix)]
pub(super) fn stop() {
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGSTOP);
}

#[cfg(not(unix))]
pub(super) fn stop() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clipboard_is_only_written() {
        assert_eq!(osc52(b"abc", false), "\x1b]52;c;YWJj\x07");
        assert_eq!(osc52(b"abc", true), "\x1bPtmux;\x1b\x1b]52;c;YWJj\x07\x1b\\");
    }
}
