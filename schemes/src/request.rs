//! What a signature may cover, exactly as it was received, and why a request is refused.
//!
//! No parsing here, and nothing about any provider.

use thiserror::Error;

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

/// A body that is too long to be in memory as a whole: it comes in pieces, in order, each time that it is asked for.
///
/// A scheme that finds nothing inside of the body takes it so ([`Scheme::needs_whole_body`](crate::Scheme::needs_whole_body)).
pub trait LongBody {
    fn len(&self) -> u64;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whoever cannot read all of it notes that down: what is computed of a part proves nothing.
    fn for_each(&self, each: &mut dyn FnMut(&[u8]));
}

/// A request, exactly as it was received.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The whole public URL, `https://host/path?query`, as the edge sees it. A configured
    /// [`public_url`](crate::Material::public_url) goes before it.
    pub url: &'a str,
    pub headers: &'a dyn Headers,
    /// The raw body; empty for schemes that do not need it, and where a [`LongBody`] goes with the request.
    pub body: &'a [u8],
}

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
    ($($name:ident = $code:literal, $text:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
        pub enum Refusal {
            $(#[error($text)] $name,)*
        }

        impl Refusal {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// A stable code for answers, logs and metrics.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

refusals! {
    SignatureMissing = "signature_missing", "the signature is missing";
    SignatureMalformed = "signature_malformed", "the signature is malformed";
    SignatureDuplicated = "signature_duplicated", "the signature is there more than once";
    SignatureMismatch = "signature_mismatch", "the signature does not match";
    TimestampMissing = "timestamp_missing", "the timestamp is missing";
    TimestampMalformed = "timestamp_malformed", "the timestamp is malformed";
    TimestampTooOld = "timestamp_too_old", "the timestamp is too old";
    TimestampTooNew = "timestamp_too_new", "the timestamp is too far in the future";
    IdMissing = "id_missing", "the message id is missing";
    IdDuplicated = "id_duplicated", "the message id is there more than once";
    ChallengeText = "challenge_text", "what is signed looks like a challenge, which anyone can have signed";
    PartMissing = "part_missing", "a header or member that the scheme needs is missing or doubled";
    ValueWrong = "value_wrong", "a header or member does not have the value that the scheme asks for";
    BodyMalformed = "body_malformed", "the body is malformed, or has a signed member more than once";
    BodyMismatch = "body_mismatch", "the body does not match its signed hash";
    KeyUnknown = "key_unknown", "the key or certificate that the request names is not known";
    CertificateRefused = "certificate_refused", "the certificate is not from the provider's host, or not valid now";
    ClaimWrong = "claim_wrong", "a claim of the token is missing or wrong";
    SecretMissing = "secret_missing", "no secret is known for this endpoint yet";
}
