//! The task against a CA of the tests' own, under a clock that the tests move. It believes every order, and says when
//! certificates are to be renewed, which Debian's test server does not.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use relay_program::tls::provider;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    clock::Clock,
    config::AcmeChallenge,
    store::{MemoryStore, Store, seal::SealKey},
    tls::CertificateSource,
};

const DAY: i64 = 24 * 60 * 60;
const DOMAIN: &str = "hooks.test";

/// How the CA behaves.
#[derive(Clone, Default)]
struct Manner {
    lifetime_days: i64,
    /// How far its clock is ahead of the relay's.
    ahead_days: i64,
    /// In days of the relay's clock; without it the CA says nothing of renewals.
    window: Option<(i64, i64)>,
    /// The answer to every order, and its Retry-After.
    refuses: Option<(u16, String, &'static str)>,
    /// The account is unknown until another one is made.
    forgot_account: bool,
}

struct Seen {
    manner: Manner,
    orders: Vec<Value>,
    accounts: usize,
    asked_window: usize,
    chain: String,
}

struct StandInCa {
    url: String,
    root: PathBuf,
    now: Arc<AtomicI64>,
    seen: Arc<Mutex<Seen>>,
    _folder: tempfile::TempDir,
}

impl StandInCa {
    async fn start(now: &Arc<AtomicI64>, manner: Manner) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("ca.pem");
        std::fs::write(&root, made.cert.pem()).expect("written");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let seen = Seen { manner, orders: Vec::new(), accounts: 0, asked_window: 0, chain: String::new() };
        let ca = Self { url, root, now: Arc::clone(now), seen: Arc::new(Mutex::new(seen)), _folder: folder };
        let (url, now, seen) = (ca.url.clone(), Arc::clone(now), Arc::clone(&ca.seen));
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, url, now, seen) = (acceptor.clone(), url.clone(), Arc::clone(&now), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| answer(&url, &now, &seen, request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        ca
    }

    fn settings(&self) -> Option<Arc<AcmeSettings>> {
        Some(Arc::new(AcmeSettings {
            domains: vec![DOMAIN.to_owned()],
            email: Some("ops@hooks.test".to_owned()),
            directory: format!("{}/dir", self.url),
            ca: Some(self.root.clone()),
            challenge: AcmeChallenge::TlsAlpn01,
            dns_hook: Vec::new(),
            eab: None,
        }))
    }

    fn behaves(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.seen.lock().manner);
    }

    fn orders(&self) -> usize {
        self.seen.lock().orders.len()
    }

    fn pass_days(&self, days: i64) {
        self.now.fetch_add(days * DAY, Ordering::SeqCst);
    }
}

async fn answer(
    url: &str,
    now: &AtomicI64,
    seen: &Mutex<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole request").to_bytes();
    let payload = serde_json::from_slice::<Value>(&body).ok().map(|jws| {
        let payload = BASE64URL_NOPAD.decode(jws["payload"].as_str().expect("a payload").as_bytes()).expect("base64");
        serde_json::from_slice::<Value>(&payload).unwrap_or_default()
    });
    let mut seen = seen.lock();
    let manner = seen.manner.clone();
    let mut response = Response::builder().header("replay-nonce", "fresh");
    let order = || json!({ "authorizations": [format!("{url}/authorization")], "finalize": format!("{url}/finalize") });
    let text = match (&head.method, head.uri.path()) {
        (&Method::GET, "/dir") => {
            let mut directory = json!({
                "newNonce": format!("{url}/nonce"),
                "newAccount": format!("{url}/account"),
                "newOrder": format!("{url}/order"),
            });
            if manner.window.is_some() {
                directory["renewalInfo"] = json!(format!("{url}/renewal"));
            }
            directory.to_string()
        }
        (&Method::HEAD, "/nonce") => String::new(),
        (&Method::POST, "/account") => {
            seen.accounts += 1;
            seen.manner.forgot_account = false;
            response = response.status(StatusCode::CREATED).header("location", format!("{url}/account/1"));
            "{}".to_owned()
        }
        (&Method::POST, "/order") if manner.forgot_account => {
            response = response.status(400);
            json!({ "type": "urn:ietf:params:acme:error:accountDoesNotExist" }).to_string()
        }
        (&Method::POST, "/order") if manner.refuses.is_some() => {
            let (status, text, retry_after) = manner.refuses.expect("looked at");
            seen.orders.push(payload.expect("a JWS"));
            response = response.status(status).header("retry-after", retry_after);
            text
        }
        (&Method::POST, "/order") => {
            let payload = payload.expect("a JWS");
            let mut order = order();
            order["status"] = json!("ready");
            if let Some(replaces) = payload.get("replaces") {
                order["replaces"] = replaces.clone();
            }
            seen.orders.push(payload);
            response = response.status(StatusCode::CREATED).header("location", format!("{url}/order/1"));
            order.to_string()
        }
        (&Method::POST, "/authorization") => {
            json!({ "identifier": { "type": "dns", "value": DOMAIN }, "status": "valid", "challenges": [] }).to_string()
        }
        (&Method::POST, "/order/1") => {
            let mut order = order();
            let is_signed = !seen.chain.is_empty();
            order["status"] = json!(if is_signed { "valid" } else { "ready" });
            order["certificate"] = json!(format!("{url}/certificate"));
            order.to_string()
        }
        (&Method::POST, "/finalize") => {
            let request = payload.expect("a JWS")["csr"].as_str().expect("a request").to_owned();
            let from = now.load(Ordering::SeqCst) + manner.ahead_days * DAY;
            seen.chain = sign(&request, from, manner.lifetime_days);
            let mut order = order();
            order["status"] = json!("processing");
            order.to_string()
        }
        (&Method::POST, "/certificate") => std::mem::take(&mut seen.chain),
        (&Method::GET, path) if path.starts_with("/renewal/") => {
            seen.asked_window += 1;
            let (start, end) = manner.window.expect("it is not in the directory otherwise");
            response = response.header("retry-after", "21600");
            json!({ "suggestedWindow": { "start": at(start).to_string(), "end": at(end).to_string() } }).to_string()
        }
        other => panic!("{other:?} is not of ACME"),
    };
    Ok(response.body(Full::from(text)).expect("an answer"))
}

fn sign(request: &str, from: i64, days: i64) -> String {
    let request = BASE64URL_NOPAD.decode(request.as_bytes()).expect("base64").into();
    let mut request = CertificateSigningRequestParams::from_der(&request).expect("a request");
    let day = |seconds: i64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).expect("after 1970"))
    };
    (request.params.not_before, request.params.not_after) = (day(from), day(from + days * DAY));
    request.params.use_authority_key_identifier_extension = true;
    let root = Issuer::new(CertificateParams::default(), KeyPair::generate().expect("a key"));
    request.signed_by(&root).expect("signs").pem()
}

/// A day of the tests' clock.
fn at(day: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + day * DAY).expect("in range")
}

fn clock() -> Arc<AtomicI64> {
    Arc::new(AtomicI64::new(at(0).as_second()))
}

struct Relay {
    acme: Arc<Acme>,
    task: AcmeTask,
    tls: TlsServer,
}

impl Relay {
    async fn start(ca: &StandInCa, vault: &Vault) -> Self {
        let tls = TlsServer::new().expect("TLS");
        let hands = Arc::clone(&ca.now);
        let now = Box::new(move || Timestamp::from_second(hands.load(Ordering::SeqCst)).expect("in range"));
        let (acme, task) = Acme::build_by(now, ca.settings(), vault.clone(), &tls).await;
        Self { acme, task, tls }
    }

    /// Does what is due, until nothing is; when something is due next.
    async fn settles(&mut self) -> Timestamp {
        for _ in 0..10 {
            let now = (self.task.now)();
            let next = self.task.step(now).await.expect("there are domains");
            if next > now {
                return next;
            }
        }
        panic!("there is always something to do");
    }

    /// What a handshake for the domain gets.
    fn served(&self) -> (CertificateSource, Vec<u8>) {
        let of = |source| self.tls.certificates.of(source).into_iter().find(|one| one.names == [DOMAIN]);
        let one = of(CertificateSource::Acme).or_else(|| of(CertificateSource::StandIn)).expect("one of them");
        (one.source, one.key.cert[0].to_vec())
    }
}

fn vault() -> Vault {
    let clock = Clock::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1 << 20));
    Vault::new(store, SealKey::new(&[7; 32]).expect("a key"), clock)
}

fn ninety_days() -> Manner {
    Manner { lifetime_days: 90, ..Manner::default() }
}

#[tokio::test]
async fn a_stand_in_is_served_and_named_until_there_is_a_certificate() {
    let ca = StandInCa::start(&clock(), ninety_days()).await;
    let mut relay = Relay::start(&ca, &vault()).await;
    assert_eq!(relay.served().0, CertificateSource::StandIn);
    assert_eq!(relay.acme.missing()[0].domain, DOMAIN);
    relay.settles().await;
    assert_eq!(relay.served().0, CertificateSource::Acme);
    assert_eq!(relay.acme.missing(), []);
    assert!(relay.tls.certificates.of(CertificateSource::StandIn).is_empty());
    let order = ca.seen.lock().orders[0].clone();
    assert_eq!(order["identifiers"], json!([{ "type": "dns", "value": DOMAIN }]));
}

#[tokio::test]
async fn what_is_kept_is_served_after_a_restart_and_nothing_is_ordered() {
    let ca = StandInCa::start(&clock(), ninety_days()).await;
    let vault = vault();
    let mut first = Relay::start(&ca, &vault).await;
    first.settles().await;
    let second = Relay::start(&ca, &vault).await;
    assert_eq!(second.served(), first.served(), "from its first moment on");
    let mut second = second;
    second.settles().await;
    assert_eq!((ca.orders(), ca.seen.lock().accounts), (1, 1));
}

#[tokio::test]
async fn it_is_renewed_at_two_thirds_of_its_lifetime_under_the_same_account() {
    let ca = StandInCa::start(&clock(), ninety_days()).await;
    let mut relay = Relay::start(&ca, &vault()).await;
    relay.settles().await;
    let first = relay.served();
    ca.pass_days(59);
    let next = relay.settles().await;
    assert!(next <= at(59 + 1), "the CA is asked whether it says when, from time to time");
    assert_eq!(ca.orders(), 1);
    ca.pass_days(5);
    relay.settles().await;
    assert_eq!((ca.orders(), ca.seen.lock().accounts), (2, 1));
    assert_ne!(relay.served(), first);
    assert_eq!(relay.acme.missing(), []);
}

#[tokio::test]
async fn the_ca_says_when_it_is_renewed_and_is_told_what_is_replaced() {
    let ca = StandInCa::start(&clock(), Manner { window: Some((40, 44)), ..ninety_days() }).await;
    let mut relay = Relay::start(&ca, &vault()).await;
    relay.settles().await;
    assert_eq!(ca.seen.lock().asked_window, 1);
    ca.pass_days(39);
    relay.settles().await;
    assert_eq!(ca.orders(), 1);
    assert!(ca.seen.lock().orders[0].get("replaces").is_none());
    // It found out that it has to revoke.
    ca.behaves(|manner| manner.window = Some((-2, -1)));
    ca.pass_days(1);
    let first = relay.served();
    let next = relay.settles().await;
    // The CA says the same of each certificate that it gives; the relay does not go on for ever.
    assert_eq!(ca.orders(), 3);
    assert!((next - at(40)).get_seconds() >= 40, "{next}");
    let replaces = ca.seen.lock().orders[1]["replaces"].as_str().expect("it says so").to_owned();
    assert_eq!(replaces.split('.').count(), 2, "{replaces}");
    assert_ne!(relay.served(), first);
}

#[tokio::test]
async fn a_limit_of_the_ca_is_waited_for_also_after_a_restart() {
    let problem = json!({ "type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates" });
    let refuses = Some((429, problem.to_string(), "259200"));
    let ca = StandInCa::start(&clock(), Manner { refuses, ..ninety_days() }).await;
    let vault = vault();
    let mut relay = Relay::start(&ca, &vault).await;
    assert_eq!(relay.settles().await, at(3));
    let missing = relay.acme.missing().remove(0);
    assert_eq!(missing.retry_at, Some(at(3)));
    let why = missing.why.expect("a reason");
    assert!(why.contains("the order: rateLimited (too many certificates)"), "{why}");
    assert_eq!(relay.served().0, CertificateSource::StandIn);

    ca.behaves(|manner| manner.refuses = None);
    let mut relay = Relay::start(&ca, &vault).await;
    assert_eq!(relay.settles().await, at(3), "a start is no way round it");
    assert_eq!(ca.orders(), 1);
    ca.pass_days(3);
    relay.settles().await;
    assert_eq!(relay.acme.missing(), []);
    let mut relay = Relay::start(&ca, &vault).await;
    assert!(relay.settles().await > at(3), "the failure is forgotten");
    assert_eq!(ca.orders(), 2);
}

#[tokio::test]
async fn an_account_that_the_ca_forgot_is_made_anew() {
    let ca = StandInCa::start(&clock(), ninety_days()).await;
    let mut relay = Relay::start(&ca, &vault()).await;
    relay.settles().await;
    ca.behaves(|manner| manner.forgot_account = true);
    ca.pass_days(70);
    relay.settles().await;
    assert_eq!((ca.orders(), ca.seen.lock().accounts), (2, 2));
    assert_eq!(relay.acme.missing(), []);
}

#[tokio::test]
async fn a_wrong_clock_orders_one_certificate_and_not_one_after_the_other() {
    for ahead_days in [-1000, 1000] {
        let ca = StandInCa::start(&clock(), Manner { ahead_days, ..ninety_days() }).await;
        let mut relay = Relay::start(&ca, &vault()).await;
        let next = relay.settles().await;
        assert_eq!(ca.orders(), 1);
        assert!((next - at(0)).get_seconds() >= 40, "{next}");
        // The peers' clocks may be right.
        assert_eq!(relay.served().0, CertificateSource::Acme);
        let why = relay.acme.missing().remove(0).why.expect("a reason");
        assert!(why.contains("set the clock"), "{why}");
    }
}

#[tokio::test]
async fn another_cas_certificate_is_served_until_there_is_one_of_the_new_one() {
    let (clock, vault) = (clock(), vault());
    let old = StandInCa::start(&clock, ninety_days()).await;
    let mut relay = Relay::start(&old, &vault).await;
    relay.settles().await;
    let first = relay.served();
    let problem = json!({ "type": "urn:ietf:params:acme:error:serverInternal" }).to_string();
    let new = StandInCa::start(&clock, Manner { refuses: Some((500, problem, "1")), ..ninety_days() }).await;
    relay.acme.set(new.settings());
    relay.task.take_over().await;
    relay.settles().await;
    assert_eq!(relay.served(), first);
    assert_eq!(relay.acme.missing(), [], "it is still good");
    new.behaves(|manner| manner.refuses = None);
    new.pass_days(1);
    relay.settles().await;
    assert_ne!(relay.served(), first);
    relay.acme.set(None);
    relay.task.take_over().await;
    assert!(relay.tls.certificates.of(CertificateSource::Acme).is_empty(), "nobody asks for it any more");
    assert_eq!(relay.acme.missing(), []);
}

#[tokio::test]
async fn whatever_a_ca_answers_is_an_error_in_words_and_bounded() {
    let huge = "9".repeat(19);
    let huge: &'static str = Box::leak(huge.into_boxed_str());
    let problem =
        |detail: String| json!({ "type": "urn:ietf:params:acme:error:malformed", "detail": detail }).to_string();
    for (status, text, retry_after, words) in [
        (502, "<html>bad gateway</html>".to_owned(), "1", "it answered 502"),
        (200, "<html>".to_owned(), "1", "not what an ACME server says"),
        (400, "{}".to_owned(), "1", "it answered 400"),
        (403, problem("x".repeat(100_000)), "1", "malformed (xxx"),
        (200, "x".repeat(2 << 20), "1", "more than 524288 bytes"),
        (429, problem("later".to_owned()), huge, "malformed (later)"),
        (429, problem("later".to_owned()), "Fri, 31 Dec 9999 23:59:59 GMT", "malformed (later)"),
        (429, problem("later".to_owned()), "\u{1}", "malformed (later)"),
    ] {
        let refuses = Some((status, text, if retry_after == "\u{1}" { "soon" } else { retry_after }));
        let ca = StandInCa::start(&clock(), Manner { refuses, ..ninety_days() }).await;
        let mut relay = Relay::start(&ca, &vault()).await;
        let next = relay.settles().await;
        assert!(next <= at(7), "{next}");
        let why = relay.acme.missing().remove(0).why.expect("a reason");
        assert!(why.contains(words) && why.len() < 1000, "{words}: {why}");
    }
}

#[tokio::test]
async fn a_ca_that_is_not_there_is_named_with_the_way_out() {
    let ca = StandInCa::start(&clock(), ninety_days()).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    let mut settings = AcmeSettings::clone(&ca.settings().expect("settings"));
    settings.directory = format!("https://localhost:{}/dir", nobody.port());
    let mut relay = Relay::start(&ca, &vault()).await;
    relay.acme.set(Some(Arc::new(settings.clone())));
    relay.task.take_over().await;
    relay.settles().await;
    let why = relay.acme.missing().remove(0).why.expect("a reason");
    assert!(why.contains(&settings.directory) && why.contains("connection refused"), "{why}");

    settings = AcmeSettings { ca: None, ..AcmeSettings::clone(&ca.settings().expect("settings")) };
    let mut relay = Relay::start(&ca, &vault()).await;
    relay.acme.set(Some(Arc::new(settings)));
    relay.task.take_over().await;
    relay.settles().await;
    let why = relay.acme.missing().remove(0).why.expect("a reason");
    assert!(why.contains("tls.acme.ca"), "{why}");
    assert_eq!(ca.orders(), 0);
}
