//! The table: what each case sends, and what has to come.

use relay_tests::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE, RESET,
    SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, frame, literals,
};

use super::{ANSWER, Act, Case, Want, code};

pub(super) const COUNT: usize = 150;

type Field = (&'static str, &'static str);

const AUTHORITY: Field = (":authority", "localhost");
const PATH: Field = (":path", "/open");
const SCHEME: Field = (":scheme", "https");
const GET: [Field; 4] = [(":method", "GET"), SCHEME, PATH, AUTHORITY];
const POST: [Field; 4] = [(":method", "POST"), SCHEME, PATH, AUTHORITY];

/// A head that is whole, and a request that is.
const WHOLE: u8 = END_HEADERS | END_STREAM;
const ZEROS: [u8; 8] = [0; 8];
const DATA_OF_A_PING: &[u8; 8] = b"8 octets";

/// A kind of frame that nobody knows.
const UNKNOWN: u8 = 0x16;

const PROTOCOL: Want = Want::ConnectionError(&[code::PROTOCOL]);
const COMPRESSION: Want = Want::ConnectionError(&[code::COMPRESSION]);
const FRAME_SIZE: Want = Want::ConnectionError(&[code::FRAME_SIZE]);
const FLOW_CONTROL: Want = Want::ConnectionError(&[code::FLOW_CONTROL]);
const MALFORMED: Want = Want::StreamError(&[code::PROTOCOL]);
const CLOSED: Want = Want::StreamError(&[code::STREAM_CLOSED]);
/// Where a connection error and a stream error of two sections meet.
const CLOSED_OR_PROTOCOL: Want = Want::StreamError(&[code::STREAM_CLOSED, code::PROTOCOL]);

pub(super) fn all() -> Vec<Case> {
    let mut cases = generic();
    cases.extend(literal_fields());
    cases.extend(frame_format());
    cases.extend(stream_states());
    cases.extend(frames_of_a_request());
    cases.extend(frames_of_a_connection());
    cases.extend(windows());
    cases.extend(continuations());
    cases.extend(messages());
    cases.extend(compression());
    cases.extend(our_own());
    cases
}

fn case(name: &'static str, frames: &[Vec<u8>], want: Want) -> Case {
    Case { name, acts: vec![Act::Write(frames.concat())], want }
}

fn with(fields: &[Field], more: &[Field]) -> Vec<u8> {
    literals(&[fields, more].concat())
}

/// HEADERS on stream 1.
fn headers(flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, 1, block)
}

fn get() -> Vec<u8> {
    headers(WHOLE, &literals(&GET))
}

/// A POST whose body has yet to come.
fn post() -> Vec<u8> {
    headers(END_HEADERS, &literals(&POST))
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}

fn continuation(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, block)
}

/// A field that takes some room.
fn dummy() -> Vec<u8> {
    literals(&[("x-dummy0", &"x".repeat(4000))])
}

fn priority(stream: u32, depends_on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&depends_on.to_be_bytes()[..], &[weight]].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &code.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn setting(values: &[(u16, u32)]) -> Vec<u8> {
    let values: Vec<u8> =
        values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &values)
}

fn ping(flags: u8, bytes: &[u8; 8]) -> Vec<u8> {
    frame(PING, flags, 0, bytes)
}

fn goaway(code: u32, more: &[u8]) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[&[0; 4], &code.to_be_bytes()[..], more].concat())
}

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// What every endpoint has to take (h2spec's group `generic`, without its HPACK).
fn generic() -> Vec<Case> {
    let zeros = || ping(0, &ZEROS);
    let pong = Want::Pong(&ZEROS);
    let no_window = || setting(&[(INITIAL_WINDOW_SIZE, 0)]);
    let block = literals(&GET);
    let exclusive = 0x8000_0000;
    let padded_data = data(END_STREAM | PADDED, b"\x05test\0\0\0\0\0");
    let padded = headers(WHOLE | PADDED, &[&[8], &block[..], &[0; 8]].concat());
    let prioritized = headers(WHOLE | WITH_PRIORITY, &[&[0, 0, 0, 0, 255], &block[..]].concat());
    let every_setting = setting(&[
        (HEADER_TABLE_SIZE, 4096),
        (ENABLE_PUSH, 1),
        (MAX_CONCURRENT_STREAMS, 100),
        (INITIAL_WINDOW_SIZE, 65_535),
        (MAX_FRAME_SIZE, 16_384),
        (MAX_HEADER_LIST_SIZE, 100),
    ]);
    let head = GET.map(|(name, value)| if name == ":method" { (name, "HEAD") } else { (name, value) });
    let with_trailers = headers(END_HEADERS, &with(&POST, &[("trailer", "x-test")]));
    let trailers = headers(WHOLE, &literals(&[("x-test", "ok")]));
    vec![
        case("generic/2/1", &[priority(1, 0, 255), zeros()], pong),
        case("generic/2/2", &[no_window(), get(), window(1, 1)], Want::Data(1)),
        case("generic/2/3", &[no_window(), get(), priority(1, 0, 255), window(1, 1)], Want::Data(1)),
        case("generic/2/4", &[get(), reset(1, code::CANCEL), zeros()], Want::PongOrEnd(&ZEROS)),
        Case {
            name: "generic/2/5",
            acts: vec![Act::Write(get()), Act::Answered, Act::Write([priority(1, 0, 255), zeros()].concat())],
            want: pong,
        },
        case("generic/3.1/1", &[post(), data(END_STREAM, b"test")], Want::Answer),
        case("generic/3.1/2", &[post(), data(0, b"test"), data(END_STREAM, b"test")], Want::Answer),
        case("generic/3.1/3", &[post(), padded_data], Want::Answer),
        case("generic/3.2/1", &[get()], Want::Answer),
        case("generic/3.2/2", &[padded], Want::Answer),
        case("generic/3.2/3", &[prioritized], Want::Answer),
        case("generic/3.3/1", &[priority(1, 0, 0), get()], Want::Answer),
        case("generic/3.3/2", &[priority(1, 0, 255), get()], Want::Answer),
        case("generic/3.3/3", &[priority(3, 1, 0), get()], Want::Answer),
        case("generic/3.3/4", &[priority(1, exclusive, 0), get()], Want::Answer),
        case("generic/3.3/5", &[priority(3, 0, 255), get()], Want::Answer),
        case("generic/3.4/1", &[post(), reset(1, code::CANCEL), zeros()], Want::PongOrEnd(&ZEROS)),
        case("generic/3.5/1", &[every_setting], Want::SettingsAck),
        case("generic/3.7/1", &[ping(0, DATA_OF_A_PING)], Want::Pong(DATA_OF_A_PING)),
        case("generic/3.8/1", &[goaway(0, b"h2spec"), zeros()], Want::PongOrEnd(&ZEROS)),
        case("generic/3.9/1", &[window(0, 1), zeros()], pong),
        case("generic/3.9/2", &[get(), window(1, 1)], Want::Answer),
        case(
            "generic/3.10/1",
            &[headers(END_STREAM, &block[..5]), continuation(END_HEADERS, 1, &block[5..])],
            Want::Answer,
        ),
        case(
            "generic/3.10/2",
            &[
                headers(END_STREAM, &block[..5]),
                continuation(0, 1, &block[5..10]),
                continuation(END_HEADERS, 1, &block[10..]),
            ],
            Want::Answer,
        ),
        case("generic/4/1", &[get()], Want::Answer),
        case("generic/4/2", &[headers(WHOLE, &literals(&head))], Want::Answer),
        case("generic/4/3", &[post(), data(END_STREAM, b"test")], Want::Answer),
        case("generic/4/4", &[with_trailers, data(0, b"test"), trailers], Want::Answer),
    ]
}

/// Every way to write a field (h2spec's group `generic/5`).
fn literal_fields() -> Vec<Case> {
    let behind: [(&str, &[u8]); 13] = [
        ("generic/5/1", b"\xba"),
        ("generic/5/2", b"\x40\x87\xb5\x05\xb1\x61\xcc\x5a\x93\x84\x9c\x48\xac\xa4"),
        ("generic/5/3", b"\x40\x0auser-agent\x06h2spec"),
        ("generic/5/4", b"\x40\x06x-test\x06h2spec"),
        ("generic/5/5", b"\x40\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4"),
        ("generic/5/6", b"\x00\x0auser-agent\x06h2spec"),
        ("generic/5/7", b"\x00\x87\xb5\x05\xb1\x61\xcc\x5a\x93\x84\x9c\x48\xac\xa4"),
        ("generic/5/8", b"\x00\x06x-test\x06h2spec"),
        ("generic/5/9", b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4"),
        ("generic/5/10", b"\x10\x0auser-agent\x06h2spec"),
        ("generic/5/11", b"\x10\x87\xb5\x05\xb1\x61\xcc\x5a\x93\x84\x9c\x48\xac\xa4"),
        // h2spec sends the next one twice; a plain one is meant.
        ("generic/5/12", b"\x10\x06x-test\x06h2spec"),
        ("generic/5/13", b"\x10\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4"),
    ];
    // The table of fields shrinks to 128 bytes; then it shrinks, and grows to 4,096.
    let before: [(&str, &[u8]); 2] = [("generic/5/14", b"\x3f\x61"), ("generic/5/15", b"\x3f\x61\x3f\xe1\x1f")];
    let block = literals(&GET);
    let behind = behind.map(|(name, field)| (name, [&block, field].concat()));
    let before = before.map(|(name, change)| (name, [change, &block].concat()));
    behind.into_iter().chain(before).map(|(name, block)| case(name, &[headers(WHOLE, &block)], Want::Answer)).collect()
}

/// Sections 4 and 5.5: frames as such, and blocks of fields.
fn frame_format() -> Vec<Case> {
    let unknown = || frame(UNKNOWN, 0, 0, &[0; 8]);
    let reserved = [&[0, 0, 8, PING, UNKNOWN, 0x80, 0, 0, 0], &ZEROS[..]].concat();
    let long: Vec<_> = (0..5).flat_map(|_| dummy()).collect();
    let begun = || headers(0, &literals(&GET));
    let more = || continuation(END_HEADERS, 1, &dummy());
    vec![
        case("http2/4.1/1", &[unknown(), ping(0, &ZEROS)], Want::Pong(&ZEROS)),
        case("http2/4.1/2", &[ping(UNKNOWN, &ZEROS)], Want::Pong(&ZEROS)),
        case("http2/4.1/3", &[reserved], Want::Pong(&ZEROS)),
        case("http2/4.2/1", &[post(), data(END_STREAM, &[b'x'; 16_384])], Want::Answer),
        case("http2/4.2/2", &[post(), data(END_STREAM, &[b'x'; 16_385])], Want::StreamError(&[code::FRAME_SIZE])),
        case("http2/4.2/3", &[headers(WHOLE, &[literals(&GET), long].concat())], FRAME_SIZE),
        case("http2/4.3/1", &[headers(WHOLE, b"\x40")], COMPRESSION),
        case("http2/4.3/2", &[begun(), priority(1, 0, 255), more()], PROTOCOL),
        case("http2/4.3/3", &[begun(), frame(HEADERS, WHOLE, 3, &literals(&GET)), more()], PROTOCOL),
        case("http2/5.5/1", &[unknown(), ping(0, &ZEROS)], Want::Pong(&ZEROS)),
        case("http2/5.5/2", &[headers(END_STREAM, &literals(&GET)), unknown()], PROTOCOL),
    ]
}

/// Sections 5.1 to 5.4: what a stream takes in which state.
fn stream_states() -> Vec<Case> {
    let block = literals(&GET);
    let given_up = || [post(), reset(1, code::CANCEL)].concat();
    let answered =
        |name, then: Vec<u8>, want| Case { name, acts: vec![Act::Write(get()), Act::Answered, Act::Write(then)], want };
    let streams = (0..=128).map(|number| frame(HEADERS, WHOLE, 2 * number + 1, &block));
    let many: Vec<u8> = [setting(&[(INITIAL_WINDOW_SIZE, 0)])].into_iter().chain(streams).flatten().collect();
    let on_itself = headers(WHOLE | WITH_PRIORITY, &[&[0, 0, 0, 1, 255], &block[..]].concat());
    vec![
        case("http2/5.1/1", &[data(END_STREAM, b"test")], CLOSED_OR_PROTOCOL),
        case("http2/5.1/2", &[reset(1, code::CANCEL)], PROTOCOL),
        case("http2/5.1/3", &[window(1, 100)], PROTOCOL),
        case("http2/5.1/4", &[continuation(END_HEADERS, 1, &block)], PROTOCOL),
        case("http2/5.1/5", &[get(), data(END_STREAM, b"test")], CLOSED),
        case("http2/5.1/6", &[get(), get()], CLOSED),
        case("http2/5.1/7", &[get(), continuation(END_HEADERS, 1, &block)], CLOSED_OR_PROTOCOL),
        case("http2/5.1/8", &[given_up(), data(END_STREAM, b"test")], CLOSED),
        case("http2/5.1/9", &[given_up(), get()], CLOSED),
        case("http2/5.1/10", &[given_up(), continuation(END_HEADERS, 1, &dummy())], CLOSED_OR_PROTOCOL),
        answered("http2/5.1/11", data(END_STREAM, b"test"), CLOSED),
        answered("http2/5.1/12", get(), Want::ConnectionError(&[code::STREAM_CLOSED])),
        answered(
            "http2/5.1/13",
            continuation(END_HEADERS, 1, &dummy()),
            Want::ConnectionError(&[code::STREAM_CLOSED, code::PROTOCOL]),
        ),
        case("http2/5.1.1/1", &[frame(HEADERS, WHOLE, 2, &block)], PROTOCOL),
        case("http2/5.1.1/2", &[frame(HEADERS, WHOLE, 5, &block), frame(HEADERS, WHOLE, 3, &block)], PROTOCOL),
        case("http2/5.1.2/1", &[many], Want::Refusal(&[code::PROTOCOL, code::REFUSED_STREAM])),
        // RFC 9113 gives up the tree of priorities, and with it what a frame is to be that breaks it.
        case("http2/5.3.1/1", &[on_itself], MALFORMED),
        case("http2/5.3.1/2", &[priority(1, 1, 255)], MALFORMED),
        // h2spec looks for the end and for the GOAWAY in two cases.
        case("http2/5.4.1/1", &[frame(PING, 0, 3, &ZEROS)], PROTOCOL),
    ]
}

/// Sections 6.1 to 6.4, and 8.4: DATA, HEADERS, PRIORITY, RST_STREAM and PUSH_PROMISE.
fn frames_of_a_request() -> Vec<Case> {
    let block = literals(&GET);
    let announced = headers(END_HEADERS, &with(&POST, &[("content-length", "4")]));
    let begun = || headers(0, &block);
    let more = || continuation(END_HEADERS, 1, &dummy());
    let room = u8::try_from(block.len() + 2).expect("a short block");
    let promise = frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 3], &block[..]].concat());
    vec![
        case("http2/6.1/1", &[frame(DATA, END_STREAM, 0, b"test")], PROTOCOL),
        case("http2/6.1/2", &[headers(WHOLE, &literals(&POST)), data(END_STREAM, b"test")], CLOSED),
        case("http2/6.1/3", &[announced, data(END_STREAM | PADDED, b"\x06Test")], PROTOCOL),
        case("http2/6.2/1", &[begun(), priority(1, 0, 255), more()], PROTOCOL),
        case("http2/6.2/2", &[begun(), frame(HEADERS, WHOLE, 3, &block), more()], PROTOCOL),
        case("http2/6.2/3", &[frame(HEADERS, WHOLE, 0, &block)], PROTOCOL),
        case("http2/6.2/4", &[headers(WHOLE | PADDED, &[&[room], &block[..]].concat())], MALFORMED),
        case("http2/6.3/1", &[priority(0, 0, 255)], PROTOCOL),
        case("http2/6.3/2", &[get(), frame(PRIORITY, 0, 1, &[0x80, 0, 0, 1])], Want::StreamError(&[code::FRAME_SIZE])),
        case("http2/6.4/1", &[reset(0, code::CANCEL)], PROTOCOL),
        case("http2/6.4/2", &[reset(1, code::CANCEL)], PROTOCOL),
        case("http2/6.4/3", &[get(), frame(RESET, 0, 1, &[0; 3])], FRAME_SIZE),
        case("http2/8.2/1", &[promise], PROTOCOL),
    ]
}

/// Sections 6.5, 6.7, 6.8 and 7: SETTINGS, PING, GOAWAY, and codes that nobody knows.
fn frames_of_a_connection() -> Vec<Case> {
    let zeros = || ping(0, &ZEROS);
    let windows = setting(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]);
    vec![
        case("http2/6.5/1", &[frame(SETTINGS, ACK, 0, &[0])], FRAME_SIZE),
        case("http2/6.5/2", &[frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 0x64])], PROTOCOL),
        case("http2/6.5/3", &[frame(SETTINGS, 0, 0, &[0, 3, 0])], FRAME_SIZE),
        case("http2/6.5.2/1", &[setting(&[(ENABLE_PUSH, 2)])], PROTOCOL),
        case("http2/6.5.2/2", &[setting(&[(INITIAL_WINDOW_SIZE, 0x8000_0000)])], FLOW_CONTROL),
        case("http2/6.5.2/3", &[setting(&[(MAX_FRAME_SIZE, 16_383)])], PROTOCOL),
        case("http2/6.5.2/4", &[setting(&[(MAX_FRAME_SIZE, 0x100_0000)])], PROTOCOL),
        case("http2/6.5.2/5", &[setting(&[(0xff, 1)]), zeros()], Want::Pong(&ZEROS)),
        Case {
            name: "http2/6.5.3/1",
            acts: vec![Act::Write(windows), Act::SettingsAreTaken, Act::Write(get())],
            want: Want::Data(1),
        },
        case("http2/6.5.3/2", &[setting(&[(ENABLE_PUSH, 0)])], Want::SettingsAck),
        case("http2/6.7/1", &[ping(0, DATA_OF_A_PING)], Want::Pong(DATA_OF_A_PING)),
        case("http2/6.7/2", &[ping(ACK, b"invalid\0"), ping(0, DATA_OF_A_PING)], Want::Pong(DATA_OF_A_PING)),
        case("http2/6.7/3", &[frame(PING, 0, 1, &ZEROS)], PROTOCOL),
        case("http2/6.7/4", &[frame(PING, 0, 0, &[0; 6])], FRAME_SIZE),
        case("http2/6.8/1", &[frame(GOAWAY, 0, 1, &ZEROS)], PROTOCOL),
        case("http2/7/1", &[goaway(0xff, b""), zeros()], Want::PongOrEnd(&ZEROS)),
        case("http2/7/2", &[post(), reset(1, 0xff), zeros()], Want::PongOrEnd(&ZEROS)),
    ]
}

/// Section 6.9: WINDOW_UPDATE, and how much is sent.
fn windows() -> Vec<Case> {
    let most = 0x7fff_ffff;
    let window_of = |bytes| vec![Act::Write(setting(&[(INITIAL_WINDOW_SIZE, bytes)])), Act::SettingsAreTaken];
    let acts = |first: Vec<Act>, then: Vec<Act>| first.into_iter().chain(then).collect::<Vec<_>>();
    let later = Act::Write([get(), setting(&[(INITIAL_WINDOW_SIZE, 1)])].concat());
    let negative = vec![
        Act::Write(get()),
        Act::DataCame,
        Act::Write(setting(&[(INITIAL_WINDOW_SIZE, 2)])),
        Act::SettingsAreTaken,
        Act::Write(window(1, 2)),
    ];
    assert!(ANSWER.len() > 5, "windows of up to five bytes do not hold an answer");
    vec![
        case("http2/6.9/1", &[window(0, 0)], PROTOCOL),
        case("http2/6.9/2", &[post(), window(1, 0)], MALFORMED),
        case("http2/6.9/3", &[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])], FRAME_SIZE),
        Case { name: "http2/6.9.1/1", acts: acts(window_of(1), vec![Act::Write(get())]), want: Want::Data(1) },
        case("http2/6.9.1/2", &[window(0, most), window(0, most)], FLOW_CONTROL),
        case("http2/6.9.1/3", &[post(), window(1, most), window(1, most)], Want::StreamError(&[code::FLOW_CONTROL])),
        Case { name: "http2/6.9.2/1", acts: acts(window_of(0), vec![later]), want: Want::Data(1) },
        Case { name: "http2/6.9.2/2", acts: acts(window_of(3), negative), want: Want::Data(1) },
        case("http2/6.9.2/3", &[setting(&[(INITIAL_WINDOW_SIZE, 0x8000_0000)])], FLOW_CONTROL),
    ]
}

/// Section 6.10: CONTINUATION.
fn continuations() -> Vec<Case> {
    let begun = || headers(END_STREAM, &literals(&GET));
    let more = |flags, stream| continuation(flags, stream, &dummy());
    let posted = || headers(0, &literals(&POST));
    vec![
        case("http2/6.10/1", &[begun(), more(0, 1), more(END_HEADERS, 1)], Want::Answer),
        case("http2/6.10/2", &[posted(), more(0, 1), data(END_STREAM, b"test")], PROTOCOL),
        case("http2/6.10/3", &[begun(), more(END_HEADERS, 0)], PROTOCOL),
        case("http2/6.10/4", &[get(), more(END_HEADERS, 1)], PROTOCOL),
        case("http2/6.10/5", &[begun(), more(END_HEADERS, 1), more(END_HEADERS, 1)], PROTOCOL),
        case("http2/6.10/6", &[posted(), data(END_STREAM, b"test"), more(0, 1), more(END_HEADERS, 0)], PROTOCOL),
    ]
}

/// Section 8: requests that are none. h2spec numbers them by RFC 7540.
fn messages() -> Vec<Case> {
    let whole = |name, fields: &[Field]| case(name, &[headers(WHOLE, &literals(fields))], MALFORMED);
    let more = |name, fields: &[Field]| whole(name, &[&GET[..], fields].concat());
    let [method, ..] = GET;
    let behind = headers(END_HEADERS, &literals(&[("x-test", "ok")]));
    let pseudo = headers(END_HEADERS, &literals(&[(":method", "POST")]));
    let one_byte = || headers(END_HEADERS, &with(&POST, &[("content-length", "1")]));
    vec![
        case("http2/8.1/1", &[post(), data(0, b"test"), behind], MALFORMED),
        more("http2/8.1.2/1", &[("X-TEST", "ok")]),
        more("http2/8.1.2.1/1", &[(":test", "ok")]),
        more("http2/8.1.2.1/2", &[(":status", "200")]),
        case("http2/8.1.2.1/3", &[post(), data(0, b"test"), pseudo], MALFORMED),
        whole("http2/8.1.2.1/4", &[&[("x-test", "ok")], &GET[..]].concat()),
        more("http2/8.1.2.2/1", &[("connection", "keep-alive")]),
        more("http2/8.1.2.2/2", &[("trailers", "test"), ("te", "trailers, deflate")]),
        whole("http2/8.1.2.3/1", &[method, SCHEME, (":path", ""), AUTHORITY]),
        whole("http2/8.1.2.3/2", &[SCHEME, PATH, AUTHORITY]),
        whole("http2/8.1.2.3/3", &[method, PATH, AUTHORITY]),
        whole("http2/8.1.2.3/4", &[method, SCHEME, AUTHORITY]),
        more("http2/8.1.2.3/5", &[method]),
        more("http2/8.1.2.3/6", &[SCHEME]),
        more("http2/8.1.2.3/7", &[PATH]),
        case("http2/8.1.2.6/1", &[one_byte(), data(END_STREAM, b"test")], MALFORMED),
        case("http2/8.1.2.6/2", &[one_byte(), data(0, b"test"), data(END_STREAM, b"test")], MALFORMED),
    ]
}

/// HPACK: blocks that cannot be read.
fn compression() -> Vec<Case> {
    let behind: [(&str, &[u8]); 7] = [
        // An index beyond both tables.
        ("hpack/2.3.3/1", b"\xc6"),
        ("hpack/2.3.3/2", b"\x7f\x07\x00"),
        // The table's size changes behind a field.
        ("hpack/4.2/1", b"\x21"),
        // Huffman codes: more padding than a byte, padding of zeros, the end of the string within it.
        ("hpack/5.2/1", b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        ("hpack/5.2/2", b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
        ("hpack/5.2/3", b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),
        ("hpack/6.1/1", b"\x80"),
    ];
    let block = literals(&GET);
    let behind = behind.map(|(name, field)| (name, [&block, field].concat()));
    // The table grows to 4,097 bytes, where it may have 4,096.
    let grows = ("hpack/6.3/1", [b"\x3f\xe2\x1f", &block[..]].concat());
    behind.into_iter().chain([grows]).map(|(name, block)| case(name, &[headers(WHOLE, &block)], COMPRESSION)).collect()
}

/// What h2spec leaves out.
fn our_own() -> Vec<Case> {
    let whole =
        |name, fields: &[Field]| case(name, &[headers(WHOLE, &[literals(&GET), literals(fields)].concat())], MALFORMED);
    let pseudo = headers(WHOLE, &literals(&[(":method", "POST")]));
    let eleven = headers(END_HEADERS, &with(&POST, &[("content-length", "11")]));
    vec![
        case("own/trailers with a pseudo-field", &[post(), data(0, b"test"), pseudo], MALFORMED),
        case("own/a body shorter than its length", &[eleven, data(END_STREAM, b"test")], MALFORMED),
        whole("own/transfer-encoding", &[("transfer-encoding", "chunked")]),
        whole("own/keep-alive", &[("keep-alive", "timeout=5")]),
        whole("own/a value with a line feed", &[("x-test", "a\nb")]),
        whole("own/a name with a space", &[("x test", "ok")]),
        whole("own/an empty name", &[("", "ok")]),
    ]
}
