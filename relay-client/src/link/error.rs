//! Why there is no connection to the relay, told apart by what helps.
//!
//! Reads the relay's own words out of a refused upgrade. It never quotes the request, which holds the token.

use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

/// Bytes of a refusal that are read.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Characters of the relay's words that are shown.
const MAX_WORDS: usize = 300;

/// Why there is no connection to the relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Something answered, and said no.
    #[error("{}", refused_text(*.status, .code.as_deref(), .message.as_deref()))]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// The relay's word for the reason, such as `token_unknown`.
        code: Option<String>,
        /// The relay's sentence about it.
        message: Option<String>,
        /// When the relay asks to be tried again.
        retry_after: Option<Duration>,
    },
    /// Nothing answered, or nothing that can be believed.
    #[error("{0}")]
    Unreachable(String),
    /// Something answered that is no relay, or one of another generation.
    #[error("{0}")]
    Protocol(String),
}

impl LinkError {
    /// Whether the relay itself turned the agent away, so that trying again soon cannot help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                status.is_client_error()
                    && !matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Unreachable(_) | Self::Protocol(_) => false,
        }
    }

    /// Whether it is the token that the relay does not accept.
    #[must_use]
    pub fn is_token_refusal(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. })
    }

    /// When the relay asks to be tried again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::Protocol(_) => None,
        }
    }
}

/// What the relay's error bodies look like.
#[derive(Default, Deserialize)]
struct Words {
    error: Option<String>,
    message: Option<String>,
}

/// What an answer other than the upgrade means, with the relay's own words if it sent any.
pub(super) async fn of_answer(response: Response<Incoming>) -> LinkError {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map(Collected::to_bytes).unwrap_or_default();
    let words: Words = serde_json::from_slice(&body).unwrap_or_default();
    LinkError::Refused {
        status: head.status,
        code: words.error.as_deref().map(shown),
        message: words.message.as_deref().map(shown),
        retry_after: retry_after(&head.headers),
    }
}

/// What a failed exchange means.
pub(super) fn of_http(error: &hyper::Error) -> LinkError {
    if error.is_parse() {
        return LinkError::Protocol(format!("this is no relay: {error}"));
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return LinkError::Unreachable("the connection closed before the relay answered".to_owned());
    }
    LinkError::Unreachable(crate::reason::of_chain(error))
}

/// Seconds only; a relay of ours sends nothing else.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Words from the network as they may be printed: short, without control characters.
fn shown(words: &str) -> String {
    words.chars().filter(|char| !char.is_control()).take(MAX_WORDS).collect()
}

fn refused_text(status: StatusCode, code: Option<&str>, message: Option<&str>) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED => Some("the token is missing or not known there"),
        StatusCode::FORBIDDEN => Some("the token may not do this"),
        StatusCode::NOT_FOUND => Some("no relay answers at this address"),
        _ if status.is_redirection() => Some("it redirects; name the relay's own address"),
        _ => None,
    };
    let mut text = format!("HTTP {}", status.as_u16());
    if let Some(code) = code {
        text.push_str(&format!(" {code}"));
    }
    if let Some(words) = message.or(hint) {
        text.push_str(&format!(": {words}"));
    }
    text
}
