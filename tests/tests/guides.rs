//! README and the guides in `docs/` say what is so: their config files are accepted, their commands parse, their
//! answers and keys are those that there are.
//!
//! A block of TOML begins with `# relay.toml` or `# relay-client.toml`; what it leaves out (version, token, files of
//! secrets) is put beside it here. In a block of `console`, each line behind `$` is run and prints what stands below it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A secret in a form that every scheme of the guides takes.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A key that no table has, and that is like none.
const UNKNOWN: &str = "zzzzqq";

/// Keys whose default depends on the machine.
const OF_THE_MACHINE: [&str; 2] = ["workers", "name"];

struct Page {
    name: String,
    text: String,
}

struct Block {
    language: String,
    line: usize,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn pages() -> Vec<Page> {
    let guides = fs::read_dir(root().join("docs")).expect("guides").map(|entry| entry.expect("an entry").file_name());
    let guides =
        guides.map(|name| format!("docs/{}", name.to_str().expect("text"))).filter(|name| name.ends_with(".md"));
    let pages = ["README.md", "BENCHMARKS.md", "CONTRIBUTING.md"].map(str::to_owned).into_iter().chain(guides);
    pages.map(|name| Page { text: read(&name), name }).collect()
}

impl Page {
    fn blocks(&self, language: &str) -> Vec<Block> {
        let (mut blocks, mut open) = (Vec::new(), None::<Block>);
        for (line, text) in (1..).zip(self.text.lines()) {
            match (text.strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    open = Some(Block { language: language.to_owned(), line, text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.text += &format!("{text}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.name);
        blocks.into_iter().filter(|block| block.language == language).collect()
    }

    /// The rows of the tables below the headings that begin so, by heading, without the first two lines.
    fn tables(&self, beginning: &str) -> BTreeMap<String, Vec<Vec<String>>> {
        let (mut tables, mut heading) = (BTreeMap::<_, Vec<_>>::new(), String::new());
        for line in self.text.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().to_owned();
            } else if let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix('|'))
                && heading.starts_with(beginning)
            {
                let cells = row.replace("\\|", "\0");
                let cells = cells.split('|').map(|cell| cell.trim().replace('\0', "|")).collect::<Vec<_>>();
                if cells[0].starts_with('`') {
                    tables.entry(heading.clone()).or_default().push(cells);
                }
            }
        }
        tables
    }
}

/// The first text in backticks.
fn code(cell: &str) -> Option<&str> {
    cell.split('`').nth(1)
}

/// Runs relay or agent in a folder of their own, with nothing of this process's settings.
fn run(program: &str, arguments: &[impl AsRef<str>], folder: &Path, variables: &[(String, String)]) -> Output {
    let role = program.strip_prefix("relay-").expect("a program of ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg(role).args(arguments.iter().map(AsRef::as_ref)).current_dir(folder).env_clear();
    command.env("HOME", folder).envs(variables.iter().cloned()).output().expect("runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What the relay or the agent says of a text as its config file.
fn check(text: &str, subcommand: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let client = text.contains("# relay-client.toml");
    let (program, file) = if client { ("relay-client", "relay-client.toml") } else { ("relay-server", "relay.toml") };
    let mut text = text.to_owned();
    if !text.contains("version = ") {
        text.insert_str(0, "version = 1\n");
    }
    if !client && !text.contains("[[token]]") {
        text +=
            &format!("\n[[token]]\nname = \"of-the-test\"\nsha256 = [\"{}\"]\nendpoints = [\"*\"]\n", "0".repeat(64));
    }
    let mut variables = Vec::new();
    for quoted in text.split('"').skip(1).step_by(2) {
        let content = if quoted.contains("token") { "rt_0123456789012345678901234567890123456789" } else { SECRET };
        if let Some(name) = quoted.strip_prefix("env:") {
            variables.push((name.to_owned(), content.to_owned()));
        } else if let Some(name) = quoted.strip_prefix("file:").or(quoted.ends_with(".pem").then_some(quoted)) {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed to others");
        }
    }
    fs::write(folder.path().join(file), text).expect("writes");
    run(program, &[subcommand, &["--config", file]].concat(), folder.path(), &variables)
}

#[test]
fn every_config_file_is_accepted() {
    let mut count = 0;
    for page in pages() {
        for block in page.blocks("toml") {
            let place = format!("{}:{}", page.name, block.line);
            assert!(block.text.starts_with("# relay"), "{place}: the first line has to name the file");
            let output = check(&block.text, &["config", "check"]);
            assert!(output.status.success(), "{place}: {}", said(&output));
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} blocks of TOML were found");
    let wrong =
        check("# relay.toml\n[[endpoint]]\nname = \"a\"\nverify = \"none\"\nmoed = \"live\"\n", &["config", "check"]);
    assert!(!wrong.status.success() && said(&wrong).contains("moed"), "the check lets anything pass");
}

/// The commands of a line: without variables before them and what the shell does with them.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (letter, quote) {
            (mark, Some(open)) if mark == open => quote = None,
            (mark @ ('\'' | '"'), None) => {
                quote = Some(mark);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    for command in words.split(|word| matches!(word.as_str(), "&&" | "|" | "&")) {
        let is_variable = |word: &&String| word.split_once('=').is_some_and(|(name, _)| !name.contains(['-', ' ']));
        let command: Vec<_> = command.iter().skip_while(is_variable).cloned().collect();
        all.extend((!command.is_empty()).then_some(command));
    }
    all
}

/// Why a command is none.
fn mistake(command: &[String], folder: &Path) -> Option<String> {
    match command[0].as_str() {
        program @ ("relay-server" | "relay-client") => {
            let output = run(program, &[&command[1..], &["--help".to_owned()]].concat(), folder, &[]);
            (!output.status.success()).then(|| said(&output))
        }
        "cargo" => {
            let aliases = read(".cargo/config.toml");
            let known = ["build", "test", "install"].contains(&&*command[1])
                || aliases.contains(&format!("\n{} = \"", command[1]));
            (!known).then(|| format!("cargo has no {}", command[1]))
        }
        // What is run as somebody else is run all the same.
        "sudo" => {
            mistake(command[1..].strip_prefix(&["-u".to_owned(), "relay".to_owned()]).unwrap_or(&command[1..]), folder)
        }
        "curl" | "chmod" | "openssl" | "git" | "cd" | "apt-get" | ".ci/run" => None,
        "systemctl" | "systemd-analyze" | "loginctl" | "install" | "podman" | "helm" | "kubectl" => None,
        recipe if recipe.starts_with("deploy/") || recipe.starts_with("fuzz/") => {
            (!root().join(recipe).is_file()).then(|| "no such recipe".to_owned())
        }
        other => Some(format!("{other} is not known to this test")),
    }
}

#[test]
fn every_command_line_parses() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = BTreeSet::new();
    for page in pages() {
        let inline = page.text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
        let inline = inline.filter(|code| code.starts_with("relay-server ") || code.starts_with("relay-client "));
        let blocks: String = page.blocks("sh").into_iter().map(|block| block.text).collect();
        for line in blocks.lines().chain(inline) {
            for command in commands(line) {
                if seen.insert(command.clone())
                    && let Some(why) = mistake(&command, folder.path())
                {
                    panic!("{}: {line}\n{why}", page.name);
                }
            }
        }
    }
    assert!(seen.len() > 60, "only {} commands were found", seen.len());
    for wrong in
        ["relay-server event lost", "relay-client listen 3000 --atach copy", "cargo demno", "relay-sever serve"]
    {
        let command = commands(wrong).remove(0);
        assert!(mistake(&command, folder.path()).is_some(), "{wrong} passes");
    }
}

#[test]
fn what_is_run_in_the_guides_prints_what_stands_below_it() {
    let mut count = 0;
    for page in pages() {
        let folder = tempfile::tempdir().expect("a folder");
        for block in page.blocks("console") {
            for typed in block.text.split("$ ").skip(1) {
                let (line, printed) = typed.split_once('\n').expect("a line");
                let command = commands(line).remove(0);
                let output = said(&run(&command[0], &command[1..], folder.path(), &[]));
                assert_eq!(output.trim_end(), printed.trim_end(), "{}:{}: {line}", page.name, block.line);
                count += 1;
            }
        }
    }
    assert!(count > 0, "nothing was run");
}

/// The name by which a link finds a heading.
fn anchor(heading: &str) -> String {
    let letters =
        heading.trim_start_matches('#').trim().chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
    letters.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let map = Page { name: "ARCHITECTURE.md".to_owned(), text: read("ARCHITECTURE.md") };
    let mut count = 0;
    for page in pages().into_iter().chain([map]) {
        let folder = Path::new(&page.name).parent().expect("a folder").to_owned();
        let links = page.text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { PathBuf::from(&page.name) } else { folder.join(path) };
            // It may be a picture.
            let bytes = fs::read(root().join(&path)).unwrap_or_else(|error| panic!("{}: {link}: {error}", page.name));
            let text = String::from_utf8_lossy(&bytes);
            let found = heading.is_empty() || text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(found, "{}: {link}: there is no such heading", page.name);
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}

/// The keys that a table has, as the error says that names them.
fn known_keys(page: &str, table: &str) -> BTreeSet<String> {
    let key = format!("{UNKNOWN} = 1\n");
    let endpoint = "[[endpoint]]\nname = \"a\"\ntarget = \"3000\"\n";
    let provider = "[[provider]]\nname = \"a\"\ntitle = \"A\"\n";
    let scheme = format!("{provider}[provider.scheme]\nalgorithm = \"hmac-sha256\"\n");
    let header = format!("{table}\n{key}");
    let text = match table {
        "top level" => key,
        "[endpoint.verify]" => format!("[[endpoint]]\nname = \"a\"\n{header}provider = \"stripe\"\n"),
        "[endpoint.ack]" | "[endpoint.retry]" | "[endpoint.client_certificate]" => {
            format!("[[endpoint]]\nname = \"a\"\nverify = \"none\"\n{header}")
        }
        "[[endpoint]]" if page == "relay-client.toml" => format!("{endpoint}{key}"),
        "[endpoint.timeouts]" | "[[endpoint.route]]" => format!("{endpoint}{header}"),
        "[[provider]]" => format!("{provider}{key}"),
        "[provider.scheme]" => format!("{scheme}{key}"),
        "[[provider.handshake]]" => format!("{provider}{header}"),
        within if within.starts_with("[provider.") => format!("{scheme}{header}"),
        _ => header,
    };
    let message = said(&check(&format!("# {page}\nversion = 1\n{text}"), &["config", "check"]));
    assert!(message.contains(UNKNOWN), "{page} {table}: {message}");
    let (_, list) = message.split_once("known here: ").or(message.split_once(", expected")).expect("what is known");
    let list = list.lines().next().unwrap_or_default();
    match list.contains('`') {
        true => list.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        false => list.split(", ").map(str::to_owned).collect(),
    }
}

#[test]
fn every_key_stands_in_the_guide_and_no_other() {
    let guide = Page { name: "docs/configuration.md".to_owned(), text: read("docs/configuration.md") };
    let tables = guide.tables("relay");
    assert!(tables.len() > 15, "only {} tables were found", tables.len());
    for (heading, rows) in &tables {
        let (page, table) = heading.split_once(": ").expect("file and table");
        let written = rows.iter().map(|row| code(&row[0]).expect("a key").to_owned());
        assert_eq!(written.collect::<BTreeSet<_>>(), known_keys(page, table.trim_matches('`')), "{heading}");
    }
    for table in ["[server]", "[tls]", "[store]", "[limits]", "[[endpoint]]", "[[token]]", "[[provider]]"] {
        assert!(tables.contains_key(&format!("relay.toml: `{table}`")), "no table for {table}");
    }
}

/// What `config show` prints, as `table key` and value. The first table of a name counts.
fn shown(text: &str) -> BTreeMap<String, String> {
    let (mut values, mut table) = (BTreeMap::new(), "top level".to_owned());
    for line in said(&check(text, &["config", "show"])).lines() {
        if line.starts_with('[') {
            line.clone_into(&mut table);
        } else if let Some((key, value)) = line.split_once(" = ") {
            let value = value.split("  #").next().unwrap_or_default().trim();
            values.entry(format!("{table} {key}")).or_insert_with(|| value.to_owned());
        }
    }
    values
}

#[test]
fn every_default_is_the_one_that_is_shown() {
    let guide = Page { name: "docs/configuration.md".to_owned(), text: read("docs/configuration.md") };
    // Jira's row says nothing of its own about times, sizes and acks.
    let endpoint = "[[endpoint]]\nname = \"a\"\nverify = { provider = \"jira\", secrets = [\"env:A\"] }\n";
    let mut server = shown(&format!("# relay.toml\n{endpoint}"));
    for (key, value) in shown(&format!("# relay.toml\n{endpoint}mode = \"live\"\n")) {
        server.entry(key).or_insert(value);
    }
    let route = "[[endpoint.route]]\npath = \"/b\"\ntarget = \"3000\"\n";
    let client = shown(&format!("# relay-client.toml\n[[endpoint]]\nname = \"a\"\ntarget = \"3000\"\n{route}"));
    let mut count = 0;
    for (heading, rows) in guide.tables("relay").iter().filter(|(_, rows)| rows[0].len() == 4) {
        let (file, table) = heading.split_once(": ").expect("file and table");
        let shown = if file == "relay.toml" { &server } else { &client };
        for row in rows {
            let key = code(&row[0]).expect("a key");
            let value = shown.get(&format!("{} {key}", table.trim_matches('`'))).map(String::as_str);
            match row[2].as_str() {
                text if text.starts_with("required") => {}
                "none" => assert_eq!(value, None, "{heading}: {key}"),
                _ if OF_THE_MACHINE.contains(&key) => assert!(value.is_some(), "{heading}: {key}"),
                default => {
                    assert_eq!(Some(default.trim_matches('`')), value, "{heading}: {key}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 60, "only {count} defaults were compared");
}

/// The flags of a command with their variables, from its help.
fn flags(program: &str, command: &str) -> BTreeMap<String, Option<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    let help = said(&run(program, &[command, "--help"], folder.path(), &[]));
    let mut flags = BTreeMap::new();
    let mut last = None;
    for line in help.lines() {
        let mut words = line.trim_start().split([' ', ',', '=', '.']).filter(|word| !word.is_empty());
        let first = words.next().unwrap_or_default();
        let long = if first.starts_with("--") { Some(first) } else { words.next().filter(|_| first.len() == 2) };
        if let Some(flag) =
            long.filter(|flag| line.starts_with("  ") && first.starts_with('-') && flag.starts_with("--"))
        {
            flags.insert(flag.to_owned(), None);
            last = Some(flag.to_owned());
        }
        if let (Some((_, after)), Some(last)) = (line.split_once("[env: "), &last) {
            let variable = after.split(['=', ']']).next().unwrap_or_default();
            flags.insert(last.clone(), Some(variable.to_owned()));
        }
    }
    for general in ["--help", "--version", "--color", "--verbose"] {
        flags.remove(general);
    }
    flags
}

#[test]
fn every_flag_stands_in_the_guide_with_its_variable() {
    let guide = Page { name: "docs/configuration.md".to_owned(), text: read("docs/configuration.md") };
    let serve = flags("relay-server", "serve");
    let mut agent = flags("relay-client", "listen");
    agent.extend(flags("relay-client", "start"));
    for (heading, flags) in
        [("Flags of `relay-server serve`", serve), ("Flags of `relay-client listen` and `start`", agent)]
    {
        let written = guide.tables(heading).remove(heading).expect("a table").into_iter().map(|row| {
            let flag = code(&row[0]).and_then(|flag| flag.split(' ').next()).expect("a flag").to_owned();
            (flag, code(&row[1]).map(str::to_owned))
        });
        assert_eq!(written.collect::<BTreeMap<_, _>>(), flags, "{heading}");
    }
}

/// The production text of all files of these folders.
fn sources(folders: &[&str]) -> String {
    let (mut text, mut open) = (String::new(), folders.iter().map(|folder| root().join(folder)).collect::<Vec<_>>());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            text += fs::read_to_string(&path).expect("a file").split("#[cfg(test)]\nmod ").next().expect("text");
        }
    }
    text
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[test]
fn every_variable_stands_in_the_guide_and_no_other() {
    let is_one = |text: &&str| {
        let name = text.strip_prefix("RELAY_").unwrap_or_default();
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let (sources, guide) =
        (sources(&["program/src", "relay-server/src", "relay-client/src"]), read("docs/configuration.md"));
    // The suite that the stores have in common takes its seeds from these.
    let of_tests = |name: &&str| name.starts_with("RELAY_STORE_SEED");
    let programs = sources.split('"').filter(is_one).filter(|name| !of_tests(name)).collect::<BTreeSet<_>>();
    assert_eq!(guide.split('`').filter(is_one).collect::<BTreeSet<_>>(), programs);
}

#[test]
fn every_code_stands_in_the_guide_and_no_other() {
    let guide = Page { name: "docs/answers.md".to_owned(), text: read("docs/answers.md") };
    let rows = guide.tables("Errors").into_values().flatten();
    let written = rows.map(|row| code(&row[0]).expect("a code").to_owned()).collect::<BTreeSet<_>>();
    let sources = sources(&["relay-server/src", "schemes/src"]);
    // A code stands behind its status, behind what it is the code of, or has the name of challenges.
    let mut codes: BTreeSet<_> = relay_schemes::Refusal::ALL.iter().map(|refusal| refusal.code().to_owned()).collect();
    let texts = sources.split('"').collect::<Vec<_>>();
    for pair in texts.windows(2).filter(|pair| is_code(pair[1])) {
        let before = pair[0].trim_end();
        let status = before.rsplit_once("StatusCode::").is_some_and(|(_, name)| {
            name.strip_suffix(',')
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        });
        let fault = before.ends_with("=>") && before.rsplit('\n').next().is_some_and(|line| line.contains("Fault::"));
        // That one is no error: it is where a handshake stands.
        let challenge = pair[1].starts_with("challenge_") && pair[1] != "challenge_answered";
        if status || fault || challenge || pair[1] == "secret_known" {
            codes.insert(pair[1].to_owned());
        }
    }
    assert!(codes.len() > 50, "only {} codes were found", codes.len());
    assert_eq!(written, codes);
}

#[test]
fn every_reason_stands_in_the_guide() {
    let guide = Page { name: "docs/answers.md".to_owned(), text: read("docs/answers.md") };
    let rows = guide.tables("Why").into_values().flatten();
    let written = rows.map(|row| code(&row[0]).expect("a code").to_owned()).collect::<BTreeSet<_>>();
    let sources = sources(&["relay-server/src"]);
    let (_, reasons) = sources.split_once(" Reason {\n").expect("the reasons");
    let (reasons, _) = reasons.split_once("\n    }").expect("their end");
    let values = reasons.lines().filter_map(|line| line.split_once(" = \"")?.1.strip_suffix("\","));
    let reasons = values.map(str::to_owned).collect::<BTreeSet<_>>();
    assert!(reasons.len() > 10 && reasons.is_subset(&written), "not in the guide: {:?}", reasons.difference(&written));
    for state in written.difference(&reasons) {
        assert!(sources.contains(&format!("\"{state}\"")), "no event stands where it does for {state}");
    }
}

#[test]
fn every_metric_stands_in_the_guide_and_no_other() {
    let guide = Page { name: "docs/monitoring.md".to_owned(), text: read("docs/monitoring.md") };
    let rows = guide.tables("Metrics").into_values().flatten();
    let written = rows.map(|row| code(&row[0]).expect("a metric").to_owned()).collect::<BTreeSet<_>>();
    let sources = sources(&["relay-server/src"]);
    let registered = sources.split("registry.register").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let registered = registered.map(|name| format!("relay_{name}")).collect::<BTreeSet<_>>();
    assert!(registered.len() > 15, "only {} metrics were found", registered.len());
    // Units and `_total` stand behind a name.
    let is_of = |metric: &str, name: &str| {
        let ending = metric.strip_prefix(name);
        ending.is_some_and(|it| ["", "_total", "_seconds", "_seconds_total", "_bytes", "_info"].contains(&it))
    };
    for name in &registered {
        assert!(written.iter().any(|metric| is_of(metric, name)), "{name} is not in the guide");
    }
    for metric in &written {
        assert!(registered.iter().any(|name| is_of(metric, name)), "there is no {metric}");
    }
}
