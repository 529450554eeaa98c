//! An agent's way in: the upgrade request, its token, hello, and the session until its end.
//!
//! Nothing is upgraded before the token is known to be right, and nothing is attached that the
//! token does not allow.

use std::{convert::Infallible, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use relay_proto::{Attached as Answer, Limits, OfferState, SUBPROTOCOL, Welcome};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use super::{
    registry::{Identity, Registry},
    token::{Token, Tokens},
};

/// What the relay calls itself towards agents.
const SOFTWARE: &str = concat!("relay-server/", env!("CARGO_PKG_VERSION"));

/// Why an agent's request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Not a WebSocket upgrade for the subprotocol that this relay speaks.
    NotUpgrade,
    /// A browser's page asked.
    Browser,
    /// No token, or not one of ours.
    Unauthorized,
}

/// What an endpoint is to an agent that attaches.
#[derive(Clone, Debug)]
pub struct Attachable {
    /// Its name.
    pub name: String,
    /// Its public address.
    pub url: String,
    /// Its provider's name, or `none`.
    pub provider: &'static str,
}

/// Checks an upgrade request and its token.
///
/// # Errors
/// [`Turned`] says why not.
pub fn check(request: &Request<Incoming>, tokens: &Tokens) -> Result<Arc<Token>, Turned> {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return Err(Turned::Browser);
    }
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (credentials.next(), credentials.next()) {
        (Some(only), None) => only.as_bytes(),
        _ => return Err(Turned::Unauthorized),
    };
    let token = match token.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
        _ => return Err(Turned::Unauthorized),
    };
    let token = tokens.authenticate(token).ok_or(Turned::Unauthorized)?;
    let one = |name, value: &[u8]| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().is_some_and(|first| first.as_bytes().eq_ignore_ascii_case(value));
        first && values.next().is_none()
    };
    let upgrade = request.method() == Method::GET
        && one(header::UPGRADE, b"websocket")
        && lists(headers, &header::CONNECTION, "upgrade")
        && one(header::SEC_WEBSOCKET_VERSION, b"13")
        && lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        && headers.get_all(header::SEC_WEBSOCKET_KEY).iter().count() == 1;
    if upgrade { Ok(Arc::clone(token)) } else { Err(Turned::NotUpgrade) }
}

/// Whether a header's comma-separated values hold an item, in any case.
pub fn lists(headers: &HeaderMap, name: &header::HeaderName, item: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(item))
}

/// The answer that begins the WebSocket, and the task that runs the session over `S`.
pub fn accept<S, B>(
    mut request: Request<Incoming>,
    token: Arc<Token>,
    attachable: Vec<Attachable>,
    registry: Arc<Registry>,
    limits: Limits,
    sessions: &TaskTracker,
    body: B,
) -> Result<Response<B>, Infallible>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let upgrade = hyper::upgrade::on(&mut request);
    sessions.spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "an agent left during its upgrade"),
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
            return tracing::error!("an agent's connection is of an unknown type");
        };
        run(parts.io.into_inner(), parts.read_buf.to_vec(), &token, attachable, registry, limits).await;
    });
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(key) = key.and_then(|key| HeaderValue::try_from(key).ok()) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    Ok(response)
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    leftover: Vec<u8>,
    token: &Token,
    attachable: Vec<Attachable>,
    registry: Arc<Registry>,
    limits: Limits,
) {
    let greeting = match relay_tunnel::relay(stream, leftover, limits).await {
        Ok(greeting) => greeting,
        Err(close) => return tracing::debug!(reason = close.reason, "an agent left before its hello"),
    };
    let identity = Identity {
        token: Arc::clone(&token.name),
        name: greeting.hello.name.clone(),
        instance: greeting.hello.instance,
    };
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    let epoch = registry.next_epoch(&identity, now_ms);
    let offers = greeting.hello.offers.iter().map(|offer| offer.endpoint.as_str());
    let endpoints: Vec<Answer> = offers.map(|name| answer(name, token, &attachable)).collect();
    let accepted: Vec<String> = endpoints
        .iter()
        .filter(|answer| answer.state == OfferState::Accepted)
        .map(|answer| answer.endpoint.clone())
        .collect();
    let available = if accepted.len() == endpoints.len() {
        Vec::new()
    } else {
        attachable.iter().map(|endpoint| endpoint.name.clone()).filter(|name| token.may_attach(name)).collect()
    };
    let welcome = Welcome { epoch, software: SOFTWARE.to_owned(), endpoints, available };
    let agent = identity.name.clone();
    if accepted.is_empty() {
        tracing::info!(agent, token = %token.name, "an agent offered nothing that it may serve");
        return greeting.refuse(welcome, "none of the offered endpoints was accepted").await;
    }
    tracing::info!(agent, token = %token.name, epoch, endpoints = accepted.join(","), "an agent attached");
    let (handle, _arrivals, driver) = greeting.welcome(welcome);
    let attached = registry.attach(identity, epoch, accepted, handle);
    let close = driver.await;
    drop(attached);
    tracing::info!(agent, epoch, code = ?close.code, reason = close.reason, "an agent left");
}

fn answer(offered: &str, token: &Token, attachable: &[Attachable]) -> Answer {
    let mut allowed = attachable.iter().filter(|endpoint| token.may_attach(&endpoint.name));
    let found = if offered.is_empty() {
        match (allowed.next(), allowed.next()) {
            (Some(only), None) => Ok(only),
            _ => Err("choose_one"),
        }
    } else if !token.may_attach(offered) {
        Err("not_allowed")
    } else {
        attachable.iter().find(|endpoint| endpoint.name == offered).ok_or("unknown_endpoint")
    };
    match found {
        Ok(endpoint) => Answer {
            endpoint: endpoint.name.clone(),
            state: OfferState::Accepted,
            url: endpoint.url.clone(),
            provider: endpoint.provider.to_owned(),
        },
        Err(code) => Answer {
            endpoint: offered.to_owned(),
            state: OfferState::Refused { code: code.to_owned() },
            url: String::new(),
            provider: String::new(),
        },
    }
}
