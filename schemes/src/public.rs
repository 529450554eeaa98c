//! Public keys: raw, SPKI, X.509 certificates, JSON Web Keys. The arithmetic is aws-lc-rs's alone.
//!
//! A certificate is trusted because it came from the provider's own host over TLS, which whoever
//! fetched it has to see to; here its time of validity is checked.

use std::collections::BTreeMap;

use aws_lc_rs::{
    digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256},
    signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm},
};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use serde::Deserialize;

use crate::{
    key::{Algorithm, SecretError, SecretForm},
    template::SignedPart,
};

const MAX_KEYS: usize = 64;

/// The DER in front of an Ed25519 public key in its SPKI form (RFC 8410).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    /// Its key id, or the URL it came from.
    pub(crate) name: Option<String>,
    shape: Shape,
    /// From when until when it may be used, in Unix seconds.
    valid: Option<(i64, i64)>,
}

/// What is signed.
pub(crate) enum Message {
    Whole(Vec<u8>),
    /// The digest of one with a long body in it, by the hash of the algorithm that signs.
    Digest(Digest),
}

impl Message {
    pub(crate) fn of(algorithm: Algorithm, parts: &[SignedPart<'_>], url: &str) -> Self {
        let texts: Option<Vec<_>> = parts.iter().map(|part| part.text(url, &[])).collect();
        if let Some(texts) = texts {
            return Self::Whole(texts.concat());
        }
        let mut hash = Context::new(match algorithm {
            Algorithm::RsaSha1 | Algorithm::EcdsaP256Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            _ => &SHA256,
        });
        parts.iter().for_each(|part| part.for_each(url, &[], &mut |piece| hash.update(piece)));
        Self::Digest(hash.finish())
    }
}

#[derive(Clone, Debug)]
enum Shape {
    /// A raw key, or an SPKI of an elliptic curve or RSA key.
    Bytes(Vec<u8>),
    /// Modulus and exponent.
    Rsa(Vec<u8>, Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl PublicKey {
    /// From a text in one of the forms of a single public key.
    pub(crate) fn read(form: SecretForm, text: &[u8]) -> Result<Self, SecretError> {
        let raw = |bytes: Vec<u8>, what| match bytes.len() {
            // Ed25519, or an uncompressed P-256 point.
            32 | 65 => Ok(bytes),
            _ => Err(SecretError::Encoding(what)),
        };
        let bytes = match form {
            SecretForm::PublicHex => {
                const WHAT: &str = "a public key in hexadecimal";
                raw(HEXLOWER_PERMISSIVE.decode(text).map_err(|_| SecretError::Encoding(WHAT))?, WHAT)?
            }
            SecretForm::PublicBase64 | SecretForm::Whpk => {
                const WHAT: &str = "a public key in base64";
                let text = text.strip_prefix(b"whpk_").unwrap_or(text);
                raw(BASE64.decode(text).map_err(|_| SecretError::Encoding(WHAT))?, WHAT)?
            }
            _ => pem(text).ok_or(SecretError::Encoding("a public key as PEM or base64 of its DER"))?,
        };
        Ok(Self { name: None, shape: Shape::Bytes(without_wrapping(bytes)), valid: None })
    }

    /// The keys of a JSON Web Key Set; kinds that are not known are left out.
    pub(crate) fn set(text: &str) -> Result<Vec<Self>, SecretError> {
        let wrong = |problem| SecretError::PublicKey { name: "jwks".to_owned(), problem };
        let set: Set = serde_json::from_str(text).map_err(|_| wrong("it is not a JSON Web Key Set"))?;
        if set.keys.is_empty() || set.keys.len() > MAX_KEYS {
            return Err(wrong("it has no keys, or more than 64"));
        }
        Ok(set.keys.into_iter().filter_map(Self::from_jwk).collect())
    }

    fn from_jwk(jwk: Jwk) -> Option<Self> {
        let part = |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_deref()?.as_bytes()).ok();
        let shape = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Shape::Rsa(part(&jwk.n)?, part(&jwk.e)?),
            ("EC", Some("P-256")) => Shape::Bytes([&[4][..], &part(&jwk.x)?, &part(&jwk.y)?].concat()),
            ("OKP", Some("Ed25519")) => Shape::Bytes(part(&jwk.x)?),
            _ => return None,
        };
        Some(Self { name: jwk.kid, shape, valid: None })
    }

    pub(crate) fn named(all: &BTreeMap<String, String>) -> Result<Vec<Self>, SecretError> {
        let all = all.iter().map(|(name, text)| {
            let wrong = |problem| SecretError::PublicKey { name: name.clone(), problem };
            if !text.contains("BEGIN CERTIFICATE") {
                let mut key = Self::read(SecretForm::Spki, text.as_bytes()).map_err(|_| wrong("it is not PEM"))?;
                key.name = Some(name.clone());
                return Ok(key);
            }
            let (_, block) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| wrong("it is not PEM"))?;
            let certificate = block.parse_x509().map_err(|_| wrong("it is not a certificate"))?;
            let validity = certificate.validity();
            Ok(Self {
                name: Some(name.clone()),
                shape: Shape::Bytes(without_wrapping(certificate.public_key().raw.to_vec())),
                valid: Some((validity.not_before.timestamp(), validity.not_after.timestamp())),
            })
        });
        all.collect()
    }

    pub(crate) fn is_valid_at(&self, now: i64) -> bool {
        self.valid.is_none_or(|(from, until)| (from..=until).contains(&now))
    }

    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &Message, signed: &[u8]) -> bool {
        let check = |rule: &'static dyn VerificationAlgorithm| match (&self.shape, message) {
            (Shape::Bytes(bytes), Message::Whole(text)) => {
                UnparsedPublicKey::new(rule, bytes).verify(text, signed).is_ok()
            }
            (Shape::Bytes(bytes), Message::Digest(digest)) => {
                UnparsedPublicKey::new(rule, bytes).verify_digest(digest, signed).is_ok()
            }
            (Shape::Rsa(..), _) => false,
        };
        let rsa = |rule: &'static signature::RsaParameters| match (&self.shape, message) {
            (Shape::Rsa(n, e), Message::Whole(text)) => {
                RsaPublicKeyComponents { n, e }.verify(rule, text, signed).is_ok()
            }
            (Shape::Rsa(..), Message::Digest(_)) => false, // Rows of key sets want the whole body.
            (Shape::Bytes(_), _) => check(rule),
        };
        match algorithm {
            Algorithm::Ed25519 => check(&signature::ED25519),
            Algorithm::EcdsaP256Sha256 => check(&signature::ECDSA_P256_SHA256_ASN1),
            Algorithm::EcdsaP256Sha1 => check(&signature::ECDSA_P256_SHA1_ASN1),
            Algorithm::JwtEs256 | Algorithm::EcdsaP256Sha256Raw => check(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::RsaSha1 => rsa(&signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::RsaSha256 | Algorithm::JwtRs256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            _ => false,
        }
    }
}

/// The bytes of PEM, on however many lines, or of plain base64.
fn pem(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let inner = match text.strip_prefix("-----BEGIN ") {
        None => text,
        Some(rest) => rest.split_once("-----")?.1.split_once("-----END ")?.0,
    };
    let inner: Vec<u8> = inner.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = BASE64.decode(&inner).ok()?;
    (bytes.len() >= 32).then_some(bytes)
}

/// An Ed25519 key without its SPKI; others as they are, since aws-lc-rs reads theirs.
fn without_wrapping(bytes: Vec<u8>) -> Vec<u8> {
    bytes.strip_prefix(&ED25519_SPKI).map(<[u8]>::to_vec).unwrap_or(bytes)
}
