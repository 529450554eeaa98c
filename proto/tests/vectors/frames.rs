//! Single frames: every type, and the edges of the encoding. `canonical` ones are what this crate writes;
//! the others are lawful, too.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{build, describe, hex};
use crate::{
    control::{Attach, Attached, Close, CloseCode, Hello, Notice, Offer, OfferState, PeerLimits, VERSION, Welcome},
    fields::HeaderBlock,
    frame::{FLAG_END, FrameType, put_header},
    message::{Framing, RequestHead, ResetCode, ResponseHead},
    outcome::{Outcome, OutcomeState},
    rate::Rate,
    varint,
};

pub(super) fn all() -> Value {
    let frames: Vec<Value> = ours().into_iter().chain(lawful()).collect();
    json!({ "about": "one frame each; README.md says how to read it", "frames": frames })
}

fn vector(name: &str, canonical: bool, bytes: &[u8]) -> Value {
    json!({ "name": name, "canonical": canonical, "hex": hex(bytes), "meaning": describe::of_bytes(bytes) })
}

fn frame(name: &str, kind: FrameType, flags: u8, stream: u64, write: impl FnOnce(&mut BytesMut)) -> Value {
    let (mut payload, mut bytes) = (BytesMut::new(), BytesMut::new());
    write(&mut payload);
    put_header(&mut bytes, kind, flags, stream, payload.len());
    bytes.extend_from_slice(&payload);
    vector(name, true, &bytes)
}

pub(super) fn hello() -> Hello {
    Hello {
        name: "laptop".into(),
        instance: [0x11; 16],
        software: "example/1".into(),
        offers: vec![Offer { endpoint: "github".into(), attach: Attach::Shared, capacity: 50, ..Offer::default() }],
        canaries: false,
    }
}

pub(super) fn welcome(answers: Vec<Attached>, available: Vec<String>) -> Welcome {
    Welcome { epoch: 1_700_000_000_000, software: "relay-server/0.2.0".into(), endpoints: answers, available }
}

pub(super) fn accepted() -> Attached {
    Attached {
        endpoint: "github".into(),
        state: OfferState::Accepted,
        url: "https://hooks.test/github".into(),
        provider: "github".into(),
    }
}

pub(super) fn refused(endpoint: &str, code: &str) -> Attached {
    let state = OfferState::Refused { code: code.into() };
    Attached { endpoint: endpoint.into(), state, url: String::new(), provider: String::new() }
}

pub(super) fn request() -> RequestHead {
    RequestHead {
        endpoint: "github".into(),
        event_id: [0x22; 16],
        attempt: 1,
        method: "POST".into(),
        target: "/push?x=%20".into(),
        framing: Framing::Length,
        headers: [("content-type", "application/json"), ("content-length", "9")].into_iter().collect(),
        fence: None,
        upgrade: Bytes::new(),
        asks_sha256: false,
    }
}

pub(super) fn response(status: u16) -> ResponseHead {
    ResponseHead::new(status, [("content-type", "text/plain")].into_iter().collect())
}

fn number(value: u64) -> impl FnOnce(&mut BytesMut) {
    move |out| varint::put(out, value)
}

/// What this crate writes.
fn ours() -> Vec<Value> {
    [introductions(), exchanges(), controls(), notices(), closes()].concat()
}

fn introductions() -> Vec<Value> {
    let limits = PeerLimits {
        version: VERSION,
        max_streams: 1024,
        initial_window_bytes: 65_536,
        heartbeat: Some((Duration::from_secs(5), Duration::from_secs(10))),
    };
    let several = Hello {
        offers: vec![
            Offer::default(),
            Offer { endpoint: "stripe".into(), attach: Attach::Exclusive, takeover: true, ..Offer::default() },
            Offer {
                endpoint: "slack".into(),
                attach: Attach::Copy,
                capacity: 1,
                events: vec!["message".into(), "app_*".into()],
                ..Offer::default()
            },
            Offer { endpoint: "shop".into(), attach: Attach::Auto, capacity: 300, ..Offer::default() },
            Offer { endpoint: "ci".into(), skip_backlog: true, ..Offer::default() },
            Offer { endpoint: "slow".into(), rate: Some(Rate::new(600, 60, Some(20))), ..Offer::default() },
        ],
        ..hello()
    };
    let answers =
        vec![accepted(), Attached { state: OfferState::Standby, ..accepted() }, refused("stripe", "not_allowed")];
    vec![
        frame("a hello with one offer", FrameType::Hello, 0, 0, |out| {
            hello().encode(PeerLimits { heartbeat: None, ..limits }, out);
        }),
        frame("a hello with every way to attach", FrameType::Hello, 0, 0, |out| {
            several.encode(PeerLimits { heartbeat: None, ..limits }, out);
        }),
        frame("a hello of an agent that answers canaries", FrameType::Hello, 0, 0, |out| {
            Hello { canaries: true, ..hello() }.encode(PeerLimits { heartbeat: None, ..limits }, out);
        }),
        frame("a welcome", FrameType::Welcome, 0, 0, |out| welcome(answers, vec!["github".into()]).encode(limits, out)),
    ]
}

fn exchanges() -> Vec<Value> {
    let stored =
        RequestHead { framing: Framing::Chunked, fence: Some(7), attempt: 3, target: Bytes::new(), ..request() };
    let odd: HeaderBlock = [("x-tag", &b"one"[..]), ("x-empty", b""), ("x-tag", b"\xff\xfe")].into_iter().collect();
    let upgrade =
        RequestHead { upgrade: "websocket".into(), method: "GET".into(), headers: HeaderBlock::new(), ..request() };
    vec![
        frame("a request without a body", FrameType::Request, FLAG_END, 1, |out| request().encode(out)),
        frame("a request with its body in the same frame", FrameType::Request, FLAG_END, 2, |out| {
            request().encode(out);
            out.extend_from_slice(b"{\"zen\":1}");
        }),
        frame("a request of a stored event, chunked, whose body follows", FrameType::Request, 0, 3, |out| {
            stored.encode(out);
        }),
        frame("a request for an upgrade", FrameType::Request, 0, 4, |out| upgrade.encode(out)),
        frame("a request that asks what goes to the handler", FrameType::Request, FLAG_END, 5, |out| {
            RequestHead { asks_sha256: true, ..request() }.encode(out);
            out.extend_from_slice(b"{\"zen\":1}");
        }),
        frame("a response with its body", FrameType::Response, FLAG_END, 1, |out| {
            response(200).encode(out);
            out.extend_from_slice(b"ok");
        }),
        frame("a response with repeated, empty and raw header values", FrameType::Response, 0, 2, |out| {
            ResponseHead::new(999, odd.clone()).encode(out);
        }),
        frame("a response whose handler took 1,500 microseconds", FrameType::Response, FLAG_END, 1, |out| {
            ResponseHead { handler_us: Some(1500), ..response(204) }.encode(out);
        }),
        frame("a response that tells what went to the handler", FrameType::Response, FLAG_END, 5, |out| {
            ResponseHead { sha256_in: Some([0xd1; 32]), ..response(204) }.encode(out);
        }),
        frame("data", FrameType::Data, 0, 3, |out| out.extend_from_slice(&[0, 1, 254, 255])),
        frame("the last data", FrameType::Data, FLAG_END, 3, |out| out.extend_from_slice(b"x")),
        frame("an end without data: END on an empty DATA", FrameType::Data, FLAG_END, 3, |_| ()),
        frame("an end with trailers", FrameType::End, 0, 3, |out| out.extend_from_slice(odd.as_bytes())),
        frame("an end without trailers", FrameType::End, 0, 3, |_| ()),
    ]
}

fn controls() -> Vec<Value> {
    let outcome = |state| Outcome { event_id: [0x22; 16], attempt: 3, fence: 7, state };
    let finished = OutcomeState::Finished { head: response(202), body: "done".into(), truncated: true };
    let mut all = vec![
        frame("a credit of 1", FrameType::Credit, 0, 1, number(1)),
        frame("a credit of a byte more than two bytes of varint hold", FrameType::Credit, 0, 70, number(0x4000)),
        frame(
            "a credit on a stream whose number takes eight bytes",
            FrameType::Credit,
            0,
            varint::MAX,
            number(1 << 30),
        ),
        frame("a ping", FrameType::Ping, 0, 0, |out| out.extend_from_slice(&1_u64.to_be_bytes())),
        frame("its pong", FrameType::Pong, 0, 0, |out| out.extend_from_slice(&1_u64.to_be_bytes())),
        frame("an outcome: running", FrameType::Outcome, 0, 0, |out| outcome(OutcomeState::Running).encode(out)),
        frame("an outcome: finished, its body cut", FrameType::Outcome, 0, 0, |out| outcome(finished).encode(out)),
        frame("an outcome: failed", FrameType::Outcome, 0, 0, |out| {
            outcome(OutcomeState::Failed(ResetCode::Timeout)).encode(out);
        }),
        frame("a drain", FrameType::Drain, 0, 0, |_| ()),
    ];
    let codes = [
        ResetCode::NoError,
        ResetCode::Cancelled,
        ResetCode::NotCalled,
        ResetCode::Unreachable,
        ResetCode::Broken,
        ResetCode::Timeout,
        ResetCode::NotCarriable,
    ];
    all.extend(codes.map(|code| frame(&format!("a reset: {code:?}"), FrameType::Reset, 0, 5, number(code as u64))));
    all
}

fn notices() -> Vec<Value> {
    let notices = [
        Notice::Refused {
            endpoint: "github".into(),
            event_id: [0x22; 16],
            status: 401,
            code: "signature_mismatch".into(),
            provider: "github".into(),
        },
        Notice::Text("the relay restarts at noon".into()),
        Notice::Backlog {
            endpoint: "github".into(),
            waiting: 17,
            oldest_ms: Some(1_769_846_400_000),
            line: "17 webhooks wait for github, the oldest since 2026-01-31T08:00:00Z".into(),
        },
        Notice::Changed { endpoint: "github".into(), state: OfferState::Standby },
        Notice::Changed { endpoint: "github".into(), state: OfferState::Copy },
        Notice::Changed { endpoint: "github".into(), state: OfferState::Refused { code: "not_allowed".into() } },
    ];
    notices.iter().map(|notice| frame("a notice", FrameType::Notice, 0, 0, |out| notice.encode(out))).collect()
}

fn closes() -> Vec<Value> {
    let codes = [
        CloseCode::Normal,
        CloseCode::GoingAway,
        CloseCode::ProtocolError,
        CloseCode::Replaced,
        CloseCode::HeartbeatTimeout,
        CloseCode::Unauthorized,
        CloseCode::Refused,
        CloseCode::Internal,
    ];
    codes
        .map(|code| {
            let close = Close { code, reason: "why".into() };
            frame(&format!("a close: {code:?}"), FrameType::Close, 0, 0, |out| close.encode(out))
        })
        .to_vec()
}

/// Frames that another implementation, or a later version, may send.
fn lawful() -> Vec<Value> {
    let cases = [
        ("varints longer than needed: stream 1 in two bytes, length 2 in four", "05 00 4001 80000002 6869"),
        ("varints of eight bytes", "05 00 c000000000000001 c000000000000002 6869"),
        ("flags that mean nothing yet are ignored", "05 fe 01 01 78"),
        (
            "a hello with a field and an offer's field that nobody knows yet",
            "01 00 00 [01 [02] 03 [07] 04 [01] 06 [22222222222222222222222222222222] 3f [aabb] 07 [01 [67] 20 [cccc]]]",
        ),
        ("a field twice: the last one counts", "04 01 01 [[01 [32] 01 [40c8]] 00]"),
        (
            "a request without the fields that have defaults: attempt 1, no target, by length, no fence",
            "03 01 01 [[01 [65] 02 [33333333333333333333333333333333] 04 [50]] 00]",
        ),
        ("a fence of 0 is none", "03 01 01 [[01 [65] 02 [33333333333333333333333333333333] 04 [50] 07 [00]] 00]"),
        (
            "a framing that nobody knows yet is by length",
            "03 01 01 [[01 [65] 02 [33333333333333333333333333333333] 04 [50] 06 [02]] 00]",
        ),
        ("an offer's state that nobody knows yet is a refusal", "0c 00 00 [01 [02] 03 [67] 06 [78] 08 [09]]"),
        ("a notice of a kind that nobody knows yet", "0c 00 00 [01 [09]]"),
        ("a reset code that nobody knows yet is broken", "07 00 01 01 3f"),
        ("bytes behind a reset code are ignored", "07 00 01 02 01 ff"),
        ("a close code that nobody knows yet is internal", "0e 00 00 02 3f 00"),
        ("a frame type from 64 on that nobody knows is skipped", "40 00 00 03 010203"),
        ("the same with a stream and flags", "ff ff 05 00"),
    ];
    cases.into_iter().map(|(name, bytes)| vector(name, false, &build(bytes))).collect()
}
