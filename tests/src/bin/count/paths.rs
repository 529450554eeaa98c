//! The paths that are counted, through what their crates make public.

use std::{future::poll_fn, hint::black_box, task::Poll, time::Duration};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use relay_proto::{
    Event, Framing, HeaderBlock, Hello, Instant, Limits, RequestHead, ResponseHead, Session, StreamId, Welcome,
    limits::MAX_MESSAGE_BYTES,
};
use relay_schemes::{Request, Secret, provider};
use relay_server::{
    endpoint::EndpointName,
    store::{Body, Dedup, Head, NewEvent, SqliteOptions, SqliteStore, Store as _},
    webhook::EventId,
};

/// Every path; `run` knows each.
pub(crate) const PATHS: &[&str] = &[
    "frames-encode",
    "frames-decode",
    "headers-encode",
    "headers-decode",
    "headers-iterate",
    "session-exchange",
    "verify-github",
    "append-begin",
];

/// Calls that are counted, and those before them that warm the path up: its buffers have their size then.
pub(crate) const CALLS: u64 = 200;
const WARM_UP: u64 = 50;

/// Frames of one message.
const FRAMES: usize = 32;

const BODY_BYTES: usize = 2048;
const SECRET: &str = "It's a Secret to Everybody";
const NOW_S: i64 = 1_770_000_000;
const NOW: Instant = Instant::from_micros(0);

/// The lines of a webhook of GitHub.
const LINES: [(&str, &str); 12] = [
    ("host", "hooks.example.com"),
    ("user-agent", "GitHub-Hookshot/0123456"),
    ("content-length", "2048"),
    ("accept", "*/*"),
    ("content-type", "application/json"),
    ("x-github-delivery", "0f8a4b9e-1111-11ee-8c7e-0242ac120002"),
    ("x-github-event", "push"),
    ("x-github-hook-id", "292430182"),
    ("x-github-hook-installation-target-id", "79929171"),
    ("x-github-hook-installation-target-type", "repository"),
    ("x-hub-signature", "sha1=0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"),
    ("x-hub-signature-256", "sha256=0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"),
];

/// What callgrind counts: it knows this function by its name.
#[inline(never)]
fn counted_by_callgrind<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// One call of a path, under the count once the path is warm.
fn call<T>(nth: u64, work: impl FnOnce() -> T) -> T {
    if nth < WARM_UP { work() } else { counted_by_callgrind(work) }
}

pub(crate) fn run(path: &str) -> anyhow::Result<()> {
    let block = HeaderBlock::from_iter(LINES);
    let all = 0..WARM_UP + CALLS;
    match path {
        "frames-encode" => frames(true),
        "frames-decode" => frames(false),
        "headers-encode" => all.for_each(|nth| {
            drop(call(nth, || HeaderBlock::from_iter(black_box(LINES))));
        }),
        "headers-decode" => all.for_each(|nth| {
            let bytes = block.as_bytes().clone();
            let _ok = call(nth, || HeaderBlock::decode(black_box(bytes)));
        }),
        "headers-iterate" => all.for_each(|nth| {
            call(nth, || black_box(&block).iter().map(|(name, value)| name.len() ^ value.len()).sum::<usize>());
        }),
        "session-exchange" => exchanges(),
        "verify-github" => verify()?,
        "append-begin" => append()?,
        _ => bail!("no such path: {path}"),
    }
    Ok(())
}

/// Two ends of a tunnel that have greeted each other.
struct Pair {
    relay: Session,
    agent: Session,
    message: BytesMut,
}

impl Pair {
    fn new() -> Self {
        let agent = Session::agent(Hello::default(), Limits::agent(), NOW);
        let relay = Session::relay(Limits::relay(), NOW);
        let mut pair = Self { relay, agent, message: BytesMut::with_capacity(MAX_MESSAGE_BYTES) };
        pair.pass_to_relay();
        pair.relay.welcome(Welcome { epoch: 1, ..Welcome::default() });
        pair.pass_to_agent();
        assert!(pair.agent.is_open(), "they have greeted each other");
        pair
    }

    /// What the relay owes, through the tunnel.
    fn pass_to_agent(&mut self) {
        pass(&mut self.relay, &mut self.agent, &mut self.message);
    }

    fn pass_to_relay(&mut self) {
        pass(&mut self.agent, &mut self.relay, &mut self.message);
    }
}

fn pass(from: &mut Session, to: &mut Session, message: &mut BytesMut) {
    while from.poll_transmit(message) {
        to.handle_bytes(NOW, message.split().freeze());
    }
    message.reserve(MAX_MESSAGE_BYTES);
}

fn request() -> RequestHead {
    RequestHead {
        endpoint: Bytes::from_static(b"github"),
        event_id: [7; 16],
        attempt: 1,
        method: Bytes::from_static(b"POST"),
        target: Bytes::from_static(b"/hooks?from=github"),
        framing: Framing::Length,
        headers: HeaderBlock::from_iter(LINES),
        fence: None,
        upgrade: Bytes::new(),
        asks_sha256: false,
    }
}

/// A message of DATA frames of 64 bytes, one for each of many streams: how it is written, or how it is read.
fn frames(encode: bool) {
    let mut pair = Pair::new();
    let body = Bytes::from_static(&[b'x'; 64]);
    let streams: Vec<StreamId> = (0..FRAMES).filter_map(|_| pair.relay.open(request()).ok()).collect();
    pair.pass_to_agent();
    for nth in 0..WARM_UP + CALLS {
        for id in &streams {
            pair.relay.send(*id, body.clone()).expect("there is room");
        }
        let Pair { relay, agent, message } = &mut pair;
        let is_message = if encode { call(nth, || relay.poll_transmit(message)) } else { relay.poll_transmit(message) };
        assert!(is_message && message.len() > FRAMES * body.len(), "all frames are in one message");
        let read = message.split().freeze();
        if encode {
            agent.handle_bytes(NOW, read);
        } else {
            call(nth, || agent.handle_bytes(NOW, read));
        }
        while let Some(event) = agent.poll_event() {
            if let Event::Data { id, bytes } = event {
                agent.consume(id, bytes.len());
            }
        }
        pair.pass_to_relay();
    }
}

/// A request with its body through both ends, and the answer back.
fn exchanges() {
    let mut pair = Pair::new();
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let answer = ResponseHead::new(200, HeaderBlock::from_iter([("content-type", "text/plain")]));
    for nth in 0..WARM_UP + CALLS {
        let (request, body, answer) = (request(), body.clone(), answer.clone());
        call(nth, || exchange(&mut pair, request, body, answer));
        assert_eq!((pair.relay.open_streams(), pair.agent.open_streams()), (0, 0), "the exchange is over");
    }
}

fn exchange(pair: &mut Pair, request: RequestHead, body: Bytes, answer: ResponseHead) {
    let id = pair.relay.open(request).expect("a stream is free");
    pair.relay.send(id, body).expect("there is room");
    pair.relay.finish(id, HeaderBlock::new()).expect("it is open");
    pair.pass_to_agent();
    take_events(&mut pair.agent);
    pair.agent.respond(id, answer).expect("it is open");
    pair.agent.send(id, Bytes::from_static(b"done")).expect("there is room");
    pair.agent.finish(id, HeaderBlock::new()).expect("it is open");
    pair.pass_to_relay();
    take_events(&mut pair.relay);
}

fn take_events(session: &mut Session) {
    while let Some(event) = session.poll_event() {
        if let Event::Data { id, bytes } = black_box(event) {
            session.consume(id, bytes.len());
        }
    }
}

fn verify() -> anyhow::Result<()> {
    let scheme = provider("github").and_then(|row| row.scheme.as_ref()).context("a row")?;
    let keys = scheme.keys(&[Secret::new(SECRET)])?;
    let body = vec![b'x'; BODY_BYTES];
    let unsigned: Vec<(&str, &str)> = LINES.into_iter().filter(|(name, _)| !name.starts_with("x-hub-")).collect();
    let request = Request { method: "POST", url: "https://hooks.example.com/in", headers: &unsigned, body: &body };
    let signed = scheme.sign(&keys, &request, None, NOW_S)?.headers;
    let signed = signed.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let lines: Vec<(&str, &str)> = unsigned.iter().copied().chain(signed).collect();
    let request = Request { headers: &lines, ..request };
    for nth in 0..WARM_UP + CALLS {
        let verified = call(nth, || scheme.verify(&keys, black_box(&request), NOW_S));
        assert!(verified.is_ok(), "its signature is right");
    }
    Ok(())
}

/// What the caller's thread does of an append: the event's rows, its hashes and its head as the store keeps it, and the
/// hand-over. The writer's thread is not counted.
fn append() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(SqliteOptions { path: folder.path().join("relay.db"), max_bytes: u64::MAX })?;
    let endpoint = EndpointName::parse("github")?;
    let mut head = Head::sample("/github");
    head.sent.headers = HeaderBlock::from_iter(LINES);
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for nth in 0..WARM_UP + CALLS {
        let sender_id = format!("{nth:036}");
        let dedup = Dedup { key: sender_id.clone(), window: Duration::from_secs(86_400), sender_retries: true };
        let event = NewEvent {
            endpoint: endpoint.clone(),
            id: EventId::new(),
            received_at: Timestamp::UNIX_EPOCH,
            head: head.clone(),
            body: Body::Bytes(body.clone()),
            event_type: Some("push".into()),
            sender_id: Some(sender_id),
            mark: None,
            dedup: Some(dedup),
            order_key: None,
            replay_of: None,
            lease: None,
        };
        runtime.block_on(async {
            let mut kept = store.append(vec![event], Timestamp::UNIX_EPOCH);
            let begun = poll_fn(|context| Poll::Ready(call(nth, || kept.as_mut().poll(context)))).await;
            assert!(begun.is_pending(), "the writer answers later");
            kept.await
        })?;
    }
    Ok(())
}
