//! From what an endpoint knows (secrets, public keys, settings) to keys that are ready to use.
//!
//! Secrets are read in exactly the form that the row says; what is surely meant is taken with a
//! warning, everything else is refused with what is wrong. Nothing here prints a secret.

use std::collections::BTreeMap;

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, digest::FixedOutput};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{public::PublicKey, secret::Secret, template::SignedPart};

/// Key lengths that Standard Webhooks allows, in bytes.
const WHSEC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Shorter keys than this are refused: the text was surely something else.
const WHSEC_LEAST: usize = 16;

/// What an endpoint knows: its secrets, newest first, and what else its scheme asks for.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// Secrets, or public keys as text, newest first; any of them may match.
    pub secrets: Vec<Secret>,
    /// The URL that was registered with the provider, where it is not the one that the edge sees.
    pub public_url: Option<String>,
    /// Values that rows name as `setting:NAME`, such as `audience`, `email`, `topic_arns`, `app_key`.
    pub settings: BTreeMap<String, Vec<String>>,
    pub jwks: Option<String>,
    /// Certificates by their URL and public keys by their id, as PEM.
    pub named_keys: BTreeMap<String, String>,
    /// How far a timestamp may be from now, both ways, in seconds, in place of the row's own rule.
    pub tolerance_s: Option<u32>,
}

impl Material {
    pub fn secrets(secrets: &[Secret]) -> Self {
        Self { secrets: secrets.to_vec(), ..Self::default() }
    }
}

/// Why a secret cannot be used. Never says what the secret is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SecretError {
    #[error("no secret is given")]
    Missing,
    #[error("the secret is empty")]
    Empty,
    /// It begins or ends with white space that is not a newline of the file it came from.
    #[error("the secret begins or ends with white space")]
    WhiteSpace,
    #[error("the secret is not {0}")]
    Encoding(&'static str),
    #[error("the secret's key has {0} bytes, not 24 to 64; is it the secret of something else?")]
    Length(usize),
    #[error("the scheme needs the setting {0:?}")]
    Setting(String),
    /// What says from where the provider's keys come cannot be read.
    #[error("the setting {name:?}: {value:?} is no ARN such as arn:aws:sns:eu-central-1:123456789012:alarms")]
    Arn { name: String, value: String },
    #[error("the scheme needs {0}")]
    PublicKeys(&'static str),
    #[error("the key or certificate {name:?} cannot be read: {problem}")]
    /// Named by its id or URL.
    PublicKey { name: String, problem: &'static str },
}

/// What was done to a secret that was not quite in its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SecretWarning {
    #[error("the newline at the end of the secret was left out")]
    NewlineStripped,
    #[error("the secret's key has {0} bytes; the provider says 24 to 64")]
    Length(usize),
    #[error("the secret begins with whsec_, which this provider's scheme takes as part of the key")]
    LooksPrefixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    Sha1,
    Sha256,
    Sha512,
    Ed25519,
    EcdsaP256Sha256,
    /// With the signature as r and s, 32 bytes each.
    EcdsaP256Sha256Raw,
    EcdsaP256Sha1,
    RsaSha1,
    RsaSha256,
    Token,
    Basic,
    JwtHs256,
    JwtRs256,
    JwtEs256,
}

impl Algorithm {
    /// Whether whoever can verify can also sign.
    pub(crate) const fn is_symmetric(self) -> bool {
        !matches!(
            self,
            Self::Ed25519
                | Self::EcdsaP256Sha256
                | Self::EcdsaP256Sha256Raw
                | Self::EcdsaP256Sha1
                | Self::RsaSha1
                | Self::RsaSha256
                | Self::JwtRs256
                | Self::JwtEs256
        )
    }

    pub(crate) const fn is_jwt(self) -> bool {
        matches!(self, Self::JwtHs256 | Self::JwtRs256 | Self::JwtEs256)
    }

    /// Whether it is a hash under a key, not a hash of a text in which the key stands.
    pub(crate) const fn is_keyed_hash(self) -> bool {
        matches!(self, Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 | Self::JwtHs256)
    }

    pub(crate) const fn is_token(self) -> bool {
        matches!(self, Self::Token | Self::Basic)
    }
}

/// How a secret's text becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SecretForm {
    Text,
    /// Text after Unicode NFKD.
    Nfkd,
    Hex,
    Base64,
    /// `whsec_`, which may be missing, and base64.
    Whsec,
    /// Base64 after `whsec_`; without that prefix, text.
    WhsecOrText,
    /// Base64 after `whsec_`, and the whole as text: two keys.
    WhsecAndText,
    Sha1,
    /// A public key: `whpk_`, which may be missing, and base64 of its raw bytes.
    Whpk,
    PublicHex,
    PublicBase64,
    /// A public key: PEM, or base64 of its SPKI.
    Spki,
    Jwks,
    Named,
}

impl SecretForm {
    pub(crate) const fn is_public(self) -> bool {
        matches!(self, Self::Whpk | Self::PublicHex | Self::PublicBase64 | Self::Spki | Self::Jwks | Self::Named)
    }
}

/// What tags are made over beside the request's id, so that none is a signature of anything.
const TAG_CONTEXT: &[u8] = b"relay: which secret verified this\0";

/// The keys of one endpoint, newest first, with what else its scheme needs to know.
#[derive(Clone)]
pub struct Keys {
    pub(crate) keys: Vec<Key>,
    pub(crate) public: Vec<PublicKey>,
    settings: BTreeMap<String, Vec<String>>,
    public_url: Option<String>,
    pub(crate) tolerance_s: Option<i64>,
    warnings: Vec<SecretWarning>,
    pub(crate) lead: usize,
}

/// Stands for a secret in the record of one request: distinguishes it from the endpoint's others, and helps nobody who has
/// not the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTag([u8; 8]);

impl KeyTag {
    pub const fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

#[derive(Clone)]
pub(crate) enum Key {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    Plain(Algorithm, Secret),
    /// For HMACs by several algorithms, of which this is the one to sign with.
    Several(Algorithm, Secret),
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys([{} secret], [{} public])", self.keys.len(), self.public.len())
    }
}

impl Keys {
    pub(crate) fn new(
        algorithm: Algorithm,
        form: SecretForm,
        suffix: &str,
        several: bool,
        material: &Material,
    ) -> Result<Self, SecretError> {
        let mut keys = Self {
            keys: Vec::new(),
            public: Vec::new(),
            settings: material.settings.clone(),
            public_url: material.public_url.clone(),
            tolerance_s: material.tolerance_s.map(i64::from),
            warnings: Vec::new(),
            lead: 0,
        };
        match form {
            SecretForm::Jwks => {
                let text = material.jwks.as_deref().ok_or(SecretError::PublicKeys("a JSON Web Key Set"))?;
                keys.public = PublicKey::set(text)?;
                return Ok(keys);
            }
            SecretForm::Named => {
                // None yet is fine: the request names one, and whoever fetches it makes the keys anew.
                keys.public = PublicKey::named(&material.named_keys)?;
                return Ok(keys);
            }
            _ => {}
        }
        for secret in &material.secrets {
            let text = keys.trim(secret.expose())?;
            if form.is_public() {
                keys.public.push(PublicKey::read(form, text)?);
                continue;
            }
            let mut key = keys.decode(form, text)?;
            key.extend_from_slice(suffix.as_bytes());
            for key in both(form, text).into_iter().chain([key]) {
                keys.keys.push(match several {
                    true => Key::Several(algorithm, Secret::new(key.to_vec())),
                    false => Key::new(algorithm, &key),
                });
            }
        }
        if keys.keys.is_empty() && keys.public.is_empty() {
            return Err(SecretError::Missing);
        }
        Ok(keys)
    }

    /// What was done to secrets that were not quite in their form.
    pub fn warnings(&self) -> &[SecretWarning] {
        &self.warnings
    }

    /// The key that signs.
    pub(crate) fn lead(&self) -> Option<&Key> {
        self.keys.get(self.lead)
    }

    /// The tag of a shared secret, for a request with this id: another one in each request's record.
    pub fn tag(&self, index: usize, id: &[u8]) -> Option<KeyTag> {
        let parts = [SignedPart::Secret, SignedPart::Bytes(TAG_CONTEXT.into()), SignedPart::Bytes(id.into())];
        let digest = self.keys.get(index)?.sign(&parts, "");
        Some(KeyTag(digest.bytes().first_chunk().copied()?))
    }

    /// How many shared secrets there are.
    pub fn shared(&self) -> usize {
        self.keys.len()
    }

    /// Which of the shared secrets has this tag, from 1, and how many there are. `None` if none has it.
    pub fn number_of(&self, tag: &[u8], id: &[u8]) -> Option<(usize, usize)> {
        let place = (0..self.keys.len()).find(|index| self.tag(*index, id).is_some_and(|own| own.0 == tag))?;
        Some((place + 1, self.keys.len()))
    }

    /// These keys, of which the one with this tag signs. `None` if none has it.
    pub fn signing_as(&self, tag: &[u8], id: &[u8]) -> Option<Self> {
        let (number, _) = self.number_of(tag, id)?;
        Some(Self { lead: number - 1, ..self.clone() })
    }

    pub(crate) fn settings(&self, name: &str) -> &[String] {
        self.settings.get(name).map_or(&[], Vec::as_slice)
    }

    /// The URL that stands in place of a request's own, if the endpoint has one.
    pub fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    /// These keys with another URL, for trying where a proxy went wrong.
    pub(crate) fn with_url(&self, url: &str) -> Self {
        Self { public_url: Some(url.to_owned()), ..self.clone() }
    }

    fn trim<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], SecretError> {
        let stripped = text.strip_suffix(b"\n").map(|text| text.strip_suffix(b"\r").unwrap_or(text));
        let text = match stripped {
            Some(stripped) => {
                self.warnings.push(SecretWarning::NewlineStripped);
                stripped
            }
            None => text,
        };
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        if text.trim_ascii().len() != text.len() {
            return Err(SecretError::WhiteSpace);
        }
        Ok(text)
    }

    fn decode(&mut self, form: SecretForm, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let key = match form {
            SecretForm::Hex => HEXLOWER_PERMISSIVE.decode(text).map_err(|_| SecretError::Encoding("hexadecimal"))?,
            SecretForm::Base64 => BASE64.decode(text).map_err(|_| SecretError::Encoding("base64"))?,
            SecretForm::Nfkd => {
                let text = std::str::from_utf8(text).map_err(|_| SecretError::Encoding("UTF-8"))?;
                text.nfkd().collect::<String>().into_bytes()
            }
            SecretForm::Sha1 => Sha1::digest(text).to_vec(),
            SecretForm::WhsecOrText if !text.starts_with(b"whsec_") => text.to_vec(),
            SecretForm::Whsec | SecretForm::WhsecOrText => {
                let base64 = text.strip_prefix(b"whsec_").unwrap_or(text);
                let key = BASE64.decode(base64).map_err(|_| SecretError::Encoding("base64, with or without whsec_"))?;
                if key.len() < WHSEC_LEAST {
                    return Err(SecretError::Length(key.len()));
                }
                if !WHSEC_BYTES.contains(&key.len()) {
                    self.warnings.push(SecretWarning::Length(key.len()));
                }
                key
            }
            _ => text.to_vec(),
        };
        if key.is_empty() { Err(SecretError::Empty) } else { Ok(Zeroizing::new(key)) }
    }
}

/// The second reading of a secret that is meant in two ways: as text, and as base64 behind `whsec_`, with or without
/// padding. Polar's own libraries try both.
fn both(form: SecretForm, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let base64 = text.strip_prefix(b"whsec_")?;
    let unpadded = base64.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let padding = base64.len() - unpadded;
    if form != SecretForm::WhsecAndText || (padding > 0 && !base64.len().is_multiple_of(4)) {
        return None;
    }
    let key = BASE64_NOPAD.decode(&base64[..unpadded]).ok()?;
    (key.len() >= WHSEC_LEAST).then(|| Zeroizing::new(key))
}

impl Key {
    fn new(algorithm: Algorithm, key: &[u8]) -> Self {
        const ANY_LENGTH: &str = "HMAC takes keys of any length";
        match algorithm {
            Algorithm::HmacSha1 => Self::Sha1(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::HmacSha256 | Algorithm::JwtHs256 => Self::Sha256(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::HmacSha384 => Self::Sha384(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            Algorithm::HmacSha512 => Self::Sha512(Hmac::new_from_slice(key).expect(ANY_LENGTH)),
            other => Self::Plain(other, Secret::new(key)),
        }
    }

    /// The text of a token or of a secret that is hashed with what it signs.
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Self::Plain(_, secret) => secret.expose(),
            _ => &[],
        }
    }

    /// The digest by one of several algorithms, if the key is for several.
    pub(crate) fn sign_by(&self, algorithm: Option<Algorithm>, parts: &[SignedPart<'_>], url: &str) -> Digest {
        match (self, algorithm) {
            (Self::Several(_, secret), Some(algorithm)) => Self::new(algorithm, secret.expose()).sign(parts, url),
            _ => self.sign(parts, url),
        }
    }

    pub(crate) fn sign(&self, parts: &[SignedPart<'_>], url: &str) -> Digest {
        match self {
            Self::Sha1(mac) => self.hash(mac.clone(), parts, url),
            Self::Sha256(mac) => self.hash(mac.clone(), parts, url),
            Self::Sha384(mac) => self.hash(mac.clone(), parts, url),
            Self::Sha512(mac) => self.hash(mac.clone(), parts, url),
            Self::Plain(Algorithm::Sha1, _) => self.hash(Sha1::new(), parts, url),
            Self::Plain(Algorithm::Sha512, _) => self.hash(Sha512::new(), parts, url),
            Self::Plain(..) => self.hash(Sha256::new(), parts, url),
            Self::Several(algorithm, secret) => Self::new(*algorithm, secret.expose()).sign(parts, url),
        }
    }

    fn hash(&self, mut hash: impl FixedOutput, parts: &[SignedPart<'_>], url: &str) -> Digest {
        parts.iter().for_each(|part| part.hash(&mut hash, url, self.text()));
        Digest::new(&hash.finalize_fixed())
    }
}

/// A computed digest: compared in constant time, printed by nobody.
pub(crate) struct Digest {
    bytes: [u8; 64],
    /// What is beyond stays zero.
    len: usize,
}

impl Drop for Digest {
    fn drop(&mut self) {
        self.bytes[..self.len].zeroize();
    }
}

impl Digest {
    pub(crate) fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..digest.len()].copy_from_slice(digest);
        Self { bytes, len: digest.len() }
    }

    /// The digest of a token, so that tokens of any length are compared in the same time.
    pub(crate) fn of(token: &[u8]) -> Self {
        Self::new(&Sha256::digest(token))
    }

    /// The one place where signatures and tokens are compared.
    pub(crate) fn equals(&self, claimed: &[u8]) -> subtle::Choice {
        subtle::ConstantTimeEq::ct_eq(self.bytes(), claimed)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(form: SecretForm, text: &str) -> Result<Keys, SecretError> {
        Keys::new(Algorithm::HmacSha256, form, "", false, &Material::secrets(&[Secret::new(text)]))
    }

    #[test]
    fn a_secret_in_the_wrong_form_is_refused_with_what_is_wrong() {
        let check = |form, text: &str| keys(form, text).map(|keys| keys.warnings);
        assert_eq!(check(SecretForm::Text, "abc"), Ok(vec![]));
        assert_eq!(check(SecretForm::Text, ""), Err(SecretError::Empty));
        assert_eq!(check(SecretForm::Text, "\n"), Err(SecretError::Empty));
        assert_eq!(check(SecretForm::Text, "abc\r\n"), Ok(vec![SecretWarning::NewlineStripped]));
        assert_eq!(check(SecretForm::Text, " abc"), Err(SecretError::WhiteSpace));
        assert_eq!(check(SecretForm::Hex, "00ff"), Ok(vec![]));
        assert_eq!(check(SecretForm::Hex, "00fg"), Err(SecretError::Encoding("hexadecimal")));
        assert_eq!(check(SecretForm::Base64, "AAAA"), Ok(vec![]));
        assert_eq!(check(SecretForm::Base64, "AAA"), Err(SecretError::Encoding("base64")));
        assert_eq!(check(SecretForm::Whsec, "whsec_AAAA"), Err(SecretError::Length(3)));
        assert_eq!(check(SecretForm::Whsec, &"A".repeat(24)), Ok(vec![SecretWarning::Length(18)]));
        assert_eq!(check(SecretForm::Whsec, &"A".repeat(32)), Ok(vec![]));
        assert_eq!(
            check(SecretForm::Whsec, "not base64!"),
            Err(SecretError::Encoding("base64, with or without whsec_"))
        );
    }

    #[test]
    fn secrets_and_keys_are_masked() {
        let secret = Secret::new("hunter2");
        let material = Material::secrets(std::slice::from_ref(&secret));
        let keys = keys(SecretForm::Text, "hunter2").expect("a key");
        let printed = format!("{secret:?} {keys:?} {material:?}");
        assert!(printed.starts_with("[secret] Keys([1 secret], [0 public]) "), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
