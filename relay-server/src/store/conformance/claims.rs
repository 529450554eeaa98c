//! Leases: who may deliver what, and when.

use super::*;

pub(super) async fn what_was_appended_is_claimed_once(store: Arc<dyn Store>) {
    assert_eq!(append(&store, event("a", 1)).await, Verdict::Accepted { lease: None, conflict: None });
    append(&store, event("a", 2)).await;
    append(&store, event("b", 3)).await;
    let held = claim(&store, "a", 10, 1000, 5).await;
    assert_eq!(ids(&held), [id(1), id(2)], "the longest due first, of this endpoint alone");
    let first = &held[0];
    assert_eq!(first.head, event("a", 1).head);
    assert_eq!(first.body.as_deref(), Some(&b"{\"n\":1}"[..]));
    assert_eq!(first.lease, Lease { fence: 1, attempt: 1, tries: 1 });
    assert_eq!(first.summary.state, State::Running);
    assert!(claim(&store, "a", 10, 1000, 6).await.is_empty(), "one holder at a time");
    assert_eq!(done(&store, first, 7).await, Ended::Settled(State::Delivered));
    assert!(claim(&store, "a", 1, 2000, 999).await.is_empty());
    let left = claim(&store, "a", 10, 2000, 1000).await;
    assert_eq!(ids(&left), [id(2)], "what is delivered is never due again");
}

pub(super) async fn an_attempt_is_counted_before_it_is_made(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    claim(&store, "a", 1, 100, 5).await;
    let summary = record(&store, id(1)).await.summary;
    assert_eq!((summary.state, summary.attempts, summary.tries), (State::Running, 1, 1));
    assert_eq!(summary.due_at, Some(at(100)));
}

pub(super) async fn a_stale_settle_is_only_recorded(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let old = claim(&store, "a", 1, 100, 5).await.remove(0);
    let new = claim(&store, "a", 1, 300, 100).await.remove(0);
    assert_eq!(new.lease, Lease { fence: 2, attempt: 2, tries: 2 });
    assert_eq!(done(&store, &old, 110).await, Ended::Recorded);
    assert_eq!(record(&store, id(1)).await.summary.state, State::Running);
    assert_eq!(dead(&store, &new, 120).await, Ended::Settled(State::Dead));
    assert_eq!(done(&store, &new, 130).await, Ended::Recorded, "a fence settles once");
    let found = record(&store, id(1)).await;
    assert_eq!((found.summary.state, found.summary.reason), (State::Dead, Some(Reason::HandlerFailed)));
    assert_eq!(found.summary.settled_at, Some(at(120)));
    let outcomes: Vec<_> = found.attempts.iter().map(|one| (one.number, one.fence, one.outcome)).collect();
    assert_eq!(outcomes, [(1, 1, Outcome::Answered), (2, 2, Outcome::Answered)], "a late report replaces \"lost\"");
}

pub(super) async fn an_expired_lease_is_due_again(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    claim(&store, "a", 1, 100, 5).await;
    assert!(claim(&store, "a", 1, 300, 99).await.is_empty());
    assert_eq!(claim(&store, "a", 1, 300, 100).await.len(), 1);
    let attempts = record(&store, id(1)).await.attempts;
    assert_eq!(attempts.len(), 1, "the first holder never said how its attempt ended");
    assert_eq!((attempts[0].number, attempts[0].outcome), (1, Outcome::Lost));
}

pub(super) async fn leases_of_holders_that_are_gone_are_taken_over(store: Arc<dyn Store>) {
    let [gone, living, next] = [u64::MAX, 2, 3].map(Holder);
    for (ms, endpoint, holder) in [(1, "a", gone), (2, "a", living), (3, "b", gone), (4, "a", gone)] {
        let lease = Some(Grant { holder, until: at(100) });
        append(&store, NewEvent { lease, ..event(endpoint, ms) }).await;
    }
    append(&store, event("a", 5)).await;
    let ended = claim(&store, "a", 1, 100, 6).await.remove(0);
    done(&store, &ended, 7).await;
    let mut holders = store.holders().await.expect("read");
    holders.sort();
    assert_eq!(holders, [living, gone], "whoever settled holds nothing");
    let orphans = async |gone: Vec<Holder>, until| {
        let until = vec![(name("a"), at(until)), (name("nowhere"), at(until))];
        let taken = store.orphans(gone, next, until, at(10)).await.expect("taken over");
        taken.into_iter().map(|hold| (hold.id, hold.fence)).collect::<Vec<_>>()
    };
    assert_eq!(orphans(vec![Holder(9)], 50).await, [], "of a stranger");
    assert_eq!(orphans(vec![gone], 50).await, [(id(1), 1), (id(4), 1), (id(3), 1)]);
    assert_eq!(orphans(vec![gone], 50).await, [], "once");
    assert_eq!(orphans(vec![next], 900).await.len(), 3, "from whoever took them over, too");
    let ends = async |ms| record(&store, id(ms)).await.summary.due_at;
    assert_eq!((ends(1).await, ends(2).await), (Some(at(50)), Some(at(100))), "never later, and a living one's stay");
    assert_eq!(ends(3).await, Some(at(10)), "nobody said how long");
    assert_eq!(ids(&claim(&store, "a", 9, 200, 50).await), [1, 4].map(id));
}

pub(super) async fn an_append_that_is_made_again_says_the_same(store: Arc<dyn Store>) {
    let leased = || NewEvent { lease: Some(grant(100)), ..event("a", 1) };
    let first = append(&store, leased()).await;
    assert_eq!(append(&store, leased()).await, first, "with the lease that it was given");
    let long = || NewEvent { body: Body::Bytes(vec![5; 70_000].into()), ..event("a", 2) };
    assert_eq!(append(&store, long()).await, append(&store, long()).await);
    assert_eq!(store.backlog(Sight::All).await.expect("read")[0].open, 2);
    let held = claim(&store, "a", 2, 300, 100).await.remove(1);
    assert_eq!(held.summary.id, id(1));
    let none = Verdict::Accepted { lease: None, conflict: None };
    assert_eq!(append(&store, leased()).await, none, "another attempt has begun since");
    dead(&store, &held, 101).await;
    assert_eq!(append(&store, leased()).await, none, "and ended");
    // One that had an earlier event delivered again.
    let again = |ms| NewEvent { lease: Some(grant(900)), ..keyed("b", ms, "key", true) };
    append(&store, again(200)).await;
    let held = claim(&store, "b", 1, 950, 900).await.remove(0);
    dead(&store, &held, 901).await;
    let later = || NewEvent { lease: Some(grant(2000)), received_at: at(902), ..again(910) };
    let first = append(&store, later()).await;
    assert!(matches!(first, Verdict::Again { lease: Some(_), .. }), "{first:?}");
    assert_eq!(append(&store, later()).await, first);
    let other = append(&store, NewEvent { received_at: at(902), ..again(911) }).await;
    assert!(matches!(other, Verdict::Duplicate { state: State::Running, .. }), "{other:?}");
}

pub(super) async fn a_settle_that_is_made_again_says_the_same(store: Arc<dyn Store>) {
    for (endpoint, then, state) in [
        ("a", Then::Done, State::Delivered),
        ("b", Then::Dead(Reason::HandlerFailed), State::Dead),
        ("c", Then::Retry(at(900)), State::Pending),
        ("d", Then::Release(at(900)), State::Pending),
    ] {
        let find = async || store.event(name(endpoint).into(), id(1), at(0)).await.expect("read").expect("there");
        for ms in 1..=2 {
            append(&store, NewEvent { order_key: Some("x".into()), ..event(endpoint, ms) }).await;
        }
        let held = claim(&store, endpoint, 1, 500, 10).await.remove(0);
        let end = end(&held, Some(500), then, 11);
        assert_eq!(settle(&store, end.clone(), 11).await, Ended::Settled(state));
        let (before, behind) = (find().await, claim(&store, endpoint, 9, 700, 12).await);
        assert_eq!(behind.len(), usize::from(!state.is_open()));
        assert_eq!(settle(&store, end.clone(), 13).await, Ended::Settled(state), "{then:?}");
        let after = find().await;
        assert_eq!((before.summary, before.attempts), (after.summary, after.attempts));
        assert_eq!(ids(&claim(&store, endpoint, 9, 800, 14).await), [], "the lease of the one behind it is as it was");
        let cancelled = act(&store, endpoint, id(1), Action::Cancel, 15).await == Acted::Done;
        assert_eq!(cancelled, state.is_open());
        let again = settle(&store, end, 16).await;
        assert_eq!(again == Ended::Recorded, cancelled, "a person has moved it since");
    }
}

pub(super) async fn nothing_is_due_before_it_was_appended(store: Arc<dyn Store>) {
    let slow = NewEvent { received_at: at(1), ..event("a", 500) };
    store.append(vec![slow], at(500)).await.expect("appended");
    let summary = record(&store, id(500)).await.summary;
    assert_eq!((summary.received_at, summary.due_at), (at(1), Some(at(500))));
    assert!(claim(&store, "a", 1, 900, 499).await.is_empty());
    assert_eq!(claim(&store, "a", 1, 900, 500).await.len(), 1);
}

pub(super) async fn a_retry_waits_for_its_time(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let held = claim(&store, "a", 1, 100, 5).await.remove(0);
    assert_eq!(
        settle(&store, end(&held, Some(503), Then::Retry(at(700)), 10), 10).await,
        Ended::Settled(State::Pending)
    );
    let wants = || vec![Want { endpoint: name("a"), oldest: 5, newest: 5 }];
    let claimed = store.claim(wants(), grant(900), at(699)).await.expect("claimed");
    assert!(claimed.deliveries.is_empty());
    assert_eq!(claimed.next_due, [(name("a"), at(700))]);
    let summary = record(&store, id(1)).await.summary;
    assert_eq!((summary.status, summary.due_at, summary.attempts), (Some(503), Some(at(700)), 1));
    let claimed = store.claim(wants(), grant(900), at(700)).await.expect("claimed");
    assert_eq!(claimed.deliveries[0].lease, Lease { fence: 2, attempt: 2, tries: 2 });
    assert_eq!(claimed.next_due, [(name("a"), at(900))], "the end of the lease");
}

pub(super) async fn a_release_uses_no_attempt(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    for round in 0..3 {
        let held = claim(&store, "a", 1, 1000, 10 + round).await.remove(0);
        assert_eq!(held.lease.attempt, 1);
        assert_eq!(held.lease.fence, u64::try_from(round).expect("small") + 1, "the fence rises all the same");
        let mut end = end(&held, None, Then::Release(at(11 + round)), 10);
        end.attempt.outcome = Outcome::NotCalled;
        assert_eq!(settle(&store, end, 10 + round).await, Ended::Settled(State::Pending));
    }
    let kept = record(&store, id(1)).await;
    assert_eq!((kept.summary.attempts, kept.summary.tries, kept.summary.fence), (0, 0, 3));
    assert_eq!(kept.attempts, [], "nor do they leave records");
}

pub(super) async fn an_event_leased_at_once_is_held_by_its_caller(store: Arc<dyn Store>) {
    let verdict = append(&store, NewEvent { lease: Some(grant(100)), ..event("a", 1) }).await;
    let lease = Lease { fence: 1, attempt: 1, tries: 1 };
    assert_eq!(verdict, Verdict::Accepted { lease: Some(lease), conflict: None });
    assert!(claim(&store, "a", 1, 200, 99).await.is_empty());
    let next = claim(&store, "a", 1, 200, 100).await.remove(0);
    assert_eq!(next.lease.fence, 2, "its caller never settled");
}

pub(super) async fn oldest_and_newest_are_wanted_apart(store: Arc<dyn Store>) {
    for ms in 1..=9 {
        append(&store, event("a", ms)).await;
    }
    let wants = |oldest, newest| vec![Want { endpoint: name("a"), oldest, newest }];
    let both = store.claim(wants(2, 3), grant(500), at(100)).await.expect("claimed");
    assert_eq!(ids(&both.deliveries), [1, 2, 9, 8, 7].map(id));
    let rest = store.claim(wants(3, 3), grant(500), at(100)).await.expect("claimed");
    assert_eq!(ids(&rest.deliveries), [3, 4, 5, 6].map(id), "none twice");
    let none = store.claim(wants(0, 0), grant(500), at(100)).await.expect("claimed");
    assert!(none.deliveries.is_empty());
    assert_eq!(none.next_due, [(name("a"), at(500))]);
}

pub(super) async fn a_claim_is_bounded(store: Arc<dyn Store>) {
    let count = i64::try_from(MAX_CLAIM).expect("small") + 5;
    store.append((1..=count).map(|ms| event("a", ms)).collect(), at(count)).await.expect("appended");
    assert_eq!(claim(&store, "a", usize::MAX, 90_000, count).await.len(), MAX_CLAIM);
    assert_eq!(claim(&store, "a", usize::MAX, 90_000, count).await.len(), 5);
}

pub(super) async fn a_paused_endpoint_gives_nothing_until_it_is_resumed(store: Arc<dyn Store>) {
    store.pause(name("a"), true, at(0)).await.expect("paused");
    append(&store, event("a", 1)).await;
    append(&store, event("b", 2)).await;
    let wants = || ["a", "b"].map(|endpoint| Want { endpoint: name(endpoint), oldest: 5, newest: 0 }).to_vec();
    let claimed = store.claim(wants(), grant(900), at(10)).await.expect("claimed");
    assert_eq!(ids(&claimed.deliveries), [id(2)]);
    assert_eq!(claimed.next_due, [(name("b"), at(900))], "nothing is due at a paused one");
    let leased = NewEvent { lease: Some(grant(100)), ..event("a", 3) };
    assert_eq!(append(&store, leased).await, Verdict::Accepted { lease: None, conflict: None });
    store.pause(name("a"), false, at(20)).await.expect("resumed");
    assert_eq!(ids(&claim(&store, "a", 5, 900, 20).await), [1, 3].map(id));
}

pub(super) async fn unknown_events_and_endpoints_are_told_apart(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let held = claim(&store, "a", 1, 100, 5).await.remove(0);
    let mut elsewhere = end(&held, Some(200), Then::Done, 6);
    elsewhere.endpoint = name("b");
    assert_eq!(settle(&store, elsewhere, 6).await, Ended::Unknown);
    let mut other = end(&held, Some(200), Then::Done, 6);
    other.id = id(99);
    assert_eq!(settle(&store, other, 6).await, Ended::Unknown);
    assert!(claim(&store, "b", 1, 100, 5).await.is_empty());
    assert_eq!(act(&store, "a", id(99), Action::Cancel, 7).await, Acted::Unknown);
    assert_eq!(act(&store, "b", id(1), Action::Cancel, 7).await, Acted::Unknown);
    assert!(store.event(name("b").into(), id(1), at(0)).await.expect("read").is_none());
    assert!(store.event(Sight::All, id(99), at(0)).await.expect("read").is_none());
    assert!(store.body(name("b"), id(1), 0..10, at(0)).await.expect("read").is_none());
}

pub(super) async fn a_batch_with_an_id_twice_keeps_nothing(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let other = || NewEvent { body: Body::Bytes("other".into()), ..event("a", 1) };
    for batch in [vec![event("a", 2), other()], vec![event("a", 3), event("a", 3)], vec![event("z", 4), other()]] {
        let error = store.append(batch, at(9)).await.expect_err("refused");
        assert!(matches!(&error, StoreError::Invalid(why) if why.contains("already")), "{error}");
    }
    for ms in [2, 3, 4] {
        assert!(store.event(Sight::All, id(ms), at(0)).await.expect("read").is_none(), "event {ms}");
    }
    assert_eq!(store.backlog(Sight::All).await.expect("read").len(), 1, "no trace of endpoint z");
    append(&store, event("z", 4)).await;
}
