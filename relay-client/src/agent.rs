//! The session loop: connects, says what it serves, hands each request to an exchange, and connects
//! again for ever.
//!
//! What it reports is true at every moment: "ready" comes after the relay's welcome and not before.
//! A stop drains: nothing new is taken, what runs is finished.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use relay_proto::{Attach, Close, CloseCode, Hello, Limits, Notice as Told, Offer, OfferState, Welcome};
use relay_tunnel::{Arrival, Arrivals, Handle};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    config::{Config, OnRefused},
    exchange::{self, Outcomes, Route},
    handler::Handler,
    link::{self, LinkError},
    report::{Notice, ReadyEndpoint, Reporter, State},
};

/// How long a stop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(25);

/// What the agent calls itself towards the relay.
const SOFTWARE: &str = concat!("relay-client/", env!("CARGO_PKG_VERSION"));

/// Why the agent ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The relay turned the agent away, which has been reported already.
    #[error("refused by the relay: {0}")]
    Refused(String),
    /// The configuration cannot be used here.
    #[error("{0}")]
    Unusable(String),
}

/// How one session came to its end.
enum Ended {
    Stopped,
    /// The relay does not want this agent.
    Refused {
        why: String,
        code: Option<String>,
    },
    /// The connection failed or broke; it lived this long as a session.
    Lost {
        why: String,
        lived: Duration,
        retry_after: Option<Duration>,
    },
}

/// Serves until `stop` is cancelled, then drains.
///
/// # Errors
/// [`RunError`] when the agent cannot run, or must not.
pub async fn run(config: Config, reporter: Reporter, stop: CancellationToken) -> Result<(), RunError> {
    let mut routes = Vec::new();
    for endpoint in &config.endpoints {
        let handler = Handler::new(&endpoint.target).map_err(|error| RunError::Unusable(error.to_string()))?;
        routes.push(Arc::new(Route::new(endpoint.clone(), handler)));
    }
    let mut backoff = Backoff::new();
    let outcomes = Arc::new(Outcomes::default());
    loop {
        reporter.state(State::Connecting { relay: config.relay.to_string() });
        let ended = tokio::select! {
            ended = session(&config, &routes, &reporter, &outcomes, &stop) => ended,
            () = stop_while_connecting(&stop) => Ended::Stopped,
        };
        let wait = match ended {
            Ended::Stopped => return Ok(()),
            Ended::Refused { why, code } => {
                reporter.state(State::Refused { why: why.clone(), code });
                match config.on_refused {
                    OnRefused::Exit => return Err(RunError::Refused(why)),
                    OnRefused::RetryAfter(wait) => wait,
                }
            }
            Ended::Lost { why, lived, retry_after } => {
                backoff.session_ended(lived);
                let wait = backoff.next(fastrand::f64(), retry_after);
                reporter.state(State::Reconnecting { after: wait, why });
                wait
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// A session drains by itself; this ends only what never became one.
async fn stop_while_connecting(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(DRAIN + Duration::from_secs(5)).await;
}

async fn session(
    config: &Config,
    routes: &[Arc<Route>],
    reporter: &Reporter,
    outcomes: &Arc<Outcomes>,
    stop: &CancellationToken,
) -> Ended {
    let lost = |why: String, retry_after| Ended::Lost { why, lived: Duration::ZERO, retry_after };
    let token = match config.token.read() {
        Ok(token) => token,
        Err(error) => return lost(error.to_string(), None),
    };
    let connecting = link::connect(&config.relay, config.relay_ca.as_deref(), &token);
    let link = tokio::select! {
        link = connecting => link,
        () = stop.cancelled() => return Ended::Stopped,
    };
    let link = match link {
        Ok(link) => link,
        Err(error) if error.is_refusal() => {
            let code = match &error {
                LinkError::Refused { code, .. } => code.clone(),
                _ => None,
            };
            return Ended::Refused { why: error.to_string(), code };
        }
        Err(error) => return lost(error.to_string(), error.retry_after()),
    };
    let greeting = relay_tunnel::agent(link.stream, link.leftover, hello(config, routes), Limits::agent());
    let (welcome, handle, arrivals, driver) = match greeting.await {
        Ok(tunnel) => tunnel,
        Err(close) => return lost(close.reason, None),
    };
    if let Some(refused) = refusal(&welcome) {
        driver.await;
        return refused;
    }
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    let since = Instant::now();
    let by_name = announce(&welcome, routes, reporter);
    outcomes.attach(handle.clone());
    let close = serve(&by_name, handle, arrivals, driver, (reporter, outcomes), stop).await;
    match close {
        None => Ended::Stopped,
        Some(close) if close.code == CloseCode::Unauthorized => {
            Ended::Refused { why: close.reason, code: Some("unauthorized".to_owned()) }
        }
        Some(close) => Ended::Lost { why: close.reason, lived: since.elapsed(), retry_after: None },
    }
}

fn hello(config: &Config, routes: &[Arc<Route>]) -> Hello {
    let offer = |route: &Arc<Route>| Offer {
        endpoint: route.config.name.clone().unwrap_or_default(),
        attach: Attach::Shared,
        takeover: false,
        capacity: u32::try_from(route.config.target.max_connections.get()).unwrap_or(u32::MAX),
    };
    Hello {
        name: config.name.clone(),
        instance: *config.instance.as_bytes(),
        software: SOFTWARE.to_owned(),
        offers: routes.iter().map(offer).collect(),
    }
}

/// What it means when the relay accepted none of the offers.
fn refusal(welcome: &Welcome) -> Option<Ended> {
    let code = |state: &OfferState| match state {
        OfferState::Refused { code } => Some(code.clone()),
        OfferState::Accepted | OfferState::Standby | OfferState::Copy => None,
    };
    let codes: Vec<String> = welcome.endpoints.iter().filter_map(|endpoint| code(&endpoint.state)).collect();
    if codes.len() < welcome.endpoints.len() {
        return None;
    }
    let first = codes.into_iter().next().unwrap_or_default();
    let why = match first.as_str() {
        "choose_one" if welcome.available.is_empty() => "this token may attach to no endpoint".to_owned(),
        "choose_one" => format!("name one of this token's endpoints: {}", welcome.available.join(", ")),
        "not_allowed" | "unknown_endpoint" => {
            let names: Vec<_> = welcome.endpoints.iter().map(|endpoint| endpoint.endpoint.as_str()).collect();
            format!(
                "no endpoint {} for this token; it may attach to: {}",
                names.join(", "),
                welcome.available.join(", ")
            )
        }
        other => format!("the relay refused: {other}"),
    };
    Some(Ended::Refused { why, code: Some(first) })
}

/// Says what is ready and what is not, and maps the relay's names to the routes.
fn announce(welcome: &Welcome, routes: &[Arc<Route>], reporter: &Reporter) -> HashMap<String, Arc<Route>> {
    let (mut by_name, mut ready) = (HashMap::new(), Vec::new());
    for (endpoint, route) in welcome.endpoints.iter().zip(routes) {
        match &endpoint.state {
            OfferState::Accepted | OfferState::Copy => {
                if endpoint.state == OfferState::Copy {
                    reporter.warn(format!("endpoint {}: copies only, another agent serves it", endpoint.endpoint));
                }
                by_name.insert(endpoint.endpoint.clone(), Arc::clone(route));
                ready.push(ReadyEndpoint {
                    name: endpoint.endpoint.clone(),
                    public_url: endpoint.url.clone(),
                    target: route.handler.target().to_string(),
                });
            }
            OfferState::Standby => {
                by_name.insert(endpoint.endpoint.clone(), Arc::clone(route));
                reporter.state(State::Standby { endpoint: endpoint.endpoint.clone() });
            }
            OfferState::Refused { code } => {
                reporter.warn(format!("endpoint {} was refused by the relay: {code}", endpoint.endpoint));
            }
        }
    }
    reporter.state(State::Ready { endpoints: ready });
    by_name
}

/// Hands out requests until the session ends, or until a stop has drained it (`None`).
async fn serve(
    routes: &HashMap<String, Arc<Route>>,
    handle: Handle,
    mut arrivals: Arrivals,
    driver: AbortOnDropHandle<Close>,
    (reporter, outcomes): (&Reporter, &Arc<Outcomes>),
    stop: &CancellationToken,
) -> Option<Close> {
    let mut stopping = false;
    let patience = sleep(Duration::MAX / 4);
    tokio::pin!(patience);
    loop {
        let arrival = tokio::select! {
            arrival = arrivals.next() => arrival,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                reporter.state(State::Draining);
                handle.drain();
                patience.as_mut().reset(Instant::now() + DRAIN);
                continue;
            }
            () = patience.as_mut(), if stopping => None,
        };
        match arrival {
            Some(Arrival::Request(request)) => {
                let name = String::from_utf8_lossy(&request.head.endpoint).into_owned();
                let route = routes.get(&name).map(Arc::clone);
                drop::<JoinHandle<()>>(tokio::spawn(exchange::serve(
                    request,
                    route,
                    reporter.clone(),
                    Arc::clone(outcomes),
                )));
            }
            Some(Arrival::Notice(notice)) => tell(notice, reporter),
            // The close that follows says when to connect again.
            Some(Arrival::Draining | Arrival::Answered | Arrival::Outcome(_)) => {}
            None => break,
        }
    }
    let close = timeout(Duration::from_secs(3), driver).await;
    if stopping {
        return None;
    }
    match close {
        Ok(Ok(close)) => Some(close),
        _ => Some(Close { code: CloseCode::Internal, reason: "the session failed".to_owned() }),
    }
}

fn tell(notice: Told, reporter: &Reporter) {
    match notice {
        Told::Text(line) => reporter.warn(line),
        Told::Changed { endpoint, state } => match state {
            OfferState::Accepted => reporter.warn(format!("endpoint {endpoint} is active now")),
            OfferState::Standby => reporter.state(State::Standby { endpoint }),
            OfferState::Copy => reporter.warn(format!("endpoint {endpoint}: copies only, another agent serves it")),
            OfferState::Refused { code } => {
                reporter.warn(format!("endpoint {endpoint} was taken away by the relay: {code}"));
            }
        },
        Told::Refused { endpoint, event_id, status, code, provider } => reporter.refused(Notice {
            time: Timestamp::now(),
            status,
            provider,
            code,
            event_id: Some(event_name(event_id)),
            endpoint,
        }),
    }
}

/// An event's id as people read it.
#[must_use]
pub fn event_name(id: [u8; 16]) -> String {
    format!("hook_{}", Uuid::from_bytes(id).as_simple())
}
