//! Form bodies and query strings, byte for byte: names and values decoded, nothing replaced.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::request::Doubled;

/// Most parameters that are sorted; a form with more is refused.
pub(crate) const MAX_PARAMETERS: usize = 2000;

type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The parameters, decoded, in order.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    raw_pairs(text).map(|(name, value)| (decode(name), decode(value)))
}

/// The parameters as they are written, in order.
pub(crate) fn raw_pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=');
        at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]))
    })
}

/// The only value of a parameter.
pub(crate) fn single(text: &[u8], name: &str) -> Result<Option<Vec<u8>>, Doubled> {
    let mut found = pairs(text).filter(|(key, _)| **key == *name.as_bytes());
    let value = found.next().map(|(_, value)| value.into_owned());
    if found.next().is_some() { Err(Doubled) } else { Ok(value) }
}

/// Every distinct pair of name and value, sorted, one behind the other; `None` if there are too many.
pub(crate) fn sorted(text: &[u8]) -> Option<Vec<u8>> {
    let mut all: Vec<_> = pairs(text).take(MAX_PARAMETERS + 1).collect();
    if all.len() > MAX_PARAMETERS {
        return None;
    }
    all.sort();
    all.dedup();
    let mut out = Vec::with_capacity(text.len());
    for (name, value) in &all {
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    Some(out)
}

/// The parameters sorted and joined again as `name=value&…` (or without signs, for form values).
pub(crate) fn sorted_pairs(text: &[u8], between: &str, joined: &str) -> Option<Vec<u8>> {
    let mut all: Vec<_> = pairs(text).take(MAX_PARAMETERS + 1).collect();
    if all.len() > MAX_PARAMETERS {
        return None;
    }
    all.sort();
    let all: Vec<_> = all.iter().map(|(name, value)| [name, between.as_bytes(), value].concat()).collect();
    Some(all.join(joined.as_bytes()))
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_byte_and_values_are_decoded_and_distinct() {
        assert_eq!(sorted(b"b=2&B=1&a=x+y%2B&a=x+y%2B&a=1&e="), Some(b"B1a1ax y+b2e".to_vec()));
        assert_eq!(single(b"a=1&a=2", "a"), Err(Doubled));
        assert_eq!(single(b"a%20=%FF&b", "a "), Ok(Some(vec![255])));
        assert_eq!(sorted("a&".repeat(MAX_PARAMETERS + 1).as_bytes()), None);
    }
}
