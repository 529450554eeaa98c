//! The table that the router and its document are both made of: one row for each operation.
//!
//! A path is added by a row in its file's `operations`; a row says who may ask, what is asked, and what is answered. So
//! no route is without its document, and the document speaks of no route that is not there.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts as _, RawPathParams, Request},
    handler::Handler,
    http::Method,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use parking_lot::Mutex;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Ref, RefOr, Schema, path::Parameter, path::ParameterIn},
};

use super::{Api, who};
use crate::{
    agents::token::Right,
    audit::{self, Audit, Deed},
    failure::ApiError,
    ingress::{Client, respond::of_api_error},
    store::AuditClass,
};

/// Who may ask. What may be done at which endpoint is for the handler to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing is needed.
    Nobody,
    /// Whoever is known.
    Anybody,
    /// This right, at some endpoint.
    Right(Right),
}

/// What is sent or answered, for the document.
#[derive(Clone)]
pub(crate) enum DocContent {
    Json { schema: String, schemas: Vec<(String, RefOr<Schema>)> },
    Other(&'static str),
}

impl DocContent {
    fn json<T: ToSchema>() -> Self {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        Self::Json { schema: T::name().into_owned(), schemas }
    }

    pub(super) fn reference(schema: &str) -> RefOr<Schema> {
        RefOr::Ref(Ref::from_schema_name(schema))
    }
}

/// How an operation comes into the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audited {
    /// It only reads.
    No,
    /// It has a row before it begins.
    As(&'static str),
    /// It changes nothing here, and may come often: it is noted behind.
    Behind(&'static str),
    /// It sees to that itself.
    ByItself,
}

/// What an operation says of itself for the audit log, while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditNote(Arc<Mutex<NotedDeed>>);

#[derive(Debug, Default)]
struct NotedDeed {
    object: Option<String>,
    detail: Option<String>,
}

impl AuditNote {
    /// To what it is done, where the address does not say so.
    pub(crate) fn object(&self, object: &str) {
        self.0.lock().object = Some(object.to_owned());
    }

    pub(crate) fn detail(&self, detail: impl Into<String>) {
        self.0.lock().detail = Some(detail.into());
    }
}

pub(crate) struct Operation {
    pub(super) method: Method,
    /// Behind the base, such as `/events/{id}`.
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    pub(super) summary: &'static str,
    pub(super) query: Vec<Parameter>,
    pub(super) takes: Option<DocContent>,
    pub(super) answers: Vec<(u16, DocContent)>,
    pub(super) audited: Audited,
    handler: MethodRouter<Arc<Api>>,
}

impl Operation {
    pub(crate) fn get<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, needs: Needs, handler: H) -> Self {
        Self::new(Method::GET, path, needs, on(MethodFilter::GET, handler))
    }

    pub(crate) fn post<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, needs: Needs, handler: H) -> Self {
        Self::new(Method::POST, path, needs, on(MethodFilter::POST, handler))
    }

    pub(crate) fn put<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, needs: Needs, handler: H) -> Self {
        Self::new(Method::PUT, path, needs, on(MethodFilter::PUT, handler))
    }

    pub(crate) fn delete<H: Handler<T, Arc<Api>>, T: 'static>(path: &'static str, needs: Needs, handler: H) -> Self {
        Self::new(Method::DELETE, path, needs, on(MethodFilter::DELETE, handler))
    }

    fn new(method: Method, path: &'static str, needs: Needs, handler: MethodRouter<Arc<Api>>) -> Self {
        let (summary, query, takes, answers) = ("", Vec::new(), None, Vec::new());
        Self { method, path, needs, summary, query, takes, answers, audited: Audited::No, handler }
    }

    /// What it does, in one line.
    pub(crate) fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    pub(crate) fn query<T: IntoParams>(mut self) -> Self {
        self.query.extend(T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    pub(crate) fn takes<T: ToSchema>(self) -> Self {
        Self { takes: Some(DocContent::json::<T>()), ..self }
    }

    pub(crate) fn answers<T: ToSchema>(mut self, status: u16) -> Self {
        self.answers.push((status, DocContent::json::<T>()));
        self
    }

    /// Answers something that is no JSON.
    pub(crate) fn answers_as(mut self, status: u16, kind: &'static str) -> Self {
        self.answers.push((status, DocContent::Other(kind)));
        self
    }

    pub(crate) fn audits(self, audited: Audited) -> Self {
        Self { audited, ..self }
    }

    /// With a look at who asks before it, and its rows of the audit log around it.
    pub(super) fn routed(&self, audit: &Arc<Audit>) -> MethodRouter<Arc<Api>> {
        let (needs, audited, audit) = (self.needs, self.audited, Arc::clone(audit));
        let layer = middleware::from_fn(move |request, next| {
            let audit = Arc::clone(&audit);
            async move {
                match audited {
                    Audited::No | Audited::ByItself => check(needs, request, next).await,
                    Audited::As(action) => in_sight(&audit, action, true, needs, request, next).await,
                    Audited::Behind(action) => in_sight(&audit, action, false, needs, request, next).await,
                }
            }
        });
        self.handler.clone().route_layer(layer)
    }
}

/// Runs an operation with its rows of the audit log. `before`: its row is kept first, or it is not done.
async fn in_sight(
    audit: &Arc<Audit>,
    action: &'static str,
    before: bool,
    needs: Needs,
    request: Request,
    next: Next,
) -> Response {
    // Whoever is not known was noted at the door.
    let Ok(who) = who::of(request.extensions()) else { return check(needs, request, next).await };
    let address = request.extensions().get::<Client>().map(|client| client.0);
    let (mut parts, body) = request.into_parts();
    let parameters = RawPathParams::from_request_parts(&mut parts, &()).await.ok();
    let object = parameters.and_then(|all| all.iter().next().map(|(_, value)| value.to_owned()));
    let mut request = Request::from_parts(parts, body);
    let deed = Deed::new(who.actor(address), action, object);
    if let Some(refused) = refusal(needs, &request) {
        audit.note(AuditClass::Refused, deed, of_api_error(refused.kind).1);
        return refused.into_response();
    }
    let note = AuditNote::default();
    request.extensions_mut().insert(note.clone());
    let begun = match before {
        true => match audit.begin(deed.clone()).await {
            Ok(begun) => Some(begun),
            Err(error) => return error.into_response(),
        },
        false => None,
    };
    let response = next.run(request).await;
    let error = response.extensions().get::<ApiError>();
    let result = error.map_or(audit::OK, |error| of_api_error(error.kind).1);
    let NotedDeed { object, detail } = std::mem::take(&mut *note.0.lock());
    match begun {
        Some(begun) => begun.end(result, object, detail).await,
        None => {
            let object = deed.object.clone().or(object);
            audit.note(AuditClass::Actions, Deed { object, detail, ..deed }, result);
        }
    }
    response
}

async fn check(needs: Needs, request: Request, next: Next) -> Response {
    match refusal(needs, &request) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

/// Why whoever asks may not.
fn refusal(needs: Needs, request: &Request) -> Option<ApiError> {
    match (needs, who::of(request.extensions())) {
        (Needs::Nobody, _) | (Needs::Anybody, Ok(_)) => None,
        (Needs::Right(right), Ok(who)) => (!who.holds(right)).then(|| who::lacks(right)),
        (_, Err(unknown)) => Some(unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_plain_read_is_in_the_audit_log() {
        let mut audited = 0;
        for operation in super::super::operations() {
            let reads = operation.method == Method::GET;
            assert!(reads || operation.audited != Audited::No, "{} {}", operation.method, operation.path);
            audited += usize::from(operation.audited != Audited::No);
        }
        assert!(audited > 20, "{audited}");
    }
}
