//! What one endpoint verifies with: its configured secrets, those it has learnt, and keys that were fetched.
//!
//! Keys are made ready once for each change, never for a request. Nothing here fetches: [`Keyring::need`] says what
//! is needed, and whoever may use the network brings it. Invariants: an attempt to fetch is noted as it begins, so that
//! requests cannot make the relay ask more often than [`MAX_ATTEMPTS`] say; no key is fetched twice at a time; what
//! was fetched is kept whole or not at all; at most [`MAX_NAMED`] certificates are kept.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use relay_schemes::{Keys, Material, NamedKey, Provider, Refusal, Request, Secret, SecretError, SecretWarning};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

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
enum KeySource {
    /// A key set, at the address in the config.
    Set(String),
    /// A certificate, at an address on the provider's own host that the request names.
    Named(String),
}

impl KeySource {
    fn url(&self) -> &str {
        match self {
            Self::Set(url) | Self::Named(url) => url,
        }
    }
}

/// What a request has to do for a key.
#[derive(Debug)]
pub enum Need {
    /// Nothing: it needs none, or none is to be had.
    Nothing,
    /// Try again: the key came in the meantime.
    Again,
    /// Wait for it: it is being fetched.
    Wait(Waiting),
    /// Have it fetched, and wait.
    Fetch(Fetch),
}

/// A key that is to be fetched by whoever has this. Dropping it tells those who wait that nothing came.
#[derive(Debug)]
pub struct Fetch {
    source: KeySource,
    done: watch::Sender<Option<bool>>,
}

impl Fetch {
    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.source.url()
    }

    /// Waits for its end, as those do who came later.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting(self.done.subscribe())
    }
}

/// The end of a fetch, still to come.
#[derive(Debug)]
pub struct Waiting(watch::Receiver<Option<bool>>);

impl Waiting {
    /// Whether there are new keys, at `deadline` at the latest.
    pub async fn ended(mut self, deadline: Instant) -> bool {
        match timeout_at(deadline, self.0.wait_for(Option::is_some)).await {
            Ok(Ok(brought)) => *brought == Some(true),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

pub(super) struct Keyring {
    keys: ArcSwapOption<Keys>,
    /// Whether there is anything to be fetched, ever.
    fetches: bool,
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
    /// What is being fetched: at most [`MAX_ATTEMPTS`] within [`WINDOW`], each as long as a request of the relay's own.
    under_way: Vec<(KeySource, watch::Receiver<Option<bool>>)>,
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
        let named = provider.scheme.as_ref().is_some_and(relay_schemes::Scheme::names_keys_by_url);
        let known = Known {
            material,
            learnt: Vec::new(),
            fetched: Vec::new(),
            set_at: None,
            attempts: None,
            under_way: Vec::new(),
        };
        let keyring = Self {
            keys: ArcSwapOption::new(keys.map(Arc::new)),
            fetches: fetches_set || named,
            known: Mutex::new(known),
            tolerance_s,
        };
        Ok((keyring, warnings))
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Option<Arc<Keys>>> {
        self.keys.load()
    }

    pub(super) const fn tolerance_s(&self) -> Option<i64> {
        self.tolerance_s
    }

    /// Everything that is known now.
    pub(super) fn material(&self) -> Material {
        let known = self.lock();
        all(&known.learnt, &known.material)
    }

    pub(super) fn set_learnt(&self, provider: &Provider, secrets: Vec<Secret>) {
        let mut known = self.lock();
        known.learnt = secrets;
        self.renew(provider, &all(&known.learnt, &known.material));
    }

    /// What a request that came at `started` has to do before it is judged, or judged again after `refusal`.
    pub(super) fn need(
        &self,
        provider: &Provider,
        policy: &Policy,
        request: &Request<'_>,
        started: Instant,
        refusal: Option<Refusal>,
    ) -> Need {
        // Most rules have all their keys: their requests wait for no lock.
        if !self.fetches {
            return Need::Nothing;
        }
        let lacking = refusal == Some(Refusal::KeyUnknown);
        if let Some(url) = &policy.jwks_url {
            let mut known = self.lock();
            return match known.set_at {
                // What is not in a set that is newer than the request is in none.
                Some(at) if lacking && at >= started => Need::Again,
                Some(at) if !lacking && at.elapsed() <= MAX_AGE => Need::Nothing,
                // One request waits for a set that is only old; the others go on with it, also while the provider is down.
                _ => match known.fetch(KeySource::Set(url.clone())) {
                    Need::Wait(_) if !lacking && self.keys.load().is_some() => Need::Nothing,
                    need => need,
                },
            };
        }
        let named = provider.scheme.as_ref().filter(|_| lacking).and_then(|scheme| scheme.named_key(request));
        let Some(NamedKey::Url(url)) = named else { return Need::Nothing };
        let mut known = self.lock();
        if known.material.named_keys.contains_key(&url) {
            return Need::Again;
        }
        known.fetch(KeySource::Named(url))
    }

    /// Takes what was fetched, and tells those who wait. What cannot be used changes nothing.
    pub(super) fn take(&self, provider: &Provider, fetch: Fetch, text: Option<String>) {
        let Fetch { source, done } = fetch;
        let mut known = self.lock();
        known.under_way.retain(|(under_way, _)| *under_way != source);
        let brought = text.is_some_and(|text| self.keep(provider, &mut known, source, text));
        drop(known);
        done.send_replace(Some(brought));
    }

    fn keep(&self, provider: &Provider, known: &mut Known, source: KeySource, text: String) -> bool {
        let (mut material, mut fetched, mut set_at) = (known.material.clone(), known.fetched.clone(), known.set_at);
        match source {
            KeySource::Set(_) => {
                material.jwks = Some(text);
                set_at = Some(Instant::now());
            }
            KeySource::Named(name) => {
                if fetched.len() >= MAX_NAMED {
                    material.named_keys.remove(&fetched.remove(0));
                }
                fetched.push(name.clone());
                material.named_keys.insert(name, text);
            }
        }
        let renewed = self.renew(provider, &all(&known.learnt, &material));
        if renewed {
            (known.material, known.fetched, known.set_at) = (material, fetched, set_at);
        }
        renewed
    }

    /// Makes the keys anew; those from before stay if that is not possible.
    fn renew(&self, provider: &Provider, material: &Material) -> bool {
        match provider.keys(material) {
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
    /// The end of the fetch that is under way, or a new one if there may be one.
    fn fetch(&mut self, source: KeySource) -> Need {
        // One that was dropped fetches no more.
        self.under_way.retain(|(_, done)| done.has_changed().is_ok());
        if let Some((_, done)) = self.under_way.iter().find(|(under_way, _)| *under_way == source) {
            return Need::Wait(Waiting(done.clone()));
        }
        let (since, count) = self.attempts.filter(|(since, _)| since.elapsed() < WINDOW).unwrap_or((Instant::now(), 0));
        if count >= MAX_ATTEMPTS {
            return Need::Nothing;
        }
        self.attempts = Some((since, count + 1));
        let (done, waiting) = watch::channel(None);
        self.under_way.push((source.clone(), waiting));
        Need::Fetch(Fetch { source, done })
    }
}

fn all(learnt: &[Secret], material: &Material) -> Material {
    let secrets = learnt.iter().chain(&material.secrets).cloned().collect();
    Material { secrets, ..material.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SET: &str = r#"{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}]}"#;
    const SET_URL: &str = "https://keys.example.com/certs";
    const LACKING: Option<Refusal> = Some(Refusal::KeyUnknown);

    /// A keyring, and what its endpoint decides.
    struct Ring {
        keyring: Keyring,
        provider: &'static Provider,
        policy: Policy,
    }

    impl Ring {
        fn new(name: &str, settings: &[&str], jwks_url: Option<&str>) -> Result<Self, SecretError> {
            let provider = relay_schemes::provider(name).expect("a row");
            let settings = settings.iter().map(|name| ((*name).to_owned(), vec!["x".to_owned()]));
            let secrets = vec![Secret::new("whsec_x")];
            let material = Material { secrets, settings: BTreeMap::from_iter(settings), ..Material::default() };
            let policy = Policy { jwks_url: jwks_url.map(str::to_owned), ..Policy::default() };
            let (keyring, _) = Keyring::new(provider, material, jwks_url.is_some())?;
            Ok(Self { keyring, provider, policy })
        }

        fn pubsub() -> Self {
            Self::new("google-pubsub", &["audience", "email"], Some(SET_URL)).expect("keys may come later")
        }

        fn paypal() -> Self {
            Self::new("paypal", &["webhook_id"], None).expect("keys may come later")
        }

        /// What a request needs that came at this moment and that names this certificate.
        fn need(&self, cert_url: &str, refusal: Option<Refusal>) -> Need {
            self.need_since(Instant::now(), cert_url, refusal)
        }

        fn need_since(&self, started: Instant, cert_url: &str, refusal: Option<Refusal>) -> Need {
            let headers = [("paypal-cert-url", cert_url)];
            let request = Request { method: "POST", url: "https://hooks.example.com/", headers: &headers, body: b"" };
            self.keyring.need(self.provider, &self.policy, &request, started, refusal)
        }

        fn fetch(&self, cert_url: &str, refusal: Option<Refusal>) -> Fetch {
            match self.need(cert_url, refusal) {
                Need::Fetch(fetch) => fetch,
                need => panic!("{need:?}"),
            }
        }

        fn take(&self, fetch: Fetch, text: Option<&str>) {
            self.keyring.take(self.provider, fetch, text.map(str::to_owned));
        }

        /// Which certificates are kept.
        fn named(&self) -> Vec<String> {
            self.keyring.material().named_keys.into_keys().collect()
        }
    }

    fn cert_url(number: usize) -> String {
        format!("https://api.paypal.com/v1/notifications/certs/CERT-{number:02}")
    }

    fn cert() -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").pem()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_set_that_is_fetched_may_come_after_the_start() {
        assert!(Ring::new("google-pubsub", &["audience", "email"], None).is_err(), "nobody would bring the keys");
        assert!(Ring::new("google-pubsub", &[], Some(SET_URL)).is_err(), "the settings are missing");
        let ring = Ring::pubsub();
        assert!(ring.keyring.keys().is_none());
        let fetch = ring.fetch("", None);
        assert_eq!(fetch.url(), SET_URL);
        ring.take(fetch, Some("no set"));
        assert!(ring.keyring.keys().is_none());
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        ring.take(ring.fetch("", None), Some(SET));
        assert!(ring.keyring.keys().is_some());
        assert!(matches!(ring.need("", None), Need::Nothing), "it is fresh");
        assert!(matches!(ring.need_since(before, "", LACKING), Need::Again), "it is newer than the request");
        tokio::time::advance(Duration::from_secs(1)).await;
        ring.take(ring.fetch("", LACKING), None);
        tokio::time::advance(MAX_AGE).await;
        let fetch = ring.fetch("", None);
        assert!(matches!(ring.need("", None), Need::Nothing), "the old ones will do");
        assert!(matches!(ring.need("", LACKING), Need::Wait(_)), "they will not do");
        ring.take(fetch, Some(SET));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_changes_nothing() {
        let (ring, cert) = (Ring::paypal(), cert());
        for number in 0..MAX_NAMED {
            ring.take(ring.fetch(&cert_url(number), LACKING), Some(&cert));
            tokio::time::advance(WINDOW).await;
        }
        let kept: Vec<_> = (0..MAX_NAMED).map(cert_url).collect();
        assert_eq!(ring.named(), kept);
        for number in [MAX_NAMED, MAX_NAMED + 1] {
            ring.take(ring.fetch(&cert_url(number), LACKING), Some("no certificate"));
            assert_eq!(ring.named(), kept, "the oldest is still there");
        }
        ring.take(ring.fetch(&cert_url(MAX_NAMED), LACKING), Some(&cert));
        let kept: Vec<_> = (1..=MAX_NAMED).map(cert_url).collect();
        assert_eq!(ring.named(), kept, "the oldest made room, once");
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_fetches_a_key_and_the_others_wait_for_it() {
        let (ring, cert) = (Ring::paypal(), cert());
        let waiting = || match ring.need(&cert_url(1), LACKING) {
            Need::Wait(waiting) => waiting,
            need => panic!("{need:?}"),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let fetch = ring.fetch(&cert_url(1), LACKING);
        let other = ring.fetch(&cert_url(2), LACKING);
        let (own, second, hasty) = (fetch.waiting(), waiting(), waiting());
        assert!(!hasty.ended(deadline - Duration::from_secs(9)).await, "its own deadline came first");
        let (own, second, ()) =
            tokio::join!(own.ended(deadline), second.ended(deadline), async { ring.take(fetch, Some(&cert)) });
        assert!(own && second);
        assert!(matches!(ring.need(&cert_url(1), LACKING), Need::Again), "for who was refused a moment before");

        drop(other);
        let fetch = ring.fetch(&cert_url(2), LACKING);
        let third = match ring.need(&cert_url(2), LACKING) {
            Need::Wait(waiting) => waiting,
            need => panic!("{need:?}"),
        };
        ring.take(fetch, None);
        assert!(!third.ended(deadline).await, "nothing came");
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_are_counted_as_they_begin() {
        let ring = Ring::paypal();
        for number in 0..MAX_ATTEMPTS as usize {
            drop(ring.fetch(&cert_url(number), LACKING));
        }
        assert!(matches!(ring.need(&cert_url(0), LACKING), Need::Nothing));
        tokio::time::advance(WINDOW).await;
        drop(ring.fetch(&cert_url(0), LACKING));
    }

    #[test]
    fn a_rule_that_never_fetches_takes_no_lock() {
        let ring = Ring::new("github", &[], None).expect("a secret");
        // If it did, this would never end.
        let _held = ring.keyring.lock();
        assert!(matches!(ring.need("", None), Need::Nothing));
        assert!(matches!(ring.need(&cert_url(1), LACKING), Need::Nothing));
    }
}
