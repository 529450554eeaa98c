//! Runs histories, and makes a failing one small.

use std::panic::{AssertUnwindSafe, catch_unwind};

use relay_proto::Mutant;

use crate::{
    plan::{Knobs, Plan, TROUBLES},
    world::{Seen, World},
};

/// A history that held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) steps: u64,
    pub(crate) hash: u64,
    pub(crate) seen: Seen,
}

/// A history that did not, as small as it was made.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) knobs: Knobs,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) why: String,
}

/// Runs one history; the error is what did not hold.
pub(crate) fn run(seed: u64, knobs: &Knobs, mutant: Option<Mutant>, print: bool) -> Result<Held, String> {
    run_plan(&Plan::draw(seed, knobs), mutant, print)
}

pub(crate) fn run_plan(plan: &Plan, mutant: Option<Mutant>, print: bool) -> Result<Held, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(plan, mutant, print);
        world.run();
        Held { steps: world.trace.steps, hash: world.trace.hash(), seen: world.seen }
    }));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
    })
}

/// Leaves out of a failing history whatever it fails without.
pub(crate) fn shrink(mut failure: Failure) -> Failure {
    loop {
        let before = failure.knobs.clone();
        for trouble in 0..TROUBLES.len() {
            attempt(&mut failure, |knobs| knobs.troubles &= !(1 << trouble));
        }
        for bit in 0..64 {
            attempt(&mut failure, |knobs| knobs.exchanges &= !(1 << bit));
            attempt(&mut failure, |knobs| knobs.happenings &= !(1 << bit));
        }
        if failure.knobs == before {
            return failure;
        }
    }
}

fn attempt(failure: &mut Failure, change: impl Fn(&mut Knobs)) {
    let mut knobs = failure.knobs.clone();
    change(&mut knobs);
    if knobs == failure.knobs {
        return;
    }
    if let Err(why) = run(failure.seed, &knobs, failure.mutant, false) {
        (failure.knobs, failure.why) = (knobs, why);
    }
}

impl Failure {
    /// What failed, and how to see it again.
    pub(crate) fn tell(&self) -> String {
        let Self { seed, knobs, mutant, why } = self;
        let mut command = format!("cargo simulate --seed {seed}");
        let plan = Plan::draw(*seed, &Knobs::ALL);
        let kept = |bits: u64, many: usize| -> Vec<String> {
            (0..many).filter(|bit| bits & (1 << bit) != 0).map(|bit| bit.to_string()).collect()
        };
        if knobs.exchanges != u64::MAX {
            command += &format!(" --exchanges={}", kept(knobs.exchanges, plan.scripts.len()).join(","));
        }
        if knobs.happenings != u64::MAX {
            command += &format!(" --happenings={}", kept(knobs.happenings, 12).join(","));
        }
        if knobs.troubles != u32::MAX {
            let without = TROUBLES.iter().enumerate().filter(|(place, _)| knobs.troubles & (1 << place) == 0);
            let without: Vec<_> = without.map(|(_, name)| *name).collect();
            command += &format!(" --without {}", without.join(","));
        }
        if let Some(mutant) = mutant {
            command += &format!(" --mutant {mutant:?}");
        }
        format!("seed {seed} does not hold: {why}\n  see it: {command}")
    }
}
