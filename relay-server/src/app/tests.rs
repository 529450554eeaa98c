//! Whole relays in this process, on sockets that the test bound.

use std::{
    io::{Read as _, Seek as _},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use relay_proto::{CONNECT_PATH, HeaderBlock, Hello, Limits, Offer, ResponseHead, names};
use relay_tunnel::{Arrival, Arrivals, Request as Asked};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::filter::LevelFilter;

use super::*;
use crate::{
    agents::token::AgentToken,
    config::{Dev, Flags, PublicListener},
    ingress::PublicSocket,
    log::JsonLines,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A relay for trying things out, with the open endpoint `dev`, and its agents' token.
async fn relay() -> (Relay, AgentToken) {
    let (app, token) = built().await;
    (app.serve().expect("it serves"), token)
}

async fn built() -> (App, AgentToken) {
    let listener = || {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        listener
    };
    let token = AgentToken::generate().expect("randomness");
    let flags = Flags { dev: Some(Dev { token: token.clone() }), ..Flags::default() };
    let source = ConfigSource { flags, ..ConfigSource::default() };
    let config = source.load().expect("a config");
    let public = OpenListener {
        socket: PublicSocket::Tcp(listener()),
        settings: Arc::new(PublicListener::at(Listen::Address(SocketAddr::from(([127, 0, 0, 1], 0))))),
    };
    let sockets = Sockets { public: vec![public], http: None, admin: listener(), max_connections: 100 };
    (App::build(&source, &config, sockets).await.expect("a relay"), token)
}

async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(to).await.expect("connects");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("begins");
    tokio::spawn(connection.with_upgrades());
    timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer")
}

fn webhook(to: SocketAddr) -> Request<Full<Bytes>> {
    let request = Request::post("/dev/orders?x=1").header(header::HOST, to.to_string());
    request.body(Full::from("a webhook")).expect("a request")
}

/// Attaches an agent and gives its end of the tunnel.
async fn attach(to: SocketAddr, token: &AgentToken) -> Arrivals {
    let request = Request::get(CONNECT_PATH)
        .header(header::HOST, to.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()))
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    let response = send(to, request.body(Full::default()).expect("a request")).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.expect("a WebSocket"));
    let hello = Hello {
        name: "agent".to_owned(),
        offers: vec![Offer { endpoint: "dev".to_owned(), capacity: 10, ..Offer::default() }],
        ..Hello::default()
    };
    let agent = relay_tunnel::agent(upgraded, Vec::new(), hello, Limits::agent());
    let (welcome, handle, arrivals, driver) = timeout(PATIENCE, agent).await.expect("in time").expect("a welcome");
    assert_eq!(welcome.endpoints.len(), 1);
    tokio::spawn(async move {
        let _handle = handle;
        driver.await
    });
    arrivals
}

/// Answers one exchange as a handler would, and says what it was asked for.
async fn handle(arrivals: &mut Arrivals) -> String {
    loop {
        let arrival = timeout(PATIENCE, arrivals.next()).await.expect("in time").expect("a session");
        let Arrival::Request(Asked { head, body, responder }) = arrival else { continue };
        let body = body.collect().await.expect("a body").to_bytes();
        let mut answer = responder.respond(ResponseHead::new(201, HeaderBlock::new()));
        answer.send(Bytes::from_static(b"handled")).await.expect("the relay takes it");
        answer.finish(HeaderBlock::new());
        return format!("{} {}", String::from_utf8_lossy(&head.target), String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn two_relays_serve_in_one_process_and_stop_each_for_itself() {
    let ((one, token), (other, others_token)) = (relay().await, relay().await);
    let (to, elsewhere) = (one.started().public.expect("an address"), other.started().public.expect("an address"));
    let mut agent = attach(to, &token).await;
    let (asked, response) = tokio::join!(handle(&mut agent), send(to, webhook(to)));
    assert_eq!(asked, "/orders?x=1 a webhook");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "handled");
    assert_eq!(send(elsewhere, webhook(elsewhere)).await.status(), StatusCode::OK, "it is kept: no agent is here");

    timeout(PATIENCE, one.drain()).await.expect("nothing is in flight");
    assert!(matches!(timeout(PATIENCE, agent.next()).await, Ok(None | Some(_))), "its agent is told");
    one.stop().await;
    assert!(TcpStream::connect(to).await.is_err(), "nobody listens");

    let mut agent = attach(elsewhere, &others_token).await;
    assert_eq!(handle(&mut agent).await, "/orders?x=1 a webhook");
}

#[tokio::test]
async fn lines_of_requests_and_attempts_name_event_endpoint_and_agent() {
    let mut log = tempfile::tempfile().expect("a file");
    let lines_file = Arc::new(log.try_clone().expect("the same file"));
    let lines = tracing_subscriber::fmt().json().event_format(JsonLines).with_max_level(LevelFilter::TRACE);
    let _entered = tracing::subscriber::set_default(lines.with_writer(lines_file).finish());
    // With one subscriber in the process, a line that a test beside this one reaches first would be switched off for all.
    let _another = tracing::Dispatch::new(NoSubscriber::new());
    let (mut app, token) = built().await;
    app.workers = 1; // The log is this thread's.
    let relay = app.serve().expect("it serves");
    let to = relay.started().public.expect("an address");
    let kept = send(to, webhook(to)).await;
    let id = kept.headers()[names::EVENT_ID].to_str().expect("an id").to_owned();
    handle(&mut attach(to, &token).await).await;
    relay.drain().await;
    let mut text = String::new();
    log.rewind().and_then(|()| log.read_to_string(&mut text)).expect("a log");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let spans_of = |message: &str| {
        let line = lines.iter().rev().find(|line| line["fields"]["message"] == message);
        &line.unwrap_or_else(|| panic!("no {message:?} in {text}"))["spans"]
    };
    let request = json!({ "name": "request", "event_id": id, "endpoint": "dev" });
    let connection = json!({ "name": "connection", "peer": "127.0.0.1" });
    assert_eq!(*spans_of("a request is answered"), json!([connection, request]));
    let attempt = json!({ "name": "attempt", "event_id": id, "endpoint": "dev", "attempt": 1, "agent": "agent" });
    assert_eq!(*spans_of("an attempt has ended"), json!([attempt]));
    let session = &spans_of("an agent attached")[0];
    assert_eq!((&session["name"], &session["agent"]), (&json!("session"), &json!("agent")));
    assert!(session["token"].is_string() && session["epoch"].is_u64(), "{session}");
}
