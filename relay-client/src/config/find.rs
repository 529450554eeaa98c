//! Where the config file lies, and what `~/` and relative paths mean.
//!
//! The order: `--config`, `RELAY_CLIENT_CONFIG`, `./relay-client.toml`, the user's config directory. A file named
//! by the user must exist; the others are taken if they do. Variables of the process come in as a [`Places`], so
//! that the order can be tested.

use std::path::{Path, PathBuf};

/// The file's name in every directory that is searched.
pub const FILE_NAME: &str = "relay-client.toml";

/// The file in which `login` keeps a relay's address and a token, in the user's config directory.
pub const LOGIN_NAME: &str = "login.toml";

/// What the process is told about its surroundings.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `RELAY_CLIENT_CONFIG`.
    pub named: Option<PathBuf>,
    /// Where relative names start.
    pub current: PathBuf,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The user's config directory; `~/.config` unless the system says otherwise.
    pub config: Option<PathBuf>,
    /// Whether `RELAY_TOKEN` is set.
    pub has_token: bool,
}

impl Places {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let config = match path(if cfg!(windows) { "APPDATA" } else { "XDG_CONFIG_HOME" }) {
            Some(config) => Some(config),
            None => home.as_ref().map(|home| home.join(".config")),
        };
        let current = std::env::current_dir().unwrap_or_default();
        let has_token = path("RELAY_TOKEN").is_some();
        Self { named: path("RELAY_CLIENT_CONFIG"), current, home, config, has_token }
    }

    /// The file to read, if there is one; `flag` is `--config`.
    #[must_use]
    pub fn find(&self, flag: Option<&Path>) -> Option<PathBuf> {
        if let Some(named) = flag.or(self.named.as_deref()) {
            return Some(self.current.join(named));
        }
        self.searched().into_iter().find(|path| path.is_file())
    }

    /// Where `login` keeps what it was told, if the user has a config directory.
    #[must_use]
    pub fn login(&self) -> Option<PathBuf> {
        self.config.as_ref().map(|config| config.join("relay").join(LOGIN_NAME))
    }

    /// The files that are looked for when none is named, in order.
    #[must_use]
    pub fn searched(&self) -> Vec<PathBuf> {
        let local = self.current.join(FILE_NAME);
        let own = self.config.as_ref().map(|config| config.join("relay").join(FILE_NAME));
        [Some(local), own].into_iter().flatten().collect()
    }
}

/// A path as written in a file that lies in `base`.
#[must_use]
pub fn expand(text: &str, base: &Path, home: Option<&Path>) -> PathBuf {
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
        assert_eq!(places.find(None), None);

        let user = root.join("etc/relay").join(FILE_NAME);
        std::fs::create_dir_all(user.parent().unwrap()).unwrap();
        std::fs::write(&user, "").unwrap();
        assert_eq!(places.find(None), Some(user));

        let local = root.join("work").join(FILE_NAME);
        std::fs::create_dir_all(local.parent().unwrap()).unwrap();
        std::fs::write(&local, "").unwrap();
        assert_eq!(places.find(None), Some(local));

        places.named = Some("named.toml".into());
        assert_eq!(places.find(None), Some(root.join("work/named.toml")));
        assert_eq!(places.find(Some(Path::new("/flag.toml"))), Some("/flag.toml".into()));
    }
}
