//! The cases, by the numbers under which Autobahn's test suite has them.

mod text;

use crate::{
    judge::{Act, Case, End},
    peer::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Seen, TEXT, frame, part},
};

const HELLO: &[u8] = b"Hello, world!";
const RAW: &[u8] = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";

const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;

pub(crate) fn all() -> Vec<Case> {
    let groups = [
        framing(),
        pings(),
        reserved_bits(),
        reserved_opcodes(),
        fragments(),
        text::all(),
        closes(),
        cut_by_a_library(),
    ];
    groups.concat()
}

/// Something that is answered by what is seen, and by nothing else.
fn answered(name: impl Into<String>, acts: Vec<Act>, seen: Vec<Seen>) -> Case {
    Case { name: name.into(), acts, seen, non_strict: None, end: End::Ours }
}

/// Something for which the connection is failed at once.
fn failed(name: impl Into<String>, acts: Vec<Act>) -> Case {
    Case { name: name.into(), acts, seen: Vec::new(), non_strict: None, end: End::Theirs(vec![PROTOCOL_ERROR]) }
}

/// A text that is echoed, and then something for which the connection is failed. The echo may be lost by that.
fn failed_later(name: impl Into<String>, acts: Vec<Act>) -> Case {
    let seen = vec![Seen::Message(TEXT, HELLO.to_vec())];
    Case { seen, non_strict: Some(Vec::new()), ..failed(name, acts) }
}

/// A close among other things, and what may answer it.
fn closed(name: impl Into<String>, frames: Vec<Frame>, codes: &[u16]) -> Case {
    let (acts, end) = (vec![Act::Write(frames)], End::Answered(codes.to_vec()));
    Case { name: name.into(), acts, seen: Vec::new(), non_strict: None, end }
}

fn close(code: u16, reason: &[u8]) -> Frame {
    frame(CLOSE, [&code.to_be_bytes(), reason].concat())
}

/// Group 1: every form of a length, and one message in pieces.
fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, opcode, byte) in [(1, TEXT, b'*'), (2, BINARY, 0xfe)] {
        for (number, len) in (1..).zip([0, 125, 126, 127, 128, 65_535, 65_536]) {
            let payload = vec![byte; len];
            let acts = vec![Act::Write(vec![frame(opcode, &payload)])];
            cases.push(answered(format!("1.{group}.{number}"), acts, vec![Seen::Message(opcode, payload)]));
        }
        let payload = vec![byte; 65_536];
        let acts = vec![Act::Chop(vec![frame(opcode, &payload)], 997)];
        cases.push(answered(format!("1.{group}.8"), acts, vec![Seen::Message(opcode, payload)]));
    }
    cases
}

/// Group 2: pings and pongs.
fn pings() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, payload) in (1..).zip([&b""[..], HELLO, RAW, &[0xfe; 125]]) {
        let acts = vec![Act::Write(vec![frame(PING, payload)])];
        cases.push(answered(format!("2.{number}"), acts, vec![Seen::Pong(payload.to_vec())]));
    }
    cases.push(failed("2.5", vec![Act::Write(vec![frame(PING, [0xfe; 126])])]));
    let chopped = vec![Act::Chop(vec![frame(PING, [0xfe; 125])], 1)];
    cases.push(answered("2.6", chopped, vec![Seen::Pong(vec![0xfe; 125])]));
    let unasked = frame(PONG, "unsolicited pong payload");
    for (name, pong) in [("2.7", frame(PONG, "")), ("2.8", unasked.clone())] {
        cases.push(closed(name, vec![pong, close(1000, b"")], &[1000]));
    }
    let behind = vec![Act::Write(vec![unasked, frame(PING, "ping payload")])];
    cases.push(answered("2.9", behind, vec![Seen::Pong(b"ping payload".to_vec())]));
    let payloads: Vec<_> = (0..10).map(|number| format!("payload-{number}").into_bytes()).collect();
    let frames: Vec<_> = payloads.iter().map(|payload| frame(PING, payload)).collect();
    let pongs: Vec<_> = payloads.into_iter().map(Seen::Pong).collect();
    cases.push(answered("2.10", vec![Act::Write(frames.clone())], pongs.clone()));
    cases.push(answered("2.11", vec![Act::Chop(frames, 1)], pongs));
    cases
}

/// Group 3: bits that mean nothing without an extension.
fn reserved_bits() -> Vec<Case> {
    let later = |bits| vec![frame(TEXT, HELLO), frame(TEXT, HELLO).reserved(bits), frame(PING, "")];
    vec![
        failed("3.1", vec![Act::Write(vec![frame(TEXT, HELLO).reserved(1)])]),
        failed_later("3.2", vec![Act::Write(later(2))]),
        failed_later("3.3", vec![Act::WriteEach(later(3))]),
        failed_later("3.4", vec![Act::Chop(later(4), 1)]),
        failed("3.5", vec![Act::Write(vec![frame(BINARY, RAW).reserved(5)])]),
        failed("3.6", vec![Act::Write(vec![frame(PING, HELLO).reserved(6)])]),
        Case {
            // The peer's own close, though one that is none.
            end: End::Answered(vec![PROTOCOL_ERROR]),
            ..failed("3.7", vec![Act::Write(vec![frame(CLOSE, "").reserved(7)])])
        },
    ]
}

/// Group 4: opcodes that mean nothing yet.
fn reserved_opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, first) in [(1, 3), (2, 11)] {
        let later = |opcode, payload: &[u8]| vec![frame(TEXT, HELLO), frame(opcode, payload), frame(PING, "")];
        let name = |number| format!("4.{group}.{number}");
        cases.extend([
            failed(name(1), vec![Act::Write(vec![frame(first, "")])]),
            failed(name(2), vec![Act::Write(vec![frame(first + 1, "reserved opcode payload")])]),
            failed_later(name(3), vec![Act::Write(later(first + 2, b""))]),
            failed_later(name(4), vec![Act::Write(later(first + 3, HELLO))]),
            failed_later(name(5), vec![Act::Chop(later(first + 4, HELLO), 1)]),
        ]);
    }
    cases
}

/// Group 5: messages in parts, with and without pings in between, and parts of nothing.
fn fragments() -> Vec<Case> {
    let whole = || vec![Seen::Message(TEXT, b"fragment1fragment2".to_vec())];
    let two = || vec![part(TEXT, "fragment1"), frame(CONTINUATION, "fragment2")];
    let between = || vec![part(TEXT, "fragment1"), frame(PING, "ping payload"), frame(CONTINUATION, "fragment2")];
    let ponged = || [vec![Seen::Pong(b"ping payload".to_vec())], whole()].concat();
    let mut cases = vec![
        failed("5.1", vec![Act::Write(vec![part(PING, "fragment1"), frame(CONTINUATION, "fragment2")])]),
        failed("5.2", vec![Act::Write(vec![part(PONG, "fragment1"), frame(CONTINUATION, "fragment2")])]),
        answered("5.3", vec![Act::Write(two())], whole()),
        answered("5.4", vec![Act::WriteEach(two())], whole()),
        answered("5.5", vec![Act::Chop(two(), 1)], whole()),
        answered("5.6", vec![Act::Write(between())], ponged()),
        answered("5.7", vec![Act::WriteEach(between())], ponged()),
        answered("5.8", vec![Act::Chop(between(), 1)], ponged()),
    ];
    let stray = "non-continuation payload";
    for (number, stray) in [(9, frame(CONTINUATION, stray)), (12, part(CONTINUATION, stray))] {
        let frames = vec![stray, frame(TEXT, HELLO)];
        let ways = [Act::Write(frames.clone()), Act::WriteEach(frames.clone()), Act::Chop(frames, 1)];
        cases.extend((number..).zip(ways).map(|(number, way)| failed(format!("5.{number}"), vec![way])));
    }
    let behind = [two(), vec![part(CONTINUATION, "fragment3"), frame(TEXT, "fragment4")]].concat();
    cases.push(Case { seen: whole(), ..failed_later("5.15", vec![Act::Write(behind)]) });
    for (name, stray) in [("5.16", part(CONTINUATION, "fragment1")), ("5.17", frame(CONTINUATION, "fragment1"))] {
        let once = [stray, part(TEXT, "fragment2"), frame(CONTINUATION, "fragment3")];
        cases.push(failed(name, vec![Act::Write([once.clone(), once].concat())]));
    }
    cases.push(failed("5.18", vec![Act::Write(vec![part(TEXT, "fragment1"), frame(TEXT, "fragment2")])]));
    let more = |fragment: &str| part(CONTINUATION, fragment);
    let first = vec![part(TEXT, "fragment1"), more("fragment2"), frame(PING, "pongme 1!")];
    let last = vec![more("fragment3"), more("fragment4"), frame(PING, "pongme 2!"), frame(CONTINUATION, "fragment5")];
    let seen = vec![
        Seen::Pong(b"pongme 1!".to_vec()),
        Seen::Pong(b"pongme 2!".to_vec()),
        Seen::Message(TEXT, b"fragment1fragment2fragment3fragment4fragment5".to_vec()),
    ];
    let at_once = vec![Act::Write(first.clone()), Act::Until(1), Act::Write(last.clone())];
    cases.push(answered("5.19", at_once, seen.clone()));
    let each = vec![Act::WriteEach(first), Act::Until(1), Act::WriteEach(last)];
    cases.push(answered("5.20", each, seen));
    cases
}

/// Group 7: closes and what stands behind them, their lengths, codes and reasons.
fn closes() -> Vec<Case> {
    let normal = || close(1000, b"");
    let (long, bad) = ([b'*'; 124], [text::VALID, text::SURROGATE, text::EDITED].concat());
    let echoed = vec![Seen::Message(TEXT, HELLO.to_vec())];
    let long_text = b"BAsd7&jh23".iter().copied().cycle().take(256 * 1024).collect::<Vec<u8>>();
    let mut cases = vec![
        answered("7.1.1", vec![Act::Write(vec![frame(TEXT, HELLO)])], echoed.clone()),
        closed("7.1.2", vec![normal(), frame(CLOSE, "")], &[1000]),
        closed("7.1.3", vec![normal(), frame(PING, "")], &[1000]),
        closed("7.1.4", vec![normal(), frame(TEXT, HELLO)], &[1000]),
        closed("7.1.5", vec![part(TEXT, "fragment1"), normal(), frame(CONTINUATION, "fragment2")], &[1000]),
        Case {
            // Autobahn takes any order for lawful. An echo that answers one message after the other has but one.
            seen: [vec![Seen::Message(TEXT, long_text.clone())], echoed].concat(),
            ..closed("7.1.6", vec![frame(TEXT, long_text), frame(TEXT, HELLO), normal(), frame(PING, "")], &[1000])
        },
        // 1005 stands for a close without a code.
        closed("7.3.1", vec![frame(CLOSE, "")], &[1000, 1005]),
        closed("7.3.2", vec![frame(CLOSE, "a")], &[PROTOCOL_ERROR]),
        closed("7.3.3", vec![normal()], &[1000]),
        closed("7.3.4", vec![close(1000, HELLO)], &[1000]),
        closed("7.3.5", vec![close(1000, &long[..123])], &[1000]),
        closed("7.3.6", vec![close(1000, &long)], &[PROTOCOL_ERROR]),
        closed("7.5.1", vec![close(1000, &bad)], &[PROTOCOL_ERROR, INVALID_PAYLOAD]),
    ];
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for (number, code) in (1..).zip(valid) {
        cases.push(closed(format!("7.7.{number}"), vec![close(code, b"")], &[1000, code]));
    }
    for (number, code) in (1..).zip([0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999]) {
        cases.push(closed(format!("7.9.{number}"), vec![close(code, b"")], &[PROTOCOL_ERROR]));
    }
    for (number, code) in (1..).zip([5000, 65_535]) {
        cases.push(closed(format!("7.13.{number}"), vec![close(code, b"")], &[1000, code, PROTOCOL_ERROR]));
    }
    cases
}

/// Group 10: a message that its sender's library cut.
fn cut_by_a_library() -> Vec<Case> {
    let payload = vec![b'*'; 65_536];
    let mut frames: Vec<_> = payload.chunks(1300).map(|piece| part(CONTINUATION, piece)).collect();
    frames[0] = part(TEXT, &payload[..1300]);
    let last = payload.chunks(1300).last().unwrap_or_default();
    frames.pop();
    frames.push(frame(CONTINUATION, last));
    vec![answered("10.1.1", vec![Act::Write(frames)], vec![Seen::Message(TEXT, payload)])]
}
