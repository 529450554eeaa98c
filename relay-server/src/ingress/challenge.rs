//! What a challenge asks for beside its answer: a secret to keep, a URL to call.
//!
//! A secret is kept before the answer goes out, and only where the endpoint has none: a challenge proves nothing, so
//! whoever came second would be believed as well. A URL is called only where the endpoint says so, in the background,
//! by [`crate::outbound`], which reaches the public network alone; that it is on the provider's own host was checked
//! where the row was read.

use std::sync::Arc;

use relay_schemes::Reply;

use super::Door;
use crate::{
    endpoint::Endpoint,
    providers::handshakes::Handshake,
    providers::learnt::LearnError,
    throttle::Throttle,
    webhook::{Failure, Received},
};

/// Another secret is there already.
const SECRET_KNOWN: Failure = Failure::Challenge { status: 403, code: "secret_known" };

static ANSWERED: Throttle = Throttle::new();
static WAITS: Throttle = Throttle::new();
static NOT_LEARNT: Throttle = Throttle::new();
static NOT_CONFIRMED: Throttle = Throttle::new();

pub(super) async fn carry_out(
    door: &Arc<Door>,
    endpoint: &Endpoint,
    received: &Received,
    reply: &Reply,
) -> Result<(), Failure> {
    let (name, event_id) = (endpoint.name.as_str(), received.event_id);
    if let Some(secret) = reply.learns_secret.clone() {
        if endpoint.verify.has_other_secret(&secret) {
            return Err(SECRET_KNOWN);
        }
        let (keeper, of) = (Arc::clone(door), name.to_owned());
        // A task of its own: a sender that goes away does not leave it half done.
        let kept = tokio::spawn(async move { keeper.learnt.keep(&of, secret).await }).await;
        match kept {
            Ok(Ok(())) => door.teach(),
            Ok(Err(LearnError::Known)) => return Err(SECRET_KNOWN),
            Ok(Err(error)) => {
                if let Some(held_back) = NOT_LEARNT.pass(name) {
                    tracing::error!(endpoint = name, %error, held_back, "a secret of a handshake could not be kept");
                }
                return Err(Failure::Internal);
            }
            Err(_) => return Err(Failure::Internal),
        }
    }
    let confirm = reply.confirm_url.clone();
    let may_confirm = endpoint.verify.may_confirm();
    // What was learnt is said each time: that can happen once.
    if let Some(held_back) = ANSWERED.pass(name).or(reply.learns_secret.is_some().then_some(0)) {
        tracing::info!(
            %event_id, endpoint = name, handshake = reply.handshake,
            learnt = reply.learns_secret.is_some(), status = reply.status, held_back, "a challenge was answered"
        );
    }
    if confirm.is_some()
        && !may_confirm
        && let Some(held_back) = WAITS.pass(name)
    {
        tracing::warn!(
            endpoint = name,
            held_back,
            "a subscription waits to be confirmed: set confirm = true in its verify rule, or open the URL that \
             `relay-server event list --state handshake --json` shows"
        );
    }
    door.handshakes.record(Handshake {
        event_id,
        at: received.at,
        endpoint: name.to_owned(),
        provider: endpoint.verify.provider_name().to_owned(),
        name: reply.handshake.clone(),
        client: received.client,
        learnt: reply.learns_secret.is_some(),
        shown: reply.shown.clone(),
        confirm_url: confirm.clone().filter(|_| !may_confirm),
    });
    if let Some(url) = confirm.filter(|_| may_confirm) {
        let (door, name) = (Arc::clone(door), name.to_owned());
        // As many at a time as the outbound side takes; each ends after its own patience.
        tokio::spawn(async move {
            match door.outbound.get(&url).await {
                Ok(_) => tracing::info!(%event_id, endpoint = name, "a subscription was confirmed"),
                Err(error) => {
                    if let Some(held_back) = NOT_CONFIRMED.pass(&name) {
                        tracing::warn!(%event_id, endpoint = name, %error, held_back, "a subscription was not confirmed");
                    }
                }
            }
        });
    }
    Ok(())
}
