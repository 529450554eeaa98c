//! Connecting, against listeners that answer with given bytes or upgrade for real.

use std::path::Path;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::config::{Proxy, TokenSource};

/// Connects without a proxy.
async fn connect(relay: &RelayUrl, relay_ca: Option<&Path>, token: &Token) -> Result<Link, LinkError> {
    let way =
        Way { relay: relay.clone(), relay_ca: relay_ca.map(Path::to_owned), identity: None, proxy: Proxy::Direct };
    super::connect(&way, token).await
}

fn token() -> Token {
    TokenSource::from_reader(&b"s3cret"[..]).unwrap().read().unwrap()
}

async fn listener() -> (TcpListener, RelayUrl) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, relay)
}

/// Reads one head, answers with what `answer` makes of it, and returns the head.
async fn answer_once(listener: TcpListener, answer: impl FnOnce(&str) -> String) -> String {
    let (stream, _) = listener.accept().await.unwrap();
    answer_on(stream, answer).await
}

async fn answer_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl FnOnce(&str) -> String) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    stream.write_all(answer(&head).as_bytes()).await.unwrap();
    head
}

/// Connects to a relay that gives this answer.
async fn connect_to(answer: impl FnOnce(&str) -> String) -> (Result<Link, LinkError>, String) {
    let (listener, relay) = listener().await;
    let token = token();
    tokio::join!(connect(&relay, None, &token), answer_once(listener, answer))
}

fn upgraded(head: &str, protocol: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    )
}

#[tokio::test]
async fn an_upgrade_carries_the_token_and_the_subprotocol() {
    let (link, head) = connect_to(|head| upgraded(head, "Sec-WebSocket-Protocol: relay.v1\r\n")).await;
    assert!(matches!(link.unwrap().stream, Stream::Left(_)));
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("get /_relay/v1/connect http/1.1\r\n"), "{head}");
    for line in ["authorization: bearer s3cret", "sec-websocket-protocol: relay.v1", "connection: upgrade"] {
        assert!(head.lines().any(|other| other == line), "{line} is missing in {head}");
    }
    assert!(head.contains("\r\nuser-agent: relay-client/"), "{head}");
}

#[tokio::test]
async fn another_subprotocol_is_no_relay() {
    for protocol in ["", "Sec-WebSocket-Protocol: relay.v2\r\n"] {
        let error = connect_to(|head| upgraded(head, protocol)).await.0.unwrap_err();
        assert_eq!(error.turned_away(), Some(TurnedAway::ByStranger), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_brings_the_relays_own_words() {
    let body = r#"{"error":"unauthorized","message":"ask for a new token"}"#;
    let answer = format!("HTTP/1.1 401 No\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let error = connect_to(|_| answer).await.0.unwrap_err();
    assert_eq!(error.to_string(), "HTTP 401 unauthorized: ask for a new token");
    assert_eq!(error.turned_away(), Some(TurnedAway::ByRelay));
    assert!(error.is_token_refusal());
}

#[tokio::test]
async fn a_refusal_without_the_relays_own_word_is_a_strangers() {
    let page = "<h1>No</h1>";
    let mine = r#"{"error":"unauthorized"}"#;
    for (status, server, body) in [
        ("401 No", "nginx", page),
        ("403 No", "nginx", page),
        ("404 No", "nginx", page),
        ("404 No", "nginx", mine),
        ("403 No", "nginx", r#"{"error":"forbidden"}"#),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\nServer: {server}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let error = connect_to(|_| answer).await.0.unwrap_err();
        assert_eq!(error.turned_away(), Some(TurnedAway::ByStranger), "{error}");
        assert!(!error.is_token_refusal());
        assert!(body != page || error.to_string().ends_with(" from nginx"), "{error}");
    }
    for status in ["200 OK", "301 No", "408 No", "429 No", "503 No"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(connect_to(|_| answer).await.0.unwrap_err().turned_away(), None, "{status}");
    }
}

#[tokio::test]
async fn words_that_come_after_the_head_are_read_too() {
    let (listener, relay) = listener().await;
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer_on(&mut stream, |_| "HTTP/1.1 403 No\r\nContent-Length: 21\r\n\r\n".to_owned()).await;
        tokio::task::yield_now().await;
        stream.write_all(br#"{"error":"forbidden"}"#).await.unwrap();
    };
    let token = token();
    let (result, ()) = tokio::join!(connect(&relay, None, &token), answer);
    assert_eq!(result.unwrap_err().to_string(), "HTTP 403 forbidden: the token may not do this");
}

#[tokio::test]
async fn bytes_behind_the_upgrade_are_kept() {
    let answer = |head: &str| upgraded(head, "Sec-WebSocket-Protocol: relay.v1\r\n") + "early";
    let (link, _) = connect_to(answer).await;
    assert_eq!(link.unwrap().leftover, b"early");
}

#[tokio::test]
async fn an_upgrade_for_somebody_else_is_no_upgrade() {
    let answer = |_: &str| upgraded("sec-websocket-key: other", "Sec-WebSocket-Protocol: relay.v1\r\n");
    let error = connect_to(answer).await.0.unwrap_err();
    assert_eq!(error.turned_away(), Some(TurnedAway::ByStranger), "{error}");
}

#[tokio::test]
async fn other_protocols_are_told_apart() {
    let error = connect_to(|_| "220 mail.example.com ESMTP\r\n".to_owned()).await.0.unwrap_err();
    assert!(matches!(error, LinkError::Protocol(_)), "{error}");
    let error = connect_to(|_| String::new()).await.0.unwrap_err();
    assert_eq!(error, LinkError::Unreachable("the connection closed before the relay answered".into()));
}

#[tokio::test]
async fn a_busy_relay_is_no_refusal() {
    let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
    let error = connect_to(|_| answer.to_owned()).await.0.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(!error.is_refusal());
    assert_eq!(error.to_string(), "HTTP 503");
}

#[tokio::test]
async fn a_redirect_is_explained_and_not_followed() {
    let answer = "HTTP/1.1 301 Moved\r\nLocation: https://elsewhere\r\nContent-Length: 0\r\n\r\n";
    let error = connect_to(|_| answer.to_owned()).await.0.unwrap_err();
    assert_eq!(error.to_string(), "HTTP 301: it redirects; name the relay's own address");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (listener, relay) = listener().await;
    drop(listener);
    let error = connect(&relay, None, &token()).await.unwrap_err();
    let authority = &relay.authority;
    assert_eq!(error.to_string(), format!("{authority}: connection refused ({authority})"));
}

#[tokio::test]
async fn a_relay_of_ones_own_needs_its_ca_file() {
    let (config, ca) = tls::testing::server();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay: RelayUrl = format!("wss://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let serve = async {
        let (stranger, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stranger).await.is_err(), "nothing is sent to a relay that is not believed");
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        answer_on(stream, |head| upgraded(head, "Sec-WebSocket-Protocol: relay.v1\r\n")).await
    };
    let token = token();
    let both = async {
        let refused = connect(&relay, None, &token).await.unwrap_err();
        (refused, connect(&relay, Some(ca.path()), &token).await)
    };
    let ((refused, accepted), _) = tokio::join!(both, serve);
    let expected = "its certificate is signed by an unknown issuer; trust it with --relay-ca";
    assert_eq!(refused.to_string(), format!("{}: {expected}", relay.authority));
    assert!(matches!(accepted.unwrap().stream, Stream::Right(_)));
}

#[tokio::test]
async fn a_plain_port_is_told_from_tls() {
    let (listener, relay) = listener().await;
    let secure = format!("https://{}", relay.authority).parse().unwrap();
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };
    let token = token();
    let (result, ()) = tokio::join!(connect(&secure, None, &token), answer);
    let error = result.unwrap_err().to_string();
    assert!(error.ends_with(": it does not speak TLS on this port"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_relay_is_given_up() {
    let (listener, relay) = listener().await;
    let hold = async {
        let (_stream, _) = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    };
    let token = token();
    tokio::select! {
        result = connect(&relay, None, &token) => {
            let error = result.unwrap_err().to_string();
            assert!(error.ends_with("accepted but did not answer within 10 s"), "{error}");
        }
        () = hold => unreachable!(),
    }
}

#[test]
fn no_error_shows_the_token() {
    let relay: RelayUrl = "https://h".parse().unwrap();
    let request = request(&relay, &token(), "key").unwrap();
    assert!(!format!("{request:?}").contains("s3cret"));
}
