//! What one endpoint verifies with: its configured secrets, those it has learnt, and keys that were fetched.
//!
//! Keys are made ready once for each change, never for a request. Nothing here fetches: [`Keyring::source`] says what
//! is needed, and whoever may use the network brings it. Invariants: an attempt to fetch is noted whatever it brought,
//! so that requests cannot make the relay ask more often than [`MAX_ATTEMPTS`] say; at most [`MAX_NAMED`] certificates are kept.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use relay_schemes::{Keys, Material, NamedKey, Provider, Refusal, Request, Secret, SecretError, SecretWarning};
use tokio::time::Instant;

use super::Policy;

/// Attempts to fetch keys for one endpoint within [`WINDOW`].
const MAX_ATTEMPTS: u32 = 6;

const WINDOW: Duration = Duration::from_secs(60);

/// After this a key set is fetched anew, so that a key that was withdrawn ends.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Certificates and keys by name that are kept.
const MAX_NAMED: usize = 16;

/// Where a key is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A key set, at the address in the config.
    Set(String),
    /// A certificate, at an address on the provider's own host that the request names.
    Named(String),
}

impl KeySource {
    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::Set(url) | Self::Named(url) => url,
        }
    }
}

pub(super) struct Keyring {
    keys: ArcSwapOption<Keys>,
    known: Mutex<Known>,
    tolerance_s: Option<i64>,
}

struct Known {
    /// What the config says; fetched keys are put in here.
    material: Material,
    learnt: Vec<Secret>,
    /// Names that were fetched, the oldest first.
    fetched: Vec<String>,
    set_at: Option<Instant>,
    /// Since when attempts are counted, and how many there were.
    attempts: Option<(Instant, u32)>,
}

impl Keyring {
    pub(super) fn new(
        provider: &Provider,
        material: Material,
        fetches_set: bool,
    ) -> Result<(Self, Vec<SecretWarning>), SecretError> {
        let keys = match provider.keys(&material) {
            // They come with the first request; until then nothing is proven.
            Err(SecretError::PublicKeys(_)) if fetches_set => None,
            keys => keys?,
        };
        let warnings = keys.as_ref().map(|keys| keys.warnings().to_vec()).unwrap_or_default();
        let tolerance_s = material.tolerance_s.map(i64::from);
        let known = Known { material, learnt: Vec::new(), fetched: Vec::new(), set_at: None, attempts: None };
        Ok((Self { keys: ArcSwapOption::new(keys.map(Arc::new)), known: Mutex::new(known), tolerance_s }, warnings))
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Option<Arc<Keys>>> {
        self.keys.load()
    }

    pub(super) const fn tolerance_s(&self) -> Option<i64> {
        self.tolerance_s
    }

    /// Everything that is known now.
    pub(super) fn material(&self) -> Material {
        self.lock().all()
    }

    pub(super) fn set_learnt(&self, provider: &Provider, secrets: Vec<Secret>) {
        let mut known = self.lock();
        known.learnt = secrets;
        self.renew(provider, &known);
    }

    pub(super) fn source(
        &self,
        provider: &Provider,
        policy: &Policy,
        request: &Request<'_>,
        refusal: Option<Refusal>,
    ) -> Option<KeySource> {
        let known = self.lock();
        if known.attempts.is_some_and(|(since, count)| count >= MAX_ATTEMPTS && since.elapsed() < WINDOW) {
            return None;
        }
        if let Some(url) = &policy.jwks_url {
            let old = known.set_at.is_none_or(|at| at.elapsed() > MAX_AGE);
            return (old || refusal == Some(Refusal::KeyUnknown)).then(|| KeySource::Set(url.clone()));
        }
        if refusal != Some(Refusal::KeyUnknown) {
            return None;
        }
        match provider.scheme.as_ref()?.named_key(request)? {
            NamedKey::Url(url) => Some(KeySource::Named(url)),
            NamedKey::Id(_) => None,
        }
    }

    pub(super) fn take(&self, provider: &Provider, source: KeySource, text: Option<String>) {
        let mut known = self.lock();
        let (since, count) =
            known.attempts.filter(|(since, _)| since.elapsed() < WINDOW).unwrap_or((Instant::now(), 0));
        known.attempts = Some((since, count + 1));
        let Some(text) = text else { return };
        let before = known.material.clone();
        match source {
            KeySource::Set(_) => known.material.jwks = Some(text),
            KeySource::Named(name) => {
                if known.fetched.len() >= MAX_NAMED {
                    let oldest = known.fetched.remove(0);
                    known.material.named_keys.remove(&oldest);
                }
                known.fetched.push(name.clone());
                known.material.named_keys.insert(name, text);
            }
        }
        if self.renew(provider, &known) {
            known.set_at = Some(Instant::now());
        } else {
            known.material = before;
        }
    }

    /// Makes the keys anew; those from before stay if that is not possible.
    fn renew(&self, provider: &Provider, known: &Known) -> bool {
        match provider.keys(&known.all()) {
            Ok(keys) => {
                self.keys.store(keys.map(Arc::new));
                true
            }
            Err(error) => {
                tracing::warn!(provider = %provider.name, %error, "keys that were learnt cannot be used");
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn all(&self) -> Material {
        let secrets = self.learnt.iter().chain(&self.material.secrets).cloned().collect();
        Material { secrets, ..self.material.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SET: &str = r#"{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}]}"#;

    #[test]
    fn a_key_set_that_is_fetched_may_come_after_the_start() {
        let pubsub = relay_schemes::provider("google-pubsub").unwrap();
        let settings = ["audience", "email"].map(|name| (name.to_owned(), vec!["x".to_owned()]));
        let material = Material { settings: BTreeMap::from(settings), ..Material::default() };
        let url = "https://keys.example.com/certs";
        let policy = Policy { jwks_url: Some(url.to_owned()), ..Policy::default() };
        let none: [(&str, &str); 0] = [];
        let request = Request { method: "POST", url: "https://hooks.example.com/", headers: &none, body: b"" };

        assert!(Keyring::new(pubsub, material.clone(), false).is_err(), "nobody would bring the keys");
        assert!(Keyring::new(pubsub, Material::default(), true).is_err(), "the settings are missing");
        let (keyring, _) = Keyring::new(pubsub, material, true).unwrap();
        assert!(keyring.keys().is_none());
        let source = keyring.source(pubsub, &policy, &request, None).unwrap();
        assert_eq!(source.url(), url);
        keyring.take(pubsub, source.clone(), Some("no set".to_owned()));
        assert!(keyring.keys().is_none());
        keyring.take(pubsub, source, Some(SET.to_owned()));
        assert!(keyring.keys().is_some());
        assert_eq!(keyring.source(pubsub, &policy, &request, None), None, "it is fresh");
    }
}
