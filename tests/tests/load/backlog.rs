//! An endpoint beside another one whose handler fails and that has thousands of events in retry: all that is sent to it
//! is answered by its own handler, and nothing of it waits behind what fails. By order and count, not by time.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use relay_tests::{
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server, label_of_open},
    sender::{request, send},
    stock::{Past, fill},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const ENDPOINTS: &str = "[[endpoint]]\nname = \"good\"\nmode = \"assured\"\nverify = \"none\"\n\
    [[endpoint]]\nname = \"bad\"\nmode = \"assured\"\nverify = \"none\"\nattempt_timeout = \"60s\"\n\
    retry = { first = \"1s\", factor = 1, attempts = 1000 }\n";

/// Events of `bad` in retry.
const FAILING: u64 = 2000;

/// More rounds than [`SENT`] events take in a window that begins with 4 and doubles: 4, 8, 16, 32, then 64 at a time.
const ROUNDS: u64 = 7;

/// The largest window: how many calls of an endpoint's backlog run at a time.
const WINDOW: u64 = 64;

/// Webhooks for `good`, and how many are under way at a time.
const SENT: usize = 200;
const SENDERS: usize = 8;

/// What the handler of `bad` does with a call.
#[derive(Clone, Copy)]
enum Bad {
    Fails,
    /// It fails three times in four: the circuit stays closed.
    FailsOften,
    Hangs,
}

struct Setup {
    relay: Server,
    _agent: Agent,
    bad_calls: Arc<AtomicU64>,
    /// Bodies that the handler of `good` took.
    good: mpsc::UnboundedReceiver<String>,
    _handlers: [Handler; 2],
    _folder: tempfile::TempDir,
}

/// A relay with the failing events, and `good_before` events of `good` that are newer than these.
async fn setup(bad: Bad, good_before: u64) -> Setup {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("relay.db");
    fill(&store, "bad", FAILING, 500, Past::Failed).await.expect("filled");
    fill(&store, "good", good_before, 500, Past::New).await.expect("filled");
    let config = format!("[store]\nurl = \"sqlite:{}\"\n{ENDPOINTS}", store.display());
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("a relay");
    let (tell, good) = mpsc::unbounded_channel();
    let good_handler = Handler::start(move |request| {
        let tell = tell.clone();
        async move {
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            tell.send(body.clone()).expect("a listener");
            Response::builder().status(201).body(full(format!("answer to {body}"))).expect("lawful")
        }
    });
    let bad_calls = Arc::new(AtomicU64::new(0));
    let calls = Arc::clone(&bad_calls);
    let bad_handler = Handler::start(move |_| {
        let nth = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            let status = match bad {
                Bad::Hangs => std::future::pending().await,
                Bad::FailsOften if nth % 4 == 3 => 200,
                Bad::Fails | Bad::FailsOften => 500,
            };
            Response::builder().status(status).body(full("bad")).expect("lawful")
        }
    });
    let handlers = [good_handler.await.expect("a handler"), bad_handler.await.expect("a handler")];
    let table = |name: &str, port: &str| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{port}\"\n");
    let tables = table("good", &handlers[0].port()) + &table("bad", &handlers[1].port());
    let agent = relay.agent_from_file(&tables).await.expect("attaches");
    Setup { relay, _agent: agent, bad_calls, good, _handlers: handlers, _folder: folder }
}

impl Setup {
    /// Sends to `good`: each gets the answer of its own handler, and not the ack that one gets who waited too long.
    async fn send_all(&self) {
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let public = self.relay.public.clone();
            senders.spawn(async move {
                for number in (sender..SENT).step_by(SENDERS) {
                    let body = number.to_string();
                    let answer = send(&public, request("POST", "/good", &[], body.clone())).await.expect("an answer");
                    assert_eq!(answer.status(), StatusCode::CREATED, "webhook {number}");
                    assert_eq!(answer.body(), &format!("answer to {body}"));
                }
            });
        }
        while let Some(sender) = senders.join_next().await {
            sender.expect("all were answered");
        }
    }

    /// A metric's value; 0 where nothing was counted yet.
    async fn metric(&self, name: &str) -> u64 {
        let answer = send(&self.relay.admin, request("GET", "/metrics", &[], "")).await.expect("answers");
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    async fn waits_until(&self, what: &str, name: &str, holds: impl Fn(u64) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.metric(name).await;
            if holds(now) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {name} stayed {now}");
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn first_call_of_bad(&self) {
        let end = Instant::now() + PATIENCE;
        while self.bad_calls.load(Ordering::Relaxed) == 0 {
            assert!(Instant::now() < end, "the failing events are not tried");
            sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// How many events of an endpoint wait, as a metric.
fn waiting(endpoint: &str) -> String {
    format!("relay_events_waiting{{endpoint=\"{}\"}}", label_of_open(endpoint))
}

/// How many attempts of an endpoint ended so, as a metric.
fn ended(endpoint: &str, outcome: &str) -> String {
    format!("relay_events_total{{endpoint=\"{}\",outcome=\"{outcome}\"}}", label_of_open(endpoint))
}

async fn none_waits(bad: Bad) -> Setup {
    let setup = setup(bad, 0).await;
    setup.first_call_of_bad().await;
    setup.send_all().await;
    assert!(setup.metric(&waiting("bad")).await > 0, "the failing events were worked off before: nothing was shown");
    setup.waits_until("nothing is left", &waiting("good"), |now| now == 0).await;
    setup
}

#[tokio::test]
async fn beside_a_target_that_fails_each_webhook_gets_its_handlers_answer_and_nothing_is_overdue() {
    let setup = none_waits(Bad::Fails).await;
    assert_eq!(setup.metric(&waiting("bad")).await, FAILING, "none of them ended");
    setup.waits_until("a target that is left alone is not overdue", "relay_events_overdue", |now| now == 0).await;
}

#[tokio::test]
async fn beside_a_target_whose_circuit_stays_closed_each_webhook_gets_its_handlers_answer() {
    let setup = none_waits(Bad::FailsOften).await;
    assert!(setup.bad_calls.load(Ordering::Relaxed) > 10, "attempts went on");
}

#[tokio::test]
async fn beside_a_target_that_never_answers_each_webhook_gets_its_handlers_answer() {
    none_waits(Bad::Hangs).await;
}

#[tokio::test]
async fn a_backlog_of_one_endpoint_is_delivered_before_an_older_one_that_fails_is_worked_off() {
    let mut setup = setup(Bad::FailsOften, SENT as u64).await;
    for _ in 0..SENT {
        timeout(PATIENCE, setup.good.recv()).await.expect("a call").expect("a handler");
    }
    let calls = setup.bad_calls.load(Ordering::Relaxed);
    assert!(calls < 4 * ROUNDS * WINDOW, "{calls} attempts of what fails: above four of its rounds for each");
    setup.waits_until("nothing is left", &waiting("good"), |now| now == 0).await;
    assert!(setup.good.try_recv().is_err(), "each was delivered once");
    setup.waits_until("each counts", &ended("good", "delivered"), |now| now == SENT as u64).await;
    let in_vain = setup.metric(&ended("good", "not_called")).await;
    assert_eq!(in_vain, 0, "events were claimed for which their agent had no place, and rested");
}
