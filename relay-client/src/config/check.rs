//! From a config file as typed to one that can run.
//!
//! Judges every value on its own and names each one that is wrong, with its line. It reads no file but the config
//! itself: a missing CA file or token shows when it is used, or in `config check`.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use jiff::{Span, Timestamp, tz::TimeZone};
use relay_program::{
    EndpointName,
    config::{Origin as TextOrigin, Problem, Problems, Report, Section, Shown, Text, show_duration},
};
use relay_proto::{Attach, MAX_EVENT_PATTERNS, Rate, UpgradeProtocol};

use super::{
    EndpointConfig, HandlerConfig, Proxy, RelayUrl, RouteConfig, TokenSource,
    find::{Found, Origin, expand},
    host_name,
};
use crate::{
    handler::{TargetConfig, Timeouts},
    target::Target,
    tls::Trust,
};

const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Calls at once that a target may be allowed.
pub(crate) const MAX_MAX_CONNECTIONS: usize = 10_000;

/// Longest pattern of event types, in bytes: types are at most 256 long.
const MAX_EVENT_PATTERN_BYTES: usize = 256;
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

const MAIN: &str = "version relay relay_ca client_cert client_key token name proxy endpoint";
const ENDPOINT: &str = "\
    name attach events rate upgrades target path headers preserve_host max_connections timeouts ca_file insecure route";
/// One `[[endpoint.route]]`: as an endpoint, but for a path.
const ROUTE: &str = "\
    path target strip_prefix headers preserve_host max_connections timeouts ca_file insecure";
const TIMEOUTS: &str = "connect head idle total";

/// A checked config file. Whatever may also come from a flag may be missing.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    pub path: PathBuf,
    pub origin: Origin,
    pub relay: Option<RelayUrl>,
    pub relay_ca: Option<PathBuf>,
    /// What the relay is shown, where it asks for a certificate.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub token: Option<TokenSource>,
    pub name: Option<String>,
    pub proxy: Option<Proxy>,
    /// Endpoints and their handlers, in the file's order; names are unique.
    pub endpoints: Vec<EndpointConfig>,
    /// All of it, for people.
    pub shown: Shown,
}

impl ConfigFile {
    /// Reads and checks a file. The token of one that only lies in the current folder stays inside it.
    pub(crate) fn read(found: &Found, home: Option<&Path>) -> Result<Self, Problems> {
        let path = found.path.as_path();
        let invalid = |message: String| Problem { file: Some(path.to_owned()), ..Problem::new(message) };
        let unread = |error| invalid(relay_program::reason::of_io(&error));
        if std::fs::metadata(path).map_err(unread)?.len() > MAX_FILE_BYTES {
            return Err(invalid("is larger than 1 MiB".to_owned()).into());
        }
        let text = std::fs::read_to_string(path).map_err(unread)?;
        let file = Self::parse(path, &text, home)?;
        if found.origin == Origin::Chosen {
            return Ok(file);
        }
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        Ok(Self { origin: found.origin, token: file.token.map(|token| token.confined(folder)), ..file })
    }

    /// Checks the text of a file that the user chose and that lies at `path`.
    pub(crate) fn parse(path: &Path, text: &str, home: Option<&Path>) -> Result<Self, Problems> {
        let texts = [Text::new(TextOrigin::File(path.to_owned()), text.to_owned())];
        let table = texts[0].parse()?;
        let report = Report::new(&texts);
        let file = {
            let base = path.parent().unwrap_or_else(|| Path::new(""));
            let check = Check { root: Section::root(&report, 0, &table, MAIN), base, home };
            check.file(path)
        };
        let (shown, _) = report.finish()?;
        Ok(Self { shown, ..file })
    }
}

struct Check<'a, 't> {
    root: Section<'t>,
    base: &'a Path,
    home: Option<&'a Path>,
}

impl Check<'_, '_> {
    fn file(&self, path: &Path) -> ConfigFile {
        let root = &self.root;
        match root.integer("version").map(|version| version.value) {
            Some(1) => {}
            Some(other) => root.error("version", format!("{other} is not known; this program reads version = 1"), ""),
            None => root.require(&["version"]),
        }
        root.show("version", 1);
        let name = root.read("name", agent_name);
        let file = ConfigFile {
            path: path.to_owned(),
            origin: Origin::Chosen,
            relay: root.value("relay", parsed),
            relay_ca: self.path(root, "relay_ca"),
            client_cert: self.path(root, "client_cert"),
            client_key: self.path(root, "client_key"),
            token: root.value("token", |text| {
                TokenSource::from_reference(text, self.base, self.home).map_err(|error| error.to_string())
            }),
            proxy: root.value("proxy", parsed),
            endpoints: Vec::new(),
            shown: Shown::default(),
            name,
        };
        root.show("name", file.name.clone().unwrap_or_else(host_name));
        let rows = root.rows("endpoint", "name", ENDPOINT);
        unique(&rows, "name", "stands twice; an endpoint has one target");
        ConfigFile { endpoints: rows.iter().filter_map(|row| self.endpoint(row)).collect(), ..file }
    }

    fn endpoint(&self, row: &Section<'_>) -> Option<EndpointConfig> {
        row.require(&["name", "target"]);
        let name = row.value("name", endpoint_name);
        let attach = row.word(
            "attach",
            "a way to attach",
            &[("shared", Attach::Shared), ("exclusive", Attach::Exclusive), ("copy", Attach::Copy)],
        );
        let typed: Vec<&str> = row.texts("events").into_iter().map(|typed| typed.value).collect();
        let events = row.judge(&row.place("events"), event_patterns(&typed)).unwrap_or_default();
        row.show_all("events", events.iter().cloned());
        let rate = row.value("rate", |text| text.parse::<Rate>().map_err(|why| format!("{text:?} is {why}")));
        let upgrades =
            row.list("upgrades", |text| text.parse::<UpgradeProtocol>().map_err(|why| format!("{text:?} is {why}")));
        let handler = self.handler(row, true);
        let rows = row.rows("route", "path", ROUTE);
        unique(&rows, "path", "stands twice; a path has one target");
        let routes: Vec<_> = rows.iter().map(|route| self.route(route)).collect();
        let routes = routes.into_iter().collect::<Option<_>>()?;
        let endpoint = EndpointConfig::new(Some(name?), handler?);
        Some(EndpointConfig { attach, events, rate, upgrades, routes, ..endpoint })
    }

    fn route(&self, row: &Section<'_>) -> Option<RouteConfig> {
        row.require(&["path", "target"]);
        let path = row.value("path", route_path);
        let strip_prefix = row.flag("strip_prefix", false);
        let handler = self.handler(row, false);
        Some(RouteConfig { path: path?, strip_prefix, handler: handler? })
    }

    /// In a route `path` is the route's, and the target's own stays in its address.
    fn handler(&self, row: &Section<'_>, path_apart: bool) -> Option<HandlerConfig> {
        let target = row.read("target", parsed::<Target>);
        let target = match (target, path_apart.then(|| row.text("path")).flatten()) {
            (Some(target), Some(path)) => {
                row.judge(&path.place, target.with_path(path.value).map_err(|error| error.to_string()))
            }
            (target, _) => target,
        };
        if let Some(target) = &target {
            let shown = if path_apart { target.without_path() } else { target.clone() };
            row.show("target", shown.to_string());
            row.show_if("path", Some(target.path.as_str()).filter(|path| path_apart && !path.is_empty()));
        }
        let headers = row.named_texts("headers").into_iter().filter_map(|(name, value)| {
            let (parsed, value) = row.judge(&value.place, header(&name, value.value))?;
            // A header of the user's own may well be a credential.
            let shown = value.to_str().ok().filter(|_| !value.is_sensitive()).unwrap_or("…");
            row.section("headers", "").show(&name, shown);
            Some((parsed, value))
        });
        let headers = headers.collect();
        let preserve_host = row.flag("preserve_host", false);
        let limit = row.integer("max_connections").and_then(|count| {
            let limit = usize::try_from(count.value).ok().and_then(max_connections);
            let range = || format!("{} is out of range; allow 1 to {MAX_MAX_CONNECTIONS} calls at once", count.value);
            row.judge(&count.place, limit.ok_or_else(range))
        });
        let timeouts = timeouts(&row.section("timeouts", TIMEOUTS));
        let (ca_file, insecure) = (self.path(row, "ca_file"), row.flag("insecure", false));
        let trust = match (ca_file, insecure) {
            (Some(_), true) => {
                row.error("ca_file", "insecure = true makes it pointless; remove one of them", "");
                return None;
            }
            (Some(file), false) => Trust::PlatformAnd(file),
            (None, true) => Trust::DangerousAnything,
            (None, false) => Trust::Platform,
        };
        let defaults = TargetConfig::new(target?);
        let max_connections = limit.unwrap_or(defaults.max_connections);
        row.show("max_connections", i64::try_from(max_connections.get()).unwrap_or(i64::MAX));
        let target = TargetConfig { max_connections, timeouts, trust, ..defaults };
        Some(HandlerConfig { target, headers, preserve_host })
    }

    fn path(&self, section: &Section<'_>, name: &str) -> Option<PathBuf> {
        let path = section.text(name).map(|path| expand(path.value, self.base, self.home))?;
        section.show(name, path.display().to_string());
        Some(path)
    }
}

fn timeouts(section: &Section<'_>) -> Timeouts {
    let defaults = Timeouts::default();
    let read = |name: &str, default| {
        let value = section.read(name, duration).unwrap_or(default);
        section.show(name, show_duration(value));
        value
    };
    Timeouts {
        connect: read("connect", defaults.connect),
        head: read("head", defaults.head),
        idle: read("idle", defaults.idle),
        total: read("total", defaults.total),
    }
}

/// Names every row whose own name stands before it.
fn unique(rows: &[Section<'_>], name: &str, message: &str) {
    let mut seen = Vec::new();
    for row in rows {
        let Some(typed) = row.text(name) else { continue };
        if seen.contains(&typed.value) {
            row.error(name, message, "");
        }
        seen.push(typed.value);
    }
}

fn parsed<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Types of events that an agent takes, in which `*` stands for any text.
pub(crate) fn event_patterns<T: AsRef<str>>(typed: &[T]) -> Result<Vec<String>, String> {
    let patterns: Vec<String> = typed.iter().map(|typed| typed.as_ref().trim().to_owned()).collect();
    match patterns.iter().find(|pattern| pattern.is_empty() || pattern.len() > MAX_EVENT_PATTERN_BYTES) {
        Some(_) => Err(format!("an event type has 1 to {MAX_EVENT_PATTERN_BYTES} characters")),
        None if patterns.len() > MAX_EVENT_PATTERNS => Err(format!("at most {MAX_EVENT_PATTERNS} can be named")),
        None => Ok(patterns),
    }
}

/// The path of a route: begins with `/`, compared with what senders send byte for byte.
pub(crate) fn route_path(path: &str) -> Result<String, String> {
    if path == "/" {
        return Err("takes every request; write it as the endpoint's own target".to_owned());
    }
    if path.ends_with('/') {
        return Err(format!("{path:?} takes what is below it anyway; write it without the last /"));
    }
    Target::from_str("1").and_then(|target| target.with_path(path)).map_err(|error| error.to_string())?;
    Ok(path.to_owned())
}

pub(crate) fn max_connections(count: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(count).filter(|count| count.get() <= MAX_MAX_CONNECTIONS)
}

/// A wait with its unit, such as `500ms`, `30s` or `1h 30m`; more than nothing and at most a day.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration; write a unit, such as 500ms, 30s or 5m"))?;
    let duration = Duration::try_from(parsed).unwrap_or_default();
    if duration.is_zero() || duration > MAX_TIMEOUT {
        return Err(format!("{text:?} is out of range; more than nothing and at most 24h"));
    }
    Ok(duration)
}

/// A moment in the past: a time such as `2026-01-31T08:00Z`, or how long ago, such as `42m`, `2h` or `1d`.
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is no time; write how long ago, such as 42m or 2h, or 2026-01-31T08:00Z");
    let moment = match text.parse::<Timestamp>() {
        Ok(moment) => moment,
        Err(_) => {
            let ago: Span = text.parse().map_err(|_| wrong())?;
            let then = now.to_zoned(TimeZone::UTC).checked_sub(ago).map_err(|_| wrong())?;
            then.timestamp()
        }
    };
    if moment > now { Err(format!("{text:?} lies in the future")) } else { Ok(moment) }
}

/// A header that is set on requests to a handler. Those that frame a message are not the user's to set.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    /// A header named so may be a credential, and is then not shown.
    const SECRET_PARTS: [&str; 7] = ["auth", "cookie", "key", "pass", "secret", "signature", "token"];
    const FRAMING: [&str; 6] = ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header name"))?;
    if FRAMING.contains(&parsed.as_str()) {
        return Err(format!("{parsed} belongs to the connection and cannot be set"));
    }
    let mut value =
        HeaderValue::from_str(value).map_err(|_| format!("the value of {parsed} has control characters"))?;
    value.set_sensitive(SECRET_PARTS.iter().any(|part| parsed.as_str().contains(part)));
    Ok((parsed, value))
}

/// An agent's name: 1 to 64 visible characters.
pub(crate) fn agent_name(name: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(name.to_owned()) } else { Err(format!("{name:?} is not a name; 1 to 64 visible ASCII characters")) }
}

pub(crate) fn endpoint_name(name: &str) -> Result<String, String> {
    let checked = EndpointName::parse(name).map_err(|why| format!("{name:?} is not an endpoint name: {why}"))?;
    Ok(checked.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, Problems> {
        ConfigFile::parse(Path::new("relay-client.toml"), text, Some(Path::new("/home/me")))
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_full_file() {
        let file = parse(
            r#"
version = 1
relay = "wss://hooks.example.com"
relay_ca = "~/ca.pem"
token = "file:~/.config/relay/token"
name = "laptop"

[[endpoint]]
name = "github"
target = "http://127.0.0.1:3000/webhooks"
path = "/hooks"
headers = { X-From = "relay" }
preserve_host = true
max_connections = 5
rate = "600/min"
timeouts = { connect = "500ms", head = "1m" }

[[endpoint]]
name = "stripe"
target = "https://app.test"
ca_file = "app.pem"
"#,
        )
        .unwrap();
        assert_eq!(file.relay.unwrap().to_string(), "https://hooks.example.com");
        assert_eq!(file.relay_ca.unwrap(), Path::new("/home/me/ca.pem"));
        assert_eq!(file.token.unwrap().to_string(), "file:/home/me/.config/relay/token");
        let github = &file.endpoints[0];
        assert_eq!(github.name.as_deref(), Some("github"));
        assert_eq!(github.handler.target.target.to_string(), "http://127.0.0.1:3000/hooks");
        assert_eq!(github.handler.target.max_connections.get(), 5);
        assert_eq!(github.handler.target.timeouts.connect, Duration::from_millis(500));
        assert_eq!(github.handler.target.timeouts.head, Duration::from_secs(60));
        assert_eq!(github.handler.target.timeouts.idle, Timeouts::default().idle);
        assert_eq!(github.handler.headers, [(HeaderName::from_static("x-from"), HeaderValue::from_static("relay"))]);
        assert!(github.handler.preserve_host);
        assert_eq!(github.rate, Some(Rate::new(600, 60, Some(10))));
        assert_eq!(file.endpoints[1].handler.target.trust, Trust::PlatformAnd("app.pem".into()));
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_suggestion() {
        assert_eq!(
            refusal("version = 1\n\n[[endpoint]]\nname = \"a\"\ntaget = \"3000\"\n"),
            "relay-client.toml:5: endpoint.a.taget: unknown key \"taget\"; did you mean \"target\"?"
        );
        assert_eq!(
            refusal("version = 1\nzzz = 2\n"),
            "relay-client.toml:2: zzz: unknown key \"zzz\"; known here: version, relay, relay_ca, client_cert, client_key, token, name, proxy, endpoint"
        );
    }

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let text = r#"version = 2
relay = "http://hooks.example.com"
token = "s3cret"
[[endpoint]]
name = "github"
target = "http://me:s3cret@host"
max_connections = 0
rate = "10/day"
timeouts = { head = "30" }
headers = { Content-Length = "1" }
[[endpoint]]
name = "github"
target = "3000"
"#;
        let refusal = refusal(text);
        assert!(!refusal.contains("s3cret"), "{refusal}");
        let expected = [
            "relay-client.toml:1: version: 2 is not known; this program reads version = 1",
            "relay-client.toml:2: relay: plain http to hooks.example.com would show the token to the network; write \
             https://hooks.example.com, plain is for this machine only",
            "relay-client.toml:3: token: a token is not written here; write \"file:PATH\" or \"env:NAME\"",
            "relay-client.toml:6: endpoint.github.target: a target takes no user name or password; send them as a \
             header: -H 'Authorization: Basic …'",
            "relay-client.toml:7: endpoint.github.max_connections: 0 is out of range; allow 1 to 10000 calls at once",
            "relay-client.toml:8: endpoint.github.rate: \"10/day\" is not a rate; write it like \"50/s\", \"600/min\" \
             or \"600/min, burst 20\", with numbers from 1 to 100000",
            "relay-client.toml:9: endpoint.github.timeouts.head: \"30\" is not a duration; write a unit, such as \
             500ms, 30s or 5m",
            "relay-client.toml:10: endpoint.github.headers.Content-Length: content-length belongs to the connection \
             and cannot be set",
            "relay-client.toml:12: endpoint.github.name: stands twice; an endpoint has one target",
        ];
        assert_eq!(refusal.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_missing_or_mistyped_is_named() {
        assert_eq!(refusal("relay = \"h\"\n"), "relay-client.toml:1: version: missing field `version`");
        assert!(refusal("version = 1\nrelay = 5\n").starts_with("relay-client.toml:2: relay: invalid type"));
        assert!(refusal("version = \n").starts_with("relay-client.toml:1: "));
    }

    #[test]
    fn routes_have_paths_and_targets_of_their_own() {
        let file = |routes: &str| {
            parse(&format!("version = 1\n[[endpoint]]\nname = \"a\"\nattach = \"exclusive\"\ntarget = \"1\"\n{routes}"))
        };
        let route = |path: &str| format!("[[endpoint.route]]\npath = \"{path}\"\ntarget = \"https://b/c\"\n");
        let read = file(&(route("/x/y") + "strip_prefix = true\ninsecure = true\n")).unwrap();
        assert_eq!(read.endpoints[0].attach, Attach::Exclusive);
        let read = &read.endpoints[0].routes[0];
        assert_eq!((read.path.as_str(), read.strip_prefix), ("/x/y", true));
        assert_eq!(read.handler.target.target.to_string(), "https://b/c");
        assert_eq!(read.handler.target.trust, Trust::DangerousAnything);
        for (path, words) in [
            ("/", "takes every request; write it as the endpoint's own target"),
            ("/x/", "\"/x/\" takes what is below it anyway; write it without the last /"),
            ("x", "\"x\" is not a URL path; it begins with / and has no spaces, ? or #"),
            ("/x?y", "\"/x?y\" is not a URL path; it begins with / and has no spaces, ? or #"),
        ] {
            let expected = format!("relay-client.toml:7: endpoint.a.route.{path}.path: {words}");
            assert_eq!(file(&route(path)).unwrap_err().to_string(), expected);
        }
        let twice = file(&(route("/x") + &route("/x"))).unwrap_err().to_string();
        assert_eq!(twice, "relay-client.toml:10: endpoint.a.route./x.path: stands twice; a path has one target");
        let attach = "version = 1\n[[endpoint]]\nname = \"a\"\ntarget = \"1\"\nattach = \"auto\"\n";
        let expected = "relay-client.toml:5: endpoint.a.attach: \"auto\" is not a way to attach; \
             write \"shared\", \"exclusive\" or \"copy\"";
        assert_eq!(refusal(attach), expected);
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let text = "version = 1\nname = \"n\"\n[[endpoint]]\nname = \"a\"\ntarget = \"unix:/run/a.sock\"\npath = \"/x\"\nattach = \"copy\"\nrate = \"5/s, burst 2\"\nupgrades = [\"example/2\"]\nheaders = { X-Key = \"s3cret\" }\n\
             [[endpoint.route]]\npath = \"/b\"\ntarget = \"http://h/b\"\n";
        let show = |text: &str| parse(text).unwrap().shown.to_toml().to_owned();
        let values = |shown: &str| -> Vec<String> {
            shown.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
        };
        let shown = show(text);
        assert_eq!(values(&show(&shown)), values(&shown));
        assert!(shown.contains("head = \"30s\"  # default"), "{shown}");
        assert!(shown.contains("upgrades = [\"example/2\"]  # relay-client.toml:9"), "{shown}");
        assert!(shown.contains("path = \"/x\"") && shown.contains("rate = \"5/s, burst 2\""), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn moments_are_times_or_how_long_ago() {
        let now: Timestamp = "2026-01-31T08:00Z".parse().unwrap();
        for (text, then) in [
            ("42m", "2026-01-31T07:18Z"),
            ("2h", "2026-01-31T06:00Z"),
            ("1d", "2026-01-30T08:00Z"),
            ("2026-01-31T07:00+01:00", "2026-01-31T06:00Z"),
        ] {
            assert_eq!(moment(text, now), Ok(then.parse().unwrap()), "{text}");
        }
        for text in ["", "42", "lunch", "-2h", "2026-01-31T08:01Z", "99999y"] {
            assert!(moment(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("42m"), Ok(Duration::from_secs(42 * 60)));
        for text in ["", "30", "-5s", "0s", "25h", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
