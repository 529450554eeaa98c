//! What `deploy/` hands out is what runs: units are as closed as they say, packages and charts have what belongs in them,
//! and the agent's service is written, judged and removed. What needs a tool that is not here is skipped and named.
//!
//! Programs are stand-ins made of the demo, which is both.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether a program is here; says so if it is not.
fn is_here(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {program} is not here");
    }
    found
}

/// Runs a command that has to succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    said(&output)
}

/// The relay or the agent, with nothing of this process's settings.
fn program(role: &str, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg(role).env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.current_dir(home);
    command
}

/// A folder with `relay-server` and `relay-client`.
fn stand_ins() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for role in ["server", "client"] {
        let path = folder.path().join(format!("relay-{role}"));
        fs::write(&path, format!("#!/bin/sh\nexec '{}' {role} \"$@\"\n", env!("CARGO_BIN_EXE_demo"))).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("may be run");
    }
    folder
}

const UNITS: [&str; 3] = ["relay-server.service", "relay-client.service", "relay-client.user.service"];

/// The values of a unit's lines that begin so.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_units_give_no_right_that_is_not_needed() {
    for name in UNITS {
        let unit = read(&format!("deploy/systemd/{name}"));
        for (key, value) in [
            ("NoNewPrivileges", "yes"),
            ("MemoryDenyWriteExecute", "yes"),
            ("SystemCallErrorNumber", "EPERM"),
            ("LimitCORE", "0"),
            ("UMask", "0077"),
        ] {
            assert_eq!(values(&unit, key), [value], "{name}: {key}");
        }
        let confining = "landlock_create_ruleset landlock_add_rule landlock_restrict_self";
        let own = if name == "relay-server.service" { vec![confining] } else { Vec::new() };
        let filters = [vec!["@system-service"], own, vec!["~@privileged @resources"]].concat();
        assert_eq!(values(&unit, "SystemCallFilter"), filters, "{name}");
        let is_own = |line: &&str| line.starts_with("User=") || line.starts_with("DynamicUser=");
        assert_eq!(unit.lines().any(|line| is_own(&line)), !name.contains(".user."), "{name}");
        assert!(unit.lines().all(|line| !line.starts_with("AmbientCapabilities=CAP")), "{name}");
    }
    let (server, users) = (read("deploy/systemd/relay-server.service"), read("deploy/systemd/relay-server.sysusers"));
    assert_eq!(values(&server, "User"), ["relay"]);
    assert!(users.starts_with("u relay "), "{users}");
    // What the service gets its secrets from is made by the package.
    let folder = values(&server, "LoadCredential")[0].split_once(':').expect("a name and a path").1;
    assert!(read("deploy/systemd/relay-server.tmpfiles").contains(&format!("d {folder} 0700 root root")));
    for (unit, name) in [("relay-server.socket", "public"), ("relay-server-http.socket", "http")] {
        let unit = read(&format!("deploy/systemd/{unit}"));
        assert_eq!(values(&unit, "FileDescriptorName"), [name]);
        assert_eq!(values(&unit, "Service"), ["relay-server.service"]);
    }
}

#[test]
fn systemd_takes_the_units_and_finds_them_closed() {
    if !is_here("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for name in UNITS.into_iter().chain(["relay-server.socket", "relay-server-http.socket"]) {
        // What it starts need not be installed here.
        let text = read(&format!("deploy/systemd/{name}"));
        let text = text.replace("/usr/bin/relay-server", "/bin/true").replace("/usr/bin/relay-client", "/bin/true");
        fs::write(folder.path().join(name.replace(".user.", "-user.")), text).expect("writes");
    }
    let place = |name: &str| folder.path().join(name);
    let verify = |names: &[&str], how: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--recursive-errors=no", how]).args(names.iter().map(|name| place(name)));
        let said = run(&mut command);
        assert!(!names.iter().any(|name| said.contains(name)), "{said}");
    };
    verify(&["relay-server.service", "relay-server.socket", "relay-server-http.socket"], "--system");
    verify(&["relay-client.service"], "--system");
    for name in ["relay-server.service", "relay-client.service"] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", "--threshold=15"]);
        let said = run(command.arg(place(name)));
        assert!(said.contains("Overall exposure level"), "{said}");
    }
    // A unit that is open is found: the check can fail.
    fs::write(place("open.service"), "[Service]\nExecStart=/bin/true\n").expect("writes");
    let mut open = Command::new("systemd-analyze");
    open.args(["security", "--offline=true", "--no-pager", "--threshold=15"]).arg(place("open.service"));
    assert!(!open.output().expect("runs").status.success());
}

#[test]
fn user_and_folders_are_made_by_the_systems_own_tools() {
    if !is_here("systemd-sysusers") || !is_here("systemd-tmpfiles") {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    fs::create_dir(place.path().join("etc")).expect("a folder");
    let at = format!("--root={}", place.path().display());
    let make = |program: &str, words: &[&str], name: &str| {
        let file = fs::File::open(root().join("deploy/systemd").join(name)).expect("a file");
        Command::new(program).args(words).args([&at, "-"]).stdin(file).output().expect("runs")
    };
    let made = make("systemd-sysusers", &[], "relay-server.sysusers");
    if !made.status.success() {
        return println!("skipped: a user cannot be made in a folder here: {}", said(&made));
    }
    let passwd = fs::read_to_string(place.path().join("etc/passwd")).expect("users");
    assert!(passwd.lines().any(|line| line.starts_with("relay:") && line.contains(":/var/lib/relay:")), "{passwd}");
    let made = make("systemd-tmpfiles", &["--create"], "relay-server.tmpfiles");
    if !made.status.success() {
        return println!("skipped: folders cannot be given away here: {}", said(&made));
    }
    let mode = |path: &str| fs::metadata(place.path().join(path)).expect("a folder").permissions().mode() & 0o777;
    assert_eq!((mode("etc/relay"), mode("etc/relay/secrets")), (0o750, 0o700));
}

#[test]
fn the_debian_packages_have_all_that_belongs_to_them() {
    if !is_here("dpkg-deb") {
        return;
    }
    let (programs, out) = (stand_ins(), tempfile::tempdir().expect("a folder"));
    let build = |arch: &str| {
        let mut command = Command::new(root().join("deploy/deb/build"));
        run(command.arg(programs.path()).arg(arch).arg(out.path()).env("SOURCE_DATE_EPOCH", "1795000000"));
    };
    build("amd64");
    build("arm64");
    let version = env!("CARGO_PKG_VERSION");
    let package = |name: &str, arch: &str| out.path().join(format!("{name}_{version}_{arch}.deb"));
    let ask = |how: &str, file: &Path| run(Command::new("dpkg-deb").arg(how).arg(file));
    let both =
        ["bash-completion/completions/NAME", "man/man1/NAME.1.gz", "man/man1/NAME-version.1.gz", "doc/NAME/copyright"];
    let server = [
        "usr/lib/systemd/system/relay-server.service",
        "usr/lib/systemd/system/relay-server.socket",
        "usr/lib/systemd/system/relay-server-http.socket",
        "usr/lib/sysusers.d/relay-server.conf",
        "usr/lib/tmpfiles.d/relay-server.conf",
    ];
    let client = [
        "usr/lib/systemd/system/relay-client.service",
        "usr/lib/systemd/user/relay-client.service",
        "etc/relay-client/relay-client.toml",
    ];
    for (name, own) in [("relay-server", server.as_slice()), ("relay-client", client.as_slice())] {
        let listed = ask("-c", &package(name, "amd64"));
        let all = both.map(|path| format!("usr/share/{}", path.replace("NAME", name)));
        for path in all.iter().map(String::as_str).chain(own.iter().copied()).chain([&*format!("usr/bin/{name}")]) {
            assert!(listed.lines().any(|line| line.ends_with(&format!(" ./{path}"))), "{name} has no {path}: {listed}");
        }
        assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
        let info = ask("-I", &package(name, "arm64"));
        for part in [&format!("Version: {version}"), "Architecture: arm64", "postinst", "prerm", "postrm", "md5sums"] {
            assert!(info.contains(part), "{name}: no {part} in {info}");
        }
        assert_eq!(info.contains("conffiles"), name == "relay-client", "{info}");
        let before = fs::read(package(name, "amd64")).expect("a package");
        build("amd64");
        assert!(before == fs::read(package(name, "amd64")).expect("a package"), "{name}: two runs differ");
    }
    for script in
        ["relay-server", "relay-client"].iter().flat_map(|name| ["postinst", "prerm", "postrm"].map(|it| (name, it)))
    {
        let path = root().join("deploy/deb").join(script.0).join(script.1);
        run(Command::new("sh").arg("-n").arg(&path));
    }
    if is_here("lintian") {
        let mut command = Command::new("lintian");
        command.args(["--no-user-dirs", "--allow-root", "--fail-on=error"]);
        let checked = command.args(["relay-server", "relay-client"].map(|name| package(name, "amd64"))).output();
        let checked = checked.expect("runs");
        assert!(checked.status.success(), "{}", said(&checked));
    }
}

#[test]
fn a_machine_gets_the_packages_and_keeps_what_is_the_users() {
    if !is_here("dpkg") || !is_here("systemd-sysusers") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a folder takes packages from root alone");
    }
    let (programs, place) = (stand_ins(), tempfile::tempdir().expect("a folder"));
    run(Command::new(root().join("deploy/deb/build")).arg(programs.path()).arg("amd64").arg(place.path()));
    let machine = place.path().join("machine");
    for folder in ["etc", "var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(machine.join(folder)).expect("made");
    }
    for file in ["status", "available"] {
        fs::write(machine.join("var/lib/dpkg").join(file), "").expect("writes");
    }
    let dpkg = |words: &[&str]| {
        let mut command = Command::new("dpkg");
        command.args(["--force-script-chrootless", "--force-depends", "--force-architecture", "--log=/dev/null"]);
        run(command.arg(format!("--root={}", machine.display())).args(words))
    };
    let package = |name: &str| place.path().join(format!("{name}_{}_amd64.deb", env!("CARGO_PKG_VERSION")));
    let (server, client) =
        (package("relay-server").display().to_string(), package("relay-client").display().to_string());
    dpkg(&["--install", &server, &client]);
    assert!(fs::read_to_string(machine.join("etc/passwd")).expect("users").starts_with("relay:"));
    let config = machine.join("etc/relay");
    let mode = |path: &Path| fs::metadata(path).expect("a folder").permissions().mode() & 0o777;
    assert_eq!((mode(&config), mode(&config.join("secrets"))), (0o750, 0o700));

    // The first commands of the guide.
    let relay = |words: &[&str]| run(Command::new(machine.join("usr/bin/relay-server")).args(words));
    let folder = config.display().to_string();
    let made =
        relay(&["init", "--public-url", "https://hooks.example.com", "--endpoint", "github=github", "--dir", &folder]);
    assert!(made.contains("wrote "), "{made}");
    relay(&["config", "check", "--config", &config.join("relay.toml").display().to_string()]);

    // An upgrade, and the end: neither takes the config.
    let before = fs::read(config.join("relay.toml")).expect("the config");
    dpkg(&["--install", &server]);
    dpkg(&["--remove", "relay-server"]);
    assert!(!machine.join("usr/bin/relay-server").exists());
    let left = dpkg(&["--purge", "relay-server", "relay-client"]);
    assert!(left.contains("/etc/relay stays"), "{left}");
    assert_eq!(fs::read(config.join("relay.toml")).expect("the config"), before);
    assert!(!machine.join("etc/relay-client").exists());
}

#[test]
fn the_image_has_nothing_but_the_program_and_runs_it_as_nobody() {
    let file = read("deploy/image/Containerfile");
    let stages: Vec<&str> = file.split("\nFROM ").skip(1).collect();
    let stage = |name: &str| {
        let found = stages.iter().find(|stage| stage.lines().next().is_some_and(|line| line.ends_with(name)));
        *found.unwrap_or_else(|| panic!("no stage {name}"))
    };
    let base = stage(" AS base");
    assert!(
        base.starts_with("scratch") && base.contains("\nUSER 65532:65532\n") && base.contains("\nSTOPSIGNAL SIGTERM\n")
    );
    for name in ["relay-server", "relay-client"] {
        let stage = stage(&format!(" AS {name}"));
        assert!(stage.starts_with("base ") && stage.contains(&format!("ENTRYPOINT [\"/{name}\"]")), "{stage}");
        assert!(!stage.contains("\nRUN ") && !stage.contains("\nUSER "), "{stage}");
    }
    let server = stage(" AS relay-server");
    assert!(server.contains("CMD [\"/relay-server\", \"healthcheck\"]") && server.contains("EXPOSE 8080"), "{server}");
    let words = |line: &str| -> Vec<String> { serde_json::from_str(line).expect("a list of words") };
    for (role, stage) in [("server", server), ("client", stage(" AS relay-client"))] {
        let line = stage.lines().find_map(|line| line.strip_prefix("CMD ")).expect("what is run");
        let place = tempfile::tempdir().expect("a folder");
        run(program(role, place.path()).args(words(line)).arg("--help"));
    }
}

#[test]
fn the_image_is_built_where_something_builds_images() {
    let Some(tool) = ["buildah", "podman"].into_iter().find(|tool| is_here(tool)) else { return };
    let (programs, place) = (stand_ins(), tempfile::tempdir().expect("a folder"));
    let roots = place.path().join("roots");
    fs::create_dir(&roots).expect("made");
    fs::write(roots.join("ca-certificates.crt"), "roots").expect("writes");
    let context = |name: &str, folder: &Path| format!("--build-context={name}={}", folder.display());
    let command = || {
        let mut command = Command::new(tool);
        command.args(["--storage-driver=vfs", &format!("--root={}", place.path().join("images").display())]);
        command.arg(format!("--runroot={}", place.path().join("run").display()));
        command
    };
    let mut build = command();
    build.args(["build", "--format=docker", "--isolation=chroot", "--target=relay-server", "--tag=relay-server"]);
    build.args([context("programs", programs.path()), context("roots", &roots)]);
    build.arg("--file").arg(root().join("deploy/image/Containerfile")).arg(root().join("deploy/image"));
    let built = build.output().expect("runs");
    let said = said(&built);
    if !built.status.success() && ["not permitted", "newuidmap"].iter().any(|why| said.contains(why)) {
        return println!("skipped: {tool} may not build here: {said}");
    }
    assert!(built.status.success() && !said.contains("ignored"), "{said}");
    if tool == "buildah" {
        let shown = command().args(["inspect", "--type=image", "relay-server"]).output().expect("runs").stdout;
        let shown: Value = serde_json::from_slice(&shown).expect("JSON");
        let config = &shown["Docker"]["config"];
        assert_eq!((&config["User"], &config["StopSignal"]), (&json!("65532:65532"), &json!("SIGTERM")));
        assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "/relay-server", "healthcheck"]));
        assert_eq!(config["Entrypoint"], json!(["/relay-server"]));
        assert_eq!(config["Volumes"], json!({ "/var/lib/relay": {} }));
    }
}

/// The documents of a YAML file, by kind and name.
fn documents(yaml: &[u8]) -> Option<Vec<Value>> {
    let script = "import sys, json, yaml; print(json.dumps([it for it in yaml.safe_load_all(sys.stdin) if it]))";
    let mut python = Command::new("python3");
    let mut child = python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    std::io::Write::write_all(&mut child.stdin.take()?, yaml).ok()?;
    let output = child.wait_with_output().ok()?;
    if !output.status.success() {
        println!("skipped: python3 has no yaml (python3-yaml)");
        return None;
    }
    let mut all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    all.sort_by_key(|document| (document["kind"].to_string(), document["metadata"]["name"].to_string()));
    Some(all)
}

#[test]
fn the_charts_pods_are_restricted_probed_and_configured() {
    let Some(all) = documents(read("deploy/helm/rendered.yaml").as_bytes()) else { return };
    let of_kind = |kind: &str| all.iter().filter(|document| document["kind"] == kind).collect::<Vec<_>>();
    let (relay, agent) = (of_kind("StatefulSet")[0], of_kind("Deployment")[0]);
    assert_eq!(relay["spec"]["replicas"], 1, "one process holds a store");
    assert_eq!(relay["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    for (workload, program, port) in [(relay, "server", "admin"), (agent, "client", "health")] {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(workload["spec"]["selector"]["matchLabels"], workload["spec"]["template"]["metadata"]["labels"]);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["terminationGracePeriodSeconds"].as_u64().is_some_and(|seconds| seconds > 25 + 10), "{pod}");
        let container = &pod["containers"][0];
        let security = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        });
        assert_eq!(container["securityContext"], security);
        assert!(
            container["image"].as_str().is_some_and(|image| image.contains(&format!("-{program}:"))),
            "{container}"
        );
        for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": port }), "{probe}");
        }
        assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
        // Whatever is mounted is a volume, and secrets come by reference, closed to others.
        let names = |list: &Value| -> BTreeSet<String> {
            list.as_array().expect("a list").iter().map(|item| item["name"].to_string()).collect()
        };
        let mut volumes = names(&pod["volumes"]);
        volumes.extend(
            workload["spec"]["volumeClaimTemplates"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|it| it["metadata"]["name"].to_string()),
        );
        assert_eq!(names(&container["volumeMounts"]), volumes);
        let secret = pod["volumes"].as_array().expect("volumes").iter().find(|volume| !volume["secret"].is_null());
        assert_eq!(secret.expect("a secret")["secret"]["defaultMode"], 0o440);
        let words = container["args"].as_array().expect("arguments").iter().map(|word| word.as_str().expect("text"));
        let place = tempfile::tempdir().expect("a folder");
        run(self::program(program, place.path()).args(words).arg("--help"));
    }
    assert!(of_kind("Secret").is_empty(), "secrets are the user's own");
    let policy = &of_kind("NetworkPolicy")[0]["spec"]["ingress"];
    assert!(policy[0].get("from").is_none() && policy[1]["from"].is_array(), "{policy}");

    // The programs take the files that the pods get.
    let place = tempfile::tempdir().expect("a folder");
    let token = place.path().join("agent-token");
    fs::write(&token, "rt_0123456789012345678901234567890123456789").expect("writes");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("closed to others");
    for (role, file) in [("server", "relay.toml"), ("client", "relay-client.toml")] {
        let maps = of_kind("ConfigMap");
        let text = maps.iter().find_map(|map| map["data"][file].as_str()).unwrap_or_else(|| panic!("no {file}"));
        let text = text.replace("/etc/relay/secrets/agent-token", &token.display().to_string());
        let path = place.path().join(file);
        fs::write(&path, text).expect("writes");
        let mut check = program(role, place.path());
        run(check.args(["config", "check", "--config"]).arg(&path).env("RELAY_TOKEN_FILE", &token));
    }
}

#[test]
fn the_rendered_chart_is_what_helm_makes_of_it() {
    if !is_here("helm") {
        return;
    }
    let mut helm = Command::new("helm");
    helm.args(["template", "test"]).arg(root().join("deploy/helm/relay"));
    let made = helm.arg("--values").arg(root().join("deploy/helm/values-test.yaml")).output().expect("runs");
    assert!(made.status.success(), "{}", said(&made));
    assert_eq!(documents(&made.stdout), documents(read("deploy/helm/rendered.yaml").as_bytes()));
}

#[test]
fn an_agents_service_is_written_judged_and_removed() {
    let place = tempfile::tempdir().expect("a folder");
    let home = place.path();
    let service = |words: &[&str]| {
        let output = program("client", home).arg("service").args(words).output().expect("runs");
        (output.status.code().expect("a code"), said(&output))
    };
    let (code, text) = service(&["install"]);
    assert!(code == 4 && text.contains("no config file"), "{text}");
    let config = home.join(".config/relay/relay-client.toml");
    fs::create_dir_all(config.parent().expect("a folder")).expect("made");
    fs::write(&config, "version = 1\nrelay = \"https://hooks.example.com\"\n").expect("writes");
    let (code, text) = service(&["install"]);
    assert!(code == 2 && text.contains("names no [[endpoint]]"), "{text}");
    fs::write(
        &config,
        "version = 1\nrelay = \"https://hooks.example.com\"\n[[endpoint]]\nname = \"a\"\ntarget = \"3000\"\n",
    )
    .expect("writes");

    let unit = home.join(".config/systemd/user/edge.service");
    let (code, text) = service(&["install", "--name", "edge", "--dry-run"]);
    assert!(code == 0 && text.contains("[Service]") && !unit.exists(), "{text}");
    let (code, _) = service(&["status", "--name", "edge"]);
    assert_eq!(code, 4);
    let (code, text) = service(&["install", "--name", "edge"]);
    assert!(
        code == 0 && text.contains("systemctl --user enable --now edge") && text.contains("enable-linger"),
        "{text}"
    );
    let written = fs::read_to_string(&unit).expect("the unit");
    let real = fs::canonicalize(&config).expect("a path");
    let start = format!("ExecStart={} start --config {}", env!("CARGO_BIN_EXE_demo"), real.display());
    assert!(written.lines().any(|line| line == start), "{start}\n{written}");
    let (code, text) = service(&["status", "--name", "edge", "--json"]);
    let status: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &status["file"], &status["enabled"]), (0, &json!("installed"), &json!(false)));
    assert_eq!(service(&["install", "--name", "edge"]).0, 0, "a second time changes nothing");

    // One that runs is stopped first, and one that somebody changed is theirs.
    let link = home.join(".config/systemd/user/default.target.wants/edge.service");
    fs::create_dir_all(link.parent().expect("a folder")).expect("made");
    std::os::unix::fs::symlink(&unit, &link).expect("linked");
    let (code, text) = service(&["uninstall", "--name", "edge"]);
    assert!(code == 1 && text.contains("systemctl --user disable --now edge"), "{text}");
    fs::remove_file(&link).expect("removed");
    fs::write(&unit, written.replace("RestartSec=2s", "RestartSec=9s")).expect("writes");
    for words in [["install", "--name", "edge"], ["uninstall", "--name", "edge"]] {
        let (code, text) = service(&words);
        assert!(code == 3 && text.contains("has been changed"), "{text}");
    }
    fs::write(&unit, &written).expect("writes");
    assert_eq!(service(&["uninstall", "--name", "edge", "--dry-run"]).0, 0);
    assert!(unit.exists());
    assert_eq!(service(&["uninstall", "--name", "edge"]).0, 0);
    assert!(!unit.exists());
    assert_eq!(service(&["uninstall", "--name", "edge"]).0, 4);

    // Somebody else's unit of the same name, and a link to elsewhere.
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").expect("writes");
    let (code, text) = service(&["install", "--name", "edge"]);
    assert!(code == 3 && text.contains("was not written by"), "{text}");
    fs::remove_file(&unit).expect("removed");
    std::os::unix::fs::symlink(home.join("elsewhere"), &unit).expect("linked");
    assert_eq!(service(&["install", "--name", "edge"]).0, 3);
    assert!(!home.join("elsewhere").exists());

    // A service of the machine sees no home.
    let (code, text) = service(&["install", "--system", "--dry-run", "--config", &config.display().to_string()]);
    assert!(code == 2 && text.contains("does not see"), "{text}");
}

/// A relay, and what it says of itself when it listens.
struct Relay {
    child: std::process::Child,
    admin: String,
}

impl Relay {
    fn start(home: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = program("server", home);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]);
        let mut child = command.envs(variables.iter().copied()).stderr(Stdio::piped()).spawn().expect("runs");
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines().map_while(Result::ok);
        let mut lines = lines.filter(|line| line.contains("\"listening\""));
        let line: Value = serde_json::from_str(&lines.next().expect("it listens")).expect("JSON");
        // What else it says is read, so that it never waits for that.
        std::thread::spawn(move || lines.count());
        Self { child, admin: line["fields"]["admin"].as_str().expect("its address").to_owned() }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself; nobody is left to be told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_health_check_needs_an_address_and_nothing_else() {
    let place = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(place.path(), &[]);
    let check = |more: &[&str]| {
        let url = format!("http://{}", relay.admin);
        let mut command = program("server", place.path());
        let output = command.args(["healthcheck", "--admin-url", &url]).args(more).output().expect("runs");
        (output.status.code(), said(&output))
    };
    assert_eq!(check(&[]).0, Some(0), "{}", check(&[]).1);
    assert_eq!(check(&["--ready"]).0, Some(0), "{}", check(&["--ready"]).1);
    // The same port, where nobody is any more.
    let url = format!("http://{}", relay.admin);
    drop(relay);
    let gone = program("server", place.path()).args(["healthcheck", "--admin-url", &url]).output().expect("runs");
    assert_eq!(gone.status.code(), Some(5), "{}", said(&gone));
}

#[test]
fn a_relay_leaves_no_core_file_unless_it_is_asked_to() {
    let place = tempfile::tempdir().expect("a folder");
    let limits = |relay: &Relay| fs::read_to_string(format!("/proc/{}/limits", relay.child.id())).expect("its limits");
    let core = |relay: &Relay| {
        let limits = limits(relay);
        let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a line");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(core(&Relay::start(place.path(), &[]))[..2], ["0", "0"]);
    let own = fs::read_to_string("/proc/self/limits").expect("the limits of this process");
    if own.lines().any(|line| line.starts_with("Max core file size") && line.split_whitespace().nth(5) == Some("0")) {
        return println!("skipped: core files are turned off here");
    }
    assert_ne!(core(&Relay::start(place.path(), &[("RELAY_DUMPABLE", "1")]))[1], "0");
}

#[test]
fn a_store_of_a_newer_relay_is_refused_with_two() {
    let place = tempfile::tempdir().expect("a folder");
    let store = place.path().join("relay.db");
    let newer = rusqlite::Connection::open(&store).expect("a file");
    newer.pragma_update(None, "application_id", 0x524c_4159).expect("set");
    newer.pragma_update(None, "user_version", 1_000).expect("set");
    newer.execute_batch("CREATE TABLE event (x)").expect("made");
    drop(newer);
    let mut serve = program("server", place.path());
    serve.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let refused = serve.arg("--store").arg(format!("sqlite:{}", store.display())).output().expect("runs");
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(words.contains("version 1000") && words.contains("newer relay-server"), "{words}");
}

#[test]
fn two_versions_are_run_against_each_other() {
    if !is_here("python3") {
        return;
    }
    let programs = stand_ins();
    let mut recipe = Command::new(root().join("deploy/compatibility"));
    let words = ["old", "new"].map(|name| format!("{name}={}", programs.path().display()));
    let said = run(recipe.args(words));
    for line in ["relay old, agent new: ok", "relay new, agent old: ok", "relay new serves the older store"] {
        assert!(said.contains(line), "{said}");
    }
}
