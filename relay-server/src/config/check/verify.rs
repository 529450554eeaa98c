//! `verify`: which provider's row proves an endpoint's requests, and what the endpoint decides beside it.
//!
//! References to secrets are read as references; whether there is a secret behind one is for `resolve` to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relay_program::suggest::suggest;
use relay_proto::printable::without_password;
use relay_schemes::{Material, Provider, SecretError};
use toml::Spanned;

use super::endpoint::{BOTH_WAYS_OUT, SecretFlags, warn_open};
use super::{duration, read};
use crate::config::effective::{KeySet, VerifyOptions, VerifySpec};
use crate::config::error::{Place, Report};
use crate::config::raw::{Flag, RawSigned, RawVerify, Text, Texts};
use crate::config::secret_ref::SecretRef;
use crate::endpoint::EndpointName;

/// The rows of a config's own providers and the embedded ones.
pub(super) struct Rows(Vec<Arc<Provider>>);

impl Rows {
    /// Checks a config's own `[[provider]]` tables.
    pub(super) fn new(own: &[Spanned<toml::Table>], report: &mut Report<'_>) -> Self {
        let mut rows = Vec::new();
        let tables = own.iter().map(|row| toml::Value::Table(row.get_ref().clone())).collect();
        let text = toml::to_string(&toml::Table::from_iter([("provider".to_owned(), toml::Value::Array(tables))]));
        let place = report.place("provider", own.first().map(Spanned::span));
        match text.map_err(|error| error.to_string()).map(|text| relay_schemes::load(&text)) {
            _ if own.is_empty() => {}
            Ok(Ok(loaded)) => rows.extend(loaded.into_iter().map(Arc::new)),
            Ok(Err(error)) => report.error(&place, error.to_string(), "`relay-server provider show NAME` prints a row"),
            Err(error) => report.error(&place, error, ""),
        }
        for row in rows.iter().filter(|row| relay_schemes::provider(&row.name).is_some()) {
            let message = format!("\"{}\" is the name of a provider that the relay knows", row.name);
            report.error(&place, message, "give your own row another name");
        }
        Self(rows)
    }

    pub(super) fn find(&self, name: &str, place: &Place, report: &mut Report<'_>) -> Option<Arc<Provider>> {
        let own = self.0.iter().find(|row| row.name == name).cloned();
        let found = own.or_else(|| relay_schemes::provider(name).cloned().map(Arc::new));
        if found.is_none() {
            let embedded = relay_schemes::providers().iter().map(|provider| provider.name.as_str());
            let known = self.0.iter().map(|row| row.name.as_str()).chain(embedded);
            let help = suggest(name, known).unwrap_or_else(|| "`relay-server provider list` names them".to_owned());
            report.error(place, format!("\"{name}\" is not a known provider"), help);
        }
        found
    }
}

pub(super) fn verify(
    raw: Option<&RawVerify>,
    name: &EndpointName,
    place: &Place,
    (rows, flags): (&Rows, &mut SecretFlags),
    report: &mut Report<'_>,
) -> Option<VerifySpec> {
    let signed = match raw {
        None => {
            report.error(place, "this endpoint does not say how to verify", BOTH_WAYS_OUT);
            return None;
        }
        Some(RawVerify::Word(word)) if word == "none" => {
            warn_open(name, place, report);
            return Some(VerifySpec::Open);
        }
        Some(RawVerify::Word(word)) => {
            report.error(place, format!("\"{word}\" is not a verify rule"), BOTH_WAYS_OUT);
            return None;
        }
        Some(RawVerify::Signed(signed)) => signed,
    };
    let Some(provider) = &signed.provider else {
        report.error(place, "no provider is named", BOTH_WAYS_OUT);
        return None;
    };
    let key = format!("endpoint.{name}.verify");
    let provider =
        rows.find(provider.get_ref(), &report.place(format!("{key}.provider"), Some(provider.span())), report)?;
    let secrets = match flags.remove(name.as_str()) {
        Some(secrets) => secrets,
        None => secrets_of(&signed.secrets, &format!("{key}.secrets"), report),
    };
    let none_given = signed.secrets.iter().flatten().next().is_none() && secrets.is_empty();
    if none_given && wants_secret(&provider) {
        let variable = format!("{}_WEBHOOK_SECRET", name.as_str().to_ascii_uppercase().replace(['-', '.'], "_"));
        report.error(
            place,
            "no secret is configured, so nothing could be verified",
            format!("set secrets = [\"env:{variable}\"] or verify = \"none\""),
        );
    }
    if provider.scheme.is_none() {
        warn_open(name, place, report);
    }
    let options = options(signed, &key, &provider, place, report);
    Some(VerifySpec::Signed { provider, secrets, options: Box::new(options) })
}

fn options(raw: &RawSigned, key: &str, provider: &Provider, place: &Place, report: &mut Report<'_>) -> VerifyOptions {
    let is = |flag: &Flag, default| flag.as_ref().map_or(default, |flag| *flag.get_ref());
    let enforce = is(&raw.enforce, true);
    if !enforce {
        report.warn(
            place,
            "requests pass whether or not they are proven, marked by Relay-Verified: failed:…",
            "leave enforce out once they prove themselves",
        );
    }
    let allow_unsigned_challenge = is(&raw.allow_unsigned_challenge, false);
    if allow_unsigned_challenge && provider.learns_secret() {
        report.warn(
            place,
            "while allow_unsigned_challenge is on, whoever asks first teaches this endpoint its secret",
            "leave it out again once the provider's webhook is made",
        );
    }
    let tolerance = raw.tolerance.is_some().then(|| {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
        duration(&raw.tolerance, &format!("{key}.tolerance"), Duration::from_secs(300), bounds, report)
    });
    if tolerance.is_some() && provider.scheme.as_ref().is_some_and(|scheme| scheme.tolerance_s().is_none()) {
        let message = format!("{} does not date its signatures, so a tolerance changes nothing", provider.name);
        report.warn(place, message, "leave tolerance out");
    }
    let settings: BTreeMap<_, _> =
        raw.settings.iter().flatten().map(|(name, values)| (name.clone(), values.list())).collect();
    let known = provider.scheme.as_ref().map(relay_schemes::Scheme::settings).unwrap_or_default();
    for name in settings.keys().filter(|name| !known.contains(&name.as_str()) && provider.handshakes.is_empty()) {
        let help = if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
        report.error(place, format!("{} takes no setting \"{name}\"", provider.name), help);
    }
    VerifyOptions {
        enforce,
        tolerance,
        public_url: raw.public_url.as_ref().map(|url| url.get_ref().clone()),
        settings,
        jwks: key_set(&raw.jwks, &format!("{key}.jwks"), report),
        named_keys: raw
            .named_keys
            .iter()
            .flatten()
            .filter_map(|(name, text)| Some((name.clone(), reference(text, &format!("{key}.named_keys"), report)?)))
            .collect(),
        verify_token: raw
            .verify_token
            .as_ref()
            .and_then(|text| reference(text, &format!("{key}.verify_token"), report)),
        allow_unsigned_challenge,
        confirm: is(&raw.confirm, false),
    }
}

/// An address that names nobody, since it is shown and logged.
fn no_password(text: &Spanned<String>, key: &str, report: &mut Report<'_>) -> Option<String> {
    let authority = text.get_ref().split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        let place = report.place(key, Some(text.span()));
        let message = format!("\"{}\" holds a user name", without_password(text.get_ref()));
        report.error(&place, message, "leave out what stands before the @");
        return None;
    }
    Some(text.get_ref().clone())
}

fn key_set(text: &Text, key: &str, report: &mut Report<'_>) -> Option<KeySet> {
    let text = text.as_ref()?;
    if text.get_ref().starts_with("https://") {
        return no_password(text, key, report).map(KeySet::Url);
    }
    reference(text, key, report).map(|(reference, place)| KeySet::Kept(reference, place))
}

fn reference(text: &Spanned<String>, key: &str, report: &mut Report<'_>) -> Option<(SecretRef, Place)> {
    let place = report.place(key, Some(text.span()));
    let reference = read(Some((text.get_ref(), place.clone())), str::parse, report)?;
    if matches!(reference, SecretRef::Sealed(_)) && !report.is_api(&place) {
        let message = format!("{reference} is how the relay itself notes a secret that was given through the API");
        report.error(&place, message, "write \"env:NAME\", \"file:PATH\" or \"cred:NAME\"");
        return None;
    }
    Some((reference, place))
}

/// A list of references, each with its line.
pub(super) fn secrets_of(list: &Texts, key: &str, report: &mut Report<'_>) -> Vec<(SecretRef, Place)> {
    list.iter().flatten().filter_map(|text| reference(text, key, report)).collect()
}

/// Whether a row can do nothing without a secret in the config.
pub(super) fn wants_secret(provider: &Provider) -> bool {
    let Some(scheme) = provider.scheme.as_ref().filter(|_| !provider.learns_secret()) else { return false };
    let settings = scheme.settings().into_iter().map(|name| (name.to_owned(), vec!["x".to_owned()])).collect();
    let material = Material { settings, ..Material::default() };
    matches!(scheme.keys_from(&material), Err(SecretError::Missing))
}
