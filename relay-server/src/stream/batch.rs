//! Which of the records that came are told: the newest of each event, and of too many the newest ones.

use std::collections::HashSet;

use crate::webhook::EventId;

/// Records to tell, in their order, and how many events were left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RowBatch {
    pub(super) numbers: Vec<u64>,
    pub(super) left_out: u64,
}

/// Chooses among records, the oldest first, of which `fits` says whether they are told.
pub(super) fn choose<R>(
    records: &[(u64, R)],
    id: impl Fn(&R) -> EventId,
    most: usize,
    mut fits: impl FnMut(&R) -> bool,
) -> RowBatch {
    let (mut seen, mut batch) = (HashSet::new(), RowBatch::default());
    for (number, record) in records.iter().rev() {
        if !seen.insert(id(record)) || !fits(record) {
            continue;
        }
        if batch.numbers.len() < most {
            batch.numbers.push(*number);
        } else {
            batch.left_out += 1;
        }
    }
    batch.numbers.reverse();
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_state_of_each_event_is_told_and_of_too_many_the_newest_events() {
        let [a, b, c] = [EventId::new(), EventId::new(), EventId::new()];
        let records = [(1, a), (2, b), (3, a), (4, c), (5, b), (6, b)];
        let chosen = |most| choose(&records, |id| *id, most, |_| true);
        assert_eq!(chosen(9), RowBatch { numbers: vec![3, 4, 6], left_out: 0 });
        assert_eq!(chosen(2), RowBatch { numbers: vec![4, 6], left_out: 1 });
        let fitting = choose(&records, |id| *id, 9, |id| *id != c);
        assert_eq!(fitting, RowBatch { numbers: vec![3, 6], left_out: 0 });
    }
}
