//! `cargo kills [CYCLES [SEED]]`: kills a relay under load, again and again, and counts what it acknowledged and lost.
//! `cargo powercuts [CYCLES [SEED [FAULT…]]]` does the same and takes away what was not synced, on a disk with these
//! faults, which `power_loss/shim.c` lists; those that begin with `load:` from when the relay is under load. `torn`: each write
//! that was not synced is torn.
//!
//! The same program is the relay and the agent when its first argument says so.

#![expect(clippy::print_stdout, reason = "results go to standard output")]

use std::{process::ExitCode, time::Duration};

use relay_tests::{
    power_loss::{Cut, Kills, Power, kills},
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
    let ways = if faults.iter().any(|word| word == "torn") { &[Cut::Torn] } else { Cut::ALL };
    let (under_load, always): (Vec<_>, Vec<_>) = faults.iter().partition(|word| word.starts_with("load:"));
    let under_load = under_load.iter().map(|word| word.replacen("load:", " ", 1)).collect::<String>();
    if let Some(power) = &power {
        power.faults(&always.iter().map(|word| format!("{word} ")).collect::<String>())?;
    }
    let how = Kills {
        cycles,
        seed,
        power: power.as_ref(),
        cuts: ways,
        patience: Duration::from_secs(60),
        under_load: &under_load,
    };
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
