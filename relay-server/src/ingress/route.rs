//! Which endpoint a request is for, by its host or by the first segment of its path.
//!
//! The host is checked here, since hyper does not: exactly one, a name or an address, without user
//! information. Paths are cut, never decoded or normalised.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use http::{Request, header, request::Parts, uri::Authority};

use super::Origin;
use crate::{
    agents::{accept::Attachable, token::Tokens},
    endpoint::Endpoint,
    metrics::{Meter, Metrics},
    refused::Entry,
    webhook::Failure,
};

/// Whether an address is a trusted proxy's.
pub type Trust = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Everything that a request is routed by; made anew on reload.
pub struct Routes {
    by_name: HashMap<String, Served>,
    by_host: HashMap<Arc<str>, Served>,
    /// Who may attach.
    pub tokens: Tokens,
    trusted: Trust,
    public_url: String,
    /// Whether the config names it.
    named: bool,
}

/// An endpoint and its counters.
#[derive(Clone)]
struct Served(Arc<Endpoint>, Arc<Meter>);

/// Where a request goes.
pub enum Routed {
    /// To the relay itself, under `/_relay/`.
    Relay {
        /// The path.
        path: String,
    },
    /// To an endpoint.
    Endpoint {
        /// The endpoint.
        endpoint: Arc<Endpoint>,
        /// Its counters.
        meter: Arc<Meter>,
        /// The request's host.
        host: String,
        /// What of the target is for the handler.
        rest: String,
    },
}

impl Routes {
    /// The routes to some endpoints. `public_url` has no slash at its end.
    #[must_use]
    pub fn new(
        endpoints: &[Arc<Endpoint>],
        metrics: &Metrics,
        tokens: Tokens,
        trusted: Trust,
        (public_url, named): (String, bool),
    ) -> Self {
        let mut routes = Self { by_name: HashMap::new(), by_host: HashMap::new(), tokens, trusted, public_url, named };
        for endpoint in endpoints {
            let served = Served(Arc::clone(endpoint), metrics.meter(endpoint.name.as_str()));
            for host in &endpoint.hosts {
                routes.by_host.insert(Arc::clone(host), served.clone());
            }
            routes.by_name.insert(endpoint.name.as_str().to_owned(), served);
        }
        routes
    }

    /// Whether an address is a trusted proxy's.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        (self.trusted)(address)
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_name.values().map(|Served(endpoint, _)| endpoint)
    }

    /// The endpoint of this name.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.by_name.get(name).map(|Served(endpoint, _)| endpoint)
    }

    /// The address under which a sender knows what it asked for: by the config's `public_url` where the path names the
    /// endpoint, else by what the request and a trusted proxy in front say.
    #[must_use]
    pub fn seen_url(&self, endpoint: &Endpoint, origin: Origin, head: &Parts, host: &str) -> String {
        let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let own_host = endpoint.hosts.iter().any(|own| **own == *host);
        if self.named && !own_host {
            return format!("{}{target}", self.public_url);
        }
        let trusted = self.trusts(origin.peer);
        let forwarded = |name: &str| head.headers.get(name).filter(|_| trusted).and_then(|value| value.to_str().ok());
        let secure = origin.secure || (self.named && self.public_url.starts_with("https:"));
        let scheme = match forwarded("x-forwarded-proto") {
            Some(scheme @ ("http" | "https")) => scheme,
            _ if secure => "https",
            _ => "http",
        };
        let authority = head.uri.authority().map(Authority::as_str);
        let line = head.headers.get(header::HOST).and_then(|line| line.to_str().ok());
        let host = forwarded("x-forwarded-host").or(authority).or(line).unwrap_or(host);
        format!("{scheme}://{host}{target}")
    }

    /// Other addresses under which a refused request may have been signed.
    #[must_use]
    pub fn other_urls(&self, entry: &Entry) -> Vec<String> {
        let target = entry.url.splitn(4, '/').nth(3).unwrap_or_default();
        let line = |name: &str| {
            let value = entry.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            value.and_then(|value| std::str::from_utf8(value).ok())
        };
        let hosts = [line("host"), line("x-forwarded-host")].into_iter().flatten();
        let hosts = hosts.flat_map(|host| ["https", "http"].map(|scheme| format!("{scheme}://{host}/{target}")));
        std::iter::once(format!("{}/{target}", self.public_url)).chain(hosts).collect()
    }

    /// What to paste at an endpoint's provider.
    #[must_use]
    pub fn url(&self, endpoint: &Endpoint) -> String {
        match endpoint.hosts.first() {
            Some(host) => format!("https://{host}"),
            None => format!("{}/{}", self.public_url, endpoint.name),
        }
    }

    /// The endpoints as agents may attach to them.
    #[must_use]
    pub fn attachable(&self) -> Vec<Attachable> {
        let attachable = |endpoint: &Arc<Endpoint>| Attachable {
            name: endpoint.name.as_str().to_owned(),
            url: self.url(endpoint),
            provider: endpoint.verify.provider_name().to_owned(),
            exclusive: endpoint.exclusive,
        };
        let mut all: Vec<_> = self.by_name.values().map(|Served(endpoint, _)| attachable(endpoint)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// [`Failure::BadHost`], [`Failure::BadRequest`] or [`Failure::UnknownEndpoint`].
    pub fn route<B>(&self, request: &Request<B>) -> Result<Routed, Failure> {
        let host = host_of(request)?;
        let target = request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        if !target.starts_with('/') {
            return Err(Failure::BadRequest);
        }
        if let Some(Served(endpoint, meter)) = self.by_host.get(host.as_str()).cloned() {
            return Ok(Routed::Endpoint { endpoint, meter, host, rest: target.to_owned() });
        }
        let (name, rest) = match target[1..].find(['/', '?']) {
            Some(end) => target[1..].split_at(end),
            None => (&target[1..], ""),
        };
        if name == "_relay" {
            return Ok(Routed::Relay { path: request.uri().path().to_owned() });
        }
        let Served(endpoint, meter) = self.by_name.get(name).cloned().ok_or(Failure::UnknownEndpoint)?;
        Ok(Routed::Endpoint { endpoint, meter, host, rest: rest.to_owned() })
    }
}

/// The one host that a request names, in lower case and without its port.
fn host_of<B>(request: &Request<B>) -> Result<String, Failure> {
    let mut lines = request.headers().get_all(header::HOST).iter();
    let line = match (lines.next(), lines.next()) {
        (Some(only), None) => Some(parse_host(only.as_bytes())?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Failure::BadHost),
    };
    let authority = match request.uri().authority() {
        Some(authority) => Some(parse_host(authority.as_str().as_bytes())?),
        None => None,
    };
    match (line, authority) {
        (Some(line), Some(authority)) if line != authority => Err(Failure::BadHost),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(Failure::BadHost),
    }
}

fn parse_host(text: &[u8]) -> Result<String, Failure> {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if !text.iter().all(name) {
        return Err(Failure::BadHost);
    }
    let authority = Authority::try_from(text).map_err(|_| Failure::BadHost)?;
    let host = authority.host();
    let port = &authority.as_str()[host.len()..];
    let lawful_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok());
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || !lawful_port { Err(Failure::BadHost) } else { Ok(host.to_ascii_lowercase()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(lines: &[&str]) -> Result<String, Failure> {
        let mut request = Request::get("/x");
        for line in lines {
            request = request.header("host", *line);
        }
        host_of(&request.body(()).expect("a request"))
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(host(&["Hook.Test:8080"]), Ok("hook.test".into()));
        assert_eq!(host(&["hook.test."]), Ok("hook.test".into()));
        assert_eq!(host(&["[::1]:80"]), Ok("[::1]".into()));
        for wrong in
            ["", "user@hook.test", "hook.test/x", "hook.test:99999", "hook.test:x", "a,b", "a b", "hook%2etest", "[::1"]
        {
            assert_eq!(host(&[wrong]), Err(Failure::BadHost), "{wrong}");
        }
        assert_eq!(host(&[]), Err(Failure::BadHost));
        assert_eq!(host(&["a", "a"]), Err(Failure::BadHost));
    }
}
