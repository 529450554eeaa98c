//! Counts and latencies by time: of the last hour in steps of ten seconds, of the last day in steps of five minutes.
//!
//! Nothing is counted here on the way of a webhook: every ten seconds the counters of [`crate::metrics`] are read, and
//! what they have grown by is a step. It is memory alone, and longer than a day is a monitoring system's work. Invariants:
//! a series has so many steps, and there are so many series; endpoints beyond that count together, and only whoever may
//! see everything sees that.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use relay_program::api;

use crate::{
    endpoint::EndpointName,
    metrics::{AnswerClass, EndpointBacklog, LATENCIES, MeterSample, latency_bounds_us},
    store::Sight,
};

/// How often the counters are read.
pub(crate) const ROUND: Duration = Duration::from_secs(FINE_S.unsigned_abs());

const FINE_S: i64 = 10;
const FINE_STEPS: usize = 360;
const COARSE_S: i64 = 300;
const COARSE_STEPS: usize = 288;

/// Endpoints with series of their own.
const MAX_ENDPOINTS: usize = 64;

/// Under which all others count. It is no endpoint's name.
const OTHERS: &str = "";

/// What happened in one step.
#[derive(Clone, Debug, Default)]
struct Step {
    /// Its beginning, in steps since 1970.
    number: i64,
    received: u64,
    success: u64,
    client_error: u64,
    server_error: u64,
    refused: u64,
    failed: u64,
    /// How many answers took how long: by bucket, those alone in which there are any.
    latencies: Vec<(u8, u32)>,
    /// The largest part of a sender's deadline that was used.
    patience: f64,
    waiting: Option<u64>,
    oldest_s: Option<u64>,
}

impl Step {
    fn of(number: i64, before: &MeterSample, now: &MeterSample) -> Self {
        let grown =
            |of: &[AnswerClass]| of.iter().map(|class| now.count(*class).saturating_sub(before.count(*class))).sum();
        let latency =
            |at: usize| u32::try_from(now.latencies[at].saturating_sub(before.latencies[at])).unwrap_or(u32::MAX);
        let of = AnswerClass::Answered;
        Self {
            number,
            received: now.received.saturating_sub(before.received),
            success: grown(&[
                of(1),
                of(2),
                of(3),
                AnswerClass::Acknowledged,
                AnswerClass::Repeated,
                AnswerClass::Challenge,
            ]),
            client_error: grown(&[of(4)]),
            server_error: grown(&[of(5)]),
            refused: grown(&[AnswerClass::Refused, AnswerClass::Rejected]),
            failed: grown(&[AnswerClass::Unavailable, AnswerClass::Failed, AnswerClass::Internal]),
            latencies: (0..LATENCIES)
                .filter_map(|at| Some((u8::try_from(at).ok()?, latency(at))))
                .filter(|(_, n)| *n > 0)
                .collect(),
            patience: now.patience,
            waiting: None,
            oldest_s: None,
        }
    }

    fn is_empty(&self) -> bool {
        let counts = [self.received, self.success, self.client_error, self.server_error, self.refused, self.failed];
        counts.iter().all(|count| *count == 0) && self.latencies.is_empty() && self.waiting.is_none_or(|open| open == 0)
    }

    /// Adds another one, of the same time.
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.success += other.success;
        self.client_error += other.client_error;
        self.server_error += other.server_error;
        self.refused += other.refused;
        self.failed += other.failed;
        for (bucket, count) in &other.latencies {
            match self.latencies.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                Ok(at) => self.latencies[at].1 = self.latencies[at].1.saturating_add(*count),
                Err(at) => self.latencies.insert(at, (*bucket, *count)),
            }
        }
        self.patience = self.patience.max(other.patience);
    }

    /// Adds what happened at another endpoint at the same time.
    fn add_beside(&mut self, other: &Self) {
        self.add(other);
        self.waiting = sum(self.waiting, other.waiting);
        self.oldest_s = self.oldest_s.max(other.oldest_s);
    }

    /// After how many microseconds this part of the answers was there: within the bucket evenly.
    fn percentile(&self, part: f64) -> Option<u64> {
        let all: u64 = self.latencies.iter().map(|(_, count)| u64::from(*count)).sum();
        let mut left = part * all as f64;
        for (bucket, count) in &self.latencies {
            let count = f64::from(*count);
            if left <= count {
                let (low, high) = latency_bounds_us(usize::from(*bucket));
                return Some(low + ((high - low) as f64 * (left / count)) as u64);
            }
            left -= count;
        }
        None
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (one, other) => one.or(other),
    }
}

/// Steps in which something happened, the oldest first.
#[derive(Debug)]
struct Series {
    steps: VecDeque<Step>,
    step_s: i64,
    most: usize,
}

impl Series {
    fn new(step_s: i64, most: usize) -> Self {
        Self { steps: VecDeque::new(), step_s, most }
    }

    fn add(&mut self, second: i64, step: &Step) {
        let number = second.div_euclid(self.step_s);
        match self.steps.back_mut().filter(|last| last.number == number) {
            Some(last) => {
                last.add(step);
                (last.waiting, last.oldest_s) = (step.waiting, step.oldest_s);
            }
            None if step.is_empty() => {}
            None => self.steps.push_back(Step { number, ..step.clone() }),
        }
        self.forget(number);
    }

    fn forget(&mut self, number: i64) {
        let first = number - i64::try_from(self.most).unwrap_or(i64::MAX);
        while self.steps.front().is_some_and(|step| step.number <= first) {
            self.steps.pop_front();
        }
    }
}

#[derive(Debug)]
struct OfEndpoint {
    fine: Series,
    coarse: Series,
}

impl Default for OfEndpoint {
    fn default() -> Self {
        Self { fine: Series::new(FINE_S, FINE_STEPS), coarse: Series::new(COARSE_S, COARSE_STEPS) }
    }
}

/// All series.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    endpoints: HashMap<String, OfEndpoint>,
    before: HashMap<String, MeterSample>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FiguresQuery<'a> {
    /// Without one, all that are seen.
    pub endpoint: Option<&'a str>,
    pub since: Option<Timestamp>,
    /// In seconds: 300 and more gives the day, anything else the hour.
    pub step_s: Option<i64>,
}

impl Figures {
    /// Takes what the counters have grown by since the last time.
    pub(crate) fn take(&self, now: Timestamp, samples: Vec<(String, MeterSample)>, waiting: &[EndpointBacklog]) {
        // What grew until now belongs to the step that ends now.
        let second = now.as_second() - 1;
        let mut kept = self.0.lock();
        let Kept { endpoints, before } = &mut *kept;
        before.retain(|name, _| samples.iter().any(|(there, _)| there == name));
        for (name, sample) in samples {
            let first = MeterSample::default();
            let mut step = Step::of(0, before.get(&name).unwrap_or(&first), &sample);
            if let Some(backlog) = waiting.iter().find(|backlog| backlog.endpoint == name) {
                (step.waiting, step.oldest_s) = (Some(backlog.open), u64::try_from(backlog.oldest_s).ok());
            }
            before.insert(name.clone(), sample);
            let has_room = endpoints.len() < MAX_ENDPOINTS || endpoints.contains_key(&name);
            if !endpoints.contains_key(&name) && step.is_empty() {
                continue;
            }
            let series = endpoints.entry(if has_room { name } else { OTHERS.to_owned() }).or_default();
            series.fine.add(second, &step);
            series.coarse.add(second, &step);
        }
        endpoints.retain(|_, series| {
            series.coarse.forget(second.div_euclid(COARSE_S));
            !series.coarse.steps.is_empty()
        });
    }

    /// The figures of an endpoint, or of all that are seen.
    pub(crate) fn show(&self, asked: FiguresQuery<'_>, sight: &Sight, now: Timestamp) -> api::Figures {
        let hour = SignedDuration::from_secs(FINE_S * 360);
        let is_long = asked.since.is_some_and(|since| now.duration_since(since) > hour);
        let is_coarse = asked.step_s.map_or(is_long, |step| step >= COARSE_S);
        let (step_s, most) = if is_coarse { (COARSE_S, COARSE_STEPS) } else { (FINE_S, FINE_STEPS) };
        // The last step that is over.
        let last = now.as_second().div_euclid(step_s) - i64::from(!is_coarse);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let since = asked.since.map_or(last + 1 - most, |since| since.as_second().div_euclid(step_s));
        let first = since.clamp(last + 1 - most, last);
        let mut steps: Vec<Step> = (first..=last).map(|number| Step { number, ..Step::default() }).collect();
        let mut patience = BTreeMap::new();
        let kept = self.0.lock();
        for (name, series) in &kept.endpoints {
            if asked.endpoint.is_some_and(|wanted| wanted != name) || !sees(sight, name) {
                continue;
            }
            let series = if is_coarse { &series.coarse } else { &series.fine };
            let mut most_used = 0_f64;
            for step in series.steps.iter().filter(|step| (first..=last).contains(&step.number)) {
                if let Some(all) = usize::try_from(step.number - first).ok().and_then(|at| steps.get_mut(at)) {
                    all.add_beside(step);
                }
                most_used = most_used.max(step.patience);
            }
            if most_used > 0.0 && name != OTHERS {
                patience.insert(name.clone(), most_used);
            }
        }
        drop(kept);
        let column = |read: fn(&Step) -> u64| steps.iter().map(read).collect();
        let maybe = |read: &dyn Fn(&Step) -> Option<u64>| steps.iter().map(read).collect();
        api::Figures {
            step_s: step_s.unsigned_abs(),
            from: Timestamp::from_second(first * step_s).unwrap_or_default().to_string(),
            received: column(|step| step.received),
            success: column(|step| step.success),
            client_error: column(|step| step.client_error),
            server_error: column(|step| step.server_error),
            refused: column(|step| step.refused),
            failed: column(|step| step.failed),
            p50_us: maybe(&|step| step.percentile(0.5)),
            p90_us: maybe(&|step| step.percentile(0.9)),
            p99_us: maybe(&|step| step.percentile(0.99)),
            waiting: maybe(&|step| step.waiting),
            oldest_s: maybe(&|step| step.oldest_s),
            patience,
            store_bytes: None,
            store_limit: None,
        }
    }

    /// The median and the 99th percentile of an endpoint's last hour.
    pub(crate) fn latencies_us(&self, endpoint: &str) -> (Option<u64>, Option<u64>) {
        let mut all = Step::default();
        let kept = self.0.lock();
        kept.endpoints.get(endpoint).into_iter().flat_map(|series| &series.fine.steps).for_each(|step| all.add(step));
        (all.percentile(0.5), all.percentile(0.99))
    }

    /// When something last came to an endpoint that was not refused, to ten seconds.
    pub(crate) fn last(&self, endpoint: &str) -> Option<Timestamp> {
        let kept = self.0.lock();
        let series = kept.endpoints.get(endpoint)?;
        let last = |series: &Series| {
            let step = series.steps.iter().rfind(|step| step.received > step.refused)?;
            Timestamp::from_second(step.number * series.step_s).ok()
        };
        last(&series.fine).or_else(|| last(&series.coarse))
    }

    /// Requests that were refused at an endpoint in the last hour.
    pub(crate) fn refused(&self, endpoint: &str) -> u64 {
        let kept = self.0.lock();
        kept.endpoints.get(endpoint).map_or(0, |series| series.fine.steps.iter().map(|step| step.refused).sum())
    }
}

fn sees(sight: &Sight, name: &str) -> bool {
    matches!(sight, Sight::All) || EndpointName::parse(name).is_ok_and(|name| sight.sees(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_counters_grew_by_is_a_step_for_an_hour_and_part_of_one_for_a_day() {
        let (metrics, figures) = (Metrics::default(), Figures::default());
        let (pay, shop) = (metrics.meter("pay"), metrics.meter("shop"));
        for _ in 0..100 {
            pay.received();
            pay.answered(AnswerClass::Answered(2), Duration::from_millis(3), 20 * SECOND);
        }
        pay.answered(AnswerClass::Answered(5), Duration::from_secs(5), 20 * SECOND);
        shop.received();
        shop.answered(AnswerClass::Refused, Duration::from_millis(1), SECOND);
        let waiting = [EndpointBacklog { endpoint: "pay".to_owned(), open: 7, oldest_s: 42, overdue: false }];
        figures.take(at(100_000), metrics.samples(), &waiting);
        pay.received();
        figures.take(at(100_010), metrics.samples(), &waiting);
        let all = figures.show(FiguresQuery::default(), &Sight::All, at(100_010));
        assert_eq!((all.step_s, all.received.len()), (10, FINE_STEPS));
        assert_eq!(all.received[FINE_STEPS - 2..], [101, 1]);
        let last = FINE_STEPS - 2;
        assert_eq!((all.success[last], all.server_error[last], all.refused[last]), (100, 1, 1));
        assert_eq!((all.waiting[last], all.oldest_s[last]), (Some(7), Some(42)));
        let (p50, p99) = (all.p50_us[last].expect("some"), all.p99_us[last].expect("some"));
        assert!((2000..4500).contains(&p50) && (2000..4500).contains(&p99), "{p50} {p99}");
        assert_eq!(all.patience.get("pay"), Some(&0.25));
        let day = FiguresQuery { since: Some(at(20_000)), ..FiguresQuery::default() };
        let day = figures.show(day, &Sight::All, at(100_010));
        assert_eq!((day.step_s, day.received.iter().sum::<u64>()), (300, 102));
        let only = Sight::from(EndpointName::parse("shop").expect("a name"));
        let ours = figures.show(FiguresQuery::default(), &only, at(100_010));
        assert_eq!((ours.received.iter().sum::<u64>(), ours.patience.len()), (1, 1));
        assert_eq!(figures.refused("shop"), 1);
        assert_eq!((figures.last("pay"), figures.last("shop")), (Some(at(100_000)), None));
        assert!(figures.latencies_us("pay").1.is_some_and(|p99| p99 < 5_000_000));
    }

    #[test]
    fn what_is_old_is_forgotten_and_too_many_endpoints_count_together() {
        let (metrics, figures) = (Metrics::default(), Figures::default());
        let meters: Vec<_> = (0..MAX_ENDPOINTS + 5).map(|n| metrics.meter(&format!("e{n}"))).collect();
        meters.iter().for_each(|meter| meter.received());
        figures.take(at(1_000_000), metrics.samples(), &[]);
        assert_eq!(figures.0.lock().endpoints.len(), MAX_ENDPOINTS + 1);
        let all = figures.show(FiguresQuery::default(), &Sight::All, at(1_000_000));
        assert_eq!(all.received.iter().sum::<u64>(), MAX_ENDPOINTS as u64 + 5);
        figures.take(at(1_003_700), metrics.samples(), &[]);
        let day = FiguresQuery { step_s: Some(300), ..FiguresQuery::default() };
        let sum = |asked| figures.show(asked, &Sight::All, at(1_003_700)).received.iter().sum::<u64>();
        assert_eq!((sum(FiguresQuery::default()), sum(day)), (0, MAX_ENDPOINTS as u64 + 5));
        figures.take(at(1_000_000 + 25 * 60 * 60), metrics.samples(), &[]);
        assert!(figures.0.lock().endpoints.is_empty());
    }
}
