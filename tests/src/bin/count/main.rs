//! `cargo count`: the instructions that hot paths take, as callgrind counts them, beside the table of accepted counts.
//! `cargo count --accept` writes the table anew.
//!
//! A path runs in a process of its own, and callgrind counts only inside of `counted_by_callgrind`, after some calls have
//! warmed the path up. Other threads and the kernel are not counted, nor are the rounds of SHA-256: they would hide the
//! rest, and processors do them in ways of their own. Nothing in a path reads a clock or draws a random number, so that
//! counts repeat, whatever else the machine does. They belong to x86_64 and to one compiler: elsewhere they are printed
//! and compared with nothing.
//!
//! A copy of many bytes takes few instructions, so that this finds work, and not each copy.

#![expect(clippy::print_stdout, reason = "results go to standard output")]

mod paths;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail, ensure};
use paths::{CALLS, PATHS};
use relay_tests as _; // Its allocator is that of both programs.

/// More than this over the accepted count fails; as much under it is worth accepting. In per cent.
const TOLERANCE: u64 = 10;

/// Without it, which of its copies of `memcpy` the C library takes depends on the processor.
const ONE_MEMCPY: &str = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

const HEAD: &str = "# Instructions for one call of each hot path, as `cargo count` counts them on x86_64 with the compiler below.\n\
    # `cargo count --accept` writes this file anew.\n";

const ACCEPT: &str = "`cargo count --accept`";

const HELP: &str = "usage: cargo count [--accept]";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--run", path] => paths::run(path).map(|()| ExitCode::SUCCESS),
        [] => compare(),
        ["--accept"] => {
            std::fs::write(table(), write(&count()?)?)?;
            println!("accepted: {}", table().display());
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!(HELP),
    }
}

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/count/accepted.txt")
}

/// Instructions for one call, by the path's name.
type Counts = BTreeMap<String, u64>;

fn count() -> anyhow::Result<Counts> {
    let folder = tempfile::tempdir()?;
    let mut counts = Counts::new();
    for name in PATHS {
        let profile = folder.path().join(name);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_by_callgrind*"]);
        valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
        valgrind.arg(std::env::current_exe()?).args(["--run", name]).env("GLIBC_TUNABLES", ONE_MEMCPY);
        let output = valgrind.output().context("valgrind cannot be run; install it (Debian's package valgrind)")?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let total = instructions(&std::fs::read_to_string(profile)?).with_context(|| (*name).to_owned())?;
        counts.insert((*name).to_owned(), total / CALLS);
    }
    Ok(counts)
}

/// What a profile counted, without the calls of SHA-256's rounds.
fn instructions(profile: &str) -> anyhow::Result<u64> {
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).context("no totals in the profile")?;
    let total: u64 = total.trim().parse()?;
    ensure!(total > 0, "callgrind has not found `counted_by_callgrind`");
    // A function is `(number) name` the first time, and `(number)` from then on.
    let hash = profile.lines().find_map(|line| line.strip_suffix(" sha2::sha256::compress256"));
    let Some(number) = hash.and_then(|line| line.split_once('=')).map(|(_, number)| number) else { return Ok(total) };
    let (mut lines, mut hashing) = (profile.lines(), 0);
    while let Some(line) = lines.next() {
        if line.strip_prefix("cfn=").is_some_and(|callee| callee.split(' ').next() == Some(number)) {
            // Next come `calls=COUNT LINE`, and `LINE INSTRUCTIONS` of all these calls.
            let cost = lines.nth(1).and_then(|line| line.split(' ').nth(1)).context("a call has no cost")?;
            hashing += cost.parse::<u64>()?;
        }
    }
    Ok(total - hashing)
}

fn write(counts: &Counts) -> anyhow::Result<String> {
    let mut text = format!("{HEAD}compiler {}\n", compiler()?);
    counts.iter().try_for_each(|(name, count)| writeln!(text, "{name} {count}"))?;
    Ok(text)
}

fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc cannot be run")?;
    Ok(String::from_utf8(output.stdout)?.trim().replace(' ', "-"))
}

fn compare() -> anyhow::Result<ExitCode> {
    let counts = count()?;
    let text = std::fs::read_to_string(table())?;
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let accepted: BTreeMap<&str, &str> = lines.collect();
    let mut worse = false;
    for (name, count) in &counts {
        let before = accepted.get(name.as_str());
        let before: u64 = before.with_context(|| format!("{name} has no accepted count: {ACCEPT}"))?.parse()?;
        let (is_more, is_less) = (count * 100 > before * (100 + TOLERANCE), count * 100 < before * (100 - TOLERANCE));
        let hint = if is_more { "too many" } else { "" };
        let hint = if is_less { "fewer: accept them, so that they stay so" } else { hint };
        worse |= is_more;
        let ratio = *count as f64 / before as f64;
        println!("{name:18} {count:6} instructions, accepted {before:6}: {ratio:.3} {hint}");
    }
    let (then, now) = (accepted.get("compiler").copied().unwrap_or_default(), compiler()?);
    if !cfg!(target_arch = "x86_64") {
        println!("compared with nothing: what was accepted was counted on x86_64");
        return Ok(ExitCode::SUCCESS);
    }
    if then != now {
        println!("another compiler than that of the accepted counts, {then}: {ACCEPT}");
    }
    if worse {
        println!("a path takes over {TOLERANCE} % more instructions; mend it, or say in the commit why and {ACCEPT}");
    }
    Ok(if worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
