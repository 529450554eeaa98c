//! Events of one key, one after the other.

use super::*;

fn ordered(ms: i64, key: &str) -> NewEvent {
    NewEvent { order_key: Some(key.into()), ..event("a", ms) }
}

pub(super) async fn only_the_oldest_open_one_is_claimable(store: Arc<dyn Store>) {
    for (ms, key) in [(1, "x"), (2, "x"), (3, "y"), (4, "x")] {
        append(&store, ordered(ms, key)).await;
    }
    append(&store, event("a", 5)).await;
    let held = claim(&store, "a", 10, 500, 10).await;
    assert_eq!(ids(&held), [1, 3, 5].map(id));
    let parked = record(&store, id(2)).await.summary;
    assert_eq!((parked.parked, parked.due_at, parked.state), (true, None, State::Pending));
    done(&store, &held[0], 20).await;
    let next = claim(&store, "a", 10, 500, 20).await;
    assert_eq!(ids(&next), [id(2)]);
    assert!(!next[0].summary.parked);
    // A lease that runs out does not let the next one pass either.
    assert_eq!(ids(&claim(&store, "a", 10, 900, 500).await), [2, 3, 5].map(id));
}

pub(super) async fn a_retry_keeps_the_place(store: Arc<dyn Store>) {
    append(&store, ordered(1, "x")).await;
    append(&store, ordered(2, "x")).await;
    append(&store, ordered(3, "y")).await;
    let held = claim(&store, "a", 1, 500, 10).await.remove(0);
    settle(&store, end(&held, Some(500), Then::Retry(at(100)), 11), 11).await;
    assert_eq!(ids(&claim(&store, "a", 10, 500, 50).await), [id(3)], "another key goes on");
    assert_eq!(ids(&claim(&store, "a", 10, 500, 100).await), [id(1)]);
}

pub(super) async fn a_dead_or_cancelled_head_lets_the_next_go(store: Arc<dyn Store>) {
    for ms in 1..=4 {
        append(&store, ordered(ms, "x")).await;
    }
    let held = claim(&store, "a", 9, 500, 10).await.remove(0);
    dead(&store, &held, 11).await;
    assert_eq!(act(&store, "a", id(2), Action::Cancel, 12).await, Acted::Done);
    assert_eq!(record(&store, id(3)).await.summary.due_at, Some(at(12)));
    let purge = Purge {
        retention: Duration::from_secs(9999),
        pending_retention: Duration::from_millis(10),
        max_bytes: u64::MAX,
        cursor: None,
    };
    assert_eq!(store.purge(purge, at(13)).await.expect("purged").expired, 1, "event 3 is 10 ms old");
    assert_eq!(ids(&claim(&store, "a", 9, 500, 13).await), [id(4)]);
}

pub(super) async fn a_parked_one_that_ends_lets_nobody_go(store: Arc<dyn Store>) {
    for ms in 1..=3 {
        append(&store, ordered(ms, "x")).await;
    }
    let held = claim(&store, "a", 9, 500, 10).await.remove(0);
    assert_eq!(act(&store, "a", id(2), Action::Cancel, 11).await, Acted::Done);
    assert!(claim(&store, "a", 9, 500, 12).await.is_empty());
    done(&store, &held, 13).await;
    assert_eq!(ids(&claim(&store, "a", 9, 500, 13).await), [id(3)]);
}

pub(super) async fn a_revived_one_stands_behind_the_open_ones(store: Arc<dyn Store>) {
    append(&store, ordered(1, "x")).await;
    let held = claim(&store, "a", 9, 500, 2).await.remove(0);
    dead(&store, &held, 3).await;
    append(&store, ordered(4, "x")).await;
    append(&store, ordered(5, "x")).await;
    let head = claim(&store, "a", 9, 500, 6).await.remove(0);
    assert_eq!(head.summary.id, id(4));
    assert_eq!(act(&store, "a", id(1), Action::Revive, 7).await, Acted::Done);
    assert!(claim(&store, "a", 9, 500, 8).await.is_empty(), "one of the key at a time");
    // The end of one that is parked must not free the revived one, which is older than the head.
    assert_eq!(act(&store, "a", id(5), Action::Cancel, 9).await, Acted::Done);
    assert!(claim(&store, "a", 9, 500, 10).await.is_empty());
    done(&store, &head, 11).await;
    assert_eq!(ids(&claim(&store, "a", 9, 500, 12).await), [id(1)]);
}

pub(super) async fn the_order_is_that_of_the_appends(store: Arc<dyn Store>) {
    // Ids of two relays need not rise together.
    for ms in [5, 3, 4] {
        store.append(vec![ordered(ms, "x")], at(5)).await.expect("appended");
    }
    for ms in [5, 3, 4] {
        let held = claim(&store, "a", 9, 500, 10).await;
        assert_eq!(ids(&held), [id(ms)]);
        done(&store, &held[0], 10).await;
    }
}

pub(super) async fn an_event_behind_another_gets_no_lease(store: Arc<dyn Store>) {
    let leased = |ms| NewEvent { lease: Some(grant(500)), ..ordered(ms, "x") };
    assert!(matches!(append(&store, leased(1)).await, Verdict::Accepted { lease: Some(_), .. }));
    assert!(matches!(append(&store, leased(2)).await, Verdict::Accepted { lease: None, .. }));
    let summary = record(&store, id(2)).await.summary;
    assert_eq!((summary.parked, summary.attempts), (true, 0));
}

pub(super) async fn a_dead_one_that_is_dropped_leaves_the_next_alone(store: Arc<dyn Store>) {
    let keyed = |ms| NewEvent { order_key: Some("k".into()), ..event("a", ms) };
    append(&store, keyed(1)).await;
    append(&store, keyed(2)).await;
    let first = claim(&store, "a", 9, 500, 5).await.remove(0);
    dead(&store, &first, 6).await;
    let second = claim(&store, "a", 9, 500, 7).await.remove(0);
    assert_eq!(act(&store, "a", id(1), Action::Drop, 8).await, Acted::Done);
    assert!(claim(&store, "a", 9, 900, 20).await.is_empty(), "its lease goes on");
    assert_eq!(done(&store, &second, 21).await, Ended::Settled(State::Delivered));
}
