//! A request's line in the access log, while it is on its way: begun with its head, written when its answer ends.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header};
use hyper::body::Frame;
use relay_proto::names;
use tokio::time::Instant;

use super::{
    request::Connection,
    respond::{BodyError, ResponseBody},
};
use crate::{
    access_log::{AccessLog, AccessRecord, shortened},
    clock::wall,
    mask::masked_url,
    message::known,
};

/// What is known of a webhook's line once it is routed.
pub(super) struct AccessNote {
    pub(super) endpoint: String,
    /// As it is shown.
    pub(super) path: String,
    pub(super) client: IpAddr,
}

/// What became of a webhook; stands in the answer's extensions.
#[derive(Clone)]
pub(super) struct AccessOutcome(pub(super) &'static str);

/// What a line may say of where its request went.
pub(super) enum AccessRoute {
    Webhook(AccessNote),
    /// To no endpoint, so that its path is nobody's secret.
    Plain,
    /// Nobody knows, and the path may be all that an endpoint is kept secret by.
    Unknown,
}

/// A line that is not written yet. Dropped, it is.
pub(super) struct AccessEntry {
    log: Arc<AccessLog>,
    connection: Arc<Connection>,
    started: Instant,
    method: String,
    path: String,
    version: Version,
    request_bytes: Option<u64>,
    user_agent: Option<String>,
    route: AccessRoute,
    answer: Option<Answered>,
    bytes: u64,
    is_whole: bool,
}

/// What the head of the answer says.
struct Answered {
    status: u16,
    event_id: Option<String>,
    error: Option<String>,
    outcome: Option<AccessOutcome>,
    at: Instant,
}

impl AccessEntry {
    pub(super) fn begin<B>(
        log: &Arc<AccessLog>,
        connection: &Arc<Connection>,
        request: &Request<B>,
        started: Instant,
    ) -> Box<Self> {
        let target = request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let headers = request.headers();
        Box::new(Self {
            log: Arc::clone(log),
            connection: Arc::clone(connection),
            started,
            method: shortened(request.method().as_str()).to_owned(),
            path: shortened(&masked_url(target)).to_owned(),
            version: request.version(),
            request_bytes: text(headers, header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()),
            user_agent: text(headers, header::USER_AGENT.as_str()).map(|agent| shortened(agent).to_owned()),
            route: AccessRoute::Unknown,
            answer: None,
            bytes: 0,
            is_whole: false,
        })
    }

    /// It is known what it is for. From here on its sender may leave at any time.
    pub(super) fn routed(&mut self, route: AccessRoute) {
        self.route = route;
    }

    /// The head of its answer is decided.
    pub(super) fn answered(&mut self, response: &mut Response<ResponseBody>) {
        let headers = response.headers();
        self.answer = Some(Answered {
            status: response.status().as_u16(),
            event_id: text(headers, known::EVENT_ID.as_str()).map(str::to_owned),
            error: text(headers, names::ERROR).map(str::to_owned),
            outcome: response.extensions_mut().remove(),
            at: Instant::now(),
        });
    }

    /// A part of its body went out, or its end.
    pub(super) fn sent(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => {}
            None => self.is_whole = true,
        }
    }

    /// All that there was has been taken.
    pub(super) fn is_whole(&mut self) {
        self.is_whole = true;
    }
}

impl Drop for AccessEntry {
    fn drop(&mut self) {
        let (peer, now) = (self.connection.peer, Instant::now());
        let answer = self.answer.as_ref();
        let (note, path) = match &self.route {
            AccessRoute::Webhook(note) => (Some(note), Some(&*note.path)),
            AccessRoute::Plain => (None, Some(&*self.path)),
            AccessRoute::Unknown => (None, None),
        };
        let micros = |at: Instant| u64::try_from((at - self.started).as_micros()).unwrap_or(u64::MAX);
        let began = wall().saturating_sub(now - self.started).unwrap_or_else(|_| wall());
        self.log.write(&AccessRecord {
            time: format!("{began:.6}"),
            event_id: answer.and_then(|answer| answer.event_id.as_deref()),
            endpoint: note.map(|note| &*note.endpoint),
            method: &self.method,
            path,
            protocol: protocol(self.version),
            tls: peer.secure,
            client: note.map_or(peer.address, |note| note.client),
            peer: peer.address,
            // The sender left before there was one.
            status: answer.map_or(0, |answer| answer.status),
            outcome: answer.and_then(|answer| answer.outcome.as_ref()).map(|outcome| outcome.0),
            error: answer.and_then(|answer| answer.error.as_deref()),
            request_bytes: self.request_bytes,
            answer_bytes: self.bytes,
            answered_us: micros(answer.map_or(now, |answer| answer.at)),
            ended_us: micros(now),
            complete: answer.is_some() && self.is_whole,
            user_agent: self.user_agent.as_deref(),
        });
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
