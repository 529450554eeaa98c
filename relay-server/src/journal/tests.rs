//! The journal as its watchers and lists see it.

use bytes::Bytes;
use relay_proto::HeaderBlock;
use relay_schemes::EventMeta;

use super::{entry::SentBody, *};
use crate::{
    endpoint::{Capture, CaptureLevel, Endpoint},
    hops::Whose,
    store::Summary,
};

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

fn block(lines: &[(&str, &str)]) -> HeaderBlock {
    lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
}

fn draft(sender_id: Option<&str>, body: SentBody) -> Draft {
    let event = EventMeta { id: sender_id.map(str::to_owned), kind: Some("push".to_owned()) };
    Draft::sample(event, block(&[("content-type", "text/plain"), ("cookie", "hunter2")]), body)
}

fn failed() -> LiveAnswer {
    LiveAnswer::Failed { code: "no_agent", status: 503 }
}

/// All that an entry says of itself, as the API tells it.
fn told(entry: &LiveEntry) -> (String, Bytes, Bytes) {
    (serde_json::to_string(&detail(entry, 1)).expect("it is JSON"), entry.body(), entry.answer_body())
}

#[tokio::test(start_paused = true)]
async fn a_live_exchange_that_has_ended_says_what_it_said_and_holds_nothing_of_its_way() {
    let (journal, endpoint) = (Journal::build(1 << 20), Arc::new(Endpoint::sample()));
    let buffer = Bytes::from(vec![b'x'; 4096]);
    let body = || SentBody::There { kept: buffer.slice(100..2100), size: 2000, has_ended: true };
    let headers = block(&[("content-type", "text/html"), ("set-cookie", "a=1")]);
    let mut answered = draft(Some("delivery-1"), body());
    tokio::time::advance(Duration::from_micros(1500)).await;
    answered.way.answered(Whose::Handler, Some(201), Instant::now());
    let answer = LiveAnswer::Handler { status: 201, headers, sha256_in: Some([7; 32]) };
    let mut tap = journal.live(answered, &endpoint, answer, None, Instant::now()).expect("it is watched to its end");
    tap.data(&Bytes::from_static(b"<p>thanks"));
    let entry = journal.find("delivery-1", &Sight::All).expect("it is there while it runs");
    tokio::time::advance(Duration::from_micros(700)).await;
    tap.data(&Bytes::from_static(b"</p>"));
    tap.ended();
    drop(tap);
    let packed = journal.find("delivery-1", &Sight::All).expect("it is there");
    assert!(!Arc::ptr_eq(&packed, &entry));
    assert_eq!(told(&packed), told(&entry));
    assert_eq!((packed.answer_body(), packed.client), (Bytes::from_static(b"<p>thanks</p>"), [203, 0, 113, 9].into()));
    assert!(packed.headers.all("cookie").eq([&b"[masked]"[..]]));
    assert_eq!(detail(&packed, 1).same_at_handler, Some(false), "that is no checksum of its body");
    drop(entry);
    assert!(buffer.is_unique(), "its body was copied");

    let sent = draft(None, SentBody::None);
    assert!(journal.live(sent, &endpoint, failed(), None, Instant::now()).is_none());
    let rows = journal.rows(&Sight::All, None, false);
    let [(_, newest), (_, oldest)] = rows[..] else { panic!("{rows:?}") };
    let (newest, oldest) = (journal.entry(newest).expect("a row"), journal.entry(oldest).expect("a row"));
    assert_eq!(told(&oldest), told(&packed));
    assert_eq!((newest.status(), newest.event.id.as_deref(), newest.body().len()), (503, None, 0));
    assert!(matches!(newest.answer, LiveAnswer::Failed { code: "no_agent", .. }));
    assert_eq!(journal.read(journal.first(), 10).records.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_whole_is_kept_at_once_and_watched_no_further() {
    let (journal, endpoint) = (Journal::build(1 << 20), Arc::new(Endpoint::sample()));
    let answer = LiveAnswer::Handler { status: 200, headers: block(&[("set-cookie", "a=1")]), sha256_in: None };
    let there = Bytes::from_static(b"thanks");
    let sent = draft(Some("delivery-1"), SentBody::None);
    assert!(journal.live(sent, &endpoint, answer, Some(&there), Instant::now()).is_none());
    let entry = journal.find("delivery-1", &Sight::All).expect("it is there");
    let tail = entry.tail.get().expect("it has ended");
    assert_eq!((&tail.body, tail.size, tail.is_whole), (&there, 6, true));
    let LiveAnswer::Handler { headers, .. } = &entry.answer else { panic!("a handler answered") };
    assert!(headers.all("set-cookie").eq([&b"[masked]"[..]]));
    assert_eq!(journal.read(journal.first(), 10).records.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_broke_off_or_is_not_kept_is_not_whole_and_no_checksum_tells_of_it() {
    let journal = Journal::build(1 << 20);
    let heads = Capture { level: CaptureLevel::Heads, ..Capture::default() };
    let heads = Arc::new(Endpoint { capture: heads, ..Endpoint::sample() });
    let bodies = Arc::new(Endpoint::sample());
    let body = |has_ended| SentBody::There { kept: "the body".into(), size: 8, has_ended };
    for (endpoint, body, is_whole, tells) in [
        (&bodies, body(true), true, true),
        (&bodies, body(false), false, true),
        (&bodies, SentBody::None, true, true),
        (&heads, SentBody::None, false, false),
    ] {
        let answer = LiveAnswer::Handler { status: 200, headers: block(&[]), sha256_in: Some([7; 32]) };
        let id = format!("{is_whole} {tells} {}", journal.next());
        journal.live(draft(Some(&id), body), endpoint, answer, Some(&Bytes::new()), Instant::now());
        let entry = journal.find(&id, &Sight::All).expect("it is there");
        assert_eq!(entry.whole_body().is_some(), is_whole, "{id}");
        let told = detail(&entry, 1);
        assert_eq!(told.attempts[0].sha256_in.is_some(), tells, "{id}");
        assert_eq!(told.body.sha256.is_some(), is_whole && entry.request.size() > 0, "{id}");
    }
}

#[test]
fn live_exchanges_take_no_more_than_the_budget_and_the_newest_stay() {
    let (journal, endpoint) = (Journal::build(1 << 20), Arc::new(Endpoint::sample()));
    for size in (0..3000).map(|nth| nth * 37 % 60_000) {
        let body = SentBody::There { kept: vec![7; size].into(), size: size as u64, has_ended: true };
        journal.live(draft(None, body), &endpoint, failed(), None, Instant::now());
        let held = journal.ring.lock().bytes();
        assert!(held <= 1 << 20, "{held}");
    }
    let rows = journal.rows(&Sight::All, None, false);
    assert!((10..1000).contains(&rows.len()), "{}", rows.len());
    let sizes: Vec<_> = rows.iter().map(|(_, number)| journal.entry(*number).expect("a row").request.size()).collect();
    let expected = (0..3000_u64).rev().map(|nth| nth * 37 % 60_000);
    assert!(sizes.iter().copied().eq(expected.take(rows.len())));
    assert_eq!(journal.dropped(), 3000 - rows.len() as u64);
}
