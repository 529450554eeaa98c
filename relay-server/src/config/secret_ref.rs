//! Where a secret is kept: `env:NAME`, `file:PATH` or `cred:NAME`, and reading it from there. One that was given through
//! the API is sealed in the store.
//!
//! The config holds references only, so that it can be shown, copied and put under version control. Nothing here
//! knows what a secret is for. Invariants: a text that is not a reference is never repeated in an error, since it may
//! be the secret itself; a secret is read whole, is bounded, is not empty, has nothing invisible in it, and is wiped when
//! it is dropped.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use relay_schemes::Invisible;
use zeroize::Zeroizing;

use super::values::Problem;
use crate::state::Others;

/// Largest secret, in bytes. Keys in PEM are a few KiB.
pub(crate) const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where a secret is kept. Safe to print.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; a relative path starts at the config file's directory, `~/` at HOME.
    File(PathBuf),
    /// A systemd credential: a file of that name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// In the store, sealed: `ENDPOINT/NUMBER`. Written by the relay itself.
    Sealed(String),
}

impl FromStr for SecretRef {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let help = "write \"env:NAME\", \"file:PATH\" or \"cred:NAME\", never the secret itself";
        let (kind, name) = text.split_once(':').unwrap_or_default();
        let plain = !name.is_empty() && !name.contains(['/', '\0', '=']) && name != "..";
        match kind {
            "env" if plain => Ok(Self::Env(name.to_owned())),
            "cred" if plain => Ok(Self::Credential(name.to_owned())),
            "file" if !name.is_empty() => Ok(Self::File(PathBuf::from(name))),
            "sealed" if !name.is_empty() => Ok(Self::Sealed(name.to_owned())),
            "env" | "cred" | "file" => {
                Err((format!("a reference of kind \"{kind}:\" names nothing usable"), help.to_owned()))
            }
            _ => Err(("this is not a reference to a secret".to_owned(), help.to_owned())),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "cred:{name}"),
            Self::Sealed(name) => write!(f, "sealed:{name}"),
        }
    }
}

/// What references are resolved against. A value, so that tests need not touch the process's environment.
pub(super) struct Surroundings<'a> {
    /// The directory of the config file.
    pub(super) base: &'a Path,
    /// Reads an environment variable.
    pub(super) var: &'a dyn Fn(&str) -> Option<OsString>,
    /// Opens a sealed secret.
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
    pub(super) doubt: Option<Problem>,
}

impl SecretRef {
    pub(super) fn read(&self, around: &Surroundings<'_>) -> Result<SecretBytes, Problem> {
        let mut doubt = None;
        let (bytes, from_file) = match self {
            Self::Env(name) => (read_env(name, around)?, false),
            Self::File(path) => {
                let (bytes, others) = self.read_file(&around.path(path), true)?;
                doubt = others;
                (bytes, true)
            }
            Self::Credential(name) => {
                let help = "systemd sets it for a unit with LoadCredential=";
                let directory = (around.var)("CREDENTIALS_DIRECTORY");
                let directory =
                    directory.ok_or_else(|| (format!("{self}: CREDENTIALS_DIRECTORY is not set"), help.to_owned()))?;
                // systemd itself keeps that directory closed to others.
                (self.read_file(&Path::new(&directory).join(name), false)?.0, true)
            }
            Self::Sealed(name) => {
                let help =
                    "bring back sealing.key from the same backup as the store, or delete and create the endpoint";
                let opened = (around.sealed)(name);
                (opened.ok_or_else(|| (format!("{self} cannot be opened in the store"), help.to_owned()))?, false)
            }
        };
        let mut secret = SecretBytes { bytes, line_break_removed: false, doubt };
        if from_file && secret.bytes.last() == Some(&b'\n') {
            secret.bytes.pop();
            secret.bytes.pop_if(|byte| *byte == b'\r');
            secret.line_break_removed = true;
        }
        if secret.bytes.is_empty() {
            return Err((format!("{self} is empty"), "put the secret there".to_owned()));
        }
        // What is sealed was looked at when it was given.
        match Invisible::of(&secret.bytes).filter(|_| !matches!(self, Self::Sealed(_))) {
            Some(what) => Err((format!("{self}: {what}"), String::new())),
            None => Ok(secret),
        }
    }

    /// The bytes, and that others may change them.
    fn read_file(&self, path: &Path, check_mode: bool) -> Result<(Zeroizing<Vec<u8>>, Option<Problem>), Problem> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                (format!("{self}: {} does not exist", path.display()), "write the secret into it, mode 0600".to_owned())
            }
            _ => (
                format!("{self}: cannot read {}: {error}", path.display()),
                "the relay's own user must be able to read it".to_owned(),
            ),
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err((format!("{self}: {} is a directory", path.display()), String::new()));
        }
        if check_mode && others_may_read(&metadata) {
            return Err((
                format!("{self}: every user of this machine may read {}", path.display()),
                format!("chmod 600 {}", path.display()),
            ));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_SECRET_BYTES {
            return Err((
                format!("{self}: {} is larger than 64 KiB", path.display()),
                "this is not a secret's file".to_owned(),
            ));
        }
        Ok((bytes, Others::of(&metadata).problem(path)))
    }
}

/// Reads a secret that the command line names, from where the process runs.
///
/// # Errors
/// What is wrong with the reference or with what it names, never what the secret is.
pub(crate) fn read_secret(reference: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let in_words = |(message, help): Problem| if help.is_empty() { message } else { format!("{message}; {help}") };
    let around = Surroundings { base: Path::new(""), var: &|name| std::env::var_os(name), sealed: &nothing_sealed };
    let reference: SecretRef = reference.parse().map_err(in_words)?;
    Ok(reference.read(&around).map_err(in_words)?.bytes)
}

impl Surroundings<'_> {
    /// A path of the config, made usable from any working directory.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), (self.var)("HOME")) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => self.base.join(path),
        }
    }
}

fn read_env(name: &str, around: &Surroundings<'_>) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let value = (around.var)(name).ok_or_else(|| {
        (format!("env:{name}: this variable is not set"), format!("set {name} for the relay's process"))
    })?;
    Ok(Zeroizing::new(value.into_encoded_bytes()))
}

#[cfg(unix)]
fn others_may_read(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn others_may_read(_: &Metadata) -> bool {
    false
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
            let read = reference.parse::<SecretRef>().unwrap().read(&around);
            read.map(|secret| (secret.bytes.to_vec(), secret.line_break_removed))
                .map_err(|(message, help)| format!("{message}; {help}").replace(self.0.path().to_str().unwrap(), "DIR"))
        }
    }

    #[test]
    fn references_are_read_and_printed() {
        for text in ["env:X", "file:/etc/relay/x", "file:secrets/x", "cred:github"] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
        for bad in ["", "hunter2", "env:", "file:", "cred:../x", "cred:..", "env:A=B", "ENV:X", "whsec_abc:def"] {
            let (message, help) = bad.parse::<SecretRef>().unwrap_err();
            assert!(!message.contains("hunter2") && !message.contains("whsec"), "{message}");
            assert!(help.starts_with("write \"env:NAME\""), "{help}");
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
