//! `token create|list|revoke`: the agents' tokens, kept as hashes in the config file.

use std::path::PathBuf;

use clap::Subcommand;
use relay_program::{Failure, terminal};
use serde::Deserialize;

use super::new_token;
use crate::config::{ConfigSource, add_token, remove_token};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is printed once, and the config keeps its hash
    Create {
        /// A name for logs and lists
        name: String,
        /// The endpoints that it may attach to; `*` stands for any run of characters
        #[arg(long, value_delimiter = ',', default_value = "*")]
        endpoints: Vec<String>,
        /// The config file
        #[arg(long, env = "RELAY_CONFIG")]
        config: Option<PathBuf>,
    },
    /// List the tokens
    List {
        /// The config file
        #[arg(long, env = "RELAY_CONFIG")]
        config: Option<PathBuf>,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Take a token out of the config; a running relay closes its sessions at the next reload
    Revoke {
        /// The token's name
        name: String,
        /// The config file
        #[arg(long, env = "RELAY_CONFIG")]
        config: Option<PathBuf>,
    },
}

/// What lists say of a token.
#[derive(Default, Deserialize)]
struct TokenRow {
    name: String,
    endpoints: Vec<String>,
}

pub(super) fn run(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { name, endpoints, config } => {
            let token = new_token()?;
            add_token(&ConfigSource::at(config).find()?, &name, token.hash(), &endpoints)?;
            terminal::line(token.expose())?;
        }
        TokenCommand::List { config, json } => {
            let tokens = ConfigSource::at(config).show()?.to_json();
            let words = |token: &TokenRow| format!("{}\t{}", token.name, token.endpoints.join(","));
            for token in tokens["token"].as_array().into_iter().flatten() {
                terminal::answer(token, json, words)?;
            }
        }
        TokenCommand::Revoke { name, config } => {
            let source = ConfigSource::at(config);
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
