//! What was turned away at the door: kept for the person who has to find out why, and told to the endpoint's agents.
//!
//! Nothing that is kept here can be delivered: there is no way back from an [`Entry`] to a webhook. Its sender learns
//! nothing of it.

mod behind;
mod explain;
mod log;
mod notices;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use relay_proto::Notice;
use tokio::time::{Instant, sleep};

pub(crate) use self::log::{Entry, MAX_ENTRIES, RefusedHead};
use self::{
    explain::Explainer,
    log::RefusedLog,
    notices::{NoticeLimiter, NoticeTurn, SECOND},
};
use crate::{
    agents::registry::Registry,
    endpoint::Endpoint,
    failure::{Failure, RelayFault, SenderFault},
    mask::Hidden,
    routes::Routes,
    store::Store,
    verify::{Payload, SeenBody},
    webhook::{EventId, Received},
};

/// A request that came no further than the door.
pub(crate) struct TurnedAway {
    pub received: Box<Received>,
    /// Its body, if that was collected.
    pub body: Option<SeenBody>,
    pub failure: Failure,
}

impl TurnedAway {
    pub(crate) fn new(received: Box<Received>, payload: &Payload, failure: Failure) -> Self {
        Self { received, body: payload.seen(), failure }
    }
}

pub(crate) struct Refused {
    pub log: RefusedLog,
    pub explainer: Explainer,
    notices: Arc<NoticeLimiter>,
    registry: Arc<Registry>,
}

impl Refused {
    /// The log takes `budget` bytes at most, and is written into the store if that `lasts`.
    pub(crate) fn build(budget: u64, lasts: bool, store: Arc<dyn Store>, registry: Arc<Registry>) -> Arc<Self> {
        let log = RefusedLog::new(budget, lasts, store);
        Arc::new(Self { log, explainer: Explainer::default(), notices: Arc::default(), registry })
    }

    /// Keeps what says something about its sender's proof, and tells the endpoint's agents of it. Its answer had this
    /// status.
    pub(crate) fn record(
        &self,
        routes: &Arc<Routes>,
        endpoint: &Arc<Endpoint>,
        turned_away: TurnedAway,
        status: StatusCode,
    ) -> Option<Arc<Entry>> {
        let TurnedAway { received, body, failure } = turned_away;
        let code = failure.code();
        if !is_kept(failure) {
            return None;
        }
        self.notify_agents(endpoint, received.event_id, status, code);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
        };
        let body_len = body.as_ref().map(|body| body.len);
        let whole = body.as_ref().filter(|body| body.is_whole()).map(|body| body.bytes.clone());
        let is_explained = body.is_none() || whole.is_some();
        let body = body.map(|body| body.bytes).unwrap_or_default();
        let hidden = Hidden::of(&endpoint.verify, &received.url, &body);
        let entry = self.log.record(Entry {
            event_id: received.event_id,
            at: received.at,
            endpoint: endpoint.name.clone(),
            status: status.as_u16(),
            code: Cow::Borrowed(code),
            head: RefusedHead {
                provider: endpoint.verify.provider_name().to_owned(),
                client: received.client,
                method: received.head.method.as_str().to_owned(),
                url: received.url,
                headers: received.head.headers.iter().map(line).collect(),
                body_len,
                masked: false,
            },
            body,
            hidden,
        });
        if let Failure::Sender(SenderFault::Unproven(refusal)) = failure
            && is_explained
        {
            self.explainer.explain_soon(routes, endpoint, Arc::clone(&entry), whole, refusal);
        }
        Some(entry)
    }

    /// Tells the endpoint's agents of a request that was answered before it could reach them; of many, how many there
    /// were.
    pub(crate) fn notify_agents(&self, endpoint: &Endpoint, event_id: EventId, status: StatusCode, code: &str) {
        let name = endpoint.name.as_str();
        match self.notices.count(name, Instant::now()) {
            NoticeTurn::Now => {
                let notice = Notice::Refused {
                    endpoint: name.to_owned(),
                    event_id: *event_id.as_bytes(),
                    status: status.as_u16(),
                    code: code.to_owned(),
                    provider: endpoint.verify.provider_name().to_owned(),
                };
                self.registry.notify(name, &notice);
            }
            NoticeTurn::Counted => {}
            NoticeTurn::Later => {
                let (registry, notices, name) =
                    (Arc::clone(&self.registry), Arc::clone(&self.notices), endpoint.name.clone());
                tokio::spawn(async move {
                    sleep(SECOND).await;
                    let (more, name) = (notices.take(name.as_str()), name.as_str());
                    let plural = if more == 1 { "request was" } else { "requests were" };
                    registry.notify(name, &Notice::Text(format!("{more} more {plural} refused at {name}")));
                });
            }
        }
    }
}

/// Whether a refusal says something that its endpoint's owner may want to know.
fn is_kept(failure: Failure) -> bool {
    match failure {
        Failure::Sender(SenderFault::BodyTooLarge { .. }) | Failure::Relay(RelayFault::KeyUnavailable { .. }) => true,
        Failure::Sender(fault) => fault.is_refusal(),
        _ => false,
    }
}
