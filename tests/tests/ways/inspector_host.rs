//! The page under a host name of its own: who gets in there, and what only works there.

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use relay_tests::{
    process::Server,
    sender::send,
    tls::{certificate_for, client, settings},
};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOST: &str = "inspect.example";
const CONFIG: &str = "inspector_host = \"inspect.example\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
    [[endpoint]]\nname = \"open\"\nmode = \"assured\"\nverify = \"none\"\n";

/// Some lines of a request's head.
type Lines<'a> = &'a [(&'a str, &'a str)];

const HTTPS: (&str, &str) = ("x-forwarded-proto", "https");
const ORIGIN: (&str, &str) = ("origin", "https://inspect.example");
const JSON: (&str, &str) = ("content-type", "application/json");

async fn ask(relay: &Server, host: &str, method: &str, path: &str, lines: Lines<'_>, body: &str) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path).header("host", host);
    let request = lines.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    send(&relay.public, request.body(Full::new(body.to_owned().into())).expect("lawful")).await.expect("answers")
}

fn header<'r>(answer: &'r Response<Bytes>, name: &str) -> &'r str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

fn read(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_default()
}

#[tokio::test]
async fn a_session_is_a_cookie_that_only_the_pages_own_host_sets_and_takes() {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", CONFIG, &[]).await.expect("a relay");
    let admin = relay.admin_token().expect("a token");
    let bearer = format!("Bearer {admin}");
    let page = ask(&relay, HOST, "GET", "/", &[HTTPS], "").await;
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    assert!(header(&page, "content-security-policy").contains("default-src 'none'"));
    assert_eq!(header(&page, "x-frame-options"), "DENY");
    let plain = ask(&relay, HOST, "GET", "/", &[], "").await;
    assert_eq!((plain.status().as_u16(), &read(&plain)["code"]), (421, &"bad_host".into()));

    // No token is anybody there; it opens a session.
    let status = async |method: &str, path: &str, lines: Lines<'_>| {
        ask(&relay, HOST, method, path, &[&[HTTPS][..], lines].concat(), "").await.status().as_u16()
    };
    let token = format!("Bearer {}", relay.token);
    for shown in [&bearer, &token] {
        assert_eq!(status("GET", "/api/v1/events", &[("authorization", shown.as_str())]).await, 401);
    }
    let login = json!({ "token": admin }).to_string();
    for lines in [&[HTTPS, JSON][..], &[HTTPS, JSON, ("origin", "https://evil.example")]] {
        assert_eq!(ask(&relay, HOST, "POST", "/api/v1/sessions", lines, &login).await.status().as_u16(), 403);
    }
    let form = [HTTPS, ORIGIN, ("content-type", "text/plain")];
    assert_eq!(ask(&relay, HOST, "POST", "/api/v1/sessions", &form, &login).await.status().as_u16(), 400);
    let opened = ask(&relay, HOST, "POST", "/api/v1/sessions", &[HTTPS, ORIGIN, JSON], &login).await;
    assert_eq!((opened.status().as_u16(), &read(&opened)["key"]), (200, &"".into()), "no script sees the key");
    let set = header(&opened, "set-cookie");
    let (cookie, rest) = set.split_once(';').expect("attributes");
    assert!(cookie.starts_with("__Host-relay=rk_"), "{set}");
    for attribute in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(rest.contains(attribute) && !rest.contains("Domain"), "{set}");
    }

    let own = ("cookie", cookie);
    assert_eq!(status("GET", "/api/v1/events", &[own, ("sec-fetch-site", "same-origin")]).await, 200);
    for site in ["same-site", "cross-site"] {
        assert_eq!(status("GET", "/api/v1/events", &[own, ("sec-fetch-site", site)]).await, 403, "{site}");
    }
    let pause = "/api/v1/endpoints/open/pause";
    assert_eq!(status("POST", pause, &[own]).await, 403, "it does not say which page asks");
    assert_eq!(status("POST", pause, &[own, ("origin", "https://inspect.example:8443")]).await, 403);
    assert_eq!(status("POST", pause, &[own, ORIGIN]).await, 200);
    let plain = ask(&relay, HOST, "GET", "/api/v1/events", &[own], "").await;
    assert_eq!(plain.status().as_u16(), 421, "not over TLS");

    // Elsewhere it is nothing, and nothing else is there.
    let elsewhere = ask(&relay, &relay.public, "GET", "/_relay/v1/events", &[HTTPS, own], "").await;
    assert_eq!(elsewhere.status().as_u16(), 401);
    assert_eq!(ask(&relay, &relay.public, "GET", "/app.js", &[HTTPS], "").await.status().as_u16(), 404);
    for (method, path) in [("POST", "/open"), ("GET", "/_relay/v1/events"), ("GET", "/_relay/v1/connect")] {
        assert_eq!(status(method, path, &[own, ORIGIN, ("authorization", token.as_str())]).await, 404, "{path}");
    }
    let key = cookie.split_once('=').expect("a value").1;
    let local = Request::get("/api/v1/events").header("host", &relay.admin).header("cookie", cookie);
    let local = send(&relay.admin, local.body(Full::default()).expect("lawful")).await.expect("answers");
    assert_eq!((local.status().as_u16(), header(&local, "set-cookie")), (401, ""), "loopback takes no cookie");

    let left = ask(&relay, HOST, "DELETE", "/api/v1/sessions/current", &[HTTPS, ORIGIN, own], "").await;
    assert_eq!(left.status().as_u16(), 200);
    assert!(header(&left, "set-cookie").contains("Max-Age=0") && !header(&left, "set-cookie").contains(key));
    assert_eq!(status("GET", "/api/v1/events", &[own]).await, 401);
}

/// A question over a connection that stands, under HTTP/1.1 or HTTP/2.
enum Asker {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Asker {
    async fn connect(relay: &Server, trusted: &CertificateDer<'static>, alpn: &str) -> Self {
        let tcp = TcpStream::connect(&relay.public).await.expect("connects");
        let config = client(trusted, alpn.as_bytes()).expect("a certificate");
        let name = ServerName::try_from(HOST).expect("a name");
        let stream = TokioIo::new(TlsConnector::from(config).connect(name, tcp).await.expect("trusts"));
        if alpn == "h2" {
            let (asker, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            return Self::Two(asker);
        }
        let (asker, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self::One(asker)
    }

    async fn begin(&mut self, method: &str, path: &str, lines: Lines<'_>, body: &str) -> Response<Incoming> {
        let body = Full::new(Bytes::from(body.to_owned()));
        let request = Request::builder().method(method);
        let request = lines.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = match self {
            Self::One(asker) => {
                let request = request.uri(path).header("host", HOST).body(body).expect("lawful");
                asker.ready().await.expect("it is free");
                asker.send_request(request).await
            }
            Self::Two(asker) => {
                let request = request.uri(format!("https://{HOST}{path}")).body(body).expect("lawful");
                asker.send_request(request).await
            }
        };
        answer.expect("answers")
    }

    async fn ask(&mut self, method: &str, path: &str, lines: Lines<'_>, body: &str) -> Response<Bytes> {
        let (head, body) = self.begin(method, path, lines, body).await.into_parts();
        Response::from_parts(head, body.collect().await.expect("whole").to_bytes())
    }
}

#[tokio::test]
async fn over_tls_it_needs_no_proxys_word_under_either_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = certificate_for(folder.path(), &[HOST.to_owned()]).expect("a certificate");
    let config = format!(
        "inspector_host = \"{HOST}\"\n{}[[endpoint]]\nname = \"open\"\nmode = \"assured\"\nverify = \"none\"\n",
        settings(folder.path())
    );
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let relay = Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("a relay");
    let login = json!({ "token": relay.admin_token().expect("a token") }).to_string();
    for alpn in ["http/1.1", "h2"] {
        let mut asker = Asker::connect(&relay, &trusted, alpn).await;
        let page = asker.ask("GET", "/", &[], "").await;
        assert_eq!(
            (page.status().as_u16(), header(&page, "content-type")),
            (200, "text/html; charset=utf-8"),
            "{alpn}"
        );
        assert_eq!(asker.ask("GET", "/api/v1/events", &[], "").await.status(), 401, "{alpn}");
        assert_eq!(asker.ask("POST", "/api/v1/sessions", &[JSON], &login).await.status(), 403, "{alpn}");
        let opened = asker.ask("POST", "/api/v1/sessions", &[JSON, ORIGIN], &login).await;
        let cookie = header(&opened, "set-cookie").split(';').next().expect("a cookie").to_owned();
        assert!(opened.status() == 200 && cookie.starts_with("__Host-relay=rk_"), "{alpn}: {cookie}");
        // HTTP/2 may send each cookie on a line of its own.
        let own = [("cookie", "a=b"), ("cookie", cookie.as_str())];
        assert_eq!(asker.ask("GET", "/api/v1/events", &own, "").await.status(), 200, "{alpn}");
        assert_eq!(asker.ask("POST", "/api/v1/endpoints/open/pause", &own, "").await.status(), 403, "{alpn}");
        let acts = [&own[..], &[ORIGIN]].concat();
        assert_eq!(asker.ask("POST", "/api/v1/endpoints/open/pause", &acts, "").await.status(), 200, "{alpn}");
        let mut stream = asker.begin("GET", "/api/v1/stream?types=rows&q=", &own, "").await;
        let first = stream.body_mut().frame().await.expect("it begins").expect("whole").into_data().expect("data");
        assert!(first.windows(12).any(|text| text == b"event: hello"), "{alpn}: {first:?}");
        if alpn == "h2" {
            assert_eq!(asker.ask("GET", "/api/v1/events", &own, "").await.status(), 200, "beside the stream");
        }
    }
}
