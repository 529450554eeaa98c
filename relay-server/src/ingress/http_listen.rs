//! The listener in the clear: what an authority asks for a certificate's proof (http-01), and the way to https. Nothing
//! else is answered there, and nothing is kept but a head.
//!
//! A redirect leads to an endpoint's own host where that was asked for, else to the relay's public address: never to
//! whatever a request names.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_program::accept;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    slots::{Slot, Slots},
    socket::{TimedWrites, Transport},
};
use crate::{
    address,
    routes::{Routes, SharedRoutes, host_of},
    throttle::Throttle,
    tls::Challenges,
};

/// Connections at a time, and those of one address.
pub(crate) const MAX_CONNECTIONS: usize = 512;
pub(crate) const MAX_PER_ADDRESS: usize = 16;

/// How long one may take from its first byte to its last.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Largest head, in bytes. hyper takes no less.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Bytes of a body that are read, and thrown away.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Where authorities look for proofs (RFC 8555, section 8.3).
const PROOFS: &str = "/.well-known/acme-challenge/";

static NOT_ACCEPTED: Throttle = Throttle::new();

/// Serves until the drain.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: SharedRoutes,
    challenges: Arc<Challenges>,
    stop: CancellationToken,
) {
    let slots = Slots::new(MAX_CONNECTIONS, MAX_PER_ADDRESS);
    loop {
        let Ok(permit) = slots.wait().await else { return };
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = accept::next(&listener, not_accepted) => accepted,
        };
        let (place, peer) = (Slot::uncounted(permit), peer.ip().to_canonical());
        let is_shared = address::is_local(peer) || routes.load().trusts(peer);
        let Some(place) = (if is_shared { Some(place) } else { slots.count(place, peer) }) else { continue };
        let (routes, challenges) = (Arc::clone(&routes), Arc::clone(&challenges));
        tokio::spawn(async move {
            let _place = place;
            if timeout(PATIENCE, run(stream, &routes, &challenges)).await.is_err() {
                tracing::debug!("a connection in the clear took too long");
            }
        });
    }
}

fn not_accepted(error: &io::Error) {
    if let Some(held_back) = NOT_ACCEPTED.pass("") {
        tracing::warn!(%error, held_back, "a connection in the clear could not be accepted");
    }
}

async fn run(stream: TcpStream, routes: &SharedRoutes, challenges: &Challenges) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &routes.load(), challenges);
        async move {
            discard(request).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(TimedWrites::new(Transport::Tcp(stream), PATIENCE)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection in the clear broke");
    }
}

/// Reads a body that has begun to come: a connection that ends before that is reset, and its answer lost.
async fn discard(request: Request<Incoming>) {
    if request.headers().contains_key(header::EXPECT) {
        return; // It waits for a word, and none comes.
    }
    let (mut body, mut bytes) = (request.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > MAX_BODY_BYTES {
            return;
        }
    }
}

fn answer<B>(request: &Request<B>, routes: &Routes, challenges: &Challenges) -> Response<Full<Bytes>> {
    let plain = |status, text: &str| {
        let mut response = Response::new(Full::from(text.to_owned()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    };
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    let Some(host) = host_of(request).ok().filter(|_| target.starts_with('/')) else {
        return plain(StatusCode::BAD_REQUEST, "the request must name one host and a path\n");
    };
    if let Some(token) = request.uri().path().strip_prefix(PROOFS) {
        let is_asked = matches!(*request.method(), Method::GET | Method::HEAD);
        return match challenges.http(token).filter(|_| is_asked) {
            Some(authorization) => plain(StatusCode::OK, &authorization),
            None => plain(StatusCode::NOT_FOUND, "no certificate is being ordered with this token\n"),
        };
    }
    let location = HeaderValue::try_from([routes.https(&host).as_str(), target].concat());
    let Ok(location) = location else { return plain(StatusCode::BAD_REQUEST, "this target cannot be carried\n") };
    let mut response = plain(StatusCode::PERMANENT_REDIRECT, "use https\n");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agents::token::Tokens, metrics::Metrics};

    fn routes() -> Routes {
        let trust = Box::new(|_| false);
        let public = "https://hooks.test:8443".to_owned();
        Routes::new(&[], &Metrics::default(), Tokens::default(), trust, public, true, None)
            .with_inspector(Some("inspect.test".into()))
    }

    fn asked(method: &str, host: &str, target: &str) -> (u16, String) {
        let challenges = Arc::new(Challenges::default());
        let _proof = challenges.offer_http("token", "token.thumbprint");
        let request = Request::builder().method(method).uri(target).header("host", host).body(()).unwrap();
        let answer = answer(&request, &routes(), &challenges);
        let location = answer.headers().get(header::LOCATION).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location.unwrap_or_default())
    }

    #[test]
    fn all_but_proofs_is_redirected_to_the_relays_own_addresses() {
        for (method, host, target, location) in [
            ("GET", "hooks.test", "/github?a=b", "https://hooks.test:8443/github?a=b"),
            ("POST", "hooks.test:80", "/github/%41", "https://hooks.test:8443/github/%41"),
            ("GET", "INSPECT.test.", "/", "https://inspect.test:8443/"),
            ("GET", "evil.test", "/", "https://hooks.test:8443/"),
            ("GET", "192.0.2.7", "//evil.test/%2e", "https://hooks.test:8443//evil.test/%2e"),
            ("GET", "hooks.test", "/.well-known/other", "https://hooks.test:8443/.well-known/other"),
        ] {
            assert_eq!(asked(method, host, target), (308, location.to_owned()), "{host} {target}");
        }
    }

    #[test]
    fn a_proof_is_answered_and_what_is_malformed_refused() {
        for (method, host, target, status) in [
            ("GET", "any.test", "/.well-known/acme-challenge/token", 200),
            ("HEAD", "any.test", "/.well-known/acme-challenge/token?x", 200),
            ("POST", "any.test", "/.well-known/acme-challenge/token", 404),
            ("GET", "any.test", "/.well-known/acme-challenge/other", 404),
            ("GET", "any.test", "/.well-known/acme-challenge/", 404),
            ("GET", "any.test", "/.well-known/acme-challenge/token/", 404),
            ("GET", "a b", "/", 400),
            ("OPTIONS", "any.test", "*", 400),
        ] {
            assert_eq!(asked(method, host, target).0, status, "{method} {target}");
        }
        let without_host = Request::get("/").body(()).unwrap();
        assert_eq!(answer(&without_host, &routes(), &Challenges::default()).status(), 400);
    }
}
