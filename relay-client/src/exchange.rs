//! One exchange: calls the handler with what came over the tunnel and sends back what it answers.
//!
//! Bodies stream both ways. Whoever gives up is heard by the other: a sender that went away closes
//! the connection to the handler, a handler that broke off resets the stream, never a clean short end.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Empty};
use jiff::Timestamp;
use relay_proto::{Framing, Headers, RequestHead, ResetCode, ResponseHead};
use relay_tunnel::{
    Broken, Receiver, Responder,
    http::{header_lines, header_map, strip_hop_by_hop},
};

use crate::{
    agent::event_name,
    config::EndpointConfig,
    handler::{BoxError, CallError, Handler, ResponseBody},
    report::{Line, Outcome, Reporter},
};

/// Where an endpoint's requests go.
#[derive(Debug)]
pub struct Route {
    /// What the user said of the endpoint.
    pub config: EndpointConfig,
    /// The handler.
    pub handler: Handler,
}

impl Route {
    /// A route to a handler.
    #[must_use]
    pub const fn new(config: EndpointConfig, handler: Handler) -> Self {
        Self { config, handler }
    }
}

/// Answers one request and reports how it went. `route` is `None` for an endpoint that was not offered.
pub async fn serve(request: relay_tunnel::Request, route: Option<Arc<Route>>, reporter: Reporter) {
    let (time, started) = (Timestamp::now(), Instant::now());
    let relay_tunnel::Request { head, body, responder } = request;
    let method = String::from_utf8_lossy(&head.method).into_owned();
    let endpoint = String::from_utf8_lossy(&head.endpoint).into_owned();
    let event_id = Some(event_name(head.event_id));
    let mut path = String::from_utf8_lossy(&head.target).into_owned();
    let bytes_in = Arc::new(AtomicU64::new(0));
    let (mut bytes_out, mut note) = (0, None);
    let prepared = match &route {
        None => Err("endpoint_not_offered".to_owned()),
        Some(route) => prepare(head, body, route, &bytes_in),
    };
    let outcome = match (prepared, route) {
        (Ok(request), Some(route)) => {
            path = request.uri().to_string();
            match call(&route.handler, request, responder, &mut bytes_out).await {
                Ok(status) => Outcome::Status(status),
                Err((code, why)) => {
                    note = why;
                    Outcome::Failed(code.to_owned())
                }
            }
        }
        (prepared, _) => {
            responder.reset(ResetCode::NotCalled);
            Outcome::Failed(prepared.err().unwrap_or_default())
        }
    };
    let bytes_in = bytes_in.load(Ordering::Relaxed);
    let duration = started.elapsed();
    reporter.exchange(Line { time, method, path, outcome, duration, bytes_in, bytes_out, endpoint, event_id, note });
}

type RequestBody = Either<Counted, Empty<Bytes>>;

/// The request to the handler; the error is a code.
fn prepare(
    head: RequestHead,
    body: Receiver,
    route: &Route,
    bytes_in: &Arc<AtomicU64>,
) -> Result<Request<RequestBody>, String> {
    let rest = std::str::from_utf8(&head.target).map_err(|_| "uncarriable_path".to_owned())?;
    let uri = route.handler.target().uri_for(rest).map_err(|_| "uncarriable_path".to_owned())?;
    let method = Method::from_bytes(&head.method).map_err(|_| "bad_method".to_owned())?;
    let mut headers = header_map(head.headers).map_err(|_| "bad_headers".to_owned())?;
    if !route.config.preserve_host || !headers.contains_key(header::HOST) {
        headers.insert(header::HOST, route.handler.host_header());
    }
    for (name, value) in &route.config.headers {
        headers.insert(name, value.clone());
    }
    let has_body = head.framing == Framing::Chunked || headers.contains_key(header::CONTENT_LENGTH);
    if head.framing == Framing::Chunked {
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let body = if has_body {
        Either::Left(Counted { inner: body, bytes: Arc::clone(bytes_in) })
    } else {
        Either::Right(Empty::new())
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Calls the handler and passes its answer on. The error is a code and what there is to say to it.
async fn call(
    handler: &Handler,
    request: Request<RequestBody>,
    mut responder: Responder,
    bytes_out: &mut u64,
) -> Result<u16, (&'static str, Option<String>)> {
    let called = tokio::select! {
        biased;
        gone = responder.cancelled() => return Err(given_up(gone)),
        called = handler.call(request) => called,
    };
    match called {
        Ok(response) if response.status() == http::StatusCode::SWITCHING_PROTOCOLS => {
            responder.reset(ResetCode::Broken);
            Err(("upgrade_unsupported", None))
        }
        Ok(response) => answer(response, responder, bytes_out).await,
        Err(error) => {
            let (reset, code) = meaning(&error);
            responder.reset(reset);
            Err((code, Some(error.to_string())))
        }
    }
}

async fn answer(
    response: Response<ResponseBody>,
    responder: Responder,
    bytes_out: &mut u64,
) -> Result<u16, (&'static str, Option<String>)> {
    let (parts, body) = response.into_parts();
    let mut headers: HeaderMap = parts.headers;
    strip_hop_by_hop(&mut headers);
    let status = parts.status.as_u16();
    let mut sender = responder.respond(ResponseHead { status, headers: header_lines(&headers) });
    let mut body = pin!(body);
    let mut trailers = Headers::new();
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            gone = sender.closed() => return Err(given_up(gone)),
        };
        match frame {
            None => break,
            Some(Err(error)) => {
                let (reset, code) = meaning(&error);
                sender.reset(reset);
                return Err((code, Some(error.to_string())));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let len = data.len() as u64;
                    sender.send(data).await.map_err(given_up)?;
                    *bytes_out += len;
                }
                Err(frame) => {
                    if let Ok(lines) = frame.into_trailers() {
                        trailers = header_lines(&lines);
                    }
                }
            },
        }
    }
    sender.finish(trailers);
    Ok(status)
}

fn given_up(gone: Broken) -> (&'static str, Option<String>) {
    match gone {
        Broken::SessionLost => ("session_lost", None),
        Broken::Reset(_) => ("cancelled", None),
    }
}

fn meaning(error: &CallError) -> (ResetCode, &'static str) {
    match error {
        CallError::Timeout(_) if !error.may_have_been_seen() => (ResetCode::Unreachable, "unreachable"),
        CallError::Timeout(_) => (ResetCode::Timeout, "timeout"),
        CallError::Unreachable(_) => (ResetCode::Unreachable, "unreachable"),
        CallError::Broken(_) => (ResetCode::Broken, "broken"),
        CallError::RequestBody(_) => (ResetCode::Broken, "request_broken"),
    }
}

/// A request's body on its way to the handler. Its length is told by the headers alone.
pub struct Counted {
    inner: Receiver,
    bytes: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}
