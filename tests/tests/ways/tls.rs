//! TLS on the public listener: what ALPN chooses, and a certificate that is replaced while it runs.

use std::{fs, path::Path};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relay_tests::{
    handler::Handler,
    process::Server,
    sender::{request, signed},
    tls::{certificate, connect, settings},
};

#[tokio::test]
async fn http_2_passes_and_a_new_certificate_is_taken_over_on_sighup() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certificate(folder.path()).expect("a certificate");
    let config = settings(folder.path()) + "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let mut relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("starts");
    relay.expect_errors("the config was not taken over");
    let handler = Handler::echo().await.expect("listens");
    let port = relay.public.rsplit(':').next().expect("a port").to_owned();
    let root = folder.path().join("cert.pem").display().to_string();
    let there = format!("wss://localhost:{port}");
    let _agent =
        relay.agent("open", &handler.port(), &["--relay", &there, "--relay-ca", &root]).await.expect("attaches");

    let stream = connect(&relay.public, &first, b"h2").await.expect("trusts");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut sent = request("POST", "https://localhost/open/x?y", &[("x-tag", "one"), ("x-tag", "two")], "over h2");
    sent.headers_mut().remove("host");
    let response = sender.send_request(sent).await.expect("answers");
    assert_eq!(response.headers()["x-seen-target"], "/x?y");
    assert_eq!(response.headers().get_all("x-seen-tag").iter().count(), 2);
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "over h2");

    fs::write(folder.path().join("cert.pem"), "broken").expect("writes");
    relay.reload().await.expect("told");
    relay.log_line("not taken over").await.expect("says so");
    connect(&relay.public, &first, b"http/1.1").await.expect("the old certificate is kept");

    let second = certificate(folder.path()).expect("a certificate");
    relay.reload().await.expect("told");
    relay.log_line("was taken over").await.expect("says so");
    connect(&relay.public, &second, b"http/1.1").await.expect("the new certificate is used");
    assert!(connect(&relay.public, &first, b"http/1.1").await.is_err(), "the old one is gone");
}

#[tokio::test]
async fn a_signed_body_without_a_length_arrives_whole_over_http_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = certificate(folder.path()).expect("a certificate");
    let config = settings(folder.path())
        + "[[endpoint]]\nname = \"github\"\nmode = \"live\"\nverify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n";
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[("HOOK", "a secret")]).await.expect("starts");
    let handler = Handler::echo().await.expect("listens");
    let (port, root) = (relay.public.rsplit(':').next().expect("a port"), folder.path().join("cert.pem"));
    let (there, root) = (format!("wss://localhost:{port}"), root.display().to_string());
    let _agent =
        relay.agent("github", &handler.port(), &["--relay", &there, "--relay-ca", &root]).await.expect("attaches");

    let stream = connect(&relay.public, &trusted, b"h2").await.expect("trusts");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    for body in ["streamed", ""] {
        let (name, value) = signed("github", "a secret", body.as_bytes()).expect("signs").remove(0);
        let frame = Ok::<_, std::io::Error>(Frame::data(Bytes::from(body)));
        let unsized_body = StreamBody::new(futures_util::stream::iter([frame]));
        let sent = http::Request::post("https://localhost/github").header(name, value).body(unsized_body);
        let response = sender.send_request(sent.expect("a request")).await.expect("answers");
        assert_eq!(response.status(), 200);
        assert!(response.headers().get("x-seen-content-length").is_none(), "nobody told a length");
        assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), body);
    }
}
