//! Relay and agent on two hosts that are far from each other: network namespaces with a long and bad cable.
//!
//! This program runs again on the relay's host, and starts from there what belongs on the agent's.

use anyhow::{Context, ensure};
use relay_tests::{
    hosts::{Host, Hosts},
    program::Program,
};
use serde_json::Value;

use crate::{Options, machine::Machine, workloads::NETWORK};

/// Each way: 50 ms there and back.
const DELAY_MS: u32 = 25;
const LOSS_PERCENT: u32 = 1;

/// Where this process runs, if it is on the relay's host.
#[derive(Clone)]
pub(crate) struct Inside {
    /// The address of relays and first hops, and that of second hops.
    pub(crate) front: String,
    pub(crate) back: String,
    /// What stands before the command line of agents, second hops and the handler.
    pub(crate) behind: Vec<String>,
}

impl Inside {
    /// From `FRONT BACK WORDS…` in one text.
    pub(crate) fn read(text: &str) -> anyhow::Result<Self> {
        let mut words = text.split(' ').map(str::to_owned);
        let (front, back) = words.next().zip(words.next()).context("--inside takes two addresses and words")?;
        Ok(Self { front, back, behind: words.collect() })
    }
}

/// Measures there, and returns the rows for the JSON; they are printed there.
///
/// # Errors
/// Why there can be no such hosts here.
pub(crate) async fn measure(machine: &Machine, options: &Options) -> anyhow::Result<Vec<Value>> {
    let hosts = Hosts::join()?;
    hosts.impair(DELAY_MS, LOSS_PERCENT)?;
    let (own, folder) = (std::env::current_exe()?, tempfile::tempdir()?);
    let json = folder.path().join("rows.json");
    let mut inside = vec![hosts.address(Host::Relay), hosts.address(Host::Agent)];
    inside.extend(hosts.words(Host::Agent));
    let mut command = Program::behind(hosts.on(Host::Relay, &own), &machine.anywhere).command();
    command.args([NETWORK.name, "--inside", &inside.join(" "), "--json"]).arg(&json);
    for (flag, value) in [("--rounds", options.rounds.to_string()), ("--seconds", options.seconds.to_string())] {
        command.args([flag, &value]);
    }
    for (flag, folder) in [("--binaries", &options.binaries), ("--beside", &options.beside)] {
        command.args(folder.iter().flat_map(|folder| [flag.as_ref(), folder.as_os_str()]));
    }
    ensure!(command.kill_on_drop(true).status().await?.success(), "it failed on the relay's host");
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    Ok(all["workloads"].as_array_mut().map(std::mem::take).unwrap_or_default())
}
