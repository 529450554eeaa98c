//! The inspector's page in a real browser, against a real relay, agent and handler.
//!
//! The scripts of `tests/page` do the work; here they are started, with the programs of this build, and judged by their
//! exit code. Where node, Chromium or `npm ci` in `tests/page` is missing each test says so and is skipped. Walks and
//! hostile content take minutes: they run where `RELAY_WALKS` is set, and each state is looked at in both themes and three
//! widths there. Pictures of what was seen stand in `target/page`.

use std::{path::Path, sync::Mutex};

use relay_tests::browser::{has_node, missing, node};

/// One browser at a time: the scripts look at how fast things come.
static ONE: Mutex<()> = Mutex::new(());

/// Runs node with these words and shows what it printed.
fn run(words: &[&str]) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let output = node(Path::new(env!("CARGO_BIN_EXE_demo")), words)
        .env("PICTURES", Path::new(env!("CARGO_TARGET_TMPDIR")).join("../page"))
        .env("BACK", "20000")
        .envs(is_long().then_some(("ALL", "1")))
        .output()
        .expect("node runs");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?} failed");
}

fn is_long() -> bool {
    std::env::var_os("RELAY_WALKS").is_some()
}

/// What takes minutes.
fn at_length(script: &str) {
    if is_long() {
        in_browser(script);
    } else {
        println!("skipped {script}: it takes minutes (RELAY_WALKS=1)");
    }
}

fn in_browser(script: &str) {
    match missing() {
        Some(what) => println!("skipped {script}: {what}"),
        None => run(&[script]),
    }
}

#[test]
fn walks_with_a_mouse_and_without() {
    at_length("walk.mjs");
}

#[test]
fn hostile_content_stays_text() {
    at_length("hostile.mjs");
}

#[test]
fn everybody_can_read_it() {
    in_browser("axe.mjs");
}

#[test]
fn pure_modules() {
    if has_node() {
        run(&["--test"]);
    } else {
        println!("skipped the pure modules: node is not there");
    }
}
