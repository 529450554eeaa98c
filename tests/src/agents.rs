//! A crowd of agents inside this process: sessions without handlers, for counts and memory.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use relay_proto::{Attach, CONNECT_PATH, Close, HeaderBlock, Hello, Limits, Offer, ResponseHead, SUBPROTOCOL, Welcome};
use relay_tunnel::{Arrival, Arrivals, Handle};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// How many connect at a time.
const AT_ONCE: usize = 64;

/// Attached agents; dropping it closes their connections.
pub struct Crowd {
    agents: Vec<(Handle, Arrivals)>,
    _drivers: JoinSet<Close>,
}

impl Crowd {
    /// Attaches `count` agents to an endpoint, under TLS if there is a config for it.
    ///
    /// # Errors
    /// Why the first one failed.
    pub async fn connect(
        relay: &str,
        token: &str,
        endpoint: &str,
        count: u32,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> anyhow::Result<Self> {
        let mut crowd = Self { agents: Vec::new(), _drivers: JoinSet::new() };
        let (mut connecting, mut next) = (JoinSet::new(), 0);
        while crowd.agents.len() < count as usize {
            while connecting.len() < AT_ONCE && next < count {
                let (relay, token, hello, tls) =
                    (relay.to_owned(), token.to_owned(), hello(endpoint, next), tls.clone());
                connecting.spawn(timeout(Duration::from_secs(30), attach(relay, token, hello, tls)));
                next += 1;
            }
            let attached = connecting.join_next().await.context("somebody connects")?;
            let (handle, arrivals, driver) = attached?.context("an agent took too long")??;
            crowd._drivers.spawn(driver);
            crowd.agents.push((handle, arrivals));
        }
        Ok(crowd)
    }

    /// How many are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// How many still have their session.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.agents.iter().filter(|(handle, _)| handle.takes_exchanges()).count()
    }
}

fn hello(endpoint: &str, number: u32) -> Hello {
    let mut instance = [0; 16];
    instance[..4].copy_from_slice(&number.to_be_bytes());
    let offers = vec![Offer { endpoint: endpoint.to_owned(), attach: Attach::Shared, ..Offer::default() }];
    Hello { name: format!("agent-{number}"), instance, software: "crowd".to_owned(), offers, canaries: false }
}

/// A connection in the clear or under TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Driver = relay_tunnel::Driver<Box<dyn Stream>>;

async fn attach(
    relay: String,
    token: String,
    hello: Hello,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> anyhow::Result<(Handle, Arrivals, Driver)> {
    let Upgraded(stream) = upgrade(&relay, &token, tls).await?;
    let (welcome, handle, arrivals, driver) = relay_tunnel::agent(stream, Vec::new(), hello, Limits::agent())
        .await
        .map_err(|close| anyhow::anyhow!("{}", close.reason))?;
    ensure!(welcome.epoch > 0, "no epoch");
    Ok((handle, arrivals, driver))
}

/// An agent's connection that has said nothing yet.
pub struct Upgraded(Box<dyn Stream>);

impl Upgraded {
    /// Says hello for one endpoint, and waits for the end of the session that comes of it.
    ///
    /// # Errors
    /// How it ended before a welcome.
    pub async fn say_hello(self, endpoint: &str) -> Result<(Welcome, Close), Close> {
        let (welcome, _handle, _arrivals, driver) =
            relay_tunnel::agent(self.0, Vec::new(), hello(endpoint, 0), Limits::agent()).await?;
        Ok((welcome, driver.await))
    }
}

/// An agent that gives every request the same answer, lawful or not; dropping it closes its connection.
pub struct Answering {
    _running: JoinSet<()>,
}

impl Upgraded {
    /// Says hello for one endpoint, and answers from then on what comes.
    ///
    /// # Errors
    /// How the session ended before a welcome.
    pub async fn answer(self, endpoint: &str, head: ResponseHead, body: Bytes) -> Result<Answering, Close> {
        let (_, _handle, mut arrivals, driver) =
            relay_tunnel::agent(self.0, Vec::new(), hello(endpoint, 0), Limits::agent()).await?;
        let mut running = JoinSet::new();
        running.spawn(async move { drop(driver.await) });
        running.spawn(async move {
            while let Some(arrival) = arrivals.next().await {
                let Arrival::Request(request) = arrival else { continue };
                let mut answer = request.responder.respond(head.clone());
                if answer.send(body.clone()).await.is_ok() {
                    answer.finish(HeaderBlock::new());
                }
            }
        });
        Ok(Answering { _running: running })
    }
}

/// Opens an agent's WebSocket, and says nothing over it.
///
/// # Errors
/// What the relay answered instead.
pub async fn upgrade(relay: &str, token: &str, tls: Option<Arc<rustls::ClientConfig>>) -> anyhow::Result<Upgraded> {
    let stream = TcpStream::connect(relay).await?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::try_from("localhost")?;
            Box::new(tokio_rustls::TlsConnector::from(config).connect(name, stream).await?)
        }
    };
    let request = format!(
        "GET {CONNECT_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        ensure!(head.len() < 4096, "a long answer: {}", String::from_utf8_lossy(&head));
    }
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    Ok(Upgraded(stream))
}
