//! The scripts of `tests/page`: the inspector's page in a real browser. They need node, Chromium and `npm ci` in their
//! folder, which `.ci/run` sees to.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What is missing for a script that opens a browser, as a sentence.
#[must_use]
pub fn missing() -> Option<&'static str> {
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

/// Whether scripts without a browser can run.
#[must_use]
pub fn has_node() -> bool {
    Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Node with these words, in the scripts' folder. `program` is the relay and the agent by its first word.
#[must_use]
pub fn node(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.args(words).current_dir(folder()).env("RELAY_PROGRAM", program);
    if let Some(chromium) = chromium() {
        command.env("CHROMIUM", chromium);
    }
    command
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("page")
}

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    named.into_iter().chain(known).find(|path| path.is_file())
}
