//! What a config names on the disk and in the network, for whoever confines the process to that: which files and folders
//! are read, written or run, and which ports are bound and connected to.
//!
//! Nothing here confines or opens anything; of the disk it only asks where links lead. Invariant: a file that is named
//! stands for its folder, since who replaces it writes another one beside it, and for the folder of what it leads to.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    ops::BitOrAssign,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use http::Uri;
use relay_program::{
    config::{Origin, Problem},
    secret::SecretRef,
};
use serde_json::Value as Json;

use super::{
    AcmeSettings, Config, ConfigTexts, Listen, TlsSettings, included,
    secrets::{Surroundings, nothing_sealed},
};
use crate::access_log::AccessSink;

/// Where TLS is found unless an address says otherwise, and all that a provider may be asked for.
const HTTPS: u16 = 443;

/// Where names are asked for when the answer is too long for a datagram.
const DNS: u16 = 53;

/// What the system's own libraries read: names, users, zones, root certificates and, when the first name is resolved, more
/// libraries (nsswitch.conf(5)). All of `/etc`, since its files are replaced by others of their name.
const READ_BY_LIBRARIES: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/dev/random",
    "/dev/urandom",
    // How many processors there are for this process (cgroups(7)).
    "/sys/fs/cgroup",
];

/// Where programs and what they are made of lie, for a hook.
const PROGRAMS: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store"];

/// What may be done in a place beside reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathRights {
    /// Files and folders are made, written and removed.
    pub write: bool,
    /// Programs are run.
    pub run: bool,
    /// Sockets are made and removed.
    pub socket: bool,
}

impl PathRights {
    const READ: Self = Self { write: false, run: false, socket: false };
    const WRITE: Self = Self { write: true, ..Self::READ };
    const RUN: Self = Self { run: true, ..Self::READ };
    const SOCKET: Self = Self { socket: true, ..Self::READ };
}

impl BitOrAssign for PathRights {
    fn bitor_assign(&mut self, other: Self) {
        self.write |= other.write;
        self.run |= other.run;
        self.socket |= other.socket;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Each stands for its folder.
    files: BTreeMap<PathBuf, PathRights>,
    /// With all that is beneath.
    trees: BTreeMap<PathBuf, PathRights>,
    /// Ports that are listened on; 0 for one that the system chooses.
    pub bound: BTreeSet<u16>,
    /// Ports that are connected to; `None` where the config cannot tell.
    pub connected: Option<BTreeSet<u16>>,
}

impl Places {
    /// All that the relay touches by this config, with what the system's libraries read.
    pub(super) fn of(config: &Config, texts: &ConfigTexts, var: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let mut places = Self::of_system(var);
        places.add_texts(texts);
        places.add_secrets(&config.shown.to_json(), &Surroundings { base: texts.base(), var, sealed: &nothing_sealed });
        places.add_stores(config);
        places.add_listeners(config);
        places.add_connections(config);
        if let Some(tls) = &config.tls {
            places.add_tls(tls, var);
        }
        places
    }

    /// A config's own file, before that is read.
    pub(super) fn of_file(file: &Path) -> Self {
        let mut places = Self { connected: Some(BTreeSet::new()), ..Self::default() };
        places.add_file(file, PathRights::READ);
        places
    }

    /// What a config's own text includes, before that is read.
    pub(super) fn of_included(file: &Path, text: &str) -> Self {
        let mut places = Self { connected: Some(BTreeSet::new()), ..Self::default() };
        places.add_included(file, text);
        places
    }

    fn of_system(var: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let mut places = Self { connected: Some(BTreeSet::from([HTTPS, DNS])), ..Self::default() };
        for path in READ_BY_LIBRARIES {
            places.add_tree(Path::new(path), PathRights::READ);
        }
        // A file that is linked into place is found through here.
        places.add_tree(Path::new("/proc/self"), PathRights::READ);
        places.add_tree(Path::new("/dev/null"), PathRights::WRITE);
        // It may lead into /run.
        places.add_file(Path::new("/etc/resolv.conf"), PathRights::READ);
        let named = |name: &str| var(name).filter(|value| !value.is_empty());
        if let Some(file) = named("SSL_CERT_FILE") {
            places.add_file(Path::new(&file), PathRights::READ);
        }
        for folder in named("SSL_CERT_DIR").iter().flat_map(std::env::split_paths) {
            places.add_tree(&folder, PathRights::READ);
        }
        if let Some(folder) = named("CREDENTIALS_DIRECTORY") {
            places.add_tree(Path::new(&folder), PathRights::READ);
        }
        places
    }

    fn add_texts(&mut self, texts: &ConfigTexts) {
        for text in &texts.texts {
            if let Origin::File(file) = &text.origin {
                self.add_file(file, PathRights::READ);
            }
        }
        if let (Some(file), Some(main)) = (&texts.file, texts.texts.first()) {
            self.add_included(file, &main.text);
        }
    }

    fn add_included(&mut self, file: &Path, text: &str) {
        for pattern in included::patterns(file, text) {
            self.add_file(&pattern, PathRights::READ);
        }
    }

    /// Every reference to a file that stands in what runs, whatever key it stands under.
    fn add_secrets(&mut self, shown: &Json, around: &Surroundings<'_>) {
        match shown {
            Json::String(text) => {
                if let Ok(SecretRef::File(path)) = text.parse() {
                    self.add_file(&around.path(&path), PathRights::READ);
                }
            }
            Json::Array(values) => values.iter().for_each(|value| self.add_secrets(value, around)),
            Json::Object(values) => values.values().for_each(|value| self.add_secrets(value, around)),
            _ => {}
        }
    }

    fn add_stores(&mut self, config: &Config) {
        if let Some(folder) = &config.server.state_dir {
            self.add_tree(folder, PathRights::WRITE);
        }
        if let Some(file) = config.store.kind.path() {
            self.add_file(file, PathRights::WRITE);
        }
        if let AccessSink::File(file) = &config.observation.access {
            self.add_file(file, PathRights::WRITE);
        }
    }

    fn add_tls(&mut self, tls: &TlsSettings, var: &dyn Fn(&str) -> Option<OsString>) {
        for pair in &tls.files.certificates {
            self.add_file(&pair.cert, PathRights::READ);
            self.add_file(&pair.key, PathRights::READ);
        }
        for clients in &tls.files.clients {
            self.add_file(&clients.ca, PathRights::READ);
            clients.crl.iter().for_each(|crl| self.add_file(crl, PathRights::READ));
        }
        if let Some(acme) = &tls.acme {
            acme.ca.iter().for_each(|ca| self.add_file(ca, PathRights::READ));
            self.add_hook(acme, var);
        }
    }

    fn add_listeners(&mut self, config: &Config) {
        let public = config.server.listen.iter().map(|listener| &listener.at);
        for at in public.chain(&config.server.http_listen) {
            match at {
                Listen::Address(address) => {
                    self.bound.insert(address.port());
                }
                Listen::Unix(socket) => self.add_file(socket, PathRights::SOCKET),
                Listen::Inherited(_) => {}
            }
        }
        self.bound.insert(config.server.admin.port());
    }

    fn add_connections(&mut self, config: &Config) {
        let observation = &config.observation;
        let collector = observation.telemetry.as_ref().map(|telemetry| telemetry.export.url.port());
        let alerts = observation.alert.target.as_ref().map(|target| target.url.port());
        self.connect(collector.into_iter().chain(alerts));
        if observation.canary.is_some() {
            for listener in &config.server.listen {
                match &listener.at {
                    // Which one it is becomes known once it is bound.
                    Listen::Inherited(_) => self.connected = None,
                    Listen::Address(address) if address.port() == 0 => self.connected = None,
                    Listen::Address(address) => self.connect([address.port()]),
                    Listen::Unix(_) => {}
                }
            }
        }
    }

    /// What a CA's hook runs is another's program: it may connect anywhere, and keeps what it needs for a moment in /tmp.
    fn add_hook(&mut self, acme: &AcmeSettings, var: &dyn Fn(&str) -> Option<OsString>) {
        let directory: Option<Uri> = acme.directory.parse().ok();
        self.connect(directory.map(|uri| uri.port_u16().unwrap_or(HTTPS)));
        let Some(program) = acme.dns_hook.first() else { return };
        self.connected = None;
        for path in PROGRAMS {
            self.add_tree(Path::new(path), PathRights::RUN);
        }
        self.add_tree(Path::new("/tmp"), PathRights::WRITE);
        if !program.contains('/') {
            for folder in var("PATH").iter().flat_map(std::env::split_paths) {
                self.add_tree(&folder, PathRights::RUN);
            }
        }
        for word in acme.dns_hook.iter().filter(|word| word.starts_with('/')) {
            self.add_file(Path::new(word), PathRights::RUN);
        }
    }

    fn connect(&mut self, ports: impl IntoIterator<Item = u16>) {
        if let Some(known) = &mut self.connected {
            known.extend(ports);
        }
    }

    fn add_file(&mut self, path: &Path, rights: PathRights) {
        *self.files.entry(path.to_owned()).or_default() |= rights;
    }

    fn add_tree(&mut self, path: &Path, rights: PathRights) {
        *self.trees.entry(path.to_owned()).or_default() |= rights;
    }

    /// By their real names the trees that all of these lie in, with what may be done there. What is not there is left out.
    pub(crate) fn roots(&self) -> BTreeMap<PathBuf, PathRights> {
        let mut roots = BTreeMap::<PathBuf, PathRights>::new();
        let mut add = |path: PathBuf, rights: PathRights| *roots.entry(path).or_default() |= rights;
        for (tree, rights) in &self.trees {
            if let Ok(real) = tree.canonicalize() {
                add(real, *rights);
            }
        }
        for (file, rights) in &self.files {
            let named = std::path::absolute(file).ok();
            let beside = named.as_deref().and_then(Path::parent).and_then(|folder| folder.canonicalize().ok());
            let real = file.canonicalize().ok();
            match (&real, real.as_deref().and_then(Path::parent)) {
                // Nobody is given all that there is for the sake of one file.
                (Some(real), Some(folder)) if folder == Path::new("/") => add(real.clone(), *rights),
                (Some(_), Some(folder)) => add(folder.to_owned(), *rights),
                _ => {}
            }
            if let Some(folder) = beside.filter(|folder| folder != Path::new("/")) {
                add(folder, *rights);
            }
        }
        roots
    }
}

/// What a process is confined to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// By their real names.
    pub roots: BTreeMap<PathBuf, PathRights>,
    /// `None` for all ports.
    pub connected: Option<BTreeSet<u16>>,
    /// What stood under these names at the start: whoever replaces it has put another thing there, which is outside.
    stood: BTreeMap<PathBuf, (u64, u64)>,
}

impl Confinement {
    pub(crate) fn new(roots: BTreeMap<PathBuf, PathRights>, connected: Option<BTreeSet<u16>>) -> Self {
        let stood = roots.keys().filter_map(|path| Some((path.clone(), identity(path)?))).collect();
        Self { roots, connected, stood }
    }

    /// Fails where a reload would read, run or connect to what the process cannot reach. Stores, logs and listeners are
    /// those of the start.
    pub(super) fn admit(&self, places: &Places) -> Result<(), Problem> {
        let refused = |what: String| {
            let help = "start the relay again, which takes in what its config names now, or name a place where it names \
                        others already";
            let message = format!("{what} is outside of what server.sandbox confines this relay to");
            Problem { key: "server.sandbox".to_owned(), help: Some(help.to_owned()), ..Problem::new(message) }
        };
        let is_read = |(_, rights): &(&PathBuf, &PathRights)| !rights.write && !rights.socket;
        let roots = places.roots();
        if let Some((path, _)) = roots.iter().filter(is_read).find(|(path, rights)| !self.has(path, **rights)) {
            let replaced = path.ancestors().any(|path| self.roots.contains_key(path) && !self.stands(path));
            let how = if replaced { ", which was replaced since the start," } else { "" };
            return Err(refused(format!("{}{how}", path.display())));
        }
        let Some(known) = &self.connected else { return Ok(()) };
        let unknown = match &places.connected {
            None => Some("a port that the config cannot tell".to_owned()),
            Some(asked) => asked.difference(known).next().map(|port| format!("port {port} of another host")),
        };
        unknown.map_or(Ok(()), |what| Err(refused(what)))
    }

    fn has(&self, path: &Path, rights: PathRights) -> bool {
        let above = path.ancestors().filter(|path| self.stands(path)).filter_map(|path| self.roots.get(path));
        let mut all = None::<PathRights>;
        above.for_each(|rights| *all.get_or_insert_default() |= *rights);
        all.is_some_and(|all| all.run || !rights.run)
    }

    /// Whether what this name means now is what it meant at the start.
    fn stands(&self, path: &Path) -> bool {
        self.stood.get(path).is_some_and(|stood| identity(path) == Some(*stood))
    }
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::{ConfigSource, Flags};

    /// The places of a config in `/etc/relay`, without those of the system.
    fn places(text: &str) -> Places {
        let file = PathBuf::from("/etc/relay/relay.toml");
        let texts = ConfigTexts::of_file(file, format!("version = 1\n{text}"), None).expect("a text");
        let config = texts.check(&Flags::default(), None).unwrap_or_else(|problems| panic!("{problems}"));
        let var = |name: &str| match name {
            "HOME" => Some("/home/relay".into()),
            "PATH" => Some("/own/bin:/usr/bin".into()),
            _ => None,
        };
        let (mut places, system) = (Places::of(&config, &texts, &var), Places::of_system(&|_| None));
        places.files.retain(|path, rights| system.files.get(path) != Some(rights));
        places.trees.retain(|path, rights| system.trees.get(path) != Some(rights));
        places
    }

    fn listed(paths: &BTreeMap<PathBuf, PathRights>) -> Vec<String> {
        let letters = |rights: &PathRights| {
            [(rights.write, 'w'), (rights.run, 'x'), (rights.socket, 's')].into_iter().filter(|it| it.0).map(|it| it.1)
        };
        paths
            .iter()
            .map(|(path, rights)| format!("{} r{}", path.display(), String::from_iter(letters(rights))))
            .collect()
    }

    const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

    #[test]
    fn a_plain_relay_reads_its_config_and_writes_its_state() {
        let places = places(OPEN);
        assert_eq!(listed(&places.files), ["/etc/relay/relay-state/relay.db rw", "/etc/relay/relay.toml r"]);
        assert_eq!(listed(&places.trees), ["/etc/relay/relay-state rw"]);
        assert_eq!(places.bound, BTreeSet::from([8080, 9090]));
        assert_eq!(places.connected, Some(BTreeSet::from([53, 443])));
    }

    #[test]
    fn all_that_a_config_names_is_taken_with_the_least_that_is_done_there() {
        let text = "[server]\nstate_dir = \"/var/lib/relay\"\npublic_url = \"https://hooks.test\"\n\
            http_listen = \"0.0.0.0:80\"\nadmin = \"127.0.0.1:0\"\n\
            [[server.listen]]\naddr = \"0.0.0.0:8443\"\n[[server.listen]]\naddr = \"unix:/run/relay/public.sock\"\n\
            [store]\nurl = \"sqlite:/srv/store/events.db\"\n\
            [log]\naccess = \"file:/var/log/relay/access.log\"\n\
            [tls]\ncert = \"/certs/live/a.pem\"\nkey = \"a.key\"\n\
            [[tls.clients]]\nname = \"own\"\nca = \"/ca/ca.pem\"\ncrl = \"/crl/list.pem\"\n\
            [telemetry]\notlp = \"http://127.0.0.1:4318\"\nheaders = { authorization = \"file:/keys/otlp\" }\n\
            [[token]]\nname = \"agent\"\nsecrets = [\"file:~/agent.token\"]\nendpoints = [\"*\"]\n\
            [[endpoint]]\nname = \"a\"\nverify = { provider = \"github\", secrets = [\"file:secrets/a\", \"env:B\"] }\n";
        let places = places(text);
        let files = [
            "/ca/ca.pem r",
            "/certs/live/a.pem r",
            "/crl/list.pem r",
            "/etc/relay/a.key r",
            "/etc/relay/relay.toml r",
            "/etc/relay/secrets/a r",
            "/home/relay/agent.token r",
            "/keys/otlp r",
            "/run/relay/public.sock rs",
            "/srv/store/events.db rw",
            "/var/log/relay/access.log rw",
        ];
        assert_eq!(listed(&places.files), files);
        assert_eq!(listed(&places.trees), ["/var/lib/relay rw"]);
        assert_eq!(places.bound, BTreeSet::from([0, 80, 8443]));
        assert_eq!(places.connected, Some(BTreeSet::from([53, 443, 4318])));
    }

    #[test]
    fn where_canaries_or_a_hook_go_the_config_may_not_know() {
        let canary = |listen: &str| {
            places(&format!("[server]\nlisten = \"{listen}\"\n[canary]\nevery = \"60s\"\n{OPEN}")).connected
        };
        assert_eq!(canary("127.0.0.1:8000"), Some(BTreeSet::from([53, 443, 8000])));
        assert_eq!(canary("127.0.0.1:0"), None);
        assert_eq!(canary("fd:public"), None);
        let acme = |more: &str| {
            let directory = "directory = \"https://ca.test:14000/dir\", ca = \"/ca/root.pem\"";
            places(&format!(
                "[tls]\nacme = {{ domains = [\"*.a.test\"], challenge = \"dns-01\", {directory}, {more} }}\n{OPEN}"
            ))
        };
        let hook = acme("dns_hook = [\"bash\", \"/srv/hook\"]");
        assert_eq!(hook.connected, None);
        let files = ["/ca/root.pem r", "/etc/relay/relay-state/relay.db rw", "/etc/relay/relay.toml r", "/srv/hook rx"];
        assert_eq!(listed(&hook.files), files);
        let trees = listed(&hook.trees);
        for tree in ["/own/bin rx", "/usr rx", "/tmp rw"] {
            assert!(trees.iter().any(|one| one == tree), "no {tree} in {trees:?}");
        }
        let named = acme("dns_hook = [\"/srv/hook\"]");
        assert!(!listed(&named.trees).iter().any(|tree| tree == "/own/bin rx"));
        let without = format!(
            "[server]\npublic_url = \"https://a.test\"\n[tls]\nacme = {{ domains = [\"a.test\"], directory = \"https://ca.test:14000/dir\" }}\n{OPEN}"
        );
        assert_eq!(places(&without).connected, Some(BTreeSet::from([53, 443, 14000])));
    }

    #[test]
    fn a_file_stands_for_its_folder_and_for_that_of_what_it_leads_to() {
        let place = tempfile::tempdir().expect("a folder");
        let real = place.path().canonicalize().expect("there");
        for folder in ["live", "archive", "state"] {
            fs::create_dir(real.join(folder)).expect("made");
        }
        fs::write(real.join("archive/a1.pem"), "").expect("written");
        symlink("../archive/a1.pem", real.join("live/a.pem")).expect("linked");
        symlink("state", real.join("link")).expect("linked");
        let mut places = Places::default();
        places.add_file(&real.join("live/a.pem"), PathRights::READ);
        places.add_file(&real.join("live/none.pem"), PathRights::READ);
        places.add_file(&real.join("nowhere/none.pem"), PathRights::READ);
        places.add_tree(&real.join("link"), PathRights::WRITE);
        places.add_file(&real.join("state/events.db"), PathRights::READ);
        // All that there is, for one file of it.
        places.add_file(Path::new("/none.toml"), PathRights::READ);
        let found = listed(&places.roots());
        let expected = [("archive", "r"), ("live", "r"), ("state", "rw")]
            .map(|(name, rights)| format!("{} {rights}", real.join(name).display()));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_a_reload_would_read_lies_where_the_process_may_look() {
        let place = tempfile::tempdir().expect("a folder");
        let real = place.path().canonicalize().expect("there");
        for folder in ["in/deep", "out"] {
            fs::create_dir_all(real.join(folder)).expect("made");
        }
        let inside = BTreeMap::from([(real.join("in"), PathRights::READ)]);
        let confined = Confinement::new(inside, Some(BTreeSet::from([443])));
        let asked = |path: &str, rights: PathRights, ports: Option<BTreeSet<u16>>| {
            let mut places = Places { connected: ports, ..Places::default() };
            places.add_file(&real.join(path), rights);
            confined.admit(&places).map_err(|problem| problem.to_string().replace(&real.display().to_string(), "HERE"))
        };
        let ports = || Some(BTreeSet::from([443]));
        for path in ["in/a.pem", "in/deep/a.pem", "nowhere/a.pem"] {
            assert_eq!(asked(path, PathRights::READ, ports()), Ok(()), "{path}");
        }
        let error = asked("out/a.pem", PathRights::READ, ports()).expect_err("outside");
        assert!(error.starts_with("server.sandbox: HERE/out is outside of what server.sandbox confines"), "{error}");
        assert!(error.contains("; start the relay again"), "{error}");
        assert!(asked("in/hook", PathRights::RUN, ports()).is_err(), "nothing is run there");
        assert_eq!(asked("out/events.db", PathRights::WRITE, ports()), Ok(()), "a store is that of the start");
        let error = asked("in/a", PathRights::READ, Some(BTreeSet::from([443, 8443]))).expect_err("another port");
        assert!(error.contains("port 8443 of another host is outside"), "{error}");
        assert!(asked("in/a", PathRights::READ, None).is_err(), "any port");
        assert_eq!(Confinement { connected: None, ..confined.clone() }.admit(&Places::default()), Ok(()));
    }

    #[test]
    fn a_config_is_taken_only_if_it_names_what_the_process_reaches() {
        let place = tempfile::tempdir().expect("a folder");
        let real = place.path().canonicalize().expect("there");
        for folder in ["own", "more", "out"] {
            fs::create_dir(real.join(folder)).expect("made");
        }
        let path = real.join("own/relay.toml");
        let write = |text: &str| fs::write(&path, format!("version = 1\n{text}")).expect("written");
        let (own, more) = ((real.join("own"), PathRights::READ), (real.join("more"), PathRights::READ));
        let confined = Confinement::new(BTreeMap::from([own, more]), None);
        let source =
            ConfigSource { path: Some(path.clone()), confined: Some(confined.into()), ..ConfigSource::default() };
        write(&format!("include = [\"../more/*.toml\"]\n{OPEN}"));
        assert!(source.read().is_ok());
        write(&format!("include = [\"../out/*.toml\"]\n{OPEN}"));
        let error = source.read().expect_err("outside").to_string();
        assert!(error.contains("out is outside of what server.sandbox"), "{error}");
        write(&format!("include = [\"../more/*.toml\"]\n{OPEN}"));
        fs::write(real.join("out/more.toml"), "").expect("written");
        symlink("../out/more.toml", real.join("more/linked.toml")).expect("linked");
        let error = source.read().expect_err("an included file is outside").to_string();
        assert!(error.contains("out is outside of what server.sandbox"), "{error}");
        fs::remove_file(real.join("more/linked.toml")).expect("removed");

        // The config itself is a link that leads elsewhere now; what was included lies in another folder of its name.
        fs::rename(&path, real.join("out/relay.toml")).expect("moved");
        symlink("../out/relay.toml", &path).expect("linked");
        let error = source.read().expect_err("outside").to_string();
        assert!(error.contains("out is outside of what server.sandbox"), "{error}");
        fs::remove_file(&path).expect("removed");
        write(&format!("include = [\"../more/*.toml\"]\n{OPEN}"));
        assert!(source.read().is_ok());
        fs::rename(real.join("more"), real.join("before")).expect("moved");
        fs::create_dir(real.join("more")).expect("made");
        let error = source.read().expect_err("replaced").to_string();
        assert!(error.contains("more, which was replaced since the start, is outside of what"), "{error}");
    }
}
