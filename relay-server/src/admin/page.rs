//! The page: its files, as they stand in this program, with the policy under which a browser runs them.
//!
//! No file takes anything of a webhook or of who asks into it, so anybody who reaches the listener gets them; what they
//! show is the API's to give.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use crate::api::nothing_here;

/// The file that a request is for.
pub(super) async fn serve(request: Request) -> Response {
    let file = relay_page::file(request.uri().path());
    let Some(file) = file.filter(|_| matches!(*request.method(), Method::GET | Method::HEAD)) else {
        return nothing_here(request).await.into_response();
    };
    let known = request.headers().get_all(header::IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let fresh = known.map(str::trim).any(|etag| etag == file.etag);
    let mut response = Response::new(if fresh { Body::empty() } else { Body::from(file.bytes.into_owned()) });
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(relay_page::CSP));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    if let Ok(etag) = HeaderValue::try_from(file.etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}
