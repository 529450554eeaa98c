//! A relay that confines itself to what its config names: what it does there goes on, and nothing else is reached.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use relay_tests::{
    handler::Handler,
    process::Server,
    sender::{request, send, signed},
    tls::{certificate, connect, settings},
};
use tempfile::TempDir;

/// Longer than what is kept in memory.
const LONG_BYTES: usize = 3 << 20;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// Folders of the config's own, each for something else, and one that no config names.
struct Folders(TempDir);

impl Folders {
    fn new() -> Self {
        let folders = Self(tempfile::tempdir().expect("a folder"));
        for name in ["live", "archive", "secrets", "rows", "logs", "outside"] {
            fs::create_dir(folders.path(name)).expect("made");
        }
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn secret(&self, name: &str) {
        fs::write(self.path(name), "a secret").expect("written");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).expect("its owner's");
    }
}

/// Whether this kernel confines anything; says so if it does not.
fn is_confined(relay: &Server) -> bool {
    let is_confined = !relay.first_words.contains("anything (");
    if !is_confined {
        println!("skipped: this kernel has no Landlock");
    }
    is_confined
}

#[tokio::test]
async fn a_relay_in_its_sandbox_carries_keeps_and_reloads() {
    let folders = Folders::new();
    let first = certificate(&folders.path("archive")).expect("a certificate");
    // As certbot leaves them: links into a folder beside.
    for file in ["cert.pem", "key.pem"] {
        symlink(format!("../archive/{file}"), folders.path("live").join(file)).expect("linked");
    }
    folders.secret("secrets/hook");
    let config = format!(
        "sandbox = true\nhttp_listen = \"127.0.0.1:0\"\npublic_url = \"https://localhost\"\n[log]\naccess = \"file:{}\"\n{}\
         [[endpoint]]\nname = \"github\"\nverify = {{ provider = \"github\", secrets = [\"file:{}\"] }}\n",
        folders.shown("logs/access.log"),
        settings(&folders.path("live")),
        folders.shown("secrets/hook"),
    );
    let mut relay = Server::start(program(), "127.0.0.1:0", &config, &[]).await.expect("starts");
    assert!(relay.first_words.contains("the sandbox "), "{}", relay.first_words);
    let handler = Handler::echo().await.expect("listens");
    let port = relay.public.rsplit(':').next().expect("a port").to_owned();
    let (there, root) = (format!("wss://localhost:{port}"), folders.shown("archive/cert.pem"));
    let agent = ["--relay", &there, "--relay-ca", &root];
    let attached = relay.agent("github", &handler.port(), &agent).await.expect("attaches");

    // A webhook that is kept, its body in a file meanwhile.
    let body = "x".repeat(LONG_BYTES);
    let deliver = async |relay: &Server, trusted: &_, body: &str| {
        let stream = connect(&relay.public, trusted, b"http/1.1").await.expect("trusts");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let headers = signed("github", "a secret", body.as_bytes()).expect("signs");
        let lines: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        sender
            .send_request(request("POST", "/github", &lines, body.to_owned()))
            .await
            .expect("answers")
            .status()
            .as_u16()
    };
    assert_eq!(deliver(&relay, &first, &body).await, 200);
    drop(attached);

    // Another certificate behind the same links, more rows, and a log that was moved away.
    let second = certificate(&folders.path("archive")).expect("a certificate");
    fs::rename(folders.path("logs/access.log"), folders.path("logs/access.log.1")).expect("moved");
    relay.reload().await.expect("told");
    relay.log_line("was taken over").await.expect("says so");
    let attached = relay.agent("github", &handler.port(), &agent).await.expect("attaches");
    assert_eq!(deliver(&relay, &second, "short").await, 200);
    drop(attached);
    let (code, listed) = relay.ask(&["event", "list", "--json"]).await.expect("runs");
    assert!(code == 0 && listed.matches("\"hook_").count() >= 2, "{listed}");
    let backup = folders.shown("outside/backup.db");
    let outside = relay.ask(&["backup", &backup]).await.expect("runs").0;
    let beside = relay.state_file("backup.db").display().to_string();
    let (code, said) = relay.ask(&["backup", &beside]).await.expect("runs");
    assert_eq!(code, 0, "{said}");
    if is_confined(&relay) {
        assert_ne!(outside, 0, "it wrote where nobody named a place");
        assert!(!Path::new(&backup).exists());
    }

    // All of it is there again after a restart.
    relay.terminate().await.expect("told");
    assert!(relay.ended().await.expect("ends"));
    // Lines are written behind, so that either file may have the first one.
    let logged = ["logs/access.log.1", "logs/access.log"].map(|name| fs::read_to_string(folders.path(name)));
    let logged = logged.map(|log| log.expect("a log")).concat();
    assert_eq!(logged.matches("\"endpoint\":\"github\"").count(), 2, "{logged}");
    relay.start_again("127.0.0.1:0").await.expect("starts");
    let (_, again) = relay.ask(&["event", "list", "--json"]).await.expect("runs");
    assert!(again.matches("\"hook_").count() >= 2, "{again}");
}

#[tokio::test]
async fn what_a_reload_names_outside_of_the_sandbox_is_not_taken_and_a_restart_takes_it() {
    let folders = Folders::new();
    folders.secret("secrets/hook");
    folders.secret("outside/hook");
    let endpoint = |name: &str, secret: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nmode = \"live\"\nverify = {{ provider = \"github\", secrets = [\"file:{}\"] }}\n",
            folders.shown(secret)
        )
    };
    let config = format!("sandbox = true\n{}", endpoint("first", "secrets/hook"));
    let mut relay = Server::start(program(), "127.0.0.1:0", &config, &[]).await.expect("starts");
    if !is_confined(&relay) {
        return;
    }
    relay.expect_errors("the config was not taken over");
    let include = |pattern: &str| format!("include = [\"{}\"]\n", folders.shown(pattern));
    let begun = relay.config().expect("its config");
    // Of a request that is not signed: 401 where the secret is known, 503 where it is not, 404 without the endpoint.
    let status = async |relay: &Server, endpoint: &str| {
        send(&relay.public, request("POST", &format!("/{endpoint}"), &[], "x"))
            .await
            .expect("answers")
            .status()
            .as_u16()
    };
    for (named, text) in [
        ("a secret", begun.clone() + &endpoint("second", "outside/hook")),
        ("a certificate", begun.clone() + &settings(&folders.path("outside"))),
        ("rows", include("outside/*.toml") + &begun),
    ] {
        relay.set_config(&text).expect("written");
        relay.reload().await.expect("told");
        let line = relay.log_line("the config was not taken over").await.expect("says so");
        let place = folders.path("outside").canonicalize().expect("there").display().to_string();
        assert!(line.contains(&place) && line.contains("server.sandbox confines this relay to"), "{named}: {line}");
        assert!(line.contains("start the relay again"), "{named}: {line}");
        assert_eq!(status(&relay, "first").await, 401, "{named}: the old config stays");
        assert_eq!(status(&relay, "second").await, 404, "{named}");
    }

    relay.set_config(&(begun.clone() + &endpoint("second", "outside/hook"))).expect("written");
    relay.terminate().await.expect("told");
    assert!(relay.ended().await.expect("ends"));
    relay.start_again("127.0.0.1:0").await.expect("starts");
    assert_eq!(status(&relay, "second").await, 401);
    // What lies beside what is named already needs no restart.
    folders.secret("outside/other");
    relay.set_config(&(begun + &endpoint("second", "outside/other"))).expect("written");
    relay.reload().await.expect("told");
    relay.log_line("was taken over").await.expect("says so");
}

#[tokio::test]
async fn what_the_kernel_lacks_is_said_where_the_config_is_looked_at() {
    let relay = Server::start(program(), "127.0.0.1:0", "sandbox = true\n", &[]).await.expect("starts");
    let config = relay.folder().join("relay.toml").display().to_string();
    let lacks = relay.first_words.contains("is open where this kernel confines nothing");
    let (code, shown) = relay.run(&["config", "show", "--config", &config]).await.expect("runs");
    assert_eq!(code, 0);
    assert!(shown.contains("\nsandbox = true  # relay.toml:"), "{shown}");
    assert_eq!(shown.contains("# server.sandbox: this kernel does not confine "), lacks, "{shown}");
}
