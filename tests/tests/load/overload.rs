//! Five times as many webhooks as can be served: what is beyond is told to come again, what is served is what the
//! handler takes, and nobody else is concerned. Counts are held here; `cargo bench-relay overload` prints times.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::{Response, StatusCode};
use relay_tests::{
    handler::{Handler, full},
    overload::{Flood, Make, flood, probe},
    process::{Agent, PATIENCE, Server},
    sender::{request, send, signed},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

const SECRET: &str = "a secret";

fn endpoints(mode: &str) -> String {
    ["flooded", "calm"]
        .map(|name| {
            format!(
                "[[endpoint]]\nname = \"{name}\"\nmode = \"{mode}\"\nverify = {{ provider = \"github\", secrets = [\"env:HOOK\"] }}\n"
            )
        })
        .concat()
}

async fn relay(config: &str) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, "127.0.0.1:0", config, &[("HOOK", SECRET)]).await.expect("a relay")
}

/// Webhooks of this endpoint, each with an id of its own.
fn webhooks(endpoint: &'static str) -> Make {
    let proof = signed("github", SECRET, b"{}").expect("signs");
    let proof = proof.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256")).expect("a proof");
    Arc::new(move |number| {
        let id = format!("{number:032x}");
        let lines = [("x-github-event", "push"), ("x-github-delivery", id.as_str()), (&proof.0, &proof.1)];
        request("POST", &format!("/{endpoint}"), &lines, "{}")
    })
}

/// A handler that takes so long for each call, and the most calls that it had at a time.
async fn slow(takes: Duration) -> (Handler, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (most, calls, now) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (told, counted) = (Arc::clone(&most), Arc::clone(&calls));
    let handler = Handler::start(move |_| {
        let (most, calls, now) = (Arc::clone(&told), Arc::clone(&counted), Arc::clone(&now));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(takes).await; // It is at work.
            now.fetch_sub(1, Ordering::SeqCst);
            calls.fetch_add(1, Ordering::SeqCst);
            Response::new(full("through"))
        }
    });
    (handler.await.expect("a handler"), most, calls)
}

async fn agent(relay: &Server, endpoint: &str, handler: &Handler, capacity: &str) -> Agent {
    relay
        .agent(endpoint, &handler.port(), &["--name", endpoint, "--max-connections", capacity])
        .await
        .expect("attaches")
}

#[tokio::test]
async fn five_times_what_a_live_endpoint_takes_is_served_to_its_capacity_and_the_rest_shed() {
    const CAPACITY: usize = 8;
    let relay = relay(&endpoints("live")).await;
    let (busy, most, calls) = slow(Duration::from_millis(40)).await;
    let (quick, ..) = slow(Duration::ZERO).await;
    let (_flooded, _calm) = (agent(&relay, "flooded", &busy, "8").await, agent(&relay, "calm", &quick, "50").await);
    let before = relay.load().await.expect("told");
    // 200 a second are served.
    let five_times = Flood { rate: 1000.0, lasts: Duration::from_secs(2), connections: 48 };
    let beside = Flood { rate: 50.0, lasts: Duration::from_secs(2), connections: 4 };
    let (many, few) = (webhooks("flooded"), webhooks("calm"));
    let both = async { tokio::join!(flood(&relay.public, five_times, &many), flood(&relay.public, beside, &few)) };
    let ((flooded, calm), probed) = probe(&relay, both).await;
    assert!(flooded.others.is_empty(), "{:?}", flooded.others.first());
    assert!(!flooded.shed.is_empty(), "nothing was beyond the capacity: {} served", flooded.served.len());
    assert_eq!(flooded.served.len(), calls.load(Ordering::SeqCst), "what was shed reached no handler");
    assert_eq!(most.load(Ordering::SeqCst), CAPACITY, "all of the capacity is used, and no more");
    assert!(calm.others.is_empty() && calm.shed.is_empty() && !calm.served.is_empty(), "{calm:?}");
    assert!(probed.failed.is_empty() && !probed.times.is_empty(), "{:?}", probed.failed);
    println!(
        "{} served, {} shed in {:?} at most; health and metrics in {:?} at most",
        flooded.served.len(),
        flooded.shed.len(),
        flooded.shed.last(),
        probed.times.last()
    );
    // All is as before: as many as are taken at a time are served, and nobody lost a session.
    let next = (0..CAPACITY as u64).map(|number| send(&relay.public, many(1_000_000 + number)));
    for answer in join_all(next).await {
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    }
    assert_eq!(relay.load().await.expect("told").sessions, before.sessions);
    drop((flooded, calm));
    relay.settles(&before).await.expect("nothing is left of it");
}

#[tokio::test]
async fn what_a_kept_endpoint_cannot_deliver_at_once_is_kept_and_nothing_is_shed() {
    let relay = relay(&endpoints("durable")).await;
    // Eighty a second are delivered.
    let (busy, _, calls) = slow(Duration::from_millis(50)).await;
    let _flooded = agent(&relay, "flooded", &busy, "4").await;
    let five_times = Flood { rate: 400.0, lasts: Duration::from_secs(1), connections: 32 };
    let taken = flood(&relay.public, five_times, &webhooks("flooded")).await;
    assert_eq!((taken.shed.len(), taken.others.first()), (0, None));
    assert!(taken.served.len() > 80, "{} were acknowledged", taken.served.len());
    let delivered = async {
        while calls.load(Ordering::SeqCst) < taken.served.len() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, delivered).await.expect("what was acknowledged is delivered");
}

#[tokio::test]
async fn one_endpoints_flood_leaves_its_agents_other_endpoint_a_share_of_their_session() {
    const STREAMS: usize = 8;
    let relay = relay(&format!("[limits]\nmax_in_flight_per_agent = {STREAMS}\n{}", endpoints("live"))).await;
    let (gate, (tell, mut calls)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
    let open = Arc::clone(&gate);
    let handler = Handler::start(move |_| {
        let (open, tell) = (Arc::clone(&open), tell.clone());
        async move {
            let _ = tell.send(());
            open.acquire().await.expect("never closed").forget();
            Response::new(full("through"))
        }
    })
    .await
    .expect("a handler");
    let table = |name: &str| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{}\"\n", handler.port());
    let _agent = relay.agent_from_file(&(table("flooded") + &table("calm"))).await.expect("attaches");
    let mut held = JoinSet::new();
    let mut post = |endpoint, number| {
        let (address, webhook) = (relay.public.clone(), webhooks(endpoint)(number));
        held.spawn(async move { send(&address, webhook).await.expect("an answer") });
    };
    (0..5 * STREAMS as u64).for_each(|number| post("flooded", number));
    for _ in 0..STREAMS / 2 {
        timeout(PATIENCE, calls.recv()).await.expect("it is called").expect("a call");
    }
    (0..STREAMS as u64 / 2).for_each(|number| post("calm", number));
    for _ in 0..STREAMS / 2 {
        timeout(PATIENCE, calls.recv()).await.expect("half of the session is left").expect("a call");
    }
    // What is shed is answered while the others still wait; a request that came after them would find a free place.
    for _ in 0..4 * STREAMS + STREAMS / 2 {
        let shed = timeout(PATIENCE, held.join_next()).await.expect("nothing waits for a place").expect("one is left");
        let shed = shed.expect("its task ends");
        assert_eq!(shed.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(shed.headers().contains_key("retry-after"));
    }
    gate.add_permits(STREAMS);
    let through = held.join_all().await;
    assert_eq!(through.len(), STREAMS);
    assert!(through.iter().all(|answer| answer.status() == StatusCode::OK), "{through:?}");
}
