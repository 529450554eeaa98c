//! The admin listener's connections: few, HTTP/1.1, each with a limit on its head, its body and its patience.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{Request, StatusCode},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::{api::error, gate::Local};
use crate::ingress::socket::TimedWrites;

/// Connections open at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// A request's head must be there after this long; an idle connection ends after it too.
const HEAD: Duration = Duration::from_secs(10);

/// A request must be answered after this long, and something of the answer taken whenever it has waited so long.
const ANSWER: Duration = Duration::from_secs(30);

/// Largest head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Largest request body, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A pause after the system had no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);

pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let router = router.layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = run(stream, router, stop).await {
                        tracing::debug!(%error, "an admin connection broke");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                sleep(EXHAUSTED).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn run(stream: TcpStream, router: Router, stop: CancellationToken) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = Local(stream.local_addr()?);
    let stream = TimedWrites::new(stream, ANSWER);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(local);
        let router = router.clone();
        async move {
            timeout(ANSWER, router.oneshot(request.map(Body::new)))
                .await
                .unwrap_or_else(|_| Ok(error(StatusCode::GATEWAY_TIMEOUT, "timeout", "this took too long")))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD_BYTES)
        // Who has said everything may still wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    outcome.map_err(io::Error::other)
}
