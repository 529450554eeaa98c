//! Answers of the local page, with the headers that keep a browser from making more of them than they are.
//!
//! Every answer of this listener is made here: JSON, bytes that nothing runs, or an error in the form of the relay's
//! own (RFC 9457).

use std::{borrow::Cow, io};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use relay_program::api;
use serde::Serialize;

pub(super) type PageBody = UnsyncBoxBody<Bytes, io::Error>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What stands on every answer; what a file of the page needs otherwise it says itself.
const HARDENING: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Why there is no answer of another kind.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) status: u16,
    code: Cow<'static, str>,
    why: Cow<'static, str>,
}

impl Problem {
    pub(super) fn new(status: u16, code: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: code.into(), why: why.into() }
    }

    pub(super) fn nothing_here() -> Self {
        Self::new(404, "not_found", "there is nothing at this address of the agent's page")
    }

    pub(super) fn answer(&self, instance: &str) -> Response<PageBody> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = api::ProblemDetails {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status,
            detail: self.why.to_string(),
            instance: instance.to_owned(),
            code: self.code.to_string(),
            error: self.code.to_string(),
            message: self.why.to_string(),
            ..api::ProblemDetails::default()
        };
        let mut response = json(&problem);
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM);
        response
    }
}

pub(super) fn json(value: &impl Serialize) -> Response<PageBody> {
    // Strings, numbers and lists are JSON.
    let text = serde_json::to_vec(value).unwrap_or_default();
    with_type(whole(text), JSON)
}

/// A body that nothing runs: it can be saved, and read by a script of the page.
pub(super) fn octets(bytes: Bytes, name: &str) -> Response<PageBody> {
    let mut response = with_type(whole(bytes), OCTETS);
    response.headers_mut().insert(header::CONTENT_DISPOSITION, attachment(name));
    response
}

/// Under a name of letters, digits and a few marks; whatever else it has is left out.
pub(super) fn attachment(name: &str) -> HeaderValue {
    let plain = |char: &char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    let name: String = name.chars().filter(plain).take(80).collect();
    let name = name.trim_start_matches('.');
    let value = format!("attachment; filename=\"{}\"", if name.is_empty() { "body.bin" } else { name });
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"))
}

pub(super) fn whole(bytes: impl Into<Bytes>) -> PageBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn with_type(body: PageBody, kind: HeaderValue) -> Response<PageBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Adds what every answer carries and this one has not said itself.
pub(super) fn harden(response: &mut Response<PageBody>) {
    for (name, value) in HARDENING {
        response.headers_mut().entry(name).or_insert(value);
    }
}
