//! What is started: a program, and what stands before it on the command line (`ip netns exec NAME`). A program of the
//! tests is the relay and the agent as well; a folder may hold both as users have them.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
};

use tokio::process::Command;

/// That of both programs: what is measured here holds there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs this process as the relay or the agent, if its first argument is `server` or `client`.
#[must_use]
pub fn as_role() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let role = arguments.next()?;
    let all = std::iter::once(program).chain(arguments);
    match role.to_str()? {
        "server" => Some(relay_server::cli::main_from(all)),
        "client" => Some(relay_client::cli::main_from(all)),
        _ => None,
    }
}

/// A program and where it runs.
#[derive(Clone, Debug)]
pub struct Program {
    before: Vec<OsString>,
    path: PathBuf,
    /// The path is a folder with `relay-server` and `relay-client`.
    is_pair: bool,
}

impl From<&Path> for Program {
    fn from(path: &Path) -> Self {
        Self { before: Vec::new(), path: path.to_owned(), is_pair: false }
    }
}

impl Program {
    /// The same program behind other words, such as `ip netns exec NAME`, which run it in their own process.
    #[must_use]
    pub fn behind(program: impl Into<Self>, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let program = program.into();
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        Self { before: words.chain(program.before).collect(), ..program }
    }

    /// The relay and the agent of a folder.
    #[must_use]
    pub fn pair(folder: &Path) -> Self {
        Self { is_pair: true, ..Self::from(folder) }
    }

    /// A command that runs the relay (`server`) or the agent (`client`).
    #[must_use]
    pub fn role(&self, role: &str) -> Command {
        if self.is_pair {
            return Self { path: self.path.join(format!("relay-{role}")), ..Self::clone(self) }.command();
        }
        let mut command = self.command();
        command.arg(role);
        command
    }

    /// A command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut words = self.before.iter().map(OsString::as_os_str).chain([self.path.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        // Tests count the files of these processes, which a process that cannot be looked into does not show.
        command.args(words).env("RELAY_DUMPABLE", "1");
        command
    }
}
