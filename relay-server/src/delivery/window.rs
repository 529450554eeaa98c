//! How many calls of kept events, whose senders do not wait, are under way at an endpoint, and how many may be.
//!
//! - Of those that the pump claimed, few after a rest, then more. A handler that comes back to a long backlog meets it
//!   gently: each success makes the window one larger, so that it doubles with every round. Each failure makes it one
//!   smaller: a handler that fails more often than not is called by few at a time, and leaves the others their share of
//!   the relay and of their agent.
//! - Of those that begin with their append, as many as there is memory for, but none while others wait: what is new would
//!   take each place before the pump has seen that it is free.
//!
//! Pure: the caller says what happened, the window says how much may begin.

const GENTLE: usize = 4;

const MOST: usize = 64;

/// Events that begin with their append, at a time.
const MOST_AT_ONCE: usize = 256;

/// Of so many events one is the newest, so that a long backlog does not hold up new traffic.
const NEWEST_SHARE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    in_flight: usize,
    size: usize,
    /// Of the last [`NEWEST_SHARE`] events, how many have begun.
    turn: usize,
    /// Events that are to begin with their append or have begun so, and those of them that are not kept yet.
    at_once: usize,
    coming: usize,
    /// Events wait that are due, or may do so.
    is_behind: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self { in_flight: 0, size: GENTLE, turn: 0, at_once: 0, coming: 0, is_behind: true }
    }
}

impl Window {
    pub(super) const fn room(&self) -> usize {
        self.size.saturating_sub(self.in_flight)
    }

    /// How many of so many places are for the oldest and how many for the newest.
    pub(super) const fn split(&self, places: usize) -> (usize, usize) {
        let newest = (self.turn + places) / NEWEST_SHARE;
        (places - newest, newest)
    }

    pub(super) const fn begun(&mut self) {
        self.in_flight += 1;
        self.turn = (self.turn + 1) % NEWEST_SHARE;
    }

    pub(super) fn ended(&mut self, delivered: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.size = if delivered { (self.size + 1).min(MOST) } else { (self.size - 1).max(GENTLE) };
    }

    /// Gives an event that comes a place to begin as soon as it is kept; how many are coming then.
    pub(super) fn come(&mut self) -> Option<usize> {
        if self.is_behind || self.at_once >= MOST_AT_ONCE {
            return None;
        }
        (self.at_once, self.coming) = (self.at_once + 1, self.coming + 1);
        Some(self.coming)
    }

    /// One of those was kept, or was not.
    pub(super) const fn came(&mut self) {
        self.coming = self.coming.saturating_sub(1);
    }

    /// One of those has ended.
    pub(super) const fn ended_at_once(&mut self) {
        self.at_once = self.at_once.saturating_sub(1);
    }

    /// Whether events wait that are due: what comes waits behind them.
    pub(super) const fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    pub(super) const fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// From here on it is gentle again.
    pub(super) const fn rest(&mut self) {
        self.size = GENTLE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins all that may, and ends it.
    fn round(window: &mut Window, delivered: bool) -> usize {
        let count = window.room();
        (0..count).for_each(|_| window.begun());
        assert_eq!(window.room(), 0);
        (0..count).for_each(|_| window.ended(delivered));
        count
    }

    #[test]
    fn it_doubles_with_every_round_that_is_delivered_up_to_its_most() {
        let mut window = Window::default();
        let rounds: Vec<_> = (0..6).map(|_| round(&mut window, true)).collect();
        assert_eq!(rounds, [4, 8, 16, 32, 64, 64]);
        window.begun();
        window.rest();
        assert_eq!(window.room(), 3, "what is under way counts");
        window.ended(false);
        assert_eq!([round(&mut window, false), round(&mut window, true), round(&mut window, true)], [4, 4, 8]);
    }

    #[test]
    fn a_handler_that_fails_more_often_than_not_is_called_by_few_at_a_time() {
        let after = |delivered: usize, failed: usize| {
            let mut window = Window::default();
            (0..6).for_each(|_| _ = round(&mut window, true));
            (0..200).for_each(|turn| {
                window.begun();
                window.ended(turn % (delivered + failed) < delivered);
            });
            window.room()
        };
        assert_eq!([after(1, 3), after(0, 1), after(1, 0)], [GENTLE, GENTLE, MOST]);
        assert!(after(3, 1) > MOST - 4, "some failures are not the handler's: {}", after(3, 1));
    }

    #[test]
    fn what_comes_begins_at_once_unless_others_wait() {
        let mut window = Window::default();
        assert_eq!(window.come(), None, "nobody has looked yet");
        window.set_behind(false);
        assert_eq!([window.come(), window.come()], [Some(1), Some(2)]);
        window.came();
        assert_eq!(window.come(), Some(2), "one of them is kept");
        window.set_behind(true);
        assert_eq!(window.come(), None);
        window.set_behind(false);
        let more = (0..MOST_AT_ONCE).filter(|_| window.come().is_some()).count();
        assert_eq!(more, MOST_AT_ONCE - 3);
        window.ended_at_once();
        assert!(window.come().is_some() && window.come().is_none());
        assert_eq!(window.room(), GENTLE, "the pump's places are its own");
    }

    #[test]
    fn a_quarter_is_for_the_newest_however_few_begin_at_a_time() {
        for at_a_time in 1..=9 {
            let (mut window, mut newest, mut all) = (Window::default(), 0, 0);
            while all < 720 {
                let (oldest, new) = window.split(at_a_time);
                assert_eq!(oldest + new, at_a_time);
                (0..at_a_time).for_each(|_| window.begun());
                (newest, all) = (newest + new, all + at_a_time);
            }
            assert_eq!(newest, all / 4, "{at_a_time} at a time");
        }
    }
}
