//! More webhooks than can be served, at a constant rate whatever the answers do, and what became of each; meanwhile
//! somebody asks for health and metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    process::{PATIENCE, Server},
    sender::{Keeper, request, send},
};

/// How much comes.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Webhooks a second.
    pub rate: f64,
    /// For how long.
    pub lasts: Duration,
    /// Connections that they come on. One that waits for its answer misses its turns, and takes them when it has it.
    pub connections: u32,
}

/// What became of them. Times count from when a webhook was written.
#[derive(Clone, Debug, Default)]
pub struct Flooded {
    /// Those that were answered with 2xx, and how long each took.
    pub served: Vec<Duration>,
    /// Those that were told to come again, with `Retry-After`, and how long each took.
    pub shed: Vec<Duration>,
    /// What else was answered.
    pub others: Vec<String>,
    /// How long all of it took.
    pub took: Duration,
}

impl Flooded {
    fn add(&mut self, more: Self) {
        self.served.extend(more.served);
        self.shed.extend(more.shed);
        self.others.extend(more.others);
    }

    /// Webhooks a second that were answered with 2xx.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        self.served.len() as f64 / self.took.as_secs_f64()
    }
}

/// Makes the webhook with a number.
pub type Make = Arc<dyn Fn(u64) -> Request<Full<Bytes>> + Send + Sync>;

/// Sends so many.
pub async fn flood(address: &str, flood: Flood, make: &Make) -> Flooded {
    let (began, mut senders, mut all) = (Instant::now(), JoinSet::new(), Flooded::default());
    for first in 0..flood.connections {
        let (address, make) = (address.to_owned(), Arc::clone(make));
        senders.spawn(async move {
            let (mut sender, mut done) = (None, Flooded::default());
            for number in (u64::from(first)..).step_by(flood.connections as usize) {
                let due = Duration::from_secs_f64(number as f64 / flood.rate);
                // One that cannot keep up ends late, but it ends.
                if due >= flood.lasts || began.elapsed() > 2 * flood.lasts {
                    break;
                }
                sleep_until((began + due).into()).await;
                match timeout(PATIENCE, once(&mut sender, &address, make(number))).await {
                    Ok(Ok(one)) => done.add(one),
                    Ok(Err(error)) => done.others.push(format!("{error:#}")),
                    Err(_) => done.others.push("no answer came in time".to_owned()),
                }
                if !done.others.is_empty() {
                    sender = None;
                }
            }
            done
        });
    }
    while let Some(done) = senders.join_next().await {
        match done {
            Ok(done) => all.add(done),
            Err(error) => all.others.push(error.to_string()),
        }
    }
    all.took = began.elapsed();
    all.served.sort_unstable();
    all.shed.sort_unstable();
    all
}

async fn once(sender: &mut Option<Keeper>, address: &str, request: Request<Full<Bytes>>) -> anyhow::Result<Flooded> {
    let keeper = match sender {
        Some(keeper) => keeper,
        none => none.insert(Keeper::connect(address).await?),
    };
    let began = Instant::now();
    let answer = keeper.send(request).await?;
    let (took, status, mut done) = (began.elapsed(), answer.status(), Flooded::default());
    let says_when = answer.headers().contains_key("retry-after");
    match status {
        _ if status.is_success() => done.served.push(took),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS if says_when => done.shed.push(took),
        _ => done.others.push(format!("{status} {:?}", answer.headers().get("relay-error"))),
    }
    Ok(done)
}

/// How long health and metrics took to be answered, the longest last; and how often they were not.
#[derive(Clone, Debug, Default)]
pub struct Probed {
    /// The times.
    pub times: Vec<Duration>,
    /// Bad answers, or none.
    pub failed: Vec<String>,
}

/// Asks for health, readiness and metrics in turn, on new connections, until it is dropped or `done` is over.
pub async fn probe<T>(relay: &Server, done: impl Future<Output = T>) -> (T, Probed) {
    let mut probed = Probed::default();
    let asking = async {
        for path in ["/livez", "/readyz", "/metrics"].into_iter().cycle() {
            let began = Instant::now();
            match send(&relay.admin, request("GET", path, &[], "")).await {
                Ok(answer) if answer.status() == StatusCode::OK => probed.times.push(began.elapsed()),
                Ok(answer) => probed.failed.push(format!("{path}: {}", answer.status())),
                Err(error) => probed.failed.push(format!("{path}: {error:#}")),
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::select! {
        done = done => done,
        () = asking => unreachable!("it goes on"),
    };
    probed.times.sort_unstable();
    (done, probed)
}
