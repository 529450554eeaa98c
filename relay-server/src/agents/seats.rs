//! How many sessions there may be: of all agents together, and of one token.
//!
//! A seat is taken before the upgrade and held until the connection is over, hello or not, so that what a limit bounds
//! is what connections cost. A seat knows its token by name: secrets that follow each other share its seats.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::token::Token;

/// The seats of a relay.
#[derive(Debug)]
pub(crate) struct Seats {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_token: HashMap<Arc<str>, usize>,
}

/// Which limit leaves no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionLimit {
    /// The relay's.
    Relay,
    /// The token's.
    Token,
}

/// A session's seat, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Seats>, Arc<str>);

impl Seats {
    /// So many, all free.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// A seat for an agent with this token.
    ///
    /// # Errors
    /// [`SessionLimit`]
    pub(crate) fn take(self: &Arc<Self>, token: &Token) -> Result<Seat, SessionLimit> {
        let mut taken = self.taken.lock();
        let of_token = taken.of_token.get(&token.name).copied().unwrap_or(0);
        if of_token >= token.max_sessions {
            return Err(SessionLimit::Token);
        }
        if taken.all >= self.max {
            return Err(SessionLimit::Relay);
        }
        taken.all += 1;
        taken.of_token.insert(Arc::clone(&token.name), of_token + 1);
        Ok(Seat(Arc::clone(self), Arc::clone(&token.name)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock();
        taken.all -= 1;
        if let Some(count) = taken.of_token.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                taken.of_token.remove(&self.1);
            }
        }
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
        assert!(seats.lock().of_token.is_empty() && seats.lock().all == 0);
    }
}
