//! The screen of `listen`, in a real terminal: tmux holds it, and a shell in it runs the agent. Where tmux is missing the
//! tests say so and check nothing.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use relay_tests::{
    handler::Handler,
    process::{PATIENCE, Server},
    sender::{request, send},
};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");

const ENDPOINTS: &str =
    "[[endpoint]]\nname = \"kept\"\nmode = \"assured\"\nverify = \"none\"\nwait_for_agent = \"0s\"\n";

/// A terminal with a shell in it.
struct Tmux {
    folder: tempfile::TempDir,
    /// Commands whose end was waited for.
    ended: AtomicUsize,
}

impl Tmux {
    /// A terminal of 80 columns and 24 lines; `None` where there is no tmux.
    async fn start(token: &str) -> Option<Self> {
        let version = Command::new("tmux").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if !version.is_ok_and(|status| status.success()) {
            println!("skipped: tmux is not here");
            return None;
        }
        let tmux = Self { folder: tempfile::tempdir().expect("a folder"), ended: AtomicUsize::new(0) };
        let shell = "env PS1='$ ' bash --norc --noprofile -i";
        let mut command = tmux.command(&["-u", "new-session", "-d", "-x", "80", "-y", "24", shell]);
        command
            .env("RELAY_TOKEN", token)
            .env("LC_ALL", "C.UTF-8")
            .env("SCREEN_TEST_PANIC", "1")
            .env("RUST_BACKTRACE", "0");
        for name in ["NO_COLOR", "TMUX", "SSH_CONNECTION", "DISPLAY"] {
            command.env_remove(name);
        }
        assert!(command.status().await.expect("runs").success());
        tmux.until("a prompt", |screen| screen.contains('$')).await;
        Some(tmux)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.folder.path().join("socket")).args(["-f", "/dev/null"]).args(words);
        command
    }

    async fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().await.expect("runs");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Types a text.
    async fn text(&self, text: &str) {
        self.run(&["send-keys", "-l", text]).await;
    }

    /// Presses keys by their names.
    async fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat()).await;
    }

    async fn line(&self, text: &str) {
        self.text(text).await;
        self.keys(&["Enter"]).await;
    }

    async fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"]).await
    }

    /// Waits for a screen.
    async fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen().await;
            if holds(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what} does not come:\n{screen}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn resize(&self, width: &str, height: &str) {
        self.run(&["resize-window", "-x", width, "-y", height]).await;
    }

    /// What a command of the shell writes into a file.
    async fn written(&self, command: &str) -> String {
        let number = self.ended.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(number.to_string());
        // What is typed is on screen, too, and is not to be taken for what is printed.
        self.line(&format!("{command} > {}; clear; echo end''ed-{number}.", path.display())).await;
        self.until("its end", |screen| screen.contains(&format!("ended-{number}."))).await;
        std::fs::read_to_string(path).expect("what it wrote")
    }

    /// How the terminal is set, as its shell sees it.
    async fn stty(&self) -> String {
        self.written("stty -a").await
    }

    /// The exit code of the command before.
    async fn code(&self) -> i32 {
        self.written("echo $?").await.trim().parse().expect("a number")
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.folder.path().join("socket");
        let mut command = std::process::Command::new("tmux");
        let _ = command.arg("-S").arg(socket).arg("kill-server").stderr(Stdio::null()).status();
    }
}

struct World {
    relay: Server,
    handler: Handler,
    calls: tokio::sync::mpsc::UnboundedReceiver<http::request::Parts>,
    tmux: Tmux,
}

impl World {
    async fn start() -> Option<Self> {
        let relay = Server::start(Path::new(PROGRAM), "127.0.0.1:0", ENDPOINTS, &[]).await.expect("a relay");
        let (handler, calls) = Handler::telling().await.expect("listens");
        let tmux = Tmux::start(&relay.token).await?;
        Some(Self { relay, handler, calls, tmux })
    }

    fn listen(&self, more: &str) -> String {
        let (port, public) = (self.handler.port(), &self.relay.public);
        format!("{PROGRAM} client listen {port} kept --relay ws://{public} {more}")
    }

    /// Runs an agent and waits for its screen.
    async fn shown(&self) {
        self.tmux.line(&self.listen("")).await;
        self.tmux.until("the screen", |screen| screen.contains("1 endpoint ") && screen.contains("follow")).await;
        self.tmux.until("the link", |screen| screen.lines().next().is_some_and(|line| line.contains('●'))).await;
    }

    async fn webhook(&mut self, target: &str) {
        let answer = send(&self.relay.public, request("POST", target, &[], "{\"a\":1}")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        self.calls.recv().await.expect("a call");
    }
}

#[tokio::test]
async fn a_screen_shows_what_comes_searches_and_replays() {
    let Some(mut world) = World::start().await else { return };
    let before = world.tmux.stty().await;
    world.shown().await;
    world.webhook("/kept/first").await;
    let screen = world.tmux.until("its row", |screen| screen.contains("POST /")).await;
    assert!(screen.contains("● 200   kept"), "{screen}");
    world.tmux.until("its body", |screen| screen.contains("{\"a\":1}")).await;
    world.tmux.keys(&["r"]).await;
    let again = tokio::time::timeout(PATIENCE, world.calls.recv()).await.expect("in time").expect("a call");
    assert!(again.headers.contains_key("relay-replay-of"), "{again:?}");
    world.tmux.until("the replay", |screen| screen.matches("● 200").count() == 2 && screen.contains('↺')).await;

    world.tmux.keys(&["j", "Enter"]).await;
    world.tmux.until("all of it", |screen| screen.contains("[Request 7 B]") && screen.contains("\"a\": 1")).await;
    world.tmux.keys(&["Escape"]).await;
    world.tmux.text("/is:dead").await;
    world.tmux.keys(&["Enter"]).await;
    world.tmux.until("no row", |screen| screen.contains("nothing fits")).await;
    world.tmux.keys(&["Escape"]).await;
    world.tmux.until("all rows", |screen| screen.matches("● 200").count() == 2).await;

    for (width, height, mark) in [("160", "48", "┬"), ("80", "24", "──"), ("30", "6", "● 200"), ("80", "24", "──")]
    {
        world.tmux.resize(width, height).await;
        let fits =
            |screen: &str| screen.contains(mark) && screen.contains('▌') && (height == "6") != screen.contains("all");
        world.tmux.until("the new size", fits).await;
    }
    world.tmux.keys(&["q"]).await;
    let left = world.tmux.until("the end", |screen| screen.contains("failed,")).await;
    assert!(left.contains("2 events, 0 failed") && left.contains("POST"), "{left}");
    assert_eq!(world.tmux.code().await, 0);
    assert_eq!(world.tmux.stty().await, before);
}

#[tokio::test]
async fn a_screen_is_suspended_and_comes_back() {
    let Some(mut world) = World::start().await else { return };
    let before = world.tmux.stty().await;
    world.shown().await;
    world.webhook("/kept/first").await;
    world.tmux.until("its row", |screen| screen.contains("● 200")).await;
    for stop in ["a key", "a signal"] {
        if stop == "a key" {
            world.tmux.keys(&["C-z"]).await;
        } else {
            world.tmux.run(&["run-shell", "kill -TSTP -$(ps -o tpgid= -p #{pane_pid} | tr -d ' ')"]).await;
        }
        world.tmux.until("the shell", |screen| screen.contains("Stopped") && !screen.contains("follow")).await;
        assert_eq!(world.tmux.stty().await, before, "after {stop}");
        world.tmux.line("fg").await;
        world.tmux.until("the screen", |screen| screen.contains("follow") && screen.contains("● 200")).await;
    }
    world.tmux.keys(&["C-z"]).await;
    world.tmux.until("the shell", |screen| screen.contains("Stopped")).await;
    world.tmux.line("clear; bg").await;
    world.webhook("/kept/second").await;
    assert_eq!(world.tmux.stty().await, before, "in the background it leaves the terminal alone");
    world.tmux.line("fg").await;
    world.tmux.until("both rows", |screen| screen.matches("● 200").count() == 2).await;
    world.tmux.keys(&["C-c"]).await;
    world.tmux.until("the end", |screen| screen.contains("2 events, 0 failed")).await;
    assert_eq!(world.tmux.code().await, 0);
    assert_eq!(world.tmux.stty().await, before);
}

#[tokio::test]
async fn whatever_ends_it_the_terminal_is_as_it_was() {
    let Some(mut world) = World::start().await else { return };
    let before = world.tmux.stty().await;
    let signal = |name: &str| format!("kill -{name} $(ps -o tpgid= -p #{{pane_pid}} | tr -d ' ')");

    world.shown().await;
    world.tmux.run(&["run-shell", &signal("TERM")]).await;
    world.tmux.until("the end", |screen| screen.contains("0 events, 0 failed")).await;
    assert_eq!(world.tmux.code().await, 0);
    assert_eq!(world.tmux.stty().await, before);

    // It reads its settings, and goes on.
    world.shown().await;
    world.tmux.run(&["run-shell", &signal("HUP")]).await;
    world.webhook("/kept/first").await;
    world.tmux.until("its row", |screen| screen.contains("● 200")).await;
    world.tmux.keys(&["q"]).await;
    world.tmux.until("the end", |screen| screen.contains("1 event, 0 failed")).await;
    assert_eq!(world.tmux.stty().await, before);

    // The view is gone then, and the agent prints lines.
    world.shown().await;
    world.tmux.keys(&["F12"]).await;
    world.tmux.until("the panic", |screen| screen.contains("planted")).await;
    world.webhook("/kept/second").await;
    world.tmux.until("a line", |screen| screen.contains("POST   /second") && screen.contains("hook_")).await;
    world.tmux.keys(&["C-c"]).await;
    world.tmux.until("the prompt", |screen| screen.trim_end().ends_with('$')).await;
    assert_eq!(world.tmux.stty().await, before);
}

#[tokio::test]
async fn a_terminal_that_goes_away_ends_the_agent() {
    let Some(world) = World::start().await else { return };
    world.shown().await;
    let pid = world.tmux.run(&["display-message", "-p", "#{pane_pid}"]).await;
    let child = Command::new("pgrep").args(["-P", pid.trim()]).output().await.expect("runs");
    let agent = String::from_utf8(child.stdout).expect("text");
    world.tmux.run(&["kill-server"]).await;
    let deadline = Instant::now() + PATIENCE;
    while Path::new("/proc").join(agent.trim()).join("exe").exists() {
        assert!(Instant::now() < deadline, "{agent} runs on");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_a_terminal_for_it_there_are_lines() {
    let Some(mut world) = World::start().await else { return };
    for (number, (before, more)) in
        [("", "| cat"), ("TERM=dumb ", ""), ("", "--output compact"), ("", "< /dev/null")].into_iter().enumerate()
    {
        world.tmux.line(&format!("clear; {before}{}", world.listen(more))).await;
        let screen = world.tmux.until("ready", |screen| screen.contains("\nready\n")).await;
        assert!(screen.contains("connecting to ") && !screen.contains("follow"), "{screen}");
        world.webhook(&format!("/kept/{number}")).await;
        world.tmux.until("a line", |screen| screen.contains(&format!("POST   /{number} "))).await;
        world.tmux.keys(&["C-c"]).await;
        world.tmux.until("the prompt", |screen| screen.trim_end().ends_with('$')).await;
        if more != "| cat" {
            assert_eq!(world.tmux.code().await, 0, "{before}{more}");
        }
    }
    world.tmux.line(&format!("clear; TERM=dumb {}", world.listen("--output screen"))).await;
    world.tmux.until("a refusal", |screen| screen.contains("have to be a terminal")).await;
    assert_eq!(world.tmux.code().await, 2);
}
