//! Who may ask the admin API: a request that names this machine and shows the token.
//!
//! A page in a browser can reach loopback under a name of its own (DNS rebinding), so the host must be one that only
//! this machine has. The token is compared by its hash, in constant time.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq as _;

use super::{Admin, api::error};
use crate::agents::token::TokenHash;

/// The address at which a connection was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(pub(super) SocketAddr);

pub(super) async fn check(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let local = request.extensions().get::<Local>().copied();
    if !local.is_some_and(|local| names_us(request.headers(), local.0.ip())) {
        return error(
            StatusCode::MISDIRECTED_REQUEST,
            "bad_host",
            "ask for localhost or for this listener's own address",
        );
    }
    if !shows(request.headers(), &admin.token) {
        let mut response = error(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "show the token of the file admin.token in the relay's state directory: Authorization: Bearer …",
        );
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    next.run(request).await
}

/// What holds for every answer: nothing is guessed, framed or kept by a browser.
pub(super) async fn harden(response: Response) -> impl IntoResponse {
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, response)
}

/// Whether the request's only host is a name of loopback or the address it came to.
fn names_us(headers: &HeaderMap, local: IpAddr) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(|address| address.is_loopback() || address.to_canonical() == local.to_canonical())
}

fn shows(headers: &HeaderMap, token: &TokenHash) -> bool {
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (credentials.next(), credentials.next()) else { return false };
    match only.as_bytes().split_at_checked(7) {
        Some((scheme, shown)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            TokenHash::of(shown.trim_ascii()).0.ct_eq(&token.0).into()
        }
        _ => false,
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
        let at = |hosts: &[&str], local: &str| names_us(&lines(&header::HOST, hosts), local.parse().unwrap());
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
    fn the_token_is_shown_once_and_whole() {
        let token = TokenHash::of(b"rt_right");
        let with = |values: &[&str]| shows(&lines(&header::AUTHORIZATION, values), &token);
        assert!(with(&["Bearer rt_right"]) && with(&["bearer  rt_right"]));
        for wrong in [&[][..], &["Bearer rt_wrong"], &["Basic rt_right"], &["rt_right"], &["Bearer rt_right"; 2]] {
            assert!(!with(wrong), "{wrong:?}");
        }
    }
}
