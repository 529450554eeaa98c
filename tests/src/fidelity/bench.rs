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
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
        }
    }
}

/// A relay, an agent, and the socket that the agent calls.
pub struct Bench {
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
            "trusted_proxies = [\"127.0.0.7/32\"]\n{settings}[[endpoint]]\nname = \"open\"\nmode = \"{}\"\n\
             verify = \"none\"\nhosts = [\"own.test\"]\n",
            mode.name()
        );
        let relay = Server::start(program, "127.0.0.1:0", &endpoints, &[]).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let handler = listener.local_addr()?.to_string();
        let target = format!("http://{handler}");
        let agent = match &tls {
            None => relay.agent("open", &target, &[]).await?,
            Some((folder, _)) => {
                let port = relay.public.rsplit(':').next().context("a port")?;
                let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem"));
                relay.agent("open", &target, &["--relay", &there, "--relay-ca", &root.display().to_string()]).await?
            }
        };
        Ok(Self { relay, agent, listener: Some(listener), handler, recorder: None, tls })
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
