//! Attempts that meet a store which is away or slow, under paused time.

use relay_proto::HeaderBlock;
use tokio::time::{Instant, sleep};

use super::{
    attempt::Event,
    audience::{COMMIT_PATIENCE, Recorder, WaitingSender},
    settle::{AttemptEnd, MAX_UNSETTLED_KIB, Note, Ruling, SETTLE_PAUSES},
    *,
};
use crate::{
    agents::AgentSettings,
    endpoint::{Ack, Identity, Resign},
    failure::RelayFault,
    hops::Hops,
    journal::Journal,
    metrics::Metrics,
    retry::{CircuitRule, Schedule, StatusRule},
    store::{
        Attempt, Body, End, Grant, Head, Lease, MemoryStore, NewEvent, Outcome, Reason, State, Then, UnsteadyStore,
        Verdict,
    },
};

fn endpoint() -> Arc<Endpoint> {
    let policy = DeliveryPolicy {
        assured: true,
        ack: Ack::default(),
        max_bytes: u64::MAX,
        methods: vec![http::Method::POST],
        attempt_timeout: Duration::from_secs(30),
        agent_grace: Duration::from_secs(5),
        pass_failures: false,
        dedup_window: None,
        identity: Identity::Provider,
        sender_retries: true,
        late: None,
        schedule: Schedule::default(),
        statuses: StatusRule::default(),
        circuit: CircuitRule::default(),
        order: Order::None,
        resign: Resign::Never,
    };
    Arc::new(Endpoint { policy: Some(policy), ..Endpoint::sample() })
}

/// The longest lease of an attempt at that endpoint.
const LEASE: Duration = Duration::from_secs(50);

/// A store that can be away, and a delivery with it.
fn delivery() -> (Arc<UnsteadyStore>, Arc<Delivery>) {
    let store = Arc::new(UnsteadyStore::new(Arc::new(MemoryStore::new(1 << 30))));
    let (kept, clock): (Arc<dyn Store>, _) = (Arc::<UnsteadyStore>::clone(&store), Clock::default());
    let settings = AgentSettings { max_sessions: 1, max_in_flight: 1, drain_timeout: Duration::ZERO, canaries: false };
    let (agents, _strays) = Agents::build(settings, &kept, &crate::audit::Audit::sample(&kept), &clock);
    let delivery = Delivery::build(kept, clock, &agents, Metrics::default().events(), Journal::build(1 << 20), None);
    delivery.set_endpoints(&[endpoint()], &Tokens::default());
    (store, delivery)
}

/// Keeps an event and claims it; the end of its attempt, with an answer of so many bytes.
async fn attempted(delivery: &Delivery, answer_bytes: usize) -> End {
    let (id, now) = (EventId::new(), delivery.clock.now());
    let endpoint = endpoint().name.clone();
    let event = NewEvent {
        endpoint: endpoint.clone(),
        id,
        received_at: now,
        head: Head::sample("/"),
        body: Body::Bytes("body".into()),
        event_type: None,
        sender_id: None,
        dedup: None,
        mark: None,
        order_key: None,
        replay_of: None,
        lease: Some(Grant { holder: delivery.holder, until: now.saturating_add(LEASE).expect("in range") }),
    };
    let verdict = delivery.store.append(vec![event], now).await.expect("kept").remove(0);
    let Verdict::Accepted { lease: Some(lease), .. } = verdict else { panic!("{verdict:?}") };
    let body = vec![b'x'; answer_bytes].into();
    let attempt = Attempt {
        number: lease.attempt,
        fence: lease.fence,
        started_at: now,
        duration: Duration::ZERO,
        outcome: Outcome::Answered,
        agent: None,
        answer: Some(store::Answer { status: 200, headers: HeaderBlock::new(), body, truncated: false }),
        resigned: false,
        sha256_in: None,
        hops: Hops::default(),
    };
    End { endpoint, id, attempt, then: Then::Done }
}

fn settle(delivery: &Arc<Delivery>, end: &End) -> tokio::task::JoinHandle<()> {
    let (delivery, end) = (Arc::clone(delivery), end.clone());
    tokio::spawn(async move { delivery.settle(end, None).await })
}

async fn state(delivery: &Delivery, end: &End) -> State {
    let record = delivery.store.event(Sight::All, end.id, delivery.clock.now()).await;
    record.expect("read").expect("there").summary.state
}

#[tokio::test(start_paused = true)]
async fn a_settle_waits_for_a_store_that_is_away() {
    let (store, delivery) = delivery();
    let end = attempted(&delivery, 10).await;
    store.leave(delivery.clock.now());
    let settled = settle(&delivery, &end);
    sleep(LEASE / 2).await;
    assert!(!settled.is_finished());
    store.come_back();
    settled.await.expect("ends");
    assert_eq!(state(&delivery, &end).await, State::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_settle_whose_answer_was_lost_is_heard_the_second_time() {
    let (store, delivery) = delivery();
    let end = attempted(&delivery, 10).await;
    store.lose_answers(1);
    delivery.settle(end.clone(), None).await;
    assert_eq!(state(&delivery, &end).await, State::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_settle_waits_no_longer_than_its_lease() {
    let (store, delivery) = delivery();
    let end = attempted(&delivery, 10).await;
    store.leave(delivery.clock.now());
    let began = Instant::now();
    delivery.settle(end.clone(), None).await;
    assert!((LEASE..LEASE + 2 * SETTLE_PAUSES.1).contains(&began.elapsed()), "{:?}", began.elapsed());
    store.come_back();
    let now = delivery.clock.now();
    let wants = vec![store::Want { endpoint: end.endpoint, oldest: 1, newest: 0 }];
    let grant = Grant { holder: delivery.holder, until: now };
    assert_eq!(store.claim(wants, grant, now).await.expect("claimed").deliveries.len(), 1, "it comes again");
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_settled_is_bounded() {
    let (store, delivery) = delivery();
    let end = attempted(&delivery, store::MAX_ANSWER_BYTES).await;
    store.leave(delivery.clock.now());
    let most = MAX_UNSETTLED_KIB / (store::MAX_ANSWER_BYTES / 1024 + 1);
    let waiting: Vec<_> = (0..most + 3).map(|_| settle(&delivery, &end)).collect();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(waiting.iter().filter(|settled| settled.is_finished()).count(), 3);
    store.come_back();
    for settled in waiting {
        settled.await.expect("ends");
    }
    assert_eq!(state(&delivery, &end).await, State::Delivered);
}

#[test]
fn a_sender_is_told_to_come_again_while_the_store_is_away() {
    assert_eq!(Failure::from(&StoreError::Unavailable), RelayFault::StoreFailed.into());
}

/// How long a sender waits before it has its ack.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the handler answers while a sender waits.
fn answered(status: u16) -> AttemptEnd {
    Ok(store::Answer { status, headers: HeaderBlock::new(), body: "said".into(), truncated: false })
}

/// An event under its first attempt.
struct FirstAttempt {
    delivery: Arc<Delivery>,
    event: Event,
    waiting: WaitingSender,
}

/// What somebody gets, in words.
type Reply = tokio::task::JoinHandle<String>;

impl FirstAttempt {
    /// Begins one; its sender, and a repeat of it, wait until [`DEADLINE`].
    async fn begin(delivery: &Arc<Delivery>) -> (Self, Reply, Reply) {
        let end = attempted(delivery, 0).await;
        let record =
            delivery.store.event(Sight::All, end.id, delivery.clock.now()).await.expect("read").expect("there");
        let lease = Lease { fence: end.attempt.fence, attempt: 1, tries: 1 };
        let event = Event::of(&endpoint(), record.summary, record.head, None, lease).expect("kept");
        let (waiting, awaited) = delivery.wait(event.id);
        let deadline = Instant::now() + DEADLINE;
        let sender = tokio::spawn(async move { word(&awaited.until(deadline).await) });
        let repeat = repeat(delivery, event.id);
        tokio::task::yield_now().await;
        (Self { delivery: Arc::clone(delivery), event, waiting }, sender, repeat)
    }

    /// The attempt ends; where its event stands then.
    async fn end(self, end: AttemptEnd) -> (State, Option<Reason>) {
        let Self { delivery, event, waiting } = self;
        let now = delivery.clock.now();
        let note = Note::begin(&delivery, None);
        let (_, ruling) = Ruling::on(&end, Recorder::new(&event, Some(waiting)), now);
        delivery.settle_attempt(&event, note, end, ruling).await;
        delivery.running.lock().remove(&event.id);
        let summary = delivery.store.event(Sight::All, event.id, now).await.expect("read").expect("there").summary;
        (summary.state, summary.reason)
    }
}

/// A repeat of an event that the store has found to be running a moment ago.
fn repeat(delivery: &Arc<Delivery>, of: EventId) -> Reply {
    let (delivery, deadline) = (Arc::clone(delivery), Instant::now() + DEADLINE);
    tokio::spawn(async move { word(&delivery.repeated(of, State::Running, None, &endpoint(), deadline).await) })
}

fn word(reply: &SenderReply) -> String {
    match reply {
        SenderReply::Ack => "ack".to_owned(),
        SenderReply::Answer(answer) => format!("{} {}", answer.status.as_u16(), String::from_utf8_lossy(&answer.body)),
        SenderReply::Failure(failure) => failure.code().to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_is_bound_gets_the_answer_once_it_is_kept() {
    let (store, delivery) = delivery();
    let (attempt, sender, repeat) = FirstAttempt::begin(&delivery).await;
    sleep(DEADLINE - Duration::from_millis(10)).await;
    let commit = store.hold();
    let ended = tokio::spawn(attempt.end(answered(422)));
    sleep(COMMIT_PATIENCE / 2).await;
    assert!(!sender.is_finished() && !repeat.is_finished(), "it is not kept yet");
    drop(commit);
    assert_eq!((&*sender.await.expect("ends"), &*repeat.await.expect("ends")), ("422 said", "422 said"));
    assert_eq!(ended.await.expect("ends"), (State::Dead, Some(Reason::HandlerRejected)));
}

#[tokio::test(start_paused = true)]
async fn a_bound_sender_never_gets_the_ack_however_long_the_store_takes() {
    let (store, delivery) = delivery();
    let (attempt, sender, repeat) = FirstAttempt::begin(&delivery).await;
    sleep(DEADLINE - Duration::from_millis(10)).await;
    let (commit, bound) = (store.hold(), Instant::now());
    let ended = tokio::spawn(attempt.end(answered(422)));
    assert_eq!(sender.await.expect("ends"), "store_failed");
    assert!(bound.elapsed() <= COMMIT_PATIENCE + Duration::from_millis(10), "soon after its deadline");
    assert_eq!(repeat.await.expect("ends"), "store_failed");
    drop(commit);
    // Whoever got the failure comes again, and makes a new attempt of it.
    assert_eq!(ended.await.expect("ends"), (State::Dead, Some(Reason::HandlerRejected)));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_sender_has_its_ack_goes_on_after_a_rejection() {
    let (_, delivery) = delivery();
    let (attempt, sender, repeat) = FirstAttempt::begin(&delivery).await;
    assert_eq!((&*sender.await.expect("ends"), &*repeat.await.expect("ends")), ("ack", "ack"));
    assert_eq!(attempt.end(answered(422)).await, (State::Pending, None));
}

#[tokio::test(start_paused = true)]
async fn a_success_waits_for_no_commit() {
    let (store, delivery) = delivery();
    let (attempt, sender, repeat) = FirstAttempt::begin(&delivery).await;
    let commit = store.hold();
    let ended = tokio::spawn(attempt.end(answered(200)));
    assert_eq!((&*sender.await.expect("ends"), &*repeat.await.expect("ends")), ("200 said", "200 said"));
    drop(commit);
    assert_eq!(ended.await.expect("ends"), (State::Delivered, None));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_comes_as_the_attempt_has_just_ended_gets_its_answer() {
    let (_, delivery) = delivery();
    for (status, word) in [(200, "200 said"), (422, "422 said"), (500, "ack")] {
        let (attempt, ..) = FirstAttempt::begin(&delivery).await;
        let id = attempt.event.id;
        attempt.end(answered(status)).await;
        assert_eq!(repeat(&delivery, id).await.expect("ends"), word);
    }
}
