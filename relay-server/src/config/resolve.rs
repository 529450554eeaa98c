//! From references to what they stand for: reads secrets, hashes tokens, looks whether files are there.
//!
//! The only part of a config that depends on the machine it runs on; kept apart so that `config show` and edits work
//! where the secrets are not. Secrets leave here only as keys and hashes. Invariant: a signed [`Endpoint`] holds at
//! least one usable key or is closed, a [`Token`] has at least one hash of a token that is long enough.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use relay_schemes::{Material, Provider, Secret, SecretError};

use super::check::unique_hashes;
use super::cidr::Cidr;
use super::effective::{Effective, EndpointSpec, KeySet, TlsFiles, TokenSpec, VerifyOptions, VerifySpec};
use super::error::{Place, Report};
use super::secret_ref::{SecretBytes, SecretRef, Surroundings};
use super::values::Problem;
use crate::agents::token::{MIN_TOKEN_BYTES, Token, TokenHash, Tokens};
use crate::endpoint::{Allow, Endpoint};
use crate::state::Others;
use crate::verify::{Policy, Rule};

/// Endpoints and tokens, with their secrets read. To be used only if `report` holds no error.
pub(super) fn resolve(
    effective: &Effective,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) -> (Vec<Arc<Endpoint>>, Tokens) {
    if let Some(tls) = &effective.tls {
        readable(tls, &effective.tls_place, report);
    }
    state_dir(effective.server.state_dir.as_deref(), report);
    if let Some(path) = effective.store.kind.path() {
        let place = report.place("store.url", None);
        doubt(path, &place, report);
    }
    let endpoints =
        effective.endpoints.iter().filter_map(|spec| endpoint(spec, around, report).map(Arc::new)).collect();
    let tokens: Vec<Token> = effective.tokens.iter().map(|spec| token(spec, around, report)).collect();
    unique_hashes(effective.tokens.iter().map(|spec| &spec.place).zip(&tokens), report);
    (endpoints, Tokens::new(tokens))
}

fn readable(tls: &TlsFiles, place: &Place, report: &mut Report<'_>) {
    for path in [&tls.cert, &tls.key] {
        if let Err(error) = File::open(path) {
            report.error(place, format!("cannot read {}: {error}", path.display()), "");
        }
        doubt(path, place, report);
    }
}

/// Warns of a file that is there and that others may change.
fn doubt(path: &Path, place: &Place, report: &mut Report<'_>) {
    if let Some((problem, help)) = Others::may_change(path).ok().and_then(|others| others.problem(path)) {
        report.warn(place, problem, help);
    }
}

/// What a start refuses, and what is only doubtful. A directory that is not there yet is made for the relay alone.
fn state_dir(path: Option<&Path>, report: &mut Report<'_>) {
    let Some((path, others)) = path.and_then(|path| Some((path, Others::may_change(path).ok()?))) else { return };
    let Some((problem, help)) = others.problem(path) else { return };
    let place = report.place("server.state_dir", None);
    if others.is_refused() {
        report.error(&place, problem, help);
    } else {
        report.warn(&place, problem, help);
    }
}

fn endpoint(spec: &EndpointSpec, around: &Surroundings<'_>, report: &mut Report<'_>) -> Option<Endpoint> {
    let verify = match &spec.verify {
        VerifySpec::Open => Rule::Open,
        VerifySpec::Signed { provider, secrets, options } => {
            rule(provider, secrets, options, &spec.verify_place, around, report)?
        }
    };
    Some(Endpoint {
        name: spec.name.clone(),
        verify,
        deadline: spec.deadline,
        idle_timeout: spec.idle_timeout,
        max_body: spec.max_body,
        wait_for_agent: spec.wait_for_agent,
        hosts: spec.hosts.clone(),
        allow: allow(&spec.allow),
        replay: spec.replay,
        exclusive: spec.exclusive,
        upgrades: spec.upgrades.clone(),
        rate: spec.rate,
        concurrency: spec.concurrency,
        keeping: spec.keeping.clone(),
    })
}

/// A rule with its secrets read, or one that is closed since they cannot be. They are tried one by one first, so that the message names the one at fault.
fn rule(
    provider: &Arc<Provider>,
    secrets: &[(SecretRef, Place)],
    options: &VerifyOptions,
    place: &Place,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) -> Option<Rule> {
    let (before, absent) = (report.errors(), report.absences());
    let mut material = material(options, around, report);
    if report.absences() > absent {
        return Some(Rule::Closed(Arc::clone(provider)));
    }
    let mut read = Vec::new();
    for (reference, place) in secrets {
        let Some(secret) = own_secret(reference, place, around, report) else { continue };
        let secret = Secret::new(secret.bytes.to_vec());
        let alone = Material { secrets: vec![secret.clone()], ..material.clone() };
        match Rule::new(Arc::clone(provider), alone, policy(options, None)) {
            Ok((_, warnings)) => {
                for warning in warnings {
                    report.warn(
                        place,
                        format!("{reference}: {warning}"),
                        "copy the secret again if it does not verify",
                    );
                }
                read.push(secret);
            }
            Err(error @ (SecretError::Setting(_) | SecretError::PublicKeys(_))) => {
                report.error(place, format!("{}: {error}", provider.name), "set it beside the secrets");
                return None;
            }
            Err(why) => report.error(
                place,
                format!("{reference} cannot be used for {}: {why}", provider.name),
                "copy the secret again, whole",
            ),
        }
    }
    let token =
        options.verify_token.as_ref().and_then(|(reference, place)| own_secret(reference, place, around, report));
    let token = token.map(|token| Secret::new(token.bytes.to_vec()));
    if report.errors() > before {
        return None;
    }
    if report.absences() > absent {
        return Some(Rule::Closed(Arc::clone(provider)));
    }
    material.secrets = read;
    match Rule::new(Arc::clone(provider), material, policy(options, token)) {
        Ok((rule, _)) => Some(rule),
        Err(why) => {
            let help =
                if provider.setup.is_empty() { String::new() } else { format!("what to set: {}", provider.setup) };
            report.error(place, format!("{} cannot be verified like this: {why}", provider.name), help);
            None
        }
    }
}

fn policy(options: &VerifyOptions, verify_token: Option<Secret>) -> Policy {
    Policy {
        lenient: !options.enforce,
        verify_token,
        allow_unsigned_challenge: options.allow_unsigned_challenge,
        confirm: options.confirm,
        jwks_url: match &options.jwks {
            Some(KeySet::Url(url)) => Some(url.clone()),
            Some(KeySet::Kept(..)) | None => None,
        },
    }
}

/// What the config says beside the secrets.
fn material(options: &VerifyOptions, around: &Surroundings<'_>, report: &mut Report<'_>) -> Material {
    let place = Place::default();
    let mut text = |reference: &SecretRef, place: &Place| {
        let bytes = own_secret(reference, place, around, report)?.bytes;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut value = |written: &String| match written.parse::<SecretRef>() {
        Ok(reference) => text(&reference, &place).unwrap_or_default(),
        Err(_) => written.clone(),
    };
    let settings = options.settings.iter();
    let settings = settings.map(|(name, values)| (name.clone(), values.iter().map(&mut value).collect())).collect();
    let jwks = match &options.jwks {
        Some(KeySet::Kept(reference, place)) => text(reference, place),
        Some(KeySet::Url(_)) | None => None,
    };
    let named = options.named_keys.iter();
    let named_keys =
        named.filter_map(|(name, (reference, place))| Some((name.clone(), text(reference, place)?))).collect();
    let tolerance_s = options.tolerance.and_then(|tolerance| u32::try_from(tolerance.as_secs()).ok());
    Material { secrets: Vec::new(), public_url: options.public_url.clone(), settings, jwks, named_keys, tolerance_s }
}

fn allow(networks: &[Cidr]) -> Allow {
    if networks.is_empty() {
        return Allow::default();
    }
    let networks = networks.to_vec();
    Allow::only(move |address| networks.iter().any(|network| network.contains(address)))
}

fn token(spec: &TokenSpec, around: &Surroundings<'_>, report: &mut Report<'_>) -> Token {
    let mut hashes = spec.hashes.clone();
    for (reference, place) in &spec.secrets {
        let secret = match secret(reference, place, around, report) {
            Ok(secret) => secret,
            Err((message, help)) => {
                report.error(place, message, help);
                continue;
            }
        };
        if secret.bytes.len() < MIN_TOKEN_BYTES {
            let message =
                format!("{reference} holds fewer than {MIN_TOKEN_BYTES} bytes, and a token that short can be guessed");
            report.error(place, message, format!("run `relay-server token create {}`", spec.name));
            continue;
        }
        // An agent takes white space off, and a header's line ends with it.
        if !secret.bytes.iter().all(u8::is_ascii_graphic) {
            let message =
                format!("{reference} holds a space, a line break or a byte outside ASCII, which no agent can show");
            report.error(place, message, "put the token there alone, on one line".to_owned());
            continue;
        }
        hashes.push(TokenHash::of(&secret.bytes));
    }
    Token {
        name: Arc::from(&*spec.name),
        hashes,
        endpoints: spec.endpoints.clone(),
        rights: spec.rights.clone(),
        max_sessions: spec.max_sessions,
    }
}

/// A secret of an endpoint, which can do without the others.
fn own_secret(
    reference: &SecretRef,
    place: &Place,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) -> Option<SecretBytes> {
    match secret(reference, place, around, report) {
        Ok(secret) => Some(secret),
        Err((message, help)) => {
            report.absent(place, message, help);
            None
        }
    }
}

fn secret(
    reference: &SecretRef,
    place: &Place,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) -> Result<SecretBytes, Problem> {
    let secret = reference.read(around)?;
    if secret.line_break_removed {
        report.warn(
            place,
            format!("{reference} ends with a line break, which is not taken as part of the secret"),
            "write it with `printf %s`",
        );
    }
    if let Some((problem, help)) = &secret.doubt {
        report.warn(place, format!("{reference}: {problem}"), help.as_str());
    }
    Ok(secret)
}
