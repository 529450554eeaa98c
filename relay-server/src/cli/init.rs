//! `init`: writes a config and its secret files, and says what to paste where.
//!
//! It overwrites nothing unless told to. Secrets are made in the provider's own form; one that only
//! the provider can make is left to be pasted.

use std::{fs, io::Write, path::Path, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use data_encoding::{BASE64, HEXLOWER};
use relay_program::{Failure, terminal};

use crate::{agents::token::AgentToken, config::PublicUrl, endpoint::EndpointName};

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The address under which the relay is reached from outside
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// An endpoint and its provider, or `none` for an open one
    #[arg(long, value_name = "NAME=PROVIDER", required = true)]
    endpoint: Vec<String>,
    /// Where the files go
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Init) -> Result<(), Failure> {
    let url = PublicUrl::parse(&arguments.public_url).map_err(|why| Failure::Usage(format!("--public-url: {why}")))?;
    let url = url.as_str();
    let token = AgentToken::generate().map_err(|error| anyhow!("no randomness: {error}"))?;
    let mut config = format!(
        "version = 1\n\n[server]\nlisten = \"0.0.0.0:8080\"   # public: senders and agents\n\
         admin = \"127.0.0.1:9090\"  # /livez and /readyz\npublic_url = \"{url}\"\n"
    );
    let mut files = Vec::new();
    let mut say = String::new();
    let mut first = None;
    for text in &arguments.endpoint {
        let (name, provider) = text
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("--endpoint {text}: write it as NAME=PROVIDER")))?;
        EndpointName::parse(name).map_err(|error| Failure::Usage(format!("--endpoint {text}: {error}")))?;
        let row = relay_schemes::provider(provider).ok_or_else(|| {
            let known: Vec<_> = relay_schemes::providers().iter().map(|row| row.name.as_str()).collect();
            Failure::Usage(format!(
                "--endpoint {text}: there is no provider \"{provider}\"; there are {}",
                known.join(", ")
            ))
        })?;
        let name = if row.scheme.is_none() { unguessable(name)? } else { name.to_owned() };
        first.get_or_insert_with(|| name.clone());
        config.push_str(&format!("\n[[endpoint]]\nname = \"{name}\"\n"));
        say.push_str(&format!("\n{}: webhook URL  {url}/{name}\n", row.title));
        if row.scheme.is_none() {
            config.push_str("verify = \"none\"              # anyone who knows the address may post\n");
            continue;
        }
        let file = format!("{name}.secret");
        config.push_str(&format!("verify = {{ provider = \"{provider}\", secrets = [\"file:{file}\"] }}\n"));
        match secret(provider)? {
            Some(secret) => {
                say.push_str(&format!("  paste as its secret what is in {}\n", arguments.dir.join(&file).display()));
                files.push((file, secret));
            }
            None => {
                let path = arguments.dir.join(&file);
                say.push_str(&format!("  write the secret that it shows you into {} (mode 0600)\n", path.display()));
            }
        }
    }
    config.push_str(&format!(
        "\n[[token]]\nname = \"agent\"\nsha256 = [\"{}\"]\nendpoints = [\"*\"]\n",
        token.hash().to_hex()
    ));
    files.push(("agent.token".to_owned(), token.expose().to_owned()));
    files.push(("relay.toml".to_owned(), config));
    if let Some((there, _)) = files.iter().find(|(name, _)| !arguments.force && arguments.dir.join(name).exists()) {
        return Err(Failure::from(anyhow!(
            "{} is there already; use --force to overwrite it, or --dir for another place",
            arguments.dir.join(there).display()
        )));
    }
    fs::create_dir_all(&arguments.dir).with_context(|| format!("cannot make {}", arguments.dir.display()))?;
    for (name, text) in &files {
        write(&arguments.dir.join(name), text)?;
    }
    let dir = arguments.dir.display();
    let endpoint = first.unwrap_or_default();
    terminal::print(&format!(
        "wrote {dir}/relay.toml and {} files of mode 0600 beside it\n{say}\n\
         run the relay  relay-server serve --config {dir}/relay.toml\n\
         run the agent  relay-client listen 3000 {endpoint} --relay {url} --token-file {dir}/agent.token\n",
        files.len() - 1
    ))
}

/// A new secret in the provider's form; `None` if only the provider can make it.
fn secret(provider: &str) -> anyhow::Result<Option<String>> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(match provider {
        "stripe" => None,
        "standard-webhooks" => Some(format!("whsec_{}", BASE64.encode(&bytes))),
        _ => Some(HEXLOWER.encode(&bytes)),
    })
}

/// A name that is all that keeps strangers out.
fn unguessable(name: &str) -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(format!("{name}-{}", HEXLOWER.encode(&bytes)))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if path.is_symlink() {
        bail!("{} is a link; remove it first", path.display());
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
