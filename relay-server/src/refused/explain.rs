//! Why a request was refused, in one line of the log, and for who asks about a kept one.
//!
//! Trying the usual mistakes costs a few hundred verifications, so it never happens on the way of a request: it runs on
//! a thread of its own, one at a time, and for one endpoint at most once in [`PAUSE`]. The sender learns nothing of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use relay_proto::names::FORWARDED_HOST;
use relay_schemes::{
    Refusal, Request, Secret,
    explain::{Candidates, Finding},
};
use tokio::{sync::Semaphore, time::Instant};

use super::log::Entry;
use crate::{endpoint::Endpoint, log::LogScope, routes::Routes};

/// Between two explanations for one endpoint that nobody asked for.
const PAUSE: Duration = Duration::from_secs(10);

/// Larger bodies are explained only to who asks.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Secrets of other endpoints that are tried.
const MAX_SECRETS: usize = 16;

pub(crate) struct Explainer {
    /// One explanation at a time.
    slot: Arc<Semaphore>,
    /// When each endpoint had its last one that nobody asked for; names come from the config.
    last: Mutex<HashMap<String, Instant>>,
}

impl Default for Explainer {
    fn default() -> Self {
        Self { slot: Arc::new(Semaphore::new(1)), last: Mutex::default() }
    }
}

impl Explainer {
    fn is_due(&self, endpoint: &str, now: Instant) -> bool {
        let mut last = self.last.lock();
        let is_due = last.get(endpoint).is_none_or(|at| now.duration_since(*at) >= PAUSE);
        if is_due {
            last.insert(endpoint.to_owned(), now);
        }
        is_due
    }

    /// Writes one line about a refused request into the log, soon.
    pub(super) fn explain_soon(
        &self,
        routes: &Arc<Routes>,
        endpoint: &Arc<Endpoint>,
        entry: Arc<Entry>,
        body: Option<Bytes>,
        refusal: Refusal,
    ) {
        if body.as_ref().is_some_and(|body| body.len() > MAX_BODY_BYTES) {
            return;
        }
        let Ok(slot) = Arc::clone(&self.slot).try_acquire_owned() else { return };
        if !self.is_due(endpoint.name.as_str(), Instant::now()) {
            return;
        }
        let (routes, endpoint, scope) = (Arc::clone(routes), Arc::clone(endpoint), LogScope::current());
        let explain = move || {
            let found = find(&routes, &endpoint, &entry, body.as_deref().unwrap_or(&entry.body));
            let said: Vec<String> = found.iter().map(ToString::to_string).collect();
            let codes: Vec<&str> = found.iter().map(Finding::code).collect();
            tracing::warn!(
                provider = entry.head.provider,
                refused = refusal.code(),
                found = codes.join(","),
                why = said.join("; "),
                "a request was refused"
            );
            drop(slot);
        };
        drop(tokio::task::spawn_blocking(move || scope.within(explain)));
    }

    /// What a kept request is explained by; `None` if another explanation is under way.
    pub(crate) async fn explain(
        &self,
        routes: Arc<Routes>,
        endpoint: Arc<Endpoint>,
        entry: Arc<Entry>,
    ) -> Option<Vec<Finding>> {
        let slot = Arc::clone(&self.slot).try_acquire_owned().ok()?;
        let task = tokio::task::spawn_blocking(move || {
            let found = find(&routes, &endpoint, &entry, &entry.body);
            drop(slot);
            found
        });
        task.await.ok()
    }
}

fn find(routes: &Routes, endpoint: &Endpoint, entry: &Entry, body: &[u8]) -> Vec<Finding> {
    let head = &entry.head;
    let request = Request { method: &head.method, url: &head.url, headers: &head.headers, body };
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
    let urls = other_urls(routes.public_url(), entry);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    endpoint.verify.explain(&request, entry.at.as_second(), &Candidates { secrets: &secrets, urls: &urls })
}

/// Other addresses under which a refused request may have been signed.
fn other_urls(public_url: &str, entry: &Entry) -> Vec<String> {
    let target = entry.head.url.splitn(4, '/').nth(3).unwrap_or_default();
    let line = |name: &str| {
        let value = entry.head.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        value.and_then(|value| std::str::from_utf8(value).ok())
    };
    let hosts = [line("host"), line(FORWARDED_HOST)].into_iter().flatten();
    let hosts = hosts.flat_map(|host| ["https", "http"].map(|scheme| format!("{scheme}://{host}/{target}")));
    std::iter::once(format!("{public_url}/{target}")).chain(hosts).collect()
}
