//! Thousands of histories of two sessions, a link and their users, each from one seed, against a model.
//!
//! `cargo test` runs 2,000 of them, a sweep of cuts over every byte, and each mutant until it is found.
//! `cargo simulate --seeds 100000` runs more; a failing seed is made small and printed with the command
//! line that shows it again, step by step. Nothing here reads a clock but to say how fast it was.

mod agenda;
mod check;
mod events;
mod exchange;
mod hostile;
mod link;
mod options;
mod plan;
mod rng;
mod search;
mod sweep;
mod trace;
mod tunnel;
mod webhooks;
mod world;

use std::{cell::RefCell, process::ExitCode};

use relay_proto::Mutant;

use crate::{
    options::Options,
    plan::Knobs,
    search::{Failure, run, shrink},
    world::Seen,
};

/// Seeds that every test run tries, and among which each mutant must be found.
const SEEDS: u64 = 2000;

thread_local! {
    /// Where the last panic was, for whoever replays a seed.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    // Panics are the histories' way to fail; they are told with their seed.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        PLACE.set(place);
    }));
    if let Some(seed) = options.seed {
        return replay(seed, &options);
    }
    type Check = fn(&Options) -> Result<String, String>;
    let checks: [(&str, Check); 4] =
        [("histories", histories), ("repeats", repeats), ("cuts", cuts), ("mutants", mutants)];
    if options.list {
        checks.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for (name, check) in checks {
        if !options.wants(name) {
            continue;
        }
        match check(&options) {
            Ok(said) => println!("test {name} ... ok: {said}"),
            Err(why) => {
                println!("test {name} ... FAILED: {why}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

#[expect(clippy::disallowed_methods, reason = "only to say how fast it was")]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

fn histories(options: &Options) -> Result<String, String> {
    let (started, many) = (stopwatch(), options.seeds.unwrap_or(SEEDS));
    let (mut steps, mut sum) = (0, Seen::default());
    for seed in options.first..options.first + many {
        match run(seed, &Knobs::ALL, None, false) {
            Ok(held) => {
                steps += held.steps;
                sum.add(&held.seen);
            }
            Err(why) => return Err(shrink(Failure { seed, knobs: Knobs::ALL, mutant: None, why }).tell()),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = many as f64 / seconds;
    if many >= SEEDS {
        sum.must_have_everything()?;
    }
    Ok(format!(
        "{many} histories in {seconds:.2} s, {rate:.0} a second; on average {} steps, {} exchanges\n  {sum:?}",
        steps / many,
        sum.exchanges / many
    ))
}

fn repeats(_: &Options) -> Result<String, String> {
    for seed in 0..100 {
        let hash = || run(seed, &Knobs::ALL, None, false).map(|held| held.hash);
        let (first, second) = (hash()?, hash()?);
        if first != second {
            return Err(format!("seed {seed} gave the traces {first:x} and {second:x}"));
        }
    }
    Ok("100 seeds gave the same trace twice".to_owned())
}

fn cuts(_: &Options) -> Result<String, String> {
    sweep::every_byte().map(|many| format!("the link was cut after each of {many} bytes"))
}

fn mutants(_: &Options) -> Result<String, String> {
    let mut said = Vec::new();
    for mutant in Mutant::ALL {
        let found = (0..SEEDS).find_map(|seed| Some((seed, run(seed, &Knobs::ALL, Some(mutant), false).err()?)));
        let Some((seed, why)) = found else { return Err(format!("{mutant:?} was not found in {SEEDS} seeds")) };
        let why = why.split('\n').collect::<Vec<_>>().join(",");
        said.push(format!("  {mutant:?} by seed {seed}: {}", why.chars().take(100).collect::<String>()));
    }
    Ok(format!("each of {} was found\n{}", Mutant::ALL.len(), said.join("\n")))
}

fn replay(seed: u64, options: &Options) -> ExitCode {
    match run(seed, &options.knobs, options.mutant, true) {
        Ok(held) => {
            println!("seed {seed} holds: {} steps, trace {:016x}\n{:?}", held.steps, held.hash, held.seen);
            ExitCode::SUCCESS
        }
        Err(why) => {
            let place = PLACE.take();
            println!("\n{place}: {why}");
            let failure = Failure { seed, knobs: options.knobs.clone(), mutant: options.mutant, why };
            println!("\n{}", shrink(failure).tell());
            ExitCode::FAILURE
        }
    }
}
