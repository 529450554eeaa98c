//! What is noted of a request for the access log and for traces, where there are any.

use http::{Method, Response};
use relay_proto::names;
use tokio::time::Instant;

use super::{
    access::{AccessNote, AccessOutcome, AccessRoute},
    request::{Asked, Requests},
    respond::ResponseBody,
};
use crate::{
    access_log::shortened,
    endpoint::Endpoint,
    mask::shown_url,
    message::brought_trace,
    metrics::AnswerClass,
    spans::SeenRequest,
    trace::TraceContext,
    webhook::{EventId, Received},
};

/// What is noted of a request before its way, for traces.
pub(super) struct Observed {
    id: EventId,
    /// Its first byte.
    started: Instant,
    method: Method,
    context: TraceContext,
}

/// What the access log may say of where a request went.
pub(super) fn access_route(asked: &Asked, path: &str) -> AccessRoute {
    match asked {
        Asked::Webhook(to) if !to.endpoint.name.is_relays_own() => {
            let (endpoint, received) = (&to.endpoint, &to.received);
            let rest = shown_url(Some(&endpoint.verify), &received.rest);
            let own_host = endpoint.hosts.iter().any(|host| **host == *received.host);
            let shown = to.meter.shown();
            let name = if own_host { String::new() } else { format!("/{shown}") };
            let path = shortened(&(name + &rest)).to_owned();
            AccessRoute::Webhook(AccessNote { endpoint: shown, path, client: received.client })
        }
        Asked::Webhook(_) | Asked::Own(..) => AccessRoute::Plain,
        Asked::Answered(_) if path.starts_with("/_relay/") => AccessRoute::Plain,
        Asked::Answered(response) => {
            let is_unrouted = response.headers().get(names::ERROR).is_some_and(|code| code == "endpoint_not_found");
            if is_unrouted { AccessRoute::Plain } else { AccessRoute::Unknown }
        }
    }
}

impl Requests {
    /// What is noted of a request for traces, where there are any.
    pub(super) fn observe(&self, endpoint: &Endpoint, received: &Received) -> Option<Observed> {
        if self.tracer.is_none() || endpoint.name.is_relays_own() {
            return None;
        }
        let context = brought_trace(&received.head.headers);
        Some(Observed {
            id: received.event_id,
            started: received.way.from,
            method: received.head.method.clone(),
            context: context.unwrap_or_else(|| TraceContext::begin(received.event_id)),
        })
    }

    /// The head of its answer is decided.
    pub(super) fn note(
        &self,
        observed: Option<&Observed>,
        endpoint: &Endpoint,
        class: AnswerClass,
        response: &mut Response<ResponseBody>,
    ) {
        if let (Some(tracer), Some(observed)) = (&self.tracer, observed) {
            tracer.request(&SeenRequest {
                id: observed.id,
                context: observed.context,
                endpoint: endpoint.name.as_str(),
                method: observed.method.as_str(),
                status: response.status().as_u16(),
                outcome: class.word(),
                after: observed.started.elapsed(),
            });
        }
        if self.access.is_some() && !endpoint.name.is_relays_own() {
            response.extensions_mut().insert(AccessOutcome(class.word()));
        }
    }
}
