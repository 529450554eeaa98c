//! Secrets that a provider told the relay in a handshake, sealed on disk.
//!
//! The file holds AES-256-GCM under a key of its own file, both of mode 0600 in the state directory, so that a copy of
//! the secrets alone (a backup, an image) opens nothing. A secret is on disk before the handshake that brought it is
//! answered: a provider signs with it from then on and does not tell it twice.
//!
//! Invariants: at most [`MAX_PER_ENDPOINT`] of an endpoint, the newest first; a secret is never printed; a file that
//! cannot be opened ends the start, since going on would lose what it holds.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use data_encoding::BASE64;
use relay_schemes::Secret;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::state::StateDir;

/// Secrets that one endpoint keeps; an older one goes when a newer comes.
pub const MAX_PER_ENDPOINT: usize = 4;

/// Largest secret that is taken from a handshake, in bytes.
pub const MAX_SECRET_BYTES: usize = 1024;

/// Endpoints that can have learnt secrets; names come from the config, and this bounds what old ones leave behind.
const MAX_ENDPOINTS: usize = 1024;

const KEY_FILE: &str = "sealing.key";
const KEY_BYTES: usize = 32;
const FILE: &str = "learnt.sealed";

/// What the file is sealed for, and in which version of its format.
const PURPOSE: &[u8] = b"relay learnt secrets 1";

/// The learnt secrets of all endpoints.
pub struct Learnt {
    key: RandomizedNonceKey,
    secrets: Mutex<BTreeMap<String, Vec<Secret>>>,
}

#[derive(Default, Deserialize, Serialize)]
struct Stored {
    /// Base64, the newest first.
    endpoints: BTreeMap<String, Vec<String>>,
}

impl Learnt {
    /// Opens what is there, or begins with nothing and a new key.
    ///
    /// # Errors
    /// If a file cannot be read, made or opened with the key.
    pub fn open(state: &StateDir) -> io::Result<Self> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key(state)?).map_err(|_| wrong(KEY_FILE))?;
        let secrets = match state.read(FILE)? {
            Some(sealed) => unseal(&key, sealed).ok_or_else(|| wrong(FILE))?,
            None => BTreeMap::new(),
        };
        Ok(Self { key, secrets: Mutex::new(secrets) })
    }

    /// An endpoint's secrets, the newest first.
    #[must_use]
    pub fn of(&self, endpoint: &str) -> Vec<Secret> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint).cloned().unwrap_or_default()
    }

    /// Keeps a secret; when this returns, it is on disk. One that is known already becomes the newest.
    ///
    /// # Errors
    /// If it is too long, there are too many, or it cannot be written; nothing is changed then.
    pub fn keep(&self, state: &StateDir, endpoint: &str, secret: Secret) -> io::Result<()> {
        if secret.expose().is_empty() || secret.expose().len() > MAX_SECRET_BYTES {
            return Err(io::Error::other("a secret of this length is not taken"));
        }
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secrets.len() >= MAX_ENDPOINTS && !secrets.contains_key(endpoint) {
            return Err(io::Error::other("too many endpoints have learnt secrets"));
        }
        let mut changed = secrets.clone();
        let known = changed.entry(endpoint.to_owned()).or_default();
        known.retain(|other| other.expose() != secret.expose());
        known.insert(0, secret);
        known.truncate(MAX_PER_ENDPOINT);
        // Under the lock: of two that come at once, the second file holds both.
        state.write(FILE, &seal(&self.key, &changed)?)?;
        *secrets = changed;
        Ok(())
    }
}

fn wrong(file: &str) -> io::Error {
    io::Error::other(format!(
        "{file} is not as the relay wrote it; bring back the file and {KEY_FILE} from the same backup, or move both \
         away and let the provider repeat its handshake"
    ))
}

/// The sealing key, made at the first start.
fn key(state: &StateDir) -> io::Result<Zeroizing<Vec<u8>>> {
    if let Some(key) = state.read(KEY_FILE)? {
        return if key.len() == KEY_BYTES { Ok(key) } else { Err(wrong(KEY_FILE)) };
    }
    let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    state.write(KEY_FILE, &key)?;
    Ok(key)
}

/// A nonce and the sealed text behind it.
fn seal(key: &RandomizedNonceKey, secrets: &BTreeMap<String, Vec<Secret>>) -> io::Result<Vec<u8>> {
    let text = |secret: &Secret| BASE64.encode(secret.expose());
    let endpoints = secrets.iter().map(|(name, secrets)| (name.clone(), secrets.iter().map(text).collect())).collect();
    let mut stored = Stored { endpoints };
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let written = serde_json::to_writer(&mut *bytes, &stored).map_err(io::Error::other);
    stored.endpoints.values_mut().flatten().for_each(|text| text.zeroize());
    written?;
    let nonce = key.seal_in_place_append_tag(Aad::from(PURPOSE), &mut *bytes).map_err(io::Error::other)?;
    Ok([nonce.as_ref(), bytes.as_slice()].concat())
}

fn unseal(key: &RandomizedNonceKey, mut sealed: Zeroizing<Vec<u8>>) -> Option<BTreeMap<String, Vec<Secret>>> {
    let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let text = key.open_in_place(nonce, Aad::from(PURPOSE), text).ok()?;
    let stored: Stored = serde_json::from_slice(text).ok()?;
    let secret = |text: String| {
        let text = Zeroizing::new(text);
        BASE64.decode(text.as_bytes()).map(Secret::new).ok()
    };
    stored
        .endpoints
        .into_iter()
        .map(|(name, texts)| Some((name, texts.into_iter().map(secret).collect::<Option<_>>()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(learnt: &Learnt, endpoint: &str) -> Vec<Vec<u8>> {
        learnt.of(endpoint).iter().map(|secret| secret.expose().to_vec()).collect()
    }

    #[test]
    fn a_secret_survives_and_stands_nowhere_in_clear() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let learnt = Learnt::open(&state).unwrap();
        assert!(learnt.of("asana").is_empty());
        learnt.keep(&state, "asana", Secret::new("hunter2 hunter2")).unwrap();
        let again = Learnt::open(&state).unwrap();
        assert_eq!(texts(&again, "asana"), [b"hunter2 hunter2"]);
        for entry in std::fs::read_dir(place.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
            assert!(!bytes.windows(8).any(|part| part == &BASE64.encode(b"hunter2 hunter2").as_bytes()[..8]));
        }
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        let learnt = Learnt::open(&state).unwrap();
        for secret in ["1", "2", "3", "4", "5", "4"] {
            learnt.keep(&state, "asana", Secret::new(secret)).unwrap();
        }
        assert_eq!(texts(&learnt, "asana"), [b"4", b"5", b"3", b"2"]);
        for bad in [vec![], vec![b'x'; MAX_SECRET_BYTES + 1]] {
            assert!(learnt.keep(&state, "asana", Secret::new(bad)).is_err());
        }
        assert_eq!(texts(&Learnt::open(&state).unwrap(), "asana").len(), MAX_PER_ENDPOINT);
    }

    #[test]
    fn files_that_were_changed_are_refused_and_nothing_is_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(place.path()).unwrap();
        Learnt::open(&state).unwrap().keep(&state, "asana", Secret::new("hunter2")).unwrap();
        let good = state.read(FILE).unwrap().unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            state.write(FILE, &bad).unwrap();
            let error = Learnt::open(&state).err().expect("refused").to_string();
            assert!(error.contains(FILE), "{error}");
        }
        state.write(FILE, &good[..5]).unwrap();
        assert!(Learnt::open(&state).is_err());
        state.write(FILE, &good).unwrap();
        state.write(KEY_FILE, b"short").unwrap();
        assert!(Learnt::open(&state).is_err());
    }
}
