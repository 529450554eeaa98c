//! `cargo kills [CYCLES [SEED]]`: kills a relay under load, again and again, and counts what it acknowledged and lost.
//! `cargo powercuts` does the same and takes away what was not synced.
//!
//! The same program is the relay and the agent when its first argument says so.

#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::process::ExitCode;

use relay_tests::{
    power_loss::{Power, kills},
    program::as_role,
};

fn main() -> anyhow::Result<ExitCode> {
    match as_role() {
        Some(ended) => Ok(ended),
        None => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(kill()),
    }
}

async fn kill() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    let cuts = arguments.next_if(|word| word == "--power").is_some();
    let cycles = arguments.next().map_or(Ok(if cuts { 60 } else { 200 }), |text| text.parse())?;
    let seed = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let power = if cuts { Power::new().await? } else { None };
    if cuts && power.is_none() {
        println!("skipped: there is no ../shared/tools, or no C compiler or no Python");
        return Ok(ExitCode::SUCCESS);
    }
    let tally = kills(&std::env::current_exe()?, cycles, seed, power.as_ref()).await?;
    let what = if cuts { "power cuts" } else { "kills" };
    println!(
        "{cycles} {what}, seed {seed}: {} acknowledged, {} delivered, {} of them more than once, {} waited at a cut, {} lost",
        tally.acknowledged,
        tally.delivered,
        tally.again,
        tally.waiting,
        tally.lost()
    );
    Ok(if tally.lost() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
