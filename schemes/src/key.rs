//! From a secret's text to a key that is ready to sign.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Key lengths that Standard Webhooks allows, in bytes.
const WHSEC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a secret cannot be used. Never says what the secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SecretError {
    /// There is none.
    #[error("no secret is given")]
    Missing,
    /// It has no characters.
    #[error("the secret is empty")]
    Empty,
    /// It ends (or begins) with white space, mostly a newline of the file it came from.
    #[error("the secret begins or ends with white space")]
    WhiteSpace,
    /// It is not what the provider's row says.
    #[error("the secret is not {0}")]
    Encoding(&'static str),
    /// Its key is shorter or longer than the provider allows.
    #[error("the secret's key has {0} bytes, not 24 to 64")]
    Length(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SecretForm {
    Text,
    Hex,
    Base64,
    Whsec,
}

/// The keys of one endpoint, newest first, with their first block already hashed.
#[derive(Clone)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
pub(crate) enum Key {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys([{} secret])", self.0.len())
    }
}

impl Keys {
    pub(crate) fn new(algorithm: Algorithm, form: SecretForm, secrets: &[Secret]) -> Result<Self, SecretError> {
        let keys = secrets.iter().map(|secret| Ok(Key::new(algorithm, &decode(form, secret.expose())?)));
        let keys: Vec<Key> = keys.collect::<Result<_, SecretError>>()?;
        if keys.is_empty() { Err(SecretError::Missing) } else { Ok(Self(keys)) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    pub(crate) fn newest(&self) -> &Key {
        &self.0[0]
    }
}

impl Key {
    fn new(algorithm: Algorithm, key: &[u8]) -> Self {
        const ANY_LENGTH: &str = "HMAC takes keys of any length";
        match algorithm {
            Algorithm::HmacSha1 => Self::Sha1(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::HmacSha256 => Self::Sha256(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::HmacSha384 => Self::Sha384(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::HmacSha512 => Self::Sha512(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
        }
    }

    /// The digest over `parts`, one after the other.
    pub(crate) fn sign<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> Digest {
        fn run<'a, M: Mac + Clone>(mac: &M, parts: impl Iterator<Item = &'a [u8]>) -> Digest {
            let mut mac = mac.clone();
            parts.for_each(|part| mac.update(part));
            Digest(Zeroizing::new(mac.finalize().into_bytes().to_vec()))
        }
        match self {
            Self::Sha1(mac) => run(mac, parts),
            Self::Sha256(mac) => run(mac, parts),
            Self::Sha384(mac) => run(mac, parts),
            Self::Sha512(mac) => run(mac, parts),
        }
    }
}

/// A computed digest: compared in constant time, printed by nobody.
pub(crate) struct Digest(Zeroizing<Vec<u8>>);

impl Digest {
    /// The one place where signatures are compared.
    pub(crate) fn equals(&self, claimed: &[u8]) -> subtle::Choice {
        subtle::ConstantTimeEq::ct_eq(&self.0[..], claimed)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn decode(form: SecretForm, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    if text.is_empty() {
        return Err(SecretError::Empty);
    }
    if text.trim_ascii().len() != text.len() {
        return Err(SecretError::WhiteSpace);
    }
    let key = match form {
        SecretForm::Text => text.to_vec(),
        SecretForm::Hex => HEXLOWER_PERMISSIVE.decode(text).map_err(|_| SecretError::Encoding("hexadecimal"))?,
        SecretForm::Base64 => BASE64.decode(text).map_err(|_| SecretError::Encoding("base64"))?,
        SecretForm::Whsec => {
            let base64 = text.strip_prefix(b"whsec_").unwrap_or(text);
            let key = BASE64.decode(base64).map_err(|_| SecretError::Encoding("base64, with or without whsec_"))?;
            if !WHSEC_BYTES.contains(&key.len()) {
                return Err(SecretError::Length(key.len()));
            }
            key
        }
    };
    if key.is_empty() { Err(SecretError::Empty) } else { Ok(Zeroizing::new(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_wrong_form_is_refused_with_what_is_wrong() {
        let check = |form, text: &str| decode(form, text.as_bytes()).map(|key| key.len());
        assert_eq!(check(SecretForm::Text, "abc"), Ok(3));
        assert_eq!(check(SecretForm::Text, ""), Err(SecretError::Empty));
        assert_eq!(check(SecretForm::Text, "abc\n"), Err(SecretError::WhiteSpace));
        assert_eq!(check(SecretForm::Hex, "00ff"), Ok(2));
        assert_eq!(check(SecretForm::Hex, "00fg"), Err(SecretError::Encoding("hexadecimal")));
        assert_eq!(check(SecretForm::Base64, "AAAA"), Ok(3));
        assert_eq!(check(SecretForm::Base64, "AAA"), Err(SecretError::Encoding("base64")));
        assert_eq!(check(SecretForm::Whsec, "whsec_AAAA"), Err(SecretError::Length(3)));
        assert_eq!(check(SecretForm::Whsec, &"A".repeat(32)), Ok(24));
    }

    #[test]
    fn secrets_and_keys_are_masked() {
        let secret = Secret::new("hunter2");
        let keys = Keys::new(Algorithm::HmacSha256, SecretForm::Text, std::slice::from_ref(&secret)).expect("a key");
        assert_eq!(format!("{secret:?} {keys:?}"), "[secret] Keys([1 secret])");
    }
}
