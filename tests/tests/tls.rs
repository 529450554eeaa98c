//! TLS on the public listener: what ALPN chooses, and a certificate that is replaced while it runs.

use std::{fs, path::Path};

use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relay_tests::{
    handler::Handler,
    process::Server,
    sender::request,
    tls::{certificate, connect, settings},
};

#[tokio::test]
async fn http_2_passes_and_a_new_certificate_is_taken_over_on_sighup() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certificate(folder.path()).expect("a certificate");
    let config = settings(folder.path()) + "[[endpoint]]\nname = \"open\"\nverify = \"none\"\n";
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let mut relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("starts");
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
