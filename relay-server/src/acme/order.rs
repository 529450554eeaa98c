//! One order: from an account to a chain of certificates, by one challenge.
//!
//! It plans nothing, keeps nothing but the account, and serves nothing. Invariants: a proof is there from before the CA
//! is told of it until the order is over, whatever its end; the TXT record of a dns-01 proof is cleaned up where its hook
//! was called, also if the order failed. An order ends, each of its waits does.

use std::{sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, ExternalAccountKey, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use relay_program::tls::Trust;

use super::{
    certificate::{self, Issued},
    client::CaClient,
    fault::{OrderFault, OrderStep},
    hook,
    keeping::Keeping,
};
use crate::{
    config::{AcmeChallenge, AcmeSettings},
    tls::{Challenges, OfferedProof},
};

/// How long the CA may take to look at a domain, and to sign.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.4).timeout(Duration::from_secs(3 * 60));

/// A CA that can be asked.
pub(super) struct Ca<'a> {
    settings: &'a AcmeSettings,
    keeping: &'a Keeping,
    challenges: &'a Arc<Challenges>,
    client: CaClient,
}

/// Where a proof is.
enum PlacedProof {
    /// In this process, until it is dropped.
    Here { _proof: OfferedProof },
    /// In the DNS, until the hook takes it away.
    Record { name: String, value: String },
}

impl<'a> Ca<'a> {
    pub(super) fn new(
        settings: &'a AcmeSettings,
        keeping: &'a Keeping,
        challenges: &'a Arc<Challenges>,
    ) -> Result<Self, OrderFault> {
        let trust = settings.ca.clone().map_or(Trust::Platform, Trust::PlatformAnd);
        let client = CaClient::new(&trust).map_err(|error| OrderFault::new(OrderStep::Directory, error))?;
        Ok(Self { settings, keeping, challenges, client })
    }

    pub(super) fn client(&self) -> &CaClient {
        &self.client
    }

    /// The account that is kept; none if there is none yet.
    pub(super) async fn kept_account(&self) -> Result<Option<Account>, OrderFault> {
        let kept = self.keeping.account(self.settings).await;
        let Some(credentials) = kept.map_err(|error| OrderFault::new(OrderStep::Account, error))? else {
            return Ok(None);
        };
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let account = builder.from_credentials(credentials).await;
        Ok(Some(account.map_err(self.fault(OrderStep::Directory))?))
    }

    async fn new_account(&self) -> Result<Account, OrderFault> {
        let settings = self.settings;
        let contact = settings.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let eab = settings.eab.as_ref();
        let eab =
            eab.map(|eab| ExternalAccountKey::new(eab.kid.clone(), eab.key.as_ref().map_or(&[][..], |key| &key[..])));
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let made = builder.create(&new, settings.directory.clone(), eab.as_ref()).await;
        let (account, credentials) = made.map_err(self.fault(OrderStep::Account))?;
        let is_kept = self.keeping.keep_account(settings, &credentials).await;
        is_kept.map_err(|error| OrderFault::new(OrderStep::Account, error))?;
        tracing::info!(directory = settings.directory, "an account was made at the CA");
        Ok(account)
    }

    /// Orders a certificate for a domain, in the place of another if the CA can tell.
    pub(super) async fn order(
        &self,
        domain: &str,
        replaces: Option<&CertificateIdentifier<'static>>,
    ) -> Result<Issued, OrderFault> {
        let account = match self.kept_account().await? {
            Some(account) => account,
            None => self.new_account().await?,
        };
        let order = self.begin(&account, domain, replaces).await;
        let mut order = match order {
            Err(fault) if fault.account_is_gone => {
                tracing::warn!(domain, "the CA does not let the account order ({}); another one is made", fault.text);
                let forgotten = self.keeping.forget_account(self.settings).await;
                forgotten.map_err(|error| OrderFault::new(OrderStep::Account, error))?;
                self.begin(&self.new_account().await?, domain, None).await?
            }
            order => order?,
        };
        let mut offers = Vec::new();
        let validated = self.validate(&mut order, domain, &mut offers).await;
        for offer in offers {
            self.withdraw(domain, offer).await;
        }
        validated?;
        self.finish(&mut order, domain).await
    }

    async fn begin(
        &self,
        account: &Account,
        domain: &str,
        replaces: Option<&CertificateIdentifier<'static>>,
    ) -> Result<Order, OrderFault> {
        let identifiers = [Identifier::Dns(domain.to_owned())];
        if let Some(replaces) = replaces {
            let renewal = account.new_order(&NewOrder::new(&identifiers).replaces(replaces.clone())).await;
            match renewal.map_err(self.fault(OrderStep::Order)) {
                // It was renewed already, or the CA does not know it any more.
                Err(fault) if fault.is_no_renewal => {}
                order => return order,
            }
        }
        account.new_order(&NewOrder::new(&identifiers)).await.map_err(self.fault(OrderStep::Order))
    }

    /// Puts up a proof for all that the CA wants to see, and has it look.
    async fn validate(&self, order: &mut Order, domain: &str, offers: &mut Vec<PlacedProof>) -> Result<(), OrderFault> {
        let host = domain.strip_prefix("*.").unwrap_or(domain);
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(self.fault(OrderStep::Order))?;
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                other => {
                    let why = format!("the CA's record of the domain is {other:?}; it is tried again later");
                    return Err(OrderFault::new(OrderStep::Order, why));
                }
            }
            let kinds: Vec<_> = authorization.challenges.iter().map(|one| name_of(&one.r#type)).collect();
            let Some(mut challenge) = authorization.challenge(type_of(self.settings.challenge)) else {
                let (wanted, kinds) = (self.settings.challenge.name(), kinds.join(", "));
                let why =
                    format!("the CA does not offer {wanted} here, but {kinds}; set tls.acme.challenge to one of these");
                return Err(OrderFault::new(OrderStep::Order, why));
            };
            let key_authorization = challenge.key_authorization();
            // The hook is called with it, and handshakes for it are answered.
            if !matches!(challenge.identifier().identifier, Identifier::Dns(name) if name.eq_ignore_ascii_case(host)) {
                return Err(OrderFault::new(OrderStep::Order, "the CA speaks of a name that was not ordered"));
            }
            match self.settings.challenge {
                AcmeChallenge::TlsAlpn01 => {
                    let key = certificate::proof(host, key_authorization.digest().as_ref());
                    let key = key.map_err(|why| OrderFault::new(OrderStep::Offer, why))?;
                    let proof = self.challenges.offer_alpn(host, key);
                    let proof = proof.map_err(|error| OrderFault::new(OrderStep::Offer, error))?;
                    offers.push(PlacedProof::Here { _proof: proof });
                }
                AcmeChallenge::Http01 => {
                    let proof = self.challenges.offer_http(&challenge.token, key_authorization.as_str());
                    offers.push(PlacedProof::Here { _proof: proof });
                }
                AcmeChallenge::Dns01 => {
                    let (name, value) = (format!("_acme-challenge.{host}"), key_authorization.dns_value());
                    // Also a call that fails may have left something behind.
                    offers.push(PlacedProof::Record { name: name.clone(), value: value.clone() });
                    let called = hook::call(&self.settings.dns_hook, "present", &name, &value).await;
                    called.map_err(|fault| {
                        if !fault.printed.is_empty() {
                            tracing::warn!(printed = fault.printed, "the DNS hook failed");
                        }
                        OrderFault::new(OrderStep::Offer, fault)
                    })?;
                }
            }
            challenge.set_ready().await.map_err(self.fault(OrderStep::Validation))?;
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Err(error @ Error::Timeout(_)) => Err(self.fault(OrderStep::Validation)(error)),
            other => {
                // The authorization says more than the order does.
                if let Some(problem) = refusal(order).await {
                    return Err(OrderFault::of_problem(OrderStep::Validation, self.settings.challenge, &problem));
                }
                Err(match other {
                    Err(error) => self.fault(OrderStep::Validation)(error),
                    Ok(_) => OrderFault::new(OrderStep::Validation, "the CA refused, and does not say why"),
                })
            }
        }
    }

    async fn withdraw(&self, domain: &str, offer: PlacedProof) {
        if let PlacedProof::Record { name, value } = offer
            && let Err(fault) = hook::call(&self.settings.dns_hook, "cleanup", &name, &value).await
        {
            tracing::warn!(domain, printed = fault.printed, "a TXT record may be left behind: {fault}");
        }
    }

    async fn finish(&self, order: &mut Order, domain: &str) -> Result<Issued, OrderFault> {
        let (key, request) =
            certificate::request(domain).map_err(|error| OrderFault::new(OrderStep::Finalize, error))?;
        order.finalize_csr(&request).await.map_err(self.fault(OrderStep::Finalize))?;
        let chain = order.poll_certificate(&PATIENCE).await.map_err(self.fault(OrderStep::Download))?;
        Ok(Issued { directory: self.settings.directory.clone(), key, chain })
    }

    pub(super) fn fault(&self, step: OrderStep) -> impl Fn(Error) -> OrderFault {
        let challenge = self.settings.challenge;
        move |error| OrderFault::of(step, challenge, &error)
    }
}

/// What the CA found wrong when it looked.
async fn refusal(order: &mut Order) -> Option<Problem> {
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next.ok()?;
        let state = authorization.refresh().await.ok()?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone()) {
            return Some(problem);
        }
    }
    None
}

const fn type_of(challenge: AcmeChallenge) -> ChallengeType {
    match challenge {
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::Dns01 => ChallengeType::Dns01,
    }
}

fn name_of(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::TlsAlpn01 => AcmeChallenge::TlsAlpn01.name().to_owned(),
        ChallengeType::Http01 => AcmeChallenge::Http01.name().to_owned(),
        ChallengeType::Dns01 => AcmeChallenge::Dns01.name().to_owned(),
        ChallengeType::Unknown(name) => name.clone(),
        _ => "others".to_owned(),
    }
}
