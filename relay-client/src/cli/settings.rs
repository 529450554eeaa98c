//! What `listen`, `start` and `doctor` have in common: flags laid over the environment, the file and the login.
//!
//! A flag goes before the environment, that before the file, that before what `login` stored. The login's token
//! goes to the login's relay only.

use std::{io::Read, path::PathBuf};

use relay_program::{Failure, tls::Identity};

use super::{
    args::{ConnectionArgs, ReachArgs},
    consent,
};
use crate::config::{
    Config, EndpointConfig, OnRefused, RelayUrl, TokenSource, Way,
    check::{self, ConfigFile},
    find::{Origin, Places},
    host_name,
    login::Login,
};

/// How the relay is reached, and where the token for it lies.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) way: Way,
    /// Apart, since much can be said of a way without one.
    pub(super) token: Result<TokenSource, Failure>,
}

pub(super) fn read_file(args: &ReachArgs, places: &Places) -> Result<Option<ConfigFile>, Failure> {
    let found = places.find(args.config.as_deref());
    Ok(found.map(|found| ConfigFile::read(&found, places.home.as_deref())).transpose()?)
}

/// The way to the relay. Reads `stdin` only for `--token-file -`. A file that was not agreed to decides nothing of it.
pub(super) fn reach(
    args: &ReachArgs,
    file: Option<&ConfigFile>,
    places: &Places,
    stdin: impl Read,
) -> Result<Reach, Failure> {
    if let Some(file) = file {
        consent::require(args, file, places)?;
    }
    let login = match places.login() {
        Some(path) => {
            let broken = |reason| Failure::Usage(format!("{}: {reason}", path.display()));
            Login::read(&path).map_err(broken)?.map(|login| (path, login))
        }
        None => None,
    };
    let typed = args.relay.as_ref().map(|typed| typed.parse().map_err(|error| usage("--relay", &error))).transpose()?;
    let relay: RelayUrl = typed
        .or_else(|| file?.relay.clone())
        .or_else(|| login.as_ref().map(|(_, login)| login.relay.clone()))
        .ok_or_else(|| missing("no relay: name it with --relay https://HOST"))?;
    let login = login.filter(|(_, login)| login.relay == relay);
    let relay_ca = args.relay_ca.as_ref().map(|path| places.current.join(path));
    let relay_ca = relay_ca
        .or_else(|| file?.relay_ca.clone())
        .or_else(|| login.as_ref().and_then(|(_, login)| login.relay_ca.clone()));
    let file_of = |path: &Option<PathBuf>| path.as_ref().map(|path| places.current.join(path));
    let cert = file_of(&args.client_cert).or_else(|| file?.client_cert.clone());
    let key = file_of(&args.client_key).or_else(|| file?.client_key.clone());
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(Identity { cert, key }),
        (None, None) => None,
        (Some(_), None) => return Err(missing("no key for the client certificate: name it with --client-key FILE")),
        (None, Some(_)) => return Err(missing("no certificate for the client key: name it with --client-cert FILE")),
    };
    let proxy = args.proxy.as_ref().map(|typed| typed.parse().map_err(|error| usage("--proxy", &error))).transpose()?;
    let proxy = proxy.or_else(|| file?.proxy.clone()).unwrap_or_default();
    let token = match &args.token_file {
        Some(path) if path.as_os_str() == "-" => {
            TokenSource::from_reader(stdin).map(Some).map_err(|error| usage("--token-file", &error))
        }
        Some(path) => Ok(Some(TokenSource::File(places.current.join(path)))),
        None if places.has_token => Ok(Some(TokenSource::Env("RELAY_TOKEN".to_owned()))),
        None => Ok(file.and_then(|file| file.token.clone())),
    };
    let token = token.and_then(|token| {
        let stored = || login.map(|(path, _)| TokenSource::Login { path, relay: relay.clone() });
        let none = || missing("no token: run relay-client login, name its file with --token-file");
        token.or_else(stored).ok_or_else(none)
    });
    Ok(Reach { way: Way { relay, relay_ca, identity, proxy }, token })
}

pub(super) fn config(
    args: &ConnectionArgs,
    file: Option<&ConfigFile>,
    places: &Places,
    stdin: impl Read,
    endpoints: Vec<EndpointConfig>,
    on_refused: OnRefused,
) -> Result<Config, Failure> {
    let Reach { way, token } = reach(&args.reach, file, places, stdin)?;
    let name = name(args.name.as_ref(), file)?;
    let token = token?;
    // A wrong path should show now, not after the first connect.
    token.read().map_err(|error| Failure::Usage(error.to_string()))?;
    let mut files: Vec<_> = file.map(|file| file.path.clone()).into_iter().collect();
    files.extend(token.file().map(ToOwned::to_owned));
    if file.is_some_and(|file| file.origin == Origin::CurrentFolder) {
        // Whoever changes the file and agrees to it then need not change it again.
        files.extend(places.agreements().filter(|path| path.is_file()));
    }
    let instance = uuid::Uuid::now_v7();
    Ok(Config { way, token, name, instance, endpoints, since: None, on_refused, files })
}

/// The agent's name: what was typed, what the file says, or the host's.
pub(super) fn name(typed: Option<&String>, file: Option<&ConfigFile>) -> Result<String, Failure> {
    let typed = typed.map(|typed| check::agent_name(typed).map_err(|error| usage("--name", &error))).transpose()?;
    Ok(typed.or_else(|| file?.name.clone()).unwrap_or_else(host_name))
}

fn missing(what: &str) -> Failure {
    Failure::Usage(format!("{what}, set it in the environment, or write it in relay-client.toml"))
}

pub(super) fn usage(what: &str, error: &impl ToString) -> Failure {
    Failure::Usage(format!("{what}: {}", error.to_string()))
}
