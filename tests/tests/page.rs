//! The inspector's page in a real browser, against a real relay, agent and handler.
//!
//! The scripts of `tests/page` do the work; here they are started, with the programs of this build, and judged by their
//! exit code. They need node, Chromium and `npm ci` in `tests/page`, which `.ci/run` sees to; where one is missing each
//! test says so and is skipped. The walks and the hostile content take minutes: they run where `RELAY_WALKS` is set.
//! Pictures of what was seen stand in `target/page`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// One browser at a time: the scripts look at how fast things come.
static ONE: Mutex<()> = Mutex::new(());

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("page")
}

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    named.into_iter().chain(known).find(|path| path.is_file())
}

fn has_node() -> bool {
    Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What is missing, as a sentence.
fn missing() -> Option<&'static str> {
    if !has_node() {
        Some("node is not there")
    } else if !folder().join("node_modules").is_dir() {
        Some("run `npm ci` in tests/page first")
    } else if chromium().is_none() {
        Some("Chromium is not there; CHROMIUM names it where it stands elsewhere")
    } else {
        None
    }
}

/// Runs node with these words and shows what it printed.
fn node(words: &[&str]) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut command = Command::new("node");
    command.args(words).current_dir(folder()).env("RELAY_PROGRAM", env!("CARGO_BIN_EXE_demo"));
    command.env("PICTURES", Path::new(env!("CARGO_TARGET_TMPDIR")).join("../page"));
    if let Some(chromium) = chromium() {
        command.env("CHROMIUM", chromium);
    }
    let output = command.output().expect("node runs");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?} failed");
}

/// Minutes of a whole browser: where they are asked for.
fn walked(script: &str) {
    if std::env::var_os("RELAY_WALKS").is_some() {
        in_browser(script);
    } else {
        println!("skipped {script}: set RELAY_WALKS=1 to have it run, for some minutes");
    }
}

fn in_browser(script: &str) {
    match missing() {
        Some(what) => println!("skipped {script}: {what}"),
        None => node(&[script]),
    }
}

#[test]
fn walk() {
    walked("walk.mjs");
}

#[test]
fn walk_without_a_mouse() {
    walked("keyboard.mjs");
}

#[test]
fn hostile_content_stays_text() {
    walked("hostile.mjs");
}

#[test]
fn everybody_can_read_it() {
    in_browser("axe.mjs");
}

#[test]
fn pure_modules() {
    if has_node() {
        node(&["--test"]);
    } else {
        println!("skipped the pure modules: node is not there");
    }
}
