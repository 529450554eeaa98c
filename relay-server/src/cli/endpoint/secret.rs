//! Secrets that the command line reads or makes for an endpoint. A provider that is missing in the lists here makes its own.

use std::io::Read as _;

use anyhow::Context;
use data_encoding::{BASE64, HEXLOWER};
use relay_program::Failure;
use relay_schemes::Invisible;
use zeroize::Zeroizing;

use crate::{
    cli::no_randomness,
    config::{MAX_SECRET_BYTES, read_secret},
};

/// Random bytes of a secret. Forty digits are as many as the narrowest form takes.
const RANDOM_BYTES: usize = 20;

/// Providers that take any text as a secret, as far as their pages say so: whoever sets the webhook up chooses it.
const CHOSEN: &str = "\
    github bitbucket jira gitea typeform cal-com razorpay gocardless woocommerce easypost lemon-squeezy npm \
    taiga mautic formstack helpscout webex websub circleci sanity gitlab-token telegram twitch figma \
    microsoft-graph docker-hub netlify";

/// Those that take a name and a password.
const BASIC: &str = "postmark sparkpost chargebee datocms datadog basic";

/// A new secret in the provider's form; `None` where it is not known to be one's own to choose.
pub(in crate::cli) fn new(provider: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    let mut bytes = Zeroizing::new([0; RANDOM_BYTES + 4]);
    getrandom::fill(&mut *bytes).map_err(no_randomness)?;
    let text = HEXLOWER.encode(&bytes[..RANDOM_BYTES]);
    Ok(match provider {
        "standard-webhooks" => Some(format!("whsec_{}", BASE64.encode(&*bytes))),
        _ if CHOSEN.split(' ').any(|name| name == provider) => Some(text),
        _ if BASIC.split(' ').any(|name| name == provider) => Some(format!("relay:{text}")),
        _ => None,
    }
    .map(Zeroizing::new))
}

/// The secret in a file, or on standard input for `-`.
pub(super) fn read(file: &str) -> Result<Zeroizing<String>, Failure> {
    let bytes = if file == "-" {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        std::io::stdin().take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).context("standard input")?;
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        bytes
    } else {
        read_secret(&format!("file:{file}")).map_err(|why| Failure::Usage(format!("--secret-file: {why}")))?
    };
    if bytes.is_empty() || bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(Failure::Usage("--secret-file: it is empty, or larger than 64 KiB".to_owned()));
    }
    if let Some(what) = Invisible::of(&bytes) {
        return Err(Failure::Usage(format!("--secret-file: {what}")));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::Usage(
            "--secret-file: this secret is no text; leave it in a file that the relay can read and write \
             --set 'verify.secrets = [\"file:/PATH\"]'"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_one_may_choose_is_made_up() {
        let made = |provider| new(provider).expect("randomness").map(|secret| secret.to_string());
        let github = made("github").expect("a secret");
        assert!(github.len() == 40 && made("github") != Some(github), "random");
        assert!(made("basic").expect("a secret").starts_with("relay:"));
        for provider in ["stripe", "slack", "discord", "svix", "none", "unknown"] {
            assert!(made(provider).is_none(), "{provider}");
        }
    }

    #[test]
    fn what_is_made_up_can_be_used() {
        for name in CHOSEN.split(' ').chain(BASIC.split(' ')).chain(["standard-webhooks"]) {
            let row = relay_schemes::provider(name).unwrap_or_else(|| panic!("{name} has no row"));
            let secret = new(name).expect("randomness").expect("a secret");
            let material = relay_schemes::Material {
                secrets: vec![relay_schemes::Secret::new(secret.as_bytes())],
                ..relay_schemes::Material::default()
            };
            let keys = row.scheme.as_ref().map(|scheme| scheme.keys_from(&material).map(drop));
            assert!(matches!(keys, Some(Ok(())) | None), "{name}: {keys:?}");
        }
    }
}
