//! When a certificate is ordered, renewed, and its order tried again: pure decisions.
//!
//! Knows no clock, no randomness, no network: what is known, the time and a random number come in, a step goes out.
//! Invariants: behind a failed order, and behind one whose certificate would be renewed soon, lies a wait of about a minute
//! or more, which grows; no wait, whoever asked for it, is longer than [`LONGEST_WAIT`], also where the clock was set back
//! meanwhile.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::retry::Schedule;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest wait that a CA may ask for. Let's Encrypt counts its limits by the week.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often the CA is asked when a certificate should be renewed, where it does not say, does not know, or fails.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 60 * 60);

/// From when on a certificate is good, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Validity {
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }

    /// Whether a certificate in its place at `now` came sooner than anybody should want one. A CA that wants each of them
    /// renewed at once gets no end of orders otherwise.
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        now < self.at((1 << 16) / 3)
    }

    /// A time in the lifetime, by how much of it is over, in 65,536ths.
    fn at(&self, part: u64) -> Timestamp {
        let lifetime = u64::try_from(self.until.duration_since(self.from).as_secs()).unwrap_or(0);
        // A lifetime has fewer than 2^40 seconds.
        let into = (lifetime >> 16) * part + (((lifetime & 0xffff) * part) >> 16);
        later(self.from, Duration::from_secs(into))
    }
}

/// In which time the CA wants a certificate to be renewed (RFC 9773).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RenewalWindow {
    pub start: Timestamp,
    pub end: Timestamp,
}

/// Orders that failed since the last one that did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct FailedOrders {
    count: u32,
    last: Timestamp,
    retry_at: Timestamp,
    /// What of the wait the CA asked for.
    asked_until: Option<Timestamp>,
}

impl FailedOrders {
    /// One more failed at `now`; `random` is evenly drawn from all of `u32`.
    pub(super) fn and(before: Option<Self>, asked: Option<Duration>, random: u32, now: Timestamp) -> Self {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let schedule = Schedule::Exponential { first: MINUTE, factor: 2, longest: DAY, attempts: u32::MAX };
        let own = schedule.next(count, None, random, now).unwrap_or(now);
        let asked_until = asked.map(|asked| later(now, asked.min(LONGEST_WAIT)));
        Self { count, last: now, retry_at: asked_until.map_or(own, |asked| asked.max(own)), asked_until }
    }

    /// Somebody started the relay anew or changed its settings, and may have put right what was wrong: the wait is a
    /// minute since the last failure, unless the CA asked for more.
    pub(super) fn forgiven(self) -> Self {
        let retry_at = later(self.last, MINUTE).max(self.asked_until.unwrap_or(Timestamp::MIN));
        Self { count: 1, retry_at: retry_at.min(self.retry_at), ..self }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn retry_at(&self, now: Timestamp) -> Timestamp {
        self.retry_at.min(later(now, LONGEST_WAIT))
    }
}

/// What is known of one certificate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Situation {
    /// The certificate that there is.
    pub held: Option<Validity>,
    pub window: Option<RenewalWindow>,
    /// When the CA is asked for the window; never where there is nobody to ask.
    pub ask_at: Option<Timestamp>,
    pub failed: Option<FailedOrders>,
    /// Drawn once for each certificate, so that a crowd of relays does not come at one moment.
    pub random: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Order,
    /// The CA is asked when it wants the certificate to be renewed.
    AskWindow,
    Wait(Timestamp),
}

impl Situation {
    pub(super) fn next(&self, now: Timestamp) -> Step {
        let retry_at = self.failed.map_or(Timestamp::MIN, |failed| failed.retry_at(now));
        let order_at = self.renew_at().unwrap_or(now).max(retry_at);
        let ask_at = self.ask_at.filter(|_| self.held.is_some());
        if order_at <= now {
            return Step::Order;
        }
        match ask_at {
            Some(at) if at <= now => Step::AskWindow,
            Some(at) => Step::Wait(order_at.min(at)),
            None => Step::Wait(order_at),
        }
    }

    /// A time in the CA's window, or a little behind two thirds of the lifetime. A window that leaves less than a tenth
    /// of it is none: what would then fail once would fail for good.
    pub(super) fn renew_at(&self) -> Option<Timestamp> {
        const WHOLE: u64 = 1 << 16;
        let held = self.held?;
        let spread = u64::from(self.random >> 16);
        let chosen = match self.window {
            Some(RenewalWindow { start, end }) if start < end => Validity { from: start, until: end }.at(spread),
            _ => held.at(2 * WHOLE / 3 + spread / 30),
        };
        Some(chosen.min(held.at(9 * WHOLE / 10)))
    }
}

/// When the window is asked for again, by what the CA says of it.
pub(super) fn ask_again(says: Option<Duration>, now: Timestamp) -> Timestamp {
    later(now, says.map_or(ASK_AGAIN, |says| says.clamp(MINUTE, DAY)))
}

/// How long a sleep may be: a clock that was set, or a machine that slept, is noticed within an hour.
pub(super) fn nap(until: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO).min(HOUR)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: i64 = 24 * 60 * 60;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn days(from: i64, until: i64) -> Option<Validity> {
        Some(Validity { from: at(from * D), until: at(until * D) })
    }

    fn order_at(situation: &Situation) -> i64 {
        let mut now = at(0);
        loop {
            match situation.next(now) {
                Step::Order => return now.as_second(),
                Step::Wait(next) => {
                    assert!(next > now, "time goes on");
                    now = next;
                }
                Step::AskWindow => panic!("nobody is to be asked"),
            }
        }
    }

    #[test]
    fn without_a_certificate_one_is_ordered_at_once_and_with_a_valid_one_none() {
        assert_eq!(Situation::default().next(at(5)), Step::Order);
        let held = Situation { held: days(0, 90), ..Situation::default() };
        let Step::Wait(renewal) = held.next(at(D)) else { panic!("nothing is due") };
        assert!((59 * D..=60 * D).contains(&renewal.as_second()), "{renewal}");
        assert_eq!(held.next(at(60 * D)), Step::Order, "two thirds are over");
        assert_eq!(held.next(at(1000 * D)), Step::Order, "it has expired");
    }

    #[test]
    fn a_renewal_is_spread_over_a_thirtieth_of_the_lifetime() {
        for (random, expected) in [(0, 60 * D), (1 << 31, 61 * D + D / 2), (u32::MAX, 63 * D)] {
            let found = order_at(&Situation { held: days(0, 90), random, ..Situation::default() });
            assert!((found - expected).abs() < D / 100, "{random}: day {}", found / D);
        }
        // Six days, and a certificate of a few seconds, as tests have them.
        assert_eq!(order_at(&Situation { held: days(0, 6), ..Situation::default() }) / D, 3);
        let brief = Some(Validity { from: at(0), until: at(9) });
        assert!((5..=6).contains(&order_at(&Situation { held: brief, ..Situation::default() })));
    }

    #[test]
    fn the_cas_window_stands_above_the_lifetime() {
        let window = |start, end| Some(RenewalWindow { start: at(start * D), end: at(end * D) });
        let held = Situation { held: days(0, 90), ..Situation::default() };
        let renewed = |window, random| order_at(&Situation { window, random, ..held }) / D;
        assert_eq!(renewed(window(20, 24), 0), 20);
        assert_eq!(renewed(window(20, 24), 1 << 31), 22);
        assert_eq!(renewed(window(-9, -8), 0), 0, "one that is over: now");
        assert_eq!(renewed(window(24, 20), 0), 59, "no window at all: two thirds");
        assert_eq!(renewed(window(400, 500), 0), 80, "one behind the expiry leaves a tenth");
    }

    #[test]
    fn the_window_is_asked_for_when_it_is_time_and_not_before_there_is_a_certificate() {
        let asked = Situation { held: days(0, 90), ask_at: Some(at(7)), ..Situation::default() };
        assert_eq!(asked.next(at(0)), Step::Wait(at(7)));
        assert_eq!(asked.next(at(7)), Step::AskWindow);
        assert_eq!(Situation { held: None, ..asked }.next(at(7)), Step::Order);
        let seconds = |says| (ask_again(says, at(0)) - at(0)).get_seconds();
        assert_eq!(seconds(None), 6 * 60 * 60);
        assert_eq!(seconds(Some(Duration::ZERO)), 60);
        assert_eq!(seconds(Some(Duration::MAX)), D);
    }

    #[test]
    fn failed_orders_back_off_from_a_minute_to_a_day() {
        const MIDDLE: u32 = 1 << 31;
        let (mut failed, mut now, mut waits) = (None, at(0), Vec::new());
        for _ in 0..14 {
            let next = FailedOrders::and(failed, None, MIDDLE, now);
            let situation = Situation { failed: Some(next), ..Situation::default() };
            let Step::Wait(again) = situation.next(now) else { panic!("a wait after a failure") };
            waits.push(again.duration_since(now).as_secs());
            assert_eq!(situation.next(again), Step::Order);
            (failed, now) = (Some(next), again);
        }
        assert_eq!(waits[..4], [60, 120, 240, 480]);
        assert_eq!(waits[11..], [D, D, D]);
        let first = |random| FailedOrders::and(None, None, random, at(0)).retry_at(at(0)).as_second();
        assert!(first(0) < 60 && first(u32::MAX) > 60 && first(0) >= 48, "{} {}", first(0), first(u32::MAX));
    }

    #[test]
    fn what_the_ca_asks_for_is_honoured_within_a_week_and_survives_a_restart() {
        let asked = |wait| FailedOrders::and(None, Some(wait), 0, at(0));
        assert_eq!(asked(3 * HOUR).retry_at(at(0)), at(3 * 60 * 60));
        assert_eq!(asked(3 * HOUR).forgiven().retry_at(at(0)), at(3 * 60 * 60));
        assert_eq!(asked(Duration::MAX).retry_at(at(0)), at(7 * D));
        assert!(asked(Duration::ZERO).retry_at(at(0)) >= at(48), "not less than the schedule");
        let mut many = None;
        for _ in 0..20 {
            many = Some(FailedOrders::and(many, None, 1 << 31, at(0)));
        }
        assert_eq!(many.map(|many| many.retry_at(at(0))), Some(at(D)));
        assert_eq!(many.map(|many| many.forgiven().retry_at(at(0))), Some(at(60)), "a person is there");
    }

    #[test]
    fn a_clock_that_was_set_does_not_end_renewals() {
        let far = FailedOrders::and(None, None, 0, at(10_000 * D));
        let back = Situation { failed: Some(far), ..Situation::default() };
        let Step::Wait(again) = back.next(at(0)) else { panic!("a wait") };
        assert_eq!(again, at(7 * D), "set back by years");
        assert_eq!(nap(again, at(0)), HOUR);
        assert_eq!(nap(at(0), at(7)), Duration::ZERO);
        let early = Situation { held: days(100, 190), ..Situation::default() };
        assert!(matches!(early.next(at(0)), Step::Wait(_)), "not valid yet is no reason to order another");
    }
}
