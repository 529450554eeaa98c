//! `server.listen`, `[[server.listen]]` and `server.http_listen`: where the public side is reached.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};

use relay_program::config::{Place, Report, Section, Wrong};

use super::Context;
use crate::config::settings::{Listen, ProxyProtocol, PublicListener, Server, TlsSettings};
use crate::config::{keys, values};

/// Public listeners that one relay may have.
const MAX_LISTENERS: usize = 16;
/// Who may use a unix socket, where nothing else is said: its user and its group.
const MODE: u32 = 0o660;

/// The listeners, and where each was typed. Whether they end TLS by themselves follows from `[tls]`.
pub(super) fn listeners(server: &Section<'_>, context: Context<'_>, has_tls: bool) -> Vec<(PublicListener, Place)> {
    let is_list = server.typed("listen").is_some_and(|typed| typed.get_ref().as_array().is_some());
    if context.flags.listen.is_some() || !is_list {
        let own = if context.flags.dev.is_some() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let own = Listen::Address(SocketAddr::from((own, 8080)));
        let at = server.value_or("listen", own, |text| values::listen(text, context.base));
        let tls = has_tls && !matches!(at, Listen::Unix(_));
        return vec![(PublicListener { tls, mode: MODE, ..PublicListener::at(at) }, server.place("listen"))];
    }
    let rows = server.rows("listen", "addr", keys::LISTEN);
    if rows.is_empty() || rows.len() > MAX_LISTENERS {
        let message = format!("there are {} listeners, and there may be 1 to {MAX_LISTENERS}", rows.len());
        server.error("listen", message, "");
    }
    let mut all: Vec<(PublicListener, Place)> = Vec::new();
    for row in &rows {
        row.require(&["addr"]);
        let Some(listener) = listener(row, context, has_tls) else { continue };
        let is_any_port = matches!(listener.at, Listen::Address(address) if address.port() == 0);
        if !is_any_port && all.iter().any(|(other, _)| other.at == listener.at) {
            row.error("addr", format!("{} is listened on twice", listener.at), "");
        }
        all.push((listener, row.here()));
    }
    all
}

fn listener(row: &Section<'_>, context: Context<'_>, has_tls: bool) -> Option<PublicListener> {
    let at = row.value("addr", |text| values::listen(text, context.base))?;
    let is_unix = matches!(at, Listen::Unix(_));
    let words = [ProxyProtocol::Off, ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Any];
    let words = words.map(|word| (word.name(), word));
    let tls = row.flag("tls", has_tls && !is_unix);
    if tls && !has_tls {
        row.error("tls", "there is no certificate", "set [tls] cert and key, or tls = false");
    }
    let proxy_protocol = row.word("proxy_protocol", "a version of the PROXY protocol", &words);
    let clients = row.text("clients").map(|clients| clients.value.into());
    row.show_if("clients", clients.as_deref());
    if clients.is_some() && !tls {
        row.error("clients", "a certificate is shown over TLS alone", "set tls = true, or leave clients out");
    }
    let is_v6 = matches!(at, Listen::Address(SocketAddr::V6(_)));
    let v6only = if is_v6 || row.has("v6only") { row.flag("v6only", false) } else { false };
    if v6only && !is_v6 {
        row.error("v6only", format!("{at} is no IPv6 address"), "leave v6only out");
    }
    let mode = if is_unix || row.has("mode") { row.value_or("mode", Mode(MODE), mode).0 } else { MODE };
    if row.has("mode") && !is_unix {
        row.error("mode", format!("{at} is no file"), "leave mode out");
    }
    Some(PublicListener { at, tls, proxy_protocol, clients, v6only, mode })
}

/// A file's mode, as it is written for chmod.
struct Mode(u32);

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0{:o}", self.0)
    }
}

fn mode(text: &str) -> Result<Mode, Wrong> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && text.len() <= 4);
    mode.map(Mode).ok_or_else(|| Wrong::new(format!("\"{text}\" is not a file's mode"), "write it like \"0660\""))
}

/// What listeners need beside their own rows.
pub(super) fn agree(all: &[(PublicListener, Place)], server: &Server, tls: Option<&TlsSettings>, report: &Report<'_>) {
    let groups: HashSet<&str> =
        tls.into_iter().flat_map(|tls| &tls.files.clients).map(|clients| &*clients.name).collect();
    for (listener, place) in all {
        let at = &listener.at;
        if let Some(clients) = listener.clients.as_deref().filter(|clients| !groups.contains(clients)) {
            let message = format!("no clients are called \"{clients}\"");
            report.error(&place.member("clients"), message, "add [[tls.clients]] with this name and a ca");
        }
        if listener.proxy_protocol != ProxyProtocol::Off
            && !matches!(at, Listen::Unix(_))
            && server.trusted_proxies.is_empty()
        {
            let message = "whoever connects could say that it is anybody";
            let help = "name the proxies that may in server.trusted_proxies";
            report.error(&place.member("proxy_protocol"), message, help);
        }
        if !listener.tls && matches!(at, Listen::Address(address) if !address.ip().is_loopback()) {
            report.warn(
                place,
                format!("{at} is reachable from outside without TLS"),
                "set [tls] cert and key, or let a proxy on this machine end TLS and listen on 127.0.0.1",
            );
        }
    }
    let is_unix = |(listener, _): &(PublicListener, Place)| matches!(listener.at, Listen::Unix(_));
    if server.public_url.is_none() && !all.is_empty() && all.iter().all(is_unix) {
        let help = "set server.public_url to the address of the proxy in front";
        report.error(&report.missing("server.public_url"), "a unix socket is no address for senders", help);
    }
}

/// Where requests in the clear are redirected from.
pub(super) fn http(server: &Section<'_>, context: Context<'_>) -> Option<Listen> {
    let at = server.value("http_listen", |text| values::listen(text, context.base))?;
    if matches!(at, Listen::Unix(_)) {
        server.error("http_listen", "it is for authorities and senders, who need an address", "write \"0.0.0.0:80\"");
        return None;
    }
    Some(at)
}

/// Whether there is something to redirect to.
pub(super) fn http_agrees(server: &Server, place: &Place, report: &Report<'_>) {
    let is_https = server.public_url.as_ref().is_some_and(|url| url.as_str().starts_with("https:"));
    if server.http_listen.is_some() && !is_https {
        let help = "set server.public_url to the https:// address that senders use, or leave http_listen out";
        report.error(place, "it redirects to https, and no address says where that is", help);
    }
}

/// Whether a listener is known to be reachable from this machine alone.
pub(super) fn is_of_this_machine(at: &Listen) -> bool {
    match at {
        Listen::Address(address) => address.ip().is_loopback(),
        Listen::Unix(_) => true,
        Listen::Inherited(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_written_as_for_chmod() {
        for (text, expected) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777)] {
            assert_eq!(mode(text).ok().map(|mode| mode.0), Some(expected));
        }
        for text in ["", "0o660", "888", "1777", "00660", "-1", "rw-rw----"] {
            assert!(mode(text).is_err(), "{text}");
        }
        assert_eq!(Mode(0o60).to_string(), "060");
    }
}
