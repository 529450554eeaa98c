//! The signals that are about the terminal: it has another size, or the process is to stop.

use std::io;

#[derive(Debug, Clone, Copy)]
pub(super) enum TerminalSignal {
    Resized,
    Stop,
}

/// The signals that are about the terminal.
pub(super) struct TerminalSignals {
    #[cfg(unix)]
    resized: tokio::signal::unix::Signal,
    #[cfg(unix)]
    stop: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl TerminalSignals {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let stop = SignalKind::from_raw(signal_hook::consts::SIGTSTP);
        Ok(Self { resized: signal(SignalKind::window_change())?, stop: signal(stop)? })
    }

    pub(super) async fn next(&mut self) -> TerminalSignal {
        tokio::select! {
            _ = self.resized.recv() => TerminalSignal::Resized,
            _ = self.stop.recv() => TerminalSignal::Stop,
        }
    }
}

#[cfg(not(unix))]
impl TerminalSignals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    pub(super) async fn next(&mut self) -> TerminalSignal {
        std::future::pending().await
    }
}
