//! Why there is no connection to the relay, told apart by what helps.
//!
//! Reads the relay's own words out of a refused upgrade. It never quotes the request, which holds the token.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use relay_program::{
    http1::{self, AnswerHead, Connection, Http1Error},
    tls,
};
use relay_proto::CONNECT_PATH;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{RelayUrl, Token};

const MAX_BODY_BYTES: usize = 16 * 1024;
/// Characters of the relay's words that are shown.
const MAX_WORDS: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// Something answered, and said no.
    #[error("{}", refused_text(*.status, .code.as_deref(), .message.as_deref(), .server.as_deref()))]
    Refused {
        status: StatusCode,
        /// The relay's word for the reason, such as `token_unknown`.
        code: Option<String>,
        message: Option<String>,
        retry_after: Option<Duration>,
        /// What the one that answered calls itself.
        server: Option<String>,
    },
    /// Nothing answered, or nothing that can be believed.
    #[error("{0}")]
    Unreachable(String),
    /// Something answered that does not speak HTTP, or not as a relay does.
    #[error("{0}")]
    Protocol(String),
    /// Something agreed to an upgrade, and not to the one that was asked for.
    #[error("{0}")]
    OtherUpgrade(String),
}

/// Who turned an agent away that asked for its upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// The relay, in its own word: trying again soon cannot help.
    ByRelay,
    /// Something that gave no word of a relay: another program, or a proxy whose relay is away.
    ByStranger,
}

impl LinkError {
    /// Whether the answer to a question says no, so that asking again soon cannot help.
    pub(crate) fn is_refusal(&self) -> bool {
        let Self::Refused { status, .. } = self else { return false };
        status.is_client_error() && !matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
    }

    /// Who turned the agent away, where somebody did (PROTOCOL.md, section 1).
    pub(crate) fn turned_away(&self) -> Option<TurnedAway> {
        match self {
            Self::Refused { status, code, .. } if self.is_refusal() => {
                let own = [(401, "unauthorized"), (403, "browser"), (400, "not_an_upgrade")];
                let by_relay = own.iter().any(|(own, word)| status.as_u16() == *own && code.as_deref() == Some(word));
                Some(if by_relay { TurnedAway::ByRelay } else { TurnedAway::ByStranger })
            }
            Self::OtherUpgrade(_) => Some(TurnedAway::ByStranger),
            Self::Refused { .. } | Self::Unreachable(_) | Self::Protocol(_) => None,
        }
    }

    pub(crate) fn is_token_refusal(&self) -> bool {
        let token = matches!(self, Self::Refused { status: StatusCode::UNAUTHORIZED, .. });
        token && self.turned_away() == Some(TurnedAway::ByRelay)
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::Protocol(_) | Self::OtherUpgrade(_) => None,
        }
    }
}

#[derive(Default, Deserialize)]
struct Words {
    error: Option<String>,
    message: Option<String>,
}

/// What an answer other than the upgrade means, with the relay's own words if it sent any.
pub(super) async fn of_answer<S>(answer: &AnswerHead, connection: &mut Connection<S>) -> LinkError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let body = connection.collect(MAX_BODY_BYTES).await.unwrap_or_default();
    let words: Words = serde_json::from_slice(&body).unwrap_or_default();
    let said = |name| answer.headers.all(name).next().and_then(|value| std::str::from_utf8(value).ok());
    LinkError::Refused {
        status: answer.status,
        code: words.error.as_deref().map(shown),
        message: words.message.as_deref().map(shown),
        // Seconds only; a relay of ours sends nothing else.
        retry_after: said("retry-after").and_then(|value| value.trim().parse().ok()).map(Duration::from_secs),
        server: said("server").map(shown),
    }
}

/// How a user tells a relay from whatever else may have answered at its address.
pub(crate) fn how_to_tell(relay: &RelayUrl) -> String {
    let base = relay.to_string();
    format!(
        "that is no relay's answer, but another program's, or a proxy's whose relay is away; to tell, run \
         `curl -i {}{CONNECT_PATH}`: a relay answers 401 and {{\"error\":\"unauthorized\",…}}",
        base.trim_end_matches('/')
    )
}

pub(super) fn bearer(token: &Token) -> Result<HeaderValue, LinkError> {
    let bearer = http1::bearer(token.reveal());
    bearer.ok_or_else(|| LinkError::Protocol("the token cannot stand in a header".to_owned()))
}

pub(super) fn of_http(error: &Http1Error) -> LinkError {
    match error {
        Http1Error::Closed | Http1Error::CutOff => {
            LinkError::Unreachable("the connection closed before the relay answered".to_owned())
        }
        Http1Error::Io(io) => {
            LinkError::Unreachable(tls::identity_reason(io).map_or_else(|| error.to_string(), str::to_owned))
        }
        _ => LinkError::Protocol(format!("this is no relay: {error}")),
    }
}

/// Words from the network as they may be printed: short, without control characters.
fn shown(words: &str) -> String {
    words.chars().filter(|char| !char.is_control()).take(MAX_WORDS).collect()
}

fn refused_text(status: StatusCode, code: Option<&str>, message: Option<&str>, server: Option<&str>) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED if code.is_some() => Some("the token is missing or not known there"),
        StatusCode::FORBIDDEN if code.is_some() => Some("the token may not do this"),
        _ if status.is_redirection() => Some("it redirects; name the relay's own address"),
        _ => None,
    };
    let mut text = format!("HTTP {}", status.as_u16());
    if let Some(code) = code {
        text.push_str(&format!(" {code}"));
    } else if let Some(server) = server {
        text.push_str(&format!(" from {server}"));
    }
    if let Some(words) = message.or(hint) {
        text.push_str(&format!(": {words}"));
    }
    text
}
