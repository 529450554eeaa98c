//! The task that looks after certificates: does what is due for each domain, one after the other, and serves what comes of
//! it.
//!
//! It alone owns what is known of the domains; others see [`Acme::missing`]. Invariants: nothing is ordered before the
//! store has said what there is; what ends its work is a stop alone.

use std::{sync::Arc, time::Duration};

use instant_acme::{CertificateIdentifier, Error};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Acme, MissingCertificate, Now,
    certificate::{self, Served},
    fault::{OrderFault, OrderStep},
    keeping::Keeping,
    order::Ca,
    plan::{FailedOrders, RenewalWindow, Situation, Step, ask_again, nap},
};
use crate::{
    config::AcmeSettings,
    store::{StoreError, Vault},
    tls::{Certificate, CertificateSource, Certificates, Challenges, TlsServer},
};

/// How soon the store is asked again that did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(10);

/// What orders and renews.
pub(crate) struct AcmeTask {
    acme: Arc<Acme>,
    changes: watch::Receiver<Option<Arc<AcmeSettings>>>,
    keeping: Keeping,
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    pub(super) now: Now,
    settings: Option<Arc<AcmeSettings>>,
    domains: Vec<Domain>,
}

struct Domain {
    name: String,
    situation: Situation,
    /// What is served; of another CA, too, until there is one of this.
    served: Option<Served>,
    why: Option<String>,
}

impl Domain {
    fn is_served(&self, now: Timestamp) -> bool {
        self.served.as_ref().is_some_and(|served| served.validity.holds(now))
    }
}

impl AcmeTask {
    /// Puts what is kept in the store into use.
    pub(super) async fn begin(
        acme: Arc<Acme>,
        changes: watch::Receiver<Option<Arc<AcmeSettings>>>,
        vault: Vault,
        tls: &TlsServer,
        now: Now,
    ) -> Self {
        let (certificates, challenges) = (Arc::clone(&tls.certificates), Arc::clone(&tls.challenges));
        let (keeping, settings, domains) = (Keeping(vault), None, Vec::new());
        let mut task = Self { acme, changes, keeping, certificates, challenges, now, settings, domains };
        task.take_over().await;
        task
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let work = async {
            loop {
                let now = (self.now)();
                let next = self.step(now).await;
                let pause = next.map_or(nap(Timestamp::MAX, now), |next| nap(next, (self.now)()));
                tokio::select! {
                    changed = self.changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.take_over().await;
                    }
                    () = sleep(pause) => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// Does for each domain what is due; when something is due next.
    pub(super) async fn step(&mut self, now: Timestamp) -> Option<Timestamp> {
        let settings = self.settings.clone()?;
        let mut next: Option<Timestamp> = None;
        for number in 0..self.domains.len() {
            let at = match self.domains[number].situation.next(now) {
                Step::Order => {
                    self.order(&settings, number).await;
                    now
                }
                Step::AskWindow => {
                    self.ask_window(&settings, number).await;
                    now
                }
                Step::Wait(at) => at,
            };
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        self.report((self.now)());
        next
    }

    /// Takes the settings as they are now, and what the store has for their domains.
    pub(super) async fn take_over(&mut self) {
        let settings = self.changes.borrow_and_update().clone();
        let mut domains = Vec::new();
        for name in settings.iter().flat_map(|settings| &settings.domains) {
            let directory = settings.as_ref().map_or("", |settings| &settings.directory);
            domains.push(self.read(name, directory).await);
        }
        (self.domains, self.settings) = (domains, settings);
        self.serve();
        self.report((self.now)());
    }

    /// What the store has for a domain.
    async fn read(&self, name: &str, directory: &str) -> Domain {
        let (kept, failed) = loop {
            let read = async {
                Ok::<_, StoreError>((self.keeping.certificate(name).await?, self.keeping.failed(name).await?))
            };
            match read.await {
                Ok(read) => break read,
                // Nothing is ordered before it is known that there is nothing.
                Err(error @ StoreError::Failed(_)) => {
                    tracing::error!(domain = name, %error, "which certificate there is cannot be read");
                    break (None, None);
                }
                Err(error) => {
                    tracing::warn!(domain = name, %error, "which certificate there is cannot be read yet");
                    sleep(STORE_PAUSE).await;
                }
            }
        };
        let served = kept.and_then(|kept| match kept.open(name) {
            Ok(served) => Some(served),
            Err(why) => {
                tracing::warn!(domain = name, "the kept certificate cannot be used: {why}; another one is ordered");
                None
            }
        });
        // Another CA's certificate goes on until this one has given its own.
        let of_this_ca = served.as_ref().filter(|served| served.directory == directory);
        let situation = Situation {
            held: of_this_ca.map(|served| served.validity),
            window: None,
            ask_at: of_this_ca.and_then(|served| served.id.as_ref()).map(|_| (self.now)()),
            failed: failed.map(FailedOrders::forgiven),
            random: random(),
        };
        Domain { name: name.to_owned(), situation, served, why: None }
    }

    async fn order(&mut self, settings: &AcmeSettings, number: usize) {
        let domain = &self.domains[number];
        let name = domain.name.clone();
        // Only an order in the place of a certificate of this CA, of which it has told when to renew it.
        let is_known = domain.situation.window.is_some();
        let replaces = domain.served.as_ref().and_then(|served| served.id.clone()).filter(|_| is_known);
        tracing::info!(domain = name, challenge = settings.challenge.name(), "a certificate is ordered");
        let (ordered, asked) = match Ca::new(settings, &self.keeping, &self.challenges) {
            Ok(ca) => {
                let ordered = self.ordered(&ca, &name, replaces.as_ref()).await;
                (ordered, ca.client().take_asked_wait())
            }
            Err(fault) => (Err(fault), None),
        };
        let now = (self.now)();
        let domain = &mut self.domains[number];
        let before = domain.situation.failed;
        match ordered {
            Ok(served) => {
                let validity = served.validity;
                let is_early = domain.situation.held.is_some_and(|held| held.is_young(now));
                let ask_at = served.id.as_ref().map(|_| now);
                domain.served = Some(served);
                domain.situation =
                    Situation { held: Some(validity), window: None, ask_at, failed: None, random: random() };
                domain.why = None;
                let is_wrong = domain.situation.next(now) == Step::Order || !validity.holds(now);
                domain.situation.failed =
                    (is_early || is_wrong).then(|| FailedOrders::and(before, None, random(), now));
                if is_wrong {
                    domain.why = Some(format!(
                        "the CA's certificate is good from {:.0} to {:.0}, and this machine's clock says {now:.0}; set \
                         the clock",
                        validity.from, validity.until
                    ));
                }
                self.serve();
                tracing::info!(domain = name, until = %validity.until, "a certificate was issued");
            }
            Err(fault) => {
                domain.situation.failed = Some(FailedOrders::and(before, asked, random(), now));
                domain.why = Some(fault.text);
            }
        }
        self.complain(number, now);
        let failed = self.domains[number].situation.failed;
        if failed.is_some() || before.is_some() {
            // Without it a restart tries again sooner, which does no harm once.
            if let Err(error) = self.keeping.keep_failed(&name, failed.as_ref()).await {
                tracing::warn!(domain = name, %error, "that an order failed could not be noted");
            }
        }
    }

    async fn ordered(
        &self,
        ca: &Ca<'_>,
        name: &str,
        replaces: Option<&CertificateIdentifier<'static>>,
    ) -> Result<Served, OrderFault> {
        let issued = ca.order(name, replaces).await?;
        let served = issued.open(name).map_err(|why| OrderFault::new(OrderStep::Download, why))?;
        let kept = self.keeping.keep_certificate(name, &issued).await;
        kept.map_err(|error| OrderFault::new(OrderStep::Keep, error))?;
        Ok(served)
    }

    /// Says that there is no certificate, or no new one: an error once nobody believes what is served.
    fn complain(&self, number: usize, now: Timestamp) {
        let Domain { name: domain, situation, why, .. } = &self.domains[number];
        let (Some(why), Some(failed)) = (why, situation.failed) else { return };
        let (retry_at, failures) = (failed.retry_at(now), failed.count());
        if self.domains[number].is_served(now) {
            tracing::warn!(domain, failures, %retry_at, "the certificate is not renewed yet; {why}");
        } else {
            tracing::error!(domain, failures, %retry_at, "there is no certificate, and senders refuse the relay; {why}");
        }
    }

    async fn ask_window(&mut self, settings: &AcmeSettings, number: usize) {
        let found = self.window(settings, number).await;
        let now = (self.now)();
        let domain = &mut self.domains[number];
        match found {
            Ok(Some((window, says))) => {
                if domain.situation.window != Some(window) {
                    tracing::info!(
                        domain = domain.name, start = %window.start, end = %window.end,
                        "the CA says when it wants the certificate to be renewed"
                    );
                }
                domain.situation.window = Some(window);
                domain.situation.ask_at = Some(ask_again(Some(says), now));
            }
            Ok(None) => (domain.situation.window, domain.situation.ask_at) = (None, Some(ask_again(None, now))),
            Err(fault) => {
                // Two thirds of the lifetime are the plan then, or what the CA said before.
                tracing::debug!(domain = domain.name, "the CA does not say when it wants a renewal: {}", fault.text);
                domain.situation.ask_at = Some(ask_again(None, now));
            }
        }
    }

    async fn window(
        &self,
        settings: &AcmeSettings,
        number: usize,
    ) -> Result<Option<(RenewalWindow, Duration)>, OrderFault> {
        let Some(id) = self.domains[number].served.as_ref().and_then(|served| served.id.as_ref()) else {
            return Ok(None);
        };
        let ca = Ca::new(settings, &self.keeping, &self.challenges)?;
        let Some(account) = ca.kept_account().await? else { return Ok(None) };
        match account.renewal_info(id).await {
            Ok((info, says)) => {
                let at = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
                let suggested = info.suggested_window;
                let (start, end) = (at(suggested.start.unix_timestamp()), at(suggested.end.unix_timestamp()));
                Ok(Some((RenewalWindow { start, end }, says)))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(ca.fault(OrderStep::Directory)(error)),
        }
    }

    /// Handshakes from now on get what there is.
    fn serve(&self) {
        let (mut issued, mut stand_ins) = (Vec::new(), Vec::new());
        for domain in &self.domains {
            match &domain.served {
                Some(served) => issued.push(again(&served.certificate)),
                None => match certificate::stand_in(&domain.name) {
                    Ok(stand_in) => stand_ins.push(stand_in),
                    Err(why) => tracing::error!(domain = domain.name, "no stand-in can be made: {why}"),
                },
            }
        }
        self.certificates.replace(CertificateSource::Acme, issued);
        self.certificates.replace(CertificateSource::StandIn, stand_ins);
    }

    fn report(&self, now: Timestamp) {
        let missing = self.domains.iter().filter(|domain| !domain.is_served(now)).map(|domain| {
            let retry_at = domain.situation.failed.map(|failed| failed.retry_at(now));
            let missing = MissingCertificate { domain: domain.name.clone(), why: domain.why.clone(), retry_at };
            (domain.name.clone(), missing)
        });
        *self.acme.missing.lock() = missing.collect();
    }
}

/// The same certificate once more.
fn again(certificate: &Certificate) -> Certificate {
    Certificate {
        source: certificate.source,
        names: certificate.names.clone(),
        addresses: certificate.addresses.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        key: Arc::clone(&certificate.key),
    }
}

/// Any number; where the system has none, the middle of them spreads nothing and harms nothing.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}
