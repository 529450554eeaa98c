//! A relay that dies under load, again and again: what it acknowledged has to reach the handler.
//!
//! Bodies are unique, so that each can be followed. The handler counts them; senders note which of theirs got a 2xx.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Response;
use http_body_util::BodyExt as _;
use tokio::{
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

/// Kills a relay so many times, each at another moment under load, and counts what arrived. `seed` chooses the moments.
///
/// # Errors
/// If the relay does not start again by itself after a kill, or nothing was acknowledged at all.
pub async fn kills(program: &Path, cycles: u32, seed: u64) -> anyhow::Result<Tally> {
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
    let mut relay = Server::start(program, "127.0.0.1:0", ENDPOINTS, &[]).await?;
    let target = handler.port();
    let endpoint = |name: &str| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{target}\"\n");
    let _agent = relay.agent_from_file(&(endpoint("assured") + &endpoint("durable"))).await?;
    let public = relay.public.clone();
    let acknowledged: Arc<Mutex<HashSet<String>>> = Arc::default();
    let next = Arc::new(AtomicU64::new(0));
    let mut random = seed;
    for _ in 0..cycles {
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
            return Ok(tally);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
