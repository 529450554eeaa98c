//! The handler client against small servers that speak raw bytes, so that each test says exactly what went over
//! the wire.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::{Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use relay_program::http1::Part;
use relay_proto::HeaderBlock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
};

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// A listener on a free loopback port, and a configuration that calls it.
async fn listener() -> (TcpListener, TargetConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    (listener, TargetConfig::new(target.parse().unwrap()))
}

/// Reads one request head, and nothing behind it; false at the end of the connection.
async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => seen.push(byte),
            Err(_) => return false,
        }
    }
    true
}

/// Serves every connection with the same bytes per request; counts connections. Closes after each answer if told.
fn serve(listener: TcpListener, answer: &'static [u8], close: bool) -> Arc<AtomicUsize> {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                while read_head(&mut stream).await {
                    stream.write_all(answer).await.unwrap();
                    if close {
                        return;
                    }
                }
            });
        }
    });
    connections
}

/// A request with these lines, which end their head.
fn request<B>(method: &'static str, path: &str, lines: &[u8], body: Option<B>) -> HandlerRequest<B> {
    let mut request = HandlerRequest::new(&method.into(), path, lines.len());
    request.body = body;
    request.head.extend_from_slice(lines);
    request
}

fn get() -> HandlerRequest<Empty<Bytes>> {
    request("GET", "/", b"host: h\r\n\r\n", None)
}

async fn part<B>(call: &mut Call<B>) -> Option<Result<Part, CallError>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    poll_fn(|cx| call.poll_part(cx)).await
}

async fn fetch(handler: &Handler) -> Result<Bytes, CallError> {
    let (_, mut call) = handler.call(get()).await?;
    let mut all = BytesMut::new();
    while let Some(one) = part(&mut call).await {
        let Part::Data(data) = one? else { continue };
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Waits, without a clock, until the connection just used is back in the pool.
async fn settled(handler: &Handler) {
    while handler.pool.idle_count() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_clean_end() {
    let (listener, config) = listener().await;
    let connections = serve(listener, OK, false);
    let handler = Handler::new(&config).unwrap();
    for _ in 0..5 {
        assert_eq!(fetch(&handler).await.unwrap(), "hi");
        settled(&handler).await;
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_answer_without_a_body_gives_its_connection_back_at_once() {
    let (listener, config) = listener().await;
    let connections = serve(listener, b"HTTP/1.1 204 No Content\r\n\r\n", false);
    let handler = Handler::new(&config).unwrap();
    for _ in 0..3 {
        drop(handler.call(get()).await.unwrap());
        settled(&handler).await;
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_close_that_has_just_arrived_is_seen_before_anything_is_written() {
    let (listener, config) = listener().await;
    let handler = Arc::new(Handler::new(&config).unwrap());
    let close = Arc::new(Notify::new());
    let (told, caller) = (Arc::clone(&close), Arc::clone(&handler));
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        told.notified().await;
        // The same turn of the same task closes and calls: the runtime has not looked at its sockets in between.
        drop(stream);
        serve(listener, OK, false);
        assert_eq!(caller.pool.idle_count(), 1);
        fetch(&caller).await
    });
    fetch(&handler).await.unwrap();
    settled(&handler).await;
    close.notify_one();
    assert_eq!(task.await.unwrap().unwrap(), "hi");
}

#[tokio::test]
async fn a_handler_that_closes_after_each_answer_is_called_afresh() {
    let (listener, config) = listener().await;
    let connections = serve(listener, OK, true);
    let handler = Handler::new(&config).unwrap();
    for _ in 0..200 {
        assert_eq!(fetch(&handler).await.unwrap(), "hi");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 200);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_before_the_handler_would() {
    let (listener, config) = listener().await;
    let (closed, seen) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        assert!(!read_head(&mut stream).await);
        closed.send(Instant::now()).unwrap();
    });
    let handler = Handler::new(&config).unwrap();
    let start = Instant::now();
    fetch(&handler).await.unwrap();
    let lived = seen.await.unwrap() - start;
    assert!(lived >= pool::MAX_IDLE && lived < pool::MAX_IDLE + Duration::from_secs(1), "{lived:?}");
    assert_eq!(handler.pool.idle_count(), 0);
}

#[tokio::test]
async fn refused_means_unreachable() {
    let (listener, config) = listener().await;
    drop(listener);
    let error = fetch(&Handler::new(&config).unwrap()).await.unwrap_err();
    assert_eq!(error, CallError::Unreachable("connection refused".into()));
}

#[tokio::test(start_paused = true)]
async fn no_head_in_time() {
    let (listener, config) = listener().await;
    let connections = serve(listener, b"", false);
    let handler = Handler::new(&config).unwrap();
    let start = Instant::now();
    assert_eq!(fetch(&handler).await.unwrap_err(), CallError::Timeout(Timeout::Head));
    assert_eq!(start.elapsed().as_secs(), config.timeouts.head.as_secs());
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_in_a_body_is_a_timeout_and_not_an_end() {
    let (listener, config) = listener().await;
    serve(listener, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", false);
    let error = fetch(&Handler::new(&config).unwrap()).await.unwrap_err();
    assert_eq!(error, CallError::Timeout(Timeout::Idle));
}

#[tokio::test(start_paused = true)]
async fn the_total_limit_cuts_a_body_that_keeps_moving() {
    let (listener, mut config) = listener().await;
    config.timeouts.total = Duration::from_secs(10);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            if stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let error = fetch(&Handler::new(&config).unwrap()).await.unwrap_err();
    assert_eq!(error, CallError::Timeout(Timeout::Total));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_body_broken_midway_is_an_error() {
    for half in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    ] {
        let (listener, config) = listener().await;
        serve(listener, half, true);
        let handler = Handler::new(&config).unwrap();
        let (_, mut call) = handler.call(get()).await.unwrap();
        assert_eq!(part(&mut call).await.unwrap().unwrap(), Part::Data("hi".into()));
        assert!(matches!(part(&mut call).await.unwrap(), Err(CallError::Broken(_))));
        assert!(part(&mut call).await.is_none());
        assert_eq!(handler.pool.idle_count(), 0);
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_broken() {
    let (listener, config) = listener().await;
    serve(listener, b"", true);
    let error = fetch(&Handler::new(&config).unwrap()).await.unwrap_err();
    assert!(matches!(error, CallError::Broken(_)), "{error}");
}

#[tokio::test]
async fn a_dropped_answer_closes_the_connection() {
    let (listener, config) = listener().await;
    let (closed, seen) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi").await.unwrap();
        closed.send(read_head(&mut stream).await).unwrap();
    });
    let handler = Handler::new(&config).unwrap();
    drop(handler.call(get()).await.unwrap());
    assert!(!seen.await.unwrap());
}

#[tokio::test]
async fn a_dropped_call_closes_the_connection() {
    let (listener, config) = listener().await;
    let handler = Handler::new(&config).unwrap();
    let call = tokio::spawn(async move { fetch(&handler).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await;
    call.abort();
    assert!(!read_head(&mut stream).await);
}

#[tokio::test]
async fn a_redirect_comes_back_as_it_is() {
    let (listener, config) = listener().await;
    let connections = serve(listener, b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", false);
    let (head, _) = Handler::new(&config).unwrap().call(get()).await.unwrap();
    assert_eq!(head.status, 302);
    assert_eq!(head.headers.all("location").next(), Some(&b"/x"[..]));
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn header_bytes_arrive_as_they_were_sent() {
    let (listener, config) = listener().await;
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 1024];
        let count = stream.read(&mut seen).await.unwrap();
        seen.truncate(count);
        sender.send(seen).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-Name: \xff\xe9\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    });
    let path = config.target.uri_for("/a%2Fb//c?x=%zz").unwrap();
    let lines = b"host: h\r\nx-raw: caf\xe9\r\nx-raw: two\r\n\r\n";
    let call = request("GET", &path, lines, None::<Empty<Bytes>>);
    let (head, _) = Handler::new(&config).unwrap().call(call).await.unwrap();
    assert_eq!(head.headers.all("x-name").next(), Some(&b"\xff\xe9"[..]));
    let expected = b"GET /a%2Fb//c?x=%zz HTTP/1.1\r\nhost: h\r\nx-raw: caf\xe9\r\nx-raw: two\r\n\r\n";
    assert_eq!(receiver.await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_wait_within_their_total_time() {
    let (listener, mut config) = listener().await;
    config.max_connections = NonZeroUsize::new(2).unwrap();
    config.timeouts.total = Duration::from_secs(5);
    let connections = serve(listener, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", false);
    let handler = Handler::new(&config).unwrap();
    let first = handler.call(get()).await.unwrap();
    let _second = handler.call(get()).await.unwrap();
    let error = handler.call(get()).await.unwrap_err();
    assert_eq!(error, CallError::Timeout(Timeout::Queue));
    assert!(!error.may_have_been_seen());
    assert_eq!(connections.load(Ordering::Relaxed), 2);
    drop(first);
    handler.call(get()).await.unwrap();
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}

type Frames = mpsc::Receiver<Result<http_body::Frame<Bytes>, BoxError>>;

/// A request body fed by hand.
fn upload(mut frames: Frames) -> HandlerRequest<UnsyncBoxBody<Bytes, BoxError>> {
    let stream = Frame { poll: Box::new(move |cx| frames.poll_recv(cx)) };
    let body = UnsyncBoxBody::new(StreamBody::new(stream));
    let mut request = request("POST", "/", b"host: h\r\ntransfer-encoding: chunked\r\n\r\n", Some(body));
    request.chunked = Some(HeaderBlock::new());
    request
}

type Polled = std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>>;

struct Frame {
    poll: Box<dyn FnMut(&mut std::task::Context<'_>) -> Polled + Send>,
}

impl futures_util::Stream for Frame {
    type Item = Result<http_body::Frame<Bytes>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Polled {
        (self.poll)(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_stream_at_the_handlers_pace() {
    let (listener, config) = listener().await;
    let (feed, frames) = mpsc::channel(1);
    let handler = Handler::new(&config).unwrap();
    let call = tokio::spawn(async move { handler.call(upload(frames)).await.map(|(head, _)| head.status) });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await;
    // A handler that reads nothing stops the feed long before this much has gone.
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let mut fed = 0;
    let stalled = loop {
        let frame = Ok(http_body::Frame::data(chunk.clone()));
        match tokio::time::timeout(Duration::from_millis(300), feed.send(frame)).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => break fed,
        }
        fed += 1;
        assert!(fed < 1024, "64 MiB went nowhere");
    };
    assert!(stalled > 0);
    drop(feed);
    let mut tail = Vec::new();
    while !tail.ends_with(b"0\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut tail).await.unwrap(), 0);
        tail.drain(..tail.len().saturating_sub(5));
    }
    stream.write_all(OK).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn a_request_body_that_fails_is_not_the_handlers_fault() {
    let (listener, config) = listener().await;
    let (feed, frames) = mpsc::channel(1);
    let handler = Handler::new(&config).unwrap();
    let call = tokio::spawn(async move { handler.call(upload(frames)).await.map(|(head, _)| head.status) });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await;
    feed.send(Err("the sender went away".into())).await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(&error, CallError::RequestBody(reason) if reason.contains("went away")), "{error}");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a failed upload must not look complete");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_head_begins_when_the_upload_ends() {
    let (listener, config) = listener().await;
    serve(listener, b"", false);
    let (feed, frames) = mpsc::channel(1);
    let handler = Handler::new(&config).unwrap();
    let start = Instant::now();
    let call = tokio::spawn(async move { handler.call(upload(frames)).await.map(|(head, _)| head.status) });
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        feed.send(Ok(http_body::Frame::data(Bytes::from_static(b"x")))).await.unwrap();
    }
    drop(feed);
    assert_eq!(call.await.unwrap().unwrap_err(), CallError::Timeout(Timeout::Head));
    assert_eq!(start.elapsed().as_secs(), 80 + 30);
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    });
    let target = format!("unix:{}", path.display()).parse().unwrap();
    let handler = Handler::new(&TargetConfig::new(target)).unwrap();
    assert_eq!(handler.host.clone(), "localhost");
    assert_eq!(fetch(&handler).await.unwrap(), "hi");
    let gone = format!("unix:{}/other", folder.path().display()).parse().unwrap();
    let error = fetch(&Handler::new(&TargetConfig::new(gone)).unwrap()).await.unwrap_err();
    assert_eq!(error, CallError::Unreachable("no such file".into()));
}

/// A TLS server that answers one request per connection, and the PEM of the root that signed it.
async fn tls_server() -> (SocketAddr, tempfile::NamedTempFile) {
    let (config, file) = tls::testing::server();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    (address, file)
}

#[tokio::test]
async fn https_is_believed_with_its_ca_file_or_by_force_and_refused_otherwise() {
    let (address, ca) = tls_server().await;
    let mut config = TargetConfig::new(format!("https://localhost:{}", address.port()).parse().unwrap());
    config.trust = Trust::PlatformAnd(ca.path().to_owned());
    assert_eq!(fetch(&Handler::new(&config).unwrap()).await.unwrap(), "hi");
    config.trust = Trust::DangerousAnything;
    assert_eq!(fetch(&Handler::new(&config).unwrap()).await.unwrap(), "hi");

    let other = rcgen::KeyPair::generate().unwrap();
    let stranger = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&other).unwrap();
    std::fs::write(ca.path(), stranger.pem()).unwrap();
    config.trust = Trust::PlatformAnd(ca.path().to_owned());
    let error = fetch(&Handler::new(&config).unwrap()).await.unwrap_err();
    let expected = "its certificate is signed by an unknown issuer; trust it with --ca-file, or pass --insecure";
    assert_eq!(error, CallError::Unreachable(expected.into()));
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_passed_on() {
    let (listener, config) = listener().await;
    let (feed, frames) = mpsc::channel(1);
    let handler = Handler::new(&config).unwrap();
    let late = Arc::new(Notify::new());
    let waiting = Arc::clone(&late);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        waiting.notified().await;
    });
    let (head, _call) = handler.call(upload(frames)).await.unwrap();
    assert_eq!(head.status, 413);
    late.notify_one();
    drop(feed);
}

#[tokio::test]
async fn a_short_body_leaves_with_its_head() {
    let (listener, config) = listener().await;
    tokio::spawn(async move {
        let handler = Handler::new(&config).unwrap();
        let body = Some(Full::new(Bytes::from_static(b"abc")));
        let _answer = handler.call(request("POST", "/", b"host: h\r\ncontent-length: 3\r\n\r\n", body)).await;
    });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut seen = vec![0; 1024];
    let count = stream.read(&mut seen).await.unwrap();
    assert_eq!(&seen[..count], b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc");
}
