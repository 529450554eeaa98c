//! The relay and its agent beside nginx and other tunnels, measured here and now, in the same rounds.
//!
//! Each workload is given to every contestant in turn, round by round; what counts is the ratio within a round, since a
//! machine is not equally fast all the time. Contestants run as processes of their own on one processor, the load and
//! the handler on another. The relay runs as shipped: it verifies GitHub's signature, and its agent prints a line for
//! each webhook. `BENCHMARKS.md` says how to read what is printed.
//!
//! The same program is the relay and the agent (`server`, `client`), the handler where nginx is not there (`handle`),
//! and the measure of a core (`calibrate`), when its first argument says so.

mod contestants;
mod handler;
mod load;
mod machine;
mod memory;
mod network;
mod nginx;
mod overload;
mod peers;
mod report;
mod rounds;
mod stats;
mod train;
mod watchers;
mod workloads;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use relay_tests::program::{Program, as_role};
use serde_json::json;

use crate::{
    contestants::Arena,
    machine::Machine,
    memory::MEMORY_LOADS,
    report::{Row, print_summary},
    rounds::Stage,
    workloads::{NETWORK, WORKLOADS},
};

const HELP: &str = "usage: cargo bench-relay [WORKLOAD ...] [--quick] [--rounds N] [--seconds N] [--minutes N]
       [--binaries DIR] [--beside DIR] [--peers FILE] [--network] [--json FILE] [--list]
       [--repeats N] [--train]

--quick         the workloads that matter most, in 3 rounds and at most 6 minutes
--binaries DIR  measures relay-server and relay-client of this folder, not this build
--beside DIR    measures those of another folder in the same rounds
--peers FILE    measures other tunnels in the same rounds; tests/src/bin/bench-relay/peers.toml is an example
--network       between two hosts that are 50 ms apart and lose packets, too (needs root, ip and netem)
--seconds N     how long each contestant is given load in a round (1)
--train         measures nothing: gives programs that count for their compiler something to count
--repeats N     how often a run is tried again while the machine is busy (1)
--minutes N     no workload begins after so long (60)";

fn main() -> ExitCode {
    if let Some(ended) = as_role() {
        return ended;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some("calibrate") => machine::calibrate().map_err(Into::into),
        Some("handle") => block_on(handler::serve(words.get(1).map_or("", String::as_str))),
        _ => Options::read(&words).and_then(|options| block_on(run(&options))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

struct Options {
    workloads: Vec<String>,
    rounds: usize,
    seconds: u32,
    minutes: u64,
    repeats: u32,
    binaries: Option<PathBuf>,
    beside: Option<PathBuf>,
    peers: Option<PathBuf>,
    json: Option<PathBuf>,
    has_network: bool,
    /// This process runs on the host of the relay already.
    inside: Option<network::Inside>,
    is_list: bool,
    is_train: bool,
    is_quick: bool,
}

impl Options {
    fn read(words: &[String]) -> anyhow::Result<Self> {
        let is_quick = words.iter().any(|word| word == "--quick");
        let mut options = Self {
            workloads: Vec::new(),
            rounds: if is_quick { 3 } else { 5 },
            seconds: 1,
            minutes: if is_quick { 6 } else { 60 },
            repeats: 1,
            binaries: None,
            beside: None,
            peers: None,
            json: None,
            has_network: false,
            inside: None,
            is_list: false,
            is_train: false,
            is_quick,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} has no value\n{HELP}"));
            match word.as_str() {
                "--quick" => {}
                "--list" => options.is_list = true,
                "--network" => options.has_network = true,
                "--train" => options.is_train = true,
                "--inside" => options.inside = Some(network::Inside::read(value()?)?),
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--minutes" => options.minutes = value()?.parse()?,
                "--repeats" => options.repeats = value()?.parse()?,
                "--binaries" => options.binaries = Some(value()?.into()),
                "--beside" => options.beside = Some(value()?.into()),
                "--peers" => options.peers = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                name if all_names().any(|(known, _)| known == name) => options.workloads.push(name.to_owned()),
                _ => bail!("{word} is not known; --list has the workloads\n{HELP}"),
            }
        }
        ensure!((1..=100).contains(&options.rounds), "--rounds takes 1 to 100");
        ensure!((1..=60).contains(&options.seconds), "--seconds takes 1 to 60");
        ensure!(options.repeats <= 10, "--repeats takes 0 to 10");
        Ok(options)
    }

    /// Those that were named, else all that the other flags ask for.
    fn chosen(&self) -> Vec<&str> {
        if !self.workloads.is_empty() {
            return self.workloads.iter().map(String::as_str).collect();
        }
        let loads = WORKLOADS.iter().filter(|it| !self.is_quick || it.is_quick).map(|it| it.name);
        let memories = MEMORY_LOADS.iter().map(|it| it.name).filter(|name| !self.is_quick || *name == "memory-tls-64");
        let overload = (!self.is_quick).then_some(overload::NAME);
        loads.chain(memories).chain(overload).filter(|name| *name != NETWORK.name || self.has_network).collect()
    }
}

fn all_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let others = MEMORY_LOADS.iter().map(|it| (it.name, it.title)).chain([(overload::NAME, overload::TITLE)]);
    WORKLOADS.iter().map(|it| (it.name, it.title)).chain(others)
}

async fn run(options: &Options) -> anyhow::Result<()> {
    if options.is_list {
        all_names().for_each(|(name, title)| println!("{name:<18}{title}"));
        return Ok(());
    }
    let own = std::env::current_exe()?;
    let program = |folder: &Option<PathBuf>| folder.as_deref().map(Program::pair);
    for folder in [&options.binaries, &options.beside].into_iter().flatten() {
        ensure!(folder.join("relay-server").exists(), "{} has no relay-server", folder.display());
    }
    let ours = program(&options.binaries).unwrap_or_else(|| own.as_path().into());
    let mut arena = Arena::open(Machine::take(), ours, options.inside.as_ref()).await?;
    if options.is_train {
        return train::run(&arena, options.seconds).await;
    }
    arena.beside = program(&options.beside);
    arena.peers = options.peers.as_deref().map(peers::read).transpose()?.unwrap_or_default();
    let machine = arena.machine.describe();
    println!("{machine}");
    for (program, instead) in [("nginx", "our own handler; no hops"), ("wrk", "our own closed loop")] {
        if !machine::finds(program) {
            println!("skipped: {program} is not here (a package of Debian); {instead}");
        }
    }
    let end = Instant::now() + Duration::from_secs(options.minutes * 60);
    let (mut rows, mut far, mut stage) = (Vec::new(), Vec::new(), Stage::default());
    for name in options.chosen() {
        if Instant::now() > end {
            println!("\n{name}: skipped, the {} minutes are over", options.minutes);
            continue;
        }
        if name == NETWORK.name && options.inside.is_none() {
            match network::measure(&arena.machine, options).await {
                Ok(more) => far.extend(more),
                Err(error) => println!("\n{name}: skipped: {error:#}"),
            }
            continue;
        }
        let row = match WORKLOADS.iter().find(|it| it.name == name) {
            Some(workload) => stage.measure(&arena, workload, options, end).await,
            None if name == overload::NAME => overload::row(&arena, options.seconds).await,
            None => memory::row(&arena, name).await.and_then(|row| row.context("a workload")),
        };
        match row {
            Ok(row) => {
                row.print();
                rows.push(row);
            }
            Err(error) => println!("\n{name}: failed: {error:#}"),
        }
    }
    print_summary(&rows);
    if let Some(path) = &options.json {
        let all: Vec<_> = rows.iter().map(Row::to_json).chain(far).collect();
        let text = serde_json::to_string_pretty(&json!({ "machine": machine, "workloads": all }))?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
