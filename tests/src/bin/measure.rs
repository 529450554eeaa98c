//! `cargo measure page [EVENTS]`: what the inspector's page costs a browser, beside references of the same run, over a
//! store with so many events. `tests/page/measure.mjs` measures; here the store is filled and the programs are given.
//! `cargo measure watchers`: what the journal and those who watch cost the relay, beside itself without them; it is
//! `cargo bench-relay` that measures.
//!
//! The store is made in `TMPDIR`. The same program is the relay and the agent when its first argument says so.

#![expect(clippy::print_stderr, reason = "errors go to standard error")]

use std::process::{Command, ExitCode};

use anyhow::{bail, ensure};
use relay_tests::{
    browser::{missing, node},
    program::as_role,
    stock::{Past, fill},
};

const HELP: &str = "usage: cargo measure page [EVENTS]
       cargo measure watchers [--quick] [--rounds N] [--seconds N]";

/// What of `cargo bench-relay` is about those who watch.
const WATCHERS: [&str; 4] = ["journal", "watched", "stalled", "stalled-watchers"];

const EVENTS: u64 = 100_000;
const BODY_BYTES: usize = 1024;

/// More than this would fill a disk by mistake.
const MOST_EVENTS: u64 = 5_000_000;

fn main() -> ExitCode {
    if let Some(ended) = as_role() {
        return ended;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(&words))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(words: &[String]) -> anyhow::Result<()> {
    match words.split_first().map(|(what, more)| (what.as_str(), more)) {
        Some(("page", more)) => page(more).await,
        Some(("watchers", more)) => watchers(more),
        _ => bail!(HELP),
    }
}

fn watchers(more: &[String]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let measured = Command::new(cargo).arg("bench-relay").args(WATCHERS).args(more).status()?;
    ensure!(measured.success(), "cargo bench-relay failed");
    Ok(())
}

async fn page(words: &[String]) -> anyhow::Result<()> {
    let events = words.first().map_or(Ok(EVENTS), |text| text.parse())?.min(MOST_EVENTS);
    if let Some(what) = missing() {
        bail!("the page cannot be measured: {what}");
    }
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store.db");
    fill(&store, "archive", events, BODY_BYTES, Past::New).await?;
    let mut script = node(&std::env::current_exe()?, &["measure.mjs"]);
    ensure!(script.env("STORE", &store).status()?.success(), "measure.mjs failed");
    Ok(())
}
