//! `listen`: flags, environment and file become a configuration with one endpoint.
//!
//! Only the relay, the way there, the token and the agent's name are taken from the file; the handler is always
//! named here.

use std::io::Read;

use jiff::Timestamp;
use relay_program::Failure;
use relay_proto::Attach;

use super::{
    args::{AttachArg, BacklogArg, ListenArgs},
    settings::{self, usage},
};
use crate::{
    config::{Config, EndpointConfig, HandlerConfig, OnRefused, check, find::Places},
    handler::TargetConfig,
    target::Target,
    tls::Trust,
};

/// The configuration that `listen` runs with. Reads `stdin` only for `--token-file -`.
pub(super) fn config(args: &ListenArgs, places: &Places, stdin: impl Read) -> Result<Config, Failure> {
    let endpoint = endpoint(args)?;
    let file = settings::read_file(&args.connection.reach, places)?;
    let since = args.since.as_ref().map(|typed| check::moment(typed, Timestamp::now()));
    let since = since.transpose().map_err(|error| usage("--since", &error))?;
    let config = settings::config(&args.connection, file.as_ref(), places, stdin, vec![endpoint], OnRefused::Exit)?;
    Ok(Config { since, ..config })
}

/// How to attach: a laptop beside production gets copies unless it asks for more.
fn attach(args: &ListenArgs) -> Result<Attach, Failure> {
    match (args.attach, args.takeover) {
        (Some(AttachArg::Exclusive) | None, true) | (Some(AttachArg::Exclusive), false) => Ok(Attach::Exclusive),
        (Some(_), true) => Err(Failure::Usage("--takeover: it is for --attach exclusive alone".to_owned())),
        (Some(AttachArg::Shared), false) => Ok(Attach::Shared),
        (Some(AttachArg::Copy), false) => Ok(Attach::Copy),
        (None, false) => Ok(Attach::Auto),
    }
}

/// The endpoint's name, as it was typed.
pub(super) fn named(args: &ListenArgs) -> Option<&String> {
    let before = usize::from(args.forward_to.is_none());
    args.positional.get(before)
}

fn endpoint(args: &ListenArgs) -> Result<EndpointConfig, Failure> {
    let (target, name) = match (args.forward_to.as_deref(), args.positional.as_slice()) {
        (Some(target), []) => (target, None),
        (Some(target), [name]) => (target, Some(name)),
        (Some(_), _) => return Err(Failure::Usage("the target is named twice; keep it or --forward-to".to_owned())),
        (None, [target]) => (target.as_str(), None),
        (None, [target, name, ..]) => (target.as_str(), Some(name)),
        (None, []) => {
            let text = "no target: name a port, a URL or unix:PATH, such as relay-client listen 3000 github";
            return Err(Failure::Usage(text.to_owned()));
        }
    };
    let mut target: Target = target.parse().map_err(|error| usage("target", &error))?;
    if let Some(path) = &args.path {
        target = target.with_path(path).map_err(|error| usage("--path", &error))?;
    }
    let mut config = TargetConfig::new(target);
    if let Some(limit) = args.max_connections {
        config.max_connections = check::max_connections(limit).ok_or_else(|| {
            let range = format!("{limit} is out of range; allow 1 to {}", check::MAX_MAX_CONNECTIONS);
            usage("--max-connections", &range)
        })?;
    }
    if let Some(limit) = args.timeout {
        config.timeouts.head = limit;
    }
    config.trust = match (&args.ca_file, args.insecure) {
        (_, true) => Trust::DangerousAnything,
        (Some(file), false) => Trust::PlatformAnd(file.clone()),
        (None, false) => Trust::Platform,
    };
    let name = name.map(|name| check::endpoint_name(name)).transpose().map_err(|error| usage("endpoint", &error))?;
    let headers = args.headers.iter().map(|typed| header(typed)).collect::<Result<_, _>>()?;
    let handler = HandlerConfig { target: config, headers, preserve_host: args.preserve_host };
    let events = check::event_patterns(&args.events).map_err(|error| usage("--events", &error))?;
    let (attach, skip_backlog) = (attach(args)?, args.backlog == BacklogArg::Skip);
    if skip_backlog && attach == Attach::Copy {
        let text = "--backlog skip: an agent that gets copies gets nothing of what waits; leave it out";
        return Err(Failure::Usage(text.to_owned()));
    }
    let (endpoint, upgrades) = (EndpointConfig::new(name, handler), args.upgrades.clone());
    Ok(EndpointConfig { attach, takeover: args.takeover, events, skip_backlog, upgrades, ..endpoint })
}

fn header(typed: &str) -> Result<(http::HeaderName, http::HeaderValue), Failure> {
    // The text may be a credential, so it is not quoted.
    let (name, value) = typed
        .split_once(':')
        .ok_or_else(|| Failure::Usage("--header: write it as 'NAME: VALUE', with a colon".to_owned()))?;
    check::header(name.trim(), value.trim()).map_err(|error| usage("--header", &error))
}
