//! Relay and agent on two hosts: cables that are pulled, and names that move to another address.
//!
//! Needs root and namespaces; where there are none, each test says so and is skipped. Every wait is for a
//! state and has a bound.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use relay_tests::{
    hosts::{Host, Hosts},
    link::{Link, State},
    process::{Agent, Server},
    program::Program,
};

/// Both sides take each other for dead after ten seconds of silence; a second is for this machine.
const NOTICED: Duration = Duration::from_millis(11_000);

/// After the repair the agent is back within this.
const HEALED: Duration = Duration::from_secs(5);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// A certificate for `name`, written to `folder`; the config that uses it.
fn tls(folder: &Path, name: &str) -> String {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("writes");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
    format!(
        "[tls]\ncert = {cert:?}\nkey = {key:?}\n[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n"
    )
}

async fn agent(program: &Program, relay: &Server, address: &str, folder: &Path) -> anyhow::Result<Agent> {
    let mut command = program.command();
    command.args(["client", "listen", "9", "open", "--output", "json", "--relay"]).arg(format!("wss://{address}"));
    command.arg("--relay-ca").arg(folder.join("cert.pem")).env("RELAY_TOKEN", &relay.token);
    Agent::run(&mut command).await
}

/// What a sender beside the relay gets: the agent's word that nothing listens at port 9, or the relay's.
async fn ask(sender: &Program, relay: &Server) -> anyhow::Result<String> {
    let script = "import http.client, ssl, sys\n\
        there = http.client.HTTPSConnection(sys.argv[1], context=ssl._create_unverified_context(), timeout=20)\n\
        there.request('POST', '/open', 'x')\n\
        answer = there.getresponse()\n\
        print(answer.status, answer.headers['relay-error'])";
    let output = sender.command().args(["-c", script, &relay.public]).output().await.context("python3 runs")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[tokio::test]
async fn a_pulled_cable_is_noticed_by_both_sides_and_healed_after_its_repair() {
    for end in [Host::Relay, Host::Agent] {
        let hosts = match Hosts::join() {
            Ok(hosts) => hosts,
            Err(why) => return println!("skipped: {why:#}"),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let address = hosts.address(Host::Relay);
        let config = tls(folder.path(), &address);
        let there = hosts.on(Host::Relay, program());
        let mut relay = Server::start(there, &format!("{address}:0"), &config, &[]).await.expect("a relay");
        let sender = hosts.on(Host::Relay, Path::new("python3"));
        let here = hosts.on(Host::Agent, program());
        let mut agent = agent(&here, &relay, &relay.public, folder.path()).await.expect("an agent");
        relay.log_line("an agent attached").await.expect("it attaches");
        assert_eq!(ask(&sender, &relay).await.expect("answers"), "502 handler_unreachable");

        hosts.set_cable(end, false).expect("is pulled");
        let pulled = Instant::now();
        agent.line("\"reconnecting\"").await.expect("the agent notices");
        assert!(pulled.elapsed() < NOTICED, "{end:?}: the agent noticed after {:?}", pulled.elapsed());
        let left = relay.log_line("an agent left").await.expect("the relay notices");
        assert!(pulled.elapsed() < NOTICED, "{end:?}: the relay noticed after {:?}", pulled.elapsed());
        assert!(left.contains("HeartbeatTimeout"), "{left}");
        hosts.set_cable(end, true).expect("is plugged in");
        let repaired = Instant::now();
        agent.line("\"ready\"").await.expect("it comes back");
        assert!(repaired.elapsed() < HEALED, "{end:?}: back after {:?}", repaired.elapsed());
        assert_eq!(ask(&sender, &relay).await.expect("answers"), "502 handler_unreachable");
        relay.log_line("an agent attached").await.expect("once");
        relay.terminate().await.expect("a signal");
        let rest = relay.log_line("stopping").await.expect("nobody else came");
        assert!(!rest.contains("attached"));
    }
}

/// A program that sees another `/etc/hosts`.
fn with_names(names: &Path, program: &Path) -> Program {
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    Program::behind(
        program,
        ["unshare".as_ref(), "--mount".as_ref(), "sh".as_ref(), "-c".as_ref(), script.as_ref(), names.as_os_str()],
    )
}

#[tokio::test]
async fn an_agent_follows_its_relays_name_to_another_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = folder.path().join("hosts");
    let call = |address: &str| std::fs::write(&names, format!("{address} relay.test\n")).expect("writes");
    call("127.0.0.2");
    let tried = with_names(&names, Path::new("true")).command().output().await;
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        return println!("skipped: no mount namespace of its own can be made here: {tried:?}");
    }
    let config = tls(folder.path(), "relay.test");
    let mut relay = Server::start(program(), "127.0.0.1:0", &config, &[]).await.expect("a relay");
    let before = Link::start_at("127.0.0.2:0", &relay.public).await.expect("a link");
    let port = before.address.port();
    let after = Link::start_at(&format!("127.0.0.3:{port}"), &relay.public).await.expect("a link");
    let here = with_names(&names, program());
    let mut agent = agent(&here, &relay, &format!("relay.test:{port}"), folder.path()).await.expect("an agent");
    relay.log_line("an agent attached").await.expect("it attaches");
    assert!(after.arrivals().is_empty());

    before.set(State::Frozen);
    call("127.0.0.3");
    let moved = Instant::now();
    agent.line("\"reconnecting\"").await.expect("it notices");
    agent.line("\"ready\"").await.expect("it comes back");
    assert!(moved.elapsed() < Duration::from_secs(30), "back after {:?}", moved.elapsed());
    assert_eq!(after.arrivals().len(), 1, "by the new address");
    assert!(agent.stop().await.expect("stops"), "code 0");
}

#[tokio::test]
async fn one_address_takes_no_more_connections_than_its_share_unless_it_is_a_trusted_proxys() {
    // Each stays open while the next one asks. An agent from the same address takes none of them.
    let script = "import socket, ssl, sys\n\
        host, port = sys.argv[1].rsplit(':', 1)\n\
        context = ssl._create_unverified_context()\n\
        held, served = [], 0\n\
        for _ in range(4):\n  \
          try:\n    \
            wire = context.wrap_socket(socket.create_connection((host, int(port)), 20))\n    \
            wire.sendall(b'GET /nobody HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\n    \
            served += wire.recv(12) == b'HTTP/1.1 404'\n    \
            held.append(wire)\n  \
          except OSError:\n    \
            pass\n\
        print(served)";
    for (trusted, served) in [("", "2"), ("trusted_proxies = [\"198.18.0.0/15\"]\n", "4")] {
        let hosts = match Hosts::join() {
            Ok(hosts) => hosts,
            Err(why) => return println!("skipped: {why:#}"),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let address = hosts.address(Host::Relay);
        let config = format!("max_connections_per_address = 2\n{trusted}{}", tls(folder.path(), &address));
        let there = hosts.on(Host::Relay, program());
        let mut relay = Server::start(there, &format!("{address}:0"), &config, &[]).await.expect("a relay");
        let here = hosts.on(Host::Agent, program());
        let _agent = agent(&here, &relay, &relay.public, folder.path()).await.expect("an agent");
        let sender = hosts.on(Host::Agent, Path::new("python3"));
        let output = sender.command().args(["-c", script, &relay.public]).output().await.expect("python3 runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), served, "{trusted:?}: {output:?}");
        if trusted.is_empty() {
            relay.log_line("as many connections as one may").await.expect("the log says so");
        }
    }
}

#[tokio::test]
async fn one_address_takes_no_more_of_the_listener_in_the_clear_than_its_share() {
    const SHARE: usize = 16;
    // Each stays open while the next one comes. One that is not let in is closed at once, the others after five seconds.
    let script = "import socket, sys\n\
        host, port = sys.argv[1].rsplit(':', 1)\n\
        held = [socket.create_connection((host, int(port)), 20) for _ in range(int(sys.argv[2]))]\n\
        closed = 0\n\
        for wire in held:\n  \
          wire.settimeout(0.1)\n  \
          try:\n    \
            closed += wire.recv(1) == b''\n  \
          except TimeoutError:\n    \
            pass\n  \
          except OSError:\n    \
            closed += 1\n\
        print(closed)";
    for (connections, closed) in [(SHARE, "0"), (SHARE + 1, "1")] {
        let hosts = match Hosts::join() {
            Ok(hosts) => hosts,
            Err(why) => return println!("skipped: {why:#}"),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let address = hosts.address(Host::Relay);
        let clear = format!("http_listen = \"{address}:0\"\npublic_url = \"https://{address}\"\n");
        let there = hosts.on(Host::Relay, program());
        let config = clear + &tls(folder.path(), &address);
        let relay = Server::start(there, &format!("{address}:0"), &config, &[]).await.expect("a relay");
        let sender = hosts.on(Host::Agent, Path::new("python3"));
        let output = sender.command().args(["-c", script, &relay.http, &connections.to_string()]).output().await;
        let output = output.expect("python3 runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), closed, "{connections}: {output:?}");
    }
}
