//! Exchanges that are more than a request and then an answer: upgrades, and answers before the request's end.

use std::{path::Path, time::Duration};

use relay_tests::process::{Agent, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);
const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

/// A relay, an agent, and a handler that is a bare socket.
async fn start() -> (Server, Agent, TcpListener) {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let server = Server::start(program, "127.0.0.1:0", OPEN, &[]).await.expect("a relay");
    let handler = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = handler.local_addr().expect("bound").port().to_string();
    let agent = server.agent("open", &port, &[]).await.expect("an agent");
    (server, agent, handler)
}

/// Reads up to and with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    let read = async {
        while !seen.ends_with(end.as_bytes()) {
            seen.push(stream.read_u8().await.expect("more"));
        }
    };
    timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("{end:?} did not come"));
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn an_upgrade_passes_through_and_each_half_closes_by_itself() {
    let (server, _agent, handler) = start().await;
    let mut sender = TcpStream::connect(&server.public).await.expect("connects");
    let request = b"GET /open/chat?room=1 HTTP/1.1\r\nHost: hook.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    sender.write_all(request).await.expect("sends");
    let (mut handler, _) = timeout(PATIENCE, handler.accept()).await.expect("in time").expect("a call");
    let head = read_until(&mut handler, "\r\n\r\n").await;
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    for line in ["upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="] {
        assert!(head.lines().any(|seen| seen == line), "{line} is missing in {head}");
    }
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello";
    handler.write_all(answer).await.expect("answers");
    let head = read_until(&mut sender, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: websocket\r\n"), "{head}");
    read_until(&mut sender, "hello").await;
    sender.write_all(b"from the sender").await.expect("sends");
    sender.shutdown().await.expect("half-closes");
    let mut rest = Vec::new();
    timeout(PATIENCE, handler.read_to_end(&mut rest)).await.expect("in time").expect("an end");
    assert_eq!(rest, b"from the sender");
    handler.write_all(b"and one last word").await.expect("the other half is open");
    drop(handler);
    rest.clear();
    timeout(PATIENCE, sender.read_to_end(&mut rest)).await.expect("in time").expect("an end");
    assert_eq!(rest, b"and one last word");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer_like_any_other() {
    let (server, _agent, handler) = start().await;
    let mut sender = TcpStream::connect(&server.public).await.expect("connects");
    let request = b"GET /open HTTP/1.1\r\nHost: hook.test\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    sender.write_all(request).await.expect("sends");
    let (mut handler, _) = timeout(PATIENCE, handler.accept()).await.expect("in time").expect("a call");
    read_until(&mut handler, "\r\n\r\n").await;
    handler.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await.expect("answers");
    let answer = read_until(&mut sender, "\r\n\r\nno").await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("upgrade"), "{answer}");
}

#[tokio::test]
async fn an_answer_before_the_requests_end_arrives_whole_and_the_request_goes_on_beside_it() {
    let (server, _agent, handler) = start().await;
    let mut sender = TcpStream::connect(&server.public).await.expect("connects");
    let request = b"POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 9\r\n\r\none";
    sender.write_all(request).await.expect("sends");
    let (mut handler, _) = timeout(PATIENCE, handler.accept()).await.expect("in time").expect("a call");
    read_until(&mut handler, "one").await;
    handler.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").await.expect("answers");
    read_until(&mut sender, "early\r\n").await;
    sender.write_all(b"two").await.expect("sends on");
    read_until(&mut handler, "two").await;
    sender.write_all(b"end").await.expect("sends on");
    read_until(&mut handler, "end").await;
    handler.write_all(b"4\r\nlate\r\n0\r\n\r\n").await.expect("ends");
    read_until(&mut sender, "late\r\n0\r\n\r\n").await;
}
