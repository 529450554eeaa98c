//! `verify`: which provider's row proves an endpoint's requests, with which secrets, and what the endpoint decides beside
//! it.
//!
//! Secrets leave here only as keys. Invariant: a signed rule holds at least one usable key or is closed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use relay_program::config::{Place, Report, Section, Text, Typed, Wrong};
use relay_program::secret::SecretRef;
use relay_program::suggest::suggest;
use relay_proto::printable::without_password;
use relay_schemes::{Material, Provider, Secret, SecretError};
use toml::de::DeValue;

use super::endpoint::{EndpointBounds, warn_open};
use super::{Context, DAY, SECOND};
use crate::config::keys;
use crate::config::secrets::SecretBytes;
use crate::endpoint::EndpointName;
use crate::verify::{Policy, Rule};

const BOTH_WAYS_OUT: &str =
    "set verify = { provider = \"…\", secrets = [\"env:…\"] }, or verify = \"none\" to let anyone in";

/// Where secrets are that flags name, by endpoint.
pub(super) type SecretFlags = HashMap<String, Vec<Typed<SecretRef>>>;

/// The rows of a config's own providers and the embedded ones.
pub(super) struct ProviderRows(Vec<Arc<Provider>>);

impl ProviderRows {
    /// Checks a config's own `[[provider]]` tables, which the crate of schemes reads.
    pub(super) fn new(texts: &[Text], roots: &[Section<'_>]) -> Self {
        let mut own = Vec::new();
        for (text, root) in texts.iter().zip(roots).filter(|(_, root)| root.has("provider")) {
            let rows = toml::from_str::<toml::Table>(&text.text).ok().and_then(|mut table| table.remove("provider"));
            let table = toml::Table::from_iter(rows.map(|rows| ("provider".to_owned(), rows)));
            let written = toml::to_string(&table).map_err(|error| error.to_string());
            match written.and_then(|text| relay_schemes::load(&text).map_err(|error| error.to_string())) {
                Ok(loaded) => own.extend(loaded.into_iter().map(|row| (Arc::new(row), root.place("provider")))),
                Err(error) => root.error("provider", error, "`relay-server provider show NAME` prints a row"),
            }
            for (row, place) in own.iter().filter(|(row, _)| relay_schemes::provider(&row.name).is_some()) {
                let message = format!("\"{}\" is the name of a provider that the relay knows", row.name);
                root.report().error(place, message, "give your own row another name");
            }
        }
        Self(own.into_iter().map(|(row, _)| row).collect())
    }

    pub(super) fn find(&self, name: &str, place: &Place, report: &Report<'_>) -> Option<Arc<Provider>> {
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

pub(super) struct Verify {
    pub(super) rule: Rule,
    /// `None` where anybody may post.
    pub(super) provider: Option<Arc<Provider>>,
    enforce: bool,
    tolerance: Option<Duration>,
}

impl Verify {
    pub(super) fn open(row: &Section<'_>) -> Self {
        row.show("verify", "none");
        Self { rule: Rule::Open, provider: None, enforce: true, tolerance: None }
    }

    /// How old a first arrival may be: who sets a tolerance means it, and what passes unproven needs no more time.
    pub(super) fn last_retry(&self) -> Option<Duration> {
        self.provider.as_ref().filter(|_| self.enforce && self.tolerance.is_none())?.last_retry
    }

    /// With a provider and secrets that flags name.
    pub(super) fn of_flag(
        row: &Section<'_>,
        name: &EndpointName,
        provider: Arc<Provider>,
        secrets: &[Typed<SecretRef>],
        context: Context<'_>,
    ) -> Option<Self> {
        if secrets.is_empty() && wants_secret(&provider) {
            let help = format!("add --secret {name}=env:VARIABLE or --secret {name}=file:PATH");
            row.report().error(&row.here(), format!("no secret is given for \"{name}\""), help);
        }
        let verify = row.section("verify", keys::VERIFY);
        Self::signed(&verify, provider, secrets, context)
    }

    fn signed(
        verify: &Section<'_>,
        provider: Arc<Provider>,
        secrets: &[Typed<SecretRef>],
        context: Context<'_>,
    ) -> Option<Self> {
        verify.show("provider", &*provider.name);
        verify.show_all("secrets", secrets.iter().map(|secret| secret.value.to_string()));
        let options = Options::read(verify, &provider);
        let (enforce, tolerance) = (!options.policy.lenient, options.tolerance);
        let reading = Reading { verify, provider: &provider, options, context };
        let rule = reading.rule(secrets)?;
        Some(Self { rule, provider: Some(provider), enforce, tolerance })
    }
}

pub(super) fn verify(
    row: &Section<'_>,
    name: &EndpointName,
    bounds: EndpointBounds<'_>,
    flags: &mut SecretFlags,
) -> Option<Verify> {
    let (report, place) = (row.report(), row.place("verify"));
    match row.typed("verify").map(|typed| typed.get_ref()) {
        None => {
            row.report().error(&row.here().member("verify"), "this endpoint does not say how to verify", BOTH_WAYS_OUT);
            return None;
        }
        Some(DeValue::String(word)) if word == "none" => {
            warn_open(name, &place, report);
            return Some(Verify::open(row));
        }
        Some(DeValue::String(word)) => {
            report.error(&place, format!("\"{word}\" is not a verify rule"), BOTH_WAYS_OUT);
            return None;
        }
        Some(DeValue::Table(_)) => {}
        Some(_) => {
            report.error(&place, "this is not a verify rule", BOTH_WAYS_OUT);
            return None;
        }
    }
    let verify = row.section("verify", keys::VERIFY);
    if !verify.is_typed() {
        return None;
    }
    let Some(provider) = verify.text("provider") else {
        report.error(&place, "no provider is named", BOTH_WAYS_OUT);
        return None;
    };
    let provider = bounds.rows.find(provider.value, &provider.place, report)?;
    let secrets = flags.remove(name.as_str()).unwrap_or_else(|| secrets_of(&verify, "secrets"));
    if secrets.is_empty() && verify.texts("secrets").is_empty() && wants_secret(&provider) {
        let variable = format!("{}_WEBHOOK_SECRET", name.as_str().to_ascii_uppercase().replace(['-', '.'], "_"));
        let help = format!("set secrets = [\"env:{variable}\"] or verify = \"none\"");
        report.error(&place, "no secret is configured, so nothing could be verified", help);
    }
    if provider.scheme.is_none() {
        warn_open(name, &place, report);
    }
    Verify::signed(&verify, provider, &secrets, bounds.context)
}

/// What an endpoint decides beside its provider's row.
struct Options {
    /// Without its token.
    policy: Policy,
    tolerance: Option<Duration>,
    public_url: Option<String>,
    /// A value that is a reference is read from there.
    settings: BTreeMap<String, Vec<String>>,
    /// A JSON Web Key Set that is read with the config.
    jwks: Option<Typed<SecretRef>>,
    named_keys: Vec<(String, Typed<SecretRef>)>,
    verify_token: Option<Typed<SecretRef>>,
}

impl Options {
    fn read(verify: &Section<'_>, provider: &Provider) -> Self {
        let (report, here) = (verify.report(), verify.here());
        let enforce = verify.flag("enforce", true);
        if !enforce {
            let message = "requests pass whether or not they are proven, marked by Relay-Verified: failed:…";
            report.warn(&here, message, "leave enforce out once they prove themselves");
        }
        let tolerance = verify.has("tolerance").then(|| verify.duration("tolerance", 300 * SECOND, SECOND..=DAY));
        if tolerance.is_some() && provider.scheme.as_ref().is_some_and(|scheme| scheme.tolerance_s().is_none()) {
            let message = format!("{} does not date its signatures, so a tolerance changes nothing", provider.name);
            report.warn(&here, message, "leave tolerance out");
        }
        let public_url = verify.text("public_url").map(|url| url.value.to_owned());
        // A provider may sign for an address with a password in it, which is nobody's to see.
        verify.show_if("public_url", public_url.as_deref().map(without_password).map(std::borrow::Cow::into_owned));
        let settings = settings(verify, provider);
        let jwks = verify.text("jwks");
        let (fetched, kept): (Vec<_>, Vec<_>) = jwks.into_iter().partition(|text| text.value.starts_with("https://"));
        let jwks_url = fetched.iter().find_map(|text| key_set_url(verify, text));
        let jwks = kept.iter().find_map(|text| reference(verify, text));
        verify.show_if("jwks", jwks_url.clone().or_else(|| Some(jwks.as_ref()?.value.to_string())));
        let named = verify.named_texts("named_keys").into_iter();
        let named_keys: Vec<_> = named.filter_map(|(name, text)| Some((name, reference(verify, &text)?))).collect();
        for (name, at) in &named_keys {
            verify.section("named_keys", "").show(name, at.value.to_string());
        }
        let verify_token = verify.text("verify_token").and_then(|text| reference(verify, &text));
        verify.show_if("verify_token", verify_token.as_ref().map(|token| token.value.to_string()));
        let allow_unsigned_challenge = verify.flag("allow_unsigned_challenge", false);
        if allow_unsigned_challenge && provider.learns_secret() {
            let message = "while allow_unsigned_challenge is on, whoever asks first teaches this endpoint its secret";
            report.warn(&here, message, "leave it out again once the provider's webhook is made");
        }
        let confirm = verify.flag("confirm", false);
        let policy = Policy { lenient: !enforce, verify_token: None, allow_unsigned_challenge, confirm, jwks_url };
        Self { policy, tolerance, public_url, settings, jwks, named_keys, verify_token }
    }
}

/// `settings`: texts, or lists of them, by the scheme's own names.
fn settings(verify: &Section<'_>, provider: &Provider) -> BTreeMap<String, Vec<String>> {
    let typed = verify.section("settings", "");
    let known = provider.scheme.as_ref().map(relay_schemes::Scheme::settings).unwrap_or_default();
    let mut settings = BTreeMap::new();
    for name in typed.names() {
        if !known.contains(&&*name) && provider.handshakes.is_empty() {
            let help =
                if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
            let message = format!("{} takes no setting \"{name}\"", provider.name);
            verify.report().error(&verify.here(), message, help);
        }
        let one = typed.typed(&name).is_some_and(|value| value.get_ref().is_str());
        let texts = if one { typed.text(&name).into_iter().collect() } else { typed.texts(&name) };
        let values: Vec<String> = texts.into_iter().map(|text| text.value.to_owned()).collect();
        typed.show_all(&name, values.iter().cloned());
        settings.insert(name, values);
    }
    settings
}

/// The address of a key set. It names nobody, since it is shown and logged.
fn key_set_url(verify: &Section<'_>, text: &Typed<&str>) -> Option<String> {
    let authority = text.value.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        let message = format!("\"{}\" holds a user name", without_password(text.value));
        verify.report().error(&text.place, message, "leave out what stands before the @");
        return None;
    }
    Some(text.value.to_owned())
}

fn reference(section: &Section<'_>, text: &Typed<&str>) -> Option<Typed<SecretRef>> {
    let value: SecretRef = section.judge(&text.place, text.value.parse::<SecretRef>())?;
    if matches!(value, SecretRef::Sealed(_)) && !section.report().is_kept(&text.place) {
        let message = format!("{value} is how the relay itself notes a secret that was given through the API");
        section.report().error(&text.place, message, "write \"env:NAME\", \"file:PATH\" or \"cred:NAME\"");
        return None;
    }
    Some(Typed { value, place: text.place.clone() })
}

/// A list of references, each with its line.
pub(super) fn secrets_of(section: &Section<'_>, name: &str) -> Vec<Typed<SecretRef>> {
    section.texts(name).iter().filter_map(|text| reference(section, text)).collect()
}

/// Whether a row can do nothing without a secret in the config.
fn wants_secret(provider: &Provider) -> bool {
    let Some(scheme) = provider.scheme.as_ref().filter(|_| !provider.learns_secret()) else { return false };
    let settings = scheme.settings().into_iter().map(|name| (name.to_owned(), vec!["x".to_owned()])).collect();
    let material = Material { settings, ..Material::default() };
    matches!(scheme.keys_from(&material), Err(SecretError::Missing))
}

/// Reads the secrets of one endpoint.
struct Reading<'a, 't> {
    verify: &'a Section<'t>,
    provider: &'a Arc<Provider>,
    options: Options,
    context: Context<'a>,
}

impl Reading<'_, '_> {
    /// A rule with its secrets read, or one that is closed since they cannot be, or are not to be. They are tried one by
    /// one first, so that the message names the one at fault.
    fn rule(&self, secrets: &[Typed<SecretRef>]) -> Option<Rule> {
        let report = self.verify.report();
        let closed = Some(Rule::Closed(Arc::clone(self.provider)));
        if self.context.around.is_none() {
            return closed;
        }
        let (before, absent) = (report.errors(), report.absences());
        let mut material = self.material();
        if report.absences() > absent {
            return closed;
        }
        let mut read = Vec::new();
        for typed in secrets {
            let Some(secret) = self.secret(typed) else { continue };
            read.extend(self.usable(typed, secret, &material)?);
        }
        let token = self.options.verify_token.as_ref().and_then(|token| self.secret(token));
        if report.errors() > before {
            return None;
        }
        if report.absences() > absent {
            return closed;
        }
        material.secrets = read;
        match Rule::new(
            Arc::clone(self.provider),
            material,
            Policy { verify_token: token, ..self.options.policy.clone() },
        ) {
            Ok((rule, _)) => Some(rule),
            Err(why) => {
                let setup = &self.provider.setup;
                let help = if setup.is_empty() { String::new() } else { format!("what to set: {setup}") };
                let message = format!("{} cannot be verified like this: {why}", self.provider.name);
                report.error(&self.verify.here(), message, help);
                None
            }
        }
    }

    /// The secret, if the scheme can use it by itself; `None` if none could be.
    fn usable(&self, typed: &Typed<SecretRef>, secret: Secret, material: &Material) -> Option<Option<Secret>> {
        let (report, reference) = (self.verify.report(), &typed.value);
        let alone = Material { secrets: vec![secret.clone()], ..material.clone() };
        match Rule::new(Arc::clone(self.provider), alone, self.options.policy.clone()) {
            Ok((_, warnings)) => {
                for warning in warnings {
                    let message = format!("{reference}: {warning}");
                    report.warn(&typed.place, message, "copy the secret again if it does not verify");
                }
                Some(Some(secret))
            }
            Err(error @ (SecretError::Setting(_) | SecretError::PublicKeys(_))) => {
                let message = format!("{}: {error}", self.provider.name);
                report.error(&self.verify.here(), message, "set it beside the secrets");
                None
            }
            Err(why) => {
                let message = format!("{reference} cannot be used for {}: {why}", self.provider.name);
                report.error(&typed.place, message, "copy the secret again, whole");
                Some(None)
            }
        }
    }

    /// What the config says beside the secrets.
    fn material(&self) -> Material {
        let text = |typed: &Typed<SecretRef>| {
            let bytes = self.bytes(typed)?.bytes;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let value = |written: &String| match written.parse::<SecretRef>() {
            Ok(value) => text(&Typed { value, place: Place::default() }).unwrap_or_default(),
            Err(_) => written.clone(),
        };
        let Options { tolerance, public_url, settings, jwks, named_keys, .. } = &self.options;
        Material {
            secrets: Vec::new(),
            public_url: public_url.clone(),
            settings: settings.iter().map(|(name, all)| (name.clone(), all.iter().map(value).collect())).collect(),
            jwks: jwks.as_ref().and_then(text),
            named_keys: named_keys.iter().filter_map(|(name, at)| Some((name.clone(), text(at)?))).collect(),
            tolerance_s: tolerance.and_then(|tolerance| u32::try_from(tolerance.as_secs()).ok()),
        }
    }

    fn secret(&self, typed: &Typed<SecretRef>) -> Option<Secret> {
        self.bytes(typed).map(|secret| Secret::new(secret.bytes.to_vec()))
    }

    /// A secret of an endpoint, which can do without the others.
    fn bytes(&self, typed: &Typed<SecretRef>) -> Option<SecretBytes> {
        match read_secret(typed, self.context, self.verify.report())? {
            Ok(secret) => Some(secret),
            Err(Wrong { message, help }) => {
                self.verify.report().absent(&typed.place, message, help);
                None
            }
        }
    }
}

/// A secret, with a warning where it is odd; nothing where none are read.
pub(super) fn read_secret(
    typed: &Typed<SecretRef>,
    context: Context<'_>,
    report: &Report<'_>,
) -> Option<Result<SecretBytes, Wrong>> {
    let reference = &typed.value;
    let secret = match context.around?.read(reference) {
        Ok(secret) => secret,
        Err(wrong) => return Some(Err(wrong)),
    };
    if secret.line_break_removed {
        let message = format!("{reference} ends with a line break, which is not taken as part of the secret");
        report.warn(&typed.place, message, "write it with `printf %s`");
    }
    if let Some(Wrong { message, help }) = &secret.doubt {
        report.warn(&typed.place, format!("{reference}: {message}"), help.as_str());
    }
    Some(Ok(secret))
}
