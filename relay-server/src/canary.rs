//! Canaries: webhooks of the relay's own, which show that the whole way is open before a sender finds out that it is not.
//!
//! Each goes in at the public door over a connection like any other, is signed and proven, kept, and delivered through
//! the tunnel to the one agent that it is for, which answers it itself. No handler is called, and no endpoint of a user
//! is used: they have an endpoint of their own that no config can name ([`EndpointName::canary`]), which stands in no
//! list, quota, count or journal. What they found stands in metrics, alerts and the API's about.
//!
//! Invariants: the secret that signs them lives as long as the process and leaves it nowhere; what they leave in the
//! store is removed after each round; a round is bounded in time and in canaries at a time.

/// What each is held to, for the table of all limits.
pub(crate) mod limits {
    pub(crate) use super::{MAX_BODY_BYTES, PATIENCE};
}

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use parking_lot::Mutex;
use relay_program::{
    api::AboutCanaries,
    http1::Connection,
    tls::{Trust, client_config},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    agents::registry::{CanaryAgent, Registry},
    alert::{StoppedCanary, signer},
    clock::{Clock, wall},
    endpoint::{
        Ack, Allow, Capture, CaptureLevel, DeliveryPolicy, Endpoint, EndpointName, Identity, Order, Replay, Resign,
    },
    metrics::{CanaryFigure, CanaryFigures, Meter},
    retry::{CircuitRule, Schedule, StatusRule},
    store::{Act, Action, Filter, PageRequest, Store, StoreError},
};

/// Where they come in.
pub(crate) const CANARY_PATH: &str = "/_relay/v1/canary";

/// How long one may take, from its connection to its answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How many are under way at a time.
const AT_ONCE: usize = 8;

/// What its agent answers.
const ANSWER: StatusCode = StatusCode::NO_CONTENT;

/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Largest body of one, in bytes.
pub(crate) const MAX_BODY_BYTES: u64 = 1024;

/// Events that are removed at a time.
const SWEPT: usize = 500;

/// Where the door is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub address: SocketAddr,
    pub tls: bool,
}

pub(crate) struct Canaries {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) meter: Arc<Meter>,
    every: Duration,
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    clock: Clock,
    answered: AtomicU64,
    failed: AtomicU64,
    /// By token and agent; those that are attached, and those whose session broke.
    seen: Mutex<BTreeMap<(String, String), Seen>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    latency: Option<Duration>,
    answered_at: Option<Instant>,
    /// Rounds without an answer, in a row.
    failures: u32,
}

impl Canaries {
    /// # Errors
    /// There is no randomness for their secret.
    pub(crate) fn build(
        every: Duration,
        registry: &Arc<Registry>,
        store: &Arc<dyn Store>,
        clock: &Clock,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            endpoint: Arc::new(own_endpoint()?),
            meter: Arc::default(),
            every,
            registry: Arc::clone(registry),
            store: Arc::clone(store),
            clock: clock.clone(),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            seen: Mutex::default(),
        }))
    }

    /// Sends a round every so often, until the relay stops.
    pub(crate) async fn run(self: Arc<Self>, door: Door, stop: CancellationToken) {
        let work = async {
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "canaries of an earlier process are still in the store");
            }
            let mut rounds = interval(self.every);
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            rounds.tick().await; // Agents have to come first.
            loop {
                rounds.tick().await;
                self.round(door).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Sends one to each agent that answers them.
    async fn round(&self, door: Door) {
        let agents = self.registry.canaries();
        let tls = door.tls.then(|| client_config(&Trust::DangerousAnything)).transpose();
        let tls = match tls {
            Ok(tls) => tls.map(Arc::new),
            Err(error) => return tracing::warn!(%error, "canaries cannot be sent"),
        };
        let sent = stream::iter(agents).map(|agent| {
            let tls = tls.clone();
            async move {
                let begun = Instant::now();
                let sent = timeout(PATIENCE, self.send(door, tls, &agent)).await;
                (agent, begun.elapsed(), sent.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time"))))
            }
        });
        let ended: Vec<_> = sent.buffer_unordered(AT_ONCE).collect().await;
        let mut present = BTreeSet::new();
        for (agent, took, sent) in ended {
            let key = (agent.identity.token.to_string(), agent.identity.name.to_string());
            self.note(key.clone(), took, &sent);
            if let Err(why) = sent {
                let (token, agent) = &key;
                tracing::debug!(agent, token, why = format!("{why:#}"), "a canary did not come back");
            }
            present.insert(key);
        }
        self.seen.lock().retain(|key, seen| present.contains(key) || self.is_missed(key, seen));
        if let Err(error) = self.sweep().await {
            tracing::debug!(%error, "canaries are still in the store; the next round removes them");
        }
    }

    /// Whether an agent that is away should be there: its session broke, and none has come since. That is one more round
    /// without an answer.
    fn is_missed(&self, (token, agent): &(String, String), seen: &mut Seen) -> bool {
        let is_lost = self.registry.is_lost(token, agent);
        if is_lost {
            self.failed.fetch_add(1, Ordering::Relaxed);
            seen.failures = seen.failures.saturating_add(1);
        }
        is_lost
    }

    fn note(&self, key: (String, String), took: Duration, sent: &anyhow::Result<()>) {
        let mut seen = self.seen.lock();
        let seen = seen.entry(key).or_default();
        match sent {
            Ok(()) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                *seen = Seen { latency: Some(took), answered_at: Some(Instant::now()), failures: 0 };
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                seen.failures = seen.failures.saturating_add(1);
            }
        }
    }

    async fn send(&self, door: Door, tls: Option<Arc<ClientConfig>>, agent: &CanaryAgent) -> anyhow::Result<()> {
        let address = reachable(door.address);
        let request = self.request(address, agent)?;
        let stream = TcpStream::connect(address).await.context("the public listener cannot be reached")?;
        let status = match tls {
            None => ask(stream, request).await?,
            Some(tls) => {
                let name = ServerName::IpAddress(address.ip().into());
                let stream = TlsConnector::from(tls).connect(name, stream).await.context("no TLS")?;
                ask(stream, request).await?
            }
        };
        if status != ANSWER {
            bail!("it was answered {status}");
        }
        Ok(())
    }

    /// A webhook whose type says which session it is for.
    fn request(&self, address: SocketAddr, agent: &CanaryAgent) -> anyhow::Result<Request<Bytes>> {
        let id = format!("canary_{}", Uuid::now_v7().simple());
        let body = serde_json::json!({ "type": agent.kind(), "timestamp": wall().to_string() }).to_string();
        let none: [(&str, &str); 0] = [];
        let unsigned = relay_schemes::Request { method: "POST", url: "", headers: &none, body: body.as_bytes() };
        let signed =
            self.endpoint.verify.sign_own(&unsigned, &id, wall().as_second()).context("it cannot be signed")?;
        let mut request = Request::post(CANARY_PATH)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Bytes::from(body))?;
        for (name, value) in signed.headers {
            request.headers_mut().insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(request)
    }

    /// Removes what canaries left in the store, whatever became of them.
    async fn sweep(&self) -> Result<(), StoreError> {
        let endpoint = &self.endpoint.name;
        loop {
            let filter = Filter { endpoints: vec![endpoint.clone()], ..Filter::default() };
            let page = PageRequest { limit: SWEPT, after: None, oldest_first: true };
            let events = self.store.list(filter, page).await?.events;
            if events.is_empty() {
                return Ok(());
            }
            let open = events.iter().filter(|event| event.state.is_open());
            let cancel = |id| Act { endpoint: endpoint.clone(), id, action: Action::Cancel };
            let acts: Vec<_> = open.map(|event| cancel(event.id)).collect();
            if !acts.is_empty() {
                self.store.act(acts, self.clock.now()).await?;
            }
            let ids = events.iter().map(|event| event.id).collect();
            if self.store.forget(endpoint.clone(), ids).await? == 0 {
                return Ok(()); // Nothing of it can be removed now.
            }
        }
    }

    pub(crate) fn figures(&self) -> CanaryFigures {
        let seen = self.seen.lock();
        let figure = |((token, agent), seen): (&(String, String), &Seen)| CanaryFigure {
            token: token.clone(),
            agent: agent.clone(),
            latency: seen.latency,
            silence: seen.answered_at.map(|at| at.elapsed()),
        };
        CanaryFigures {
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            agents: seen.iter().map(figure).collect(),
        }
    }

    /// Those that did not come back the last time.
    pub(crate) fn stopped(&self) -> Vec<StoppedCanary> {
        let seen = self.seen.lock();
        let failed = seen.iter().filter(|(_, seen)| seen.failures > 0);
        failed
            .map(|((token, agent), seen)| StoppedCanary {
                agent: agent.clone(),
                token: token.clone(),
                failures: seen.failures,
            })
            .collect()
    }

    pub(crate) fn about(&self) -> AboutCanaries {
        let seen = self.seen.lock();
        AboutCanaries {
            every_s: self.every.as_secs(),
            agents: seen.len() as u64,
            failing: seen.values().filter(|seen| seen.failures > 0).count() as u64,
        }
    }
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin, request: Request<Bytes>) -> anyhow::Result<StatusCode> {
    Ok(Connection::new(stream, MAX_HEAD_BYTES).ask(request).await?.status)
}

/// Where a listener is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The endpoint of canaries: kept, delivered once, answered by the agent or not at all.
fn own_endpoint() -> anyhow::Result<Endpoint> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let rule = signer(&format!("whsec_{}", BASE64.encode(&secret))).context("canaries cannot be signed")?;
    let policy = DeliveryPolicy {
        assured: true,
        // Whoever gets this has no answer of an agent.
        ack: Ack { status: StatusCode::ACCEPTED, ..Ack::default() },
        max_bytes: 64 << 20,
        methods: vec![Method::POST],
        attempt_timeout: PATIENCE,
        agent_grace: Duration::ZERO,
        pass_failures: true,
        dedup_window: None,
        identity: Identity::Provider,
        sender_retries: false,
        late: None,
        schedule: Schedule::List(Vec::new()),
        statuses: StatusRule::default(),
        circuit: CircuitRule { failures: u32::MAX, ..CircuitRule::default() },
        order: Order::None,
        resign: Resign::Never,
    };
    Ok(Endpoint {
        owner: None,
        name: EndpointName::canary(),
        verify: rule,
        deadline: PATIENCE,
        idle_timeout: PATIENCE,
        max_body: MAX_BODY_BYTES,
        wait_for_agent: Duration::ZERO,
        hosts: Vec::new(),
        allow: Allow::default(),
        client: Default::default(),
        replay: Replay::default(),
        exclusive: false,
        upgrades: Vec::new(),
        rate: None,
        concurrency: None,
        policy: Some(policy),
        capture: Capture { level: CaptureLevel::Off, ..Capture::default() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        let reached = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:443"), "127.0.0.1:443");
        assert_eq!(reached("[::]:443"), "[::1]:443");
        assert_eq!(reached("192.0.2.1:443"), "192.0.2.1:443");
    }

    #[test]
    fn its_endpoint_keeps_proves_and_tries_once() {
        let endpoint = own_endpoint().expect("an endpoint");
        assert!(endpoint.verify.proves() && endpoint.keeps(&Method::POST).is_some());
        let policy = endpoint.policy.as_ref().expect("it keeps");
        assert_eq!((policy.schedule.attempts(), policy.ack.status == ANSWER), (1, false));
        assert!(endpoint.name.is_relays_own());
    }
}
