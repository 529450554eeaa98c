//! `server.sandbox`: this process keeps itself to what its config names, by Landlock.
//!
//! Which places those are, `config` says; seccomp and all that needs more rights than a user's is the service manager's.
//! Invariants: the process is confined while it has one thread, since the kernel confines whoever asks and what that
//! starts; what the kernel cannot confine is said, and all that it can is confined.

use std::sync::Arc;

#[cfg(target_os = "linux")]
pub(crate) use self::landlocked::{enter, lacking};
#[cfg(not(target_os = "linux"))]
pub(crate) use self::open::{enter, lacking};
use crate::config::Confinement;

/// A process that is confined, as far as its kernel can.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Nothing where the kernel confines nothing.
    pub confinement: Option<Arc<Confinement>>,
    /// What the kernel leaves open.
    lacking: Vec<&'static str>,
}

impl Sandbox {
    /// Says in one line what holds from now on.
    pub(crate) fn log(&self) {
        let places = self.confinement.as_ref().map_or(0, |confinement| confinement.roots.len());
        if self.lacking.is_empty() {
            tracing::info!(places, "the sandbox confines this process to what its config names");
        } else {
            let lacking = self.lacking.join(", ");
            tracing::warn!(places, lacking, "the sandbox is open where this kernel confines nothing");
        }
    }
}

#[cfg(target_os = "linux")]
mod landlocked {
    use std::{fs, path::Path, sync::Arc};

    use anyhow::{Context as _, ensure};
    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd,
        Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
    };

    use super::Sandbox;
    use crate::config::{Confinement, PathRights, Places};

    /// The newest kernel interface of which all rights were tried with a relay.
    const KNOWN: ABI = ABI::V6;

    /// What a kernel may be too old for, with the Linux that brought it (landlock(7)).
    pub(crate) fn lacking() -> Vec<&'static str> {
        let asked = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if asked().handle_access(AccessFs::Execute).is_err() {
            return vec!["anything (Linux 5.13, with landlock among its security modules)"];
        }
        let parts = [
            ("truncating (Linux 6.2)", asked().handle_access(AccessFs::Truncate).is_ok()),
            ("TCP ports (Linux 6.7)", asked().handle_access(AccessNet::BindTcp).is_ok()),
            ("commands to devices (Linux 6.10)", asked().handle_access(AccessFs::IoctlDev).is_ok()),
            ("signals and abstract sockets (Linux 6.12)", asked().scope(Scope::Signal).is_ok()),
        ];
        parts.into_iter().filter(|(_, is_there)| !is_there).map(|(what, _)| what).collect()
    }

    /// From now on this process and its children reach these places alone.
    ///
    /// # Errors
    /// The process has threads, or the kernel refuses. Nothing is confined then.
    pub(crate) fn enter(places: &Places) -> anyhow::Result<Sandbox> {
        if let Ok(threads) = fs::read_dir("/proc/self/task") {
            ensure!(threads.count() == 1, "server.sandbox: this process has threads already, which would stay outside");
        }
        let confinement = Confinement::new(places.roots(), places.connected.clone());
        let enforced = confine(places, &confinement).context("server.sandbox: the kernel takes no such rules")?;
        Ok(Sandbox { confinement: enforced.then(|| Arc::new(confinement)), lacking: lacking() })
    }

    /// Whether anything is confined.
    fn confine(places: &Places, confinement: &Confinement) -> anyhow::Result<bool> {
        let mut asked = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::from_all(KNOWN))?;
        if confinement.connected.is_some() {
            asked = asked.handle_access(AccessNet::ConnectTcp)?;
        }
        let mut rules = asked.create()?;
        for (path, rights) in &confinement.roots {
            rules = let_through(rules, path, *rights).with_context(|| path.display().to_string())?;
        }
        for port in &places.bound {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
        for port in confinement.connected.iter().flatten() {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
    }

    fn let_through(rules: RulesetCreated, path: &Path, rights: PathRights) -> anyhow::Result<RulesetCreated> {
        let mut access = access(rights);
        if !path.is_dir() {
            access &= AccessFs::from_file(KNOWN);
        }
        Ok(rules.add_rule(PathBeneath::new(PathFd::new(path)?, access))?)
    }

    /// Without moves from one folder to another: the store makes none, and the first kernels with Landlock allow none.
    fn access(rights: PathRights) -> BitFlags<AccessFs> {
        let mut access = AccessFs::ReadFile | AccessFs::ReadDir;
        if rights.write {
            access |= AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::MakeDir;
            access |= AccessFs::RemoveFile | AccessFs::RemoveDir;
        }
        if rights.run {
            access |= AccessFs::Execute;
        }
        if rights.socket {
            access |= AccessFs::MakeSock | AccessFs::RemoveFile;
        }
        access
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn each_right_is_what_is_needed_and_no_more() {
            let read = AccessFs::ReadFile | AccessFs::ReadDir;
            let none = PathRights::default();
            assert_eq!(access(none), read);
            assert_eq!(access(PathRights { run: true, ..none }), read | AccessFs::Execute);
            let socket = access(PathRights { socket: true, ..none });
            assert_eq!(socket, read | AccessFs::MakeSock | AccessFs::RemoveFile);
            let all = access(PathRights { write: true, run: true, socket: true });
            let made = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::MakeSym;
            let never = made | AccessFs::Refer | AccessFs::IoctlDev;
            assert!(!all.intersects(never) && all.contains(AccessFs::Truncate), "{all:?}");
            assert_eq!(AccessFs::from_all(KNOWN), all | never);
        }

        #[test]
        fn a_process_with_threads_is_not_confined() {
            // The tests' own threads run meanwhile.
            let error = enter(&Places::default()).expect_err("it has threads").to_string();
            assert!(error.contains("this process has threads already"), "{error}");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod open {
    use super::Sandbox;
    use crate::config::Places;

    pub(crate) fn lacking() -> Vec<&'static str> {
        vec!["anything (there is no Landlock but on Linux)"]
    }

    /// Confines nothing, and lets nobody believe that it did.
    pub(crate) fn enter(_: &Places) -> anyhow::Result<Sandbox> {
        Ok(Sandbox { confinement: None, lacking: lacking() })
    }
}
