//! Exchanges over a real tunnel and a real handler, and what happens to them when the tunnel is cut.

use std::time::Duration;

use bytes::Bytes;
use relay_proto::{Framing, HeaderBlock, Hello, Limits, Outcome, OutcomeState, RequestHead, Welcome};
use relay_tunnel::{Arrival, Arrivals, Broken, Exchange, Handle, Receiver};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::{
    config::{EndpointConfig, HandlerConfig},
    handler::TargetConfig,
    report::{Color, Output},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// An agent that serves one route, and its relay.
struct Pair {
    relay: Handle,
    arrivals: Arrivals,
    _tasks: [AbortOnDropHandle<()>; 3],
}

async fn pair(route: &Arc<Endpoint>, outcomes: &Arc<Outcomes>) -> Pair {
    let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
    let greeting = tokio::spawn(relay_tunnel::relay(ours, Vec::new(), Limits::relay()));
    let agent = tokio::spawn(relay_tunnel::agent(theirs, Vec::new(), Hello::default(), Limits::agent()));
    let (relay, relay_arrivals, driver) = greeting.await.unwrap().unwrap().welcome(Welcome::default());
    let relay_task = tokio::spawn(async { drop(driver.await) });
    let (_, handle, mut arrivals, driver) = agent.await.unwrap().unwrap();
    let agent_task = tokio::spawn(async { drop(driver.await) });
    outcomes.attach(handle);
    let (route, outcomes) = (Arc::clone(route), Arc::clone(outcomes));
    let serving = tokio::spawn(async move {
        while let Some(Arrival::Request(request)) = arrivals.next().await {
            tokio::spawn(serve(request, Some(Arc::clone(&route)), watchers(&outcomes)));
        }
    });
    Pair { relay, arrivals: relay_arrivals, _tasks: [relay_task, agent_task, serving].map(AbortOnDropHandle::new) }
}

fn watchers(outcomes: &Arc<Outcomes>) -> Watchers {
    let reporter = Reporter::new(Output::Quiet, Color::Never, None);
    Watchers { reporter, outcomes: Arc::clone(outcomes), tap: None }
}

async fn handler() -> (TcpListener, Arc<Endpoint>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = TargetConfig::new(listener.local_addr().unwrap().port().to_string().parse().unwrap());
    let mut config = EndpointConfig::new(None, HandlerConfig { target, headers: Vec::new(), preserve_host: false });
    config.upgrades = vec!["chat".parse().unwrap()];
    (listener, Arc::new(Endpoint::new(&config, None).unwrap()))
}

fn head(fence: Option<u64>, upgrade: &'static str) -> RequestHead {
    RequestHead {
        endpoint: "e".into(),
        event_id: [4; 16],
        attempt: 3,
        method: "GET".into(),
        target: "/x".into(),
        framing: Framing::Length,
        headers: HeaderBlock::new(),
        fence,
        upgrade: upgrade.into(),
        asks_sha256: false,
    }
}

/// Takes a connection and reads one head from it.
async fn take(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

async fn outcome(pair: &mut Pair) -> OutcomeState {
    match timeout(PATIENCE, pair.arrivals.next()).await.unwrap() {
        Some(Arrival::Outcome(Outcome { event_id, attempt, fence, state })) => {
            assert_eq!((event_id, attempt, fence), ([4; 16], 3, 9));
            state
        }
        other => panic!("an outcome, not {other:?}"),
    }
}

fn open(pair: &Pair, fence: Option<u64>, upgrade: &'static str) -> Exchange {
    pair.relay.open(head(fence, upgrade)).unwrap()
}

#[tokio::test]
async fn a_kept_events_handler_goes_on_when_the_session_breaks_and_the_next_one_hears_how_it_went() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let first = pair(&route, &outcomes).await;
    let Exchange { request, response } = open(&first, Some(9), "");
    request.finish(HeaderBlock::new());
    let (mut stream, _) = take(&listener).await;
    drop((first, response));
    let mut second = pair(&route, &outcomes).await;
    // The break may be seen a moment after the new session is there; then the end alone is reported.
    stream.write_all(b"HTTP/1.1 201 Created\r\nX-A: 1\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
    let finished = loop {
        match outcome(&mut second).await {
            OutcomeState::Running => {}
            other => break other,
        }
    };
    let OutcomeState::Finished { head, body, truncated } = finished else { panic!("{finished:?}") };
    assert_eq!((head.status, &body[..], truncated), (201, &b"done"[..], false));
    // It is reported again in a third session within a minute: nobody knows whether it arrived.
    drop(second);
    let mut third = pair(&route, &outcomes).await;
    assert!(matches!(outcome(&mut third).await, OutcomeState::Finished { .. }));
}

#[tokio::test]
async fn an_answer_that_was_cut_midway_is_reported_whole() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let first = pair(&route, &outcomes).await;
    let Exchange { request, response } = open(&first, Some(9), "");
    request.finish(HeaderBlock::new());
    let (mut stream, _) = take(&listener).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
    stream.write_all(&[1; 10]).await.unwrap();
    let (head, body) = timeout(PATIENCE, response.head()).await.unwrap().unwrap();
    assert_eq!(head.status, 200);
    drop((first, body));
    let mut second = pair(&route, &outcomes).await;
    stream.write_all(&vec![2; 99_990]).await.unwrap();
    let finished = loop {
        match outcome(&mut second).await {
            OutcomeState::Running => {}
            other => break other,
        }
    };
    let OutcomeState::Finished { body, truncated, .. } = finished else { panic!("{finished:?}") };
    assert!(truncated && body.len() == relay_proto::MAX_OUTCOME_BODY_BYTES);
    assert_eq!((&body[..10], body[10]), (&[1; 10][..], 2));
}

#[tokio::test]
async fn without_a_fence_the_handlers_connection_is_closed_with_the_session() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let first = pair(&route, &outcomes).await;
    let exchange = open(&first, None, "");
    exchange.request.finish(HeaderBlock::new());
    let (mut stream, _) = take(&listener).await;
    drop(first);
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0, "closed");
}

#[tokio::test]
async fn an_attempt_is_not_called_after_a_newer_one_of_its_event() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let (first, second) = (pair(&route, &outcomes).await, pair(&route, &outcomes).await);
    for (pair, fence, number) in [(&first, 2, 0), (&second, 3, 1)] {
        let exchange = open(pair, Some(fence), "");
        exchange.request.finish(HeaderBlock::new());
        let (mut stream, _) = take(&listener).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert_eq!(timeout(PATIENCE, exchange.response.head()).await.unwrap().unwrap().0.status, 200, "{number}");
    }
    for fence in [1, 2, 3] {
        assert_eq!(reset(open(&first, Some(fence), "")).await, Broken::Reset(ResetCode::NotCalled), "{fence}");
    }
    // Another event, and a copy or a replay, which have no fence.
    for other in [RequestHead { event_id: [5; 16], ..head(Some(1), "") }, head(None, "")] {
        let exchange = first.relay.open(other).unwrap();
        exchange.request.finish(HeaderBlock::new());
        let (mut stream, _) = take(&listener).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert_eq!(timeout(PATIENCE, exchange.response.head()).await.unwrap().unwrap().0.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_kept_for_a_minute_and_so_many_at_most() {
    let outcomes = Outcomes::default();
    let attempt = |fence| Attempt::of(&head(Some(fence), "")).unwrap();
    let failed = || OutcomeState::Failed(ResetCode::Broken);
    outcomes.outlived(attempt(1));
    for fence in 2..=outcomes::MAX_KEPT as u64 + 10 {
        outcomes.ended(attempt(fence), failed());
    }
    assert_eq!(outcomes.kept(), (1, outcomes::MAX_KEPT - 1), "what still runs stays");
    tokio::time::advance(outcomes::KEPT_FOR / 2).await;
    outcomes.ended(attempt(1), failed());
    assert_eq!(outcomes.kept(), (0, outcomes::MAX_KEPT));
    tokio::time::advance(outcomes::KEPT_FOR / 2).await;
    outcomes.outlived(attempt(5000));
    assert_eq!(outcomes.kept(), (1, 1), "the others are a minute old");
}

async fn reset(exchange: Exchange) -> Broken {
    exchange.request.finish(HeaderBlock::new());
    timeout(PATIENCE, exchange.response.head()).await.unwrap().map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn a_head_that_means_no_request_or_two_is_not_carriable_and_the_handler_sees_nothing() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let pair = pair(&route, &outcomes).await;
    let lines = |lines: &[(&'static str, &'static str)]| lines.iter().copied().collect::<HeaderBlock>();
    let plain = || head(None, "");
    let heads = [
        RequestHead { method: "CONNECT".into(), ..plain() },
        RequestHead { method: "NO METHOD".into(), ..plain() },
        RequestHead { target: "x".into(), ..plain() },
        RequestHead { target: "/a b".into(), ..plain() },
        RequestHead { target: Bytes::from_static(b"/\xff"), ..plain() },
        RequestHead { headers: lines(&[("x-bad", "\x01")]), ..plain() },
        RequestHead { headers: lines(&[("content-length", "2, 2")]), ..plain() },
        RequestHead { headers: lines(&[("content-length", "2"), ("content-length", "2")]), ..plain() },
        RequestHead { headers: lines(&[("content-length", "+2")]), ..plain() },
        RequestHead { headers: lines(&[("content-length", "")]), ..plain() },
        RequestHead { headers: lines(&[("content-length", "99999999999999999999")]), ..plain() },
        RequestHead { headers: lines(&[("content-length", "5")]), ..head(None, "websocket") },
        RequestHead { framing: Framing::Chunked, ..head(None, "websocket") },
    ];
    for head in heads {
        let exchange = pair.relay.open(head.clone()).unwrap();
        assert_eq!(reset(exchange).await, Broken::Reset(ResetCode::NotCarriable), "{head:?}");
    }
    let exchange = pair.relay.open(RequestHead { target: "/seen".into(), ..plain() }).unwrap();
    exchange.request.finish(HeaderBlock::new());
    let (_stream, seen) = take(&listener).await;
    assert!(seen.starts_with("GET /seen HTTP/1.1\r\n"), "the first that it sees: {seen}");
}

#[tokio::test]
async fn what_concerns_one_hop_is_taken_out_also_where_a_relay_sends_it() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let pair = pair(&route, &outcomes).await;
    let lines = [
        ("connection", "x-named, keep-alive"),
        ("x-named", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "close"),
        ("transfer-encoding", "gzip"),
        ("upgrade", "h2c"),
        ("te", "gzip, trailers"),
        ("expect", "100-continue"),
        ("x-own", "1"),
    ];
    let exchange = pair.relay.open(RequestHead { headers: lines.into_iter().collect(), ..head(None, "") }).unwrap();
    exchange.request.finish(HeaderBlock::new());
    let (_stream, seen) = take(&listener).await;
    let mut names: Vec<_> = seen.lines().skip(1).filter(|line| !line.is_empty()).collect();
    names.sort_unstable();
    let host = format!("host: {}", listener.local_addr().unwrap());
    assert_eq!(names, ["connection: te", host.as_str(), "te: trailers", "x-own: 1"]);
}

#[tokio::test]
async fn a_body_of_another_length_than_its_head_says_never_looks_whole() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let pair = pair(&route, &outcomes).await;
    for sent in [&b"short"[..], b"much too long"] {
        let headers = [("content-length", "8")].into_iter().collect();
        let mut exchange = pair.relay.open(RequestHead { headers, ..head(None, "") }).unwrap();
        exchange.request.send(Bytes::from_static(sent)).await.unwrap();
        let failed = async { assert_eq!(reset(exchange).await, Broken::Reset(ResetCode::Broken)) };
        let seen = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut seen)).await.unwrap();
            let head = seen.windows(4).position(|end| end == b"\r\n\r\n").map_or(seen.len(), |end| end + 4);
            assert!(seen.len() - head < 8, "a body that is not whole: {:?}", String::from_utf8_lossy(&seen));
        };
        tokio::join!(failed, seen);
    }
}

async fn text(body: &mut Receiver) -> Option<Vec<u8>> {
    use http_body_util::BodyExt;
    let frame = timeout(PATIENCE, body.frame()).await.unwrap()?;
    Some(frame.unwrap().into_data().unwrap().to_vec())
}

#[tokio::test]
async fn an_upgrade_carries_raw_bytes_and_half_closes() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let pair = pair(&route, &outcomes).await;
    let Exchange { mut request, response } = open(&pair, None, "chat");
    let (mut stream, head) = take(&listener).await;
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: chat\r\n"), "{head}");
    stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nhi")
        .await
        .unwrap();
    let (head, mut body) = timeout(PATIENCE, response.head()).await.unwrap().unwrap();
    assert_eq!(head.status, 101);
    assert!(head.headers.iter().any(|(name, value)| name == b"upgrade" && value == b"chat"));
    assert_eq!(text(&mut body).await.unwrap(), b"hi");
    stream.shutdown().await.unwrap();
    assert_eq!(text(&mut body).await, None, "the handler's half is closed");
    request.send(Bytes::from_static(b"still here")).await.unwrap();
    request.finish(HeaderBlock::new());
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"still here");
}

#[tokio::test]
async fn an_upgrade_that_the_user_did_not_name_calls_nobody() {
    let ((_listener, route), outcomes) = (handler().await, Arc::default());
    let pair = pair(&route, &outcomes).await;
    for asked in ["h2c", "websocket, h2c", "chat/2", "TLS/1.0"] {
        let Exchange { request: _request, response } = open(&pair, None, asked);
        let refused = timeout(PATIENCE, response.head()).await.unwrap().err();
        assert_eq!(refused, Some(Broken::Reset(ResetCode::NotCalled)), "{asked}");
    }
}

/// What is written, for a look at it.
#[derive(Clone, Default)]
struct Shelf(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_line_is_short_however_much_a_relay_sends() {
    let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
    let greeting = tokio::spawn(relay_tunnel::relay(ours, Vec::new(), Limits::relay()));
    let agent = tokio::spawn(relay_tunnel::agent(theirs, Vec::new(), Hello::default(), Limits::agent()));
    let (relay, _heard, driver) = greeting.await.unwrap().unwrap().welcome(Welcome::default());
    let _relay_task = AbortOnDropHandle::new(tokio::spawn(async { drop(driver.await) }));
    let (_, _, mut arrivals, driver) = agent.await.unwrap().unwrap();
    let _agent_task = AbortOnDropHandle::new(tokio::spawn(async { drop(driver.await) }));
    for output in [Output::Interactive, Output::Json] {
        let out = Shelf::default();
        let reporter = Reporter::to_writers(output, out.clone(), std::io::sink());
        let long = "\u{9b}".repeat(15_000);
        let headers = [("relay-replay-of", &long)].into_iter().collect();
        let target = format!("/{long}").into();
        let _open = relay.open(RequestHead { target, headers, ..head(None, "") }).unwrap();
        let Some(Arrival::Request(request)) = timeout(PATIENCE, arrivals.next()).await.unwrap() else { panic!("none") };
        serve(request, None, Watchers { reporter: reporter.clone(), ..watchers(&Arc::default()) }).await;
        reporter.flush(PATIENCE);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("endpoint_not_offered") && text.len() < 16_000, "{} bytes", text.len());
    }
}

#[tokio::test]
async fn the_tap_sees_the_bytes_at_the_handlers_socket_and_the_times_of_both_directions() {
    let (listener, route) = handler().await;
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let greeting = tokio::spawn(relay_tunnel::relay(ours, Vec::new(), Limits::relay()));
    let agent = tokio::spawn(relay_tunnel::agent(theirs, Vec::new(), Hello::default(), Limits::agent()));
    let (relay, _heard, driver) = greeting.await.unwrap().unwrap().welcome(Welcome::default());
    let _relay_task = AbortOnDropHandle::new(tokio::spawn(async { drop(driver.await) }));
    let (_, _, mut arrivals, driver) = agent.await.unwrap().unwrap();
    let _agent_task = AbortOnDropHandle::new(tokio::spawn(async { drop(driver.await) }));
    let tap = Arc::new(Tap::default());
    let headers = [("content-length", "5"), ("authorization", "of the sender")].into_iter().collect();
    let mut exchange = relay.open(RequestHead { method: "POST".into(), headers, ..head(None, "") }).unwrap();
    let Some(Arrival::Request(request)) = timeout(PATIENCE, arrivals.next()).await.unwrap() else { panic!("none") };
    let serving = Watchers { tap: Some(Arc::clone(&tap)), ..watchers(&Arc::default()) };
    let serving = tokio::spawn(serve(request, Some(route), serving));
    exchange.request.send(Bytes::from_static(b"hello")).await.unwrap();
    exchange.request.finish(HeaderBlock::new());
    let _response = exchange.response;
    let (mut stream, _) = take(&listener).await;
    let mut body = [0; 5];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(tap.counts().exchanges, 0, "it is pushed at its end");
    stream.write_all(b"HTTP/1.1 201 Created\r\nX-Own: 1\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    timeout(PATIENCE, serving).await.unwrap().unwrap();
    let seen = tap.of(&event_name([4; 16]));
    let [seen] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(
        (seen.line.outcome.clone(), seen.attempt, &seen.request.kept[..]),
        (crate::report::Outcome::Status(201), 3, &b"hello"[..])
    );
    assert_eq!((seen.request.sha256, seen.answer.sha256), (sum(b"hello"), sum(b"ok")));
    assert!(seen.head.starts_with(b"POST /x HTTP/1.1\r\n"), "{:?}", seen.head);
    let order = [Some(seen.called_us), seen.sent_us, seen.head_us, seen.ended_us];
    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{order:?}");
}

fn sum(text: &[u8]) -> Option<[u8; 32]> {
    Some(<[u8; 32]>::from(sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(text))))
}

#[tokio::test]
async fn the_relay_is_told_what_went_to_the_handler_where_it_asks_and_all_of_it_went() {
    let ((listener, route), outcomes) = (handler().await, Arc::default());
    let pair = pair(&route, &outcomes).await;
    for (asks_sha256, is_whole, told) in [(true, true, sum(b"hello")), (true, false, None), (false, true, None)] {
        let headers = [("content-length", "5")].into_iter().collect();
        let head = RequestHead { asks_sha256, headers, ..head(None, "") };
        let Exchange { mut request, response } = pair.relay.open(head).unwrap();
        request.send(Bytes::from_static(b"hel")).await.unwrap();
        let (mut stream, _) = take(&listener).await;
        let mut unfinished = Some(request);
        if is_whole && let Some(mut request) = unfinished.take() {
            request.send(Bytes::from_static(b"lo")).await.unwrap();
            request.finish(HeaderBlock::new());
            stream.read_exact(&mut [0; 5]).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let (answer, _) = timeout(PATIENCE, response.head()).await.unwrap().unwrap();
        assert_eq!(answer.sha256_in, told, "asked: {asks_sha256}, whole: {is_whole}");
    }
    let Exchange { request, response } = pair.relay.open(RequestHead { asks_sha256: true, ..head(None, "") }).unwrap();
    request.finish(HeaderBlock::new());
    let (mut stream, _) = take(&listener).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(timeout(PATIENCE, response.head()).await.unwrap().unwrap().0.sha256_in, sum(b""), "no body is empty");
}
