//! What a signature may cover, exactly as it was received, and why a request is refused.
//!
//! No parsing here, and nothing about any provider.

use thiserror::Error;

/// A request's headers, as far as the engine needs them.
pub trait Headers {
    /// Calls `each` with every value of the header `name`, which is in lower case, in order.
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8]));
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        self.iter()
            .filter(|(key, _)| key.as_ref().eq_ignore_ascii_case(name))
            .for_each(|(_, value)| each(value.as_ref()));
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const LEN: usize> Headers for [(N, V); LEN] {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        self.as_slice().for_each(name, each);
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        self.as_slice().for_each(name, each);
    }
}

/// A request, exactly as it was received.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "the other names say it all")]
pub struct Request<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The whole public URL, `https://host/path?query`, as the edge sees it. A configured
    /// [`public_url`](crate::Material::public_url) goes before it.
    pub url: &'a str,
    pub headers: &'a dyn Headers,
    /// The raw body; empty for schemes that do not need it.
    pub body: &'a [u8],
}

/// The value is there more than once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Doubled;

impl<'a> Request<'a> {
    /// The only value of a header, `None` if it is not there.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a [u8]>, Doubled> {
        let (mut value, mut count) = (None, 0);
        self.headers.for_each(name, &mut |text| {
            count += 1;
            if count == 1 {
                value = Some(text);
            }
        });
        if count > 1 { Err(Doubled) } else { Ok(value) }
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        let mut there = false;
        self.headers.for_each(name, &mut |_| there = true);
        there
    }

    /// Whether the body says that it is an urlencoded form.
    pub(crate) fn is_urlencoded(&self) -> bool {
        let kind = self.header("content-type").ok().flatten().unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    }
}

/// A request whose signature is right and fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which of the keys signed it, counted from the newest.
    pub key_index: usize,
    /// When it was signed, in Unix seconds, where the scheme says so.
    pub timestamp: Option<i64>,
    /// What was signed, to recognise it when it comes again.
    pub fingerprint: Fingerprint,
}

/// Stands for what was signed: the same for an unchanged request, whatever else of it was changed, and not to be
/// had for another one by who does not hold the key. Never printed, since it may be the signature.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// From a digest, of which the first 32 bytes are enough.
    pub(crate) fn of(digest: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let len = digest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&digest[..len]);
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[fingerprint]")
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl Refusal {
            /// Every refusal there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// A stable code for answers, logs and metrics.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

refusals! {
    /// There is no signature or token.
    SignatureMissing = "signature_missing", "the signature is missing";
    /// The signature does not follow the scheme.
    SignatureMalformed = "signature_malformed", "the signature is malformed";
    /// The signature stands there more than once.
    SignatureDuplicated = "signature_duplicated", "the signature is there more than once";
    /// No signature is right under any of the secrets.
    SignatureMismatch = "signature_mismatch", "the signature does not match";
    /// There is no timestamp.
    TimestampMissing = "timestamp_missing", "the timestamp is missing";
    /// The timestamp is not in its format, or is there more than once.
    TimestampMalformed = "timestamp_malformed", "the timestamp is malformed";
    /// The signature is right but too old.
    TimestampTooOld = "timestamp_too_old", "the timestamp is too old";
    /// The signature is right but from the future.
    TimestampTooNew = "timestamp_too_new", "the timestamp is too far in the future";
    /// There is no message id.
    IdMissing = "id_missing", "the message id is missing";
    /// The message id is there more than once.
    IdDuplicated = "id_duplicated", "the message id is there more than once";
    /// What is signed looks like a challenge, and whoever asks gets a challenge signed.
    ChallengeText = "challenge_text", "what is signed looks like a challenge, which anyone can have signed";
    /// Something that the scheme signs or asks for is not there, or is there more than once.
    PartMissing = "part_missing", "a header or member that the scheme needs is missing or doubled";
    /// Something that must have a certain value has another.
    ValueWrong = "value_wrong", "a header or member does not have the value that the scheme asks for";
    /// The body is not in the format in which the signature stands.
    BodyMalformed = "body_malformed", "the body is malformed, or has a signed member more than once";
    /// The body is not the one whose hash was signed.
    BodyMismatch = "body_mismatch", "the body does not match its signed hash";
    /// The key or certificate that the request names is not known.
    KeyUnknown = "key_unknown", "the key or certificate that the request names is not known";
    /// The certificate that the request names cannot be trusted.
    CertificateRefused = "certificate_refused", "the certificate is not from the provider's host, or not valid now";
    /// A claim of the token is missing or wrong.
    ClaimWrong = "claim_wrong", "a claim of the token is missing or wrong";
    /// The endpoint has no secret yet.
    SecretMissing = "secret_missing", "no secret is known for this endpoint yet";
}
