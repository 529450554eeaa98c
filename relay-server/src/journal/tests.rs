//! The journal as its watchers and lists see it.

use super::*;
use crate::store::Summary;

/// A record of a kept event.
pub(crate) fn kept() -> NewsRecord {
    NewsRecord::Kept(Arc::new(event("pay")))
}

pub(crate) fn event(endpoint: &str) -> Summary {
    Summary::sample(endpoint)
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_kept_only_while_somebody_watches_and_a_minute_after() {
    let journal = Journal::build(1 << 20);
    journal.note(|| panic!("nobody watches"));
    let first = journal.watch();
    let second = journal.watch();
    journal.note(|| Some(kept()));
    drop((first, second));
    tokio::time::advance(AFTERGLOW - Duration::from_secs(1)).await;
    journal.note(|| Some(kept()));
    tokio::time::advance(Duration::from_secs(2)).await;
    journal.note(|| panic!("nobody has watched for a minute"));
    let part = journal.read(journal.first(), 100);
    assert_eq!((part.records.len(), part.next, part.is_cut), (2, journal.next(), false));
    assert_eq!(journal.read(part.next, 100).records.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_is_too_slow_learns_that_something_is_missing() {
    let journal = Journal::build(10_000);
    let _watching = journal.watch();
    for _ in 0..3000 {
        journal.note(|| Some(kept()));
    }
    assert!(journal.dropped() > 2900, "{}", journal.dropped());
    let part = journal.read(journal.first(), 5000);
    assert!(part.is_cut && !part.records.is_empty());
    assert_eq!(part.next, journal.first() + 3000);
    let number = part.records[0].0;
    assert!(journal.record(number).is_some() && journal.record(number - 1).is_none());
    assert!(journal.read(part.next + 1, 10).is_cut, "of another start");
}
