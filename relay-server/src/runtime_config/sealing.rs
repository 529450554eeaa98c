//! Secrets that come with a new endpoint, and the references that stand for them in its row.

use relay_schemes::Invisible;
use toml::{Table, Value};
use zeroize::Zeroizing;

use super::{ChangeError, made::sealed_name};
use crate::config::rows;

const MAX_SECRETS: usize = 16;

/// Nobody refers to a sealed secret but the relay: it may be another endpoint's.
pub(super) fn foreign_seals(row: &Table) -> Result<(), ChangeError> {
    match rows::sealed_in(row).first() {
        None => Ok(()),
        Some(name) => Err(ChangeError::Malformed(format!(
            "sealed:{name} is the relay's own note; write \"env:NAME\" or \"file:PATH\", or give the secret itself"
        ))),
    }
}

pub(super) type Sealed = Vec<(String, Zeroizing<Vec<u8>>)>;

/// Puts references to the secrets into the row, and the secrets under their names.
pub(super) fn seal_into(
    row: &mut Table,
    endpoint: &str,
    secrets: Vec<Zeroizing<String>>,
) -> Result<Sealed, ChangeError> {
    if secrets.is_empty() {
        return Ok(Vec::new());
    }
    let malformed = |why: &str| ChangeError::Malformed(why.to_owned());
    if secrets.len() > MAX_SECRETS || secrets.iter().any(|secret| secret.is_empty()) {
        return Err(malformed("give one secret or a few, and none that is empty"));
    }
    if let Some(what) = secrets.iter().find_map(|secret| Invisible::of(secret.as_bytes())) {
        return Err(ChangeError::Malformed(format!("a secret cannot be used: {what}")));
    }
    let Some(verify) = row.get_mut("verify").and_then(Value::as_table_mut) else {
        return Err(malformed("secrets are for a verify rule with a provider"));
    };
    if verify.contains_key("secrets") {
        return Err(malformed("give secrets or verify.secrets, not both"));
    }
    let sealed = (0..)
        .zip(secrets)
        .map(|(number, secret)| (sealed_name(endpoint, number), Zeroizing::new(secret.as_bytes().to_vec())));
    let sealed: Vec<_> = sealed.collect();
    let references = sealed.iter().map(|(name, _)| Value::String(format!("sealed:{name}"))).collect();
    verify.insert("secrets".to_owned(), Value::Array(references));
    Ok(sealed)
}
