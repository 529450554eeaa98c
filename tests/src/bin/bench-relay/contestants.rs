//! What is measured: relays with their agents, and what they are compared with, as processes that stay started.

use std::{
    net::TcpListener,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use relay_tests::{
    process::{PATIENCE, Server, on_its_own, signal},
    program::Program,
    tls,
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    process::{Child, Command},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    load::{self, Done, Load, SECRET, Target},
    machine::{Machine, command, cpu, finds, memory},
    network::Inside,
    nginx::{BIG_BYTES, Nginx, Role},
    peers::{Peer, Places},
    watchers::{Tokens, Watchers},
};

/// Calls to the handler that an agent may make at a time: more than any load has in flight, as with nginx.
const CALLS: &str = "1024";

/// How long it may take until the first webhook passes.
const STARTS: Duration = Duration::from_secs(15);

/// What takes part in a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Relay(Setup),
    /// The relay and the agent of `--beside`.
    Beside(Setup),
    Handler,
    Nginx {
        hops: u8,
        is_secure: bool,
    },
    /// The peer of that place in the file.
    Peer(usize),
}

/// How relay and agent are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) mode: &'static str,
    /// Senders and agents speak TLS with the relay.
    pub(crate) is_secure: bool,
    pub(crate) agents: u32,
    /// What the endpoint's journal keeps.
    pub(crate) journal: &'static str,
    pub(crate) watchers: Watchers,
}

impl Setup {
    pub(crate) const LIVE: Self =
        Self { mode: "live", is_secure: false, agents: 1, journal: "bodies", watchers: Watchers::None };
}

/// A running one.
pub(crate) struct Contestant {
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    front: Vec<u32>,
    back: Vec<u32>,
    /// Lines that its agents have printed, one for each webhook.
    lines: Option<Arc<AtomicU64>>,
    parts: Parts,
}

/// What ends with it.
#[derive(Default)]
struct Parts {
    server: Option<Server>,
    children: Vec<Child>,
    _folder: Option<tempfile::TempDir>,
    _watchers: Vec<TcpStream>,
    _tasks: JoinSet<()>,
}

/// The relay or the first hop, and the agents or the second.
#[derive(Clone, Copy)]
pub(crate) struct Sides<T> {
    pub(crate) front: T,
    pub(crate) back: T,
}

impl Contestant {
    pub(crate) fn cpu(&self) -> anyhow::Result<Sides<Duration>> {
        let of = |side: &[u32]| side.iter().map(|process| cpu(*process)).sum::<anyhow::Result<Duration>>();
        Ok(Sides { front: of(&self.front)?, back: of(&self.back)? })
    }

    /// In bytes; for several agents that of all.
    pub(crate) fn memory(&self) -> Sides<u64> {
        let of = |side: &[u32]| side.iter().map(|process| memory(*process)).sum();
        Sides { front: of(&self.front), back: of(&self.back) }
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines.as_ref().map_or(0, |lines| lines.load(Ordering::Relaxed))
    }

    /// Waits until its agents have printed so many lines, and for the rest that an event that is kept leaves to do.
    pub(crate) async fn delivers(&self, lines: u64) -> anyhow::Result<()> {
        let (Kind::Relay(setup) | Kind::Beside(setup)) = &self.kind else { return Ok(()) };
        let all = async {
            while self.lines() < lines {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let ended = timeout(PATIENCE, all).await;
        ended.with_context(|| format!("{} of {lines} webhooks were delivered", self.lines()))?;
        if setup.mode != "live" {
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// Gives it a load for so many seconds, and waits until all of that is delivered.
    pub(crate) async fn take(&self, machine: &Machine, load: Load, seconds: u32) -> anyhow::Result<Done> {
        let lines = self.lines();
        let done = load::closed(&machine.load, &self.target, load, seconds).await?;
        self.delivers(lines + done.completed).await?;
        Ok(done)
    }

    /// Asks relay and agents to end, and waits until they have.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        for agent in &mut self.parts.children {
            signal(agent, "-TERM").await?;
            timeout(PATIENCE, agent.wait()).await.context("an agent does not end")??;
        }
        if let Some(server) = &mut self.parts.server {
            server.terminate().await?;
            server.ended().await?;
        }
        Ok(())
    }

    /// The relay of it, if it is one.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.parts.server.as_ref()
    }
}

/// Where contestants are started.
pub(crate) struct Arena {
    pub(crate) machine: Machine,
    pub(crate) ours: Program,
    pub(crate) beside: Option<Program>,
    pub(crate) peers: Vec<Peer>,
    /// The address of relays and first hops, and that of second hops.
    addresses: Sides<String>,
    /// What stands before the command line of agents, second hops and the handler, such as `ip netns exec NAME`.
    behind: Vec<String>,
    folder: tempfile::TempDir,
    secure: Arc<rustls::ClientConfig>,
    handler_port: u16,
    handler: Option<Child>,
}

impl Arena {
    pub(crate) async fn open(machine: Machine, ours: Program, inside: Option<&Inside>) -> anyhow::Result<Self> {
        let loopback = || Inside { front: "127.0.0.1".to_owned(), back: "127.0.0.1".to_owned(), behind: Vec::new() };
        let Inside { front, back, behind } = inside.cloned().unwrap_or_else(loopback);
        let addresses = Sides { front, back };
        let folder = tempfile::tempdir()?;
        let names = ["localhost".to_owned(), addresses.front.clone(), addresses.back.clone()];
        let trusted = tls::certificate_for(folder.path(), &names)?;
        let mut secure = tls::client(&trusted, b"http/1.1")?;
        // A new connection is a whole handshake, as with wrk.
        Arc::make_mut(&mut secure).resumption = rustls::client::Resumption::disabled();
        let (beside, peers, handler_port) = (None, Vec::new(), free_port()?);
        let mut arena =
            Self { machine, ours, beside, peers, addresses, behind, folder, secure, handler_port, handler: None };
        let place = arena.folder.path().join("handler");
        arena.handler = Some(arena.start_handler(&place)?);
        Ok(arena)
    }

    /// The names of what is started only if nginx is there.
    pub(crate) fn has_nginx() -> bool {
        finds("nginx")
    }

    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.secure)
    }

    pub(crate) fn name(&self, kind: &Kind) -> String {
        match kind {
            Kind::Relay(setup) | Kind::Beside(setup) => {
                let mut name = if matches!(kind, Kind::Relay(_)) { "relay".to_owned() } else { "beside".to_owned() };
                if setup.mode != "live" {
                    name += &format!(" {}", setup.mode);
                }
                if setup.agents > 1 {
                    name += &format!(" {} agents", setup.agents);
                }
                if setup.journal != Setup::LIVE.journal {
                    name += &format!(" journal {}", setup.journal);
                }
                name += &setup.watchers.name();
                name + if setup.is_secure { " tls" } else { "" }
            }
            Kind::Handler => "handler".to_owned(),
            Kind::Nginx { hops, is_secure } => format!("nginx-{hops}{}", if *is_secure { " tls" } else { "" }),
            Kind::Peer(place) => self.peers[*place].name.clone(),
        }
    }

    /// Starts it, and waits until a webhook passes.
    pub(crate) async fn start(&self, kind: &Kind) -> anyhow::Result<Contestant> {
        let contestant = match kind {
            Kind::Relay(setup) => self.relay(&self.ours, kind, *setup, "").await?,
            Kind::Beside(setup) => {
                let program = self.beside.as_ref().context("--beside is missing")?;
                self.relay(program, kind, *setup, "").await?
            }
            Kind::Handler => {
                let process = self.handler.as_ref().and_then(Child::id).context("the handler has ended")?;
                let address = format!("127.0.0.1:{}", self.handler_port);
                Contestant {
                    kind: kind.clone(),
                    target: Target { address, prefix: String::new(), tls: None, has_ids: false },
                    front: vec![process],
                    back: Vec::new(),
                    lines: None,
                    parts: Parts::default(),
                }
            }
            Kind::Nginx { hops, is_secure } => self.nginx(kind, *hops, *is_secure)?,
            Kind::Peer(place) => self.peer(kind, &self.peers[*place]).await?,
        };
        let load = Load { connections: 1, is_new: true, body_bytes: 100, path: "/hooks" };
        let mut last = anyhow::anyhow!("no webhook was sent");
        let passes = async {
            while let Err(error) = load::once(&contestant.target, load).await {
                last = error;
                sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(STARTS, passes).await {
            Ok(()) => Ok(contestant),
            Err(_) => Err(last.context("no webhook passes")),
        }
    }

    /// A relay with its agents; `settings` are keys of `[server]` and further tables.
    pub(crate) async fn relay(
        &self,
        program: &Program,
        kind: &Kind,
        setup: Setup,
        settings: &str,
    ) -> anyhow::Result<Contestant> {
        let endpoint = format!(
            "[[endpoint]]\nname = \"hooks\"\nmode = \"{}\"\nverify = {{ provider = \"github\", secrets = [\"env:BENCH\"] }}\n",
            setup.mode
        );
        let secure = if setup.is_secure { tls::settings(self.folder.path()) } else { String::new() };
        let tokens = Tokens::for_watchers(setup.watchers.count())?;
        // A relay from before the journal knows no key of it, and one that does not read is let go after a minute.
        let journal = match setup.journal {
            "bodies" => String::new(),
            other => format!("journal = \"{other}\"\n"),
        };
        let patient = if tokens.settings.is_empty() { "" } else { "[limits]\nidle_timeout = \"1h\"\n" };
        let settings = format!("{settings}{patient}{secure}{endpoint}{journal}{}", tokens.settings);
        let on = |words: &[String]| Program::behind(program.clone(), words);
        let listen = format!("{}:0", self.addresses.front);
        let server = Server::start(on(&self.machine.measured), &listen, &settings, &[("BENCH", SECRET)]).await?;
        let scheme = if setup.is_secure { "wss" } else { "ws" };
        let lines = Arc::new(AtomicU64::new(0));
        let (mut tasks, mut children) = (JoinSet::new(), Vec::new());
        for number in 0..setup.agents {
            let mut agent = on(&[self.machine.measured.as_slice(), &self.behind].concat()).role("client");
            agent.args(["listen", &self.handler_port.to_string(), "hooks", "--max-connections", CALLS]);
            // Beside another it would get copies.
            agent.args(["--attach", "shared"]);
            agent.args(["--name", &format!("agent-{number}"), "--relay", &format!("{scheme}://{}", server.public)]);
            if setup.is_secure {
                agent.arg("--relay-ca").arg(self.folder.path().join("cert.pem"));
            }
            on_its_own(agent.env("RELAY_TOKEN", &server.token));
            agent.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
            let mut child = agent.spawn()?;
            tasks.spawn(count_lines(child.stdout.take().context("its output")?, Arc::clone(&lines)));
            children.push(child);
        }
        let attached = async {
            while server.load().await?.sessions < setup.agents as usize {
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, attached).await.context("an agent does not attach")??;
        let watchers = tokens.open(&server.public, setup.watchers, &mut tasks).await?;
        Ok(Contestant {
            kind: kind.clone(),
            target: Target {
                address: server.public.clone(),
                prefix: "/hooks".to_owned(),
                tls: setup.is_secure.then(|| self.tls()),
                has_ids: setup.mode != "live",
            },
            front: server.id().into_iter().collect(),
            back: children.iter().filter_map(Child::id).collect(),
            lines: Some(lines),
            parts: Parts { server: Some(server), children, _folder: None, _watchers: watchers, _tasks: tasks },
        })
    }

    fn nginx(&self, kind: &Kind, hops: u8, is_secure: bool) -> anyhow::Result<Contestant> {
        ensure!(Self::has_nginx(), "nginx is not here (Debian package nginx-light)");
        let folder = tempfile::tempdir()?;
        let secure = is_secure.then_some(self.folder.path());
        let handler = format!("127.0.0.1:{}", self.handler_port);
        let last = format!("{}:{}", self.addresses.back, free_port()?);
        let first = format!("{}:{}", self.addresses.front, free_port()?);
        let hop =
            |name: &str, before: &[String], server: Nginx<'_>| start_nginx(before, &server, &folder.path().join(name));
        let back = [self.machine.measured.as_slice(), &self.behind].concat();
        let mut children = Vec::new();
        if hops == 2 {
            let role = Role::Proxy { next: &handler, is_secure: false };
            children.push(hop("second", &back, Nginx { listen: &last, secure, role })?);
        }
        let next = if hops == 2 { &last } else { &handler };
        let role = Role::Proxy { next, is_secure: is_secure && hops == 2 };
        let front = hop("first", &self.machine.measured, Nginx { listen: &first, secure, role })?;
        let back = children.iter().filter_map(Child::id).collect();
        let (id, tls) = (front.id(), is_secure.then(|| self.tls()));
        children.push(front);
        Ok(Contestant {
            kind: kind.clone(),
            target: Target { address: first, prefix: String::new(), tls, has_ids: false },
            front: id.into_iter().collect(),
            back,
            lines: None,
            parts: Parts { children, _folder: Some(folder), ..Parts::default() },
        })
    }

    async fn peer(&self, kind: &Kind, peer: &Peer) -> anyhow::Result<Contestant> {
        let folder = tempfile::tempdir()?;
        let (listen, tunnel) = (free_port()?, peer.tunnel.map_or_else(free_port, Ok)?);
        let places = Places { listen, handler: self.handler_port, tunnel, folder: folder.path() };
        for (name, text) in &peer.files {
            std::fs::write(folder.path().join(name), places.fill(text))?;
        }
        let start = |words: &[String]| {
            let words: Vec<String> = words.iter().map(|word| places.fill(word)).collect();
            let (program, arguments) = words.split_first().context("a command line")?;
            if !finds(program) {
                bail!("{program} is not here");
            }
            let mut command = command(&self.machine.measured, Path::new(program));
            quiet(command.args(arguments)).spawn().with_context(|| format!("{program} does not start"))
        };
        let server = start(&peer.server)?;
        let listens = async {
            while TcpStream::connect(("127.0.0.1", tunnel)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(STARTS, listens).await.with_context(|| format!("its server does not listen on {tunnel}"))?;
        let client = start(&peer.client)?;
        Ok(Contestant {
            kind: kind.clone(),
            target: Target { address: format!("127.0.0.1:{listen}"), prefix: String::new(), tls: None, has_ids: false },
            front: server.id().into_iter().collect(),
            back: client.id().into_iter().collect(),
            lines: None,
            parts: Parts { children: vec![server, client], _folder: Some(folder), ..Parts::default() },
        })
    }

    fn start_handler(&self, folder: &Path) -> anyhow::Result<Child> {
        let address = format!("127.0.0.1:{}", self.handler_port);
        let before = [self.machine.load.as_slice(), &self.behind].concat();
        if !Self::has_nginx() {
            let own = std::env::current_exe()?;
            return Ok(quiet(command(&before, &own).args(["handle", &address])).spawn()?);
        }
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("big"), "x".repeat(BIG_BYTES))?;
        start_nginx(&before, &Nginx { listen: &address, secure: None, role: Role::Handler }, folder)
    }
}

fn start_nginx(before: &[String], server: &Nginx<'_>, folder: &Path) -> anyhow::Result<Child> {
    std::fs::create_dir_all(folder)?;
    let config = folder.join("nginx.conf");
    std::fs::write(&config, server.config(folder))?;
    let mut command = command(before, Path::new("nginx"));
    command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(&config);
    quiet(&mut command).spawn().context("nginx does not start")
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

async fn count_lines(mut from: tokio::process::ChildStdout, lines: Arc<AtomicU64>) {
    let mut text = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut text).await {
        let more = text[..read].iter().filter(|byte| **byte == b'\n').count();
        lines.fetch_add(more as u64, Ordering::Relaxed);
    }
}

/// A port that is free now. Somebody may take it before it is listened on; then nothing starts, and that is said.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
