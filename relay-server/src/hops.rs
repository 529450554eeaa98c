//! The moments at which a webhook passed the places of its way, and what its sender got.
//!
//! An attempt's [`Hops`] are ten numbers: they are written while the webhook is on its way, kept with the attempt, and
//! read by whoever shows it. Nothing here formats, allocates or decides.
//!
//! Invariants: a moment is noted once, and counts from the first byte of the request, or from its own beginning for an
//! attempt that belongs to no request; one beyond 71 minutes is noted as that.

use std::time::Duration;

use tokio::time::Instant;

/// The latest moment that can be noted, 71 minutes.
const MAX_US: u32 = u32::MAX - 1;

const NOT_PASSED: u32 = u32::MAX;

/// A place on the way, in its usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The request's head was read.
    Received,
    /// Its body was there, where it is collected.
    Body,
    Verified,
    /// It was on the disk.
    Stored,
    /// The attempt began: an agent was looked for.
    Attempt,
    /// An agent was there, and the exchange with it began.
    Opened,
    AnswerHead,
    /// The attempt had ended.
    Ended,
    /// The sender was given its answer.
    Answered,
}

impl Hop {
    pub const ALL: [Self; 9] = [
        Self::Received,
        Self::Body,
        Self::Verified,
        Self::Stored,
        Self::Attempt,
        Self::Opened,
        Self::AnswerHead,
        Self::Ended,
        Self::Answered,
    ];
}

/// Whose answer a sender got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Handler,
    /// The endpoint's own, for a kept event.
    Ack,
    /// The relay's word of a failure.
    Relay,
    /// What had been recorded of an earlier one.
    Recorded,
    /// The sender had left.
    Nobody,
}

impl Whose {
    const ALL: [Self; 5] = [Self::Handler, Self::Ack, Self::Relay, Self::Recorded, Self::Nobody];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Ack => "ack",
            Self::Relay => "relay",
            Self::Recorded => "recorded",
            Self::Nobody => "nobody",
        }
    }
}

/// What was noted of one way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hops {
    at_us: [u32; Hop::ALL.len()],
    /// Whose answer, above its status.
    answer: u32,
}

impl Default for Hops {
    fn default() -> Self {
        Self { at_us: [NOT_PASSED; Hop::ALL.len()], answer: NOT_PASSED }
    }
}

impl std::fmt::Debug for Hops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let passed = Hop::ALL.into_iter().filter_map(|hop| Some((hop, self.at_us(hop)?)));
        f.debug_map().entries(passed).entry(&"answer", &self.answered()).finish()
    }
}

impl Hops {
    /// Of all numbers.
    pub(crate) const BYTES: usize = 4 * (Hop::ALL.len() + 1);

    pub(crate) fn at_us(&self, hop: Hop) -> Option<u32> {
        Some(self.at_us[hop as usize]).filter(|at| *at != NOT_PASSED)
    }

    /// Notes a moment, unless one is noted.
    pub fn note(&mut self, hop: Hop, after: Duration) {
        let at = &mut self.at_us[hop as usize];
        if *at == NOT_PASSED {
            *at = u32::try_from(after.as_micros()).unwrap_or(MAX_US).min(MAX_US);
        }
    }

    /// What the sender got: whose answer, and its status where there was one.
    pub fn answered(&self) -> Option<(Whose, Option<u16>)> {
        let whose = *Whose::ALL.get((self.answer >> 16) as usize)?;
        let status = u16::try_from(self.answer & 0xffff).unwrap_or_default();
        Some((whose, Some(status).filter(|status| *status != 0)))
    }

    /// Notes what the sender got, and when.
    pub(crate) fn note_answer(&mut self, whose: Whose, status: Option<u16>, after: Duration) {
        if self.answer == NOT_PASSED {
            self.answer = ((whose as u32) << 16) | u32::from(status.unwrap_or_default());
            self.note(Hop::Answered, after);
        }
    }

    /// From when it counts, in microseconds after the request's first byte, for an attempt that began so long after it.
    pub(crate) fn base_us(&self, started_us: u64) -> u64 {
        let own = self.at_us(Hop::Attempt).map_or(0, u64::from);
        if self.at_us(Hop::Received).is_some() { 0 } else { started_us.saturating_sub(own) }
    }

    /// As an array of [`Hops::BYTES`] bytes.
    pub(crate) fn to_array(self) -> [u8; Self::BYTES] {
        let mut bytes = [self.answer.to_le_bytes(); Hop::ALL.len() + 1];
        for (four, at) in bytes.iter_mut().zip(self.at_us) {
            *four = at.to_le_bytes();
        }
        bytes.as_flattened().try_into().unwrap_or([0; Self::BYTES])
    }

    /// What [`Hops::to_array`] made.
    pub(crate) fn from_array(bytes: [u8; Self::BYTES]) -> Self {
        let mut hops = Self::default();
        for (four, number) in bytes.as_chunks().0.iter().zip(hops.at_us.iter_mut().chain([&mut hops.answer])) {
            *number = u32::from_le_bytes(*four);
        }
        hops
    }

    /// As bytes, 42 at most: a bit for each number that is there, and these.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = || self.at_us.iter().chain([&self.answer]);
        let mask = numbers().enumerate().filter(|(_, at)| **at != NOT_PASSED).fold(0_u16, |mask, (i, _)| mask | 1 << i);
        let mut bytes = Vec::with_capacity(2 + Self::BYTES);
        bytes.extend_from_slice(&mask.to_le_bytes());
        numbers().filter(|at| **at != NOT_PASSED).for_each(|at| bytes.extend_from_slice(&at.to_le_bytes()));
        bytes
    }

    /// What [`Hops::to_bytes`] made. Of anything else, nothing is known.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut hops = Self::default();
        let Some((mask, mut rest)) = bytes.split_first_chunk() else { return hops };
        let mask = u16::from_le_bytes(*mask);
        for (i, at) in hops.at_us.iter_mut().chain([&mut hops.answer]).enumerate() {
            if mask & (1 << i) != 0 {
                let Some((number, after)) = rest.split_first_chunk() else { return Self::default() };
                (*at, rest) = (u32::from_le_bytes(*number), after);
            }
        }
        hops
    }
}

/// A way that is being gone.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// When it began.
    pub from: Instant,
    pub hops: Hops,
}

impl Way {
    pub fn from(began: Instant) -> Self {
        Self { from: began, hops: Hops::default() }
    }

    /// It is here at this moment.
    pub fn pass(&mut self, hop: Hop, now: Instant) {
        self.hops.note(hop, now.duration_since(self.from));
    }

    pub fn answered(&mut self, whose: Whose, status: Option<u16>, now: Instant) {
        self.hops.note_answer(whose, status, now.duration_since(self.from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_comes_back_from_bytes_and_nothing_else_does() {
        let mut hops = Hops::default();
        assert_eq!(Hops::from_bytes(&hops.to_bytes()), hops);
        assert_eq!(Hops::from_array(hops.to_array()), hops);
        hops.note(Hop::Received, Duration::ZERO);
        hops.note(Hop::Opened, Duration::from_micros(3100));
        hops.note(Hop::Opened, Duration::from_micros(9000));
        hops.note(Hop::Ended, Duration::from_secs(1 << 40));
        hops.note_answer(Whose::Ack, Some(202), Duration::from_millis(5));
        hops.note_answer(Whose::Handler, Some(500), Duration::from_millis(6));
        let bytes = hops.to_bytes();
        assert_eq!(Hops::from_array(hops.to_array()), hops);
        assert_eq!((Hops::from_bytes(&bytes), bytes.len()), (hops, 2 + 5 * 4));
        assert_eq!(
            Hop::ALL.map(|hop| hops.at_us(hop)).into_iter().flatten().collect::<Vec<_>>(),
            [0, 3100, MAX_US, 5000]
        );
        assert_eq!(hops.answered(), Some((Whose::Ack, Some(202))));
        assert_eq!((Hops::from_bytes(&bytes[..9]), Hops::from_bytes(b"")), (Hops::default(), Hops::default()));
    }

    #[test]
    fn a_later_attempt_counts_from_its_own_beginning() {
        let mut first = Hops::default();
        first.note(Hop::Received, Duration::from_micros(40));
        first.note(Hop::Attempt, Duration::from_micros(3100));
        let mut later = Hops::default();
        later.note(Hop::Attempt, Duration::ZERO);
        assert_eq!((first.base_us(3222), later.base_us(5_034_000)), (0, 5_034_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_notes_when_it_passes() {
        let mut way = Way::from(Instant::now());
        tokio::time::advance(Duration::from_micros(250)).await;
        way.pass(Hop::Verified, Instant::now());
        assert_eq!(way.hops.at_us(Hop::Verified), Some(250));
        assert_eq!(way.hops.at_us(Hop::Stored), None);
    }
}
