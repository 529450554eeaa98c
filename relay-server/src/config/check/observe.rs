//! `[telemetry]`, `[log]`, `[alert]` and `[canary]`: what is told to those outside.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use relay_program::config::{Section, Typed, Wrong};
use relay_program::secret::SecretRef;

use super::verify::read_secret;
use super::{Context, DAY, HOUR, MINUTE, SECOND};
use crate::access_log::AccessSink;
use crate::alert::{AlertSettings, AlertTarget, Thresholds, signer};
use crate::config::settings::{Observation, Server, Telemetry};
use crate::config::{Listen, PublicUrl, keys};
use crate::outbound::PostUrl;
use crate::spans::ExportSettings;
use crate::trace::Sampling;

/// The path of traces behind a collector's address (OTLP/HTTP).
const TRACES: &str = "/v1/traces";

pub(super) fn observation(main: &Section<'_>, context: Context<'_>, server: &Server) -> Observation {
    Observation {
        telemetry: telemetry(main, context),
        access: access(main, context),
        alert: alert(main, context, server),
        canary: canary(main),
    }
}

fn telemetry(main: &Section<'_>, context: Context<'_>) -> Option<Telemetry> {
    let telemetry = main.section("telemetry", keys::TELEMETRY).under("otlp", "--otlp", context.flags.otlp.as_deref());
    let url = telemetry.value("otlp", PostUrl::parse);
    let sampling = telemetry.value_or("sample", Percent(100.0), Percent::parse);
    let name = telemetry.value_or("service_name", "relay-server".to_owned(), |text| match text.trim() {
        "" => Err(Wrong::new("the name is empty", "write a name, such as \"relay-server\"")),
        name => Ok(name.to_owned()),
    });
    let mut resource =
        vec![("service.name".to_owned(), name), ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    for (key, value) in telemetry.named_texts("attributes") {
        telemetry.section("attributes", "").show(&key, value.value);
        resource.push((key, value.value.to_owned()));
    }
    let headers = headers(&telemetry, context);
    if let Some(url) = url.as_ref().filter(|url| url.is_plain() && !headers.is_empty()) {
        let message = format!("{url} gets its headers over a network in the clear");
        telemetry.report().warn(&telemetry.place("otlp"), message, "use https");
    }
    // An address without a path is the collector's, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    let url = url.map(|url| if url.has_path() { url } else { url.joined(TRACES) })?;
    Some(Telemetry { export: ExportSettings { url, headers, resource }, sampling: Sampling::new(sampling.0 / 100.0) })
}

/// Headers whose values are secrets.
fn headers(telemetry: &Section<'_>, context: Context<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, text) in telemetry.named_texts("headers") {
        let report = telemetry.report();
        let help = "write it like { authorization = \"env:OTLP_KEY\" }";
        let named =
            HeaderName::from_str(&name).map_err(|_| Wrong::new(format!("\"{name}\" is no header's name"), help));
        let Some(named) = telemetry.judge(&text.place, named) else { continue };
        let Some(value) = telemetry.judge(&text.place, text.value.parse::<SecretRef>()) else { continue };
        telemetry.section("headers", "").show(&name, value.to_string());
        let typed = Typed { value, place: text.place };
        let Some(read) = read_secret(&typed, context, report) else { continue };
        let value = read.and_then(|secret| {
            let mut value = HeaderValue::from_bytes(&secret.bytes)
                .map_err(|_| Wrong::new(format!("{} cannot stand in a header", typed.value), "put it on one line"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        headers.extend(telemetry.judge(&typed.place, value).map(|value| (named, value)));
    }
    headers
}

fn access(main: &Section<'_>, context: Context<'_>) -> AccessSink {
    let log = main.section("log", keys::LOG);
    let parse = |text: &str| match text.split_once(':') {
        None if text == "off" => Ok(AccessSink::Off),
        None if text == "stdout" => Ok(AccessSink::Stdout),
        Some(("file", path)) if !path.is_empty() => Ok(AccessSink::File(context.base.join(path))),
        _ => {
            let help = "write \"off\", \"stdout\" or \"file:access.log\"";
            Err(Wrong::new(format!("\"{text}\" is no place for the access log"), help))
        }
    };
    let sink = log.read("access", parse).unwrap_or_default();
    log.show(
        "access",
        match &sink {
            AccessSink::Off => "off".to_owned(),
            AccessSink::Stdout => "stdout".to_owned(),
            AccessSink::File(path) => format!("file:{}", path.display()),
        },
    );
    sink
}

fn alert(main: &Section<'_>, context: Context<'_>, server: &Server) -> AlertSettings {
    let alert = main.section("alert", keys::ALERT);
    let defaults = Thresholds::default();
    let thresholds = Thresholds {
        backlog: alert.number("backlog", defaults.backlog, 1..=1_000_000_000),
        certificate: alert.duration("certificate", defaults.certificate, HOUR..=90 * DAY),
    };
    let url = alert.value("url", PostUrl::parse);
    let secret = alert.value("secret", str::parse::<SecretRef>);
    let report = alert.report();
    if url.is_some() && secret.is_none() && !alert.has("secret") {
        let help = "set secret = \"file:alert.secret\": whsec_ and 24 random bytes in base64";
        report.error(&alert.place("url"), "alerts are signed, and there is no secret to sign with", help);
    }
    let url = url.filter(|url| {
        let is_own = leads_here(url, server);
        if is_own {
            let help = "name a place that hears of it when this relay is in trouble";
            alert.error("url", format!("{url} is this relay itself"), help);
        }
        !is_own
    });
    let typed = secret.map(|value| Typed { value, place: alert.place("secret") });
    let read = typed.as_ref().and_then(|typed| read_secret(typed, context, report));
    let rule = read.zip(typed.as_ref()).and_then(|(read, typed)| {
        let rule = read.and_then(|secret| {
            let text = String::from_utf8_lossy(&secret.bytes);
            let help = "write whsec_ and 24 to 64 bytes in base64, as `relay-server init` makes them";
            signer(&text).map_err(|why| Wrong::new(format!("{} cannot sign: {why}", typed.value), help))
        });
        alert.judge(&typed.place, rule)
    });
    let target = url.zip(rule).map(|(url, rule)| AlertTarget { url, signer: Arc::new(rule) });
    AlertSettings { target, thresholds }
}

/// Whether a post would come in at this relay's own door, as far as the config knows.
fn leads_here(url: &PostUrl, server: &Server) -> bool {
    let public = server.public_url.as_ref().map(PublicUrl::uri);
    let is_public = public.is_some_and(|public| {
        let port = public.port_u16().unwrap_or(if public.scheme_str() == Some("http") { 80 } else { 443 });
        public.host().is_some_and(|host| host.eq_ignore_ascii_case(url.host())) && port == url.port()
    });
    let listens = server.listen.iter().filter_map(|listener| match &listener.at {
        Listen::Address(address) => Some(*address),
        Listen::Inherited(_) | Listen::Unix(_) => None,
    });
    let is_listener = listens.into_iter().any(|listens| {
        let is_local =
            url.host() == "localhost" || url.host().parse().is_ok_and(|host: std::net::IpAddr| host.is_loopback());
        listens.port() == url.port() && (is_local || listens.ip().to_string() == url.host())
    });
    is_public || is_listener
}

fn canary(main: &Section<'_>) -> Option<Duration> {
    let canary = main.section("canary", keys::CANARY);
    canary.has("every").then(|| canary.duration("every", MINUTE, SECOND..=HOUR))
}

/// A part in per cent, from 0 to 100.
#[derive(Clone, Copy)]
struct Percent(f64);

impl Percent {
    fn parse(text: &str) -> Result<Self, Wrong> {
        let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let wrong = || Wrong::new(format!("\"{text}\" is not a part"), "write it like \"100%\" or \"0.5%\"");
        number.filter(|number| (0.0..=100.0).contains(number)).map(Self).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}
