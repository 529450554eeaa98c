//! `token create|list|rotate|revoke`: the agents' tokens, as digests in the config file, or with `--running` in a running
//! relay's store.

use clap::Subcommand;
use relay_program::{
    Failure,
    api::{TokenLimits, TokenMade, TokenRow},
    config::show_size,
    http1::encoded,
    terminal,
};
use serde::Deserialize;
use serde_json::json;

use super::{new_token, remote::Remote};
use crate::config::{ConfigSource, add_token, remove_token};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is printed once, and only its digest is kept
    Create {
        /// A name for logs and lists
        name: String,
        /// The endpoints that it is for; `*` stands for any run of characters
        #[arg(long, value_delimiter = ',', default_value = "*")]
        endpoints: Vec<String>,
        /// What it may do there: attach, read, replay, sign, skip, act, create, admin [default: attach,read]
        #[arg(long, value_delimiter = ',')]
        rights: Vec<String>,
        #[command(flatten)]
        limits: LimitArgs,
        /// In a running relay's store, good at once, instead of in the config file
        #[arg(long)]
        running: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// List the tokens
    List {
        /// Those of a running relay, from its file and its store, with their last use
        #[arg(long)]
        running: bool,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Give a token of a running relay's store a new secret, which is printed once
    Rotate {
        /// The token's name
        name: String,
        /// How long the secret of before stays good, such as 24h
        #[arg(long, value_name = "D", default_value = "0s")]
        grace: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Take a token out of the config; a running relay closes its sessions at the next reload
    Revoke {
        /// The token's name
        name: String,
        /// Out of a running relay's store; its sessions are closed at once
        #[arg(long)]
        running: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

/// What a token's agents and its own endpoints may take; what is left out has its default.
#[derive(Debug, clap::Args)]
pub(super) struct LimitArgs {
    /// Sessions of its agents at a time [default: 1024]
    #[arg(long, value_name = "N")]
    max_sessions: Option<u64>,
    /// Endpoints of its own at a time [default: 100]
    #[arg(long, value_name = "N")]
    max_endpoints: Option<u64>,
    /// What these may take of the store together, such as 1GiB
    #[arg(long, value_name = "SIZE")]
    max_stored: Option<String>,
    /// Webhooks that these may have together in a day
    #[arg(long, value_name = "N")]
    max_events_per_day: Option<u64>,
}

impl From<LimitArgs> for TokenLimits {
    fn from(args: LimitArgs) -> Self {
        let LimitArgs { max_sessions, max_endpoints, max_stored, max_events_per_day } = args;
        Self { max_sessions, max_endpoints, max_stored, max_events_per_day }
    }
}

pub(super) fn run(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { name, endpoints, rights, limits, running: true, remote } => {
            let mut asked = json!({ "name": name, "endpoints": endpoints, "limits": TokenLimits::from(limits) });
            if !rights.is_empty() {
                asked["rights"] = rights.into();
            }
            let made = remote.send(&http::Method::POST, "/api/v1/tokens", asked.to_string().as_bytes())?;
            terminal::line(&TokenMade::deserialize(&made)?.secret)?;
        }
        TokenCommand::Create { name, endpoints, rights, limits, running: false, remote } => {
            let token = new_token()?;
            let file = ConfigSource::at(remote.config()).find()?;
            add_token(&file, &name, token.hash(), &endpoints, &rights, &limits.into())?;
            terminal::line(token.expose())?;
        }
        TokenCommand::List { running, json, remote } => {
            let (tokens, key) = if running {
                (remote.get("/api/v1/tokens")?, "tokens")
            } else {
                (ConfigSource::at(remote.config()).show()?.to_json(), "token")
            };
            for token in tokens[key].as_array().into_iter().flatten() {
                if running {
                    terminal::answer(token, json, words)?;
                } else {
                    terminal::answer(token, json, ConfiguredToken::words)?;
                }
            }
        }
        TokenCommand::Rotate { name, grace, remote } => {
            let path = format!("/api/v1/tokens/{}/rotate?grace={}", encoded(&name), encoded(&grace));
            let made = remote.post(&path)?;
            terminal::line(&TokenMade::deserialize(&made)?.secret)?;
        }
        TokenCommand::Revoke { name, running: true, remote } => {
            remote.send(&http::Method::DELETE, &format!("/api/v1/tokens/{}", encoded(&name)), &[])?;
        }
        TokenCommand::Revoke { name, running: false, remote } => {
            let source = ConfigSource::at(remote.config());
            if source.show()?.row("token", &name).is_none() {
                return Err(Failure::NotFound(format!(
                    "there is no token \"{name}\"; `relay-server token list` names them"
                )));
            }
            remove_token(&source.find()?, &name)?;
        }
    }
    Ok(())
}

/// What a list shows of a token in a file.
#[derive(Default, Deserialize)]
struct ConfiguredToken {
    name: String,
    endpoints: Vec<String>,
}

impl ConfiguredToken {
    fn words(&self) -> String {
        format!("{}\t{}", self.name, self.endpoints.join(","))
    }
}

fn words(token: &TokenRow) -> String {
    let row = format!("{}\t{}", token.name, token.endpoints.join(","));
    let used = token.last_used.as_deref().unwrap_or("never");
    let grace = token.grace_until.as_ref().map(|until| format!("\tolder secrets until {until}")).unwrap_or_default();
    let of = |most: Option<String>| most.map(|most| format!(" of {most}")).unwrap_or_default();
    let own = format!(
        "sessions {}{}\tendpoints {}{}\tstored {}{}\twebhooks today {}{}",
        token.sessions,
        of(Some(token.max_sessions.to_string())),
        token.own_endpoints,
        of(Some(token.max_endpoints.to_string())),
        show_size(token.stored),
        of(token.max_stored.map(show_size)),
        token.events_today,
        of(token.max_events_per_day.map(|most| most.to_string())),
    );
    format!("{row}\t{}\t{}\tused {used}{grace}\t{own}", token.rights.join(","), token.source)
}
