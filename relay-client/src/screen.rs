//! The view of `listen` in a terminal: events as they come, one of them in full, search, replay.
//!
//! ```text
//! agent ─▶ report's queue ─▶ thread `report` ─┐
//! relay ◀─▶ task `RelayEnd` ──────────────────┼─▶ News ─▶ thread `screen`: ScreenView ─▶ terminal
//! terminal ─▶ thread `keys` ──────────────────┘              └─▶ Question, Asked
//! ```
//!
//! What the view holds and how it looks is pure ([`state`], [`frame`]); this module owns the terminal and moves values.
//! It shows and asks; it delivers nothing, and the agent never waits for it.
//!
//! Invariants: it draws at most 20 frames a second, and only what changed; one thread writes to the terminal, which
//! gets it back as it was; every channel is bounded. Where the view fails, lines are printed in its place.

mod act;
mod body;
mod compare;
mod detail;
mod errands;
mod file;
mod frame;
mod fulfil;
mod head;
mod input;
mod keys;
mod known;
mod list;
mod log;
mod look;
mod news;
mod own;
mod peek;
mod relay;
mod rows;
mod search;
mod sheet;
mod show;
mod signals;
mod state;
mod stream;
mod summary;
mod term;
#[cfg(test)]
mod tests;
mod units;
mod way;
mod wish;
mod wrap;

use std::{
    io::{self, IsTerminal as _},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use relay_program::process::Asked;
use tokio::sync::mpsc;

pub(crate) use self::{log::line as log_line, relay::RelayEnd};
use self::{look::Look, news::News, state::ScreenView};
use crate::report::{self, Watcher};

/// News that may wait for the view.
const MAX_NEWS: usize = 1024;
/// Questions that may wait for the relay.
const MAX_QUESTIONS: usize = 64;
/// How long the terminal may take to get back.
const LEAVING: Duration = Duration::from_secs(2);

/// What the view is about.
pub(crate) struct ScreenSettings {
    pub agent: String,
    /// The relay's name.
    pub host: String,
    pub ascii: bool,
    pub colours: bool,
}

/// A view that is shown.
pub(crate) struct Screen {
    news: mpsc::Sender<News>,
    asked: Option<mpsc::Receiver<Asked>>,
    relay: Option<RelayEnd>,
    gone: Receiver<()>,
}

/// Whether there is a terminal at both ends that a view can be shown on.
pub(crate) fn is_possible() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !(cfg!(unix) && is_dumb)
}

/// Whether the locale says that the terminal shows more than ASCII.
pub(crate) fn is_unicode() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set);
    cfg!(windows) || locale.is_none_or(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

impl Screen {
    /// Takes the terminal and shows the view.
    pub(crate) fn start(settings: ScreenSettings) -> io::Result<Self> {
        let (news, taken) = mpsc::channel(MAX_NEWS);
        let (questions, questions_taken) = mpsc::channel(MAX_QUESTIONS);
        let (ask, asked) = mpsc::channel(4);
        let (going, gone) = channel();
        let look = Look { ascii: settings.ascii, colours: settings.colours };
        let view = ScreenView::new(settings.agent, settings.host, look, TimeZone::system());
        let shown = show::ViewThread::new(view, taken, questions, ask)?;
        log::begin(news.clone());
        std::thread::Builder::new().name("screen".to_owned()).spawn(move || {
            // Told also where the thread panics.
            let _going = going;
            shown.run();
        })?;
        let relay = Some(RelayEnd { questions: questions_taken, news: news.clone() });
        Ok(Self { news, asked: Some(asked), relay, gone })
    }

    /// Where reports go.
    pub(crate) fn watcher(&self) -> Watcher {
        let news = self.news.clone();
        let zone = TimeZone::system();
        Box::new(move |events| {
            while let Some(event) = events.pop_front() {
                let line = report::plain_line(&event, &zone);
                if let Err(mpsc::error::SendError(news)) = news.blocking_send(News::Reported { event, line }) {
                    // The view is gone: what it did not get is printed.
                    if let News::Reported { event, .. } = news {
                        events.push_front(event);
                    }
                    return false;
                }
            }
            true
        })
    }

    pub(crate) fn relay_end(&mut self) -> Option<RelayEnd> {
        self.relay.take()
    }

    /// What a person asks for at the keyboard.
    pub(crate) fn asked(&mut self) -> Option<mpsc::Receiver<Asked>> {
        self.asked.take()
    }

    /// Gives the terminal back, with the last lines on the ordinary screen. Blocks the thread, for [`LEAVING`] at most.
    pub(crate) fn finish(&self) {
        log::end();
        let until = Instant::now() + LEAVING;
        while let Err(mpsc::error::TrySendError::Full(_)) = self.news.try_send(News::End) {
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = until.saturating_duration_since(Instant::now());
        if self.gone.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            // Its thread waits for a terminal that takes nothing.
            term::cook();
        }
    }
}
