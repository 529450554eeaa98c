//! What is noted of a request for the access log and for traces, where there are any.

use std::net::IpAddr;

use http::{Method, Response};
use tokio::time::Instant;

use super::{access::AccessNote, request::Requests, respond::ResponseBody};
use crate::{
    access_log::shortened,
    endpoint::Endpoint,
    mask::shown_url,
    message::brought_trace,
    metrics::{AnswerClass, Meter},
    spans::SeenRequest,
    trace::TraceContext,
    webhook::{EventId, Received},
};

/// What is noted of a request before its way, for the access log and for traces.
pub(super) struct Observed {
    id: EventId,
    /// Its first byte.
    started: Instant,
    client: IpAddr,
    method: Method,
    context: TraceContext,
    /// Its endpoint as metrics name it.
    shown: String,
    /// Where there is an access log.
    path: Option<String>,
}

impl Requests {
    /// What is noted of a request for those who look at it, where anybody does.
    pub(super) fn observe(&self, endpoint: &Endpoint, meter: &Meter, received: &Received) -> Option<Box<Observed>> {
        if (self.tracer.is_none() && self.access.is_none()) || endpoint.name.is_relays_own() {
            return None;
        }
        let path = self.access.as_ref().map(|_| {
            let rest = shown_url(Some(&endpoint.verify), &received.rest);
            let own_host = endpoint.hosts.iter().any(|host| **host == *received.host);
            let name = if own_host { String::new() } else { format!("/{}", meter.shown()) };
            shortened(&(name + &rest)).to_owned()
        });
        let context = brought_trace(&received.head.headers);
        Some(Box::new(Observed {
            id: received.event_id,
            started: received.way.from,
            client: received.client,
            method: received.head.method.clone(),
            context: context.unwrap_or_else(|| TraceContext::begin(received.event_id)),
            shown: meter.shown(),
            path,
        }))
    }

    /// The head of its answer is decided.
    pub(super) fn note(
        &self,
        observed: Observed,
        endpoint: &Endpoint,
        class: AnswerClass,
        response: &mut Response<ResponseBody>,
    ) {
        let outcome = class.word();
        if let Some(tracer) = &self.tracer {
            tracer.request(&SeenRequest {
                id: observed.id,
                context: observed.context,
                endpoint: endpoint.name.as_str(),
                method: observed.method.as_str(),
                status: response.status().as_u16(),
                outcome,
                after: observed.started.elapsed(),
            });
        }
        if let Some(path) = observed.path {
            let Observed { client, shown: endpoint, .. } = observed;
            response.extensions_mut().insert(AccessNote { endpoint, path, client, outcome });
        }
    }
}
