//! The ASCII form of a host whose name was typed with other letters, as DNS and HTTP know it.
//!
//! For saying what to write: a name is folded as browsers usually do (NFKC, lower case), which is not all of UTS 46, so
//! what comes out is shown to a person and never used in silence. Pure.

use unicode_normalization::UnicodeNormalization as _;

/// Bytes of a name and of one of its labels at most (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// The `xn--` form of the host of an address (`https://HOST:PORT/…`, or a host alone); `None` if its host is ASCII, or no
/// name at all.
pub fn ascii_host(address: &str) -> Option<String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split(':').next()?;
    if host.is_ascii() || host.len() > 4 * MAX_NAME_BYTES {
        return None;
    }
    // The stops of East Asian keyboards count as dots (RFC 3490, section 3.1).
    let folded: String = host.nfkc().flat_map(char::to_lowercase).nfc().collect();
    let labels = folded.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).map(label).collect::<Option<Vec<_>>>()?;
    Some(labels.join(".")).filter(|name| name.len() <= MAX_NAME_BYTES)
}

fn label(label: &str) -> Option<String> {
    let ascii = if label.is_ascii() {
        label.to_owned()
    } else if label.chars().all(|char| char == '-' || char.is_alphanumeric() || !char.is_ascii() && !char.is_control())
    {
        format!("xn--{}", punycode::encode(label).ok()?)
    } else {
        return None;
    };
    Some(ascii).filter(|ascii| (1..=MAX_LABEL_BYTES).contains(&ascii.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_other_letters_is_named_as_dns_knows_it() {
        for (typed, ascii) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("https://Bücher.Example:8443/x?ä", "xn--bcher-kva.example"),
            ("https://me:pässword@bücher.example", "xn--bcher-kva.example"),
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("hooks.пример", "hooks.xn--e1afmkfd"),
        ] {
            assert_eq!(ascii_host(typed).as_deref(), Some(ascii), "{typed}");
        }
        for none in ["hooks.example", "https://hooks.example/ä", "", "ä b.example", "ä..example", &"ä".repeat(300)]
        {
            assert_eq!(ascii_host(none), None, "{none}");
        }
    }
}
