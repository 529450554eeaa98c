//! What the machine does meanwhile: processors for the load and for what is measured, time and memory of processes, and
//! whether others took part of it.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::process::Command;

/// A round is busy beyond this: the host took a share of the time, others worked so much of a processor, or the core
/// was slower than at its best.
const MOST_STEAL: f64 = 0.10;
const MOST_FOREIGN_CORES: f64 = 0.35;
const MOST_SLOWNESS: f64 = 1.3;

/// Writes and reads of a pipe that say how fast a core is.
const STROKES: u32 = 10_000;

/// Where programs run: what stands before their command lines.
pub(crate) struct Machine {
    /// The load and the handler.
    pub(crate) load: Vec<String>,
    /// What is measured.
    pub(crate) measured: Vec<String>,
    /// A process that pins others itself.
    pub(crate) anywhere: Vec<String>,
    is_pinned: bool,
    /// The fastest calibration so far.
    best: std::cell::Cell<f64>,
}

impl Machine {
    /// Takes the first processor for this process, the load and the handler, and the second for what is measured.
    pub(crate) fn take() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let cores = processors(allowed.trim());
        // A process whose starter is gone would go on listening.
        let ends: &[&str] = if finds("setpriv") { &["setpriv", "--pdeathsig", "KILL"] } else { &[] };
        let on = |cores: Option<String>| {
            let pinned = cores.map(|cores| ["taskset".to_owned(), "-c".to_owned(), cores]);
            ends.iter().map(|word| (*word).to_owned()).chain(pinned.into_iter().flatten()).collect::<Vec<_>>()
        };
        let pair = cores.first().zip(cores.get(1)).filter(|_| finds("taskset"));
        if let Some((core, _)) = pair {
            let own = std::process::id().to_string();
            let _ = std::process::Command::new("taskset").args(["-cp", &core.to_string(), &own]).output();
        }
        // Timers of this thread and those that it starts are exact to a microsecond, not to fifty.
        let _ = fs::write("/proc/self/timerslack_ns", "1000");
        Self {
            load: on(pair.map(|(load, _)| load.to_string())),
            measured: on(pair.map(|(_, measured)| measured.to_string())),
            anywhere: on(pair.map(|_| allowed.trim().to_owned())),
            is_pinned: pair.is_some(),
            best: f64::INFINITY.into(),
        }
    }

    /// What it is, in a line.
    pub(crate) fn describe(&self) -> String {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: String, name: &str| {
            text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':')).map_or_else(
                || "unknown".to_owned(),
                |(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        };
        let pinned = if self.is_pinned { "load and handler on one, what is measured on another" } else { "not pinned" };
        format!(
            "{} processors ({}), {}, Linux {}; {pinned}",
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get).max(processors_online()),
            field(read("/proc/cpuinfo"), "model name"),
            field(read("/proc/meminfo"), "MemTotal"),
            read("/proc/sys/kernel/osrelease").trim(),
        )
    }

    /// Looks at the machine from now on.
    pub(crate) async fn watch(&self) -> Watch {
        let calibration = self.calibrate().await.unwrap_or(f64::NAN);
        self.best.set(self.best.get().min(calibration));
        let slowness = calibration / self.best.get();
        Watch { started: Instant::now(), before: Times::now(), own: worked_since_ever(std::process::id()), slowness }
    }

    /// Nanoseconds for a write and a read of a pipe, on the core of what is measured.
    async fn calibrate(&self) -> anyhow::Result<f64> {
        let own = std::env::current_exe()?;
        let output = command(&self.measured, &own).arg("calibrate").output().await?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

/// The role `calibrate`: see [`Machine::calibrate`].
pub(crate) fn calibrate() -> std::io::Result<()> {
    let (mut reader, mut writer) = std::io::pipe()?;
    let (started, mut bytes) = (Instant::now(), [0; 64]);
    for _ in 0..STROKES {
        writer.write_all(&bytes)?;
        reader.read_exact(&mut bytes)?;
    }
    println!("{}", started.elapsed().as_nanos() as f64 / f64::from(STROKES));
    Ok(())
}

/// What the machine was like when a round began.
pub(crate) struct Watch {
    started: Instant,
    before: Times,
    own: Duration,
    slowness: f64,
}

impl Watch {
    /// Why the time since then was busy, if it was.
    pub(crate) fn disturbance(&self) -> Option<String> {
        let (after, elapsed) = (Times::now(), self.started.elapsed().as_secs_f64());
        let own = worked_since_ever(std::process::id()).saturating_sub(self.own).as_secs_f64();
        let steal = (after.stolen - self.before.stolen) / (after.all - self.before.all).max(0.01);
        let foreign = (after.busy - self.before.busy - own) / elapsed;
        if steal > MOST_STEAL {
            return Some(format!("the host took {:.0} % of the time", steal * 100.0));
        }
        if foreign > MOST_FOREIGN_CORES {
            return Some(format!("others worked {foreign:.2} of a processor"));
        }
        (self.slowness > MOST_SLOWNESS).then(|| format!("the core was {:.1} times slower than before", self.slowness))
    }
}

/// Seconds of all processors since the start of the machine.
#[derive(Default)]
struct Times {
    busy: f64,
    stolen: f64,
    all: f64,
}

impl Times {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal
        let at = |index: usize| ticks.get(index).copied().unwrap_or_default() / TICKS_A_SECOND;
        let busy = at(0) + at(1) + at(2) + at(5) + at(6);
        Self { busy, stolen: at(7), all: busy + at(3) + at(4) + at(7) }
    }
}

/// `USER_HZ`, which is the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// Time on a processor of a process and of all below it that run.
///
/// # Errors
/// If the process has ended.
pub(crate) fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    }
    // The first is exact, the second knows threads that have ended.
    let own = Duration::from_nanos(nanos).max(ticks(process, 0..2)?);
    children(process).into_iter().map(cpu).filter_map(Result::ok).try_fold(own, |sum, it| Ok(sum + it))
}

/// The same, with all that have ended and were waited for.
fn worked_since_ever(process: u32) -> Duration {
    let own = ticks(process, 0..4).unwrap_or_default();
    own + children(process).into_iter().map(worked_since_ever).sum::<Duration>()
}

/// Some of utime, stime, cutime and cstime.
fn ticks(process: u32, which: std::ops::Range<usize>) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, after) = text.rsplit_once(") ").context("a command in brackets")?;
    let fields = after.split(' ').skip(11 + which.start).take(which.len());
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_A_SECOND))
}

fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Memory in RAM of a process and of all below it, in bytes; pages that several share count in parts (PSS).
pub(crate) fn memory(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    own.unwrap_or_default() * 1024 + children(process).into_iter().map(memory).sum::<u64>()
}

/// A command behind other words, without what the user of this machine has set up; it ends when it is dropped.
pub(crate) fn command(before: &[String], program: &Path) -> Command {
    let mut words = before.iter().map(String::as_str).map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

/// Whether a program is there.
pub(crate) fn finds(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    program.contains('/') && Path::new(program).exists()
        || std::env::split_paths(&folders).any(|folder| folder.join(program).exists())
}

fn processors_online() -> usize {
    processors(fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default().trim()).len()
}

/// `0-2,5` as numbers.
fn processors(list: &str) -> Vec<u32> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_is_read() {
        assert_eq!(processors("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(processors("3"), [3]);
        assert_eq!(processors(""), Vec::<u32>::new());
    }

    #[test]
    fn this_process_takes_time_and_memory() {
        let started = Instant::now();
        let before = cpu(std::process::id()).expect("is there");
        while started.elapsed() < Duration::from_millis(30) {}
        assert!(cpu(std::process::id()).expect("is there") > before);
        assert!(memory(std::process::id()) > 0);
    }
}
