//! How signatures are wrapped: a prefix, or a list of items; and their exact encodings.
//!
//! Invariants: one spelling per encoding (lower-case hex, canonical base64); at most
//! [`MAX_CANDIDATES`] signatures of one request are looked at.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use memchr::memmem;
use serde::Deserialize;

use crate::{key::Algorithm, request::Refusal};

/// Most signatures of one request that are looked at; more are refused as malformed.
pub const MAX_CANDIDATES: usize = 16;

/// Longest signature that is decoded, in bytes of text: RSA of 8192 bits in hex, with room.
const MAX_SIGNATURE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Hex,
    Base64,
    Base64Url,
}

impl Encoding {
    /// The bytes behind exactly this encoding: lower-case hex, or base64 with nothing left over.
    pub(crate) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        if text.is_empty() || text.len() > MAX_SIGNATURE {
            return None;
        }
        match self {
            Self::Hex => HEXLOWER.decode(text).ok(),
            Self::Base64 => BASE64.decode(text).ok(),
            Self::Base64Url => BASE64URL_NOPAD.decode(text).ok(),
        }
    }

    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => HEXLOWER.encode(bytes),
            Self::Base64 => BASE64.encode(bytes),
            Self::Base64Url => BASE64URL_NOPAD.encode(bytes),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// A prefix and one signature.
    Single { prefix: String },
    /// Items such as `t=…,v1=…`; those with a name of `fields` are signatures, all if there is no pair.
    List { items: String, pair: Option<String>, fields: Vec<String> },
}

#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) bytes: Vec<u8>,
    /// The only key that it may belong to.
    pub(crate) key: Option<usize>,
}

/// The signatures of a request, and the timestamp if it stands among them.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    pub(crate) candidates: Vec<Candidate>,
    /// The algorithm that the signature's prefix names, where the row lets it.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) timestamp: Option<Vec<u8>>,
}

impl Claimed {
    fn push(&mut self, bytes: Vec<u8>, key: Option<usize>) -> Result<(), Refusal> {
        if self.candidates.len() == MAX_CANDIDATES {
            return Err(Refusal::SignatureMalformed);
        }
        self.candidates.push(Candidate { bytes, key });
        Ok(())
    }

    /// Takes the signatures of one value. One that cannot be decoded matches nothing; another may be right.
    pub(crate) fn read(
        &mut self,
        value: &[u8],
        layout: &Layout,
        encoding: Encoding,
        stamp: Option<&str>,
        key: Option<usize>,
    ) -> Result<(), Refusal> {
        match layout {
            Layout::Single { prefix } => {
                let text = value.strip_prefix(prefix.as_bytes());
                match text.and_then(|text| encoding.decode(text)) {
                    Some(bytes) => self.push(bytes, key),
                    None => Ok(()),
                }
            }
            Layout::List { items, pair, fields } => {
                for (count, item) in split(value, items.as_bytes()).enumerate() {
                    if count == 2 * MAX_CANDIDATES {
                        return Err(Refusal::SignatureMalformed);
                    }
                    let item = trim_start(item);
                    let Some(pair) = pair else {
                        if let Some(bytes) = encoding.decode(item) {
                            self.push(bytes, key)?;
                        }
                        continue;
                    };
                    let Some(at) = memmem::find(item, pair.as_bytes()) else { continue };
                    let (name, value) = (&item[..at], &item[at + pair.len()..]);
                    let is_stamp = stamp.is_some_and(|stamp| stamp.as_bytes() == name);
                    if is_stamp && self.timestamp.replace(value.to_vec()).is_some() {
                        return Err(Refusal::TimestampMalformed);
                    }
                    if fields.iter().any(|field| field.as_bytes() == name)
                        && let Some(bytes) = encoding.decode(value)
                    {
                        self.push(bytes, key)?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn split<'a>(text: &'a [u8], separator: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match memmem::find(text, separator) {
            Some(at) => {
                rest = Some(&text[at + separator.len()..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

/// Senders and proxies put blanks after separators; never part of a name.
fn trim_start(item: &[u8]) -> &[u8] {
    let blanks = item.iter().take_while(|byte| **byte == b' ').count();
    &item[blanks..]
}
