//! The agent as its users know it: login, settings that change while it works, health, proxies, doctor.
//!
//! Real processes. Each wait is for a state and has a bound.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use relay_server::agents::token::AgentToken;
use relay_tests::{
    handler::{Handler, full},
    link::Link,
    process::{Agent, PATIENCE, Server, run_to_end},
    proxy::{Kind, Proxy},
    sender::{request, send},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
const OTHER: &str = "[[endpoint]]\nname = \"other\"\nmode = \"live\"\nverify = \"none\"\n";

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

async fn relay(config: &str) -> Server {
    Server::start(program(), "127.0.0.1:0", config, &[]).await.expect("a relay")
}

/// A handler that answers with its name, what it saw of the path, and a header.
async fn named(name: &'static str) -> Handler {
    Handler::start(move |request: http::Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let _ = body.collect().await;
        let tag = head.headers.get("x-tag").map(|tag| tag.to_str().unwrap_or_default().to_owned()).unwrap_or_default();
        Response::new(full(format!("{name} {} {tag}", head.uri)))
    })
    .await
    .expect("a handler")
}

async fn ask(relay: &Server, target: &str) -> (StatusCode, String) {
    let response = send(&relay.public, request("POST", target, &[], "body")).await.expect("answers");
    (response.status(), String::from_utf8_lossy(response.body()).into_owned())
}

/// Asks until the answer is the one that is waited for; every answer must be a good one.
async fn ask_until(relay: &Server, target: &str, wanted: &str) {
    let waiting = async {
        loop {
            let (status, body) = ask(relay, target).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            if body == wanted {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{target} is never answered with {wanted}"));
}

/// A folder of one agent: its `relay-client.toml`, its token, its user's config directory.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a private file there, in place of the one before, as editors do.
    fn put(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let draft = self.path(&format!("{name}~"));
        fs::write(&draft, text).expect("writes");
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).expect("its mode");
        fs::rename(draft, self.path(name)).expect("renames");
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("client").args(arguments).current_dir(self.folder.path());
        command.env("XDG_CONFIG_HOME", self.folder.path()).env_remove("RELAY_TOKEN");
        command
    }

    async fn run(&self, arguments: &[&str], stdin: &str) -> (i32, String) {
        run_to_end(&mut self.client(arguments), stdin).await.expect("runs")
    }

    /// `start` with the file and the token of this folder, ready.
    async fn start(&self, more: &[&str]) -> Agent {
        let arguments = [&["start", "--output", "json", "--config", "relay-client.toml"], more].concat();
        Agent::run(&mut self.client(&arguments)).await.expect("an agent")
    }
}

/// A file for a relay, with these `[[endpoint]]` tables.
fn file(relay: &str, endpoints: &str) -> String {
    format!("version = 1\nrelay = \"{relay}\"\ntoken = \"file:token\"\n{endpoints}")
}

fn endpoint(name: &str, target: &str, more: &str) -> String {
    format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{target}\"\n{more}\n")
}

/// Traffic until it is stopped: how many were answered, and every answer that was none of the handler's.
struct Traffic {
    stop: Arc<AtomicBool>,
    sending: JoinHandle<(u32, Vec<String>)>,
}

impl Traffic {
    fn start(relay: &Server, target: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (relay.public.clone(), Arc::clone(&stop));
        let sending = tokio::spawn(async move {
            let (mut answered, mut others) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                match send(&address, request("POST", target, &[], "body")).await {
                    Ok(response) if response.status() == StatusCode::OK => answered += 1,
                    Ok(response) => others.push(format!("{} {:?}", response.status(), response.body())),
                    Err(error) => others.push(format!("{error:#}")),
                }
            }
            (answered, others)
        });
        Self { stop, sending }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (answered, others) = self.sending.await.expect("runs");
        assert!(others.is_empty(), "{answered} were answered, but: {:?}", &others[..others.len().min(5)]);
        assert!(answered >= 20, "only {answered} were sent: too few to show anything");
    }
}

/// A handler that tells of each call and answers once it is released.
async fn held() -> (Handler, mpsc::UnboundedReceiver<()>, watch::Sender<bool>) {
    let (calls, called) = mpsc::unbounded_channel();
    let (release, released) = watch::channel(false);
    let handler = Handler::start(move |_| {
        let (calls, mut released) = (calls.clone(), released.clone());
        async move {
            let _ = calls.send(());
            let _ = released.wait_for(|released| *released).await;
            Response::new(full("held"))
        }
    })
    .await
    .expect("a handler");
    (handler, called, release)
}

#[tokio::test]
async fn login_tries_the_token_and_listen_needs_no_flags_after_it() {
    let (relay, place, handler) = (relay(OPEN).await, Place::new(), named("handler").await);
    let url = format!("http://{}", relay.public);
    let (code, said) = place.run(&["login", &url], "rt_a_token_that_is_not_known\n").await;
    assert!(code == 3 && said.contains("does not accept this token"), "{code} {said}");
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nowhere = format!("http://{}", nobody.local_addr().expect("its address"));
    drop(nobody);
    let (code, said) = place.run(&["login", &nowhere], &relay.token).await;
    assert!(code == 5 && said.contains("connection refused"), "{code} {said}");
    assert!(!place.path("relay/login.toml").exists(), "nothing was stored");
    assert_eq!(place.run(&["listen", &handler.port()], "").await.0, 2);

    let (code, said) = place.run(&["login", &url], &format!("{}\n", relay.token)).await;
    assert!(code == 0 && said.contains("login.toml") && !said.contains(&relay.token), "{code} {said}");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(place.path("relay/login.toml")).expect("it is stored").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut agent =
        Agent::run(&mut place.client(&["listen", &handler.port(), "--output", "json"])).await.expect("an agent");
    assert_eq!(ask(&relay, "/open/x").await.1, "handler /x ");
    assert!(agent.stop().await.expect("stops"));
    // A relay that the login is not for never sees its token.
    let (code, said) = place.run(&["listen", &handler.port(), "--relay", &nowhere], "").await;
    assert!(code == 2 && said.contains("no token"), "{code} {said}");
    // A flag goes before the environment, that before the login.
    let mut command = place.client(&["listen", &handler.port()]);
    let (code, _) = run_to_end(command.env("RELAY_TOKEN", "rt_a_token_that_is_not_known"), "").await.expect("ends");
    assert_eq!(code, 3);
    place.put("token", &relay.token);
    let line = ["listen", &handler.port(), "--token-file", "token", "--output", "json"];
    Agent::run(place.client(&line).env("RELAY_TOKEN", "rt_a_token_that_is_not_known")).await.expect("the flag's token");
}

#[tokio::test]
async fn login_at_a_terminal_shows_nothing_of_the_token() {
    const TYPE: &str = r#"
import os, pty, sys, termios, time
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said, typed = b"", False
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if b"Token for" in said and not typed:
        while termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(terminal, sys.argv[1].encode() + b"\n")
        typed = True
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(said)
sys.exit(code)
"#;
    if Command::new("python3").arg("--version").output().await.is_err() {
        return println!("skipped: python3 is not there to hold the terminal");
    }
    let (relay, place) = (relay(OPEN).await, Place::new());
    let url = format!("http://{}", relay.public);
    let mut command = Command::new("python3");
    command.args(["-c", TYPE, &relay.token]).arg(program()).args(["client", "login", &url]);
    let (code, said) =
        run_to_end(command.env("XDG_CONFIG_HOME", place.folder.path()), "").await.expect("runs to its end");
    assert!(code == 0 && said.contains("Token for") && said.contains("logged in"), "{code} {said}");
    assert!(!said.contains(&relay.token), "it was shown");
    assert!(place.path("relay/login.toml").is_file());
}

#[tokio::test]
async fn a_file_that_only_lies_in_the_folder_is_asked_about_once_and_again_when_it_changes() {
    let (relay, place, handler) = (relay(OPEN).await, Place::new(), named("handler").await);
    let url = format!("ws://{}", relay.public);
    let text = file(&url, &endpoint("open", &handler.port(), ""));
    place.put("token", &relay.token);
    place.put("relay-client.toml", &text);
    let (code, said) = place.run(&["start"], "y\n").await;
    assert!(code == 2 && said.contains("relay-client config allow"), "nobody is asked without a terminal: {said}");

    /// Types an answer at a terminal of its own and ends with the program's exit code.
    const TYPE: &str = r#"
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said, typed = b"", False
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if b"[y/N]" in said and not typed:
        os.write(terminal, sys.argv[1].encode() + b"\n")
        typed = True
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(said)
sys.exit(code)
"#;
    if Command::new("python3").arg("--version").output().await.is_ok() {
        let answer = async |answer: &str| {
            let mut command = Command::new("python3");
            command.args(["-c", TYPE, answer]).arg(program()).args(["client", "doctor"]);
            command.current_dir(place.folder.path()).env("XDG_CONFIG_HOME", place.folder.path());
            run_to_end(command.env_remove("RELAY_TOKEN"), "").await.expect("runs to its end")
        };
        let (code, said) = answer("").await;
        assert!(code == 2 && said.contains("says where the token goes"), "{code} {said}");
        let (code, said) = answer("y").await;
        assert!(code == 0 && said.contains(&format!("relay = \"http://{}\"", relay.public)), "{code} {said}");
        let (code, said) = answer("").await;
        assert!(code == 0 && !said.contains("[y/N]"), "{code} {said}");
    } else {
        println!("python3 is not there to hold the terminal; the agreement is given by a command");
        assert_eq!(place.run(&["config", "allow"], "").await.0, 0);
    }

    // What runs goes on with what was agreed to, whatever becomes of the file.
    let mut agent = Agent::run(&mut place.client(&["start", "--output", "json"])).await.expect("an agent");
    place.put("relay-client.toml", &text.replace(&url, "https://evil.invalid"));
    let line = agent.line("not taken over").await.expect("it says so");
    assert!(line.contains("evil.invalid") && line.contains("config allow"), "{line}");
    assert_eq!(ask(&relay, "/open/x").await.1, "handler /x ");
    // Once it is agreed to, nothing else has to be touched.
    place.put(
        "relay-client.toml",
        &text.replace("file:token", "file:./token").replace("name = \"open\"", "name = \"open\"\nrate = \"9/s\""),
    );
    agent.line("not taken over").await.expect("it says so");
    assert_eq!(place.run(&["config", "allow"], "").await.0, 0);
    agent.line("\"ready\"").await.expect("it is taken over");
}

#[tokio::test]
async fn a_changed_file_is_taken_over_under_traffic_and_loses_nothing() {
    let (relay, place) = (relay(&format!("{OPEN}{OTHER}")).await, Place::new());
    let (one, two) = (named("one").await, named("two").await);
    let (slow, mut called, release) = held().await;
    let url = format!("ws://{}", relay.public);
    place.put("token", &relay.token);
    place.put(
        "relay-client.toml",
        &file(&url, &(endpoint("open", &one.port(), "") + &endpoint("other", &slow.port(), ""))),
    );
    let mut agent = place.start(&[]).await;
    let address = relay.public.clone();
    let in_flight = tokio::spawn(async move { send(&address, request("POST", "/other", &[], "")).await });
    called.recv().await.expect("the slow handler is called");
    let traffic = Traffic::start(&relay, "/open");
    ask_until(&relay, "/open/x", "one /x ").await;

    // Another target and a header: the same session.
    let changed = endpoint("open", &two.port(), "headers = { X-Tag = \"new\" }") + &endpoint("other", &slow.port(), "");
    place.put("relay-client.toml", &file(&url, &changed));
    agent.line("\"reloaded\"").await.expect("it says so");
    ask_until(&relay, "/open/x", "two /x new").await;

    // A broken file: the old one stays, and the line is named.
    place.put("relay-client.toml", &file(&url, "[[endpoint]]\nname = \"open\"\ntaget = \"1\"\n"));
    let line = agent.line("not taken over").await.expect("it says so");
    assert!(
        line.contains("relay-client.toml:6: endpoint.open.taget: unknown key") && line.contains("target"),
        "{line}"
    );
    // SIGHUP looks at it again, and says so again.
    agent.signal("-HUP").await.expect("told");
    agent.line("not taken over").await.expect("it says so");
    assert_eq!(ask(&relay, "/open/x").await.1, "two /x new");

    // Another offer: a new session first, and what is in flight on the old one is finished there.
    place.put("relay-client.toml", &file(&url, &endpoint("open", &one.port(), "max_connections = 7")));
    agent.line("\"ready\"").await.expect("a new session");
    ask_until(&relay, "/open/x", "one /x ").await;
    assert!(!in_flight.is_finished());
    release.send(true).expect("released");
    let response = in_flight.await.expect("runs").expect("answers");
    assert_eq!((response.status(), response.into_body()), (StatusCode::OK, "held".into()));
    traffic.end().await;
    assert!(agent.stop().await.expect("stops"), "code 0");
    assert!(!agent.rest().await.contains("reconnecting"));
}

#[tokio::test]
async fn files_behind_swapped_folders_are_read_again() {
    let (relay, place) = (relay(OPEN).await, Place::new());
    let (one, two) = (named("one").await, named("two").await);
    let url = format!("ws://{}", relay.public);
    place.put("token", &relay.token);
    let version = |name: &str, handler: &Handler| {
        let folder = place.path(name);
        fs::create_dir(&folder).expect("a folder");
        let text = file(&url, &endpoint("open", &handler.port(), "")).replace("file:token", "file:../token");
        fs::write(folder.join("relay-client.toml"), text).expect("writes");
    };
    let lead_to = |name: &str| {
        std::os::unix::fs::symlink(name, place.path("..data_tmp")).expect("a link");
        fs::rename(place.path("..data_tmp"), place.path("..data")).expect("swaps");
    };
    version("..1", &one);
    lead_to("..1");
    std::os::unix::fs::symlink("..data/relay-client.toml", place.path("relay-client.toml")).expect("a link");
    let text = fs::read_to_string(place.path("relay-client.toml")).expect("reads").replace("../token", "token");
    fs::write(place.path("..1/relay-client.toml"), text).expect("writes");
    let mut agent = place.start(&[]).await;
    ask_until(&relay, "/open", "one / ").await;
    version("..2", &two);
    let text = fs::read_to_string(place.path("..2/relay-client.toml")).expect("reads").replace("../token", "token");
    fs::write(place.path("..2/relay-client.toml"), text).expect("writes");
    lead_to("..2");
    agent.line("\"reloaded\"").await.expect("it says so");
    ask_until(&relay, "/open", "two / ").await;
}

#[tokio::test]
async fn a_changed_token_opens_a_new_session_before_the_old_one_goes() {
    let tokens: Vec<_> = (0..2).map(|_| AgentToken::generate().expect("randomness")).collect();
    let table = |name: &str, token: &AgentToken| {
        format!("[[token]]\nname = \"{name}\"\nsha256 = [\"{}\"]\nendpoints = [\"*\"]\n", token.hash().to_hex())
    };
    let mut relay = relay(&format!("{OPEN}{}{}", table("old", &tokens[0]), table("new", &tokens[1]))).await;
    let (place, handler) = (Place::new(), named("handler").await);
    place.put("token", tokens[0].expose());
    let url = format!("ws://{}", relay.public);
    let line = ["listen", &handler.port(), "open", "--token-file", "token", "--relay", &url, "--output", "json"];
    let mut agent = Agent::run(&mut place.client(&line)).await.expect("an agent");
    let attached = relay.log_line("an agent attached").await.expect("with the old token");
    assert!(attached.contains("\"old\""), "{attached}");
    let traffic = Traffic::start(&relay, "/open");

    // A token that is not known changes nothing but what the user is told.
    place.put("token", "rt_a_token_that_is_not_known");
    agent.line("the old one serves on").await.expect("it says so");
    place.put("token", tokens[1].expose());
    agent.line("\"ready\"").await.expect("a new session");
    // The old session ends when it is idle, which may be before or after the new one's welcome.
    let mut lines =
        [relay.log_line("an agent ").await.expect("one"), relay.log_line("an agent ").await.expect("other")];
    lines.sort_by_key(|line| line.contains("an agent left"));
    assert!(lines[0].contains("an agent attached") && lines[0].contains("\"new\""), "{lines:?}");
    assert!(lines[1].contains("an agent left"), "{lines:?}");
    let config = relay.config().expect("reads").replace(&table("old", &tokens[0]), "");
    relay.set_config(&config).expect("writes");
    relay.reload().await.expect("told");
    relay.log_line("was taken over").await.expect("the old token is gone");
    assert_eq!(ask(&relay, "/open").await.0, StatusCode::OK);
    traffic.end().await;
    assert!(agent.stop().await.expect("stops"), "code 0");
    assert!(!agent.rest().await.contains("reconnecting"));
}

#[tokio::test]
async fn the_active_one_of_several_stays_active_when_its_settings_change() {
    let (relay, place) = (relay(OPEN).await, Place::new());
    let (one, two) = (named("one").await, named("two").await);
    let url = format!("ws://{}", relay.public);
    let exclusive = |more: &str| {
        let tables = endpoint("open", &one.port(), &format!("attach = \"exclusive\"\n{more}"));
        place.put("relay-client.toml", &file(&url, &tables));
    };
    place.put("token", &relay.token);
    exclusive("");
    let mut active = place.start(&[]).await;
    let mut standby = relay.agent("open", &two.port(), &["--name", "two", "--attach", "exclusive"]).await.expect("one");
    standby.line("\"standby\"").await.expect("it is told");
    exclusive("max_connections = 7");
    let line = active.line("\"ready\"").await.expect("a new session");
    assert!(line.contains("\"standing\":\"active\""), "{line}");
    ask_until(&relay, "/open", "one / ").await;
}

#[tokio::test]
async fn a_refused_listen_exits_with_3_and_a_refused_start_waits_for_a_better_token() {
    let (relay, place, handler) = (relay(OPEN).await, Place::new(), named("handler").await);
    let url = format!("ws://{}", relay.public);
    place.put("token", "rt_a_token_that_is_not_known");
    let (code, said) = place.run(&["listen", &handler.port(), "--token-file", "token", "--relay", &url], "").await;
    assert!(code == 3 && said.contains("refused"), "{code} {said}");
    place.put("relay-client.toml", &file(&url, &endpoint("open", &handler.port(), "")));
    let line = ["start", "--output", "json", "--config", "relay-client.toml"];
    let mut agent = Agent::spawn(&mut place.client(&line)).expect("starts");
    let line = agent.line("\"refused\"").await.expect("it says so and stays");
    assert!(line.contains("unauthorized"), "{line}");
    // Long before the 60 s are over.
    place.put("token", &relay.token);
    agent.line("\"ready\"").await.expect("it tries the new token at once");
    assert_eq!(ask(&relay, "/open").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_relay_that_drains_is_left_for_another_one_first() {
    let token = AgentToken::generate().expect("randomness");
    let table = format!("[[token]]\nname = \"t\"\nsha256 = [\"{}\"]\nendpoints = [\"*\"]\n", token.hash().to_hex());
    let (mut first, mut second) = (relay(&format!("{OPEN}{table}")).await, relay(&format!("{OPEN}{table}")).await);
    let link = Link::start(&first.public).await.expect("a link");
    let (slow, mut called, release) = held().await;
    let mut agent = Agent::start(program(), &link.address.to_string(), token.expose(), "open", &slow.port(), &[])
        .await
        .expect("an agent");
    let address = first.public.clone();
    let in_flight = tokio::spawn(async move { send(&address, request("POST", "/open", &[], "")).await });
    called.recv().await.expect("the handler is called");
    link.lead_to(&second.public);
    first.terminate().await.expect("told");
    agent.line("\"ready\"").await.expect("a session with the second relay");
    second.log_line("an agent attached").await.expect("attached");
    assert!(!in_flight.is_finished(), "the first relay still waits for its answer");
    release.send(true).expect("released");
    let response = in_flight.await.expect("runs").expect("answers");
    assert_eq!((response.status(), response.into_body()), (StatusCode::OK, "held".into()));
    assert!(first.ended().await.expect("ends"), "code 0");
    assert_eq!(ask(&second, "/open").await.0, StatusCode::OK);
    assert!(agent.stop().await.expect("stops"), "code 0");
    assert!(!agent.rest().await.contains("reconnecting"));
}

#[tokio::test]
async fn ready_means_that_every_endpoint_is_attached() {
    let (relay, place, handler) = (relay(OPEN).await, Place::new(), named("handler").await);
    let tables = endpoint("open", &handler.port(), "") + &endpoint("other", &handler.port(), "");
    place.put("token", &relay.token);
    place.put("relay-client.toml", &file(&format!("ws://{}", relay.public), &tables));
    let line = ["start", "--output", "json", "--health-addr", "0", "--config", "relay-client.toml"];
    let mut agent = Agent::spawn(&mut place.client(&line)).expect("starts");
    let said: serde_json::Value =
        serde_json::from_str(&agent.line("\"health\"").await.expect("it says where")).expect("JSON");
    let health = said["address"].as_str().expect("an address").to_owned();
    assert!(health.starts_with("127.0.0.1:"), "{health}");
    agent.line("\"ready\"").await.expect("one endpoint is");
    let check = async |path: &str| {
        let response = send(&health, request("GET", path, &[], "")).await.expect("answers");
        (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
    };
    let becomes = async |status: u16, text: &str| {
        let waiting = async {
            while check("/readyz").await != (status, text.to_owned()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("/readyz is never {status} {text}"));
    };
    assert_eq!(check("/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(check("/other").await.0, 404);
    // Who says no more is answered, too.
    let mut wire = TcpStream::connect(&health).await.expect("connects");
    wire.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sends");
    wire.shutdown().await.expect("half a close");
    let mut said = String::new();
    wire.read_to_string(&mut said).await.expect("reads");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said:?}");
    becomes(503, "other: refused: unknown_endpoint\n").await;
    relay.set_config(&format!("{}{OTHER}", relay.config().expect("reads"))).expect("writes");
    relay.reload().await.expect("told");
    becomes(200, "ready\n").await;
    relay.signal("-KILL").await.expect("killed");
    becomes(503, "open: not connected\nother: not connected\n").await;
    assert_eq!(check("/livez").await.0, 200);
    // A slow client of the checks holds up nobody.
    let _idle: Vec<_> = futures_connect(&health, 10).await;
    assert_eq!(check("/livez").await.0, 200);
}

async fn futures_connect(address: &str, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(TcpStream::connect(address).await.expect("connects"));
    }
    open
}

#[tokio::test]
async fn one_endpoint_is_split_by_path() {
    let (relay, place) = (relay(OPEN).await, Place::new());
    let (own, billing, europe) = (named("own").await, named("billing").await, named("europe").await);
    let route = |path: &str, target: &str, more: &str| {
        format!("[[endpoint.route]]\npath = \"{path}\"\ntarget = \"{target}\"\n{more}\n")
    };
    let tables = endpoint("open", &own.port(), "")
        + &route("/billing", &format!("http://{}/app", billing.address), "headers = { X-Tag = \"money\" }")
        + &route("/billing/eu", &format!("http://{}/app", europe.address), "strip_prefix = true");
    place.put("token", &relay.token);
    place.put("relay-client.toml", &file(&format!("ws://{}", relay.public), &tables));
    let _agent = place.start(&[]).await;
    for (sent, seen) in [
        ("/open", "own / "),
        ("/open/bills?x", "own /bills?x "),
        ("/open/billing", "billing /app/billing money"),
        ("/open/billing/a%2Fb?x=%20", "billing /app/billing/a%2Fb?x=%20 money"),
        ("/open/billing/eu", "europe /app "),
        ("/open/billing/eu/1?x", "europe /app/1?x "),
        ("/open/billing/europe", "billing /app/billing/europe money"),
    ] {
        assert_eq!(ask(&relay, sent).await.1, seen, "{sent}");
    }
}

/// A relay under TLS whose certificate is for these names.
async fn secure_relay(place: &Place, names: &[&str]) -> Server {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    fs::write(place.path("cert.pem"), made.cert.pem()).expect("writes");
    fs::write(place.path("key.pem"), made.signing_key.serialize_pem()).expect("writes");
    let folder = place.folder.path().display();
    let relay = relay(&format!("[tls]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n{OPEN}")).await;
    place.put("token", &relay.token);
    relay
}

fn port(relay: &Server) -> &str {
    relay.public.rsplit(':').next().expect("a port")
}

#[tokio::test]
async fn a_relay_of_an_unknown_issuer_or_another_name_gets_no_token() {
    let (place, handler) = (Place::new(), named("handler").await);
    let relay = secure_relay(&place, &["localhost"]).await;
    let listen = |host: &str, more: &[&str]| {
        let url = format!("https://{host}:{}", port(&relay));
        let line = ["listen", &handler.port(), "--relay", &url, "--token-file", "token", "--output", "json"];
        place.client(&[&line, more].concat())
    };
    let said = async |mut command: Command| {
        let mut agent = Agent::spawn(&mut command).expect("starts");
        agent.line("\"reconnecting\"").await.expect("it says why")
    };
    let line = said(listen("localhost", &[])).await;
    assert!(line.contains("signed by an unknown issuer; trust it with --relay-ca"), "{line}");
    let line = said(listen("127.0.0.1", &["--relay-ca", "cert.pem"])).await;
    assert!(line.contains("its certificate is for another name"), "{line}");
    // `insecure` is for handlers: it makes no relay believed.
    let line = said(listen("localhost", &["--insecure"])).await;
    assert!(line.contains("unknown issuer"), "{line}");
    Agent::run(&mut listen("localhost", &["--relay-ca", "cert.pem"])).await.expect("believed");
    let (code, told) = place.run(&["login", &format!("https://localhost:{}", port(&relay))], &relay.token).await;
    assert!(code == 5 && told.contains("--relay-ca"), "{code} {told}");
    let line = ["login", &format!("https://localhost:{}", port(&relay)), "--relay-ca", "cert.pem"];
    assert_eq!(place.run(&line, &relay.token).await.0, 0);
    let mut plain = place.client(&["listen", &handler.port(), "--output", "json"]);
    Agent::run(&mut plain).await.expect("the login remembers whom to believe");
}

#[tokio::test]
async fn the_certificate_that_openssl_makes_is_taken_where_exactly_it_is_named() {
    let (place, handler) = (Place::new(), named("handler").await);
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&key).expect("a certificate");
    fs::write(place.path("cert.pem"), made.pem()).expect("writes");
    fs::write(place.path("key.pem"), key.serialize_pem()).expect("writes");
    let folder = place.folder.path().display();
    let relay = relay(&format!("[tls]\ncert = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n{OPEN}")).await;
    place.put("token", &relay.token);
    let url = format!("https://localhost:{}", port(&relay));
    let listen = |more: &[&str]| {
        let line = ["listen", &handler.port(), "--relay", &url, "--token-file", "token", "--output", "json"];
        place.client(&[&line, more].concat())
    };
    Agent::run(&mut listen(&["--relay-ca", "cert.pem"])).await.expect("believed");
    // A CA's certificate of the same name is another one.
    let other = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate");
    fs::write(place.path("other.pem"), other.pem()).expect("writes");
    for more in [&[][..], &["--relay-ca", "other.pem"]] {
        let mut agent = Agent::spawn(&mut listen(more)).expect("starts");
        let line = agent.line("\"reconnecting\"").await.expect("it says why");
        assert!(line.contains("CA:TRUE") && line.contains("--relay-ca") && line.contains("CA:FALSE"), "{line}");
    }
}

/// A handler under TLS, with the certificate of this folder; its port.
async fn secure_handler(place: &Place) -> u16 {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_file(place.path("cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(place.path("key.pem")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not believe the certificate goes away.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = hyper::service::service_fn(async |request: http::Request<Incoming>| {
                request.into_body().collect().await.map(|_| Response::new(full("secure".to_owned())))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    port
}

#[tokio::test]
async fn a_handler_under_tls_is_called_where_its_certificate_is_believed() {
    let (place, relay) = (Place::new(), relay(OPEN).await);
    place.put("token", &relay.token);
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    fs::write(place.path("cert.pem"), params.self_signed(&key).expect("a certificate").pem()).expect("writes");
    fs::write(place.path("key.pem"), key.serialize_pem()).expect("writes");
    let other = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate");
    fs::write(place.path("other.pem"), other.pem()).expect("writes");
    let port = secure_handler(&place).await;
    let (url, by_address) = (format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}"));
    let address = format!("http://{}", relay.public);
    for (target, more, refusal) in [
        (&url, &["--ca-file", "cert.pem"][..], None),
        (&url, &["--insecure"], None),
        (&by_address, &["--insecure"], None),
        (&by_address, &["--ca-file", "cert.pem"], Some("another name")),
        (&url, &["--ca-file", "other.pem"], Some("CA:TRUE")),
        (&url, &[], Some("CA:TRUE")),
    ] {
        let line = ["listen", target, "--relay", &address, "--token-file", "token", "--output", "json"];
        let mut agent = Agent::run(&mut place.client(&[&line, more].concat())).await.expect("an agent");
        let (status, body) = ask(&relay, "/open").await;
        match refusal {
            None => assert_eq!((status, body.as_str()), (StatusCode::OK, "secure"), "{target} {more:?}"),
            Some(why) => {
                assert_eq!(status, StatusCode::BAD_GATEWAY, "{target} {more:?}");
                let said = agent.line("\"exchange\"").await.expect("a line");
                assert!(said.contains(why), "{target} {more:?}: {said}");
            }
        }
        assert!(agent.stop().await.expect("stops"));
    }
    // The same from a file.
    place.put("relay-client.toml", &file(&address, &endpoint("open", &url, "ca_file = \"cert.pem\"")));
    let _agent = place.start(&[]).await;
    assert_eq!(ask(&relay, "/open").await, (StatusCode::OK, "secure".to_owned()));
}

#[tokio::test]
async fn proxies_lead_to_the_relay_and_resolve_its_name() {
    let (place, handler) = (Place::new(), named("handler").await);
    // A name that nobody but the proxy can resolve.
    let relay = secure_relay(&place, &["relay.test", "localhost"]).await;
    let url = format!("https://relay.test:{}", port(&relay));
    let listen = |url: &str, more: &[&str]| {
        let line = ["listen", &handler.port(), "--relay", url, "--token-file", "token", "--relay-ca", "cert.pem"];
        place.client(&[&line, &["--output", "json"][..], more].concat())
    };
    let asked = format!("relay.test:{}", port(&relay));
    let proxy = async |kind, login| Proxy::start(kind, &relay.public, login).await.expect("a proxy");

    let connect = proxy(Kind::Connect, Some("me:s3cret")).await;
    let through = format!("http://me:s3cret@{}", connect.address);
    let mut agent = Agent::run(&mut listen(&url, &["--proxy", &through])).await.expect("by flag");
    assert_eq!(ask_secure(&relay, &place).await, "handler / ");
    assert!(agent.stop().await.expect("stops"));
    assert!(!agent.rest().await.contains("s3cret"));
    Agent::run(listen(&url, &[]).env("HTTPS_PROXY", &through)).await.expect("by the environment");
    Agent::run(listen(&url, &[]).env("all_proxy", &through)).await.expect("by the other variable");
    assert_eq!(connect.asked(), [asked.as_str(); 3]);

    let socks = proxy(Kind::Socks5, Some("me:s3cret")).await;
    let through = format!("socks5h://me:s3cret@{}", socks.address);
    Agent::run(&mut listen(&url, &["--proxy", &through])).await.expect("by SOCKS");
    let local = format!("https://localhost:{}", port(&relay));
    let through = through.replace("socks5h", "socks5");
    Agent::run(&mut listen(&local, &["--proxy", &through])).await.expect("by SOCKS, resolved here");
    let seen = socks.asked();
    assert_eq!(seen[0], asked);
    assert!(seen[1] == format!("127.0.0.1:{}", port(&relay)) || seen[1] == format!("::1:{}", port(&relay)), "{seen:?}");

    let secure =
        Proxy::start_secure(&relay.public, &place.path("cert.pem"), &place.path("key.pem")).await.expect("a proxy");
    let through = format!("https://localhost:{}", secure.address.port());
    Agent::run(&mut listen(&url, &["--proxy", &through])).await.expect("TLS within TLS");
    assert_eq!(secure.asked(), [asked.as_str()]);

    // What does not work says why, and no password.
    let said = async |command: &mut Command| {
        let mut agent = Agent::spawn(command).expect("starts");
        let line = agent.line("\"reconnecting\"").await.expect("it says why");
        assert!(!line.contains("s3cret"), "{line}");
        line
    };
    let refuses = proxy(Kind::Refuses, None).await;
    let through = format!("http://me:s3cret@{}", refuses.address);
    let line = said(&mut listen(&url, &["--proxy", &through])).await;
    assert!(
        line.contains(&format!("the proxy http://{}: it refused to connect to {asked}", refuses.address)),
        "{line}"
    );
    let line = said(&mut listen(&url, &["--proxy", &format!("http://me:wrong@{}", connect.address)])).await;
    assert!(line.contains("does not accept the user name and password"), "{line}");
    let line = said(&mut listen(&url, &["--proxy", &format!("socks5h://me:wrong@{}", socks.address)])).await;
    assert!(line.contains("user name and password"), "{line}");

    // NO_PROXY and "direct" go round it; a relay on this machine needs no proxy of the environment's.
    let before = refuses.asked().len();
    let mut command = listen(&url, &[]);
    let line = said(command.env("HTTPS_PROXY", &through).env("NO_PROXY", "other.test, relay.test")).await;
    assert!(line.contains("cannot be resolved"), "{line}");
    let line = said(listen(&url, &["--proxy", "direct"]).env("HTTPS_PROXY", &through)).await;
    assert!(line.contains("cannot be resolved"), "{line}");
    Agent::run(listen(&local, &[]).env("HTTPS_PROXY", &through).env("ALL_PROXY", &through)).await.expect("direct");
    assert_eq!(refuses.asked().len(), before);
}

/// Sends one request to a relay under TLS and returns the body of its answer.
async fn ask_secure(relay: &Server, place: &Place) -> String {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(place.path("cert.pem")).expect("a certificate")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(&relay.public).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let response = sender.send_request(request("POST", "/open", &[], "body")).await.expect("answers");
    let body = response.into_body().collect().await.expect("whole").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn doctor_names_the_step_that_fails_and_what_to_do() {
    let (place, handler) = (Place::new(), named("handler").await);
    let relay = secure_relay(&place, &["localhost"]).await;
    let url = format!("https://localhost:{}", port(&relay));
    let target = handler.port();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = nobody.local_addr().expect("its address").port().to_string();
    drop(nobody);
    let examine = async |url: &str, more: &[&str]| {
        let line = ["doctor", "--json", "--relay", url, "--token-file", "token", "--relay-ca", "cert.pem"];
        let (code, said) = place.run(&[&line, more].concat(), "").await;
        let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("JSON: {said}"));
        let checks: Vec<_> = report["checks"].as_array().expect("checks").to_owned();
        let text = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let states: Vec<_> =
            checks.iter().map(|check| format!("{} {}", text(check, "check"), text(check, "state"))).collect();
        let failed = checks.iter().find(|check| text(check, "state") == "failed");
        let failed = failed.map(|check| format!("{} {}", text(check, "detail"), text(check, "todo")));
        (code, states.join(", "), failed.unwrap_or_default())
    };
    let (code, states, _) = examine(&url, &[&target]).await;
    let all = "dns ok, proxy skipped, connect ok, tls ok, clock ok, upgrade ok, token ok, target ok";
    assert_eq!((code, states.as_str()), (0, all));

    let (code, states, failed) = examine(&url, &[&target, &closed]).await;
    assert!(code == 1 && states.ends_with("target ok, target failed"), "{code} {states}");
    assert!(failed.contains("connection refused") && failed.contains("start the handler"), "{failed}");

    place.put("token", "rt_a_token_that_is_not_known");
    let (code, states, failed) = examine(&url, &[&target]).await;
    assert!(code == 3 && states.contains("clock ok, upgrade ok, token failed"), "{code} {states}");
    assert!(failed.contains("relay-client login"), "{failed}");

    let (code, states, failed) = examine(&url.replace("localhost", "127.0.0.1"), &[&target]).await;
    let rest = "tls failed, clock skipped, upgrade skipped, token skipped, target ok";
    assert!(code == 5 && states.ends_with(rest), "{code} {states}");
    assert!(failed.contains("for another name; it is issued by CN=rcgen self signed cert"), "{failed}");

    let (code, states, _) = examine(&format!("https://localhost:{closed}"), &[]).await;
    assert!(code == 5 && states.starts_with("dns ok, proxy skipped, connect failed, tls skipped"), "{code} {states}");
    let (code, states, failed) = examine("https://relay.invalid", &[]).await;
    assert!(code == 5 && states.starts_with("dns failed, proxy skipped"), "{code} {states}");
    assert!(failed.contains("cannot be resolved"), "{failed}");

    let refuses = Proxy::start(Kind::Refuses, &relay.public, None).await.expect("a proxy");
    let through = format!("http://me:s3cret@{}", refuses.address);
    let (code, states, failed) = examine("https://relay.test", &["--proxy", &through]).await;
    assert!(code == 5 && states.starts_with("dns skipped, proxy failed, connect skipped"), "{code} {states}");
    assert!(failed.contains("refused to connect to relay.test") && !failed.contains("s3cret"), "{failed}");

    let line = ["doctor", "--relay", &url, "--token-file", "token", "--relay-ca", "cert.pem", &target];
    let (code, said) = place.run(&line, "").await;
    assert!(code == 3 && said.contains("failed   token") && said.contains("ok       dns"), "{said}");
}
