//! Memory of the relay: idle agents, connections of senders that wait, and TLS under full load.

use std::time::Duration;

use anyhow::{bail, ensure};
use relay_tests::{agents::Crowd, process::allow_open_files, program::Program};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    contestants::{Arena, Contestant, Kind, Setup},
    load::{self, Load},
    report::{Row, Verdict},
    stats::Spread,
    watchers::{Tokens, Watchers},
};

/// Agents or senders that are there for nothing.
const CROWD: u32 = 10_000;
/// Two heartbeats: every buffer was in use.
const HEARTBEATS: Duration = Duration::from_secs(12);
/// After the last answer nothing is left to do.
const SETTLED: Duration = Duration::from_secs(2);
/// How many senders connect at a time.
const AT_ONCE: usize = 64;
/// Agents that hold the exchanges of senders that wait; each takes 1024 at most.
const HOLDERS: u32 = 16;
/// How long the memory of a relay under load is looked at.
const LOAD_SECONDS: u32 = 5;
/// As many streams as a relay has at a time.
const STALLED: u32 = 64;

/// What of memory is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    IdleAgents {
        is_secure: bool,
    },
    /// Connections that are kept after a webhook.
    IdleSenders {
        is_secure: bool,
    },
    /// Connections whose webhook is with a handler that does not answer.
    WaitingSenders,
    /// 64 TLS connections that send as much as they can.
    Load,
    /// Watchers that do not read what there is to tell.
    StalledWatchers,
}

/// A workload of memory.
pub(crate) struct MemoryLoad {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    what: Memory,
    /// The goal and the least that counts.
    goal: Option<(f64, f64)>,
}

const fn memory(name: &'static str, title: &'static str, what: Memory, goal: Option<(f64, f64)>) -> MemoryLoad {
    MemoryLoad { name, title, what, goal }
}

pub(crate) const MEMORY_LOADS: [MemoryLoad; 7] = [
    memory("idle-agents", "10,000 idle agents", Memory::IdleAgents { is_secure: false }, Some((12.0, 15.0))),
    memory(
        "idle-agents-tls",
        "10,000 idle agents over TLS",
        Memory::IdleAgents { is_secure: true },
        Some((20.0, 22.0)),
    ),
    memory("idle-senders", "10,000 kept connections", Memory::IdleSenders { is_secure: false }, Some((24.0, 24.0))),
    memory("idle-senders-tls", "10,000 kept connections over TLS", Memory::IdleSenders { is_secure: true }, None),
    memory("waiting-senders", "10,000 senders that wait for answers", Memory::WaitingSenders, Some((24.0, 24.0))),
    memory("memory-tls-64", "TLS everywhere, 64 connections at full load", Memory::Load, Some((30.0, 45.0))),
    memory(
        "stalled-watchers",
        "64 watchers that do not read, under full load",
        Memory::StalledWatchers,
        Some((16.0, 24.0)),
    ),
];

/// The row of one of them, for the relay and for what stands beside it.
pub(crate) async fn row(arena: &Arena, name: &str) -> anyhow::Result<Option<Row>> {
    let Some(MemoryLoad { name, title, what, goal }) = MEMORY_LOADS.into_iter().find(|it| it.name == name) else {
        return Ok(None);
    };
    let mut row = Row { name: name.to_owned(), title: title.to_owned(), ..Row::default() };
    let unit = if what == Memory::Load { "MiB at most" } else { "KiB each" };
    for (whose, program) in [("relay", Some(&arena.ours)), ("beside", arena.beside.as_ref())] {
        let Some(program) = program else { continue };
        let value = measure(arena, program, what).await?;
        row.values.push((format!("{whose}, {unit}"), value));
        if let Some((goal, least)) = goal.filter(|_| whose == "relay") {
            let reached = Spread::of([value]);
            let (row_name, what) = (name.to_owned(), unit.to_owned());
            row.verdicts.push(Verdict { row: row_name, what, goal, least, reached, is_steady: true });
        }
    }
    Ok(Some(row))
}

async fn measure(arena: &Arena, program: &Program, what: Memory) -> anyhow::Result<f64> {
    ensure!(
        allow_open_files(u64::from(CROWD) + 1000).await,
        "too few open files are allowed for {CROWD} connections (ulimit -n)"
    );
    if what == Memory::StalledWatchers {
        return stalled_watchers(arena, program).await;
    }
    let is_secure = match what {
        Memory::IdleAgents { is_secure } | Memory::IdleSenders { is_secure } => is_secure,
        Memory::WaitingSenders | Memory::StalledWatchers => false,
        Memory::Load => true,
    };
    let is_idle = matches!(what, Memory::IdleAgents { .. });
    let agents = if what == Memory::Load || matches!(what, Memory::IdleSenders { .. }) { 1 } else { 0 };
    let setup = Setup { is_secure, agents, ..Setup::LIVE };
    let most = CROWD + 500;
    let settings = match what {
        // As shipped.
        Memory::Load => String::new(),
        _ => {
            format!("max_connections = {most}\nmax_connections_per_address = {most}\n[limits]\nmax_sessions = {most}\n")
        }
    };
    let relay = arena.relay(program, &Kind::Relay(setup), setup, &settings).await?;
    if what == Memory::Load {
        return under_load(arena, &relay).await;
    }
    let Some(server) = relay.server() else { bail!("a relay has a server") };
    let tls = is_secure.then(|| arena.tls());
    let crowd = |count| Crowd::connect(&server.public, &server.token, "hooks", count, tls.clone());
    // The first ones pay for what all share. Where the handler does not answer, they take the exchanges.
    let _holders = crowd(if agents > 0 { 0 } else { HOLDERS }).await?;
    let before = relay.memory().front;
    if is_idle {
        let idle = crowd(CROWD).await?;
        sleep(HEARTBEATS).await;
        ensure!(idle.alive() == CROWD as usize, "only {} of {CROWD} sessions are alive", idle.alive());
        return Ok(each(before, relay.memory().front));
    }
    let _senders = senders(&relay, what == Memory::WaitingSenders).await?;
    sleep(SETTLED).await;
    Ok(each(before, relay.memory().front))
}

/// In KiB.
fn each(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64 / f64::from(CROWD) / 1024.0
}

/// So many connections that have sent a webhook each, and have its answer or not.
async fn senders(relay: &Contestant, is_waiting: bool) -> anyhow::Result<Vec<Box<dyn Send>>> {
    let webhook = load::Webhook::sign(2048)?;
    let load = Load { connections: 1, is_new: false, body_bytes: 2048, path: "/hooks" };
    let request = std::sync::Arc::new(webhook.request(load, &relay.target, None));
    let (mut connecting, mut open) = (JoinSet::new(), Vec::new());
    for _ in 0..CROWD {
        while connecting.len() >= AT_ONCE {
            open.extend(connecting.join_next().await.transpose()?.transpose()?);
        }
        let (target, request) = (relay.target.clone(), std::sync::Arc::clone(&request));
        connecting.spawn(timeout(Duration::from_secs(30), async move {
            let stream = TcpStream::connect(&target.address).await?;
            match target.tls {
                None => exchange(stream, &request, is_waiting).await,
                Some(config) => {
                    let name = rustls::pki_types::ServerName::try_from("localhost")?;
                    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
                    exchange(stream, &request, is_waiting).await
                }
            }
        }));
    }
    while let Some(sent) = connecting.join_next().await {
        open.push(sent??);
    }
    open.into_iter().collect()
}

async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    request: &[u8],
    is_waiting: bool,
) -> anyhow::Result<Box<dyn Send>> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(512);
    while !is_waiting && load::length(&answer).is_none_or(|length| answer.len() < length) {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the relay closed a connection");
    }
    ensure!(is_waiting || answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    Ok(Box::new(stream))
}

/// What each of many watchers takes that do not read, in KiB.
async fn stalled_watchers(arena: &Arena, program: &Program) -> anyhow::Result<f64> {
    let tokens = Tokens::for_watchers(STALLED)?;
    let settings = format!("[limits]\nidle_timeout = \"1h\"\njournal_budget = \"1MiB\"\n{}", tokens.settings);
    let relay = arena.relay(program, &Kind::Relay(Setup::LIVE), Setup::LIVE, &settings).await?;
    let load = Load { connections: 64, is_new: false, body_bytes: 2048, path: "/hooks" };
    let run = || load::closed(&arena.machine.load, &relay.target, load, LOAD_SECONDS);
    run().await?;
    let before = relay.memory().front;
    let _stalled = tokens.open(&relay.target.address, Watchers::Stalled(STALLED), &mut JoinSet::new()).await?;
    run().await?;
    Ok(relay.memory().front.saturating_sub(before) as f64 / f64::from(STALLED) / 1024.0)
}

/// The most memory that the relay takes at a moment under full load, in MiB.
async fn under_load(arena: &Arena, relay: &Contestant) -> anyhow::Result<f64> {
    let load = Load { connections: 64, is_new: false, body_bytes: 2048, path: "/hooks" };
    let mut running = std::pin::pin!(load::closed(&arena.machine.load, &relay.target, load, LOAD_SECONDS));
    let mut most = 0;
    loop {
        most = most.max(relay.memory().front);
        if let Ok(done) = timeout(Duration::from_millis(50), &mut running).await {
            ensure!(done?.completed > 0, "nothing was answered");
            return Ok(most as f64 / (1024.0 * 1024.0));
        }
    }
}
