//! Secrets that the relay makes up for an endpoint, where whoever sets the webhook up chooses it. A provider that is
//! missing in the lists here makes its own.

use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

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
pub(crate) fn new(provider: &str) -> Result<Option<Zeroizing<String>>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; RANDOM_BYTES + 4]);
    getrandom::fill(&mut *bytes)?;
    let text = HEXLOWER.encode(&bytes[..RANDOM_BYTES]);
    Ok(match provider {
        "standard-webhooks" => Some(format!("whsec_{}", BASE64.encode(&*bytes))),
        _ if stands_in(CHOSEN, provider) => Some(text),
        _ if stands_in(BASIC, provider) => Some(format!("relay:{text}")),
        _ => None,
    }
    .map(Zeroizing::new))
}

/// Whether the secret of a provider is one's own to choose.
pub(crate) fn is_chosen(provider: &str) -> bool {
    provider == "standard-webhooks" || stands_in(CHOSEN, provider) || stands_in(BASIC, provider)
}

fn stands_in(list: &str, provider: &str) -> bool {
    list.split(' ').any(|name| name == provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_one_may_choose_is_made_up() {
        let made = |provider| new(provider).expect("randomness").map(|secret| secret.to_string());
        let github = made("github").expect("a secret");
        assert!(github.len() == 40 && made("github") != Some(github), "random");
        assert!(is_chosen("github") && !is_chosen("stripe"));
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
