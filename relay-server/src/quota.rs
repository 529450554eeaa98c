//! What each token's own endpoints may take, and how many webhooks they had today.
//!
//! A webhook counts once it is proven, whatever becomes of it; what is refused before that, and a provider's challenge,
//! do not. Counting is one atomic step for a webhook of an endpoint that is somebody's own, and nothing for any other.
//! Days are those of UTC. The store gets the counts every [`ROUND`], and at a stop: what a crash takes is counted anew.
//!
//! How many bytes wait in the store is the store's to bound, how many endpoints there are the configuration's.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    store::{Store, StoreError, TokenUse},
    throttle::Throttle,
};

/// How often counts are written into the store.
const ROUND: Duration = Duration::from_secs(5);

/// Endpoints that are a token's own at a time, where it does not say otherwise.
pub(crate) const MAX_ENDPOINTS: usize = 100;

const DAY_S: i64 = 24 * 60 * 60;

/// Bits of a count that shares a word with its day.
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The most webhooks a day that anybody can be allowed: as many as are counted.
pub(crate) const MAX_EVENTS_PER_DAY: u64 = COUNT_MASK;

static NOT_NOTED: Throttle = Throttle::new();

/// How much the endpoints that are a token's own may take, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenQuotas {
    pub max_endpoints: usize,
    /// Bytes in the store.
    pub max_stored: Option<u64>,
    pub max_events_per_day: Option<u64>,
}

impl Default for TokenQuotas {
    fn default() -> Self {
        Self { max_endpoints: MAX_ENDPOINTS, max_stored: None, max_events_per_day: None }
    }
}

/// No more webhooks today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DayIsFull {
    /// Until the next day.
    pub wait: Duration,
}

/// What a token's own endpoints had.
#[derive(Debug)]
pub(crate) struct TokenMeter {
    pub name: Arc<str>,
    /// At most so many a day.
    max_per_day: AtomicU64,
    /// The day, and in the lower bits how many it had.
    today: AtomicU64,
    /// Webhooks that found the day full, and those that found the token's part of the store full.
    pub over_events: AtomicU64,
    pub over_stored: AtomicU64,
    /// What the store has of `today`.
    noted: AtomicU64,
}

fn day_of(now: Timestamp) -> u64 {
    u64::try_from(now.as_second().div_euclid(DAY_S)).unwrap_or(0)
}

impl TokenMeter {
    fn new(name: &Arc<str>, begin: u64) -> Self {
        Self {
            name: Arc::clone(name),
            max_per_day: AtomicU64::new(u64::MAX),
            today: AtomicU64::new(begin),
            over_events: AtomicU64::new(0),
            over_stored: AtomicU64::new(0),
            noted: AtomicU64::new(begin),
        }
    }

    /// Counts a webhook, unless the day has as many as it may.
    pub(crate) fn take(&self, now: Timestamp) -> Result<(), DayIsFull> {
        let (day, most) = (day_of(now), self.max_per_day.load(Ordering::Relaxed));
        let one_more = |before: u64| {
            // A thread that read the clock before midnight counts for the day that has begun.
            let (day, count) = if before >> COUNT_BITS < day { (day, 0) } else { split(before) };
            (count < most.min(COUNT_MASK)).then_some((day << COUNT_BITS) | (count + 1))
        };
        if self.today.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok() {
            return Ok(());
        }
        self.over_events.fetch_add(1, Ordering::Relaxed);
        let gone = u64::try_from(now.as_second().rem_euclid(DAY_S)).unwrap_or(0);
        Err(DayIsFull { wait: Duration::from_secs(DAY_S.unsigned_abs() - gone) })
    }

    /// How many there were today.
    pub(crate) fn events_today(&self, now: Timestamp) -> u64 {
        let (day, count) = split(self.today.load(Ordering::Relaxed));
        if day == day_of(now) { count } else { 0 }
    }
}

const fn split(word: u64) -> (u64, u64) {
    (word >> COUNT_BITS, word & COUNT_MASK)
}

/// The meters of all tokens, by which token it is: one that is made anew under an old name begins with nothing.
#[derive(Debug, Default)]
pub(crate) struct TokenMeters(Mutex<HashMap<Arc<str>, Arc<TokenMeter>>>);

impl TokenMeters {
    /// Learns what was counted before this start. To be called before the first meter is asked for.
    pub(crate) async fn recall(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        let kept = store.token_use().await?;
        let mut meters = self.0.lock();
        for TokenUse { token, day, events } in kept {
            let word = (u64::from(day) << COUNT_BITS) | events.min(COUNT_MASK);
            // Its name is known once its row is read.
            let meter = TokenMeter::new(&Arc::from(""), word);
            meters.insert(token.into(), Arc::new(meter));
        }
        drop(meters);
        Ok(())
    }

    /// The meter of a token, with the quota that it has now: the same one for the same token.
    pub(crate) fn meter(&self, id: &Arc<str>, name: &Arc<str>, quotas: &TokenQuotas) -> Arc<TokenMeter> {
        let mut meters = self.0.lock();
        let meter = meters.entry(Arc::clone(id)).or_insert_with(|| Arc::new(TokenMeter::new(name, 0)));
        if meter.name.is_empty() {
            let named = TokenMeter::new(name, meter.today.load(Ordering::Relaxed));
            *meter = Arc::new(named);
        }
        meter.max_per_day.store(quotas.max_events_per_day.unwrap_or(u64::MAX), Ordering::Relaxed);
        Arc::clone(meter)
    }

    /// That of a token which has one.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<TokenMeter>> {
        self.0.lock().get(id).cloned()
    }

    /// Forgets tokens that are gone.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().retain(|id, _| is_there(id));
    }

    /// Writes what has changed since it was written last.
    async fn note(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        let changed: Vec<_> = {
            let meters = self.0.lock();
            let words = meters.iter().map(|(id, meter)| (Arc::clone(id), Arc::clone(meter)));
            let words = words.map(|(id, meter)| (id, meter.today.load(Ordering::Relaxed), meter));
            words.filter(|(_, word, meter)| *word != meter.noted.load(Ordering::Relaxed)).collect()
        };
        if changed.is_empty() {
            return Ok(());
        }
        let row = |(id, word, _): &(Arc<str>, u64, Arc<TokenMeter>)| {
            let (day, events) = split(*word);
            TokenUse { token: id.to_string(), day: u32::try_from(day).unwrap_or(u32::MAX), events }
        };
        store.note_token_use(changed.iter().map(row).collect()).await?;
        changed.iter().for_each(|(_, word, meter)| meter.noted.store(*word, Ordering::Relaxed));
        Ok(())
    }
}

/// Keeps what is counted in the store, until `stop` and once more then.
pub(crate) async fn keep_counts(meters: Arc<TokenMeters>, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = tokio::select! {
            () = stop.cancelled() => true,
            _ = round.tick() => false,
        };
        if let Err(error) = meters.note(&store).await
            && let Some(held_back) = NOT_NOTED.pass("")
        {
            tracing::warn!(%error, held_back, "how many webhooks tokens had today could not be noted");
        }
        if is_last {
            return;
        }
    }
}

/// What a token's own endpoints have, for people and for metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenFigures {
    pub name: Arc<str>,
    pub endpoints: usize,
    pub sessions: usize,
    pub stored_bytes: u64,
    pub events_today: u64,
    pub over_events: u64,
    pub over_stored: u64,
}

impl TokenFigures {
    /// Whether it has anything that is its own.
    pub(crate) fn is_of_interest(&self) -> bool {
        self.endpoints > 0 || self.sessions > 0 || self.events_today > 0 || self.over_events + self.over_stored > 0
    }

    /// As a meter and a clock have it, without what others count.
    pub(crate) fn of(name: &Arc<str>, meter: Option<&TokenMeter>, clock: &Clock) -> Self {
        let load = |count: fn(&TokenMeter) -> &AtomicU64| meter.map_or(0, |meter| count(meter).load(Ordering::Relaxed));
        Self {
            name: Arc::clone(name),
            events_today: meter.map_or(0, |meter| meter.events_today(clock.now())),
            over_events: load(|meter| &meter.over_events),
            over_stored: load(|meter| &meter.over_stored),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(DAY_S * 20_000 + second).expect("a time")
    }

    fn meters(most: u64) -> (TokenMeters, Arc<TokenMeter>) {
        let meters = TokenMeters::default();
        let quotas = TokenQuotas { max_events_per_day: Some(most), ..TokenQuotas::default() };
        let meter = meters.meter(&"tok_1".into(), &"alice".into(), &quotas);
        (meters, meter)
    }

    #[test]
    fn a_day_has_so_many_and_the_next_one_begins_anew() {
        let (_, meter) = meters(2);
        assert_eq!([meter.take(at(1)), meter.take(at(2))], [Ok(()), Ok(())]);
        let wait = Duration::from_secs(DAY_S.unsigned_abs() - 3);
        assert_eq!(meter.take(at(3)), Err(DayIsFull { wait }));
        assert_eq!((meter.events_today(at(3)), meter.over_events.load(Ordering::Relaxed)), (2, 1));
        assert_eq!(meter.take(at(DAY_S)), Ok(()));
        assert_eq!(meter.take(at(DAY_S - 1)), Ok(()), "a clock that was read a moment before midnight");
        assert!(meter.take(at(DAY_S)).is_err() && meter.events_today(at(DAY_S)) == 2);
        assert_eq!(meter.events_today(at(2 * DAY_S)), 0);
    }

    #[test]
    fn many_threads_take_no_more_than_there_is() {
        let (_, meter) = meters(5000);
        let taken: usize = std::thread::scope(|scope| {
            let work = || scope.spawn(|| (0..2000).filter(|_| meter.take(at(5)).is_ok()).count());
            let threads: Vec<_> = (0..4).map(|_| work()).collect();
            threads.into_iter().map(|thread| thread.join().expect("ends")).sum()
        });
        assert_eq!(taken, 5000);
    }

    #[tokio::test]
    async fn a_count_outlives_its_process_and_not_its_token() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20));
        let (before, meter) = meters(3);
        assert_eq!([meter.take(at(1)), meter.take(at(2))], [Ok(()), Ok(())]);
        before.note(&store).await.expect("noted");
        let after = TokenMeters::default();
        after.recall(&store).await.expect("read");
        let quotas = TokenQuotas { max_events_per_day: Some(3), ..TokenQuotas::default() };
        let meter = after.meter(&"tok_1".into(), &"alice".into(), &quotas);
        assert_eq!((&*meter.name, meter.events_today(at(3))), ("alice", 2));
        assert!(meter.take(at(3)).is_ok() && meter.take(at(4)).is_err());
        let other = after.meter(&"tok_2".into(), &"alice".into(), &quotas);
        assert_eq!(other.events_today(at(4)), 0, "the same name, another token");
        after.keep_only(|id| id == "tok_2");
        assert!(after.find("tok_1").is_none());
    }
}
