//! A workload in rounds: who runs takes turns, and what was disturbed is tried again.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::{
    Options,
    contestants::{Arena, Contestant, Kind},
    load::{self, Load},
    report::{Column, Row, Run},
    workloads::{Figure, Workload},
};

/// What an open loop is given of the relay's own rate.
const OPEN_SHARE: f64 = 0.3;
/// It brings fewer answers, and their slowest thousandth is looked at.
const OPEN_SECONDS: u32 = 3;

/// Who runs, and who could not be started and why. Whom the next workload needs, too, goes on.
#[derive(Default)]
pub(crate) struct Stage {
    started: Vec<Contestant>,
    failed: Vec<(Kind, String)>,
}

impl Stage {
    pub(crate) async fn measure(
        &mut self,
        arena: &Arena,
        workload: &Workload,
        options: &Options,
        end: Instant,
    ) -> anyhow::Result<Row> {
        let mut row = Row { name: workload.name.to_owned(), title: workload.title.to_owned(), ..Row::default() };
        let contestants = self.enter(arena, workload, &mut row).await?;
        let mut rate = None;
        for contestant in &contestants {
            // Every buffer and connection was in use before it counts.
            let done = contestant.take(&arena.machine, workload.load, 1).await?;
            rate = rate.or(workload.is_open.then_some(done.completed as f64 / done.seconds * OPEN_SHARE));
        }
        row.notes.extend(rate.map(|rate| format!("{rate:.0} webhooks a second")));
        row.columns = contestants.iter().map(|it| Column { name: arena.name(&it.kind), runs: Vec::new() }).collect();
        let (mut all, mut disturbed) = (0, Vec::new());
        for round in 0..options.rounds {
            if round > 0 && Instant::now() > end {
                row.notes.push(format!("only {round} rounds: the time is over"));
                break;
            }
            for turn in 0..contestants.len() {
                let place = (turn + round) % contestants.len();
                let (run, why) = match quiet_run(arena, contestants[place], workload.load, rate, options).await {
                    Err(error) if place > 0 => (Run::NONE, Some(format!("{error:#}"))),
                    done => done?,
                };
                let column = &mut row.columns[place];
                column.runs.push(run);
                disturbed.extend(why.map(|why| format!("{} in round {}: {why}", column.name, round + 1)));
                all += 1;
            }
        }
        if let Some(last) = disturbed.last() {
            row.notes.push(format!("{} of {all} runs were disturbed; the last: {last}", disturbed.len()));
        }
        row.judge(workload.goals);
        Ok(row)
    }

    /// Those of a workload, in its order; without the relay there is none.
    async fn enter(&mut self, arena: &Arena, workload: &Workload, row: &mut Row) -> anyhow::Result<Vec<&Contestant>> {
        let kinds = workload.kinds(arena.peers.len(), arena.beside.is_some());
        self.started.retain(|it| kinds.contains(&it.kind));
        for (place, kind) in kinds.iter().enumerate() {
            if self.started.iter().any(|it| it.kind == *kind) || self.failed.iter().any(|(it, _)| it == kind) {
                continue;
            }
            match arena.start(kind).await {
                Ok(contestant) => self.started.push(contestant),
                Err(error) if place == 0 => return Err(error),
                Err(error) => self.failed.push((kind.clone(), format!("{error:#}"))),
            }
        }
        let failed = self.failed.iter().filter(|(kind, _)| kinds.contains(kind));
        row.notes.extend(failed.map(|(kind, why)| format!("skipped: {}: {why}", arena.name(kind))));
        Ok(kinds.iter().filter_map(|kind| self.started.iter().find(|it| it.kind == *kind)).collect())
    }
}

/// A run that nothing disturbed, or the last of several with what did.
async fn quiet_run(
    arena: &Arena,
    contestant: &Contestant,
    load: Load,
    rate: Option<f64>,
    options: &Options,
) -> anyhow::Result<(Run, Option<String>)> {
    let mut repeats = 0;
    loop {
        let (figures, why) = one_run(arena, contestant, load, rate, options.seconds).await?;
        if why.is_none() || repeats == options.repeats {
            return Ok((Run { figures, is_quiet: why.is_none() }, why));
        }
        repeats += 1;
    }
}

async fn one_run(
    arena: &Arena,
    contestant: &Contestant,
    load: Load,
    rate: Option<f64>,
    seconds: u32,
) -> anyhow::Result<([f64; Figure::ALL.len()], Option<String>)> {
    let watch = arena.machine.watch().await;
    let (before, lines) = (contestant.cpu()?, contestant.lines());
    let done = match rate {
        Some(rate) => load::open(&contestant.target, load, rate, seconds.max(OPEN_SECONDS)).await?,
        None => load::closed(&arena.machine.load, &contestant.target, load, seconds).await?,
    };
    let name = || arena.name(&contestant.kind);
    ensure!(
        done.completed > 0 && done.failed * 100 <= done.completed,
        "{}: {} answers, {} failures",
        name(),
        done.completed,
        done.failed
    );
    contestant.delivers(lines + done.completed).await.with_context(name)?;
    let (after, memory) = (contestant.cpu()?, contestant.memory());
    let why = watch.disturbance();
    let each =
        |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / done.completed as f64;
    let (front, back) = (each(before.front, after.front), each(before.back, after.back));
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    let figures = [
        front,
        back,
        front + back,
        done.completed as f64 / done.seconds,
        micros(done.p50),
        micros(done.p99),
        micros(done.p999),
        mib(memory.front),
        mib(memory.back),
    ];
    Ok((figures, why))
}
