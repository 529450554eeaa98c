//! Mistakes with the secret: another of the owner's, or the same in another form.

use super::{Finding, Trial, ageless};
use crate::{Material, Secret, invisible::dressed, key::SecretForm};

const MAX_SECRETS: usize = 16;

pub(super) fn another(it: &mut Trial<'_>, others: &[(&str, &Secret)]) -> Option<Finding> {
    let scheme = it.scheme;
    for (name, secret) in others.iter().take(MAX_SECRETS) {
        let Ok(keys) = scheme.keys_from(&with(it.material, secret)) else { continue };
        if it.passes(scheme, &ageless(keys), it.request) {
            return Some(Finding::OtherSecret { name: (*name).to_owned() });
        }
    }
    None
}

/// A configured secret, or another, read in another form than the row says.
pub(super) fn other_form(it: &mut Trial<'_>, others: &[(&str, &Secret)]) -> Option<Finding> {
    if !it.scheme.is_symmetric() {
        return None;
    }
    let own = it.material.secrets.iter().enumerate().map(|(index, secret)| match index {
        0 => ("the configured secret".to_owned(), secret.clone()),
        index => (format!("the configured secret number {}", index + 1), secret.clone()),
    });
    let others = others.iter().map(|(name, secret)| ((*name).to_owned(), (*secret).clone()));
    let all: Vec<_> = own.chain(others).take(MAX_SECRETS).collect();
    let strip = |text: &[u8], prefix: &[u8]| text.strip_prefix(prefix).map(<[u8]>::to_vec);
    for (name, secret) in &all {
        let text = secret.expose().trim_ascii();
        let stripped = strip(text, b"whsec_");
        let attempts: [(SecretForm, Option<Vec<u8>>, &str, &'static str); 8] = [
            (SecretForm::Text, Some(text.to_vec()), "", "text, as it stands"),
            (SecretForm::Text, Some(text.to_vec()), "\n", "text with a newline at its end"),
            (SecretForm::Text, Some(text.to_vec()), "\r\n", "text with CRLF at its end"),
            (SecretForm::Base64, Some(text.to_vec()), "", "base64 that is decoded first"),
            (SecretForm::Hex, Some(text.to_vec()), "", "hex that is decoded first"),
            (SecretForm::Base64, stripped.clone(), "", "base64 after whsec_ that is decoded first"),
            (SecretForm::Text, stripped, "", "text without whsec_"),
            (SecretForm::Sha1, Some(text.to_vec()), "", "text that is hashed first"),
        ];
        for (form, text, suffix, how) in attempts {
            let Some(text) = text else { continue };
            if form == it.scheme.secret && suffix == it.scheme.secret_suffix && *text == *secret.expose() {
                continue; // As the row says, which was tried as a secret of its own.
            }
            let mut scheme = it.scheme.clone();
            (scheme.secret, scheme.secret_suffix) = (form, suffix.to_owned());
            if let Some(alias) = &mut scheme.alias {
                (alias.secret, alias.secret_suffix) = (form, suffix.to_owned());
            }
            let Ok(keys) = scheme.keys_from(&with(it.material, &Secret::new(text))) else { continue };
            if it.passes(&scheme, &ageless(keys), it.request) {
                return Some(Finding::SecretForm { name: name.clone(), form: how });
            }
        }
    }
    for (name, secret) in &all {
        for (text, how) in dressed(secret.expose().trim_ascii()) {
            let Ok(keys) = it.scheme.keys_from(&with(it.material, &Secret::new(text.to_vec()))) else { continue };
            if it.passes(it.scheme, &ageless(keys), it.request) {
                return Some(Finding::SecretForm { name: name.clone(), form: how });
            }
        }
    }
    None
}

fn with(material: &Material, secret: &Secret) -> Material {
    Material { secrets: vec![secret.clone()], ..material.clone() }
}
