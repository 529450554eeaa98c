//! The pump: what is due goes to whoever is there.
//!
//! One task asks the store in rounds, for each endpoint at most what its limits, its agents and its window have room
//! for, so that a long backlog or a failing handler holds up nobody else's events. Where there is none it sleeps until
//! there is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Delivery,
    attempt::{Event, run},
    intake::NO_WAIT,
    lock,
    window::Window,
};
use crate::{
    endpoint::Endpoint,
    store::{self, Filter, Hold, PageRequest, State, Want},
};

/// Longest time between two rounds.
const IDLE: Duration = Duration::from_secs(1);

/// Shortest one, whatever says that there is something to do.
const BREATH: Duration = Duration::from_millis(5);

/// Delivers what is due until `stop`.
pub(crate) async fn pump(delivery: Arc<Delivery>, stop: CancellationToken) {
    recover(&delivery).await;
    delivery.outcomes.recovered();
    loop {
        let changed = delivery.registry.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let next = round(&delivery).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = delivery.wake.notified() => {}
            () = changed => {}
            () = delivery.limits.freed() => {}
            () = sleep(next) => {}
        }
    }
}

/// Attempts of an earlier process: their agents may still tell of them, but nobody else will.
async fn recover(delivery: &Delivery) {
    match delivery.store.backlog().await {
        Ok(backlog) => {
            let paused = backlog.into_iter().filter(|one| one.paused).map(|one| one.endpoint);
            lock(&delivery.paused).extend(paused);
        }
        Err(error) => tracing::error!(%error, "which endpoints are paused cannot be read"),
    }
    let filter = Filter { states: vec![State::Running], ..Filter::default() };
    let mut page = PageRequest { limit: store::MAX_PAGE, after: None, oldest_first: true };
    loop {
        let found = match delivery.store.list(filter.clone(), page.clone()).await {
            Ok(found) => found,
            Err(error) => return tracing::error!(%error, "what ran before the restart cannot be listed"),
        };
        let endpoints = delivery.endpoints.load();
        let now = delivery.clock.now();
        for event in found.events {
            if lock(&delivery.running).contains_key(&event.id) {
                continue; // It came a moment ago.
            }
            delivery.outcomes.adopt(*event.id.as_bytes(), event.fence, event.endpoint.clone());
            let keeping = endpoints.get(&event.endpoint).and_then(|endpoint| endpoint.keeping.as_ref());
            let grace = keeping.map_or(Duration::ZERO, |keeping| keeping.agent_grace);
            let until = now.saturating_add(grace).unwrap_or(now);
            if event.due_at.is_some_and(|due| due > until) {
                let hold = Hold { endpoint: event.endpoint, id: event.id, fence: event.fence };
                if let Err(error) = delivery.store.extend(vec![hold], until).await {
                    tracing::warn!(event_id = %event.id, %error, "an attempt from before the restart keeps its lease");
                }
            }
        }
        match found.next {
            Some(next) => page.after = Some(next),
            None => return,
        }
    }
}

/// Claims and begins what is due now; how long there is nothing more to do.
async fn round(delivery: &Arc<Delivery>) -> Duration {
    let now = delivery.clock.now();
    let endpoints = delivery.endpoints.load_full();
    let (mut wants, mut wait, mut cramped) = (Vec::new(), IDLE, false);
    for (name, endpoint) in endpoints.iter().filter(|(_, endpoint)| endpoint.keeping.is_some()) {
        if delivery.skips.hold(name) {
            continue;
        }
        if delivery.registry.serving(name.as_str()) == 0 {
            delivery.window(name, Window::rest); // Whoever comes next meets what waits gently.
        }
        match delivery.room(endpoint) {
            Ok(places) => {
                let (oldest, newest) = delivery.window(name, |window| window.split(places));
                wants.push(Want { endpoint: name.clone(), oldest, newest });
            }
            Err(until) => {
                cramped = true;
                wait = until.unwrap_or(IDLE).min(wait);
            }
        }
    }
    delivery.cramped.store(cramped, Ordering::Relaxed);
    let longest = endpoints.values().filter_map(|endpoint| endpoint.keeping.as_ref());
    let until = longest.map(|keeping| Delivery::lease_until(keeping, NO_WAIT, now)).max();
    let Some(until) = until.filter(|_| !wants.is_empty()) else { return wait.max(BREATH) };
    let claimed = match delivery.store.claim(wants, until, now).await {
        Ok(claimed) => claimed,
        Err(error) => {
            tracing::warn!(%error, "nothing can be claimed");
            return IDLE;
        }
    };
    for claim in claimed.deliveries {
        if let Some(endpoint) = endpoints.get(&claim.summary.endpoint) {
            begin(delivery, endpoint, claim);
        }
    }
    let soonest =
        claimed.next_due.iter().map(|(_, due)| Duration::try_from(due.duration_since(now)).unwrap_or_default());
    soonest.min().unwrap_or(IDLE).clamp(BREATH, wait.max(BREATH))
}

fn begin(delivery: &Arc<Delivery>, endpoint: &Arc<Endpoint>, claim: store::Delivery) {
    let store::Delivery { summary, lease, head, body } = claim;
    let Some(event) = Event::of(endpoint, summary, head, body, lease) else { return };
    delivery.window(&endpoint.name, Window::begun);
    let (own, name) = (Arc::clone(delivery), endpoint.name.clone());
    delivery.tasks.spawn(async move {
        let delivered = run(&own, event, Instant::now() + NO_WAIT, None).await;
        own.window(&name, |window| window.ended(delivered));
        own.wake.notify_one();
    });
}
