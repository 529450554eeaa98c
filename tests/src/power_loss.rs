//! A relay that dies under load, again and again: what it acknowledged has to reach the handler.
//!
//! It is killed; or the power is cut, which also takes what was written and not synced, and names that came and went: a
//! library that stands before the system's notes down what happens to the store's files, and afterwards the disk is made
//! to hold what it promised, and of the rest a part.
//!
//! Bodies begin with a number of their own, so that each can be followed; some are long enough to be kept in files of their own. The
//! handler takes its time, fails some the first time, and counts what it took; senders note which of theirs got a 2xx.

mod power;
mod trace;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
pub use power::Power;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
pub use trace::Cut;

use crate::{
    handler::{Handler, full},
    process::Server,
    sender::{request, send},
};

/// Senders at a time, half of them for each endpoint.
const SENDERS: usize = 8;

/// How long one cycle's load lasts at least, and how much longer at most.
const LOAD: Duration = Duration::from_millis(60);
const MORE_MS: u64 = 300;

/// How long the handler takes, so that much is acknowledged and not delivered when the relay dies.
const HANDLING: Duration = Duration::from_millis(15);

/// How long nobody posts, so that the store tidies up.
const PAUSE: Duration = Duration::from_millis(1500);

/// How long a relay may take to come to the call at which it is to die.
const WAIT_FOR_CALL: Duration = Duration::from_secs(5);

/// Lengths of bodies, in bytes; the longest ones have files of their own.
const SHORT: usize = 2_000;
const LONG: usize = 150_000;
const LONGER: usize = 1_200_000;

const ENDPOINTS: &str = "[[endpoint]]\nname = \"assured\"\nmode = \"assured\"\nverify = \"none\"\n\
    deadline = \"1s\"\nwait_for_agent = \"0s\"\nattempt_timeout = \"5s\"\nagent_grace = \"1s\"\n\
    retry = { first = \"100ms\", factor = 1, attempts = 1000 }\n\
    [[endpoint]]\nname = \"durable\"\nmode = \"durable\"\nverify = \"none\"\nattempt_timeout = \"5s\"\n\
    agent_grace = \"1s\"\nretry = { first = \"100ms\", factor = 1, attempts = 1000 }\n";

/// What became of all webhooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that got a 2xx.
    pub acknowledged: usize,
    /// Of these, how many the handler took.
    pub delivered: usize,
    /// Of these, how many it took more than once.
    pub again: usize,
    /// Bodies that came whole to the handler, and are not what was sent.
    pub garbled: usize,
    /// Those that were acknowledged and not yet delivered at a cut, all cuts together: what a loss would be of.
    pub waiting: usize,
}

impl Tally {
    /// Acknowledged, and never taken.
    #[must_use]
    pub const fn lost(&self) -> usize {
        self.acknowledged - self.delivered
    }
}

/// How a relay is killed, again and again.
#[derive(Clone, Copy)]
pub struct Kills<'a> {
    /// How many times.
    pub cycles: u32,
    /// Chooses the moments.
    pub seed: u64,
    /// Cuts the power, too.
    pub power: Option<&'a Power>,
    /// In these ways, in turn.
    pub cuts: &'a [Cut],
    /// How long nothing may arrive of what was acknowledged, once the relay is left alone.
    pub patience: Duration,
    /// More of the power's faults, from when the relay is under load until it is dead. Where one of them kills it, that
    /// is waited for.
    pub under_load: &'a str,
}

async fn start(program: &Path, power: Option<&Power>) -> anyhow::Result<Server> {
    let vars = power.map_or_else(|| Ok(Vec::new()), Power::vars)?;
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let store = power.map(Power::config).unwrap_or_default();
    Server::start(program, "127.0.0.1:0", &(store + ENDPOINTS), &vars).await
}

/// A relay whose syncs fail once it has acknowledged something: it must acknowledge nothing more, end with an error,
/// and have everything after a restart.
///
/// # Errors
/// What it did instead.
pub async fn failing_syncs(program: &Path, power: &Power) -> anyhow::Result<()> {
    let mut relay = start(program, Some(power)).await?;
    let public = relay.public.clone();
    let post = |body: &'static str| {
        let public = public.clone();
        async move { send(&public, request("POST", "/durable", &[], body)).await }
    };
    anyhow::ensure!(post("before").await?.status().is_success(), "a sound store takes it");
    relay.expect_errors("the store has failed");
    power.faults("eio_fsync")?;
    let batch = ["one", "two", "three", "four"].map(|body| tokio::spawn(post(body)));
    for answer in batch {
        let taken = answer.await?.is_ok_and(|answer| answer.status().is_success());
        anyhow::ensure!(!taken, "it acknowledged what it had not kept");
    }
    let admin = relay.admin.clone();
    let not_ready = async {
        while send(&admin, request("GET", "/readyz", &[], "")).await.is_ok_and(|answer| answer.status().is_success()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(1), not_ready).await.context("it says that it is ready")?;
    anyhow::ensure!(!relay.ended().await?, "it ended as if all were well");
    power.faults("")?;
    power.cut(Cut::Lose, 0)?; // What the failed sync left in the system's cache is gone, too.
    relay.start_again(&public).await?;
    let (_, events) = relay.ask(&["event", "list", "--json"]).await?;
    let (_, body) = relay.ask(&["event", "body", events.lines().last().map_or("", first_id)]).await?;
    anyhow::ensure!(body == "before", "what was acknowledged is gone: {events}");
    Ok(())
}

/// The id in a line of `event list --json`.
fn first_id(line: &str) -> &str {
    line.split('"').find(|part| part.starts_with("hook_")).unwrap_or_default()
}

/// What the senders and the handler know.
#[derive(Default)]
struct Known {
    /// How often the handler took each webhook.
    seen: HashMap<u64, u32>,
    acknowledged: HashSet<u64>,
    garbled: usize,
    waiting: usize,
    next: u64,
}

impl Known {
    fn tally(&self) -> Tally {
        let calls = self.acknowledged.iter().filter_map(|number| self.seen.get(number));
        let again = calls.clone().filter(|calls| **calls > 1).count();
        let (acknowledged, delivered) = (self.acknowledged.len(), calls.count());
        Tally { acknowledged, delivered, again, garbled: self.garbled, waiting: self.waiting }
    }
}

/// A relay that stops in good order, under load until then: the files that are not what the notes make of them, so that
/// the shim has not seen all.
///
/// # Errors
/// If it does not stop, or the notes cannot be played.
pub async fn unseen(program: &Path, power: &Power) -> anyhow::Result<Vec<PathBuf>> {
    let mut relay = start(program, Some(power)).await?;
    for number in 0..40 {
        let answer = send(&relay.public, request("POST", "/durable", &[], body_of(number))).await?;
        anyhow::ensure!(answer.status().is_success(), "a sound store takes it: {}", answer.status());
    }
    relay.terminate().await?;
    anyhow::ensure!(relay.ended().await?, "it does not stop in good order");
    power.unseen()
}

/// Kills a relay again and again, each time at another moment under load, and counts what arrived.
///
/// # Errors
/// If the relay does not start again by itself after a kill, what a cut left is not sound, or nothing was acknowledged
/// at all.
pub async fn kills(program: &Path, how: Kills<'_>) -> anyhow::Result<Tally> {
    let known: Arc<Mutex<Known>> = Arc::default();
    let handler = handler(&known).await?;
    let mut relay = start(program, how.power).await?;
    let target = handler.port();
    let endpoint = |name: &str| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{target}\"\n");
    let _agent = relay.agent_from_file(&(endpoint("assured") + &endpoint("durable"))).await?;
    let public = relay.public.clone();
    let mut random = how.seed;
    for cycle in 0..how.cycles {
        let mut senders = Senders::start(&public, &known);
        // splitmix64: the moments follow from the seed.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        if let Some(power) = how.power {
            power.add_faults(how.under_load)?;
        }
        sleep(LOAD + Duration::from_millis((mixed ^ (mixed >> 27)) % MORE_MS)).await;
        if how.under_load.contains("die_at") {
            // What is given up is given up when there is nothing else to do, and used again under load.
            senders.stop().await;
            sleep(PAUSE).await;
            senders = Senders::start(&public, &known);
            let _such_a_call_never_came = timeout(WAIT_FOR_CALL, relay.ended()).await;
        }
        if relay.id().is_some() {
            relay.signal("-KILL").await?;
        }
        relay.ended().await?;
        senders.stop().await;
        {
            let mut known = lock(&known);
            known.waiting += known.acknowledged.iter().filter(|number| !known.seen.contains_key(number)).count();
        }
        if let Some(power) = how.power {
            power.add_faults("")?;
            let cut = how.cuts[cycle as usize % how.cuts.len()];
            power.cut(cut, u64::from(cycle))?;
            power.check().await.with_context(|| format!("after cut {cycle}, {cut:?}"))?;
        }
        relay.start_again(&public).await.with_context(|| format!("the start after cycle {cycle}"))?;
    }
    let (mut end, mut delivered) = (Instant::now() + how.patience, 0);
    loop {
        let tally = lock(&known).tally();
        anyhow::ensure!(tally.acknowledged > 0, "nothing was acknowledged, so nothing is shown");
        if tally.delivered > delivered {
            (end, delivered) = (Instant::now() + how.patience, tally.delivered);
        }
        if tally.lost() == 0 || Instant::now() > end {
            return Ok(tally);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Takes its time, fails some of the first attempts, and counts.
async fn handler(known: &Arc<Mutex<Known>>) -> std::io::Result<Handler> {
    let known = Arc::clone(known);
    Handler::start(move |request| {
        let known = Arc::clone(&known);
        async move {
            let first = request.headers().get("relay-attempt").is_some_and(|attempt| attempt == "1");
            let Ok(body) = request.into_body().collect().await else { return answer(400) }; // It broke off, with the relay.
            sleep(HANDLING).await;
            match name_of(&body.to_bytes()) {
                Some(number) if first && number % 8 == 1 => answer(503),
                Some(number) => {
                    *lock(&known).seen.entry(number).or_default() += 1;
                    answer(200)
                }
                None => {
                    lock(&known).garbled += 1;
                    answer(200)
                }
            }
        }
    })
    .await
}

/// Who posts.
struct Senders {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Senders {
    fn start(public: &str, known: &Arc<Mutex<Known>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for sender in 0..SENDERS {
            let path = if sender % 2 == 0 { "/assured" } else { "/durable" };
            tasks.spawn(post_until(public.to_owned(), path, Arc::clone(&stop), Arc::clone(known)));
        }
        Self { stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Posts one webhook after the other until the relay is dead, and notes which were acknowledged.
async fn post_until(public: String, path: &'static str, stop: Arc<AtomicBool>, known: Arc<Mutex<Known>>) {
    while !stop.load(Ordering::Relaxed) {
        let number = {
            let mut known = lock(&known);
            known.next += 1;
            known.next
        };
        match send(&public, request("POST", path, &[], body_of(number))).await {
            Ok(response) if response.status().is_success() => drop(lock(&known).acknowledged.insert(number)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// A webhook's body: every sixteenth is long, and of these every eighth longer.
fn body_of(number: u64) -> Vec<u8> {
    let mut body = format!("{number}\n").into_bytes();
    let length = if number.is_multiple_of(128) { LONGER } else { LONG };
    body.resize(if number.is_multiple_of(16) { length } else { SHORT }, b'.');
    body
}

/// The number of a body that is whole.
fn name_of(body: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(body.split(|byte| *byte == b'\n').next()?).ok()?.parse().ok()?;
    (body == body_of(number)).then_some(number)
}

fn answer(status: u16) -> Response<crate::handler::Body> {
    let mut response = Response::new(full("done"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
