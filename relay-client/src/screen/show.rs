//! The thread that owns the terminal: it waits for news and keys, has the view take them, and draws.

use std::{
    io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseEventKind};
use relay_program::process::Asked;
use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until},
};

use super::{
    input::{self, InputGate},
    news::News,
    signals::{TerminalSignal, TerminalSignals},
    state::ScreenView,
    term::{self, Taken},
    wish::Question,
};

/// The least time from one frame to the next.
const FRAME: Duration = Duration::from_millis(50);
/// How often the first line's counts are made anew, and how soon a job in the background sees that it is not any more.
const SLOW: Duration = Duration::from_secs(1);
/// News taken before the next look at the clock.
const MAX_AT_ONCE: usize = 512;

/// The view on its terminal.
pub(super) struct ViewThread {
    pub view: ScreenView,
    news: mpsc::Receiver<News>,
    pub questions: mpsc::Sender<Question>,
    pub asked: mpsc::Sender<Asked>,
    pub taken: Taken,
    pub gate: InputGate,
    keys: mpsc::Receiver<Event>,
    since: Instant,
    /// The view has the terminal: it was not stopped and sent to the background.
    is_here: bool,
}

/// What the thread waits for.
enum Happened {
    News(Option<Box<News>>),
    Key(Option<Event>),
    /// The next frame may be drawn.
    Frame,
    Slow,
    Signal(TerminalSignal),
}

impl ViewThread {
    pub(super) fn new(
        view: ScreenView,
        news: mpsc::Receiver<News>,
        questions: mpsc::Sender<Question>,
        asked: mpsc::Sender<Asked>,
    ) -> io::Result<Self> {
        let taken = Taken::take()?;
        let gate = InputGate::default();
        let keys = input::events(gate.clone())?;
        Ok(Self { view, news, questions, asked, taken, gate, keys, since: Instant::now(), is_here: true })
    }

    pub(super) fn run(mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let shown = runtime.and_then(|runtime| runtime.block_on(self.show()));
        // In this order: the terminal is back before anything is printed.
        term::give_back();
        if let Err(error) = shown {
            relay_program::terminal::note(&format!("the view ended: {error}"));
        }
        let _ = relay_program::terminal::print(&self.view.tally.farewell(self.since.elapsed()));
    }

    async fn show(&mut self) -> io::Result<()> {
        let mut signals = TerminalSignals::new()?;
        let (mut changed, mut next_frame) = (true, Instant::now());
        let mut figures = None;
        loop {
            if changed && self.is_here && Instant::now() >= next_frame {
                self.draw()?;
                (changed, next_frame) = (false, Instant::now() + FRAME);
            }
            let frame = changed && self.is_here;
            let happened = tokio::select! {
                news = self.news.recv() => Happened::News(news.map(Box::new)),
                key = self.keys.recv() => Happened::Key(key),
                () = sleep_until(next_frame.into()), if frame => Happened::Frame,
                signal = signals.next() => Happened::Signal(signal),
                () = sleep(SLOW) => Happened::Slow,
            };
            match happened {
                Happened::Frame => {}
                Happened::News(None) => return Ok(()),
                Happened::News(Some(news)) => {
                    if matches!(*news, News::End) || self.take(*news) {
                        return Ok(());
                    }
                    changed = true;
                }
                Happened::Key(None) => return Err(self.left_alone()),
                Happened::Key(Some(key)) => {
                    self.key(&key);
                    changed = true;
                }
                Happened::Signal(TerminalSignal::Resized) => changed = true,
                Happened::Signal(TerminalSignal::Stop) => self.suspend()?,
                Happened::Slow if input::is_gone() => return Err(self.left_alone()),
                Happened::Slow => {
                    let now = Some(self.view.figures_at_hand(Timestamp::now()));
                    changed |= now != figures;
                    figures = now;
                    changed |= self.come_back()?;
                }
            }
            changed |= self.fulfil()?;
        }
    }

    /// Whoever sat there has gone: what runs is finished.
    fn left_alone(&self) -> io::Error {
        let _ = self.asked.try_send(Asked::Stop);
        io::Error::other("the terminal is gone")
    }

    /// Takes what waits; whether that is the end.
    fn take(&mut self, first: News) -> bool {
        let now = Timestamp::now();
        self.view.handle_news(first, now);
        for _ in 0..MAX_AT_ONCE {
            match self.news.try_recv() {
                Ok(News::End) => return true,
                Ok(news) => self.view.handle_news(news, now),
                Err(_) => break,
            }
        }
        false
    }

    fn key(&mut self, event: &Event) {
        match event {
            Event::Key(key) => {
                #[cfg(debug_assertions)]
                assert!(!is_planted(key), "planted");
                // Esc, and a key that follows at once.
                if key.modifiers == KeyModifiers::ALT {
                    self.view.handle_key(&KeyEvent::from(KeyCode::Esc));
                    return self.view.handle_key(&KeyEvent::from(key.code));
                }
                self.view.handle_key(key);
            }
            Event::Mouse(mouse) => match mouse.kind {
                MouseEventKind::ScrollDown => self.view.step(3),
                MouseEventKind::ScrollUp => self.view.step(-3),
                _ => {}
            },
            _ => {}
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        self.view.settle();
        if !term::is_taken() {
            return Ok(()); // A thread panicked.
        }
        let Self { view, taken, .. } = self;
        taken.terminal.draw(|frame| view.draw(frame, Timestamp::now()))?;
        Ok(())
    }

    /// Stops the process, as a shell's user wants it, and takes the terminal again when it goes on in the foreground.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        if cfg!(not(unix)) {
            return Ok(());
        }
        self.gate.close();
        term::give_back();
        self.is_here = false;
        term::stop();
        self.come_back().map(|_| ())
    }

    /// Takes the terminal again where the process has come back from the background.
    fn come_back(&mut self) -> io::Result<bool> {
        if self.is_here || !term::is_foreground() {
            return Ok(false);
        }
        self.taken.retake()?;
        self.gate.open();
        self.is_here = true;
        Ok(true)
    }
}

/// A key that panics, for the test that a panic leaves the terminal as it was.
#[cfg(debug_assertions)]
fn is_planted(key: &KeyEvent) -> bool {
    key.code == KeyCode::F(12) && std::env::var_os("SCREEN_TEST_PANIC").is_some()
}
