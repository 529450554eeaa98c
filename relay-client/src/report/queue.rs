//! The events between the agent and the thread that writes them.
//!
//! Invariants: pushing never waits for the writer; at most [`MAX_LINES`] lines and [`MAX_RARE`] changes of state
//! wait. A full queue turns away new lines and counts them; of the changes of state, which say what is true now,
//! it forgets the oldest one instead.
//!
//! A relay, or whoever posts to it, may have as much to say as it likes: of requests that were refused, there or here,
//! [`MAX_REFUSED`] are told in a second, and then how many more there were; of changes of state [`MAX_RARE_WRITTEN`] are
//! written in one, and those that newer ones overtake meanwhile are counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::event::Event;

/// Lines that may wait.
pub(super) const MAX_LINES: usize = 1024;
/// Changes of state that may wait beyond those.
pub(super) const MAX_RARE: usize = 64;
/// Requests refused by the relay, and requests of which none was made for a handler, that are told one by one in a second.
pub(super) const MAX_REFUSED: u32 = 10;
/// Changes of state that are written in a second.
const MAX_RARE_WRITTEN: u32 = 20;

const SECOND: Duration = Duration::from_secs(1);

/// Shared by the agent's handles and the writing thread.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
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
    /// Whether the writer has taken an event and not come back.
    writing: bool,
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
    /// Whether one more is to be told, and how many there were before it that were not; else it is one of these.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.paced.take(MAX_REFUSED, now).is_err() {
            self.more += 1;
            return None;
        }
        Some(std::mem::take(&mut self.more))
    }

    /// How many were not told, once their second is over; else how long that still is, if there are any.
    fn poll(&mut self, now: Instant, closed: bool) -> Result<u64, Option<Duration>> {
        match self.paced.left(now) {
            _ if self.more == 0 => Err(None),
            left if left > Duration::ZERO && !closed => Err(Some(left)),
            _ => Ok(std::mem::take(&mut self.more)),
        }
    }
}

fn is_rare(event: &Event) -> bool {
    matches!(event, Event::State(..) | Event::Warning(..))
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
            return Ok(Event::Dropped(std::mem::take(&mut self.dropped)));
        }
        match (self.refused.poll(now, self.closed), self.unmade.poll(now, self.closed)) {
            (Ok(more), other) => {
                self.unmade.more += other.unwrap_or_default(); // Its turn comes next.
                Ok(Event::MoreRefused(more))
            }
            (Err(_), Ok(more)) => Ok(Event::MoreUnmade(more)),
            (Err(one), Err(other)) => Err(one.into_iter().chain(other).min()),
        }
    }

    fn push_line(&mut self, event: Event) {
        if self.events.len() - self.rare < MAX_LINES {
            self.events.push_back(event);
        } else {
            self.dropped += 1;
        }
    }
}

impl Queue {
    /// The next event; waits for it. None once the last handle is gone and all is written.
    pub(super) fn next(&self) -> Option<Event> {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        loop {
            state = match state.poll(Instant::now()) {
                Ok(event) => {
                    state.writing = true;
                    return Some(event);
                }
                Err(Some(left)) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Err(None) if state.closed => return None,
                Err(None) => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent's end. Dropped, it lets the writer finish and end.
pub(super) struct Handle(Arc<Queue>);

impl Handle {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self(queue)
    }

    /// Keeps the event if there is room, and counts it if not.
    pub(super) fn push_lossy(&self, event: Event) {
        self.0.lock().push_line(event);
        self.0.changed.notify_all();
    }

    /// Tells of a request that the relay refused, or counts it.
    pub(super) fn push_refused(&self, event: Event) {
        self.push_counted(event, |state| &mut state.refused, Event::MoreRefused);
    }

    /// Tells of a request of which none was made for a handler, or counts it.
    pub(super) fn push_unmade(&self, event: Event) {
        self.push_counted(event, |state| &mut state.unmade, Event::MoreUnmade);
    }

    fn push_counted(&self, event: Event, counted: fn(&mut State) -> &mut Counted, in_words: fn(u64) -> Event) {
        let mut state = self.0.lock();
        if let Some(more) = counted(&mut state).take(Instant::now()) {
            if more > 0 {
                state.push_line(in_words(more));
            }
            state.push_line(event);
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Keeps the event, if need be in place of the oldest.
    pub(super) fn push_rare(&self, event: Event) {
        let mut state = self.0.lock();
        if state.rare >= MAX_RARE
            && let Some(oldest) = state.events.iter().position(is_rare)
        {
            state.events.remove(oldest);
            state.rare -= 1;
            state.dropped += 1;
        }
        state.events.push_back(event);
        state.rare += 1;
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until all is written, or for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| {
            let uncounted = state.dropped + state.refused.more + state.unmade.more;
            state.writing || !state.events.is_empty() || uncounted > 0
        };
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), limit, busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}
