//! What can be seen of events.

use super::*;

async fn list(store: &Arc<dyn Store>, filter: Filter) -> Vec<EventId> {
    let request = PageRequest { limit: 100, after: None, oldest_first: true };
    let page = store.list(filter, request).await.expect("a page");
    page.events.iter().map(|one| one.id).collect()
}

pub(super) async fn pages_follow_each_other_both_ways(store: Arc<dyn Store>) {
    for ms in 1..=25 {
        append(&store, event(["a", "b", "c"][usize::try_from(ms % 3).expect("small")], ms)).await;
    }
    for oldest_first in [true, false] {
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let request = PageRequest { limit: 7, after, oldest_first };
            let page = store.list(Filter::default(), request).await.expect("a page");
            assert!(page.events.len() <= 7);
            seen.extend(page.events.iter().map(|one| one.id));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut all: Vec<_> = (1..=25).map(id).collect();
        if !oldest_first {
            all.reverse();
        }
        assert_eq!(seen, all);
        assert!(pages <= 5);
    }
}

pub(super) async fn filters_let_through_what_they_say(store: Arc<dyn Store>) {
    for ms in 1..=6 {
        let event_type = Some(format!("type.{ms}"));
        append(&store, NewEvent { event_type, ..event(if ms == 6 { "b" } else { "a" }, ms) }).await;
    }
    let held = claim(&store, "a", 3, 500, 10).await;
    done(&store, &held[0], 11).await;
    dead(&store, &held[1], 12).await;
    let of = |states: &[State]| Filter { states: states.to_vec(), ..Filter::default() };
    assert_eq!(list(&store, of(&[State::Delivered])).await, [id(1)]);
    assert_eq!(list(&store, of(&[State::Dead])).await, [id(2)]);
    assert_eq!(list(&store, of(&[State::Running])).await, [id(3)]);
    assert_eq!(list(&store, of(&[State::Pending, State::Running])).await, [3, 4, 5, 6].map(id));
    assert_eq!(list(&store, of(&[State::Dead, State::Pending])).await, [2, 4, 5, 6].map(id));
    let statuses = vec![StatusRange(500, 599)];
    assert_eq!(list(&store, Filter { statuses, ..Filter::default() }).await, [id(2)]);
    assert_eq!(list(&store, Filter { endpoints: vec![name("b")], ..Filter::default() }).await, [id(6)]);
    assert!(list(&store, Filter { endpoints: vec![name("nowhere")], ..Filter::default() }).await.is_empty());
    let (from, until) = (Some(at(2)), Some(at(5)));
    assert_eq!(list(&store, Filter { from, until, ..Filter::default() }).await, [2, 3, 4].map(id));
    let event_types = vec!["type.1".into(), "*.4".into()];
    assert_eq!(list(&store, Filter { event_types, ..Filter::default() }).await, [1, 4].map(id));
}

pub(super) async fn text_is_found_in_head_and_body(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let mut quoted = event("a", 2);
    quoted.head.sent.headers = [("x-said", "say \"hello\"")].into_iter().collect();
    append(&store, quoted).await;
    let long = [vec![b'-'; 100_000], b"far away".to_vec()].concat();
    append(&store, NewEvent { body: Body::Bytes(long.into()), ..event("a", 3) }).await;
    let near = [b"near by".to_vec(), vec![b'-'; 100_000]].concat();
    append(&store, NewEvent { body: Body::Bytes(near.into()), ..event("a", 4) }).await;
    let text = |text: &str| Filter::text(text);
    assert_eq!(list(&store, text("\"N\":1}")).await, [], "case counts where there is a capital");
    assert_eq!(list(&store, text("\"n\":1}")).await, [id(1)]);
    assert_eq!(list(&store, text("say \"hello\"")).await, [id(2)]);
    assert_eq!(list(&store, text("n=2")).await, [id(2)], "a part of the target");
    assert_eq!(list(&store, text("sender-1")).await, [id(1)]);
    assert_eq!(list(&store, text("near by")).await, [id(4)]);
    assert!(list(&store, text("far away")).await.is_empty(), "only the first 64 KiB are searched");
    assert!(list(&store, text("nowhere at all")).await.is_empty());
}

pub(super) async fn queries_are_answered_from_rows_and_contents(store: Arc<dyn Store>) {
    for ms in 1..=5 {
        append(&store, event(if ms == 5 { "b" } else { "a" }, ms)).await;
    }
    let held = claim(&store, "a", 2, 500, 10).await;
    done(&store, &held[0], 11).await;
    dead(&store, &held[1], 12).await;
    for (text, found) in [
        ("is:delivered", vec![1]),
        ("is:dead,running", vec![2]),
        ("is:waiting", vec![3, 4, 5]),
        ("endpoint:b,c", vec![5]),
        ("-endpoint:a*", vec![5]),
        ("status:5xx", vec![2]),
        (&format!("status:none since:{}", at(4)), vec![4, 5]),
        ("why:handler_*", vec![2]),
        ("took:>4ms took:<6ms", vec![1, 2]),
        ("agent:agent-*", vec![1, 2]),
        ("is:resigned -is:dead", vec![1]),
        ("patience:>50%", vec![1, 2]),
        ("patience:>90%", vec![]),
        ("answer:answered status:200", vec![1]),
        ("answer:ANSWERED", vec![]),
        ("path:/hook is:retried", vec![]),
        ("is:dead n=2", vec![2]),
        ("header:x-test", vec![]),
    ] {
        let query = Query::parse(text, at(0)).0;
        let filter = Filter { query, patience_us: vec![(name("a"), 1000)], ..Filter::default() };
        let request = PageRequest { limit: 100, after: None, oldest_first: true };
        let page = store.list(filter, request).await.expect("a page");
        let seen: Vec<_> = page.events.iter().map(|one| one.id).collect();
        assert_eq!(seen, found.iter().copied().map(id).collect::<Vec<_>>(), "{text}");
        assert!(page.looked.rows >= seen.len() as u64 && page.looked.rows <= 5, "{text}: {:?}", page.looked);
        let last = page.events.last().map(|event| event.received_at);
        assert!(page.looked.back_to >= last, "{text}: {:?}", page.looked);
    }
}

pub(super) async fn a_sender_id_is_found(store: Arc<dyn Store>) {
    for (ms, sender) in [(1, "evt_1"), (2, "evt_2"), (3, "evt_1")] {
        append(&store, NewEvent { sender_id: Some(sender.into()), ..event("a", ms) }).await;
    }
    append(&store, NewEvent { sender_id: Some("evt_1".into()), ..event("b", 4) }).await;
    let of = |sender: &str, endpoints| Filter { sender_id: Some(sender.into()), endpoints, ..Filter::default() };
    assert_eq!(list(&store, of("evt_1", vec![])).await, [1, 3, 4].map(id));
    assert_eq!(list(&store, of("evt_1", vec![name("a")])).await, [1, 3].map(id));
    assert!(list(&store, of("evt_3", vec![])).await.is_empty());
    let request = PageRequest { limit: 2, after: None, oldest_first: false };
    let page = store.list(of("evt_1", vec![]), request).await.expect("a page");
    assert_eq!(page.next, Some(Cursor(id(3))));
    let request = PageRequest { limit: 2, after: page.next, oldest_first: false };
    let page = store.list(of("evt_1", vec![]), request).await.expect("a page");
    assert_eq!((page.events[0].id, page.next), (id(1), None));
}

pub(super) async fn a_page_is_bounded(store: Arc<dyn Store>) {
    let count = i64::try_from(MAX_PAGE).expect("small") + 10;
    store.append((1..=count).map(|ms| event("a", ms)).collect(), at(count)).await.expect("appended");
    for (limit, length) in [(usize::MAX, MAX_PAGE), (0, 1)] {
        let request = PageRequest { limit, after: None, oldest_first: true };
        let page = store.list(Filter::default(), request).await.expect("a page");
        assert_eq!(page.events.len(), length);
        assert!(page.next.is_some());
    }
}

pub(super) async fn one_event_is_shown_with_its_head_and_attempts(store: Arc<dyn Store>) {
    append(&store, event("a", 1)).await;
    let first = claim(&store, "a", 1, 500, 5).await.remove(0);
    let failed = end(&first, None, Then::Retry(at(10)), 6);
    settle(&store, failed.clone(), 6).await;
    let second = claim(&store, "a", 1, 500, 10).await.remove(0);
    let passed = end(&second, Some(204), Then::Done, 12);
    settle(&store, passed.clone(), 12).await;
    let found = store.event(name("a").into(), id(1), at(0)).await.expect("read").expect("there");
    assert_eq!(found.head, event("a", 1).head);
    assert_eq!(found.attempts, [failed.attempt, passed.attempt]);
    let summary = found.summary;
    assert_eq!((summary.state, summary.status, summary.due_at), (State::Delivered, Some(204), None));
    assert_eq!((summary.received_at, summary.settled_at), (at(1), Some(at(12))));
    assert_eq!((summary.attempts, summary.tries, summary.fence), (2, 2, 2));
    assert_eq!((summary.method.as_str(), summary.target.as_str(), summary.size), ("POST", "/hook?n=1", 7));
    assert_eq!(summary.body_sha256, rules::sha256(b"{\"n\":1}"));
    assert_eq!((summary.took_us, summary.agent.as_deref()), (Some(5000), Some("agent-1")));
    assert_eq!((summary.resigned, summary.unproven, summary.answered_us), (true, false, Some(700)));
    assert_eq!((summary.event_type.as_deref(), summary.sender_id.as_deref()), (Some("push"), Some("sender-1")));
}

pub(super) async fn the_backlog_says_what_waits(store: Arc<dyn Store>) {
    for ms in [3, 1, 2] {
        append(&store, event("a", ms)).await;
    }
    append(&store, event("b", 4)).await;
    store.pause(name("c"), true, at(5)).await.expect("paused");
    let held = claim(&store, "a", 1, 500, 5).await.remove(0);
    assert_eq!(held.summary.id, id(1));
    let ended = claim(&store, "b", 1, 500, 5).await.remove(0);
    done(&store, &ended, 6).await;
    let row = |endpoint: &str, paused, open, times: [Option<i64>; 3]| Backlog {
        endpoint: name(endpoint),
        paused,
        open,
        oldest: times[0].map(at),
        next_due: times[1].map(at),
        newest: times[2].map(at),
    };
    let all = store.backlog(Sight::All).await.expect("read");
    let expected = [
        row("a", false, 3, [Some(1), Some(2), Some(3)]),
        row("b", false, 0, [None, None, Some(4)]),
        row("c", true, 0, [None; 3]),
    ];
    assert_eq!(all, expected);
}
