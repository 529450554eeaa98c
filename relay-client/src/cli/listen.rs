//! `listen`: flags, environment and file become a configuration with one endpoint.
//!
//! A flag goes before the environment, that before the file, that before a default. Only the relay, the token and
//! the agent's name are taken from the file; the handler is always named here.

use std::io::Read;

use super::{
    Failure,
    args::{ConnectionArgs, ListenArgs},
};
use crate::{
    config::{
        Config, EndpointConfig, OnRefused, TokenSource,
        check::{self, ConfigFile},
        find::Places,
        host_name,
    },
    handler::TargetConfig,
    target::Target,
    tls::Trust,
};

/// The configuration that `listen` runs with. Reads `stdin` only for `--token-file -`.
pub(super) fn config(args: &ListenArgs, places: &Places, stdin: impl Read) -> Result<Config, Failure> {
    let endpoint = endpoint(args)?;
    let file = read_file(&args.connection, places)?;
    connection(&args.connection, file, places, stdin, vec![endpoint], OnRefused::Exit)
}

/// The config file, if there is one.
pub(super) fn read_file(args: &ConnectionArgs, places: &Places) -> Result<Option<ConfigFile>, Failure> {
    let path = places.find(args.config.as_deref());
    Ok(path.map(|path| ConfigFile::read(&path, places.home.as_deref())).transpose()?)
}

/// What `listen` and `start` have in common: flags laid over the file.
pub(super) fn connection(
    args: &ConnectionArgs,
    file: Option<ConfigFile>,
    places: &Places,
    stdin: impl Read,
    endpoints: Vec<EndpointConfig>,
    on_refused: OnRefused,
) -> Result<Config, Failure> {
    let (mut relay, mut relay_ca, mut token, mut name) = (None, None, None, None);
    if let Some(file) = file {
        (relay, relay_ca, token, name) = (file.relay, file.relay_ca, file.token, file.name);
    }
    if let Some(typed) = &args.relay {
        relay = Some(typed.parse().map_err(|error| usage("--relay", &error))?);
    }
    if let Some(typed) = &args.name {
        name = Some(check::agent_name(typed).map_err(|error| usage("--name", &error))?);
    }
    if let Some(path) = &args.relay_ca {
        relay_ca = Some(places.current.join(path));
    }
    if let Some(path) = &args.token_file {
        token = Some(if path.as_os_str() == "-" {
            TokenSource::from_reader(stdin).map_err(|error| usage("--token-file", &error))?
        } else {
            TokenSource::File(places.current.join(path))
        });
    } else if places.has_token {
        token = Some(TokenSource::Env("RELAY_TOKEN".to_owned()));
    }
    let missing = |what| Failure::Usage(format!("{what}, set it in the environment, or write it in relay-client.toml"));
    let token = token.ok_or_else(|| missing("no token: name its file with --token-file"))?;
    // A wrong path should show now, not after the first connect.
    token.read().map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Config {
        relay: relay.ok_or_else(|| missing("no relay: name it with --relay https://HOST"))?,
        relay_ca,
        token,
        name: name.unwrap_or_else(host_name),
        instance: uuid::Uuid::now_v7(),
        endpoints,
        on_refused,
    })
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
    Ok(EndpointConfig { name, target: config, headers, preserve_host: args.preserve_host })
}

fn header(typed: &str) -> Result<(http::HeaderName, http::HeaderValue), Failure> {
    // The text may be a credential, so it is not quoted.
    let (name, value) = typed
        .split_once(':')
        .ok_or_else(|| Failure::Usage("--header: write it as 'NAME: VALUE', with a colon".to_owned()))?;
    check::header(name.trim(), value.trim()).map_err(|error| usage("--header", &error))
}

fn usage(what: &str, error: &impl ToString) -> Failure {
    Failure::Usage(format!("{what}: {}", error.to_string()))
}
