//! Delivery: hands a proven webhook to an agent and waits for its answer.
//!
//! Live mode: nothing is kept. The request's body goes out as the agent takes it, the answer comes
//! back as it is written; a sender that goes away resets the exchange.

mod silence;

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header, response::Parts};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use relay_proto::{HeaderBlock, ResponseHead};
use relay_tunnel::{
    Broken, Exchange, Receiver, Sender,
    http::{header_lines, header_map, one_length, strip_hop_by_hop},
    upgrade::{Carried, join},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use self::silence::{Noting, Passed};
use crate::{
    agents::{
        copies::Tee,
        registry::{Heed, Registry},
    },
    endpoint::Endpoint,
    failure::{Failure, HandlerFault, SenderFault},
    limits::{Limits, Turn},
    memory::Memory,
    message::{Known, names, request_head, take_apart},
    store::Outcome,
    verify::{Payload, Webhook},
    webhook::input::RequestBody,
};

/// The answer of a handler, still streaming.
pub(crate) struct Answer {
    /// Status and headers.
    pub head: Parts,
    /// The body; none after an upgrade.
    pub body: Option<Receiver>,
    /// The rest of the request's body, while the answer came before its end.
    pub upload: Option<Upload>,
    /// What the request takes, while the rest of its body goes on.
    pub memory: Option<Memory>,
    /// Its place among the endpoint's exchanges, until the sender has it all.
    pub turn: Option<Turn>,
}

/// A request's body on its way beside the answer. Dropped with the answer, it ends, unless others watch: a copy is
/// whole whether or not the handler wanted all of it.
#[derive(Debug)]
pub(crate) struct Upload {
    task: JoinHandle<()>,
    watched: bool,
}

impl Upload {
    /// Begins it.
    pub(crate) fn spawn(upload: impl Future<Output = ()> + Send + 'static, watched: bool) -> Self {
        Self { task: tokio::spawn(upload), watched }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.watched {
            self.task.abort();
        }
    }
}

/// Whose `X-Forwarded-…` headers are kept.
pub(crate) type Trusted<'a> = &'a (dyn Fn(std::net::IpAddr) -> bool + Sync);

/// What delivery needs beside the webhook and its endpoint.
pub(crate) struct Means<'a> {
    /// The attached agents.
    pub registry: &'a Registry,
    /// What endpoints let through.
    pub limits: &'a Arc<Limits>,
    /// Whose `X-Forwarded-…` headers are kept.
    pub trusted: Trusted<'a>,
    /// Longest silence while a request's body comes.
    pub body_idle: Duration,
    /// Longest silence of an upgraded connection.
    pub upgrade_idle: Duration,
    /// Where upgraded connections are counted.
    pub connections: &'a TaskTracker,
}

/// Delivers a webhook and returns the handler's answer once its head is there.
///
/// # Errors
/// [`Failure`] when there is no answer in time.
pub(crate) async fn deliver(webhook: Webhook, endpoint: &Endpoint, means: Means<'_>) -> Result<Answer, Failure> {
    let kind = webhook.event().kind.clone();
    let kind = kind.as_deref();
    let deadline = webhook.started() + endpoint.deadline;
    let (sent, arrival, payload) = take_apart(webhook, means.trusted);
    let head = request_head(&endpoint.name, &sent, &Known::live(&arrival));
    let (name, patience) = (endpoint.name.as_str(), (Instant::now() + endpoint.wait_for_agent).min(deadline));
    means.limits.room(endpoint, 1, Instant::now())?;
    let place = means.registry.reserve_or_wait(name, kind, Heed::Nothing, patience).await?;
    let turn = means.limits.take(endpoint, Instant::now())?;
    let copied = !matches!(payload, Payload::Upgrade(_));
    let tee = if copied { means.registry.copies(name, kind, || head.clone()) } else { None };
    let asked = head.upgrade.clone();
    let Exchange { request, response } = place.open(head);
    match payload {
        Payload::Upgrade(connection) => {
            let (head, body) =
                timeout_at(deadline, response.head()).await.map_err(|_| HandlerFault::Deadline)?.map_err(failure_of)?;
            let wanted = head.status == 101;
            let mut answer = answer(&head, body)?;
            if wanted && !switches_to(&answer.head.headers, &asked) {
                return Err(HandlerFault::Broken.into());
            }
            match answer.body.take_if(|_| wanted) {
                Some(body) => {
                    drop(means.connections.spawn(upgraded(connection, (request, body), means.upgrade_idle, turn)));
                }
                None => {
                    request.finish(HeaderBlock::new());
                    answer.turn = turn;
                }
            }
            Ok(answer)
        }
        payload => {
            let watched = tee.is_some();
            let upload = upload(request, payload, tee, endpoint.max_body, means.body_idle);
            let exchange = race(response.head(), Box::pin(upload));
            let (head, body, upload) = timeout_at(deadline, exchange).await.map_err(|_| HandlerFault::Deadline)??;
            if head.status == 101 {
                return Err(HandlerFault::Broken.into()); // Nobody asked for it.
            }
            Ok(Answer { upload: upload.map(|upload| finish_upload(upload, watched)), turn, ..answer(&head, body)? })
        }
    }
}

/// Sends the request until the answer's head is there; what is left of the request is given back.
async fn race<U>(
    answer: impl Future<Output = Result<(ResponseHead, Receiver), Broken>>,
    mut upload: Pin<Box<U>>,
) -> Result<(ResponseHead, Receiver, Option<Pin<Box<U>>>), Failure>
where
    U: Future<Output = Result<(), Failure>>,
{
    tokio::pin!(answer);
    let uploaded = tokio::select! {
        biased;
        answer = &mut answer => {
            let (head, body) = answer.map_err(failure_of)?;
            return Ok((head, body, Some(upload)));
        }
        uploaded = &mut upload => uploaded,
    };
    uploaded?;
    let (head, body) = answer.await.map_err(failure_of)?;
    Ok((head, body, None))
}

/// The answer came early: the request goes on beside it. A failure breaks the exchange, which the answer's
/// reader sees.
fn finish_upload<U>(upload: Pin<Box<U>>, watched: bool) -> Upload
where
    U: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let upload = async move {
        if let Err(failure) = upload.await {
            tracing::debug!(?failure, "a request broke off while its answer was under way");
        }
    };
    Upload::spawn(upload, watched)
}

fn answer(head: &ResponseHead, body: Receiver) -> Result<Answer, HandlerFault> {
    Ok(Answer { head: answer_head(head)?, body: Some(body), upload: None, memory: None, turn: None })
}

/// Whether a 101 names the protocol that was asked for, and no other.
fn switches_to(headers: &HeaderMap, asked: &[u8]) -> bool {
    headers.get(header::UPGRADE).is_some_and(|named| named.as_bytes().eq_ignore_ascii_case(asked))
}

/// A handler's answer as its sender may see it.
///
/// # Errors
/// [`HandlerFault::Broken`] if it is no answer.
pub(crate) fn answer_head(head: &ResponseHead) -> Result<Parts, HandlerFault> {
    let mut headers = header_map(&head.headers).map_err(|_| HandlerFault::Broken)?;
    let upgrade = headers.remove(header::UPGRADE).filter(|_| head.status == 101);
    strip_hop_by_hop(&mut headers);
    names::strip_answer(&mut headers);
    settle_length(head.status, &mut headers)?;
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    if !matches!(head.status, 101 | 200..=599) {
        return Err(HandlerFault::Broken);
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = http::StatusCode::from_u16(head.status).map_err(|_| HandlerFault::Broken)?;
    parts.headers = headers;
    Ok(parts)
}

/// Takes out of the lines behind a handler's answer what its sender may not see. HTTP/2 would break the answer off for a
/// line of one hop.
pub(crate) fn settle_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    names::strip_answer(trailers);
    trailers.remove(header::CONTENT_LENGTH); // It comes too late to say one.
}

/// Leaves an answer one length at most, and none where its status has no body (RFC 9110, section 8.6).
fn settle_length(status: u16, headers: &mut HeaderMap) -> Result<(), HandlerFault> {
    match one_length(headers) {
        _ if matches!(status, 101 | 204 | 304) => drop(headers.remove(header::CONTENT_LENGTH)),
        Ok(None) => {}
        Ok(Some(length)) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        Err(_) => return Err(HandlerFault::Broken),
    }
    Ok(())
}

/// Carries raw bytes between a sender's upgraded connection and the tunnel, until nothing has passed for `silence`.
async fn upgraded(connection: OnUpgrade, (request, body): (Sender, Receiver), silence: Duration, _turn: Option<Turn>) {
    let connection = match connection.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return tracing::debug!(%error, "a sender left during its upgrade"),
    };
    let (mut carried, passed) = (Carried::default(), Passed::new());
    let joined = join(Noting(connection, Arc::clone(&passed)), request, body, &mut carried);
    let outcome = tokio::select! {
        outcome = joined => outcome,
        () = passed.nothing_for(silence) => Err(io::Error::new(io::ErrorKind::TimedOut, "it was silent for too long")),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, ?carried, "an upgraded connection broke");
    }
}

fn failure_of(broken: Broken) -> Failure {
    Outcome::from(broken).into()
}

/// Sends the request's body as fast as the agent takes it.
async fn upload(
    mut request: Sender,
    payload: Payload,
    mut tee: Option<Tee>,
    max_bytes: u64,
    idle: Duration,
) -> Result<(), Failure> {
    let mut body = match payload {
        Payload::Whole(body) => {
            if let Some(mut tee) = tee {
                tee.data(&body);
                tee.finish(&HeaderBlock::new());
            }
            if request.send(body).await.is_ok() {
                request.finish(HeaderBlock::new());
            }
            return Ok(());
        }
        Payload::Streaming(body) => body,
        Payload::Upgrade(_) => return Ok(()), // Its direction begins with the 101.
    };
    let (mut sent, mut trailers, mut wanted) = (0_u64, HeaderBlock::new(), true);
    loop {
        let frame = timeout(idle, next_frame(&mut body)).await.map_err(|_| SenderFault::BodyTimeout)??;
        let Some(frame) = frame else { break };
        match frame.into_data() {
            Ok(data) => {
                sent += data.len() as u64;
                if sent > max_bytes {
                    return Err(SenderFault::BodyTooLarge { limit_bytes: max_bytes }.into());
                }
                if let Some(tee) = &mut tee {
                    tee.data(&data);
                }
                wanted = wanted && request.send(data).await.is_ok();
                if !wanted && tee.as_ref().is_none_or(Tee::is_empty) {
                    return Ok(()); // The answer, or its absence, says why.
                }
            }
            Err(frame) => {
                if let Ok(mut lines) = frame.into_trailers() {
                    strip_hop_by_hop(&mut lines);
                    names::strip(&mut lines, false); // No proxy tells of the way behind a body.
                    trailers = header_lines(&lines);
                }
            }
        }
    }
    if let Some(tee) = tee {
        tee.finish(&trailers);
    }
    request.finish(trailers);
    Ok(())
}

async fn next_frame(body: &mut RequestBody) -> Result<Option<hyper::body::Frame<Bytes>>, SenderFault> {
    body.frame().await.transpose().map_err(|_| SenderFault::BodyBroken)
}
