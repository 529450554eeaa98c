//! The relay's own directory: small files that it writes for itself and that nobody else may read.
//!
//! The admin token, the key that seals secrets in the store, and the store itself unless it has another place live here;
//! the config's own files do not.
//! A file is written whole or not at all: a temporary one of mode 0600 is synced, renamed over the old one, and the
//! directory synced. Nothing here knows what the bytes mean.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};
use zeroize::Zeroizing;

/// Largest file that is read back, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The directory, made if it was not there.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Removed with the relay.
    _throw_away: Option<TempDir>,
}

impl StateDir {
    /// The directory at `path`, of mode 0700 if it is new.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        Ok(Self { path: path.to_owned(), _throw_away: None })
    }

    /// A directory that lives as long as this value.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn throw_away() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("relay-dev-").tempdir()?;
        Ok(Self { path: directory.path().to_owned(), _throw_away: Some(directory) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of this name is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file's bytes; `None` if it was never written.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than anything that is written here.
    pub fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let file = match File::open(self.file(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.metadata()?.len();
        if len > MAX_FILE_BYTES {
            return Err(io::Error::other("it is larger than anything that the relay writes"));
        }
        // Room for all of it, so that no copy is left behind by a growing buffer.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes a file whole, of mode 0600, over what was there.
    ///
    /// # Errors
    /// If it cannot be written and synced; the old file is then still there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::with_prefix_in(".new-", &self.path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.file(name)).map_err(|error| error.error)?;
        File::open(&self.path)?.sync_all()
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
        assert_eq!(state.read("x").unwrap(), None);
        state.write("x", b"one").unwrap();
        state.write("x", b"two").unwrap();
        assert_eq!(**state.read("x").unwrap().unwrap(), *b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state.file("x")), mode(&place.path().join("a/b"))), (0o600, 0o700));
        let left: Vec<_> =
            fs::read_dir(place.path().join("a/b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["x"], "nothing else is left behind");
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
