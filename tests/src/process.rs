//! The server and the agent as processes: the same command lines that users run. An error in a relay's log fails its
//! test, unless the test says that it expects it ([`Server::expect_errors`]).

use std::{
    io::PipeReader,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    program::Program,
    sender::{request, send},
};

/// How long any state may take to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a relay may have what strangers began. One that speaks HTTP/2 and vanished is found out by its pings, in 30 s.
const SETTLES: Duration = Duration::from_secs(45);

/// A running relay.
pub struct Server {
    child: Child,
    log: Output,
    errors: Errors,
    /// The public listener, `host:port`.
    pub public: String,
    /// Every public listener: `host:port` or `unix:PATH`.
    pub listeners: Vec<String>,
    /// The listener for redirects, `host:port`; empty without one.
    pub http: String,
    /// The admin listener, `host:port`.
    pub admin: String,
    /// The token that its agents use.
    pub token: String,
    /// What it said before it listened.
    pub first_words: String,
    program: Program,
    directory: tempfile::TempDir,
    vars: Vec<(String, String)>,
}

/// What a relay has under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    files: usize,
    tasks: usize,
    /// Sessions of agents.
    pub sessions: usize,
    exchanges: usize,
    /// What heads and collected bodies take of their memory, in bytes.
    pub body_bytes: usize,
}

/// A running agent.
pub struct Agent {
    child: Child,
    out: Output,
}

impl Server {
    /// Starts a relay with these `[[endpoint]]` tables, listening on `listen`, with some variables set. Where `listen` is
    /// empty, the tables have `[[server.listen]]` as well.
    ///
    /// # Errors
    /// What it said instead of listening.
    pub async fn start(
        program: impl Into<Program>,
        listen: &str,
        endpoints: &str,
        vars: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let program = program.into();
        let directory = tempfile::tempdir()?;
        let token = relay_server::agents::token::AgentToken::generate().map_err(|error| anyhow::anyhow!("{error}"))?;
        // Listeners of its own stand in the place of the one.
        let one = if listen.is_empty() { String::new() } else { format!("listen = \"{listen}\"\n") };
        let config = format!(
            "version = 1\n[server]\n{one}admin = \"127.0.0.1:0\"\nadmin_hosts = [\"relay.test\"]\n{endpoints}\n\
             [[token]]\nname = \"test\"\nsha256 = [\"{}\"]\nendpoints = [\"*\"]\nmax_sessions = 1000000\n",
            token.hash().to_hex()
        );
        let path = directory.path().join("relay.toml");
        std::fs::write(&path, config)?;
        let errors = Errors::default();
        let (child, log) = spawn_server(&program, &path, listen, vars, &errors)?;
        let mut server = Self {
            child,
            log,
            errors,
            public: String::new(),
            listeners: Vec::new(),
            http: String::new(),
            admin: String::new(),
            token: token.expose().to_owned(),
            first_words: String::new(),
            program,
            directory,
            vars: vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        server.learn_addresses().await?;
        Ok(server)
    }

    /// Starts the same relay again on `listen`, after its end, with the same variables set.
    ///
    /// # Errors
    /// What it said instead of listening.
    pub async fn start_again(&mut self, listen: &str) -> anyhow::Result<()> {
        let path = self.directory.path().join("relay.toml");
        let vars: Vec<(&str, &str)> = self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        (self.child, self.log) = spawn_server(&self.program, &path, listen, &vars, &self.errors)?;
        self.learn_addresses().await
    }

    async fn learn_addresses(&mut self) -> anyhow::Result<()> {
        let mut words = String::new();
        let line = loop {
            let line = self.log_line("").await.with_context(|| format!("it does not listen; it said:\n{words}"))?;
            if line.contains("listening") {
                break line;
            }
            words += &line;
            words.push('\n');
        };
        self.first_words = words;
        let line: serde_json::Value = serde_json::from_str(&line)?;
        self.public = line["fields"]["public"].as_str().context("its address")?.to_owned();
        self.admin = line["fields"]["admin"].as_str().context("its address")?.to_owned();
        self.http = line["fields"]["http"].as_str().unwrap_or_default().to_owned();
        let listeners = line["fields"]["listeners"].as_str().unwrap_or_default();
        self.listeners = listeners.split(", ").map(str::to_owned).collect();
        Ok(())
    }

    /// The next line of its log that holds `text`.
    ///
    /// # Errors
    /// The log so far, if the line does not come.
    pub async fn log_line(&mut self, text: &str) -> anyhow::Result<String> {
        find(&mut self.log, text).await
    }

    /// Says that errors which hold this text belong to the test.
    pub fn expect_errors(&self, text: &'static str) {
        self.errors.expected.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Runs an agent for one endpoint and waits until it is ready.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn agent(&self, endpoint: &str, target: &str, more: &[&str]) -> anyhow::Result<Agent> {
        let mut command = self.program.role("client");
        command.args(["listen", target, endpoint, "--output", "json"]);
        if !more.contains(&"--relay") {
            command.args(["--relay", &format!("ws://{}", self.public)]);
        }
        run_agent(command.args(more).env("RELAY_TOKEN", &self.token)).await
    }

    /// Runs an agent from a `relay-client.toml` and waits until it is ready. `endpoints` are its tables.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn agent_from_file(&self, endpoints: &str) -> anyhow::Result<Agent> {
        let path = self.directory.path().join("relay-client.toml");
        let relay = format!("version = 1\nrelay = \"ws://{}\"\ntoken = \"env:RELAY_TOKEN\"\n", self.public);
        std::fs::write(&path, relay + endpoints)?;
        let mut command = self.program.role("client");
        command.args(["start", "--all", "--output", "json", "--config"]).arg(&path);
        run_agent(command.env("RELAY_TOKEN", &self.token)).await
    }

    /// Asks it to stop.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        signal(&self.child, "-TERM").await
    }

    /// Asks it to read its config again.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn reload(&self) -> anyhow::Result<()> {
        signal(&self.child, "-HUP").await
    }

    /// The token of its admin API.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn admin_token(&self) -> std::io::Result<String> {
        std::fs::read_to_string(self.state_file("admin.token"))
    }

    /// Where a file of its state directory is.
    #[must_use]
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.directory.path().join("relay-state").join(name)
    }

    /// Runs `relay-server` with these words, asking this relay: the exit code and what it printed.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn ask(&self, words: &[&str]) -> anyhow::Result<(i32, String)> {
        let url = format!("http://{}", self.admin);
        let config = self.directory.path().join("relay.toml");
        let config = config.to_str().context("text")?;
        self.run(&[words, &["--admin-url", &url, "--config", config]].concat()).await
    }

    /// Runs `relay-server` with these words: the exit code and what it printed.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn run(&self, words: &[&str]) -> anyhow::Result<(i32, String)> {
        let mut command = self.program.role("server");
        command.args(words).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.context("it did not end")??;
        Ok((output.status.code().context("a code")?, String::from_utf8(output.stdout)?))
    }

    /// Runs `relay-server` with these words, asking this relay: the exit code and what it printed on both outputs.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn run_with_input(&self, words: &[&str], stdin: &str) -> anyhow::Result<(i32, String)> {
        let mut command = self.program.role("server");
        command.args(words).arg("--config").arg(self.directory.path().join("relay.toml"));
        command.args(["--admin-url", &format!("http://{}", self.admin)]);
        run_to_end(&mut command, stdin).await
    }

    /// Where its config is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// The lines of its log that nobody has looked at.
    pub fn log_so_far(&mut self) -> String {
        let mut text = String::new();
        while let Ok(line) = self.log.try_recv() {
            text += &line;
            text.push('\n');
        }
        text
    }

    /// The text of its config.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn config(&self) -> std::io::Result<String> {
        std::fs::read_to_string(self.directory.path().join("relay.toml"))
    }

    /// Writes its config anew; [`Server::reload`] has it read.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_config(&self, text: &str) -> std::io::Result<()> {
        // In one step: a relay that reads it for the change before must not find half of this one.
        let new = self.directory.path().join("relay.toml.new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.directory.path().join("relay.toml"))
    }

    /// What it has under way at this moment.
    ///
    /// # Errors
    /// If it does not say.
    pub async fn load(&self) -> anyhow::Result<Load> {
        let answer = send(&self.admin, request("GET", "/metrics", &[], "")).await?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let gauge = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in:\n{text}"))
        };
        Ok(Load {
            files: self.open_files()?,
            tasks: gauge("relay_tasks")?,
            sessions: gauge("relay_agent_sessions")?,
            exchanges: gauge("relay_exchanges_in_flight")?,
            body_bytes: gauge("relay_bodies_collected_bytes")?,
        })
    }

    /// Waits until it has no more under way than `before`: no task, session, exchange, body or descriptor is left.
    ///
    /// # Errors
    /// What is left.
    pub async fn settles(&self, before: &Load) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLES;
        loop {
            let now = self.load().await?;
            if now.files <= before.files
                && now.tasks <= before.tasks
                && now.sessions <= before.sessions
                && now.exchanges <= before.exchanges
                && now.body_bytes <= before.body_bytes
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let sockets = sockets(&self.child).unwrap_or_default();
                bail!("it does not settle: {now:?}, and before {before:?}; its connections:\n{sockets}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process id, until it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Descriptors that it has open.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        open_files(&self.child)
    }

    /// Its memory in RAM, in bytes.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn memory(&self) -> anyhow::Result<u64> {
        memory(&self.child, "VmRSS:")
    }

    /// The most that its memory in RAM ever was, in bytes.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        memory(&self.child, "VmHWM:")
    }

    /// User and system time that it has used.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.child)
    }

    /// Sends it a signal, such as `-STOP`.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn signal(&self, name: &str) -> anyhow::Result<()> {
        signal(&self.child, name).await
    }

    /// Waits for its end, and whether it was code 0.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn ended(&mut self) -> anyhow::Result<bool> {
        Ok(timeout(PATIENCE, self.child.wait()).await.context("it did not end")??.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        // Its log ends with it, at once; what was logged before that counts.
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.errors.is_read() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let unexpected = self.errors.unexpected();
        if !std::thread::panicking() {
            assert!(unexpected.is_empty(), "the relay logged errors:\n{}", unexpected.join("\n"));
        }
    }
}

/// The errors of a relay's log, over all its starts.
#[derive(Default)]
struct Errors {
    seen: Arc<Mutex<Vec<String>>>,
    expected: Mutex<Vec<&'static str>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl Errors {
    /// Reads a log to its end. A thread does it, so that it goes on when the test's runtime does not.
    fn watch(&self, log: PipeReader) -> Output {
        let (lines, output) = mpsc::unbounded_channel();
        let seen = Arc::clone(&self.seen);
        let reader = std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(log)).map_while(Result::ok) {
                if line.contains("\"level\":\"ERROR\"") || line.contains("panicked at") {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                }
                let _ = lines.send(line);
            }
        });
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        output
    }

    fn is_read(&self) -> bool {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).iter().all(JoinHandle::is_finished)
    }

    fn unexpected(&self) -> Vec<String> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.retain(|line| !expected.iter().any(|text| line.contains(text)));
        seen
    }
}

impl Agent {
    /// Runs an agent for one endpoint of the relay at `address` and waits until it is ready.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn start(
        program: &Path,
        address: &str,
        token: &str,
        endpoint: &str,
        target: &str,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["client", "listen", target, endpoint, "--output", "json", "--relay", &format!("ws://{address}")]);
        run_agent(command.args(more).env("RELAY_TOKEN", token)).await
    }

    /// Runs any agent, ready or not.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        spawn_agent(command)
    }

    /// Waits for its end: its exit code.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn ended(&mut self) -> anyhow::Result<i32> {
        let status = timeout(PATIENCE, self.child.wait()).await.context("it did not end")??;
        status.code().context("a signal ended it")
    }

    /// Runs any agent that prints a line with `"ready"` once it is.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn run(command: &mut Command) -> anyhow::Result<Self> {
        run_agent(command).await
    }

    /// The next line that it prints and that holds `text`.
    ///
    /// # Errors
    /// What it printed instead.
    pub async fn line(&mut self, text: &str) -> anyhow::Result<String> {
        find(&mut self.out, text).await
    }

    /// Descriptors that it has open.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn open_files(&self) -> anyhow::Result<usize> {
        open_files(&self.child)
    }

    /// The most that its memory in RAM ever was, in bytes.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        memory(&self.child, "VmHWM:")
    }

    /// Its memory in RAM, in bytes.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn memory(&self) -> anyhow::Result<u64> {
        memory(&self.child, "VmRSS:")
    }

    /// User and system time that it has used.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.child)
    }

    /// Sends it a signal, such as `-STOP`.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub async fn signal(&self, name: &str) -> anyhow::Result<()> {
        signal(&self.child, name).await
    }

    /// Everything that it prints from now to its end.
    pub async fn rest(&mut self) -> String {
        let mut rest = String::new();
        while let Ok(Some(line)) = timeout(PATIENCE, self.out.recv()).await {
            rest += &line;
            rest.push('\n');
        }
        rest
    }

    /// Asks it to stop and waits for its end; whether it was code 0.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<bool> {
        signal(&self.child, "-TERM").await?;
        Ok(timeout(PATIENCE, self.child.wait()).await.context("it did not end")??.success())
    }
}

/// What stands in metrics for the name of an endpoint that asks for no proof.
#[must_use]
pub fn label_of_open(endpoint: &str) -> String {
    let metrics = relay_server::metrics::Metrics::default();
    metrics.conceal(endpoint, true);
    metrics.shown(endpoint)
}

/// What a process prints, read as it comes so that nobody waits for this reader.
type Output = mpsc::UnboundedReceiver<String>;

fn read_on(from: impl AsyncRead + Send + Unpin + 'static) -> Output {
    let (lines, output) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut from = BufReader::new(from).lines();
        while let Ok(Some(line)) = from.next_line().await {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    output
}

fn spawn_server(
    program: &Program,
    config: &Path,
    listen: &str,
    vars: &[(&str, &str)],
    errors: &Errors,
) -> anyhow::Result<(Child, Output)> {
    let mut command = program.role("server");
    command.args(["serve", "--log-format", "json", "--config"]).arg(config);
    if !listen.is_empty() {
        command.args(["--listen", listen]);
    }
    command.envs(vars.iter().copied()).env("RELAY_LOG", "info");
    let (log, stderr) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).kill_on_drop(true);
    Ok((command.spawn()?, errors.watch(log)))
}

/// Runs a command to its end: its exit code, and what it printed on both outputs.
///
/// # Errors
/// If it does not end.
pub async fn run_to_end(command: &mut Command, stdin: &str) -> anyhow::Result<(i32, String)> {
    on_its_own(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    // One that does not read its input may have ended already.
    let _ = child.stdin.take().context("its input")?.write_all(stdin.as_bytes()).await;
    let output = timeout(PATIENCE, child.wait_with_output()).await.context("it did not end")??;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status.code().context("a signal ended it")?, text))
}

/// Keeps what the user of this machine has set up away from a client.
pub fn on_its_own(command: &mut Command) {
    let set: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "RELAY_URL", "RELAY_CLIENT_CONFIG"] {
        for name in [name.to_owned(), name.to_lowercase()] {
            if !set.iter().any(|other| *other == *name) {
                command.env_remove(name);
            }
        }
    }
    if !set.iter().any(|name| name == "XDG_CONFIG_HOME") {
        command.env("XDG_CONFIG_HOME", "/nonexistent");
    }
}

async fn run_agent(command: &mut Command) -> anyhow::Result<Agent> {
    let mut agent = Agent::spawn(command)?;
    agent.line("\"ready\"").await?;
    Ok(agent)
}

fn spawn_agent(command: &mut Command) -> anyhow::Result<Agent> {
    on_its_own(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let out = read_on(child.stdout.take().context("its output")?);
    Ok(Agent { child, out })
}

fn open_files(child: &Child) -> anyhow::Result<usize> {
    let id = child.id().context("it has ended")?;
    Ok(std::fs::read_dir(format!("/proc/{id}/fd"))?.count())
}

/// Its TCP sockets as the system tells of them: both ends, state, and the bytes that wait to be sent and to be read.
fn sockets(child: &Child) -> anyhow::Result<String> {
    let id = child.id().context("it has ended")?;
    let links = std::fs::read_dir(format!("/proc/{id}/fd"))?.filter_map(|file| file.ok()?.path().read_link().ok());
    let inode = |link: PathBuf| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    let own: Vec<String> = links.filter_map(inode).collect();
    let mut told = String::new();
    for table in ["tcp", "tcp6"] {
        for line in std::fs::read_to_string(format!("/proc/{id}/net/{table}"))?.lines().skip(1) {
            // proc(5): number, both ends, state, both queues, …, the inode.
            let columns: Vec<_> = line.split_whitespace().collect();
            if columns.get(9).is_some_and(|inode| own.iter().any(|one| one == inode)) {
                told += &columns[1..5].join(" ");
                told.push('\n');
            }
        }
    }
    Ok(told)
}

fn memory(child: &Child, name: &str) -> anyhow::Result<u64> {
    let id = child.id().context("it has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// The sum over all threads of the time on a processor (`/proc/PID/task/TID/schedstat`).
///
/// # Errors
/// If the process has ended, or the system does not say.
pub fn cpu(child: &Child) -> anyhow::Result<Duration> {
    let id = child.id().context("it has ended")?;
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().context("a number")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Raises this process' limit of open files, which its children inherit; false where that is not allowed.
pub async fn allow_open_files(count: u64) -> bool {
    let id = std::process::id().to_string();
    let limit =
        Command::new("prlimit").args(["--pid", &id, "--nofile", "--output", "SOFT", "--noheadings"]).output().await;
    let text = limit.map(|limit| String::from_utf8_lossy(&limit.stdout).trim().to_owned()).unwrap_or_default();
    if text == "unlimited" || text.parse::<u64>().is_ok_and(|limit| limit >= count) {
        return true;
    }
    let raise = Command::new("prlimit").args(["--pid", &id, &format!("--nofile={count}:{count}")]).output().await;
    raise.is_ok_and(|raise| raise.status.success())
}

/// Sends a process a signal, such as `-STOP`.
///
/// # Errors
/// If it has ended, or the signal cannot be sent.
pub async fn signal(child: &Child, name: &str) -> anyhow::Result<()> {
    let id = child.id().context("it has ended")?.to_string();
    let status = Command::new("kill").args([name, &id]).status().await?;
    if status.success() { Ok(()) } else { bail!("kill failed") }
}

async fn find(lines: &mut Output, text: &str) -> anyhow::Result<String> {
    let mut seen = Vec::new();
    let found = timeout(PATIENCE, async {
        while let Some(line) = lines.recv().await {
            if line.contains(text) {
                return Some(line);
            }
            seen.push(line);
        }
        None
    })
    .await;
    match found {
        Ok(Some(line)) => Ok(line),
        _ => bail!("no line with {text}; there were:\n{}", seen.join("\n")),
    }
}
