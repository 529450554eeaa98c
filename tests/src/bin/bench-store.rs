//! What it costs to keep an event, measured here and now, beside the least that it can cost on this disk.
//!
//! `appends [ROUNDS]`: 64 writers, each of which waits for its answer, against the store and against a bare loop that
//! appends the same records to a file with one fdatasync for each batch. They take turns in short rounds, since a
//! machine is not equally fast all the time, and the medians are compared. What is written for each byte of the bodies is
//! counted in runs of their own, until all events have ended and the store is closed: with events that end as soon as
//! they are kept, and with events that all wait first.
//!
//! `million [EVENTS]`: opening, listing, searching and claiming with so many events waiting.
//!
//! Files are made in `TMPDIR`: name a folder on the disk that is meant.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use relay_server::{
    endpoint::EndpointName,
    hops::Hops,
    store::{
        Answer, Attempt, Body, ClaimedEvent, Dedup, End, Filter, Grant, Head, Holder, Lease, NewEvent, Outcome,
        PageRequest, Sight, SqliteOptions, SqliteStore, State, Store, Then, Verdict, Want,
    },
    webhook::EventId,
};
use tokio::sync::oneshot;

const HELP: &str = "usage: cargo bench-store appends [ROUNDS] | cargo bench-store million [EVENTS]";

/// Writers that wait for their answers.
const WRITERS: usize = 64;
const BODY_BYTES: usize = 2048;
const ROUND: Duration = Duration::from_millis(1500);

/// The store has copied its log into its file by then.
const SETTLED: Duration = Duration::from_millis(1200);

/// Events in a run that counts what is written.
const COUNTED: u64 = 60_000;

/// Records in one sync of the bare loop, as in the store's.
const MAX_BATCH: usize = 512;

/// More than this would fill a disk by mistake.
const MOST_EVENTS: u64 = 5_000_000;

fn main() -> ExitCode {
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
        Some("appends") | None => appends(number.unwrap_or(9).clamp(1, 100)).await,
        Some("million") => million(number.unwrap_or(1_000_000).clamp(1, MOST_EVENTS)).await,
        _ => bail!(HELP),
    }
}

/// What the events are made of.
struct Stock {
    endpoint: EndpointName,
    head: Head,
    /// The head as the bare loop writes it.
    line: Bytes,
    bodies: Vec<Bytes>,
}

impl Stock {
    fn new() -> anyhow::Result<Self> {
        let signature = format!("sha256={}", "0a".repeat(32));
        let lines = [
            ("content-type", "application/json"),
            ("user-agent", "GitHub-Hookshot/0123456"),
            ("x-github-event", "push"),
            ("x-github-delivery", "0f8a4b9e-1111-11ee-8c7e-0242ac120002"),
            ("x-hub-signature-256", &signature),
        ];
        let mut head = Head::sample("/github");
        head.sent.headers = lines.into_iter().collect();
        head.arrival.verified = "github".into();
        let line = format!("{head:?}").into();
        let mut random = fastrand::Rng::with_seed(7);
        let body = |_| std::iter::repeat_with(|| random.u8(..)).take(BODY_BYTES).collect();
        Ok(Self { endpoint: EndpointName::parse("github")?, head, line, bodies: (0..256).map(body).collect() })
    }

    fn body(&self, nth: u64) -> Bytes {
        self.bodies[usize::try_from(nth).unwrap_or(0) % self.bodies.len()].clone()
    }

    fn event(&self, nth: u64) -> NewEvent {
        let id = EventId::new();
        let sender_id = format!("{:016x}", nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let dedup = Dedup { key: sender_id.clone(), window: Duration::from_secs(86_400), sender_retries: true };
        NewEvent {
            endpoint: self.endpoint.clone(),
            id,
            received_at: Timestamp::now(),
            head: self.head.clone(),
            body: Body::Bytes(self.body(nth)),
            event_type: Some("push".into()),
            sender_id: Some(sender_id),
            mark: None,
            dedup: Some(dedup),
            order_key: None,
            replay_of: None,
            lease: None,
        }
    }
}

/// The least that durability costs: the bytes, and one sync for all that wait.
struct Bare(SyncSender<(Bytes, Bytes, oneshot::Sender<()>)>);

impl Bare {
    fn start(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)?;
        let (sender, queue) = sync_channel(4096);
        std::thread::spawn(move || run_bare(file, &queue));
        Ok(Self(sender))
    }

    async fn append(&self, line: Bytes, body: Bytes) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send((line, body, reply)).ok().context("the bare loop's queue is full")?;
        Ok(answer.await?)
    }
}

fn run_bare(mut file: File, queue: &Receiver<(Bytes, Bytes, oneshot::Sender<()>)>) {
    let mut buffer = Vec::new();
    while let Ok(first) = queue.recv() {
        buffer.clear();
        let mut replies = Vec::new();
        for (line, body, reply) in std::iter::once(first).chain(queue.try_iter()).take(MAX_BATCH) {
            buffer.extend_from_slice(&line);
            buffer.extend_from_slice(&body);
            replies.push(reply);
        }
        if file.write_all(&buffer).and_then(|()| file.sync_data()).is_err() {
            return; // Whoever waits is told by the closed channel.
        }
        for reply in replies {
            let _gone = reply.send(());
        }
    }
}

/// One round of one of the two.
#[derive(Clone, Copy, Default)]
struct Round {
    events: u64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Bytes that this process has written: to files, and as pages that the kernel has to bring to a disk.
#[derive(Clone, Copy, Default)]
struct Written {
    calls: u64,
    pages: u64,
}

impl Written {
    fn now() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/io")?;
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).with_context(|| format!("no {name} in /proc/self/io"))
        };
        Ok(Self { calls: of("wchar:")?, pages: of("write_bytes:")? })
    }

    fn since(self, before: Self) -> Self {
        Self { calls: self.calls - before.calls, pages: self.pages - before.pages }
    }
}

/// One of the two that are compared.
enum Way {
    Store(SqliteStore),
    Bare(Bare),
}

impl Way {
    async fn append(&self, stock: &Stock, nth: u64) -> anyhow::Result<()> {
        match self {
            Self::Store(store) => {
                store.append(vec![stock.event(nth)], Timestamp::now()).await?;
                Ok(())
            }
            Self::Bare(bare) => bare.append(stock.line.clone(), stock.body(nth)).await,
        }
    }
}

/// All writers at once for a while. `next` numbers the events.
async fn round(way: &Arc<Way>, stock: &Arc<Stock>, next: &Arc<AtomicU64>) -> anyhow::Result<Round> {
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (way, stock, next) = (Arc::clone(way), Arc::clone(stock), Arc::clone(next));
        writers.spawn(async move {
            let mut took = Vec::new();
            while started.elapsed() < ROUND {
                let asked = Instant::now();
                way.append(&stock, next.fetch_add(1, Ordering::Relaxed)).await?;
                took.push(asked.elapsed());
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(of_one) = writers.join_next().await {
        took.extend(of_one??);
    }
    let seconds = started.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLED).await;
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).map_or(0.0, |took| took.as_secs_f64() * 1e6);
    let (p50_us, p99_us) = (at(50), at(99));
    Ok(Round { events: took.len() as u64, per_second: took.len() as f64 / seconds, p50_us, p99_us })
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

async fn appends(rounds: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    println!(
        "{WRITERS} writers of {BODY_BYTES} bytes, {rounds} rounds of {ROUND:?} each, in {}",
        folder.path().display()
    );
    let stock = Arc::new(Stock::new()?);
    let next = Arc::new(AtomicU64::new(0));
    let options = SqliteOptions { path: folder.path().join("relay.db"), max_bytes: u64::MAX };
    let store = Arc::new(Way::Store(SqliteStore::open(options)?));
    let bare = Arc::new(Way::Bare(Bare::start(&folder.path().join("bare"))?));
    let (mut of_store, mut of_bare) = (Vec::new(), Vec::new());
    // The first round of each fills caches and makes the files.
    round(&bare, &stock, &next).await?;
    round(&store, &stock, &next).await?;
    let commits = |way: &Way| if let Way::Store(store) = way { store.usage().commits } else { 0 };
    let before = commits(&store);
    println!("              store                          bare");
    println!("        events/s   p50 us   p99 us    events/s   p50 us   p99 us");
    for _ in 0..rounds {
        let bare = round(&bare, &stock, &next).await?;
        let store = round(&store, &stock, &next).await?;
        let show = |one: &Round| format!("{:8.0} {:8.0} {:8.0}", one.per_second, one.p50_us, one.p99_us);
        println!("        {}    {}", show(&store), show(&bare));
        of_bare.push(bare);
        of_store.push(store);
    }
    let events: u64 = of_store.iter().map(|round| round.events).sum();
    let commits = commits(&store) - before;
    if let Way::Store(store) = &*store {
        let usage = store.usage();
        println!("a transaction took {} us on average", usage.commit_micros / usage.commits.max(1));
    }
    drop(store);
    let ratio = |of: fn(&Round) -> f64| median(&of_store, of) / median(&of_bare, of);
    println!(
        "medians {:8.0} {:8.0} {:8.0}    {:8.0} {:8.0} {:8.0}",
        median(&of_store, |one| one.per_second),
        median(&of_store, |one| one.p50_us),
        median(&of_store, |one| one.p99_us),
        median(&of_bare, |one| one.per_second),
        median(&of_bare, |one| one.p50_us),
        median(&of_bare, |one| one.p99_us)
    );
    println!("events a second, store to bare:   {:.2} (goal: at least 0.75)", ratio(|one| one.per_second));
    println!("p99, store to bare:               {:.2} (goal: at most 2.5)", ratio(|one| one.p99_us));
    println!("events in a transaction:          {:.1}", events as f64 / commits.max(1) as f64);
    let payload = (COUNTED * BODY_BYTES as u64) as f64;
    for (what, at_once) in [("each ends at once", true), ("all wait before they end", false)] {
        let Written { calls, pages } = ended(&stock, at_once).await?;
        let (calls, pages) = (calls as f64 / payload, pages as f64 / payload);
        println!("written per byte, {what:<25} {pages:.2} in dirtied pages, {calls:.2} in calls (goal: at most 1.6)");
    }
    Ok(())
}

/// What is written for events from their append until they have ended and the store is closed.
async fn ended(stock: &Arc<Stock>, at_once: bool) -> anyhow::Result<Written> {
    let folder = tempfile::tempdir()?;
    let options = SqliteOptions { path: folder.path().join("relay.db"), max_bytes: u64::MAX };
    let store = Arc::new(SqliteStore::open(options)?);
    let (before, next) = (Written::now()?, Arc::new(AtomicU64::new(0)));
    let grant = Grant { holder: Holder::draw(), until: Timestamp::now().saturating_add(Duration::from_secs(600))? };
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (store, stock, next) = (Arc::clone(&store), Arc::clone(stock), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= COUNTED {
                    return anyhow::Ok(());
                }
                let event = NewEvent { lease: at_once.then_some(grant), ..stock.event(nth) };
                let (endpoint, id) = (event.endpoint.clone(), event.id);
                let verdicts = store.append(vec![event], Timestamp::now()).await?;
                if let Some(Verdict::Accepted { lease: Some(lease), .. }) = verdicts.first() {
                    store.settle(vec![delivered(endpoint, id, *lease)], Timestamp::now()).await?;
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    loop {
        let wants = vec![Want { endpoint: stock.endpoint.clone(), oldest: 100, newest: 0 }];
        let held = store.claim(wants, grant, Timestamp::now()).await?.deliveries;
        if held.is_empty() {
            break;
        }
        let end = |one: &ClaimedEvent| delivered(one.summary.endpoint.clone(), one.summary.id, one.lease);
        store.settle(held.iter().map(end).collect(), Timestamp::now()).await?;
    }
    drop(store);
    Ok(Written::now()?.since(before))
}

fn delivered(endpoint: EndpointName, id: EventId, lease: Lease) -> End {
    let headers = [("content-length", "0"), ("date", "Sun, 29 Nov 2026 12:00:00 GMT")].into_iter().collect();
    let attempt = Attempt {
        number: lease.attempt,
        fence: lease.fence,
        started_at: Timestamp::now(),
        duration: Duration::from_millis(3),
        outcome: Outcome::Answered,
        agent: Some("laptop".into()),
        answer: Some(Answer { status: 204, headers, body: Bytes::new(), truncated: false }),
        resigned: false,
        sha256_in: None,
        hops: Hops::default(),
    };
    End { endpoint, id, attempt, then: Then::Done }
}

/// Memory of this process's own: not counting pages of files, which the kernel can drop.
fn anonymous_kib() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    line.split_whitespace().next().and_then(|number| number.parse().ok()).context("RssAnon is no number")
}

async fn timed<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let started = Instant::now();
    let result = work.await?;
    println!(
        "{what:<44} {:9.1} ms  {:7.1} MiB",
        started.elapsed().as_secs_f64() * 1e3,
        anonymous_kib()? as f64 / 1024.0
    );
    Ok(result)
}

async fn million(events: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let options = SqliteOptions { path: folder.path().join("relay.db"), max_bytes: u64::MAX };
    let stock = Stock::new()?;
    println!("{events} events of {BODY_BYTES} bytes in {}", folder.path().display());
    println!("{:<44} {:>12}  {:>11}", "", "time", "own memory");
    timed("filling", async {
        let store = SqliteStore::open(options.clone())?;
        for first in (0..events).step_by(500) {
            let batch = (first..events.min(first + 500)).map(|nth| stock.event(nth)).collect();
            store.append(batch, Timestamp::now()).await?;
        }
        Ok(())
    })
    .await?;
    println!("the file has {} MiB", std::fs::metadata(&options.path)?.len() / (1024 * 1024));
    let store = timed("opening", async { Ok(SqliteStore::open(options.clone())?) }).await?;
    let page = |oldest_first| PageRequest { limit: 50, after: None, oldest_first };
    for (what, filter, oldest_first, least) in [
        ("the newest 50", Filter::default(), false, 1),
        ("the oldest 50", Filter::default(), true, 1),
        ("50 that wait", Filter { states: vec![State::Pending], ..Filter::default() }, false, 1),
        ("dead letters (there are none)", Filter { states: vec![State::Dead], ..Filter::default() }, false, 0),
        (
            "delivered ones (none; one bounded look)",
            Filter { states: vec![State::Delivered], ..Filter::default() },
            false,
            0,
        ),
        ("by a sender's id", Filter { sender_id: stock.event(events / 2).sender_id, ..Filter::default() }, false, 1),
        ("a text in none (one bounded look)", Filter::text("nowhere"), false, 0),
    ] {
        timed(what, async {
            let found = store.list(filter, page(oldest_first)).await?;
            ensure!(found.events.len() >= least, "{what}: nothing was found");
            Ok(())
        })
        .await?;
    }
    timed("the backlog", async { Ok(store.backlog(Sight::All).await?) }).await?;
    let now = Timestamp::now();
    let until = now.saturating_add(Duration::from_secs(60))?;
    timed("claiming the oldest 100", async {
        let wants = vec![Want { endpoint: stock.endpoint.clone(), oldest: 100, newest: 0 }];
        ensure!(
            store.claim(wants, Grant { holder: Holder::draw(), until }, now).await?.deliveries.len() as u64
                == events.min(100),
            "too few"
        );
        Ok(())
    })
    .await?;
    timed("one more event", async { Ok(store.append(vec![stock.event(events)], now).await?) }).await?;
    timed("closing", async {
        drop(store);
        Ok(())
    })
    .await
}
