//! Fetches the certificate or key set that an endpoint's rule needs, once for all requests that wait for it.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use relay_schemes::Refusal;
use tokio::time::Instant;

use super::Providers;
use crate::{
    endpoint::Endpoint,
    failure::RelayFault,
    log::LogScope,
    outbound::OutboundError,
    throttle::Throttle,
    verify::{Fetch, FetchEnd, Fetched, Need},
    webhook::Received,
};

static NOT_FETCHED: Throttle = Throttle::new();

/// How long a request waits for keys that are newer than those that are there.
const NEWER_KEYS: Duration = Duration::from_secs(2);

/// After what time a sender may come again whose key could not be fetched.
const KEY_RETRY: Duration = Duration::from_secs(10);

impl Providers {
    /// Waits for the key that the rule needs before it can say anything, or lacked when it refused; whether there is a
    /// new one. It is fetched by a task of its own, so that it comes for the next one where this request cannot wait so
    /// long. Fails where the key may be there and nobody could be asked: the sender may come again.
    pub(crate) async fn fetch_key(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        received: &Received,
        body: &[u8],
        refusal: Option<Refusal>,
        until: Instant,
    ) -> Result<bool, RelayFault> {
        let waiting = match endpoint.verify.key_need(received, body, refusal) {
            Need::Nothing => return Ok(false),
            Need::Again => return Ok(true),
            Need::Later(wait) => return Err(RelayFault::KeyUnavailable { wait }),
            Need::Wait(waiting) => waiting,
            Need::Fetch(fetch) => {
                let waiting = fetch.waiting();
                let fetched = fetch_and_keep(Arc::clone(self), Arc::clone(endpoint), fetch);
                drop(tokio::spawn(LogScope::current().around(fetched)));
                waiting
            }
        };
        // Keys that are only old will do while the provider is away.
        let will_do = refusal.is_none() && endpoint.verify.has_keys();
        let until = if will_do { until.min(Instant::now() + NEWER_KEYS) } else { until };
        match waiting.ended(until).await {
            FetchEnd::Brought => Ok(true),
            FetchEnd::Gone => Ok(false),
            FetchEnd::Failed if will_do => Ok(false),
            // One that was fetched and is of no use says enough.
            FetchEnd::Failed if refusal == Some(Refusal::CertificateRefused) => Ok(false),
            FetchEnd::Failed => Err(RelayFault::KeyUnavailable { wait: KEY_RETRY }),
        }
    }
}

/// Bounded by what is allowed to the relay's own requests.
async fn fetch_and_keep(providers: Arc<Providers>, endpoint: Arc<Endpoint>, fetch: Fetch) {
    let name = endpoint.name.as_str();
    let fetched = match providers.outbound.get(fetch.url()).await {
        Ok(bytes) => String::from_utf8(bytes.to_vec()).map_or(Fetched::Failed, Fetched::Text),
        Err(error) => {
            if let Some(held_back) = NOT_FETCHED.pass(name) {
                let url = fetch.url();
                tracing::warn!(url, %error, held_back, "a provider's key could not be fetched");
            }
            match error {
                OutboundError::Status(status) if is_absence(status) => Fetched::Gone,
                _ => Fetched::Failed,
            }
        }
    };
    if endpoint.verify.take_key(fetch, fetched) != FetchEnd::Brought {
        return;
    }
    if let Err(error) = providers.keys.keep(name, || endpoint.verify.fetched_keys()).await {
        tracing::warn!(%error, "a provider's key is good until the relay stops: it was not kept");
    }
}

/// Whether a status says that there is no such key. Storage behind a provider's host hides what is not there by 403.
fn is_absence(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE)
}
