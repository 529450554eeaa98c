//! Mistakes in how the signature is written: twice, in upper case, without its prefix, in another
//! encoding.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};

use super::{Finding, Trial};
use crate::{
    Headers, Request, Scheme,
    layout::{Encoding, Layout, MAX_CANDIDATES},
    locate::Spot,
    scheme::SignaturePlace,
    timestamp::TimestampPlace,
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

fn names(scheme: &Scheme) -> Vec<&str> {
    let mut names = scheme.place.headers();
    if let Some(TimestampPlace::At(Spot::Header(name))) = scheme.timestamp.as_ref().map(|stamp| &stamp.place) {
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
    let SignaturePlace::At(Spot::Header(name)) = &scheme.place else { return None };
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
    if let Some(prefix) = missing_prefix(&scheme.layout, value, &mut passes) {
        return Some(Finding::PrefixMissing { prefix });
    }
    let mut passes_encoded_again = |read: &Decode<'_>| {
        let other = encoded_again(scheme, value, read);
        other != value && passes(&other)
    };
    if passes_encoded_again(&|text| HEXLOWER_PERMISSIVE.decode(text).ok()) {
        return Some(match scheme.encoding {
            Encoding::Hex => Finding::UpperCaseHex,
            other => Finding::Encoding { due: name_of(other), has: "hex" },
        });
    }
    let base64 = |text: &[u8]| BASE64.decode(text).or_else(|_| BASE64_NOPAD.decode(text)).ok();
    let base64_url = |text: &[u8]| BASE64URL_NOPAD.decode(text).ok();
    let due = name_of(scheme.encoding);
    if passes_encoded_again(&base64) {
        return Some(Finding::Encoding { due, has: "base64" });
    }
    passes_encoded_again(&base64_url).then_some(Finding::Encoding { due, has: "base64url" })
}

/// What has to stand before the value for it to pass: the prefix, or a field's name where items are due.
fn missing_prefix(layout: &Layout, value: &[u8], passes: &mut impl FnMut(&[u8]) -> bool) -> Option<String> {
    let mut passes_behind = |prefix: &String| passes(&[prefix.as_bytes(), value].concat());
    match layout {
        Layout::Single { prefix } if !value.starts_with(prefix.as_bytes()) => {
            Some(prefix.clone()).filter(&mut passes_behind)
        }
        Layout::List { pair: Some(pair), fields, .. } => {
            fields.iter().map(|field| format!("{field}{pair}")).find(&mut passes_behind)
        }
        Layout::Single { .. } | Layout::List { .. } => None,
    }
}

type Decode<'a> = dyn Fn(&[u8]) -> Option<Vec<u8>> + 'a;

/// The value in which every item that `read` can decode is written in the encoding that is due, behind its prefix.
fn encoded_again(scheme: &Scheme, value: &[u8], read: &Decode<'_>) -> Vec<u8> {
    const SEPARATORS: &[u8] = b",;= ";
    let prefix = if let Layout::Single { prefix } = &scheme.layout { prefix.as_bytes() } else { &[] };
    let mut out = prefix.to_vec();
    let mut rest = value.strip_prefix(prefix).unwrap_or(value);
    let base64_padding = |rest: &[u8], at: usize| rest[at..].iter().all(|byte| *byte == b'=');
    loop {
        let mut end = 0;
        while end < rest.len() && (!SEPARATORS.contains(&rest[end]) || base64_padding(rest, end)) {
            end += 1;
        }
        let item = &rest[..end];
        match read(item).filter(|bytes| bytes.len() >= 20) {
            Some(bytes) => out.extend_from_slice(scheme.encoding.encode(&bytes).as_bytes()),
            None => out.extend_from_slice(item),
        }
        let Some(separator) = rest.get(end) else { return out };
        out.push(*separator);
        rest = &rest[end + 1..];
    }
}

const fn name_of(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Hex => "hex",
        Encoding::Base64 => "base64 with padding",
        Encoding::Base64Url => "base64url without padding",
    }
}
