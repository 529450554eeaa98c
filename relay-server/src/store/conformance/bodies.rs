//! What comes out is what went in.

use std::io::Write as _;

use relay_proto::Framing;

use super::*;
use crate::spool::BodyFile;

pub(super) async fn heads_come_back_byte_for_byte(store: Arc<dyn Store>) {
    let mut strange = event("a", 1);
    let value: Vec<u8> = (1..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    strange.head.sent.headers =
        [("x-upper", &value[..]), ("x-upper", b""), ("x-upper", b"again")].into_iter().collect();
    strange.head.sent.framing = Framing::Chunked;
    strange.head.sent.target = format!("/é\u{1f980}%2F?{}", "x".repeat(2000));
    strange.head.arrival.peer = "2001:db8::1".parse().expect("an address");
    strange.body = Body::Bytes((0..=255).collect::<Vec<u8>>().into());
    append(&store, strange.clone()).await;
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    assert_eq!(held.head, strange.head);
    assert_eq!(held.body, Some((0..=255).collect::<Vec<u8>>().into()));
    assert_eq!(record(&store, id(1)).await.head, strange.head);
    assert!(held.summary.target.len() <= 256 && strange.head.sent.target.starts_with(&held.summary.target));
    append(&store, NewEvent { body: Body::Bytes(Bytes::new()), ..event("a", 2) }).await;
    let empty = claim(&store, "a", 1, 500, 6).await.remove(0);
    assert_eq!(empty.body, Some(Bytes::new()));
    assert_eq!(store.body(name("a"), id(2), 0..10, at(0)).await.expect("read"), Some(Bytes::new()));
}

/// Bytes in which every place can be told from its neighbours.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n ^ (n >> 8) ^ (n >> 16)).to_le_bytes()[0]).collect()
}

async fn reads_back(store: &Arc<dyn Store>, event: EventId, whole: &[u8]) {
    let size = whole.len() as u64;
    for (from, to) in
        [(0, 1), (0, 65_536), (262_143, 262_145), (262_144, 524_288), (size - 3, size + 50), (size, size + 1)]
    {
        let part = store.body(name("a"), event, from..to, at(0)).await.expect("read").expect("there");
        let at = |place: u64| usize::try_from(place.min(size)).expect("small");
        assert_eq!(part, whole[at(from)..at(to)], "{from}..{to}");
    }
    let largest = store.body(name("a"), event, 0..u64::MAX, at(0)).await.expect("read").expect("there");
    assert_eq!(largest.len() as u64, size.min(MAX_RANGE_BYTES));
    #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake is an empty part")]
    let backwards = store.body(name("a"), event, 9..3, at(0)).await.expect("read").expect("there");
    assert!(backwards.is_empty());
}

pub(super) async fn long_bodies_are_read_in_ranges(store: Arc<dyn Store>) {
    for (ms, length) in [(1, 65_537), (2, 1_500_000)] {
        let whole = pattern(length);
        append(&store, NewEvent { body: Body::Bytes(whole.clone().into()), ..event("a", ms) }).await;
        let held = claim(&store, "a", 1, 500, ms).await.remove(0);
        assert_eq!((held.summary.id, held.body.is_none()), (id(ms), true), "a long body does not come along");
        assert_eq!(held.summary.body_sha256, rules::sha256(&whole));
        if length > 1_000_000 {
            reads_back(&store, id(ms), &whole).await;
        }
    }
    append(&store, NewEvent { body: Body::Bytes(pattern(65_536).into()), ..event("a", 3) }).await;
    assert_eq!(claim(&store, "a", 1, 500, 4).await[0].body, Some(pattern(65_536).into()));
}

pub(super) async fn a_body_comes_from_a_file(store: Arc<dyn Store>) {
    let whole = pattern(700_000);
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&whole).expect("written");
    let of = |size| Body::File(BodyFile::of(file.try_clone().expect("a file"), size));
    append(&store, NewEvent { body: of(700_000), ..event("a", 1) }).await;
    reads_back(&store, id(1), &whole).await;
    append(&store, NewEvent { body: of(1000), ..event("a", 2) }).await;
    let held = claim(&store, "a", 2, 500, 5).await.remove(1);
    assert_eq!(held.body.as_deref(), Some(&whole[..1000]), "a short one is kept beside its head");
    // A duplicate's body leaves nothing behind, and takes nothing away.
    let again = |ms| NewEvent { body: Body::Bytes(whole.clone().into()), ..keyed("a", ms, "k", true) };
    append(&store, again(10)).await;
    assert!(matches!(append(&store, again(11)).await, Verdict::Duplicate { .. }));
    reads_back(&store, id(10), &whole).await;
}

pub(super) async fn a_body_that_cannot_be_read_is_refused(store: Arc<dyn Store>) {
    for size in [10, 700_000] {
        let short = Body::File(BodyFile::of(tempfile::tempfile().expect("a file"), size));
        let error = store.append(vec![NewEvent { body: short, ..event("a", 1) }], at(1)).await.expect_err("refused");
        assert!(matches!(&error, StoreError::Invalid(why) if why.contains("body")), "{error}");
    }
    assert!(store.event(Sight::All, id(1), at(0)).await.expect("read").is_none());
    append(&store, event("a", 1)).await;
}

pub(super) async fn long_answers_lose_their_body(store: Arc<dyn Store>) {
    for (ms, length, kept) in [(1, MAX_ANSWER_BYTES, true), (2, MAX_ANSWER_BYTES + 1, false)] {
        append(&store, event("a", ms)).await;
        let held = claim(&store, "a", 1, 500, 5).await.remove(0);
        let mut end = end(&held, Some(200), Then::Done, 6);
        end.attempt.answer.as_mut().expect("an answer").body = vec![b'x'; length].into();
        settle(&store, end, 6).await;
        let answer = record(&store, id(ms)).await.attempts.remove(0).answer.expect("an answer");
        assert_eq!((answer.body.len() == length, answer.truncated), (kept, !kept));
        assert_eq!(answer.headers, [("x-answer", b"\xffyes")].into_iter().collect());
    }
}

pub(super) async fn the_first_and_the_last_attempts_stay_on_record(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let last = MAX_ATTEMPTS as u64 + 5;
    let mut third = None;
    for fence in 1..=last {
        // Every other holder says nothing of its attempt.
        let now = i64::try_from(fence).expect("small") * 10;
        let held = claim(&store, "a", 1, now + 10, now).await.remove(0);
        assert_eq!((held.lease.fence, u64::from(held.lease.attempt)), (fence, fence));
        if fence % 2 == 0 || fence == last {
            settle(&store, end(&held, Some(500), Then::Retry(at(now + 10)), now), now).await;
        }
        if fence == 3 {
            third = Some(held);
        }
    }
    let fences = async || record(&store, id(1)).await.attempts.iter().map(|one| one.fence).collect::<Vec<_>>();
    let kept: Vec<u64> = std::iter::once(1).chain(last - 98..=last).collect();
    assert_eq!(fences().await, kept);
    let late = end(&third.expect("held"), Some(200), Then::Done, 9000);
    assert_eq!(settle(&store, late, 9000).await, Ended::Recorded);
    assert_eq!(fences().await, kept, "what is told late of one in the middle is not kept, either");
    let summary = record(&store, id(1)).await.summary;
    assert_eq!((u64::from(summary.attempts), summary.state), (last, State::Pending), "all of them count");
}
