//! How many sessions there may be: of all agents together, and of one token.
//!
//! A seat is taken before the upgrade and held until the connection is over, hello or not, so that what a limit bounds
//! is what connections cost. A seat knows its token by name: secrets that follow each other share its seats.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::token::Token;
use crate::tally::{Tallied, Tally};

#[derive(Debug)]
pub(crate) struct Seats {
    free: Arc<Semaphore>,
    of_token: Tally<Arc<str>>,
}

/// Whose limit leaves no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionLimit {
    Relay,
    Token,
}

/// A session's seat, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    _of_token: Tallied<Arc<str>>,
    _of_relay: OwnedSemaphorePermit,
}

impl Seats {
    pub(crate) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))), of_token: Tally::default() }
    }

    /// How many a token has.
    pub(crate) fn of(&self, token: &str) -> usize {
        self.of_token.count(token)
    }

    pub(crate) fn take(&self, token: &Token) -> Result<Seat, SessionLimit> {
        let of_token = self.of_token.take(Arc::clone(&token.name), token.max_sessions).ok_or(SessionLimit::Token)?;
        let of_relay = Arc::clone(&self.free).try_acquire_owned().map_err(|_| SessionLimit::Relay)?;
        Ok(Seat { _of_token: of_token, _of_relay: of_relay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_for_all_and_for_each_token_and_are_given_back() {
        let token = |name: &str, max_sessions| Token {
            name: name.into(),
            hashes: Vec::new(),
            endpoints: Vec::new(),
            rights: Vec::new(),
            max_sessions,
            client: None,
            id: name.into(),
            quotas: Default::default(),
        };
        let (small, large) = (token("small", 1), token("large", 10));
        let seats = Seats::new(3);
        let first = seats.take(&small).expect("a seat");
        assert_eq!(seats.take(&small).map(drop), Err(SessionLimit::Token));
        let others: Vec<_> = (0..2).map(|_| seats.take(&large).expect("a seat")).collect();
        assert_eq!(seats.take(&large).map(drop), Err(SessionLimit::Relay));
        drop(first);
        drop(seats.take(&small).expect("it is free again"));
        drop(others);
        assert_eq!(seats.free.available_permits(), 3);
    }
}
