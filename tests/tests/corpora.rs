//! Replays the fuzzer's corpus: what once was interesting stays harmless.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::{fs, path::Path};

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("a corpus") {
        target(&fs::read(entry.expect("an entry").path()).expect("reads"));
        count += 1;
    }
    assert!(count >= 10, "only {count} inputs");
}

#[test]
fn headers() {
    replay("headers", targets::headers);
}

#[test]
fn rows() {
    replay("rows", targets::rows);
}
