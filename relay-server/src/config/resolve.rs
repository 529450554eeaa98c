//! From references to what they stand for: reads secrets, hashes tokens, looks whether files are there.
//!
//! The only part of a config that depends on the machine it runs on; kept apart so that `config show` and edits work
//! where the secrets are not. Secrets leave here only as keys and hashes. Invariant: a signed [`Endpoint`] holds at
//! least one usable key, a [`Token`] at least one hash of a token that is long enough.

use std::fs::File;
use std::sync::Arc;

use relay_schemes::Secret;

use super::check::unique_hashes;
use super::cidr::Cidr;
use super::effective::{Effective, EndpointSpec, TlsFiles, TokenSpec, VerifySpec};
use super::error::{Place, Report};
use super::secret_ref::{SecretBytes, SecretRef, Surroundings};
use crate::agents::token::{MIN_TOKEN_BYTES, Token, TokenHash, Tokens};
use crate::endpoint::{Allow, Endpoint};
use crate::verify::Rule;

/// Endpoints and tokens, with their secrets read. To be used only if `report` holds no error.
pub(super) fn resolve(
    effective: &Effective,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) -> (Vec<Arc<Endpoint>>, Tokens) {
    if let Some(tls) = &effective.tls {
        readable(tls, &effective.tls_place, report);
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
    }
}

fn endpoint(spec: &EndpointSpec, around: &Surroundings<'_>, report: &mut Report<'_>) -> Option<Endpoint> {
    let verify = match &spec.verify {
        VerifySpec::Open => Rule::Open,
        VerifySpec::Signed { provider, secrets } => {
            let mut read = Vec::new();
            for (reference, place) in secrets {
                let Some(secret) = secret(reference, place, around, report) else { continue };
                let secret = Secret::new(secret.bytes.to_vec());
                // One by one, so that the message names the reference at fault.
                match Rule::signed(provider, std::slice::from_ref(&secret)) {
                    Ok(_) => read.push(secret),
                    Err(why) => report.error(
                        place,
                        format!("{reference} cannot be used for {}: {why}", provider.name),
                        "copy the secret again, whole",
                    ),
                }
            }
            if read.len() < secrets.len() {
                return None;
            }
            match Rule::signed(provider, &read) {
                Ok(rule) => rule,
                Err(why) => {
                    report.error(&spec.verify_place, format!("the secrets cannot be used together: {why}"), "");
                    return None;
                }
            }
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
    })
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
        let Some(secret) = secret(reference, place, around, report) else { continue };
        if secret.bytes.len() < MIN_TOKEN_BYTES {
            let message =
                format!("{reference} holds fewer than {MIN_TOKEN_BYTES} bytes, and a token that short can be guessed");
            report.error(place, message, format!("run `relay-server token create {}`", spec.name));
            continue;
        }
        hashes.push(TokenHash::of(&secret.bytes));
    }
    Token { name: Arc::from(&*spec.name), hashes, endpoints: spec.endpoints.clone(), rights: spec.rights.clone() }
}

fn secret(
    reference: &SecretRef,
    place: &Place,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) -> Option<SecretBytes> {
    match reference.read(around) {
        Ok(secret) => {
            if secret.line_break_removed {
                report.warn(
                    place,
                    format!("{reference} ends with a line break, which is not taken as part of the secret"),
                    "write it with `printf %s`",
                );
            }
            Some(secret)
        }
        Err((message, help)) => {
            report.error(place, message, help);
            None
        }
    }
}
