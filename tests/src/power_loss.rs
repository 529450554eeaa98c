//! A relay that dies under load, again and again: what it acknowledged has to reach the handler.
//!
//! It is killed; or the power is cut, which also takes what was written and not synced: a library that stands before
//! the system's notes down every write and sync of the store, and afterwards the writes that no sync covered are undone.
//!
//! Bodies begin with a number of their own, so that each can be followed; some are long enough to be kept in parts. The
//! handler takes its time, fails some the first time, and counts what it took; senders note which of theirs got a 2xx.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

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

/// Length of a long body, in bytes.
const LONG: usize = 150_000;

/// How long nothing may arrive of what was acknowledged, once the relay is left alone.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// How the power is cut.
pub struct Power {
    tools: PathBuf,
    folder: tempfile::TempDir,
}

impl Power {
    /// Makes the library that notes down writes; `None` where the tools or a C compiler are missing.
    ///
    /// # Errors
    /// If the library cannot be compiled.
    pub async fn new() -> anyhow::Result<Option<Self>> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tools");
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("store"))?;
        let source = tools.join("powerloss.c");
        let python = Command::new("python3").arg("--version").output().await;
        if !source.is_file() || python.is_err() {
            return Ok(None);
        }
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(folder.path().join("powerloss.so"))
            .arg(source)
            .arg("-ldl");
        match compiler.status().await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
            Ok(status) => {
                anyhow::ensure!(status.success(), "the library does not compile");
                Ok(Some(Self { tools, folder }))
            }
        }
    }

    /// What the relay's config and its variables say.
    fn of_the_relay(&self) -> (String, Vec<(&'static str, String)>) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let vars = vec![
            ("LD_PRELOAD", path("powerloss.so")),
            ("PL_DIR", path("store")),
            ("PL_LOG", path("writes")),
            ("PL_CTL", path("faults")),
        ];
        (format!("[store]\nurl = \"sqlite:{}\"\n", self.store().display()), vars)
    }

    /// The store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store/relay.db")
    }

    /// Makes every sync fail from now on, or none.
    ///
    /// # Errors
    /// If the switch cannot be written.
    pub fn fail_syncs(&self, fail: bool) -> std::io::Result<()> {
        std::fs::write(self.folder.path().join("faults"), if fail { "eio_fsync" } else { "" })
    }

    /// Whether what the cut left is sound: looked at in a copy, since looking mends.
    fn check(&self) -> anyhow::Result<()> {
        let copy = tempfile::tempdir()?;
        for part in ["relay.db", "relay.db-wal"] {
            let from = self.folder.path().join("store").join(part);
            if from.exists() {
                std::fs::copy(from, copy.path().join(part))?;
            }
        }
        relay_server::store::check(&copy.path().join("relay.db")).context("after the cut")
    }

    /// Undoes what was not synced: all of it, a part, or sectors of it, in turn.
    async fn cut(&self, cycle: u32) -> anyhow::Result<()> {
        let writes = self.folder.path().join("writes");
        let mode = ["all", "random", "torn"][cycle as usize % 3];
        let mut cut = Command::new("python3");
        cut.arg(self.tools.join("cut.py")).arg(&writes).args(["--mode", mode, "--seed", &cycle.to_string()]);
        let output = cut.output().await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_file(writes)?;
        self.check()
    }
}

/// A relay whose syncs fail once it has acknowledged something: it must acknowledge nothing more, end with an error,
/// and have everything after a restart.
///
/// # Errors
/// What it did instead.
pub async fn failing_syncs(program: &Path, power: &Power) -> anyhow::Result<()> {
    let (store, vars) = power.of_the_relay();
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut relay = Server::start(program, "127.0.0.1:0", &(store + ENDPOINTS), &vars).await?;
    let public = relay.public.clone();
    let post = |body: &'static str| {
        let public = public.clone();
        async move { send(&public, request("POST", "/durable", &[], body)).await }
    };
    anyhow::ensure!(post("before").await?.status().is_success(), "a sound store takes it");
    relay.expect_errors("the store has failed");
    power.fail_syncs(true)?;
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
    power.fail_syncs(false)?;
    power.cut(0).await?; // What the failed sync left in the system's cache is gone, too.
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

/// Kills a relay so many times, each at another moment under load, and counts what arrived. `seed` chooses the moments.
///
/// # Errors
/// If the relay does not start again by itself after a kill, or nothing was acknowledged at all.
pub async fn kills(program: &Path, cycles: u32, seed: u64, power: Option<&Power>) -> anyhow::Result<Tally> {
    let seen: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        Handler::start(move |request| {
            let seen = Arc::clone(&seen);
            async move {
                let first = request.headers().get("relay-attempt").is_some_and(|attempt| attempt == "1");
                let body = request.into_body().collect().await;
                let name = body.ok().and_then(|body| name_of(&body.to_bytes()));
                sleep(HANDLING).await;
                match name {
                    Some(number) if first && number % 8 == 1 => answer(503),
                    Some(number) => {
                        *lock(&seen).entry(number).or_default() += 1;
                        answer(200)
                    }
                    None => answer(400), // It broke off, with the relay.
                }
            }
        })
        .await?
    };
    let (store, vars) = power.map_or_else(Default::default, Power::of_the_relay);
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut relay = Server::start(program, "127.0.0.1:0", &(store + ENDPOINTS), &vars).await?;
    let target = handler.port();
    let endpoint = |name: &str| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{target}\"\n");
    let _agent = relay.agent_from_file(&(endpoint("assured") + &endpoint("durable"))).await?;
    let public = relay.public.clone();
    let acknowledged: Arc<Mutex<HashSet<u64>>> = Arc::default();
    let next = Arc::new(AtomicU64::new(0));
    let (mut random, mut waiting) = (seed, 0);
    for cycle in 0..cycles {
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let (public, stop) = (public.clone(), Arc::clone(&stop));
            let (acknowledged, next) = (Arc::clone(&acknowledged), Arc::clone(&next));
            senders.spawn(async move {
                let path = if sender % 2 == 0 { "/assured" } else { "/durable" };
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match send(&public, request("POST", path, &[], body_of(number))).await {
                        Ok(response) if response.status().is_success() => drop(lock(&acknowledged).insert(number)),
                        Ok(_) => {}
                        Err(_) => return, // The relay is dead.
                    }
                }
            });
        }
        // splitmix64: the moments follow from the seed.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        sleep(LOAD + Duration::from_millis((mixed ^ (mixed >> 27)) % MORE_MS)).await;
        relay.signal("-KILL").await?;
        stop.store(true, Ordering::Relaxed);
        relay.ended().await?;
        while senders.join_next().await.is_some() {}
        waiting += lock(&acknowledged).difference(&lock(&seen).keys().copied().collect()).count();
        if let Some(power) = power {
            power.cut(cycle).await?;
        }
        relay.start_again(&public).await?;
    }
    let acknowledged = std::mem::take(&mut *lock(&acknowledged));
    anyhow::ensure!(!acknowledged.is_empty(), "nothing was acknowledged, so nothing is shown");
    let (mut end, mut delivered) = (Instant::now() + PATIENCE, 0);
    loop {
        let tally = {
            let seen = lock(&seen);
            let calls = acknowledged.iter().filter_map(|number| seen.get(number));
            let again = calls.clone().filter(|calls| **calls > 1).count();
            Tally { acknowledged: acknowledged.len(), delivered: calls.count(), again, waiting }
        };
        if tally.delivered > delivered {
            (end, delivered) = (Instant::now() + PATIENCE, tally.delivered);
        }
        if tally.lost() == 0 || Instant::now() > end {
            return Ok(tally);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A webhook's body: every sixteenth is long.
fn body_of(number: u64) -> Vec<u8> {
    let mut body = format!("{number}\n").into_bytes();
    if number.is_multiple_of(16) {
        body.resize(LONG, b'.');
    }
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
