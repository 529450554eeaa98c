//! `token create|list`: the agents' tokens, kept as hashes in the config file.

use std::{io::Write, path::PathBuf};

use anyhow::Context;
use clap::Subcommand;

use super::{Failure, find};
use crate::{
    agents::token::AgentToken,
    config::{Flags, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    },
}

#[expect(clippy::print_stdout, reason = "results go to standard output")]
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { name, endpoints, config } => {
            let token = create(&name, &endpoints, find(config)?)?;
            println!("{}", token.expose());
        }
        Command::List { config } => {
            let config = Source { path: Some(find(config)?), flags: Flags::default() }.load()?;
            for token in config.tokens.iter() {
                let endpoints: Vec<_> = token.endpoints.iter().map(|pattern| pattern.as_str()).collect();
                println!("{}\t{}", token.name, endpoints.join(","));
            }
        }
    }
    Ok(())
}

fn create(name: &str, endpoints: &[String], path: PathBuf) -> Result<AgentToken, Failure> {
    let token = AgentToken::generate().map_err(|error| Failure::Other(anyhow::anyhow!("no randomness: {error}")))?;
    let mut text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if !text.ends_with('\n') && !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!(
        "\n[[token]]\nname = {name:?}\nsha256 = [\"{}\"]\nendpoints = {endpoints:?}\n",
        token.hash().to_hex()
    ));
    let source = Source { path: Some(path.clone()), flags: Flags::default() };
    source.load_text(&text)?;
    replace(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(token)
}

/// Writes a file anew as a whole, so that nobody ever reads half of it.
fn replace(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = std::fs::File::create(&new)?;
    if let Ok(old) = std::fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}
