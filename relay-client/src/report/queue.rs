//! The events between the agent and the thread that writes them.
//!
//! Invariants: pushing never waits for the writer; at most [`MAX_LINES`] lines and [`MAX_RARE`] changes of state
//! wait. A full queue turns away new lines and counts them; of the changes of state, which say what is true now,
//! it forgets the oldest entry instead.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::event::Event;

/// Lines that may wait.
pub(super) const MAX_LINES: usize = 1024;
/// Changes of state that may wait beyond those.
const MAX_RARE: usize = 64;

/// Shared by the agent's handles and the writing thread.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    dropped: u64,
    /// Whether the writer has taken an event and not come back.
    writing: bool,
    closed: bool,
}

impl Queue {
    /// The next event; waits for it. None once the last handle is gone and all is written.
    pub(super) fn next(&self) -> Option<Event> {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        loop {
            if let Some(event) = state.events.pop_front() {
                state.writing = true;
                return Some(event);
            }
            if state.dropped > 0 {
                state.writing = true;
                return Some(Event::Dropped(std::mem::take(&mut state.dropped)));
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
        let mut state = self.0.lock();
        if state.events.len() < MAX_LINES {
            state.events.push_back(event);
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Keeps the event, if need be in place of the oldest.
    pub(super) fn push_rare(&self, event: Event) {
        let mut state = self.0.lock();
        if state.events.len() >= MAX_LINES + MAX_RARE {
            state.events.pop_front();
            state.dropped += 1;
        }
        state.events.push_back(event);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until all is written, or for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| state.writing || !state.events.is_empty() || state.dropped > 0;
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
