//! Bytes that must end a session with a protocol error, each at one end and in one state.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    build, describe,
    frames::{accepted, hello, request, welcome},
    hex, unhex,
};
use crate::{
    event::Event,
    fields::HeaderBlock,
    limits::Limits,
    session::{Role, Session},
    time::Instant,
};

const RELAY: Role = Role::Relay;
const AGENT: Role = Role::Agent;

/// The name, who gets the bytes, whether the session is open, and the bytes.
type Case = (&'static str, Role, bool, &'static str);

const CASES: &[Case] = &[
    // Frames.
    ("a type below 64 that nobody knows", RELAY, true, "0f 00 00 00"),
    ("type 0", AGENT, true, "00 00 00 00"),
    ("the last type below 64", AGENT, true, "3f 00 00 00"),
    ("a payload larger than a message", AGENT, true, "05 00 01 8001fff0"),
    ("a skippable frame larger than a message", AGENT, true, "40 00 00 8001fff0"),
    // What this end or this state does not take.
    ("a request to the relay", RELAY, true, "03 01 02 [[01 [65] 02 [33333333333333333333333333333333] 04 [50]] 00]"),
    ("a response to the agent", AGENT, true, "04 01 01 [[01 [40c8]] 00]"),
    ("a second hello", RELAY, true, "01 00 00 [01 [01]]"),
    ("a second welcome", AGENT, true, "02 00 00 [01 [01]]"),
    ("a notice to the relay", RELAY, true, "0c 00 00 [01 [01]]"),
    ("an outcome to the agent", AGENT, true, "0b 00 00 [[01 [22222222222222222222222222222222] 03 [07]]]"),
    ("a drain before hello", RELAY, false, "0d 00 00 00"),
    ("data before hello", RELAY, false, "05 00 01 01 78"),
    ("a request before welcome", AGENT, false, "03 01 01 [[01 [65] 02 [33333333333333333333333333333333] 04 [50]] 00]"),
    ("a welcome to the relay", RELAY, false, "02 00 00 [01 [01]]"),
    // Hello and welcome.
    ("a hello without a version", RELAY, false, "01 00 00 [03 [08] 06 [22222222222222222222222222222222]]"),
    ("a hello of version 0", RELAY, false, "01 00 00 [01 [00] 03 [08] 06 [22222222222222222222222222222222]]"),
    ("a hello without a window", RELAY, false, "01 00 00 [01 [01] 06 [22222222222222222222222222222222]]"),
    ("a hello without an instance", RELAY, false, "01 00 00 [01 [01] 03 [08]]"),
    ("a hello with an instance of 2 bytes", RELAY, false, "01 00 00 [01 [01] 03 [08] 06 [aabb]]"),
    ("an offer that attaches in no known way", RELAY, false, "01 00 00 [01 [01] 03 [08] 07 [02 [09]]]"),
    ("a name that is not UTF-8", RELAY, false, "01 00 00 [01 [01] 03 [08] 05 [ff]]"),
    ("a name with a control character", RELAY, false, "01 00 00 [01 [01] 03 [08] 05 [1b]]"),
    ("a field longer than its frame", RELAY, false, "01 00 00 [01 [01] 03]"),
    ("an integer with bytes behind it", RELAY, false, "01 00 00 [01 [01 01]]"),
    ("a welcome of version 0", AGENT, false, "02 00 00 [01 [00] 03 [08] 09 [01] 0a [02]]"),
    ("a welcome without a window", AGENT, false, "02 00 00 [01 [01] 09 [01] 0a [02]]"),
    ("a welcome without a heartbeat", AGENT, false, "02 00 00 [01 [01] 03 [08]]"),
    ("a welcome whose peers die before they are pinged", AGENT, false, "02 00 00 [01 [01] 03 [08] 09 [02] 0a [02]]"),
    (
        "a window past 2^30",
        RELAY,
        false,
        "01 00 00 [01 [01] 03 [c000000040000001] 06 [22222222222222222222222222222222]]",
    ),
    // Streams. Stream 1 is open, with its request whole.
    ("stream 0", RELAY, true, "05 00 00 01 78"),
    ("a stream that was never opened", RELAY, true, "05 00 09 01 78"),
    ("a reset of a stream that was never opened", AGENT, true, "07 00 09 01 01"),
    ("a stream's number twice", AGENT, true, "03 01 01 [[01 [65] 02 [33333333333333333333333333333333] 04 [50]] 00]"),
    ("data before the response's head", RELAY, true, "05 00 01 01 78"),
    ("an end before the response's head", RELAY, true, "06 00 01 00"),
    ("data behind the request's end", AGENT, true, "05 00 01 01 78"),
    ("an end behind the request's end", AGENT, true, "06 00 01 00"),
    ("a second response", RELAY, true, "04 00 01 [[01 [40c8]] 00] 04 00 01 [[01 [40c8]] 00]"),
    ("empty data without END", RELAY, true, "04 00 01 [[01 [40c8]] 00] 05 00 01 00"),
    // Heads.
    ("a request without an endpoint", AGENT, true, "03 01 02 [[02 [33333333333333333333333333333333] 04 [50]] 00]"),
    ("a request without an event id", AGENT, true, "03 01 02 [[01 [65] 04 [50]] 00]"),
    ("a request without a method", AGENT, true, "03 01 02 [[01 [65] 02 [33333333333333333333333333333333]] 00]"),
    ("a response without a status", RELAY, true, "04 01 01 [[] []]"),
    ("status 100", RELAY, true, "04 01 01 [[01 [4064]] 00]"),
    ("status 199", RELAY, true, "04 01 01 [[01 [40c7]] 00]"),
    ("status 1000", RELAY, true, "04 01 01 [[01 [43e8]] 00]"),
    ("a checksum of 2 bytes", RELAY, true, "04 01 01 [[01 [40c8] 03 [aabb]] 00]"),
    ("a head longer than its frame", RELAY, true, "04 01 01 02 09 00"),
    ("a header name in upper case", RELAY, true, "04 01 01 [[01 [40c8]] [[41] [76]]]"),
    ("an empty header name", RELAY, true, "04 01 01 [[01 [40c8]] [[] [76]]]"),
    ("a line feed in a header value", RELAY, true, "04 01 01 [[01 [40c8]] [[61] [0a]]]"),
    ("a NUL in a header value", RELAY, true, "04 01 01 [[01 [40c8]] [[61] [00]]]"),
    // Credit, numbers, pings.
    ("a credit of 0", RELAY, true, "08 00 01 01 00"),
    ("a credit past 2^30", RELAY, true, "08 00 01 [bfffffff] 08 00 01 [bfffffff]"),
    ("a credit without a number", RELAY, true, "08 00 01 00"),
    ("a credit that is cut off", RELAY, true, "08 00 01 01 40"),
    ("a reset without a code", RELAY, true, "07 00 01 00"),
    ("a ping of 5 bytes", RELAY, true, "09 00 00 05 73686f7274"),
    ("a pong of 9 bytes", RELAY, true, "0a 00 00 09 000000000000000000"),
    // Outcomes and closes.
    ("an outcome without a fence", RELAY, true, "0b 00 00 [[01 [22222222222222222222222222222222]]]"),
    ("an outcome in no known state", RELAY, true, "0b 00 00 [[01 [22222222222222222222222222222222] 03 [07] 04 [03]]]"),
    (
        "an outcome that answers 101",
        RELAY,
        true,
        "0b 00 00 [[01 [22222222222222222222222222222222] 03 [07] 04 [01]] [01 [4065]] 00]",
    ),
    ("a close without a reason", RELAY, true, "0e 00 00 01 00"),
];

pub(super) fn all() -> Value {
    let (relay, agent) = (given(RELAY, true), given(AGENT, true));
    let mut bad: Vec<Value> =
        CASES.iter().map(|(name, to, open, bytes)| vector(name, *to, *open, &build(bytes))).collect();
    bad.extend(computed().into_iter().map(|(name, to, bytes)| vector(name, to, true, &bytes)));
    json!({
        "about": "README.md says how to read it",
        "given": {
            "opening": "the session has just begun; nothing has come yet",
            "open": { "the relay got": relay.got, "the relay sent": relay.sent, "the agent got": agent.got, "the agent sent": agent.sent },
        },
        "bad": bad,
    })
}

/// Too long to write down.
fn computed() -> Vec<(&'static str, Role, Vec<u8>)> {
    let head = build("04 00 01 [[01 [40c8]] 00]");
    let over = |bytes: usize| {
        let mut frame = unhex("05 00 01");
        frame.extend_from_slice(&(bytes as u32 | 0x8000_0000).to_be_bytes());
        frame.resize(frame.len() + bytes, b'x');
        frame
    };
    let lines = [&[1, b'a', 0][..]].repeat(257).concat();
    let mut many = unhex("04 01 01");
    many.extend_from_slice(&((5 + 2 + lines.len()) as u16 | 0x4000).to_be_bytes());
    many.extend_from_slice(&unhex("04 01 02 40c8"));
    many.extend_from_slice(&(lines.len() as u16 | 0x4000).to_be_bytes());
    many.extend_from_slice(&lines);
    vec![
        ("a byte more than the relay's initial window of 16,384", RELAY, [head, over(16_385)].concat()),
        ("257 header lines", RELAY, many),
    ]
}

struct Given {
    session: Session,
    got: Vec<String>,
    sent: Vec<String>,
}

/// A session of this role, open with stream 1, or just begun.
fn given(role: Role, open: bool) -> Given {
    let now = Instant::from_micros(0);
    let mut relay = Session::relay(Limits::relay(), now);
    let mut agent = Session::agent(hello(), Limits::agent(), now);
    let (mut from_relay, mut from_agent) = (Vec::new(), Vec::new());
    if open {
        carry(&mut agent, &mut relay, &mut from_agent);
        relay.welcome(welcome(vec![accepted()], Vec::new()));
        carry(&mut relay, &mut agent, &mut from_relay);
        let id = relay.open(request()).expect("opens");
        relay.send(id, Bytes::from_static(b"{\"zen\":1}")).expect("sends");
        relay.finish(id, HeaderBlock::new()).expect("finishes");
        carry(&mut relay, &mut agent, &mut from_relay);
    }
    let (mut session, got, sent) = match role {
        Role::Relay => (relay, from_agent, from_relay),
        Role::Agent => (agent, from_relay, from_agent),
    };
    while session.poll_event().is_some() {}
    Given { session, got, sent }
}

fn carry(from: &mut Session, to: &mut Session, sent: &mut Vec<String>) {
    let mut message = BytesMut::new();
    while from.poll_transmit(&mut message) {
        let bytes = message.split().freeze();
        sent.push(hex(&bytes));
        to.handle_bytes(Instant::from_micros(0), bytes);
    }
}

fn vector(name: &str, to: Role, open: bool, bytes: &[u8]) -> Value {
    let Given { mut session, .. } = given(to, open);
    session.handle_bytes(Instant::from_micros(0), Bytes::copy_from_slice(bytes));
    let mut message = BytesMut::new();
    while session.poll_transmit(&mut message) {
        message.clear();
    }
    let Some(Event::Closed { by_peer: false, close }) = std::iter::from_fn(|| session.poll_event()).last() else {
        panic!("{name} does not end the session")
    };
    assert_eq!(close.code as u64, 2, "{name} is a protocol error");
    let to = if to == RELAY { "relay" } else { "agent" };
    let given = if open { "open" } else { "opening" };
    json!({ "name": name, "to": to, "given": given, "hex": hex(bytes), "close": describe::of_close(&close) })
}
