//! An agent's way in: the upgrade request, its token, hello, and the session until its end.
//!
//! Nothing is upgraded before the token is known to be right, and nothing is attached that the
//! token does not allow when hello comes, which may be long after.

use std::{future::pending, sync::Arc, time::Duration};

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use relay_proto::{Attached as Answer, CloseCode, Limits, Notice, OfferState, SUBPROTOCOL, Welcome};
use relay_tunnel::{Arrival, Arrivals, Greeting, Handle};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::sleep,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use super::{
    admissions::Admissions,
    outcomes::{Outcomes, Teller},
    places::Standing,
    registry::{Attached, Identity, PATIENCE, REVOKED, Registry, Welcomed, told},
    seats::{Full, Seats},
    skips::Skips,
    token::{Shown, Tokens},
};
use crate::{
    endpoint::EndpointName,
    store::{Store, StoreError},
    throttle::Throttle,
};

/// A crowd that comes back is to be seen whole; by their token, since its agents choose their names.
static CAME: Throttle<32, 128> = Throttle::new();
static LEFT: Throttle<32, 128> = Throttle::new();
static REVOKED_SINCE: Throttle = Throttle::new();
static NOTHING_TO_SERVE: Throttle = Throttle::new();
static NOT_SKIPPED: Throttle = Throttle::new();
static NOT_COUNTED: Throttle = Throttle::new();

/// What the relay calls itself towards agents.
const SOFTWARE: &str = concat!("relay-server/", env!("CARGO_PKG_VERSION"));

/// Why an agent's request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// Not a WebSocket upgrade for the subprotocol that this relay speaks.
    NotUpgrade,
    /// A browser's page asked.
    Browser,
    /// No token, or not one of ours.
    Unauthorized,
    /// Too many wrong tokens came from this address.
    TooManyGuesses {
        /// How long that holds.
        left: Duration,
    },
    /// There are as many sessions as there may be.
    TooManySessions(Full),
}

/// What every session runs under.
#[derive(Clone)]
pub(crate) struct Terms {
    /// How many there may be.
    pub seats: Arc<Seats>,
    /// Where it attaches.
    pub registry: Arc<Registry>,
    /// Where outcomes of broken attempts go.
    pub outcomes: Arc<Outcomes>,
    /// Where events wait.
    pub store: Arc<dyn Store>,
    /// Where they do not any more.
    pub skips: Arc<Skips>,
    /// What it may take.
    pub limits: Limits,
    /// How long a replaced session that had drained may finish.
    pub drain_timeout: Duration,
}

/// The token that a request shows.
///
/// # Errors
/// [`Turned`] says why there is none that counts.
pub(crate) fn token_of(headers: &HeaderMap, tokens: &Tokens) -> Result<Shown, Turned> {
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
    tokens.authenticate(token).ok_or(Turned::Unauthorized)
}

/// Whether a request asks for an agent's upgrade.
///
/// # Errors
/// [`Turned::NotUpgrade`].
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Turned> {
    let headers = request.headers();
    let one = |name, value: &[u8]| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().is_some_and(|first| first.as_bytes().eq_ignore_ascii_case(value));
        first && values.next().is_none()
    };
    let upgrade = request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && one(header::UPGRADE, b"websocket")
        && lists(headers, &header::CONNECTION, "upgrade")
        && one(header::SEC_WEBSOCKET_VERSION, b"13")
        && (!headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) || names_subprotocol(headers))
        && only_key(headers).is_some_and(|key| BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16));
    if upgrade { Ok(()) } else { Err(Turned::NotUpgrade) }
}

/// The key of a WebSocket's upgrade, where there is one alone.
fn only_key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    keys.next().filter(|_| keys.next().is_none())
}

/// Whether a header's comma-separated values hold an item, in any case.
pub(crate) fn lists(headers: &HeaderMap, name: &header::HeaderName, item: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(item))
}

/// Whether the agent named the subprotocol. One that names none means it, too: the path says the version.
fn names_subprotocol(headers: &HeaderMap) -> bool {
    lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
}

/// The answer that begins the WebSocket, and the task that runs the session over `S`.
///
/// # Errors
/// [`Turned::TooManySessions`]
pub(crate) fn accept<S, R, B>(
    mut request: Request<R>,
    shown: Shown,
    terms: Terms,
    sessions: &TaskTracker,
    body: B,
) -> Result<Response<B>, Turned>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seat = terms.seats.take(&shown.token).map_err(Turned::TooManySessions)?;
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let named = names_subprotocol(request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    sessions.spawn(async move {
        let _seat = seat;
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "an agent left during its upgrade"),
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
            return tracing::error!("an agent's connection is of an unknown type");
        };
        run(parts.io.into_inner(), parts.read_buf.to_vec(), shown, terms).await;
    });
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if named {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    if let Some(key) = key.and_then(|key| HeaderValue::try_from(key).ok()) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    Ok(response)
}

/// One agent's session, from its hello to its end.
async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    leftover: Vec<u8>,
    shown: Shown,
    Terms { registry, outcomes, store, skips, limits, drain_timeout, .. }: Terms,
) {
    let mut greeting = match relay_tunnel::relay(stream, leftover, limits).await {
        Ok(greeting) => greeting,
        Err(close) => return tracing::debug!(reason = close.reason, "an agent left before its hello"),
    };
    let (agent, token) = (greeting.hello.name.clone(), Arc::clone(&shown.token.name));
    let name: Arc<str> = agent.as_str().into();
    let identity = Identity { token: Arc::clone(&token), name, instance: greeting.hello.instance };
    let now = registry.now();
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let offers = std::mem::take(&mut greeting.hello.offers);
    let names: Vec<String> = offers.iter().map(|offer| offer.endpoint.clone()).collect();
    let skipping: Vec<bool> = offers.iter().map(|offer| offer.skip_backlog).collect();
    let teller = identity.clone();
    let Some(welcomed) = registry.attach(identity, shown.clone(), offers, now_ms) else {
        if let Some(held_back) = REVOKED_SINCE.pass(&token) {
            tracing::info!(agent, %token, held_back, "an agent said hello with a token that is not valid any more");
        }
        return turn_out(greeting, names).await;
    };
    let Welcomed { attached, answers, contested, finishing, admissions } = welcomed;
    let endpoints: Vec<Answer> =
        names.into_iter().zip(&answers).map(|(name, answer)| tell(name, answer, &admissions)).collect();
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    let available = if refused == 0 {
        Vec::new()
    } else {
        admissions.open_to(&shown).map(|endpoint| endpoint.name.clone()).collect()
    };
    let epoch = attached.epoch();
    let welcome = Welcome { epoch, software: SOFTWARE.to_owned(), endpoints, available };
    if refused == answers.len() {
        if let Some(held_back) = NOTHING_TO_SERVE.pass(&token) {
            tracing::info!(agent, %token, held_back, "an agent offered nothing that it may serve");
        }
        drop(attached);
        return greeting.refuse(welcome, "none of the offered endpoints was accepted").await;
    }
    // Before it is ready for exchanges: nothing of what waits may reach it.
    let skipped = match skip(&store, &skips, answers.iter().zip(skipping), now).await {
        Ok(skipped) => skipped,
        Err(error) => {
            if let Some(held_back) = NOT_SKIPPED.pass(&token) {
                tracing::warn!(agent, %error, held_back, "what waits cannot be skipped; the agent has to come again");
            }
            return;
        }
    };
    let names: Vec<String> = answers.iter().flatten().map(|(name, _)| name.clone()).collect();
    if let Some(held_back) = CAME.pass(&token) {
        tracing::info!(agent, %token, epoch, endpoints = names.join(","), held_back, "an agent attached");
    }
    let (handle, arrivals, driver) = greeting.welcome(welcome);
    attached.ready(handle.clone(), &answers);
    let teller = Teller::new(teller, attached.serves());
    // What was for the beginning alone is not kept for the session's life.
    drop((answers, admissions));
    let greeting = greet(&store, &handle, names, skipped);
    let close = tokio::select! {
        close = driver => close,
        () = async { greeting.await; pending().await } => unreachable!("it waits for ever"),
        () = attend(&attached, &handle, (arrivals, &outcomes, &teller), contested, finishing, drain_timeout) => unreachable!("it waits for ever"),
    };
    drop(attached);
    if let Some(held_back) = LEFT.pass(&token) {
        tracing::info!(agent, epoch, code = ?close.code, reason = close.reason, held_back, "an agent left");
    }
}

/// What a session needs beside its exchanges: answers to questions, and what is due some time after its begin.
async fn attend(
    attached: &Attached,
    handle: &Handle,
    (mut arrivals, outcomes, teller): (Arrivals, &Outcomes, &Teller),
    contested: bool,
    finishing: Option<Handle>,
    drain_timeout: Duration,
) {
    let listen = async {
        loop {
            match arrivals.next().await {
                Some(Arrival::Answered) => attached.answered(),
                Some(Arrival::Draining) => {
                    attached.draining();
                    // This side knows what it has opened; the agent cannot know what is still on its way.
                    handle.close_when_idle(CloseCode::Normal, "the agent has drained");
                }
                Some(Arrival::Outcome(outcome)) => outcomes.take(outcome, teller),
                Some(Arrival::Request(_) | Arrival::Notice(_)) => {}
                None => pending().await, // The driver says how it ended.
            }
        }
    };
    let contest = async {
        if contested {
            sleep(PATIENCE).await;
            attached.contest();
        }
    };
    let finish = async {
        if let Some(replaced) = finishing {
            sleep(drain_timeout).await;
            replaced.close(CloseCode::Replaced, "its last exchanges took too long");
        }
    };
    tokio::join!(listen, contest, finish);
}

/// What becomes of an endpoint's backlog that an agent does not want.
enum Skipped {
    /// It is ended, and so many there are.
    Ends(String, oneshot::Receiver<u64>),
    /// It is not this agent's.
    Stays(String),
}

/// Has ended what waits at the endpoints whose agent wants only what is new, and is the one to say so.
async fn skip(
    store: &Arc<dyn Store>,
    skips: &Skips,
    answers: impl Iterator<Item = (&Result<(String, Standing), &'static str>, bool)>,
    before: Timestamp,
) -> Result<Vec<Skipped>, StoreError> {
    let mut skipped = Vec::new();
    for (answer, wanted) in answers {
        let Some((name, standing)) = answer.as_ref().ok().filter(|_| wanted) else { continue };
        skipped.push(match EndpointName::parse(name) {
            Ok(endpoint) if *standing == Standing::Active => {
                Skipped::Ends(name.clone(), skips.begin(store, endpoint, before).await?)
            }
            _ => Skipped::Stays(name.clone()),
        });
    }
    Ok(skipped)
}

/// Tells an agent's user what waits for it, and what does not any more.
async fn greet(store: &Arc<dyn Store>, handle: &Handle, names: Vec<String>, skipped: Vec<Skipped>) {
    let ends = |name: &&str| skipped.iter().any(|one| matches!(one, Skipped::Ends(ended, _) if ended == name));
    let waiting: Vec<&str> = names.iter().map(String::as_str).filter(|name| !ends(name)).collect();
    tell_backlog(store, handle, &waiting).await;
    for one in skipped {
        let line = match one {
            Skipped::Stays(name) => {
                format!("this agent is not the active one of {name}, so nothing that waits there is skipped")
            }
            Skipped::Ends(name, ended) => match ended.await {
                Ok(0) => format!("no webhook waited for {name}, so none is skipped"),
                Ok(count) => format!("{count} webhooks that waited for {name} are skipped"),
                Err(_) => continue,
            },
        };
        handle.notify(Notice::Text(line));
    }
}

async fn tell_backlog(store: &Arc<dyn Store>, handle: &Handle, names: &[&str]) {
    let backlog = match store.backlog().await {
        Ok(backlog) => backlog,
        Err(error) => {
            if let Some(held_back) = NOT_COUNTED.pass("") {
                tracing::warn!(%error, held_back, "what waits cannot be read");
            }
            return;
        }
    };
    for one in backlog.iter().filter(|one| one.open > 0 && names.contains(&one.endpoint.as_str())) {
        let since = one.oldest.map(|at| format!(", the oldest since {at:.0}")).unwrap_or_default();
        let held = if one.paused { "; the endpoint is paused" } else { "" };
        let (open, endpoint) = (one.open, &one.endpoint);
        let wait = if open == 1 { "webhook waits" } else { "webhooks wait" };
        handle.notify(Notice::Backlog {
            endpoint: endpoint.as_str().to_owned(),
            waiting: open,
            oldest_ms: one.oldest.and_then(|at| u64::try_from(at.as_millisecond()).ok()),
            line: format!("{open} {wait} for {endpoint}{since}{held}"),
        });
    }
}

/// Answers a hello whose token was revoked after its upgrade, and closes.
async fn turn_out<S: AsyncRead + AsyncWrite + Unpin>(greeting: Greeting<S>, names: Vec<String>) {
    let none = Admissions::default();
    let endpoints = names.into_iter().map(|name| tell(name, &Err("unauthorized"), &none)).collect();
    let welcome = Welcome { epoch: 0, software: SOFTWARE.to_owned(), endpoints, available: Vec::new() };
    let (handle, _, driver) = greeting.welcome(welcome);
    handle.close_when_idle(CloseCode::Unauthorized, REVOKED);
    driver.await;
}

fn tell(offered: String, answer: &Result<(String, Standing), &'static str>, admissions: &Admissions) -> Answer {
    match answer {
        Ok((name, standing)) => {
            let endpoint = admissions.describe(name);
            Answer {
                endpoint: name.clone(),
                state: told(*standing),
                url: endpoint.map(|endpoint| endpoint.url.clone()).unwrap_or_default(),
                provider: endpoint.map(|endpoint| endpoint.provider.clone()).unwrap_or_default(),
            }
        }
        Err(code) => Answer {
            endpoint: offered,
            state: OfferState::Refused { code: (*code).to_owned() },
            url: String::new(),
            provider: String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_upgrade_is_one_for_a_websocket_with_one_key_of_16_bytes() {
        const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
        let asked = |version, method: Method, changes: &[(&'static str, Option<&'static str>)]| {
            let mut request = Request::builder().version(version).method(method).body(()).expect("a request");
            let headers = request.headers_mut();
            for (name, value) in [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", KEY),
                ("sec-websocket-protocol", SUBPROTOCOL),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            for (name, value) in changes {
                match value {
                    Some(value) => drop(headers.append(*name, HeaderValue::from_static(value))),
                    None => drop(headers.remove(*name)),
                }
            }
            check(&request).is_ok()
        };
        let (now, get) = (Version::HTTP_11, Method::GET);
        assert!(asked(now, get.clone(), &[]));
        assert!(asked(now, get.clone(), &[("sec-websocket-protocol", None)]), "the path says the version");
        assert!(!asked(Version::HTTP_10, get.clone(), &[]) && !asked(Version::HTTP_2, get.clone(), &[]));
        assert!(!asked(now, Method::POST, &[]));
        for key in
            ["", "abc", "c2hvcnQ=", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE=", "bm90IHNpeHRlZW4gYnl0ZXM="]
        {
            let key = [("sec-websocket-key", None), ("sec-websocket-key", Some(key))];
            assert!(!asked(now, get.clone(), &key), "{key:?}");
        }
        for (name, value) in [
            ("sec-websocket-key", Some(KEY)),
            ("sec-websocket-version", Some("13")),
            ("upgrade", Some("h2c")),
            ("connection", None),
            ("sec-websocket-version", None),
        ] {
            assert!(!asked(now, get.clone(), &[(name, value)]), "{name}: {value:?} as well");
        }
        let other = [("sec-websocket-protocol", None), ("sec-websocket-protocol", Some("relay.v9"))];
        assert!(!asked(now, get, &other));
    }
}
