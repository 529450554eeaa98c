//! Secrets that the store writes down: sealed with a key in a file of its own.
//!
//! AES-256-GCM with a random nonce; scope and name are part of what is sealed, so that one secret cannot be put in
//! another's place. The store itself only ever sees sealed bytes.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use bytes::Bytes;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::StoreError;
use crate::state::Others;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// The key that seals. Never printed.
#[derive(Debug)]
pub(crate) struct SealKey(RandomizedNonceKey);

impl SealKey {
    /// The key with these bytes; there must be 32.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, StoreError> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map(Self)
            .map_err(|_| StoreError::Unusable(format!("a sealing key has {KEY_BYTES} bytes, and not {}", bytes.len())))
    }

    /// Reads the key's file. If there is none, one is made that only its owner can read.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let wrong = |what: &dyn std::fmt::Display| StoreError::Unusable(format!("key file {}: {what}", path.display()));
        match fs::read(path) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let metadata = fs::metadata(path).map_err(|error| wrong(&error))?;
                Others::of(&metadata).refuse(path).map_err(|error| wrong(&error))?;
                let mode = metadata.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(wrong(
                        &"others can read it; run chmod 600 on it and change the secrets sealed with it",
                    ));
                }
                Self::new(&bytes).map_err(|error| wrong(&error))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut bytes = Zeroizing::new([0; KEY_BYTES]);
                getrandom::fill(&mut *bytes).map_err(|error| wrong(&error))?;
                create(path, &*bytes).map_err(|error| wrong(&error))?;
                Self::new(&*bytes)
            }
            Err(error) => Err(wrong(&error)),
        }
    }

    pub(crate) fn seal(&self, scope: &str, name: &str, secret: &[u8]) -> Result<Bytes, StoreError> {
        let mut sealed = Zeroizing::new(secret.to_vec());
        let nonce = self.0.seal_in_place_append_tag(place(scope, name), &mut *sealed);
        let nonce = nonce.map_err(|_| StoreError::Internal("a secret could not be sealed".into()))?;
        Ok([&nonce.as_ref()[..], &sealed].concat().into())
    }

    pub(crate) fn unseal(&self, scope: &str, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let wrong = || {
            let what = "was sealed with another key or for another place; restore the key file, or set the secret anew";
            StoreError::Invalid(format!("the secret {name} of {scope} {what}"))
        };
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(wrong)?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        let length = self.0.open_in_place(nonce.into(), place(scope, name), &mut secret).map_err(|_| wrong())?.len();
        secret.truncate(length);
        Ok(secret)
    }
}

/// Whole or not at all, of mode 0600, and never over a key that is there.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::with_prefix_in(".new-", folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn place(scope: &str, name: &str) -> Aad<Vec<u8>> {
    let length = (scope.len() as u64).to_be_bytes();
    Aad::from([&length[..], scope.as_bytes(), name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_in_its_place_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("seal.key");
        let made = SealKey::open(&path).expect("a key");
        let sealed = made.seal("github", "verify", b"whsec").expect("sealed");
        assert!(!sealed.windows(5).any(|window| window == b"whsec"));
        let again = SealKey::open(&path).expect("the same key");
        assert_eq!(&**again.unseal("github", "verify", &sealed).expect("opens"), b"whsec");
        let other = SealKey::new(&[7; 32]).expect("a key");
        assert!(other.unseal("github", "verify", &sealed).is_err());
        assert!(again.unseal("githubv", "erify", &sealed).is_err());
        assert!(again.unseal("github", "verify", &sealed[..20]).is_err());
        assert!(SealKey::new(b"short").is_err());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("seal.key");
        SealKey::open(&path).expect("a key");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let error = SealKey::open(&path).expect_err("refused").to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_key_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("seal.key");
        SealKey::open(&path).expect("a key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o602)).expect("changed");
        let error = SealKey::open(&path).expect_err("refused").to_string();
        assert!(error.contains("everybody on this machine may change"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        SealKey::open(&path).expect("the key");
        // Only root can give a file away.
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a key of another user, which takes root to make");
            return;
        }
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("given away");
        let error = SealKey::open(&path).expect_err("refused").to_string();
        assert!(error.contains("belongs to user 65534") && error.contains("chown"), "{error}");
    }
}
