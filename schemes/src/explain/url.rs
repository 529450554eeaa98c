//! Mistakes with the URL: what a proxy changed, or what is registered at the provider.

use super::{Finding, Trial};
use crate::url::{Parts, split};

const MAX_URLS: usize = 48;

pub(super) fn other(it: &mut Trial<'_>, known: &[&str]) -> Option<Finding> {
    if !it.scheme.covers_url() {
        return None;
    }
    let seen = it.request.url.to_owned();
    let mut urls: Vec<String> = known.iter().map(|url| (*url).to_owned()).collect();
    urls.push(seen.clone());
    let mut hosts: Vec<String> = Vec::new();
    for name in ["x-forwarded-host", "x-original-host", "host"] {
        it.request.headers.for_each(name, &mut |value| {
            if let Ok(host) = std::str::from_utf8(value) {
                hosts.push(host.to_owned());
            }
        });
    }
    hosts.truncate(4);
    // The known URLs may be an origin alone: try them with the request's path and query too.
    let mut all: Vec<String> = Vec::new();
    for url in urls.iter().take(8) {
        let own = split(url);
        let request = split(&seen);
        all.push(url.clone());
        all.push(Parts { scheme: own.scheme, authority: own.authority, ..request }.join(own.authority));
        for host in &hosts {
            all.push(own.join(host));
        }
    }
    // A configured URL was tried in place of the request's own, which may be the right one.
    let configured = it.keys.public_url().unwrap_or(&seen).to_owned();
    let mut tried: Vec<String> = Vec::new();
    for url in all {
        for variant in variants(&url) {
            if variant != configured && !tried.contains(&variant) && tried.len() < MAX_URLS {
                tried.push(variant);
            }
        }
    }
    let scheme = it.scheme;
    for url in tried {
        let keys = it.keys.with_url(&url);
        if it.passes(scheme, &keys, it.request) {
            let shown = url.split_once('?').map_or(url.as_str(), |(url, _)| url);
            // A password in it is known to whoever it is for, and is nobody else's to see.
            let authority = split(shown).authority;
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            return Some(Finding::OtherUrl { url: shown.replacen(authority, host, 1) });
        }
    }
    None
}

fn variants(url: &str) -> Vec<String> {
    let parts = split(url);
    let swapped = if parts.scheme == "https" { "http" } else { "https" };
    let bare = Parts { query: "", has_query: false, ..parts };
    let slashed = format!("{}/", parts.path.trim_end_matches('/'));
    let cut = parts.path.trim_end_matches('/');
    let shorter = parts.path.get(1..).and_then(|path| path.find('/').map(|at| &parts.path[at + 1..]));
    let mut all = vec![
        url.to_owned(),
        Parts { scheme: swapped, ..parts }.join(parts.authority),
        parts.join(parts.host()),
        parts.join(&format!("{}:443", parts.host())),
        Parts { scheme: swapped, ..parts }.join(parts.host()),
        bare.join(parts.authority),
        Parts { path: &slashed, ..parts }.join(parts.authority),
        Parts { path: cut, ..parts }.join(parts.authority),
    ];
    // A proxy that took the first segment away, or one that the provider does not know.
    all.extend(shorter.map(|path| Parts { path, ..parts }.join(parts.authority)));
    all
}
