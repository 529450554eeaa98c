//! From received to proven: the only door to the type [`Webhook`].
//!
//! A webhook can be made here alone, and only by a rule that held. What comes after this module can
//! rely on it; nothing here answers, stores or forwards.

use bytes::Bytes;
use http::HeaderMap;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use relay_schemes::{Headers, Keys, Provider, Refusal, Request, Secret, SecretError, Verified};
use sha2::{Digest as _, Sha256};

use tokio::time::Instant;

use crate::{
    replay::Mark,
    webhook::{EventId, Received},
};

/// What a request must prove.
#[derive(Debug)]
pub enum Rule {
    /// Nothing: `verify = "none"`.
    Open,
    /// A provider's signature.
    Signed {
        /// The provider.
        provider: &'static Provider,
        /// The endpoint's secrets, ready to verify.
        keys: Keys,
    },
}

/// A request's body: there already, or still to come.
#[derive(Debug)]
pub enum Payload {
    /// The whole body.
    Whole(Bytes),
    /// A body that streams through.
    Streaming(Incoming),
    /// No body, and the wish to upgrade the connection.
    Upgrade(OnUpgrade),
}

/// A request that has not proven it, given back whole for the record.
#[derive(Debug)]
pub struct Unproven {
    /// What was received.
    pub received: Received,
    /// Its body.
    pub payload: Payload,
    /// What was not proven.
    pub refusal: Refusal,
}

/// A request that has proven what its endpoint asks for.
#[derive(Debug)]
pub struct Webhook {
    received: Received,
    payload: Payload,
    scheme: &'static str,
    mark: Option<Mark>,
}

impl Rule {
    /// The rule for a provider's signature under some secrets, newest first.
    ///
    /// # Errors
    /// [`SecretError`] for a secret in the wrong form.
    pub fn signed(provider: &'static Provider, secrets: &[Secret]) -> Result<Self, SecretError> {
        match &provider.scheme {
            None => Ok(Self::Open),
            Some(scheme) => Ok(Self::Signed { provider, keys: scheme.keys(secrets)? }),
        }
    }

    /// Whether the whole body must be there before the rule can be applied.
    #[must_use]
    pub fn covers_body(&self) -> bool {
        match self {
            Self::Open => false,
            Self::Signed { provider, .. } => provider.scheme.as_ref().is_some_and(relay_schemes::Scheme::covers_body),
        }
    }

    /// The provider's name, or `none`.
    #[must_use]
    pub fn provider_name(&self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Signed { provider, .. } => &provider.name,
        }
    }

    /// Applies the rule.
    ///
    /// # Errors
    /// [`Unproven`] says what was not proven.
    pub fn verify(&self, received: Received, payload: Payload) -> Result<Webhook, Box<Unproven>> {
        let mut mark = None;
        if let Self::Signed { provider: Provider { scheme: Some(scheme), .. }, keys } = self {
            let body: &[u8] = match &payload {
                Payload::Whole(body) => body,
                Payload::Streaming(_) | Payload::Upgrade(_) => &[],
            };
            let headers = Lines(&received.head.headers);
            let target = received.head.uri.path_and_query().map_or("/", |target| target.as_str());
            let url = format!("{}://{}{target}", if received.secure { "https" } else { "http" }, received.host);
            let request = Request { method: received.head.method.as_str(), url: &url, headers: &headers, body };
            match scheme.verify(keys, &request, received.at.as_second()) {
                Ok(verified) => mark = marked(&verified, body),
                Err(refusal) => return Err(Box::new(Unproven { received, payload, refusal })),
            }
        }
        Ok(Webhook { received, payload, scheme: self.provider_name(), mark })
    }
}

impl Webhook {
    /// By what an unchanged repeat is recognised, where the scheme dates its signatures.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// When it came, for deadlines.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.received.started
    }

    /// The event's id.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        self.received.event_id
    }

    /// What was received and what its body is, with the name of the scheme that was proven.
    #[must_use]
    pub fn into_parts(self) -> (Received, Payload, &'static str) {
        (self.received, self.payload, self.scheme)
    }
}

fn marked(verified: &Verified, body: &[u8]) -> Option<Mark> {
    let at = verified.timestamp?;
    let digest = Sha256::new().chain_update(at.to_be_bytes()).chain_update(body).finalize().into();
    Some(Mark { digest, expires_unix_s: at + 301 })
}

struct Lines<'a>(&'a HeaderMap);

impl Headers for Lines<'_> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        self.0.get_all(name).iter().for_each(|value| each(value.as_bytes()));
    }
}
