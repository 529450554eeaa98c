//! Errors of the API as problem documents (RFC 9457), and what each code means.
//!
//! An [`ApiError`] becomes a whole answer by itself; [`place`] then says where it happened. Statuses and codes are
//! `ingress::respond`'s.

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use relay_program::api::ProblemDetails;
use relay_proto::printable;
use serde_json::json;

use super::{
    Api, Mount,
    table::{Needs, Operation},
};
use crate::{
    failure::{ApiError, ApiErrorKind},
    ingress::respond::{of_api_error, retry_after_s},
};

const CONTENT_TYPE: &str = "application/problem+json";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/problems/{code}", Needs::Nobody, show)
            .says("What an error's code means, and what to do")
            .answers_as(200, "text/plain"),
    ]
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        write(&self, "/api/v1", "")
    }
}

fn write(error: &ApiError, base: &str, instance: &str) -> Response {
    let (status, code) = of_api_error(error.kind);
    let retry_after_s = retry_after_s(error.kind);
    let problem = ProblemDetails {
        kind: format!("{base}/problems/{code}"),
        title: words(error.kind).0.to_owned(),
        status: status.as_u16(),
        detail: error.message.to_string(),
        instance: instance.to_owned(),
        code: code.to_owned(),
        error: code.to_owned(),
        message: error.message.to_string(),
        at: error.at,
        in_force: error.in_force.clone(),
        retry_after_s,
    };
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))];
    // Whoever asks with curl has it on a terminal.
    let text = format!("{}\n", printable::lines(&json!(problem).to_string()));
    let mut response = (status, content_type, text).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.extensions_mut().insert(error.clone());
    response
}

/// Says of each error where it happened. What the router itself has no answer to becomes a problem as well.
pub(crate) async fn place(State(mount): State<Mount>, request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let response = next.run(request).await;
    let error = response.extensions().get::<ApiError>().cloned();
    let error = error.or_else(|| match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => Some(ApiError::new(ApiErrorKind::Method, "this address has other methods")),
        // What the router says by itself is a text.
        StatusCode::BAD_REQUEST if !response.headers().contains_key(header::CONTENT_SECURITY_POLICY) => {
            Some(ApiError::bad_request("the address cannot be read"))
        }
        _ => None,
    });
    let Some(error) = error else { return response };
    let mut placed = write(&error, mount.base, &instance);
    for name in [header::ALLOW, header::CONTENT_RANGE] {
        if let Some(value) = response.headers().get(&name) {
            placed.headers_mut().insert(name, value.clone());
        }
    }
    placed
}

async fn show(State(_): State<Arc<Api>>, Path(code): Path<String>) -> Result<Response, ApiError> {
    let kind = ApiErrorKind::ALL.into_iter().find(|kind| of_api_error(*kind).1 == code);
    let kind = kind.ok_or_else(|| ApiError::not_found("no error has this code"))?;
    let ((status, code), (title, text)) = (of_api_error(kind), words(kind));
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
    Ok((content_type, format!("{code} ({})\n{title}.\n{text}\n", status.as_u16())).into_response())
}

/// A short title that is the same for each occurrence, and what to do.
const fn words(kind: ApiErrorKind) -> (&'static str, &'static str) {
    match kind {
        ApiErrorKind::BadRequest => {
            ("The question cannot be read", "The detail says which part; ask again without it.")
        }
        ApiErrorKind::BadId => ("This is no event's id", "An id is hook_ and 32 hexadecimal digits."),
        ApiErrorKind::BadConfig => ("The config is wrong", "The detail says where; nothing was changed."),
        ApiErrorKind::BadEdit => {
            ("No request can be made of this", "The detail says which part; change it, and replay again.")
        }
        ApiErrorKind::BadRange => ("The body ends before this part", "The header Content-Range says how long it is."),
        ApiErrorKind::BodyTooLarge => ("The request is too large", "Send at most 1 MiB."),
        ApiErrorKind::NotFound => ("There is no such thing", "It is not there, or not open to whoever asks."),
        ApiErrorKind::Method => ("This address has other methods", "The header Allow names them."),
        ApiErrorKind::NotAnUpgrade => {
            ("This is no upgrade to WebSocket", "Agents connect by WebSocket with the subprotocol relay.v1.")
        }
        ApiErrorKind::BadHost => {
            ("The relay is not asked under this name", "Ask for localhost, or add the name to server.admin_hosts.")
        }
        ApiErrorKind::Browser => {
            ("Pages of other sites may not ask", "Ask from the relay's own page, or by a program.")
        }
        ApiErrorKind::Unauthorized => {
            ("Nobody is known to ask", "Show a token that the relay knows: Authorization: Bearer TOKEN.")
        }
        ApiErrorKind::TooManyGuesses { .. } => ("Too many wrong tokens came", "Wait as long as Retry-After says."),
        ApiErrorKind::TooManyLogins { .. } => ("Too many logins were tried", "Wait as long as Retry-After says."),
        ApiErrorKind::TooManySessions => ("Too many sessions are open", "End some of them, or wait."),
        ApiErrorKind::TooManyQuestions => ("Too many questions are under way", "Wait for some of them."),
        ApiErrorKind::TooManyStreams => ("Too many streams are open", "Close another tab or another `event tail`."),
        ApiErrorKind::TooManyBulks => {
            ("Too many actions on many events are open", "Wait until one is finished, or stop one: DELETE /bulks/ID.")
        }
        ApiErrorKind::TooManyEndpoints => (
            "The token has as many endpoints as it may",
            "Delete one of them, or have `max_endpoints` of the token raised.",
        ),
        ApiErrorKind::MayNotRead => ("The right `read` is missing", "Add it to the token's `rights`."),
        ApiErrorKind::MayNotReplay => {
            ("The right `replay` is missing", "Add it to the token's `rights`, or replay to your own agent.")
        }
        ApiErrorKind::MayNotSign => {
            ("The right `sign` is missing", "Add it to the token's `rights`, or keep the signature.")
        }
        ApiErrorKind::MayNotSkip => ("The right `skip` is missing", "Add it to the token's `rights`."),
        ApiErrorKind::MayNotAct => ("The right `act` is missing", "Add it to the token's `rights`."),
        ApiErrorKind::MayNotCreate => ("The right `create` is missing", "Add it to the token's `rights`."),
        ApiErrorKind::MayNotAdmin => {
            ("The right `admin` is missing", "Ask with the admin token, or add it to the token's `rights`.")
        }
        ApiErrorKind::NeedsAttach => (
            "The right `attach` is missing",
            "What lets its bearer in stands in the request, so `read` alone does not show it.",
        ),
        ApiErrorKind::Conflict => ("It contradicts what is there", "The detail says what."),
        ApiErrorKind::WrongState => ("It cannot be done in this state", "Look at the event again: it has moved on."),
        ApiErrorKind::Exists => ("The name is taken", "Choose another, or remove the one that has it."),
        ApiErrorKind::FromFile => ("The config file has it", "Change it there and reload."),
        ApiErrorKind::EventsWait => ("Events of it wait", "Deliver them first, or force it, which cancels them."),
        ApiErrorKind::EndpointGone => ("Its endpoint is gone", "Make an endpoint of this name again."),
        ApiErrorKind::Live => ("A live endpoint keeps nothing", "Set its mode to assured or durable."),
        ApiErrorKind::AgentNotAttached => ("The agent is not attached", "Start `relay-client listen` first."),
        ApiErrorKind::CannotSign => {
            ("Only its provider can sign this", "Replay it with the signature that it came with.")
        }
        ApiErrorKind::Damaged => (
            "What is stored is not what was taken in",
            "Look at the disk of the store; the sender has to send it again.",
        ),
        ApiErrorKind::Busy => ("The relay is busy", "The same question succeeds a moment later."),
        ApiErrorKind::Timeout => ("It took too long", "Ask for less."),
        ApiErrorKind::StoreFailed => ("The store failed", "The relay's log says how."),
        ApiErrorKind::Internal => ("The relay failed", "The relay's log says how."),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_stands_once_and_has_its_words() {
        let codes: HashSet<_> = ApiErrorKind::ALL.into_iter().map(|kind| of_api_error(kind).1).collect();
        assert_eq!(codes.len(), ApiErrorKind::ALL.len());
        for kind in ApiErrorKind::ALL {
            let (title, text) = words(kind);
            assert!(!title.is_empty() && !title.ends_with('.') && text.ends_with('.'), "{kind:?}");
        }
    }
}
