//! What the user sees: the state of the connection and one line per exchange.
//!
//! Hands events to a thread that renders and writes them. It is a side tap: deliveries never wait for it, and it
//! decides nothing. Logs for operators are `tracing`'s business, not this module's.
//!
//! Invariants: a call here never blocks on a terminal or pipe; what waits to be written is bounded, and what is
//! dropped is counted and admitted; "ready" is printed only when somebody reports a welcome. Once nobody reads the
//! lines any more, [`Reporter::reader_gone`] ends, and nothing more is written.

mod event;
mod human;
mod queue;
#[cfg(test)]
mod tests;
pub(crate) mod units;

use std::{
    collections::VecDeque,
    io::{ErrorKind, Write},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use relay_proto::printable;
use tokio_util::sync::CancellationToken;

pub(crate) use self::event::Event;
pub(crate) use self::event::{AgentRole, AgentState, Line, Notice, Outcome, ReadyEndpoint, event_name};
use self::queue::{Handle, Queue};

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Output {
    /// Everything, with endpoints, event ids and notes.
    #[default]
    Interactive,
    /// A view of the whole terminal, with search and replay.
    #[cfg(feature = "screen")]
    Screen,
    /// One short line for each exchange.
    Compact,
    /// Problems of the connection and the handlers only.
    Quiet,
    /// One JSON object per line, all on standard output.
    Json,
}

/// Takes events in place of whoever prints lines; false, with what is left of them, where it does not any more. It may
/// wait: the queue before it turns away what is too much.
pub(crate) type Watcher = Box<dyn FnMut(&mut VecDeque<Event>) -> bool + Send>;

/// How an event is printed, without colours; none if it is not.
#[cfg(feature = "screen")]
pub(crate) fn plain_line(event: &Event, zone: &TimeZone) -> Option<String> {
    let style = Style { output: Output::Interactive, zone: zone.clone(), colours: false };
    let (_, line) = human::render(event, &style)?;
    Some(anstream::adapter::strip_str(&line).to_string())
}

/// Whether lines are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// Whether standard output takes colours.
    #[cfg(feature = "screen")]
    pub(crate) fn is_on(self) -> bool {
        anstream::AutoStream::new(std::io::stdout(), self.choice()).current_choice() != anstream::ColorChoice::Never
    }

    fn choice(self) -> anstream::ColorChoice {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
    }
}

/// Where an event is written: results to standard output, the rest to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Out,
    Err,
}

/// How events become text.
#[derive(Debug, Clone)]
struct Style {
    output: Output,
    zone: TimeZone,
    /// Whether standard output takes colours.
    colours: bool,
}

impl Style {
    fn render(&self, event: &Event) -> Option<(Sink, String)> {
        match self.output {
            Output::Json => {
                let object = serde_json::to_string(event).expect("strings and numbers are JSON");
                Some((Sink::Out, format!("{}\n", printable::lines(&object))))
            }
            _ => human::render(event, self),
        }
    }
}

/// Whether standard output and standard error are the same pipe or file, as with `2>&1`.
#[cfg(unix)]
fn is_one_output() -> bool {
    use std::os::{fd::AsFd as _, unix::fs::MetadataExt as _};
    let identity = |descriptor: std::io::Result<std::os::fd::OwnedFd>| {
        let metadata = std::fs::File::from(descriptor.ok()?).metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let out = identity(std::io::stdout().as_fd().try_clone_to_owned());
    out.is_some() && out == identity(std::io::stderr().as_fd().try_clone_to_owned())
}

/// Elsewhere it cannot be known.
#[cfg(not(unix))]
fn is_one_output() -> bool {
    false
}

/// One of the two places that text is written to.
struct Writer {
    stream: Box<dyn Write + Send>,
    /// Colours are taken out of the text.
    plain: bool,
}

impl Writer {
    fn new<S: anstream::stream::RawStream + anstream::stream::AsLockedWrite + Send + 'static>(
        stream: anstream::AutoStream<S>,
    ) -> Self {
        let plain = stream.current_choice() == anstream::ColorChoice::Never;
        if plain {
            return Self { stream: Box::new(stream.into_inner()), plain };
        }
        Self { stream: Box::new(stream), plain }
    }

    /// Writes all of the text at once.
    fn write(&mut self, text: &str) -> std::io::Result<()> {
        if self.plain && text.contains('\u{1b}') {
            self.stream.write_all(anstream::adapter::strip_str(text).to_string().as_bytes())?;
        } else {
            self.stream.write_all(text.as_bytes())?;
        }
        self.stream.flush()
    }
}

struct Writers {
    out: Writer,
    err: Writer,
    /// Both lead to the same reader.
    one_output: bool,
}

impl Writers {
    /// Writes events in their order, with one write for neighbours that go to the same place. An error means that
    /// nobody reads the lines any more.
    fn write(&mut self, style: &Style, events: &[Event]) -> std::io::Result<()> {
        let (mut text, mut sink) = (String::with_capacity(events.len() * human::LINE_BYTES), Sink::Out);
        for event in events {
            let Some((of_event, line)) = style.render(event) else { continue };
            if of_event != sink {
                self.write_text(sink, &text)?;
                text.clear();
            }
            sink = of_event;
            text.push_str(&line);
        }
        self.write_text(sink, &text)
    }

    fn write_text(&mut self, sink: Sink, text: &str) -> std::io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let writer = match sink {
            Sink::Out => &mut self.out,
            Sink::Err => &mut self.err,
        };
        match writer.write(text) {
            // Without a reader of notes alone the lines still have theirs.
            Err(error) if error.kind() == ErrorKind::BrokenPipe && (sink == Sink::Out || self.one_output) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Takes events for the user. Clones share one writer, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct Reporter(Arc<Lines>);

struct Lines {
    handle: Handle,
    reader_gone: CancellationToken,
}

impl Reporter {
    /// Writes to the process's standard output and error, in local time.
    ///
    /// Events go to `watcher` for as long as there is one.
    pub(crate) fn new(output: Output, color: Color, watcher: Option<Watcher>) -> Self {
        let writers = Writers {
            out: Writer::new(anstream::AutoStream::new(std::io::stdout(), color.choice())),
            err: Writer::new(anstream::AutoStream::new(std::io::stderr(), color.choice())),
            one_output: is_one_output(),
        };
        let colours = !writers.out.plain;
        Self::start(Style { output, zone: TimeZone::system(), colours }, writers, watcher)
    }

    fn start(style: Style, mut writers: Writers, mut watcher: Option<Watcher>) -> Self {
        let queue = Arc::new(Queue::default());
        let work = Arc::clone(&queue);
        let reader_gone = CancellationToken::new();
        let gone = reader_gone.clone();
        // Without the thread nothing is shown, but webhooks still arrive.
        let started = std::thread::Builder::new().name("report".to_owned()).spawn(move || {
            let mut batch = Vec::new();
            loop {
                work.next(&mut batch);
                if batch.is_empty() {
                    return;
                }
                if let Some(watches) = &mut watcher {
                    let mut events: VecDeque<_> = std::mem::take(&mut batch).into();
                    if watches(&mut events) {
                        continue;
                    }
                    (watcher, batch) = (None, events.into());
                }
                if !gone.is_cancelled() && writers.write(&style, &batch).is_err() {
                    gone.cancel();
                }
                batch.clear();
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "nothing can be shown");
        }
        Self(Arc::new(Lines { handle: Handle(queue), reader_gone }))
    }

    /// Ends when whoever read the lines has seen enough, as in `| head -1`.
    pub(crate) async fn reader_gone(&self) {
        self.0.reader_gone.cancelled().await;
    }

    pub(crate) fn state(&self, state: AgentState) {
        self.0.handle.push(Event::State { time: Timestamp::now(), state });
    }

    pub(crate) fn exchange(&self, line: Line) {
        self.0.handle.push(Event::Exchange(line));
    }

    /// The relay turned a webhook away before it came here.
    pub(crate) fn refused(&self, notice: Notice) {
        self.0.handle.push(Event::Refused(notice));
    }

    /// Something the user should know, though all goes on.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.0.handle.push(Event::Warning { time: Timestamp::now(), message: message.into() });
    }

    /// Waits until all is written, or for `limit` at most; for the end of the program. Blocks the thread.
    pub(crate) fn flush(&self, limit: Duration) {
        self.0.handle.flush(limit);
    }
}
