#![no_main]

#[path = "../targets/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each program has one target of all")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::rows(data));
