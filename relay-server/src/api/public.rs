//! The API's mount on the public listener, for agents and their users: `/_relay/v1`, with the token that agents attach
//! with.
//!
//! Invariants: no page of a browser gets an answer; wrong tokens are counted for their address with those of agents that
//! attach.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::Request,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tower::{ServiceExt as _, service_fn, util::BoxCloneSyncService};

use super::{
    Api, Mount, problem,
    who::{Asking, Who},
};
use crate::{
    agents::Turned,
    client_certificate::ClientCertificate,
    failure::{ApiError, ApiErrorKind},
    ingress::{API_BASE, Client, OwnService, respond},
    webhook::input::RequestBody,
};

const MOUNT: Mount = Mount { base: API_BASE, sessions: false, cookie: false };

impl Api {
    /// What the public listener hands its own requests to.
    pub(crate) fn public(self: &Arc<Self>) -> OwnService {
        let router = self
            .router(MOUNT)
            .layer(middleware::from_fn_with_state(Arc::clone(self), say_who))
            .layer(middleware::from_fn_with_state(MOUNT, problem::place));
        own_service(router)
    }
}

/// A router as the public listener calls it.
pub(crate) fn own_service(router: Router) -> OwnService {
    BoxCloneSyncService::new(service_fn(move |request: Request<RequestBody>| {
        let router = router.clone();
        async move { router.oneshot(request.map(Body::new)).await.map(respond::own) }
    }))
}

async fn say_who(State(api): State<Arc<Api>>, mut request: Request<Body>, next: Next) -> Response {
    if request.headers().contains_key("sec-fetch-site") {
        return ApiError::from(Turned::Browser).into_response();
    }
    let asker = match request.extensions().get::<Client>() {
        Some(Client(address)) => {
            let (routes, services) = (api.services.routes.load(), &api.services);
            let certificate = request.extensions().get::<Arc<ClientCertificate>>();
            let shown = services.agents.authenticate(*address, request.headers(), certificate, &routes.tokens);
            shown.map(Who::token).map_err(ApiError::from)
        }
        None => Err(ApiError::new(ApiErrorKind::Internal, "nobody said where this comes from")),
    };
    if let Err(ApiError { kind: ApiErrorKind::Browser, .. }) = &asker {
        return ApiError::from(Turned::Browser).into_response();
    }
    request.extensions_mut().insert(Asking(asker));
    next.run(request).await
}
