//! Which endpoint a request is for, by its host or by the first segment of its path.
//!
//! The host is checked here, since hyper does not: exactly one, a name or an address, without user
//! information. Paths are cut, never decoded or normalised; only for the log, where a request just misses an endpoint, is
//! the nearest looked for.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, Request, header, request::Parts, uri::Authority};
use percent_encoding::percent_decode_str;
use prometheus_client::metrics::counter::Counter;
use relay_schemes::Provider;

use crate::{
    address::is_local,
    agents::{
        attach_policy::{AttachPolicy, Attachable},
        token::Tokens,
    },
    endpoint::{Endpoint, MAX_NAME_BYTES},
    failure::SenderFault,
    message::known,
    metrics::{Meter, Metrics},
    quota::{TokenMeter, TokenMeters},
    throttle::Throttle,
    webhook::Front,
};

/// The routes that hold now.
pub(crate) type SharedRoutes = Arc<ArcSwap<Routes>>;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
}

pub(crate) type Trust = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Everything that a request is routed by; made anew on reload.
pub(crate) struct Routes {
    by_name: HashMap<String, Served>,
    by_host: HashMap<Arc<str>, Served>,
    /// Where browsers find the page.
    inspector: Option<Arc<str>>,
    /// Where canaries come in.
    canary: Option<CanaryRoute>,
    /// Who may attach.
    pub tokens: Tokens,
    trusted: Trust,
    public_url: String,
    /// Whether the config names it.
    named: bool,
    /// The config's word on scheme and host, where it trusts no proxy to say them.
    front: Option<Front>,
    /// Counts the requests to no endpoint.
    pub unrouted: Counter,
    /// Counts those that are signed rightly and dated in the future.
    pub future_dated: Counter,
}

/// Requests that just miss an endpoint: so many lines of the log in ten seconds, since strangers cause them.
static MISSED: Throttle<1, 10> = Throttle::new();

/// Looking for a name that is nearly right takes a look at each.
static COMPARED: Throttle<1, 128> = Throttle::new();

/// Segments of a path in which an endpoint's name is looked for.
const MAX_SEGMENTS: usize = 4;

/// How alike two names must be, of 1.
const ALIKE: f64 = 0.92;

#[derive(Clone)]
struct Served(Arc<Endpoint>, Arc<Meter>, Option<Arc<TokenMeter>>);

/// The way in for canaries.
pub(crate) struct CanaryRoute {
    pub path: &'static str,
    pub endpoint: Arc<Endpoint>,
    pub meter: Arc<Meter>,
}

/// Where a request goes.
pub(crate) enum Routed {
    /// To the relay itself, under `/_relay/`.
    Relay {
        path: String,
    },
    /// To the page and its API, which have a host of their own.
    Inspector,
    Endpoint(Matched),
}

/// A request's endpoint, and what of the request led there.
pub(crate) struct Matched {
    pub endpoint: Arc<Endpoint>,
    pub meter: Arc<Meter>,
    /// Of the token for whose use it counts.
    pub owner: Option<Arc<TokenMeter>>,
    pub host: String,
    /// What of the target is for the handler.
    pub rest: String,
}

impl Default for Routes {
    fn default() -> Self {
        let trusted = Box::new(|_| false);
        Self::new(&[], &Metrics::default(), Tokens::default(), trusted, String::new(), false, None)
    }
}

impl Routes {
    /// The routes to some endpoints. `public_url` has no slash at its end.
    pub(crate) fn new(
        endpoints: &[Arc<Endpoint>],
        metrics: &Metrics,
        tokens: Tokens,
        trusted: Trust,
        public_url: String,
        named: bool,
        front: Option<Front>,
    ) -> Self {
        let mut routes = Self {
            by_name: HashMap::new(),
            by_host: HashMap::new(),
            inspector: None,
            canary: None,
            tokens,
            trusted,
            public_url,
            named,
            front,
            unrouted: metrics.unrouted.clone(),
            future_dated: metrics.future_dated.clone(),
        };
        for endpoint in endpoints {
            let name = endpoint.name.as_str();
            metrics.conceal(name, !endpoint.verify.proves());
            let served = Served(Arc::clone(endpoint), metrics.meter(name), None);
            for host in &endpoint.hosts {
                routes.by_host.insert(Arc::clone(host), served.clone());
            }
            routes.by_name.insert(endpoint.name.as_str().to_owned(), served);
        }
        routes
    }

    /// With the page at this host.
    pub(crate) fn with_inspector(self, host: Option<Arc<str>>) -> Self {
        Self { inspector: host, ..self }
    }

    /// With what counts for each token.
    pub(crate) fn with_owners(mut self, meters: &TokenMeters) -> Self {
        let tokens = &self.tokens;
        for Served(endpoint, _, owner) in self.by_name.values_mut().chain(self.by_host.values_mut()) {
            let token = endpoint.owner.as_ref().and_then(|name| tokens.named(name));
            *owner = token.map(|token| meters.meter(&token.id, &token.name, &token.quotas));
        }
        self
    }

    /// With a way in for canaries.
    pub(crate) fn with_canary(self, canary: Option<CanaryRoute>) -> Self {
        Self { canary, ..self }
    }

    /// Whether a request came over TLS, up to the proxies that are trusted to say so.
    pub(crate) fn is_secure(&self, peer: Peer, headers: &HeaderMap) -> bool {
        let mut said = headers.get_all(&known::FORWARDED_PROTO).iter();
        let mut says_https = || matches!((said.next(), said.next()), (Some(said), None) if said == "https");
        peer.secure || (self.trusts(peer.address) && says_https())
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        (self.trusted)(address)
    }

    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.by_name.values().map(|Served(endpoint, ..)| endpoint)
    }

    pub(crate) fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.by_name.get(name).map(|Served(endpoint, ..)| endpoint)
    }

    /// The address under which a sender knows what it asked for: by the config's `public_url` where the path names the
    /// endpoint, else by what the request and a trusted proxy in front say.
    pub(crate) fn seen_url(&self, endpoint: &Endpoint, peer: Peer, head: &Parts, host: &str) -> String {
        let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let own_host = endpoint.hosts.iter().any(|own| **own == *host);
        if self.named && !own_host {
            return [&self.public_url, target].concat();
        }
        let said = self.trusts(peer.address).then_some(&head.headers);
        let forwarded = |name: &HeaderName| said?.get(name)?.to_str().ok();
        let secure = peer.secure || (self.named && self.public_url.starts_with("https:"));
        let scheme = match forwarded(&known::FORWARDED_PROTO) {
            Some(scheme @ ("http" | "https")) => scheme,
            _ if secure => "https",
            _ => "http",
        };
        let authority = head.uri.authority().map(Authority::as_str);
        let line = head.headers.get(header::HOST).and_then(|line| line.to_str().ok());
        let host = forwarded(&known::FORWARDED_HOST).or(authority).or(line).unwrap_or(host);
        let mut url = String::with_capacity(scheme.len() + "://".len() + host.len() + target.len());
        [scheme, "://", host, target].into_iter().for_each(|part| url.push_str(part));
        url
    }

    /// What stands in for the word of a proxy that is not trusted to say anything: whoever comes from this machine or
    /// its network, while senders come by a public address, comes through one.
    pub(crate) fn front(&self, endpoint: &Endpoint, peer: Peer, host: &str) -> Option<Front> {
        let front = self.front.as_ref().filter(|_| is_local(peer.address))?;
        let own_host = endpoint.hosts.iter().any(|own| **own == *host);
        let scheme = if peer.secure { "https" } else { front.scheme };
        Some(Front { scheme, host: front.host.clone().filter(|_| !own_host) })
    }

    pub(crate) fn public_url(&self) -> &str {
        &self.public_url
    }

    /// What to paste at an endpoint's provider.
    pub(crate) fn url(&self, endpoint: &Endpoint) -> String {
        match endpoint.hosts.first() {
            Some(host) => self.url_of_host(host),
            None => format!("{}/{}", self.public_url, endpoint.name),
        }
    }

    /// Where a host is reached that belongs to the page or to an endpoint; for any other: where the relay is.
    pub(crate) fn https(&self, host: &str) -> String {
        let is_own = self.inspector.as_deref() == Some(host) || self.by_host.contains_key(host);
        if is_own { self.url_of_host(host) } else { self.public_url.clone() }
    }

    /// The address of an endpoint's own host: scheme and port are those under which the relay itself is reached.
    fn url_of_host(&self, host: &str) -> String {
        let (scheme, rest) = self.public_url.split_once("://").unwrap_or(("https", ""));
        let authority = rest.split('/').next().unwrap_or_default();
        // An IPv6 address has colons of its own, inside brackets.
        let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = if is_port { format!(":{port}") } else { String::new() };
        format!("{scheme}://{host}{port}")
    }

    /// What agents may do with these endpoints.
    pub(crate) fn attach_policy(&self) -> AttachPolicy {
        let attachable = |endpoint: &Arc<Endpoint>| Attachable {
            name: endpoint.name.as_str().to_owned(),
            url: self.url(endpoint),
            provider: endpoint.verify.provider_name().to_owned(),
            exclusive: endpoint.exclusive,
            shows_credential: endpoint.verify.provider().is_some_and(Provider::shows_credential),
            credential_headers: match endpoint.verify.provider() {
                Some(provider) => provider.credential_headers().into_iter().map(str::to_owned).collect(),
                None => Vec::new(),
            },
        };
        let mut all: Vec<_> = self.by_name.values().map(|Served(endpoint, ..)| attachable(endpoint)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        AttachPolicy::new(self.tokens.clone(), all)
    }

    pub(crate) fn route<B>(&self, request: &Request<B>) -> Result<Routed, SenderFault> {
        let host = host_of(request)?;
        let target = request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        if !target.starts_with('/') {
            return Err(SenderFault::BadRequest);
        }
        if self.inspector.as_deref() == Some(host.as_str()) {
            return Ok(Routed::Inspector);
        }
        if !self.by_host.is_empty()
            && let Some(Served(endpoint, meter, owner)) = self.by_host.get(host.as_str()).cloned()
        {
            return Ok(Routed::Endpoint(Matched { endpoint, meter, owner, host, rest: target.to_owned() }));
        }
        let (name, rest) = match target[1..].find(['/', '?']) {
            Some(end) => target[1..].split_at(end),
            None => (&target[1..], ""),
        };
        if name == "_relay"
            && let Some(CanaryRoute { path, endpoint, meter }) = &self.canary
            && *path == target
        {
            let (endpoint, meter) = (Arc::clone(endpoint), Arc::clone(meter));
            return Ok(Routed::Endpoint(Matched { endpoint, meter, owner: None, host, rest: String::new() }));
        }
        if name == "_relay" {
            return Ok(Routed::Relay { path: request.uri().path().to_owned() });
        }
        let Some(Served(endpoint, meter, owner)) = self.by_name.get(name).cloned() else {
            self.say_missed(target);
            return Err(SenderFault::UnknownEndpoint);
        };
        Ok(Routed::Endpoint(Matched { endpoint, meter, owner, host, rest: rest.to_owned() }))
    }
}

impl Routes {
    /// Tells the log which endpoint a request may have been for. Its sender is not told: names can be secrets.
    fn say_missed(&self, target: &str) {
        let Some(near) = self.near(target) else { return };
        if let Some(held_back) = MISSED.pass("") {
            // The rest of the target may be anything, so only as much is said as leads to the name.
            let path = target.split('?').next().unwrap_or_default();
            let path: String = path.chars().take(2 * MAX_NAME_BYTES).collect();
            tracing::info!(%path, endpoint = near, held_back, "a request is for no endpoint, and just misses this one");
        }
    }

    /// The endpoint whose name stands in a path in another way than it is written: decoded, in other case, behind other
    /// segments, or with a letter that is wrong.
    fn near(&self, target: &str) -> Option<&str> {
        let path = target.split('?').next().unwrap_or_default();
        let path = percent_decode_str(path).decode_utf8_lossy().to_lowercase();
        let segments = path.split(['/', '\\']).map(|segment| segment.trim_matches(['.', ' ']));
        let segments: Vec<_> = segments.filter(|segment| !segment.is_empty()).take(MAX_SEGMENTS).collect();
        let exact = segments.iter().find_map(|segment| self.by_name.get_key_value(*segment));
        let names = || self.by_name.keys().map(String::as_str);
        exact.map(|(name, _)| name.as_str()).or_else(|| {
            let first = segments.first().filter(|first| first.len() <= MAX_NAME_BYTES)?;
            COMPARED.pass("")?;
            let alike = names().map(|name| (strsim::jaro_winkler(first, name), name));
            let nearest = alike.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
            Some(nearest.1).filter(|_| nearest.0 >= ALIKE)
        })
    }
}

/// The one host that a request names, in lower case and without its port.
pub(crate) fn host_of<B>(request: &Request<B>) -> Result<String, SenderFault> {
    let mut lines = request.headers().get_all(header::HOST).iter();
    let line = match (lines.next(), lines.next()) {
        (Some(only), None) => Some(parse_host(only.as_bytes())?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(SenderFault::BadHost),
    };
    let authority = match request.uri().authority() {
        Some(authority) => Some(parse_host(authority.as_str().as_bytes())?),
        None => None,
    };
    match (line, authority) {
        (Some(line), Some(authority)) if line != authority => Err(SenderFault::BadHost),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(SenderFault::BadHost),
    }
}

fn parse_host(text: &[u8]) -> Result<String, SenderFault> {
    // Most hosts are a name as it is looked up, mostly without a port.
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let (plain, port) = text.split_at(text.iter().position(|byte| !is_plain(byte)).unwrap_or(text.len()));
    if let (Some(last), Ok(plain)) = (plain.last(), std::str::from_utf8(plain))
        && *last != b'.'
        && (port.is_empty() || is_port(port))
    {
        return Ok(plain.to_owned());
    }
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if !text.iter().all(name) {
        return Err(SenderFault::BadHost);
    }
    let authority = Authority::try_from(text).map_err(|_| SenderFault::BadHost)?;
    let host = authority.host();
    let port = &authority.as_str()[host.len()..];
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_lawful = !host.is_empty() && (port.is_empty() || is_port(port.as_bytes()));
    if is_lawful { Ok(host.to_ascii_lowercase()) } else { Err(SenderFault::BadHost) }
}

/// Whether this is a colon, and a port or nothing behind it.
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return false };
    let number = digits.iter().try_fold(0_u16, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(lines: &[&str]) -> Result<String, SenderFault> {
        let mut request = Request::get("/x");
        for line in lines {
            request = request.header("host", *line);
        }
        host_of(&request.body(()).expect("a request"))
    }

    #[test]
    fn an_endpoints_own_host_is_reached_as_the_relay_is() {
        let url = |public: &str| {
            let (metrics, trust) = (Metrics::default(), Box::new(|_| false));
            let routes = Routes::new(&[], &metrics, Tokens::default(), trust, public.to_owned(), true, None);
            routes.url_of_host("gh.test")
        };
        for (public, expected) in [
            ("https://hooks.test", "https://gh.test"),
            ("https://hooks.test:8443", "https://gh.test:8443"),
            ("http://127.0.0.1:8080", "http://gh.test:8080"),
            ("http://[::1]", "http://gh.test"),
            ("http://[::1]:80/relay", "http://gh.test:80"),
        ] {
            assert_eq!(url(public), expected);
        }
    }

    #[test]
    fn a_request_names_one_host() {
        assert_eq!(host(&["Hook.Test:8080"]), Ok("hook.test".into()));
        assert_eq!(host(&["hook.test:8080"]), Ok("hook.test".into()));
        assert_eq!(host(&["hook.test:"]), Ok("hook.test".into()));
        assert_eq!(host(&["hook.test."]), Ok("hook.test".into()));
        assert_eq!(host(&["[::1]:80"]), Ok("[::1]".into()));
        for wrong in [
            "",
            ":80",
            "hook.test:+80",
            "user@hook.test",
            "hook.test/x",
            "hook.test:99999",
            "hook.test:x",
            "a,b",
            "a b",
            "hook%2etest",
            "[::1",
        ] {
            assert_eq!(host(&[wrong]), Err(SenderFault::BadHost), "{wrong}");
        }
        assert_eq!(host(&[]), Err(SenderFault::BadHost));
        assert_eq!(host(&["a", "a"]), Err(SenderFault::BadHost));
    }
}
