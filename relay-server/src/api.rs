//! The API: every path once, for all that ask.
//!
//! Three mounts put it behind a base of their own and say who asks ([`who::Asking`]): the admin listener at `/api/v1`, the
//! inspector's host at `/api/v1`, and the public listener at `/_relay/v1`. What is below does not know which it was.
//! A path is a row of [`table`]; router and document are made of the same rows.
//!
//! Invariants: an endpoint that whoever asks does not see is as one that does not exist; what one question may cost, and
//! how many one token has at a time, is bounded; an answer is kept by no cache.

mod about;
mod agents;
mod alerts;
pub(crate) mod ask;
mod audit;
mod bulk;
mod dead;
mod endpoints;
mod events;
mod export;
mod news;
mod openapi;
pub(crate) mod own_secret;
pub(crate) mod problem;
pub(crate) mod public;
mod refused;
mod replay;
pub(crate) mod sessions;
mod setup;
pub(crate) mod shapes;
mod table;
pub(crate) mod tokens;
pub(crate) mod who;

/// What questions are held to, for the table of all limits.
pub(crate) mod limits {
    pub(crate) use super::{
        ask::{BODY_PATIENCE, MAX_BODY_BYTES},
        sessions::{LOGINS_WINDOW, MAX_LOGINS, MAX_SESSIONS},
    };
}

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderValue, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use tokio::{sync::Semaphore, time::timeout};
use tower::ServiceExt;

use self::{sessions::PageSessions, table::Operation, who::Who};
use crate::{
    agents::token::{AgentToken, Right, Token, TokenHash},
    failure::{ApiError, ApiErrorKind},
    runtime_config::RuntimeConfig,
    services::Services,
    tally::Tally,
};

/// Questions of one token at a time, replays to its agents included.
const MAX_OF_TOKEN: usize = 16;

/// Questions of tokens that read at a time; more wait. The store reads three things at a time, and one of them is a
/// delivery's.
const MAX_READING: usize = 2;

/// How long reading may take, the wait for its turn included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every path works with.
pub(crate) struct Api {
    pub(crate) services: Services,
    pub(crate) runtime_config: Arc<RuntimeConfig>,
    pub(crate) sessions: PageSessions,
    /// The admin token's hash.
    admin: TokenHash,
    /// Where a browser finds the page.
    inspector_url: String,
    started_at: Timestamp,
    of_token: Tally<Arc<str>>,
    files_of_token: Tally<Arc<str>>,
    reading: Semaphore,
}

/// Where the API is mounted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mount {
    /// What stands before its paths.
    pub base: &'static str,
    /// Whether sessions of the page are opened here.
    pub sessions: bool,
    /// Whether they are a cookie, which needs TLS and a host of its own; else a key that the page sends as a header.
    pub cookie: bool,
}

fn operations() -> Vec<Operation> {
    let all = [
        about::operations(),
        openapi::operations(),
        problem::operations(),
        events::operations(),
        replay::operations(),
        bulk::operations(),
        dead::operations(),
        export::operations(),
        refused::operations(),
        sessions::operations(),
        tokens::operations(),
        agents::operations(),
        audit::operations(),
        alerts::operations(),
        setup::operations(),
        endpoints::operations(),
        news::operations(),
    ];
    all.into_iter().flatten().collect()
}

impl Api {
    pub(crate) fn build(
        services: &Services,
        runtime_config: &Arc<RuntimeConfig>,
        admin: TokenHash,
        inspector_url: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            services: services.clone(),
            runtime_config: Arc::clone(runtime_config),
            sessions: PageSessions::default(),
            admin,
            inspector_url,
            started_at: services.delivery.clock.now(),
            of_token: Tally::default(),
            files_of_token: Tally::default(),
            reading: Semaphore::new(MAX_READING),
        })
    }

    /// All paths behind the mount's base. The request's extensions must say who asks ([`who::Asking`]), and [`problem::place`]
    /// stands around it and whatever else the mount refuses.
    pub(crate) fn router(self: &Arc<Self>, mount: Mount) -> Router {
        let paths = operations()
            .iter()
            .fold(Router::new(), |router, one| router.route(one.path, one.routed(&self.services.audit)));
        let paths = paths
            .fallback(nothing_here)
            .method_not_allowed_fallback(|| async {
                ApiError::new(ApiErrorKind::Method, "this address has other methods")
            })
            .layer(middleware::from_fn_with_state(Arc::clone(self), take_turn))
            .layer(middleware::map_response(kept_by_nobody))
            .layer(Extension(mount))
            .with_state(Arc::clone(self));
        // `nest` knows the base without a slash behind it alone.
        let slashed = ServiceExt::<Request>::map_request(paths.clone(), |mut request: Request| {
            *request.uri_mut() = Uri::from_static("/");
            request
        });
        Router::new().nest(mount.base, paths).route_service(&format!("{}/", mount.base), slashed)
    }

    /// The address that opens the page and logs in. What stands behind the `#` is sent to nobody.
    pub(crate) fn page_url(&self, code: &AgentToken) -> String {
        format!("{}/#code={}", self.inspector_url, code.expose())
    }

    /// Whether whoever asks may have signatures made at an endpoint: by the right to, or since it made the endpoint and
    /// its secrets are no news to it.
    pub(crate) fn may_sign(&self, who: &Who, endpoint: &str) -> bool {
        let knows = |token: &Arc<Token>| self.runtime_config.view().knows_secrets(token, endpoint);
        who.may(Right::Sign, endpoint) || (who.may(Right::Create, endpoint) && who.own_token().is_some_and(knows))
    }

    /// Reads from the store. Tokens take turns, and none waits for ever.
    pub(crate) async fn reading<T>(
        &self,
        who: &Who,
        read: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        if who.own_token().is_none() {
            return read.await;
        }
        let in_turn = async {
            let _turn = self.reading.acquire().await;
            read.await
        };
        let slow = "this took too long; ask for less, such as a shorter time, or without a text";
        let slow = |_| ApiError::new(ApiErrorKind::Busy, slow);
        timeout(PATIENCE, in_turn).await.map_err(slow)?
    }
}

pub(crate) async fn nothing_here(request: Request) -> ApiError {
    who::of(request.extensions()).map_or_else(|unknown| unknown, |_| ApiError::nothing_here())
}

/// A token has a bounded number of questions at a time.
async fn take_turn(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let turn = match who::of(request.extensions()) {
        Ok(who) if who.own_token().is_some() => match api.of_token.take(Arc::clone(&who.name), MAX_OF_TOKEN) {
            Some(turn) => Some(turn),
            None => {
                let busy = "this token has too many questions at a time; wait for some of them";
                return ApiError::new(ApiErrorKind::TooManyQuestions, busy).into_response();
            }
        },
        _ => None,
    };
    let response = next.run(request).await;
    drop(turn);
    response
}

/// An answer is for the asker alone.
async fn kept_by_nobody(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
