//! Certificates that the relay gets by itself, from pebble: from an empty directory to a chain that a sender believes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use relay_tests::{
    pebble::{Pebble, Port, leaf},
    process::{PATIENCE, Server},
    sender::{request, send},
};
use tokio::time::{Instant, sleep};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

async fn relay(listen: &Port, config: &str, vars: &[(&str, &str)]) -> Server {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    Server::start(program, &listen.address(), config, vars).await.expect("starts")
}

async fn readyz(relay: &Server) -> (u16, String) {
    let answer = send(&relay.admin, request("GET", "/readyz", &[], "")).await.expect("answers");
    (answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned())
}

/// Waits for a line of `/readyz`, or for its absence.
async fn until_ready_says(relay: &Server, text: &str, is_there: bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, said) = readyz(relay).await;
        if said.contains(text) == is_there {
            assert_eq!(status, 200, "the authority has to reach it: {said}");
            return said;
        }
        assert!(Instant::now() < deadline, "{said}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn from_an_empty_directory_to_a_served_certificate_by_tls_alpn_01() {
    if !Pebble::is_here() {
        return;
    }
    let (listen, http) = (Port::any().expect("a port"), Port::any().expect("a port"));
    let pebble = Pebble::start(&listen, &http, 90).await.expect("starts");
    let settings = pebble.settings();
    let config = format!(
        "[tls]\nacme = {{ domains = [\"Hooks.test\", \"more.test\"], email = \"ops@hooks.test\", {settings} }}\n{OPEN}"
    );
    let mut relay = relay(&listen, &config, &[]).await;
    relay.log_line("a certificate was issued").await.expect("the first");
    relay.log_line("a certificate was issued").await.expect("the second");
    until_ready_says(&relay, "certificate_missing", false).await;
    let root = pebble.root().await.expect("a root");
    let first = leaf(&relay.public, "hooks.test", &root).await.expect("believes it");
    let other = leaf(&relay.public, "more.test", &root).await.expect("believes it");
    assert_ne!(first, other, "a certificate for each domain");
    assert!(leaf(&relay.public, "elsewhere.test", &root).await.is_err(), "and for no other");

    // What is kept is sealed, and a restart orders nothing.
    let store = fs::read(relay.state_file("relay.db")).expect("a store");
    let log = fs::read(relay.state_file("relay.db-wal")).unwrap_or_default();
    for secret in [&b"PRIVATE KEY"[..], b"key_pkcs8"] {
        assert!(![&store, &log].iter().any(|file| file.windows(secret.len()).any(|part| part == secret)));
    }
    relay.terminate().await.expect("told");
    assert!(relay.ended().await.expect("ends"));
    relay.start_again(&listen.address()).await.expect("starts");
    assert_eq!(leaf(&relay.public, "hooks.test", &root).await.expect("believes it"), first);
    assert!(!readyz(&relay).await.1.contains("certificate_missing"));
    let said = relay.log_so_far();
    assert!(!said.contains("a certificate is ordered"), "{said}");
}

#[tokio::test]
async fn a_certificate_by_http_01_comes_through_the_listener_that_redirects() {
    if !Pebble::is_here() {
        return;
    }
    let (listen, http) = (Port::any().expect("a port"), Port::any().expect("a port"));
    let pebble = Pebble::start(&listen, &http, 90).await.expect("starts");
    let settings = pebble.settings();
    let config = format!(
        "http_listen = \"{}\"\npublic_url = \"https://hooks.test\"\n\
         [tls]\nacme = {{ domains = [\"hooks.test\"], challenge = \"http-01\", {settings} }}\n{OPEN}",
        http.address()
    );
    let mut relay = relay(&listen, &config, &[]).await;
    relay.log_line("a certificate was issued").await.expect("issued");
    let root = pebble.root().await.expect("a root");
    leaf(&relay.public, "hooks.test", &root).await.expect("believes it");
    let gone = request("GET", "/.well-known/acme-challenge/x", &[("host", "hooks.test")], "");
    assert_ne!(send(&http.address(), gone).await.expect("answers").status(), 200, "the proof is taken away");
}

#[tokio::test]
async fn a_wildcard_by_dns_01_and_its_hook_cleans_up() {
    if !Pebble::is_here() {
        return;
    }
    let (listen, http) = (Port::any().expect("a port"), Port::any().expect("a port"));
    let pebble = Pebble::start(&listen, &http, 90).await.expect("starts");
    let hook = pebble.hook().expect("a script");
    let (settings, line) = (pebble.settings(), hook.setting());
    let config = format!(
        "sandbox = true\n[tls]\nacme = {{ domains = [\"*.hooks.test\"], challenge = \"dns-01\", {line}, {settings} }}\n{OPEN}"
    );
    let mut relay = relay(&listen, &config, &[]).await;
    relay.log_line("a certificate was issued").await.expect("issued");
    let root = pebble.root().await.expect("a root");
    leaf(&relay.public, "any.hooks.test", &root).await.expect("believes it");
    assert!(leaf(&relay.public, "hooks.test", &root).await.is_err());
    let calls = hook.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    let value = calls[0].strip_prefix("present _acme-challenge.hooks.test ").expect("it is made first");
    assert_eq!(calls[1].strip_prefix("cleanup _acme-challenge.hooks.test "), Some(value));
}

#[tokio::test]
async fn a_domain_that_leads_elsewhere_is_named_with_the_step_and_the_way_out() {
    if !Pebble::is_here() {
        return;
    }
    let (listen, elsewhere) = (Port::any().expect("a port"), Port::any().expect("a port"));
    let pebble = Pebble::start(&elsewhere, &elsewhere, 90).await.expect("starts");
    let settings = pebble.settings();
    let config = format!("[tls]\nacme = {{ domains = [\"hooks.test\"], {settings} }}\n{OPEN}");
    let relay = relay(&listen, &config, &[]).await;
    relay.expect_errors("there is no certificate, and senders refuse the relay");
    // Debian's pebble calls it unauthorized if it cannot connect.
    let said = until_ready_says(&relay, "Failed to connect to ", true).await;
    for words in ["certificate_missing hooks.test: the CA's look at the domain: ", "port 443", "the next try is at "] {
        assert!(said.contains(words), "{said}");
    }
    let root = pebble.root().await.expect("a root");
    let refused = leaf(&relay.public, "hooks.test", &root).await.expect_err("nobody believes the stand-in");
    assert!(format!("{refused:?}").contains("UnknownIssuer"), "{refused:?}");
}

/// What moves a process' clock, in its machine's folder.
fn faketime() -> Option<PathBuf> {
    let mut folders = fs::read_dir("/usr/lib").ok()?;
    folders.find_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketime.so.1")).filter(|path| path.exists()))
}

#[tokio::test]
async fn it_is_renewed_when_the_machines_clock_is_at_two_thirds_though_the_authority_forgot_the_account() {
    let Some(library) = faketime() else {
        println!("skipped: nothing moves a process' clock here (Debian's package faketime)");
        return;
    };
    if !Pebble::is_here() {
        return;
    }
    let (listen, http) = (Port::any().expect("a port"), Port::any().expect("a port"));
    let mut pebble = Pebble::start(&listen, &http, 90).await.expect("starts");
    let folder = tempfile::tempdir().expect("a folder");
    let hands = folder.path().join("clock");
    fs::write(&hands, "+0").expect("writes");
    let vars = [
        ("LD_PRELOAD", library.to_str().expect("text")),
        ("FAKETIME_TIMESTAMP_FILE", hands.to_str().expect("text")),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let settings = pebble.settings();
    let config = format!("[tls]\nacme = {{ domains = [\"hooks.test\"], {settings} }}\n{OPEN}");
    let mut relay = relay(&listen, &config, &vars).await;
    relay.log_line("a certificate was issued").await.expect("issued");
    let root = pebble.root().await.expect("a root");
    let first = leaf(&relay.public, "hooks.test", &root).await.expect("believes it");

    relay.reload().await.expect("told");
    relay.log_line("was taken over").await.expect("says so");
    assert_eq!(leaf(&relay.public, "hooks.test", &root).await.expect("believes it"), first, "it is good");
    // Debian's pebble tells no time but the real one: what it gives now is still young on day 64.
    pebble.start_again(365).await.expect("starts");
    let root = pebble.root().await.expect("a root");
    fs::write(&hands, "+64d").expect("writes");
    relay.reload().await.expect("told");
    relay.log_line("another one is made").await.expect("a new account");
    relay.log_line("a certificate was issued").await.expect("renewed");
    let second = leaf(&relay.public, "hooks.test", &root).await.expect("believes it");
    assert_ne!(first, second);
    until_ready_says(&relay, "certificate_missing", false).await;
}
