//! Room: what gives way, what is refused, and what is left for whom. Each case begins with a store of [`NARROW`] bytes.

use super::*;

/// What a full store takes at most: ends of attempts are recorded all the same.
const FULL: u64 = NARROW + NARROW / 16;

/// An event whose body has this many bytes.
fn sized(endpoint: &str, ms: i64, bytes: usize) -> NewEvent {
    NewEvent { body: Body::Bytes(vec![u8::try_from(ms % 251).expect("small"); bytes].into()), ..event(endpoint, ms) }
}

async fn try_append(store: &Arc<dyn Store>, event: NewEvent) -> Result<Verdict, StoreError> {
    let now = event.received_at;
    store.append(vec![event], now).await.map(|mut verdicts| verdicts.remove(0))
}

/// Takes events in until one is refused; how many, and why.
async fn fill(store: &Arc<dyn Store>, endpoint: &str, from: i64, bytes: usize) -> (i64, StoreError) {
    for n in 0..10_000 {
        if let Err(error) = try_append(store, sized(endpoint, from + n, bytes)).await {
            assert!(error.is_temporary() && error.is_full(), "{error}");
            return (n, error);
        }
    }
    panic!("a store without end");
}

/// Delivers whatever waits.
async fn deliver_all(store: &Arc<dyn Store>, endpoint: &str, now: i64) {
    while let held @ [_, ..] = &claim(store, endpoint, 1000, now + 1000, now).await[..] {
        let ends = held.iter().map(|one| end(one, Some(200), Then::Done, now)).collect();
        store.settle(ends, at(now)).await.expect("settled");
    }
}

async fn is_there(store: &Arc<dyn Store>, ms: i64) -> bool {
    store.event(Sight::All, id(ms), at(0)).await.expect("read").is_some()
}

fn share(endpoint: &str, max_bytes: u64, is_proven: bool) -> (EndpointName, Share) {
    (name(endpoint), Share { max_bytes, is_proven, pool: None })
}

pub(super) async fn what_has_ended_gives_way_oldest_first(store: Arc<dyn Store>) {
    // Several times what the store has room for, all of it delivered, with one that waits from the beginning.
    append(&store, sized("waits", 1, 10_000)).await;
    for round in 0..40 {
        for n in 0..20 {
            append(&store, sized(["a", "b"][n % 2], 10 + round * 20 + i64::try_from(n).expect("small"), 20_000)).await;
        }
        for endpoint in ["a", "b"] {
            deliver_all(&store, endpoint, 1000 + round).await;
        }
        assert!(store.usage().bytes <= FULL, "{}", store.usage().bytes);
    }
    assert!(is_there(&store, 1).await, "what waits stays");
    assert_eq!(claim(&store, "waits", 1, 9000, 5000).await.len(), 1);
    let mut gone = Vec::new();
    for ms in 10..810 {
        gone.push(!is_there(&store, ms).await);
    }
    let first = gone.iter().position(|gone| !gone).expect("some are there");
    assert!(first > 500, "{first} of 800 are gone, of 16 MB");
    assert!(gone[first..].iter().all(|gone| !gone), "the oldest went first");
}

pub(super) async fn long_bodies_find_room_where_others_ended(store: Arc<dyn Store>) {
    for round in 0..12 {
        append(&store, sized("a", 1 + round, 900_000)).await;
        deliver_all(&store, "a", 100 + round).await;
        assert!(store.usage().bytes <= FULL, "{}", store.usage().bytes);
    }
    let part = store.body(name("a"), id(12), 899_000..900_000, at(0)).await.expect("read").expect("there");
    assert_eq!(part, vec![12; 1000], "what came last is whole");
    // Short ones find the room of long ones, and the other way round.
    for ms in 100..300 {
        append(&store, sized("a", ms, 30_000)).await;
        deliver_all(&store, "a", 1000 + ms).await;
    }
    append(&store, sized("a", 400, 2_000_000)).await;
    assert!(store.usage().bytes <= FULL);
}

pub(super) async fn a_store_that_is_full_of_what_waits_refuses_and_loses_nothing(store: Arc<dyn Store>) {
    let (count, why) = fill(&store, "a", 1, 20_000).await;
    assert_eq!(why, StoreError::AtCapacity);
    assert!((100..=210).contains(&count), "{count} of 20 KB in 4 MiB");
    assert_eq!(try_append(&store, sized("b", 9000, 300_000)).await, Err(StoreError::AtCapacity));
    // What ended makes room for as much, not for more.
    for held in claim(&store, "a", 3, 90_000, 9000).await {
        done(&store, &held, 9001).await;
    }
    assert_eq!(try_append(&store, sized("a", 9002, 300_000)).await, Err(StoreError::AtCapacity));
    assert!(is_there(&store, 1).await && is_there(&store, 3).await, "what was refused displaced nothing");
    let (more, why) = fill(&store, "b", 9003, 19_000).await;
    assert!((1..=6).contains(&more) && why == StoreError::AtCapacity, "{more} and {why}");
    assert!(!is_there(&store, 1).await);
    deliver_all(&store, "a", 10_000).await;
    for ms in 0..count - 10 - more {
        append(&store, sized("b", 20_000 + ms, 18_000)).await;
    }
    assert_eq!(claim(&store, "b", 1000, 90_000, 30_000).await.len(), usize::try_from(count - 10).expect("small"));
}

pub(super) async fn a_repeat_needs_no_room(store: Arc<dyn Store>) {
    append(&store, keyed("a", 1, "k", true)).await;
    append(&store, keyed("a", 2, "dead", true)).await;
    let held = claim(&store, "a", 2, 900, 3).await;
    done(&store, &held[0], 4).await;
    dead(&store, &held[1], 4).await;
    // What ended goes with this; the repeats are of what waits.
    append(&store, keyed("a", 5, "waits", true)).await;
    fill(&store, "b", 10, 4000).await;
    let again = try_append(&store, keyed("a", 9000, "waits", true)).await;
    assert!(matches!(again, Ok(Verdict::Duplicate { of, .. }) if of == id(5)), "{again:?}");
    assert!(try_append(&store, sized("a", 9001, 4000)).await.is_err());
}

pub(super) async fn an_endpoint_keeps_to_its_share(store: Arc<dyn Store>) {
    store.set_shares(vec![share("a", NARROW / 4, true)]);
    let (count, why) = fill(&store, "a", 1, 10_000).await;
    assert_eq!(why, StoreError::AtShare);
    assert!(why.to_string().contains("max_size"), "{why}");
    assert!((50..=105).contains(&count), "{count} of 10 KB in 1 MiB");
    append(&store, sized("b", 5000, 10_000)).await;
    // What has ended gives way within the share as well, oldest first.
    deliver_all(&store, "a", 6000).await;
    for ms in 0..3 * count {
        append(&store, sized("a", 7000 + ms, 10_000)).await;
        deliver_all(&store, "a", 8000 + ms).await;
    }
    assert!(!is_there(&store, 1).await && !is_there(&store, 7000).await);
    assert!(is_there(&store, 7000 + 3 * count - 1).await);
    assert!(store.usage().bytes < NARROW / 2, "{}", store.usage().bytes);
    // A larger share holds at once.
    store.set_shares(vec![share("a", NARROW / 2, true)]);
    assert!(fill(&store, "a", 20_000, 10_000).await.0 > count);
}

pub(super) async fn endpoints_of_a_pool_keep_to_it_together(store: Arc<dyn Store>) {
    let pool = Some(SharePool { number: 3, max_bytes: NARROW / 4 });
    let pooled = |endpoint: &str| (name(endpoint), Share { pool, ..Share::default() });
    let other =
        (name("other"), Share { pool: Some(SharePool { number: 4, max_bytes: NARROW / 4 }), ..Share::default() });
    store.set_shares(vec![pooled("a"), pooled("b"), pooled("never"), other]);
    for ms in 1..=20 {
        append(&store, sized("other", ms, 10_000)).await;
    }
    deliver_all(&store, "other", 30).await;
    let (some, why) = fill(&store, "a", 100, 10_000).await;
    assert_eq!(why, StoreError::AtQuota);
    assert!(why.to_string().contains("max_stored") && (50..=105).contains(&some), "{some}: {why}");
    assert_eq!(try_append(&store, sized("b", 3000, 10_000)).await, Err(StoreError::AtQuota), "the other one as well");
    append(&store, sized("free", 3001, 10_000)).await;
    // What has ended anywhere in the pool gives way, the oldest first, and nothing beyond the pool.
    deliver_all(&store, "a", 4000).await;
    for ms in 0..2 * some {
        append(&store, sized("b", 5000 + ms, 10_000)).await;
        deliver_all(&store, "b", 6000 + ms).await;
    }
    assert!(!is_there(&store, 100).await && is_there(&store, 5000 + 2 * some - 1).await);
    for ms in 1..=20 {
        assert!(is_there(&store, ms).await, "{ms}: of another pool");
    }
    let sizes = store.sizes(Sight::Only(vec![name("a"), name("b")])).await.expect("read");
    let taken: u64 = sizes.iter().map(|size| size.waiting + size.ended).sum();
    assert!(taken <= NARROW / 4 + NARROW / 16, "{taken}");
    // A larger one holds at once, and so does none.
    store.set_shares(vec![pooled("a"), (name("b"), Share::default())]);
    assert!(fill(&store, "b", 30_000, 10_000).await.0 > some);
}

pub(super) async fn ended_events_of_others_stay_where_a_share_is_used_up(store: Arc<dyn Store>) {
    store.set_shares(vec![share("loud", NARROW / 2, true)]);
    for ms in 1..=50 {
        append(&store, sized("quiet", ms, 10_000)).await;
    }
    deliver_all(&store, "quiet", 100).await;
    for ms in 0..500 {
        append(&store, sized("loud", 1000 + ms, 20_000)).await;
        deliver_all(&store, "loud", 2000 + ms).await;
    }
    for ms in 1..=50 {
        assert!(is_there(&store, ms).await, "{ms}: a flood elsewhere does not wash it away");
    }
}

pub(super) async fn long_bodies_keep_to_the_share(store: Arc<dyn Store>) {
    store.set_shares(vec![share("a", NARROW / 2, true)]);
    let (count, why) = fill(&store, "a", 1, 400_000).await;
    assert_eq!((count, why), (5, StoreError::AtShare), "400 KB in 2 MiB, and what stands beside them");
    assert_eq!(try_append(&store, sized("a", 500, 3_000_000)).await, Err(StoreError::AtShare), "more than its share");
    deliver_all(&store, "a", 1000).await;
    for round in 0..8 {
        append(&store, sized("a", 2000 + round, 400_000)).await;
        deliver_all(&store, "a", 3000 + round).await;
    }
    assert!(!is_there(&store, 1).await && is_there(&store, 2007).await);
    assert_eq!(fill(&store, "a", 9000, 400_000).await.1, StoreError::AtShare);
}

pub(super) async fn unproven_senders_leave_the_reserve_alone(store: Arc<dyn Store>) {
    store.set_shares(vec![
        share("open", u64::MAX, false),
        share("door", u64::MAX, false),
        share("proven", u64::MAX, true),
    ]);
    let (count, why) = fill(&store, "open", 1, 20_000).await;
    assert_eq!(why, StoreError::AtReserve);
    assert!((75..=160).contains(&count), "{count} of 20 KB in 3 MiB");
    assert_eq!(
        try_append(&store, sized("door", 9000, 20_000)).await,
        Err(StoreError::AtReserve),
        "all of them together"
    );
    let (more, why) = fill(&store, "proven", 10_000, 20_000).await;
    assert_eq!(why, StoreError::AtCapacity);
    assert!(more >= 30, "{more} of 20 KB in the last quarter");
    // What ended there is no reserve: it gives way to whoever comes.
    deliver_all(&store, "open", 20_000).await;
    deliver_all(&store, "proven", 20_001).await;
    assert!(fill(&store, "door", 30_000, 20_000).await.0 >= 75);
}

pub(super) async fn records_of_attempts_count(store: Arc<dyn Store>) {
    store.set_shares(vec![share("a", NARROW / 4, true)]);
    append(&store, sized("a", 1, 100)).await;
    for ms in 0..30 {
        let held = claim(&store, "a", 1, 9000, 10 + ms).await.remove(0);
        let mut end = end(&held, Some(500), Then::Retry(at(10 + ms)), 10 + ms);
        end.attempt.answer.as_mut().expect("an answer").body = vec![b'x'; 60_000].into();
        settle(&store, end, 10 + ms).await;
    }
    // Thirty answers of 60 KB are 1.8 MB: a small event whose handler says much uses up its endpoint's share, too.
    assert_eq!(try_append(&store, sized("a", 100, 100)).await, Err(StoreError::AtShare));
    append(&store, sized("b", 101, 100)).await;
    deliver_all(&store, "a", 200).await;
    append(&store, sized("a", 300, 100)).await;
    assert!(!is_there(&store, 1).await, "with its event every record is gone");
    assert!(fill(&store, "a", 1000, 10_000).await.0 >= 50, "and nothing of it is counted any more");
}

pub(super) async fn replays_keep_to_the_share(store: Arc<dyn Store>) {
    store.set_shares(vec![share("a", NARROW / 4, true)]);
    append(&store, sized("a", 1, 50_000)).await;
    append(&store, sized("a", 2, 300_000)).await;
    let mut refused = None;
    for ms in 10..200 {
        let act = Act { endpoint: name("a"), id: id(1), action: Action::Replay(id(ms), Signature::Auto) };
        if let Err(error) = store.act(vec![act], at(ms)).await {
            refused = Some((ms, error));
            break;
        }
    }
    let (ms, error) = refused.expect("a limit");
    assert_eq!(error, StoreError::AtShare);
    assert!((15..=25).contains(&ms), "{ms}");
    assert!(!is_there(&store, ms).await);
    // A replay may displace its own original, and has the long body whole.
    deliver_all(&store, "a", 300).await;
    for ms in 400..410 {
        append(&store, sized("a", ms, 50_000)).await;
        deliver_all(&store, "a", 500 + ms).await;
    }
    append(&store, sized("a", 2000, 600_000)).await;
    deliver_all(&store, "a", 2001).await;
    assert_eq!(act(&store, "a", id(2000), Action::Replay(id(2100), Signature::Auto), 2100).await, Acted::Done);
    let part = store.body(name("a"), id(2100), 599_000..600_000, at(0)).await.expect("read").expect("there");
    assert_eq!(part, vec![u8::try_from(2000 % 251).expect("small"); 1000]);
}

pub(super) async fn refused_requests_displace_nothing_that_waits(store: Arc<dyn Store>) {
    let row = |ms: i64| RefusedRow {
        endpoint: name("a"),
        id: id(ms),
        at: at(ms),
        status: 401,
        code: "signature_mismatch".into(),
        head: "{}".into(),
        body: vec![b'x'; 40_000].into(),
    };
    append(&store, sized("a", 1, 10_000)).await;
    deliver_all(&store, "a", 2).await;
    fill(&store, "a", 10, 20_000).await;
    assert_eq!(store.refuse(vec![row(5000)]).await, Err(StoreError::AtCapacity));
    deliver_all(&store, "a", 6000).await;
    store.refuse(vec![row(7000)]).await.expect("what has ended gives way");
    assert_eq!(store.refused(None, 10).await.expect("read").len(), 1);
}
