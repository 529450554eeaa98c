//! The engine: checks a request against a row, or runs the row backwards and signs one.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use subtle::Choice;
use thiserror::Error;

use crate::{
    key::{Digest, Key, Keys},
    row::{Encoding, Layout, Piece, Scheme, TimestampPlace},
};

/// Most signatures of one request that are looked at; more are refused as malformed.
pub const MAX_CANDIDATES: usize = 16;

/// Longest timestamp that is read, in digits.
const MAX_TIMESTAMP_DIGITS: usize = 15;

/// A request's headers, as far as the engine needs them.
pub trait Headers {
    /// Calls `each` with every value of the header `name`, which is in lower case, in order.
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.iter()
            .filter(|(key, _)| key.as_ref().eq_ignore_ascii_case(name))
            .for_each(|(_, value)| each(value.as_ref()));
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const LEN: usize> Headers for [(N, V); LEN] {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.as_slice().for_each(name, each);
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn for_each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.as_slice().for_each(name, each);
    }
}

/// What a signature may cover, exactly as it was received.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The raw body; empty for schemes that do not cover it.
    pub body: &'a [u8],
}

/// A request whose signature is right and fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which of the keys signed it, counted from the newest.
    pub key_index: usize,
    /// When it was signed, in Unix seconds, where the scheme says so.
    pub timestamp: Option<i64>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no signature header.
    #[error("the signature header is missing")]
    SignatureMissing,
    /// The signature header does not follow the scheme.
    #[error("the signature header is malformed")]
    SignatureMalformed,
    /// The signature header stands there more than once.
    #[error("the signature header is there more than once")]
    SignatureDuplicated,
    /// No signature is right under any of the secrets.
    #[error("the signature does not match")]
    SignatureMismatch,
    /// There is no timestamp.
    #[error("the timestamp is missing")]
    TimestampMissing,
    /// The timestamp is not one number, or is there more than once.
    #[error("the timestamp is malformed")]
    TimestampMalformed,
    /// The signature is right but too old.
    #[error("the timestamp is too old")]
    TimestampTooOld,
    /// The signature is right but from the future.
    #[error("the timestamp is too far in the future")]
    TimestampTooNew,
    /// There is no message id.
    #[error("the message id is missing")]
    IdMissing,
    /// The message id is there more than once.
    #[error("the message id is there more than once")]
    IdDuplicated,
}

impl Refusal {
    /// A stable code for answers, logs and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureDuplicated => "signature_duplicated",
            Self::SignatureMismatch => "signature_mismatch",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampTooOld => "timestamp_too_old",
            Self::TimestampTooNew => "timestamp_too_new",
            Self::IdMissing => "id_missing",
            Self::IdDuplicated => "id_duplicated",
        }
    }
}

/// Why a request cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// The scheme signs a message id and none was given.
    #[error("the scheme signs a message id; give one")]
    IdMissing,
}

impl Scheme {
    /// Checks a request that arrived at `now_unix_s`.
    ///
    /// # Errors
    /// [`Refusal`] says why it must not pass.
    pub fn verify(&self, keys: &Keys, request: &Request<'_>, now_unix_s: i64) -> Result<Verified, Refusal> {
        let header = single(request.headers, &self.header, Refusal::SignatureDuplicated)?;
        let header = header.filter(|header| !header.is_empty()).ok_or(Refusal::SignatureMissing)?;
        let parsed = self.parse(&header)?;
        let timestamp = self.timestamp_text(request, parsed.timestamp)?;
        let timestamp_s = timestamp.as_deref().map(parse_timestamp).transpose()?;
        let id = match &self.id_header {
            None => None,
            Some(name) => {
                let id = single(request.headers, name, Refusal::IdDuplicated)?;
                Some(id.filter(|id| !id.is_empty()).ok_or(Refusal::IdMissing)?)
            }
        };
        let signed = Signed { body: request.body, timestamp: timestamp.as_deref(), id: id.as_deref() };
        // Every key against every candidate: how long it takes does not tell which of them was near.
        let mut matched = None;
        for (index, key) in keys.iter().enumerate() {
            let digest = self.digest(key, signed);
            let equal = |sum: Choice, claimed: &Vec<u8>| sum | digest.equals(claimed);
            let equal = parsed.signatures.iter().fold(Choice::from(0), equal);
            if bool::from(equal) && matched.is_none() {
                matched = Some(index);
            }
        }
        let key_index = matched.ok_or(Refusal::SignatureMismatch)?;
        if let (Some(at), Some(rule)) = (timestamp_s, &self.timestamp) {
            if now_unix_s.saturating_sub(at) > rule.past_s {
                return Err(Refusal::TimestampTooOld);
            }
            if at.saturating_sub(now_unix_s) > rule.future_s {
                return Err(Refusal::TimestampTooNew);
            }
        }
        Ok(Verified { key_index, timestamp: timestamp_s })
    }

    /// Signs a request with the newest key: the headers to add, names in lower case.
    ///
    /// # Errors
    /// [`SignError::IdMissing`] if the scheme signs a message id and `id` is `None`.
    pub fn sign(
        &self,
        keys: &Keys,
        now_unix_s: i64,
        id: Option<&str>,
        body: &[u8],
    ) -> Result<Vec<(String, String)>, SignError> {
        let mut headers = Vec::new();
        if let Some(name) = &self.id_header {
            headers.push((name.clone(), id.ok_or(SignError::IdMissing)?.to_owned()));
        }
        let timestamp = now_unix_s.to_string();
        let mut items = Vec::new();
        if let Some(rule) = &self.timestamp {
            match &rule.place {
                TimestampPlace::Header(name) => headers.push((name.clone(), timestamp.clone())),
                TimestampPlace::Field(field) => items.push((field.clone(), timestamp.clone())),
            }
        }
        let signed = Signed { body, timestamp: Some(timestamp.as_bytes()), id: id.map(str::as_bytes) };
        let signature = self.encoding.encode(self.digest(keys.newest(), signed).bytes());
        let value = match &self.layout {
            Layout::Single { prefix } => format!("{prefix}{signature}"),
            Layout::List { items: separator, pair, field } => {
                items.push((field.clone(), signature));
                let items: Vec<_> = items.into_iter().map(|(name, value)| format!("{name}{pair}{value}")).collect();
                items.join(&separator.to_string())
            }
        };
        headers.push((self.header.clone(), value));
        Ok(headers)
    }

    fn digest(&self, key: &Key, signed: Signed<'_>) -> Digest {
        key.sign(self.template.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_bytes(),
            Piece::Body => signed.body,
            Piece::Timestamp => signed.timestamp.unwrap_or_default(),
            Piece::Id => signed.id.unwrap_or_default(),
        }))
    }

    /// The signatures of the header, decoded, and the timestamp if it stands among them.
    fn parse<'h>(&self, header: &'h [u8]) -> Result<Parsed<'h>, Refusal> {
        let mut parsed = Parsed { signatures: Vec::new(), timestamp: None };
        match &self.layout {
            Layout::Single { prefix } => {
                let text = header.strip_prefix(prefix.as_bytes()).ok_or(Refusal::SignatureMalformed)?;
                parsed.signatures.push(self.encoding.decode(text).ok_or(Refusal::SignatureMalformed)?);
            }
            Layout::List { items, pair, field } => {
                let stamp = match &self.timestamp {
                    Some(rule) => match &rule.place {
                        TimestampPlace::Field(field) => Some(field.as_bytes()),
                        TimestampPlace::Header(_) => None,
                    },
                    None => None,
                };
                let mut count = 0;
                for item in header.split(|byte| *byte == *items as u8) {
                    count += 1;
                    if count > 2 * MAX_CANDIDATES {
                        return Err(Refusal::SignatureMalformed);
                    }
                    let Some(at) = item.iter().position(|byte| *byte == *pair as u8) else { continue };
                    let (name, value) = (&item[..at], &item[at + 1..]);
                    if Some(name) == stamp && parsed.timestamp.replace(value).is_some() {
                        return Err(Refusal::TimestampMalformed);
                    }
                    if name == field.as_bytes() {
                        // One that cannot be decoded matches nothing; another may be right.
                        parsed.signatures.extend(self.encoding.decode(value));
                        if parsed.signatures.len() > MAX_CANDIDATES {
                            return Err(Refusal::SignatureMalformed);
                        }
                    }
                }
                if parsed.signatures.is_empty() {
                    return Err(Refusal::SignatureMalformed);
                }
            }
        }
        Ok(parsed)
    }

    fn timestamp_text(&self, request: &Request<'_>, field: Option<&[u8]>) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(rule) = &self.timestamp else { return Ok(None) };
        let text = match &rule.place {
            TimestampPlace::Header(name) => single(request.headers, name, Refusal::TimestampMalformed)?,
            TimestampPlace::Field(_) => field.map(<[u8]>::to_vec),
        };
        text.filter(|text| !text.is_empty()).map(Some).ok_or(Refusal::TimestampMissing)
    }
}

#[derive(Clone, Copy)]
struct Signed<'a> {
    body: &'a [u8],
    timestamp: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
}

struct Parsed<'h> {
    signatures: Vec<Vec<u8>>,
    timestamp: Option<&'h [u8]>,
}

impl Encoding {
    /// The bytes behind exactly this encoding: lower-case hex, or base64 with nothing left over.
    fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Hex => HEXLOWER.decode(text).ok(),
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Base64Url => BASE64URL_NOPAD.decode(text).ok(),
        }
    }

    fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => HEXLOWER.encode(bytes),
            Self::Base64 => BASE64.encode(bytes),
            Self::Base64Url => BASE64URL_NOPAD.encode(bytes),
        }
    }
}

/// The only value of a header, `None` if it is not there.
fn single(headers: &dyn Headers, name: &str, doubled: Refusal) -> Result<Option<Vec<u8>>, Refusal> {
    let (mut value, mut count) = (None, 0);
    headers.for_each(name, &mut |text| {
        count += 1;
        if count == 1 {
            value = Some(text.to_vec());
        }
    });
    if count > 1 { Err(doubled) } else { Ok(value) }
}

fn parse_timestamp(text: &[u8]) -> Result<i64, Refusal> {
    if text.len() > MAX_TIMESTAMP_DIGITS || !text.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::TimestampMalformed);
    }
    Ok(text.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}
