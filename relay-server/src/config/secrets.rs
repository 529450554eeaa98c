//! Reading a secret of the config: from the environment, a file, a systemd credential, or the store's own.
//!
//! Invariants: a secret is read whole, is bounded, is not empty, has nothing invisible in it, and is wiped when it is
//! dropped.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use relay_program::config::Wrong;
use relay_program::secret::{SecretRef, Unread, read_private};
use relay_schemes::Invisible;
use zeroize::Zeroizing;

use crate::state::Others;

/// Largest secret, in bytes. Keys in PEM are a few KiB.
pub(crate) const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// What references are resolved against. A value, so that tests need not touch the process's environment.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The directory of the config file. A relative path starts there, `~/` at HOME.
    pub(super) base: &'a Path,
    /// Reads an environment variable.
    pub(super) var: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) sealed: &'a Unseal<'a>,
}

/// Gives a secret that was given through the API.
pub(crate) type Unseal<'a> = dyn Fn(&str) -> Option<Zeroizing<Vec<u8>>> + 'a;

/// For what nobody gave a secret through the API.
pub(super) const fn nothing_sealed(_: &str) -> Option<Zeroizing<Vec<u8>>> {
    None
}

/// A secret's bytes, and what is worth knowing about where they came from.
pub(super) struct SecretBytes {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Whether a line break at its end was taken off.
    pub(super) line_break_removed: bool,
    /// That others may change its file.
    pub(super) doubt: Option<Wrong>,
}

impl Surroundings<'_> {
    pub(super) fn read(&self, reference: &SecretRef) -> Result<SecretBytes, Wrong> {
        let plain = |bytes| SecretBytes { bytes, line_break_removed: false, doubt: None };
        let mut secret = match reference {
            SecretRef::Env(name) => plain(self.variable(name)?),
            SecretRef::File(path) => self.file(reference, &self.path(path))?,
            SecretRef::Credential(name) => {
                let missing = || {
                    let help = "systemd sets it for a unit with LoadCredential=";
                    Wrong::new(format!("{reference}: CREDENTIALS_DIRECTORY is not set"), help)
                };
                let directory = (self.var)("CREDENTIALS_DIRECTORY").ok_or_else(missing)?;
                // systemd itself keeps that directory closed to others.
                SecretBytes { doubt: None, ..self.file(reference, &Path::new(&directory).join(name))? }
            }
            SecretRef::Sealed(name) => plain((self.sealed)(name).ok_or_else(|| {
                let help =
                    "bring back sealing.key from the same backup as the store, or delete and create the endpoint";
                Wrong::new(format!("{reference} cannot be opened in the store"), help)
            })?),
        };
        let is_file = matches!(reference, SecretRef::File(_) | SecretRef::Credential(_));
        if is_file && secret.bytes.last() == Some(&b'\n') {
            secret.bytes.pop();
            secret.bytes.pop_if(|byte| *byte == b'\r');
            secret.line_break_removed = true;
        }
        if secret.bytes.is_empty() {
            return Err(Wrong::new(format!("{reference} is empty"), "put the secret there"));
        }
        // What is sealed was looked at when it was given.
        match Invisible::of(&secret.bytes).filter(|_| !matches!(reference, SecretRef::Sealed(_))) {
            Some(what) => Err(format!("{reference}: {what}").into()),
            None => Ok(secret),
        }
    }

    fn variable(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, Wrong> {
        let unset = || {
            let message = format!("env:{name}: this variable is not set");
            Wrong::new(message, format!("set {name} for the relay's process"))
        };
        Ok(Zeroizing::new((self.var)(name).ok_or_else(unset)?.into_encoded_bytes()))
    }

    fn file(&self, reference: &SecretRef, path: &Path) -> Result<SecretBytes, Wrong> {
        let shown = path.display();
        let wrong = |message: String, help: &str| Wrong::new(format!("{reference}: {message}"), help);
        let (bytes, metadata) = read_private(path, MAX_SECRET_BYTES).map_err(|unread| match unread {
            Unread::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                wrong(format!("{shown} does not exist"), "write the secret into it, mode 0600")
            }
            Unread::Io(error) => {
                wrong(format!("cannot read {shown}: {error}"), "the relay's own user must be able to read it")
            }
            Unread::Directory => wrong(format!("{shown} is a directory"), ""),
            Unread::Public => {
                wrong(format!("every user of this machine may read {shown}"), &format!("chmod 600 {shown}"))
            }
            Unread::TooLarge => wrong(format!("{shown} is larger than 64 KiB"), "this is not a secret's file"),
        })?;
        let doubt = Others::of(&metadata).problem(path).map(|(message, help)| Wrong { message, help });
        Ok(SecretBytes { bytes, line_break_removed: false, doubt })
    }

    /// A path of the config, made usable from any working directory.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), (self.var)("HOME")) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => self.base.join(path),
        }
    }
}

/// Reads a secret that the command line names, from where the process runs.
pub(crate) fn read_secret(reference: &str) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    let around = Surroundings { base: Path::new(""), var: &|name| std::env::var_os(name), sealed: &nothing_sealed };
    Ok(around.read(&reference.parse()?)?.bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn write(&self, name: &str, content: &[u8], mode: u32) {
            let path = self.0.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn read(&self, reference: &str) -> Result<(Vec<u8>, bool), String> {
            let directory = self.0.path().as_os_str().to_owned();
            let var = |name: &str| match name {
                "SET" => Some("from env".into()),
                "EMPTY" => Some(OsString::new()),
                "CREDENTIALS_DIRECTORY" | "HOME" => Some(directory.clone()),
                _ => None,
            };
            let around = Surroundings { base: self.0.path(), var: &var, sealed: &nothing_sealed };
            let read = around.read(&reference.parse().unwrap());
            read.map(|secret| (secret.bytes.to_vec(), secret.line_break_removed)).map_err(|Wrong { message, help }| {
                format!("{message}; {help}").replace(self.0.path().to_str().unwrap(), "DIR")
            })
        }
    }

    #[test]
    fn secrets_come_from_all_three_places() {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("s", b"from file", 0o600);
        for (reference, secret) in
            [("env:SET", "from env"), ("file:s", "from file"), ("file:~/s", "from file"), ("cred:s", "from file")]
        {
            assert_eq!(place.read(reference), Ok((secret.as_bytes().to_vec(), false)), "{reference}");
        }
    }

    #[test]
    fn one_line_break_at_the_end_of_a_file_is_removed_and_reported() {
        let place = Place(tempfile::tempdir().unwrap());
        for (content, secret, removed) in
            [("a\n", "a", true), ("a\r\n", "a", true), ("a\n\n", "a\n", true), ("a ", "a ", false)]
        {
            place.write("s", content.as_bytes(), 0o600);
            assert_eq!(place.read("file:s"), Ok((secret.as_bytes().to_vec(), removed)), "{content:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_with_the_way_out() {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("open", b"x", 0o604);
        place.write("empty", b"", 0o600);
        place.write("line", b"\n", 0o600);
        place.write("large", &vec![b'x'; 64 * 1024 + 1], 0o600);
        place.write("mark", b"\xef\xbb\xbfhunter2\n", 0o600);
        place.write("wide", b"\xff\xfeh\0u\0n\0t\0\r\0\n\0", 0o600);
        place.write("space", "hunter2\u{a0}".as_bytes(), 0o600);
        for (reference, why) in [
            ("env:UNSET", "env:UNSET: this variable is not set; set UNSET for the relay's process"),
            ("env:EMPTY", "env:EMPTY is empty; put the secret there"),
            ("file:none", "file:none: DIR/none does not exist; write the secret into it, mode 0600"),
            ("file:open", "file:open: every user of this machine may read DIR/open; chmod 600 DIR/open"),
            ("file:empty", "file:empty is empty; put the secret there"),
            ("file:line", "file:line is empty; put the secret there"),
            (
                "file:mark",
                "file:mark: it begins with a byte order mark, which an editor put there; save it as UTF-8 without one; ",
            ),
            ("cred:wide", "cred:wide: it is in UTF-16; save it as UTF-8; "),
            (
                "file:space",
                "file:space: it has a no-break or zero-width space in it, which a page or a chat put there; copy or \
                 type it again; ",
            ),
            ("file:large", "file:large: DIR/large is larger than 64 KiB; this is not a secret's file"),
            ("file:.", "file:.: DIR/. is a directory; "),
        ] {
            assert_eq!(place.read(reference), Err(why.to_owned()), "{reference}");
        }
    }
}
