//! How questions are read and answers written: queries, JSON bodies, JSON answers, bytes.
//!
//! What cannot be read is an [`ApiError`]. Of a body that cannot be read nothing is repeated, since a secret may stand
//! in it. Bodies are bounded in size and in time.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use parking_lot::Mutex;
use relay_proto::{names, printable};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::failure::{ApiError, ApiErrorKind};

/// Largest body of a question, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

/// A question's body must be there after this long.
pub(crate) const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// By when an answer is to be there. Whoever knows that it takes longer puts that off, as long as few do at a time.
#[derive(Clone)]
pub(crate) struct AnswerBy {
    until: Arc<Mutex<(Instant, Option<OwnedSemaphorePermit>)>>,
    longer: Arc<Semaphore>,
    /// It has been put off.
    pub(crate) lasts: CancellationToken,
}

impl AnswerBy {
    /// In so long. `longer` has the places of those that take longer.
    pub(crate) fn new(patience: Duration, longer: Arc<Semaphore>, lasts: CancellationToken) -> Self {
        Self { until: Arc::new(Mutex::new((Instant::now() + patience, None))), longer, lasts }
    }

    fn put_off(&self, by: Duration) -> Result<(), ApiError> {
        let mut until = self.until.lock();
        if until.1.is_none() {
            let busy = || ApiError::new(ApiErrorKind::Busy, "too many long answers are awaited; wait for some of them");
            until.1 = Some(Arc::clone(&self.longer).try_acquire_owned().map_err(|_| busy())?);
        }
        until.0 += by;
        self.lasts.cancel();
        Ok(())
    }

    /// The answer, if it is there in time.
    pub(crate) async fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T, ApiError> {
        let mut answer = pin!(answer);
        loop {
            let until = self.until.lock().0;
            match timeout_at(until, answer.as_mut()).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.until.lock().0 > until => {}
                Err(_) => return Err(ApiError::new(ApiErrorKind::Timeout, "this took too long")),
            }
        }
    }
}

/// Says that the answer to this question takes so much longer than others.
pub(super) fn takes_longer(extensions: &Extensions, by: Duration) -> Result<(), ApiError> {
    extensions.get::<AnswerBy>().map_or(Ok(()), |answer| answer.put_off(by))
}

const MAX_QUERY_BYTES: usize = 4096;

/// A question's query.
pub(crate) struct AskedQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for AskedQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        if query.len() > MAX_QUERY_BYTES {
            return Err(ApiError::bad_request(format!("the query is longer than {MAX_QUERY_BYTES} bytes")));
        }
        let read = serde_urlencoded::from_str(query);
        read.map(Self).map_err(|error| ApiError::bad_request(format!("the query cannot be read: {error}")))
    }
}

/// A question's body as JSON.
pub(crate) struct GivenBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for GivenBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let body = collect(request).await?;
        parsed(&body).map(Self)
    }
}

/// A question's body as JSON, where it has one.
pub(crate) async fn given_or_none<T: DeserializeOwned>(request: Request) -> Result<Option<T>, ApiError> {
    if request.body().is_end_stream() {
        return Ok(None);
    }
    let body = collect(request).await?;
    if body.is_empty() { Ok(None) } else { parsed(&body).map(Some) }
}

async fn collect(request: Request) -> Result<Bytes, ApiError> {
    check_type(request.headers())?;
    let whole = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let slow = |_| ApiError::new(ApiErrorKind::Timeout, "the body did not come in time");
    let whole = timeout(BODY_PATIENCE, whole).await.map_err(slow)?;
    whole.map(http_body_util::Collected::to_bytes).map_err(|why| {
        if why.is::<LengthLimitError>() {
            return ApiError::new(ApiErrorKind::BodyTooLarge, "this is more than 1 MiB");
        }
        ApiError::bad_request("the body did not come whole")
    })
}

/// A page of another site can send text and forms without being asked about it, and no JSON. Programs may leave it out.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = kind.map(|kind| kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii());
    let browser = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    match essence {
        Some(kind) if kind.eq_ignore_ascii_case(b"application/json") => Ok(()),
        None if !browser => Ok(()),
        _ => Err(ApiError::bad_request("send JSON: Content-Type: application/json")),
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|why| {
        let kind = match why.classify() {
            serde_json::error::Category::Data => "has other members than it should",
            _ => "is not JSON",
        };
        ApiError::bad_request(format!("the body {kind} (line {}, column {})", why.line(), why.column()))
    })
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    // Whoever asks with curl has it on a terminal.
    (status, content_type, format!("{}\n", printable::lines(&json!(value).to_string()))).into_response()
}

pub(crate) fn ok(value: &impl Serialize) -> Response {
    answer(StatusCode::OK, value)
}

/// Bytes that somebody else wrote: no browser shows or runs them.
pub(crate) fn bytes(bytes: Bytes, of: u64, name: &str) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    if let Ok(named) = HeaderValue::try_from(format!("attachment; filename=\"{name}.bin\"")) {
        headers.insert(header::CONTENT_DISPOSITION, named);
    }
    headers.insert(names::BODY_SIZE, HeaderValue::from(of));
    response
}

/// From which byte to which a question's `Range` asks; the end is open where it is not said. Anything but one range of
/// bytes counts as none (RFC 9110, section 14.2).
pub(crate) fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (from, to) = text.split_once('-')?;
    let from = from.parse().ok()?;
    let to = if to.is_empty() { None } else { Some(to.parse::<u64>().ok().filter(|to| *to >= from)?) };
    Some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn one_range_of_bytes_is_read_and_anything_else_is_none() {
        let read = |value| range(&headers(header::RANGE, value));
        assert_eq!(read("bytes=5-"), Some((5, None)));
        assert_eq!(read("bytes=0-9"), Some((0, Some(9))));
        for other in ["bytes=9-5", "bytes=-5", "bytes=1-2,4-5", "lines=1-2", "bytes=a-", ""] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_page_could_send_unasked_is_no_json() {
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(check_type(&headers(header::CONTENT_TYPE, kind)).is_ok(), "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"] {
            assert!(check_type(&headers(header::CONTENT_TYPE, kind)).is_err(), "{kind}");
        }
        assert!(check_type(&HeaderMap::new()).is_ok());
        assert!(check_type(&headers(header::ORIGIN, "http://127.0.0.1:9090")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_longer_where_that_is_said_and_few_do() {
        const PATIENCE: Duration = Duration::from_secs(30);
        let (longer, lasts) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
        let by = || AnswerBy::new(PATIENCE, Arc::clone(&longer), lasts.clone());
        let begun = Instant::now();
        let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        assert!(by().wait(after(31)).await.is_err());
        assert_eq!(begun.elapsed(), PATIENCE);
        let (slow, other) = (by(), by());
        let answer = async {
            after(20).await;
            slow.put_off(Duration::from_secs(60)).expect("there is a place");
            assert!(lasts.is_cancelled());
            assert_eq!(other.put_off(PATIENCE).map_err(|why| why.kind), Err(ApiErrorKind::Busy));
            after(60).await;
        };
        slow.wait(answer).await.expect("in time");
        drop(slow);
        other.put_off(PATIENCE).expect("the place is free again");
    }
}
