//! Many at once: exchanges on one session, and agents on one relay. What it costs is for `cargo bench-relay`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Response, StatusCode};
use relay_tests::{
    agents::Crowd,
    handler::{Handler, full},
    process::{Server, allow_open_files},
    sender::{request, send},
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
const PATIENCE: Duration = Duration::from_secs(60);

async fn relay() -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", OPEN, &[]).await.expect("a relay")
}

#[tokio::test]
async fn a_thousand_exchanges_are_under_way_on_one_session() {
    const EXCHANGES: u32 = 1000;
    if !allow_open_files(8192).await {
        return println!("skipped: this machine allows too few open files");
    }
    let (there, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let (count, wait) = (Arc::clone(&there), Arc::clone(&gate));
    let handler = Handler::start(move |_| {
        let (count, wait) = (Arc::clone(&count), Arc::clone(&wait));
        async move {
            if count.fetch_add(1, Ordering::SeqCst) + 1 == EXCHANGES {
                wait.close(); // The last one opens the gate for all.
            }
            let _ = wait.acquire().await;
            Response::new(full("through"))
        }
    })
    .await
    .expect("a handler");
    let relay = relay().await;
    let _agent = relay.agent("open", &handler.port(), &["--max-connections", "1000"]).await.expect("an agent");
    let mut senders = JoinSet::new();
    for _ in 0..EXCHANGES {
        let public = relay.public.clone();
        senders.spawn(
            async move { send(&public, request("POST", "/open", &[], "x")).await.map(|answer| answer.status()) },
        );
    }
    let answers = timeout(PATIENCE, senders.join_all()).await.expect("in time");
    let bad: Vec<_> = answers.into_iter().filter(|answer| !matches!(answer, Ok(StatusCode::OK))).collect();
    assert!(bad.is_empty(), "{} of {EXCHANGES} failed, such as {:?}", bad.len(), bad.first());
    assert_eq!(there.load(Ordering::SeqCst), EXCHANGES);
}

#[tokio::test]
async fn five_hundred_agents_attach_and_each_leaves_nothing_behind() {
    const AGENTS: u32 = 500;
    if !allow_open_files(8192).await {
        return println!("skipped: this machine allows too few open files");
    }
    let relay = relay().await;
    let before = relay.open_files().expect("told");
    let crowd = Crowd::connect(&relay.public, &relay.token, "open", AGENTS, None).await.expect("all attach");
    assert_eq!(crowd.len(), AGENTS as usize);
    assert!(relay.open_files().expect("told") >= before + AGENTS as usize);
    drop(crowd);
    let gone = async {
        while relay.open_files().expect("told") > before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the relay closes what they left");
}

#[tokio::test]
async fn beyond_a_sessions_limit_the_answer_is_503_and_other_agents_are_not_concerned() {
    let limited = format!("[limits]\nmax_in_flight_per_agent = 8\n{OPEN}{}", OPEN.replace("\"open\"", "\"other\""));
    let relay =
        Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", &limited, &[]).await.expect("a relay");
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let full_up = Handler::start(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            let _ = wait.acquire().await;
            Response::new(full("through"))
        }
    })
    .await
    .expect("a handler");
    let free = Handler::echo().await.expect("a handler");
    let _busy = relay.agent("open", &full_up.port(), &[]).await.expect("an agent");
    let _idle = relay.agent("other", &free.port(), &[]).await.expect("an agent");
    let mut senders = JoinSet::new();
    for _ in 0..12 {
        let public = relay.public.clone();
        senders.spawn(async move { send(&public, request("GET", "/open", &[], "")).await.expect("answers") });
    }
    for _ in 0..4 {
        let refused = timeout(PATIENCE, senders.join_next()).await.expect("at once").expect("one").expect("runs");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["relay-error"], "too_many_in_flight");
        assert!(refused.headers().contains_key("retry-after"));
    }
    let other = send(&relay.public, request("GET", "/other", &[], "")).await.expect("answers");
    assert_eq!(other.status(), StatusCode::OK);
    gate.close();
    for through in timeout(PATIENCE, senders.join_all()).await.expect("in time") {
        assert_eq!(through.status(), StatusCode::OK);
    }
}
