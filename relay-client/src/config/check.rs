//! From a config file as typed to one that can run.
//!
//! Judges every value on its own and names each one that is wrong, with its line. It reads no file but the config
//! itself: a missing CA file or token shows when it is used, or in `config check`.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use jiff::{Span, Timestamp, tz::TimeZone};
use relay_program::EndpointName;
use relay_proto::{Attach, MAX_EVENT_PATTERNS, Rate, UpgradeProtocol};
use toml::Spanned;

use super::{
    EndpointConfig, HandlerConfig, Invalid, Problem, Proxy, RelayUrl, RouteConfig, TokenSource,
    find::{Found, Origin, expand},
    problem::{line_of, of_toml},
    raw::{RawEndpoint, RawFile, RawRoute, RawTimeouts},
};
use crate::{
    handler::{TargetConfig, Timeouts},
    target::Target,
    tls::Trust,
};

/// Bytes a config file may have.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Calls at once that a target may be allowed.
pub(crate) const MAX_MAX_CONNECTIONS: usize = 10_000;

/// Longest pattern of event types, in bytes: types are at most 256 long.
const MAX_EVENT_PATTERN_BYTES: usize = 256;
/// The longest any timeout may be.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A checked config file. Whatever may also come from a flag may be missing.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
    /// The relay's address.
    pub relay: Option<RelayUrl>,
    /// PEM file with roots believed for the relay.
    pub relay_ca: Option<PathBuf>,
    /// Where the token lies.
    pub token: Option<TokenSource>,
    /// The agent's name.
    pub name: Option<String>,
    /// The proxy on the way to the relay.
    pub proxy: Option<Proxy>,
    /// Endpoints and their handlers, in the file's order; names are unique.
    pub endpoints: Vec<EndpointConfig>,
}

impl ConfigFile {
    /// Reads and checks a file. The token of one that only lies in the current folder stays inside it.
    pub(crate) fn read(found: &Found, home: Option<&Path>) -> Result<Self, Invalid> {
        let path = found.path.as_path();
        let invalid = |message: String| Invalid {
            file: path.to_owned(),
            problems: vec![Problem { line: None, key: String::new(), message }],
        };
        let size = std::fs::metadata(path).map_err(|error| invalid(relay_program::reason::of_io(&error)))?.len();
        if size > MAX_FILE_BYTES {
            return Err(invalid("is larger than 1 MiB".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| invalid(relay_program::reason::of_io(&error)))?;
        let file = Self::parse(path, &text, home)?;
        if found.origin == Origin::Chosen {
            return Ok(file);
        }
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        Ok(Self { origin: found.origin, token: file.token.map(|token| token.confined(folder)), ..file })
    }

    /// Checks the text of a file that the user chose and that lies at `path`.
    pub(crate) fn parse(path: &Path, text: &str, home: Option<&Path>) -> Result<Self, Invalid> {
        let invalid = |problems| Invalid { file: path.to_owned(), problems };
        let raw: RawFile = toml::from_str(text).map_err(|error| invalid(vec![of_toml(text, &error)]))?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let mut check = Check { text, base, home, problems: Vec::new() };
        let file = check.file(path, &raw);
        if check.problems.is_empty() { Ok(file) } else { Err(invalid(check.problems)) }
    }
}

/// Collects problems on the way through a file.
struct Check<'a> {
    text: &'a str,
    base: &'a Path,
    home: Option<&'a Path>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn file(&mut self, path: &Path, raw: &RawFile) -> ConfigFile {
        if *raw.version.get_ref() != 1 {
            let message = format!("{} is not known; this program reads version = 1", raw.version.get_ref());
            self.problem(raw.version.span(), "version", message);
        }
        let (base, home) = (self.base, self.home);
        let endpoints: Vec<_> = raw.endpoint.iter().filter_map(|endpoint| self.endpoint(endpoint)).collect();
        self.unique_names(raw);
        ConfigFile {
            path: path.to_owned(),
            origin: Origin::Chosen,
            relay: self.value(raw.relay.as_ref(), "relay", str::parse),
            relay_ca: self.path(raw.relay_ca.as_ref()),
            token: self.value(raw.token.as_ref(), "token", |text| TokenSource::from_reference(text, base, home)),
            name: self.value(raw.name.as_ref(), "name", agent_name),
            proxy: self.value(raw.proxy.as_ref(), "proxy", str::parse),
            endpoints,
        }
    }

    fn endpoint(&mut self, raw: &Spanned<RawEndpoint>) -> Option<EndpointConfig> {
        let raw = raw.get_ref();
        let key = format!("endpoint.{}", raw.name.get_ref());
        let name = self.value(Some(&raw.name), &format!("{key}.name"), endpoint_name);
        let attach = self.value(raw.attach.as_ref(), &format!("{key}.attach"), attach);
        let typed: Vec<&String> = raw.events.iter().map(Spanned::get_ref).collect();
        let events = match (event_patterns(&typed), raw.events.first()) {
            (Ok(events), _) => events,
            (Err(message), first) => {
                self.problem(first.map_or(0..0, Spanned::span), &format!("{key}.events"), message);
                Vec::new()
            }
        };
        let rate = self.value(raw.rate.as_ref(), &format!("{key}.rate"), |text| {
            text.parse::<Rate>().map_err(|problem| format!("{text:?} is {problem}"))
        });
        let upgrades = raw.upgrades.iter().filter_map(|named| {
            self.value(Some(named), &format!("{key}.upgrades"), |text| {
                text.parse::<UpgradeProtocol>().map_err(|why| format!("{text:?} is {why}"))
            })
        });
        let upgrades = upgrades.collect();
        let handler = self.handler(&key, &TypedHandler::of_endpoint(raw));
        let routes: Vec<_> = raw.route.iter().map(|route| self.route(&key, route.get_ref())).collect();
        self.unique_paths(&key, raw);
        Some(EndpointConfig {
            attach: attach.unwrap_or_default(),
            events,
            rate,
            upgrades,
            routes: routes.into_iter().collect::<Option<_>>()?,
            ..EndpointConfig::new(Some(name?), handler?)
        })
    }

    fn route(&mut self, endpoint: &str, raw: &RawRoute) -> Option<RouteConfig> {
        let key = format!("{endpoint}.route.{}", raw.path.get_ref());
        let path = self.value(Some(&raw.path), &format!("{key}.path"), route_path);
        let handler = self.handler(&key, &TypedHandler::of_route(raw));
        Some(RouteConfig { path: path?, strip_prefix: raw.strip_prefix, handler: handler? })
    }

    fn handler(&mut self, key: &str, typed: &TypedHandler<'_>) -> Option<HandlerConfig> {
        let key = |last: &str| format!("{key}.{last}");
        let target = self.value(Some(typed.target), &key("target"), str::parse::<Target>);
        let target = match (target, typed.path) {
            (Some(target), Some(path)) => self.value(Some(path), &key("path"), |path| target.with_path(path)),
            (target, _) => target,
        };
        let headers = typed.headers.iter().filter_map(|(name, value)| {
            self.value(Some(value), &key(&format!("headers.{name}")), |value| header(name, value))
        });
        let headers = headers.collect();
        let timeouts = self.timeouts(typed.timeouts, &key("timeouts"));
        let limit = self.value_of(typed.max_connections, &key("max_connections"), |count| {
            usize::try_from(*count)
                .ok()
                .and_then(max_connections)
                .ok_or_else(|| format!("{count} is out of range; allow 1 to {MAX_MAX_CONNECTIONS} calls at once"))
        });
        let trust = match (typed.ca_file, typed.insecure) {
            (Some(file), true) => {
                let message = "insecure = true makes it pointless; remove one of them";
                self.problem(file.span(), &key("ca_file"), message.to_owned());
                return None;
            }
            (Some(file), false) => Trust::PlatformAnd(self.path(Some(file))?),
            (None, true) => Trust::DangerousAnything,
            (None, false) => Trust::Platform,
        };
        let defaults = TargetConfig::new(target?);
        let max_connections = limit.unwrap_or(defaults.max_connections);
        let target = TargetConfig { max_connections, timeouts, trust, ..defaults };
        Some(HandlerConfig { target, headers, preserve_host: typed.preserve_host })
    }

    fn timeouts(&mut self, raw: &RawTimeouts, key: &str) -> Timeouts {
        let defaults = Timeouts::default();
        let mut read = |value: &Option<Spanned<String>>, name: &str, default| {
            self.value(value.as_ref(), &format!("{key}.{name}"), duration).unwrap_or(default)
        };
        Timeouts {
            connect: read(&raw.connect, "connect", defaults.connect),
            head: read(&raw.head, "head", defaults.head),
            idle: read(&raw.idle, "idle", defaults.idle),
            total: read(&raw.total, "total", defaults.total),
        }
    }

    fn unique_names(&mut self, raw: &RawFile) {
        for (index, endpoint) in raw.endpoint.iter().enumerate() {
            let name = &endpoint.get_ref().name;
            if raw.endpoint[..index].iter().any(|earlier| earlier.get_ref().name.get_ref() == name.get_ref()) {
                let key = format!("endpoint.{}.name", name.get_ref());
                self.problem(name.span(), &key, "stands twice; an endpoint has one target".to_owned());
            }
        }
    }

    fn unique_paths(&mut self, key: &str, raw: &RawEndpoint) {
        for (index, route) in raw.route.iter().enumerate() {
            let path = &route.get_ref().path;
            if raw.route[..index].iter().any(|earlier| earlier.get_ref().path.get_ref() == path.get_ref()) {
                let key = format!("{key}.route.{}.path", path.get_ref());
                self.problem(path.span(), &key, "stands twice; a path has one target".to_owned());
            }
        }
    }

    fn path(&self, raw: Option<&Spanned<String>>) -> Option<PathBuf> {
        raw.map(|path| expand(path.get_ref(), self.base, self.home))
    }

    fn value<T, E: ToString>(
        &mut self,
        raw: Option<&Spanned<String>>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.value_of(raw, key, |text| parse(text))
    }

    fn value_of<R, T, E: ToString>(
        &mut self,
        raw: Option<&Spanned<R>>,
        key: &str,
        parse: impl FnOnce(&R) -> Result<T, E>,
    ) -> Option<T> {
        let raw = raw?;
        match parse(raw.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(raw.span(), key, error.to_string());
                None
            }
        }
    }

    fn problem(&mut self, span: Range<usize>, key: &str, message: String) {
        self.problems.push(Problem { line: Some(line_of(self.text, &span)), key: key.to_owned(), message });
    }
}

/// What an endpoint and a route say of a handler.
struct TypedHandler<'a> {
    target: &'a Spanned<String>,
    path: Option<&'a Spanned<String>>,
    headers: &'a BTreeMap<String, Spanned<String>>,
    preserve_host: bool,
    max_connections: Option<&'a Spanned<i64>>,
    timeouts: &'a RawTimeouts,
    ca_file: Option<&'a Spanned<String>>,
    insecure: bool,
}

impl<'a> TypedHandler<'a> {
    fn of_endpoint(raw: &'a RawEndpoint) -> Self {
        Self {
            target: &raw.target,
            path: raw.path.as_ref(),
            headers: &raw.headers,
            preserve_host: raw.preserve_host,
            max_connections: raw.max_connections.as_ref(),
            timeouts: &raw.timeouts,
            ca_file: raw.ca_file.as_ref(),
            insecure: raw.insecure,
        }
    }

    fn of_route(raw: &'a RawRoute) -> Self {
        Self {
            target: &raw.target,
            path: None,
            headers: &raw.headers,
            preserve_host: raw.preserve_host,
            max_connections: raw.max_connections.as_ref(),
            timeouts: &raw.timeouts,
            ca_file: raw.ca_file.as_ref(),
            insecure: raw.insecure,
        }
    }
}

/// How an endpoint of a file is attached.
pub(crate) fn attach(word: &str) -> Result<Attach, String> {
    match word {
        "shared" => Ok(Attach::Shared),
        "exclusive" => Ok(Attach::Exclusive),
        "copy" => Ok(Attach::Copy),
        _ => Err(format!("{word:?} is none of shared, exclusive, copy")),
    }
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

/// A count of calls at once, if it is in range.
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

/// An endpoint's name; which ones exist is the relay's business.
pub(crate) fn endpoint_name(name: &str) -> Result<String, String> {
    let checked = EndpointName::parse(name).map_err(|why| format!("{name:?} is not an endpoint name: {why}"))?;
    Ok(checked.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, Invalid> {
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
            "relay-client.toml:5: unknown key \"taget\"; did you mean \"target\"?"
        );
        assert_eq!(
            refusal("version = 1\nzzz = 2\n"),
            "relay-client.toml:2: unknown key \"zzz\"; known here: version, relay, relay_ca, token, name, proxy, endpoint"
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
            "relay-client.toml:8: endpoint.github.rate: \"10/day\" is not a rate; write it like \"50/s\", \"600/min\" \
             or \"600/min, burst 20\", with numbers from 1 to 100000",
            "relay-client.toml:6: endpoint.github.target: a target takes no user name or password; send them as a \
             header: -H 'Authorization: Basic …'",
            "relay-client.toml:10: endpoint.github.headers.Content-Length: content-length belongs to the connection \
             and cannot be set",
            "relay-client.toml:9: endpoint.github.timeouts.head: \"30\" is not a duration; write a unit, such as \
             500ms, 30s or 5m",
            "relay-client.toml:7: endpoint.github.max_connections: 0 is out of range; allow 1 to 10000 calls at once",
            "relay-client.toml:12: endpoint.github.name: stands twice; an endpoint has one target",
            "relay-client.toml:2: relay: plain http to hooks.example.com would show the token to the network; write \
             https://hooks.example.com, plain is for this machine only",
            "relay-client.toml:3: token: a token is not written here; write \"file:PATH\" or \"env:NAME\"",
        ];
        assert_eq!(refusal.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_missing_or_mistyped_is_named() {
        assert_eq!(refusal("relay = \"h\"\n"), "relay-client.toml:1: missing field `version`");
        assert!(refusal("version = 1\nrelay = 5\n").starts_with("relay-client.toml:2: invalid type"));
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
        let expected = "relay-client.toml:5: endpoint.a.attach: \"auto\" is none of shared, exclusive, copy";
        assert_eq!(refusal(attach), expected);
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
