//! Group 6: text in whole and in parts, what UTF-8 allows (RFC 3629) and what it does not.

use super::{INVALID_PAYLOAD, answered};
use crate::{
    judge::{Act, Case, End},
    peer::{CONTINUATION, Frame, Seen, TEXT, frame, part},
};

/// The Greek word "kosme".
pub(crate) const VALID: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
/// U+D800, which UTF-8 has no place for.
pub(crate) const SURROGATE: &[u8] = b"\xed\xa0\x80";
/// U+110000, which there is not.
const BEYOND: &[u8] = b"\xf4\x90\x80\x80";
pub(crate) const EDITED: &[u8] = b"edited";

const MIXED: &str = "Hello-µ@ßöäüàá-UTF-8!!";

pub(crate) fn all() -> Vec<Case> {
    let message = |text: &[u8]| vec![Seen::Message(TEXT, text.to_vec())];
    let mut cases = Vec::new();
    let three = |middle: &str| vec![part(TEXT, ""), part(CONTINUATION, middle), frame(CONTINUATION, "")];
    let halves = MIXED.split_at("Hello-µ@ßöä".len());
    let two = vec![part(TEXT, halves.0), frame(CONTINUATION, halves.1)];
    for (name, frames, text) in [
        ("6.1.1", vec![frame(TEXT, "")], &b""[..]),
        ("6.1.2", three(""), b""),
        ("6.1.3", three("middle frame payload"), b"middle frame payload"),
        ("6.2.1", vec![frame(TEXT, MIXED)], MIXED.as_bytes()),
        ("6.2.2", two, MIXED.as_bytes()),
        ("6.2.3", octets(MIXED.as_bytes()), MIXED.as_bytes()),
        ("6.2.4", octets(VALID), VALID),
    ] {
        cases.push(answered(name, vec![Act::Write(frames)], message(text)));
    }
    let bad = [VALID, SURROGATE, EDITED].concat();
    cases.push(refused("6.3.1", vec![Act::Write(vec![frame(TEXT, &bad)])]));
    cases.push(refused("6.3.2", vec![Act::Write(octets(&bad))]));
    cases.extend(as_soon_as_it_is_bad());
    for (group, sequences) in (5..).zip(sequences()) {
        for (number, (valid, text)) in (1..).zip(sequences) {
            let (name, acts) = (format!("6.{group}.{number}"), vec![Act::Write(vec![frame(TEXT, &text)])]);
            cases.push(if valid { answered(name, acts, message(&text)) } else { refused(name, acts) });
        }
    }
    cases
}

/// A text for which the connection is failed.
fn refused(name: impl Into<String>, acts: Vec<Act>) -> Case {
    let end = End::Theirs(vec![INVALID_PAYLOAD]);
    Case { name: name.into(), acts, seen: Vec::new(), non_strict: None, end }
}

/// A text whose parts have one byte each.
fn octets(text: &[u8]) -> Vec<Frame> {
    let (last, before) = text.split_last().expect("a text");
    let opcodes = std::iter::once(TEXT).chain(std::iter::repeat(CONTINUATION));
    let parts = opcodes.zip(before).map(|(opcode, byte)| part(opcode, [*byte]));
    parts.chain([frame(CONTINUATION, [*last])]).collect()
}

/// A text that is bad from its twelfth or thirteenth byte on, of which the rest comes later, and the strict do not wait
/// for that.
fn as_soon_as_it_is_bad() -> [Case; 4] {
    let text = [VALID, BEYOND, EDITED].concat();
    let places = [("6.4.1", "6.4.3", [11, 15]), ("6.4.2", "6.4.4", [12, 13])];
    let waiting = |name: &str, acts| Case {
        seen: vec![Seen::Silence],
        non_strict: Some(vec![Seen::Silence, Seen::Silence]),
        ..refused(name, acts)
    };
    let in_frames = places.map(|(name, _, [first, second])| {
        let acts = vec![
            Act::Write(vec![part(TEXT, &text[..first])]),
            Act::Wait,
            Act::Write(vec![part(CONTINUATION, &text[first..second])]),
            Act::Wait,
            Act::Write(vec![frame(CONTINUATION, &text[second..])]),
        ];
        waiting(name, acts)
    });
    let in_pieces = places.map(|(_, name, places)| waiting(name, vec![Act::Cut(frame(TEXT, &text), places.to_vec())]));
    let ([first, second], [third, fourth]) = (in_frames, in_pieces);
    [first, second, third, fourth]
}

/// Groups 6.5 to 6.23: whether each is valid, and its bytes. They are those of Markus Kuhn's stress test for decoders.
fn sequences() -> Vec<Vec<(bool, Vec<u8>)>> {
    let of = |valid: bool, texts: &[&[u8]]| texts.iter().map(|text| (valid, text.to_vec())).collect::<Vec<_>>();
    let good = |texts: &[&[u8]]| of(true, texts);
    let bad = |texts: &[&[u8]]| of(false, texts);
    let prefixes = (1..=VALID.len()).map(|len| (matches!(len, 2 | 5 | 7 | 9 | 11), VALID[..len].to_vec())).collect();
    let continuations: Vec<u8> = (0x80..0xbf).collect();
    let lonely = [(0xc0, 0xdf), (0xe0, 0xef), (0xf0, 0xf7), (0xf8, 0xfb), (0xfc, 0xfd)];
    let lonely = lonely.map(|(first, last)| (false, (first..last).flat_map(|byte: u8| [byte, b' ']).collect()));
    let incomplete: [&[u8]; 10] = [
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ];
    let mut non_characters = good(&[b"\xef\xbf\xbe", b"\xef\xbf\xbf"]);
    for (first, seconds) in [
        (0xf0, &[0x9f, 0xaf, 0xbf][..]),
        (0xf1, &[0x8f, 0x9f, 0xaf, 0xbf]),
        (0xf2, &[0x8f, 0x9f, 0xaf, 0xbf]),
        (0xf3, &[0x8f, 0x9f, 0xaf, 0xbf]),
        (0xf4, &[0x8f]),
    ] {
        for second in seconds {
            non_characters.extend([0xbe, 0xbf].map(|last| (true, vec![first, *second, 0xbf, last])));
        }
    }
    let specials: Vec<_> = (0xb9..=0xbf).map(|last| (true, vec![0xef, 0xbf, last])).collect();
    vec![
        good(&[
            b"hello\x24world",
            b"hello\xc2\xa2world",
            b"hello\xe2\x82\xacworld",
            b"hello\xf0\xa4\xad\xa2world",
            VALID,
        ]),
        prefixes,
        good(&[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
        bad(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
        good(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
        bad(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
        [good(&[b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"]), bad(&[BEYOND])].concat(),
        bad(&[
            b"\x80",
            b"\xbf",
            b"\x80\xbf",
            b"\x80\xbf\x80",
            b"\x80\xbf\x80\xbf",
            b"\x80\xbf\x80\xbf\x80",
            b"\x80\xbf\x80\xbf\x80\xbf",
            &continuations,
        ]),
        lonely.to_vec(),
        bad(&incomplete),
        bad(&[&incomplete.concat()]),
        bad(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
        bad(&[b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"]),
        bad(&[b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]),
        bad(&[b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"]),
        bad(&[
            SURROGATE,
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ]),
        bad(&[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ]),
        non_characters,
        specials,
    ]
}
