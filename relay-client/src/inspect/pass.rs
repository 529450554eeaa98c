//! Questions of the local page that the relay answers: passed on with the agent's token.
//!
//! ```text
//! browser ── GET /api/v1/events?q=… ──▶ page ── GET /_relay/v1/events?q=…, Authorization: Bearer TOKEN ──▶ relay
//! ```
//!
//! What may be asked is a list of methods and paths, not a prefix. Of the browser's headers a few are passed on, of the
//! relay's answer a few come back, and what is neither JSON nor bytes is an error: a relay's page never becomes one of
//! this machine. Same way, trust and token as the tunnel's, on connections of its own.
//!
//! Invariants: at most [`MAX_AT_ONCE`] questions are with the relay at a time; a question that may have been heard is
//! asked again only where asking changes nothing.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, header, request::Parts};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use relay_program::http1::{AnswerHead, Connection, Part};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, Sleep, sleep, timeout},
};

use super::answer::{self, PageBody, Problem};
use crate::{
    config::{Config, Token, Way},
    link::{LinkError, Stream, api},
};

/// Questions at a time, and connections that wait for the next one.
const MAX_AT_ONCE: usize = 4;
/// How long a question waits for its turn.
const TURN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(45);
/// Where a handler answers.
const REPLAY_PATIENCE: Duration = Duration::from_secs(3700);
/// Between two pieces of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a connection may wait unused.
const IDLE: Duration = Duration::from_secs(20);
const MAX_PATH_BYTES: usize = 1024;
const MAX_QUERY_BYTES: usize = 8192;

/// What is passed on of a question, and of an answer.
const ASKED: [HeaderName; 3] = [header::ACCEPT, header::RANGE, header::CONTENT_TYPE];
const ANSWERED: [HeaderName; 4] =
    [header::CONTENT_RANGE, header::ACCEPT_RANGES, header::RETRY_AFTER, header::CONTENT_DISPOSITION];
/// What an answer may be; whatever else is none of a relay's API.
const KINDS: [&str; 5] =
    ["application/json", "application/problem+json", "application/octet-stream", "application/x-ndjson", "text/plain"];

/// The questions that are passed on: methods, and a path below the API whose `*` is one part of any text.
const LIST: [(&[Method], &str); 29] = [
    (GET, ""),
    (GET, "openapi.json"),
    (GET, "problems/*"),
    (GET, "events"),
    (GET, "events/count"),
    (POST, "events/export"),
    (GET, "events/*"),
    (GET, "events/*/body"),
    (GET, "events/*/attempts/*"),
    (GET, "events/*/attempts/*/body"),
    (GET, "events/*/explain"),
    (GET, "events/*/export"),
    (POST, "events/*/replay"),
    (POST, "events/*/revive"),
    (POST, "events/*/drop"),
    (POST, "events/*/cancel"),
    (POST, "bulk"),
    (GET, "bulks"),
    (GET_DELETE, "bulks/*"),
    (GET, "dead/groups"),
    (GET, "figures"),
    (GET_POST, "endpoints"),
    (GET_DELETE, "endpoints/*"),
    (GET, "endpoints/*/setup"),
    (POST, "endpoints/*/pause"),
    (POST, "endpoints/*/resume"),
    (POST, "endpoints/*/skip"),
    (GET, "agents"),
    (GET, "providers"),
];
const GET: &[Method] = &[Method::GET, Method::HEAD];
const POST: &[Method] = &[Method::POST];
const GET_POST: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
const GET_DELETE: &[Method] = &[Method::GET, Method::HEAD, Method::DELETE];

pub(super) struct Pass {
    settings: watch::Receiver<Arc<Config>>,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

/// A connection that waits for the next question.
struct Idle {
    since: Instant,
    way: Way,
    relay: Connection<Stream>,
}

/// What is asked of the relay.
struct Question {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
    patience: Duration,
}

impl Pass {
    pub(super) fn new(settings: watch::Receiver<Arc<Config>>) -> Self {
        Self { settings, places: Arc::new(Semaphore::new(MAX_AT_ONCE)), idle: Mutex::default() }
    }

    /// The way to the relay and the token for it, as they are now.
    pub(super) fn means(&self) -> Result<(Way, Token), Problem> {
        let config = Arc::clone(&self.settings.borrow());
        let token = config.token.read().map_err(|error| Problem::new(503, "token_unreadable", error.to_string()))?;
        Ok((config.way.clone(), token))
    }

    /// Asks the relay for what stands below the API. The body was bounded by the caller.
    pub(super) async fn ask(
        self: &Arc<Self>,
        below: &str,
        head: &Parts,
        body: Bytes,
    ) -> Result<Response<PageBody>, Problem> {
        let question = question(below, head, body)?;
        let place = timeout(TURN, Arc::clone(&self.places).acquire_owned()).await;
        let busy = || Problem::new(503, "busy", "four questions are with the relay already; ask again in a moment");
        let place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
        let (way, token) = self.means()?;
        let (answer, relay) = self.answered(&way, &token, &question).await.map_err(|error| unanswered(&error))?;
        let to_head = question.method == Method::HEAD;
        let headers = checked(&answer, below)?;
        let rest =
            Rest { pass: Arc::clone(self), way, relay: Some(relay), silence: Box::pin(sleep(SILENCE)), _place: place };
        let body = if to_head { answer::whole(Bytes::new()) } else { rest.boxed_unsync() };
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (answer.status, headers);
        Ok(response)
    }

    async fn answered(
        &self,
        way: &Way,
        token: &Token,
        question: &Question,
    ) -> Result<(AnswerHead, Connection<Stream>), LinkError> {
        if let Some(mut relay) = self.take_idle(way) {
            match ask(&mut relay, way, token, question).await {
                // The relay may have closed it at the same moment.
                Err(LinkError::Unreachable(_)) if question.method.is_safe() => {}
                answered => return answered.map(|answer| (answer, relay)),
            }
        }
        let mut relay = api::connect(way).await?;
        let answer = ask(&mut relay, way, token, question).await?;
        Ok((answer, relay))
    }

    fn take_idle(&self, way: &Way) -> Option<Connection<Stream>> {
        let mut idle = self.idle.lock();
        idle.retain_mut(|one| one.since.elapsed() < IDLE && one.way == *way && one.relay.is_quiet());
        idle.pop().map(|one| one.relay)
    }

    fn put(&self, way: Way, relay: Connection<Stream>) {
        let mut idle = self.idle.lock();
        if relay.may_be_reused() && idle.len() < MAX_AT_ONCE {
            idle.push(Idle { since: Instant::now(), way, relay });
        }
    }
}

fn question(below: &str, head: &Parts, body: Bytes) -> Result<Question, Problem> {
    if below.len() > MAX_PATH_BYTES || head.uri.query().is_some_and(|query| query.len() > MAX_QUERY_BYTES) {
        return Err(Problem::new(414, "too_long", "this address is too long"));
    }
    let Some((methods, pattern)) = LIST.iter().find(|(_, pattern)| fits(pattern, below)) else {
        return Err(Problem::nothing_here());
    };
    if !methods.contains(&head.method) {
        return Err(Problem::new(405, "method", "this cannot be done with that method"));
    }
    let mut target = format!("{}{below}", api::BASE);
    if let Some(query) = head.uri.query() {
        target.extend(["?", query]);
    }
    let mut headers = HeaderMap::new();
    for name in ASKED {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let patience = if pattern.ends_with("/replay") { REPLAY_PATIENCE } else { PATIENCE };
    Ok(Question { method: head.method.clone(), target, headers, body, patience })
}

/// Whether a path is one of a pattern. A part that means another place, or whose text is not as it would be written, fits
/// none.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), parts.next()) {
            (None, None) => return true,
            (Some("*"), Some(part)) if is_plain(part) => {}
            (Some(wanted), Some(part)) if wanted == part => {}
            _ => return false,
        }
    }
}

fn is_plain(part: &str) -> bool {
    let encoded = |code: &str| {
        let code = code.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        code.is_some_and(|byte| !byte.is_ascii_control() && !matches!(byte, b'/' | b'\\' | b'.'))
    };
    let own = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&byte);
    !matches!(part, "" | "." | "..") && part.bytes().all(own) && part.split('%').skip(1).all(encoded)
}

async fn ask(
    relay: &mut Connection<Stream>,
    way: &Way,
    token: &Token,
    question: &Question,
) -> Result<AnswerHead, LinkError> {
    let mut request = api::request(way, token, question.method.clone(), &question.target)?;
    for (name, value) in &question.headers {
        request.headers_mut().insert(name, value.clone());
    }
    *request.body_mut() = question.body.clone();
    let silent = || LinkError::Unreachable(format!("{} did not answer in time", way.relay.authority));
    timeout(question.patience, api::head(relay, request)).await.map_err(|_| silent())?
}

/// Why the relay gave no answer, for the page.
pub(super) fn unanswered(error: &LinkError) -> Problem {
    match error {
        LinkError::Unreachable(_) => Problem::new(503, "relay_unreachable", error.to_string()),
        _ => Problem::new(502, "relay_strange", error.to_string()),
    }
}

/// An answer that says no where a stream was asked for.
pub(super) async fn refused(answer: &AnswerHead, relay: &mut Connection<Stream>) -> Problem {
    match api::refusal(answer, relay).await {
        LinkError::Refused { status, .. } if status == 401 => token_refused(),
        LinkError::Refused { status, code: Some(code), message, .. } if !status.is_success() => {
            Problem::new(status.as_u16(), code, message.unwrap_or_default())
        }
        error => Problem::new(502, "relay_strange", format!("what answered has no stream: {error}")),
    }
}

/// The page's own 401 speaks of the page's key.
fn token_refused() -> Problem {
    let why = "the relay does not accept this agent's token for that; it may have been revoked";
    Problem::new(502, "token_refused", why)
}

/// The headers that an answer goes on with; an error if it is none of a relay's API.
fn checked(answer: &AnswerHead, below: &str) -> Result<HeaderMap, Problem> {
    if answer.status == 401 {
        return Err(token_refused());
    }
    let kind = said(answer, &header::CONTENT_TYPE).and_then(|kind| std::str::from_utf8(kind).ok());
    let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_ours = answer.status.is_success() || answer.status.is_client_error() || answer.status.is_server_error();
    let has_body = answer.status != 204;
    let known = KINDS.iter().find(|known| **known == essence);
    if !is_ours || answer.status == 101 || (has_body && known.is_none()) {
        let essence = relay_proto::printable::escaped(&essence);
        let why = format!("what answered is no relay's API: HTTP {} with {essence:?}", answer.status.as_u16());
        return Err(Problem::new(502, "relay_strange", why));
    }
    let mut headers = HeaderMap::new();
    for name in ANSWERED {
        if let Some(Ok(value)) = said(answer, &name).map(http::HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    let named = headers.remove(header::CONTENT_DISPOSITION);
    match known {
        Some(kind) if kind.ends_with("json") && !kind.contains("ndjson") => {
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        }
        // For saving, whatever it says: under its last part's name where the relay gave none.
        Some(_) => {
            let name =
                named.as_ref().and_then(|named| named.to_str().ok()?.split("filename=\"").nth(1)?.split('"').next());
            let name = name.or_else(|| below.rsplit('/').next()).unwrap_or_default();
            headers.insert(header::CONTENT_DISPOSITION, answer::attachment(name));
            headers.insert(header::CONTENT_TYPE, answer::OCTETS);
        }
        None => {}
    }
    Ok(headers)
}

fn said<'a>(answer: &'a AnswerHead, name: &HeaderName) -> Option<&'a [u8]> {
    answer.headers.iter().find(|(other, _)| *other == name.as_str().as_bytes()).map(|(_, value)| value)
}

/// The rest of an answer: read as the browser takes it, and its connection kept for the next question.
struct Rest {
    pass: Arc<Pass>,
    way: Way,
    relay: Option<Connection<Stream>>,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            let Some(relay) = &mut this.relay else { return Poll::Ready(None) };
            match relay.poll_part(cx) {
                Poll::Ready(Ok(Some(Part::Data(data)))) => {
                    this.silence.as_mut().reset(Instant::now() + SILENCE);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Ok(Some(Part::Trailers(_)))) => {}
                Poll::Ready(Ok(None)) => {
                    if let Some(relay) = this.relay.take() {
                        this.pass.put(this.way.clone(), relay);
                    }
                    return Poll::Ready(None);
                }
                Poll::Ready(Err(error)) => {
                    this.relay = None;
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
                Poll::Pending => {
                    if this.silence.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.relay = None;
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                }
            }
        }
    }
}

/// The question that opens a stream, with the last id that its reader saw.
pub(super) fn stream_request(
    way: &Way,
    token: &Token,
    query: &str,
    last_id: Option<&str>,
) -> Result<Request<Bytes>, LinkError> {
    let mark = if query.is_empty() { "" } else { "?" };
    let mut request = api::request(way, token, Method::GET, &format!("{}stream{mark}{query}", api::BASE))?;
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, http::HeaderValue::from_static("text/event-stream"));
    if let Some(id) = last_id.and_then(|id| http::HeaderValue::from_str(id).ok()) {
        headers.insert("last-event-id", id);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, below: &str) -> u16 {
        let (head, ()) = Request::builder().method(method).uri("/x").body(()).unwrap().into_parts();
        question(below, &head, Bytes::new()).map_or_else(|problem| problem.status, |_| 200)
    }

    #[test]
    fn only_what_stands_in_the_list_is_passed_on() {
        for (method, path) in [
            ("GET", ""),
            ("HEAD", "events"),
            ("GET", "events/hook_1"),
            ("GET", "events/evt%3A1+2"),
            ("POST", "events/hook_1/replay"),
            ("DELETE", "bulks/7"),
            ("POST", "endpoints"),
            ("GET", "endpoints/a/setup"),
            ("GET", "providers"),
            ("GET", "events/hook_1/attempts/2/body"),
        ] {
            assert_eq!(asked(method, path), 200, "{method} {path}");
        }
        for path in [
            "tokens",
            "sessions",
            "sessions/codes",
            "config",
            "backup",
            "connect",
            "agents/1/disconnect",
            "events/",
            "events//body",
            "events/../tokens",
            "events/..",
            "events/%2e%2e/body",
            "events/%2Fx",
            "events/a%2fb",
            "events/a%5cb",
            "events/%",
            "events/%0a",
            "events/a b",
            "/events",
            "events/a/b/c/d",
            "EVENTS",
            "stream",
            "events/h\u{f6}",
            "problems/a#b",
            "events/a?b",
        ] {
            assert_eq!(asked("GET", path), 404, "{path}");
        }
        for (method, path) in [
            ("DELETE", "events/hook_1"),
            ("GET", "events/hook_1/replay"),
            ("PUT", "endpoints"),
            ("POST", "agents"),
            ("OPTIONS", "events"),
        ] {
            assert_eq!(asked(method, path), 405, "{method} {path}");
        }
        assert_eq!(asked("GET", &format!("events/{}", "a".repeat(2000))), 414);
    }
}
