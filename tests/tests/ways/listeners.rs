//! Public listeners: several at a time, the PROXY protocol, sockets in the file system, and the one that redirects.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use relay_tests::{
    fidelity::wire::Wire,
    handler::Handler,
    process::{PATIENCE, Server, allow_open_files},
    sender::{request, send},
    tls::{certificate, client},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 4242 443\r\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// A header of version 2 with an addition.
fn v2(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 17]);
    header.extend([203, 0, 113, 9, 192, 0, 2, 1, 0x10, 0x92, 1, 0xbb, 4, 0, 2, b'x', b'y']);
    header
}

async fn post<S>(stream: S, more: &[(&str, &str)]) -> anyhow::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let sent: Request<Full<Bytes>> = request("POST", "/open/x", more, "a webhook");
    let (head, body) = sender.send_request(sent).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// A connection that has had its answer and stays.
async fn hold(stream: TcpStream) -> http1::SendRequest<Full<Bytes>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let answer = sender.send_request(request("POST", "/open", &[], "a webhook")).await.expect("an answer");
    answer.into_body().collect().await.expect("whole");
    sender
}

fn said<'r>(response: &'r Response<Bytes>, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

/// A connection from another address of this machine that begins with these bytes.
async fn begin(from: &str, to: &str, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("binds");
    let mut stream = socket.connect(to.parse().expect("an address")).await.expect("connects");
    stream.write_all(bytes).await.expect("writes");
    stream
}

/// Whether the other side closes a connection without a word.
async fn is_closed(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut rest).await;
    rest.is_empty()
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_a_connection_is_and_nobody_else_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = certificate(folder.path()).expect("a certificate");
    let config = format!(
        "trusted_proxies = [\"127.0.0.1/32\"]\nmax_connections_per_address = 2\n\
         [[server.listen]]\naddr = \"127.0.0.1:0\"\ntls = false\n\
         [[server.listen]]\naddr = \"127.0.0.1:0\"\ntls = false\nproxy_protocol = \"any\"\n\
         [[server.listen]]\naddr = \"127.0.0.1:0\"\nproxy_protocol = \"v2\"\n{}{OPEN}",
        relay_tests::tls::settings(folder.path())
    );
    let mut relay = Server::start(program(), "", &config, &[]).await.expect("starts");
    let handler = Handler::echo().await.expect("listens");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let (any, tls) = (relay.listeners[1].clone(), relay.listeners[2].clone());

    for header in [V1.to_vec(), v2(1)] {
        let stream = begin("127.0.0.1", &any, &header).await;
        // The sender is not the proxy: what it says of its way is dropped.
        let answer = post(stream, &[("x-forwarded-for", "198.51.100.1")]).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), said(&answer, "x-seen-x-forwarded-for")), (200, "203.0.113.9"));
    }
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0)] {
        // The proxy speaks for itself, or for it does not know whom: what the request says of its way may be anybody's.
        let forged = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.test"),
            ("x-real-ip", "198.51.100.1"),
        ];
        let answer = post(begin("127.0.0.1", &any, &header).await, &forged).await.expect("an answer");
        let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"];
        let seen = names.map(|name| said(&answer, &format!("x-seen-{name}")).to_owned());
        assert_eq!(seen, ["127.0.0.1", "http", "relay.test", ""], "{}", header.escape_ascii());
    }
    // Under TLS the header stands in front of it.
    let stream = begin("127.0.0.1", &tls, &v2(1)).await;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(client(&trusted, b"http/1.1").expect("settings")).connect(name, stream).await;
    let answer = post(stream.expect("a handshake"), &[]).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), said(&answer, "x-seen-x-forwarded-for")), (200, "203.0.113.9"));

    // Whoever else connects is nobody, whatever it says; so is a proxy without its header.
    assert!(is_closed(begin("127.0.0.2", &any, V1).await).await);
    let line = relay.log_line("without a trusted proxy's header").await.expect("says so");
    assert!(line.contains("127.0.0.2") && line.contains("trusted_proxies"), "{line}");
    for bytes in [&b"POST /open HTTP/1.1\r\nhost: relay.test\r\n\r\n"[..], b"PROXY TCP4 1.2.3.4 nobody 1 2\r\n"] {
        assert!(is_closed(begin("127.0.0.1", &any, bytes).await).await);
    }
    assert!(is_closed(begin("127.0.0.1", &tls, V1).await).await, "version 2 alone is taken there");
    // One that never ends its header gets five seconds.
    assert!(is_closed(begin("127.0.0.1", &any, b"PROXY TCP4 203").await).await);

    // Places are the sender's, not the proxy's.
    let one = b"PROXY TCP4 203.0.113.20 192.0.2.1 4242 443\r\n";
    let _held = [hold(begin("127.0.0.1", &any, one).await).await, hold(begin("127.0.0.1", &any, one).await).await];
    assert!(is_closed(begin("127.0.0.1", &any, one).await).await);
    let other = b"PROXY TCP4 203.0.113.10 192.0.2.1 4242 443\r\n";
    assert_eq!(post(begin("127.0.0.1", &any, other).await, &[]).await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_proxy_of_this_machine_comes_by_a_socket_in_the_file_system() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, proxied) = (folder.path().join("plain.sock"), folder.path().join("proxied.sock"));
    let config = format!(
        "trusted_proxies = [\"127.0.0.1/32\"]\n\
         [[server.listen]]\naddr = \"127.0.0.1:0\"\n[[server.listen]]\naddr = \"[::1]:0\"\nv6only = true\n\
         [[server.listen]]\naddr = \"unix:{}\"\nmode = \"0600\"\n\
         [[server.listen]]\naddr = \"unix:{}\"\nproxy_protocol = \"v1\"\n{OPEN}",
        plain.display(),
        proxied.display()
    );
    let mut relay = Server::start(program(), "", &config, &[]).await.expect("starts");
    let handler = Handler::echo().await.expect("listens");
    let agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    assert_eq!(relay.listeners[2], format!("unix:{}", plain.display()));
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&plain), mode(&proxied)), (0o600, 0o660));

    let stream = UnixStream::connect(&plain).await.expect("connects");
    let answer = post(stream, &[("x-forwarded-for", "203.0.113.9")]).await.expect("an answer");
    let seen = said(&answer, "x-seen-x-forwarded-for");
    assert_eq!((answer.status().as_u16(), seen), (200, "203.0.113.9, 127.0.0.1"), "it counts as 127.0.0.1");
    let mut stream = UnixStream::connect(&proxied).await.expect("connects");
    stream.write_all(V1).await.expect("writes");
    assert_eq!(said(&post(stream, &[]).await.expect("an answer"), "x-seen-x-forwarded-for"), "203.0.113.9");
    let answer = send(&relay.listeners[1], request("POST", "/open", &[], "six")).await.expect("an answer");
    assert_eq!(said(&answer, "x-seen-x-forwarded-for"), "::1");

    // A start after a crash finds the sockets of the one before.
    drop(agent);
    relay.signal("-KILL").await.expect("killed");
    assert!(!relay.ended().await.expect("ends"));
    assert!(plain.exists() && UnixStream::connect(&plain).await.is_err());
    relay.start_again("").await.expect("starts again");
    let _agent = relay.agent("open", &handler.port(), &[]).await.expect("attaches");
    let stream = UnixStream::connect(&plain).await.expect("connects");
    assert_eq!(post(stream, &[]).await.expect("an answer").status(), 200);

    // Two relays do not share one, and what is no socket stays.
    let file = folder.path().join("file");
    fs::write(&file, "mine").expect("writes");
    for (path, words) in [(&plain, "another process"), (&file, "is no socket")] {
        let config = format!(
            "public_url = \"https://relay.test\"\n[[server.listen]]\naddr = \"unix:{}\"\n{OPEN}",
            path.display()
        );
        let error = Server::start(program(), "", &config, &[]).await.err().expect("does not start");
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
    assert_eq!(fs::read_to_string(&file).expect("there"), "mine");
}

#[tokio::test]
async fn the_listener_in_the_clear_redirects_and_does_nothing_else() {
    let config = format!(
        "http_listen = \"127.0.0.1:0\"\npublic_url = \"https://relay.test\"\n{OPEN}\
         [[endpoint]]\nname = \"own\"\nmode = \"live\"\nverify = \"none\"\nhosts = [\"own.test\"]\n"
    );
    let relay = Server::start(program(), "127.0.0.1:0", &config, &[]).await.expect("starts");
    let ask = async |method: &str, host: &str, target: &str| {
        let mut sent = request(method, target, &[], "a body that nobody reads");
        sent.headers_mut().insert("host", host.parse().expect("a host"));
        let answer = send(&relay.http, sent).await.expect("an answer");
        (answer.status().as_u16(), said(&answer, "location").to_owned())
    };
    for (host, target, location) in [
        ("relay.test", "/open?a=%20", "https://relay.test/open?a=%20"),
        ("OWN.test", "/x", "https://own.test/x"),
        ("evil.test", "/x", "https://relay.test/x"),
        ("relay.test", "/_relay/v1/connect", "https://relay.test/_relay/v1/connect"),
    ] {
        assert_eq!(ask("POST", host, target).await, (308, location.to_owned()));
    }
    assert_eq!(ask("GET", "relay.test", "/.well-known/acme-challenge/guess").await, (404, String::new()));
    // A head that is too large, one that never ends, and many that do nothing.
    let mut stream = TcpStream::connect(&relay.http).await.expect("connects");
    let line = format!("x-filler: {}\r\n", "x".repeat(1000));
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nhost: relay.test\r\n{}", line.repeat(20)).as_bytes()).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut slow = TcpStream::connect(&relay.http).await.expect("connects");
    slow.write_all(b"GET / HTTP/1.1\r\nhost: relay.test\r\n").await.expect("writes");
    let mut idle = Vec::new();
    while idle.len() < 40 {
        idle.push(TcpStream::connect(&relay.http).await.expect("connects"));
    }
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await; // It ends within five seconds.
    assert_eq!(ask("GET", "relay.test", "/").await.0, 308, "places are free again");
}

/// A relay with a listener in the clear.
async fn in_the_clear() -> Server {
    let config = format!("http_listen = \"127.0.0.1:0\"\npublic_url = \"https://relay.test\"\n{OPEN}");
    Server::start(program(), "127.0.0.1:0", &config, &[]).await.expect("starts")
}

#[tokio::test]
async fn the_listener_in_the_clear_bounds_heads_and_bodies() {
    const MAX_HEAD: usize = 8 * 1024;
    const MAX_BODY: usize = 64 * 1024;
    let relay = in_the_clear().await;
    let begin = async |bytes: String| {
        let mut wire = Wire::connect(&relay.http).await.expect("connects");
        wire.write(bytes).await.expect("writes");
        wire
    };
    let status = async |wire: &mut Wire| {
        let head = timeout(PATIENCE, wire.head()).await.expect("in time").expect("a head").expect("an answer");
        head.status().expect("a status")
    };
    let head = |line: &str| format!("POST /open HTTP/1.1\r\nhost: relay.test\r\n{line}\r\n\r\n");
    let of = |bytes: usize| head(&format!("x-long: {}", "a".repeat(bytes - head("x-long: ").len())));
    assert_eq!(status(&mut begin(of(MAX_HEAD)).await).await, 308);
    assert_eq!(status(&mut begin(of(MAX_HEAD + 1)).await).await, 431);
    // It waits for a body that it can read to its end, and goes on without the rest of a longer one.
    let mut wire = begin(head(&format!("content-length: {}", 2 * MAX_BODY))).await;
    wire.write(vec![b'x'; MAX_BODY]).await.expect("is read");
    assert!(timeout(Duration::from_millis(500), wire.head()).await.is_err(), "so much is read");
    wire.write("x").await.expect("is read");
    assert_eq!(status(&mut wire).await, 308);
}

#[tokio::test]
async fn the_listener_in_the_clear_has_so_many_places_and_each_for_so_long() {
    const PLACES: usize = 512;
    const LASTS: Duration = Duration::from_secs(5);
    if !allow_open_files(2048).await {
        return println!("skipped: this machine allows too few open files");
    }
    let relay = in_the_clear().await;
    let ask = async || send(&relay.http, request("GET", "/x", &[], "")).await.expect("answers").status().as_u16();
    // One that goes on slowly ends all the same.
    let mut slow = TcpStream::connect(&relay.http).await.expect("connects");
    let began = Instant::now();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: relay.test\r\nx-slow: ").await.expect("writes");
    while slow.write_all(b"a").await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is held for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() >= LASTS, "after {:?}", began.elapsed());

    let (began, mut silent) = (Instant::now(), Vec::new());
    while silent.len() < PLACES - 1 {
        silent.push(TcpStream::connect(&relay.http).await.expect("connects"));
    }
    assert_eq!(ask().await, 308, "one place is left");
    let there = began.elapsed();
    silent.push(TcpStream::connect(&relay.http).await.expect("connects"));
    let asked = ask();
    tokio::pin!(asked);
    if there < LASTS / 2 {
        assert!(timeout(LASTS / 4, &mut asked).await.is_err(), "somebody has to go before");
    } else {
        println!("skipped: it took {there:?} to fill the places of a listener that are there for {LASTS:?}");
    }
    assert_eq!(timeout(PATIENCE, asked).await.expect("a place is free"), 308);
    drop(silent);
}

#[tokio::test]
async fn a_relay_without_an_address_says_at_which_socket_it_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("only.sock");
    let config =
        format!("public_url = \"https://relay.test\"\n[[server.listen]]\naddr = \"unix:{}\"\n{OPEN}", path.display());
    let relay = Server::start(program(), "", &config, &[]).await.expect("starts");
    let there = format!("unix:{}", path.display());
    assert_eq!((&relay.public, &relay.listeners), (&there, &vec![there.clone()]));
    let answer = post(UnixStream::connect(&path).await.expect("connects"), &[]).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), said(&answer, "relay-error")), (503, "agent_unavailable"));
}
