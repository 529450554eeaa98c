//! Delivery: hands a proven webhook to an agent and waits for its answer.
//!
//! Live mode: nothing is kept. The request's body goes out as the agent takes it, the answer comes
//! back as it is written; a sender that goes away resets the exchange.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use relay_proto::{Framing, Headers, RequestHead, ResetCode};
use relay_tunnel::{
    Broken, Exchange, Receiver, Sender,
    http::{header_lines, header_map, strip_hop_by_hop},
};
use tokio::time::{timeout, timeout_at};
use uuid::Uuid;

use crate::{
    agents::registry::Registry,
    endpoint::Endpoint,
    verify::{Payload, Webhook},
    webhook::{Failure, Received},
};

/// The answer of a handler, still streaming.
pub type Answer = Response<Receiver>;

/// Whose `X-Forwarded-…` headers are kept.
pub type Trusted<'a> = &'a (dyn Fn(std::net::IpAddr) -> bool + Sync);

/// Delivers a webhook and returns the handler's answer once its head is there.
///
/// # Errors
/// [`Failure`] when there is no answer in time.
pub async fn deliver(
    webhook: Webhook,
    endpoint: &Endpoint,
    registry: &Registry,
    trusted: Trusted<'_>,
    body_idle: Duration,
) -> Result<Answer, Failure> {
    let (received, payload, scheme) = webhook.into_parts();
    let deadline = received.started + endpoint.deadline;
    let head = request_head(received, &payload, endpoint, scheme, trusted);
    let patience = (tokio::time::Instant::now() + endpoint.wait_for_agent).min(deadline);
    let Exchange { request, response } = registry.open_or_wait(endpoint.name.as_str(), &head, patience).await?;
    let upload = upload(request, payload, endpoint.max_body, body_idle);
    let answer = response.head();
    let exchange = async {
        tokio::pin!(upload, answer);
        let mut uploading = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return match answer {
                    Ok((head, body)) => Ok((head, body, uploading)),
                    Err(broken) => Err(failure_of(broken)),
                },
                outcome = &mut upload, if uploading => match outcome {
                    Ok(()) => uploading = false,
                    Err(failure) => return Err(failure),
                },
            }
        }
    };
    let (head, body, _) = timeout_at(deadline, exchange).await.map_err(|_| Failure::Deadline)??;
    let mut headers = header_map(head.headers).map_err(|_| Failure::HandlerBroken)?;
    strip_hop_by_hop(&mut headers);
    let mut answer = Response::new(body);
    *answer.status_mut() = http::StatusCode::from_u16(head.status).map_err(|_| Failure::HandlerBroken)?;
    if head.status == 101 {
        return Err(Failure::HandlerBroken); // Upgrades are not carried yet.
    }
    *answer.headers_mut() = headers;
    Ok(answer)
}

fn failure_of(broken: Broken) -> Failure {
    match broken {
        Broken::SessionLost => Failure::AgentLost,
        Broken::Reset(ResetCode::NotCalled) => Failure::NotCalled,
        Broken::Reset(ResetCode::Unreachable) => Failure::HandlerUnreachable,
        Broken::Reset(ResetCode::Timeout) => Failure::HandlerTimeout,
        Broken::Reset(ResetCode::Broken | ResetCode::NoError | ResetCode::Cancelled) => Failure::HandlerBroken,
    }
}

/// Sends the request's body as fast as the agent takes it.
async fn upload(mut request: Sender, payload: Payload, max_bytes: u64, idle: Duration) -> Result<(), Failure> {
    let mut body = match payload {
        Payload::Whole(body) => {
            if request.send(body).await.is_ok() {
                request.finish(Headers::new());
            }
            return Ok(());
        }
        Payload::Streaming(body) => body,
    };
    let (mut sent, mut trailers) = (0_u64, Headers::new());
    loop {
        let frame = timeout(idle, next_frame(&mut body)).await.map_err(|_| Failure::BodyTimeout)??;
        let Some(frame) = frame else { break };
        match frame.into_data() {
            Ok(data) => {
                sent += data.len() as u64;
                if sent > max_bytes {
                    return Err(Failure::BodyTooLarge { limit: max_bytes });
                }
                if request.send(data).await.is_err() {
                    return Ok(()); // The answer, or its absence, says why.
                }
            }
            Err(frame) => {
                if let Ok(lines) = frame.into_trailers() {
                    trailers = header_lines(&lines);
                }
            }
        }
    }
    request.finish(trailers);
    Ok(())
}

async fn next_frame(body: &mut Incoming) -> Result<Option<hyper::body::Frame<Bytes>>, Failure> {
    body.frame().await.transpose().map_err(|_| Failure::BodyBroken)
}

/// The request as the handler is to see it.
fn request_head(
    received: Received,
    payload: &Payload,
    endpoint: &Endpoint,
    scheme: &'static str,
    trusted: Trusted<'_>,
) -> RequestHead {
    let Received { event_id, at, peer, secure, head, host, rest, .. } = received;
    let chunked = match payload {
        Payload::Whole(_) => head.headers.contains_key(header::TRANSFER_ENCODING),
        Payload::Streaming(body) => !body.is_end_stream() && !head.headers.contains_key(header::CONTENT_LENGTH),
    };
    let mut headers = head.headers;
    strip_hop_by_hop(&mut headers);
    headers.remove(header::EXPECT); // Answered by this hop.
    strip_ours(&mut headers);
    forward(&mut headers, peer, secure, &host, trusted(peer));
    trace(&mut headers);
    let name = endpoint.name.as_str();
    let ours = [
        ("relay-event-id", event_id.to_string()),
        ("relay-endpoint", name.to_owned()),
        ("relay-attempt", "1".to_owned()),
        ("relay-received-at", at.to_string()),
        ("relay-verified", scheme.to_owned()),
    ];
    for (key, value) in ours {
        set(&mut headers, key, &value);
    }
    if !headers.contains_key(header::HOST) {
        set(&mut headers, "host", &host); // HTTP/2 has an :authority instead.
    }
    RequestHead {
        endpoint: Bytes::copy_from_slice(name.as_bytes()),
        event_id: *event_id.as_bytes(),
        attempt: 1,
        method: Bytes::copy_from_slice(head.method.as_str().as_bytes()),
        target: rest.into(),
        framing: if chunked { Framing::Chunked } else { Framing::Length },
        headers: header_lines(&headers),
        fence: None,
        upgrade: Bytes::new(),
    }
}

/// Never let through: a sender's own `Relay-…` headers, and names that a handler's gateway (CGI, WSGI)
/// would take for others: `Proxy` becomes HTTP_PROXY, and `_` cannot be told from `-`.
fn strip_ours(headers: &mut HeaderMap) {
    let confusing = |name: &str| {
        name.starts_with("relay-")
            || name.starts_with("x-relay-")
            || matches!(name, "proxy" | "transfer_encoding" | "content_length")
    };
    let ours: Vec<HeaderName> = headers.keys().filter(|name| confusing(name.as_str())).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

fn forward(headers: &mut HeaderMap, peer: std::net::IpAddr, secure: bool, host: &str, trusted: bool) {
    let before = if trusted {
        headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).map(|value| format!("{value}, "))
    } else {
        headers.remove("x-forwarded-proto");
        headers.remove("x-forwarded-host");
        headers.remove("forwarded");
        None
    };
    set(headers, "x-forwarded-for", &format!("{}{peer}", before.unwrap_or_default()));
    if !headers.contains_key("x-forwarded-proto") {
        set(headers, "x-forwarded-proto", if secure { "https" } else { "http" });
    }
    if !headers.contains_key("x-forwarded-host") {
        set(headers, "x-forwarded-host", host);
    }
}

/// Continues a valid trace (W3C Trace Context, version 00) and begins one where there is none.
fn trace(headers: &mut HeaderMap) {
    let valid = |value: &HeaderValue| {
        let value = value.as_bytes();
        let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        value.len() == 55
            && value.starts_with(b"00-")
            && (value[35], value[52]) == (b'-', b'-')
            && [&value[3..35], &value[36..52]].iter().all(|part| hex(part) && part.iter().any(|byte| *byte != b'0'))
            && hex(&value[53..])
    };
    let mut values = headers.get_all("traceparent").iter();
    let keep = matches!((values.next(), values.next()), (Some(only), None) if valid(only));
    if !keep {
        headers.remove("tracestate");
        let (trace, span) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
        set(headers, "traceparent", &format!("00-{trace}-{}-01", &span[..16]));
    }
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
