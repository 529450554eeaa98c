//! What the supervisor makes of failures: waits and ends, without a relay and without time.

use relay_proto::{Attached, Limits, OfferState, Welcome};
use relay_tunnel::Greeting;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use uuid::Uuid;

use super::*;
use crate::{
    config::{EndpointConfig, HandlerConfig, Proxy, TokenSource, Way},
    handler::TargetConfig,
    report::Output,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn supervisor(on_refused: OnRefused) -> Supervisor {
    let handler =
        HandlerConfig { target: TargetConfig::new("9".parse().unwrap()), headers: Vec::new(), preserve_host: false };
    let config = Config {
        way: Way {
            relay: "https://relay.invalid".parse().unwrap(),
            relay_ca: None,
            identity: None,
            proxy: Proxy::Direct,
        },
        token: TokenSource::from_reader(&b"s3cret"[..]).unwrap(),
        name: "test".to_owned(),
        instance: Uuid::nil(),
        endpoints: vec![EndpointConfig::new(Some("e".to_owned()), handler)],
        since: None,
        on_refused,
        files: Vec::new(),
    };
    let table = Table::new(&config, &Table::default()).unwrap();
    let shared = Shared::new(
        table,
        Reporter::to_writers(Output::Quiet, std::io::sink(), std::io::sink()),
        StatusSender::default(),
        None,
    );
    Supervisor::new(Arc::new(config), shared)
}

fn refused() -> Failed {
    Failed::Refused { why: "no".to_owned(), code: None }
}

/// From now to the next attempt.
fn wait(supervisor: &Supervisor) -> Duration {
    supervisor.opening.as_ref().expect("an attempt").at - Instant::now()
}

/// An agent whose relay is `relay`, once its hello is there: how the agent ended, or what the relay had to say.
async fn beside<T>(relay: impl AsyncFnOnce(Greeting<TcpStream>) -> T) -> Result<T, RunError> {
    beside_stream(async |stream| relay(relay_tunnel::relay(stream, Vec::new(), Limits::relay()).await.unwrap()).await)
        .await
}

/// The same with the WebSocket's stream.
async fn beside_stream<T>(relay: impl AsyncFnOnce(TcpStream) -> T) -> Result<T, RunError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::clone(&supervisor(OnRefused::Exit).config);
    config.way.relay = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (_settings, watched) = watch::channel(Arc::new(config));
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: relay.v1\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        relay(stream).await
    };
    let reporter = Reporter::to_writers(Output::Quiet, std::io::sink(), std::io::sink());
    let running = run(watched, reporter, StatusSender::default(), None, CancellationToken::new());
    tokio::select! {
        ended = timeout(PATIENCE, running) => Err(ended.expect("in time").expect_err("nobody stopped it")),
        said = serving => Ok(said),
    }
}

fn answer(endpoint: &str) -> Attached {
    let (url, provider) = (String::new(), "none".to_owned());
    Attached { endpoint: endpoint.to_owned(), state: OfferState::Accepted, url, provider }
}

#[tokio::test]
async fn a_close_that_refuses_ends_the_agent_also_after_it_was_welcome() {
    let ended = beside(async |greeting| {
        let (handle, _arrivals, driver) =
            greeting.welcome(Welcome { epoch: 1, endpoints: vec![answer("e")], ..Welcome::default() });
        handle.close(CloseCode::Refused, "not here any more");
        driver.await;
        std::future::pending::<()>().await;
    });
    assert!(matches!(ended.await, Err(RunError::Refused(why)) if why == "not here any more"));
}

#[tokio::test]
async fn a_close_that_refuses_ends_the_agent_before_its_welcome() {
    for code in [CloseCode::Unauthorized, CloseCode::Refused] {
        let ended = beside_stream(async |mut stream| {
            // A message with one CLOSE: its code, and "no".
            stream.write_all(&[0x82, 8, 14, 0, 0, 4, code as u8, 2, b'n', b'o']).await.unwrap();
            std::future::pending::<()>().await;
        });
        assert!(matches!(ended.await, Err(RunError::Refused(why)) if why == "no"), "{code:?}");
    }
}

#[tokio::test]
async fn a_welcome_that_does_not_answer_the_offers_is_told_to_be_wrong() {
    for endpoints in [vec![], vec![answer("another")], vec![answer("e"), answer("e")]] {
        let welcome = Welcome { epoch: 1, endpoints, ..Welcome::default() };
        let told = beside(async |greeting| {
            let (_handle, _arrivals, driver) = greeting.welcome(welcome);
            timeout(PATIENCE, driver).await.expect("the agent does not wait")
        });
        assert_eq!(told.await.expect("it goes on trying").code, CloseCode::ProtocolError);
    }
}

#[tokio::test(start_paused = true)]
async fn start_asks_again_after_a_minute_and_listen_ends() {
    let mut start = supervisor(OnRefused::RetryAfter(Duration::from_secs(60)));
    for _ in 0..3 {
        start.failed(refused()).unwrap();
        assert_eq!(wait(&start), Duration::from_secs(60), "no more, however often");
    }
    let ended = supervisor(OnRefused::Exit).failed(refused());
    assert!(matches!(ended, Err(RunError::Refused(why)) if why == "no"));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_ends_the_first_try_and_no_later_one() {
    let stranger = || Failed::Stranger { why: "HTTP 404 from nginx".to_owned() };
    let Err(RunError::Refused(why)) = supervisor(OnRefused::Exit).failed(stranger()) else { panic!("it ends") };
    let tells =
        why.starts_with("HTTP 404 from nginx; ") && why.contains("`curl -i https://relay.invalid/_relay/v1/connect`");
    assert!(tells, "{why}");
    let mut listen = supervisor(OnRefused::Exit);
    listen.known = Some(listen.config.way.relay.clone());
    for _ in 0..100 {
        listen.failed(stranger()).unwrap();
        assert!(wait(&listen) <= Duration::from_secs(30));
    }
    let ended = listen.failed(refused());
    assert!(matches!(ended, Err(RunError::Refused(_))), "the relay's own word counts");
    let mut moved = Config::clone(&listen.config);
    moved.way.relay = "https://elsewhere.invalid".parse().unwrap();
    listen.take_over(Arc::new(moved));
    assert!(listen.failed(stranger()).is_err(), "nobody has seen a relay there");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_not_there_is_tried_for_ever_and_when_it_asks() {
    let mut listen = supervisor(OnRefused::Exit);
    let lost = |retry_after| Failed::Lost { why: "away".to_owned(), retry_after };
    listen.failed(lost(None)).unwrap();
    assert!(wait(&listen) <= Duration::from_secs(1));
    for _ in 0..100 {
        listen.failed(lost(None)).unwrap();
        assert!(wait(&listen) <= Duration::from_secs(30));
    }
    listen.failed(lost(Some(Duration::from_secs(120)))).unwrap();
    assert!(wait(&listen) >= Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn other_settings_are_tried_at_once_and_unusable_ones_are_not() {
    let mut start = supervisor(OnRefused::RetryAfter(Duration::from_secs(60)));
    start.failed(refused()).unwrap();
    let mut config = Config::clone(&start.config);
    config.token = TokenSource::File("/nowhere/token".into());
    start.take_over(Arc::new(config.clone()));
    assert_eq!(wait(&start), Duration::from_secs(60), "a token that cannot be read changes nothing");
    assert_ne!(*start.config, config);
    config.token = TokenSource::from_reader(&b"other"[..]).unwrap();
    start.take_over(Arc::new(config.clone()));
    assert_eq!(wait(&start), Duration::ZERO);
    assert_eq!(*start.config, config);
}
