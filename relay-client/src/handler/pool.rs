//! Connections that wait for their next call.
//!
//! The pool holds idle connections of one target and nothing else; it neither connects nor limits calls.
//!
//! Invariants: at most `max_idle` connections wait, each at most [`MAX_IDLE`]; the youngest is used first; a connection
//! that the handler has closed is never handed out if the close has arrived.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use relay_program::http1;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};

use super::connect::HandlerStream;

/// How long a connection may wait unused: below the five seconds after which Node closes it.
pub(super) const MAX_IDLE: Duration = Duration::from_secs(3);
/// A connection; dropping it closes the socket. It stays where it is from call to call, in a box of its own.
pub(super) struct Connection {
    pub(super) http: http1::Connection<HandlerStream>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(http: http1::Connection<HandlerStream>) -> Self {
        Self { http, timer: None }
    }

    /// A timer that ends then, or before.
    pub(super) fn timer(&mut self, until: Instant) -> &mut Pin<Box<Sleep>> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until || timer.is_elapsed() {
            timer.as_mut().reset(until);
        }
        timer
    }
}

pub(super) struct Pool {
    max_idle: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    idle: VecDeque<(Instant, Box<Connection>)>,
    reaping: bool,
}

impl Pool {
    pub(super) fn new(max_idle: usize) -> Self {
        Self { max_idle, state: Mutex::default() }
    }

    /// The youngest connection that is still good; `now` is when it is asked for.
    pub(super) async fn take(&self, now: Instant) -> Option<Box<Connection>> {
        if self.lock().idle.is_empty() {
            return None;
        }
        // Lets the runtime look at its sockets, so that a close which has arrived is seen before anything is written.
        tokio::task::yield_now().await;
        let mut state = self.lock();
        while let Some((since, mut connection)) = state.idle.pop_back() {
            if now.duration_since(since) < MAX_IDLE && connection.http.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, connection: Box<Connection>) {
        let mut state = self.lock();
        if state.idle.len() >= self.max_idle {
            return;
        }
        state.idle.push_back((Instant::now(), connection));
        if !state.reaping {
            state.reaping = true;
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    #[cfg(test)]
    pub(super) fn idle_count(&self) -> usize {
        self.lock().idle.len()
    }

    /// Closes what is too old, and says when to look again.
    fn close_old(&self) -> Option<Instant> {
        let mut state = self.lock();
        while state.idle.front().is_some_and(|(since, _)| since.elapsed() >= MAX_IDLE) {
            state.idle.pop_front();
        }
        let next = state.idle.front().map(|(since, _)| *since + MAX_IDLE);
        state.reaping = next.is_some();
        next
    }
}

/// Closes connections as they grow too old; ends when none is left or the pool is gone.
async fn reap(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_old()) {
        sleep_until(next).await;
    }
}

/// A connection in use, with the right to use it. Dropped, it closes the connection and gives the right back.
pub(crate) struct Lease {
    /// Since when it was asked for.
    pub(super) began: Instant,
    pub(super) connection: Box<Connection>,
    pub(super) pool: Arc<Pool>,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Keeps the connection for the next call, if it is meant for more.
    pub(super) fn finish(self) {
        if self.connection.http.may_be_reused() {
            self.pool.put(self.connection);
        }
    }
}
