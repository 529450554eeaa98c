//! The arithmetic: medians with their spread, percentiles, ratios of paired rounds, and the schedule of an open loop.

use std::time::Duration;

/// From so many quiet rounds on, the others do not count.
const ENOUGH: usize = 3;

/// What several rounds say of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None of no values; one that is no number does not count.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, least, most })
    }
}

/// The smallest value that so large a share of all does not exceed (nearest rank); the values are in order.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// A value, and whether the machine was quiet when it was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) is_quiet: bool,
}

impl Sample {
    /// Of two that were measured in one round.
    pub(crate) fn ratio(self, to: Self) -> Self {
        Self { value: self.value / to.value, is_quiet: self.is_quiet && to.is_quiet }
    }
}

/// The spread of the quiet rounds where there are enough of them, else of all, and whether they were enough.
pub(crate) fn steady(samples: &[Sample]) -> Option<(Spread, bool)> {
    let quiet: Vec<f64> = samples.iter().filter(|sample| sample.is_quiet).map(|sample| sample.value).collect();
    let is_steady = quiet.len() >= ENOUGH.min(samples.len());
    let all = samples.iter().map(|sample| sample.value);
    Some((if is_steady { Spread::of(quiet)? } else { Spread::of(all)? }, is_steady))
}

/// When the request of that number is due after the start, at a constant rate.
pub(crate) fn due(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64, least: f64, most: f64) -> Option<Spread> {
        Some(Spread { median, least, most })
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), spread(3.0, 3.0, 3.0));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), spread(2.0, 1.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0, 9.0, 2.0]), spread(3.0, 1.0, 9.0));
        assert_eq!(Spread::of([f64::NAN, 5.0, f64::INFINITY]), spread(5.0, 5.0, 5.0));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<Duration> = (1..=1000).map(Duration::from_micros).collect();
        for (share, micros) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            assert_eq!(percentile(&values, share), Duration::from_micros(micros), "{share}");
        }
        assert_eq!(percentile(&values[..1], 0.999), Duration::from_micros(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_ratio_is_made_within_a_round() {
        let sample = |value, is_quiet| Sample { value, is_quiet };
        // The machine is twice as slow in the second round: the ratio does not see it.
        let rounds = [(10.0, 20.0), (20.0, 40.0), (11.0, 20.0)];
        let ratios: Vec<_> =
            rounds.iter().map(|(ours, theirs)| sample(*ours, true).ratio(sample(*theirs, true))).collect();
        assert_eq!(steady(&ratios), Some((Spread { median: 0.5, least: 0.5, most: 0.55 }, true)));
        assert!(!sample(1.0, true).ratio(sample(1.0, false)).is_quiet);
    }

    #[test]
    fn busy_rounds_count_only_where_too_few_were_quiet() {
        let of = |values: &[(f64, bool)]| {
            let samples: Vec<_> = values.iter().map(|&(value, is_quiet)| Sample { value, is_quiet }).collect();
            steady(&samples).map(|(spread, is_steady)| (spread.median, spread.most, is_steady))
        };
        assert_eq!(of(&[(1.0, true), (2.0, true), (3.0, true), (90.0, false)]), Some((2.0, 3.0, true)));
        assert_eq!(of(&[(1.0, true), (2.0, true), (90.0, false)]), Some((2.0, 90.0, false)));
        assert_eq!(of(&[(1.0, true)]), Some((1.0, 1.0, true)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn an_open_loop_asks_at_a_constant_rate_whatever_came_before() {
        assert_eq!(due(0, 4000.0), Duration::ZERO);
        assert_eq!(due(1, 4000.0), Duration::from_micros(250));
        assert_eq!(due(8000, 4000.0), Duration::from_secs(2));
    }
}
