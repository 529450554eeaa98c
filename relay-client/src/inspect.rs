//! The agent's own page, at `http://127.0.0.1:4040`: the inspector's files from this program, the relay's API behind it,
//! and what this agent saw itself.
//!
//! ```text
//! browser ─▶ gate ─┬─ /                    the page, from this program
//!                  ├─ /api/v1/agent…       agent: link, targets, tap
//!                  ├─ /api/v1/stream       fan: one stream of the relay, the tap's news with it
//!                  └─ /api/v1/…            pass: what a list names, with the agent's token
//! ```
//!
//! It listens on this machine alone, and runs nothing that a relay sent: an answer is JSON or bytes to be saved.
//!
//! Invariants: at most [`MAX_CONNECTIONS`] are served; a head is there within [`HEAD`], a body is at most
//! [`MAX_BODY_BYTES`]; nothing here holds up a delivery.

mod about;
mod agent;
mod answer;
mod fan;
mod gate;
mod pass;
mod shown;

use std::{borrow::Cow, convert::Infallible, io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_program::{accept, socket};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};

#[cfg(feature = "screen")]
pub(crate) use self::agent::shown;
use self::{
    agent::View,
    answer::{PageBody, Problem, harden},
    fan::Fan,
    gate::Gate,
    pass::Pass,
    shown::ShadowResults,
};
pub(crate) use self::{
    gate::PageKey,
    shown::{PageAt, pages_of},
};
use crate::{agent::Status, config::Config, health::HealthAddr, tap::Tap};

/// Connections at a time, tabs with a stream included; more wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
const HEAD: Duration = Duration::from_secs(30);
/// How long a connection may last, and what it sends may lie unread.
const WHOLE: Duration = Duration::from_secs(12 * 3600);
const UNREAD: Duration = Duration::from_secs(60);
/// How long a body may take to come.
const UPLOAD: Duration = Duration::from_secs(30);
const MAX_BODY_BYTES: usize = 1 << 20;
/// Ports that are tried, from the one that was asked for.
const PORTS: u16 = 10;
/// Where `listen` has its page in a terminal.
pub(crate) const DEFAULT_PORT: u16 = 4040;

const API: &str = "/api/v1/";

/// Where the page is, if anywhere: an address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InspectAddr {
    Off,
    At(SocketAddr),
}

impl FromStr for InspectAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let HealthAddr(address) = text.parse()?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{text:?} is not of this machine alone; name a port, and reach it through an SSH tunnel"
            ));
        }
        Ok(Self::At(address))
    }
}

/// Listens there, or at the next port that is free.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut last = TcpListener::bind(address).await;
    for further in 1..PORTS {
        match (&last, address.port().checked_add(further)) {
            (Err(error), Some(port)) if error.kind() == io::ErrorKind::AddrInUse => {
                last = TcpListener::bind(SocketAddr::new(address.ip(), port)).await;
            }
            _ => break,
        }
    }
    last
}

/// The page of one agent.
pub(crate) struct Inspect {
    gate: Gate,
    view: Arc<View>,
    pass: Arc<Pass>,
    fan: Fan,
    head: about::AboutHead,
}

impl Inspect {
    pub(crate) fn build(
        address: SocketAddr,
        key: &PageKey,
        settings: watch::Receiver<Arc<Config>>,
        status: watch::Receiver<Status>,
        tap: Arc<Tap>,
    ) -> Self {
        let pass = Arc::new(Pass::new(settings.clone()));
        let view = Arc::new(View { settings, status, tap, shown: ShadowResults::default() });
        let fan = Fan::new(Arc::clone(&pass), Arc::clone(&view));
        Self { gate: Gate::new(address, key), view, pass, fan, head: about::AboutHead::default() }
    }

    /// Serves for ever. Connections that stand when it is dropped end with the runtime.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let page = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let failed = |error: &io::Error| tracing::warn!(%error, "the page could not accept a connection");
            let (stream, _) = accept::next(&listener, failed).await;
            let _ = socket::end_unacknowledged(&stream, UNREAD);
            let page = Arc::clone(&page);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let page = Arc::clone(&page);
                    async move { Ok::<_, Infallible>(page.answer(request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .max_buf_size(64 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                // A browser that breaks off has no answer to miss.
                let _ = timeout(WHOLE, connection).await;
                drop(place);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<PageBody> {
        let (head, body) = request.into_parts();
        let answered = match self.gate.admit(&head) {
            Ok(()) => self.route(&head, body).await,
            Err(problem) => Err(problem),
        };
        let mut response = answered.unwrap_or_else(|problem| problem.answer(head.uri.path()));
        harden(&mut response);
        response
    }

    async fn route(&self, head: &Parts, body: Incoming) -> Result<Response<PageBody>, Problem> {
        let path = head.uri.path();
        let Some(below) = path.strip_prefix(API) else {
            return file(head);
        };
        self.gate.admit_call(head, !hyper::body::Body::is_end_stream(&body))?;
        let is_get = matches!(head.method, Method::GET | Method::HEAD);
        let of_agent = (below == "agent").then_some("").or_else(|| below.strip_prefix("agent/"));
        match of_agent {
            Some("diffs") if head.method == Method::POST => self.view.take_diffs(&collect(body).await?),
            Some(_) if !is_get => Err(Problem::new(405, "method", "ask with GET")),
            Some(below) => self.view.answer(below, head.uri.query().unwrap_or_default()),
            None if below == "stream" && head.method == Method::GET => self.fan.open(head).await,
            None if below.is_empty() && head.method == Method::GET => {
                self.head.answer(&self.pass, &self.view, head).await
            }
            None => {
                let body = collect(body).await?;
                self.pass.ask(below, head, body).await
            }
        }
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Problem> {
    let collected = timeout(UPLOAD, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let slow = |_| Problem::new(408, "too_slow", "the body did not come in time");
    let collected = collected.map_err(slow)?.map_err(|error| match error.downcast_ref() {
        Some(http_body_util::LengthLimitError { .. }) => {
            Problem::new(413, "too_large", format!("a body has at most {MAX_BODY_BYTES} bytes here"))
        }
        None => Problem::new(400, "cut_off", "the body broke off"),
    })?;
    Ok(collected.to_bytes())
}

/// A file of the page. Browsers ask again each time, and get it only where it is another.
fn file(head: &Parts) -> Result<Response<PageBody>, Problem> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Problem::new(405, "method", "ask with GET"));
    }
    let file = relay_page::file(head.uri.path()).ok_or_else(Problem::nothing_here)?;
    let known = head.headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == file.etag.as_str());
    let bytes = match file.bytes {
        _ if known => Bytes::new(),
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = answer::with_type(answer::whole(bytes), HeaderValue::from_static(file.content_type));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(relay_page::CSP));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(etag) = HeaderValue::try_from(file.etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_listened_on() {
        let read = |text: &str| text.parse::<InspectAddr>();
        assert_eq!(read("off"), Ok(InspectAddr::Off));
        assert_eq!(read("4041"), Ok(InspectAddr::At(([127, 0, 0, 1], 4041).into())));
        assert!(read("[::1]:4040").is_ok() && read("127.0.0.9:1").is_ok());
        for wrong in ["0.0.0.0:4040", "192.168.1.2:4040", "[::]:4040", "on", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_next_free_port_is_taken() {
        let first = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let taken = first.local_addr().unwrap();
        let next = bind(taken).await.unwrap().local_addr().unwrap();
        assert!((1..PORTS).contains(&next.port().wrapping_sub(taken.port())), "{taken} {next}");
    }
}
