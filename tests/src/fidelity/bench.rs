//! What every property needs: a relay in some mode, an agent, and a handler that records.

use std::path::Path;

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::wire::{Head, Message, Wire, message};
use crate::{
    process::{Agent, PATIENCE, Server},
    tls,
};

/// How an endpoint treats its webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is kept; everything streams.
    Live,
    /// Everything is kept; the sender gets the handler's answer, and the ack where that is a failure.
    Assured,
    /// The same, but failures are passed on.
    Passing,
    /// Everything is kept; the sender gets the ack, always.
    Durable,
}

/// What an endpoint of the bench keeps: every method of the cases that can be kept.
const KEPT_METHODS: [&str; 13] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "QUERY",
    "PURGE",
    "PROPFIND",
    "M-SEARCH",
    "!#$%&'*+-.^_`|~0A",
    LONGEST_METHOD,
];

/// A method as long as one may be.
pub(super) const LONGEST_METHOD: &str = "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM";

/// What senders may upgrade to beside WebSocket.
const UPGRADE: &str = "chat/1";

/// The ack's body.
const ACK: &str = "kept";

impl Mode {
    /// The endpoint's lines. Waits between attempts are short, and no deadline ends a case.
    fn settings(self) -> String {
        let (mode, on_failure) = match self {
            Self::Live => return format!("mode = \"live\"\nupgrades = [\"{UPGRADE}\"]\n"),
            Self::Assured => ("assured", "retry"),
            Self::Passing => ("assured", "pass"),
            Self::Durable => ("durable", "retry"),
        };
        format!(
            "mode = \"{mode}\"\non_failure = \"{on_failure}\"\nmethods = {KEPT_METHODS:?}\ndeadline = \"60s\"\n\
             ack = {{ status = 200, body = \"{ACK}\", content_type = \"text/x-ack\" }}\n\
             retry = {{ schedule = [\"10ms\", \"10ms\"] }}\n"
        )
    }

    /// Whether events are kept.
    #[must_use]
    pub const fn keeps(self) -> bool {
        !matches!(self, Self::Live)
    }

    /// Whether the sender gets the handler's answer.
    #[must_use]
    pub const fn answers(self) -> bool {
        !matches!(self, Self::Durable)
    }

    /// Whether this method reaches the handler. Those with small letters cannot be kept.
    #[must_use]
    pub fn takes(self, method: &str) -> bool {
        !self.keeps() || KEPT_METHODS.contains(&method)
    }

    /// Whether an answer with this status goes to the sender, who gets the ack and the handler a retry otherwise.
    #[must_use]
    pub const fn passes_on(self, status: u16) -> bool {
        match self {
            Self::Live | Self::Passing => true,
            Self::Assured => !is_failure(status),
            Self::Durable => false,
        }
    }
}

/// Whether this status asks for another attempt, by default.
#[must_use]
pub const fn is_failure(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// A relay, an agent, and the socket that the agent calls.
pub struct Bench {
    /// How the endpoint treats its webhooks.
    pub mode: Mode,
    /// The relay.
    pub relay: Server,
    /// The agent.
    pub agent: Agent,
    /// Where the agent calls.
    listener: Option<TcpListener>,
    /// `host:port` of the handler, as it stands in `Host` by default.
    pub handler: String,
    recorder: Option<Recorder>,
    tls: Option<(TempDir, CertificateDer<'static>)>,
}

/// A call as the handler saw it, whole or not.
#[derive(Debug)]
pub struct Seen {
    /// Its head, body and trailers.
    pub message: Message,
    /// How to answer it.
    reply: oneshot::Sender<Vec<u8>>,
}

impl Seen {
    /// Answers the call with these bytes.
    pub fn answer(self, bytes: impl Into<Vec<u8>>) {
        // Nobody waits for it any more if the connection is gone, and then the test sees that elsewhere.
        let _ = self.reply.send(bytes.into());
    }
}

struct Recorder {
    calls: mpsc::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    /// A bench with an open endpoint, `open`, that also has the host `own.test`.
    ///
    /// # Errors
    /// What did not start.
    pub async fn start(program: &Path, mode: Mode) -> anyhow::Result<Self> {
        Self::with(program, mode, "", None).await
    }

    /// The same under TLS.
    ///
    /// # Errors
    /// What did not start.
    pub async fn start_tls(program: &Path, mode: Mode) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let certificate = tls::certificate(folder.path())?;
        Self::with(program, mode, &tls::settings(folder.path()), Some((folder, certificate))).await
    }

    async fn with(
        program: &Path,
        mode: Mode,
        settings: &str,
        tls: Option<(TempDir, CertificateDer<'static>)>,
    ) -> anyhow::Result<Self> {
        let endpoints = format!(
            "trusted_proxies = [\"127.0.0.7/32\"]\n{settings}[[endpoint]]\nname = \"open\"\nverify = \"none\"\n\
             hosts = [\"own.test\"]\n{}",
            mode.settings()
        );
        let relay = Server::start(program, "127.0.0.1:0", &endpoints, &[]).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let handler = listener.local_addr()?.to_string();
        let target = format!("http://{handler}");
        let agent = match &tls {
            None => relay.agent("open", &target, &["--upgrade", UPGRADE]).await?,
            Some((folder, _)) => {
                let port = relay.public.rsplit(':').next().context("a port")?;
                let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem"));
                relay
                    .agent(
                        "open",
                        &target,
                        &["--upgrade", UPGRADE, "--relay", &there, "--relay-ca", &root.display().to_string()],
                    )
                    .await?
            }
        };
        Ok(Self { mode, relay, agent, listener: Some(listener), handler, recorder: None, tls })
    }

    /// A connection under TLS whose ALPN offers one protocol.
    ///
    /// # Errors
    /// If this bench has no TLS, or the handshake fails.
    pub async fn tls_sender(&self, alpn: &[u8]) -> anyhow::Result<TlsStream<TcpStream>> {
        let (_, certificate) = self.tls.as_ref().context("a bench under TLS")?;
        Ok(tls::connect(&self.relay.public, certificate, alpn).await?)
    }

    /// The next call, whole, from a handler that reads requests and answers them as it is told.
    ///
    /// # Errors
    /// If none comes.
    pub async fn seen(&mut self) -> anyhow::Result<Seen> {
        if self.recorder.is_none() {
            let listener = self.listener.take().context("the handler is a recorder or a bare socket")?;
            let (says, calls) = mpsc::channel(64);
            let task = tokio::spawn(record(listener, says));
            self.recorder = Some(Recorder { calls, task });
        }
        let recorder = self.recorder.as_mut().expect("made above");
        timeout(PATIENCE, recorder.calls.recv()).await.context("no call came")?.context("the recorder ended")
    }

    /// Whether no call waits to be looked at. Only after an answer that would have been preceded by one.
    pub fn nothing_seen(&mut self) -> bool {
        match &mut self.recorder {
            Some(recorder) => recorder.calls.try_recv().is_err(),
            None => true,
        }
    }

    /// A handler that is a bare socket: the next connection of the agent.
    ///
    /// # Errors
    /// If none comes.
    pub async fn call(&self) -> anyhow::Result<Wire> {
        let listener = self.listener.as_ref().context("the handler is a recorder or a bare socket")?;
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.context("no call came")??;
        stream.set_nodelay(true)?;
        Ok(Wire::new(stream))
    }

    /// A connection of a sender.
    ///
    /// # Errors
    /// If the relay does not listen.
    pub async fn sender(&self) -> anyhow::Result<Wire> {
        Wire::connect(&self.relay.public).await
    }

    /// Sends a request on a connection of its own and answers the call; what the handler saw, and what the sender.
    ///
    /// # Errors
    /// Whichever of both did not come.
    pub async fn exchange(&mut self, request: &[u8], answer: &[u8]) -> anyhow::Result<(Message, Message)> {
        let mut sender = self.sender().await?;
        self.exchange_on(&mut sender, request, answer).await
    }

    /// The same on a connection that is there.
    ///
    /// # Errors
    /// Whichever of both did not come.
    pub async fn exchange_on(
        &mut self,
        sender: &mut Wire,
        request: &[u8],
        answer: &[u8],
    ) -> anyhow::Result<(Message, Message)> {
        let (seen, answer) = self.ask(sender, request, answer).await?;
        let told = || format!("no call, but {:?}: {}", answer.head, String::from_utf8_lossy(&answer.body));
        Ok((seen.with_context(told)?, answer))
    }

    /// A call that succeeds, on a connection of its own: ten failures in a row, and a kept event waits for a while.
    /// Only over bare sockets.
    ///
    /// # Errors
    /// If it does not.
    pub async fn succeed(&self) -> anyhow::Result<()> {
        if !self.mode.keeps() {
            return Ok(());
        }
        let mut sender = self.sender().await?;
        sender.write(b"POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 0\r\n\r\n").await?;
        let mut call = self.call().await?;
        call.request().await?.context("a call")?;
        call.write(closing()).await?;
        drop(call);
        anyhow::ensure!(sender.answer("POST").await?.body == b"ok");
        Ok(())
    }

    /// Sends a request that may be refused: what the handler saw, if anything, and the answer.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn ask(
        &mut self,
        sender: &mut Wire,
        request: &[u8],
        answer: &[u8],
    ) -> anyhow::Result<(Option<Message>, Message)> {
        let method = request.split(|byte| *byte == b' ').next().unwrap_or_default();
        let method = String::from_utf8_lossy(method).into_owned();
        if !self.mode.answers() {
            sender.write(request).await?;
            let ack = sender.answer(&method).await?;
            if ack.head.status()? != 200 {
                return Ok((None, ack));
            }
            is_ack(&ack, &method)?;
            let seen = self.seen().await?;
            let message = seen.message.clone();
            anyhow::ensure!(message.head.one("relay-event-id") == ack.head.one("relay-event-id"), "another event");
            seen.answer(answer);
            return Ok((Some(message), ack));
        }
        let sent = async {
            sender.write(request).await?;
            sender.answer(&method).await
        };
        let handled = async {
            let seen = self.seen().await?;
            let message = seen.message.clone();
            seen.answer(answer);
            anyhow::Ok(message)
        };
        tokio::pin!(sent);
        tokio::select! {
            seen = handled => Ok((Some(seen?), sent.await?)),
            answer = &mut sent => Ok((None, answer?)),
        }
    }
}

/// A plain answer.
#[must_use]
pub fn ok() -> Vec<u8> {
    message("HTTP/1.1 200 OK", &[("Content-Length", b"2")], b"ok")
}

/// A plain answer after which the handler's connection is not used again.
#[must_use]
pub fn closing() -> Vec<u8> {
    message("HTTP/1.1 200 OK", &[("Connection", b"close"), ("Content-Length", b"2")], b"ok")
}

/// Whether an answer is the endpoint's ack.
///
/// # Errors
/// What it is instead.
pub fn is_ack(answer: &Message, method: &str) -> anyhow::Result<()> {
    let head = &answer.head;
    anyhow::ensure!(head.status()? == 200 && head.one("content-type") == "text/x-ack", "no ack: {head:?}");
    anyhow::ensure!(head.one("relay-event-id").starts_with("hook_") && head.all("relay-error").is_empty());
    anyhow::ensure!(answer.body == if method == "HEAD" { &b""[..] } else { ACK.as_bytes() }, "no ack's body");
    Ok(())
}

/// Serves each connection of the agent, one request after the other.
async fn record(listener: TcpListener, says: mpsc::Sender<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, says.clone()));
    }
}

async fn serve(stream: TcpStream, says: mpsc::Sender<Seen>) {
    let _ = stream.set_nodelay(true);
    let mut wire = Wire::new(stream);
    // A request that breaks off is not seen; cases about that use the bare socket.
    while let Ok(Some(message)) = wire.request().await {
        let (reply, replied) = oneshot::channel();
        if says.send(Seen { message, reply }).await.is_err() {
            return;
        }
        let Ok(answer) = replied.await else { return };
        if wire.write(&answer).await.is_err() {
            return;
        }
    }
}

/// Whether an answer is the relay's own for an error, with this status and code.
///
/// # Errors
/// What it is instead.
pub fn is_error(head: &Head, status: u16, code: &str) -> anyhow::Result<()> {
    anyhow::ensure!(head.status()? == status, "{} instead of {status}: {:?}", head.status()?, head.one("relay-error"));
    anyhow::ensure!(head.one("relay-error") == code, "{:?} instead of {code}", head.one("relay-error"));
    Ok(())
}
