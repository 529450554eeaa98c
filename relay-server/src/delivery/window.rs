//! How many attempts the pump has under way at an endpoint, and how many it may have: few after a rest, then more.
//!
//! A handler that comes back to a long backlog meets it gently: each success makes the window one larger, so that it
//! doubles with every round. Pure: the caller says what happened, the window says how much may begin.

const GENTLE: usize = 4;

const MOST: usize = 64;

/// Of so many events one is the newest, so that a long backlog does not hold up new traffic.
const NEWEST_SHARE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    in_flight: usize,
    size: usize,
    /// Of the last [`NEWEST_SHARE`] events, how many have begun.
    turn: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { in_flight: 0, size: GENTLE, turn: 0 }
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
        if delivered {
            self.size = (self.size + 1).min(MOST);
        }
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
