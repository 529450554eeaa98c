//! The hook for dns-01: a program of the operator's that makes a TXT record, and takes it away again.
//!
//! It is called as `COMMAND… present NAME VALUE` and `COMMAND… cleanup NAME VALUE`, and has ended well once the record
//! can be seen. Invariants: it gets nothing of the relay's environment but `PATH`, `HOME` and `LANG`, no input, and a
//! directory of nobody's; a call ends after [`PATIENCE`], and then whatever is left of the hook's own process group with
//! it; what it prints is read to a bound, and is for the log alone, and only where it failed: whoever wrote the hook knows
//! what may stand there.
//!
//! A child of the hook's that goes on behind it is waited for while it holds an output of the hook open. One that has
//! closed both, or left the group, is the operator's: nothing here ends it.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};

/// How long a call may take. Changes of a zone reach all its servers within a minute or two with most who serve zones.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How much of what it prints is kept, in bytes.
const MAX_PRINTED_BYTES: usize = 1024;

/// What a program gets where the relay has no `PATH`.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the relay's environment it gets.
const PASSED_ON: [&str; 2] = ["HOME", "LANG"];

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub(super) struct HookFault {
    words: String,
    /// The beginning of what it printed.
    pub printed: String,
}

impl From<String> for HookFault {
    fn from(words: String) -> Self {
        Self { words, printed: String::new() }
    }
}

/// Calls the hook.
pub(super) async fn call(command: &[String], action: &str, name: &str, value: &str) -> Result<(), HookFault> {
    call_within(PATIENCE, command, action, name, value).await
}

async fn call_within(
    patience: Duration,
    command: &[String],
    action: &str,
    name: &str,
    value: &str,
) -> Result<(), HookFault> {
    let Some((program, arguments)) = command.split_first() else { return Err("there is no hook".to_owned().into()) };
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    let passed_on = PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let started = Command::new(program)
        .args(arguments)
        .args([action, name, value])
        .env_clear()
        .envs(passed_on)
        .env("PATH", path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = started.map_err(|error| format!("the hook {program} cannot be started: {error}"))?;
    let mut group = Group::of(child);
    let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
    let mut printed = Vec::new();
    let ended = timeout(patience, async {
        // Whoever holds the outputs open counts: a child of the hook's that goes on in the background is not done.
        let (mut said, first) = tokio::join!(beginning(err), beginning(out));
        said.extend(first);
        printed = said;
        group.child.wait().await
    });
    let status = match ended.await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(format!("the hook {program} {action} has no end: {error}").into()),
        Err(_) => return Err(format!("the hook {program} {action} took longer than {} s", patience.as_secs()).into()),
    };
    if status.success() {
        return Ok(());
    }
    printed.truncate(MAX_PRINTED_BYTES);
    let printed = String::from_utf8_lossy(&printed).trim().to_owned();
    let words = format!("the hook {program} {action} ended with {status}; what it printed is in the log");
    Err(HookFault { words, printed })
}

/// A program, and what it started that is still in its process group. They end with this value, unless the program has
/// ended by itself.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { child, id }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its number may be another's once it was waited for.
        if let Some(id) = self.id.filter(|_| self.child.id().is_some()) {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Reads all of an output, and keeps its beginning.
async fn beginning(output: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut output) = output else { return kept };
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = output.read(&mut piece).await {
        let room = MAX_PRINTED_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..read.min(room)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn script(patience: Duration, text: &str) -> Result<(), HookFault> {
        let command = ["/bin/sh", "-c", text, "hook"].map(str::to_owned);
        call_within(patience, &command, "present", "_acme-challenge.example.com", "a value").await
    }

    #[tokio::test]
    async fn it_gets_its_words_and_a_clean_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("said").display().to_string();
        script(PATIENCE, &format!("{{ echo \"$*\"; env; pwd; cat; }} > {file}")).await.expect("ends well");
        let said = std::fs::read_to_string(&file).expect("written");
        assert!(said.starts_with("present _acme-challenge.example.com a value\n"), "{said}");
        // `cargo test` sets dozens of variables; a shell adds some of its own.
        let known = ["PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"];
        let names = said.lines().skip(1).filter_map(|line| Some(line.split_once('=')?.0));
        let others: Vec<_> = names.filter(|name| !known.contains(name)).collect();
        assert!(others.is_empty(), "{others:?}");
        assert!(std::env::vars_os().any(|(name, _)| name == "CARGO_MANIFEST_DIR"), "there was something to hide");
    }

    #[tokio::test]
    async fn its_failure_is_told_with_what_it_said_and_bounded() {
        let failed = script(PATIENCE, "echo no such zone >&2; exit 3").await.expect_err("fails");
        let words = failed.to_string();
        assert!(words.contains("present") && words.contains("exit status: 3"), "{words}");
        assert!(!words.contains("no such zone"), "{words}");
        assert_eq!(failed.printed, "no such zone");
        let long = script(PATIENCE, "yes x | head -c 300000; exit 1").await.expect_err("fails");
        assert!(long.printed.len() <= MAX_PRINTED_BYTES, "{}", long.printed.len());
        let none = call(&["/no/such/hook".to_owned()], "cleanup", "n", "v").await.expect_err("fails").to_string();
        assert!(none.contains("/no/such/hook cannot be started"), "{none}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("child").display().to_string();
        let hangs = format!("sleep 1000 & echo $! > {file}.new; mv {file}.new {file}; wait");
        let said = script(Duration::from_secs(2), &hangs).await.expect_err("it hangs").to_string();
        assert!(said.contains("took longer than 2 s"), "{said}");
        let child = std::fs::read_to_string(&file).expect("it was started");
        // Killed, and perhaps not yet taken away by its parent.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        let lives = || !state().is_empty() && !state().contains(") Z ");
        let began = std::time::Instant::now();
        while lives() && began.elapsed() < Duration::from_secs(10) {
            tokio::task::yield_now().await;
        }
        assert!(!lives(), "a child is left");
    }
}
