//! `[[endpoint]]` and `--endpoint`: names, verify rules, deadlines and hosts, each and against each other.
//!
//! References to secrets are read as references; whether there is a secret behind one is for `resolve` to say.
//! Invariant: no endpoint is open unless `none` was written out for it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use relay_program::suggest::suggest;
use relay_proto::{NotARate, NotAnUpgrade, Rate, UpgradeProtocol};
use toml::Spanned;

use super::keeping::keeping;
use super::verify::{Rows, verify, wants_secret};
use super::{Bounds, HOUR, MAX_BODY, cidr, duration, number, read, size, texts};
use crate::config::effective::{EndpointSpec, VerifySpec};
use crate::config::error::{Place, Report};
use crate::config::flags::Flags;
use crate::config::raw::{Number, RawEndpoint, Text};
use crate::config::secret_ref::SecretRef;
use crate::config::values::{self, show_duration, show_size};
use crate::endpoint::{EndpointName, Keeping, Replay};

const LIVE_DEADLINE: Duration = Duration::from_secs(30);
const ASSURED_DEADLINE: Duration = Duration::from_secs(5);
/// What a provider's own timeout is cut by, so that our answer still reaches it.
const DEADLINE_MARGIN: Duration = Duration::from_secs(1);
/// Most exchanges at a time that an endpoint may ask for; beyond it no limit is the honest word.
const MAX_CONCURRENCY: u32 = 100_000;
const DEFAULT_WAIT: Duration = Duration::from_secs(2);
pub(super) const BOTH_WAYS_OUT: &str =
    "set verify = { provider = \"…\", secrets = [\"env:…\"] }, or verify = \"none\" to let anyone in";

pub(super) fn endpoints(
    raw: &[Spanned<RawEndpoint>],
    flags: &Flags,
    bounds: Bounds<'_>,
    rows: &Rows,
    report: &mut Report<'_>,
) -> Vec<EndpointSpec> {
    let mut secrets = secret_flags(flags, report);
    let mut all: Vec<(EndpointSpec, Place)> = Vec::new();
    for entry in raw {
        all.extend(from_file(entry, bounds, rows, &mut secrets, report));
    }
    for text in &flags.endpoints {
        all.extend(from_flag(text, flags, bounds, rows, &mut secrets, report));
    }
    if flags.dev.is_some()
        && !all.iter().any(|(spec, _)| spec.name.as_str() == "dev")
        && let Ok(name) = EndpointName::parse("dev")
    {
        let place = Place::flag("--dev");
        all.push((flagged(name, VerifySpec::Open, place.clone(), bounds, report), place));
    }
    unique(&all, report);
    for name in secrets.keys() {
        let help = suggest(name, all.iter().map(|(spec, _)| spec.name.as_str())).unwrap_or_default();
        report.error(&Place::flag("--secret"), format!("no signed endpoint is called \"{name}\""), help);
    }
    if all.is_empty() && raw.is_empty() && flags.endpoints.is_empty() {
        let place = report.place("endpoint", None);
        let help = "add one: [[endpoint]] with a name and a verify rule, or `relay-server endpoint create`";
        report.warn(&place, "no endpoint is configured", help);
    }
    all.into_iter().map(|(spec, _)| spec).collect()
}

pub(super) type SecretFlags = HashMap<String, Vec<(SecretRef, Place)>>;

fn secret_flags(flags: &Flags, report: &mut Report<'_>) -> SecretFlags {
    let place = Place::flag("--secret");
    let mut secrets = SecretFlags::new();
    for text in &flags.secrets {
        let Some((name, reference)) = text.split_once('=') else {
            // The text is not repeated: it may be a secret that was typed here by mistake.
            report.error(
                &place,
                "a name and a reference are expected",
                "write --secret NAME=env:VARIABLE or --secret NAME=file:PATH",
            );
            continue;
        };
        if let Some(reference) = read(Some((reference, place.clone())), str::parse, report) {
            secrets.entry(name.to_owned()).or_default().push((reference, place.clone()));
        }
    }
    secrets
}

fn from_file(
    entry: &Spanned<RawEndpoint>,
    bounds: Bounds<'_>,
    rows: &Rows,
    secrets: &mut SecretFlags,
    report: &mut Report<'_>,
) -> Option<(EndpointSpec, Place)> {
    let raw = entry.get_ref();
    let name = name(&raw.name, entry, report)?;
    let key = format!("endpoint.{name}");
    let place = report.place(&*key, Some(entry.span()));
    let verify_place = match &raw.verify {
        Some(verify) => report.place(format!("{key}.verify"), Some(verify.span())),
        None => place.member("verify"),
    };
    let verify = verify(raw.verify.as_ref().map(Spanned::get_ref), &name, &verify_place, (rows, secrets), report)?;
    let keeping = keeping(raw, &verify, &key, bounds.store_bytes, report);
    let fallback = defaults(name, verify, verify_place, bounds, keeping);
    let key_of = |member: &str| format!("{key}.{member}");
    let deadline =
        duration(&raw.deadline, &key_of("deadline"), fallback.deadline, Duration::from_millis(100)..=HOUR, report);
    let wait_default = DEFAULT_WAIT.min(deadline / 2);
    let own = [("deadline", raw.deadline.is_some()), ("max_body", raw.max_body.is_some())];
    let preset = fallback.preset.iter().copied().filter(|key| !own.contains(&(*key, true))).collect();
    let spec = EndpointSpec {
        deadline,
        preset,
        idle_timeout: duration(
            &raw.idle_timeout,
            &key_of("idle_timeout"),
            bounds.limits.idle_timeout,
            Duration::from_secs(1)..=HOUR,
            report,
        ),
        max_body: size(&raw.max_body, &key_of("max_body"), fallback.max_body, 1..=MAX_BODY, report),
        wait_for_agent: duration(
            &raw.wait_for_agent,
            &key_of("wait_for_agent"),
            wait_default,
            Duration::ZERO..=HOUR,
            report,
        ),
        replay: replay(&raw.replay, &key, report),
        allow: texts(&raw.allow, &key_of("allow"), cidr, report),
        hosts: texts(&raw.hosts, &key_of("hosts"), values::host, report),
        exclusive: exclusive(&raw.attach, &key, report),
        upgrades: texts(&raw.upgrades, &key_of("upgrades"), upgrade, report),
        rate: rate(&raw.rate, &key, report),
        concurrency: concurrency(&raw.concurrency, &key, report),
        ..fallback
    };
    agree(&spec, raw, bounds, &place, report);
    Some((spec, place))
}

fn from_flag(
    text: &str,
    flags: &Flags,
    bounds: Bounds<'_>,
    rows: &Rows,
    secrets: &mut SecretFlags,
    report: &mut Report<'_>,
) -> Option<(EndpointSpec, Place)> {
    let place = Place::flag("--endpoint");
    let Some((name, provider)) = text.split_once('=') else {
        report.error(
            &place,
            format!("\"{text}\" does not say how to verify"),
            "write NAME=PROVIDER, or NAME=none to let anyone in",
        );
        return None;
    };
    let name = read(Some((name, place.clone())), parse_name, report)?;
    if provider == "none" {
        if flags.dev.is_none() {
            warn_open(&name, &place, report);
        }
        return Some((flagged(name, VerifySpec::Open, place.clone(), bounds, report), place));
    }
    let provider = rows.find(provider, &place, report)?;
    let secrets = secrets.remove(name.as_str()).unwrap_or_default();
    if secrets.is_empty() && wants_secret(&provider) {
        report.error(
            &place,
            format!("no secret is given for \"{name}\""),
            format!("add --secret {name}=env:VARIABLE or --secret {name}=file:PATH"),
        );
    }
    Some((
        flagged(name, VerifySpec::Signed { provider, secrets, options: Box::default() }, place.clone(), bounds, report),
        place,
    ))
}

/// An endpoint that a flag names: all of its keys have their defaults.
fn flagged(
    name: EndpointName,
    verify: VerifySpec,
    place: Place,
    bounds: Bounds<'_>,
    report: &mut Report<'_>,
) -> EndpointSpec {
    let keeping = keeping(&RawEndpoint::default(), &verify, "endpoint", bounds.store_bytes, report);
    defaults(name, verify, place, bounds, keeping)
}

fn defaults(
    name: EndpointName,
    verify: VerifySpec,
    verify_place: Place,
    bounds: Bounds<'_>,
    keeping: Option<Keeping>,
) -> EndpointSpec {
    let theirs = provider_timeout(&verify).map(|timeout| timeout.saturating_sub(DEADLINE_MARGIN).max(timeout / 2));
    let own = if keeping.as_ref().is_some_and(|keeping| keeping.assured) { ASSURED_DEADLINE } else { LIVE_DEADLINE };
    let deadline = theirs.unwrap_or(own);
    let max_body = verify.provider().and_then(|provider| provider.max_body).filter(|cap| *cap < bounds.limits.max_body);
    let preset = [("deadline", theirs.is_some()), ("max_body", max_body.is_some())];
    EndpointSpec {
        name,
        verify,
        verify_place,
        deadline,
        idle_timeout: bounds.limits.idle_timeout,
        max_body: max_body.unwrap_or(bounds.limits.max_body),
        preset: preset.into_iter().filter(|(_, from_row)| *from_row).map(|(key, _)| key).collect(),
        wait_for_agent: DEFAULT_WAIT.min(deadline / 2),
        hosts: Vec::new(),
        allow: Vec::new(),
        replay: Replay::default(),
        exclusive: false,
        upgrades: Vec::new(),
        rate: None,
        concurrency: None,
        keeping,
    }
}

fn provider_timeout(verify: &VerifySpec) -> Option<Duration> {
    verify.provider()?.timeout
}

fn name(text: &Text, entry: &Spanned<RawEndpoint>, report: &mut Report<'_>) -> Option<EndpointName> {
    let Some(text) = text else {
        let place = report.place("endpoint", Some(entry.span()));
        report.error(&place, "this endpoint has no name", "add name = \"…\", the first part of its path");
        return None;
    };
    let place = report.place("endpoint.name", Some(text.span()));
    read(Some((text.get_ref(), place)), parse_name, report)
}

fn parse_name(text: &str) -> Result<EndpointName, values::Problem> {
    EndpointName::parse(text).map_err(|why| (format!("\"{text}\" is not an endpoint name: {why}"), String::new()))
}

/// `replay`: what an unchanged repeat gets.
fn replay(text: &Text, key: &str, report: &mut Report<'_>) -> Replay {
    let parse = |text: &str| {
        let known = [Replay::Answer, Replay::Refuse, Replay::Off].into_iter().find(|replay| replay.name() == text);
        known.ok_or_else(|| {
            (
                format!("\"{text}\" is nothing that a repeat can get"),
                "write \"answer\", \"refuse\" or \"off\"".to_owned(),
            )
        })
    };
    let setting =
        text.as_ref().map(|text| (text.get_ref().as_str(), report.place(format!("{key}.replay"), Some(text.span()))));
    read(setting, parse, report).unwrap_or_default()
}

/// `attach`: whether one agent at a time serves the endpoint.
fn exclusive(text: &Text, key: &str, report: &mut Report<'_>) -> bool {
    let parse = |text: &str| match text {
        "shared" => Ok(false),
        "exclusive" => Ok(true),
        other => Err((format!("\"{other}\" is not a way to attach"), "write \"shared\" or \"exclusive\"".to_owned())),
    };
    let place =
        text.as_ref().map(|text| (text.get_ref().as_str(), report.place(format!("{key}.attach"), Some(text.span()))));
    read(place, parse, report).unwrap_or(false)
}

/// One of `upgrades`: a protocol that passes beside WebSocket.
fn upgrade(text: &str) -> Result<UpgradeProtocol, values::Problem> {
    text.parse()
        .map_err(|why: NotAnUpgrade| (format!("\"{text}\" is {why}"), "\"websocket\" passes without it".to_owned()))
}

/// `rate`: how often exchanges begin at most.
fn rate(text: &Text, key: &str, report: &mut Report<'_>) -> Option<Rate> {
    let parse = |text: &str| {
        let help = "write it like \"50/s\", \"600/min\" or \"600/min, burst 20\", with numbers from 1 to 100000";
        text.parse().map_err(|NotARate| (format!("\"{text}\" is not a rate"), help.to_owned()))
    };
    let setting =
        text.as_ref().map(|text| (text.get_ref().as_str(), report.place(format!("{key}.rate"), Some(text.span()))));
    read(setting, parse, report)
}

/// `concurrency`: how many exchanges there are at a time at most.
fn concurrency(count: &Number, key: &str, report: &mut Report<'_>) -> Option<NonZeroU32> {
    let count =
        count.is_some().then(|| number(count, &format!("{key}.concurrency"), 1_u32, 1..=MAX_CONCURRENCY, report));
    count.and_then(NonZeroU32::new)
}

pub(super) fn warn_open(name: &EndpointName, place: &Place, report: &mut Report<'_>) {
    report.warn(
        place,
        format!("anyone who knows the address can post to \"{name}\""),
        "give it a provider and a secret, or a name that cannot be guessed",
    );
}

/// Values that are right each for themselves and wrong together.
fn agree(spec: &EndpointSpec, raw: &RawEndpoint, bounds: Bounds<'_>, place: &Place, report: &mut Report<'_>) {
    if spec.wait_for_agent > spec.deadline {
        let message = format!(
            "waiting {} for an agent leaves nothing of the deadline, {}",
            show_duration(spec.wait_for_agent),
            show_duration(spec.deadline)
        );
        report.error(
            &member(place, "wait_for_agent", &raw.wait_for_agent, report),
            message,
            "make it shorter than the deadline",
        );
    }
    if (spec.keeping.is_some() || matches!(spec.verify, VerifySpec::Signed { .. }))
        && spec.max_body > bounds.limits.body_budget
    {
        let message = format!(
            "a body that is signed or kept is collected in memory, and {} is more than limits.body_budget, {}",
            show_size(spec.max_body),
            show_size(bounds.limits.body_budget)
        );
        report.error(
            &member(place, "max_body", &raw.max_body, report),
            message,
            "lower max_body or raise limits.body_budget",
        );
    }
    if let Some(keeping) = spec.keeping.as_ref().filter(|_| raw.max_size.is_some())
        && keeping.max_bytes < spec.max_body
    {
        let message = format!(
            "an event with a body of max_body, {}, would find no room in {}",
            show_size(spec.max_body),
            show_size(keeping.max_bytes)
        );
        report.error(&member(place, "max_size", &raw.max_size, report), message, "raise max_size or lower max_body");
    }
    if let (Some(theirs), VerifySpec::Signed { provider, .. }) = (provider_timeout(&spec.verify), &spec.verify)
        && spec.deadline > theirs
    {
        let message = format!(
            "{} is longer than {} waits, which is {}",
            show_duration(spec.deadline),
            provider.name,
            show_duration(theirs)
        );
        report.warn(
            &member(place, "deadline", &raw.deadline, report),
            message,
            "leave it out for the provider's own less a margin",
        );
    }
}

fn member(place: &Place, name: &str, text: &Text, report: &Report<'_>) -> Place {
    let member = place.member(name);
    text.as_ref().map_or(member.clone(), |text| report.place(member.key(), Some(text.span())))
}

fn unique(all: &[(EndpointSpec, Place)], report: &mut Report<'_>) {
    let mut names: HashMap<&EndpointName, &Place> = HashMap::new();
    let mut hosts: HashMap<&Arc<str>, &EndpointName> = HashMap::new();
    for (spec, place) in all {
        if let Some(first) = names.insert(&spec.name, place) {
            let help = if report.is_api(place) {
                format!("give the other one another name, or `relay-server endpoint delete {}` first", spec.name)
            } else {
                "give this one another name".to_owned()
            };
            let there = report.where_to_look(first, place);
            report.error(place, format!("there is already an endpoint called \"{}\"{there}", spec.name), help);
        }
        for host in &spec.hosts {
            if let Some(first) = hosts.insert(host, &spec.name) {
                report.error(
                    &place.member("hosts"),
                    format!("\"{host}\" already belongs to endpoint \"{first}\""),
                    "a host leads to one endpoint",
                );
            }
        }
    }
}
