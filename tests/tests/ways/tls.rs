//! TLS on the public listener: what ALPN chooses, and a certificate that is replaced while it runs.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relay_program::tls::Trust;
use relay_tests::{
    handler::Handler,
    process::Server,
    sender::{request, send, signed},
    tls::{certificate, certificate_for, connect, connect_as, settings},
};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
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
    let line = relay.log_line("not taken over").await.expect("says so");
    assert!(line.contains("cert.pem"), "{line}");
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

/// A relay with three certificates: the first one is for no name that is asked for.
async fn with_several(folder: &Path) -> (Server, Vec<CertificateDer<'static>>) {
    let mut config = String::from("[tls]\n");
    let mut made = Vec::new();
    for (number, names) in [&["first.test"][..], &["exact.wild.test", "127.0.0.1"], &["*.wild.test"]].iter().enumerate()
    {
        let own = folder.join(number.to_string());
        fs::create_dir(&own).expect("a folder");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        made.push(certificate_for(&own, &names).expect("a certificate"));
        let row = if number == 0 { "" } else { "[[tls.certificate]]\n" };
        let own = own.display();
        config.push_str(&format!("{row}cert = \"{own}/cert.pem\"\nkey = \"{own}/key.pem\"\n"));
    }
    config.push_str("[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n");
    let relay = Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", &config, &[]).await;
    (relay.expect("starts"), made)
}

#[tokio::test]
async fn a_handshake_gets_the_certificate_of_the_name_that_it_asks_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (relay, made) = with_several(folder.path()).await;
    for (name, expected) in [
        ("first.test", 0),
        ("exact.wild.test", 1),
        ("EXACT.Wild.Test", 1),
        ("other.wild.test", 2),
        ("deep.other.wild.test", 0),
        ("wild.test", 0),
        ("elsewhere.test", 0),
        // Nobody names an address in a hello: it is the one that was connected to.
        ("127.0.0.1", 1),
        ("192.0.2.1", 1),
    ] {
        let believed = client_of_anything(b"http/1.1");
        let stream = connect_as(&relay.public, name, &believed).await.expect("a handshake");
        let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
        let found = made.iter().position(|one| *one == shown);
        assert_eq!(found, Some(expected), "{name}");
    }
    let metrics = send(&relay.admin, request("GET", "/metrics", &[], "")).await.expect("answers");
    let text = String::from_utf8_lossy(metrics.body()).into_owned();
    for name in ["first.test", "exact.wild.test", "*.wild.test"] {
        let line = format!("relay_certificate_expiry_timestamp_seconds{{name=\"{name}\",source=\"file\"}}");
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn whoever_comes_again_resumes_its_session_also_after_a_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = certificate(folder.path()).expect("a certificate");
    let config = settings(folder.path()) + "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let mut relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("starts");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let own = client_of(&trusted, &[version]);
        let mut kinds = Vec::new();
        for round in 0..3 {
            if round == 2 {
                relay.reload().await.expect("told");
                relay.log_line("was taken over").await.expect("says so");
            }
            let stream = connect_as(&relay.public, "localhost", &own).await.expect("a handshake");
            kinds.push(stream.get_ref().1.handshake_kind().expect("it is done"));
            if *version == rustls::version::TLS13 && round == 0 {
                let group = stream.get_ref().1.negotiated_key_exchange_group().expect("one").name();
                assert_eq!(group, NamedGroup::X25519MLKEM768);
            }
            // The ticket comes behind the handshake, and is read with the answer.
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
            tokio::spawn(connection);
            let answer = sender.send_request(request("GET", "/nowhere", &[], "")).await.expect("an answer");
            assert_eq!(answer.status(), 404);
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed], "{version:?}");
    }
}

#[tokio::test]
async fn certificates_change_under_load_and_no_request_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certificate(folder.path()).expect("a certificate");
    let config = settings(folder.path()) + "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let mut relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("starts");
    let handler = Handler::echo().await.expect("listens");
    let port = relay.public.rsplit(':').next().expect("a port");
    let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem").display().to_string());
    let _agent =
        relay.agent("open", &handler.port(), &["--relay", &there, "--relay-ca", &root]).await.expect("attaches");

    let stop = Arc::new(AtomicBool::new(false));
    let load = |fresh: bool| {
        let (stop, address, anything) = (Arc::clone(&stop), relay.public.clone(), client_of_anything(b"http/1.1"));
        tokio::spawn(async move {
            let (mut sent, mut kept) = (0, None);
            while !stop.load(Ordering::Relaxed) {
                if fresh || kept.is_none() {
                    let stream = connect_as(&address, "localhost", &anything).await.expect("a handshake");
                    let (sender, connection) =
                        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
                    tokio::spawn(connection);
                    kept = Some(sender);
                }
                let sender = kept.as_mut().expect("a connection");
                sender.ready().await.expect("it stays open");
                let answer = sender.send_request(request("POST", "/open", &[], "a webhook")).await.expect("an answer");
                assert_eq!(answer.status(), 200);
                answer.into_body().collect().await.expect("whole");
                sent += 1;
            }
            sent
        })
    };
    let senders = [load(true), load(true), load(false)];
    // In place, as a renewal without a signal does it: certificate and key one after the other.
    let mut last = first;
    for _ in 0..2 {
        last = certificate(folder.path()).expect("a certificate");
        relay.log_line("were read again").await.expect("says so");
    }
    for _ in 0..5 {
        last = certificate(folder.path()).expect("a certificate");
        relay.reload().await.expect("told");
        relay.log_line("was taken over").await.expect("says so");
    }
    relay.expect_errors("the config was not taken over");
    expired_certificate(folder.path());
    relay.reload().await.expect("told");
    let line = relay.log_line("was not taken over").await.expect("says so");
    assert!(line.contains("cert.pem") && line.contains("expired"), "{line}");
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        assert!(sender.await.expect("no request was lost") > 0);
    }
    connect(&relay.public, &last, b"http/1.1").await.expect("the last good one is used");
}

#[tokio::test]
async fn what_is_no_handshake_ends_and_the_next_one_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = certificate(folder.path()).expect("a certificate");
    let config = settings(folder.path()) + "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("starts");
    // The beginning of a hello that says that it has 64 KiB, in the clear, and noise.
    let huge = [&[0x16, 3, 1, 0x40, 0][..], &[1, 0, 0xff, 0xf0], &[3; 0x3ffc]].concat();
    for bytes in
        [huge.repeat(4), b"GET / HTTP/1.1\r\nhost: relay.test\r\n\r\n".to_vec(), vec![0xff; 100], vec![0x16; 30_000]]
    {
        let mut stream = TcpStream::connect(&relay.public).await.expect("connects");
        let _ = stream.write_all(&bytes).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        // An alert at most.
        assert!(rest.len() <= 7 && rest.first().is_none_or(|first| *first == 0x15), "{rest:?}");
    }
    // Nobody orders a certificate: nothing is served under the protocol that is for that.
    assert!(connect(&relay.public, &trusted, b"acme-tls/1").await.is_err());
    assert!(connect(&relay.public, &trusted, b"unheard/1").await.is_err());
    // A hello of which a byte comes now and then ends with the time for a handshake.
    let mut slow = TcpStream::connect(&relay.public).await.expect("connects");
    let began = std::time::Instant::now();
    for byte in [0x16, 3, 1, 2, 0, 1, 0, 1] {
        slow.write_all(&[byte]).await.expect("writes");
    }
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert!(rest.is_empty() && began.elapsed().as_secs() < 15, "{rest:?}");
    connect(&relay.public, &trusted, b"http/1.1").await.expect("a handshake");
}

/// A client with these versions alone, which keeps what it may resume with.
fn client_of(
    trusted: &CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(relay_program::tls::provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A client that believes any certificate.
fn client_of_anything(alpn: &[u8]) -> Arc<ClientConfig> {
    let mut config = relay_program::tls::client_config(&Trust::DangerousAnything).expect("settings");
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// Writes one whose time is over in the place of the one in a folder.
fn expired_certificate(folder: &Path) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    fs::write(folder.join("cert.pem"), params.self_signed(&key).expect("a certificate").pem()).expect("writes");
    fs::write(folder.join("key.pem"), key.serialize_pem()).expect("writes");
}
