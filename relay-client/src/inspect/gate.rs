//! Who may ask the local page: a browser that shows it, on this machine, with its key.
//!
//! A page of another site, or of another port here, could have the browser ask for it, or have its own name point to
//! this machine. So nothing is allowed that a browser sends by itself: the host is one of a few names with the right
//! port, what the browser says of the asking page is believed where it says no, and the key stands in a header that no
//! other page can set. No cookie is set or read.
//!
//! Invariants: the key is drawn for each process and never logged; it is compared by its digest, so that the time
//! taken says nothing of it.

use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use http::{HeaderMap, Method, header, request::Parts};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::answer::Problem;

/// What a browser says of the page that asks.
const FETCH_SITE: &str = "sec-fetch-site";

pub(super) struct Gate {
    /// As a request names this listener.
    hosts: Vec<String>,
    key: [u8; 32],
}

/// The key of the page, in clear, for whoever starts the agent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PageKey(Zeroizing<String>);

impl PageKey {
    /// The error is the system's, which has no randomness to give.
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self(Zeroizing::new(HEXLOWER.encode(&*bytes))))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageKey(…)")
    }
}

impl Gate {
    pub(super) fn new(address: SocketAddr, key: &PageKey) -> Self {
        let own = SocketAddr::new(address.ip(), 80).to_string();
        let names = [own.trim_end_matches(":80"), "127.0.0.1", "localhost", "[::1]"];
        let port = address.port();
        let mut hosts: Vec<_> = names.iter().map(|name| format!("{name}:{port}")).collect();
        if port == 80 {
            hosts.extend(names.map(str::to_owned));
        }
        Self { hosts, key: Sha256::digest(key.reveal()).into() }
    }

    /// Whether a request may be looked at, with the key or without.
    pub(super) fn admit(&self, head: &Parts) -> Result<(), Problem> {
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let (Some(host), None, None) = (hosts.next(), hosts.next(), head.uri.authority()) else {
            return Err(Problem::new(400, "bad_host", "a request names its host once, in a header"));
        };
        let is_own = |text: &str| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(text));
        if !host.to_str().is_ok_and(is_own) {
            let why = format!("this page is at http://{} alone", self.hosts[0]);
            return Err(Problem::new(421, "wrong_host", why));
        }
        let cross_site = || Problem::new(403, "cross_site", "another page asked for this; open it by its own address");
        let sites = head.headers.get_all(FETCH_SITE).iter();
        if !sites.into_iter().all(|site| site == "same-origin" || site == "none") {
            return Err(cross_site());
        }
        let is_own_origin = |origin: &str| origin.strip_prefix("http://").is_some_and(is_own);
        let origins = head.headers.get_all(header::ORIGIN).iter();
        if !origins.into_iter().all(|origin| origin.to_str().is_ok_and(is_own_origin)) {
            return Err(cross_site());
        }
        Ok(())
    }

    /// Whether a request of the API carries the key, and a body only as JSON.
    pub(super) fn admit_call(&self, head: &Parts, has_body: bool) -> Result<(), Problem> {
        let given = bearer(&head.headers).map(|given| <[u8; 32]>::from(Sha256::digest(given)));
        if given != Some(self.key) {
            let why = "the key of this page is missing, or not the one of the agent that runs now; open the address that it printed";
            return Err(Problem::new(401, "unauthorized", why));
        }
        let is_json = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.split(';').next().unwrap_or_default().trim() == "application/json")
        });
        if has_body && head.method != Method::GET && !is_json {
            return Err(Problem::new(415, "media_type", "a body is JSON here: send content-type: application/json"));
        }
        Ok(())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (all.next()?, all.next()) else { return None };
    only.as_bytes().strip_prefix(b"Bearer ")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn status(gate: &Gate, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::get("/api/v1/agent");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        gate.admit(&head).and_then(|()| gate.admit_call(&head, false)).map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn only_this_page_on_this_machine_with_its_key_comes_in() {
        let key = PageKey::draw().unwrap();
        let gate = Gate::new(([127, 0, 0, 1], 4040).into(), &key);
        let bearer = format!("Bearer {}", key.reveal());
        let key = ("authorization", bearer.as_str());
        let own = ("host", "127.0.0.1:4040");
        for good in ["127.0.0.1:4040", "localhost:4040", "LocalHost:4040", "[::1]:4040"] {
            assert_eq!(status(&gate, &[("host", good), key]), 200, "{good}");
        }
        for wrong in [
            "127.0.0.1",
            "localhost",
            "127.0.0.1:4041",
            "127.0.0.2:4040",
            "evil.test:4040",
            "localhost.evil.test:4040",
            "127.0.0.1:4040.evil.test",
            "0.0.0.0:4040",
            "localhost.:4040",
            "127.1:4040",
            "",
            "user@127.0.0.1:4040",
        ] {
            assert_eq!(status(&gate, &[("host", wrong), key]), 421, "{wrong}");
        }
        assert_eq!(status(&gate, &[key]), 400);
        assert_eq!(status(&gate, &[own, own, key]), 400);
        for (site, expected) in
            [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("", 403)]
        {
            assert_eq!(status(&gate, &[own, key, ("sec-fetch-site", site)]), expected, "{site}");
        }
        for (origin, expected) in [
            ("http://127.0.0.1:4040", 200),
            ("http://localhost:4040", 200),
            ("https://127.0.0.1:4040", 403),
            ("http://127.0.0.1:3000", 403),
            ("null", 403),
            ("http://evil.test", 403),
            ("", 403),
        ] {
            assert_eq!(status(&gate, &[own, key, ("origin", origin)]), expected, "{origin}");
        }
        for other in ["", "Bearer ", "Bearer x", "Basic x", &bearer[..bearer.len() - 1], &format!("{bearer}0")] {
            assert_eq!(status(&gate, &[own, ("authorization", other)]), 401, "{other}");
        }
        assert_eq!(status(&gate, &[own]), 401);
        assert_eq!(status(&gate, &[own, key, key]), 401);
    }
}
