//! Two pairs of programs side by side: each round gives both the same load, one after the other.
//!
//! The load is as cheap as it can be and the same for both: 64 connections that write bytes made once, and a handler
//! that answers with bytes made once. What counts is the time on a processor of the relay and of the agent, so that
//! neither the load nor the other pair, which is idle meanwhile, changes it much.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use relay_tests::{
    process::{Server, cpu as cpu_of, on_its_own},
    program::Program,
    sender::{request, send as send_request},
    tls,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Child,
    task::JoinSet,
    time::{sleep, timeout},
};

const IN_FLIGHT: u32 = 64;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
/// How long the last calls of a round may take to reach their handler.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is left to do behind the last answer: events are settled, lines are written.
const REST: Duration = Duration::from_millis(500);

/// Two programs and their names.
struct Both {
    old: Program,
    new: Program,
    rounds: u32,
    count: u32,
    body_bytes: usize,
}

/// What one round cost, in microseconds for each webhook.
#[derive(Clone, Copy)]
struct Cost {
    relay_us: f64,
    agent_us: f64,
    a_second: f64,
}

pub(super) async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let value = |flag: &str| arguments.iter().skip_while(|word| *word != flag).nth(1);
    let number = |flag: &str, usual| value(flag).map_or(Ok(usual), |text| text.parse());
    let old = value("--old").context("--old DIR is missing: a folder with relay-server and relay-client")?;
    let new = value("--new").map(|folder| Program::pair(Path::new(folder)));
    let this = || Ok::<_, std::io::Error>(Program::from(std::env::current_exe()?.as_path()));
    let both = Both {
        old: Program::pair(&PathBuf::from(old)),
        new: new.map_or_else(this, Ok)?,
        rounds: number("--rounds", 7)?,
        count: number("--count", 20_000)?,
        body_bytes: value("--body").map_or(Ok(1024), |text| text.parse())?,
    };
    println!(
        "{IN_FLIGHT} in flight, bodies of {} bytes, {} rounds of {} webhooks; the median, and least to most",
        both.body_bytes, both.rounds, both.count
    );
    let only = value("--only");
    let asked = |part: &str| only.is_none_or(|only| only == part);
    for mode in ["live", "assured", "durable"] {
        if asked(mode) {
            cpu(&both, mode).await?;
        }
    }
    if asked("memory") {
        memory(&both).await?;
    }
    Ok(())
}

async fn cpu(both: &Both, mode: &str) -> anyhow::Result<()> {
    let (old, new) = (Pair::start(both, &both.old, mode, None).await?, Pair::start(both, &both.new, mode, None).await?);
    for pair in [&old, &new] {
        pair.round(both.count / 4).await?;
    }
    let mut rounds = Vec::new();
    for round in 0..both.rounds {
        let (first, second) = if round % 2 == 0 { (&old, &new) } else { (&new, &old) };
        let costs = (first.round(both.count).await?, second.round(both.count).await?);
        rounds.push(if round % 2 == 0 { costs } else { (costs.1, costs.0) });
    }
    println!("{mode}, CPU for each webhook:");
    show("relay", &rounds, |cost| cost.relay_us, "µs");
    show("agent", &rounds, |cost| cost.agent_us, "µs");
    show("together", &rounds, |cost| cost.relay_us + cost.agent_us, "µs");
    show("rate", &rounds, |cost| cost.a_second, "/s");
    Ok(())
}

/// Resident memory of the relay while 64 connections over TLS give it all that it takes.
async fn memory(both: &Both) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let trusted = tls::certificate(folder.path())?;
    let mut rounds = Vec::new();
    for round in 0..both.rounds {
        let (first, second) = if round % 2 == 0 { (&both.old, &both.new) } else { (&both.new, &both.old) };
        let mut most = [0.0; 2];
        for (most, program) in most.iter_mut().zip([first, second]) {
            let pair = Pair::start(both, program, "live", Some((folder.path(), &trusted))).await?;
            *most = pair.most_memory(both.count).await? as f64 / (1024.0 * 1024.0);
        }
        rounds.push(if round % 2 == 0 { most.into() } else { (most[1], most[0]) });
    }
    println!("live over TLS, the relay's memory in RAM:");
    show("most", &rounds, |mib| mib, "MiB");
    Ok(())
}

fn show<T: Copy>(name: &str, rounds: &[(T, T)], of: impl Fn(T) -> f64, unit: &str) {
    let old = spread(rounds.iter().map(|(old, _)| of(*old)));
    let new = spread(rounds.iter().map(|(_, new)| of(*new)));
    let ratio = spread(rounds.iter().map(|(old, new)| of(*new) / of(*old)));
    println!(
        "  {name:<9} old {:>8.1} {unit}   new {:>8.1} {unit}   ratio {:.3} ({:.3} to {:.3})",
        old.0, new.0, ratio.0, ratio.1, ratio.2
    );
}

/// The median, the least and the most.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let (low, high) = (at((values.len().max(1) - 1) / 2), at(values.len() / 2));
    (f64::midpoint(low, high), at(0), at(values.len().max(1) - 1))
}

/// A relay, its agent and the agent's handler.
struct Pair {
    name: Program,
    relay: Server,
    agent: Child,
    handled: Arc<AtomicU64>,
    trusted: Option<CertificateDer<'static>>,
    request: Arc<[u8]>,
    _tasks: JoinSet<()>,
}

impl Pair {
    async fn start(
        both: &Both,
        program: &Program,
        mode: &str,
        secure: Option<(&Path, &CertificateDer<'static>)>,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, handled) = (listener.local_addr()?.port(), Arc::new(AtomicU64::new(0)));
        tasks.spawn(handle(listener, Arc::clone(&handled)));
        let endpoint = format!("[[endpoint]]\nname = \"open\"\nmode = \"{mode}\"\nverify = \"none\"\n");
        let settings = secure.map(|(folder, _)| tls::settings(folder)).unwrap_or_default();
        let relay =
            Server::start(program.clone(), "127.0.0.1:0", &(settings + &endpoint), &[("RELAY_LOG", "info")]).await?;
        let mut command = program.role("client");
        command.args(["listen", &port.to_string(), "open", "--max-connections", "128"]);
        match secure {
            None => command.args(["--relay", &format!("ws://{}", relay.public)]),
            Some((folder, _)) => {
                let at = relay.public.rsplit_once(':').context("a port")?.1;
                command.args(["--relay", &format!("wss://localhost:{at}"), "--relay-ca"]).arg(folder.join("cert.pem"))
            }
        };
        command.env("RELAY_TOKEN", &relay.token);
        on_its_own(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut agent = command.spawn()?;
        let mut lines = agent.stdout.take().context("its output")?;
        tasks.spawn(async move {
            let mut text = vec![0; 64 * 1024];
            while lines.read(&mut text).await.is_ok_and(|read| read > 0) {}
        });
        let request = format!(
            "POST /open/hooks HTTP/1.1\r\nHost: relay.test\r\nUser-Agent: GitHub-Hookshot/044aadd\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: 72d3162e-cc78-11e3-81ab\r\n\
             Content-Length: {}\r\n\r\n{}",
            both.body_bytes,
            "x".repeat(both.body_bytes)
        );
        let trusted = secure.map(|(_, trusted)| trusted.clone());
        let pair = Self {
            name: program.clone(),
            relay,
            agent,
            handled,
            trusted,
            request: request.into_bytes().into(),
            _tasks: tasks,
        };
        let ready = async {
            while pair.handled.load(Ordering::Relaxed) == 0 {
                let _ = pair.load(1).await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, ready).await.context("no webhook reaches the handler")?;
        sleep(REST).await;
        Ok(pair)
    }

    /// The cost of so many webhooks.
    async fn round(&self, count: u32) -> anyhow::Result<Cost> {
        let (relay, agent, handled) = (self.relay.cpu()?, self.agent_cpu()?, self.handled.load(Ordering::Relaxed));
        let started = Instant::now();
        self.load(count).await?;
        let all = async {
            while self.handled.load(Ordering::Relaxed) < handled + u64::from(count) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            let reached = self.handled.load(Ordering::Relaxed) - handled;
            let metrics = send_request(&self.relay.admin, request("GET", "/metrics", &[], "")).await?;
            let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
            bail!("{reached} of {count} webhooks reached the handler of {:?}; its relay says:\n{metrics}", self.name);
        }
        let took = started.elapsed();
        sleep(REST).await;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
        Ok(Cost {
            relay_us: each(self.relay.cpu()? - relay),
            agent_us: each(self.agent_cpu()? - agent),
            a_second: f64::from(count) / took.as_secs_f64(),
        })
    }

    /// The most memory that the relay takes at a moment of so many webhooks, in bytes.
    async fn most_memory(&self, count: u32) -> anyhow::Result<u64> {
        let mut load = std::pin::pin!(self.load(count));
        let mut most = 0;
        loop {
            most = most.max(self.relay.memory()?);
            if let Ok(done) = timeout(Duration::from_millis(50), &mut load).await {
                return done.map(|()| most);
            }
        }
    }

    fn agent_cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(&self.agent)
    }

    /// Sends so many webhooks, 64 at a time.
    async fn load(&self, count: u32) -> anyhow::Result<()> {
        let mut senders = JoinSet::new();
        for number in 0..IN_FLIGHT.min(count) {
            let share = count / IN_FLIGHT + u32::from(number < count % IN_FLIGHT);
            let (address, request) = (self.relay.public.clone(), Arc::clone(&self.request));
            let trusted = self.trusted.clone();
            senders.spawn(async move {
                match trusted {
                    None => {
                        let stream = TcpStream::connect(&address).await?;
                        stream.set_nodelay(true)?;
                        send(stream, &request, share).await
                    }
                    Some(trusted) => send(tls::connect(&address, &trusted, b"http/1.1").await?, &request, share).await,
                }
            });
        }
        while let Some(sent) = senders.join_next().await {
            sent??;
        }
        Ok(())
    }
}

async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8], count: u32) -> anyhow::Result<()> {
    let mut answer = Vec::with_capacity(4096);
    for _ in 0..count {
        stream.write_all(request).await?;
        answer.clear();
        while whole(&answer).is_none_or(|length| answer.len() < length) {
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("the relay closed the connection");
            }
        }
        if !answer.starts_with(b"HTTP/1.1 20") {
            bail!("a wrong answer: {}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(())
}

/// Answers every request of every connection, and counts them.
async fn handle(listener: TcpListener, handled: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let handled = Arc::clone(&handled);
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let mut seen = Vec::with_capacity(4096);
            while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
                while let Some(length) = whole(&seen).filter(|length| seen.len() >= *length) {
                    seen.drain(..length);
                    handled.fetch_add(1, Ordering::Relaxed);
                    if stream.write_all(ANSWER).await.is_err() {
                        return;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// How long a message is, once its head is there.
fn whole(text: &[u8]) -> Option<usize> {
    let head = text.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let lines = text[..head].split(|byte| *byte == b'\n');
    let mut length = lines.filter_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value.trim_ascii())
    });
    let length = length.next_back().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    Some(head + length.unwrap_or(0))
}
