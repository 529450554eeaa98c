//! From what was typed to what would run: the second of the two parses. Flag over file over default.
//!
//! Pure: no secret is read, no file opened, nothing printed. Every mistake goes into the report and a default takes its
//! place, so that one run names all of them. Invariant: every limit that leaves here lies within bounds stated here.

mod endpoint;
mod keeping;
mod store;
mod token;
mod verify;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use super::cidr::Cidr;
use super::effective::{Effective, Limits, Listen, Server, TlsFiles};
use super::error::{Place, Report};
use super::flags::Flags;
use super::raw::{Number, Raw, RawLimits, RawServer, RawTls, Text, Texts};
use super::values::{self, Problem, PublicUrl, show_duration, show_size};

pub(super) use token::{token_name, unique_hashes};

/// The only version of the file's format so far.
const VERSION: i64 = 1;
/// Largest body of any endpoint, in bytes.
const MAX_BODY: u64 = 1 << 30;
/// Connections of one address unless the config says otherwise; at most half of all.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 500;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Where paths begin that are not absolute or not given.
#[derive(Clone, Copy)]
pub(super) struct Directories<'a> {
    /// The config file's.
    pub(super) base: &'a Path,
    /// The one that the system gives this service for its state, if it does.
    pub(super) state: Option<&'a Path>,
}

/// The state directory beside a config file, where the system names none.
const STATE_DIR: &str = "relay-state";

/// Checks everything. What comes back is to be used only if `report` holds no error.
pub(super) fn check(
    raw: &Raw,
    flags: &Flags,
    directories: Directories<'_>,
    has_file: bool,
    report: &mut Report<'_>,
) -> Effective {
    let base = directories.base;
    if has_file {
        version(&raw.version, report);
    }
    let limits = limits(&raw.limits, report);
    let server = server(&raw.server, flags, directories, report);
    let (tls, tls_place) = tls(raw, flags, base, report);
    let rows = verify::Rows::new(&raw.provider, report);
    let store = store::store(&raw.store, flags, directories, server.state_dir.as_deref(), report);
    let bounds = Bounds { limits: &limits, store_bytes: store.max_bytes };
    let endpoints = endpoint::endpoints(&raw.endpoint, flags, bounds, &rows, report);
    let tokens = token::tokens(&raw.token, flags, &endpoints, report);
    if tls.is_none() && matches!(server.listen, Listen::Address(address) if !address.ip().is_loopback()) {
        let place = listen_place(&raw.server, flags, report);
        let message = format!("{} is reachable from outside without TLS", server.listen);
        report.warn(
            &place,
            message,
            "set [tls] cert and key, or let a proxy on this machine end TLS and listen on 127.0.0.1",
        );
    }
    Effective { server, tls, tls_place, limits, store, endpoints, tokens }
}

/// What bounds the endpoints.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    limits: &'a Limits,
    store_bytes: u64,
}

fn version(version: &Number, report: &mut Report<'_>) {
    let place = report.place("version", version.as_ref().map(|version| version.span()));
    match version.as_ref().map(|version| *version.get_ref()) {
        Some(VERSION) => {}
        Some(other) => {
            report.error(&place, format!("{other} is not a version that this relay-server reads"), "write version = 1");
        }
        None => report.error(
            &place,
            "the file does not say which version its format is",
            "write version = 1 on its first line",
        ),
    }
}

fn server(raw: &RawServer, flags: &Flags, directories: Directories<'_>, report: &mut Report<'_>) -> Server {
    let dev = flags.dev.is_some();
    let default_listen = if dev {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))
    } else {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))
    };
    let default_admin = SocketAddr::from((Ipv4Addr::LOCALHOST, if dev { 0 } else { 9090 }));
    let listen = over(&flags.listen, "--listen", &raw.listen, "server.listen", report);
    let listen_place = listen.as_ref().map(|(_, place)| place.clone());
    let listen = read(listen, values::listen, report).unwrap_or(Listen::Address(default_listen));
    if let Some(place) = listen_place.filter(|_| dev && !listen.is_loopback()) {
        report.error(
            &place,
            format!("{listen} is reachable from outside, and --dev is for this machine only"),
            "use 127.0.0.1, or a config file instead of --dev",
        );
    }
    let admin = over(&flags.admin, "--admin", &raw.admin, "server.admin", report);
    let public_url = over(&flags.public_url, "--public-url", &raw.public_url, "server.public_url", report);
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = number(&raw.workers, "server.workers", cores, 1..=1024, report);
    let max_connections: usize = number(&raw.max_connections, "server.max_connections", 10_000, 1..=1_000_000, report);
    let share = MAX_CONNECTIONS_PER_ADDRESS.min(max_connections.div_ceil(2));
    Server {
        listen,
        admin: read(admin, values::address, report).unwrap_or(default_admin),
        admin_hosts: texts(&raw.admin_hosts, "server.admin_hosts", values::host, report),
        state_dir: state_dir(raw, flags, directories),
        public_url: read(public_url, PublicUrl::parse, report),
        trusted_proxies: texts(&raw.trusted_proxies, "server.trusted_proxies", cidr, report),
        drain_timeout: duration(
            &raw.drain_timeout,
            "server.drain_timeout",
            Duration::from_secs(25),
            Duration::ZERO..=10 * MINUTE,
            report,
        ),
        workers: NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN),
        max_connections,
        max_connections_per_address: number(
            &raw.max_connections_per_address,
            "server.max_connections_per_address",
            share,
            1..=1_000_000,
            report,
        ),
    }
}

/// `--dev` keeps nothing unless it is told where.
fn state_dir(raw: &RawServer, flags: &Flags, directories: Directories<'_>) -> Option<PathBuf> {
    let named = raw.state_dir.as_ref().map(|path| directories.base.join(path.get_ref()));
    let usual = || directories.state.map_or_else(|| directories.base.join(STATE_DIR), Path::to_owned);
    flags.state_dir.clone().or(named).or_else(|| flags.dev.is_none().then(usual))
}

fn listen_place(raw: &RawServer, flags: &Flags, report: &mut Report<'_>) -> Place {
    over(&flags.listen, "--listen", &raw.listen, "server.listen", report)
        .map_or_else(|| report.place("server.listen", None), |(_, place)| place)
}

fn cidr(text: &str) -> Result<Cidr, Problem> {
    text.parse()
        .map_err(|why| (format!("\"{text}\" is not a network: {why}"), "write it like \"10.0.0.0/8\"".to_owned()))
}

fn tls(raw: &Raw, flags: &Flags, base: &Path, report: &mut Report<'_>) -> (Option<TlsFiles>, Place) {
    let (span, section) = match &raw.tls {
        Some(tls) => (Some(tls.span()), tls.get_ref()),
        None => (None, &RawTls::default()),
    };
    let place = report.place("tls", span);
    let from_file = |text: &Text| text.as_ref().map(|path| base.join(path.get_ref()));
    let from_flag = |path: &Option<PathBuf>| path.clone();
    let cert = from_flag(&flags.tls_cert).or_else(|| from_file(&section.cert));
    let key = from_flag(&flags.tls_key).or_else(|| from_file(&section.key));
    let place = if flags.tls_cert.is_some() {
        Place::flag("--tls-cert")
    } else if flags.tls_key.is_some() {
        Place::flag("--tls-key")
    } else {
        place
    };
    let files = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (Some(_), None) => {
            report.error(&place, "there is a certificate and no key", "set key = \"FILE\" or --tls-key FILE");
            None
        }
        (None, Some(_)) => {
            report.error(&place, "there is a key and no certificate", "set cert = \"FILE\" or --tls-cert FILE");
            None
        }
        (None, None) if raw.tls.is_some() => {
            report.error(
                &place,
                "neither certificate nor key is named",
                "set cert = \"FILE\" and key = \"FILE\", or leave [tls] out",
            );
            None
        }
        (None, None) => None,
    };
    (files, place)
}

fn limits(raw: &RawLimits, report: &mut Report<'_>) -> Limits {
    let second = Duration::from_secs(1);
    let max_body = size(&raw.max_body, "limits.max_body", 25 << 20, 1..=MAX_BODY, report);
    // The tunnel carries a head in one frame, and hyper reads with a buffer of at least 8 KiB.
    let max_head = size(&raw.max_head, "limits.max_head", 64 << 10, 8 << 10..=64 << 10, report);
    Limits {
        max_body,
        max_head: usize::try_from(max_head).unwrap_or(64 << 10),
        max_in_flight_per_agent: number(
            &raw.max_in_flight_per_agent,
            "limits.max_in_flight_per_agent",
            1024,
            1..=1024,
            report,
        ),
        max_sessions: number(&raw.max_sessions, "limits.max_sessions", 2048, 1..=1_000_000, report),
        body_budget: size(&raw.body_budget, "limits.body_budget", 256 << 20, 1 << 20..=1 << 40, report),
        refused_budget: size(&raw.refused_budget, "limits.refused_budget", 32 << 20, 1 << 20..=1 << 40, report),
        header_timeout: duration(
            &raw.header_timeout,
            "limits.header_timeout",
            10 * second,
            second..=5 * MINUTE,
            report,
        ),
        body_idle_timeout: duration(
            &raw.body_idle_timeout,
            "limits.body_idle_timeout",
            15 * second,
            second..=10 * MINUTE,
            report,
        ),
        body_timeout: duration(&raw.body_timeout, "limits.body_timeout", 10 * MINUTE, second..=HOUR, report),
        idle_timeout: duration(&raw.idle_timeout, "limits.idle_timeout", MINUTE, second..=HOUR, report),
        upgrade_idle_timeout: duration(
            &raw.upgrade_idle_timeout,
            "limits.upgrade_idle_timeout",
            10 * MINUTE,
            second..=24 * HOUR,
            report,
        ),
    }
}

/// The flag's text if there is one, else the file's.
fn over<'a>(
    flag: &'a Option<String>,
    flag_name: &str,
    file: &'a Text,
    key: &str,
    report: &Report<'_>,
) -> Option<(&'a str, Place)> {
    match (flag, file) {
        (Some(text), _) => Some((text, Place::flag(flag_name))),
        (None, Some(text)) => Some((text.get_ref(), report.place(key, Some(text.span())))),
        (None, None) => None,
    }
}

fn read<T>(
    setting: Option<(&str, Place)>,
    parse: impl Fn(&str) -> Result<T, Problem>,
    report: &mut Report<'_>,
) -> Option<T> {
    let (text, place) = setting?;
    match parse(text) {
        Ok(value) => Some(value),
        Err((message, help)) => {
            report.error(&place, message, help);
            None
        }
    }
}

fn texts<T>(list: &Texts, key: &str, parse: impl Fn(&str) -> Result<T, Problem>, report: &mut Report<'_>) -> Vec<T> {
    let mut values = Vec::new();
    for text in list.iter().flatten() {
        let place = report.place(key, Some(text.span()));
        values.extend(read(Some((text.get_ref(), place)), &parse, report));
    }
    values
}

fn duration(
    text: &Text,
    key: &str,
    default: Duration,
    bounds: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Duration {
    bounded(text, key, default, &bounds, values::duration, show_duration, report)
}

fn size(text: &Text, key: &str, default: u64, bounds: RangeInclusive<u64>, report: &mut Report<'_>) -> u64 {
    bounded(text, key, default, &bounds, values::size, show_size, report)
}

fn bounded<T: PartialOrd + Copy>(
    text: &Text,
    key: &str,
    default: T,
    bounds: &RangeInclusive<T>,
    parse: fn(&str) -> Result<T, Problem>,
    show: fn(T) -> String,
    report: &mut Report<'_>,
) -> T {
    let within = |text: &str| match parse(text)? {
        value if bounds.contains(&value) => Ok(value),
        _ => Err((
            format!("\"{text}\" is out of bounds"),
            format!("from {} to {} is allowed", show(*bounds.start()), show(*bounds.end())),
        )),
    };
    read(over(&None, "", text, key, report), within, report).unwrap_or(default)
}

fn number<T>(value: &Number, key: &str, default: T, bounds: RangeInclusive<T>, report: &mut Report<'_>) -> T
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
{
    let Some(value) = value else { return default };
    match T::try_from(*value.get_ref()).ok().filter(|value| bounds.contains(value)) {
        Some(value) => value,
        None => {
            let place = report.place(key, Some(value.span()));
            let help = format!("from {} to {} is allowed", bounds.start(), bounds.end());
            report.error(&place, format!("{} is out of bounds", value.get_ref()), help);
            default
        }
    }
}
