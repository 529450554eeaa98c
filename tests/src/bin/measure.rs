//! `cargo measure page [EVENTS]`: what the inspector's page costs a browser, beside references of the same run, over a
//! store with so many events. `tests/page/measure.mjs` measures; here the store is filled and the programs are given.
//! What those who watch cost the relay is measured by `cargo bench-relay journal watched stalled stalled-watchers`.
//!
//! The store is made in `TMPDIR`. The same program is the relay and the agent when its first argument says so.

#![expect(clippy::print_stderr, reason = "errors go to standard error")]

use std::process::ExitCode;

use anyhow::{bail, ensure};
use relay_tests::{
    browser::{missing, node},
    program::as_role,
    stock::{Past, fill},
};

const HELP: &str = "usage: cargo measure page [EVENTS]";

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
    if words.first().map(String::as_str) != Some("page") {
        bail!(HELP);
    }
    let events = words.get(1).map_or(Ok(EVENTS), |text| text.parse())?.min(MOST_EVENTS);
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
