//! The events between the agent and the thread that writes them.
//!
//! Invariants: pushing never waits for the writer; at most [`MAX_LINES`] lines and [`MAX_RARE`] changes of state wait.
//! A full queue turns away new lines and counts them; of the changes of state, which say what is true now, it forgets
//! the oldest one instead.
//!
//! The first line after a rest is written at once, and those that follow within [`REST`] leave together: a busy agent
//! wakes the writer once for many lines.
//!
//! A relay, or a sender, may cause as many lines as it likes. Of requests that were refused, there or here, the agent
//! prints [`MAX_REFUSED`] in a second, and then how many more there were. Of changes of state it writes
//! [`MAX_RARE_WRITTEN`] in one second, and counts those that newer ones overtake meanwhile.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::event::{Event, Line, Outcome};

/// Lines that may wait.
pub(super) const MAX_LINES: usize = 1024;
/// Changes of state that may wait beyond those.
pub(super) const MAX_RARE: usize = 64;
/// Requests refused by the relay, and requests of which none was made for a handler, that are reported one by one in a second.
pub(super) const MAX_REFUSED: u32 = 10;
/// Changes of state that are written in a second.
const MAX_RARE_WRITTEN: u32 = 20;

/// How long lines gather after the writer has written.
const REST: Duration = Duration::from_millis(10);
/// Events that are written in one go.
const MAX_BATCH: usize = 256;

const SECOND: Duration = Duration::from_secs(1);

/// Shared by the agent's handles and the writing thread.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write, or no time left to gather more.
    work: Condvar,
    /// A batch was written while somebody waits for it.
    written: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// How many of them are changes of state.
    rare: usize,
    dropped: u64,
    refused: Counted,
    unmade: Counted,
    written: Paced,
    /// Events that the writer has taken and not yet written, and how many of them are lines.
    taken: usize,
    taken_lines: usize,
    /// Whether the writer waits for the next event.
    idle: bool,
    /// How many wait until all is written.
    flushing: usize,
    closed: bool,
}

/// So many in a second.
#[derive(Default)]
struct Paced {
    began: Option<Instant>,
    count: u32,
}

impl Paced {
    /// Counts one more, if its second has room for it; else how long that second still is.
    fn take(&mut self, most: u32, now: Instant) -> Result<(), Duration> {
        let left = self.left(now);
        if left == Duration::ZERO {
            *self = Self { began: Some(now), count: 0 };
        }
        if self.count >= most {
            return Err(left);
        }
        self.count += 1;
        Ok(())
    }

    fn left(&self, now: Instant) -> Duration {
        self.began.map_or(Duration::ZERO, |began| SECOND.saturating_sub(now.duration_since(began)))
    }
}

/// So many in a second, and how many more there were.
#[derive(Default)]
struct Counted {
    paced: Paced,
    more: u64,
}

impl Counted {
    /// Counts one more. If it is to be reported: how many there were before it that were not.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.paced.take(MAX_REFUSED, now).is_err() {
            self.more += 1;
            return None;
        }
        Some(std::mem::take(&mut self.more))
    }

    /// How many were not reported, once their second is over; else how long that still is, if there are any.
    fn poll(&mut self, now: Instant, closed: bool) -> Result<u64, Option<Duration>> {
        match self.paced.left(now) {
            _ if self.more == 0 => Err(None),
            left if left > Duration::ZERO && !closed => Err(Some(left)),
            _ => Ok(std::mem::take(&mut self.more)),
        }
    }
}

fn is_rare(event: &Event) -> bool {
    matches!(event, Event::State { .. } | Event::Warning { .. })
}

impl State {
    /// What is to be written now; else how long to wait, if not for more to come.
    fn poll(&mut self, now: Instant) -> Result<Event, Option<Duration>> {
        let next_is_rare = self.events.front().is_some_and(is_rare);
        // At the end nothing waits: there is no more than what stands here.
        if next_is_rare && !self.closed {
            self.written.take(MAX_RARE_WRITTEN, now).map_err(Some)?;
        }
        if let Some(event) = self.events.pop_front() {
            self.rare -= usize::from(next_is_rare);
            return Ok(event);
        }
        if self.dropped > 0 {
            return Ok(Event::Dropped { count: std::mem::take(&mut self.dropped) });
        }
        match (self.refused.poll(now, self.closed), self.unmade.poll(now, self.closed)) {
            (Ok(count), other) => {
                self.unmade.more += other.unwrap_or_default(); // Its turn comes next.
                Ok(Event::MoreRefused { count })
            }
            (Err(_), Ok(count)) => Ok(Event::MoreUnmade { count }),
            (Err(one), Err(other)) => Err(one.into_iter().chain(other).min()),
        }
    }

    /// Keeps the event if there is room, and counts it if not.
    fn push_line(&mut self, event: Event) {
        if self.events.len() - self.rare + self.taken_lines < MAX_LINES {
            self.events.push_back(event);
        } else {
            self.dropped += 1;
        }
    }

    /// Reports a request that no handler got, or counts it.
    fn push_counted(&mut self, event: Event) {
        let unmade = matches!(event, Event::Exchange(_));
        let counted = if unmade { &mut self.unmade } else { &mut self.refused };
        let Some(count) = counted.take(Instant::now()) else { return };
        if count > 0 {
            self.push_line(if unmade { Event::MoreUnmade { count } } else { Event::MoreRefused { count } });
        }
        self.push_line(event);
    }

    /// Keeps the event, if need be in place of the oldest.
    fn push_rare(&mut self, event: Event) {
        if self.rare >= MAX_RARE
            && let Some(oldest) = self.events.iter().position(is_rare)
        {
            self.events.remove(oldest);
            self.rare -= 1;
            self.dropped += 1;
        }
        self.events.push_back(event);
        self.rare += 1;
    }
}

impl Queue {
    /// The events to write next; waits for them. `batch` comes back empty once the last handle is gone and all is
    /// written.
    pub(super) fn next(&self, batch: &mut Vec<Event>) {
        let mut state = self.state.lock();
        let was_busy = std::mem::take(&mut state.taken) > 0;
        state.taken_lines = 0;
        if state.flushing > 0 {
            self.written.notify_all();
        }
        if was_busy && state.events.len() < MAX_BATCH {
            let gathers = |state: &mut State| !state.closed && state.flushing == 0;
            self.work.wait_while_for(&mut state, gathers, REST);
        }
        loop {
            let now = Instant::now();
            let wait = loop {
                match state.poll(now) {
                    Ok(event) => batch.push(event),
                    Err(wait) => break wait,
                }
                if batch.len() == MAX_BATCH {
                    break None;
                }
            };
            if !batch.is_empty() {
                state.taken = batch.len();
                state.taken_lines = batch.iter().filter(|event| !is_rare(event)).count();
                return;
            }
            state.idle = true;
            match wait {
                Some(left) => drop(self.work.wait_for(&mut state, left)),
                None if state.closed => return,
                None => self.work.wait(&mut state),
            }
            state.idle = false;
        }
    }
}

/// The agent's end. Dropped, it lets the writer finish and end.
pub(super) struct Handle(pub(super) Arc<Queue>);

impl Handle {
    /// Takes an event, and wakes the writer if it has nothing else to do.
    pub(super) fn push(&self, event: Event) {
        let mut state = self.0.state.lock();
        match &event {
            Event::State { .. } | Event::Warning { .. } => state.push_rare(event),
            Event::Refused(_) | Event::Exchange(Line { outcome: Outcome::Unmade(_), .. }) => state.push_counted(event),
            _ => state.push_line(event),
        }
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.0.work.notify_one();
        }
    }

    /// Waits until all is written, or for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| {
            let uncounted = state.dropped + state.refused.more + state.unmade.more;
            state.taken > 0 || !state.events.is_empty() || uncounted > 0
        };
        let mut state = self.0.state.lock();
        state.flushing += 1;
        self.0.work.notify_one();
        self.0.written.wait_while_for(&mut state, busy, limit);
        state.flushing -= 1;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.work.notify_one();
    }
}
