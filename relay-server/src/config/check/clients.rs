//! `[[tls.clients]]`, and the `client_certificate` of an endpoint or a token.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use relay_program::config::{Section, Wrong};
use relay_program::suggest::suggest;

use super::Context;
use super::tls::file;
use crate::client_certificate::{ClientRule, KINDS};
use crate::config::{keys, values};
use crate::tls::ClientFiles;

/// Rows of `[[tls.clients]]`, and names in a rule.
const MAX_CLIENTS: usize = 100;
const MAX_NAMES: usize = 1000;

pub(super) fn clients(tls: &Section<'_>, context: Context<'_>) -> Vec<ClientFiles> {
    let rows = tls.rows("clients", "name", keys::CLIENTS);
    if rows.len() > MAX_CLIENTS {
        tls.error("clients", format!("there are more than {MAX_CLIENTS}"), "");
    }
    let all: Vec<ClientFiles> = rows.iter().filter_map(|row| one(row, context)).collect();
    let (mut names, mut hosts) = (HashSet::new(), HashMap::new());
    for clients in &all {
        if !names.insert(&clients.name) {
            tls.error("clients", format!("there are two with the name \"{}\"", clients.name), "");
        }
        for host in &clients.hosts {
            if let Some(other) = hosts.insert(host, &clients.name) {
                tls.error("clients", format!("\"{host}\" is for \"{other}\" and for \"{}\"", clients.name), "");
            }
        }
    }
    all
}

fn one(row: &Section<'_>, context: Context<'_>) -> Option<ClientFiles> {
    row.require(&["name", "ca"]);
    let name = row.value("name", name)?;
    let ca = file(row, "ca", None, context)?;
    let crl = file(row, "crl", None, context);
    let hosts = row.list("hosts", values::host);
    Some(ClientFiles { name, ca, crl, hosts })
}

fn name(text: &str) -> Result<Arc<str>, Wrong> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(Wrong::new(format!("\"{text}\" is not a name for clients"), "use 1 to 63 of a-z, A-Z, 0-9, `.`, `_` and `-`"))
}

/// Who may come to an endpoint, or with a token.
pub(super) fn rule(row: &Section<'_>, all: &[Arc<str>]) -> Option<ClientRule> {
    if !row.has("client_certificate") {
        return None;
    }
    let table = row.section("client_certificate", keys::CLIENT_CERTIFICATE);
    table.require(&["clients"]);
    let known = |text: &str| {
        let found = all.iter().find(|name| ***name == *text).cloned();
        found.ok_or_else(|| {
            let help = suggest(text, all.iter().map(|name| &**name));
            let help = help.unwrap_or_else(|| "add [[tls.clients]] with this name and a ca".to_owned());
            Wrong::new(format!("no clients are called \"{text}\""), help)
        })
    };
    let clients = table.value("clients", known);
    let names = table.has("names").then(|| table.list("names", certificate_name));
    if names.as_ref().is_some_and(|names| names.is_empty() || names.len() > MAX_NAMES) {
        table.error(
            "names",
            format!("nobody has one of no names, and {MAX_NAMES} are enough"),
            "leave names out for all",
        );
    }
    // A rule that cannot be read lets nobody in.
    Some(ClientRule { clients: clients.unwrap_or_default(), names })
}

/// A name as a certificate's are compared: `dns:` in lower case, and so on.
fn certificate_name(text: &str) -> Result<String, Wrong> {
    let help = || format!("write it like \"dns:client.example.com\"; there are {}", KINDS.join(", "));
    let wrong = || Wrong::new(format!("\"{text}\" is not a certificate's name"), help());
    let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
    match kind {
        "dns" | "sha256" => {
            let name = name.to_ascii_lowercase();
            let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if name.is_empty() || (kind == "sha256" && !is_digest) {
                Err(wrong())
            } else {
                Ok(format!("{kind}:{name}"))
            }
        }
        "ip" => Ok(format!("ip:{}", name.parse::<IpAddr>().map_err(|_| wrong())?)),
        "uri" | "email" | "cn" if !name.is_empty() => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificates_name_has_a_kind_and_is_compared_as_certificates_are_read() {
        let digest = "AB".repeat(32);
        for (text, expected) in [
            ("dns:Client.Test", "dns:client.test".to_owned()),
            ("uri:spiffe://test/A", "uri:spiffe://test/A".to_owned()),
            ("cn:Bill, of 100%", "cn:Bill, of 100%".to_owned()),
            ("ip:2001:DB8::0:1", "ip:2001:db8::1".to_owned()),
            (&format!("sha256:{digest}"), format!("sha256:{}", digest.to_lowercase())),
        ] {
            assert_eq!(certificate_name(text).ok(), Some(expected), "{text}");
        }
        for text in ["client.test", "dns:", "cn:", "CN:Bill", "ip:client.test", "sha256:ab", "spiffe://test/a"] {
            assert!(certificate_name(text).is_err(), "{text}");
        }
    }
}
