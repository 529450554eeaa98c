//! What a peer sends, to either end of a tunnel: before the session is open, and while an exchange is under way.

use bytes::{Bytes, BytesMut};
use relay_proto::{
    Event, Framing, HeaderBlock, Hello, Instant, Limits, Offer, OfferState, RequestHead, Session, Welcome,
};

/// Bytes come to the same events, and are answered alike, whole or in pieces. The first byte says to whom they come and in
/// pieces of which size.
pub(crate) fn frames(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    headers(bytes);
    let piece = 1 + usize::from(how >> 3);
    for start in [Start::Relay, Start::Agent, Start::OpenRelay, Start::OpenAgent] {
        let whole = Seen::of(start, bytes.chunks(bytes.len().max(1)));
        let pieces = Seen::of(start, bytes.chunks(piece));
        assert_eq!(whole.events, pieces.events, "{start:?} in pieces of {piece}");
        assert_eq!(whole.answers, pieces.answers, "{start:?} in pieces of {piece}");
        let ends = whole.events.iter().filter(|event| matches!(event, Event::Closed { .. })).count();
        assert!(ends <= 1, "{start:?} ended {ends} times");
    }
}

/// A block of lines that is taken can be written anew, and says the same.
fn headers(bytes: &[u8]) {
    let Ok(block) = HeaderBlock::decode(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(block.iter().count(), block.len());
    let mut anew = HeaderBlock::builder(bytes.len());
    block.iter().for_each(|(name, value)| anew.push_lower(name, value));
    let anew = HeaderBlock::decode(anew.build().as_bytes().clone()).expect("it was taken before");
    assert!(block.iter().eq(anew.iter()));
}

/// Whose session the bytes come to, and how far that is.
#[derive(Clone, Copy, Debug)]
enum Start {
    Relay,
    Agent,
    OpenRelay,
    OpenAgent,
}

struct Seen {
    events: Vec<Event>,
    answers: Vec<Bytes>,
}

impl Seen {
    fn of<'b>(start: Start, pieces: impl Iterator<Item = &'b [u8]>) -> Self {
        let now = Instant::from_micros(1);
        let (mut relay, mut agent) = pair(now);
        let mut session = match start {
            Start::Relay => relay,
            Start::Agent => agent,
            Start::OpenRelay | Start::OpenAgent => {
                open(&mut relay, &mut agent, now);
                if matches!(start, Start::OpenRelay) { relay } else { agent }
            }
        };
        for piece in pieces {
            session.handle_bytes(now, Bytes::copy_from_slice(piece));
        }
        let mut seen = Self { events: Vec::new(), answers: Vec::new() };
        while let Some(event) = session.poll_event() {
            match &event {
                // Only the answer to a hello opens the session.
                Event::Hello(_) => session.welcome(Welcome { epoch: 1, ..Welcome::default() }),
                Event::Data { id, bytes } => session.consume(*id, bytes.len()),
                _ => {}
            }
            seen.events.push(event);
            seen.transmit(&mut session);
        }
        seen.transmit(&mut session);
        seen
    }

    fn transmit(&mut self, session: &mut Session) {
        let mut message = BytesMut::new();
        while session.poll_transmit(&mut message) {
            self.answers.push(message.split().freeze());
        }
    }
}

pub(super) fn hello() -> Hello {
    let offers = vec![Offer { endpoint: "github".into(), ..Offer::default() }];
    Hello { name: "fuzzer".into(), instance: [1; 16], software: "fuzzer/1".into(), offers, canaries: false }
}

pub(super) fn welcome() -> Welcome {
    let (endpoint, provider) = ("github".to_owned(), "none".to_owned());
    let attached = relay_proto::Attached { endpoint, state: OfferState::Accepted, url: String::new(), provider };
    Welcome { epoch: 7, endpoints: vec![attached], ..Welcome::default() }
}

pub(super) fn pair(now: Instant) -> (Session, Session) {
    (Session::relay(Limits::relay(), now), Session::agent(hello(), Limits::agent(), now))
}

pub(super) fn request() -> RequestHead {
    RequestHead {
        endpoint: "github".into(),
        event_id: [2; 16],
        attempt: 1,
        method: "POST".into(),
        target: "/x".into(),
        framing: Framing::Chunked,
        headers: [("a", "b")].into_iter().collect(),
        fence: Some(3),
        upgrade: Bytes::new(),
        asks_sha256: false,
    }
}

/// Both sides have introduced themselves, and two requests are under way.
fn open(relay: &mut Session, agent: &mut Session, now: Instant) {
    pass(agent, relay, now);
    relay.welcome(welcome());
    for _ in 0..2 {
        let id = relay.open(request()).expect("it is open");
        relay.send(id, Bytes::from_static(b"body")).expect("there is room");
    }
    pass(relay, agent, now);
    pass(agent, relay, now);
    for session in [relay, agent] {
        while session.poll_event().is_some() {}
    }
}

/// Everything that one side owes reaches the other.
pub(super) fn pass(from: &mut Session, to: &mut Session, now: Instant) {
    let mut message = BytesMut::new();
    while from.poll_transmit(&mut message) {
        to.handle_bytes(now, message.split().freeze());
    }
}
