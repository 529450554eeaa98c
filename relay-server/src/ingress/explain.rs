//! Why a request was refused, in one line of the log, and for who asks about a kept one.
//!
//! Trying the usual mistakes costs a few hundred verifications, so it never happens on the way of a request: it runs on
//! a thread of its own, one at a time, and for one endpoint at most once in [`PAUSE`]. The sender learns nothing of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use relay_schemes::{
    Refusal, Request, Secret,
    explain::{Candidates, Finding},
};
use tokio::{sync::Semaphore, time::Instant};

use super::{Door, route::Routes};
use crate::{endpoint::Endpoint, refused::Entry};

/// Between two explanations for one endpoint that nobody asked for.
const PAUSE: Duration = Duration::from_secs(10);

/// Larger bodies are explained only to who asks.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Secrets of other endpoints that are tried.
const MAX_SECRETS: usize = 16;

/// One explanation at a time, and not too often.
pub(crate) struct Explainer {
    slot: Arc<Semaphore>,
    last: Mutex<HashMap<String, Instant>>,
}

impl Default for Explainer {
    fn default() -> Self {
        Self { slot: Arc::new(Semaphore::new(1)), last: Mutex::default() }
    }
}

impl Explainer {
    /// Whether it is this endpoint's turn; names come from the config.
    fn is_due(&self, endpoint: &str, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get_mut(endpoint) {
            Some(at) if now.duration_since(*at) < PAUSE => false,
            Some(at) => {
                *at = now;
                true
            }
            None => {
                last.insert(endpoint.to_owned(), now);
                true
            }
        }
    }
}

/// Writes one line about a refused request into the log, soon.
pub(super) fn later(
    door: &Door,
    routes: &Arc<Routes>,
    endpoint: &Arc<Endpoint>,
    entry: Arc<Entry>,
    body: Option<Bytes>,
    refusal: Refusal,
) {
    let explainer = &door.explainer;
    if body.as_ref().is_some_and(|body| body.len() > MAX_BODY_BYTES)
        || explainer.slot.available_permits() == 0
        || !explainer.is_due(endpoint.name.as_str(), Instant::now())
    {
        return;
    }
    let Ok(slot) = Arc::clone(&explainer.slot).try_acquire_owned() else { return };
    let (routes, endpoint) = (Arc::clone(routes), Arc::clone(endpoint));
    drop(tokio::task::spawn_blocking(move || {
        let found = find(&routes, &endpoint, &entry, body.as_deref().unwrap_or(&entry.body));
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        let codes: Vec<&str> = found.iter().map(Finding::code).collect();
        tracing::warn!(
            event_id = %entry.event_id, endpoint = %endpoint.name, provider = entry.provider, refused = refusal.code(),
            found = codes.join(","), why = said.join("; "), "a request was refused"
        );
        drop(slot);
    }));
}

/// What a kept request is explained by; `None` if another explanation is under way.
pub(crate) async fn asked(door: &Door, endpoint: Arc<Endpoint>, entry: Arc<Entry>) -> Option<Vec<Finding>> {
    let slot = Arc::clone(&door.explainer.slot).try_acquire_owned().ok()?;
    let routes = door.routes.load_full();
    let task = tokio::task::spawn_blocking(move || {
        let found = find(&routes, &endpoint, &entry, &entry.body);
        drop(slot);
        found
    });
    task.await.ok()
}

fn find(routes: &Routes, endpoint: &Endpoint, entry: &Entry, body: &[u8]) -> Vec<Finding> {
    let request = Request { method: &entry.method, url: &entry.url, headers: &entry.headers, body };
    let others: Vec<(String, Secret)> = routes
        .endpoints()
        .filter(|other| other.name != endpoint.name)
        .flat_map(|other| {
            let name = format!("the secret of endpoint {}", other.name);
            other.verify.secrets().into_iter().map(move |secret| (name.clone(), secret))
        })
        .take(MAX_SECRETS)
        .collect();
    let secrets: Vec<(&str, &Secret)> = others.iter().map(|(name, secret)| (name.as_str(), secret)).collect();
    let urls = routes.other_urls(entry);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    endpoint.verify.explain(&request, entry.at.as_second(), &Candidates { secrets: &secrets, urls: &urls })
}
