//! Where a secret is kept, and reading it from a file that only its owner may read.
//!
//! Configs hold references only, so that they can be shown, copied and put under version control. Nothing here knows
//! what a secret is for. Invariants: a text that is not a reference is never repeated in an error, since it may be the
//! secret itself; what is read is bounded, and wiped when it is dropped.

use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use zeroize::Zeroizing;

use crate::config::Wrong;

/// Where a secret is kept. Safe to print.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    Env(String),
    File(PathBuf),
    /// A systemd credential: a file of that name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// In a store, sealed. Written by a program itself.
    Sealed(String),
}

impl FromStr for SecretRef {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let help = "write \"env:NAME\", \"file:PATH\" or \"cred:NAME\", never the secret itself";
        let (kind, name) = text.split_once(':').unwrap_or_default();
        let plain = !name.is_empty() && !name.contains(['/', '\0', '=']) && name != "..";
        match kind {
            "env" if plain => Ok(Self::Env(name.to_owned())),
            "cred" if plain => Ok(Self::Credential(name.to_owned())),
            "file" if !name.is_empty() => Ok(Self::File(PathBuf::from(name))),
            "sealed" if !name.is_empty() => Ok(Self::Sealed(name.to_owned())),
            "env" | "cred" | "file" => {
                Err(Wrong::new(format!("a reference of kind \"{kind}:\" names nothing usable"), help))
            }
            _ => Err(Wrong::new("this is not a reference to a secret", help)),
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

#[derive(Debug)]
pub enum Unread {
    Public,
    TooLarge,
    Directory,
    Io(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What is in a file that others may not read, and what the system says of that file; at most so many bytes.
pub fn read_private(path: &Path, most: u64) -> Result<(Zeroizing<Vec<u8>>, Metadata), Unread> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Unread::Directory);
    }
    if is_public(&metadata) {
        return Err(Unread::Public);
    }
    Ok((read_bounded(file, most)?, metadata))
}

/// All that comes, in memory that is wiped; at most so many bytes.
pub fn read_bounded(reader: impl io::Read, most: u64) -> Result<Zeroizing<Vec<u8>>, Unread> {
    // Room for most secrets, so that growth seldom leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    reader.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(Unread::TooLarge) } else { Ok(bytes) }
}

#[cfg(unix)]
fn is_public(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o004 != 0
}

/// Elsewhere a user's folder is the user's own.
#[cfg(not(unix))]
fn is_public(_: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_printed() {
        for text in ["env:X", "file:/etc/relay/x", "file:secrets/x", "cred:github"] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
        for bad in ["", "hunter2", "env:", "file:", "cred:../x", "cred:..", "env:A=B", "ENV:X", "whsec_abc:def"] {
            let Wrong { message, help } = bad.parse::<SecretRef>().unwrap_err();
            assert!(!message.contains("hunter2") && !message.contains("whsec"), "{message}");
            assert!(help.starts_with("write \"env:NAME\""), "{help}");
        }
    }
}
