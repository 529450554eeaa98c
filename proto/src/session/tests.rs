//! Two sessions joined by a link with a virtual clock.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::{
    control::{Attach, Attached, Offer, OfferState},
    frame::{FrameType, put_header},
    limits::{MAX_HEAD_BYTES, MAX_MESSAGE_BYTES},
    message::Framing,
    outcome::{MAX_OUTCOME_BODY_BYTES, OutcomeState},
};

/// A relay and an agent; `run` carries messages until nobody owes any.
struct Pair {
    now: Instant,
    relay: Session,
    agent: Session,
    /// Every message that was carried, by the role that sent it.
    carried: Vec<(Role, Bytes)>,
}

impl Pair {
    fn new(relay: Limits, agent: Limits) -> Self {
        let now = Instant::from_micros(1_000_000);
        let relay = Session::relay(relay, now);
        let agent = Session::agent(hello(), agent, now);
        Self { now, relay, agent, carried: Vec::new() }
    }

    fn open() -> Self {
        Self::open_with(Limits::relay(), Limits::agent())
    }

    fn open_with(relay: Limits, agent: Limits) -> Self {
        let mut pair = Self::new(relay, agent);
        pair.run();
        assert_eq!(pair.relay_events(), [Event::Hello(hello())]);
        pair.relay.welcome(welcome());
        pair.run();
        assert_eq!(pair.agent_events(), [Event::Welcome(welcome())]);
        pair.carried.clear();
        pair
    }

    fn run(&mut self) {
        let mut message = BytesMut::new();
        loop {
            if self.relay.poll_transmit(&mut message) {
                let bytes = message.split().freeze();
                self.carried.push((Role::Relay, bytes.clone()));
                self.agent.handle_bytes(self.now, bytes);
            } else if self.agent.poll_transmit(&mut message) {
                let bytes = message.split().freeze();
                self.carried.push((Role::Agent, bytes.clone()));
                self.relay.handle_bytes(self.now, bytes);
            } else {
                return;
            }
            assert!(self.carried.last().expect("just pushed").1.len() <= MAX_MESSAGE_BYTES);
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.relay.handle_timeout(self.now);
        self.agent.handle_timeout(self.now);
        self.run();
    }

    fn relay_events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.relay.poll_event()).collect()
    }

    fn agent_events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.agent.poll_event()).collect()
    }

    /// Opens an exchange whose request is whole.
    fn ask(&mut self, body: &[u8]) -> StreamId {
        let id = self.relay.open(request()).expect("opens");
        self.relay.send(id, Bytes::copy_from_slice(body)).expect("sends");
        self.relay.finish(id, HeaderBlock::new()).expect("finishes");
        id
    }

    fn assert_quiet(&self) {
        assert_eq!((self.relay.open_streams(), self.agent.open_streams()), (0, 0));
        assert_eq!((self.relay.buffered_bytes(), self.agent.buffered_bytes()), (0, 0));
        assert_eq!(self.relay.free_pool_bytes(), self.relay.limits.window_pool_bytes);
        assert_eq!(self.agent.free_pool_bytes(), self.agent.limits.window_pool_bytes);
        assert!(self.relay.streams.is_empty() && self.agent.streams.is_empty());
    }
}

fn hello() -> Hello {
    Hello {
        name: "laptop".into(),
        instance: [7; 16],
        software: "test/1".into(),
        offers: vec![
            Offer { endpoint: "github".into(), attach: Attach::Shared, capacity: 50, ..Offer::default() },
            Offer { endpoint: "other".into(), ..Offer::default() },
        ],
        canaries: false,
    }
}

fn welcome() -> Welcome {
    Welcome {
        epoch: 42,
        software: "relay/1".into(),
        endpoints: vec![
            Attached {
                endpoint: "github".into(),
                state: OfferState::Accepted,
                url: "https://hooks.test/github".into(),
                provider: "github".into(),
            },
            Attached {
                endpoint: "other".into(),
                state: OfferState::Refused { code: "not_allowed".into() },
                url: String::new(),
                provider: String::new(),
            },
        ],
        available: vec!["github".into()],
    }
}

fn request() -> RequestHead {
    let lines = [("x-tag", &b"one"[..]), ("accept", b"*/*"), ("x-tag", b"\xff two"), ("x-empty", b"")];
    RequestHead {
        endpoint: "github".into(),
        event_id: [9; 16],
        attempt: 1,
        method: "POST".into(),
        target: "/a%2Fb?x=%20".into(),
        framing: Framing::Chunked,
        headers: lines.into_iter().collect(),
        fence: Some(3),
        upgrade: Bytes::new(),
        asks_sha256: false,
    }
}

fn response(status: u16) -> ResponseHead {
    let lines = [("set-cookie", "a=1"), ("set-cookie", "b=2")];
    ResponseHead::new(status, lines.into_iter().collect())
}

fn data(id: StreamId, bytes: &[u8]) -> Event {
    Event::Data { id, bytes: Bytes::copy_from_slice(bytes) }
}

fn end(id: StreamId) -> Event {
    Event::End { id, trailers: HeaderBlock::new() }
}

/// The types of the frames in a message.
fn frame_types(message: &Bytes) -> Vec<FrameType> {
    let mut decoder = Decoder::new();
    decoder.push(message.clone());
    let mut types = Vec::new();
    while let Some(frame) = decoder.next().expect("our own frames") {
        types.push(frame.kind);
    }
    types
}

#[test]
fn the_common_webhook_is_one_message_each_way() {
    let mut pair = Pair::open();
    let id = pair.ask(b"{\"zen\":1}");
    pair.run();
    let asked = Event::Request { id, head: request() };
    assert_eq!(pair.agent_events(), [asked, data(id, b"{\"zen\":1}"), end(id)]);
    pair.agent.consume(id, 9);

    pair.agent.respond(id, response(202)).expect("responds");
    pair.agent.send(id, "ok".into()).expect("sends");
    pair.agent.finish(id, HeaderBlock::new()).expect("finishes");
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Response { id, head: response(202) }, data(id, b"ok"), end(id)]);
    pair.relay.consume(id, 2);

    let frames: Vec<_> = pair.carried.iter().map(|(from, message)| (*from, frame_types(message))).collect();
    assert_eq!(frames, [(Role::Relay, vec![FrameType::Request]), (Role::Agent, vec![FrameType::Response])]);
    pair.assert_quiet();
}

#[test]
fn an_empty_chunked_body_is_told_apart_from_no_body_by_its_framing() {
    let mut pair = Pair::open();
    let head = RequestHead { framing: Framing::Length, ..request() };
    let id = pair.relay.open(head.clone()).expect("opens");
    pair.relay.finish(id, HeaderBlock::new()).expect("finishes");
    pair.run();
    assert_eq!(pair.agent_events(), [Event::Request { id, head }, end(id)]);
}

#[test]
fn without_credit_the_head_goes_alone_and_the_body_waits() {
    let mut pair =
        Pair::open_with(Limits::relay(), Limits { initial_window_bytes: 4, window_pool_bytes: 0, ..Limits::agent() });
    let id = pair.ask(b"0123456789");
    pair.run();
    let mut events = pair.agent_events();
    assert_eq!(events.split_off(1), [data(id, b"0123")]);
    pair.agent.consume(id, 4);
    pair.run();
    assert_eq!(pair.agent_events(), [data(id, b"4567")]);
    pair.agent.consume(id, 4);
    pair.run();
    assert_eq!(pair.agent_events(), [data(id, b"89"), end(id)]);
}

#[test]
fn a_large_body_arrives_whole_through_small_windows() {
    let mut pair = Pair::open();
    let id = pair.relay.open(request()).expect("opens");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut rest = Bytes::from(body.clone());
    let mut seen = Vec::new();
    while seen.len() < body.len() {
        while !rest.is_empty() && pair.relay.has_room(id) {
            pair.relay.send(id, rest.split_to(rest.len().min(50_000))).expect("has room");
        }
        pair.run();
        assert!(pair.agent.buffered_bytes() <= 64 * 1024 + 4 * 1024 * 1024);
        for event in pair.agent_events() {
            if let Event::Data { bytes, .. } = event {
                seen.extend_from_slice(&bytes);
                pair.agent.consume(id, bytes.len());
            }
        }
    }
    assert!(seen == body, "the bytes are the sender's");
    assert!(pair.agent.free_pool_bytes() < 4 * 1024 * 1024, "a reader that keeps pace gets a larger window");
    pair.relay.finish(id, HeaderBlock::new()).expect("finishes");
    pair.agent.respond(id, response(200)).expect("responds");
    pair.agent.finish(id, HeaderBlock::new()).expect("finishes");
    pair.run();
    pair.assert_quiet();
}

#[test]
fn a_stalled_stream_holds_its_own_window_and_never_anothers() {
    let mut pair = Pair::open();
    let stalled = pair.relay.open(request()).expect("opens");
    while pair.relay.has_room(stalled) {
        pair.relay.send(stalled, Bytes::from(vec![0; 64 * 1024])).expect("has room");
        pair.run();
    }
    assert_eq!(pair.agent.buffered_bytes(), 64 * 1024, "what was granted, unread");
    pair.agent_events();
    let id = pair.ask(&[1; 60_000]);
    pair.run();
    let events = pair.agent_events();
    assert_eq!(events.last(), Some(&end(id)), "the other stream passes by");
}

#[test]
fn a_full_buffer_says_so_and_tells_when_it_has_room_again() {
    let mut pair = Pair::open_with(Limits::relay(), Limits { initial_window_bytes: 1000, ..Limits::agent() });
    let id = pair.relay.open(request()).expect("opens");
    pair.relay.send(id, Bytes::from(vec![0; 64 * 1024])).expect("has room");
    assert_eq!(pair.relay.send(id, "more".into()), Err(SendError::Full));
    let mut writable = false;
    for _ in 0..1000 {
        pair.run();
        writable |= pair.relay_events().contains(&Event::Writable { id });
        let read = pair.agent_events().into_iter().map(|event| match event {
            Event::Data { bytes, .. } => bytes.len(),
            _ => 0,
        });
        let read = read.sum();
        pair.agent.consume(id, read);
    }
    assert!(writable);
    assert_eq!(pair.relay.send(id, "more".into()), Ok(()));
}

#[test]
fn trailers_travel_both_ways_after_the_body() {
    let mut pair = Pair::open();
    let trailers: HeaderBlock = [("x-checksum", "1"), ("x-checksum", "2")].into_iter().collect();
    let id = pair.relay.open(request()).expect("opens");
    pair.relay.send(id, "body".into()).expect("sends");
    pair.relay.finish(id, trailers.clone()).expect("finishes");
    pair.run();
    assert_eq!(pair.agent_events().last(), Some(&Event::End { id, trailers: trailers.clone() }));
    pair.agent.respond(id, response(200)).expect("responds");
    pair.agent.finish(id, trailers.clone()).expect("finishes");
    pair.run();
    assert_eq!(pair.relay_events().last(), Some(&Event::End { id, trailers }));
}

#[test]
fn a_response_before_the_requests_end_stops_the_request_without_an_error() {
    let mut pair = Pair::open();
    let id = pair.relay.open(request()).expect("opens");
    pair.relay.send(id, "first part".into()).expect("sends");
    pair.run();
    pair.agent_events();
    pair.agent.respond(id, response(413)).expect("responds");
    pair.agent.finish(id, HeaderBlock::new()).expect("finishes");
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Response { id, head: response(413) }, end(id)]);
    assert_eq!(pair.agent_events(), [Event::Reset { id, code: ResetCode::NoError }]);
    assert_eq!(pair.relay.send(id, "second part".into()), Err(SendError::Ended));
    pair.assert_quiet();
}

#[test]
fn each_reset_code_reaches_the_other_side_and_ends_the_stream_on_both() {
    use ResetCode::{Broken, Cancelled, NotCalled, NotCarriable, Timeout, Unreachable};
    for code in [Cancelled, NotCalled, Unreachable, Broken, Timeout, NotCarriable] {
        let mut pair = Pair::open();
        let id = pair.ask(b"x");
        pair.run();
        pair.agent_events();
        pair.agent.reset(id, code);
        pair.run();
        assert_eq!(pair.relay_events(), [Event::Reset { id, code }]);

        let id = pair.ask(b"x");
        pair.run();
        pair.agent_events();
        pair.relay.reset(id, code);
        pair.run();
        assert_eq!(pair.agent_events(), [Event::Reset { id, code }]);
        pair.assert_quiet();
    }
}

#[test]
fn a_request_given_up_before_it_was_sent_leaves_no_trace() {
    let mut pair = Pair::open();
    let id = pair.ask(b"x");
    pair.relay.reset(id, ResetCode::Cancelled);
    pair.run();
    assert_eq!(pair.carried, []);
    pair.assert_quiet();
    for _ in 0..10_000 {
        let id = pair.ask(b"x");
        pair.relay.reset(id, ResetCode::Cancelled);
    }
    assert!(pair.relay.ready.len() < 100, "{} places kept for streams that are gone", pair.relay.ready.len());
}

#[test]
fn resets_that_cross_on_the_wire_are_dropped() {
    let mut pair = Pair::open();
    let id = pair.ask(b"x");
    pair.run();
    pair.agent_events();
    pair.agent.respond(id, response(200)).expect("responds");
    pair.relay.reset(id, ResetCode::Cancelled);
    pair.agent.reset(id, ResetCode::Broken);
    pair.run();
    assert_eq!((pair.relay_events(), pair.agent_events()), (vec![], vec![]));
    assert!(pair.relay.is_open() && pair.agent.is_open());
    pair.assert_quiet();
}

#[test]
fn a_welcome_is_sent_though_the_session_is_closed_behind_it() {
    let mut pair = Pair::new(Limits::relay(), Limits::agent());
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Hello(hello())]);
    pair.relay.welcome(welcome());
    pair.relay.close(CloseCode::Refused, "nothing was accepted");
    pair.run();
    let heard = pair.agent_events();
    assert!(matches!(&heard[..], [Event::Welcome(_), Event::Closed { by_peer: true, .. }]), "{heard:?}");
}

#[test]
fn a_reset_that_crossed_the_peers_frees_its_place_though_it_waits_for_the_socket() {
    let mut pair = Pair::open_with(Limits::relay(), Limits { max_streams: 1, ..Limits::agent() });
    let mut message = BytesMut::new();
    let id = pair.ask(b"x");
    pair.run();
    pair.agent.reset(id, ResetCode::Broken);
    pair.relay.reset(id, ResetCode::Cancelled);
    // The agent's socket takes nothing meanwhile.
    assert!(pair.relay.poll_transmit(&mut message));
    pair.agent.handle_bytes(pair.now, message.split().freeze());
    pair.ask(b"y");
    assert!(pair.relay.poll_transmit(&mut message));
    pair.agent.handle_bytes(pair.now, message.split().freeze());
    assert!(pair.agent.is_open(), "two streams, but never at a time");
}

#[test]
fn an_end_that_crossed_a_reset_frees_its_place_if_the_response_is_whole() {
    let mut pair = Pair::open_with(Limits::relay(), Limits { max_streams: 1, ..Limits::agent() });
    let mut message = BytesMut::new();
    let id = pair.relay.open(request()).expect("opens");
    pair.run();
    pair.agent.respond(id, response(200)).expect("responds");
    pair.agent.finish(id, HeaderBlock::new()).expect("finishes");
    assert!(pair.agent.poll_transmit(&mut message));
    pair.agent.reset(id, ResetCode::Broken);
    pair.relay.finish(id, HeaderBlock::new()).expect("finishes");
    let answer = message.split().freeze();
    assert!(pair.relay.poll_transmit(&mut message));
    pair.agent.handle_bytes(pair.now, message.split().freeze());
    pair.relay.handle_bytes(pair.now, answer);
    pair.ask(b"y");
    pair.run();
    assert!(pair.agent.is_open() && pair.relay.is_open());
}

#[test]
fn the_agents_limit_on_streams_binds_the_relay() {
    let mut pair = Pair::open_with(Limits::relay(), Limits { max_streams: 2, ..Limits::agent() });
    let first = pair.ask(b"");
    pair.ask(b"");
    assert_eq!(pair.relay.open(request()), Err(OpenError::Busy));
    pair.run();
    pair.relay.reset(first, ResetCode::Cancelled);
    assert_eq!(pair.relay.open(request()), Err(OpenError::Busy), "the agent has not heard of the reset yet");
    pair.run();
    assert!(pair.relay.open(request()).is_ok());
}

#[test]
fn a_head_at_its_limit_is_carried_and_a_longer_one_cannot_be_sent() {
    let mut pair = Pair::open();
    let asked = |target: usize| RequestHead { target: "/".repeat(target).into(), ..request() };
    let most = (0..MAX_HEAD_BYTES).rev().find(|target| asked(*target).fits()).expect("some length fits");
    let mut whole = BytesMut::new();
    asked(most).encode(&mut whole);
    // Its two lengths stand in front of its fields and of its headers.
    let lengths = asked(most).encoded_len() - MAX_HEAD_BYTES;
    assert!(whole.len() == MAX_HEAD_BYTES + lengths && lengths < 8, "{lengths}");
    assert_eq!(pair.relay.open(asked(most + 1)), Err(OpenError::HeadTooLarge));
    pair.relay.open(asked(most)).expect("it fits");
    pair.run();
    assert!(pair.agent_events().iter().any(|event| matches!(event, Event::Request { .. })));

    let id = pair.ask(b"");
    pair.run();
    let answer = |value: usize| ResponseHead::new(200, [("x-long", "v".repeat(value))].into_iter().collect());
    let most = (0..MAX_HEAD_BYTES).rev().find(|value| answer(*value).fits()).expect("some length fits");
    assert_eq!(pair.agent.respond(id, answer(most + 1)), Err(SendError::HeadTooLarge));
    pair.agent.respond(id, answer(most)).expect("it fits");
    pair.run();
    assert!(pair.relay_events().iter().any(|event| matches!(event, Event::Response { .. })));

    // A peer that sends one all the same, with headers of one byte more than fit beside its fields.
    let sent = |bytes: usize| {
        let fields: &[u8] = &[4, 1, 2, 0x40, 200];
        let mut payload = BytesMut::from(fields);
        let line = |value: usize| HeaderBlock::from_iter([("x", "v".repeat(value))]);
        let value = (0..bytes).rev().find(|value| line(*value).as_bytes().len() + 4 <= bytes).expect("one fits");
        crate::varint::put(&mut payload, line(value).as_bytes().len() as u64);
        payload.extend_from_slice(line(value).as_bytes());
        payload.freeze()
    };
    assert_eq!(refused(Role::Relay, FrameType::Response, 0, 1, &sent(MAX_HEAD_BYTES + 1)), "head is over its limit");
}

#[test]
fn what_the_agent_would_end_the_session_for_cannot_be_sent() {
    let mut pair = Pair::open();
    let long = "M".repeat(2000);
    for head in [
        RequestHead { method: long.clone().into(), ..request() },
        RequestHead { endpoint: long.clone().into(), ..request() },
        RequestHead { target: "/".repeat(100_000).into(), ..request() },
        RequestHead { headers: vec![("x-a", "b"); 300].into_iter().collect(), ..request() },
    ] {
        assert_eq!(pair.relay.open(head), Err(OpenError::HeadTooLarge));
    }
    pair.run();
    assert!(pair.agent.is_open());
}

#[test]
fn a_welcome_answers_the_offers_one_by_one() {
    let ended_by = |change: fn(&mut Welcome)| {
        let mut pair = Pair::new(Limits::relay(), Limits::agent());
        pair.run();
        let mut welcome = welcome();
        change(&mut welcome);
        pair.relay.welcome(welcome);
        pair.run();
        pair.agent_events().into_iter().find_map(|event| match event {
            Event::Closed { by_peer: false, close } => Some(close.code),
            _ => None,
        })
    };
    assert_eq!(ended_by(|_| ()), None);
    assert_eq!(ended_by(|welcome| welcome.endpoints.clear()), Some(CloseCode::ProtocolError));
    assert_eq!(ended_by(|welcome| welcome.endpoints.truncate(1)), Some(CloseCode::ProtocolError));
    assert_eq!(ended_by(|welcome| welcome.endpoints.reverse()), Some(CloseCode::ProtocolError));
    assert_eq!(
        ended_by(|welcome| welcome.endpoints.push(welcome.endpoints[0].clone())),
        Some(CloseCode::ProtocolError)
    );
    let stranger = |welcome: &mut Welcome| welcome.endpoints[1].endpoint = "nobody-offered-it".into();
    assert_eq!(ended_by(stranger), Some(CloseCode::ProtocolError));
}

#[test]
fn an_agent_that_drains_still_serves_what_was_on_its_way() {
    let mut pair = Pair::open();
    let id = pair.ask(b"x");
    pair.run();
    pair.agent.drain();
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Draining]);
    assert!(pair.relay.is_draining());
    let late = pair.ask(b"y");
    pair.run();
    assert_eq!(pair.agent_events().last(), Some(&end(late)));
    pair.agent.reset(late, ResetCode::NotCalled);
    pair.agent.respond(id, response(200)).expect("responds");
    pair.agent.finish(id, HeaderBlock::new()).expect("finishes");
    pair.run();
    assert_eq!(pair.relay_events().last(), Some(&end(id)));
}

#[test]
fn a_close_breaks_every_stream_and_is_the_last_event() {
    let mut pair = Pair::open();
    let id = pair.ask(b"x");
    pair.run();
    pair.agent_events();
    pair.relay.close(CloseCode::Replaced, "another session took over");
    assert_eq!(pair.relay.open(request()), Err(OpenError::Closed));
    pair.run();
    let close = Close { code: CloseCode::Replaced, reason: "another session took over".into() };
    assert_eq!(pair.relay_events(), [Event::Closed { by_peer: false, close: close.clone() }]);
    assert_eq!(pair.agent_events(), [Event::Closed { by_peer: true, close }]);
    assert_eq!(pair.agent.respond(id, response(200)), Err(SendError::Ended));
    pair.assert_quiet();
}

#[test]
fn notices_arrive_in_order_and_of_too_many_the_oldest_are_dropped() {
    let mut pair = Pair::open_with(Limits { max_notices: 2, ..Limits::relay() }, Limits::agent());
    let refused = Notice::Refused {
        endpoint: "github".into(),
        event_id: [1; 16],
        status: 401,
        code: "signature_mismatch".into(),
        provider: "github".into(),
    };
    pair.relay.notify(Notice::Text("dropped".into()));
    pair.relay.notify(refused.clone());
    pair.relay.notify(Notice::Text("kept".into()));
    pair.run();
    assert_eq!(pair.agent_events(), [Event::Notice(refused), Event::Notice(Notice::Text("kept".into()))]);
    assert_eq!(pair.relay.dropped_notices(), 1);
}

#[test]
fn an_idle_session_lives_by_its_pings() {
    let mut pair = Pair::open();
    for _ in 0..100 {
        pair.pass(Duration::from_secs(5));
    }
    assert!(pair.relay.is_open() && pair.agent.is_open());
    assert!(pair.carried.len() >= 100, "pings and pongs went");
}

#[test]
fn a_silent_peer_is_dead_after_ten_seconds() {
    let mut pair = Pair::open();
    for second in 1..=10 {
        assert!(pair.relay.is_open(), "still waiting after {} s", second - 1);
        pair.now = pair.now.after(Duration::from_secs(1));
        pair.relay.handle_timeout(pair.now);
    }
    let mut message = BytesMut::new();
    while pair.relay.poll_transmit(&mut message) {
        message.clear();
    }
    assert!(matches!(
        pair.relay_events()[..],
        [Event::Closed { close: Close { code: CloseCode::HeartbeatTimeout, .. }, .. }]
    ));
}

#[test]
fn a_session_ends_though_the_socket_takes_no_close_frame() {
    let mut pair = Pair::open();
    pair.relay.close(CloseCode::HeartbeatTimeout, "the peer has been silent for too long");
    pair.relay.handle_timeout(pair.now);
    assert_eq!(pair.relay_events(), [], "the close frame has its chance");
    let due = pair.relay.poll_timeout().expect("a deadline");
    assert_eq!(due, pair.now.after(CLOSING));
    pair.relay.handle_timeout(due);
    assert!(matches!(
        pair.relay_events()[..],
        [Event::Closed { by_peer: false, close: Close { code: CloseCode::HeartbeatTimeout, .. } }]
    ));
    assert!(pair.relay.is_closed() && pair.relay.poll_timeout().is_none());
}

#[test]
fn a_peer_that_never_introduces_itself_is_closed_though_it_pings() {
    let now = Instant::from_micros(0);
    let mut relay = Session::relay(Limits::relay(), now);
    let mut ping = BytesMut::new();
    put_header(&mut ping, FrameType::Ping, 0, 0, 8);
    ping.extend_from_slice(&[0; 8]);
    let ping = ping.freeze();
    for second in 0..=10 {
        let now = now.after(Duration::from_secs(second));
        relay.handle_bytes(now, ping.clone());
        relay.handle_timeout(now);
    }
    assert!(!relay.is_open());
    assert!(relay.poll_transmit(&mut BytesMut::new()), "the close frame");
    assert_eq!(relay.poll_timeout(), None);
}

#[test]
fn ten_thousand_pings_owe_one_pong() {
    let mut pair = Pair::open();
    let mut pings = BytesMut::new();
    for number in 0..10_000_u64 {
        put_header(&mut pings, FrameType::Ping, 0, 0, 8);
        pings.extend_from_slice(&number.to_be_bytes());
    }
    pair.relay.handle_bytes(pair.now, pings.freeze());
    let mut message = BytesMut::new();
    assert!(pair.relay.poll_transmit(&mut message));
    assert_eq!(frame_types(&message.split().freeze()), [FrameType::Pong]);
    assert!(!pair.relay.poll_transmit(&mut message));
}

/// One frame, and the reason for which an open session of this role must end on it.
fn refused(role: Role, kind: FrameType, flags: u8, stream: u64, payload: &[u8]) -> String {
    let mut pair = Pair::open();
    pair.ask(b"x");
    pair.run();
    let mut frame = BytesMut::new();
    put_header(&mut frame, kind, flags, stream, payload.len());
    frame.extend_from_slice(payload);
    let now = pair.now;
    let session = if role == Role::Relay { &mut pair.relay } else { &mut pair.agent };
    while session.poll_event().is_some() {}
    session.handle_bytes(now, frame.freeze());
    let mut message = BytesMut::new();
    while session.poll_transmit(&mut message) {
        message.clear();
    }
    match session.poll_event() {
        Some(Event::Closed { by_peer: false, close: Close { code: CloseCode::ProtocolError, reason } }) => reason,
        other => panic!("{kind:?} on stream {stream} gave {other:?}"),
    }
}

#[test]
fn what_a_peer_may_not_do_ends_its_session_with_the_reason() {
    use FrameType::{Credit, Data, End, Hello, Notice, Ping, Request, Reset, Response, Welcome};
    let relay = |kind, stream, payload| refused(Role::Relay, kind, 0, stream, payload);
    let agent = |kind, stream, payload| refused(Role::Agent, kind, 0, stream, payload);
    assert_eq!(relay(Data, 9, b"x"), "stream 9 was never opened");
    assert_eq!(relay(Data, 0, b"x"), "stream 0 was never opened");
    assert_eq!(relay(Data, 1, b"x"), "data outside a body is not allowed here");
    assert_eq!(relay(End, 1, b""), "an end outside a body is not allowed here");
    assert_eq!(relay(Request, 2, b""), "a frame of the other role is not allowed here");
    assert_eq!(relay(Hello, 0, b""), "a frame of the other role is not allowed here");
    assert_eq!(relay(Notice, 0, b""), "a frame of the other role is not allowed here");
    assert_eq!(relay(Response, 1, &[0, 0]), "malformed status");
    assert_eq!(relay(Response, 1, &[3, 1, 1, 50, 0]), "malformed status");
    assert_eq!(relay(Response, 1, &[9, 0]), "malformed head");
    assert_eq!(relay(Response, 1, &[4, 1, 2, 0x40, 200, 4, 1, b'A', 1, b'v']), "malformed header name");
    assert_eq!(relay(Response, 1, &[4, 1, 2, 0x40, 200, 4, 1, b'a', 1, b'\n']), "malformed header value");
    assert_eq!(relay(Credit, 1, &[0]), "stream 1 went past its credit");
    assert_eq!(relay(Credit, 1, &[0xff; 8]), "stream 1 went past its credit");
    assert_eq!(relay(Reset, 1, b""), "malformed reset");
    assert_eq!(relay(Ping, 0, b"short"), "malformed ping");
    assert_eq!(agent(Data, 1, b"x"), "data outside a body is not allowed here");
    assert_eq!(agent(Request, 1, b""), "stream id 1 was used before");
    assert_eq!(agent(Request, 2, &[0, 0]), "malformed request head");
    assert_eq!(agent(Response, 1, b""), "a frame of the other role is not allowed here");
    assert_eq!(agent(Welcome, 0, b""), "a frame of the other role is not allowed here");
}

#[test]
fn a_session_that_fails_keeps_nothing_of_what_it_did_not_read() {
    let mut pair = Pair::open();
    let mut bytes = vec![63, 0, 0, 0];
    bytes.resize(100_000, 0);
    pair.relay.handle_bytes(pair.now, bytes.into());
    assert!(!pair.relay.is_open());
    assert_eq!(pair.relay.buffered_bytes(), 0);
}

#[test]
fn bytes_without_credit_end_the_session() {
    let mut pair = Pair::open();
    let id = pair.ask(b"");
    pair.run();
    pair.agent.respond(id, response(200)).expect("responds");
    pair.run();
    let data = |bytes: usize| {
        let mut frame = BytesMut::new();
        put_header(&mut frame, FrameType::Data, 0, id.get(), bytes);
        frame.extend_from_slice(&vec![0; bytes]);
        frame.freeze()
    };
    pair.relay.handle_bytes(pair.now, data(16 * 1024));
    pair.run();
    assert!(pair.relay.is_open(), "all of its first window");
    pair.relay.handle_bytes(pair.now, data(1));
    pair.run();
    let Some(Event::Closed { close, .. }) = pair.relay_events().pop() else { panic!("closed") };
    assert_eq!(close.reason, "stream 1 went past its credit");
}

/// Messages of many frames with one byte each, that go round among these streams.
fn crumbs(ids: &[StreamId], each: usize) -> Vec<Bytes> {
    let mut messages = vec![BytesMut::new()];
    for number in 0..each {
        for id in ids {
            let mut message = messages.pop().expect("never empty");
            if message.len() + 64 > MAX_MESSAGE_BYTES {
                messages.push(std::mem::take(&mut message));
            }
            put_header(&mut message, FrameType::Data, 0, id.get(), 1);
            message.extend_from_slice(&[(number % 251) as u8]);
            messages.push(message);
        }
    }
    messages.into_iter().map(BytesMut::freeze).collect()
}

#[test]
fn frames_of_one_byte_are_merged_also_where_streams_take_turns() {
    let mut pair = Pair::open();
    let ids: Vec<StreamId> = (0..100).map(|_| pair.relay.open(request()).expect("opens")).collect();
    pair.run();
    pair.agent_events();
    for message in crumbs(&ids, 10_000) {
        pair.agent.handle_bytes(pair.now, message);
    }
    assert!(pair.agent.is_open());
    let events = pair.agent_events();
    assert!(events.len() <= 100, "{} events for 100 streams", events.len());
    for id in &ids {
        let body = events.iter().find_map(|event| match event {
            Event::Data { id: of, bytes } if of == id => Some(bytes),
            _ => None,
        });
        let body = body.expect("its bytes");
        assert!(body.len() == 10_000 && body.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        pair.agent.consume(*id, body.len());
    }
}

#[test]
fn a_long_chunk_is_nearly_all_of_its_message_and_is_held_as_it_came() {
    let mut pair = Pair::open();
    let ids: Vec<StreamId> = (0..3).map(|_| pair.relay.open(request()).expect("opens")).collect();
    for id in &ids {
        pair.relay.send(*id, Bytes::from(vec![7; 64 * 1024])).expect("sends");
    }
    let mut messages = Vec::new();
    let mut message = BytesMut::new();
    while pair.relay.poll_transmit(&mut message) {
        messages.push(message.split().freeze());
    }
    assert!(messages.len() == 4 && messages.iter().all(|message| message.len() <= 62 * 1024 - 14));
    for (message, id) in messages.iter().zip(&ids) {
        pair.agent.handle_bytes(pair.now, message.clone());
        let held = pair.agent_events().into_iter().find_map(|event| match event {
            Event::Data { id: of, bytes } if of == *id => Some(bytes),
            _ => None,
        });
        let held = held.expect("its chunk");
        assert!(held.len() > 62_000, "{} bytes", held.len());
        let within = message.as_ptr_range();
        assert!(within.contains(&held.as_ptr()), "it is a copy");
    }
}

#[test]
fn small_frames_do_not_keep_the_large_message_alive_that_they_came_in() {
    let padding = |message: &mut BytesMut| {
        message.extend_from_slice(&[64, 0, 0]); // A skippable frame.
        crate::varint::put(message, 100_000);
        message.resize(message.len() + 100_000, 0);
    };
    let mut pair = Pair::open();
    let id = pair.ask(b"");
    pair.run();
    pair.agent.respond(id, response(200)).expect("responds");
    let mut message = BytesMut::new();
    assert!(pair.agent.poll_transmit(&mut message));
    padding(&mut message);
    let frame = message.len();
    put_header(&mut message, FrameType::Data, 0, id.get(), 5000);
    message.extend_from_slice(&[7; 5000]);
    let message = message.freeze();
    let within = |bytes: &[u8]| {
        (message.as_ptr() as usize..message.as_ptr() as usize + message.len()).contains(&(bytes.as_ptr() as usize))
    };
    pair.relay.handle_bytes(pair.now, message.clone());
    let events = pair.relay_events();
    let [Event::Response { head, .. }, Event::Data { bytes, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(frame > 100_000 && bytes.len() == 5000 && !within(bytes), "the body holds the message");
    assert!(head.headers.iter().all(|(name, value)| !within(name) && !within(value)), "the head holds the message");
}

#[test]
fn more_streams_than_hello_allowed_end_the_session() {
    let mut pair = Pair::open_with(Limits::relay(), Limits { max_streams: 1, ..Limits::agent() });
    pair.relay.peer_max_streams = 2; // A relay that does not keep to the agent's limit.
    pair.ask(b"");
    pair.ask(b"");
    pair.run();
    let Some(Event::Closed { close, .. }) = pair.agent_events().pop() else { panic!("closed") };
    assert_eq!(close.reason, "more than 1 streams at a time");
}

#[test]
fn frames_for_a_stream_that_has_ended_are_dropped() {
    let mut pair = Pair::open();
    let id = pair.ask(b"");
    pair.run();
    pair.agent.reset(id, ResetCode::Broken);
    pair.run();
    pair.relay_events();
    for kind in [FrameType::Data, FrameType::Credit, FrameType::Reset] {
        let mut frame = BytesMut::new();
        put_header(&mut frame, kind, 0, id.get(), 1);
        frame.extend_from_slice(&[1]);
        pair.relay.handle_bytes(pair.now, frame.freeze());
    }
    assert_eq!(pair.relay_events(), []);
    assert!(pair.relay.is_open());
}

fn outcome(state: OutcomeState) -> Outcome {
    Outcome { event_id: [5; 16], attempt: 2, fence: 77, state }
}

#[test]
fn outcomes_cross_and_the_newest_of_an_attempt_replaces_what_waits() {
    let mut pair = Pair::open();
    assert!(pair.agent.report(outcome(OutcomeState::Running)));
    let finished = OutcomeState::Finished { head: response(202), body: "done".into(), truncated: false };
    assert!(pair.agent.report(outcome(finished.clone())));
    assert!(!pair.relay.report(outcome(OutcomeState::Running)), "only agents report");
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Outcome(outcome(finished))]);
    assert!(pair.agent.report(outcome(OutcomeState::Failed(ResetCode::Timeout))));
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Outcome(outcome(OutcomeState::Failed(ResetCode::Timeout)))]);
}

#[test]
fn an_outcome_with_a_large_head_has_its_body_cut_to_one_message() {
    let mut pair = Pair::open();
    let headers: HeaderBlock =
        vec![("x-large", "v".repeat(30_000)), ("x-large", "v".repeat(50_000))].into_iter().collect();
    let head = ResponseHead::new(200, headers);
    let body = Bytes::from(vec![7; 70_000]);
    for number in 0..3 {
        let state = OutcomeState::Finished { head: head.clone(), body: body.clone(), truncated: false };
        assert!(pair.agent.report(Outcome { attempt: number, ..outcome(state) }));
    }
    pair.run();
    let events = pair.relay_events();
    assert_eq!(events.len(), 3);
    for event in events {
        let Event::Outcome(Outcome { state: OutcomeState::Finished { body: got, truncated, .. }, .. }) = event else {
            panic!("a finished outcome")
        };
        assert!(truncated && got.len() > 40_000 && body.starts_with(&got));
    }
}

#[test]
fn long_outcomes_leave_room_for_streams() {
    let mut pair = Pair::open();
    let ids: Vec<StreamId> = (0..2).map(|_| pair.ask(b"")).collect();
    pair.run();
    for number in 0..4 {
        let body = Bytes::from(vec![7; MAX_OUTCOME_BODY_BYTES - 512]);
        let state = OutcomeState::Finished { head: response(200), body, truncated: false };
        assert!(pair.agent.report(Outcome { attempt: number, ..outcome(state) }));
    }
    for id in ids {
        pair.agent.respond(id, response(200)).expect("responds");
        pair.agent.send(id, Bytes::from(vec![8; 10_000])).expect("sends");
    }
    let (mut message, mut lengths) = (BytesMut::new(), Vec::new());
    assert!(pair.agent.poll_transmit(&mut message));
    pair.relay.handle_bytes(pair.now, message.freeze());
    let mut outcomes = 0;
    for event in pair.relay_events() {
        match event {
            Event::Outcome(_) => outcomes += 1,
            Event::Data { bytes, .. } => lengths.push(bytes.len()),
            _ => {}
        }
    }
    assert_eq!((outcomes, lengths), (1, vec![10_000; 2]));
}

#[test]
fn too_many_outcomes_are_not_sent_and_end_the_session_of_a_peer_that_sends_them() {
    let mut pair = Pair::open();
    let many = |number| Outcome { attempt: number, ..outcome(OutcomeState::Running) };
    let taken = (0..3000).take_while(|number| pair.agent.report(many(*number))).count();
    assert_eq!(taken, MAX_OUTCOMES);
    pair.run();
    assert_eq!(pair.relay_events().len(), MAX_OUTCOMES);
    pair.agent.outcomes_given = 0;
    assert!(pair.agent.report(many(1)));
    pair.run();
    let Some(Event::Closed { close, .. }) = pair.relay_events().pop() else { panic!("closed") };
    assert_eq!(close.reason, "number of outcomes is over its limit");
}

#[test]
fn a_heartbeats_way_and_back_is_measured_by_its_own_pong() {
    let mut pair = Pair::open();
    assert_eq!(pair.relay.round_trip(), None);
    let asked = pair.now.after(Duration::from_secs(5));
    pair.relay.handle_timeout(asked);
    let pong = |number: u64| {
        let mut pong = BytesMut::new();
        put_header(&mut pong, FrameType::Pong, 0, 0, 8);
        pong.extend_from_slice(&number.to_be_bytes());
        pong.freeze()
    };
    for (number, after_ms, measured_ms) in [(7, 10, None), (1, 30, Some(30)), (1, 90, Some(30))] {
        pair.relay.handle_bytes(asked.after(Duration::from_millis(after_ms)), pong(number));
        assert_eq!(pair.relay.round_trip(), measured_ms.map(Duration::from_millis), "{number}");
    }
}

#[test]
fn a_probe_is_answered_by_its_own_pong_only() {
    let mut pair = Pair::open();
    pair.pass(Duration::from_secs(5));
    assert_eq!(pair.relay_events(), [], "the heartbeat's pong answers no probe");
    pair.relay.probe();
    let mut stale = BytesMut::new();
    put_header(&mut stale, FrameType::Pong, 0, 0, 8);
    stale.extend_from_slice(&1_u64.to_be_bytes());
    pair.relay.handle_bytes(pair.now, stale.freeze());
    assert_eq!(pair.relay_events(), []);
    let mut early = BytesMut::new();
    put_header(&mut early, FrameType::Pong, 0, 0, 8);
    early.extend_from_slice(&u64::MAX.to_be_bytes());
    pair.relay.handle_bytes(pair.now, early.freeze());
    assert_eq!(pair.relay_events(), [], "it was not asked yet");
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Answered]);
}

#[test]
fn after_101_both_directions_are_raw_and_end_each_by_itself() {
    let mut pair = Pair::open();
    let head = RequestHead { upgrade: "websocket".into(), ..request() };
    let id = pair.relay.open(head.clone()).expect("opens");
    pair.run();
    assert_eq!(pair.agent_events(), [Event::Request { id, head }]);
    pair.agent.respond(id, response(101)).expect("responds");
    pair.agent.send(id, Bytes::from_static(b"server first")).expect("sends");
    pair.agent.finish(id, HeaderBlock::new()).expect("half-closes");
    pair.run();
    assert_eq!(pair.relay_events(), [Event::Response { id, head: response(101) }, data(id, b"server first"), end(id)]);
    pair.relay.consume(id, 12);
    pair.relay.send(id, Bytes::from_static(b"still talking")).expect("the other half is open");
    pair.relay.finish(id, HeaderBlock::new()).expect("half-closes");
    pair.run();
    assert_eq!(pair.agent_events(), [data(id, b"still talking"), end(id)]);
    pair.agent.consume(id, 13);
    pair.assert_quiet();
}

#[test]
fn the_newest_state_of_an_endpoint_is_never_dropped() {
    let mut pair = Pair::open_with(Limits { max_notices: 2, ..Limits::relay() }, Limits::agent());
    let changed = |state| Notice::Changed { endpoint: "github".into(), state };
    pair.relay.notify(changed(OfferState::Standby));
    for number in 0..5 {
        pair.relay.notify(Notice::Text(number.to_string()));
    }
    pair.relay.notify(changed(OfferState::Accepted));
    pair.run();
    let seen = [Event::Notice(changed(OfferState::Accepted)), Event::Notice(Notice::Text("4".into()))];
    assert_eq!(pair.agent_events(), seen);
    assert_eq!(pair.relay.dropped_notices(), 4);
}

/// Everything that both sides sent in a conversation with most kinds of frames.
fn transcript() -> (Vec<u8>, Vec<u8>) {
    let mut pair = Pair::new(Limits::relay(), Limits::agent());
    pair.run();
    pair.relay.welcome(welcome());
    pair.relay.notify(Notice::Text("hi".into()));
    pair.run();
    let first = pair.ask(&[3; 5000]);
    let second = pair.ask(b"");
    pair.run();
    pair.agent.consume(first, 5000);
    pair.agent.respond(first, response(200)).expect("responds");
    pair.agent.send(first, Bytes::from(vec![4; 16 * 1024])).expect("sends");
    pair.agent.reset(second, ResetCode::Timeout);
    pair.run();
    pair.relay.consume(first, 16 * 1024);
    pair.agent.finish(first, [("x-end", "1")].into_iter().collect()).expect("finishes");
    pair.pass(Duration::from_secs(5));
    pair.relay.drain();
    pair.run();
    pair.agent.close(CloseCode::Normal, "done");
    pair.run();
    let sent = |role| pair.carried.iter().filter(|(from, _)| *from == role).flat_map(|(_, m)| m.to_vec()).collect();
    (sent(Role::Relay), sent(Role::Agent))
}

/// The events of a session of this role that is given these pieces.
fn events_of(role: Role, pieces: impl Iterator<Item = Bytes>) -> Vec<Event> {
    let now = Instant::from_micros(0);
    let mut session = match role {
        Role::Relay => Session::relay(Limits::relay(), now),
        Role::Agent => Session::agent(hello(), Limits::agent(), now),
    };
    let mut events = Vec::new();
    for piece in pieces {
        session.handle_bytes(now, piece);
        while let Some(event) = session.poll_event() {
            if matches!(event, Event::Hello(_)) {
                session.welcome(welcome());
                let _ = session.open(request()); // Refused where damage has closed the session.
                let _ = session.open(request()); // Refused where damage has closed the session.
            }
            events.push(event);
        }
        assert!(session.buffered_bytes() <= 3 * MAX_MESSAGE_BYTES);
    }
    events
}

fn cut(bytes: &[u8], mut at: Vec<usize>) -> Vec<Bytes> {
    at.iter_mut().for_each(|at| *at %= bytes.len() + 1);
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])).collect()
}

/// Relay events depend on when the welcome is given: hello comes alone in practice, so it does here.
fn after_hello(bytes: &[u8], cuts: Vec<usize>) -> Vec<Bytes> {
    let mut decoder = Decoder::new();
    decoder.push(Bytes::copy_from_slice(bytes));
    decoder.next().expect("whole frames").expect("a hello");
    let hello_len = bytes.len() - decoder.bytes().len();
    let mut pieces = vec![Bytes::copy_from_slice(&bytes[..hello_len])];
    pieces.extend(cut(&bytes[hello_len..], cuts));
    pieces
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(cuts in prop::collection::vec(any::<usize>(), 0..200)) {
        let (from_relay, from_agent) = transcript();
        let whole = events_of(Role::Agent, std::iter::once(Bytes::from(from_relay.clone())));
        prop_assert!(whole.len() >= 6);
        prop_assert_eq!(&whole, &events_of(Role::Agent, cut(&from_relay, cuts.clone()).into_iter()));

        let whole = events_of(Role::Relay, after_hello(&from_agent, vec![]).into_iter());
        prop_assert!(whole.len() >= 6);
        prop_assert_eq!(&whole, &events_of(Role::Relay, after_hello(&from_agent, cuts).into_iter()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), relay in any::<bool>()) {
        let role = if relay { Role::Relay } else { Role::Agent };
        events_of(role, std::iter::once(Bytes::from(bytes)));
    }

    #[test]
    fn a_conversation_with_damaged_bytes_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        relay in any::<bool>(),
    ) {
        let (from_relay, from_agent) = transcript();
        let (role, mut bytes) = if relay { (Role::Relay, from_agent) } else { (Role::Agent, from_relay) };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        events_of(role, std::iter::once(Bytes::from(bytes)));
    }

    #[test]
    fn any_head_survives_the_wire(
        target in "[!-~]{0,200}",
        lines in prop::collection::vec(("[a-z0-9-]{1,20}", prop::collection::vec(0x20_u8.., 0..100)), 0..90),
        body in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut pair = Pair::open();
        let headers: HeaderBlock = lines.into_iter().collect();
        let head = RequestHead { target: target.into(), headers, ..request() };
        let id = pair.relay.open(head.clone()).expect("opens");
        pair.relay.send(id, body.clone().into()).expect("sends");
        pair.relay.finish(id, HeaderBlock::new()).expect("finishes");
        pair.run();
        let mut events = vec![Event::Request { id, head }];
        if !body.is_empty() {
            events.push(data(id, &body));
        }
        events.push(end(id));
        prop_assert_eq!(pair.agent_events(), events);
    }
}
