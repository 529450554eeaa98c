//! Work for programs that were built with `-Cprofile-generate`: they count what runs often, for the compiler to lay out
//! and inline by.
//!
//! Each of the loads that matter runs for a moment, with a relay and an agent of its own. What was counted is written at
//! a program's end, so all are asked to end, and waited for.

use crate::{
    contestants::{Arena, Kind},
    workloads::WORKLOADS,
};

/// Runs the loads, each for so many seconds.
pub(crate) async fn run(arena: &Arena, seconds: u32) -> anyhow::Result<()> {
    for workload in WORKLOADS.iter().filter(|workload| workload.is_quick && !workload.is_open) {
        let contestant = arena.start(&Kind::Relay(workload.setup)).await?;
        let done = contestant.take(&arena.machine, workload.load, seconds).await?;
        contestant.end().await?;
        println!("{}: {} webhooks", workload.name, done.completed);
    }
    Ok(())
}
