//! The registry over real tunnels on in-memory pipes, under paused time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use relay_proto::{
    Attach, CloseCode, Framing, HeaderBlock, Hello, Limits, Notice, Offer, OfferState, RequestHead, ResponseHead,
    Welcome,
};
use relay_tunnel::{Arrival, Arrivals, Broken, Exchange, Handle};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};

use super::{
    attach_policy::{AttachPolicy, Attachable},
    membership::{RECENTLY, Role},
    registry::{AgentIdentity, AgentSelector, Attached, ChooseError, Circuits, ENDPOINT_PART, MAX_WAITERS, Registry},
    token::{Pattern, Right, Shown, Token, TokenHash, Tokens},
};
use crate::{
    client_certificate::{ClientCertificate, ClientRule},
    clock::Clock,
    retry::CircuitRule,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// An agent as the registry sees it, and its own end of the tunnel.
struct Agent {
    attached: Attached,
    roles: Vec<Role>,
    contested: bool,
    finishing: Option<Handle>,
    relay: Handle,
    relay_arrivals: Arrivals,
    agent_arrivals: Arrivals,
    agent: Handle,
    closed: JoinHandle<relay_proto::Close>,
    /// Drives the agent's end; without it the agent is silent.
    lives: JoinHandle<relay_proto::Close>,
}

fn offer(attach: Attach, capacity: u32) -> Offer {
    Offer { endpoint: "e".into(), attach, capacity, ..Offer::default() }
}

fn secret() -> TokenHash {
    TokenHash::of(b"the token itself")
}

/// The one token, with these rights and secrets.
fn token(rights: &[Right], hashes: Vec<TokenHash>) -> Token {
    Token {
        name: "token".into(),
        hashes,
        endpoints: vec![Pattern::new("*")],
        rights: rights.to_vec(),
        max_sessions: 100,
        client: None,
        id: "tok_0".into(),
        quotas: Default::default(),
    }
}

/// A config with these endpoints.
fn config(token: Token, endpoints: &[&str]) -> AttachPolicy {
    let attachable = |name: &&str| Attachable {
        name: (*name).to_owned(),
        url: String::new(),
        provider: "none".to_owned(),
        exclusive: false,
        shows_credential: false,
        credential_headers: vec!["x-credential".to_owned()],
    };
    AttachPolicy::new(Tokens::new(vec![token]), endpoints.iter().map(attachable).collect())
}

/// A config in which the one token may attach to and read everything.
fn open_to_all() -> AttachPolicy {
    config(token(&Right::DEFAULT, vec![secret()]), &["e", "other"])
}

/// A registry that goes by it.
fn registry() -> Arc<Registry> {
    let registry = Arc::new(Registry::new(Clock::default(), 1024));
    registry.revise(open_to_all());
    registry
}

fn shown() -> Shown {
    Shown { token: Arc::new(token(&Right::DEFAULT, vec![secret()])), secret: secret(), certificate: None }
}

async fn attach(registry: &Arc<Registry>, name: &str, instance: u8, offer: Offer) -> Agent {
    attach_all(registry, name, instance, vec![offer]).await
}

async fn attach_all(registry: &Arc<Registry>, name: &str, instance: u8, offers: Vec<Offer>) -> Agent {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let hello = Hello { name: name.into(), instance: [instance; 16], software: String::new(), offers, canaries: false };
    let greeting = tokio::spawn(relay_tunnel::relay(ours, Vec::new(), Limits::relay()));
    let agent = tokio::spawn(relay_tunnel::agent(theirs, Vec::new(), hello, Limits::agent()));
    let greeting = greeting.await.expect("runs").expect("says hello");
    let identity = AgentIdentity { token: "token".into(), name: name.into(), instance: [instance; 16] };
    let offers = greeting.hello.offers.clone();
    let welcomed = registry.attach(identity, shown(), offers, false, 0).expect("a valid token");
    let answer = |offer: &Offer| relay_proto::Attached {
        endpoint: offer.endpoint.clone(),
        state: OfferState::Accepted,
        url: String::new(),
        provider: String::new(),
    };
    let endpoints = greeting.hello.offers.iter().map(answer).collect();
    let (relay, relay_arrivals, driver) = greeting.welcome(Welcome { endpoints, ..Welcome::default() });
    let closed = tokio::spawn(driver);
    let (_, agent, agent_arrivals, driver) = agent.await.expect("runs").expect("is welcome");
    welcomed.attached.ready(relay.clone(), &welcomed.answers);
    let roles = welcomed.answers.into_iter().map(|answer| answer.expect("admitted").1).collect();
    Agent {
        attached: welcomed.attached,
        roles,
        contested: welcomed.contested,
        finishing: welcomed.finishing,
        relay,
        relay_arrivals,
        agent_arrivals,
        agent,
        closed,
        lives: tokio::spawn(driver),
    }
}

impl Agent {
    /// The body of the next request, once it is whole; the request is answered with 200.
    async fn serve(&mut self) -> Bytes {
        loop {
            match timeout(PATIENCE, self.agent_arrivals.next()).await.expect("in time") {
                Some(Arrival::Request(request)) => {
                    let body = request.body.collect().await.expect("whole").to_bytes();
                    let head = ResponseHead::new(200, HeaderBlock::new());
                    request.responder.respond(head).finish(HeaderBlock::new());
                    return body;
                }
                Some(_) => {}
                None => panic!("the session is over"),
            }
        }
    }

    async fn next_state(&mut self) -> OfferState {
        loop {
            match timeout(PATIENCE, self.agent_arrivals.next()).await.expect("in time") {
                Some(Arrival::Notice(Notice::Changed { state, .. })) => return state,
                Some(_) => {}
                None => panic!("the session is over"),
            }
        }
    }

    /// Takes the sign of life that the registry asked for.
    async fn answered(&mut self) {
        let heard = timeout(PATIENCE, self.relay_arrivals.next()).await.expect("in time");
        assert!(matches!(heard, Some(Arrival::Answered)), "{heard:?}");
        self.attached.answered();
    }
}

fn head() -> RequestHead {
    RequestHead {
        endpoint: "e".into(),
        event_id: [1; 16],
        attempt: 1,
        method: "POST".into(),
        target: "/".into(),
        framing: Framing::Chunked,
        headers: HeaderBlock::new(),
        fence: None,
        upgrade: Bytes::new(),
        asks_sha256: false,
    }
}

fn open(registry: &Registry) -> Exchange {
    registry.reserve("e", None, Circuits::Ignored).expect("a place").open(head())
}

#[tokio::test(start_paused = true)]
async fn exchanges_go_to_the_agent_with_the_most_capacity_left() {
    let registry = registry();
    let small = attach(&registry, "small", 1, offer(Attach::Shared, 2)).await;
    let large = attach(&registry, "large", 2, offer(Attach::Shared, 5)).await;
    let mut exchanges: Vec<_> = (0..5).map(|_| open(&registry)).collect();
    assert_eq!((small.relay.in_flight(), large.relay.in_flight()), (1, 4));
    exchanges.extend((0..2).map(|_| open(&registry)));
    assert_eq!((small.relay.in_flight(), large.relay.in_flight()), (2, 5));
    assert_eq!(
        registry.reserve("e", None, Circuits::Ignored).map(drop),
        Err(ChooseError::Busy),
        "they take no more at a time"
    );
    let selector = AgentSelector { token: Some("token"), name: "small", instance: None };
    assert_eq!(
        registry.reserve_for("e", &selector).map(drop),
        Err(ChooseError::Busy),
        "nor do they of who asks for them"
    );
    assert!(registry.held_back("e") && registry.free("e", 64).is_err());
    exchanges.clear();
    while small.relay.in_flight() + large.relay.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let held: Vec<_> = (0..3).map(|_| open(&registry)).collect();
    assert_eq!(large.relay.in_flight(), 3, "what is over does not count: {} held", held.len());
}

#[tokio::test(start_paused = true)]
async fn the_same_agent_replaces_its_older_session_at_once() {
    let registry = registry();
    let first = attach(&registry, "a", 1, offer(Attach::Exclusive, 0)).await;
    let waits = attach(&registry, "b", 2, offer(Attach::Exclusive, 0)).await;
    assert_eq!((first.roles[0], waits.roles[0]), (Role::Active, Role::Standby));
    let broken = open(&registry);
    let second = attach(&registry, "a", 1, offer(Attach::Exclusive, 0)).await;
    assert_eq!(second.roles, [Role::Active], "it keeps its place");
    assert!(second.attached.epoch() > first.attached.epoch());
    assert_eq!(first.closed.await.expect("ends").code, CloseCode::Replaced);
    assert!(matches!(broken.response.head().await, Err(Broken::SessionLost)));
    assert_eq!(registry.len(), 2);
    drop(first.attached);
    assert_eq!(registry.len(), 2, "a late end of the older session takes nothing from the newer one");
    assert!(registry.reserve("e", None, Circuits::Ignored).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_session_that_had_drained_finishes() {
    let registry = registry();
    let mut first = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    let exchange = open(&registry);
    first.agent.drain();
    let heard = timeout(PATIENCE, first.relay_arrivals.next()).await.expect("in time");
    assert!(matches!(heard, Some(Arrival::Draining)));
    first.attached.draining();
    first.relay.close_when_idle(CloseCode::Normal, "drained");
    assert_eq!(registry.reserve("e", None, Circuits::Ignored).map(drop), Err(ChooseError::NoAgent));
    let second = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    assert!(second.finishing.is_some(), "somebody must end it if it does not end by itself");
    exchange.request.finish(HeaderBlock::new());
    first.serve().await;
    assert_eq!(exchange.response.head().await.expect("whole").0.status, 200);
    assert_eq!(first.closed.await.expect("ends").code, CloseCode::Replaced);
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_name_never_fence_each_other() {
    let registry = registry();
    let mut one = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    let two = attach(&registry, "a", 2, offer(Attach::Shared, 0)).await;
    let first = open(&registry);
    assert_eq!((one.relay.in_flight(), two.relay.in_flight()), (0, 1), "the older one has not answered yet");
    one.answered().await;
    let second = open(&registry);
    assert_eq!((one.relay.in_flight(), two.relay.in_flight()), (1, 1));
    drop((first, second));
    assert!(one.relay.takes_exchanges() && two.relay.takes_exchanges());
}

#[tokio::test(start_paused = true)]
async fn an_active_agent_that_answers_keeps_its_place_and_a_silent_one_loses_it() {
    let registry = registry();
    let mut active = attach(&registry, "a", 1, offer(Attach::Exclusive, 0)).await;
    let challenger = attach(&registry, "b", 2, offer(Attach::Exclusive, 0)).await;
    assert!(challenger.contested);
    active.answered().await;
    challenger.attached.contest();
    let held = open(&registry);
    assert_eq!((active.relay.in_flight(), challenger.relay.in_flight()), (1, 0));
    drop((challenger, held));

    let mut challenger = attach(&registry, "b", 3, offer(Attach::Exclusive, 0)).await;
    active.lives.abort(); // Frozen: its socket is open, and nobody answers.
    challenger.attached.contest();
    assert_eq!(challenger.next_state().await, OfferState::Accepted);
    let _held = open(&registry);
    assert_eq!(challenger.relay.in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_gets_what_the_other_gets_and_a_slow_one_is_dropped_and_counted() {
    let registry = registry();
    let mut watcher = attach(&registry, "w", 1, offer(Attach::Copy, 0)).await;
    assert_eq!(watcher.roles, [Role::Copy]);
    assert_eq!(
        registry.reserve("e", None, Circuits::Ignored).map(drop),
        Err(ChooseError::NoAgent),
        "who watches does not serve"
    );
    let mut mirror = registry.mirror("e", None, head).expect("somebody watches");
    mirror.data(&Bytes::from_static(b"one "));
    mirror.data(&Bytes::from_static(b"two"));
    mirror.finish(&HeaderBlock::new());
    assert_eq!(watcher.serve().await, "one two");

    watcher.lives.abort();
    let mut mirror = registry.mirror("e", None, head).expect("somebody watches");
    for _ in 0..100 {
        mirror.data(&Bytes::from(vec![0; 256 * 1024]));
    }
    mirror.finish(&HeaderBlock::new());
    assert_eq!((registry.dropped_copies(), registry.roster().0[0].dropped_copies), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_left_a_moment_ago_is_waited_for() {
    let registry = registry();
    tokio::time::advance(RECENTLY).await; // Its start is not a reason to wait any more.
    let until = || Instant::now() + Duration::from_secs(2);
    let begun = Instant::now();
    assert_eq!(
        registry.reserve_or_wait("e", None, Circuits::Ignored, until()).await.map(drop),
        Err(ChooseError::NoAgent)
    );
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody was ever here");
    drop(attach(&registry, "a", 1, offer(Attach::Shared, 0)).await.attached);
    let waiting = {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { registry.reserve_or_wait("e", None, Circuits::Ignored, until()).await.map(drop) })
    };
    tokio::task::yield_now().await;
    let _back = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    assert_eq!(waiting.await.expect("runs"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_an_agent_waits_for_its_room_and_nobody_else_does() {
    let registry = registry();
    let until = || Instant::now() + Duration::from_secs(2);
    drop(attach(&registry, "a", 1, offer(Attach::Shared, 0)).await.attached);
    let mut crowd = JoinSet::new();
    for _ in 0..5 {
        let registry = Arc::clone(&registry);
        crowd.spawn(async move { registry.reserve_or_wait("e", None, Circuits::Ignored, until()).await.map(drop) });
    }
    tokio::task::yield_now().await;
    let _back = attach(&registry, "a", 1, offer(Attach::Shared, 1)).await;
    for served in crowd.join_all().await {
        assert_eq!(served, Ok(()), "a place for one after the other");
    }
    let held = registry.reserve("e", None, Circuits::Ignored).expect("a place");
    let begun = Instant::now();
    let outcome = registry.reserve_or_wait("e", None, Circuits::Ignored, until()).await.map(drop);
    assert_eq!((outcome, begun.elapsed()), (Err(ChooseError::Busy), Duration::ZERO));
    drop(held);
    assert!(registry.reserve_or_wait("e", None, Circuits::Ignored, until()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_session_without_a_free_stream_gives_up_in_time() {
    let registry = registry();
    let waiting = {
        let registry = Arc::clone(&registry);
        let until = Instant::now() + Duration::from_secs(2);
        tokio::spawn(async move { registry.reserve_or_wait("e", None, Circuits::Ignored, until).await.map(drop) })
    };
    tokio::task::yield_now().await;
    let agent = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    let mut exchanges = Vec::new();
    while let Ok(place) = registry.reserve("e", None, Circuits::Ignored) {
        exchanges.push(place.open(head()));
    }
    assert!(exchanges.len() > 100 && agent.relay.in_flight() > 100, "its streams are used up");
    assert_eq!(waiting.await.expect("runs"), Err(ChooseError::Busy));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_one_endpoints_agent_leave_room_for_those_of_another() {
    let registry = registry();
    let until = Instant::now() + Duration::from_secs(2);
    let wait = |endpoint: &'static str| {
        let registry = Arc::clone(&registry);
        async move { registry.reserve_or_wait(endpoint, None, Circuits::Ignored, until).await.map(drop) }
    };
    let mut waiting = JoinSet::new();
    for _ in 0..MAX_WAITERS / ENDPOINT_PART {
        waiting.spawn(wait("e"));
        tokio::task::yield_now().await;
    }
    assert_eq!(wait("e").await, Err(ChooseError::NoAgent));
    assert_eq!(Instant::now() + Duration::from_secs(2), until, "one past the share is answered at once");
    let other = tokio::spawn(wait("other"));
    tokio::task::yield_now().await;
    assert!(!other.is_finished(), "another endpoint has a share of its own");
    for _ in 1..MAX_WAITERS / ENDPOINT_PART {
        waiting.spawn(wait("other"));
        tokio::task::yield_now().await;
    }
    assert_eq!(wait("third").await, Err(ChooseError::NoAgent));
    assert_eq!(Instant::now() + Duration::from_secs(2), until, "one past them all is answered at once, too");
    assert_eq!(other.await.expect("runs"), Err(ChooseError::NoAgent));
    assert!(waiting.join_all().await.iter().all(Result::is_err));
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_takes_its_share_of_a_session_that_serves_another_one_too() {
    let registry = registry();
    let other = || Offer { endpoint: "other".into(), ..offer(Attach::Shared, 0) };
    let _agent = attach_all(&registry, "a", 1, vec![offer(Attach::Shared, 1000), other()]).await;
    let fill = |endpoint| {
        let place = || registry.reserve(endpoint, None, Circuits::Ignored);
        let places: Vec<_> = std::iter::from_fn(|| place().ok()).collect();
        assert_eq!(place().map(drop), Err(ChooseError::Busy));
        places
    };
    let flood = fill("e");
    assert_eq!(flood.len(), 512);
    assert_eq!(fill("other").len(), 512, "half of it is left");
}

#[tokio::test(start_paused = true)]
async fn a_revision_takes_endpoints_away_and_gives_them_back() {
    let registry = registry();
    let other = || Offer { endpoint: "other".into(), ..offer(Attach::Shared, 0) };
    let lost = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    let mut kept = attach_all(&registry, "b", 2, vec![offer(Attach::Shared, 0), other()]).await;
    registry.revise(config(token(&Right::DEFAULT, vec![secret()]), &["other"]));
    assert_eq!(kept.next_state().await, OfferState::Refused { code: "unknown_endpoint".into() });
    assert_eq!(lost.closed.await.expect("ends").code, CloseCode::Unauthorized, "nothing is left for it");
    assert_eq!(registry.reserve("e", None, Circuits::Ignored).map(drop), Err(ChooseError::NoAgent));
    assert!(registry.reserve("other", None, Circuits::Ignored).is_ok());
    registry.revise(open_to_all());
    assert_eq!(kept.next_state().await, OfferState::Accepted);
    assert!(registry.reserve("e", None, Circuits::Ignored).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_may_only_read_from_now_on_gets_copies_and_serves_again_when_it_may() {
    let registry = registry();
    let mut auto = attach(&registry, "a", 1, offer(Attach::Auto, 0)).await;
    let shared =
        attach_all(&registry, "b", 2, vec![Offer { endpoint: "other".into(), ..offer(Attach::Shared, 0) }]).await;
    registry.revise(config(token(&[Right::Read], vec![secret()]), &["e", "other"]));
    assert_eq!(auto.next_state().await, OfferState::Copy);
    assert_eq!(
        registry.reserve("e", None, Circuits::Ignored).map(drop),
        Err(ChooseError::NoAgent),
        "nobody may answer"
    );
    assert_eq!(shared.closed.await.expect("ends").code, CloseCode::Unauthorized);
    tokio::time::advance(2 * RECENTLY).await;
    assert_eq!(
        registry.reserve("e", None, Circuits::Ignored).map(drop),
        Err(ChooseError::NoAgent),
        "nor when nobody else is there"
    );
    registry.revise(open_to_all());
    assert_eq!(auto.next_state().await, OfferState::Accepted);
    assert!(registry.reserve("e", None, Circuits::Ignored).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_taken_out_of_its_token_neither_stays_nor_comes_in() {
    let registry = registry();
    let identity = || AgentIdentity { token: "token".into(), name: "late".into(), instance: [9; 16] };
    let inside = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    let rotated = config(token(&Right::DEFAULT, vec![TokenHash::of(b"its next secret")]), &["e"]);
    registry.revise(rotated);
    assert_eq!(inside.closed.await.expect("ends").code, CloseCode::Unauthorized);
    // This one was upgraded before that, and says hello now.
    assert!(registry.attach(identity(), shown(), vec![offer(Attach::Shared, 0)], false, 0).is_none());
    let nobody = config(Token { name: "other".into(), ..token(&Right::DEFAULT, vec![secret()]) }, &["e"]);
    registry.revise(nobody);
    assert!(
        registry.attach(identity(), shown(), vec![offer(Attach::Shared, 0)], false, 0).is_none(),
        "under another name"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_token_counts_only_beside_a_certificate_that_it_did_not_show() {
    let registry = registry();
    let inside = attach(&registry, "a", 1, offer(Attach::Shared, 0)).await;
    let bound = |clients: &str| {
        let client = Some(ClientRule { clients: clients.into(), names: None });
        config(Token { client, ..token(&Right::DEFAULT, vec![secret()]) }, &["e"])
    };
    registry.revise(bound("agents"));
    assert_eq!(inside.closed.await.expect("ends").code, CloseCode::Unauthorized);
    let made = rcgen::generate_simple_self_signed(["agent.test".to_owned()]).expect("a certificate");
    let certificate = ClientCertificate::read("agents".into(), made.cert.der()).map(Arc::new);
    let (with, without) = (Shown { certificate, ..shown() }, shown());
    let attach = |shown: Shown| {
        let identity = AgentIdentity { token: "token".into(), name: "late".into(), instance: [9; 16] };
        registry.attach(identity, shown, vec![offer(Attach::Shared, 0)], false, 0).is_some()
    };
    assert!(!attach(without), "upgraded before, and its hello comes now");
    assert!(attach(with.clone()));
    registry.revise(bound("others"));
    assert!(!attach(with), "shown among other clients");
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_between_hello_and_welcome_is_closed_once_it_can_be() {
    let registry = registry();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let offers = vec![offer(Attach::Shared, 0)];
    let hello =
        Hello { name: "a".into(), instance: [1; 16], software: String::new(), offers: offers.clone(), canaries: false };
    let greeting = tokio::spawn(relay_tunnel::relay(ours, Vec::new(), Limits::relay()));
    let _agent = tokio::spawn(relay_tunnel::agent(theirs, Vec::new(), hello, Limits::agent()));
    let greeting = greeting.await.expect("runs").expect("says hello");
    let identity = AgentIdentity { token: "token".into(), name: "a".into(), instance: [1; 16] };
    let welcomed = registry.attach(identity, shown(), offers, false, 0).expect("a valid token");
    registry.revise(config(token(&[], vec![secret()]), &["e"]));
    let (handle, _, driver) = greeting.welcome(Welcome::default());
    welcomed.attached.ready(handle, &welcomed.answers);
    assert_eq!(driver.await.code, CloseCode::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_drains_gets_nothing_back_by_a_revision_and_an_endpoint_offered_twice_counts_once() {
    let registry = registry();
    let drained = attach(&registry, "a", 1, offer(Attach::Exclusive, 0)).await;
    drained.attached.draining();
    registry.revise(open_to_all());
    let identity = AgentIdentity { token: "token".into(), name: "b".into(), instance: [2; 16] };
    let offers = vec![offer(Attach::Exclusive, 0), offer(Attach::Shared, 0)];
    let welcomed = registry.attach(identity, shown(), offers, false, 0).expect("a valid token");
    assert_eq!(welcomed.answers, [Ok(("e".to_owned(), Role::Active)), Err("offered_twice")]);
    registry.revise(open_to_all());
    assert_eq!(registry.attached("e").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_offers_share_what_is_the_same_in_all_of_them() {
    let names: Vec<String> = (0..256).map(|number| format!("e{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let registry = Arc::new(Registry::new(Clock::default(), 1024));
    registry.revise(config(token(&Right::DEFAULT, vec![secret()]), &names));
    let offers = names.iter().map(|name| Offer { endpoint: (*name).to_owned(), ..offer(Attach::Shared, 0) }).collect();
    let name: Arc<str> = "n".repeat(1024).into();
    let identity = AgentIdentity { token: "token".into(), name: Arc::clone(&name), instance: [1; 16] };
    let welcomed = registry.attach(identity, shown(), offers, false, 0).expect("a valid token");
    assert!(welcomed.answers.iter().all(Result::is_ok));
    assert!(Arc::strong_count(&name) > 2 * names.len(), "places and targets have the one name");
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_rate_is_used_up_has_no_room_until_time_goes_by() {
    let registry = registry();
    let rate = Some("2/min, burst 2".parse().expect("a rate"));
    let slow = attach(&registry, "slow", 1, Offer { rate, ..offer(Attach::Shared, 0) }).await;
    assert_eq!(registry.free("e", 64), Ok(2));
    let held = (open(&registry), open(&registry));
    assert_eq!(registry.free("e", 64), Err(Some(Duration::from_secs(30))));
    assert!(registry.held_back("e"));
    let refused = registry.reserve("e", None, Circuits::Ignored).map(drop);
    assert_eq!(refused, Err(ChooseError::Limited { wait: Duration::from_secs(30) }), "a sender, too, has to wait");
    let other = attach(&registry, "other", 2, offer(Attach::Shared, 10)).await;
    assert_eq!((registry.free("e", 64), registry.held_back("e")), (Ok(10), false));
    let more = (open(&registry), open(&registry));
    assert_eq!((slow.relay.in_flight(), other.relay.in_flight()), (2, 2));
    drop((held, more, other));
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(registry.free("e", 64), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_left_alone_at_its_own_agent_and_probed_before_others_are_asked() {
    let registry = registry();
    let bad = attach(&registry, "bad", 1, offer(Attach::Shared, 0)).await;
    let place = registry.reserve("e", None, Circuits::Respected).expect("a place");
    let target = place.target().clone();
    drop(place);
    let now = jiff::Timestamp::now();
    let long = CircuitRule { failures: 1, pause: Duration::from_secs(3600), longest: Duration::from_secs(3600) };
    target.failed(false, &long, now);
    let left_alone = registry.reserve("e", None, Circuits::Respected).map(drop);
    let Err(ChooseError::Limited { wait }) = left_alone else { panic!("{left_alone:?}") };
    assert!((3_000..=3_600).contains(&wait.as_secs()), "{wait:?}");
    assert!(registry.held_back("e") && registry.free("e", 64).is_err());
    assert!(registry.reserve("e", None, Circuits::Ignored).is_ok(), "a sender that waits has to learn of it");
    // It is the same target after the agent has come again, and another agent's is another.
    let bad_again = attach(&registry, "bad", 1, offer(Attach::Shared, 0)).await;
    assert!(registry.held_back("e"));
    let good = attach(&registry, "good", 2, offer(Attach::Shared, 4)).await;
    assert_eq!((registry.free("e", 64), registry.held_back("e")), (Ok(4), false));
    let held: Vec<_> =
        (0..3).map(|_| registry.reserve("e", None, Circuits::Respected).expect("a place").open(head())).collect();
    assert_eq!((bad_again.relay.in_flight(), good.relay.in_flight()), (0, 3), "{} held", held.len());
    // Its pause is over: the next one is its probe, and only that one.
    target.succeeded();
    target.failed(false, &CircuitRule { pause: Duration::ZERO, ..long }, now);
    let probe = registry.reserve("e", None, Circuits::Respected).expect("a place");
    assert!(probe.is_probe && &*probe.agent().name == "bad");
    let next = registry.reserve("e", None, Circuits::Respected).expect("a place");
    assert!(!next.is_probe && &*next.agent().name == "good");
    drop(bad);
}

#[tokio::test(start_paused = true)]
async fn one_agent_is_asked_for_by_its_token_and_name_and_the_newest_is_meant() {
    let registry = registry();
    let selector = |token, name, instance: Option<u8>| AgentSelector {
        token: Some(token),
        name,
        instance: instance.map(|byte| [byte; 16]),
    };
    let reserve = |selector| registry.reserve_for("e", &selector).map(|place| place.agent().instance[0]);
    assert_eq!(reserve(selector("token", "a", None)), Err(ChooseError::NoAgent));
    let _active = attach(&registry, "a", 1, offer(Attach::Exclusive, 1)).await;
    let standby = attach(&registry, "a", 2, offer(Attach::Exclusive, 1)).await;
    let _copies = attach(&registry, "b", 3, offer(Attach::Copy, 1)).await;
    assert_eq!(reserve(selector("token", "a", None)), Ok(2), "the newest, whatever it is to the endpoint");
    assert_eq!(reserve(selector("token", "a", Some(1))), Ok(1));
    assert_eq!(reserve(selector("token", "b", None)), Ok(3));
    for other in [selector("other", "a", None), selector("token", "c", None), selector("token", "b", Some(1))] {
        assert_eq!(reserve(other), Err(ChooseError::NoAgent), "{other:?}");
    }
    assert!(registry.reserve_for("elsewhere", &selector("token", "a", None)).is_err());
    drop(standby.attached);
    assert_eq!(reserve(selector("token", "a", None)), Ok(1));
}
