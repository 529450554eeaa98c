//! Client certificates: of senders at a host of their own, of agents at a listener of their own, and what is turned away.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use relay_tests::{
    handler::Handler,
    process::{Server, run_to_end},
    program::Program,
    sender::{request, send},
    tls::{Authority, Given, certificate_for, client, connect_as, settings},
};
use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::time::timeout;

/// A relay with a host for partners, a listener for agents, and one in the clear.
struct Place {
    folder: tempfile::TempDir,
    trusted: CertificateDer<'static>,
    partners: Authority,
    agents: Authority,
    relay: Server,
}

async fn place(more: &str) -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["localhost", "partners.test"].map(str::to_owned);
    let trusted = certificate_for(folder.path(), &names).expect("a certificate");
    let (partners, agents) = (Authority::new().expect("one"), Authority::new().expect("one"));
    fs::write(folder.path().join("partners-ca.pem"), &partners.pem).expect("writes");
    fs::write(folder.path().join("agents-ca.pem"), &agents.pem).expect("writes");
    let here = folder.path().display();
    let config = format!(
        "[[server.listen]]\naddr = \"127.0.0.1:0\"\n\
         [[server.listen]]\naddr = \"127.0.0.1:0\"\nclients = \"agents\"\n\
         [[server.listen]]\naddr = \"127.0.0.1:0\"\ntls = false\n{}\
         [[tls.clients]]\nname = \"partners\"\nca = \"{here}/partners-ca.pem\"\nhosts = [\"partners.test\"]\n{more}\
         [[tls.clients]]\nname = \"agents\"\nca = \"{here}/agents-ca.pem\"\n\
         [[endpoint]]\nname = \"orders\"\nmode = \"live\"\nverify = \"none\"\n\
         client_certificate = {{ clients = \"partners\", names = [\"dns:shop.test\"] }}\n\
         [[endpoint]]\nname = \"kept\"\nverify = \"none\"\nclient_certificate = {{ clients = \"partners\" }}\n\
         [[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n",
        settings(folder.path())
    );
    let relay = Server::start(program(), "", &config, &[]).await.expect("starts");
    Place { folder, trusted, partners, agents, relay }
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

fn post(host: &str, target: &str) -> Request<Full<Bytes>> {
    let mut sent = request("POST", target, &[("relay-client-certificate", "sha256:forged")], "an order");
    sent.headers_mut().insert("host", host.parse().expect("a host"));
    sent
}

/// The answer to a request on a connection of its own, made for `name`.
async fn ask(
    to: &str,
    name: &str,
    config: &Arc<ClientConfig>,
    sent: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Bytes>> {
    let stream = TokioIo::new(connect_as(to, name, config).await?);
    let response = if config.alpn_protocols == [b"h2".to_vec()] {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        let (mut head, body) = sent.into_parts();
        let host = head.headers.remove("host").expect("a host");
        head.uri = format!("https://{}{}", host.to_str()?, head.uri).parse()?;
        sender.send_request(Request::from_parts(head, body)).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        sender.send_request(sent).await?
    };
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

fn said<'r>(response: &'r Response<Bytes>, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

impl Place {
    fn give(&self, authority: &Authority, stem: &str, name: &str) -> Given {
        authority.give(self.folder.path(), stem, &[name], "Somebody").expect("a certificate")
    }

    /// The answer to a webhook, as its status and its error's code.
    async fn status(&self, name: &str, config: &Arc<ClientConfig>, sent: Request<Full<Bytes>>) -> (u16, String) {
        let answer = ask(&self.relay.public, name, config, sent).await.expect("an answer");
        (answer.status().as_u16(), said(&answer, "relay-error").to_owned())
    }
}

#[tokio::test]
async fn a_sender_shows_a_certificate_at_a_host_of_its_own_and_the_handler_is_told() {
    let place = place("").await;
    let handler = Handler::echo().await.expect("listens");
    let plain = place.relay.listeners[2].clone();
    let there = format!("ws://{plain}");
    let _orders = place.relay.agent("orders", &handler.port(), &["--relay", &there]).await.expect("attaches");
    let _kept = place.relay.agent("kept", &handler.port(), &["--relay", &there]).await.expect("attaches");
    let _open = place.relay.agent("open", &handler.port(), &["--relay", &there]).await.expect("attaches");
    let (shop, other) =
        (place.give(&place.partners, "shop", "shop.test"), place.give(&place.partners, "other", "other.test"));
    let stranger = place.give(&place.agents, "stranger", "shop.test");

    for alpn in [&b"h2"[..], b"http/1.1"] {
        let with = |given: &Given| given.client(&place.trusted, alpn).expect("settings");
        let without = client(&place.trusted, alpn).expect("settings");
        for path in ["/orders", "/kept"] {
            let answer = ask(&place.relay.public, "partners.test", &with(&shop), post("partners.test", path)).await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status(), 200, "{path}");
            let told = said(&answer, "x-seen-relay-client-certificate");
            assert!(told.starts_with("sha256:") && told.ends_with(", dns:shop.test, cn:Somebody"), "{told}");
        }
        // The name is in the case and with the dot that somebody may write.
        let odd = post("PARTNERS.test.:443", "/orders");
        let answer = ask(&place.relay.public, "Partners.TEST", &with(&shop), odd).await.expect("an answer");
        assert_eq!(answer.status(), 200);

        let refused = (403, "certificate_not_allowed".to_owned());
        assert_eq!(place.status("partners.test", &with(&other), post("partners.test", "/orders")).await, refused);
        assert_eq!(place.status("localhost", &without, post("localhost", "/orders")).await, refused);
        assert_eq!(place.status("localhost", &with(&shop), post("localhost", "/orders")).await, refused);
        for (name, host) in [("localhost", "partners.test"), ("localhost", "PARTNERS.TEST.")] {
            let misdirected = (421, "misdirected".to_owned());
            assert_eq!(place.status(name, &without, post(host, "/open")).await, misdirected, "{name} {host}");
        }
        let misdirected = (421, "misdirected".to_owned());
        assert_eq!(place.status("partners.test", &with(&shop), post("localhost", "/orders")).await, misdirected);
        for config in [&without, &with(&stranger)] {
            let answer = ask(&place.relay.public, "partners.test", config, post("partners.test", "/orders")).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        assert_eq!(place.status("localhost", &without, post("localhost", "/open")).await.0, 200);
    }
    let answer = send(&plain, post("partners.test", "/open")).await.expect("an answer");
    assert_eq!(answer.status(), 421, "a certificate is not shown in the clear");
    let answer = send(&plain, post("relay.test", "/open")).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), said(&answer, "x-seen-relay-client-certificate")), (200, ""));
}

#[tokio::test]
async fn a_certificate_that_is_revoked_counts_no_more_from_the_reload_on() {
    let mut place = place("").await;
    let handler = Handler::echo().await.expect("listens");
    let there = format!("ws://{}", place.relay.listeners[2]);
    let _agent = place.relay.agent("orders", &handler.port(), &["--relay", &there]).await.expect("attaches");
    let (shop, spare) =
        (place.give(&place.partners, "shop", "shop.test"), place.give(&place.partners, "b", "shop.test"));
    let with = |given: &Given| given.client(&place.trusted, b"http/1.1").expect("settings");
    let (shop_client, spare_client) = (with(&shop), with(&spare));
    let order = || post("partners.test", "/orders");
    assert_eq!(place.status("partners.test", &shop_client, order()).await.0, 200);

    let list = place.folder.path().join("partners.crl");
    fs::write(&list, place.partners.revoke(&[&shop]).expect("a list")).expect("writes");
    let config = place.relay.config().expect("a config");
    let hosts = "hosts = [\"partners.test\"]\n";
    let changed = config.replace(hosts, &format!("{hosts}crl = \"{}\"\n", list.display()));
    place.relay.set_config(&changed).expect("writes");
    place.relay.reload().await.expect("told");
    place.relay.log_line("was taken over").await.expect("says so");
    // The settings of the sender keep what they would resume with.
    let answer = ask(&place.relay.public, "partners.test", &shop_client, order()).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(place.status("partners.test", &spare_client, order()).await.0, 200);

    // A list that grows counts without a word to the relay.
    fs::write(&list, place.partners.revoke(&[&shop, &spare]).expect("a list")).expect("writes");
    place.relay.log_line("were read again").await.expect("says so");
    assert!(ask(&place.relay.public, "partners.test", &spare_client, order()).await.is_err());
}

#[tokio::test]
async fn an_agent_shows_its_certificate_and_a_token_that_is_bound_to_one_counts_beside_it_alone() {
    let place = place("").await;
    let handler = Handler::echo().await.expect("listens");
    let config = place.relay.config().expect("a config");
    let bound = config.replace(
        "max_sessions = 1000000\n",
        "client_certificate = { clients = \"agents\", names = [\"cn:Somebody\"] }\n",
    );
    let mut relay = place.relay;
    let there = format!("ws://{}", relay.listeners[2]);
    let mut before = relay.agent("open", &handler.port(), &["--relay", &there]).await.expect("attaches");
    relay.set_config(&bound).expect("writes");
    relay.reload().await.expect("told");
    // As one whose token was revoked.
    let told = timeout(Duration::from_secs(5), before.line("counts only beside a client certificate")).await;
    told.expect("it is ended at once").expect("it is told why");
    assert_eq!(before.ended().await.expect("ends"), 3);
    relay.log_line("was taken over").await.expect("says so");

    let agent = place.agents.give(place.folder.path(), "agent", &["agent.test"], "Somebody").expect("a certificate");
    let port = |address: &String| address.rsplit(':').next().expect("a port").to_owned();
    let url = |address: &String| format!("wss://localhost:{}", port(address));
    let root = place.folder.path().join("cert.pem").display().to_string();
    let (cert, key) = (agent.cert.display().to_string(), agent.key.display().to_string());
    let (agents, open) = (url(&relay.listeners[1]), url(&relay.listeners[0]));
    let shown = ["--client-cert", &cert, "--client-key", &key];
    let with = [&["--relay", &agents, "--relay-ca", &root][..], &shown].concat();
    let _agent = relay.agent("open", &handler.port(), &with).await.expect("attaches");
    let answer = send(&relay.listeners[2], post("relay.test", "/open")).await.expect("an answer");
    assert_eq!(answer.status(), 200);

    // What a token without its certificate gets, and a connection without one.
    let refused = async |address: &str, more: &[&str]| {
        let mut command = Program::from(program()).role("client");
        command.args(["listen", "3000", "open", "--output", "json", "--relay", address, "--relay-ca", &root]);
        command.args(["--name", "another"]).args(more).env("RELAY_TOKEN", &relay.token);
        run_to_end(&mut command, "").await.expect("ends")
    };
    let (code, words) = refused(&open, &shown).await;
    assert!(code == 3 && words.contains("client certificate"), "{code} {words}");
    let mut doctor = Program::from(program()).role("client");
    doctor.args(["doctor", "--relay", &agents, "--relay-ca", &root]).env("RELAY_TOKEN", &relay.token);
    let (code, words) = run_to_end(&mut doctor, "").await.expect("ends");
    assert!(code != 0 && words.contains("--client-cert"), "{code} {words}");
}
