//! From what was typed to what runs. Flag over file over default.
//!
//! Every mistake goes into the report and a default takes its place, so that one run names all of them. Secrets are
//! read, and files looked at, only where `Surroundings` are given: `config show` and edits work where the secrets are not,
//! and an endpoint that signs is closed there. Invariants: every limit that leaves here lies within bounds stated here; a
//! signed endpoint holds at least one usable key or is closed.

mod acme;
mod clients;
mod delivery;
mod endpoint;
mod listen;
mod observe;
mod tls;
mod token;
mod verify;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use relay_program::config::{Place, Problems, Report, Section, Text, Typed, Wrong};
use relay_program::suggest::suggest;

use super::cidr::Cidr;
use super::flags::Flags;
use super::secrets::Surroundings;
use super::settings::{
    MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_STORE_BYTES, ProcessLimits, PublicListener, Server, StoreSpec,
    Timeouts,
};
use super::values::{self, PublicUrl};
use super::{Config, keys};
use crate::agents::token::Tokens;
use crate::audit::AuditKeep;
use crate::endpoint::Endpoint;
use crate::mask::Masks;
use crate::state::Others;
use crate::store::StoreKind;

pub(crate) use acme::email;
pub(super) use token::token_name;

const VERSION: i64 = 1;
const MAX_BODY: u64 = 1 << 30;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// The state directory beside a config file, where the system names none.
const STATE_DIR: &str = "relay-state";
/// The store's file in the state directory, where nothing else is said.
const STORE_FILE: &str = "relay.db";

/// What a config is checked with, beside its texts.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) flags: &'a Flags,
    /// Where relative paths start.
    pub(super) base: &'a Path,
    /// The directory that the system gives this service for its state, if it does.
    pub(super) state: Option<&'a Path>,
    /// Whether the first text is a file.
    pub(super) has_file: bool,
    /// Where secrets are read; without it they stay references.
    pub(super) around: Option<&'a Surroundings<'a>>,
}

pub(super) fn check(texts: &[Text], context: Context<'_>) -> Result<Config, Problems> {
    let tables = texts.iter().map(Text::parse).collect::<Result<Vec<_>, _>>()?;
    let report = Report::new(texts);
    let mut config = {
        let keys = |number| if number == 0 { keys::MAIN } else { keys::ROWS };
        let roots = tables.iter().enumerate();
        let roots: Vec<_> = roots.map(|(number, table)| Section::root(&report, number, table, keys(number))).collect();
        whole(texts, &roots, context, &report)
    };
    (config.shown, config.warnings) = report.finish()?;
    Ok(config)
}

fn whole<'t>(texts: &[Text], roots: &[Section<'t>], context: Context<'_>, report: &'t Report<'t>) -> Config {
    let main = &roots[0];
    version(main, context);
    let (server, listeners) = server(main, context, tls::is_there(main, context));
    let tls = tls::settings(main, context);
    listen::agree(&listeners, &server, tls.as_ref(), report);
    let http_place = main.section("server", "").place("http_listen");
    listen::http_agrees(&server, &http_place, report);
    let clients: Vec<Arc<str>> =
        tls.iter().flat_map(|tls| &tls.files.clients).map(|clients| Arc::clone(&clients.name)).collect();
    let limits = limits(main);
    let store = store(main, context, server.state_dir.as_deref());
    let audit = audit(main);
    if let Some(acme) = tls.as_ref().and_then(|tls| tls.acme.as_deref()) {
        acme::look_around(acme, &server, &store, &main.section("tls", ""));
    }
    let observation = observe::observation(main, context, &server);
    let rows = verify::ProviderRows::new(texts, roots);
    let masks = inspect(main);
    let rows = endpoint::EndpointBounds {
        context,
        limits: &limits,
        store: &store,
        rows: &rows,
        masks: &masks,
        clients: &clients,
    };
    let counted = || roots.iter().zip(texts).filter(|(_, text)| text.rows).map(|(root, _)| root);
    let (endpoints, owners) = endpoint::endpoints(counted(), rows, report);
    let tokens = Tokens::new(token::tokens(counted(), context, &endpoints, &clients, report));
    owners.iter().for_each(|owner| counts_for_nobody(owner, &tokens, report));
    if let Some(host) = &server.inspector_host {
        inspector_host(
            host,
            &server,
            tls.is_some(),
            &endpoints,
            &main.section("server", "").place("inspector_host"),
            report,
        );
    }
    Config {
        server,
        limits,
        store,
        audit,
        tls,
        observation,
        endpoints,
        tokens,
        shown: Default::default(),
        warnings: Vec::new(),
    }
}

fn version(main: &Section<'_>, context: Context<'_>) {
    match main.integer("version").map(|version| version.value) {
        Some(VERSION) => {}
        None if !context.has_file || main.has("version") => {}
        Some(other) => {
            let message = format!("{other} is not a version that this relay-server reads");
            main.error("version", message, "write version = 1");
        }
        None => {
            let message = "the file does not say which version its format is";
            main.error("version", message, "write version = 1 on its first line");
        }
    }
    main.show("version", VERSION);
}

fn server(main: &Section<'_>, context: Context<'_>, has_tls: bool) -> (Server, Vec<(PublicListener, Place)>) {
    let flags = context.flags;
    let dev = flags.dev.is_some();
    let server = main
        .section("server", keys::SERVER)
        .under("listen", "--listen", flags.listen.as_deref())
        .under("admin", "--admin", flags.admin.as_deref())
        .under("state_dir", "--state-dir", flags.state_dir.as_deref().and_then(Path::to_str))
        .under("public_url", "--public-url", flags.public_url.as_deref());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, if dev { 0 } else { 9090 }));
    let listeners = listen::listeners(&server, context, has_tls);
    for (listener, place) in listeners.iter().filter(|_| dev && server.has("listen")) {
        if !listen::is_of_this_machine(&listener.at) {
            let message = format!("{} is reachable from outside, and --dev is for this machine only", listener.at);
            main.report().error(place, message, "use 127.0.0.1, or a config file instead of --dev");
        }
    }
    let http_listen = listen::http(&server, context);
    let admin = server.value_or("admin", admin, values::address);
    let admin_hosts = server.list("admin_hosts", values::host);
    let inspector_host = server.value("inspector_host", values::host);
    let state_dir = state_dir(&server, context);
    let public_url = server.value("public_url", PublicUrl::parse);
    let trusted_proxies = server.list("trusted_proxies", cidr);
    let drain_timeout = server.duration("drain_timeout", 25 * SECOND, Duration::ZERO..=10 * MINUTE);
    let workers = server.number("workers", available_parallelism().map_or(1, NonZeroUsize::get), 1..=1024);
    let max_connections: usize = server.number("max_connections", MAX_CONNECTIONS, 1..=1_000_000);
    // At most half of all.
    let share = MAX_CONNECTIONS_PER_ADDRESS.min(max_connections.div_ceil(2));
    let sandbox = server.flag("sandbox", false);
    if sandbox && state_dir.is_none() {
        let message = "a state directory for the time of one run lies among everybody's files";
        server.error("sandbox", message, "set state_dir to a place of the relay's own");
    }
    let server = Server {
        listen: listeners.iter().map(|(listener, _)| listener.clone()).collect(),
        http_listen,
        admin,
        admin_hosts,
        inspector_host,
        state_dir,
        public_url,
        trusted_proxies,
        drain_timeout,
        workers: NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN),
        max_connections,
        max_connections_per_address: server.number("max_connections_per_address", share, 1..=1_000_000),
        sandbox,
    };
    (server, listeners)
}

/// Warns of an endpoint whose owner there is not.
fn counts_for_nobody(owner: &Typed<Arc<str>>, tokens: &Tokens, report: &Report<'_>) {
    let Typed { value: owner, place } = owner;
    // One that the API made may have outlived its token.
    if tokens.named(owner).is_none() && !report.is_kept(place) {
        let help = suggest(owner, tokens.iter().map(|token| &*token.name)).unwrap_or_default();
        report.warn(place, format!("no token is called \"{owner}\", so its use counts for nobody"), help);
    }
}

/// The page's own host is one that nothing else has: its cookie goes to whatever answers there.
fn inspector_host(
    host: &Arc<str>,
    server: &Server,
    has_tls: bool,
    endpoints: &[Arc<Endpoint>],
    place: &Place,
    report: &Report<'_>,
) {
    let own = "give it a name of its own, such as \"inspect.example.com\"";
    if **host == *"localhost" || host.parse::<IpAddr>().is_ok() {
        report.error(place, format!("\"{host}\" is shared with whatever else runs there"), own);
    }
    if server.public_url.as_ref().is_some_and(|url| url.uri().host() == Some(&**host)) {
        report.error(place, format!("\"{host}\" is where senders and agents come: server.public_url"), own);
    }
    if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.hosts.contains(host)) {
        report.error(place, format!("\"{host}\" leads to the endpoint \"{}\"", endpoint.name), own);
    }
    if !has_tls && server.trusted_proxies.is_empty() {
        let help = "set [tls] cert and key, or name the proxy that ends TLS in server.trusted_proxies";
        report.error(place, "a browser keeps the page's cookie over TLS alone, and there is none", help);
    }
}

/// `--dev` keeps nothing unless it is told where.
fn state_dir(server: &Section<'_>, context: Context<'_>) -> Option<PathBuf> {
    let named = || server.text("state_dir").map(|path| context.base.join(path.value));
    let usual = || context.state.map_or_else(|| context.base.join(STATE_DIR), Path::to_owned);
    let path = context.flags.state_dir.clone().or_else(named);
    let path = path.or_else(|| context.flags.dev.is_none().then(usual))?;
    server.show("state_dir", path.display().to_string());
    // What a start refuses, and what is only doubtful. One that is not there yet is made for the relay alone.
    let others = context.around.and_then(|_| Others::may_change(&path).ok());
    if let Some((others, (problem, help))) = others.and_then(|others| Some((others, others.problem(&path)?))) {
        let place = server.report().missing("server.state_dir");
        if others.is_refused() {
            server.report().error(&place, problem, help);
        } else {
            server.report().warn(&place, problem, help);
        }
    }
    Some(path)
}

/// Warns of a file that is there and that others may change.
fn doubt(path: &Path, place: &Place, report: &Report<'_>) {
    if let Some((problem, help)) = Others::may_change(path).ok().and_then(|others| others.problem(path)) {
        report.warn(place, problem, help);
    }
}

fn cidr(text: &str) -> Result<Cidr, Wrong> {
    text.parse()
        .map_err(|why| Wrong::new(format!("\"{text}\" is not a network: {why}"), "write it like \"10.0.0.0/8\""))
}

fn limits(main: &Section<'_>) -> ProcessLimits {
    let (limits, usual) = (main.section("limits", keys::LIMITS), ProcessLimits::default());
    let waits = usual.timeouts;
    // The tunnel carries a head in one frame, and hyper reads with a buffer of at least 8 KiB.
    let max_head = limits.size("max_head", usual.max_head as u64, 8 << 10..=64 << 10);
    ProcessLimits {
        max_body: limits.size("max_body", usual.max_body, 1..=MAX_BODY),
        max_head: usize::try_from(max_head).unwrap_or(usual.max_head),
        max_in_flight_per_agent: limits.number("max_in_flight_per_agent", usual.max_in_flight_per_agent, 1..=1024),
        max_sessions: limits.number("max_sessions", usual.max_sessions, 1..=1_000_000),
        body_budget: limits.size("body_budget", usual.body_budget, 1 << 20..=1 << 40),
        refused_budget: limits.size("refused_budget", usual.refused_budget, 1 << 20..=1 << 40),
        journal_budget: limits.size("journal_budget", usual.journal_budget, 1 << 20..=1 << 40),
        timeouts: Timeouts {
            header: limits.duration("header_timeout", waits.header, SECOND..=5 * MINUTE),
            body_idle: limits.duration("body_idle_timeout", waits.body_idle, SECOND..=10 * MINUTE),
            body: limits.duration("body_timeout", waits.body, SECOND..=HOUR),
            idle: limits.duration("idle_timeout", waits.idle, SECOND..=HOUR),
            upgrade_idle: limits.duration("upgrade_idle_timeout", waits.upgrade_idle, SECOND..=24 * HOUR),
        },
    }
}

fn inspect(main: &Section<'_>) -> Masks {
    let inspect = main.section("inspect", keys::INSPECT);
    let pointer = |text: &str| match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(format!("\"{text}\" is not a JSON pointer"), "write it like \"/data/card\"")),
    };
    let name = |text: &str| match http::HeaderName::try_from(text) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(Wrong::new(format!("\"{text}\" is not a header's name"), "write it like \"x-customer\"")),
    };
    Masks { headers: inspect.list("mask_headers", name), json: inspect.list("mask_json", pointer) }
}

fn audit(main: &Section<'_>) -> AuditKeep {
    let (audit, usual) = (main.section("audit", keys::AUDIT), AuditKeep::default());
    AuditKeep {
        retention: audit.duration("retention", usual.retention, DAY..=YEARS),
        max_bytes: audit.size("max_size", usual.max_bytes, 1 << 20..=1 << 40),
    }
}

fn store(main: &Section<'_>, context: Context<'_>, state_dir: Option<&Path>) -> StoreSpec {
    let store = main.section("store", keys::STORE).under("url", "--store", context.flags.store.as_deref());
    // Without a place of its own the relay keeps events for as long as it lives.
    let own = state_dir.map_or(StoreKind::Memory, |directory| StoreKind::Sqlite(directory.join(STORE_FILE)));
    let kind = store.value_or("url", own, |text| match text.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => Ok(StoreKind::Sqlite(context.base.join(path))),
        Some(("memory", "")) => Ok(StoreKind::Memory),
        _ => Err(Wrong::new(format!("\"{text}\" is not a store"), "write \"sqlite:relay.db\" or \"memory:\"")),
    });
    if let Some(path) = kind.path().filter(|_| context.around.is_some()) {
        doubt(path, &main.report().missing("store.url"), main.report());
    }
    StoreSpec {
        kind,
        max_bytes: store.size("max_size", MAX_STORE_BYTES, 1 << 20..=1 << 50),
        retention: store.duration("retention", 30 * DAY, HOUR..=YEARS),
        pending_retention: store.duration("pending_retention", 30 * DAY, HOUR..=YEARS),
    }
}
