//! The agent as a service: the file that a service manager reads, where it lies, and whether it is as it was written.
//!
//! Texts alone: nothing here starts, stops or asks a service manager. The units are those of `deploy/systemd`, which the
//! packages have as well, with other paths in them.
//!
//! Invariant: the last line of a file that was written here has the digest of all above it. A file without that line, or
//! with another digest, is somebody's: it is neither overwritten nor removed.

use std::{
    io,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::config::find::Places;

const SYSTEM_UNIT: &str = include_str!("../../deploy/systemd/relay-client.service");
const USER_UNIT: &str = include_str!("../../deploy/systemd/relay-client.user.service");
const PLIST: &str = include_str!("../../deploy/launchd/relay-client.plist");
const TASK: &str = include_str!("../../deploy/windows/relay-client.xml");

const MARK: &str = "written by relay-client service install, sha256 ";
/// A service's file is a page or two.
const MAX_FILE_BYTES: u64 = 64 * 1024;
const MAX_NAME_BYTES: usize = 64;

/// Who runs the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    SystemdSystem,
    SystemdUser,
    Launchd,
    WindowsTask,
}

/// What a service's file says.
#[derive(Debug)]
pub(crate) struct ServiceFile<'a> {
    pub name: &'a str,
    pub program: &'a Path,
    pub config: &'a Path,
    /// Root's file with the token; for a service of the machine.
    pub token: &'a Path,
    /// Where errors go, for launchd.
    pub log: &'a Path,
    /// Who logs in, for Windows.
    pub user: &'a str,
}

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Nowhere,
    /// By [`ServiceFile::render`], and it is as it was.
    Here,
    /// Here, and changed since by somebody.
    Changed,
    Elsewhere,
}

impl Manager {
    /// This system's own.
    pub(crate) fn of_machine(system: bool) -> Result<Self, &'static str> {
        match (std::env::consts::OS, system) {
            ("linux", true) => Ok(Self::SystemdSystem),
            ("linux", false) => Ok(Self::SystemdUser),
            ("macos", false) => Ok(Self::Launchd),
            ("windows", false) => Ok(Self::WindowsTask),
            ("macos" | "windows", true) => Err("here the agent is a service of one user; leave out --system"),
            _ => Err("this system's services are not known; have its own manager run relay-client start"),
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::SystemdSystem => "systemd",
            Self::SystemdUser => "systemd --user",
            Self::Launchd => "launchd",
            Self::WindowsTask => "Task Scheduler",
        }
    }

    /// Where the file of a service lies.
    pub(crate) fn path(self, name: &str, places: &Places) -> Option<PathBuf> {
        let (folder, ending) = match self {
            Self::SystemdSystem => (PathBuf::from("/etc/systemd/system"), "service"),
            Self::SystemdUser => (places.config.as_ref()?.join("systemd/user"), "service"),
            Self::Launchd => (places.home.as_ref()?.join("Library/LaunchAgents"), "plist"),
            Self::WindowsTask => (places.config.as_ref()?.join("relay"), "task.xml"),
        };
        Some(folder.join(format!("{name}.{ending}")))
    }

    /// The link that makes systemd start a service by itself.
    pub(crate) fn enabling_link(self, path: &Path) -> Option<PathBuf> {
        let target = match self {
            Self::SystemdSystem => "multi-user.target.wants",
            Self::SystemdUser => "default.target.wants",
            Self::Launchd | Self::WindowsTask => return None,
        };
        Some(path.parent()?.join(target).join(path.file_name()?))
    }

    /// What starts a service whose file is there, now and whenever its user or machine is.
    pub(crate) fn to_start(self, name: &str, path: &Path) -> Vec<String> {
        let path = path.display();
        match self {
            Self::SystemdSystem => {
                vec!["sudo systemctl daemon-reload".to_owned(), format!("sudo systemctl enable --now {name}")]
            }
            Self::SystemdUser => vec![
                "systemctl --user daemon-reload".to_owned(),
                format!("systemctl --user enable --now {name}"),
                "loginctl enable-linger   # runs also while you are not logged in".to_owned(),
            ],
            Self::Launchd => vec![format!("launchctl bootstrap gui/$(id -u) {}", shell_word(&path.to_string()))],
            Self::WindowsTask => {
                vec![format!("schtasks /Create /TN {name} /XML \"{path}\""), format!("schtasks /Run /TN {name}")]
            }
        }
    }

    /// What ends a service for good.
    pub(crate) fn to_stop(self, name: &str) -> String {
        match self {
            Self::SystemdSystem => format!("sudo systemctl disable --now {name}"),
            Self::SystemdUser => format!("systemctl --user disable --now {name}"),
            Self::Launchd => format!("launchctl bootout gui/$(id -u)/{name}"),
            Self::WindowsTask => format!("schtasks /Delete /TN {name} /F"),
        }
    }
}

/// One word of a shell's line, whatever stands in it.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl ServiceFile<'_> {
    /// The text for a manager, or what cannot stand in one.
    pub(crate) fn render(&self, manager: Manager) -> Result<String, String> {
        let text = match manager {
            Manager::SystemdSystem => {
                let token = plain(self.token)?.replace('%', "%%");
                let unit = self.unit(SYSTEM_UNIT)?;
                replace_line(&unit, "LoadCredential=", &format!("LoadCredential=token:{token}"))
            }
            Manager::SystemdUser => self.unit(USER_UNIT)?,
            Manager::Launchd => self.xml(PLIST)?,
            Manager::WindowsTask => {
                for path in [self.program, self.config] {
                    if plain(path)?.contains(['"', '%']) {
                        return Err(format!("{}: a path with \" or % cannot stand in a task", path.display()));
                    }
                }
                self.xml(TASK)?
            }
        };
        Ok(sealed(&text, manager))
    }

    fn unit(&self, unit: &str) -> Result<String, String> {
        let (program, config) = (quoted(plain(self.program)?), quoted(plain(self.config)?));
        // The page's first words are for who reads the tree.
        let (_, unit) = unit.split_once("\n\n").unwrap_or_default();
        Ok(replace_line(unit, "ExecStart=", &format!("ExecStart={program} start --config {config}")))
    }

    fn xml(&self, template: &str) -> Result<String, String> {
        let mut text = template.to_owned();
        for (word, value) in [
            ("@NAME@", self.name),
            ("@PROGRAM@", plain(self.program)?),
            ("@CONFIG@", plain(self.config)?),
            ("@LOG@", plain(self.log)?),
            ("@USER@", self.user),
        ] {
            text = text.replace(word, &escaped(value));
        }
        Ok(text)
    }
}

/// A path that a service manager can be told.
fn plain(path: &Path) -> Result<&str, String> {
    let text = path.to_str().ok_or_else(|| format!("{}: this path is not UTF-8", path.display()))?;
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?}: this path has a control character"));
    }
    Ok(text)
}

/// One word of an `ExecStart=`, as systemd.service(5) has it.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if text.contains([' ', '\'', '"', '\\', ';']) { format!("\"{text}\"") } else { text }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn replace_line(text: &str, beginning: &str, line: &str) -> String {
    let lines = text.lines().map(|old| if old.starts_with(beginning) { line } else { old });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The text with its last line.
fn sealed(text: &str, manager: Manager) -> String {
    let mark = format!("{MARK}{}", digest(text));
    match manager {
        Manager::SystemdSystem | Manager::SystemdUser => format!("{text}# {mark}\n"),
        Manager::Launchd | Manager::WindowsTask => format!("{text}<!-- {mark} -->\n"),
    }
}

fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

impl Written {
    /// Whose a text is that lies where a service's file would.
    fn of(text: &str) -> Self {
        let (above, last) = text.trim_end().rsplit_once('\n').unwrap_or_default();
        match last.split_once(MARK) {
            None => Self::Elsewhere,
            Some((_, sum)) if sum.split(' ').next() == Some(&digest(&format!("{above}\n"))) => Self::Here,
            Some(_) => Self::Changed,
        }
    }

    /// Whose the file at a path is. What is no plain file is somebody else's.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Nowhere),
            Err(error) => Err(error),
            Ok(found) if !found.is_file() || found.len() > MAX_FILE_BYTES => Ok(Self::Elsewhere),
            Ok(_) => Ok(Self::of(&String::from_utf8_lossy(&std::fs::read(path)?))),
        }
    }
}

/// A name that every service manager takes.
pub(crate) fn service_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && text.len() <= MAX_NAME_BYTES && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("a service's name has 1 to {MAX_NAME_BYTES} of A-Z, a-z, 0-9, -, _ and ., a letter or digit first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Manager; 4] = [Manager::SystemdSystem, Manager::SystemdUser, Manager::Launchd, Manager::WindowsTask];

    fn file<'a>(program: &'a Path, config: &'a Path) -> ServiceFile<'a> {
        let (token, log) = (Path::new("/etc/relay-client/a token"), Path::new("/Users/a/Library/Logs/edge.log"));
        ServiceFile { name: "edge", program, config, token, log, user: "WORK\\anna" }
    }

    fn rendered(manager: Manager, program: &str, config: &str) -> String {
        file(Path::new(program), Path::new(config)).render(manager).unwrap()
    }

    #[test]
    fn a_unit_has_the_paths_and_all_the_walls_of_the_package() {
        let unit = rendered(Manager::SystemdSystem, "/opt/relay client", "/etc/relay-client/100%$.toml");
        assert!(unit.starts_with("[Unit]\n"), "{unit}");
        for line in [
            "ExecStart=\"/opt/relay client\" start --config /etc/relay-client/100%%$$.toml",
            "LoadCredential=token:/etc/relay-client/a token",
            "Environment=RELAY_TOKEN_FILE=%d/token",
            "DynamicUser=yes",
            "SystemCallFilter=~@privileged @resources",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|other| other == line), "{line} in {unit}");
        }
        let lines = |text: &str| text.lines().filter(|line| line.contains('=') && !line.starts_with('#')).count();
        assert_eq!(lines(&unit), lines(SYSTEM_UNIT), "a line was lost or doubled");

        let unit = rendered(Manager::SystemdUser, "/home/a/bin/relay-client", "/home/a/.config/relay/x.toml");
        assert!(unit.contains("\nExecStart=/home/a/bin/relay-client start --config /home/a/.config/relay/x.toml\n"));
        assert!(unit.contains("WantedBy=default.target") && !unit.contains("LoadCredential"), "{unit}");
    }

    #[test]
    fn the_files_of_other_systems_have_every_value_escaped_and_no_place_left_open() {
        let plist = rendered(Manager::Launchd, "/Users/a/bin/relay-client", "/Users/a/R&D/<x>.toml");
        assert!(plist.contains("<string>edge</string>") && plist.contains("<string>/Users/a/R&amp;D/&lt;x&gt;.toml<"));
        assert!(plist.contains("<string>/Users/a/Library/Logs/edge.log</string>"));
        let task = rendered(Manager::WindowsTask, r"C:\Program Files\relay-client.exe", r"C:\Users\a\relay.toml");
        assert!(task.contains(r"<Command>C:\Program Files\relay-client.exe</Command>"));
        assert!(task.contains(r#"<Arguments>start --config "C:\Users\a\relay.toml" --output quiet</Arguments>"#));
        assert_eq!(task.matches("<UserId>WORK\\anna</UserId>").count(), 2);
        for text in [plist, task] {
            assert!(text.starts_with("<?xml") && !text.contains('@'), "{text}");
        }
    }

    #[test]
    fn a_printed_line_has_its_path_as_one_word() {
        for path in ["/Users/ann/Library/edge.plist", "/Users/d'arc/$(id) `id`; & \"x\".plist", "''"] {
            let [line] = Manager::Launchd.to_start("edge", Path::new(path)).try_into().unwrap();
            let word = line.strip_prefix("launchctl bootstrap gui/$(id -u) ").unwrap();
            let said = std::process::Command::new("/bin/sh").args(["-c", &format!("printf %s {word}")]).output();
            let said = said.unwrap().stdout;
            assert_eq!(String::from_utf8_lossy(&said), path, "{line}");
        }
    }

    #[test]
    fn what_a_manager_would_misread_is_refused() {
        for path in ["/a\nExecStartPre=/bin/sh", "/a\u{7}"] {
            for manager in ALL {
                assert!(file(Path::new("/p"), Path::new(path)).render(manager).is_err(), "{path:?} {manager:?}");
            }
        }
        for path in ["C:\\a\" --token-file b", "C:\\%TEMP%\\a"] {
            assert!(file(Path::new("C:\\p"), Path::new(path)).render(Manager::WindowsTask).is_err(), "{path}");
        }
        for name in ["", "-a", "a b", "a/b", "../a", "a@b", "ä", &"a".repeat(65)] {
            assert!(service_name(name).is_err(), "{name:?}");
        }
        assert_eq!(service_name("relay-client_2.b").as_deref(), Ok("relay-client_2.b"));
    }

    #[test]
    fn a_file_is_known_as_long_as_nobody_changes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.service");
        assert_eq!(Written::at(&path).unwrap(), Written::Nowhere);
        for manager in ALL {
            let text = rendered(manager, "/p", "/c");
            std::fs::write(&path, &text).unwrap();
            assert_eq!(Written::at(&path).unwrap(), Written::Here, "{manager:?}");
            std::fs::write(&path, text.replacen("/c", "/d", 1)).unwrap();
            assert_eq!(Written::at(&path).unwrap(), Written::Changed, "{manager:?}");
        }
        for other in ["", "\n", SYSTEM_UNIT, USER_UNIT] {
            std::fs::write(&path, other).unwrap();
            assert_eq!(Written::at(&path).unwrap(), Written::Elsewhere, "{other:?}");
        }
        assert_eq!(Written::at(folder.path()).unwrap(), Written::Elsewhere, "a folder is no file of ours");
    }

    #[test]
    fn a_users_service_lies_in_the_users_own_folders() {
        let places = Places { config: Some("/c".into()), home: Some("/h".into()), ..Places::default() };
        let path = |manager: Manager| manager.path("edge", &places).unwrap();
        assert_eq!(path(Manager::SystemdSystem), Path::new("/etc/systemd/system/edge.service"));
        assert_eq!(path(Manager::SystemdUser), Path::new("/c/systemd/user/edge.service"));
        assert_eq!(path(Manager::Launchd), Path::new("/h/Library/LaunchAgents/edge.plist"));
        assert_eq!(path(Manager::WindowsTask), Path::new("/c/relay/edge.task.xml"));
        assert_eq!(Manager::SystemdUser.path("edge", &Places::default()), None);
        let link = Manager::SystemdUser.enabling_link(&path(Manager::SystemdUser)).unwrap();
        assert_eq!(link, Path::new("/c/systemd/user/default.target.wants/edge.service"));
    }
}
