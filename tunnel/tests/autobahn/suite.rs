//! Autobahn's own test suite, where `RELAY_AUTOBAHN` names its `wstest`: against an echo server over TCP, and with an echo
//! client against its server.

use std::{env, fs, path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{handshake::derive_accept_key, protocol::Role};

use crate::{CASES, NON_STRICT, echo::echo};

const GROUPS: [&str; 8] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];

/// The suite waits a second and more in some cases; all of them take a quarter of a minute.
const PATIENCE: Duration = Duration::from_secs(300);

/// The example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn autobahns_own_suite_finds_no_failure() {
    let Some(wstest) = env::var_os("RELAY_AUTOBAHN") else {
        println!("skipped Autobahn's own suite: it needs Python 2.7 (RELAY_AUTOBAHN=path/of/wstest)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let run = |mode: &str, mut settings: Value| {
        settings["outdir"] = json!(folder.path().join(mode));
        settings["cases"] = json!(GROUPS);
        settings["exclude-cases"] = json!([]);
        settings["exclude-agent-cases"] = json!({});
        let file = folder.path().join(format!("{mode}.json"));
        fs::write(&file, settings.to_string()).expect("writes");
        let mut command = Command::new(&wstest);
        // Without the suite's own web page, whose port may be taken.
        command.args(["--webport", "0", "-m", mode, "-s"]).arg(file).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().expect("wstest runs")
    };

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("bound"));
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let mut client = run("fuzzingclient", json!({ "servers": [{ "agent": "relay", "url": url }] }));
    let ended = timeout(PATIENCE, client.wait()).await.expect("in time").expect("ends");
    assert!(ended.success(), "{ended}");
    serving.abort();
    judge(&folder.path().join("fuzzingclient"), "the server");

    let address = TcpListener::bind("127.0.0.1:0").await.and_then(|port| port.local_addr()).expect("a port");
    let address = address.to_string();
    let server = run("fuzzingserver", json!({ "url": format!("ws://{address}") }));
    timeout(PATIENCE, ask_all(&address, server)).await.expect("in time");
    judge(&folder.path().join("fuzzingserver"), "the client");
}

/// Plays every case of the suite's server.
async fn ask_all(address: &str, mut server: Child) {
    while TcpStream::connect(address).await.is_err() {
        assert!(server.try_wait().expect("a child").is_none(), "wstest has ended");
        sleep(Duration::from_millis(50)).await;
    }
    let (mut counting, leftover) = ask(address, "/getCaseCount").await;
    // One text, shorter than 126 bytes.
    let mut read = leftover;
    while read.len() < 2 || read.len() < 2 + usize::from(read[1]) {
        assert!(counting.read_buf(&mut read).await.expect("reads") > 0, "no count: {read:?}");
    }
    let count = std::str::from_utf8(&read[2..2 + usize::from(read[1])]).expect("text");
    let count: usize = count.parse().expect("a count");
    drop(counting);
    assert_eq!(count, CASES, "the suite has other cases than the table");
    for number in 1..=count {
        let (stream, leftover) = ask(address, &format!("/runCase?case={number}&agent=relay")).await;
        echo(stream, leftover, Role::Client).await;
    }
    let (stream, leftover) = ask(address, "/updateReports?agent=relay").await;
    echo(stream, leftover, Role::Client).await;
    server.kill().await.expect("ends");
}

/// What the suite says of every case. Autobahn calls what is lawful, though not as soon as it could be, not strict.
fn judge(folder: &Path, whom: &str) {
    let index = fs::read_to_string(folder.join("index.json")).expect("a report");
    let index: Value = serde_json::from_str(&index).expect("JSON");
    let cases = index["relay"].as_object().expect("cases");
    let is = |found: &Value, allowed: &[&str]| found.as_str().is_some_and(|found| allowed.contains(&found));
    let failed: Vec<_> = cases
        .iter()
        .filter(|(_, case)| {
            !is(&case["behavior"], &["OK", "NON-STRICT", "INFORMATIONAL"])
                || !is(&case["behaviorClose"], &["OK", "INFORMATIONAL"])
        })
        .collect();
    assert!(failed.is_empty(), "{whom} fails {} of {}: {failed:#?}", failed.len(), cases.len());
    let non_strict: Vec<_> =
        cases.iter().filter(|(_, case)| case["behavior"] == "NON-STRICT").map(|(name, _)| name.as_str()).collect();
    println!("{whom} passes {} cases of Autobahn's own suite; not strict: {non_strict:?}", cases.len());
    assert_eq!((cases.len(), non_strict.as_slice()), (CASES, &NON_STRICT[..]), "the table says otherwise");
}

/// Answers an upgrade, and echoes.
async fn serve(mut stream: TcpStream) {
    let (head, leftover) = read_head(&mut stream).await;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let accept = derive_accept_key(key.expect("a key").as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.set_nodelay(true).expect("a socket");
    stream.write_all(answer.as_bytes()).await.expect("writes");
    echo(stream, leftover, Role::Server).await;
}

/// Asks for an upgrade, and gives what has come behind it.
async fn ask(address: &str, target: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("a socket");
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("writes");
    let (head, leftover) = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(&derive_accept_key(KEY.as_bytes())), "{head}");
    (stream, leftover)
}

/// Reads to the end of a head, and gives what came behind it, too.
async fn read_head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let leftover = read.split_off(end + 4);
            return (String::from_utf8(read).expect("text"), leftover);
        }
        assert!(stream.read_buf(&mut read).await.expect("reads") > 0, "the connection ended within a head");
    }
}
