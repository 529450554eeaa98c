//! `tls.acme`: certificates that the relay gets by itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use http::Uri;
use relay_program::config::{Section, Typed, Wrong};
use relay_program::secret::SecretRef;

use super::Context;
use super::verify::read_secret;
use crate::config::keys;
use crate::config::settings::{AcmeChallenge, AcmeEab, AcmeSettings, Server, StoreSpec};
use crate::config::values::{self, PublicUrl};

/// Domains that one relay gets certificates for. Each is an order of its own, and CAs count them.
const MAX_DOMAINS: usize = 100;

/// Words that a hook's command may have.
const MAX_WORDS: usize = 32;

/// The CA that is asked unless another one is named.
pub(in crate::config) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

pub(super) fn settings(tls: &Section<'_>, context: Context<'_>) -> Option<Arc<AcmeSettings>> {
    if !tls.has("acme") {
        return None;
    }
    let acme = tls.section("acme", keys::ACME);
    let challenge = acme.word("challenge", "a challenge", &AcmeChallenge::ALL.map(|one| (one.name(), one)));
    let domains = domains(&acme, challenge);
    let email = acme.value("email", email);
    let directory = acme.value_or("directory", LETS_ENCRYPT.to_owned(), directory);
    let ca = acme.text("ca").map(|path| context.base.join(path.value));
    acme.show_if("ca", ca.as_ref().map(|path| path.display().to_string()));
    if let Some(ca) = ca.as_ref().filter(|_| context.around.is_some())
        && let Err(error) = std::fs::File::open(ca)
    {
        acme.error("ca", format!("cannot read {}: {error}", ca.display()), "");
    }
    let dns_hook = dns_hook(&acme, challenge, context);
    let eab = acme.has("eab").then(|| eab(&acme, context)).flatten();
    Some(Arc::new(AcmeSettings { domains, email, directory, ca, challenge, dns_hook, eab }))
}

/// What only the rest of the config shows.
pub(super) fn look_around(acme: &AcmeSettings, server: &Server, store: &StoreSpec, tls: &Section<'_>) {
    let place = tls.place("acme");
    if !store.kind.is_durable() {
        let help = "set store.url to \"sqlite:FILE\"";
        let message = "a store in memory forgets certificates, and each start orders new ones, which CAs count";
        tls.report().warn(&place, message, help);
    }
    if acme.challenge == AcmeChallenge::Http01 && server.http_listen.is_none() {
        let help = "set server.http_listen = \"0.0.0.0:80\", or another challenge";
        tls.report().error(&place, "http-01 is shown at port 80, and nothing listens there", help);
    }
    let public = server.public_url.as_ref().map(PublicUrl::uri);
    if let Some(host) = public.as_ref().and_then(Uri::host)
        && !acme.domains.iter().any(|domain| covers(domain, host))
    {
        let help = "name it in domains, unless another certificate of [tls] is for it";
        tls.report().warn(&place, format!("no certificate is ordered for {host}, where server.public_url leads"), help);
    }
}

fn covers(domain: &str, host: &str) -> bool {
    domain == host
        || domain.strip_prefix("*.").is_some_and(|rest| host.split_once('.').is_some_and(|(_, up)| up == rest))
}

fn domains(acme: &Section<'_>, challenge: AcmeChallenge) -> Vec<String> {
    let domains: BTreeSet<String> = acme.read_all("domains", domain).into_iter().collect();
    let domains: Vec<String> = domains.into_iter().collect();
    acme.show_all("domains", domains.iter().cloned());
    if acme.texts("domains").is_empty() {
        acme.error("domains", "no domain is named", "set domains = [\"hooks.example.com\"]");
    }
    if domains.len() > MAX_DOMAINS {
        let help = "use a wildcard with challenge = \"dns-01\"";
        acme.error("domains", format!("{} domains are more than {MAX_DOMAINS}", domains.len()), help);
    }
    if let Some(wildcard) = domains.iter().find(|domain| domain.starts_with("*."))
        && challenge != AcmeChallenge::Dns01
    {
        let help = "set challenge = \"dns-01\" and dns_hook, or name each host";
        acme.error("domains", format!("\"{wildcard}\" can only be shown by dns-01, not by {}", challenge.name()), help);
    }
    domains
}

fn domain(text: &str) -> Result<String, Wrong> {
    let (star, host) = text.strip_prefix("*.").map_or(("", text), |host| ("*.", host));
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err(Wrong::new(format!("\"{text}\" is an address"), "name a host; addresses get no certificate here"));
    }
    Ok(format!("{star}{}", values::host(host)?))
}

/// Enough to tell an address from something else; whether it is one, the CA knows.
pub(crate) fn email(text: &str) -> Result<String, Wrong> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'?' | b'<' | b'>' | b'"' | b'\\'));
    match text.split_once('@') {
        Some((name, host)) if is_plain && !name.is_empty() && host.contains('.') && !host.contains('@') => {
            Ok(text.to_owned())
        }
        _ => Err(Wrong::new(format!("\"{text}\" is not an address of e-mail"), "write it like \"ops@example.com\"")),
    }
}

fn directory(text: &str) -> Result<String, Wrong> {
    let wrong =
        || Wrong::new("this is not the https URL of a CA's directory", format!("write it like \"{LETS_ENCRYPT}\""));
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    match (uri.scheme_str(), authority) {
        (Some("https"), Some(_)) if !text.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

fn dns_hook(acme: &Section<'_>, challenge: AcmeChallenge, context: Context<'_>) -> Vec<String> {
    let mut words: Vec<String> = acme.texts("dns_hook").iter().map(|word| word.value.to_owned()).collect();
    let is_dns = challenge == AcmeChallenge::Dns01;
    match words.first_mut() {
        None if is_dns => {
            let help =
                "set dns_hook = [\"/usr/local/bin/dns-hook\"]; it is called with present or cleanup, NAME and VALUE";
            acme.error("dns_hook", "dns-01 needs a program that makes TXT records", help);
        }
        Some(_) if !is_dns => acme.error("dns_hook", "it is for dns-01", "set challenge = \"dns-01\", or leave it out"),
        Some(program) if program.is_empty() => acme.error("dns_hook", "it names no program", ""),
        // A name alone is looked for in PATH.
        Some(program) if program.contains('/') => {
            let path = context.base.join(&*program);
            if context.around.is_some() && !path.is_file() {
                acme.error(
                    "dns_hook",
                    format!("{} is no file", path.display()),
                    "name the program that is to be called",
                );
            }
            *program = path.display().to_string();
        }
        _ => {}
    }
    if words.len() > MAX_WORDS {
        acme.error("dns_hook", format!("it has more than {MAX_WORDS} words"), "write a script");
    }
    acme.show_all("dns_hook", words.iter().cloned());
    words
}

fn eab(acme: &Section<'_>, context: Context<'_>) -> Option<AcmeEab> {
    let eab = acme.section("eab", keys::EAB);
    eab.require(&["kid", "key"]);
    let kid = eab.value("kid", |text: &str| Ok::<_, Wrong>(text.to_owned()))?;
    let typed = eab.text("key")?;
    let reference: SecretRef = eab.judge(&typed.place, typed.value.parse())?;
    eab.show("key", reference.to_string());
    let typed = Typed { value: reference, place: typed.place };
    let key = match read_secret(&typed, context, eab.report()) {
        None => None,
        Some(read) => {
            let secret = eab.judge(&typed.place, read)?;
            let text = std::str::from_utf8(&secret.bytes).unwrap_or_default().trim_end_matches('=');
            let decoded = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| {
                let help = "put the key there as the CA shows it: letters, digits, - and _";
                Wrong::new(format!("{} is not base64url", typed.value), help)
            });
            Some(Arc::new(eab.judge(&typed.place, decoded)?.into()))
        }
    };
    Some(AcmeEab { kid, key })
}
