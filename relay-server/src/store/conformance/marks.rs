//! What was signed once is taken once, however late it comes.

use super::*;

/// Signed at this moment, good for an hour.
fn mark(number: u8, signed_ms: i64) -> Mark {
    Mark { digest: [number; 32], signed_at: at(signed_ms), good_until: at(signed_ms + HOUR), is_late: false }
}

const HOUR: i64 = 3_600_000;

fn signed(ms: i64, mark: Mark, body: &'static str) -> NewEvent {
    NewEvent { mark: Some(mark), body: Body::Bytes(body.into()), ..event("a", ms) }
}

fn late(ms: i64, mark: Mark, body: &'static str) -> NewEvent {
    signed(ms, Mark { is_late: true, ..mark }, body)
}

const NEW: Verdict = Verdict::Accepted { lease: None, conflict: None };

fn again(state: State) -> Verdict {
    Verdict::Duplicate { of: id(1), state, answer: None }
}

async fn remember(store: &Arc<dyn Store>, reach_ms: i64, begins: Timestamp, now: i64) {
    let reach = Duration::from_millis(u64::try_from(reach_ms).expect("a span"));
    store.reach_back(vec![(name("a"), reach)], begins, at(now)).await.expect("remembered");
}

async fn purge_all(store: &Arc<dyn Store>, now: i64) {
    let mut policy =
        Purge { retention: Duration::ZERO, pending_retention: Duration::MAX, max_bytes: u64::MAX, cursor: None };
    for _ in 0..100 {
        policy.cursor = store.purge(policy.clone(), at(now)).await.expect("purged").next;
        if policy.cursor.is_none() {
            return;
        }
    }
    panic!("a purge ends");
}

pub(super) async fn what_was_signed_is_taken_once(store: Arc<dyn Store>) {
    assert_eq!(append(&store, signed(1, mark(1, 0), "one")).await, NEW);
    assert_eq!(append(&store, signed(2, mark(1, 0), "one")).await, again(State::Pending));
    assert_eq!(append(&store, signed(3, mark(1, 0), "another")).await, Verdict::OtherBody { of: id(1) });
    let long = NewEvent { body: Body::Bytes(vec![7; 300_000].into()), ..signed(4, mark(1, 0), "") };
    assert_eq!(append(&store, long).await, Verdict::OtherBody { of: id(1) });
    assert!(store.event(Sight::All, id(3), at(9)).await.expect("read").is_none());
    assert_eq!(append(&store, signed(5, mark(2, 0), "one")).await, NEW, "another signature");
    let elsewhere = NewEvent { endpoint: name("b"), ..signed(6, mark(1, 0), "another") };
    assert_eq!(append(&store, elsewhere).await, NEW, "another endpoint");
    let batch = vec![signed(7, mark(3, 0), "one"), signed(8, mark(3, 0), "two")];
    let verdicts = store.append(batch, at(9)).await.expect("appended");
    assert_eq!(verdicts, [NEW, Verdict::OtherBody { of: id(7) }]);
}

pub(super) async fn a_mark_outlives_its_event_and_ends_with_its_time(store: Arc<dyn Store>) {
    remember(&store, HOUR, Timestamp::MIN, 0).await;
    append(&store, signed(1, mark(1, 0), "one")).await;
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    done(&store, &held, 6).await;
    purge_all(&store, 100).await;
    assert!(store.event(Sight::All, id(1), at(100)).await.expect("read").is_none());
    assert_eq!(append(&store, late(200, mark(1, 0), "one")).await, again(State::Delivered));
    assert_eq!(append(&store, late(201, mark(1, 0), "another")).await, Verdict::OtherBody { of: id(1) });
    purge_all(&store, HOUR - 1).await;
    assert_eq!(append(&store, late(HOUR - 1, mark(1, 0), "one")).await, again(State::Delivered));
    purge_all(&store, HOUR).await;
    assert_eq!(append(&store, signed(HOUR, mark(1, 0), "one")).await, NEW, "nobody would let it come so far");
}

pub(super) async fn a_late_one_is_taken_where_nothing_can_be_unknown(store: Arc<dyn Store>) {
    let signed_at = |number: u8, ms: i64| mark(number, ms);
    assert_eq!(
        append(&store, late(1, signed_at(1, 0), "one")).await,
        Verdict::TooLate,
        "nobody said that it remembers"
    );
    remember(&store, HOUR, Timestamp::MIN, 2).await;
    assert_eq!(append(&store, late(3, signed_at(1, -HOUR / 2), "one")).await, NEW);
    assert_eq!(
        append(&store, late(4, signed_at(1, -HOUR / 2), "one")).await,
        Verdict::Duplicate { of: id(3), state: State::Pending, answer: None }
    );
    remember(&store, HOUR, Timestamp::MIN, 5).await;
    assert_eq!(append(&store, late(6, signed_at(2, 0), "one")).await, NEW, "nothing has changed");
    remember(&store, HOUR - 1, Timestamp::MIN, 7).await;
    assert_eq!(
        append(&store, late(8, signed_at(3, 0), "one")).await,
        Verdict::TooLate,
        "it is good for longer than that"
    );
    // For a while it took what it did not remember.
    remember(&store, 0, Timestamp::MIN, 9).await;
    remember(&store, HOUR, Timestamp::MIN, 10).await;
    assert_eq!(append(&store, late(11, signed_at(4, 0), "one")).await, Verdict::TooLate);
    assert_eq!(append(&store, late(12, signed_at(5, 60_000), "one")).await, Verdict::TooLate, "clocks differ");
    assert_eq!(append(&store, signed(13, signed_at(6, 0), "one")).await, NEW, "one that is not late");
    assert_eq!(append(&store, late(14, signed_at(7, HOUR), "one")).await, NEW, "signed since");
    // The memory of another name begins later.
    store.reach_back(vec![(name("b"), Duration::from_secs(3600))], at(100), at(100)).await.expect("remembered");
    let elsewhere = |ms, mark| NewEvent { endpoint: name("b"), ..late(ms, mark, "one") };
    assert_eq!(append(&store, elsewhere(101, signed_at(8, 99))).await, Verdict::TooLate);
    assert_eq!(append(&store, elsewhere(102, signed_at(8, 100))).await, NEW);
}

pub(super) async fn a_dead_one_that_comes_again_gets_another_attempt(store: Arc<dyn Store>) {
    append(&store, signed(1, mark(1, 0), "one")).await;
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    dead(&store, &held, 6).await;
    let verdict = append(&store, signed(7, mark(1, 0), "one")).await;
    assert_eq!(verdict, Verdict::Again { of: id(1), lease: None, redelivery: false });
    let held = claim(&store, "a", 1, 500, 8).await.remove(0);
    done(&store, &held, 9).await;
    let Verdict::Duplicate { of, state: State::Delivered, .. } = append(&store, signed(10, mark(1, 0), "one")).await
    else {
        panic!("delivered once")
    };
    assert_eq!(of, id(1));
}

/// A sender may sign an event afresh when it repeats it; each of its signatures can come again.
pub(super) async fn every_signature_of_an_event_is_known(store: Arc<dyn Store>) {
    remember(&store, HOUR, Timestamp::MIN, 0).await;
    let both = |ms, number| NewEvent { mark: Some(mark(number, 0)), ..keyed("a", ms, "k", true) };
    assert_eq!(append(&store, both(1, 1)).await, NEW);
    assert_eq!(append(&store, both(2, 2)).await, again(State::Pending));
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    done(&store, &held, 6).await;
    purge_all(&store, 100).await;
    for number in [1, 2] {
        let event = NewEvent { mark: Some(Mark { is_late: true, ..mark(number, 0) }), ..keyed("a", 200, "k", true) };
        assert_eq!(append(&store, event).await, again(State::Delivered), "signature {number}");
    }
}
