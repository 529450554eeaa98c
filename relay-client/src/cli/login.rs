//! `login`: tries a token at a relay, and stores both where `listen` and `start` find them.
//!
//! The token is asked for without echo, or read from standard input or a file; it is never an argument. Nothing
//! is stored unless the relay accepts it.

use std::io::{IsTerminal as _, Read};

use relay_program::Failure;

use super::{args::LoginArgs, run, settings::usage};
use crate::{
    config::{Proxy, RelayUrl, Token, TokenSource, Way, find::Places, login::Login},
    link, tls,
};

pub(super) fn run(args: &LoginArgs, places: &Places, stdin: impl Read) -> Result<String, Failure> {
    let relay: RelayUrl = args.relay.parse().map_err(|error| usage("URL", &error))?;
    let proxy = args.proxy.as_ref().map(|typed| typed.parse().map_err(|error| usage("--proxy", &error))).transpose()?;
    let relay_ca = args.relay_ca.as_ref().map(|path| places.current.join(path));
    if let Some(path) = &relay_ca {
        let trust = tls::Trust::PlatformAnd(path.clone());
        tls::client_config(&trust).map_err(|error| usage("--relay-ca", &error))?;
    }
    let path = places
        .login()
        .ok_or_else(|| Failure::Failed("this user has no config directory; set HOME, or XDG_CONFIG_HOME".to_owned()))?;
    let token = token(args, places, stdin, &relay)?;
    let way = Way { relay, relay_ca, identity: None, proxy: proxy.unwrap_or(Proxy::Environment) };
    let runtime = run::runtime()?;
    let tried = runtime.block_on(link::connect(&way, &token));
    runtime.shutdown_background();
    match tried {
        Ok(_) => {}
        Err(error) if error.is_token_refusal() => {
            return Err(Failure::Refused(format!("{} does not accept this token; nothing was stored", way.relay)));
        }
        Err(error) => return Err(Failure::Unreachable(format!("{}: {error}; nothing was stored", way.relay))),
    }
    let login = Login { relay: way.relay, relay_ca: way.relay_ca, token };
    login
        .write(&path)
        .map_err(|error| Failure::Failed(format!("{}: {}", path.display(), relay_program::reason::of_io(&error))))?;
    Ok(format!("logged in to {}; stored in {}\n", login.relay, path.display()))
}

fn token(args: &LoginArgs, places: &Places, stdin: impl Read, relay: &RelayUrl) -> Result<Token, Failure> {
    let source = match &args.token_file {
        Some(path) if path.as_os_str() != "-" => TokenSource::File(places.current.join(path)),
        None if std::io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password(format!("Token for {relay}: "))
                .map_err(|error| Failure::Failed(format!("no token could be asked for: {error}")))?;
            TokenSource::from_reader(zeroize::Zeroizing::new(typed).as_bytes())
                .map_err(|error| Failure::Usage(error.to_string()))?
        }
        _ => TokenSource::from_reader(stdin).map_err(|error| Failure::Usage(error.to_string()))?,
    };
    source.read().map_err(|error| Failure::Usage(error.to_string()))
}
