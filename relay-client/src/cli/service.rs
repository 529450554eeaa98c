//! `service install|status|uninstall`: the agent's file for this system's service manager is written, judged and removed.
//!
//! Starts and stops nothing: what is to be run next is printed. A file that was not written here, or that somebody
//! changed since, is left alone.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use clap::{Args, Subcommand};
use relay_program::{Failure, file::write_private, process::users_program, terminal};
use serde_json::json;

use super::config::not_found;
use crate::{
    config::{
        check::ConfigFile,
        find::{Found, Origin, Places},
    },
    service::{Manager, ServiceFile, Written, service_name},
};

const SYSTEM_CONFIG: &str = "/etc/relay-client/relay-client.toml";
const SYSTEM_TOKEN: &str = "/etc/relay-client/agent.token";
/// Folders that a service of the machine does not see (`ProtectHome=`, `PrivateTmp=`).
const UNSEEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Writes the service's file, and says what to run next
    Install {
        #[command(flatten)]
        which: WhichService,
        /// The config file [default: as for `start`; with --system /etc/relay-client/relay-client.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// With --system, root's file with the token [default: /etc/relay-client/agent.token]
        #[arg(long, value_name = "FILE", requires = "system")]
        token_file: Option<PathBuf>,
        /// Prints the file, and writes nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Says whether the service is installed and runs
    Status {
        #[command(flatten)]
        which: WhichService,
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Removes the file that `install` wrote
    Uninstall {
        #[command(flatten)]
        which: WhichService,
        /// Says what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WhichService {
    /// A service of the machine rather than of this user; for root
    #[arg(long)]
    system: bool,
    /// The service's name
    #[arg(long, default_value = "relay-client", value_parser = service_name)]
    name: String,
}

/// A service, and where its file lies.
struct Place {
    manager: Manager,
    name: String,
    path: PathBuf,
    written: Written,
}

pub(super) fn run(command: &ServiceCommand, places: &Places) -> Result<(), Failure> {
    match command {
        ServiceCommand::Install { which, config, token_file, dry_run } => {
            let place = Place::find(which, places)?;
            let text = place.render(config.as_deref(), token_file.as_deref(), places)?;
            if *dry_run { terminal::print(&text) } else { place.install(&text) }
        }
        ServiceCommand::Status { which, json } => Place::find(which, places)?.status(*json),
        ServiceCommand::Uninstall { which, dry_run } => Place::find(which, places)?.uninstall(*dry_run),
    }
}

impl Place {
    fn find(which: &WhichService, places: &Places) -> Result<Self, Failure> {
        let manager = Manager::of_machine(which.system).map_err(|why| Failure::Usage(why.to_owned()))?;
        let path = manager.path(&which.name, places);
        let path = path.ok_or_else(|| Failure::Usage("this user has no home; set HOME".to_owned()))?;
        let written = Written::at(&path).map_err(|error| failed(&path, &error))?;
        Ok(Self { manager, name: which.name.clone(), path, written })
    }

    /// The file's text. Its config has to be one that `start` takes.
    fn render(&self, config: Option<&Path>, token: Option<&Path>, places: &Places) -> Result<String, Failure> {
        let is_system = self.manager == Manager::SystemdSystem;
        let found = match config {
            None if is_system => Found { path: SYSTEM_CONFIG.into(), origin: Origin::Chosen },
            _ => places.find(config).ok_or_else(|| not_found(places))?,
        };
        let file = ConfigFile::read(&found, places.home.as_deref())?;
        if file.endpoints.is_empty() {
            let path = file.path.display();
            return Err(Failure::Usage(format!("{path} names no [[endpoint]]; add one with a name and a target")));
        }
        // A service starts somewhere else: a file of the current folder is meant where it lies now.
        let path = std::fs::canonicalize(&file.path).map_err(|error| failed(&file.path, &error))?;
        let program = std::env::current_exe().map_err(|error| failed(Path::new("relay-client"), &error))?;
        if is_system {
            for path in [&program, &path] {
                if let Some(folder) = UNSEEN.iter().find(|folder| path.starts_with(folder)) {
                    return Err(Failure::Usage(format!(
                        "{}: a service of the machine does not see {folder}; put it elsewhere, such as /usr/local/bin \
                         for the program and /etc/relay-client for its files, or leave out --system",
                        path.display()
                    )));
                }
            }
        }
        let of_user = |folder: Option<&PathBuf>| folder.cloned().unwrap_or_default();
        let service = ServiceFile {
            name: &self.name,
            program: &program,
            config: &path,
            token: &places.current.join(token.unwrap_or(Path::new(SYSTEM_TOKEN))),
            log: &of_user(places.home.as_ref()).join("Library/Logs").join(format!("{}.log", self.name)),
            user: &windows_user(),
        };
        service.render(self.manager).map_err(Failure::Usage)
    }

    fn install(&self, text: &str) -> Result<(), Failure> {
        self.refuse_others("overwritten")?;
        write_private(&self.path, text.as_bytes()).map_err(|error| failed(&self.path, &error))?;
        // systemd shows a unit to everybody anyway, and complains of one that it alone may read.
        #[cfg(unix)]
        if self.manager == Manager::SystemdSystem {
            use std::os::unix::fs::PermissionsExt as _;
            let everybody = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&self.path, everybody).map_err(|error| failed(&self.path, &error))?;
        }
        let mut said = format!("wrote {}\n\nto start it:\n", self.path.display());
        for line in self.manager.to_start(&self.name, &self.path) {
            said += &format!("  {line}\n");
        }
        terminal::print(&said)
    }

    fn uninstall(&self, dry_run: bool) -> Result<(), Failure> {
        if self.written == Written::Nowhere {
            return Err(Failure::NotFound(format!("{} is not there; nothing is installed", self.path.display())));
        }
        self.refuse_others("removed")?;
        if self.is_enabled() {
            let stop = self.manager.to_stop(&self.name);
            return Err(Failure::Failed(format!("{} is enabled; first run: {stop}", self.name)));
        }
        if dry_run {
            return terminal::line(&format!("would remove {}", self.path.display()));
        }
        std::fs::remove_file(&self.path).map_err(|error| failed(&self.path, &error))?;
        let rest = match self.manager {
            Manager::SystemdSystem => "sudo systemctl daemon-reload".to_owned(),
            Manager::SystemdUser => "systemctl --user daemon-reload".to_owned(),
            Manager::Launchd | Manager::WindowsTask => self.manager.to_stop(&self.name),
        };
        terminal::line(&format!("removed {}; then run: {rest}", self.path.display()))
    }

    fn status(&self, json: bool) -> Result<(), Failure> {
        let file = match self.written {
            Written::Nowhere => "not installed",
            Written::Here => "installed",
            Written::Changed => "installed, and changed by somebody since",
            Written::Elsewhere => "not installed by this command",
        };
        let (enabled, state) = (self.is_enabled(), self.state());
        if json {
            let found = json!({
                "name": self.name,
                "manager": self.manager.title(),
                "path": self.path,
                "file": file,
                "enabled": enabled,
                "state": state,
            });
            terminal::line(&found.to_string())?;
        } else {
            let state = state.unwrap_or_else(|| "not known".to_owned());
            let enabled = if enabled { ", enabled" } else { "" };
            let (name, manager, path) = (&self.name, self.manager.title(), self.path.display());
            terminal::line(&format!("{name} ({manager}): {file}{enabled}; state: {state}\n  {path}"))?;
        }
        if self.written == Written::Nowhere { Err(Failure::Reported(4)) } else { Ok(()) }
    }

    fn is_enabled(&self) -> bool {
        self.manager.enabling_link(&self.path).is_some_and(|link| link.symlink_metadata().is_ok())
    }

    /// What systemd says of the unit; nothing where there is none, or where it does not run.
    fn state(&self) -> Option<String> {
        let scope = match self.manager {
            Manager::SystemdSystem => "--system",
            Manager::SystemdUser => "--user",
            Manager::Launchd | Manager::WindowsTask => return None,
        };
        let mut ask = users_program("systemctl");
        ask.args([scope, "is-active", "--", &self.name]).stdin(Stdio::null()).stderr(Stdio::null());
        let said = String::from_utf8(ask.output().ok()?.stdout).ok()?;
        let word = said.trim();
        (!word.is_empty()).then(|| word.to_owned())
    }

    fn refuse_others(&self, what: &str) -> Result<(), Failure> {
        let path = self.path.display();
        match self.written {
            Written::Nowhere | Written::Here => Ok(()),
            Written::Changed => Err(Failure::Refused(format!(
                "{path} has been changed since it was written here, and is not {what}; keep your lines in a drop-in \
                 beside it, or move the file away"
            ))),
            Written::Elsewhere => Err(Failure::Refused(format!(
                "{path} was not written by relay-client service install, and is not {what}; take another --name, or \
                 move the file away"
            ))),
        }
    }
}

/// `DOMAIN\USER`, as Windows says.
fn windows_user() -> String {
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    match (said("USERDOMAIN"), said("USERNAME")) {
        (domain, user) if domain.is_empty() => user,
        (domain, user) => format!("{domain}\\{user}"),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    let why = relay_program::reason::of_io(error);
    Failure::Failed(format!("{}: {why}", path.display()))
}
