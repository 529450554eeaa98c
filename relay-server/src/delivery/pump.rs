//! The pump: what is due goes to whoever is there.
//!
//! One task asks the store in rounds, for each endpoint at most what its limits, its agents and its window have room
//! for, so that a long backlog or a failing handler holds up nobody else's events. Where there is none it sleeps until
//! there is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Delivery,
    attempt::{self, Event},
    place::CallPlace,
    window::Window,
};
use crate::{
    endpoint::Endpoint,
    store::{self, Grant, Hold, StoreError, Want},
};

const IDLE: Duration = Duration::from_secs(1);

/// Shortest one, whatever says that there is something to do.
const BREATH: Duration = Duration::from_millis(5);

pub(crate) async fn pump(delivery: Arc<Delivery>, stop: CancellationToken) {
    if let Err(error) = take_over(&delivery).await {
        tracing::error!(%error, "what ran before the restart cannot be taken over; it comes again when its leases end");
    }
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
            () = delivery.admission.freed() => {}
            () = sleep(next) => {}
        }
    }
}

/// Takes over what ran at an earlier start: its agents may still tell of it, but nobody else will. The store is this
/// relay's alone, so every other holder is gone.
async fn take_over(delivery: &Delivery) -> Result<(), StoreError> {
    let mut gone = delivery.store.holders().await?;
    gone.retain(|holder| *holder != delivery.holder);
    loop {
        let now = delivery.clock.now();
        let endpoints = delivery.endpoints.load();
        let grace = endpoints.values().filter_map(|endpoint| Some((endpoint, endpoint.policy.as_ref()?.agent_grace)));
        let until = grace.map(|(it, grace)| (it.name.clone(), now.saturating_add(grace).unwrap_or(now))).collect();
        let orphans = delivery.store.orphans(gone.clone(), delivery.holder, until, now).await?;
        if orphans.is_empty() {
            return Ok(());
        }
        for Hold { endpoint, id, fence } in orphans {
            delivery.outcomes.adopt(*id.as_bytes(), fence, endpoint);
        }
    }
}

/// Claims and begins what is due now; how long there is nothing more to do.
async fn round(delivery: &Arc<Delivery>) -> Duration {
    let now = delivery.clock.now();
    let endpoints = delivery.endpoints.load_full();
    let (mut wants, mut wait, mut cramped) = (Vec::new(), IDLE, false);
    for (name, endpoint) in endpoints.iter().filter(|(_, endpoint)| endpoint.policy.is_some()) {
        if delivery.registry.serving(name.as_str()) == 0 {
            delivery.window(name, Window::rest); // Whoever comes next meets what waits gently.
        }
        match delivery.room(endpoint) {
            Ok(places) => {
                let (oldest, newest) = delivery.window(name, |window| window.split(places));
                wants.push(Want { endpoint: name.clone(), oldest, newest });
            }
            Err(until) => {
                delivery.window(name, |window| window.set_behind(true)); // What waits has its turn before what comes.
                cramped = true;
                wait = until.unwrap_or(IDLE).min(wait);
            }
        }
    }
    delivery.cramped.store(cramped, Ordering::Relaxed);
    let longest = endpoints.values().filter_map(|endpoint| endpoint.policy.as_ref());
    let until = longest.map(|policy| Delivery::lease_until(policy, Duration::ZERO, now)).max();
    let Some(until) = until.filter(|_| !wants.is_empty()) else { return wait.max(BREATH) };
    let looked: Vec<_> = wants.iter().map(|want| want.endpoint.clone()).collect();
    let claimed = match delivery.store.claim(wants, Grant { holder: delivery.holder, until }, now).await {
        Ok(claimed) => claimed,
        Err(error) => {
            tracing::warn!(%error, "nothing can be claimed");
            return IDLE;
        }
    };
    for name in looked {
        let is_behind = claimed.next_due.iter().any(|(of, due)| *of == name && *due <= now);
        delivery.window(&name, |window| window.set_behind(is_behind));
    }
    for claim in claimed.deliveries {
        if let Some(endpoint) = endpoints.get(&claim.summary.endpoint) {
            begin(delivery, endpoint, claim);
        }
    }
    let soonest =
        claimed.next_due.iter().map(|(_, due)| Duration::try_from(due.duration_since(now)).unwrap_or_default());
    soonest.min().unwrap_or(IDLE).clamp(BREATH, wait.max(BREATH))
}

fn begin(delivery: &Arc<Delivery>, endpoint: &Arc<Endpoint>, claim: store::ClaimedEvent) {
    let store::ClaimedEvent { summary, lease, head, body } = claim;
    let news = delivery.running_news(&summary);
    let Some(mut event) = Event::of(endpoint, summary, head, body, lease) else { return };
    delivery.publish(news.as_deref());
    event.news = news;
    event.way = delivery.arrivals.take(event.id);
    let place = CallPlace::claimed(delivery, &endpoint.name);
    delivery.tasks.spawn(Box::pin(attempt::begin(delivery, Box::new(event), place)));
}
