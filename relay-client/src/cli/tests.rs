//! What is typed, what it becomes, and which exit code a mistake gets.

use std::path::Path;

use clap::CommandFactory as _;

use super::*;
use crate::{
    config::{Config, OnRefused},
    tls::Trust,
};

/// A directory that stands for the user's whole world.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a file that only its owner can read.
    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn places(&self) -> Places {
        let config = Some(self.folder.path().join("user"));
        Places { current: self.folder.path().to_owned(), config, ..Places::default() }
    }

    /// A `config` line.
    fn config_command(&self, line: &[&str]) -> Result<String, Failure> {
        let cli = Cli::try_parse_from([&["relay-client", "config"], line].concat()).unwrap();
        let Command::Config(command) = cli.command else { panic!("{cli:?}") };
        config::run(&command, &self.places())
    }

    /// Agrees to the file of the folder.
    fn allow(&self) {
        self.config_command(&["allow"]).unwrap();
    }

    /// The configuration of a `listen` or `start` line.
    fn config(&self, line: &[&str]) -> Result<Config, Failure> {
        let cli = Cli::try_parse_from([&["relay-client"], line].concat()).unwrap();
        match cli.command {
            Command::Listen(args) => listen::config(&args, &self.places(), &b"from-stdin\n"[..]),
            Command::Start(args) => start::config(&args, &self.places(), &b""[..]),
            other => panic!("{other:?}"),
        }
    }

    fn listen(&self, line: &str) -> Result<Config, Failure> {
        let common = ["--relay", "https://h", "--token-file", "-"];
        self.config(
            &[vec!["listen"], line.split(' ').filter(|word| !word.is_empty()).collect(), common.to_vec()].concat(),
        )
    }
}

fn failure(result: Result<Config, Failure>) -> (u8, String) {
    let failure = result.unwrap_err();
    (failure.exit_code(), failure.to_string())
}

const FILE: &str = r#"
version = 1
relay = "https://file.example.com"
token = "file:token"
name = "from-file"
[[endpoint]]
name = "github"
target = "3000"
[[endpoint]]
name = "stripe"
target = "4000"
"#;

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn targets_and_endpoints_are_told_apart() {
    let world = World::new();
    for (line, target, name) in [
        ("3000", "http://127.0.0.1:3000", None),
        ("3000 github", "http://127.0.0.1:3000", Some("github")),
        ("unix:/s ci --path /x", "unix:/s path /x", Some("ci")),
        ("-f http://app/x", "http://app/x", None),
        ("stripe --forward-to http://app/x", "http://app/x", Some("stripe")),
    ] {
        let config = world.listen(line).unwrap();
        assert_eq!(config.endpoints.len(), 1);
        assert_eq!(config.endpoints[0].handler.target.target.to_string(), target, "{line}");
        assert_eq!(config.endpoints[0].name.as_deref(), name, "{line}");
        assert_eq!(config.on_refused, OnRefused::Exit);
        assert_eq!(config.token.read().unwrap().reveal(), "from-stdin");
    }
}

#[test]
fn options_reach_the_handler() {
    let world = World::new();
    let line =
        "https://app ci --max-connections 3 --timeout 2m --skip-verify --preserve-host -H A:b -H Authorization:s3cret";
    let config = world.listen(line).unwrap();
    let endpoint = &config.endpoints[0];
    assert_eq!(endpoint.handler.target.max_connections.get(), 3);
    assert_eq!(endpoint.handler.target.timeouts.head.as_secs(), 120);
    assert_eq!(endpoint.handler.target.trust, Trust::DangerousAnything);
    assert!(endpoint.handler.preserve_host);
    assert_eq!(endpoint.handler.headers.len(), 2);
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn what_waits_and_what_was_are_asked_for_by_flags_alone() {
    let world = World::new();
    let plain = world.listen("3000").unwrap();
    assert!(plain.since.is_none() && !plain.endpoints[0].skip_backlog);
    let both = world.listen("3000 --since 42m --backlog skip").unwrap();
    let ago = jiff::Timestamp::now().duration_since(both.since.unwrap()).as_mins();
    assert!(both.endpoints[0].skip_backlog && ago == 42, "{ago}");
    assert!(Cli::try_parse_from(["relay-client", "start", "--backlog", "skip"]).is_err());
}

#[test]
fn mistakes_exit_with_two_and_show_no_secret() {
    let world = World::new();
    for line in [
        "",
        "localhost:3000",
        "http://me:s3cret@app",
        "3000 bad/name",
        "3000 github -f 4000",
        "3000 --max-connections 0",
        "3000 --path x",
        "3000 -H s3cret",
        "3000 --since lunch",
        "3000 --since=-2h",
        "3000 --attach copy --backlog skip",
        "3000 -H Content-Length:1",
    ] {
        let (code, text) = failure(world.listen(line));
        assert_eq!(code, 2, "{line}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    let (_, text) = failure(world.config(&["listen", "3000", "--relay", "https://h"]));
    assert!(text.starts_with("no token: run relay-client login, name its file with --token-file"), "{text}");
    let (_, text) = failure(world.config(&["listen", "3000", "--token-file", "-"]));
    assert!(text.starts_with("no relay: "), "{text}");
    let (code, text) = failure(world.config(&["listen", "3000", "--relay", "http://h", "--token-file", "-"]));
    assert_eq!(code, 2);
    assert!(text.starts_with("--relay: plain http to h"), "{text}");
}

#[test]
fn flags_go_before_the_file() {
    let world = World::new();
    world.write("relay-client.toml", FILE);
    world.write("token", "from-file\n");
    world.allow();
    let config = world.config(&["listen", "3000"]).unwrap();
    assert_eq!(config.way.relay.to_string(), "https://file.example.com");
    assert_eq!(config.token.read().unwrap().reveal(), "from-file");
    assert_eq!(config.name, "from-file");
    let line = ["listen", "3000", "--relay", "https://flag", "--name", "flag", "--token-file", "-"];
    let config = world.config(&line).unwrap();
    assert_eq!(config.way.relay.to_string(), "https://flag");
    assert_eq!(config.token.read().unwrap().reveal(), "from-stdin");
    assert_eq!(config.name, "flag");
}

#[test]
fn start_serves_all_or_those_named() {
    let world = World::new();
    assert_eq!(failure(world.config(&["start"])).0, 4);
    world.write("relay-client.toml", FILE);
    world.allow();
    assert_eq!(failure(world.config(&["start"])).0, 2, "the token is missing");
    world.write("token", "secret");
    let names = |line: &[&str]| -> Vec<String> {
        world.config(line).unwrap().endpoints.into_iter().filter_map(|endpoint| endpoint.name).collect()
    };
    assert_eq!(names(&["start"]), ["github", "stripe"]);
    assert_eq!(names(&["start", "--all"]), ["github", "stripe"]);
    assert_eq!(names(&["start", "stripe"]), ["stripe"]);
    let (code, text) = failure(world.config(&["start", "strpe"]));
    assert_eq!((code, text.as_str()), (4, "no endpoint \"strpe\" in the config file; did you mean \"stripe\"?"));
}

#[test]
fn config_commands_check_show_and_find() {
    let world = World::new();
    let run = |line: &[&str]| world.config_command(line);
    assert_eq!(run(&["path"]).unwrap_err().exit_code(), 4);
    world.write("relay-client.toml", FILE);
    let path = world.folder.path().join("relay-client.toml");
    assert_eq!(run(&["path"]).unwrap(), format!("{}\n", path.display()));
    assert!(run(&["show"]).unwrap().contains("target = \"http://127.0.0.1:3000\""));
    assert!(run(&["show", "--json"]).unwrap().starts_with('{'));
    let error = run(&["check"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().starts_with(&format!("{}: token: the token cannot be read from ", path.display())));
    world.write("token", "secret");
    let ok = format!("{}: ok, 2 endpoints", path.display());
    let note = "; not yet allowed to say where the token goes: config allow\n";
    assert_eq!(run(&["check"]).unwrap(), format!("{ok}{note}"));
    world.allow();
    assert_eq!(run(&["check"]).unwrap(), format!("{ok}\n"));
}

#[test]
fn a_file_that_only_lies_in_the_folder_says_where_the_token_goes_once_it_is_allowed() {
    let world = World::new();
    world.write("relay-client.toml", FILE);
    world.write("token", "secret");
    let refused = |line: &[&str]| {
        let (code, text) = failure(world.config(line));
        assert_eq!(code, 2, "{line:?}: {text}");
        assert!(text.contains("relay-client config allow") && text.contains("--config "), "{text}");
        text
    };
    let text = refused(&["start"]);
    assert!(text.contains("relay = \"https://file.example.com\"") && text.contains("token = \"file:"), "{text}");
    // The user's own token, and the relay of the file; or the other way round.
    refused(&["listen", "3000", "--token-file", "-"]);
    refused(&["listen", "3000", "--relay", "https://h"]);
    // What nothing of the file decides needs no agreement.
    assert!(world.config(&["listen", "3000", "--relay", "https://h", "--token-file", "-"]).is_ok());
    let named = world.folder.path().join("relay-client.toml");
    assert!(world.config(&["start", "--config", named.to_str().unwrap()]).is_ok(), "it is named");
    let places = Places { named: Some("relay-client.toml".into()), ..world.places() };
    let Command::Start(args) = Cli::try_parse_from(["relay-client", "start"]).unwrap().command else { panic!() };
    assert!(start::config(&args, &places, &b""[..]).is_ok(), "RELAY_CLIENT_CONFIG names it");

    let allowed = world.config_command(&["allow"]).unwrap();
    assert!(allowed.contains("relay = \"https://file.example.com\""), "{allowed}");
    assert!(world.config(&["start"]).is_ok());
    world.write("relay-client.toml", &FILE.replace("target = \"3000\"", "target = \"3001\""));
    assert!(world.config(&["start"]).is_ok(), "targets are no part of it");
    for (from, to) in [
        ("https://file.", "https://other."),
        ("file:token", "env:HOME"),
        ("version = 1", "version = 1\nproxy = \"http://p:1\""),
    ] {
        world.write("relay-client.toml", &FILE.replace(from, to));
        refused(&["start"]);
    }
    world.write("relay-client.toml", FILE);
    assert!(world.config(&["start"]).is_ok());
    world.config_command(&["deny"]).unwrap();
    refused(&["start"]);
}

#[test]
fn nothing_else_that_decides_where_the_logins_token_goes_comes_from_a_folder() {
    let world = World::new();
    std::fs::create_dir_all(world.folder.path().join("user/relay")).unwrap();
    world.write("user/relay/login.toml", "relay = \"https://mine\"\ntoken = \"secret\"\n");
    world.write("ca.pem", "roots");
    let endpoint = "[[endpoint]]\nname = \"a\"\ntarget = \"1\"\n";
    world.write("relay-client.toml", &format!("version = 1\nname = \"n\"\n{endpoint}"));
    assert!(world.config(&["start"]).is_ok(), "nothing to agree to");
    for way in ["proxy = \"http://evil:3128\"", "relay_ca = \"ca.pem\"", "relay = \"https://evil\""] {
        world.write("relay-client.toml", &format!("version = 1\n{way}\n{endpoint}"));
        let (code, text) = failure(world.config(&["start"]));
        assert!(code == 2 && text.contains("config allow"), "{way}: {text}");
    }
}

#[test]
fn the_token_of_a_folders_file_lies_in_that_folder() {
    let world = World::new();
    let folder = world.folder.path().join("cloned");
    std::fs::create_dir(&folder).unwrap();
    world.write("mine", "secret");
    world.write("cloned/relay-client.toml", &FILE.replace("file:token", "file:../mine"));
    let places = Places { current: folder.clone(), ..world.places() };
    let allow = |named: Option<&Path>| consent::allow(named, &places);
    let (code, text) = failure(allow(None).map(|_| unreachable!()));
    assert!(code == 2 && text.contains("../mine lies outside the folder"), "{text}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../mine", folder.join("token")).unwrap();
        world.write("cloned/relay-client.toml", FILE);
        let (_, text) = failure(allow(None).map(|_| unreachable!()));
        assert!(text.contains("token lies outside the folder"), "{text}");
    }
}

#[test]
fn printed_things_are_what_they_claim() {
    assert!(misc::completions(clap_complete::Shell::Bash).contains("relay-client"));
    let version: serde_json::Value = serde_json::from_str(&misc::version(true)).unwrap();
    assert_eq!(version["protocol"], "relay.v1");
    let folder = tempfile::tempdir().unwrap();
    misc::man(Some(folder.path())).unwrap();
    assert!(Path::new(&folder.path().join("relay-client-listen.1")).is_file());
}

#[test]
fn exit_codes_come_out_of_main() {
    let code = |line: &[&str]| format!("{:?}", main_from([&["relay-client"], line].concat()));
    assert_eq!(
        code(&["config", "check", "--config", "/nowhere/relay-client.toml"]),
        format!("{:?}", ExitCode::from(2))
    );
    assert_eq!(code(&["no-such-command"]), format!("{:?}", ExitCode::from(2)));
    assert_eq!(code(&["--version"]), format!("{:?}", ExitCode::SUCCESS));
}
