//! Mistakes in how the signature is written: twice, in upper case, without its prefix, in another
//! encoding.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};

use super::{Finding, Trial};
use crate::{
    Headers, Request, Scheme,
    layout::{Encoding, Layout, MAX_CANDIDATES},
    locate::Spot,
    scheme::Place,
    timestamp,
};

/// The request's headers with one of them set.
pub(super) struct With<'a> {
    pub(super) rest: &'a dyn Headers,
    pub(super) name: &'a str,
    pub(super) value: &'a [u8],
}

impl Headers for With<'_> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        if name == self.name { each(self.value) } else { self.rest.for_each(name, each) }
    }
}

/// The headers that a scheme reads.
fn names(scheme: &Scheme) -> Vec<&str> {
    let mut names: Vec<&str> = match &scheme.place {
        Place::At(Spot::Header(name)) => vec![name],
        Place::AnyHeader(names) | Place::PerKey(names) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    if let Some(timestamp::Place::At(Spot::Header(name))) = scheme.timestamp.as_ref().map(|stamp| &stamp.place) {
        names.push(name);
    }
    if let Some(Spot::Header(name)) = &scheme.id {
        names.push(name);
    }
    names
}

/// A header that is there more than once, and whether one of its values is right.
pub(super) fn doubled(it: &mut Trial<'_>) -> Option<Finding> {
    let request = *it.request;
    for name in names(it.scheme.family(it.request)) {
        let mut values: Vec<Vec<u8>> = Vec::new();
        request.headers.for_each(name, &mut |value| {
            if values.len() <= MAX_CANDIDATES {
                values.push(value.to_vec());
            }
        });
        if values.len() < 2 {
            continue;
        }
        let one_is_right = values.iter().any(|value| {
            let headers = With { rest: request.headers, name, value };
            it.passes_as(&Request { headers: &headers, ..request })
        });
        return Some(Finding::DoubledHeader { name: name.to_owned(), one_is_right });
    }
    None
}

/// The same signature, written otherwise.
pub(super) fn written_otherwise(it: &mut Trial<'_>) -> Option<Finding> {
    let scheme = it.scheme.family(it.request);
    let Place::At(Spot::Header(name)) = &scheme.place else { return None };
    let request = *it.request;
    let value = request.header(name).ok()??;
    let mut passes = |value: &[u8]| {
        let headers = With { rest: request.headers, name, value };
        it.passes_as(&Request { headers: &headers, ..request })
    };
    // Two values that a proxy joined into one.
    if value.windows(2).any(|pair| pair == b", ") && matches!(scheme.layout, Layout::Single { .. }) {
        let parts: Vec<_> = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).take(MAX_CANDIDATES).collect();
        if parts.into_iter().any(&mut passes) {
            return Some(Finding::DoubledHeader { name: name.clone(), one_is_right: true });
        }
    }
    let (prefix, text) = match &scheme.layout {
        Layout::Single { prefix } => match value.strip_prefix(prefix.as_bytes()) {
            Some(text) => (prefix.as_str(), text.to_vec()),
            None if passes(&[prefix.as_bytes(), value].concat()) => {
                return Some(Finding::PrefixMissing { prefix: prefix.clone() });
            }
            None => (prefix.as_str(), value.to_vec()),
        },
        Layout::List { pair: Some(pair), fields, .. } => {
            // A bare value where items are due.
            let bare = fields.iter().find(|field| {
                let item = format!("{field}{pair}");
                passes(&[item.as_bytes(), value].concat())
            });
            if let Some(field) = bare {
                return Some(Finding::PrefixMissing { prefix: format!("{field}{pair}") });
            }
            ("", value.to_vec())
        }
        Layout::List { .. } => ("", value.to_vec()),
    };
    let rewritten = |read: &dyn Fn(&[u8]) -> Option<Vec<u8>>| -> Vec<u8> {
        // Every item that reads as the other encoding is written in the one that is due.
        let separators: &[u8] = b",;= ";
        let mut out = prefix.as_bytes().to_vec();
        let mut rest = text.as_slice();
        let base64_padding = |rest: &[u8], at: usize| rest[at] == b'=' && rest[at..].iter().all(|byte| *byte == b'=');
        loop {
            let mut end = 0;
            while end < rest.len() && (!separators.contains(&rest[end]) || base64_padding(rest, end)) {
                end += 1;
            }
            let item = &rest[..end];
            match read(item).filter(|bytes| bytes.len() >= 20) {
                Some(bytes) => out.extend_from_slice(scheme.encoding.encode(&bytes).as_bytes()),
                None => out.extend_from_slice(item),
            }
            let Some(separator) = rest.get(end) else { break };
            out.push(*separator);
            rest = &rest[end + 1..];
        }
        out
    };
    let hex = |text: &[u8]| HEXLOWER_PERMISSIVE.decode(text).ok();
    let base64 = |text: &[u8]| BASE64.decode(text).or_else(|_| BASE64_NOPAD.decode(text)).ok();
    let base64_url = |text: &[u8]| BASE64URL_NOPAD.decode(text).ok();
    let due = name_of(scheme.encoding);
    let as_hex = rewritten(&hex);
    if as_hex != value && passes(&as_hex) {
        return Some(match scheme.encoding {
            Encoding::Hex => Finding::UpperCaseHex,
            _ => Finding::Encoding { due, has: "hex" },
        });
    }
    for (read, has) in [(&base64 as &dyn Fn(&[u8]) -> Option<Vec<u8>>, "base64"), (&base64_url, "base64url")] {
        let other = rewritten(read);
        if other != value && passes(&other) {
            return Some(Finding::Encoding { due, has });
        }
    }
    None
}

const fn name_of(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Hex => "hex",
        Encoding::Base64 => "base64 with padding",
        Encoding::Base64Url => "base64url without padding",
    }
}
