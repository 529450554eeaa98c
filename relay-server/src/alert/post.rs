//! Posts alerts as Standard Webhooks messages: signed, with an id that stays the same, tried again a few times.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use relay_schemes::{Material, Request, Secret, SecretError};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{AlertCounts, AlertMessage, AlertTarget};
use crate::{
    clock::wall,
    outbound::{OutboundError, Posted, Poster},
    throttle::Throttle,
    verify::{Policy, Rule},
};

/// Waits between the tries of a message.
const PAUSES: [u64; 5] = [1, 5, 30, 120, 600];

/// Longest wait that the other side may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// The row by which messages are signed.
const ROW: &str = "standard-webhooks";

static NOT_POSTED: Throttle = Throttle::new();

/// A message's headers, signed now.
fn signed(target: &AlertTarget, message: &AlertMessage) -> Option<HeaderMap> {
    let none: [(&str, &str); 0] = [];
    let request = Request { method: "POST", url: "", headers: &none, body: message.body.as_bytes() };
    let signed = target.signer.sign_own(&request, &message.id, wall().as_second())?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in signed.headers {
        headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    Some(headers)
}

/// The rule that signs with this secret, `whsec_` and base64.
pub(crate) fn signer(secret: &str) -> Result<Rule, SecretError> {
    let provider = Arc::new(relay_schemes::provider(ROW).expect("a built-in row").clone());
    Rule::new(provider, Material::secrets(&[Secret::new(secret)]), Policy::default()).map(|(rule, _)| rule)
}

/// Messages that wait to be posted.
pub(crate) struct AlertQueue {
    pub(super) waiting: mpsc::Receiver<AlertMessage>,
    pub(super) target: Option<AlertTarget>,
    pub(super) counts: Arc<AlertCounts>,
}

/// Posts what comes, one after the other, until the relay stops.
pub(crate) async fn post_alerts(queue: AlertQueue, stop: CancellationToken) {
    let AlertQueue { mut waiting, target, counts } = queue;
    let Some(target) = target else { return };
    let poster = Poster::default();
    let work = async {
        while let Some(message) = waiting.recv().await {
            match try_to_post(&poster, &target, &message).await {
                Ok(()) => counts.posted.fetch_add(1, Ordering::Relaxed),
                Err(why) => {
                    if let Some(held_back) = NOT_POSTED.pass("") {
                        let url = &target.url;
                        tracing::warn!(%url, why, held_back, "an alert was not posted; look at [alert] url");
                    }
                    counts.dropped.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn try_to_post(poster: &Poster, target: &AlertTarget, message: &AlertMessage) -> Result<(), String> {
    let mut pauses = PAUSES.into_iter().map(Duration::from_secs);
    loop {
        let (why, asked) = match post(poster, target, message).await {
            Ok(posted) if posted.status.is_success() => return Ok(()),
            Ok(posted) if posted.can_retry() => (format!("it answered {}", posted.status), posted.retry_after),
            Ok(posted) => return Err(format!("it answered {}", posted.status)),
            Err(error) => (error.to_string(), None),
        };
        let Some(pause) = pauses.next() else { return Err(why) };
        sleep(asked.map_or(pause, |asked| asked.max(pause)).min(MAX_PAUSE)).await;
    }
}

/// Posts a message once, signed now.
pub(super) async fn post(
    poster: &Poster,
    target: &AlertTarget,
    message: &AlertMessage,
) -> Result<Posted, OutboundError> {
    let headers = signed(target, message).ok_or_else(|| OutboundError::Failed("it cannot be signed".to_owned()))?;
    poster.post(&target.url, headers, Bytes::copy_from_slice(message.body.as_bytes())).await
}
