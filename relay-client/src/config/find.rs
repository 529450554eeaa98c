//! Where the config file lies, and what `~/` and relative paths mean.
//!
//! The order: `--config`, `RELAY_CLIENT_CONFIG`, `./relay-client.toml`, the user's config directory. A file named
//! by the user must exist; the others are taken if they do. Variables of the process come in as a [`Places`], so
//! that the order can be tested.
//!
//! A file of the current folder may be somebody else's, who gave the folder away: it is found as such, and
//! [`super::agreement`] says what that means.

use std::path::{Path, PathBuf};

pub(crate) const FILE_NAME: &str = "relay-client.toml";
/// Pages of agents that are looked for.
const MAX_PAGES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub path: PathBuf,
    pub origin: Origin,
}

/// Whose choice a config file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The user's: it was named, or lies in the user's own config directory.
    Chosen,
    /// It only lies in the folder that the program was started in.
    CurrentFolder,
}

/// What the process is told about its surroundings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub named: Option<PathBuf>,
    /// Where relative names start.
    pub current: PathBuf,
    pub home: Option<PathBuf>,
    /// The user's config directory; `~/.config` unless the system says otherwise.
    pub config: Option<PathBuf>,
    pub has_token: bool,
}

impl Places {
    pub(crate) fn of_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        // The XDG specification: a relative path is to be ignored. It would make any folder the user's own.
        let config = path(if cfg!(windows) { "APPDATA" } else { "XDG_CONFIG_HOME" }).filter(|path| path.is_absolute());
        let config = config.or_else(|| home.as_ref().map(|home| home.join(".config")));
        let current = std::env::current_dir().unwrap_or_default();
        let has_token = path("RELAY_TOKEN").is_some();
        Self { named: path("RELAY_CLIENT_CONFIG"), current, home, config, has_token }
    }

    /// The file to read, if there is one; `flag` is `--config`.
    pub(crate) fn find(&self, flag: Option<&Path>) -> Option<Found> {
        if let Some(named) = flag.or(self.named.as_deref()) {
            return Some(Found { path: self.current.join(named), origin: Origin::Chosen });
        }
        let path = self.searched().into_iter().find(|path| path.is_file())?;
        let folder = |path: &Path| path.parent().and_then(|folder| std::fs::canonicalize(folder).ok());
        let own = self.own_folder().and_then(|own| std::fs::canonicalize(own).ok());
        let is_own = own.is_some() && folder(&path) == own;
        Some(Found { path, origin: if is_own { Origin::Chosen } else { Origin::CurrentFolder } })
    }

    /// Where `login` keeps what it was told, if the user has a config directory.
    pub(crate) fn login(&self) -> Option<PathBuf> {
        self.own_folder().map(|own| own.join("login.toml"))
    }

    /// Where the user's agreements are kept, if the user has a config directory.
    pub(crate) fn agreements(&self) -> Option<PathBuf> {
        self.own_folder().map(|own| own.join("allowed.toml"))
    }

    /// Where the key of a page at that port is while it is there, if the user has a config directory.
    pub(crate) fn page_key(&self, port: u16) -> Option<PathBuf> {
        self.own_folder().map(|own| own.join(format!("inspect-{port}.key")))
    }

    /// Keys of pages that may be there, with their ports.
    pub(crate) fn page_keys(&self) -> Vec<(u16, PathBuf)> {
        let Some(Ok(files)) = self.own_folder().map(std::fs::read_dir) else { return Vec::new() };
        let keys = files.flatten().filter_map(|file| {
            let name = file.file_name();
            let port = name.to_str()?.strip_prefix("inspect-")?.strip_suffix(".key")?.parse().ok()?;
            Some((port, file.path()))
        });
        keys.take(MAX_PAGES).collect()
    }

    /// The folder of this program in the user's config directory.
    fn own_folder(&self) -> Option<PathBuf> {
        self.config.as_ref().map(|config| config.join("relay"))
    }

    /// The files that are looked for when none is named, in order.
    pub(crate) fn searched(&self) -> Vec<PathBuf> {
        let local = self.current.join(FILE_NAME);
        let own = self.own_folder().map(|own| own.join(FILE_NAME));
        [Some(local), own].into_iter().flatten().collect()
    }
}

/// A path as written in a file that lies in `base`.
pub(crate) fn expand(text: &str, base: &Path, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => base.join(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_order_wins() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut places = Places { current: root.join("work"), config: Some(root.join("etc")), ..Places::default() };
        let chosen = |path: PathBuf| Some(Found { path, origin: Origin::Chosen });
        assert_eq!(places.find(None), None);

        let user = root.join("etc/relay").join(FILE_NAME);
        std::fs::create_dir_all(user.parent().unwrap()).unwrap();
        std::fs::write(&user, "").unwrap();
        assert_eq!(places.find(None), chosen(user.clone()));

        let local = root.join("work").join(FILE_NAME);
        std::fs::create_dir_all(local.parent().unwrap()).unwrap();
        std::fs::write(&local, "").unwrap();
        assert_eq!(places.find(None), Some(Found { path: local, origin: Origin::CurrentFolder }));

        places.named = Some("named.toml".into());
        assert_eq!(places.find(None), chosen(root.join("work/named.toml")));
        assert_eq!(places.find(Some(Path::new("/flag.toml"))), chosen("/flag.toml".into()));

        // The user's own folder stays that where it is the current one.
        let places = Places { named: None, current: user.parent().unwrap().join("../relay"), ..places };
        let found = places.find(None).unwrap();
        assert_eq!((found.path.file_name(), found.origin), (user.file_name(), Origin::Chosen));
    }
}
