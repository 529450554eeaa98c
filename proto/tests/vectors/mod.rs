//! The test vectors in `proto/vectors`, held against this crate, and the examples in `PROTOCOL.md` held
//! against them.
//!
//! The files are data for implementations in any language; `proto/vectors/README.md` says how to read them.
//! With `UPDATE_VECTORS=1` the tests write them anew from the tables here; without it they compare.

mod bad;
mod conversations;
mod describe;
mod frames;

use serde_json::Value;

/// What stands in a file, after it was written if that is asked for.
fn on_disk(name: &str, made: &Value) -> Value {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(made).expect("plain values");
        std::fs::write(&path, text + "\n").expect("the folder can be written");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
    assert!(digits.len().is_multiple_of(2), "half a byte in {text}");
    digits.chunks(2).map(byte).collect()
}

/// Bytes from hex in which `[…]` stands for `…` behind its length.
fn build(text: &str) -> Vec<u8> {
    let mut open = vec![String::new()];
    for letter in text.chars() {
        match letter {
            '[' => open.push(String::new()),
            ']' => {
                let bytes = unhex(&open.pop().expect("an opening bracket"));
                let mut prefixed = bytes::BytesMut::new();
                crate::varint::put(&mut prefixed, bytes.len() as u64);
                prefixed.extend_from_slice(&bytes);
                open.last_mut().expect("an opening bracket").push_str(&hex(&prefixed));
            }
            _ => open.last_mut().expect("the outermost").push(letter),
        }
    }
    assert_eq!(open.len(), 1, "a closing bracket is missing in {text}");
    unhex(&open[0])
}

/// The blocks of the protocol's text that are marked as hex, without their remarks.
fn examples() -> Vec<Vec<u8>> {
    let page = include_str!("../../PROTOCOL.md");
    let blocks = page.split("```hex\n").skip(1);
    let bytes = |block: &str| {
        let (block, _) = block.split_once("```").expect("a block ends");
        let lines = block.lines().map(|line| line.split('#').next().expect("a first part"));
        unhex(&lines.collect::<String>())
    };
    blocks.map(bytes).collect()
}

#[test]
fn frames_mean_what_their_vectors_say() {
    let made = frames::all();
    let file = on_disk("frames.json", &made);
    let (made, file) = (made["frames"].as_array().expect("a list"), file["frames"].as_array().expect("a list"));
    assert_eq!(made.len(), file.len(), "as many frames in the file as here");
    for (made, file) in made.iter().zip(file) {
        assert_eq!(made, file);
        let bytes = unhex(file["hex"].as_str().expect("text"));
        assert_eq!(describe::of_bytes(&bytes), file["meaning"], "{}", file["name"]);
    }
}

#[test]
fn conversations_go_as_their_vectors_say() {
    let made = conversations::all();
    let file = on_disk("conversations.json", &made);
    let (made, file) = (&made["conversations"], &file["conversations"]);
    for (made, file) in made.as_array().expect("a list").iter().zip(file.as_array().expect("a list")) {
        assert_eq!(made, file, "{}", file["name"]);
    }
    assert_eq!(made, file);
}

#[test]
fn bad_bytes_end_a_session_as_their_vectors_say() {
    let made = bad::all();
    let file = on_disk("bad.json", &made);
    assert_eq!(made, file);
    assert!(file["bad"].as_array().expect("a list").len() > 40);
}

#[test]
fn the_protocols_worked_example_is_the_first_conversation() {
    let conversation = &conversations::all()["conversations"][0];
    let steps = conversation["steps"].as_array().expect("a list");
    let messages: Vec<Vec<u8>> = steps.iter().map(|step| unhex(step["hex"].as_str().expect("text"))).collect();
    assert!(messages.len() >= 4);
    assert_eq!(examples(), messages, "the blocks marked hex in PROTOCOL.md");
}
