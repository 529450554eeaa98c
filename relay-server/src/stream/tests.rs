//! NewsStreams as their readers see them.

use std::time::Duration;

use http_body_util::BodyExt as _;
use jiff::Timestamp;
use relay_program::api::StreamRows;
use serde_json::Value;

use super::*;
use crate::{
    agents::{AgentSettings, Agents},
    clock::Clock,
    endpoint::EndpointName,
    journal::{NewsRecord, tests::event},
    metrics::Metrics,
    store::{MemoryStore, Store},
};

struct Relay {
    journal: Arc<Journal>,
    streams: Arc<NewsStreams>,
}

fn relay(budget: u64) -> Relay {
    let (store, clock): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::new(1 << 30)), Clock::default());
    let settings = AgentSettings { max_sessions: 1, max_in_flight: 1, drain_timeout: Duration::ZERO, canaries: false };
    let (agents, _late) = Agents::build(settings, &store, &crate::audit::Audit::sample(&store), &clock);
    let journal = Journal::build(budget);
    let events = Metrics::default().events();
    let delivery = Delivery::build(store, clock, &agents, events, Arc::clone(&journal), None);
    let streams = NewsStreams::build(&journal, &delivery);
    Relay { journal, streams }
}

fn all() -> NewsWanted {
    NewsWanted {
        sight: Box::new(|| Some(Sight::All)),
        rows: Some(Query::default()),
        states: Vec::new(),
        last_event_id: None,
    }
}

impl Relay {
    fn open(&self, wanted: NewsWanted) -> Reader {
        Reader { body: self.streams.open(StreamHolder::Admin, wanted).expect("opens"), text: String::new() }
    }

    fn happens(&self, endpoint: &str) -> String {
        let event = event(endpoint);
        let id = event.id.to_string();
        self.journal.note(|| Some(NewsRecord::Kept(Arc::new(event))));
        id
    }
}

struct Reader {
    body: Body,
    text: String,
}

/// One message.
#[derive(Debug)]
struct Message {
    id: String,
    event: String,
    data: Value,
}

impl Message {
    fn rows(&self) -> (Vec<String>, u64) {
        let rows: StreamRows = serde_json::from_value(self.data.clone()).expect("rows");
        (rows.rows.into_iter().map(|row| row.id).collect(), rows.left_out)
    }
}

impl Reader {
    /// The next message, comments apart; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = message.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    lines.collect::<String>()
                };
                let message = (field("id"), field("event"), field("data"));
                self.text = rest.to_owned();
                if !message.1.is_empty() {
                    let (id, event, data) = message;
                    return Some(Message { id, event, data: serde_json::from_str(&data).expect("JSON") });
                }
            }
            let frame = self.body.frame().await?.expect("a stream does not break");
            self.text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
        }
    }

    async fn expect(&mut self, event: &str) -> Message {
        let message = self.next().await.expect("it goes on");
        assert_eq!(message.event, event, "{message:?}");
        message
    }
}

#[tokio::test(start_paused = true)]
async fn rows_come_in_batches_the_newest_state_of_each_event_once() {
    let relay = relay(1 << 20);
    let mut reader = relay.open(all());
    assert_eq!(reader.expect("hello").await.data["version"], env!("CARGO_PKG_VERSION"));
    let mut twice = event("pay");
    relay.journal.note(|| Some(NewsRecord::Kept(Arc::new(twice.clone()))));
    let second = relay.happens("pay");
    twice.status = Some(503);
    relay.journal.note(|| Some(NewsRecord::Kept(Arc::new(twice.clone()))));
    let message = reader.expect("rows").await;
    assert_eq!(message.rows(), (vec![second, twice.id.to_string()], 0));
    assert_eq!(message.data["rows"][1]["status"], 503);
    assert!(message.data["rows"][1]["rev"].as_u64() > message.data["rows"][0]["rev"].as_u64());
    let third = relay.happens("pay");
    assert_eq!(reader.expect("rows").await.rows(), (vec![third], 0));
}

#[tokio::test(start_paused = true)]
async fn of_too_many_rows_some_are_left_out_and_counted() {
    let relay = relay(64 << 20);
    let mut reader = relay.open(all());
    reader.expect("hello").await;
    for _ in 0..250 {
        relay.happens("pay");
    }
    let (rows, left_out) = reader.expect("rows").await.rows();
    assert_eq!((rows.len(), left_out, relay.streams.left_out()), (200, 50, 50));
}

#[tokio::test(start_paused = true)]
async fn a_reader_goes_on_where_it_was_or_learns_that_it_cannot() {
    let relay = relay(1 << 20);
    let mut reader = relay.open(all());
    reader.expect("hello").await;
    relay.happens("pay");
    let last = reader.expect("rows").await.id;
    drop(reader);
    let missed = relay.happens("pay");
    let resume = |last: &str| NewsWanted { last_event_id: Some(last.to_owned()), ..all() };
    let mut reader = relay.open(resume(&last));
    reader.expect("hello").await;
    assert_eq!(reader.expect("rows").await.rows().0, [missed]);
    drop(reader);
    for (id, why) in [("1fg1-7", "restarted"), ("what?", "restarted")] {
        let mut reader = relay.open(resume(id));
        reader.expect("hello").await;
        assert_eq!(reader.expect("resync").await.data["why"], why);
    }
    tokio::time::advance(Duration::from_secs(62)).await;
    let mut reader = relay.open(resume(&last));
    reader.expect("hello").await;
    assert_eq!(reader.expect("resync").await.data["why"], "too_old", "nobody watched meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_falls_behind_what_is_kept_loads_anew() {
    let relay = relay(100_000);
    let mut reader = relay.open(all());
    reader.expect("hello").await;
    for _ in 0..2000 {
        relay.happens("pay");
    }
    assert_eq!(reader.expect("resync").await.data["why"], "too_slow");
    assert!(!reader.expect("rows").await.rows().0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn where_many_events_changed_at_once_a_reader_loads_anew() {
    let relay = relay(1 << 20);
    let mut reader = relay.open(all());
    reader.expect("hello").await;
    relay.happens("pay");
    let before = reader.expect("rows").await.id;
    relay.journal.miss();
    let resync = reader.expect("resync").await;
    assert_eq!(resync.data["why"], "many_changed");
    let next = relay.happens("pay");
    assert_eq!(reader.expect("rows").await.rows().0, [next], "once is enough");
    drop(reader);
    for (id, is_whole) in [(before, false), (resync.id, true)] {
        let mut reader = relay.open(NewsWanted { last_event_id: Some(id), ..all() });
        reader.expect("hello").await;
        let message = reader.next().await.expect("it goes on");
        assert_eq!((message.event == "rows", message.event == "resync"), (is_whole, !is_whole), "{message:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_sight_or_does_not_fit_is_not_told() {
    let relay = relay(1 << 20);
    let (query, mistakes) = Query::parse("status:200 -type:secret.*", Timestamp::now());
    assert!(mistakes.is_empty());
    let sight = || Some(Sight::Only(vec![EndpointName::parse("pay").expect("a name")]));
    let mut reader = relay.open(NewsWanted { sight: Box::new(sight), rows: Some(query), ..all() });
    reader.expect("hello").await;
    relay.happens("shop");
    let (mut other, mut hidden) = (event("pay"), event("pay"));
    (other.status, hidden.event_type) = (Some(500), Some("secret.made".to_owned()));
    relay.journal.note(|| Some(NewsRecord::Kept(Arc::new(other))));
    relay.journal.note(|| Some(NewsRecord::Kept(Arc::new(hidden))));
    let ours = relay.happens("pay");
    assert_eq!(reader.expect("rows").await.rows(), (vec![ours], 0));
}

#[tokio::test(start_paused = true)]
async fn a_state_is_told_whole_when_it_has_changed() {
    let relay = relay(1 << 20);
    let agents = Arc::new(AtomicU64::new(1));
    let read = {
        let agents = Arc::clone(&agents);
        move |_: &Sight| -> BoxFuture<'static, String> {
            let agents = agents.load(Ordering::Relaxed);
            Box::pin(async move { format!("{{\"agents\":{agents}}}") })
        }
    };
    let states = vec![WholeState { event: "agents", read: Box::new(read) }];
    let mut reader = relay.open(NewsWanted { states, rows: None, ..all() });
    reader.expect("hello").await;
    assert_eq!(reader.expect("agents").await.data["agents"], 1);
    let before = tokio::time::Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        agents.store(2, Ordering::Relaxed);
    });
    assert_eq!(reader.expect("agents").await.data["agents"], 2);
    assert!(before.elapsed() >= Duration::from_secs(5), "and not told again before");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_relay_or_with_the_right_to_see_and_there_are_so_many() {
    let relay = relay(1 << 20);
    let may = Arc::new(AtomicUsize::new(1));
    let sight = {
        let may = Arc::clone(&may);
        move || (may.load(Ordering::Relaxed) > 0).then_some(Sight::All)
    };
    let mut reader = relay.open(NewsWanted { sight: Box::new(sight), ..all() });
    reader.expect("hello").await;
    may.store(0, Ordering::Relaxed);
    assert_eq!(reader.expect("bye").await.data["why"], "not_allowed");
    assert!(reader.next().await.is_none());
    drop(reader);
    let open = |holder: &StreamHolder| relay.streams.open(holder.clone(), all());
    let tokens = |n: usize| StreamHolder::Token(format!("token-{}", n / MAX_OF_TOKEN).into());
    let mut bodies: Vec<_> = (0..MAX_OF_ADMIN).map(|_| open(&StreamHolder::Admin).expect("a place")).collect();
    let of_tokens = MAX_STREAMS - MAX_OF_ADMIN;
    bodies.extend((0..of_tokens - 1).map(|n| open(&tokens(n)).expect("a place")));
    for holder in [StreamHolder::Admin, tokens(0)] {
        assert_eq!(open(&holder).err().map(|error| error.kind), Some(ApiErrorKind::TooManyStreams));
    }
    bodies.push(open(&tokens(of_tokens - 1)).expect("a place"));
    assert!(open(&tokens(1000)).is_err(), "all together are too many");
    assert_eq!(relay.streams.count(), MAX_STREAMS);
    relay.streams.close();
    for body in bodies {
        let mut reader = Reader { body, text: String::new() };
        reader.expect("hello").await;
        assert_eq!(reader.expect("bye").await.data["why"], "draining");
        assert!(reader.next().await.is_none());
    }
    assert_eq!(relay.streams.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_that_it_is_there() {
    let relay = relay(1 << 20);
    let mut reader = relay.open(all());
    reader.expect("hello").await;
    let (before, frame) = (tokio::time::Instant::now(), reader.body.frame().await);
    let frame = frame.expect("it goes on").expect("whole").into_data().expect("data");
    assert!(frame.starts_with(b":") && before.elapsed() < Duration::from_secs(3));
}
