//! What people do to events, and what time does.

use super::*;

fn everything_stays() -> Purge {
    Purge { retention: Duration::MAX, pending_retention: Duration::MAX, max_bytes: u64::MAX, cursor: None }
}

/// A whole round: removed, expired and evicted, and the steps it took.
async fn purge(store: &Arc<dyn Store>, mut policy: Purge, now: i64) -> (Purged, usize) {
    let mut sum = Purged::default();
    for steps in 1..1000 {
        let step = store.purge(policy.clone(), at(now)).await.expect("purged");
        sum.removed += step.removed;
        sum.expired += step.expired;
        sum.evicted += step.evicted;
        policy.cursor = step.next;
        if policy.cursor.is_none() {
            return (sum, steps);
        }
    }
    panic!("a purge without end");
}

pub(super) async fn dead_events_are_revived_dropped_and_replayed(store: Arc<dyn Store>) {
    for ms in 1..=2 {
        append(&store, event("a", ms)).await;
    }
    for held in claim(&store, "a", 2, 500, 5).await {
        dead(&store, &held, 6).await;
    }
    assert_eq!(act(&store, "a", id(1), Action::Revive, 10).await, Acted::Done);
    let held = claim(&store, "a", 5, 500, 10).await.remove(0);
    assert_eq!(held.lease, Lease { fence: 2, attempt: 2, tries: 1 }, "from the schedule's beginning");
    assert_eq!(act(&store, "a", id(1), Action::Revive, 11).await, Acted::Not(State::Running));
    assert_eq!(act(&store, "a", id(1), Action::Drop, 11).await, Acted::Not(State::Running));
    assert_eq!(act(&store, "a", id(2), Action::Drop, 12).await, Acted::Done);
    let dropped = record(&store, id(2)).await.summary;
    assert_eq!((dropped.state, dropped.reason), (State::Dropped, Some(Reason::Dropped)));
    assert_eq!(act(&store, "a", id(2), Action::Replay(id(100), Signature::Fresh), 100).await, Acted::Done);
    let replay = record(&store, id(100)).await;
    assert_eq!(replay.head, Head { signature: Signature::Fresh, ..event("a", 2).head });
    assert_eq!((replay.summary.replay_of, replay.summary.received_at), (Some(id(2)), at(100)));
    assert_eq!((replay.summary.state, replay.summary.attempts), (State::Pending, 0));
    let held = claim(&store, "a", 5, 900, 100).await.remove(0);
    assert_eq!((held.summary.id, held.lease.attempt), (id(100), 1));
    assert_eq!(held.body.as_deref(), Some(&b"{\"n\":2}"[..]));
    assert_eq!(record(&store, id(2)).await.summary.state, State::Dropped, "the original stays as it was");
    let twice = vec![Act { endpoint: name("a"), id: id(2), action: Action::Replay(id(100), Signature::Auto) }];
    assert!(matches!(store.act(twice, at(101)).await, Err(StoreError::Invalid(_))));
    assert_eq!(act(&store, "a", id(100), Action::Replay(id(102), Signature::Auto), 102).await, Acted::Done);
    let again = record(&store, id(102)).await;
    assert_eq!(again.summary.replay_of, Some(id(2)), "a replay's replay names the original");
    assert_eq!(again.head.signature, Signature::Auto, "whoever asks for it says how");
}

/// What the relay sends itself is in nobody's sight, and does not stay.
pub(super) async fn the_relays_own_events_stand_in_no_list_and_are_forgotten(store: Arc<dyn Store>) {
    let own = NewEvent { endpoint: EndpointName::canary(), ..event("a", 1) };
    store.append(vec![own], at(1)).await.expect("kept");
    append(&store, event("a", 2)).await;
    let listed = |endpoints| {
        let filter = Filter { endpoints, ..Filter::default() };
        let page = PageRequest { limit: 10, after: None, oldest_first: true };
        let store = Arc::clone(&store);
        async move { store.list(filter, page).await.expect("listed").events.len() }
    };
    assert_eq!((listed(Vec::new()).await, listed(vec![EndpointName::canary()]).await), (1, 1));
    assert!(store.event(Sight::All, id(1), at(2)).await.expect("read").is_none());
    let backlog = store.backlog(Sight::All).await.expect("read");
    assert!(backlog.iter().all(|one| one.endpoint == name("a")), "{backlog:?}");
    let forget = || store.forget(EndpointName::canary(), vec![id(1), id(9)]);
    assert_eq!(forget().await.expect("asked"), 0, "it has not ended");
    let cancel = Act { endpoint: EndpointName::canary(), id: id(1), action: Action::Cancel };
    assert_eq!(store.act(vec![cancel], at(3)).await.expect("acted"), [Acted::Done]);
    assert_eq!((forget().await.expect("gone"), forget().await.expect("asked")), (1, 0));
    assert_eq!((listed(Vec::new()).await, listed(vec![EndpointName::canary()]).await), (1, 0));
}

pub(super) async fn an_open_one_is_cancelled_and_its_end_only_recorded(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    assert_eq!(act(&store, "a", id(1), Action::Cancel, 6).await, Acted::Done);
    assert_eq!(done(&store, &held, 7).await, Ended::Recorded);
    let found = record(&store, id(1)).await;
    assert_eq!((found.summary.state, found.summary.reason), (State::Dropped, Some(Reason::Cancelled)));
    assert_eq!(found.attempts.len(), 1);
    assert!(claim(&store, "a", 1, 900, 600).await.is_empty());
    assert_eq!(act(&store, "a", id(1), Action::Cancel, 8).await, Acted::Not(State::Dropped));
    assert_eq!(act(&store, "a", id(1), Action::Revive, 9).await, Acted::Done);
    assert_eq!(claim(&store, "a", 1, 900, 600).await.len(), 1);
}

pub(super) async fn a_replay_shares_a_long_body(store: Arc<dyn Store>) {
    let whole = vec![42; 600_000];
    append(&store, NewEvent { body: Body::Bytes(whole.clone().into()), ..event("a", 1) }).await;
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    done(&store, &held, 6).await;
    assert_eq!(act(&store, "a", id(1), Action::Replay(id(50), Signature::Auto), 50).await, Acted::Done);
    let policy = Purge { retention: Duration::from_millis(10), ..everything_stays() };
    assert_eq!(purge(&store, policy, 60).await.0.removed, 1);
    assert!(store.event(Sight::All, id(1), at(0)).await.expect("read").is_none());
    let held = claim(&store, "a", 1, 500, 60).await.remove(0);
    assert_eq!(held.summary.id, id(50), "whole and undamaged");
    let part = store.body(name("a"), id(50), 599_990..600_000, at(0)).await.expect("read").expect("there");
    assert_eq!(part, whole[..10]);
}

/// Does a bulk action to its end, so many events at a time.
async fn run_bulk(store: &Arc<dyn Store>, bulk: EventId, at_once: i64, now: i64) -> Bulk {
    for step in 0..100 {
        let fresh = (0..at_once).map(|n| id(now + step * at_once + n)).collect();
        let state = store.bulk_step(bulk, fresh, at(now)).await.expect("a step");
        if state.finished {
            return state;
        }
    }
    panic!("a bulk action without end");
}

pub(super) async fn a_bulk_action_is_done_in_steps(store: Arc<dyn Store>) {
    for ms in 1..=10 {
        append(&store, event("a", ms)).await;
    }
    append(&store, event("b", 11)).await;
    for held in claim(&store, "a", 6, 900, 20).await {
        dead(&store, &held, 21).await;
    }
    let filter = Filter { endpoints: vec![name("a")], ..Filter::default() };
    store.bulk(BulkPlan::new(id(900), BulkAction::Revive, filter.clone()), at(30)).await.expect("noted");
    store.bulk(BulkPlan::new(id(900), BulkAction::Drop, filter.clone()), at(31)).await.expect("noted once");
    assert_eq!(record(&store, id(1)).await.summary.state, State::Dead, "nothing is done yet");
    let fresh = vec![id(901), id(902), id(903), id(904)];
    let first = store.bulk_step(id(900), fresh, at(40)).await.expect("a step");
    assert_eq!((first.action, first.done, first.skipped, first.finished), (BulkAction::Revive, 4, 0, false));
    assert_eq!((first.cursor.clone(), first.filter.clone()), (Some(Cursor(id(4))), filter));
    assert_eq!(store.bulks().await.expect("read"), [first], "how far it came is remembered");
    append(&store, event("a", 50)).await;
    let last = run_bulk(&store, id(900), 4, 1000).await;
    assert_eq!((last.done, last.skipped, last.finished), (6, 4, true), "events 7 to 10 are pending");
    assert_eq!(store.bulk_step(id(900), vec![id(990)], at(60)).await.expect("a step"), last);
    assert_eq!(store.bulk_step(id(999), vec![], at(60)).await, Err(StoreError::Unknown(id(999))));
}

pub(super) async fn only_what_waits_is_skipped(store: Arc<dyn Store>) {
    for ms in 1..=4 {
        append(&store, event("a", ms)).await;
    }
    append(&store, NewEvent { order_key: Some("fifo".into()), ..event("a", 5) }).await;
    append(&store, NewEvent { order_key: Some("fifo".into()), ..event("a", 6) }).await;
    let held = claim(&store, "a", 2, 900, 20).await;
    done(&store, &held[0], 21).await;
    let filter = Filter { endpoints: vec![name("a")], states: vec![State::Pending], ..Filter::default() };
    store.bulk(BulkPlan::new(id(900), BulkAction::Skip, filter), at(30)).await.expect("noted");
    append(&store, event("a", 31)).await;
    let last = run_bulk(&store, id(900), 2, 1000).await;
    assert_eq!((last.done, last.finished), (4, true));
    for ms in 3..=6 {
        let skipped = record(&store, id(ms)).await.summary;
        assert_eq!((skipped.state, skipped.reason), (State::Dropped, Some(Reason::Skipped)), "{ms}");
    }
    assert_eq!(record(&store, id(2)).await.summary.state, State::Running, "an attempt is left to its end");
    assert_eq!(ids(&claim(&store, "a", 10, 2000, 1500).await), [id(31), id(2)], "what is new, and whose lease is over");
    assert_eq!(act(&store, "a", id(3), Action::Skip, 1600).await, Acted::Not(State::Dropped));
    assert_eq!(act(&store, "a", id(3), Action::Revive, 1601).await, Acted::Done);
}

pub(super) async fn nothing_is_claimed_while_it_is_being_skipped(store: Arc<dyn Store>) {
    for (ms, endpoint) in [(1, "a"), (2, "a"), (3, "b")] {
        append(&store, event(endpoint, ms)).await;
    }
    let filter = Filter { endpoints: vec![name("a")], states: vec![State::Pending], ..Filter::default() };
    store.bulk(BulkPlan::new(id(900), BulkAction::Skip, filter), at(10)).await.expect("noted");
    let leased = NewEvent { lease: Some(grant(100)), ..event("a", 11) };
    assert!(matches!(append(&store, leased).await, Verdict::Accepted { lease: Some(_), .. }), "a sender waits for it");
    append(&store, event("a", 12)).await;
    let wants = ["a", "b"].map(|endpoint| Want { endpoint: name(endpoint), oldest: 9, newest: 9 }).to_vec();
    let claimed = store.claim(wants, grant(500), at(200)).await.expect("claimed");
    assert_eq!(ids(&claimed.deliveries), [id(3)]);
    assert_eq!(claimed.next_due, [(name("b"), at(500))]);
    run_bulk(&store, id(900), 1, 1000).await;
    assert_eq!(ids(&claim(&store, "a", 9, 900, 200).await), [12, 11].map(id));
}

pub(super) async fn a_bulk_replay_leaves_its_own_alone(store: Arc<dyn Store>) {
    for ms in 1..=5 {
        append(&store, event("a", ms)).await;
    }
    for held in claim(&store, "a", 5, 900, 20).await {
        done(&store, &held, 21).await;
    }
    store.bulk(BulkPlan::new(id(900), BulkAction::Replay, Filter::default()), at(30)).await.expect("noted");
    let last = run_bulk(&store, id(900), 2, 1000).await;
    assert_eq!((last.done, last.skipped), (5, 0));
    assert_eq!(claim(&store, "a", 100, 9000, 2000).await.len(), 5);
}

pub(super) async fn bulk_actions_are_bounded(store: Arc<dyn Store>) {
    let count = i64::try_from(MAX_BULKS).expect("small");
    let bulk = |ms| store.bulk(BulkPlan::new(id(ms), BulkAction::Drop, Filter::default()), at(ms));
    for ms in 1..=count {
        bulk(ms).await.expect("noted");
    }
    assert!(matches!(bulk(count + 1).await, Err(StoreError::Invalid(_))));
    for ms in 1..=count {
        store.bulk_step(id(ms), vec![id(5000)], at(count)).await.expect("a step");
    }
    for ms in 1..=count {
        bulk(count + ms).await.expect("noted");
        store.bulk_step(id(count + ms), vec![id(5000)], at(count)).await.expect("a step");
    }
    let all = store.bulks().await.expect("read");
    assert!(all.len() <= 2 * MAX_BULKS && all.iter().all(|bulk| bulk.finished));
    assert_eq!(all.last().map(|bulk| bulk.id), Some(id(2 * count)));
}

pub(super) async fn old_events_are_purged_and_late_ones_become_dead(store: Arc<dyn Store>) {
    for ms in 1..=4 {
        append(&store, event("a", ms)).await;
    }
    let held = claim(&store, "a", 2, 50, 10).await;
    done(&store, &held[0], 20).await;
    let policy = Purge {
        retention: Duration::from_millis(100),
        pending_retention: Duration::from_millis(200),
        ..everything_stays()
    };
    assert_eq!(purge(&store, policy.clone(), 119).await.0, Purged::default());
    let (purged, _) = purge(&store, policy.clone(), 120).await;
    assert_eq!((purged.removed, purged.expired), (1, 0));
    assert!(store.event(Sight::All, id(1), at(0)).await.expect("read").is_none());
    assert!(store.body(name("a"), id(1), 0..9, at(0)).await.expect("read").is_none());
    let (purged, _) = purge(&store, policy.clone(), 203).await;
    assert_eq!((purged.removed, purged.expired), (0, 2), "events 2 and 3; of 2 the lease ran out");
    let late = record(&store, id(3)).await.summary;
    assert_eq!((late.state, late.reason, late.settled_at), (State::Dead, Some(Reason::AgentAbsent), Some(at(203))));
    assert_eq!(ids(&claim(&store, "a", 9, 900, 204).await), [id(4)]);
    let (purged, _) = purge(&store, policy, 303).await;
    assert_eq!((purged.removed, purged.expired), (2, 0));
}

pub(super) async fn a_held_event_does_not_expire(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let held = claim(&store, "a", 1, 500, 10).await.remove(0);
    let policy = Purge { pending_retention: Duration::from_millis(100), ..everything_stays() };
    assert_eq!(purge(&store, policy.clone(), 499).await.0.expired, 0);
    assert_eq!(done(&store, &held, 499).await, Ended::Settled(State::Delivered));
}

pub(super) async fn space_is_made_of_ended_events_only(store: Arc<dyn Store>) {
    for ms in 1..=60 {
        append(&store, NewEvent { body: Body::Bytes(vec![1; 30_000].into()), ..event("a", ms) }).await;
    }
    for held in claim(&store, "a", 40, 900, 100).await {
        done(&store, &held, 101).await;
    }
    let before = store.usage().bytes;
    let some = Purge { max_bytes: before - 300_000, ..everything_stays() };
    let (purged, _) = purge(&store, some, 200).await;
    assert!((8..=14).contains(&purged.evicted), "{purged:?}");
    assert!(store.usage().bytes <= before - 250_000);
    assert!(store.event(Sight::All, id(1), at(0)).await.expect("read").is_none(), "the oldest first");
    assert!(store.event(Sight::All, id(40), at(0)).await.expect("read").is_some());
    let all = Purge { max_bytes: 0, ..everything_stays() };
    let (purged, _) = purge(&store, all, 300).await;
    assert_eq!((purged.removed, purged.expired), (0, 0));
    assert_eq!(claim(&store, "a", 100, 900, 400).await.len(), 20, "what waits is never evicted");
}

pub(super) async fn a_purge_goes_in_small_steps(store: Arc<dyn Store>) {
    store.append((1..=1700).map(|ms| event("a", ms)).collect(), at(1700)).await.expect("appended");
    while let held @ [_, ..] = &claim(&store, "a", 1000, 9000, 2000).await[..] {
        let ends = held.iter().map(|one| end(one, Some(200), Then::Done, 2001)).collect();
        store.settle(ends, at(2001)).await.expect("settled");
    }
    let policy = Purge { retention: Duration::from_millis(1), ..everything_stays() };
    let (purged, steps) = purge(&store, policy, 5000).await;
    assert_eq!(purged.removed, 1700);
    assert!(steps >= 4, "at most 500 at a time, and not {steps} steps");
}
