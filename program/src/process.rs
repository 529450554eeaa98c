//! What the system and a process say to each other: the signals it gets, how many files it may have open, what others may
//! read of its memory, and what its children get from it.

use std::{
    ffi::{OsStr, OsString},
    io,
    process::Command,
};

/// Set to 1, it lets this process be looked into: by debuggers, and in core files.
const DUMPABLE: &str = "RELAY_DUMPABLE";

/// What all variables of both programs begin with.
const OWN: &str = "RELAY_";

/// Keeps this process's memory, in which secrets are, from other processes of its user and from core files, where the
/// system can and `RELAY_DUMPABLE` does not say otherwise.
pub fn hide_memory() {
    if std::env::var_os(DUMPABLE).is_some_and(|value| value == "1") {
        return;
    }
    // Neither is ever refused: to lower a limit, and to be looked into less.
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// A program of the user's, such as an editor: with the user's variables, but those of this program, since one may be a
/// token.
pub fn users_program(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in own(std::env::vars_os().map(|(name, _)| name)) {
        command.env_remove(name);
    }
    command
}

fn own(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    names.filter(|name| name.as_encoded_bytes().starts_with(OWN.as_bytes()))
}

/// Raises the limit on open files as far as it may be, since each connection is one: the soft limit that a shell or a
/// service manager gives is for programs that use `select`. The limit then, if there is one.
#[cfg(unix)]
pub fn raise_limit_on_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit on open files cannot be raised");
            current
        }
    }
}

/// Windows has no such limit on sockets.
#[cfg(not(unix))]
pub fn raise_limit_on_files() -> Option<u64> {
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Ctrl-C or SIGTERM: to end.
    Stop,
    /// SIGHUP: to read the settings again. No signal asks for it on Windows.
    Reload,
}

#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on none of them ends the process by itself.
    #[cfg(unix)]
    pub fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    #[cfg(unix)]
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// From now on Ctrl-C does not end the process by itself.
    #[cfg(not(unix))]
    pub fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// What the next one asks for. Files that change are the only way to a reload here.
    #[cfg(not(unix))]
    pub async fn next(&mut self) -> Asked {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without signals the process can only be ended from outside.
            std::future::pending::<()>().await;
        }
        Asked::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn nobody_else_reads_the_memory() {
        use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
        hide_memory();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }

    #[test]
    fn programs_of_the_user_get_none_of_ours() {
        let names = ["PATH", "RELAY_TOKEN", "HOME", "RELAY_ADMIN_TOKEN_FILE", "RELAYS"].map(OsString::from);
        assert_eq!(own(names.into_iter()).collect::<Vec<_>>(), ["RELAY_TOKEN", "RELAY_ADMIN_TOKEN_FILE"]);
    }
}
