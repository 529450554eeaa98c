//! Events that are the same as earlier ones.

use super::*;

const AGAIN: i64 = 1000;

/// Sends an event again, with an id of its own.
async fn again(store: &Arc<dyn Store>, ms: i64, key: &str, sender_retries: bool) -> Verdict {
    append(store, keyed("a", ms, key, sender_retries)).await
}

pub(super) async fn verdicts_follow_the_state_of_the_earlier_event(store: Arc<dyn Store>) {
    let duplicate = |ms, state| Verdict::Duplicate { of: id(ms), state, answer: None };
    append(&store, keyed("a", 1, "k", true)).await;
    assert_eq!(again(&store, AGAIN, "k", true).await, duplicate(1, State::Pending));
    let held = claim(&store, "a", 1, 5000, 1010).await.remove(0);
    assert_eq!(again(&store, AGAIN + 20, "k", true).await, duplicate(1, State::Running));
    dead(&store, &held, 1030).await;
    assert_eq!(
        again(&store, AGAIN + 40, "k", true).await,
        Verdict::Again { of: id(1), lease: None, redelivery: false },
        "a failed one is a new attempt of the same event"
    );
    let held = claim(&store, "a", 1, 5000, 1050).await.remove(0);
    assert_eq!(held.summary.id, id(1));
    assert_eq!(held.lease, Lease { fence: 2, attempt: 2, tries: 1 }, "from the schedule's beginning");
    assert_eq!(act(&store, "a", id(1), Action::Cancel, 1060).await, Acted::Done);
    assert_eq!(again(&store, AGAIN + 70, "k", true).await, duplicate(1, State::Dropped));
    assert!(store.event(Sight::All, id(AGAIN), at(0)).await.expect("read").is_none(), "a duplicate is no event");
}

pub(super) async fn a_delivered_one_is_answered_as_recorded(store: Arc<dyn Store>) {
    append(&store, keyed("a", 1, "k", true)).await;
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    let end = end(&held, Some(201), Then::Done, 6);
    settle(&store, end.clone(), 6).await;
    let verdict = again(&store, AGAIN, "k", true).await;
    let Verdict::Duplicate { of, state: State::Delivered, answer } = verdict else { panic!("{verdict:?}") };
    assert_eq!((of, answer), (id(1), end.attempt.answer));
}

pub(super) async fn another_body_is_a_conflict(store: Arc<dyn Store>) {
    append(&store, keyed("a", 1, "k", true)).await;
    let other = NewEvent { body: Body::Bytes("another".into()), ..keyed("a", 2, "k", true) };
    assert_eq!(append(&store, other).await, Verdict::Accepted { lease: None, conflict: Some(id(1)) });
    assert_eq!(record(&store, id(2)).await.summary.conflict_with, Some(id(1)));
    // Both are remembered: each body has its own earlier event.
    let verdict = again(&store, 3, "k", true).await;
    assert_eq!(verdict, Verdict::Duplicate { of: id(1), state: State::Pending, answer: None });
    let filter = Filter { query: Query::parse("is:conflict", at(9)).0, ..Filter::default() };
    let page = store.list(filter, PageRequest { limit: 9, after: None, oldest_first: true }).await.expect("a page");
    assert_eq!(page.events.iter().map(|one| one.id).collect::<Vec<_>>(), [id(2)]);
}

pub(super) async fn outside_the_window_it_is_new(store: Arc<dyn Store>) {
    append(&store, keyed("a", 1, "k", true)).await;
    assert!(matches!(again(&store, 60_000, "k", true).await, Verdict::Duplicate { .. }));
    let verdict = again(&store, 60_001, "k", true).await;
    assert_eq!(verdict, Verdict::Accepted { lease: None, conflict: None });
    assert!(matches!(again(&store, 60_002, "other", true).await, Verdict::Accepted { .. }));
    let newest = again(&store, 60_003, "k", true).await;
    assert_eq!(newest, Verdict::Duplicate { of: id(60_001), state: State::Pending, answer: None });
}

pub(super) async fn a_sender_that_never_repeats_asks_for_a_redelivery(store: Arc<dyn Store>) {
    append(&store, keyed("a", 1, "k", false)).await;
    assert!(matches!(again(&store, 2, "k", false).await, Verdict::Duplicate { state: State::Pending, .. }));
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    assert!(matches!(again(&store, 6, "k", false).await, Verdict::Duplicate { state: State::Running, .. }));
    done(&store, &held, 7).await;
    let redelivery = Verdict::Again { of: id(1), lease: None, redelivery: true };
    assert_eq!(again(&store, 8, "k", false).await, redelivery);
    let held = claim(&store, "a", 1, 500, 9).await.remove(0);
    assert!(held.summary.redelivered);
    assert_eq!(held.lease, Lease { fence: 2, attempt: 2, tries: 1 });
    dead(&store, &held, 10).await;
    assert_eq!(again(&store, 11, "k", false).await, redelivery);
}

pub(super) async fn two_of_one_key_in_one_batch_are_one_event(store: Arc<dyn Store>) {
    let batch = vec![keyed("a", 1, "k", true), keyed("a", 2, "k", true), keyed("a", 3, "j", true)];
    let verdicts = store.append(batch, at(3)).await.expect("appended");
    assert_eq!(verdicts[0], Verdict::Accepted { lease: None, conflict: None });
    assert_eq!(verdicts[1], Verdict::Duplicate { of: id(1), state: State::Pending, answer: None });
    assert_eq!(verdicts[2], Verdict::Accepted { lease: None, conflict: None });
    let same_time = (10..60).map(|ms| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { append(&store, keyed("a", ms, "at once", true)).await })
    });
    let mut accepted = 0;
    for one in same_time.collect::<Vec<_>>() {
        accepted += usize::from(matches!(one.await.expect("ran"), Verdict::Accepted { .. }));
    }
    assert_eq!(accepted, 1);
}

pub(super) async fn a_key_counts_at_its_own_endpoint(store: Arc<dyn Store>) {
    append(&store, keyed("a", 1, "k", true)).await;
    let verdict = append(&store, keyed("b", 2, "k", true)).await;
    assert_eq!(verdict, Verdict::Accepted { lease: None, conflict: None });
    // A sender's id is not a dedup key, even if it is the same text.
    let plain = NewEvent { sender_id: Some("text".into()), ..event("a", 3) };
    append(&store, plain).await;
    assert!(matches!(again(&store, 4, "text", true).await, Verdict::Accepted { conflict: None, .. }));
    let same = NewEvent { sender_id: Some("id".into()), ..keyed("a", 5, "id", true) };
    append(&store, same.clone()).await;
    assert!(matches!(append(&store, NewEvent { id: id(6), ..same }).await, Verdict::Duplicate { .. }));
}

pub(super) async fn again_takes_its_lease_at_once(store: Arc<dyn Store>) {
    append(&store, keyed("a", 1, "k", true)).await;
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    dead(&store, &held, 6).await;
    let leased = NewEvent { lease: Some(grant(900)), ..keyed("a", 7, "k", true) };
    let lease = Some(Lease { fence: 2, attempt: 2, tries: 1 });
    assert_eq!(append(&store, leased).await, Verdict::Again { of: id(1), lease, redelivery: false });
    assert!(claim(&store, "a", 1, 2000, 899).await.is_empty());
}
