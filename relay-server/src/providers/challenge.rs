//! What a challenge asks for beside its answer: a secret to keep, a URL to call.
//!
//! A secret is kept before the answer goes out, and only where the endpoint has none: a challenge proves nothing, so
//! whoever came second would be believed as well. A URL is called only where the endpoint says so, in the background,
//! by [`crate::outbound`], which reaches the public network alone; that it is on the provider's own host was checked
//! where the row was read.

use std::sync::Arc;

use relay_schemes::{Reply, Secret};

use super::{Handshake, Providers, learnt::LearnError};
use crate::{
    endpoint::Endpoint,
    failure::{Failure, RelayFault, SenderFault},
    log::LogScope,
    throttle::Throttle,
    webhook::Received,
};

/// Another secret is there already.
const SECRET_KNOWN: SenderFault = SenderFault::Challenge { status: 403, code: "secret_known" };

static ANSWERED: Throttle = Throttle::new();
static WAITS: Throttle = Throttle::new();
static NOT_LEARNT: Throttle = Throttle::new();
static NOT_CONFIRMED: Throttle = Throttle::new();

impl Providers {
    /// Does what a challenge asks for, and notes it down. Then `reply` may go out.
    pub(crate) async fn answer_challenge(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        received: &Received,
        reply: &Reply,
    ) -> Result<(), Failure> {
        if let Some(secret) = reply.learns_secret.clone() {
            self.learn(endpoint, secret).await?;
        }
        let (may_call, left) = reply.confirm_url.clone().map_or((None, None), |url| {
            if endpoint.verify.may_confirm() { (Some(url), None) } else { (None, Some(url)) }
        });
        log_challenge(endpoint.name.as_str(), reply, left.is_some());
        self.handshakes.record(Handshake {
            event_id: received.event_id,
            at: received.at,
            endpoint: endpoint.name.as_str().to_owned(),
            provider: endpoint.verify.provider_name().to_owned(),
            name: reply.handshake.clone(),
            client: received.client,
            learnt: reply.learns_secret.is_some(),
            shown: reply.shown.clone(),
            confirm_url: left,
        });
        if let Some(url) = may_call {
            // As many at a time as the outbound side takes; each ends after its own patience.
            let confirm = confirm(Arc::clone(self), endpoint.name.as_str().to_owned(), url);
            tokio::spawn(LogScope::current().around(confirm));
        }
        Ok(())
    }

    async fn learn(self: &Arc<Self>, endpoint: &Endpoint, secret: Secret) -> Result<(), Failure> {
        if endpoint.verify.has_other_secret(&secret) {
            return Err(SECRET_KNOWN.into());
        }
        let (this, name) = (Arc::clone(self), endpoint.name.as_str().to_owned());
        // A task of its own: a sender that goes away does not leave it half done.
        let task = tokio::spawn(async move {
            let kept = this.learnt.keep(&name, secret).await;
            if kept.is_ok() {
                this.secrets_changed(&name);
            }
            kept
        });
        match task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(LearnError::Known)) => Err(SECRET_KNOWN.into()),
            Ok(Err(error)) => {
                let endpoint = endpoint.name.as_str();
                if let Some(held_back) = NOT_LEARNT.pass(endpoint) {
                    tracing::error!(%error, held_back, "a secret of a handshake could not be kept");
                }
                Err(RelayFault::Internal.into())
            }
            Err(_) => Err(RelayFault::Internal.into()),
        }
    }
}

/// What was learnt is said each time: that can happen once.
fn log_challenge(endpoint: &str, reply: &Reply, waits_for_person: bool) {
    let learnt = reply.learns_secret.is_some();
    if let Some(held_back) = ANSWERED.pass(endpoint).or(learnt.then_some(0)) {
        let (handshake, status) = (&reply.handshake, reply.status);
        tracing::info!(handshake, learnt, status, held_back, "a challenge was answered");
    }
    if waits_for_person && let Some(held_back) = WAITS.pass(endpoint) {
        tracing::warn!(
            held_back,
            "a subscription waits to be confirmed: set confirm = true in its verify rule, or open the URL that \
             `relay-server event list --state handshake --json` shows"
        );
    }
}

async fn confirm(providers: Arc<Providers>, endpoint: String, url: String) {
    match providers.outbound.get(&url).await {
        Ok(_) => tracing::info!("a subscription was confirmed"),
        Err(error) => {
            if let Some(held_back) = NOT_CONFIRMED.pass(&endpoint) {
                tracing::warn!(%error, held_back, "a subscription was not confirmed");
            }
        }
    }
}
