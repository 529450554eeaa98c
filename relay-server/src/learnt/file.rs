//! The file in which an older relay kept what it had learnt: read once, taken into the store, and removed.

use std::{collections::BTreeMap, fs, io};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
#[cfg(test)]
use data_encoding::BASE64;
use relay_schemes::Secret;
use zeroize::Zeroizing;

use super::Stored;
use crate::state::StateDir;

/// Its name in the state directory.
pub(super) const FILE: &str = "learnt.sealed";

/// What it is sealed for, and in which version of its format.
const PURPOSE: &[u8] = b"relay learnt secrets 1";

/// All of it: by endpoint, the newest first.
type All = BTreeMap<String, Vec<Secret>>;

/// What the file holds, if it is there; `key` is the name of the file with its key.
pub(super) fn read(state: &StateDir, key: &str) -> io::Result<Option<All>> {
    let Some(sealed) = state.read(FILE)? else { return Ok(None) };
    let wrong = || {
        io::Error::other(format!(
            "{FILE} is not as the relay wrote it; bring back the file and {key} from the same backup, or move {FILE} \
             away and let the provider repeat its handshake"
        ))
    };
    let key = state.read(key)?.ok_or_else(wrong)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| wrong())?;
    unseal(&key, sealed).ok_or_else(wrong).map(Some)
}

pub(super) fn remove(state: &StateDir) -> io::Result<()> {
    fs::remove_file(state.file(FILE))?;
    fs::File::open(state.path())?.sync_all()
}

fn unseal(key: &RandomizedNonceKey, mut sealed: Zeroizing<Vec<u8>>) -> Option<All> {
    let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let text = key.open_in_place(nonce, Aad::from(PURPOSE), text).ok()?;
    let stored: BTreeMap<String, Stored> = {
        #[derive(serde::Deserialize)]
        struct File {
            endpoints: BTreeMap<String, Stored>,
        }
        serde_json::from_slice::<File>(text).ok()?.endpoints
    };
    stored.into_iter().map(|(name, stored)| Some((name, stored.open()?))).collect()
}

/// Writes the file as the older relay did.
#[cfg(test)]
pub(super) fn write(state: &StateDir, key: &str, endpoint: &str, secrets: &[&str]) {
    let texts: Vec<String> = secrets.iter().map(|secret| BASE64.encode(secret.as_bytes())).collect();
    let mut bytes = serde_json::json!({ "endpoints": { endpoint: texts } }).to_string().into_bytes();
    let key = RandomizedNonceKey::new(&AES_256_GCM, &state.read(key).expect("reads").expect("a key")).expect("a key");
    let nonce = key.seal_in_place_append_tag(Aad::from(PURPOSE), &mut bytes).expect("seals");
    state.write(FILE, &[nonce.as_ref(), bytes.as_slice()].concat()).expect("writes");
}
