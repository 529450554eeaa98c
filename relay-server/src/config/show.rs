//! A config as it would run, printed in its own format or as JSON: every default filled in, no secret read.
//!
//! Invariants: secrets appear as references only and hashes shortened; every time and size is printed in the form in
//! which it would be typed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use relay_proto::printable::without_password;
use serde::Serialize;

use super::effective::{Effective, EndpointSpec, KeySet, TokenSpec, VerifyOptions, VerifySpec};
use super::error::Place;
use super::secret_ref::SecretRef;
use super::values::{show_duration, show_size};
use crate::endpoint::{Identity, Keeping, Order, Resign};
use crate::retry::{Schedule, Statuses};

/// The whole config, ready for a serializer.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    version: i64,
    server: ShownServer,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<ShownTls>,
    limits: ShownLimits,
    store: ShownStore,
    endpoint: Vec<ShownEndpoint>,
    token: Vec<ShownToken>,
}

#[derive(Debug, Serialize)]
struct ShownServer {
    listen: String,
    admin: String,
    admin_hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_url: Option<String>,
    trusted_proxies: Vec<String>,
    drain_timeout: String,
    workers: usize,
    max_connections: usize,
    max_connections_per_address: usize,
}

#[derive(Debug, Serialize)]
struct ShownTls {
    cert: String,
    key: String,
}

#[derive(Debug, Serialize)]
struct ShownLimits {
    max_body: String,
    max_head: String,
    max_in_flight_per_agent: u32,
    max_sessions: usize,
    body_budget: String,
    refused_budget: String,
    header_timeout: String,
    body_idle_timeout: String,
    body_timeout: String,
    idle_timeout: String,
    upgrade_idle_timeout: String,
}

#[derive(Debug, Serialize)]
struct ShownStore {
    url: String,
    max_size: String,
    retention: String,
    pending_retention: String,
}

#[derive(Debug, Serialize)]
struct ShownEndpoint {
    name: String,
    mode: &'static str,
    deadline: String,
    idle_timeout: String,
    max_body: String,
    wait_for_agent: String,
    hosts: Vec<String>,
    allow: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<&'static str>,
    attach: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    upgrades: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(flatten)]
    keeping: Option<ShownKeeping>,
    verify: ShownVerify,
    /// The keys whose values come from the provider's row. Shown as comments; in JSON as a list.
    #[serde(skip)]
    preset: Vec<&'static str>,
}

/// What only an endpoint that keeps events has.
#[derive(Debug, Serialize)]
struct ShownKeeping {
    max_size: String,
    attempt_timeout: String,
    agent_grace: String,
    on_failure: &'static str,
    methods: Vec<String>,
    dedup: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_window: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_key: Option<String>,
    order: ShownOrder,
    resign: &'static str,
    ack: ShownAck,
    retry: ShownRetry,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownOrder {
    Word(&'static str),
    Key { key: String },
}

#[derive(Debug, Serialize)]
struct ShownAck {
    status: u16,
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownRetry {
    #[serde(flatten)]
    schedule: ShownSchedule,
    retry_on: Vec<ShownStatus>,
    give_up_on: Vec<ShownStatus>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownSchedule {
    List { schedule: Vec<String> },
    Growing { first: String, factor: u32, longest: String, attempts: u32 },
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownStatus {
    One(u16),
    Class(String),
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownVerify {
    Word(&'static str),
    Signed(Box<ShownSigned>),
}

#[derive(Debug, Serialize)]
struct ShownSigned {
    provider: String,
    secrets: Vec<String>,
    enforce: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tolerance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_url: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    named_keys: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify_token: Option<String>,
    allow_unsigned_challenge: bool,
    confirm: bool,
}

/// One token, as `token list` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct ShownToken {
    pub name: String,
    /// The beginnings of its hashes.
    pub sha256: Vec<String>,
    /// Where further ones are kept.
    pub secrets: Vec<String>,
    /// The patterns of the endpoints that it is for.
    pub endpoints: Vec<String>,
    /// What it may do there.
    pub rights: Vec<&'static str>,
    /// Sessions at a time of all agents that have it.
    pub max_sessions: usize,
}

impl Shown {
    /// In the format of `relay.toml`. Fails only if the serializer does.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let (mut out, mut endpoint) = (String::new(), None);
        for line in toml::to_string(self)?.lines() {
            if line == "[[endpoint]]" {
                endpoint = Some(endpoint.map_or(0, |index: usize| index + 1));
            }
            out.push_str(line);
            let preset = endpoint.and_then(|index| self.endpoint.get(index)).map_or(&[][..], |it| &it.preset);
            if preset.iter().any(|key| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" ="))) {
                out.push_str("  # from the provider's row");
            }
            out.push('\n');
        }
        Ok(out)
    }

    /// As JSON. Fails only if the serializer does.
    pub(crate) fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        let mut value = serde_json::to_value(self)?;
        for (index, endpoint) in self.endpoint.iter().enumerate() {
            value["endpoint"][index]["from_provider"] = serde_json::to_value(&endpoint.preset)?;
        }
        Ok(value)
    }

    /// One endpoint, as JSON.
    pub(crate) fn endpoint(&self, name: &str) -> Option<serde_json::Value> {
        let found = self.endpoint.iter().find(|endpoint| endpoint.name == name)?;
        let mut value = serde_json::to_value(found).ok()?;
        value["from_provider"] = serde_json::to_value(&found.preset).ok()?;
        Some(value)
    }

    /// The tokens alone.
    pub(crate) fn tokens(&self) -> &[ShownToken] {
        &self.token
    }

    pub(super) fn new(effective: &Effective) -> Self {
        let (server, limits) = (&effective.server, &effective.limits);
        Self {
            version: 1,
            server: ShownServer {
                listen: server.listen.to_string(),
                admin: server.admin.to_string(),
                admin_hosts: server.admin_hosts.iter().map(ToString::to_string).collect(),
                state_dir: server.state_dir.as_ref().map(|path| path.display().to_string()),
                public_url: server.public_url.as_ref().map(ToString::to_string),
                trusted_proxies: server.trusted_proxies.iter().map(ToString::to_string).collect(),
                drain_timeout: show_duration(server.drain_timeout),
                workers: server.workers.get(),
                max_connections: server.max_connections,
                max_connections_per_address: server.max_connections_per_address,
            },
            tls: effective
                .tls
                .as_ref()
                .map(|tls| ShownTls { cert: tls.cert.display().to_string(), key: tls.key.display().to_string() }),
            limits: ShownLimits {
                max_body: show_size(limits.max_body),
                max_head: show_size(limits.max_head as u64),
                max_in_flight_per_agent: limits.max_in_flight_per_agent,
                max_sessions: limits.max_sessions,
                body_budget: show_size(limits.body_budget),
                refused_budget: show_size(limits.refused_budget),
                header_timeout: show_duration(limits.header_timeout),
                body_idle_timeout: show_duration(limits.body_idle_timeout),
                body_timeout: show_duration(limits.body_timeout),
                idle_timeout: show_duration(limits.idle_timeout),
                upgrade_idle_timeout: show_duration(limits.upgrade_idle_timeout),
            },
            store: ShownStore {
                url: effective.store.kind.to_string(),
                max_size: show_size(effective.store.max_bytes),
                retention: show_duration(effective.store.retention),
                pending_retention: show_duration(effective.store.pending_retention),
            },
            endpoint: effective.endpoints.iter().map(endpoint).collect(),
            token: effective.tokens.iter().map(token).collect(),
        }
    }
}

fn endpoint(spec: &EndpointSpec) -> ShownEndpoint {
    ShownEndpoint {
        name: spec.name.to_string(),
        mode: match &spec.keeping {
            None => "live",
            Some(keeping) if keeping.assured => "assured",
            Some(_) => "durable",
        },
        deadline: show_duration(spec.deadline),
        idle_timeout: show_duration(spec.idle_timeout),
        max_body: show_size(spec.max_body),
        wait_for_agent: show_duration(spec.wait_for_agent),
        hosts: spec.hosts.iter().map(ToString::to_string).collect(),
        replay: spec.keeping.is_none().then(|| spec.replay.name()),
        keeping: spec.keeping.as_ref().map(keeping),
        allow: spec.allow.iter().map(ToString::to_string).collect(),
        attach: if spec.exclusive { "exclusive" } else { "shared" },
        upgrades: spec.upgrades.iter().map(ToString::to_string).collect(),
        rate: spec.rate.map(|rate| rate.to_string()),
        concurrency: spec.concurrency.map(NonZeroU32::get),
        preset: spec.preset.clone(),
        verify: match &spec.verify {
            VerifySpec::Open => ShownVerify::Word("none"),
            VerifySpec::Signed { provider, secrets, options } => {
                ShownVerify::Signed(Box::new(signed(&provider.name, secrets, options)))
            }
        },
    }
}

fn keeping(keeping: &Keeping) -> ShownKeeping {
    ShownKeeping {
        max_size: show_size(keeping.max_bytes),
        attempt_timeout: show_duration(keeping.attempt_timeout),
        agent_grace: show_duration(keeping.agent_grace),
        on_failure: if keeping.pass_failures { "pass" } else { "retry" },
        methods: keeping.methods.iter().map(ToString::to_string).collect(),
        dedup: match (&keeping.identity, keeping.dedup_window) {
            (_, None) => "off",
            (Identity::Body, _) => "body",
            (Identity::Provider | Identity::Located(_), _) => "on",
        },
        dedup_window: keeping.dedup_window.map(show_duration),
        dedup_key: match &keeping.identity {
            Identity::Located(row) => Some(row.title.clone()),
            Identity::Provider | Identity::Body => None,
        },
        order: match &keeping.order {
            Order::None => ShownOrder::Word("none"),
            Order::Fifo => ShownOrder::Word("fifo"),
            Order::ByKey(row) => ShownOrder::Key { key: row.title.clone() },
        },
        resign: match keeping.resign {
            Resign::Late => "late",
            Resign::Never => "never",
            Resign::Always => "always",
        },
        ack: ShownAck {
            status: keeping.ack.status.as_u16(),
            body: String::from_utf8_lossy(&keeping.ack.body).into_owned(),
            content_type: keeping.ack.content_type.as_ref().and_then(|line| line.to_str().ok()).map(str::to_owned),
        },
        retry: ShownRetry {
            schedule: match &keeping.schedule {
                Schedule::List(waits) => {
                    ShownSchedule::List { schedule: waits.iter().copied().map(show_duration).collect() }
                }
                Schedule::Exponential { first, factor, longest, attempts } => ShownSchedule::Growing {
                    first: show_duration(*first),
                    factor: *factor,
                    longest: show_duration(*longest),
                    attempts: *attempts,
                },
            },
            retry_on: statuses(&keeping.statuses.retry_on),
            give_up_on: statuses(&keeping.statuses.give_up_on),
        },
    }
}

fn statuses(statuses: &Statuses) -> Vec<ShownStatus> {
    let shown = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => ShownStatus::One(*first),
        (first, _) => ShownStatus::Class(format!("{}xx", first / 100)),
    };
    statuses.ranges().iter().map(shown).collect()
}

fn signed(provider: &str, secrets: &[(SecretRef, Place)], options: &VerifyOptions) -> ShownSigned {
    ShownSigned {
        provider: provider.to_owned(),
        secrets: references(secrets),
        enforce: options.enforce,
        tolerance: options.tolerance.map(show_duration),
        // A provider may sign for an address with a password in it, which is nobody's to see.
        public_url: options.public_url.as_deref().map(|url| without_password(url).into_owned()),
        settings: options.settings.clone(),
        jwks: options.jwks.as_ref().map(|keys| match keys {
            KeySet::Kept(reference, _) => reference.to_string(),
            KeySet::Url(url) => url.clone(),
        }),
        named_keys: options.named_keys.iter().map(|(name, (at, _))| (name.clone(), at.to_string())).collect(),
        verify_token: options.verify_token.as_ref().map(|(reference, _)| reference.to_string()),
        allow_unsigned_challenge: options.allow_unsigned_challenge,
        confirm: options.confirm,
    }
}

fn token(spec: &TokenSpec) -> ShownToken {
    ShownToken {
        name: spec.name.clone(),
        sha256: spec.hashes.iter().map(|hash| hash.shortened()).collect(),
        secrets: references(&spec.secrets),
        endpoints: spec.endpoints.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        rights: spec.rights.iter().map(|right| right.name()).collect(),
        max_sessions: spec.max_sessions,
    }
}

fn references<P>(secrets: &[(SecretRef, P)]) -> Vec<String> {
    secrets.iter().map(|(reference, _)| reference.to_string()).collect()
}
