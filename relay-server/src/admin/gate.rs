//! Who may ask the admin API: a request that names this machine and shows the token.
//!
//! A page in a browser can reach loopback under a name of its own (DNS rebinding), so the host must be one that only
//! this machine has. Where no token is asked for, any address passes as well: no page can make one up. The token is
//! compared by its hash, in constant time.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq as _;

use crate::{
    agents::{bearer, token::TokenHash},
    api::{
        Api,
        who::{Asking, Who},
    },
    audit::{Actor, Deed},
    failure::{ApiError, ApiErrorKind},
    ingress::Client,
    store::AuditClass,
};

/// Whom it lets in.
#[derive(Clone)]
pub(crate) struct AdminGate {
    /// Names under which it is asked, beside localhost and addresses.
    pub hosts: Arc<[Arc<str>]>,
    pub token: TokenHash,
}

/// The address at which a connection was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(pub(super) SocketAddr);

/// For what needs no token: an address, this machine's own name, or a name of the config. A probe that speaks HTTP/1.0
/// may leave the host out; browsers do neither.
pub(super) async fn check_host(State(gate): State<AdminGate>, request: Request, next: Next) -> Response {
    let known = |host: Host| host.is_address() || host.is_named(&gate.hosts);
    let left_out = request.version() == Version::HTTP_10 && !request.headers().contains_key(header::HOST);
    if is_for(&request, known, left_out) {
        return next.run(request).await;
    }
    bad_host("ask for localhost, for an address, or for a name in server.admin_hosts")
}

fn bad_host(message: &'static str) -> Response {
    ApiError::new(ApiErrorKind::BadHost, message).into_response()
}

/// Says who asks. Whoever shows no token is nobody, and most of the API is not for nobody.
pub(super) async fn check(
    State((gate, api)): State<(AdminGate, Arc<Api>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let local = request.extensions().get::<Local>().copied();
    let ours = |host: Host| local.is_some_and(|local| host.is_at(local.0.ip())) || host.is_named(&gate.hosts);
    if !is_for(&request, ours, false) {
        return bad_host("ask for localhost, for this listener's own address, or for a name in server.admin_hosts");
    }
    if let Err(foreign) = same_origin(&request, "http") {
        return foreign.into_response();
    }
    let shown = bearer(request.headers());
    let asker = if shown.is_some_and(|shown| TokenHash::of(shown).0.ct_eq(&gate.token.0).into()) {
        Ok(Who::admin())
    } else {
        let why = "show the token of the file admin.token in the relay's state directory: Authorization: Bearer …";
        let (tokens, now) = (&api.services.routes.load().tokens, api.services.delivery.clock.now());
        let session = shown.and_then(|key| api.sessions.who(key, tokens, now));
        if session.is_none()
            && shown.is_some()
            && let Some(Client(address)) = request.extensions().get::<Client>()
        {
            let deed = Deed::new(Actor::nobody(*address), "auth", Some("admin".to_owned()));
            api.services.audit.note(AuditClass::Refused, deed, "unauthorized");
        }
        session.ok_or_else(|| ApiError::new(ApiErrorKind::Unauthorized, why))
    };
    request.extensions_mut().insert(Asking(asker));
    next.run(request).await
}

/// Fails where a browser says that another site's page asks. `same-site` is another one, too: ports are no sites, so
/// that any program of this machine with a page is one. A person may follow a link to the page itself: its files hold
/// nothing, and a browser runs no script of the other site there.
pub(super) fn same_origin(request: &Request, scheme: &str) -> Result<(), ApiError> {
    let headers = request.headers();
    let foreign = || ApiError::new(ApiErrorKind::Browser, "another site's page asks; only the relay's own may");
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|said| said == value);
    let follows_link = says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
        && *request.method() == Method::GET
        && relay_page::file(request.uri().path()).is_some();
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") && !follows_link {
        return Err(foreign());
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str));
    let own = host.map(|host| format!("{scheme}://{host}"));
    let is_own = own.is_some_and(|own| own.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
    if is_own && origins.next().is_none() { Ok(()) } else { Err(foreign()) }
}

/// What holds for every answer: nothing is guessed, framed or, unless it says so, kept by a browser.
pub(super) async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a request is for such a host by its `Host`, which may have been left out, and by its target where that names
/// one as well.
fn is_for(request: &Request, ours: impl Fn(Host) -> bool, left_out: bool) -> bool {
    (left_out || host(request.headers()).is_some_and(&ours))
        && request.uri().authority().is_none_or(|authority| Host::of(authority).is_some_and(&ours))
}

/// The one host that a request names.
enum Host {
    Address(IpAddr),
    Name(String),
}

fn host(headers: &HeaderMap) -> Option<Host> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    Host::of(&Authority::try_from(host.as_bytes()).ok()?)
}

impl Host {
    fn of(authority: &Authority) -> Option<Self> {
        let name = Some(authority.host()).filter(|_| !authority.as_str().contains('@'))?;
        Some(match name.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(name.to_ascii_lowercase()),
        })
    }

    fn is_address(&self) -> bool {
        matches!(self, Self::Address(_))
    }

    /// Whether it is loopback's name, or one of the config.
    fn is_named(&self, names: &[Arc<str>]) -> bool {
        matches!(self, Self::Name(name) if name == "localhost" || names.iter().any(|known| **known == **name))
    }

    /// Whether it is a name or address of loopback, or the address that the request came to.
    fn is_at(&self, local: IpAddr) -> bool {
        match self {
            Self::Address(address) => address.is_loopback() || address.to_canonical() == local.to_canonical(),
            Self::Name(name) => name == "localhost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &header::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_this_machines_own_names_are_taken_for_it() {
        let at = |hosts: &[&str], local: &str| {
            host(&lines(&header::HOST, hosts)).is_some_and(|host| host.is_at(local.parse().unwrap()))
        };
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]:9090", "192.0.2.7:9090"] {
            assert!(at(&[host], "192.0.2.7"), "{host}");
        }
        assert!(at(&["192.0.2.7"], "::ffff:192.0.2.7"));
        for host in ["", "evil.example", "localhost.evil.example", "192.0.2.8", "x@localhost", "127.0.0.1.nip.io"] {
            assert!(!at(&[host], "192.0.2.7"), "{host}");
        }
        assert!(!at(&[], "127.0.0.1") && !at(&["localhost", "localhost"], "127.0.0.1"));
    }

    #[test]
    fn without_a_token_any_address_passes_and_of_names_those_of_the_config() {
        let known = [Arc::from("relay.internal")];
        let passes = |hosts: &[&str]| {
            let host = host(&lines(&header::HOST, hosts));
            host.is_some_and(|host| host.is_address() || host.is_named(&known))
        };
        for host in ["127.0.0.1", "192.0.2.8:9090", "[2001:db8::1]:9090", "LocalHost:9090", "Relay.Internal:9090"] {
            assert!(passes(&[host]), "{host}");
        }
        for host in ["evil.example", "relay.internal.evil.example", "x@127.0.0.1", "127.0.0.1.nip.io", ""] {
            assert!(!passes(&[host]), "{host}");
        }
        assert!(!passes(&["127.0.0.1", "127.0.0.1"]) && !passes(&[]));
    }

    #[test]
    fn a_target_that_names_a_host_names_a_known_one() {
        let passes = |target: &str, host: Option<&str>| {
            let mut request = Request::new(axum::body::Body::empty());
            *request.uri_mut() = target.parse().unwrap();
            if let Some(host) = host {
                request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            is_for(&request, |host| host.is_address() || host.is_named(&[]), host.is_none())
        };
        assert!(passes("/metrics", Some("127.0.0.1")) && passes("/metrics", None));
        assert!(passes("http://localhost:9090/metrics", Some("127.0.0.1")));
        assert!(!passes("http://evil.example/metrics", Some("127.0.0.1")));
        assert!(!passes("http://evil.example/metrics", None) && !passes("/metrics", Some("evil.example")));
    }

    #[test]
    fn a_page_of_another_site_or_port_neither_reads_nor_acts() {
        let passes = |path: &str, lines: &[(&'static str, &str)]| {
            let mut request = Request::new(axum::body::Body::empty());
            *request.uri_mut() = path.parse().unwrap();
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("127.0.0.1:9090"));
            for (name, value) in lines {
                request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
            }
            same_origin(&request, "http").is_ok()
        };
        let api = "/api/v1/events";
        for site in ["same-origin", "none"] {
            assert!(passes(api, &[("sec-fetch-site", site)]), "{site}");
        }
        for site in ["same-site", "cross-site", ""] {
            assert!(!passes(api, &[("sec-fetch-site", site)]), "{site}");
        }
        assert!(passes(api, &[]) && passes(api, &[("origin", "http://127.0.0.1:9090")]));
        for origin in ["null", "http://127.0.0.1:3000", "https://127.0.0.1:9090", "http://evil.example"] {
            assert!(!passes(api, &[("origin", origin)]), "{origin}");
        }
        assert!(!passes(api, &[("origin", "http://127.0.0.1:9090"), ("origin", "null")]));
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(passes("/e/hook_1", &link) && !passes(api, &link) && !passes("/livez", &link));
        let framed = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert!(!passes("/", &framed));
    }

    #[test]
    fn the_token_is_shown_once_and_whole() {
        let token = TokenHash::of(b"rt_right");
        let with = |values: &[&str]| bearer(&lines(&header::AUTHORIZATION, values)).map(TokenHash::of) == Some(token);
        assert!(with(&["Bearer rt_right"]) && with(&["bearer  rt_right"]));
        for wrong in [&[][..], &["Bearer rt_wrong"], &["Basic rt_right"], &["rt_right"], &["Bearer rt_right"; 2]] {
            assert!(!with(wrong), "{wrong:?}");
        }
    }
}
