//! The keys of one endpoint: its configured secrets, those it has learnt, and keys that were fetched.
//!
//! Keys are made ready once for each change, never for a request. Nothing here fetches: [`Keyring::need`] says what is
//! needed, and a caller that may use the network brings it; [`Budget`] says how often. Invariants: no key is fetched
//! twice at a time; a fetched key is kept whole or not at all; at most [`MAX_NAMED`] certificates are kept; a key that
//! cannot be asked for now is never taken for one that does not exist.

mod budget;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use relay_schemes::{Keys, Material, NamedKey, Provider, Refusal, Request, Secret, SecretError, SecretWarning};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use self::budget::{Budget, FetchTurn};
use super::Policy;

/// After this a key set is fetched anew, so that a key that was withdrawn ends.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// Certificates and keys by name that are kept.
const MAX_NAMED: usize = 16;

/// Secrets whose last use is noted.
const MAX_USED: usize = 8;

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

#[derive(Debug)]
pub(crate) enum Need {
    /// Nothing: it needs none, or none is to be had.
    Nothing,
    /// Come again after this time: the key may be there, and cannot be asked for now.
    Later(Duration),
    /// Try again: the key came in the meantime.
    Again,
    Wait(Waiting),
    /// Have it fetched, and wait.
    Fetch(Fetch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchEnd {
    Brought,
    /// The provider says that it has no such key.
    Gone,
    /// The provider could not be asked, or what it said cannot be used.
    Failed,
}

#[derive(Debug)]
pub(crate) enum Fetched {
    Text(String),
    Gone,
    Failed,
}

/// A key that is to be fetched by whoever has this. Dropping it tells those who wait that nothing came.
#[derive(Debug)]
pub(crate) struct Fetch {
    source: KeySource,
    done: watch::Sender<Option<FetchEnd>>,
}

impl Fetch {
    pub(crate) fn url(&self) -> &str {
        self.source.url()
    }

    /// Waits for its end, as those do who came later.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting(self.done.subscribe())
    }
}

#[derive(Debug)]
pub(crate) struct Waiting(watch::Receiver<Option<FetchEnd>>);

impl Waiting {
    /// How it ended, at `deadline` at the latest.
    pub(crate) async fn ended(mut self, deadline: Instant) -> FetchEnd {
        match timeout_at(deadline, self.0.wait_for(Option::is_some)).await {
            Ok(Ok(end)) => end.unwrap_or(FetchEnd::Failed),
            Ok(Err(_)) | Err(_) => FetchEnd::Failed,
        }
    }
}

pub(super) struct Keyring {
    keys: ArcSwapOption<Keys>,
    fetches: bool,
    known: Mutex<Known>,
    pub(super) tolerance_s: Option<i64>,
    /// When each shared secret last verified a request, in seconds since 1970; 0: not since the keys are these.
    used: [AtomicI64; MAX_USED],
}

struct Known {
    /// What the config says; fetched keys are put in here.
    material: Material,
    learnt: Option<Secret>,
    /// Names that were fetched, the oldest first.
    fetched: Vec<String>,
    set_at: Option<Instant>,
    budget: Budget,
    /// What is being fetched: as many as the budget lets begin, each as long as a request of the relay's own.
    under_way: Vec<(KeySource, watch::Receiver<Option<FetchEnd>>)>,
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
            learnt: None,
            fetched: Vec::new(),
            set_at: None,
            budget: Budget::default(),
            under_way: Vec::new(),
        };
        let keyring = Self {
            keys: ArcSwapOption::new(keys.map(Arc::new)),
            fetches: fetches_set || named,
            known: Mutex::new(known),
            tolerance_s,
            used: Default::default(),
        };
        Ok((keyring, warnings))
    }

    /// Whether keys may have to be fetched.
    pub(super) const fn fetches(&self) -> bool {
        self.fetches
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Option<Arc<Keys>>> {
        self.keys.load()
    }

    /// A secret has verified a request.
    pub(super) fn note_use(&self, key_index: usize, now_unix_s: i64) {
        // Once a second at most: many threads verify with the same one.
        if let Some(used) = self.used.get(key_index).filter(|used| used.load(Ordering::Relaxed) != now_unix_s) {
            used.store(now_unix_s, Ordering::Relaxed);
        }
    }

    /// The shared secrets, from 1, and when each was last used.
    pub(super) fn uses(&self) -> impl Iterator<Item = (usize, Option<i64>)> {
        let shared = self.keys().as_ref().map_or(0, |keys| keys.shared());
        let used = move |at: usize| self.used.get(at).map(|used| used.load(Ordering::Relaxed)).filter(|at| *at > 0);
        (0..shared).map(move |at| (at + 1, used(at)))
    }

    pub(super) fn material(&self) -> Material {
        let known = self.known.lock();
        all_of(&known.learnt, &known.material)
    }

    pub(super) fn set_learnt(&self, provider: &Provider, secret: Option<Secret>) {
        let mut known = self.known.lock();
        known.learnt = secret;
        self.renew(provider, &all_of(&known.learnt, &known.material));
    }

    /// What a request that came at `started` has to do before it is judged, or judged again after `refusal`.
    pub(super) fn need(
        &self,
        provider: &Provider,
        policy: &Policy,
        request: &Request<'_>,
        (started, client): (Instant, IpAddr),
        refusal: Option<Refusal>,
    ) -> Need {
        // Most rules have all their keys: their requests wait for no lock.
        if !self.fetches {
            return Need::Nothing;
        }
        let lacking = refusal == Some(Refusal::KeyUnknown);
        if let Some(url) = &policy.jwks_url {
            let mut known = self.known.lock();
            return match known.set_at {
                // What is not in a set that is newer than the request is in none.
                Some(at) if lacking && at >= started => Need::Again,
                Some(at) if !lacking && at.elapsed() <= MAX_AGE => Need::Nothing,
                // One request waits for a set that is only old; the others go on with it, also while the provider is down.
                _ => match known.fetch(KeySource::Set(url.clone()), client) {
                    Need::Wait(_) | Need::Later(_) if !lacking && self.keys.load().is_some() => Need::Nothing,
                    need => need,
                },
            };
        }
        // A certificate that was fetched and has run out may have been renewed in its place.
        let refused = refusal == Some(Refusal::CertificateRefused);
        let named = provider.scheme.as_ref().filter(|_| lacking || refused);
        let Some(NamedKey::Url(url)) = named.and_then(|scheme| scheme.named_key(request)) else {
            return Need::Nothing;
        };
        let mut known = self.known.lock();
        if lacking && known.material.named_keys.contains_key(&url) {
            return Need::Again;
        }
        if refused && !known.fetched.contains(&url) {
            return Need::Nothing;
        }
        match known.fetch(KeySource::Named(url), client) {
            Need::Later(_) if refused => Need::Nothing,
            need => need,
        }
    }

    /// Takes what was fetched, and tells those who wait. What cannot be used changes nothing.
    pub(super) fn take(&self, provider: &Provider, fetch: Fetch, fetched: Fetched) -> FetchEnd {
        let Fetch { source, done } = fetch;
        let mut known = self.known.lock();
        known.under_way.retain(|(under_way, _)| *under_way != source);
        let end = match (fetched, &source) {
            (Fetched::Text(text), _) => match self.keep(provider, &mut known, &source, text) {
                true => FetchEnd::Brought,
                false => FetchEnd::Failed,
            },
            (Fetched::Gone, KeySource::Named(_)) => FetchEnd::Gone,
            // A set is always somewhere.
            (Fetched::Gone | Fetched::Failed, _) => FetchEnd::Failed,
        };
        known.budget.ended(source.url(), end);
        drop(known);
        done.send_replace(Some(end));
        end
    }

    /// What was fetched, each with its address, the oldest first.
    pub(super) fn fetched(&self, policy: &Policy) -> Vec<(String, String)> {
        let known = self.known.lock();
        let text = |name: &String| Some((name.clone(), known.material.named_keys.get(name)?.clone()));
        let set = policy.jwks_url.clone().zip(known.material.jwks.clone());
        known.fetched.iter().filter_map(text).chain(set).collect()
    }

    /// Takes what was fetched before a restart or a reload, where it is not known. A set from then counts as old.
    pub(super) fn restore(&self, provider: &Provider, policy: &Policy, all: &[(String, String)]) {
        if !self.fetches {
            return;
        }
        let mut known = self.known.lock();
        let (mut material, mut fetched) = (known.material.clone(), known.fetched.clone());
        for (url, text) in all {
            match &policy.jwks_url {
                Some(set) if set == url && material.jwks.is_none() => material.jwks = Some(text.clone()),
                None if fetched.len() < MAX_NAMED && !material.named_keys.contains_key(url) => {
                    material.named_keys.insert(url.clone(), text.clone());
                    fetched.push(url.clone());
                }
                _ => {}
            }
        }
        if self.renew(provider, &all_of(&known.learnt, &material)) {
            (known.material, known.fetched) = (material, fetched);
        }
    }

    fn keep(&self, provider: &Provider, known: &mut Known, source: &KeySource, text: String) -> bool {
        let (mut material, mut fetched, mut set_at) = (known.material.clone(), known.fetched.clone(), known.set_at);
        match source {
            KeySource::Set(_) => {
                material.jwks = Some(text);
                set_at = Some(Instant::now());
            }
            KeySource::Named(name) => {
                fetched.retain(|other| other != name);
                if fetched.len() >= MAX_NAMED {
                    material.named_keys.remove(&fetched.remove(0));
                }
                fetched.push(name.clone());
                material.named_keys.insert(name.clone(), text);
            }
        }
        let renewed = self.renew(provider, &all_of(&known.learnt, &material));
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
                self.used.iter().for_each(|used| used.store(0, Ordering::Relaxed));
                true
            }
            Err(error) => {
                tracing::warn!(provider = %provider.name, %error, "keys that were learnt cannot be used");
                false
            }
        }
    }
}

impl Known {
    /// The end of the fetch that is under way, or a new one if there may be one.
    fn fetch(&mut self, source: KeySource, client: IpAddr) -> Need {
        // One that was dropped fetches no more.
        self.under_way.retain(|(_, done)| done.has_changed().is_ok());
        if let Some((_, done)) = self.under_way.iter().find(|(under_way, _)| *under_way == source) {
            return Need::Wait(Waiting(done.clone()));
        }
        // A set is the config's own, and a certificate that was good once is no invention.
        let trusted = match &source {
            KeySource::Set(_) => true,
            KeySource::Named(url) => self.fetched.contains(url) || self.budget.has_worked(url),
        };
        match self.budget.take(source.url(), (!trusted).then_some(client), Instant::now()) {
            FetchTurn::Go => {}
            FetchTurn::Gone => return Need::Nothing,
            FetchTurn::Wait(time) => return Need::Later(time),
        }
        let (done, waiting) = watch::channel(None);
        self.under_way.push((source.clone(), waiting));
        Need::Fetch(Fetch { source, done })
    }
}

fn all_of(learnt: &Option<Secret>, material: &Material) -> Material {
    let secrets = learnt.iter().chain(&material.secrets).cloned().collect();
    Material { secrets, ..material.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{budget::*, *};

    const SET: &str = r#"{"keys":[{"kty":"RSA","kid":"1","n":"AQAB","e":"AQAB"}]}"#;
    const SET_URL: &str = "https://keys.example.com/certs";
    const LACKING: Option<Refusal> = Some(Refusal::KeyUnknown);
    const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

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
            self.keyring.need(self.provider, &self.policy, &request, (started, SENDER), refusal)
        }

        fn fetch(&self, cert_url: &str, refusal: Option<Refusal>) -> Fetch {
            match self.need(cert_url, refusal) {
                Need::Fetch(fetch) => fetch,
                need => panic!("{need:?}"),
            }
        }

        fn take(&self, fetch: Fetch, text: Option<&str>) {
            let fetched = text.map_or(Fetched::Failed, |text| Fetched::Text(text.to_owned()));
            self.keyring.take(self.provider, fetch, fetched);
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
        assert!(matches!(ring.need("", None), Need::Later(_)), "nothing can be proven yet, and not nothing is there");
        let before = Instant::now();
        tokio::time::advance(FIRST_PAUSE).await;
        ring.take(ring.fetch("", None), Some(SET));
        assert!(ring.keyring.keys().is_some());
        assert!(matches!(ring.need("", None), Need::Nothing), "it is fresh");
        assert!(matches!(ring.need_since(before, "", LACKING), Need::Again), "it is newer than the request");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(ring.need("", LACKING), Need::Later(_)), "a moment ago it was not in it");
        tokio::time::advance(FIRST_PAUSE).await;
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
        tokio::time::advance(FIRST_PAUSE).await;
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
        let early = deadline - Duration::from_secs(9);
        assert_eq!(hasty.ended(early).await, FetchEnd::Failed, "its own deadline came first");
        let (own, second, ()) =
            tokio::join!(own.ended(deadline), second.ended(deadline), async { ring.take(fetch, Some(&cert)) });
        assert_eq!((own, second), (FetchEnd::Brought, FetchEnd::Brought));
        assert!(matches!(ring.need(&cert_url(1), LACKING), Need::Again), "for who was refused a moment before");

        drop(other);
        tokio::time::advance(FIRST_PAUSE).await;
        let fetch = ring.fetch(&cert_url(2), LACKING);
        let third = match ring.need(&cert_url(2), LACKING) {
            Need::Wait(waiting) => waiting,
            need => panic!("{need:?}"),
        };
        ring.take(fetch, None);
        assert_eq!(third.ended(deadline).await, FetchEnd::Failed, "nothing came");
    }

    #[tokio::test(start_paused = true)]
    async fn invented_names_use_up_what_is_for_new_ones_and_nothing_else() {
        let (ring, cert) = (Ring::paypal(), cert());
        ring.take(ring.fetch(&cert_url(0), LACKING), Some(&cert));
        for number in 1..MAX_NEW_PER_SENDER {
            drop(ring.fetch(&cert_url(number), LACKING));
        }
        assert!(matches!(ring.need(&cert_url(99), LACKING), Need::Later(_)), "it may be right");
        assert!(matches!(ring.need(&cert_url(0), LACKING), Need::Again), "it is there");
        for host in ["api.paypal.com.evil.example", "api.paypal.com:444"] {
            assert!(matches!(
                ring.need(&format!("https://{host}/v1/notifications/certs/CERT-1"), LACKING),
                Need::Nothing
            ));
        }
        // What ran out is asked for again, in its own time.
        let expired = Some(Refusal::CertificateRefused);
        tokio::time::advance(FIRST_PAUSE).await;
        ring.take(ring.fetch(&cert_url(0), expired), Some(&cert));
        assert!(matches!(ring.need(&cert_url(0), expired), Need::Nothing), "that was a moment ago");
        assert!(matches!(ring.need(&cert_url(99), expired), Need::Nothing), "it was never there");
        tokio::time::advance(WINDOW).await;
        let fetch = ring.fetch(&cert_url(99), LACKING);
        assert_eq!(ring.keyring.take(ring.provider, fetch, Fetched::Gone), FetchEnd::Gone);
        assert!(matches!(ring.need(&cert_url(99), LACKING), Need::Nothing), "the provider has said so");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_fetched_before_a_restart_is_good_without_asking() {
        let (old, cert) = (Ring::paypal(), cert());
        for number in [1, 2] {
            old.take(old.fetch(&cert_url(number), LACKING), Some(&cert));
        }
        let kept = old.keyring.fetched(&old.policy);
        assert_eq!(kept, [(cert_url(1), cert.clone()), (cert_url(2), cert.clone())]);
        let new = Ring::paypal();
        new.keyring.restore(new.provider, &new.policy, &kept);
        assert_eq!(new.named(), [cert_url(1), cert_url(2)]);
        assert!(matches!(new.need(&cert_url(2), LACKING), Need::Again));
        new.keyring.restore(new.provider, &new.policy, &[(cert_url(3), "no certificate".to_owned())]);
        assert_eq!(new.named(), [cert_url(1), cert_url(2)], "what cannot be used changes nothing");

        let old = Ring::pubsub();
        old.take(old.fetch("", None), Some(SET));
        let kept = old.keyring.fetched(&old.policy);
        let new = Ring::pubsub();
        new.keyring.restore(new.provider, &new.policy, &[("https://other.example.com/".to_owned(), SET.to_owned())]);
        assert!(new.keyring.keys().is_none(), "a set from elsewhere");
        new.keyring.restore(new.provider, &new.policy, &kept);
        assert!(new.keyring.keys().is_some());
        new.take(new.fetch("", None), None);
        assert!(matches!(new.need("", None), Need::Nothing), "the provider is away, and the old set will do");
        assert!(matches!(new.need("", LACKING), Need::Later(_)), "it does not do, and nobody can be asked");
    }

    #[test]
    fn a_rule_that_never_fetches_takes_no_lock() {
        let ring = Ring::new("github", &[], None).expect("a secret");
        // If it did, this would never end.
        let _held = ring.keyring.known.lock();
        assert!(matches!(ring.need("", None), Need::Nothing));
        assert!(matches!(ring.need(&cert_url(1), LACKING), Need::Nothing));
    }
}
