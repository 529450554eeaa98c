//! Replays the fuzzer's corpora: what once was interesting stays harmless. `fuzz/run` looks for more.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::{fs, path::Path};

/// Of all corpora together, in bytes: they are a part of each clone.
const MAX_BYTES: u64 = 300_000;

/// Gives a target each of its inputs, a part of each, and nothing at all.
fn replay(name: &str, target: fn(&[u8])) {
    let mut count = 0;
    for input in inputs(name) {
        target(&input);
        target(&input[..input.len() / 2]);
        count += 1;
    }
    target(b"");
    assert!(count >= 10, "only {count} inputs of {name}");
}

fn inputs(name: &str) -> impl Iterator<Item = Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let entries = fs::read_dir(folder).expect("a corpus");
    entries.map(|entry| fs::read(entry.expect("an entry").path()).expect("reads"))
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), targets::$name);
        })*

        /// Every target, as it is called.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

targets!(config frames head headers rows search session);

#[test]
fn each_target_has_a_program_and_a_corpus_and_all_are_small() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let listed = |folder: &str| {
        let entries = fs::read_dir(fuzz.join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut names: Vec<_> = entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    };
    assert_eq!(listed("fuzz_targets"), NAMES);
    assert_eq!(listed("corpus"), NAMES);
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("a manifest");
    assert!(NAMES.iter().all(|name| manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\""))));
    let bytes: usize = NAMES.iter().flat_map(|name| inputs(name)).map(|input| input.len()).sum();
    assert!(bytes as u64 <= MAX_BYTES, "{bytes} bytes of corpora");
}
