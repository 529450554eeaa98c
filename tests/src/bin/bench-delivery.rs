//! What a failing target and a long backlog cost others, measured here and now.
//!
//! `failing [EVENTS]`: how long a webhook to an endpoint takes while another endpoint of the same agent has so many
//! events in retry, beside the same with none. First its handler fails always, so that its circuit opens, and then three
//! times in four, so that it never opens and attempts go on all the time.
//!
//! `backlog [EVENTS]`: how long a relay takes to be ready with so many events queued, and how fast it delivers them,
//! beside a short queue.
//!
//! Cases take turns in short rounds, each with processes of its own, since a machine is not equally fast all the time;
//! a ratio is the median of those within each round. Files are made in `TMPDIR`: name a folder on the disk that is meant.
//!
//! The same program is the relay and the agent when its first argument says so.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results go to standard output, errors beside them")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use http::{Response, StatusCode};
use relay_tests::{
    handler::{Handler, full},
    process::{Agent, Server},
    program::as_role,
    sender::{Keeper, request, send},
    stock::{Past, fill},
};
use tokio::{task::JoinSet, time::sleep};

const HELP: &str = "usage: cargo bench-delivery failing [EVENTS] | cargo bench-delivery backlog [EVENTS]";

const ENDPOINTS: &str = "[[endpoint]]\nname = \"good\"\nmode = \"assured\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"bad\"\nmode = \"assured\"\nverify = \"none\"\n\
    retry = { first = \"1s\", factor = 1, attempts = 1000 }\n";

const ROUNDS: usize = 5;
const BODY_BYTES: usize = 2048;

/// Senders that wait for their answers.
const SENDERS: usize = 8;

/// How long they send before it counts, and then.
const WARM: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(3);

/// A short queue; how many of its deliveries pass before it counts, and how many count. The rest keeps it from
/// running dry meanwhile.
const SHORT: u64 = 20_000;
const PASS: u64 = 2_000;
const COUNTED: u64 = 14_000;

/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// More than this would fill a disk by mistake.
const MOST_EVENTS: u64 = 5_000_000;

fn main() -> ExitCode {
    if let Some(ended) = as_role() {
        return ended;
    }
    let rest: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bench(&rest))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(arguments: &[String]) -> anyhow::Result<()> {
    let number = arguments.get(1).map(|text| text.parse::<u64>()).transpose()?;
    match arguments.first().map(String::as_str) {
        Some("failing") => failing(number.unwrap_or(100_000).clamp(1, MOST_EVENTS)).await,
        Some("backlog") => backlog(number.unwrap_or(1_000_000).clamp(2 * SHORT, MOST_EVENTS)).await,
        _ => bail!(HELP),
    }
}

/// A relay on a store, with one agent for both endpoints.
struct Running {
    relay: Server,
    agent: Agent,
    /// Calls of the handler of `bad`.
    bad_calls: Arc<AtomicU64>,
    _handlers: [Handler; 2],
}

async fn relay_on(store: &Path) -> anyhow::Result<Server> {
    let program = std::env::current_exe()?;
    let config = format!("[store]\nurl = \"sqlite:{}\"\nmax_size = \"1TiB\"\n{ENDPOINTS}", store.display());
    Server::start(program.as_path(), "127.0.0.1:0", &config, &[]).await
}

impl Running {
    /// The handler of `bad` answers 200 to each call whose number `succeeds` is true for, and 500 to the others.
    async fn attach(relay: Server, succeeds: Succeeds) -> anyhow::Result<Self> {
        let good = Handler::start(|_| async { Response::new(full("good")) }).await?;
        let bad_calls = Arc::new(AtomicU64::new(0));
        let calls = Arc::clone(&bad_calls);
        let bad = Handler::start(move |_| {
            let nth = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                let mut answer = Response::new(full("bad"));
                if !succeeds(nth) {
                    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                answer
            }
        })
        .await?;
        let table = |name: &str, port: &str| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{port}\"\n");
        let tables = table("good", &good.port()) + &table("bad", &bad.port());
        let agent = relay.agent_from_file(&tables).await?;
        Ok(Self { relay, agent, bad_calls, _handlers: [good, bad] })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.agent.stop().await?;
        stop(self.relay).await
    }
}

async fn stop(mut relay: Server) -> anyhow::Result<()> {
    relay.terminate().await?;
    ensure!(relay.ended().await?, "the relay ended with an error");
    Ok(())
}

/// Whether the handler of `bad` takes the call with this number.
type Succeeds = fn(u64) -> bool;

/// One round of one case.
#[derive(Clone, Copy)]
struct Latency {
    sent: usize,
    p50_us: f64,
    p99_us: f64,
    bad_calls: u64,
}

async fn latency(store: &Path, succeeds: Succeeds) -> anyhow::Result<Latency> {
    let running = Running::attach(relay_on(store).await?, succeeds).await?;
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let mut sender = Keeper::connect(&running.relay.public).await?;
        senders.spawn(async move {
            let body = bytes::Bytes::from(vec![b'x'; BODY_BYTES]);
            let mut took = Vec::new();
            while started.elapsed() < WARM + ROUND {
                let asked = Instant::now();
                let answer = sender.send(request("POST", "/good", &[], body.clone())).await?;
                ensure!(answer.status() == StatusCode::OK && answer.body() == "good", "not the handler's answer");
                if started.elapsed() > WARM {
                    took.push(asked.elapsed());
                }
            }
            Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(of_one) = senders.join_next().await {
        took.extend(of_one??);
    }
    let bad_calls = running.bad_calls.load(Ordering::Relaxed);
    running.stop().await?;
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).map_or(0.0, |took| took.as_secs_f64() * 1e6);
    Ok(Latency { sent: took.len(), p50_us: at(50), p99_us: at(99), bad_calls })
}

async fn failing(events: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let store = |name: &str| folder.path().join(name).join("relay.db");
    for name in ["empty", "full", "busy"] {
        std::fs::create_dir(folder.path().join(name))?;
    }
    let filling = Instant::now();
    for name in ["full", "busy"] {
        fill(&store(name), "bad", events, BODY_BYTES, Past::Failed).await?;
    }
    println!("twice {events} events in retry, in {} ({:.1?})", folder.path().display(), filling.elapsed());
    println!(
        "{SENDERS} senders of {BODY_BYTES} bytes, each waiting for the handler's own answer; {ROUNDS} rounds of {ROUND:?}"
    );
    let cases: [(&str, PathBuf, Succeeds); 3] = [
        ("none in retry", store("empty"), |_| false),
        ("all fail", store("full"), |_| false),
        ("3 in 4 fail", store("busy"), |nth| nth % 4 == 3),
    ];
    let mut rounds: [Vec<Latency>; 3] = Default::default();
    println!("                  webhooks   p50 us   p99 us   calls of the failing handler");
    for _ in 0..ROUNDS {
        for ((what, store, succeeds), rounds) in cases.iter().zip(&mut rounds) {
            let one = latency(store, *succeeds).await?;
            println!("{what:<16}  {:8} {:8.0} {:8.0}   {:8}", one.sent, one.p50_us, one.p99_us, one.bad_calls);
            rounds.push(one);
        }
    }
    let [none, all, some] = rounds;
    let p99 = |rounds: &[Latency]| median(rounds.iter().zip(&none).map(|(one, beside)| one.p99_us / beside.p99_us));
    println!("p99, all fail to none in retry:      {:.2} (goal: at most 1.5)", p99(&all));
    println!("p99, 3 in 4 fail to none in retry:   {:.2} (attempts go on all the time)", p99(&some));
    Ok(())
}

fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// One round of one length of queue.
#[derive(Clone, Copy)]
struct Rate {
    ready_s: f64,
    per_second: f64,
}

/// A start with a full queue, and the first so many deliveries of it.
async fn rate(store: &Path) -> anyhow::Result<Rate> {
    let started = Instant::now();
    let relay = relay_on(store).await?;
    while send(&relay.admin, request("GET", "/readyz", &[], "")).await?.status() != StatusCode::OK {
        ensure!(started.elapsed() < PATIENCE, "the relay is not ready");
        sleep(Duration::from_millis(5)).await;
    }
    let ready_s = started.elapsed().as_secs_f64();
    let running = Running::attach(relay, |_| true).await?;
    let reached = async |count: u64| {
        let waiting = Instant::now();
        while running.bad_calls.load(Ordering::Relaxed) < count {
            ensure!(waiting.elapsed() < PATIENCE, "{count} deliveries take too long");
            sleep(Duration::from_millis(1)).await;
        }
        Ok(running.bad_calls.load(Ordering::Relaxed))
    };
    let before = reached(PASS).await?;
    let started = Instant::now();
    let counted = reached(PASS + COUNTED).await? - before;
    let per_second = counted as f64 / started.elapsed().as_secs_f64();
    running.stop().await?;
    Ok(Rate { ready_s, per_second })
}

async fn backlog(events: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let long = folder.path().join("long.db");
    let filling = Instant::now();
    fill(&long, "bad", events, BODY_BYTES, Past::New).await?;
    let mib = std::fs::metadata(&long)?.len() / (1024 * 1024);
    println!(
        "{events} events of {BODY_BYTES} bytes, {mib} MiB, in {} ({:.1?})",
        folder.path().display(),
        filling.elapsed()
    );
    println!("                events   ready s   delivered/s");
    let mut rounds: [Vec<Rate>; 2] = Default::default();
    for nth in 0..ROUNDS {
        let short = folder.path().join(format!("short{nth}")).join("relay.db");
        std::fs::create_dir(folder.path().join(format!("short{nth}")))?;
        fill(&short, "bad", SHORT, BODY_BYTES, Past::New).await?;
        let cases = [("short queue", SHORT, &short), ("long queue", events, &long)];
        for ((what, count, store), rounds) in cases.into_iter().zip(&mut rounds) {
            let one = rate(store).await?;
            println!("{what:<12} {count:9}  {:8.2}  {:12.0}", one.ready_s, one.per_second);
            rounds.push(one);
        }
    }
    let [short, long] = rounds;
    let ratio = median(long.iter().zip(&short).map(|(long, short)| long.per_second / short.per_second));
    let slowest = long.iter().map(|one| one.ready_s).fold(0.0, f64::max);
    println!("ready with {events} events, slowest:    {slowest:.2} s (goal: at most 10)");
    println!("deliveries a second, long to short: {:.2} (goal: at least 0.8)", ratio);
    Ok(())
}
