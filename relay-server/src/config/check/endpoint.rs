//! `[[endpoint]]` and `--endpoint`: names, deadlines and hosts, each and against each other.
//!
//! Invariant: no endpoint is open unless `none` was written out for it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use relay_program::config::{Place, Report, Section, Typed, Wrong, show_duration, show_size};
use relay_program::suggest::suggest;
use relay_proto::{NotARate, NotAnUpgrade, Rate, UpgradeProtocol};

use super::clients;
use super::delivery::{self, Mode};
use super::verify::{ProviderRows, SecretFlags, Verify, verify};
use super::{Context, HOUR, MAX_BODY, SECOND, cidr, token_name};
use crate::config::settings::{ProcessLimits, StoreSpec};
use crate::config::{FROM_ROW, keys, values};
use crate::endpoint::{Allow, Capture, CaptureLevel, Endpoint, EndpointName, Replay};
use crate::mask::{Blinds, Masks};
use crate::store::StoreKind;

const LIVE_DEADLINE: Duration = Duration::from_secs(30);
const ASSURED_DEADLINE: Duration = Duration::from_secs(5);
/// What a provider's own timeout is cut by, so that our answer still reaches it.
const DEADLINE_MARGIN: Duration = Duration::from_secs(1);
/// Most exchanges at a time that an endpoint may ask for; beyond it no limit is the honest word.
const MAX_CONCURRENCY: u32 = 100_000;
const DEFAULT_WAIT: Duration = Duration::from_secs(2);

/// What bounds the endpoints, and what they refer to.
#[derive(Clone, Copy)]
pub(super) struct EndpointBounds<'a> {
    pub(super) context: Context<'a>,
    pub(super) limits: &'a ProcessLimits,
    pub(super) store: &'a StoreSpec,
    pub(super) rows: &'a ProviderRows,
    pub(super) masks: &'a Masks,
    /// The names of `[[tls.clients]]`.
    pub(super) clients: &'a [Arc<str>],
}

type Placed = Typed<Endpoint>;

/// The endpoints, and whose use theirs is.
pub(super) fn endpoints<'s, 't: 's>(
    roots: impl Iterator<Item = &'s Section<'t>>,
    bounds: EndpointBounds<'_>,
    report: &'t Report<'t>,
) -> (Vec<Arc<Endpoint>>, Vec<Typed<Arc<str>>>) {
    let flags = bounds.context.flags;
    let mut secrets = secret_flags(&flags.secrets, report);
    let rows: Vec<_> = roots.flat_map(|root| root.rows("endpoint", "name", keys::ENDPOINT)).collect();
    let mut all: Vec<Placed> = rows.iter().filter_map(|row| typed(row, bounds, &mut secrets)).collect();
    all.extend(flags.endpoints.iter().filter_map(|text| flagged(text, bounds, &mut secrets, report)));
    if flags.dev.is_some() && !all.iter().any(|placed| placed.value.name.as_str() == "dev") {
        all.extend(open("dev", "--dev", bounds, report));
    }
    unique(&all, report);
    for name in secrets.keys() {
        let help = suggest(name, all.iter().map(|placed| placed.value.name.as_str())).unwrap_or_default();
        report.error(&Place::flag("--secret"), format!("no signed endpoint is called \"{name}\""), help);
    }
    if all.is_empty() && rows.is_empty() && flags.endpoints.is_empty() {
        let help = "add one: [[endpoint]] with a name and a verify rule, or `relay-server endpoint create`";
        report.warn(&report.missing("endpoint"), "no endpoint is configured", help);
    }
    let owner = |placed: &Placed| {
        let value = placed.value.owner.clone()?;
        Some(Typed { value, place: placed.place.member("owner") })
    };
    let owners = all.iter().filter_map(owner).collect();
    (all.into_iter().map(|placed| Arc::new(placed.value)).collect(), owners)
}

fn secret_flags(flags: &[String], report: &Report<'_>) -> SecretFlags {
    let place = Place::flag("--secret");
    let mut secrets = SecretFlags::new();
    for text in flags {
        let Some((name, reference)) = text.split_once('=') else {
            // The text is not repeated: it may be a secret that was typed here by mistake.
            let help = "write --secret NAME=env:VARIABLE or --secret NAME=file:PATH";
            report.error(&place, "a name and a reference are expected", help);
            continue;
        };
        match reference.parse() {
            Ok(value) => secrets.entry(name.to_owned()).or_default().push(Typed { value, place: place.clone() }),
            Err(Wrong { message, help }) => report.error(&place, message, help),
        }
    }
    secrets
}

/// One of a file, or of rows that were made elsewhere.
fn typed(row: &Section<'_>, bounds: EndpointBounds<'_>, secrets: &mut SecretFlags) -> Option<Placed> {
    if !row.has("name") {
        row.report().error(&row.here(), "this endpoint has no name", "add name = \"…\", the first part of its path");
        return None;
    }
    let name = row.value("name", parse_name)?;
    let verify = verify(row, &name, bounds, secrets)?;
    Some(Typed { value: endpoint(row, name, verify, bounds), place: row.here() })
}

/// One that a flag names: all of its keys have their defaults.
fn flagged<'t>(
    text: &str,
    bounds: EndpointBounds<'_>,
    secrets: &mut SecretFlags,
    report: &'t Report<'t>,
) -> Option<Placed> {
    let place = Place::flag("--endpoint");
    let Some((name, provider)) = text.split_once('=') else {
        let message = format!("\"{text}\" does not say how to verify");
        report.error(&place, message, "write NAME=PROVIDER, or NAME=none to let anyone in");
        return None;
    };
    if provider == "none" {
        let placed = open(name, "--endpoint", bounds, report)?;
        if bounds.context.flags.dev.is_none() {
            warn_open(&placed.value.name, &place, report);
        }
        return Some(placed);
    }
    let row = Section::of_flag(report, "endpoint", name, "--endpoint");
    let name = row.judge(&place, parse_name(name))?;
    row.show("name", name.as_str());
    let provider = bounds.rows.find(provider, &place, report)?;
    let secrets = secrets.remove(name.as_str()).unwrap_or_default();
    let verify = Verify::of_flag(&row, &name, provider, &secrets, bounds.context)?;
    Some(Typed { value: endpoint(&row, name, verify, bounds), place })
}

/// An open one that a flag names.
fn open<'t>(name: &str, flag: &'static str, bounds: EndpointBounds<'_>, report: &'t Report<'t>) -> Option<Placed> {
    let row = Section::of_flag(report, "endpoint", name, flag);
    let name = row.judge(&row.here(), parse_name(name))?;
    row.show("name", name.as_str());
    let verify = Verify::open(&row);
    Some(Typed { value: endpoint(&row, name, verify, bounds), place: row.here() })
}

fn endpoint(row: &Section<'_>, name: EndpointName, verify: Verify, bounds: EndpointBounds<'_>) -> Endpoint {
    let provider = verify.provider.as_deref();
    let mode = Mode::of(row, provider);
    let theirs = provider.and_then(|provider| provider.timeout);
    let preset = theirs.map(|timeout| timeout.saturating_sub(DEADLINE_MARGIN).max(timeout / 2));
    let cap = provider.and_then(|provider| provider.max_body).filter(|cap| *cap < bounds.limits.max_body);
    for (key, _) in [("deadline", preset.is_some()), ("max_body", cap.is_some())].iter().filter(|(_, given)| *given) {
        row.give(key, FROM_ROW);
    }
    let own = if mode == Mode::Assured { ASSURED_DEADLINE } else { LIVE_DEADLINE };
    let deadline = row.duration("deadline", preset.unwrap_or(own), Duration::from_millis(100)..=HOUR);
    let idle_timeout = row.duration("idle_timeout", bounds.limits.timeouts.idle, SECOND..=HOUR);
    let max_body = row.size("max_body", cap.unwrap_or(bounds.limits.max_body), 1..=MAX_BODY);
    let wait_for_agent = row.duration("wait_for_agent", DEFAULT_WAIT.min(deadline / 2), Duration::ZERO..=HOUR);
    let hosts = row.list("hosts", values::host);
    let networks = row.list("allow", cidr);
    let endpoint = Endpoint {
        replay: if mode == Mode::Live { replay(row) } else { Replay::default() },
        exclusive: row.word("attach", "a way to attach", &[("shared", false), ("exclusive", true)]),
        upgrades: row.list("upgrades", upgrade),
        rate: row.value("rate", rate),
        concurrency: row.number_if("concurrency", 1..=MAX_CONCURRENCY).and_then(NonZeroU32::new),
        owner: row.value("owner", token_name).map(Arc::from),
        allow: match networks.is_empty() {
            true => Allow::default(),
            false => Allow::only(move |address| networks.iter().any(|network| network.contains(address))),
        },
        client: clients::rule(row, bounds.clients),
        capture: Capture { level: capture_level(row), blinds: Blinds::new(&verify.rule, bounds.masks) },
        policy: delivery::delivery_policy(row, mode, &verify, bounds.store.max_bytes),
        name,
        deadline,
        idle_timeout,
        max_body,
        wait_for_agent,
        hosts,
        verify: verify.rule,
    };
    agree(row, &endpoint, verify.provider.as_deref(), bounds);
    endpoint
}

fn parse_name(text: &str) -> Result<EndpointName, Wrong> {
    EndpointName::parse(text).map_err(|why| format!("\"{text}\" is not an endpoint name: {why}").into())
}

fn replay(row: &Section<'_>) -> Replay {
    let words = [Replay::Answer, Replay::Refuse, Replay::Off].map(|replay| (replay.name(), replay));
    row.word("replay", "something that a repeat can get", &words)
}

fn capture_level(row: &Section<'_>) -> CaptureLevel {
    let words = [("bodies", CaptureLevel::Bodies), ("heads", CaptureLevel::Heads), ("off", CaptureLevel::Off)];
    row.word("journal", "what the journal keeps", &words)
}

fn upgrade(text: &str) -> Result<UpgradeProtocol, Wrong> {
    let wrong = |why: NotAnUpgrade| Wrong::new(format!("\"{text}\" is {why}"), "\"websocket\" passes without it");
    text.parse().map_err(wrong)
}

fn rate(text: &str) -> Result<Rate, Wrong> {
    let help = "write it like \"50/s\", \"600/min\" or \"600/min, burst 20\", with numbers from 1 to 100000";
    text.parse().map_err(|NotARate| Wrong::new(format!("\"{text}\" is not a rate"), help))
}

pub(super) fn warn_open(name: &EndpointName, place: &Place, report: &Report<'_>) {
    let message = format!("anyone who knows the address can post to \"{name}\"");
    report.warn(place, message, "give it a provider and a secret, or a name that cannot be guessed");
}

/// Values that are right each for themselves and wrong together.
fn agree(
    row: &Section<'_>,
    endpoint: &Endpoint,
    provider: Option<&relay_schemes::Provider>,
    bounds: EndpointBounds<'_>,
) {
    let Endpoint { deadline, max_body, wait_for_agent, policy, .. } = endpoint;
    if wait_for_agent > deadline {
        let (wait, deadline) = (show_duration(*wait_for_agent), show_duration(*deadline));
        let message = format!("waiting {wait} for an agent leaves nothing of the deadline, {deadline}");
        row.error("wait_for_agent", message, "make it shorter than the deadline");
    }
    let budget = bounds.limits.body_budget;
    let is_collected = policy.is_some() || provider.is_some();
    let why = match bounds.store.kind {
        StoreKind::Memory => "beside a store in memory a body that is signed or kept is in memory, too",
        StoreKind::Sqlite(_) => "a body in which something is looked for is in memory for that time",
    };
    let is_in_memory = bounds.store.kind == StoreKind::Memory || endpoint.needs_whole_body(None);
    if is_collected && is_in_memory && *max_body > budget {
        let (body, budget) = (show_size(*max_body), show_size(budget));
        let message = format!("{why}, and {body} is more than limits.body_budget, {budget}");
        row.error("max_body", message, "lower max_body or raise limits.body_budget");
    }
    if let Some(policy) = policy.as_ref().filter(|policy| row.has("max_size") && policy.max_bytes < *max_body) {
        let (body, room) = (show_size(*max_body), show_size(policy.max_bytes));
        let message = format!("an event with a body of max_body, {body}, would find no room in {room}");
        row.error("max_size", message, "raise max_size or lower max_body");
    }
    if let Some(provider) = provider
        && let Some(theirs) = provider.timeout.filter(|theirs| deadline > theirs)
    {
        let (own, theirs) = (show_duration(*deadline), show_duration(theirs));
        let message = format!("{own} is longer than {} waits, which is {theirs}", provider.name);
        row.report().warn(&row.place("deadline"), message, "leave it out for the provider's own less a margin");
    }
}

fn unique(all: &[Placed], report: &Report<'_>) {
    let mut names: HashMap<&EndpointName, &Place> = HashMap::new();
    let mut hosts: HashMap<&Arc<str>, &EndpointName> = HashMap::new();
    for Typed { value: endpoint, place } in all {
        if let Some(first) = names.insert(&endpoint.name, place) {
            let help = if report.is_kept(place) {
                format!("give the other one another name, or `relay-server endpoint delete {}` first", endpoint.name)
            } else {
                "give this one another name".to_owned()
            };
            let there = report.where_to_look(first, place);
            report.error(place, format!("there is already an endpoint called \"{}\"{there}", endpoint.name), help);
        }
        for host in &endpoint.hosts {
            if let Some(first) = hosts.insert(host, &endpoint.name) {
                let message = format!("\"{host}\" already belongs to endpoint \"{first}\"");
                report.error(&place.member("hosts"), message, "a host leads to one endpoint");
            }
        }
    }
}
