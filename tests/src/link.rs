//! A link that fails on command: a TCP forwarder between the agent and the relay.
//!
//! Frozen, it keeps its connections and carries nothing, as a path that drops every packet does. Cut, it
//! closes them. Slow, it carries so many bytes a second each way. It refuses nobody: while it is frozen new
//! connections are accepted and stay silent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// What the link does to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Carries them.
    Up,
    /// Carries nothing, closes nothing.
    Frozen,
    /// Closes every connection, old or new.
    Cut,
    /// Carries at most this many bytes a second each way and connection.
    Slow(u64),
}

/// A running link.
pub struct Link {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    arrived: Arc<Mutex<Vec<Instant>>>,
    relay: Arc<watch::Sender<String>>,
    task: JoinHandle<()>,
}

impl Link {
    /// A link to `relay`, up.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(relay: &str) -> std::io::Result<Self> {
        Self::start_at("127.0.0.1:0", relay).await
    }

    /// A link to `relay` that listens at `address`, up.
    ///
    /// # Errors
    /// If that address is taken.
    pub async fn start_at(address: &str, relay: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State::Up));
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let relay = Arc::new(watch::Sender::new(relay.to_owned()));
        let (leads_to, changes, arrivals) = (relay.subscribe(), state.subscribe(), Arc::clone(&arrived));
        let task = tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                arrivals.lock().expect("nobody panicked").push(Instant::now());
                let relay = leads_to.borrow().clone();
                tokio::spawn(carry(agent, relay, changes.clone()));
            }
        });
        Ok(Self { address, state, arrived, relay, task })
    }

    /// When each connection came.
    ///
    /// # Panics
    /// If the link's own task did.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Instant> {
        self.arrived.lock().expect("nobody panicked").clone()
    }

    /// New connections lead to another relay from now on.
    pub fn lead_to(&self, relay: &str) {
        self.relay.send_replace(relay.to_owned());
    }

    /// From now on the link does this.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.set(State::Cut);
        self.task.abort();
    }
}

async fn carry(agent: TcpStream, relay: String, mut changes: watch::Receiver<State>) {
    if changes.wait_for(|state| *state != State::Frozen).await.is_err() {
        return;
    }
    let Ok(relay) = TcpStream::connect(relay).await else { return };
    let _ = (agent.set_nodelay(true), relay.set_nodelay(true));
    let ((from_agent, to_agent), (from_relay, to_relay)) = (agent.into_split(), relay.into_split());
    let mut cut = changes.clone();
    tokio::select! {
        _ = cut.wait_for(|state| *state == State::Cut) => {}
        _ = async {
            tokio::join!(pump(from_agent, to_relay, changes.clone()), pump(from_relay, to_agent, changes.clone()))
        } => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut changes: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(state) = changes.wait_for(|state| *state != State::Frozen).await.map(|state| *state) else { return };
        let most = match state {
            State::Slow(rate) => usize::try_from(rate / 20).unwrap_or(1).clamp(1, buffer.len()),
            _ => buffer.len(),
        };
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]) => read,
            changed = changes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let len = match read {
            Ok(0) => return drop(to.shutdown().await),
            Ok(len) => len,
            Err(_) => return,
        };
        // What was read just before a freeze waits for its end, as a lost packet would.
        if changes.wait_for(|state| *state != State::Frozen).await.is_err()
            || to.write_all(&buffer[..len]).await.is_err()
        {
            return;
        }
        if let State::Slow(rate) = state {
            sleep(Duration::from_secs_f64(len as f64 / rate as f64)).await;
        }
    }
}
