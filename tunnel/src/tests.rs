//! Two ends of a tunnel joined by an in-memory pipe, under paused time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use relay_proto::{
    Attach, Attached, CloseCode, Framing, HeaderBlock, Hello, Limits, Notice, Offer, OfferState, OpenError, Outcome,
    OutcomeState, RequestHead, ResetCode, ResponseHead, Welcome, limits::MAX_MESSAGE_BYTES,
};
use tokio::{io::DuplexStream, task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{
            Role,
            frame::{
                Frame as WsFrame,
                coding::{CloseCode as WsCode, Data, OpCode},
            },
        },
    },
};

use crate::{
    Arrival, Arrivals, Broken, CONTROL_BUDGET, FRAGMENT_BUDGET_BYTES, Handle, Receiver, Request, agent, relay,
    websocket_config,
};

struct Tunnel {
    relay: Handle,
    agent: Handle,
    arrivals: Arrivals,
    /// What arrives at the relay's end.
    relay_arrivals: Arrivals,
    drivers: [JoinHandle<relay_proto::Close>; 2],
}

fn hello() -> Hello {
    let offers = vec![Offer { endpoint: "e".into(), attach: Attach::Shared, capacity: 10, ..Offer::default() }];
    Hello { name: "test".into(), instance: [1; 16], software: String::new(), offers, canaries: false }
}

fn welcome() -> Welcome {
    let answer =
        Attached { endpoint: "e".into(), state: OfferState::Accepted, url: String::new(), provider: String::new() };
    Welcome { epoch: 1, endpoints: vec![answer], ..Welcome::default() }
}

async fn tunnel() -> Tunnel {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let greeted = tokio::spawn(relay(ours, Vec::new(), Limits::relay()));
    let agent = tokio::spawn(agent(theirs, Vec::new(), hello(), Limits::agent()));
    let greeting = greeted.await.expect("runs").expect("says hello");
    assert_eq!(greeting.hello, hello());
    let (relay, relay_arrivals, driver) = greeting.welcome(welcome());
    let relay_driver = tokio::spawn(driver);
    let (welcome, agent, arrivals, driver) = agent.await.expect("runs").expect("is welcome");
    assert_eq!(welcome.epoch, 1);
    Tunnel { relay, agent, arrivals, relay_arrivals, drivers: [relay_driver, tokio::spawn(driver)] }
}

fn head() -> RequestHead {
    RequestHead {
        endpoint: "e".into(),
        event_id: [2; 16],
        attempt: 1,
        method: "POST".into(),
        target: "/x".into(),
        framing: Framing::Length,
        headers: HeaderBlock::new(),
        fence: None,
        upgrade: Bytes::new(),
        asks_sha256: false,
    }
}

fn ok() -> ResponseHead {
    ResponseHead::new(200, HeaderBlock::new())
}

impl Tunnel {
    async fn request(&mut self) -> Request {
        match self.arrivals.next().await {
            Some(Arrival::Request(request)) => request,
            other => panic!("a request, not {other:?}"),
        }
    }
}

impl Tunnel {
    /// Waits until neither side holds an exchange any more.
    async fn quiet(&self) {
        let quiet = async {
            while (self.relay.in_flight(), self.agent.in_flight()) != (0, 0) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), quiet).await.expect("every exchange is let go");
    }
}

async fn collect(body: Receiver) -> Result<Bytes, Broken> {
    body.collect().await.map(http_body_util::Collected::to_bytes)
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered() {
    let mut tunnel = tunnel().await;
    let mut exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.send("ping".into()).await.expect("takes it");
    exchange.request.finish(HeaderBlock::new());
    let request = tunnel.request().await;
    assert_eq!(request.head, head());
    assert_eq!(collect(request.body).await, Ok("ping".into()));
    let mut answer = request.responder.respond(ok());
    answer.send("pong".into()).await.expect("takes it");
    answer.finish([("x-sum", "1")].into_iter().collect());
    let (response, body) = exchange.response.head().await.expect("answers");
    assert_eq!(response, ok());
    let body = body.collect().await.expect("whole");
    assert_eq!(body.trailers().expect("trailers")["x-sum"], "1");
    assert_eq!(body.to_bytes(), "pong");
    tunnel.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_short_answer_that_is_there_can_be_looked_at_before_it_is_read() {
    let mut tunnel = tunnel().await;
    for trailers in [HeaderBlock::new(), [("x-sum", "1")].into_iter().collect()] {
        let expected = trailers.is_empty().then(|| Bytes::from_static(b"pong"));
        let exchange = tunnel.relay.open(head()).expect("opens");
        exchange.request.finish(HeaderBlock::new());
        let mut answer = tunnel.request().await.responder.respond(ok());
        answer.send("pong".into()).await.expect("takes it");
        answer.finish(trailers);
        let (_, body) = exchange.response.head().await.expect("answers");
        assert_eq!(body.whole(), expected);
        assert_eq!(collect(body).await, Ok("pong".into()));
        tunnel.quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn large_bodies_pass_both_ways_at_the_readers_pace() {
    let mut tunnel = tunnel().await;
    let body: Bytes = (0..5_000_000_u32).map(|n| (n % 253) as u8).collect::<Vec<_>>().into();
    let crate::Exchange { request: mut upload, response } = tunnel.relay.open(head()).expect("opens");
    let sent = body.clone();
    let writer = tokio::spawn(async move {
        for piece in sent.chunks(100_000) {
            upload.send(Bytes::copy_from_slice(piece)).await.expect("takes it");
        }
        upload.finish(HeaderBlock::new());
    });
    let mut request = tunnel.request().await;
    let mut answer = request.responder.respond(ok());
    let echo = tokio::spawn(async move {
        while let Some(frame) = request.body.frame().await {
            answer.send(frame.expect("whole").into_data().expect("data")).await.expect("takes it");
        }
        answer.finish(HeaderBlock::new());
    });
    let (_, answered) = response.head().await.expect("answers");
    assert!(collect(answered).await.expect("whole") == body, "the bytes are the sender's");
    writer.await.expect("runs");
    echo.await.expect("runs");
    tunnel.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_relays_handle_resets_the_stream() {
    let mut tunnel = tunnel().await;
    let exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.finish(HeaderBlock::new());
    let mut request = tunnel.request().await;
    drop(exchange.response);
    assert_eq!(request.responder.cancelled().await, Broken::Reset(ResetCode::Cancelled));

    let exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.finish(HeaderBlock::new());
    let request = tunnel.request().await;
    let mut answer = request.responder.respond(ok());
    let (_, body) = exchange.response.head().await.expect("answers");
    drop(body);
    assert_eq!(answer.closed().await, Broken::Reset(ResetCode::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_requests_writer_before_its_end_breaks_the_request() {
    let mut tunnel = tunnel().await;
    let mut exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.send("half".into()).await.expect("takes it");
    let mut request = tunnel.request().await;
    let first = request.body.frame().await.expect("a frame").expect("data");
    assert_eq!(first.into_data().expect("data"), "half");
    drop(exchange.request);
    let end = request.body.frame().await.expect("an end").map(|_| ());
    assert_eq!(end, Err(Broken::Reset(ResetCode::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_agents_writer_before_its_end_breaks_the_answer() {
    let mut tunnel = tunnel().await;
    let exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.finish(HeaderBlock::new());
    let mut answer = tunnel.request().await.responder.respond(ok());
    answer.send("half".into()).await.expect("takes it");
    let (_, body) = exchange.response.head().await.expect("answers");
    drop(answer);
    assert_eq!(collect(body).await, Err(Broken::Reset(ResetCode::Broken)), "never a clean short body");
}

#[tokio::test(start_paused = true)]
async fn a_responder_says_why_there_is_no_answer() {
    let mut tunnel = tunnel().await;
    use ResetCode::{Broken as Broke, NotCalled, NotCarriable, Timeout, Unreachable};
    for code in [NotCalled, NotCarriable, Unreachable, Broke, Timeout] {
        let exchange = tunnel.relay.open(head()).expect("opens");
        exchange.request.finish(HeaderBlock::new());
        tunnel.request().await.responder.reset(code);
        assert_eq!(exchange.response.head().await.map(|_| ()), Err(Broken::Reset(code)));
    }
    let exchange = tunnel.relay.open(head()).expect("opens");
    drop(tunnel.request().await.responder);
    assert_eq!(exchange.response.head().await.map(|_| ()), Err(Broken::Reset(ResetCode::Broken)));
}

#[tokio::test(start_paused = true)]
async fn an_agent_may_answer_without_reading_the_request() {
    let mut tunnel = tunnel().await;
    let mut exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.send(Bytes::from(vec![0; 150_000])).await.expect("takes it");
    let request = tunnel.request().await;
    drop(request.body);
    let mut answer = request.responder.respond(ResponseHead { status: 413, ..ok() });
    answer.send("no".into()).await.expect("takes it");
    answer.finish(HeaderBlock::new());
    let (response, body) = exchange.response.head().await.expect("answers");
    assert_eq!((response.status, collect(body).await), (413, Ok("no".into())));
}

#[tokio::test(start_paused = true)]
async fn a_lost_tunnel_breaks_what_is_in_flight_and_opens_nothing_more() {
    let mut tunnel = tunnel().await;
    let exchange = tunnel.relay.open(head()).expect("opens");
    let mut request = tunnel.request().await;
    tunnel.drivers[1].abort();
    assert_eq!(exchange.response.head().await.map(|_| ()), Err(Broken::SessionLost));
    assert_eq!(request.responder.cancelled().await, Broken::SessionLost);
    assert_eq!(tunnel.relay.open(head()).map(|_| ()), Err(OpenError::Closed));
    assert!(tunnel.arrivals.next().await.is_none());
    drop((request, exchange.request));
    tunnel.quiet().await;
}

#[tokio::test(start_paused = true)]
async fn the_agents_capacity_bounds_what_is_in_flight() {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let limits = Limits { max_streams: 2, ..Limits::agent() };
    let agent = tokio::spawn(agent(theirs, Vec::new(), hello(), limits));
    let greeting = relay(ours, Vec::new(), Limits::relay()).await.expect("says hello");
    let (relay, _arrivals, driver) = greeting.welcome(welcome());
    tokio::spawn(driver);
    let (_, _agent, _arrivals, driver) = agent.await.expect("runs").expect("is welcome");
    tokio::spawn(driver);
    let first = relay.open(head()).expect("opens");
    let _second = relay.open(head()).expect("opens");
    assert_eq!(relay.open(head()).map(|_| ()), Err(OpenError::Busy));
    drop(first);
    timeout(Duration::from_secs(5), async {
        while relay.open(head()).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a place becomes free");
}

#[tokio::test(start_paused = true)]
async fn notices_and_drain_reach_the_agent_and_an_idle_tunnel_closes() {
    let mut tunnel = tunnel().await;
    let exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.finish(HeaderBlock::new());
    tunnel.relay.notify(Notice::Text("hi".into()));
    tunnel.relay.drain();
    tunnel.relay.close_when_idle(CloseCode::GoingAway, "restarting");
    let mut seen = (false, false, None);
    while seen.2.is_none() || !seen.0 || !seen.1 {
        match tunnel.arrivals.next().await.expect("still open while an exchange is in flight") {
            Arrival::Notice(notice) => seen.0 = notice == Notice::Text("hi".into()),
            Arrival::Draining => seen.1 = true,
            Arrival::Request(request) => seen.2 = Some(request),
            other => panic!("not {other:?}"),
        }
    }
    let answer = seen.2.expect("came").responder.respond(ok());
    answer.finish(HeaderBlock::new());
    let (_, body) = exchange.response.head().await.expect("answers");
    assert_eq!(collect(body).await, Ok(Bytes::new()));
    let close = (&mut tunnel.drivers[1]).await.expect("runs");
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::GoingAway, "restarting"));
}

/// A relay's tunnel whose agent is a bare WebSocket, after hello and welcome.
async fn bare_agent() -> (Handle, JoinHandle<relay_proto::Close>, WebSocketStream<DuplexStream>) {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let mut bare = WebSocketStream::from_raw_socket(theirs, Role::Client, Some(websocket_config())).await;
    let mut session = relay_proto::Session::agent(hello(), Limits::agent(), relay_proto::Instant::from_micros(0));
    let mut message = bytes::BytesMut::new();
    assert!(session.poll_transmit(&mut message));
    bare.send(Message::Binary(message.freeze())).await.expect("sends");
    let greeting = relay(ours, Vec::new(), Limits::relay()).await.expect("says hello");
    let (handle, _arrivals, driver) = greeting.welcome(welcome());
    let driver = tokio::spawn(driver);
    assert!(matches!(bare.next().await, Some(Ok(Message::Binary(_)))), "the welcome");
    (handle, driver, bare)
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_ready_goes_into_one_message() {
    let (handle, _driver, mut bare) = bare_agent().await;
    let exchanges: Vec<_> = (0..50)
        .map(|_| {
            let exchange = handle.open(head()).expect("opens");
            exchange.request.finish(HeaderBlock::new());
            exchange.response
        })
        .collect();
    let Some(Ok(Message::Binary(message))) = bare.next().await else { panic!("a message") };
    assert!(message.len() > 50 * 30, "fifty requests in {} bytes", message.len());
    let more = timeout(Duration::from_secs(1), bare.next()).await;
    assert!(more.is_err(), "nothing is left for a second message: {more:?}");
    drop(exchanges);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_ten_seconds() {
    let (_handle, driver, _bare) = bare_agent().await;
    let start = tokio::time::Instant::now();
    let close = driver.await.expect("runs");
    assert_eq!(close.code, CloseCode::HeartbeatTimeout);
    let waited = start.elapsed();
    assert!((10..=13).contains(&waited.as_secs()), "after {waited:?}");
}

async fn farewell_after(messages: impl IntoIterator<Item = Message>) -> WsCode {
    let (_handle, driver, mut bare) = bare_agent().await;
    for message in messages {
        if bare.send(message).await.is_err() {
            break;
        }
    }
    let code = loop {
        match bare.next().await {
            Some(Ok(Message::Close(Some(frame)))) => break frame.code,
            Some(Ok(_)) => {}
            other => panic!("a close frame, not {other:?}"),
        }
    };
    driver.await.expect("runs");
    code
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_abuses_the_websocket_gets_a_close_code() {
    assert_eq!(farewell_after([Message::Text("hi".into())]).await, WsCode::Unsupported);
    let pings = (0..20_000).map(|_| Message::Ping(Bytes::new()));
    assert_eq!(farewell_after(pings).await, WsCode::Policy);
    let garbage = Message::Binary(Bytes::from_static(&[0xff; 64]));
    assert_eq!(farewell_after([garbage]).await, WsCode::Policy);
}

/// So many bytes of frames that are skipped.
fn skipped(bytes: usize) -> Bytes {
    let frame = |payload: usize| {
        let length = u16::try_from(payload).expect("short") | 0x4000; // A varint of two bytes.
        [&[64, 0, 0], &length.to_be_bytes()[..], &vec![0; payload]].concat()
    };
    let mut message = frame(1019).repeat(bytes / 1024 - 1);
    message.extend(frame(bytes - message.len() - 5));
    assert_eq!(message.len(), bytes);
    message.into()
}

/// Sends these, and whether the peer answers a ping behind them.
async fn lives_after(messages: impl IntoIterator<Item = Message>) -> bool {
    let (_handle, _driver, mut bare) = bare_agent().await;
    for message in messages {
        bare.send(message).await.expect("is taken");
    }
    bare.send(Message::Ping(Bytes::from_static(b"still there?"))).await.expect("is taken");
    loop {
        match bare.next().await {
            Some(Ok(Message::Pong(said))) if said == "still there?" => return true,
            Some(Ok(Message::Pong(_) | Message::Binary(_))) => {}
            _ => return false,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_at_its_limit_is_read_and_a_longer_one_ends_the_session() {
    assert!(lives_after([Message::Binary(skipped(MAX_MESSAGE_BYTES))]).await);
    let longer = Message::Binary(skipped(MAX_MESSAGE_BYTES + 1));
    assert_eq!(farewell_after([longer]).await, WsCode::Size);
    let half = skipped(MAX_MESSAGE_BYTES / 2);
    let part = |kind, bytes, is_last| Message::Frame(WsFrame::message(bytes, OpCode::Data(kind), is_last));
    let parts = |more: usize| {
        let second = skipped(MAX_MESSAGE_BYTES / 2 + more);
        [part(Data::Binary, half.clone(), false), part(Data::Continue, second, true)]
    };
    assert!(lives_after(parts(0)).await);
    assert_eq!(farewell_after(parts(1)).await, WsCode::Size, "in parts, too");
}

#[tokio::test(start_paused = true)]
async fn control_frames_beyond_their_budget_end_the_session() {
    let pings = |count: u32| (0..count).map(|_| Message::Ping(Bytes::new()));
    let message = || Message::Binary(skipped(1024));
    // The last one of the budget is the ping that asks.
    assert!(lives_after(pings(CONTROL_BUDGET - 1).chain([message()]).chain(pings(CONTROL_BUDGET - 1))).await);
    assert_eq!(farewell_after(pings(CONTROL_BUDGET + 1)).await, WsCode::Policy);
}

#[tokio::test(start_paused = true)]
async fn fragments_beyond_their_budget_end_the_session() {
    const FRAME_BYTES: u64 = 6; // Without a payload: two of head, four of a mask.
    let part = |kind, is_last| Message::Frame(WsFrame::message(Bytes::new(), OpCode::Data(kind), is_last));
    let parts = |count: u64| {
        [part(Data::Binary, false)].into_iter().chain((1..count).map(move |_| part(Data::Continue, false)))
    };
    let most = FRAGMENT_BUDGET_BYTES / FRAME_BYTES;
    assert!(lives_after(parts(most - 10).chain([part(Data::Continue, true)])).await);
    assert_eq!(farewell_after(parts(most + 10)).await, WsCode::Policy);
}

#[tokio::test(start_paused = true)]
async fn a_websocket_close_is_answered_and_says_why_a_side_went() {
    let (_handle, driver, mut bare) = bare_agent().await;
    bare.close(None).await.expect("sends");
    assert!(matches!(bare.next().await, Some(Ok(Message::Close(_)))), "an answer");
    assert_eq!(driver.await.expect("runs").code, CloseCode::GoingAway);
    for (code, said) in [
        (CloseCode::Normal, WsCode::Normal),
        (CloseCode::GoingAway, WsCode::Away),
        (CloseCode::Replaced, WsCode::Normal),
        (CloseCode::Refused, WsCode::Normal),
    ] {
        let (handle, _driver, mut bare) = bare_agent().await;
        handle.close(code, "done");
        assert!(matches!(bare.next().await, Some(Ok(Message::Binary(_)))), "the CLOSE");
        let Some(Ok(Message::Close(Some(frame)))) = bare.next().await else { panic!("a close") };
        assert_eq!(frame.code, said, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn small_pieces_from_a_peer_and_to_it_cost_about_their_size() {
    let mut tunnel = tunnel().await;
    let exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.finish(HeaderBlock::new());
    let mut answer = tunnel.request().await.responder.respond(ok());
    for _ in 0..1000 {
        for _ in 0..10 {
            answer.send(Bytes::from_static(b"x")).await.expect("takes it");
        }
        tokio::task::yield_now().await;
    }
    answer.finish(HeaderBlock::new());
    let (_, mut body) = exchange.response.head().await.expect("answers");
    while tunnel.agent.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let (mut pieces, mut bytes) = (0, 0);
    while let Some(frame) = body.frame().await {
        pieces += 1;
        bytes += frame.expect("whole").into_data().expect("data").len();
    }
    assert_eq!(bytes, 10_000);
    assert!(pieces <= 4, "{pieces} pieces of what came as 10,000 of one byte");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_killed_is_gone_and_has_violated_nothing() {
    let (_handle, driver, bare) = bare_agent().await;
    drop(bare);
    let close = driver.await.expect("runs");
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::GoingAway, "the connection ended"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_fit_a_frame_is_never_sent_and_never_will_be() {
    let mut tunnel = tunnel().await;
    let headers = [("x-large", "v".repeat(100_000))].into_iter().collect();
    let exchange = tunnel.relay.open(RequestHead { headers, ..head() }).expect("opens");
    exchange.request.finish(HeaderBlock::new());
    let failed = exchange.response.head().await.map(|_| ());
    assert_eq!(failed, Err(Broken::Reset(ResetCode::NotCarriable)));
    let exchange = tunnel.relay.open(head()).expect("opens");
    exchange.request.finish(HeaderBlock::new());
    assert_eq!(tunnel.request().await.head, head(), "the next one goes its way");
}

#[tokio::test(start_paused = true)]
async fn outcomes_and_answers_to_probes_reach_the_relays_reader() {
    let mut tunnel = tunnel().await;
    let outcome = Outcome { event_id: [3; 16], attempt: 1, fence: 9, state: OutcomeState::Failed(ResetCode::Broken) };
    assert!(tunnel.agent.report(outcome.clone()), "an open tunnel takes it");
    assert!(matches!(tunnel.relay_arrivals.next().await, Some(Arrival::Outcome(told)) if told == outcome));
    tunnel.relay.probe();
    assert!(matches!(tunnel.relay_arrivals.next().await, Some(Arrival::Answered)));
    tunnel.relay.close(CloseCode::Normal, "done");
    assert!(tunnel.relay_arrivals.next().await.is_none());
    while tunnel.arrivals.next().await.is_some() {}
    assert!(!tunnel.agent.report(outcome), "a closed tunnel takes none");
}
