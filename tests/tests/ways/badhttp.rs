//! The corpus of bad HTTP beside this project, through relay and agent to its recording origin.
//!
//! Every case holds but those named here, each with its reason; one that begins to hold must leave the list. Where HTTP
//! leaves a choice, the stricter one is held to as well.
//! Skipped, and said so, where the corpus or Python is not there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use relay_tests::{
    process::Server,
    tls::{certificate, connect, settings},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinHandle,
};

/// Cases that do not hold, and why.
const DEVIATIONS: [(&str, &str); 1] = [(
    "t37-trailers-pseudo",
    "h2 drops pseudo-fields in trailers before anybody sees them; nothing of them reaches the handler",
)];

/// Cases in which HTTP leaves a choice, the corpus would rather see a refusal, and the relay takes the request; and why
/// that is safe. There is none.
const TAKEN: [(&str, &str); 0] = [];

/// So many cases have such a choice, at least.
const LEAST_CHOICES: usize = 15;

/// So many cases there are at least; fewer would mean that a group was left out.
const LEAST_CASES: usize = 200;

/// Endings shorter than the corpus waits for: a chunk that never comes is to end before it looks away.
const LIMITS: &str = "[limits]\nbody_idle_timeout = \"2s\"\n";

const OWN_HOST: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\nhosts = [\"hook.test\"]\n";
const NO_HOST: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

#[tokio::test]
async fn every_case_of_the_corpus_holds_but_the_known_ones() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/badhttp");
    let python = Command::new("python3").arg("--version").output().await.is_ok_and(|output| output.status.success());
    if !corpus.join("dev/index.json").exists() || !python {
        println!("skipped: the corpus of bad HTTP or python3 is not there");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = certificate(folder.path()).expect("a certificate");
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let start = async |config: String| Server::start(program, "127.0.0.1:0", &config, &[]).await.expect("starts");
    let plain = start(format!("{LIMITS}{OWN_HOST}")).await;
    let tls = start(format!("{LIMITS}{}{OWN_HOST}", settings(folder.path()))).await;
    // Where `/_relay/` of every host is the relay's own.
    let agents = start(format!("{LIMITS}{NO_HOST}")).await;

    let origin = TcpListener::bind("127.0.0.1:0").await.and_then(|port| port.local_addr()).expect("a port").to_string();
    let target = format!("http://{origin}");
    let _one = plain.agent("open", &target, &[]).await.expect("attaches");
    let port = tls.public.rsplit(':').next().expect("a port");
    let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem").display().to_string());
    let _other = tls.agent("open", &target, &["--relay", &there, "--relay-ca", &root]).await.expect("attaches");
    let (h2, _forwarding) = forward_h2(tls.public.clone(), trusted).await;

    let index = with_our_paths(&corpus, folder.path());
    let judge = async |more: &[&str]| {
        let results = folder.path().join("results.json");
        let mut run = Command::new("python3");
        run.arg(corpus.join("run_corpus.py")).arg("--index").arg(&index).arg("--json").arg(&results).args(more);
        run.args(["--target", &plain.public, "--h2-target", &h2, "--origin", &origin]);
        run.args(["--agent-target", &agents.public, "--ws-path", "/_relay/v1/connect", "--token", &agents.token]);
        run.args(["--admin-target", &agents.admin, "--admin-token", &agents.admin_token().expect("a token")]);
        let output = run.output().await.expect("runs");
        let results = fs::read_to_string(results).unwrap_or_else(|_| {
            let said = [output.stdout, output.stderr].concat();
            panic!("no results: {}", String::from_utf8_lossy(&said));
        });
        serde_json::from_str::<Vec<serde_json::Value>>(&results).expect("JSON")
    };
    let id_of = |result: &serde_json::Value| result["id"].as_str().expect("an id").to_owned();
    let failed = |results: Vec<serde_json::Value>| results.into_iter().filter(|result| result["ok"] != true);
    let first = judge(&[]).await;
    assert!(first.len() >= LEAST_CASES, "only {} cases ran", first.len());
    let choices: Vec<_> = first.iter().filter(|result| result["prefer"].is_boolean()).collect();
    assert!(choices.len() >= LEAST_CHOICES, "only {} cases with a choice", choices.len());
    let taken: Vec<_> = choices.into_iter().filter(|result| result["prefer"] == false).map(id_of).collect();
    assert_eq!(taken, TAKEN.map(|(id, _)| id), "these are taken, where a refusal is lawful, too");
    let doubtful: Vec<_> = failed(first).map(|result| id_of(&result)).collect();
    // The corpus is short of patience, for speed; what did not hold is judged again with more of it.
    let second = judge(&["--only", &doubtful.join(","), "--idle", "5", "--total", "20"]).await;

    let mut known: BTreeMap<_, _> = DEVIATIONS.into_iter().collect();
    let unknown: Vec<_> = failed(second).filter(|result| known.remove(id_of(result).as_str()).is_none()).collect();
    assert!(unknown.is_empty(), "these do not hold: {unknown:#?}");
    assert!(known.is_empty(), "these hold or are gone; take them off the list: {:?}", known.keys());
}

/// A copy of the corpus whose requests to agents' and admins' addresses name ours.
fn with_our_paths(corpus: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join("dev");
    fs::create_dir(&copy).expect("a folder");
    for entry in fs::read_dir(corpus.join("dev")).expect("a folder") {
        let file = entry.expect("an entry").path();
        let mut bytes = fs::read(&file).expect("a case");
        let asks: &[u8] = b" /agent/connect HTTP/1.1\r\n";
        if let Some(at) = bytes.windows(asks.len()).position(|window| window == asks) {
            bytes.splice(at..at + asks.len(), *b" /_relay/v1/connect HTTP/1.1\r\n");
        }
        fs::write(copy.join(file.file_name().expect("a name")), bytes).expect("writes");
    }
    copy.join("index.json")
}

/// Carries plain connections under TLS with ALPN `h2`, which the corpus itself cannot speak.
async fn forward_h2(relay: String, trusted: CertificateDer<'static>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let task = tokio::spawn(async move {
        while let Ok((plain, _)) = listener.accept().await {
            tokio::spawn(carry(plain, relay.clone(), trusted.clone()));
        }
    });
    (address, task)
}

async fn carry(mut plain: TcpStream, relay: String, trusted: CertificateDer<'static>) {
    let mut secure = connect(&relay, &trusted, b"h2").await.expect("TLS");
    // Either end may break; that is what the cases look at.
    let _ = tokio::io::copy_bidirectional(&mut plain, &mut secure).await;
}
