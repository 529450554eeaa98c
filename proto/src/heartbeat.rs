//! When to ping, and when to take the peer for dead.
//!
//! Silence is counted from the last byte that came from the socket, not from the last whole message.
//! A pause of this process (suspend, SIGSTOP) is not the peer's silence: when a timer comes far too
//! late, the peer gets one more ping and the rest of its time.

use core::time::Duration;

use crate::time::Instant;

/// How much too late a timer may come before it is taken for a pause of this process.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Heartbeat {
    ping_after: Duration,
    dead_after: Duration,
    last_heard: Instant,
    /// When this side last looked at the clock at all.
    last_seen: Instant,
    /// When the newest ping was asked for, while nothing has come since.
    pinged: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Ping,
    Dead,
}

impl Heartbeat {
    pub(crate) const fn new(ping_after: Duration, dead_after: Duration, now: Instant) -> Self {
        Self { ping_after, dead_after, last_heard: now, last_seen: now, pinged: None }
    }

    pub(crate) fn set(&mut self, ping_after: Duration, dead_after: Duration) {
        self.ping_after = ping_after;
        self.dead_after = dead_after;
    }

    pub(crate) fn record_activity(&mut self, now: Instant) {
        self.last_heard = self.last_heard.max(now);
        self.last_seen = self.last_seen.max(now);
        self.pinged = None;
    }

    /// The newest instant that this side was given.
    pub(crate) const fn last_seen(&self) -> Instant {
        self.last_seen
    }

    pub(crate) fn next(&self) -> Instant {
        match self.pinged {
            None => self.last_heard.after(self.ping_after),
            Some(_) => self.last_heard.after(self.dead_after),
        }
    }

    pub(crate) fn judge(&mut self, now: Instant) -> Verdict {
        let due = self.next();
        let paused = now.since(due) > PAUSE && now.since(self.last_seen) > PAUSE;
        self.last_seen = self.last_seen.max(now);
        if now < due {
            Verdict::Fine
        } else if paused || self.pinged.is_none() {
            self.last_heard = self.last_heard.max(now.before(self.ping_after));
            self.pinged = Some(now);
            Verdict::Ping
        } else {
            Verdict::Dead
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn heartbeat() -> Heartbeat {
        Heartbeat::new(Duration::from_secs(5), Duration::from_secs(10), at(0))
    }

    #[test]
    fn five_seconds_of_silence_ask_for_a_ping_and_ten_are_death() {
        let mut heartbeat = heartbeat();
        assert_eq!(heartbeat.judge(at(4)), Verdict::Fine);
        assert_eq!(heartbeat.judge(at(5)), Verdict::Ping);
        assert_eq!(heartbeat.judge(at(6)), Verdict::Fine);
        assert_eq!(heartbeat.next(), at(10));
        assert_eq!(heartbeat.judge(at(10)), Verdict::Dead);
    }

    #[test]
    fn any_byte_starts_the_silence_anew() {
        let mut heartbeat = heartbeat();
        assert_eq!(heartbeat.judge(at(5)), Verdict::Ping);
        heartbeat.record_activity(at(9));
        assert_eq!(heartbeat.judge(at(10)), Verdict::Fine);
        assert_eq!(heartbeat.next(), at(14));
    }

    #[test]
    fn a_pause_of_this_process_gives_the_peer_one_more_ping() {
        let mut heartbeat = heartbeat();
        assert_eq!(heartbeat.judge(at(5)), Verdict::Ping);
        assert_eq!(heartbeat.judge(at(65)), Verdict::Ping, "sixty seconds passed between two looks at the clock");
        assert_eq!(heartbeat.next(), at(70));
        assert_eq!(heartbeat.judge(at(70)), Verdict::Dead);
    }
}
