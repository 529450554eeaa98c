//! In what order, how often and with what faults the events of a recording are sent.
//!
//! Pure: whatever is drawn comes from the seed, so that the same seed and the same file give the same steps. Invariants: at
//! most `reorder` and one steps wait here.

use std::{str::FromStr, sync::Arc, time::Duration};

use relay_program::cassette::CassetteEvent;

/// How far an event may be moved.
const MAX_REORDER: i64 = 100;

/// A part of all events, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share(u8);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = if text == "all" { Some(100) } else { text.trim_end_matches('%').parse().ok() };
        let percent = percent.filter(|percent| *percent <= 100);
        percent.map(Self).ok_or_else(|| format!("{text:?} is no share; write a percentage such as 10%, or all"))
    }
}

/// What is done to the events on purpose.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Disorder {
    /// Sends so many of them twice: 10%, or all
    #[arg(long, value_name = "SHARE")]
    pub duplicate: Option<Share>,
    /// Leaves so many of them out
    #[arg(long, value_name = "SHARE")]
    pub drop: Option<Share>,
    /// Has events change places with others that are at most so many places away
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=MAX_REORDER))]
    pub reorder: u16,
    /// Waits before each event, up to so long
    #[arg(long, value_name = "DURATION", value_parser = crate::config::check::duration)]
    pub delay: Option<Duration>,
    /// Sends so many with a signature that does not match, and expects a 4xx for them; needs --resign
    #[arg(long, value_name = "SHARE")]
    pub bad_signature: Option<Share>,
    /// Sends the body of so many in pieces, with pauses
    #[arg(long, value_name = "SHARE")]
    pub slow: Option<Share>,
    /// Draws the same events, waits and places again [default: another one each time, which is printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// One request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub event: Arc<CassetteEvent>,
    /// Which time it is sent, from 1.
    pub time: u32,
    pub bad_signature: bool,
    pub slow: bool,
    pub wait: Duration,
}

/// Deals the steps of a recording.
pub(crate) struct Deck<'a, I> {
    events: I,
    disorder: &'a Disorder,
    random: fastrand::Rng,
    waiting: Vec<Step>,
    /// Events that were left out.
    pub(crate) dropped: u64,
    /// Events that there were.
    pub(crate) read: u64,
}

impl<'a, E, I: Iterator<Item = Result<CassetteEvent, E>>> Deck<'a, I> {
    pub(crate) fn new(events: I, disorder: &'a Disorder, seed: u64) -> Self {
        Self { events, disorder, random: fastrand::Rng::with_seed(seed), waiting: Vec::new(), dropped: 0, read: 0 }
    }

    /// The next event's steps, if it is not left out. Each event takes the same number of draws.
    fn deal(&mut self, event: CassetteEvent) {
        let Disorder { duplicate, drop, delay, bad_signature, slow, .. } = self.disorder;
        self.read += 1;
        let mut falls = |share: &Option<Share>| self.random.u8(..100) < share.unwrap_or_default().0;
        let (drop, twice, bad_signature, slow) = (falls(drop), falls(duplicate), falls(bad_signature), falls(slow));
        let wait = delay.unwrap_or_default().mul_f64(self.random.f64());
        if drop {
            self.dropped += 1;
            return;
        }
        let step = Step { event: Arc::new(event), time: 1, bad_signature, slow, wait };
        let again = twice.then(|| Step { time: 2, wait: Duration::ZERO, ..step.clone() });
        self.waiting.extend([Some(step), again].into_iter().flatten());
    }
}

impl<E, I: Iterator<Item = Result<CassetteEvent, E>>> Iterator for Deck<'_, I> {
    type Item = Result<Step, E>;

    fn next(&mut self) -> Option<Result<Step, E>> {
        while self.waiting.len() <= usize::from(self.disorder.reorder) {
            match self.events.next() {
                Some(Ok(event)) => self.deal(event),
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        let last = self.waiting.len().min(usize::from(self.disorder.reorder) + 1);
        (last > 0).then(|| Ok(self.waiting.remove(self.random.usize(..last))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(disorder: &Disorder, seed: u64) -> Vec<(u64, u32)> {
        let events = (0..1000).map(|offset_us| Ok::<_, ()>(CassetteEvent { offset_us, ..CassetteEvent::default() }));
        let deck = Deck::new(events, disorder, seed);
        deck.map(|step| step.map(|step| (step.event.offset_us, step.time)).unwrap()).collect()
    }

    #[test]
    fn without_disorder_it_is_the_recording() {
        let plain: Vec<_> = (0..1000).map(|offset| (offset, 1)).collect();
        assert_eq!(dealt(&Disorder::default(), 1), plain);
    }

    #[test]
    fn the_same_seed_deals_the_same_and_as_much_as_was_ordered() {
        let share = |text: &str| Some(text.parse::<Share>().unwrap());
        let wild = Disorder { duplicate: share("20%"), drop: share("10"), reorder: 5, ..Disorder::default() };
        let steps = dealt(&wild, 7);
        assert_eq!(steps, dealt(&wild, 7));
        assert_ne!(steps, dealt(&wild, 8));
        let twice = steps.iter().filter(|(_, time)| *time == 2).count();
        let once = steps.len() - twice;
        assert!((850..950).contains(&once) && (120..260).contains(&twice), "{once} {twice}");
        let places: Vec<_> = steps.iter().map(|(offset, _)| *offset).collect();
        assert!(!places.is_sorted(), "they changed places");
        assert!(places.windows(2).all(|pair| pair[0] < pair[1] + 60), "and came not too far");
        assert_eq!(dealt(&Disorder { drop: share("all"), ..Disorder::default() }, 1), []);
        for wrong in ["", "101%", "-1", "some", "1.5%"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}
