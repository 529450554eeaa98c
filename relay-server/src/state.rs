//! The relay's own directory: small files that it writes for itself and that nobody else may read.
//!
//! The admin token, the key that seals secrets in the store, and the store itself unless it has another place live
//! here; the config's own files do not. Nothing here knows what the bytes mean.
//!
//! Invariant: the relay refuses a directory in which another user could put a file in the place of the relay's own.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use relay_program::file;
use tempfile::TempDir;

/// Who may change a file or a directory beside the relay's own user and root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    Nobody,
    Group,
    /// Everybody on this machine.
    Everybody,
    /// Its owner, who is neither this user nor root.
    Owner(u32),
}

impl Others {
    /// Who may change what is at `path`, wherever links lead.
    pub(crate) fn may_change(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }

    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self::judge(metadata.uid(), metadata.mode(), rustix::process::geteuid().as_raw())
    }

    const fn judge(owner: u32, mode: u32, user: u32) -> Self {
        match (owner, mode & 0o002 != 0, mode & 0o020 != 0) {
            _ if owner != user && owner != 0 => Self::Owner(owner),
            (_, true, _) => Self::Everybody,
            (_, false, true) => Self::Group,
            (_, false, false) => Self::Nobody,
        }
    }

    /// What is wrong with `path`, and what to do about it; nothing if nobody else may change it.
    pub(crate) fn problem(self, path: &Path) -> Option<(String, String)> {
        let path = path.display();
        match self {
            Self::Nobody => None,
            Self::Group => Some((format!("the group of {path} may change it"), format!("chmod g-w {path}"))),
            Self::Everybody => {
                Some((format!("everybody on this machine may change {path}"), format!("chmod go-w {path}")))
            }
            Self::Owner(owner) => Some((
                format!("{path} belongs to user {owner}, who is neither the relay's own user nor root"),
                format!("look what is in it, and chown {path}"),
            )),
        }
    }

    /// Whether what keeps secrets must not lie there.
    pub(crate) const fn is_refused(self) -> bool {
        matches!(self, Self::Everybody | Self::Owner(_))
    }

    /// Refuses what keeps secrets where others may change it.
    pub(crate) fn refuse(self, path: &Path) -> io::Result<()> {
        match self.problem(path) {
            Some((problem, help)) if self.is_refused() => Err(io::Error::other(format!("{problem}; {help}"))),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Removed with the relay.
    _throw_away: Option<TempDir>,
}

impl StateDir {
    /// The directory at `path`, of mode 0700 if it is new.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        file::make_private_folder(path)?;
        Others::may_change(path)?.refuse(path)?;
        Ok(Self { path: path.to_owned(), _throw_away: None })
    }

    /// A directory that lives as long as this value.
    pub(crate) fn throw_away() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("relay-dev-").tempdir()?;
        Ok(Self { path: directory.path().to_owned(), _throw_away: Some(directory) })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file whole, over what was there.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        file::write_private(&self.file(name), bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_the_owners_alone_and_written_whole() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(&place.path().join("a/b")).unwrap();
        state.write("x", b"one").unwrap();
        state.write("x", b"two").unwrap();
        assert_eq!(fs::read(state.file("x")).unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state.file("x")), mode(&place.path().join("a/b"))), (0o600, 0o700));
        let left: Vec<_> =
            fs::read_dir(place.path().join("a/b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["x"], "nothing else is left behind");
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
        for (wrong, words) in [(0o702, "everybody"), (0o777, "everybody"), (0o1777, "everybody")] {
            mode(wrong);
            let error = StateDir::open(place.path()).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("chmod go-w"), "{error}");
        }
        for right in [0o700, 0o755, 0o770] {
            mode(right);
            assert!(StateDir::open(place.path()).is_ok(), "{right:o}");
        }
        let said = Others::may_change(place.path()).unwrap().problem(place.path()).unwrap();
        assert!(said.0.starts_with("the group of"), "{said:?}");
    }

    #[test]
    fn what_belongs_to_somebody_else_is_theirs_to_change() {
        let (user, other) = (1000, 1001);
        for (owner, mode, expected) in [
            (user, 0o600, Others::Nobody),
            (0, 0o644, Others::Nobody),
            (user, 0o660, Others::Group),
            (0, 0o666, Others::Everybody),
            (other, 0o600, Others::Owner(other)),
            (other, 0o666, Others::Owner(other)),
        ] {
            assert_eq!(Others::judge(owner, mode, user), expected, "{owner} {mode:o}");
        }
        assert_eq!(Others::judge(other, 0o600, 0), Others::Owner(other), "root is no exception");
    }

    #[test]
    fn a_throw_away_directory_ends_with_its_owner() {
        let state = StateDir::throw_away().unwrap();
        state.write("x", b"").unwrap();
        let path = state.file("x");
        drop(state);
        assert!(!path.exists());
    }
}
