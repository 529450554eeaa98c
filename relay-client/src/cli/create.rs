//! `listen --create`: has the relay make the endpoint where it is not there, and says what to paste where.
//!
//! Done once, before the agent attaches. An endpoint that is there is used if it is this token's own, and stays as it is;
//! another's is refused. Secrets come from a file or standard input and go to the relay alone; one that the relay makes is
//! told this once.

use std::io::Read;

use relay_program::{Failure, api::Setup, http1::encoded, terminal};
use relay_proto::printable::escaped;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{args::ListenArgs, event, listen, send, settings::usage};
use crate::{
    config::{Config, check},
    link::api::Api,
};

/// An endpoint that is to be there.
pub(super) struct NewEndpoint {
    name: String,
    /// `none`: whoever knows the address may post.
    provider: String,
    secret: Option<Zeroizing<String>>,
}

/// What the relay says of one that it made, or that was there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Made {
    name: String,
    mode: String,
    provider: String,
    url: String,
    warnings: Vec<String>,
    secret: Option<String>,
}

/// Reads `stdin` only for `--secret-file -`.
pub(super) fn wanted(args: &ListenArgs, stdin: impl Read) -> Result<Option<NewEndpoint>, Failure> {
    if !args.create {
        return Ok(None);
    }
    let missing = |what: &str| Failure::Usage(format!("--create: {what}"));
    let name = listen::named(args).ok_or_else(|| missing("name the endpoint, such as listen 3000 alice-stripe"))?;
    let name = check::endpoint_name(name).map_err(|error| usage("endpoint", &error))?;
    let provider = args.provider.clone();
    let provider = provider.ok_or_else(|| missing("say whose webhooks it takes: --provider stripe, or none"))?;
    let both = args.secret_file.as_deref().is_some_and(|file| file.as_os_str() == "-")
        && args.connection.reach.token_file.as_deref().is_some_and(|file| file.as_os_str() == "-");
    if both {
        return Err(Failure::Usage("--secret-file -: standard input is the token's already".to_owned()));
    }
    let secret = args.secret_file.as_deref().map(|file| send::secret(file, stdin)).transpose()?;
    let secret = secret.map(|bytes| {
        let text = String::from_utf8(bytes).map_err(|_| usage("--secret-file", &"this secret is no text"))?;
        Ok::<_, Failure>(Zeroizing::new(text))
    });
    Ok(Some(NewEndpoint { name, provider, secret: secret.transpose()? }))
}

/// Has it made, or finds it there.
pub(super) async fn make(config: &Config, new: &NewEndpoint) -> Result<(), Failure> {
    let token = config.token.read().map_err(|error| Failure::Usage(error.to_string()))?;
    let mut api = Api::new(&config.way, token);
    let is_open = new.provider == "none";
    let verify = if is_open { json!("none") } else { json!({ "provider": new.provider }) };
    let secrets: Vec<&str> = new.secret.iter().map(|secret| secret.as_str()).collect();
    let generates = secrets.is_empty() && !is_open;
    let asked = json!({
        "endpoint": { "name": new.name, "verify": verify },
        "secrets": secrets,
        "generate_secret": generates,
        "use_own": true,
    });
    let (is_new, made) = api.make_endpoint(asked.to_string()).await.map_err(|error| {
        let failure = event::failure(&error);
        match error.refusal() {
            Some((_, Some("exists"))) => Failure::Refused(format!(
                "the relay has an endpoint {} that is not this token's own; choose another name, or leave --create out \
                 if this token may attach to it",
                new.name
            )),
            Some((status, _)) if status.as_u16() == 409 => Failure::Refused(error.to_string()),
            _ => failure,
        }
    })?;
    let made = Made::deserialize(&made)?;
    let name = escaped(&made.name);
    let mut lines = vec![match is_new {
        true => format!("created {name} ({}, {})", escaped(&made.mode), escaped(&made.provider)),
        false => format!("{name} is there already, and is this token's own; it stays as it is"),
    }];
    lines.push(format!("webhook URL  {}", escaped(&made.url)));
    if is_new {
        // A token that may not read there is told the address alone.
        let setup = api.get(&format!("endpoints/{}/setup", encoded(&made.name))).await;
        let setup = setup.ok().and_then(|body| serde_json::from_slice::<Setup>(&body).ok()).unwrap_or_default();
        lines.extend(setup.how.map(|how| format!("at {}: {}", escaped(&made.provider), escaped(&how))));
        lines.extend(made.secret.map(|secret| format!("secret       {} (shown this once)", escaped(&secret))));
    } else if made.provider != new.provider {
        lines.push(format!("warning: its provider is {}, and not {}", escaped(&made.provider), new.provider));
    }
    lines.extend(made.warnings.iter().map(|warning| format!("warning: {}", escaped(warning))));
    lines.iter().for_each(|line| terminal::note(line));
    Ok(())
}
