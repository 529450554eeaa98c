//! Certificates of senders and agents: what one says of its holder, and who may come with which.
//!
//! A certificate counts together with the clients that it was shown among: two authorities may give the same name to
//! different people. Pure; the proof itself is TLS's.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Names of one certificate that are looked at, and the bytes of each. Longer ones, and more, are left out.
const MAX_NAMES: usize = 32;
const MAX_NAME_BYTES: usize = 256;

/// Kinds of names, as they are written in front of one.
pub(crate) const KINDS: [&str; 6] = ["dns", "uri", "email", "ip", "cn", "sha256"];

/// A certificate that a peer showed, and whose key it holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The clients that it was shown among.
    pub clients: Arc<str>,
    /// Each with its kind: `dns:client.example.com`, `cn:Client`. The fingerprint stands first.
    names: Vec<String>,
    /// The same for a handler.
    line: Bytes,
}

impl ClientCertificate {
    /// What a certificate says; nothing of one that cannot be read.
    pub(crate) fn read(clients: Arc<str>, certificate: &[u8]) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let mut names = vec![format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(certificate)))];
        let also = read.subject_alternative_name().ok().flatten();
        names.extend(also.into_iter().flat_map(|also| &also.value.general_names).filter_map(named));
        let mut common = read.subject().iter_common_name();
        // Of several nobody knows which is meant.
        if let (Some(only), None) = (common.next(), common.next())
            && let Ok(name) = only.as_str()
        {
            names.push(format!("cn:{name}"));
        }
        names.retain(|name| name.len() <= MAX_NAME_BYTES);
        names.truncate(MAX_NAMES);
        let line = names.iter().map(|name| escaped(name)).collect::<Vec<_>>().join(", ").into();
        Some(Self { clients, names, line })
    }

    /// What a handler is told: its names, with a comma between them. What is no visible ASCII, a comma or a `%` stands as
    /// `%` and two digits.
    pub(crate) fn line(&self) -> &Bytes {
        &self.line
    }
}

fn named(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("dns:{}", name.to_ascii_lowercase())),
        GeneralName::URI(uri) => Some(format!("uri:{uri}")),
        GeneralName::RFC822Name(address) => Some(format!("email:{address}")),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from);
            let address = v4().or_else(|| <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from))?;
            Some(format!("ip:{address}"))
        }
        _ => None,
    }
}

fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b',' | b'%') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Who may come: any of these clients, or those whose certificate has one of these names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientRule {
    pub clients: Arc<str>,
    pub names: Option<Vec<String>>,
}

impl ClientRule {
    pub(crate) fn allows(&self, shown: Option<&ClientCertificate>) -> bool {
        shown.is_some_and(|shown| {
            let named = |names: &Vec<String>| names.iter().any(|name| shown.names.contains(name));
            shown.clients == self.clients && self.names.as_ref().is_none_or(named)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(clients: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> ClientCertificate {
        let mut params = rcgen::CertificateParams::new(vec!["Client.Test".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Bill, of 100%\r\n\u{e9}");
        change(&mut params);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::read(clients.into(), made.der()).unwrap()
    }

    #[test]
    fn its_names_are_told_so_that_none_can_be_taken_for_another() {
        let shown = certificate("partners", |params| {
            let uri = "spiffe://test/bill".try_into().unwrap();
            params.subject_alt_names.push(rcgen::SanType::URI(uri));
        });
        let line = std::str::from_utf8(shown.line()).unwrap();
        let (fingerprint, rest) = line.split_once(", ").unwrap();
        assert!(fingerprint.len() == 71 && fingerprint.starts_with("sha256:"), "{line}");
        assert_eq!(rest, "dns:client.test, ip:192.0.2.7, uri:spiffe://test/bill, cn:Bill%2C%20of%20100%25%0D%0A%C3%A9");
        assert!(http::HeaderValue::from_bytes(shown.line()).is_ok());
    }

    #[test]
    fn a_rule_is_for_its_own_clients_alone_and_for_the_names_that_it_has() {
        let shown = certificate("partners", |_| {});
        let rule = |clients: &str, names: Option<&[&str]>| ClientRule {
            clients: clients.into(),
            names: names.map(|names| names.iter().map(ToString::to_string).collect()),
        };
        assert!(rule("partners", None).allows(Some(&shown)));
        assert!(rule("partners", Some(&["dns:other.test", "dns:client.test"])).allows(Some(&shown)));
        for (rule, shown) in [
            (rule("partners", None), None),
            (rule("agents", None), Some(&shown)),
            (rule("agents", Some(&["dns:client.test"])), Some(&shown)),
            (rule("partners", Some(&["dns:other.test", "cn:client.test", "uri:client.test"])), Some(&shown)),
            (rule("partners", Some(&[])), Some(&shown)),
        ] {
            assert!(!rule.allows(shown), "{rule:?}");
        }
    }

    #[test]
    fn long_names_and_many_are_left_out() {
        let shown = certificate("partners", |params| {
            params.subject_alt_names.clear();
            for number in 0..100 {
                let name =
                    format!("{number}.{}", if number % 2 == 0 { "a".repeat(60) } else { "b.".repeat(130) + "c" });
                params.subject_alt_names.push(rcgen::SanType::DnsName(name.try_into().unwrap()));
            }
        });
        assert_eq!(shown.names.len(), MAX_NAMES);
        assert!(shown.names.iter().all(|name| !name.contains("b.b.")));
    }
}
