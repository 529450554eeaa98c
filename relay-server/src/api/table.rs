//! The table that the router and its document are both made of: one row for each operation.
//!
//! A path is added by a row in its file's `operations`; a row says who may ask, what is asked, and what is answered. So
//! no route is without its document, and the document speaks of no route that is not there.

use std::sync::Arc;

use axum::{
    extract::Request,
    handler::Handler,
    http::Method,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Ref, RefOr, Schema, path::Parameter, path::ParameterIn},
};

use super::{Api, who};
use crate::{agents::token::Right, failure::ApiError};

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

pub(crate) struct Operation {
    pub(super) method: Method,
    /// Behind the base, such as `/events/{id}`.
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    pub(super) summary: &'static str,
    pub(super) query: Vec<Parameter>,
    pub(super) takes: Option<DocContent>,
    pub(super) answers: Vec<(u16, DocContent)>,
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
        Self { method, path, needs, summary, query, takes, answers, handler }
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

    /// With a look at who asks before it.
    pub(super) fn routed(&self) -> MethodRouter<Arc<Api>> {
        let needs = self.needs;
        self.handler.clone().route_layer(middleware::from_fn(move |request, next| check(needs, request, next)))
    }
}

async fn check(needs: Needs, request: Request, next: Next) -> Response {
    let asker = who::of(request.extensions());
    let refused: Option<ApiError> = match (needs, asker) {
        (Needs::Nobody, _) | (Needs::Anybody, Ok(_)) => None,
        (Needs::Right(right), Ok(who)) => (!who.holds(right)).then(|| who::lacks(right)),
        (_, Err(unknown)) => Some(unknown),
    };
    match refused {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}
