//! Who gets the next exchange: of those that serve an endpoint and take its type, the one with the most capacity left.

use std::sync::{Arc, atomic::Ordering};

use relay_proto::{OpenError, RequestHead};
use relay_tunnel::Handle;
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        copies::Tee,
        places::{RECENTLY, Standing},
    },
    Candidate, Changes, Counted, Load, Place, Registry, Session, State,
};
use crate::webhook::Failure;

/// Agents of an endpoint that are named at most.
const MAX_SHOWN: usize = 100;

impl Registry {
    /// A right to an exchange with the freest agent of an endpoint that takes events of this type.
    ///
    /// # Errors
    /// [`Failure::NoAgent`], [`Failure::Unwanted`] or [`Failure::Busy`].
    pub fn reserve(&self, endpoint: &str, kind: Option<&str>) -> Result<Place, Failure> {
        let mut state = self.lock();
        state.turn = state.turn.wrapping_add(1);
        let turn = state.turn;
        let mut candidates = state.at(endpoint, Standing::Active, kind);
        if candidates.is_empty() && state.rouse(endpoint) {
            candidates = state.at(endpoint, Standing::Active, kind);
        }
        let others = candidates.is_empty() && state.serves_others(endpoint, kind);
        drop(state);
        if candidates.is_empty() {
            return Err(if others { Failure::Unwanted } else { Failure::NoAgent });
        }
        let first = turn % candidates.len();
        candidates.rotate_left(first);
        candidates.sort_by_key(|(_, _, load)| load.in_flight.load(Ordering::Relaxed) - load.capacity);
        let mut failure = Failure::NoAgent;
        for (agent, handle, load) in candidates {
            match handle.reserve() {
                Ok(slot) => return Ok(Place { slot, agent, counted: Counted::new(load) }),
                Err(OpenError::Busy) => failure = Failure::Busy,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// Like [`Registry::reserve`], but waits until `until` for an agent that left a moment ago.
    ///
    /// # Errors
    /// As [`Registry::reserve`].
    pub async fn reserve_or_wait(&self, endpoint: &str, kind: Option<&str>, until: Instant) -> Result<Place, Failure> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.reserve(endpoint, kind) {
                Err(failure @ (Failure::NoAgent | Failure::Unwanted)) if self.expects_one(endpoint, failure) => {
                    let Ok(_place) = self.waiters.try_acquire() else { return Err(failure) };
                    timeout_at(until, changed).await.map_err(|_| failure)?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Exchanges that the agents of an endpoint would take now, at most `most`.
    #[must_use]
    pub fn free(&self, endpoint: &str, most: usize) -> usize {
        let mut state = self.lock();
        let mut agents = state.serving(endpoint);
        if agents.is_empty() && state.rouse(endpoint) {
            agents = state.serving(endpoint);
        }
        drop(state);
        let free = |load: &Load| load.capacity - load.in_flight.load(Ordering::Relaxed);
        let free: i64 = agents.iter().map(|load| free(load).clamp(0, i64::from(u32::MAX))).sum();
        usize::try_from(free).unwrap_or(0).min(most)
    }

    /// How many agents serve an endpoint.
    #[must_use]
    pub fn serving(&self, endpoint: &str) -> usize {
        self.lock().serving(endpoint).len()
    }

    /// Who is attached to an endpoint: the token's name, the agent's, and how it stands. The first hundred.
    #[must_use]
    pub fn attached(&self, endpoint: &str) -> Vec<(Arc<str>, String, Standing)> {
        let state = self.lock();
        let Some(places) = state.places.get(endpoint) else { return Vec::new() };
        let one = |key| {
            let (session, standing) = (state.sessions.get(&key)?, places.standing(key)?);
            Some((Arc::clone(&session.identity.token), session.identity.name.clone(), standing))
        };
        places.all().filter_map(one).take(MAX_SHOWN).collect()
    }

    /// Ends when an agent came, left, or stands otherwise than before.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Whether an agent left a moment ago, or may have before this relay was started, or one is there that must
    /// first answer.
    fn expects_one(&self, endpoint: &str, failure: Failure) -> bool {
        if self.started.elapsed() < RECENTLY {
            return true;
        }
        let state = self.lock();
        let Some(places) = state.places.get(endpoint) else { return false };
        let doubted = || failure == Failure::NoAgent && places.keys(Standing::Active).next().is_some();
        places.left_recently(Instant::now()) || doubted()
    }

    /// Begins copies of an exchange for those that only watch; `None` where nobody does.
    #[must_use]
    pub fn copies(&self, endpoint: &str, kind: Option<&str>, head: impl FnOnce() -> RequestHead) -> Option<Tee> {
        let watching = self.lock().at(endpoint, Standing::Copy, kind);
        if watching.is_empty() {
            return None;
        }
        let head = head();
        let open = |(_, handle, load): Candidate| match handle.reserve() {
            Ok(slot) => Some(slot.open(head.clone(), Box::new(Counted::new(load)))),
            Err(_) => {
                self.copies.count_dropped();
                None
            }
        };
        Some(self.copies.tee(watching.into_iter().filter_map(open)))
    }

    /// Copies that were dropped since the start.
    #[must_use]
    pub fn dropped_copies(&self) -> u64 {
        self.copies.dropped()
    }
}

impl State {
    /// Whether agents serve here, and none of them takes events of this type.
    fn serves_others(&self, endpoint: &str, kind: Option<&str>) -> bool {
        let Some(places) = self.places.get(endpoint) else { return false };
        let active = places.keys(Standing::Active).filter_map(|key| self.sessions.get(&key)?.offered(endpoint));
        let mut takes = active.map(|offered| offered.wanted.takes(kind)).peekable();
        takes.peek().is_some() && !takes.any(|takes| takes)
    }

    /// The sessions of this standing that take exchanges with events of this type.
    fn at(&self, endpoint: &str, standing: Standing, kind: Option<&str>) -> Vec<Candidate> {
        let Some(places) = self.places.get(endpoint) else { return Vec::new() };
        let sessions = places.keys(standing).filter_map(|key| self.sessions.get(&key));
        let ready = sessions.filter(|session| !session.doubted.load(Ordering::Relaxed));
        let with_load = |session: &Arc<Session>| {
            let handle = session.handle.get().filter(|handle| handle.takes_exchanges())?;
            let offered = session.offered(endpoint).filter(|offered| offered.wanted.takes(kind))?;
            Some((Arc::clone(session), handle.clone(), Arc::clone(&offered.load)))
        };
        ready.filter_map(with_load).collect()
    }

    /// The loads of all that serve an endpoint, whatever types they take.
    fn serving(&self, endpoint: &str) -> Vec<Arc<Load>> {
        let Some(places) = self.places.get(endpoint) else { return Vec::new() };
        let sessions = places.keys(Standing::Active).filter_map(|key| self.sessions.get(&key));
        let ready = sessions.filter(|session| !session.doubted.load(Ordering::Relaxed));
        let takes = |session: &&Arc<Session>| session.handle.get().is_some_and(Handle::takes_exchanges);
        ready.filter(takes).filter_map(|session| Some(Arc::clone(&session.offered(endpoint)?.load))).collect()
    }

    /// True when somebody serves an endpoint now that nobody else did.
    fn rouse(&mut self, endpoint: &str) -> bool {
        let Some(places) = self.places.get_mut(endpoint) else { return false };
        let roused = places.rouse(Instant::now());
        let changes: Changes = roused.into_iter().map(|(key, standing)| (endpoint.to_owned(), key, standing)).collect();
        self.tell(&changes);
        !changes.is_empty()
    }
}
