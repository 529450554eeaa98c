//! A relay that dies under load, again and again: what it acknowledged has to reach the handler.
//!
//! It is killed; or the power is cut, which also takes what was written and not synced: a library that stands before
//! the system's notes down every write and sync of the store, and afterwards the writes that no sync covered are undone.
//!
//! Bodies are unique, so that each can be followed. The handler counts them; senders note which of theirs got a 2xx.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Response;
use http_body_util::BodyExt as _;
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, sleep},
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

/// How long what was acknowledged may take to arrive, once the relay is left alone.
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
    /// Of these, how many the handler saw.
    pub delivered: usize,
    /// Of these, how many it saw more than once.
    pub again: usize,
}

impl Tally {
    /// Acknowledged, and never seen.
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
        if !source.is_file() {
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

    /// Undoes what was not synced: all of it, a part, or sectors of it, in turn.
    async fn cut(&self, cycle: u32) -> anyhow::Result<()> {
        let writes = self.folder.path().join("writes");
        let mode = ["all", "random", "torn"][cycle as usize % 3];
        let mut cut = Command::new("python3");
        cut.arg(self.tools.join("cut.py")).arg(&writes).args(["--mode", mode, "--seed", &cycle.to_string()]);
        let output = cut.output().await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(std::fs::remove_file(writes)?)
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
    let post = |body: &'static str| send(&public, request("POST", "/durable", &[], body));
    anyhow::ensure!(post("before").await?.status().is_success(), "a sound store takes it");
    power.fail_syncs(true)?;
    let answer = post("while it fails").await;
    anyhow::ensure!(!answer.is_ok_and(|answer| answer.status().is_success()), "it acknowledged what it had not kept");
    anyhow::ensure!(!relay.ended().await?, "it ended as if all were well");
    power.fail_syncs(false)?;
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
    let seen: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        Handler::start(move |request| {
            let seen = Arc::clone(&seen);
            async move {
                if let Ok(body) = request.into_body().collect().await {
                    *lock(&seen).entry(String::from_utf8_lossy(&body.to_bytes()).into_owned()).or_default() += 1;
                }
                Response::new(full("done"))
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
    let acknowledged: Arc<Mutex<HashSet<String>>> = Arc::default();
    let next = Arc::new(AtomicU64::new(0));
    let mut random = seed;
    for cycle in 0..cycles {
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let (public, stop) = (public.clone(), Arc::clone(&stop));
            let (acknowledged, next) = (Arc::clone(&acknowledged), Arc::clone(&next));
            senders.spawn(async move {
                let path = if sender % 2 == 0 { "/assured" } else { "/durable" };
                while !stop.load(Ordering::Relaxed) {
                    let body = format!("webhook {}", next.fetch_add(1, Ordering::Relaxed));
                    match send(&public, request("POST", path, &[], body.clone())).await {
                        Ok(response) if response.status().is_success() => drop(lock(&acknowledged).insert(body)),
                        Ok(_) => {}
                        Err(_) => return, // The relay is dead.
                    }
                }
            });
        }
        // splitmix64: the moments are told by the seed.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        sleep(LOAD + Duration::from_millis((mixed ^ (mixed >> 27)) % MORE_MS)).await;
        relay.signal("-KILL").await?;
        stop.store(true, Ordering::Relaxed);
        relay.ended().await?;
        while senders.join_next().await.is_some() {}
        if let Some(power) = power {
            power.cut(cycle).await?;
        }
        relay.start_again(&public).await?;
    }
    let acknowledged = std::mem::take(&mut *lock(&acknowledged));
    anyhow::ensure!(!acknowledged.is_empty(), "nothing was acknowledged, so nothing is shown");
    let end = Instant::now() + PATIENCE;
    loop {
        let tally = {
            let seen = lock(&seen);
            let calls = acknowledged.iter().filter_map(|body| seen.get(body));
            let again = calls.clone().filter(|calls| **calls > 1).count();
            Tally { acknowledged: acknowledged.len(), delivered: calls.count(), again }
        };
        if tally.lost() == 0 || Instant::now() > end {
            drop(relay);
            return Ok(tally);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
