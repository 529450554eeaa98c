//! The page and the API on the public listener, under a host name of their own (`server.inspector_host`).
//!
//! Who asks is the session of the page that a cookie stands for. No token is one here as it is: it opens a session, as on
//! loopback. A browser sends the cookie by itself, so whatever is not a plain read must also say that this very page asks.
//! Invariants: nothing is answered, and no cookie set, unless the way is known to be TLS; a request of another site, or of
//! another port of this host, has no answer.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};

use super::{gate, page};
use crate::{
    api::{Api, Mount, problem, public::own_service, sessions::COOKIE, who::Asking},
    failure::{ApiError, ApiErrorKind},
    ingress::{OwnService, Secure},
};

const MOUNT: Mount = Mount { base: "/api/v1", sessions: true, cookie: true };

/// What answers at the page's own host.
pub(crate) fn inspector(api: &Arc<Api>) -> OwnService {
    own_service(
        api.router(MOUNT)
            .fallback(page::serve)
            .layer(middleware::from_fn_with_state(Arc::clone(api), say_who))
            .layer(middleware::from_fn_with_state(MOUNT, problem::place))
            .layer(middleware::map_response(gate::harden)),
    )
}

async fn say_who(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if !request.extensions().get::<Secure>().is_some_and(|Secure(secure)| *secure) {
        let why = "ask for this name over https; a proxy in front says so with X-Forwarded-Proto, and stands in \
            server.trusted_proxies";
        return ApiError::new(ApiErrorKind::BadHost, why).into_response();
    }
    if let Err(foreign) = of_own_page(&request) {
        return foreign.into_response();
    }
    let (tokens, now) = (&api.services.routes.load().tokens, api.services.delivery.clock.now());
    let session = cookie(request.headers()).and_then(|key| api.sessions.who(key.as_bytes(), tokens, now));
    let why = "log in: with a code of relay-server inspect, or with a token";
    let asker = session.ok_or_else(|| ApiError::new(ApiErrorKind::Unauthorized, why));
    request.extensions_mut().insert(Asking(asker));
    next.run(request).await
}

/// Fails unless the relay's own page asks, or a person follows a link to it. Browsers say where anything comes from that is
/// no plain read, and only browsers have a cookie to lose.
fn of_own_page(request: &Request) -> Result<(), ApiError> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && !request.headers().contains_key(header::ORIGIN) {
        return Err(ApiError::new(ApiErrorKind::Browser, "say which page asks: send its Origin"));
    }
    gate::same_origin(request, "https")
}

/// The session's key, where there is one and no other.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';'));
    let mut ours = pairs.filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    match (ours.next(), ours.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::HeaderValue};

    use super::*;

    #[test]
    fn the_cookie_is_the_one_of_this_name() {
        let key = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (header::COOKIE, HeaderValue::from_static(line)));
            cookie(&lines.collect()).map(str::to_owned)
        };
        for lines in [&["__Host-relay=rk_1"][..], &["a=b; __Host-relay=rk_1;c=d"], &["a=b", "__Host-relay=rk_1"]] {
            assert_eq!(key(lines).as_deref(), Some("rk_1"), "{lines:?}");
        }
        for lines in [&[][..], &["relay=rk_1"], &["__Host-relay2=rk_1"], &["__Host-relay=1; __Host-relay=2"]] {
            assert_eq!(key(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_plain_read_says_which_page_asks() {
        let passes = |method: Method, lines: &[(&'static str, &'static str)]| {
            let mut request = Request::new(Body::empty());
            (*request.method_mut(), *request.uri_mut()) = (method, "/api/v1/events".parse().unwrap());
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("inspect.example"));
            for (name, value) in lines {
                request.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            of_own_page(&request).is_ok()
        };
        let ours = ("origin", "https://inspect.example");
        assert!(passes(Method::GET, &[]) && passes(Method::POST, &[ours]) && passes(Method::DELETE, &[ours]));
        assert!(!passes(Method::POST, &[]) && !passes(Method::DELETE, &[("sec-fetch-site", "same-origin")]));
        for foreign in ["http://inspect.example", "https://inspect.example:8443", "https://example", "null"] {
            assert!(!passes(Method::POST, &[("origin", foreign)]), "{foreign}");
        }
        assert!(!passes(Method::GET, &[("sec-fetch-site", "same-site")]));
    }
}
