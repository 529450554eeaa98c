//! `cargo kills [CYCLES [SEED]]`: kills a relay under load, again and again, and counts what it acknowledged and lost.
//! `cargo powercuts [CYCLES [SEED [FAULT…]]]` does the same and takes away what was not synced, on a disk with these
//! faults, which `power_loss/shim.c` lists.
//!
//! The same program is the relay and the agent when its first argument says so.

#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{process::ExitCode, time::Duration};

use relay_tests::{
    power_loss::{Kills, Power, kills},
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
    let faults: Vec<String> = arguments.collect();
    let power = if cuts { Power::new().await? } else { None };
    if cuts && power.is_none() {
        println!("skipped: there is no C compiler");
        return Ok(ExitCode::SUCCESS);
    }
    let die_at = faults.iter().find_map(|word| word.strip_prefix("die_at="));
    if let Some(power) = &power {
        power.faults(
            &faults.iter().filter(|word| !word.starts_with("die_at=")).cloned().collect::<Vec<_>>().join(" "),
        )?;
    }
    let how = Kills { cycles, seed, power: power.as_ref(), patience: Duration::from_secs(60), die_at };
    let tally = kills(&std::env::current_exe()?, how).await?;
    let what = if cuts { "power cuts" } else { "kills" };
    println!(
        "{cycles} {what}, seed {seed}: {} acknowledged, {} delivered, {} of them more than once, {} waited at a cut, {} garbled, {} lost",
        tally.acknowledged,
        tally.delivered,
        tally.again,
        tally.waiting,
        tally.garbled,
        tally.lost()
    );
    Ok(if tally.lost() + tally.garbled == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
