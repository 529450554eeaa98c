//! `/livez` and `/readyz` for the supervisor of the agent's process.
//!
//! This module answers those two and nothing else; no secret and no payload is within its reach.
//!
//! Invariants: at most [`MAX_CONNECTIONS`] connections are served, one request each; a request's head is there after
//! [`HEAD`], the whole is over after [`WHOLE`]; a slower connection is closed.

use std::{convert::Infallible, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_program::accept;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::agent::Status;

/// Connections at a time; more wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
const HEAD: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(10);
/// Where the agent answers health checks: a port is one of this machine's loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthAddr(pub SocketAddr);

impl FromStr for HealthAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
            Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
            Err(_) => text.parse(),
        };
        address.map(Self).map_err(|_| format!("{text:?} is not an address; write a port, or ADDRESS:PORT"))
    }
}

pub(crate) async fn serve(listener: TcpListener, status: watch::Receiver<Status>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let failed = |error: &std::io::Error| tracing::warn!(%error, "a health check could not be accepted");
        let (stream, _) = accept::next(&listener, failed).await;
        let status = status.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &status))));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .keep_alive(false)
                // Who has said everything may still wait for the answer.
                .half_close(true)
                .max_buf_size(8 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // A check that breaks off has no answer to miss.
            let _ = timeout(WHOLE, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, status: &watch::Receiver<Status>) -> Response<Full<Bytes>> {
    let (code, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "alive\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match status.borrow().missing() {
            missing if missing.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
            missing => {
                let lines = missing.iter().map(|(name, why)| format!("{name}: {why}\n")).collect();
                (StatusCode::SERVICE_UNAVAILABLE, lines)
            }
        },
        (_, "/livez" | "/readyz") => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "/livez and /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_loopback() {
        let read = |text: &str| text.parse::<HealthAddr>().map(|address| address.0.to_string());
        assert_eq!(read("8081").unwrap(), "127.0.0.1:8081");
        assert_eq!(read(":8081").unwrap(), "127.0.0.1:8081");
        assert_eq!(read("0.0.0.0:8081").unwrap(), "0.0.0.0:8081");
        assert_eq!(read("[::1]:0").unwrap(), "[::1]:0");
        for text in ["", "localhost:1", "70000", "a"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
